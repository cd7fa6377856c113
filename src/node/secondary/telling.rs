//! What a secondary tells its master, its clients and those who look.

use tracing::debug;

use super::SecondaryNode;
use crate::codes::NackCode;
use crate::engine::{SecondaryEffect, SessionId};
use crate::gateway::status::{MasterStatus, NodeStatus, Status};
use crate::limits::ACK_RANGES_MAX;
use crate::node::event::Event;
use crate::node::faults::Positions;
use crate::node::introduction::{epoch_table, hello_of};
use crate::node::queue::Kind;
use crate::node::storage::{Storage, damaged};
use crate::node::view::View;
use crate::types::{LogId, PrefixId, Seq, SeqRange, Shortage, Time};
use crate::wire::codec::{Ack, HeldRange, Hello, Nack, Role};
use crate::wire::{Message, OutFrame};

impl<S: Storage> SecondaryNode<S> {
    /// Tells the master what is here, if that is due. Returns whether it was.
    pub(super) fn send_ack(&mut self, now: Time) -> bool {
        let Some(SecondaryEffect::Ack { session, stored, received, held, duplicates }) =
            self.engine.poll_ack()
        else {
            return false;
        };
        let range = |range: SeqRange| HeldRange {
            first: range.first.number(),
            last: range.last().number(),
        };
        let here = Positions { stored, received, held };
        let Positions { stored, received, held } = self.faults.acknowledge(here);
        debug!(seq = %stored, received = %received, "ack");
        let ack = Ack {
            epoch: self.engine.epoch().number(),
            stored: stored.number(),
            received: received.number(),
            held: held.iter().take(ACK_RANGES_MAX).map(range).collect(),
            duplicates,
        };
        self.events.push(Event::Acked { stored, received });
        self.push(now, session, Kind::Ack, &Message::Ack(ack));
        true
    }

    pub(super) fn nack(&mut self, now: Time, session: SessionId, seq: Seq, code: NackCode) {
        let reason = match code {
            NackCode::Conflict => format!("another entry is stored as {seq}"),
            NackCode::Mismatch => format!("entry {seq} does not continue this log"),
            NackCode::BadRecord => "the records are damaged or incomplete".to_owned(),
            NackCode::HoldBackFull => "no room to hold entries back".to_owned(),
            NackCode::DiskFull => match self.refused_for {
                Some(Shortage { need, free: Some(free), limit }) => {
                    format!("the disk is full: {need} bytes are needed, {free} left by {limit}")
                }
                Some(Shortage { need, free: None, limit }) => {
                    format!("the disk is full: {need} bytes are needed, none left by {limit}")
                }
                None => "the disk is full".to_owned(),
            },
            NackCode::Injected => "a fault verb asked for it".to_owned(),
        };
        let nack = Nack {
            epoch: self.engine.epoch().number(),
            seq: seq.number(),
            code: code.number(),
            reason,
        };
        self.events.push(Event::Nacked { seq, code });
        self.push(now, session, Kind::Control, &Message::Nack(nack));
    }

    /// Sends a frame; a muted secondary drops it.
    pub(super) fn push(&mut self, now: Time, session: SessionId, kind: Kind, message: &Message) {
        self.push_frame(now, session, kind, message.encode());
    }

    /// The same for a sealed frame.
    pub(super) fn push_frame(
        &mut self,
        now: Time,
        session: SessionId,
        kind: Kind,
        frame: OutFrame,
    ) {
        if self.faults.is_muted(now) {
            return;
        }
        if let Some(link) = self.links.get_mut(&session) {
            self.outputs.send(session, link, kind, frame);
        }
    }

    pub(super) fn hello(&self) -> Hello {
        let (epoch, stored) = (self.engine.epoch().number(), self.engine.stored());
        let tail = self.log.prefix_id(stored).unwrap_or(PrefixId::EMPTY);
        Hello {
            log_id: self.engine.log_id().map(LogId::bytes),
            epoch,
            run_id: self.engine.run_id().value(),
            epoch_table: epoch_table(&self.log),
            stored: stored.number(),
            tail_epoch: tail.epoch.number(),
            tail_digest: tail.digest.value(),
            settled: self.engine.settled(tail.epoch).number(),
            commit: self.engine.levels().commit.number(),
            vouches: self.engine.vouches(),
            master_addr: self.master_addr.clone(),
            ..hello_of(&self.about, Role::Secondary, &[], Seq::ZERO)
        }
    }

    /// Brings a view up to date.
    pub(super) fn update(&self, view: &mut View) -> bool {
        let (local, levels) = (self.engine.visible(), self.engine.levels());
        let stored = self.engine.stored();
        let unserved_from = self.engine.contradicted_from();
        let damaged_from = self.engine.damage().map(|range| range.first);
        let hidden_from = unserved_from.into_iter().chain(damaged_from).min();
        let history = self.engine.log_id().map(|log_id| (log_id, self.engine.epoch()));
        let changed = view.local != local
            || view.stored != stored
            || view.hidden_from != hidden_from
            || view.unserved_from != unserved_from
            || view.levels != *levels
            || view.master_addr != self.master_addr
            || view.roster != self.roster
            || view.history != history;
        if changed {
            (view.local, view.stored, view.history) = (local, stored, history);
            (view.hidden_from, view.unserved_from) = (hidden_from, unserved_from);
            view.levels.clone_from(levels);
            view.roster.clone_from(&self.roster);
            view.master_addr.clone_from(&self.master_addr);
        }
        changed
    }

    /// What STATUS and HEALTH tell.
    pub(super) fn status_at(&self, now: Time) -> Status {
        let engine = &self.engine;
        let held = engine.held().iter().map(SeqRange::len).sum();
        let node = NodeStatus {
            id: self.about.id.to_string(),
            role: "secondary",
            epoch: engine.epoch(),
            mode: if engine.is_damaged() { "damaged" } else { "normal" }.to_owned(),
            next: engine.written().next(),
            commit: engine.levels().commit,
            quorum: None,
            present: None,
            log_id: engine.log_id(),
            uptime: now.since(Time::ZERO),
            waiting: 0,
            store: self.storage.kind(),
            fsync: self.storage.fsync(),
            disk_full: self.room.shortage.is_some(),
            damaged: damaged(&self.storage),
            aside: self.provisional.lock().aside_total() + self.aside,
            awaiting: String::new(),
        };
        let master = MasterStatus {
            addr: self.master_addr.clone(),
            connected: engine.session().is_some() && !self.contact.is_silent(now),
            last_contact: self.contact.since(now),
            held,
            duplicates: engine.duplicates(),
        };
        Status { node, secondaries: Vec::new(), master: Some(master) }
    }
}
