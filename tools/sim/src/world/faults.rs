//! Whoever breaks things, as planned.

use std::time::Duration;

use bytes::Bytes;
use replog::engine::SessionId;
use replog::gateway::Fault as Verb;
use replog::gateway::command::FailRule;
use replog::node::About;
use replog::node::Storage as _;
use replog::node::introduction::hello_of;
use replog::types::{Seq, Time};
use replog::wire::Message;
use replog::wire::codec::Role;

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
                let by = Duration::from_micros(by_us);
                self.verb(node, if once { Verb::DelayOnce(by) } else { Verb::DelayEvery(by) });
            }
            Fault::Fail { before, percent, .. } => {
                let rule = FailRule::Probability(percent as f64 / 100.0);
                let verb = if before { Verb::FailBefore(rule) } else { Verb::FailAfter(rule) };
                self.verb(node, verb);
            }
            Fault::Mute { .. } => {
                self.verb(node, Verb::Mute(Duration::from_micros(planned.lasts)));
            }
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
            Fault::Delay { .. } => self.verb(node, Verb::DelayOff),
            Fault::Fail { .. } => self.verb(node, Verb::FailOff),
            Fault::Mute { .. } => self.verb(node, Verb::MuteOff),
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

    /// A fault verb reaches a secondary.
    fn verb(&mut self, node: usize, verb: Verb) {
        let now = Time::from_micros(self.now);
        self.secondaries[node - 1].node.handle_fault(now, verb);
        self.wake_at(node, self.now + 1);
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
        let seq = Seq::new(own.engine().written().number() + ahead);
        // Sometimes it is what the master's entry will be or is, sometimes not.
        let known =
            self.master.store().log().reader().record(seq).filter(|_| ahead.is_multiple_of(2));
        let payload = known.map_or_else(|| Bytes::from_static(b"by hand"), |record| record.payload);
        own.node.handle_store(seq, payload);
    }

    /// Another master calls: it only asks, or it leads the same log with a higher epoch.
    fn stranger(&mut self, node: usize, leads: bool) {
        let line = &self.lines[node];
        if line.cuts != [0, 0] || !self.hosts[node].up {
            return;
        }
        let engine = self.secondaries[node - 1].engine();
        let id = "stranger".parse().expect("BUG: a node's id is a word");
        let about = About { id, advertise: String::new(), payload_max: 1 << 20 };
        let mut hello = hello_of(&about, Role::Master, &[], Seq::ZERO);
        let log_id = self.master.engine().log_id().map(replog::types::LogId::bytes);
        if leads && log_id.is_some() {
            hello.log_id = log_id;
            hello.epoch = engine.epoch().number().max(self.master.engine().epoch().number()) + 1;
            hello.run_id = 2;
            self.usurped = true;
        }
        let conn = self.connect(node, Dialler::Stranger, SessionId(u64::MAX));
        self.queue.push(self.now + 5_000_000, Event::IntroductionTimeout { id: conn });
        // As in `dial_step`: a HELLO fits.
        self.socket_write(conn, 0, Message::Hello(hello).encode().to_bytes());
    }
}
