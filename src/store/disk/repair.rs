//! Entries that leave the log, and entries that come back into it. Both keep what they replace.

use std::io;
use std::sync::Arc;

use super::Home;
use super::format::{Footer, SEGMENT_HEADER_BYTES, SegmentHeader, encode_mark, segment_first};
use super::meta::Meta;
use super::scan::{Scan, scan};
use super::segment::{Body, Segment, points_of, read_footer};
use super::write::{Active, DiskLog};
use crate::store::fs::FsFile;
use crate::store::record::Header;
use crate::store::{LogStore, Run, StoreError};
use crate::types::{PrefixId, Seq, SeqRange};

impl Home {
    /// Takes everything from `from` on out of the segments. What is interrupted is done again from
    /// the beginning; see `cut=` in `meta`.
    pub(super) fn cut_files(&self, from: Seq) -> io::Result<()> {
        let mut segments: Vec<_> =
            self.fs.list(&self.dir)?.iter().filter_map(|name| segment_first(name)).collect();
        // The last first, so that no crash leaves a hole.
        while let Some(first) = segments.pop_if(|first| *first >= from) {
            self.fs.remove(&self.segment(first))?;
            self.fs.sync_dir(&self.dir)?;
        }
        let Some(&first) = segments.last() else { return Ok(()) };
        let file = self.fs.open(&self.segment(first))?;
        let mut end = SEGMENT_HEADER_BYTES as u64;
        let mut beyond = false;
        scan(&*file, first, None, &mut |met| {
            if met.header.is_control() {
                return;
            }
            if met.header.seq < from {
                end = met.offset + met.record.len() as u64;
            } else {
                beyond = true;
            }
        })?;
        if beyond {
            file.set_len(end)?;
            file.sync_data()?;
        }
        Ok(())
    }
}

/// What readers need of a segment that was scanned.
fn body_of(scan: &Scan, file: Option<Arc<dyn FsFile>>, sealed: bool) -> Body {
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
    }
}

impl DiskLog {
    /// The last entry before `from` that is whole, so that the log has a known end.
    fn whole_end(&self, from: Seq) -> (Seq, PrefixId) {
        let reader = self.reader();
        let mut from = from;
        loop {
            if let Some(before) = reader.prefix_id(from.previous()) {
                return (from, before);
            }
            let damage = self.shared.tail().damage.clone();
            let known = damage.iter().find(|range| range.contains(from.previous()));
            // A read that finds nothing has noted why.
            from = known.map_or(from.previous(), |range| range.first);
        }
    }

    pub(super) fn move_aside(&mut self, from: Seq, _reason: &str) -> Result<u64, StoreError> {
        let bounds = self.bounds();
        if from > bounds.last {
            return Ok(0);
        }
        self.check_home()?;
        self.kept = None;
        // No sync may run while files change under it.
        self.syncer.sync_now();
        self.check_usable()?;
        let (from, before) = self.whole_end(from);
        let count = bounds.last.distance_from(from.previous());
        let bytes = bounds.bytes.saturating_sub(self.segments().bytes_from(from));

        let copied = self.copy_aside(from, before);
        if let Err(error) = copied {
            return Err(self.fail("move entries aside", &error));
        }
        let meta =
            Meta { cut: Some(from), aside_next: self.meta.aside_next + 1, ..self.meta.clone() };
        self.write_meta(meta)?;

        // Readers first: what they read from now on is no longer in the log.
        {
            let mut tail = self.shared.tail();
            drop(tail.truncate(from, before, bytes));
            tail.clear_damage(SeqRange::new(from, bounds.last.next()));
        }
        self.active = None;
        if let Err(error) = self.reload_after_cut(from) {
            // Only the next start can finish it, whatever the error is.
            let failed = StoreError::failed("take entries out of the log", &error);
            self.failed = Some(failed.clone());
            return Err(failed);
        }
        self.syncer.reset(from.previous());
        let meta = Meta { cut: None, ..self.meta.clone() };
        self.write_meta(meta)?;
        Ok(count)
    }

