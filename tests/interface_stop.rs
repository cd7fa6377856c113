//! How nodes end: stopped on request, unable to start, deposed; what their clients hear and what
//! the exit code is (interface 1). `INTERFACE.md` maps every promise to its test.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use common::{
    Cluster, Finished, Gateway, Process, READ_TIMEOUT, loopback, replog, run_to_end, wait_until,
};
use replog::wire::codec::{HeartbeatAck, Hello, Refuse, Role};
use replog::wire::{FrameDecoder, Message};

const MIB: usize = 1024 * 1024;

/// Runs `replog` with flags that are expected to end it: one line on stderr, nothing on stdout.
#[track_caller]
fn run_to_one_line(args: &[&str], code: i32) -> String {
    let done: Finished = run_to_end(replog(args), b"").expect_code(code);
    assert_eq!(done.text(), "");
    assert_eq!(done.stderr.lines().count(), 1, "one line: {}", done.stderr);
    done.stderr
}

/// What waits is in the log and answered PENDING. What was sent but not begun is refused, and is in
/// no log. The node ends with 0.
#[test]
fn a_stopping_master_answers_what_waits_and_refuses_what_is_new() {
    let mut cluster = Cluster::of(2).absent("s2").set("limits.waiting_max", "2").start();
    let mut client = cluster.client();
    // Two wait; the other lines are in the node's hands, but not begun.
    client.send_bytes(b"APPEND w=3 a\nAPPEND w=3 b\nAPPEND w=1 c\nAPPEND w=3 d\nPING\n");
    let (mut other, mut s1) = (cluster.client(), cluster.client_of("s1"));
    wait_until("two appends to wait", || (other.status().node.get("waiting") == "2").then_some(()));
    wait_until("both to be on s1", || (s1.list("").payloads() == ["a", "b"]).then_some(()));
    cluster.master.process.signal("TERM");
    for seq in [1, 2] {
        let pending = format!("PENDING seq={seq} epoch=1 have=2/3 need=3 by=master,s1 missing=s2");
        assert_eq!(client.line(), pending);
    }
    for _ in 0..2 {
        let refused = client.line();
        assert!(refused.starts_with("REJECTED stopping - "), "{refused}");
    }
    assert_eq!(client.line(), "PONG");
    client.assert_closed();
    assert_eq!(cluster.master.process.wait_exit(), Some(0));
    assert_eq!(s1.list("").payloads(), ["a", "b"], "what was refused is nowhere");
}

/// A client that takes nothing, one that sends half a line, and one that tails do not keep a node
/// from stopping within 5 s: its timeout for them is far longer than this test may take, and the one
/// that it has for stopping is below the promise.
#[test]
fn clients_that_do_not_move_do_not_keep_a_node_from_stopping() {
    assert!(replog::limits::STOP_TIMEOUT < Duration::from_secs(5));
    for signal in ["TERM", "INT"] {
        let mut cluster = Cluster::of(1).set("limits.write_timeout", "1000s").start();
        let mut client = cluster.client();
        let payload = "\x01".repeat(MIB);
        for _ in 0..4 {
            client.ok(&format!("APPEND {payload}"));
        }
        let mut idle = cluster.clients();
        for client in &mut idle {
            client.send("LIST");
            client.send("LIST");
        }
        let mut half = cluster.client();
        half.send_bytes(b"APPEND ha");
        let mut tail = cluster.client();
        tail.send("TAIL");
        tail.line();
        cluster.master.process.signal(signal);
        assert_eq!(cluster.master.process.wait_exit(), Some(0), "master, {signal}");
        let mut secondary = Cluster::lone_secondary();
        let mut tail = Gateway::connect(secondary.ready.gateway);
        tail.send("TAIL");
        tail.line();
        secondary.process.signal(signal);
        assert_eq!(secondary.process.wait_exit(), Some(0), "secondary, {signal}");
    }
}

/// SIGINT, as from Ctrl-C, ends the whole cluster of `replog dev`, with 0.
#[test]
fn an_interrupt_ends_a_whole_dev_cluster_with_0() {
    let ports = ["dev", "--gateway-port", "0", "--wire-port", "0"];
    let mut dev = Process::spawn("dev", replog(ports));
    dev.wait_for_log_line(&["ready cluster nodes=3 mode=normal"]);
    dev.signal("INT");
    assert_eq!(dev.wait_exit(), Some(0));
}

/// One line says which port, which key, and what to do.
#[test]
fn a_taken_port_is_one_clear_line_and_exit_code_1() {
    let listener = TcpListener::bind((loopback(), 0)).expect("a free port");
    let taken = listener.local_addr().expect("a bound socket has an address").to_string();
    let any = format!("{}:0", loopback());
    for role in ["master", "secondary"] {
        for (wire, gateway, key, flag) in
            [(&taken, &any, "node.listen", "--listen"), (&any, &taken, "node.gateway", "--gateway")]
        {
            let line = run_to_one_line(&[role, "--listen", wire, "--gateway", gateway], 1);
            for part in [&taken, key, flag] {
                assert!(line.contains(part), "{part}: {line}");
            }
        }
    }
}

