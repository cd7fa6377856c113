//! A master without I/O: its engine, its log, its secondaries, and the appends of clients.
//!
//! Each turn takes what has come in, numbers and writes all appends of the turn as one run, carries
//! out what the engine decided, and hands out the answers, one message per connection.

mod disk;
mod effects;
mod introduction;
mod messages;
mod recovery;
mod sending;
mod status;

pub use messages::DialFailure;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tracing::debug;

use super::client::{AppendRun, Outcome, Reply};
use super::event::Event;
use super::links::{Link, Outputs};
use super::machine::{About, Failure, Machine, Output};
use super::queue::FrameQueue;
use super::reads::{Asked, PeerReads};
use super::room::DiskRoom;
use super::storage::{Storage, own_log};
use super::view::View;
use crate::codes::{Class, RefuseCode};
use crate::engine::{
    Answer, Levels, Master, MasterConfig, Mode, Refused, SessionId, Submission, Token, Verdict,
};
use crate::gateway::reply::Placed;
use crate::gateway::status::Status;
use crate::limits::{READ_CHUNK_BYTES, RECORD_HEADER_BYTES};
use crate::store::{LogReader, RunBuilder, Slice};
use crate::types::{
    AckLevel, LogId, NodeId, NodeIndex, NodeSet, RunId, Seq, Shortage, Time, WaitOptions,
};
use crate::wire::Message;

/// Room for new records, taken at a time.
const ARENA_BYTES: usize = 1 << 20;
/// A turn's run is written when it has so many bytes, and another one begins.
const RUN_BYTES: usize = 4 << 20;

/// A secondary, beside what the engine knows of it.
struct Peer {
    id: NodeId,
    addr: String,
    link: Option<(SessionId, Link)>,
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

impl Peer {
    fn new((id, addr): (NodeId, String)) -> Self {
        Peer {
            id,
            addr,
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
        }
    }
}

/// What a process of a master begins with.
#[derive(Clone, Debug)]
pub struct Beginnings {
    /// The rules, as configured.
    pub config: MasterConfig,
    /// The name of this process.
    pub run_id: RunId,
    /// The name of the log, should a new one begin.
    pub log_id: LogId,
    /// The secondaries and their addresses, in the order of the roster.
    pub secondaries: Vec<(NodeId, String)>,
    /// The number of the first connection.
    pub first_session: u64,
}

/// See the module.
pub struct MasterNode<S> {
    about: About,
    engine: Master,
    storage: S,
    log: LogReader,
    room: DiskRoom,
    /// The disk is looked at again at the latest then.
    look_at: Time,
    peers: Vec<Peer>,
    outbox: HashMap<u64, Vec<Reply>>,
    arena: BytesMut,
    builder: Option<RunBuilder>,
    next_session: u64,
    repairing: recovery::Repairing,
    notes: recovery::Notes,
    failure: Option<Failure>,
    /// It ends, and answers what is decided first.
    deposed: Option<Failure>,
    roster: Arc<[NodeId]>,
    outputs: Outputs,
    events: Vec<Event>,
}

impl<S: Storage> MasterNode<S> {
    /// A master that has asked nobody yet.
    pub fn new(about: About, beginnings: Beginnings, storage: S, now: Time) -> Self {
        let Beginnings { config, run_id, log_id, secondaries, first_session } = beginnings;
        let others = secondaries.iter().map(|(id, _)| id.clone());
        let mut node = MasterNode {
            roster: std::iter::once(about.id.clone()).chain(others).collect(),
            about,
            engine: Master::new(config, run_id, log_id, own_log(&storage), now),
            log: storage.log().reader(),
            storage,
            room: DiskRoom::default(),
            look_at: Time::ZERO,
            peers: secondaries.into_iter().map(Peer::new).collect(),
            outbox: HashMap::new(),
            arena: BytesMut::new(),
            builder: None,
            next_session: first_session,
            repairing: recovery::Repairing::default(),
            notes: recovery::Notes::default(),
            failure: None,
            deposed: None,
            outputs: Outputs::default(),
            events: Vec::new(),
        };
        node.note_damage();
        node
    }

