//! One function for each door by which bytes of strangers come in: none may panic, and each says
//! what must hold besides.

// Public for the fuzzer's crate, private in the test that includes this file.
#![allow(unreachable_pub)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use replog::codes::Class;
use replog::config::{Config, Invocation, Role as ConfigRole};
use replog::engine::SessionId;
use replog::gateway::{command, reply, words};
use replog::limits::{
    FRAME_BODY_BYTES_MAX, FRAME_BODY_BYTES_MAX_UNINTRODUCED, HOLD_BACK_BYTES_MAX,
    PAYLOAD_BYTES_MAX, READ_CHUNK_BYTES,
};
use replog::node::client::{Outcome, Reply};
use replog::node::faults::Faults;
use replog::node::queue::FrameQueue;
use replog::node::session::{
    Answer, Question, Request, Session, Sight, Site, TextSession, WireSession,
};
use replog::node::{About, Machine, Output, SecondaryNode, View};
use replog::store::provisional::SharedProvisional;
use replog::store::record::take_record;
use replog::store::{LogStore, MemoryLog, Run, RunBuilder};
use replog::types::{Digest, Epoch, NodeIndex, NodeSet, PrefixId, Seq, SeqRange, Time};
use replog::wire::codec::{AppendHead, Hello, Levels, Role};
use replog::wire::header::Header;
use replog::wire::{Frame, FrameDecoder, HEADER_BYTES, Message, reserve_for_read};

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("frames", frames),
    ("bodies", bodies),
    ("connection", connection),
    ("gateway", gateway),
    ("session", session),
    ("config", config),
    ("records", records),
];

/// Takes values off the input; zeros when it is used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        // Small numbers are the interesting ones, and the largest.
        match self.byte() {
            number @ 0..=250 => u64::from(number),
            251 => u64::from(u16::from_le_bytes([self.byte(), self.byte()])),
            252 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Frames off a stream: the same whatever the pieces, encoded as they came, and no room taken for
/// what was only announced.
pub fn frames(data: &[u8]) {
    let mut input = Input(data);
    let body_bytes_max = match input.byte() % 3 {
        0 => 64,
        1 => FRAME_BODY_BYTES_MAX_UNINTRODUCED,
        _ => FRAME_BODY_BYTES_MAX,
    };
    let piece = 1 + usize::from(input.byte());
    let decoder = FrameDecoder { body_bytes_max };
    let stream = input.0;

    let mut whole = BytesMut::from(stream);
    let mut at_once = Vec::new();
    let end = loop {
        let before = whole.clone();
        match decoder.decode(&mut whole) {
            Ok(Some(frame)) => at_once.push(frame),
            Ok(None) => break Ok(()),
            Err(error) => {
                assert_eq!(whole, before, "an error leaves the buffer as it was");
                break Err(error);
            }
        }
    };

    let mut buffer = BytesMut::new();
    let mut in_pieces = Vec::new();
    let mut found = Ok(());
    'stream: for chunk in stream.chunks(piece) {
        reserve_for_read(&mut buffer);
        let bound = 4 * buffer.len().max(READ_CHUNK_BYTES) + chunk.len();
        assert!(buffer.capacity() <= bound, "room for what came, not for what was announced");
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => in_pieces.push(frame),
                Ok(None) => break,
                Err(error) => {
                    found = Err(error);
                    break 'stream;
                }
            }
        }
    }
    assert_eq!(in_pieces, at_once, "pieces make no difference to frames");
    assert_eq!(found.is_err(), end.is_err(), "nor to whether there is an error");

    let mut again = Vec::new();
    for frame in &at_once {
        assert!(frame.body.len() <= body_bytes_max);
        let len = frame.body.len() as u32;
        again.extend_from_slice(&Header::seal(frame.frame_type, len, [&frame.body[..]]));
        again.extend_from_slice(&frame.body);
    }
    assert_eq!(again, stream[..again.len()], "what was decoded is encoded as it came");
}

