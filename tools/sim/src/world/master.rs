//! The master's process, and what the checks want to know of it.

use std::collections::VecDeque;

use replog::engine::{AttemptFailure, HelloFacts, Master};
use replog::node::MasterNode as Node;
use replog::node::{Storage as _, View};
use replog::types::{Epoch, Seq};

use super::doors::Doors;
use super::process::{Sockets, first_view};
use super::store::SimStore;

/// What the checks remember of a secondary, as the master's process sees it.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Frames sent for the first time on this connection and not acknowledged: last entry, bytes.
    pub(super) under_way: VecDeque<(Seq, usize)>,
    /// The end of what was sent on this connection.
    pub(super) sent_end: Seq,
    /// Why the last attempt failed, since the last progress.
    pub(super) failure: Option<AttemptFailure>,
    pub(super) was_unhealthy: bool,
}

/// One life of the master.
pub(super) struct MasterNode {
    pub(super) node: Node<SimStore>,
    pub(super) sockets: Sockets,
    pub(super) peers: Vec<Peer>,
    pub(super) deposed: bool,
    /// Its epoch could not be written down.
    pub(super) unkept: bool,
    /// The epoch that it asked for first.
    pub(super) sought: Epoch,
    /// The highest commit position that any master showed.
    pub(super) shown_commit: Seq,
    /// What readers see.
    pub(super) view: View,
    /// The sessions of clients that speak bytes.
    pub(super) doors: Doors,
    /// Secondaries whose connection was lost in this turn.
    pub(super) lost: Vec<usize>,
    /// What they had answered: a reign that began in this turn may have counted it before.
    pub(super) answers_lost: Vec<HelloFacts>,
    /// The answers that were there when the last reign was decided.
    pub(super) led_with: Vec<HelloFacts>,
    /// What its own log had settled before that.
    pub(super) had_settled: Epoch,
}

impl MasterNode {
    pub(super) fn new(node: Node<SimStore>, nodes: usize, heartbeat_ms: u64) -> Self {
        let log = node.storage().log().reader();
        MasterNode {
            doors: Doors::new(log, heartbeat_ms),
            node,
            sockets: Sockets::default(),
            peers: (1..nodes).map(|_| Peer::default()).collect(),
            deposed: false,
            unkept: false,
            sought: Epoch::ZERO,
            shown_commit: Seq::ZERO,
            view: first_view(nodes),
            lost: Vec::new(),
            answers_lost: Vec::new(),
            led_with: Vec::new(),
            had_settled: Epoch::ZERO,
        }
    }

    pub(super) fn engine(&self) -> &Master {
        self.node.engine()
    }

    pub(super) fn store(&self) -> &SimStore {
        self.node.storage()
    }
}
