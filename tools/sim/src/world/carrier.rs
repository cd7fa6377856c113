//! The simulator as a carrier of nodes: what `runtime::driver` does with tokio, over a played network.
//!
//! No rule of a node is in here. It tells a node what happened, lets it decide step by step, looks at
//! each step ([`super::observe`]), and does what the node asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use replog::engine::SessionId;
use replog::node::Storage as _;
use replog::node::client::{AppendRun, Payloads};
use replog::node::faults::Faults;
use replog::node::master::{Beginnings, DialFailure};
use replog::node::{self, Failure, Machine, Output};
use replog::store::StoreError;
use replog::store::provisional::SharedProvisional;
use replog::types::{RunId, Time, WaitOptions};

use super::clients::payload;
use super::net::Dialled;
use super::process::{Socket, Sockets, about, index};
use super::store::SimStore;
use super::{Event, Input, World};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::sometimes::Sometimes;

/// The longest that work on files takes.
const WORK_US_MAX: u64 = 5_000_000;

/// A master's process over the log that it found.
pub(super) fn new_master(
    plan: &Plan,
    life: u32,
    store: SimStore,
    first_session: u64,
    now: u64,
) -> node::MasterNode<SimStore> {
    let mut ids = match life {
        0 => Rng::keyed(&[plan.seed, 13]),
        _ => Rng::keyed(&[plan.seed, 13, u64::from(life)]),
    };
    let log_id = u128::from(ids.next()) << 64 | u128::from(ids.next());
    let secondaries = (1..plan.setup.nodes).map(about).map(|it| (it.id, it.advertise));
    let beginnings = Beginnings {
        config: super::master_config(plan),
        run_id: RunId::new(ids.next() | 1),
        log_id: replog::types::LogId::new(log_id.to_le_bytes()),
        secondaries: secondaries.collect(),
        first_session,
    };
    node::MasterNode::new(about(0), beginnings, store, Time::from_micros(now))
}

/// A secondary's process over the log that it found.
pub(super) fn new_secondary(
    plan: &Plan,
    node: usize,
    life: u32,
    store: SimStore,
) -> node::SecondaryNode<SimStore> {
    let seed = Rng::keyed(&[plan.seed, 11, node as u64, u64::from(life)]).next();
    let interval = Duration::from_millis(plan.setup.heartbeat_ms);
    let faults = Faults::new(Duration::ZERO, seed);
    node::SecondaryNode::new(about(node), interval, faults, (store, SharedProvisional::default()))
}

impl World {
    pub(super) fn machine(&mut self, node: usize) -> &mut dyn Machine {
        match node {
            0 => &mut self.master.node,
            _ => &mut self.secondaries[node - 1].node,
        }
    }

    fn sockets(&mut self, node: usize) -> &mut Sockets {
        match node {
            0 => &mut self.master.sockets,
            _ => &mut self.secondaries[node - 1].sockets,
        }
    }

    /// One turn of a node's process: what is due, what came in, what was decided.
    pub(super) fn node_turn(&mut self, node: usize) {
        // Where the power failed nothing goes on, whether or not the log has noticed.
        if self.disks[node].as_ref().is_some_and(|disk| disk.fs.is_dead()) {
            self.hosts[node].failed = true;
            return;
        }
        self.sync_ended(node);
        let now = Time::from_micros(self.now);
        self.watch(node, |world| world.machine(node).begin_turn(now));
        for _ in 0..super::INPUTS_PER_TURN {
            let Some(input) = self.hosts[node].inbox.pop_front() else { break };
            if self.machine(node).failure().is_none() {
                self.take(now, node, input);
            }
        }
        self.sessions_read();
        loop {
            let mut more = true;
            while more {
                self.watch(node, |world| more = world.machine(node).step(now));
            }
            let Some(output) = self.machine(node).poll_output() else { break };
            self.carry_out(now, node, output);
        }
        match self.machine(node).failure().cloned() {
            None => {}
            Some(Failure::Deposed { .. }) => self.master.deposed = true,
            Some(failure) => return self.failed(node, &failure),
        }
        self.begin_sync(node);
        self.begin_work(node);
        if node == 0 {
            self.deliver_replies();
            self.master.node.show(&mut self.master.view);
            self.sessions_look();
        } else {
            let own = &mut self.secondaries[node - 1];
            own.node.show(&mut own.view);
        }
    }

