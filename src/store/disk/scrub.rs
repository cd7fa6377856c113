//! The background check: everything on disk is read and verified again, a little at a time.

use std::sync::Arc;

use super::format::SEGMENT_HEADER_BYTES;
use super::scan::Place;
use super::segments::DiskRead;
use crate::store::reader::Shared;
use crate::types::{Seq, SeqRange};

/// What one step of a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes verified.
    pub bytes: u64,
    /// The whole log has been seen since the scrub began; the next step begins again.
    pub done: bool,
    /// Entries that are unreadable, and why. The notifier heard of those that are new.
    pub damage: Vec<(SeqRange, String)>,
    /// What is damaged without an entry being lost: headers, footers.
    pub notes: Vec<String>,
}

/// Where the scrub is.
#[derive(Debug)]
pub(crate) struct Scrubber {
    next: Seq,
    /// Where that is, so that not a byte between two entries is passed over.
    place: Option<Place>,
    /// The place means something while no file is exchanged.
    generation: u64,
    /// The segment whose ends were looked at last.
    segment: Option<Seq>,
}

impl Default for Scrubber {
    fn default() -> Self {
        Scrubber { next: Seq::FIRST, place: None, generation: 0, segment: None }
    }
}

/// A scrub of its own, for another thread than the log's. Damage is told to the notifier.
pub struct Scrub {
    shared: Arc<Shared>,
    scrubber: Scrubber,
}

impl Scrub {
    /// See [`super::DiskLog::scrub`].
    pub fn step(&mut self, bytes_max: usize) -> ScrubStep {
        self.scrubber.step(&self.shared, bytes_max)
    }
}

impl Scrub {
    /// From the first entry on.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Scrub { shared, scrubber: Scrubber::default() }
    }
}

impl Scrubber {
    pub(super) fn step(&mut self, shared: &Shared, bytes_max: usize) -> ScrubStep {
        let mut step = ScrubStep::default();
        let Some(segments) = &shared.segments else { return step };
        while step.bytes < bytes_max as u64 {
            let (last, generation, damage) = {
                let tail = shared.tail();
                (tail.bounds.last, tail.generation, tail.damage.clone())
            };
            if self.next > last {
                *self = Scrubber::default();
                step.done = true;
                break;
            }
            if let Some(known) = damage.iter().find(|range| range.contains(self.next)) {
                step.damage.push((*known, "known to be damaged".to_owned()));
                self.next = known.end;
                self.place = None;
                continue;
            }
            let Some(segment) = segments.find(self.next) else { break };
            if self.segment != Some(segment.first) {
                self.segment = Some(segment.first);
                self.generation = generation;
                self.place = (self.next == segment.first).then_some(Place {
                    seq: segment.first,
                    offset: SEGMENT_HEADER_BYTES as u64,
                    entry_bytes: 0,
                    before: segment.before,
                });
                step.notes.extend(segment.check_ends(&*segments.fs).unwrap_or_default());
            }
            let range = SeqRange::inclusive(self.next, last);
            let place = self.place.take().filter(|_| self.generation == generation);
            self.generation = generation;
            let read = shared.read_disk(segments, range, bytes_max, place, generation);
            let remarks = std::mem::take(&mut segment.body().remarks);
            for remark in remarks {
                if !step.notes.contains(&remark) {
                    step.notes.push(remark);
                }
            }
            match read {
                DiskRead::Entries(entries) => {
                    step.bytes += entries.bytes.len() as u64;
                    self.next = entries.range.end;
                    self.place = Some(entries.next);
                }
                DiskRead::Damage(range, reason) => {
                    self.next = range.end.max(self.next.next());
                    step.damage.push((range, reason));
                }
                // It cannot be read now; the next step tries again.
                DiskRead::Nothing => break,
            }
        }
        step
    }
}
