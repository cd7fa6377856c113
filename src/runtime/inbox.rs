//! What connections and drivers say to one another, and what they share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::metrics::Metrics;
use super::reads::{Asked, ClientReads};
use super::room::SharedRoom;
use super::throttle::Throttle;
use crate::codes::RefuseCode;
use crate::config::{Config, Limits, Role};
use crate::engine::{Levels, SessionId, Token};
use crate::gateway::status::Status;
use crate::gateway::{Fault, Refusal, reply::Placed};
use crate::limits::{CUT_LINES_INTERVAL, CUT_LINES_MAX};
use crate::store::{LogReader, Provisional, Slice, provisional::Stored};
use crate::types::{
    AckLevel, Epoch, LogId, NodeId, NodeIndex, NodeSet, Patience, Seq, WriteConcern,
};
use crate::wire::Message;
use crate::wire::codec::Hello;

/// What every connection of a node shares.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) role: Role,
    pub(super) limits: Limits,
    /// A secondary that plays faults.
    pub(super) faults: bool,
    pub(super) heartbeat_interval: Duration,
    /// The wire address told to others.
    pub(super) advertise: String,
    pub(super) clock: Clock,
    pub(super) driver: mpsc::Sender<Input>,
    pub(super) log: LogReader,
    /// Entries by hand, on a secondary.
    pub(super) provisional: Mutex<Provisional>,
    pub(super) view: watch::Receiver<View>,
    /// Bytes of appends accepted and not yet in the log.
    pub(super) inflight: Arc<Semaphore>,
    /// Bytes of requests that have not arrived whole.
    pub(super) unfinished: Arc<SharedRoom>,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
    next_connection: AtomicU64,
    /// The log for clients.
    pub(super) reads: ClientReads,
    /// Log lines about clients that were cut.
    pub(super) cut: Throttle,
}

impl Node {
    pub(super) fn new(
        config: &Config,
        advertise: String,
        driver: mpsc::Sender<Input>,
        log: LogReader,
        view: watch::Receiver<View>,
        stop: CancellationToken,
    ) -> Self {
        let metrics = {
            let roster = view.borrow().roster.clone();
            Metrics::new(&config.node.id, config.role, &roster)
        };
        Node {
            id: config.node.id.clone(),
            role: config.role,
            limits: config.limits.clone(),
            faults: config.node.faults && config.role == Role::Secondary,
            heartbeat_interval: config.cluster.heartbeat_interval,
            advertise,
            clock: Clock::start(),
            driver,
            reads: ClientReads::new(log.clone()),
            log,
            provisional: Mutex::default(),
            view,
            inflight: Arc::new(Semaphore::new(
                config.limits.inflight_max.min(Semaphore::MAX_PERMITS),
            )),
            unfinished: SharedRoom::new(),
            metrics,
            stop,
            next_connection: AtomicU64::new(1),
            cut: Throttle::new(CUT_LINES_MAX, CUT_LINES_INTERVAL),
        }
    }

    /// A number for a connection that is used once.
    pub(super) fn connection_number(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn provisional(&self) -> MutexGuard<'_, Provisional> {
        // Held for a few map operations, never across an await.
        self.provisional.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The roster as far as known, the master first.
    pub(super) fn roster(&self) -> Arc<[NodeId]> {
        self.view.borrow().roster.clone()
    }

    /// The master's wire address; empty before first contact.
    pub(super) fn master_addr(&self) -> String {
        match self.role {
            Role::Master => self.advertise.clone(),
            Role::Secondary => self.view.borrow().master_addr.clone(),
        }
    }
}

/// What a driver shows to everybody after each turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// The last entry that this node has without holes.
    pub(super) local: Seq,
    /// The last entry that is stored, as the fsync policy says, with every one before it.
    pub(super) stored: Seq,
    /// Reading in order ends before this entry: it cannot be read, or contradicts the master's log.
    pub(super) hidden_from: Option<Seq>,
    /// From this entry on nothing is served at all: the log contradicts the master's.
    pub(super) unserved_from: Option<Seq>,
    pub(super) levels: Levels,
    pub(super) roster: Arc<[NodeId]>,
    pub(super) master_addr: String,
    /// The history and the epoch of it that this node leads or follows.
    pub(super) history: Option<(LogId, Epoch)>,
    /// Whether this node accepts appends.
    pub(super) accepts: bool,
}

/// All that a driver is told.
pub(super) enum Input {
    Client(ClientInput),
    Peer(PeerEvent),
}

