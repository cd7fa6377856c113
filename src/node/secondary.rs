//! A secondary without I/O: its engine, its log, the masters that talk to it, and the faults it plays.

mod effects;
mod recovery;
mod telling;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::event::Event;
use super::faults::{Delayed, Fate, Faults};
use super::introduction::{cut, fault_of, levels_of};
use super::links::{Link, Outputs};
use super::machine::{About, Failure, Machine, Output};
use super::queue::{FrameQueue, Kind};
use super::reads::{Asked, PeerReads};
use super::room::DiskRoom;
use super::storage::{Storage, holdings};
use super::view::View;
use crate::codes::{NackCode, RefuseCode};
use crate::engine::secondary::MasterHello;
use crate::engine::{Arrival, Contact, ContactNews, Levels, Secondary, SecondaryEffect, SessionId};
use crate::gateway::Fault;
use crate::gateway::status::Status;
use crate::limits::MASTER_LINKS_MAX;
use crate::store::provisional::{SharedProvisional, Stored};
use crate::store::{LogReader, Run, Slice};
use crate::types::{
    Digest, Epoch, LogId, NodeId, NodeIndex, PrefixId, RunId, Seq, SeqRange, Shortage, Time,
};
use crate::wire::Message;
use crate::wire::codec::{AppendHead, HeartbeatAck, Hello, Role};

/// See the module.
pub struct SecondaryNode<S> {
    about: About,
    engine: Secondary,
    storage: S,
    log: LogReader,
    room: DiskRoom,
    /// The disk is looked at again at the latest then.
    look_at: Time,
    /// What was missing for what was refused last.
    refused_for: Option<Shortage>,
    /// Bytes that could not be moved aside for want of room.
    no_room_aside: Option<usize>,
    /// A repair found no room: no other one is tried before this.
    repair_at: Time,
    /// Connections of masters: the one that is followed, and those that only ask.
    links: BTreeMap<SessionId, Link>,
    /// Runs that came early, by their first number.
    held: BTreeMap<Seq, Run>,
    /// What came by a connection to repair what is damaged, and is not in the log yet.
    repairing: (Option<SessionId>, Vec<Run>),
    /// What of it is being put in place: which entries, and how they end.
    mending: Option<(SeqRange, PrefixId)>,
    reads: PeerReads,
    faults: Faults,
    /// Entries that were handed over by hand.
    provisional: SharedProvisional,
    roster: Arc<[NodeId]>,
    master_addr: String,
    contact: Contact,
    /// Entries moved aside since the start.
    aside: u64,
    /// Why a master was refused last, until one is followed.
    refused: Option<String>,
    failure: Option<Failure>,
    outputs: Outputs,
    events: Vec<Event>,
}

impl<S: Storage> SecondaryNode<S> {
    /// A node that follows nobody yet. `heartbeat_interval` is that of its own configuration.
    pub fn new(
        about: About,
        heartbeat_interval: std::time::Duration,
        faults: Faults,
        (storage, provisional): (S, SharedProvisional),
    ) -> Self {
        SecondaryNode {
            about,
            engine: Secondary::new(holdings(&storage)),
            log: storage.log().reader(),
            storage,
            room: DiskRoom::default(),
            look_at: Time::ZERO,
            refused_for: None,
            no_room_aside: None,
            repair_at: Time::ZERO,
            links: BTreeMap::new(),
            held: BTreeMap::new(),
            repairing: (None, Vec::new()),
            mending: None,
            reads: PeerReads::default(),
            faults,
            provisional,
            roster: Arc::default(),
            master_addr: String::new(),
            contact: Contact::new(heartbeat_interval),
            aside: 0,
            refused: None,
            failure: None,
            outputs: Outputs::default(),
            events: Vec::new(),
        }
    }

    /// What decides.
    pub fn engine(&self) -> &Secondary {
        &self.engine
    }

    /// The log.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The same, for whoever tells it what its disk did.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Runs that are held back, by their first number.
    pub fn held(&self) -> &BTreeMap<Seq, Run> {
        &self.held
    }

