//! The fault verbs: a secondary that is slow, fails or keeps silent on demand. They stand between
//! the connection and the engine, which knows nothing of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::SessionId;
use crate::engine::ranges::RangeSet;
use crate::gateway::Fault;
use crate::gateway::command::FailRule;
use crate::limits::DELAYED_FRAMES_MAX;
use crate::types::{Seq, SeqRange, Time};
use crate::wire::codec::AppendHead;

/// What is to happen to an APPEND frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing special.
    Normal,
    /// It is handled, but answered with an error.
    FailAfter,
    /// It is answered with an error only.
    FailBefore,
}

/// An APPEND frame that is handled later.
#[derive(Debug)]
pub struct Delayed {
    /// The connection it came by.
    pub session: SessionId,
    /// Its head.
    pub head: AppendHead,
    /// Its records.
    pub records: Bytes,
}

/// What an ACK says of positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Stored up to.
    pub stored: Seq,
    /// Received up to.
    pub received: Seq,
    /// Held back behind that.
    pub held: RangeSet,
}

/// The faults played now.
#[derive(Debug)]
pub struct Faults {
    once: Option<Duration>,
    every: Duration,
    fail_after: Option<FailRule>,
    fail_before: Option<FailRule>,
    muted_until: Option<Time>,
    /// By due time and order of arrival.
    delayed: BTreeMap<(Time, u64), Delayed>,
    arrivals: u64,
    random: u64,
    /// Stored and answered with an error: not acknowledged before they come again.
    withheld: RangeSet,
    /// What the connection that is followed was told to be stored, and received.
    told: (Seq, Seq),
}

impl Faults {
    /// No fault but a standing delay. `seed` drives the coin of `FAIL p=`.
    pub fn new(standing: Duration, seed: u64) -> Self {
        Faults {
            once: None,
            every: standing,
            fail_after: None,
            fail_before: None,
            muted_until: None,
            delayed: BTreeMap::new(),
            arrivals: 0,
            random: seed | 1,
            withheld: RangeSet::default(),
            told: (Seq::ZERO, Seq::ZERO),
        }
    }

    /// These entries came and were answered with an error. An error is never an ACK: until they come
    /// again no ACK covers them, whatever else is acknowledged.
    pub fn withhold(&mut self, range: SeqRange) {
        self.withheld.insert(range);
        self.withheld.remove_up_to(self.told.0);
    }

    /// These entries came, and no error is played: if they were withheld, this is the repetition.
    pub fn admit(&mut self, range: SeqRange) {
        if !self.withheld.is_empty() {
            self.withheld.remove(range);
        }
    }

    /// What may be acknowledged of what is here.
    pub fn acknowledge(&mut self, mut here: Positions) -> Positions {
        if let Some(first) = self.withheld.first() {
            // Nothing that was told is taken back: an ACK is cumulative. And what was told to be received is
            // not in the way of what came behind it: the master repeats it only when all is received.
            here.stored = here.stored.min(first.previous()).max(self.told.0);
            let untold = self.withheld.iter().find(|range| range.last() > self.told.1);
            if let Some(untold) = untold {
                let end = untold.first.max(self.told.1.next());
                here.received = here.received.min(end.previous());
            }
            self.withheld.iter().for_each(|range| here.held.remove(range));
        }
        self.told = (here.stored, here.received);
        here
    }

    /// The master is told by a HELLO what is here: acknowledging begins anew.
    pub fn introduced(&mut self, stored: Seq) {
        self.withheld = RangeSet::default();
        self.told = (stored, stored);
    }

    /// A verb was given.
    pub fn set(&mut self, now: Time, fault: Fault) {
        match fault {
            Fault::DelayOnce(duration) => self.once = Some(duration),
            Fault::DelayEvery(duration) => self.every = duration,
            Fault::DelayOff => {
                (self.once, self.every) = (None, Duration::ZERO);
                // What is delayed already is due now, in the order it came.
                let delayed = std::mem::take(&mut self.delayed).into_iter();
                self.delayed = delayed.map(|((_, came), frame)| ((now, came), frame)).collect();
            }
            Fault::FailAfter(rule) => self.fail_after = Some(rule),
            Fault::FailBefore(rule) => self.fail_before = Some(rule),
            Fault::FailOff => (self.fail_after, self.fail_before) = (None, None),
            Fault::Mute(duration) => self.muted_until = Some(now.after(duration)),
            Fault::MuteOff => self.muted_until = None,
        }
    }

    /// Whether the master is answered nothing now.
    pub fn is_muted(&self, now: Time) -> bool {
        self.muted_until.is_some_and(|until| now < until)
    }

    /// Whether a frame may need more than the plain road.
    pub fn is_idle(&self) -> bool {
        self.once.is_none()
            && self.every.is_zero()
            && self.fail_after.is_none()
            && self.fail_before.is_none()
    }

    /// Takes a frame that arrived: gives it back to be handled now, or keeps it for later.
    pub fn arrive(&mut self, now: Time, frame: Delayed) -> Option<Delayed> {
        let delay = self.once.take().unwrap_or(self.every);
        if delay.is_zero() {
            return Some(frame);
        }
        // Beyond the bound a frame is lost as on a bad line; the master repeats it.
        if self.delayed.len() < DELAYED_FRAMES_MAX {
            self.arrivals += 1;
            self.delayed.insert((now.after(delay), self.arrivals), frame);
        }
        None
    }

