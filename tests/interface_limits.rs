//! Every key of `limits` limits what it says, and nothing else (interface 1). What the limits
//! protect against is in `hostile.rs`; `INTERFACE.md` maps every promise to its test.

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;

use common::{Cluster, Fields, Gateway, Process, READ_TIMEOUT, replog_cli, run_to_end, wait_until};
use socket2::{Domain, Socket, Type};

const MIB: usize = 1024 * 1024;

/// A connection with so many appends waiting is not read further; others are, and everything goes
/// on where it stopped.
#[test]
fn a_connection_with_too_many_waiting_appends_is_not_read() {
    let mut cluster = Cluster::of(2).absent("s2").set("limits.waiting_max", "2").start();
    let mut client = cluster.client();
    client.send_bytes(b"APPEND w=3 a\nAPPEND w=3 b\nAPPEND w=3 c\nAPPEND w=1 d\n");
    let mut other = cluster.client();
    wait_until("two appends to wait", || (other.status().node.get("waiting") == "2").then_some(()));
    // All four lines came in one piece. What is not read now is not numbered before the others.
    assert_eq!(other.ok("APPEND w=2 of another client").number("seq"), 3);
    assert_eq!(other.list("").payloads(), ["a", "b", "of another client"]);
    assert_eq!(other.status().node.get("waiting"), "2");
    cluster.start("s2");
    for seq in [1, 2, 4, 5] {
        let reply = client.line();
        assert!(reply.starts_with(&format!("OK seq={seq} ")), "{reply}");
    }
    let all = ["a", "b", "of another client", "c", "d"];
    assert_eq!(cluster.wait_equal_lists().payloads(), all);
}

/// However little room there is, appends are slowed and not failed, those that are larger than all
/// of it included.
#[test]
fn too_little_room_for_bytes_in_flight_slows_appends_and_fails_none() {
    const CLIENTS: usize = 4;
    const APPENDS: usize = 100;
    let cluster = Cluster::of(1).set("limits.inflight_max", "1").start();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut client = cluster.client();
            scope.spawn(move || {
                let payload = "x".repeat(1 + 97 * number);
                client.send_bytes(format!("APPEND {payload}\n").repeat(APPENDS).as_bytes());
                for _ in 0..APPENDS {
                    let reply = client.line();
                    assert!(reply.starts_with("OK seq="), "{reply}");
                }
            });
        }
    });
    cluster.client().ok(&format!("APPEND {}", "x".repeat(MIB)));
    assert_eq!(cluster.wait_equal_lists().entries.len(), CLIENTS * APPENDS + 1);
}

/// Input stops being read when so much output is not taken: of a flood of commands a node with
/// little room takes little, one with more room takes more. Both close in the end.
#[test]
fn output_that_is_not_taken_is_bounded_by_its_limit() {
    const ROOM: usize = 32 * MIB;
    let taken = |output_max: usize| {
        let cluster = Cluster::of(0)
            .set("limits.output_max", &output_max.to_string())
            .set("limits.write_timeout", "5s")
            .start();
        let taken = flood(cluster.master.ready.gateway);
        assert_eq!(cluster.client().cmd("PING"), "PONG", "the others notice nothing");
        taken
    };
    let (little, much) = (taken(1), taken(ROOM));
    assert!(much >= ROOM, "{much} bytes taken with room for {ROOM}");
    // What the buffers of the two sockets hold is not the node's.
    assert!(little < ROOM / 2, "{little} bytes taken with room for one");
}

/// How many bytes of commands are taken from a client that reads nothing, before it is closed.
fn flood(gateway: SocketAddr) -> usize {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // The replies shall wait at the node, not in the buffers between.
    socket.set_recv_buffer_size(4096).expect("the size can be set");
    socket.set_send_buffer_size(4096).expect("the size can be set");
    socket.connect(&gateway.into()).expect("the node listens");
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(READ_TIMEOUT)).expect("a timeout can be set");
    // Its answer is as long as itself.
    let command = format!("PING {}\n", "x".repeat(16 * 1024));
    let mut taken = 0;
    while let Ok(count) = stream.write(command.as_bytes()) {
        taken += count;
        assert!(taken < 1024 * MIB, "the node takes input without end");
    }
    taken
}

