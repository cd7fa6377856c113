//! A secondary's driver: the one task that owns its engine and its log.

mod recovery;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::faults::{Delayed, Fate, Faults, Positions};
use super::inbox::{ClientInput, Input, Introduced, Node, Outcome, PeerEvent, Reply, View};
use super::link::{Kind, Link};
use super::node::NodeError;
use super::reader::{cut, epoch_table, fault_of, hello_of, levels_of};
use super::reads::PeerReads;
use super::store::{DISK_LOOK_INTERVAL, DiskNews, DiskRoom, Log, OpenLog};
use crate::codes::{NackCode, RefuseCode};
use crate::engine::secondary::{Holdings, MasterHello};
use crate::engine::{Arrival, Contact, ContactNews, Levels, Secondary, SecondaryEffect, SessionId};
use crate::gateway::Refusal;
use crate::gateway::status::{MasterStatus, NodeStatus, Status};
use crate::limits::MASTER_LINKS_MAX;
use crate::store::{Identity, Run, StoreError};
use crate::types::{
    Digest, Epoch, LogId, NodeId, NodeIndex, NodeSet, PrefixId, RunId, Seq, SeqRange, Shortage,
    Time,
};
use crate::wire::Message;
use crate::wire::codec::{Ack, AppendHead, HeartbeatAck, HeldRange, Hello, Nack, Role};

/// See the module.
pub(super) struct SecondaryDriver {
    node: Arc<Node>,
    engine: Secondary,
    log: Log,
    news: Arc<DiskNews>,
    room: DiskRoom,
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
    /// What came by a connection to mend what is damaged, and is not in the log yet.
    mending: (Option<SessionId>, Vec<Run>),
    reads: PeerReads,
    faults: Faults,
    inputs: mpsc::Receiver<Input>,
    view: watch::Sender<View>,
    replies: HashMap<u64, mpsc::Sender<Vec<Reply>>>,
    roster: Arc<[NodeId]>,
    master_addr: String,
    contact: Contact,
    /// Entries moved aside since the start.
    aside: u64,
    /// Why a master was refused last, until one is followed.
    refused: Option<String>,
    /// Why this node must end.
    failed: Option<NodeError>,
}

impl SecondaryDriver {
    pub(super) fn new(
        node: Arc<Node>,
        faults: Faults,
        opened: OpenLog,
        inputs: mpsc::Receiver<Input>,
        view: watch::Sender<View>,
    ) -> Self {
        SecondaryDriver {
            roster: node.roster(),
            contact: Contact::new(node.heartbeat_interval),
            node,
            engine: Secondary::new(holdings(&opened)),
            log: opened.log,
            news: opened.news,
            room: DiskRoom::default(),
            refused_for: None,
            no_room_aside: None,
            repair_at: Time::ZERO,
            links: BTreeMap::new(),
            held: BTreeMap::new(),
            mending: (None, Vec::new()),
            reads: PeerReads::default(),
            faults,
            inputs,
            view,
            replies: HashMap::new(),
            master_addr: String::new(),
            aside: 0,
            refused: None,
            failed: None,
        }
    }

    /// Runs until `end`, which comes when the connections are gone.
    pub(super) async fn run(mut self, end: CancellationToken) -> Result<(), NodeError> {
        const INPUTS_PER_TURN: usize = 256;
        let mut batch = Vec::with_capacity(INPUTS_PER_TURN);
        let mut look = interval(DISK_LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looking = matches!(self.log, Log::Disk(..));
        let news = self.news.clone();
        loop {
            let due = self.faults.next_due().into_iter().chain(self.silence_due()).min();
            let due = due.map(|due| self.node.clock.instant(due));
            let sleep = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = end.cancelled() => {
                    return self.log.leave(self.engine.levels().commit, &self.news);
                }
                count = self.inputs.recv_many(&mut batch, INPUTS_PER_TURN) => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = news.changed() => {}
                _ = look.tick(), if looking => {}
                () = sleep => {}
            }
            let now = self.node.clock.now();
            self.hear_disk(now);
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            while let Some(frame) = self.faults.take_due(now) {
                self.handle_append(now, frame);
            }
            // What came while this node was paused is heard before silence is.
            if batch.is_empty() && self.silence_due().is_some_and(|due| due <= now) {
                let news = self.contact.handle_timeout(now);
                self.tell_contact(news);
            }
            for input in batch.drain(..) {
                match input {
                    Input::Client(input) => self.handle_client(now, input),
                    Input::Peer(event) => self.handle_peer(now, event),
                }
            }
            self.carry_out(now, None);
            self.send_ack(now);
            self.publish();
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
        }
    }

