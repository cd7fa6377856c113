//! Clients: what they ask for, what they hear and when, and what they read.

use std::num::NonZeroU16;
use std::time::Duration;

use replog::codes::Class;
use replog::engine::{Levels, Mode, Refused, Verdict};
use replog::limits::RECORD_HEADER_BYTES;
use replog::node;
use replog::node::Storage as _;
use replog::store::LogReader;
use replog::types::{AckLevel, Level, Seq, SeqRange, Timeout, WaitOptions, WriteConcern};

use super::doors::Part;
use super::speech::Door;
use super::{Event, Input, World};
use crate::plan::{self, Action, Concern, ReadLevel};
use crate::sometimes::Sometimes;

/// What became of one entry, as its client heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its number, its epoch, and who was named as holding it.
    Ok(Seq, u64, u128),
    Pending(Seq, u64, u128),
    Unknown,
    Refused,
}

/// An append or a wait.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) client: u32,
    pub(super) connection: u64,
    pub(super) count: u32,
    pub(super) size: u32,
    /// What is waited for; `None` for an append.
    pub(super) wait_for: Option<Seq>,
    pub(super) options: WaitOptions,
    /// How many nodes, if so many exist.
    pub(super) need: Option<usize>,
    pub(super) received: bool,
    pub(super) timeout_us: Option<u64>,
    /// When its client sent it, and the highest number known to be OK then.
    pub(super) sent_at: u64,
    pub(super) floor: Seq,
    /// When the master took it.
    pub(super) taken_at: Option<u64>,
    pub(super) range: Option<SeqRange>,
    /// What the master said of each entry, and what the client heard.
    pub(super) answers: Vec<Option<Verdict>>,
    pub(super) fates: Vec<Option<(u64, Fate)>>,
    pub(super) refused: bool,
    /// When the master heard that its client is gone.
    pub(super) gone: Option<u64>,
    /// Reigns begun when it was sent.
    reign: u64,
}

impl Request {
    /// The first entry without an answer.
    pub(super) fn first_open(&self) -> Option<Seq> {
        let at = self.answers.iter().position(Option::is_none)?;
        Some(self.range?.first.plus(at as u64))
    }
}

/// A reply on its way to a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) request: usize,
    connection: u64,
    offset: u64,
    count: u64,
    outcome: Heard,
}

/// What a client heard of entries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    Placed { first: Seq, epoch: u64, class: Class, by: u128 },
    Refused,
}

impl Reply {
    pub(super) fn of(connection: u64, reply: &node::client::Reply) -> Self {
        let outcome = match &reply.outcome {
            node::client::Outcome::Placed(placed) => Heard::Placed {
                first: placed.seq,
                epoch: placed.epoch.number(),
                class: placed.class,
                by: placed.holders.bits(),
            },
            node::client::Outcome::Refused(_) => Heard::Refused,
        };
        let (request, offset, count) = (reply.slot as usize, reply.offset, reply.count);
        Reply { request, connection, offset, count, outcome }
    }

    /// What was heard of entries of a request, from one of them on.
    pub(super) fn heard(
        (request, offset): (usize, u64),
        connection: u64,
        count: u64,
        outcome: Heard,
    ) -> Self {
        Reply { request, connection, offset, count, outcome }
    }
}

/// One client: its connection, and when what it sent last arrives.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) connection: u64,
    arrives: u64,
    hears: u64,
    /// Older connections ended with the master's process.
    valid_from: u64,
}

impl Client {
    pub(super) fn new(number: u32) -> Self {
        Client { connection: u64::from(number) + 1, arrives: 0, hears: 0, valid_from: 0 }
    }
}

/// The bytes of an entry: they tell whose it is.
pub(super) fn payload(request: usize, entry: u64, size: u32) -> Vec<u8> {
    let mut bytes = format!("r{request}.{entry}|").into_bytes();
    bytes.resize(size as usize, b'.');
    bytes
}

impl World {
    pub(super) fn operate(&mut self, at: usize) {
        let operation = &self.plan.operations[at];
        let (client, what) = (operation.client, operation.what);
        match what {
            Action::Append { count, size, concern, received, timeout } => {
                // A frame has room for so many.
                let count = match self.door(client) {
                    Door::Wire => count.min((1 << 20) / (size + 4)).max(1),
                    Door::None | Door::Gateway => count,
                };
                let id = self.request(client, concern, received, timeout);
                let request = &mut self.requests[id];
                (request.count, request.size) = (count, size);
                request.answers = vec![None; count as usize];
                request.fates = vec![None; count as usize];
                self.tell_client(client, "appends", id as u64, u64::from(count), || {
                    format!("r{id}: {count} of {size} bytes, {concern:?}, received={received:?}, {timeout:?}")
                });
                self.ask(client, id);
            }
            Action::Wait { share, concern, received, timeout } => {
                let seq = self.at_share(share);
                self.wait_for(client, seq, concern, received, timeout);
            }
            Action::Read { node, level, share, limit } => {
                self.read_entries(client, node, level, share, limit)
            }
            Action::Disconnect => self.disconnect(client),
        }
    }

