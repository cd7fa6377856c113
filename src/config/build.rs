//! From raw values to a [`Config`]: the one function that every value passes, and the rules that
//! hold between values.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::keys::{self, About, Key};
use super::layers::{Origin, Settings};
use super::value::split_address;
use super::{
    ClusterConfig, Config, ConfigError, Limits, LogConfig, NodeConfig, Role, SecondaryConfig,
    StorageConfig,
};
use crate::limits::NODES_MAX;
use crate::types::{NodeId, Seq, WriteConcern};

/// What only a flag can say, because it is meant for one start.
#[derive(Clone, Debug, Default)]
pub(super) struct Switches {
    pub(super) insecure: bool,
    pub(super) bootstrap: bool,
    pub(super) accept_data_loss: Option<Seq>,
}

/// The checked configuration of a node.
pub(super) fn build(
    role: Role,
    settings: &Settings,
    switches: Switches,
) -> Result<Config, ConfigError> {
    let node = node(role, settings, switches)?;
    let cluster = cluster(role, settings, &node.id)?;
    Ok(Config {
        role,
        node,
        cluster,
        storage: StorageConfig {
            fsync: settings.read(&keys::FSYNC, role)?,
            fsync_interval: settings.read(&keys::FSYNC_INTERVAL, role)?,
            segment_size: settings.read(&keys::SEGMENT_SIZE, role)?,
        },
        limits: Limits {
            payload_max: settings.read(&keys::PAYLOAD_MAX, role)?,
            connections_max: settings.read(&keys::CONNECTIONS_MAX, role)?,
            inflight_max: settings.read(&keys::INFLIGHT_MAX, role)?,
            waiting_max: settings.read(&keys::WAITING_MAX, role)?,
            output_max: settings.read(&keys::OUTPUT_MAX, role)?,
            write_timeout: settings.read(&keys::WRITE_TIMEOUT, role)?,
        },
        log: LogConfig {
            level: settings.read(&keys::LEVEL, role)?,
            format: settings.read(&keys::FORMAT, role)?,
            file: settings.read(&keys::FILE, role)?,
        },
    })
}

fn node(role: Role, settings: &Settings, switches: Switches) -> Result<NodeConfig, ConfigError> {
    let id = settings.read(&keys::ID, role)?;
    let listen = settings.read(&keys::LISTEN, role)?;
    let gateway = settings.read(&keys::GATEWAY, role)?;
    if !switches.insecure {
        check_protected(settings, &keys::LISTEN.about, &listen)?;
        if let Some(gateway) = &gateway {
            check_protected(settings, &keys::GATEWAY.about, gateway)?;
        }
    }
    let advertise = settings.read(&keys::ADVERTISE, role)?;
    if let Some(addr) = &advertise {
        check_port(settings, &keys::ADVERTISE.about, addr)?;
    }
    let memory = settings.read(&keys::MEMORY, role)?;
    let data_dir: Option<PathBuf> = settings.read(&keys::DATA_DIR, role)?;
    let data_dir = data_dir.unwrap_or_else(|| Path::new("replog-data").join(id.as_str()));
    Ok(NodeConfig {
        id,
        listen,
        gateway,
        advertise,
        data_dir: (!memory).then_some(data_dir),
        memory,
        faults: settings.read(&keys::FAULTS, role)?,
        delay: settings.read(&keys::DELAY, role)?,
        insecure: switches.insecure,
        bootstrap: switches.bootstrap,
        accept_data_loss: switches.accept_data_loss,
    })
}

