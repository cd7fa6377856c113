//! What is to happen in one simulated run, as data: the cluster, every operation of every client, and
//! every fault, drawn from one seed before anything runs.
//!
//! A plan can be written to a file, read back, and made smaller: that is how a failure is shrunk. What
//! the network does in detail (delays, chunk borders) is not in it; that comes from streams of their own
//! (see [`crate::rng`]).
//!
//! Every plan draws a subset of the kinds of faults (swarm testing: a run in which everything happens
//! at once hides what needs a few things often), and sometimes none.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What it was drawn from, and what the network's streams are keyed with.
    pub seed: u64,
    /// The cluster and its surroundings.
    pub setup: Setup,
    /// What clients do, by time.
    pub operations: Vec<Operation>,
    /// What breaks, by time.
    pub faults: Vec<PlannedFault>,
}

/// The cluster and its surroundings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Nodes, the master included.
    pub nodes: usize,
    /// Nodes present for appends to be accepted.
    pub quorum: usize,
    /// For appends that name none.
    pub concern: Concern,
    /// For appends that name none: whether in memory is enough.
    pub received: bool,
    /// For appends that name none, in milliseconds; `None`: for ever.
    pub timeout_ms: Option<u64>,
    /// Interval of heartbeats.
    pub heartbeat_ms: u64,
    /// Misses.
    pub suspected_after: u32,
    /// Misses.
    pub unhealthy_after: u32,
    /// No progress for so long is a failed attempt.
    pub attempt_timeout_ms: u64,
    /// Waits between attempts.
    pub retry_delays_ms: Vec<u64>,
    /// Entry bytes under way to one secondary.
    pub window_bytes: usize,
    /// Begin without waiting for the roster.
    pub bootstrap: bool,
    /// Client connections.
    pub clients: u32,
    /// Until when operations and faults come, in microseconds.
    pub active_us: u64,
    /// Whether faults end, and all must be well within the bounds afterwards.
    pub liveness: bool,
    /// The network.
    pub net: NetSetup,
    /// Longest time from an input to the turn that takes it.
    pub turn_us: u64,
    /// Longest time of a sync; 0: durable at once.
    pub sync_us: u64,
    /// A sync of the master's log only, or of all.
    pub sync_all: bool,
    /// The nodes' disks; none in memory.
    #[serde(default)]
    pub disk: Option<DiskSetup>,
}

/// What the network is like while nothing is broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetSetup {
    /// Shortest way from node to node.
    pub delay_us: u64,
    /// What may come on top of it.
    pub jitter_us: u64,
    /// Bytes a second; 0: no limit.
    pub bandwidth: u64,
    /// Longest piece that arrives at once.
    pub chunk_bytes: u64,
    /// Room in the sender's socket.
    pub send_bytes: usize,
    /// Room in the receiver's socket.
    pub receive_bytes: usize,
}

/// A write concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Concern {
    /// As configured.
    Default,
    /// So many nodes; may be more than there are.
    Nodes(u16),
    /// More than half.
    Majority,
    /// Every node.
    All,
}

/// How long a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Timeout {
    /// As configured.
    Default,
    /// As long as it takes.
    Forever,
    /// So many milliseconds.
    Ms(u64),
}

/// A reader's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadLevel {
    /// What the node holds.
    Local,
    /// On a majority.
    Committed,
    /// On every node.
    All,
    /// On at least so many.
    Nodes(u16),
}

/// Something a client does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// When, in microseconds.
    pub at: u64,
    /// Who.
    pub client: u32,
    /// What.
    pub what: Action,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Appends a run of entries.
    Append {
        /// How many.
        count: u32,
        /// Bytes of each.
        size: u32,
        /// How many nodes.
        concern: Concern,
        /// `Some(true)`: in memory is enough; `None`: as configured.
        received: Option<bool>,
        /// How long.
        timeout: Timeout,
    },
    /// Waits for an entry at `share` of 256 of the log.
    Wait {
        /// Where; 256 is the last entry, 257 the one behind it.
        share: u16,
        /// How many nodes.
        concern: Concern,
        /// Whether in memory is enough.
        received: bool,
        /// How long.
        timeout: Timeout,
    },
    /// Reads on a node.
    Read {
        /// Which.
        node: usize,
        /// What may be seen.
        level: ReadLevel,
        /// Where to begin, in 256th of the log.
        share: u16,
        /// How many at most.
        limit: u32,
    },
    /// Loses its connection and opens another.
    Disconnect,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedFault {
    /// When it begins, in microseconds.
    pub at: u64,
    /// How long it lasts; without meaning for what happens in an instant.
    pub lasts: u64,
    /// What.
    pub what: Fault,
}

