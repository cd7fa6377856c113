//! Room for requests that have not arrived whole: so much for all connections of a node together,
//! and for so long.
//!
//! A line or frame is kept until its end comes, and may be as long as the largest payload. So that
//! a crowd of clients who never finish what they begin costs neither memory without bound nor
//! patience without end, whoever has sent more than a little of a request is read on only once there
//! is room for all of it, in the order of asking, and must then finish it in time: soon if he sends
//! nothing while others wait. All of it at once: with a part each, nobody might ever finish. Nothing
//! is allocated for it: memory grows with what arrives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::throttle::Throttle;
use crate::limits::{UNFINISHED_BYTES_MAX, UNFINISHED_BYTES_PER_SECOND, UNFINISHED_GRACE};
use crate::node::session::Unfinished;

/// How long so many bytes may take.
fn time_of(bytes: usize) -> Duration {
    Duration::from_secs((bytes / UNFINISHED_BYTES_PER_SECOND) as u64) // A frame has less than 4 GiB.
}

/// The room that all connections of a node share.
#[derive(Debug)]
pub(super) struct SharedRoom {
    /// Permits are bytes.
    permits: Arc<Semaphore>,
    /// Connections that wait for some.
    waiting: AtomicUsize,
    told: Throttle,
}

impl SharedRoom {
    pub(super) fn new() -> Arc<Self> {
        Self::of(UNFINISHED_BYTES_MAX)
    }

