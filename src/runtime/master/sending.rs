//! How the master's driver sends entries: from memory at once, from disk when another thread has read
//! them. The engine asks for no more to the same secondary before it hears that they were sent.

use tracing::debug;

use super::MasterDriver;
use crate::engine::SessionId;
use crate::runtime::link::Kind;
use crate::runtime::reads::Asked;
use crate::store::Slice;
use crate::types::{NodeIndex, Time};
use crate::wire::codec::{AppendHead, encode_append};

impl MasterDriver {
    pub(super) fn send(&mut self, now: Time, to: NodeIndex, session: SessionId, asked: Asked) {
        if self.node.log.is_cold(asked.range.first) {
            let node = self.node.clone();
            return self.peer(to).reads.start((&node.log, &node.driver), to, session, asked);
        }
        let slice = self.node.log.read(asked.range, asked.bytes_max);
        self.send_slice(now, to, session, asked, slice);
    }

    pub(super) fn send_slice(
        &mut self,
        now: Time,
        to: NodeIndex,
        session: SessionId,
        asked: Asked,
        slice: Slice,
    ) {
        let first = asked.range.first;
        let log = &self.node.log;
        let before = slice.before.or_else(|| log.prefix_id(first.previous()));
        let (Some(sent), Some(previous)) = (slice.range, before) else {
            if log.is_unreadable(first) || log.is_unreadable(first.previous()) {
                // It became unreadable since it was written: it goes on when it is repaired.
                return self.engine.handle_unreadable(to, session);
            }
            let reason = format!("entry {first} cannot be read now");
            return self.disconnected(to, session, None, reason);
        };
        let head = AppendHead {
            epoch: self.engine.epoch().number(),
            first: sent.first.number(),
            count: sent.len() as u32, // At most RUN_ENTRIES_MAX.
            previous_epoch: previous.epoch.number(),
            previous_digest: previous.digest.value(),
            levels: self.levels(to),
        };
        let frame = encode_append(&head, slice.pieces);
        if asked.again {
            self.node.metrics.repeated(&self.peers[to.as_usize() - 1].id, sent.len());
        }
        let peer = self.peer(to);
        debug!(peer = %peer.id, seq = %sent, bytes = slice.bytes, again = asked.again, "sent");
        if let Some(link) = &mut peer.link {
            link.push_frame(Kind::Entries(sent.last()), frame);
        }
        self.engine.handle_sent(now, to, session, sent, slice.bytes);
        self.flush(now, to);
    }
}
