//! The table of keys: everything that can be set, what it is by default, and what is allowed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{Raw, Read};
use super::{Fsync, Level, LogFormat, Role, SecondaryConfig};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::types::{AckLevel, NodeId, Timeout, WriteConcern};

/// What is known of a key beside the type of its value.
#[derive(Copy, Clone, Debug)]
pub struct About {
    /// `section.key`, as in the file and with `--set`.
    pub key: &'static str,
    /// The default of a master, written as it would be in a flag.
    pub default_master: &'static str,
    /// The default of a secondary.
    pub default_secondary: &'static str,
    /// Which values are allowed.
    pub allowed: &'static str,
    /// What the key means.
    pub meaning: &'static str,
}

impl About {
    /// The section of the file that the key stands in.
    pub fn section(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(section, _)| section)
    }

    /// The key inside its section.
    pub fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }

    /// The environment variable that sets the key.
    pub fn variable(&self) -> String {
        format!("REPLOG_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The default of a node of this role, written as it would be in a flag.
    pub fn default_for(&self, role: Role) -> &'static str {
        match role {
            Role::Master => self.default_master,
            Role::Secondary => self.default_secondary,
        }
    }
}

/// A key and how its value is read.
pub(super) struct Key<T> {
    pub(super) about: About,
    pub(super) read: fn(&Raw) -> Read<T>,
}

