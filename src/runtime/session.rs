//! What both doors for clients do alike: carrying out commands, reading the log in pieces, handing
//! appends to the driver.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::oneshot;
use tracing::info;

use super::inbox::{ClientInput, Input, Node};
use crate::codes::Code;
use crate::config::Role;
use crate::engine::Levels;
use crate::gateway::command::{ConcernWord, TailFrom};
use crate::gateway::help::help;
use crate::gateway::reply::{write_entry, write_get, write_names};
use crate::gateway::{AppendOptions, Command, Fault, Refusal};
use crate::limits::{OUTPUT_CHUNK_BYTES, RUN_BYTES_MAX};
use crate::node::client::{AppendRun, RunOptions};
use crate::store::provisional::Stored;
use crate::store::{Slice, record::take_record};
use crate::types::{Level, Seq, SeqRange};

/// The node is going away: its driver answers nothing more.
#[derive(Debug)]
pub(super) struct DriverGone;

/// Asks the driver something.
pub(super) async fn ask<T>(
    node: &Node,
    question: impl FnOnce(oneshot::Sender<T>) -> ClientInput,
) -> Result<T, DriverGone> {
    let (sender, receiver) = oneshot::channel();
    tell(node, question(sender)).await?;
    receiver.await.map_err(|_| DriverGone)
}

/// Tells the driver something.
pub(super) async fn tell(node: &Node, input: ClientInput) -> Result<(), DriverGone> {
    node.driver.send(Input::Client(input)).await.map_err(|_| DriverGone)
}

/// A client is cut because it did not take its output: the only one who could be told does not listen.
pub(super) fn note_slow_reader(
    node: &Node,
    connection: u64,
    write: &OwnedWriteHalf,
    untaken: usize,
) {
    let Some(more) = node.cut.pass(Instant::now()) else { return };
    let addr = write.peer_addr().map_or_else(|_| "-".to_owned(), |addr| addr.to_string());
    let seconds = node.limits.write_timeout.as_secs_f64();
    info!(
        connection,
        %addr,
        bytes = untaken,
        seconds,
        more,
        "cut a client that took no output for limits.write_timeout"
    );
}

/// A client is cut because it did not finish what it had begun to send.
pub(super) fn note_unfinished(
    node: &Node,
    connection: u64,
    write: &OwnedWriteHalf,
    bytes: usize,
    seconds: u64,
) {
    let Some(more) = node.cut.pass(Instant::now()) else { return };
    let addr = write.peer_addr().map_or_else(|_| "-".to_owned(), |addr| addr.to_string());
    info!(connection, %addr, bytes, seconds, more, "cut a client that did not finish its line or frame");
}

/// Hands runs of appends to the driver, after waiting for room for their bytes.
pub(super) async fn submit(
    node: &Node,
    connection: u64,
    runs: Vec<AppendRun>,
) -> Result<(), DriverGone> {
    let bytes: usize = runs.iter().map(|run| run.payloads.bytes()).sum();
    // A batch larger than all room is admitted alone.
    let wanted = u32::try_from(bytes.min(node.limits.inflight_max)).unwrap_or(u32::MAX);
    let permit = node.inflight.clone().acquire_many_owned(wanted).await.map_err(|_| DriverGone)?;
    tell(node, ClientInput::Appends { connection, runs, permit }).await
}

/// The checks of an append that come before the engine's, on both doors in their order: role, size, w.
pub(super) fn admit_append(
    node: &Node,
    options: &AppendOptions,
    bytes: usize,
) -> Result<RunOptions, Refusal> {
    let judged = run_options(node, options);
    let max = node.limits.payload_max;
    if node.role == Role::Master && bytes > max {
        return Err(Refusal::too_large(bytes, max));
    }
    judged
}

/// Judges what the engine cannot: role and the spelling of `w`.
pub(super) fn run_options(node: &Node, options: &AppendOptions) -> Result<RunOptions, Refusal> {
    if node.role == Role::Secondary {
        return Err(Refusal::not_master(&node.master_addr()));
    }
    let concern = match &options.concern {
        None => None,
        Some(ConcernWord::Good(concern)) => Some(*concern),
        Some(ConcernWord::Bad(word)) => {
            return Err(Refusal::bad_write_concern(word, node.roster().len()));
        }
    };
    Ok(RunOptions { concern, ack: options.ack, patience: options.patience })
}