    fn copy_aside(&self, from: Seq, before: PrefixId) -> io::Result<()> {
        let fs = &*self.home.fs;
        let mut pieces = Vec::new();
        for segment in self.segments().list() {
            if segment.range().end <= from {
                continue;
            }
            let start = from.max(segment.first);
            let (file, place) = segment.locate(fs, start)?;
            pieces.push((file, place.offset, segment.body().end));
        }
        let log_id = self.meta.identity.log_id;
        let head = SegmentHeader { log_id, first: from, before }.encode();
        let name = format!("{}-{from}.log", self.meta.aside_next);
        self.room.with_control(|| self.home.keep_aside(&name, &head, &pieces))
    }

    fn reload_after_cut(&mut self, from: Seq) -> io::Result<()> {
        self.home.cut_files(from)?;
        let mut list = self.segments().list();
        list.retain(|segment| segment.first < from);
        if let Some(last) = list.last().cloned()
            && last.range().end >= from
            && (last.range().end > from || !last.body().sealed)
        {
            let file = self.home.fs.open(&last.path)?;
            let found = scan(&*file, last.first, last.before, &mut |_| {})?;
            let body = body_of(&found, Some(file.clone()), false);
            let segment =
                Segment::new(last.path.clone(), last.first, last.before, last.log_id, body);
            let segment = Arc::new(segment);
            list.pop();
            list.push(segment.clone());
            let end = found.end;
            file.set_len(end)?;
            self.active = Some(Active { segment, file, end, allocated: end, marked: None });
        }
        self.segments().set_list(list);
        Ok(())
    }

