//! What a starting master may do: begin a new history, go on with the one there is, or wait.
//!
//! A log that a node still holds must never be shadowed by a shorter one: silence is absence, not
//! emptiness. So a master first makes the others promise its epoch and reads their ends only then
//! (BookKeeper's lesson: fence, then read), and it counts only as many answers as make sure that
//! what was ever answered with enough nodes is among them.

use super::progress::{HelloFacts, Progress};
use super::secondary::EPOCH_STEP_MAX;
use crate::limits::ROSTER_WAIT;
use crate::types::{Epoch, LogId, NodeIndex, Seq, Time, majority};

/// The log a master starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLog {
    /// Its history; none for an empty store.
    pub log_id: Option<LogId>,
    /// The highest epoch that this store led or promised.
    pub epoch: Epoch,
    /// Its last entry …
    pub last: Seq,
    /// … and the epoch that numbered it.
    pub tail_epoch: Epoch,
    /// The *settled epoch*: the highest whose leader found this log to be a prefix of its own, and
    /// before whose first number it has everything. Never below the epoch of its last entry.
    pub settled: Epoch,
    /// The highest commit position it knows.
    pub commit: Seq,
    /// It holds all that it ever wrote and said so. False for an empty or damaged store, for one in
    /// memory, and for one that may have lost what was not synced.
    pub whole: bool,
}

/// May a master without a history begin one, or is there one to go on with?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Not enough is known.
    Wait,
    /// Those who answer hold logs of more than one history.
    Torn,
    /// There is a history: go on with it, in an epoch above all that were heard of.
    Continue {
        /// The history.
        log_id: LogId,
        /// The epoch to be promised.
        epoch: Epoch,
    },
    /// Nobody who answers has a log, and enough do answer.
    Begin {
        /// The first epoch of the new history.
        epoch: Epoch,
    },
}

/// Judges the answers of the secondaries to a master without a history. `bootstrap` is the
/// operator's word that the silent ones are empty too.
pub fn judge(
    now: Time,
    started: Time,
    own: &OwnLog,
    quorum: usize,
    bootstrap: bool,
    secondaries: &[Progress],
) -> Start {
    let answers = || secondaries.iter().filter_map(|secondary| secondary.answer.as_ref());
    // A number that no other node could follow is not the number of an epoch.
    let epochs = answers()
        .map(|answer| answer.epoch)
        .filter(|epoch| epoch.number() - own.epoch.number().min(epoch.number()) < EPOCH_STEP_MAX);
    let epoch = epochs.max().unwrap_or(Epoch::ZERO).max(own.epoch).next();
    if let Some(log_id) = own.log_id {
        return Start::Continue { log_id, epoch };
    }
    let waited = now >= started.after(ROSTER_WAIT);
    let virgins = 1 + answers().count();
    let whole_roster = virgins == 1 + secondaries.len();
    let mut histories = answers().filter_map(|answer| answer.log_id);
    if let Some(log_id) = histories.next() {
        return if histories.any(|other| other != log_id) {
            Start::Torn
        } else if waited || whole_roster {
            Start::Continue { log_id, epoch }
        } else {
            Start::Wait
        };
    }
    let everybody_tried = secondaries.iter().all(|secondary| secondary.tried);
    if whole_roster || (waited && virgins >= quorum) || (bootstrap && (waited || everybody_tried)) {
        Start::Begin { epoch }
    } else {
        Start::Wait
    }
}

/// What the promises given so far allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More answers are needed.
    Wait,
    /// The own log is the best: lead.
    Lead {
        /// Too few promised to prove that nothing is missing: the operator accepted that.
        loss_accepted: bool,
    },
    /// The tail of this secondary's log is to be adopted first: it is the best there is.
    Adopt {
        /// Whose.
        from: NodeIndex,
    },
}

/// How many promises, the master not counted, make sure that the log is complete.
///
/// A whole log needs but a quorum to serve. Where the own log may lack something, so many must answer
/// that at least one holds each entry that a majority held (or all, where that is fewer).
pub fn needed(nodes: usize, quorum: usize, own_loss: bool) -> usize {
    if own_loss { (nodes - 1).min(nodes + 1 - majority(nodes)) } else { quorum - 1 }
}

