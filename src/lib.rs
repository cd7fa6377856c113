//! replog: a small replicated log you can trust and see through.
//!
//! [`client`] is what a program that uses it needs, and all that is compiled without the features
//! `server` and `cli`.

pub mod address;
pub mod checksum;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod codes;
#[cfg(feature = "server")]
pub mod config;
mod connect;
pub mod descriptors;
pub mod engine;
pub mod gateway;
#[cfg(feature = "server")]
pub mod inspect;
pub mod limits;
#[cfg(feature = "server")]
pub mod logging;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod runtime;
#[cfg(any(feature = "server", feature = "cli"))]
pub mod signals;
pub mod store;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
pub mod types;
#[cfg(any(feature = "server", feature = "cli"))]
pub mod visible;
pub mod wire;
