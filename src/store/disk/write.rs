//! The writing side: appends, segments begun and sealed, room on the disk, and what the node must
//! not forget.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::format::{Footer, SEGMENT_HEADER_BYTES, SegmentHeader, encode_mark, footer_len};
use super::meta::Meta;
use super::scrub::Scrubber;
use super::segment::{Body, Segment, places_of_run, points_of};
use super::segments::Segments;
use super::sync::{SyncStats, Syncer};
use super::{DiskEvent, DiskOptions, Fsync, Home};
use crate::descriptors::{insist, is_exhausted};
use crate::limits::{
    INDEX_STEP_BYTES, PREALLOCATE_BYTES, RECORD_HEADER_BYTES, RESERVE_BYTES, RESERVE_CONTROL_BYTES,
    ROOM_RETRY, SEGMENT_EPOCHS_MAX,
};
use crate::sabotage::{Bug, active};
use crate::store::fs::{FsFile, FsLock, is_full};
use crate::store::reader::Shared;
use crate::store::{Bounds, Identity, LogReader, LogStore, Run, StoreError};
use crate::types::{PrefixId, Seq, SeqRange};

/// The log on disk. Made by [`DiskLog::open`].
pub struct DiskLog {
    pub(super) home: Home,
    pub(super) options: DiskOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) meta: Meta,
    pub(super) active: Option<Active>,
    pub(super) syncer: Syncer,
    pub(super) room: Room,
    /// The segment that was repaired last, and where the damage in it ends: as it was before, it is
    /// kept already.
    pub(super) kept: Option<(Seq, Seq)>,
    pub(super) notify: super::segments::Notify,
    pub(super) scrubber: Scrubber,
    pub(super) failed: Option<StoreError>,
    pub(super) closed: bool,
    /// Ends when the log is dropped, after everything above.
    pub(super) _lock: Box<dyn FsLock>,
}

/// The segment that is written to.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn FsFile>,
    /// Where the next batch goes; zeros from here on.
    pub(super) end: u64,
    /// Room on the disk up to here.
    pub(super) allocated: u64,
    /// The durable position that the last mark says; `None` before the first.
    pub(super) marked: Option<Seq>,
}

impl DiskLog {
    /// What syncing has cost since the log was opened.
    pub fn sync_stats(&self) -> SyncStats {
        self.syncer.stats()
    }

    /// Syncs in the caller's thread what was written, and answers what is on disk. The notifier
    /// hears of it too.
    pub fn sync_now(&self) -> Seq {
        self.syncer.sync_now()
    }

    /// The highest entry known to be on disk, whatever the policy is.
    pub fn synced(&self) -> Seq {
        self.syncer.durable()
    }

    /// How many files were put below `aside/` over the directory's whole life.
    pub fn aside_files(&self) -> u64 {
        self.meta.aside_next - 1
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments().list().len()
    }

    pub(super) fn segments(&self) -> &Segments {
        // A log on disk is made with them.
        self.shared.segments.as_ref().expect("BUG: a log on disk without segments")
    }