/// The body of each type of frame: what decodes is encoded to something that decodes to the same.
pub fn bodies(data: &[u8]) {
    let Some((&chosen, body)) = data.split_first() else { return };
    let types = Message::FRAME_TYPES;
    let known = usize::from(chosen) < 8 * types.len();
    let frame_type = if known { types[usize::from(chosen) % types.len()].0 } else { chosen };
    let body = Bytes::copy_from_slice(body);
    let Ok(Some(message)) = Message::decode(Frame { frame_type, body }) else { return };
    let bytes = message.encode().to_bytes();
    let again = decode_whole(&bytes);
    assert_eq!(again, message);
    assert_eq!(again.encode().to_bytes(), bytes);
    match message {
        Message::Append(head, records) => check_run(&head, records),
        Message::Entries(head, mut records) => {
            let mut count = 0;
            while count < head.count && take_record(&mut records).is_ok() {
                count += 1;
            }
        }
        _ => {}
    }
}

fn decode_whole(bytes: &Bytes) -> Message {
    let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
    let mut buffer = BytesMut::from(&bytes[..]);
    let frame = decoder.decode(&mut buffer).expect("a sealed frame").expect("a whole frame");
    assert!(buffer.is_empty());
    Message::decode(frame).expect("what we encode").expect("of a type we know")
}

fn check_run(head: &AppendHead, records: Bytes) {
    let before = PrefixId {
        epoch: Epoch::new(head.previous_epoch),
        digest: Digest::new(head.previous_digest),
    };
    if let Ok(run) = Run::verify(records, Seq::new(head.first), u64::from(head.count), before) {
        assert_eq!(run.range().first, Seq::new(head.first));
        assert_eq!(run.range().len(), u64::from(head.count));
    }
}

/// Runs of records: what is verified can be taken apart and put into a log, and a run with one bit
/// turned is never verified.
pub fn records(data: &[u8]) {
    let mut input = Input(data);
    let first = Seq::new(input.number().max(1));
    let before =
        PrefixId { epoch: Epoch::new(input.number()), digest: Digest::new(input.number()) };
    if input.byte() & 1 == 0 {
        let count = input.number();
        let bytes = Bytes::copy_from_slice(input.0);
        if let Ok(run) = Run::verify(bytes.clone(), first, count, before) {
            take_apart(&run, &bytes);
        }
        let mut rest = bytes;
        while take_record(&mut rest).is_ok() {}
        return;
    }
    // A good run, of payloads from the input.
    let first = first.min(Seq::new(u64::MAX / 2));
    let mut arena = BytesMut::new();
    let mut builder = RunBuilder::new(&mut arena, first.previous(), before);
    let mut epoch = before.epoch;
    let mut payloads = Vec::new();
    let turned = input.number();
    while !input.is_empty() && payloads.len() < 64 {
        epoch = Epoch::new(epoch.number().saturating_add(u64::from(input.byte() & 1)));
        let len = usize::from(input.byte());
        let payload = input.take(len);
        builder.push(epoch, u64::from(input.byte()), payload);
        payloads.push(payload);
    }
    let Some(run) = builder.finish(&mut arena) else { return };
    let bytes = run.slice(run.range());
    let count = payloads.len() as u64;
    let verified = Run::verify(bytes.clone(), first, count, before).expect("what we built");
    assert_eq!(verified, run);
    take_apart(&verified, &bytes);
    for (index, payload) in payloads.iter().enumerate() {
        let record = run.record(first.plus(index as u64)).expect("it is in the run");
        assert_eq!(record.payload, payload);
    }
    let mut wrong = bytes.to_vec();
    let bit = (turned % (8 * wrong.len() as u64)) as usize;
    wrong[bit / 8] ^= 1 << (bit % 8);
    assert!(Run::verify(wrong.into(), first, count, before).is_err(), "bit {bit} was turned");
    assert!(Run::verify(bytes.slice(1..), first, count, before).is_err());
    assert!(Run::verify(bytes.slice(..bytes.len() - 1), first, count, before).is_err());
}

