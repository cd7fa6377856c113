//! Plays plans on a thread of their own, and survives a failed assertion of the product.
//!
//! The release build ends the process at a panic, as it should for the product. So the panic hook does
//! not return: it hands over what was seen and parks its thread for ever, and another thread plays the
//! next plan. What a parked thread holds stays allocated; failures are few.

use std::cell::RefCell;
use std::sync::Once;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::plan::Plan;
use crate::sometimes::Seen;
use crate::trace::take_lines;
use crate::world::{Outcome, Stats, Violation, play};

/// A plan that was played.
#[derive(Clone, Debug)]
pub struct Played {
    /// How it ended.
    pub outcome: Outcome,
    /// The trace, if it was asked for.
    pub lines: Vec<String>,
}

/// A thread that plays plans.
#[derive(Debug)]
pub struct Runner {
    plans: Sender<(Plan, bool)>,
    results: Receiver<Played>,
}

thread_local! {
    static RESULTS: RefCell<Option<Sender<Played>>> = const { RefCell::new(None) };
}

impl Default for Runner {
    fn default() -> Self {
        Runner::new()
    }
}

impl Runner {
    /// A thread that waits for plans.
    pub fn new() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(catch_assertions);
        let (plans, to_play) = channel::<(Plan, bool)>();
        let (played, results) = channel();
        std::thread::spawn(move || {
            RESULTS.set(Some(played.clone()));
            for (plan, keeps_lines) in to_play {
                let outcome = play(&plan, keeps_lines);
                if played.send(Played { outcome, lines: take_lines() }).is_err() {
                    return;
                }
            }
        });
        Runner { plans, results }
    }

    /// Plays a plan.
    ///
    /// # Panics
    /// If the thread ended without a word, which it never does.
    pub fn play(&mut self, plan: &Plan, keeps_lines: bool) -> Played {
        self.plans.send((plan.clone(), keeps_lines)).expect("a runner's thread waits for plans");
        let played = self.results.recv().expect("a runner's thread answers each plan");
        let asserted =
            played.outcome.violation.as_ref().is_some_and(|v| v.rule.starts_with(ASSERTION));
        if asserted {
            *self = Runner::new();
        }
        played
    }
}

/// How the rule of a failed assertion begins.
const ASSERTION: &str = "assertion at ";

fn catch_assertions() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let Some(results) = RESULTS.with(|results| results.take()) else { return before(panic) };
        let place = panic.location().map_or_else(String::new, |at| {
            let file = at.file().rsplit_once("src/").map_or(at.file(), |(_, file)| file);
            format!("{file}:{}", at.line())
        });
        let words = panic.payload();
        let text = words.downcast_ref::<String>().cloned();
        let text = text.or_else(|| words.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_else(|| "a panic without words".to_owned());
        let violation = Some(Violation { rule: format!("{ASSERTION}{place}"), seen: text });
        let (stats, seen) = (Stats::default(), Seen::default());
        let outcome = Outcome { violation, stats, seen, hash: 0 };
        // Whoever waited for this is gone only if the program ends.
        let _ = results.send(Played { outcome, lines: take_lines() });
        loop {
            std::thread::park();
        }
    }));
}
