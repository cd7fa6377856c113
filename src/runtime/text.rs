//! A connection to the text gateway: lines in, replies in the order of the lines.
//!
//! APPEND and WAIT start as soon as they are read; every other command when the replies before it
//! are out. What waits for an answer is a *slot*; slots leave at the front.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::inbox::{ClientInput, Node};
use super::metrics::Kind;
use super::room::Unfinished;
use super::session::{self, DriverGone, List, Tail};
use super::wake::{WaitFor, Wake, Wakes};
use crate::codes::{Code, RefuseCode};
use crate::config::Role;
use crate::engine::Token;
use crate::gateway::reply::write_placed;
use crate::gateway::{Command, Refusal, parse};
use crate::limits::{GATEWAY_LINE_EXTRA_BYTES, OUTPUT_CHUNK_BYTES};
use crate::node::client::{AppendRun, Outcome, Payloads, Reply, RunOptions};

/// What a reply is waited for.
enum Slot {
    /// A run of appends, or a wait: so many entries, of which so many are answered at the front.
    Run { count: u64, written: u64, pieces: BTreeMap<u64, Reply> },
    /// Refused before it reached the driver, or a bad line.
    Refused(Refusal),
    /// To be carried out when the replies before it are out.
    Command(Command, Bytes),
}

/// What goes on at the front.
enum Active {
    None,
    List(List),
    Tail(Tail),
}

/// Why a session ends.
enum End {
    /// All is said.
    Clean,
    /// The connection is broken, or the client does not take its output.
    Broken,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Broken
    }
}

impl From<DriverGone> for End {
    fn from(_: DriverGone) -> Self {
        End::Broken
    }
}

struct TextSession {
    node: Arc<Node>,
    connection: u64,
    write: OwnedWriteHalf,
    input: BytesMut,
    /// How far `input` was searched for a line end.
    searched: usize,
    out: BytesMut,
    slots: VecDeque<Slot>,
    /// The name of the slot at the front.
    front: u64,
    /// Appends and waits without an answer.
    waiting: u64,
    /// Bytes of the lines of commands that wait for their turn.
    line_bytes: usize,
    active: Active,
    /// No more input is taken: the client closed its side, QUIT, or an error that ends it.
    input_ended: bool,
    /// Close when all is written.
    closing: bool,
    /// Lines taken so far.
    lines: u64,
    /// A TAIL stands among the slots.
    tail_waits: bool,
    /// When output was last taken.
    progress: Instant,
    idle_at: Instant,
}

/// Serves a client of the gateway until it goes.
pub(super) async fn serve(node: Arc<Node>, stream: TcpStream) {
    let connection = node.connection_number();
    let (read, write) = stream.into_split();
    // One message answers at least one append that waits: see `limits.waiting_max`.
    let (sender, replies) = mpsc::channel(node.limits.waiting_max + 1);
    let opened = ClientInput::Opened { connection, replies: sender };
    if session::tell(&node, opened).await.is_err() {
        return;
    }
    let mut wakes = Wakes::new(&node, Kind::Gateway, read, replies);
    let mut text = TextSession {
        node,
        connection,
        write,
        input: BytesMut::new(),
        searched: 0,
        out: BytesMut::new(),
        slots: VecDeque::new(),
        front: 0,
        waiting: 0,
        line_bytes: 0,
        active: Active::None,
        input_ended: false,
        closing: false,
        lines: 0,
        tail_waits: false,
        progress: Instant::now(),
        idle_at: Instant::now(),
    };
    let end = text.run(&mut wakes).await;
    debug!(connection, clean = matches!(end, End::Clean), "gateway client gone");
    // A driver that is gone needs not be told.
    let _ = session::tell(&text.node, ClientInput::Closed { connection }).await;
    if text.closing {
        drain(wakes.into_read_half(), text.write, text.node.limits.write_timeout).await;
    }
}

/// Throws away what a client still sends, for a while: closing over unread bytes would destroy the
/// last reply on its way.
pub(super) async fn drain(
    mut read: tokio::net::tcp::OwnedReadHalf,
    mut write: OwnedWriteHalf,
    at_most: std::time::Duration,
) {
    let mut thrown_away = [0; 8192];
    let reading = async {
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        while matches!(read.read(&mut thrown_away).await, Ok(count) if count > 0) {}
    };
    // Whether it came to an end or not, the connection ends.
    let _ = tokio::time::timeout(at_most, reading).await;
}

