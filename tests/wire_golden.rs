//! The bytes on the wire are frozen: every message, byte for byte, as `protocol.md` describes it.
//!
//! `tests/testdata/wire/golden.txt` is read by the independent client in `tools/` too. A changed
//! line is a changed protocol: it needs a new version, not a new file. `REPLOG_REWRITE=1` writes the
//! file anew, for lines that are added.

use bytes::{Bytes, BytesMut};
use replog::store::{Run, RunBuilder};
use replog::types::{Digest, Epoch, PrefixId, Seq};
use replog::wire::codec::*;
use replog::wire::{Frame, FrameDecoder, FrameError, Message};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/wire/golden.txt");
const SPECIFICATION: &str = include_str!("../protocol.md");

fn hello(role: Role) -> Hello {
    let mut hello = Hello {
        version_min: 1,
        version_max: 1,
        role,
        node_id: String::new(),
        peer_id: String::new(),
        log_id: None,
        epoch: 0,
        run_id: 0,
        epoch_table: vec![],
        stored: 0,
        tail_epoch: 0,
        tail_digest: 0,
        settled: 0,
        commit: 0,
        vouches: false,
        roster: vec![],
        master_addr: String::new(),
        frame_bytes_max: 16_842_752,
        payload_bytes_max: 1_048_576,
        window_bytes: 16_777_216,
    };
    if role != Role::Client {
        hello.log_id = Some(std::array::from_fn(|index| index as u8));
        hello.epoch = 1;
        hello.run_id = 0x1122_3344_5566_7788;
        hello.epoch_table = vec![EpochStart { epoch: 1, first: 1 }];
        hello.vouches = true;
        hello.master_addr = "127.0.0.1:9000".into();
    }
    match role {
        Role::Master => {
            (hello.node_id, hello.peer_id) = ("master".into(), "s1".into());
            hello.roster = ["master", "s1", "s2"].map(String::from).into();
        }
        Role::Secondary => hello.node_id = "s1".into(),
        Role::Client => hello.node_id = "cli".into(),
    }
    hello
}

/// Two entries, "hello world" and an empty one, numbered by epoch 1 in November 2023.
fn records() -> (Bytes, PrefixId) {
    let mut arena = BytesMut::new();
    let mut builder = RunBuilder::new(&mut arena, Seq::ZERO, PrefixId::EMPTY);
    builder.push(Epoch::new(1), 1_700_000_000_000, b"hello world");
    builder.push(Epoch::new(1), 1_700_000_000_001, b"");
    let run = builder.finish(&mut arena).expect("two entries were pushed");
    (run.slice(run.range()), run.prefix_id(Seq::FIRST).expect("entry 1 is there"))
}

/// Entry 3, "x", with number 7 of producer "p1". No master writes such records yet; every node takes
/// them.
fn with_producer() -> Bytes {
    let bytes = "81458a6a 7becd9b8 e6652b23bec3b6e6 0c000000 0100 0000 0300000000000000 \
                 0100000000000000 0268e5cf8b010000 02 7031 0700000000000000 78";
    let digits: Vec<u8> = bytes.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    digits.chunks(2).map(|pair| byte(pair).expect("hex")).collect()
}

