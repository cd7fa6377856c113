//! What a client's connection wakes up for, whichever door it came through.

use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::clock::Clock;
use super::inbox::Node;
use super::metrics::{Kind, Traffic};
use super::room::Room;
use crate::node::View;
use crate::node::client::Reply;
use crate::node::session::Waits;
use crate::types::Time;
use crate::wire::reserve_for_read;

/// All that may happen to a client's connection from outside.
pub(super) struct Wakes {
    read: OwnedReadHalf,
    replies: mpsc::Receiver<Vec<Reply>>,
    view: watch::Receiver<View>,
    /// Registered once, and not with each thing that is waited for.
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    stopping: bool,
    traffic: Traffic,
    input_max: usize,
    room: Room,
}

/// What happened.
pub(super) enum Wake {
    /// Appends and waits were answered.
    Answered(Vec<Reply>),
    /// There may be something to do: input came, the socket takes output, the log grew, or the node
    /// began to stop.
    Ready,
    /// The client sends nothing more.
    InputEnded,
    /// The log did not grow in time.
    Idle,
    /// The client did not finish in so long what it had begun to send.
    Unfinished(Duration),
    /// The client did not take its output in time.
    Stalled,
    /// The connection, or the node's driver, is gone.
    Broken,
}

impl Wakes {
    pub(super) fn new(
        node: &Node,
        kind: Kind,
        read: OwnedReadHalf,
        replies: mpsc::Receiver<Vec<Reply>>,
    ) -> Self {
        Wakes {
            read,
            replies,
            view: node.view.clone(),
            stop: Box::pin(node.stop.clone().cancelled_owned()),
            stopping: false,
            traffic: node.metrics.traffic(kind).clone(),
            input_max: node.site.limits.output_max,
            room: Room::new(node.unfinished.clone(), node.site.limits.write_timeout),
        }
    }

    /// Whether the node is stopping: no more input is taken.
    pub(super) fn stopping(&self) -> bool {
        self.stopping
    }

    /// Waits for the next thing to happen. Input is put behind what is in `input`.
    pub(super) async fn next(
        &mut self,
        clock: Clock,
        input: &mut BytesMut,
        write: &OwnedWriteHalf,
        waits: Waits,
    ) -> Wake {
        let (blocked, tailing) = (waits.room_by.is_some(), waits.entries_by.is_some());
        let has_room = self.room.of(waits.unfinished.filter(|_| !self.stopping));
        let reading = waits.input && has_room && !self.stopping;
        reserve_for_read(input);
        tokio::select! {
            biased;
            () = &mut self.stop, if !self.stopping => {
                self.stopping = true;
                // What has arrived is still answered.
                while input.len() < self.input_max
                    && let Ok(count @ 1..) = self.read.try_read_buf(input)
                {
                    self.traffic.received.inc_by(count as u64);
                }
                Wake::Ready
            }
            answered = self.replies.recv() => {
                let Some(mut answered) = answered else { return Wake::Broken };
                while let Ok(more) = self.replies.try_recv() {
                    answered.extend(more);
                }
                Wake::Answered(answered)
            }
            ready = write.writable(), if blocked => match ready {
                Ok(()) => Wake::Ready,
                Err(_) => Wake::Broken,
            },
            came = read_or_error(&mut self.read, input, reading, &self.traffic) => match came {
                Ok(0) => Wake::InputEnded,
                Ok(_) => Wake::Ready,
                Err(_) => Wake::Broken,
            },
            there_is = self.room.changed() => {
                if there_is { Wake::Ready } else { Wake::Unfinished(self.room.held_for()) }
            }
            _ = self.view.changed(), if tailing => Wake::Ready,
            () = until(clock, waits.entries_by), if tailing => Wake::Idle,
            () = until(clock, waits.room_by), if blocked => Wake::Stalled,
        }
    }

    /// The receiving half, for the farewell.
    pub(super) fn into_read_half(self) -> OwnedReadHalf {
        self.read
    }
}

/// Comes back then; never, where nothing is waited for.
async fn until(clock: Clock, deadline: Option<Time>) {
    match deadline {
        Some(deadline) => sleep_until(clock.instant(deadline)).await,
        None => std::future::pending().await,
    }
}

/// Reads what came; while nothing is to be read, waits for the connection to fail.
///
/// A client that has closed altogether looks at first like one that has closed its sending side and
/// waits for its answers by right. Keepalive probes tell them apart after a while, and their error
/// would go unseen if nobody asked for it. Cancel-safe: what was read is in the buffer.
async fn read_or_error(
    socket: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    reading: bool,
    traffic: &Traffic,
) -> std::io::Result<usize> {
    if reading {
        let count = socket.read_buf(buffer).await?;
        traffic.received.inc_by(count as u64);
        return Ok(count);
    }
    socket.ready(Interest::ERROR).await?;
    Err(std::io::ErrorKind::ConnectionReset.into())
}
