//! Bytes to frames and back, incrementally: what arrived in pieces leaves as frames, what leaves as
//! a frame is at most a small head and shared bytes behind it.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::header::{FrameError, HEADER_BYTES, Header};
use crate::limits::READ_CHUNK_BYTES;

/// A frame that arrived: its type (known or not) and its body, a shared piece of the receive
/// buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type byte of the header.
    pub frame_type: u8,
    /// The body; its checksum was right.
    pub body: Bytes,
}

/// Finds frames in a growing buffer. Remembers nothing but the limit, so that it can be raised once
/// a peer has introduced itself.
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder {
    /// Largest body accepted.
    pub body_bytes_max: usize,
}

impl FrameDecoder {
    /// How long the first frame in the buffer will be, header included, once it is whole; `None` while
    /// its header is not there or is not one.
    pub fn frame_len(&self, buffer: &[u8]) -> Option<usize> {
        let header = Header::decode(buffer).ok().flatten()?;
        let body_len = (header.body_len as usize).min(self.body_bytes_max);
        Some(HEADER_BYTES + body_len)
    }

    /// Takes the first frame off the buffer; `None` while it is incomplete.
    ///
    /// # Errors
    /// Any `FrameError` but `UnknownType`; the buffer is then as it was, and useless.
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if buffer.is_empty() {
            return Ok(None);
        }
        let Some(header) = Header::decode(buffer)? else { return Ok(None) };
        if header.body_len as usize > self.body_bytes_max {
            return Err(FrameError::TooLong { len: header.body_len, max: self.body_bytes_max });
        }
        let frame_len = HEADER_BYTES + header.body_len as usize;
        if buffer.len() < frame_len {
            return Ok(None);
        }
        header.verify(&buffer[..HEADER_BYTES], &buffer[HEADER_BYTES..frame_len])?;
        let mut bytes = buffer.split_to(frame_len).freeze();
        bytes.advance(HEADER_BYTES);
        Ok(Some(Frame { frame_type: header.frame_type, body: bytes }))
    }
}

/// Makes room for the next read. Grows with what has arrived (at most doubling it), never by what
/// a peer announced.
pub fn reserve_for_read(buffer: &mut BytesMut) {
    // A small remainder of the allocation is worth reading into: the next reserve moves to a new
    // one, and frames handed out keep the old one alive anyway.
    if buffer.capacity() - buffer.len() < READ_CHUNK_BYTES / 4 {
        buffer.reserve(buffer.len().max(READ_CHUNK_BYTES));
    }
}

/// A tail up to this length is copied behind the head of its frame.
const COPY_BYTES_MAX: usize = 2048;

/// How many bytes of this tail are copied behind its head.
pub(super) fn copied_len(tail: &[Bytes]) -> usize {
    let len = tail.iter().map(Bytes::len).sum();
    if len <= COPY_BYTES_MAX { len } else { 0 }
}

/// A frame ready to leave: header and head in one piece, and shared bytes behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutFrame {
    head: Bytes,
    tail: Vec<Bytes>,
    len: usize,
}

impl OutFrame {
    /// Seals a frame. `head` must start with `HEADER_BYTES` of room for the header.
    ///
    /// A short tail is copied behind the head, since one buffer is cheaper to write than two.
    pub(super) fn seal(frame_type: u8, mut head: BytesMut, mut tail: Vec<Bytes>) -> OutFrame {
        let mut tail_len: usize = tail.iter().map(Bytes::len).sum();
        if tail_len <= COPY_BYTES_MAX {
            tail.iter().for_each(|piece| head.extend_from_slice(piece));
            tail.clear();
            tail_len = 0;
        }
        let len = head.len() + tail_len;
        let body_len = u32::try_from(len - HEADER_BYTES)
            .expect("bodies are built from pieces bounded by FRAME_BODY_BYTES_MAX");
        let pieces = std::iter::once(&head[HEADER_BYTES..]).chain(tail.iter().map(|p| &p[..]));
        let header = Header::seal(frame_type, body_len, pieces);
        head[..HEADER_BYTES].copy_from_slice(&header);
        OutFrame { head: head.freeze(), tail, len }
    }

    /// Length of the whole frame in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether all of it has been taken with [`OutFrame::advance`].
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The whole frame as one piece.
    pub fn to_bytes(&self) -> Bytes {
        if self.tail.is_empty() {
            return self.head.clone();
        }
        let mut bytes = BytesMut::with_capacity(self.len);
        bytes.extend_from_slice(&self.head);
        self.tail.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.freeze()
    }

    /// Adds the frame's pieces to a vectored write.
    pub fn io_slices<'a>(&'a self, slices: &mut Vec<IoSlice<'a>>, slices_max: usize) {
        if !self.head.is_empty() {
            slices.push(IoSlice::new(&self.head));
        }
        for piece in &self.tail {
            if slices.len() >= slices_max {
                break;
            }
            slices.push(IoSlice::new(piece));
        }
    }

    /// Takes away the first `count` bytes, which the socket has taken.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "BUG: more bytes written than the frame has");
        self.len -= count;
        let of_head = count.min(self.head.len());
        self.head.advance(of_head);
        count -= of_head;
        let mut whole = 0;
        for piece in &mut self.tail {
            if count == 0 {
                break;
            }
            if piece.len() <= count {
                count -= piece.len();
                whole += 1;
            } else {
                piece.advance(count);
                count = 0;
            }
        }
        self.tail.drain(..whole);
    }
}
