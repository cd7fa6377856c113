//! The master's driver: the one task that owns its engine and its log.
//!
//! Each turn takes what has come in, numbers and writes all appends of the turn as one run, carries
//! out what the engine decided, and hands out the answers, one message per connection.

mod disk;
mod hello;
mod recovery;
mod sending;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::clock::unix_ms;
use super::inbox::{
    AppendRun, ClientInput, DialError, Input, Introduced, Node, Outcome, PeerEvent, Reply,
    RunOptions, View,
};
use super::link::{Kind, Link};
use super::node::NodeError;
use super::reader::{cut, epoch_row, fault_of, held_ranges};
use super::reads::{Asked, PeerReads};
use super::store::{DISK_LOOK_INTERVAL, DiskNews, DiskRoom, Log, OpenLog};
use crate::codes::{Class, NackCode, RefuseCode};
use crate::config::{ClusterConfig, Config};
use crate::engine::startup::last_common;
use crate::engine::{
    AckFacts, Answer, AttemptFailure, Effect, Health, HelloFacts, Master, Mode, Reign, Request,
    SessionId, Submission, Token, Verdict,
};
use crate::gateway::Refusal;
use crate::gateway::reply::Placed;
use crate::limits::{READ_CHUNK_BYTES, RECORD_HEADER_BYTES, ROOM_TOLD_INTERVAL};
use crate::store::{Identity, RunBuilder, StoreError};
use crate::types::{AckLevel, Digest, Epoch, LogId, NodeId, NodeIndex, PrefixId, RunId, Seq, Time};
use crate::wire::Message;
use crate::wire::codec::{self, Hello};

/// Room for new records, taken at a time.
const ARENA_BYTES: usize = 1 << 20;
/// A turn's run is written when it has so many bytes, and another one begins.
const RUN_BYTES: usize = 4 << 20;

/// A secondary as the runtime sees it.
struct Peer {
    id: NodeId,
    addr: String,
    link: Option<Link>,
    /// The HELLO that awaits its answer named an epoch.
    leading: bool,
    /// A HELLO of ours on this connection has no answer yet.
    introducing: u32,
    /// The last of them was sent by a leader: it says truly where the epoch begins.
    told_as_leader: bool,
    last_contact: Option<Time>,
    heartbeat: u64,
    heartbeat_sent: Time,
    rtt: Option<Duration>,
    error: Option<String>,
    /// A NACK's code is logged when it changes.
    nack: Option<u16>,
    /// Which one was logged last, and when.
    nack_told: Option<(u16, Time)>,
    reads: PeerReads,
}

/// See the module.
pub(super) struct MasterDriver {
    node: Arc<Node>,
    cluster: ClusterConfig,
    engine: Master,
    log: Log,
    news: Arc<DiskNews>,
    room: DiskRoom,
    peers: Vec<Peer>,
    inputs: mpsc::Receiver<Input>,
    view: watch::Sender<View>,
    replies: HashMap<u64, mpsc::Sender<Vec<Reply>>>,
    outbox: HashMap<u64, Vec<Reply>>,
    arena: BytesMut,
    builder: Option<RunBuilder>,
    next_session: u64,
    mending: recovery::Mending,
    deposed: Option<(NodeId, Epoch)>,
    /// Who was last said to be waited for.
    awaited_noted: String,
    /// The same of a loss that was accepted beyond the log.
    beyond_noted: Option<(Seq, Seq)>,
    /// The same of logs that are not one.
    rivals_noted: String,
    /// The same of answers that prove nothing.
    doubtful_noted: Option<Seq>,
    /// Why this node must end.
    failed: Option<NodeError>,
    roster: Arc<[NodeId]>,
}

