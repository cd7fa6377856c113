//! `replog-sim`: plays clusters from seeds, in virtual time, and checks that the rules hold.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use argh::FromArgs;
use replog::types::parse_duration;
use replog_sim::plan::{Plan, disks, play_disks};
use replog_sim::power;
use replog_sim::report::{Totals, failure};
use replog_sim::runner::{Played, Runner};
use replog_sim::shrink::{Budget, shrink};
use replog_sim::world::Violation;

/// Plays replog clusters in virtual time, each from one seed, and checks that the rules hold.
#[derive(FromArgs)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Run(Run),
    Ci(Ci),
    Replay(Replay),
    Shrink(Shrink),
    Search(Search),
}

/// Play many seeds.
#[derive(FromArgs)]
#[argh(subcommand, name = "run")]
struct Run {
    /// let masters start again, and keep half of the logs on disks that lose, tear, flip, fill and fail
    #[argh(switch)]
    disk: bool,
    /// how many seeds (1000)
    #[argh(option)]
    seeds: Option<u64>,
    /// the first seed (1)
    #[argh(option, default = "1")]
    from: u64,
    /// stop after so long, such as 5m
    #[argh(option)]
    time: Option<String>,
    /// threads (1)
    #[argh(option, default = "1")]
    jobs: usize,
    /// append one line of JSON with the results to this file
    #[argh(option)]
    record: Option<PathBuf>,
    /// go on after a failure, and list the seeds that fail
    #[argh(switch)]
    all: bool,
}

/// Play fixed seeds, then fresh ones, without disks and with them.
#[derive(FromArgs)]
#[argh(subcommand, name = "ci")]
struct Ci {
    /// fixed seeds, from 1 on (2000)
    #[argh(option, default = "2000")]
    fixed: u64,
    /// fresh seeds (8000)
    #[argh(option, default = "8000")]
    fresh: u64,
    /// first fresh seed (drawn from the clock, and printed)
    #[argh(option)]
    from: Option<u64>,
    /// threads (1)
    #[argh(option, default = "1")]
    jobs: usize,
    /// append one line of JSON with the results to this file
    #[argh(option)]
    record: Option<PathBuf>,
}

/// Play one seed, or a plan from a file.
#[derive(FromArgs)]
#[argh(subcommand, name = "replay")]
struct Replay {
    /// let masters start again, and keep half of the logs on disks that lose, tear, flip, fill and fail
    #[argh(switch)]
    disk: bool,
    /// the seed
    #[argh(positional)]
    seed: Option<u64>,
    /// a plan that `shrink` wrote
    #[argh(option)]
    plan: Option<PathBuf>,
    /// print every event
    #[argh(switch)]
    trace: bool,
    /// print the plan
    #[argh(switch)]
    show: bool,
}

/// Make a failing seed small.
#[derive(FromArgs)]
#[argh(subcommand, name = "shrink")]
struct Shrink {
    /// let masters start again, and keep half of the logs on disks that lose, tear, flip, fill and fail
    #[argh(switch)]
    disk: bool,
    /// the seed
    #[argh(positional)]
    seed: u64,
    /// where to write the small plan
    #[argh(option)]
    out: Option<PathBuf>,
    /// how long to try (60s)
    #[argh(option, default = "String::from(\"60s\")")]
    time: String,
}

/// Search for a violation from several starting points, and say in JSON how many seeds each took.
#[derive(FromArgs)]
#[argh(subcommand, name = "search")]
struct Search {
    /// let masters start again, and keep half of the logs on disks that lose, tear, flip, fill and fail
    #[argh(switch)]
    disk: bool,
    /// the first starting point (1)
    #[argh(option, default = "1")]
    first: u64,
    /// starting points, a million seeds apart (5)
    #[argh(option, default = "5")]
    starts: u64,
    /// seeds to try at most from each (3000)
    #[argh(option, default = "3000")]
    seeds: u64,
}

