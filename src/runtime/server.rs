//! The two doors of a node: accepting connections, finding out who is there, and turning away whom
//! there is no place for.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::client::{carry_out, drain, serve};
use super::door::Door;
use super::inbox::{Input, Introduced, Node, PeerEvent};
use super::link::tune;
use super::listen::Listeners;
use super::places::{Guest, Places, Stranger, TurnedAway};
use super::reader::{self, IntroductionError, read_hello};
use crate::codes::{Code, RefuseCode};
use crate::config::Role;
use crate::descriptors;
use crate::engine::SessionId;
use crate::gateway::verbs::{Operators, verb_of};
use crate::gateway::{Refusal, parse};
use crate::limits::OPERATOR_TIMEOUT;
use crate::node::introduction::{epoch_table, hello_of};
use crate::node::session::{TextSession, WireSession, frame_bytes_max};
use crate::types::PrefixId;
use crate::wire::Message;
use crate::wire::codec::{self, Hello};

/// Clients that take nothing for so long are cut by the kernel as well.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// Why somebody is turned away.
const NO_PLACE: &str = "too many connections";

/// Accepts connections until the node stops. Connections are tasks of `tasks`.
pub(super) async fn accept(
    door: Door,
    mut listener: Listeners,
    places: Arc<Places>,
    node: Arc<Node>,
    tasks: TaskTracker,
) {
    let mut shortage = Shortage::default();
    loop {
        let whole = descriptors::keep_spare();
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    shortage.begins(door, &error);
                    // Connections that end make room again, and one that waits is told at once.
                    if !(descriptors::is_exhausted(&error) && descriptors::give_up_one()) {
                        sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
            () = sleep(ACCEPT_PAUSE), if !whole => continue,
            () = node.stop.cancelled() => return,
        };
        if whole {
            shortage.is_over(door);
        }
        let (node, places) = (node.clone(), places.clone());
        if !whole {
            // Accepted in place of a descriptor that the log may need: it must not stay.
            refused(&node, door);
            turn_away(door, stream, &places, &tasks);
            continue;
        }
        tune(&stream, DEAD_AFTER);
        match door {
            Door::Wire => {
                let stranger = places.enter();
                let inner = tasks.clone();
                tasks.spawn(async move {
                    let _counted = node.metrics.connection_opened(door);
                    introduce(node, stream, stranger, &places, &inner).await;
                });
            }
            Door::Gateway => match places.client() {
                Some(client) => drop(tasks.spawn(async move {
                    let _counted = node.metrics.connection_opened(door);
                    let session = TextSession::new(&node.site.limits);
                    serve(node, door, stream.into_split(), session, pending()).await;
                    drop(client);
                })),
                None => {
                    let place = places.turn_away();
                    tasks.spawn(async move {
                        see_or_leave(&node, stream, &places, &place).await;
                    });
                }
            },
        }
    }
}

/// How long to wait when a connection cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that could not be accepted: told when it begins, then rarely, and when it is over.
#[derive(Default)]
struct Shortage {
    /// How many, since they were last told of.
    refused: u64,
    told: Option<Instant>,
}

impl Shortage {
    const TOLD_EVERY: Duration = Duration::from_secs(10);

    fn begins(&mut self, door: Door, error: &io::Error) {
        self.refused += 1;
        if self.told.is_none_or(|told| told.elapsed() >= Self::TOLD_EVERY) {
            warn!(%error, ?door, times = self.refused, "cannot accept connections; trying again");
            (self.told, self.refused) = (Some(Instant::now()), 0);
        }
    }

    fn is_over(&mut self, door: Door) {
        if self.told.take_if(|told| told.elapsed() >= ACCEPT_PAUSE).is_some() {
            info!(?door, times = self.refused, "connections are accepted again");
            self.refused = 0;
        }
    }
}

fn refused(node: &Node, door: Door) {
    match door {
        Door::Wire => node.metrics.connection_refused(RefuseCode::Busy),
        Door::Gateway => node.metrics.refused(Code::Busy, 1),
    }
}

/// Says that there is no place, in a task of its own, to as many at once as may be; who has listened for
/// longest is just closed.
fn turn_away(door: Door, stream: TcpStream, places: &Arc<Places>, tasks: &TaskTracker) {
    let place = places.turn_away();
    let max = places.clients_max();
    tasks.spawn(async move {
        let (read, write) = stream.into_split();
        let telling = async {
            match door {
                Door::Gateway => refuse_line(read, write, &busy(max)).await,
                Door::Wire => reader::refuse(read, write, RefuseCode::Busy, 0, NO_PLACE).await,
            }
        };
        tokio::select! {
            biased;
            () = telling => {}
            () = place.evicted() => {}
        }
    });
}

fn busy(max: usize) -> Refusal {
    let detail = format!(
        "connections={max} - {NO_PLACE}, try again later; STATUS, HEALTH, WAITERS, METRICS \
         and DIGEST are answered if they are sent at once"
    );
    Refusal::new(Code::Busy, detail)
}

async fn refuse_line(read: OwnedReadHalf, write: OwnedWriteHalf, refusal: &Refusal) {
    let mut line = BytesMut::new();
    refusal.write(&mut line);
    // Somebody who does not take one line is just closed.
    if write.try_write(&line).is_ok_and(|count| count == line.len()) {
        drain(read, write, Duration::from_secs(1)).await;
    }
}

/// Whether a line is answered even to somebody for whom there is no place.
fn is_admitted(line: &[u8]) -> bool {
    verb_of(line).is_some_and(|verb| verb.operators == Operators::Admitted)
}

