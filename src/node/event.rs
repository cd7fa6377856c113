//! What happened in a node, for whoever counts it or watches over it. Nothing depends on it.

use crate::codes::{Code, NackCode, RefuseCode};
use crate::engine::{Answer, Effect, Refused, Token};
use crate::types::{Epoch, NodeIndex, Seq, SeqRange};

/// See the module. In the order in which it happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An append got these numbers.
    Numbered {
        /// Who waits for it.
        token: Token,
        /// Its entries.
        range: SeqRange,
    },
    /// Somebody waits for an entry.
    Waits {
        /// Who.
        token: Token,
        /// For which one.
        seq: Seq,
    },
    /// An append or a wait was refused.
    Refused {
        /// Whose.
        token: Token,
        /// How many entries.
        count: u64,
        /// Why.
        refused: Refused,
        /// How its client is told.
        code: Code,
    },
    /// An append or a wait was answered.
    Answered(Answer),
    /// Entries were written into the log.
    Written(SeqRange),
    /// The engine decided something that is only told.
    Decided(Effect),
    /// Entries are on their way to a secondary.
    Sent {
        /// To whom.
        to: NodeIndex,
        /// What was to be sent.
        asked: SeqRange,
        /// What was.
        sent: SeqRange,
        /// Bytes of it.
        bytes: usize,
        /// It was sent before.
        again: bool,
    },
    /// What must not be forgotten was kept, or could not be.
    Kept {
        /// The epoch it is of.
        epoch: Epoch,
        /// Whether it was.
        done: bool,
    },
    /// Entries from this one on were moved out of the log.
    SetAside {
        /// The first.
        from: Seq,
    },
    /// Entries that were asked for came from a secondary and were taken.
    Adopted(SeqRange),
    /// Entries came from a peer and are in the log in place of damaged ones.
    Repaired(SeqRange),
    /// They could not be.
    NotRepaired(SeqRange),
    /// A connection to a peer was refused or closed for what it said.
    Turned(RefuseCode),
    /// A run arrived from the master.
    Arrived(SeqRange),
    /// A run that continues the log was appended.
    Appended {
        /// Its entries.
        range: SeqRange,
        /// Entries by hand that were equal.
        duplicates: u64,
        /// Entries by hand that were not.
        aside: u64,
    },
    /// A run came early and is held back.
    Held(SeqRange),
    /// A run that was held back has come into its place; without room it was dropped there.
    Released {
        /// Its entries.
        range: SeqRange,
        /// It was appended.
        taken: bool,
    },
    /// What came as records is none.
    BadRecords {
        /// Where they were to begin.
        first: Seq,
    },
    /// The master was told that something was not taken.
    Nacked {
        /// The entry.
        seq: Seq,
        /// Why.
        code: NackCode,
    },
    /// The master was told what is here.
    Acked {
        /// Stored up to.
        stored: Seq,
        /// Received up to.
        received: Seq,
    },
    /// A fault verb was played on a frame.
    FaultPlayed {
        /// Before it was handled; else after.
        before: bool,
    },
    /// A frame of a connection that ended came to its time.
    TooLate,
    /// Where the logs part was judged.
    Aligned {
        /// The last common entry by the master.
        last: Seq,
        /// Whether the log could be brought there.
        agreed: bool,
    },
    /// A master is answered what is here.
    Introduced {
        /// The epoch promised.
        epoch: Epoch,
        /// What is stored.
        stored: Seq,
    },
}