/// WAIT is for the master.
pub(super) fn master_only(node: &Node) -> Refusal {
    let addr = node.master_addr();
    let master = if addr.is_empty() { "-" } else { &addr };
    let detail = format!("master={master} - only the master knows who holds what");
    Refusal::new(Code::MasterOnly, detail)
}

/// Carries out a command that is answered at once, and writes the reply.
pub(super) async fn carry_out(
    node: &Node,
    command: Command,
    line: &Bytes,
    out: &mut BytesMut,
) -> Result<(), DriverGone> {
    let refused = match command {
        Command::Ping { text } => {
            out.extend_from_slice(b"PONG");
            if !text.is_empty() {
                out.extend_from_slice(b" ");
                out.extend_from_slice(&line[text]);
            }
            out.extend_from_slice(b"\n");
            None
        }
        Command::Help { verb } => match help(verb.as_deref()) {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                None
            }
            None => Some(Refusal::new(Code::UnknownVerb, "- HELP lists the verbs")),
        },
        Command::Quit => {
            out.extend_from_slice(b"OK\n");
            None
        }
        Command::Status => {
            let status = ask(node, ClientInput::Status).await?;
            out.extend_from_slice(status.lines().as_bytes());
            None
        }
        Command::Health => {
            let status = ask(node, ClientInput::Status).await?;
            out.extend_from_slice(status.health_line().as_bytes());
            None
        }
        Command::Waiters if node.role == Role::Secondary => Some(master_only(node)),
        Command::Waiters => {
            let (lines, count) = ask(node, ClientInput::Waiters).await?;
            out.extend_from_slice(lines.as_bytes());
            out.extend_from_slice(format!("END count={count}\n").as_bytes());
            None
        }
        Command::Metrics => {
            let text = ask(node, ClientInput::Metrics).await?;
            out.extend_from_slice(text.as_bytes());
            None
        }
        Command::Digest { seq } => digest(node, seq, out).await.err(),
        Command::Get { seq } => get(node, seq, out).await?.err(),
        Command::Fault(fault) => inject(node, fault, out).await?.err(),
        Command::Store { seq, payload } => store(node, seq, line.slice(payload), out).await?.err(),
        // Carried out by the connections themselves.
        Command::Append { .. }
        | Command::List { .. }
        | Command::Tail { .. }
        | Command::Wait { .. } => None,
    };
    if let Some(refusal) = refused {
        write_refusal(node, &refusal, out);
    }
    Ok(())
}

/// Writes the refusal of a request that was carried out here, and counts it.
pub(super) fn write_refusal(node: &Node, refusal: &Refusal, out: &mut BytesMut) {
    node.metrics.refused(refusal.code, 1);
    refusal.write(out);
}

async fn digest(node: &Node, seq: Option<Seq>, out: &mut BytesMut) -> Result<(), Refusal> {
    let last = node.log.bounds().last;
    let seq = seq.unwrap_or(last);
    let id = node.reads.prefix_id(seq).await.ok_or_else(|| missing(node, seq, last))?;
    out.extend_from_slice(
        format!("OK seq={seq} epoch={} digest={}\n", id.epoch, id.digest).as_bytes(),
    );
    Ok(())
}

async fn get(node: &Node, seq: Seq, out: &mut BytesMut) -> Result<Result<(), Refusal>, DriverGone> {
    let unserved = node.view.borrow().unserved_from.is_some_and(|first| seq >= first);
    let record = if unserved { None } else { node.reads.record(seq).await };
    let Some(record) = record else {
        let provisional = node.provisional.lock();
        let visible = provisional.visible(node.log.bounds().last);
        let Some(payload) = provisional.payload(seq).filter(|_| visible.contains(seq)) else {
            return Ok(Err(missing(node, seq, visible.last())));
        };
        let record = crate::store::Record {
            seq,
            epoch: crate::types::Epoch::ZERO,
            time_ms: 0,
            digest: crate::types::Digest::EMPTY,
            payload: payload.clone(),
        };
        write_get(out, &record, None);
        return Ok(Ok(()));
    };
    let by = match node.role {
        Role::Secondary => None,
        Role::Master => {
            let holders = ask(node, |reply| ClientInput::Holders(seq, reply)).await?;
            let mut names = String::new();
            write_names(&mut names, &node.roster(), |index| holders.contains(index));
            Some(names)
        }
    };
    write_get(out, &record, by.as_deref());
    Ok(Ok(()))
}

