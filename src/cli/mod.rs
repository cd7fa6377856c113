//! What `replog-cli` does: reads the command line, asks the nodes through [`crate::client`], and
//! says by output and exit code what became of it.
//!
//! Data goes to stdout, everything else to stderr. `words` and `arguments` read the command line.
//! `hints` says what was meant by what cannot be understood. `append`, `list`, `tail`, `status`,
//! `verify` and `gateway` carry out the verbs: `source`, `progress` and `advice` serve `append`,
//! `servers` is the order in which servers are asked and what is said of silent ones, `nodes` asks
//! several nodes at once, `overview` and `watch` are what `status` shows. `interrupt` hears signals
//! and `keyboard` keys. `fields` takes reply lines apart; `output` and `json` write, and `terminal` knows what a terminal
//! can show and must not be sent.

mod advice;
mod append;
mod arguments;
mod fields;
mod gateway;
mod hints;
mod interrupt;
mod json;
mod keyboard;
mod list;
mod nodes;
mod output;
mod overview;
mod progress;
mod request;
mod servers;
mod source;
mod status;
mod tail;
mod terminal;
mod verify;
mod watch;
mod words;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::client::{CommandError, ConnectError, ConnectOptions, ConnectionLost, ReadError};
use crate::codes::Class;
use crate::visible::visible;
use arguments::{Command, Early, Invocation};
use interrupt::{Interrupts, Signal};
use request::Reply;

/// What the arguments are, for completions and manual pages.
#[doc(hidden)]
pub fn argument_table() -> argh::CommandInfoWithArgs {
    arguments::table()
}

/// How it ended, as the exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// All that was asked is done.
    Done,
    /// REJECTED or ERR: nothing happened.
    Refused,
    /// Wrong usage: nothing was sent.
    Usage,
    /// UNKNOWN, or the connection was lost after something was sent.
    Unknown,
    /// PENDING.
    Pending,
    /// No server reachable: nothing was sent.
    Unreachable,
    /// `verify` found a difference.
    Different,
    /// A signal ended it before all was done, and nothing is left in doubt.
    Interrupted(Signal),
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Usage => 2,
            Exit::Unknown => 3,
            Exit::Pending => 4,
            Exit::Unreachable => 5,
            Exit::Different => 6,
            Exit::Interrupted(signal) => signal.code(),
        }
    }

    fn of_class(class: Class) -> Exit {
        match class {
            Class::Ok => Exit::Done,
            Class::Pending => Exit::Pending,
            Class::Rejected | Class::Err => Exit::Refused,
            Class::Unknown => Exit::Unknown,
        }
    }

    fn of_lost(lost: &ConnectionLost) -> Exit {
        if lost.sent { Exit::Unknown } else { Exit::Unreachable }
    }

    /// Of several ends the one that matters most.
    fn worst(self, other: Exit) -> Exit {
        let weight = |exit| match exit {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Pending => 2,
            Exit::Unreachable => 3,
            Exit::Interrupted(_) => 4,
            Exit::Unknown => 5,
            Exit::Different => 6,
            Exit::Usage => 7,
        };
        if weight(self) >= weight(other) { self } else { other }
    }
}

/// Runs the program with these arguments (without its name) and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let exit = match arguments::parse(args, |name| std::env::var(name).ok()) {
        Ok(invocation) => carry_out(invocation),
        Err(Early::Text(text)) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => Exit::Done,
            Err(error) => output::failure(&error),
        },
        Err(Early::Usage(message)) => {
            complain(message);
            complain("Run replog-cli --help for more information.");
            Exit::Usage
        }
    };
    ExitCode::from(exit.code())
}

fn carry_out(invocation: Invocation) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return Exit::Unreachable;
        }
    };
    let exit = runtime.block_on(async {
        let Invocation { servers, output, quiet, command } = invocation;
        let mut interrupts = listen(&command);
        match command {
            Command::Append { options, parts } => {
                append::append(&servers, options, parts, output, quiet, &mut interrupts).await
            }
            Command::List(list) => list::list(&servers, &list).await,
            Command::Tail { count, follow: false, level, form } => {
                tail::last(&servers, count, level, form).await
            }
            Command::Tail { count, follow: true, level, form } => {
                tail::follow(&servers, count, level, form, &mut interrupts).await
            }
            Command::Status(shown) => {
                status::status(&servers, shown, output, &mut interrupts).await
            }
            Command::Verify { patience } => verify::verify(&servers, patience, output).await,
            Command::Gateway { line, reply: reply @ Reply::Wait { seq } } => tokio::select! {
                exit = gateway::ask(&servers, &line, reply, output) => exit,
                signal = interrupts.first() => {
                    complain(format_args!(
                        "interrupted: only the waiting has ended; entry {seq}, if it is in the log, \
                         stays, and its replication goes on"
                    ));
                    Exit::Interrupted(signal)
                }
            },
            Command::Gateway { line, reply } => gateway::ask(&servers, &line, reply, output).await,
        }
    });
    // A name that is still being looked up must not keep the program.
    runtime.shutdown_background();
    exit
}

/// Listens for signals where a verb has something to say or to put in order when one comes. The
/// others end by it, as programs do.
fn listen(command: &Command) -> Interrupts {
    let on_second = match command {
        // Entries may be on their way.
        Command::Append { .. } => Exit::Unknown.code(),
        Command::Tail { follow: true, .. }
        | Command::Status(request::Status { watch: true, .. })
        | Command::Gateway { reply: Reply::Wait { .. }, .. } => Signal::Interrupt.code(),
        _ => return Interrupts::never(),
    };
    Interrupts::listen(on_second).unwrap_or_else(|error| {
        complain(format_args!("cannot listen for signals: {error}"));
        Interrupts::never()
    })
}

/// Says something on stderr.
fn complain(message: impl std::fmt::Display) {
    to_stderr(format!("{message}\n").as_bytes());
}

/// Writes messages to stderr; on a terminal, without what would steer it.
fn to_stderr(bytes: &[u8]) {
    if std::io::stderr().is_terminal() {
        write_stderr(&visible(bytes));
    } else {
        write_stderr(bytes);
    }
}

/// Writes to stderr. If nobody listens there, nothing can be done about it.
#[cfg(not(test))]
fn write_stderr(bytes: &[u8]) {
    let _ = std::io::stderr().write_all(bytes);
}

/// Writes where the test harness keeps it.
#[cfg(test)]
fn write_stderr(bytes: &[u8]) {
    eprint!("{}", String::from_utf8_lossy(bytes));
}

fn connect_options() -> ConnectOptions {
    ConnectOptions { name: "replog-cli".to_owned(), ..ConnectOptions::default() }
}

fn unreachable(error: &ConnectError) -> Exit {
    complain(format_args!("no server reachable, nothing was sent: {error}"));
    Exit::Unreachable
}

fn lost(lost: &ConnectionLost) -> Exit {
    complain(lost);
    Exit::of_lost(lost)
}

fn command_failed(error: &CommandError) -> Exit {
    match error {
        CommandError::Lost(connection) => lost(connection),
        CommandError::LineTooLong { .. } | CommandError::NotOneLine => {
            complain(error);
            Exit::Usage
        }
        CommandError::ReplyTooLong { .. } => {
            complain(error);
            Exit::Unknown
        }
    }
}

fn read_failed(error: &ReadError) -> Exit {
    match error {
        ReadError::Lost(connection) => lost(connection),
        ReadError::Refused(_) | ReadError::BadRecord(_) => {
            complain(error);
            Exit::Refused
        }
    }
}

#[cfg(test)]
mod tests;
