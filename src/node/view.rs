//! What a node shows to everybody after each turn.

use std::sync::Arc;

use crate::engine::Levels;
use crate::types::{Epoch, LogId, NodeId, Seq};

/// See the module. Readers decide by it what of the log they may show.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The last entry that this node has without holes.
    pub local: Seq,
    /// The last entry that is stored, as the fsync policy says, with every one before it.
    pub stored: Seq,
    /// Reading in order ends before this entry: it cannot be read, or contradicts the master's log.
    pub hidden_from: Option<Seq>,
    /// From this entry on nothing is served at all: the log contradicts the master's.
    pub unserved_from: Option<Seq>,
    /// How far how many nodes have the log.
    pub levels: Levels,
    /// The nodes as far as known, the master first.
    pub roster: Arc<[NodeId]>,
    /// The master's wire address; empty before first contact.
    pub master_addr: String,
    /// The history and the epoch of it that this node leads or follows.
    pub history: Option<(LogId, Epoch)>,
    /// Whether this node accepts appends.
    pub accepts: bool,
}

impl View {
    /// That of a node that has decided nothing yet.
    pub fn new(roster: Arc<[NodeId]>) -> Self {
        View {
            local: Seq::ZERO,
            stored: Seq::ZERO,
            hidden_from: None,
            unserved_from: None,
            levels: Levels::empty(roster.len()),
            roster,
            master_addr: String::new(),
            history: None,
            accepts: false,
        }
    }
}
