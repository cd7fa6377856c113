//! `verify`: are the logs of all nodes equal, up to the last entry that any of them knows to be
//! committed?
//!
//! One digest at a position identifies the whole log up to there, so that equal logs cost one
//! question a node, and the first difference is found by halving. A node that merely lags is waited
//! for; one that still lacks committed entries after that differs.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::fields::field;
use super::json::{self, Object};
use super::nodes::{ANSWER_PATIENCE, Nodes, Seat, commit_of, last_of, node_line, role};
use super::output::{Stdout, failure, refused};
use super::request::{Form, Output, PATIENCE};
use super::{Exit, complain};

/// Between two looks at a node that lags.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Characters of a payload that are shown.
const PAYLOAD_SHOWN_MAX: usize = 120;

/// One node's copy of the log.
#[derive(Debug)]
struct Copy {
    seat: Seat,
    is_master: bool,
    log_id: Option<String>,
    last: u64,
    commit: u64,
    /// At the position up to which it is compared.
    digest: Option<String>,
}

/// The first entry that is not the same everywhere.
#[derive(Debug)]
struct Difference {
    /// `None`: the logs are empty and belong to different clusters.
    seq: Option<u64>,
    /// The two copies, by their place.
    copies: [usize; 2],
}

/// Why nothing can be said.
#[derive(Debug)]
enum Trouble {
    Unreachable(String),
    /// A node answers, but not this: its reply line.
    Refused {
        node: String,
        position: u64,
        reply: String,
    },
}

/// Compares the nodes and says how it went.
pub(super) async fn verify(servers: &[String], patience: Duration, output: Output) -> Exit {
    match compare(servers, patience).await {
        Ok(mut comparison) => {
            let text = match output {
                Output::Text => comparison.text().await,
                Output::Json => comparison.json().await,
            };
            let mut stdout = Stdout::new(output);
            stdout.buffer().extend_from_slice(text.as_bytes());
            let exit = comparison.exit();
            stdout.flush().map_or_else(|error| exit.worst(failure(&error)), |()| exit)
        }
        Err(Trouble::Unreachable(nodes)) => {
            complain(format_args!("not compared: {nodes}"));
            Exit::Unreachable
        }
        Err(Trouble::Refused { node, position, reply }) => match output {
            Output::Text => {
                let what = format_args!("{node} has no digest of entry {position}");
                complain(format_args!("not compared: {what}: {reply}"));
                Exit::Refused
            }
            Output::Json => refused(&reply, Form::Objects),
        },
    }
}

#[derive(Debug)]
struct Comparison {
    copies: Vec<Copy>,
    commit: u64,
    difference: Option<Difference>,
}

async fn compare(servers: &[String], patience: Duration) -> Result<Comparison, Trouble> {
    let mut copies = copies_of(servers).await?;
    let commit = copies.iter().map(|copy| copy.commit).max().unwrap_or(0);
    wait_for_those_behind(&mut copies, commit, patience).await?;
    // The fullest copy is what the others are compared with: of equal ones the master's.
    let fullest = (0..copies.len()).max_by_key(|&at| (copies[at].last, copies[at].is_master));
    let reference = fullest.unwrap_or(0);
    let end = copies[reference].last.min(commit);
    let mut first: Option<Difference> = None;
    for at in 0..copies.len() {
        let position = copies[at].last.min(end);
        let digest = copies[at].digest_at(position).await?;
        copies[at].digest = Some(digest.clone());
        let differs_at = if digest != copies[reference].digest_at(position).await? {
            Some(first_difference(&mut copies, [reference, at], position).await?)
        } else if copies[at].last < commit {
            Some(position + 1)
        } else {
            None
        };
        if let Some(seq) = differs_at
            && first.as_ref().is_none_or(|first| first.seq > Some(seq))
        {
            first = Some(Difference { seq: Some(seq), copies: [reference, at] });
        }
    }
    let other_log = |copy: &Copy| {
        let ids = (&copy.log_id, &copies[reference].log_id);
        matches!(ids, (Some(one), Some(other)) if one != other)
    };
    if first.is_none()
        && let Some(at) = copies.iter().position(other_log)
    {
        first = Some(Difference { seq: None, copies: [reference, at] });
    }
    Ok(Comparison { copies, commit, difference: first })
}