    /// What decides.
    pub fn engine(&self) -> &Master {
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

    /// The number that the next connection gets.
    pub fn next_session(&self) -> u64 {
        self.next_session
    }

    /// When a secondary was heard last.
    pub fn last_contact(&self, of: NodeIndex) -> Option<Time> {
        self.peers[of.as_usize() - 1].last_contact
    }

    /// The connection to a secondary, if there is one.
    pub fn session(&self, of: NodeIndex) -> Option<SessionId> {
        self.peers[of.as_usize() - 1].link.as_ref().map(|&(session, _)| session)
    }

    // ---- clients ----

    /// A run of appends of a connection; its answers come by [`MasterNode::take_replies`]. `wall_ms` are
    /// milliseconds since 1970.
    pub fn handle_append(&mut self, now: Time, wall_ms: u64, connection: u64, run: AppendRun) {
        let AppendRun { slot, options, payloads } = run;
        let count = payloads.len() as u64;
        let token = Token { connection, slot };
        let submission = Submission { token, count, options };
        self.look_for_room(now, payloads.bytes() + payloads.len() * RECORD_HEADER_BYTES);
        let range = match self.engine.handle_append(now, submission) {
            Ok(range) => range,
            Err(refused) => {
                debug!(connection, count, ?refused, "append refused");
                return self.refuse_run(token, count, refused);
            }
        };
        debug!(seq = %range, connection, "append numbered");
        self.events.push(Event::Numbered { token, range });
        let epoch = self.engine.epoch();
        let builder = match &mut self.builder {
            Some(builder) => builder,
            empty => {
                if self.arena.capacity() < READ_CHUNK_BYTES {
                    self.arena = BytesMut::with_capacity(ARENA_BYTES);
                }
                let bounds = self.storage.log().bounds();
                empty.insert(RunBuilder::new(&mut self.arena, bounds.last, bounds.tail))
            }
        };
        payloads.for_each(|payload| builder.push(epoch, wall_ms, payload));
        if builder.len_bytes() >= RUN_BYTES {
            self.write_run(now);
        }
    }

    /// A wait for an entry, answered likewise.
    pub fn handle_wait(&mut self, now: Time, token: Token, seq: Seq, options: WaitOptions) {
        let submission = Submission { token, count: 1, options };
        match self.engine.handle_wait(now, seq, submission) {
            Ok(()) => self.events.push(Event::Waits { token, seq }),
            Err(refused) => self.refuse_run(token, 1, refused),
        }
    }

    fn refuse_run(&mut self, token: Token, count: u64, refused: Refused) {
        let refusal = self.refusal(refused);
        self.events.push(Event::Refused { token, count, refused, code: refusal.code });
        let outcome = Outcome::Refused(refusal);
        let reply = Reply { slot: token.slot, offset: 0, count, outcome };
        self.outbox.entry(token.connection).or_default().push(reply);
    }

    fn answer(&mut self, answer: Answer) {
        let Answer { token, offset, range, need, holders, verdict, .. } = answer;
        let class = class_of(verdict);
        debug!(seq = %range, %class, have = holders.len(), need, "answered");
        self.events.push(Event::Answered(answer));
        // A wait may be for an entry of an earlier reign.
        let epoch = self.log.epoch_of(range.first).unwrap_or(self.engine.epoch());
        let placed = Placed { class, seq: range.first, epoch, need, holders };
        let outcome = Outcome::Placed(placed);
        let reply = Reply { slot: token.slot, offset, count: range.len(), outcome };
        self.outbox.entry(token.connection).or_default().push(reply);
    }

    /// Answers for connections, in the order in which they were decided for each.
    pub fn take_replies(&mut self) -> impl Iterator<Item = (u64, Vec<Reply>)> + '_ {
        let may_speak = self.may_speak();
        self.outbox.drain().filter(move |_| may_speak)
    }

    /// A connection of a client is gone: nobody waits for its answers.
    pub fn handle_gone(&mut self, connection: u64) {
        self.outbox.remove(&connection);
        self.engine.handle_gone(connection);
    }

