//! What clients say in bytes, and how they take answers apart: lines at the gateway, frames at the wire
//! port. Written from the pages that users have, and not with the product's own client.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};
use replog::codes::Class;
use replog::limits::FRAME_BODY_BYTES_MAX;
use replog::node::introduction::next_message;
use replog::store::record::take_record;
use replog::types::{AckLevel, NodeId, Seq, Timeout, WaitOptions};
use replog::wire::codec::{AppendRequest, Outcome, ReadLevel, TailRequest, TailStart, WaitRequest};
use replog::wire::{FrameDecoder, Message};

use super::clients::{Heard, Reply, Request, payload};

/// How a client speaks to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// To the node itself, without a session.
    None,
    Gateway,
    Wire,
}

/// What an answer is to.
#[derive(Clone, Debug)]
enum Expected {
    Entry(usize, u64),
    Pong(usize),
    /// A LIST, and how many entries came.
    List(u64),
}

/// What a client understood.
#[derive(Debug)]
pub(super) enum Understood {
    Reply(Reply),
    /// An entry that was listed or tailed.
    Shown(Seq, Bytes),
    /// It cannot be what was asked for.
    Nonsense(String),
}

/// A client's end of a connection on which bytes are spoken.
#[derive(Clone, Debug, Default)]
pub(super) struct Speaker {
    /// Which connection all of this is about.
    connection: u64,
    /// Lines that are awaited, in order.
    lines: VecDeque<Expected>,
    /// Requests by wire, by their ids.
    ids: BTreeMap<u64, (usize, u64)>,
    next_id: u64,
    /// The tail's request, and what it must show next.
    tail: Option<(u64, Seq)>,
    heard: BytesMut,
}

impl Speaker {
    /// What is said for a request on a connection. `extra` is a number that nobody knows before: what
    /// is asked besides.
    pub(super) fn say(
        &mut self,
        door: Door,
        connection: u64,
        id: usize,
        request: &Request,
        extra: u64,
    ) -> Vec<u8> {
        let is_new = self.connection != connection;
        if is_new {
            *self = Speaker { connection, next_id: 1, ..Speaker::default() };
        }
        match door {
            Door::None => Vec::new(),
            Door::Gateway => self.lines_of(id, request, extra),
            Door::Wire => self.frames_of(id, request, (is_new, extra)),
        }
    }

    fn lines_of(&mut self, id: usize, request: &Request, extra: u64) -> Vec<u8> {
        let mut options = String::new();
        if let Some(concern) = request.options.concern {
            options.push_str(&format!(" w={concern}"));
        }
        if let Some(ack) = request.options.ack {
            options.push_str(if ack == AckLevel::Received {
                " ack=received"
            } else {
                " ack=stored"
            });
        }
        match request.options.timeout {
            None => {}
            Some(Timeout::Forever) => options.push_str(" timeout=none"),
            Some(Timeout::For(time)) => {
                options.push_str(&format!(" timeout={}ms", time.as_millis()))
            }
        }
        let mut bytes = Vec::new();
        if let Some(seq) = request.wait_for {
            bytes.extend_from_slice(format!("WAIT {seq}{options}\n").as_bytes());
            self.lines.push_back(Expected::Entry(id, 0));
        } else {
            for entry in 0..u64::from(request.count) {
                bytes.extend_from_slice(format!("APPEND{options} -- ").as_bytes());
                bytes.extend_from_slice(&payload(id, entry, request.size));
                bytes.extend_from_slice(if extra.is_multiple_of(2) { b"\n" } else { b"\r\n" });
                self.lines.push_back(Expected::Entry(id, entry));
            }
        }
        match extra % 16 {
            0 => {
                bytes.extend_from_slice(format!("PING r{id}\n").as_bytes());
                self.lines.push_back(Expected::Pong(id));
            }
            1 => {
                bytes.extend_from_slice(b"LIST from=1 limit=20 level=committed\n");
                self.lines.push_back(Expected::List(0));
            }
            _ => {}
        }
        bytes
    }

    fn frames_of(&mut self, id: usize, request: &Request, (is_new, extra): (bool, u64)) -> Vec<u8> {
        let mut bytes = Vec::new();
        if is_new && extra.is_multiple_of(3) {
            let start = TailStart::From(1);
            let tail = TailRequest { id: self.next_id, start, level: ReadLevel::Committed };
            bytes.extend_from_slice(&Message::TailRequest(tail).encode().to_bytes());
            self.tail = Some((self.next_id, Seq::FIRST));
            self.next_id += 1;
        }
        let WaitOptions { concern, ack, timeout } = request.options;
        let (concern, ack, timeout) = (concern.into(), ack.into(), timeout.into());
        let first = self.next_id;
        let count = if request.wait_for.is_some() { 1 } else { request.count };
        self.next_id += u64::from(count);
        self.ids.extend((0..u64::from(count)).map(|entry| (first + entry, (id, entry))));
        let message = match request.wait_for {
            Some(seq) => Message::WaitRequest(WaitRequest {
                id: first,
                seq: seq.number(),
                concern,
                ack,
                timeout,
            }),
            None => {
                let mut tail = BytesMut::new();
                for entry in 0..u64::from(count) {
                    let payload = payload(id, entry, request.size);
                    tail.extend_from_slice(&(payload.len() as u32).to_le_bytes());
                    tail.extend_from_slice(&payload);
                }
                let head = AppendRequest {
                    id: first,
                    count,
                    concern,
                    ack,
                    timeout,
                    producer: None,
                    match_seq: None,
                    atomic: false,
                };
                Message::AppendRequest(head, tail.freeze())
            }
        };
        bytes.extend_from_slice(&message.encode().to_bytes());
        bytes
    }

