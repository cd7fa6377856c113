//! Opening a directory: what a crash can leave, and what is done about it.
//!
//! The *durable mark* D is the highest durable position found in a control record, or the last entry
//! after a clean stop. An entry is *whole* if its checksums are right and it continues the chain.
//!
//! | left behind | how it is told | what recovery does |
//! |---|---|---|
//! | nothing: a clean stop | `clean=` in meta | trusts it; the active segment is read all the same |
//! | a directory without meta, or with meta.tmp only | no segment either | begins a new log |
//! | the old meta, or the new one | rename is atomic, both copies have a checksum | takes what is there |
//! | a segment without its first entry | no whole entry in it | uses it, or removes it if not even its header is whole |
//! | a torn last batch | bytes past D that are no entry, nothing whole behind | cut |
//! | a batch missing before a whole one | past D, and a sector of it was never written | what is behind goes to `aside/`, the log ends before the hole |
//! | a footer written, the next segment missing | the footer is whole | the next append begins a segment |
//! | a torn mark before a whole batch | bytes that are no record, the entry that should follow behind them | a mark is written there |
//! | a footer torn | as a torn batch | cut and written to again; written anew if a segment follows |
//! | a sealed segment not synced, the next one begun | it lies past D | read like the last one |
//! | `cut=` in meta: moving aside was interrupted | | finished |
//! | a repaired copy not yet in place | its name | removed; the damage is found again |
//! | entries in the page cache that a failed sync left | the stop was not clean | everything past D is written again and synced |
//! | anything else: destroyed bytes | at or before D, or destroyed after they were written | *damage*: nothing is deleted, what is whole is served |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{
    BadSegmentHeader, FORMAT_VERSION, Footer, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC,
};
use super::format::{SegmentHeader, encode_mark, segment_first};
use super::job::Jobs;
use super::meta::{BadMeta, META, Meta};
use super::refusal::{OpenError, io, is_nobodys, no_directory};
use super::room::Room;
use super::scan::{Place, Scan, Written, read_span, scan};
use super::scrub::Scrubber;
use super::segment::{Body, Segment, footer_offset, points_of, read_footer};
use super::segments::{Notify, Segments};
use super::sync::Syncer;
use super::write::{Active, DiskLog};
use super::{DiskEvent, DiskOptions, Fsync, Home, LOCK, RESERVE};
use crate::limits::SEALED_UNSYNCED_MAX;
use crate::store::Bounds;
use crate::store::fs::{Fs, FsFile, lock_holder};
use crate::store::reader::{Shared, Tail};
use crate::types::{Epoch, PrefixId, Seq, SeqRange, parse_decimal};

/// A log that was opened, and how it was found.
pub struct Opened {
    /// The log.
    pub log: DiskLog,
    /// How it was found.
    pub recovery: Recovery,
}

/// How a directory was found, for the node's log lines and for what it may claim.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// There was nothing yet.
    pub new: bool,
    /// The node before ended by a clean stop.
    pub clean: bool,
    /// A torn tail that was cut: the entry it would have been, its bytes, what was wrong. No sync
    /// ever covered it.
    pub cut: Option<(Seq, u64, String)>,
    /// Entries that a crash left behind a hole were moved to this file below `aside/`; from here on.
    pub aside: Option<(Seq, String)>,
    /// What cannot be read, and why.
    pub damage: Vec<(SeqRange, String)>,
    /// What is damaged without an entry being lost.
    pub notes: Vec<String>,
    /// Entries that were shown as stored may be gone: the machine went down under another policy
    /// than `always`, or a hole may have been more than a torn write.
    pub machine_loss_possible: bool,
    /// The durable position that the directory itself proves.
    pub durable_mark: Seq,
}

/// Whether a file of this name is a segment of ours: programs of the same kind name theirs alike.
fn is_segment(home: &Home, name: &str) -> bool {
    segment_first(name).is_some_and(|first| {
        let read = home.fs.open_to_read(&home.segment(first));
        let head = read.map(|file| read_span(&*file, 0, SEGMENT_HEADER_BYTES)).unwrap_or_default();
        head.starts_with(SEGMENT_MAGIC)
    })
}

