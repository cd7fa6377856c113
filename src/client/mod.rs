//! The asynchronous client of the wire protocol: what `replog-cli` is made of, for everybody.
//!
//! A [`Client`] is a cheap handle to one connection; requests of all its clones share it and are
//! pipelined. Every answer and every error tells whether something happened: see
//! [`AppendOutcome`], [`ConnectionLost`] and [`ConnectError`].
//!
//! ```
//! use replog::client::{AppendOptions, AppendOutcome, Client, ConnectOptions};
//! use replog::types::{Level, Seq};
//!
//! # replog::testing::example(|servers| async move {
//! // servers: addresses of nodes, such as "127.0.0.1:9000".
//! let client = Client::connect_to_master(&servers, ConnectOptions::default()).await?;
//!
//! // One entry that two nodes must hold.
//! let options = AppendOptions { concern: Some("2".parse()?), ..AppendOptions::default() };
//! match client.append("hello".into(), options).await?.await? {
//!     AppendOutcome::Ok(placed) => println!("entry {}", placed.seq),
//!     outcome => println!("{}", outcome.reply_line(client.roster())),
//! }
//!
//! // All that the node holds.
//! let mut entries = client.read(Seq::FIRST, None, Level::Local).await?;
//! while let Some(batch) = entries.next_batch().await? {
//!     for record in batch.records() {
//!         let record = record?;
//!         println!("{} {:?}", record.seq, record.payload);
//!     }
//! }
//! # Ok(())
//! # });
//! ```
//!
//! # What is where
//!
//! | to | use |
//! |---|---|
//! | append one entry, with any write concern | [`Client::append`] |
//! | append many, pipelined, answers in order | [`Client::appender`] |
//! | go on after a lost connection | [`Client::reconnect_to_master`], [`ReconnectPolicy`] |
//! | wait for an entry that is in the log | [`Client::wait`] |
//! | read, or read as entries come | [`Client::read`], [`Client::tail`] |
//! | follow the log across reconnects and restarts | [`Follower`] |
//! | ask anything that the text gateway answers: STATUS, HEALTH, DIGEST … | [`Client::command`] |
//!
//! # When a connection is lost
//!
//! A [`Client`] is one connection and does not connect again by itself: what was sent and not
//! answered may be in the log, and only its owner can tell what to do about that. Whoever has an
//! answer that is an error finds `sent` in it. [`Client::reconnect_to_master`] and [`Follower`]
//! connect again as [`ConnectOptions::reconnect`] says: by default after 100 ms, 200 ms and so on
//! up to every 2 s, for ever.
//!
//! # When a node says nothing
//!
//! A process that is frozen keeps its connections, and a machine that is gone says no word about it.
//! So nothing here waits for ever, but for what nobody else could answer:
//!
//! | what | for how long | then |
//! |---|---|---|
//! | connecting: all servers, all addresses of their names | [`ConnectOptions::timeout`], 5 s | [`ConnectError`] names each with its reason; nothing was asked |
//! | a read, a tail, a command, a wait | [`ConnectOptions::silent_after`], 5 s, without any byte of the node, which is asked with a PING after 2 s | [`ConnectionLost`] with `sent` and [`LostReason::Silent`]: what changes nothing may be asked again, elsewhere; a [`Follower`] does so by itself |
//! | an append or a wait with a timeout | that and [`ANSWER_MARGIN`](crate::limits::ANSWER_MARGIN), 2 s, after it was sent | [`ConnectionLost`] with `sent` and [`LostReason::Overdue`]: the entry may be in the log |
//! | an append without one that was sent | for ever, or until the connection ends: a minute after the node's machine stopped acknowledging bytes | [`Client::silence`] tells for whom it waits |
//! | an idle connection | some 60 s without an answer to the kernel's own questions | [`Client::lost`] |
//!
//! A node that answers PINGs is not silent, however long it takes for the rest. A tail whose entries
//! nobody takes is not read, and no silence of the node.
//!
//! Rooms: `introduce` dials and exchanges HELLOs; `connection` is the task that owns the socket;
//! `silence` watches for signs of life, `search` tries several servers;
//! `outbox` packs what waits to be written, `requests` knows who waits for which answer; `append`
//! (with `options`, `order` and `outcome`), `entries`, `command`, `follow` and `reconnect` are what users see.

mod append;
mod command;
mod connection;
mod entries;
mod error;
mod follow;
mod introduce;
mod options;
mod order;
mod outbox;
mod outcome;
mod reconnect;
mod requests;
mod search;
mod silence;

#[cfg(test)]
pub(crate) mod fake_node;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::limits::{INTRODUCTION_TIMEOUT, SILENT_AFTER};
use crate::types::{LogId, NodeId};

