//! A history as JSON lines: the form described at the head of [`history`](super).

use std::collections::HashMap;
use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::model::{
    Ack, Answer, Cluster, Dump, DumpEntry, Event, History, Item, Level, Op, PayloadId, Placed,
    Producer, Read, What,
};

/// Longest line taken: far more than the pieces that a writer makes.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Entries of a log on one line.
const DUMP_ENTRIES_PER_LINE: usize = 10_000;

/// Why a history cannot be read.
#[derive(Debug)]
pub enum LineError {
    /// Reading failed.
    Io(io::Error),
    /// This line is not one of ours.
    Bad {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
}

impl std::fmt::Display for LineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LineError::Io(error) => write!(f, "{error}"),
            LineError::Bad { line, what } => write!(f, "line {line}: {what}"),
        }
    }
}

impl std::error::Error for LineError {}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Cluster {
        nodes: Vec<String>,
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        healed: bool,
        #[serde(default)]
        end: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slack: Option<u64>,
    },
    Op {
        client: u64,
        payload: String,
        invoked: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        completed: Option<u64>,
        need: u16,
        #[serde(default = "stored", skip_serializing_if = "is_stored")]
        ack: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        producer: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
        #[serde(default, skip_serializing_if = "is_no")]
        atomic: bool,
        answer: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Vec<String>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    Read {
        client: u64,
        node: String,
        level: String,
        from: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<u64>,
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        whole: bool,
        invoked: u64,
        completed: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seqs: Option<Vec<u64>>,
        items: Vec<String>,
    },
    Event {
        node: String,
        at: u64,
        what: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
    },
    Dump {
        node: String,
        entries: Vec<(u64, u64, String)>,
    },
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn is_no(value: &bool) -> bool {
    !*value
}

fn stored() -> String {
    "stored".to_owned()
}

fn is_stored(ack: &String) -> bool {
    ack == "stored"
}

/// Reads a history line by line; no more than one line is held beside it.
///
/// # Errors
/// The first line that is not as it should be.
pub fn read_lines(mut input: impl BufRead) -> Result<History, LineError> {
    let mut reading = Reading::default();
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let mut limited = input.by_ref().take(LINE_BYTES_MAX);
        let count = limited.read_until(b'\n', &mut bytes).map_err(LineError::Io)?;
        if count == 0 {
            break;
        }
        let bad = |what: String| LineError::Bad { line: number, what };
        if count as u64 == LINE_BYTES_MAX {
            return Err(bad(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let line = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        reading.take(line).map_err(bad)?;
    }
    reading.finish().map_err(|what| LineError::Bad { line: 1, what })
}

/// Names turned into numbers while lines come; a name may come before the roster does.
#[derive(Default)]
struct Reading {
    history: History,
    seen_cluster: bool,
    /// Lines that name nodes, kept until the roster is known.
    early: Vec<Line>,
    nodes: HashMap<String, usize>,
    dumps: HashMap<usize, usize>,
}

impl Reading {
    fn take(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Cluster { .. } if self.seen_cluster => Err("a second cluster line".to_owned()),
            Line::Cluster { nodes, healed, end, slack } => {
                if nodes.is_empty() || nodes.len() > 128 {
                    return Err("a roster has 1 to 128 nodes".to_owned());
                }
                self.seen_cluster = true;
                self.nodes = nodes.iter().cloned().zip(0..).collect();
                self.history.cluster = Cluster { nodes, healed, end, slack };
                std::mem::take(&mut self.early).into_iter().try_for_each(|line| self.take(line))
            }
            line if !self.seen_cluster => {
                self.early.push(line);
                Ok(())
            }
            line => self.take_named(line),
        }
    }

    fn take_named(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Cluster { .. } => {}
            Line::Op { .. } => {
                let op = self.op(line)?;
                self.history.ops.push(op);
            }
            Line::Read {
                client,
                node,
                level,
                from,
                commit,
                whole,
                invoked,
                completed,
                seqs,
                items,
            } => {
                let node = self.node(&node)?;
                let level = match level.as_str() {
                    "local" => Level::Local,
                    "committed" => Level::Committed,
                    "all" => Level::All,
                    number => Level::Nodes(
                        number.parse().map_err(|_| format!("there is no level {number:?}"))?,
                    ),
                };
                if seqs.as_ref().is_some_and(|seqs| seqs.len() != items.len()) {
                    return Err("as many seqs as items".to_owned());
                }
                let items = items.iter().enumerate().map(|(index, text)| {
                    let dense = from.saturating_add(index as u64);
                    let seq = seqs.as_ref().map_or(dense, |seqs| seqs[index]);
                    Ok(Item { seq, payload: payload(text)? })
                });
                let items = items.collect::<Result<_, String>>()?;
                let read =
                    Read { client, node, level, from, items, commit, whole, invoked, completed };
                self.history.reads.push(read);
            }
            Line::Event { node, at, what, kept, until } => {
                let node = self.node(&node)?;
                let what = match (what.as_str(), kept, until) {
                    ("lost", Some(kept), None) => What::Lost { kept },
                    ("dropped", Some(kept), None) => What::Dropped { kept },
                    ("restarted", None, None) => What::Restarted,
                    ("stalled", None, Some(until)) => What::Stalled { until },
                    _ => return Err(format!("there is no event {what:?} with these keys")),
                };
                self.history.events.push(Event { node, at, what });
            }
            Line::Dump { node, entries } => {
                let node = self.node(&node)?;
                let dumps = &mut self.history.dumps;
                let place = *self.dumps.entry(node).or_insert_with(|| {
                    dumps.push(Dump { node, entries: Vec::new() });
                    dumps.len() - 1
                });
                for (seq, epoch, text) in entries {
                    let payload = payload(&text)?;
                    dumps[place].entries.push(DumpEntry { seq, epoch, payload });
                }
            }
        }
        Ok(())
    }

    fn op(&mut self, line: Line) -> Result<Op, String> {
        let Line::Op {
            client,
            payload: text,
            invoked,
            completed,
            need,
            ack,
            timeout,
            producer,
            number,
            atomic,
            answer,
            seq,
            epoch,
            by,
            code,
        } = line
        else {
            return Err("not an op".to_owned());
        };
        let ack = match ack.as_str() {
            "stored" => Ack::Stored,
            "received" => Ack::Received,
            other => return Err(format!("there is no ack {other:?}")),
        };
        let producer = match (producer, number) {
            (None, None) => None,
            (Some(name), Some(number)) => Some(Producer { id: payload(&name)?.0, number }),
            _ => return Err("producer and number belong together".to_owned()),
        };
        let placed = match (seq, epoch, by) {
            (None, None, None) => None,
            (Some(seq), Some(epoch), Some(names)) => {
                let mut by = 0;
                for name in &names {
                    by |= 1 << self.node(name)?;
                }
                Some(Placed { seq, epoch, by })
            }
            _ => return Err("seq, epoch and by belong together".to_owned()),
        };
        let answer = match (answer.as_str(), placed, code) {
            ("ok", Some(placed), None) => Answer::Ok(placed),
            ("pending", Some(placed), None) => Answer::Pending(placed),
            ("rejected", None, code) => Answer::Rejected(code.unwrap_or_default()),
            ("unknown", None, None) => Answer::Unknown,
            ("lost", None, None) => Answer::Lost,
            ("unsent", None, None) => Answer::Unsent,
            ("missing", None, None) => Answer::Missing,
            _ => return Err(format!("there is no answer {answer:?} with these keys")),
        };
        let payload = payload(&text)?;
        Ok(Op { client, payload, invoked, completed, need, ack, timeout, producer, atomic, answer })
    }

    fn node(&self, name: &str) -> Result<usize, String> {
        self.nodes.get(name).copied().ok_or_else(|| format!("{name:?} is not on the roster"))
    }

    fn finish(self) -> Result<History, String> {
        if self.seen_cluster { Ok(self.history) } else { Err("no cluster line".to_owned()) }
    }
}

fn payload(text: &str) -> Result<PayloadId, String> {
    match text.strip_prefix('#') {
        None => Ok(PayloadId::of(text.as_bytes())),
        Some(hex) if hex.len() == 16 => u64::from_str_radix(hex, 16)
            .map(PayloadId)
            .map_err(|_| format!("{text:?} is not # and sixteen hexadecimal digits")),
        Some(_) => Err(format!("{text:?} is not # and sixteen hexadecimal digits")),
    }
}

/// Writes a history as lines. [`HistoryWriter::remember`] makes payloads readable in them.
#[derive(Debug)]
pub struct HistoryWriter<W> {
    output: W,
    texts: HashMap<PayloadId, String>,
}

impl<W: Write> HistoryWriter<W> {
    /// A writer to `output`.
    pub fn new(output: W) -> Self {
        HistoryWriter { output, texts: HashMap::new() }
    }

    /// Writes this payload as text. One that starts with `#` stays a number: see the form.
    pub fn remember(&mut self, payload: &str) {
        if !payload.starts_with('#') {
            self.texts.insert(PayloadId::of(payload.as_bytes()), payload.to_owned());
        }
    }

    /// Writes everything.
    ///
    /// # Errors
    /// The output does not take it.
    pub fn write(&mut self, history: &History) -> io::Result<()> {
        let Cluster { nodes, healed, end, slack } = history.cluster.clone();
        self.line(&Line::Cluster { nodes, healed, end, slack })?;
        let name = |node: usize| {
            history.cluster.nodes.get(node).cloned().unwrap_or_else(|| format!("?{node}"))
        };
        for event in &history.events {
            let (what, kept, until) = match event.what {
                What::Lost { kept } => ("lost", Some(kept), None),
                What::Dropped { kept } => ("dropped", Some(kept), None),
                What::Restarted => ("restarted", None, None),
                What::Stalled { until } => ("stalled", None, Some(until)),
            };
            let (node, at, what) = (name(event.node), event.at, what.to_owned());
            self.line(&Line::Event { node, at, what, kept, until })?;
        }
        for op in &history.ops {
            let names = |by: u128| (0..128).filter(|node| by >> node & 1 == 1).map(name).collect();
            let code = match &op.answer {
                Answer::Rejected(code) => Some(code.clone()),
                _ => None,
            };
            let answer = match op.answer {
                Answer::Ok(_) => "ok",
                Answer::Pending(_) => "pending",
                Answer::Rejected(_) => "rejected",
                Answer::Unknown => "unknown",
                Answer::Lost => "lost",
                Answer::Unsent => "unsent",
                Answer::Missing => "missing",
            };
            self.line(&Line::Op {
                client: op.client,
                payload: self.text(op.payload),
                invoked: op.invoked,
                completed: op.completed,
                need: op.need,
                ack: if op.ack == Ack::Stored { "stored" } else { "received" }.to_owned(),
                timeout: op.timeout,
                producer: op.producer.as_ref().map(|it| format!("#{:016x}", it.id)),
                number: op.producer.as_ref().map(|producer| producer.number),
                atomic: op.atomic,
                answer: answer.to_owned(),
                seq: op.placed().map(|placed| placed.seq),
                epoch: op.placed().map(|placed| placed.epoch),
                by: op.placed().map(|placed| names(placed.by)),
                code,
            })?;
        }
        for read in &history.reads {
            let level = match read.level {
                Level::Local => "local".to_owned(),
                Level::Committed => "committed".to_owned(),
                Level::All => "all".to_owned(),
                Level::Nodes(count) => count.to_string(),
            };
            let dense = read.items.iter().zip(read.from..).all(|(item, seq)| item.seq == seq);
            self.line(&Line::Read {
                client: read.client,
                node: name(read.node),
                level,
                from: read.from,
                commit: read.commit,
                whole: read.whole,
                invoked: read.invoked,
                completed: read.completed,
                seqs: (!dense).then(|| read.items.iter().map(|item| item.seq).collect()),
                items: read.items.iter().map(|item| self.text(item.payload)).collect(),
            })?;
        }
        for dump in &history.dumps {
            let mut pieces = dump.entries.chunks(DUMP_ENTRIES_PER_LINE);
            // An empty log is a dump too.
            let first = pieces.next().unwrap_or_default();
            for piece in std::iter::once(first).chain(pieces) {
                let entry = |entry: &DumpEntry| (entry.seq, entry.epoch, self.text(entry.payload));
                let entries = piece.iter().map(entry).collect();
                self.line(&Line::Dump { node: name(dump.node), entries })?;
            }
        }
        self.output.flush()
    }

    fn text(&self, payload: PayloadId) -> String {
        self.texts.get(&payload).cloned().unwrap_or_else(|| format!("#{:016x}", payload.0))
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, line)?;
        self.output.write_all(b"\n")
    }
}