fn main() -> ExitCode {
    let Arguments { command } = argh::from_env();
    let disk = match &command {
        Command::Run(run) => run.disk,
        Command::Replay(replay) => replay.disk,
        Command::Shrink(shrink) => shrink.disk,
        Command::Search(search) => search.disk,
        Command::Ci(_) => false,
    };
    play_disks(disk);
    let good = match command {
        Command::Run(run) => many(&run),
        Command::Ci(ci) => continuous(&ci),
        Command::Replay(replay) => again(&replay),
        Command::Shrink(shrink) => smaller(&shrink),
        Command::Search(search) => {
            serde_json::to_string(&power::search(search.first, search.starts, search.seeds))
                .map(|found| println!("{found}"))
                .map(|()| true)
                .map_err(anyhow::Error::from)
        }
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("replog-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn many(run: &Run) -> anyhow::Result<bool> {
    let time = run.time.as_deref().map(duration).transpose()?;
    let seeds = run.seeds.or_else(|| time.is_none().then_some(1000));
    let began = Instant::now();
    let (totals, failed) = play_many(run.from, seeds, time, run.jobs, run.all);
    let good = conclude(&totals, run.from, began.elapsed(), run.record.as_deref())?;
    if run.all && !failed.is_empty() {
        let listed = failed.iter().map(|(seed, violation)| format!("  {seed}  {}", violation.rule));
        println!("failed:\n{}", listed.collect::<Vec<_>>().join("\n"));
    } else if let Some((seed, violation)) = failed.first() {
        explain(*seed, violation)?;
    }
    Ok(good && failed.is_empty())
}

/// First without disks, then with them.
fn continuous(ci: &Ci) -> anyhow::Result<bool> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let fresh = ci.from.unwrap_or(now.as_secs() * 1_000_000);
    for disk in [false, true] {
        play_disks(disk);
        if !one_pass(ci, fresh)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn one_pass(ci: &Ci, fresh: u64) -> anyhow::Result<bool> {
    let with = if disks() { "with disks" } else { "without disks" };
    println!("{with}: fixed seeds 1 to {}, then {} fresh ones from {fresh}", ci.fixed, ci.fresh);
    let began = Instant::now();
    let (mut totals, mut failed) = play_many(1, Some(ci.fixed), None, ci.jobs, false);
    if failed.is_empty() {
        let (more, more_failed) = play_many(fresh, Some(ci.fresh), None, ci.jobs, false);
        totals.seeds += more.seeds;
        totals.liveness += more.liveness;
        totals.failed += more.failed;
        totals.stats.add(&more.stats);
        totals.seen.add(&more.seen);
        failed = more_failed;
    }
    let good = conclude(&totals, fresh, began.elapsed(), ci.record.as_deref())?;
    if let Some((seed, violation)) = failed.first() {
        explain(*seed, violation)?;
    }
    Ok(good && failed.is_empty())
}

/// Plays seeds from `from` on until there are enough, the time is over, or one fails.
fn play_many(
    from: u64,
    seeds: Option<u64>,
    time: Option<Duration>,
    jobs: usize,
    all: bool,
) -> (Totals, Vec<(u64, Violation)>) {
    let began = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let result = Mutex::new((Totals::default(), Vec::new()));
    let work = || {
        let mut runner = Runner::new();
        while !stop.load(Ordering::Relaxed) {
            let offset = next.fetch_add(1, Ordering::Relaxed);
            let over = time.is_some_and(|time| began.elapsed() >= time);
            if over || seeds.is_some_and(|seeds| offset >= seeds) {
                return;
            }
            let plan = Plan::draw(from + offset);
            let Played { outcome, .. } = runner.play(&plan, false);
            // A poisoned lock means that another thread's bug already ends the program.
            let mut result = result.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            result.0.add(&plan, &outcome);
            if let Some(violation) = outcome.violation {
                result.1.push((plan.seed, violation));
                stop.store(!all, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let (totals, mut failed) =
        result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failed.sort_by_key(|(seed, _)| *seed);
    (totals, failed)
}

/// Prints and records what was seen; false if something never was that should have been.
fn conclude(
    totals: &Totals,
    from: u64,
    took: Duration,
    record: Option<&std::path::Path>,
) -> anyhow::Result<bool> {
    println!("{}\n{}", totals.text(took), totals.sometimes());
    if let Some(path) = record {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let file = file.as_mut().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        writeln!(file, "{}", totals.json(from, took))?;
    }
    let never = totals.never();
    if never.is_empty() || totals.failed > 0 {
        return Ok(true);
    }
    println!("never seen in {} seeds:", totals.seeds);
    never.iter().for_each(|what| println!("  {what}"));
    Ok(false)
}

/// Makes a failing seed small and prints it.
fn explain(seed: u64, violation: &Violation) -> anyhow::Result<()> {
    let mut runner = Runner::new();
    let plan = Plan::draw(seed);
    let small = shrink(&mut runner, &plan, &violation.rule, Budget::default());
    let path = std::env::temp_dir().join(format!("replog-sim-{seed}.json"));
    std::fs::write(&path, serde_json::to_string_pretty(&small)?)?;
    show(&mut runner, &small, violation, &path)?;
    let disk = if disks() { " --disk" } else { "" };
    println!("the whole of it: {} replay{disk} {seed} --trace", command());
    Ok(())
}

fn show(
    runner: &mut Runner,
    plan: &Plan,
    violation: &Violation,
    path: &std::path::Path,
) -> anyhow::Result<()> {
    let played = runner.play(plan, true);
    let violation = played.outcome.violation.as_ref().unwrap_or(violation);
    let replay = format!("{} replay --plan {}", command(), path.display());
    println!("{}", failure(plan, violation, &played, &replay));
    Ok(())
}

fn command() -> &'static str {
    "cargo run --release -p replog-sim --"
}

fn again(replay: &Replay) -> anyhow::Result<bool> {
    let plan = match (&replay.seed, &replay.plan) {
        (Some(seed), None) => Plan::draw(*seed),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            serde_json::from_str(&text).with_context(|| path.display().to_string())?
        }
        _ => bail!("name a seed, or a plan with --plan FILE"),
    };
    if replay.show {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    }
    let played = Runner::new().play(&plan, replay.trace);
    // Whoever reads only the beginning has seen enough.
    let mut out = std::io::stdout().lock();
    for line in &played.lines {
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    let _ = writeln!(out, "seed {} hash {:016x}", plan.seed, played.outcome.hash);
    if let Some(violation) = &played.outcome.violation {
        let _ = writeln!(out, "VIOLATION\n  rule  {}\n  seen  {}", violation.rule, violation.seen);
    }
    Ok(played.outcome.violation.is_none())
}

fn smaller(arguments: &Shrink) -> anyhow::Result<bool> {
    let mut runner = Runner::new();
    let plan = Plan::draw(arguments.seed);
    let Some(violation) = runner.play(&plan, false).outcome.violation else {
        println!("seed {} violates nothing", arguments.seed);
        return Ok(true);
    };
    let budget = Budget { attempts: 5000, time: duration(&arguments.time)? };
    let small = shrink(&mut runner, &plan, &violation.rule, budget);
    let path = arguments.out.clone();
    let path = path.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("replog-sim-{}.json", arguments.seed))
    });
    std::fs::write(&path, serde_json::to_string_pretty(&small)?)?;
    show(&mut runner, &small, &violation, &path)?;
    Ok(false)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    parse_duration(text).map_err(|error| anyhow::anyhow!("{text}: {error}"))
}
