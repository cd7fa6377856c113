//! How a master carries out a start, an adoption and a repair.

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::MasterNode;
use crate::codes::RefuseCode;
use crate::engine::{Refused, Reign, SessionId};
use crate::gateway::Refusal;
use crate::limits::REPAIR_BYTES_MAX;
use crate::node::event::Event;
use crate::node::queue::Kind;
use crate::node::storage::Storage;
use crate::store::{Identity, Run, StoreError};
use crate::types::{LogId, NodeIndex, Seq, SeqRange, Time};
use crate::wire::{Message, codec};

/// What is being fetched to repair a damaged range.
#[derive(Default)]
pub(super) struct Repairing {
    /// What was asked for.
    range: Option<SeqRange>,
    /// What came of it and is not in the log yet, and how long that is.
    runs: Vec<Run>,
    bytes: usize,
}

/// What was said in the log, so that it is said once.
#[derive(Default)]
pub(super) struct Notes {
    /// Who was last said to be waited for.
    awaited: String,
    /// A loss that was accepted beyond the log.
    beyond: Option<(Seq, Seq)>,
    /// Logs that are not one.
    rivals: String,
    /// Answers that prove nothing.
    doubtful: Option<Seq>,
}

impl Notes {
    /// Whether nothing was said that is not over.
    fn are_over(&self) -> bool {
        self.awaited.is_empty()
            && self.beyond.is_none()
            && self.rivals.is_empty()
            && self.doubtful.is_none()
    }
}

impl Repairing {
    /// The first entry that is still to come.
    fn next(&self) -> Option<Seq> {
        self.runs.last().map(|run| run.range().end).or(self.range.map(|range| range.first))
    }

    fn clear(&mut self) {
        *self = Repairing::default();
    }
}

impl<S: Storage> MasterNode<S> {
    /// Asks for entries, as a tail to adopt or to repair what is damaged.
    pub(super) fn fetch(&mut self, from: NodeIndex, range: SeqRange) {
        if self.engine.reign() == Reign::Leading {
            self.repairing.clear();
            self.repairing.range = Some(range);
        }
        self.ask_for(from, range);
    }

    fn ask_for(&mut self, from: NodeIndex, range: SeqRange) {
        let (epoch, first, last) = (self.engine.epoch(), range.first, range.last());
        let fetch =
            codec::Fetch { epoch: epoch.number(), first: first.number(), last: last.number() };
        self.push(from, Kind::Control, &Message::Fetch(fetch));
    }

    /// Writes down what must never be forgotten.
    pub(super) fn keep(&mut self, identity: Identity) {
        let epoch = identity.epoch;
        let kept = self.storage.log_mut().set_identity(identity);
        self.events.push(Event::Kept { epoch, done: kept.is_ok() });
        if let Err(error) = kept {
            self.fail(error);
        }
    }

    pub(super) fn set_aside(&mut self, from: Seq) {
        match self.storage.set_aside(from, "the log that is adopted has other entries there") {
            Ok(count) => {
                warn!(seq = %from, count, "entries moved aside");
                self.events.push(Event::SetAside { from });
            }
            Err(error) => self.fail(error),
        }
    }

    pub(super) fn align(&mut self, to: NodeIndex, session: SessionId, last: Seq) {
        let Some(id) = self.log.prefix_id(last) else {
            // It became unreadable a moment ago: judged again with the next introduction.
            let reason = format!("entry {last}, where its log differs, cannot be read");
            return self.disconnected(to, session, Some(RefuseCode::Diverged), reason);
        };
        let peer = self.peer(to);
        warn!(peer = %peer.id, seq = %last, "its log differs behind this entry");
        peer.introducing += 1;
        (peer.leading, peer.told_as_leader) = (true, true);
        let align = codec::Align {
            epoch: self.engine.epoch().number(),
            last: last.number(),
            last_epoch: id.epoch.number(),
            last_digest: id.digest.value(),
        };
        self.push(to, Kind::Control, &Message::Align(align));
    }