impl DiskLog {
    /// Opens the log in `dir`, or begins one there. `notify` is called from the disk thread and from
    /// readers; it must not call back.
    ///
    /// # Errors
    /// The directory is not ours to use, or the system refused.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: DiskOptions,
        notify: Box<dyn Fn(DiskEvent) + Send + Sync>,
    ) -> Result<Opened, OpenError> {
        let home = Home { fs, dir: dir.to_owned() };
        let fs = &*home.fs;
        let shown = dir.display();
        fs.create_dir(dir).map_err(|error| no_directory(dir, error))?;
        let locked = |holder: &str| OpenError::Locked {
            dir: dir.to_owned(),
            holder: match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            },
        };
        // The directory itself: a file in it is deleted by those who take it for a remnant.
        let lock = fs
            .lock_dir(dir)
            .map_err(io(format!("lock the directory {shown}")))?
            .ok_or_else(|| locked(&lock_holder(dir).unwrap_or_default()))?;
        // Before anything is made in it: it may be no directory of ours.
        let mut opening = Opening::begin(home.clone(), &options)?;
        let path = dir.join(LOCK);
        let file_lock = fs
            .lock(&path, &format!("{}\n", std::process::id()))
            .map_err(io(format!("lock {}", path.display())))?
            .map_err(|holder| locked(&holder))?;
        let reserve = dir.join(RESERVE);
        let reserve = fs
            .open(&reserve)
            .or_else(|_| fs.create(&reserve))
            .map_err(io(format!("make {shown}/{RESERVE}")))?;
        let room = Room::new(home.clone(), reserve, options.run_bytes, options.manual_sync);
        opening.count_aside();
        opening.finish_cut(&room)?;
        opening.find_segments()?;
        opening.examine()?;
        opening.settle(&room)?;
        opening.write_again()?;
        opening.claim(&options, &room)?;
        let notify: Notify = Arc::from(notify);
        let (tail, segments, active) = opening.build(&options)?;
        let last = tail.bounds.last;
        let segments =
            Segments::new(home.fs.clone(), notify.clone(), segments, options.open_segments);
        let syncer = Syncer::start(
            home.fs.clone(),
            dir.to_owned(),
            options.fsync,
            notify.clone(),
            last,
            options.manual_sync,
        )
        .map_err(io("start the disk thread"))?;
        let jobs = Jobs::new(notify.clone(), options.manual_sync);
        let dir_id = home.fs.id(dir).map_err(io(format!("look at {shown}")))?;
        let log = DiskLog {
            home,
            options,
            shared: Arc::new(Shared::new(tail, Some(segments))),
            meta: opening.meta,
            active,
            syncer,
            room,
            kept: None,
            jobs,
            repaired: None,
            notify,
            scrubber: Scrubber::default(),
            failed: None,
            closed: false,
            dir_id,
            looked: None,
            file_lock,
            _lock: lock,
        };
        Ok(Opened { log, recovery: opening.recovery })
    }
}

/// A segment as it was found. A log can have more of them than a process may have files open, so
/// each is opened when it is looked at.
struct Found {
    path: PathBuf,
    first: Seq,
    header: Option<SegmentHeader>,
    /// Without its index, which would add up over all segments, and where it starts.
    footer: Option<(Footer, u64)>,
    scan: Option<Scan>,
}

impl Found {
    fn open(&self, fs: &dyn Fs) -> Result<Arc<dyn FsFile>, OpenError> {
        fs.open(&self.path).map_err(io(format!("open {}", self.path.display())))
    }

    /// The last whole entry, and epoch and digest there.
    fn end(&self) -> (Seq, Option<PrefixId>) {
        match (&self.scan, &self.footer) {
            (Some(scan), _) => (scan.last, scan.tail),
            (None, Some((footer, _))) => (footer.last, Some(footer.tail)),
            (None, None) => (self.first.previous(), self.header.map(|header| header.before)),
        }
    }

    fn is_empty(&self) -> bool {
        self.end().0 < self.first
    }

    /// The epochs of its whole entries, and where each begins.
    fn epochs(&self) -> &[(Epoch, Seq)] {
        match (&self.scan, &self.footer) {
            (Some(scan), _) => &scan.epochs,
            (None, Some((footer, _))) => &footer.epochs,
            (None, None) => &[],
        }
    }
}

/// Where the log is to end before what is on disk does.
struct Cut {
    index: usize,
    offset: u64,
    seq: Seq,
    keep: bool,
}

