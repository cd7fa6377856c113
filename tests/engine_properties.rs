//! What must always hold, under random schedules: a master and its secondaries, both engines real,
//! joined by a network and logs of positions only. Connections break and delay, nodes stand still,
//! drop frames and lose their logs; in the end everything heals, and then everything must be equal
//! and everybody answered.
//!
//! Every frame on one connection arrives in order, or not at all from some moment on, as with TCP.
//! Secondaries store at once, as the log in memory does.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use replog::codes::{NackCode, RefuseCode};
use replog::engine::ranges::RangeSet;
use replog::engine::secondary::MasterHello;
use replog::engine::{
    AckFacts, Answer, Arrival, Effect, HelloFacts, Master, MasterConfig, Mode, OwnLog, Secondary,
    SecondaryEffect, SessionId, Submission, Token, Verdict,
};
use replog::types::{
    AckLevel, Digest, Epoch, LogId, NodeIndex, PrefixId, RunId, Seq, SeqRange, Time, Timeout,
    WaitOptions, WriteConcern, majority,
};

const ENTRY_BYTES: usize = 100;
const HEARTBEAT: Duration = Duration::from_millis(100);
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);
/// Far more than any ladder, any health judgement and any catch-up here needs.
const HEALING: Duration = Duration::from_secs(20);

/// One step of a schedule. `node` is taken modulo the number of secondaries.
#[derive(Clone, Debug)]
enum Step {
    Append {
        from: u64,
        count: u64,
        concern: Option<u16>,
        ack: AckLevel,
        timeout_ms: Option<u64>,
    },
    /// A wait for an entry: a share of the log in 1/256.
    Wait {
        from: u64,
        share: u8,
        concern: u16,
        ack: AckLevel,
        timeout_ms: u64,
    },
    Gone {
        connection: u64,
    },
    Pass {
        ms: u64,
    },
    /// The master's process stands still: time passes, and what was due is late.
    Stall {
        ms: u64,
    },
    Break {
        node: usize,
    },
    Reachable {
        node: usize,
        yes: bool,
    },
    /// Its process stands still; its connections stay, and what arrives waits.
    Frozen {
        node: usize,
        yes: bool,
    },
    Delay {
        node: usize,
        ms: u64,
    },
    /// The next APPENDs are refused before, or acknowledged by a NACK after they were taken.
    FailBefore {
        node: usize,
        frames: u32,
    },
    FailAfter {
        node: usize,
        frames: u32,
    },
    Wipe {
        node: usize,
    },
    Disk {
        working: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..4_usize;
    let ack = || prop_oneof![Just(AckLevel::Stored), Just(AckLevel::Received)];
    let timeout = prop_oneof![Just(None), Just(Some(0)), (1..2000_u64).prop_map(Some)];
    prop_oneof![
        8 => (0..3_u64, 1..6_u64, prop::option::of(1..5_u16), ack(), timeout).prop_map(
            |(from, count, concern, ack, timeout_ms)| Step::Append {
                from, count, concern, ack, timeout_ms
            }),
        1 => (0..3_u64, any::<u8>(), 1..5_u16, ack(), 0..2000_u64).prop_map(
            |(from, share, concern, ack, timeout_ms)| Step::Wait {
                from, share, concern, ack, timeout_ms
            }),
        8 => (0..200_u64).prop_map(|ms| Step::Pass { ms }),
        1 => (200..2500_u64).prop_map(|ms| Step::Pass { ms }),
        1 => (0..3_u64).prop_map(|connection| Step::Gone { connection }),
        1 => (0..1500_u64).prop_map(|ms| Step::Stall { ms }),
        2 => node.clone().prop_map(|node| Step::Break { node }),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, yes)| Step::Reachable { node, yes }),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, yes)| Step::Frozen { node, yes }),
        2 => (node.clone(), 0..400_u64).prop_map(|(node, ms)| Step::Delay { node, ms }),
        2 => (node.clone(), 1..4_u32).prop_map(|(node, frames)| Step::FailBefore { node, frames }),
        2 => (node.clone(), 1..4_u32).prop_map(|(node, frames)| Step::FailAfter { node, frames }),
        1 => node.prop_map(|node| Step::Wipe { node }),
        1 => any::<bool>().prop_map(|working| Step::Disk { working }),
    ]
}

