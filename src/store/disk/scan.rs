//! Reading a whole segment from its beginning: what recovery knows about one that is not sealed, and
//! what `replog inspect` prints.

use std::io;

use super::format::{Footer, KIND_FOOTER, KIND_MARK, Point, SEGMENT_HEADER_BYTES};
use crate::checksum::crc32c;
use crate::limits::{INDEX_STEP_BYTES, RECORD_HEADER_BYTES};
use crate::store::fs::FsFile;
use crate::store::record::{Header, RecordError};
use crate::types::{Epoch, PrefixId, Seq};

/// Bytes read at a time. A record that is longer is read whole.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes that a disk writes as one.
const SECTOR_BYTES: u64 = 512;
/// What is read piece by piece where a disk refuses to read.
const PAGE_BYTES: usize = 4096;

/// A place from which entries can be read: like a [`Point`], but what it continues may be unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) seq: Seq,
    pub(crate) offset: u64,
    pub(crate) entry_bytes: u64,
    pub(crate) before: Option<PrefixId>,
}

impl From<Point> for Place {
    fn from(point: Point) -> Self {
        let Point { seq, offset, entry_bytes, before } = point;
        Place { seq, offset, entry_bytes, before: Some(before) }
    }
}

/// Bytes that are not the record that should follow, with something whole behind them.
#[derive(Clone, Debug)]
pub(crate) struct Hole {
    /// The entry that should start here …
    pub(crate) seq: Seq,
    /// … at this byte.
    pub(crate) offset: u64,
    /// The first whole entry behind; equal to `seq` if only a control record is bad.
    pub(crate) next: Seq,
    /// Where that starts.
    pub(crate) next_offset: u64,
    /// Epoch and digest before it.
    pub(crate) before: Option<PrefixId>,
    pub(crate) written: Written,
    pub(crate) reason: String,
}

/// Whether a record that is not whole was ever written as a whole, by the zeros in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// A sector that its header or its end lies in is untouched: no sync ever covered it.
    Never,
    /// A sector inside its body is zero, which a payload can be, too.
    Perhaps,
    /// Nothing speaks against it: it was written and then destroyed.
    Yes,
}

/// Bytes that are not the record that should follow, with nothing whole behind them.
#[derive(Clone, Debug)]
pub(crate) struct Torn {
    pub(crate) seq: Seq,
    pub(crate) offset: u64,
    /// Up to the last byte that is not zero.
    pub(crate) bytes: u64,
    pub(crate) written: Written,
    pub(crate) reason: String,
}

/// What a segment was found to hold.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// The last whole entry, or the number before the first.
    pub(crate) last: Seq,
    /// Epoch and digest there; unknown if nothing whole is in a segment whose header is damaged.
    pub(crate) tail: Option<PrefixId>,
    pub(crate) epochs: Vec<(Epoch, Seq)>,
    pub(crate) entry_bytes: u64,
    /// Where the entries end.
    pub(crate) end: u64,
    pub(crate) places: Vec<Place>,
    /// The highest durable position that a control record repeats.
    pub(crate) mark: Seq,
    pub(crate) marks: u64,
    pub(crate) footer: Option<Footer>,
    pub(crate) holes: Vec<Hole>,
    pub(crate) torn: Option<Torn>,
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "`replog inspect` tells it"))]
    pub(crate) file_len: u64,
}

/// Where something was met while scanning.
pub(crate) struct Met<'a> {
    pub(crate) offset: u64,
    pub(crate) header: &'a Header,
    pub(crate) record: &'a [u8],
}