/// What a log is made of.
type Built = (Tail, Vec<Arc<Segment>>, Option<Active>);

struct Opening {
    home: Home,
    meta: Meta,
    found: Vec<Found>,
    recovery: Recovery,
}

impl Opening {
    fn begin(home: Home, options: &DiskOptions) -> Result<Self, OpenError> {
        let dir = &home.dir;
        let names = home.fs.list(dir).map_err(io(format!("list {}", dir.display())))?;
        let mut recovery = Recovery::default();
        let meta = match Meta::read(&*home.fs, dir) {
            Ok((meta, whole)) => {
                if !whole {
                    recovery.notes.push("one of the two copies in meta is damaged".to_owned());
                }
                meta
            }
            Err(BadMeta::Newer(found)) => {
                let path = dir.join(META);
                return Err(OpenError::NewerFormat { path, found, known: FORMAT_VERSION });
            }
            Err(BadMeta::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                if names.iter().any(|name| is_segment(&home, name)) {
                    return Err(OpenError::MetaDamaged { path: dir.join(META), found: "gone" });
                }
                if let Some(found) = names.into_iter().find(|name| !is_nobodys(name)) {
                    return Err(OpenError::NotReplog { dir: dir.clone(), found });
                }
                recovery.new = true;
                Meta::new(options.node_id.clone())
            }
            Err(BadMeta::Io(error)) => {
                return Err(io(format!("read {}", dir.join(META).display()))(error));
            }
            Err(BadMeta::Damaged) => {
                let found = "damaged in both of its copies";
                return Err(OpenError::MetaDamaged { path: dir.join(META), found });
            }
        };
        if meta.node_id != options.node_id {
            let id = options.node_id.clone();
            return Err(OpenError::OtherNode { dir: dir.clone(), found: meta.node_id, id });
        }
        recovery.clean = meta.clean.is_some();
        Ok(Opening { home, meta, found: Vec::new(), recovery })
    }

    /// A repair keeps the damaged file under the next number, which `meta` hears of later.
    fn count_aside(&mut self) {
        // Without the directory nothing was kept.
        let names = self.home.fs.list(&self.home.aside()).unwrap_or_default();
        let kept = names.iter().filter(|name| name.ends_with(".log") || name.ends_with(".bad"));
        let numbers = kept.filter_map(|name| parse_decimal(name.split('-').next()?));
        // A name that somebody else made up must not use the numbers up.
        let next = numbers.filter(|number| *number < 1 << 48).max().map_or(0, |number| number + 1);
        self.meta.aside_next = self.meta.aside_next.max(next);
    }

    /// Finishes what `set_aside` had decided and copied before a crash.
    fn finish_cut(&mut self, room: &Room) -> Result<(), OpenError> {
        let Some(from) = self.meta.cut else { return Ok(()) };
        self.home
            .cut_files(from)
            .map_err(io(format!("take entries from {from} on out of the log")))?;
        self.meta.cut = None;
        room.with_control(|| self.meta.write(&*self.home.fs, &self.home.dir))
            .map_err(io("write the file meta"))
    }

    fn find_segments(&mut self) -> Result<(), OpenError> {
        let home = &self.home;
        let names = home.fs.list(&home.dir).map_err(io("list the directory"))?;
        // `meta` comes first in a directory's life, so its being there says that this is ours.
        for name in names.iter().filter(|name| name.ends_with(".log.tmp")) {
            home.fs.remove(&home.dir.join(name)).map_err(io(format!("remove {name}")))?;
        }
        for name in &names {
            let Some(first) = segment_first(name) else { continue };
            let path = home.dir.join(name);
            let file = home.fs.open(&path).map_err(io(format!("open {}", path.display())))?;
            let header = match SegmentHeader::decode(&read_span(&*file, 0, SEGMENT_HEADER_BYTES)) {
                Ok(header) if header.first == first => Some(header),
                Err(BadSegmentHeader::Newer(found)) => {
                    return Err(OpenError::NewerFormat { path, found, known: FORMAT_VERSION });
                }
                Ok(_) | Err(BadSegmentHeader::Damaged) => None,
            };
            let (ours, its) = (self.meta.identity.log_id, header.and_then(|header| header.log_id));
            if ours.is_some() && its.is_some() && ours != its {
                return Err(OpenError::ForeignSegment { path });
            }
            let read = |error| io(format!("read {}", path.display()))(error);
            let footer = read_footer(&*file).map_err(read)?;
            let offset = footer_offset(&*file).map_err(read)?;
            let footer = footer.zip(offset).filter(|(footer, _)| footer.last >= first);
            let footer =
                footer.map(|(footer, offset)| (Footer { points: Vec::new(), ..footer }, offset));
            self.found.push(Found { path: path.clone(), first, header, footer, scan: None });
        }
        Ok(())
    }