/// A frame, or the end of a connection, on its way.
#[derive(Clone, Debug)]
enum Frame {
    Hello { hello: MasterHello },
    Append { run: Run, commit: Seq },
    Heartbeat { commit: Seq },
    Closed,
    Welcome { facts: HelloFacts, leading: bool },
    Refuse { code: RefuseCode, epoch: Epoch },
    Ack { facts: AckFacts },
    Nack,
    HeartbeatAck,
    Unreachable,
}

#[derive(Clone, Debug)]
struct Run {
    range: SeqRange,
    before: PrefixId,
    entries: Vec<PrefixId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Master,
    Secondary,
}

struct Delivery {
    node: usize,
    session: SessionId,
    to: To,
    frame: Frame,
}

struct Node {
    engine: Secondary,
    log: Vec<PrefixId>,
    held: BTreeMap<Seq, Run>,
    reachable: bool,
    frozen: bool,
    inbox: VecDeque<Delivery>,
    delay: Duration,
    fail_before: u32,
    fail_after: u32,
    /// The connection as the network sees it, while it is not broken.
    session: Option<SessionId>,
    /// Whether the master has taken the answer on it.
    introduced: bool,
    /// So that frames of one direction never overtake each other.
    latest: BTreeMap<To, Time>,
    /// What it lost when it was wiped, until the master learns of it with its next promise.
    lost_stored: Seq,
    /// What it held back when its connection ended, until the master learns of that.
    lost_held: Vec<SeqRange>,
}

impl Node {
    fn new() -> Self {
        Node {
            engine: Secondary::default(),
            log: Vec::new(),
            held: BTreeMap::new(),
            reachable: true,
            frozen: false,
            inbox: VecDeque::new(),
            delay: Duration::from_millis(1),
            fail_before: 0,
            fail_after: 0,
            session: None,
            introduced: false,
            latest: BTreeMap::new(),
            lost_stored: Seq::ZERO,
            lost_held: Vec::new(),
        }
    }

    fn prefix_id(&self, at: Seq) -> PrefixId {
        prefix_id(&self.log, at).expect("the own position is in the log")
    }

    /// Whether it holds an entry, or held it and nobody could tell the master yet that it was lost.
    fn holds(&self, seq: Seq, ack: AckLevel) -> bool {
        let stored = seq <= self.engine.stored().max(self.lost_stored);
        let held = || self.engine.held().holds(seq).0;
        let lost = || self.lost_held.iter().any(|range| range.contains(seq));
        stored || ack == AckLevel::Received && (seq <= self.engine.written() || held() || lost())
    }
}

fn prefix_id(log: &[PrefixId], at: Seq) -> Option<PrefixId> {
    match at.number().checked_sub(1) {
        None => Some(PrefixId::EMPTY),
        Some(index) => log.get(index as usize).copied(),
    }
}

/// A run of appends, or a wait, and which of its entries were answered.
#[derive(Debug)]
struct Request {
    range: SeqRange,
    need: usize,
    ack: AckLevel,
    deadline: Option<Time>,
    answered: Vec<bool>,
    gone: bool,
}

struct World {
    now: Time,
    master: Master,
    log: Vec<PrefixId>,
    nodes: Vec<Node>,
    disk_works: bool,
    to_sync: Seq,
    deliveries: BTreeMap<(Time, u64), Delivery>,
    next_delivery: u64,
    sessions: u64,
    requests: BTreeMap<Token, Request>,
    next_slot: u64,
    commit: Seq,
    /// How many answers there were, by verdict: a schedule that proves nothing is seen.
    met: u64,
}

