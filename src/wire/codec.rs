//! What is in the body of each frame: one struct per message, and the only use of bincode.
//!
//! A body is a *head*, written by bincode's `standard()` configuration (little-endian, variable
//! length integers, see `protocol.md`), and for six frame types a *tail* of raw bytes behind it:
//! records or payloads, which are never copied into a structure. bincode is pinned exactly; the
//! golden vectors in `tests/testdata/wire` freeze the bytes, so that it can be exchanged.

use std::num::NonZeroU16;
use std::time::Duration;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use bytes::{Bytes, BytesMut};

use super::frame::{Frame, OutFrame, copied_len};
use super::header::{HEADER_BYTES, VERSION};
use crate::limits::FRAME_BODY_BYTES_MAX;
use crate::types::{self, AckLevel, WriteConcern};

/// What decoded heads may occupy. bincode checks a container's announced size against it before it
/// allocates; without a limit eleven bytes could ask for the whole memory.
const HEAD_BYTES_MAX: usize = 256 << 10;

const CONFIG: Configuration<LittleEndian, Varint, Limit<HEAD_BYTES_MAX>> =
    bincode::config::standard().with_limit::<HEAD_BYTES_MAX>();

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Role {
    /// The node that numbers entries.
    Master,
    /// A node that holds a copy.
    Secondary,
    /// Everybody else.
    Client,
}

/// Where an epoch began: its first sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: u64,
    /// The number of the first entry that may belong to it.
    pub first: u64,
}

/// What a client that only looks says in place of a node's id, which cannot be this: it is let in
/// when there is no place for other clients.
pub const OPERATOR: &str = "@operator";

/// The introduction, first frame of both sides.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Lowest protocol version spoken.
    pub version_min: u8,
    /// Highest protocol version spoken.
    pub version_max: u8,
    /// Who speaks.
    pub role: Role,
    /// The sender's node id; a client's name, may be empty.
    pub node_id: String,
    /// The node that the sender believes to talk to; empty if it does not care. A client may say
    /// [`OPERATOR`] here.
    pub peer_id: String,
    /// The identity of the sender's history; none if it has none yet (virgin), or is a client.
    pub log_id: Option<[u8; 16]>,
    /// Master: the epoch it leads, 0 if it only asks. Secondary: the highest it promised.
    pub epoch: u64,
    /// Master: its process. Secondary: the process it promised its epoch to. Client: 0.
    pub run_id: u64,
    /// Newest last, at most the newest 128.
    pub epoch_table: Vec<EpochStart>,
    /// Last entry in the log, without holes, durable as the fsync policy says.
    pub stored: u64,
    /// Epoch of that entry; 0 for an empty log.
    pub tail_epoch: u64,
    /// Chain digest at that entry; 0 for an empty log.
    pub tail_digest: u64,
    /// The highest epoch whose leader found the sender's log to be a prefix of its own, and before whose
    /// first number the sender has everything stored. Client: 0.
    pub settled: u64,
    /// The highest commit position known.
    pub commit: u64,
    /// Whether the sender vouches that its log holds all it ever acknowledged.
    pub vouches: bool,
    /// The roster in order, master first; empty if not known.
    pub roster: Vec<String>,
    /// The master's wire address; empty before first contact.
    pub master_addr: String,
    /// Largest frame body that the sender accepts.
    pub frame_bytes_max: u32,
    /// Largest payload that the sender accepts in an append.
    pub payload_bytes_max: u32,
    /// Entry bytes that may be under way to the sender, not acknowledged.
    pub window_bytes: u64,
}

impl Hello {
    /// What a node or client of this version says that has no log and nothing to tell.
    pub fn blank(role: Role, node_id: impl Into<String>) -> Hello {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            role,
            node_id: node_id.into(),
            peer_id: String::new(),
            log_id: None,
            epoch: 0,
            run_id: 0,
            epoch_table: Vec::new(),
            stored: 0,
            tail_epoch: 0,
            tail_digest: 0,
            settled: 0,
            commit: 0,
            vouches: false,
            roster: Vec::new(),
            master_addr: String::new(),
            frame_bytes_max: FRAME_BODY_BYTES_MAX as u32, // Asserted to fit in `limits`.
            payload_bytes_max: 0,
            window_bytes: 0,
        }
    }

    /// Where the epoch that the sender names begins; `None` if it does not say.
    pub fn begins(&self) -> Option<u64> {
        let newest = self.epoch_table.last().filter(|row| row.epoch == self.epoch);
        newest.map(|row| row.first)
    }
}

/// Sends the peer away; the sender closes after it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refuse {
    /// A `RefuseCode`.
    pub code: u16,
    /// The sender's epoch: a refused master can see how far behind it is.
    pub epoch: u64,
    /// A sentence for people.
    pub reason: String,
}

