//! What a node needs of its log beside the entries.

use tracing::warn;

use super::machine::{DISK_LOOK_INTERVAL, Failure};
use crate::engine::OwnLog;
use crate::engine::secondary::Holdings;
use crate::store::{LogStore, MemoryLog, Run, StoreError};
use crate::types::{NodeId, Seq, SeqRange, Time};

/// A node's log with its disk. Calls return at once but where the trait says otherwise; what takes time
/// is done elsewhere and told by whoever carries the node with [`super::Machine::begin_turn`].
///
/// What is given here does as [`LogStore`] says, by the log itself; a played disk has its own ways.
pub trait Storage: Send {
    /// The log.
    fn log(&self) -> &dyn LogStore;

    /// The same, for its one owner.
    fn log_mut(&mut self) -> &mut dyn LogStore;

    /// See [`LogStore::append`].
    ///
    /// # Errors
    /// As there.
    fn append(&mut self, run: Run) -> Result<(), StoreError> {
        self.log_mut().append(run)
    }

    /// See [`LogStore::make_durable`].
    fn make_durable(&mut self, up_to: Seq) -> Seq {
        self.log_mut().make_durable(up_to)
    }

    /// See [`LogStore::set_aside`].
    ///
    /// # Errors
    /// As there.
    fn set_aside(&mut self, from: Seq, reason: &str) -> Result<u64, StoreError> {
        self.log_mut().set_aside(from, reason)
    }

    /// See [`LogStore::begin_repair`].
    ///
    /// # Errors
    /// As there.
    fn begin_repair(&mut self, run: Run) -> Result<(), StoreError> {
        self.log_mut().begin_repair(run)
    }

    /// See [`LogStore::take_repaired`].
    fn take_repaired(&mut self) -> Option<(SeqRange, Result<(), StoreError>)> {
        self.log_mut().take_repaired()
    }

    /// Whether there is a disk that may be full, fail or be found damaged.
    fn is_disk(&self) -> bool;

    /// `memory` or `disk`, as STATUS says it.
    fn kind(&self) -> &'static str {
        if self.is_disk() { "disk" } else { "memory" }
    }

    /// The fsync policy's name; empty in memory.
    fn fsync(&self) -> &'static str;

    /// Whether, when it was opened, it held all that it ever said it did.
    fn was_whole(&self) -> bool;

    /// Syncs everything before it returns, for the rare moment before a promise. Answers what is
    /// stored.
    fn sync_now(&mut self) -> Seq;

    /// Why a sync failed, if one did.
    fn sync_failure(&self) -> Option<String>;

    /// What turned out to be unreadable since the last call, and why.
    fn take_found_damage(&mut self) -> Vec<(SeqRange, String)>;

    /// Looks whether the log is where it was, and answers what had to be put back.
    ///
    /// # Errors
    /// It is not, or not usable any more: the node must end.
    fn look_at_home(&mut self) -> Result<Vec<String>, StoreError>;

    /// Files with entries that were moved aside.
    fn aside_files(&self) -> u64;
}

/// What an empty log in memory holds is all it ever said it did only if it never said anything.
impl Storage for MemoryLog {
    fn log(&self) -> &dyn LogStore {
        self
    }

    fn log_mut(&mut self) -> &mut dyn LogStore {
        self
    }

    fn is_disk(&self) -> bool {
        false
    }

    fn fsync(&self) -> &'static str {
        ""
    }

    fn was_whole(&self) -> bool {
        false
    }

    fn sync_now(&mut self) -> Seq {
        self.log().bounds().last
    }

    fn sync_failure(&self) -> Option<String> {
        None
    }

    fn take_found_damage(&mut self) -> Vec<(SeqRange, String)> {
        Vec::new()
    }

    fn look_at_home(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn aside_files(&self) -> u64 {
        0
    }
}

/// What cannot be read, as STATUS says it; empty if all can.
pub fn damaged(storage: &impl Storage) -> String {
    storage.log().damage().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What a master's engine must know of the log it starts with.
pub fn own_log(storage: &impl Storage) -> OwnLog {
    let (bounds, identity) = (storage.log().bounds(), storage.log().identity());
    OwnLog {
        log_id: identity.log_id,
        epoch: identity.epoch,
        last: bounds.last,
        tail_epoch: bounds.tail.epoch,
        settled: identity.settled,
        commit: identity.commit,
        whole: storage.was_whole(),
    }
}

/// What a secondary's engine must know of the log it starts with.
pub fn holdings(storage: &impl Storage) -> Holdings {
    let (bounds, identity) = (storage.log().bounds(), storage.log().identity());
    Holdings {
        log_id: identity.log_id,
        epoch: identity.epoch,
        run_id: identity.run_id,
        last: bounds.last,
        tail: bounds.tail,
        settled: identity.settled,
        commit: identity.commit,
        vouches: storage.was_whole(),
    }
}

/// Hears whether a node's disk still works, and once in a while whether the log is where it was: `look_at`
/// is when that is due. Answers whether it was: then is the time for all that asks the system.
///
/// # Errors
/// The node cannot go on.
pub fn hear(
    storage: &mut impl Storage,
    id: &NodeId,
    now: Time,
    look_at: &mut Time,
) -> Result<bool, Failure> {
    if let Some(reason) = storage.sync_failure() {
        return Err(Failure::SyncFailed(reason));
    }
    if now < *look_at {
        return Ok(false);
    }
    *look_at = now.after(DISK_LOOK_INTERVAL);
    for note in storage.look_at_home()? {
        warn!(%id, note, "somebody changed the data directory of a running node");
    }
    Ok(true)
}

/// Leaves a log so that the next start knows that nothing is missing, and how far it was committed.
///
/// # Errors
/// The disk failed the last sync, or does not take what is to be kept.
pub fn leave(storage: &mut impl Storage, commit: Seq) -> Result<(), Failure> {
    let mut identity = storage.log().identity().clone();
    identity.commit = commit;
    match storage.log_mut().set_identity(identity) {
        Ok(()) => {}
        Err(error @ StoreError::Failed { .. }) => return Err(error.into()),
        Err(error) => warn!(%error, "the commit position was not kept"),
    }
    storage.log_mut().close();
    storage.sync_failure().map_or(Ok(()), |reason| Err(Failure::SyncFailed(reason)))
}
