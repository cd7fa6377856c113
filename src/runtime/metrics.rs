//! What METRICS tells: one registry per node, in the text format of OpenMetrics.
//!
//! Counters and durations are counted where things happen, by atomics that nobody waits for; what a
//! node can say of itself at any time (positions, health, mode …) is set when somebody asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use super::door::Door;
use super::store::NodeLog;
use crate::codes::{Class, Code, RefuseCode};
use crate::config::Role;
use crate::engine::{Health, Levels};
use crate::gateway::status::Status;
use crate::logging;
use crate::node::Storage as _;
use crate::types::{NodeId, Seq, Shortage};

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;
type Counters = Family<Labels, Counter>;
type Seconds = Gauge<f64, AtomicU64>;

fn label(name: &'static str, value: impl ToString) -> Labels {
    vec![(name, value.to_string())]
}

/// Upper bounds of the latency histogram's buckets, in microseconds: about three per decade from
/// what an append in memory takes to what a heartbeat's timeout and a repetition take.
const BUCKETS_US: [u64; 16] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 5_000_000, 30_000_000,
];

/// A histogram of durations that takes many equal observations at the price of one: a run of
/// appends is answered at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations(Arc<DurationCells>);

#[derive(Debug, Default)]
struct DurationCells {
    /// The last one counts what is beyond all bounds.
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Durations {
    /// `count` things took so long each.
    pub(super) fn observe(&self, took: Duration, count: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|&bound| bound < us);
        self.0.buckets[bucket].fetch_add(count, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us.saturating_mul(count), Ordering::Relaxed);
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.buckets.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        let bounds = BUCKETS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = self.0.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Bytes through the sockets of one kind of connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    pub(super) received: Counter,
    pub(super) sent: Counter,
}

/// What one kind of connection, the two doors and the links between nodes, is called in labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Clients of the text gateway.
    Gateway,
    /// Clients of the wire protocol.
    Wire,
    /// Other nodes.
    Node,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Gateway, Kind::Wire, Kind::Node];

    fn word(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Wire => "wire",
            Kind::Node => "node",
        }
    }
}

/// All that a node measures.
pub(super) struct Metrics {
    registry: Registry,
    // Counted where it happens.
    /// OK, PENDING, UNKNOWN.
    appends: [Counter; 3],
    /// Index k−1: appends that asked for k nodes.
    append_durations: Vec<Durations>,
    refusals: Counters,
    repeated: Counters,
    failed_attempts: Counters,
    stale_epochs: Counter,
    connections_refused: Counters,
    log_lines_dropped: Counters,
    connections: [Gauge; 2],
    connections_accepted: [Counter; 2],
    traffic: [Traffic; 3],
    // Set when somebody asks.
    positions: Gauges,
    commit: Gauge,
    levels: Gauges,
    epoch: Gauge,
    log_bytes: Gauge,
    mode: Gauges,
    health: Gauges,
    misses: Gauges,
    inflight: Gauges,
    lag: Gauges,
    lag_bytes: Gauges,
    round_trip: Family<Labels, Seconds>,
    duplicates: Counters,
    held: Gauge,
    present: Gauge,
    quorum: Gauge,
    connected: Gauge,
    waiting: Gauge,
    disk_full: Gauge,
    disk_needed: Gauge,
    disk_free: Gauge,
    syncs: Counter,
    sync_seconds: Counter<f64, AtomicU64>,
    sync_longest: Seconds,
    uptime: Seconds,
    cpu: Counter<f64, AtomicU64>,
    memory: Gauge,
}