    /// Entries that were handed over by hand.
    pub fn provisional(&self) -> &SharedProvisional {
        &self.provisional
    }

    /// The faults that are played.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The master's wire address; empty before first contact.
    pub fn master_addr(&self) -> &str {
        &self.master_addr
    }

    // ---- clients ----

    /// A fault verb.
    pub fn handle_fault(&mut self, now: Time, fault: Fault) {
        warn!(id = %self.about.id, ?fault, "fault injected on demand");
        self.faults.set(now, fault);
    }

    /// STORE: an entry by hand.
    pub fn handle_store(&mut self, seq: Seq, payload: Bytes) -> Stored {
        let stored = self.provisional.lock().store(&self.log, seq, payload);
        info!(id = %self.about.id, %seq, ?stored, "entry by hand");
        stored
    }

    // ---- the master ----

    /// A master connected and introduced itself.
    pub fn handle_accepted(&mut self, now: Time, session: SessionId, hello: &Hello) {
        let oldest = self.links.keys().find(|&&other| self.engine.session() != Some(other));
        if self.links.len() >= MASTER_LINKS_MAX
            && let Some(&oldest) = oldest
        {
            self.closed(oldest, Some(RefuseCode::Busy), "too many masters ask");
        }
        self.links.insert(session, Link::default());
        self.introduced(now, session, hello);
    }

    /// A master introduces itself, or does so again with an epoch.
    fn introduced(&mut self, now: Time, session: SessionId, hello: &Hello) {
        if let Some(fault) = fault_of(hello) {
            return self.refuse(session, RefuseCode::BadFrame, fault);
        }
        if !hello.peer_id.is_empty() && hello.peer_id != self.about.id.as_str() {
            let (own, meant) = (&self.about.id, cut(&hello.peer_id));
            let reason =
                format!("this is {own}, not {meant}: give it its own --id, or mend the roster");
            return self.refuse(session, RefuseCode::WrongNode, &reason);
        }
        let facts = MasterHello {
            log_id: hello.log_id.map(LogId::new),
            epoch: Epoch::new(hello.epoch),
            run_id: RunId::new(hello.run_id),
            begins: hello.begins().map(Seq::new),
        };
        if facts.epoch > self.engine.epoch() {
            // What is written and not yet stored would be neither told to the new master nor gone.
            let stored = self.storage.sync_now();
            self.engine.handle_stored(stored.min(self.engine.written()));
        }
        if let Err(code) = self.engine.handle_hello(session, facts) {
            let reason = match (code, self.engine.log_id()) {
                (RefuseCode::ForeignLog, Some(own)) => {
                    let entries = self.engine.written();
                    // Cut by whoever logs it at LOGGED_TEXT_BYTES_MAX.
                    if entries == Seq::ZERO {
                        format!("belongs to another log, {own}, of which it holds no entry")
                    } else {
                        let noun = if entries == Seq::FIRST { "entry" } else { "entries" };
                        format!(
                            "holds {entries} {noun} of another log, {own}: do not empty it before you \
                             know which log is right"
                        )
                    }
                }
                (RefuseCode::ForeignLog, None) => "an epoch without a log id".to_owned(),
                (RefuseCode::EpochTaken, _) => {
                    format!("epoch {} was promised to another process", self.engine.epoch())
                }
                _ => format!("epoch {} was promised", self.engine.epoch()),
            };
            return self.refuse(session, code, &reason);
        }
        self.carry_out(now, None);
        if facts.epoch > Epoch::ZERO {
            self.master_addr.clone_from(&hello.master_addr);
            // Each is one: see `fault_of`.
            self.roster = hello.roster.iter().filter_map(|id| id.parse().ok()).collect();
            self.contact.followed(now);
            self.refused = None;
            info!(
                id = %self.about.id, master = cut(&hello.node_id), epoch = %facts.epoch, seq = %self.engine.written(),
                "follows"
            );
        }
        self.answer_hello(now, session);
    }

