//! The log on disk: segments of records, hand-written.
//!
//! ```text
//! <dir>/lock                        held while a node uses the directory; names its process
//! <dir>/meta                        what must not be forgotten: see `meta`
//! <dir>/reserve                     room on the disk for bad times, never read
//! <dir>/00000000000000000001.log    a sealed segment, named by its first entry
//! <dir>/00000000000000004711.log    the active segment
//! <dir>/aside/<n>-<from>.log        entries that were moved out of the log
//! <dir>/aside/<n>-<from>.bad        a damaged or torn piece of a segment, or a whole one
//!
//!   sealed segment                    active segment
//!   +---------------------------+     +---------------------------+
//!   | header          64 bytes  |     | header          64 bytes  |
//!   +---------------------------+     +---------------------------+
//!   | control: durable mark     |     | control: durable mark     |
//!   | entry, entry, entry …     |     | entry, entry, entry …     |
//!   | control: durable mark     |     |                           |
//!   | entry, entry …            |     | zeros: room preallocated  |
//!   +---------------------------+     +---------------------------+
//!   | footer: a control record  |
//!   | trailer         16 bytes  |
//!   +---------------------------+
//!
//!   segment header                              control record: the header of a record
//!   byte 0  magic "RPLGSEG\0"                   byte 0  header checksum   u32
//!        8  format version   u32                     4  body checksum     u32
//!       12  CRC-32C of 0-11  u32                     8  digest of the entry before  u64
//!       16  log id           16 bytes, or 0         16  body length       u32
//!       32  first entry      u64                    20  flags             u16  bit 15
//!       40  epoch before     u64                    22  kind              u16  1 mark, 2 footer
//!       48  digest before    u64                    24  next entry        u64
//!       56  reserved         u32  0                 32  epoch before      u64
//!       60  CRC-32C of 0-59  u32                    40  mark: durable position; footer: offset
//!
//!   footer body                                 trailer
//!   byte 0  last entry       u64                byte 0  offset of the footer  u64
//!        8  bytes of entries u64                     8  magic "SEAL"          u32
//!       16  epoch at last    u64                    12  CRC-32C of 0-11       u32
//!       24  digest at last   u64
//!       32  number of epochs u32, of places u32
//!       40  per epoch: epoch u64, first entry u64
//!           per place: entry, offset, bytes of entries before, epoch and digest before, u64 each
//! ```
//!
//! Entries are the bytes of the wire. A mark is written before a batch whenever the durable position
//! has advanced since the last mark, and at the beginning of each segment.

pub(crate) mod format;
mod job;
pub(crate) mod meta;
pub(crate) mod recovery;
mod refusal;
pub(crate) mod repair;
mod rewrite;
mod room;
pub(crate) mod scan;
mod scrub;
pub(crate) mod segment;
pub(crate) mod segments;
mod sync;
mod watch;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use recovery::{Opened, Recovery};
pub use refusal::OpenError;
pub use scrub::{Scrub, ScrubStep};
pub use sync::SyncStats;
pub use write::DiskLog;

use crate::limits::{OPEN_SEGMENTS_MAX, TAIL_CACHE_BYTES};
use crate::types::{NodeId, Seq, SeqRange};

/// When an entry counts as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Once fdatasync returned.
    Always,
    /// Once written; fdatasync follows within this time.
    Interval(Duration),
    /// Once written; only what is sealed is synced.
    Never,
}

impl Fsync {
    fn name(self) -> &'static str {
        match self {
            Fsync::Always => "always",
            Fsync::Interval(_) => "interval",
            Fsync::Never => "never",
        }
    }
}

