//! What a line of the gateway may ask for.

use std::ops::Range;
use std::time::Duration;

use crate::types::{Level, Seq, WaitOptions};

/// A `w=` that cannot be meant, as it was written. It is judged only after role and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadConcern(pub String);

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
    Append { options: WaitOptions, bad_concern: Option<BadConcern>, payload: Range<usize> },
    List { from: Seq, limit: Option<u64>, level: Level },
    Get { seq: Seq },
    Tail { start: TailFrom, level: Level },
    Wait { seq: Seq, options: WaitOptions, bad_concern: Option<BadConcern> },
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
