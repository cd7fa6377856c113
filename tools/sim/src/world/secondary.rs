//! The process of a secondary, and what the checks want to know of it.

use replog::engine::Secondary;
use replog::node::SecondaryNode as Node;
use replog::node::View;
use replog::types::Seq;

use super::process::{Sockets, first_view};
use super::store::SimStore;

/// One life of a secondary.
pub(super) struct SecondaryNode {
    pub(super) node: Node<SimStore>,
    pub(super) sockets: Sockets,
    pub(super) next_session: u64,
    /// What readers see.
    pub(super) view: View,
    /// What the life before had stored, if it was wiped and this one has not caught up yet.
    pub(super) refill: Seq,
    /// Where what was set aside in this turn began.
    pub(super) aside: Option<Seq>,
    /// A run whose turn had come was dropped for want of room, and none was appended since.
    pub(super) dropped: bool,
}

impl SecondaryNode {
    pub(super) fn new(node: Node<SimStore>) -> Self {
        SecondaryNode {
            node,
            sockets: Sockets::default(),
            next_session: 1,
            view: first_view(0),
            refill: Seq::ZERO,
            aside: None,
            dropped: false,
        }
    }

    pub(super) fn engine(&self) -> &Secondary {
        self.node.engine()
    }

    pub(super) fn store(&self) -> &SimStore {
        self.node.storage()
    }
}