    // ---- clients ----

    fn handle_client(&mut self, now: Time, input: ClientInput) {
        match input {
            ClientInput::Opened { connection, replies } => {
                self.replies.insert(connection, replies);
            }
            ClientInput::Closed { connection } => drop(self.replies.remove(&connection)),
            // Refused by the connection before they come here; answered all the same.
            ClientInput::Appends { connection, runs, permit } => {
                drop(permit);
                let refusal = Refusal::not_master(&self.master_addr);
                let count: usize = runs.iter().map(|run| run.payloads.len()).sum();
                self.node.metrics.refused(refusal.code, count as u64);
                let refuse = |run: super::inbox::AppendRun| Reply {
                    slot: run.slot,
                    offset: 0,
                    count: run.payloads.len() as u64,
                    outcome: Outcome::Refused(refusal.clone()),
                };
                if let Some(replies) = self.replies.get(&connection) {
                    // A connection that is full or gone reads no answer.
                    let _ = replies.try_send(runs.into_iter().map(refuse).collect());
                }
            }
            ClientInput::Wait { .. } => {}
            // Whoever asked may be gone: then nobody misses the answer.
            ClientInput::Status(reply) => {
                let _ = reply.send(self.status(now));
            }
            ClientInput::Waiters(reply) => {
                let _ = reply.send((String::new(), 0));
            }
            ClientInput::Metrics(reply) => {
                let (status, levels) = (self.status(now), self.engine.levels());
                let stored = self.engine.stored();
                let _ = reply.send(self.node.metrics.scrape(
                    &status,
                    levels,
                    &self.log,
                    self.room.shortage,
                    stored,
                ));
            }
            ClientInput::Holders(_, reply) => {
                let _ = reply.send(NodeSet::default());
            }
            ClientInput::Fault(fault, reply) => {
                warn!(id = %self.node.id, ?fault, "fault injected on demand");
                self.faults.set(now, fault);
                let _ = reply.send(());
            }
            ClientInput::Store(seq, payload, reply) => {
                let stored = self.node.provisional().store(&self.node.log, seq, payload);
                info!(id = %self.node.id, %seq, ?stored, "entry by hand");
                let _ = reply.send(stored);
            }
        }
    }

    // ---- the master ----

    fn handle_peer(&mut self, now: Time, event: PeerEvent) {
        match event {
            PeerEvent::Accepted(introduced) => self.accepted(now, *introduced),
            PeerEvent::Messages { session, messages, .. } => {
                for message in messages {
                    if self.links.contains_key(&session) {
                        self.handle_message(now, session, message);
                    }
                }
            }
            PeerEvent::Closed { session, refuse, reason, .. } => {
                self.closed(session, refuse, &reason);
            }
            PeerEvent::Writable { session, .. } => {
                if let Some(link) = self.links.get_mut(&session) {
                    link.unblock();
                }
                self.flush(session);
            }
            PeerEvent::Read { peer, session, asked, slice } => {
                let node = self.node.clone();
                self.reads.done((&node.log, &node.driver), peer);
                if self.engine.session() == Some(session) && asked.epoch == self.engine.epoch() {
                    self.give_out(now, session, asked, slice);
                }
            }
            // Only a master dials.
            PeerEvent::Dialled { .. } => {}
        }
    }

    fn accepted(&mut self, now: Time, introduced: Introduced) {
        let Introduced { session, hello, read, write, buffer } = introduced;
        let link = Link::start(session, NodeIndex::MASTER, read, write, buffer, &self.node);
        if self.links.len() >= MASTER_LINKS_MAX
            && let Some(&oldest) =
                self.links.keys().find(|&&other| self.engine.session() != Some(other))
        {
            self.closed(oldest, Some(RefuseCode::Busy), "too many masters ask");
        }
        self.links.insert(session, link);
        self.introduced(now, session, &hello);
    }