    /// Tells a master by a HELLO what is here.
    fn answer_hello(&mut self, now: Time, session: SessionId) {
        if self.engine.session() == Some(session) {
            self.faults.introduced(self.engine.stored());
        }
        let hello = self.hello();
        let (epoch, stored) = (self.engine.epoch(), self.engine.stored());
        self.events.push(Event::Introduced { epoch, stored });
        self.push(now, session, Kind::Control, &Message::Hello(hello));
    }

    /// When silence of the master that is followed will have to be told.
    fn silence_due(&self) -> Option<Time> {
        self.engine.session().and(self.contact.poll_timeout())
    }

    fn tell_contact(&self, news: Option<ContactNews>) {
        let (id, master) = (&self.about.id, &self.master_addr);
        match news {
            None => {}
            Some(ContactNews::Silent(lasting)) => {
                let silent_ms = lasting.as_millis() as u64; // A node does not run that long.
                warn!(%id, master, silent_ms, "the master says nothing, though its connection stands");
            }
            Some(ContactNews::SpeaksAgain) => info!(%id, master, "the master speaks again"),
        }
    }

    fn message(&mut self, now: Time, session: SessionId, message: Message) {
        let followed = self.engine.session() == Some(session);
        if followed {
            let news = self.contact.heard(now);
            self.tell_contact(news);
        }
        match message {
            Message::Append(head, _) if followed && (head.count == 0 || head.first == 0) => {
                let reason = "an APPEND of no entry, or of entry 0";
                self.closed(session, Some(RefuseCode::BadFrame), reason);
            }
            Message::Append(head, records) if followed => {
                let frame = Delayed { session, head, records };
                if let Some(frame) = self.faults.arrive(now, frame) {
                    self.handle_append(now, frame);
                }
            }
            Message::Heartbeat(heartbeat) if followed || heartbeat.epoch == 0 => {
                let epoch = Epoch::new(heartbeat.epoch);
                if followed {
                    if !self.engine.admits(session, epoch) {
                        return self.carry_out(now, None);
                    }
                    let Some(levels) = levels_of(&heartbeat.levels) else {
                        let reason = "a HEARTBEAT with levels that cannot be";
                        return self.closed(session, Some(RefuseCode::BadFrame), reason);
                    };
                    self.contact.heartbeat(now);
                    self.take_levels(session, levels);
                }
                let ack = HeartbeatAck { epoch: heartbeat.epoch, number: heartbeat.number };
                self.push(now, session, Kind::Heartbeat, &Message::HeartbeatAck(ack));
            }
            Message::Align(align) if followed => {
                if self.engine.admits(session, Epoch::new(align.epoch)) {
                    self.align(now, session, align);
                } else {
                    self.carry_out(now, None);
                }
            }
            Message::Fetch(fetch) if followed => self.fetch(now, session, fetch),
            Message::Hello(hello) if hello.role == Role::Master => {
                self.introduced(now, session, &hello);
            }
            Message::Refuse(refuse) => {
                let code = RefuseCode::from_number(refuse.code).map_or("unknown", |c| c.word());
                warn!(code, reason = cut(&refuse.reason), "refused by the master");
                self.closed(session, None, "the master refused this node");
            }
            _ => {
                let reason = "a frame that is not expected from a master in this state";
                self.closed(session, Some(RefuseCode::BadFrame), reason);
            }
        }
    }

    fn handle_append(&mut self, now: Time, frame: Delayed) {
        let Delayed { session, head, records } = frame;
        if !self.links.contains_key(&session) {
            return self.events.push(Event::TooLate);
        }
        let fate = if self.faults.is_idle() { Fate::Normal } else { self.faults.fate() };
        let first = Seq::new(head.first);
        if fate != Fate::Normal {
            // What came before this frame keeps its acknowledgement.
            self.carry_out(now, None);
            self.send_ack(now);
        }
        let range = SeqRange::with_len(first, u64::from(head.count));
        if fate != Fate::FailBefore {
            self.take_run(now, session, head, records);
        }
        if fate != Fate::Normal {
            self.events.push(Event::FaultPlayed { before: fate == Fate::FailBefore });
            self.engine.withhold_ack();
            self.faults.withhold(range);
            self.nack(now, session, first, NackCode::Injected);
        }
    }