async fn copies_of(servers: &[String]) -> Result<Vec<Copy>, Trouble> {
    let mut nodes = Nodes::new(servers);
    let statuses = nodes.statuses().await;
    let mut copies = Vec::new();
    let mut unreachable = Vec::new();
    for (seat, status) in nodes.seats.into_iter().zip(statuses) {
        match status {
            Err(cause) => unreachable.push(format!("{} is unreachable: {cause}", named(&seat))),
            Ok(status) => copies.push(Copy {
                seat,
                is_master: role(&status) == Some("master"),
                log_id: field(node_line(&status), "log_id").map(str::to_owned),
                last: last_of(&status).unwrap_or(0),
                commit: commit_of(&status).unwrap_or(0),
                digest: None,
            }),
        }
    }
    if unreachable.is_empty() {
        Ok(copies)
    } else {
        Err(Trouble::Unreachable(unreachable.join("; ")))
    }
}

/// Its id and address.
fn named(seat: &Seat) -> String {
    match &seat.id {
        Some(id) => format!("{id} ({})", seat.addr),
        None => seat.addr.clone(),
    }
}

async fn wait_for_those_behind(
    copies: &mut [Copy],
    commit: u64,
    patience: Duration,
) -> Result<(), Trouble> {
    let deadline = Instant::now() + patience;
    for copy in copies.iter_mut().filter(|copy| copy.last < commit) {
        let (name, last) = (copy.seat.name(), copy.last);
        complain(format_args!(
            "{name} is behind: it holds {last} of {commit} committed entries; waiting up to {patience:?}"
        ));
    }
    for copy in copies {
        while copy.last < commit && Instant::now() < deadline {
            sleep(LOOK_AGAIN).await;
            let status = copy.ask("STATUS").await?;
            copy.last = last_of(&String::from_utf8_lossy(&status)).unwrap_or(0);
        }
    }
    Ok(())
}

impl Copy {
    async fn ask(&mut self, line: &str) -> Result<Bytes, Trouble> {
        self.seat.ask_bytes(line).await.map_err(|cause| {
            Trouble::Unreachable(format!("{} is unreachable: {cause}", named(&self.seat)))
        })
    }

    async fn digest_at(&mut self, position: u64) -> Result<String, Trouble> {
        let reply = self.ask(&format!("DIGEST {position}")).await?;
        let reply = String::from_utf8_lossy(&reply);
        let digest = field(reply.trim_end(), "digest").map(str::to_owned);
        digest.ok_or_else(|| {
            let node = self.seat.name().to_owned();
            Trouble::Refused { node, position, reply: reply.trim_end().to_owned() }
        })
    }

    async fn found_at(&mut self, seq: u64) -> Found {
        if self.last < seq {
            return Found::Missing;
        }
        let reply = match self.seat.ask_bytes(&format!("GET {seq}")).await {
            Ok(reply) if reply.starts_with(b"OK ") => reply,
            Ok(refusal) => {
                return Found::Untold(String::from_utf8_lossy(refusal.trim_ascii_end()).into());
            }
            Err(cause) => return Found::Untold(cause),
        };
        let digest = self.digest_at(seq).await.unwrap_or_else(|_| "-".to_owned());
        Found::Entry { reply, digest }
    }
}

/// The first entry at which two copies differ that differ at `differs_at`: a digest that is equal
/// says so of all before it.
async fn first_difference(
    copies: &mut [Copy],
    pair: [usize; 2],
    differs_at: u64,
) -> Result<u64, Trouble> {
    let (mut equal, mut different) = (0, differs_at);
    while different - equal > 1 {
        let middle = equal + (different - equal) / 2;
        let one = copies[pair[0]].digest_at(middle).await?;
        let other = copies[pair[1]].digest_at(middle).await?;
        if one == other { equal = middle } else { different = middle }
    }
    Ok(different)
}

impl Comparison {
    fn exit(&self) -> Exit {
        if self.difference.is_some() { Exit::Different } else { Exit::Done }
    }

    /// Lines of keys and values, a line a node, and what was found.
    async fn text(&mut self) -> String {
        let mut out = String::new();
        for Copy { seat, log_id, last, commit, digest, .. } in &self.copies {
            let or_dash = |value: &Option<String>| value.clone().unwrap_or("-".to_owned());
            out.push_str(&format!(
                "node id={} addr={} log_id={} stored={last} commit={commit} digest={}\n",
                or_dash(&seat.id),
                seat.addr,
                or_dash(log_id),
                or_dash(digest),
            ));
        }
        let (nodes, commit) = (self.copies.len(), self.commit);
        match self.difference.as_ref().map(|difference| difference.seq) {
            None => {
                let digest = self.copies.first().and_then(|copy| copy.digest.as_deref());
                let digest = digest.unwrap_or("-");
                out.push_str(&format!("OK nodes={nodes} commit={commit} digest={digest}\n"));
            }
            Some(None) => out.push_str(&format!(
                "DIFFERENT seq=- nodes={nodes} commit={commit} - empty logs of different clusters\n"
            )),
            Some(Some(seq)) => {
                out.push_str(&format!(
                    "DIFFERENT seq={seq} nodes={nodes} commit={commit} - the first entry that is \
                     not the same everywhere\n"
                ));
                for (name, found) in self.entries_that_differ().await {
                    out.push_str(&match found {
                        Found::Entry { reply, digest } => entry_line(&name, &reply, &digest),
                        Found::Missing => format!("entry node={name} seq={seq} missing=true\n"),
                        Found::Untold(cause) => {
                            let cause = cause.replace('"', "'");
                            format!("entry node={name} seq={seq} error=\"{cause}\"\n")
                        }
                    });
                }
            }
        }
        out
    }