/// When an entry counts as stored on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Once it was synced.
    Always,
    /// Once it was written; a sync follows.
    Interval,
    /// Once it was written.
    Never,
}

/// The nodes' disks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskSetup {
    /// When an entry counts as stored.
    pub policy: Policy,
    /// How long a sync is put off under [`Policy::Interval`], in microseconds.
    pub interval_us: u64,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// Bytes of the newest entries that are kept in memory.
    pub cache_bytes: usize,
}

impl DiskSetup {
    fn draw(rng: &mut Rng) -> DiskSetup {
        DiskSetup {
            policy: rng.pick(&[Policy::Always, Policy::Always, Policy::Interval, Policy::Never]),
            interval_us: rng.magnitude(MS, SECOND),
            segment_size: rng.pick(&[4 << 10, 64 << 10, 1 << 20]),
            cache_bytes: rng.pick(&[1 << 10, 64 << 10, 1 << 20]),
        }
    }

    /// How long a sync is put off.
    pub fn pause_us(&self) -> u64 {
        if self.policy == Policy::Interval { self.interval_us } else { 0 }
    }
}

/// What can break. `node` 0 is the master.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // Each field says itself.
pub enum Fault {
    /// Nothing arrives and nothing is closed, one way or both.
    Cut { node: usize, to_it: bool, from_it: bool },
    /// The connection is reset, at both ends.
    Reset { node: usize },
    /// One end is told of a reset, the other never.
    HalfOpen { node: usize, master_learns: bool },
    /// The process ends and starts again empty. `silent`: as with a machine, nobody is told.
    Crash { node: usize, silent: bool },
    /// The process stands still.
    Pause { node: usize },
    /// Every turn of the process comes so much later.
    SlowNode { node: usize, by_us: u64 },
    /// The line becomes slow.
    SlowLink { node: usize, by_us: u64 },
    /// Connections are refused.
    RefuseDial { node: usize },
    /// Syncs take so much longer.
    SlowDisk { node: usize, by_us: u64 },
    /// The wall clock jumps.
    ClockJump { node: usize, ms: i64 },
    /// The connection is reset again and again.
    Storm { node: usize, every_us: u64 },
    /// The fault verb DELAY.
    Delay { node: usize, by_us: u64, once: bool },
    /// The fault verb FAIL.
    Fail { node: usize, before: bool, percent: u64 },
    /// The fault verb MUTE.
    Mute { node: usize },
    /// The verb STORE: so many numbers ahead, like the master's entry or not.
    Store { node: usize, ahead: u64 },
    /// Another process introduces itself as a master that only asks.
    Stranger { node: usize },
    /// The power fails at so many changes of the disk from now on.
    CrashAt { node: usize, operation: u64 },
    /// The disk has room for so many bytes more, and no more.
    DiskFull { node: usize, room: u64 },
    /// The next sync fails.
    SyncFails { node: usize },
    /// A bit of a segment is turned over.
    BitFlip { node: usize },
    /// The process ends and its directory is erased.
    Wipe { node: usize },
    /// At the end the directory is as it was at the beginning.
    RollBack { node: usize },
    /// Another process leads the same log with a higher epoch.
    Usurp { node: usize },
}

/// Whether plans may keep logs on disk; see [`play_disks`].
static DISKS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Whether masters crash and start again in plans drawn from now on, and half of the plans keep their
/// logs on disks that lose, tear, flip, fill and fail. A seed stands for another plan then.
pub fn play_disks(play: bool) {
    DISKS.store(play, std::sync::atomic::Ordering::Relaxed);
}

/// Whether plans are drawn so.
pub fn disks() -> bool {
    DISKS.load(std::sync::atomic::Ordering::Relaxed)
}

