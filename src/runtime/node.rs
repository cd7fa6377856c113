//! Starting a node, keeping it, stopping it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::faults::Faults;
use super::inbox::{Node, View};
use super::listen::{Listeners, listen_on};
use super::master::MasterDriver;
use super::places::{Places, Shares};
use super::secondary::SecondaryDriver;
use super::server::{Door, accept};
use super::service_manager;
use super::store::{Log, OpenLog};
use crate::config::{Config, Role};
use crate::descriptors;
use crate::engine::{Levels, Master, MasterConfig, OwnLog};
use crate::limits::{DRIVER_QUEUE_MAX, NODES_MAX, STOP_TIMEOUT, WINDOW_BYTES_MAX};
use crate::logging::announce;
use crate::store::StoreError;
use crate::types::{Epoch, LogId, NodeId, RunId, Seq};

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
const DISK_FAILED: u8 = 70;

/// How long connections of a deposed master have for their last replies.
const LAST_WORDS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// A node whose addresses are taken but that does not serve yet.
pub(super) struct Bound {
    pub(super) config: Config,
    wire: Listeners,
    gateway: Option<Listeners>,
    pub(super) wire_addr: SocketAddr,
    pub(super) gateway_addr: Option<SocketAddr>,
    shares: Shares,
}

/// Takes the node's addresses. `nodes` share the descriptors of this process.
pub(super) async fn bind(config: Config, nodes: usize) -> Result<Bound, NodeError> {
    let descriptors = descriptors::prepare();
    let shares = Shares::of(&config, descriptors, nodes);
    let (wanted, each) = (config.limits.connections_max, shares.clients_max);
    if each < wanted {
        warn!(
            id = %config.node.id, descriptors, each, wanted, needed = shares.wanted,
            "limits.connections_max cannot be met: this process may open too few files (ulimit -n)"
        );
    }
    let listen = |addr: String, key, flag| async move {
        let bound = listen_on(&addr).await.and_then(|listeners| {
            let addrs = listeners.addrs()?;
            Ok((listeners, addrs))
        });
        let (listeners, addrs) =
            bound.map_err(|error| NodeError::Bind { addr, key, flag, error })?;
        if addrs.len() > 1 {
            info!(key, ?addrs, "listens on all addresses of the name");
        }
        Ok::<_, NodeError>((listeners, addrs[0])) // At least one listens.
    };
    let (wire, wire_addr) = listen(config.node.listen.clone(), "node.listen", "--listen").await?;
    let (gateway, gateway_addr) = match &config.node.gateway {
        None => (None, None),
        Some(addr) => {
            let (listener, addr) = listen(addr.clone(), "node.gateway", "--gateway").await?;
            (Some(listener), Some(addr))
        }
    };
    Ok(Bound { config, wire, gateway, wire_addr, gateway_addr, shares })
}

/// Runs one node until `stop`.
///
/// # Errors
/// It could not start or go on; see [`NodeError`].
pub async fn run_node(config: Config, stop: CancellationToken) -> Result<(), NodeError> {
    let id = config.node.id.clone();
    let Some(bound) = stop.run_until_cancelled(bind(config, 1)).await else {
        return stopped_early(&id);
    };
    let (ready, is_ready) = oneshot::channel();
    let tell = async {
        if is_ready.await.is_ok() {
            service_manager::ready();
        }
    };
    let told = Told { ready: Some(ready), accepts: None };
    tokio::join!(serve(bound?, stop, told), tell).0
}

/// A stop while the node starts: what had been begun ends with the process, or is dropped as soon as
/// it is done.
pub(super) fn stopped_early(id: &NodeId) -> Result<(), NodeError> {
    info!(%id, "stopped before it was ready");
    Ok(())
}

/// Who is told how far a node has come; nobody who is gone is missed.
#[derive(Default)]
pub(super) struct Told {
    /// Connections are accepted.
    pub(super) ready: Option<oneshot::Sender<()>>,
    /// Appends are accepted for the first time.
    pub(super) accepts: Option<oneshot::Sender<()>>,
}

