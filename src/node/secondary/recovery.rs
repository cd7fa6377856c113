//! How a secondary aligns its log, gives entries out, repairs what is damaged, and hears its disk.

use tracing::{error, warn};

use super::SecondaryNode;
use crate::codes::RefuseCode;
use crate::engine::SessionId;
use crate::limits::{REPAIR_RETRY, REPAIR_WINDOW_BYTES_MAX, RUN_BYTES_MAX};
use crate::node::event::Event;
use crate::node::links::Link;
use crate::node::machine::Output;
use crate::node::queue::Kind;
use crate::node::reads::Asked;
use crate::node::storage::{Storage, hear};
use crate::store::{Run, Slice, StoreError};
use crate::types::{Digest, Epoch, NodeIndex, PrefixId, Seq, SeqRange, Time};
use crate::wire::codec;

impl<S: Storage> SecondaryNode<S> {
    /// The master says where our logs part.
    pub(super) fn align(&mut self, now: Time, session: SessionId, align: codec::Align) {
        let last = Seq::new(align.last);
        let theirs = PrefixId {
            epoch: Epoch::new(align.last_epoch),
            digest: Digest::new(align.last_digest),
        };
        if self.mending.is_some() {
            let reason =
                "a part of the log is being repaired: what differs goes aside when that is done";
            return self.closed(session, Some(RefuseCode::Busy), reason);
        }
        // Nothing leaves the log that cannot be kept. The master asks again.
        let bytes = self.log.bytes_after(last) as usize; // Less than a disk has.
        if last < self.engine.written() && self.storage.log().room_for(bytes).is_err() {
            self.no_room_aside = Some(bytes);
            let reason = "no room on this node's disk to keep aside what differs: make room there";
            return self.closed(session, Some(RefuseCode::Busy), reason);
        }
        self.no_room_aside = None;
        let ours = self.log.prefix_id(last);
        let answer = self.engine.handle_align(session, last, theirs, ours);
        self.carry_out(now, None);
        self.events.push(Event::Aligned { last, agreed: answer });
        if answer {
            self.answer_hello(now, session);
        } else {
            error!(id = %self.about.id, seq = %last, "this log contradicts its master's below the commit position; nothing is deleted, and this node is not counted");
        }
    }

    /// The master asks for entries: one frame of them.
    pub(super) fn fetch(&mut self, now: Time, session: SessionId, fetch: codec::Fetch) {
        if !self.engine.admits(session, Epoch::new(fetch.epoch)) {
            return self.carry_out(now, None);
        }
        // What a master does not take is not read for it, or it would pile up here.
        if self.links.get(&session).is_some_and(Link::is_stuck) {
            let reason = "a FETCH before the answer to the one before was taken";
            return self.closed(session, Some(RefuseCode::BadFrame), reason);
        }
        let end = Seq::new(fetch.last).min(self.engine.stored()).next();
        let range = SeqRange::new(Seq::new(fetch.first), end);
        let epoch = self.engine.epoch();
        let asked = Asked { range, bytes_max: RUN_BYTES_MAX, again: false, epoch };
        if self.log.is_cold(range.first) {
            if let Some((session, asked)) = self.reads.start(session, asked) {
                self.outputs.push(Output::Read { peer: NodeIndex::MASTER, session, asked });
            }
            return;
        }
        let slice = match range.first {
            Seq::ZERO => Slice::default(),
            _ => self.log.read(range, asked.bytes_max),
        };
        self.give_out(now, session, asked, slice);
    }

    /// Answers a FETCH.
    pub(super) fn give_out(&mut self, now: Time, session: SessionId, asked: Asked, slice: Slice) {
        let head = codec::FetchedHead {
            epoch: asked.epoch.number(),
            first: asked.range.first.number(),
            count: slice.range.map_or(0, |range| range.len()) as u32, // At most RUN_ENTRIES_MAX.
        };
        let frame = codec::encode_fetched(&head, slice.pieces);
        self.push_frame(now, session, Kind::Entries(asked.range.end), frame);
    }

