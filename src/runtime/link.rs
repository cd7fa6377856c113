//! The socket of a connection between two nodes: what waits is lent by the node and written here, and a
//! task reads.
//!
//! The driver writes by itself, without waiting: what the socket does not take at once stays in the
//! node's queue until the socket takes bytes again. So a frame costs no hop to another task, and nobody
//! waits for a slow peer.

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
pub(super) use crate::connect::tune;
use crate::engine::SessionId;
use crate::limits::FRAME_BODY_BYTES_MAX;
use crate::node::introduction::next_message;
use crate::node::queue::{Flushed, FrameQueue};
use crate::wire::{FrameDecoder, reserve_for_read};

/// One connection to another node. Dropping it closes the connection.
pub(super) struct Link {
    session: SessionId,
    socket: Arc<OwnedWriteHalf>,
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
        read: OwnedReadHalf,
        write: OwnedWriteHalf,
        buffer: BytesMut,
        process: &Node,
    ) -> Link {
        let driver = &process.driver;
        let traffic = process.metrics.traffic(metrics::Kind::Node).clone();
        let received = traffic.received.clone();
        let reading = read_frames(session, read, buffer, driver.clone(), received);
        let reader = tokio::spawn(reading);
        Link {
            session,
            socket: Arc::new(write),
            blocked: None,
            traffic,
            reader,
            driver: driver.clone(),
        }
    }

    /// Writes as much as the socket takes of what waits, and answers how many bytes that were. If there
    /// is more, [`PeerEvent::Writable`] will come: `None` until then.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn write(&mut self, queue: &FrameQueue) -> io::Result<Option<usize>> {
        if self.blocked.is_some() {
            return Ok(None);
        }
        let written = try_write(&self.socket, &queue.slices())?;
        match written {
            Some(bytes) => drop(self.traffic.sent.inc_by(bytes as u64)),
            None => {
                let (session, socket) = (self.session, self.socket.clone());
                let driver = self.driver.clone();
                self.blocked = Some(tokio::spawn(async move {
                    // An error shows at the next write; a driver that is gone needs no event.
                    let _ = socket.writable().await;
                    let _ = driver.send(Input::Peer(PeerEvent::Writable { session })).await;
                }));
            }
        }
        Ok(written)
    }

    /// Sends last words, as far as the socket takes them now, and closes. The connection lingers for a
    /// moment: closing at once over bytes that were not read would destroy them on their way.
    pub(super) fn close(self, mut last_words: FrameQueue) {
        const LINGER: Duration = Duration::from_secs(1);
        // A peer that takes nothing now is closed without last words.
        let _ = write_queue(&self.socket, &mut last_words, &mut Flushed::default());
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

/// Writes as much of a queue as a socket takes now. Returns whether it took everything.
///
/// # Errors
/// The connection is broken.
pub(super) fn write_queue(
    socket: &OwnedWriteHalf,
    queue: &mut FrameQueue,
    flushed: &mut Flushed,
) -> io::Result<bool> {
    while !queue.is_empty() {
        match try_write(socket, &queue.slices())? {
            Some(bytes) => flushed.add(queue.taken(bytes)),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Writes what a socket takes now; `None` if it takes nothing.
pub(super) fn try_write(
    socket: &OwnedWriteHalf,
    slices: &[IoSlice<'_>],
) -> io::Result<Option<usize>> {
    loop {
        match socket.try_write_vectored(slices) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads frames until the connection ends, and tells the driver in batches: what one read brought.
async fn read_frames(
    session: SessionId,
    mut socket: OwnedReadHalf,
    mut buffer: BytesMut,
    driver: mpsc::Sender<Input>,
    received: Counter,
) {
    let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
    let (refuse, reason) = loop {
        let mut messages = Vec::new();
        let fault = loop {
            match next_message(decoder, &mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break None,
                Err((code, reason)) => break Some((Some(code), reason)),
            }
        };
        if !messages.is_empty() {
            let event = PeerEvent::Messages { session, messages };
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
    let _ = driver.send(Input::Peer(PeerEvent::Closed { session, refuse, reason })).await;
}
