//! What the process does when it gets a signal. Caught before anything else is begun, so that none
//! finds the process unprepared.
//!
//! | signal | what it does |
//! |---|---|
//! | TERM | a clean stop, also during the start; once more changes nothing |
//! | INT | a clean stop; once more ends the process at once, for a person who does not want to wait |
//! | HUP | opens the log file anew; where a terminal hung up: a clean stop |
//! | USR1, USR2 | nothing but a log line: supervisors send them to programs that they do not know |
//! | XFSZ | nothing: the write that was too long fails, as on a full disk |
//!
//! HUP, USR1 and USR2 stay ignored where whoever started the process had them ignored (`nohup`). PIPE
//! is ignored by the standard library.

use std::io;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal as Number;
use rustix::termios::{isatty, tcgetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::service_manager;
use crate::logging;
use crate::signals::Ignored;

/// What a shell reports of a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// A wrapper that passes Ctrl-C on makes two of one: for so long they are one.
const SAME_INTERRUPT: Duration = Duration::from_millis(500);

/// The signals of this process, caught.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    user1: Option<Signal>,
    user2: Option<Signal>,
    /// Held so that it stays caught.
    _file_size: Signal,
    terminal: Terminal,
}

impl Signals {
    /// Catches them from now on. To be called inside a runtime, once.
    ///
    /// # Errors
    /// The system refused.
    pub fn catch() -> io::Result<Self> {
        let catch = |number: Number| signal(SignalKind::from_raw(number.as_raw()));
        let ignored = Ignored::now();
        let unless_ignored = |number: Number| {
            (!ignored.contains(number.as_raw())).then(|| catch(number)).transpose()
        };
        Ok(Signals {
            _file_size: catch(Number::XFSZ)?,
            terminate: catch(Number::TERM)?,
            interrupt: catch(Number::INT)?,
            hangup: unless_ignored(Number::HUP)?,
            user1: unless_ignored(Number::USR1)?,
            user2: unless_ignored(Number::USR2)?,
            terminal: Terminal::now(),
        })
    }

    /// Does what each signal asks for, until the process ends.
    pub async fn attend(mut self, stop: CancellationToken) {
        while !self.asks_for_a_stop().await {}
        let asked = Instant::now();
        service_manager::stopping();
        stop.cancel();
        while self.interrupt.recv().await.is_some() {
            if asked.elapsed() > SAME_INTERRUPT {
                let reason = "interrupted again while it stopped, so it ends at once";
                logging::last_word(INTERRUPTED, &reason);
                std::process::exit(INTERRUPTED.into());
            }
        }
    }

    /// Waits for a signal and does what it asks for, unless that is to stop.
    async fn asks_for_a_stop(&mut self) -> bool {
        let unused = tokio::select! {
            _ = self.terminate.recv() => return true,
            _ = self.interrupt.recv() => return true,
            () = next(&mut self.hangup) => return self.terminal_is_gone(),
            () = next(&mut self.user1) => "USR1",
            () = next(&mut self.user2) => "USR2",
        };
        info!(signal = unused, "a signal that a node has no use for was ignored");
        false
    }

    /// HUP: the terminal hung up, or somebody moved the log file.
    fn terminal_is_gone(&self) -> bool {
        if self.terminal.hung_up() {
            info!("the terminal hung up, so the node stops");
            return true;
        }
        // What is to be read anew on this occasion is read here.
        if !logging::reopen_file() {
            info!(signal = "HUP", "there is no log.file to be opened anew");
        }
        false
    }
}

/// Never comes back for a signal that stays ignored.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The terminal that the process was started on, if it was.
#[derive(Clone, Copy, Debug)]
struct Terminal {
    controls: bool,
    is_stdin: bool,
    is_stderr: bool,
}

impl Terminal {
    fn now() -> Self {
        Terminal {
            controls: controlling_terminal_is_there(),
            is_stdin: isatty(io::stdin()),
            is_stderr: isatty(io::stderr()),
        }
    }

    /// Whether it was there and is not any more.
    fn hung_up(self) -> bool {
        self.controls && !controlling_terminal_is_there()
            || self.is_stdin && tcgetattr(io::stdin()).is_err_and(|error| error == Errno::IO)
            || self.is_stderr && tcgetattr(io::stderr()).is_err_and(|error| error == Errno::IO)
    }
}

fn controlling_terminal_is_there() -> bool {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).is_ok()
}
