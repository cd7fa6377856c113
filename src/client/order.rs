//! Puts the answers of one appender, which come in any order, back into the order of submission.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::error::{ConnectionLost, LostReason};
use super::outcome::AppendOutcome;

type Answer = Result<AppendOutcome, ConnectionLost>;

/// Consecutive entries of an [`Appender`](super::Appender) that met the same end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Index of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What became of the first. The entry `i` places later has `outcome.later(i)`. For a lost
    /// connection, `sent` tells whether these entries may be in the log.
    pub outcome: Result<AppendOutcome, ConnectionLost>,
}

impl Answered {
    /// Whether an answer for the entries behind these could be theirs too.
    pub(super) fn is_continued_by(&self, answer: &Result<AppendOutcome, ConnectionLost>) -> bool {
        match (&self.outcome, answer) {
            (Ok(first), Ok(answer)) => first.later(self.count) == *answer,
            (Err(lost), Err(other)) => lost == other,
            _ => false,
        }
    }
}

/// Shared by an appender, its outcomes and the connection that carries them.
#[derive(Debug)]
pub(super) struct Order {
    state: Mutex<State>,
    /// Wakes the one reader of the outcomes.
    ready: Notify,
    /// One permit for each entry that may still be submitted: taken when it is, given back when
    /// its outcome was read. This bounds everything here.
    pub(super) room: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    /// Entries submitted so far; the next one's index.
    submitted: u64,
    /// Invariant: everything below is in `ready` or was read; `next <= submitted`.
    next: u64,
    /// Answered, but an earlier entry is not: count and answer by first index. Invariant: the
    /// ranges lie in `next..submitted` and do not overlap.
    early: BTreeMap<u64, (u64, Answer)>,
    ready: VecDeque<Answered>,
    /// No further entry will be submitted.
    finished: bool,
    /// Nobody reads the outcomes any more.
    unread: bool,
}