fn take_apart(run: &Run, bytes: &Bytes) {
    let range = run.range();
    assert!(!range.is_empty());
    assert_eq!(run.len_bytes(), bytes.len());
    assert_eq!(&run.slice(range), bytes);
    let mut rest = bytes.clone();
    let mut seq = range.first;
    while seq < range.end {
        let record = take_record(&mut rest).expect("a verified record");
        assert_eq!(record.seq, seq);
        assert!(record.payload.len() <= PAYLOAD_BYTES_MAX);
        assert_eq!(run.record(seq), Some(record));
        seq = seq.next();
    }
    assert!(rest.is_empty());
    if range.len() > 1 {
        let middle = range.first.plus(range.len() / 2);
        let later = run.clone().split_from(middle).expect("something is left");
        assert_eq!(later.range(), SeqRange::new(middle, range.end));
        assert_eq!(later.tail(), run.tail());
        let (len, before) = (later.range().len(), later.before());
        let again = Run::verify(later.slice(later.range()), middle, len, before);
        assert_eq!(again.as_ref(), Ok(&later), "a part of a run is a run");
    }
}

/// A line of the gateway: understood or refused in one line, whatever it is.
pub fn gateway(data: &[u8]) {
    for line in data.split(|&byte| byte == b'\n') {
        match replog::gateway::parse(line) {
            Ok(None) => assert!(line.iter().all(|&byte| byte == b' ')),
            Ok(Some(command)) => {
                use command::Command::{Append, Ping, Store};
                if let Append { payload, .. } | Ping { text: payload } | Store { payload, .. } =
                    &command
                {
                    assert!(payload.start <= payload.end);
                    // The payload is the rest of the line.
                    assert_eq!(payload.end, line.len());
                }
                // The same once more, whatever the case of the verb.
                let mut upper = line.to_vec();
                let verb = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
                upper[..verb].make_ascii_uppercase();
                assert_eq!(replog::gateway::parse(&upper), Ok(Some(command)));
            }
            Err(refusal) => {
                let mut out = BytesMut::new();
                refusal.write(&mut out);
                let text = std::str::from_utf8(&out).expect("replies are UTF-8");
                assert!(text.starts_with("ERR ") || text.starts_with("REJECTED "), "{text:?}");
                let without_end = text.strip_suffix('\n').expect("a reply is a line");
                assert!(!without_end.contains(['\n', '\r']), "one line: {text:?}");
            }
        }
        let mut escaped = BytesMut::new();
        reply::write_escaped(&mut escaped, line);
        assert!(escaped.iter().all(|&byte| byte >= 0x20 && byte != 0x7f));
        assert_eq!(unescape(&escaped), line);
        let word = words::quoted(&String::from_utf8_lossy(line));
        assert!(!word.is_empty());
    }
}

fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut bytes = escaped.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        plain.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [bytes.next(), bytes.next()].map(|digit| digit.unwrap_or(b'!'));
                let digits = std::str::from_utf8(&digits).expect("hexadecimal digits");
                u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
            }
            other => panic!("a backslash before {other:?}"),
        });
    }
    plain
}

/// A configuration: flags, environment and a file, separated by bytes 1 and 2. It is refused in one
/// line, or its values keep what they promise.
pub fn config(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == 1);
    let (flags, environment) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let file = parts.next();
    let role = if flags.first().is_some_and(|byte| byte & 1 == 1) { "master" } else { "secondary" };
    let mut args: Vec<OsString> = vec![role.into()];
    for flag in flags.get(1..).unwrap_or_default().split(|&byte| byte == 2) {
        if !flag.is_empty() {
            args.push("--set".into());
            args.push(OsString::from_vec(flag.to_vec()));
        }
    }
    if let Some(text) = file {
        let path = scratch();
        std::fs::write(&path, text).expect("the scratch file can be written");
        args.extend(["--config".into(), path.into()]);
    }
    let variable = |line: &[u8]| {
        let at = line.iter().position(|&byte| byte == b'=')?;
        let name = [&b"REPLOG_"[..], &line[..at]].concat();
        Some((OsString::from_vec(name), OsString::from_vec(line[at + 1..].to_vec())))
    };
    let variables: Vec<_> = environment.split(|&byte| byte == 2).filter_map(variable).collect();
    match Invocation::read(args, variables) {
        Ok(Invocation::Node(config)) => check_config(&config),
        Ok(_) => {}
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "one line: {line:?}");
        }
    }
}

