//! The processes, and the proxies between them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::schedule::{Link, node_name};
use crate::proxy::Proxy;

/// A failure bound, never a measure.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The wire protocol.
    pub wire: SocketAddr,
    /// The text gateway.
    pub gateway: SocketAddr,
}

#[derive(Debug)]
struct Node {
    process: Option<Child>,
    /// Where it listens now; none while it does not run.
    addresses: watch::Sender<Option<Addresses>>,
}

/// A running cluster. Dropping it kills its processes.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    directory: PathBuf,
    /// Below this lies each node's log, if logs are on disk.
    data: Option<PathBuf>,
    nodes: Vec<Node>,
    proxies: BTreeMap<Link, Proxy>,
}

impl Cluster {
    /// Starts a master and its secondaries behind proxies, and waits until each listens. Their logs
    /// are new: in memory, or on disk below `directory`.
    ///
    /// # Errors
    /// A process does not start, or what an earlier run left cannot be removed.
    pub async fn start(
        binary: &Path,
        directory: &Path,
        nodes: usize,
        disk: bool,
        seed: u64,
    ) -> Result<Cluster> {
        let data = disk.then(|| directory.join("data"));
        if let Some(data) = &data
            && data.exists()
        {
            std::fs::remove_dir_all(data)
                .with_context(|| format!("cannot remove {}", data.display()))?;
        }
        let node = || Node { process: None, addresses: watch::Sender::new(None) };
        let mut cluster = Cluster {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            data,
            nodes: (0..nodes).map(|_| node()).collect(),
            proxies: BTreeMap::new(),
        };
        for (link, number) in (1..nodes).map(Link::Secondary).zip(2..) {
            cluster.proxies.insert(link, Proxy::start(None, seed ^ number).await?);
        }
        for (link, number) in [(Link::Wire, 0), (Link::Text, 1)] {
            cluster.proxies.insert(link, Proxy::start(None, seed ^ number).await?);
        }
        for node in (0..nodes).rev() {
            cluster.start_node(node).await?;
        }
        Ok(cluster)
    }

    /// How many nodes there are.
    #[allow(clippy::len_without_is_empty)] // There is always a master.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// It does not say in time where it listens.
    pub async fn start_node(&mut self, node: usize) -> Result<()> {
        let name = node_name(node);
        let mut command = Command::new(&self.binary);
        let any = "127.0.0.1:0";
        command.arg(if node == 0 { "master" } else { "secondary" });
        command.args(["--id", &name, "--listen", any, "--gateway", any]);
        match &self.data {
            None => command.arg("--memory"),
            // Small, so that a run has many.
            Some(data) => command
                .args(["--set", "storage.segment_size=256KiB", "--data-dir"])
                .arg(data.join(&name)),
        };
        if node == 0 {
            for (link, proxy) in &self.proxies {
                if let Link::Secondary(node) = link {
                    let addr = proxy.addr;
                    command.arg("--secondary").arg(format!("{}={addr}", node_name(*node)));
                }
            }
            for setting in [
                "cluster.heartbeat_interval=200ms",
                "cluster.attempt_timeout=400ms",
                "cluster.retry_delays=200ms,400ms,1s",
            ] {
                command.args(["--set", setting]);
            }
        }
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("REPLOG_") {
                command.env_remove(key);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let log = self.directory.join(format!("{name}.log"));
        let addresses = ready(&mut child, &log)
            .await
            .with_context(|| format!("{name} does not start; see {}", log.display()))?;
        let place = &mut self.nodes[node];
        place.process = Some(child);
        place.addresses.send_replace(Some(addresses));
        self.aim(node, Some(addresses));
        Ok(())
    }

    /// Kills a node.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self, node: usize) -> Result<()> {
        let Some(mut process) = self.nodes[node].process.take() else {
            bail!("{} does not run", node_name(node));
        };
        self.nodes[node].addresses.send_replace(None);
        self.aim(node, None);
        process.kill().await?;
        Ok(())
    }

    /// Stops a node's process where it is, or lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub async fn signal(&self, node: usize, signal: &str) -> Result<()> {
        let process = self.nodes[node].process.as_ref();
        let id = process.and_then(Child::id).ok_or_else(|| anyhow!("it does not run"))?;
        let status =
            Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).status().await?;
        if status.success() { Ok(()) } else { bail!("kill -{signal} {id}: {status}") }
    }

    /// Whether a process ended that was not killed: the first such node.
    pub fn ended(&mut self) -> Option<(usize, std::process::ExitStatus)> {
        self.nodes.iter_mut().enumerate().find_map(|(node, place)| {
            let status = place.process.as_mut()?.try_wait().ok()??;
            Some((node, status))
        })
    }

    fn aim(&self, node: usize, addresses: Option<Addresses>) {
        let aim = |link, target| {
            if let Some(proxy) = self.proxies.get(&link) {
                proxy.set_target(target);
            }
        };
        if node == 0 {
            aim(Link::Wire, addresses.map(|it| it.wire));
            aim(Link::Text, addresses.map(|it| it.gateway));
        } else {
            aim(Link::Secondary(node), addresses.map(|it| it.wire));
        }
    }

    /// The proxy on a link.
    pub fn proxy(&self, link: Link) -> Option<&Proxy> {
        self.proxies.get(&link)
    }

    /// All links.
    pub fn links(&self) -> Vec<Link> {
        self.proxies.keys().copied().collect()
    }

    /// Where a node listens, as it changes.
    pub fn addresses(&self, node: usize) -> watch::Receiver<Option<Addresses>> {
        self.nodes[node].addresses.subscribe()
    }
}

/// Waits for the ready line; everything the process says goes to a file.
async fn ready(child: &mut Child, log: &Path) -> Result<Addresses> {
    let stderr = child.stderr.take().context("stderr is piped")?;
    let mut file = File::options().create(true).append(true).open(log)?;
    let (told, addresses) = oneshot::channel();
    tokio::spawn(async move {
        let mut told = Some(told);
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let (Some(found), true) = (parse_ready(&line), told.is_some())
                && let Some(told) = told.take()
            {
                // Whoever waited may have given up.
                let _ = told.send(found);
            }
            // The log is for people; a full disk must not stop the node.
            let _ = writeln!(file, "{line}");
        }
    });
    Ok(timeout(START_TIMEOUT, addresses).await.context("no ready line in time")??)
}

fn parse_ready(line: &str) -> Option<Addresses> {
    let (_, rest) = line.split_once("ready id=")?;
    let value = |key: &str| {
        rest.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?.parse().ok()
    };
    Some(Addresses { wire: value("wire")?, gateway: value("gateway")? })
}
