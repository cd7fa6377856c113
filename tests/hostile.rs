//! Strangers and broken clients: they lose their connection, everybody else notices nothing, and
//! memory stays flat (interface 2, design 4 and 10).

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use common::{Cluster, Gateway, Noise, READ_TIMEOUT, wait_until};

const MIB: usize = 1024 * 1024;

/// How much a node may have grown after any of these attacks. The largest single thing a stranger
/// can make a node hold is one line of 1 MiB and 4 MiB of output for each of his few connections.
const GROWTH_MAX: usize = 64 * MIB;

/// A cluster under attack, and a client that must not notice.
struct Besieged {
    cluster: Cluster,
    client: Gateway,
    resident: Vec<usize>,
    appended: usize,
}

impl Besieged {
    #[track_caller]
    fn start() -> Besieged {
        let cluster = Cluster::of(1).set("limits.write_timeout", "1s").start();
        let mut client = cluster.client();
        client.ok("APPEND before the attack");
        let resident = resident(&cluster);
        Besieged { cluster, client, resident, appended: 1 }
    }

    /// Wire and text addresses of both nodes.
    fn ports(&self) -> [SocketAddr; 4] {
        let [master, s1] = [&self.cluster.master.ready, &self.cluster.node("s1").ready];
        [master.wire, master.gateway, s1.wire, s1.gateway]
    }

    /// Wire addresses of both nodes.
    fn wire_ports(&self) -> [SocketAddr; 2] {
        let [wire, _, s1_wire, _] = self.ports();
        [wire, s1_wire]
    }

    /// The client that was there before still appends to all nodes, and so does a new one.
    #[track_caller]
    fn assert_undisturbed(&mut self) {
        self.client.ok("APPEND old client");
        self.cluster.client().ok("APPEND new client");
        self.cluster.client_of("s1").ok("HEALTH");
        self.appended += 2;
        assert_eq!(self.client.ok("HEALTH").get("mode"), "normal");
    }

    /// Both logs are equal and hold what was appended and nothing else; memory is as it was.
    #[track_caller]
    fn assert_unharmed(&mut self) {
        self.assert_undisturbed();
        assert_eq!(self.cluster.wait_equal_lists().entries.len(), self.appended);
        for (before, now) in self.resident.iter().zip(resident(&self.cluster)) {
            let grown = now.saturating_sub(*before);
            assert!(grown <= GROWTH_MAX, "{} MiB more than before", grown / MIB);
        }
    }
}

/// Memory of the master and of s1.
fn resident(cluster: &Cluster) -> Vec<usize> {
    let nodes = [&cluster.master, cluster.node("s1")];
    let bytes = nodes.map(|node| node.process.resident_bytes());
    bytes.into_iter().map(|bytes| usize::try_from(bytes).expect("it fits into memory")).collect()
}

fn stranger(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}"));
    stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout can be set");
    stream.set_write_timeout(Some(READ_TIMEOUT)).expect("a timeout can be set");
    stream
}

/// Sends what it can: the node may close at any byte.
fn send(mut stream: &TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// Reads until the node closes, and fails the test if it does not, or sends more than was on the
/// way in the buffers of both sides.
#[track_caller]
fn read_until_closed(mut stream: &TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        assert!(received.len() < 32 * MIB, "the node did not close");
        match stream.read(&mut chunk) {
            Ok(0) => return received,
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return received,
            Err(error) => panic!("the node did not close: {error}"),
        }
    }
}

/// A frame header with this type and length: magic, version, type, flags, length, and a checksum
/// that is wrong.
fn header(version: u8, frame_type: u8, length: u32) -> Vec<u8> {
    let mut header = vec![0x52, 0x4c, version, frame_type, 0, 0, 0, 0];
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
    header
}

#[test]
fn random_bytes_on_any_port_harm_nobody() {
    let mut besieged = Besieged::start();
    let mut noise = Noise::seeded(4);
    for round in 0..20 {
        for port in besieged.ports() {
            let stream = stranger(port);
            let count = 1 + noise.below(20_000);
            send(&stream, &noise.bytes(count));
            if round % 2 == 0 {
                // Fails when the node has closed already.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                read_until_closed(&stream);
            }
        }
        besieged.assert_undisturbed();
    }
    // Random lines may have been anything but an append: none begins with the verb.
    besieged.assert_unharmed();
}

/// Lengths up to 2^32 - 1 in the header reserve nothing and close the connection.
#[test]
fn frames_with_absurd_headers_cost_their_connection() {
    let mut besieged = Besieged::start();
    for port in besieged.wire_ports() {
        let mut absurd: Vec<Vec<u8>> = vec![
            header(0, 1, 0),
            header(255, 1, 16),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            b"PING\nPING\nPING\nPING\n".to_vec(),
            vec![0; 64],
            vec![0xff; 64],
        ];
        for length in [0, 1, 8 * 1024 + 1, 1 << 20, 1 << 31, u32::MAX] {
            for frame_type in [0, 1, 2, 7, 200, 255] {
                absurd.push(header(1, frame_type, length));
            }
        }
        for bytes in absurd {
            let stream = stranger(port);
            send(&stream, &bytes);
            // Whatever the header promised may follow: it must not be kept.
            send(&stream, &[0; 16 * 1024]);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            read_until_closed(&stream);
        }
        besieged.assert_undisturbed();
    }
    besieged.assert_unharmed();
}

