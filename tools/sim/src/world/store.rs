//! The log of a simulated node: the real stores, in memory or on a disk that fails as disks do.
//!
//! Everything a driver does with its log goes through here. On disk the log is the product's own
//! [`DiskLog`] over a file system that loses, tears, fills and flips; a sync takes virtual time, and what
//! a crash leaves of the directory is opened by the product's own recovery.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use replog::engine::OwnLog;
use replog::engine::secondary::Holdings;
use replog::store::faulty::FaultyFs;
use replog::store::{
    Bounds, DiskEvent, DiskLog, DiskOptions, Fsync, Identity, LogReader, LogStore, MemoryLog,
    OpenError, Recovery, Run, StoreError,
};
use replog::types::{PrefixId, Seq, SeqRange, Shortage};

use crate::plan::{DiskSetup, Policy};

/// Where a node's log lies in its own file system.
pub(super) const DIR: &str = "/data";

enum Log {
    Memory(MemoryLog),
    Disk(Box<DiskLog>),
}

/// What the disk said since the driver last asked.
#[derive(Debug, Default)]
struct News {
    failed: Option<String>,
    damage: Vec<SeqRange>,
}

/// The log of one life of a node.
pub(super) struct SimStore {
    log: Log,
    news: Arc<Mutex<News>>,
    /// A sync is under way.
    syncing: bool,
    /// What the next sync is to cover.
    wanted: Seq,
    /// What counts as stored.
    pub(super) stored: Seq,
    /// Whether it holds all that it ever said it did.
    whole: bool,
    /// Its last entry when it was opened.
    opened_at: Seq,
    policy: Policy,
}

/// What a node that ends leaves on its disk, as far as must be there again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Left {
    /// Everything up to here survives the end of the process …
    pub(super) written: (Seq, Option<PrefixId>),
    /// … and up to here the end of the machine.
    pub(super) synced: (Seq, Option<PrefixId>),
}

impl SimStore {
    pub(super) fn in_memory() -> Self {
        SimStore {
            log: Log::Memory(MemoryLog::new()),
            news: Arc::default(),
            syncing: false,
            wanted: Seq::ZERO,
            stored: Seq::ZERO,
            whole: false,
            opened_at: Seq::ZERO,
            policy: Policy::Always,
        }
    }