/// A whole cluster needs all its ports; the line says whose is taken.
#[test]
fn a_taken_port_ends_dev_with_1_too() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let taken = listener.local_addr().expect("a bound socket has an address").port().to_string();
    let flags = ["dev", "--secondaries", "0", "--gateway-port", taken.as_str(), "--wire-port", "0"];
    let line = run_to_one_line(&flags, 1);
    assert!(line.contains("master") && line.contains(&taken), "{line}");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_one_clear_line_and_exit_code_1() {
    let line = run_to_one_line(&["master", "--log-file", "/no/such/directory/node.log"], 1);
    for part in ["log.file", "/no/such/directory/node.log", "--log-file"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// There is no authentication yet: an address beyond this machine has to be asked for.
#[test]
fn an_address_beyond_this_machine_needs_insecure() {
    let any = format!("{}:0", loopback());
    for (key, wire, gateway) in
        [("node.listen", "0.0.0.0:0", any.as_str()), ("node.gateway", any.as_str(), "0.0.0.0:0")]
    {
        let flags = ["secondary", "--listen", wire, "--gateway", gateway];
        let line = run_to_one_line(&flags, 2);
        assert!(line.contains(key) && line.contains("--insecure"), "{line}");
        let process = Process::spawn("s1", replog(flags.iter().chain(&["--insecure"])));
        let ready = process.wait_ready();
        assert!([ready.wire, ready.gateway].iter().any(|addr| addr.ip().is_unspecified()));
    }
}

/// `--bootstrap` begins a log without waiting for anybody; without a quorum it is read-only then.
#[test]
fn bootstrap_begins_a_log_although_nobody_answers() {
    let cluster = Cluster::of(2).absent("s1").absent("s2").master_flags(&["--bootstrap"]).launch();
    let health = cluster.wait_mode("read-only");
    assert_eq!(health.line(), "OK mode=read-only present=1 need=2 s1=unhealthy s2=unhealthy");
    let status = cluster.client().status();
    assert_ne!(status.node.get("log_id"), "-");
    assert_eq!(status.node.get("awaiting"), "-");
}

/// A master that hears of a promise to another one tells its waiting clients that nobody knows, and
/// ends with 1 and one line that names the epoch and who said so.
#[test]
fn a_deposed_master_ends_with_1_and_names_epoch_and_node() {
    let listener = TcpListener::bind((loopback(), 0)).expect("a port is free");
    let roster = format!("s1={}", listener.local_addr().expect("it is bound"));
    let any = format!("{}:0", loopback());
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.log");
    let flags = ["master", "--memory", "--listen", &any, "--gateway", &any, "--secondary", &roster];
    let mut command = replog(flags);
    command.args(["--log-format", "json", "--log-file"]).arg(&file);
    let mut master = Process::spawn("master", command);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // The master closes when it is deposed.
            let _ = depose_with_the_first_append(&stream);
        }
    });
    let mut client = Gateway::connect(master.wait_ready().gateway);
    wait_until("the master accepts appends", || {
        (client.ask("HEALTH").get("mode") == "normal").then_some(())
    });
    let unknown = client.cmd("APPEND w=2 whose fate is open");
    assert!(unknown.starts_with("UNKNOWN seq=1 epoch=1 have=1/2 need=2 by=master - "), "{unknown}");
    assert_eq!(master.wait_exit(), Some(1));
    let line = master.wait_for_log_line(&["replog: deposed", "s1", "epoch 9"]);
    let text = std::fs::read_to_string(&file).expect("it is text");
    let last = text.lines().last().expect("a last line");
    for last in [last, &line] {
        let word: serde_json::Value = serde_json::from_str(last).expect("a line of JSON");
        assert_eq!((word["level"].as_str(), word["exit_code"].as_i64()), (Some("ERROR"), Some(1)));
        let message = word["message"].as_str().expect("a message");
        assert!(message.contains("deposed"), "the reason is the last word: {last}");
    }
}

/// Plays a secondary that follows, up to the first APPEND: then it has promised epoch 9 to another.
fn depose_with_the_first_append(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let decoder = FrameDecoder { body_bytes_max: MIB };
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(frame) = decoder.decode(&mut buffer).expect("a master sends good frames") {
            let message = Message::decode(frame).expect("a good body").expect("a known type");
            let answer = match message {
                Message::Hello(master) => {
                    let leads = master.epoch > 0;
                    Message::Hello(Hello {
                        role: Role::Secondary,
                        node_id: "s1".to_owned(),
                        log_id: master.log_id.filter(|_| leads),
                        epoch_table: vec![],
                        stored: 0,
                        tail_epoch: 0,
                        tail_digest: 0,
                        settled: 0,
                        roster: vec![],
                        ..master
                    })
                }
                Message::Heartbeat(beat) => {
                    Message::HeartbeatAck(HeartbeatAck { epoch: beat.epoch, number: beat.number })
                }
                _ => Message::Refuse(Refuse {
                    code: replog::codes::RefuseCode::StaleEpoch.number(),
                    epoch: 9,
                    reason: "epoch 9 was promised".to_owned(),
                }),
            };
            stream.write_all(&answer.encode().to_bytes())?;
        }
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..count]);
    }
}