/// Positions that all frames to secondaries carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Levels {
    /// The highest position ever held by a majority.
    pub commit: u64,
    /// At index k−1 the position that at least k nodes hold, the master among them.
    pub held_by: Vec<u64>,
}

/// Head of an APPEND; the tail is `count` records.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppendHead {
    /// The master's epoch.
    pub epoch: u64,
    /// Sequence number of the first record.
    pub first: u64,
    /// How many records there are, at least 1.
    pub count: u32,
    /// Epoch of the entry before the first; 0 if there is none.
    pub previous_epoch: u64,
    /// Chain digest at the entry before the first; 0 if there is none.
    pub previous_digest: u64,
    /// The levels when the frame was made.
    pub levels: Levels,
}

/// The last entry that the master's log and the secondary's have in common: what the secondary has
/// behind it is to be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Align {
    /// The master's epoch.
    pub epoch: u64,
    /// The entry; 0 if they have none in common.
    pub last: u64,
    /// Epoch of that entry in the master's log; 0 if there is none.
    pub last_epoch: u64,
    /// Chain digest there; 0 if there is none.
    pub last_digest: u64,
}

/// Asks a secondary for entries of its log, to adopt or to repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fetch {
    /// The master's epoch.
    pub epoch: u64,
    /// The first entry wanted.
    pub first: u64,
    /// The last entry wanted; the answer may end before it.
    pub last: u64,
}

/// Head of a FETCHED; the tail is `count` records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchedHead {
    /// The epoch promised.
    pub epoch: u64,
    /// As asked for.
    pub first: u64,
    /// How many records there are; 0 if the first is not there or cannot be read.
    pub count: u32,
}

/// A range of entries held, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// What a secondary holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// The epoch it follows.
    pub epoch: u64,
    /// Everything up to here is in the log, durable as its fsync policy says.
    pub stored: u64,
    /// Everything up to here is in memory.
    pub received: u64,
    /// Entries beyond that are held back until the ones before them come.
    pub held: Vec<HeldRange>,
    /// Entries that came although they were held already, since the process started.
    pub duplicates: u64,
}

/// An entry was not taken. Never an acknowledgement; a later ACK may cover it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// The epoch it follows.
    pub epoch: u64,
    /// The first entry not taken.
    pub seq: u64,
    /// A `NackCode`.
    pub code: u16,
    /// A sentence for people.
    pub reason: String,
}

/// A question for a sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// The master's epoch.
    pub epoch: u64,
    /// Counts heartbeats on this connection from 1.
    pub number: u64,
    /// The levels now.
    pub levels: Levels,
}

/// The sign of life. Carries no position on purpose: those travel in HELLO and ACK only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeartbeatAck {
    /// The epoch it follows.
    pub epoch: u64,
    /// The number of the heartbeat.
    pub number: u64,
}

/// How many nodes must hold an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Concern {
    /// As the master is configured.
    Default,
    /// So many nodes.
    Nodes(u16),
    /// More than half.
    Majority,
    /// Every node.
    All,
}

/// What holding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AckKind {
    /// As the master is configured.
    Default,
    /// In the log without holes, durable.
    Stored,
    /// In memory.
    Received,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Timeout {
    /// As the master is configured.
    Default,
    /// As long as it takes.
    Forever,
    /// So many microseconds; 0 answers as soon as the entry is in the master's log.
    Micros(u64),
}

impl From<Option<WriteConcern>> for Concern {
    fn from(concern: Option<WriteConcern>) -> Self {
        match concern {
            None => Concern::Default,
            Some(WriteConcern::Nodes(count)) => Concern::Nodes(count.get()),
            Some(WriteConcern::Majority) => Concern::Majority,
            Some(WriteConcern::All) => Concern::All,
        }
    }
}

/// 0 nodes cannot be meant, and are refused before; here they ask for the master alone.
impl From<Concern> for Option<WriteConcern> {
    fn from(concern: Concern) -> Self {
        match concern {
            Concern::Default => None,
            Concern::Nodes(count) => {
                Some(WriteConcern::Nodes(NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN)))
            }
            Concern::Majority => Some(WriteConcern::Majority),
            Concern::All => Some(WriteConcern::All),
        }
    }
}

impl From<Option<AckLevel>> for AckKind {
    fn from(ack: Option<AckLevel>) -> Self {
        match ack {
            None => AckKind::Default,
            Some(AckLevel::Stored) => AckKind::Stored,
            Some(AckLevel::Received) => AckKind::Received,
        }
    }
}

impl From<AckKind> for Option<AckLevel> {
    fn from(ack: AckKind) -> Self {
        match ack {
            AckKind::Default => None,
            AckKind::Stored => Some(AckLevel::Stored),
            AckKind::Received => Some(AckLevel::Received),
        }
    }
}

