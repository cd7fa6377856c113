//! Whether the simulator can see: with each deliberate bug of [`replog::sabotage`] switched on, one at a
//! time, some rule must be violated within so many seeds. What is measured goes into a table.

use std::path::Path;

#[cfg(feature = "sabotage")]
use std::fmt::Write as _;

#[cfg(feature = "sabotage")]
use replog::sabotage::{Bug, set};

#[cfg(feature = "sabotage")]
use crate::{
    plan::{Plan, play_disks},
    runner::Runner,
};

/// Seeds at which the search begins: five searches for each bug.
#[cfg(feature = "sabotage")]
const STARTS: [u64; 5] = [1, 1_000_001, 2_000_001, 3_000_001, 4_000_001];

/// A bug that is not found within so many seeds from each start is not found.
#[cfg(feature = "sabotage")]
const SEEDS_MAX: u64 = 3000;

/// Needs the feature `sabotage`.
///
/// # Errors
/// Always: this build has no bugs to switch on.
#[cfg(not(feature = "sabotage"))]
pub fn prove(_: Option<&str>, _: Option<u64>, _: Option<&Path>) -> anyhow::Result<bool> {
    anyhow::bail!(
        "this build has no deliberate bugs: \
         cargo run --release -p replog-sim --features sabotage -- sabotage"
    )
}

/// Whether a bug can only be seen where masters start again, or logs are on disks.
#[cfg(feature = "sabotage")]
fn needs_disks(bug: Bug) -> bool {
    matches!(
        bug,
        Bug::AckBeforeSync
            | Bug::SyncSkipped
            | Bug::PromiseNotKept
            | Bug::VouchesThoughEmpty
            | Bug::VouchesTooEarly
            | Bug::UnledCommitBelieved
            | Bug::AdoptsShorter
            | Bug::LeadsWithTooFew
            | Bug::CountsUnsure
            | Bug::AlignsTooFar
            | Bug::EpochNotRaised
            | Bug::AnswersCommitIgnored
            | Bug::CutsAnyBad
            | Bug::DamageServed
    )
}

/// What the searches for one bug found.
#[cfg(feature = "sabotage")]
struct Row {
    bug: Bug,
    /// Seeds played until the bug was found, per start; `None`: not found.
    seeds: Vec<Option<u64>>,
    rules: std::collections::BTreeMap<String, u64>,
}

/// Searches for one bug, or for all, and writes the table. Returns whether all were found.
///
/// # Errors
/// There is no such bug, or the table cannot be written.
#[cfg(feature = "sabotage")]
pub fn prove(name: Option<&str>, seeds: Option<u64>, table: Option<&Path>) -> anyhow::Result<bool> {
    let bugs: Vec<Bug> = match name {
        None => Bug::ALL.to_vec(),
        Some(name) => match Bug::ALL.iter().find(|bug| bug.word() == name) {
            Some(&bug) => vec![bug],
            None => {
                let known: Vec<_> = Bug::ALL.iter().map(|bug| bug.word()).collect();
                anyhow::bail!("no such bug: {name}; known: {}", known.join(", "))
            }
        },
    };
    let most = seeds.unwrap_or(SEEDS_MAX);
    let mut rows = Vec::new();
    for bug in bugs {
        let row = search(bug, most);
        println!("{:<22} {}", bug.word(), summary(&row));
        rows.push(row);
    }
    let text = markdown(&rows, most);
    let path = table.unwrap_or(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/SABOTAGE.md")));
    if name.is_none() || table.is_some() {
        std::fs::write(path, text)?;
        println!("written to {}", path.display());
    }
    let missed: Vec<_> =
        rows.iter().filter(|row| row.seeds.contains(&None)).map(|row| row.bug.word()).collect();
    if !missed.is_empty() {
        println!("not found within {most} seeds from every start: {}", missed.join(", "));
    }
    Ok(missed.is_empty())
}

#[cfg(feature = "sabotage")]
fn search(bug: Bug, most: u64) -> Row {
    let mut rules = std::collections::BTreeMap::new();
    set(Some(bug));
    play_disks(needs_disks(bug));
    let seeds = STARTS
        .iter()
        .map(|start| {
            let mut runner = Runner::new();
            for offset in 0..most {
                let played = runner.play(&Plan::draw(start + offset), false);
                if let Some(violation) = played.outcome.violation {
                    *rules.entry(violation.rule).or_default() += 1;
                    return Some(offset + 1);
                }
            }
            None
        })
        .collect();
    set(None);
    play_disks(false);
    Row { bug, seeds, rules }
}

#[cfg(feature = "sabotage")]
fn summary(row: &Row) -> String {
    let mut found: Vec<u64> =
        row.seeds.iter().copied().map(|seeds| seeds.unwrap_or(u64::MAX)).collect();
    found.sort_unstable();
    let shown = |seeds: u64| if seeds == u64::MAX { "never".to_owned() } else { seeds.to_string() };
    let (median, worst) = (shown(found[found.len() / 2]), shown(found[found.len() - 1]));
    let rules: Vec<_> = row.rules.iter().map(|(rule, count)| format!("{rule} ({count})")).collect();
    format!("median {median:>5}  worst {worst:>5}  {}", rules.join("; "))
}

#[cfg(feature = "sabotage")]
fn markdown(rows: &[Row], most: u64) -> String {
    let mut text = format!(
        "# What the simulator finds\n\n\
         Written by `cargo run --release -p replog-sim --features sabotage -- sabotage`; measured, not edited. Each row is\n\
         a deliberate bug of `src/sabotage.rs`, searched for from {} starting points with at most {most} seeds from each:\n\
         how many seeds were played until a rule was violated, and which rule it was, with the number of searches. Those with\n\
         a star were searched for with masters that start again and with disks (`--disk`).\n\n\
         | bug | what it does | median | worst | found by |\n|---|---|---|---|---|\n",
        STARTS.len()
    );
    for row in rows {
        let mut found: Vec<u64> =
            row.seeds.iter().copied().map(|seeds| seeds.unwrap_or(u64::MAX)).collect();
        found.sort_unstable();
        let shown =
            |seeds: u64| if seeds == u64::MAX { "never".to_owned() } else { seeds.to_string() };
        let rules: Vec<_> =
            row.rules.iter().map(|(rule, count)| format!("{rule} ({count})")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| `{}`{} | {} | {} | {} | {} |",
            row.bug.word(),
            if needs_disks(row.bug) { " *" } else { "" },
            row.bug.text(),
            shown(found[found.len() / 2]),
            shown(found[found.len() - 1]),
            rules.join("; ")
        );
    }
    text
}
