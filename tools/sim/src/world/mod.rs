//! A whole cluster and its clients in one thread, in virtual time, from one plan.
//!
//! Everything that decides is the product's own: the nodes, the codec, the records and the store. What
//! is played here is what surrounds them: sockets (`net`), whoever carries a node (`carrier`), disks
//! (`store`), clients (`clients`), and whoever breaks things (`faults`). `observe` looks at each step of
//! a node; `check` sees all of the cluster at once and says what must not be.

mod carrier;
mod check;
mod clients;
mod dial;
mod doors;
mod faults;
mod master;
mod net;
mod observe;
mod process;
mod recorder;
mod restart;
mod secondary;
mod speech;
mod store;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use replog::codes::RefuseCode;
use replog::engine::{MasterConfig, SessionId};
use replog::node::Storage as _;
use replog::node::reads::Asked;
use replog::node::session::{Answer, Request};
use replog::store::faulty::FaultyFs;
use replog::types::{AckLevel, LogId, NodeIndex, Seq, Timeout, WriteConcern};
use replog::wire::Message;
use replog::wire::codec::Hello;

use crate::plan::{Concern, Fault, Plan};
use crate::rng::Rng;
use crate::sometimes::Seen;
use crate::trace::Trace;

/// Messages that wait for a process, and how many it takes in a turn: as in the runtime.
const INBOX_MAX: usize = replog::limits::DRIVER_QUEUE_MAX;
const INPUTS_PER_TURN: usize = 256;

/// What must not be, and was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: String,
    /// What was seen.
    pub seen: String,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Virtual time that passed, in microseconds.
    pub simulated_us: u64,
    /// Events carried out.
    pub events: u64,
    /// Entries numbered.
    pub appended: u64,
    /// Entries answered OK, waits included.
    pub ok: u64,
    /// Entries answered PENDING.
    pub pending: u64,
    /// Entries answered UNKNOWN.
    pub unknown: u64,
    /// Entries refused.
    pub refused: u64,
    /// Waits taken.
    pub waits: u64,
    /// Reads.
    pub reads: u64,
    /// Faults that happened, by kind.
    pub faults: [u64; Fault::KINDS.len()],
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: &Stats) {
        self.simulated_us += other.simulated_us;
        self.events += other.events;
        self.appended += other.appended;
        self.ok += other.ok;
        self.pending += other.pending;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.waits += other.waits;
        self.reads += other.reads;
        self.faults.iter_mut().zip(&other.faults).for_each(|(own, theirs)| *own += theirs);
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first rule that was violated.
    pub violation: Option<Violation>,
    /// What happened, in numbers.
    pub stats: Stats,
    /// What rare things were seen.
    pub seen: Seen,
    /// One number for everything that happened.
    pub hash: u64,
}

/// Something that will happen at a moment.
#[derive(Debug)]
enum Event {
    Operation(usize),
    Fault(usize),
    FaultEnds(usize),
    StormStrikes(usize),
    Turn { node: usize },
    Arrive { id: usize, side: usize },
    Confirm { id: usize, side: usize, count: usize },
    Read { id: usize, side: usize },
    Writable { id: usize, side: usize },
    Reset { id: usize, side: usize },
    UserTimeout { id: usize, side: usize },
    IntroductionTimeout { id: usize },
    DialStep { dial: usize },
    DialDeadline { dial: usize },
    Synced { node: usize, life: u32 },
    Worked { node: usize, life: u32 },
    Input { node: usize, life: u32, input: Input },
    Submit { request: usize },
    Said { client: u32, connection: u64, bytes: bytes::Bytes },
    Heard { client: u32, connection: u64, bytes: bytes::Bytes },
    ClientGone { connection: u64 },
    Reply(clients::Reply),
    Restart { node: usize, life: u32 },
    Scrub { node: usize, life: u32 },
    Heal,
    Look,
}

