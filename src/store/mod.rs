//! The log as bytes: records, runs of records, and what keeps them.
//!
//! A node appends and asks for durability through [`LogStore`]; everybody else reads through a
//! cheap shared [`LogReader`]. There are two stores: [`MemoryLog`], and [`DiskLog`] over a small
//! file-system trait ([`fs::Fs`]), under which the tests put one that fails.

pub mod disk;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod faulty;
pub mod fs;
pub mod memory;
pub mod provisional;
mod reader;
pub mod record;

pub use disk::{
    DiskEvent, DiskLog, DiskOptions, Fsync, OpenError, Opened, Recovery, Scrub, SyncStats,
};
pub use memory::MemoryLog;
pub use provisional::Provisional;
pub use reader::LogReader;
pub use record::{Record, RecordError, Run, RunBuilder};

use crate::types::{Epoch, LogId, PrefixId, RunId, Seq, SeqRange, Shortage};
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

/// What a node must not forget beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The history the log belongs to; `None` for a virgin node.
    pub log_id: Option<LogId>,
    /// The highest epoch that the node promised to follow, or led.
    pub epoch: Epoch,
    /// The run of the master that the promise binds.
    pub run_id: RunId,
    /// The settled epoch: the highest whose leader found this log to be a prefix of its own, and before
    /// whose first number everything is stored here. Zero where it was never kept.
    pub settled: Epoch,
    /// The highest commit position known when this was written.
    pub commit: Seq,
    /// Whether the node can vouch for its log: it did not start empty or with a loss, or has since
    /// reached the commit of its epoch.
    pub vouches: bool,
}

/// What a store can do for the one task that owns the log.
pub trait LogStore: Send {
    /// Appends a run that continues the log. When this returns, readers see it; it is durable only
    /// once [`LogStore::make_durable`] or the store's notifier said so.
    ///
    /// # Errors
    /// The run does not continue the log, the disk is full, or the disk failed; nothing changed.
    fn append(&mut self, run: Run) -> Result<(), StoreError>;

    /// Asks that everything up to and including `up_to` becomes durable, and returns what is durable
    /// now, at most `up_to`. In memory and under the policies `interval` and `never` that is all of
    /// it; under `always` it is what syncs have covered so far, and the notifier tells the rest.
    fn make_durable(&mut self, up_to: Seq) -> Seq;

    /// Where the log ends.
    fn bounds(&self) -> Bounds;

    /// A handle for those who only read.
    fn reader(&self) -> LogReader;

    /// Whether there certainly is room for runs of so many bytes together. Room that is not there is
    /// looked for again, at most twice a second. With 0 it is asked for what the store keeps free.
    ///
    /// # Errors
    /// What is missing.
    fn room_for(&self, bytes: usize) -> Result<(), Shortage>;

    /// Whether what the store keeps free for the next run is there.
    fn has_room(&self) -> bool {
        self.room_for(0).is_ok()
    }

    /// What the node must not forget.
    fn identity(&self) -> &Identity;

    /// Replaces it. Durable when this returns.
    ///
    /// # Errors
    /// The disk failed; the old one is still there.
    fn set_identity(&mut self, identity: Identity) -> Result<(), StoreError>;

    /// Moves all entries from `from` on out of the log and keeps them aside; `Seq::FIRST` empties
    /// it. Durable when this returns. Answers how many entries went.
    ///
    /// # Errors
    /// The disk failed or is full; either nothing changed, or the next start finishes it.
    fn set_aside(&mut self, from: Seq, reason: &str) -> Result<u64, StoreError>;

    /// Begins to fill a damaged range, or the first part of it, with a run from a peer, and returns:
    /// the rest is done elsewhere, and the store's notifier says when [`LogStore::take_repaired`] has
    /// what came of it. Meanwhile the log is appended to and read as before, and the range stays
    /// unreadable. The run must continue the entry before and, where it ends the range, lead to the
    /// entry behind it. The damaged file is kept. Each repair may write a segment anew, so a long range
    /// is filled with long runs; only one is done at a time.
    ///
    /// # Errors
    /// The run does not begin where damage does, or the disk failed or is full; nothing changed.
    ///
    /// # Panics
    /// What came of the one before was not taken.
    fn begin_repair(&mut self, run: Run) -> Result<(), StoreError>;

    /// Whether there is a repair whose outcome was not taken.
    fn is_repairing(&self) -> bool;

    /// What was handed in for a repair, and what came of it, once it is over: all of it is readable and
    /// durable, or the log is as it was but for segments that were filled before the failure.
    fn take_repaired(&mut self) -> Option<(SeqRange, Result<(), StoreError>)>;

    /// A repair from beginning to end, however long that takes.
    ///
    /// # Errors
    /// The run does not fit there, or the disk failed or is full.
    fn repair(&mut self, run: Run) -> Result<(), StoreError>;

    /// The ranges that cannot be read, ascending.
    fn damage(&self) -> Vec<SeqRange>;

    /// Ends with everything on disk and a mark that says so. Nothing may be called afterwards but
    /// what only reads.
    fn close(&mut self);
}

/// Why a store did not do what it was asked for. State unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The run begins elsewhere than the log ends.
    #[error("BUG: a run starting at {first} was appended to a log ending at {last}")]
    NotContiguous {
        /// Where the run begins.
        first: Seq,
        /// Where the log ends.
        last: Seq,
    },
    /// The run continues another history than the log has.
    #[error("BUG: the run {range} continues another entry than the log holds there")]
    Unfit {
        /// The run.
        range: SeqRange,
    },
    /// The run was to repair what is whole, or not the first part of what is damaged.
    #[error("{range} does not begin where a damaged range does")]
    NotDamaged {
        /// The run.
        range: SeqRange,
    },
    /// No space is left.
    #[error("no space is left on the disk: make room there, and the node goes on by itself")]
    Full,
    /// A file had to be opened and could not be: this process, or the machine, has too many open.
    #[error(
        "cannot {what}: too many files are open; allow this node more of them (ulimit -n), then start \
         it again, nothing is lost"
    )]
    NoDescriptor {
        /// What was tried.
        what: String,
    },
    /// The directory, or a file that is written to, is not where it was: what is written from now on
    /// would be found by nobody.
    #[error("{what}")]
    Gone {
        /// What was found, and what to do.
        what: String,
    },
    /// The disk failed.
    #[error(
        "cannot {what}: {error}; look at the disk and its file system, then start the node again"
    )]
    Failed {
        /// What was tried.
        what: String,
        /// What the system said.
        error: String,
    },
}

impl StoreError {
    fn failed(what: impl Into<String>, error: &std::io::Error) -> Self {
        StoreError::Failed { what: what.into(), error: error.to_string() }
    }

    /// Whether a run continues a log that ends with `bounds`.
    fn check_continues(run: &Run, bounds: Bounds) -> Result<(), StoreError> {
        let range = run.range();
        if range.first != bounds.last.next() {
            return Err(StoreError::NotContiguous { first: range.first, last: bounds.last });
        }
        if run.before() != bounds.tail {
            return Err(StoreError::Unfit { range });
        }
        Ok(())
    }
}

/// Consecutive records as they lie in the log: shared, in as many pieces as they lie in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Which entries; `None` if there are none.
    pub range: Option<SeqRange>,
    /// Epoch and digest before the first, as far as that is known without looking further.
    pub before: Option<PrefixId>,
    /// Their bytes.
    pub pieces: Vec<Bytes>,
    /// The sum of the pieces' lengths.
    pub bytes: usize,
}
