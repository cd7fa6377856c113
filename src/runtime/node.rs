//! Starting a node, keeping it, stopping it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use super::door::Door;
use super::driver::{Carried, Driver};
use super::error::{DISK_FAILED, NodeError};
use super::inbox::{Input, Node};
use super::listen::{Listeners, listen_on};
use super::places::{Places, Shares};
use super::server::accept;
use super::service_manager;
use super::store::NodeLog;
use crate::config::{Config, Role};
use crate::descriptors;
use crate::engine::MasterConfig;
use crate::limits::{DRIVER_QUEUE_MAX, NODES_MAX, STOP_TIMEOUT, WINDOW_BYTES_MAX};
use crate::logging::announce;
use crate::node::faults::Faults;
use crate::node::master::Beginnings;
use crate::node::{About, MasterNode, SecondaryNode, Storage as _, View};
use crate::store::provisional::SharedProvisional;
use crate::types::{LogId, NodeId, RunId};

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
    let (store, reader) = (opened.kind(), opened.log().reader());
    let (view, viewed) = watch::channel(first_view(&config));
    let about = About {
        id: config.node.id.clone(),
        advertise: config.node.advertise.clone().unwrap_or_else(|| wire_addr.to_string()),
        payload_max: config.limits.payload_max,
    };
    let log = (reader, SharedProvisional::default());
    let node = Arc::new(Node::new(&config, about, driver, log, viewed, stop.child_token()));
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
    opened.scrub(node.stop.clone());
    let (stopping, driver) = (node.stop.clone(), node.driver.clone());
    // A task of its own: woken by the other tasks it runs next, without a look at the sockets first.
    let driving = tokio::spawn(start_driver(&config, node, opened, inputs, view)?.run());
    let driving = async {
        // Nobody aborts it while this waits, so that it can only have panicked.
        let ended = AbortOnDropHandle::new(driving).await;
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    };
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
                // A driver that has ended needs no word.
                let _ = driver.send(Input::Stop).await;
                let all_gone = timeout(STOP_TIMEOUT, tasks.wait()).await;
                if all_gone.is_err() {
                    warn!("some connections did not end in time");
                }
                let _ = driver.send(Input::End).await;
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
async fn open(config: Config) -> Result<NodeLog, NodeError> {
    let opening = tokio::task::spawn_blocking(move || NodeLog::open(&config));
    // Nobody aborts it, so that it can only have panicked.
    opening.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn first_view(config: &Config) -> View {
    let master = config.role == Role::Master;
    let secondaries = config.cluster.secondaries.iter().map(|secondary| secondary.id.clone());
    let roster: Vec<NodeId> = std::iter::once(config.node.id.clone()).chain(secondaries).collect();
    // A secondary learns the roster from its master.
    View::new(if master { roster.into() } else { Arc::default() })
}

/// Makes the node of its role and the driver that carries it.
fn start_driver(
    config: &Config,
    node: Arc<Node>,
    opened: NodeLog,
    inputs: mpsc::Receiver<Input>,
    view: watch::Sender<View>,
) -> Result<Driver, NodeError> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(NodeError::Random)?;
    let (log_id, run_id) = random.split_at(16);
    let log_id = LogId::new(log_id.try_into().expect("split at 16"));
    let number = u64::from_le_bytes(run_id.try_into().expect("24 less 16"));
    let about = node.site.about.clone();
    let carried = match config.role {
        Role::Master => {
            let (has_log, last) =
                (opened.log().identity().log_id.is_some(), opened.log().bounds().last);
            if config.node.bootstrap && has_log {
                warn!(seq = %last, "--bootstrap does nothing: this node has a log, and goes on with it");
            }
            let roster = config.cluster.secondaries.iter();
            let beginnings = Beginnings {
                config: master_config(config),
                run_id: RunId::new(number),
                log_id,
                secondaries: roster.map(|it| (it.id.clone(), it.addr.clone())).collect(),
                first_session: 1,
            };
            let now = node.clock.now();
            Carried::Master(Box::new(MasterNode::new(about, beginnings, opened, now)))
        }
        Role::Secondary => {
            let faults = Faults::new(config.node.delay, number);
            let (interval, by_hand) = (node.site.heartbeat_interval, node.site.provisional.clone());
            let secondary = SecondaryNode::new(about, interval, faults, (opened, by_hand));
            Carried::Secondary(Box::new(secondary))
        }
    };
    Ok(Driver::new(node, config.cluster.clone(), carried, inputs, view))
}

fn master_config(config: &Config) -> MasterConfig {
    let cluster = &config.cluster;
    assert!(cluster.nodes() <= NODES_MAX, "BUG: the configuration let a long roster pass");
    MasterConfig {
        nodes: cluster.nodes(),
        quorum: cluster.quorum,
        write_concern: cluster.write_concern,
        ack: cluster.ack,
        timeout: cluster.append_timeout,
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
