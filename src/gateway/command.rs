//! What a line of the gateway may ask for.

use std::ops::Range;
use std::time::Duration;

use crate::types::{AckLevel, Level, Patience, Seq, WriteConcern};

/// A write concern as it was written. A wrong one is judged only after role and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConcernWord {
    /// It can be meant.
    Good(WriteConcern),
    /// It cannot.
    Bad(String),
}

/// Options of APPEND and WAIT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// `w=`
    pub concern: Option<ConcernWord>,
    /// `ack=`
    pub ack: Option<AckLevel>,
    /// `timeout=`
    pub patience: Option<Patience>,
}

/// A fault to play.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The next APPEND frame is handled so much later.
    DelayOnce(Duration),
    /// Every APPEND frame is handled so much later.
    DelayEvery(Duration),
    /// No more delays.
    DelayOff,
    /// So many APPEND frames are stored and answered with an error.
    FailAfter(FailRule),
    /// So many APPEND frames are answered with an error and not stored.
    FailBefore(FailRule),
    /// No more failures.
    FailOff,
    /// The master is answered nothing for so long.
    Mute(Duration),
    /// The master is answered again.
    MuteOff,
}

/// Which APPEND frames fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailRule {
    /// The next so many.
    Count(u64),
    /// Each with this probability.
    Probability(f64),
}

/// What a line asks for. Payloads are ranges of the line.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Verbs and options are those of the interface.
pub enum Command {
    Ping { text: Range<usize> },
    Help { verb: Option<String> },
    Quit,
    Append { options: AppendOptions, payload: Range<usize> },
    List { from: Seq, limit: Option<u64>, level: Level },
    Get { seq: Seq },
    Tail { start: TailFrom, level: Level },
    Wait { seq: Seq, options: AppendOptions },
    Status,
    Health,
    Waiters,
    Metrics,
    Digest { seq: Option<Seq> },
    Fault(Fault),
    Store { seq: Seq, payload: Range<usize> },
}

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailFrom {
    /// After what is there.
    New,
    /// At this entry.
    Seq(Seq),
    /// So many entries before the end.
    Last(u64),
}
