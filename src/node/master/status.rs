//! What the master tells of itself and its secondaries: STATUS, HEALTH, WAITERS.

use super::{MasterNode, Peer};
use crate::engine::progress::Progress;
use crate::engine::{Health, Mode};
use crate::gateway::status::{NodeStatus, SecondaryStatus, Status};
use crate::node::storage::{Storage, damaged};
use crate::types::{NodeIndex, Time};

impl<S: Storage> MasterNode<S> {
    /// What STATUS and HEALTH tell.
    pub(super) fn status_at(&self, now: Time) -> Status {
        let engine = &self.engine;
        let node = NodeStatus {
            id: self.about.id.to_string(),
            role: "master",
            epoch: engine.epoch(),
            mode: engine.mode().to_string(),
            next: engine.last().next(),
            commit: engine.levels().commit,
            quorum: Some((self.engine.config().quorum, self.roster.len())),
            present: Some(engine.present()),
            log_id: engine.log_id(),
            uptime: now.since(Time::ZERO),
            waiting: engine.waiting(),
            store: self.storage.kind(),
            fsync: self.storage.fsync(),
            disk_full: self.room.shortage.is_some(),
            damaged: damaged(&self.storage),
            aside: self.storage.aside_files(),
            awaiting: self.awaited(),
        };
        let recovering = engine.mode() == Mode::Recovering;
        let secondary = |(at, (peer, progress)): (usize, (&Peer, &Progress))| {
            let healthy = progress.health.health() == Health::Healthy;
            SecondaryStatus {
                id: peer.id.to_string(),
                addr: peer.addr.clone(),
                health: progress.health.health(),
                misses: progress.health.misses(),
                received: progress.received,
                stored: progress.stored,
                lag: engine.levels().held_by(1).distance_from(progress.stored),
                lag_bytes: self.log.bytes_after_about(progress.stored),
                inflight: progress.inflight_bytes(),
                last_contact: peer.last_contact.map(|contact| now.since(contact)),
                rtt: peer.rtt,
                attempts: progress.attempts(),
                next_retry: progress.retry_at().map(|due| due.since(now)),
                duplicates: progress.duplicates,
                error: self.rival(NodeIndex::secondary(at)).or_else(|| {
                    peer.error.clone().filter(|_| {
                        recovering || !healthy || peer.link.is_none() || progress.attempts() > 0
                    })
                }),
            }
        };
        let secondaries = self.peers.iter().zip(engine.secondaries()).enumerate();
        let secondaries = secondaries.map(secondary).collect();
        Status { node, secondaries, master: None }
    }

    /// The lines of WAITERS, and how many. Long lists are cut: they are for reading.
    pub fn waiters(&self, now: Time) -> (String, usize) {
        use std::fmt::Write as _;
        const LINES_MAX: usize = 10_000;
        let mut lines = String::new();
        let mut count = 0;
        for (waiter, seq) in self.engine.waiters().take(LINES_MAX) {
            let holders = self.engine.holders(seq, waiter.ack);
            let mut missing = String::new();
            crate::gateway::reply::write_names(&mut missing, &self.roster, |node| {
                !holders.contains(node)
            });
            let age_ms = now.since(waiter.since).as_millis();
            let (need, have) = (waiter.need, holders.len());
            // Writing to a String cannot fail.
            let _ = writeln!(
                lines,
                "seq={seq} need={need} have={have} missing={missing} age_ms={age_ms}"
            );
            count += 1;
        }
        (lines, count)
    }
}
