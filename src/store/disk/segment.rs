//! One segment for those who read: where an entry is, and its bytes, verified.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::format::{
    Footer, Point, SEGMENT_HEADER_BYTES, SegmentHeader, TRAILER_BYTES, decode_trailer,
};
use super::scan::{Place, is_candidate, read_span, scan};
use crate::limits::{INDEX_STEP_BYTES, RECORD_HEADER_BYTES, RUN_ENTRIES_MAX};
use crate::store::fs::{Fs, FsFile};
use crate::store::record::Header;
use crate::types::{Epoch, LogId, PrefixId, Seq, SeqRange};

/// Bytes read at a time where a record needs more than what was read.
const READ_STEP_BYTES: usize = 256 << 10;

/// A segment, shared by the writer and all readers.
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first: Seq,
    /// What its first entry continues; unknown if what is before is damaged and the header too.
    pub(crate) before: Option<PrefixId>,
    pub(crate) log_id: Option<LogId>,
    // Held for a look-up; never while the disk is read.
    body: Mutex<Body>,
}

/// What grows while a segment is written.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) last: Seq,
    pub(crate) tail: Option<PrefixId>,
    pub(crate) entry_bytes: u64,
    /// Where the entries end.
    pub(crate) end: u64,
    pub(crate) sealed: bool,
    pub(crate) epochs: Vec<(Epoch, Seq)>,
    /// Open while it is used; `None` is opened again.
    pub(crate) file: Option<Arc<dyn FsFile>>,
    /// The file has lost its name to one that is written anew: it is not let go of.
    pub(crate) pinned: bool,
    /// Where reading can start; `None` is loaded from the footer.
    pub(crate) places: Option<Vec<Place>>,
    /// Where reading can go on behind damage.
    pub(crate) resumes: Vec<Place>,
    /// What is damaged without an entry being lost, until a scrub tells it.
    pub(crate) remarks: Vec<String>,
}

/// Entries as they were read.
pub(crate) struct Entries {
    pub(crate) range: SeqRange,
    pub(crate) bytes: Bytes,
    /// Epoch and digest before the first; unknown behind damage.
    pub(crate) before: Option<PrefixId>,
    /// Where the next one starts.
    pub(crate) next: Place,
}

/// Why entries could not be read.
pub(crate) enum Fault {
    /// The file cannot be opened now: too many are, for example.
    Unavailable,
    /// These entries are not whole.
    Damage(SeqRange, String),
}

impl Segment {
    pub(crate) fn new(
        path: PathBuf,
        first: Seq,
        before: Option<PrefixId>,
        log_id: Option<LogId>,
        body: Body,
    ) -> Self {
        Segment { path, first, before, log_id, body: Mutex::new(body) }
    }

    pub(crate) fn body(&self) -> MutexGuard<'_, Body> {
        // A panic while the lock was held is a bug that ends the process: see `panic = "abort"`.
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn range(&self) -> SeqRange {
        SeqRange::inclusive(self.first, self.body().last)
    }

    /// The open file, and the last place at or before `seq` from which reading can start.
    fn start(&self, fs: &dyn Fs, seq: Seq) -> io::Result<(Arc<dyn FsFile>, Place, u64)> {
        let (file, loaded) = {
            let body = self.body();
            (body.file.clone(), body.places.is_some())
        };
        // Not while the lock is held: who appends must not wait for a reader's disk.
        let file = match file {
            Some(file) => file,
            None => fs.open_to_read(&self.path)?,
        };
        let places = if loaded { None } else { Some(self.load_places(&*file)?) };
        let mut body = self.body();
        let file = body.file.get_or_insert(file).clone();
        if let Some(places) = places {
            body.places.get_or_insert(places);
        }
        let before = |places: &[Place]| {
            places[..places.partition_point(|place| place.seq <= seq)].last().copied()
        };
        let place = before(body.places.as_deref().unwrap_or_default());
        let resume = before(&body.resumes);
        let beginning = Place {
            seq: self.first,
            offset: SEGMENT_HEADER_BYTES as u64,
            entry_bytes: 0,
            before: self.before,
        };
        let place = match (place, resume) {
            (Some(place), Some(resume)) if resume.seq > place.seq => resume,
            (None, Some(resume)) => resume,
            (place, _) => place.unwrap_or(beginning),
        };
        Ok((file, place, body.end))
    }

