//! Connections: streams of bytes that are chopped, merged, delayed, squeezed, cut and forgotten.
//!
//! A connection has two ends, 0 (who dialled) and 1 (the secondary), and for each end what it sends:
//! bytes that the socket took and the other side has not confirmed (`unacked`, bounded by the send
//! buffer), of which some wait for room at the receiver, some are in flight, and some arrived and were
//! not read. A cut line loses nothing by itself: what was under way arrives after the cut, as TCP's
//! repetitions would bring it, unless one end has given up before.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use replog::engine::SessionId;
use replog::limits::{FRAME_BODY_BYTES_MAX, FRAME_BODY_BYTES_MAX_UNINTRODUCED, READ_CHUNK_BYTES};
use replog::node::introduction::next_message;
use replog::wire::codec::{Hello, Refuse};
use replog::wire::{FrameDecoder, Message, VERSION, reserve_for_read};

use super::{Event, Input, World};
use crate::rng::Rng;
use crate::sometimes::Sometimes;

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialler {
    /// The master, by this attempt.
    Master(usize),
    /// Another process; it never reads more than the answer.
    Stranger,
}

/// How a connection attempt ended.
#[derive(Debug)]
pub(super) enum Dialled {
    Introduced { conn: usize, hello: Box<Hello> },
    Refused(Refuse),
    Unreachable,
}

/// What became of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A process holds it.
    Open,
    /// It was closed: what arrives is answered by a reset.
    Closed,
    /// It is gone without a word: what arrives is never answered.
    Dead,
}

/// What is done with what an end receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitHello,
    /// Introduced; the driver has not taken it over.
    Handed,
    Reading,
    Ended,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) state: State,
    stage: Stage,
    buffer: BytesMut,
    /// Arrived, not read.
    received: VecDeque<Bytes>,
    received_bytes: usize,
    eof: bool,
    error: Option<&'static str>,
    read_due: bool,
    /// Reads since the last whole frame.
    reads: u32,
}

/// What one end sends.
#[derive(Debug)]
struct Stream {
    /// Taken by the socket, not on the way. An empty piece is the end.
    waiting: VecDeque<Bytes>,
    flight: VecDeque<Bytes>,
    flight_bytes: usize,
    /// Arrivals that met a cut.
    stuck: usize,
    unacked: usize,
    /// Arrived, and the confirmation met a cut.
    ack_stuck: usize,
    /// The last time that `unacked` fell, or rose from 0.
    progress_at: u64,
    timer_set: bool,
    blocked: bool,
    busy_until: u64,
    last_arrival: u64,
    rng: Rng,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) node: usize,
    pub(super) dialler: Dialler,
    /// The secondary's process.
    pub(super) life: u32,
    /// The name of the connection at each end, once the driver has it.
    pub(super) sessions: [SessionId; 2],
    pub(super) ends: [End; 2],
    streams: [Stream; 2],
}

/// The line between the master and a secondary.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Cuts in force: towards the secondary, and from it.
    pub(super) cuts: [u32; 2],
    pub(super) slow_by: u64,
    pub(super) refusing: u32,
    /// Connections made, for the keys of their streams.
    made: u64,
    /// Connections with an open end.
    pub(super) conns: Vec<usize>,
}

impl World {
    /// A connection is there; both kernels know it.
    pub(super) fn connect(&mut self, node: usize, dialler: Dialler, session: SessionId) -> usize {
        let line = &mut self.lines[node];
        line.made += 1;
        let (made, id) = (line.made, self.conns.len());
        let (life, now) = (self.hosts[node].life, self.now);
        let end = || End {
            state: State::Open,
            stage: Stage::AwaitHello,
            buffer: BytesMut::new(),
            received: VecDeque::new(),
            received_bytes: 0,
            eof: false,
            error: None,
            read_due: false,
            reads: 0,
        };
        let seed = self.plan.seed;
        let stream = |side: u64| Stream {
            waiting: VecDeque::new(),
            flight: VecDeque::new(),
            flight_bytes: 0,
            stuck: 0,
            unacked: 0,
            ack_stuck: 0,
            progress_at: now,
            timer_set: false,
            blocked: false,
            busy_until: now,
            last_arrival: now,
            rng: Rng::keyed(&[seed, 10, node as u64, made, side]),
        };
        let sessions = [session, SessionId(0)];
        let (ends, streams) = ([end(), end()], [stream(0), stream(1)]);
        self.conns.push(Conn { node, dialler, life, sessions, ends, streams });
        let conns = &self.conns;
        let line = &mut self.lines[node];
        line.conns.retain(|&id| conns[id].ends.iter().any(|end| end.state == State::Open));
        line.conns.push(id);
        id
    }

