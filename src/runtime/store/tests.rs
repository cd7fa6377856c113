//! Nodes over disks that are slow: what their clients and peers hear meanwhile.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::config::Role;
use crate::engine::{MasterConfig, Mode, Reign, SessionId};
use crate::limits::{RECORD_HEADER_BYTES, WINDOW_BYTES_MAX};
use crate::node::client::{AppendRun, Payloads};
use crate::node::faults::Faults;
use crate::node::introduction::next_message;
use crate::node::master::Beginnings;
use crate::node::{About, Machine, MasterNode, Output, SecondaryNode};
use crate::store::faulty::FaultyFs;
use crate::store::provisional::SharedProvisional;
use crate::types::{AckLevel, LogId, NodeIndex, RunId, Time, Timeout, WaitOptions, WriteConcern};
use crate::wire::{FrameDecoder, Message};

#[test]
fn room_is_kept_for_the_longest_entry_that_a_client_may_append() {
    assert_eq!(run_bytes(1000), RUN_BYTES_MAX);
    assert!(run_bytes(1 << 20) > 1 << 20 && run_bytes(1 << 20) < 2 << 20);
    assert!(run_bytes(16 << 20) > 16 << 20);
}

const HEARTBEAT: Duration = Duration::from_millis(100);
/// More than a segment of 64 MiB holds.
const ENTRIES: u64 = 70;
const ENTRY_BYTES: usize = 1 << 20;
/// Of an entry in the first segment.
const DAMAGED: Seq = Seq::new(3);

fn about(id: &str) -> About {
    let id = id.parse().expect("a name");
    About { id, advertise: "localhost:1".to_owned(), payload_max: ENTRY_BYTES }
}

fn open(fs: &FaultyFs, role: Role, id: &str) -> NodeLog {
    let mut config = Config::default_for(role);
    config.node.id = id.parse().expect("a name");
    config.node.data_dir = Some(PathBuf::from("/data"));
    NodeLog::open_on(Arc::new(fs.clone()), &config).expect("an empty disk")
}

fn master(log: NodeLog) -> MasterNode<NodeLog> {
    let config = MasterConfig {
        nodes: 2,
        quorum: 1,
        write_concern: WriteConcern::Majority,
        ack: AckLevel::Stored,
        timeout: Timeout::Forever,
        heartbeat_interval: HEARTBEAT,
        suspected_after: 2,
        unhealthy_after: 5,
        attempt_timeout: Duration::from_secs(1),
        retry_delays: vec![Duration::from_secs(1)],
        window_bytes_max: WINDOW_BYTES_MAX,
        bootstrap: true,
        accept_data_loss: None,
    };
    let beginnings = Beginnings {
        config,
        run_id: RunId::new(1),
        log_id: LogId::new([1; 16]),
        secondaries: vec![("s1".parse().expect("a name"), "localhost:2".to_owned())],
        first_session: 1,
    };
    MasterNode::new(about("m"), beginnings, log, Time::ZERO)
}

/// A master and its secondary, each over a disk of its own, carried by this thread alone: what waits in one
/// of them is waited for by all.
struct Pair {
    disks: [FaultyFs; 2],
    master: MasterNode<NodeLog>,
    secondary: SecondaryNode<NodeLog>,
    now: Time,
    /// The connection, and whether its HELLO was answered.
    link: Option<(SessionId, bool)>,
    /// What is on its way to the master, and to the secondary.
    wires: [BytesMut; 2],
    /// Heartbeats that the master sent, and that were answered.
    heartbeats: [u64; 2],
    dials: u64,
}

impl Pair {
    fn new() -> Pair {
        let disks = [FaultyFs::new(1), FaultyFs::new(2)];
        let log = open(&disks[1], Role::Secondary, "s1");
        let own = (log, SharedProvisional::default());
        let faults = Faults::new(Duration::ZERO, 1);
        Pair {
            master: master(open(&disks[0], Role::Master, "m")),
            secondary: SecondaryNode::new(about("s1"), HEARTBEAT, faults, own),
            disks,
            now: Time::ZERO,
            link: None,
            wires: [BytesMut::new(), BytesMut::new()],
            heartbeats: [0; 2],
            dials: 0,
        }
    }

    fn machine(&mut self, node: usize) -> &mut dyn Machine {
        match node {
            0 => &mut self.master,
            _ => &mut self.secondary,
        }
    }

