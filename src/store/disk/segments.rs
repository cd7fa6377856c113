//! All segments for those who read: which one holds an entry, and where a reader that goes on from
//! its last read finds the next entry at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::DiskEvent;
use super::scan::Place;
use super::segment::{Entries, Fault, Segment};
use crate::store::fs::Fs;
use crate::types::{Seq, SeqRange};

/// Readers whose place is remembered: more than a cluster has secondaries in catch-up.
const HINTS_MAX: usize = 32;

/// What came of a read.
pub(crate) enum DiskRead {
    Entries(Entries),
    Damage(SeqRange, String),
    /// No such entry, or it cannot be read now.
    Nothing,
}

/// Where events go.
pub(crate) type Notify = Arc<dyn Fn(DiskEvent) + Send + Sync>;

pub(crate) struct Segments {
    pub(crate) fs: Arc<dyn Fs>,
    notify: Notify,
    /// In order. Changes when one is begun, taken back or repaired.
    list: RwLock<Vec<Arc<Segment>>>,
    used: Mutex<Used>,
    /// So many files are kept open.
    open_max: usize,
}

#[derive(Default)]
struct Used {
    /// Those whose files are open, the least recently used first.
    open: VecDeque<Arc<Segment>>,
    /// Where the last reads ended, and in which segment: a read that began before files changed may
    /// end after it, and its place means nothing in a file of the same name.
    hints: VecDeque<(Arc<Segment>, Place)>,
}

impl Segments {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        notify: Notify,
        list: Vec<Arc<Segment>>,
        open_max: usize,
    ) -> Self {
        Segments { fs, notify, list: RwLock::new(list), used: Mutex::default(), open_max }
    }

    pub(crate) fn tell_damage(&self, range: SeqRange, reason: String) {
        (self.notify)(DiskEvent::Damage(range, reason));
    }

    pub(crate) fn list(&self) -> Vec<Arc<Segment>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Exchanges the list; readers forget where they were.
    pub(crate) fn set_list(&self, list: Vec<Arc<Segment>>) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = Used::default();
    }

    pub(crate) fn push(&self, segment: Arc<Segment>) {
        self.list.write().unwrap_or_else(PoisonError::into_inner).push(segment);
    }

    /// The segment that holds `seq`.
    pub(crate) fn find(&self, seq: Seq) -> Option<Arc<Segment>> {
        let segment = {
            let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
            let index = list.partition_point(|segment| segment.first <= seq).checked_sub(1)?;
            list[index].clone()
        };
        segment.range().contains(seq).then_some(segment)
    }

    /// Reads what the segment that holds the first of `range` has of it. `place` is where that is,
    /// for one who insists on reading all bytes.
    pub(crate) fn read(&self, range: SeqRange, bytes_max: usize, place: Option<Place>) -> DiskRead {
        let Some(segment) = self.find(range.first) else { return DiskRead::Nothing };
        let hint = self.use_segment(&segment, range.first);
        let hint = place.or(hint);
        let range = range.intersection(segment.range());
        match segment.read(&*self.fs, range, bytes_max, hint) {
            Ok(entries) => {
                if place.is_none() && segment.range().contains(entries.next.seq) {
                    let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
                    if used.hints.len() >= HINTS_MAX {
                        used.hints.pop_front();
                    }
                    used.hints.push_back((segment.clone(), entries.next));
                }
                DiskRead::Entries(entries)
            }
            Err(Fault::Damage(range, reason)) => DiskRead::Damage(range, reason),
            Err(Fault::Unavailable) => DiskRead::Nothing,
        }
    }

    pub(crate) fn use_segment(&self, segment: &Arc<Segment>, seq: Seq) -> Option<Place> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.open.back().is_none_or(|last| !Arc::ptr_eq(last, segment)) {
            used.open.retain(|open| !Arc::ptr_eq(open, segment));
            used.open.push_back(segment.clone());
            if used.open.len() > self.open_max
                && let Some(oldest) = used.open.pop_front()
            {
                oldest.unload();
            }
        }
        let known = |(found, place): &(Arc<Segment>, Place)| {
            place.seq == seq && Arc::ptr_eq(found, segment)
        };
        let at = used.hints.iter().position(known)?;
        used.hints.remove(at).map(|(_, place)| place)
    }

    /// Bytes of all entries from `seq` on.
    pub(crate) fn bytes_from(&self, seq: Seq) -> u64 {
        let list = self.list();
        let later = list.iter().filter(|segment| segment.range().end > seq);
        later.map(|segment| segment.bytes_from(&*self.fs, seq)).sum()
    }

    /// The same without reading from disk, about.
    pub(crate) fn bytes_from_about(&self, seq: Seq) -> u64 {
        let list = self.list();
        let from = list.partition_point(|segment| segment.first <= seq).saturating_sub(1);
        list[from..].iter().map(|segment| segment.bytes_from_about(seq)).sum()
    }
}
