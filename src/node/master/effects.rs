//! How a master carries out what its engine decides.

use tracing::{debug, info, warn};

use super::MasterNode;
use crate::engine::{AttemptFailure, Effect, Health, Mode, Reign};
use crate::node::event::Event;
use crate::node::machine::Failure;
use crate::node::queue::Kind;
use crate::node::reads::Asked;
use crate::node::storage::Storage;
use crate::store::{Identity, StoreError};
use crate::types::{NodeIndex, Seq, Time};
use crate::wire::codec;
use crate::wire::{Message, OutFrame};

impl<S: Storage> MasterNode<S> {
    /// Carries out one thing that the engine decided. Returns whether there was any.
    pub(super) fn carry_out_one(&mut self, now: Time) -> bool {
        // What could not be done ends it: nothing that follows may be done without it.
        if self.failure.is_some() {
            return false;
        }
        let Some(effect) = self.engine.poll_effect() else { return false };
        match effect {
            Effect::Dial { to } => self.dial(to),
            Effect::Introduce { to, .. } => {
                let leads = self.engine.reign() == Reign::Leading;
                let hello = Message::Hello(self.hello(to));
                let peer = self.peer(to);
                peer.introducing += 1;
                (peer.leading, peer.told_as_leader) = (true, leads);
                self.push(to, Kind::Control, &hello);
            }
            Effect::Close { to, code, .. } => {
                let peer = self.peer(to);
                warn!(peer = %peer.id, code = code.word(), "refused");
                peer.error = Some(format!("refused {code}"));
                self.close(to, code);
            }
            Effect::Send { to, session, range, bytes_max, again } => {
                let epoch = self.engine.epoch();
                self.send(now, to, session, Asked { range, bytes_max, again, epoch });
            }
            Effect::Heartbeat { to, .. } => self.heartbeat(now, to),
            Effect::MakeDurable { up_to } => {
                let stored = self.storage.make_durable(up_to);
                self.stored(now, stored);
            }
            Effect::Keep { log_id, epoch, settled, vouches } => {
                let log_id = Some(log_id);
                let run_id = self.engine.run_id();
                let commit = self.engine.levels().commit;
                self.keep(Identity { log_id, epoch, run_id, settled, commit, vouches });
            }
            Effect::SetAside { from } => self.set_aside(from),
            Effect::Fetch { from, range, .. } => self.fetch(from, range),
            Effect::Align { to, session, last } => self.align(to, session, last),
            Effect::Answer(answer) => self.answer(answer),
            effect => self.note(effect),
        }
        true
    }

    /// Logs what changed.
    fn note(&mut self, effect: Effect) {
        self.events.push(Event::Decided(effect.clone()));
        match effect {
            Effect::BeginHistory { log_id, epoch } => {
                info!(%log_id, %epoch, "a new log begins");
                self.note_unheard();
            }
            Effect::BeginReign { epoch, last } => {
                info!(%epoch, seq = %last, "leads");
                if let Some(accepted) = self.engine.config().accept_data_loss {
                    if self.engine.loss_accepted() {
                        warn!(%accepted, seq = %last, "what may have followed is lost: the operator accepted it");
                    } else {
                        info!(%accepted, seq = %last, "nothing is lost: --accept-data-loss was not needed");
                    }
                }
            }
            Effect::HealthChanged { of, from, to } => {
                let misses = self.engine.secondaries()[of.as_usize() - 1].health.misses();
                let peer = &self.peer(of).id;
                match to {
                    Health::Healthy => info!(%peer, %from, %to, "health changed"),
                    _ => warn!(%peer, %from, %to, misses, "health changed"),
                }
            }
            Effect::ModeChanged { from, to, present } => {
                let need = self.engine.config().quorum;
                match to {
                    Mode::Normal => info!(%from, %to, present, need, "mode changed"),
                    _ => warn!(%from, %to, present, need, "mode changed"),
                }
            }
            Effect::AttemptFailed { to, seq, failure, attempts, wait } => {
                let cause = match failure {
                    AttemptFailure::Timeout => "no progress",
                    AttemptFailure::Nack => "nack",
                };
                let next_ms = wait.as_millis() as u64; // Waits are bounded by a day.
                warn!(peer = %self.peer(to).id, %seq, cause, attempts, next_ms, "attempt failed");
            }
            Effect::Following { to, stored } => {
                info!(peer = %self.peer(to).id, seq = %stored, "follows");
            }
            Effect::Deposed { by, epoch } => {
                self.deposed = Some(Failure::Deposed { by: self.peer(by).id.clone(), epoch });
            }
            // Carried out above.
            _ => {}
        }
    }

    pub(super) fn stored(&mut self, now: Time, stored: Seq) {
        if stored > self.engine.levels().held_by(1) {
            debug!(seq = %stored, "stored");
        }
        self.engine.handle_stored(now, stored);
    }

    /// The store cannot go on: nor can this node.
    pub(super) fn fail(&mut self, error: StoreError) {
        if self.failure.is_none() {
            self.failure = Some(error.into());
        }
    }

    fn heartbeat(&mut self, now: Time, to: NodeIndex) {
        let (epoch, levels) = (self.engine.epoch().number(), self.levels(to));
        let peer = self.peer(to);
        // The epoch may have been chosen in this very turn: its HELLO is still to come.
        let epoch = if peer.leading { epoch } else { 0 };
        peer.heartbeat += 1;
        peer.heartbeat_sent = now;
        let number = peer.heartbeat;
        let heartbeat = Message::Heartbeat(codec::Heartbeat { epoch, number, levels });
        self.push(to, Kind::Heartbeat, &heartbeat);
    }

    pub(super) fn push(&mut self, to: NodeIndex, kind: Kind, message: &Message) {
        self.push_frame(to, kind, message.encode());
    }

    /// The same for a sealed frame.
    pub(super) fn push_frame(&mut self, to: NodeIndex, kind: Kind, frame: OutFrame) {
        // Indices are made from the roster: a secondary's is never that of the master.
        if let Some((session, link)) = &mut self.peers[to.as_usize() - 1].link {
            self.outputs.send(*session, link, kind, frame);
        }
    }

    pub(super) fn levels(&self, to: NodeIndex) -> codec::Levels {
        let levels = self.engine.levels_for(to);
        codec::Levels {
            commit: levels.commit.number(),
            held_by: levels.held_by.iter().map(|seq| seq.number()).collect(),
        }
    }
}