    /// The node cannot go on: nobody hears what this turn decided.
    fn failed(&mut self, node: usize, failure: &Failure) {
        self.tell(node, "failed", 0, 0, || failure.to_string());
        if let Failure::SyncFailed(_) = failure {
            self.seen.note(Sometimes::SyncFailed);
        }
        if let Failure::Store(StoreError::NotContiguous { .. } | StoreError::Unfit { .. }) = failure
        {
            self.fail("what is appended continues the log", format!("n{node}: {failure}"));
        }
        self.hosts[node].failed = true;
    }

    fn take(&mut self, now: Time, node: usize, input: Input) {
        match input {
            Input::Append { request } => self.take_append(now, request),
            Input::Wait { request } => {
                let (token, options) = self.asked(request);
                let Some(seq) = self.requests[request].wait_for else { return };
                let handle = |world: &mut World| {
                    world.master.node.handle_wait(now, token, seq, options);
                };
                self.watch(0, handle);
            }
            Input::ClientGone { connection } => {
                self.master.node.handle_gone(connection);
                self.session_gone(connection);
                self.requests_gone(connection);
            }
            Input::Bytes { client, connection, bytes } => {
                self.take_bytes(client, connection, &bytes);
            }
            Input::Request { connection, request } => {
                self.take_request(now, connection, *request);
            }
            Input::Answer { connection, answer } => self.take_answer(connection, *answer),
            Input::Dialled { dial, result } => self.take_dialled(now, dial, result),
            Input::Accepted { conn, hello } => {
                let own = &mut self.secondaries[node - 1];
                let session = SessionId(own.next_session);
                own.next_session += 1;
                self.take_over(node, session, conn);
                let handle = |world: &mut World| {
                    world.secondaries[node - 1].node.handle_accepted(now, session, &hello);
                };
                self.watch(node, handle);
            }
            Input::Messages { session, messages } => {
                if !self.machine(node).handle_heard(now, session) {
                    return self.seen.note(Sometimes::OldSession);
                }
                for message in messages {
                    self.foresee(node, session, &message);
                    self.watch(node, |world| {
                        world.machine(node).handle_message(now, session, message);
                    });
                }
            }
            Input::Closed { session, refuse, reason } => {
                self.watch(node, |world| {
                    world.machine(node).handle_closed(now, session, refuse, reason);
                });
            }
            Input::Writable { session } => {
                if let Some(socket) = self.sockets(node).0.get_mut(&session) {
                    socket.is_full = false;
                }
                self.write(now, node, session);
            }
            Input::ColdRead { peer, session, asked } => {
                let log = self.store(node).log().reader();
                let mut slice = log.read(asked.range, asked.bytes_max);
                if slice.before.is_none() {
                    slice.before = log.prefix_id(asked.range.first.previous());
                }
                self.seen.note(Sometimes::ColdRead);
                self.watch(node, |world| {
                    world.machine(node).handle_read(now, peer, session, asked, slice);
                });
            }
        }
    }

    fn asked(&self, id: usize) -> (replog::engine::Token, WaitOptions) {
        let request = &self.requests[id];
        let token = replog::engine::Token { connection: request.connection, slot: id as u64 };
        (token, request.options)
    }

