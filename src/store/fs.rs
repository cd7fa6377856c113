//! The file system as the store sees it: few calls, so that a test can put another one underneath
//! that tears, loses, flips and fills.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::process::{Resource, getrlimit};

use crate::descriptors::open_with_spare;

/// What is made is for the node's own user, whatever the umask allows.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Which file or directory this is, whatever its names are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileId {
    /// The file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl From<fs::Metadata> for FileId {
    fn from(metadata: fs::Metadata) -> Self {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Files in directories. A path is whole; nothing here knows a working directory.
pub trait Fs: Send + Sync {
    /// Opens a file that is there, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    /// Opens a file that is there, for reading only.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    /// Makes an empty file, whatever was under that name. It can be gone after a crash until
    /// [`Fs::sync_dir`] returned.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    /// Makes a directory, and those above it.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, whatever was under that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on the directory itself until the answer is dropped, where the file
    /// system can lock directories. `None`: another has it.
    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn FsLock>>>;
    /// Takes the exclusive lock on the file `path` until the answer is dropped and writes `content`
    /// into it. `Err(content)` is what the holder wrote.
    fn lock(&self, path: &Path, content: &str) -> io::Result<Result<Box<dyn FsLock>, String>>;
    /// Which file or directory is under this name now.
    fn id(&self, path: &Path) -> io::Result<FileId>;
    /// Bytes that are free on the file system of `dir`, if that can be known.
    fn free_bytes(&self, dir: &Path) -> Option<u64>;
    /// How long the system lets a file become for this process; `None`: as long as it likes.
    fn file_bytes_max(&self) -> Option<u64>;
    /// Which start of the machine this is. What was written and not synced can only be lost when
    /// this changes.
    fn boot_id(&self) -> String;
}

/// An open file. Positions are given with each call, so that many may use one.
pub trait FsFile: Send + Sync {
    /// Fills `buffer` from `offset` on as far as the file goes, and says how far.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all pieces one behind the other.
    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Makes bytes and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves room for the bytes up to `len`; what was not written reads as zeros. The file is at
    /// least so long afterwards.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// The same, and the room is really there: where a file system cannot reserve any, it is written.
    fn occupy(&self, len: u64) -> io::Result<()> {
        self.allocate(len)
    }
    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Which file this is.
    fn id(&self) -> io::Result<FileId>;
    /// How long the file is.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A lock that ends when it is dropped.
pub trait FsLock: Send {
    /// What is locked.
    fn id(&self) -> FileId;
}

/// The process that holds a lock on this file or directory, if one does and can be seen from here. The
/// kernel's list of locks is read: to try the lock could keep a node that starts now from getting it.
pub fn lock_holder(path: &Path) -> Option<String> {
    let inode = format!(":{}", fs::metadata(path).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 4711 08:02:123456 0 EOF
        let mut words = line.split_whitespace().skip_while(|&word| word != "FLOCK").skip(3);
        let (pid, file) = (words.next()?, words.next()?);
        // Processes of other namespaces are shown as 0 or below.
        let is_seen = pid.parse::<u32>().is_ok_and(|pid| pid > 0);
        file.ends_with(&inode).then(|| if is_seen { pid.to_owned() } else { String::new() })
    })
}

/// Whether an error says that no room is left: on the file system, of a quota, or in one file.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// What to do about an error of the system, as the end of a sentence; empty if nobody can tell.
pub fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "; make room there, then start the node again".to_owned(),
        io::ErrorKind::QuotaExceeded => {
            "; raise the quota of the node's user or make room, then start the node again"
                .to_owned()
        }
        io::ErrorKind::FileTooLarge => {
            let bytes = RealFs.file_bytes_max();
            let limit =
                bytes.map_or_else(|| "so long".to_owned(), |bytes| format!("over {bytes} bytes"));
            format!("; this process may make no file {limit} (ulimit -f): raise that limit")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; mount it for writing, or name another --data-dir".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "; give the directory to the user the node runs as, or name another --data-dir"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// Marks the error of a sync: what should have become durable may be gone, whatever is tried next.
pub fn sync_failure(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), SyncFailure(error))
}

