//! Entries that leave the log, and entries that come back into it. Both keep what they replace.

use std::io;
use std::sync::Arc;

use super::Home;
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_first};
use super::meta::Meta;
use super::rewrite::{Rewrite, Rewritten, Trouble, body_of};
use super::scan::scan;
use super::segment::Segment;
use super::write::{Active, DiskLog};
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
        // Files change under nobody: a repair that runs is waited for.
        self.finish_job();
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

    /// Begins a repair: what can be said at once is, the rest is a job.
    pub(super) fn begin_repair_with(&mut self, run: Run) -> Result<(), StoreError> {
        assert!(!self.is_repairing(), "BUG: two repairs at once");
        let given = run.range();
        let bounds = self.bounds();
        let unfit = StoreError::NotDamaged { range: given };
        let damage = self.damage();
        let Some(damage) = damage.into_iter().find(|range| !range.intersection(given).is_empty())
        else {
            return Err(unfit);
        };
        if damage.first > bounds.last {
            // What is missing at the end is appended.
            let run = run.split_from(bounds.last.next()).ok_or(unfit)?;
            self.append(run)?;
            self.repaired = Some((given, Ok(())));
            return Ok(());
        }
        let run = run
            .split_from(damage.first)
            .and_then(|run| run.split_until(damage.end))
            .filter(|run| run.range().first == damage.first)
            .ok_or(unfit)?;
        self.check_home()?;
        self.check_repair_room(&run)?;
        let end = run.range().end;
        let sealed = self.active.as_ref().is_some_and(|active| active.segment.first < end);
        if sealed {
            // It is written anew as a sealed one; the next append begins another.
            self.seal()?;
        }
        let rewrite = Rewrite {
            home: self.home.clone(),
            shared: self.shared.clone(),
            unsynced: sealed.then(|| self.syncer.handle()),
            log_id: self.meta.identity.log_id,
            durable: self.syncer.durable(),
            spare: self.room.reserve_bytes(),
            given,
            run,
            damage,
            kept: self.kept,
            aside_next: self.meta.aside_next,
        };
        self.jobs.begin(move || rewrite.run());
        Ok(())
    }

    /// Whether there is room for what is written anew, beside what is kept for entries: the damaged files
    /// stay. Nothing is begun that cannot be done, where that can be known.
    fn check_repair_room(&self, run: &Run) -> Result<(), StoreError> {
        let Some(free) = self.free_bytes() else { return Ok(()) };
        let range = run.range();
        let list = self.segments().list();
        let old = list.iter().filter(|old| !old.range().intersection(range).is_empty());
        let bytes: u64 = old.map(|old| old.body().end).sum::<u64>() + run.len_bytes() as u64;
        let spare = self.room.reserve_bytes();
        if free < bytes.saturating_add(spare) { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Takes what came of a repair into the log.
    pub(super) fn finish_repair(&mut self, done: Rewritten) {
        self.kept = done.kept;
        // Kept with whatever is written down next: a start looks at the names, too.
        self.meta.aside_next = done.aside_next;
        for (segment, range) in done.placed {
            self.place(segment, range);
        }
        let outcome = done.outcome.map_err(|trouble| match trouble {
            Trouble::Unfit => StoreError::Unfit { range: done.given },
            Trouble::Disk(error) => self.fail("repair the log", &error),
        });
        self.repaired = Some((done.given, outcome));
    }

    /// Readers find a segment that was written anew, and in it what was damaged.
    fn place(&mut self, segment: Arc<Segment>, repaired: SeqRange) {
        let mut list = self.segments().list();
        let first = segment.first;
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
        tail.clear_damage(repaired);
    }
}
