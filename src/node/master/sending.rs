//! How a master sends entries: from memory at once, from disk when another thread has read
//! them. The engine asks for no more to the same secondary before it hears that they were sent.

use tracing::debug;

use super::MasterNode;
use crate::engine::SessionId;
use crate::node::event::Event;
use crate::node::machine::Output;
use crate::node::queue::Kind;
use crate::node::reads::Asked;
use crate::node::storage::Storage;
use crate::store::Slice;
use crate::types::{NodeIndex, Time};
use crate::wire::codec::{AppendHead, encode_append};

impl<S: Storage> MasterNode<S> {
    pub(super) fn send(&mut self, now: Time, to: NodeIndex, session: SessionId, asked: Asked) {
        if self.log.is_cold(asked.range.first) {
            if let Some((session, asked)) = self.peer(to).reads.start(session, asked) {
                self.outputs.push(Output::Read { peer: to, session, asked });
            }
            return;
        }
        let slice = self.log.read(asked.range, asked.bytes_max);
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
        let log = &self.log;
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
        let peer = self.peer(to);
        debug!(peer = %peer.id, seq = %sent, bytes = slice.bytes, again = asked.again, "sent");
        let (bytes, again) = (slice.bytes, asked.again);
        self.push_frame(to, Kind::Entries(sent.last()), frame);
        self.engine.handle_sent(now, to, session, sent, bytes);
        self.events.push(Event::Sent { to, asked: asked.range, sent, bytes, again });
    }
}
