//! What nodes say of themselves, and how what peers say becomes facts.

use bytes::BytesMut;

use super::machine::About;
use crate::codes::RefuseCode;
use crate::engine::ranges::RangeSet;
use crate::limits::{
    ACK_RANGES_MAX, ADDRESS_BYTES_MAX, CLIENT_NAME_BYTES_MAX, EPOCH_TABLE_ROWS_MAX,
    LOGGED_TEXT_BYTES_MAX, NODES_MAX, WINDOW_BYTES_MAX,
};
use crate::store::LogReader;
use crate::types::{Epoch, NodeId, PrefixId, Seq, SeqRange};
use crate::wire::codec::{self, EpochStart, Hello};
use crate::wire::{FrameDecoder, FrameError, Message};

/// The next message in the buffer; `None` while it is incomplete.
///
/// # Errors
/// The code to refuse the peer with, and a sentence.
pub fn next_message(
    decoder: FrameDecoder,
    buffer: &mut BytesMut,
) -> Result<Option<Message>, (RefuseCode, String)> {
    let frame = match decoder.decode(buffer) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(None),
        Err(error) => return Err((code_of(error), error.to_string())),
    };
    let frame_type = frame.frame_type;
    match Message::decode(frame) {
        Ok(Some(message)) => Ok(Some(message)),
        Ok(None) => {
            let error = FrameError::UnknownType(frame_type);
            Err((RefuseCode::UnknownFrame, error.to_string()))
        }
        Err(error) => Err((RefuseCode::BadFrame, format!("frame {frame_type:#04x}: {error}"))),
    }
}

fn code_of(error: FrameError) -> RefuseCode {
    match error {
        FrameError::BadMagic(..) | FrameError::UnknownFlags(_) => RefuseCode::BadFrame,
        FrameError::UnknownVersion(_) => RefuseCode::UnknownVersion,
        FrameError::TooLong { .. } => RefuseCode::FrameTooLong,
        FrameError::BadChecksum { .. } => RefuseCode::BadChecksum,
        FrameError::UnknownType(_) => RefuseCode::UnknownFrame,
    }
}

/// What a HELLO of this role cannot say. Fields that nobody reads from this role are not looked at.
pub fn fault_of(hello: &Hello) -> Option<&'static str> {
    let is_node = |id: &String| id.parse::<NodeId>().is_ok();
    let ascends =
        |rows: &[EpochStart]| rows[0].epoch < rows[1].epoch && rows[0].first < rows[1].first;
    let rows = &hello.epoch_table;
    match hello.role {
        codec::Role::Client => {
            let long = hello.node_id.len() > CLIENT_NAME_BYTES_MAX;
            return long.then_some("a client's name of more than 64 bytes");
        }
        _ if !is_node(&hello.node_id) => return Some("a node id that cannot be"),
        _ if rows.len() > EPOCH_TABLE_ROWS_MAX
            || rows.first().is_some_and(|row| row.epoch == 0 || row.first == 0)
            || !rows.windows(2).all(ascends) =>
        {
            return Some("an epoch table that cannot be");
        }
        codec::Role::Secondary => return None,
        codec::Role::Master => {}
    }
    if hello.roster.len() > NODES_MAX || !hello.roster.iter().all(is_node) {
        return Some("a roster that cannot be");
    }
    let addr = &hello.master_addr;
    let is_address = addr.len() <= ADDRESS_BYTES_MAX && addr.bytes().all(|b| b.is_ascii_graphic());
    (!is_address).then_some("an address that cannot be")
}

/// Levels as the engine has them; `None` if they are too many, or more nodes hold more.
pub fn levels_of(levels: &codec::Levels) -> Option<(Seq, Vec<Seq>)> {
    let good = levels.held_by.len() <= NODES_MAX && levels.held_by.is_sorted_by(|a, b| a >= b);
    let held_by = || levels.held_by.iter().copied().map(Seq::new).collect();
    good.then(|| (Seq::new(levels.commit), held_by()))
}

/// Text that a peer supplied, short enough for our log.
pub fn cut(text: &str) -> &str {
    let mut end = text.len().min(LOGGED_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The epoch table as a HELLO carries it.
pub fn epoch_table(log: &LogReader) -> Vec<EpochStart> {
    let start =
        |(epoch, first): (Epoch, Seq)| EpochStart { epoch: epoch.number(), first: first.number() };
    log.epoch_table().into_iter().map(start).collect()
}

/// The parts of a HELLO that every node of this version says alike; positions of an empty log.
pub fn hello_of(about: &About, role: codec::Role, roster: &[NodeId], commit: Seq) -> Hello {
    Hello {
        tail_epoch: PrefixId::EMPTY.epoch.number(),
        tail_digest: PrefixId::EMPTY.digest.value(),
        commit: commit.number(),
        roster: roster.iter().map(ToString::to_string).collect(),
        payload_bytes_max: u32::try_from(about.payload_max).unwrap_or(u32::MAX),
        window_bytes: WINDOW_BYTES_MAX as u64,
        ..Hello::blank(role, about.id.as_str())
    }
}

/// A row of an epoch table as the engine has it.
pub fn epoch_row(row: &EpochStart) -> (Epoch, Seq) {
    (Epoch::new(row.epoch), Seq::new(row.first))
}

/// The held ranges of an ACK; `None` if they are too many, or not ascending and apart.
pub fn held_ranges(ack: &codec::Ack) -> Option<RangeSet> {
    let mut behind = ack.received;
    for range in &ack.held {
        if range.first <= behind || range.last < range.first {
            return None;
        }
        behind = range.last;
    }
    let range =
        |range: &codec::HeldRange| SeqRange::inclusive(Seq::new(range.first), Seq::new(range.last));
    (ack.held.len() <= ACK_RANGES_MAX).then(|| RangeSet::of(ack.held.iter().map(range)))
}
