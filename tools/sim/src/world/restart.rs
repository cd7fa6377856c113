//! Nodes that end and come back, with what their disks kept.
//!
//! A process that ends leaves its disk as it was; a machine that ends loses and tears what no sync had
//! covered. A node in memory comes back empty. What must be there again is noted when a node ends and
//! compared when its log is opened: nothing that a sync covered is lost, whatever was cut, and what
//! cannot be read is said to be damaged.

use replog::node::Storage as _;
use replog::store::faulty::FaultyFs;
use replog::store::{OpenError, Recovery};
use replog::types::Seq;

use super::carrier::{new_master, new_secondary};
use super::check::Ghost;
use super::master::MasterNode;
use super::secondary::SecondaryNode;
use super::store::{DIR, Left, SimStore};
use super::{Event, World};
use crate::plan::{DiskSetup, Fault};
use crate::rng::Rng;
use crate::sometimes::Sometimes;

/// About so many calls a repair of a small segment makes.
const WORK_OPERATIONS: u64 = 16;

/// A node's disk.
pub(super) struct Disk {
    pub(super) fs: FaultyFs,
    left: Left,
    /// The machine went down, which its files have not seen yet …
    machine: bool,
    /// … or have, since the log was opened.
    lost_machine: bool,
    /// Bits were flipped, or files erased or brought back.
    pub(super) hurt: bool,
    /// Bits flipped in the log.
    pub(super) flips: u64,
    /// The directory was brought back from an earlier time.
    pub(super) rolled_back: bool,
    /// An older state of the directory.
    old: Option<FaultyFs>,
    /// The directory is to be replaced before the next start.
    replace: Option<Replace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replace {
    Wiped,
    RolledBack,
}

impl Disk {
    pub(super) fn new(fs: FaultyFs) -> Self {
        let left = Left::default();
        let (machine, lost_machine, hurt, rolled_back) = (false, false, false, false);
        let (old, replace) = (None, None);
        let flips = 0;
        Disk { fs, left, machine, lost_machine, hurt, flips, rolled_back, old, replace }
    }

    fn wipe(&mut self) {
        self.fs.wipe();
    }
}

/// The log of a node that was never there before.
pub(super) fn open_new(disks: &[Option<Disk>], node: usize, setup: Option<&DiskSetup>) -> SimStore {
    match (&disks[node], setup) {
        (Some(disk), Some(setup)) => match SimStore::open(&disk.fs, node, setup) {
            Ok((store, _)) => store,
            Err(error) => unreachable!("BUG: an empty disk without faults: {error}"),
        },
        _ => SimStore::in_memory(),
    }
}

impl World {
    /// After a turn: a driver whose disk failed ends its node.
    pub(super) fn ends_by_itself(&mut self, node: usize) -> bool {
        if !std::mem::take(&mut self.hosts[node].failed) {
            return false;
        }
        self.end(node, false, false);
        self.come_up_later(node);
        true
    }

    fn come_up_later(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let (life, wait) = (host.life, host.rng.within(100_000, 2_000_000));
        self.queue.push(self.now + wait, Event::Restart { node, life });
    }

    /// A process ends. `silent`: nobody is told; `machine`: its page cache goes with it.
    pub(super) fn end(&mut self, node: usize, silent: bool, machine: bool) {
        if !self.hosts[node].up {
            return;
        }
        self.tell(node, "ends", u64::from(silent), u64::from(machine), || {
            if machine { "with its machine" } else { "the process" }.to_owned()
        });
        if node > 0 {
            self.wiped(node);
        }
        if self.disks[node].is_none() {
            self.record_loss(node, Seq::ZERO);
        } else {
            self.record_restart(node);
        }
        self.host_gone(node, silent);
        let left = self.store(node).left();
        let dead = self.disks[node].as_ref().is_some_and(|disk| disk.fs.is_dead());
        self.break_off_work(node);
        if let Some(disk) = &mut self.disks[node] {
            disk.left = left;
            disk.machine |= machine || dead;
            disk.lost_machine |= disk.machine;
            if !disk.machine {
                disk.fs.kill();
            }
        }
        let host = &mut self.hosts[node];
        host.life += 1;
        (host.up, host.silent) = (false, silent);
        host.inbox.clear();
        host.reads_wait = false;
        host.failed = false;
        host.synced = false;
        host.next_turn = u64::MAX;
        if node == 0 {
            self.master_ends();
        } else {
            let old = &self.secondaries[node - 1];
            let refill = old.engine().stored().max(old.refill);
            let life = self.hosts[node].life;
            let store = SimStore::in_memory();
            let mut next = SecondaryNode::new(new_secondary(&self.plan, node, life, store));
            next.refill = refill;
            self.secondaries[node - 1] = next;
        }
    }