fn messages() -> Vec<(&'static str, Message)> {
    let levels = Levels { commit: 2, held_by: vec![2, 2, 0] };
    let (both, first_id) = records();
    let second = both.slice(48 + 11..);
    let second_id = PrefixId { epoch: Epoch::new(1), digest: Digest::new(0x7d5c_1335_0ff4_e946) };
    let mut secondary = hello(Role::Secondary);
    (secondary.stored, secondary.tail_epoch) = (1, 1);
    secondary.tail_digest = first_id.digest.value();
    secondary.settled = 1;
    let append = |first, count, previous: PrefixId| AppendHead {
        epoch: 1,
        first,
        count,
        previous_epoch: previous.epoch.number(),
        previous_digest: previous.digest.value(),
        levels: levels.clone(),
    };
    let placed = Placed { seq: 300, epoch: 1, need: 2, holders: 0b11 };
    let refusal = Refusal {
        code: 1,
        detail: "present=1 need=2 - 1 of 3 nodes present, the quorum is 2".into(),
    };
    let request = AppendRequest {
        id: 1,
        count: 2,
        concern: Concern::Nodes(2),
        ack: AckKind::Default,
        timeout: Timeout::Micros(1_000_000),
        producer: None,
        match_seq: None,
        atomic: false,
    };
    let payloads = Bytes::from_static(b"\x05\0\0\0alpha\0\0\0\0");
    vec![
        ("hello-master", Message::Hello(hello(Role::Master))),
        ("hello-secondary-virgin", {
            let mut virgin = hello(Role::Secondary);
            (virgin.log_id, virgin.epoch, virgin.run_id) = (None, 0, 0);
            (virgin.epoch_table, virgin.master_addr) = (vec![], String::new());
            virgin.vouches = false;
            Message::Hello(virgin)
        }),
        ("hello-secondary", Message::Hello(secondary)),
        ("hello-client", Message::Hello(hello(Role::Client))),
        (
            "refuse-stale-epoch",
            Message::Refuse(Refuse { code: 10, epoch: 7, reason: "epoch 7 was promised".into() }),
        ),
        ("append-two", Message::Append(append(1, 2, PrefixId::EMPTY), both)),
        ("append-second", Message::Append(append(2, 1, first_id), second.clone())),
        ("append-producer", Message::Append(append(3, 1, second_id), with_producer())),
        (
            "ack-stored",
            Message::Ack(Ack { epoch: 1, stored: 2, received: 2, held: vec![], duplicates: 0 }),
        ),
        (
            "ack-hole",
            Message::Ack(Ack {
                epoch: 1,
                stored: 2,
                received: 2,
                held: vec![HeldRange { first: 4, last: 300 }],
                duplicates: 1,
            }),
        ),
        (
            "nack-conflict",
            Message::Nack(Nack {
                epoch: 1,
                seq: 2,
                code: 1,
                reason: "another entry is stored as 2".into(),
            }),
        ),
        (
            "heartbeat",
            Message::Heartbeat(Heartbeat { epoch: 1, number: 251, levels: levels.clone() }),
        ),
        ("heartbeat-ack", Message::HeartbeatAck(HeartbeatAck { epoch: 1, number: 251 })),
        (
            "align",
            Message::Align(Align {
                epoch: 2,
                last: 1,
                last_epoch: 1,
                last_digest: first_id.digest.value(),
            }),
        ),
        ("fetch", Message::Fetch(Fetch { epoch: 2, first: 2, last: 300 })),
        ("fetched", Message::Fetched(FetchedHead { epoch: 2, first: 2, count: 1 }, second.clone())),
        (
            "fetched-none",
            Message::Fetched(FetchedHead { epoch: 2, first: 9, count: 0 }, Bytes::new()),
        ),
        ("append-request", Message::AppendRequest(request, payloads)),
        (
            "append-reply-ok",
            Message::AppendReply(AppendReply { id: 1, count: 2, outcome: Outcome::Ok(placed) }),
        ),
        (
            "append-reply-pending",
            Message::AppendReply(AppendReply {
                id: 1,
                count: 1,
                outcome: Outcome::Pending(placed),
            }),
        ),
        (
            "append-reply-unknown",
            Message::AppendReply(AppendReply {
                id: 1,
                count: 1,
                outcome: Outcome::Unknown(placed),
            }),
        ),
        (
            "append-reply-refused",
            Message::AppendReply(AppendReply {
                id: 1,
                count: 1,
                outcome: Outcome::Refused(refusal.clone()),
            }),
        ),
        (
            "wait-request",
            Message::WaitRequest(WaitRequest {
                id: 2,
                seq: 300,
                concern: Concern::All,
                ack: AckKind::Received,
                timeout: Timeout::Forever,
            }),
        ),
        (
            "read-request",
            Message::ReadRequest(ReadRequest {
                id: 3,
                from: 1,
                limit: Some(10),
                level: ReadLevel::Nodes(2),
            }),
        ),
        (
            "tail-request",
            Message::TailRequest(TailRequest {
                id: 4,
                start: TailStart::Last(10),
                level: ReadLevel::Committed,
            }),
        ),
        ("cancel", Message::Cancel(Cancel { id: 4 })),
        (
            "entries",
            Message::Entries(
                EntriesHead { id: 3, first: 2, count: 1, next: 3, commit: 2, end: true },
                second,
            ),
        ),
        ("request-refused", Message::RequestRefused(RequestRefused { id: 3, refusal })),
        (
            "command",
            Message::Command(CommandHead { id: 5, end: true }, Bytes::from_static(b"PING hi")),
        ),
        (
            "command-reply",
            Message::CommandReply(
                CommandHead { id: 5, end: true },
                Bytes::from_static(b"PONG hi\n"),
            ),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    FrameDecoder { body_bytes_max: 1 << 20 }.decode(&mut BytesMut::from(bytes))
}

#[test]
fn every_message_has_the_bytes_that_were_frozen() {
    let lines: String = messages()
        .iter()
        .map(|(name, message)| format!("{name} {}\n", hex(&message.encode().to_bytes())))
        .collect();
    if std::env::var_os("REPLOG_REWRITE").is_some() {
        std::fs::write(GOLDEN, &lines).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("the golden file is in the repository");
    assert_eq!(lines, golden, "the bytes on the wire changed: that is another protocol version");
}

#[test]
fn every_frame_type_of_the_code_has_a_golden_vector() {
    for (code, name) in Message::FRAME_TYPES {
        let found = messages().iter().any(|(_, m)| m.encode().to_bytes()[3] == *code);
        assert!(found, "{name} ({code:#04x}) has no golden vector");
    }
}

#[test]
fn a_record_with_a_producer_is_a_record_like_any_other() {
    let (both, _) = records();
    let all: Bytes = [both, with_producer()].concat().into();
    let epoch = Epoch::new(1);
    let run = Run::verify_sent(all.clone(), Seq::FIRST, 3, PrefixId::EMPTY, epoch).expect("good");
    let record = run.record(Seq::new(3)).expect("it is there");
    assert_eq!(record.payload, "x", "the payload comes behind the producer");
    assert_eq!(run.slice(run.range()), all, "and what is given out is what came");
}

#[test]
fn every_message_is_read_back_as_it_was_written() {
    for (name, message) in messages() {
        let bytes = message.encode().to_bytes();
        let frame = decode(&bytes).expect(name).expect(name);
        assert_eq!(Message::decode(frame), Ok(Some(message)), "{name}");
    }
}

#[test]
fn a_frame_cut_anywhere_is_incomplete_and_never_an_error() {
    for (name, message) in messages() {
        let bytes = message.encode().to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Ok(None), "{name} cut at {len}");
        }
    }
}

#[test]
fn every_single_flipped_bit_is_an_error_or_an_incomplete_frame() {
    for (name, message) in messages() {
        let bytes = message.encode().to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A flipped type byte is covered by the checksum too.
            assert!(!matches!(decode(&damaged), Ok(Some(_))), "{name}: bit {bit} went unnoticed");
        }
    }
}

