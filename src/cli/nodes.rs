//! The nodes of a cluster, asked one by one: who they are, and what each answers. A node that does
//! not answer is a finding, not a failure.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connect_options;
use super::fields::{field, number};
use crate::client::{Client, ConnectFailure, ConnectOptions};

/// How long a node may take to answer, connecting included.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Of that, connecting: its own words about what is wrong come before ours.
const CONNECT_PATIENCE: Duration = Duration::from_millis(1800);

/// What stands behind "unreachable".
fn cause(failure: &ConnectFailure) -> String {
    match failure {
        ConnectFailure::Unconnected(why) => why.clone(),
        failure => failure.to_string(),
    }
}

/// A node that is asked, perhaps again and again over one connection.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) addr: String,
    /// Its id, as the roster or the node itself says.
    pub(super) id: Option<String>,
    client: Option<Client>,
}

impl Seat {
    pub(super) fn new(addr: &str, id: Option<&str>) -> Self {
        Seat { addr: addr.to_owned(), id: id.map(str::to_owned), client: None }
    }

    /// Its id, or its address as long as nobody knows better.
    pub(super) fn name(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.addr)
    }

    /// Has it carry out a line of the text gateway. Without an answer: why.
    pub(super) async fn ask(&mut self, line: &str) -> Result<String, String> {
        let reply = self.ask_bytes(line).await?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    /// The same, with a reply that need not be text.
    pub(super) async fn ask_bytes(&mut self, line: &str) -> Result<Bytes, String> {
        let asked = timeout(ANSWER_PATIENCE, self.ask_patiently(line)).await;
        let answer = asked.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_PATIENCE:?}")));
        if answer.is_err() {
            self.client = None;
        }
        answer
    }

    async fn ask_patiently(&mut self, line: &str) -> Result<Bytes, String> {
        let client = match self.client.take().filter(|client| client.lost().is_none()) {
            Some(client) => client,
            None => {
                let (timeout, only_looks) = (CONNECT_PATIENCE, true);
                let options = ConnectOptions { timeout, only_looks, ..connect_options() };
                let connected = Client::connect([&self.addr], options).await;
                connected.map_err(|error| {
                    let causes = error.attempts.iter().map(|(_, failure)| cause(failure));
                    causes.collect::<Vec<_>>().join("; ")
                })?
            }
        };
        self.id = Some(client.node_id().to_owned());
        let reply = client.command(line).await.map_err(|error| error.to_string())?;
        self.client = Some(client);
        Ok(reply)
    }
}

