//! The text gateway: lines, verbs, order, ends of input and limits (interface 2, 2.1).

mod common;

use std::io::Write;
use std::thread;

use common::{Cluster, Gateway, Noise, escaped, wait_until};

const MIB: usize = 1024 * 1024;

/// A line may be this much longer than the largest payload.
const LINE_SLACK: usize = 4 * 1024;

#[test]
fn ping_answers_pong_with_the_text_and_there_is_no_banner() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    assert_eq!(client.cmd("PING"), "PONG");
    assert_eq!(client.cmd("PING hello world"), "PONG hello world");
}

#[test]
fn verbs_are_case_insensitive() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    assert_eq!(client.cmd("ping a"), "PONG a");
    assert_eq!(client.cmd("PiNg a"), "PONG a");
    assert_eq!(client.cmd("append A b"), "OK seq=1 epoch=1 have=1/1 need=1 by=master");
    assert_eq!(client.list("").entries, [(1, "A b".to_owned())]);
}

#[test]
fn help_names_every_verb_and_ends() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    client.send("HELP");
    let (lines, _) = client.lines_until_end();
    let help = lines.join("\n");
    for verb in [
        "PING", "HELP", "QUIT", "APPEND", "LIST", "GET", "TAIL", "WAIT", "STATUS", "HEALTH",
        "DIGEST",
    ] {
        assert!(help.contains(verb), "{verb} is missing in: {help}");
    }
    client.send("HELP append");
    let (lines, _) = client.lines_until_end();
    let help = lines.join("\n");
    for option in ["w=", "ack=", "timeout="] {
        assert!(help.contains(option), "{option} is missing in: {help}");
    }
}

#[test]
fn quit_answers_ok_and_closes() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    assert_eq!(client.cmd("QUIT"), "OK");
    client.assert_closed();
}

#[test]
fn lines_end_in_lf_or_crlf_and_blank_ones_are_ignored() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    client.send_bytes(b"\n\r\n\nPING 1\r\nPING 2\n\r\nAPPEND text\r\nAPPEND te\rxt\n");
    assert_eq!(client.line(), "PONG 1");
    assert_eq!(client.line(), "PONG 2");
    client.line();
    client.line();
    assert_eq!(client.list("").payloads(), ["text", "te\\rxt"]);
}

#[test]
fn an_unknown_verb_is_an_error_and_the_connection_lives() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    client.refused("FROBNICATE 1 2", "ERR unknown-verb");
    client.refused("APPENDIX", "ERR unknown-verb");
    assert_eq!(client.cmd("PING"), "PONG");
}

/// Commands may be pipelined; APPEND, then LIST on one connection sees the entry (and perhaps later
/// ones: appends start at once).
#[test]
fn replies_come_in_the_order_of_the_commands() {
    const ROUNDS: usize = 200;
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    let mut commands = String::new();
    for round in 1..=ROUNDS {
        commands.push_str(&format!(
            "PING a{round}\nAPPEND round {round}\nLIST from={round} limit=1\nBOGUS\nPING b{round}\n"
        ));
    }
    // A thread of its own sends, so that neither side has to wait for the other's buffers.
    let mut stream = client.stream().try_clone().expect("a socket can be cloned");
    thread::scope(|scope| {
        scope.spawn(move || {
            stream.write_all(commands.as_bytes()).expect("it is taken");
        });
        for round in 1..=ROUNDS {
            assert_eq!(client.line(), format!("PONG a{round}"));
            let ok = format!("OK seq={round} epoch=1 have=1/1 need=1 by=master");
            assert_eq!(client.line(), ok);
            assert_eq!(client.line(), format!("{round} round {round}"));
            assert!(client.line().starts_with("END count=1 "));
            assert!(client.line().starts_with("ERR unknown-verb "));
            assert_eq!(client.line(), format!("PONG b{round}"));
        }
    });
}

/// Where the network cuts a stream of commands in two must make no difference.
#[test]
fn input_split_at_every_byte_gives_the_same_replies() {
    const COMMANDS: &[u8] = b"ping a b\r\n\nAPPEND w=1 --  two\nappend -- w=1\r\nBOGUS\nQUIT\n";
    let cluster = Cluster::of(0).start();
    let mut between = cluster.client();
    let mut next = 1;
    for split in 1..COMMANDS.len() {
        let mut client = cluster.client();
        client.send_bytes(&COMMANDS[..split]);
        // A round trip of another connection gives the node time to read the first part alone.
        assert_eq!(between.cmd("PING"), "PONG");
        client.send_bytes(&COMMANDS[split..]);
        let at = format!("split at {split}");
        assert_eq!(client.line(), "PONG a b", "{at}");
        for seq in [next, next + 1] {
            let ok = format!("OK seq={seq} epoch=1 have=1/1 need=1 by=master");
            assert_eq!(client.line(), ok, "{at}");
        }
        assert!(client.line().starts_with("ERR unknown-verb "), "{at}");
        assert_eq!(client.line(), "OK", "{at}");
        client.assert_closed();
        next += 2;
    }
    for (seq, payload) in between.list("").entries {
        assert_eq!(payload, if seq % 2 == 1 { " two" } else { "w=1" }, "entry {seq}");
    }
}