impl MasterDriver {
    pub(super) fn new(
        node: Arc<Node>,
        config: &Config,
        engine: Master,
        opened: OpenLog,
        inputs: mpsc::Receiver<Input>,
        view: watch::Sender<View>,
    ) -> Self {
        let peer = |secondary: &crate::config::SecondaryConfig| Peer {
            id: secondary.id.clone(),
            addr: secondary.addr.clone(),
            link: None,
            leading: false,
            introducing: 0,
            told_as_leader: false,
            last_contact: None,
            heartbeat: 0,
            heartbeat_sent: Time::ZERO,
            rtt: None,
            error: None,
            nack: None,
            nack_told: None,
            reads: PeerReads::default(),
        };
        MasterDriver {
            peers: config.cluster.secondaries.iter().map(peer).collect(),
            cluster: config.cluster.clone(),
            roster: node.roster(),
            node,
            engine,
            log: opened.log,
            news: opened.news,
            room: DiskRoom::default(),
            inputs,
            view,
            replies: HashMap::new(),
            outbox: HashMap::new(),
            arena: BytesMut::new(),
            builder: None,
            next_session: 1,
            mending: recovery::Mending::default(),
            deposed: None,
            awaited_noted: String::new(),
            beyond_noted: None,
            rivals_noted: String::new(),
            doubtful_noted: None,
            failed: None,
        }
    }

