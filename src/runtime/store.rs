//! Opening a node's log, and what its disk has to say while the node runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::node::NodeError;
use super::places::open_segments;
use crate::config::{Config, Fsync as FsyncPolicy};
use crate::descriptors;
use crate::limits::{FRAME_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, ROOM_TOLD_INTERVAL, RUN_BYTES_MAX};
use crate::store::fs::RealFs;
use crate::store::{
    DiskEvent, DiskLog, DiskOptions, Fsync, LogStore, MemoryLog, Opened, Recovery, StoreError,
    SyncStats,
};
use crate::types::{NodeId, Seq, SeqRange, Shortage, Time};

/// So much is verified at once by the scrub …
const SCRUB_STEP_BYTES: usize = 256 << 10;
/// … every so often: about 2.5 MB/s, a pass over 200 GB a day.
const SCRUB_INTERVAL: Duration = Duration::from_millis(100);
/// A driver looks at its disk so often even if nothing happens: whether there is room again.
pub(super) const DISK_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a disk said since the driver last asked. Bounded: only what is newest counts.
#[derive(Debug, Default)]
pub(super) struct DiskNews {
    notify: Notify,
    // Held for an assignment; never across an await.
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    failed: Option<String>,
    damage: Vec<(SeqRange, String)>,
}

impl DiskNews {
    /// Comes back when there is something to look at.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Why a sync failed, if one did.
    pub(super) fn failed(&self) -> Option<String> {
        self.told().failed.clone()
    }

    /// What turned out to be unreadable since the last call, and why.
    pub(super) fn take_damage(&self) -> Vec<(SeqRange, String)> {
        std::mem::take(&mut self.told().damage)
    }

    fn tell(&self, event: DiskEvent) {
        /// More than anybody reads; what is damaged is known to the log itself.
        const DAMAGE_TOLD_MAX: usize = 64;
        let mut told = self.told();
        match event {
            DiskEvent::Durable(_) => {}
            DiskEvent::SyncFailed(reason) => told.failed = Some(reason),
            DiskEvent::Damage(range, why) if told.damage.len() < DAMAGE_TOLD_MAX => {
                told.damage.push((range, why));
            }
            DiskEvent::Damage(..) => {}
        }
        drop(told);
        self.notify.notify_one();
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest run for which a disk is to have room before it counts as full: what is sent at once, or
/// the largest entry that a client of this node may append. What another node sends may be longer; its
/// length is known when it is there.
fn run_bytes(payload_max: usize) -> usize {
    let record_bytes_beside = FRAME_BODY_BYTES_MAX - PAYLOAD_BYTES_MAX;
    RUN_BYTES_MAX.max(payload_max + record_bytes_beside)
}

/// Whether a node's disk has room, and what was said of it in the log.
#[derive(Debug, Default)]
pub(super) struct DiskRoom {
    /// What is missing now.
    pub(super) shortage: Option<Shortage>,
    /// Since when …
    since: Time,
    /// … and whether the log says so.
    is_told: bool,
    /// When the log said so last.
    told: Option<Time>,
    /// How often it was full since then without a word.
    untold: u32,
}

/// What is to be said of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoomNews {
    /// It is full, and was so many times since that was said last.
    Full(Shortage, u32),
    /// There is room again, after so long.
    Room(Duration),
}

impl DiskRoom {
    /// Takes what was found. A disk that is full and has room by turns is told once in a while.
    fn look(&mut self, now: Time, found: Option<Shortage>) -> Option<RoomNews> {
        let was_full = self.shortage.is_some();
        self.shortage = found;
        let Some(shortage) = found else {
            let full_for = now.since(self.since);
            return std::mem::take(&mut self.is_told).then_some(RoomNews::Room(full_for));
        };
        if !was_full {
            self.since = now;
            self.untold += 1;
        }
        let due = self.told.is_none_or(|told| now >= told.after(ROOM_TOLD_INTERVAL));
        if self.is_told || !due {
            return None;
        }
        (self.is_told, self.told) = (true, Some(now));
        Some(RoomNews::Full(shortage, std::mem::take(&mut self.untold)))
    }

