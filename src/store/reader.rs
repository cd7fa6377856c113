//! The one handle for those who only read a log, be it in memory or on disk, and the newest entries
//! that it shares with the writer.
//!
//! A run is kept in the memory it arrived in: on the master the buffer its records were built in,
//! on a secondary a piece of the receive buffer. Runs of a few records would keep large buffers
//! alive and make long reads slow, so small neighbours are copied together, each byte once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::scan::Place;
use super::disk::segments::{DiskRead, Segments};
use super::record::{Record, Run, take_record};
use super::{Bounds, Slice};
use crate::limits::{EPOCH_TABLE_ROWS_MAX, RUN_ENTRIES_MAX};
use crate::types::{Epoch, PrefixId, Seq, SeqRange};

/// Runs shorter than this are copied together …
const SMALL_RUN_BYTES: usize = 32 << 10;
/// … as soon as so many bytes of them stand side by side.
const JOINED_RUN_BYTES: usize = 64 << 10;

/// Where the log ends, what of it is unreadable, and its newest runs.
#[derive(Debug)]
pub(super) struct Tail {
    runs: VecDeque<Run>,
    /// Byte position in the log at which each run starts; parallel to `runs`.
    starts: VecDeque<u64>,
    /// The runs from here on are small and not yet joined …
    small_from: usize,
    /// … and have so many bytes.
    small_bytes: usize,
    /// Bytes of the runs that are kept, and how many there may be.
    kept_bytes: usize,
    kept_bytes_max: usize,
    pub(super) bounds: Bounds,
    /// Where each epoch begins, ascending.
    pub(super) epochs: Vec<(Epoch, Seq)>,
    /// What cannot be read: apart from each other, ascending.
    pub(super) damage: Vec<SeqRange>,
    /// Counts how often entries were taken back or files exchanged: what was read meanwhile means
    /// nothing.
    pub(super) generation: u64,
}

impl Tail {
    pub(super) fn new(kept_bytes_max: usize) -> Self {
        Tail {
            runs: VecDeque::new(),
            starts: VecDeque::new(),
            small_from: 0,
            small_bytes: 0,
            kept_bytes: 0,
            kept_bytes_max,
            bounds: Bounds { last: Seq::ZERO, tail: PrefixId::EMPTY, bytes: 0 },
            epochs: Vec::new(),
            damage: Vec::new(),
            generation: 0,
        }
    }

    pub(super) fn push(&mut self, run: Run) {
        let len = run.len_bytes();
        self.epochs.extend_from_slice(run.epochs());
        self.starts.push_back(self.bounds.bytes);
        self.bounds = Bounds {
            last: run.range().last(),
            tail: run.tail(),
            bytes: self.bounds.bytes + len as u64,
        };
        self.kept_bytes += len;
        self.runs.push_back(run);
        if len >= SMALL_RUN_BYTES {
            self.small_from = self.runs.len();
            self.small_bytes = 0;
        } else {
            self.small_bytes += len;
            if self.small_bytes >= JOINED_RUN_BYTES {
                self.join_small();
            }
        }
        while self.kept_bytes > self.kept_bytes_max && self.runs.len() > 1 {
            self.drop_oldest();
        }
    }

    fn join_small(&mut self) {
        let runs = self.runs.make_contiguous();
        if let Some(joined) = Run::concat(&runs[self.small_from..]) {
            self.runs.truncate(self.small_from);
            self.starts.truncate(self.small_from + 1);
            self.runs.push_back(joined);
        }
        self.small_from = self.runs.len();
        self.small_bytes = 0;
    }

    fn drop_oldest(&mut self) {
        let Some(run) = self.runs.pop_front() else { return };
        self.starts.pop_front();
        self.kept_bytes -= run.len_bytes();
        match self.small_from.checked_sub(1) {
            Some(small_from) => self.small_from = small_from,
            None => self.small_bytes -= run.len_bytes(),
        }
    }

    /// Takes back everything from `from` on; `tail` is what then is the end, and `bytes` the log's
    /// length. Returns the runs that were taken back as far as they were kept.
    pub(super) fn truncate(&mut self, from: Seq, tail: PrefixId, bytes: u64) -> Vec<Run> {
        let mut taken = Vec::new();
        while self.runs.back().is_some_and(|run| run.range().end > from) {
            let (Some(run), Some(start)) = (self.runs.pop_back(), self.starts.pop_back()) else {
                break;
            };
            self.kept_bytes -= run.len_bytes();
            taken.extend(run.clone().split_from(from));
            if let Some(kept) = run.split_until(from) {
                self.kept_bytes += kept.len_bytes();
                self.starts.push_back(start);
                self.runs.push_back(kept);
            }
        }
        taken.reverse();
        self.small_from = self.runs.len();
        self.small_bytes = 0;
        self.epochs.retain(|&(_, first)| first < from);
        self.bounds = Bounds { last: from.previous(), tail, bytes };
        self.generation += 1;
        taken
    }

