//! Promises of the text gateway that need to be tried word by word: verbs, options, lines, codes,
//! escapes (interface 2). `INTERFACE.md` maps every promise to its test.

mod common;

use common::{Cluster, Fields, Gateway, replog_cli, run_to_end, wait_until};
use replog::codes::{Class, Code};

/// The words of the interface, in its order.
const REJECTED: [&str; 15] = [
    "read-only",
    "bad-write-concern",
    "too-large",
    "mismatch",
    "duplicate-mismatch",
    "producer-gap",
    "producer-fenced",
    "unknown-producer",
    "aborted",
    "disk-full",
    "busy",
    "not-master",
    "recovering",
    "damaged",
    "stopping",
];

/// As [`REJECTED`].
const ERR: [&str; 12] = [
    "unknown-verb",
    "bad-option",
    "bad-value",
    "too-long",
    "not-http",
    "not-found",
    "not-ready",
    "unreadable",
    "denied",
    "conflict",
    "master-only",
    "secondary-only",
];

#[test]
fn every_code_has_the_class_that_the_interface_lists_it_under() {
    let words = |class| {
        let codes = Code::ALL.iter().filter(|code| code.class() == class);
        codes.map(|code| code.word()).collect::<Vec<_>>()
    };
    assert_eq!(words(Class::Rejected), REJECTED);
    assert_eq!(words(Class::Err), ERR);
    assert_eq!(Code::ALL.len(), REJECTED.len() + ERR.len(), "no code has another class");
}

/// Upper case, lower case and a mixture mean the same, for every verb there is.
#[test]
fn every_verb_is_understood_in_any_case() {
    const COMMANDS: [(&str, &str); 17] = [
        ("PING a B", "PONG a B"),
        ("HELP ping", "PING [text]"),
        ("APPEND x", "REJECTED not-master "),
        ("LIST", "END count=0 "),
        ("GET 1", "ERR not-found "),
        ("WAIT 1", "ERR master-only "),
        ("STATUS", "node id=s1 "),
        ("HEALTH", "OK mode="),
        ("WAITERS", "ERR master-only "),
        ("METRICS", "# "),
        ("DIGEST", "OK seq=0 "),
        ("DELAY off", "OK"),
        ("FAIL off", "OK"),
        ("MUTE off", "OK"),
        ("STORE 7 x", "OK seq=7 "),
        ("TAIL", "# next="),
        ("QUIT", "OK"),
    ];
    let node = Cluster::lone_secondary();
    for (command, begins) in COMMANDS {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let mixed: String = verb
            .char_indices()
            .map(|(at, c)| if at % 2 == 0 { c.to_ascii_lowercase() } else { c })
            .collect();
        for verb in [verb.to_owned(), verb.to_lowercase(), mixed] {
            let mut client = Gateway::connect(node.ready.gateway);
            let line = format!("{verb} {rest}");
            let reply = client.cmd(line.trim_end());
            assert!(reply.starts_with(begins), "{line}: {reply}");
        }
    }
}

/// Whoever sends one twice cannot know which is meant.
#[test]
fn an_option_given_twice_is_refused_for_every_verb_that_has_options() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    client.ok("APPEND x");
    for command in [
        "APPEND w=1 w=1 y",
        "APPEND ack=stored ack=received y",
        "APPEND timeout=1s w=1 timeout=1s y",
        "LIST from=1 from=1",
        "LIST limit=1 limit=2",
        "LIST level=local from=1 level=all",
        "TAIL from=1 from=1",
        "TAIL last=1 last=1",
        "TAIL from=1 last=1",
        "TAIL level=all level=all",
        "WAIT 1 w=1 w=1",
        "WAIT 1 ack=stored ack=stored",
        "WAIT 1 timeout=0 timeout=1",
    ] {
        client.refused(command, "ERR bad-option");
    }
    assert_eq!(client.list("").payloads(), ["x"]);
}

/// Only APPEND and PING take the rest of the line as it is; elsewhere a word too many is an error
/// and never ignored.
#[test]
fn a_word_that_a_verb_does_not_know_is_refused() {
    let node = Cluster::lone_secondary();
    let mut client = Gateway::connect(node.ready.gateway);
    for command in [
        "LIST w=1",
        "LIST 1",
        "GET 1 2",
        "TAIL now",
        "STATUS all",
        "HEALTH s1",
        "WAITERS 1",
        "METRICS all",
        "DIGEST 1 2",
        "QUIT now",
        "HELP get put",
        "DELAY 1s 2s",
        "DELAY off now",
        "FAIL after count=1 p=0.5",
        "FAIL after n=1",
        "MUTE 1s 2s",
    ] {
        client.refused(command, "ERR bad-option");
    }
    assert_eq!(client.cmd("PING"), "PONG");
}