    pub(super) fn check_usable(&self) -> Result<(), StoreError> {
        if let Some(error) = self.syncer.failed() {
            return Err(StoreError::Failed { what: "sync the log".to_owned(), error });
        }
        if self.closed {
            let error = "it was closed".to_owned();
            return Err(StoreError::Failed { what: "use the log".to_owned(), error });
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Turns an error of the system into ours. One that does not say "full" ends the log's use: how
    /// much of the change is on disk is not known.
    pub(super) fn fail(&mut self, what: &str, error: &io::Error) -> StoreError {
        if is_full(error) {
            return StoreError::Full;
        }
        if is_exhausted(error) {
            return StoreError::NoDescriptor { what: what.to_owned() };
        }
        let failed = StoreError::failed(what, error);
        self.failed = Some(failed.clone());
        failed
    }

    /// Replaces `meta`, with the last bytes of the reserve if it must be.
    pub(super) fn write_meta(&mut self, meta: Meta) -> Result<(), StoreError> {
        let home = &self.home;
        let written = self.room.with_control(|| insist(|| meta.write(&*home.fs, &home.dir)));
        match written {
            Ok(()) => {
                self.meta = meta;
                Ok(())
            }
            Err(error) => Err(self.fail("write the file meta", &error)),
        }
    }

    fn must_roll(&self, run: &Run) -> bool {
        let Some(active) = &self.active else { return false };
        let body = active.segment.body();
        let is_empty = body.last < active.segment.first;
        let len = RECORD_HEADER_BYTES + run.len_bytes();
        let epochs = body.epochs.len() + run.epochs().len();
        let places = body.places.as_ref().map_or(0, Vec::len) + len / INDEX_STEP_BYTES + 1;
        let end = active.end + (len + footer_len(epochs, places)) as u64;
        !is_empty && (end > self.options.segment_size || epochs > SEGMENT_EPOCHS_MAX)
    }

    /// Ends the active segment: footer, exact length. Needs no room that it does not have.
    pub(super) fn seal(&mut self) -> Result<(), StoreError> {
        let Some(active) = self.active.take() else { return Ok(()) };
        let footer = {
            let body = active.segment.body();
            Footer {
                last: body.last,
                entry_bytes: body.entry_bytes,
                tail: body.tail.unwrap_or(PrefixId::EMPTY), // Known for what was written here.
                epochs: body.epochs.clone(),
                points: points_of(body.places.as_deref().unwrap_or_default()),
            }
        };
        let bytes = footer.encode(active.end);
        let sealed = active
            .file
            .write_at(&[&bytes], active.end)
            .and_then(|()| active.file.set_len(active.end + bytes.len() as u64));
        if let Err(error) = sealed {
            let error = self.fail("seal a segment", &error);
            self.active = Some(active);
            return Err(error);
        }
        active.segment.body().sealed = true;
        self.segments().use_segment(&active.segment, active.segment.first);
        self.syncer.written(&active.file, footer.last);
        self.syncer.sealed();
        Ok(())
    }

    /// Goes on in a segment that begins with `first`. The next one's file is there before this one is
    /// sealed: while too many files are open, the active segment just grows beyond its size.
    fn roll(&mut self, first: Seq, before: PrefixId) -> Result<(), StoreError> {
        let (fs, path) = (self.home.fs.clone(), self.home.segment(first));
        let next = match self.room.with_reserve(|| fs.create(&path)) {
            Ok(file) => file,
            Err(error) if is_exhausted(&error) => return Ok(()),
            Err(error) => return Err(self.fail("begin a segment", &error)),
        };
        if let Err(error) = self.seal() {
            // An empty file under that name is nothing to recovery, too.
            let _ = fs.remove(&path);
            return Err(error);
        }
        self.begin(first, before, Some(next))
    }

    /// Begins a segment, in `file` if there is one.
    fn begin(
        &mut self,
        first: Seq,
        before: PrefixId,
        file: Option<Arc<dyn FsFile>>,
    ) -> Result<(), StoreError> {
        let path = self.home.segment(first);
        let header = SegmentHeader { log_id: self.meta.identity.log_id, first, before };
        let fs = self.home.fs.clone();
        let made = self.room.with_reserve(|| {
            let file = file.clone().map_or_else(|| fs.create(&path), Ok)?;
            file.write_at(&[&header.encode()], 0)?;
            Ok(file)
        });
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // See `roll`.
                let _ = fs.remove(&path);
                return Err(self.fail("begin a segment", &error));
            }
        };
        let body = Body {
            last: first.previous(),
            tail: Some(before),
            entry_bytes: 0,
            end: SEGMENT_HEADER_BYTES as u64,
            sealed: false,
            epochs: Vec::new(),
            file: Some(file.clone()),
            places: Some(Vec::new()),
            resumes: Vec::new(),
            remarks: Vec::new(),
        };
        let segment = Arc::new(Segment::new(path, first, Some(before), header.log_id, body));
        self.segments().push(segment.clone());
        self.syncer.new_name();
        let end = SEGMENT_HEADER_BYTES as u64;
        self.active = Some(Active { segment, file, end, allocated: end, marked: None });
        Ok(())
    }

