//! `replog dev`: a whole cluster in one process, for a first look.

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::NodeError;
use super::node::{Bound, Told, bind, serve, stopped_early};
use super::service_manager;
use crate::config::{DevConfig, Role};
use crate::logging::announce;

/// Runs the cluster until `stop`, or until one of its nodes cannot go on.
///
/// # Errors
/// A node could not start or go on; the error names it.
pub async fn run_dev(dev: DevConfig, stop: CancellationToken) -> Result<(), NodeError> {
    let stop = stop.child_token();
    let mut nodes: Vec<Bound> = Vec::new();
    let count = dev.nodes.len();
    for config in dev.nodes {
        let id = config.node.id.clone();
        let Some(bound) = stop.run_until_cancelled(bind(config, count)).await else {
            return stopped_early(&id);
        };
        nodes.push(bound.map_err(|error| NodeError::InCluster { id, error: Box::new(error) })?);
    }
    // Ports that were left to the system are known only now.
    let addrs: Vec<_> = nodes.iter().skip(1).map(|node| node.wire_addr.to_string()).collect();
    for node in &mut nodes {
        for (secondary, addr) in node.config.cluster.secondaries.iter_mut().zip(&addrs) {
            secondary.addr.clone_from(addr);
        }
    }
    let hint = hint(&nodes);
    let (accepts, accepted) = oneshot::channel();
    let mut accepts = Some(accepts);
    let mut running = JoinSet::new();
    for node in nodes.into_iter().rev() {
        let (id, stop) = (node.config.node.id.clone(), stop.clone());
        let accepts = accepts.take_if(|_| node.config.role == Role::Master);
        let told = Told { accepts, ready: None };
        running.spawn(async move { (id, serve(node, stop, told).await) });
    }
    let ready = async {
        if accepted.await.is_ok() {
            announce(&format!("ready cluster nodes={count} mode=normal"));
            service_manager::ready();
            hint.iter().for_each(|line| announce(line));
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        outcome = until_all_ended(&mut running, &stop) => outcome,
        () = ready => Ok(()),
    }
}

async fn until_all_ended(
    running: &mut JoinSet<(crate::types::NodeId, Result<(), NodeError>)>,
    stop: &CancellationToken,
) -> Result<(), NodeError> {
    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        // The cluster is one thing: without one of its nodes it ends.
        stop.cancel();
        match ended {
            // The first is the cause; what the others say may follow from it.
            Ok((id, Err(error))) if outcome.is_ok() => {
                outcome = Err(NodeError::InCluster { id, error: Box::new(error) })
            }
            Ok(_) => {}
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    outcome
}

/// What a person may try now.
fn hint(nodes: &[Bound]) -> Vec<String> {
    let gateways: Vec<_> = nodes.iter().filter_map(|node| node.gateway_addr).collect();
    let Some(master) = gateways.first() else { return Vec::new() };
    let mut lines =
        vec![format!("try: nc {} {}    and type: APPEND hello", master.ip(), master.port())];
    if let (Some(s1), Some(node)) = (gateways.get(1), nodes.get(1)) {
        let id = &node.config.node.id;
        lines.push(format!(
            "try: nc {} {}    and type: DELAY every=3s    (slows {id} down; LIST shows its copy)",
            s1.ip(),
            s1.port()
        ));
    }
    if let Some(node) = nodes.first() {
        lines.push(format!("try: replog-cli --server {} status", node.wire_addr));
    }
    lines
}