    fn of(bytes: usize) -> Arc<Self> {
        Arc::new(SharedRoom {
            permits: Arc::new(Semaphore::new(bytes)),
            waiting: AtomicUsize::new(0),
            told: Throttle::new(1, Duration::from_secs(10)),
        })
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// Counts a connection that waits for room.
struct Waits(Arc<SharedRoom>);

impl Waits {
    fn begin(shared: &Arc<SharedRoom>) -> Self {
        let waiting = shared.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        if shared.told.pass(std::time::Instant::now()).is_some() {
            warn!(
                waiting,
                "clients wait to send long requests: those that others began and did not finish take up all the room"
            );
        }
        Waits(shared.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

enum State {
    None,
    /// It waits for its turn.
    Asking {
        of: Unfinished,
        asking: Asking,
        _waits: Waits,
    },
    Held {
        of: Unfinished,
        /// How much of it had arrived when it got room.
        before: usize,
        since: Instant,
        /// When something of it last came.
        came_at: Instant,
        _permit: OwnedSemaphorePermit,
    },
}

/// The room that one connection has or waits for.
pub(super) struct Room {
    shared: Arc<SharedRoom>,
    grace: Duration,
    state: State,
}

impl Room {
    /// A connection that shares `shared`. Each request has `grace`, and as long as its bytes take
    /// beside it.
    pub(super) fn new(shared: Arc<SharedRoom>, grace: Duration) -> Self {
        Room { shared, grace, state: State::None }
    }

    /// Says what has arrived in part; room for what is finished is given back. Returns whether more of
    /// it may be read.
    pub(super) fn of(&mut self, unfinished: Option<Unfinished>) -> bool {
        let Some(wanted) = unfinished else {
            self.state = State::None;
            return true;
        };
        match &mut self.state {
            State::Held { of, came_at, .. } if of.is_same(&wanted) => {
                if of.arrived != wanted.arrived {
                    *came_at = Instant::now();
                }
                *of = wanted;
                return true;
            }
            State::Asking { of, .. } if of.is_same(&wanted) => return false,
            _ => {}
        }
        self.state = State::None;
        let bytes = u32::try_from(wanted.bytes).unwrap_or(u32::MAX);
        let permits = self.shared.permits.clone();
        if let Ok(permit) = permits.clone().try_acquire_many_owned(bytes) {
            self.state = held(wanted, permit);
            return true;
        }
        let asking = Box::pin(permits.acquire_many_owned(bytes));
        self.state = State::Asking { of: wanted, asking, _waits: Waits::begin(&self.shared) };
        false
    }

    /// How long the request that has room has had it.
    pub(super) fn held_for(&self) -> Duration {
        match &self.state {
            State::Held { since, .. } => since.elapsed(),
            State::None | State::Asking { .. } => Duration::ZERO,
        }
    }

    /// Comes back with `true` when there is room for what waited for it, and with `false` when what
    /// has room was not finished in time, which is short for those who send nothing while others
    /// wait. Cancel-safe.
    pub(super) async fn changed(&mut self) -> bool {
        /// Others may begin to wait at any time.
        const LOOK: Duration = Duration::from_millis(500);
        match &mut self.state {
            State::None => std::future::pending().await,
            State::Held { of, before, since, came_at, .. } => loop {
                let came = of.arrived.saturating_sub(*before);
                let soon = UNFINISHED_GRACE.min(self.grace);
                let due = match self.shared.is_wanted() {
                    // What came in one go buys no time to say nothing afterwards.
                    true => (*since + soon + time_of(came)).min(*came_at + soon),
                    false => *since + self.grace + time_of(of.bytes),
                };
                let now = Instant::now();
                if due <= now {
                    return false;
                }
                sleep_until(due.min(now + LOOK)).await;
            },
            State::Asking { of, asking, .. } => {
                let of = *of;
                // The semaphore is never closed, and has as many permits as the longest request.
                let Ok(permit) = asking.await else { return false };
                self.state = held(of, permit);
                true
            }
        }
    }
}

fn held(of: Unfinished, permit: OwnedSemaphorePermit) -> State {
    let now = Instant::now();
    State::Held { of, before: of.arrived, since: now, came_at: now, _permit: permit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::UNFINISHED_FREE_BYTES;

    const ALL: usize = 1000;
    const GRACE: Duration = Duration::from_secs(10);

    fn request(number: u64, bytes: usize) -> Option<Unfinished> {
        Unfinished::new(number, UNFINISHED_FREE_BYTES + 1, bytes)
    }

    fn rooms() -> [Room; 3] {
        let shared = SharedRoom::of(ALL);
        [(); 3].map(|()| Room::new(shared.clone(), GRACE))
    }

    async fn still_waits(room: &mut Room) -> bool {
        tokio::time::timeout(Duration::ZERO, room.changed()).await.is_err()
    }

    #[test]
    fn a_little_of_a_request_needs_no_room() {
        assert!(Unfinished::new(0, UNFINISHED_FREE_BYTES, 1 << 20).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_is_read_on_when_another_is_done() {
        let [mut first, mut second, mut third] = rooms();
        assert!(first.of(request(0, 600)) && first.of(request(0, 600)), "it is asked for once");
        assert!(!second.of(request(0, 600)));
        assert!(still_waits(&mut second).await);
        assert!(
            !third.of(request(0, 400)),
            "who came earlier goes first, even if this one would fit"
        );
        assert!(first.of(None), "its request is whole");
        assert!(second.changed().await && third.changed().await);
        assert!(second.of(request(0, 600)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_not_finished_in_time_gives_its_room_up_to_others() {
        let [mut first, mut second, _] = rooms();
        assert!(first.of(request(0, ALL)));
        assert!(!first.changed().await, "its time is over");
        assert!(first.held_for() >= GRACE);
        assert!(!second.of(request(0, ALL)));
        drop(first);
        assert!(second.changed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_while_others_wait_goes_soon_and_who_sends_stays() {
        let [mut idle, mut sending, mut waits] = rooms();
        let begun = Instant::now();
        let mut arrived = UNFINISHED_FREE_BYTES + 1;
        assert!(idle.of(request(0, ALL / 2)));
        assert!(sending.of(Unfinished::new(0, arrived, ALL / 2)));
        assert!(!waits.of(request(0, ALL / 2)));
        assert!(still_waits(&mut waits).await);
        assert!(!idle.changed().await);
        assert!(begun.elapsed() <= 2 * UNFINISHED_GRACE, "it need not wait for its whole time");
        for _ in 0..20 {
            arrived += UNFINISHED_BYTES_PER_SECOND;
            assert!(sending.of(Unfinished::new(0, arrived, ALL / 2)));
            assert!(still_waits(&mut sending).await, "it has sent as fast as it must");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(idle);
        assert!(waits.changed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_in_one_go_buys_no_time_to_be_silent() {
        let [mut burst, mut waits, _] = rooms();
        let begun = Instant::now();
        assert!(burst.of(request(0, ALL)));
        let much = UNFINISHED_FREE_BYTES + 100 * UNFINISHED_BYTES_PER_SECOND;
        assert!(burst.of(Unfinished::new(0, much, ALL)));
        assert!(!waits.of(request(0, ALL)));
        assert!(still_waits(&mut waits).await);
        assert!(!burst.changed().await);
        assert!(begun.elapsed() <= 2 * UNFINISHED_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_has_its_own_time() {
        let [mut room, ..] = rooms();
        for number in 0..10 {
            assert!(room.of(request(number, ALL)));
            tokio::time::sleep(GRACE - Duration::from_millis(1)).await;
            assert!(still_waits(&mut room).await, "request {number} has time left");
        }
    }
}