/// What a process is told.
#[derive(Debug)]
enum Input {
    Append {
        request: usize,
    },
    Wait {
        request: usize,
    },
    ClientGone {
        connection: u64,
    },
    /// Bytes of a client, what its session asks for, and what that is answered.
    Bytes {
        client: u32,
        connection: u64,
        bytes: bytes::Bytes,
    },
    Request {
        connection: u64,
        request: Box<Request>,
    },
    Answer {
        connection: u64,
        answer: Box<Answer>,
    },
    Dialled {
        dial: usize,
        result: net::Dialled,
    },
    Accepted {
        conn: usize,
        hello: Box<Hello>,
    },
    Messages {
        session: SessionId,
        messages: Vec<Message>,
    },
    Closed {
        session: SessionId,
        refuse: Option<RefuseCode>,
        reason: &'static str,
    },
    Writable {
        session: SessionId,
    },
    ColdRead {
        peer: NodeIndex,
        session: SessionId,
        asked: Asked,
    },
}

/// Events by time; those of one moment in the order in which they were planned.
#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, Slot)>>,
    next: u64,
}

/// An event that takes no part in the order.
#[derive(Debug)]
struct Slot(Event);

impl PartialEq for Slot {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Slot {}
impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Slot {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Queue {
    fn push(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.heap.push(Reverse((at, self.next, Slot(event))));
    }

    fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse((at, _, slot))| (at, slot.0))
    }
}

/// A process and its machine.
#[derive(Debug)]
struct Host {
    up: bool,
    /// It is down, and nobody is told.
    silent: bool,
    /// Which process this is, counted from 0.
    life: u32,
    paused: u32,
    slow_by: u64,
    disk_slow_by: u64,
    /// It must end.
    failed: bool,
    /// The sync that was under way is over.
    synced: bool,
    clock_ms: i64,
    inbox: VecDeque<Input>,
    /// Connections wait for room in the inbox.
    reads_wait: bool,
    /// When the next turn is due; `u64::MAX`: none.
    next_turn: u64,
    rng: Rng,
}

struct World {
    plan: Rc<Plan>,
    now: u64,
    queue: Queue,
    trace: Trace,
    hosts: Vec<Host>,
    lines: Vec<net::Line>,
    conns: Vec<net::Conn>,
    dials: Vec<dial::Dial>,
    master: master::MasterNode,
    secondaries: Vec<secondary::SecondaryNode>,
    clients: Vec<clients::Client>,
    client_rng: Rng,
    /// Clients that speak bytes: what they await, and what was said and is not taken yet.
    speakers: Vec<speech::Speaker>,
    said: BTreeMap<u64, doors::Said>,
    speech_rng: Rng,
    requests: Vec<clients::Request>,
    /// Requests that the master took and did not answer in full.
    open: BTreeSet<usize>,
    /// Whose entry has which number in which epoch.
    entries: BTreeMap<(u64, u64), (usize, u64)>,
    /// Numbers that nobody saw given: the disk failed meanwhile.
    unseen: BTreeSet<(u64, u64)>,
    /// Reigns begun, and which of the master's processes began the last.
    reigns: u64,
    reign_of: Option<u32>,
    /// Another history began because too many nodes are empty: nothing is left to be seen.
    over: bool,
    /// A node was brought back to what it does not know to be old: what was committed may be lost.
    excused: bool,
    /// The history in which entries were numbered.
    history_id: Option<Option<LogId>>,
    /// The nodes' file systems; none in memory.
    disks: Vec<Option<restart::Disk>>,
    /// The highest number that a client heard to be OK.
    confirmed: Seq,
    recorder: recorder::Recorder,
    ghosts: Vec<check::Ghost>,
    memory: check::Memory,
    unknown_answers: u64,
    /// A secondary whose ACK the master has now, and what had been received of it.
    acked: Option<(usize, Seq)>,
    /// Faults that are over.
    ended: BTreeSet<usize>,
    /// Another master leads this log.
    usurped: bool,
    healed_at: Option<u64>,
    violation: Option<Violation>,
    seen: Seen,
    stats: Stats,
}

/// Plays a plan to its end, or to the first violation.
pub fn play(plan: &Plan, keeps_lines: bool) -> Outcome {
    let mut world = World::new(Rc::new(plan.clone()), keeps_lines);
    world.run();
    world.stats.simulated_us = world.now;
    Outcome {
        violation: world.violation,
        stats: world.stats,
        seen: world.seen,
        hash: world.trace.hash(),
    }
}