/// A file of this thread; in memory where the system has such a place.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let directory = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    directory.join(format!("replog-fuzz-{}-{thread}.toml", std::process::id()))
}

fn check_config(config: &Config) {
    let cluster = &config.cluster;
    // A secondary may be given the master's numbers without its roster.
    if config.role == ConfigRole::Master {
        assert!((1..=cluster.nodes()).contains(&cluster.quorum));
        assert!(cluster.write_concern.resolve(cluster.nodes()).is_some());
    }
    assert!(cluster.suspected_after <= cluster.unhealthy_after);
    assert!(!cluster.retry_delays.is_empty());
    assert!((1..=PAYLOAD_BYTES_MAX).contains(&config.limits.payload_max));
    let ids: Vec<&str> = cluster.secondaries.iter().map(|it| it.id.as_str()).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), ids.len(), "each secondary once");
}

/// A connection of a master to a secondary: frames in any order and shape, from masters of two
/// histories, over several connections. Nothing stored ever changes, and no position is wrong.
pub fn connection(data: &[u8]) {
    let mut input = Input(data);
    let mut peer = Peer::new();
    let mut steps = 0;
    while !input.is_empty() && steps < 400 {
        steps += 1;
        peer.step(&mut input);
        peer.check();
    }
}

const ENTRIES_PER_HISTORY: u64 = 40;

/// Two histories that part after some entries.
fn histories() -> [Run; 2] {
    let build = |variant: u8| {
        let mut arena = BytesMut::new();
        let mut builder = RunBuilder::new(&mut arena, Seq::ZERO, PrefixId::EMPTY);
        for number in 1..=ENTRIES_PER_HISTORY {
            let other = variant == 1 && number > 20;
            let epoch = if number > 30 { 3 } else { 1 };
            let payload = [number as u8, u8::from(other)].repeat((number % 7) as usize);
            builder.push(Epoch::new(epoch), number, &payload);
        }
        builder.finish(&mut arena).expect("not empty")
    };
    [build(0), build(1)]
}

fn about() -> About {
    let id = "s1".parse().expect("a name");
    About { id, advertise: "here:1".to_owned(), payload_max: 1 << 20 }
}

/// A secondary, and a master that says anything to it.
struct Peer {
    node: SecondaryNode<MemoryLog>,
    now: Time,
    session: SessionId,
    introduced: bool,
    histories: [Run; 2],
    /// What was stored, as it was when it was stored.
    known: Vec<Digest>,
    commit: Seq,
    epoch: Epoch,
}

impl Peer {
    fn new() -> Self {
        let faults = Faults::new(Duration::ZERO, 1);
        let log = (MemoryLog::new(), SharedProvisional::default());
        Peer {
            node: SecondaryNode::new(about(), Duration::from_secs(1), faults, log),
            now: Time::ZERO,
            session: SessionId(1),
            introduced: false,
            histories: histories(),
            known: vec![PrefixId::EMPTY.digest],
            commit: Seq::ZERO,
            epoch: Epoch::ZERO,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0 => self.reconnect(input.byte() & 1 == 0),
            1 => {
                let hello = hello(input);
                self.receive(&Message::Hello(hello));
            }
            2..=4 => {
                let message = self.append(input);
                self.receive(&message);
            }
            5 => {
                let number = input.number();
                let epoch = input.number();
                let levels = levels(input);
                let beat = replog::wire::codec::Heartbeat { epoch, number, levels };
                self.receive(&Message::Heartbeat(beat));
            }
            6 => {
                // Any type with any body, in a good frame.
                let types = Message::FRAME_TYPES;
                let frame_type = types[usize::from(input.byte()) % types.len()].0;
                let len = usize::from(input.byte());
                let body = Bytes::copy_from_slice(input.take(len));
                if let Ok(Some(message)) = Message::decode(Frame { frame_type, body }) {
                    self.receive(&message);
                }
            }
            _ => {
                self.now = self.now.after(Duration::from_millis(100));
                self.node.begin_turn(self.now);
            }
        }
        self.carry_out();
    }

