//! The log of a simulated node: the real stores, in memory or on a disk that fails as disks do.
//!
//! Everything a node does with its log goes through here. On disk the log is the product's own
//! [`DiskLog`] over a file system that loses, tears, fills and flips; a sync takes virtual time, and what
//! a crash leaves of the directory is opened by the product's own recovery.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use replog::engine::OwnLog;
use replog::node::Storage;
use replog::node::storage::own_log;
use replog::store::faulty::FaultyFs;
use replog::store::{
    DiskEvent, DiskLog, DiskOptions, Fsync, LogReader, LogStore, MemoryLog, OpenError, Recovery,
    StoreError,
};
use replog::types::{PrefixId, Seq, SeqRange};

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
    damage: Vec<(SeqRange, String)>,
}

/// The log of one life of a node.
pub(super) struct SimStore {
    log: Log,
    news: Arc<Mutex<News>>,
    /// A sync is under way.
    syncing: bool,
    /// Work on files is under way.
    working: bool,
    /// Syncs take no time.
    at_once: bool,
    /// What was moved aside since that was looked at.
    asides: Vec<Aside>,
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

/// Entries that were moved out of a log.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    /// The first.
    pub(super) from: Seq,
    /// Where the log ended before.
    pub(super) last: Seq,
    /// Which entries they were.
    pub(super) ids: Vec<Option<PrefixId>>,
}

impl Aside {
    /// Which entry stood there.
    pub(super) fn id(&self, seq: Seq) -> Option<PrefixId> {
        let at = seq.number().checked_sub(self.from.number())?;
        self.ids.get(at as usize).copied().flatten()
    }
}

impl SimStore {
    pub(super) fn in_memory() -> Self {
        SimStore {
            log: Log::Memory(MemoryLog::new()),
            news: Arc::default(),
            syncing: false,
            working: false,
            at_once: false,
            asides: Vec::new(),
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
                DiskEvent::Durable(_) | DiskEvent::JobDone => {}
                DiskEvent::SyncFailed(reason) => told.failed = Some(reason),
                DiskEvent::Damage(range, why) => told.damage.push((range, why)),
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
            working: false,
            at_once: false,
            asides: Vec::new(),
            wanted: stored,
            stored,
            whole,
            opened_at: stored,
            policy: setup.policy,
        };
        Ok((store, recovery))
    }

    pub(super) fn own_log(&self) -> OwnLog {
        own_log(self)
    }

    /// What was moved aside since the last call.
    pub(super) fn take_asides(&mut self) -> Vec<Aside> {
        std::mem::take(&mut self.asides)
    }

    /// Verifies a little more of what is on disk.
    pub(super) fn scrub(&mut self) {
        if let Log::Disk(log) = &mut self.log {
            log.scrub(64 << 10);
        }
    }

    /// What must be there again after the end of this life.
    pub(super) fn left(&self) -> Left {
        let reader = self.log().reader();
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

    /// Whether a sync that begins now would take no time.
    pub(super) fn syncs_at_once(&mut self, at_once: bool) {
        self.at_once = at_once;
    }

    /// Whether a sync is wanted and none is under way: then it is from now on.
    pub(super) fn begins_sync(&mut self) -> bool {
        let wanted = match &self.log {
            Log::Memory(_) => self.wanted > self.stored,
            Log::Disk(log) => self.policy != Policy::Never && self.wanted > log.synced(),
        };
        wanted && !std::mem::replace(&mut self.syncing, true)
    }

    /// Whether work on files was asked for and is not done.
    pub(super) fn has_work(&self) -> bool {
        matches!(&self.log, Log::Disk(log) if log.has_work())
    }

    /// Whether work on files was asked for and is not under way: then it is from now on.
    pub(super) fn begins_work(&mut self) -> bool {
        self.has_work() && !std::mem::replace(&mut self.working, true)
    }

    /// The work that was under way is done, as far as the disk lets it. Answers whether there was any.
    pub(super) fn work(&mut self) -> bool {
        self.working = false;
        match &mut self.log {
            Log::Disk(log) if log.has_work() => {
                log.work();
                true
            }
            _ => false,
        }
    }

    /// The sync that was under way is over.
    pub(super) fn synced(&mut self) {
        self.syncing = false;
        let wanted = self.wanted;
        match &mut self.log {
            Log::Memory(log) => self.stored = self.stored.max(LogStore::make_durable(log, wanted)),
            Log::Disk(log) => {
                log.sync_now();
                self.stored = self.stored.max(log.make_durable(wanted));
            }
        }
    }
}

impl Storage for SimStore {
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

    fn make_durable(&mut self, up_to: Seq) -> Seq {
        self.wanted = self.wanted.max(up_to);
        match &mut self.log {
            Log::Memory(_) if !self.at_once => {}
            Log::Memory(log) => self.stored = self.stored.max(LogStore::make_durable(log, up_to)),
            Log::Disk(log) => {
                if self.at_once && up_to > log.synced() {
                    log.sync_now();
                }
                self.stored = self.stored.max(log.make_durable(up_to));
            }
        }
        self.stored.min(up_to)
    }

    fn set_aside(&mut self, from: Seq, reason: &str) -> Result<u64, StoreError> {
        let (reader, last) = (self.log().reader(), self.log().bounds().last);
        let ids = (from.number()..=last.number()).map(|seq| reader.prefix_id(Seq::new(seq)));
        self.asides.push(Aside { from, last, ids: ids.collect() });
        let count = self.log_mut().set_aside(from, reason)?;
        self.stored = self.stored.min(from.previous());
        self.wanted = self.wanted.min(from.previous());
        Ok(count)
    }

    fn is_disk(&self) -> bool {
        matches!(self.log, Log::Disk(_))
    }

    fn fsync(&self) -> &'static str {
        ""
    }

    fn was_whole(&self) -> bool {
        self.whole
    }

    fn sync_now(&mut self) -> Seq {
        let synced = match &mut self.log {
            Log::Memory(log) => log.bounds().last,
            Log::Disk(log) => log.sync_now(),
        };
        self.stored = self.stored.max(synced);
        self.stored
    }

    fn sync_failure(&self) -> Option<String> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }

    fn take_found_damage(&mut self) -> Vec<(SeqRange, String)> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut news.damage)
    }

    fn look_at_home(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn aside_files(&self) -> u64 {
        0
    }
}

/// How far a reader comes that reads on from where the last piece ended.
pub(super) fn readable_end(log: &LogReader, range: SeqRange) -> Seq {
    let mut next = range.first;
    while next < range.end
        && let Some(read) = log.read(SeqRange::new(next, range.end), usize::MAX).range
    {
        next = read.end;
    }
    next
}
