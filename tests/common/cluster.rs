//! A master and its secondaries as processes of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

use super::fields::Fields;
use super::gateway::{Gateway, Listing};
use super::process::{Process, Ready, replog, under_shell};
use super::proxy::Proxy;
use super::wait::wait_until;

/// An address of this machine that nobody else listens on. A node that is started again on its
/// former port then never finds the port taken by another test's connection.
pub fn loopback() -> IpAddr {
    static CLUSTERS: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, high, low, CLUSTERS.fetch_add(1, Ordering::Relaxed));
    // Not every system has all of 127.0.0.0/8.
    let ip = TcpListener::bind((ip, 0)).map_or(Ipv4Addr::LOCALHOST, |_| ip);
    IpAddr::V4(ip)
}

/// An address on which nobody listens.
pub fn reserve_addr(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// What a cluster is to be like, before it is started.
pub struct Setup {
    secondaries: usize,
    absent: Vec<String>,
    proxied: Vec<String>,
    settings: Vec<(String, String)>,
    master_flags: Vec<String>,
    faults: bool,
    disk: bool,
    shell: String,
}

impl Setup {
    /// A setting of all nodes, `section.key` and its value; secondaries ignore `cluster.*`.
    pub fn set(mut self, key: &str, value: &str) -> Setup {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Flags of the master, as typed.
    pub fn master_flags(mut self, flags: &[&str]) -> Setup {
        self.master_flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// Leaves the secondary `id` on the roster, but does not start it.
    pub fn absent(mut self, id: &str) -> Setup {
        self.absent.push(id.to_owned());
        self
    }

    /// Puts a proxy between the master and the secondary `id`.
    pub fn proxied(mut self, id: &str) -> Setup {
        self.proxied.push(id.to_owned());
        self
    }

    /// Keeps the logs on disk, in a directory that goes with the cluster.
    pub fn on_disk(mut self) -> Setup {
        self.disk = true;
        self
    }

    /// Runs a line of `sh` in each process before it becomes a node.
    pub fn after_shell(mut self, line: &str) -> Setup {
        line.clone_into(&mut self.shell);
        self
    }

    /// Starts the secondaries without `--faults`.
    pub fn without_faults(mut self) -> Setup {
        self.faults = false;
        self
    }

    /// Starts the cluster and waits until it accepts appends and every started secondary is
    /// healthy.
    #[track_caller]
    pub fn start(self) -> Cluster {
        let cluster = self.launch();
        let mut client = cluster.client();
        wait_until("a normal cluster with healthy secondaries", || {
            let health = client.ask("HEALTH");
            let healthy = |seat: &Seat| health.find(&seat.id) == Some("healthy");
            let normal = health.find("mode") == Some("normal");
            let mut started = cluster.seats.iter().filter(|seat| seat.node.is_some());
            (normal && started.all(healthy)).then_some(())
        });
        cluster
    }

    /// Starts the processes and waits for no more than their ready lines.
    #[track_caller]
    pub fn launch(self) -> Cluster {
        let ip = loopback();
        let settings = self.settings.iter();
        let settings: Vec<String> = settings
            .flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
            .collect();
        let faults = self.faults.then(|| "--faults".to_owned());
        let data = self.disk.then(|| tempfile::tempdir().expect("a temporary directory"));
        let store = |id: &str| match &data {
            None => vec!["--memory".to_owned()],
            Some(data) => {
                let dir = data.path().join(id).to_str().expect("a path of ours").to_owned();
                vec!["--data-dir".to_owned(), dir]
            }
        };
        let common_args: Vec<String> = settings.iter().cloned().chain(faults).collect();
        let seat = |number: usize| {
            let id = format!("s{number}");
            let secondary_args = [common_args.clone(), store(&id)].concat();
            let node = (!self.absent.contains(&id)).then(|| {
                Node::secondary(&id, SocketAddr::new(ip, 0), &secondary_args, &self.shell)
            });
            let addr = node.as_ref().map_or_else(|| reserve_addr(ip), |node| node.ready.wire);
            let proxy = self.proxied.contains(&id).then(|| Proxy::to(ip, addr));
            Seat { id, addr, node, proxy, args: secondary_args }
        };
        let seats: Vec<Seat> = (1..=self.secondaries).map(seat).collect();
        let mut args = [self.master_flags, store("master")].concat();
        for seat in &seats {
            let addr = seat.proxy.as_ref().map_or(seat.addr, |proxy| proxy.addr);
            args.extend(["--secondary".to_owned(), format!("{}={addr}", seat.id)]);
        }
        args.extend(settings);
        let master = Node::master(ip, &args, &self.shell);
        Cluster { master, ip, master_args: args, seats, data, shell: self.shell }
    }
}

/// A process that has said where it listens.
pub struct Node {
    pub ready: Ready,
    pub process: Process,
}

impl Node {
    #[track_caller]
    fn master(ip: IpAddr, args: &[String], shell: &str) -> Node {
        let any = SocketAddr::new(ip, 0).to_string();
        let mut command = replog(["master", "--listen", &any, "--gateway", &any]);
        command.args(args);
        Node::start("master", command, shell)
    }

    #[track_caller]
    fn secondary(id: &str, listen: SocketAddr, args: &[String], shell: &str) -> Node {
        let any = SocketAddr::new(listen.ip(), 0).to_string();
        let mut command = replog(["secondary", "--id", id, "--gateway", &any]);
        command.args(["--listen", &listen.to_string()]).args(args);
        Node::start(id, command, shell)
    }

    #[track_caller]
    fn start(name: &str, mut command: std::process::Command, shell: &str) -> Node {
        if !shell.is_empty() {
            command = under_shell(&command, shell);
        }
        let process = Process::spawn(name, command);
        let ready = process.wait_ready();
        Node { ready, process }
    }
}

/// The place of a secondary on the roster; its address stays when the process goes.
struct Seat {
    id: String,
    addr: SocketAddr,
    node: Option<Node>,
    proxy: Option<Proxy>,
    args: Vec<String>,
}

/// A running cluster. Dropping it kills its processes.
pub struct Cluster {
    pub master: Node,
    ip: IpAddr,
    master_args: Vec<String>,
    seats: Vec<Seat>,
    data: Option<tempfile::TempDir>,
    shell: String,
}

impl Cluster {
    /// A cluster of one master and `secondaries` others, `s1`, `s2` and so on, with fault verbs
    /// allowed and times short enough for tests. Unhealthy is after one second of silence.
    pub fn of(secondaries: usize) -> Setup {
        let setup = Setup {
            secondaries,
            absent: vec![],
            proxied: vec![],
            settings: vec![],
            master_flags: vec![],
            faults: true,
            disk: false,
            shell: String::new(),
        };
        setup
            .set("cluster.heartbeat_interval", "200ms")
            .set("cluster.attempt_timeout", "400ms")
            .set("cluster.retry_delays", "200ms,400ms,1s")
    }

    /// A secondary that no master has spoken to.
    #[track_caller]
    pub fn lone_secondary() -> Node {
        Cluster::lone_secondary_in(None)
    }

    /// The same with its log in this directory, or in memory.
    #[track_caller]
    pub fn lone_secondary_in(dir: Option<&std::path::Path>) -> Node {
        let store = match dir {
            None => vec!["--memory".to_owned()],
            Some(dir) => {
                vec!["--data-dir".to_owned(), dir.to_str().expect("a path of ours").to_owned()]
            }
        };
        let args = [vec!["--faults".to_owned()], store].concat();
        Node::secondary("s1", SocketAddr::new(loopback(), 0), &args, "")
    }

    /// The running secondary `id`.
    #[track_caller]
    pub fn node(&self, id: &str) -> &Node {
        self.seat(id).node.as_ref().unwrap_or_else(|| panic!("{id} is not running"))
    }

    /// Where the roster says that the secondary `id` listens.
    #[track_caller]
    pub fn addr(&self, id: &str) -> SocketAddr {
        self.seat(id).addr
    }

    /// A new client of the master.
    #[track_caller]
    pub fn client(&self) -> Gateway {
        Gateway::connect(self.master.ready.gateway)
    }

    /// A new client of the secondary `id`.
    #[track_caller]
    pub fn client_of(&self, id: &str) -> Gateway {
        Gateway::connect(self.node(id).ready.gateway)
    }

    /// New clients of all running nodes, the master's first.
    #[track_caller]
    pub fn clients(&self) -> Vec<Gateway> {
        let running = self.seats.iter().filter_map(|seat| seat.node.as_ref());
        let secondaries = running.map(|node| Gateway::connect(node.ready.gateway));
        std::iter::once(self.client()).chain(secondaries).collect()
    }

    /// Starts the secondary `id`, on its former address if it ran before.
    #[track_caller]
    pub fn start(&mut self, id: &str) {
        let shell = self.shell.clone();
        let seat = self.seat_mut(id);
        assert!(seat.node.is_none(), "{id} is running");
        seat.node = Some(Node::secondary(id, seat.addr, &seat.args, &shell));
    }

    /// Kills the secondary `id`.
    #[track_caller]
    pub fn kill(&mut self, id: &str) {
        let node = self.seat_mut(id).node.take();
        assert!(node.is_some(), "{id} is not running");
    }

    /// Kills the master and starts it again with the flags it had, on other ports.
    #[track_caller]
    pub fn restart_master(&mut self) {
        self.master.process.kill();
        self.master = Node::master(self.ip, &self.master_args, &self.shell);
    }

    /// Starts a killed master again, with further flags for this time.
    #[track_caller]
    pub fn start_master_with(&mut self, flags: &[&str]) {
        let mut args = self.master_args.clone();
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        self.master = Node::master(self.ip, &args, &self.shell);
    }

    /// Starts another master of the same roster, with a store of its own, beside the first.
    #[track_caller]
    pub fn second_master(&self) -> Node {
        let mut args = self.master_args.clone();
        if let Some(at) = args.iter().position(|arg| arg == "--data-dir") {
            args[at + 1] += "-2";
        }
        Node::master(self.ip, &args, &self.shell)
    }

    /// The data directory of a node whose log is on disk.
    #[track_caller]
    pub fn dir(&self, id: &str) -> std::path::PathBuf {
        self.data.as_ref().expect("the logs are on disk").path().join(id)
    }

    /// Stops the process of the secondary `id`; its connections stay open.
    #[track_caller]
    pub fn pause(&self, id: &str) {
        self.node(id).process.pause();
    }

    /// Lets a paused secondary go on.
    #[track_caller]
    pub fn resume(&self, id: &str) {
        self.node(id).process.resume();
    }

    /// The proxy before the secondary `id`.
    #[track_caller]
    pub fn proxy(&self, id: &str) -> &Proxy {
        self.seat(id).proxy.as_ref().unwrap_or_else(|| panic!("{id} has no proxy"))
    }

    /// Waits until the master calls the secondary `id` healthy, suspected or unhealthy.
    #[track_caller]
    pub fn wait_health(&self, id: &str, health: &str) {
        let mut client = self.client();
        wait_until(&format!("{id} to be {health}"), || {
            (client.ask("HEALTH").find(id) == Some(health)).then_some(())
        });
    }

    /// Waits until the master is in `mode` and gives the HEALTH line that said so.
    #[track_caller]
    pub fn wait_mode(&self, mode: &str) -> Fields {
        let mut client = self.client();
        wait_until(&format!("mode {mode}"), || {
            let health = client.ask("HEALTH");
            (health.get("mode") == mode).then_some(health)
        })
    }

    /// Waits until every running secondary has the log the master has now, checks that all lists
    /// are the same and dense, and gives the list.
    #[track_caller]
    pub fn wait_equal_lists(&self) -> Listing {
        let mut clients = self.clients();
        let digest = clients[0].ok("DIGEST");
        for client in &mut clients[1..] {
            wait_until(&format!("the log of the master, {}", digest.line()), || {
                (client.cmd("DIGEST") == digest.line()).then_some(())
            });
        }
        let mut lists = clients.iter_mut().map(|client| client.list(""));
        let master = lists.next().expect("the master is among the nodes");
        let numbers: Vec<u64> = master.entries.iter().map(|(seq, _)| *seq).collect();
        let dense: Vec<u64> = (1..=digest.number("seq")).collect();
        assert_eq!(numbers, dense, "numbers are dense from 1");
        for list in lists {
            assert!(list.entries == master.entries, "a list differs from the master's");
        }
        master
    }

    #[track_caller]
    fn seat(&self, id: &str) -> &Seat {
        let mut seats = self.seats.iter();
        seats.find(|seat| seat.id == id).unwrap_or_else(|| panic!("{id} is not on the roster"))
    }

    #[track_caller]
    fn seat_mut(&mut self, id: &str) -> &mut Seat {
        let mut seats = self.seats.iter_mut();
        seats.find(|seat| seat.id == id).unwrap_or_else(|| panic!("{id} is not on the roster"))
    }
}