/// Scans a segment whose entries should begin with `first` and continue `before`, if that is known.
/// `visit` sees every whole record in order, control records too.
///
/// # Errors
/// The file's length cannot be read. What the disk refuses to read counts as zeros.
pub(crate) fn scan(
    file: &dyn FsFile,
    first: Seq,
    before: Option<PrefixId>,
    visit: &mut dyn FnMut(&Met<'_>),
) -> io::Result<Scan> {
    let mut window = Window::new(file, file.len()?);
    let mut scan = Scan {
        last: first.previous(),
        tail: before,
        epochs: Vec::new(),
        entry_bytes: 0,
        end: SEGMENT_HEADER_BYTES as u64,
        places: Vec::new(),
        mark: Seq::ZERO,
        marks: 0,
        footer: None,
        holes: Vec::new(),
        torn: None,
        file_len: window.len,
    };
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    while scan.footer.is_none() {
        if let Some(len) = scan.take(&mut window, offset, visit) {
            offset += len;
            continue;
        }
        if window.is_zero_from(offset) {
            break;
        }
        let expected = scan.last.next();
        let reason = window.fault(offset, expected, scan.tail);
        let written = window.written(offset);
        let Some((next, next_offset)) = window.resync(offset + 1, expected) else {
            let bytes = window.nonzero_end(offset) - offset;
            scan.torn = Some(Torn { seq: expected, offset, bytes, written, reason });
            break;
        };
        let before = scan.tail;
        scan.holes.push(Hole { seq: expected, offset, next, next_offset, before, written, reason });
        if next > expected {
            // What the next entry continues is lost with the one before it.
            scan.last = next.previous();
            scan.tail = None;
        }
        scan.end = next_offset;
        offset = next_offset;
        scan.place(offset);
    }
    Ok(scan)
}

impl Scan {
    fn place(&mut self, offset: u64) {
        let place = Place {
            seq: self.last.next(),
            offset,
            entry_bytes: self.entry_bytes,
            before: self.tail,
        };
        match self.places.last_mut() {
            Some(last) if last.seq == place.seq => *last = place,
            _ => self.places.push(place),
        }
    }

    /// Takes the record at `offset` if it is the one that should follow, and says how long it is.
    fn take(
        &mut self,
        window: &mut Window<'_>,
        offset: u64,
        visit: &mut dyn FnMut(&Met<'_>),
    ) -> Option<u64> {
        let (header, record) = window.record(offset)?;
        let expected = self.last.next();
        let len = record.len() as u64;
        let body = &record[RECORD_HEADER_BYTES..];
        if header.is_control() {
            let continues = header.seq == expected
                && self.tail.is_none_or(|tail| tail == header.prefix_id())
                && crc32c(body) == header.body_crc;
            if !continues {
                return None;
            }
            match header.kind {
                KIND_MARK => {
                    self.mark = self.mark.max(Seq::new(header.time_ms));
                    self.marks += 1;
                }
                KIND_FOOTER => {
                    let footer = Footer::decode(&header, body)?;
                    if footer.last != self.last || footer.tail != header.prefix_id() {
                        return None;
                    }
                    self.footer = Some(footer);
                }
                _ => return None,
            }
            visit(&Met { offset, header: &header, record });
            self.tail = Some(header.prefix_id());
            if self.footer.is_none() {
                self.end = offset + len;
            }
            return Some(len);
        }
        header.check(record, expected, self.tail).ok()?;
        visit(&Met { offset, header: &header, record });
        let due = self
            .places
            .last()
            .is_none_or(|place| self.entry_bytes - place.entry_bytes >= INDEX_STEP_BYTES as u64);
        if due {
            self.place(offset);
        }
        if self.tail.is_none_or(|tail| tail.epoch != header.epoch) {
            self.epochs.push((header.epoch, header.seq));
        }
        self.last = header.seq;
        self.tail = Some(header.prefix_id());
        self.entry_bytes += len;
        self.end = offset + len;
        Some(len)
    }
}

/// Reads `len` bytes at `offset`, fewer at the end of the file. Pages that the disk refuses to read
/// come as zeros, which no checksum takes for a record.
pub(crate) fn read_span(file: &dyn FsFile, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if let Ok(count) = file.read_at(&mut bytes, offset) {
        bytes.truncate(count);
        return bytes;
    }
    let end = file.len().unwrap_or(offset).saturating_sub(offset);
    bytes.truncate(usize::try_from(end).unwrap_or(len).min(len));
    for (index, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        if file.read_at(page, offset + (index * PAGE_BYTES) as u64).is_err() {
            page.fill(0);
        }
    }
    bytes
}

/// A part of a file in memory, moving forward.
pub(crate) struct Window<'a> {
    file: &'a dyn FsFile,
    len: u64,
    base: u64,
    bytes: Vec<u8>,
    /// Behind the last byte of the file that is not zero, once somebody asked.
    nonzero_end: Option<u64>,
}

impl<'a> Window<'a> {
    /// Looks at the first `len` bytes of a file.
    pub(crate) fn new(file: &'a dyn FsFile, len: u64) -> Self {
        Window { file, len, base: 0, bytes: Vec::new(), nonzero_end: None }
    }

    /// `len` bytes at `offset`, fewer at the end.
    fn at(&mut self, offset: u64, len: usize) -> &[u8] {
        let end = (offset + len as u64).min(self.len);
        if offset >= end {
            return &[];
        }
        if offset < self.base || end > self.base + self.bytes.len() as u64 {
            let wanted = (end - offset).max(WINDOW_BYTES as u64).min(self.len - offset);
            self.bytes = read_span(self.file, offset, wanted as usize); // A record or a window.
            self.base = offset;
        }
        let from = (offset - self.base) as usize;
        let to = ((end - self.base) as usize).min(self.bytes.len());
        &self.bytes[from.min(to)..to]
    }

    /// The record at `offset` if its header is right and all of it is there.
    pub(crate) fn record(&mut self, offset: u64) -> Option<(Header, &[u8])> {
        let header = Header::decode_any(self.at(offset, RECORD_HEADER_BYTES)).ok()?;
        let record = self.at(offset, header.record_len());
        (record.len() == header.record_len()).then_some((header, record))
    }

    /// In words, what is wrong at `offset`.
    pub(crate) fn fault(&mut self, offset: u64, seq: Seq, before: Option<PrefixId>) -> String {
        let error = match Header::decode_any(self.at(offset, RECORD_HEADER_BYTES)) {
            Err(error) => error,
            Ok(header) if header.is_control() => {
                return format!("a control record at byte {offset} does not fit its place");
            }
            Ok(header) => {
                let record = self.at(offset, header.record_len());
                if record.len() < header.record_len() {
                    RecordError::Truncated
                } else {
                    match header.check(record, seq, before) {
                        Err(error) => error,
                        Ok(()) => return format!("byte {offset} is not whole"),
                    }
                }
            }
        };
        format!("{error} (entry {seq}, byte {offset})")
    }

    /// Whether a part of the record at `offset` was never written: from where it starts in one of
    /// its sectors to the end of that sector there are only zeros, or the file ends. A sector is
    /// written as a whole, and behind a record follows another one.
    fn written(&mut self, offset: u64) -> Written {
        let len = match Header::decode_any(self.at(offset, RECORD_HEADER_BYTES)) {
            Ok(header) => header.record_len(),
            Err(_) => RECORD_HEADER_BYTES,
        };
        let end = offset + len as u64;
        if end > self.len {
            return Written::Never;
        }
        let mut written = Written::Yes;
        let mut start = offset;
        while start < end {
            let border = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
            if self.at(start, (border - start) as usize).iter().all(|&byte| byte == 0) {
                if start == offset || border >= end {
                    return Written::Never;
                }
                written = Written::Perhaps;
            }
            start = border;
        }
        written
    }

    fn is_zero_from(&mut self, offset: u64) -> bool {
        self.nonzero_end(offset) == offset
    }

    /// Behind the last byte from `offset` on that is not zero; `offset` if there is none. Looked for
    /// once, from the end: each hole asks.
    fn nonzero_end(&mut self, offset: u64) -> u64 {
        if self.nonzero_end.is_none() {
            let mut end = self.len;
            let found = loop {
                let start = end.saturating_sub(WINDOW_BYTES as u64);
                let bytes = read_span(self.file, start, (end - start) as usize); // A window.
                if let Some(index) = bytes.iter().rposition(|&byte| byte != 0) {
                    break start + index as u64 + 1;
                }
                if start == 0 {
                    break 0;
                }
                end = start;
            };
            self.nonzero_end = Some(found);
        }
        self.nonzero_end.map_or(offset, |end| end.max(offset))
    }

    /// The first whole record from `from` on whose number is `expected` or later and that is
    /// confirmed by what follows it: the next record in the chain, or the end of what was written.
    /// A payload can hold the image of a record; such an image is followed by neither.
    pub(crate) fn resync(&mut self, from: u64, expected: Seq) -> Option<(Seq, u64)> {
        let end = self.nonzero_end(from);
        let most = expected.plus(end.saturating_sub(from) / RECORD_HEADER_BYTES as u64 + 1);
        let mut offset = from;
        while offset + RECORD_HEADER_BYTES as u64 <= self.len && offset < end {
            // What is in memory already comes first: each hole begins a search.
            let held = (self.base + self.bytes.len() as u64).saturating_sub(offset);
            let held = if offset < self.base { 0 } else { held as usize }; // At most a window.
            let len = if held >= RECORD_HEADER_BYTES { held } else { WINDOW_BYTES };
            let bytes = self.at(offset, len);
            let Some(skip) = (0..bytes.len().saturating_sub(RECORD_HEADER_BYTES - 1))
                .find(|&at| is_candidate(&bytes[at..at + RECORD_HEADER_BYTES], expected, most))
            else {
                offset += (bytes.len() + 1).saturating_sub(RECORD_HEADER_BYTES).max(1) as u64;
                continue;
            };
            offset += skip as u64;
            if let Some(seq) = self.confirmed(offset) {
                return Some((seq, offset));
            }
            offset += 1;
        }
        None
    }

    fn confirmed(&mut self, offset: u64) -> Option<Seq> {
        let (header, record) = self.record(offset)?;
        let len = record.len() as u64;
        if header.is_control() {
            return (crc32c(&record[RECORD_HEADER_BYTES..]) == header.body_crc)
                .then_some(header.seq);
        }
        header.check(record, header.seq, None).ok()?;
        let tail = header.prefix_id();
        if let Some((next, record)) = self.record(offset + len) {
            let follows = if next.is_control() {
                next.seq == header.seq.next() && next.prefix_id() == tail
            } else {
                next.check(record, header.seq.next(), Some(tail)).is_ok()
            };
            return follows.then_some(header.seq);
        }
        self.is_zero_from(offset + len).then_some(header.seq)
    }
}

/// A cheap look before a checksum is computed: most places are no header.
pub(crate) fn is_candidate(bytes: &[u8], least: Seq, most: Seq) -> bool {
    let word = |at: usize| {
        bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes) // Always 8 bytes.
    };
    let seq = Seq::new(word(24));
    least <= seq && seq <= most && Header::decode_any(bytes).is_ok()
}
