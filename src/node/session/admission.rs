//! What a session refuses before its node hears of it, at both doors in one order: role, size, `w`. Then
//! the engine's refusals follow: stopping, recovering, damaged, read-only, disk-full.

use super::Sight;
use crate::codes::Code;
use crate::gateway::{BadConcern, Refusal};
use crate::types::{Role, Seq};

/// Whether an append of so many bytes is admitted.
///
/// # Errors
/// It is nowhere.
pub fn admit_append(
    sight: Sight<'_>,
    bytes: usize,
    bad_concern: Option<&BadConcern>,
) -> Result<(), Refusal> {
    admit_role(sight)?;
    admit_size(sight, bytes)?;
    admit_concern(sight, bad_concern)
}

/// Appends are for the master.
///
/// # Errors
/// This node is another.
pub fn admit_role(sight: Sight<'_>) -> Result<(), Refusal> {
    match sight.site.role {
        Role::Master => Ok(()),
        Role::Secondary => Err(Refusal::not_master(sight.master_addr())),
    }
}

/// No payload is longer than `limits.payload_max`.
///
/// # Errors
/// This one is.
pub fn admit_size(sight: Sight<'_>, bytes: usize) -> Result<(), Refusal> {
    let max = sight.site.limits.payload_max;
    if bytes > max { Err(Refusal::too_large(bytes, max)) } else { Ok(()) }
}

/// A wait for an entry.
///
/// # Errors
/// The role, or a `w` that cannot be meant.
pub fn admit_wait(sight: Sight<'_>, bad_concern: Option<&BadConcern>) -> Result<(), Refusal> {
    if sight.site.role == Role::Secondary {
        return Err(master_only(sight));
    }
    admit_concern(sight, bad_concern)
}

/// A `w` that can be meant. More nodes than there are the engine refuses.
///
/// # Errors
/// It cannot.
pub fn admit_concern(sight: Sight<'_>, bad: Option<&BadConcern>) -> Result<(), Refusal> {
    match bad {
        None => Ok(()),
        Some(BadConcern(word)) => Err(Refusal::bad_write_concern(word, sight.roster().len())),
    }
}

/// WAIT and WAITERS are for the master.
pub fn master_only(sight: Sight<'_>) -> Refusal {
    let addr = sight.master_addr();
    let master = if addr.is_empty() { "-" } else { addr };
    let detail = format!("master={master} - only the master knows who holds what");
    Refusal::new(Code::MasterOnly, detail)
}

/// Fault verbs are for secondaries that were started with them.
///
/// # Errors
/// This node is no such one.
pub fn admit_faults(sight: Sight<'_>) -> Result<(), Refusal> {
    match sight.site.role {
        Role::Master => Err(Refusal::new(Code::SecondaryOnly, "- fault verbs are for secondaries")),
        Role::Secondary if !sight.site.faults => {
            Err(Refusal::new(Code::Denied, "- this node was started without --faults"))
        }
        Role::Secondary => Ok(()),
    }
}

/// An entry by hand.
///
/// # Errors
/// It may not be stored.
pub fn admit_store(sight: Sight<'_>, seq: Seq, bytes: usize) -> Result<(), Refusal> {
    admit_faults(sight)?;
    if seq == Seq::ZERO {
        return Err(Refusal::new(Code::BadValue, "seq=0 - entries are numbered from 1"));
    }
    admit_size(sight, bytes)
}
