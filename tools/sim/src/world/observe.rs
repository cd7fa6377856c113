//! What is looked at with each step of a node: what it says happened, compared with what must hold and
//! with how the node was before.

use replog::codes::{NackCode, RefuseCode};
use replog::engine::ranges::RangeSet;
use replog::engine::{Effect, Health, HelloFacts, Mode, Reign, SessionId};
use replog::node::Event;
use replog::node::Storage as _;
use replog::types::{Epoch, NodeIndex, Seq, SeqRange, Time};
use replog::wire::Message;

use super::World;
use super::process::index;
use crate::sometimes::Sometimes;

/// How a node was before a step.
struct Before {
    damage: Option<SeqRange>,
    is_full: bool,
    /// Of the master.
    last: Seq,
    mode: Option<Mode>,
    leads: bool,
    settled: Epoch,
    sessions: Vec<Option<SessionId>>,
    answers: Vec<Option<HelloFacts>>,
    /// Of a secondary.
    held: RangeSet,
    written: Seq,
    stored: Seq,
    duplicates: u64,
}

impl World {
    /// Does one thing with a node, and looks at what came of it.
    pub(super) fn watch(&mut self, node: usize, act: impl FnOnce(&mut World)) {
        let before = self.before(node);
        act(self);
        let events: Vec<Event> = self.machine(node).drain_events().collect();
        for event in events {
            match node {
                0 => self.master_event(&before, event),
                _ => self.secondary_event(node, event),
            }
        }
        match node {
            0 => self.master_after(&before),
            _ => self.secondary_after(node, &before),
        }
        for aside in self.store(node).take_asides() {
            self.check_aside(node, &aside);
        }
        if before.is_full && self.machine(node).shortage().is_none() {
            self.seen.note(Sometimes::RoomAgain);
        }
    }

    fn before(&mut self, node: usize) -> Before {
        let is_full = self.machine(node).shortage().is_some();
        if node == 0 {
            let master = &self.master;
            let (engine, peers) = (master.engine(), 1..self.plan.setup.nodes);
            return Before {
                damage: engine.damage(),
                is_full,
                last: engine.last(),
                mode: Some(engine.mode()),
                leads: engine.reign() == Reign::Leading,
                settled: engine.settled(),
                sessions: peers.map(|peer| master.node.session(index(peer))).collect(),
                answers: engine.secondaries().iter().map(|progress| progress.answer).collect(),
                held: RangeSet::default(),
                written: Seq::ZERO,
                stored: Seq::ZERO,
                duplicates: 0,
            };
        }
        let engine = self.secondaries[node - 1].engine();
        Before {
            damage: engine.damage(),
            is_full,
            last: Seq::ZERO,
            mode: None,
            leads: false,
            settled: Epoch::ZERO,
            sessions: Vec::new(),
            answers: Vec::new(),
            held: engine.held(),
            written: engine.written(),
            stored: engine.stored(),
            duplicates: engine.duplicates(),
        }
    }

    /// What is to be compared with what a frame says, before the node has it.
    pub(super) fn foresee(&mut self, node: usize, session: SessionId, message: &Message) {
        if node > 0 {
            let now = Time::from_micros(self.now);
            let own = &self.secondaries[node - 1];
            let asks = matches!(message, Message::Heartbeat(_));
            if asks && own.node.faults().is_muted(now) {
                self.seen.note(Sometimes::Muted);
            }
            return;
        }
        let sessions = (1..self.plan.setup.nodes).map(|peer| (peer, index(peer)));
        let found = sessions.map(|(peer, at)| (peer, self.master.node.session(at)));
        let Some(from) = found.filter(|&(_, of)| of == Some(session)).map(|(peer, _)| peer).next()
        else {
            return;
        };
        match message {
            Message::Ack(ack) if ack.epoch == self.master.engine().epoch().number() => {
                if !ack.held.is_empty() {
                    self.seen.note(Sometimes::HeldListed);
                }
                self.tell(0, "ack", ack.stored, ack.received, || {
                    let held = ack.held.iter().map(|r| format!("{}..{}", r.first, r.last));
                    let held = held.collect::<Vec<_>>().join(",");
                    let (stored, received) = (ack.stored, ack.received);
                    format!("of n{from} stored={stored} received={received} held={held}")
                });
                let peer = &mut self.master.peers[from - 1];
                while peer.under_way.front().is_some_and(|(last, _)| last.number() <= ack.stored) {
                    peer.under_way.pop_front();
                }
                self.acked = Some((from, self.master.engine().secondaries()[from - 1].received));
            }
            Message::Nack(nack) => self.tell(0, "nack", nack.seq, u64::from(nack.code), || {
                format!("of n{from} at {} code {}", nack.seq, nack.code)
            }),
            _ => {}
        }
    }