    fn reconnect(&mut self, tell: bool) {
        if tell {
            self.node.handle_closed(self.now, self.session, None, "gone");
        }
        self.session = SessionId(self.session.0 + 1);
        self.introduced = false;
    }

    /// A run of one of the histories, or of a damaged one.
    fn append(&mut self, input: &mut Input<'_>) -> Message {
        let history = &self.histories[usize::from(input.byte() & 1)];
        let first = 1 + input.number() % ENTRIES_PER_HISTORY;
        let count = 1 + input.number() % (ENTRIES_PER_HISTORY + 1 - first);
        let range = SeqRange::with_len(Seq::new(first), count);
        let mut records = history.slice(range).to_vec();
        let before = match Seq::new(first).previous() {
            Seq::ZERO => PrefixId::EMPTY,
            seq => history.prefix_id(seq).expect("it is in the history"),
        };
        let mut head = AppendHead {
            epoch: self.node.engine().epoch().number(),
            first,
            count: count as u32,
            previous_epoch: before.epoch.number(),
            previous_digest: before.digest.value(),
            levels: levels(input),
        };
        match input.byte() {
            0 => head.epoch = input.number(),
            1 => head.first = input.number(),
            2 => head.count = input.number() as u32,
            3 => head.previous_epoch = input.number(),
            4 => head.previous_digest = input.number(),
            5 => {
                let at = input.number() as usize % records.len();
                records[at] ^= input.byte();
            }
            6 => records.truncate(input.number() as usize),
            _ => {}
        }
        Message::Append(head, records.into())
    }

    /// A frame comes, by way of its bytes.
    fn receive(&mut self, message: &Message) {
        let bytes = message.encode().to_bytes();
        let limit =
            if self.introduced { FRAME_BODY_BYTES_MAX } else { FRAME_BODY_BYTES_MAX_UNINTRODUCED };
        let mut buffer = BytesMut::from(&bytes[..]);
        let decoded = FrameDecoder { body_bytes_max: limit }.decode(&mut buffer);
        let Ok(Some(frame)) = decoded else {
            assert!(bytes.len() - HEADER_BYTES > limit, "our own frames are good: {decoded:?}");
            return self.reconnect(true);
        };
        let Ok(Some(message)) = Message::decode(frame) else {
            panic!("our own messages are good: {message:?}")
        };
        match message {
            Message::Hello(hello) if !self.introduced && hello.role == Role::Master => {
                self.introduced = true;
                self.node.handle_accepted(self.now, self.session, &hello);
            }
            _ if !self.introduced => self.reconnect(true),
            message => self.node.handle_message(self.now, self.session, message),
        }
    }

    /// Lets the node decide, and takes what it says: good frames, each of them.
    fn carry_out(&mut self) {
        loop {
            while self.node.step(self.now) {}
            assert_eq!(self.node.failure(), None, "no frame ends a node");
            self.node.drain_events().for_each(drop);
            match self.node.poll_output() {
                None => return,
                Some(Output::Write { session }) => {
                    let Some(queue) = self.node.queue(session) else { continue };
                    let taken = check_frames(queue);
                    self.node.handle_taken(self.now, session, taken);
                }
                Some(Output::Close { session, last_words }) => {
                    if let Some(words) = last_words {
                        check_frames(&words);
                    }
                    if session == self.session {
                        self.session = SessionId(self.session.0 + 1);
                        self.introduced = false;
                    }
                }
                Some(other) => panic!("a secondary in memory asks for {other:?}"),
            }
        }
    }