impl World {
    fn new(nodes: usize, quorum: usize, window_bytes_max: usize) -> Self {
        let config = MasterConfig {
            nodes,
            quorum,
            write_concern: WriteConcern::All,
            ack: AckLevel::Stored,
            timeout: Timeout::Forever,
            heartbeat_interval: HEARTBEAT,
            suspected_after: 2,
            unhealthy_after: 5,
            attempt_timeout: ATTEMPT_TIMEOUT,
            retry_delays: [100, 200, 500].map(Duration::from_millis).into(),
            window_bytes_max,
            bootstrap: false,
            accept_data_loss: None,
        };
        World {
            now: Time::ZERO,
            master: Master::new(
                config,
                RunId::new(7),
                LogId::new([1; 16]),
                OwnLog::default(),
                Time::ZERO,
            ),
            log: Vec::new(),
            nodes: (1..nodes).map(|_| Node::new()).collect(),
            disk_works: true,
            to_sync: Seq::ZERO,
            deliveries: BTreeMap::new(),
            next_delivery: 0,
            sessions: 0,
            requests: BTreeMap::new(),
            next_slot: 0,
            commit: Seq::ZERO,
            met: 0,
        }
    }

    // ---- steps ----

    fn take(&mut self, step: &Step) {
        let count = self.nodes.len();
        match *step {
            Step::Append { from, count, concern, ack, timeout_ms } => {
                self.append(from, count, concern, ack, timeout_ms);
            }
            Step::Wait { from, share, concern, ack, timeout_ms } => {
                self.wait(from, share, concern, ack, timeout_ms);
            }
            Step::Gone { connection } => {
                self.master.handle_gone(connection);
                let of = self.requests.iter_mut().filter(|(t, _)| t.connection == connection);
                of.for_each(|(_, request)| request.gone = true);
            }
            Step::Pass { ms } => self.pass(Duration::from_millis(ms)),
            Step::Stall { ms } => self.now = self.now.after(Duration::from_millis(ms)),
            Step::Break { node } => self.break_connection(node % count),
            Step::Reachable { node, yes } => {
                self.nodes[node % count].reachable = yes;
                if !yes {
                    self.break_connection(node % count);
                }
            }
            Step::Frozen { node, yes } => self.freeze(node % count, yes),
            Step::Delay { node, ms } => self.nodes[node % count].delay = Duration::from_millis(ms),
            Step::FailBefore { node, frames } => self.nodes[node % count].fail_before = frames,
            Step::FailAfter { node, frames } => self.nodes[node % count].fail_after = frames,
            Step::Wipe { node } => self.wipe(node % count),
            Step::Disk { working } => self.set_disk(working),
        }
        self.carry_out();
        self.check();
    }

    fn append(
        &mut self,
        connection: u64,
        count: u64,
        concern: Option<u16>,
        ack: AckLevel,
        timeout_ms: Option<u64>,
    ) {
        let (token, submission) = self.submission(connection, count, concern, ack, timeout_ms);
        let last = self.master.last();
        let normal = self.master.mode() == Mode::Normal;
        let nodes = self.nodes.len() + 1;
        let need = concern.map_or(nodes, usize::from);
        let Ok(range) = self.master.handle_append(self.now, submission) else {
            assert!(!normal || need > nodes, "refused without a reason");
            assert_eq!(self.master.last(), last, "a refusal consumes no number");
            return;
        };
        assert!(normal && need <= nodes, "accepted in spite of a reason");
        assert_eq!(range, SeqRange::with_len(last.next(), count), "numbers are dense");
        for number in range.first.number()..range.end.number() {
            let before = self.log.last().map_or(0, |id| id.digest.value());
            let digest = before.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
            self.log.push(PrefixId { epoch: self.master.epoch(), digest: Digest::new(digest) });
        }
        self.expect_answers(token, range, need, ack, timeout_ms);
        self.master.handle_written(self.now, range.last());
    }