/// How a log is kept on disk.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Whose log it is. The directory of another node is refused.
    pub node_id: NodeId,
    /// A segment is sealed before it would be longer, unless a single run is, or the disk is so far
    /// behind with those before it that it is to have no more of them.
    pub segment_size: u64,
    /// When an entry counts as stored.
    pub fsync: Fsync,
    /// The longest run for which there is to be room at any time while the disk has some, in bytes.
    pub run_bytes: u64,
    /// Bytes of the newest entries kept in memory for readers.
    pub cache_bytes: usize,
    /// Sealed segments whose files are kept open for readers.
    pub open_segments: usize,
    /// No thread: [`DiskLog::sync_now`] and [`DiskLog::work`] are called instead. For simulations.
    pub manual_sync: bool,
}

impl DiskOptions {
    /// The defaults for this node: 64 MiB segments, `always`.
    pub fn new(node_id: NodeId) -> Self {
        DiskOptions {
            node_id,
            segment_size: 64 << 20,
            fsync: Fsync::Always,
            run_bytes: 1 << 20,
            cache_bytes: TAIL_CACHE_BYTES,
            open_segments: OPEN_SEGMENTS_MAX,
            manual_sync: false,
        }
    }
}

/// What the disk has to tell, from its own thread or a reader's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskEvent {
    /// Everything up to and including this is on disk.
    Durable(Seq),
    /// A sync failed. Nothing will become durable any more: the node must end (exit code 70), and
    /// the next start finds out what is on disk.
    SyncFailed(String),
    /// These entries turned out to be unreadable, and why.
    Damage(SeqRange, String),
    /// What was begun in another thread is over: its outcome can be taken.
    JobDone,
}

/// The directory below which lies what was moved out of the log.
pub(crate) const ASIDE: &str = "aside";
/// The lock file.
pub(crate) const LOCK: &str = "lock";
/// Room on the disk.
pub(crate) const RESERVE: &str = "reserve";

/// Where the directory and its file system are.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) fs: Arc<dyn crate::store::fs::Fs>,
    pub(crate) dir: PathBuf,
}

impl Home {
    pub(crate) fn aside(&self) -> PathBuf {
        self.dir.join(ASIDE)
    }

    pub(crate) fn segment(&self, first: Seq) -> PathBuf {
        self.dir.join(format::segment_name(first))
    }

    /// Makes the file `tmp`. One that was not finished goes again: others need its room.
    pub(crate) fn or_nothing<T>(
        &self,
        tmp: &Path,
        make: impl FnOnce() -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        make().inspect_err(|_| {
            // The error that counts is the first one.
            let _ = self.fs.remove(tmp);
        })
    }

    /// Copies bytes of `file` from `from` up to `end` into a new file below `aside/`, durable when
    /// this returns.
    pub(crate) fn keep_aside(
        &self,
        name: &str,
        head: &[u8],
        pieces: &[(Arc<dyn crate::store::fs::FsFile>, u64, u64)],
    ) -> std::io::Result<()> {
        let dir = self.aside();
        self.fs.create_dir(&dir)?;
        let tmp = dir.join(format!("{name}.tmp"));
        self.or_nothing(&tmp, || {
            let to = self.fs.create(&tmp)?;
            to.write_at(&[head], 0)?;
            let mut at = head.len() as u64;
            for (file, from, end) in pieces {
                copy(&**file, *from, *end, &*to, at)?;
                at += end - from;
            }
            to.sync_data()
        })?;
        self.fs.rename(&tmp, &dir.join(name))?;
        self.fs.sync_dir(&dir)?;
        self.fs.sync_dir(&self.dir)
    }
}

/// Copies a range of bytes, a piece at a time.
pub(crate) fn copy(
    file: &dyn crate::store::fs::FsFile,
    from: u64,
    end: u64,
    to: &dyn crate::store::fs::FsFile,
    at: u64,
) -> std::io::Result<()> {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut done = 0;
    while from + done < end {
        let len = PIECE_BYTES.min(end - from - done);
        let bytes = scan::read_span(file, from + done, len as usize); // At most PIECE_BYTES.
        if bytes.is_empty() {
            break;
        }
        to.write_at(&[&bytes], at + done)?;
        done += bytes.len() as u64;
    }
    Ok(())
}

/// The last part of a path, for messages.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
