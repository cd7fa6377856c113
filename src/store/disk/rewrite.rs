//! A damaged segment written anew: the job of a repair.
//!
//! It changes no state of the log. Readers go on with the old file, which keeps what they know of it even
//! when it has lost its name; appends go on in another one. The new file is under its name, durably, when
//! the job is over, and only then the log is told to read it.

use std::io;
use std::sync::Arc;

use super::format::{Footer, SEGMENT_HEADER_BYTES, SegmentHeader, encode_mark, footer_len};
use super::scan::{Scan, scan};
use super::segment::{Body, Segment, points_of, read_footer};
use super::{Home, copy, name_of, sync};
use crate::limits::INDEX_STEP_BYTES;
use crate::store::Run;
use crate::store::fs::FsFile;
use crate::store::reader::{LogReader, Shared};
use crate::store::record::Header;
use crate::types::{LogId, PrefixId, Seq, SeqRange};

/// See the module.
pub(super) struct Rewrite {
    pub(super) home: Home,
    pub(super) shared: Arc<Shared>,
    /// The segment was written to a moment ago, and is synced first.
    pub(super) unsynced: Option<Arc<sync::Shared>>,
    pub(super) log_id: Option<LogId>,
    /// What was known to be durable.
    pub(super) durable: Seq,
    /// So much stays free on the disk: what was let in may need it.
    pub(super) spare: u64,
    /// What was handed in, for whoever asks.
    pub(super) given: SeqRange,
    /// What of it goes into the log: it begins where the damage does.
    pub(super) run: Run,
    pub(super) damage: SeqRange,
    /// See [`super::DiskLog`].
    pub(super) kept: Option<(Seq, Seq)>,
    /// The next number below `aside/`.
    pub(super) aside_next: u64,
}

/// What came of it.
pub(super) struct Rewritten {
    pub(super) given: SeqRange,
    /// Segments that are in place, and what in each was damaged before.
    pub(super) placed: Vec<(Arc<Segment>, SeqRange)>,
    pub(super) kept: Option<(Seq, Seq)>,
    pub(super) aside_next: u64,
    pub(super) outcome: Result<(), Trouble>,
}

/// Why it was not done, or not wholly.
pub(super) enum Trouble {
    /// The run continues another entry, or does not lead to the one behind.
    Unfit,
    Disk(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Disk(error)
    }
}

/// What readers need of a segment that was scanned.
pub(super) fn body_of(scan: &Scan, file: Option<Arc<dyn FsFile>>, sealed: bool) -> Body {
    Body {
        last: scan.last,
        tail: scan.tail,
        entry_bytes: scan.entry_bytes,
        end: scan.end,
        sealed,
        epochs: scan.epochs.clone(),
        file,
        places: Some(scan.places.clone()),
        resumes: scan.places.iter().filter(|place| place.before.is_none()).copied().collect(),
        remarks: Vec::new(),
        pinned: false,
    }
}

impl Rewrite {
    pub(super) fn run(mut self) -> Rewritten {
        let mut placed = Vec::new();
        let outcome = self.write(&mut placed);
        let Rewrite { given, kept, aside_next, .. } = self;
        Rewritten { given, placed, kept, aside_next, outcome }
    }

    fn write(&mut self, placed: &mut Vec<(Arc<Segment>, SeqRange)>) -> Result<(), Trouble> {
        if let Some(unsynced) = &self.unsynced {
            unsynced.sync_now();
            if let Some(error) = unsynced.failed() {
                return Err(Trouble::Disk(io::Error::other(error)));
            }
        }
        let (run, damage) = (self.run.clone(), self.damage);
        let before = self.reader().prefix_id(damage.first.previous());
        if Some(run.before()) != before
            || (run.range().end == damage.end && !self.leads_on(damage.end, run.tail()))
        {
            return Err(Trouble::Unfit);
        }
        self.write_all(&run, placed)?;
        Ok(())
    }

    fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    /// Whether entry `next`, if there is one, continues `tail`.
    fn leads_on(&self, next: Seq, tail: PrefixId) -> bool {
        let reader = self.reader();
        if next > reader.bounds().last {
            return true;
        }
        let slice = reader.read(SeqRange::with_len(next, 1), 1);
        let Some(record) = slice.pieces.first() else { return false };
        Header::decode_any(record)
            .is_ok_and(|header| header.check(record, next, Some(tail)).is_ok())
    }

    /// Puts a run in place, segment by segment.
    fn write_all(
        &mut self,
        run: &Run,
        placed: &mut Vec<(Arc<Segment>, SeqRange)>,
    ) -> io::Result<()> {
        // What is begun meanwhile lies behind.
        let list = self.shared.segments.as_ref().map(|segments| segments.list());
        let list = list.unwrap_or_default();
        let SeqRange { first: mut next, end } = run.range();
        while next < end {
            let at = list.partition_point(|segment| segment.first <= next);
            // Up to where the next segment begins.
            let border = list.get(at).map_or(end, |segment| segment.first.min(end));
            let part = run.clone().split_from(next).and_then(|run| run.split_until(border));
            let old = at.checked_sub(1).map(|at| list[at].clone());
            let old = old.filter(|old| !self.ends_whole(old, next));
            if let Some(part) = part {
                placed.push((self.rewrite(old, &part)?, part.range()));
            }
            next = border;
        }
        Ok(())
    }