impl Order {
    pub(super) fn new(in_flight_max: usize) -> Self {
        Order {
            state: Mutex::default(),
            ready: Notify::new(),
            room: Semaphore::new(in_flight_max.clamp(1, Semaphore::MAX_PERMITS)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state whole: no code between two of its changes can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of an entry that is submitted now.
    pub(super) fn submit(&self) -> u64 {
        let mut state = self.lock();
        state.submitted += 1;
        state.submitted - 1
    }

    /// Entries submitted whose outcome was not read.
    pub(super) fn waiting(&self) -> u64 {
        let state = self.lock();
        let ready: u64 = state.ready.iter().map(|answered| answered.count).sum();
        state.submitted - state.next + ready
    }

    /// Nothing more will be submitted.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.ready.notify_one();
    }

    /// Outcomes are thrown away from now on.
    pub(super) fn stop_reading(&self) {
        let mut state = self.lock();
        state.unread = true;
        let freed: u64 = state.ready.drain(..).map(|answered| answered.count).sum();
        self.free(freed);
    }

    fn free(&self, count: u64) {
        // Never more than were taken, and those fitted the semaphore.
        self.room.add_permits(count as usize);
    }

    /// Takes the answer for `count` entries from `first` on.
    ///
    /// # Errors
    /// Says so if any of them has its answer already, or was never submitted.
    pub(super) fn answer(&self, first: u64, count: u64, answer: Answer) -> Result<(), TwoAnswers> {
        let mut state = self.lock();
        let end = first + count;
        let free_before = match state.early.range(..end).next_back() {
            Some((&earlier, (len, _))) => earlier + len <= first,
            None => true,
        };
        if first < state.next || end > state.submitted || !free_before {
            return Err(TwoAnswers);
        }
        if first > state.next {
            state.early.insert(first, (count, answer));
            return Ok(());
        }
        let mut freed = state.deliver(count, answer);
        while let Some((count, answer)) = state.take_next_early() {
            freed += state.deliver(count, answer);
        }
        drop(state);
        self.free(freed);
        self.ready.notify_one();
        Ok(())
    }

    /// Answers everything that has no answer: the connection ended, after entries with an index
    /// below `sent_end` had been sent. Nothing can be submitted any more.
    pub(super) fn lose(&self, sent_end: u64, reason: &LostReason) {
        let gaps = self.lock().gaps();
        for (first, end) in gaps {
            let middle = sent_end.clamp(first, end);
            for (first, end, sent) in [(first, middle, true), (middle, end, false)] {
                if first < end {
                    let lost = ConnectionLost { sent, reason: reason.clone() };
                    let answered = self.answer(first, end - first, Err(lost));
                    debug_assert!(answered.is_ok(), "gaps have no answer yet");
                }
            }
        }
        self.finish();
    }

    /// The next outcome, `None` once all are read and nothing more will be submitted.
    pub(super) async fn next(&self) -> Option<Answered> {
        loop {
            {
                let mut state = self.lock();
                if let Some(answered) = state.ready.pop_front() {
                    self.free(answered.count);
                    return Some(answered);
                }
                if state.finished && state.next == state.submitted {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }
}

/// A request got two answers, or one that was never made got one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TwoAnswers;

impl State {
    fn take_next_early(&mut self) -> Option<(u64, Answer)> {
        self.early.remove(&self.next)
    }

    /// Puts an answer at `next` out for reading; returns how many permits that gives back.
    fn deliver(&mut self, count: u64, answer: Answer) -> u64 {
        let first = self.next;
        self.next += count;
        if self.unread {
            return count;
        }
        match self.ready.back_mut() {
            Some(last) if last.is_continued_by(&answer) => last.count += count,
            _ => self.ready.push_back(Answered { first, count, outcome: answer }),
        }
        0
    }

    /// The ranges without an answer, ends excluded.
    fn gaps(&self) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut from = self.next;
        for (&first, &(count, _)) in &self.early {
            gaps.push((from, first));
            from = first + count;
        }
        gaps.push((from, self.submitted));
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::outcome::Placed;
    use crate::types::{Epoch, NodeSet, Seq};

    fn ok(seq: u64) -> Answer {
        let placed = Placed {
            seq: Seq::new(seq),
            epoch: Epoch::new(1),
            need: 1,
            holders: NodeSet::from_bits(1),
        };
        Ok(AppendOutcome::Ok(placed))
    }

    fn order_of(submitted: u64) -> Order {
        let order = Order::new(100);
        (0..submitted).for_each(|_| {
            order.room.try_acquire().unwrap().forget();
            order.submit();
        });
        order
    }

    fn ready(order: &Order) -> Vec<(u64, u64)> {
        order.lock().ready.iter().map(|answered| (answered.first, answered.count)).collect()
    }

    #[test]
    fn answers_come_out_in_the_order_of_submission_and_join() {
        let order = order_of(10);
        order.answer(4, 6, ok(105)).unwrap();
        assert_eq!(ready(&order), []);
        order.answer(0, 2, ok(101)).unwrap();
        assert_eq!(ready(&order), [(0, 2)]);
        order.answer(2, 2, ok(103)).unwrap();
        assert_eq!(ready(&order), [(0, 10)]);
    }

    #[test]
    fn a_jump_in_the_numbers_starts_a_new_item() {
        let order = order_of(3);
        order.answer(0, 1, ok(1)).unwrap();
        order.answer(1, 2, ok(5)).unwrap();
        assert_eq!(ready(&order), [(0, 1), (1, 2)]);
    }

    #[test]
    fn a_second_answer_is_noticed_wherever_it_overlaps() {
        let order = order_of(10);
        order.answer(0, 2, ok(1)).unwrap();
        order.answer(4, 2, ok(5)).unwrap();
        for (first, count) in [(0, 1), (1, 2), (3, 2), (4, 1), (5, 2), (2, 8), (9, 2), (10, 1)] {
            assert_eq!(order.answer(first, count, ok(1)), Err(TwoAnswers), "{first}+{count}");
        }
    }

    #[test]
    fn a_lost_connection_answers_the_rest_and_tells_sent_from_unsent() {
        let order = order_of(10);
        order.answer(0, 1, ok(1)).unwrap();
        order.answer(4, 2, ok(5)).unwrap();
        order.lose(8, &LostReason::Closed);
        let state = order.lock();
        let told: Vec<_> = state
            .ready
            .iter()
            .map(|answered| {
                let sent = answered.outcome.as_ref().err().map(|lost| lost.sent);
                (answered.first, answered.count, sent)
            })
            .collect();
        let expected = [
            (0, 1, None),
            (1, 3, Some(true)),
            (4, 2, None),
            (6, 2, Some(true)),
            (8, 2, Some(false)),
        ];
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn room_is_given_back_when_an_outcome_is_read_or_nobody_reads() {
        let order = order_of(100);
        assert_eq!(order.room.available_permits(), 0);
        order.answer(0, 60, ok(1)).unwrap();
        assert_eq!(order.room.available_permits(), 0);
        assert_eq!(order.next().await.map(|answered| answered.count), Some(60));
        assert_eq!(order.room.available_permits(), 60);
        order.stop_reading();
        order.answer(60, 40, ok(61)).unwrap();
        assert_eq!(order.room.available_permits(), 100);
        order.finish();
        assert_eq!(order.next().await, None);
    }
}