    /// The next frame whose time has come.
    pub fn take_due(&mut self, now: Time) -> Option<Delayed> {
        let entry = self.delayed.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Whether frames are kept for later.
    pub fn is_delaying(&self) -> bool {
        !self.delayed.is_empty()
    }

    /// When the next delayed frame is due.
    pub fn next_due(&self) -> Option<Time> {
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// The frames of a connection that ended are dropped.
    pub fn forget(&mut self, session: SessionId) {
        self.delayed.retain(|_, frame| frame.session != session);
    }

    /// What is to happen to a frame that is handled now.
    pub fn fate(&mut self) -> Fate {
        if draw(&mut self.fail_before, &mut self.random) {
            Fate::FailBefore
        } else if draw(&mut self.fail_after, &mut self.random) {
            Fate::FailAfter
        } else {
            Fate::Normal
        }
    }
}

fn draw(rule: &mut Option<FailRule>, random: &mut u64) -> bool {
    match rule {
        None => false,
        Some(FailRule::Count(count)) => {
            let fails = *count > 0;
            *count = count.saturating_sub(1);
            if *count == 0 {
                *rule = None;
            }
            fails
        }
        Some(FailRule::Probability(probability)) => {
            // xorshift64*: a coin for demonstrations, not for secrets.
            *random ^= *random >> 12;
            *random ^= *random << 25;
            *random ^= *random >> 27;
            let uniform = random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
            (uniform as f64) < *probability * (1_u64 << 53) as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::inclusive(Seq::new(first), Seq::new(last))
    }

    fn here(stored: u64, received: u64, held: &[SeqRange]) -> Positions {
        let held = RangeSet::of(held.iter().copied());
        Positions { stored: Seq::new(stored), received: Seq::new(received), held }
    }

    #[test]
    fn what_was_answered_with_an_error_is_not_acknowledged_before_it_comes_again() {
        let mut faults = Faults::new(Duration::ZERO, 1);
        faults.introduced(Seq::new(2));
        assert_eq!(faults.acknowledge(here(3, 4, &[])), here(3, 4, &[]));
        faults.withhold(range(5, 6));
        faults.withhold(range(9, 9));
        // Later entries, and the sync that covers the withheld ones, change nothing.
        assert_eq!(faults.acknowledge(here(4, 8, &[range(9, 12)])), here(4, 4, &[range(10, 12)]));
        assert_eq!(faults.acknowledge(here(12, 12, &[])), here(4, 4, &[]));
        faults.admit(range(5, 5));
        assert_eq!(faults.acknowledge(here(12, 12, &[])), here(5, 5, &[]));
        faults.admit(range(6, 12));
        assert_eq!(faults.acknowledge(here(12, 12, &[])), here(12, 12, &[]));
    }

    /// Entries that were received and are not stored come again and fail, and so do later ones. The master
    /// repeats what it does not know to be received first: had it to wait for the others, for ever.
    #[test]
    fn what_was_told_to_be_received_keeps_nothing_behind_it_from_being_received() {
        let mut faults = Faults::new(Duration::ZERO, 1);
        faults.introduced(Seq::ZERO);
        assert_eq!(faults.acknowledge(here(0, 4, &[])), here(0, 4, &[]));
        faults.withhold(range(1, 4));
        faults.withhold(range(5, 8));
        assert_eq!(faults.acknowledge(here(8, 8, &[])), here(0, 4, &[]));
        faults.admit(range(5, 8));
        assert_eq!(faults.acknowledge(here(8, 8, &[])), here(0, 8, &[]));
        faults.admit(range(1, 4));
        assert_eq!(faults.acknowledge(here(8, 8, &[])), here(8, 8, &[]));
    }

    #[test]
    fn an_error_takes_nothing_back_that_was_acknowledged() {
        let mut faults = Faults::new(Duration::ZERO, 1);
        faults.introduced(Seq::ZERO);
        assert_eq!(faults.acknowledge(here(4, 8, &[])), here(4, 8, &[]));
        // Entries that were there come again and fail: 5 to 8 wait to be stored, 1 to 4 are.
        faults.withhold(range(1, 8));
        assert_eq!(faults.acknowledge(here(8, 8, &[])), here(4, 8, &[]));
        faults.introduced(Seq::new(8));
        assert_eq!(faults.acknowledge(here(9, 9, &[])), here(9, 9, &[]));
    }

    #[test]
    fn a_count_fails_so_many_frames_and_no_more() {
        let mut faults = Faults::new(Duration::ZERO, 1);
        faults.set(Time::ZERO, Fault::FailAfter(FailRule::Count(2)));
        let fates: Vec<_> = (0..3).map(|_| faults.fate()).collect();
        assert_eq!(fates, [Fate::FailAfter, Fate::FailAfter, Fate::Normal]);
        assert!(faults.is_idle());
    }

    #[test]
    fn a_probability_of_one_fails_all_and_of_zero_none() {
        let mut faults = Faults::new(Duration::ZERO, 7);
        faults.set(Time::ZERO, Fault::FailBefore(FailRule::Probability(1.0)));
        assert!((0..1000).all(|_| faults.fate() == Fate::FailBefore));
        faults.set(Time::ZERO, Fault::FailBefore(FailRule::Probability(0.0)));
        assert!((0..1000).all(|_| faults.fate() == Fate::Normal));
        faults.set(Time::ZERO, Fault::FailBefore(FailRule::Probability(0.5)));
        let failed = (0..10_000).filter(|_| faults.fate() == Fate::FailBefore).count();
        assert!((4_000..6_000).contains(&failed), "{failed} of 10000");
    }
}