    // ---- the master ----

    fn master_event(&mut self, before: &Before, event: Event) {
        match event {
            Event::Numbered { token, range } => {
                let mode = before.mode.unwrap_or(Mode::Recovering);
                let mut last = before.last;
                for part in self.parts(token, range.len()) {
                    let range = SeqRange::with_len(last.next(), part.count);
                    self.numbered(part, range, last, mode);
                    last = range.last();
                }
                if last != range.last() || before.last.next() != range.first {
                    self.fail("numbers are dense", format!("{range} after {}", before.last));
                }
            }
            Event::Waits { token, seq } => {
                for part in self.parts(token, 1) {
                    self.waits(part.request, seq, before.last);
                }
            }
            Event::Refused { token, refused, count, .. } => {
                if self.master.engine().last() != before.last {
                    self.fail("a refusal consumes no number", format!("{refused:?}"));
                }
                for part in self.parts(token, count) {
                    self.refused(part.request, refused);
                }
            }
            Event::Answered(answer) => {
                for answer in self.decisions(&answer) {
                    self.check_answer(&answer);
                }
            }
            Event::Written(range) => {
                let (first, end) = (range.first.number(), range.end.number());
                self.tell(0, "write", first, end, || format!("{range}"));
            }
            Event::Decided(effect) => self.decided(effect),
            Event::Sent { to, asked, sent, bytes, again } => {
                self.sent(to.as_usize(), asked, sent, bytes, again);
            }
            Event::Kept { epoch, done } => {
                let sought = std::mem::replace(&mut self.master.sought, epoch);
                if sought > Epoch::ZERO && epoch > sought {
                    self.seen.note(Sometimes::EpochRaised);
                }
                if !done {
                    self.master.unkept = epoch > self.master.store().log().identity().epoch;
                }
            }
            Event::SetAside { from } => {
                self.tell(0, "sets-aside", from.number(), 0, || format!("from {from}"));
                self.seen.note(Sometimes::OwnAside);
            }
            Event::Adopted(range) => {
                let (first, end) = (range.first.number(), range.end.number());
                self.tell(0, "adopts", first, end, || format!("{range}"));
                self.seen.note(Sometimes::TailAdopted);
            }
            Event::Repaired(range) => {
                let (first, end) = (range.first.number(), range.end.number());
                self.tell(0, "repairs", first, end, || format!("{range}"));
            }
            Event::NotRepaired(range) => {
                self.tell(0, "unrepaired", range.first.number(), 0, || format!("{range}"));
            }
            Event::Turned(code) => {
                self.tell(0, "turns-away", u64::from(code.number()), 0, || code.to_string());
            }
            _ => {}
        }
    }

    fn master_after(&mut self, before: &Before) {
        for (at, session) in before.sessions.iter().enumerate() {
            let of = index(at + 1);
            if session.is_some() && self.master.node.session(of) != *session {
                self.tell(0, "lost", at as u64 + 1, 0, || format!("n{}", at + 1));
                self.master.lost.push(at + 1);
                self.master.answers_lost.extend(before.answers[at]);
            }
        }
        // What it knew when it decided to lead; what comes in the same turn it did not know.
        if !before.leads && self.master.engine().reign() == Reign::Leading {
            let secondaries = self.master.engine().secondaries();
            let answers = secondaries.iter().filter_map(|progress| progress.answer);
            self.master.led_with = answers.collect();
            self.master.had_settled = before.settled;
        }
        let damage = self.master.engine().damage();
        if damage != before.damage {
            self.note_damage(0, before.damage, damage);
            if let Some(damage) = damage {
                self.record_loss(0, damage.first.previous());
            }
        }
        if let Some((from, received)) = self.acked.take() {
            let progress = &self.master.engine().secondaries()[from - 1];
            if progress.received > received {
                let attempts = progress.attempts();
                self.master.peers[from - 1].failure = None;
                if attempts > 0 {
                    self.fail(
                        "progress begins the ladder of waits anew",
                        format!("n{from}: {attempts} attempts"),
                    );
                }
            }
        }
    }

