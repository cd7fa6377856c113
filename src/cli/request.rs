//! What was asked for, as the command line said it and the verbs take it.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::types::Level;

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl FromStr for Output {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "text" => Ok(Output::Text),
            "json" => Ok(Output::Json),
            _ => Err("expected text or json"),
        }
    }
}

/// Where entries come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Entry(Vec<u8>),
    /// Standard input.
    Stdin(Cut),
    /// The whole of a file.
    File(PathBuf),
}

/// What is an entry of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A line.
    Lines,
    /// What ends with a byte of zero.
    Nul,
    /// All of it.
    Whole,
}

impl Cut {
    /// The byte that ends an entry, if one does.
    pub(super) fn byte(self) -> Option<u8> {
        match self {
            Cut::Lines => Some(b'\n'),
            Cut::Nul => Some(0),
            Cut::Whole => None,
        }
    }
}

/// How the reply to a gateway line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// STATUS.
    Status,
    /// HEALTH, which is good news only in mode normal.
    Health,
    /// PONG and text.
    Pong,
    /// One line.
    Line,
    /// One line, of which only the payload is wanted.
    Payload {
        /// The entry's number.
        seq: u64,
    },
    /// One line, which only the master can answer.
    OfMaster,
    /// Likewise, but it may take long.
    Wait {
        /// The entry that is waited for.
        seq: u64,
    },
    /// Data lines and END, of the master.
    Waiters,
    /// OpenMetrics text.
    Metrics,
}

/// What is to be printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) from: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) level: Option<Level>,
    pub(super) form: Form,
}

/// How entries are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// As the text gateway does.
    #[default]
    Lines,
    /// Payloads only, as they are, each with this behind it.
    Raw(Ending),
    /// An object a line.
    Objects,
}

/// What stands behind an entry among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    LineFeed,
    /// A byte of zero: payloads may hold line feeds.
    Nul,
}

/// What is to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) all: bool,
    pub(super) watch: bool,
}

/// How long nodes that lag are waited for unless the user says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
