//! The disk thread: one fdatasync covers everything that was written before it began, and what is
//! asked for meanwhile waits for the next. So there is no queue: only the newest position counts.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::segments::Notify;
use super::{DiskEvent, Fsync};
use crate::descriptors::insist;
use crate::limits::SEALED_UNSYNCED_MAX;
use crate::store::fs::{Fs, FsFile};
use crate::types::Seq;

/// What syncing has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// Syncs of log data that returned.
    pub count: u64,
    /// The time they took together.
    pub total: Duration,
    /// The time the last one took.
    pub last: Duration,
    /// The longest.
    pub longest: Duration,
}

struct State {
    /// The file that is written to.
    current: Option<Arc<dyn FsFile>>,
    /// Files that were sealed and not synced since.
    sealed: Vec<Arc<dyn FsFile>>,
    /// Those of them that are being synced.
    syncing: usize,
    /// A segment was made since the directory was synced.
    new_name: bool,
    /// The last entry written …
    written: Seq,
    /// … asked for …
    requested: Seq,
    /// … and known to be on disk.
    durable: Seq,
    running: bool,
    failed: Option<String>,
    stop: bool,
    stats: SyncStats,
}

pub(crate) struct Shared {
    // Held for a few assignments; never while the disk works.
    state: Mutex<State>,
    /// Something to do, or something done.
    changed: Condvar,
    fs: Arc<dyn Fs>,
    dir: std::path::PathBuf,
    fsync: Fsync,
    notify: Notify,
}

