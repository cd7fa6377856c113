//! One secondary as the master sees it: connection, positions, window, retry ladder, health.
//!
//! All transitions are methods here (etcd's raft keeps its `Progress` apart for the same reason);
//! the master calls them and turns what they return into effects.

use std::collections::VecDeque;
use std::time::Duration;

use super::SessionId;
use super::health::{Health, HealthMonitor};
use super::ranges::RangeSet;
use crate::codes::RefuseCode;
use crate::limits::{LINK_FRAMES_MAX, ROOM_RETRY, RUN_BYTES_MAX, WINDOW_FRAMES_MAX};
use crate::types::{Epoch, LogId, PrefixId, RunId, Seq, SeqRange, Time};

/// What a secondary says in its HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloFacts {
    /// Its history, none if it is virgin.
    pub log_id: Option<LogId>,
    /// The highest epoch it promised …
    pub epoch: Epoch,
    /// … and to which process.
    pub run_id: RunId,
    /// Its stored position.
    pub stored: Seq,
    /// Prefix id there.
    pub tail: PrefixId,
    /// Its settled epoch.
    pub settled: Epoch,
    /// The master's own prefix id at that position, if it has the entry.
    pub ours: Option<PrefixId>,
    /// The highest commit position it knows.
    pub commit: Seq,
    /// Its log holds all that it ever acknowledged.
    pub vouches: bool,
    /// The last entry that its log and the master's have in common, by their epoch tables.
    pub common: Seq,
}

/// What a secondary says in an ACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckFacts {
    /// Everything up to here is stored.
    pub stored: Seq,
    /// Everything up to here is in memory.
    pub received: Seq,
    /// What else is in memory.
    pub held: RangeSet,
    /// Entries that came twice, since its process started.
    pub duplicates: u64,
}

impl AckFacts {
    /// Everything up to `seq` is stored, and nothing else.
    pub fn up_to(seq: Seq) -> Self {
        AckFacts { stored: seq, received: seq, held: RangeSet::default(), duplicates: 0 }
    }
}

/// Why an attempt to get entries acknowledged failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptFailure {
    /// No progress for `attempt_timeout`.
    Timeout,
    /// The secondary said so.
    Nack,
}

/// The state of the connection to a secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// None, and none being made.
    Down,
    /// A connection attempt is under way.
    Dialling,
    /// It answered; it has not promised our epoch (yet).
    Introduced(SessionId),
    /// It promised our epoch and its log is a prefix of ours: entries flow.
    Following(SessionId),
}

impl Link {
    /// The connection, if there is one.
    pub fn session(self) -> Option<SessionId> {
        match self {
            Link::Introduced(session) | Link::Following(session) => Some(session),
            Link::Down | Link::Dialling => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    last: Seq,
    bytes: usize,
}

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToSend {
    /// From where on, and how far at most.
    pub range: SeqRange,
    /// At most so many bytes (but at least one entry).
    pub bytes_max: usize,
    /// Whether these entries were sent before.
    pub again: bool,
}

/// A repetition under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repetition {
    /// The last entry repeated; `None` until it is sent.
    last: Option<Seq>,
    /// Everything before this was sent before the repetition.
    sent_before: Seq,
}

/// One secondary.
///
/// # Invariants
/// `stored <= received < next`; frames in the window are ascending and behind `stored`;
/// `unflushed <= LINK_FRAMES_MAX`.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The connection.
    pub link: Link,
    /// The judgement of its health.
    pub health: HealthMonitor,
    /// Whether its last introduction was accepted: it counts as present while it is not unhealthy.
    pub accepted: bool,
    /// Why the last introduction was refused.
    pub refused: Option<RefuseCode>,
    /// The answer to an asking HELLO, while the connection that gave it lives.
    pub answer: Option<HelloFacts>,
    /// The answer was a promise of our epoch.
    pub promised: bool,
    /// It settled our epoch: what it holds may make an entry committed.
    pub settled: bool,
    /// Where the own log ended when its answer was compared with it.
    pub compared_at: Seq,
    /// It was asked once more, to compare anew.
    pub comparing: bool,
    /// It was told to set aside what follows this entry, on this connection.
    pub aligned: Option<(SessionId, Seq)>,
    /// Whether a connection attempt has ended since the start, with an answer or without.
    pub tried: bool,
    /// Everything up to here is in its log. Kept over connections; a new HELLO may take it back.
    pub stored: Seq,
    /// Everything up to here is in its memory.
    pub received: Seq,
    /// What else it holds.
    pub held: RangeSet,
    /// The next entry that was never sent on this connection.
    pub next: Seq,
    /// Duplicates it counted.
    pub duplicates: u64,
    /// It refused entries on this connection for want of room, and has acknowledged nothing since.
    pub full: bool,
    /// When it was last served at once because it has room again, or will be.
    served: Option<Time>,
    /// When the next heartbeat or connection attempt is due.
    pub heartbeat_at: Time,
    /// A heartbeat was sent and nothing was heard since.
    pub awaiting: bool,
    /// Heartbeats that it answered without having given its promise on this connection.
    pub unpromised: u32,
    window: VecDeque<Sent>,
    window_bytes: usize,
    window_bytes_max: usize,
    unflushed: usize,
    flushed: Seq,
    /// A send was asked for and not yet reported.
    sending: bool,
    /// What is next could not be read: nothing is sent before the next heartbeat.
    unreadable: bool,
    attempts: u32,
    /// Since when the oldest unacknowledged entry makes no progress.
    stalled_since: Option<Time>,
    retry_at: Option<Time>,
    repetition: Option<Repetition>,
    /// Sent before an acknowledged repetition and not listed: sent again at once.
    resend: Option<SeqRange>,
}