    fn wait(&mut self, connection: u64, share: u8, concern: u16, ack: AckLevel, timeout_ms: u64) {
        let seq = Seq::new(self.master.last().number() * u64::from(share) / 256);
        let timeout_ms = Some(timeout_ms);
        let (token, submission) = self.submission(connection, 1, Some(concern), ack, timeout_ms);
        if self.master.handle_wait(self.now, seq, submission).is_ok() {
            let range = SeqRange::with_len(seq, 1);
            self.expect_answers(token, range, usize::from(concern), ack, timeout_ms);
        }
    }

    fn submission(
        &mut self,
        connection: u64,
        count: u64,
        concern: Option<u16>,
        ack: AckLevel,
        timeout_ms: Option<u64>,
    ) -> (Token, Submission) {
        self.next_slot += 1;
        let token = Token { connection, slot: self.next_slot };
        let concern = concern.and_then(NonZeroU16::new).map(WriteConcern::Nodes);
        let timeout = timeout_ms.map(|ms| Timeout::For(Duration::from_millis(ms)));
        (
            token,
            Submission { token, count, options: WaitOptions { concern, ack: Some(ack), timeout } },
        )
    }

    fn expect_answers(
        &mut self,
        token: Token,
        range: SeqRange,
        need: usize,
        ack: AckLevel,
        timeout_ms: Option<u64>,
    ) {
        let deadline = timeout_ms.map(|ms| self.now.after(Duration::from_millis(ms)));
        let answered = vec![false; range.len() as usize];
        let request = Request { range, need, ack, deadline, answered, gone: false };
        self.requests.insert(token, request);
    }

    fn set_disk(&mut self, working: bool) {
        self.disk_works = working;
        if working {
            self.master.handle_stored(self.now, self.to_sync);
        }
    }

    fn freeze(&mut self, node: usize, yes: bool) {
        self.nodes[node].frozen = yes;
        while !self.nodes[node].frozen
            && let Some(delivery) = self.nodes[node].inbox.pop_front()
        {
            self.deliver(delivery);
        }
    }

    /// Its process ends and starts again with an empty log.
    fn wipe(&mut self, node: usize) {
        self.break_connection(node);
        self.end_of_session(node);
        let old = &mut self.nodes[node];
        let lost_stored = old.lost_stored.max(old.engine.stored());
        let lost_held = std::mem::take(&mut old.lost_held);
        let (reachable, delay, latest) =
            (old.reachable, old.delay, std::mem::take(&mut old.latest));
        *old = Node { reachable, delay, latest, lost_stored, lost_held, ..Node::new() };
    }

    // ---- the network ----

    fn post(&mut self, node: usize, session: SessionId, to: To, frame: Frame) {
        let of = &mut self.nodes[node];
        let at = self.now.after(of.delay).max(of.latest.get(&to).copied().unwrap_or_default());
        of.latest.insert(to, at);
        self.next_delivery += 1;
        let delivery = Delivery { node, session, to, frame };
        self.deliveries.insert((at, self.next_delivery), delivery);
    }

    fn break_connection(&mut self, node: usize) {
        let Some(session) = self.nodes[node].session.take() else { return };
        let introduced = std::mem::take(&mut self.nodes[node].introduced);
        let end = if introduced { Frame::Closed } else { Frame::Unreachable };
        self.post(node, session, To::Master, end);
        self.post(node, session, To::Secondary, Frame::Closed);
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { node, session, to, frame } = delivery;
        let of = &mut self.nodes[node];
        let ends = matches!(frame, Frame::Closed | Frame::Unreachable);
        if of.session != Some(session) && !ends {
            return; // Lost with its connection.
        }
        match to {
            To::Secondary if of.frozen => {
                of.inbox.push_back(Delivery { node, session, to, frame });
            }
            To::Secondary => self.deliver_to_secondary(node, session, frame),
            To::Master => self.deliver_to_master(node, session, frame),
        }
        self.carry_out();
        self.check();
    }

