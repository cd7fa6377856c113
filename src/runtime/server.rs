//! The two doors of a node: accepting connections, counting them, and finding out who is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::inbox::{Input, Introduced, Node, PeerEvent};
use super::link::tune;
use super::reader::{self, IntroductionError, hello_of, read_hello};
use super::{text, wire_session};
use crate::codes::RefuseCode;
use crate::config::Role;
use crate::engine::SessionId;
use crate::gateway::Refusal;
use crate::types::PrefixId;
use crate::wire::Message;
use crate::wire::codec::{self, Hello};

/// Which door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The wire protocol.
    Wire,
    /// The text gateway.
    Gateway,
}

/// Clients that take nothing for so long are cut by the kernel as well.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// Accepts connections until the node stops. Connections are tasks of `tasks`.
pub(super) async fn accept(door: Door, listener: TcpListener, node: Arc<Node>, tasks: TaskTracker) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Mostly too many open files: connections that end make room again.
                    warn!(%error, ?door, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = node.stop.cancelled() => return,
        };
        let max = node.limits.connections_max;
        let guard = OpenGuard(open.clone());
        if open.fetch_add(1, Ordering::Relaxed) >= max {
            match door {
                Door::Wire => node.metrics.connection_refused(RefuseCode::Busy),
                Door::Gateway => node.metrics.refused(crate::codes::Code::Busy, 1),
            }
            // Turned away in a task of its own, but not many at once: those beyond are just closed.
            if open.load(Ordering::Relaxed) <= max + 64 {
                tasks.spawn(async move {
                    turn_away(door, stream, max).await;
                    drop(guard);
                });
            }
            continue;
        }
        let node = node.clone();
        tasks.spawn(async move {
            tune(&stream, DEAD_AFTER);
            let counted = node.metrics.connection_opened(door);
            match door {
                Door::Gateway => text::serve(node, stream).await,
                Door::Wire => introduce(node, stream).await,
            }
            drop((guard, counted));
        });
    }
}

/// Counts a connection for as long as it lives.
struct OpenGuard(Arc<AtomicUsize>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn turn_away(door: Door, stream: TcpStream, max: usize) {
    let reason = "too many connections";
    match door {
        Door::Gateway => {
            let detail = format!("connections={max} - {reason}, try again later");
            let mut line = BytesMut::new();
            Refusal::new(crate::codes::Code::Busy, detail).write(&mut line);
            let (read, write) = stream.into_split();
            // Somebody who does not take one line is just closed.
            if write.try_write(&line).is_ok_and(|count| count == line.len()) {
                text::drain(read, write, Duration::from_secs(1)).await;
            }
        }
        Door::Wire => {
            let (read, write) = stream.into_split();
            reader::refuse(read, write, RefuseCode::Busy, 0, reason).await;
        }
    }
}

/// Finds out who dialled, and hands the connection to whoever serves that role.
async fn introduce(node: Arc<Node>, stream: TcpStream) {
    let (mut read, write) = stream.into_split();
    let mut buffer = BytesMut::new();
    let hello = tokio::select! {
        hello = read_hello(&mut read, &mut buffer) => hello,
        () = node.stop.cancelled() => {
            return reader::refuse(read, write, RefuseCode::Stopping, 0, "this node is stopping").await;
        }
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(IntroductionError::Refuse(code, reason)) => {
            debug!(code = code.word(), reason, "connection refused");
            node.metrics.connection_refused(code);
            return reader::refuse(read, write, code, 0, &reason).await;
        }
        Err(IntroductionError::Refused(_) | IntroductionError::Gone(_)) => return,
    };
    match (hello.role, node.role) {
        (codec::Role::Client, _) => {
            let answer = Message::Hello(answer_to_client(&node)).encode();
            wire_session::serve(node, read, write, buffer, answer).await;
        }
        (codec::Role::Master, Role::Secondary) => {
            let session = SessionId(node.connection_number());
            let introduced = Box::new(Introduced { session, hello, read, write, buffer });
            // A driver that is gone closes the connection.
            let _ = node.driver.send(Input::Peer(PeerEvent::Accepted(introduced))).await;
        }
        _ => {
            let reason = format!("this node is a {}", node.role);
            node.metrics.connection_refused(RefuseCode::WrongRole);
            reader::refuse(read, write, RefuseCode::WrongRole, 0, &reason).await;
        }
    }
}

fn answer_to_client(node: &Node) -> Hello {
    let bounds = node.log.bounds();
    let tail = node.log.prefix_id(bounds.last).unwrap_or(PrefixId::EMPTY);
    let history = node.view.borrow().history;
    Hello {
        log_id: history.map(|(log_id, _)| log_id.bytes()),
        epoch: history.map_or(0, |(_, epoch)| epoch.number()),
        epoch_table: reader::epoch_table(&node.log),
        stored: bounds.last.number(),
        tail_epoch: tail.epoch.number(),
        tail_digest: tail.digest.value(),
        master_addr: node.master_addr(),
        frame_bytes_max: u32::try_from(wire_session::frame_bytes_max(node)).unwrap_or(u32::MAX),
        ..hello_of(node)
    }
}