impl Progress {
    /// A secondary that was never reached.
    pub fn new(health: HealthMonitor, window_bytes_max: usize, now: Time) -> Self {
        Progress {
            link: Link::Down,
            health,
            accepted: false,
            refused: None,
            answer: None,
            promised: false,
            settled: false,
            compared_at: Seq::ZERO,
            comparing: false,
            aligned: None,
            tried: false,
            stored: Seq::ZERO,
            received: Seq::ZERO,
            held: RangeSet::default(),
            next: Seq::FIRST,
            duplicates: 0,
            full: false,
            served: None,
            heartbeat_at: now,
            awaiting: false,
            unpromised: 0,
            window: VecDeque::new(),
            window_bytes: 0,
            window_bytes_max,
            unflushed: 0,
            flushed: Seq::ZERO,
            sending: false,
            unreadable: false,
            attempts: 0,
            stalled_since: None,
            retry_at: None,
            repetition: None,
            resend: None,
        }
    }

    /// Its promise of our epoch, while the connection that gave it lives.
    pub fn promise(&self) -> Option<&HelloFacts> {
        self.answer.as_ref().filter(|_| self.promised)
    }

    /// Failed attempts in a row.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When the next repetition is due, if one is.
    pub fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    /// Bytes of entries sent and not acknowledged.
    pub fn inflight_bytes(&self) -> usize {
        self.window_bytes
    }

    /// The connection is gone, or another takes its place. Positions stay as last acknowledged.
    pub fn reset_link(&mut self, link: Link) {
        self.link = link;
        self.answer = None;
        self.awaiting = false;
        self.unpromised = 0;
        self.comparing = false;
        self.held = RangeSet::default();
        self.received = self.stored;
        self.next = self.received.next();
        self.window.clear();
        self.window_bytes = 0;
        self.unflushed = 0;
        self.flushed = self.stored;
        (self.sending, self.unreadable) = (false, false);
        self.repetition = None;
        self.resend = None;
        self.full = false;
        self.reset_ladder();
    }

    /// Entries may flow from behind `stored`, which the secondary has proven to hold. `settled` tells
    /// whether it has settled our epoch already.
    pub fn become_following(&mut self, session: SessionId, stored: Seq, settled: bool) {
        self.settled = settled;
        self.stored = stored;
        self.reset_link(Link::Following(session));
        self.accepted = true;
        self.refused = None;
    }