/// What clients' connections say.
pub(super) enum ClientInput {
    /// Replies to this connection go here.
    Opened { connection: u64, replies: mpsc::Sender<Vec<Reply>> },
    /// It is gone.
    Closed { connection: u64 },
    /// Runs of appends in the order sent. The permit is returned once they are in the log.
    Appends { connection: u64, runs: Vec<AppendRun>, permit: OwnedSemaphorePermit },
    /// A wait for an entry.
    Wait { token: Token, seq: Seq, options: RunOptions },
    /// STATUS and HEALTH.
    Status(oneshot::Sender<Status>),
    /// WAITERS: the lines without END, and how many.
    Waiters(oneshot::Sender<(String, usize)>),
    /// METRICS.
    Metrics(oneshot::Sender<String>),
    /// Who holds an entry.
    Holders(Seq, oneshot::Sender<NodeSet>),
    /// A fault verb.
    Fault(Fault, oneshot::Sender<()>),
    /// STORE.
    Store(Seq, Bytes, oneshot::Sender<Stored>),
}

/// How the entries of a run are to be acknowledged; `None`: as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RunOptions {
    pub(super) concern: Option<WriteConcern>,
    pub(super) ack: Option<AckLevel>,
    pub(super) patience: Option<Patience>,
}

/// A run of appends of one connection with the same options.
pub(super) struct AppendRun {
    /// The connection's name for it.
    pub(super) slot: u64,
    pub(super) options: RunOptions,
    pub(super) payloads: Payloads,
}

/// The payloads of a run, in the buffers they were received in.
#[derive(Clone, Debug)]
pub(super) enum Payloads {
    /// All in one buffer, each from and to a byte of it: nothing is allocated for each.
    Framed { buffer: Bytes, spans: Vec<(u32, u32)> },
    /// Lines of the gateway.
    Lines(Vec<Bytes>),
}

impl Payloads {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Payloads::Framed { spans, .. } => spans.len(),
            Payloads::Lines(lines) => lines.len(),
        }
    }

    /// The sum of their lengths.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Payloads::Framed { spans, .. } => spans.iter().map(|(a, b)| (b - a) as usize).sum(),
            Payloads::Lines(lines) => lines.iter().map(Bytes::len).sum(),
        }
    }

    pub(super) fn for_each(&self, mut take: impl FnMut(&[u8])) {
        match self {
            Payloads::Framed { buffer, spans } => {
                spans.iter().for_each(|&(start, end)| take(&buffer[start as usize..end as usize]));
            }
            Payloads::Lines(lines) => lines.iter().for_each(|line| take(line)),
        }
    }
}

/// What becomes of a run, or of a part of it.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) slot: u64,
    /// Place of the first entry answered in the run.
    pub(super) offset: u64,
    /// How many entries are answered.
    pub(super) count: u64,
    pub(super) outcome: Outcome,
}

/// What became of entries.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// In the log; the number is that of the first.
    Placed(Placed),
    /// Nowhere.
    Refused(Refusal),
}

/// What connections between nodes say. On a secondary `peer` is always the master.
pub(super) enum PeerEvent {
    /// A connection attempt ended.
    Dialled { to: NodeIndex, session: SessionId, result: Result<Box<Introduced>, DialError> },
    /// A master introduced itself.
    Accepted(Box<Introduced>),
    /// Frames came.
    Messages { peer: NodeIndex, session: SessionId, messages: Vec<Message> },
    /// The connection ended; with a code if the peer is to be refused for what it sent.
    Closed { peer: NodeIndex, session: SessionId, refuse: Option<RefuseCode>, reason: String },
    /// A socket that was full takes bytes again.
    Writable { peer: NodeIndex, session: SessionId },
    /// What was to be sent to a peer was read from disk.
    Read { peer: NodeIndex, session: SessionId, asked: Asked, slice: Slice },
}

/// A connection whose other side has introduced itself.
pub(super) struct Introduced {
    pub(super) session: SessionId,
    pub(super) hello: Hello,
    pub(super) read: OwnedReadHalf,
    pub(super) write: OwnedWriteHalf,
    /// What was read behind the introduction.
    pub(super) buffer: BytesMut,
}

/// Why a connection attempt failed.
pub(super) enum DialError {
    /// No connection, or no introduction.
    Unreachable(String),
    /// The secondary refused us.
    Refused(crate::wire::codec::Refuse),
}
