//! What connections and drivers say to one another, and what they share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::metrics::Metrics;
use super::reads::ClientReads;
use super::room::SharedRoom;
use super::throttle::Throttle;
use crate::codes::RefuseCode;
use crate::config::{Config, Role};
use crate::engine::{SessionId, Token};
use crate::gateway::Fault;
use crate::gateway::status::Status;
use crate::limits::{CUT_LINES_INTERVAL, CUT_LINES_MAX};
use crate::node::client::{AppendRun, Reply};
use crate::node::master::DialFailure;
use crate::node::reads::Asked;
use crate::node::session::{Sight, Site};
use crate::node::{About, View};
use crate::store::provisional::{SharedProvisional, Stored};
use crate::store::{LogReader, Slice};
use crate::types::{NodeIndex, NodeSet, Seq, WaitOptions};
use crate::wire::Message;
use crate::wire::codec::Hello;

/// What every connection of a node shares.
pub(super) struct Node {
    /// What its sessions share.
    pub(super) site: Site,
    pub(super) clock: Clock,
    pub(super) driver: mpsc::Sender<Input>,
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
        about: About,
        driver: mpsc::Sender<Input>,
        (log, provisional): (LogReader, SharedProvisional),
        view: watch::Receiver<View>,
        stop: CancellationToken,
    ) -> Self {
        let metrics = {
            let roster = view.borrow().roster.clone();
            Metrics::new(&config.node.id, config.role, &roster)
        };
        Node {
            clock: Clock::start(),
            driver,
            reads: ClientReads::new(log.clone()),
            site: Site {
                about,
                role: config.role,
                limits: config.limits.clone(),
                faults: config.node.faults && config.role == Role::Secondary,
                heartbeat_interval: config.cluster.heartbeat_interval,
                log,
                provisional,
            },
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

    /// Calls a session with what it sees now.
    pub(super) fn with_sight<T>(&self, call: impl FnOnce(Sight<'_>) -> T) -> T {
        let view = self.view.borrow();
        call(Sight { now: self.clock.now(), site: &self.site, view: &view })
    }
}

/// All that a driver is told.
pub(super) enum Input {
    Client(ClientInput),
    Peer(PeerEvent),
    /// No more requests come: who waits is answered with what is known.
    Stop,
    /// The connections are gone.
    End,
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
    Wait { token: Token, seq: Seq, options: WaitOptions },
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

/// What connections between nodes say.
pub(super) enum PeerEvent {
    /// A connection attempt ended.
    Dialled { to: NodeIndex, session: SessionId, result: Result<Box<Introduced>, DialFailure> },
    /// A master introduced itself.
    Accepted(Box<Introduced>),
    /// Frames came.
    Messages { session: SessionId, messages: Vec<Message> },
    /// The connection ended; with a code if the peer is to be refused for what it sent.
    Closed { session: SessionId, refuse: Option<RefuseCode>, reason: String },
    /// A socket that was full takes bytes again.
    Writable { session: SessionId },
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