    fn deliver_to_master(&mut self, node: usize, session: SessionId, frame: Frame) {
        let (now, from) = (self.now, NodeIndex::secondary(node));
        self.master.handle_heard(now, from, session);
        match frame {
            Frame::Welcome { mut facts, leading } => {
                facts.ours = prefix_id(&self.log, facts.stored);
                self.nodes[node].introduced = true;
                if leading {
                    self.nodes[node].lost_stored = Seq::ZERO;
                    self.nodes[node].lost_held.clear();
                }
                self.master.handle_introduced(now, from, session, facts, leading);
            }
            Frame::Refuse { code, epoch } => self.master.handle_refused(from, session, code, epoch),
            Frame::Ack { facts } => self.master.handle_ack(now, from, session, facts),
            Frame::Nack => self.master.handle_nack(now, from, session, None),
            Frame::Closed => {
                self.nodes[node].lost_held.clear();
                self.master.handle_disconnected(from, session);
            }
            Frame::Unreachable => self.master.handle_dial_failed(now, from),
            Frame::HeartbeatAck => {}
            frame => panic!("not for the master: {frame:?}"),
        }
    }

    fn deliver_to_secondary(&mut self, node: usize, session: SessionId, frame: Frame) {
        let of = &mut self.nodes[node];
        match frame {
            Frame::Hello { hello } => {
                let frame = match of.engine.handle_hello(session, hello) {
                    Err(code) => Frame::Refuse { code, epoch: of.engine.epoch() },
                    Ok(()) => Frame::Welcome {
                        facts: HelloFacts {
                            log_id: of.engine.log_id(),
                            epoch: of.engine.epoch(),
                            run_id: of.engine.run_id(),
                            stored: of.engine.stored(),
                            tail: of.prefix_id(of.engine.stored()),
                            settled: of.engine.settled(of.prefix_id(of.engine.stored()).epoch),
                            ours: None,
                            commit: of.engine.levels().commit,
                            vouches: of.engine.vouches(),
                            common: of.engine.stored(),
                        },
                        leading: hello.epoch > Epoch::ZERO,
                    },
                };
                self.post(node, session, To::Master, frame);
            }
            Frame::Append { run, commit } => {
                if of.fail_before > 0 {
                    of.fail_before -= 1;
                    return self.post(node, session, To::Master, Frame::Nack);
                }
                assert!(of.engine.admits(session, Epoch::new(1)), "one master, one epoch");
                if self.arrive(node, session, &run) {
                    self.nodes[node].engine.handle_levels(session, commit, vec![commit]);
                }
                self.carry_out_secondary(node, Some(run));
                let of = &mut self.nodes[node];
                if of.fail_after > 0 {
                    of.fail_after -= 1;
                    of.engine.withhold_ack();
                    return self.post(node, session, To::Master, Frame::Nack);
                }
            }
            Frame::Heartbeat { commit } => {
                of.engine.handle_levels(session, commit, vec![commit]);
                self.post(node, session, To::Master, Frame::HeartbeatAck);
            }
            Frame::Closed if of.engine.session() == Some(session) => self.end_of_session(node),
            Frame::Closed => {}
            frame => panic!("not for a secondary: {frame:?}"),
        }
        self.carry_out_secondary(node, None);
    }

    fn end_of_session(&mut self, node: usize) {
        let of = &mut self.nodes[node];
        of.lost_held.extend(of.engine.held().iter());
        if let Some(session) = of.engine.session() {
            of.engine.handle_disconnected(session);
        }
        self.carry_out_secondary(node, None);
    }

