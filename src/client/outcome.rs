//! What became of an append: the classes of `codes`, typed, and the reply line people see.

use std::fmt;

use bytes::BytesMut;

use crate::codes::{Class, Code};
use crate::gateway::reply;
use crate::types::{Epoch, NodeId, NodeSet, Seq};
use crate::wire::codec;

/// The answer to an append or a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The write concern is met.
    Ok(Placed),
    /// In the master's log, where it stays; the write concern is not met yet.
    Pending(Placed),
    /// The master lost its reign while the append waited: the entry may or may not survive.
    Unknown(Placed),
    /// Refused: this request appended nothing and never will.
    Refused(Refusal),
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its number.
    pub seq: Seq,
    /// The epoch that numbered it.
    pub epoch: Epoch,
    /// How many nodes were asked for.
    pub need: u16,
    /// Which nodes of the roster held it, at the level asked for, when the answer was made.
    pub holders: NodeSet,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code's number on the wire, which this version may not know.
    pub number: u16,
    /// `key=value` words and, behind ` - `, a sentence.
    pub detail: String,
}

impl AppendOutcome {
    /// The first word of the reply line.
    pub fn class(&self) -> Class {
        match self {
            AppendOutcome::Ok(_) => Class::Ok,
            AppendOutcome::Pending(_) => Class::Pending,
            AppendOutcome::Unknown(_) => Class::Unknown,
            AppendOutcome::Refused(refusal) => refusal.class(),
        }
    }

    /// Whether the entry is, or may be, in the log.
    pub fn maybe_applied(&self) -> bool {
        !matches!(self, AppendOutcome::Refused(_))
    }

    /// Whether the same append, sent again, may succeed and cannot make a second entry.
    pub fn is_retryable(&self) -> bool {
        matches!(self, AppendOutcome::Refused(refusal) if refusal.is_retryable())
    }

    /// Where the entry is, unless it was refused.
    pub fn placed(&self) -> Option<&Placed> {
        match self {
            AppendOutcome::Ok(placed)
            | AppendOutcome::Pending(placed)
            | AppendOutcome::Unknown(placed) => Some(placed),
            AppendOutcome::Refused(_) => None,
        }
    }

    /// The outcome of the entry `distance` places later in a run with this outcome.
    #[must_use]
    pub fn later(&self, distance: u64) -> AppendOutcome {
        let later = |placed: &Placed| Placed { seq: placed.seq.plus(distance), ..*placed };
        match self {
            AppendOutcome::Ok(placed) => AppendOutcome::Ok(later(placed)),
            AppendOutcome::Pending(placed) => AppendOutcome::Pending(later(placed)),
            AppendOutcome::Unknown(placed) => AppendOutcome::Unknown(later(placed)),
            AppendOutcome::Refused(refusal) => AppendOutcome::Refused(refusal.clone()),
        }
    }

    /// The reply line of the text gateway, without its line end. `roster` names the nodes, master
    /// first: see [`Client::roster`](super::Client::roster).
    pub fn reply_line<'a>(&'a self, roster: &'a [NodeId]) -> ReplyLine<'a> {
        ReplyLine { outcome: self, roster }
    }

    /// Writes the reply lines of `count` consecutive entries, with their line ends: this outcome's,
    /// and those of the [`later`](AppendOutcome::later) ones.
    pub fn write_reply_lines(&self, out: &mut BytesMut, count: u64, roster: &[NodeId]) {
        match self {
            AppendOutcome::Refused(refusal) => {
                let line = format!("{refusal}\n");
                (0..count).for_each(|_| out.extend_from_slice(line.as_bytes()));
            }
            AppendOutcome::Ok(placed)
            | AppendOutcome::Pending(placed)
            | AppendOutcome::Unknown(placed) => {
                let Placed { seq, epoch, need, holders } = *placed;
                let (class, need) = (self.class(), usize::from(need));
                let placed = reply::Placed { class, seq, epoch, need, holders };
                reply::write_placed(out, &placed, count, roster);
            }
        }
    }
}

impl From<codec::Outcome> for AppendOutcome {
    fn from(outcome: codec::Outcome) -> Self {
        match outcome {
            codec::Outcome::Ok(placed) => AppendOutcome::Ok(placed.into()),
            codec::Outcome::Pending(placed) => AppendOutcome::Pending(placed.into()),
            codec::Outcome::Unknown(placed) => AppendOutcome::Unknown(placed.into()),
            codec::Outcome::Refused(refusal) => AppendOutcome::Refused(refusal.into()),
        }
    }
}

impl From<codec::Placed> for Placed {
    fn from(placed: codec::Placed) -> Self {
        Placed {
            seq: Seq::new(placed.seq),
            epoch: Epoch::new(placed.epoch),
            need: placed.need,
            holders: NodeSet::from_bits(placed.holders),
        }
    }
}

