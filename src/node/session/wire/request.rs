//! What clients' requests say, in the words of the node.

use bytes::Bytes;

use crate::codes::Code;
use crate::gateway::verbs::{Operators, verb_of};
use crate::gateway::{BadConcern, Refusal, parse};
use crate::types::{Level, WaitOptions};
use crate::wire::Message;
use crate::wire::codec::{self, AckKind, Concern, ReadLevel};

/// Takes the line end off a COMMAND's line: it is no part of it, if somebody sends one.
pub(super) fn cut_line_end(line: &mut Bytes) {
    if line.last() == Some(&b'\n') {
        line.truncate(line.len() - 1);
        let cr = usize::from(line.last() == Some(&b'\r'));
        line.truncate(line.len() - cr);
    }
}

/// Whether an operator may ask for it.
pub(super) fn looks(message: &Message) -> bool {
    match message {
        // What is malformed is answered as such.
        Message::Command(_, line) => {
            parse(line).is_err() || verb_of(line).is_none_or(|verb| verb.operators != Operators::No)
        }
        Message::Cancel(_) => true,
        _ => false,
    }
}

/// Where the payloads of an APPEND_REQUEST lie; `None` if they do not fill the tail exactly.
pub(super) fn payload_spans(tail: &Bytes, count: u32) -> Option<Vec<(u32, u32)>> {
    let mut spans = Vec::with_capacity((count as usize).min(tail.len() / 4));
    let mut at = 0;
    while at < tail.len() {
        let length = tail[at..].first_chunk::<4>()?;
        let start = at + 4;
        let end = start.checked_add(u32::from_le_bytes(*length) as usize)?;
        if end > tail.len() {
            return None;
        }
        spans.push((start as u32, end as u32)); // Frames are shorter than 4 GiB.
        at = end;
    }
    (count > 0 && spans.len() == count as usize).then_some(spans)
}

/// What an append or a wait asks for, and whether it asks for no node at all.
pub(super) fn options_of(
    concern: Concern,
    ack: AckKind,
    timeout: codec::Timeout,
) -> (WaitOptions, Option<BadConcern>) {
    let bad_concern = (concern == Concern::Nodes(0)).then(|| BadConcern("0".to_owned()));
    let options = WaitOptions { concern: concern.into(), ack: ack.into(), timeout: timeout.into() };
    (options, bad_concern)
}

/// The level of a read.
///
/// # Errors
/// It counts no node.
pub(super) fn level_of(level: ReadLevel) -> Result<Level, Refusal> {
    Ok(match level {
        ReadLevel::Local => Level::Local,
        ReadLevel::Committed => Level::Committed,
        ReadLevel::All => Level::All,
        ReadLevel::Nodes(count) => {
            Level::Nodes(count.try_into().map_err(|_| {
                Refusal::new(Code::BadValue, "level=0 - a level counts nodes from 1")
            })?)
        }
    })
}

/// A refusal as a frame carries it.
pub(super) fn on_wire(refusal: &Refusal) -> codec::Refusal {
    codec::Refusal { code: refusal.code.number(), detail: refusal.detail.clone() }
}