    /// What was being written on a node's files ends somewhere in the middle.
    fn break_off_work(&mut self, node: usize) {
        let mut rng = Rng::keyed(&[self.plan.seed, 17, node as u64, self.now]);
        let Some(disk) = &self.disks[node] else { return };
        let (fs, works) = (disk.fs.clone(), self.store(node).has_work());
        if works && !fs.is_dead() {
            fs.crash_at(1 + rng.below(WORK_OPERATIONS));
            self.store(node).work();
            self.seen.note(Sometimes::WorkBrokenOff);
        }
    }

    fn master_ends(&mut self) {
        // What it numbered and could not write, or in an epoch that it could not write down, nobody saw:
        // it may be there again or not, and then its number is given once more.
        let (epoch, unkept) = (self.master.engine().epoch().number(), self.master.unkept);
        let behind = if unkept { 0 } else { self.master.store().log().bounds().last.number() };
        let unseen = self.entries.range((epoch, behind + 1)..(epoch + 1, 0));
        self.unseen.extend(unseen.map(|(&key, _)| key));
        for dial in 0..self.dials.len() {
            self.forget_dial(dial);
        }
        for client in 0..self.clients.len() {
            self.break_client(client as u32);
        }
        self.open.clear();
        let nodes = self.plan.setup.nodes;
        let (store, sessions) = (SimStore::in_memory(), self.master.node.next_session());
        let node = new_master(&self.plan, self.hosts[0].life, store, sessions, self.now);
        let shown = std::mem::take(&mut self.master.shown_commit);
        self.master = MasterNode::new(node, nodes, self.plan.setup.heartbeat_ms);
        self.master.shown_commit = shown;
    }

    /// A node that is down starts, unless somebody keeps it down.
    pub(super) fn come_up(&mut self, node: usize) {
        let plan = self.plan.clone();
        let kept_down = plan.faults.iter().enumerate().any(|(at, fault)| {
            fault.what.node() == node
                && fault.what.keeps_down()
                && fault.at <= self.now
                && !self.ended.contains(&at)
        });
        if self.hosts[node].up || kept_down && self.healed_at.is_none() {
            return;
        }
        let store = match (&plan.setup.disk, self.disks[node].is_some()) {
            (Some(setup), true) => match self.open_again(node, setup) {
                Some(store) => store,
                None => return self.come_up_later(node),
            },
            _ => SimStore::in_memory(),
        };
        let host = &mut self.hosts[node];
        (host.up, host.silent, host.failed) = (true, false, false);
        let life = host.life;
        let last = store.log().bounds().last;
        self.tell(node, "starts", u64::from(life), last.number(), || format!("with {last}"));
        if node == 0 {
            let nodes = plan.setup.nodes;
            let sessions = self.master.node.next_session();
            let shown = std::mem::take(&mut self.master.shown_commit);
            let master = new_master(&plan, life, store, sessions, self.now);
            self.master = MasterNode::new(master, nodes, plan.setup.heartbeat_ms);
            self.master.shown_commit = shown;
            self.ghosts = vec![Ghost::default(); nodes];
            self.memory.master_restarts(self.now, self.master.engine().levels().clone());
            if let Some(damage) = self.master.engine().damage() {
                self.record_loss(0, damage.first.previous());
            }
        } else {
            let refill = self.secondaries[node - 1].refill;
            let mut next = SecondaryNode::new(new_secondary(&plan, node, life, store));
            if last >= self.ghosts[node].stored && next.store().log().damage().is_empty() {
                self.ghosts[node].stored = Seq::ZERO;
            }
            next.refill = if next.engine().stored() < refill { refill } else { Seq::ZERO };
            self.secondaries[node - 1] = next;
            let engine = self.secondaries[node - 1].engine();
            let (commit, epoch) = (engine.levels().commit, engine.epoch());
            let promised = self.memory.promised(node);
            let erased = self.disks[node].as_ref().is_none_or(|disk| disk.hurt);
            if epoch < promised && !erased {
                self.fail("a promise is not forgotten", format!("n{node}: {promised} to {epoch}"));
            }
            self.memory.secondary_restarts(node, life, commit, last, epoch);
        }
        self.wake_at(node, self.now + 1);
        self.scrub_later(node);
    }

