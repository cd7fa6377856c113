//! The server: reads what it is told, runs it until a signal, and ends with an exit code that
//! scripts can rely on.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use replog::config::{InspectConfig, Invocation, LogConfig};
use replog::descriptors;
use replog::inspect::Verdict;
use replog::limits::DESCRIPTORS_MIN;
use replog::logging;
use replog::runtime::{self, NodeError, Signals};
use replog::visible::{Shape, Spared};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Could not start or go on.
const FAILED: u8 = 1;
/// Wrong flags or configuration.
const USAGE: u8 = 2;
/// What was inspected is damaged.
const DAMAGED: u8 = 6;

fn main() -> ExitCode {
    match Invocation::read(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(Invocation::Node(config)) => {
            let (log, notes) = (config.log.clone(), config.notes.clone());
            run(&log, &notes, |stop| runtime::run_node(*config, stop))
        }
        Ok(Invocation::Dev(config)) => {
            let master = &config.nodes[0];
            let (log, notes) = (master.log.clone(), master.notes.clone());
            run(&log, &notes, |stop| runtime::run_dev(config, stop))
        }
        Ok(Invocation::Inspect(config)) => inspect(&config),
        Ok(Invocation::Print(text)) => print(&text),
        Err(error) => {
            if let Some(log) = error.log() {
                // The error itself is what the operator has to mend first.
                let _ = logging::init(log);
            }
            fail(USAGE, &error)
        }
    }
}

/// Runs `node` to its end. On one thread: one task owns the engine, and a hop to it from another
/// task of the same thread costs no system call.
fn run<F>(log: &LogConfig, notes: &[String], node: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), NodeError>>,
{
    let files = descriptors::prepare();
    if files < DESCRIPTORS_MIN {
        let error = format!(
            "this process may open {files} files and sockets, a node needs {DESCRIPTORS_MIN} at least: \
             allow it more (ulimit -n)"
        );
        return fail(FAILED, &error);
    }
    let tokio = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(tokio) => tokio,
        Err(error) => return fail(FAILED, &format_args!("cannot start the runtime: {error}")),
    };
    let outcome = tokio.block_on(async {
        // Before anything is written, even a log line, and before the node starts.
        let signals = match Signals::catch() {
            Ok(signals) => signals,
            Err(error) => return Err(anyhow::anyhow!("cannot listen for signals: {error}")),
        };
        logging::init(log)?;
        notes.iter().for_each(|note| info!("{note}"));
        let stop = CancellationToken::new();
        tokio::spawn(signals.attend(stop.clone()));
        Ok(node(stop).await)
    });
    // A name look-up or a disk that still hangs in a helper thread must not keep the process from
    // ending.
    tokio.shutdown_background();
    match outcome {
        Ok(Ok(())) => {
            logging::flush();
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => fail(error.exit_code(), &error),
        Err(error) => fail(FAILED, &format_args!("{error:#}")),
    }
}

fn inspect(config: &InspectConfig) -> ExitCode {
    let stdout = io::stdout().lock();
    let terminal = stdout.is_terminal();
    let mut out = io::BufWriter::new(stdout);
    let inspected = if terminal {
        let shape = if config.json { Shape::Json } else { Shape::Text };
        inspect_to(config, &mut Spared::new(out, shape))
    } else {
        inspect_to(config, &mut out)
    };
    match inspected {
        Ok(Verdict::Whole) => ExitCode::SUCCESS,
        Ok(Verdict::Damaged) => ExitCode::from(DAMAGED),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &format_args!("inspect {}: {error}", config.path.display())),
    }
}

fn inspect_to(config: &InspectConfig, out: &mut dyn Write) -> io::Result<Verdict> {
    let verdict = replog::inspect::inspect(config, out)?;
    out.flush()?;
    Ok(verdict)
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
    logging::last_word(code, error);
    ExitCode::from(code)
}
