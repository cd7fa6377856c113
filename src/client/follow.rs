//! Following the log across reconnects: every entry once, in order, without a hole, and never a mix
//! of two logs.

use std::time::Duration;

use tokio::time::Instant;

use super::entries::{Batch, EntryStream, TailStart};
use super::error::{CommandError, ConnectError, ConnectionLost, ReadError};
use super::outcome::Refusal;
use super::{Client, ConnectOptions};
use crate::store::{RecordError, Run};
use crate::types::{Level, LogId, PrefixId, Seq};

/// Beyond the end of every log: a read there tells at once where the log ends.
const BEYOND: Seq = Seq::new(1 << 62);

/// A tail that survives its connection. It remembers the number that comes next and the digest of
/// the last entry, connects again, and goes on there: at the first address that answers, as often as
/// [`ConnectOptions::reconnect`] says. A node that says nothing for
/// [`ConnectOptions::silent_after`], because it is frozen or its machine is gone, is left like one
/// that closed, and is then tried last. A node that lost its entries is waited for until it has them
/// again. A node with another log ends the following.
///
/// ```
/// use replog::client::{
///     AppendOptions, Client, ConnectOptions, FollowEvent, Follower, TailStart,
/// };
/// use replog::types::{Level, Seq};
///
/// # replog::testing::example(|servers| async move {
/// # let client = Client::connect([&servers[0]], ConnectOptions::default()).await?;
/// for number in 1..=3 {
///     let _ = client.append(format!("line {number}").into(), AppendOptions::default()).await?.await?;
/// }
/// let start = TailStart::From(Seq::FIRST);
/// let mut follower =
///     Follower::start(servers, ConnectOptions::default(), start, Level::Committed).await?;
/// let mut payloads = Vec::new();
/// while payloads.len() < 3 {
///     match follower.next_event().await? {
///         FollowEvent::Entries(batch) => {
///             for record in batch.records() {
///                 payloads.push(record?.payload);
///             }
///         }
///         // Worth a word to a person; it goes on by itself.
///         trouble => eprintln!("{trouble:?}"),
///     }
/// }
/// assert_eq!(payloads, ["line 1", "line 2", "line 3"]);
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Follower {
    addrs: Vec<String>,
    options: ConnectOptions,
    level: Level,
    start: TailStart,
    /// The number that comes next; known as soon as a node has told where its log ends.
    next: Option<Seq>,
    /// Epoch and chain digest of the entry before `next`, if that was given out.
    before: Option<PrefixId>,
    /// The history that is followed: numbers mean nothing in another.
    log_id: Option<LogId>,
    state: State,
    /// What came and was not given out yet.
    pending: Option<Batch>,
    /// The wait before the next attempt to connect, and when it ends once it has begun.
    wait: Duration,
    due: Option<Instant>,
    /// Since when nothing came.
    apart_since: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Following(Following),
    /// To be connected again after the wait.
    Apart,
}

/// How an attempt to follow a node ended.
#[derive(Debug)]
enum Begun {
    Following,
    /// It does not serve this now.
    Refused(Refusal),
    /// The connection was lost at once.
    Lost(ConnectionLost),
}

