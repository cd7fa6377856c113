//! How an entry is to be appended or waited for.

use std::time::Duration;

use crate::types::{AckLevel, Seq, Timeout, WaitOptions, WriteConcern};

/// How an entry is to be appended. What is `None` is as the master is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// How many nodes must hold the entry before the answer is OK.
    pub concern: Option<WriteConcern>,
    /// What holding means.
    pub ack: Option<AckLevel>,
    /// How long to wait before the answer is PENDING; zero answers as soon as the entry is in the
    /// master's log. The node keeps it, and so does the client: if no answer is there
    /// [`ANSWER_MARGIN`](crate::limits::ANSWER_MARGIN) later (counted from when the entry was sent,
    /// or from the last answer to one with this timeout), it gives the connection up, with
    /// [`LostReason::Overdue`](super::LostReason::Overdue). Without one it waits for ever, even for
    /// a silent node: see [`Client::silence`](super::Client::silence).
    pub timeout: Option<Timeout>,
    /// Makes a repetition harmless. Nodes of this version refuse it.
    pub producer: Option<Producer>,
    /// Appends only if the entry gets this number. Nodes of this version refuse it.
    pub match_seq: Option<Seq>,
    /// All or nothing. Nodes of this version refuse it.
    pub atomic: bool,
}

/// Who produces an entry, and its number there. The following entries of an [`Appender`](super::Appender) take the
/// following numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// 1 to 64 of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// From 1.
    pub number: u64,
}

impl AppendOptions {
    /// Whether nothing in them differs from entry to entry.
    pub(super) fn is_plain(&self) -> bool {
        self.producer.is_none() && self.match_seq.is_none() && !self.atomic
    }

    /// The same with so much of the timeout used up.
    #[must_use]
    pub fn less(self, used: Duration) -> AppendOptions {
        let timeout = self.timeout.map(|timeout| match timeout {
            Timeout::For(timeout) => Timeout::For(timeout.saturating_sub(used)),
            Timeout::Forever => Timeout::Forever,
        });
        AppendOptions { timeout, ..self }
    }

    /// The timeout, if it ends.
    pub(super) fn limit(&self) -> Option<Duration> {
        match self.timeout {
            Some(Timeout::For(timeout)) => Some(timeout),
            Some(Timeout::Forever) | None => None,
        }
    }
}

impl From<WaitOptions> for AppendOptions {
    fn from(options: WaitOptions) -> Self {
        let WaitOptions { concern, ack, timeout } = options;
        AppendOptions { concern, ack, timeout, ..AppendOptions::default() }
    }
}
