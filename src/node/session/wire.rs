//! A session by the wire protocol: requests in, replies in any order.

mod request;

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::mem;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::request::{cut_line_end, level_of, looks, on_wire, options_of, payload_spans};
use super::admission::{admit_append, admit_concern, admit_role, admit_size, admit_wait};
use super::command::{self, Step, Work};
use super::reading::{Cursor, Tail, visible};
use super::text::write_outcome;
use super::{Answer, End, Request, Session, Sight, Unfinished, Waits};
use crate::codes::{Class, Code, RefuseCode};
use crate::gateway::command::TailFrom;
use crate::gateway::{Command, Refusal, parse};
use crate::limits::{
    CLIENT_FRAME_BYTES_MIN, COMMANDS_PER_CONNECTION_MAX, FRAME_BODY_BYTES_MAX,
    GATEWAY_LINE_EXTRA_BYTES, Limits, OUTPUT_CHUNK_BYTES, RUN_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
};
use crate::node::client::{AppendRun, Outcome, Payloads, Reply};
use crate::node::introduction::next_message;
use crate::node::queue::{FrameQueue, Kind};
use crate::store::Slice;
use crate::types::{Level, Seq, Time, WaitOptions};
use crate::wire::codec::{
    self, AppendReply, AppendRequest, CommandHead, EntriesHead, RequestRefused, TailStart,
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
    Tail { id: u64, tail: Tail, idle_at: Time },
}

impl Stream {
    fn id(&self) -> u64 {
        match self {
            Stream::Read { id, .. } | Stream::Tail { id, .. } => *id,
        }
    }

    fn level(&self) -> Level {
        match self {
            Stream::Read { level, .. } => *level,
            Stream::Tail { tail, .. } => tail.level,
        }
    }

    /// What is there for it.
    fn cursor(&self, sight: Sight<'_>) -> Cursor {
        match self {
            Stream::Read { cursor, .. } => *cursor,
            Stream::Tail { tail, .. } => tail.cursor(sight),
        }
    }
}

/// What is waited for.
enum Asked {
    /// By the command of this id.
    Work(u64, Work),
    /// The next piece of a stream.
    Piece(Stream, Cursor),
}

/// See the module.
pub struct WireSession {
    limits: Limits,
    decoder: FrameDecoder,
    /// The largest body that the client takes.
    body_bytes_max: usize,
    input: BytesMut,
    out: FrameQueue,
    pending: HashMap<u64, Pending>,
    next_slot: u64,
    waiting: u64,
    commands: VecDeque<(u64, Command, Bytes)>,
    /// Bytes of their lines.
    command_bytes: usize,
    /// A command that has more to write.
    work: Option<(u64, Work)>,
    streams: VecDeque<Stream>,
    asked: Option<Asked>,
    /// Whose turn it is: commands and streams take turns.
    streams_first: bool,
    input_ended: bool,
    /// Frames taken so far.
    frames: u64,
    /// Runs that were not handed out yet.
    runs: Vec<AppendRun>,
    requests: VecDeque<Request>,
    refusals: Vec<(Code, u64)>,
    progress: Time,
    /// All that is answered on this connection are commands that only look.
    only_looks: bool,
}

/// The largest frame taken from a client: a run of small entries or the largest payload, and its
/// head; twice that, so that a payload a little too long is refused by itself and not with the
/// connection.
pub fn frame_bytes_max(limits: &Limits) -> usize {
    (2 * limits.payload_max.max(RUN_BYTES_MAX) + (64 << 10)).min(FRAME_BODY_BYTES_MAX)
}

impl WireSession {
    /// A session of a client that has introduced itself, and is answered by `answer`. It takes bodies of
    /// up to `takes` bytes, as it says. An operator `only_looks`.
    pub fn new(
        limits: &Limits,
        input: BytesMut,
        answer: OutFrame,
        (only_looks, takes): (bool, usize),
    ) -> Self {
        let mut out = FrameQueue::default();
        out.push(Kind::Entries(Seq::ZERO), answer);
        WireSession {
            decoder: FrameDecoder { body_bytes_max: frame_bytes_max(limits) },
            body_bytes_max: takes.max(CLIENT_FRAME_BYTES_MIN),
            limits: limits.clone(),
            input,
            out,
            pending: HashMap::new(),
            next_slot: 0,
            waiting: 0,
            commands: VecDeque::new(),
            command_bytes: 0,
            work: None,
            streams: VecDeque::new(),
            asked: None,
            streams_first: false,
            input_ended: false,
            frames: 0,
            runs: Vec::new(),
            requests: VecDeque::new(),
            refusals: Vec::new(),
            progress: Time::ZERO,
            only_looks,
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
            && self.waiting < self.limits.waiting_max as u64
            && self.out.bytes() < self.limits.output_max
            && self.out.len() < self.limits.waiting_max
            && self.command_bytes < self.limits.output_max
    }

    // ---- requests ----

    fn read_messages(&mut self, sight: Sight<'_>) -> Result<bool, End> {
        let mut any = false;
        while self.takes_input() || self.input_ended {
            let message = match next_message(self.decoder, &mut self.input) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err((code, reason)) => return Err(End::Refuse(code, reason)),
            };
            any = true;
            self.frames += 1;
            self.take_message(sight, message)?;
        }
        self.submit();
        Ok(any)
    }

