//! The simulated driver of the master: what `runtime::master` does, without tokio.

use bytes::BytesMut;
use replog::codes::{NackCode, RefuseCode};
use replog::engine::ranges::RangeSet;
use replog::engine::startup::last_common;
use replog::engine::{
    AckFacts, Answer, AttemptFailure, Effect, Health, HelloFacts, Levels, Master, Mode, Reign,
    SessionId, Submission, Token,
};
use replog::limits::{ACK_RANGES_MAX, FRAME_BODY_BYTES_MAX, RECORD_HEADER_BYTES, WINDOW_BYTES_MAX};
use replog::store::{Identity, Run, RunBuilder, StoreError};
use replog::types::{
    AckLevel, Digest, Epoch, LogId, NodeIndex, PrefixId, RunId, Seq, SeqRange, Time,
};
use replog::wire::codec::{self, AppendHead, EpochStart, Hello, Role, encode_append};
use replog::wire::{Message, OutFrame, VERSION};

use super::dial::Dialled;
use super::link::{Kind, Link};
use super::net::refusal;
use super::store::SimStore;
use super::{Input, World};
use crate::sometimes::Sometimes;

/// A secondary as the driver sees it, and what the checks want to know of it.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) link: Option<Link>,
    pub(super) leading: bool,
    pub(super) introducing: u32,
    pub(super) told_as_leader: bool,
    pub(super) heartbeat: u64,
    /// When something was heard of it.
    pub(super) last_contact: u64,
    /// Frames sent for the first time on this connection and not acknowledged: last entry, bytes.
    pub(super) under_way: std::collections::VecDeque<(Seq, usize)>,
    /// The end of what was sent on this connection.
    pub(super) sent_end: Seq,
    /// Attempts that failed since the last progress; and why the last did.
    failure: Option<AttemptFailure>,
    pub(super) was_unhealthy: bool,
}

pub(super) struct MasterNode {
    pub(super) engine: Master,
    pub(super) store: SimStore,
    pub(super) peers: Vec<Peer>,
    arena: BytesMut,
    builder: Option<RunBuilder>,
    pub(super) next_session: u64,
    pub(super) deposed: bool,
    /// Its epoch could not be written down.
    pub(super) unkept: bool,
    /// The epoch that it asked for first.
    sought: Epoch,
    /// The highest commit position that any master showed.
    pub(super) shown_commit: Seq,
    /// What readers see.
    pub(super) view: (Seq, Levels),
    /// Secondaries whose connection was lost in this turn.
    lost: Vec<usize>,
    /// What they had answered: a reign that began in this turn may have counted it before.
    pub(super) answers_lost: Vec<HelloFacts>,
    /// Replies of this turn.
    outbox: Vec<super::clients::Reply>,
    /// There was no room for the append that was looked at last.
    pub(super) lacks_room: bool,
}

impl MasterNode {
    pub(super) fn new(engine: Master, store: SimStore, nodes: usize, next_session: u64) -> Self {
        MasterNode {
            engine,
            store,
            peers: (1..nodes).map(|_| Peer::default()).collect(),
            arena: BytesMut::new(),
            builder: None,
            next_session,
            deposed: false,
            unkept: false,
            sought: Epoch::ZERO,
            shown_commit: Seq::ZERO,
            view: (Seq::ZERO, Levels::empty(nodes)),
            lost: Vec::new(),
            answers_lost: Vec::new(),
            outbox: Vec::new(),
            lacks_room: false,
        }
    }
}