/// Serves until `stop`, then answers who waits, and ends.
pub(super) async fn serve(
    bound: Bound,
    stop: CancellationToken,
    told: Told,
) -> Result<(), NodeError> {
    let Bound { mut config, wire, gateway, wire_addr, gateway_addr, shares } = bound;
    config.limits.connections_max = shares.clients_max;
    let (driver, inputs) = mpsc::channel(DRIVER_QUEUE_MAX);
    let Some(opened) = stop.run_until_cancelled(open(config.clone())).await else {
        return stopped_early(&config.node.id);
    };
    let opened = opened?;
    let store = opened.log.kind();
    let (view, viewed) = watch::channel(first_view(&config));
    let advertise = config.node.advertise.clone().unwrap_or_else(|| wire_addr.to_string());
    let node = Arc::new(Node::new(
        &config,
        advertise,
        driver,
        opened.log.store().reader(),
        viewed,
        stop.child_token(),
    ));
    if let Some(accepts) = told.accepts {
        let mut viewed = node.view.clone();
        // Ends with the driver, whose view it watches. Who is told may be gone: nobody is missed.
        tokio::spawn(async move {
            if viewed.wait_for(|view| view.accepts).await.is_ok() {
                let _ = accepts.send(());
            }
        });
    }
    let tasks = TaskTracker::new();
    let places = Places::new(shares);
    tasks.spawn(accept(Door::Wire, wire, places, node.clone(), tasks.clone()));
    if let Some(gateway) = gateway {
        let places = Places::new(shares);
        tasks.spawn(accept(Door::Gateway, gateway, places, node.clone(), tasks.clone()));
    }
    opened.log.scrub(node.stop.clone());
    let end = CancellationToken::new();
    let stopping = node.stop.clone();
    let driving = start_driver(&config, node, opened, inputs, view, end.clone())?;
    let gateway = gateway_addr.map_or_else(|| "none".to_owned(), |addr| addr.to_string());
    announce(&format!(
        "ready id={} role={} wire={wire_addr} gateway={gateway} store={store}",
        config.node.id, config.role
    ));
    told.ready.map(|ready| ready.send(()));
    if config.node.faults && config.role == Role::Secondary {
        warn!(id = %config.node.id, "fault verbs are allowed on this node");
    }
    let unnamed = config.node.advertise.is_none() && wire_addr.ip().is_unspecified();
    if unnamed && config.role == Role::Master {
        info!(
            id = %config.node.id, addr = %wire_addr,
            "node.advertise is not set: clients are told an address that is good on this machine only"
        );
    }
    let mut driving = std::pin::pin!(driving);
    let outcome = tokio::select! {
        outcome = &mut driving => Some(outcome),
        () = stop.cancelled() => None,
    };
    // Deposed, or asked to stop: either way connections are told and end.
    stopping.cancel();
    tasks.close();
    let outcome = match outcome {
        // A disk that lies makes every further word doubtful.
        Some(Err(error)) if error.exit_code() == DISK_FAILED => Err(error),
        Some(outcome) => {
            // What the driver said last is still on its way to clients.
            let _ = timeout(LAST_WORDS_TIMEOUT, tasks.wait()).await;
            outcome
        }
        None => {
            let gone = async {
                let all_gone = timeout(STOP_TIMEOUT, tasks.wait()).await;
                if all_gone.is_err() {
                    warn!("some connections did not end in time");
                }
                end.cancel();
            };
            tokio::join!(&mut driving, gone).0
        }
    };
    if outcome.is_ok() {
        info!(id = %config.node.id, "stopped");
    }
    outcome
}

/// Opens the log in a thread for it: a large one takes its time to be read, and a stop does not wait
/// for it.
async fn open(config: Config) -> Result<OpenLog, NodeError> {
    let opening = tokio::task::spawn_blocking(move || Log::open(&config));
    // Nobody aborts it, so that it can only have panicked.
    opening.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn first_view(config: &Config) -> View {
    let master = config.role == Role::Master;
    let secondaries = config.cluster.secondaries.iter().map(|secondary| secondary.id.clone());
    let roster: Vec<NodeId> = std::iter::once(config.node.id.clone()).chain(secondaries).collect();
    View {
        local: Seq::ZERO,
        stored: Seq::ZERO,
        hidden_from: None,
        unserved_from: None,
        levels: Levels::empty(if master { roster.len() } else { 0 }),
        // A secondary learns the roster from its master.
        roster: if master { roster.into() } else { Arc::default() },
        master_addr: String::new(),
        history: None,
        accepts: false,
    }
}

/// Makes the driver of the node's role; what it returns runs it.
fn start_driver(
    config: &Config,
    node: Arc<Node>,
    opened: OpenLog,
    inputs: mpsc::Receiver<super::inbox::Input>,
    view: watch::Sender<View>,
    end: CancellationToken,
) -> Result<impl Future<Output = Result<(), NodeError>> + use<>, NodeError> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(NodeError::Random)?;
    let (log_id, run_id) = random.split_at(16);
    let log_id = LogId::new(log_id.try_into().expect("split at 16"));
    let number = u64::from_le_bytes(run_id.try_into().expect("24 less 16"));
    let (master, secondary) = match config.role {
        Role::Master => {
            let now = node.clock.now();
            let own = own_log(&opened);
            if config.node.bootstrap && own.log_id.is_some() {
                warn!(seq = %own.last, "--bootstrap does nothing: this node has a log, and goes on with it");
            }
            let engine = Master::new(master_config(config), RunId::new(number), log_id, own, now);
            (Some(MasterDriver::new(node.clone(), config, engine, opened, inputs, view)), None)
        }
        Role::Secondary => {
            let faults = Faults::new(config.node.delay, number);
            (None, Some(SecondaryDriver::new(node.clone(), faults, opened, inputs, view)))
        }
    };
    Ok(async move {
        match (master, secondary) {
            (Some(master), _) => master.run(node.stop.clone(), end).await,
            (None, Some(secondary)) => secondary.run(end).await,
            (None, None) => Ok(()),
        }
    })
}

/// What the engine must know of the log it starts with.
fn own_log(opened: &OpenLog) -> OwnLog {
    let log = opened.log.store();
    let (bounds, identity) = (log.bounds(), log.identity());
    OwnLog {
        log_id: identity.log_id,
        epoch: identity.epoch,
        last: bounds.last,
        tail_epoch: bounds.tail.epoch,
        settled: identity.settled,
        commit: identity.commit,
        whole: opened.whole,
    }
}

fn master_config(config: &Config) -> MasterConfig {
    let cluster = &config.cluster;
    assert!(cluster.nodes() <= NODES_MAX, "BUG: the configuration let a long roster pass");
    MasterConfig {
        nodes: cluster.nodes(),
        quorum: cluster.quorum,
        write_concern: cluster.write_concern,
        ack: cluster.ack,
        patience: cluster.append_timeout,
        heartbeat_interval: cluster.heartbeat_interval,
        suspected_after: cluster.suspected_after,
        unhealthy_after: cluster.unhealthy_after,
        attempt_timeout: cluster.attempt_timeout,
        retry_delays: cluster.retry_delays.clone(),
        window_bytes_max: WINDOW_BYTES_MAX,
        bootstrap: config.node.bootstrap,
        accept_data_loss: config.node.accept_data_loss,
    }
}

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
