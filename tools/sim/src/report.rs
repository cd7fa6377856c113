//! What many runs came to, and what a failure looks like.

use std::fmt::Write as _;
use std::time::Duration;

use crate::plan::{Fault, Plan};
use crate::runner::Played;
use crate::sometimes::{Seen, Sometimes};
use crate::world::{Outcome, Stats, Violation};

/// Trace lines shown of a failure: the last so many.
const LINES_SHOWN: usize = 400;

/// The sum of many runs.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Of them with the end of faults and the check that all becomes well.
    pub liveness: u64,
    /// What they came to.
    pub stats: Stats,
    /// In how many of them each rare thing was seen.
    pub seen: Seen,
    /// Runs that violated a rule.
    pub failed: u64,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, plan: &Plan, outcome: &Outcome) {
        self.seeds += 1;
        self.liveness += u64::from(plan.setup.liveness);
        self.failed += u64::from(outcome.violation.is_some());
        self.stats.add(&outcome.stats);
        self.seen.add(&outcome.seen);
    }

    /// What was never seen and should have been, after so many runs.
    pub fn never(&self) -> Vec<&'static str> {
        let unseen =
            |what: &&Sometimes| self.seen.count(**what) == 0 && self.seeds >= what.seeds_to_see();
        Sometimes::ALL.iter().filter(unseen).map(|what| what.text()).collect()
    }

    /// For people.
    pub fn text(&self, took: Duration) -> String {
        let stats = &self.stats;
        let simulated = stats.simulated_us as f64 / 1e6;
        let wall = took.as_secs_f64().max(1e-9);
        let mut text = String::new();
        let mut line = |words: String| {
            text.push_str(&words);
            text.push('\n');
        };
        line(format!(
            "seeds       {} ({} with all healed at the end), {} failed",
            self.seeds, self.liveness, self.failed
        ));
        line(format!(
            "time        {simulated:.0} s simulated in {wall:.1} s: {:.0} times as fast, {:.1} M events/s",
            simulated / wall,
            stats.events as f64 / wall / 1e6
        ));
        line(format!(
            "appends     {} entries; answers: {} OK, {} PENDING, {} UNKNOWN, {} refused",
            stats.appended, stats.ok, stats.pending, stats.unknown, stats.refused
        ));
        line(format!("asked       {} waits, {} reads", stats.waits, stats.reads));
        let faults =
            Fault::KINDS.iter().zip(stats.faults).map(|(kind, count)| format!("{kind} {count}"));
        line(format!("faults      {}", faults.collect::<Vec<_>>().join(", ")));
        text
    }

    /// In how many runs each rare thing was seen.
    pub fn sometimes(&self) -> String {
        let mut text = String::from("seen in so many runs:\n");
        for what in Sometimes::ALL {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:>9}  {}", self.seen.count(*what), what.text());
        }
        text
    }

    /// For a file of results.
    pub fn json(&self, from: u64, took: Duration) -> String {
        let faults: serde_json::Map<String, serde_json::Value> = Fault::KINDS
            .iter()
            .zip(self.stats.faults)
            .map(|(kind, count)| ((*kind).to_owned(), count.into()))
            .collect();
        serde_json::json!({
            "instrument": "replog-sim",
            "disks": crate::plan::disks(),
            "from": from,
            "seeds": self.seeds,
            "liveness": self.liveness,
            "failed": self.failed,
            "simulated_s": self.stats.simulated_us / 1_000_000,
            "wall_s": took.as_secs_f64(),
            "events": self.stats.events,
            "appended": self.stats.appended,
            "ok": self.stats.ok,
            "pending": self.stats.pending,
            "unknown": self.stats.unknown,
            "refused": self.stats.refused,
            "reads": self.stats.reads,
            "faults": faults,
            "never": self.never(),
        })
        .to_string()
    }
}

/// A failure: what was violated, how it came to it, and how to see it again.
pub fn failure(plan: &Plan, violation: &Violation, played: &Played, replay: &str) -> String {
    let mut text = format!(
        "seed {}: VIOLATION\n  rule  {}\n  seen  {}\n",
        plan.seed, violation.rule, violation.seen
    );
    let setup = &plan.setup;
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "  plan  {} nodes, quorum {}, {} clients, {} operations, {} faults{}",
        setup.nodes,
        setup.quorum,
        setup.clients,
        plan.operations.len(),
        plan.faults.len(),
        if setup.liveness { ", healed at the end" } else { "" },
    );
    let _ = writeln!(text, "  again {replay}\n");
    let skipped = played.lines.len().saturating_sub(LINES_SHOWN);
    if skipped > 0 {
        let _ = writeln!(text, "  ({skipped} earlier lines: replay with --trace)");
    }
    played.lines.iter().skip(skipped).for_each(|line| {
        let _ = writeln!(text, "  {line}");
    });
    text
}