macro_rules! keys {
    (@secondary $default:literal) => { $default };
    (@secondary $default:literal $secondary:literal) => { $secondary };
    ($($(#[doc = $meaning:literal])+ $constant:ident: $type:ty = $key:literal,
        default $default:literal $(or $secondary:literal)?, allowed $allowed:literal,
        $read:expr;)*) => {
        $(pub(super) const $constant: Key<$type> = Key {
            about: About {
                key: $key,
                default_master: $default,
                default_secondary: keys!(@secondary $default $($secondary)?),
                allowed: $allowed,
                meaning: concat!($($meaning),+),
            },
            read: $read,
        };)*

        /// Every key, in the order of the example file.
        pub const KEYS: &[About] = &[$($constant.about),*];
    };
}

const fn from_millis(least: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(least)..=DAY
}

const DAY: Duration = Duration::from_secs(86_400);

/// Far beyond any machine, and far from overflow when sizes are added.
const SIZE_MAX: u64 = 1 << 40;

/// Far beyond any use, and far from overflow when counts are added.
const COUNT_MAX: u64 = 1_000_000;

keys! {
    /// The node's name in the cluster. No two nodes of a cluster share one.
    ID: NodeId = "node.id", default "master" or "s1",
        allowed "1 to 32 of a-z A-Z 0-9 . _ -, but not . or .. alone", Raw::node_id;
    /// The address of the wire protocol, for other nodes and replog-cli. Port 0 is any free port.
    /// An address beyond loopback needs --insecure: there is no authentication yet.
    LISTEN: String = "node.listen", default "127.0.0.1:9000" or "127.0.0.1:9001",
        allowed "host:port, such as 127.0.0.1:9000", Raw::address;
    /// The address of the text gateway (`nc 127.0.0.1 8000`); none switches it off.
    GATEWAY: Option<String> = "node.gateway", default "127.0.0.1:8000" or "127.0.0.1:8001",
        allowed "host:port, such as 127.0.0.1:8000, or none", |raw| raw.or_none(Raw::address);
    /// The wire address told to others, for a node that others reach under another address than the
    /// one it listens on; none is node.listen.
    ADVERTISE: Option<String> = "node.advertise", default "none",
        allowed "host:port, such as master:9000, or none", |raw| raw.or_none(Raw::address);
    /// The directory of the node's log; none is replog-data/<id> under the working directory.
    DATA_DIR: Option<PathBuf> = "node.data_dir", default "none",
        allowed "a directory, or none", |raw| raw.or_none(Raw::path);
    /// Whether the log is kept in memory only and lost when the node stops.
    MEMORY: bool = "node.memory", default "false", allowed "true or false", Raw::boolean;
    /// Whether the fault verbs (DELAY, FAIL, MUTE, STORE) are allowed on this secondary. For trying
    /// things out and for tests, never where the entries matter.
    FAULTS: bool = "node.faults", default "false", allowed "true or false", Raw::boolean;
    /// A standing artificial delay of a secondary: every APPEND frame is handled that much later.
    DELAY: Duration = "node.delay", default "0s",
        allowed "a duration from 0s to 24h", |raw| raw.duration(from_millis(0));

    /// The secondaries, on the master: a list of { id = "s1", addr = "host:port" }. The cluster has
    /// one node more than this list, whoever happens to be connected.
    SECONDARIES: Vec<SecondaryConfig> = "cluster.secondaries", default "",
        allowed "a list of { id = \"s1\", addr = \"host:port\" }, or s1=host:port,s2=host:port",
        |raw| raw.list(Raw::secondary);
    /// The fewest present nodes, master included, for appends to be accepted. With fewer the
    /// cluster is read-only until they are back.
    QUORUM: WriteConcern = "cluster.quorum", default "majority",
        allowed "a number of nodes from 1, majority or all", Raw::parsed;
    /// How many nodes, master included, must hold an entry before its client hears OK, for appends
    /// that do not say. Less than a majority may be lost with the master.
    WRITE_CONCERN: WriteConcern = "cluster.write_concern", default "all",
        allowed "a number of nodes from 1, majority or all", Raw::parsed;
    /// When a node counts as holding an entry, for appends that do not say: stored is in its log,
    /// with nothing missing before it; received is in memory, even if it waits for an earlier one.
    ACK: AckLevel = "cluster.ack", default "stored", allowed "stored or received", Raw::name;
    /// How long an append that does not say waits before it is answered PENDING (its entry stays);
    /// none waits until the write concern is met.
    APPEND_TIMEOUT: Timeout = "cluster.append_timeout", default "none",
        allowed "a duration such as 500ms, 5s or 2m, or none", Raw::parsed;
    /// One heartbeat per secondary and interval; one unanswered by the next interval is a miss.
    /// Shorter finds dead nodes sooner and suspects slow ones more often.
    HEARTBEAT_INTERVAL: Duration = "cluster.heartbeat_interval", default "1s",
        allowed "a duration from 50ms to 60s",
        |raw| raw.duration(Duration::from_millis(50)..=Duration::from_secs(60));
    /// Misses in a row that make a secondary suspected. It still counts as present.
    SUSPECTED_AFTER: u32 = "cluster.suspected_after", default "2",
        allowed "a number from 1 to 1000000", |raw| raw.number(1..=COUNT_MAX);
    /// Misses in a row that make a secondary unhealthy: no longer present, replication to it
    /// paused. The first success makes it healthy.
    UNHEALTHY_AFTER: u32 = "cluster.unhealthy_after", default "5",
        allowed "a number from 1 to 1000000, not below cluster.suspected_after",
        |raw| raw.number(1..=COUNT_MAX);
    /// No progress of the oldest unacknowledged entry for so long is a failed attempt.
    ATTEMPT_TIMEOUT: Duration = "cluster.attempt_timeout", default "1s",
        allowed "a duration from 10ms to 24h", |raw| raw.duration(from_millis(10));
    /// The waits between failed attempts; the last repeats for ever, progress resets to the first.
    /// They are paused while the secondary is unhealthy, and a recovered one is served at once.
    RETRY_DELAYS: Vec<Duration> = "cluster.retry_delays",
        default "1s,2s,5s,10s,30s,60s,90s,180s,300s",
        allowed "a list of at least one duration from 1ms to 24h, such as 1s,2s,5s", retry_delays;

    /// When an entry counts as stored: always is after fdatasync returned; interval and never trade
    /// entries lost in a power failure for speed.
    FSYNC: Fsync = "storage.fsync", default "always", allowed "always, interval or never", |raw| {
        let choices =
            [("always", Fsync::Always), ("interval", Fsync::Interval), ("never", Fsync::Never)];
        raw.choice(&choices)
    };
    /// The longest time between two fdatasyncs with storage.fsync = interval.
    FSYNC_INTERVAL: Duration = "storage.fsync_interval", default "100ms",
        allowed "a duration from 1ms to 24h", |raw| raw.duration(from_millis(1));
    /// A segment of the log is sealed at this size.
    SEGMENT_SIZE: u64 = "storage.segment_size", default "64MiB",
        allowed "a size from 64KiB to 4GiB", |raw| raw.size(64 << 10..=4 << 30);

    /// Larger payloads are refused. The same on every node of a cluster.
    PAYLOAD_MAX: usize = "limits.payload_max", default "1MiB",
        allowed "a size from 1 to 16MiB", |raw| raw.size(1..=PAYLOAD_BYTES_MAX as u64);
    /// Connections per port. One more is told so and closed.
    CONNECTIONS_MAX: usize = "limits.connections_max", default "1024",
        allowed "a number from 1 to 1000000", |raw| raw.number(1..=COUNT_MAX);
    /// Bytes accepted and not yet in the master's log. Beyond it clients are slowed, not failed.
    INFLIGHT_MAX: usize = "limits.inflight_max", default "64MiB",
        allowed "a size from 1 to 1024GiB", |raw| raw.size(1..=SIZE_MAX);
    /// Appends waiting, per connection. Beyond it that connection is not read.
    WAITING_MAX: usize = "limits.waiting_max", default "65536",
        allowed "a number from 1 to 1000000", |raw| raw.number(1..=COUNT_MAX);
    /// Output that a client does not take, per connection: with more than this for
    /// limits.write_timeout it is closed.
    OUTPUT_MAX: usize = "limits.output_max", default "4MiB",
        allowed "a size from 1 to 1024GiB", |raw| raw.size(1..=SIZE_MAX);
    /// How long a client may leave its output untaken.
    WRITE_TIMEOUT: Duration = "limits.write_timeout", default "10s",
        allowed "a duration from 10ms to 24h", |raw| raw.duration(from_millis(10));

    /// The least important level that is written.
    LEVEL: Level = "log.level", default "info",
        allowed "error, warn, info, debug or trace", |raw| {
            raw.choice(&[
                ("error", Level::ERROR),
                ("warn", Level::WARN),
                ("info", Level::INFO),
                ("debug", Level::DEBUG),
                ("trace", Level::TRACE),
            ])
        };
    /// The shape of a line: text for people, json for machines (one object a line).
    FORMAT: LogFormat = "log.format", default "text", allowed "text or json",
        |raw| raw.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    /// A file that gets every line too. It is appended to, never truncated.
    FILE: Option<PathBuf> = "log.file", default "none",
        allowed "a file, or none", |raw| raw.or_none(Raw::path);
}

fn retry_delays(raw: &Raw) -> Read<Vec<Duration>> {
    let delays = raw.list(|item| item.duration(from_millis(1)))?;
    if delays.is_empty() { Err("an empty list".to_owned().into()) } else { Ok(delays) }
}
