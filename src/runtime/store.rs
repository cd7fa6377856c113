//! Opening a node's log, and what its disk has to say while the node runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::error::NodeError;
use super::places::open_segments;
use crate::config::{Config, Fsync as FsyncPolicy};
use crate::descriptors;
use crate::limits::{FRAME_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, RUN_BYTES_MAX};
use crate::node::Storage;
use crate::store::fs::{Fs, RealFs};
use crate::store::{
    DiskEvent, DiskLog, DiskOptions, Fsync, LogStore, MemoryLog, Opened, Recovery, StoreError,
    SyncStats,
};
use crate::types::{Seq, SeqRange};

/// So much is verified at once by the scrub …
const SCRUB_STEP_BYTES: usize = 256 << 10;
/// … every so often: about 2.5 MB/s, a pass over 200 GB a day.
const SCRUB_INTERVAL: Duration = Duration::from_millis(100);
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
            DiskEvent::Durable(_) | DiskEvent::JobDone => {}
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

/// Where a log is.
enum Log {
    /// Lost when the process ends.
    Memory(MemoryLog),
    /// In segments.
    Disk(Box<DiskLog>),
}

/// A node's log, and what its disk says of it.
pub(super) struct NodeLog {
    log: Log,
    pub(super) news: Arc<DiskNews>,
    /// The fsync policy's name; empty in memory.
    policy: &'static str,
    /// Whether it held all that it ever said it did when it was opened.
    was_whole: bool,
}

impl NodeLog {
    /// Opens the log that the configuration names, and says how it was found.
    ///
    /// # Errors
    /// The directory is not ours to use, or the system refused.
    pub(super) fn open(config: &Config) -> Result<NodeLog, NodeError> {
        NodeLog::open_on(Arc::new(RealFs), config)
    }

    fn open_on(fs: Arc<dyn Fs>, config: &Config) -> Result<NodeLog, NodeError> {
        let news = Arc::new(DiskNews::default());
        let Some(dir) = &config.node.data_dir else {
            // What an empty log holds is all it ever said it did only if it never said anything.
            let log = Log::Memory(MemoryLog::new());
            return Ok(NodeLog { log, news, policy: "", was_whole: false });
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
        let Opened { log, recovery } = DiskLog::open(fs, dir, options, notify)?;
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
        Ok(NodeLog { log: Log::Disk(Box::new(log)), news, policy, was_whole: whole })
    }

    /// What syncing has cost; `None` in memory.
    pub(super) fn sync_stats(&self) -> Option<SyncStats> {
        match &self.log {
            Log::Memory(_) => None,
            Log::Disk(log) => Some(log.sync_stats()),
        }
    }

    /// Bytes that are free on the disk, if there is one and it says so.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        match &self.log {
            Log::Memory(_) => None,
            Log::Disk(log) => log.free_bytes(),
        }
    }

    /// Verifies what is on disk, a little at a time and in another thread, until `end`. What it
    /// finds comes as news.
    pub(super) fn scrub(&self, end: CancellationToken) {
        let Log::Disk(log) = &self.log else { return };
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
}

impl Storage for NodeLog {
    fn log(&self) -> &dyn LogStore {
        match &self.log {
            Log::Memory(log) => log,
            Log::Disk(log) => &**log,
        }
    }

    fn log_mut(&mut self) -> &mut dyn LogStore {
        match &mut self.log {
            Log::Memory(log) => log,
            Log::Disk(log) => &mut **log,
        }
    }

    fn is_disk(&self) -> bool {
        matches!(self.log, Log::Disk(_))
    }

    fn fsync(&self) -> &'static str {
        self.policy
    }

    fn was_whole(&self) -> bool {
        self.was_whole
    }

    fn sync_now(&mut self) -> Seq {
        match &mut self.log {
            Log::Memory(log) => log.bounds().last,
            Log::Disk(log) => log.sync_now(),
        }
    }

    fn sync_failure(&self) -> Option<String> {
        self.news.failed()
    }

    fn take_found_damage(&mut self) -> Vec<(SeqRange, String)> {
        self.news.take_damage()
    }

    fn look_at_home(&mut self) -> Result<Vec<String>, StoreError> {
        match &mut self.log {
            Log::Memory(_) => Ok(Vec::new()),
            Log::Disk(log) => log.look_at_home(),
        }
    }

    fn aside_files(&self) -> u64 {
        match &self.log {
            Log::Memory(_) => 0,
            Log::Disk(log) => log.aside_files(),
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
mod tests;
