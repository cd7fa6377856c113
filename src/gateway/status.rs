//! STATUS and HEALTH as lines.

use std::fmt::Write as _;
use std::time::Duration;

use super::words::quoted;
use crate::engine::Health;
use crate::types::{Epoch, LogId, Seq};

/// What STATUS tells of the node that answers.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its id.
    pub id: String,
    /// `master` or `secondary`.
    pub role: &'static str,
    /// The epoch it leads or follows.
    pub epoch: Epoch,
    /// `normal`, `read-only`, `recovering`.
    pub mode: String,
    /// The next number to be given or filled.
    pub next: Seq,
    /// The commit position.
    pub commit: Seq,
    /// Quorum and n; `None` where not known.
    pub quorum: Option<(usize, usize)>,
    /// Nodes present; `None` where not known.
    pub present: Option<usize>,
    /// The history.
    pub log_id: Option<LogId>,
    /// `memory` or `disk`.
    pub store: &'static str,
    /// `always`, `interval` or `never`; empty in memory.
    pub fsync: &'static str,
    /// Whether the disk has no room for more entries.
    pub disk_full: bool,
    /// What of the log cannot be read; empty if all can.
    pub damaged: String,
    /// Since the start.
    pub uptime: Duration,
    /// Appends and waits not answered.
    pub waiting: u64,
    /// Entries moved aside.
    pub aside: u64,
    /// Nodes that a recovering master waits for.
    pub awaiting: String,
}

/// What the master's STATUS tells of a secondary.
#[derive(Clone, Debug)]
pub struct SecondaryStatus {
    /// Its id.
    pub id: String,
    /// Its configured address.
    pub addr: String,
    /// The judgement.
    pub health: Health,
    /// Misses in a row.
    pub misses: u32,
    /// Its positions.
    pub received: Seq,
    /// See `received`.
    pub stored: Seq,
    /// Entries and bytes of the master's log that it has not stored.
    pub lag: u64,
    /// See `lag`.
    pub lag_bytes: u64,
    /// Bytes under way to it.
    pub inflight: usize,
    /// Since any frame came from it.
    pub last_contact: Option<Duration>,
    /// Of the last heartbeat.
    pub rtt: Option<Duration>,
    /// Failed in a row.
    pub attempts: u32,
    /// Until the next repetition.
    pub next_retry: Option<Duration>,
    /// That it counted.
    pub duplicates: u64,
    /// What is wrong.
    pub error: Option<String>,
}

/// What a secondary's STATUS tells of its master.
#[derive(Clone, Debug)]
pub struct MasterStatus {
    /// The master's wire address.
    pub addr: String,
    /// Whether there is a connection that is followed.
    pub connected: bool,
    /// Since any frame came from it.
    pub last_contact: Option<Duration>,
    /// Entries kept until the ones before them come.
    pub held: u64,
    /// Entries that came twice.
    pub duplicates: u64,
}

/// Everything that STATUS and HEALTH need.
#[derive(Clone, Debug)]
pub struct Status {
    /// The node.
    pub node: NodeStatus,
    /// On the master: its secondaries.
    pub secondaries: Vec<SecondaryStatus>,
    /// On a secondary: its master.
    pub master: Option<MasterStatus>,
}

/// Writes a value that may be missing as `-`.
fn or_dash<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn text_or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn millis(duration: Option<Duration>) -> String {
    or_dash(duration.map(|duration| duration.as_millis()))
}

impl Status {
    /// The reply to STATUS.
    pub fn lines(&self) -> String {
        let node = &self.node;
        let mut out = format!(
            "node id={} role={} epoch={} mode={} next={} commit={} quorum={} present={} log_id={} \
             store={} fsync={} disk={} uptime_s={} waiting={} damaged={} aside={} awaiting={}\n",
            node.id,
            node.role,
            node.epoch,
            node.mode,
            node.next,
            node.commit,
            or_dash(node.quorum.map(|(quorum, nodes)| format!("{quorum}/{nodes}"))),
            or_dash(node.present),
            or_dash(node.log_id),
            node.store,
            text_or_dash(node.fsync),
            if node.disk_full { "full" } else { "ok" },
            node.uptime.as_secs(),
            node.waiting,
            text_or_dash(&node.damaged),
            node.aside,
            text_or_dash(&node.awaiting),
        );
        for secondary in &self.secondaries {
            let _ = writeln!(
                out, // Writing to a String cannot fail.
                "secondary id={} addr={} health={} misses={} received={} stored={} lag={} \
                 lag_bytes={} inflight={} last_contact_ms={} rtt_us={} attempts={} \
                 next_retry_ms={} duplicates={} error={}",
                secondary.id,
                secondary.addr,
                secondary.health,
                secondary.misses,
                secondary.received,
                secondary.stored,
                secondary.lag,
                secondary.lag_bytes,
                secondary.inflight,
                millis(secondary.last_contact),
                or_dash(secondary.rtt.map(|rtt| rtt.as_micros())),
                secondary.attempts,
                millis(secondary.next_retry),
                secondary.duplicates,
                secondary.error.as_deref().map_or_else(|| "-".into(), quoted),
            );
        }
        if let Some(master) = &self.master {
            let _ = writeln!(
                out, // Writing to a String cannot fail.
                "master addr={} connected={} last_contact_ms={} held={} duplicates={}",
                text_or_dash(&master.addr),
                master.connected,
                millis(master.last_contact),
                master.held,
                master.duplicates,
            );
        }
        out.push_str("END\n");
        out
    }

    /// The reply to HEALTH.
    pub fn health_line(&self) -> String {
        let mode = &self.node.mode;
        let full = if self.node.disk_full { " disk=full" } else { "" };
        if let Some(master) = &self.master {
            return format!(
                "OK mode={mode} master={} connected={} last_contact_ms={}{full}\n",
                text_or_dash(&master.addr),
                master.connected,
                millis(master.last_contact)
            );
        }
        let present = or_dash(self.node.present);
        let need = or_dash(self.node.quorum.map(|(quorum, _)| quorum));
        let mut out = format!("OK mode={mode} present={present} need={need}");
        for secondary in &self.secondaries {
            let _ = write!(out, " {}={}", secondary.id, secondary.health); // A String: cannot fail.
        }
        out.push_str(full);
        out.push('\n');
        out
    }
}
