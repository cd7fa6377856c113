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
use crate::store::fs::RealFs;
use crate::store::{
    DiskEvent, DiskLog, DiskOptions, Fsync, LogStore, MemoryLog, Opened, Recovery, SyncStats,
};
use crate::types::{Seq, SeqRange};

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
