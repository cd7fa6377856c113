//! Harness of the black-box tests: real processes on loopback, driven and observed only through
//! what a user has: flags, signals, the text gateway, the command line and the log on stderr.

// Every test file is a crate of its own and uses its own part of the harness.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod cluster;
mod fields;
mod gateway;
mod material;
mod process;
mod proxy;
mod wait;

pub use cluster::{Cluster, Node, Setup, loopback, reserve_addr};
pub use fields::Fields;
pub use gateway::{Gateway, Listing, Status};
pub use material::{Noise, escaped, real_looking_lines};
pub use process::{
    Finished, Process, Ready, replog, replog_cli, run_to_end, under_shell, with_files_max,
};
pub use proxy::Proxy;
pub use wait::{DEADLINE, READ_TIMEOUT, wait_until};