/// Why an entry is not shown: it cannot be read, or is not there.
fn missing(node: &Node, seq: Seq, last: Seq) -> Refusal {
    let unserved = node.view.borrow().unserved_from.is_some_and(|first| seq >= first);
    if unserved && seq <= node.log.bounds().last || node.log.is_unreadable(seq) {
        let detail = format!("seq={seq} - damaged here, another node has it, STATUS tells more");
        return Refusal::new(Code::Unreadable, detail);
    }
    not_found(last)
}

fn not_found(last: Seq) -> Refusal {
    Refusal::new(Code::NotFound, format!("next={} - not in the log", last.next()))
}

fn faults_allowed(node: &Node) -> Result<(), Refusal> {
    match node.role {
        Role::Master => Err(Refusal::new(Code::SecondaryOnly, "- fault verbs are for secondaries")),
        Role::Secondary if !node.faults => {
            Err(Refusal::new(Code::Denied, "- this node was started without --faults"))
        }
        Role::Secondary => Ok(()),
    }
}

async fn inject(
    node: &Node,
    fault: Fault,
    out: &mut BytesMut,
) -> Result<Result<(), Refusal>, DriverGone> {
    if let Err(refusal) = faults_allowed(node) {
        return Ok(Err(refusal));
    }
    ask(node, |reply| ClientInput::Fault(fault, reply)).await?;
    out.extend_from_slice(b"OK\n");
    Ok(Ok(()))
}

async fn store(
    node: &Node,
    seq: Seq,
    payload: Bytes,
    out: &mut BytesMut,
) -> Result<Result<(), Refusal>, DriverGone> {
    if let Err(refusal) = faults_allowed(node) {
        return Ok(Err(refusal));
    }
    if seq == Seq::ZERO {
        return Ok(Err(Refusal::new(Code::BadValue, "seq=0 - entries are numbered from 1")));
    }
    if payload.len() > node.limits.payload_max {
        return Ok(Err(Refusal::too_large(payload.len(), node.limits.payload_max)));
    }
    let suffix = match ask(node, |reply| ClientInput::Store(seq, payload, reply)).await? {
        Stored::Applied => "",
        Stored::Held => " held=true",
        Stored::Duplicate => " duplicate=true",
        Stored::Conflict => {
            let detail = format!("seq={seq} - another entry is stored there, nothing was changed");
            return Ok(Err(Refusal::new(Code::Conflict, detail)));
        }
        Stored::Full => {
            let detail = format!("seq={seq} - too many entries by hand wait for the master's");
            return Ok(Err(Refusal::new(Code::Denied, detail)));
        }
    };
    out.extend_from_slice(format!("OK seq={seq}{suffix}\n").as_bytes());
    Ok(Ok(()))
}

/// The last entry that a level shows on this node, its own log only.
pub(super) fn visible(node: &Node, level: Level) -> Result<(Seq, Levels), Refusal> {
    let view = node.view.borrow();
    let local = node.log.bounds().last;
    let local = view.hidden_from.map_or(local, |first| local.min(first.previous()));
    let last = view.levels.visible(level, local).ok_or_else(|| {
        let nodes = view.levels.held_by.len();
        Refusal::new(
            Code::BadValue,
            format!("level={level} nodes={nodes} - the cluster has only {nodes} nodes"),
        )
    })?;
    Ok((last, view.levels.clone()))
}

/// A LIST or READ on its way: entries from `next` up to `end`.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) next: Seq,
    pub(super) end: Seq,
}

impl Cursor {
    /// What is there now at a level, from `from` on, at most `limit` entries.
    pub(super) fn new(from: Seq, limit: Option<u64>, last: Seq) -> Self {
        let end = last.next();
        let end = limit.map_or(end, |limit| end.min(from.plus(limit)));
        Cursor { next: from, end: end.max(from) }
    }