impl Fault {
    /// Kinds of faults by name, in the order of the declaration.
    pub const KINDS: [&'static str; 23] = [
        "cut",
        "reset",
        "half-open",
        "crash",
        "pause",
        "slow-node",
        "slow-link",
        "refuse-dial",
        "slow-disk",
        "clock-jump",
        "storm",
        "delay",
        "fail",
        "mute",
        "store",
        "stranger",
        "crash-at",
        "disk-full",
        "sync-fails",
        "bit-flip",
        "wipe",
        "roll-back",
        "usurp",
    ];

    /// The place in [`Fault::KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Fault::Cut { .. } => 0,
            Fault::Reset { .. } => 1,
            Fault::HalfOpen { .. } => 2,
            Fault::Crash { .. } => 3,
            Fault::Pause { .. } => 4,
            Fault::SlowNode { .. } => 5,
            Fault::SlowLink { .. } => 6,
            Fault::RefuseDial { .. } => 7,
            Fault::SlowDisk { .. } => 8,
            Fault::ClockJump { .. } => 9,
            Fault::Storm { .. } => 10,
            Fault::Delay { .. } => 11,
            Fault::Fail { .. } => 12,
            Fault::Mute { .. } => 13,
            Fault::Store { .. } => 14,
            Fault::Stranger { .. } => 15,
            Fault::CrashAt { .. } => 16,
            Fault::DiskFull { .. } => 17,
            Fault::SyncFails { .. } => 18,
            Fault::BitFlip { .. } => 19,
            Fault::Wipe { .. } => 20,
            Fault::RollBack { .. } => 21,
            Fault::Usurp { .. } => 22,
        }
    }

    /// Whether its node stays down while it lasts.
    pub fn keeps_down(&self) -> bool {
        matches!(self, Fault::Crash { .. } | Fault::Wipe { .. })
    }

    /// Whether it needs a disk.
    pub fn needs_disk(&self) -> bool {
        (16..22).contains(&self.kind())
    }

    /// Whom it hits.
    pub fn node(&self) -> usize {
        match *self {
            Fault::Cut { node, .. }
            | Fault::Reset { node }
            | Fault::HalfOpen { node, .. }
            | Fault::Crash { node, .. }
            | Fault::Pause { node }
            | Fault::SlowNode { node, .. }
            | Fault::SlowLink { node, .. }
            | Fault::RefuseDial { node }
            | Fault::SlowDisk { node, .. }
            | Fault::ClockJump { node, .. }
            | Fault::Storm { node, .. }
            | Fault::Delay { node, .. }
            | Fault::Fail { node, .. }
            | Fault::Mute { node }
            | Fault::Store { node, .. }
            | Fault::Stranger { node }
            | Fault::CrashAt { node, .. }
            | Fault::DiskFull { node, .. }
            | Fault::SyncFails { node }
            | Fault::BitFlip { node }
            | Fault::Wipe { node }
            | Fault::RollBack { node }
            | Fault::Usurp { node } => node,
        }
    }
}

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

impl Plan {
    /// The plan that belongs to a seed.
    pub fn draw(seed: u64) -> Plan {
        let mut rng = Rng::keyed(&[seed, 1]);
        let setup = Setup::draw(&mut rng);
        let operations = draw_operations(&mut Rng::keyed(&[seed, 2]), &setup);
        let mut faults = draw_faults(&mut Rng::keyed(&[seed, 3]), &setup);
        let mut more = Rng::keyed(&[seed, 4]);
        if setup.disk.is_some() && (2..=3).contains(&setup.nodes) && more.percent(8) {
            faults.extend(draw_refill(&mut more, &setup));
            faults.sort_by_key(|fault| fault.at);
        }
        Plan { seed, setup, operations, faults }
    }
}