impl From<Option<types::Timeout>> for Timeout {
    fn from(timeout: Option<types::Timeout>) -> Self {
        match timeout {
            None => Timeout::Default,
            Some(types::Timeout::Forever) => Timeout::Forever,
            Some(types::Timeout::For(time)) => {
                Timeout::Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
            }
        }
    }
}

impl From<Timeout> for Option<types::Timeout> {
    fn from(timeout: Timeout) -> Self {
        match timeout {
            Timeout::Default => None,
            Timeout::Forever => Some(types::Timeout::Forever),
            Timeout::Micros(micros) => Some(types::Timeout::For(Duration::from_micros(micros))),
        }
    }
}

/// A producer's number for the first entry of a run. Its place is kept; this version refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProducerNumber {
    /// The producer's name.
    pub producer: String,
    /// The number of the first entry; the following entries take the following numbers.
    pub number: u64,
}

/// Head of an APPEND_REQUEST; the tail is `count` times a length (u32, little-endian) and so many
/// payload bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppendRequest {
    /// The id of the first entry's request; the following entries take the following ids.
    pub id: u64,
    /// How many entries there are, at least 1.
    pub count: u32,
    /// How many nodes must hold each.
    pub concern: Concern,
    /// What holding means.
    pub ack: AckKind,
    /// How long to wait.
    pub timeout: Timeout,
    /// Makes retries safe; reserved.
    pub producer: Option<ProducerNumber>,
    /// Append only if the first entry gets this number; reserved.
    pub match_seq: Option<u64>,
    /// All or nothing; reserved.
    pub atomic: bool,
}

/// What became of an append or a wait.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The write concern is met.
    Ok(Placed),
    /// In the master's log; the write concern is not met yet.
    Pending(Placed),
    /// The master lost its reign; the entry may or may not survive.
    Unknown(Placed),
    /// Refused, no effect.
    Refused(Refusal),
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Placed {
    /// The entry's number; of the first entry of the run.
    pub seq: u64,
    /// The epoch that numbered it.
    pub epoch: u64,
    /// How many nodes were asked for.
    pub need: u16,
    /// Which nodes hold it at the level asked for: bit k is the k-th of the roster.
    pub holders: u128,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// A `Code`.
    pub code: u16,
    /// The rest of the reply line as the text gateway prints it after the code: `key=value` words
    /// and a sentence.
    pub detail: String,
}

/// The answer for a run of requests with the same outcome; the seq of the i-th is `seq + i`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppendReply {
    /// The id of the first request answered.
    pub id: u64,
    /// How many consecutive ids are answered.
    pub count: u32,
    /// What became of them.
    pub outcome: Outcome,
}

/// Waits for an entry that is in the log already; answered by an APPEND_REPLY.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WaitRequest {
    /// The request.
    pub id: u64,
    /// The entry.
    pub seq: u64,
    /// How many nodes must hold it.
    pub concern: Concern,
    /// What holding means.
    pub ack: AckKind,
    /// How long to wait.
    pub timeout: Timeout,
}

/// Which entries may be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ReadLevel {
    /// All that the node holds.
    Local,
    /// Held by a majority.
    Committed,
    /// Held by every node.
    All,
    /// Held by at least so many nodes.
    Nodes(u16),
}

/// Asks for entries that are there now.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadRequest {
    /// The request.
    pub id: u64,
    /// The first entry wanted, from 1.
    pub from: u64,
    /// At most so many.
    pub limit: Option<u64>,
    /// Which may be seen.
    pub level: ReadLevel,
}

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TailStart {
    /// After what is there now.
    New,
    /// At this entry.
    From(u64),
    /// So many entries before the end.
    Last(u64),
}

/// Asks for entries as they come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TailRequest {
    /// The request.
    pub id: u64,
    /// Where to begin.
    pub start: TailStart,
    /// Which may be seen.
    pub level: ReadLevel,
}

/// Ends a tail or a read early; its last ENTRIES frame still comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cancel {
    /// The request to end.
    pub id: u64,
}

/// Head of an ENTRIES; the tail is `count` records. Many may answer one request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EntriesHead {
    /// The request.
    pub id: u64,
    /// The number of the first record; meaningless if there is none.
    pub first: u64,
    /// How many records there are; 0 while a tail is idle or at the end.
    pub count: u32,
    /// The node's next number to fill at the level asked for.
    pub next: u64,
    /// The node's commit position.
    pub commit: u64,
    /// Whether this is the last frame for the request.
    pub end: bool,
}

/// Head of a COMMAND (the tail is a gateway line without its line end), of a COMMAND_REPLY (the
/// tail is a piece of the reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommandHead {
    /// The request.
    pub id: u64,
    /// Whether this is the last piece; always true in a COMMAND.
    pub end: bool,
}

