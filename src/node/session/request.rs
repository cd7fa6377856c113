//! What a session asks of its node, and what it is told.

use bytes::Bytes;

use crate::gateway::Fault;
use crate::gateway::status::Status;
use crate::node::client::AppendRun;
use crate::store::provisional::Stored;
use crate::store::{Record, Slice};
use crate::types::{NodeSet, PrefixId, Seq, SeqRange, WaitOptions};

/// What a session asks of its node.
#[derive(Debug)]
pub enum Request {
    /// Runs of appends in the order sent. Each is answered by replies to its slot.
    Append(Vec<AppendRun>),
    /// A wait for an entry, answered likewise.
    Wait {
        /// The session's name for it.
        slot: u64,
        /// The entry.
        seq: Seq,
        /// How it is to be acknowledged.
        options: WaitOptions,
    },
    /// Something that is answered at once, or as soon as the disk has read it.
    Ask(Question),
}

/// What is answered by the [`Answer`] of the same name.
#[derive(Debug)]
pub enum Question {
    /// STATUS and HEALTH.
    Status,
    /// WAITERS.
    Waiters,
    /// METRICS.
    Metrics,
    /// Who holds an entry.
    Holders(Seq),
    /// A fault verb.
    Fault(Fault),
    /// STORE.
    Store(Seq, Bytes),
    /// Entries of the log, in whole records.
    Read {
        /// Which.
        range: SeqRange,
        /// At most so many bytes, unless the first is longer.
        bytes_max: usize,
    },
    /// One entry.
    Record(Seq),
    /// Epoch and digest at an entry.
    PrefixId(Seq),
}

/// See [`Question`].
#[derive(Debug)]
pub enum Answer {
    /// How the node is.
    Status(Box<Status>),
    /// The lines without END, and how many.
    Waiters(String, usize),
    /// The whole text.
    Metrics(String),
    /// Who holds the entry.
    Holders(NodeSet),
    /// The fault is played.
    Injected,
    /// What became of an entry by hand.
    Stored(Stored),
    /// What could be read.
    Read(Slice),
    /// The entry, if it can be read.
    Record(Option<Record>),
    /// Likewise.
    PrefixId(Option<PrefixId>),
}
