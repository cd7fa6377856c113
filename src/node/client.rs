//! What clients' sessions and their node say to one another.

use bytes::Bytes;

use crate::gateway::Refusal;
use crate::gateway::reply::Placed;
use crate::types::WaitOptions;

/// A run of appends of one connection with the same options.
#[derive(Debug)]
pub struct AppendRun {
    /// The connection's name for it.
    pub slot: u64,
    /// How they are acknowledged.
    pub options: WaitOptions,
    /// Its entries.
    pub payloads: Payloads,
}

/// The payloads of a run, in the buffers they were received in.
#[derive(Clone, Debug)]
pub enum Payloads {
    /// All in one buffer, each from and to a byte of it: nothing is allocated for each.
    Framed {
        /// What was received.
        buffer: Bytes,
        /// From and to which byte each lies in it.
        spans: Vec<(u32, u32)>,
    },
    /// Lines of the gateway.
    Lines(Vec<Bytes>),
}

impl Payloads {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Payloads::Framed { spans, .. } => spans.len(),
            Payloads::Lines(lines) => lines.len(),
        }
    }

    /// The sum of their lengths.
    pub fn bytes(&self) -> usize {
        match self {
            Payloads::Framed { spans, .. } => spans.iter().map(|(a, b)| (b - a) as usize).sum(),
            Payloads::Lines(lines) => lines.iter().map(Bytes::len).sum(),
        }
    }

    /// Calls `take` with each, in order.
    pub fn for_each(&self, mut take: impl FnMut(&[u8])) {
        match self {
            Payloads::Framed { buffer, spans } => {
                spans.iter().for_each(|&(start, end)| take(&buffer[start as usize..end as usize]));
            }
            Payloads::Lines(lines) => lines.iter().for_each(|line| take(line)),
        }
    }
}

/// What becomes of a run, or of a part of it.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The connection's name for the run.
    pub slot: u64,
    /// Place of the first entry answered in the run.
    pub offset: u64,
    /// How many entries are answered.
    pub count: u64,
    /// What became of them.
    pub outcome: Outcome,
}

/// What became of entries.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// In the log; the number is that of the first.
    Placed(Placed),
    /// Nowhere.
    Refused(Refusal),
}
