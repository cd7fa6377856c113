//! Why a node could not start or go on, and how the process ends then.

use crate::node::Failure;
use crate::store::StoreError;
use crate::types::{Epoch, NodeId};

/// Why a node could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An address could not be taken.
    #[error("cannot listen on {addr} ({key}): {error}; {}choose another one with {flag}", way_out(.error))]
    Bind {
        /// The address as configured.
        addr: String,
        /// The key that names it.
        key: &'static str,
        /// The flag that changes it.
        flag: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another master reigns.
    #[error(
        "deposed: {by} promised epoch {epoch} to another master; stop that one, or this one for good"
    )]
    Deposed {
        /// Who said so.
        by: NodeId,
        /// The epoch of the other master.
        epoch: Epoch,
    },
    /// The data directory cannot be used.
    #[error("{0}")]
    Open(#[from] crate::store::OpenError),
    /// The disk failed an fsync: what it says from now on proves nothing.
    #[error(
        "the disk failed to sync the log ({0}); what was not synced is not trusted: look at the \
         disk, then start the node again, it finds out by itself what is there"
    )]
    SyncFailed(String),
    /// The store cannot go on.
    #[error("{0}")]
    Store(StoreError),
    /// Numbers were given or a promise was due, and not even the reserve had room for it.
    #[error(
        "no space is left on the disk for what was let in while there was some: make room there, \
         then start the node again, it finds out by itself what is there"
    )]
    NoRoom,
    /// The system gave no random numbers.
    #[error("cannot get random numbers for an id: {0}")]
    Random(getrandom::Error),
    /// A node of a cluster in one process failed.
    #[error("{id}: {error}")]
    InCluster {
        /// Which node.
        id: NodeId,
        /// What happened.
        error: Box<NodeError>,
    },
}

/// What may be done about an address that cannot be taken, beside taking another one.
fn way_out(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "free it or ",
        std::io::ErrorKind::PermissionDenied => "a port below 1024 needs a privilege: grant it or ",
        std::io::ErrorKind::AddrNotAvailable => "this machine does not have it: add it or ",
        _ => "",
    }
}

impl From<StoreError> for NodeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => NodeError::NoRoom,
            error => NodeError::Store(error),
        }
    }
}

impl From<Failure> for NodeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => error.into(),
            Failure::SyncFailed(reason) => NodeError::SyncFailed(reason),
            Failure::Deposed { by, epoch } => NodeError::Deposed { by, epoch },
        }
    }
}

impl NodeError {
    /// The exit code that scripts rely on.
    pub fn exit_code(&self) -> u8 {
        match self {
            // A write that failed leaves as much in doubt as a sync that did.
            NodeError::SyncFailed(_) | NodeError::Store(StoreError::Failed { .. }) => DISK_FAILED,
            NodeError::Open(error) if error.is_sync_failure() => DISK_FAILED,
            NodeError::InCluster { error, .. } => error.exit_code(),
            _ => 1,
        }
    }
}

/// The exit code of a node whose disk failed: what it says from now on proves nothing.
pub(super) const DISK_FAILED: u8 = 70;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_disk_failed_ends_the_node_with_70_and_a_full_one_does_not() {
        let what = "write to the log".to_owned();
        let error = "Input/output error (os error 5)".to_owned();
        let failed = NodeError::from(StoreError::Failed { what, error: error.clone() });
        assert_eq!(failed.exit_code(), 70);
        let line = failed.to_string();
        assert!(line.contains(&error) && line.contains("start the node again"), "{line}");
        assert_eq!(NodeError::SyncFailed(error).exit_code(), 70);
        let in_cluster = NodeError::InCluster {
            id: "s1".parse().expect("a node's name"),
            error: Box::new(failed),
        };
        assert_eq!(in_cluster.exit_code(), 70);

        let full = NodeError::from(StoreError::Full);
        assert_eq!(full.exit_code(), 1);
        assert!(!full.to_string().contains("goes on by itself"), "{full}");
    }
}