    /// Makes sure that `len` bytes and a footer behind them fit into the active segment.
    fn allocate(&mut self, len: u64, run: &Run) -> Result<(), StoreError> {
        // The log has an active segment here: `append` began one.
        let Some(active) = &mut self.active else { return Ok(()) };
        let (epochs, places) = {
            let body = active.segment.body();
            (body.epochs.len(), body.places.as_ref().map_or(0, Vec::len))
        };
        let rows = places + 1 + len as usize / INDEX_STEP_BYTES + 1;
        let needed = active.end + len + footer_len(epochs + run.epochs().len(), rows) as u64;
        if needed <= active.allocated {
            return Ok(());
        }
        let step = PREALLOCATE_BYTES.min(self.options.segment_size).max(1);
        let wanted = needed.next_multiple_of(step);
        let file = active.file.clone();
        let allocated = match file.allocate(wanted) {
            Ok(()) => Ok(wanted),
            Err(error) if is_full(&error) => {
                self.room.with_reserve(|| file.allocate(needed)).map(|()| needed)
            }
            Err(error) => Err(error),
        };
        match allocated {
            Ok(allocated) => {
                active.allocated = allocated;
                Ok(())
            }
            Err(error) => Err(self.fail("reserve room for the log", &error)),
        }
    }

    fn write(&mut self, run: Run) -> Result<(), StoreError> {
        let durable = self.syncer.durable();
        let Some(active) = &mut self.active else { return Ok(()) };
        let range = run.range();
        let mark = if active.marked.is_none_or(|marked| marked < durable) {
            encode_mark(range.first, run.before(), durable)
        } else {
            Vec::new()
        };
        if let Err(error) = active.file.write_at(&[&mark, run.bytes()], active.end) {
            // A part may have been written, and must not look like entries later.
            let cut = active.file.set_len(active.end);
            active.allocated = active.end;
            let error = cut.err().filter(|_| is_full(&error)).unwrap_or(error);
            return Err(self.fail("write to the log", &error));
        }
        if !mark.is_empty() {
            active.marked = Some(durable);
        }
        let at = active.end + mark.len() as u64;
        active.end = at + run.len_bytes() as u64;
        {
            let mut body = active.segment.body();
            let last_place = body.places.as_ref().and_then(|places| places.last()).copied();
            let places = places_of_run(&run, at, body.entry_bytes, last_place);
            body.places.get_or_insert_default().extend(places);
            body.last = range.last();
            body.tail = Some(run.tail());
            body.entry_bytes += run.len_bytes() as u64;
            body.end = active.end;
            body.epochs.extend_from_slice(run.epochs());
        }
        self.syncer.written(&active.file, range.last());
        self.shared.tail().push(run);
        Ok(())
    }

    pub(super) fn append_run(&mut self, run: Run) -> Result<(), StoreError> {
        self.check_usable()?;
        StoreError::check_continues(&run, self.bounds())?;
        let (first, before) = (run.range().first, run.before());
        if self.must_roll(&run) {
            self.roll(first, before)?;
        } else if self.active.is_none() {
            self.begin(first, before, None)?;
        }
        self.allocate((RECORD_HEADER_BYTES + run.len_bytes()) as u64, &run)?;
        self.write(run)
    }
}

impl LogStore for DiskLog {
    fn append(&mut self, run: Run) -> Result<(), StoreError> {
        let range = run.range();
        self.append_run(run)?;
        // What was lost at the end of the log is back once it is appended again.
        let mut tail = self.shared.tail();
        if tail.damage.iter().any(|damage| !damage.intersection(range).is_empty()) {
            tail.clear_damage(range);
        }
        Ok(())
    }

    fn make_durable(&mut self, up_to: Seq) -> Seq {
        let up_to = up_to.min(self.bounds().last);
        let durable = self.syncer.request(up_to);
        match self.options.fsync {
            Fsync::Always if active(Bug::AckBeforeSync) => up_to,
            Fsync::Always => durable.min(up_to),
            Fsync::Interval(_) | Fsync::Never if self.syncer.failed().is_some() => {
                durable.min(up_to)
            }
            Fsync::Interval(_) | Fsync::Never => up_to,
        }
    }