    fn load_places(&self, file: &dyn FsFile) -> io::Result<Vec<Place>> {
        if let Some(footer) = read_footer(file)? {
            return Ok(footer.points.into_iter().map(Place::from).collect());
        }
        // Its footer is damaged; the entries are what counts.
        Ok(scan(file, self.first, self.before, &mut |_| {})?.places)
    }

    /// From now on it is read from this file, whatever stands under its name.
    pub(crate) fn pin(&self, file: Arc<dyn FsFile>) {
        let mut body = self.body();
        (body.file, body.pinned) = (Some(file), true);
    }

    /// Lets go of what can be had again.
    pub(crate) fn unload(&self) {
        let mut body = self.body();
        if body.sealed && !body.pinned {
            body.file = None;
            body.places = None;
        }
    }

    /// Bytes of the entries from `seq` on; from a little earlier if the way there is damaged.
    pub(crate) fn bytes_from(&self, fs: &dyn Fs, seq: Seq) -> u64 {
        let (last, all) = {
            let body = self.body();
            (body.last, body.entry_bytes)
        };
        if seq <= self.first {
            return all;
        }
        if seq > last {
            return 0;
        }
        let Ok((_, place, _)) = self.start(fs, seq) else { return all };
        let found = match self.read(fs, SeqRange::with_len(seq, 1), 1, None) {
            Ok(entries) => entries.next.entry_bytes - entries.bytes.len() as u64,
            Err(_) => place.entry_bytes,
        };
        all.saturating_sub(found)
    }

    /// The same without reading: to the nearest place that is known, or as if all entries were of the
    /// same length.
    pub(crate) fn bytes_from_about(&self, seq: Seq) -> u64 {
        let body = self.body();
        if seq <= self.first {
            return body.entry_bytes;
        }
        if seq > body.last {
            return 0;
        }
        let places = body.places.as_deref().unwrap_or_default();
        let at = places.partition_point(|place| place.seq <= seq);
        if let Some(place) = at.checked_sub(1).map(|at| places[at]) {
            return body.entry_bytes.saturating_sub(place.entry_bytes);
        }
        let (left, all) = (body.last.next().distance_from(seq), body.last.next());
        let share = u128::from(body.entry_bytes) * u128::from(left);
        (share / u128::from(all.distance_from(self.first).max(1))) as u64 // No more than all bytes.
    }

    /// The file, and where the entries before `seq` end in it, as far as they are whole.
    pub(crate) fn locate(&self, fs: &dyn Fs, seq: Seq) -> io::Result<(Arc<dyn FsFile>, Place)> {
        let (file, mut place, end) = self.start(fs, seq)?;
        let mut reading = Reading::new(&*file, place, end);
        while place.seq < seq {
            match reading.step() {
                Step::Entry { .. } => place = reading.place(),
                Step::Bad(_) => break,
            }
        }
        Ok((file, place))
    }

