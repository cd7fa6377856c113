//! Clients that wait for their write concern, sorted by what they wait for.
//!
//! One waiter stands for a whole run of appends of one client with the same options. Those that wait
//! for `stored` are released by splitting a queue at the level (the idea of S2's durability
//! notifier); those that wait for `received` by the ranges that an acknowledgement added. Nothing is
//! scanned per append, and nothing is held but these few words: a waiter keeps no payload.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::types::{AckLevel, NodeSet, Seq, SeqRange, Time};

/// Who waits: a client connection and its own name for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The connection.
    pub connection: u64,
    /// The connection's own name for the run of requests.
    pub slot: u64,
}

/// What somebody waits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// An append, which made the entries.
    Append,
    /// A wait for an entry that is there.
    Wait,
}

/// What became of a run of appends, or of a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The write concern is met: OK.
    Met,
    /// The time is over, the entries are in the log: PENDING.
    Waiting,
    /// The reign is over: UNKNOWN.
    Unknown,
}

/// An answer to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who waited.
    pub token: Token,
    /// Place of `range.first` in the run that the client sent.
    pub offset: u64,
    /// The entries answered.
    pub range: SeqRange,
    /// How many nodes were asked for.
    pub need: usize,
    /// Which nodes hold all of `range` at the level asked for.
    pub holders: NodeSet,
    /// What became of them.
    pub verdict: Verdict,
    /// What is answered.
    pub request: Request,
    /// When it came.
    pub since: Time,
}

/// A run that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Who waits.
    pub token: Token,
    /// With what.
    pub request: Request,
    /// The first entry of the whole run, of which `range` is what is not yet answered.
    pub base: Seq,
    /// What is not yet answered.
    pub range: SeqRange,
    /// How many nodes must hold it.
    pub need: usize,
    /// What holding means.
    pub ack: AckLevel,
    /// Since when.
    pub since: Time,
    /// When the client wants to hear PENDING.
    pub deadline: Option<Time>,
}

impl Waiter {
    fn part(&self, range: SeqRange) -> Waiter {
        Waiter { range, ..*self }
    }
}

/// Where a waiter is kept: numbers stay valid while its front is released.
type Place = (AckLevel, usize, Seq, u64);

/// All waiters of a master.
///
/// Appends of one kind are disjoint and come in ascending order, so that a queue is sorted by
/// itself; waits for any entry come in any order and have maps of their own.
#[derive(Clone, Debug, Default)]
pub struct Waiters {
    /// Index k−1: appends that wait for C(k).
    stored_appends: Vec<VecDeque<Waiter>>,
    /// Index k−1: waits for C(k), by entry.
    stored_waits: Vec<BTreeMap<(Seq, u64), Waiter>>,
    /// Parts of append runs by their last entry, disjoint.
    received_appends: BTreeMap<Seq, Waiter>,
    received_waits: BTreeMap<(Seq, u64), Waiter>,
    /// (deadline, last entry, kind): looked up again when due.
    deadlines: BTreeSet<(Time, Place)>,
    /// Out of time, but the entries are not yet in the master's log, and a reply that carries a
    /// number waits for that.
    overdue: BTreeMap<(Seq, u64), Waiter>,
    next_id: u64,
    waiting: u64,
}

impl Waiters {
    /// No waiters, in a cluster of `nodes`.
    pub fn new(nodes: usize) -> Self {
        Waiters {
            stored_appends: vec![VecDeque::new(); nodes],
            stored_waits: vec![BTreeMap::new(); nodes],
            ..Waiters::default()
        }
    }

    /// How many appends and waits are not answered.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Adds an append run. Its numbers are higher than those of all before it.
    pub fn push_append(&mut self, waiter: Waiter) {
        self.waiting += waiter.range.len();
        self.arm(&waiter, 0);
        match waiter.ack {
            AckLevel::Stored => self.stored_appends[waiter.need - 1].push_back(waiter),
            AckLevel::Received => {
                self.received_appends.insert(waiter.range.last(), waiter);
            }
        }
    }