    fn arrive(&mut self, node: usize, session: SessionId, run: &Run) -> bool {
        let of = &mut self.nodes[node];
        let common = of.engine.written().min(run.range.last());
        let overlap = (run.range.first <= common).then(|| {
            let theirs = run.entries[common.distance_from(run.range.first) as usize];
            (theirs, of.prefix_id(common))
        });
        let tail = run.entries[run.entries.len() - 1];
        let bytes = run.entries.len() * ENTRY_BYTES;
        let arrival = Arrival { range: run.range, before: run.before, tail, bytes, overlap };
        of.engine.handle_arrival(session, arrival)
    }

    fn carry_out_secondary(&mut self, node: usize, mut current: Option<Run>) {
        while let Some(effect) = self.nodes[node].engine.poll_effect() {
            let of = &mut self.nodes[node];
            match effect {
                SecondaryEffect::Append { range } => {
                    let run = current.take().expect("only what just arrived is appended");
                    let skip = range.first.distance_from(run.range.first) as usize;
                    assert_eq!(range.first.number(), of.log.len() as u64 + 1, "no hole");
                    of.log.extend(&run.entries[skip..]);
                    let there = of.log.len();
                    assert!(
                        self.log.get(..there) == Some(&of.log[..]),
                        "no prefix of the master's"
                    );
                    of.engine.handle_written(range.last());
                }
                SecondaryEffect::Hold { range } => {
                    let run = current.take().expect("only what just arrived is held");
                    of.held.insert(range.first, run);
                }
                SecondaryEffect::Release { first } => {
                    let run = of.held.remove(&first).expect("what is held is there");
                    let session = of.engine.session().expect("runs are held for a session");
                    self.arrive(node, session, &run);
                    current = Some(run);
                }
                SecondaryEffect::DropHeld => of.held.clear(),
                SecondaryEffect::MakeDurable { up_to } => of.engine.handle_stored(up_to),
                SecondaryEffect::Nack { session, code, .. } => {
                    assert_eq!(code, NackCode::HoldBackFull, "one master never contradicts itself");
                    self.post(node, session, To::Master, Frame::Nack);
                }
                // The old connection is broken already: the master has only one at a time.
                SecondaryEffect::Close { code, .. } => assert_eq!(code, RefuseCode::Replaced),
                SecondaryEffect::Keep { .. } => {}
                SecondaryEffect::SetAside { .. } | SecondaryEffect::Reconnect { .. } => {
                    panic!("one master, one history")
                }
                SecondaryEffect::Ack { .. } => unreachable!("ACKs come by poll_ack"),
            }
        }
        if let Some(SecondaryEffect::Ack { session, stored, received, held, duplicates }) =
            self.nodes[node].engine.poll_ack()
        {
            let facts = AckFacts { stored, received, held, duplicates };
            self.post(node, session, To::Master, Frame::Ack { facts });
        }
    }

    // ---- the master's effects ----

    fn carry_out(&mut self) {
        while let Some(effect) = self.master.poll_effect() {
            match effect {
                Effect::Dial { to } => self.dial(position(to)),
                Effect::Introduce { to, session } => self.introduce(position(to), session),
                Effect::Heartbeat { to, session } => {
                    let commit = self.master.levels().commit;
                    self.post(position(to), session, To::Secondary, Frame::Heartbeat { commit });
                }
                Effect::Send { to, session, range, bytes_max, .. } => {
                    self.send(to, session, range, bytes_max);
                }
                Effect::MakeDurable { up_to } => {
                    self.to_sync = up_to;
                    if self.disk_works {
                        self.master.handle_stored(self.now, up_to);
                    }
                }
                Effect::Answer(answer) => self.answer(answer),
                Effect::Close { code, .. } => panic!("a secondary was refused: {code}"),
                Effect::Deposed { by, .. } => panic!("deposed by {by:?}"),
                Effect::SetAside { .. } | Effect::Fetch { .. } | Effect::Align { .. } => {
                    panic!("one master, one history")
                }
                Effect::Keep { .. }
                | Effect::BeginReign { .. }
                | Effect::BeginHistory { .. }
                | Effect::HealthChanged { .. }
                | Effect::ModeChanged { .. }
                | Effect::AttemptFailed { .. }
                | Effect::Following { .. } => {}
            }
        }
    }

