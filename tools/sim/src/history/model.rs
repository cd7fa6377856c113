//! A history as plain values.

use replog::checksum::xxh64;

/// Names a payload: XXH64 of its bytes with seed 0. Every entry of a history has a payload of its
/// own, so that this names the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadId(pub u64);

impl PayloadId {
    /// The name of these bytes.
    pub fn of(payload: &[u8]) -> Self {
        PayloadId(xxh64(payload, 0))
    }
}

/// Everything that is known of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// What ran.
    pub cluster: Cluster,
    /// The appends; those of one client in the order in which they were sent.
    pub ops: Vec<Op>,
    /// The reads.
    pub reads: Vec<Read>,
    /// What befell the nodes.
    pub events: Vec<Event>,
    /// The logs at the end, at most one of each node.
    pub dumps: Vec<Dump>,
}

/// The nodes and the rules of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The roster, master first. Elsewhere a node is its place here.
    pub nodes: Vec<String>,
    /// Whether every node dumped had time to get everything: then all dumps must be equal.
    pub healed: bool,
    /// When the run ended.
    pub end: u64,
    /// If given, answers later than their timeout and this are findings, and so are missing ones.
    pub slack: Option<u64>,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster { nodes: Vec::new(), healed: true, end: 0, slack: None }
    }
}

impl Cluster {
    /// More than half of the nodes.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }
}

/// What counts as holding an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// In the log.
    #[default]
    Stored,
    /// In memory.
    Received,
}

/// One append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The connection that it was sent on.
    pub client: u64,
    /// What was appended.
    pub payload: PayloadId,
    /// When it was sent.
    pub invoked: u64,
    /// When its fate was known to the client.
    pub completed: Option<u64>,
    /// The write concern as a number of nodes.
    pub need: u16,
    /// What was to count.
    pub ack: Ack,
    /// How long the node was to wait.
    pub timeout: Option<u64>,
    /// Who produced it, if it said so: several attempts may then carry one entry.
    pub producer: Option<Producer>,
    /// Whether it was to be all or nothing.
    pub atomic: bool,
    /// What became of it.
    pub answer: Answer,
}

/// A producer's number for an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Producer {
    /// Which producer: its number, or a [`PayloadId`] of its name.
    pub id: u64,
    /// Its number.
    pub number: u64,
}

/// The class of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write concern was met.
    Ok(Placed),
    /// In the master's log.
    Pending(Placed),
    /// Nothing was appended and never will be.
    Rejected(String),
    /// The node does not know.
    Unknown,
    /// The connection ended first.
    Lost,
    /// Nothing left the client.
    Unsent,
    /// Still waited for at the end of the run.
    Missing,
}

/// Where an entry is, as an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its number.
    pub seq: u64,
    /// The epoch that numbered it.
    pub epoch: u64,
    /// Who held it: bit k is the k-th node of the roster.
    pub by: u128,
}

impl Op {
    /// Where the answer says the entry is, if it is certain.
    pub fn placed(&self) -> Option<&Placed> {
        match &self.answer {
            Answer::Ok(placed) | Answer::Pending(placed) => Some(placed),
            _ => None,
        }
    }

    /// Whether the entry must be nowhere, as far as this attempt is concerned.
    pub fn is_refused(&self) -> bool {
        matches!(self.answer, Answer::Rejected(_) | Answer::Unsent)
    }
}

/// Which entries a read may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// All that the node holds.
    Local,
    /// Held by a majority.
    Committed,
    /// Held by every node.
    All,
    /// Held by so many nodes.
    Nodes(u16),
}

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The connection that it was sent on.
    pub client: u64,
    /// The node asked.
    pub node: usize,
    /// What was to be shown.
    pub level: Level,
    /// The first number wanted.
    pub from: u64,
    /// What was shown.
    pub items: Vec<Item>,
    /// The commit position that the node told with it.
    pub commit: Option<u64>,
    /// Whether the node showed everything it would show then.
    pub whole: bool,
    /// When it was sent.
    pub invoked: u64,
    /// When all of it had come.
    pub completed: u64,
}

impl Read {
    /// Where what the node showed ends, as far as this read can tell: the last number that was
    /// there.
    pub fn end(&self) -> u64 {
        self.items.last().map_or(self.from.saturating_sub(1), |item| item.seq)
    }
}

/// An entry shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number.
    pub seq: u64,
    /// Which.
    pub payload: PayloadId,
}

/// Something that befell a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which node.
    pub node: usize,
    /// When.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What can befall a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Everything behind this number is gone, and may be.
    Lost {
        /// The last number kept.
        kept: u64,
    },
    /// What it held in memory behind this number and had not put into its log is gone, and may be.
    Dropped {
        /// The last number in the log.
        kept: u64,
    },
    /// A new process took over the log.
    Restarted,
    /// Answers may be late.
    Stalled {
        /// When that ended.
        until: u64,
    },
}

/// A node's log at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Whose.
    pub node: usize,
    /// What is in it.
    pub entries: Vec<DumpEntry>,
}

/// An entry of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpEntry {
    /// Its number.
    pub seq: u64,
    /// The epoch that numbered it.
    pub epoch: u64,
    /// Which.
    pub payload: PayloadId,
}