    /// Reads what is not sealed, and what may not have been synced.
    fn examine(&mut self) -> Result<(), OpenError> {
        let mut mark = self.meta.clean.map_or(Seq::ZERO, |(last, _)| last);
        for index in (0..self.found.len()).rev() {
            let previous = index
                .checked_sub(1)
                .and_then(|index| self.found[index].footer.as_ref().map(|(footer, _)| footer.tail));
            let found = &mut self.found[index];
            let sealed = found.footer.as_ref().map(|(footer, _)| footer.last);
            let trusted = sealed.is_some_and(|last| last <= mark || self.recovery.clean);
            if trusted {
                continue;
            }
            let before = found.header.map(|header| header.before).or(previous);
            let before = if found.first == Seq::FIRST { Some(PrefixId::EMPTY) } else { before };
            let file = found.open(&*self.home.fs)?;
            let scan = scan(&*file, found.first, before, &mut |_| {})
                .map_err(io(format!("read {}", found.path.display())))?;
            mark = mark.max(scan.mark);
            found.scan = Some(scan);
        }
        self.recovery.durable_mark = mark;
        Ok(())
    }

    /// Decides what is cut and what is damage, and cuts.
    fn settle(&mut self, room: &Room) -> Result<(), OpenError> {
        let mark = self.recovery.durable_mark;
        let mut cut = None;
        let mut expected = Seq::FIRST;
        let mut tail = Some(PrefixId::EMPTY);
        for index in 0..self.found.len() {
            let found = &self.found[index];
            let name = super::name_of(&found.path);
            if found.first != expected && cut.is_none() {
                let range = SeqRange::new(expected, found.first);
                if range.is_empty() {
                    let whole = SeqRange::inclusive(found.first, found.end().0);
                    let reason = format!("segment {name} begins before the one before it ends");
                    self.recovery.damage.push((whole, reason));
                } else {
                    let reason = format!("nothing whole is left of it before segment {name}");
                    self.recovery.damage.push((range, reason));
                }
            } else if let (Some(tail), Some(header)) = (tail, found.header)
                && tail != header.before
                && cut.is_none()
            {
                let whole = SeqRange::inclusive(found.first, found.end().0);
                let reason = format!("segment {name} does not continue the one before it");
                self.recovery.damage.push((whole, reason));
            }
            if found.header.is_none() && !found.is_empty() {
                self.recovery.notes.push(format!("the header of segment {name} is damaged"));
            }
            if cut.is_none() {
                cut = self.settle_segment(index);
            }
            let end = self.found[index].end();
            (expected, tail) = (end.0.next(), end.1);
        }
        let end = match &cut {
            Some(cut) => cut.seq.previous(),
            None => expected.previous(),
        };
        if mark > end {
            let range = SeqRange::inclusive(end.next(), mark);
            self.recovery.damage.push((range, "it was on disk and is gone".to_owned()));
        }
        match cut {
            Some(cut) => self.cut(cut, room),
            None => Ok(()),
        }
    }

