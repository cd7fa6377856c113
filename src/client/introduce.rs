//! Dialling a node and the exchange of HELLOs: everything before the first request.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::{ConnectFailure, RefusedByNode};
use crate::limits::{FRAME_BODY_BYTES_MAX, FRAME_BODY_BYTES_MAX_UNINTRODUCED, NODES_MAX};
use crate::types::{LogId, NodeId};
use crate::wire::codec::{Hello, Role};
use crate::wire::{FrameDecoder, Message, VERSION, reserve_for_read};

/// What a node said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The address that answered.
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

/// A connection ready for requests, and what came behind the node's HELLO.
pub(super) struct Introduced {
    pub(super) stream: TcpStream,
    pub(super) buffer: BytesMut,
    pub(super) node: Node,
}

/// Dials `addr` and introduces the client as `name`, all within `patience`.
pub(super) async fn introduce(
    addr: &str,
    name: &str,
    patience: Duration,
) -> Result<Introduced, ConnectFailure> {
    timeout(patience, introduce_patiently(addr, name))
        .await
        .unwrap_or(Err(ConnectFailure::TimedOut(patience)))
}

async fn introduce_patiently(addr: &str, name: &str) -> Result<Introduced, ConnectFailure> {
    let io = |error: std::io::Error| ConnectFailure::Io(error.to_string());
    let mut stream = TcpStream::connect(addr).await.map_err(io)?;
    // Requests are written in batches; holding the last piece of one back would cost a delayed ack.
    stream.set_nodelay(true).map_err(io)?;
    stream.write_all(&client_hello(name).encode().to_bytes()).await.map_err(io)?;

    let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
    let mut buffer = BytesMut::new();
    let frame = loop {
        let frame = decoder.decode(&mut buffer);
        if let Some(frame) = frame.map_err(|error| ConnectFailure::Protocol(error.to_string()))? {
            break frame;
        }
        reserve_for_read(&mut buffer);
        if stream.read_buf(&mut buffer).await.map_err(io)? == 0 {
            return Err(ConnectFailure::Io("closed before the introduction".to_owned()));
        }
    };
    match Message::decode(frame) {
        Ok(Some(Message::Hello(hello))) => {
            let node = judge(addr, hello).map_err(ConnectFailure::Protocol)?;
            Ok(Introduced { stream, buffer, node })
        }
        Ok(Some(Message::Refuse(refuse))) => {
            Err(ConnectFailure::Refused(RefusedByNode { code: refuse.code, reason: refuse.reason }))
        }
        Ok(_) => Err(ConnectFailure::Protocol("its first frame is no HELLO".to_owned())),
        Err(error) => Err(ConnectFailure::Protocol(error.to_string())),
    }
}

fn client_hello(name: &str) -> Message {
    Message::Hello(Hello {
        version_min: VERSION,
        version_max: VERSION,
        role: Role::Client,
        node_id: name.to_owned(),
        peer_id: String::new(),
        log_id: None,
        epoch: 0,
        run_id: 0,
        epoch_table: Vec::new(),
        stored: 0,
        tail_epoch: 0,
        tail_digest: 0,
        commit: 0,
        vouches: false,
        roster: Vec::new(),
        master_addr: String::new(),
        frame_bytes_max: FRAME_BODY_BYTES_MAX as u32, // Asserted to fit in `limits`.
        payload_bytes_max: 0,
        window_bytes: 0,
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