    /// Runs until `stop`, answers everybody who waits, and goes on answering until `end`.
    /// `end` comes when the connections are gone.
    pub(super) async fn run(
        mut self,
        stop: CancellationToken,
        end: CancellationToken,
    ) -> Result<(), NodeError> {
        const INPUTS_PER_TURN: usize = 256;
        let mut batch = Vec::with_capacity(INPUTS_PER_TURN);
        let mut stopping = false;
        let mut look = interval(DISK_LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looking = matches!(self.log, Log::Disk(..));
        let news = self.news.clone();
        self.note_damage();
        self.carry_out(self.node.clock.now());
        // Alone, it leads by now, and nobody who waits for that should wait for the first input.
        self.publish();
        loop {
            let due = self.engine.poll_timeout().map(|due| self.node.clock.instant(due));
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
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.engine.handle_stop();
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
            if self.engine.poll_timeout().is_some_and(|due| due <= now) {
                self.engine.handle_timeout(now);
            }
            self.hear_disk(now);
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            for input in batch.drain(..) {
                match input {
                    Input::Client(input) => self.handle_client(now, input),
                    Input::Peer(event) => self.handle_peer(now, event),
                }
            }
            self.write_run(now);
            self.carry_out(now);
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            self.deliver_replies();
            self.publish();
            self.note_awaited();
            if let Some((by, epoch)) = self.deposed.take() {
                return Err(NodeError::Deposed { by, epoch });
            }
        }
    }

    // ---- clients ----

    fn handle_client(&mut self, now: Time, input: ClientInput) {
        match input {
            ClientInput::Opened { connection, replies } => {
                self.replies.insert(connection, replies);
            }
            ClientInput::Closed { connection } => {
                self.replies.remove(&connection);
                self.outbox.remove(&connection);
                self.engine.handle_gone(connection);
            }
            ClientInput::Appends { connection, runs, permit } => {
                runs.into_iter().for_each(|run| self.append(now, connection, run));
                drop(permit);
            }
            ClientInput::Wait { token, seq, options } => self.wait(now, token, seq, options),
            // Whoever asked may be gone: then nobody misses the answer.
            ClientInput::Status(reply) => {
                let _ = reply.send(self.status(now));
            }
            ClientInput::Waiters(reply) => {
                let _ = reply.send(self.waiters(now));
            }
            ClientInput::Metrics(reply) => {
                let (status, levels) = (self.status(now), self.engine.levels());
                let stored = levels.held_by(1);
                let _ = reply.send(self.node.metrics.scrape(
                    &status,
                    levels,
                    &self.log,
                    self.room.shortage,
                    stored,
                ));
            }
            ClientInput::Holders(seq, reply) => {
                let _ = reply.send(self.engine.holders(seq, AckLevel::Stored));
            }
            // Refused by the service before they come here: these are for secondaries.
            ClientInput::Fault(..) | ClientInput::Store(..) => {}
        }
    }

    fn append(&mut self, now: Time, connection: u64, run: AppendRun) {
        let AppendRun { slot, options, payloads } = run;
        let count = payloads.len() as u64;
        let token = Token { connection, slot };
        let RunOptions { concern, ack, patience } = options;
        let submission = Submission { token, count, concern, ack, patience };
        self.look_for_room(now, payloads.bytes() + payloads.len() * RECORD_HEADER_BYTES);
        let range = match self.engine.handle_append(now, submission) {
            Ok(range) => range,
            Err(refused) => {
                debug!(connection, count, ?refused, "append refused");
                return self.refuse_run(token, count, self.refusal(refused));
            }
        };
        debug!(seq = %range, connection, "append numbered");
        let (epoch, time_ms) = (self.engine.epoch(), unix_ms());
        let builder = match &mut self.builder {
            Some(builder) => builder,
            empty => {
                if self.arena.capacity() < READ_CHUNK_BYTES {
                    self.arena = BytesMut::with_capacity(ARENA_BYTES);
                }
                let bounds = self.log.store().bounds();
                empty.insert(RunBuilder::new(&mut self.arena, bounds.last, bounds.tail))
            }
        };
        payloads.for_each(|payload| builder.push(epoch, time_ms, payload));
        if builder.len_bytes() >= RUN_BYTES {
            self.write_run(now);
        }
    }

    fn wait(&mut self, now: Time, token: Token, seq: Seq, options: RunOptions) {
        let RunOptions { concern, ack, patience } = options;
        let submission = Submission { token, count: 1, concern, ack, patience };
        if let Err(refused) = self.engine.handle_wait(now, seq, submission) {
            self.refuse_run(token, 1, self.refusal(refused));
        }
    }

    fn refuse_run(&mut self, token: Token, count: u64, refusal: Refusal) {
        self.node.metrics.refused(refusal.code, count);
        let outcome = Outcome::Refused(refusal);
        let reply = Reply { slot: token.slot, offset: 0, count, outcome };
        self.outbox.entry(token.connection).or_default().push(reply);
    }

    fn answer(&mut self, now: Time, answer: Answer) {
        let Answer { token, offset, range, need, holders, verdict, request, since } = answer;
        let class = match verdict {
            Verdict::Met => Class::Ok,
            Verdict::Waiting => Class::Pending,
            Verdict::Unknown => Class::Unknown,
        };
        debug!(seq = %range, %class, have = holders.len(), need, "answered");
        if request == Request::Append {
            self.node.metrics.answered(class, need, now.since(since), range.len());
        }
        // A wait may be for an entry of an earlier reign.
        let epoch = self.node.log.epoch_of(range.first).unwrap_or(self.engine.epoch());
        let placed = Placed { class, seq: range.first, epoch, need, holders };
        let outcome = Outcome::Placed(placed);
        let reply = Reply { slot: token.slot, offset, count: range.len(), outcome };
        self.outbox.entry(token.connection).or_default().push(reply);
    }

    fn deliver_replies(&mut self) {
        for (connection, replies) in self.outbox.drain() {
            let Some(sender) = self.replies.get(&connection) else { continue };
            // A connection has room for one message per append that waits, and each message answers
            // at least one: it is full only if it broke that rule, and closed if it is gone.
            if sender.try_send(replies).is_err() {
                self.replies.remove(&connection);
            }
        }
    }

    fn publish(&mut self) {
        let local = self.engine.levels().held_by(1);
        self.view.send_if_modified(|view| {
            let accepts = self.engine.mode() == Mode::Normal;
            let history = self.engine.log_id().map(|log_id| (log_id, self.engine.epoch()));
            let hidden_from = self.engine.damage().map(|range| range.first);
            let changed = view.local != local
                || view.stored != local
                || view.hidden_from != hidden_from
                || view.levels != *self.engine.levels()
                || view.history != history
                || view.accepts != accepts;
            if changed {
                view.accepts = accepts;
                view.history = history;
                (view.local, view.stored) = (local, local);
                view.hidden_from = hidden_from;
                view.levels.clone_from(self.engine.levels());
            }
            changed
        });
    }

    // ---- secondaries ----

    fn handle_peer(&mut self, now: Time, event: PeerEvent) {
        match event {
            PeerEvent::Dialled { to, session, result } => self.dialled(now, to, session, result),
            PeerEvent::Messages { peer, session, messages } => {
                if self.is_current(peer, session) {
                    self.peer(peer).last_contact = Some(now);
                    self.engine.handle_heard(now, peer, session);
                    for message in messages {
                        if self.is_current(peer, session) {
                            self.handle_message(now, peer, session, message);
                        }
                    }
                }
            }
            PeerEvent::Closed { peer, session, refuse, reason } => {
                if self.is_current(peer, session) {
                    self.disconnected(peer, session, refuse, reason);
                }
            }
            PeerEvent::Writable { peer, session } => {
                if self.is_current(peer, session) {
                    if let Some(link) = &mut self.peer(peer).link {
                        link.unblock();
                    }
                    self.flush(now, peer);
                }
            }
            PeerEvent::Read { peer, session, asked, slice } => {
                let node = self.node.clone();
                self.peer(peer).reads.done((&node.log, &node.driver), peer);
                if self.is_current(peer, session) && asked.epoch == self.engine.epoch() {
                    self.send_slice(now, peer, session, asked, slice);
                }
            }
            // Only a secondary accepts masters: see `server`.
            PeerEvent::Accepted(_) => {}
        }
    }

    fn dialled(
        &mut self,
        now: Time,
        to: NodeIndex,
        session: SessionId,
        result: Result<Box<Introduced>, DialError>,
    ) {
        match result {
            Ok(introduced) => {
                let Introduced { hello, read, write, buffer, .. } = *introduced;
                let link = Link::start(session, to, read, write, buffer, &self.node);
                let peer = self.peer(to);
                info!(peer = %peer.id, addr = %peer.addr, "connected");
                peer.link = Some(link);
                (peer.error, peer.nack) = (None, None);
                peer.last_contact = Some(now);
                self.introduced(now, to, session, &hello);
            }
            Err(DialError::Refused(refuse)) => {
                self.note_refusal(to, &refuse);
                let code = RefuseCode::from_number(refuse.code).unwrap_or(RefuseCode::BadFrame);
                self.engine.handle_refused(to, session, code, Epoch::new(refuse.epoch));
            }
            Err(DialError::Unreachable(reason)) => {
                let peer = self.peer(to);
                if peer.error.as_ref() != Some(&reason) {
                    info!(peer = %peer.id, addr = %peer.addr, reason, "cannot connect");
                }
                peer.error = Some(reason);
                self.engine.handle_dial_failed(now, to);
            }
        }
    }

    fn introduced(&mut self, now: Time, to: NodeIndex, session: SessionId, hello: &Hello) {
        if let Some(fault) = fault_of(hello) {
            let code = Some(RefuseCode::BadFrame);
            return self.disconnected(to, session, code, fault.to_owned());
        }
        let leads = self.engine.reign() == Reign::Leading;
        let peer = self.peer(to);
        // Sent before the reign began, it could not say where that begins: it is said once more.
        let leading = peer.leading && (peer.told_as_leader || !leads);
        if hello.role != codec::Role::Secondary || hello.node_id != peer.id.as_str() {
            let reason = format!("{} says it is {:?}", peer.addr, cut(&hello.node_id));
            warn!(peer = %peer.id, reason, "refused: the roster is wrong");
            peer.error = Some(reason);
            self.close(to, RefuseCode::WrongNode);
            return self.engine.handle_refused(to, session, RefuseCode::WrongNode, Epoch::ZERO);
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
            ours: self.node.log.prefix_id(stored),
            commit: Seq::new(hello.commit),
            vouches: hello.vouches,
            common: last_common(
                &self.node.log.epoch_table(),
                self.log.store().bounds().last,
                &hello.epoch_table.iter().map(epoch_row).collect::<Vec<_>>(),
                stored,
            ),
        };
        self.engine.handle_introduced(now, to, session, facts, leading);
    }

    fn handle_message(&mut self, now: Time, from: NodeIndex, session: SessionId, message: Message) {
        let epoch = self.engine.epoch();
        match message {
            Message::Ack(ack) if ack.epoch == epoch.number() => {
                let Some(held) = held_ranges(&ack) else {
                    let reason = "an ACK whose held ranges are not ascending".to_owned();
                    let code = Some(RefuseCode::BadFrame);
                    return self.disconnected(from, session, code, reason);
                };
                let (stored, received) = (Seq::new(ack.stored), Seq::new(ack.received));
                debug!(peer = %self.peer(from).id, seq = ack.stored, received = ack.received, held = ack.held.len(), "ack");
                self.peer(from).nack = None;
                let facts = AckFacts { stored, received, held, duplicates: ack.duplicates };
                self.engine.handle_ack(now, from, session, facts);
            }
            Message::Nack(nack) if nack.epoch == epoch.number() => {
                let peer = self.peer(from);
                let known = NackCode::from_number(nack.code);
                let code = known.map_or("unknown", NackCode::word);
                let reason = cut(&nack.reason);
                // One that comes and goes is told once in a while.
                let told = peer
                    .nack_told
                    .filter(|&(told, at)| told == nack.code && now < at.after(ROOM_TOLD_INTERVAL));
                let is_news = peer.nack.replace(nack.code) != Some(nack.code) && told.is_none();
                if !is_news {
                    debug!(peer = %peer.id, seq = nack.seq, code, reason, "nack");
                } else {
                    peer.nack_told = Some((nack.code, now));
                    warn!(peer = %peer.id, seq = nack.seq, code, reason, "nack");
                }
                peer.error = Some(format!("{code} at {}: {reason}", nack.seq));
                self.engine.handle_nack(now, from, session, known);
            }
            Message::Fetched(head, records)
                if head.epoch == epoch.number() && self.engine.awaits_entries(from, session) =>
            {
                self.fetched(now, from, session, head, records);
            }
            // Asked for before what is damaged was found to be another.
            Message::Fetched(head, _)
                if head.epoch == epoch.number() && self.engine.damage().is_some() => {}
            // One that asked, or was of an epoch that had to be raised, may be answered late.
            Message::HeartbeatAck(ack)
                if ack.epoch == 0
                    || ack.epoch == epoch.number()
                    || self.engine.reign() != Reign::Leading =>
            {
                let peer = self.peer(from);
                if ack.number == peer.heartbeat {
                    peer.rtt = Some(now.since(peer.heartbeat_sent));
                }
            }
            // Only as an answer: positions travel in ACKs otherwise.
            Message::Hello(hello) if self.peer(from).introducing > 0 => {
                let peer = self.peer(from);
                peer.introducing -= 1;
                // Of several under way the last one is judged.
                if peer.introducing == 0 {
                    self.introduced(now, from, session, &hello);
                }
            }
            Message::Ack(_) | Message::Nack(_) | Message::HeartbeatAck(_) => {
                let reason = "a frame of another epoch".to_owned();
                self.disconnected(from, session, Some(RefuseCode::StaleEpoch), reason);
            }
            Message::Refuse(refuse) => {
                self.note_refusal(from, &refuse);
                self.peer(from).link = None;
                let code = RefuseCode::from_number(refuse.code).unwrap_or(RefuseCode::BadFrame);
                self.engine.handle_refused(from, session, code, Epoch::new(refuse.epoch));
            }
            _ => {
                let reason = "a frame that a secondary does not send".to_owned();
                self.disconnected(from, session, Some(RefuseCode::BadFrame), reason);
            }
        }
    }

    fn note_refusal(&mut self, to: NodeIndex, refuse: &codec::Refuse) {
        let code = RefuseCode::from_number(refuse.code).map_or("unknown", RefuseCode::word);
        let error = format!("refused {code}: {}", cut(&refuse.reason));
        let peer = self.peer(to);
        if peer.error.as_ref() != Some(&error) {
            warn!(peer = %peer.id, code, epoch = refuse.epoch, reason = cut(&refuse.reason), "refused by the secondary");
        }
        peer.error = Some(error);
    }

    fn disconnected(
        &mut self,
        peer: NodeIndex,
        session: SessionId,
        refuse: Option<RefuseCode>,
        reason: String,
    ) {
        let epoch = self.engine.epoch();
        if let Some(code) = refuse {
            self.node.metrics.connection_refused(code);
        }
        let of = self.peer(peer);
        info!(peer = %of.id, reason, "disconnected");
        if let (Some(link), Some(code)) = (of.link.take(), refuse) {
            link.refuse(code, epoch, &reason);
        }
        of.error = Some(reason);
        self.engine.handle_disconnected(peer, session);
    }

    fn close(&mut self, to: NodeIndex, code: RefuseCode) {
        let epoch = self.engine.epoch();
        if let Some(link) = self.peer(to).link.take() {
            self.node.metrics.connection_refused(code);
            link.refuse(code, epoch, code.word());
        }
    }

    fn is_current(&mut self, peer: NodeIndex, session: SessionId) -> bool {
        self.peer(peer).link.as_ref().is_some_and(|link| link.session == session)
    }

    fn peer(&mut self, index: NodeIndex) -> &mut Peer {
        // Indices are made from the roster: a secondary's is never that of the master.
        &mut self.peers[index.as_usize() - 1]
    }

    // ---- effects ----

    fn carry_out(&mut self, now: Time) {
        // What could not be done ends it: nothing that follows may be done without it.
        while self.failed.is_none()
            && let Some(effect) = self.engine.poll_effect()
        {
            match effect {
                Effect::Dial { to } => self.dial(to),
                Effect::Introduce { to, .. } => {
                    let leads = self.engine.reign() == Reign::Leading;
                    let hello = Message::Hello(self.hello(to));
                    let peer = self.peer(to);
                    peer.introducing += 1;
                    (peer.leading, peer.told_as_leader) = (true, leads);
                    self.push(now, to, Kind::Control, &hello);
                }
                Effect::Close { to, code, .. } => {
                    let peer = self.peer(to);
                    warn!(peer = %peer.id, code = code.word(), "refused");
                    peer.error = Some(format!("refused {code}"));
                    self.close(to, code);
                }
                Effect::Send { to, session, range, bytes_max, again } => {
                    let epoch = self.engine.epoch();
                    self.send(now, to, session, Asked { range, bytes_max, again, epoch });
                }
                Effect::Heartbeat { to, .. } => self.heartbeat(now, to),
                Effect::MakeDurable { up_to } => {
                    let stored = self.log.store_mut().make_durable(up_to);
                    self.stored(now, stored);
                }
                Effect::Keep { log_id, epoch, settled, vouches } => {
                    let log_id = Some(log_id);
                    let run_id = self.engine.run_id();
                    let commit = self.engine.levels().commit;
                    self.keep(Identity { log_id, epoch, run_id, settled, commit, vouches });
                }
                Effect::SetAside { from } => self.set_aside(from),
                Effect::Fetch { from, range, .. } => self.fetch(now, from, range),
                Effect::Align { to, session, last } => self.align(now, to, session, last),
                Effect::Answer(answer) => self.answer(now, answer),
                effect => self.note(effect),
            }
        }
    }

    /// Logs what changed.
    fn note(&mut self, effect: Effect) {
        match effect {
            Effect::BeginHistory { log_id, epoch } => {
                info!(%log_id, %epoch, "a new log begins");
                self.note_unheard();
            }
            Effect::BeginReign { epoch, last } => {
                info!(%epoch, seq = %last, "leads");
                if let Some(accepted) = self.engine.config().accept_data_loss {
                    if self.engine.loss_accepted() {
                        warn!(%accepted, seq = %last, "what may have followed is lost: the operator accepted it");
                    } else {
                        info!(%accepted, seq = %last, "nothing is lost: --accept-data-loss was not needed");
                    }
                }
            }
            Effect::HealthChanged { of, from, to } => {
                let misses = self.engine.secondaries()[of.as_usize() - 1].health.misses();
                let peer = &self.peer(of).id;
                match to {
                    Health::Healthy => info!(%peer, %from, %to, "health changed"),
                    _ => warn!(%peer, %from, %to, misses, "health changed"),
                }
            }
            Effect::ModeChanged { from, to, present } => {
                let need = self.cluster.quorum;
                match to {
                    Mode::Normal => info!(%from, %to, present, need, "mode changed"),
                    _ => warn!(%from, %to, present, need, "mode changed"),
                }
            }
            Effect::AttemptFailed { to, seq, failure, attempts, wait } => {
                let cause = match failure {
                    AttemptFailure::Timeout => "no progress",
                    AttemptFailure::Nack => "nack",
                };
                self.node.metrics.attempt_failed(&self.peers[to.as_usize() - 1].id, cause);
                let next_ms = wait.as_millis() as u64; // Waits are bounded by a day.
                warn!(peer = %self.peer(to).id, %seq, cause, attempts, next_ms, "attempt failed");
            }
            Effect::Following { to, stored } => {
                info!(peer = %self.peer(to).id, seq = %stored, "follows");
            }
            Effect::Deposed { by, epoch } => {
                self.deposed = Some((self.peer(by).id.clone(), epoch));
            }
            // Carried out above.
            _ => {}
        }
    }

    fn stored(&mut self, now: Time, stored: Seq) {
        if stored > self.engine.levels().held_by(1) {
            debug!(seq = %stored, "stored");
        }
        self.engine.handle_stored(now, stored);
    }

    /// The store cannot go on: nor can this node.
    fn fail(&mut self, error: StoreError) {
        if self.failed.is_none() {
            self.failed = Some(error.into());
        }
    }

    fn heartbeat(&mut self, now: Time, to: NodeIndex) {
        let (epoch, levels) = (self.engine.epoch().number(), self.levels(to));
        let peer = self.peer(to);
        // The epoch may have been chosen in this very turn: its HELLO is still to come.
        let epoch = if peer.leading { epoch } else { 0 };
        peer.heartbeat += 1;
        peer.heartbeat_sent = now;
        let number = peer.heartbeat;
        let heartbeat = Message::Heartbeat(codec::Heartbeat { epoch, number, levels });
        self.push(now, to, Kind::Heartbeat, &heartbeat);
    }

    fn push(&mut self, now: Time, to: NodeIndex, kind: Kind, message: &Message) {
        if self.failed.is_some() {
            return; // Nothing is said that rests on what could not be kept.
        }
        if let Some(link) = &mut self.peer(to).link {
            link.push(kind, message);
            self.flush(now, to);
        }
    }

    fn flush(&mut self, now: Time, to: NodeIndex) {
        let Some(link) = &mut self.peer(to).link else { return };
        let session = link.session;
        match link.flush() {
            Ok(flushed) if flushed.frames > 0 => {
                self.engine.handle_flushed(now, to, session, flushed.up_to, flushed.frames);
            }
            Ok(_) => {}
            Err(error) => self.disconnected(to, session, None, error.to_string()),
        }
    }

    fn levels(&self, to: NodeIndex) -> codec::Levels {
        let levels = self.engine.levels_for(to);
        codec::Levels {
            commit: levels.commit.number(),
            held_by: levels.held_by.iter().map(|seq| seq.number()).collect(),
        }
    }
}