    fn bounds(&self) -> Bounds {
        self.shared.tail().bounds
    }

    fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    fn has_room(&self) -> bool {
        self.room.is_whole(self.options.manual_sync) && self.check_usable().is_ok()
    }

    fn identity(&self) -> &Identity {
        &self.meta.identity
    }

    fn set_identity(&mut self, identity: Identity) -> Result<(), StoreError> {
        self.check_usable()?;
        if active(Bug::PromiseNotKept) {
            return Ok(());
        }
        let meta = Meta { identity, ..self.meta.clone() };
        self.write_meta(meta)
    }

    fn set_aside(&mut self, from: Seq, reason: &str) -> Result<u64, StoreError> {
        self.check_usable()?;
        self.move_aside(from.max(Seq::FIRST), reason)
    }

    fn repair(&mut self, run: Run) -> Result<(), StoreError> {
        self.check_usable()?;
        self.repair_with(run)
    }

    fn damage(&self) -> Vec<SeqRange> {
        self.shared.tail().damage.clone()
    }

    fn close(&mut self) {
        if self.closed {
            return;
        }
        self.syncer.stop();
        self.syncer.sync_now();
        if self.check_usable().is_ok() {
            let bounds = self.bounds();
            let meta = Meta { clean: Some((bounds.last, bounds.tail)), ..self.meta.clone() };
            match self.write_meta(meta) {
                // Without room the next start reads what it would have been told.
                Ok(()) | Err(StoreError::Full) => {}
                Err(error) => (self.notify)(DiskEvent::SyncFailed(error.to_string())),
            }
        }
        self.closed = true;
    }
}

/// Room on the disk for bad times: a file that is never read.
pub(super) struct Room {
    file: Arc<dyn FsFile>,
    whole: Cell<bool>,
    tried: Cell<Option<Instant>>,
}

impl Room {
    /// Takes the room, or as much as meta and footers need, or none.
    pub(super) fn new(file: Arc<dyn FsFile>) -> Room {
        let whole = file.allocate(RESERVE_BYTES).is_ok();
        if !whole {
            // What a failed try took must not stay: others need it.
            let _ = file.set_len(0);
        }
        let room = Room { file, whole: Cell::new(whole), tried: Cell::new(None) };
        room.take_control();
        room
    }

    /// Takes the room for meta and footers, if there is any.
    fn take_control(&self) {
        if self.file.allocate(RESERVE_CONTROL_BYTES).is_err() {
            let _ = self.file.set_len(0);
        }
    }

    /// Whether all of it is there; tries to get it back.
    fn is_whole(&self, always_try: bool) -> bool {
        if self.whole.get() {
            return true;
        }
        let now = Instant::now();
        let due = self.tried.get().is_none_or(|tried| now - tried >= ROOM_RETRY);
        if always_try || due {
            self.tried.set(Some(now));
            self.whole.set(self.file.allocate(RESERVE_BYTES).is_ok());
            if !self.whole.get() {
                // What a failed try took must not stay, but for what meta and footers need.
                let _ = self.file.set_len(RESERVE_CONTROL_BYTES);
                self.take_control();
            }
        }
        self.whole.get()
    }

    /// Tries, and if there is no space, once more with the room that was kept for entries.
    pub(super) fn with_reserve<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if is_full(&error) && self.whole.get() => {
                self.whole.set(false);
                self.tried.set(Some(Instant::now()));
                self.file.set_len(RESERVE_CONTROL_BYTES)?;
                work()
            }
            done => done,
        }
    }

    /// The same, and once more with the room that was kept for meta and footers.
    pub(super) fn with_control<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match self.with_reserve(&mut work) {
            Err(error) if is_full(&error) => {
                self.whole.set(false);
                self.file.set_len(0)?;
                let done = work();
                self.take_control();
                done
            }
            done => done,
        }
    }
}
