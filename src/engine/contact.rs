//! Whether a secondary still hears its master: it judges by silence, as it is judged itself.

use std::time::Duration;

use crate::types::Time;

/// So many heartbeats may be missing before the master counts as silent. Not configured: a secondary
/// decides nothing by it, it only tells.
const MISSES_UNTIL_SILENT: u32 = 5;

/// When the followed master was heard of.
#[derive(Clone, Debug)]
pub struct Contact {
    /// How often a master that is configured as this node is sends heartbeats.
    interval: Duration,
    /// The last frame, on whichever connection.
    last: Option<Time>,
    /// The last heartbeat of this connection, and how long it had been due.
    beat: Option<(Time, Duration)>,
    /// The silence was told.
    told: bool,
}

/// What is to be told of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactNews {
    /// Nothing was heard for so long, and the connection still stands.
    Silent(Duration),
    /// It speaks again.
    SpeaksAgain,
}

impl Contact {
    /// Nobody was heard yet. `interval` is that of this node's own configuration: a master with a
    /// longer one is judged by the heartbeats that came.
    pub fn new(interval: Duration) -> Self {
        Contact { interval, last: None, beat: None, told: false }
    }

    /// Another connection is followed from now on.
    pub fn followed(&mut self, now: Time) {
        (self.last, self.beat, self.told) = (Some(now), None, false);
    }

    /// A frame came. Answers what is to be told.
    pub fn heard(&mut self, now: Time) -> Option<ContactNews> {
        self.last = Some(now);
        std::mem::take(&mut self.told).then_some(ContactNews::SpeaksAgain)
    }

    /// A heartbeat came: how often they come is known.
    pub fn heartbeat(&mut self, now: Time) {
        let since = self.beat.map_or(Duration::ZERO, |(before, _)| now.since(before));
        self.beat = Some((now, since));
    }

    /// Since the last frame; `None` before the first.
    pub fn since(&self, now: Time) -> Option<Duration> {
        self.last.map(|last| now.since(last))
    }

    /// Whether the master is silent.
    pub fn is_silent(&self, now: Time) -> bool {
        self.due().is_some_and(|due| now >= due)
    }

    /// When silence will have to be told, if it was not.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.due().filter(|_| !self.told)
    }

    /// Answers what is to be told now.
    pub fn handle_timeout(&mut self, now: Time) -> Option<ContactNews> {
        let silent = !self.told && self.is_silent(now);
        self.told |= silent;
        self.since(now).filter(|_| silent).map(ContactNews::Silent)
    }

    fn due(&self) -> Option<Time> {
        let beat = self.beat.map_or(Duration::ZERO, |(_, since)| since);
        let patience = self.interval.max(beat).saturating_mul(MISSES_UNTIL_SILENT);
        self.last.map(|last| last.after(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    fn contact() -> Contact {
        let mut contact = Contact::new(Duration::from_millis(100));
        contact.followed(at(0));
        contact
    }

    #[test]
    fn five_heartbeats_that_do_not_come_are_silence_and_it_is_told_once() {
        let mut contact = contact();
        contact.heard(at(100));
        contact.heartbeat(at(100));
        assert_eq!(contact.poll_timeout(), Some(at(600)));
        assert_eq!(contact.handle_timeout(at(599)), None);
        let silent = ContactNews::Silent(Duration::from_millis(500));
        assert_eq!(contact.handle_timeout(at(600)), Some(silent));
        assert!(contact.is_silent(at(700)));
        assert_eq!((contact.handle_timeout(at(700)), contact.poll_timeout()), (None, None));
        assert_eq!(contact.heard(at(800)), Some(ContactNews::SpeaksAgain));
        assert!(!contact.is_silent(at(800)) && contact.heard(at(801)).is_none());
    }

    #[test]
    fn a_master_with_rarer_heartbeats_is_judged_by_its_own() {
        let mut contact = contact();
        for ms in [400, 800] {
            contact.heard(at(ms));
            contact.heartbeat(at(ms));
        }
        assert_eq!(contact.poll_timeout(), Some(at(2800)));
        // One pause makes nobody patient for ever.
        for ms in [9000, 9100] {
            contact.heard(at(ms));
            contact.heartbeat(at(ms));
        }
        assert_eq!(contact.poll_timeout(), Some(at(9600)));
    }

    #[test]
    fn a_new_connection_begins_anew() {
        let mut contact = contact();
        assert!(contact.handle_timeout(at(500)).is_some());
        contact.followed(at(1000));
        assert!(!contact.is_silent(at(1400)) && contact.is_silent(at(1500)));
    }
}
