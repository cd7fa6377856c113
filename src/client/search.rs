//! Several servers, of which one is wanted: each is tried a little after the one before it, beside
//! it, and all share the time.

use tokio::time::Instant;

use super::ConnectOptions;
use super::error::ConnectFailure;
use super::introduce::{Failures, Introduced, Visitor, introduce};
use crate::connect::{Race, since};
use crate::limits::{CLIENT_PATIENCE_MAX, NEXT_SERVER_AFTER};

/// The way to a server that introduces itself.
pub(super) struct Search {
    race: Race<String, Result<Introduced, Failures>>,
    /// Every server that was ever to be tried.
    known: Vec<String>,
    visitor: Visitor,
    deadline: Instant,
    failures: Failures,
}

impl Search {
    /// Nothing is tried before [`Search::next_node`] is called.
    pub(super) fn begin<A: AsRef<str>>(
        addrs: impl IntoIterator<Item = A>,
        options: &ConnectOptions,
    ) -> Search {
        let mut known: Vec<String> = Vec::new();
        for addr in addrs {
            if !known.iter().any(|known| known == addr.as_ref()) {
                known.push(addr.as_ref().to_owned());
            }
        }
        let patience = options.timeout.min(CLIENT_PATIENCE_MAX);
        // However many there are: the last one gets its part of the time.
        let parts = u32::try_from(known.len()).unwrap_or(u32::MAX).saturating_add(1);
        let delay = NEXT_SERVER_AFTER.min(patience / parts);
        Search {
            race: Race::new(known.iter().cloned(), delay),
            known,
            visitor: Visitor::of(options),
            deadline: Instant::now() + patience,
            failures: Failures::new(),
        }
    }

    /// The next server that introduces itself; `None` when all have failed, which each does when
    /// the time is over. Cancel safe.
    pub(super) async fn next_node(&mut self) -> Option<Introduced> {
        loop {
            let (visitor, deadline) = (&self.visitor, self.deadline);
            let begin = |addr: String| {
                let visitor = visitor.clone();
                async move { introduce(&addr, &visitor, deadline).await }
            };
            match self.race.next(begin).await? {
                (_, Ok(introduced)) => return Some(introduced),
                (_, Err(failures)) => self.failures.extend(failures),
            }
        }
    }

    /// Makes `addr` the next one, unless it is empty or was tried already.
    pub(super) fn go_to(&mut self, addr: &str) {
        let waits = self.race.waits_for(|waiting| waiting == addr);
        if !addr.is_empty() && (waits || !self.known.iter().any(|known| known == addr)) {
            self.race.add_next(addr.to_owned());
            self.known.push(addr.to_owned());
        }
    }

    /// Every server that did not do, with the reason. Those that have not answered yet are let go.
    pub(super) fn end(self) -> Failures {
        let running = self
            .race
            .running()
            .iter()
            .map(|(addr, begun)| (addr.clone(), ConnectFailure::Overtaken(since(*begun))));
        let running: Failures = running.collect();
        self.failures.into_iter().chain(running).collect()
    }
}
