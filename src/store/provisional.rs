//! Entries handed to a secondary by hand (`STORE`): shown, never counted, and they give way to the
//! master's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::LogReader;
use crate::limits::{PROVISIONAL_BYTES_MAX, PROVISIONAL_ENTRIES_MAX};
use crate::types::{Seq, SeqRange};

/// What became of a `STORE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is the next entry, and shown.
    Applied,
    /// An entry before it is missing; it stays invisible until that comes.
    Held,
    /// The same entry is there already.
    Duplicate,
    /// Another entry is there; nothing changed.
    Conflict,
    /// No room for more; nothing changed.
    Full,
}

/// The entries a secondary was handed by hand, beyond its log.
#[derive(Debug, Default)]
pub struct Provisional {
    entries: BTreeMap<Seq, Bytes>,
    bytes: usize,
    /// What gave way to the master's entries, with the numbers they had.
    aside: Vec<(Seq, Bytes)>,
    aside_total: u64,
}

/// The same, for the node that it gives way in and those who read for its clients.
#[derive(Clone, Debug, Default)]
pub struct SharedProvisional(Arc<Mutex<Provisional>>);

impl SharedProvisional {
    /// For a few map operations; never to be kept for longer.
    pub fn lock(&self) -> MutexGuard<'_, Provisional> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provisional {
    /// Takes an entry by hand. `log` is what the secondary holds from its master.
    pub fn store(&mut self, log: &LogReader, seq: Seq, payload: Bytes) -> Stored {
        let last = log.bounds().last;
        let known = match log.record(seq) {
            Some(record) => Some(record.payload),
            None => self.entries.get(&seq).cloned(),
        };
        if let Some(known) = known {
            return if known == payload { Stored::Duplicate } else { Stored::Conflict };
        }
        if self.entries.len() >= PROVISIONAL_ENTRIES_MAX
            || self.bytes + payload.len() > PROVISIONAL_BYTES_MAX
        {
            return Stored::Full;
        }
        let applied = seq == self.visible(last).end;
        self.bytes += payload.len();
        // The payload may be a piece of a large input buffer, which must not live as long as it.
        self.entries.insert(seq, Bytes::copy_from_slice(&payload));
        if applied { Stored::Applied } else { Stored::Held }
    }

    /// The entries that are shown behind a log that ends at `last`: those without a hole.
    pub fn visible(&self, last: Seq) -> SeqRange {
        let mut end = last.next();
        for &seq in self.entries.range(end..).map(|(seq, _)| seq) {
            if seq != end {
                break;
            }
            end = end.next();
        }
        SeqRange::new(last.next(), end)
    }

    /// The payload of an entry, if it was handed over by hand.
    pub fn payload(&self, seq: Seq) -> Option<&Bytes> {
        self.entries.get(&seq)
    }

    /// Gives way to the master's entries of `range`, which are in `log` now. Equal ones are counted
    /// (returned) as duplicates; the first that differs is moved aside with all after it.
    pub fn give_way(&mut self, log: &LogReader, range: SeqRange) -> GaveWay {
        let mut result = GaveWay::default();
        while let Some((&seq, payload)) = self.entries.range(..range.end).next() {
            if log.record(seq).is_some_and(|record| record.payload == *payload) {
                self.bytes -= payload.len();
                self.entries.remove(&seq);
                result.duplicates += 1;
                continue;
            }
            for (seq, payload) in self.entries.split_off(&seq) {
                self.bytes -= payload.len();
                result.aside += 1;
                self.move_aside(seq, payload);
            }
        }
        result
    }

    /// How many entries were moved aside since the start.
    pub fn aside_total(&self) -> u64 {
        self.aside_total
    }

    fn move_aside(&mut self, seq: Seq, payload: Bytes) {
        self.aside_total += 1;
        // In memory there is only so much room for what nobody may ever ask for; the log line that
        // goes with this names every number, and the newest are kept.
        if self.aside.len() >= PROVISIONAL_ENTRIES_MAX {
            self.aside.remove(0);
        }
        self.aside.push((seq, payload));
    }
}

/// What happened when the master's entries came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GaveWay {
    /// Entries by hand that were equal to the master's.
    pub duplicates: u64,
    /// Entries by hand that were moved aside.
    pub aside: u64,
}
