//! Connections by the wire protocol, with a client and a secondary played byte for byte.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use common::{Cluster, Gateway, replog};
use replog::wire::codec::*;
use replog::wire::{FrameDecoder, Message};

/// A failure bound, never a measure.
const PATIENCE: Duration = Duration::from_secs(30);

struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    fn over(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Wire { stream, buffer: BytesMut::new() }
    }

    fn client(addr: SocketAddr) -> Wire {
        let mut wire = Wire::over(TcpStream::connect(addr).expect("the node listens"));
        wire.send(&Message::Hello(hello(Role::Client, "test")));
        assert!(matches!(wire.receive(), Message::Hello(_)), "a client is answered by a HELLO");
        wire
    }

    fn send(&mut self, message: &Message) {
        let bytes = message.encode().to_bytes();
        self.stream.write_all(&bytes).expect("the node reads");
    }

    fn receive(&mut self) -> Message {
        let decoder = FrameDecoder { body_bytes_max: 1 << 20 };
        loop {
            let frame = decoder.decode(&mut self.buffer).expect("the node sends good frames");
            if let Some(frame) = frame {
                return Message::decode(frame).expect("a good body").expect("a known type");
            }
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk).expect("the node answers in time");
            assert!(count > 0, "the node closed the connection");
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }
}

fn hello(role: Role, node_id: &str) -> Hello {
    Hello { payload_bytes_max: 1 << 20, window_bytes: 16 << 20, ..Hello::blank(role, node_id) }
}

#[test]
fn a_tail_shows_nothing_beyond_its_level() {
    let cluster = Cluster::of(2).start();
    let mut text = cluster.client();
    text.ok("APPEND w=all committed");
    cluster.client_of("s1").ok("DELAY every=60s");
    cluster.client_of("s2").ok("DELAY every=60s");
    text.ok("APPEND w=1 only the master has this");
    let mut wire = Wire::client(cluster.master.ready.wire);
    let (start, level) = (TailStart::From(1), ReadLevel::Committed);
    wire.send(&Message::TailRequest(TailRequest { id: 7, start, level }));
    let mut shown = 0;
    // An idle frame comes when all that the level shows was sent.
    loop {
        let Message::Entries(head, _) = wire.receive() else { panic!("a tail is answered so") };
        shown += head.count;
        assert_eq!((head.next, head.commit, head.end), (2, 1, false));
        if head.count == 0 {
            break;
        }
    }
    assert_eq!(shown, 1, "the second entry is held by the master only");
}

#[test]
fn a_wait_for_no_node_is_refused_like_an_append() {
    let cluster = Cluster::of(0).start();
    cluster.client().ok("APPEND x");
    let mut wire = Wire::client(cluster.master.ready.wire);
    let (concern, ack, timeout) = (Concern::Nodes(0), AckKind::Default, Timeout::Default);
    wire.send(&Message::WaitRequest(WaitRequest { id: 1, seq: 1, concern, ack, timeout }));
    let Message::AppendReply(reply) = wire.receive() else { panic!("a wait is answered so") };
    assert!(matches!(reply.outcome, Outcome::Refused(Refusal { code: 2, .. })), "{reply:?}");
}

#[test]
fn an_id_that_would_run_over_is_refused_and_costs_only_its_connection() {
    let cluster = Cluster::of(0).start();
    let mut wire = Wire::client(cluster.master.ready.wire);
    let request = AppendRequest {
        id: u64::MAX,
        count: 2,
        concern: Concern::Default,
        ack: AckKind::Default,
        timeout: Timeout::Default,
        producer: None,
        match_seq: None,
        atomic: false,
    };
    wire.send(&Message::AppendRequest(request, vec![0; 8].into()));
    assert!(matches!(wire.receive(), Message::Refuse(Refuse { code: 1, .. })));
    assert_eq!(cluster.client().ok("APPEND x").number("seq"), 1);
}

/// A payload of that many bytes that is to be held by no node.
fn impossible(bytes: usize) -> (AppendRequest, bytes::Bytes) {
    let head = AppendRequest {
        id: 1,
        count: 1,
        concern: Concern::Nodes(0),
        ack: AckKind::Default,
        timeout: Timeout::Default,
        producer: None,
        match_seq: None,
        atomic: false,
    };
    let tail = [&(bytes as u32).to_le_bytes()[..], &vec![b'x'; bytes]].concat();
    (head, tail.into())
}

