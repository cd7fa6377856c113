//! A timer that is set again and again, and hardly ever fires.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires at the latest when it was last told to, and perhaps once for what it was told before: setting a
/// timer anew for a later moment, with each of many turns, costs more than one turn too many.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// When it fires.
    at: Option<Instant>,
}

impl Alarm {
    /// Never fires before it is set.
    pub(super) fn new() -> Self {
        Alarm { sleep: Box::pin(sleep_until(Instant::now() + Duration::from_secs(1))), at: None }
    }

    /// It must fire by then; `None`: it need not.
    pub(super) fn set_by(mut self: Pin<&mut Self>, due: Option<Instant>) {
        if let Some(due) = due
            && self.at.is_none_or(|at| due < at)
        {
            self.at = Some(due);
            self.sleep.as_mut().reset(due);
        }
    }
}

impl Future for Alarm {
    type Output = ();

    /// May be awaited again once it has fired and was set.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.at.is_none() {
            return Poll::Pending; // Whoever sets it polls again.
        }
        let fired = self.sleep.as_mut().poll(context);
        if fired.is_ready() {
            self.at = None;
        }
        fired
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fires_by_the_earliest_moment_it_was_told_and_again_when_it_is_set_again() {
        let begun = Instant::now();
        let at = |ms| Some(begun + Duration::from_millis(ms));
        let mut alarm = pin!(Alarm::new());
        alarm.as_mut().set_by(at(500));
        alarm.as_mut().set_by(at(200));
        alarm.as_mut().set_by(at(900));
        alarm.as_mut().set_by(None);
        alarm.as_mut().await;
        assert_eq!(begun.elapsed(), Duration::from_millis(200));
        alarm.as_mut().set_by(at(900));
        alarm.as_mut().await;
        assert_eq!(begun.elapsed(), Duration::from_millis(900));
        let never = tokio::time::timeout(Duration::from_secs(60), alarm.as_mut());
        assert!(never.await.is_err(), "nobody set it");
    }
}