    /// The first entry that is kept in memory.
    pub(super) fn kept_from(&self) -> Seq {
        self.runs.front().map_or(self.bounds.last.next(), |run| run.range().first)
    }

    /// The index of the run that holds `seq`, if one does.
    fn index_of(&self, seq: Seq) -> Option<usize> {
        let index = self.runs.partition_point(|run| run.range().end <= seq);
        self.runs.get(index)?.range().contains(seq).then_some(index)
    }

    /// Epoch and digest before `seq`, which the run at `index` holds.
    fn before(&self, seq: Seq, index: usize) -> Option<PrefixId> {
        let run = self.runs.get(index)?;
        if seq == run.range().first { Some(run.before()) } else { run.prefix_id(seq.previous()) }
    }

    /// What of `range` is in the log and whole, from its first on.
    fn readable(&self, range: SeqRange) -> SeqRange {
        let mut range = range.intersection(SeqRange::inclusive(Seq::FIRST, self.bounds.last));
        let next = self.damage.partition_point(|damage| damage.end <= range.first);
        if let Some(damage) = self.damage.get(next) {
            range.end = range.end.min(damage.first.max(range.first));
        }
        range
    }

    /// Whether `seq` lies in what cannot be read.
    pub(super) fn is_unreadable(&self, seq: Seq) -> bool {
        self.damage.iter().any(|damage| damage.contains(seq))
    }