/// Judges the promises. The best tail is that of the greatest settled epoch, and among these the
/// longest. Not that of the last entry's epoch: a leader that numbered an entry alone and died left a
/// higher one than the next leader, who wrote under a lower entry what a majority then held
/// (Viewstamped Replication Revisited ranks logs by the last view in which they were normal, too).
///
/// `accept_loss` is the operator's word that a log which ends at this entry or
/// later is good enough.
pub fn judge_promises(
    now: Time,
    started: Time,
    own: &OwnLog,
    quorum: usize,
    accept_loss: Option<Seq>,
    secondaries: &[Progress],
) -> Verdict {
    let promises = || {
        let indexed = secondaries.iter().enumerate();
        indexed.filter_map(|(at, secondary)| Some((at, secondary.promise()?)))
    };
    let waited = now >= started.after(ROSTER_WAIT);
    if promises().count() < secondaries.len() && !waited {
        return Verdict::Wait;
    }
    let ahead = ahead(own, secondaries);
    let own_loss = !own.whole || ahead.is_some();
    let counts = |facts: &HelloFacts| facts.vouches || !own_loss;
    let counted = promises().filter(|(_, facts)| counts(facts)).count();
    let last = ahead.map_or(own.last, |(_, facts)| facts.stored);
    let overridden = accept_loss.is_some_and(|accepted| waited && last >= accepted);
    let too_few = counted < needed(1 + secondaries.len(), quorum, own_loss);
    if too_few && !overridden {
        return Verdict::Wait;
    }
    match ahead {
        Some((at, _)) => Verdict::Adopt { from: NodeIndex::secondary(at) },
        None => Verdict::Lead { loss_accepted: too_few },
    }
}

/// The secondary with the best tail of those who promised, if that is better than the own one. What goes
/// on where the own log ends is, whatever it has settled: nothing of the own one is lost by it, and a
/// disk may have lost an end without a trace.
fn ahead<'a>(own: &OwnLog, secondaries: &'a [Progress]) -> Option<(usize, &'a HelloFacts)> {
    let indexed = secondaries.iter().enumerate();
    let promises = indexed.filter_map(|(at, secondary)| Some((at, secondary.promise()?)));
    let end_of = |facts: &HelloFacts| (facts.settled, facts.stored);
    let extends = |facts: &HelloFacts| facts.common >= own.last && facts.stored > own.last;
    let is_better = |facts: &HelloFacts| end_of(facts) > (own.settled, own.last) || extends(facts);
    // The first of equals: whom the roster names first.
    promises.rev().filter(|(_, facts)| is_better(facts)).max_by_key(|(_, facts)| end_of(facts))
}

/// Where the best log ends of those that are known now.
pub fn best_end(own: &OwnLog, secondaries: &[Progress]) -> Seq {
    ahead(own, secondaries).map_or(own.last, |(_, facts)| facts.stored)
}

/// The last entry that two logs have in common, by where epochs begin in each (ascending) and where
/// each ends: within one epoch all logs are prefixes of one another, since one master wrote it
/// (Kafka's leader epochs, KIP-101). The digests there still have to be compared.
pub fn last_common(
    ours: &[(Epoch, Seq)],
    our_last: Seq,
    theirs: &[(Epoch, Seq)],
    their_last: Seq,
) -> Seq {
    let end_of = |table: &[(Epoch, Seq)], at: usize, last: Seq| {
        table.get(at + 1).map_or(last, |&(_, first)| first.previous()).min(last)
    };
    let mut common = Seq::ZERO;
    for (at, row) in ours.iter().enumerate() {
        if let Some(their_at) = theirs.iter().position(|other| other == row) {
            let ends = (end_of(ours, at, our_last), end_of(theirs, their_at, their_last));
            common = common.max(ends.0.min(ends.1));
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(u64, u64)]) -> Vec<(Epoch, Seq)> {
        rows.iter().map(|&(epoch, first)| (Epoch::new(epoch), Seq::new(first))).collect()
    }

    fn common(ours: &[(u64, u64)], our_last: u64, theirs: &[(u64, u64)], their_last: u64) -> u64 {
        last_common(&table(ours), Seq::new(our_last), &table(theirs), Seq::new(their_last)).number()
    }

    #[test]
    fn logs_agree_up_to_the_shorter_end_of_the_last_epoch_they_share() {
        let one = [(1, 1)];
        assert_eq!(common(&one, 10, &one, 7), 7);
        assert_eq!(common(&one, 7, &one, 10), 7);
        assert_eq!(common(&[(1, 1), (2, 8)], 12, &one, 10), 7, "8 to 10 were written over");
        assert_eq!(common(&[(1, 1), (3, 8)], 12, &[(1, 1), (2, 6)], 9), 5);
        assert_eq!(common(&[(1, 1), (2, 6), (4, 9)], 12, &[(1, 1), (2, 6)], 20), 8);
        assert_eq!(common(&[], 0, &one, 10), 0);
        assert_eq!(common(&[(2, 1)], 5, &one, 5), 0, "nothing in common");
    }

    #[test]
    fn so_many_promises_are_needed() {
        for (nodes, quorum, whole, lost) in
            [(1, 1, 0, 0), (2, 2, 1, 1), (3, 2, 1, 2), (3, 1, 0, 2), (5, 3, 2, 3), (7, 4, 3, 4)]
        {
            assert_eq!(needed(nodes, quorum, false), whole, "{nodes} nodes, whole");
            assert_eq!(needed(nodes, quorum, true), lost, "{nodes} nodes, loss possible");
        }
    }
}
