//! Waiting for conditions, never for time.

use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. A bound for failure, not a measurement.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long one reply may take before the test fails.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls `probe` until it finds something; fails the test, saying `what` it waited for, when
/// [`DEADLINE`] passes first.
#[track_caller]
pub fn wait_until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain for: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}