/// In refusals and in STATUS alike.
#[test]
fn a_value_with_spaces_stands_in_double_quotes() {
    let cluster = Cluster::of(1).absent("s1").launch();
    let mut client = cluster.client();
    let refused = client.refused("TAIL from=1 last=1", "ERR bad-option");
    assert!(refused.line().contains(r#" option="from or last" - "#), "{}", refused.line());
    let line = wait_until("a failed attempt to connect in STATUS", || {
        let status = client.status();
        let s1 = status.secondary("s1");
        (s1.get("error") != "-").then(|| s1.line().to_owned())
    });
    let (_, error) = line.split_once(" error=").expect("it was there");
    let inner = error.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inner = inner.unwrap_or_else(|| panic!("no quotes around {error}"));
    assert!(inner.contains(' ') && !inner.contains('"'), "{line}");
}

/// 00–1F, 7F and the backslash, each as the interface writes it; LIST and GET show the same. A line
/// feed cannot come in by the gateway, so that one is appended by replog-cli.
#[test]
fn each_byte_that_is_escaped_is_written_as_promised() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    let special = (0..0x20).chain([0x7f, b'\\']).filter(|&byte| byte != b'\n');
    let payload: Vec<u8> = special.chain(*b".").collect();
    client.send_bytes(&[b"APPEND -- ", payload.as_slice(), b"\n"].concat());
    client.line();
    let shown = r"\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\\.";
    let server = cluster.master.ready.wire.to_string();
    run_to_end(replog_cli(["--server", &server, "append", "two\nlines\r\n"]), b"").expect_code(0);
    let lines = r"two\nlines\r\n";
    assert_eq!(client.list("").payloads(), [shown, lines]);
    assert_eq!(client.ok("GET 1").get("payload"), shown);
    let got = client.ok("GET 2");
    assert_eq!((got.get("bytes"), got.get("payload")), ("11", lines));
}

/// The line end, LF or CRLF, is no part of the line; where the network cuts must not matter.
#[test]
fn a_line_may_be_exactly_as_long_as_its_limit_with_either_line_end() {
    const LINE_MAX: usize = 1 + 4 * 1024;
    let cluster = Cluster::of(0).set("limits.payload_max", "1").start();
    let text = "x".repeat(LINE_MAX - "PING ".len());
    let line = format!("PING {text}");
    let mut between = cluster.client();
    for (first, second) in [("\n", ""), ("\r\n", ""), ("", "\n"), ("", "\r\n")] {
        let mut client = cluster.client();
        client.send_bytes(format!("{line}{first}").as_bytes());
        // A round trip of another connection gives the node time to read the first part alone.
        assert_eq!(between.cmd("PING"), "PONG");
        client.send_bytes(second.as_bytes());
        assert_eq!(client.line(), format!("PONG {text}"), "{first:?} then {second:?}");
        assert_eq!(client.cmd("PING"), "PONG");
    }
    for end in ["\n", "\r\n"] {
        let mut client = cluster.client();
        client.send_bytes(format!("{line}x{end}").as_bytes());
        let reply = client.line();
        assert!(reply.starts_with("ERR too-long "), "{reply}");
        client.assert_closed();
    }
}

/// The CR of a line end may arrive before its LF: it must not count as one byte too many.
#[test]
fn a_line_of_full_length_may_be_cut_between_cr_and_lf() {
    const LINE_MAX: usize = 1 + 4 * 1024;
    let cluster = Cluster::of(0).set("limits.payload_max", "1").start();
    let text = "x".repeat(LINE_MAX - "PING ".len());
    let mut client = cluster.client();
    client.send_bytes(format!("PING {text}\r").as_bytes());
    let mut between = cluster.client();
    for _ in 0..20 {
        assert_eq!(between.cmd("PING"), "PONG");
    }
    client.send_bytes(b"\n");
    assert_eq!(client.line(), format!("PONG {text}"));
}

/// HTTP and TLS are told on every node, whatever ends the line.
#[test]
fn http_and_tls_are_told_and_closed_on_a_secondary_too() {
    let node = Cluster::lone_secondary();
    for hello in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
        b"GET / HTTP/1.0\n",
        b"HEAD /status HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut client = Gateway::connect(node.ready.gateway);
        client.send_bytes(hello);
        let reply = client.line();
        assert!(reply.starts_with("ERR not-http - "), "{reply}");
        client.assert_closed();
    }
}

/// WAIT starts when it is read, like APPEND; what is sent behind QUIT is not carried out.
#[test]
fn a_wait_starts_at_once_and_quit_takes_its_turn() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    client.send_bytes(b"APPEND w=3 waits\nWAIT 1 w=3\nQUIT\nAPPEND w=1 behind\n");
    let mut other = cluster.client();
    wait_until("the append and the wait behind it", || {
        (other.status().node.get("waiting") == "2").then_some(())
    });
    client.assert_still_waiting();
    cluster.start("s2");
    let ok = "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2";
    assert_eq!(client.line(), ok);
    assert_eq!(client.line(), ok);
    assert_eq!(client.line(), "OK");
    client.assert_closed();
    assert_eq!(other.list("").payloads(), ["waits"]);
}

