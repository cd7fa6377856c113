//! tokio: sockets, timers, tasks. Moves bytes and keeps no rule of replication.
//!
//! One task, the *driver*, carries a [`crate::node`]; connections talk to it through one
//! bounded channel in batches, and read the log by themselves. A node lives on one thread: with two
//! cores and several nodes a hop between tasks that costs no system call is worth more than a second
//! thread.

mod alarm;
mod client;
mod clock;
mod dev;
mod dial;
mod door;
mod driver;
mod error;
mod inbox;
mod link;
mod listen;
mod metrics;
mod node;
mod places;
mod reader;
mod reads;
mod room;
mod server;
mod service_manager;
mod signals;
mod store;
mod throttle;
mod wake;

pub use dev::run_dev;
pub use error::NodeError;
pub use node::run_node;
pub use signals::Signals;