    /// The driver has taken the connection over.
    pub(super) fn start_reading(&mut self, id: usize, side: usize) {
        self.conns[id].ends[side].stage = Stage::Reading;
        self.read_soon(id, side);
    }

    /// How many bytes a socket takes now.
    pub(super) fn socket_room(&self, id: usize, side: usize) -> Result<usize, &'static str> {
        let conn = &self.conns[id];
        match conn.ends[side].error {
            Some(error) => Err(error),
            None => Ok(self.plan.setup.net.send_bytes.saturating_sub(conn.streams[side].unacked)),
        }
    }

    /// Hands bytes to a socket that has room for them.
    pub(super) fn socket_write(&mut self, id: usize, side: usize, bytes: Bytes) {
        if bytes.is_empty() {
            return self.seen.note(Sometimes::Backpressure);
        }
        let stream = &mut self.conns[id].streams[side];
        if stream.unacked == 0 {
            stream.progress_at = self.now;
        }
        stream.unacked += bytes.len();
        stream.waiting.push_back(bytes);
        self.arm_user_timeout(id, side);
        self.transmit(id, side);
    }

    /// Whoever writes waits until the socket takes bytes again.
    pub(super) fn socket_is_full(&mut self, id: usize, side: usize) {
        self.conns[id].streams[side].blocked = true;
    }

    /// Puts on the way what the receiver has room for.
    fn transmit(&mut self, id: usize, side: usize) {
        let net = &self.plan.setup.net;
        let conn = &mut self.conns[id];
        let line = &self.lines[conn.node];
        let unread = conn.ends[1 - side].received_bytes;
        let stream = &mut conn.streams[side];
        // Most writes are chopped as Ethernet would, some as finely as the plan says.
        let fine = stream.rng.percent(12);
        let chunk = if fine { net.chunk_bytes } else { net.chunk_bytes.max(1460) };
        while let Some(front) = stream.waiting.front_mut() {
            let room = net.receive_bytes.saturating_sub(stream.flight_bytes + unread);
            if room == 0 && !front.is_empty() {
                break;
            }
            let size = if stream.rng.percent(50) { chunk } else { stream.rng.within(1, chunk) };
            let piece = front.split_to(front.len().min(size as usize).min(room));
            if front.is_empty() {
                stream.waiting.pop_front();
            }
            let mut leaves = self.now.max(stream.busy_until);
            if let Some(cost) = (piece.len() as u64 * 1_000_000).checked_div(net.bandwidth) {
                leaves += cost;
                stream.busy_until = leaves;
            }
            let way = net.delay_us + stream.rng.below(net.jitter_us + 1) + line.slow_by;
            stream.last_arrival = stream.last_arrival.max(leaves + way);
            stream.flight_bytes += piece.len();
            stream.flight.push_back(piece);
            self.queue.push(stream.last_arrival, Event::Arrive { id, side });
        }
    }

    /// The next piece of what `side` sends arrives.
    pub(super) fn arrive(&mut self, id: usize, side: usize) {
        let conn = &mut self.conns[id];
        let stream = &mut conn.streams[side];
        if self.lines[conn.node].cuts[side] > 0 {
            stream.stuck += 1;
            return;
        }
        let Some(piece) = stream.flight.pop_front() else { return };
        stream.flight_bytes -= piece.len();
        let end = &mut conn.ends[1 - side];
        match end.state {
            State::Dead => {}
            State::Closed => {
                if !piece.is_empty() {
                    let back = self.plan.setup.net.delay_us;
                    self.queue.push(self.now + back, Event::Reset { id, side });
                }
            }
            State::Open => {
                let count = piece.len();
                if piece.is_empty() {
                    end.eof = true;
                } else {
                    end.received_bytes += count;
                    end.received.push_back(piece);
                }
                if self.lines[conn.node].cuts[1 - side] > 0 {
                    stream.ack_stuck += count;
                } else {
                    self.confirm(id, side, count);
                }
                self.read_soon(id, 1 - side);
            }
        }
    }

    /// The other kernel confirmed bytes of `side`.
    pub(super) fn confirm(&mut self, id: usize, side: usize, count: usize) {
        let stream = &mut self.conns[id].streams[side];
        stream.unacked = stream.unacked.saturating_sub(count);
        stream.progress_at = self.now;
        if std::mem::take(&mut stream.blocked) {
            let at = self.now + 1 + stream.rng.below(50);
            self.queue.push(at, Event::Writable { id, side });
        }
    }

    /// A cut of one direction is over: what met it arrives after a while.
    pub(super) fn healed(&mut self, node: usize, direction: usize) {
        for at in 0..self.lines[node].conns.len() {
            let id = self.lines[node].conns[at];
            let [to, from] = &mut self.conns[id].streams;
            let (forth, back) = if direction == 0 { (to, from) } else { (from, to) };
            let again = self.now + 1000 + forth.rng.magnitude(1, 1_500_000);
            for _ in 0..std::mem::take(&mut forth.stuck) {
                self.queue.push(again, Event::Arrive { id, side: direction });
            }
            let count = std::mem::take(&mut back.ack_stuck);
            if count > 0 {
                self.queue.push(again, Event::Confirm { id, side: 1 - direction, count });
            }
        }
    }

    fn arm_user_timeout(&mut self, id: usize, side: usize) {
        let dead_after = self.dead_after(side);
        let stream = &mut self.conns[id].streams[side];
        if !std::mem::replace(&mut stream.timer_set, true) {
            let due = stream.progress_at + dead_after;
            self.queue.push(due, Event::UserTimeout { id, side });
        }
    }

    /// What TCP_USER_TIMEOUT is set to.
    fn dead_after(&self, side: usize) -> u64 {
        if side == 0 { self.dial_timeout() } else { 60_000_000 }
    }

    pub(super) fn user_timeout(&mut self, id: usize, side: usize) {
        let dead_after = self.dead_after(side);
        let conn = &mut self.conns[id];
        let stream = &mut conn.streams[side];
        stream.timer_set = false;
        if conn.ends[side].state != State::Open || stream.unacked == 0 {
            return;
        }
        if self.now < stream.progress_at + dead_after {
            return self.arm_user_timeout(id, side);
        }
        if conn.ends[1 - side].state == State::Dead {
            self.seen.note(Sometimes::HalfOpenFound);
        }
        self.fail_end(id, side, "timed out");
        self.queue.push(self.now + 1, Event::Reset { id, side: 1 - side });
    }

    /// A reset reaches an end, unless the line is cut.
    pub(super) fn reset_arrives(&mut self, id: usize, side: usize) {
        let conn = &self.conns[id];
        if self.lines[conn.node].cuts[1 - side] == 0 && conn.ends[side].state == State::Open {
            self.fail_end(id, side, "reset by peer");
        }
    }

    /// The kernel tells an end that its connection is broken.
    pub(super) fn fail_end(&mut self, id: usize, side: usize, reason: &'static str) {
        let end = &mut self.conns[id].ends[side];
        if end.state == State::Open && end.error.is_none() {
            end.error = Some(reason);
            self.conns[id].streams[side].waiting.clear();
            self.read_soon(id, side);
            if std::mem::take(&mut self.conns[id].streams[side].blocked) {
                self.queue.push(self.now + 1, Event::Writable { id, side });
            }
        }
    }

    /// The process closes its end. `rudely`: what it sent last may be lost.
    pub(super) fn close_end(&mut self, id: usize, side: usize, rudely: bool) {
        let end = &mut self.conns[id].ends[side];
        if end.state != State::Open {
            return;
        }
        (end.state, end.stage) = (State::Closed, Stage::Ended);
        end.buffer = BytesMut::new();
        end.received.clear();
        let broken = end.error.is_some();
        let unread = std::mem::take(&mut end.received_bytes) > 0;
        let stream = &mut self.conns[id].streams[side];
        if broken {
            stream.waiting.clear();
        } else if rudely || unread {
            stream.waiting.clear();
            let at = stream.last_arrival.max(self.now) + self.plan.setup.net.delay_us;
            self.queue.push(at, Event::Reset { id, side: 1 - side });
        } else {
            stream.waiting.push_back(Bytes::new());
            self.transmit(id, side);
        }
    }

    /// The machine of a node is gone, or its process: its kernel tells the others or not.
    pub(super) fn host_gone(&mut self, node: usize, silent: bool) {
        let lines = if node == 0 { 1..self.lines.len() } else { node..node + 1 };
        let side = usize::from(node > 0);
        let conns: Vec<_> = lines.flat_map(|line| self.lines[line].conns.clone()).collect();
        for id in conns {
            let conn = &self.conns[id];
            let other = side == 0 && conn.dialler == Dialler::Stranger;
            if conn.ends[side].state != State::Open || other {
                continue;
            }
            if silent {
                let end = &mut self.conns[id].ends[side];
                (end.state, end.stage) = (State::Dead, Stage::Ended);
            } else {
                self.close_end(id, side, true);
            }
        }
    }

    /// An end is gone without a word.
    pub(super) fn forget_end(&mut self, id: usize, side: usize) {
        let conn = &mut self.conns[id];
        let (node, dialler) = (conn.node, conn.dialler);
        let end = &mut conn.ends[side];
        if end.state != State::Open {
            return;
        }
        (end.state, end.stage) = (State::Dead, Stage::Ended);
        // Its own process finds out, or the other end would not be the only one that lives on.
        let session = self.conns[id].sessions[side];
        let host = if side == 0 { 0 } else { node };
        if (side == 1 || dialler != Dialler::Stranger) && self.hosts[host].up {
            let reason = "connection reset";
            self.input(host, Input::Closed { session, refuse: None, reason });
        }
    }

    /// What arrived is read soon: at once, or together with what comes meanwhile.
    pub(super) fn read_soon(&mut self, id: usize, side: usize) {
        let conn = &mut self.conns[id];
        if !std::mem::replace(&mut conn.ends[side].read_due, true) {
            let rng = &mut conn.streams[1 - side].rng;
            let wait = if rng.percent(60) { 1 } else { rng.below(self.plan.setup.turn_us * 2 + 2) };
            self.queue.push(self.now + wait, Event::Read { id, side });
        }
    }

    /// A paused or busy process goes on: its connections are read again.
    pub(super) fn read_all(&mut self, node: usize) {
        let lines = if node == 0 { 1..self.lines.len() } else { node..node + 1 };
        for line in lines {
            for at in 0..self.lines[line].conns.len() {
                let id = self.lines[line].conns[at];
                let end = &self.conns[id].ends[usize::from(node > 0)];
                if end.state == State::Open
                    && (end.received_bytes > 0 || end.eof || end.error.is_some())
                {
                    self.read_soon(id, usize::from(node > 0));
                }
            }
        }
    }

    /// The process reads what is there, and finds frames in it.
    pub(super) fn read(&mut self, id: usize, side: usize) {
        let conn = &mut self.conns[id];
        let end = &mut conn.ends[side];
        end.read_due = false;
        let (node, stranger) = (conn.node, conn.dialler == Dialler::Stranger && side == 0);
        let host = if side == 0 { 0 } else { node };
        if end.state != State::Open || matches!(end.stage, Stage::Handed | Stage::Ended) {
            return;
        }
        // Whoever is paused or has a full inbox reads later: see `read_all`.
        if !stranger && self.hosts[host].paused > 0 {
            return;
        }
        if !stranger && self.hosts[host].inbox.len() >= super::INBOX_MAX {
            self.hosts[host].reads_wait = true;
            return self.seen.note(Sometimes::InboxFull);
        }
        let (mut taken, pieces) = (0, end.received.len());
        while taken < READ_CHUNK_BYTES
            && let Some(mut piece) = end.received.pop_front()
        {
            reserve_for_read(&mut end.buffer);
            let rest = piece.split_off(piece.len().min(READ_CHUNK_BYTES - taken));
            end.buffer.extend_from_slice(&piece);
            taken += piece.len();
            if !rest.is_empty() {
                end.received.push_front(rest);
            }
        }
        end.received_bytes -= taken;
        if taken > 0 {
            self.transmit(id, 1 - side);
        }
        match self.conns[id].ends[side].stage {
            Stage::AwaitHello => self.read_hello(id, side),
            _ => self.read_messages(id, side, pieces),
        }
        let end = &self.conns[id].ends[side];
        if end.state == State::Open && end.stage != Stage::Ended && end.received_bytes > 0 {
            self.read_soon(id, side);
        }
    }

    fn read_hello(&mut self, id: usize, side: usize) {
        let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX_UNINTRODUCED };
        let end = &mut self.conns[id].ends[side];
        let message = match next_message(decoder, &mut end.buffer) {
            Ok(Some(message)) => message,
            Ok(None) if end.eof || end.error.is_some() => {
                return self.introduction_failed(id, side);
            }
            Ok(None) => return,
            Err(_) => return self.introduction_failed(id, side),
        };
        end.stage = Stage::Handed;
        match (message, side, self.conns[id].dialler) {
            (Message::Hello(hello), 0, Dialler::Master(dial)) if speaks(&hello) => {
                self.dial_ended(dial, Dialled::Introduced { conn: id, hello: Box::new(hello) });
            }
            (Message::Refuse(refuse), 0, Dialler::Master(dial)) => {
                self.close_end(id, 0, false);
                self.dial_ended(dial, Dialled::Refused(refuse));
            }
            (Message::Hello(_), 0, Dialler::Stranger) => {
                self.seen.note(Sometimes::StrangerAnswered)
            }
            (Message::Hello(hello), 1, _) if speaks(&hello) => {
                let node = self.conns[id].node;
                self.input(node, Input::Accepted { conn: id, hello: Box::new(hello) });
            }
            _ => self.introduction_failed(id, side),
        }
    }

    fn introduction_failed(&mut self, id: usize, side: usize) {
        self.close_end(id, side, false);
        if let (0, Dialler::Master(dial)) = (side, self.conns[id].dialler) {
            self.dial_ended(dial, Dialled::Unreachable);
        }
    }

    /// Nobody introduced itself in time.
    pub(super) fn introduction_timeout(&mut self, id: usize) {
        let end = &self.conns[id].ends[1];
        if end.state == State::Open && end.stage == Stage::AwaitHello {
            self.close_end(id, 1, false);
        }
    }

    fn read_messages(&mut self, id: usize, side: usize, pieces: usize) {
        let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
        let conn = &mut self.conns[id];
        let (node, session) = (conn.node, conn.sessions[side]);
        let host = if side == 0 { 0 } else { node };
        let end = &mut conn.ends[side];
        end.reads += pieces as u32;
        let mut messages = Vec::new();
        let fault = loop {
            match next_message(decoder, &mut end.buffer) {
                Ok(Some(message)) => {
                    if end.reads >= 3 && messages.is_empty() {
                        self.seen.note(Sometimes::SplitFrame);
                    }
                    messages.push(message);
                }
                Ok(None) => break None,
                Err((code, _)) => break Some(Some(code)),
            }
        };
        if !messages.is_empty() {
            end.reads = 0;
            if messages.len() > 1 {
                self.seen.note(Sometimes::MergedFrames);
            }
        }
        let ended = end.received_bytes == 0 && (end.eof || end.error.is_some());
        let reason = end.error.unwrap_or("closed by the peer");
        let fault = fault.or(ended.then_some(None));
        if fault.is_some() {
            end.stage = Stage::Ended;
        }
        if !messages.is_empty() {
            self.input(host, Input::Messages { session, messages });
        }
        if let Some(refuse) = fault {
            self.input(host, Input::Closed { session, refuse, reason });
        }
    }

    /// The socket that was full takes bytes again.
    pub(super) fn writable(&mut self, id: usize, side: usize) {
        let conn = &self.conns[id];
        if conn.ends[side].state == State::Open {
            let host = if side == 0 { 0 } else { conn.node };
            self.input(host, Input::Writable { session: conn.sessions[side] });
        }
    }
}

fn speaks(hello: &Hello) -> bool {
    hello.version_min <= VERSION && hello.version_max >= VERSION
}