    /// A master introduces itself, or does so again with an epoch.
    fn introduced(&mut self, now: Time, session: SessionId, hello: &Hello) {
        if let Some(fault) = fault_of(hello) {
            return self.refuse(session, RefuseCode::BadFrame, fault);
        }
        if !hello.peer_id.is_empty() && hello.peer_id != self.node.id.as_str() {
            let (own, meant) = (&self.node.id, cut(&hello.peer_id));
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
            let stored = self.log.sync();
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
                id = %self.node.id, master = cut(&hello.node_id), epoch = %facts.epoch, seq = %self.engine.written(),
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
        let answer = Message::Hello(self.hello());
        self.push(now, session, Kind::Control, &answer);
    }

    /// When silence of the master that is followed will have to be told.
    fn silence_due(&self) -> Option<Time> {
        self.engine.session().and(self.contact.poll_timeout())
    }

    fn tell_contact(&self, news: Option<ContactNews>) {
        let (id, master) = (&self.node.id, &self.master_addr);
        match news {
            None => {}
            Some(ContactNews::Silent(lasting)) => {
                let silent_ms = lasting.as_millis() as u64; // A node does not run that long.
                warn!(%id, master, silent_ms, "the master says nothing, though its connection stands");
            }
            Some(ContactNews::SpeaksAgain) => info!(%id, master, "the master speaks again"),
        }
    }

    fn handle_message(&mut self, now: Time, session: SessionId, message: Message) {
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
            return;
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
                self.faults.admit(run.range());
                if !self.takes(now, session, &run) {
                    return self.carry_out(now, None);
                }
                if self.engine.is_damaged() && self.mends(now, session, &run) {
                    return self.take_levels(session, levels);
                }
                if self.arrive(session, &run) {
                    self.take_levels(session, levels);
                }
                self.carry_out(now, Some(run));
            }
            Err(reason) => {
                warn!(seq = %first, %reason, "bad records");
                self.engine.handle_bad_run(session, first);
                self.carry_out(now, None);
            }
        }
    }

    /// Whether there is room for a run; if not, the engine refuses it.
    fn takes(&mut self, now: Time, session: SessionId, run: &Run) -> bool {
        let bytes = run.len_bytes();
        let room = self.log.store().room_for(bytes);
        self.refused_for = room.err().or(self.refused_for);
        // What only mends the log would be collected in vain.
        let mends = run.range().last() <= self.engine.written();
        let room = room.is_ok() && !(mends && now < self.repair_at);
        self.engine.takes(session, run.range(), bytes, room)
    }

    /// Tells the engine of a run: its numbers, and how it fits the log where they overlap. Whether it
    /// was taken.
    fn arrive(&mut self, session: SessionId, run: &Run) -> bool {
        let range = run.range();
        let common = self.engine.written().min(range.last());
        let overlap = (range.first <= common)
            .then(|| run.prefix_id(common).zip(self.node.log.prefix_id(common)))
            .flatten();
        let (before, tail, bytes) = (run.before(), run.tail(), run.len_bytes());
        self.engine.handle_arrival(session, Arrival { range, before, tail, bytes, overlap })
    }

    // ---- effects ----

    /// Carries out what the engine decided; `current` is the run that just arrived.
    fn carry_out(&mut self, now: Time, mut current: Option<Run>) {
        // What could not be done ends it: nothing that follows may be done without it.
        while self.failed.is_none()
            && let Some(effect) = self.engine.poll_effect()
        {
            match effect {
                SecondaryEffect::Append { range } => {
                    let run = current.take().and_then(|run| run.split_from(range.first));
                    self.append(run.expect("BUG: the engine appends only what just arrived"));
                }
                SecondaryEffect::Hold { range } => {
                    debug!(seq = %range, "held back");
                    let run = current.take().expect("BUG: the engine holds only what arrived");
                    self.held.insert(range.first, run);
                }
                SecondaryEffect::Release { first } => {
                    if let (Some(run), Some(session)) =
                        (self.held.remove(&first), self.engine.session())
                    {
                        if !self.takes(now, session, &run) {
                            continue; // It comes again.
                        }
                        debug!(seq = %run.range(), "released");
                        self.arrive(session, &run);
                        current = Some(run);
                    }
                }
                SecondaryEffect::DropHeld => self.held.clear(),
                SecondaryEffect::MakeDurable { up_to } => self.make_durable(up_to),
                SecondaryEffect::Nack { session, seq, code } => {
                    match code {
                        // The log tells of a full disk as such, and not for each frame.
                        NackCode::DiskFull => debug!(%seq, code = code.word(), "not taken"),
                        _ => warn!(%seq, code = code.word(), "not taken"),
                    }
                    self.nack(now, session, seq, code);
                }
                SecondaryEffect::Close { session, code } => {
                    self.closed(session, Some(code), code.word());
                }
                SecondaryEffect::Keep { log_id, epoch, run_id, settled, vouches } => {
                    self.keep((log_id, epoch, run_id), settled, vouches);
                }
                SecondaryEffect::SetAside { from } => self.set_aside(from),
                SecondaryEffect::Reconnect { session } => {
                    self.closed(session, None, "the log is damaged, or whole again");
                }
                SecondaryEffect::Ack { .. } => unreachable!("BUG: ACKs come by poll_ack"),
            }
        }
    }

    fn make_durable(&mut self, up_to: Seq) {
        let stored = self.log.store_mut().make_durable(up_to);
        debug!(seq = %stored, "stored");
        self.engine.handle_stored(stored);
    }

    fn keep(&mut self, promise: (LogId, Epoch, RunId), settled: Epoch, vouches: bool) {
        let (log_id, epoch, run_id) = promise;
        let (log_id, commit) = (Some(log_id), self.engine.levels().commit);
        let identity = Identity { log_id, epoch, run_id, settled, commit, vouches };
        if let Err(error) = self.log.store_mut().set_identity(identity) {
            self.fail(error);
        }
    }

    fn set_aside(&mut self, from: Seq) {
        let reason = "the master's log has other entries there";
        match self.log.store_mut().set_aside(from, reason) {
            Ok(count) => {
                self.aside += count;
                warn!(seq = %from, count, "entries moved aside");
            }
            Err(error) => self.fail(error),
        }
    }

    fn append(&mut self, run: Run) {
        let range = run.range();
        if let Err(error) = self.log.store_mut().append(run) {
            return self.fail(error);
        }
        let gave_way = self.node.provisional().give_way(&self.node.log, range);
        if gave_way.aside > 0 {
            let count = gave_way.aside;
            warn!(seq = %range, count, "entries by hand differ from the master's: moved aside");
        }
        self.engine.handle_gave_way(gave_way.duplicates);
        self.engine.handle_written(range.last());
    }

    /// The store cannot go on: nor can this node.
    fn fail(&mut self, error: StoreError) {
        if self.failed.is_none() {
            self.failed = Some(error.into());
        }
    }

    fn send_ack(&mut self, now: Time) {
        let Some(SecondaryEffect::Ack { session, stored, received, held, duplicates }) =
            self.engine.poll_ack()
        else {
            return;
        };
        let range = |range: SeqRange| HeldRange {
            first: range.first.number(),
            last: range.last().number(),
        };
        let here = Positions { stored, received, held };
        let Positions { stored, received, held } = self.faults.acknowledge(here);
        debug!(seq = %stored, received = %received, "ack");
        let ack = Ack {
            epoch: self.engine.epoch().number(),
            stored: stored.number(),
            received: received.number(),
            held: held.iter().take(crate::limits::ACK_RANGES_MAX).map(range).collect(),
            duplicates,
        };
        self.push(now, session, Kind::Ack, &Message::Ack(ack));
    }

    fn nack(&mut self, now: Time, session: SessionId, seq: Seq, code: NackCode) {
        let reason = match code {
            NackCode::Conflict => format!("another entry is stored as {seq}"),
            NackCode::Mismatch => format!("entry {seq} does not continue this log"),
            NackCode::BadRecord => "the records are damaged or incomplete".to_owned(),
            NackCode::HoldBackFull => "no room to hold entries back".to_owned(),
            NackCode::DiskFull => match self.refused_for {
                Some(Shortage { need, free: Some(free), limit }) => {
                    format!("the disk is full: {need} bytes are needed, {free} left by {limit}")
                }
                Some(Shortage { need, free: None, limit }) => {
                    format!("the disk is full: {need} bytes are needed, none left by {limit}")
                }
                None => "the disk is full".to_owned(),
            },
            NackCode::Injected => "a fault verb asked for it".to_owned(),
        };
        let nack = Nack {
            epoch: self.engine.epoch().number(),
            seq: seq.number(),
            code: code.number(),
            reason,
        };
        self.push(now, session, Kind::Control, &Message::Nack(nack));
    }

    /// Sends a frame; a muted secondary drops it.
    fn push(&mut self, now: Time, session: SessionId, kind: Kind, message: &Message) {
        // Nor is anything said that rests on what could not be kept.
        if self.faults.is_muted(now) || self.failed.is_some() {
            return;
        }
        if let Some(link) = self.links.get_mut(&session) {
            link.push(kind, message);
            self.flush(session);
        }
    }

    fn flush(&mut self, session: SessionId) {
        let Some(link) = self.links.get_mut(&session) else { return };
        if let Err(error) = link.flush() {
            self.closed(session, None, &error.to_string());
        }
    }

    fn refuse(&mut self, session: SessionId, code: RefuseCode, reason: &str) {
        // A master that is refused comes again with each heartbeat: the log needs it once.
        if self.refused.as_deref() != Some(reason) {
            warn!(code = code.word(), reason, "master refused");
            self.refused = Some(reason.to_owned());
        }
        self.node.metrics.connection_refused(code);
        self.engine.handle_disconnected(session);
        if let Some(link) = self.links.remove(&session) {
            link.refuse(code, self.engine.epoch(), reason);
        }
    }

    fn closed(&mut self, session: SessionId, refuse: Option<RefuseCode>, reason: &str) {
        let Some(link) = self.links.remove(&session) else { return };
        if self.engine.session() == Some(session) {
            info!(id = %self.node.id, reason, "the master's connection ended");
        }
        if let Some(code) = refuse {
            warn!(code = code.word(), reason, "master refused");
            self.node.metrics.connection_refused(code);
            link.refuse(code, self.engine.epoch(), reason);
        }
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

    fn hello(&self) -> Hello {
        let (epoch, stored) = (self.engine.epoch().number(), self.engine.stored());
        let tail = self.node.log.prefix_id(stored).unwrap_or(PrefixId::EMPTY);
        Hello {
            log_id: self.engine.log_id().map(LogId::bytes),
            epoch,
            run_id: self.engine.run_id().value(),
            epoch_table: epoch_table(&self.node.log),
            stored: stored.number(),
            tail_epoch: tail.epoch.number(),
            tail_digest: tail.digest.value(),
            settled: self.engine.settled(tail.epoch).number(),
            commit: self.engine.levels().commit.number(),
            vouches: self.engine.vouches(),
            roster: Vec::new(),
            master_addr: self.master_addr.clone(),
            ..hello_of(&self.node)
        }
    }

    fn publish(&mut self) {
        let (local, levels) = (self.engine.visible(), self.engine.levels());
        let stored = self.engine.stored();
        let unserved_from = self.engine.contradicted_from();
        let damaged_from = self.engine.damage().map(|range| range.first);
        let hidden_from = unserved_from.into_iter().chain(damaged_from).min();
        let history = self.engine.log_id().map(|log_id| (log_id, self.engine.epoch()));
        self.view.send_if_modified(|view| {
            let changed = view.local != local
                || view.stored != stored
                || view.hidden_from != hidden_from
                || view.unserved_from != unserved_from
                || view.levels != *levels
                || view.master_addr != self.master_addr
                || view.roster != self.roster
                || view.history != history;
            if changed {
                let (roster, master_addr) = (self.roster.clone(), self.master_addr.clone());
                *view = View {
                    local,
                    stored,
                    hidden_from,
                    unserved_from,
                    levels: Levels::clone(levels),
                    roster,
                    master_addr,
                    history,
                    accepts: false,
                };
            }
            changed
        });
    }

    fn status(&self, now: Time) -> Status {
        let engine = &self.engine;
        let held = engine.held().iter().map(SeqRange::len).sum();
        let node = NodeStatus {
            id: self.node.id.to_string(),
            role: "secondary",
            epoch: engine.epoch(),
            mode: if engine.is_damaged() { "damaged" } else { "normal" }.to_owned(),
            next: engine.written().next(),
            commit: engine.levels().commit,
            quorum: None,
            present: None,
            log_id: engine.log_id(),
            uptime: now.since(Time::ZERO),
            waiting: 0,
            store: self.log.kind(),
            fsync: self.log.fsync(),
            disk_full: self.room.shortage.is_some(),
            damaged: self.log.damaged(),
            aside: self.node.provisional().aside_total() + self.aside,
            awaiting: String::new(),
        };
        let master = MasterStatus {
            addr: self.master_addr.clone(),
            connected: engine.session().is_some() && !self.contact.is_silent(now),
            last_contact: self.contact.since(now),
            held,
            duplicates: engine.duplicates(),
        };
        Status { node, secondaries: Vec::new(), master: Some(master) }
    }
}

/// What the engine must know of the log it starts with.
fn holdings(opened: &OpenLog) -> Holdings {
    let log = opened.log.store();
    let (bounds, identity) = (log.bounds(), log.identity());
    Holdings {
        log_id: identity.log_id,
        epoch: identity.epoch,
        run_id: identity.run_id,
        last: bounds.last,
        tail: bounds.tail,
        settled: identity.settled,
        commit: identity.commit,
        vouches: opened.whole,
    }
}
