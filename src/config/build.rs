//! From raw values to a [`Config`]: the one function that every value passes, and the rules that
//! hold between values.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::keys::{self, About, Key};
use super::layers::{Origin, SET, Settings};
use super::{
    ClusterConfig, Config, ConfigError, Limits, LogConfig, NodeConfig, Role, SecondaryConfig,
    StorageConfig,
};
use crate::address::Address;
use crate::limits::NODES_MAX;
use crate::types::{NodeId, Seq, WriteConcern};

/// What only a flag can say, because it is meant for one start.
#[derive(Clone, Debug, Default)]
pub(super) struct Switches {
    pub(super) insecure: bool,
    pub(super) bootstrap: bool,
    pub(super) accept_data_loss: Option<Seq>,
    /// The settings are for all nodes of one process, whatever their role.
    pub(super) shared: bool,
}

/// The checked configuration of a node.
pub(super) fn build(
    role: Role,
    settings: &Settings,
    switches: Switches,
) -> Result<Config, ConfigError> {
    let built = settings.refused().and_then(|()| build_unlogged(role, settings, switches));
    built.map_err(|error| error.logged_to(settings.log(role)))
}

fn build_unlogged(
    role: Role,
    settings: &Settings,
    switches: Switches,
) -> Result<Config, ConfigError> {
    let mut notes = settings.notes().to_vec();
    let shared = switches.shared;
    let node = node(role, settings, switches)?;
    if role == Role::Master && !node.delay.is_zero() && !shared {
        let about = &keys::DELAY.about;
        let origin = settings.origin(about);
        notes.push(format!("{} ({origin}) does nothing on a master", about.key));
    }
    let cluster = cluster(role, settings, &node)?;
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
        notes,
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
    if let Some(gateway) = gateway.as_ref().filter(|addr| is_one_place(addr, &listen)) {
        let about = &keys::GATEWAY.about;
        let wrong = format!("{gateway} is {} as well", keys::LISTEN.about.key);
        return Err(settings.refuse(about, &wrong, "an address of its own, or none"));
    }
    let data_dir = data_dir(role, settings, &id)?;
    Ok(NodeConfig {
        id,
        listen,
        gateway,
        advertise,
        memory: data_dir.is_none(),
        data_dir,
        faults: settings.read(&keys::FAULTS, role)?,
        delay: settings.read(&keys::DELAY, role)?,
        insecure: switches.insecure,
        bootstrap: switches.bootstrap,
        accept_data_loss: switches.accept_data_loss,
    })
}

/// Where the log lives; `None` is in memory. Of a directory and memory the upper layer is meant; in one
/// layer they contradict one another.
fn data_dir(role: Role, settings: &Settings, id: &NodeId) -> Result<Option<PathBuf>, ConfigError> {
    let memory = settings.read(&keys::MEMORY, role)?;
    let dir: Option<PathBuf> = settings.read(&keys::DATA_DIR, role)?;
    let (about, of_dir) = (&keys::MEMORY.about, settings.origin(&keys::DATA_DIR.about));
    match dir {
        None if memory => Ok(None),
        None => Ok(Some(Path::new("replog-data").join(id.as_str()))),
        Some(dir) if memory => match settings.origin(about).layer().cmp(&of_dir.layer()) {
            Ordering::Greater => Ok(None),
            Ordering::Less => Ok(Some(dir)),
            Ordering::Equal => {
                let (key, dir) = (keys::DATA_DIR.about.key, dir.display());
                let wrong = format!("true contradicts {key} = {dir} ({of_dir})");
                Err(settings.refuse(about, &wrong, "one of the two"))
            }
        },
        Some(dir) => Ok(Some(dir)),
    }
}

