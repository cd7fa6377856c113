//! What a master writes into its log, and what it hears of its disk.

use tracing::{debug, error};

use super::MasterNode;
use crate::node::event::Event;
use crate::node::storage::{Storage, hear};
use crate::store::RunBuilder;
use crate::types::{SeqRange, Time};

impl<S: Storage> MasterNode<S> {
    /// Tells the engine whether there certainly is room for so many bytes more. What was numbered
    /// before goes first if it is in the way.
    pub(super) fn look_for_room(&mut self, now: Time, bytes: usize) {
        let pending = self.builder.as_ref().map_or(0, RunBuilder::len_bytes);
        let mut room = self.storage.log().room_for(pending + bytes);
        if pending > 0 && room.is_err() {
            self.write_run(now);
            room = self.storage.log().room_for(bytes);
        }
        self.engine.handle_room(room.err());
    }

    /// Writes what was numbered since the last time, as one run.
    pub(super) fn write_run(&mut self, now: Time) {
        let Some(builder) = self.builder.take() else { return };
        let Some(run) = builder.finish(&mut self.arena) else { return };
        let (range, last) = (run.range(), run.range().last());
        debug!(seq = %range, bytes = run.len_bytes(), "written");
        match self.storage.append(run) {
            Ok(()) => {
                self.events.push(Event::Written(range));
                self.engine.handle_written(now, last);
            }
            // Numbers were given, and room was there: what became of the bytes nobody knows.
            Err(error) => self.fail(error),
        }
    }

    /// Hears what the disk has to say, and whether it has room.
    pub(super) fn hear_disk(&mut self, now: Time) {
        let heard = hear(&mut self.storage, &self.about.id, now, &mut self.look_at);
        let looks = match heard {
            Ok(looks) => looks,
            Err(failure) => {
                self.failure = Some(failure);
                return;
            }
        };
        self.hear_repair(now);
        self.note_damage();
        // Whoever appends looks for himself; that there is room again is told at once.
        if looks || self.room.shortage.is_some() {
            let shortage = self.storage.log().room_for(0).err();
            self.engine.handle_room(shortage);
            self.room.note(now, &self.about.id, shortage);
        }
        let last = self.storage.log().bounds().last;
        let stored = self.storage.make_durable(last);
        self.stored(now, stored);
    }

    /// Tells the engine what of the log cannot be read.
    pub(super) fn note_damage(&mut self) {
        for (range, why) in self.storage.take_found_damage() {
            error!(seq = %range, why, "part of the log is damaged; it is repaired from a secondary");
        }
        let damage = self.damage();
        if damage != self.engine.damage() {
            self.engine.handle_damage(damage);
        }
    }

    /// The first range that cannot be read. What was lost at the end of the log is not there to be
    /// read: it is adopted, or numbered anew.
    pub(super) fn damage(&self) -> Option<SeqRange> {
        let last = self.storage.log().bounds().last;
        self.storage.log().damage().first().copied().filter(|range| range.first <= last)
    }
}
