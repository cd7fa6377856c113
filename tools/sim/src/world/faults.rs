//! Whoever breaks things, as planned.

use bytes::Bytes;
use replog::engine::SessionId;
use replog::types::Seq;
use replog::wire::Message;
use replog::wire::codec::Role;

use super::master::blank_hello;
use super::net::{Dialler, State};
use super::{Event, World};
use crate::plan::Fault;

impl World {
    pub(super) fn fault_begins(&mut self, at: usize) {
        let planned = self.plan.faults[at].clone();
        let node = planned.what.node();
        self.stats.faults[planned.what.kind()] += 1;
        self.tell(node, "FAULT", at as u64, 0, || {
            format!("{:?} for {} us", planned.what, planned.lasts)
        });
        let mut lasts = true;
        match planned.what {
            Fault::Cut { to_it, from_it, .. } => {
                self.lines[node].cuts[0] += u32::from(to_it);
                self.lines[node].cuts[1] += u32::from(from_it);
            }
            Fault::Reset { .. } => {
                lasts = false;
                self.reset_line(node, [true, true]);
            }
            Fault::HalfOpen { master_learns, .. } => {
                lasts = false;
                self.reset_line(node, [master_learns, !master_learns]);
            }
            Fault::Crash { silent, .. } => self.end(node, silent, silent),
            Fault::Pause { .. } => self.hosts[node].paused += 1,
            Fault::SlowNode { by_us, .. } => self.hosts[node].slow_by += by_us,
            Fault::SlowLink { by_us, .. } => self.lines[node].slow_by += by_us,
            Fault::RefuseDial { .. } => self.lines[node].refusing += 1,
            Fault::SlowDisk { by_us, .. } => self.hosts[node].disk_slow_by += by_us,
            Fault::ClockJump { ms, .. } => {
                lasts = false;
                self.hosts[node].clock_ms += ms;
            }
            Fault::Storm { .. } => self.storm_strikes(at),
            Fault::Delay { by_us, once, .. } => {
                let verbs = &mut self.secondaries[node - 1].verbs;
                if once {
                    verbs.once = Some(by_us);
                } else {
                    verbs.every = by_us;
                }
            }
            Fault::Fail { before, percent, .. } => {
                let verbs = &mut self.secondaries[node - 1].verbs;
                if before {
                    verbs.fail_before = percent;
                } else {
                    verbs.fail_after = percent;
                }
            }
            Fault::Mute { .. } => self.secondaries[node - 1].verbs.muted += 1,
            Fault::Store { ahead, .. } => {
                lasts = false;
                self.store_by_hand(node, ahead);
            }
            Fault::CrashAt { .. }
            | Fault::DiskFull { .. }
            | Fault::SyncFails { .. }
            | Fault::BitFlip { .. }
            | Fault::Wipe { .. }
            | Fault::RollBack { .. } => lasts = self.disk_fault_begins(planned.what),
            Fault::Stranger { .. } => {
                lasts = false;
                self.stranger(node, false);
            }
            Fault::Usurp { .. } => {
                lasts = false;
                self.stranger(node, true);
            }
        }
        if lasts {
            self.queue.push(self.now + planned.lasts, Event::FaultEnds(at));
        }
    }