    fn check(&mut self) {
        let (bounds, engine) = (self.node.storage().bounds(), self.node.engine());
        let reader = self.node.storage().reader();
        assert_eq!(engine.written(), bounds.last);
        assert!(engine.stored() <= engine.written());
        assert_eq!(engine.tail(), bounds.tail);
        assert!(engine.epoch() >= self.epoch, "a promise never falls");
        assert!(engine.levels().commit >= self.commit, "commit never falls");
        let held: usize = self.node.held().values().map(Run::len_bytes).sum();
        assert!(held <= HOLD_BACK_BYTES_MAX);
        // What a master says its log has not is moved aside, unless it was committed.
        let there = self.known.len() as u64 - 1;
        if bounds.last.number() < there {
            assert!(bounds.last >= self.commit.min(Seq::new(there)), "what is committed stays");
            self.known.truncate(bounds.last.number() as usize + 1);
        }
        (self.epoch, self.commit) = (engine.epoch(), engine.levels().commit);
        for (seq, known) in self.known.iter().enumerate() {
            let prefix = reader.prefix_id(Seq::new(seq as u64)).expect("nothing goes away");
            assert_eq!(prefix.digest, *known, "entry {seq} is what it was");
        }
        for seq in self.known.len() as u64..=bounds.last.number() {
            let prefix = reader.prefix_id(Seq::new(seq)).expect("numbers are dense");
            let of = |run: &Run| run.prefix_id(Seq::new(seq)) == Some(prefix);
            assert!(self.histories.iter().any(of), "entry {seq} is of one of the histories");
            self.known.push(prefix.digest);
        }
    }
}

/// Whether what waits is frames that another node understands; how many bytes they are.
fn check_frames(queue: &FrameQueue) -> usize {
    let mut buffer = BytesMut::new();
    queue.slices().iter().for_each(|slice| buffer.extend_from_slice(slice));
    let bytes = buffer.len();
    let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
    while let Some(frame) = decoder.decode(&mut buffer).expect("a node sends good frames") {
        Message::decode(frame).expect("with good bodies").expect("of known types");
    }
    bytes
}

fn levels(input: &mut Input<'_>) -> Levels {
    let commit = input.number();
    let nodes = input.byte() % 4;
    Levels { commit, held_by: (0..nodes).map(|_| input.number()).collect() }
}

fn hello(input: &mut Input<'_>) -> Hello {
    let flags = input.byte();
    let role = if flags & 7 == 7 { Role::Client } else { Role::Master };
    Hello {
        peer_id: "s1".into(),
        log_id: (flags & 0x18 != 0).then_some([flags >> 7; 16]),
        epoch: input.number(),
        run_id: u64::from(flags >> 5 & 1),
        ..Hello::blank(role, "master")
    }
}

/// A client's session at either door of either role: whatever is said, in whatever pieces, it never
/// panics, never goes on without end, keeps its output within bounds, and is done once everything is
/// answered.
pub fn session(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let piece = 1 + usize::from(input.byte());
    let role = if flags & 1 == 0 { ConfigRole::Master } else { ConfigRole::Secondary };
    let mut limits = Config::default_for(role).limits;
    (limits.payload_max, limits.output_max, limits.waiting_max) = (256, 8192, 64);
    let mut log = MemoryLog::new();
    let (mut arena, bounds) = (BytesMut::new(), log.bounds());
    let mut builder = RunBuilder::new(&mut arena, bounds.last, bounds.tail);
    (0..20).for_each(|number| builder.push(Epoch::new(1), number, b"payload"));
    log.append(builder.finish(&mut arena).expect("twenty entries")).expect("memory has room");
    let mut view = View::new(["n0", "n1", "n2"].map(|id| id.parse().expect("an id")).into());
    view.levels.commit = Seq::new(15);
    view.levels.held_by = vec![Seq::new(20), Seq::new(15), Seq::new(10)];
    let site = Site {
        about: about(),
        role,
        limits: limits.clone(),
        faults: flags & 8 != 0,
        heartbeat_interval: Duration::from_millis(100),
        log: log.reader(),
        provisional: SharedProvisional::default(),
    };
    let mut session: Box<dyn Session> = if flags & 2 == 0 {
        Box::new(TextSession::new(&limits))
    } else {
        let hello = Message::Hello(Hello::blank(Role::Master, "n0")).encode();
        let says = (flags & 4 != 0, usize::from(flags) * 64);
        Box::new(WireSession::new(&limits, BytesMut::new(), hello, says))
    };
    // Half of the frames have the right checksum: what they say is looked at then.
    let bytes = if flags & 18 == 18 { sealed(&mut input) } else { input.0.to_vec() };
    let (mut stream, mut now) = (&bytes[..], 0);
    let mut rounds = 0;
    let mut ended = false;
    loop {
        now += 50_000;
        let sight = Sight { now: Time::from_micros(now), site: &site, view: &view };
        if session.waits(sight).entries_by.is_some_and(|by| by <= sight.now) {
            session.handle_idle(sight);
        }
        let Ok(mut any) = session.advance(sight) else { return };
        let mut replies = Vec::new();
        while let Some(request) = session.poll_request() {
            any = true;
            carry(&mut *session, sight, request, &mut replies);
        }
        session.handle_replies(sight, replies);
        // One more line than the bound, and what was lent for it.
        assert!(session.untaken() <= 3 * (256 << 10), "output is bounded");
        let taken = session.slices().iter().map(|slice| slice.len()).sum();
        session.taken(sight.now, taken);
        session.drain_refusals();
        if !any && taken == 0 {
            if !stream.is_empty() && session.waits(sight).input {
                let (came, rest) = stream.split_at(piece.min(stream.len()));
                session.input().extend_from_slice(came);
                stream = rest;
            } else if std::mem::replace(&mut ended, true) {
                break;
            } else {
                session.handle_input_end();
            }
        }
        rounds += 1;
        assert!(rounds < 8 * data.len() + 4000, "a session comes to an end");
    }
    assert!(session.is_finished(true), "everything is answered");
}

