//! A whole node without I/O: engine, log, the queues of its connections, and what clients asked of it.
//!
//! No socket, file, thread, clock or random source is in here. Whoever carries a node ([`crate::runtime`]
//! with tokio, the simulator with a played network) tells it what happened by calls `handle_*(now, …)`,
//! lets it go on by [`Machine::step`] until nothing is left to decide, carries out what
//! [`Machine::poll_output`] says, and wakes it at [`Machine::poll_timeout`]. Bytes for a connection stay
//! in its [`queue::FrameQueue`] and are lent as slices until the socket has taken them, so that control
//! frames can still go first and the engine knows what has left.
//!
//! All that is rule or order lives here or in [`crate::engine`]: which frame of which connection counts,
//! what may overtake what, that a promise is kept before it is told, one read at a time, how a damaged
//! range is put together. The grammar is that of quinn-proto and quinn.

pub mod client;
pub mod event;
pub mod faults;
pub mod introduction;
mod links;
pub mod machine;
pub mod master;
pub mod queue;
pub mod reads;
pub mod room;
pub mod secondary;
pub mod session;
pub mod storage;
pub mod view;

pub use event::Event;
pub use machine::{About, Failure, Machine, Output};
pub use master::MasterNode;
pub use secondary::SecondaryNode;
pub use storage::Storage;
pub use view::View;