impl World {
    fn new(plan: Rc<Plan>, keeps_lines: bool) -> Self {
        let setup = &plan.setup;
        let (seed, nodes) = (plan.seed, setup.nodes);
        let host = |node: u64| Host {
            up: true,
            silent: false,
            life: 0,
            paused: 0,
            slow_by: 0,
            disk_slow_by: 0,
            failed: false,
            synced: false,
            clock_ms: 0,
            inbox: VecDeque::new(),
            reads_wait: false,
            next_turn: u64::MAX,
            rng: Rng::keyed(&[seed, 12, node]),
        };
        let disk = |node: u64| {
            let on_disk = setup.disk.is_some();
            on_disk.then(|| restart::Disk::new(FaultyFs::new(Rng::keyed(&[seed, 15, node]).next())))
        };
        let disks: Vec<_> = (0..nodes as u64).map(disk).collect();
        let open = |node: usize| restart::open_new(&disks, node, setup.disk.as_ref());
        let master = carrier::new_master(&plan, 0, open(0), 1, 0);
        let secondaries = (1..nodes)
            .map(|node| carrier::new_secondary(&plan, node, 0, open(node)))
            .map(secondary::SecondaryNode::new)
            .collect();
        let mut queue = Queue::default();
        plan.operations
            .iter()
            .enumerate()
            .for_each(|(at, op)| queue.push(op.at, Event::Operation(at)));
        for (at, fault) in plan.faults.iter().enumerate() {
            queue.push(fault.at, Event::Fault(at));
        }
        if setup.liveness {
            queue.push(setup.active_us, Event::Heal);
        }
        let mut world = World {
            now: 0,
            queue,
            trace: Trace::new(keeps_lines),
            hosts: (0..nodes as u64).map(host).collect(),
            lines: vec![net::Line::default(); nodes],
            conns: Vec::new(),
            dials: Vec::new(),
            master: master::MasterNode::new(master, nodes, setup.heartbeat_ms),
            secondaries,
            clients: (0..setup.clients).map(clients::Client::new).collect(),
            client_rng: Rng::keyed(&[seed, 14]),
            speakers: vec![speech::Speaker::default(); setup.clients as usize],
            said: BTreeMap::new(),
            speech_rng: Rng::keyed(&[seed, 16]),
            requests: Vec::new(),
            open: BTreeSet::new(),
            entries: BTreeMap::new(),
            unseen: BTreeSet::new(),
            reigns: 0,
            reign_of: None,
            over: false,
            excused: false,
            history_id: None,
            disks,
            confirmed: Seq::ZERO,
            recorder: recorder::Recorder::default(),
            ghosts: vec![check::Ghost::default(); nodes],
            memory: check::Memory::new(nodes),
            unknown_answers: 0,
            acked: None,
            ended: BTreeSet::new(),
            usurped: false,
            healed_at: None,
            violation: None,
            seen: Seen::default(),
            stats: Stats::default(),
            plan,
        };
        world.wake_at(0, 0);
        for node in 0..nodes {
            world.scrub_later(node);
        }
        world
    }

    fn run(&mut self) {
        let ends =
            if self.plan.setup.liveness { u64::MAX } else { self.plan.setup.active_us + 1_000_000 };
        while self.violation.is_none()
            && let Some((at, event)) = self.queue.pop()
        {
            if at > ends {
                break;
            }
            self.now = self.now.max(at);
            self.stats.events += 1;
            if !self.happen(event) {
                break;
            }
        }
        if self.violation.is_none() && !self.over {
            self.check_waiting();
            self.check_logs();
            self.check_history();
        }
    }

