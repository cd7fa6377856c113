//! What happened in a run: always as a hash, and as readable lines when somebody wants to read them.

use std::cell::RefCell;

thread_local! {
    /// The lines of the run on this thread: a panic in the engine must not lose them.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The trace of one run.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    keeps_lines: bool,
}

impl Trace {
    /// A trace that keeps lines, or only the hash.
    pub fn new(keeps_lines: bool) -> Self {
        LINES.set(keeps_lines.then(Vec::new));
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, keeps_lines }
    }

    /// Whether lines are kept: then their words are worth making.
    pub fn keeps_lines(&self) -> bool {
        self.keeps_lines
    }

    /// Something happened.
    pub fn note(&mut self, now: u64, node: u64, word: &'static str, numbers: [u64; 2]) {
        self.events += 1;
        for byte in word.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        for number in [now, node, numbers[0], numbers[1]] {
            self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
    }

    /// The same for people.
    pub fn line(&self, now: u64, who: &str, word: &str, what: &str) {
        let line =
            format!("{:>4}.{:06}  {who:<4} {word:<10} {what}", now / 1_000_000, now % 1_000_000);
        LINES.with_borrow_mut(|lines| lines.get_or_insert_default().push(line));
    }

    /// One number for all that happened.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How much happened.
    pub fn events(&self) -> u64 {
        self.events
    }
}

/// The lines kept on this thread since the last trace was made.
pub fn take_lines() -> Vec<String> {
    LINES
        .with(|lines| lines.try_borrow_mut().ok().and_then(|mut lines| lines.take()))
        .unwrap_or_default()
}
