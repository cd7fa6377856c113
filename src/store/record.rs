//! One record: the bytes of an entry, the same in memory, on the wire and on disk.
//!
//! ```text
//!  byte   0        header checksum   u32   CRC-32C of bytes 4 to 47
//!         4        body checksum     u32   CRC-32C of the body
//!         8        digest            u64   chain digest up to and including this entry
//!        16        body length       u32
//!        20        flags             u16   bit 0: the body starts with a producer; bit 15: not an
//!                                         entry but a control record, on disk only
//!        22        reserved          u16   0
//!        24        sequence number   u64
//!        32        epoch             u64
//!        40        time              u64   ms since 1970, information only
//!        48        body                    [producer: u8 length, id, u64 number] payload
//! ```
//!
//! Numbers are little-endian. The header has a checksum of its own, so that a flipped length cannot
//! hide what follows. The digest is `XXH64(bytes 16 to the end, seed = digest of the entry before)`:
//! it covers everything the record says and, through the seed, every entry before it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::checksum::{crc32c, xxh64};
use crate::limits::{PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RECORD_PRODUCER_BYTES_MAX};
use crate::types::{Digest, Epoch, PrefixId, Seq, SeqRange};

/// Flag: the body starts with a producer.
const FLAG_PRODUCER: u16 = 1;

/// Flag: not an entry but a control record, which exists on disk only: see `store::disk`. A run
/// from elsewhere that has one is refused.
pub(super) const FLAG_CONTROL: u16 = 1 << 15;

/// A verified record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The entry's number.
    pub seq: Seq,
    /// The epoch that numbered it.
    pub epoch: Epoch,
    /// When the master numbered it, ms since 1970.
    pub time_ms: u64,
    /// Chain digest up to and including it.
    pub digest: Digest,
    /// The payload, shared with the bytes it was read from.
    pub payload: Bytes,
}

/// Why bytes are not the records they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Ends in the middle of a record.
    #[error("the bytes end in the middle of a record")]
    Truncated,
    /// A header whose checksum is wrong.
    #[error("a record header has a wrong checksum")]
    BadHeader,
    /// A body whose checksum is wrong.
    #[error("entry {0} has a wrong checksum")]
    BadBody(Seq),
    /// A length, flag or producer that cannot be.
    #[error("entry {0} has a layout that this version does not know")]
    BadLayout(Seq),
    /// Not the number that should follow.
    #[error("entry {found} where entry {expected} should be")]
    BadSeq {
        /// What should follow.
        expected: Seq,
        /// What is there.
        found: Seq,
    },
    /// The digest does not continue the chain.
    #[error("entry {0} does not continue the chain of digests")]
    BadDigest(Seq),
    /// Epochs fall.
    #[error("entry {0} has a lower epoch than the one before")]
    BadEpoch(Seq),
    /// Of epoch 0, under which nobody numbers.
    #[error("entry {0} names no epoch")]
    NoEpoch(Seq),
    /// Of an epoch above that of whoever sent it.
    #[error("entry {0} is of an epoch that had not begun when it was sent")]
    FutureEpoch(Seq),
    /// Other entries than the frame's head says.
    #[error("{found} records where {expected} were announced")]
    BadCount {
        /// As announced.
        expected: u64,
        /// As found.
        found: u64,
    },
}

/// The fixed head of a record, its checksum right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(super) body_crc: u32,
    pub(super) digest: Digest,
    pub(super) body_len: usize,
    pub(super) flags: u16,
    /// 0 for an entry; which kind of control record.
    pub(super) kind: u16,
    pub(crate) seq: Seq,
    pub(super) epoch: Epoch,
    pub(super) time_ms: u64,
}

impl Header {
    /// The head of an entry.
    fn decode(bytes: &[u8]) -> Result<Header, RecordError> {
        let header = Header::decode_any(bytes)?;
        if header.is_control() {
            return Err(RecordError::BadLayout(header.seq));
        }
        Ok(header)
    }

