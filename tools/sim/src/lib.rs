//! Hunts for replog's mistakes.
//!
//! [`history`] is what clients and readers saw, and the checker that says whether a correct log can
//! have answered so. [`chaos`] (`replog-chaos`) makes histories with real processes behind [`proxy`]s.
//!
//! The simulator (`replog-sim`) plays whole clusters in virtual time: [`plan`] draws what happens from a
//! seed, [`world`] plays it and checks what must hold, [`runner`] plays many and survives those that
//! end in a failed assertion, [`shrink`] makes a failing plan small, [`report`] says what was seen, and
//! [`power`] proves by deliberate bugs that the simulator can see any.

pub mod chaos;
pub mod history;
pub mod plan;
pub mod power;
pub mod proxy;
pub mod report;
pub mod rng;
pub mod runner;
pub mod shrink;
pub mod sometimes;
pub mod trace;
pub mod world;