    pub(super) fn wait_for(
        &mut self,
        client: u32,
        seq: Seq,
        concern: Concern,
        received: bool,
        timeout: plan::Timeout,
    ) -> usize {
        let id = self.request(client, concern, Some(received), timeout);
        self.requests[id].wait_for = Some(seq);
        self.tell_client(client, "waits", id as u64, seq.number(), || {
            format!("r{id}: for {seq}, {concern:?}, received={received}, {timeout:?}")
        });
        self.ask(client, id);
        id
    }

    /// A client sends a request, each in its own way.
    fn ask(&mut self, client: u32, id: usize) {
        match self.door(client) {
            Door::None => self.submit(client, Event::Submit { request: id }),
            Door::Gateway | Door::Wire => self.say(client, id),
        }
    }

    fn at_share(&self, share: u16) -> Seq {
        let last = self.master.engine().last();
        match share {
            257 => last.next(),
            share => Seq::new(last.number() * u64::from(share) / 256),
        }
    }

    fn request(
        &mut self,
        client: u32,
        concern: Concern,
        received: Option<bool>,
        timeout: plan::Timeout,
    ) -> usize {
        let setup = &self.plan.setup;
        let named = |concern| match concern {
            Concern::Default => None,
            Concern::Nodes(count) => NonZeroU16::new(count).map(WriteConcern::Nodes),
            Concern::Majority => Some(WriteConcern::Majority),
            Concern::All => Some(WriteConcern::All),
        };
        let need = named(concern).or(named(setup.concern)).and_then(|c| c.resolve(setup.nodes));
        let timeout_us = match timeout {
            plan::Timeout::Default => setup.timeout_ms.map(|ms| ms * 1000),
            plan::Timeout::Forever => None,
            plan::Timeout::Ms(ms) => Some(ms * 1000),
        };
        let asked_for = match timeout {
            plan::Timeout::Default => None,
            plan::Timeout::Forever => Some(Timeout::Forever),
            plan::Timeout::Ms(ms) => Some(Timeout::For(Duration::from_millis(ms))),
        };
        self.requests.push(Request {
            client,
            connection: self.clients[client as usize].connection,
            count: 1,
            size: 0,
            wait_for: None,
            options: WaitOptions {
                concern: named(concern),
                ack: received.map(level_of),
                timeout: asked_for,
            },
            need,
            received: received.unwrap_or(setup.received),
            timeout_us,
            sent_at: self.now,
            floor: self.confirmed,
            taken_at: None,
            range: None,
            answers: vec![None],
            fates: vec![None],
            refused: false,
            gone: None,
            reign: self.reigns,
        });
        self.requests.len() - 1
    }

    /// What a client sends arrives in the order sent.
    pub(super) fn submit(&mut self, client: u32, event: Event) {
        let way = self.client_rng.magnitude(20, 5000);
        let client = &mut self.clients[client as usize];
        client.arrives = client.arrives.max(self.now + way);
        self.queue.push(client.arrives, event);
    }

    pub(super) fn submitted(&mut self, id: usize) {
        let (client, connection) = (self.requests[id].client, self.requests[id].connection);
        if !self.reaches(client, connection) {
            return;
        }
        let input = match self.requests[id].wait_for {
            None => Input::Append { request: id },
            Some(_) => Input::Wait { request: id },
        };
        self.input(0, input);
    }

    /// Whether what a client sent on a connection comes to a process, and not to one that is no more.
    pub(super) fn reaches(&mut self, client: u32, connection: u64) -> bool {
        if !self.hosts[0].up {
            self.break_client(client);
        }
        connection >= self.clients[client as usize].valid_from
    }

    /// The master's process, and with it a client's connection, is gone.
    pub(super) fn break_client(&mut self, client: u32) {
        let connections = self.clients.len() as u64;
        let own = &mut self.clients[client as usize];
        let connection = own.connection;
        own.connection += connections;
        own.valid_from = own.connection;
        self.requests_gone(connection);
    }