/// Syntax, size and w are judged before the mode, in mode recovering as in any other.
#[test]
fn the_checks_of_a_recovering_master_come_in_the_stated_order() {
    let cluster = Cluster::of(2).absent("s1").absent("s2").launch();
    let mut client = cluster.client();
    let too_large = "x".repeat(1024 * 1024 + 1);
    for (options, wanted) in [
        ("ack=maybe w=9", "ERR bad-value"),
        ("w=9 w=9", "ERR bad-option"),
        ("w=9", "REJECTED too-large"),
        ("", "REJECTED too-large"),
    ] {
        client.refused(&format!("APPEND {options} {too_large}"), wanted);
    }
    client.refused("APPEND timeout=soon x", "ERR bad-value");
    client.refused("APPEND w=9 x", "REJECTED bad-write-concern");
    client.refused("APPEND w=0 x", "REJECTED bad-write-concern");
    client.refused("APPEND w=1 x", "REJECTED recovering");
}

/// Reads, and all that only tells of the node itself, are answered in mode recovering.
#[test]
fn a_recovering_master_answers_everything_but_appends() {
    let cluster = Cluster::of(2).absent("s1").absent("s2").launch();
    let mut client = cluster.client();
    let health = "OK mode=recovering present=1 need=2 s1=unhealthy s2=unhealthy";
    assert_eq!(client.cmd("HEALTH"), health);
    assert_eq!(client.list("").end.number("count"), 0);
    client.refused("GET 1", "ERR not-found");
    client.refused("WAIT 1", "ERR not-found");
    assert_eq!(client.ok("DIGEST").number("seq"), 0);
    assert_eq!(client.cmd("PING"), "PONG");
    client.send("WAITERS");
    assert_eq!(client.line(), "END count=0");
}

/// Besides APPEND and WAIT, and WAITERS, everything is answered from what the secondary holds.
#[test]
fn a_secondary_answers_everything_but_what_only_the_master_can() {
    let cluster = Cluster::of(1).start();
    cluster.client().ok("APPEND held");
    let mut client = cluster.client_of("s1");
    client.refused("APPEND x", "REJECTED not-master");
    for line in ["WAIT 1", "WAIT 99 w=1 timeout=0", "WAITERS"] {
        let refused = client.refused(line, "ERR master-only");
        assert_eq!(refused.get("master"), cluster.master.ready.wire.to_string(), "{line}");
    }
    assert_eq!(client.list("").payloads(), ["held"]);
    let got = client.ok("GET 1");
    assert_eq!(got.get("payload"), "held");
    assert_eq!(got.get("by"), "-", "only the master knows who holds it");
    client.send("TAIL from=1 level=local");
    assert_eq!(client.tail_entry(), (1, "held".to_owned()));
    client.send("DIGEST");
    let (_, end) = client.lines_until_end();
    assert_eq!(end.number("count"), 1);
    let digest = Fields::of(&client.line());
    assert_eq!((digest.class(), digest.number("seq")), ("OK", 1));
    assert_eq!(client.status().node.get("role"), "secondary");
    client.ok("HEALTH");
    client.send("METRICS");
    wait_until("the end of METRICS", || (client.line() == "# EOF").then_some(()));
    client.send("HELP");
    client.lines_until_end();
    assert_eq!(client.cmd("QUIT"), "OK");
    client.assert_closed();
}

/// The fault verbs belong to a secondary, even if the master was started with `--faults`.
#[test]
fn fault_verbs_are_not_for_the_master() {
    let cluster = Cluster::of(0).master_flags(&["--faults"]).start();
    let mut client = cluster.client();
    for command in ["DELAY 1s", "DELAY off", "FAIL after", "MUTE 1s", "STORE 1 x"] {
        client.refused(command, "ERR secondary-only");
    }
    client.ok("APPEND x");
}

/// The wire address that a secondary tells is the one its master wants to be told.
#[test]
fn a_secondary_tells_the_advertised_address_of_its_master() {
    let advertised = "node.advertise=master.example:9000";
    let cluster = Cluster::of(1).master_flags(&["--set", advertised]).start();
    let mut client = cluster.client_of("s1");
    assert_eq!(
        client.cmd("APPEND x"),
        "REJECTED not-master master=master.example:9000 - appends go to the master"
    );
    assert_eq!(client.status().master().get("addr"), "master.example:9000");
    assert_eq!(client.ok("HEALTH").get("master"), "master.example:9000");
}

/// HELP ends with END whatever it is asked, and a verb it does not know is named as such.
#[test]
fn help_explains_every_verb_one_by_one() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    for verb in [
        "PING", "HELP", "QUIT", "APPEND", "LIST", "GET", "TAIL", "WAIT", "STATUS", "HEALTH",
        "WAITERS", "METRICS", "DIGEST", "DELAY", "FAIL", "MUTE", "STORE",
    ] {
        client.send(&format!("HELP {verb}"));
        let (lines, _) = client.lines_until_end();
        assert!(lines[0].starts_with(verb) && lines.len() > 1, "{verb}: {lines:?}");
    }
    client.refused("HELP frobnicate", "ERR unknown-verb");
}
