//! Following the log across reconnects: every entry once, in order, without a hole.

use std::time::Duration;

use super::entries::{Batch, EntryStream, TailStart};
use super::error::{ConnectError, ConnectionLost, ReadError};
use super::outcome::Refusal;
use super::{Client, ConnectOptions};
use crate::store::RecordError;
use crate::types::{Level, LogId, Seq};

/// The first wait before a new connection is tried, and the longest.
const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A tail that survives its connection: it remembers the number that comes next, connects again,
/// and goes on there.
#[derive(Debug)]
pub struct Follower {
    addrs: Vec<String>,
    options: ConnectOptions,
    level: Level,
    start: TailStart,
    /// The number that comes next; not known before the first batch unless `start` says it.
    next: Option<Seq>,
    /// The history that is followed: numbers mean nothing in another.
    log_id: Option<LogId>,
    state: State,
    pause: Duration,
}

#[derive(Debug)]
enum State {
    Following(EntryStream),
    /// To be connected again after the pause.
    Apart,
}

/// What a follower has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowEvent {
    /// Entries, or, if it is empty, a sign of life.
    Entries(Batch),
    /// The connection is lost and will be made again.
    Lost(ConnectionLost),
    /// Nobody answers; it will be tried again.
    Unreachable(ConnectError),
    /// The node does not serve this now; it will be tried again.
    Refused(Refusal),
    /// Connected again, to the node with this id.
    Resumed(String),
}

/// Why following cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// Nobody answered the first time.
    #[error("no server reachable: {0}")]
    Connect(#[from] ConnectError),
    /// The node does not serve this, and never will.
    #[error("{0}")]
    Refused(Refusal),
    /// The entries are damaged, or not those that come next.
    #[error("bad entries: {0}")]
    BadRecord(#[from] RecordError),
    /// The node that was reached holds another history.
    #[error("node {node} holds another log (log_id={found}) than the one followed ({followed})")]
    OtherLog {
        /// Its id.
        node: String,
        /// What was followed so far.
        followed: LogId,
        /// What it holds.
        found: LogId,
    },
}

impl Follower {
    /// Connects to the first of `addrs` that answers and follows from `start` on.
    ///
    /// # Errors
    /// None answers.
    pub async fn start<A: Into<String>>(
        addrs: impl IntoIterator<Item = A>,
        options: ConnectOptions,
        start: TailStart,
        level: Level,
    ) -> Result<Follower, FollowError> {
        let next = match start {
            TailStart::From(seq) => Some(seq.max(Seq::FIRST)),
            TailStart::New | TailStart::Last(_) => None,
        };
        let addrs = addrs.into_iter().map(Into::into).collect();
        let (state, pause) = (State::Apart, RECONNECT_PAUSES.0);
        let mut follower =
            Follower { addrs, options, level, start, next, log_id: None, state, pause };
        let client = Client::connect(&follower.addrs, follower.options.clone()).await?;
        follower.follow(&client).await?;
        Ok(follower)
    }

    /// The number of the next entry, once it is known.
    pub fn next_seq(&self) -> Option<Seq> {
        self.next
    }

    /// What happens next. Cancel safe.
    ///
    /// # Errors
    /// Following cannot go on.
    pub async fn next_event(&mut self) -> Result<FollowEvent, FollowError> {
        loop {
            let State::Following(stream) = &mut self.state else {
                return self.reconnect().await;
            };
            match stream.next_batch().await {
                Ok(Some(batch)) => {
                    self.advance(&batch)?;
                    return Ok(FollowEvent::Entries(batch));
                }
                // A tail has no end unless somebody asked for it: the node is about to stop.
                Ok(None) => self.state = State::Apart,
                Err(ReadError::Lost(lost)) => {
                    self.state = State::Apart;
                    return Ok(FollowEvent::Lost(lost));
                }
                Err(ReadError::Refused(refusal)) if refusal.is_retryable() => {
                    self.state = State::Apart;
                    return Ok(FollowEvent::Refused(refusal));
                }
                Err(ReadError::Refused(refusal)) => return Err(FollowError::Refused(refusal)),
                Err(ReadError::BadRecord(error)) => return Err(error.into()),
            }
        }
    }

    async fn reconnect(&mut self) -> Result<FollowEvent, FollowError> {
        tokio::time::sleep(self.pause).await;
        // Doubled before it is known to be needed: only entries prove that all is well again.
        self.pause = (self.pause * 2).min(RECONNECT_PAUSES.1);
        match Client::connect(&self.addrs, self.options.clone()).await {
            Ok(client) => {
                self.follow(&client).await?;
                Ok(FollowEvent::Resumed(client.node_id().to_owned()))
            }
            Err(error) => Ok(FollowEvent::Unreachable(error)),
        }
    }

    async fn follow(&mut self, client: &Client) -> Result<(), FollowError> {
        if let Some(found) = client.log_id() {
            let followed = *self.log_id.get_or_insert(found);
            if followed != found {
                let node = client.node_id().to_owned();
                return Err(FollowError::OtherLog { node, followed, found });
            }
        }
        let start = self.next.map_or(self.start, TailStart::From);
        // A connection lost so early is found out at the next turn.
        self.state = match client.tail(start, self.level).await {
            Ok(stream) => State::Following(stream),
            Err(_) => State::Apart,
        };
        Ok(())
    }

    fn advance(&mut self, batch: &Batch) -> Result<(), FollowError> {
        self.pause = RECONNECT_PAUSES.0;
        if batch.is_empty() {
            // Before the first entry this is where the entries that will come begin; later it may
            // lag behind what another node has shown.
            self.next.get_or_insert(batch.next());
            return Ok(());
        }
        let found = batch.range().first;
        let expected = self.next.unwrap_or(found);
        if found != expected {
            return Err(RecordError::BadSeq { expected, found }.into());
        }
        self.next = Some(batch.range().end);
        Ok(())
    }
}