#[test]
fn commands_received_before_the_end_of_input_are_answered() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    client.send_bytes(b"APPEND a\nPING 1\nLIST limit=1\nAPPEND b\n");
    client.half_close();
    assert!(client.line().starts_with("OK seq=1 "));
    assert_eq!(client.line(), "PONG 1");
    assert_eq!(client.line(), "1 a");
    assert!(client.line().starts_with("END count=1 "));
    assert!(client.line().starts_with("OK seq=2 "));
    client.assert_closed();
}

/// An append that waits is answered too, although its client sends nothing more.
#[test]
fn a_waiting_append_is_answered_after_the_end_of_input() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    client.send("APPEND w=3 late");
    client.half_close();
    cluster.start("s2");
    assert_eq!(client.line(), "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2");
    client.assert_closed();
}

#[test]
fn what_has_no_line_end_when_the_client_closes_is_never_carried_out() {
    let cluster = Cluster::of(0).start();
    let mut half = cluster.client();
    half.send_bytes(b"APPEND whole\nAPPEND ha");
    half.half_close();
    assert!(half.line().starts_with("OK seq=1 "));
    half.assert_closed();
    let mut gone = cluster.client();
    gone.send_bytes(b"APPEND half");
    drop(gone);
    let mut client = cluster.client();
    client.ok("APPEND next");
    assert_eq!(client.list("").payloads(), ["whole", "next"]);
}

/// Control bytes and the backslash are escaped; everything else, UTF-8 included, is printed as it
/// is. LIST, GET and TAIL show the same.
#[test]
fn payloads_are_escaped_in_output_only() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    client.send_bytes(b"APPEND tab\there \\n \\\x00\x01\x1f\x7f\x80\xff Z\xc3\xbcrich \r.\n");
    client.line();
    let shown: &[u8] = b"tab\\there \\\\n \\\\\\x00\\x01\\x1f\\x7f\x80\xff Z\xc3\xbcrich \\r.";
    client.send("LIST");
    assert_eq!(client.line_bytes(), [b"1 ", shown].concat());
    client.line();
    client.send("GET 1");
    let got = client.line_bytes();
    assert!(got.ends_with(&[b" payload=", shown].concat()), "{}", got.escape_ascii());
    client.send("TAIL from=1");
    assert_eq!(client.line_bytes(), [b"1 ", shown].concat());
}

#[test]
fn a_payload_may_hold_every_byte_but_the_line_feed() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    let payload: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
    client.send_bytes(&[b"APPEND -- ", payload.as_slice(), b"\n"].concat());
    assert!(client.line().starts_with("OK seq=1 "));
    client.send("LIST");
    assert_eq!(client.line_bytes(), [b"1 ".to_vec(), escaped(&payload)].concat());
    let end = client.line();
    assert!(end.starts_with("END count=1 "), "{end}");
    assert!(client.cmd("GET 1").contains(" bytes=255 "));
}

#[test]
fn a_web_browser_is_told_and_closed() {
    let cluster = Cluster::of(0).start();
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /append HTTP/1.0\r\n\r\n",
        "APPEND x HTTP/1.1\n",
    ] {
        let mut client = cluster.client();
        client.send_bytes(request.as_bytes());
        let reply = client.line();
        assert!(reply.starts_with("ERR not-http "), "{reply}");
        client.assert_closed();
    }
    assert_eq!(cluster.client().list("").entries, []);
}

#[test]
fn only_the_first_line_is_taken_for_http() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    assert_eq!(client.cmd("PING"), "PONG");
    client.ok("APPEND see HTTP/1.1");
    assert_eq!(client.list("").payloads(), ["see HTTP/1.1"]);
}

#[test]
fn a_tls_hello_is_told_and_closed() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    // Record header, handshake header, version; then the rest of a hello, which always holds the
    // byte 0a (the number of the extension that lists the groups).
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.extend(Noise::seeded(1).payload(200));
    hello.extend([0, 10, 0, 4, 0, 2, 0, 29]);
    hello.resize(517, 0);
    client.send_bytes(&hello);
    let reply = client.line();
    assert!(reply.starts_with("ERR not-http "), "{reply}");
    client.assert_closed();
    assert_eq!(cluster.client().cmd("PING"), "PONG");
}

/// The answer arrives although the line goes on behind it; then the connection is closed.
#[test]
fn a_line_that_is_too_long_is_answered_and_closed() {
    let cluster = Cluster::of(0).start();
    for length in [MIB + LINE_SLACK + 10, 3 * MIB, 10 * MIB] {
        let mut client = cluster.client();
        let mut stream = client.stream().try_clone().expect("a socket can be cloned");
        let mut line = vec![b'x'; length];
        line[..7].copy_from_slice(b"APPEND ");
        line.push(b'\n');
        thread::scope(|scope| {
            scope.spawn(move || {
                stream.write_all(&line).expect("the rest is read");
            });
            let reply = client.line();
            assert!(reply.starts_with("ERR too-long "), "{length}: {reply}");
            client.assert_closed();
        });
    }
    assert_eq!(cluster.client().list("").entries, []);
}

