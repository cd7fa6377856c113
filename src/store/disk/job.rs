//! Work on files that takes its time: one piece at a time, in a thread of its own or when it is told to.
//!
//! A job is a value that has all it needs. It changes no state of the log: what came of it is taken, and put
//! in its place, by the one task that owns the log.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::DiskEvent;
use super::segments::Notify;

/// A job with the outcome `T`.
type Job<T> = Box<dyn FnOnce() -> T + Send>;

enum State<T> {
    Idle,
    /// It is begun by whoever carries the log.
    Waiting(Job<T>),
    Working(Receiver<T>, JoinHandle<()>),
    Done(T),
}

/// See the module.
pub(super) struct Jobs<T> {
    state: State<T>,
    notify: Notify,
    /// No thread: [`Jobs::work`] is called instead.
    manual: bool,
}

impl<T: Send + 'static> Jobs<T> {
    pub(super) fn new(notify: Notify, manual: bool) -> Self {
        Jobs { state: State::Idle, notify, manual }
    }

    /// Whether there is a job whose outcome was not taken.
    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Whether one was begun that waits to be told.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// Begins a job. The notifier says when it is over.
    pub(super) fn begin(&mut self, job: impl FnOnce() -> T + Send + 'static) {
        assert!(!self.is_busy(), "BUG: two jobs at once");
        let job: Job<T> = Box::new(job);
        self.state = if self.manual { State::Waiting(job) } else { self.start(job) };
    }

    fn start(&self, job: Job<T>) -> State<T> {
        let (give, take) = sync_channel(1);
        let notify = self.notify.clone();
        // Handed over behind the start, so that it is not lost with a thread that the system refuses.
        let (hand, handed) = sync_channel::<Job<T>>(1);
        let work = move || {
            if let Ok(job) = handed.recv() {
                // Whoever asked for it takes it, or is gone.
                let _ = give.send(job());
                notify(DiskEvent::JobDone);
            }
        };
        match std::thread::Builder::new().name("replog-files".to_owned()).spawn(work) {
            Ok(thread) => {
                // The thread waits for it.
                let _ = hand.send(job);
                State::Working(take, thread)
            }
            // Late is better than never.
            Err(_) => {
                let done = job();
                (self.notify)(DiskEvent::JobDone);
                State::Done(done)
            }
        }
    }

    /// Does what waits to be told, in the caller's thread.
    pub(super) fn work(&mut self) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(job) => {
                self.state = State::Done(job());
                (self.notify)(DiskEvent::JobDone);
            }
            other => self.state = other,
        }
    }

    /// What came of it, once it is over.
    pub(super) fn take_done(&mut self) -> Option<T> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Done(done) => Some(done),
            State::Working(done, thread) => match done.try_recv() {
                Ok(done) => Some(joined(thread, Some(done))),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => Some(joined(thread, None)),
                Err(std::sync::mpsc::TryRecvError::Empty) => {
                    self.state = State::Working(done, thread);
                    None
                }
            },
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Waits for it, or does it now.
    pub(super) fn wait(&mut self) -> Option<T> {
        self.work();
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Working(done, thread) => {
                let done = done.recv().ok();
                Some(joined(thread, done))
            }
            State::Done(done) => Some(done),
            State::Idle | State::Waiting(_) => None,
        }
    }
}

/// What a thread gave before it ended; its panic if it gave nothing.
fn joined<T>(thread: JoinHandle<()>, done: Option<T>) -> T {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
    done.expect("BUG: a job ended without an outcome")
}

/// Nobody may use the files before the job has let go of them.
impl<T> Drop for Jobs<T> {
    fn drop(&mut self) {
        if let State::Working(_, thread) = std::mem::replace(&mut self.state, State::Idle) {
            // A panic of the thread was printed by its hook and ends the process in release.
            let _ = thread.join();
        }
    }
}