/// A client that takes its time but goes on taking is not closed, however long that takes; who takes
/// nothing is (`hostile.rs`).
#[test]
fn a_slow_reader_that_goes_on_reading_may_take_longer_than_the_write_timeout() {
    const ENTRIES: u64 = 12;
    const SECONDS: u64 = ENTRIES / 2;
    let cluster = Cluster::of(0).set("limits.write_timeout", "4s").start();
    let mut client = cluster.client();
    // One byte shown as four: a line of 4 MiB for each entry.
    let payload = "\x01".repeat(MIB);
    for _ in 0..ENTRIES {
        client.ok(&format!("APPEND {payload}"));
    }
    let mut slow = cluster.client();
    slow.send("LIST");
    let start = client.status().node.number("uptime_s");
    for seq in 1..=ENTRIES {
        assert!(slow.line().starts_with(&format!("{seq} ")));
        wait_until("two lines a second", || {
            (client.status().node.number("uptime_s") >= start + seq / 2).then_some(())
        });
    }
    assert!(slow.line().starts_with(&format!("END count={ENTRIES} ")));
    assert!(client.status().node.number("uptime_s") >= start + SECONDS);
}

/// Each port has places of its own: with all of the gateway's taken, the wire port serves, and the
/// reverse.
#[test]
fn connections_are_counted_per_port() {
    let cluster = Cluster::of(0).set("limits.connections_max", "1").start();
    let server = cluster.master.ready.wire.to_string();
    let command = |args: &[&str]| replog_cli(["--server", &server].iter().chain(args));
    let cli = |args: &[&str]| run_to_end(command(args), b"");
    let place = || {
        let mut client = cluster.client();
        // Fails when the node has closed already; then there is no answer either.
        let _ = client.stream().write_all(b"PING\n");
        client.line_or_end().filter(|line| line == b"PONG").map(|_| client)
    };
    let mut gateway = wait_until("the one place of the gateway", place);
    cli(&["append", "by wire"]).expect_code(0);
    assert_eq!(gateway.list("").payloads(), ["by wire"]);

    let _holds_the_wire_place = wait_until("the one place of the wire port", || {
        let process = Process::spawn("tail", command(&["tail", "-n", "1", "-f"]));
        wait_until("its entry", || {
            (!process.stdout().is_empty() || !process.log().is_empty()).then_some(())
        });
        (process.stdout() == ["1 by wire"]).then_some(process)
    });
    let refused = cli(&["ping"]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("busy"), "{refused:?}");
    assert_eq!(gateway.cmd("PING"), "PONG");
}

/// `limits.payload_max` holds for every way in: APPEND, STORE, replog-cli.
#[test]
fn the_largest_payload_is_the_same_for_every_way_in() {
    let cluster = Cluster::of(1).set("limits.payload_max", "10").start();
    let mut client = cluster.client();
    let refused = client.refused("APPEND 12345678901", "REJECTED too-large");
    assert_eq!((refused.get("bytes"), refused.get("max")), ("11", "10"));
    client.ok("APPEND 1234567890");
    let mut s1 = cluster.client_of("s1");
    s1.refused("STORE 2 12345678901", "REJECTED too-large");
    assert_eq!(s1.cmd("STORE 2 1234567890"), "OK seq=2");
    let server = cluster.master.ready.wire.to_string();
    let append = |text| run_to_end(replog_cli(["--server", &server, "append", text]), b"");
    let done = append("12345678901").expect_code(1);
    assert!(done.text().starts_with("REJECTED too-large "), "{done:?}");
    append("0123456789").expect_code(0);
    assert_eq!(client.list("").payloads(), ["1234567890", "0123456789"]);
}

/// A connection too many hears how many there may be, in a line that has its class and code first.
#[test]
fn the_refusal_of_a_connection_too_many_names_the_limit() {
    let cluster = Cluster::of(0).set("limits.connections_max", "2").start();
    let mut clients: Vec<Gateway> = Vec::new();
    let refusal = wait_until("a refusal", || {
        let mut client = cluster.client();
        let _ = client.stream().write_all(b"PING\n");
        let line = client.line_or_end()?;
        clients.push(client);
        (line != b"PONG").then(|| String::from_utf8_lossy(&line).into_owned())
    });
    let refusal = Fields::of(&refusal);
    assert_eq!((refusal.class(), refusal.code()), ("REJECTED", "busy"));
    assert_eq!(refusal.get("connections"), "2");
    assert!(refusal.sentence().is_some());
}
