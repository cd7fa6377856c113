//! What the checker found, for people and machines.

use std::collections::BTreeMap;
use std::fmt;

/// The names of what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Answered OK or PENDING, and in no log, although a node that held it lost nothing.
    Lost,
    /// In the log twice, or two payloads under one number of a producer.
    Duplicate,
    /// In the log under another number or epoch than the answer said.
    Moved,
    /// In the log before an entry that was answered before it was sent, or against the order of
    /// its connection or producer.
    Reordered,
    /// Refused, or never sent, and there all the same.
    Resurrected,
    /// Answered OK although fewer nodes held it than asked for, or a node named did not.
    EarlyOk,
    /// A read showed more than its level allows, or what is not in the log.
    DirtyRead,
    /// A read at a level did not show what that level had to show by then.
    StaleRead,
    /// A later read on the same node showed less.
    NonMonotonicRead,
    /// Numbers are not dense.
    Hole,
    /// Epochs fall in the log.
    EpochFell,
    /// Two nodes' logs disagree about an entry.
    PrefixViolation,
    /// A node did not get everything although it had the time.
    NotConverged,
    /// An entry that nobody sent.
    Phantom,
    /// Not the bytes that were sent under this number.
    Corrupt,
    /// No answer until the end.
    Unanswered,
    /// An answer after its timeout and the slack.
    Late,
    /// The history contradicts itself, so that nothing can be concluded from this part of it.
    Unusable,
}

impl Kind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            Kind::Duplicate => "duplicate",
            Kind::Moved => "moved",
            Kind::Reordered => "reordered",
            Kind::Resurrected => "resurrected",
            Kind::EarlyOk => "early-ok",
            Kind::DirtyRead => "dirty-read",
            Kind::StaleRead => "stale-read",
            Kind::NonMonotonicRead => "non-monotonic-read",
            Kind::Hole => "hole",
            Kind::EpochFell => "epoch-fell",
            Kind::PrefixViolation => "prefix-violation",
            Kind::NotConverged => "not-converged",
            Kind::Phantom => "phantom",
            Kind::Corrupt => "corrupt",
            Kind::Unanswered => "unanswered",
            Kind::Late => "late",
            Kind::Unusable => "unusable",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// A sentence that names what is needed to look at it.
    pub detail: String,
}

/// So many findings of a kind are described; all are counted.
const DESCRIBED_MAX: u64 = 20;

/// What a history holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Appends by answer.
    pub answers: BTreeMap<&'static str, u64>,
    /// Reads.
    pub reads: u64,
    /// Entries that they showed.
    pub items: u64,
    /// Logs compared.
    pub dumps: u64,
    /// The longest log.
    pub max_seq: u64,
    /// Entries answered OK or PENDING that are gone with every node that held them.
    pub losses_allowed: u64,
    /// How many findings of each kind.
    pub counts: BTreeMap<Kind, u64>,
    /// The first findings of each kind, in the order in which they were found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// The kinds found.
    pub fn kinds(&self) -> Vec<Kind> {
        self.counts.keys().copied().collect()
    }

    pub(super) fn find(&mut self, kind: Kind, detail: impl FnOnce() -> String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= DESCRIBED_MAX {
            self.findings.push(Finding { kind, detail: detail() });
        }
    }

    /// The report as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let counts: serde_json::Map<_, _> = self
            .counts
            .iter()
            .map(|(kind, count)| (kind.name().to_owned(), (*count).into()))
            .collect();
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|found| serde_json::json!({"kind": found.kind.name(), "detail": found.detail}))
            .collect();
        serde_json::json!({
            "clean": self.is_clean(),
            "answers": self.answers,
            "reads": self.reads,
            "items": self.items,
            "dumps": self.dumps,
            "max_seq": self.max_seq,
            "losses_allowed": self.losses_allowed,
            "counts": counts,
            "findings": findings,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops: u64 = self.answers.values().sum();
        write!(f, "appends {ops}")?;
        for (answer, count) in &self.answers {
            write!(f, " {answer}={count}")?;
        }
        writeln!(f)?;
        writeln!(f, "reads {} entries shown {}", self.reads, self.items)?;
        writeln!(f, "logs {} longest {}", self.dumps, self.max_seq)?;
        if self.losses_allowed > 0 {
            writeln!(f, "gone with every node that held them: {}", self.losses_allowed)?;
        }
        if self.is_clean() {
            return writeln!(f, "clean: a correct log can have shown this");
        }
        for found in &self.findings {
            writeln!(f, "{}: {}", found.kind, found.detail)?;
        }
        for (kind, count) in &self.counts {
            if *count > DESCRIBED_MAX {
                writeln!(f, "{kind}: {} more", count - DESCRIBED_MAX)?;
            }
        }
        let counts: Vec<String> =
            self.counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "NOT CLEAN: {}", counts.join(", "))
    }
}