    /// Adds a wait for one entry that is in the log already.
    pub fn push_wait(&mut self, waiter: Waiter) {
        self.waiting += 1;
        self.next_id += 1;
        self.arm(&waiter, self.next_id);
        let key = (waiter.range.first, self.next_id);
        match waiter.ack {
            AckLevel::Stored => self.stored_waits[waiter.need - 1].insert(key, waiter),
            AckLevel::Received => self.received_waits.insert(key, waiter),
        };
    }

    /// Takes out everything that waits for `need` nodes to have stored entries up to `level`.
    pub fn release_stored(&mut self, need: usize, level: Seq, released: &mut Vec<Waiter>) {
        let from = released.len();
        let queue = &mut self.stored_appends[need - 1];
        while let Some(front) = queue.front_mut() {
            if front.range.last() <= level {
                released.extend(queue.pop_front());
                continue;
            }
            if front.range.first <= level {
                released.push(front.part(SeqRange::inclusive(front.range.first, level)));
                front.range.first = level.next();
            }
            break;
        }
        for waiter in &released[from..] {
            self.waiting -= waiter.range.len();
            disarm(&mut self.deadlines, waiter, 0);
        }
        let waits = &mut self.stored_waits[need - 1];
        while let Some(entry) = waits.first_entry() {
            if entry.key().0 > level {
                break;
            }
            let ((_, id), waiter) = entry.remove_entry();
            self.waiting -= 1;
            disarm(&mut self.deadlines, &waiter, id);
            released.push(waiter);
        }
    }

    /// Takes out everything that waits for `received` of entries in `changed` and for which `held`
    /// says that enough nodes hold it. `held(seq)` gives the number of nodes and up to where
    /// (exclusive) that number stays the same.
    pub fn release_received(
        &mut self,
        changed: SeqRange,
        held: impl Fn(Seq) -> (usize, Option<Seq>),
        released: &mut Vec<Waiter>,
    ) {
        let touched = self.received_appends.range(changed.first..);
        let touched: Vec<_> = touched
            .take_while(|(_, waiter)| waiter.range.first < changed.end)
            .map(|(&last, _)| last)
            .collect();
        for last in touched {
            let Some(mut waiter) = self.received_appends.remove(&last) else { continue };
            disarm(&mut self.deadlines, &waiter, 0);
            while !waiter.range.is_empty() {
                let (count, until) = held(waiter.range.first);
                let end = until.map_or(waiter.range.end, |until| until.min(waiter.range.end));
                let part = waiter.part(SeqRange::new(waiter.range.first, end));
                waiter.range.first = end;
                if count >= waiter.need {
                    self.waiting -= part.range.len();
                    released.push(part);
                } else {
                    self.arm(&part, 0);
                    self.received_appends.insert(part.range.last(), part);
                }
            }
        }
        let waiting: Vec<_> = self
            .received_waits
            .range((changed.first, 0)..(changed.end, 0))
            .map(|(k, _)| *k)
            .collect();
        for key in waiting {
            let enough = self.received_waits.get(&key).is_some_and(|w| held(key.0).0 >= w.need);
            if enough && let Some(waiter) = self.received_waits.remove(&key) {
                disarm(&mut self.deadlines, &waiter, key.1);
                self.waiting -= 1;
                released.push(waiter);
            }
        }
    }

    /// Takes out everything whose deadline has come; what is not yet in the master's log (`stored`)
    /// stays, and is taken out by [`Waiters::release_overdue`].
    pub fn expire(&mut self, now: Time, stored: Seq, expired: &mut Vec<Waiter>) {
        while let Some(&(deadline, place)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(waiter) = self.take(place) else { continue };
            self.next_id += 1;
            self.overdue.insert((waiter.range.last(), self.next_id), waiter);
        }
        self.release_overdue(stored, expired);
    }

    /// Takes out what is out of time and now in the master's log.
    pub fn release_overdue(&mut self, stored: Seq, expired: &mut Vec<Waiter>) {
        while let Some(entry) = self.overdue.first_entry() {
            if entry.key().0 > stored {
                break;
            }
            let waiter = entry.remove();
            self.waiting -= waiter.range.len();
            expired.push(waiter);
        }
    }

    /// Nobody waits for nodes any more, only for the master's own log: the node stops.
    pub fn give_up(&mut self) {
        let (waiting, all) = (self.waiting, self.drain());
        self.waiting = waiting;
        for waiter in all {
            self.next_id += 1;
            self.overdue.insert((waiter.range.last(), self.next_id), waiter);
        }
    }

