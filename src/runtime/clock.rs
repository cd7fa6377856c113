//! The node's clocks: monotonic time for decisions, wall time for information.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::types::Time;

/// Monotonic time since the node started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Clock { start: Instant::now() }
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO.after(self.start.elapsed())
    }

    /// When tokio is to wake us for `time`.
    pub(super) fn instant(&self, time: Time) -> Instant {
        // A moment so far away that it cannot be named is as good as a year.
        let offset = Duration::from_micros(time.micros()).min(Duration::from_secs(365 * 86_400));
        self.start + offset
    }
}

/// Milliseconds since 1970 by the wall clock; 0 if it stands before that.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
