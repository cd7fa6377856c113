//! The bytes of a segment that are not entries: its header, the control records between the entries
//! and the footer. The drawing is in `store::disk`.

use bytes::{Buf, BufMut};

use crate::checksum::crc32c;
use crate::limits::RECORD_HEADER_BYTES;
use crate::store::record::{FLAG_CONTROL, Header};
use crate::types::{Digest, Epoch, LogId, PrefixId, Seq};

/// The format that this version writes. A newer one is refused.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Length of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;

/// How every segment begins.
pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b"RPLGSEG\0";
const SEAL_MAGIC: u32 = 0x4C41_4553; // "SEAL"

/// Control record: the durable position known when it was written.
pub(crate) const KIND_MARK: u16 = 1;
/// Control record: the end of a sealed segment.
pub(crate) const KIND_FOOTER: u16 = 2;

/// Length of the trailer by which a footer is found from the end of the file.
pub(crate) const TRAILER_BYTES: usize = 16;
const FOOTER_FIXED_BYTES: usize = 40;
const EPOCH_ROW_BYTES: usize = 16;
const POINT_BYTES: usize = 40;

/// What a segment says at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The history it belongs to.
    pub(crate) log_id: Option<LogId>,
    /// Its first entry.
    pub(crate) first: Seq,
    /// Epoch and digest at the entry before.
    pub(crate) before: PrefixId,
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadSegmentHeader {
    /// Whole, and of a version that we do not know.
    Newer(u32),
    /// Not a header, or a damaged one.
    Damaged,
}

impl SegmentHeader {
    /// The header as bytes.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let mut fields = &mut bytes[..];
        fields.put_slice(SEGMENT_MAGIC);
        fields.put_u32_le(FORMAT_VERSION);
        fields.put_u32_le(0);
        fields.put_slice(&self.log_id.map_or([0; 16], LogId::bytes));
        fields.put_u64_le(self.first.number());
        fields.put_u64_le(self.before.epoch.number());
        fields.put_u64_le(self.before.digest.value());
        let version_crc = crc32c(&bytes[..12]);
        bytes[12..16].copy_from_slice(&version_crc.to_le_bytes());
        let crc = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header. The first 16 bytes are the same in every version, with a checksum of their
    /// own, so that a newer version is told from a damaged one.
    ///
    /// # Errors
    /// A newer version, or damage.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadSegmentHeader> {
        let damaged = BadSegmentHeader::Damaged;
        let mut fields = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(damaged)?;
        let (version_crc, crc) = (crc32c(&fields[..12]), crc32c(&fields[..60]));
        let magic = fields.copy_to_bytes(8);
        let version = fields.get_u32_le();
        if magic != SEGMENT_MAGIC[..] || fields.get_u32_le() != version_crc || version == 0 {
            return Err(damaged);
        }
        if version > FORMAT_VERSION {
            return Err(BadSegmentHeader::Newer(version));
        }
        let mut log_id = [0; 16];
        fields.copy_to_slice(&mut log_id);
        let first = Seq::new(fields.get_u64_le());
        let epoch = Epoch::new(fields.get_u64_le());
        let digest = Digest::new(fields.get_u64_le());
        if fields.get_u32_le() != 0 || fields.get_u32_le() != crc {
            return Err(damaged);
        }
        let log_id = (log_id != [0; 16]).then(|| LogId::new(log_id));
        Ok(SegmentHeader { log_id, first, before: PrefixId { epoch, digest } })
    }
}

/// A place in a segment from which its entries can be read and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// The entry that starts here.
    pub(crate) seq: Seq,
    /// Where in the file.
    pub(crate) offset: u64,
    /// Bytes of the segment's entries before it.
    pub(crate) entry_bytes: u64,
    /// Epoch and digest at the entry before it.
    pub(crate) before: PrefixId,
}

/// What a sealed segment says at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Its last entry.
    pub(crate) last: Seq,
    /// Bytes of its entries.
    pub(crate) entry_bytes: u64,
    /// Epoch and digest at its last entry.
    pub(crate) tail: PrefixId,
    /// Where epochs begin in it.
    pub(crate) epochs: Vec<(Epoch, Seq)>,
    /// Where reading can start.
    pub(crate) points: Vec<Point>,
}

fn control(kind: u16, next: Seq, tail: PrefixId, value: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + body.len());
    bytes.put_u32_le(0);
    bytes.put_u32_le(crc32c(body));
    bytes.put_u64_le(tail.digest.value());
    bytes.put_u32_le(body.len() as u32); // A footer has at most FOOTER_BYTES_MAX bytes.
    bytes.put_u16_le(FLAG_CONTROL);
    bytes.put_u16_le(kind);
    bytes.put_u64_le(next.number());
    bytes.put_u64_le(tail.epoch.number());
    bytes.put_u64_le(value);
    let crc = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A control record before entry `next`: `tail` is what it continues, `durable` what was known to
/// be on disk.
pub(crate) fn encode_mark(next: Seq, tail: PrefixId, durable: Seq) -> Vec<u8> {
    control(KIND_MARK, next, tail, durable.number(), &[])
}

/// How long a footer with so many rows is, its trailer included.
pub(crate) fn footer_len(epochs: usize, points: usize) -> usize {
    RECORD_HEADER_BYTES
        + FOOTER_FIXED_BYTES
        + epochs * EPOCH_ROW_BYTES
        + points * POINT_BYTES
        + TRAILER_BYTES
}

