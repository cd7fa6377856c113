//! The writing side: appends, segments begun and sealed, room on the disk, and what the node must
//! not forget.

use std::io;
use std::io::ErrorKind::FileTooLarge;
use std::sync::Arc;
use std::time::Instant;

use super::format::{Footer, SEGMENT_HEADER_BYTES, SegmentHeader, encode_mark, footer_len};
use super::job::Jobs;
use super::meta::Meta;
use super::rewrite::Rewritten;
use super::room::Room;
use super::scrub::{Scrub, ScrubStep, Scrubber};
use super::segment::{Body, Segment, places_of_run, points_of};
use super::segments::Segments;
use super::sync::{SyncStats, Syncer};
use super::{DiskEvent, DiskOptions, Fsync, Home};
use crate::descriptors::is_exhausted;
use crate::limits::{
    INDEX_STEP_BYTES, PREALLOCATE_BYTES, PREALLOCATE_BYTES_MIN, RECORD_HEADER_BYTES,
    RUN_DISK_EXTRA_BYTES, SEGMENT_EPOCHS_MAX,
};
use crate::store::fs::{FileId, FsFile, FsLock, is_full};
use crate::store::reader::Shared;
use crate::store::{Bounds, Identity, LogReader, LogStore, Run, StoreError};
use crate::types::{PrefixId, RoomLimit, Seq, SeqRange, Shortage};

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
    pub(super) jobs: Jobs<Rewritten>,
    /// What came of the last repair, until it is taken.
    pub(super) repaired: Option<(SeqRange, Result<(), StoreError>)>,
    pub(super) notify: super::segments::Notify,
    pub(super) scrubber: Scrubber,
    pub(super) failed: Option<StoreError>,
    pub(super) closed: bool,
    /// Which directory was opened.
    pub(super) dir_id: FileId,
    /// When it was last looked at.
    pub(super) looked: Option<Instant>,
    /// The lock that older versions know.
    pub(super) file_lock: Box<dyn FsLock>,
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
    /// A scrub that needs the log no more.
    pub fn scrubber(&self) -> Scrub {
        Scrub::new(self.shared.clone())
    }

    /// Verifies about `bytes_max` bytes more of what is on disk. A full pass per day is a good rule.
    pub fn scrub(&mut self, bytes_max: usize) -> ScrubStep {
        let shared = self.shared.clone();
        self.scrubber.step(&shared, bytes_max)
    }

    /// What syncing has cost since the log was opened.
    pub fn sync_stats(&self) -> SyncStats {
        self.syncer.stats()
    }

    /// Syncs in the caller's thread what was written, and answers what is on disk. The notifier
    /// hears of it too.
    pub fn sync_now(&self) -> Seq {
        self.syncer.sync_now()
    }

    /// Whether something was begun that waits for [`DiskLog::work`].
    pub fn has_work(&self) -> bool {
        self.jobs.is_waiting()
    }

    /// Does it in the caller's thread, where there is no other one.
    pub fn work(&mut self) {
        self.jobs.work();
    }

    /// Waits for what was begun.
    pub(super) fn finish_job(&mut self) {
        if let Some(done) = self.jobs.wait() {
            self.finish_repair(done);
        }
    }

    /// The highest entry known to be on disk, whatever the policy is.
    pub fn synced(&self) -> Seq {
        self.syncer.durable()
    }

    /// How many files were put below `aside/` over the directory's whole life.
    pub fn aside_files(&self) -> u64 {
        self.meta.aside_next - 1
    }

    /// Bytes that are free on its file system, if that can be known.
    pub fn free_bytes(&self) -> Option<u64> {
        self.home.fs.free_bytes(&self.home.dir)
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
        self.check_home()?;
        let home = &self.home;
        let written = self.room.with_control(|| meta.write(&*home.fs, &home.dir));
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

    /// Ends the active segment: footer, exact length.
    pub(super) fn seal(&mut self) -> Result<(), StoreError> {
        self.active.take().map_or(Ok(()), |active| self.seal_segment(active))
    }

    /// Needs no room that the segment does not have.
    fn seal_segment(&mut self, active: Active) -> Result<(), StoreError> {
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
        match sealed {
            Ok(()) => {}
            // A footer is a help, not a need: the next start writes it.
            Err(error) if is_full(&error) => {
                let cut = active.file.set_len(active.end);
                cut.map_err(|error| self.fail("cut a segment to its length", &error))?;
            }
            Err(error) => return Err(self.fail("seal a segment", &error)),
        }
        active.segment.body().sealed = true;
        self.segments().use_segment(&active.segment, active.segment.first);
        self.syncer.written(&active.file, footer.last);
        self.syncer.sealed();
        Ok(())
    }

    /// Goes on in a segment that begins with `first`. The next one's file is there before this one is
    /// sealed: while no file can be begun because too many are open, or for want of room, the active
    /// segment just grows beyond its size. What was let in must be written.
    fn roll(&mut self, first: Seq, before: PrefixId) -> Result<(), StoreError> {
        self.check_home()?;
        match self.begin_file(first, before) {
            Ok(file) => {
                if let Err(error) = self.seal() {
                    let _ = self.home.fs.remove(&self.home.segment(first)); // See `begin_file`.
                    return Err(error);
                }
                self.begin(first, before, file);
                Ok(())
            }
            Err(error) if self.active.is_some() && (is_exhausted(&error) || is_full(&error)) => {
                Ok(())
            }
            Err(error) => Err(self.fail("begin a segment", &error)),
        }
    }

    fn begin_file(&self, first: Seq, before: PrefixId) -> io::Result<Arc<dyn FsFile>> {
        let (fs, path) = (&self.home.fs, self.home.segment(first));
        let header = SegmentHeader { log_id: self.meta.identity.log_id, first, before };
        let make = || {
            let file = fs.create(&path)?;
            file.write_at(&[&header.encode()], 0)?;
            Ok(file)
        };
        let made = if self.active.is_some() { make() } else { self.room.with_reserve(make) };
        made.inspect_err(|_| {
            // An empty file under that name is nothing to recovery, too.
            let _ = fs.remove(&path);
        })
    }

    /// Writes to this file from now on.
    fn begin(&mut self, first: Seq, before: PrefixId, file: Arc<dyn FsFile>) {
        let (path, log_id) = (self.home.segment(first), self.meta.identity.log_id);
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
            pinned: false,
        };
        let segment = Arc::new(Segment::new(path, first, Some(before), log_id, body));
        self.segments().push(segment.clone());
        self.syncer.new_name();
        let end = SEGMENT_HEADER_BYTES as u64;
        self.active = Some(Active { segment, file, end, allocated: end, marked: None });
    }

    /// How much room the active segment is to get at a time.
    fn step(&self) -> u64 {
        let step = PREALLOCATE_BYTES.min(self.options.segment_size).max(1);
        match self.home.fs.free_bytes(&self.home.dir) {
            Some(free) if free / 8 < step => {
                let scarce = free / 8 / PREALLOCATE_BYTES_MIN * PREALLOCATE_BYTES_MIN;
                scarce.max(PREALLOCATE_BYTES_MIN).min(step)
            }
            _ => step,
        }
    }

    /// Makes sure that `len` bytes and a footer behind them fit into the active segment.
    fn allocate(&mut self, run: &Run) -> io::Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let len = (RECORD_HEADER_BYTES + run.len_bytes()) as u64;
        let (epochs, places) = {
            let body = active.segment.body();
            (body.epochs.len(), body.places.as_ref().map_or(0, Vec::len))
        };
        let rows = places + 1 + len as usize / INDEX_STEP_BYTES + 1;
        let needed = active.end + len + footer_len(epochs + run.epochs().len(), rows) as u64;
        if needed <= active.allocated {
            return Ok(());
        }
        let (file, before) = (active.file.clone(), active.allocated);
        let wanted = needed.next_multiple_of(self.step());
        let mut allocated = file.allocate(wanted).map(|()| wanted);
        if allocated.as_ref().is_err_and(is_full) {
            // What the failed try took must not stay: the next one needs it.
            let _ = file.set_len(before);
            allocated = self.room.with_reserve(|| file.allocate(needed)).map(|()| needed);
        }
        let allocated = allocated?;
        if let Some(active) = &mut self.active {
            active.allocated = allocated;
        }
        Ok(())
    }

    /// Whether the system lets the file that is written to become so much longer.
    fn check_file_size(&self, bytes: u64) -> Result<(), Shortage> {
        let Some(max) = self.home.fs.file_bytes_max() else { return Ok(()) };
        let (end, places) = self.active.as_ref().map_or((0, 0), |active| {
            (active.end, active.segment.body().places.as_ref().map_or(0, Vec::len))
        });
        let beside = footer_len(SEGMENT_EPOCHS_MAX, places) as u64 + RUN_DISK_EXTRA_BYTES;
        let needed = end + bytes + beside;
        // The next segment begins with nothing.
        let rolls = end + bytes > self.options.segment_size;
        if needed <= max || rolls && bytes + beside <= max {
            return Ok(());
        }
        let free = Some(max.saturating_sub(end));
        Err(Shortage { need: bytes + beside, free, limit: RoomLimit::FileSize(max) })
    }

    /// Writes a run, with a mark before it if there is news of what is durable. Answers where it is.
    fn write(&mut self, run: &Run) -> io::Result<u64> {
        self.allocate(run)?;
        let durable = self.syncer.durable();
        // The log has an active segment here: `append_run` began one.
        let Some(active) = &mut self.active else { return Ok(0) };
        let mark = if active.marked.is_none_or(|marked| marked < durable) {
            encode_mark(run.range().first, run.before(), durable)
        } else {
            Vec::new()
        };
        // Where no room can be reserved, it is the write that finds none.
        let written = self.room.with_reserve(|| {
            active.file.write_at(&[&mark, run.bytes()], active.end).map_err(|error| {
                // A part may have been written, and must not look like entries later.
                let cut = active.file.set_len(active.end);
                active.allocated = active.end;
                cut.err().filter(|_| is_full(&error)).unwrap_or(error)
            })
        });
        written?;
        if !mark.is_empty() {
            active.marked = Some(durable);
        }
        Ok(active.end + mark.len() as u64)
    }

    /// The run is in the active segment at this place: readers and the disk thread hear of it.
    fn note_written(&mut self, run: Run, at: u64) {
        let Some(active) = &mut self.active else { return };
        let range = run.range();
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
    }

    pub(super) fn append_run(&mut self, run: Run) -> Result<(), StoreError> {
        self.check_usable()?;
        StoreError::check_continues(&run, self.bounds())?;
        let (first, before) = (run.range().first, run.before());
        // A disk that is far behind gets no more files to sync: this one grows beyond its size.
        if self.active.is_none() || self.must_roll(&run) && !self.syncer.is_behind() {
            self.roll(first, before)?;
        }
        let mut written = self.write(&run);
        let is_begun =
            self.active.as_ref().is_some_and(|active| active.end > SEGMENT_HEADER_BYTES as u64);
        if is_begun && written.as_ref().is_err_and(|error| error.kind() == FileTooLarge) {
            // The system lets this file grow no further: another one may.
            self.syncer.catch_up();
            self.roll(first, before)?;
            written = self.write(&run);
        }
        let at = written.map_err(|error| self.fail("write to the log", &error))?;
        self.note_written(run, at);
        Ok(())
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

    fn room_for(&self, bytes: usize) -> Result<(), Shortage> {
        if self.check_usable().is_err() {
            return Err(Shortage { need: bytes as u64, free: None, limit: RoomLimit::Space });
        }
        self.check_file_size(self.options.run_bytes.max(bytes as u64))?;
        self.room.check(bytes as u64)
    }

    fn identity(&self) -> &Identity {
        &self.meta.identity
    }

    fn set_identity(&mut self, identity: Identity) -> Result<(), StoreError> {
        self.check_usable()?;
        let meta = Meta { identity, ..self.meta.clone() };
        self.write_meta(meta)
    }

    fn set_aside(&mut self, from: Seq, reason: &str) -> Result<u64, StoreError> {
        self.check_usable()?;
        self.move_aside(from.max(Seq::FIRST), reason)
    }

    fn begin_repair(&mut self, run: Run) -> Result<(), StoreError> {
        self.check_usable()?;
        self.begin_repair_with(run)
    }

    fn is_repairing(&self) -> bool {
        self.jobs.is_busy() || self.repaired.is_some()
    }

    fn take_repaired(&mut self) -> Option<(SeqRange, Result<(), StoreError>)> {
        if let Some(done) = self.jobs.take_done() {
            self.finish_repair(done);
        }
        self.repaired.take()
    }

    fn repair(&mut self, run: Run) -> Result<(), StoreError> {
        self.begin_repair(run)?;
        self.finish_job();
        self.repaired.take().map_or(Ok(()), |(_, outcome)| outcome)
    }

    fn damage(&self) -> Vec<SeqRange> {
        self.shared.tail().damage.clone()
    }

    fn close(&mut self) {
        if self.closed {
            return;
        }
        self.finish_job();
        self.syncer.stop();
        self.syncer.sync_now();
        if self.check_usable().is_ok() {
            let bounds = self.bounds();
            let meta = Meta { clean: Some((bounds.last, bounds.tail)), ..self.meta.clone() };
            match self.write_meta(meta) {
                // Without room the next start reads what it would have been told.
                Ok(()) | Err(StoreError::Full | StoreError::Gone { .. }) => {}
                Err(error) => (self.notify)(DiskEvent::SyncFailed(error.to_string())),
            }
        }
        self.closed = true;
    }
}