    /// Hears what the disk has to say.
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
        self.note_damage(now);
        // Whatever arrives looks for itself; what was refused is served as soon as there is room.
        if looks || self.engine.lacks_room().is_some() {
            self.look_for_room(now);
        }
        let stored = self.storage.make_durable(self.engine.written());
        if stored > self.engine.stored() {
            self.engine.handle_stored(stored);
        }
    }

    /// Looks whether there is room, for what was refused too.
    fn look_for_room(&mut self, now: Time) {
        let refused = self.engine.lacks_room();
        let wanted = refused.max(self.no_room_aside).unwrap_or(0);
        let shortage = self.storage.log().room_for(wanted).err();
        self.room.note(now, &self.about.id, shortage);
        if shortage.is_none() {
            self.no_room_aside = None;
        }
        if shortage.is_none() && refused.is_some() && now >= self.repair_at {
            self.refused_for = None;
            self.engine.handle_room();
            self.carry_out(now, None);
        }
    }

    /// Tells the engine what of the log cannot be read.
    fn note_damage(&mut self, now: Time) {
        for (range, why) in self.storage.take_found_damage() {
            error!(id = %self.about.id, seq = %range, why, "part of the log is damaged; the master sends it again");
        }
        self.engine.handle_damage(self.storage.log().damage().first().copied());
        self.carry_out(now, None);
    }

    /// Repairs what is damaged with what the master sends again, as much at once as it sends without
    /// hearing of it. Answers whether the run lies in what is damaged: then it is no other news.
    pub(super) fn repairs(&mut self, now: Time, session: SessionId, run: &Run) -> bool {
        let Some(damage) = self.storage.log().damage().first().copied() else { return false };
        let range = run.range();
        if damage.first > self.storage.log().bounds().last || damage.intersection(range).is_empty()
        {
            return false; // What is missing at the end the engine appends like any other.
        }
        if self.repairing.0.replace(session) != Some(session) {
            self.repairing.1.clear();
        }
        // What comes while a part is being put in place follows that.
        let mending = self.mending.filter(|(range, _)| range.first == damage.first);
        let known = self.repairing.1.last().map(|last| (last.range().end, last.tail()));
        let known = known.or(mending.map(|(range, tail)| (range.end, tail)));
        let next = known.map_or(damage.first, |(end, _)| end);
        let part = run.clone().split_from(next).and_then(|run| run.split_until(damage.end));
        let part = part.filter(|part| part.range().first == next);
        let again = part.is_none() && !self.repairing.1.is_empty();
        if let Some(part) = part {
            if known.is_some_and(|(_, tail)| tail != part.before()) {
                self.closed(session, None, "what came to repair the log is no chain");
                return true;
            }
            self.repairing.1.push(part);
        }
        let runs = &self.repairing.1;
        let up_to = runs.last().map_or(next.previous(), |last| last.range().last());
        let bytes: usize = runs.iter().map(Run::len_bytes).sum();
        self.engine.handle_repairing(session, range, up_to);
        // What comes again shows that its master waits for it to be stored before it sends more.
        if up_to >= damage.last() || bytes >= REPAIR_WINDOW_BYTES_MAX || again {
            self.repair(now);
        }
        true
    }

    /// Begins to put in place what has come. One part at a time: what comes meanwhile waits.
    fn repair(&mut self, now: Time) {
        if self.mending.is_some() {
            return;
        }
        let runs = std::mem::take(&mut self.repairing.1);
        let Some(run) = Run::concat(&runs) else { return };
        let (range, tail) = (run.range(), run.tail());
        self.mending = Some((range, tail));
        if let Err(error) = self.storage.begin_repair(run) {
            self.repaired(now, range, Err(error));
        }
    }

    /// Hears whether what has come is in place.
    fn hear_repair(&mut self, now: Time) {
        if let Some((range, outcome)) = self.storage.take_repaired() {
            self.repaired(now, range, outcome);
        }
    }

    fn repaired(&mut self, now: Time, range: SeqRange, outcome: Result<(), StoreError>) {
        self.mending = None;
        match outcome {
            Ok(()) => {
                warn!(id = %self.about.id, seq = %range, "repaired from the master");
                self.events.push(Event::Repaired(range));
            }
            Err(error @ StoreError::Failed { .. }) => self.fail(error),
            Err(error) => {
                warn!(id = %self.about.id, seq = %range, %error, "not repaired");
                self.events.push(Event::NotRepaired(range));
                self.repairing.1.clear();
                if error == StoreError::Full {
                    self.repair_at = now.after(REPAIR_RETRY);
                }
                // The master believes that it is here: a new connection tells it better, and one
                // without room refuses what comes until there is some.
                if let Some(session) = self.engine.session() {
                    self.closed(session, None, "a repair did not succeed");
                }
                return;
            }
        }
        self.note_damage(now);
        self.go_on_repairing(now);
    }

    /// What came while another part was put in place, and follows it, is put in place at once: its
    /// master may wait for that before it sends more.
    fn go_on_repairing(&mut self, now: Time) {
        let (Some(session), Some(last)) = (self.repairing.0, self.repairing.1.last()) else {
            return;
        };
        if self.engine.session() != Some(session) {
            return self.repairing.1.clear();
        }
        let range = last.range();
        self.engine.handle_repairing(session, range, range.last());
        self.repair(now);
    }
}