impl Metrics {
    /// All at zero, for a node and its roster, the master first (a secondary need not know it).
    pub(super) fn new(id: &NodeId, role: Role, roster: &[NodeId]) -> Self {
        let mut registry = Registry::default();
        let version = env!("CARGO_PKG_VERSION");
        let identity: Labels = vec![
            ("id", id.to_string()),
            ("role", role.to_string()),
            ("version", version.to_owned()),
        ];
        registry.register("replog_node", "The node that answers", Info::new(identity));
        let master = role == Role::Master;
        let mut r = Registrar(&mut registry);

        let results = r.counters(
            "replog_appends",
            "Appends that are in the log, by the class of their answer",
        );
        let appends = [Class::Ok, Class::Pending, Class::Unknown]
            .map(|class| results.get_or_create(&label("result", word_of(class))).clone());
        let durations = Family::<Labels, Durations>::default();
        if master {
            let help = "From an append's arrival to its answer, by how many nodes it asked for";
            r.0.register_with_unit(
                "replog_append_duration",
                help,
                Unit::Seconds,
                durations.clone(),
            );
        }
        let append_durations =
            (1..=roster.len()).map(|w| durations.get_or_create(&label("w", w)).clone()).collect();
        let connections = r.gauges("replog_connections", "Connections open, by the port they use");
        let accepted =
            r.counters("replog_connections_accepted", "Connections accepted, by the port they use");
        let ports = ["gateway", "wire"];
        let received = Counters::default();
        let sent = Counters::default();
        for (name, help, family) in [
            (
                "replog_received",
                "Bytes read from connections, by what is at the other end",
                &received,
            ),
            ("replog_sent", "Bytes written to connections, by what is at the other end", &sent),
        ] {
            r.0.register_with_unit(name, help, Unit::Bytes, family.clone());
        }
        let traffic = Kind::ALL.map(|kind| Traffic {
            received: received.get_or_create(&label("peer", kind.word())).clone(),
            sent: sent.get_or_create(&label("peer", kind.word())).clone(),
        });
        let round_trip = Family::default();
        if master {
            let help = "From the last heartbeat to its answer";
            r.0.register_with_unit("replog_round_trip", help, Unit::Seconds, round_trip.clone());
        }
        let lag_bytes = Gauges::default();
        let inflight = Gauges::default();
        if master {
            let help = "Bytes of the master's log that the secondary has not stored";
            r.0.register_with_unit("replog_lag", help, Unit::Bytes, lag_bytes.clone());
            let help = "Bytes sent to the secondary and not acknowledged";
            r.0.register_with_unit("replog_inflight", help, Unit::Bytes, inflight.clone());
        }
        let log_bytes = Gauge::default();
        r.0.register_with_unit("replog_log", "Bytes of the log", Unit::Bytes, log_bytes.clone());
        let disk_needed = Gauge::default();
        let help = "Room that must become free on the disk before entries are taken again";
        r.0.register_with_unit("replog_disk_needed", help, Unit::Bytes, disk_needed.clone());
        let disk_free = Gauge::default();
        let help = "Free bytes on the file system of the data directory; 0 with a log in memory";
        r.0.register_with_unit("replog_disk_free", help, Unit::Bytes, disk_free.clone());
        let sync_seconds = Counter::default();
        let help = "Time that syncs of the log took together";
        r.0.register_with_unit("replog_sync", help, Unit::Seconds, sync_seconds.clone());
        let sync_longest = Seconds::default();
        let help = "Time that the longest sync of the log took";
        r.0.register_with_unit("replog_sync_longest", help, Unit::Seconds, sync_longest.clone());
        let uptime = Seconds::default();
        r.0.register_with_unit(
            "replog_uptime",
            "Since the node started",
            Unit::Seconds,
            uptime.clone(),
        );
        let cpu = Counter::default();
        let help = "CPU time of the process; of all nodes in it, if it runs several";
        r.0.register_with_unit("process_cpu", help, Unit::Seconds, cpu.clone());
        let memory = Gauge::default();
        let help = "Resident memory of the process; of all nodes in it, if it runs several";
        r.0.register_with_unit("process_resident_memory", help, Unit::Bytes, memory.clone());
        Metrics {
            appends,
            append_durations,
            refusals: r.counters("replog_refusals", "Requests refused, by code (REJECTED and ERR)"),
            repeated: r.counters_if(
                master,
                "replog_repeated_entries",
                "Entries sent to a secondary again",
            ),
            failed_attempts: r.counters_if(
                master,
                "replog_failed_attempts",
                "Attempts to replicate that made no progress, by cause",
            ),
            stale_epochs: r.counter(
                "replog_stale_epochs",
                "Introductions and frames of an epoch that is over, all refused",
            ),
            connections_refused: r.counters(
                "replog_connections_refused",
                "Connections ended by this node for what the peer is or sent, by code",
            ),
            log_lines_dropped: r.counters(
                "replog_log_lines_dropped",
                "Log lines of the process that a place for them did not take in time",
            ),
            connections: ports.map(|port| connections.get_or_create(&label("port", port)).clone()),
            connections_accepted: ports
                .map(|port| accepted.get_or_create(&label("port", port)).clone()),
            traffic,
            positions: r.gauges(
                "replog_position",
                "Sequence number up to which a node has received or stored everything",
            ),
            commit: r
                .gauge("replog_commit", "Sequence number up to which a majority holds the log"),
            levels: r
                .gauges("replog_level", "Sequence number up to which so many nodes hold the log"),
            epoch: r.gauge("replog_epoch", "The epoch that the node leads or follows"),
            log_bytes,
            mode: r.gauges("replog_mode", "1 for the mode that the node is in, else 0"),
            health: r.gauges_if(
                master,
                "replog_secondary_health",
                "1 for the health that a secondary is in, else 0",
            ),
            misses: r.gauges_if(
                master,
                "replog_secondary_misses",
                "Heartbeats in a row that a secondary did not answer",
            ),
            inflight,
            lag: r.gauges_if(
                master,
                "replog_lag_entries",
                "Entries of the master's log that the secondary has not stored",
            ),
            lag_bytes,
            round_trip,
            duplicates: r.counters("replog_duplicates", "Entries that a secondary got twice"),
            held: r.gauge_if(
                !master,
                "replog_held_entries",
                "Entries kept until the ones before them come",
            ),
            present: r.gauge_if(master, "replog_present_nodes", "Nodes present, with the master"),
            quorum: r.gauge_if(
                master,
                "replog_quorum_nodes",
                "Nodes that must be present for appends to be accepted",
            ),
            connected: r.gauge_if(
                !master,
                "replog_master_connected",
                "1 while a master is connected and followed, else 0",
            ),
            waiting: r.gauge_if(
                master,
                "replog_waiting_appends",
                "Appends and waits that are not answered yet",
            ),
            disk_full: r
                .gauge("replog_disk_full", "1 while the disk has no room for more entries, else 0"),
            disk_needed,
            disk_free,
            syncs: r.counter("replog_syncs", "Syncs of the log (fdatasync) that returned"),
            sync_seconds,
            sync_longest,
            uptime,
            cpu,
            memory,
            registry,
        }
    }