    /// Returns whether the run goes on.
    fn happen(&mut self, event: Event) -> bool {
        match event {
            Event::Operation(at) => self.operate(at),
            Event::Fault(at) => self.fault_begins(at),
            Event::FaultEnds(at) => self.fault_ends(at),
            Event::StormStrikes(at) => self.storm_strikes(at),
            Event::Turn { node } => self.turn(node),
            Event::Arrive { id, side } => self.arrive(id, side),
            Event::Confirm { id, side, count } => self.confirm(id, side, count),
            Event::Read { id, side } => self.read(id, side),
            Event::Writable { id, side } => self.writable(id, side),
            Event::Reset { id, side } => self.reset_arrives(id, side),
            Event::UserTimeout { id, side } => self.user_timeout(id, side),
            Event::IntroductionTimeout { id } => self.introduction_timeout(id),
            Event::DialStep { dial } if self.hosts[0].paused > 0 => {
                self.queue.push(self.now + 50_000, Event::DialStep { dial });
            }
            Event::DialStep { dial } => self.dial_step(dial),
            Event::DialDeadline { dial } if self.hosts[0].paused > 0 => {
                self.queue.push(self.now + 50_000, Event::DialDeadline { dial });
            }
            Event::DialDeadline { dial } => self.dial_deadline(dial),
            Event::Synced { node, life } => {
                if self.hosts[node].life == life {
                    self.hosts[node].synced = true;
                    self.wake_soon(node);
                }
            }
            Event::Worked { node, life } => self.worked(node, life),
            Event::Input { node, life, input } => {
                if self.hosts[node].life == life {
                    self.input(node, input);
                }
            }
            Event::Submit { request } => self.submitted(request),
            Event::Said { client, connection, bytes } => self.said(client, connection, bytes),
            Event::Heard { client, connection, bytes } => self.heard(client, connection, &bytes),
            Event::ClientGone { connection } => self.input(0, Input::ClientGone { connection }),
            Event::Reply(reply) => self.replied(reply),
            Event::Restart { node, life } => {
                if self.hosts[node].life == life {
                    self.come_up(node);
                }
            }
            Event::Scrub { node, life } => self.scrub(node, life),
            Event::Heal => self.heal(),
            Event::Look => return self.look(),
        }
        !self.master.deposed && !self.over
    }

    // ---- processes ----

    /// A process has something to take.
    fn input(&mut self, node: usize, input: Input) {
        self.hosts[node].inbox.push_back(input);
        self.wake_soon(node);
    }

    fn wake_soon(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let wait = 1 + host.rng.below(self.plan.setup.turn_us) + host.slow_by;
        self.wake_at(node, self.now + wait);
    }

    /// The next turn of a process is due at the latest then.
    fn wake_at(&mut self, node: usize, at: u64) {
        let host = &mut self.hosts[node];
        if at < host.next_turn {
            host.next_turn = at;
            self.queue.push(at, Event::Turn { node });
        }
    }

    fn turn(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        // An earlier turn took this one's place, or the process cannot take one.
        if host.next_turn != self.now {
            return;
        }
        host.next_turn = u64::MAX;
        if host.paused > 0 || !host.up {
            return;
        }
        self.node_turn(node);
        if node == 0 && self.hosts[0].failed {
            self.check_last_words();
        }
        // Now every answer that was decided before the loss is out.
        if node == 0 {
            for peer in std::mem::take(&mut self.master.lost) {
                self.ghosts[peer].held.clear();
            }
            self.master.answers_lost.clear();
        }
        if self.ends_by_itself(node) {
            return;
        }
        match node {
            0 => self.check_master(),
            _ => self.check_secondary(node),
        }
        let due = self.due(node);
        let host = &mut self.hosts[node];
        if let Some(due) = due {
            // Timers fire a little late, as everywhere.
            let late = 1 + host.rng.below(1500) + host.slow_by;
            let at = due.max(self.now) + late;
            self.wake_at(node, at);
        }
        let host = &mut self.hosts[node];
        if !host.inbox.is_empty() {
            let at = self.now + 1 + host.rng.below(self.plan.setup.turn_us) + host.slow_by;
            self.wake_at(node, at);
        }
        if std::mem::take(&mut self.hosts[node].reads_wait) {
            self.read_all(node);
        }
    }

    /// Milliseconds since 1970 by a node's wall clock.
    fn wall_ms(&self, node: usize) -> u64 {
        (1_700_000_000_000 + self.now / 1000).saturating_add_signed(self.hosts[node].clock_ms)
    }

    // ---- the record ----

    fn tell(
        &mut self,
        node: usize,
        word: &'static str,
        first: u64,
        second: u64,
        what: impl FnOnce() -> String,
    ) {
        self.trace.note(self.now, node as u64, word, [first, second]);
        if self.trace.keeps_lines() {
            self.trace.line(self.now, &format!("n{node}"), word, &what());
        }
    }

    fn tell_client(
        &mut self,
        client: u32,
        word: &'static str,
        first: u64,
        second: u64,
        what: impl FnOnce() -> String,
    ) {
        self.trace.note(self.now, 1000 + u64::from(client), word, [first, second]);
        if self.trace.keeps_lines() {
            self.trace.line(self.now, &format!("c{client}"), word, &what());
        }
    }