    /// Opens a log that was there before, and looks whether all is there that must be.
    fn open_again(&mut self, node: usize, setup: &DiskSetup) -> Option<SimStore> {
        let disk = self.disks[node].as_mut()?;
        if std::mem::take(&mut disk.machine) {
            disk.fs.crash();
        } else {
            disk.fs.kill();
        }
        let replaced = disk.replace.take();
        match replaced {
            Some(Replace::Wiped) => disk.wipe(),
            Some(Replace::RolledBack) => {
                if let Some(old) = disk.old.take() {
                    // The machine is another one for what the directory knows.
                    disk.fs = old;
                    disk.fs.crash();
                }
            }
            None => {}
        }
        if let Some(replaced) = replaced {
            (disk.left, disk.hurt) = (Left::default(), true);
            disk.rolled_back |= replaced == Replace::RolledBack;
            // It vouches for what it does not know to be old.
            self.excused |= replaced == Replace::RolledBack;
        }
        let disk = self.disks[node].as_mut()?;
        let before = (disk.left, disk.hurt);
        match SimStore::open(&disk.fs, node, setup) {
            Ok((store, recovery)) => {
                let lost = self.disks[node].as_mut().map(|disk| &mut disk.lost_machine);
                let machine = lost.is_some_and(std::mem::take);
                self.check_reopened(node, &store, &recovery, before, machine);
                Some(store)
            }
            Err(OpenError::MetaDamaged { .. }) if before.1 => {
                // The operator does as he is told.
                let disk = self.disks[node].as_mut()?;
                disk.wipe();
                disk.left = Left::default();
                None
            }
            Err(OpenError::Io { what, error }) => {
                let disk = self.disks[node].as_mut()?;
                // The power failed meanwhile, or the disk is full.
                disk.machine |= disk.fs.is_dead();
                disk.lost_machine |= disk.machine;
                self.tell(node, "no-start", 0, 0, || format!("{what}: {error}"));
                None
            }
            Err(error) => {
                self.fail("a directory opens again", format!("n{node}: {error}"));
                None
            }
        }
    }

    /// What must be there again, is: all of it after the end of a process, what was synced after that of
    /// a machine. On a disk that was hurt some of it may be unreadable, and is then said to be.
    fn check_reopened(
        &mut self,
        node: usize,
        store: &SimStore,
        recovery: &Recovery,
        (left, hurt): (Left, bool),
        machine: bool,
    ) {
        let (must, id) = if machine { left.synced } else { left.written };
        let last = store.log().bounds().last;
        let damaged = store.log().damage();
        if recovery.cut.is_some() {
            self.seen.note(Sometimes::TornTailCut);
        }
        self.record_loss(node, damaged.first().map_or(last, |range| range.first.previous()));
        let end = damaged.iter().map(|range| range.last()).max().unwrap_or(last).max(last);
        // A torn tail has nothing whole behind it: each bit can make one entry a part of it, not more.
        let flips = self.disks[node].as_ref().map_or(0, |disk| disk.flips);
        if end.plus(flips) < must {
            return self.fail(
                "what is whole is not cut off with what is not",
                format!("n{node}: {end} of {must} after {flips} flipped bits, machine={machine}"),
            );
        }
        let must = if hurt { must.min(recovery.durable_mark) } else { must };
        if hurt && end < left.written.0 {
            self.excused = true;
        }
        if end < must {
            return self.fail(
                "what was synced is there after a crash, all of it after the end of a process",
                format!("n{node}: {end} of {must}, machine={machine}, hurt={hurt}"),
            );
        }
        if !damaged.is_empty() && !hurt {
            return self.fail(
                "only what was hurt is damaged",
                format!("n{node}: {damaged:?}, machine={machine}: {:?}", recovery.damage),
            );
        }
        // It is not known if the disk was gone already.
        let differs = id.is_some() && store.log().reader().prefix_id(must) != id;
        if damaged.is_empty() && !hurt && differs {
            self.fail(
                "what was synced is there after a crash, all of it after the end of a process",
                format!("n{node}: another entry at {must}"),
            );
        }
    }

