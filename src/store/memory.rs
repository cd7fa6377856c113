//! The log in memory: everything that the disk does, without one.

use std::sync::Arc;

use super::reader::{LogReader, Shared, Tail};
use super::record::Run;
use super::{Bounds, Identity, LogStore, StoreError};
use crate::types::{PrefixId, Seq, SeqRange, Shortage};

/// The log in memory: durable as long as the process lives.
#[derive(Debug)]
pub struct MemoryLog {
    reader: LogReader,
    identity: Identity,
    aside: Vec<SetAside>,
}

/// Entries that were moved out of a log in memory.
#[derive(Clone, Debug)]
pub struct SetAside {
    /// The first of them.
    pub from: Seq,
    /// Why they went.
    pub reason: String,
    /// The entries.
    pub runs: Vec<Run>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        let shared = Shared::new(Tail::new(usize::MAX), None);
        MemoryLog {
            reader: LogReader::new(Arc::new(shared)),
            identity: Identity::default(),
            aside: Vec::new(),
        }
    }

    /// What was moved out of the log since it was made, the oldest first.
    pub fn aside(&self) -> &[SetAside] {
        &self.aside
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        MemoryLog::new()
    }
}

impl LogStore for MemoryLog {
    fn append(&mut self, run: Run) -> Result<(), StoreError> {
        let mut tail = self.reader.tail();
        StoreError::check_continues(&run, tail.bounds)?;
        tail.push(run);
        Ok(())
    }

    fn make_durable(&mut self, up_to: Seq) -> Seq {
        up_to.min(self.bounds().last)
    }

    fn bounds(&self) -> Bounds {
        self.reader.bounds()
    }

    fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    fn room_for(&self, _bytes: usize) -> Result<(), Shortage> {
        Ok(())
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn set_identity(&mut self, identity: Identity) -> Result<(), StoreError> {
        self.identity = identity;
        Ok(())
    }

    fn set_aside(&mut self, from: Seq, reason: &str) -> Result<u64, StoreError> {
        let from = from.max(Seq::FIRST);
        let bounds = self.bounds();
        if from > bounds.last {
            return Ok(0);
        }
        // An entry of the log in memory is always readable.
        let before = self.reader.prefix_id(from.previous()).unwrap_or(PrefixId::EMPTY);
        let bytes = bounds.bytes - self.reader.bytes_after(from.previous());
        let runs = self.reader.tail().truncate(from, before, bytes);
        self.aside.push(SetAside { from, reason: reason.to_owned(), runs });
        Ok(bounds.last.distance_from(from.previous()))
    }

    fn begin_repair(&mut self, run: Run) -> Result<(), StoreError> {
        Err(StoreError::NotDamaged { range: run.range() })
    }

    fn is_repairing(&self) -> bool {
        false
    }

    fn take_repaired(&mut self) -> Option<(SeqRange, Result<(), StoreError>)> {
        None
    }

    fn repair(&mut self, run: Run) -> Result<(), StoreError> {
        self.begin_repair(run)
    }

    fn damage(&self) -> Vec<SeqRange> {
        Vec::new()
    }

    fn close(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{RunBuilder, take_record};
    use crate::types::Epoch;
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
    fn what_is_set_aside_leaves_the_log_and_stays_readable() {
        let mut log = filled(100, 7);
        let whole = log.reader();
        let (at_40, at_100) = (whole.prefix_id(Seq::new(40)), whole.prefix_id(Seq::new(100)));
        let after_40 = whole.bytes_after(Seq::new(40));
        let bytes = whole.bounds().bytes;

        assert_eq!(log.set_aside(Seq::new(41), "the master has others"), Ok(60));

        let bounds = log.bounds();
        assert_eq!((bounds.last, Some(bounds.tail)), (Seq::new(40), at_40));
        assert_eq!(bounds.bytes, bytes - after_40);
        assert_eq!(whole.record(Seq::new(41)), None);
        let aside = &log.aside()[0];
        assert_eq!(aside.runs.iter().map(|run| run.range().len()).sum::<u64>(), 60);
        assert_eq!(aside.runs.last().map(Run::tail), at_100);
        assert_eq!(log.set_aside(Seq::new(41), "again"), Ok(0));

        let payloads: Vec<_> = (41..=50).map(payload).collect();
        append(&mut log, &payloads);
        assert_eq!(log.bounds().last, Seq::new(50));
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