    /// The entries of `range`, which must be in this segment and not empty: at most `bytes_max`
    /// bytes and `RUN_ENTRIES_MAX` entries, but at least one. `hint` is where the first is, if
    /// known.
    pub(crate) fn read(
        &self,
        fs: &dyn Fs,
        range: SeqRange,
        bytes_max: usize,
        hint: Option<Place>,
    ) -> Result<Entries, Fault> {
        let (file, place, end) = match self.start(fs, range.first) {
            Ok(start) => start,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Fault::Damage(self.range(), "the file is gone".to_owned()));
            }
            Err(_) => return Err(Fault::Unavailable),
        };
        let mut place = hint.unwrap_or(place);
        loop {
            let mut reading = Reading::new(&*file, place, end);
            reading.wanted = bytes_max.min(READ_STEP_BYTES * 4) + INDEX_STEP_BYTES;
            match reading.collect(range, bytes_max) {
                Ok(entries) => return Ok(entries),
                Err(bad) => {
                    let (mut damage, mut resume) = self.beyond(&*file, &bad, end);
                    // Damage seldom ends with a place of the index: all of it is told, and
                    // repaired, at once.
                    while !damage.is_empty() && resume.offset < end {
                        let mut reading = Reading::new(&*file, resume, end);
                        let Step::Bad(reason) = reading.step() else { break };
                        let next = Bad { place: reading.place(), reason };
                        let (more, after) = self.beyond(&*file, &next, end);
                        if more.is_empty() || more.first != damage.end {
                            break;
                        }
                        (damage.end, resume) = (more.end, after);
                    }
                    self.add_resume(resume);
                    if damage.is_empty() {
                        let name = super::name_of(&self.path);
                        let remark = format!("segment {name}: {}, no entry is lost", bad.reason);
                        let mut body = self.body();
                        if !body.remarks.contains(&remark) {
                            body.remarks.push(remark);
                        }
                    }
                    if damage.end > range.first {
                        return Err(Fault::Damage(damage, bad.reason));
                    }
                    // It lies before what is wanted: whoever wants it will hear of it.
                    place = resume;
                }
            }
        }
    }

    fn add_resume(&self, resume: Place) {
        let mut body = self.body();
        let at = body.resumes.partition_point(|place| place.seq < resume.seq);
        match body.resumes.get_mut(at) {
            Some(place) if place.seq == resume.seq => *place = resume,
            _ => body.resumes.insert(at, resume),
        }
    }

    /// How far damage that was met reaches, and where reading goes on. Whole again is only what is
    /// chained to the next place in the index, whose digest is known: a payload may hold images of
    /// records.
    fn beyond(&self, file: &dyn FsFile, bad: &Bad, end: u64) -> (SeqRange, Place) {
        let anchor = {
            let body = self.body();
            let places = body.places.as_deref().unwrap_or_default();
            let next = places.iter().find(|place| place.offset > bad.place.offset);
            next.copied().unwrap_or(Place {
                seq: body.last.next(),
                offset: end,
                entry_bytes: body.entry_bytes,
                before: body.tail,
            })
        };
        let len = (anchor.offset - bad.place.offset) as usize; // An index step and a record.
        let bytes = read_span(file, bad.place.offset, len);
        for at in 1..bytes.len().saturating_sub(RECORD_HEADER_BYTES - 1) {
            let head = &bytes[at..at + RECORD_HEADER_BYTES];
            if !is_candidate(head, bad.place.seq, anchor.seq) {
                continue;
            }
            let resume = Place {
                seq: Header::decode_any(head).map_or(anchor.seq, |header| header.seq),
                offset: bad.place.offset + at as u64,
                entry_bytes: bad.place.entry_bytes,
                before: if same_seq(head, bad.place.seq) { bad.place.before } else { None },
            };
            if leads_to(&bytes[at..], resume, anchor) {
                return (SeqRange::new(bad.place.seq, resume.seq), resume);
            }
        }
        (SeqRange::new(bad.place.seq, anchor.seq), anchor)
    }

    /// Whether header and footer are whole; in words, what is not.
    pub(crate) fn check_ends(&self, fs: &dyn Fs) -> io::Result<Vec<String>> {
        let (file, _, _) = self.start(fs, self.first)?;
        let mut notes = Vec::new();
        let name = super::name_of(&self.path);
        if SegmentHeader::decode(&read_span(&*file, 0, SEGMENT_HEADER_BYTES)).is_err() {
            notes.push(format!("the header of segment {name} is damaged"));
        }
        if self.body().sealed && read_footer(&*file)?.is_none() {
            notes.push(format!("the footer of segment {name} is damaged"));
        }
        Ok(notes)
    }
}

fn same_seq(head: &[u8], seq: Seq) -> bool {
    Header::decode_any(head).is_ok_and(|header| header.seq == seq)
}