    /// Opens what lies in a node's file system, as `runtime::store` does.
    pub(super) fn open(
        fs: &FaultyFs,
        node: usize,
        setup: &DiskSetup,
    ) -> Result<(Self, Recovery), OpenError> {
        // Ids of nodes are words.
        let id = format!("n{node}").parse().expect("BUG: a node's id is a word");
        let mut options = DiskOptions::new(id);
        options.segment_size = setup.segment_size;
        options.cache_bytes = setup.cache_bytes;
        options.manual_sync = true;
        options.fsync = match setup.policy {
            Policy::Always => Fsync::Always,
            Policy::Interval => Fsync::Interval(Duration::from_micros(setup.interval_us)),
            Policy::Never => Fsync::Never,
        };
        let news = Arc::new(Mutex::new(News::default()));
        let told = news.clone();
        let notify = Box::new(move |event| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                DiskEvent::Durable(_) => {}
                DiskEvent::SyncFailed(reason) => told.failed = Some(reason),
                DiskEvent::Damage(range, _) => told.damage.push(range),
            }
        });
        let opened = DiskLog::open(Arc::new(fs.clone()), Path::new(DIR), options, notify)?;
        let (log, recovery) = (opened.log, opened.recovery);
        let identity = log.identity();
        let whole = identity.log_id.is_some()
            && identity.vouches
            && recovery.damage.is_empty()
            && !recovery.machine_loss_possible;
        let stored = log.bounds().last;
        let store = SimStore {
            log: Log::Disk(Box::new(log)),
            news,
            syncing: false,
            wanted: stored,
            stored,
            whole,
            opened_at: stored,
            policy: setup.policy,
        };
        Ok((store, recovery))
    }

    fn store(&self) -> &dyn LogStore {
        match &self.log {
            Log::Memory(log) => log,
            Log::Disk(log) => &**log,
        }
    }

    fn store_mut(&mut self) -> &mut dyn LogStore {
        match &mut self.log {
            Log::Memory(log) => log,
            Log::Disk(log) => &mut **log,
        }
    }

    pub(super) fn is_disk(&self) -> bool {
        matches!(self.log, Log::Disk(_))
    }

    pub(super) fn reader(&self) -> LogReader {
        self.store().reader()
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.store().bounds()
    }

    pub(super) fn identity(&self) -> &Identity {
        self.store().identity()
    }

    pub(super) fn own_log(&self) -> OwnLog {
        let (bounds, identity) = (self.bounds(), self.identity());
        OwnLog {
            log_id: identity.log_id,
            epoch: identity.epoch,
            last: bounds.last,
            tail_epoch: bounds.tail.epoch,
            settled: identity.settled,
            commit: identity.commit,
            whole: self.whole,
        }
    }

    pub(super) fn holdings(&self) -> Holdings {
        let (bounds, identity) = (self.bounds(), self.identity());
        Holdings {
            log_id: identity.log_id,
            epoch: identity.epoch,
            run_id: identity.run_id,
            last: bounds.last,
            tail: bounds.tail,
            settled: identity.settled,
            commit: identity.commit,
            vouches: self.whole,
        }
    }

    pub(super) fn append(&mut self, run: Run) -> Result<(), StoreError> {
        self.store_mut().append(run)
    }

    pub(super) fn room_for(&self, bytes: usize) -> Result<(), Shortage> {
        self.store().room_for(bytes)
    }

    pub(super) fn keep(&mut self, identity: Identity) -> Result<(), StoreError> {
        self.store_mut().set_identity(identity)
    }

    pub(super) fn set_aside(&mut self, from: Seq) -> Result<u64, StoreError> {
        let count = self.store_mut().set_aside(from, "another log has other entries there")?;
        self.stored = self.stored.min(from.previous());
        self.wanted = self.wanted.min(from.previous());
        Ok(count)
    }

    pub(super) fn repair(&mut self, run: Run) -> Result<(), StoreError> {
        self.store_mut().repair(run)
    }

    pub(super) fn damage(&self) -> Vec<SeqRange> {
        self.store().damage()
    }

    /// Verifies a little more of what is on disk.
    pub(super) fn scrub(&mut self) {
        if let Log::Disk(log) = &mut self.log {
            log.scrub(64 << 10);
        }
    }

    /// Why a sync failed, if one did.
    pub(super) fn sync_failed(&self) -> Option<String> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }

    /// Whether something turned out to be unreadable since the last call.
    pub(super) fn damage_told(&self) -> bool {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::take(&mut news.damage).is_empty()
    }

    /// What must be there again after the end of this life.
    pub(super) fn left(&self) -> Left {
        let reader = self.reader();
        let at = |seq: Seq| (seq, reader.prefix_id(seq));
        match &self.log {
            Log::Memory(_) => Left::default(),
            Log::Disk(log) => Left { written: at(log.bounds().last), synced: at(log.synced()) },
        }
    }

    /// As far as may count as stored by the policy.
    pub(super) fn proved(&self) -> Seq {
        match &self.log {
            Log::Disk(log) if self.policy == Policy::Always => log.synced(),
            Log::Disk(log) => log.bounds().last,
            Log::Memory(_) => self.stored,
        }
    }

    /// The last entry when it was opened.
    pub(super) fn own_log_at_start(&self) -> Seq {
        self.opened_at
    }

    /// Whether it held all that it ever said it did when it was opened.
    pub(super) fn was_whole(&self) -> bool {
        self.whole
    }

    /// The engine wants everything up to here durable. Answers what is, and whether a sync is to be
    /// started; another may be under way.
    pub(super) fn make_durable(&mut self, up_to: Seq) -> (Seq, bool) {
        self.wanted = self.wanted.max(up_to);
        if self.is_disk() {
            self.stored = self.stored.max(self.store_mut().make_durable(up_to));
        }
        let syncs = match &self.log {
            Log::Memory(_) => true,
            Log::Disk(log) => self.policy != Policy::Never && self.wanted > log.synced(),
        };
        (self.stored, syncs && !std::mem::replace(&mut self.syncing, true))
    }

    /// Syncs all that is written at once, before a promise.
    pub(super) fn sync_all(&mut self) -> Seq {
        match &mut self.log {
            Log::Memory(log) => self.stored = self.stored.max(log.bounds().last),
            Log::Disk(log) => {
                let synced = log.sync_now();
                self.stored = self.stored.max(synced);
            }
        }
        self.stored
    }

    /// A sync is over: what is stored, and what the next one, which begins now, is to cover.
    pub(super) fn synced(&mut self, up_to: Seq) -> (Seq, Option<Seq>) {
        let wanted = self.wanted;
        match &mut self.log {
            Log::Memory(log) => self.stored = self.stored.max(log.make_durable(up_to)),
            Log::Disk(log) => {
                log.sync_now();
                self.stored = self.stored.max(log.make_durable(wanted));
            }
        }
        self.syncing = self.wanted > up_to && self.wanted > self.stored;
        (self.stored, self.syncing.then_some(self.wanted))
    }
}