    /// The head of an entry or of a control record.
    pub(super) fn decode_any(bytes: &[u8]) -> Result<Header, RecordError> {
        let Some(mut header) = bytes.first_chunk::<RECORD_HEADER_BYTES>().map(|head| &head[..])
        else {
            return Err(RecordError::Truncated);
        };
        let computed = crc32c(&header[4..]);
        if header.get_u32_le() != computed {
            return Err(RecordError::BadHeader);
        }
        let body_crc = header.get_u32_le();
        let digest = Digest::new(header.get_u64_le());
        let body_len = header.get_u32_le() as usize;
        let flags = header.get_u16_le();
        let kind = header.get_u16_le();
        let seq = Seq::new(header.get_u64_le());
        let epoch = Epoch::new(header.get_u64_le());
        let time_ms = header.get_u64_le();
        if body_len > PAYLOAD_BYTES_MAX + RECORD_PRODUCER_BYTES_MAX
            || flags & !(FLAG_PRODUCER | FLAG_CONTROL) != 0
            || (flags & FLAG_CONTROL == 0 && kind != 0)
        {
            return Err(RecordError::BadLayout(seq));
        }
        Ok(Header { body_crc, digest, body_len, flags, kind, seq, epoch, time_ms })
    }

    pub(crate) fn is_control(&self) -> bool {
        self.flags & FLAG_CONTROL != 0
    }

    pub(super) fn prefix_id(&self) -> PrefixId {
        PrefixId { epoch: self.epoch, digest: self.digest }
    }

    pub(super) fn record_len(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_len
    }

    /// Whether `record`, whose head this is, is entry `expected` and whole, and continues `before`
    /// if that is known.
    pub(super) fn check(
        &self,
        record: &[u8],
        expected: Seq,
        before: Option<PrefixId>,
    ) -> Result<(), RecordError> {
        if self.seq != expected {
            return Err(RecordError::BadSeq { expected, found: self.seq });
        }
        if crc32c(&record[RECORD_HEADER_BYTES..]) != self.body_crc {
            return Err(RecordError::BadBody(self.seq));
        }
        self.payload_at(&record[RECORD_HEADER_BYTES..])?;
        let Some(before) = before else { return Ok(()) };
        if self.epoch < before.epoch {
            return Err(RecordError::BadEpoch(self.seq));
        }
        if xxh64(&record[16..], before.digest.value()) != self.digest.value() {
            return Err(RecordError::BadDigest(self.seq));
        }
        Ok(())
    }

    /// Where the payload starts in the body.
    fn payload_at(&self, body: &[u8]) -> Result<usize, RecordError> {
        if self.flags & FLAG_PRODUCER == 0 {
            return Ok(0);
        }
        let id_len = usize::from(*body.first().ok_or(RecordError::BadLayout(self.seq))?);
        let at = 1 + id_len + 8;
        if (1..=64).contains(&id_len) && at <= body.len() {
            Ok(at)
        } else {
            Err(RecordError::BadLayout(self.seq))
        }
    }
}

/// Takes the first record off `bytes`, checking both checksums.
///
/// # Errors
/// `Truncated`, `BadHeader`, `BadBody` or `BadLayout`; `bytes` is then as it was.
pub fn take_record(bytes: &mut Bytes) -> Result<Record, RecordError> {
    let header = Header::decode(bytes)?;
    if bytes.len() < header.record_len() {
        return Err(RecordError::Truncated);
    }
    let body = bytes.slice(RECORD_HEADER_BYTES..header.record_len());
    if crc32c(&body) != header.body_crc {
        return Err(RecordError::BadBody(header.seq));
    }
    let payload_at = header.payload_at(&body)?;
    bytes.advance(header.record_len());
    Ok(Record {
        seq: header.seq,
        epoch: header.epoch,
        time_ms: header.time_ms,
        digest: header.digest,
        payload: body.slice(payload_at..),
    })
}

/// Consecutive records that were checked: numbers dense, checksums right, digests chained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    range: SeqRange,
    before: PrefixId,
    tail: PrefixId,
    /// Where an epoch other than the one before begins, mostly nowhere.
    epochs: Vec<(Epoch, Seq)>,
    /// Where each record starts in `bytes`.
    offsets: Vec<u32>,
    bytes: Bytes,
}