impl Footer {
    /// The footer as bytes, to be written at `offset`: a control record and the trailer.
    pub(crate) fn encode(&self, offset: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(footer_len(self.epochs.len(), self.points.len()));
        body.put_u64_le(self.last.number());
        body.put_u64_le(self.entry_bytes);
        body.put_u64_le(self.tail.epoch.number());
        body.put_u64_le(self.tail.digest.value());
        body.put_u32_le(self.epochs.len() as u32); // Bounded by SEGMENT_EPOCHS_MAX.
        body.put_u32_le(self.points.len() as u32); // One per 64 KiB of at most 4 GiB.
        for (epoch, first) in &self.epochs {
            body.put_u64_le(epoch.number());
            body.put_u64_le(first.number());
        }
        for point in &self.points {
            body.put_u64_le(point.seq.number());
            body.put_u64_le(point.offset);
            body.put_u64_le(point.entry_bytes);
            body.put_u64_le(point.before.epoch.number());
            body.put_u64_le(point.before.digest.value());
        }
        let mut bytes = control(KIND_FOOTER, self.last.next(), self.tail, offset, &body);
        let at = bytes.len();
        bytes.put_u64_le(offset);
        bytes.put_u32_le(SEAL_MAGIC);
        let crc = crc32c(&bytes[at..]);
        bytes.put_u32_le(crc);
        bytes
    }

    /// Reads a footer whose control record has `header` and `body`; `None` if it is not whole.
    pub(crate) fn decode(header: &Header, body: &[u8]) -> Option<Footer> {
        if header.kind != KIND_FOOTER || crc32c(body) != header.body_crc {
            return None;
        }
        let mut body = body;
        if body.len() < FOOTER_FIXED_BYTES {
            return None;
        }
        let last = Seq::new(body.get_u64_le());
        let entry_bytes = body.get_u64_le();
        let epoch = Epoch::new(body.get_u64_le());
        let tail = PrefixId { epoch, digest: Digest::new(body.get_u64_le()) };
        let (epochs, points) = (body.get_u32_le() as usize, body.get_u32_le() as usize);
        let rows = epochs.checked_mul(EPOCH_ROW_BYTES)?;
        if body.len() != rows.checked_add(points.checked_mul(POINT_BYTES)?)? {
            return None;
        }
        let epochs = (0..epochs)
            .map(|_| (Epoch::new(body.get_u64_le()), Seq::new(body.get_u64_le())))
            .collect();
        let points = (0..points)
            .map(|_| Point {
                seq: Seq::new(body.get_u64_le()),
                offset: body.get_u64_le(),
                entry_bytes: body.get_u64_le(),
                before: PrefixId {
                    epoch: Epoch::new(body.get_u64_le()),
                    digest: Digest::new(body.get_u64_le()),
                },
            })
            .collect();
        Some(Footer { last, entry_bytes, tail, epochs, points })
    }
}

/// Where a footer starts, as the last bytes of its file say.
pub(crate) fn decode_trailer(bytes: &[u8]) -> Option<u64> {
    let mut fields = bytes.get(..TRAILER_BYTES)?;
    let crc = crc32c(&fields[..12]);
    let offset = fields.get_u64_le();
    (fields.get_u32_le() == SEAL_MAGIC && fields.get_u32_le() == crc).then_some(offset)
}

/// The name of the segment that begins with `first`: fixed width, so that names sort as numbers do.
pub(crate) fn segment_name(first: Seq) -> String {
    format!("{:020}.log", first.number())
}

/// The first entry of the segment with this name, if it is a segment's name.
pub(crate) fn segment_first(name: &str) -> Option<Seq> {
    let number = name.strip_suffix(".log").filter(|number| number.len() == 20)?;
    crate::types::parse_decimal(number).filter(|&number| number > 0).map(Seq::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log_id: Some(LogId::new([7; 16])),
            first: Seq::new(18),
            before: PrefixId { epoch: Epoch::new(3), digest: Digest::new(99) },
        }
    }

    #[test]
    fn a_newer_version_is_told_from_a_damaged_one() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let result = SegmentHeader::decode(&flipped);
            assert_eq!(result, Err(BadSegmentHeader::Damaged), "bit {bit}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        let crc = crc32c(&newer[..12]).to_le_bytes();
        newer[12..16].copy_from_slice(&crc);
        newer[40] = 0xFF; // Whatever it holds there.
        assert_eq!(SegmentHeader::decode(&newer), Err(BadSegmentHeader::Newer(2)));
    }

    #[test]
    fn a_footer_is_found_from_the_end_of_its_file() {
        let point =
            Point { seq: Seq::new(18), offset: 64, entry_bytes: 0, before: header().before };
        let footer = Footer {
            last: Seq::new(40),
            entry_bytes: 12_345,
            tail: header().before,
            epochs: vec![(Epoch::new(4), Seq::new(20))],
            points: vec![point],
        };
        let bytes = footer.encode(777);
        assert_eq!(bytes.len(), footer_len(1, 1));
        let end = bytes.len() - TRAILER_BYTES;
        assert_eq!(decode_trailer(&bytes[end..]), Some(777));
        let header = Header::decode_any(&bytes).expect("a control record");
        assert!(header.is_control());
        assert_eq!(Footer::decode(&header, &bytes[RECORD_HEADER_BYTES..end]), Some(footer));
    }

    #[test]
    fn names_sort_as_numbers_do() {
        assert_eq!(segment_name(Seq::new(18)), "00000000000000000018.log");
        assert_eq!(segment_first("00000000000000000018.log"), Some(Seq::new(18)));
        for name in ["18.log", "00000000000000000000.log", "0000000000000000001x.log", "meta"] {
            assert_eq!(segment_first(name), None, "{name}");
        }
    }
}
