//! The log in memory: a list of runs, shared with readers.
//!
//! A run is kept in the memory it arrived in: on the master the buffer its records were built in,
//! on a secondary a piece of the receive buffer. Runs of a few records would keep large buffers
//! alive and make long reads slow, so small neighbours are copied together, each byte once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::{Record, Run};
use super::{Bounds, LogStore, Slice, StoreError};
use crate::limits::{EPOCH_TABLE_ROWS_MAX, RUN_ENTRIES_MAX};
use crate::types::{Epoch, PrefixId, Seq, SeqRange};

/// Runs shorter than this are copied together …
const SMALL_RUN_BYTES: usize = 32 << 10;
/// … as soon as so many bytes of them stand side by side.
const JOINED_RUN_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
struct Runs {
    runs: Vec<Run>,
    /// Byte position in the log at which each run starts; parallel to `runs`.
    starts: Vec<u64>,
    /// The runs from here on are small and not yet joined …
    small_from: usize,
    /// … and have so many bytes.
    small_bytes: usize,
    bytes: u64,
    /// Where each epoch begins, ascending.
    epochs: Vec<(Epoch, Seq)>,
}

impl Runs {
    fn last(&self) -> Seq {
        self.runs.last().map_or(Seq::ZERO, |run| run.range().last())
    }

    fn push(&mut self, run: Run) {
        let len = run.len_bytes();
        self.epochs.extend_from_slice(run.epochs());
        self.starts.push(self.bytes);
        self.bytes += len as u64;
        self.runs.push(run);
        if len >= SMALL_RUN_BYTES {
            self.small_from = self.runs.len();
            self.small_bytes = 0;
            return;
        }
        self.small_bytes += len;
        if self.small_bytes >= JOINED_RUN_BYTES {
            self.join_small();
        }
    }

    fn join_small(&mut self) {
        if let Some(joined) = Run::concat(&self.runs[self.small_from..]) {
            self.runs.truncate(self.small_from);
            self.starts.truncate(self.small_from + 1);
            self.runs.push(joined);
        }
        self.small_from = self.runs.len();
        self.small_bytes = 0;
    }

    /// The index of the run that holds `seq`, if the log holds it.
    fn index_of(&self, seq: Seq) -> Option<usize> {
        let index = self.runs.partition_point(|run| run.range().end <= seq);
        self.runs.get(index)?.range().contains(seq).then_some(index)
    }

    fn read(&self, range: SeqRange, bytes_max: usize) -> Slice {
        let mut slice = Slice::default();
        let wanted = range.intersection(SeqRange::new(Seq::FIRST, self.last().next()));
        let Some(index) = (!wanted.is_empty()).then(|| self.index_of(wanted.first)).flatten()
        else {
            return slice;
        };
        let mut next = wanted.first;
        for run in &self.runs[index..] {
            let entries_left = RUN_ENTRIES_MAX as u64 - next.distance_from(wanted.first);
            let bytes_left = bytes_max.saturating_sub(slice.bytes);
            let count = run
                .fitting(next, bytes_left)
                .min(wanted.end.distance_from(next))
                .min(entries_left)
                .min(run.range().end.distance_from(next));
            let piece = run.slice(SeqRange::with_len(next, count));
            if count == 0 || (slice.bytes > 0 && slice.bytes + piece.len() > bytes_max) {
                break;
            }
            slice.bytes += piece.len();
            slice.pieces.push(piece);
            next = next.plus(count);
            if next < run.range().end {
                break;
            }
        }
        slice.range = Some(SeqRange::new(wanted.first, next));
        slice
    }
}

/// A shared, read-only view of the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogReader {
    // A lock held for the time of a binary search or of joining 64 KiB; never across an await.
    runs: Arc<Mutex<Runs>>,
}

impl LogReader {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        // A panic while the lock was held is a bug that ends the process: see `panic = "abort"`.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the log ends.
    pub fn bounds(&self) -> Bounds {
        let runs = self.runs();
        Bounds {
            last: runs.last(),
            tail: runs.runs.last().map_or(PrefixId::EMPTY, Run::tail),
            bytes: runs.bytes,
        }
    }

    /// The entries of `range` that are there, from its first on: at most `bytes_max` bytes and
    /// `RUN_ENTRIES_MAX` records, but at least one record if there is one.
    pub fn read(&self, range: SeqRange, bytes_max: usize) -> Slice {
        self.runs().read(range, bytes_max)
    }

    /// One entry.
    pub fn record(&self, seq: Seq) -> Option<Record> {
        let runs = self.runs();
        runs.runs[runs.index_of(seq)?].record(seq)
    }

    /// Epoch and chain digest at `seq`; of the empty prefix for `Seq::ZERO`.
    pub fn prefix_id(&self, seq: Seq) -> Option<PrefixId> {
        if seq == Seq::ZERO {
            return Some(PrefixId::EMPTY);
        }
        let runs = self.runs();
        runs.runs[runs.index_of(seq)?].prefix_id(seq)
    }