    fn fail(&mut self, rule: &str, seen: String) {
        if self.trace.keeps_lines() {
            self.trace.line(self.now, "!", "VIOLATION", &format!("{rule}: {seen}"));
        }
        let violation = Violation { rule: rule.to_owned(), seen };
        self.violation.get_or_insert(violation);
    }

    // ---- the end of faults ----

    /// Faults are over: from here on all must become well within the bounds.
    fn heal(&mut self) {
        for at in 0..self.plan.faults.len() {
            if self.plan.faults[at].at + self.plan.faults[at].lasts >= self.now {
                self.fault_ends(at);
            }
        }
        self.tell(0, "healed", 0, 0, String::new);
        self.healed_at = Some(self.now);
        self.disks_well();
        if self.hosts[0].up && self.master.engine().last() > Seq::ZERO {
            let (last, forever) = (self.master.engine().last(), crate::plan::Timeout::Forever);
            self.wait_for(0, last, Concern::All, false, forever);
        }
        self.queue.push(self.now + 500_000, Event::Look);
    }

    /// How long after the end of all faults everything must be well: 2 s, and what it takes to find out
    /// that a connection is dead, to dial again, to be at the end of the longest wait for a repetition,
    /// and to carry what is behind at half the speed that line and window allow.
    fn heal_bound(&self) -> u64 {
        let setup = &self.plan.setup;
        // A start waits for the roster, and begins again if its epoch is taken.
        let starts = 10_000_000;
        let ladder = setup.retry_delays_ms.iter().max().copied().unwrap_or(0) * 1000;
        let heartbeat = setup.heartbeat_ms * 1000;
        let round =
            2 * (setup.net.delay_us + setup.net.jitter_us + setup.turn_us) + setup.sync_us + 2000;
        let window =
            setup.window_bytes.min(setup.net.send_bytes).min(setup.net.receive_bytes) as u64;
        let by_window = window * 1_000_000 / round;
        let rate = match setup.net.bandwidth {
            0 => by_window,
            bandwidth => by_window.min(bandwidth),
        };
        // An entry that is larger than the window, or a chunk of one byte, costs a round trip each.
        let behind = self.master.store().log().bounds().bytes * 2 * (setup.nodes as u64);
        let entries = self.master.engine().last().number();
        let transfer = behind.saturating_mul(2_000_000) / rate.max(1) + entries * round / 4;
        let introduction = 5_000_000 + 1_500_000;
        2_000_000
            + 2 * self.dial_timeout()
            + 3 * heartbeat
            + 2 * (ladder + setup.attempt_timeout_ms * 1000)
            + introduction
            + starts
            + transfer
    }

    /// Looks whether all is well; returns whether the run goes on.
    fn look(&mut self) -> bool {
        let Some(healed_at) = self.healed_at else { return true };
        match self.ailment() {
            None => return false,
            Some(_) if self.now > healed_at + self.heal_bound() && self.ails_for_good() => {
                return false;
            }
            Some((rule, seen)) if self.now > healed_at + self.heal_bound() => {
                let after = (self.now - healed_at) as f64 / 1e6;
                self.fail(rule, format!("{after:.1} s after the faults ended: {seen}"));
            }
            Some(_) => self.queue.push(self.now + 500_000, Event::Look),
        }
        true
    }
}

fn master_config(plan: &Plan) -> MasterConfig {
    let setup = &plan.setup;
    let ms = Duration::from_millis;
    MasterConfig {
        nodes: setup.nodes,
        quorum: setup.quorum,
        write_concern: match setup.concern {
            Concern::Default | Concern::All => WriteConcern::All,
            Concern::Majority => WriteConcern::Majority,
            Concern::Nodes(count) => {
                std::num::NonZeroU16::new(count).map_or(WriteConcern::All, WriteConcern::Nodes)
            }
        },
        ack: if setup.received { AckLevel::Received } else { AckLevel::Stored },
        timeout: setup.timeout_ms.map_or(Timeout::Forever, |timeout| Timeout::For(ms(timeout))),
        heartbeat_interval: ms(setup.heartbeat_ms),
        suspected_after: setup.suspected_after,
        unhealthy_after: setup.unhealthy_after,
        attempt_timeout: ms(setup.attempt_timeout_ms),
        retry_delays: setup.retry_delays_ms.iter().map(|&delay| ms(delay)).collect(),
        window_bytes_max: setup.window_bytes,
        bootstrap: setup.bootstrap,
        accept_data_loss: None,
    }
}