/// Whether the records in `bytes`, the first of which is at `from`, reach `anchor` exactly.
fn leads_to(bytes: &[u8], from: Place, anchor: Place) -> bool {
    let mut tail = from.before;
    let mut next = from.seq;
    let mut at = 0;
    while at < bytes.len() {
        let Ok(header) = Header::decode_any(&bytes[at..]) else { return false };
        let Some(record) = bytes.get(at..at + header.record_len()) else { return false };
        if header.is_control() {
            if header.seq != next || tail.is_some_and(|tail| tail != header.prefix_id()) {
                return false;
            }
        } else if header.check(record, next, tail).is_err() {
            return false;
        } else {
            next = next.next();
        }
        tail = Some(header.prefix_id());
        at += record.len();
    }
    next == anchor.seq && (anchor.before.is_none() || tail == anchor.before)
}

/// The footer of a sealed segment, found from its end; `None` if there is no whole one.
pub(crate) fn read_footer(file: &dyn FsFile) -> io::Result<Option<Footer>> {
    let len = file.len()?;
    if len < (SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + TRAILER_BYTES) as u64 {
        return Ok(None);
    }
    let end = len - TRAILER_BYTES as u64;
    let Some(offset) = decode_trailer(&read_span(file, end, TRAILER_BYTES)) else {
        return Ok(None);
    };
    let head = read_span(file, offset.min(end), RECORD_HEADER_BYTES);
    let Ok(header) = Header::decode_any(&head) else { return Ok(None) };
    if !header.is_control() || offset + header.record_len() as u64 != end {
        return Ok(None);
    }
    let body = read_span(file, offset + RECORD_HEADER_BYTES as u64, header.body_len);
    Ok(Footer::decode(&header, &body))
}

/// Where the entries of a sealed segment end: where its footer starts.
pub(crate) fn footer_offset(file: &dyn FsFile) -> io::Result<Option<u64>> {
    let len = file.len()?;
    let Some(end) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    Ok(decode_trailer(&read_span(file, end, TRAILER_BYTES)))
}

/// The first thing that was not whole.
pub(crate) struct Bad {
    place: Place,
    reason: String,
}

enum Step {
    /// An entry of this length; control records before it were passed over.
    Entry {
        at: usize,
        len: usize,
    },
    Bad(String),
}

/// Entries one after another, with the bytes they lie in.
struct Reading<'a> {
    file: &'a dyn FsFile,
    /// Where the file's entries end.
    end: u64,
    place: Place,
    /// Where `bytes` starts in the file.
    base: u64,
    bytes: Vec<u8>,
    /// How many bytes the first read asks for.
    wanted: usize,
}

impl<'a> Reading<'a> {
    fn new(file: &'a dyn FsFile, place: Place, end: u64) -> Self {
        let base = place.offset;
        Reading { file, end, place, base, bytes: Vec::new(), wanted: INDEX_STEP_BYTES }
    }

    fn place(&self) -> Place {
        self.place
    }

    /// Makes `len` bytes from the current place on available, if the file has them.
    fn fill(&mut self, len: usize) -> bool {
        let at = (self.place.offset - self.base) as usize; // Within `bytes`, or at its end.
        if at + len <= self.bytes.len() {
            return true;
        }
        let from = self.base + self.bytes.len() as u64;
        let missing = at + len - self.bytes.len();
        let step = if self.bytes.is_empty() { self.wanted } else { READ_STEP_BYTES };
        let left = usize::try_from(self.end.saturating_sub(from)).unwrap_or(usize::MAX);
        let more = read_span(self.file, from, missing.max(step).min(left));
        if self.bytes.is_empty() {
            self.bytes = more;
        } else {
            self.bytes.extend_from_slice(&more);
        }
        at + len <= self.bytes.len()
    }

