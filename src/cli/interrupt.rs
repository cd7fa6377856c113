//! SIGINT and SIGTERM where there is something to say before the end.

use std::io;
use std::process::exit;
use std::sync::mpsc;
use std::thread;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::watch;

use super::keyboard::give_back;
use crate::signals::Ignored;

/// What asked the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// The exit code by which shells tell that a program was ended by it.
    pub(super) fn code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

/// The signals that came. The first is for the program to answer, the second ends it at once.
///
/// A thread of its own listens, so that the second is heard even while the main thread is blocked:
/// in writing to somebody who does not read.
#[derive(Debug)]
pub(super) struct Interrupts {
    first: watch::Receiver<Option<Signal>>,
}

impl Interrupts {
    /// Listens from now on; `code` is what the second signal exits with.
    ///
    /// # Errors
    /// The system gives no thread or no handler.
    pub(super) fn listen(code: u8) -> io::Result<Self> {
        let (first_sender, first) = watch::channel(None);
        let (ready_sender, ready) = mpsc::sync_channel(1);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let (runtime, mut heard) = match Heard::install() {
                Ok(installed) => installed,
                Err(error) => {
                    // Whoever started us waits for this.
                    let _ = ready_sender.send(Err(error));
                    return;
                }
            };
            let _ = ready_sender.send(Ok(()));
            runtime.block_on(async {
                first_sender.send_replace(Some(heard.next().await));
                heard.next().await;
                give_back();
                exit(i32::from(code));
            });
        })?;
        let thread_gone = || Err(io::Error::other("the thread for signals ended"));
        ready.recv().unwrap_or_else(|_| thread_gone())?;
        Ok(Interrupts::of(first))
    }

    /// None ever comes: the program ends by signals as any other does.
    pub(super) fn never() -> Self {
        Interrupts::of(watch::channel(None).1)
    }

    fn of(first: watch::Receiver<Option<Signal>>) -> Self {
        Interrupts { first }
    }

    /// What a test sends takes the place of signals.
    #[cfg(test)]
    pub(super) fn sent_by_test() -> (watch::Sender<Option<Signal>>, Self) {
        let (sender, first) = watch::channel(None);
        (sender, Interrupts::of(first))
    }

    /// The first signal, once it has come. Cancel safe.
    pub(super) async fn first(&mut self) -> Signal {
        match self.first.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(signal)) => *signal,
            // Its thread ends with the program only.
            _ => std::future::pending().await,
        }
    }
}

/// The two signals, unless whoever started us had them ignored.
struct Heard {
    interrupt: Option<Stream>,
    terminate: Option<Stream>,
}

impl Heard {
    fn install() -> io::Result<(Runtime, Self)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let ignored = Ignored::now();
        let hear = |kind: SignalKind| {
            (!ignored.contains(kind.as_raw_value())).then(|| signal(kind)).transpose()
        };
        let interrupt = hear(SignalKind::interrupt())?;
        let terminate = hear(SignalKind::terminate())?;
        drop(entered);
        Ok((runtime, Heard { interrupt, terminate }))
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            () = received(&mut self.interrupt) => Signal::Interrupt,
            () = received(&mut self.terminate) => Signal::Terminate,
        }
    }
}

/// Until the signal comes; for ever if nobody listens for it. Cancel safe.
pub(super) async fn received(stream: &mut Option<Stream>) {
    let received = match stream {
        Some(stream) => stream.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending::<()>().await;
    }
}
