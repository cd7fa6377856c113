//! The simulated driver of a secondary: what `runtime::secondary` and `runtime::faults` do, without
//! tokio.

use std::collections::BTreeMap;

use bytes::Bytes;
use replog::codes::{NackCode, RefuseCode};
use replog::engine::secondary::MasterHello;
use replog::engine::{Arrival, Levels, Secondary, SecondaryEffect, SessionId};
use replog::limits::{
    ACK_RANGES_MAX, DELAYED_FRAMES_MAX, MASTER_LINKS_MAX, NODES_MAX, RUN_BYTES_MAX,
};
use replog::store::{Identity, Provisional, Run, StoreError};
use replog::types::{Digest, Epoch, LogId, PrefixId, RunId, Seq, SeqRange};
use replog::wire::codec::{
    self, Ack, AppendHead, HeartbeatAck, HeldRange, Hello, Levels as WireLevels, Nack, Role,
};
use replog::wire::{Message, OutFrame};

use super::link::{Kind, Link};
use super::master::{blank_hello, epoch_table};
use super::net::refusal;
use super::store::SimStore;
use super::{Input, World};
use crate::rng::Rng;
use crate::sometimes::Sometimes;

/// An APPEND frame that the verb DELAY holds.
#[derive(Debug)]
struct Delayed {
    session: SessionId,
    head: AppendHead,
    records: Bytes,
}

/// The fault verbs in force.
#[derive(Debug, Default)]
pub(super) struct Verbs {
    pub(super) once: Option<u64>,
    pub(super) every: u64,
    pub(super) fail_before: u64,
    pub(super) fail_after: u64,
    pub(super) muted: u32,
    delayed: BTreeMap<(u64, u64), Delayed>,
    arrivals: u64,
}

impl Verbs {
    pub(super) fn next_due(&self) -> Option<u64> {
        self.delayed.first_key_value().map(|(&(due, _), _)| due)
    }
}

/// One life of a secondary.
pub(super) struct SecondaryNode {
    pub(super) engine: Secondary,
    pub(super) store: SimStore,
    links: BTreeMap<SessionId, Link>,
    pub(super) held: BTreeMap<Seq, Run>,
    pub(super) verbs: Verbs,
    pub(super) provisional: Provisional,
    next_session: u64,
    rng: Rng,
    /// What readers see.
    pub(super) view: (Seq, Levels),
    /// What the life before had stored, if it was wiped and this one has not caught up yet.
    pub(super) refill: Seq,
    /// Where what was set aside in this turn began.
    pub(super) aside: Option<Seq>,
    /// A run whose turn had come was dropped for want of room, and none was appended since.
    pub(super) dropped: bool,
}

impl SecondaryNode {
    pub(super) fn new(seed: u64, node: usize, life: u32, store: SimStore) -> Self {
        let engine = Secondary::new(store.holdings());
        let view = (engine.visible(), engine.levels().clone());
        SecondaryNode {
            engine,
            store,
            links: BTreeMap::new(),
            held: BTreeMap::new(),
            verbs: Verbs::default(),
            provisional: Provisional::default(),
            next_session: 1,
            rng: Rng::keyed(&[seed, 11, node as u64, u64::from(life)]),
            view,
            refill: Seq::ZERO,
            aside: None,
            dropped: false,
        }
    }
}

impl World {
    fn own(&mut self, node: usize) -> &mut SecondaryNode {
        &mut self.secondaries[node - 1]
    }

    pub(super) fn secondary_turn(&mut self, node: usize) {
        if !self.hear_disk(node) {
            return;
        }
        while let Some(frame) = {
            let now = self.now;
            let delayed = &mut self.own(node).verbs.delayed;
            delayed.first_entry().filter(|entry| entry.key().0 <= now).map(|entry| entry.remove())
        } {
            self.handle_append(node, frame);
        }
        for _ in 0..super::INPUTS_PER_TURN {
            let Some(input) = self.hosts[node].inbox.pop_front() else { break };
            self.secondary_input(node, input);
        }
        if self.hosts[node].failed {
            return; // It ends before it says what it could not do.
        }
        self.carry_out_secondary(node, None);
        if self.hosts[node].failed {
            return;
        }
        self.send_ack(node);
        let own = self.own(node);
        own.view = (own.engine.visible(), own.engine.levels().clone());
        if own.refill > Seq::ZERO && own.engine.stored() >= own.refill {
            own.refill = Seq::ZERO;
            self.seen.note(Sometimes::Refilled);
        }
    }