/// The side of the log: says what was written and asks.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread, unless syncs are to be stepped by hand.
    pub(crate) fn start(
        fs: Arc<dyn Fs>,
        dir: std::path::PathBuf,
        fsync: Fsync,
        notify: Notify,
        durable: Seq,
        manual: bool,
    ) -> std::io::Result<Syncer> {
        let state = State {
            current: None,
            sealed: Vec::new(),
            syncing: 0,
            new_name: false,
            written: durable,
            requested: durable,
            durable,
            running: false,
            failed: None,
            stop: false,
            stats: SyncStats::default(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            fs,
            dir,
            fsync,
            notify,
        });
        let thread = if manual {
            None
        } else {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name("replog-disk".to_owned());
            Some(builder.spawn(move || shared.run())?)
        };
        Ok(Syncer { shared, thread })
    }

    /// Entries up to `last` were written to `file`.
    pub(crate) fn written(&self, file: &Arc<dyn FsFile>, last: Seq) {
        let mut state = self.shared.state();
        if state.current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, file)) {
            state.current = Some(file.clone());
        }
        state.written = last;
    }

    /// The file that was written to is sealed; another one follows, with a new name in the
    /// directory.
    pub(crate) fn sealed(&self) {
        let mut state = self.shared.state();
        let file = state.current.take();
        state.sealed.extend(file);
        self.shared.changed.notify_all();
    }

    /// Whether as many sealed files as there may be wait for a disk that is that far behind.
    pub(crate) fn is_behind(&self) -> bool {
        self.thread.is_some() && self.shared.state().is_behind()
    }

    /// Waits until the disk is not.
    pub(crate) fn catch_up(&self) {
        let mut state = self.shared.state();
        while self.thread.is_some() && state.is_behind() && state.failed.is_none() {
            state = self.shared.wait(state);
        }
    }

    pub(crate) fn new_name(&self) {
        self.shared.state().new_name = true;
    }

    /// Asks for everything up to `up_to`; answers what is on disk.
    pub(crate) fn request(&self, up_to: Seq) -> Seq {
        let mut state = self.shared.state();
        if up_to > state.requested {
            // A thread that works, or waits for its interval to end, looks by itself.
            let is_idle = !state.running && state.requested <= state.durable;
            state.requested = up_to;
            if is_idle && self.shared.fsync != Fsync::Never {
                self.shared.changed.notify_all();
            }
        }
        state.durable
    }

    pub(crate) fn durable(&self) -> Seq {
        self.shared.state().durable
    }

    pub(crate) fn failed(&self) -> Option<String> {
        self.shared.failed()
    }

    pub(crate) fn stats(&self) -> SyncStats {
        self.shared.state().stats
    }

    /// Syncs once, in the caller's thread, whatever was asked for. Also waits for a sync that runs.
    pub(crate) fn sync_now(&self) -> Seq {
        self.shared.sync_now()
    }

    /// For a thread that is to sync before it goes on.
    pub(crate) fn handle(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Everything is on disk and nothing runs: entries may be taken back, down to `last`.
    pub(crate) fn reset(&self, last: Seq) {
        let mut state = self.shared.state();
        state.current = None;
        state.sealed.clear();
        state.written = last;
        state.requested = state.requested.min(last);
        state.durable = state.durable.min(last);
    }

    /// Ends the thread after the sync that runs.
    pub(crate) fn stop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed by its hook and ends the process in release.
            let _ = thread.join();
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn is_behind(&self) -> bool {
        self.sealed.len() + self.syncing >= SEALED_UNSYNCED_MAX
    }

    fn has_work(&self) -> bool {
        self.durable < self.written || !self.sealed.is_empty() || self.new_name
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Syncer::sync_now`].
    pub(crate) fn sync_now(&self) -> Seq {
        let mut state = self.state();
        while state.running {
            state = self.wait(state);
        }
        if state.failed.is_none() && state.has_work() {
            state = self.sync(state);
        }
        state.durable
    }

    /// Why a sync failed, if one did.
    pub(crate) fn failed(&self) -> Option<String> {
        self.state().failed.clone()
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.state();
        let mut since = Instant::now();
        loop {
            if state.stop || state.failed.is_some() {
                return;
            }
            if state.running {
                state = self.wait(state);
                continue;
            }
            if state.requested > state.durable && self.fsync == Fsync::Always
                || !state.sealed.is_empty()
            {
                state = self.sync(state);
                since = Instant::now();
                continue;
            }
            let Fsync::Interval(interval) = self.fsync else {
                state = self.wait(state);
                continue;
            };
            if !state.has_work() {
                state = self.wait(state);
                // The first write after a pause begins an interval.
                since = Instant::now();
                continue;
            }
            let left = interval.saturating_sub(since.elapsed());
            if left.is_zero() {
                state = self.sync(state);
                since = Instant::now();
            } else {
                state = self
                    .changed
                    .wait_timeout(state, left)
                    .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
            }
        }
    }

    /// One sync of everything written so far. Under `never` only of what is sealed.
    fn sync<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.running = true;
        let mut files = std::mem::take(&mut state.sealed);
        let covered = state.written;
        state.syncing = files.len();
        files.extend(state.current.clone());
        let new_name = std::mem::take(&mut state.new_name);
        drop(state);

        let begun = Instant::now();
        let mut outcome = Ok(());
        for file in files {
            outcome = outcome.and_then(|()| file.sync_data());
        }
        if new_name {
            outcome = outcome.and_then(|()| insist(|| self.fs.sync_dir(&self.dir)));
        }
        let took = begun.elapsed();

        let mut state = self.state();
        (state.running, state.syncing) = (false, 0);
        let event = match outcome {
            Ok(()) => {
                state.stats.count += 1;
                state.stats.total += took;
                state.stats.last = took;
                state.stats.longest = state.stats.longest.max(took);
                let advanced = covered > state.durable;
                state.durable = state.durable.max(covered);
                advanced.then_some(DiskEvent::Durable(covered))
            }
            Err(error) => {
                // What the kernel could not write it may forget: a second try would lie.
                state.failed = Some(error.to_string());
                Some(DiskEvent::SyncFailed(error.to_string()))
            }
        };
        self.changed.notify_all();
        drop(state);
        if let Some(event) = event {
            (self.notify)(event);
        }
        self.state()
    }
}
