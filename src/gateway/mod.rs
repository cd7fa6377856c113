//! The text protocol, pure: lines to commands, results to lines. Knows no socket.

pub mod command;
mod options;
pub mod reply;
pub mod status;
pub mod verbs;
pub mod words;

pub use command::{BadConcern, Command, Fault};
pub use reply::Refusal;
pub use verbs::parse;