    fn secondary_input(&mut self, node: usize, input: Input) {
        match input {
            Input::Accepted { conn, hello } => {
                let own = self.own(node);
                let session = SessionId(own.next_session);
                own.next_session += 1;
                let oldest = own.links.keys().find(|&&other| own.engine.session() != Some(other));
                if own.links.len() >= MASTER_LINKS_MAX
                    && let Some(&oldest) = oldest
                {
                    self.secondary_closed(node, oldest, Some(RefuseCode::Busy), "too many ask");
                }
                self.own(node).links.insert(session, Link::new(session, conn, 1));
                self.conns[conn].sessions[1] = session;
                self.start_reading(conn, 1);
                self.secondary_introduced(node, session, &hello);
            }
            Input::Messages { session, messages, .. } => {
                for message in messages {
                    if self.own(node).links.contains_key(&session) {
                        self.secondary_message(node, session, message);
                    }
                }
            }
            Input::Closed { session, refuse, reason, .. } => {
                self.secondary_closed(node, session, refuse, reason);
            }
            Input::Writable { session, .. } => {
                if let Some(link) = self.own(node).links.get_mut(&session) {
                    link.unblock();
                }
                self.flush_secondary(node, session);
            }
            Input::Synced { up_to } => {
                let (stored, again) = self.own(node).store.synced(up_to);
                if self.own(node).store.sync_failed().is_some() {
                    return; // Heard in the next turn.
                }
                let stored = stored.min(self.own(node).engine.written());
                self.own(node).engine.handle_stored(stored);
                self.tell(node, "stored", stored.number(), 0, || format!("up to {stored}"));
                if let Some(up_to) = again {
                    self.start_sync(node, up_to);
                }
            }
            _ => {}
        }
    }

    // ---- the master ----

    fn secondary_introduced(&mut self, node: usize, session: SessionId, hello: &Hello) {
        if !hello.peer_id.is_empty() && hello.peer_id != format!("n{node}") {
            return self.secondary_refuses(node, session, RefuseCode::WrongNode);
        }
        let facts = MasterHello {
            log_id: hello.log_id.map(LogId::new),
            epoch: Epoch::new(hello.epoch),
            run_id: RunId::new(hello.run_id),
            begins: hello.begins().map(Seq::new),
        };
        self.note_held_lost(node, facts.epoch > Epoch::ZERO);
        if facts.epoch > self.own(node).engine.epoch() {
            let own = self.own(node);
            let stored = own.store.sync_all().min(own.engine.written());
            own.engine.handle_stored(stored);
        }
        if let Err(code) = self.own(node).engine.handle_hello(session, facts) {
            return self.secondary_refuses(node, session, code);
        }
        self.carry_out_secondary(node, None);
        let own = &self.secondaries[node - 1];
        let (epoch, stored) = (own.engine.epoch(), own.engine.stored());
        self.tell(node, "hello", epoch.number(), stored.number(), || {
            format!("to {} epoch {} with stored={stored}", hello.node_id, hello.epoch)
        });
        self.check_kept(node);
        let answer = Message::Hello(self.secondary_hello(node)).encode();
        self.push_secondary(node, session, Kind::Control, answer);
    }

    /// What is held back is dropped with the session; the master may not know yet.
    pub(super) fn note_held_lost(&mut self, node: usize, dropped: bool) {
        let engine = &self.secondaries[node - 1].engine;
        let (held, written) = (engine.held(), engine.written());
        if dropped && !held.is_empty() {
            self.ghosts[node].held.extend(held.iter());
            self.record_drop(node, written);
        }
    }

