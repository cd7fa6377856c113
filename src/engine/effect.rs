//! What the master's engine asks for and is asked: plain values, so that a test compares them.

use std::fmt;
use std::time::Duration;

use super::SessionId;
use super::health::Health;
use super::progress::AttemptFailure;
use super::waiters::{Answer, Token};
use crate::codes::RefuseCode;
use crate::types::{Epoch, LogId, NodeIndex, Seq, SeqRange, Shortage, WaitOptions, WriteConcern};

/// Whether appends are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The master does not know yet what the log is: no appends, local reads only.
    Recovering,
    /// Appends are accepted.
    Normal,
    /// Fewer nodes present than the quorum: appends are refused, everything else goes on.
    ReadOnly,
    /// Part of the own log is unreadable or contradicts what was committed: appends are refused
    /// until it is repaired.
    Damaged,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Recovering => "recovering",
            Mode::Normal => "normal",
            Mode::ReadOnly => "read-only",
            Mode::Damaged => "damaged",
        })
    }
}

/// What the runtime must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect to a secondary and introduce ourselves; report `handle_introduced` or
    /// `handle_dial_failed`.
    Dial {
        /// The secondary.
        to: NodeIndex,
    },
    /// Introduce ourselves again, now with log id and epoch; the answer is a promise.
    Introduce {
        /// The secondary.
        to: NodeIndex,
        /// On this connection.
        session: SessionId,
    },
    /// Refuse the secondary and close.
    Close {
        /// The secondary.
        to: NodeIndex,
        /// This connection.
        session: SessionId,
        /// The reason.
        code: RefuseCode,
    },
    /// Send entries from the front of `range`, then report `handle_sent` with what was taken.
    Send {
        /// The secondary.
        to: NodeIndex,
        /// On this connection.
        session: SessionId,
        /// Which entries, at most.
        range: SeqRange,
        /// How many bytes, at most (but at least one entry).
        bytes_max: usize,
        /// Whether they were sent before.
        again: bool,
    },
    /// Ask for a sign of life.
    Heartbeat {
        /// The secondary.
        to: NodeIndex,
        /// On this connection.
        session: SessionId,
    },
    /// Make the own log durable, then report `handle_stored`.
    MakeDurable {
        /// Up to and including.
        up_to: Seq,
    },
    /// Answer a client.
    Answer(Answer),
    /// Keep log id and epoch durably, before anything that follows is carried out.
    Keep {
        /// The history.
        log_id: LogId,
        /// The epoch that this process leads or asks to lead.
        epoch: Epoch,
        /// The settled epoch, see [`OwnLog::settled`](super::OwnLog::settled).
        settled: Epoch,
        /// Whether the log holds all that it ever said it did.
        vouches: bool,
    },
    /// Move everything from this entry on aside: the log that is adopted has others there.
    SetAside {
        /// The first to go.
        from: Seq,
    },
    /// Fetch entries from the front of `range`, append them, then report `handle_adopted` with how
    /// far that came, or `handle_fetch_failed`.
    Fetch {
        /// The secondary.
        from: NodeIndex,
        /// On this connection.
        session: SessionId,
        /// Which entries.
        range: SeqRange,
    },
    /// Tell a secondary the last entry that is common, so that it sets aside what it has behind it
    /// and introduces itself anew.
    Align {
        /// The secondary.
        to: NodeIndex,
        /// On this connection.
        session: SessionId,
        /// The last common entry; `Seq::ZERO` if there is none.
        last: Seq,
    },
    /// For the log: this master leads from now on.
    BeginReign {
        /// Its epoch.
        epoch: Epoch,
        /// Where its log ends.
        last: Seq,
    },
    /// For the log: a new history begins.
    BeginHistory {
        /// Its identity.
        log_id: LogId,
        /// Its first epoch.
        epoch: Epoch,
    },
    /// For log and status: the judgement of a secondary changed.
    HealthChanged {
        /// The secondary.
        of: NodeIndex,
        /// Before.
        from: Health,
        /// Now.
        to: Health,
    },
    /// For log and status: the mode changed.
    ModeChanged {
        /// Before.
        from: Mode,
        /// Now.
        to: Mode,
        /// Nodes present.
        present: usize,
    },
    /// For log and status: an attempt failed, and the next one comes after the wait.
    AttemptFailed {
        /// The secondary.
        to: NodeIndex,
        /// The oldest entry that is not acknowledged.
        seq: Seq,
        /// Why.
        failure: AttemptFailure,
        /// Failed in a row.
        attempts: u32,
        /// Until the next one.
        wait: Duration,
    },
    /// For log and status: a secondary follows, its log being a prefix of ours.
    Following {
        /// The secondary.
        to: NodeIndex,
        /// What it holds.
        stored: Seq,
    },
    /// A higher epoch was promised to somebody else: this master's reign is over.
    Deposed {
        /// Who said so.
        by: NodeIndex,
        /// The epoch promised.
        epoch: Epoch,
    },
}

/// A run of appends with the same options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Who waits for the answer.
    pub token: Token,
    /// How many entries, at least 1.
    pub count: u64,
    /// How they are to be acknowledged.
    pub options: WaitOptions,
}

/// Why a request was refused. Nothing changed, no number was consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More nodes asked for than the cluster has.
    BadWriteConcern {
        /// What was asked for.
        concern: WriteConcern,
    },
    /// Fewer nodes present than the quorum.
    ReadOnly {
        /// Nodes present.
        present: usize,
    },
    /// The master does not know yet what the log is.
    Recovering,
    /// Part of the master's log is damaged.
    Damaged,
    /// No room on the master's disk.
    DiskFull {
        /// What is missing.
        shortage: Shortage,
    },
    /// The node stops.
    Stopping,
    /// The entry waited for is not in the log.
    NotFound {
        /// The next number to be given.
        next: Seq,
    },
}