    async fn json(&mut self) -> String {
        let mut object = Object::default();
        object.put("equal", self.difference.is_none());
        object.put("commit", self.commit);
        let nodes = self.copies.iter().map(|copy| {
            let mut object = Object::default();
            object.put("id", copy.seat.id.as_deref());
            object.put("addr", copy.seat.addr.as_str());
            object.put("log_id", copy.log_id.as_deref());
            object.put("stored", copy.last);
            object.put("commit", copy.commit);
            object.put("digest", copy.digest.as_deref());
            json::to_value(&object)
        });
        object.put("nodes", nodes.collect::<Vec<_>>());
        let mut found = Value::Null;
        if let Some(seq) = self.difference.as_ref().map(|difference| difference.seq) {
            let mut difference = Object::default();
            difference.put("seq", seq);
            let entries = self.entries_that_differ().await.into_iter().map(|(name, found)| {
                let mut object = Object::default();
                object.put("node", name);
                object.put("missing", matches!(found, Found::Missing));
                match found {
                    Found::Entry { reply, digest } => {
                        let entry = json::reply_line(reply.trim_ascii_end());
                        object.put("digest", digest);
                        object.put("entry", json::to_value(&entry));
                    }
                    Found::Missing => {}
                    Found::Untold(cause) => object.put("error", cause),
                }
                json::to_value(&object)
            });
            difference.put("entries", entries.collect::<Vec<_>>());
            found = json::to_value(&difference);
        }
        object.put("difference", found);
        json::line(&object)
    }

    /// For both copies: the node, and what it has there.
    async fn entries_that_differ(&mut self) -> Vec<(String, Found)> {
        let Some(Difference { seq: Some(seq), copies }) = self.difference else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        for at in copies {
            let copy = &mut self.copies[at];
            let found = copy.found_at(seq).await;
            entries.push((copy.seat.name().to_owned(), found));
        }
        entries
    }
}

/// What a node has at the place where the logs differ.
#[derive(Debug)]
enum Found {
    /// The reply to GET, and the digest there.
    Entry { reply: Bytes, digest: String },
    /// Its log ends before.
    Missing,
    /// It did not say: it is gone or slow, or cannot read the entry. That is not the same as
    /// having none.
    Untold(String),
}

/// The reply to GET as a line about a node's entry, its payload cut.
fn entry_line(name: &str, reply: &[u8], digest: &str) -> String {
    let reply = String::from_utf8_lossy(reply);
    let (head, payload) =
        reply.trim_end_matches('\n').split_once(" payload=").unwrap_or((&reply, ""));
    let value = |key| field(head, key).unwrap_or("-");
    let mut shown: String = payload.chars().take(PAYLOAD_SHOWN_MAX).collect();
    if shown.len() < payload.len() {
        shown.push('…');
    }
    format!(
        "entry node={name} seq={} epoch={} time={} bytes={} digest={digest} payload={shown}\n",
        value("seq"),
        value("epoch"),
        value("time"),
        value("bytes"),
    )
}

// A node that is asked for its position answers within this, so that no look outlasts the waiting.
const _: () = assert!(ANSWER_PATIENCE.as_secs() < PATIENCE.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_payloads_are_cut() {
        let reply = format!("OK seq=5 epoch=1 time=T bytes=200 by=- payload={}\n", "ü".repeat(200));
        assert_eq!(
            entry_line("s1", reply.as_bytes(), "aa"),
            format!(
                "entry node=s1 seq=5 epoch=1 time=T bytes=200 digest=aa payload={}…\n",
                "ü".repeat(120)
            )
        );
        let reply = b"OK seq=5 epoch=1 time=T bytes=1 by=master payload=a payload=b\n";
        assert!(entry_line("m", reply, "aa").ends_with(" digest=aa payload=a payload=b\n"));
    }
}