#[derive(Debug)]
struct Following {
    client: Client,
    stream: EntryStream,
    /// Whether the node is known to hold the log that is followed. An empty one does not know yet.
    confirmed: bool,
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
    /// Nobody answered the first time, or for as long as the policy allows.
    #[error("no server reachable: {0}")]
    Connect(#[from] ConnectError),
    /// The node does not serve this, and never will.
    #[error("{0}")]
    Refused(Refusal),
    /// The entries are damaged, or not those that come next.
    #[error("bad entries: {0}")]
    BadRecord(#[from] RecordError),
    /// The node that was reached does not hold what was followed.
    #[error("node {node} holds another entry {seq} than the one that continues what was followed")]
    OtherEntries {
        /// Its id.
        node: String,
        /// The first entry that does not belong to what was given out.
        seq: Seq,
    },
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
        let mut follower = Follower {
            addrs: addrs.into_iter().map(Into::into).collect(),
            level,
            start,
            next,
            before: None,
            log_id: None,
            state: State::Apart,
            pending: None,
            wait: options.reconnect.first_wait,
            due: None,
            apart_since: None,
            options,
        };
        let client = Client::connect(&follower.addrs, follower.options.clone()).await?;
        // What may pass is for the events to tell.
        let _ = follower.follow(client).await?;
        Ok(follower)
    }

    /// The number of the next entry, once it is known.
    pub fn next_seq(&self) -> Option<Seq> {
        self.next
    }

    /// The connection on which it follows now.
    pub fn client(&self) -> Option<&Client> {
        match &self.state {
            State::Following(following) => Some(&following.client),
            State::Apart => None,
        }
    }

    /// What happens next. Cancel safe.
    ///
    /// # Errors
    /// Following cannot go on.
    pub async fn next_event(&mut self) -> Result<FollowEvent, FollowError> {
        loop {
            let State::Following(following) = &mut self.state else {
                return self.reconnect().await;
            };
            if self.pending.is_some() {
                if let Some(trouble) = self.confirm_log().await? {
                    return Ok(trouble);
                }
                // Nothing is awaited from here on, so that nothing that came is lost.
                if let Some(batch) = self.pending.take() {
                    self.advance(&batch)?;
                    return Ok(FollowEvent::Entries(batch));
                }
                continue;
            }
            match following.stream.next_batch().await {
                Ok(Some(batch)) => self.pending = Some(batch),
                // A tail has no end unless somebody asked for it: the node is about to stop.
                Ok(None) => self.part(),
                Err(ReadError::Lost(lost)) => {
                    let addr = following.client.addr().to_owned();
                    self.leave(&addr, &lost);
                    return Ok(FollowEvent::Lost(lost));
                }
                Err(ReadError::Refused(refusal)) if refusal.is_retryable() => {
                    self.part();
                    return Ok(FollowEvent::Refused(refusal));
                }
                Err(ReadError::Refused(refusal)) => return Err(FollowError::Refused(refusal)),
                Err(ReadError::BadRecord(error)) => return Err(error.into()),
            }
        }
    }

    /// The connection is no good any more.
    fn part(&mut self) {
        self.state = State::Apart;
        self.pending = None;
        self.apart_since.get_or_insert_with(Instant::now);
    }

    /// The connection to the server `addr` is lost. One that is silent is tried last from now on: it
    /// would cost the same time again and again.
    fn leave(&mut self, addr: &str, lost: &ConnectionLost) {
        self.part();
        if lost.reason.is_silence() {
            // Stable: the others stay in their order.
            self.addrs.sort_by_key(|known| known == addr);
        }
    }

    async fn reconnect(&mut self) -> Result<FollowEvent, FollowError> {
        let due = *self.due.get_or_insert_with(|| Instant::now() + self.wait);
        tokio::time::sleep_until(due).await;
        let connected = Client::connect(&self.addrs, self.options.clone()).await;
        let followed = match connected {
            Ok(client) => {
                let node = client.node_id().to_owned();
                match self.follow(client).await? {
                    Begun::Following => FollowEvent::Resumed(node),
                    Begun::Refused(refusal) => FollowEvent::Refused(refusal),
                    Begun::Lost(lost) => FollowEvent::Lost(lost),
                }
            }
            Err(error) => {
                let apart = self.apart_since.map_or(Duration::ZERO, |since| since.elapsed());
                if self.options.reconnect.gives_up_after(apart) {
                    return Err(error.into());
                }
                FollowEvent::Unreachable(error)
            }
        };
        // Longer each time: only what arrives proves that all is well again.
        self.wait = self.options.reconnect.next_wait(self.wait);
        self.due = None;
        Ok(followed)
    }

    /// Begins where it is to go on. Returns why not, if that may pass.
    async fn follow(&mut self, client: Client) -> Result<Begun, FollowError> {
        if let Some(found) = client.log_id() {
            self.judge_log(client.node_id(), found)?;
        }
        let confirmed = client.log_id().is_some();
        let begun = async {
            let next = match self.next {
                Some(next) => next,
                None => self.first(&client).await?,
            };
            let stream = client.tail(TailStart::From(next), self.level).await?;
            Ok((next, stream))
        };
        match begun.await {
            Ok((next, stream)) => {
                self.next = Some(next);
                self.state = State::Following(Following { client, stream, confirmed });
                Ok(Begun::Following)
            }
            Err(ReadError::Lost(lost)) => {
                self.leave(client.addr(), &lost);
                Ok(Begun::Lost(lost))
            }
            Err(ReadError::Refused(refusal)) if refusal.is_retryable() => {
                self.part();
                Ok(Begun::Refused(refusal))
            }
            Err(ReadError::Refused(refusal)) => Err(FollowError::Refused(refusal)),
            Err(ReadError::BadRecord(error)) => Err(error.into()),
        }
    }

    /// Where to begin, from where the log ends now: a connection that is lost before the first entry
    /// must not move the beginning.
    async fn first(&self, client: &Client) -> Result<Seq, ReadError> {
        let end = end_of_log(client, self.level).await?;
        Ok(match self.start {
            TailStart::From(seq) => seq,
            TailStart::New => end,
            TailStart::Last(count) => Seq::new(end.number().saturating_sub(count)),
        }
        .max(Seq::FIRST))
    }

    fn judge_log(&mut self, node: &str, found: LogId) -> Result<(), FollowError> {
        let followed = *self.log_id.get_or_insert(found);
        if followed == found {
            return Ok(());
        }
        Err(FollowError::OtherLog { node: node.to_owned(), followed, found })
    }

    /// Asks a node that had no log when it introduced itself which one it holds by now. Returns what
    /// came in between, if anything did.
    async fn confirm_log(&mut self) -> Result<Option<FollowEvent>, FollowError> {
        let State::Following(Following { client, confirmed: false, .. }) = &self.state else {
            return Ok(None);
        };
        let client = client.clone();
        match client.command("STATUS").await {
            Ok(status) => {
                if let Some(found) = log_id_in(&String::from_utf8_lossy(&status)) {
                    self.judge_log(client.node_id(), found)?;
                    if let State::Following(following) = &mut self.state {
                        following.confirmed = true;
                    }
                }
                Ok(None)
            }
            Err(CommandError::Lost(lost)) => {
                self.leave(client.addr(), &lost);
                Ok(Some(FollowEvent::Lost(lost)))
            }
            // A reply that is no status tells nothing.
            Err(_) => Ok(None),
        }
    }

    fn advance(&mut self, batch: &Batch) -> Result<(), FollowError> {
        self.wait = self.options.reconnect.first_wait;
        self.apart_since = None;
        if batch.is_empty() {
            return Ok(());
        }
        let found = batch.range().first;
        let expected = self.next.unwrap_or(found);
        if found != expected {
            return Err(RecordError::BadSeq { expected, found }.into());
        }
        self.before = Some(self.check_chain(batch)?);
        self.next = Some(batch.range().end);
        Ok(())
    }

    /// Checks that the entries continue each other and what was given out before them.
    fn check_chain(&self, batch: &Batch) -> Result<PrefixId, FollowError> {
        let range = batch.range();
        let mut records = batch.records();
        let (before, rest) = match self.before {
            Some(before) => (before, batch.bytes()),
            None => {
                // Nothing was given out that the first could contradict.
                let first = records.next().transpose()?;
                let first =
                    first.ok_or(RecordError::BadCount { expected: range.len(), found: 0 })?;
                (PrefixId { epoch: first.epoch, digest: first.digest }, records.bytes())
            }
        };
        let first = if self.before.is_some() { range.first } else { range.first.next() };
        if first == range.end {
            return Ok(before);
        }
        match Run::verify(rest, first, range.end.distance_from(first), before) {
            Ok(run) => Ok(run.tail()),
            Err(RecordError::BadDigest(seq) | RecordError::BadEpoch(seq))
                if seq == range.first && self.before.is_some() =>
            {
                let node = match &self.state {
                    State::Following(following) => following.client.node_id().to_owned(),
                    State::Apart => "-".to_owned(),
                };
                Err(FollowError::OtherEntries { node, seq })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The number after the last entry that the node shows at `level`.
pub(crate) async fn end_of_log(client: &Client, level: Level) -> Result<Seq, ReadError> {
    let mut entries = client.read(BEYOND, Some(1), level).await?;
    let mut next = Seq::FIRST;
    while let Some(batch) = entries.next_batch().await? {
        next = batch.next();
    }
    Ok(next)
}

/// The value of `log_id=` in a STATUS, unless it is `-`.
fn log_id_in(status: &str) -> Option<LogId> {
    let text = status.split([' ', '\n']).find_map(|word| word.strip_prefix("log_id="))?;
    let mut bytes = [0; 16];
    if text.len() != 2 * bytes.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(LogId::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_status_is_found() {
        let log_id = LogId::new([0xa7; 16]);
        let status = format!("node id=s1 next=3 log_id={log_id} store=memory\nEND\n");
        assert_eq!(log_id_in(&status), Some(log_id));
        assert_eq!(log_id_in("node id=s1 next=1 log_id=- store=memory\nEND\n"), None);
        assert_eq!(log_id_in("ERR unknown-verb"), None);
    }
}
