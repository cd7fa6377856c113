//! Searching for a violation from several starting points, as `tools/sim/sabotage` does with each of its
//! deliberate bugs: how many seeds does it take?

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plan::Plan;
use crate::runner::Runner;

/// What the searches found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// Seeds played until a rule was violated, for each start; `None`: none was.
    pub seeds: Vec<Option<u64>>,
    /// Which rules, and in how many searches.
    pub rules: BTreeMap<String, u64>,
}

/// Searches from so many starts, a million apart, with at most so many seeds from each.
pub fn search(first: u64, starts: u64, most: u64) -> Found {
    let mut found = Found::default();
    for start in 0..starts {
        let mut runner = Runner::new();
        let first = first + start * 1_000_000;
        let violated = (0..most).find_map(|offset| {
            let violation = runner.play(&Plan::draw(first + offset), false).outcome.violation?;
            Some((offset + 1, violation))
        });
        if let Some((_, violation)) = &violated {
            *found.rules.entry(violation.rule.clone()).or_default() += 1;
        }
        found.seeds.push(violated.map(|(seeds, _)| seeds));
    }
    found
}