/// Asks several nodes at the same time, each its own line; answers come in the order of `seats`.
pub(super) async fn ask_all(
    seats: &mut [Seat],
    lines: impl Fn(usize) -> Option<String>,
) -> Vec<Option<Result<String, String>>> {
    let mut asking = JoinSet::new();
    for (index, seat) in seats.iter().enumerate() {
        if let Some(line) = lines(index) {
            let mut seat = seat.clone();
            asking.spawn(async move {
                let answer = seat.ask(&line).await;
                (index, seat, answer)
            });
        }
    }
    let mut answers = vec![None; seats.len()];
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok((index, seat, answer)) => {
                seats[index] = seat;
                answers[index] = Some(answer);
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    answers
}

/// The nodes to be asked: each server that was given, or, of one, the roster it leads to.
#[derive(Debug)]
pub(super) struct Nodes {
    pub(super) seats: Vec<Seat>,
    /// Whether the roster is asked for.
    grows: bool,
}

impl Nodes {
    pub(super) fn new(servers: &[String]) -> Self {
        let seats = servers.iter().map(|addr| Seat::new(addr, None)).collect();
        Nodes { seats, grows: servers.len() == 1 }
    }

    /// Asks all for their STATUS, those included that are found by it.
    pub(super) async fn statuses(&mut self) -> Vec<Result<String, String>> {
        let mut statuses: Vec<Option<Result<String, String>>> = vec![None; self.seats.len()];
        while statuses.iter().any(Option::is_none) {
            let asked = |index: usize| statuses[index].is_none().then(|| "STATUS".to_owned());
            let answers = ask_all(&mut self.seats, asked).await;
            for (status, answer) in statuses.iter_mut().zip(answers) {
                *status = status.take().or(answer);
            }
            if self.grows {
                self.learn(&statuses);
                statuses.resize(self.seats.len(), None);
            }
        }
        let missing = || Err("not asked".to_owned()); // There is none: see the loop.
        statuses.into_iter().map(|status| status.unwrap_or_else(missing)).collect()
    }

    /// Adds the nodes that the answers name and that are not known yet.
    fn learn(&mut self, statuses: &[Option<Result<String, String>>]) {
        let lines = statuses.iter().flatten().filter_map(|status| status.as_deref().ok());
        for line in lines.flat_map(str::lines) {
            let (id, is_master) = match line.split_once(' ') {
                Some(("secondary", rest)) => (field(rest, "id"), false),
                Some(("master", _)) => (None, true),
                _ => continue,
            };
            let Some(addr) = field(line, "addr") else { continue };
            // The address that was typed is kept: the master may know the node under another.
            let known = self.seats.iter().any(|seat| {
                seat.addr == addr || id.is_some_and(|id| seat.id.as_deref() == Some(id))
            });
            // Of several secondaries each names the master; the master is asked once.
            let master_known = is_master
                && statuses.iter().flatten().any(|status| {
                    status.as_deref().is_ok_and(|status| role(status) == Some("master"))
                });
            if !known && !master_known {
                self.seats.push(Seat::new(addr, id));
            }
        }
    }
}

/// The line of a STATUS that tells of the node itself.
pub(super) fn node_line(status: &str) -> &str {
    status.lines().find(|line| line.starts_with("node ")).unwrap_or_default()
}

/// `master` or `secondary`.
pub(super) fn role(status: &str) -> Option<&str> {
    field(node_line(status), "role")
}

/// The last entry of the node's log.
pub(super) fn last_of(status: &str) -> Option<u64> {
    number(node_line(status), "next").map(|next| next.saturating_sub(1))
}

/// The node's commit position.
pub(super) fn commit_of(status: &str) -> Option<u64> {
    number(node_line(status), "commit")
}

/// What the master's STATUS says of a secondary.
pub(super) fn secondary_line<'a>(status: &'a str, seat: &Seat) -> Option<&'a str> {
    status.lines().find(|line| {
        let by_id = seat.id.is_some() && field(line, "id") == seat.id.as_deref();
        line.starts_with("secondary ") && (by_id || field(line, "addr") == Some(&seat.addr))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(servers: &[&str], status: &str) -> Vec<(String, Option<String>)> {
        let servers: Vec<String> = servers.iter().map(|&addr| addr.to_owned()).collect();
        let mut nodes = Nodes::new(&servers);
        nodes.seats[0].id = field(node_line(status), "id").map(str::to_owned);
        nodes.learn(&[Some(Ok(status.to_owned()))]);
        nodes.seats.into_iter().map(|seat| (seat.addr, seat.id)).collect()
    }

    #[test]
    fn the_roster_is_learned_from_whoever_answers() {
        let seat = |addr: &str, id: Option<&str>| (addr.to_owned(), id.map(str::to_owned));
        let master = "node id=master role=master next=1\n\
            secondary id=s1 addr=a:1 health=healthy\nsecondary id=s2 addr=a:2 health=healthy\nEND\n";
        assert_eq!(
            learned(&["m:1"], master),
            [seat("m:1", Some("master")), seat("a:1", Some("s1")), seat("a:2", Some("s2"))]
        );
        let secondary = "node id=s1 role=secondary next=1\nmaster addr=m:1 connected=true\nEND\n";
        assert_eq!(learned(&["a:1"], secondary), [seat("a:1", Some("s1")), seat("m:1", None)]);
        let lonely = "node id=s1 role=secondary next=1\nmaster addr=- connected=false\nEND\n";
        assert_eq!(learned(&["a:1"], lonely), [seat("a:1", Some("s1"))]);
    }

    #[test]
    fn a_node_that_the_master_knows_under_another_address_is_asked_once() {
        let mut nodes = Nodes::new(&["typed:1".to_owned()]);
        nodes.seats[0].id = Some("s1".to_owned());
        let master =
            "node id=master role=master\nsecondary id=s1 addr=inner:1 health=healthy\nEND\n";
        nodes.learn(&[Some(Ok(master.to_owned()))]);
        assert_eq!(nodes.seats.len(), 1);
    }
}
