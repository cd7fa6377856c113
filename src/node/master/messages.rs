//! What a master hears of its secondaries.

use tracing::{debug, info, warn};

use super::{MasterNode, Peer};
use crate::codes::{NackCode, RefuseCode};
use crate::engine::startup::last_common;
use crate::engine::{AckFacts, HelloFacts, Reign, SessionId};
use crate::limits::ROOM_TOLD_INTERVAL;
use crate::node::event::Event;
use crate::node::introduction::{cut, epoch_row, fault_of, held_ranges};
use crate::node::links::Link;
use crate::node::storage::Storage;
use crate::types::{Digest, Epoch, LogId, NodeIndex, PrefixId, RunId, Seq, Time};
use crate::wire::Message;
use crate::wire::codec::{self, Hello, Refuse};

/// Why a connection attempt failed.
#[derive(Debug)]
pub enum DialFailure {
    /// No connection, or no introduction.
    Unreachable(String),
    /// The secondary refused us.
    Refused(Refuse),
}

impl<S: Storage> MasterNode<S> {
    /// A connection attempt of [`Output::Dial`] ended.
    ///
    /// [`Output::Dial`]: crate::node::Output::Dial
    pub fn handle_dialled(
        &mut self,
        now: Time,
        to: NodeIndex,
        session: SessionId,
        result: Result<Hello, DialFailure>,
    ) {
        match result {
            Ok(hello) => {
                self.let_go(to, None);
                let peer = self.peer(to);
                info!(peer = %peer.id, addr = %peer.addr, "connected");
                peer.link = Some((session, Link::default()));
                (peer.error, peer.nack) = (None, None);
                peer.last_contact = Some(now);
                self.introduced(now, to, session, &hello);
            }
            Err(DialFailure::Refused(refuse)) => {
                self.note_refusal(to, &refuse);
                let code = RefuseCode::from_number(refuse.code).unwrap_or(RefuseCode::BadFrame);
                self.engine.handle_refused(to, session, code, Epoch::new(refuse.epoch));
            }
            Err(DialFailure::Unreachable(reason)) => {
                let peer = self.peer(to);
                if peer.error.as_ref() != Some(&reason) {
                    info!(peer = %peer.id, addr = %peer.addr, reason, "cannot connect");
                }
                peer.error = Some(reason);
                self.engine.handle_dial_failed(now, to);
            }
        }
    }

    fn introduced(&mut self, now: Time, to: NodeIndex, session: SessionId, hello: &Hello) {
        if let Some(fault) = fault_of(hello) {
            let code = Some(RefuseCode::BadFrame);
            return self.disconnected(to, session, code, fault.to_owned());
        }
        let leads = self.engine.reign() == Reign::Leading;
        let peer = self.peer(to);
        // Sent before the reign began, it could not say where that begins: it is said once more.
        let leading = peer.leading && (peer.told_as_leader || !leads);
        if hello.role != codec::Role::Secondary || hello.node_id != peer.id.as_str() {
            let reason = format!("{} says it is {:?}", peer.addr, cut(&hello.node_id));
            warn!(peer = %peer.id, reason, "refused: the roster is wrong");
            peer.error = Some(reason);
            self.close(to, RefuseCode::WrongNode);
            return self.engine.handle_refused(to, session, RefuseCode::WrongNode, Epoch::ZERO);
        }
        let stored = Seq::new(hello.stored);
        let facts = HelloFacts {
            log_id: hello.log_id.map(LogId::new),
            epoch: Epoch::new(hello.epoch),
            run_id: RunId::new(hello.run_id),
            stored,
            tail: PrefixId {
                epoch: Epoch::new(hello.tail_epoch),
                digest: Digest::new(hello.tail_digest),
            },
            settled: Epoch::new(hello.settled),
            ours: self.log.prefix_id(stored),
            commit: Seq::new(hello.commit),
            vouches: hello.vouches,
            common: last_common(
                &self.log.epoch_table(),
                self.storage.log().bounds().last,
                &hello.epoch_table.iter().map(epoch_row).collect::<Vec<_>>(),
                stored,
            ),
        };
        self.engine.handle_introduced(now, to, session, facts, leading);
    }

