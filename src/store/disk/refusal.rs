//! Why a directory is not opened, in words that say what to do.

use std::path::{Path, PathBuf};

use super::{ASIDE, LOCK, RESERVE};
use crate::store::fs::{advice, is_sync_failure};
use crate::types::NodeId;

/// Why a directory was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{dir} is in use by {holder}: stop that node, or give this one another --data-dir")]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who uses it, as far as that can be told.
        holder: String,
    },
    /// It belongs to another node.
    #[error(
        "{dir} is the log of node {found}, not of {id}: give this node its own --data-dir, or \
         start it with --id {found}"
    )]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who wanted it.
        id: NodeId,
    },
    /// A later version wrote it.
    #[error(
        "{path} has format {found}, and this version of replog knows formats up to {known}: start \
         a newer replog"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// It is no directory.
    #[error("{dir} {what}: name a directory with --data-dir, or one to be made")]
    NoDirectory {
        /// The path.
        dir: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// It holds something else.
    #[error("{dir} is no data directory of replog (it holds {found}): name an empty or new one")]
    NotReplog {
        /// The directory.
        dir: PathBuf,
        /// What it holds.
        found: String,
    },
    /// What must not be forgotten is lost.
    #[error(
        "{path} is {found}, and with it what this node promised: put the file back, or move the \
         directory away, delete nothing, and start empty, so that the node is filled by the others"
    )]
    MetaDamaged {
        /// The file.
        path: PathBuf,
        /// `damaged in both of its copies` or `gone`.
        found: &'static str,
    },
    /// A segment of another log lies among the others.
    #[error("{path} belongs to another log than the directory: move that file away")]
    ForeignSegment {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what}: {error}{}", advice(.error))]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
}

impl OpenError {
    /// Whether the disk failed a sync, so that what it says from now on proves nothing.
    pub fn is_sync_failure(&self) -> bool {
        matches!(self, OpenError::Io { error, .. } if is_sync_failure(error))
    }
}

/// Why there is no directory of this name, and none could be made.
pub(super) fn no_directory(dir: &Path, error: std::io::Error) -> OpenError {
    let no_directory =
        |what: &str| OpenError::NoDirectory { dir: dir.to_owned(), what: what.to_owned() };
    // What is in the way may stand further up.
    let Some(path) = dir.ancestors().find(|path| path.symlink_metadata().is_ok()) else {
        return io(format!("make the directory {}", dir.display()))(error);
    };
    let above =
        if path == dir { String::new() } else { format!("cannot be made: {} ", path.display()) };
    match (std::fs::read_link(path), path.metadata()) {
        (Ok(to), Err(missing)) if missing.kind() == std::io::ErrorKind::NotFound => {
            no_directory(&format!("{above}is a link to {}, and nothing is there", to.display()))
        }
        // More links than the system follows; that something is there already is not why.
        (Ok(to), Err(why)) => {
            no_directory(&format!("{above}is a link to {} that leads nowhere: {why}", to.display()))
        }
        (_, Ok(metadata)) if !metadata.is_dir() => {
            no_directory(&format!("{above}is a file and no directory"))
        }
        _ => io(format!("make the directory {}", dir.display()))(error),
    }
}

/// Whether a new log may begin beside what has this name: our own beginnings, and what file systems
/// and version control put into directories that are empty to everybody else.
pub(super) fn is_nobodys(name: &str) -> bool {
    let ours = [LOCK, RESERVE, ASIDE, "meta.tmp"];
    let others = ["lost+found", ".gitkeep", ".gitignore", ".keep", ".snapshot"];
    ours.contains(&name) || others.contains(&name) || name.starts_with(".nfs")
}

pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> OpenError {
    let what = what.into();
    move |error| OpenError::Io { what, error }
}