impl Setup {
    fn draw(rng: &mut Rng) -> Setup {
        let nodes = rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 7]);
        let majority = nodes / 2 + 1;
        let quorum = match rng.below(10) {
            0 => 1,
            1 => nodes,
            2 => rng.within(1, nodes as u64) as usize,
            _ => majority,
        };
        let suspected_after = rng.within(1, 3) as u32;
        let heartbeat_ms = rng.pick(&[50, 100, 200, 500, 1000, 1000]);
        let mut setup = Setup {
            nodes,
            quorum,
            concern: rng.pick(&[Concern::All, Concern::Majority, Concern::Nodes(1)]),
            received: rng.percent(20),
            timeout_ms: rng.percent(30).then(|| rng.magnitude(1, 5000)),
            heartbeat_ms,
            suspected_after,
            unhealthy_after: suspected_after + rng.within(0, 4) as u32,
            attempt_timeout_ms: rng.pick(&[50, 200, 1000, 1000]),
            retry_delays_ms: match rng.below(3) {
                0 => vec![1000, 2000, 5000],
                1 => vec![10, 20, 50, 100],
                _ => vec![rng.within(1, 500), rng.within(1, 2000)],
            },
            window_bytes: match rng.below(4) {
                0 => rng.magnitude(200, 4096) as usize,
                1 => rng.magnitude(4096, 64 << 10) as usize,
                _ => 16 << 20,
            },
            bootstrap: rng.percent(20),
            clients: rng.within(1, 6) as u32,
            active_us: rng.pick(&[5, 15, 30, 30, 60]) * SECOND,
            liveness: rng.percent(50),
            net: NetSetup {
                delay_us: rng.magnitude(20, 20 * MS),
                jitter_us: rng.magnitude(1, 50 * MS),
                bandwidth: if rng.percent(20) { rng.magnitude(100_000, 100_000_000) } else { 0 },
                chunk_bytes: rng.pick(&[1, 16, 100, 1460, 1460, 64 << 10, 64 << 10, 64 << 10]),
                send_bytes: rng.pick(&[600, 4096, 64 << 10, 1 << 20, 4 << 20]),
                receive_bytes: rng.pick(&[600, 4096, 64 << 10, 1 << 20, 4 << 20]),
            },
            turn_us: rng.magnitude(5, 2 * MS),
            sync_us: if rng.percent(40) { rng.magnitude(50, 20 * MS) } else { 0 },
            sync_all: rng.percent(50),
            disk: None,
        };
        setup.fit();
        setup.disk = (disks() && rng.percent(50)).then(|| DiskSetup::draw(rng));
        setup
    }

    /// Takes back what no operator would configure: a line that carries less than 300 kB/s because of
    /// the receiver's little room, and heartbeats that such a line cannot answer in time.
    fn fit(&mut self) {
        let way_us = self.net.delay_us + self.net.jitter_us + self.turn_us;
        let rate = self.net.receive_bytes as u64 * 1_000_000 / way_us;
        if rate < 300_000 {
            self.net.receive_bytes = 64 << 10;
        }
        if self.heartbeat_ms * 1000 * u64::from(self.unhealthy_after) < 10 * way_us {
            self.heartbeat_ms = 1000;
        }
    }
}