    pub(super) fn message(
        &mut self,
        now: Time,
        from: NodeIndex,
        session: SessionId,
        message: Message,
    ) {
        let epoch = self.engine.epoch();
        match message {
            Message::Ack(ack) if ack.epoch == epoch.number() => {
                let Some(held) = held_ranges(&ack) else {
                    let reason = "an ACK whose held ranges are not ascending".to_owned();
                    let code = Some(RefuseCode::BadFrame);
                    return self.disconnected(from, session, code, reason);
                };
                let (stored, received) = (Seq::new(ack.stored), Seq::new(ack.received));
                debug!(peer = %self.peer(from).id, seq = ack.stored, received = ack.received, held = ack.held.len(), "ack");
                self.peer(from).nack = None;
                let facts = AckFacts { stored, received, held, duplicates: ack.duplicates };
                self.engine.handle_ack(now, from, session, facts);
            }
            Message::Nack(nack) if nack.epoch == epoch.number() => {
                let peer = self.peer(from);
                let known = NackCode::from_number(nack.code);
                let code = known.map_or("unknown", NackCode::word);
                let reason = cut(&nack.reason);
                // One that comes and goes is told once in a while.
                let told = peer
                    .nack_told
                    .filter(|&(told, at)| told == nack.code && now < at.after(ROOM_TOLD_INTERVAL));
                let is_news = peer.nack.replace(nack.code) != Some(nack.code) && told.is_none();
                if !is_news {
                    debug!(peer = %peer.id, seq = nack.seq, code, reason, "nack");
                } else {
                    peer.nack_told = Some((nack.code, now));
                    warn!(peer = %peer.id, seq = nack.seq, code, reason, "nack");
                }
                peer.error = Some(format!("{code} at {}: {reason}", nack.seq));
                self.engine.handle_nack(now, from, session, known);
            }
            Message::Fetched(head, records)
                if head.epoch == epoch.number() && self.engine.awaits_entries(from, session) =>
            {
                self.fetched(now, from, session, head, records);
            }
            // Asked for before what is damaged was found to be another.
            Message::Fetched(head, _)
                if head.epoch == epoch.number() && self.engine.damage().is_some() => {}
            // One that asked, or was of an epoch that had to be raised, may be answered late.
            Message::HeartbeatAck(ack)
                if ack.epoch == 0
                    || ack.epoch == epoch.number()
                    || self.engine.reign() != Reign::Leading =>
            {
                let peer = self.peer(from);
                if ack.number == peer.heartbeat {
                    peer.rtt = Some(now.since(peer.heartbeat_sent));
                }
            }
            // Only as an answer: positions travel in ACKs otherwise.
            Message::Hello(hello) if self.peer(from).introducing > 0 => {
                let peer = self.peer(from);
                peer.introducing -= 1;
                // Of several under way the last one is judged.
                if peer.introducing == 0 {
                    self.introduced(now, from, session, &hello);
                }
            }
            Message::Ack(_) | Message::Nack(_) | Message::HeartbeatAck(_) => {
                let reason = "a frame of another epoch".to_owned();
                self.disconnected(from, session, Some(RefuseCode::StaleEpoch), reason);
            }
            Message::Refuse(refuse) => {
                self.note_refusal(from, &refuse);
                self.let_go(from, None);
                let code = RefuseCode::from_number(refuse.code).unwrap_or(RefuseCode::BadFrame);
                self.engine.handle_refused(from, session, code, Epoch::new(refuse.epoch));
            }
            _ => {
                let reason = "a frame that a secondary does not send".to_owned();
                self.disconnected(from, session, Some(RefuseCode::BadFrame), reason);
            }
        }
    }

    fn note_refusal(&mut self, to: NodeIndex, refuse: &codec::Refuse) {
        let code = RefuseCode::from_number(refuse.code).map_or("unknown", RefuseCode::word);
        let error = format!("refused {code}: {}", cut(&refuse.reason));
        let peer = self.peer(to);
        if peer.error.as_ref() != Some(&error) {
            warn!(peer = %peer.id, code, epoch = refuse.epoch, reason = cut(&refuse.reason), "refused by the secondary");
        }
        peer.error = Some(error);
    }

    pub(super) fn disconnected(
        &mut self,
        peer: NodeIndex,
        session: SessionId,
        refuse: Option<RefuseCode>,
        reason: String,
    ) {
        if let Some(code) = refuse {
            self.events.push(Event::Turned(code));
        }
        let of = self.peer(peer);
        info!(peer = %of.id, reason, "disconnected");
        self.let_go(peer, refuse.map(|code| (code, reason.as_str())));
        self.peer(peer).error = Some(reason);
        self.engine.handle_disconnected(peer, session);
    }

    pub(super) fn close(&mut self, to: NodeIndex, code: RefuseCode) {
        if self.peer(to).link.is_some() {
            self.events.push(Event::Turned(code));
        }
        self.let_go(to, Some((code, code.word())));
    }

    /// Lets go of the connection to a peer, if there is one.
    pub(super) fn let_go(&mut self, to: NodeIndex, refuse: Option<(RefuseCode, &str)>) {
        let epoch = self.engine.epoch();
        if let Some((session, link)) = self.peer(to).link.take() {
            let words = refuse.map(|(code, reason)| (code, epoch, reason));
            self.outputs.close(session, link, words);
        }
    }

    /// Whose connection this is.
    pub(super) fn peer_of(&self, session: SessionId) -> Option<NodeIndex> {
        let is_it = |peer: &Peer| peer.link.as_ref().is_some_and(|(of, _)| *of == session);
        self.peers.iter().position(is_it).map(NodeIndex::secondary)
    }

    pub(super) fn peer(&mut self, index: NodeIndex) -> &mut Peer {
        // Indices are made from the roster: a secondary's is never that of the master.
        &mut self.peers[index.as_usize() - 1]
    }
}