    /// Takes out everything: the reign is over.
    pub fn drain(&mut self) -> Vec<Waiter> {
        self.deadlines.clear();
        self.waiting = 0;
        let appends = self.stored_appends.iter_mut().flat_map(std::mem::take);
        let waits = self.stored_waits.iter_mut().flat_map(|map| std::mem::take(map).into_values());
        let mut all: Vec<_> = appends.chain(waits).collect();
        all.extend(std::mem::take(&mut self.received_appends).into_values());
        all.extend(std::mem::take(&mut self.received_waits).into_values());
        all.extend(std::mem::take(&mut self.overdue).into_values());
        all.sort_by_key(|waiter| (waiter.range.first, waiter.token));
        all
    }

    /// Forgets the waiters of a connection that is gone: it gave up waiting, not its appends.
    pub fn forget(&mut self, connection: u64) {
        if self.waiting == 0 {
            return;
        }
        let deadlines = &mut self.deadlines;
        let mut stays = |waiter: &Waiter, id: u64| {
            let stays = waiter.token.connection != connection;
            if !stays {
                disarm(deadlines, waiter, id);
            }
            stays
        };
        for queue in &mut self.stored_appends {
            queue.retain(|waiter| stays(waiter, 0));
        }
        for waits in &mut self.stored_waits {
            waits.retain(|&(_, id), waiter| stays(waiter, id));
        }
        self.received_appends.retain(|_, waiter| stays(waiter, 0));
        self.received_waits.retain(|&(_, id), waiter| stays(waiter, id));
        self.overdue.retain(|_, waiter| waiter.token.connection != connection);
        self.waiting = self.iter().map(|waiter| waiter.range.len()).sum();
    }

    /// Every waiter, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiter> {
        let appends = self.stored_appends.iter().flatten();
        let waits = self.stored_waits.iter().flat_map(BTreeMap::values);
        appends
            .chain(waits)
            .chain(self.received_appends.values())
            .chain(self.received_waits.values())
            .chain(self.overdue.values())
    }

    /// The next deadline.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    fn arm(&mut self, waiter: &Waiter, id: u64) {
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, place(waiter, id)));
        }
    }

    /// Removes the waiter at a place, if it is still there.
    fn take(&mut self, (ack, need, last, id): Place) -> Option<Waiter> {
        match (ack, id) {
            (AckLevel::Received, 0) => self.received_appends.remove(&last),
            (AckLevel::Received, id) => self.received_waits.remove(&(last, id)),
            (AckLevel::Stored, 0) => {
                let queue = &mut self.stored_appends[need - 1];
                let index = queue.partition_point(|waiter| waiter.range.last() < last);
                let there = queue.get(index).is_some_and(|waiter| waiter.range.last() == last);
                // Waiters with deadlines mostly stand near the front: few move.
                there.then(|| queue.remove(index)).flatten()
            }
            (AckLevel::Stored, id) => self.stored_waits[need - 1].remove(&(last, id)),
        }
    }
}

fn place(waiter: &Waiter, id: u64) -> Place {
    (waiter.ack, waiter.need, waiter.range.last(), id)
}