fn draw_operations(rng: &mut Rng, setup: &Setup) -> Vec<Operation> {
    // A byte at a time over a slow line is worth a few entries, not a few thousand.
    let tiny = setup.net.chunk_bytes < 100 || setup.net.bandwidth > 0;
    // Sometimes a crowd: more than a driver's inbox holds, within a second.
    let crowd = !tiny && rng.percent(2);
    let count = match (tiny, crowd) {
        (true, _) => rng.magnitude(5, 60),
        (_, true) => 3000,
        _ => rng.magnitude(20, 600),
    };
    let crowd_at = rng.below(setup.active_us);
    let size_max = match (tiny, rng.below(4)) {
        (true, _) => 60,
        (_, 0) => 4000,
        (_, 1) => 300,
        _ => 60,
    };
    // On a line that needs longer for one entry than the master waits for it, most of what is carried
    // is repetitions: see the README of this tool.
    let net = &setup.net;
    let round = 2 * (net.delay_us + net.jitter_us) + 1000;
    let by_room = net.receive_bytes as u64 * 1_000_000 / round;
    let rate = if net.bandwidth > 0 { by_room.min(net.bandwidth) } else { by_room };
    let large_max = rate * setup.attempt_timeout_ms / 8000;
    let nodes = setup.nodes as u64;
    let concern = |rng: &mut Rng| match rng.below(10) {
        0..=1 => Concern::Default,
        2..=4 => Concern::Nodes(rng.within(1, nodes) as u16),
        5..=6 => Concern::Majority,
        7..=8 => Concern::All,
        _ => Concern::Nodes(rng.within(1, nodes + 2) as u16),
    };
    let timeout = |rng: &mut Rng| match rng.below(8) {
        0 => Timeout::Ms(0),
        1..=3 => Timeout::Ms(rng.magnitude(1, 8000)),
        4..=5 => Timeout::Forever,
        _ => Timeout::Default,
    };
    let mut operations = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        // Operations come in bursts as often as alone.
        if crowd {
            at = crowd_at.saturating_add(rng.below(SECOND)).min(setup.active_us - 1);
        } else if rng.percent(70) {
            at = rng.below(setup.active_us);
        } else {
            at = (at + rng.magnitude(1, 2 * MS)).min(setup.active_us - 1);
        }
        let what = match rng.below(100) {
            0..=64 => Action::Append {
                count: if rng.percent(80) {
                    1
                } else {
                    rng.magnitude(1, if tiny { 8 } else { 60 }) as u32
                },
                size: match rng.below(200) {
                    0 if !tiny && large_max > 10_000 => {
                        rng.magnitude(10_000, large_max.min(300_000)) as u32
                    }
                    _ => rng.magnitude(0, size_max) as u32,
                },
                concern: concern(rng),
                received: rng.pick(&[None, None, Some(false), Some(true)]),
                timeout: timeout(rng),
            },
            65..=76 => Action::Wait {
                share: rng.within(0, 257) as u16,
                concern: concern(rng),
                received: rng.percent(30),
                timeout: timeout(rng),
            },
            77..=97 => Action::Read {
                node: rng.below(nodes) as usize,
                level: match rng.below(4) {
                    0 => ReadLevel::Local,
                    1 => ReadLevel::Committed,
                    2 => ReadLevel::All,
                    _ => ReadLevel::Nodes(rng.within(1, nodes + 1) as u16),
                },
                share: rng.within(0, 257) as u16,
                limit: rng.magnitude(1, 100) as u32,
            },
            _ => Action::Disconnect,
        };
        let client = rng.below(u64::from(setup.clients)) as u32;
        operations.push(Operation { at, client, what });
    }
    operations.sort_by_key(|operation| operation.at);
    operations
}

/// One secondary alone gets what the master numbers last; then that master is gone, and so is the
/// secondary until the next reign has numbered entries of its own.
fn draw_divergence(rng: &mut Rng, setup: &Setup) -> Vec<PlannedFault> {
    let begins = rng.within(setup.active_us / 4, setup.active_us / 2);
    let alone = rng.within(1, setup.nodes as u64 - 1) as usize;
    let cut = |node| Fault::Cut { node, to_it: true, from_it: true };
    let others = (1..setup.nodes).filter(|&node| node != alone);
    let mut faults: Vec<_> =
        others.map(|node| PlannedFault { at: begins, lasts: 800 * MS, what: cut(node) }).collect();
    let (at, lasts) = (begins + 700 * MS, (setup.active_us - begins) / 2);
    faults.push(PlannedFault { at, lasts, what: cut(alone) });
    let what = Fault::Crash { node: 0, silent: true };
    faults.push(PlannedFault { at: at + 10 * MS, lasts: 300 * MS, what });
    faults
}

/// A secondary loses its disk, and its master starts again before it is full once more, with nobody else
/// there: what was committed neither of them need know.
fn draw_refill(rng: &mut Rng, setup: &Setup) -> Vec<PlannedFault> {
    let at = rng.within(setup.active_us / 3, setup.active_us * 2 / 3);
    let node = rng.within(1, setup.nodes as u64 - 1) as usize;
    let others = (1..setup.nodes).filter(|&other| other != node);
    let cut = |node| Fault::Cut { node, to_it: true, from_it: true };
    let mut faults: Vec<_> =
        others.map(|other| PlannedFault { at, lasts: 4 * SECOND, what: cut(other) }).collect();
    faults.push(PlannedFault { at, lasts: 100 * MS, what: Fault::Wipe { node } });
    let what = Fault::Crash { node: 0, silent: false };
    faults.push(PlannedFault { at: at + 20 * MS, lasts: 200 * MS, what });
    faults
}

