//! A session of the text gateway: lines in, replies in the order of the lines.
//!
//! APPEND and WAIT start as soon as they are read; every other command when the replies before it
//! are out. What waits for an answer is a *slot*; slots leave at the front.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::mem;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::admission::{admit_append, admit_wait};
use super::command::{self, Step, Work};
use super::reading::{Tail, write_lines};
use super::{Answer, End, Request, Session, Sight, Unfinished, Waits};
use crate::codes::Code;
use crate::gateway::reply::write_placed;
use crate::gateway::{Command, Refusal, parse};
use crate::limits::{GATEWAY_LINE_EXTRA_BYTES, Limits, OUTPUT_CHUNK_BYTES};
use crate::node::client::{AppendRun, Outcome, Payloads, Reply};
use crate::types::{NodeId, Time, WaitOptions};

/// What a reply is waited for.
enum Slot {
    /// A run of appends, or a wait: so many entries, of which so many are answered at the front.
    Run { count: u64, written: u64, pieces: BTreeMap<u64, Reply> },
    /// Refused before it reached the node, or a bad line.
    Refused(Refusal),
    /// To be carried out when the replies before it are out.
    Command(Command, Bytes),
}

/// What goes on at the front.
enum Active {
    None,
    /// There is more to write.
    Work(Work),
    /// It waits for an answer.
    Asked(Work),
    /// At the end of the log, or on the way there.
    Tail(Tail),
    /// Its next piece is read.
    TailAsked(Tail),
}

/// See the module.
pub struct TextSession {
    limits: Limits,
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
    /// Runs that were not handed out yet.
    runs: Vec<AppendRun>,
    requests: VecDeque<Request>,
    refusals: Vec<(Code, u64)>,
    /// When output was last taken.
    progress: Time,
    idle_at: Time,
}

impl TextSession {
    /// A session of a client that has said nothing yet.
    pub fn new(limits: &Limits) -> Self {
        TextSession {
            limits: limits.clone(),
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
            runs: Vec::new(),
            requests: VecDeque::new(),
            refusals: Vec::new(),
            progress: Time::ZERO,
            idle_at: Time::ZERO,
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
        self.limits.payload_max + GATEWAY_LINE_EXTRA_BYTES
    }

    fn takes_input(&self) -> bool {
        !self.input_ended
            && self.waiting < self.limits.waiting_max as u64
            && self.slots.len() < self.limits.waiting_max
            && self.out.len() < self.limits.output_max
            && self.line_bytes < self.limits.output_max
            && !self.tail_waits
    }

    fn is_asking(&self) -> bool {
        matches!(self.active, Active::Asked(_) | Active::TailAsked(_))
    }

    // ---- lines ----

    /// Takes all whole lines that may be taken now, and starts appends and waits. Returns whether
    /// there were any.
    fn read_lines(&mut self, sight: Sight<'_>) -> bool {
        let line_max = self.line_max();
        if self.lines == 0 && self.input.first() == Some(&0x16) && !self.input_ended {
            self.refuse_protocol("this looks like TLS, the gateway speaks plain text");
            return true;
        }
        let mut taken = false;
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
            self.take_line(sight, line);
        }
        self.submit();
        taken
    }

    /// Hands out the runs read so far.
    fn submit(&mut self) {
        if !self.runs.is_empty() {
            self.requests.push_back(Request::Append(mem::take(&mut self.runs)));
        }
    }