    fn disconnect(&mut self, client: u32) {
        let connections = self.clients.len() as u64;
        let connection = self.clients[client as usize].connection;
        self.clients[client as usize].connection += connections;
        self.tell_client(client, "leaves", connection, 0, || format!("connection {connection}"));
        self.submit(client, Event::ClientGone { connection });
    }

    /// The master heard that a connection is gone.
    pub(super) fn requests_gone(&mut self, connection: u64) {
        let open = std::mem::take(&mut self.open);
        for &id in &open {
            let request = &mut self.requests[id];
            if request.connection == connection {
                request.gone = Some(self.now);
                self.seen.note(Sometimes::GoneWhileWaiting);
            } else {
                self.open.insert(id);
            }
        }
    }

    // ---- what the master says ----

    /// The master gave numbers to a run.
    pub(super) fn numbered(&mut self, part: Part, range: SeqRange, before: Seq, mode: Mode) {
        let id = part.request;
        let log_id = self.master.engine().log_id();
        if *self.history_id.get_or_insert(log_id) != log_id {
            return self.check_new_history();
        }
        let (count, floor, need) = {
            let request = &self.requests[id];
            // What is decided in the turn in which a reign begins comes before the news of it.
            let begun = self.reign_of == Some(self.hosts[0].life);
            let same_reign = begun && request.reign == self.reigns;
            let floor = if same_reign { request.floor } else { Seq::ZERO };
            (part.count, floor, request.need)
        };
        self.tell(0, "numbers", range.first.number(), range.end.number(), || {
            format!("r{id}: {range}")
        });
        if range != SeqRange::with_len(before.next(), count) {
            self.fail("numbers are dense", format!("{range} after {before}"));
        }
        if mode != Mode::Normal || need.is_none() {
            self.fail(
                "what must be refused is refused",
                format!("r{id} in mode {mode}, need {need:?}"),
            );
        }
        if range.first <= floor {
            self.fail(
                "what was OK before another append was sent has a lower number",
                format!("r{id} got {range} though {floor} was OK before"),
            );
        }
        let epoch = self.master.engine().epoch().number();
        for entry in 0..count {
            let key = (epoch, range.first.plus(entry).number());
            let again = self.entries.insert(key, (id, part.entry + entry)).is_some();
            if again && !self.unseen.remove(&key) {
                if self.disks[0].as_ref().is_some_and(|disk| disk.rolled_back) {
                    // A directory brought back is a copy of one that was used since: what it led
                    // meanwhile nobody need know who answers it. Nothing is left to be seen.
                    self.over = true;
                    return;
                }
                self.fail(
                    "an epoch and a number are given once",
                    format!("{} of epoch {}", key.1, key.0),
                );
            }
        }
        self.stats.appended += count;
        let request = &mut self.requests[id];
        let whole = SeqRange::with_len(range.first, u64::from(request.count));
        if part.entry == 0 {
            (request.range, request.taken_at) = (Some(whole), Some(self.now));
        }
        self.open.insert(id);
    }

    pub(super) fn waits(&mut self, id: usize, seq: Seq, last: Seq) {
        if seq > last || seq == Seq::ZERO {
            self.fail("only entries in the log are waited for", format!("r{id}: {seq} of {last}"));
        }
        self.stats.waits += 1;
        let request = &mut self.requests[id];
        (request.range, request.taken_at) = (Some(SeqRange::with_len(seq, 1)), Some(self.now));
        self.open.insert(id);
    }

    pub(super) fn refused(&mut self, id: usize, refused: Refused) {
        self.tell(0, "refuses", id as u64, 0, || format!("r{id}: {refused:?}"));
        let mode = self.master.engine().mode();
        let bytes = u64::from(self.requests[id].count)
            * (u64::from(self.requests[id].size) + RECORD_HEADER_BYTES as u64);
        let lacks_room = self.master.store().log().room_for(bytes as usize).is_err();
        let request = &mut self.requests[id];
        request.refused = true;
        let right = match refused {
            Refused::BadWriteConcern { .. } => request.need.is_none(),
            Refused::ReadOnly { .. } => mode == Mode::ReadOnly,
            Refused::Recovering => mode == Mode::Recovering,
            Refused::Stopping => self.usurped,
            Refused::Damaged => mode == Mode::Damaged,
            Refused::DiskFull { .. } => mode == Mode::Normal && lacks_room,
            Refused::NotFound { next } => {
                request.wait_for.is_some_and(|seq| seq >= next || seq == Seq::ZERO)
            }
        };
        let seen = match refused {
            Refused::BadWriteConcern { .. } => Some(Sometimes::BadConcernRefused),
            Refused::ReadOnly { .. } => Some(Sometimes::ReadOnlyRefused),
            Refused::Recovering => Some(Sometimes::RecoveringRefused),
            Refused::Stopping => None,
            Refused::Damaged => Some(Sometimes::DamagedRefused),
            Refused::DiskFull { .. } => Some(Sometimes::DiskFullRefused),
            Refused::NotFound { .. } => Some(Sometimes::WaitNotFound),
        };
        let count = request.count;
        seen.into_iter().for_each(|seen| self.seen.note(seen));
        self.stats.refused += u64::from(count);
        if !right {
            self.fail("a refusal has its reason", format!("r{id}: {refused:?} in mode {mode}"));
        }
    }