impl Run {
    /// Checks bytes that came from elsewhere: `count` records from `first` on, chained to `before`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(
        bytes: Bytes,
        first: Seq,
        count: u64,
        before: PrefixId,
    ) -> Result<Run, RecordError> {
        let mut offsets = Vec::with_capacity(count.min(bytes.len() as u64 / 48) as usize);
        let mut tail = before;
        let mut epochs = Vec::new();
        let mut expected = first;
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let header = Header::decode(rest)?;
            let record = rest.get(..header.record_len()).ok_or(RecordError::Truncated)?;
            header.check(record, expected, Some(tail))?;
            offsets.push(at as u32); // Frames are shorter than 4 GiB: see FRAME_BODY_BYTES_MAX.
            if header.epoch != tail.epoch {
                epochs.push((header.epoch, header.seq));
            }
            tail = PrefixId { epoch: header.epoch, digest: header.digest };
            expected = expected.next();
            at += header.record_len();
        }
        let found = offsets.len() as u64;
        if found != count || found == 0 {
            return Err(RecordError::BadCount { expected: count, found });
        }
        Ok(Run { range: SeqRange::with_len(first, count), before, tail, epochs, offsets, bytes })
    }

    /// The same for what came in a frame of epoch `now`: no entry can be of a later one, and once there
    /// was one, nothing of this epoch could follow it. Nor can one be of epoch 0, which means none.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify_sent(
        bytes: Bytes,
        first: Seq,
        count: u64,
        before: PrefixId,
        now: Epoch,
    ) -> Result<Run, RecordError> {
        let run = Run::verify(bytes, first, count, before)?;
        if before.epoch == Epoch::ZERO && run.epochs.first().is_none_or(|&(_, seq)| seq > first) {
            return Err(RecordError::NoEpoch(first));
        }
        if run.tail.epoch <= now {
            return Ok(run);
        }
        let later = run.epochs.iter().find(|&&(epoch, _)| epoch > now);
        Err(RecordError::FutureEpoch(later.map_or(first, |&(_, seq)| seq)))
    }

    /// Which entries.
    pub fn range(&self) -> SeqRange {
        self.range
    }

    /// What the run continues.
    pub fn before(&self) -> PrefixId {
        self.before
    }

    /// Epoch and digest at its last entry.
    pub fn tail(&self) -> PrefixId {
        self.tail
    }

    /// Where epochs begin in the run.
    pub(super) fn epochs(&self) -> &[(Epoch, Seq)] {
        &self.epochs
    }

    /// Length of all records in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Epoch and digest at `seq`, if it is in the run.
    pub fn prefix_id(&self, seq: Seq) -> Option<PrefixId> {
        let header = Header::decode(&self.bytes[self.offset(seq)?..]).ok()?;
        Some(PrefixId { epoch: header.epoch, digest: header.digest })
    }

    /// The entry `seq`, if it is in the run.
    pub fn record(&self, seq: Seq) -> Option<Record> {
        take_record(&mut self.bytes.slice(self.offset(seq)?..)).ok()
    }

    /// Where the record of `seq` starts, or, for the number after the last, where the run ends.
    pub(super) fn offset(&self, seq: Seq) -> Option<usize> {
        if seq == self.range.end {
            return Some(self.bytes.len());
        }
        let index = seq.number().checked_sub(self.range.first.number())?;
        self.offsets.get(usize::try_from(index).ok()?).map(|&offset| offset as usize)
    }

    /// How many records from `seq` on end within `bytes_max` bytes; at least one.
    pub(super) fn fitting(&self, seq: Seq, bytes_max: usize) -> u64 {
        let start = self.offset(seq).unwrap_or(self.bytes.len());
        let index = seq.distance_from(self.range.first) as usize;
        let later = &self.offsets[(index + 1).min(self.offsets.len())..];
        let whole = later.partition_point(|&end| end as usize - start <= bytes_max) as u64;
        if whole == later.len() as u64 && self.bytes.len() - start <= bytes_max {
            whole + 1
        } else {
            whole.max(1)
        }
    }

    /// The bytes of the records in `range`, shared. The range must be in the run.
    pub fn slice(&self, range: SeqRange) -> Bytes {
        let at = |seq| self.offset(seq).unwrap_or(self.bytes.len());
        self.bytes.slice(at(range.first)..at(range.end))
    }

    /// The later part of the run, from `first` on; `None` if nothing is left.
    pub fn split_from(self, first: Seq) -> Option<Run> {
        if first <= self.range.first {
            return Some(self);
        }
        if first >= self.range.end {
            return None;
        }
        let at = self.offset(first)?;
        let skipped = first.distance_from(self.range.first) as usize;
        let before = self.prefix_id(first.previous())?;
        Some(Run {
            range: SeqRange::new(first, self.range.end),
            before,
            tail: self.tail,
            epochs: self.epochs.into_iter().filter(|&(_, start)| start >= first).collect(),
            offsets: self.offsets[skipped..].iter().map(|&offset| offset - at as u32).collect(),
            bytes: self.bytes.slice(at..),
        })
    }

    /// The earlier part of the run, up to but without `end`; `None` if nothing is left.
    pub fn split_until(self, end: Seq) -> Option<Run> {
        if end >= self.range.end {
            return Some(self);
        }
        if end <= self.range.first {
            return None;
        }
        let at = self.offset(end)?;
        let kept = end.distance_from(self.range.first) as usize;
        let tail = self.prefix_id(end.previous())?;
        Some(Run {
            range: SeqRange::new(self.range.first, end),
            before: self.before,
            tail,
            epochs: self.epochs.into_iter().filter(|&(_, start)| start < end).collect(),
            offsets: self.offsets[..kept].to_vec(),
            bytes: self.bytes.slice(..at),
        })
    }

    /// The bytes of the whole run.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The first record that starts at or behind byte `at`: its number and where it starts.
    pub(super) fn record_from(&self, at: usize) -> Option<(Seq, usize)> {
        let index = self.offsets.partition_point(|&offset| (offset as usize) < at);
        let offset = *self.offsets.get(index)? as usize;
        Some((self.range.first.plus(index as u64), offset))
    }

    /// Joins runs that follow one another into one piece of memory.
    pub fn concat(runs: &[Run]) -> Option<Run> {
        let (first, last) = (runs.first()?, runs.last()?);
        let mut bytes = BytesMut::with_capacity(runs.iter().map(Run::len_bytes).sum());
        let mut offsets = Vec::with_capacity(runs.iter().map(|run| run.offsets.len()).sum());
        for run in runs {
            let base = bytes.len() as u32; // Joined runs stay far below 4 GiB: see REPAIR_BYTES_MAX.
            offsets.extend(run.offsets.iter().map(|&offset| base + offset));
            bytes.extend_from_slice(&run.bytes);
        }
        Some(Run {
            range: SeqRange::new(first.range.first, last.range.end),
            before: first.before,
            tail: last.tail,
            epochs: runs.iter().flat_map(|run| run.epochs.iter().copied()).collect(),
            offsets,
            bytes: bytes.freeze(),
        })
    }
}