    fn dial(&mut self, node: usize) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        if !self.nodes[node].reachable {
            return self.post(node, session, To::Master, Frame::Unreachable);
        }
        self.nodes[node].session = Some(session);
        self.nodes[node].introduced = false;
        self.introduce(node, session);
    }

    fn introduce(&mut self, node: usize, session: SessionId) {
        let (log_id, epoch) = (self.master.log_id(), self.master.epoch());
        let begins = Some(Seq::FIRST);
        let hello = MasterHello { log_id, epoch, run_id: self.master.run_id(), begins };
        self.post(node, session, To::Secondary, Frame::Hello { hello });
    }

    fn send(&mut self, to: NodeIndex, session: SessionId, range: SeqRange, bytes_max: usize) {
        let count = range.len().min((bytes_max / ENTRY_BYTES).max(1) as u64);
        let range = SeqRange::with_len(range.first, count);
        let before = prefix_id(&self.log, range.first.previous()).expect("what is before is there");
        let at = |seq: Seq| seq.number() as usize - 1;
        let entries = self.log[at(range.first)..at(range.end)].to_vec();
        let run = Run { range, before, entries };
        let commit = self.master.levels().commit;
        self.post(position(to), session, To::Secondary, Frame::Append { run, commit });
        let bytes = count as usize * ENTRY_BYTES;
        self.master.handle_sent(self.now, to, session, range, bytes);
        self.master.handle_flushed(self.now, to, session, range.last(), 1);
    }

    fn answer(&mut self, answer: Answer) {
        let Answer { token, offset, range, need, holders, verdict, .. } = answer;
        let request = self.requests.get_mut(&token).expect("somebody waits for the answer");
        assert!(!request.gone, "whoever is gone gets no answer: {answer:?}");
        assert_eq!((need, range.first.distance_from(request.range.first)), (request.need, offset));
        let part = &mut request.answered[offset as usize..][..range.len() as usize];
        assert!(!part.contains(&true), "answered twice: {answer:?}");
        part.fill(true);
        let ack = request.ack;
        match verdict {
            Verdict::Met => {
                self.met += range.len();
                assert!(holders.len() >= need, "OK too early: {answer:?}");
            }
            Verdict::Waiting => {
                assert!(holders.len() < need, "PENDING though it is met: {answer:?}");
                assert!(request.deadline.is_some_and(|due| due <= self.now), "PENDING too early");
                assert!(self.disk_works || range.last() <= self.master.levels().held_by(1));
            }
            Verdict::Unknown => panic!("nobody deposed this master"),
        }
        for number in range.first.number()..range.end.number() {
            for (position, node) in self.nodes.iter().enumerate() {
                let claimed = holders.contains(NodeIndex::secondary(position));
                let seq = Seq::new(number);
                assert!(!claimed || node.holds(seq, ack), "s{} lacks {seq}", position + 1);
            }
        }
    }

    // ---- time ----

    /// Lets time pass from one event to the next.
    fn pass(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            let arrives = self.deliveries.first_key_value().map(|(&(at, _), _)| at);
            let due = self.master.poll_timeout();
            let Some(next) = [arrives, due].into_iter().flatten().min().filter(|&at| at <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            if due.is_some_and(|due| due <= self.now) {
                self.master.handle_timeout(self.now);
                self.carry_out();
                self.check();
                let due = self.master.poll_timeout();
                assert!(due.is_none_or(|due| due > self.now), "it would be due for ever");
            } else if let Some((_, delivery)) = self.deliveries.pop_first() {
                self.deliver(delivery);
            }
        }
        self.now = self.now.max(end);
        self.check_deadlines();
    }

    fn heal(&mut self) {
        for node in 0..self.nodes.len() {
            let of = &mut self.nodes[node];
            (of.fail_before, of.fail_after) = (0, 0);
            (of.reachable, of.delay) = (true, Duration::from_millis(1));
            self.freeze(node, false);
        }
        self.set_disk(true);
        self.carry_out();
        self.check();
        self.pass(HEALING);
    }

    // ---- checks ----

    fn check(&mut self) {
        let levels = self.master.levels();
        assert!(levels.commit >= self.commit, "commit fell");
        assert!(levels.held_by.is_sorted_by(|a, b| a >= b), "more nodes hold no more");
        let rose = levels.commit > self.commit;
        self.commit = levels.commit;
        let holds = |node: &&Node| node.holds(self.commit, AckLevel::Stored);
        let have = 1 + self.nodes.iter().filter(holds).count();
        assert!(!rose || have >= majority(self.nodes.len() + 1), "committed by {have}");
        self.master.secondaries().iter().for_each(|progress| progress.check_invariants());
        for node in &self.nodes {
            assert_eq!(node.engine.written().number(), node.log.len() as u64);
            assert_eq!(node.engine.written(), node.engine.stored(), "stored at once");
            let held = RangeSet::of(node.held.values().map(|run| run.range));
            assert_eq!(node.engine.held(), held, "the engine knows what is held back");
        }
    }

    fn check_deadlines(&self) {
        let stored = self.master.levels().held_by(1);
        for (token, request) in self.requests.iter().filter(|(_, request)| !request.gone) {
            let over = request.deadline.is_some_and(|due| due < self.now);
            let late = over && request.range.last() <= stored;
            assert!(!late || !request.answered.contains(&false), "{token:?} waits too long");
        }
    }

    fn check_healed(&self) {
        let last = self.master.last();
        assert_eq!(self.master.mode(), Mode::Normal);
        assert_eq!(last.number(), self.log.len() as u64);
        for (node, progress) in self.nodes.iter().zip(self.master.secondaries()) {
            assert_eq!(node.engine.stored(), last, "a secondary did not catch up");
            assert_eq!((progress.stored, progress.inflight_bytes()), (last, 0));
            assert_eq!((progress.attempts(), progress.retry_at()), (0, None));
        }
        assert_eq!(self.master.levels().held_by, vec![last; self.nodes.len() + 1]);
        assert_eq!((self.commit, self.master.waiting()), (last, 0));
        for (token, request) in self.requests.iter().filter(|(_, request)| !request.gone) {
            assert!(!request.answered.contains(&false), "{token:?} got no answer: {request:?}");
        }
    }
}