    pub(super) fn send_reply(&mut self, reply: Reply) {
        let way = self.client_rng.magnitude(20, 5000);
        let at = self.hears_at(self.requests[reply.request].client, way);
        self.queue.push(at, Event::Reply(reply));
    }

    /// When a client hears what is sent to it now: in the order sent.
    pub(super) fn hears_at(&mut self, client: u32, way: u64) -> u64 {
        let client = &mut self.clients[client as usize];
        client.hears = client.hears.max(self.now + way);
        client.hears
    }

    /// A reply reaches its client.
    pub(super) fn replied(&mut self, reply: Reply) {
        let id = reply.request;
        let client = self.requests[id].client;
        if self.clients[client as usize].connection != reply.connection {
            return; // The client has given up this connection: it does not know.
        }
        for entry in reply.offset..reply.offset + reply.count {
            let fate = match reply.outcome {
                Heard::Refused => Fate::Refused,
                Heard::Placed { first, epoch, class, by } => {
                    let seq = first.plus(entry - reply.offset);
                    match class {
                        Class::Ok => Fate::Ok(seq, epoch, by),
                        Class::Pending => Fate::Pending(seq, epoch, by),
                        _ => Fate::Unknown,
                    }
                }
            };
            if let (Fate::Ok(seq, ..), None) = (fate, self.requests[id].wait_for) {
                self.confirmed = self.confirmed.max(seq);
            }
            self.requests[id].fates[entry as usize] = Some((self.now, fate));
        }
        self.tell_client(client, "hears", id as u64, reply.offset, || {
            format!("r{id}[{}..{}]: {:?}", reply.offset, reply.offset + reply.count, reply.outcome)
        });
    }

    // ---- readers ----

    /// What readers on a node have before them: its log, and what its driver published last.
    pub(super) fn shown_by(&self, node: usize) -> (LogReader, (Seq, Levels)) {
        let (log, view) = match node {
            0 => (self.master.store().log().reader(), &self.master.view),
            _ => {
                let own = &self.secondaries[node - 1];
                (own.store().log().reader(), &own.view)
            }
        };
        (log, (view.local, view.levels.clone()))
    }

    fn read_entries(&mut self, client: u32, node: usize, level: ReadLevel, share: u16, limit: u32) {
        let host = &self.hosts[node];
        let dead = self.disks[node].as_ref().is_some_and(|disk| disk.fs.is_dead());
        if !host.up || host.paused > 0 || dead {
            return;
        }
        let level = match level {
            ReadLevel::Local => Level::Local,
            ReadLevel::Committed => Level::Committed,
            ReadLevel::All => Level::All,
            ReadLevel::Nodes(count) => NonZeroU16::new(count).map_or(Level::Local, Level::Nodes),
        };
        let (log, (local, levels)) = self.shown_by(node);
        let Some(last) = levels.visible(level, local) else { return };
        if last < local {
            self.seen.note(Sometimes::ReadBehindCommit);
        }
        let from = Seq::new((local.number() * u64::from(share) / 256).max(1));
        let end = last.next().min(from.plus(u64::from(limit)));
        self.stats.reads += 1;
        self.tell_client(client, "reads", from.number(), end.number(), || {
            format!("{level} on n{node}: {}", SeqRange::new(from, end))
        });
        // Nothing is shown of what cannot be read, nor behind it.
        let end = match self.disks[node].as_ref().is_some_and(|disk| disk.hurt) && from < end {
            true => super::store::readable_end(&log, SeqRange::new(from, end)),
            false => end,
        };
        if from < end {
            self.check_read(node, level, SeqRange::new(from, end), &log);
        }
        let shown = SeqRange::new(from, end.max(from));
        self.record_read(client, node, level, shown, end == last.next());
    }
}

fn level_of(received: bool) -> AckLevel {
    if received { AckLevel::Received } else { AckLevel::Stored }
}