/// The line's limit leaves room for a payload that is too large: that one is refused by itself.
#[test]
fn a_payload_that_is_too_large_in_a_line_that_is_not_is_rejected_and_the_connection_lives() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    for payload in [MIB + 1, MIB + LINE_SLACK - 10] {
        let line = format!("APPEND {}", "x".repeat(payload));
        client.refused(&line, "REJECTED too-large");
    }
    client.ok("APPEND fits");
    assert_eq!(client.list("").payloads(), ["fits"]);
}

/// `limits.payload_max` is the bound of the payload alone, not of the line.
#[test]
fn the_largest_payload_is_accepted_with_all_its_options() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    let payload = "x".repeat(MIB);
    client.ok(&format!("APPEND w=1 ack=stored timeout=60s -- {payload}"));
    assert_eq!(client.list("").payloads(), [payload.as_str()]);
}

#[test]
fn the_largest_payload_can_be_configured_and_the_longest_line_follows() {
    const PAYLOAD_MAX: usize = 64 * 1024;
    let cluster = Cluster::of(0).set("limits.payload_max", "64KiB").start();
    let mut client = cluster.client();
    client.ok(&format!("APPEND {}", "x".repeat(PAYLOAD_MAX)));
    client.refused(&format!("APPEND {}", "x".repeat(PAYLOAD_MAX + 1)), "REJECTED too-large");
    client.send(&format!("APPEND {}", "x".repeat(PAYLOAD_MAX + LINE_SLACK)));
    let reply = client.line();
    assert!(reply.starts_with("ERR too-long "), "{reply}");
    client.assert_closed();
    assert_eq!(cluster.client().list("").entries.len(), 1);
}

#[test]
fn appends_go_to_the_master_and_the_secondary_says_where_it_is() {
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client_of("s1");
    let reply = client.refused("APPEND x", "REJECTED not-master");
    assert_eq!(reply.get("master"), cluster.master.ready.wire.to_string());
    client.refused("WAIT 1", "ERR master-only");
    assert_eq!(cluster.client().list("").entries, []);
}

#[test]
fn a_secondary_before_first_contact_knows_no_master() {
    let node = Cluster::lone_secondary();
    let mut client = Gateway::connect(node.ready.gateway);
    assert_eq!(client.refused("APPEND x", "REJECTED not-master").get("master"), "-");
    let health = client.ok("HEALTH");
    assert_eq!(health.get("mode"), "normal");
    assert_eq!(health.get("connected"), "false");
}

#[test]
fn fault_verbs_are_denied_unless_they_were_allowed() {
    let cluster = Cluster::of(1).without_faults().start();
    let mut secondary = cluster.client_of("s1");
    for command in ["DELAY 1s", "DELAY every=1s", "FAIL after", "MUTE 1s", "STORE 1 x"] {
        secondary.refused(command, "ERR denied");
    }
    assert_eq!(secondary.list("").entries, []);
    let mut master = cluster.client();
    for command in ["DELAY 1s", "FAIL before", "MUTE 1s", "STORE 1 x"] {
        assert_eq!(master.ask(command).class(), "ERR");
    }
    master.ok("APPEND works");
}

/// Words of later versions are refused, never taken for payload.
#[test]
fn options_that_are_not_available_yet_are_refused() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    for command in ["APPEND id=p:1 x", "APPEND match=1 x", "APPEND mode=atomic x"] {
        let reply = client.refused(command, "ERR bad-option");
        assert!(reply.line().contains("not available yet"), "{}", reply.line());
    }
    assert_eq!(client.ask("OUTCOME p 1").class(), "ERR");
    client.ok("APPEND -- id=p:1 x");
    assert_eq!(client.list("").payloads(), ["id=p:1 x"]);
}

/// One connection more than `limits.connections_max` is told so, without having asked.
#[test]
fn a_connection_too_many_is_told_and_closed() {
    const CONNECTIONS_MAX: usize = 8;
    let cluster = Cluster::of(0).set("limits.connections_max", "8").start();
    let mut clients: Vec<Gateway> = Vec::new();
    wait_until("all places to be taken", || {
        clients.extend(let_in(&cluster));
        (clients.len() == CONNECTIONS_MAX).then_some(())
    });
    let mut one_more = cluster.client();
    let reply = one_more.line();
    assert!(reply.starts_with("REJECTED busy connections=8 - "), "{reply}");
    one_more.assert_closed();
    for client in &mut clients {
        assert_eq!(client.cmd("PING"), "PONG");
    }
    clients.pop();
    wait_until("the place that was left to be free", || let_in(&cluster));
}

/// A client, if there is a place for it.
fn let_in(cluster: &Cluster) -> Option<Gateway> {
    let mut client = cluster.client();
    // Fails when the node has closed already; then there is no answer either.
    let _ = client.stream().write_all(b"PING\n");
    (client.line_or_end()? == b"PONG").then_some(client)
}