/// Who has not introduced himself gets a few seconds, not for ever: not with nothing, not with
/// half a header, not with half a frame.
#[test]
fn strangers_who_fall_silent_are_shown_out() {
    let mut besieged = Besieged::start();
    let mut silent = Vec::new();
    for port in besieged.wire_ports() {
        for beginning in [vec![], header(1, 1, 100)[..7].to_vec(), header(1, 1, u32::MAX)] {
            let stream = stranger(port);
            send(&stream, &beginning);
            silent.push(stream);
        }
    }
    besieged.assert_undisturbed();
    for stream in &silent {
        read_until_closed(stream);
    }
    besieged.assert_unharmed();
}

/// On the text gateway silence is no offence.
#[test]
fn a_silent_client_of_the_gateway_may_stay() {
    let mut besieged = Besieged::start();
    let mut quiet: Vec<Gateway> = besieged.cluster.clients();
    quiet[0].send_bytes(b"PI");
    wait_until("some seconds", || {
        (besieged.client.status().node.number("uptime_s") >= 7).then_some(())
    });
    quiet[0].send_bytes(b"NG\n");
    assert_eq!(quiet[0].line(), "PONG");
    assert_eq!(quiet[1].cmd("PING"), "PONG");
    besieged.assert_unharmed();
}

#[test]
fn hundreds_of_short_connections_harm_nobody() {
    let mut besieged = Besieged::start();
    for port in besieged.ports() {
        for number in 0..500 {
            let stream = stranger(port);
            if number % 3 == 0 {
                send(&stream, b"\n");
            }
        }
        besieged.assert_undisturbed();
    }
    besieged.assert_unharmed();
}

/// A line without end is answered, thrown away and then cut off.
#[test]
fn a_line_without_end_is_answered_and_cut_off() {
    let mut besieged = Besieged::start();
    let [_, gateway, _, s1_gateway] = besieged.ports();
    for port in [gateway, s1_gateway] {
        let stream = stranger(port);
        let endless = stream.try_clone().expect("a socket can be cloned");
        let sender = thread::spawn(move || {
            let chunk = [b'x'; 64 * 1024];
            let mut sent = 0;
            let mut endless = &endless;
            while endless.write_all(&chunk).is_ok() {
                sent += chunk.len();
            }
            sent
        });
        let mut reply = Gateway::over(stream);
        let line = reply.line();
        assert!(line.starts_with("ERR too-long "), "{line}");
        besieged.assert_undisturbed();
        reply.assert_closed();
        let sent = sender.join().expect("the sender does not panic");
        assert!(sent > MIB, "{sent} bytes were taken before the answer");
    }
    besieged.assert_unharmed();
}

/// Output nobody takes is bounded, and who does not take it for long is closed.
#[test]
fn readers_who_never_read_are_cut_off() {
    const ENTRIES: usize = 16;
    const READERS: usize = 6;
    let mut besieged = Besieged::start();
    // One byte shown as four: a LIST of 64 MiB.
    let payload = "\x01".repeat(MIB);
    for _ in 0..ENTRIES {
        besieged.client.ok(&format!("APPEND {payload}"));
        besieged.appended += 1;
    }
    besieged.resident = resident(&besieged.cluster);
    let [_, gateway, _, s1_gateway] = besieged.ports();
    let readers: Vec<TcpStream> = (0..READERS)
        .map(|number| {
            let stream = stranger(if number % 2 == 0 { gateway } else { s1_gateway });
            send(&stream, b"LIST\nLIST\nTAIL from=1\n");
            stream
        })
        .collect();
    besieged.assert_undisturbed();
    for mut stream in &readers {
        // A blank line asks for nothing, but tells whether anybody is there.
        wait_until("the connection to be closed", || stream.write_all(b"\n").err());
        besieged.client.ok("HEALTH");
        let received = read_until_closed(stream);
        assert!(!received.windows(4).any(|part| part == b"END "), "the list was cut short");
    }
    let cut = ["INFO", "cut a client", "limits.write_timeout", "addr=127."];
    let line = besieged.cluster.master.process.wait_for_log_line(&cut);
    assert!(line.contains(" bytes=") && !line.contains("\\x01"), "{line}");
    besieged.assert_unharmed();
}

/// Commands without end whose answers nobody reads are not read for ever either.
#[test]
fn a_flood_of_commands_without_readers_harms_nobody() {
    let mut besieged = Besieged::start();
    let [_, gateway, _, s1_gateway] = besieged.ports();
    for port in [gateway, s1_gateway] {
        let stream = stranger(port);
        let flood = b"STATUS\n".repeat(1000);
        while (&stream).write_all(&flood).is_ok() {}
        besieged.assert_undisturbed();
    }
    besieged.assert_unharmed();
}

/// A client that is gone for good must not hold its place: a node has only so many.
#[test]
fn clients_that_went_away_while_they_waited_leave_nothing_behind() {
    let cluster = Cluster::of(2).absent("s2").start();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = cluster.client();
        client.send("APPEND w=3 nobody waits for this");
        // Nothing more is read from it: only an error can tell that it is gone.
        client.half_close();
        // A reset now, as keepalive probes get it a minute after an orderly close.
        let abrupt = socket2::SockRef::from(client.stream()).set_linger(Some(Duration::ZERO));
        abrupt.expect("lingering can be switched off");
        clients.push(client);
    }
    let mut client = cluster.client();
    let mut waiting = || client.status().node.number("waiting");
    wait_until("all five wait", || (waiting() == 5).then_some(()));
    drop(clients);
    wait_until("all five are found to be gone", || (waiting() == 0).then_some(()));
    assert_eq!(cluster.client().list("").entries.len(), 5, "their appends stay");
}
