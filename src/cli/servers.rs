//! The servers that were given, and what is said and done about those that are no use.
//!
//! What changes nothing is asked again when a node falls silent, at the next server or at the same
//! one. What may have changed something never is.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Exit, complain, connect_options, unreachable};
use crate::client::{
    Client, ConnectError, ConnectFailure, ConnectOptions, ConnectionLost, ReconnectPolicy, Role,
    Silence,
};
use crate::limits::ANSWER_MARGIN;
use crate::types::Timeout;

/// How often it is said again that a node is silent, or cannot be reached.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Servers in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Servers {
    addrs: Vec<String>,
    /// How often a silent node may still be left for another.
    left: usize,
    /// Something was sent already.
    sent: bool,
    /// How long connecting may take.
    patience: Duration,
    /// How long all of it may take, and until when that is.
    limit: Option<(Duration, Instant)>,
    /// All that is asked is how a node is.
    only_looks: bool,
}

impl Servers {
    pub(super) fn new(addrs: &[String]) -> Servers {
        let patience = connect_options().timeout;
        // Each is asked once, and one alone twice: it may have come back.
        Servers {
            addrs: addrs.to_vec(),
            left: addrs.len().max(2) - 1,
            sent: false,
            patience,
            limit: None,
            only_looks: false,
        }
    }

    /// For a request with this timeout, which is ours too: connecting counts.
    pub(super) fn within(mut self, limit: Option<Duration>) -> Servers {
        self.patience = limit.map_or(self.patience, |limit| limit.min(self.patience));
        self.limit = limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
        self
    }

    /// What becomes of an `exchange` with a node.
    ///
    /// # Errors
    /// It is not over when the time is, which was so long.
    pub(super) async fn in_time<T>(
        &self,
        exchange: impl Future<Output = T>,
    ) -> Result<T, Duration> {
        match self.limit {
            Some((limit, deadline)) => timeout_at(deadline, exchange).await.map_err(|_| limit),
            None => Ok(exchange.await),
        }
    }

    /// Connecting keeps the time by itself, so that it ends with a word on each server.
    fn options(&self) -> ConnectOptions {
        let left = self.limit.map(|(_, deadline)| deadline.duration_since(Instant::now()));
        let timeout = left.map_or(self.patience, |left| left.min(self.patience));
        let only_looks = self.only_looks;
        ConnectOptions { timeout, only_looks, ..connect_options() }
    }

    /// For a request that only asks how a node is.
    pub(super) fn looking(mut self, only_looks: bool) -> Servers {
        self.only_looks = only_looks;
        self
    }

    /// Connects to the first that answers.
    pub(super) async fn connect(&mut self) -> Result<Client, ConnectError> {
        let options = self.options();
        let client = Client::connect(&self.addrs, options).await?;
        self.sent = true;
        say_who_was_slow(&client);
        Ok(client)
    }

    /// Connects to the master, if there is a choice; with one server, what it says is what the user
    /// sees.
    pub(super) async fn connect_to_master(&mut self) -> Result<Client, ConnectError> {
        let options = self.options();
        let client = Client::connect_to_master(&self.addrs, options).await?;
        self.sent = true;
        self.say_who_was_no_use(&client);
        Ok(client)
    }

    /// Connects to the master again, as often as `policy` says.
    pub(super) async fn reconnect_to_master(
        &self,
        reconnect: ReconnectPolicy,
    ) -> Result<Client, ConnectError> {
        let timeout = self.patience;
        let options = ConnectOptions { timeout, reconnect, ..connect_options() };
        let client = Client::reconnect_to_master(&self.addrs, options).await?;
        self.say_who_was_no_use(&client);
        Ok(client)
    }

    /// If the master was wanted and is not there, every server that was tried matters.
    fn say_who_was_no_use(&self, client: &Client) {
        if self.addrs.len() > 1 && client.role() != Role::Master {
            client
                .unreached()
                .iter()
                .for_each(|(addr, why)| complain(format_args!("{addr}: {why}")));
            let (node, addr) = (client.node_id(), client.addr());
            complain(format_args!("the master was not found; {node} ({addr}) is asked"));
        } else {
            say_who_was_slow(client);
        }
    }

    /// The node of this connection is tried last from now on.
    pub(super) fn put_last(&mut self, client: &Client) {
        // Stable: the others stay in their order.
        self.addrs.sort_by_key(|addr| addr == client.addr());
    }

