//! How a secondary carries out what its engine decides.

use tracing::{debug, warn};

use super::SecondaryNode;
use crate::codes::NackCode;
use crate::engine::SecondaryEffect;
use crate::node::event::Event;
use crate::node::storage::Storage;
use crate::store::{Identity, Run, StoreError};
use crate::types::{Epoch, LogId, RunId, Seq, Time};

impl<S: Storage> SecondaryNode<S> {
    /// Carries out what the engine decided; `current` is the run that just arrived.
    pub(super) fn carry_out(&mut self, now: Time, mut current: Option<Run>) {
        while self.carry_out_one(now, &mut current) {}
    }

    /// Carries out one thing that the engine decided. Returns whether there was any.
    pub(super) fn carry_out_one(&mut self, now: Time, current: &mut Option<Run>) -> bool {
        // What could not be done ends it: nothing that follows may be done without it.
        if self.failure.is_some() {
            return false;
        }
        let Some(effect) = self.engine.poll_effect() else { return false };
        match effect {
            SecondaryEffect::Append { range } => {
                let run = current.take().and_then(|run| run.split_from(range.first));
                self.append(run.expect("BUG: the engine appends only what just arrived"));
            }
            SecondaryEffect::Hold { range } => {
                debug!(seq = %range, "held back");
                self.events.push(Event::Held(range));
                let run = current.take().expect("BUG: the engine holds only what arrived");
                self.held.insert(range.first, run);
            }
            SecondaryEffect::Release { first } => {
                if let (Some(run), Some(session)) =
                    (self.held.remove(&first), self.engine.session())
                {
                    let (range, taken) = (run.range(), self.takes(now, session, &run));
                    self.events.push(Event::Released { range, taken });
                    // Without room it comes again.
                    if taken {
                        debug!(seq = %range, "released");
                        self.arrive(session, &run);
                        *current = Some(run);
                    }
                }
            }
            SecondaryEffect::DropHeld => self.held.clear(),
            SecondaryEffect::MakeDurable { up_to } => self.make_durable(up_to),
            SecondaryEffect::Nack { session, seq, code } => {
                match code {
                    // The log tells of a full disk as such, and not for each frame.
                    NackCode::DiskFull => debug!(%seq, code = code.word(), "not taken"),
                    _ => warn!(%seq, code = code.word(), "not taken"),
                }
                self.nack(now, session, seq, code);
            }
            SecondaryEffect::Close { session, code } => {
                self.closed(session, Some(code), code.word());
            }
            SecondaryEffect::Keep { log_id, epoch, run_id, settled, vouches } => {
                self.keep((log_id, epoch, run_id), settled, vouches);
            }
            SecondaryEffect::SetAside { from } => self.set_aside(from),
            SecondaryEffect::Reconnect { session } => {
                self.closed(session, None, "the log is damaged, or whole again");
            }
            SecondaryEffect::Ack { .. } => unreachable!("BUG: ACKs come by poll_ack"),
        }
        true
    }

    pub(super) fn make_durable(&mut self, up_to: Seq) {
        let stored = self.storage.make_durable(up_to);
        debug!(seq = %stored, "stored");
        self.engine.handle_stored(stored);
    }

    pub(super) fn keep(&mut self, promise: (LogId, Epoch, RunId), settled: Epoch, vouches: bool) {
        let (log_id, epoch, run_id) = promise;
        let (log_id, commit) = (Some(log_id), self.engine.levels().commit);
        let identity = Identity { log_id, epoch, run_id, settled, commit, vouches };
        let kept = self.storage.log_mut().set_identity(identity);
        self.events.push(Event::Kept { epoch, done: kept.is_ok() });
        if let Err(error) = kept {
            self.fail(error);
        }
    }

    pub(super) fn set_aside(&mut self, from: Seq) {
        let reason = "the master's log has other entries there";
        match self.storage.set_aside(from, reason) {
            Ok(count) => {
                self.aside += count;
                self.events.push(Event::SetAside { from });
                warn!(seq = %from, count, "entries moved aside");
            }
            Err(error) => self.fail(error),
        }
    }

    pub(super) fn append(&mut self, run: Run) {
        let range = run.range();
        if let Err(error) = self.storage.append(run) {
            return self.fail(error);
        }
        let gave_way = self.provisional.lock().give_way(&self.log, range);
        if gave_way.aside > 0 {
            let count = gave_way.aside;
            warn!(seq = %range, count, "entries by hand differ from the master's: moved aside");
        }
        let (duplicates, aside) = (gave_way.duplicates, gave_way.aside);
        self.events.push(Event::Appended { range, duplicates, aside });
        self.engine.handle_gave_way(gave_way.duplicates);
        self.engine.handle_written(range.last());
    }

    /// The store cannot go on: nor can this node.
    pub(super) fn fail(&mut self, error: StoreError) {
        if self.failure.is_none() {
            self.failure = Some(error.into());
        }
    }
}