    fn decided(&mut self, effect: Effect) {
        match effect {
            Effect::BeginHistory { log_id, epoch } => {
                self.tell(0, "begins", epoch.number(), 0, || format!("log {log_id} epoch {epoch}"));
                self.check_new_history();
            }
            Effect::BeginReign { epoch, last } => {
                self.tell(0, "leads", epoch.number(), last.number(), || {
                    format!("epoch {epoch} from {last}")
                });
                self.check_reign(epoch, last);
            }
            Effect::HealthChanged { of, from, to } => {
                let of = of.as_usize();
                self.tell(0, "health", of as u64, to as u64, || format!("n{of}: {from} -> {to}"));
                self.note_health(of, from, to);
            }
            Effect::ModeChanged { from, to, present } => {
                self.tell(0, "mode", present as u64, to as u64, || {
                    format!("{from} -> {to}, {present} present")
                });
                match (from, to) {
                    (_, Mode::ReadOnly) => self.seen.note(Sometimes::ReadOnlyEntered),
                    (Mode::ReadOnly, _) => self.seen.note(Sometimes::ReadOnlyLeft),
                    _ => {}
                }
            }
            Effect::AttemptFailed { to, seq, failure, attempts, wait } => {
                let to = to.as_usize();
                self.tell(0, "attempt", to as u64, u64::from(attempts), || {
                    format!(
                        "n{to} at {seq} failed: {failure:?}, {attempts} in a row, next in {wait:?}"
                    )
                });
                self.master.peers[to - 1].failure = Some(failure);
                if attempts >= 3 {
                    self.seen.note(Sometimes::ManyAttempts);
                }
            }
            Effect::Following { to, stored } => {
                let to = to.as_usize();
                self.tell(0, "follows", to as u64, stored.number(), || {
                    format!("n{to} from {stored}")
                });
                let peer = &mut self.master.peers[to - 1];
                peer.under_way.clear();
                peer.sent_end = stored;
                let session = self.master.node.session(index(to));
                let conn = session.and_then(|session| self.master.sockets.conn(session));
                let life = conn.map(|conn| self.conns[conn].life);
                self.now_follows(to, life, stored);
            }
            Effect::Deposed { by, epoch } => {
                let by = by.as_usize();
                self.tell(0, "deposed", by as u64, epoch.number(), || {
                    format!("by n{by} epoch {epoch}")
                });
                self.master.deposed = true;
                self.seen.note(Sometimes::Deposed);
            }
            _ => {}
        }
    }

    fn note_health(&mut self, of: usize, from: Health, to: Health) {
        let paused = self.hosts[of].paused > 0;
        let line = &self.lines[of];
        match (from, to) {
            (Health::Suspected, Health::Healthy) => self.seen.note(Sometimes::Suspected),
            (_, Health::Unhealthy) => {
                if (line.cuts[0] > 0) != (line.cuts[1] > 0) {
                    self.seen.note(Sometimes::OneWayNoticed);
                }
                if paused && self.master.node.session(index(of)).is_some() {
                    self.seen.note(Sometimes::PausedUnhealthy);
                }
                self.master.peers[of - 1].was_unhealthy = true;
            }
            (Health::Unhealthy, Health::Healthy) if self.master.peers[of - 1].was_unhealthy => {
                self.seen.note(Sometimes::UnhealthyAndBack);
            }
            _ => {}
        }
    }