pub use crate::types::WaitOptions;
pub use crate::wire::codec::Role;
pub use append::{AppendHandle, Appender, Outcomes};
pub use command::{COMMAND_REPLY_BYTES_MAX, CommandReply};
pub use entries::{Batch, EntryStream, Records, TailStart};
pub use error::{
    CommandError, ConnectError, ConnectFailure, ConnectionLost, LostReason, ReadError,
    RefusedByNode,
};
#[cfg(feature = "cli")]
pub(crate) use follow::end_of_log;
pub use follow::{FollowError, FollowEvent, Follower};
pub use options::{AppendOptions, Producer};
pub use order::Answered;
pub use outcome::{AppendOutcome, Placed, Refusal, ReplyLine};
pub use reconnect::ReconnectPolicy;
pub use silence::Silence;

use connection::Shared;
use introduce::{Failures, Introduced, Node};
use search::Search;

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// How the client calls itself in the node's log: up to 64 bytes, may be empty.
    pub name: String,
    /// How long connecting may take, from the first look-up to the introduction. All servers, and
    /// all addresses of their names, share it: the next address of a name is tried after 250 ms, the
    /// next server after a second, both at once when the one before fails.
    pub timeout: Duration,
    /// How long a node that owes an answer may say nothing at all, a PING unanswered, before it is
    /// called silent: see [`LostReason::Silent`] and [`Client::silence`]. Taken as 100 ms if it is
    /// less, and as a year if it is more.
    pub silent_after: Duration,
    /// When a lost connection is tried again, where that is done at all.
    pub reconnect: ReconnectPolicy,
    /// This connection will only look at how the node is: commands `STATUS`, `HEALTH`, `WAITERS`, `METRICS`,
    /// `DIGEST`, `GET`. A node that has no place for other clients still has one for these; anything
    /// else is then answered `REJECTED busy`.
    pub only_looks: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            name: String::new(),
            timeout: INTRODUCTION_TIMEOUT,
            silent_after: SILENT_AFTER,
            reconnect: ReconnectPolicy::default(),
            only_looks: false,
        }
    }
}

/// A connection to a node. Clones share it; it is closed when the last of them and of the
/// handles and streams made from them is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    node: Node,
    unreached: Failures,
    /// The task that owns the socket ends with the last handle: whoever waits holds one.
    task: AbortOnDropHandle<()>,
}

impl Client {
    /// Connects to the first of `addrs` (`host:port`) that introduces itself as a node. A server that
    /// fails, or is slow, is not waited for: see [`ConnectOptions::timeout`]. Must be called in a
    /// tokio runtime.
    ///
    /// # Errors
    /// None does; tells why for each. Nothing was asked of any node.
    pub async fn connect<A: AsRef<str>>(
        addrs: impl IntoIterator<Item = A>,
        options: ConnectOptions,
    ) -> Result<Client, ConnectError> {
        let mut search = Search::begin(addrs, &options);
        match search.next_node().await {
            Some(introduced) => Ok(Client::start(introduced, search.end(), &options)),
            None => Err(ConnectError { attempts: search.end() }),
        }
    }

    fn start(introduced: Introduced, unreached: Failures, options: &ConnectOptions) -> Client {
        let Introduced { stream, buffer, node } = introduced;
        let shared = Arc::new(Shared::new(node.frame_bytes_max(), options.silent_after));
        let (reader, writer) = stream.into_split();
        let task = tokio::spawn(connection::run(shared.clone(), reader, writer, buffer));
        let task = AbortOnDropHandle::new(task);
        Client { inner: Arc::new(Inner { shared, node, unreached, task }) }
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn frame_bytes_max(&self) -> usize {
        self.inner.node.frame_bytes_max()
    }

    /// The address that answered, as it was given.
    pub fn addr(&self) -> &str {
        &self.inner.node.addr
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        &self.inner.node.hello.node_id
    }

    /// Whether the node is the master or a secondary.
    pub fn role(&self) -> Role {
        self.inner.node.hello.role
    }

    /// The nodes of the cluster, master first, as far as the node knew them when it introduced
    /// itself.
    pub fn roster(&self) -> &[NodeId] {
        &self.inner.node.roster
    }

    /// The master's wire address, if the node knew it when it introduced itself.
    pub fn master_addr(&self) -> Option<&str> {
        let addr = self.inner.node.hello.master_addr.as_str();
        (!addr.is_empty()).then_some(addr)
    }

    /// The identity of the history that the node held when it introduced itself.
    pub fn log_id(&self) -> Option<LogId> {
        self.inner.node.log_id()
    }

    /// Largest payload, in bytes, that the node takes in an append.
    pub fn payload_max(&self) -> usize {
        self.inner.node.hello.payload_bytes_max as usize
    }

    /// The servers that were tried on the way to this one, with the reason why each did not do.
    /// Nothing was asked of them.
    pub fn unreached(&self) -> &[(String, ConnectFailure)] {
        &self.inner.unreached
    }

    /// Tells when the node falls silent while it owes an answer, and when it speaks again.
    pub fn silence(&self) -> Silence {
        Silence::of(&self.shared().silence)
    }

    /// Ends the connection now, for all who share it: what waits for an answer learns that it is
    /// lost, and whether it had been sent. What was sent is carried out all the same.
    pub fn close(&self) {
        self.inner.task.abort();
    }

    /// Why the connection ended, if it did.
    pub fn lost(&self) -> Option<LostReason> {
        self.shared().lost()
    }
}