    // ---- counting ----

    /// So many appends, all in the log, were answered so.
    pub(super) fn answered(&self, class: Class, need: usize, took: Duration, count: u64) {
        match class {
            Class::Ok => {
                self.appends[0].inc_by(count);
                if let Some(durations) = self.append_durations.get(need.wrapping_sub(1)) {
                    durations.observe(took, count);
                }
            }
            Class::Pending => drop(self.appends[1].inc_by(count)),
            Class::Unknown => drop(self.appends[2].inc_by(count)),
            // In no log: counted as refusals.
            Class::Rejected | Class::Err => {}
        }
    }

    /// So many requests were refused so.
    pub(super) fn refused(&self, code: Code, count: u64) {
        self.refusals.get_or_create(&label("code", code.word())).inc_by(count);
    }

    /// A connection was ended for what the peer is or sent.
    pub(super) fn connection_refused(&self, code: RefuseCode) {
        self.connections_refused.get_or_create(&label("code", code.word())).inc();
        if code == RefuseCode::StaleEpoch {
            self.stale_epochs.inc();
        }
    }

    /// So many entries were sent again.
    pub(super) fn repeated(&self, to: &NodeId, count: u64) {
        self.repeated.get_or_create(&label("node", to)).inc_by(count);
    }

    /// An attempt failed.
    pub(super) fn attempt_failed(&self, to: &NodeId, cause: &'static str) {
        let labels = vec![("node", to.to_string()), ("cause", cause.to_owned())];
        self.failed_attempts.get_or_create(&labels).inc();
    }

    /// A connection was opened; the guard counts it until it is dropped.
    pub(super) fn connection_opened(&self, door: Door) -> OpenConnection {
        let port = match door {
            Door::Gateway => 0,
            Door::Wire => 1,
        };
        self.connections_accepted[port].inc();
        self.connections[port].inc();
        OpenConnection(self.connections[port].clone())
    }

    /// Where bytes of a kind of connection are counted.
    pub(super) fn traffic(&self, kind: Kind) -> &Traffic {
        &self.traffic[kind as usize]
    }

    // ---- telling ----