    fn sent(&mut self, to: usize, asked: SeqRange, sent: SeqRange, bytes: usize, again: bool) {
        self.tell(0, "send", sent.first.number(), sent.end.number(), || {
            format!("{sent} to n{to}{}", if again { " again" } else { "" })
        });
        if asked.len() > sent.len() && !again {
            self.seen.note(Sometimes::LongCatchUp);
        }
        let window = self.plan.setup.window_bytes;
        let health = self.master.engine().secondaries()[to - 1].health.health();
        // What was decided before the connection was lost goes nowhere.
        if health == Health::Unhealthy && self.master.node.session(index(to)).is_some() {
            self.fail("nothing is sent to an unhealthy secondary", format!("{sent} to n{to}"));
        }
        let peer = &mut self.master.peers[to - 1];
        if again {
            let seen = match peer.failure {
                Some(replog::engine::AttemptFailure::Nack) => Sometimes::AgainAfterNack,
                Some(replog::engine::AttemptFailure::Timeout) => Sometimes::AgainAfterSilence,
                None => Sometimes::AgainAfterReturn,
            };
            self.seen.note(seen);
        }
        if sent.last() > peer.sent_end {
            peer.sent_end = sent.last();
            peer.under_way.push_back((sent.last(), bytes));
            let inflight: usize = peer.under_way.iter().map(|&(_, bytes)| bytes).sum();
            if sent.len() == 1 && bytes > window {
                self.seen.note(Sometimes::OversizeAlone);
            }
            // One entry may go beyond the window: what does not fit at all could never go.
            if inflight > window && sent.len() > 1 || inflight > window + bytes {
                self.fail(
                    "bytes under way to a secondary stay within its window",
                    format!("{inflight} of {window} bytes to n{to} with {sent}"),
                );
            }
        }
    }

    // ---- secondaries ----

    fn secondary_event(&mut self, node: usize, event: Event) {
        match event {
            Event::Arrived(range) => {
                let (first, end) = (range.first.number(), range.end.number());
                self.tell(node, "entries", first, end, || format!("{range}"));
            }
            Event::Appended { range, duplicates, aside } => {
                let (first, end) = (range.first.number(), range.end.number());
                self.tell(node, "append", first, end, || format!("{range}"));
                self.secondaries[node - 1].dropped = false;
                if duplicates > 0 {
                    self.seen.note(Sometimes::GaveWay);
                }
                if aside > 0 {
                    self.seen.note(Sometimes::MovedAside);
                }
            }
            Event::Held(range) => {
                let (first, end) = (range.first.number(), range.end.number());
                self.tell(node, "holds", first, end, || format!("{range}"));
            }
            Event::Released { taken, .. } => {
                self.secondaries[node - 1].dropped = !taken;
                if taken {
                    self.seen.note(Sometimes::HoleFilled);
                }
            }
            Event::BadRecords { first } => {
                self.fail("what arrives is what was sent", format!("n{node} at {first}"));
            }
            Event::Nacked { seq, code } => {
                self.tell(node, "nacks", seq.number(), u64::from(code.number()), || {
                    format!("{seq} {}", code.word())
                });
                let differs = matches!(code, NackCode::Conflict | NackCode::Mismatch);
                if differs && !self.excused && !self.secondaries[node - 1].engine().is_damaged() {
                    self.fail(
                        "one master's entries never conflict",
                        format!("n{node}: {} at {seq}", code.word()),
                    );
                }
            }
            Event::Acked { stored, received } => {
                self.tell(node, "acks", stored.number(), received.number(), || {
                    format!("stored={stored} received={received}")
                });
            }
            Event::FaultPlayed { before } => {
                let seen = if before { Sometimes::FailedBefore } else { Sometimes::FailedAfter };
                self.seen.note(seen);
            }
            Event::TooLate => self.seen.note(Sometimes::OldSession),
            Event::Aligned { last, agreed } => {
                self.tell(node, "align", last.number(), u64::from(agreed), || {
                    format!("to {last}: {}", if agreed { "done" } else { "contradicts" })
                });
                if !agreed && !self.excused {
                    self.fail(
                        "what was committed is never contradicted",
                        format!(
                            "n{node} at {last}: {:?}",
                            self.secondaries[node - 1].engine().levels()
                        ),
                    );
                }
            }
            Event::Introduced { epoch, stored } => {
                self.tell(node, "hello", epoch.number(), stored.number(), || {
                    format!("epoch {epoch} with stored={stored}")
                });
            }
            Event::SetAside { from } => {
                self.tell(node, "sets-aside", from.number(), 0, || format!("from {from}"));
                self.seen.note(Sometimes::Aligned);
                self.secondaries[node - 1].aside = Some(from);
            }
            Event::Repaired(range) => {
                let (first, end) = (range.first.number(), range.end.number());
                self.tell(node, "repairs", first, end, || format!("{range}"));
                if range.len() > 1 {
                    self.seen.note(Sometimes::RepairedTogether);
                }
            }
            Event::NotRepaired(range) => {
                self.tell(node, "unrepaired", range.first.number(), 0, || format!("{range}"));
            }
            Event::Turned(code) => {
                self.tell(node, "turns-away", u64::from(code.number()), 0, || code.to_string());
                if code == RefuseCode::Replaced {
                    self.seen.note(Sometimes::Replaced);
                }
            }
            _ => {}
        }
    }

