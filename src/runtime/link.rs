//! A connection between two nodes: a writer that the driver owns, and a task that reads.
//!
//! The driver writes by itself, without waiting: what the socket does not take at once stays in a
//! short queue, control frames in front, until the socket takes bytes again. So a frame costs no hop
//! to another task, and nobody waits for a slow peer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use prometheus_client::metrics::counter::Counter;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::inbox::{Input, Node, PeerEvent};
use super::metrics::{self, Traffic};
use crate::codes::RefuseCode;
pub(super) use crate::connect::tune;
use crate::engine::SessionId;
use crate::limits::FRAME_BODY_BYTES_MAX;
use crate::types::{Epoch, NodeIndex, Seq};
use crate::wire::codec::Refuse;
use crate::wire::{FrameDecoder, Message, OutFrame, reserve_for_read};

/// Control frames that may wait for a full socket. HEARTBEATs and ACKs replace one another, so more
/// than a few are errors that repeat.
const CONTROL_FRAMES_MAX: usize = 64;

/// Pieces in one vectored write; Linux takes up to 1024.
const IO_SLICES_MAX: usize = 128;

/// What a frame is to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A newer one takes the place of one that still waits.
    Heartbeat,
    /// Likewise: acknowledgements are cumulative.
    Ack,
    /// Any other frame that goes before bulk.
    Control,
    /// Entries, up to this number.
    Entries(Seq),
}

/// What a flush achieved.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// APPEND frames that the socket took whole.
    pub(super) frames: usize,
    /// The last entry of the last of them.
    pub(super) up_to: Seq,
}

/// Frames on their way into a socket.
#[derive(Debug, Default)]
pub(super) struct FrameQueue {
    frames: VecDeque<(Kind, OutFrame)>,
    /// The sum of what is left of them.
    bytes: usize,
    /// The first frame is partly written.
    begun: bool,
}

impl FrameQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a frame: control before bulk, but never into a frame that is partly written.
    pub(super) fn push(&mut self, kind: Kind, frame: OutFrame) {
        if let Kind::Entries(_) = kind {
            self.bytes += frame.len();
            return self.frames.push_back((kind, frame));
        }
        let first = usize::from(self.begun);
        let is_control = |kind: &Kind| !matches!(kind, Kind::Entries(_));
        let control =
            self.frames.iter().skip(first).take_while(|(kind, _)| is_control(kind)).count();
        // Nothing overtakes another control frame: a heartbeat may speak of what a HELLO says.
        let waiting = self.frames.iter_mut().skip(first).take(control);
        let behind = waiting.rev().take_while(|(other, _)| *other != Kind::Control);
        if kind != Kind::Control
            && let Some(older) = { behind }.find(|(other, _)| *other == kind)
        {
            self.bytes = self.bytes - older.1.len() + frame.len();
            older.1 = frame;
        } else if control < CONTROL_FRAMES_MAX {
            self.bytes += frame.len();
            self.frames.insert(first + control, (kind, frame));
        }
    }

    /// Writes as much as the socket takes now. Returns whether it took everything.
    pub(super) fn write_to(
        &mut self,
        socket: &OwnedWriteHalf,
        flushed: &mut Flushed,
    ) -> io::Result<bool> {
        while !self.frames.is_empty() {
            let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(8);
            for (_, frame) in &self.frames {
                frame.io_slices(&mut slices, IO_SLICES_MAX);
                if slices.len() >= IO_SLICES_MAX {
                    break;
                }
            }
            match socket.try_write_vectored(&slices) {
                Ok(written) => self.written(written, flushed),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn written(&mut self, mut bytes: usize, flushed: &mut Flushed) {
        self.bytes -= bytes;
        while bytes > 0
            && let Some((_, front)) = self.frames.front_mut()
        {
            let of_front = bytes.min(front.len());
            front.advance(of_front);
            bytes -= of_front;
            self.begun = !front.is_empty();
            if !self.begun
                && let Some((Kind::Entries(up_to), _)) = self.frames.pop_front()
            {
                flushed.frames += 1;
                flushed.up_to = flushed.up_to.max(up_to);
            }
        }
    }
}

/// One connection to another node, as its driver holds it. Dropping it closes the connection.
pub(super) struct Link {
    pub(super) session: SessionId,
    peer: NodeIndex,
    socket: Arc<OwnedWriteHalf>,
    queue: FrameQueue,
    /// The socket is full; a task waits for it.
    blocked: Option<JoinHandle<()>>,
    traffic: Traffic,
    reader: JoinHandle<()>,
    driver: mpsc::Sender<Input>,
}

impl Link {
    /// Takes over a connection whose other side is introduced and starts to read it.
    pub(super) fn start(
        session: SessionId,
        peer: NodeIndex,
        read: OwnedReadHalf,
        write: OwnedWriteHalf,
        buffer: BytesMut,
        node: &Node,
    ) -> Link {
        let driver = &node.driver;
        let traffic = node.metrics.traffic(metrics::Kind::Node).clone();
        let received = traffic.received.clone();
        let reading = read_frames(session, peer, read, buffer, driver.clone(), received);
        let reader = tokio::spawn(reading);
        Link {
            session,
            peer,
            socket: Arc::new(write),
            queue: FrameQueue::default(),
            blocked: None,
            traffic,
            reader,
            driver: driver.clone(),
        }
    }

    /// Queues a frame; [`Link::flush`] sends it.
    pub(super) fn push(&mut self, kind: Kind, message: &Message) {
        self.queue.push(kind, message.encode());
    }

    /// Queues a sealed frame.
    pub(super) fn push_frame(&mut self, kind: Kind, frame: OutFrame) {
        self.queue.push(kind, frame);
    }

    /// Whether entries wait that the socket does not take.
    pub(super) fn has_entries_waiting(&self) -> bool {
        self.queue.frames.iter().any(|(kind, _)| matches!(kind, Kind::Entries(_)))
    }

    /// Writes what the socket takes. If it does not take all, `PeerEvent::Writable` will come.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn flush(&mut self) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        if self.blocked.is_some() {
            return Ok(flushed);
        }
        let before = self.queue.bytes();
        let all = self.queue.write_to(&self.socket, &mut flushed)?;
        self.traffic.sent.inc_by((before - self.queue.bytes()) as u64);
        if !all {
            let (peer, session) = (self.peer, self.session);
            let (socket, driver) = (self.socket.clone(), self.driver.clone());
            self.blocked = Some(tokio::spawn(async move {
                // An error shows at the next write; a driver that is gone needs no event.
                let _ = socket.writable().await;
                let _ = driver.send(Input::Peer(PeerEvent::Writable { peer, session })).await;
            }));
        }
        Ok(flushed)
    }

    /// Refuses the peer and closes. The connection lingers for a moment: closing at once over bytes
    /// that were not read would destroy our last words on their way.
    pub(super) fn refuse(mut self, code: RefuseCode, epoch: Epoch, reason: &str) {
        const LINGER: Duration = Duration::from_secs(1);
        let refuse =
            Refuse { code: code.number(), epoch: epoch.number(), reason: reason.to_owned() };
        self.queue.push(Kind::Control, Message::Refuse(refuse).encode());
        // A peer that takes nothing now is closed without last words.
        let _ = self.queue.write_to(&self.socket, &mut Flushed::default());
        let socket = self.socket.clone();
        tokio::spawn(async move {
            let stream: &TcpStream = (*socket).as_ref();
            let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
            tokio::time::sleep(LINGER).await;
        });
    }

    /// The socket takes bytes again.
    pub(super) fn unblock(&mut self) {
        self.blocked = None;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some(blocked) = &self.blocked {
            blocked.abort();
        }
    }
}