impl TextSession {
    async fn run(&mut self, wakes: &mut Wakes) -> End {
        loop {
            if let Err(end) = self.advance().await {
                return end;
            }
            let blocked = !self.out.is_empty();
            if !blocked && self.is_finished(wakes.stopping()) {
                return End::Clean;
            }
            let tailing = matches!(self.active, Active::Tail(_)) && !blocked;
            let wait = WaitFor {
                input: self.takes_input(),
                unfinished: self.unfinished(),
                room_by: blocked.then(|| self.progress + self.node.limits.write_timeout),
                entries_by: tailing.then_some(self.idle_at),
            };
            match wakes.next(&mut self.input, &self.write, wait).await {
                Wake::Answered(replies) => self.take_replies(replies),
                Wake::Ready => {}
                Wake::InputEnded => self.input_ended = true,
                Wake::Idle => {
                    if let Active::Tail(tail) = &self.active {
                        tail.write_idle(&self.node, &mut self.out);
                    }
                    self.idle_at = Instant::now() + self.node.heartbeat_interval;
                }
                Wake::Unfinished(after) => self.refuse_unfinished(after),
                Wake::Stalled => {
                    let untaken = self.out.len();
                    session::note_slow_reader(&self.node, self.connection, &self.write, untaken);
                    self.node.metrics.connection_refused(RefuseCode::SlowReader);
                    return End::Broken;
                }
                Wake::Broken => return End::Broken,
            }
        }
    }

    /// The line of which a part is there, if it is long: all of the input was searched for its end.
    fn unfinished(&self) -> Option<Unfinished> {
        let searched = self.searched == self.input.len();
        let unfinished = Unfinished::new(self.lines, self.input.len(), self.line_max() + 2);
        // What this node does not read its sender cannot finish.
        unfinished.filter(|_| searched && self.takes_input())
    }

    fn line_max(&self) -> usize {
        self.node.limits.payload_max + GATEWAY_LINE_EXTRA_BYTES
    }

    fn refuse_unfinished(&mut self, after: Duration) {
        let (bytes, seconds) = (self.input.len(), after.as_secs());
        session::note_unfinished(&self.node, self.connection, &self.write, bytes, seconds);
        let detail = format!("seconds={seconds} - the line had no end in that time, closing");
        self.refuse_and_close(Refusal::new(Code::Busy, detail));
    }

    fn takes_input(&self) -> bool {
        !self.input_ended
            && self.waiting < self.node.limits.waiting_max as u64
            && self.slots.len() < self.node.limits.waiting_max
            && self.out.len() < self.node.limits.output_max
            && self.line_bytes < self.node.limits.output_max
            && !self.tail_waits
    }

    fn is_finished(&self, stopping: bool) -> bool {
        let ended = self.input_ended || stopping;
        match self.active {
            Active::Tail(_) if !stopping => false,
            Active::List(_) => false,
            _ => ended && self.slots.is_empty(),
        }
    }