#[test]
fn the_checks_of_an_append_come_in_one_order_on_every_door() {
    let cluster = Cluster::of(1).set("limits.payload_max", "10").start();
    for (id, bytes, lines, code) in [
        ("master", 20, "REJECTED too-large ", 3),
        ("master", 10, "REJECTED bad-write-concern ", 2),
        ("s1", 20, "REJECTED not-master ", 12),
    ] {
        let line = format!("APPEND w=0 {}", "x".repeat(bytes));
        let (mut text, addr) = match id {
            "master" => (cluster.client(), cluster.master.ready.wire),
            id => (cluster.client_of(id), cluster.addr(id)),
        };
        assert!(text.cmd(&line).starts_with(lines), "{line} on the gateway of {id}");
        let mut wire = Wire::client(addr);
        wire.send(&Message::Command(CommandHead { id: 1, end: true }, line.clone().into()));
        let Message::CommandReply(_, reply) = wire.receive() else { panic!("a command's answer") };
        assert!(reply.starts_with(lines.as_bytes()), "{line} as a COMMAND of {id}: {reply:?}");
        let (head, tail) = impossible(bytes);
        wire.send(&Message::AppendRequest(head, tail));
        let Message::AppendReply(reply) = wire.receive() else { panic!("an append's answer") };
        let Outcome::Refused(refusal) = reply.outcome else { panic!("{reply:?}") };
        assert_eq!(refusal.code, code, "{line} as a request to {id}: {refusal:?}");
        // What is reserved is a matter of syntax, and comes before all.
        let (mut head, tail) = impossible(bytes);
        head.atomic = true;
        wire.send(&Message::AppendRequest(head, tail));
        let Message::AppendReply(reply) = wire.receive() else { panic!("an append's answer") };
        assert!(matches!(reply.outcome, Outcome::Refused(Refusal { code: 101, .. })), "{reply:?}");
    }
}

#[test]
fn a_tail_ends_when_its_client_closes_its_sending_side() {
    let cluster = Cluster::of(0).start();
    cluster.client().ok("APPEND there");
    let mut wire = Wire::client(cluster.master.ready.wire);
    let (start, level) = (TailStart::From(1), ReadLevel::Local);
    wire.send(&Message::TailRequest(TailRequest { id: 1, start, level }));
    wire.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut shown = 0;
    loop {
        let Message::Entries(head, _) = wire.receive() else { panic!("a tail is answered so") };
        shown += head.count;
        if head.end {
            break;
        }
    }
    assert_eq!(shown, 1, "what was there came before the end");
    assert_eq!(wire.stream.read(&mut [0]).expect("no reset"), 0, "and then the connection ends");
}

#[test]
fn a_client_is_sent_no_frame_that_is_longer_than_it_takes() {
    const TAKES: usize = 8 << 10;
    let cluster = Cluster::of(0).start();
    let mut text = cluster.client();
    text.ok("APPEND small");
    text.ok(&format!("APPEND {}", "l".repeat(TAKES)));
    let mut wire = Wire::over(TcpStream::connect(cluster.master.ready.wire).expect("it listens"));
    let mut own = hello(Role::Client, "test");
    own.frame_bytes_max = TAKES as u32;
    wire.send(&Message::Hello(own));
    assert!(matches!(wire.receive(), Message::Hello(_)));
    let long = format!("PING {}", "p".repeat(3 * TAKES));
    wire.send(&Message::Command(CommandHead { id: 1, end: true }, long.into()));
    let mut answer = 0;
    loop {
        let Message::CommandReply(head, piece) = wire.receive() else { panic!("its answer") };
        assert!(piece.len() < TAKES, "a piece of {} bytes", piece.len());
        answer += piece.len();
        if head.end {
            break;
        }
    }
    assert_eq!(answer, 3 * TAKES + "PONG \n".len());
    let (from, limit, level) = (1, None, ReadLevel::Local);
    wire.send(&Message::ReadRequest(ReadRequest { id: 2, from, limit, level }));
    let Message::Entries(head, _) = wire.receive() else { panic!("the small one fits") };
    assert_eq!((head.count, head.end), (1, false));
    let Message::RequestRefused(refused) = wire.receive() else { panic!("the long one does not") };
    assert_eq!((refused.id, refused.refusal.code), (2, 103), "{refused:?}");
}

