//! Whether the node still says something while it owes an answer.
//!
//! A process that is frozen keeps its connections, and its machine goes on acknowledging bytes: only
//! a question that is not answered tells. So a node that owes something and has said nothing for a
//! while is asked with a PING, on the same connection and behind everything that was asked before. Any
//! byte of it is a sign of life.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits::{ANSWER_MARGIN, CLIENT_PATIENCE_MAX, SILENT_AFTER_MIN};

/// How often it is looked at while something is owed: every deadline lies further ahead than that
/// when it begins, so that each is met to the moment.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A look that comes so much later than it was meant to proves that we were stopped ourselves, or
/// our machine was: what the node said meanwhile has not been read yet.
pub(super) const WE_WERE_AWAY: Duration = Duration::from_secs(1);

/// Tells when a node falls silent while it owes an answer to an append, and when it speaks again.
///
/// Whatever else a silent node owes ends with [`LostReason::Silent`](super::LostReason::Silent), and
/// so does the connection if it owes nothing else. Only appends that were sent go on waiting, since
/// nobody could tell what became of them: for as long as their timeout says, or for ever.
#[derive(Clone, Debug)]
pub struct Silence {
    changes: watch::Receiver<Option<Instant>>,
}

impl Silence {
    pub(super) fn of(silence: &watch::Sender<Option<Instant>>) -> Silence {
        Silence { changes: silence.subscribe() }
    }

    /// For how long the node has said nothing; `None` if it is not silent.
    pub fn lasting(&self) -> Option<Duration> {
        self.changes.borrow().map(|since| since.elapsed())
    }

    /// Waits until the node falls silent or speaks again, and tells as [`Silence::lasting`] does. The
    /// end of the connection ends its silence. Cancel safe.
    pub async fn changed(&mut self) -> Option<Duration> {
        match self.changes.changed().await {
            Ok(()) => self.changes.borrow_and_update().map(|since| since.elapsed()),
            // The client is gone: nothing will change any more.
            Err(_) => std::future::pending().await,
        }
    }
}

/// When the node last gave a sign of life, and whether it must.
#[derive(Debug)]
pub(super) struct Pulse {
    silent_after: Duration,
    /// Something is owed, as far as was looked.
    pub(super) owing: bool,
    /// The last sign of life, or when something began to be owed, or we could hear again.
    since: Instant,
    /// We do not read ourselves: somebody of ours takes no more.
    deaf: bool,
    silent: bool,
}

/// What the time that has passed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// All is well up to this moment.
    Fine(Instant),
    /// It should be asked. The moment is that of the next finding.
    Ask(Instant),
    /// It has said nothing for so long.
    Silent(Duration),
}

impl Pulse {
    pub(super) fn new(silent_after: Duration, now: Instant) -> Pulse {
        let silent_after = silent_after.clamp(SILENT_AFTER_MIN, CLIENT_PATIENCE_MAX);
        Pulse { silent_after, owing: false, since: now, deaf: false, silent: false }
    }

    /// Something is owed from now on. Returns whether nothing was before.
    pub(super) fn owe(&mut self, now: Instant) -> bool {
        let began = !std::mem::replace(&mut self.owing, true);
        if began && !self.silent {
            self.since = now;
        }
        began
    }

    /// We were away: whether it said something meanwhile is not known yet.
    pub(super) fn excuse(&mut self, now: Instant) {
        if !self.silent {
            self.since = now;
        }
    }

    /// A sign of life. Returns whether a silence ended.
    pub(super) fn heard(&mut self, now: Instant) -> bool {
        self.since = now;
        std::mem::take(&mut self.silent)
    }

    /// We hear nothing while somebody of ours does not take what came.
    pub(super) fn set_deaf(&mut self, deaf: bool, now: Instant) {
        self.deaf = deaf;
        self.since = now;
    }

    /// Takes note of the silence. Returns since when it lasts, if that is new.
    pub(super) fn fall_silent(&mut self) -> Option<Instant> {
        (!std::mem::replace(&mut self.silent, true)).then_some(self.since)
    }

    /// For how long it has been silent, if it is.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.silent.then(|| self.since.elapsed())
    }

    /// What the time means; for somebody who owes something.
    pub(super) fn judge(&self, now: Instant) -> Finding {
        if self.deaf {
            return Finding::Fine(now + LOOK_EVERY);
        }
        // Two fifths of the time pass before it is asked: a quiet node is not bothered, and a busy
        // one has three fifths to answer.
        let ask_at = self.since + self.silent_after * 2 / 5;
        let silent_at = self.since + self.silent_after;
        if now >= silent_at {
            Finding::Silent(now.saturating_duration_since(self.since))
        } else if now >= ask_at {
            Finding::Ask(silent_at)
        } else {
            Finding::Fine(ask_at)
        }
    }
}

/// Requests that were sent with a timeout: by when the node must have answered.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    /// By timeout. Invariant: `unanswered > 0`.
    groups: BTreeMap<Duration, Group>,
    /// The timeout of what the socket is to take now, and when it last took a part.
    sending: Option<(Duration, Instant)>,
}

#[derive(Debug)]
struct Group {
    unanswered: u64,
    /// When the first of them was sent, or the last answer came: a long stream of appends waits for
    /// the disk behind the node before the node itself sees it.
    since: Instant,
}

impl Timeouts {
    /// A request with this timeout, if it has one, is being handed to the socket.
    pub(super) fn sending(&mut self, timeout: Option<Duration>, now: Instant) {
        self.sending = timeout.map(|timeout| (timeout, now));
    }

    /// So many requests with this timeout were handed to the socket whole.
    pub(super) fn sent(&mut self, timeout: Duration, count: u64, now: Instant) {
        let group = self.groups.entry(timeout);
        group.or_insert(Group { unanswered: 0, since: now }).unanswered += count;
    }

    /// So many of them were answered.
    pub(super) fn answered(&mut self, timeout: Duration, count: u64, now: Instant) {
        if let Some(group) = self.groups.get_mut(&timeout) {
            group.unanswered = group.unanswered.saturating_sub(count);
            group.since = now;
            if group.unanswered == 0 {
                self.groups.remove(&timeout);
            }
        }
    }

    /// We were away: what came meanwhile has not been read.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.groups.values_mut().for_each(|group| group.since = group.since.max(now));
        self.sending = self.sending.map(|(timeout, _)| (timeout, now));
    }

    /// When the first of them is overdue, and for how long it will then have waited.
    pub(super) fn due(&self) -> Option<(Instant, Duration)> {
        let due = |(timeout, since): (Duration, Instant)| {
            let patience = timeout.checked_add(ANSWER_MARGIN)?;
            Some((since.checked_add(patience)?, patience))
        };
        let sent = self.groups.iter().map(|(&timeout, group)| (timeout, group.since));
        sent.chain(self.sending).filter_map(due).min()
    }
}

#[cfg(test)]
mod tests;