    /// Entries that were asked for: to be adopted, or to repair what is damaged.
    pub(super) fn fetched(
        &mut self,
        now: Time,
        from: NodeIndex,
        session: SessionId,
        head: codec::FetchedHead,
        records: Bytes,
    ) {
        let first = Seq::new(head.first);
        let adopting = matches!(self.engine.reign(), Reign::Adopting { .. });
        let bounds = self.storage.log().bounds();
        let expected = if adopting { Some(bounds.last.next()) } else { self.repairing.next() };
        if !adopting && expected != Some(first) {
            // The answer to what was asked for before more damage was found.
            return debug!(seq = %first, "fetched too late");
        }
        let before = match self.repairing.runs.last().filter(|_| !adopting) {
            Some(last) => Some(last.tail()),
            None => self.log.prefix_id(first.previous()),
        };
        let (count, epoch) = (u64::from(head.count), self.engine.epoch());
        let run = before
            .filter(|_| head.count > 0 && expected == Some(first))
            .and_then(|before| Run::verify_sent(records, first, count, before, epoch).ok());
        let Some(run) = run else {
            let peer = &self.peers[from.as_usize() - 1].id;
            warn!(%peer, seq = %first, "what was fetched does not fit this log");
            self.repairing.clear();
            return self.engine.handle_fetch_failed(from, session);
        };
        if adopting {
            let (range, tail) = (run.range(), run.tail());
            if self.storage.log().room_for(run.len_bytes()).is_err() {
                // Nothing is lost: what was not taken is asked for again, on a new connection.
                return debug!(seq = %range, "no room to adopt");
            }
            debug!(seq = %range, "adopted");
            match self.storage.append(run) {
                Ok(()) => {
                    self.events.push(Event::Adopted(range));
                    self.engine.handle_adopted(now, range.last(), tail.epoch);
                }
                Err(error) => self.fail(error),
            }
        } else {
            self.collect(now, from, session, run);
        }
    }

    /// Collects what repairs a damaged range, so that a segment is not written anew for each frame.
    fn collect(&mut self, now: Time, from: NodeIndex, session: SessionId, run: Run) {
        let Some(asked) = self.repairing.range else { return };
        let end = run.range().end;
        self.repairing.bytes += run.len_bytes();
        self.repairing.runs.push(run);
        if end < asked.end && self.repairing.bytes < REPAIR_BYTES_MAX {
            self.engine.handle_fetched_part(from, session);
            return self.ask_for(from, SeqRange::new(end, asked.end));
        }
        let Some(run) = Run::concat(&self.repairing.runs) else { return };
        self.repairing.clear();
        let range = run.range();
        self.engine.handle_mending();
        if let Err(error) = self.storage.begin_repair(run) {
            self.repaired(now, range, Err(error));
        }
    }

    /// Hears whether what was fetched is in place.
    pub(super) fn hear_repair(&mut self, now: Time) {
        if let Some((range, outcome)) = self.storage.take_repaired() {
            self.repaired(now, range, outcome);
        }
    }

    fn repaired(&mut self, now: Time, range: SeqRange, outcome: Result<(), StoreError>) {
        match outcome {
            Ok(()) => {
                warn!(seq = %range, "repaired from a secondary");
                self.events.push(Event::Repaired(range));
                self.engine.handle_repaired(self.damage());
            }
            // How much of it is on disk is not known: nobody may go on with such a log.
            Err(error @ StoreError::Failed { .. }) => self.fail(error),
            Err(error) => {
                warn!(seq = %range, %error, "not repaired");
                self.events.push(Event::NotRepaired(range));
                self.engine.handle_repair_failed(now);
            }
        }
    }

    /// Says for whom a start waits, when that changes.
    pub(super) fn note_awaited(&mut self) {
        if self.engine.reign() == Reign::Leading && self.notes.are_over() {
            return; // With each turn, and nobody is waited for.
        }
        let awaited = self.awaited();
        if awaited != self.notes.awaited {
            if !awaited.is_empty() {
                info!(epoch = %self.engine.epoch(), awaited, "recovering: waits for answers");
            }
            self.notes.awaited = awaited;
        }
        self.note_accepted_beyond();
        self.note_rivals();
        self.note_doubtful();
    }