    fn secondary_message(&mut self, node: usize, session: SessionId, message: Message) {
        let followed = self.own(node).engine.session() == Some(session);
        match message {
            Message::Append(head, _) if followed && (head.count == 0 || head.first == 0) => {
                self.secondary_closed(node, session, Some(RefuseCode::BadFrame), "no entry");
            }
            Message::Append(head, records) if followed => {
                let frame = Delayed { session, head, records };
                let now = self.now;
                let verbs = &mut self.own(node).verbs;
                let delay = verbs.once.take().unwrap_or(verbs.every);
                if delay == 0 {
                    return self.handle_append(node, frame);
                }
                if verbs.delayed.len() < DELAYED_FRAMES_MAX {
                    verbs.arrivals += 1;
                    verbs.delayed.insert((now + delay, verbs.arrivals), frame);
                }
                self.seen.note(Sometimes::DelayedFrame);
                self.wake_at(node, now + delay);
            }
            Message::Heartbeat(heartbeat) if followed || heartbeat.epoch == 0 => {
                if followed {
                    let admitted =
                        self.own(node).engine.admits(session, Epoch::new(heartbeat.epoch));
                    if !admitted {
                        return self.carry_out_secondary(node, None);
                    }
                    self.take_levels(node, session, heartbeat.levels);
                }
                let ack = HeartbeatAck { epoch: heartbeat.epoch, number: heartbeat.number };
                let frame = Message::HeartbeatAck(ack).encode();
                self.push_secondary(node, session, Kind::Heartbeat, frame);
            }
            Message::Align(align) if followed => {
                if !self.own(node).engine.admits(session, Epoch::new(align.epoch)) {
                    return self.carry_out_secondary(node, None);
                }
                self.align(node, session, align);
            }
            Message::Fetch(fetch) if followed => self.fetch(node, session, fetch),
            Message::Hello(hello) if hello.role == Role::Master => {
                self.secondary_introduced(node, session, &hello);
            }
            Message::Refuse(refuse) => {
                self.tell(node, "refused", u64::from(refuse.code), 0, || {
                    format!("by n0: {}", refuse.reason)
                });
                self.secondary_closed(node, session, None, "refused by the master");
            }
            _ => self.secondary_closed(node, session, Some(RefuseCode::BadFrame), "not expected"),
        }
    }

    /// The master says where the logs part.
    fn align(&mut self, node: usize, session: SessionId, align: codec::Align) {
        let last = Seq::new(align.last);
        let theirs = PrefixId {
            epoch: Epoch::new(align.last_epoch),
            digest: Digest::new(align.last_digest),
        };
        let ours = self.own(node).store.reader().prefix_id(last);
        self.note_held_lost(node, true);
        let answer = self.own(node).engine.handle_align(session, last, theirs, ours);
        self.carry_out_secondary(node, None);
        self.tell(node, "align", last.number(), u64::from(answer), || {
            format!("to {last}: {}", if answer { "done" } else { "contradicts" })
        });
        if answer {
            self.check_kept(node);
            let answer = Message::Hello(self.secondary_hello(node)).encode();
            self.push_secondary(node, session, Kind::Control, answer);
        } else if !self.excused {
            self.fail(
                "what was committed is never contradicted",
                format!("n{node} at {last}: {:?}", self.secondaries[node - 1].engine.levels()),
            );
        }
    }

    /// The master asks for entries: one frame of them.
    fn fetch(&mut self, node: usize, session: SessionId, fetch: codec::Fetch) {
        if !self.own(node).engine.admits(session, Epoch::new(fetch.epoch)) {
            return self.carry_out_secondary(node, None);
        }
        let own = self.own(node);
        let end = Seq::new(fetch.last).min(own.engine.stored()).next();
        let range = SeqRange::new(Seq::new(fetch.first), end);
        let slice = own.store.reader().read(range, RUN_BYTES_MAX);
        let head = codec::FetchedHead {
            epoch: fetch.epoch,
            first: fetch.first,
            count: slice.range.map_or(0, |range| range.len()) as u32, // At most RUN_ENTRIES_MAX.
        };
        let frame = codec::encode_fetched(&head, slice.pieces);
        self.push_secondary(node, session, Kind::Entries(end), frame);
    }

    fn handle_append(&mut self, node: usize, frame: Delayed) {
        let Delayed { session, head, records } = frame;
        let own = self.own(node);
        if !own.links.contains_key(&session) {
            return self.seen.note(Sometimes::OldSession);
        }
        let before = own.rng.percent(own.verbs.fail_before);
        let after = own.rng.percent(own.verbs.fail_after);
        if before || after {
            self.carry_out_secondary(node, None);
            self.send_ack(node);
        }
        let first = Seq::new(head.first);
        if !before {
            self.take_run(node, session, head, records);
        }
        if before || after {
            self.seen.note(if before { Sometimes::FailedBefore } else { Sometimes::FailedAfter });
            self.own(node).engine.withhold_ack();
            self.send_nack(node, session, first, NackCode::Injected);
        }
    }

