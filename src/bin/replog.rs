//! The server: reads what it is told, runs it until a signal, and ends with an exit code that
//! scripts can rely on.

use std::io::{self, Write};
use std::process::ExitCode;

use replog::config::{InspectConfig, Invocation, LogConfig};
use replog::inspect::Verdict;
use replog::logging::{self, complain};
use replog::runtime::{self, NodeError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Could not start or go on.
const FAILED: u8 = 1;
/// Wrong flags or configuration.
const USAGE: u8 = 2;
/// What was inspected is damaged.
const DAMAGED: u8 = 6;
/// What a shell reports of a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    match Invocation::read(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(Invocation::Node(config)) => {
            let log = config.log.clone();
            run(&log, |stop| runtime::run_node(*config, stop))
        }
        Ok(Invocation::Dev(config)) => {
            let log = config.nodes[0].log.clone();
            run(&log, |stop| runtime::run_dev(config, stop))
        }
        Ok(Invocation::Inspect(config)) => inspect(&config),
        Ok(Invocation::Print(text)) => print(&text),
        Err(error) => fail(USAGE, &error),
    }
}

/// Runs `node` to its end. On one thread: one task owns the engine, and a hop to it from another
/// task of the same thread costs no system call.
fn run<F>(log: &LogConfig, node: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), NodeError>>,
{
    if let Err(error) = logging::init(log) {
        return fail(FAILED, &format_args!("{error:#}"));
    }
    let tokio = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(tokio) => tokio,
        Err(error) => return fail(FAILED, &format_args!("cannot start the runtime: {error}")),
    };
    let outcome = tokio.block_on(async {
        let stop = CancellationToken::new();
        // Before the node starts, so that no signal finds it unprepared.
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => {
                tokio::spawn(stop_on_signal(terminate, interrupt, stop.clone()));
                Ok(node(stop).await)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    });
    // A name look-up that still hangs in a helper thread must not keep the process from ending.
    tokio.shutdown_background();
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(error.exit_code(), &error),
        Err(error) => fail(FAILED, &format_args!("cannot listen for signals: {error}")),
    }
}

/// The first SIGTERM or SIGINT asks for a clean stop; a SIGINT after it ends the process at once,
/// for a person who does not want to wait.
async fn stop_on_signal(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    interrupt.recv().await;
    std::process::exit(INTERRUPTED);
}

fn inspect(config: &InspectConfig) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match replog::inspect::inspect(config, &mut out) {
        Ok(Verdict::Whole) => ExitCode::SUCCESS,
        Ok(Verdict::Damaged) => ExitCode::from(DAMAGED),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &format_args!("inspect {}: {error}", config.path.display())),
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        // `replog --help | head -1` is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(FAILED, &format_args!("cannot write to stdout: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    complain(&format!("replog: {error}"));
    ExitCode::from(code)
}
