//! A client's connection by the wire protocol: requests in, replies in any order.

mod request;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use self::request::{cut_line_end, level_of, looks, on_wire, options_of, payload_spans};
use super::inbox::{ClientInput, Node};
use super::link::write_queue;
use super::metrics;
use super::places::Guest;
use super::room::Unfinished;
use super::session::{self, Cursor, DriverGone, List, Tail};
use super::text::write_outcome;
use super::wake::{WaitFor, Wake, Wakes};
use crate::codes::{Class, Code, RefuseCode};
use crate::config::Role;
use crate::engine::Token;
use crate::gateway::command::TailFrom;
use crate::gateway::{Command, Refusal, parse};
use crate::limits::{
    CLIENT_FRAME_BYTES_MIN, COMMANDS_PER_CONNECTION_MAX, GATEWAY_LINE_EXTRA_BYTES,
    OUTPUT_CHUNK_BYTES, RUN_BYTES_MAX, STREAMS_PER_CONNECTION_MAX,
};
use crate::node::client::{AppendRun, Outcome, Payloads, Reply, RunOptions};
use crate::node::introduction::next_message;
use crate::node::queue::{Flushed, FrameQueue, Kind};
use crate::types::{Level, Seq};
use crate::wire::codec::{
    self, AppendReply, AppendRequest, CommandHead, Concern, EntriesHead, RequestRefused, TailStart,
    encode_entries,
};
use crate::wire::{FrameDecoder, Message, OutFrame};

/// The longest head of an ENTRIES or a COMMAND_REPLY: four numbers of 9 bytes, one of 5, and a bool.
const REPLY_HEAD_BYTES_MAX: usize = 42;

/// A run of requests that waits for its answers.
struct Pending {
    /// The client's id of its first request.
    id: u64,
    /// How many are not answered.
    left: u64,
    /// It came as a gateway line and is answered as one.
    as_line: bool,
}

/// A read or tail on its way.
enum Stream {
    Read { id: u64, cursor: Cursor, level: Level },
    Tail { id: u64, tail: Tail, idle_at: Instant },
}

impl Stream {
    fn id(&self) -> u64 {
        match self {
            Stream::Read { id, .. } | Stream::Tail { id, .. } => *id,
        }
    }
}

/// Why a session ends.
enum End {
    Clean,
    Broken,
    Refuse(RefuseCode, String),
}

impl From<DriverGone> for End {
    fn from(_: DriverGone) -> Self {
        End::Broken
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Broken
    }
}

struct WireSession {
    node: Arc<Node>,
    connection: u64,
    decoder: FrameDecoder,
    /// The largest body that the client takes.
    body_bytes_max: usize,
    write: OwnedWriteHalf,
    input: BytesMut,
    out: FrameQueue,
    pending: HashMap<u64, Pending>,
    next_slot: u64,
    waiting: u64,
    commands: VecDeque<(u64, Command, Bytes)>,
    /// Bytes of their lines.
    command_bytes: usize,
    list: Option<(u64, List)>,
    streams: VecDeque<Stream>,
    input_ended: bool,
    /// Frames taken so far.
    frames: u64,
    progress: Instant,
    /// All that is answered on this connection are commands that only look.
    only_looks: bool,
}