    /// Whether a segment is sealed and whole up to just before `next`: then what follows lies in
    /// no segment and begins one, instead of having this one written anew with each piece.
    fn ends_whole(&self, segment: &Segment, next: Seq) -> bool {
        let file = self.home.fs.open_to_read(&segment.path);
        let footer = file.and_then(|file| read_footer(&*file)).ok().flatten();
        segment.body().sealed && footer.is_some_and(|footer| footer.last.next() == next)
    }

    /// Writes a segment anew with `run` where its damage begins, and keeps the old file.
    fn rewrite(&mut self, old: Option<Arc<Segment>>, run: &Run) -> io::Result<Arc<Segment>> {
        let (home, fs) = (self.home.clone(), self.home.fs.clone());
        let from = run.range().first;
        let first = old.as_ref().map_or(from, |old| old.first);
        let before = match &old {
            Some(old) if old.first < from => old.before,
            _ => Some(run.before()),
        };
        let path = home.segment(first);
        let tmp = home.dir.join(format!("{}.tmp", name_of(&path)));
        let made = home.or_nothing(&tmp, || {
            let file = fs.create(&tmp)?;
            let old_file = self.fill(&*file, old.as_deref(), run, (first, before))?;
            let found = self.end(&*file, first, before)?;
            Ok((file, found, old_file))
        });
        let (file, found, old_file) = made?;

        let kept = Some((first, self.damage.end));
        if let Some(old) = old.as_ref().filter(|_| self.kept != kept) {
            fs.create_dir(&home.aside())?;
            let bad = home.aside().join(format!("{}-{first}.bad", self.aside_next));
            match fs.link(&old.path, &bad) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                linked => linked?,
            }
            fs.sync_dir(&home.aside())?;
            self.aside_next += 1;
            self.kept = kept;
        }
        if let (Some(old), Some(old_file)) = (&old, old_file) {
            old.pin(old_file);
        }
        fs.rename(&tmp, &path)?;
        fs.sync_dir(&home.dir)?;

        let body = body_of(&found, Some(file), true);
        Ok(Arc::new(Segment::new(path, first, before, self.log_id, body)))
    }

    /// Writes what is whole of the old segment, the run, and what follows it. Answers the old file.
    fn fill(
        &self,
        file: &dyn FsFile,
        old: Option<&Segment>,
        run: &Run,
        (first, before): (Seq, Option<PrefixId>),
    ) -> io::Result<Option<Arc<dyn FsFile>>> {
        let SeqRange { first: from, end } = run.range();
        let fs = &*self.home.fs;
        let mut at = SEGMENT_HEADER_BYTES as u64;
        let mut whole = at;
        let (mut old_file, mut rest) = (None, None);
        if let Some(old) = old {
            let (old_last, old_end) = {
                let body = old.body();
                (body.last, body.end)
            };
            let (found, place) = old.locate(fs, from)?;
            whole = place.offset.max(at);
            let behind =
                if end == self.damage.end { old.locate(fs, end)?.1.offset } else { place.offset };
            rest = (end <= old_last).then_some((behind, old_end));
            old_file = Some(found);
        }
        let mark = encode_mark(from, run.before(), self.durable);
        let bytes = whole + (mark.len() + run.len_bytes()) as u64;
        self.reserve(file, bytes + rest.map_or(0, |(behind, end)| end.saturating_sub(behind)))?;

        let header =
            SegmentHeader { log_id: self.log_id, first, before: before.unwrap_or(PrefixId::EMPTY) };
        file.write_at(&[&header.encode()], 0)?;
        if let Some(old_file) = &old_file {
            copy(&**old_file, at, whole, file, at)?;
            at = whole;
        }
        file.write_at(&[&mark], at)?;
        at += mark.len() as u64;
        file.write_at(&[run.bytes()], at)?;
        at += run.len_bytes() as u64;
        if let (Some(old_file), Some((behind, old_end))) = (&old_file, rest) {
            copy(&**old_file, behind, old_end, file, at)?;
        }
        Ok(old_file)
    }

    /// Takes all room at once, and only if what was let in has its own beside it: nothing that is
    /// appended meanwhile finds less than it was promised.
    fn reserve(&self, file: &dyn FsFile, bytes: u64) -> io::Result<()> {
        let places = usize::try_from(bytes).unwrap_or(usize::MAX) / INDEX_STEP_BYTES + 1;
        let bytes = bytes + footer_len(self.run.epochs().len() + 1, places) as u64;
        let free = self.home.fs.free_bytes(&self.home.dir);
        if free.is_some_and(|free| free < bytes.saturating_add(self.spare)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.allocate(bytes)
    }

    /// Verifies what was written, and ends it.
    fn end(&self, file: &dyn FsFile, first: Seq, before: Option<PrefixId>) -> io::Result<Scan> {
        let found = scan(file, first, before, &mut |_| {})?;
        let footer = Footer {
            last: found.last,
            entry_bytes: found.entry_bytes,
            tail: found.tail.unwrap_or(PrefixId::EMPTY), // Known: the run is whole.
            epochs: found.epochs.clone(),
            points: points_of(&found.places),
        };
        let footer = footer.encode(found.end);
        file.write_at(&[&footer], found.end)?;
        file.set_len(found.end + footer.len() as u64)?;
        file.sync_data()?;
        Ok(found)
    }
}