    pub(super) fn repair_with(&mut self, run: Run) -> Result<(), StoreError> {
        let given = run.range();
        let bounds = self.bounds();
        let damage = self.damage();
        let unfit = StoreError::NotDamaged { range: given };
        let Some(damage) = damage.into_iter().find(|range| !range.intersection(given).is_empty())
        else {
            return Err(unfit);
        };
        if damage.first > bounds.last {
            // What is missing at the end is appended.
            let run = run.split_from(bounds.last.next()).ok_or(unfit)?;
            return self.append(run);
        }
        let before = self.reader().prefix_id(damage.first.previous());
        let run = run
            .split_from(damage.first)
            .and_then(|run| run.split_until(damage.end))
            .filter(|run| run.range().first == damage.first)
            .ok_or(unfit)?;
        if Some(run.before()) != before
            || (run.range().end == damage.end && !self.leads_on(damage.end, run.tail()))
        {
            return Err(StoreError::Unfit { range: given });
        }
        self.check_home()?;
        self.write_repair(&run, damage).map_err(|error| {
            // What another part of the log said of it already, full among others, stays what it is.
            let said =
                error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>()).cloned();
            said.unwrap_or_else(|| self.fail("repair the log", &error))
        })
    }

    /// Whether entry `next`, if there is one, continues `tail`.
    fn leads_on(&self, next: Seq, tail: PrefixId) -> bool {
        if next > self.bounds().last {
            return true;
        }
        let slice = self.reader().read(SeqRange::with_len(next, 1), 1);
        let Some(record) = slice.pieces.first() else { return false };
        Header::decode_any(record)
            .is_ok_and(|header| header.check(record, next, Some(tail)).is_ok())
    }

    /// Puts a run in place, segment by segment.
    fn write_repair(&mut self, run: &Run, damage: SeqRange) -> io::Result<()> {
        let SeqRange { first: mut next, end } = run.range();
        while next < end {
            let list = self.segments().list();
            let at = list.partition_point(|segment| segment.first <= next);
            // Up to where the next segment begins.
            let border = list.get(at).map_or(end, |segment| segment.first.min(end));
            let part = run.clone().split_from(next).and_then(|run| run.split_until(border));
            let old = at.checked_sub(1).map(|at| list[at].clone());
            let old = old.filter(|old| !self.ends_whole(old, next));
            if let Some(part) = part {
                self.rewrite(old, &part, damage)?;
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
    fn rewrite(
        &mut self,
        old: Option<Arc<Segment>>,
        run: &Run,
        damage: SeqRange,
    ) -> io::Result<()> {
        let SeqRange { first: from, end } = run.range();
        let is_active =
            |active: &Active| old.as_ref().is_some_and(|old| Arc::ptr_eq(&active.segment, old));
        if self.active.as_ref().is_some_and(is_active) {
            // It is written anew as a sealed one; the next append begins another.
            self.seal().map_err(io::Error::other)?;
            self.syncer.sync_now();
        }
        let (home, fs) = (self.home.clone(), self.home.fs.clone());
        let first = old.as_ref().map_or(from, |old| old.first);
        let before = match &old {
            Some(old) if old.first < from => old.before,
            _ => Some(run.before()),
        };
        let path = home.segment(first);
        let tmp = home.dir.join(format!("{}.tmp", super::name_of(&path)));

        let log_id = self.meta.identity.log_id;
        let header =
            SegmentHeader { log_id, first, before: before.unwrap_or(PrefixId::EMPTY) }.encode();
        let mark = encode_mark(from, run.before(), self.syncer.durable());
        let written = |old: &Option<Arc<Segment>>| {
            let file = fs.create(&tmp)?;
            file.write_at(&[&header], 0)?;
            let mut at = SEGMENT_HEADER_BYTES as u64;
            let mut rest = None;
            if let Some(old) = old {
                let old_end = old.body().end;
                let (old_file, place) = old.locate(&*fs, from)?;
                super::copy(&*old_file, at, place.offset, &*file, at)?;
                at = place.offset.max(at);
                let behind =
                    if end == damage.end { old.locate(&*fs, end)?.1.offset } else { place.offset };
                rest = (end <= old.body().last).then_some((old_file, behind, old_end));
            }
            file.write_at(&[&mark], at)?;
            at += mark.len() as u64;
            file.write_at(&[run.bytes()], at)?;
            at += run.len_bytes() as u64;
            if let Some((old_file, behind, old_end)) = rest {
                super::copy(&*old_file, behind, old_end, &*file, at)?;
            }
            let found = scan(&*file, first, before, &mut |_| {})?;
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
            Ok((file, found))
        };
        let (file, found) = self.room.with_reserve(|| home.or_nothing(&tmp, || written(&old)))?;

        let kept = Some((first, damage.end));
        if let Some(old) = old.as_ref().filter(|_| self.kept != kept) {
            fs.create_dir(&home.aside())?;
            let bad = home.aside().join(format!("{}-{first}.bad", self.meta.aside_next));
            match fs.link(&old.path, &bad) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                linked => linked?,
            }
            fs.sync_dir(&home.aside())?;
            let meta = Meta { aside_next: self.meta.aside_next + 1, ..self.meta.clone() };
            self.write_meta(meta).map_err(io::Error::other)?;
            self.kept = kept;
        }
        fs.rename(&tmp, &path)?;
        fs.sync_dir(&home.dir)?;

        let body = body_of(&found, Some(file), true);
        let segment = Arc::new(Segment::new(path, first, before, log_id, body));
        let mut list = self.segments().list();
        match list.iter_mut().find(|segment| segment.first == first) {
            Some(place) => *place = segment,
            None => {
                let at = list.partition_point(|segment| segment.first < first);
                list.insert(at, segment);
            }
        }
        let bytes = list.iter().map(|segment| segment.body().entry_bytes).sum();
        let mut epochs = Vec::new();
        for segment in &list {
            for &(epoch, first) in &segment.body().epochs {
                if epochs.last().is_none_or(|&(last, _)| last < epoch) {
                    epochs.push((epoch, first));
                }
            }
        }
        self.segments().set_list(list);
        let mut tail = self.shared.tail();
        tail.bounds.bytes = bytes;
        tail.epochs = epochs;
        tail.clear_damage(SeqRange::new(from, end));
        Ok(())
    }
}