    /// Where each epoch with entries begins, the newest last, at most the newest
    /// `EPOCH_TABLE_ROWS_MAX`.
    pub fn epoch_table(&self) -> Vec<(Epoch, Seq)> {
        let runs = self.runs();
        let from = runs.epochs.len().saturating_sub(EPOCH_TABLE_ROWS_MAX);
        runs.epochs[from..].to_vec()
    }

    /// Bytes of all records behind `seq`.
    pub fn bytes_after(&self, seq: Seq) -> u64 {
        let runs = self.runs();
        let Some(index) = runs.index_of(seq.next()) else { return 0 };
        let within = runs.runs[index].offset(seq.next()).unwrap_or(0) as u64;
        runs.bytes - runs.starts[index] - within
    }
}

/// The log in memory: durable as long as the process lives.
#[derive(Debug)]
pub struct MemoryLog {
    reader: LogReader,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        MemoryLog { reader: LogReader { runs: Arc::default() } }
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        MemoryLog::new()
    }
}

impl LogStore for MemoryLog {
    fn append(&mut self, run: Run) -> Result<(), StoreError> {
        let mut runs = self.reader.runs();
        let last = runs.last();
        if run.range().first != last.next() {
            return Err(StoreError::NotContiguous { first: run.range().first, last });
        }
        runs.push(run);
        Ok(())
    }

    fn make_durable(&mut self, up_to: Seq) -> Seq {
        up_to.min(self.reader.bounds().last)
    }

    fn bounds(&self) -> Bounds {
        self.reader.bounds()
    }

    fn reader(&self) -> LogReader {
        self.reader.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{RunBuilder, take_record};
    use bytes::{Bytes, BytesMut};

    fn append(log: &mut MemoryLog, payloads: &[Vec<u8>]) {
        let mut arena = BytesMut::new();
        let bounds = log.bounds();
        let mut builder = RunBuilder::new(&mut arena, bounds.last, bounds.tail);
        payloads.iter().for_each(|payload| builder.push(Epoch::new(1), 0, payload));
        log.append(builder.finish(&mut arena).expect("not empty")).expect("contiguous");
    }

    fn payload(number: u64) -> Vec<u8> {
        format!("{number}:").repeat(1 + (number % 50) as usize).into_bytes()
    }

    fn filled(entries: u64, batch: usize) -> MemoryLog {
        let mut log = MemoryLog::new();
        let payloads: Vec<_> = (1..=entries).map(payload).collect();
        payloads.chunks(batch).for_each(|chunk| append(&mut log, chunk));
        log
    }

    #[test]
    fn what_was_appended_is_read_back_whatever_the_batches_were() {
        for batch in [1, 7, 1000] {
            let reader = filled(3000, batch).reader();
            let mut next = Seq::FIRST;
            while next <= Seq::new(3000) {
                let slice = reader.read(SeqRange::new(next, Seq::new(9999)), 10_000);
                let range = slice.range.expect("entries are left");
                assert_eq!(range.first, next);
                let mut bytes: Bytes = slice.pieces.concat().into();
                assert_eq!(bytes.len(), slice.bytes);
                assert!(slice.bytes <= 10_000);
                for number in range.first.number()..range.end.number() {
                    let record = take_record(&mut bytes).expect("a whole record");
                    assert_eq!(record.seq, Seq::new(number));
                    assert_eq!(record.payload, payload(number));
                }
                assert!(bytes.is_empty());
                next = range.end;
            }
        }
    }

    #[test]
    fn reading_beyond_the_end_gives_nothing() {
        let reader = filled(10, 3).reader();
        assert_eq!(reader.read(SeqRange::new(Seq::new(11), Seq::new(20)), 100).range, None);
        assert_eq!(reader.record(Seq::ZERO), None);
        assert_eq!(reader.record(Seq::new(11)), None);
    }

    #[test]
    fn a_run_that_leaves_a_hole_is_refused() {
        let source = filled(10, 10).reader();
        let slice = source.read(SeqRange::new(Seq::new(5), Seq::new(6)), 1 << 20);
        let before = source.prefix_id(Seq::new(4)).expect("it is there");
        let run = Run::verify(slice.pieces.concat().into(), Seq::new(5), 1, before);
        let mut log = filled(3, 1);
        let refused = log.append(run.expect("a good run"));
        assert_eq!(
            refused,
            Err(StoreError::NotContiguous { first: Seq::new(5), last: Seq::new(3) })
        );
    }

    #[test]
    fn bytes_after_is_the_sum_of_the_later_records() {
        let log = filled(500, 3);
        let reader = log.reader();
        for seq in [0, 1, 3, 250, 499, 500] {
            let sum: u64 = (seq + 1..=500).map(|number| 48 + payload(number).len() as u64).sum();
            assert_eq!(reader.bytes_after(Seq::new(seq)), sum, "after {seq}");
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_the_batches() {
        let (one, many) = (filled(1000, 1).reader(), filled(1000, 333).reader());
        for seq in [1, 2, 500, 1000] {
            assert_eq!(one.prefix_id(Seq::new(seq)), many.prefix_id(Seq::new(seq)));
        }
    }
}