    /// Both nodes go on until neither has anything to say at this moment.
    fn settle(&mut self) {
        loop {
            let mut any = false;
            for node in 0..2 {
                let now = self.now;
                self.machine(node).begin_turn(now);
                any |= self.hear(node);
                loop {
                    let mut more = self.machine(node).step(now);
                    while let Some(output) = self.machine(node).poll_output() {
                        self.carry_out(node, output);
                        more = true;
                    }
                    if !more {
                        break;
                    }
                    any = true;
                }
                assert_eq!(self.machine(node).failure(), None);
            }
            if !any {
                return;
            }
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Write { session } => {
                let Some(queue) = self.machine(node).queue(session) else { return };
                let bytes: Vec<u8> =
                    queue.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                self.wires[1 - node].extend_from_slice(&bytes);
                self.machine(node).handle_taken(now, session, bytes.len());
            }
            Output::Close { session, .. } => {
                if self.link.take_if(|(open, _)| *open == session).is_some() {
                    self.wires = [BytesMut::new(), BytesMut::new()];
                    self.machine(1 - node).handle_closed(now, session, None, "closed");
                }
            }
            Output::Dial { session, hello, .. } => {
                self.dials += 1;
                self.link = Some((session, false));
                self.secondary.handle_accepted(now, session, &hello);
            }
            Output::Read { peer, session, asked } => {
                let log = self.machine_log(node).reader();
                let mut slice = log.read(asked.range, asked.bytes_max);
                if slice.before.is_none() {
                    slice.before = log.prefix_id(asked.range.first.previous());
                }
                self.machine(node).handle_read(now, peer, session, asked, slice);
            }
        }
    }

    fn machine_log(&self, node: usize) -> &dyn LogStore {
        match node {
            0 => self.master.storage().log(),
            _ => self.secondary.storage().log(),
        }
    }

    /// Hands in what has arrived.
    fn hear(&mut self, node: usize) -> bool {
        let mut any = false;
        let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
        while let Some(message) =
            next_message(decoder, &mut self.wires[node]).expect("nodes speak the protocol")
        {
            any = true;
            let Some((session, introduced)) = self.link else { continue };
            match &message {
                Message::Heartbeat(_) => self.heartbeats[0] += 1,
                Message::HeartbeatAck(_) => self.heartbeats[1] += 1,
                _ => {}
            }
            let now = self.now;
            match message {
                Message::Hello(hello) if node == 0 && !introduced => {
                    self.link = Some((session, true));
                    let to = NodeIndex::secondary(0);
                    self.master.handle_dialled(now, to, session, Ok(hello));
                }
                message => {
                    let machine = self.machine(node);
                    machine.handle_heard(now, session);
                    machine.handle_message(now, session, message);
                }
            }
        }
        any
    }

    /// Time goes by.
    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(10));
            self.settle();
        }
    }

    /// Goes on until the disks' own threads have come so far.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&Pair) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
            std::thread::sleep(Duration::from_millis(1));
            self.now = self.now.after(Duration::from_millis(1));
            self.settle();
        }
    }

    fn append(&mut self, payload: Vec<u8>) {
        let options = WaitOptions { concern: None, ack: None, timeout: None };
        let payloads = Payloads::Lines(vec![Bytes::from(payload)]);
        self.master.handle_append(self.now, 0, 1, AppendRun { slot: 1, options, payloads });
        self.settle();
    }

    /// A leader, its secondary, and a first segment of 64 MiB that is sealed on both.
    fn with_a_sealed_segment() -> Pair {
        let mut pair = Pair::new();
        pair.until("it leads", |pair| pair.master.engine().reign() == Reign::Leading);
        for _ in 0..ENTRIES {
            pair.append(vec![b'x'; ENTRY_BYTES]);
        }
        pair.until("all is stored on both", |pair| {
            pair.secondary.engine().stored() == Seq::new(ENTRIES)
                && pair.master.engine().levels().held_by(2) == Seq::new(ENTRIES)
        });
        pair
    }

    /// An entry of the first segment is destroyed and found to be, while all that a repair writes waits.
    fn damage(&mut self, node: usize) {
        let disk = self.disks[node].clone();
        let first = PathBuf::from("/data/00000000000000000001.log");
        let len = disk.bytes(&first).expect("it is there").len();
        assert!(len > 60 << 20, "{len} bytes are no segment of 64 MiB");
        disk.hold_writes(Some(".log.tmp"));
        // Whatever fails, nobody waits for ever.
        let release = disk.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(120));
            release.hold_writes(None);
        });
        let at = 64 + 100 + (DAMAGED.number() - 1) * (ENTRY_BYTES + RECORD_HEADER_BYTES) as u64;
        disk.flip(&first, (at + 1000) * 8);
        let damaged = SeqRange::with_len(DAMAGED, 1);
        let reader = self.machine_log(node).reader();
        let found = reader.read(damaged, 1);
        let is_cold = found.range.is_none();
        if !is_cold {
            // It is in memory still: the scrub is the one who finds it.
            let log = match node {
                0 => &self.master.storage().log,
                _ => &self.secondary.storage().log,
            };
            let Log::Disk(log) = log else { unreachable!("it is on disk") };
            let mut scrub = log.scrubber();
            while self.machine_log(node).damage().is_empty() {
                assert!(!scrub.step(1 << 20).done, "the scrub found nothing");
            }
        }
        assert_eq!(self.machine_log(node).damage(), [damaged]);
    }

    fn is_whole(&self, node: usize) -> bool {
        self.machine_log(node).damage().is_empty()
    }
}