    /// Hands out the runs read so far.
    fn submit(&mut self) {
        if !self.runs.is_empty() {
            self.requests.push_back(Request::Append(mem::take(&mut self.runs)));
        }
    }

    fn take_message(&mut self, sight: Sight<'_>, mut message: Message) -> Result<(), End> {
        if let Message::Command(_, line) = &mut message {
            cut_line_end(line);
        }
        match message {
            message if self.only_looks && !looks(&message) => {
                self.refuse_to_operator(sight, &message)?;
            }
            Message::AppendRequest(head, payloads) => self.take_append(sight, &head, payloads)?,
            Message::WaitRequest(wait) => {
                let (options, bad_concern) = options_of(wait.concern, wait.ack, wait.timeout);
                // A wait sees the appends before it.
                self.submit();
                let admitted = admit_wait(sight, bad_concern.as_ref());
                self.wait(wait.id, (Seq::new(wait.seq), options), admitted, false);
            }
            Message::ReadRequest(read) => {
                let level = level_of(read.level);
                let from = Seq::new(read.from).max(Seq::FIRST);
                let stream = level.and_then(|level| {
                    let (last, _) = visible(sight, level)?;
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
                let state = level_of(tail.level).and_then(|it| Tail::start(sight, start, it));
                let idle_at = sight.now.after(sight.site.heartbeat_interval);
                let stream = state.map(|state| Stream::Tail { id: tail.id, tail: state, idle_at });
                self.add_stream(tail.id, stream);
            }
            Message::Cancel(cancel) => {
                // One that crossed the end of what it cancels is too late, and no error.
                if let Some(at) = self.streams.iter().position(|s| s.id() == cancel.id) {
                    let stream = self.streams.remove(at);
                    stream.into_iter().for_each(|stream| self.end_stream(sight, &stream));
                }
            }
            Message::Command(head, line) => {
                self.submit();
                self.take_command(sight, head.id, line);
                self.submit();
            }
            // It is not answered: whoever refuses closes.
            Message::Refuse(_) => return Err(End::Broken),
            _ => return Err(not_from_a_client()),
        }
        Ok(())
    }

    /// On an operator's connection nothing but looking is answered, and nothing else is done.
    fn refuse_to_operator(&mut self, sight: Sight<'_>, message: &Message) -> Result<(), End> {
        let max = sight.site.limits.connections_max;
        let detail =
            format!("connections={max} - this connection is an operator's: it may only look");
        let refusal = Refusal::new(Code::Busy, detail);
        match message {
            Message::AppendRequest(head, _) => {
                self.refuse_appends(head.id, u64::from(head.count.max(1)), &refusal);
            }
            Message::WaitRequest(wait) => self.answer_refused(wait.id, &refusal, false),
            Message::Command(head, _) => self.answer_refused(head.id, &refusal, true),
            Message::ReadRequest(codec::ReadRequest { id, .. })
            | Message::TailRequest(codec::TailRequest { id, .. }) => {
                self.add_stream(*id, Err(refusal));
            }
            _ => return Err(not_from_a_client()),
        }
        Ok(())
    }

    fn take_append(
        &mut self,
        sight: Sight<'_>,
        head: &AppendRequest,
        buffer: Bytes,
    ) -> Result<(), End> {
        let last_id = head.id.checked_add(u64::from(head.count));
        let Some(spans) = payload_spans(&buffer, head.count).filter(|_| last_id.is_some()) else {
            let reason = "the payloads of an APPEND_REQUEST do not fill its tail".to_owned();
            return Err(End::Refuse(RefuseCode::BadFrame, reason));
        };
        let count = spans.len() as u64;
        if let Err(refusal) = admit_options(head).and_then(|()| admit_role(sight)) {
            self.refuse_appends(head.id, count, &refusal);
            return Ok(());
        }
        let (options, bad_concern) = options_of(head.concern, head.ack, head.timeout);
        let concern = admit_concern(sight, bad_concern.as_ref());
        let bytes_of = |span: &(u32, u32)| (span.1 - span.0) as usize;
        let mut at = 0;
        while at < spans.len() {
            // A payload that is too long is refused alone: the run is cut around it.
            let fits = |span: &&(u32, u32)| admit_size(sight, bytes_of(span)).is_ok();
            let good = spans[at..].iter().take_while(fits).count();
            if let (1.., Err(refusal)) = (good, &concern) {
                self.refuse_appends(head.id + at as u64, good as u64, refusal);
            } else if good > 0 {
                let slot = self.add_pending(head.id + at as u64, good as u64, false);
                let spans = spans[at..at + good].to_vec();
                let payloads = Payloads::Framed { buffer: buffer.clone(), spans };
                self.runs.push(AppendRun { slot, options, payloads });
            }
            at += good;
            if let Some(Err(refusal)) = spans.get(at).map(|span| admit_size(sight, bytes_of(span)))
            {
                self.refuse_appends(head.id + at as u64, 1, &refusal);
                at += 1;
            }
        }
        Ok(())
    }

    fn refuse_appends(&mut self, id: u64, count: u64, refusal: &Refusal) {
        self.refusals.push((refusal.code, count));
        self.reply(id, count, codec::Outcome::Refused(on_wire(refusal)));
    }

    fn wait(
        &mut self,
        id: u64,
        (seq, options): (Seq, WaitOptions),
        admitted: Result<(), Refusal>,
        as_line: bool,
    ) {
        match admitted {
            Ok(()) => {
                let slot = self.add_pending(id, 1, as_line);
                self.requests.push_back(Request::Wait { slot, seq, options });
            }
            Err(refusal) => self.answer_refused(id, &refusal, as_line),
        }
    }

    fn add_pending(&mut self, id: u64, count: u64, as_line: bool) -> u64 {
        let slot = self.next_slot;
        self.next_slot += 1;
        self.waiting += count;
        self.pending.insert(slot, Pending { id, left: count, as_line });
        slot
    }

    fn take_command(&mut self, sight: Sight<'_>, id: u64, line: Bytes) {
        let line_max = self.limits.payload_max + GATEWAY_LINE_EXTRA_BYTES;
        if line.len() > line_max {
            let detail = format!("max={line_max} - the line is too long");
            return self.answer_refused(id, &Refusal::new(Code::TooLong, detail), true);
        }
        match parse(&line) {
            Err(refusal) => self.answer_refused(id, &refusal, true),
            Ok(None) => self.reply_line(id, Bytes::new(), true),
            Ok(Some(Command::Append { options, bad_concern, payload })) => {
                match admit_append(sight, payload.len(), bad_concern.as_ref()) {
                    Err(refusal) => self.answer_refused(id, &refusal, true),
                    Ok(()) => {
                        let slot = self.add_pending(id, 1, true);
                        let payloads = Payloads::Lines(vec![line.slice(payload)]);
                        self.runs.push(AppendRun { slot, options, payloads });
                    }
                }
            }
            Ok(Some(Command::Wait { seq, options, bad_concern })) => {
                let admitted = admit_wait(sight, bad_concern.as_ref());
                self.wait(id, (seq, options), admitted, true);
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
    }

    // ---- replies ----

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
        self.refusals.push((refusal.code, 1));
        if as_line {
            let mut line = BytesMut::new();
            refusal.write(&mut line);
            self.reply_line(id, line.freeze(), true);
        } else {
            self.reply(id, 1, codec::Outcome::Refused(on_wire(refusal)));
        }
    }

    fn send(&mut self, message: &Message) {
        self.out.push(Kind::Entries(Seq::ZERO), message.encode());
    }

    // ---- commands ----

    /// Carries commands out in their order, one at a time. Returns whether there is more to do.
    fn carry_out_commands(&mut self, sight: Sight<'_>) -> bool {
        let mut any = false;
        while self.asked.is_none() && self.out.bytes() < OUTPUT_CHUNK_BYTES {
            let mut bytes = BytesMut::new();
            let (id, step) = if let Some((id, work)) = self.work.take() {
                (id, Ok(work.go_on(sight, &mut bytes)))
            } else if let Some((id, command, line)) = self.commands.pop_front() {
                self.command_bytes -= line.len();
                (id, command::begin(sight, command, &line, &mut bytes))
            } else {
                break;
            };
            self.step(id, step, bytes);
            any = true;
        }
        any
    }

    fn step(&mut self, id: u64, step: Result<Step, Refusal>, bytes: BytesMut) {
        let end = match step {
            Ok(Step::Done) => true,
            Ok(Step::More(work)) => {
                self.work = Some((id, work));
                false
            }
            Ok(Step::Ask(work, question)) => {
                self.requests.push_back(Request::Ask(question));
                self.asked = Some(Asked::Work(id, work));
                false
            }
            Err(refusal) => return self.answer_refused(id, &refusal, true),
        };
        if end || !bytes.is_empty() {
            self.reply_line(id, bytes.freeze(), end);
        }
    }

    // ---- reads and tails ----

    fn add_stream(&mut self, id: u64, stream: Result<Stream, Refusal>) {
        let refusal = match stream {
            Ok(_) if self.streams.len() >= STREAMS_PER_CONNECTION_MAX => {
                Refusal::new(Code::Busy, "- too many reads under way on this connection")
            }
            Ok(stream) => return self.streams.push_back(stream),
            Err(refusal) => refusal,
        };
        self.refuse_stream(id, &refusal);
    }

    fn refuse_stream(&mut self, id: u64, refusal: &Refusal) {
        self.refusals.push((refusal.code, 1));
        let refusal = on_wire(refusal);
        self.send(&Message::RequestRefused(RequestRefused { id, refusal }));
    }

    /// Gives the streams turns while there is room. Returns whether anything was asked or sent.
    fn stream(&mut self, sight: Sight<'_>) -> bool {
        let mut any = false;
        for _ in 0..self.streams.len() {
            if self.asked.is_some() || self.out.bytes() >= 2 * RUN_BYTES_MAX {
                break;
            }
            let Some(stream) = self.streams.pop_front() else { break };
            let cursor = stream.cursor(sight);
            if !cursor.is_done() {
                let bytes_max = RUN_BYTES_MAX.min(self.body_bytes_max - REPLY_HEAD_BYTES_MAX);
                self.requests.push_back(Request::Ask(cursor.ask(bytes_max)));
                self.asked = Some(Asked::Piece(stream, cursor));
                any = true;
            } else if self.input_ended || matches!(stream, Stream::Read { .. }) {
                // A read of nothing; or a tail that nobody can end any more.
                self.end_stream(sight, &stream);
                any = true;
            } else {
                self.streams.push_back(stream);
            }
        }
        any
    }

    /// Sends the piece of a stream that was read. An entry that the client does not take ends the
    /// stream.
    fn send_piece(
        &mut self,
        sight: Sight<'_>,
        mut stream: Stream,
        mut cursor: Cursor,
        slice: Slice,
    ) {
        let id = stream.id();
        let max = self.body_bytes_max - REPLY_HEAD_BYTES_MAX;
        let bytes: usize = slice.pieces.iter().map(Bytes::len).sum();
        if bytes > max {
            let seq = slice.range.map_or(Seq::ZERO, |range| range.first);
            let detail =
                format!("seq={seq} bytes={bytes} - longer than the frame_bytes_max of this client");
            return self.refuse_stream(id, &Refusal::new(Code::TooLong, detail));
        }
        if let (Stream::Tail { tail, idle_at, .. }, None) = (&mut stream, slice.range) {
            tail.pass(sight, &slice);
            *idle_at = sight.now.after(sight.site.heartbeat_interval);
            return self.streams.push_back(stream);
        }
        cursor.pass(&slice);
        let end = matches!(stream, Stream::Read { .. }) && cursor.is_done();
        let head = EntriesHead {
            first: slice.range.map_or(0, |range| range.first.number()),
            count: slice.range.map_or(0, |range| range.len()) as u32, // At most RUN_ENTRIES_MAX.
            ..entries_head(sight, id, stream.level(), end)
        };
        match &mut stream {
            Stream::Read { cursor: own, .. } => *own = cursor,
            Stream::Tail { tail, idle_at, .. } => {
                tail.pass(sight, &slice);
                *idle_at = sight.now.after(sight.site.heartbeat_interval);
            }
        }
        self.out.push(Kind::Entries(Seq::ZERO), encode_entries(&head, slice.pieces));
        if !end {
            self.streams.push_back(stream);
        }
    }

    fn end_stream(&mut self, sight: Sight<'_>, stream: &Stream) {
        let head = entries_head(sight, stream.id(), stream.level(), true);
        self.out.push(Kind::Entries(Seq::ZERO), encode_entries(&head, Vec::new()));
    }
}

impl Session for WireSession {
    fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    fn handle_input_end(&mut self) {
        self.input_ended = true;
    }

    fn handle_replies(&mut self, sight: Sight<'_>, replies: Vec<Reply>) {
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
                write_outcome(&mut line, &reply, sight.roster());
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

    fn handle_answer(&mut self, sight: Sight<'_>, answer: Answer) {
        match (self.asked.take(), answer) {
            (Some(Asked::Work(id, work)), answer) => {
                let mut bytes = BytesMut::new();
                let step = work.resume(sight, answer, &mut bytes);
                self.step(id, step, bytes);
                self.streams_first = true;
            }
            (Some(Asked::Piece(stream, cursor)), Answer::Read(slice)) => {
                self.send_piece(sight, stream, cursor, slice);
                self.streams_first = false;
            }
            (_, answer) => unreachable!("BUG: {answer:?}, and nobody asked"),
        }
    }

    fn handle_idle(&mut self, sight: Sight<'_>) {
        let mut due = Vec::new();
        for stream in &mut self.streams {
            if let Stream::Tail { id, tail, idle_at } = stream
                && *idle_at <= sight.now
            {
                *idle_at = sight.now.after(sight.site.heartbeat_interval);
                due.push((*id, tail.level));
            }
        }
        for (id, level) in due {
            let head = entries_head(sight, id, level, false);
            self.out.push(Kind::Entries(Seq::ZERO), encode_entries(&head, Vec::new()));
        }
    }

    fn handle_unfinished(&mut self, after: Duration) -> Option<End> {
        let reason = format!("a frame was not whole after {} s", after.as_secs());
        Some(End::Refuse(RefuseCode::Busy, reason))
    }

    fn advance(&mut self, sight: Sight<'_>) -> Result<bool, End> {
        if self.out.is_empty() {
            // The time to take output begins with the output.
            self.progress = sight.now;
        }
        if self.asked.is_some() {
            return Ok(false);
        }
        let mut any = self.read_messages(sight)?;
        if self.streams_first {
            any |= self.stream(sight);
            any |= self.carry_out_commands(sight);
        } else {
            any |= self.carry_out_commands(sight);
            any |= self.stream(sight);
        }
        Ok(any)
    }

    fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    fn untaken(&self) -> usize {
        self.out.bytes()
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        self.out.slices()
    }

    fn taken(&mut self, now: Time, bytes: usize) {
        self.out.taken(bytes);
        if !self.out.is_empty() {
            self.progress = now;
        }
    }

    fn waits(&self, _: Sight<'_>) -> Waits {
        let blocked = !self.out.is_empty();
        let idle_at = self.streams.iter().filter_map(|stream| match stream {
            Stream::Tail { idle_at, .. } => Some(*idle_at),
            Stream::Read { .. } => None,
        });
        Waits {
            input: self.takes_input(),
            unfinished: self.unfinished(),
            room_by: blocked.then(|| self.progress.after(self.limits.write_timeout)),
            entries_by: idle_at.min().filter(|_| !blocked),
        }
    }

    fn is_finished(&self, stopping: bool) -> bool {
        let streaming =
            self.streams.iter().any(|stream| !stopping || matches!(stream, Stream::Read { .. }));
        let working = self.work.is_some() || self.asked.is_some() || !self.commands.is_empty();
        (self.input_ended || stopping) && self.pending.is_empty() && !working && !streaming
    }

    fn refuses_rest(&self) -> bool {
        false
    }

    fn drain_refusals(&mut self) -> Vec<(Code, u64)> {
        mem::take(&mut self.refusals)
    }
}

fn entries_head(sight: Sight<'_>, id: u64, level: Level, end: bool) -> EntriesHead {
    let (next, commit) = visible(sight, level)
        .map_or((0, 0), |(last, levels)| (last.next().number(), levels.commit.number()));
    EntriesHead { id, first: 0, count: 0, next, commit, end }
}

/// What an append may not ask for yet.
fn admit_options(head: &AppendRequest) -> Result<(), Refusal> {
    let reserved = [
        (head.producer.is_some(), "id"),
        (head.match_seq.is_some(), "match"),
        (head.atomic, "mode"),
    ];
    match reserved.iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, key)) => {
            let detail = format!("option={key} - {key}= is not available yet");
            Err(Refusal::new(Code::BadOption, detail))
        }
    }
}

fn not_from_a_client() -> End {
    End::Refuse(RefuseCode::BadFrame, "a frame that a client does not send".to_owned())
}
