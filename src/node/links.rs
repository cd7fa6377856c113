//! The connections of a node, and what is to be done for them.

use std::collections::VecDeque;

use super::machine::Output;
use super::queue::{Flushed, FrameQueue, Kind};
use crate::codes::RefuseCode;
use crate::engine::SessionId;
use crate::limits::LINK_FRAMES_MAX;
use crate::types::Epoch;
use crate::wire::codec::Refuse;
use crate::wire::{Message, OutFrame};

/// A connection to another node.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) queue: FrameQueue,
    /// Whoever carries the node knows that bytes wait.
    is_told: bool,
    /// The peer did not take all that was there the last time.
    is_blocked: bool,
}

/// What is to be done, in order.
#[derive(Debug, Default)]
pub(super) struct Outputs(VecDeque<Output>);

impl Outputs {
    pub(super) fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    /// Queues a frame on a connection.
    pub(super) fn send(
        &mut self,
        session: SessionId,
        link: &mut Link,
        kind: Kind,
        frame: OutFrame,
    ) {
        link.queue.push(kind, frame);
        if !std::mem::replace(&mut link.is_told, true) {
            self.push(Output::Write { session });
        }
    }

    /// Lets go of a connection; with a code the peer is told why.
    pub(super) fn close(
        &mut self,
        session: SessionId,
        mut link: Link,
        refuse: Option<(RefuseCode, Epoch, &str)>,
    ) {
        let last_words = refuse.map(|(code, epoch, reason)| {
            let reason = reason.to_owned();
            let refuse = Refuse { code: code.number(), epoch: epoch.number(), reason };
            link.queue.push(Kind::Control, Message::Refuse(refuse).encode());
            link.queue
        });
        self.push(Output::Close { session, last_words });
    }
}

impl Link {
    /// So many bytes are on their way; what is queued from now on is told anew, unless some are left,
    /// for which whoever carries the node waits.
    pub(super) fn taken(&mut self, bytes: usize) -> Flushed {
        let flushed = self.queue.taken(bytes);
        self.is_told = !self.queue.is_empty();
        self.is_blocked = self.is_told;
        flushed
    }

    /// Whether more entries wait than a peer that takes them would let wait.
    pub(super) fn is_stuck(&self) -> bool {
        let waiting = self.queue.entry_frames();
        waiting >= LINK_FRAMES_MAX || self.is_blocked && waiting > 0
    }
}
