//! A file system in memory that fails as machines do, for tests and simulations: deterministic, every
//! choice from a seed.
//!
//! It keeps what is durable beside what a running program sees. A write is a new content of each
//! sector it touches; a crash leaves each sector with one of the contents it had since the last sync,
//! each file with one of its lengths, and each name as of some moment since its directory was synced.
//! So a write can be torn at sectors, lost, or overtaken by a later one, as in a page cache.

mod inode;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use self::inode::{Inode, Random, SECTOR, read};
use super::fs::{FileId, Fs, FsFile, FsLock, sync_failure};

/// A change of names: all of them or none.
type NameChange = Vec<(PathBuf, Option<u64>)>;

#[derive(Clone)]
struct World {
    random: Random,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    /// Handles of an earlier life are dead.
    life: u64,
    boot: u64,
    dead: bool,
    operations: u64,
    syncs: u64,
    crash_at: Option<u64>,
    fail_sync_at: Option<u64>,
    fail_writes: bool,
    /// Too many files are open.
    exhausted: bool,
    budget: Option<u64>,
    /// What is said when there is no room.
    full: io::ErrorKind,
    /// No file grows longer.
    file_bytes_max: Option<u64>,
    /// No new name is to be had.
    names_full: bool,
    /// It can only lengthen files, and takes room when they are written.
    reserves_nothing: bool,
    /// Handles that were not dropped, and the most there were at once.
    open: usize,
    open_most: usize,
    bytes_read: u64,
}

/// Whether an operation is to be done, done before a crash, or not at all.
enum Fate {
    Go,
    GoAndDie,
    Die,
}

impl World {
    /// Whether another file can be open.
    fn check_descriptors(&self) -> io::Result<()> {
        if self.exhausted { Err(rustix::io::Errno::MFILE.into()) } else { Ok(()) }
    }

    fn check(&self, life: u64) -> io::Result<()> {
        if self.dead || life != self.life { Err(dead()) } else { Ok(()) }
    }

    fn fate(&mut self) -> Fate {
        self.operations += 1;
        if self.crash_at != Some(self.operations) {
            return Fate::Go;
        }
        self.dead = true;
        if self.random.below(2) == 0 { Fate::GoAndDie } else { Fate::Die }
    }

    /// Does `work` as fate wants it.
    fn operate<T>(
        &mut self,
        life: u64,
        work: impl FnOnce(&mut World) -> io::Result<T>,
    ) -> io::Result<T> {
        self.check(life)?;
        match self.fate() {
            Fate::Go => work(self),
            Fate::GoAndDie => {
                let _ = work(self);
                Err(dead())
            }
            Fate::Die => Err(dead()),
        }
    }

    fn sync_fails(&mut self) -> bool {
        self.syncs += 1;
        self.fail_sync_at == Some(self.syncs)
    }

    fn used(&self) -> u64 {
        let named: BTreeSet<_> = self.names.values().collect();
        named.into_iter().filter_map(|id| self.inodes.get(id)).map(|inode| inode.allocated).sum()
    }

    /// How far a file may reach if it is to reach `end`.
    fn grow(&mut self, id: u64, end: u64) -> u64 {
        let have = self.inodes.get(&id).map_or(0, |inode| inode.allocated);
        let wanted = end.next_multiple_of(SECTOR as u64);
        if wanted <= have {
            return end;
        }
        let free = self.budget.map_or(u64::MAX, |budget| budget.saturating_sub(self.used()));
        let granted = (wanted - have).min(free / SECTOR as u64 * SECTOR as u64);
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.allocated = have + granted;
        }
        end.min(have + granted)
    }

    /// What is said of a file that is not to reach `end`.
    fn full_error(&self, end: u64) -> io::Error {
        let too_long = self.file_bytes_max.is_some_and(|max| end > max);
        if too_long { io::ErrorKind::FileTooLarge.into() } else { self.full.into() }
    }

    fn rename_all(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.name_changes.push(change);
    }

    fn restart(&mut self) {
        self.dead = false;
        self.life += 1;
        self.locks.clear();
        self.crash_at = None;
        self.fail_sync_at = None;
        self.fail_writes = false;
        self.exhausted = false;
        // Handles of the life before are worth nothing and are not counted.
        (self.open, self.open_most) = (0, 0);
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    for (path, inode) in change {
        match inode {
            Some(inode) => names.insert(path.clone(), *inode),
            None => names.remove(path),
        };
    }
}