/// Serves a client that has introduced itself until it goes.
///
/// `frame_bytes_max` is the largest body that it takes, as it says.
pub(super) async fn serve(
    node: Arc<Node>,
    (read, write): (OwnedReadHalf, OwnedWriteHalf),
    input: BytesMut,
    answer: OutFrame,
    (guest, frame_bytes_max): (Guest, usize),
) {
    let connection = node.connection_number();
    // One message answers at least one append that waits: see `limits.waiting_max`.
    let (sender, replies) = mpsc::channel(node.limits.waiting_max + 1);
    let opened = ClientInput::Opened { connection, replies: sender };
    if session::tell(&node, opened).await.is_err() {
        return;
    }
    let mut wakes = Wakes::new(&node, metrics::Kind::Wire, read, replies);
    let mut wire = WireSession {
        connection,
        decoder: FrameDecoder { body_bytes_max: self::frame_bytes_max(&node) },
        body_bytes_max: frame_bytes_max.max(CLIENT_FRAME_BYTES_MIN),
        write,
        input,
        out: FrameQueue::default(),
        pending: HashMap::new(),
        next_slot: 0,
        waiting: 0,
        commands: VecDeque::new(),
        command_bytes: 0,
        list: None,
        streams: VecDeque::new(),
        input_ended: false,
        frames: 0,
        progress: Instant::now(),
        only_looks: guest.only_looks(),
        node,
    };
    wire.out.push(Kind::Entries(Seq::ZERO), answer);
    let end = tokio::select! {
        end = wire.run(&mut wakes) => end,
        () = guest.evicted() => End::Refuse(RefuseCode::Busy, "another operator came".to_owned()),
    };
    // A driver that is gone needs not be told.
    let _ = session::tell(&wire.node, ClientInput::Closed { connection }).await;
    if let End::Refuse(code, reason) = end {
        wire.node.metrics.connection_refused(code);
        // Replies that the socket takes go first; into the middle of a frame nothing can be said.
        if !matches!(write_queue(&wire.write, &mut wire.out, &mut Flushed::default()), Ok(true)) {
            return;
        }
        debug!(connection, code = code.word(), reason, "client refused");
        wire.input = BytesMut::new(); // Who is refused may stay a while.
        super::reader::refuse(wakes.into_read_half(), wire.write, code, 0, &reason).await;
    }
}

/// The largest frame taken from a client: a run of small entries or the largest payload, and its
/// head; twice that, so that a payload a little too long is refused by itself and not with the
/// connection.
pub(super) fn frame_bytes_max(node: &Node) -> usize {
    (2 * node.limits.payload_max.max(RUN_BYTES_MAX) + (64 << 10))
        .min(crate::limits::FRAME_BODY_BYTES_MAX)
}

impl WireSession {
    async fn run(&mut self, wakes: &mut Wakes) -> End {
        loop {
            if let Err(end) = self.advance().await {
                return end;
            }
            let blocked = !self.out.is_empty();
            let ending = self.input_ended || wakes.stopping();
            if !blocked && ending && self.is_idle(wakes.stopping()) {
                return End::Clean;
            }
            let idle_at = self.streams.iter().filter_map(|stream| match stream {
                Stream::Tail { idle_at, .. } => Some(*idle_at),
                Stream::Read { .. } => None,
            });
            let wait = WaitFor {
                input: self.takes_input(),
                unfinished: self.unfinished(),
                room_by: blocked.then(|| self.progress + self.node.limits.write_timeout),
                entries_by: idle_at.min().filter(|_| !blocked),
            };
            match wakes.next(&mut self.input, &self.write, wait).await {
                Wake::Answered(replies) => self.take_replies(replies),
                Wake::Ready => {}
                Wake::InputEnded => self.input_ended = true,
                Wake::Idle => self.tell_idle(),
                Wake::Unfinished(after) => {
                    let (bytes, seconds) = (self.input.len(), after.as_secs());
                    session::note_unfinished(
                        &self.node,
                        self.connection,
                        &self.write,
                        bytes,
                        seconds,
                    );
                    let reason = format!("a frame was not whole after {seconds} s");
                    return End::Refuse(RefuseCode::Busy, reason);
                }
                Wake::Stalled => {
                    let untaken = self.out.bytes();
                    session::note_slow_reader(&self.node, self.connection, &self.write, untaken);
                    let reason = "the client does not take its output".to_owned();
                    return End::Refuse(RefuseCode::SlowReader, reason);
                }
                Wake::Broken => return End::Broken,
            }
        }
    }

    /// The frame of which a part is there, if it is long.
    fn unfinished(&self) -> Option<Unfinished> {
        let len = self.decoder.frame_len(&self.input).filter(|&len| len > self.input.len())?;
        // What this node does not read its sender cannot finish.
        Unfinished::new(self.frames, self.input.len(), len).filter(|_| self.takes_input())
    }