    /// The node is to stop: whoever waits is answered, and no append is taken any more.
    pub fn handle_stop(&mut self) {
        self.engine.handle_stop();
    }

    /// Nothing is said that rests on what could not be kept; whoever is deposed says what was decided.
    fn may_speak(&self) -> bool {
        matches!(self.failure, None | Some(Failure::Deposed { .. }))
    }

    /// Who has stored an entry.
    pub fn holders(&self, seq: Seq) -> NodeSet {
        self.engine.holders(seq, AckLevel::Stored)
    }
}

/// How an answer is classed.
pub fn class_of(verdict: Verdict) -> Class {
    match verdict {
        Verdict::Met => Class::Ok,
        Verdict::Waiting => Class::Pending,
        Verdict::Unknown => Class::Unknown,
    }
}

impl<S: Storage> Machine for MasterNode<S> {
    fn begin_turn(&mut self, now: Time) {
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
        self.hear_disk(now);
    }

    fn step(&mut self, now: Time) -> bool {
        if self.builder.is_some() && self.failure.is_none() {
            self.write_run(now);
            return true;
        }
        if self.carry_out_one(now) {
            return true;
        }
        self.note_awaited();
        // Whoever was deposed answers first what is decided.
        if self.failure.is_none() {
            self.failure = self.deposed.take();
        }
        false
    }

    fn poll_timeout(&self) -> Option<Time> {
        let look = self.storage.is_disk().then_some(self.look_at);
        [self.engine.poll_timeout(), look].into_iter().flatten().min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop().filter(|_| self.may_speak())
    }

    fn drain_events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn handle_heard(&mut self, now: Time, session: SessionId) -> bool {
        let Some(from) = self.peer_of(session) else { return false };
        self.peer(from).last_contact = Some(now);
        self.engine.handle_heard(now, from, session);
        true
    }

    fn handle_message(&mut self, now: Time, session: SessionId, message: Message) {
        if let Some(from) = self.peer_of(session) {
            self.message(now, from, session, message);
        }
    }

    fn handle_closed(
        &mut self,
        _now: Time,
        session: SessionId,
        refuse: Option<RefuseCode>,
        reason: &str,
    ) {
        if let Some(peer) = self.peer_of(session) {
            self.disconnected(peer, session, refuse, reason.to_owned());
        }
    }

    fn queue(&self, session: SessionId) -> Option<&FrameQueue> {
        let mut links = self.peers.iter().filter_map(|peer| peer.link.as_ref());
        links
            .find(|(of, _)| *of == session)
            .map(|(_, link)| &link.queue)
            .filter(|_| self.may_speak())
    }

    fn handle_taken(&mut self, now: Time, session: SessionId, bytes: usize) {
        let Some(to) = self.peer_of(session) else { return };
        let Some((_, link)) = &mut self.peer(to).link else { return };
        let flushed = link.taken(bytes);
        if flushed.frames > 0 {
            self.engine.handle_flushed(now, to, session, flushed.up_to, flushed.frames);
        }
    }

    fn handle_read(
        &mut self,
        now: Time,
        peer: NodeIndex,
        session: SessionId,
        asked: Asked,
        slice: Slice,
    ) {
        if let Some((session, asked)) = self.peer(peer).reads.done() {
            self.outputs.push(Output::Read { peer, session, asked });
        }
        if self.engine.handle_read(peer, session, asked.epoch) {
            self.send_slice(now, peer, session, asked, slice);
        }
    }

    fn show(&self, view: &mut View) -> bool {
        let local = self.engine.levels().held_by(1);
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
    }

    fn status(&self, now: Time) -> Status {
        self.status_at(now)
    }

    fn levels(&self) -> &Levels {
        self.engine.levels()
    }

    fn stored(&self) -> Seq {
        self.engine.levels().held_by(1)
    }

    fn shortage(&self) -> Option<Shortage> {
        self.room.shortage
    }

    fn leave(&mut self) -> Result<(), Failure> {
        let commit = self.engine.levels().commit;
        super::storage::leave(&mut self.storage, commit)
    }
}