    /// Everything as text, `# EOF` at the end.
    pub(super) fn scrape(
        &self,
        status: &Status,
        levels: &Levels,
        log: &NodeLog,
        shortage: Option<Shortage>,
        stored: Seq,
    ) -> String {
        let node = &status.node;
        self.set_position(&node.id, "received", node.next.previous());
        self.set_position(&node.id, "stored", stored);
        let log_bytes = log.log().bounds().bytes;
        let syncs = log.sync_stats().unwrap_or_default();
        self.syncs.inner().store(syncs.count, Ordering::Relaxed);
        let seconds = syncs.total.as_secs_f64();
        self.sync_seconds.inner().store(seconds.to_bits(), Ordering::Relaxed);
        self.sync_longest.set(syncs.longest.as_secs_f64());
        self.disk_full.set(i64::from(shortage.is_some()));
        self.disk_needed.set(shortage.map_or(0, |shortage| signed(shortage.need)));
        self.disk_free.set(signed(log.free_bytes().unwrap_or(0)));
        self.commit.set(signed(node.commit.number()));
        for (index, seq) in levels.held_by.iter().enumerate() {
            let nodes = index + 1;
            self.levels.get_or_create(&label("nodes", nodes)).set(signed(seq.number()));
        }
        self.epoch.set(signed(node.epoch.number()));
        self.log_bytes.set(signed(log_bytes));
        for mode in ["normal", "read-only", "recovering", "damaged"] {
            self.mode.get_or_create(&label("mode", mode)).set(i64::from(node.mode == mode));
        }
        self.waiting.set(signed(node.waiting));
        self.present.set(node.present.unwrap_or(0) as i64); // At most some dozens.
        self.quorum.set(node.quorum.map_or(0, |(quorum, _)| quorum) as i64);
        self.uptime.set(node.uptime.as_secs_f64());
        for secondary in &status.secondaries {
            let of = label("node", &secondary.id);
            self.set_position(&secondary.id, "received", secondary.received);
            self.set_position(&secondary.id, "stored", secondary.stored);
            for health in [Health::Healthy, Health::Suspected, Health::Unhealthy] {
                let labels = vec![("node", secondary.id.clone()), ("health", health.to_string())];
                self.health.get_or_create(&labels).set(i64::from(health == secondary.health));
            }
            self.misses.get_or_create(&of).set(i64::from(secondary.misses));
            self.inflight.get_or_create(&of).set(secondary.inflight as i64); // A window's bytes.
            self.lag.get_or_create(&of).set(signed(secondary.lag));
            self.lag_bytes.get_or_create(&of).set(signed(secondary.lag_bytes));
            if let Some(rtt) = secondary.rtt {
                self.round_trip.get_or_create(&of).set(rtt.as_secs_f64());
            }
            self.set_duplicates(&secondary.id, secondary.duplicates);
        }
        if let Some(master) = &status.master {
            self.connected.set(i64::from(master.connected));
            self.held.set(signed(master.held));
            self.set_duplicates(&node.id, master.duplicates);
        }
        for (sink, count) in logging::lines_dropped() {
            let counter = self.log_lines_dropped.get_or_create(&label("sink", sink));
            counter.inner().store(count, Ordering::Relaxed);
        }
        if let Some(process) = Process::read() {
            self.cpu.inner().store(process.cpu.as_secs_f64().to_bits(), Ordering::Relaxed);
            self.memory.set(signed(process.resident_bytes));
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("BUG: a String takes all that is written");
        out
    }

    fn set_position(&self, node: &str, kind: &str, seq: Seq) {
        let labels = vec![("node", node.to_owned()), ("kind", kind.to_owned())];
        self.positions.get_or_create(&labels).set(signed(seq.number()));
    }

    fn set_duplicates(&self, node: &str, count: u64) {
        let counter = self.duplicates.get_or_create(&label("node", node));
        counter.inner().store(count, Ordering::Relaxed);
    }
}

/// Counts a connection for as long as it lives.
pub(super) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn word_of(class: Class) -> String {
    class.to_string().to_lowercase()
}

/// Makes metrics and registers them; those that make no sense on a node of this role are made only.
struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
    fn add<M>(&mut self, wanted: bool, name: &str, help: &str) -> M
    where
        M: prometheus_client::registry::Metric + Clone + Default,
    {
        let metric = M::default();
        if wanted {
            self.0.register(name, help, metric.clone());
        }
        metric
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(true, name, help)
    }

    fn counters(&mut self, name: &str, help: &str) -> Counters {
        self.add(true, name, help)
    }

    fn counters_if(&mut self, wanted: bool, name: &str, help: &str) -> Counters {
        self.add(wanted, name, help)
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(true, name, help)
    }

    fn gauge_if(&mut self, wanted: bool, name: &str, help: &str) -> Gauge {
        self.add(wanted, name, help)
    }

    fn gauges(&mut self, name: &str, help: &str) -> Gauges {
        self.add(true, name, help)
    }

    fn gauges_if(&mut self, wanted: bool, name: &str, help: &str) -> Gauges {
        self.add(wanted, name, help)
    }
}

/// What the system knows of this process.
struct Process {
    cpu: Duration,
    resident_bytes: u64,
}

impl Process {
    /// `None` where there is no Linux `/proc`: then these metrics stay at zero.
    fn read() -> Option<Process> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in brackets, which may hold anything.
        let fields: Vec<u64> = stat
            .rsplit_once(") ")?
            .1
            .split_ascii_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        // proc(5): fields 14 and 15 are user and system time in ticks, 24 is resident pages. The
        // fields behind the name begin with number 3.
        let field = |number: usize| fields.get(number - 3).copied();
        let ticks = field(14)? + field(15)?;
        let per_second = rustix::param::clock_ticks_per_second();
        let page_bytes = rustix::param::page_size() as u64; // Some KiB.
        Some(Process {
            cpu: Duration::from_secs_f64(ticks as f64 / per_second.max(1) as f64),
            resident_bytes: field(24)?.saturating_mul(page_bytes),
        })
    }
}