    fn takes_input(&self) -> bool {
        !self.input_ended
            && self.waiting < self.node.limits.waiting_max as u64
            && self.out.bytes() < self.node.limits.output_max
            && self.out.len() < self.node.limits.waiting_max
            && self.command_bytes < self.node.limits.output_max
    }

    /// Whether nobody waits for anything; a tail has no end of its own.
    fn is_idle(&self, stopping: bool) -> bool {
        let streaming =
            self.streams.iter().any(|stream| !stopping || matches!(stream, Stream::Read { .. }));
        self.pending.is_empty() && self.commands.is_empty() && self.list.is_none() && !streaming
    }

    async fn advance(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            // The time to take output begins with the output.
            self.progress = Instant::now();
        }
        loop {
            let read = self.read_messages().await?;
            let commanded = self.carry_out_commands().await?;
            let streamed = self.stream().await;
            let mut flushed = Flushed::default();
            let before = self.out.bytes();
            let all = write_queue(&self.write, &mut self.out, &mut flushed)?;
            let written = before - self.out.bytes();
            let wrote = written > 0;
            self.node.metrics.traffic(metrics::Kind::Wire).sent.inc_by(written as u64);
            if wrote && !all {
                self.progress = Instant::now();
            }
            // Output that left makes room for more of a list or read that waited for it.
            if !all || !(read || commanded || streamed || wrote) {
                return Ok(());
            }
        }
    }

    // ---- requests ----

    async fn read_messages(&mut self) -> Result<bool, End> {
        let mut runs = Vec::new();
        let mut any = false;
        while self.takes_input() || self.input_ended {
            let message = match next_message(self.decoder, &mut self.input) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err((code, reason)) => return Err(End::Refuse(code, reason)),
            };
            any = true;
            self.frames += 1;
            self.take_message(message, &mut runs).await?;
        }
        self.submit(&mut runs).await?;
        Ok(any)
    }

    async fn submit(&mut self, runs: &mut Vec<AppendRun>) -> Result<(), End> {
        if !runs.is_empty() {
            session::submit(&self.node, self.connection, std::mem::take(runs)).await?;
        }
        Ok(())
    }

    async fn take_message(
        &mut self,
        mut message: Message,
        runs: &mut Vec<AppendRun>,
    ) -> Result<(), End> {
        if let Message::Command(_, line) = &mut message {
            cut_line_end(line);
        }
        match message {
            message if self.only_looks && !looks(&message) => self.refuse_to_operator(&message)?,
            Message::AppendRequest(head, payloads) => self.take_append(&head, payloads, runs)?,
            Message::WaitRequest(wait) => {
                let options = options_of(wait.concern, wait.ack, wait.timeout);
                // A wait sees the appends before it.
                self.submit(runs).await?;
                let no_node = wait.concern == Concern::Nodes(0);
                self.wait(wait.id, Seq::new(wait.seq), options, no_node, false).await?;
            }
            Message::ReadRequest(read) => {
                let level = level_of(read.level);
                let from = Seq::new(read.from).max(Seq::FIRST);
                let stream = level.and_then(|level| {
                    let (last, _) = session::visible(&self.node, level)?;
                    let cursor = Cursor::new(from, read.limit, last);
                    Ok(Stream::Read { id: read.id, cursor, level })
                });
                self.add_stream(read.id, stream);
            }
            Message::TailRequest(tail) => {
                let start = match tail.start {
                    TailStart::New => TailFrom::New,
                    TailStart::From(seq) => TailFrom::Seq(Seq::new(seq).max(Seq::FIRST)),
                    TailStart::Last(count) => TailFrom::Last(count),
                };
                let stream = level_of(tail.level)
                    .and_then(|level| Tail::start(&self.node, start, level))
                    .map(|state| {
                        let idle_at = Instant::now() + self.node.heartbeat_interval;
                        Stream::Tail { id: tail.id, tail: state, idle_at }
                    });
                self.add_stream(tail.id, stream);
            }
            Message::Cancel(cancel) => {
                // One that crossed the end of what it cancels is too late, and no error.
                if let Some(at) = self.streams.iter().position(|s| s.id() == cancel.id) {
                    let stream = self.streams.remove(at);
                    stream.into_iter().for_each(|stream| self.end_stream(&stream));
                }
            }
            Message::Command(head, line) => {
                self.submit(runs).await?;
                self.take_command(head.id, line, runs).await?;
                self.submit(runs).await?;
            }
            // It is not answered: whoever refuses closes.
            Message::Refuse(_) => return Err(End::Broken),
            _ => {
                let reason = "a frame that a client does not send".to_owned();
                return Err(End::Refuse(RefuseCode::BadFrame, reason));
            }
        }
        Ok(())
    }

    /// On an operator's connection nothing but looking is answered, and nothing else is done.
    fn refuse_to_operator(&mut self, message: &Message) -> Result<(), End> {
        let max = self.node.limits.connections_max;
        let detail =
            format!("connections={max} - this connection is an operator's: it may only look");
        let refusal = Refusal::new(Code::Busy, detail);
        match message {
            Message::AppendRequest(head, _) => {
                let count = u64::from(head.count.max(1));
                self.node.metrics.refused(refusal.code, count);
                self.reply(head.id, count, codec::Outcome::Refused(on_wire(&refusal)));
            }
            Message::WaitRequest(wait) => self.answer_refused(wait.id, &refusal, false),
            Message::Command(head, _) => self.answer_refused(head.id, &refusal, true),
            Message::ReadRequest(codec::ReadRequest { id, .. })
            | Message::TailRequest(codec::TailRequest { id, .. }) => {
                self.add_stream(*id, Err(refusal));
            }
            _ => {
                let reason = "a frame that a client does not send".to_owned();
                return Err(End::Refuse(RefuseCode::BadFrame, reason));
            }
        }
        Ok(())
    }

    fn take_append(
        &mut self,
        head: &AppendRequest,
        buffer: Bytes,
        runs: &mut Vec<AppendRun>,
    ) -> Result<(), End> {
        let last_id = head.id.checked_add(u64::from(head.count));
        let Some(spans) = payload_spans(&buffer, head.count).filter(|_| last_id.is_some()) else {
            let reason = "the payloads of an APPEND_REQUEST do not fill its tail".to_owned();
            return Err(End::Refuse(RefuseCode::BadFrame, reason));
        };
        let count = spans.len() as u64;
        if let Err(refusal) = self.admit(head) {
            self.refuse_appends(head.id, count, &refusal);
            return Ok(());
        }
        let options = options_of(head.concern, head.ack, head.timeout);
        let max = self.node.limits.payload_max;
        let bytes_of = |span: &(u32, u32)| (span.1 - span.0) as usize;
        let mut at = 0;
        while at < spans.len() {
            // A payload that is too long is refused alone: the run is cut around it.
            let good = spans[at..].iter().take_while(|span| bytes_of(span) <= max).count();
            if good > 0 && head.concern == Concern::Nodes(0) {
                let refusal = Refusal::bad_write_concern("0", self.node.roster().len());
                self.refuse_appends(head.id + at as u64, good as u64, &refusal);
            } else if good > 0 {
                let slot = self.add_pending(head.id + at as u64, good as u64, false);
                let spans = spans[at..at + good].to_vec();
                let payloads = Payloads::Framed { buffer: buffer.clone(), spans };
                runs.push(AppendRun { slot, options, payloads });
            }
            at += good;
            if let Some(span) = spans.get(at) {
                let refusal = Refusal::too_large(bytes_of(span), max);
                self.refuse_appends(head.id + at as u64, 1, &refusal);
                at += 1;
            }
        }
        Ok(())
    }

    fn refuse_appends(&mut self, id: u64, count: u64, refusal: &Refusal) {
        self.node.metrics.refused(refusal.code, count);
        self.reply(id, count, codec::Outcome::Refused(on_wire(refusal)));
    }

    /// The checks of an append that hold for all entries of the frame, and come before their sizes:
    /// see `session::admit_append`.
    fn admit(&self, head: &AppendRequest) -> Result<(), Refusal> {
        let reserved = [
            (head.producer.is_some(), "id"),
            (head.match_seq.is_some(), "match"),
            (head.atomic, "mode"),
        ];
        if let Some((_, key)) = reserved.iter().find(|(given, _)| *given) {
            let detail = format!("option={key} - {key}= is not available yet");
            return Err(Refusal::new(Code::BadOption, detail));
        }
        if self.node.role == Role::Secondary {
            return Err(Refusal::not_master(&self.node.master_addr()));
        }
        Ok(())
    }

    async fn wait(
        &mut self,
        id: u64,
        seq: Seq,
        options: RunOptions,
        no_node: bool,
        as_line: bool,
    ) -> Result<(), End> {
        if self.node.role == Role::Secondary {
            self.answer_refused(id, &session::master_only(&self.node), as_line);
            return Ok(());
        }
        if no_node {
            let refusal = Refusal::bad_write_concern("0", self.node.roster().len());
            self.answer_refused(id, &refusal, as_line);
            return Ok(());
        }
        let slot = self.add_pending(id, 1, as_line);
        let token = Token { connection: self.connection, slot };
        session::tell(&self.node, ClientInput::Wait { token, seq, options }).await?;
        Ok(())
    }

    fn add_pending(&mut self, id: u64, count: u64, as_line: bool) -> u64 {
        let slot = self.next_slot;
        self.next_slot += 1;
        self.waiting += count;
        self.pending.insert(slot, Pending { id, left: count, as_line });
        slot
    }

    async fn take_command(
        &mut self,
        id: u64,
        line: Bytes,
        runs: &mut Vec<AppendRun>,
    ) -> Result<(), End> {
        let line_max = self.node.limits.payload_max + GATEWAY_LINE_EXTRA_BYTES;
        if line.len() > line_max {
            let detail = format!("max={line_max} - the line is too long");
            self.answer_refused(id, &Refusal::new(Code::TooLong, detail), true);
            return Ok(());
        }
        match parse(&line) {
            Err(refusal) => self.answer_refused(id, &refusal, true),
            Ok(None) => self.reply_line(id, Bytes::new(), true),
            Ok(Some(Command::Append { options, payload })) => {
                match session::admit_append(&self.node, &options, payload.len()) {
                    Err(refusal) => self.answer_refused(id, &refusal, true),
                    Ok(options) => {
                        let slot = self.add_pending(id, 1, true);
                        let payloads = Payloads::Lines(vec![line.slice(payload)]);
                        runs.push(AppendRun { slot, options, payloads });
                    }
                }
            }
            Ok(Some(Command::Wait { seq, options })) => {
                match session::run_options(&self.node, &options) {
                    Err(_) if self.node.role == Role::Secondary => {
                        self.answer_refused(id, &session::master_only(&self.node), true);
                    }
                    Err(refusal) => self.answer_refused(id, &refusal, true),
                    Ok(options) => self.wait(id, seq, options, false, true).await?,
                }
            }
            Ok(Some(Command::Tail { .. })) => {
                let detail = "- a COMMAND cannot tail, send a TAIL_REQUEST";
                self.answer_refused(id, &Refusal::new(Code::BadValue, detail), true);
            }
            Ok(Some(_)) if self.commands.len() >= COMMANDS_PER_CONNECTION_MAX => {
                let detail = "- too many commands under way on this connection";
                self.answer_refused(id, &Refusal::new(Code::Busy, detail), true);
            }
            Ok(Some(command)) => {
                self.command_bytes += line.len();
                self.commands.push_back((id, command, line));
            }
        }
        Ok(())
    }

    // ---- replies ----

    fn take_replies(&mut self, replies: Vec<Reply>) {
        let roster = self.node.roster();
        for reply in replies {
            let Some(pending) = self.pending.get_mut(&reply.slot) else { continue };
            let Pending { id, as_line, .. } = *pending;
            pending.left = pending.left.saturating_sub(reply.count);
            if pending.left == 0 {
                self.pending.remove(&reply.slot);
            }
            self.waiting = self.waiting.saturating_sub(reply.count);
            if as_line {
                let mut line = BytesMut::new();
                write_outcome(&mut line, &reply, &roster);
                self.reply_line(id, line.freeze(), true);
                continue;
            }
            let outcome = match &reply.outcome {
                Outcome::Refused(refusal) => codec::Outcome::Refused(on_wire(refusal)),
                Outcome::Placed(placed) => {
                    let class = placed.class;
                    let placed = codec::Placed {
                        seq: placed.seq.number(),
                        epoch: placed.epoch.number(),
                        need: placed.need as u16, // At most NODES_MAX.
                        holders: placed.holders.bits(),
                    };
                    match class {
                        Class::Ok => codec::Outcome::Ok(placed),
                        Class::Pending => codec::Outcome::Pending(placed),
                        _ => codec::Outcome::Unknown(placed),
                    }
                }
            };
            self.reply(id + reply.offset, reply.count, outcome);
        }
    }

    fn reply(&mut self, id: u64, count: u64, outcome: codec::Outcome) {
        // A run has no more entries than its frame announced in a u32.
        let reply = AppendReply { id, count: count as u32, outcome };
        self.send(&Message::AppendReply(reply));
    }

    /// A piece of a reply, cut as the client takes it.
    fn reply_line(&mut self, id: u64, mut bytes: Bytes, end: bool) {
        let max = RUN_BYTES_MAX.min(self.body_bytes_max - REPLY_HEAD_BYTES_MAX);
        while bytes.len() > max {
            let piece = bytes.split_to(max);
            self.send(&Message::CommandReply(CommandHead { id, end: false }, piece));
        }
        self.send(&Message::CommandReply(CommandHead { id, end }, bytes));
    }

    fn answer_refused(&mut self, id: u64, refusal: &Refusal, as_line: bool) {
        if as_line {
            let mut line = BytesMut::new();
            session::write_refusal(&self.node, refusal, &mut line);
            self.reply_line(id, line.freeze(), true);
        } else {
            self.node.metrics.refused(refusal.code, 1);
            self.reply(id, 1, codec::Outcome::Refused(on_wire(refusal)));
        }
    }

    fn send(&mut self, message: &Message) {
        self.out.push(Kind::Entries(Seq::ZERO), message.encode());
    }

    /// Carries commands out in their order, one at a time. Returns whether there is more to do.
    async fn carry_out_commands(&mut self) -> Result<bool, End> {
        let mut any = false;
        while self.out.bytes() < OUTPUT_CHUNK_BYTES {
            let mut bytes = BytesMut::new();
            if let Some((id, list)) = &mut self.list {
                let (id, end) = (*id, list.write(&self.node, &mut bytes).await);
                if end {
                    self.list = None;
                }
                self.reply_line(id, bytes.freeze(), end);
                any = true;
                continue;
            }
            let Some((id, command, line)) = self.commands.pop_front() else { break };
            self.command_bytes -= line.len();
            any = true;
            match command {
                Command::List { from, limit, level } => {
                    match List::start(&self.node, from, limit, level) {
                        Ok(list) => self.list = Some((id, list)),
                        Err(refusal) => self.answer_refused(id, &refusal, true),
                    }
                }
                command => {
                    session::carry_out(&self.node, command, &line, &mut bytes).await?;
                    self.reply_line(id, bytes.freeze(), true);
                }
            }
        }
        Ok(any)
    }

    // ---- reads and tails ----

    fn add_stream(&mut self, id: u64, stream: Result<Stream, Refusal>) {
        let refusal = match stream {
            Ok(_) if self.streams.len() >= STREAMS_PER_CONNECTION_MAX => {
                Refusal::new(Code::Busy, "- too many reads under way on this connection")
            }
            Ok(stream) => {
                return self.streams.push_back(stream);
            }
            Err(refusal) => refusal,
        };
        self.refuse_stream(id, &refusal);
    }

    fn refuse_stream(&mut self, id: u64, refusal: &Refusal) {
        self.node.metrics.refused(refusal.code, 1);
        let refusal = on_wire(refusal);
        self.send(&Message::RequestRefused(RequestRefused { id, refusal }));
    }

    /// Gives each stream a turn while there is room. Returns whether anything was sent.
    async fn stream(&mut self) -> bool {
        let mut any = false;
        for _ in 0..self.streams.len() {
            if self.out.bytes() >= 2 * RUN_BYTES_MAX {
                break;
            }
            let Some(mut stream) = self.streams.pop_front() else { break };
            let done = match &mut stream {
                Stream::Read { id, cursor, level } => {
                    any = true;
                    let (id, level) = (*id, *level);
                    self.send_entries(id, cursor, level, true).await
                }
                // Who closed its sending side cannot end it any more.
                Stream::Tail { tail, .. }
                    if self.input_ended && tail.cursor(&self.node).is_done() =>
                {
                    any = true;
                    self.end_stream(&stream);
                    true
                }
                Stream::Tail { id, tail, idle_at } => {
                    let mut cursor = tail.cursor(&self.node);
                    if !cursor.is_done() {
                        any = true;
                        let (id, level) = (*id, tail.level);
                        let ended = self.send_entries(id, &mut cursor, level, false).await;
                        tail.next = cursor.next;
                        *idle_at = Instant::now() + self.node.heartbeat_interval;
                        ended
                    } else {
                        false
                    }
                }
            };
            if !done {
                self.streams.push_back(stream);
            }
        }
        any
    }

    /// Sends the next piece of a stream; `ends` tells whether the stream ends with its cursor. An entry
    /// that the client does not take ends it, too. Returns whether it was the last.
    async fn send_entries(
        &mut self,
        id: u64,
        cursor: &mut Cursor,
        level: Level,
        ends: bool,
    ) -> bool {
        let max = self.body_bytes_max - REPLY_HEAD_BYTES_MAX;
        let slice = cursor.read(&self.node, RUN_BYTES_MAX.min(max)).await;
        let bytes: usize = slice.pieces.iter().map(Bytes::len).sum();
        if bytes > max {
            let seq = slice.range.map_or(Seq::ZERO, |range| range.first);
            let detail =
                format!("seq={seq} bytes={bytes} - longer than the frame_bytes_max of this client");
            self.refuse_stream(id, &Refusal::new(Code::TooLong, detail));
            return true;
        }
        let end = ends && cursor.is_done();
        let head = EntriesHead {
            first: slice.range.map_or(0, |range| range.first.number()),
            count: slice.range.map_or(0, |range| range.len()) as u32, // At most RUN_ENTRIES_MAX.
            ..self.entries_head(id, level, end)
        };
        let frame = encode_entries(&head, slice.pieces);
        self.out.push(Kind::Entries(Seq::ZERO), frame);
        end
    }

    fn entries_head(&self, id: u64, level: Level, end: bool) -> EntriesHead {
        let (next, commit) = session::visible(&self.node, level)
            .map_or((0, 0), |(last, levels)| (last.next().number(), levels.commit.number()));
        EntriesHead { id, first: 0, count: 0, next, commit, end }
    }

    fn end_stream(&mut self, stream: &Stream) {
        let level = match stream {
            Stream::Read { level, .. } => *level,
            Stream::Tail { tail, .. } => tail.level,
        };
        let head = self.entries_head(stream.id(), level, true);
        self.out.push(Kind::Entries(Seq::ZERO), encode_entries(&head, Vec::new()));
    }

    fn tell_idle(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for stream in &mut self.streams {
            if let Stream::Tail { id, tail, idle_at } = stream
                && *idle_at <= now
            {
                *idle_at = now + self.node.heartbeat_interval;
                due.push((*id, tail.level));
            }
        }
        for (id, level) in due {
            let head = self.entries_head(id, level, false);
            self.out.push(Kind::Entries(Seq::ZERO), encode_entries(&head, Vec::new()));
        }
    }
}