    fn take_append(&mut self, now: Time, id: usize) {
        let (token, options) = self.asked(id);
        let (count, size) = (u64::from(self.requests[id].count), self.requests[id].size);
        let lines = (0..count).map(|entry| Bytes::from(payload(id, entry, size))).collect();
        let run = AppendRun { slot: token.slot, options, payloads: Payloads::Lines(lines) };
        let wall_ms = self.wall_ms(0);
        self.watch(0, |world| {
            world.master.node.handle_append(now, wall_ms, token.connection, run);
        });
    }

    fn take_dialled(&mut self, now: Time, dial: usize, result: Dialled) {
        let (to, session) = (self.dials[dial].to, self.dials[dial].session);
        let result = match result {
            Dialled::Introduced { conn, hello } => {
                self.tell(0, "connected", to as u64, conn as u64, || format!("n{to} conn {conn}"));
                self.take_over(0, session, conn);
                Ok(*hello)
            }
            Dialled::Refused(refuse) => {
                self.tell(0, "refused", to as u64, refuse.epoch, || {
                    format!("by n{to}: {} {}", refuse.code, refuse.reason)
                });
                Err(DialFailure::Refused(refuse))
            }
            Dialled::Unreachable => {
                self.tell(0, "no-answer", to as u64, 0, || format!("of n{to}"));
                Err(DialFailure::Unreachable("unreachable".to_owned()))
            }
        };
        self.watch(0, |world| {
            world.master.node.handle_dialled(now, index(to), session, result);
        });
    }

    fn take_over(&mut self, node: usize, session: SessionId, conn: usize) {
        let side = usize::from(node > 0);
        self.conns[conn].sessions[side] = session;
        self.sockets(node).0.insert(session, Socket { conn, is_full: false });
        self.start_reading(conn, side);
    }

    fn carry_out(&mut self, now: Time, node: usize, output: Output) {
        match output {
            Output::Write { session } => self.write(now, node, session),
            Output::Close { session, last_words } => {
                let Some(socket) = self.sockets(node).0.remove(&session) else { return };
                let side = usize::from(node > 0);
                if let Some(words) = last_words {
                    // Broken or full: then there are no last words.
                    let room = self.socket_room(socket.conn, side).unwrap_or(0);
                    let mut bytes = BytesMut::new();
                    words.slices().iter().for_each(|slice| bytes.extend_from_slice(slice));
                    bytes.truncate(room);
                    self.socket_write(socket.conn, side, bytes.freeze());
                }
                self.close_end(socket.conn, side, false);
            }
            Output::Dial { to, session, hello, .. } => self.dial(to.as_usize(), session, *hello),
            Output::Read { peer, session, asked } => {
                let host = &mut self.hosts[node];
                let (life, takes) = (host.life, 1 + host.rng.below(2000) + host.disk_slow_by);
                let input = Input::ColdRead { peer, session, asked };
                self.queue.push(self.now + takes, Event::Input { node, life, input });
            }
        }
    }

    /// Writes what a node has to say on a connection.
    fn write(&mut self, now: Time, node: usize, session: SessionId) {
        let side = usize::from(node > 0);
        while let Some(&Socket { conn, is_full: false }) = self.sockets(node).0.get(&session) {
            let room = match self.socket_room(conn, side) {
                Ok(room) => room,
                Err(reason) => {
                    return self.watch(node, |world| {
                        world.machine(node).handle_closed(now, session, None, reason);
                    });
                }
            };
            let Some(queue) = self.machine(node).queue(session) else { return };
            let (waiting, entries) = (queue.bytes(), queue.entry_frames());
            if waiting == 0 {
                return;
            }
            let overtakes = queue.len() > entries && entries > 0;
            let mut bytes = BytesMut::with_capacity(room.min(waiting));
            for slice in queue.slices() {
                bytes.extend_from_slice(&slice[..slice.len().min(room - bytes.len())]);
            }
            self.check_kept(node);
            if entries > replog::limits::LINK_FRAMES_MAX {
                self.fail("frames in a link's queue are bounded", format!("{entries} on n{node}"));
            }
            let taken = bytes.len();
            self.socket_write(conn, side, bytes.freeze());
            if taken == room {
                self.socket_is_full(conn, side);
                if let Some(socket) = self.sockets(node).0.get_mut(&session) {
                    socket.is_full = true;
                }
                if overtakes {
                    self.seen.note(Sometimes::QueuedControl);
                }
            }
            self.watch(node, |world| world.machine(node).handle_taken(now, session, taken));
        }
    }