fn cluster(
    role: Role,
    settings: &Settings,
    node: &NodeConfig,
) -> Result<ClusterConfig, ConfigError> {
    let secondaries = settings.read(&keys::SECONDARIES, role)?;
    check_roster(role, settings, node, &secondaries)?;
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
    node: &NodeConfig,
    secondaries: &[SecondaryConfig],
) -> Result<(), ConfigError> {
    let about = &keys::SECONDARIES.about;
    let refuse = |wrong: &str, allowed: &str| Err(settings.refuse(about, wrong, allowed));
    let raw = settings.raw(about, role);
    let origin = settings.origin(about);
    // A variable that somebody forgot to set looks like this; a node alone must be meant.
    if raw.is_blank() && !matches!(origin, Origin::Default | Origin::Flag(SET)) {
        let wrong = format!("{raw} names no secondary");
        let key = about.key;
        let allowed = format!("{}; for a cluster of one: {SET} {key}=", about.allowed);
        return refuse(&wrong, &allowed);
    }
    if secondaries.len() >= NODES_MAX {
        let wrong = format!("{} secondaries are too many", secondaries.len());
        return refuse(&wrong, &format!("at most {}", NODES_MAX - 1));
    }
    for (position, SecondaryConfig { id, addr }) in secondaries.iter().enumerate() {
        let same_id = |other: &NodeId| other.as_str().eq_ignore_ascii_case(id.as_str());
        if role == Role::Master && same_id(&node.id) {
            let wrong = format!("{id} is the master itself (node.id)");
            return refuse(&wrong, "any other id");
        }
        // Port 0 is for `replog dev`, which learns the ports when its nodes have bound them.
        if origin != Origin::Default {
            check_port(settings, about, addr)?;
            check_not_own(role, settings, node, id, addr)?;
        }
        for earlier in &secondaries[..position] {
            if earlier.id == *id {
                return refuse(&format!("{id} is named twice"), "each id once");
            }
            if same_id(&earlier.id) {
                let wrong = format!("{} and {id} differ in case only", earlier.id);
                return refuse(&wrong, "ids that nobody takes for one another");
            }
            if origin != Origin::Default && is_one_place(&earlier.addr, addr) {
                let wrong = format!("{} and {id} are both at {addr}", earlier.id);
                return refuse(&wrong, "each address once");
            }
        }
    }
    Ok(())
}

/// A master that counts itself as its own secondary would wait for ever.
fn check_not_own(
    role: Role,
    settings: &Settings,
    node: &NodeConfig,
    id: &NodeId,
    addr: &str,
) -> Result<(), ConfigError> {
    let own = [
        (&keys::LISTEN.about, Some(&node.listen)),
        (&keys::GATEWAY.about, node.gateway.as_ref()),
        (&keys::ADVERTISE.about, node.advertise.as_ref()),
    ];
    for (about, own) in own {
        let meets = own.is_some_and(|own| is_one_place(own, addr) || is_behind(own, addr));
        if role == Role::Master && meets {
            let wrong = format!("{id}={addr} is the master itself ({})", about.key);
            let allowed = "the wire address of another node";
            return Err(settings.refuse(&keys::SECONDARIES.about, &wrong, allowed));
        }
    }
    Ok(())
}

/// Whether two addresses are surely one place.
fn is_one_place(one: &str, other: &str) -> bool {
    match (one.parse::<Address>(), other.parse::<Address>()) {
        (Ok(one), Ok(other)) => one.port() != 0 && one.is_same_place(&other),
        _ => false,
    }
}

/// Whether who dials `addr` on this machine comes to who listens on all its addresses.
fn is_behind(own: &str, addr: &str) -> bool {
    match (own.parse::<Address>(), addr.parse::<Address>()) {
        (Ok(own), Ok(addr)) => {
            own.is_unspecified() && addr.is_loopback() && own.port() == addr.port()
        }
        _ => false,
    }
}

/// An address that others shall dial has a port.
fn check_port(settings: &Settings, about: &About, addr: &str) -> Result<(), ConfigError> {
    match addr.parse::<Address>() {
        Ok(parsed) if parsed.port() != 0 && !parsed.is_unspecified() => Ok(()),
        Ok(parsed) if parsed.is_unspecified() => {
            let wrong = format!("{addr} leads nowhere: it is for listening on all addresses");
            Err(settings.refuse(about, &wrong, "host:port, as others reach it"))
        }
        _ => {
            let wrong = format!("{addr} cannot be dialled");
            Err(settings.refuse(about, &wrong, "host:port with a port from 1 to 65535"))
        }
    }
}

/// Protected mode: whoever reaches a port may append and read, so a port beyond this machine must
/// be asked for.
fn check_protected(settings: &Settings, about: &About, addr: &str) -> Result<(), ConfigError> {
    if addr.parse::<Address>().is_ok_and(|addr| addr.is_loopback()) {
        return Ok(());
    }
    let wrong = format!("{addr} is open to other machines, and there is no authentication");
    let allowed = "a loopback address (127.0.0.1, [::1], localhost), or any with --insecure, if \
        the network is trusted: whoever reaches the port may append and read";
    Err(settings.refuse(about, &wrong, allowed))
}
