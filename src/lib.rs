//! replog: a small replicated log you can trust and see through.
pub mod address;
pub mod checksum;
pub mod cli;
pub mod client;
pub mod codes;
pub mod config;
mod connect;
pub mod descriptors;
pub mod engine;
pub mod gateway;
pub mod inspect;
pub mod limits;
pub mod logging;
pub mod runtime;
pub mod sabotage;
pub mod store;
#[doc(hidden)]
pub mod testing;
pub mod types;
pub mod visible;
pub mod wire;