    /// Takes what came on a connection apart. What comes on an older one is not listened to.
    pub(super) fn hear(
        &mut self,
        door: Door,
        connection: u64,
        bytes: &[u8],
        roster: &[NodeId],
    ) -> Vec<Understood> {
        let mut understood = Vec::new();
        if self.connection != connection {
            return understood;
        }
        self.heard.extend_from_slice(bytes);
        match door {
            Door::None => {}
            Door::Gateway => {
                while let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
                    let line = self.heard.split_to(end).freeze();
                    self.heard.advance(1);
                    understood.extend(self.line(&line, roster));
                }
            }
            Door::Wire => {
                let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
                loop {
                    match next_message(decoder, &mut self.heard) {
                        Ok(Some(message)) => self.frame(message, &mut understood),
                        Ok(None) => break,
                        Err((code, reason)) => {
                            let what = format!("{} {reason}", code.word());
                            understood.push(Understood::Nonsense(what));
                            break;
                        }
                    }
                }
            }
        }
        understood
    }

    fn line(&mut self, bytes: &Bytes, roster: &[NodeId]) -> Option<Understood> {
        let line = String::from_utf8_lossy(bytes);
        let nonsense = || Some(Understood::Nonsense(line.clone().into_owned()));
        match self.lines.pop_front() {
            None => nonsense(),
            Some(Expected::Pong(id)) if *line == format!("PONG r{id}") => None,
            Some(Expected::Pong(_)) => nonsense(),
            Some(Expected::List(count)) if line.starts_with("END ") => {
                let right = value(&line, "count") == Some(&count.to_string());
                if right { None } else { nonsense() }
            }
            // The level may count more nodes than are known yet.
            Some(Expected::List(0)) if line.starts_with("ERR ") => None,
            Some(Expected::List(count)) => {
                self.lines.push_front(Expected::List(count + 1));
                let space = bytes.iter().position(|&byte| byte == b' ').unwrap_or(bytes.len());
                let seq = line.split(' ').next().and_then(|word| word.parse().ok());
                match seq.map(Seq::new) {
                    Some(seq) if seq.number() == count + 1 => {
                        let payload = bytes.slice((space + 1).min(bytes.len())..);
                        Some(Understood::Shown(seq, payload))
                    }
                    _ => nonsense(),
                }
            }
            Some(Expected::Entry(id, entry)) => {
                let heard = heard_in(&line, roster)?;
                Some(Understood::Reply(Reply::heard((id, entry), self.connection, 1, heard)))
            }
        }
    }

    fn frame(&mut self, message: Message, understood: &mut Vec<Understood>) {
        match message {
            Message::Hello(_) => {}
            Message::AppendReply(reply) => {
                let Some(&(id, entry)) = self.ids.get(&reply.id) else {
                    return understood.push(Understood::Nonsense(format!("{reply:?}")));
                };
                let placed = |class, placed: &replog::wire::codec::Placed| Heard::Placed {
                    first: Seq::new(placed.seq),
                    epoch: placed.epoch,
                    class,
                    by: placed.holders,
                };
                let heard = match &reply.outcome {
                    Outcome::Ok(it) => placed(Class::Ok, it),
                    Outcome::Pending(it) => placed(Class::Pending, it),
                    Outcome::Unknown(it) => placed(Class::Unknown, it),
                    Outcome::Refused(_) => Heard::Refused,
                };
                let (at, count) = ((id, entry), u64::from(reply.count));
                understood.push(Understood::Reply(Reply::heard(at, self.connection, count, heard)));
            }
            Message::Entries(head, mut records) => {
                let Some((id, next)) = &mut self.tail else {
                    return understood.push(Understood::Nonsense(format!("{head:?}")));
                };
                while let Ok(record) = take_record(&mut records) {
                    if head.id != *id || record.seq != *next {
                        let what = format!("{} in {head:?}, {next} was awaited", record.seq);
                        return understood.push(Understood::Nonsense(what));
                    }
                    *next = next.next();
                    understood.push(Understood::Shown(record.seq, record.payload));
                }
            }
            // The level may count more nodes than are known yet.
            Message::RequestRefused(refused)
                if self.tail.is_some_and(|(id, _)| id == refused.id) =>
            {
                self.tail = None;
            }
            message => understood.push(Understood::Nonsense(format!("{message:?}"))),
        }
    }
}

/// The value of a `key=value` word.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').filter_map(|word| word.split_once('=')).find(|(k, _)| *k == key).map(|it| it.1)
}

/// What a reply line says; `None` if it is none.
fn heard_in(line: &str, roster: &[NodeId]) -> Option<Heard> {
    let class = match line.split(' ').next()? {
        "OK" => Class::Ok,
        "PENDING" => Class::Pending,
        "UNKNOWN" => Class::Unknown,
        _ => return Some(Heard::Refused),
    };
    let at = |name: &str| roster.iter().position(|id| id.as_str() == name);
    let names = value(line, "by")?.split(',').filter(|name| *name != "-");
    let by = names.map(|name| at(name).map_or(0, |at| 1_u128 << at)).fold(0, |all, one| all | one);
    let first = Seq::new(value(line, "seq")?.parse().ok()?);
    Some(Heard::Placed { first, epoch: value(line, "epoch")?.parse().ok()?, class, by })
}