/// Whether an error is that of a sync.
pub fn is_sync_failure(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<SyncFailure>())
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SyncFailure(io::Error);

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true);
        Ok(Arc::new(open_with_spare(|| options.open(path))?))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(open_with_spare(|| File::open(path))?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Arc::new(open_with_spare(|| options.open(path))?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let missing: Vec<_> = path
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.is_dir())
            .collect();
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)?;
        // Each new name is lost with a crash until the directory that holds it is synced.
        for made in missing {
            match made.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent)?,
                _ => self.sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::hard_link(from, to) {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => Err(error),
            // Some file systems know no second names.
            Err(_) => {
                fs::copy(from, to)?;
                File::open(to)?.sync_all().map_err(sync_failure)
            }
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in open_with_spare(|| fs::read_dir(dir))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        open_with_spare(|| File::open(dir))?.sync_all().map_err(sync_failure)
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn FsLock>>> {
        let file = File::open(dir)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            // Some file systems of networks lock files only: the lock on the file is all there is.
            Ok(()) | Err(_) => Ok(Some(RealLock::of(file)?)),
        }
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<Result<Box<dyn FsLock>, String>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                match file.write_all(content.as_bytes()) {
                    // It is for people: what is locked is the file, whatever it says.
                    Err(error) if !is_full(&error) => return Err(error),
                    Ok(()) | Err(_) => {}
                }
                Ok(Ok(RealLock::of(file)?))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                Ok(Err(holder))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        Ok(fs::metadata(path)?.into())
    }

    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        // Some have no size at all.
        let system = rustix::fs::statvfs(dir).ok().filter(|system| system.f_blocks > 0)?;
        Some(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn file_bytes_max(&self) -> Option<u64> {
        getrlimit(Resource::Fsize).current
    }

    fn boot_id(&self) -> String {
        // Without one every start looks like a new one, which errs on the safe side only if the
        // value differs each time: the process's own start does.
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(
            |_| format!("unknown-{}", std::process::id()),
            |text| text.trim().to_owned(),
        )
    }
}

/// The kernel ends the lock with the last handle of the file.
struct RealLock {
    _file: File,
    id: FileId,
}

impl RealLock {
    fn of(file: File) -> io::Result<Box<dyn FsLock>> {
        let id = file.metadata()?.into();
        Ok(Box::new(RealLock { _file: file, id }))
    }
}

impl FsLock for RealLock {
    fn id(&self) -> FileId {
        self.id
    }
}

impl FsFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut slices = &mut slices[..];
        let mut offset = offset;
        IoSlice::advance_slices(&mut slices, 0); // Drops leading empty pieces.
        while !slices.is_empty() {
            match rustix::io::pwritev(self, slices, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut slices, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self).map_err(sync_failure)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Not every file system can: then the first write of each byte finds out.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                if FsFile::len(self)? < len { File::set_len(self, len) } else { Ok(()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn occupy(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, len) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_zeros(self, len),
            done => Ok(done?),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(self.metadata()?.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Lengthens a file with bytes that are really there; what it took is given back if that fails.
fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let before = FsFile::len(file)?;
    let mut at = before;
    while at < len {
        let count = (len - at).min(ZEROS.len() as u64);
        if let Err(error) = FsFile::write_at(file, &[&ZEROS[..count as usize]], at) {
            File::set_len(file, before)?;
            return Err(error);
        }
        at += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_take_the_room_of_a_file_system_that_cannot_reserve_any() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let file = RealFs.create(&path).expect("a file can be made");
        file.write_at(&[b"kept"], 0).expect("a file can be written");
        let real = OpenOptions::new().write(true).open(&path).expect("the file is there");
        write_zeros(&real, 200_000).expect("there is room");
        let bytes = fs::read(&path).expect("a file can be read");
        assert_eq!((bytes.len(), &bytes[..4]), (200_000, b"kept".as_slice()));
        assert!(bytes[4..].iter().all(|&byte| byte == 0));
        let blocks = fs::metadata(&path).expect("the file is there").blocks();
        assert!(blocks * 512 >= 200_000, "{blocks} blocks are no room");
    }
}
