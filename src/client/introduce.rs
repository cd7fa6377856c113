//! Dialling a node and the exchange of HELLOs: everything before the first request.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::ConnectOptions;
use super::error::{ConnectFailure, RefusedByNode};
use crate::connect::{Dial, DialFailure, Stranger, nudge_at, nudged, since, tune};
use crate::limits::{
    CLIENT_DEAD_AFTER, FRAME_BODY_BYTES_MAX, FRAME_BODY_BYTES_MAX_UNINTRODUCED, NODES_MAX,
};
use crate::types::{LogId, NodeId};
use crate::wire::codec::{Hello, OPERATOR, Role};
use crate::wire::{FrameDecoder, FrameError, Message, VERSION, reserve_for_read};

/// What a node said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The address that answered, as it was given.
    pub(super) addr: String,
    /// What it said.
    pub(super) hello: Hello,
    /// Its roster, checked.
    pub(super) roster: Vec<NodeId>,
}

impl Node {
    /// Largest frame body that it takes and that we make.
    pub(super) fn frame_bytes_max(&self) -> usize {
        FRAME_BODY_BYTES_MAX.min(self.hello.frame_bytes_max as usize)
    }

    /// The history it holds.
    pub(super) fn log_id(&self) -> Option<LogId> {
        self.hello.log_id.map(LogId::new)
    }
}

/// What a client says of itself.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) name: String,
    /// Nothing will be asked of the node but how it is.
    pub(super) only_looks: bool,
}

impl Visitor {
    pub(super) fn of(options: &ConnectOptions) -> Visitor {
        Visitor { name: options.name.clone(), only_looks: options.only_looks }
    }
}

/// A connection ready for requests, and what came behind the node's HELLO.
#[derive(Debug)]
pub(super) struct Introduced {
    pub(super) stream: TcpStream,
    pub(super) buffer: BytesMut,
    pub(super) node: Node,
}

/// The addresses tried, as people would write them, and why each did not do.
pub(super) type Failures = Vec<(String, ConnectFailure)>;

/// Dials `target` (`host:port`) and introduces the client as `visitor`, all by `deadline`: the first of
/// its addresses behind which a node introduces itself. They share the time.
pub(super) async fn introduce(
    target: &str,
    visitor: &Visitor,
    deadline: Instant,
) -> Result<Introduced, Failures> {
    match Dial::resolve(target, deadline).await {
        Ok(dial) => introduce_at(dial, target, visitor).await,
        Err(failure) => Err(vec![(target.to_owned(), failure.into())]),
    }
}

/// The same, for a name whose addresses are known.
pub(super) async fn introduce_at(
    mut dial: Dial,
    target: &str,
    visitor: &Visitor,
) -> Result<Introduced, Failures> {
    let mut failures = Failures::new();
    while let Some((addr, stream)) = dial.next().await {
        match introduce_on(stream, addr, target, visitor, dial.share_ends()).await {
            Ok(introduced) => return Ok(introduced),
            Err(failure) => failures.push((shown(target, addr), failure)),
        }
    }
    let unconnected = dial.failures().iter();
    failures
        .extend(unconnected.map(|(addr, failure)| (shown(target, *addr), failure.clone().into())));
    Err(failures)
}

/// An address as it was given and, if that was a name, what it stands for.
fn shown(target: &str, addr: SocketAddr) -> String {
    if target.parse() == Ok(addr) { target.to_owned() } else { format!("{target} ({})", addr.ip()) }
}

impl From<DialFailure> for ConnectFailure {
    fn from(failure: DialFailure) -> Self {
        match failure {
            DialFailure::Unresolved(why) => ConnectFailure::Unresolved(why),
            DialFailure::Unconnected(why) => ConnectFailure::Unconnected(why),
        }
    }
}

async fn introduce_on(
    mut stream: TcpStream,
    addr: SocketAddr,
    target: &str,
    visitor: &Visitor,
    deadline: Instant,
) -> Result<Introduced, ConnectFailure> {
    let connected = Instant::now();
    tune(&stream, CLIENT_DEAD_AFTER);
    let mut buffer = BytesMut::new();
    let hello = exchange(&mut stream, visitor, &mut buffer, addr.port());
    match timeout_at(nudge_at(deadline), hello).await {
        Ok(hello) => {
            let node = judge(target, hello?).map_err(ConnectFailure::Protocol)?;
            Ok(Introduced { stream, buffer, node })
        }
        Err(_) => {
            let said = nudged(stream, deadline).await;
            Err(match Stranger::of(&said) {
                Some(stranger) => ConnectFailure::WrongPort(stranger.sentence(addr.port())),
                None => ConnectFailure::NotIntroduced(since(connected)),
            })
        }
    }
}

/// Sends our HELLO and waits for the other one.
async fn exchange(
    stream: &mut TcpStream,
    visitor: &Visitor,
    buffer: &mut BytesMut,
    port: u16,
) -> Result<Hello, ConnectFailure> {
    let broken = |error: std::io::Error| ConnectFailure::Closed(error.to_string());
    stream.write_all(&client_hello(visitor).encode().to_bytes()).await.map_err(broken)?;
    let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
    let frame = loop {
        match decoder.decode(buffer) {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(error) => return Err(no_frame(error, buffer, port)),
        }
        reserve_for_read(buffer);
        if stream.read_buf(buffer).await.map_err(broken)? == 0 {
            return Err(ConnectFailure::Closed("without a word".to_owned()));
        }
    };
    match Message::decode(frame) {
        Ok(Some(Message::Hello(hello))) => Ok(hello),
        Ok(Some(Message::Refuse(refuse))) => {
            Err(ConnectFailure::Refused(RefusedByNode { code: refuse.code, reason: refuse.reason }))
        }
        Ok(_) => Err(ConnectFailure::Protocol("its first frame is no HELLO".to_owned())),
        Err(error) => Err(ConnectFailure::Protocol(error.to_string())),
    }
}

/// What came instead of a frame.
fn no_frame(error: FrameError, said: &[u8], port: u16) -> ConnectFailure {
    match Stranger::of(said) {
        Some(stranger) => ConnectFailure::WrongPort(stranger.sentence(port)),
        None => ConnectFailure::Protocol(error.to_string()),
    }
}

fn client_hello(visitor: &Visitor) -> Message {
    Message::Hello(Hello {
        peer_id: if visitor.only_looks { OPERATOR.to_owned() } else { String::new() },
        ..Hello::blank(Role::Client, visitor.name.as_str())
    })
}

fn judge(addr: &str, hello: Hello) -> Result<Node, String> {
    if !(hello.version_min..=hello.version_max).contains(&VERSION) {
        let (min, max) = (hello.version_min, hello.version_max);
        return Err(format!("it speaks versions {min} to {max}, we speak {VERSION}"));
    }
    if hello.role == Role::Client {
        return Err("it says it is a client".to_owned());
    }
    if hello.roster.len() > NODES_MAX {
        return Err(format!("a roster of {} nodes", hello.roster.len()));
    }
    // What it takes from strangers it must take from us; requests' heads fit in that.
    if (hello.frame_bytes_max as usize) < FRAME_BODY_BYTES_MAX_UNINTRODUCED {
        return Err(format!("it takes frames of at most {} bytes", hello.frame_bytes_max));
    }
    let roster = hello.roster.iter().map(|id| id.parse());
    let roster = roster.collect::<Result<_, _>>().map_err(|_| "a malformed roster".to_owned())?;
    Ok(Node { addr: addr.to_owned(), hello, roster })
}