/// Reads frames until the connection ends, and tells the driver in batches: what one read brought.
async fn read_frames(
    session: SessionId,
    peer: NodeIndex,
    mut socket: OwnedReadHalf,
    mut buffer: BytesMut,
    driver: mpsc::Sender<Input>,
    received: Counter,
) {
    let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
    let (refuse, reason) = loop {
        let mut messages = Vec::new();
        let fault = loop {
            match super::reader::next_message(decoder, &mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break None,
                Err((code, reason)) => break Some((Some(code), reason)),
            }
        };
        if !messages.is_empty() {
            let event = PeerEvent::Messages { peer, session, messages };
            if driver.send(Input::Peer(event)).await.is_err() {
                return;
            }
        }
        if let Some(fault) = fault {
            break fault;
        }
        reserve_for_read(&mut buffer);
        match socket.read_buf(&mut buffer).await {
            Ok(0) => break (None, "the peer closed the connection".to_owned()),
            Ok(count) => drop(received.inc_by(count as u64)),
            Err(error) => break (None, error.to_string()),
        }
    };
    // A driver that is gone needs no event.
    let _ = driver.send(Input::Peer(PeerEvent::Closed { peer, session, refuse, reason })).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::{Heartbeat, Levels};

    fn heartbeat(epoch: u64) -> OutFrame {
        Message::Heartbeat(Heartbeat { epoch, number: 1, levels: Levels::default() }).encode()
    }

    fn kinds(queue: &FrameQueue) -> Vec<Kind> {
        queue.frames.iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn a_newer_heartbeat_takes_the_place_of_one_that_waits() {
        let mut queue = FrameQueue::default();
        queue.push(Kind::Entries(Seq::FIRST), heartbeat(1));
        queue.push(Kind::Heartbeat, heartbeat(1));
        queue.push(Kind::Heartbeat, heartbeat(2));
        assert_eq!(kinds(&queue), [Kind::Heartbeat, Kind::Entries(Seq::FIRST)]);
        assert_eq!(queue.frames[0].1.to_bytes(), heartbeat(2).to_bytes());
    }

    /// A heartbeat of an epoch must not arrive before the HELLO that tells the epoch.
    #[test]
    fn no_heartbeat_overtakes_another_control_frame() {
        let mut queue = FrameQueue::default();
        queue.push(Kind::Heartbeat, heartbeat(0));
        queue.push(Kind::Control, heartbeat(9));
        queue.push(Kind::Heartbeat, heartbeat(1));
        assert_eq!(kinds(&queue), [Kind::Heartbeat, Kind::Control, Kind::Heartbeat]);
        let sum: usize = queue.frames.iter().map(|(_, frame)| frame.len()).sum();
        assert_eq!(queue.bytes(), sum);
    }
}