    /// Whether what was asked, and changes nothing, is to be asked again after the connection ended
    /// so: says where.
    pub(super) fn go_on_after(&mut self, client: &Client, lost: &ConnectionLost) -> bool {
        if !lost.reason.is_silence() || self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.put_last(client);
        let (node, addr, why) = (client.node_id(), client.addr(), &lost.reason);
        match self.addrs.first() {
            Some(next) if next != addr => {
                complain(format_args!("{addr} ({node}): {why}; asking {next}"));
            }
            _ => complain(format_args!("{addr} ({node}): {why}; connecting again")),
        }
        true
    }

    /// The end when nobody can be connected to.
    pub(super) fn unreachable(&self, error: &ConnectError) -> Exit {
        if !self.sent {
            return unreachable(error);
        }
        complain(format_args!("connection lost, and no server reachable: {error}"));
        Exit::Unknown
    }
}

/// How long a request with this timeout may take altogether; `None` if it has no end.
pub(super) fn limit_of(timeout: Option<Timeout>) -> Option<Duration> {
    match timeout {
        Some(Timeout::For(timeout)) => timeout.checked_add(ANSWER_MARGIN),
        Some(Timeout::Forever) | None => None,
    }
}

/// A server that failed at once costs nothing and is not worth a word while there is another.
pub(super) fn say_who_was_slow(client: &Client) {
    let slow = client.unreached().iter().filter(|(_, why)| {
        matches!(why, ConnectFailure::NotIntroduced(_) | ConnectFailure::Overtaken(_))
    });
    for (addr, why) in slow {
        let (node, next) = (client.node_id(), client.addr());
        complain(format_args!("{addr}: {why}; going on with {node} ({next})"));
    }
}

/// Tells of a node's silence while appends wait for it: when it begins, now and then, and when it is
/// over.
#[derive(Debug)]
pub(super) struct SilenceNotes {
    silence: Silence,
    /// The node, as people know it.
    node: String,
    since: Option<Instant>,
    again: Instant,
}

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SilenceNote {
    node: String,
    lasting: Duration,
    over: bool,
}

impl SilenceNotes {
    pub(super) fn of(client: &Client) -> SilenceNotes {
        let node = format!("{} ({})", client.addr(), client.node_id());
        SilenceNotes { silence: client.silence(), node, since: None, again: Instant::now() }
    }

    /// The next thing to say. Cancel safe.
    pub(super) async fn next(&mut self) -> SilenceNote {
        loop {
            tokio::select! {
                lasting = self.silence.changed() => match (lasting, self.since) {
                    (Some(lasting), None) => {
                        let now = Instant::now();
                        self.since = now.checked_sub(lasting).or(Some(now));
                        return self.note(false);
                    }
                    (None, Some(_)) => {
                        let note = self.note(true);
                        self.since = None;
                        return note;
                    }
                    _ => {}
                },
                () = sleep_until(self.again), if self.since.is_some() => return self.note(false),
            }
        }
    }

    /// What is left to say when all answers have come: they may be quicker than the news.
    pub(super) fn last(mut self, client: &Client) -> Option<SilenceNote> {
        let over = self.since.is_some() && client.lost().is_none();
        over.then(|| self.note(true))
    }

    fn note(&mut self, over: bool) -> SilenceNote {
        self.again = Instant::now() + SAY_AGAIN;
        let lasting = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        let lasting = Duration::from_secs(lasting.as_secs());
        SilenceNote { node: self.node.clone(), lasting, over }
    }
}

impl SilenceNote {
    /// The sentence, while so many entries wait.
    pub(super) fn sentence(&self, waiting: u64) -> String {
        let SilenceNote { node, lasting, over } = self;
        let entries = if waiting == 1 { "entry" } else { "entries" };
        if *over {
            format!("{node} speaks again, after {lasting:?}")
        } else {
            format!(
                "{node} says nothing for {lasting:?}, and does not answer a PING: still waiting for \
                 its answer to {waiting} {entries}"
            )
        }
    }
}

/// What goes wrong while somebody follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A connection was lost.
    Lost,
    /// Nobody can be connected to.
    Unreachable,
    /// A node does not serve this now.
    Refused,
}

/// Says of each trouble that it began, and only now and then that it goes on.
#[derive(Debug, Default)]
pub(super) struct Rarely {
    said: Vec<(Trouble, Instant)>,
}

impl Rarely {
    /// Says it, unless the same was said a short while ago.
    pub(super) fn say(&mut self, trouble: Trouble, message: impl fmt::Display) {
        self.said.retain(|(_, when)| when.elapsed() < SAY_AGAIN);
        if !self.said.iter().any(|(said, _)| *said == trouble) {
            self.said.push((trouble, Instant::now()));
            complain(message);
        }
    }

    /// All is well. Returns whether there was trouble.
    pub(super) fn over(&mut self) -> bool {
        !std::mem::take(&mut self.said).is_empty()
    }
}
