//! Real processes on loopback, treated badly: `replog-chaos`.
//!
//! A cluster of the real binaries stands behind [`Proxy`](crate::proxy::Proxy)s. For some time
//! producers and readers work, while a [`schedule`] drawn from a seed kills, pauses and cuts off.
//! Then everything is healed, the logs are compared, and the history of all that the clients saw is
//! judged by [`check`](crate::history::check). The schedule is the same for the same seed; what the
//! processes make of it is not.

pub mod clients;
pub mod cluster;
pub mod recorder;
pub mod run;
pub mod schedule;

pub use run::{Outcome, Settings, run};
pub use schedule::Trouble;
