//! A node that does what a test says: real sockets, scripted answers.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::limits::FRAME_BODY_BYTES_MAX;
use crate::store::RunBuilder;
use crate::types::{Epoch, PrefixId, Seq};
use crate::wire::codec::{
    self, AppendReply, AppendRequest, CommandHead, EntriesHead, Hello, Placed, Role,
};
use crate::wire::{FrameDecoder, Message};

/// Listens; what it says is up to the test.
pub(crate) struct FakeNode {
    listener: TcpListener,
    /// Its introduction.
    pub(crate) hello: Hello,
}

impl FakeNode {
    /// A master of three nodes.
    pub(crate) async fn master() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hello = Hello {
            log_id: Some([7; 16]),
            epoch: 1,
            run_id: 1,
            vouches: true,
            roster: ["master", "s1", "s2"].map(str::to_owned).to_vec(),
            master_addr: listener.local_addr().unwrap().to_string(),
            payload_bytes_max: 1 << 20,
            window_bytes: 1 << 24,
            ..Hello::blank(Role::Master, "master")
        };
        FakeNode { listener, hello }
    }

    pub(crate) fn addr(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The next connection, introduced.
    pub(crate) async fn accept(&self) -> Peer {
        let mut peer = self.accept_silently().await;
        match peer.recv().await {
            Some(Message::Hello(hello)) => assert_eq!(hello.role, Role::Client),
            other => panic!("the first frame was {other:?}"),
        }
        peer.send(Message::Hello(self.hello.clone())).await;
        peer
    }

    /// The next connection, as it is.
    pub(crate) async fn accept_silently(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        Peer { stream, buffer: BytesMut::new(), chain: PrefixId::EMPTY }
    }
}

/// One connection of a fake node. Closed when dropped.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    buffer: BytesMut,
    /// Of the last entry that was sent: the next one continues it.
    pub(crate) chain: PrefixId,
}

impl Peer {
    /// The next frame; `None` when the client has closed.
    pub(crate) async fn recv(&mut self) -> Option<Message> {
        let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
        loop {
            if let Some(frame) = decoder.decode(&mut self.buffer).unwrap() {
                return Some(Message::decode(frame).unwrap().unwrap());
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.send_bytes(&message.encode().to_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame, which must be an APPEND_REQUEST, with its payloads.
    pub(crate) async fn recv_append(&mut self) -> (AppendRequest, Vec<Bytes>) {
        match self.recv().await {
            Some(Message::AppendRequest(head, mut tail)) => {
                let mut payloads = Vec::new();
                while !tail.is_empty() {
                    let len = tail.get_u32_le() as usize;
                    payloads.push(tail.split_to(len));
                }
                assert_eq!(payloads.len(), head.count as usize);
                (head, payloads)
            }
            other => panic!("instead of an append came {other:?}"),
        }
    }

    /// The next frame, which must be a COMMAND: its id and line.
    pub(crate) async fn recv_command(&mut self) -> (u64, String) {
        match self.recv().await {
            Some(Message::Command(head, line)) => {
                (head.id, String::from_utf8(line.to_vec()).unwrap())
            }
            other => panic!("instead of a command came {other:?}"),
        }
    }

    /// Answers requests with OK, held by all three.
    pub(crate) async fn send_ok(&mut self, id: u64, count: u32, seq: u64) {
        let outcome = codec::Outcome::Ok(Placed { seq, epoch: 1, need: 3, holders: 0b111 });
        self.send(Message::AppendReply(AppendReply { id, count, outcome })).await;
    }

    pub(crate) async fn send_reply(&mut self, id: u64, end: bool, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.send(Message::CommandReply(CommandHead { id, end }, bytes)).await;
    }

    /// Sends entries from `first` on, which continue `chain`.
    pub(crate) async fn send_entries(
        &mut self,
        id: u64,
        first: u64,
        payloads: &[&[u8]],
        (next, end): (u64, bool),
    ) {
        let mut arena = BytesMut::new();
        let before = Seq::new(first).previous();
        let mut builder = RunBuilder::new(&mut arena, before, self.chain);
        payloads.iter().for_each(|payload| builder.push(Epoch::new(1), 0, payload));
        let run = builder.finish(&mut arena);
        self.chain = run.as_ref().map_or(self.chain, |run| run.tail());
        let records = run.map(|run| run.slice(run.range())).unwrap_or_default();
        let count = payloads.len() as u32;
        let head = EntriesHead { id, first, count, next, commit: next - 1, end };
        self.send(Message::Entries(head, records)).await;
    }
}
