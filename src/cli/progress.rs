//! The line on a terminal that tells how an append gets on, and for whom it waits.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::complain;
use super::fields::{field, number};
use super::nodes::last_of;
use super::terminal::{fit, is_dumb, size_of};
use crate::client::Client;
use crate::visible::visible_text;

/// How often the line is written anew.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);

/// How long an answer may take before the line says for whom it waits.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// How long the node may take to tell.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// How often a line is added where it cannot be written anew.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Progress {
    /// Whether there is a terminal to write to.
    visible: bool,
    /// Whether to count; else only long waits are told.
    counting: bool,
    /// A line stands there now.
    shown: bool,
    /// The terminal cannot write a line anew: it gets lines below one another, few of them.
    dumb: bool,
    /// When such a line was added last.
    added: Option<Instant>,
    started: Instant,
    answered: u64,
    /// When the entry that is waited for became the oldest.
    waiting_since: Option<Instant>,
    asked: Option<Instant>,
    /// For whom it waits, as last heard.
    awaited: String,
    /// The entry that is waited for, if it is known: else the last one.
    seq: Option<u64>,
}

impl Progress {
    /// `many` entries are expected, not typed by a person.
    pub(super) fn new(many: bool) -> Self {
        Progress {
            visible: io::stderr().is_terminal(),
            counting: many && !io::stdin().is_terminal(),
            shown: false,
            dumb: is_dumb(),
            added: None,
            started: Instant::now(),
            answered: 0,
            waiting_since: None,
            asked: None,
            awaited: String::new(),
            seq: None,
        }
    }

    /// For a wait for one entry.
    pub(super) fn of_wait(seq: u64) -> Self {
        let mut progress = Progress::new(false);
        progress.seq = Some(seq);
        progress
    }

    /// Whether it is worth a tick.
    pub(super) fn is_visible(&self) -> bool {
        self.visible
    }

    /// So many entries were answered.
    pub(super) fn answered(&mut self, count: u64) {
        self.answered += count;
        self.waiting_since = None;
        self.asked = None;
        self.awaited.clear();
    }

    /// Takes the line away, so that something else can be written.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            write_line("");
        }
    }

    /// Writes the line anew. `waiting` entries have no answer.
    pub(super) async fn tick(&mut self, waiting: u64, client: &Client) {
        if waiting > 0 {
            let since = *self.waiting_since.get_or_insert_with(Instant::now);
            // INTERVAL early, because nobody looked in between.
            let long = since.elapsed() + INTERVAL >= LONG_WAIT;
            if client.silence().lasting().is_some() {
                // It would not tell.
                self.awaited = format!("waiting for {}, which is silent", client.node_id());
                self.asked = None;
            } else if long && self.asked.is_none_or(|asked| asked.elapsed() >= LONG_WAIT) {
                self.asked = Some(Instant::now());
                let status = tokio::time::timeout(STATUS_PATIENCE, client.command("STATUS"));
                if let Ok(Ok(status)) = status.await {
                    self.awaited = awaited(&String::from_utf8_lossy(&status), self.seq);
                }
            }
        } else {
            self.waiting_since = None;
        }
        let mut line = String::new();
        if self.counting {
            let rate = self.answered as f64 / self.started.elapsed().as_secs_f64().max(0.001);
            let answered = self.answered;
            line = format!("{answered} entries answered, {rate:.0}/s, {waiting} waiting");
        }
        if !self.awaited.is_empty() {
            let separator = if line.is_empty() { "" } else { " " };
            line = format!("{line}{separator}{}", self.awaited);
        }
        if line.is_empty() {
            self.clear();
        } else {
            self.show(&line);
        }
    }

    fn show(&mut self, line: &str) {
        if !self.dumb {
            write_line(line);
            self.shown = true;
            return;
        }
        let last = self.added.unwrap_or(self.started);
        let first_wait = self.added.is_none() && !self.awaited.is_empty();
        if first_wait || last.elapsed() >= PLAIN_INTERVAL {
            self.added = Some(Instant::now());
            complain(line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Writes over the line. It must not wrap: only its last part would be written over the next time.
/// The last column stays free, because a terminal that was written to there is about to wrap.
/// By hand, because it is less than the way around what indicatif does otherwise: it shows nothing
/// on a dumb terminal, and cuts without a mark.
fn write_line(line: &str) {
    let line = visible_text(line);
    let columns = size_of(io::stderr()).map_or(usize::MAX, |(columns, _)| columns - 1);
    // If the terminal is gone, nothing can be done about it.
    let _ = write!(io::stderr(), "\r{}\x1b[K", fit(&line, columns));
}

/// Names the secondaries that have not stored the entry `seq`, or all that the master has, from the
/// reply to STATUS.
fn awaited(status: &str, seq: Option<u64>) -> String {
    let last = seq.or_else(|| last_of(status)).unwrap_or(0);
    let secondaries = status.lines().filter(|line| line.starts_with("secondary "));
    let behind: Vec<String> = secondaries
        .filter_map(|line| {
            let stored = number(line, "stored").unwrap_or(0);
            let (id, health) = (field(line, "id")?, field(line, "health")?);
            (stored < last).then(|| format!("{id} ({health}, has {stored} of {last})"))
        })
        .collect();
    if behind.is_empty() { String::new() } else { format!("waiting for {}", behind.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_behind_are_named() {
        let status = "node id=master role=master next=8 commit=7\n\
            secondary id=s1 addr=a:1 health=healthy stored=7\n\
            secondary id=s2 addr=a:2 health=unhealthy stored=4\n\
            secondary id=s3 addr=a:3 health=unhealthy stored=-\n\
            END\n";
        assert_eq!(
            awaited(status, None),
            "waiting for s2 (unhealthy, has 4 of 7), s3 (unhealthy, has 0 of 7)"
        );
        assert_eq!(
            awaited(status, Some(4)),
            "waiting for s3 (unhealthy, has 0 of 4)",
            "who has the entry that is waited for is not waited for"
        );
        assert_eq!(awaited("ERR denied", None), "");
    }
}