    fn take_run(&mut self, node: usize, session: SessionId, head: AppendHead, records: Bytes) {
        if !self.own(node).engine.admits(session, Epoch::new(head.epoch)) {
            return self.carry_out_secondary(node, None);
        }
        let first = Seq::new(head.first);
        let before = PrefixId {
            epoch: Epoch::new(head.previous_epoch),
            digest: Digest::new(head.previous_digest),
        };
        let epoch = self.own(node).engine.epoch();
        match Run::verify_sent(records, first, u64::from(head.count), before, epoch) {
            Ok(run) => {
                self.tell(node, "entries", head.first, u64::from(head.count), || {
                    format!("{}", run.range())
                });
                if !self.takes(node, session, &run) {
                    return self.carry_out_secondary(node, None);
                }
                if self.own(node).engine.is_damaged() {
                    self.repair(node, &run);
                    if self.own(node).engine.session() != Some(session) {
                        return; // Whole again: the master hears it by a new introduction.
                    }
                }
                if self.arrive_run(node, session, &run) {
                    self.take_levels(node, session, head.levels);
                }
                self.carry_out_secondary(node, Some(run));
            }
            Err(reason) => {
                self.fail("what arrives is what was sent", format!("n{node} at {first}: {reason}"));
                self.own(node).engine.handle_bad_run(session, first);
                self.carry_out_secondary(node, None);
            }
        }
    }

    /// Mends what is damaged with what the master sends again.
    fn repair(&mut self, node: usize, run: &Run) {
        let Some(damage) = self.own(node).store.damage().first().copied() else { return };
        if damage.first > self.own(node).store.bounds().last {
            return; // Missing at the end: it is appended like any other.
        }
        let part = damage.intersection(run.range());
        if part.is_empty() || part.first != damage.first {
            return;
        }
        let before = match part.first == run.range().first {
            true => Some(run.before()),
            false => run.prefix_id(part.first.previous()),
        };
        let piece =
            before.and_then(|id| Run::verify(run.slice(part), part.first, part.len(), id).ok());
        if let Some(piece) = piece {
            // What does not fit comes again.
            if let Err(error @ StoreError::Failed { .. }) = self.own(node).store.repair(piece) {
                return self.secondary_store_failed(node, &error);
            }
            self.tell_damage(node);
        }
    }

    /// Whether there is room for a run; if not, the engine refuses it.
    fn takes(&mut self, node: usize, session: SessionId, run: &Run) -> bool {
        let (own, bytes) = (self.own(node), run.len_bytes());
        let room = own.store.room_for(bytes).is_ok();
        own.engine.takes(session, run.range(), bytes, room)
    }

    fn arrive_run(&mut self, node: usize, session: SessionId, run: &Run) -> bool {
        let own = self.own(node);
        let range = run.range();
        let common = own.engine.written().min(range.last());
        let overlap = (range.first <= common)
            .then(|| run.prefix_id(common).zip(own.store.reader().prefix_id(common)))
            .flatten();
        let (before, tail, bytes) = (run.before(), run.tail(), run.len_bytes());
        let duplicates = own.engine.duplicates();
        let taken =
            own.engine.handle_arrival(session, Arrival { range, before, tail, bytes, overlap });
        if own.engine.duplicates() > duplicates {
            self.seen.note(Sometimes::Duplicate);
        }
        taken
    }

    // ---- effects ----

    pub(super) fn carry_out_secondary(&mut self, node: usize, mut current: Option<Run>) {
        while let Some(effect) = self.own(node).engine.poll_effect() {
            match effect {
                SecondaryEffect::Append { range } => {
                    let run = current.take().and_then(|run| run.split_from(range.first));
                    let run = run.expect("BUG: the engine appends only what just arrived");
                    self.append_run(node, run);
                }
                SecondaryEffect::Hold { range } => {
                    self.tell(node, "holds", range.first.number(), range.end.number(), || {
                        format!("{range}")
                    });
                    let run = current.take().expect("BUG: the engine holds only what arrived");
                    self.own(node).held.insert(range.first, run);
                }
                SecondaryEffect::Release { first } => {
                    let own = self.own(node);
                    if let (Some(run), Some(session)) =
                        (own.held.remove(&first), own.engine.session())
                    {
                        let taken = self.takes(node, session, &run);
                        self.own(node).dropped = !taken;
                        if !taken {
                            continue; // It comes again.
                        }
                        self.seen.note(Sometimes::HoleFilled);
                        self.arrive_run(node, session, &run);
                        current = Some(run);
                    }
                }
                SecondaryEffect::DropHeld => self.own(node).held.clear(),
                SecondaryEffect::MakeDurable { up_to } => self.make_durable(node, up_to),
                SecondaryEffect::Nack { session, seq, code } => {
                    if matches!(code, NackCode::Conflict | NackCode::Mismatch)
                        && !self.excused
                        && !self.secondaries[node - 1].engine.is_damaged()
                    {
                        self.fail(
                            "one master's entries never conflict",
                            format!("n{node}: {} at {seq}", code.word()),
                        );
                    }
                    self.send_nack(node, session, seq, code);
                }
                SecondaryEffect::Close { session, code } => {
                    if code == RefuseCode::Replaced {
                        self.seen.note(Sometimes::Replaced);
                    }
                    self.secondary_closed(node, session, Some(code), code.word());
                }
                SecondaryEffect::Keep { log_id, epoch, run_id, settled, vouches } => {
                    self.keep_secondary(node, (log_id, epoch, run_id), settled, vouches);
                }
                SecondaryEffect::SetAside { from } => self.set_aside_secondary(node, from),
                SecondaryEffect::Reconnect { session } => {
                    self.secondary_closed(node, session, None, "damaged, or whole again");
                }
                SecondaryEffect::Ack { .. } => unreachable!("BUG: ACKs come by poll_ack"),
            }
        }
    }