    fn step(&mut self) -> Step {
        loop {
            if !self.fill(RECORD_HEADER_BYTES) {
                return Step::Bad("the file ends too early".to_owned());
            }
            let at = (self.place.offset - self.base) as usize;
            let header = match Header::decode_any(&self.bytes[at..]) {
                Ok(header) => header,
                Err(error) => return Step::Bad(error.to_string()),
            };
            let len = header.record_len();
            if !self.fill(len) {
                return Step::Bad("the file ends too early".to_owned());
            }
            let record = &self.bytes[at..at + len];
            if header.is_control() {
                let known = self.place.before;
                if header.seq != self.place.seq
                    || known.is_some_and(|before| before != header.prefix_id())
                {
                    return Step::Bad("a control record does not fit its place".to_owned());
                }
                self.place.before = Some(header.prefix_id());
                self.place.offset += len as u64;
                continue;
            }
            if let Err(error) = header.check(record, self.place.seq, self.place.before) {
                return Step::Bad(error.to_string());
            }
            self.place = Place {
                seq: self.place.seq.next(),
                offset: self.place.offset + len as u64,
                entry_bytes: self.place.entry_bytes + len as u64,
                before: Some(header.prefix_id()),
            };
            return Step::Entry { at, len };
        }
    }

    /// Reads up to the first of `range` and then collects.
    fn collect(mut self, range: SeqRange, bytes_max: usize) -> Result<Entries, Bad> {
        // Where the wanted entries lie in `bytes`: one piece between two control records.
        let mut pieces: Vec<(usize, usize)> = Vec::new();
        let mut bytes = 0;
        let mut place = self.place;
        let mut before = None;
        while place.seq < range.end {
            if place.seq == range.first {
                before = place.before;
            }
            if place.seq.distance_from(range.first) >= RUN_ENTRIES_MAX as u64
                || bytes >= bytes_max.max(1)
            {
                break;
            }
            match self.step() {
                Step::Entry { at, len } if place.seq >= range.first => {
                    if bytes > 0 && bytes + len > bytes_max {
                        break;
                    }
                    bytes += len;
                    match pieces.last_mut() {
                        Some((_, end)) if *end == at => *end += len,
                        _ => pieces.push((at, at + len)),
                    }
                }
                Step::Entry { .. } => {}
                // What was whole before it is delivered; the next read finds it again.
                Step::Bad(_) if bytes > 0 => break,
                Step::Bad(reason) => return Err(Bad { place: self.place, reason }),
            }
            place = self.place;
        }
        let bytes = match pieces[..] {
            [(from, to)] => Bytes::from(self.bytes).slice(from..to),
            _ => {
                let mut joined = Vec::with_capacity(bytes);
                for (from, to) in pieces {
                    joined.extend_from_slice(&self.bytes[from..to]);
                }
                joined.into()
            }
        };
        Ok(Entries { range: SeqRange::new(range.first, place.seq), bytes, before, next: place })
    }
}

/// Index entries for a run that is written at `offset`.
pub(crate) fn places_of_run(
    run: &crate::store::Run,
    offset: u64,
    entry_bytes: u64,
    last_place: Option<Place>,
) -> Vec<Place> {
    let step = INDEX_STEP_BYTES as u64;
    // Bytes of the run up to where the next place is due.
    let mut due =
        last_place.map_or(0, |place| (place.entry_bytes + step).saturating_sub(entry_bytes));
    let mut places = Vec::new();
    while let Some((seq, at)) = usize::try_from(due).ok().and_then(|due| run.record_from(due)) {
        let before = if seq == run.range().first {
            Some(run.before())
        } else {
            run.prefix_id(seq.previous())
        };
        let at = at as u64;
        places.push(Place { seq, offset: offset + at, entry_bytes: entry_bytes + at, before });
        due = at + step;
    }
    places
}

/// The index as a footer keeps it.
pub(crate) fn points_of(places: &[Place]) -> Vec<Point> {
    let whole = places.iter().filter_map(|place| {
        let Place { seq, offset, entry_bytes, before } = *place;
        Some(Point { seq, offset, entry_bytes, before: before? })
    });
    whole.collect()
}