fn draw_faults(rng: &mut Rng, setup: &Setup) -> Vec<PlannedFault> {
    let mut faults = Vec::new();
    if rng.percent(8) || setup.nodes == 1 && rng.percent(50) {
        return faults;
    }
    // What another master does ends this one: rare, or little else would be seen.
    let usurped = setup.nodes > 1 && rng.percent(4);
    let share = rng.within(10, 60);
    let enabled: Vec<usize> = (0..Fault::KINDS.len() - 1)
        .filter(|_| rng.percent(share))
        .filter(|&kind| setup.disk.is_some() || kind < 16)
        .collect();
    if usurped {
        let at = rng.within(setup.active_us / 2, setup.active_us - 1);
        let node = rng.within(1, setup.nodes as u64 - 1) as usize;
        faults.push(PlannedFault { at, lasts: 0, what: Fault::Usurp { node } });
    }
    if enabled.is_empty() {
        return faults;
    }
    if disks() && setup.nodes >= 4 && rng.percent(20) {
        faults.extend(draw_divergence(rng, setup));
    }
    let count = rng.magnitude(1, 40);
    // In most runs faults hit one node only: nearly all failures need no more.
    let victim =
        (setup.nodes > 1 && rng.percent(40)).then(|| rng.within(1, setup.nodes as u64 - 1));
    for _ in 0..count {
        let at = rng.below(setup.active_us);
        let lasts = rng.magnitude(MS, 10 * SECOND).min(setup.active_us - at);
        let secondary = match victim {
            Some(victim) => victim as usize,
            None if setup.nodes > 1 => rng.within(1, setup.nodes as u64 - 1) as usize,
            None => 0,
        };
        let any = if rng.percent(25) { 0 } else { secondary };
        let node = secondary;
        let what = match rng.pick(&enabled) {
            0 => {
                let (to_it, from_it) =
                    rng.pick(&[(true, true), (true, true), (true, false), (false, true)]);
                Fault::Cut { node, to_it, from_it }
            }
            1 => Fault::Reset { node },
            2 => Fault::HalfOpen { node, master_learns: rng.percent(50) },
            3 => Fault::Crash { node: any, silent: rng.percent(30) },
            4 => Fault::Pause { node: any },
            5 => Fault::SlowNode { node: any, by_us: rng.magnitude(100, 500 * MS) },
            6 => Fault::SlowLink { node, by_us: rng.magnitude(MS, 3 * SECOND) },
            7 => Fault::RefuseDial { node },
            8 => Fault::SlowDisk { node: any, by_us: rng.magnitude(MS, 5 * SECOND) },
            9 => Fault::ClockJump { node: 0, ms: rng.within(0, 200_000_000) as i64 - 100_000_000 },
            10 => Fault::Storm { node, every_us: rng.magnitude(MS, SECOND) },
            11 => {
                Fault::Delay { node, by_us: rng.magnitude(MS, 8 * SECOND), once: rng.percent(50) }
            }
            12 => Fault::Fail { node, before: rng.percent(50), percent: rng.pick(&[5, 30, 100]) },
            13 => Fault::Mute { node },
            14 => Fault::Store { node, ahead: rng.magnitude(1, 20) },
            15 => Fault::Stranger { node },
            16 => Fault::CrashAt { node: any, operation: rng.magnitude(1, 200) },
            17 => Fault::DiskFull { node: any, room: rng.magnitude(1, 100_000) },
            18 => Fault::SyncFails { node: any },
            19 => Fault::BitFlip { node: any },
            // What a rolled-back node vouches for it may have lost: rare, since it excuses losses.
            20 if rng.percent(30) => Fault::Wipe { node: any },
            21 if rng.percent(20) => Fault::RollBack { node: any },
            _ => Fault::Crash { node: any, silent: rng.percent(30) },
        };
        // Only the master and the clients have anything to break in a cluster of one.
        if what.node() == 0
            && !matches!(
                what,
                Fault::Pause { .. }
                    | Fault::SlowNode { .. }
                    | Fault::SlowDisk { .. }
                    | Fault::ClockJump { .. }
                    | Fault::Crash { .. }
            )
            && !what.needs_disk()
        {
            continue;
        }
        // A master that starts again is played with disks only.
        if !disks() && what.node() == 0 && matches!(what, Fault::Crash { .. }) {
            continue;
        }
        faults.push(PlannedFault { at, lasts, what });
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}