    /// What is wrong inside one segment, and where the log must end because of it.
    fn settle_segment(&mut self, index: usize) -> Option<Cut> {
        let mark = self.recovery.durable_mark;
        let scan = self.found[index].scan.as_ref()?;
        let name = super::name_of(&self.found[index].path);
        for hole in &scan.holes {
            let is_torn = hole.seq > mark && hole.written != Written::Yes;
            if is_torn && hole.next > hole.seq {
                self.recovery.machine_loss_possible |= hole.written == Written::Perhaps;
                let (offset, seq) = (hole.offset, hole.seq);
                return Some(Cut { index, offset, seq, keep: true });
            }
            let reason = format!("segment {name}: {}", hole.reason);
            if hole.next > hole.seq {
                self.recovery.damage.push((SeqRange::new(hole.seq, hole.next), reason));
            } else {
                self.recovery.notes.push(format!("{reason}, no entry is lost"));
            }
        }
        // Whether an entry of a later segment is whole. One that follows on is not behind a hole.
        let later = self.found[index + 1..].iter().find(|found| !found.is_empty());
        let (seq, offset) = (scan.last.next(), scan.end);
        match (&scan.torn, later) {
            (torn, Some(later)) if later.first > seq => {
                // The end of this segment is missing although the next one has entries.
                let written = torn.as_ref().map_or(Written::Never, |torn| torn.written);
                let is_cut = seq > mark && written != Written::Yes && scan.footer.is_none();
                self.recovery.machine_loss_possible |= is_cut && written == Written::Perhaps;
                is_cut.then_some(Cut { index, offset, seq, keep: true })
            }
            (_, Some(_)) => None, // A torn footer, and the next segment follows: see `examine`.
            (Some(torn), None) => {
                if torn.seq > mark {
                    self.recovery.cut = Some((torn.seq, torn.bytes, torn.reason.clone()));
                }
                Some(Cut { index, offset: torn.offset, seq, keep: torn.seq <= mark })
            }
            (None, None) => {
                let more = index + 1 < self.found.len();
                more.then_some(Cut { index, offset, seq, keep: false })
            }
        }
    }

    /// Ends the log at `cut`. What is behind is kept below `aside/` if there may be entries in it.
    fn cut(&mut self, cut: Cut, room: &Room) -> Result<(), OpenError> {
        let what = || io(format!("cut the log at entry {}", cut.seq));
        let fs = &*self.home.fs;
        if cut.keep {
            let name = format!("{}-{}.bad", self.meta.aside_next, cut.seq);
            let mut pieces = Vec::new();
            for (index, found) in self.found.iter().enumerate().skip(cut.index) {
                let from = if index == cut.index { cut.offset } else { 0 };
                let file = found.open(fs)?;
                let len = file.len().map_err(what())?;
                pieces.push((file, from, len.max(from)));
            }
            room.with_control(|| self.home.keep_aside(&name, &[], &pieces)).map_err(what())?;
            self.meta.aside_next += 1;
            self.recovery.aside = Some((cut.seq, name));
        }
        for found in self.found.drain(cut.index + 1..).rev() {
            fs.remove(&found.path).map_err(what())?;
            fs.sync_dir(&self.home.dir).map_err(what())?;
        }
        let found = &mut self.found[cut.index];
        let file = found.open(fs)?;
        file.set_len(cut.offset.max(SEGMENT_HEADER_BYTES as u64)).map_err(what())?;
        file.sync_data().map_err(what())?;
        found.footer = None;
        let before = found.header.map(|header| header.before);
        let before = if found.first == Seq::FIRST { Some(PrefixId::EMPTY) } else { before };
        found.scan = Some(scan(&*file, found.first, before, &mut |_| {}).map_err(what())?);
        Ok(())
    }

    /// Writes everything past the durable mark again: after a failed sync the kernel may hold pages
    /// that it takes for written, and a sync alone would not write them.
    fn write_again(&mut self) -> Result<(), OpenError> {
        self.mark_again()?;
        self.head_again()?;
        // A segment that was begun and has neither an entry nor a whole header is nothing.
        if self.found.last().is_some_and(|found| found.is_empty() && found.header.is_none())
            && let Some(found) = self.found.pop()
        {
            self.home
                .fs
                .remove(&found.path)
                .map_err(io(format!("remove {}", found.path.display())))?;
        }
        self.seal_again()?;
        if self.recovery.clean {
            return Ok(());
        }
        let mark = self.recovery.durable_mark;
        // No more than these were sealed and not yet synced.
        let recent = self.found.len().saturating_sub(SEALED_UNSYNCED_MAX + 2);
        for (index, found) in self.found.iter().enumerate() {
            let what = || io(format!("write {} again", found.path.display()));
            let Some(scan) = &found.scan else {
                // Its entries are on disk; its footer may not be.
                if index >= recent {
                    found.open(&*self.home.fs)?.sync_data().map_err(what())?;
                }
                continue;
            };
            let file = &*found.open(&*self.home.fs)?;
            let place = scan.places.iter().rev().find(|place| place.seq <= mark.next());
            let from = place.map_or(0, |place| place.offset);
            let len = file.len().map_err(what())?;
            let end = found.footer.as_ref().map_or(scan.end, |_| len).min(len);
            super::copy(file, from, end, file, from).map_err(what())?;
            file.sync_data().map_err(what())?;
        }
        self.home.fs.sync_dir(&self.home.dir).map_err(io("sync the directory"))
    }