/// Turns payloads into a run: the one place where entries get their bytes.
#[derive(Debug)]
pub struct RunBuilder {
    before: PrefixId,
    tail: PrefixId,
    first: Seq,
    next: Seq,
    epochs: Vec<(Epoch, Seq)>,
    offsets: Vec<u32>,
    buffer: BytesMut,
}

impl RunBuilder {
    /// Starts a run that continues a log ending at `last` with `before`, in `arena`, whose room is
    /// used and left for the next run.
    pub fn new(arena: &mut BytesMut, last: Seq, before: PrefixId) -> Self {
        RunBuilder {
            before,
            tail: before,
            first: last.next(),
            next: last.next(),
            epochs: Vec::new(),
            offsets: Vec::new(),
            buffer: arena.split_off(arena.len()),
        }
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If the payload is longer than any configuration allows; admission refuses it before.
    pub fn push(&mut self, epoch: Epoch, time_ms: u64, payload: &[u8]) {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "BUG: admission let a long payload pass");
        let at = self.buffer.len();
        self.buffer.reserve(RECORD_HEADER_BYTES + payload.len());
        let mut header = [0; RECORD_HEADER_BYTES];
        {
            let mut fields = &mut header[16..];
            fields.put_u32_le(payload.len() as u32);
            fields.put_u16_le(0);
            fields.put_u16_le(0);
            fields.put_u64_le(self.next.number());
            fields.put_u64_le(epoch.number());
            fields.put_u64_le(time_ms);
        }
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(payload);
        let record = &mut self.buffer[at..];
        let digest = xxh64(&record[16..], self.tail.digest.value());
        record[4..8].copy_from_slice(&crc32c(payload).to_le_bytes());
        record[8..16].copy_from_slice(&digest.to_le_bytes());
        let header_crc = crc32c(&record[4..RECORD_HEADER_BYTES]);
        record[..4].copy_from_slice(&header_crc.to_le_bytes());
        if epoch != self.tail.epoch {
            self.epochs.push((epoch, self.next));
        }
        self.offsets.push(at as u32); // A batch is bounded by what one turn of a node takes.
        self.tail = PrefixId { epoch, digest: Digest::new(digest) };
        self.next = self.next.next();
    }

