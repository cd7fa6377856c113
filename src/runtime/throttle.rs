//! A log line about what strangers cause: at most so many, whatever they do.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets so many lines pass in each interval and counts the others.
#[derive(Debug)]
pub(super) struct Throttle {
    lines_max: u32,
    interval: Duration,
    // Held for an assignment; never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Throttle {
    pub(super) fn new(lines_max: u32, interval: Duration) -> Self {
        Throttle { lines_max, interval, state: Mutex::default() }
    }

    /// Whether a line may be written now; if so, how many were not since the last one.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.duration_since(began) >= self.interval) {
            (state.began, state.passed) = (Some(now), 0);
        }
        if state.passed >= self.lines_max {
            state.held_back += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_pass_in_each_interval_and_the_next_one_says_how_many_did_not() {
        let throttle = Throttle::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(throttle.pass(at(0)), Some(0));
        assert_eq!(throttle.pass(at(1)), Some(0));
        assert_eq!(throttle.pass(at(2)), None);
        assert_eq!(throttle.pass(at(999)), None);
        assert_eq!(throttle.pass(at(1000)), Some(2));
        assert_eq!(throttle.pass(at(1500)), Some(0));
        assert_eq!(throttle.pass(at(1999)), None);
        assert_eq!(throttle.pass(at(9000)), Some(1));
    }
}