fn dead() -> io::Error {
    io::Error::other("the machine is down")
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// What is locked, whatever it is.
const LOCKED: FileId = FileId { device: 1, inode: u64::MAX };

/// See the module.
#[derive(Clone)]
pub struct FaultyFs {
    world: Arc<Mutex<World>>,
    /// Which calls wait.
    held: Arc<(Mutex<Held>, Condvar)>,
}

/// Calls that wait until they are let go.
#[derive(Debug, Default)]
struct Held {
    /// Reads of files.
    reads: bool,
    /// Writes and syncs of files whose names end so.
    writes: Option<String>,
    /// Syncs of files.
    syncs: bool,
    /// So many of those that write wait now.
    writers: usize,
}

impl FaultyFs {
    /// An empty file system whose misfortunes follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let world = World {
            random: Random(seed),
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            locks: BTreeSet::new(),
            life: 1,
            boot: 1,
            dead: false,
            operations: 0,
            syncs: 0,
            crash_at: None,
            fail_sync_at: None,
            fail_writes: false,
            exhausted: false,
            budget: None,
            full: io::ErrorKind::StorageFull,
            file_bytes_max: None,
            names_full: false,
            reserves_nothing: false,
            open: 0,
            open_most: 0,
            bytes_read: 0,
        };
        FaultyFs { world: Arc::new(Mutex::new(world)), held: Arc::default() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one that is as this one is now, with all handles closed.
    pub fn fork(&self) -> FaultyFs {
        let mut world = self.world().clone();
        world.restart();
        FaultyFs { world: Arc::new(Mutex::new(world)), held: Arc::default() }
    }

    /// Other misfortunes from here on.
    pub fn reseed(&self, seed: u64) {
        self.world().random = Random(seed);
    }

    /// The power fails at the n-th changing operation from now on, which may be done or not.
    pub fn crash_at(&self, operation: u64) {
        let mut world = self.world();
        world.crash_at = Some(world.operations + operation);
    }

    /// The n-th sync from now on fails, and what it should have written counts as clean.
    pub fn fail_sync_at(&self, sync: u64) {
        let mut world = self.world();
        world.fail_sync_at = Some(world.syncs + sync);
    }

    /// From now on no write to a file is done, and each says so.
    pub fn fail_writes(&self) {
        self.world().fail_writes = true;
    }

    /// From now on no file can be opened or made because too many are open, or it can again.
    pub fn exhaust_descriptors(&self, exhausted: bool) {
        self.world().exhausted = exhausted;
    }

    /// From now on reads of files wait, or go on.
    pub fn hold_reads(&self, held: bool) {
        self.held().reads = held;
        self.held.1.notify_all();
    }

    fn wait_to_read(&self) {
        // Poisoned or not, it is a flag.
        drop(self.held.1.wait_while(self.held(), |held| held.reads));
    }

    /// From now on writes and syncs of files whose names end so wait, or all go on.
    pub fn hold_writes(&self, ending: Option<&str>) {
        self.held().writes = ending.map(str::to_owned);
        self.held.1.notify_all();
    }

    /// From now on syncs of files wait, or go on.
    pub fn hold_syncs(&self, held: bool) {
        self.held().syncs = held;
        self.held.1.notify_all();
    }

    fn wait_to_sync(&self) {
        drop(self.held.1.wait_while(self.held(), |held| held.syncs));
    }

    /// Waits until somebody waits to write.
    pub fn wait_for_writer(&self) {
        drop(self.held.1.wait_while(self.held(), |held| held.writers == 0));
    }

    /// Whether somebody waits to write.
    pub fn has_writer(&self) -> bool {
        self.held().writers > 0
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_to_write(&self, id: u64) {
        let mut held = self.held();
        if held.writes.is_none() {
            return;
        }
        let names: Vec<_> = {
            let world = self.world();
            world
                .names
                .iter()
                .filter(|(_, named)| **named == id)
                .map(|(path, _)| path.clone())
                .collect()
        };
        let is_held = |held: &mut Held| {
            let ends =
                |ending: &String| names.iter().any(|path| path.to_string_lossy().ends_with(ending));
            held.writes.as_ref().is_some_and(ends)
        };
        if !is_held(&mut held) {
            return;
        }
        held.writers += 1;
        self.held.1.notify_all();
        let waited = self.held.1.wait_while(held, is_held);
        waited.unwrap_or_else(PoisonError::into_inner).writers -= 1;
    }

    /// The most files that were open at once since the program started.
    pub fn open_most(&self) -> usize {
        self.world().open_most
    }

    /// How many bytes of files were read.
    pub fn bytes_read(&self) -> u64 {
        self.world().bytes_read
    }

    /// So many bytes fit in all; `None` has no end.
    pub fn set_budget(&self, budget: Option<u64>) {
        self.world().budget = budget;
    }

    /// What the system says when no more fits: `StorageFull` unless it is a quota.
    pub fn full_as(&self, kind: io::ErrorKind) {
        self.world().full = kind;
    }

    /// No file may be longer; `None` has no end.
    pub fn set_file_bytes_max(&self, max: Option<u64>) {
        self.world().file_bytes_max = max;
    }

    /// From now on no room can be reserved by a call, as on some file systems of networks.
    pub fn reserve_nothing(&self) {
        self.world().reserves_nothing = true;
    }

    /// Whether the directory takes no more names.
    pub fn fill_names(&self, full: bool) {
        self.world().names_full = full;
    }

    /// How many bytes are taken.
    pub fn used(&self) -> u64 {
        self.world().used()
    }

    /// How many changing operations there were.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// How many syncs there were.
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// The power fails now and is back: what was not synced is kept as chance has it.
    pub fn crash(&self) {
        let world = &mut *self.world();
        let mode = world.random.below(6);
        let changes = std::mem::take(&mut world.name_changes);
        let kept = match mode {
            0 => 0,
            1 => changes.len(),
            _ => world.random.below(changes.len() as u64 + 1) as usize,
        };
        for change in &changes[..kept] {
            apply(&mut world.durable_names, change);
        }
        world.names = world.durable_names.clone();
        for inode in world.inodes.values_mut() {
            inode.crash(&mut world.random, mode);
        }
        world.boot += 1;
        world.restart();
    }

    /// Whether the power failed and is not back.
    pub fn is_dead(&self) -> bool {
        self.world().dead
    }

    /// The program ends at once; the machine goes on.
    pub fn kill(&self) {
        self.world().restart();
    }

    /// All files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    /// What a file holds.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world();
        let inode = world.inodes.get(world.names.get(path)?)?;
        let mut bytes = vec![0; inode.len as usize]; // Tests have small files.
        read(inode, &mut bytes, 0).ok()?;
        Some(bytes)
    }

    /// Replaces a file, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let world = &mut *self.world();
        let id = world.next_inode;
        world.next_inode += 1;
        let mut inode = Inode::default();
        inode.write(bytes, 0);
        inode.sync();
        inode.allocated = inode.len;
        world.inodes.insert(id, inode);
        world.names.insert(path.to_owned(), id);
        world.durable_names.insert(path.to_owned(), id);
    }

    /// Removes a file, durably.
    pub fn erase(&self, path: &Path) {
        let mut world = self.world();
        world.names.remove(path);
        world.durable_names.remove(path);
        for change in &mut world.name_changes {
            change.retain(|(changed, _)| changed != path);
        }
    }

    /// Another, empty disk stands in this one's place.
    pub fn wipe(&self) {
        let mut world = self.world();
        world.names.clear();
        world.durable_names.clear();
        world.name_changes.clear();
        world.inodes.clear();
    }

    /// Turns one bit of a file over, on the disk too.
    pub fn flip(&self, path: &Path, bit: u64) {
        let world = &mut *self.world();
        let inode = world.names.get(path).and_then(|id| world.inodes.get_mut(id));
        let Some(inode) = inode.filter(|inode| bit / 8 < inode.len) else { return };
        let (index, within) = (bit / 8 / SECTOR as u64, (bit / 8 % SECTOR as u64) as usize);
        inode.sector(index)[within] ^= 1 << (bit % 8);
        let sector = inode.sector(index).clone();
        inode.durable.insert(index, sector);
    }

    /// From now on a sector of a file cannot be read.
    pub fn lose_sector(&self, path: &Path, sector: u64) {
        let world = &mut *self.world();
        if let Some(inode) = world.names.get(path).and_then(|id| world.inodes.get_mut(id)) {
            inode.unreadable.insert(sector);
        }
    }

    fn handle(&self, world: &mut World, id: u64, life: u64) -> Arc<dyn FsFile> {
        world.open += 1;
        world.open_most = world.open_most.max(world.open);
        Arc::new(FaultyFile { fs: self.clone(), id, life })
    }
}

