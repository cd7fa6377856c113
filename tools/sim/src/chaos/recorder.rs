//! Where clients write down what they see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::history::{Ack, Answer, Dump, Event, History, Op, PayloadId, Read, What};

/// Payloads up to this length are kept as text.
const TEXT_BYTES_MAX: usize = 40;

/// The history while it happens. Times are microseconds since it began.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    clients: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    history: History,
    texts: Vec<String>,
}

/// How an append is sent.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The write concern as a number of nodes.
    pub need: u16,
    /// What counts.
    pub ack: Ack,
    /// The timeout in microseconds.
    pub timeout: Option<u64>,
}

impl Recorder {
    /// A history of these nodes that begins now.
    pub fn new(nodes: Vec<String>) -> Self {
        let mut state = State::default();
        state.history.cluster.nodes = nodes;
        Recorder { start: Instant::now(), clients: AtomicU64::new(0), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The number of a new connection.
    pub fn new_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// An append is about to be sent; its place in the history.
    pub fn sends(&self, client: u64, payload: &[u8], asked: Asked) -> usize {
        let mut state = self.state();
        if let (true, Ok(text)) = (payload.len() <= TEXT_BYTES_MAX, std::str::from_utf8(payload)) {
            state.texts.push(text.to_owned());
        }
        state.history.ops.push(Op {
            client,
            payload: PayloadId::of(payload),
            invoked: self.now(),
            completed: None,
            need: asked.need,
            ack: asked.ack,
            timeout: asked.timeout,
            producer: None,
            atomic: false,
            answer: Answer::Missing,
        });
        state.history.ops.len() - 1
    }

    /// What became of it.
    pub fn answered(&self, op: usize, answer: Answer) {
        let now = self.now();
        if let Some(op) = self.state().history.ops.get_mut(op) {
            (op.answer, op.completed) = (answer, Some(now));
        }
    }

    /// A read.
    pub fn read(&self, read: Read) {
        self.state().history.reads.push(read);
    }

    /// Something befell a node at `at`.
    pub fn event(&self, node: usize, at: u64, what: What) {
        self.state().history.events.push(Event { node, at, what });
    }

    /// The log of a node at the end.
    pub fn dump(&self, dump: Dump) {
        self.state().history.dumps.push(dump);
    }

    /// The history, and the payloads known as text.
    pub fn finish(self, slack: u64) -> (History, Vec<String>) {
        let end = self.now();
        let State { mut history, texts } =
            self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        (history.cluster.end, history.cluster.slack) = (end, Some(slack));
        (history, texts)
    }
}
