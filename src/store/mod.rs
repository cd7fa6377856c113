//! The log as bytes: records, runs of records, and what keeps them.
//!
//! The driver appends and asks for durability through [`LogStore`]; everybody else reads through a
//! cheap shared [`LogReader`]. In this version the only store is [`MemoryLog`]; a disk stands
//! behind the same calls.

pub mod memory;
pub mod provisional;
pub mod record;

pub use memory::{LogReader, MemoryLog};
pub use provisional::Provisional;
pub use record::{Record, RecordError, Run, RunBuilder};

use crate::types::{PrefixId, Seq, SeqRange};
use bytes::Bytes;

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The last entry; `Seq::ZERO` for an empty log.
    pub last: Seq,
    /// Epoch and chain digest at the last entry.
    pub tail: PrefixId,
    /// Bytes of all records.
    pub bytes: u64,
}

/// What a store can do for the one task that owns the log.
pub trait LogStore {
    /// Appends a run that continues the log. When this returns, readers see it; it is durable only
    /// once [`LogStore::make_durable`] said so.
    ///
    /// # Errors
    /// The run does not continue the log; nothing changed.
    fn append(&mut self, run: Run) -> Result<(), StoreError>;

    /// Makes everything up to and including `up_to` durable, as far as this store can, and returns
    /// the position that now is.
    fn make_durable(&mut self, up_to: Seq) -> Seq;

    /// Where the log ends.
    fn bounds(&self) -> Bounds;

    /// A handle for those who only read.
    fn reader(&self) -> LogReader;
}

/// Why a store did not take a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The run begins elsewhere than the log ends. State unchanged.
    #[error("BUG: a run starting at {first} was appended to a log ending at {last}")]
    NotContiguous {
        /// Where the run begins.
        first: Seq,
        /// Where the log ends.
        last: Seq,
    },
}

/// Consecutive records as they lie in the log: shared, in as many pieces as they lie in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Which entries; `None` if there are none.
    pub range: Option<SeqRange>,
    /// Their bytes.
    pub pieces: Vec<Bytes>,
    /// The sum of the pieces' lengths.
    pub bytes: usize,
}