/// Refuses a READ_REQUEST or TAIL_REQUEST.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestRefused {
    /// The request.
    pub id: u64,
    /// Why.
    pub refusal: Refusal,
}

macro_rules! messages {
    (plain { $($name:ident($body:ty) = $code:literal,)* } tailed { $($tname:ident($tbody:ty) = $tcode:literal,)* }) => {
        /// A frame's content. Variants with two fields have a tail.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // Each variant is named as its frame, and its struct tells the rest.
        pub enum Message {
            $($name($body),)*
            $($tname($tbody, Bytes),)*
        }

        impl Message {
            /// The type byte of every frame that this version knows, with its name.
            pub const FRAME_TYPES: &'static [(u8, &'static str)] =
                &[$(($code, stringify!($name)),)* $(($tcode, stringify!($tname)),)*];

            /// Reads the body of a frame; `None` for a type that this version does not know.
            ///
            /// # Errors
            /// `Malformed` or `TrailingBytes`.
            pub fn decode(frame: Frame) -> Result<Option<Message>, BodyError> {
                Ok(Some(match frame.frame_type {
                    $($code => {
                        let (body, used) = decode_head::<$body>(&frame.body)?;
                        if used != frame.body.len() {
                            return Err(BodyError::TrailingBytes(frame.body.len() - used));
                        }
                        Message::$name(body)
                    })*
                    $($tcode => {
                        let (head, used) = decode_head::<$tbody>(&frame.body)?;
                        Message::$tname(head, frame.body.slice(used..))
                    })*
                    _ => return Ok(None),
                }))
            }

            /// The frame that carries this message.
            pub fn encode(&self) -> OutFrame {
                match self {
                    $(Message::$name(body) => OutFrame::seal($code, encode_head(body, &[]), Vec::new()),)*
                    $(Message::$tname(head, tail) => {
                        let tail = vec![tail.clone()];
                        OutFrame::seal($tcode, encode_head(head, &tail), tail)
                    })*
                }
            }
        }
    };
}

messages! {
    plain {
        Hello(Hello) = 0x01,
        Refuse(Refuse) = 0x02,
        Ack(Ack) = 0x11,
        Nack(Nack) = 0x12,
        Heartbeat(Heartbeat) = 0x13,
        HeartbeatAck(HeartbeatAck) = 0x14,
        Align(Align) = 0x15,
        Fetch(Fetch) = 0x16,
        AppendReply(AppendReply) = 0x41,
        WaitRequest(WaitRequest) = 0x42,
        ReadRequest(ReadRequest) = 0x43,
        TailRequest(TailRequest) = 0x44,
        Cancel(Cancel) = 0x45,
        RequestRefused(RequestRefused) = 0x47,
    }
    tailed {
        Append(AppendHead) = 0x10,
        Fetched(FetchedHead) = 0x17,
        AppendRequest(AppendRequest) = 0x40,
        Entries(EntriesHead) = 0x46,
        Command(CommandHead) = 0x48,
        CommandReply(CommandHead) = 0x49,
    }
}

/// An APPEND whose records lie in several shared pieces.
pub fn encode_append(head: &AppendHead, records: Vec<Bytes>) -> OutFrame {
    OutFrame::seal(0x10, encode_head(head, &records), records)
}

/// A FETCHED whose records lie in several shared pieces.
pub fn encode_fetched(head: &FetchedHead, records: Vec<Bytes>) -> OutFrame {
    OutFrame::seal(0x17, encode_head(head, &records), records)
}

/// An ENTRIES whose records lie in several shared pieces.
pub fn encode_entries(head: &EntriesHead, records: Vec<Bytes>) -> OutFrame {
    OutFrame::seal(0x46, encode_head(head, &records), records)
}

/// Why a body is not the message its type says. The framing is intact; the peer is not to be
/// trusted all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Too short, a value out of range, or larger than any such message can be.
    #[error("malformed frame body")]
    Malformed,
    /// Bytes behind the message.
    #[error("{0} bytes behind the message")]
    TrailingBytes(usize),
}

fn decode_head<T: Decode<()>>(body: &[u8]) -> Result<(T, usize), BodyError> {
    bincode::decode_from_slice(body, CONFIG).map_err(|_| BodyError::Malformed)
}

/// Writes behind room for the frame header, and leaves room for what of the tail is copied.
fn encode_head<T: Encode>(head: &T, tail: &[Bytes]) -> BytesMut {
    struct Growing(BytesMut);
    impl bincode::enc::write::Writer for Growing {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    let mut buffer = Growing(BytesMut::with_capacity(HEADER_BYTES + 112 + copied_len(tail)));
    buffer.0.resize(HEADER_BYTES, 0);
    bincode::encode_into_writer(head, &mut buffer, CONFIG)
        .expect("a growing buffer takes every message: they hold no map and no borrowed cell");
    buffer.0
}