fn position(node: NodeIndex) -> usize {
    node.secondary_position().expect("the master has no connection to itself")
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES=256, its default, means 1,024 of these small ones.
        cases: 4 * ProptestConfig::default().cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/engine_properties.regressions"
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_nothing_is_promised_that_is_not_so_and_all_heals(
        nodes in 2..5_usize,
        quorum in 1..5_usize,
        window_bytes_max in prop_oneof![Just(1), 100..3000_usize, Just(1 << 20)],
        served in any::<bool>(),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(nodes, quorum.min(nodes), window_bytes_max);
        if served {
            world.pass(Duration::from_millis(50));
            prop_assert_eq!(world.master.mode(), Mode::Normal);
        }
        steps.iter().for_each(|step| world.take(step));
        world.heal();
        world.check_healed();
    }
}

/// A schedule without trouble proves that the harness lets appends through.
#[test]
fn without_trouble_every_append_is_met_within_two_delays() {
    let mut world = World::new(3, 2, 1 << 20);
    world.pass(Duration::from_millis(50));
    for _ in 0..10 {
        world.append(1, 5, None, AckLevel::Stored, None);
        world.carry_out();
    }
    world.pass(Duration::from_millis(2));
    assert_eq!(world.met, 50);
    world.check_healed();
}