#[test]
fn a_body_cut_or_extended_is_malformed_and_never_a_panic() {
    for (name, message) in messages() {
        let bytes = message.encode().to_bytes();
        let (frame_type, body) = (bytes[3], bytes.slice(16..));
        for len in 0..body.len() {
            let cut = Frame { frame_type, body: body.slice(..len) };
            if let Ok(Some(read)) = Message::decode(cut) {
                let tailed = matches!(
                    read,
                    Message::Append(..)
                        | Message::Fetched(..)
                        | Message::AppendRequest(..)
                        | Message::Entries(..)
                        | Message::Command(..)
                        | Message::CommandReply(..)
                );
                assert!(tailed, "{name} cut at {len} was read as {read:?}");
            }
        }
    }
    let mut long = messages()[0].1.encode().to_bytes().slice(16..).to_vec();
    long.push(0);
    let result = Message::decode(Frame { frame_type: 1, body: long.into() });
    assert_eq!(result, Err(BodyError::TrailingBytes(1)));
}

#[test]
fn each_way_not_to_be_a_frame_has_an_error_of_its_own() {
    let good = messages()[0].1.encode().to_bytes();
    let with = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        decode(&bytes)
    };
    assert!(matches!(with(0, b'G'), Err(FrameError::BadMagic(..))));
    assert_eq!(decode(b"G"), Err(FrameError::BadMagic(b'G', 0)));
    assert_eq!(with(2, 9), Err(FrameError::UnknownVersion(9)));
    assert_eq!(with(4, 1), Err(FrameError::UnknownFlags(1)));
    assert!(matches!(with(11, 0xff), Err(FrameError::TooLong { .. })));
    assert!(matches!(with(12, !good[12]), Err(FrameError::BadChecksum { .. })));
    let unknown = Frame { frame_type: 0x7f, body: Bytes::new() };
    assert_eq!(Message::decode(unknown), Ok(None));
}

#[test]
fn every_hex_block_of_the_specification_is_a_golden_vector() {
    let golden = std::fs::read_to_string(GOLDEN).expect("the golden file is in the repository");
    let mut checked = 0;
    for block in SPECIFICATION.split("```hex\n").skip(1) {
        let block = block.split("```").next().expect("a block ends");
        let digits: String =
            block.lines().flat_map(|line| line.split('#').next()).collect::<Vec<_>>().concat();
        let digits: String = digits.split_whitespace().collect();
        assert!(golden.lines().any(|line| line.ends_with(&format!(" {digits}"))), "{block}");
        checked += 1;
    }
    assert!(checked >= 5, "the specification shows its flows in real bytes");
}
