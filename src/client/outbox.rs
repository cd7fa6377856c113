//! What waits to be written, in order: appends packed into runs, and every other frame.
//!
//! A run stays open, and takes the appends that follow, until the socket task comes for it: a
//! lone append leaves at once, and a stream of them leaves in as few frames as the socket allows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::options::AppendOptions;
use crate::limits::RUN_BYTES_MAX;
use crate::wire::codec::{AppendRequest, ProducerNumber};
use crate::wire::{Message, OutFrame};

/// Most entries in one APPEND_REQUEST: an answer's bookkeeping stays small, and 4096 short lines
/// fill a frame well enough.
pub(super) const RUN_ENTRIES_MAX: u32 = 4096;

/// What the head of an APPEND_REQUEST may take; its only long field is a producer's name.
pub(super) const APPEND_HEAD_BYTES_MAX: usize = 256;

/// Names the appender whose entries a run holds.
pub(super) type AppenderKey = u64;

/// Consecutive entries of one appender, or of single appends with equal options.
#[derive(Debug)]
pub(super) struct OpenRun {
    /// `None` for single appends.
    pub(super) appender: Option<AppenderKey>,
    pub(super) options: Arc<AppendOptions>,
    /// Request id of the first entry.
    pub(super) id: u64,
    /// Index of the first entry in its appender; 0 for single appends.
    pub(super) index: u64,
    pub(super) count: u32,
    /// Length and payload of each.
    bytes: BytesMut,
    /// Bytes of the room for unsent requests that it occupies.
    charged: usize,
}

#[derive(Debug)]
enum Item {
    Run(OpenRun),
    Frame { frame: OutFrame, ids_end: u64, charged: usize, timed: Option<Duration> },
}

/// A frame on its way into the socket.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: OutFrame,
    /// Every request with a lower id is sent when this frame is; 0 for a frame without requests.
    pub(super) ids_end: u64,
    pub(super) charged: usize,
    /// The timeout within which so many requests of the frame are to be answered.
    pub(super) timed: Option<(Duration, u64)>,
    /// The entries of an appender, to be given back should the frame never be sent.
    pub(super) entries: Option<(AppenderKey, Bytes)>,
}

/// The queue. Its bytes are bounded by whoever fills it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    run_bytes_max: usize,
}

impl Outbox {
    /// An outbox for a node that takes frames with bodies of so many bytes.
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        let run_bytes_max = RUN_BYTES_MAX.min(frame_bytes_max) - APPEND_HEAD_BYTES_MAX;
        Outbox { items: VecDeque::new(), run_bytes_max }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an encoded request that makes all ids below `ids_end` sent, and is to be answered within
    /// the timeout `timed`.
    pub(super) fn push_request(
        &mut self,
        frame: OutFrame,
        ids_end: u64,
        charged: usize,
        timed: Option<Duration>,
    ) {
        self.items.push_back(Item::Frame { frame, ids_end, charged, timed });
    }

    /// Adds an entry with the request id `id`, to the open run if it may join it.
    pub(super) fn push_entry(
        &mut self,
        appender: Option<AppenderKey>,
        options: &Arc<AppendOptions>,
        (id, index): (u64, u64),
        payload: &[u8],
        charged: usize,
    ) {
        let run_bytes_max = self.run_bytes_max;
        let run = match self.items.back_mut() {
            Some(Item::Run(run))
                if run.is_joined_by(appender, options, index)
                    && run.bytes.len() + 4 + payload.len() <= run_bytes_max =>
            {
                run
            }
            _ => {
                let options = options.clone();
                let bytes = BytesMut::with_capacity(4 + payload.len());
                let run = OpenRun { appender, options, id, index, count: 0, bytes, charged: 0 };
                self.items.push_back(Item::Run(run));
                match self.items.back_mut() {
                    Some(Item::Run(run)) => run,
                    _ => unreachable!("a run was pushed just now"),
                }
            }
        };
        run.count += 1;
        run.charged += charged;
        run.bytes.put_u32_le(payload.len() as u32); // Checked against the frame limit before.
        run.bytes.extend_from_slice(payload);
    }

    /// Everything that waits, as frames ready to be written.
    pub(super) fn drain_into(&mut self, outgoing: &mut VecDeque<Outgoing>) {
        outgoing.extend(self.items.drain(..).map(|item| match item {
            Item::Run(run) => run.seal(),
            Item::Frame { frame, ids_end, charged, timed } => {
                let timed = timed.map(|timeout| (timeout, 1));
                Outgoing { frame, ids_end, charged, timed, entries: None }
            }
        }));
    }
}

impl OpenRun {
    fn is_joined_by(
        &self,
        appender: Option<AppenderKey>,
        options: &Arc<AppendOptions>,
        index: u64,
    ) -> bool {
        let same_origin = self.appender == appender
            && match appender {
                Some(_) => index == self.index + u64::from(self.count),
                // The numbers of a producer and of `match` count on from the head of a run: two
                // single appends have no such order.
                None => self.options == *options && options.is_plain(),
            };
        same_origin && self.count < RUN_ENTRIES_MAX
    }

    fn seal(self) -> Outgoing {
        let options = &self.options;
        let head = AppendRequest {
            id: self.id,
            count: self.count,
            concern: options.concern.into(),
            ack: options.ack.into(),
            timeout: options.timeout.into(),
            producer: options.producer.as_ref().map(|producer| ProducerNumber {
                producer: producer.name.clone(),
                number: producer.number.saturating_add(self.index),
            }),
            match_seq: options.match_seq.map(|seq| seq.plus(self.index).number()),
            atomic: options.atomic,
        };
        let entries = self.bytes.freeze();
        Outgoing {
            frame: Message::AppendRequest(head, entries.clone()).encode(),
            ids_end: self.id + u64::from(self.count),
            charged: self.charged,
            timed: options.limit().map(|timeout| (timeout, u64::from(self.count))),
            entries: self.appender.map(|appender| (appender, entries)),
        }
    }
}

/// The payloads in the tail of an APPEND_REQUEST that we made ourselves.
pub(super) fn payloads(mut entries: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if entries.is_empty() {
            return None;
        }
        let len = entries.get_u32_le() as usize;
        Some(entries.split_to(len))
    })
}