    fn secondary_after(&mut self, node: usize, before: &Before) {
        let own = &self.secondaries[node - 1];
        let engine = own.engine();
        let (stored, written, damage) = (engine.stored(), engine.written(), engine.damage());
        let (duplicates, refilled) =
            (engine.duplicates(), own.refill > Seq::ZERO && stored >= own.refill);
        let delays = own.node.faults().is_delaying();
        // What is held back no more and is not in the log is dropped; the master may not know yet.
        let mut lost = before.held.clone();
        lost.remove_up_to(written);
        engine.held().iter().for_each(|range| lost.remove(range));
        if !lost.is_empty() {
            self.ghosts[node].held.extend(lost.iter());
            self.record_drop(node, before.written);
        }
        let first = |damage: Option<SeqRange>| damage.map(|range| range.first);
        if first(damage) != first(before.damage) {
            self.note_damage(node, before.damage, damage);
            if stored < before.stored {
                // What it told before still counts until the master hears otherwise.
                let ghost = &mut self.ghosts[node];
                ghost.stored = ghost.stored.max(before.stored);
                ghost.received = ghost.received.max(before.stored);
                // What readers saw of it they see no more, until it is repaired.
                self.record_loss(node, stored);
            }
        }
        if duplicates > before.duplicates {
            self.seen.note(Sometimes::Duplicate);
        }
        if delays {
            self.seen.note(Sometimes::DelayedFrame);
        }
        if refilled {
            self.secondaries[node - 1].refill = Seq::ZERO;
            self.seen.note(Sometimes::Refilled);
        }
    }

    /// What a secondary says of itself rests on what it has kept.
    pub(super) fn check_kept(&mut self, node: usize) {
        if node == 0 {
            return;
        }
        let own = &self.secondaries[node - 1];
        let (bounds, kept) = (own.store().log().bounds(), own.store().log().identity().clone());
        let said = (own.engine().epoch(), own.engine().settled(Epoch::ZERO));
        let settled = kept.settled.max(bounds.tail.epoch);
        if said.0 > kept.epoch || said.1 > settled {
            self.fail(
                "a promise and a settled epoch are kept before they are told",
                format!("n{node} says {said:?}, {} and {settled} are kept", kept.epoch),
            );
        }
    }

    fn note_damage(&mut self, node: usize, before: Option<SeqRange>, now: Option<SeqRange>) {
        self.tell(node, "damaged", 0, 0, || format!("{before:?} to {now:?}"));
        if before.is_some() && now.is_none() {
            self.seen.note(match node {
                0 => Sometimes::MasterRepaired,
                _ => Sometimes::SecondaryRepaired,
            });
        }
        if now.is_some() && self.disks[node].as_ref().is_some_and(|disk| !disk.hurt) {
            self.fail("only what was hurt is damaged", format!("n{node}: {now:?}"));
        }
    }

    /// When the master heard of a secondary last, in microseconds.
    pub(super) fn last_contact(&self, of: NodeIndex) -> u64 {
        self.master.node.last_contact(of).map_or(0, Time::micros)
    }
}