impl Fs for FaultyFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let world = &mut *self.world();
        world.check(world.life)?;
        world.check_descriptors()?;
        let id = *world.names.get(path).ok_or_else(missing)?;
        let life = world.life;
        Ok(self.handle(world, id, life))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let mut world = self.world();
        world.check_descriptors()?;
        let life = world.life;
        let id = world.operate(life, |world| match world.names.get(path) {
            Some(&id) => {
                if let Some(inode) = world.inodes.get_mut(&id) {
                    inode.set_len(0);
                    inode.allocated = 0;
                }
                Ok(id)
            }
            None if world.names_full => Err(world.full.into()),
            None => {
                let id = world.next_inode;
                world.next_inode += 1;
                world.inodes.insert(id, Inode::default());
                world.rename_all(vec![(path.to_owned(), Some(id))]);
                Ok(id)
            }
        })?;
        Ok(self.handle(&mut world, id, life))
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        let world = self.world();
        world.check(world.life)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let life = world.life;
        world.operate(life, |world| {
            let id = *world.names.get(from).ok_or_else(missing)?;
            world.rename_all(vec![(to.to_owned(), Some(id)), (from.to_owned(), None)]);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let life = world.life;
        world.operate(life, |world| {
            let id = *world.names.get(from).ok_or_else(missing)?;
            world.rename_all(vec![(to.to_owned(), Some(id))]);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let life = world.life;
        world.operate(life, |world| {
            world.names.get(path).ok_or_else(missing)?;
            world.rename_all(vec![(path.to_owned(), None)]);
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        world.check(world.life)?;
        let names = world.names.keys().filter_map(|path| {
            let below = path.strip_prefix(dir).ok()?;
            Some(below.components().next()?.as_os_str().to_string_lossy().into_owned())
        });
        let names: BTreeSet<_> = names.collect();
        Ok(names.into_iter().collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.check_descriptors()?;
        let life = world.life;
        world.operate(life, |world| {
            if world.sync_fails() {
                return Err(sync_failure(io::Error::other("the disk failed")));
            }
            let changes = std::mem::take(&mut world.name_changes);
            for change in changes {
                if change.iter().any(|(path, _)| path.parent() == Some(dir)) {
                    apply(&mut world.durable_names, &change);
                } else {
                    world.name_changes.push(change);
                }
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path, _content: &str) -> io::Result<Result<Box<dyn FsLock>, String>> {
        let mut world = self.world();
        world.check(world.life)?;
        if !world.locks.insert(path.to_owned()) {
            return Ok(Err("1\n".to_owned()));
        }
        let life = world.life;
        Ok(Ok(Box::new(FaultyLock { fs: self.clone(), path: path.to_owned(), life })))
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn FsLock>>> {
        Ok(self.lock(dir, "")?.ok())
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        let world = self.world();
        world.check(world.life)?;
        let is_dir = || world.names.keys().any(|name| name.starts_with(path));
        match world.names.get(path) {
            // Nobody takes a lock's file away here.
            _ if world.locks.contains(path) && path.ends_with("lock") => Ok(LOCKED),
            Some(&inode) => Ok(FileId { device: 1, inode }),
            // A directory is there while anything is in it.
            None if is_dir() => Ok(FileId { device: 1, inode: 0 }),
            None => Err(missing()),
        }
    }

    fn free_bytes(&self, _dir: &Path) -> Option<u64> {
        let world = self.world();
        world.budget.map(|budget| budget.saturating_sub(world.used()))
    }

    fn file_bytes_max(&self) -> Option<u64> {
        self.world().file_bytes_max
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.world().boot)
    }
}

struct FaultyLock {
    fs: FaultyFs,
    path: PathBuf,
    life: u64,
}

impl FsLock for FaultyLock {
    fn id(&self) -> FileId {
        LOCKED
    }
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut world = self.fs.world();
        if world.life == self.life {
            world.locks.remove(&self.path);
        }
    }
}

struct FaultyFile {
    fs: FaultyFs,
    id: u64,
    life: u64,
}

impl FaultyFile {
    fn operate<T>(&self, work: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        self.fs.world().operate(self.life, work)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let mut world = self.fs.world();
        if world.life == self.life {
            world.open = world.open.saturating_sub(1);
        }
    }
}

impl FsFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fs.wait_to_read();
        let mut world = self.fs.world();
        world.check(self.life)?;
        let count = read(world.inodes.get(&self.id).ok_or_else(missing)?, buffer, offset)?;
        world.bytes_read += count as u64;
        Ok(count)
    }

    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<()> {
        let bytes = pieces.concat();
        if bytes.is_empty() {
            return Ok(());
        }
        self.fs.wait_to_write(self.id);
        self.operate(|world| {
            if world.fail_writes {
                return Err(io::Error::other("the disk failed"));
            }
            let end = offset + bytes.len() as u64;
            let allowed = world.file_bytes_max.unwrap_or(u64::MAX).min(end);
            let granted = world.grow(self.id, allowed);
            let error = world.full_error(end);
            let inode = world.inodes.get_mut(&self.id).ok_or_else(missing)?;
            // As on a full disk, a part may be written.
            let part = granted.saturating_sub(offset).min(bytes.len() as u64) as usize;
            inode.write(&bytes[..part], offset);
            if granted < end { Err(error) } else { Ok(()) }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.wait_to_write(self.id);
        self.fs.wait_to_sync();
        self.operate(|world| {
            let fails = world.sync_fails();
            let inode = world.inodes.get_mut(&self.id).ok_or_else(missing)?;
            if fails {
                inode.forget();
                return Err(sync_failure(io::Error::other("the disk failed")));
            }
            inode.sync();
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.operate(|world| {
            let error = world.full_error(len);
            let allowed = world.file_bytes_max.unwrap_or(u64::MAX).min(len);
            if allowed < len || !world.reserves_nothing && world.grow(self.id, len) < len {
                return Err(error);
            }
            let inode = world.inodes.get_mut(&self.id).ok_or_else(missing)?;
            inode.set_len(inode.len.max(len));
            Ok(())
        })
    }

    fn occupy(&self, len: u64) -> io::Result<()> {
        self.allocate(len)?;
        let mut world = self.fs.world();
        let error = world.full_error(len);
        if world.grow(self.id, len) < len { Err(error) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate(|world| {
            let inode = world.inodes.get_mut(&self.id).ok_or_else(missing)?;
            inode.set_len(len);
            inode.allocated = inode.allocated.min(len.next_multiple_of(SECTOR as u64));
            Ok(())
        })
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(FileId { device: 1, inode: self.id })
    }

    fn len(&self) -> io::Result<u64> {
        let world = self.fs.world();
        world.check(self.life)?;
        Ok(world.inodes.get(&self.id).ok_or_else(missing)?.len)
    }
}