    /// Writes the marks that are not whole, and with which no entry is lost.
    fn mark_again(&self) -> Result<(), OpenError> {
        for found in &self.found {
            let holes = found.scan.iter().flat_map(|scan| &scan.holes);
            for hole in holes.filter(|hole| hole.next == hole.seq) {
                let Some(before) = hole.before else { continue };
                let bytes = encode_mark(hole.seq, before, Seq::ZERO);
                if hole.next_offset - hole.offset == bytes.len() as u64 {
                    let file = found.open(&*self.home.fs)?;
                    file.write_at(&[&bytes], hole.offset)
                        .and_then(|()| file.sync_data())
                        .map_err(io(format!("mark {} again", found.path.display())))?;
                }
            }
        }
        Ok(())
    }

    /// Writes the headers that were destroyed, where what stands before tells all they said.
    fn head_again(&mut self) -> Result<(), OpenError> {
        let log_id = self.meta.identity.log_id;
        let mut end = (Seq::ZERO, Some(PrefixId::EMPTY));
        for found in &mut self.found {
            let (last, tail) = std::mem::replace(&mut end, found.end());
            let follows = last.next() == found.first && !found.is_empty();
            let (None, Some(before), true) = (found.header, tail, follows) else { continue };
            let header = SegmentHeader { log_id, first: found.first, before };
            let file = found.open(&*self.home.fs)?;
            file.write_at(&[&header.encode()], 0)
                .and_then(|()| file.sync_data())
                .map_err(io(format!("write the header of {} again", found.path.display())))?;
            let name = super::name_of(&found.path);
            self.recovery.notes.push(format!("the header of segment {name} is written again"));
            found.header = Some(header);
        }
        Ok(())
    }

    /// Writes the footers that did not reach the disk, or were destroyed, where the entries are whole.
    fn seal_again(&mut self) -> Result<(), OpenError> {
        for index in 1..self.found.len() {
            let next = self.found[index].first;
            let found = &mut self.found[index - 1];
            let Some(scan) = found.scan.as_ref().filter(|_| found.footer.is_none()) else {
                continue;
            };
            let (true, Some(tail)) = (scan.last.next() == next, scan.tail) else { continue };
            if scan.holes.iter().any(|hole| hole.next > hole.seq) {
                continue;
            }
            let what = || io(format!("seal {} again", found.path.display()));
            let footer = Footer {
                last: scan.last,
                entry_bytes: scan.entry_bytes,
                tail,
                epochs: scan.epochs.clone(),
                points: points_of(&scan.places),
            };
            let bytes = footer.encode(scan.end);
            let file = found.open(&*self.home.fs)?;
            file.write_at(&[&bytes], scan.end).map_err(what())?;
            file.set_len(scan.end + bytes.len() as u64).map_err(what())?;
            file.sync_data().map_err(what())?;
            let name = super::name_of(&found.path);
            let note = format!("the footer of segment {name} was not whole and is written again");
            self.recovery.notes.push(note);
            found.footer = Some((footer, scan.end));
        }
        Ok(())
    }

    /// The highest epoch that an entry has. Damage changes nothing about it: what is damaged is still
    /// numbered, and is repaired before anything is built on it.
    fn last_epoch(&self) -> Epoch {
        let rows = self.found.iter().flat_map(Found::epochs);
        rows.map(|&(epoch, _)| epoch).max().unwrap_or(Epoch::ZERO)
    }

