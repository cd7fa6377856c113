//! What every node's process has: a name, connections, and what it shows to readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use replog::engine::SessionId;
use replog::node::{About, View};
use replog::types::NodeIndex;

/// The connections of a node's process: which one each is, and whether its socket is full.
#[derive(Debug, Default)]
pub(super) struct Sockets(pub(super) BTreeMap<SessionId, Socket>);

impl Sockets {
    /// Which connection a session has.
    pub(super) fn conn(&self, session: SessionId) -> Option<usize> {
        self.0.get(&session).map(|socket| socket.conn)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) conn: usize,
    pub(super) is_full: bool,
}

/// What a node says of itself.
pub(super) fn about(node: usize) -> About {
    About {
        // Ids of nodes are words.
        id: format!("n{node}").parse().expect("BUG: a node's id is a word"),
        advertise: format!("n{node}:9000"),
        payload_max: 1 << 20,
    }
}

/// What readers of a node see that has decided nothing yet.
pub(super) fn first_view(nodes: usize) -> View {
    View::new((0..nodes).map(|node| about(node).id).collect::<Arc<[_]>>())
}

/// The index of a secondary.
pub(super) fn index(node: usize) -> NodeIndex {
    NodeIndex::secondary(node - 1)
}