    fn append_run(&mut self, node: usize, run: Run) {
        let range = run.range();
        self.tell(node, "append", range.first.number(), range.end.number(), || format!("{range}"));
        let own = self.own(node);
        if let Err(error) = own.store.append(run) {
            return self.secondary_store_failed(node, &error);
        }
        let own = self.own(node);
        let gave_way = own.provisional.give_way(&own.store.reader(), range);
        own.dropped = false;
        own.engine.handle_gave_way(gave_way.duplicates);
        own.engine.handle_written(range.last());
        if gave_way.duplicates > 0 {
            self.seen.note(Sometimes::GaveWay);
        }
        if gave_way.aside > 0 {
            self.seen.note(Sometimes::MovedAside);
        }
    }

    fn secondary_store_failed(&mut self, node: usize, error: &replog::store::StoreError) {
        self.tell(node, "store-failed", 0, 0, || error.to_string());
        if matches!(error, StoreError::NotContiguous { .. } | StoreError::Unfit { .. }) {
            self.fail("what is appended continues the log", format!("n{node}: {error}"));
        }
        self.hosts[node].failed = true;
    }

    fn send_ack(&mut self, node: usize) {
        let own = self.own(node);
        let Some(SecondaryEffect::Ack { session, stored, received, held, duplicates }) =
            own.engine.poll_ack()
        else {
            return;
        };
        self.check_kept(node);
        let own = self.own(node);
        let range = |range: SeqRange| HeldRange {
            first: range.first.number(),
            last: range.last().number(),
        };
        let ack = Ack {
            epoch: own.engine.epoch().number(),
            stored: stored.number(),
            received: received.number(),
            held: held.iter().take(ACK_RANGES_MAX).map(range).collect(),
            duplicates,
        };
        self.tell(node, "acks", ack.stored, ack.received, || {
            format!("stored={stored} received={received}")
        });
        self.push_secondary(node, session, Kind::Ack, Message::Ack(ack).encode());
    }

    fn send_nack(&mut self, node: usize, session: SessionId, seq: Seq, code: NackCode) {
        self.tell(node, "nacks", seq.number(), u64::from(code.number()), || {
            format!("{seq} {}", code.word())
        });
        let epoch = self.own(node).engine.epoch().number();
        let nack = Nack { epoch, seq: seq.number(), code: code.number(), reason: String::new() };
        self.push_secondary(node, session, Kind::Control, Message::Nack(nack).encode());
    }

    /// Sends a frame; a muted secondary drops it.
    fn push_secondary(&mut self, node: usize, session: SessionId, kind: Kind, frame: OutFrame) {
        if self.hosts[node].failed {
            return; // It ends before it says what it could not do.
        }
        if self.own(node).verbs.muted > 0 {
            return self.seen.note(Sometimes::Muted);
        }
        if let Some(mut link) = self.own(node).links.remove(&session) {
            self.push_link(&mut link, kind, frame);
            self.own(node).links.insert(session, link);
            self.flush_secondary(node, session);
        }
    }

    fn flush_secondary(&mut self, node: usize, session: SessionId) {
        let Some(mut link) = self.own(node).links.remove(&session) else { return };
        let result = self.flush_link(&mut link);
        self.own(node).links.insert(session, link);
        if let Err(reason) = result {
            self.secondary_closed(node, session, None, reason);
        }
    }

