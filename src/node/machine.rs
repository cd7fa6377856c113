//! The calls by which a node is carried.

use std::time::Duration;

use super::event::Event;
use super::queue::FrameQueue;
use super::reads::Asked;
use super::view::View;
use crate::codes::RefuseCode;
use crate::engine::{Levels, SessionId};
use crate::gateway::status::Status;
use crate::store::{Slice, StoreError};
use crate::types::{Epoch, NodeId, NodeIndex, Seq, Shortage, Time};
use crate::wire::Message;
use crate::wire::codec::Hello;

/// A node looks at its disk so often even if nothing happens: whether there is room again.
pub const DISK_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a node says of itself to everybody.
#[derive(Clone, Debug)]
pub struct About {
    /// Its id.
    pub id: NodeId,
    /// The wire address told to others.
    pub advertise: String,
    /// The largest payload that its clients may append, in bytes.
    pub payload_max: usize,
}

/// What is to be done for a node. Each connection is named by its session.
#[derive(Debug)]
pub enum Output {
    /// Bytes wait for a connection: see [`Machine::queue`]. Told again only when there are more.
    Write {
        /// Which.
        session: SessionId,
    },
    /// A connection is not the node's any more. Last words go out as far as it takes them at once.
    Close {
        /// Which.
        session: SessionId,
        /// What it says.
        last_words: Option<FrameQueue>,
    },
    /// Connect to a secondary, exchange HELLOs, and tell [`super::MasterNode::handle_dialled`].
    Dial {
        /// To whom.
        to: NodeIndex,
        /// The name of the connection, should there be one.
        session: SessionId,
        /// Where.
        addr: String,
        /// How the node introduces itself.
        hello: Box<Hello>,
    },
    /// Read entries that are not in memory, and tell [`Machine::handle_read`].
    Read {
        /// For whom.
        peer: NodeIndex,
        /// On which connection they are wanted.
        session: SessionId,
        /// Which.
        asked: Asked,
    },
}

/// Why a node must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The store cannot go on.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk failed a sync: what it says from now on proves nothing.
    #[error("the disk failed to sync the log: {0}")]
    SyncFailed(String),
    /// Another master reigns.
    #[error("deposed: {by} promised epoch {epoch} to another master")]
    Deposed {
        /// Who said so.
        by: NodeId,
        /// The epoch of the other master.
        epoch: Epoch,
    },
}

/// A node as its carrier sees it. After one call or some, [`Machine::step`] is called until it answers
/// `false`, and what [`Machine::poll_output`] gives is carried out, until there is nothing of either. What
/// answers a frame is there when [`Machine::handle_message`] returns: if it is carried out before the next
/// frame is handed in, each heartbeat gets an answer of its own. Answers that have to wait replace one
/// another.
pub trait Machine {
    /// A turn begins: timers that are due fire, and the disk is heard.
    fn begin_turn(&mut self, now: Time);

    /// Carries out one thing that was decided. Returns whether there may be more.
    fn step(&mut self, now: Time) -> bool;

    /// When [`Machine::begin_turn`] is to be called at the latest.
    fn poll_timeout(&self) -> Option<Time>;

    /// What is to be done next.
    fn poll_output(&mut self) -> Option<Output>;

    /// What happened since the last call.
    fn drain_events(&mut self) -> std::vec::Drain<'_, Event>;

    /// Why the node must end, once there is a reason. Nothing it has not said yet may be said then.
    fn failure(&self) -> Option<&Failure>;

    /// Frames came on a connection. Returns whether it is one of the node's.
    fn handle_heard(&mut self, now: Time, session: SessionId) -> bool;

    /// A frame came. Frames of connections that are no longer the node's are ignored.
    fn handle_message(&mut self, now: Time, session: SessionId, message: Message);

    /// A connection ended; with a code if the peer is to be refused for what it sent.
    fn handle_closed(
        &mut self,
        now: Time,
        session: SessionId,
        refuse: Option<RefuseCode>,
        reason: &str,
    );

    /// What waits for a connection.
    fn queue(&self, session: SessionId) -> Option<&FrameQueue>;

    /// A connection took so many bytes of what waits for it.
    fn handle_taken(&mut self, now: Time, session: SessionId, bytes: usize);

    /// What [`Output::Read`] asked for was read.
    fn handle_read(
        &mut self,
        now: Time,
        peer: NodeIndex,
        session: SessionId,
        asked: Asked,
        slice: Slice,
    );

    /// Brings a view up to date. Returns whether it changed.
    fn show(&self, view: &mut View) -> bool;

    /// Everything that STATUS and HEALTH tell.
    fn status(&self, now: Time) -> Status;

    /// How far how many nodes have the log, as this one knows it.
    fn levels(&self) -> &Levels;

    /// What this node has stored.
    fn stored(&self) -> Seq;

    /// What the disk is short of.
    fn shortage(&self) -> Option<Shortage>;

    /// Leaves the log so that the next start knows that nothing is missing, and how far it was
    /// committed.
    ///
    /// # Errors
    /// The disk failed: the stop was asked for, and is no clean one.
    fn leave(&mut self) -> Result<(), Failure>;
}
