//! The text protocol, pure: lines to commands, results to lines. Knows no socket.

pub mod command;
pub mod help;
pub mod reply;
pub mod status;
pub mod words;

pub use command::{AppendOptions, Command, ConcernWord, Fault, parse};
pub use reply::Refusal;