    /// Takes an ACK. Returns the ranges that it holds now and did not before (or an empty range),
    /// or `None` if it acknowledges what was never sent.
    pub fn handle_ack(&mut self, now: Time, ack: AckFacts) -> Option<SeqRange> {
        let highest = ack.held.iter().last().map_or(ack.received, |range| range.last());
        let highest = highest.max(ack.received);
        if ack.stored > ack.received || highest >= self.next {
            return None;
        }
        // A repetition that was not needed arrived at last: the line is slow, not dead. To repeat even
        // more would only fill it.
        if ack.duplicates > self.duplicates {
            self.stalled_since = self.stalled_since.map(|_| now);
        }
        self.duplicates = ack.duplicates;
        if ack.stored < self.stored || ack.received < self.received {
            return Some(SeqRange::new(Seq::ZERO, Seq::ZERO)); // Overtaken: ACKs are cumulative.
        }
        let advanced = ack.stored > self.stored || ack.received > self.received;
        let changed = SeqRange::new(self.received.next(), highest.next());
        self.stored = ack.stored;
        self.received = ack.received;
        self.held = ack.held;
        while self.window.front().is_some_and(|sent| sent.last <= self.stored) {
            let freed = self.window.pop_front().map_or(0, |sent| sent.bytes);
            self.window_bytes -= freed;
        }
        if advanced {
            self.reset_ladder();
            self.stalled_since = self.has_flushed_unacknowledged().then_some(now);
            self.end_repetition();
        }
        if std::mem::take(&mut self.full) {
            // It takes entries again, and says so by this ACK: no wait of the ladder is due any more.
            // Whoever says so and refuses again by turns is not believed more often than a disk is tried.
            self.reset_ladder();
            let due = self.served.map_or(now, |served| served.after(ROOM_RETRY)).max(now);
            self.served = Some(due);
            if due == now {
                self.repeat_now();
            } else {
                self.retry_at = Some(due);
            }
        }
        Some(changed)
    }

    /// The repetition is acknowledged: what else was sent before it and is not listed goes again.
    fn end_repetition(&mut self) {
        let Some(Repetition { last: Some(last), sent_before }) = self.repetition else { return };
        if self.received < last {
            return;
        }
        self.repetition = None;
        let missing = SeqRange::new(self.received.next(), sent_before);
        self.resend = (!missing.is_empty()).then_some(missing);
    }

    /// A failed attempt: the ladder's next wait begins. Returns the number of attempts and the wait,
    /// `None` if one is waiting already, or nothing is outstanding.
    pub fn fail_attempt(&mut self, now: Time, ladder: &[Duration]) -> Option<(u32, Duration)> {
        if self.retry_at.is_some() || !self.has_unacknowledged() {
            return None;
        }
        self.attempts = self.attempts.saturating_add(1);
        let step = (self.attempts as usize - 1).min(ladder.len() - 1);
        self.retry_at = Some(now.after(ladder[step]));
        self.stalled_since = None;
        self.repetition = None;
        Some((self.attempts, ladder[step]))
    }

    /// Repeats now what is not acknowledged: the wait is over, or the secondary is back.
    pub fn repeat_now(&mut self) {
        self.retry_at = None;
        self.stalled_since = None;
        if self.has_unacknowledged() {
            self.repetition = Some(Repetition { last: None, sent_before: self.next });
        }
    }

    /// It became unhealthy: repetitions pause, and what was planned is decided anew on its return.
    pub fn pause(&mut self) {
        self.reset_ladder();
        self.repetition = None;
        self.resend = None;
    }

    /// Begins the ladder anew.
    pub fn reset_ladder(&mut self) {
        self.attempts = 0;
        self.retry_at = None;
        self.stalled_since = None;
    }

    /// What to send next, if anything may be sent: repetitions first, then what a repetition showed
    /// to be missing, then new entries up to `written`.
    pub fn next_send(&mut self, written: Seq) -> Option<ToSend> {
        let Link::Following(_) = self.link else { return None };
        let paused = self.health.health() == Health::Unhealthy;
        if paused || self.sending || self.unreadable || self.unflushed >= LINK_FRAMES_MAX {
            return None;
        }
        let to_send = self.repetition_to_send().or_else(|| self.resend_to_send()).or_else(|| {
            let room = self.window_bytes_max.saturating_sub(self.window_bytes);
            let open = self.window.is_empty() || room > 0 && self.window.len() < WINDOW_FRAMES_MAX;
            (self.next <= written && open).then(|| ToSend {
                range: SeqRange::inclusive(self.next, written),
                bytes_max: room.min(RUN_BYTES_MAX),
                again: false,
            })
        });
        self.sending = to_send.is_some();
        to_send
    }