    /// Notes that `range` cannot be read. `false` if that was known.
    pub(super) fn add_damage(&mut self, range: SeqRange) -> bool {
        if range.is_empty() {
            return false;
        }
        let known = |seen: &SeqRange| seen.first <= range.first && range.end <= seen.end;
        if self.damage.iter().any(known) {
            return false;
        }
        self.damage.push(range);
        self.damage.sort();
        let mut joined: Vec<SeqRange> = Vec::new();
        for range in self.damage.drain(..) {
            match joined.last_mut() {
                Some(last) if range.first <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        self.damage = joined;
        true
    }

    /// Notes that `range` can be read again.
    pub(super) fn clear_damage(&mut self, range: SeqRange) {
        let pieces = self.damage.iter().flat_map(|&damage| {
            [
                SeqRange::new(damage.first, damage.end.min(range.first)),
                SeqRange::new(damage.first.max(range.end), damage.end),
            ]
        });
        self.damage = pieces.filter(|piece| !piece.is_empty()).collect();
        self.generation += 1;
    }

    fn read(&self, wanted: SeqRange, bytes_max: usize) -> Slice {
        let mut slice = Slice::default();
        let Some(index) = (!wanted.is_empty()).then(|| self.index_of(wanted.first)).flatten()
        else {
            return slice;
        };
        let mut next = wanted.first;
        slice.before = self.before(next, index);
        for run in self.runs.range(index..) {
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

pub(super) struct Shared {
    // A lock held for the time of a binary search or of joining 64 KiB; never across an await, and
    // never while the disk is read.
    tail: Mutex<Tail>,
    pub(super) segments: Option<Segments>,
}

impl Shared {
    pub(super) fn new(tail: Tail, segments: Option<Segments>) -> Self {
        Shared { tail: Mutex::new(tail), segments }
    }

    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        // A panic while the lock was held is a bug that ends the process: see `panic = "abort"`.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from disk. What turns out not to be whole is noted and told, once.
    pub(super) fn read_disk(
        &self,
        segments: &Segments,
        range: SeqRange,
        bytes_max: usize,
        place: Option<Place>,
        generation: u64,
    ) -> DiskRead {
        let read = segments.read(range, bytes_max, place);
        let mut tail = self.tail();
        if tail.generation != generation {
            return DiskRead::Nothing;
        }
        if let DiskRead::Damage(range, reason) = &read
            && tail.add_damage(*range)
        {
            drop(tail);
            segments.tell_damage(*range, reason.clone());
        }
        read
    }
}

/// A shared, read-only view of the log. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").field("bounds", &self.bounds()).finish_non_exhaustive()
    }
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        LogReader { shared }
    }

    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.shared.tail()
    }

    /// Where the log ends.
    pub fn bounds(&self) -> Bounds {
        self.tail().bounds
    }

    /// The entries of `range` that are there, from its first on: at most `bytes_max` bytes and
    /// `RUN_ENTRIES_MAX` records, but at least one record if there is one. Fewer where the log goes
    /// from one file to the next or from disk to memory, and none of a damaged range.
    ///
    /// May read from disk, at most `bytes_max` bytes and a little more.
    pub fn read(&self, range: SeqRange, bytes_max: usize) -> Slice {
        // A second look if entries were taken back meanwhile.
        for _ in 0..2 {
            let (wanted, generation) = {
                let tail = self.tail();
                let wanted = tail.readable(range);
                if wanted.is_empty() || wanted.first >= tail.kept_from() {
                    return tail.read(wanted, bytes_max);
                }
                (SeqRange::new(wanted.first, wanted.end.min(tail.kept_from())), tail.generation)
            };
            let Some(segments) = &self.shared.segments else { break };
            match self.shared.read_disk(segments, wanted, bytes_max, None, generation) {
                DiskRead::Entries(entries) => {
                    let bytes = entries.bytes.len();
                    return Slice {
                        range: Some(entries.range),
                        before: entries.before,
                        pieces: vec![entries.bytes],
                        bytes,
                    };
                }
                DiskRead::Damage(..) => break,
                DiskRead::Nothing => {}
            }
        }
        Slice::default()
    }

    /// Whether a read of `seq` goes to the disk, which may take its time.
    pub fn is_cold(&self, seq: Seq) -> bool {
        let tail = self.tail();
        self.shared.segments.is_some()
            && (Seq::FIRST..=tail.bounds.last).contains(&seq)
            && seq < tail.kept_from()
            && !tail.is_unreadable(seq)
    }

    /// One entry.
    pub fn record(&self, seq: Seq) -> Option<Record> {
        {
            let tail = self.tail();
            if tail.is_unreadable(seq) {
                return None;
            }
            if let Some(index) = tail.index_of(seq) {
                return tail.runs[index].record(seq);
            }
        }
        let mut slice = self.read(SeqRange::with_len(seq, 1), 1);
        take_record(slice.pieces.first_mut()?).ok()
    }

    /// Epoch and chain digest at `seq`; of the empty prefix for `Seq::ZERO`. `None` beyond the end
    /// and in a damaged range.
    pub fn prefix_id(&self, seq: Seq) -> Option<PrefixId> {
        if seq == Seq::ZERO {
            return Some(PrefixId::EMPTY);
        }
        {
            let tail = self.tail();
            if seq == tail.bounds.last {
                return Some(tail.bounds.tail);
            }
            if tail.is_unreadable(seq) {
                return None;
            }
            if let Some(index) = tail.index_of(seq) {
                return tail.runs[index].prefix_id(seq);
            }
        }
        let record = self.record(seq)?;
        Some(PrefixId { epoch: record.epoch, digest: record.digest })
    }

    /// Where each epoch with entries begins, the newest last, at most the newest
    /// `EPOCH_TABLE_ROWS_MAX`.
    pub fn epoch_table(&self) -> Vec<(Epoch, Seq)> {
        let tail = self.tail();
        let from = tail.epochs.len().saturating_sub(EPOCH_TABLE_ROWS_MAX);
        tail.epochs[from..].to_vec()
    }

    /// The epoch that numbered an entry, without reading from disk. `None` beyond the end.
    pub fn epoch_of(&self, seq: Seq) -> Option<Epoch> {
        let tail = self.tail();
        let row = tail.epochs.partition_point(|&(_, first)| first <= seq).checked_sub(1)?;
        (seq <= tail.bounds.last).then_some(tail.epochs[row].0)
    }

    /// Bytes of all records behind `seq`.
    pub fn bytes_after(&self, seq: Seq) -> u64 {
        self.bytes_kept_after(seq).unwrap_or_else(|| {
            self.shared.segments.as_ref().map_or(0, |segments| segments.bytes_from(seq.next()))
        })
    }

    /// The same without reading from disk: about, where entries are not in memory.
    pub fn bytes_after_about(&self, seq: Seq) -> u64 {
        self.bytes_kept_after(seq).unwrap_or_else(|| {
            let segments = self.shared.segments.as_ref();
            segments.map_or(0, |segments| segments.bytes_from_about(seq.next()))
        })
    }

    /// The same if what follows `seq` is in memory, or nothing.
    fn bytes_kept_after(&self, seq: Seq) -> Option<u64> {
        let next = seq.next();
        let tail = self.tail();
        if let Some(index) = tail.index_of(next) {
            let within = tail.runs[index].offset(next).unwrap_or(0) as u64;
            return Some(tail.bounds.bytes - tail.starts[index] - within);
        }
        (next > tail.bounds.last).then_some(0)
    }

    /// Whether the log has an entry `seq` that cannot be read because it is damaged.
    pub fn is_unreadable(&self, seq: Seq) -> bool {
        self.tail().is_unreadable(seq)
    }
}
