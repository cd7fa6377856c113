//! Crowds at the doors: however many clients there are and whatever they leave unfinished, a node
//! goes on, the other nodes reach it, its operator sees it, and its memory has a bound.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{
    Cluster, Gateway, Process, READ_TIMEOUT, Ready, replog, replog_cli, run_to_end, wait_until,
    with_files_max,
};

/// Connections to `addr` that say nothing, or `hello`. Those that find no place stay in the queue of
/// the system.
fn idle(addr: SocketAddr, count: usize, hello: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect_timeout(&addr, READ_TIMEOUT).unwrap();
        // The node may have closed it already.
        let _ = stream.write_all(hello);
        stream
    };
    (0..count).map(connect).collect()
}

/// A node of either role that may open 64 files and has small segments.
fn small_node(dir: &std::path::Path, args: &[&str]) -> (Process, Ready) {
    let mut command = replog(args);
    let dir = dir.join(args[0]);
    command.args(["--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--data-dir"]).arg(dir);
    command.args([
        "--set",
        "storage.segment_size=64KiB",
        "--set",
        "cluster.heartbeat_interval=200ms",
    ]);
    let process = Process::spawn(args[0], with_files_max(64, &command));
    let ready = process.wait_ready();
    (process, ready)
}

#[test]
fn idle_clients_on_all_ports_end_no_node_and_leave_it_descriptors_for_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let (s1, s1_ready) = small_node(dir.path(), &["secondary"]);
    let roster = format!("s1={}", s1_ready.wire);
    let (master, ready) = small_node(dir.path(), &["master", "--secondary", &roster]);
    for node in [&master, &s1] {
        node.wait_for_log_line(&["WARN", "limits.connections_max cannot be met", "ulimit -n"]);
    }
    let mut client = Gateway::connect(ready.gateway);
    wait_until("mode normal", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    client.ok("APPEND before the crowd");
    let ports = [ready.gateway, ready.wire, s1_ready.gateway, s1_ready.wire];
    let crowd: Vec<_> = ports.iter().map(|&port| idle(port, 100, b"")).collect();
    // Forty segments on either node.
    let payload = "z".repeat(40_000);
    for _ in 0..40 {
        client.ok(&format!("APPEND {payload}"));
    }
    assert_eq!(client.ok("HEALTH").get("mode"), "normal");
    drop(crowd);
    wait_until("places for clients again", || {
        let mut client = Gateway::connect(s1_ready.gateway);
        client.send("LIST limit=0");
        client.line_or_end()?.starts_with(b"END ").then_some(())
    });
}

/// The limit may also fall while a node runs, and other processes may have taken all that the machine
/// has: then no call that opens anything succeeds.
#[test]
fn a_node_that_can_open_nothing_more_goes_on_appending_and_recovers_by_itself() {
    let cluster = Cluster::of(1).set("storage.segment_size", "64KiB").on_disk().start();
    let mut client = cluster.client();
    client.ok("APPEND the first");
    let nodes = [&cluster.master.process, &cluster.node("s1").process];
    let limit = |files: u64| {
        for node in nodes {
            let pid = rustix::process::Pid::from_raw(i32::try_from(node.id()).unwrap());
            let limit = rustix::process::Rlimit { current: Some(files), maximum: Some(4096) };
            rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
        }
    };
    limit(3);
    let payload = "z".repeat(40_000);
    for _ in 0..20 {
        client.ok(&format!("APPEND {payload}"));
    }
    let _waits = TcpStream::connect(cluster.master.ready.gateway).unwrap();
    cluster.master.process.wait_for_log_line(&["WARN", "cannot accept connections"]);
    client.ok("APPEND and not only to the log that is open");
    limit(4096);
    cluster.master.process.wait_for_log_line(&["connections are accepted again"]);
    for _ in 0..20 {
        client.ok(&format!("APPEND {payload}"));
    }
    assert_eq!(cluster.wait_equal_lists().entries.len(), 42);
}