    fn take_line(&mut self, sight: Sight<'_>, line: Bytes) {
        self.lines += 1;
        if self.lines == 1 && (line.ends_with(b"HTTP/1.0") || line.ends_with(b"HTTP/1.1")) {
            self.refuse_protocol("this gateway speaks lines, not HTTP: try PING or HELP with nc");
            return;
        }
        if let Active::Tail(tail) = &self.active {
            write_tail_end(tail, &mut self.out);
            self.active = Active::None;
        }
        let slot = match parse(&line) {
            Ok(None) => return,
            Err(refusal) => Slot::Refused(refusal),
            Ok(Some(Command::Append { options, bad_concern, payload })) => {
                match admit_append(sight, payload.len(), bad_concern.as_ref()) {
                    Ok(()) => return self.add_append(options, line.slice(payload)),
                    Err(refusal) => Slot::Refused(refusal),
                }
            }
            Ok(Some(Command::Wait { seq, options, bad_concern })) => {
                match admit_wait(sight, bad_concern.as_ref()) {
                    Ok(()) => {
                        // A wait sees the appends before it.
                        self.submit();
                        let slot = self.next_slot();
                        self.requests.push_back(Request::Wait { slot, seq, options });
                        self.waiting += 1;
                        Slot::Run { count: 1, written: 0, pieces: BTreeMap::new() }
                    }
                    Err(refusal) => Slot::Refused(refusal),
                }
            }
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
    }

    /// Adds an append to the run before it if they wait for the same, else begins a run.
    fn add_append(&mut self, options: WaitOptions, payload: Bytes) {
        const RUN_ENTRIES: u64 = 4096;
        self.waiting += 1;
        let slot = self.next_slot();
        if let (Some(Slot::Run { count, .. }), Some(run)) =
            (self.slots.back_mut(), self.runs.last_mut())
            && run.slot + 1 == slot
            && run.options == options
            && *count < RUN_ENTRIES
            && let Payloads::Lines(lines) = &mut run.payloads
        {
            *count += 1;
            lines.push(payload);
            return;
        }
        self.runs.push(AppendRun { slot, options, payloads: Payloads::Lines(vec![payload]) });
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

    /// Writes what can be written at the front. Returns whether more may follow at once.
    fn write_replies(&mut self, sight: Sight<'_>) -> bool {
        while self.out.len() < OUTPUT_CHUNK_BYTES {
            match mem::replace(&mut self.active, Active::None) {
                Active::None => {}
                Active::Work(work) => {
                    let step = work.go_on(sight, &mut self.out);
                    self.step(step);
                    continue;
                }
                Active::Tail(tail) => {
                    let cursor = tail.cursor(sight);
                    if !cursor.is_done() {
                        self.requests.push_back(Request::Ask(cursor.ask_for_lines()));
                        self.active = Active::TailAsked(tail);
                    } else if self.input_ended {
                        write_tail_end(&tail, &mut self.out);
                        continue;
                    } else {
                        self.active = Active::Tail(tail);
                    }
                    return false;
                }
                asking @ (Active::Asked(_) | Active::TailAsked(_)) => {
                    self.active = asking;
                    return false;
                }
            }
            match self.slots.front_mut() {
                None => return false,
                Some(Slot::Run { count, written, pieces }) => {
                    while let Some(piece) = pieces.remove(written) {
                        *written += piece.count;
                        write_outcome(&mut self.out, &piece, sight.roster());
                    }
                    if written < count {
                        return false;
                    }
                }
                Some(Slot::Refused(refusal)) => {
                    self.refusals.push((refusal.code, 1));
                    refusal.write(&mut self.out);
                }
                Some(Slot::Command(..)) => {}
            }
            self.front += 1;
            if let Some(Slot::Command(command, line)) = self.slots.pop_front() {
                self.line_bytes -= line.len();
                self.begin(sight, command, &line);
            }
        }
        true
    }

    fn begin(&mut self, sight: Sight<'_>, command: Command, line: &Bytes) {
        if let Command::Tail { start, level } = command {
            self.tail_waits = false;
            match Tail::start(sight, start, level) {
                Ok(tail) => {
                    self.idle_at = sight.now.after(sight.site.heartbeat_interval);
                    self.active = Active::Tail(tail);
                }
                Err(refusal) => self.refuse(&refusal),
            }
            return;
        }
        match command::begin(sight, command, line, &mut self.out) {
            Ok(step) => self.step(step),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    fn step(&mut self, step: Step) {
        self.active = match step {
            Step::Done => Active::None,
            Step::More(work) => Active::Work(work),
            Step::Ask(work, question) => {
                self.requests.push_back(Request::Ask(question));
                Active::Asked(work)
            }
        };
    }

    fn refuse(&mut self, refusal: &Refusal) {
        self.refusals.push((refusal.code, 1));
        refusal.write(&mut self.out);
    }
}

impl Session for TextSession {
    fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    fn handle_input_end(&mut self) {
        self.input_ended = true;
    }

    fn handle_replies(&mut self, _: Sight<'_>, replies: Vec<Reply>) {
        for reply in replies {
            let index = reply.slot.checked_sub(self.front).and_then(|i| usize::try_from(i).ok());
            if let Some(Slot::Run { pieces, .. }) = index.and_then(|i| self.slots.get_mut(i)) {
                self.waiting = self.waiting.saturating_sub(reply.count);
                pieces.insert(reply.offset, reply);
            }
        }
    }

    fn handle_answer(&mut self, sight: Sight<'_>, answer: Answer) {
        match (mem::replace(&mut self.active, Active::None), answer) {
            (Active::Asked(work), answer) => match work.resume(sight, answer, &mut self.out) {
                Ok(step) => self.step(step),
                Err(refusal) => self.refuse(&refusal),
            },
            (Active::TailAsked(mut tail), Answer::Read(slice)) => {
                tail.pass(sight, &slice);
                write_lines(slice, &mut self.out);
                self.idle_at = sight.now.after(sight.site.heartbeat_interval);
                self.active = Active::Tail(tail);
            }
            (_, answer) => unreachable!("BUG: {answer:?}, and nobody asked"),
        }
    }

    fn handle_idle(&mut self, sight: Sight<'_>) {
        if let Active::Tail(tail) = &self.active {
            let (next, commit) = (tail.cursor(sight).end, sight.view.levels.commit);
            self.out.extend_from_slice(format!("# next={next} commit={commit}\n").as_bytes());
        }
        self.idle_at = sight.now.after(sight.site.heartbeat_interval);
    }

    fn handle_unfinished(&mut self, after: Duration) -> Option<End> {
        let seconds = after.as_secs();
        let detail = format!("seconds={seconds} - the line had no end in that time, closing");
        self.refuse_and_close(Refusal::new(Code::Busy, detail));
        None
    }

    fn advance(&mut self, sight: Sight<'_>) -> Result<bool, End> {
        if self.out.is_empty() {
            // The time to take output begins with the output.
            self.progress = sight.now;
        }
        if self.is_asking() {
            return Ok(false);
        }
        let read = self.read_lines(sight);
        let more = self.write_replies(sight);
        Ok(read || more)
    }

    fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    fn untaken(&self) -> usize {
        self.out.len()
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        vec![IoSlice::new(&self.out)]
    }

    fn taken(&mut self, now: Time, bytes: usize) {
        self.out.advance(bytes);
        if !self.out.is_empty() {
            self.progress = now;
        }
    }

    fn waits(&self, _: Sight<'_>) -> Waits {
        let blocked = !self.out.is_empty();
        let tailing = matches!(self.active, Active::Tail(_)) && !blocked;
        Waits {
            input: self.takes_input(),
            unfinished: self.unfinished(),
            room_by: blocked.then(|| self.progress.after(self.limits.write_timeout)),
            entries_by: tailing.then_some(self.idle_at),
        }
    }

    fn is_finished(&self, stopping: bool) -> bool {
        let ended = self.input_ended || stopping;
        match self.active {
            Active::Tail(_) if !stopping => false,
            Active::Tail(_) | Active::None => ended && self.slots.is_empty(),
            Active::Work(_) | Active::Asked(_) | Active::TailAsked(_) => false,
        }
    }

    fn refuses_rest(&self) -> bool {
        self.closing
    }

    fn drain_refusals(&mut self) -> Vec<(Code, u64)> {
        mem::take(&mut self.refusals)
    }
}

fn write_tail_end(tail: &Tail, out: &mut BytesMut) {
    out.extend_from_slice(format!("END count={}\n", tail.count).as_bytes());
}

/// Writes the reply lines of a piece of a run.
pub(super) fn write_outcome(out: &mut BytesMut, reply: &Reply, roster: &[NodeId]) {
    match &reply.outcome {
        Outcome::Placed(placed) => write_placed(out, placed, reply.count, roster),
        Outcome::Refused(refusal) => (0..reply.count).for_each(|_| refusal.write(out)),
    }
}

fn too_long(line_max: usize) -> Refusal {
    Refusal::new(Code::TooLong, format!("max={line_max} - the line is too long, closing"))
}