    fn secondary_refuses(&mut self, node: usize, session: SessionId, code: RefuseCode) {
        self.tell(node, "refuses", u64::from(code.number()), 0, || code.word().to_owned());
        let followed = self.own(node).engine.session() == Some(session);
        self.note_held_lost(node, followed);
        let own = self.own(node);
        own.engine.handle_disconnected(session);
        let epoch = own.engine.epoch().number();
        if let Some(link) = own.links.remove(&session) {
            self.refuse_link(link, refusal(code, epoch, code.word()));
        }
    }

    fn secondary_closed(
        &mut self,
        node: usize,
        session: SessionId,
        refuse: Option<RefuseCode>,
        reason: &'static str,
    ) {
        let Some(link) = self.own(node).links.remove(&session) else { return };
        self.tell(node, "lost", session.0, 0, || format!("session {}: {reason}", session.0));
        let epoch = self.own(node).engine.epoch().number();
        match refuse {
            Some(code) => self.refuse_link(link, refusal(code, epoch, reason)),
            None => self.drop_link(&link),
        }
        let followed = self.own(node).engine.session() == Some(session);
        self.note_held_lost(node, followed);
        let own = self.own(node);
        own.verbs.delayed.retain(|_, frame| frame.session != session);
        own.engine.handle_disconnected(session);
        while let Some(effect) = self.own(node).engine.poll_effect() {
            match effect {
                SecondaryEffect::DropHeld => self.own(node).held.clear(),
                SecondaryEffect::MakeDurable { up_to } => self.make_durable(node, up_to),
                SecondaryEffect::Keep { log_id, epoch, run_id, settled, vouches } => {
                    self.keep_secondary(node, (log_id, epoch, run_id), settled, vouches);
                }
                SecondaryEffect::SetAside { from } => self.set_aside_secondary(node, from),
                _ => {}
            }
        }
    }

    fn keep_secondary(
        &mut self,
        node: usize,
        (log_id, epoch, run_id): (LogId, Epoch, RunId),
        settled: Epoch,
        vouches: bool,
    ) {
        let own = self.own(node);
        let (log_id, commit) = (Some(log_id), own.engine.levels().commit);
        let identity = Identity { log_id, epoch, run_id, settled, commit, vouches };
        if let Err(error) = own.store.keep(identity) {
            self.secondary_store_failed(node, &error);
        }
    }

    fn set_aside_secondary(&mut self, node: usize, from: Seq) {
        self.tell(node, "sets-aside", from.number(), 0, || format!("from {from}"));
        self.check_aside(node, from);
        self.seen.note(Sometimes::Aligned);
        let own = self.own(node);
        own.aside = Some(from);
        if let Err(error) = own.store.set_aside(from) {
            self.secondary_store_failed(node, &error);
        }
    }

    /// What a node says of itself rests on what it has kept.
    fn check_kept(&mut self, node: usize) {
        let own = self.own(node);
        let (bounds, kept) = (own.store.bounds(), own.store.identity().clone());
        let said = (own.engine.epoch(), own.engine.settled(Epoch::ZERO));
        let settled = kept.settled.max(bounds.tail.epoch);
        if !self.hosts[node].failed && (said.0 > kept.epoch || said.1 > settled) {
            self.fail(
                "a promise and a settled epoch are kept before they are told",
                format!("n{node} says {said:?}, {} and {settled} are kept", kept.epoch),
            );
        }
    }

    fn take_levels(&mut self, node: usize, session: SessionId, levels: WireLevels) {
        let held_by = levels.held_by.into_iter().take(NODES_MAX).map(Seq::new).collect();
        self.own(node).engine.handle_levels(session, Seq::new(levels.commit), held_by);
    }

    fn secondary_hello(&self, node: usize) -> Hello {
        let own = &self.secondaries[node - 1];
        let engine = &own.engine;
        let log = own.store.reader();
        let stored = engine.stored();
        let tail = log.prefix_id(stored).unwrap_or(PrefixId::EMPTY);
        Hello {
            log_id: engine.log_id().map(LogId::bytes),
            epoch: engine.epoch().number(),
            run_id: engine.run_id().value(),
            epoch_table: epoch_table(&log),
            stored: stored.number(),
            tail_epoch: tail.epoch.number(),
            tail_digest: tail.digest.value(),
            settled: engine.settled(tail.epoch).number(),
            commit: engine.levels().commit.number(),
            vouches: engine.vouches(),
            ..blank_hello(&format!("n{node}"))
        }
    }
}
