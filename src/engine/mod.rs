//! The rules of replication, and nothing else: deterministic, without I/O, clock, thread, random
//! source or payload byte.
//!
//! Both sides live here: [`Master`] numbers entries, judges positions and health and decides what is
//! sent to whom; [`Secondary`] decides what is appended, held back, acknowledged or refused. Inputs
//! are calls `handle_*(now, …)` in the order of time; decisions leave as plain comparable values by
//! `poll_effect()`, and the next moment at which something is due by `poll_timeout()` (the grammar of
//! quinn-proto; effects as values from openraft). Whoever drives an engine calls `poll_effect()`
//! until it is empty after each input, and may call `handle_timeout(now)` as often as it likes.

pub mod contact;
pub mod effect;
pub mod health;
pub mod master;
pub mod progress;
pub mod quorum;
pub mod ranges;
pub mod secondary;
pub mod startup;
pub mod waiters;

pub use contact::{Contact, ContactNews};
pub use effect::{Effect, Mode, Refused, Submission};
pub use health::Health;
pub use master::{Master, MasterConfig, Reign};
pub use progress::{AckFacts, AttemptFailure, HelloFacts};
pub use quorum::Levels;
pub use secondary::{Arrival, Secondary, SecondaryEffect};
pub use startup::OwnLog;
pub use waiters::{Answer, Request, Token, Verdict};

/// Names one connection between two nodes for as long as the process lives. Events of a connection
/// that was replaced meanwhile carry an old id and are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);