    /// Bytes written so far.
    pub fn len_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The run, `None` if nothing was added. Gives unused room back to `arena`.
    pub fn finish(mut self, arena: &mut BytesMut) -> Option<Run> {
        let bytes = self.buffer.split().freeze();
        *arena = self.buffer;
        let range = SeqRange::new(self.first, self.next);
        (!range.is_empty()).then_some(Run {
            range,
            before: self.before,
            tail: self.tail,
            epochs: self.epochs,
            offsets: self.offsets,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_entries() -> Run {
        let mut arena = BytesMut::new();
        let mut builder = RunBuilder::new(&mut arena, Seq::ZERO, PrefixId::EMPTY);
        for payload in [&b"alpha"[..], b"", b"gamma"] {
            builder.push(Epoch::new(1), 1_700_000_000_000, payload);
        }
        builder.finish(&mut arena).expect("three entries were pushed")
    }

    #[test]
    fn a_run_verifies_as_it_was_built() {
        let run = three_entries();
        let bytes = run.slice(run.range());
        let verified = Run::verify(bytes, Seq::FIRST, 3, PrefixId::EMPTY);
        assert_eq!(verified, Ok(run));
    }

    #[test]
    fn every_single_flipped_bit_is_found() {
        let run = three_entries();
        let bytes = run.slice(run.range());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let result = Run::verify(damaged.into(), Seq::FIRST, 3, PrefixId::EMPTY);
            assert!(result.is_err(), "flipping bit {bit} went unnoticed");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let run = three_entries();
        let bytes = run.slice(run.range());
        for len in 0..bytes.len() {
            let result = Run::verify(bytes.slice(..len), Seq::FIRST, 3, PrefixId::EMPTY);
            assert!(result.is_err(), "cutting at byte {len} went unnoticed");
        }
    }

    #[test]
    fn a_run_does_not_continue_another_history() {
        let run = three_entries();
        let other = PrefixId { epoch: Epoch::new(1), digest: Digest::new(7) };
        let result = Run::verify(run.slice(run.range()), Seq::FIRST, 3, other);
        assert_eq!(result, Err(RecordError::BadDigest(Seq::FIRST)));
    }

    #[test]
    fn the_later_part_of_a_run_is_a_run() {
        let run = three_entries();
        let part = run.clone().split_from(Seq::new(2)).expect("two entries are left");
        assert_eq!(part.range(), SeqRange::inclusive(Seq::new(2), Seq::new(3)));
        let bytes = part.slice(part.range());
        let before = run.prefix_id(Seq::FIRST).expect("entry 1 is in the run");
        assert_eq!(Run::verify(bytes, Seq::new(2), 2, before), Ok(part));
        assert_eq!(run.split_from(Seq::new(4)), None);
    }

    #[test]
    fn the_earlier_part_of_a_run_is_a_run() {
        let run = three_entries();
        let part = run.clone().split_until(Seq::new(3)).expect("two entries are left");
        let bytes = part.slice(part.range());
        assert_eq!(Run::verify(bytes, Seq::FIRST, 2, PrefixId::EMPTY), Ok(part));
        assert_eq!(run.clone().split_until(Seq::new(4)), Some(run.clone()));
        assert_eq!(run.split_until(Seq::FIRST), None);
    }

    #[test]
    fn an_entry_that_names_no_epoch_is_refused_from_elsewhere() {
        let mut arena = BytesMut::new();
        let mut builder = RunBuilder::new(&mut arena, Seq::ZERO, PrefixId::EMPTY);
        builder.push(Epoch::ZERO, 0, b"of nobody");
        builder.push(Epoch::new(1), 0, b"of a master");
        let bytes = builder.finish(&mut arena).expect("two entries were pushed").bytes().clone();
        let result = Run::verify_sent(bytes, Seq::FIRST, 2, PrefixId::EMPTY, Epoch::new(1));
        assert_eq!(result, Err(RecordError::NoEpoch(Seq::FIRST)));
        let run = three_entries();
        let (bytes, now) = (run.bytes().clone(), Epoch::new(1));
        assert_eq!(Run::verify_sent(bytes, Seq::FIRST, 3, PrefixId::EMPTY, now), Ok(run));
    }

    #[test]
    fn a_control_record_is_refused_from_elsewhere() {
        let mut bytes = three_entries().bytes().to_vec();
        bytes[21] |= 0x80;
        let checksum = crc32c(&bytes[4..RECORD_HEADER_BYTES]).to_le_bytes();
        bytes[..4].copy_from_slice(&checksum);
        let result = Run::verify(bytes.into(), Seq::FIRST, 3, PrefixId::EMPTY);
        assert_eq!(result, Err(RecordError::BadLayout(Seq::FIRST)));
    }

    #[test]
    fn fitting_counts_whole_records_and_at_least_one() {
        let run = three_entries(); // 53, 48 and 53 bytes
        let cases = [(0, 1), (53, 1), (100, 1), (101, 2), (153, 2), (154, 3), (9999, 3)];
        for (bytes_max, expected) in cases {
            assert_eq!(run.fitting(Seq::FIRST, bytes_max), expected, "{bytes_max} bytes");
        }
        assert_eq!(run.fitting(Seq::new(3), 9999), 1);
    }
}
