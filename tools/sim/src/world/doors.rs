//! Clients that speak bytes, and the product's own sessions between them and the master: the simulator
//! carries a session as `runtime::client` does with tokio.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::BytesMut;
use replog::config::Config;
use replog::engine::{Answer as Decision, Token};
use replog::node::session::{
    Answer, Question, Request, Session, Sight, Site, TextSession, WireSession,
};
use replog::node::{Machine as _, Storage as _};
use replog::store::LogReader;
use replog::store::provisional::SharedProvisional;
use replog::types::{Role, SeqRange, Time};
use replog::wire::Message;
use replog::wire::codec::{self, Hello};

use super::process::about;
use super::speech::{Door, Understood};
use super::{Event, Input, World};
use crate::rng::Rng;
use crate::sometimes::Sometimes;

/// A part of what one run asks for: so many entries of a request, from this one on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) request: usize,
    pub(super) entry: u64,
    pub(super) count: u64,
}

/// A session in the master's process.
struct Hosted {
    client: u32,
    session: Box<dyn Session>,
}

/// What the master's process has for clients that speak bytes.
pub(super) struct Doors {
    site: Site,
    sessions: BTreeMap<u64, Hosted>,
    /// Whose input grew in this turn.
    with_input: BTreeSet<u64>,
    /// Whose entries wait under which name of which connection.
    parts: BTreeMap<(u64, u64), Vec<Part>>,
}

impl Doors {
    pub(super) fn new(log: LogReader, heartbeat_ms: u64) -> Self {
        let site = Site {
            about: about(0),
            role: Role::Master,
            limits: Config::default_for(Role::Master).limits,
            faults: false,
            heartbeat_interval: std::time::Duration::from_millis(heartbeat_ms),
            log,
            provisional: SharedProvisional::default(),
        };
        Doors {
            site,
            sessions: BTreeMap::new(),
            with_input: BTreeSet::new(),
            parts: BTreeMap::new(),
        }
    }
}

/// What clients have said and the master has not taken, by connection: requests and their entries.
#[derive(Debug, Default)]
pub(super) struct Said {
    appends: VecDeque<Part>,
    waits: VecDeque<usize>,
}

impl World {
    /// How a client speaks: the same for a whole life of the cluster.
    pub(super) fn door(&self, client: u32) -> Door {
        match Rng::keyed(&[self.plan.seed, 15, u64::from(client)]).below(4) {
            0 => Door::Gateway,
            1 => Door::Wire,
            _ => Door::None,
        }
    }

    /// A client says a request, in one piece or in two.
    pub(super) fn say(&mut self, client: u32, id: usize) {
        let door = self.door(client);
        let request = &self.requests[id];
        let (connection, count) = (request.connection, u64::from(request.count));
        let extra = self.speech_rng.next() >> 8;
        let speaker = &mut self.speakers[client as usize];
        let mut bytes = BytesMut::from(&speaker.say(door, connection, id, request, extra)[..]);
        let said = self.said.entry(connection).or_default();
        match request.wait_for {
            Some(_) => said.waits.push_back(id),
            None => said.appends.push_back(Part { request: id, entry: 0, count }),
        }
        if self.speech_rng.percent(20) && bytes.len() > 1 {
            // Within the first line, so that no entry is parted from the others of its request.
            let line = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
            let end = if door == Door::Wire { bytes.len() - 1 } else { line.max(1) };
            let piece = bytes.split_to(1 + self.speech_rng.below(end as u64) as usize);
            self.seen.note(Sometimes::RequestCut);
            self.submit(client, Event::Said { client, connection, bytes: piece.freeze() });
        }
        self.submit(client, Event::Said { client, connection, bytes: bytes.freeze() });
    }

    /// What was said is in the socket of the master's machine.
    pub(super) fn said(&mut self, client: u32, connection: u64, bytes: bytes::Bytes) {
        if self.reaches(client, connection) {
            self.input(0, Input::Bytes { client, connection, bytes });
        }
    }

    // ---- the master's process ----

    pub(super) fn take_bytes(&mut self, client: u32, connection: u64, bytes: &[u8]) {
        let door = self.door(client);
        let doors = &mut self.master.doors;
        let limits = &doors.site.limits;
        let hosted = doors.sessions.entry(connection).or_insert_with(|| {
            let session: Box<dyn Session> = match door {
                Door::Wire => {
                    let hello = Message::Hello(Hello::blank(codec::Role::Master, "n0")).encode();
                    let takes = (false, usize::MAX);
                    Box::new(WireSession::new(limits, BytesMut::new(), hello, takes))
                }
                _ => Box::new(TextSession::new(limits)),
            };
            Hosted { client, session }
        });
        hosted.session.input().extend_from_slice(bytes);
        doors.with_input.insert(connection);
    }

    /// Sessions take what came: all that came in a turn at once, as one read would bring it.
    pub(super) fn sessions_read(&mut self) {
        for connection in std::mem::take(&mut self.master.doors.with_input) {
            self.go_on(connection);
        }
    }

