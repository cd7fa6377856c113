//! Room for requests that have not arrived whole: so much for all connections of a node together,
//! and for so long.
//!
//! A line or frame is kept until its end comes, and may be as long as the largest payload. So that
//! a crowd of clients who never finish what they begin costs neither memory without bound nor
//! patience without end, whoever has sent more than a little of a request is read on only once there
//! is room for all of it, in the order of asking, and must then finish it in time. All of it at
//! once: with a part each, nobody might ever finish. Nothing is allocated for it: memory grows with
//! what arrives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::limits::{UNFINISHED_BYTES_PER_SECOND, UNFINISHED_FREE_BYTES};

/// A request of which a part has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// How many requests of this connection were whole before it.
    request: u64,
    /// How long it will be at most.
    bytes: usize,
}

impl Unfinished {
    /// A request of which so many bytes have `arrived`, and which will have at most `bytes`; `None`
    /// if that is little enough to need no room.
    pub(super) fn new(request: u64, arrived: usize, bytes: usize) -> Option<Self> {
        (arrived > UNFINISHED_FREE_BYTES).then_some(Unfinished { request, bytes })
    }

    /// How long it may take once there is room for it, `grace` included.
    pub(super) fn time(&self, grace: Duration) -> Duration {
        let seconds = self.bytes / UNFINISHED_BYTES_PER_SECOND;
        grace + Duration::from_secs(seconds as u64) // A frame has less than 4 GiB.
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

enum State {
    None,
    /// It waits for its turn.
    Asking(Unfinished, Asking),
    Held {
        of: Unfinished,
        _permit: OwnedSemaphorePermit,
        until: Instant,
    },
}

/// The room that one connection has or waits for.
pub(super) struct Room {
    of_all: Arc<Semaphore>,
    grace: Duration,
    state: State,
}

impl Room {
    /// A connection that shares `of_all`, whose permits are bytes. Each request has `grace`, and as
    /// long as its bytes take beside it.
    pub(super) fn new(of_all: Arc<Semaphore>, grace: Duration) -> Self {
        Room { of_all, grace, state: State::None }
    }

    /// Says what has arrived in part; room for what is finished is given back. Returns whether more of
    /// it may be read.
    pub(super) fn of(&mut self, unfinished: Option<Unfinished>) -> bool {
        let Some(wanted) = unfinished else {
            self.state = State::None;
            return true;
        };
        match &self.state {
            State::Held { of, .. } if *of == wanted => return true,
            State::Asking(of, _) if *of == wanted => return false,
            _ => {}
        }
        self.state = State::None;
        let bytes = u32::try_from(wanted.bytes).unwrap_or(u32::MAX);
        if let Ok(permit) = self.of_all.clone().try_acquire_many_owned(bytes) {
            self.state = self.held(wanted, permit);
            return true;
        }
        let asking = self.of_all.clone().acquire_many_owned(bytes);
        self.state = State::Asking(wanted, Box::pin(asking));
        false
    }

    fn held(&self, of: Unfinished, permit: OwnedSemaphorePermit) -> State {
        State::Held { of, _permit: permit, until: Instant::now() + of.time(self.grace) }
    }

    /// Comes back with `true` when there is room for what waited for it, and with `false` when what
    /// has room was not finished in time. Cancel-safe.
    pub(super) async fn changed(&mut self) -> bool {
        match &mut self.state {
            State::None => std::future::pending().await,
            State::Held { until, .. } => {
                sleep_until(*until).await;
                false
            }
            State::Asking(of, asking) => {
                let of = *of;
                // The semaphore is never closed, and has as many permits as the longest request.
                let Ok(permit) = asking.await else { return false };
                self.state = self.held(of, permit);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = 1000;
    const GRACE: Duration = Duration::from_secs(10);

    fn request(number: u64, bytes: usize) -> Option<Unfinished> {
        Unfinished::new(number, UNFINISHED_FREE_BYTES + 1, bytes)
    }

    fn rooms() -> [Room; 3] {
        let of_all = Arc::new(Semaphore::new(ALL));
        [(); 3].map(|()| Room::new(of_all.clone(), GRACE))
    }

    #[test]
    fn a_little_of_a_request_needs_no_room() {
        assert_eq!(Unfinished::new(0, UNFINISHED_FREE_BYTES, 1 << 20), None);
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
        assert!(!second.of(request(0, ALL)));
        assert!(!first.changed().await, "its time is over");
        drop(first);
        assert!(second.changed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_has_its_own_time() {
        let [mut room, ..] = rooms();
        let time = request(0, ALL).expect("it is long").time(GRACE);
        for number in 0..10 {
            assert!(room.of(request(number, ALL)));
            tokio::time::sleep(time - Duration::from_millis(1)).await;
            assert!(still_waits(&mut room).await, "request {number} has time left");
        }
    }

    async fn still_waits(room: &mut Room) -> bool {
        tokio::time::timeout(Duration::ZERO, room.changed()).await.is_err()
    }
}