    // ---- what befalls disks ----

    /// Begins a fault of a disk. Returns whether it lasts.
    pub(super) fn disk_fault_begins(&mut self, what: Fault) -> bool {
        let node = what.node();
        let mut rng = Rng::keyed(&[self.plan.seed, 16, node as u64, self.now]);
        let Some(disk) = &mut self.disks[node] else { return false };
        match what {
            Fault::CrashAt { operation, .. } => disk.fs.crash_at(operation),
            Fault::DiskFull { room, .. } => {
                disk.fs.set_budget(Some(disk.fs.used() + room));
                return true;
            }
            Fault::SyncFails { .. } => disk.fs.fail_sync_at(1),
            Fault::BitFlip { .. } => {
                let is_log = |path: &&std::path::PathBuf| {
                    path.extension().is_some_and(|ext| ext == "log")
                        && path.parent().is_some_and(|dir| dir == std::path::Path::new(DIR))
                };
                let logs: Vec<_> = disk.fs.paths().iter().filter(is_log).cloned().collect();
                if !logs.is_empty() {
                    let path = &logs[rng.below(logs.len() as u64) as usize];
                    let bits = disk.fs.bytes(path).map_or(0, |bytes| bytes.len() as u64 * 8);
                    disk.fs.flip(path, rng.below(bits));
                    disk.hurt = true;
                    disk.flips += 1;
                }
            }
            Fault::Wipe { .. } => {
                disk.replace = Some(Replace::Wiped);
                self.end(node, false, false);
                return true;
            }
            Fault::RollBack { .. } => {
                // As it would be found had the process ended now.
                disk.old = Some(disk.fs.fork());
                return true;
            }
            _ => {}
        }
        false
    }

    pub(super) fn disk_fault_ends(&mut self, what: Fault) {
        let node = what.node();
        let Some(disk) = &mut self.disks[node] else { return };
        match what {
            Fault::DiskFull { .. } => disk.fs.set_budget(None),
            Fault::RollBack { .. } => {
                disk.replace = Some(Replace::RolledBack);
                self.end(node, false, false);
                self.come_up(node);
            }
            Fault::Wipe { .. } => self.come_up(node),
            _ => {}
        }
    }

    /// From here on disks do as they are told.
    pub(super) fn disks_well(&mut self) {
        for node in 0..self.disks.len() {
            if let Some(disk) = &mut self.disks[node] {
                disk.fs.crash_at(u64::MAX / 2);
                disk.fs.fail_sync_at(u64::MAX / 2);
                disk.fs.set_budget(None);
            }
            if !self.hosts[node].up {
                self.come_up(node);
            }
        }
    }

    pub(super) fn scrub_later(&mut self, node: usize) {
        if self.disks[node].is_some() {
            let life = self.hosts[node].life;
            self.queue.push(self.now + 1_000_000, Event::Scrub { node, life });
        }
    }

    /// The scrub goes a step further.
    pub(super) fn scrub(&mut self, node: usize, life: u32) {
        if self.hosts[node].life != life || !self.hosts[node].up {
            return;
        }
        if self.hosts[node].paused == 0 {
            self.store(node).scrub();
            self.wake_at(node, self.now + 1);
        }
        self.scrub_later(node);
    }
}