    /// Says once that everybody answered in vain, and what an operator can do.
    fn note_doubtful(&mut self) {
        let doubtful = self.engine.doubtful();
        if doubtful != self.notes.doubtful {
            if let Some(last) = doubtful {
                warn!(
                    seq = %last, awaited = self.awaited(),
                    "all nodes answered, and those awaited cannot say that they lack nothing, so this \
                     node does not lead: start it with --accept-data-loss and that entry to go on with \
                     what there is"
                );
            }
            self.notes.doubtful = doubtful;
        }
    }

    /// Says once that the loss that was accepted is not one that can be led with.
    fn note_accepted_beyond(&mut self) {
        let beyond = self.engine.accepted_beyond();
        if beyond != self.notes.beyond {
            if let Some((accepted, last)) = beyond {
                warn!(
                    %accepted, seq = %last,
                    "--accept-data-loss is beyond the log of the nodes that answer, so this node does \
                     not lead: start it with their last entry to go on without the rest, or wait for \
                     the others"
                );
            }
            self.notes.beyond = beyond;
        }
    }

    /// Says once that those who answer hold different logs.
    fn note_rivals(&mut self) {
        let rivals = self.engine.rival_logs();
        let held = rivals.iter().map(|&(at, log_id, last)| {
            format!("{} {}", self.peers[at.as_usize() - 1].id, holding(log_id, last))
        });
        let held = held.collect::<Vec<_>>().join(", ");
        if held != self.notes.rivals {
            if !held.is_empty() {
                warn!(
                    held,
                    "the nodes that answer hold different logs, so this node does not lead: take those \
                     of the wrong one out of the roster, and empty none before you know which is right"
                );
            }
            self.notes.rivals = held;
        }
    }

    /// What a secondary holds, if it is in the way of a start because another one holds another log.
    pub(super) fn rival(&self, peer: NodeIndex) -> Option<String> {
        let rivals = self.engine.rival_logs();
        let rival = rivals.iter().find(|(at, ..)| *at == peer);
        rival.map(|&(_, log_id, last)| format!("{}, others another log", holding(log_id, last)))
    }

    /// What the engine refused, in words that say what a start waits for.
    pub(super) fn refusal(&self, refused: Refused) -> Refusal {
        let beyond = self.engine.accepted_beyond();
        match (refused, beyond) {
            (Refused::Recovering, Some((accepted, last))) => {
                Refusal::accepted_beyond(accepted, last)
            }
            (Refused::Recovering, None) if !self.engine.rival_logs().is_empty() => {
                Refusal::rival_logs()
            }
            _ => match (refused, self.engine.doubtful()) {
                (Refused::Recovering, Some(last)) => Refusal::doubtful(last),
                _ => Refusal::of(refused, self.roster.len(), self.engine.config().quorum),
            },
        }
    }

    /// A log begins, and somebody who may hold another one was not asked.
    pub(super) fn note_unheard(&self) {
        let unheard = self.names(&self.engine.unheard());
        if !unheard.is_empty() {
            warn!(
                unheard,
                "the new log begins without these nodes: if one of them holds an older log, stop this \
                 node now, empty nothing, and start it on another --data-dir when they are there"
            );
        }
    }

    /// The nodes whose answer a start waits for, by their names.
    pub(super) fn awaited(&self) -> String {
        self.names(&self.engine.awaited())
    }

    fn names(&self, indices: &[NodeIndex]) -> String {
        let names = indices.iter().map(|index| self.peers[index.as_usize() - 1].id.as_str());
        names.collect::<Vec<_>>().join(",")
    }
}

fn holding(log_id: LogId, last: Seq) -> String {
    let noun = if last == Seq::FIRST { "entry" } else { "entries" };
    format!("holds {last} {noun} of {log_id}")
}