    fn take_run(&mut self, now: Time, session: SessionId, head: AppendHead, records: Bytes) {
        if !self.engine.admits(session, Epoch::new(head.epoch)) {
            return self.carry_out(now, None);
        }
        let Some(levels) = levels_of(&head.levels) else {
            let reason = "an APPEND with levels that cannot be";
            return self.closed(session, Some(RefuseCode::BadFrame), reason);
        };
        let first = Seq::new(head.first);
        let before = PrefixId {
            epoch: Epoch::new(head.previous_epoch),
            digest: Digest::new(head.previous_digest),
        };
        match Run::verify_sent(records, first, u64::from(head.count), before, self.engine.epoch()) {
            Ok(run) => {
                debug!(seq = %run.range(), bytes = run.len_bytes(), "received");
                self.events.push(Event::Arrived(run.range()));
                self.faults.admit(run.range());
                if !self.takes(now, session, &run) {
                    return self.carry_out(now, None);
                }
                if self.engine.is_damaged() && self.repairs(now, session, &run) {
                    return self.take_levels(session, levels);
                }
                if self.arrive(session, &run) {
                    self.take_levels(session, levels);
                }
                self.carry_out(now, Some(run));
            }
            Err(reason) => {
                warn!(seq = %first, %reason, "bad records");
                self.events.push(Event::BadRecords { first });
                self.engine.handle_bad_run(session, first);
                self.carry_out(now, None);
            }
        }
    }

    /// Whether there is room for a run; if not, the engine refuses it.
    fn takes(&mut self, now: Time, session: SessionId, run: &Run) -> bool {
        let bytes = run.len_bytes();
        let room = self.storage.log().room_for(bytes);
        self.refused_for = room.err().or(self.refused_for);
        // What only repairs the log would be collected in vain.
        let repairs = run.range().last() <= self.engine.written();
        let room = room.is_ok() && !(repairs && now < self.repair_at);
        self.engine.takes(session, run.range(), bytes, room)
    }

    /// Tells the engine of a run: its numbers, and how it fits the log where they overlap. Whether it
    /// was taken.
    fn arrive(&mut self, session: SessionId, run: &Run) -> bool {
        let range = run.range();
        let common = self.engine.written().min(range.last());
        let mut overlap = None;
        if range.first <= common {
            overlap = run.prefix_id(common).zip(self.log.prefix_id(common));
            if overlap.is_none() {
                // What is here cannot be read, which its disk tells with the next turn: until it is repaired,
                // nobody can say whether this is the same.
                return false;
            }
        }
        let (before, tail, bytes) = (run.before(), run.tail(), run.len_bytes());
        self.engine.handle_arrival(session, Arrival { range, before, tail, bytes, overlap })
    }

    fn refuse(&mut self, session: SessionId, code: RefuseCode, reason: &str) {
        // A master that is refused comes again with each heartbeat: the log needs it once.
        if self.refused.as_deref() != Some(reason) {
            warn!(code = code.word(), reason, "master refused");
            self.refused = Some(reason.to_owned());
        }
        self.events.push(Event::Turned(code));
        self.faults.forget(session);
        self.engine.handle_disconnected(session);
        if let Some(link) = self.links.remove(&session) {
            let words = (code, self.engine.epoch(), reason);
            self.outputs.close(session, link, Some(words));
        }
    }

