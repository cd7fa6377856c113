//! What the operator decided, as checked values.
//!
//! Four layers are put on top of each other: default, file, environment, flag. Each is a set of raw
//! values under the keys of one table ([`KEYS`]); all of them become a [`Config`] through one
//! function, so that a value is held to the same rules wherever it came from, and a refusal always
//! says which key, which value, what is allowed and who set it. Nothing here opens a socket; the
//! only file read is the one that `--config` names, and arguments and environment come in as
//! values.

mod args;
mod build;
mod environment;
mod file;
mod keys;
mod layers;
#[cfg(test)]
mod tests;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use args::split_equals_signs;
pub use keys::{About, KEYS};
pub use tracing::Level;

pub use crate::limits::Limits;
pub use crate::types::Role;
use crate::types::{AckLevel, NodeId, Seq, Timeout, WriteConcern};

/// What the arguments of `replog` are, for completions and manual pages.
#[doc(hidden)]
pub fn argument_table() -> argh::CommandInfoWithArgs {
    args::table()
}

/// What one call of `replog` asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run one node.
    Node(Box<Config>),
    /// Run a whole cluster in this process.
    Dev(DevConfig),
    /// Print and verify a data directory or a segment.
    Inspect(InspectConfig),
    /// Print this text (help, version) on stdout and end with success.
    Print(String),
}

impl Invocation {
    /// Reads the arguments (without the program's name), the environment and the file they name.
    ///
    /// # Errors
    /// One line for the operator; the exit code that belongs to it is 2.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        args::read(args, environment)
    }
}

/// Why the flags, the environment or the file were refused: one line that names the culprit, what
/// is allowed and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct ConfigError {
    line: String,
    log: Option<Box<LogConfig>>,
}

impl ConfigError {
    fn new(line: impl Into<String>) -> Self {
        ConfigError { line: line.into(), log: None }
    }

    /// Where log lines were to go, as far as that could be understood: the refusal belongs there.
    pub fn log(&self) -> Option<&LogConfig> {
        self.log.as_deref()
    }

    fn logged_to(self, log: LogConfig) -> Self {
        ConfigError { log: Some(Box::new(log)), ..self }
    }
}

/// What `replog inspect` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectConfig {
    /// A data directory or one segment.
    pub path: PathBuf,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// At most so many entries are printed; all are verified.
    pub limit: Option<u64>,
    /// Only entries from here on are printed; all are verified.
    pub from: Option<Seq>,
    /// Only what is wrong and the verdict.
    pub quiet: bool,
}

/// Everything one node was told. Only [`Invocation::read`] and [`Config::default_for`] make one, so
/// that all of its values have been checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Master or secondary.
    pub role: Role,
    /// The node itself.
    pub node: NodeConfig,
    /// The cluster as the master sees it; a secondary ignores it.
    pub cluster: ClusterConfig,
    /// How the log is kept.
    pub storage: StorageConfig,
    /// Bounds that protect the node.
    pub limits: Limits,
    /// What the node tells about itself.
    pub log: LogConfig,
    /// What the operator should know about how this was read, for the log; mostly nothing.
    pub notes: Vec<String>,
}

impl Config {
    /// What a node of this role gets when nobody says anything.
    pub fn default_for(role: Role) -> Self {
        build::build(role, &layers::Settings::default(), build::Switches::default())
            .expect("BUG: the defaults are refused, which a test would have shown")
    }
}

/// The node itself: name, addresses, where its log lives.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name in the roster.
    pub id: NodeId,
    /// `host:port` of the wire protocol; port 0 is any free port.
    pub listen: String,
    /// `host:port` of the text gateway; `None` switches it off.
    pub gateway: Option<String>,
    /// The wire address told to others; `None` is the listen address as bound.
    pub advertise: Option<String>,
    /// The data directory; `None` exactly if `memory`.
    pub data_dir: Option<PathBuf>,
    /// Whether the log is kept in memory only.
    pub memory: bool,
    /// Whether the fault verbs are allowed.
    pub faults: bool,
    /// A standing delay of every APPEND frame that a secondary handles.
    pub delay: Duration,
    /// Whether addresses beyond loopback were allowed.
    pub insecure: bool,
    /// Whether this start may found a new log.
    pub bootstrap: bool,
    /// The operator accepts the loss of what lies beyond this number.
    pub accept_data_loss: Option<Seq>,
}

/// The cluster as the master sees it.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The roster without the master, in its configured order.
    pub secondaries: Vec<SecondaryConfig>,
    /// Fewest present nodes, master included, for appends to be accepted.
    pub quorum: usize,
    /// For appends that name none.
    pub write_concern: WriteConcern,
    /// For appends that name none.
    pub ack: AckLevel,
    /// For appends that name none.
    pub append_timeout: Timeout,
    /// One heartbeat per secondary and interval.
    pub heartbeat_interval: Duration,
    /// Misses in a row that make a secondary suspected.
    pub suspected_after: u32,
    /// Misses in a row that make it unhealthy; never below `suspected_after`.
    pub unhealthy_after: u32,
    /// No progress of the oldest unacknowledged entry for so long is a failed attempt.
    pub attempt_timeout: Duration,
    /// Waits between failed attempts; never empty, the last one repeats.
    pub retry_delays: Vec<Duration>,
}

impl ClusterConfig {
    /// The number of configured nodes, the master included.
    pub fn nodes(&self) -> usize {
        1 + self.secondaries.len()
    }
}

/// A secondary of the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryConfig {
    /// Its name.
    pub id: NodeId,
    /// `host:port` of its wire protocol.
    pub addr: String,
}

/// When a record counts as stored.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fsync {
    /// Once fdatasync returned.
    Always,
    /// Once written; fdatasync follows within `fsync_interval`.
    Interval,
    /// Once written; the operating system decides about the rest.
    Never,
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fsync::Always => "always",
            Fsync::Interval => "interval",
            Fsync::Never => "never",
        })
    }
}

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// When a record counts as stored.
    pub fsync: Fsync,
    /// The longest time between two syncs under [`Fsync::Interval`].
    pub fsync_interval: Duration,
    /// A segment is sealed at this many bytes.
    pub segment_size: u64,
}

/// The shape of a log line.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the node tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level that is still written.
    pub level: Level,
    /// The shape of a line.
    pub format: LogFormat,
    /// A file that gets every line too.
    pub file: Option<PathBuf>,
}

/// A whole cluster in one process.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// One configuration per node: the master first, then `s1`, `s2`… as in its roster. A roster
    /// address with port 0 is known only once that secondary has bound its port.
    pub nodes: Vec<Config>,
}