impl From<codec::Refusal> for Refusal {
    fn from(refusal: codec::Refusal) -> Self {
        Refusal { number: refusal.code, detail: refusal.detail }
    }
}

impl Refusal {
    /// The code, if this version knows it.
    pub fn code(&self) -> Option<Code> {
        Code::from_number(self.number)
    }

    /// REJECTED or ERR; told by the number even of a code that this version does not know.
    pub fn class(&self) -> Class {
        if self.number < 100 { Class::Rejected } else { Class::Err }
    }

    /// Whether the same request may be granted later, here or by the master.
    pub fn is_retryable(&self) -> bool {
        use Code::{Busy, Damaged, DiskFull, NotMaster, NotReady, ReadOnly, Recovering, Stopping};
        matches!(
            self.code(),
            Some(
                ReadOnly | Busy | Recovering | Stopping | NotReady | DiskFull | Damaged | NotMaster
            )
        )
    }

    /// The value of `key` in the detail, unless it is missing or `-`.
    pub fn field(&self, key: &str) -> Option<&str> {
        self.detail
            .split(' ')
            .take_while(|word| *word != "-")
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .filter(|value| *value != "-")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code() {
            Some(code) => write!(f, "{} {code}", self.class()),
            None => write!(f, "{} code-{}", self.class(), self.number),
        }?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " {}", self.detail) }
    }
}

/// An [`AppendOutcome`] as the text gateway writes it.
#[derive(Clone, Copy, Debug)]
pub struct ReplyLine<'a> {
    outcome: &'a AppendOutcome,
    roster: &'a [NodeId],
}

impl fmt::Display for ReplyLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = BytesMut::new();
        self.outcome.write_reply_lines(&mut line, 1, self.roster);
        f.write_str(String::from_utf8_lossy(&line).trim_end_matches('\n'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Vec<NodeId> {
        ["master", "s1", "s2"].iter().map(|id| id.parse().unwrap()).collect()
    }

    fn placed(need: u16, holders: u128) -> Placed {
        let holders = NodeSet::from_bits(holders);
        Placed { seq: Seq::new(3), epoch: Epoch::new(1), need, holders }
    }

    #[test]
    fn reply_lines_are_those_of_the_interface() {
        let line = |outcome: AppendOutcome| outcome.reply_line(&roster()).to_string();
        assert_eq!(
            line(AppendOutcome::Ok(placed(2, 0b011))),
            "OK seq=3 epoch=1 have=2/3 need=2 by=master,s1"
        );
        assert_eq!(
            line(AppendOutcome::Pending(placed(3, 0b101))),
            "PENDING seq=3 epoch=1 have=2/3 need=3 by=master,s2 missing=s1"
        );
        let detail = "w=5 nodes=3 - w counts nodes: 1 to 3, majority or all";
        assert_eq!(
            line(AppendOutcome::Refused(Refusal { number: 2, detail: detail.to_owned() })),
            format!("REJECTED bad-write-concern {detail}")
        );
        let unknown = AppendOutcome::Unknown(placed(3, 1)).reply_line(&roster()).to_string();
        assert!(unknown.starts_with("UNKNOWN seq=3 epoch=1 have=1/3 need=3 by=master - "));
    }

    #[test]
    fn a_code_of_a_later_version_keeps_its_class() {
        let refusal = |number| Refusal { number, detail: "x=1".to_owned() };
        assert_eq!(refusal(99).to_string(), "REJECTED code-99 x=1");
        assert_eq!(refusal(999).to_string(), "ERR code-999 x=1");
        assert!(!refusal(99).is_retryable());
    }

    #[test]
    fn fields_of_a_refusal_end_where_its_sentence_begins() {
        let detail = "master=127.0.0.1:9000 - appends go to master=x".to_owned();
        let refusal = Refusal { number: 12, detail };
        assert_eq!(refusal.field("master"), Some("127.0.0.1:9000"));
        let refusal = Refusal { number: 12, detail: "master=- - appends go to x=1".to_owned() };
        assert_eq!(refusal.field("master"), None);
        assert_eq!(refusal.field("x"), None);
    }

    #[test]
    fn what_may_be_sent_again_was_refused() {
        let refused = |code: Code| {
            AppendOutcome::Refused(Refusal { number: code.number(), detail: "".into() })
        };
        assert!(refused(Code::ReadOnly).is_retryable());
        assert!(!refused(Code::TooLarge).is_retryable());
        assert!(!refused(Code::ReadOnly).maybe_applied());
        for outcome in [AppendOutcome::Pending(placed(3, 1)), AppendOutcome::Unknown(placed(3, 1))]
        {
            assert!(outcome.maybe_applied() && !outcome.is_retryable());
        }
    }
}