    fn closed(&mut self, session: SessionId, refuse: Option<RefuseCode>, reason: &str) {
        let Some(link) = self.links.remove(&session) else { return };
        if self.engine.session() == Some(session) {
            info!(id = %self.about.id, reason, "the master's connection ended");
        }
        if let Some(code) = refuse {
            warn!(code = code.word(), reason, "master refused");
            self.events.push(Event::Turned(code));
        }
        let words = refuse.map(|code| (code, self.engine.epoch(), reason));
        self.outputs.close(session, link, words);
        self.faults.forget(session);
        self.engine.handle_disconnected(session);
        // Frames and entries go with the connection; what the log has become is kept all the same.
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                SecondaryEffect::DropHeld => self.held.clear(),
                SecondaryEffect::MakeDurable { up_to } => self.make_durable(up_to),
                SecondaryEffect::Keep { log_id, epoch, run_id, settled, vouches } => {
                    self.keep((log_id, epoch, run_id), settled, vouches);
                }
                SecondaryEffect::SetAside { from } => self.set_aside(from),
                _ => {}
            }
        }
    }

    fn take_levels(&mut self, session: SessionId, (commit, held_by): (Seq, Vec<Seq>)) {
        self.engine.handle_levels(session, commit, held_by);
    }
}

impl<S: Storage> Machine for SecondaryNode<S> {
    fn begin_turn(&mut self, now: Time) {
        self.hear_disk(now);
        while self.failure.is_none()
            && let Some(frame) = self.faults.take_due(now)
        {
            self.handle_append(now, frame);
        }
    }

    fn step(&mut self, now: Time) -> bool {
        if self.failure.is_some() {
            return false; // What could not be done ends it: nothing that follows may be done without it.
        }
        if self.carry_out_one(now, &mut None) || self.send_ack(now) {
            return true;
        }
        // What came while this node was paused is heard before silence is.
        if self.silence_due().is_some_and(|due| due <= now) {
            let news = self.contact.handle_timeout(now);
            self.tell_contact(news);
        }
        false
    }

    fn poll_timeout(&self) -> Option<Time> {
        let look = self.storage.is_disk().then_some(self.look_at);
        [self.faults.next_due(), self.silence_due(), look].into_iter().flatten().min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop().filter(|_| self.failure.is_none())
    }

    fn drain_events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn handle_heard(&mut self, _now: Time, session: SessionId) -> bool {
        self.links.contains_key(&session)
    }

    fn handle_message(&mut self, now: Time, session: SessionId, message: Message) {
        if self.links.contains_key(&session) {
            self.message(now, session, message);
        }
    }

    fn handle_closed(
        &mut self,
        _now: Time,
        session: SessionId,
        refuse: Option<RefuseCode>,
        reason: &str,
    ) {
        self.closed(session, refuse, reason);
    }

    fn queue(&self, session: SessionId) -> Option<&FrameQueue> {
        // Nothing is said that rests on what could not be kept.
        self.links.get(&session).map(|link| &link.queue).filter(|_| self.failure.is_none())
    }

    fn handle_taken(&mut self, _now: Time, session: SessionId, bytes: usize) {
        if let Some(link) = self.links.get_mut(&session) {
            link.taken(bytes);
        }
    }

    fn handle_read(
        &mut self,
        now: Time,
        _peer: NodeIndex,
        session: SessionId,
        asked: Asked,
        slice: Slice,
    ) {
        if let Some((session, asked)) = self.reads.done() {
            self.outputs.push(Output::Read { peer: NodeIndex::MASTER, session, asked });
        }
        if self.engine.session() == Some(session) && asked.epoch == self.engine.epoch() {
            self.give_out(now, session, asked, slice);
        }
    }

    fn show(&self, view: &mut View) -> bool {
        self.update(view)
    }

    fn status(&self, now: Time) -> Status {
        self.status_at(now)
    }

    fn levels(&self) -> &Levels {
        self.engine.levels()
    }

    fn stored(&self) -> Seq {
        self.engine.stored()
    }

    fn shortage(&self) -> Option<Shortage> {
        self.room.shortage
    }

    fn leave(&mut self) -> Result<(), Failure> {
        let commit = self.engine.levels().commit;
        super::storage::leave(&mut self.storage, commit)
    }
}