    pub(super) fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// The next piece, in whole records.
    pub(super) async fn read(&mut self, node: &Node, bytes_max: usize) -> Slice {
        let slice = node.reads.read(SeqRange::new(self.next, self.end), bytes_max).await;
        self.next = slice.range.map_or(self.end, |range| range.end);
        slice
    }

    /// Writes the next piece as lines.
    pub(super) async fn write_lines(&mut self, node: &Node, out: &mut BytesMut) {
        let slice = self.read(node, OUTPUT_CHUNK_BYTES.min(RUN_BYTES_MAX)).await;
        for mut piece in slice.pieces {
            while let Ok(record) = take_record(&mut piece) {
                write_entry(out, record.seq, &record.payload);
            }
        }
    }
}

/// A LIST on its way: the log, and on a secondary at level local what was put in by hand.
#[derive(Debug)]
pub(super) struct List {
    from: Seq,
    cursor: Cursor,
    /// Entries by hand that follow.
    by_hand: Cursor,
    commit: Seq,
    level: Level,
}

impl List {
    pub(super) fn start(
        node: &Node,
        from: Seq,
        limit: Option<u64>,
        level: Level,
    ) -> Result<Self, Refusal> {
        let (last, levels) = visible(node, level)?;
        let cursor = Cursor::new(from, limit, last);
        let by_hand = match level {
            Level::Local => {
                let visible = node.provisional.lock().visible(last);
                let whole = Cursor::new(from, limit, visible.last().max(last));
                Cursor { next: from.max(visible.first), end: whole.end.max(from) }
            }
            _ => Cursor { next: from, end: from },
        };
        Ok(List { from, cursor, by_hand, commit: levels.commit, level })
    }

    /// Writes the next piece; the END line with the last one. Returns whether that was it.
    pub(super) async fn write(&mut self, node: &Node, out: &mut BytesMut) -> bool {
        if !self.cursor.is_done() {
            self.cursor.write_lines(node, out).await;
        }
        if !self.cursor.is_done() {
            return false;
        }
        let mut last = self.cursor.end.previous();
        while !self.by_hand.is_done() {
            let seq = self.by_hand.next;
            self.by_hand.next = seq.next();
            let payload = node.provisional.lock().payload(seq).cloned();
            // It may have given way to the master's meanwhile.
            let payload = match payload {
                Some(payload) => Some(payload),
                None => node.reads.record(seq).await.map(|record| record.payload),
            };
            let Some(payload) = payload else { break };
            write_entry(out, seq, &payload);
            last = seq;
        }
        let count = if last < self.from { 0 } else { last.distance_from(self.from) + 1 };
        let end = crate::gateway::reply::list_end(count, last, self.commit, self.level);
        out.extend_from_slice(end.as_bytes());
        true
    }
}

/// A TAIL on its way.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) next: Seq,
    pub(super) level: Level,
    pub(super) count: u64,
}

impl Tail {
    pub(super) fn start(node: &Node, start: TailFrom, level: Level) -> Result<Self, Refusal> {
        let (last, _) = visible(node, level)?;
        let next = match start {
            TailFrom::New => last.next(),
            TailFrom::Seq(seq) => seq,
            TailFrom::Last(count) => {
                Seq::new(last.next().number().saturating_sub(count)).max(Seq::FIRST)
            }
        };
        Ok(Tail { next, level, count: 0 })
    }

    /// What the level shows now and was not yet given out.
    pub(super) fn cursor(&self, node: &Node) -> Cursor {
        // The roster of a running cluster does not change, so that a level once good stays good.
        let last = visible(node, self.level).map_or(Seq::ZERO, |(last, _)| last);
        Cursor { next: self.next, end: last.next().max(self.next) }
    }

    /// Writes the next piece as lines; false if there was nothing.
    pub(super) async fn write(&mut self, node: &Node, out: &mut BytesMut) -> bool {
        let mut cursor = self.cursor(node);
        if cursor.is_done() {
            return false;
        }
        cursor.write_lines(node, out).await;
        self.count += cursor.next.distance_from(self.next);
        self.next = cursor.next;
        true
    }

    /// The line of an idle interval.
    pub(super) fn write_idle(&self, node: &Node, out: &mut BytesMut) {
        let commit = node.view.borrow().levels.commit;
        let next = self.cursor(node).end;
        out.extend_from_slice(format!("# next={next} commit={commit}\n").as_bytes());
    }
}
