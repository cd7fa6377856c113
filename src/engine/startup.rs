//! May a starting master begin a new history?
//!
//! A log that a secondary still holds must never be shadowed by an empty one: silence is absence, not
//! emptiness (BookKeeper's lesson: fence and read before you write).

use super::progress::Progress;
use super::secondary::EPOCH_STEP_MAX;
use crate::limits::ROSTER_WAIT;
use crate::types::{Epoch, Time};

/// What a starting master may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Not enough is known.
    Wait,
    /// Somebody reports a log: nothing may begin while it does.
    Blocked,
    /// Nobody who answers has a log, and enough do answer.
    Begin {
        /// The first epoch of the new history.
        epoch: Epoch,
    },
}

/// Judges the answers of the secondaries. `bootstrap` is the operator's word that the silent ones
/// are empty too.
pub fn judge(
    now: Time,
    started: Time,
    quorum: usize,
    bootstrap: bool,
    secondaries: &[Progress],
) -> Start {
    let answers = || secondaries.iter().filter_map(|secondary| secondary.answer.as_ref());
    if answers().any(|answer| answer.log_id.is_some()) {
        return Start::Blocked;
    }
    // A number that no other node could follow is not the number of an epoch.
    let epochs =
        answers().map(|answer| answer.epoch).filter(|epoch| epoch.number() < EPOCH_STEP_MAX);
    let epoch = epochs.max().unwrap_or(Epoch::ZERO).next();
    let virgins = 1 + answers().count();
    let waited = now >= started.after(ROSTER_WAIT);
    let whole_roster = virgins == 1 + secondaries.len();
    let everybody_tried = secondaries.iter().all(|secondary| secondary.tried);
    if whole_roster || (waited && virgins >= quorum) || (bootstrap && (waited || everybody_tried)) {
        Start::Begin { epoch }
    } else {
        Start::Wait
    }
}