    /// Writes down that the directory is in use, and what is no longer certain.
    fn claim(&mut self, options: &DiskOptions, room: &Room) -> Result<(), OpenError> {
        let boot = self.home.fs.boot_id();
        let last_epoch = self.last_epoch();
        let recovery = &mut self.recovery;
        let unsynced = self.meta.fsync != Fsync::Always.name() && self.meta.boot != boot;
        recovery.machine_loss_possible |= !recovery.new && !recovery.clean && unsynced;
        if recovery.machine_loss_possible || !recovery.damage.is_empty() {
            self.meta.identity.vouches = false;
        }
        // What ended the log may be gone, and what was settled with it: not only what damage shows.
        let shorter = recovery.cut.is_some() || recovery.aside.is_some();
        if recovery.machine_loss_possible || shorter {
            self.meta.identity.settled = Epoch::ZERO;
        }
        // Whoever has an entry has settled its epoch.
        let settled = &mut self.meta.identity.settled;
        *settled = (*settled).max(last_epoch);
        self.meta.clean = None;
        self.meta.fsync = options.fsync.name().to_owned();
        self.meta.boot = boot;
        let home = &self.home;
        room.with_control(|| self.meta.write(&*home.fs, &home.dir))
            .map_err(io("write the file meta"))
    }

    /// What readers and the writer work with.
    fn build(&mut self, options: &DiskOptions) -> Result<Built, OpenError> {
        let mut tail = Tail::new(options.cache_bytes);
        let mut segments = Vec::new();
        let mut active = None;
        let mut end = (Seq::ZERO, Some(PrefixId::EMPTY));
        let count = self.found.len();
        for (index, found) in self.found.drain(..).enumerate() {
            let is_active = index + 1 == count && found.footer.is_none();
            let before = found.header.map(|header| header.before).or(end.1);
            let before = if found.first == Seq::FIRST { Some(PrefixId::EMPTY) } else { before };
            end = found.end();
            let file = if is_active { Some(found.open(&*self.home.fs)?) } else { None };
            let body = body_of(&found, file.clone());
            tail.bounds.bytes += body.entry_bytes;
            for &(epoch, first) in &body.epochs {
                if tail.epochs.last().is_none_or(|&(last, _)| last < epoch) {
                    tail.epochs.push((epoch, first));
                }
            }
            let log_id = found.header.and_then(|header| header.log_id);
            let segment = Segment::new(found.path, found.first, before, log_id, body);
            let segment = Arc::new(segment);
            if let Some(file) = file {
                let at = segment.body().end;
                // Whatever is behind the entries is gone; room is taken with the next one. What is left
                // of a torn footer must not come back under what is appended next.
                let what = || io("cut the active segment to its length");
                if file.len().map_err(what())? > at {
                    file.set_len(at).and_then(|()| file.sync_data()).map_err(what())?;
                }
                active = Some(Active {
                    segment: segment.clone(),
                    file,
                    end: at,
                    allocated: at,
                    marked: None,
                });
            }
            segments.push(segment);
        }
        tail.bounds = Bounds {
            last: end.0,
            tail: end.1.unwrap_or(PrefixId::EMPTY), // Known: the last entry is whole.
            bytes: tail.bounds.bytes,
        };
        for (range, _) in &self.recovery.damage {
            tail.add_damage(*range);
        }
        Ok((tail, segments, active))
    }
}

/// What readers need of a segment; one that is written to has its file.
fn body_of(found: &Found, file: Option<Arc<dyn FsFile>>) -> Body {
    let (last, tail) = found.end();
    let mut body = Body {
        last,
        tail,
        entry_bytes: 0,
        end: SEGMENT_HEADER_BYTES as u64,
        sealed: file.is_none(),
        epochs: Vec::new(),
        file,
        places: None,
        resumes: Vec::new(),
        remarks: Vec::new(),
        pinned: false,
    };
    match (&found.scan, &found.footer) {
        (Some(scan), _) => {
            body.entry_bytes = scan.entry_bytes;
            body.end = scan.end;
            body.epochs = scan.epochs.clone();
            // A whole one is read from the footer when somebody wants it.
            let in_footer = found.footer.is_some() && scan.holes.is_empty();
            body.places = (!in_footer).then(|| scan.places.clone());
            body.resumes = scan
                .places
                .iter()
                .filter(|place| place.before.is_none())
                .copied()
                .collect::<Vec<Place>>();
        }
        (None, Some((footer, offset))) => {
            body.entry_bytes = footer.entry_bytes;
            body.end = *offset;
            body.epochs = footer.epochs.clone();
        }
        (None, None) => body.places = Some(Vec::new()),
    }
    body
}