/// Serves somebody for whom the gateway has no client's place: if he asks at once for something that
/// operators may ask for, he is answered; then, or else, he must leave.
async fn see_or_leave(node: &Node, stream: TcpStream, places: &Arc<Places>, place: &TurnedAway) {
    /// Verbs are short.
    const LINES_BYTES_MAX: usize = 1024;
    let (mut read, mut write) = stream.into_split();
    let mut input = BytesMut::with_capacity(LINES_BYTES_MAX);
    let asked = async {
        while !input.contains(&b'\n') && input.len() < LINES_BYTES_MAX {
            if !matches!(read.read_buf(&mut input).await, Ok(count) if count > 0) {
                break;
            }
        }
    };
    // Whoever says nothing, or whose place is wanted, is told why he must leave.
    tokio::select! {
        _ = timeout(OPERATOR_TIMEOUT, asked) => {}
        () = place.evicted() => {}
    }
    let mut answers = BytesMut::new();
    let operator = places.operator();
    let answering = async {
        while let Some(end) = input.iter().position(|&byte| byte == b'\n') {
            let mut line = input.split_to(end + 1).freeze();
            line.truncate(end - usize::from(end > 0 && line[end - 1] == b'\r'));
            match parse(&line) {
                Ok(None) => {}
                Ok(Some(command)) if is_admitted(&line) => {
                    if carry_out(node, command, &line, &mut answers).await.is_err() {
                        return;
                    }
                }
                _ => break,
            }
        }
    };
    tokio::select! {
        () = answering => {}
        () = operator.evicted() => {}
    }
    if answers.is_empty() {
        refused(node, Door::Gateway);
        let refusal = busy(places.clients_max());
        return tokio::select! {
            biased;
            () = refuse_line(read, write, &refusal) => {}
            () = place.evicted() => {}
        };
    }
    let sent =
        timeout(node.site.limits.write_timeout.min(OPERATOR_TIMEOUT), write.write_all(&answers));
    if matches!(sent.await, Ok(Ok(()))) {
        drain(read, write, Duration::from_secs(1)).await;
    }
}

/// Finds out who dialled, and hands the connection to whoever serves that role.
async fn introduce(
    node: Arc<Node>,
    stream: TcpStream,
    stranger: Stranger,
    places: &Arc<Places>,
    tasks: &TaskTracker,
) {
    let (mut read, write) = stream.into_split();
    let mut buffer = BytesMut::new();
    let hello = tokio::select! {
        hello = read_hello(&mut read, &mut buffer) => hello,
        () = node.stop.cancelled() => {
            return reader::refuse(read, write, RefuseCode::Stopping, 0, "this node is stopping").await;
        }
        () = stranger.evicted() => {
            refused(&node, Door::Wire);
            // Halves of one stream.
            if let Ok(stream) = read.reunite(write) {
                turn_away(Door::Wire, stream, places, tasks);
            }
            return;
        }
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(IntroductionError::Refuse(code, reason)) => {
            debug!(code = code.word(), reason, "connection refused");
            node.metrics.connection_refused(code);
            return reader::refuse(read, write, code, 0, &reason).await;
        }
        Err(IntroductionError::Refused(_) | IntroductionError::Gone) => return,
    };
    match (hello.role, node.site.role) {
        (codec::Role::Client, _) => {
            let guest = match places.client() {
                Some(place) => Guest::Client { _place: place },
                None if hello.peer_id == codec::OPERATOR => {
                    Guest::Operator { place: places.operator() }
                }
                None => {
                    refused(&node, Door::Wire);
                    // Halves of one stream.
                    if let Ok(stream) = read.reunite(write) {
                        turn_away(Door::Wire, stream, places, tasks);
                    }
                    return;
                }
            };
            drop(stranger);
            let answer = Message::Hello(answer_to_client(&node)).encode();
            let (stream, takes) = ((read, write), hello.frame_bytes_max as usize);
            let says = (guest.only_looks(), takes);
            let session = WireSession::new(&node.site.limits, buffer, answer, says);
            serve(node, Door::Wire, stream, session, guest.evicted()).await;
        }
        (codec::Role::Master, Role::Secondary) => {
            let session = SessionId(node.connection_number());
            let introduced = Box::new(Introduced { session, hello, read, write, buffer });
            // A driver that is gone closes the connection.
            let _ = node.driver.send(Input::Peer(PeerEvent::Accepted(introduced))).await;
        }
        _ => {
            let reason = format!("this node is a {}", node.site.role);
            node.metrics.connection_refused(RefuseCode::WrongRole);
            reader::refuse(read, write, RefuseCode::WrongRole, 0, &reason).await;
        }
    }
}

fn answer_to_client(node: &Node) -> Hello {
    let role = match node.site.role {
        Role::Master => codec::Role::Master,
        Role::Secondary => codec::Role::Secondary,
    };
    let (history, stored, same) = {
        let view = node.view.borrow();
        let same = hello_of(&node.site.about, role, &view.roster, view.levels.commit);
        (view.history, view.stored, same)
    };
    let tail = node.site.log.prefix_id(stored).unwrap_or(PrefixId::EMPTY);
    Hello {
        log_id: history.map(|(log_id, _)| log_id.bytes()),
        epoch: history.map_or(0, |(_, epoch)| epoch.number()),
        epoch_table: epoch_table(&node.site.log),
        stored: stored.number(),
        tail_epoch: tail.epoch.number(),
        tail_digest: tail.digest.value(),
        master_addr: node.with_sight(|sight| sight.master_addr().to_owned()),
        frame_bytes_max: u32::try_from(frame_bytes_max(&node.site.limits)).unwrap_or(u32::MAX),
        ..same
    }
}