#[test]
fn a_hello_that_breaks_a_bound_is_refused_whoever_sends_it() {
    let row = |epoch, first| EpochStart { epoch, first };
    let ids = |count: usize| (0..count).map(|number| format!("n{number}")).collect::<Vec<_>>();
    let of_master = |change: &dyn Fn(&mut Hello)| {
        let mut own = hello(Role::Master, "master");
        change(&mut own);
        own
    };
    let of_client = |bytes: usize| hello(Role::Client, &"n".repeat(bytes));
    let node = Cluster::lone_secondary();
    let cases = [
        ("a client's name of 64 bytes", of_client(64), true),
        ("one of 65", of_client(65), false),
        ("a master without a node id", of_master(&|own| own.node_id.clear()), false),
        ("128 nodes", of_master(&|own| own.roster = ids(128)), true),
        ("129 nodes", of_master(&|own| own.roster = ids(129)), false),
        ("a node with a space", of_master(&|own| own.roster = vec!["s 1".into()]), false),
        ("an address of 255 bytes", of_master(&|own| own.master_addr = "a".repeat(255)), true),
        ("one of 256", of_master(&|own| own.master_addr = "a".repeat(256)), false),
        ("an address with a line end", of_master(&|own| own.master_addr = "a\n".into()), false),
        ("epochs", of_master(&|own| own.epoch_table = vec![row(1, 1), row(3, 9)]), true),
        ("epochs that fall", of_master(&|own| own.epoch_table = vec![row(3, 1), row(1, 9)]), false),
        ("two in one place", of_master(&|own| own.epoch_table = vec![row(1, 9), row(3, 9)]), false),
        ("one before entry 1", of_master(&|own| own.epoch_table = vec![row(1, 0)]), false),
        (
            "129 epochs",
            of_master(&|own| own.epoch_table = (1..130).map(|n| row(n, n)).collect()),
            false,
        ),
    ];
    for (what, own, good) in cases {
        let stream = TcpStream::connect(node.ready.wire).expect("the node listens");
        let mut wire = Wire::over(stream);
        wire.send(&Message::Hello(own));
        match wire.receive() {
            Message::Hello(_) => assert!(good, "{what} was taken"),
            Message::Refuse(refuse) => assert!(!good && refuse.code == 1, "{what}: {refuse:?}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Plays the secondary s1 up to the moment at which `act` takes over with the first APPEND.
fn play_secondary(listener: TcpListener, act: impl Fn(&mut Wire) + Send + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut wire = Wire::over(stream);
            loop {
                match wire.receive() {
                    Message::Hello(master) => {
                        let mut answer = hello(Role::Secondary, "s1");
                        if master.epoch > 0 {
                            answer.log_id = master.log_id;
                            (answer.epoch, answer.run_id) = (master.epoch, master.run_id);
                        }
                        wire.send(&Message::Hello(answer));
                    }
                    Message::Heartbeat(beat) => {
                        let ack = HeartbeatAck { epoch: beat.epoch, number: beat.number };
                        wire.send(&Message::HeartbeatAck(ack));
                    }
                    Message::Append(..) => {
                        act(&mut wire);
                        break;
                    }
                    other => panic!("a master does not send {other:?}"),
                }
            }
        }
    });
}

fn master_of(listener: &TcpListener) -> (common::Process, common::Ready) {
    let addr = listener.local_addr().expect("it is bound");
    let secondary = format!("s1={addr}");
    let flags = ["master", "--memory", "--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0"];
    let process = common::Process::spawn(
        "master",
        replog(flags.iter().copied().chain(["--secondary", &secondary])),
    );
    let ready = process.wait_ready();
    (process, ready)
}

#[test]
fn clients_of_a_deposed_master_are_told_that_nobody_knows() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (_master, ready) = master_of(&listener);
    play_secondary(listener, |wire| {
        let reason = "epoch 9 was promised".to_owned();
        wire.send(&Message::Refuse(Refuse { code: 10, epoch: 9, reason }));
    });
    let mut client = Gateway::connect(ready.gateway);
    common::wait_until("the master accepts appends", || {
        client.cmd("HEALTH").starts_with("OK mode=normal").then_some(())
    });
    let reply = client.cmd("APPEND w=2 whose fate is open");
    assert!(reply.starts_with("UNKNOWN seq=1 epoch=1 have=1/2"), "{reply}");
}

