//! How a lost connection is made again: when, how often, and where to.
//!
//! The waits are plain: the first one, then twice as long each time, up to the longest, which then
//! repeats. Nothing is random in them, so that what a program does can be told beforehand. Entries
//! that arrive, or an append that is answered, start them anew.

use std::time::{Duration, Instant};

use super::error::ConnectError;
use super::search::Search;
use super::{Client, ConnectOptions, Role};

/// When a lost connection is tried again.
///
/// ```
/// use std::time::Duration;
/// use replog::client::ReconnectPolicy;
///
/// let policy = ReconnectPolicy::default();
/// let waits: Vec<u128> = policy.waits().take(7).map(|wait| wait.as_millis()).collect();
/// assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000]);
/// assert_eq!(policy.give_up_after, None, "it is tried for ever");
///
/// // For a program that would rather fail than wait.
/// let hasty = ReconnectPolicy { give_up_after: Some(Duration::from_secs(5)), ..policy };
/// # assert_ne!(hasty, policy);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// The wait before the first attempt. Each further one is twice as long as the one before.
    pub first_wait: Duration,
    /// The longest wait, which repeats.
    pub longest_wait: Duration,
    /// How long after the loss an attempt that fails is the last; `None` tries for ever.
    pub give_up_after: Option<Duration>,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        ReconnectPolicy {
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(2),
            give_up_after: None,
        }
    }
}

impl ReconnectPolicy {
    /// The waits before the attempts, without end.
    pub fn waits(&self) -> impl Iterator<Item = Duration> + use<> {
        let longest = self.longest_wait;
        let double = move |wait: &Duration| Some(wait.saturating_mul(2).min(longest));
        std::iter::successors(Some(self.first_wait.min(longest)), double)
    }

    /// The wait that follows `wait`.
    pub(super) fn next_wait(&self, wait: Duration) -> Duration {
        wait.saturating_mul(2).min(self.longest_wait)
    }

    /// Whether an attempt that fails so long after the loss was the last.
    pub(super) fn gives_up_after(&self, apart: Duration) -> bool {
        self.give_up_after.is_some_and(|patience| apart >= patience)
    }
}

impl Client {
    /// Connects to the master. With one address, and whenever none of several leads to the master
    /// within [`ConnectOptions::timeout`], it connects to the first that answers: what that node
    /// says of an append (`REJECTED not-master master=…`) is then the answer, and
    /// [`Client::unreached`] names the servers that were no use. With several addresses it goes
    /// where those that answer say the master is, and asks the others beside that.
    ///
    /// ```
    /// use replog::client::{Client, ConnectOptions, Role};
    ///
    /// # replog::testing::example(|servers| async move {
    /// // A secondary first, and the master by what it says.
    /// let addrs = [&servers[1], &servers[2]];
    /// let client = Client::connect_to_master(&addrs, ConnectOptions::default()).await?;
    /// assert_eq!((client.role(), client.node_id()), (Role::Master, "master"));
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// No address answers. Nothing was asked of any node.
    pub async fn connect_to_master<A: AsRef<str>>(
        addrs: &[A],
        options: ConnectOptions,
    ) -> Result<Client, ConnectError> {
        let mut search = Search::begin(addrs, &options);
        let mut first = None;
        while let Some(introduced) = search.next_node().await {
            let node = &introduced.node.hello;
            if addrs.len() == 1 || node.role == Role::Master {
                return Ok(Client::start(introduced, search.end(), &options));
            }
            search.go_to(&node.master_addr);
            first.get_or_insert(introduced);
        }
        match first {
            Some(introduced) => Ok(Client::start(introduced, search.end(), &options)),
            None => Err(ConnectError { attempts: search.end() }),
        }
    }

    /// After a connection was lost: connects to the master again, as often as
    /// [`ConnectOptions::reconnect`] allows. What is then sent is up to the caller, who knows from
    /// [`ConnectionLost::sent`](super::ConnectionLost::sent) and
    /// [`Outcomes::take_unsent`](super::Outcomes::take_unsent) what was not.
    ///
    /// ```
    /// use replog::client::{AppendOptions, Client, ConnectOptions};
    ///
    /// # replog::testing::example(|servers| async move {
    /// let options = ConnectOptions::default();
    /// let mut client = Client::connect_to_master(&servers, options.clone()).await?;
    /// let mut rest: Vec<_> = (1..=100).map(|number| format!("line {number}").into()).collect();
    /// let (mut in_the_log, mut unknown) = (0, 0);
    /// loop {
    ///     let (mut appender, mut outcomes) = client.appender(AppendOptions::default(), 1000);
    ///     let mut entries = rest.drain(..);
    ///     let mut not_taken = Vec::new();
    ///     for entry in entries.by_ref() {
    ///         let entry: bytes::Bytes = entry;
    ///         if appender.push(&entry).await.is_err() {
    ///             not_taken.push(entry);
    ///             break;
    ///         }
    ///     }
    ///     not_taken.extend(entries);
    ///     drop(appender);
    ///     while let Some(answered) = outcomes.next().await {
    ///         match answered.outcome {
    ///             Ok(outcome) if outcome.maybe_applied() => in_the_log += answered.count,
    ///             Ok(refused) => println!("{}", refused.reply_line(client.roster())),
    ///             // Sent, and the answer did not come: sending it again might make it two.
    ///             Err(lost) if lost.sent => unknown += answered.count,
    ///             // Not sent: it comes again.
    ///             Err(_) => {}
    ///         }
    ///     }
    ///     rest = outcomes.take_unsent();
    ///     rest.extend(not_taken);
    ///     if rest.is_empty() {
    ///         break;
    ///     }
    ///     client = Client::reconnect_to_master(&servers, options.clone()).await?;
    /// }
    /// assert_eq!((in_the_log, unknown), (100, 0), "nothing was lost here");
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// No address answered for as long as the policy allows: the reasons of the last attempt.
    pub async fn reconnect_to_master<A: AsRef<str>>(
        addrs: &[A],
        options: ConnectOptions,
    ) -> Result<Client, ConnectError> {
        let policy = options.reconnect;
        let started = Instant::now();
        let mut wait = policy.first_wait.min(policy.longest_wait);
        loop {
            tokio::time::sleep(wait).await;
            wait = policy.next_wait(wait);
            match Client::connect_to_master(addrs, options.clone()).await {
                Err(error) if policy.gives_up_after(started.elapsed()) => return Err(error),
                Err(_) => {}
                Ok(client) => return Ok(client),
            }
        }
    }
}