    /// Takes what was found, and says in the log what is new.
    pub(super) fn note(&mut self, now: Time, id: &NodeId, found: Option<Shortage>) {
        match self.look(now, found) {
            None => {}
            Some(RoomNews::Full(shortage, times)) => {
                let Shortage { need, free, limit } = shortage;
                let limit = limit.to_string();
                warn!(
                    %id, need_bytes = need, free_bytes = free, limit, times,
                    "the disk is full: nothing more is taken into the log until there is room"
                );
            }
            Some(RoomNews::Room(full_for)) => {
                let full_ms = full_for.as_millis() as u64; // A node does not run that long.
                warn!(%id, full_ms, "the disk has room again");
            }
        }
    }
}

/// A node's log, wherever it is.
pub(super) enum Log {
    /// Lost when the process ends.
    Memory(MemoryLog),
    /// In segments.
    Disk(Box<DiskLog>, &'static str),
}

/// A log that was opened.
pub(super) struct OpenLog {
    pub(super) log: Log,
    pub(super) news: Arc<DiskNews>,
    /// Whether it holds all that it ever said it did.
    pub(super) whole: bool,
}

impl Log {
    /// Opens the log that the configuration names, and says how it was found.
    ///
    /// # Errors
    /// The directory is not ours to use, or the system refused.
    pub(super) fn open(config: &Config) -> Result<OpenLog, NodeError> {
        let news = Arc::new(DiskNews::default());
        let Some(dir) = &config.node.data_dir else {
            // What an empty log holds is all it ever said it did only if it never said anything.
            return Ok(OpenLog { log: Log::Memory(MemoryLog::new()), news, whole: false });
        };
        let mut options = DiskOptions::new(config.node.id.clone());
        options.segment_size = config.storage.segment_size;
        options.run_bytes = run_bytes(config.limits.payload_max) as u64;
        options.fsync = match config.storage.fsync {
            FsyncPolicy::Always => Fsync::Always,
            FsyncPolicy::Interval => Fsync::Interval(config.storage.fsync_interval),
            FsyncPolicy::Never => Fsync::Never,
        };
        options.open_segments = open_segments(descriptors::limit());
        let told = news.clone();
        let notify = Box::new(move |event| told.tell(event));
        let Opened { log, recovery } = DiskLog::open(Arc::new(RealFs), dir, options, notify)?;
        let identity = log.identity();
        let whole = identity.log_id.is_some()
            && identity.vouches
            && recovery.damage.is_empty()
            && !recovery.machine_loss_possible;
        tell_how_it_was_found(config, &log, &recovery);
        let policy = match config.storage.fsync {
            FsyncPolicy::Always => "always",
            FsyncPolicy::Interval => "interval",
            FsyncPolicy::Never => "never",
        };
        Ok(OpenLog { log: Log::Disk(Box::new(log), policy), news, whole })
    }

    /// `memory` or `disk`, as STATUS and the ready line say.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Log::Memory(_) => "memory",
            Log::Disk(..) => "disk",
        }
    }

    /// The fsync policy's name; empty in memory.
    pub(super) fn fsync(&self) -> &'static str {
        match self {
            Log::Memory(_) => "",
            Log::Disk(_, policy) => policy,
        }
    }

    /// What cannot be read, as STATUS says it; empty if all can.
    pub(super) fn damaged(&self) -> String {
        let damage = self.store().damage();
        damage.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// What syncing has cost; `None` in memory.
    pub(super) fn sync_stats(&self) -> Option<SyncStats> {
        match self {
            Log::Memory(_) => None,
            Log::Disk(log, _) => Some(log.sync_stats()),
        }
    }

    /// Syncs everything in the caller's thread, for the rare moment before a promise.
    pub(super) fn sync(&mut self) -> Seq {
        match self {
            Log::Memory(log) => log.bounds().last,
            Log::Disk(log, _) => log.sync_now(),
        }
    }

    /// Files that lie below `aside/`.
    pub(super) fn aside_files(&self) -> u64 {
        match self {
            Log::Memory(_) => 0,
            Log::Disk(log, _) => log.aside_files(),
        }
    }

    /// Verifies what is on disk, a little at a time and in another thread, until `end`. What it
    /// finds comes as news.
    pub(super) fn scrub(&self, end: CancellationToken) {
        let Log::Disk(log, _) = self else { return };
        let mut scrub = log.scrubber();
        let scrubbing = async move {
            loop {
                tokio::time::sleep(SCRUB_INTERVAL).await;
                let step = tokio::task::spawn_blocking(move || {
                    let step = scrub.step(SCRUB_STEP_BYTES);
                    (scrub, step)
                });
                let Ok((after, step)) = step.await else { return };
                scrub = after;
                for note in step.notes {
                    warn!(note, "the scrub found something that no entry is lost by");
                }
            }
        };
        tokio::spawn(async move { end.run_until_cancelled(scrubbing).await });
    }

    /// Looks whether the data directory is where it was, and says what had to be put back.
    ///
    /// # Errors
    /// It is not, or not usable any more: the node must end.
    pub(super) fn look_at_home(&mut self, id: &NodeId) -> Result<(), StoreError> {
        let Log::Disk(log, _) = self else { return Ok(()) };
        for note in log.look_at_home()? {
            warn!(%id, note, "somebody changed the data directory of a running node");
        }
        Ok(())
    }

    /// Leaves the log so that the next start knows that nothing is missing, and how far it was
    /// committed.
    ///
    /// # Errors
    /// The disk failed the last sync: the stop was asked for, and is no clean one.
    pub(super) fn leave(&mut self, commit: Seq, news: &DiskNews) -> Result<(), NodeError> {
        let mut identity = self.store().identity().clone();
        identity.commit = commit;
        match self.store_mut().set_identity(identity) {
            Ok(()) => {}
            Err(error @ StoreError::Failed { .. }) => return Err(error.into()),
            Err(error) => warn!(%error, "the commit position was not kept"),
        }
        self.store_mut().close();
        news.failed().map_or(Ok(()), |reason| Err(NodeError::SyncFailed(reason)))
    }

    /// Bytes that are free on the disk, if there is one and it says so.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        match self {
            Log::Memory(_) => None,
            Log::Disk(log, _) => log.free_bytes(),
        }
    }

    /// The store behind it.
    pub(super) fn store(&self) -> &dyn LogStore {
        match self {
            Log::Memory(log) => log,
            Log::Disk(log, _) => &**log,
        }
    }

    /// See [`Log::store`].
    pub(super) fn store_mut(&mut self) -> &mut dyn LogStore {
        match self {
            Log::Memory(log) => log,
            Log::Disk(log, _) => &mut **log,
        }
    }
}