#[test]
fn a_master_reaches_its_secondary_when_clients_have_all_its_places() {
    let mut cluster = Cluster::of(1).set("limits.connections_max", "3").start();
    cluster.client().ok("APPEND before the crowd");
    let addr = cluster.node("s1").ready.wire;
    let server = addr.to_string();
    // Three who have introduced themselves, and more than there is room for who have not.
    let tails: Vec<_> = (0..3)
        .map(|_| Process::spawn("tail", replog_cli(["--server", &server, "tail", "-n", "0", "-f"])))
        .collect();
    let mut gateway = cluster.client_of("s1");
    wait_until("all places of clients to be taken", || {
        gateway.send("METRICS");
        let lines: Vec<_> =
            std::iter::from_fn(|| Some(gateway.line()).filter(|line| line != "# EOF")).collect();
        lines.iter().any(|line| line == "replog_connections{port=\"wire\"} 3").then_some(())
    });
    let cli = |args: &[&str]| run_to_end(replog_cli(["--server", &server].iter().chain(args)), b"");
    let refused = || cli(&["ping"]).code != Some(0);
    assert!(refused());
    // But whoever only looks is let in, as often as he likes.
    for verb in ["status", "health", "metrics", "digest"] {
        cli(&[verb]).expect_code(0);
    }
    let _silent = idle(addr, 200, b"");
    cluster.restart_master();
    assert_eq!(cluster.wait_mode("normal").find("s1"), Some("healthy"));
    cluster.client().ok("APPEND w=2 all is well");
    drop(tails);
    wait_until("places for clients again", || (!refused()).then_some(()));
}

#[test]
fn an_operator_sees_a_node_that_has_no_place_for_clients() {
    let cluster = Cluster::of(0).set("limits.connections_max", "2").start();
    let mut clients = Vec::new();
    wait_until("all places of the gateway to be taken", || {
        clients.push(cluster.client());
        let last = clients.last_mut()?;
        last.send("PING");
        (last.line_or_end()? != b"PONG").then_some(())
    });
    let mut operator = cluster.client();
    operator.send("STATUS");
    assert!(operator.line().starts_with("node id=master "));
    assert_eq!(operator.line(), "END");
    operator.assert_closed();
    // Several at once, and nothing else.
    let mut operator = cluster.client();
    operator.send_bytes(b"HEALTH\nDIGEST\nAPPEND not this\nSTATUS\n");
    assert!(operator.line().starts_with("OK mode=normal "));
    assert!(operator.line().starts_with("OK seq=0 "));
    operator.assert_closed();
    let mut client = cluster.client();
    client.send("APPEND nor this");
    let reply = client.line();
    assert!(reply.starts_with("REJECTED busy connections=2 - "), "{reply}");
    clients.truncate(1);
    wait_until("a place", || {
        let mut client = cluster.client();
        client.send("LIST");
        (client.line_or_end()? == b"END count=0 first=- last=- commit=0 level=local").then_some(())
    });
}

#[test]
fn lines_that_nobody_finishes_cost_bounded_memory_and_are_cut_off_in_time() {
    const CLIENTS: usize = 200;
    const MIB: usize = 1 << 20;
    let cluster = Cluster::of(0)
        .set("limits.write_timeout", "1s")
        .set("limits.payload_max", "512KiB")
        .start();
    let before = cluster.master.process.resident_bytes();
    let addr = cluster.master.ready.gateway;
    let line = [&b"APPEND "[..], &vec![b'x'; MIB / 2]].concat();
    let mut crowd = idle(addr, CLIENTS, b"");
    for stream in &mut crowd {
        stream.set_nonblocking(true).unwrap();
    }
    // All send as much as is taken of them, side by side, and none ends its line.
    let mut sent = vec![0; CLIENTS];
    let (mut most, mut quiet_since) = (0, Instant::now());
    while quiet_since.elapsed() < Duration::from_millis(500) {
        for (stream, sent) in crowd.iter_mut().zip(&mut sent) {
            if let Ok(count @ 1..) = stream.write(&line[*sent..]) {
                *sent += count;
                quiet_since = Instant::now();
            }
        }
        most = most.max(cluster.master.process.resident_bytes());
    }
    let grown = usize::try_from(most.saturating_sub(before)).unwrap();
    assert!(grown <= 96 * MIB, "{} MiB more than before", grown / MIB);
    cluster.master.process.wait_for_log_line(&["WARN", "clients wait to send long requests"]);
    let mut client = cluster.client();
    client.ok("APPEND a short line needs no room");
    // A long one gets its turn although nobody before it ever finishes.
    client.ok(&format!("APPEND {}", "y".repeat(MIB / 2)));
    cluster.master.process.wait_for_log_line(&["did not finish its line"]);
    drop(crowd);
    // Alone, whoever is slow has the time that his bytes may take, but not for ever.
    let mut slow = cluster.client();
    slow.send_bytes(&line);
    assert!(slow.line().starts_with("REJECTED busy seconds=9 - "));
    slow.assert_closed();
    assert_eq!(client.list("").entries.len(), 2);
}