/// Frames that clients send, with any body.
fn sealed(input: &mut Input<'_>) -> Vec<u8> {
    const TYPES: [u8; 6] = [0x40, 0x42, 0x43, 0x44, 0x45, 0x48];
    let mut bytes = Vec::new();
    while !input.is_empty() {
        let frame_type = TYPES[usize::from(input.byte()) % TYPES.len()];
        let len = usize::from(input.byte());
        let body = input.take(len);
        bytes.extend_from_slice(&Header::seal(frame_type, body.len() as u32, [body]));
        bytes.extend_from_slice(body);
    }
    bytes
}

/// Answers as a node might: the entries of a run in two parts, one of them refused.
fn carry(session: &mut dyn Session, sight: Sight<'_>, request: Request, replies: &mut Vec<Reply>) {
    let placed = |slot, offset, count, seq| {
        let holders = NodeSet::default().with(NodeIndex::MASTER);
        let (class, epoch) = (Class::Pending, Epoch::new(1));
        let placed = reply::Placed { class, seq: Seq::new(seq), epoch, need: 2, holders };
        Reply { slot, offset, count, outcome: Outcome::Placed(placed) }
    };
    match request {
        Request::Append(runs) => {
            for run in runs {
                let count = run.payloads.len() as u64;
                assert!(count > 0, "a run has entries");
                // The second half comes first.
                let half = count / 2;
                if half > 0 {
                    replies.push(placed(run.slot, count - half, half, 100));
                }
                let refusal = reply::Refusal::too_large(1, 0);
                let outcome = Outcome::Refused(refusal);
                replies.push(Reply { slot: run.slot, offset: 0, count: count - half, outcome });
            }
        }
        Request::Wait { slot, seq, .. } => replies.push(placed(slot, 0, 1, seq.number())),
        Request::Ask(question) => {
            let log = &sight.site.log;
            let answer = match question {
                Question::Status => {
                    let peer = Peer::new();
                    Answer::Status(Box::new(peer.node.status(sight.now)))
                }
                Question::Waiters => Answer::Waiters(String::new(), 0),
                Question::Metrics => Answer::Metrics("# EOF\n".to_owned()),
                Question::Holders(_) => Answer::Holders(NodeSet::default()),
                Question::Fault(_) => Answer::Injected,
                Question::Store(seq, payload) => {
                    Answer::Stored(sight.site.provisional.lock().store(log, seq, payload))
                }
                Question::Read { range, bytes_max } => Answer::Read(log.read(range, bytes_max)),
                Question::Record(seq) => Answer::Record(log.record(seq)),
                Question::PrefixId(seq) => Answer::PrefixId(log.prefix_id(seq)),
            };
            session.handle_answer(sight, answer);
        }
    }
}