fn cluster(role: Role, settings: &Settings, id: &NodeId) -> Result<ClusterConfig, ConfigError> {
    let secondaries = settings.read(&keys::SECONDARIES, role)?;
    check_roster(role, settings, id, &secondaries)?;
    // A secondary need not know the roster, and without it there is nothing to compare with.
    let nodes = (role == Role::Master || !secondaries.is_empty()).then(|| 1 + secondaries.len());
    let (quorum, _) = nodes_meant(settings, &keys::QUORUM, role, nodes)?;
    let (_, write_concern) = nodes_meant(settings, &keys::WRITE_CONCERN, role, nodes)?;
    let suspected_after = settings.read(&keys::SUSPECTED_AFTER, role)?;
    let unhealthy_after = settings.read(&keys::UNHEALTHY_AFTER, role)?;
    if unhealthy_after < suspected_after {
        let (suspected, unhealthy) = (&keys::SUSPECTED_AFTER.about, &keys::UNHEALTHY_AFTER.about);
        let origin = settings.origin(suspected);
        let wrong = format!("{unhealthy_after} is below {} = {suspected_after}", suspected.key);
        let allowed =
            format!("{suspected_after} and more, or a lower {} ({origin})", suspected.key);
        return Err(settings.refuse(unhealthy, &wrong, &allowed));
    }
    Ok(ClusterConfig {
        secondaries,
        quorum,
        write_concern,
        ack: settings.read(&keys::ACK, role)?,
        append_timeout: settings.read(&keys::APPEND_TIMEOUT, role)?,
        heartbeat_interval: settings.read(&keys::HEARTBEAT_INTERVAL, role)?,
        suspected_after,
        unhealthy_after,
        attempt_timeout: settings.read(&keys::ATTEMPT_TIMEOUT, role)?,
        retry_delays: settings.read(&keys::RETRY_DELAYS, role)?,
    })
}

/// The number of nodes that a key means, and the key's value, in a cluster of so many nodes (if
/// that is known).
fn nodes_meant(
    settings: &Settings,
    key: &Key<WriteConcern>,
    role: Role,
    nodes: Option<usize>,
) -> Result<(usize, WriteConcern), ConfigError> {
    let meant = settings.read(key, role)?;
    let count = match (meant, nodes) {
        (WriteConcern::Nodes(count), None) => Some(usize::from(count.get())),
        (_, nodes) => meant.resolve(nodes.unwrap_or(1)),
    };
    let count = count.ok_or_else(|| {
        let nodes = nodes.unwrap_or(1);
        let secondaries = keys::SECONDARIES.about.key;
        let wrong =
            format!("{meant} is more than the {nodes} nodes of the master and {secondaries}");
        settings.refuse(&key.about, &wrong, &format!("1 to {nodes}, majority or all"))
    })?;
    Ok((count, meant))
}

fn check_roster(
    role: Role,
    settings: &Settings,
    id: &NodeId,
    secondaries: &[SecondaryConfig],
) -> Result<(), ConfigError> {
    let about = &keys::SECONDARIES.about;
    if secondaries.len() >= NODES_MAX {
        let wrong = format!("{} secondaries are too many", secondaries.len());
        return Err(settings.refuse(about, &wrong, &format!("at most {}", NODES_MAX - 1)));
    }
    for (position, secondary) in secondaries.iter().enumerate() {
        let earlier = secondaries.iter().take(position);
        if earlier.map(|earlier| &earlier.id).any(|earlier| *earlier == secondary.id) {
            let wrong = format!("{} is named twice", secondary.id);
            return Err(settings.refuse(about, &wrong, "each id once"));
        }
        if role == Role::Master && secondary.id == *id {
            let wrong = format!("{id} is the master itself (node.id)");
            return Err(settings.refuse(about, &wrong, "any other id"));
        }
        // Port 0 is for `replog dev`, which learns the ports when its nodes have bound them.
        if settings.origin(about) != Origin::Default {
            check_port(settings, about, &secondary.addr)?;
        }
    }
    Ok(())
}

/// An address that others shall dial has a port.
fn check_port(settings: &Settings, about: &About, addr: &str) -> Result<(), ConfigError> {
    match split_address(addr) {
        Some((_, port)) if port != 0 => Ok(()),
        _ => {
            let wrong = format!("{addr} cannot be dialled");
            Err(settings.refuse(about, &wrong, "host:port with a port from 1 to 65535"))
        }
    }
}

/// Protected mode: whoever reaches a port may append and read, so a port beyond this machine must
/// be asked for.
fn check_protected(settings: &Settings, about: &About, addr: &str) -> Result<(), ConfigError> {
    if split_address(addr).is_some_and(|(host, _)| is_loopback(host)) {
        return Ok(());
    }
    let wrong = format!("{addr} is open to other machines, and there is no authentication");
    let allowed = "a loopback address (127.0.0.1, [::1], localhost), or any with --insecure, if \
        the network is trusted: whoever reaches the port may append and read";
    Err(settings.refuse(about, &wrong, allowed))
}

/// Whether a host is surely this machine. Names other than `localhost` are not looked up: what they
/// mean may change between the look-up and the bind.
fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(addr) => addr.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}