    /// Calls a session with what it sees, and carries what it asks and says.
    fn with_session(
        &mut self,
        connection: u64,
        call: impl FnOnce(&mut dyn Session, Sight<'_>) -> Result<bool, replog::node::session::End>,
    ) -> bool {
        let master = &mut self.master;
        let sight = Sight {
            now: Time::from_micros(self.now),
            site: &master.doors.site,
            view: &master.view,
        };
        let Some(hosted) = master.doors.sessions.get_mut(&connection) else { return false };
        let client = hosted.client;
        let outcome = call(&mut *hosted.session, sight);
        let mut requests = Vec::new();
        while let Some(request) = hosted.session.poll_request() {
            requests.push(request);
        }
        let mut bytes = Vec::with_capacity(hosted.session.untaken());
        hosted.session.slices().iter().for_each(|slice| bytes.extend_from_slice(slice));
        // A queue lends so many pieces at a time.
        hosted.session.taken(sight.now, bytes.len());
        let (refusals, left) = (hosted.session.drain_refusals(), hosted.session.untaken());
        let any = !requests.is_empty() || left > 0;
        if !bytes.is_empty() {
            self.send_bytes(client, connection, bytes.into());
        }
        if let Some((code, _)) = refusals.first() {
            let code = code.word();
            self.fail("a session refuses only what nobody may ask", format!("c{client}: {code}"));
        }
        for request in requests {
            let input = Input::Request { connection, request: Box::new(request) };
            self.input(0, input);
        }
        match outcome {
            Ok(more) => more || any,
            Err(end) => {
                self.fail("a session goes on while its client does", format!("c{client}: {end:?}"));
                false
            }
        }
    }

    /// A session does what it can.
    fn go_on(&mut self, connection: u64) {
        while self.with_session(connection, |session, sight| session.advance(sight)) {}
    }

    /// All that watch the log look at it, and say so if it did not grow.
    pub(super) fn sessions_look(&mut self) {
        let now = Time::from_micros(self.now);
        let sessions = std::mem::take(&mut self.master.doors.sessions);
        let connections: Vec<u64> = sessions.keys().copied().collect();
        self.master.doors.sessions = sessions;
        for connection in connections {
            let mut due = false;
            self.with_session(connection, |session, sight| {
                let entries_by = session.waits(sight).entries_by;
                due = entries_by.is_some();
                if entries_by.is_some_and(|by| by <= now) {
                    session.handle_idle(sight);
                }
                Ok(false)
            });
            if due {
                self.go_on(connection);
            }
        }
    }

    /// A session asks something of its node.
    pub(super) fn take_request(&mut self, now: Time, connection: u64, request: Request) {
        match request {
            Request::Append(runs) => {
                for run in runs {
                    let parts = self.next_parts(connection, run.payloads.len() as u64);
                    if parts.len() > 1 {
                        self.seen.note(Sometimes::RequestsMerged);
                    }
                    self.master.doors.parts.insert((connection, run.slot), parts);
                    let wall_ms = self.wall_ms(0);
                    self.watch(0, |world| {
                        world.master.node.handle_append(now, wall_ms, connection, run);
                    });
                }
            }
            Request::Wait { slot, seq, options } => {
                let said = self.said.get_mut(&connection).and_then(|said| said.waits.pop_front());
                let Some(request) = said.filter(|&id| self.requests[id].wait_for == Some(seq))
                else {
                    return self.fail("what was said is heard", format!("WAIT {seq}: {said:?}"));
                };
                let part = Part { request, entry: 0, count: 1 };
                self.master.doors.parts.insert((connection, slot), vec![part]);
                let token = Token { connection, slot };
                self.watch(0, |world| world.master.node.handle_wait(now, token, seq, options));
            }
            Request::Ask(question) => {
                let answer = self.answer(now, question);
                // Now and then the disk has to be asked.
                if self.speech_rng.percent(30) {
                    let (life, takes) = (self.hosts[0].life, 1 + self.speech_rng.below(2000));
                    let input = Input::Answer { connection, answer: Box::new(answer) };
                    self.seen.note(Sometimes::AnswerAwaited);
                    return self
                        .queue
                        .push(self.now + takes, Event::Input { node: 0, life, input });
                }
                self.take_answer(connection, answer);
            }
        }
    }

    pub(super) fn take_answer(&mut self, connection: u64, answer: Answer) {
        self.with_session(connection, |session, sight| {
            session.handle_answer(sight, answer);
            Ok(false)
        });
        self.go_on(connection);
    }

    fn answer(&mut self, now: Time, question: Question) -> Answer {
        let log = self.master.store().log().reader();
        let node = &mut self.master.node;
        match question {
            Question::Status => Answer::Status(Box::new(node.status(now))),
            Question::Waiters => {
                let (lines, count) = node.waiters(now);
                Answer::Waiters(lines, count)
            }
            Question::Metrics => Answer::Metrics(String::new()),
            Question::Holders(seq) => Answer::Holders(node.holders(seq)),
            Question::Read { range, bytes_max } => Answer::Read(log.read(range, bytes_max)),
            Question::Record(seq) => Answer::Record(log.record(seq)),
            Question::PrefixId(seq) => Answer::PrefixId(log.prefix_id(seq)),
            // A master refuses these before they are asked.
            Question::Fault(_) | Question::Store(..) => Answer::Injected,
        }
    }

    /// Whose entries the next ones of a connection are.
    fn next_parts(&mut self, connection: u64, mut count: u64) -> Vec<Part> {
        let said = self.said.entry(connection).or_default();
        let mut parts = Vec::new();
        while count > 0
            && let Some(next) = said.appends.front_mut()
        {
            let part = Part { count: next.count.min(count), ..*next };
            count -= part.count;
            (next.entry, next.count) = (next.entry + part.count, next.count - part.count);
            if next.count == 0 {
                said.appends.pop_front();
            }
            parts.push(part);
        }
        if count > 0 {
            self.fail("what was said is heard", format!("{count} entries too many"));
        }
        parts
    }

    /// Replies of the node to a session; what is for others comes back.
    pub(super) fn reply_to_session(
        &mut self,
        connection: u64,
        replies: Vec<replog::node::client::Reply>,
    ) -> Option<Vec<replog::node::client::Reply>> {
        if !self.said.contains_key(&connection) {
            return Some(replies);
        }
        self.with_session(connection, |session, sight| {
            session.handle_replies(sight, replies);
            Ok(false)
        });
        self.go_on(connection);
        None
    }

    /// Which requests are meant by a name of a connection, for so many entries.
    pub(super) fn parts(&self, token: Token, count: u64) -> Vec<Part> {
        match self.master.doors.parts.get(&(token.connection, token.slot)) {
            Some(parts) => parts.clone(),
            None => vec![Part { request: token.slot as usize, entry: 0, count }],
        }
    }

    /// A decision about a run, as decisions about the requests of which it was made.
    pub(super) fn decisions(&self, decision: &Decision) -> Vec<Decision> {
        let (from, to) = (decision.offset, decision.offset + decision.range.len());
        let mut begins = 0;
        let mut decisions = Vec::new();
        for part in self.parts(decision.token, to) {
            let ends = begins + part.count;
            let (first, end) = (from.max(begins), to.min(ends));
            if first < end {
                let mut one = *decision;
                one.token.slot = part.request as u64;
                one.offset = part.entry + (first - begins);
                let seq = decision.range.first.plus(first - from);
                one.range = SeqRange::with_len(seq, end - first);
                decisions.push(one);
            }
            begins = ends;
        }
        decisions
    }

    /// A client is gone, and its session with it.
    pub(super) fn session_gone(&mut self, connection: u64) {
        self.master.doors.sessions.remove(&connection);
    }

    // ---- clients hear ----

    fn send_bytes(&mut self, client: u32, connection: u64, bytes: bytes::Bytes) {
        let way = self.speech_rng.magnitude(20, 5000);
        let at = self.hears_at(client, way);
        self.queue.push(at, Event::Heard { client, connection, bytes });
    }

    pub(super) fn heard(&mut self, client: u32, connection: u64, bytes: &[u8]) {
        let door = self.door(client);
        self.seen.note(match door {
            Door::Wire => Sometimes::WireAnswered,
            _ => Sometimes::LineAnswered,
        });
        let roster: Vec<_> = (0..self.plan.setup.nodes).map(|node| about(node).id).collect();
        let speaker = &mut self.speakers[client as usize];
        for understood in speaker.hear(door, connection, bytes, &roster) {
            match understood {
                Understood::Reply(reply) => self.replied(reply),
                Understood::Shown(seq, payload) => self.shown(client, seq, &payload),
                Understood::Nonsense(what) => {
                    self.fail("an answer is that to its question", format!("c{client}: {what}"));
                }
            }
        }
    }

    /// A client was shown an entry: somebody appended it, and got that number for it.
    fn shown(&mut self, client: u32, seq: replog::types::Seq, payload: &[u8]) {
        self.seen.note(Sometimes::EntryShown);
        if self.excused || self.over {
            return;
        }
        // Lists and tails are asked for at level committed.
        let (committed, nodes) = (self.memory.committed(), self.plan.setup.nodes);
        if seq > committed && !(0..nodes).any(|node| self.is_hurt(node)) {
            let what = format!("c{client}: {seq}, {committed} is committed");
            return self.fail("a read shows no more than its level", what);
        }
        let mut given = self.entries.iter().filter(|((_, number), _)| *number == seq.number());
        let is_it = |(_, &(id, entry)): (&(u64, u64), &(usize, u64))| {
            super::clients::payload(id, entry, self.requests[id].size) == payload
        };
        if !given.any(is_it) {
            let what = String::from_utf8_lossy(payload).into_owned();
            self.fail("what is shown was appended", format!("c{client}: {seq} {what}"));
        }
    }
}