    pub(super) fn fault_ends(&mut self, at: usize) {
        let what = self.plan.faults[at].what;
        let node = what.node();
        // Everything ends at the end of the active time, and once.
        if self.ended.contains(&at) || self.plan.faults[at].at > self.now {
            return;
        }
        self.ended.insert(at);
        self.tell(node, "fault-ends", at as u64, 0, || format!("{what:?}"));
        match what {
            Fault::Cut { to_it, from_it, .. } => {
                for (direction, cut) in [to_it, from_it].into_iter().enumerate() {
                    self.lines[node].cuts[direction] -= u32::from(cut);
                    if cut && self.lines[node].cuts[direction] == 0 {
                        self.healed(node, direction);
                    }
                }
            }
            Fault::Crash { .. } => self.come_up(node),
            Fault::DiskFull { .. } | Fault::Wipe { .. } | Fault::RollBack { .. } => {
                self.disk_fault_ends(what);
            }
            Fault::Pause { .. } => {
                self.hosts[node].paused -= 1;
                if self.hosts[node].paused == 0 {
                    if node == 0 {
                        self.memory.master_woke(self.now);
                    }
                    self.hosts[node].next_turn = u64::MAX;
                    self.wake_at(node, self.now + 1);
                    self.read_all(node);
                }
            }
            Fault::SlowNode { by_us, .. } => {
                self.hosts[node].slow_by -= by_us;
                if node == 0 {
                    // The turn it was promised while it was slow still comes late.
                    self.memory.master_woke(self.now + by_us + self.plan.setup.turn_us);
                }
            }
            Fault::SlowLink { by_us, .. } => self.lines[node].slow_by -= by_us,
            Fault::RefuseDial { .. } => self.lines[node].refusing -= 1,
            Fault::SlowDisk { by_us, .. } => self.hosts[node].disk_slow_by -= by_us,
            Fault::Delay { once, .. } => {
                let verbs = &mut self.secondaries[node - 1].verbs;
                if once {
                    verbs.once = None;
                } else {
                    verbs.every = 0;
                }
            }
            Fault::Fail { before, .. } => {
                let verbs = &mut self.secondaries[node - 1].verbs;
                if before {
                    verbs.fail_before = 0;
                } else {
                    verbs.fail_after = 0;
                }
            }
            Fault::Mute { .. } => {
                let verbs = &mut self.secondaries[node - 1].verbs;
                verbs.muted = verbs.muted.saturating_sub(1);
            }
            Fault::Reset { .. }
            | Fault::HalfOpen { .. }
            | Fault::ClockJump { .. }
            | Fault::Storm { .. }
            | Fault::Store { .. }
            | Fault::Stranger { .. }
            | Fault::CrashAt { .. }
            | Fault::SyncFails { .. }
            | Fault::BitFlip { .. }
            | Fault::Usurp { .. } => {}
        }
    }

    pub(super) fn storm_strikes(&mut self, at: usize) {
        let Fault::Storm { node, every_us } = self.plan.faults[at].what else { return };
        let planned = &self.plan.faults[at];
        if self.now < planned.at + planned.lasts && self.healed_at.is_none() {
            self.reset_line(node, [true, true]);
            self.queue.push(self.now + every_us, Event::StormStrikes(at));
        }
    }

    /// Breaks all connections of a line; `told` says which ends learn it.
    fn reset_line(&mut self, node: usize, told: [bool; 2]) {
        for id in self.lines[node].conns.clone() {
            for (side, told) in told.into_iter().enumerate() {
                if told {
                    self.fail_end(id, side, "connection reset");
                } else if self.conns[id].ends[1 - side].state == State::Open {
                    // The other end is gone, and never says so.
                    self.forget_end(id, 1 - side);
                }
            }
        }
    }

    /// The operator hands a secondary an entry.
    fn store_by_hand(&mut self, node: usize, ahead: u64) {
        if !self.hosts[node].up {
            return;
        }
        let own = &mut self.secondaries[node - 1];
        let seq = Seq::new(own.engine.written().number() + ahead);
        // Sometimes it is what the master's entry will be or is, sometimes not.
        let known = self.master.store.reader().record(seq).filter(|_| ahead.is_multiple_of(2));
        let payload = known.map_or_else(|| Bytes::from_static(b"by hand"), |record| record.payload);
        own.provisional.store(&own.store.reader(), seq, payload);
    }

    /// Another master calls: it only asks, or it leads the same log with a higher epoch.
    fn stranger(&mut self, node: usize, leads: bool) {
        let line = &self.lines[node];
        if line.cuts != [0, 0] || !self.hosts[node].up {
            return;
        }
        let engine = &self.secondaries[node - 1].engine;
        let mut hello =
            replog::wire::codec::Hello { role: Role::Master, ..blank_hello("stranger") };
        let log_id = self.master.engine.log_id().map(replog::types::LogId::bytes);
        if leads && log_id.is_some() {
            hello.log_id = log_id;
            hello.epoch = engine.epoch().number().max(self.master.engine.epoch().number()) + 1;
            hello.run_id = 2;
            self.usurped = true;
        }
        let conn = self.connect(node, Dialler::Stranger, SessionId(u64::MAX));
        self.queue.push(self.now + 5_000_000, Event::IntroductionTimeout { id: conn });
        // As in `dial_step`: a HELLO fits.
        let _ = self.socket_write(conn, 0, &mut Message::Hello(hello).encode());
    }
}
