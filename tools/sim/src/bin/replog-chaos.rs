//! `replog-chaos`: real processes, treated badly, and a judgement of what their clients saw.
//!
//! Exit codes: 0 clean, 1 findings (the history is kept), 2 wrong usage or no cluster.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use argh::FromArgs;
use replog_sim::chaos::{Outcome, Settings, Trouble, run, schedule};

/// Runs a cluster of real processes through faults drawn from a seed, and checks what clients saw.
#[derive(FromArgs)]
struct Arguments {
    /// how long there is trouble (60)
    #[argh(option, default = "60")]
    seconds: u64,
    /// what the faults are drawn from; by default a new one each time
    #[argh(option)]
    seed: Option<u64>,
    /// how many nodes, master included: 1 to 9 (3)
    #[argh(option, default = "3")]
    nodes: usize,
    /// the replog binary; by default REPLOG_BIN, or the one beside this program
    #[argh(option)]
    binary: Option<PathBuf>,
    /// where logs and history go; by default a temporary directory, kept only with findings
    #[argh(option)]
    output: Option<PathBuf>,
    /// keep the logs on disk, below the output directory, and kill the master too
    #[argh(switch)]
    disk: bool,
    /// so many kills of nodes drawn at random, instead of the usual kills and pauses; with --disk the
    /// master is among them
    #[argh(option)]
    kills: Option<u32>,
    /// within so many seconds after the last node was started or healed all logs must be equal (60)
    #[argh(option, default = "60")]
    equal_within: u64,
    /// only print the faults of this seed
    #[argh(switch)]
    schedule: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&["replog-chaos"], words.get(1..).unwrap_or(&[])) {
        Ok(arguments) if (1..=9).contains(&arguments.nodes) => arguments,
        Ok(_) => {
            eprintln!("replog-chaos: --nodes: allowed is 1 to 9");
            return ExitCode::from(2);
        }
        Err(early) if early.status.is_ok() => {
            print!("{}", early.output);
            return ExitCode::SUCCESS;
        }
        Err(early) => {
            eprint!("{}", early.output);
            return ExitCode::from(2);
        }
    };
    match work(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("replog-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn work(arguments: &Arguments) -> Result<bool> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(clock.as_nanos() as u64 & 0xffff_ffff);
    let (nodes, length) = (arguments.nodes, Duration::from_secs(arguments.seconds));
    let trouble = Trouble { nodes, length, disk: arguments.disk, kills: arguments.kills };
    let store = if arguments.disk { "disk" } else { "memory" };
    println!("seed {seed} nodes {nodes} seconds {} store {store}", arguments.seconds);
    if arguments.schedule {
        for step in schedule::schedule(seed, trouble) {
            println!("{:7.3} s  {}", step.at.as_secs_f64(), step.act);
        }
        return Ok(true);
    }
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => match std::env::var_os("REPLOG_BIN") {
            Some(binary) => binary.into(),
            None => std::env::current_exe()?.with_file_name("replog"),
        },
    };
    let directory = arguments.output.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("replog-chaos-{}", std::process::id()))
    });
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let equal_within = Duration::from_secs(arguments.equal_within);
    let settings = Settings { binary, trouble, seed, directory: directory.clone(), equal_within };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut stdout = std::io::stdout();
    let outcome = runtime.block_on(run(&settings, |line| {
        // A reader of our output who went away changes nothing.
        let _ = writeln!(stdout, "{line}");
    }))?;
    show(&outcome, seed);
    if outcome.is_clean() && arguments.output.is_none() {
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(outcome.is_clean())
}

fn show(outcome: &Outcome, seed: u64) {
    print!("{}", outcome.report);
    for strange in &outcome.strange {
        println!("strange: {strange}");
    }
    match outcome.converged {
        Some(after) => println!("all logs equal after {:.3} s", after.as_secs_f64()),
        None => println!("the logs never became equal"),
    }
    println!("longest time without an OK: {:.3} s", outcome.longest_outage.as_secs_f64());
    if !outcome.is_clean() {
        println!("NOT CLEAN: seed {seed}; the history is {}", outcome.history.display());
    }
}
