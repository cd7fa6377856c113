//! Whether a node's disk has room, and what the log says of it.

use std::time::Duration;

use tracing::warn;

use crate::limits::ROOM_TOLD_INTERVAL;
use crate::types::{NodeId, Shortage, Time};

/// Whether a node's disk has room, and what was said of it in the log.
#[derive(Debug, Default)]
pub struct DiskRoom {
    /// What is missing now.
    pub shortage: Option<Shortage>,
    /// Since when …
    since: Time,
    /// … and whether the log says so.
    is_told: bool,
    /// When the log said so last.
    told: Option<Time>,
    /// How often it was full since then without a word.
    untold: u32,
}

/// What is to be said of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoomNews {
    /// It is full, and was so many times since that was said last.
    Full(Shortage, u32),
    /// There is room again, after so long.
    Room(Duration),
}

impl DiskRoom {
    /// Takes what was found. A disk that is full and has room by turns is told once in a while.
    fn look(&mut self, now: Time, found: Option<Shortage>) -> Option<RoomNews> {
        let was_full = self.shortage.is_some();
        self.shortage = found;
        let Some(shortage) = found else {
            let full_for = now.since(self.since);
            return std::mem::take(&mut self.is_told).then_some(RoomNews::Room(full_for));
        };
        if !was_full {
            self.since = now;
            self.untold += 1;
        }
        let due = self.told.is_none_or(|told| now >= told.after(ROOM_TOLD_INTERVAL));
        if self.is_told || !due {
            return None;
        }
        (self.is_told, self.told) = (true, Some(now));
        Some(RoomNews::Full(shortage, std::mem::take(&mut self.untold)))
    }

    /// Takes what was found, and says in the log what is new.
    pub fn note(&mut self, now: Time, id: &NodeId, found: Option<Shortage>) {
        match self.look(now, found) {
            None => {}
            Some(RoomNews::Full(shortage, times)) => {
                let Shortage { need, free, limit } = shortage;
                let limit = limit.to_string();
                warn!(
                    %id, need_bytes = need, free_bytes = free, limit, times,
                    "the disk is full: nothing more is taken into the log until there is room"
                );
            }
            Some(RoomNews::Room(full_for)) => {
                let full_ms = full_for.as_millis() as u64; // A node does not run that long.
                warn!(%id, full_ms, "the disk has room again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RoomLimit;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_disk_that_is_full_by_turns_is_told_at_once_and_then_once_in_a_while() {
        let shortage = Shortage { need: 7, free: Some(1), limit: RoomLimit::Space };
        let mut room = DiskRoom::default();
        assert_eq!(room.look(at(1), None), None);
        assert_eq!(room.look(at(2), Some(shortage)), Some(RoomNews::Full(shortage, 1)));
        assert_eq!(room.look(at(3), Some(shortage)), None);
        assert_eq!(room.look(at(5), None), Some(RoomNews::Room(Duration::from_secs(3))));
        let mut told = 0;
        for second in 6..600 {
            let found = (second % 2 == 0).then_some(shortage);
            told += usize::from(room.look(at(second), found).is_some());
        }
        assert!((60..=120).contains(&told), "{told} lines in ten minutes");
        // What stays is told, however late.
        let mut room = DiskRoom::default();
        room.look(at(1), Some(shortage));
        room.look(at(2), None);
        assert_eq!(room.look(at(3), Some(shortage)), None);
        assert_eq!(room.look(at(20), Some(shortage)), Some(RoomNews::Full(shortage, 1)));
        assert_eq!(room.look(at(21), None), Some(RoomNews::Room(Duration::from_secs(18))));
    }
}