    fn deliver_replies(&mut self) {
        let replies: Vec<_> = self.master.node.take_replies().collect();
        // By connection: a map has no order of its own.
        let replies: BTreeMap<_, _> = replies.into_iter().collect();
        for (connection, replies) in replies {
            for reply in self.reply_to_session(connection, replies).unwrap_or_default() {
                let reply = super::clients::Reply::of(connection, &reply);
                self.send_reply(reply);
            }
        }
    }

    // ---- disks ----

    /// The sync that was under way is over, or one that takes no time is not begun.
    fn sync_ended(&mut self, node: usize) {
        let at_once = self.sync_time(node) == 0;
        let done = std::mem::take(&mut self.hosts[node].synced);
        let store = self.store(node);
        store.syncs_at_once(at_once);
        if done {
            store.synced();
            let stored = store.stored;
            self.tell(node, "stored", stored.number(), 0, || format!("up to {stored}"));
        }
    }

    fn begin_sync(&mut self, node: usize) {
        if self.store(node).begins_sync() {
            let most = self.sync_time(node);
            let begins = self.plan.setup.disk.as_ref().map_or(0, crate::plan::DiskSetup::pause_us);
            let host = &mut self.hosts[node];
            let fixed = host.disk_slow_by + begins;
            let takes = host.rng.below(most - fixed + 1) + fixed;
            let life = host.life;
            self.queue.push(self.now + takes.max(1), Event::Synced { node, life });
        }
    }

    /// A repair takes its time, in which the node goes on.
    fn begin_work(&mut self, node: usize) {
        if self.store(node).begins_work() {
            let healed = self.healed_at.is_some();
            let host = &mut self.hosts[node];
            let is_slow = host.rng.below(4) == 0 && !healed;
            let longest = if is_slow { WORK_US_MAX } else { WORK_US_MAX / 50 };
            let takes = 1 + host.rng.below(longest) + host.disk_slow_by;
            let life = host.life;
            self.queue.push(self.now + takes, Event::Worked { node, life });
        }
    }

    /// The work on a node's files is done; its process hears of it with its next turn.
    pub(super) fn worked(&mut self, node: usize, life: u32) {
        if self.hosts[node].life != life || !self.hosts[node].up {
            return;
        }
        if self.hosts[node].paused > 0 {
            return self.queue.push(self.now + 50_000, Event::Worked { node, life });
        }
        if self.store(node).work() {
            self.tell(node, "worked", 0, 0, || "on its files".to_owned());
        }
        self.wake_soon(node);
    }

    /// The longest that a sync takes.
    fn sync_time(&self, node: usize) -> u64 {
        let setup = &self.plan.setup;
        let on_disk = setup.disk.as_ref();
        let standing =
            if node == 0 || setup.sync_all || on_disk.is_some() { setup.sync_us } else { 0 };
        let begins = on_disk.map_or(0, crate::plan::DiskSetup::pause_us);
        standing + self.hosts[node].disk_slow_by + begins
    }

    pub(super) fn store(&mut self, node: usize) -> &mut SimStore {
        match node {
            0 => self.master.node.storage_mut(),
            _ => self.secondaries[node - 1].node.storage_mut(),
        }
    }

    /// When the node is to have a turn for itself.
    pub(super) fn due(&mut self, node: usize) -> Option<u64> {
        self.machine(node).poll_timeout().map(Time::micros)
    }
}