fn disarm(deadlines: &mut BTreeSet<(Time, Place)>, waiter: &Waiter, id: u64) {
    if let Some(deadline) = waiter.deadline {
        deadlines.remove(&(deadline, place(waiter, id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(slot: u64, first: u64, last: u64, need: usize, ack: AckLevel) -> Waiter {
        let range = SeqRange::inclusive(Seq::new(first), Seq::new(last));
        let token = Token { connection: slot % 2, slot };
        let request = Request::Append;
        let (base, since) = (range.first, Time::ZERO);
        Waiter { token, request, base, range, need, ack, since, deadline: None }
    }

    fn shown(waiters: &[Waiter]) -> Vec<(u64, String)> {
        waiters.iter().map(|w| (w.token.slot, w.range.to_string())).collect()
    }

    #[test]
    fn a_level_releases_whole_runs_and_the_part_it_reaches() {
        let mut waiters = Waiters::new(3);
        waiters.push_append(run(1, 1, 4, 2, AckLevel::Stored));
        waiters.push_append(run(2, 5, 9, 2, AckLevel::Stored));
        waiters.push_append(run(3, 10, 10, 3, AckLevel::Stored));
        waiters.push_wait(run(4, 3, 3, 2, AckLevel::Stored));
        let mut released = Vec::new();
        waiters.release_stored(2, Seq::new(6), &mut released);
        let expected = [(1, "1..4".into()), (2, "5..6".into()), (4, "3".into())];
        assert_eq!(shown(&released), expected);
        released.clear();
        waiters.release_stored(2, Seq::new(20), &mut released);
        assert_eq!(shown(&released), [(2, "7..9".into())]);
        assert_eq!(waiters.waiting(), 1);
    }

    #[test]
    fn a_received_range_releases_the_middle_of_a_run() {
        let mut waiters = Waiters::new(3);
        waiters.push_append(run(1, 1, 9, 2, AckLevel::Received));
        waiters.push_append(run(2, 10, 12, 2, AckLevel::Received));
        waiters.push_wait(run(3, 5, 5, 2, AckLevel::Received));
        // A secondary holds 4..6 and 11: two nodes there, one elsewhere.
        let held = |seq: Seq| match seq.number() {
            ..4 => (1, Some(Seq::new(4))),
            4..=6 => (2, Some(Seq::new(7))),
            7..=10 => (1, Some(Seq::new(11))),
            11 => (2, Some(Seq::new(12))),
            _ => (1, None),
        };
        let mut released = Vec::new();
        let all = SeqRange::inclusive(Seq::new(4), Seq::new(11));
        waiters.release_received(all, held, &mut released);
        let expected = [(1, "4..6".into()), (2, "11".into()), (3, "5".into())];
        assert_eq!(shown(&released), expected);
        assert_eq!(waiters.waiting(), 3 + 3 + 1 + 1);
        released.clear();
        waiters.release_received(
            SeqRange::inclusive(Seq::new(1), Seq::new(12)),
            |_| (2, None),
            &mut released,
        );
        let expected = [(1, "1..3"), (1, "7..9"), (2, "10"), (2, "12")];
        assert_eq!(shown(&released), expected.map(|(slot, range)| (slot, range.to_string())));
        assert_eq!(waiters.waiting(), 0);
    }

    #[test]
    fn a_deadline_answers_only_what_the_master_has_stored() {
        let mut waiters = Waiters::new(3);
        let deadline = Some(Time::from_micros(5));
        waiters.push_append(Waiter { deadline, ..run(1, 1, 4, 3, AckLevel::Stored) });
        waiters.push_append(Waiter { deadline, ..run(2, 5, 9, 3, AckLevel::Received) });
        let mut expired = Vec::new();
        waiters.expire(Time::from_micros(4), Seq::new(9), &mut expired);
        assert_eq!(shown(&expired), []);
        waiters.expire(Time::from_micros(5), Seq::new(4), &mut expired);
        assert_eq!(shown(&expired), [(1, "1..4".into())]);
        waiters.release_overdue(Seq::new(9), &mut expired);
        assert_eq!(shown(&expired), [(1, "1..4".into()), (2, "5..9".into())]);
        assert_eq!((waiters.waiting(), waiters.next_deadline()), (0, None));
    }

    #[test]
    fn a_connection_that_is_gone_is_forgotten_and_nobody_else() {
        let mut waiters = Waiters::new(3);
        let deadline = Some(Time::from_micros(5));
        waiters.push_append(Waiter { deadline, ..run(1, 1, 4, 3, AckLevel::Stored) });
        waiters.push_append(run(2, 5, 9, 3, AckLevel::Stored));
        waiters.push_append(Waiter { deadline, ..run(3, 10, 12, 3, AckLevel::Received) });
        waiters.push_wait(Waiter { deadline, ..run(5, 2, 2, 3, AckLevel::Stored) });
        waiters.push_wait(Waiter { deadline, ..run(7, 3, 3, 3, AckLevel::Received) });
        waiters.forget(1);
        assert_eq!((waiters.waiting(), waiters.next_deadline()), (5, None));
        assert_eq!(shown(&waiters.drain()), [(2, "5..9".into())]);
    }
}