fn tell_how_it_was_found(config: &Config, log: &DiskLog, recovery: &Recovery) {
    let (id, bounds) = (&config.node.id, log.bounds());
    if recovery.new {
        return info!(%id, "a new data directory");
    }
    info!(%id, seq = %bounds.last, bytes = bounds.bytes, clean = recovery.clean, "log opened");
    if let Some((seq, bytes, why)) = &recovery.cut {
        warn!(%id, %seq, bytes, why, "a torn tail was cut off; no sync had covered it");
    }
    if let Some((seq, file)) = &recovery.aside {
        warn!(%id, %seq, file, "entries behind a hole were moved aside");
    }
    for (range, why) in &recovery.damage {
        error!(%id, seq = %range, why, "part of the log is damaged; it is repaired from another node");
    }
    for note in &recovery.notes {
        warn!(%id, note, "damaged without an entry being lost");
    }
    if recovery.machine_loss_possible {
        warn!(%id, "the machine went down before all was synced: the tail may be gone, the other nodes are asked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RoomLimit;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_disk_that_is_full_by_turns_is_told_at_once_and_then_once_in_a_while() {
        let shortage = Shortage { need: 7, free: Some(1), limit: RoomLimit::Space };
        let mut room = DiskRoom::default();
        assert_eq!(room.look(at(1), None), None);
        assert_eq!(room.look(at(2), Some(shortage)), Some(RoomNews::Full(shortage, 1)));
        assert_eq!(room.look(at(3), Some(shortage)), None);
        assert_eq!(room.look(at(5), None), Some(RoomNews::Room(Duration::from_secs(3))));
        let mut told = 0;
        for second in 6..600 {
            let found = (second % 2 == 0).then_some(shortage);
            told += usize::from(room.look(at(second), found).is_some());
        }
        assert!((60..=120).contains(&told), "{told} lines in ten minutes");
        // What stays is told, however late.
        let mut room = DiskRoom::default();
        room.look(at(1), Some(shortage));
        room.look(at(2), None);
        assert_eq!(room.look(at(3), Some(shortage)), None);
        assert_eq!(room.look(at(20), Some(shortage)), Some(RoomNews::Full(shortage, 1)));
        assert_eq!(room.look(at(21), None), Some(RoomNews::Room(Duration::from_secs(18))));
    }

    #[test]
    fn room_is_kept_for_the_longest_entry_that_a_client_may_append() {
        assert_eq!(run_bytes(1000), RUN_BYTES_MAX);
        assert!(run_bytes(1 << 20) > 1 << 20 && run_bytes(1 << 20) < 2 << 20);
        assert!(run_bytes(16 << 20) > 16 << 20);
    }
}