#[test]
fn a_secondary_that_introduces_itself_unasked_is_sent_away_and_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (_master, ready) = master_of(&listener);
    let (told, refused) = std::sync::mpsc::channel();
    play_secondary(listener, move |wire| {
        wire.send(&Message::Hello(hello(Role::Secondary, "s1")));
        let refuse = loop {
            match wire.receive() {
                Message::Refuse(refuse) => break refuse,
                Message::Append(..) | Message::Heartbeat(_) => {}
                other => panic!("a master does not send {other:?}"),
            }
        };
        // The test may have ended.
        let _ = told.send(refuse.code);
    });
    let mut client = Gateway::connect(ready.gateway);
    common::wait_until("the master accepts appends", || {
        client.cmd("HEALTH").starts_with("OK mode=normal").then_some(())
    });
    client.ok("APPEND w=1 x");
    assert_eq!(refused.recv_timeout(PATIENCE), Ok(1), "bad-frame");
    client.ok("APPEND w=1 the master goes on");
}

/// What a node answers to a line by its gateway, up to where it closes.
fn by_gateway(addr: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    writeln!(stream, "{line}").expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    answer
}

/// The same by the wire protocol.
fn by_command(addr: SocketAddr, line: &str) -> String {
    let mut wire = Wire::client(addr);
    let line = bytes::Bytes::copy_from_slice(line.as_bytes());
    wire.send(&Message::Command(CommandHead { id: 7, end: true }, line));
    let mut answer = Vec::new();
    loop {
        let Message::CommandReply(head, piece) = wire.receive() else { panic!("its answer") };
        answer.extend_from_slice(&piece);
        if head.end {
            return String::from_utf8(answer).expect("text");
        }
    }
}

#[test]
fn every_line_is_answered_alike_on_both_doors_of_both_roles() {
    let cluster = Cluster::of(1).set("limits.payload_max", "30").start();
    let mut client = cluster.client();
    (1..=3).for_each(|number| drop(client.ok(&format!("APPEND w=all entry {number}"))));
    let commit = "commit=3";
    let s1 = cluster.node("s1");
    common::wait_until("s1 to know the commit", || {
        cluster.client_of("s1").cmd("LIST limit=0").contains(commit).then_some(())
    });
    let lines = [
        "PING",
        "PING a  b",
        "ping",
        "HELP",
        "HELP append",
        "HELP nonsense",
        "QUIT",
        "nonsense",
        "nonsense x=1",
        "GET 1",
        "GET 4",
        "GET 0",
        "GET",
        "GET x",
        "GET 1 2",
        "LIST",
        "LIST from=2 limit=1",
        "LIST level=all",
        "LIST level=1",
        "LIST level=9",
        "LIST level=0",
        "LIST nope=1",
        "LIST limit=x",
        "LIST from=1 from=2",
        "DIGEST",
        "DIGEST 1",
        "DIGEST 9",
        "DIGEST x",
        "WAIT 1 w=9",
        "WAIT 9",
        "WAIT 0",
        "WAIT",
        "WAIT 1 timeout=x",
        "WAIT 1 w=nonsense",
        "WAITERS",
        "WAITERS x",
        "OUTCOME a:1",
        "APPEND w=9 x",
        "APPEND w=0 x",
        "APPEND w=zero x",
        "APPEND ack=no x",
        "APPEND timeout=-1 x",
        "APPEND w=1 w=1 x",
        "APPEND id=a:1 x",
        "APPEND match=1 x",
        "APPEND mode=atomic x",
        "APPEND w=0 longer than any payload may be here",
        "STATUS x",
        "HEALTH x",
        "DELAY nonsense",
        "FAIL nonsense",
        "MUTE",
        "STORE",
        "STORE 0 x",
        "STORE x y",
        "STORE 9 longer than any payload may be here",
    ];
    for (ready, role) in [(&cluster.master.ready, "the master"), (&s1.ready, "the secondary")] {
        let gateway = ready.gateway;
        for line in lines {
            let (text, wire) = (by_gateway(gateway, line), by_command(ready.wire, line));
            assert_eq!(text, wire, "{line:?} to {role}: the gateway, then a COMMAND");
            assert!(!text.is_empty(), "{line:?} to {role}");
        }
    }
    assert_eq!(client.list("").entries.len(), 3, "nothing of it was appended");
}