/// While a segment is written anew, and the disk takes as long as it likes: each heartbeat is answered
/// at once, what is damaged is not served, and nobody is given up.
fn heartbeats_go_on(pair: &mut Pair, node: usize) {
    pair.damage(node);
    let disk = pair.disks[node].clone();
    // Until what repairs it has come.
    pair.until("the segment is being written anew", |_| disk.has_writer());
    let (heartbeats, dials) = (pair.heartbeats, pair.dials);
    pair.pass(Duration::from_secs(20));
    assert!(disk.has_writer(), "nothing was written in all that time");
    assert!(!pair.is_whole(node), "it is not in place yet");
    let [sent, answered] = [0, 1].map(|at| pair.heartbeats[at] - heartbeats[at]);
    assert!(sent >= 190 && answered == sent, "{answered} of {sent} heartbeats were answered");
    assert_eq!(pair.dials, dials, "the connection stands");
    let reader = pair.machine_log(node).reader();
    assert!(reader.is_unreadable(DAMAGED));
}

#[test]
fn a_secondary_answers_heartbeats_while_a_segment_is_written_anew() {
    let mut pair = Pair::with_a_sealed_segment();
    heartbeats_go_on(&mut pair, 1);
    // What is appended meanwhile goes behind it.
    for _ in 0..3 {
        pair.append(b"meanwhile".to_vec());
    }
    let last = Seq::new(ENTRIES + 3);
    assert_eq!(pair.machine_log(0).bounds().last, last);
    pair.disks[1].hold_writes(None);
    pair.until("it is whole again", |pair| pair.is_whole(1));
    pair.until("it is counted again", |pair| pair.master.engine().levels().held_by(2) == last);
    let reader = pair.secondary.storage().log().reader();
    let record = reader.record(DAMAGED).expect("it can be read");
    assert_eq!(record.payload.len(), ENTRY_BYTES);
}

#[test]
fn a_master_sends_heartbeats_and_refuses_appends_while_a_segment_is_written_anew() {
    let mut pair = Pair::with_a_sealed_segment();
    heartbeats_go_on(&mut pair, 0);
    assert_eq!(pair.master.engine().mode(), Mode::Damaged);
    pair.disks[0].hold_writes(None);
    pair.until("it is whole again", |pair| pair.is_whole(0));
    pair.settle();
    assert_eq!(pair.master.engine().mode(), Mode::Normal);
    pair.append(b"afterwards".to_vec());
    let last = Seq::new(ENTRIES + 1);
    pair.until("it is on both", |pair| pair.master.engine().levels().held_by(2) == last);
}

#[test]
fn a_node_that_stops_waits_for_its_repair() {
    let mut pair = Pair::with_a_sealed_segment();
    pair.damage(1);
    let disk = pair.disks[1].clone();
    pair.until("the segment is being written anew", |_| disk.has_writer());
    let waits = std::thread::spawn(move || {
        disk.wait_for_writer();
        disk.hold_writes(None);
    });
    pair.secondary.leave().expect("a good disk");
    waits.join().expect("it ends");
    assert!(pair.is_whole(1), "it stopped without what was begun");
}