    /// Does all that can be done without waiting for anybody but the driver.
    async fn advance(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            // The time to take output begins with the output.
            self.progress = Instant::now();
        }
        loop {
            let read = self.read_lines().await?;
            let more = self.write_replies().await?;
            let wrote = self.flush()?;
            // Output that left makes room for more of a list that waited for it.
            if !self.out.is_empty() || !(read || more || wrote) {
                return Ok(());
            }
        }
    }

    // ---- lines ----

    /// Takes all whole lines that may be taken now, and starts appends and waits. Returns whether
    /// there were any.
    async fn read_lines(&mut self) -> Result<bool, End> {
        let line_max = self.line_max();
        if self.lines == 0 && self.input.first() == Some(&0x16) && !self.input_ended {
            self.refuse_protocol("this looks like TLS, the gateway speaks plain text");
            return Ok(true);
        }
        let mut taken = false;
        let mut runs: Vec<AppendRun> = Vec::new();
        while !self.tail_waits && (self.takes_input() || self.input_ended && !self.closing) {
            let Some(end) = self.input[self.searched..].iter().position(|&byte| byte == b'\n')
            else {
                self.searched = self.input.len();
                // The CR of a line end is no part of the line.
                let cr = usize::from(self.input.last() == Some(&b'\r'));
                if self.input.len() - cr > line_max {
                    self.refuse_and_close(too_long(line_max));
                }
                break;
            };
            let len = self.searched + end;
            self.searched = 0;
            if len > line_max + 1 {
                self.refuse_and_close(too_long(line_max));
                break;
            }
            let mut line = self.input.split_to(len + 1).freeze();
            line.truncate(len);
            if line.last() == Some(&b'\r') {
                line.truncate(len - 1);
            }
            if line.len() > line_max {
                self.refuse_and_close(too_long(line_max));
                break;
            }
            taken = true;
            self.take_line(line, &mut runs).await?;
        }
        if !runs.is_empty() {
            session::submit(&self.node, self.connection, runs).await?;
        }
        Ok(taken)
    }

    async fn take_line(&mut self, line: Bytes, runs: &mut Vec<AppendRun>) -> Result<(), End> {
        self.lines += 1;
        if self.lines == 1 && (line.ends_with(b"HTTP/1.0") || line.ends_with(b"HTTP/1.1")) {
            self.refuse_protocol("this gateway speaks lines, not HTTP: try PING or HELP with nc");
            return Ok(());
        }
        if let Active::Tail(tail) = &self.active {
            let end = format!("END count={}\n", tail.count);
            self.out.extend_from_slice(end.as_bytes());
            self.active = Active::None;
        }
        let slot = match parse(&line) {
            Ok(None) => return Ok(()),
            Err(refusal) => Slot::Refused(refusal),
            Ok(Some(Command::Append { options, payload })) => {
                match session::admit_append(&self.node, &options, payload.len()) {
                    Ok(options) => {
                        self.add_append(options, line.slice(payload), runs);
                        return Ok(());
                    }
                    Err(refusal) => Slot::Refused(refusal),
                }
            }
            Ok(Some(Command::Wait { seq, options })) if self.node.role == Role::Master => {
                match session::run_options(&self.node, &options) {
                    Ok(options) => {
                        // A wait sees the appends before it.
                        if !runs.is_empty() {
                            let runs = std::mem::take(runs);
                            session::submit(&self.node, self.connection, runs).await?;
                        }
                        let token = Token { connection: self.connection, slot: self.next_slot() };
                        let wait = ClientInput::Wait { token, seq, options };
                        session::tell(&self.node, wait).await?;
                        self.waiting += 1;
                        Slot::Run { count: 1, written: 0, pieces: BTreeMap::new() }
                    }
                    Err(refusal) => Slot::Refused(refusal),
                }
            }
            Ok(Some(Command::Wait { .. })) => Slot::Refused(session::master_only(&self.node)),
            Ok(Some(command)) => {
                self.input_ended |= command == Command::Quit;
                self.closing |= command == Command::Quit;
                // The line behind a TAIL ends it, so it is not taken before the TAIL has begun.
                self.tail_waits |= matches!(command, Command::Tail { .. });
                self.line_bytes += line.len();
                Slot::Command(command, line)
            }
        };
        self.slots.push_back(slot);
        Ok(())
    }

    /// Adds an append to the run before it if they wait for the same, else begins a run.
    fn add_append(&mut self, options: RunOptions, payload: Bytes, runs: &mut Vec<AppendRun>) {
        const RUN_ENTRIES: u64 = 4096;
        self.waiting += 1;
        let slot = self.next_slot();
        if let (Some(Slot::Run { count, .. }), Some(run)) = (self.slots.back_mut(), runs.last_mut())
            && run.slot + 1 == slot
            && run.options == options
            && *count < RUN_ENTRIES
            && let Payloads::Lines(lines) = &mut run.payloads
        {
            *count += 1;
            lines.push(payload);
            return;
        }
        runs.push(AppendRun { slot, options, payloads: Payloads::Lines(vec![payload]) });
        self.slots.push_back(Slot::Run { count: 1, written: 0, pieces: BTreeMap::new() });
    }

    fn next_slot(&self) -> u64 {
        self.front + self.slots.len() as u64
    }

    fn refuse_protocol(&mut self, sentence: &str) {
        self.refuse_and_close(Refusal::new(Code::NotHttp, format!("- {sentence}")));
    }

    /// Answers once more behind what is under way, takes no more input, and closes.
    fn refuse_and_close(&mut self, refusal: Refusal) {
        self.slots.push_back(Slot::Refused(refusal));
        self.input_ended = true;
        self.closing = true;
        // Its memory too: who is refused may stay a while.
        self.input = BytesMut::new();
        self.searched = 0;
    }

    // ---- replies ----

    fn take_replies(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            let index = reply.slot.checked_sub(self.front).and_then(|i| usize::try_from(i).ok());
            if let Some(Slot::Run { pieces, .. }) = index.and_then(|i| self.slots.get_mut(i)) {
                self.waiting = self.waiting.saturating_sub(reply.count);
                pieces.insert(reply.offset, reply);
            }
        }
    }

    /// Writes what can be written at the front. Returns whether more may follow at once.
    async fn write_replies(&mut self) -> Result<bool, End> {
        let roster = self.node.roster();
        while self.out.len() < OUTPUT_CHUNK_BYTES {
            match &mut self.active {
                Active::List(list) => {
                    if list.write(&self.node, &mut self.out).await {
                        self.active = Active::None;
                    }
                    continue;
                }
                Active::Tail(tail) => {
                    if tail.write(&self.node, &mut self.out).await {
                        self.idle_at = Instant::now() + self.node.heartbeat_interval;
                        continue;
                    }
                    if !self.input_ended {
                        return Ok(false);
                    }
                    self.out.extend_from_slice(format!("END count={}\n", tail.count).as_bytes());
                    self.active = Active::None;
                    continue;
                }
                Active::None => {}
            }
            match self.slots.front_mut() {
                None => return Ok(false),
                Some(Slot::Run { count, written, pieces }) => {
                    while let Some(piece) = pieces.remove(written) {
                        *written += piece.count;
                        write_outcome(&mut self.out, &piece, &roster);
                    }
                    if written < count {
                        return Ok(false);
                    }
                }
                Some(Slot::Refused(refusal)) => {
                    session::write_refusal(&self.node, refusal, &mut self.out);
                }
                Some(Slot::Command(..)) => {}
            }
            self.front += 1;
            if let Some(Slot::Command(command, line)) = self.slots.pop_front() {
                self.line_bytes -= line.len();
                self.begin(command, &line).await?;
            }
        }
        Ok(true)
    }

    async fn begin(&mut self, command: Command, line: &Bytes) -> Result<(), End> {
        self.tail_waits &= !matches!(command, Command::Tail { .. });
        let refusal = match command {
            Command::List { from, limit, level } => List::start(&self.node, from, limit, level)
                .map(|list| self.active = Active::List(list)),
            Command::Tail { start, level } => Tail::start(&self.node, start, level).map(|tail| {
                self.idle_at = Instant::now() + self.node.heartbeat_interval;
                self.active = Active::Tail(tail);
            }),
            command => {
                session::carry_out(&self.node, command, line, &mut self.out).await?;
                Ok(())
            }
        };
        if let Err(refusal) = refusal {
            session::write_refusal(&self.node, &refusal, &mut self.out);
        }
        Ok(())
    }

    /// Writes what the socket takes now. Returns whether that was anything.
    fn flush(&mut self) -> io::Result<bool> {
        let mut wrote = false;
        while !self.out.is_empty() {
            match self.write.try_write(&self.out) {
                Ok(count) => {
                    self.out.advance(count);
                    self.node.metrics.traffic(Kind::Gateway).sent.inc_by(count as u64);
                    wrote = true;
                    if !self.out.is_empty() {
                        self.progress = Instant::now();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(wrote),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(wrote)
    }
}

/// Writes the reply lines of a piece of a run.
pub(super) fn write_outcome(out: &mut BytesMut, reply: &Reply, roster: &[crate::types::NodeId]) {
    match &reply.outcome {
        Outcome::Placed(placed) => write_placed(out, placed, reply.count, roster),
        Outcome::Refused(refusal) => (0..reply.count).for_each(|_| refusal.write(out)),
    }
}

fn too_long(line_max: usize) -> Refusal {
    Refusal::new(Code::TooLong, format!("max={line_max} - the line is too long, closing"))
}