    fn repetition_to_send(&self) -> Option<ToSend> {
        let repetition = self.repetition.filter(|repetition| repetition.last.is_none())?;
        // The first entry that is not there; if all are there and only not stored, the oldest.
        let missing = self.received.next();
        let first = if missing < self.next { missing } else { self.stored.next() };
        let end = self.held.holds(first).1.unwrap_or(repetition.sent_before);
        (first < repetition.sent_before).then(|| ToSend {
            range: SeqRange::new(first, end.min(repetition.sent_before)),
            bytes_max: RUN_BYTES_MAX,
            again: true,
        })
    }

    fn resend_to_send(&mut self) -> Option<ToSend> {
        let mut range = self.resend?;
        range.first = range.first.max(self.received.next());
        if let (true, end) = self.held.holds(range.first) {
            range.first = end.unwrap_or(range.end);
        }
        if range.is_empty() {
            self.resend = None;
            return None;
        }
        self.resend = Some(range);
        let end = self.held.holds(range.first).1.map_or(range.end, |held| held.min(range.end));
        Some(ToSend {
            range: SeqRange::new(range.first, end),
            bytes_max: RUN_BYTES_MAX,
            again: true,
        })
    }

    /// What was asked for cannot be read.
    pub fn handle_unreadable(&mut self) {
        (self.sending, self.unreadable) = (false, true);
    }

    /// What was asked for is not sent after all.
    pub fn handle_unsent(&mut self) {
        self.sending = false;
    }

    /// What could not be read is tried again.
    pub fn try_reading(&mut self) {
        self.unreadable = false;
    }

    /// What was asked for was handed to the connection: `range` with `bytes`.
    pub fn handle_sent(&mut self, range: SeqRange, bytes: usize) {
        self.sending = false;
        self.unflushed += 1;
        if range.end > self.next {
            self.window.push_back(Sent { last: range.last(), bytes });
            self.window_bytes += bytes;
            self.next = range.end;
            return;
        }
        if let Some(repetition) = &mut self.repetition
            && repetition.last.is_none()
        {
            repetition.last = Some(range.last());
        } else if let Some(resend) = &mut self.resend {
            resend.first = range.end;
        }
    }

    /// Frames left our socket buffer, the latest ending at `up_to`.
    pub fn handle_flushed(&mut self, now: Time, up_to: Seq, frames: usize) {
        self.unflushed = self.unflushed.saturating_sub(frames);
        self.flushed = self.flushed.max(up_to);
        if self.stalled_since.is_none()
            && self.retry_at.is_none()
            && self.health.health() != Health::Unhealthy
            && self.has_flushed_unacknowledged()
        {
            self.stalled_since = Some(now);
        }
    }

    /// When the oldest unacknowledged entry has made no progress for too long.
    pub fn attempt_due(&self, attempt_timeout: Duration) -> Option<Time> {
        self.stalled_since.map(|since| since.after(attempt_timeout))
    }

    /// Up to where what it stored counts where `commit` is committed: nothing it holds makes more
    /// committed before it has settled the epoch.
    pub fn counted(&self, commit: Seq) -> Seq {
        match self.accepted {
            true if self.settled => self.stored,
            true => self.stored.min(commit),
            false => Seq::ZERO,
        }
    }

    /// Whether it has stored `seq`, as far as that counts where `commit` is committed, or without it
    /// received it; and up to where (exclusive) that stays so.
    pub fn holds(&self, seq: Seq, commit: Option<Seq>) -> (bool, Option<Seq>) {
        let position = commit.map_or(self.received, |commit| self.counted(commit));
        match commit {
            _ if seq <= position => (true, Some(position.next())),
            Some(_) => (false, None),
            None => self.held.holds(seq),
        }
    }

    fn has_unacknowledged(&self) -> bool {
        self.stored.next() < self.next
    }

    fn has_flushed_unacknowledged(&self) -> bool {
        self.has_unacknowledged() && self.flushed > self.stored
    }

    /// Checks what must always hold.
    pub fn check_invariants(&self) {
        assert!(self.stored <= self.received, "stored {} > received", self.stored);
        assert!(self.received < self.next, "received {} >= next {}", self.received, self.next);
        assert!(self.unflushed <= LINK_FRAMES_MAX, "{} frames unflushed", self.unflushed);
        assert!(self.window.front().is_none_or(|sent| sent.last > self.stored));
    }
}