impl World {
    /// One turn of the driver: what is due, what came in, what was decided.
    pub(super) fn master_turn(&mut self) {
        let now = Time::from_micros(self.now);
        if self.master.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.master.engine.handle_timeout(now);
        }
        if !self.hear_disk(0) {
            return;
        }
        for _ in 0..super::INPUTS_PER_TURN {
            let Some(input) = self.hosts[0].inbox.pop_front() else { break };
            self.master_input(now, input);
        }
        self.write_run(now);
        self.carry_out_master(now);
        if self.hosts[0].failed {
            return; // Nobody hears what this turn decided.
        }
        // Now every answer that was decided before the loss is out.
        for peer in std::mem::take(&mut self.master.lost) {
            self.ghosts[peer].held.clear();
        }
        self.master.answers_lost.clear();
        let outbox = std::mem::take(&mut self.master.outbox);
        outbox.into_iter().for_each(|reply| self.send_reply(reply));
        let local = self.master.engine.levels().held_by(1);
        self.master.view = (local, self.master.engine.levels().clone());
    }

    fn master_input(&mut self, now: Time, input: Input) {
        match input {
            Input::Append { request } => self.append(now, request),
            Input::Wait { request } => self.wait(now, request),
            Input::ClientGone { connection } => {
                self.master.engine.handle_gone(connection);
                self.requests_gone(connection);
            }
            Input::Dialled { dial, result } => self.dialled(now, dial, result),
            Input::Messages { peer, session, messages } => {
                if !self.is_current(peer, session) {
                    return self.seen.note(Sometimes::OldSession);
                }
                self.peer(peer).last_contact = self.now;
                self.master.engine.handle_heard(now, index(peer), session);
                for message in messages {
                    if self.is_current(peer, session) {
                        self.master_message(now, peer, session, message);
                    }
                }
            }
            Input::Closed { peer, session, refuse, reason } => {
                if self.is_current(peer, session) {
                    self.master_disconnected(peer, session, refuse, reason);
                }
            }
            Input::Writable { peer, session } => {
                if self.is_current(peer, session) {
                    if let Some(link) = &mut self.peer(peer).link {
                        link.unblock();
                    }
                    self.flush_master(now, peer);
                }
            }
            Input::Synced { up_to } => {
                let (stored, again) = self.master.store.synced(up_to);
                if self.master.store.sync_failed().is_some() {
                    return; // Heard in the next turn.
                }
                self.tell(0, "stored", stored.number(), 0, || format!("up to {stored}"));
                self.master.engine.handle_stored(now, stored);
                if let Some(up_to) = again {
                    self.start_sync(0, up_to);
                }
            }
            Input::Accepted { .. } => {}
        }
    }

    // ---- clients ----

    fn append(&mut self, now: Time, id: usize) {
        let submission = self.submission(id);
        let count = submission.count;
        let before = self.master.engine.last();
        let mode = self.master.engine.mode();
        let size = self.requests[id].size as usize;
        self.look_for_room(now, count as usize * (size + RECORD_HEADER_BYTES));
        match self.master.engine.handle_append(now, submission) {
            Ok(range) => {
                self.numbered(id, range, before, mode);
                let (epoch, time_ms) = (self.master.engine.epoch(), self.wall_ms(0));
                let master = &mut self.master;
                let builder = master.builder.get_or_insert_with(|| {
                    let bounds = master.store.bounds();
                    RunBuilder::new(&mut master.arena, bounds.last, bounds.tail)
                });
                let size = self.requests[id].size;
                for entry in 0..count {
                    builder.push(epoch, time_ms, &super::clients::payload(id, entry, size));
                }
                if builder.len_bytes() >= 4 << 20 {
                    self.write_run(now);
                }
            }
            Err(refused) => {
                if self.master.engine.last() != before {
                    self.fail("a refusal consumes no number", format!("{refused:?}"));
                }
                let reply = self.refused(id, refused);
                self.master.outbox.push(reply);
            }
        }
    }

    /// As the driver: what was numbered before goes first if it is in the way.
    fn look_for_room(&mut self, now: Time, bytes: usize) {
        let pending = self.master.builder.as_ref().map_or(0, RunBuilder::len_bytes);
        let mut room = self.master.store.room_for(pending + bytes);
        if pending > 0 && room.is_err() {
            self.write_run(now);
            room = self.master.store.room_for(bytes);
        }
        self.master.lacks_room = room.is_err();
        self.master.engine.handle_room(room.err());
    }

    fn write_run(&mut self, now: Time) {
        let master = &mut self.master;
        let Some(builder) = master.builder.take() else { return };
        let Some(run) = builder.finish(&mut master.arena) else { return };
        let (range, last) = (run.range(), run.range().last());
        match master.store.append(run) {
            Ok(()) => master.engine.handle_written(now, last),
            Err(error) => return self.master_store_failed(&error),
        }
        self.tell(0, "write", last.number(), 0, || format!("{range}"));
    }

    fn wait(&mut self, now: Time, id: usize) {
        let submission = self.submission(id);
        let Some(seq) = self.requests[id].wait_for else { return };
        let last = self.master.engine.last();
        match self.master.engine.handle_wait(now, seq, submission) {
            Ok(()) => self.waits(id, seq, last),
            Err(refused) => {
                let reply = self.refused(id, refused);
                self.master.outbox.push(reply);
            }
        }
    }

    fn submission(&self, id: usize) -> Submission {
        let request = &self.requests[id];
        let token = Token { connection: request.connection, slot: id as u64 };
        Submission {
            token,
            count: u64::from(request.count),
            concern: request.concern,
            ack: request.ack,
            patience: request.patience,
        }
    }

    fn answer(&mut self, answer: Answer) {
        self.check_answer(&answer);
        let epoch = self.master.store.reader().epoch_of(answer.range.first);
        let epoch = epoch.unwrap_or(self.master.engine.epoch()).number();
        self.master.outbox.push(super::clients::Reply::of(&answer, epoch));
    }

    // ---- secondaries ----

    fn dialled(&mut self, now: Time, dial: usize, result: Dialled) {
        let (to, session) = (self.dials[dial].to, self.dials[dial].session);
        match result {
            Dialled::Introduced { conn, hello } => {
                self.tell(0, "connected", to as u64, conn as u64, || format!("n{to} conn {conn}"));
                self.conns[conn].sessions[0] = session;
                let at = self.now;
                let peer = self.peer(to);
                peer.link = Some(Link::new(session, conn, 0));
                peer.last_contact = at;
                self.start_reading(conn, 0);
                self.master_introduced(now, to, session, &hello);
            }
            Dialled::Refused(refuse) => {
                let code = RefuseCode::from_number(refuse.code).unwrap_or(RefuseCode::BadFrame);
                self.tell(0, "refused", to as u64, refuse.epoch, || format!("by n{to}: {code}"));
                self.master.engine.handle_refused(
                    index(to),
                    session,
                    code,
                    Epoch::new(refuse.epoch),
                );
            }
            Dialled::Unreachable => {
                self.tell(0, "no-answer", to as u64, 0, || format!("of n{to}"));
                self.master.engine.handle_dial_failed(now, index(to));
            }
        }
    }

    fn master_introduced(&mut self, now: Time, to: usize, session: SessionId, hello: &Hello) {
        let leads = self.master.engine.reign() == Reign::Leading;
        let peer = self.peer(to);
        let leading = peer.leading && (peer.told_as_leader || !leads);
        if hello.role != Role::Secondary || hello.node_id != format!("n{to}") {
            self.close_peer(to, RefuseCode::WrongNode);
            let code = RefuseCode::WrongNode;
            return self.master.engine.handle_refused(index(to), session, code, Epoch::ZERO);
        }
        let stored = Seq::new(hello.stored);
        let facts = HelloFacts {
            log_id: hello.log_id.map(LogId::new),
            epoch: Epoch::new(hello.epoch),
            run_id: RunId::new(hello.run_id),
            stored,
            tail: PrefixId {
                epoch: Epoch::new(hello.tail_epoch),
                digest: Digest::new(hello.tail_digest),
            },
            settled: Epoch::new(hello.settled),
            ours: self.master.store.reader().prefix_id(stored),
            commit: Seq::new(hello.commit),
            vouches: hello.vouches,
            common: last_common(
                &self.master.store.reader().epoch_table(),
                self.master.store.bounds().last,
                &hello.epoch_table.iter().map(epoch_row).collect::<Vec<_>>(),
                stored,
            ),
        };
        self.master.engine.handle_introduced(now, index(to), session, facts, leading);
    }

    fn master_message(&mut self, now: Time, from: usize, session: SessionId, message: Message) {
        let epoch = self.master.engine.epoch().number();
        match message {
            Message::Ack(ack) if ack.epoch == epoch => {
                self.tell(0, "ack", ack.stored, ack.received, || {
                    let held: Vec<_> =
                        ack.held.iter().map(|r| format!("{}..{}", r.first, r.last)).collect();
                    format!(
                        "of n{from} stored={} received={} held={}",
                        ack.stored,
                        ack.received,
                        held.join(",")
                    )
                });
                let Some(held) = held_ranges(&ack) else {
                    let code = Some(RefuseCode::BadFrame);
                    return self.master_disconnected(from, session, code, "bad ranges");
                };
                if !held.is_empty() {
                    self.seen.note(Sometimes::HeldListed);
                }
                let (stored, received) = (Seq::new(ack.stored), Seq::new(ack.received));
                let facts = AckFacts { stored, received, held, duplicates: ack.duplicates };
                let peer = self.peer(from);
                while peer.under_way.front().is_some_and(|&(last, _)| last <= stored) {
                    peer.under_way.pop_front();
                }
                let before = self.master.engine.secondaries()[from - 1].received;
                self.master.engine.handle_ack(now, index(from), session, facts);
                let progress = &self.master.engine.secondaries()[from - 1];
                if received > before && progress.received == received {
                    let attempts = progress.attempts();
                    self.peer(from).failure = None;
                    if attempts > 0 {
                        self.fail(
                            "progress begins the ladder of waits anew",
                            format!("n{from}: {attempts} attempts"),
                        );
                    }
                }
            }
            Message::Nack(nack) if nack.epoch == epoch => {
                self.tell(0, "nack", nack.seq, u64::from(nack.code), || {
                    format!("of n{from} at {} code {}", nack.seq, nack.code)
                });
                let code = NackCode::from_number(nack.code);
                self.master.engine.handle_nack(now, index(from), session, code);
            }
            Message::Fetched(head, records) if head.epoch == epoch => {
                self.fetched(now, from, session, head, records);
            }
            Message::HeartbeatAck(ack)
                if ack.epoch == 0
                    || ack.epoch == epoch
                    || self.master.engine.reign() != Reign::Leading => {}
            Message::Hello(hello) if self.peer(from).introducing > 0 => {
                let peer = self.peer(from);
                peer.introducing -= 1;
                if peer.introducing == 0 {
                    self.master_introduced(now, from, session, &hello);
                }
            }
            Message::Ack(_)
            | Message::Nack(_)
            | Message::HeartbeatAck(_)
            | Message::Fetched(..) => {
                let code = Some(RefuseCode::StaleEpoch);
                self.master_disconnected(from, session, code, "another epoch");
            }
            Message::Refuse(refuse) => {
                let code = RefuseCode::from_number(refuse.code).unwrap_or(RefuseCode::BadFrame);
                self.tell(0, "refused", from as u64, refuse.epoch, || {
                    format!("by n{from}: {code}")
                });
                if let Some(link) = self.peer(from).link.take() {
                    self.drop_link(&link);
                }
                let epoch = Epoch::new(refuse.epoch);
                self.master.engine.handle_refused(index(from), session, code, epoch);
            }
            _ => {
                let code = Some(RefuseCode::BadFrame);
                self.master_disconnected(from, session, code, "not a secondary's frame");
            }
        }
    }

    fn master_disconnected(
        &mut self,
        peer: usize,
        session: SessionId,
        refuse: Option<RefuseCode>,
        reason: &'static str,
    ) {
        self.tell(0, "lost", peer as u64, 0, || format!("n{peer}: {reason}"));
        let epoch = self.master.engine.epoch().number();
        if let Some(link) = self.peer(peer).link.take() {
            match refuse {
                Some(code) => self.refuse_link(link, refusal(code, epoch, reason)),
                None => self.drop_link(&link),
            }
        }
        self.master.lost.push(peer);
        let answer = self.master.engine.secondaries()[peer - 1].answer;
        self.master.answers_lost.extend(answer);
        self.master.engine.handle_disconnected(index(peer), session);
    }

    fn close_peer(&mut self, to: usize, code: RefuseCode) {
        let epoch = self.master.engine.epoch().number();
        if let Some(link) = self.peer(to).link.take() {
            self.refuse_link(link, refusal(code, epoch, code.word()));
        }
    }

    fn is_current(&mut self, peer: usize, session: SessionId) -> bool {
        self.peer(peer).link.as_ref().is_some_and(|link| link.session == session)
    }

    pub(super) fn peer(&mut self, node: usize) -> &mut Peer {
        &mut self.master.peers[node - 1]
    }

    // ---- effects ----

    pub(super) fn carry_out_master(&mut self, now: Time) {
        while let Some(effect) = self.master.engine.poll_effect() {
            match effect {
                Effect::Dial { to } => self.dial(to.as_usize()),
                Effect::Introduce { to, .. } => {
                    let leads = self.master.engine.reign() == Reign::Leading;
                    let to = to.as_usize();
                    let hello = Message::Hello(self.master_hello(to)).encode();
                    let peer = self.peer(to);
                    peer.introducing += 1;
                    (peer.leading, peer.told_as_leader) = (true, leads);
                    self.push_master(now, to, Kind::Control, hello);
                }
                Effect::Close { to, code, .. } => {
                    let to = to.as_usize();
                    self.tell(0, "refuses", to as u64, 0, || format!("n{to}: {code}"));
                    self.close_peer(to, code);
                }
                Effect::Send { to, session, range, bytes_max, again } => {
                    self.send(now, to.as_usize(), session, range, bytes_max, again);
                }
                Effect::Heartbeat { to, .. } => {
                    let to = to.as_usize();
                    let (epoch, levels) =
                        (self.master.engine.epoch().number(), self.wire_levels(to));
                    let peer = self.peer(to);
                    let epoch = if peer.leading { epoch } else { 0 };
                    peer.heartbeat += 1;
                    let heartbeat = codec::Heartbeat { epoch, number: peer.heartbeat, levels };
                    let frame = Message::Heartbeat(heartbeat).encode();
                    self.push_master(now, to, Kind::Heartbeat, frame);
                }
                Effect::MakeDurable { up_to } => self.make_durable(0, up_to),
                Effect::Keep { log_id, epoch, settled, vouches } => {
                    let run_id = self.master.engine.run_id();
                    let commit = self.master.engine.levels().commit;
                    let log_id = Some(log_id);
                    let identity = Identity { log_id, epoch, run_id, settled, commit, vouches };
                    self.note_sought(epoch);
                    if let Err(error) = self.master.store.keep(identity) {
                        self.master.unkept = epoch > self.master.store.identity().epoch;
                        self.master_store_failed(&error);
                    }
                }
                Effect::SetAside { from } => {
                    self.tell(0, "sets-aside", from.number(), 0, || format!("from {from}"));
                    self.check_own_aside(from);
                    self.seen.note(Sometimes::OwnAside);
                    if let Err(error) = self.master.store.set_aside(from) {
                        self.master_store_failed(&error);
                    }
                }
                Effect::Fetch { from, range, .. } => {
                    let from = from.as_usize();
                    self.tell(0, "fetches", range.first.number(), range.end.number(), || {
                        format!("{range} from n{from}")
                    });
                    let fetch = codec::Fetch {
                        epoch: self.master.engine.epoch().number(),
                        first: range.first.number(),
                        last: range.last().number(),
                    };
                    let frame = Message::Fetch(fetch).encode();
                    self.push_master(now, from, Kind::Control, frame);
                }
                Effect::Align { to, session, last } => {
                    self.align_peer(now, to.as_usize(), session, last);
                }
                Effect::Answer(answer) => self.answer(answer),
                effect => self.note_effect(effect),
            }
        }
    }

    /// The store cannot go on: nor can this node.
    fn master_store_failed(&mut self, error: &replog::store::StoreError) {
        self.tell(0, "store-failed", 0, 0, || error.to_string());
        if matches!(error, StoreError::NotContiguous { .. } | StoreError::Unfit { .. }) {
            self.fail("what is appended continues the log", format!("n0: {error}"));
        }
        self.hosts[0].failed = true;
    }

    fn align_peer(&mut self, now: Time, to: usize, session: SessionId, last: Seq) {
        let Some(id) = self.master.store.reader().prefix_id(last) else {
            let (code, reason) = (Some(RefuseCode::Diverged), "where it differs cannot be read");
            return self.master_disconnected(to, session, code, reason);
        };
        self.tell(0, "aligns", to as u64, last.number(), || format!("n{to} to {last}"));
        let peer = self.peer(to);
        peer.introducing += 1;
        (peer.leading, peer.told_as_leader) = (true, true);
        let align = codec::Align {
            epoch: self.master.engine.epoch().number(),
            last: last.number(),
            last_epoch: id.epoch.number(),
            last_digest: id.digest.value(),
        };
        self.push_master(now, to, Kind::Control, Message::Align(align).encode());
    }

    /// Entries that were asked for: to be adopted, or to mend what is damaged.
    fn fetched(
        &mut self,
        now: Time,
        from: usize,
        session: SessionId,
        head: codec::FetchedHead,
        records: bytes::Bytes,
    ) {
        let first = Seq::new(head.first);
        let before = self.master.store.reader().prefix_id(first.previous());
        let (count, epoch) = (u64::from(head.count), self.master.engine.epoch());
        let run = before
            .filter(|_| head.count > 0 && head.first > 0)
            .and_then(|before| Run::verify_sent(records, first, count, before, epoch).ok());
        let Some(run) = run else {
            self.tell(0, "unfit", from as u64, head.first, || format!("of n{from} at {first}"));
            return self.master.engine.handle_fetch_failed(index(from), session);
        };
        let (range, tail) = (run.range(), run.tail());
        self.tell(0, "fetched", range.first.number(), range.end.number(), || {
            format!("{range} of n{from}")
        });
        if let Reign::Adopting { .. } = self.master.engine.reign() {
            if first != self.master.store.bounds().last.next() {
                return self.master.engine.handle_fetch_failed(index(from), session);
            }
            match self.master.store.append(run) {
                Ok(()) => self.master.engine.handle_adopted(now, range.last(), tail.epoch),
                Err(error) => return self.master_store_failed(&error),
            }
            self.seen.note(Sometimes::TailAdopted);
        } else {
            match self.master.store.repair(run) {
                Ok(()) => {
                    let before = self.master.engine.damage();
                    self.master.engine.handle_damage(None);
                    self.tell_damage(0);
                    let now = self.master.engine.damage();
                    self.note_damage(0, before, now);
                }
                Err(error @ StoreError::Failed { .. }) => self.master_store_failed(&error),
                Err(error) => {
                    self.master.engine.handle_repair_failed(now, index(from), session);
                    self.tell(0, "unrepaired", from as u64, range.first.number(), || {
                        format!("{range} of n{from}: {error}")
                    });
                }
            }
        }
    }

    fn note_sought(&mut self, epoch: Epoch) {
        let sought = std::mem::replace(&mut self.master.sought, epoch);
        if sought > Epoch::ZERO && epoch > sought {
            self.seen.note(Sometimes::EpochRaised);
        }
    }

    fn note_effect(&mut self, effect: Effect) {
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
                self.peer(to).failure = Some(failure);
                if attempts >= 3 {
                    self.seen.note(Sometimes::ManyAttempts);
                }
            }
            Effect::Following { to, stored } => {
                let to = to.as_usize();
                self.tell(0, "follows", to as u64, stored.number(), || {
                    format!("n{to} from {stored}")
                });
                let peer = self.peer(to);
                peer.under_way.clear();
                peer.sent_end = stored;
                let conn = peer.link.as_ref().map(|link| link.conn);
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
                if paused && self.master.peers[of - 1].link.is_some() {
                    self.seen.note(Sometimes::PausedUnhealthy);
                }
                self.peer(of).was_unhealthy = true;
            }
            (Health::Unhealthy, Health::Healthy) if self.peer(of).was_unhealthy => {
                self.seen.note(Sometimes::UnhealthyAndBack);
            }
            _ => {}
        }
    }

    fn send(
        &mut self,
        now: Time,
        to: usize,
        session: SessionId,
        range: SeqRange,
        bytes_max: usize,
        again: bool,
    ) {
        let log = self.master.store.reader();
        let slice = log.read(range, bytes_max);
        let (Some(sent), Some(previous)) = (slice.range, log.prefix_id(range.first.previous()))
        else {
            // It became unreadable since it was written, and is repaired.
            if !self.is_hurt(0) {
                self.fail("only what was written is sent", format!("{range} to n{to}"));
            }
            return self.master.engine.handle_unreadable(index(to), session);
        };
        let head = AppendHead {
            epoch: self.master.engine.epoch().number(),
            first: sent.first.number(),
            count: sent.len() as u32, // At most RUN_ENTRIES_MAX.
            previous_epoch: previous.epoch.number(),
            previous_digest: previous.digest.value(),
            levels: self.wire_levels(to),
        };
        self.tell(0, "send", sent.first.number(), sent.end.number(), || {
            format!("{sent} to n{to}{}", if again { " again" } else { "" })
        });
        self.note_send(to, session, sent, range, slice.bytes, again);
        let frame = encode_append(&head, slice.pieces);
        if let Some(mut link) = self.peer(to).link.take() {
            self.push_link(&mut link, Kind::Entries(sent.last()), frame);
            let waiting = link.entry_frames();
            self.peer(to).link = Some(link);
            if waiting > replog::limits::LINK_FRAMES_MAX {
                self.fail("frames in a link's queue are bounded", format!("{waiting} to n{to}"));
            }
        }
        self.master.engine.handle_sent(now, index(to), session, sent, slice.bytes);
        self.flush_master(now, to);
    }

    fn note_send(
        &mut self,
        to: usize,
        session: SessionId,
        sent: SeqRange,
        range: SeqRange,
        bytes: usize,
        again: bool,
    ) {
        if range.len() > sent.len() && !again {
            self.seen.note(Sometimes::LongCatchUp);
        }
        let window = self.plan.setup.window_bytes;
        let link = self.master.peers[to - 1].link.as_ref();
        let health = self.master.engine.secondaries()[to - 1].health.health();
        // What was decided before the connection was lost goes nowhere.
        if health == Health::Unhealthy && link.is_some_and(|link| link.session == session) {
            self.fail("nothing is sent to an unhealthy secondary", format!("{sent} to n{to}"));
        }
        let peer = &mut self.master.peers[to - 1];
        if again {
            let seen = match peer.failure {
                Some(AttemptFailure::Nack) => Sometimes::AgainAfterNack,
                Some(AttemptFailure::Timeout) => Sometimes::AgainAfterSilence,
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

    fn push_master(&mut self, now: Time, to: usize, kind: Kind, frame: OutFrame) {
        if let Some(mut link) = self.peer(to).link.take() {
            self.push_link(&mut link, kind, frame);
            self.peer(to).link = Some(link);
            self.flush_master(now, to);
        }
    }

    fn flush_master(&mut self, now: Time, to: usize) {
        let Some(mut link) = self.peer(to).link.take() else { return };
        let session = link.session;
        let result = self.flush_link(&mut link);
        self.peer(to).link = Some(link);
        match result {
            Ok(flushed) if flushed.frames > 0 => {
                let (up_to, frames) = (flushed.up_to, flushed.frames);
                self.master.engine.handle_flushed(now, index(to), session, up_to, frames);
            }
            Ok(_) => {}
            Err(reason) => self.master_disconnected(to, session, None, reason),
        }
    }

    fn wire_levels(&self, to: usize) -> codec::Levels {
        let levels = self.master.engine.levels_for(index(to));
        codec::Levels {
            commit: levels.commit.number(),
            held_by: levels.held_by.iter().map(|seq| seq.number()).collect(),
        }
    }

    pub(super) fn master_hello(&self, to: usize) -> Hello {
        let engine = &self.master.engine;
        let bounds = self.master.store.bounds();
        let epoch = engine.epoch().number();
        let mut epoch_table = epoch_table(&self.master.store.reader());
        if epoch > 0 && epoch_table.last().is_none_or(|newest| newest.epoch < epoch) {
            epoch_table.push(EpochStart { epoch, first: bounds.last.next().number() });
        }
        Hello {
            role: Role::Master,
            peer_id: format!("n{to}"),
            log_id: engine.log_id().map(LogId::bytes),
            epoch,
            run_id: engine.run_id().value(),
            epoch_table,
            stored: bounds.last.number(),
            tail_epoch: bounds.tail.epoch.number(),
            tail_digest: bounds.tail.digest.value(),
            settled: engine.settled().number(),
            commit: engine.levels().commit.number(),
            vouches: engine.log_id().is_some(),
            roster: (0..self.plan.setup.nodes).map(|node| format!("n{node}")).collect(),
            master_addr: "n0:9000".to_owned(),
            ..blank_hello("n0")
        }
    }
}

fn epoch_row(row: &EpochStart) -> (Epoch, Seq) {
    (Epoch::new(row.epoch), Seq::new(row.first))
}

pub(super) fn index(node: usize) -> NodeIndex {
    NodeIndex::secondary(node - 1)
}

/// What is the same in every HELLO.
pub(super) fn blank_hello(id: &str) -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        role: Role::Secondary,
        node_id: id.to_owned(),
        peer_id: String::new(),
        log_id: None,
        epoch: 0,
        run_id: 0,
        epoch_table: Vec::new(),
        stored: 0,
        tail_epoch: 0,
        tail_digest: 0,
        settled: 0,
        commit: 0,
        vouches: false,
        roster: Vec::new(),
        master_addr: String::new(),
        frame_bytes_max: FRAME_BODY_BYTES_MAX as u32,
        payload_bytes_max: 1 << 20,
        window_bytes: WINDOW_BYTES_MAX as u64,
    }
}

pub(super) fn epoch_table(log: &replog::store::LogReader) -> Vec<EpochStart> {
    let row =
        |(epoch, first): (Epoch, Seq)| EpochStart { epoch: epoch.number(), first: first.number() };
    log.epoch_table().into_iter().map(row).collect()
}

/// The held ranges of an ACK; `None` if they are too many, or not ascending and apart.
fn held_ranges(ack: &codec::Ack) -> Option<RangeSet> {
    let mut behind = ack.received;
    for range in &ack.held {
        if range.first <= behind || range.last < range.first {
            return None;
        }
        behind = range.last;
    }
    let range =
        |range: &codec::HeldRange| SeqRange::inclusive(Seq::new(range.first), Seq::new(range.last));
    (ack.held.len() <= ACK_RANGES_MAX).then(|| RangeSet::of(ack.held.iter().map(range)))
}

/// Whether a node that keeps `run` holds the master's entry `seq`.
pub(super) fn same_entry(run: &Run, seq: Seq, ours: Option<PrefixId>) -> bool {
    run.prefix_id(seq) == ours
}

pub(super) fn level_of(received: bool) -> AckLevel {
    if received { AckLevel::Received } else { AckLevel::Stored }
}
