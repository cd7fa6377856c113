//! `replog-cli`: verbs, output and exit codes (interface 3).

mod common;

use std::io::Write;

use common::{
    Cluster, Finished, Process, loopback, real_looking_lines, replog_cli, reserve_addr, run_to_end,
    wait_until,
};

/// Runs `replog-cli` against the master of `cluster`.
#[track_caller]
fn cli(cluster: &Cluster, args: &[&str]) -> Finished {
    cli_with_input(cluster, args, b"")
}

#[track_caller]
fn cli_with_input(cluster: &Cluster, args: &[&str], input: &[u8]) -> Finished {
    cli_at(&cluster.master.ready.wire.to_string(), args, input)
}

#[track_caller]
fn cli_at(server: &str, args: &[&str], input: &[u8]) -> Finished {
    let mut command = replog_cli(["--server", server]);
    command.args(args);
    run_to_end(command, input)
}

#[test]
fn each_message_argument_is_an_entry_the_word_help_too() {
    let cluster = Cluster::of(1).start();
    cli(&cluster, &["append", "hello world", "help", "", "w=1", "two\nlines"]).expect_code(0);
    cli(&cluster, &["append", "help"]).expect_code(0);
    let list = cluster.wait_equal_lists();
    assert_eq!(list.payloads(), ["hello world", "help", "", "w=1", "two\\nlines", "help"]);
}

#[test]
fn append_prints_every_reply_line_on_stdout() {
    let cluster = Cluster::of(1).start();
    let done = cli(&cluster, &["append", "a", "b"]).expect_code(0);
    let ok = |seq| format!("OK seq={seq} epoch=1 have=2/2 need=2 by=master,s1");
    assert_eq!(done.lines(), [ok(1), ok(2)]);
    let done = cli(&cluster, &["append", "-w", "1", "--ack", "received", "c"]).expect_code(0);
    assert!(done.text().starts_with("OK seq=3 epoch=1 "), "{}", done.text());
    assert!(done.text().contains(" need=1 "), "{}", done.text());
}

/// One entry per line; only the line feed is taken off; an empty line is an entry; so is a last
/// line without its end.
#[test]
fn without_a_message_each_line_of_the_input_is_an_entry() {
    let cluster = Cluster::of(1).start();
    let done = cli_with_input(&cluster, &["append"], b"a\n\n  b \r\n\xff\x00\n-w 1").expect_code(0);
    assert_eq!(done.lines().len(), 5, "{}", done.text());
    cli_with_input(&cluster, &["append", "-w", "1", "-"], b"dash\n").expect_code(0);
    let raw = cli(&cluster, &["list", "--raw"]).expect_code(0);
    assert_eq!(raw.stdout, b"a\n\n  b \r\n\xff\x00\n-w 1\ndash\n");
    cli_with_input(&cluster, &["append"], b"").expect_code(0);
    assert_eq!(cluster.wait_equal_lists().entries.len(), 6);
}

#[test]
fn replies_to_the_lines_of_the_input_come_in_their_order() {
    const LINES: usize = 2000;
    let cluster = Cluster::of(1).start();
    let input: String = (1..=LINES).map(|number| format!("line {number}\n")).collect();
    let done = cli_with_input(&cluster, &["append", "-"], input.as_bytes()).expect_code(0);
    let lines = done.lines();
    assert_eq!(lines.len(), LINES);
    for (line, seq) in lines.iter().zip(1..) {
        assert!(line.starts_with(&format!("OK seq={seq} ")), "{line}");
    }
    let list = cluster.wait_equal_lists();
    assert!(list.entries.iter().all(|(seq, payload)| *payload == format!("line {seq}")));
}

/// A refused line does not stop the rest; `--quiet` prints it on stderr and nothing else.
#[test]
fn quiet_prints_only_what_was_not_ok() {
    let cluster = Cluster::of(0).start();
    let mut input = b"before\n".to_vec();
    input.resize(input.len() + 1024 * 1024 + 1, b'x');
    input.extend_from_slice(b"\nafter\n");
    let done = cli_with_input(&cluster, &["--quiet", "append", "-"], &input).expect_code(1);
    assert_eq!(done.text(), "");
    assert!(done.stderr.contains("REJECTED too-large "), "{}", done.stderr);
    assert!(!done.stderr.contains("OK seq="), "{}", done.stderr);
    assert_eq!(cluster.client().list("").payloads(), ["before", "after"]);
    let done = cli(&cluster, &["--quiet", "append", "fine"]).expect_code(0);
    assert_eq!((done.text(), done.stderr), (String::new(), String::new()));
}

#[test]
fn json_output_has_the_keys_of_the_text() {
    let cluster = Cluster::of(1).start();
    let done = cli(&cluster, &["--output", "json", "append", "a", "b"]).expect_code(0);
    let lines = done.lines();
    assert_eq!(lines.len(), 2, "one object for each reply: {}", done.text());
    for (line, seq) in lines.iter().zip(["1", "2"]) {
        let reply: serde_json::Value = serde_json::from_str(line).expect("an object on each line");
        for (key, value) in [("seq", seq), ("epoch", "1"), ("need", "2"), ("by", "master,s1")] {
            assert_eq!(plain(&reply[key]), value, "{key} in {line}");
        }
        assert!(["2", "2/2"].contains(&plain(&reply["have"]).as_str()), "have in {line}");
    }
    let done = cli(&cluster, &["--output=json", "status"]).expect_code(0);
    let values: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&done.stdout)
        .into_iter()
        .map(|value| value.expect("stdout holds JSON only"))
        .collect();
    for (key, value) in [("mode", "normal"), ("store", "memory"), ("health", "healthy")] {
        assert!(values.iter().any(|json| holds(json, key, value)), "{key}: {}", done.text());
    }
}

/// A JSON value as the text protocol would print it: numbers may be numbers or strings, a list of
/// nodes may be a list.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn holds(json: &serde_json::Value, key: &str, value: &str) -> bool {
    match json {
        serde_json::Value::Object(map) => map.iter().any(|(name, inner)| {
            (name == key && plain(inner) == value) || holds(inner, key, value)
        }),
        serde_json::Value::Array(items) => items.iter().any(|inner| holds(inner, key, value)),
        _ => false,
    }
}

/// stdout has the data lines only, END goes to stderr.
#[test]
fn list_prints_data_on_stdout_and_the_end_on_stderr() {
    let cluster = Cluster::of(0).start();
    cli(&cluster, &["append", "a", "tab\there", "c"]).expect_code(0);
    let done = cli(&cluster, &["list"]).expect_code(0);
    assert_eq!(done.text(), "1 a\n2 tab\\there\n3 c\n");
    assert!(done.stderr.contains("END count=3 first=1 last=3 "), "{}", done.stderr);
    let args = ["list", "--from", "2", "--limit", "1", "--level", "committed"];
    assert_eq!(cli(&cluster, &args).expect_code(0).text(), "2 tab\\there\n");
    let args = ["list", "--from=2", "--limit=1", "--raw"];
    assert_eq!(cli(&cluster, &args).expect_code(0).text(), "tab\there\n");
    assert_eq!(cli(&cluster, &["list", "--from", "4"]).expect_code(0).text(), "");
    cli(&cluster, &["list", "--level", "9"]).expect_code(1);
}

#[test]
fn get_wait_and_digest_ask_for_one_entry() {
    let cluster = Cluster::of(1).start();
    cli(&cluster, &["append", "two words"]).expect_code(0);
    let got = cli(&cluster, &["get", "1"]).expect_code(0).text();
    assert!(got.starts_with("OK seq=1 epoch=1 time="), "{got}");
    assert!(got.trim_end().ends_with("payload=two words"), "{got}");
    let missing = cli(&cluster, &["get", "2"]).expect_code(1);
    let said = missing.text() + &missing.stderr;
    assert!(said.contains("ERR not-found"), "{said}");
    let waited = cli(&cluster, &["wait", "1", "-w", "2"]).expect_code(0).text();
    assert_eq!(waited.trim_end(), "OK seq=1 epoch=1 have=2/2 need=2 by=master,s1");
    cli(&cluster, &["wait", "2"]).expect_code(1);
    let digest = cluster.client().cmd("DIGEST");
    assert_eq!(cli(&cluster, &["digest"]).expect_code(0).text().trim_end(), digest);
    assert_eq!(cli(&cluster, &["digest", "1"]).expect_code(0).text().trim_end(), digest);
    cli(&cluster, &["digest", "2"]).expect_code(1);
}

#[test]
fn tail_prints_the_last_entries() {
    let cluster = Cluster::of(0).start();
    let input: String = (1..=15).map(|number| format!("line {number}\n")).collect();
    cli_with_input(&cluster, &["append"], input.as_bytes()).expect_code(0);
    let last = |count| (16 - count..=15).map(|seq| format!("{seq} line {seq}")).collect::<Vec<_>>();
    assert_eq!(cli(&cluster, &["tail"]).expect_code(0).lines(), last(10));
    assert_eq!(cli(&cluster, &["tail", "-n", "2"]).expect_code(0).lines(), last(2));
    assert_eq!(cli(&cluster, &["tail", "-n", "99"]).expect_code(0).lines(), last(15));
}

/// `-f` follows without loss or repetition, also when its connection breaks.
#[test]
fn tail_follows_across_reconnects() {
    let cluster = Cluster::of(0).start();
    let proxy = common::Proxy::to(loopback(), cluster.master.ready.wire);
    cli(&cluster, &["append", "line 1", "line 2", "line 3"]).expect_code(0);
    let server = proxy.addr.to_string();
    let tail = Process::spawn(
        "replog-cli tail",
        replog_cli(["--server", &server, "tail", "-n", "2", "-f"]),
    );
    let wait_for_lines = |count| {
        wait_until("the tail to catch up", || (tail.stdout().len() >= count).then_some(()));
    };
    wait_for_lines(2);
    let mut client = cluster.client();
    for seq in 4..=100 {
        client.ok(&format!("APPEND line {seq}"));
        if seq % 25 == 0 {
            // Once while it is idle, once with entries on the way.
            if seq % 50 == 0 {
                wait_for_lines(seq - 1);
            }
            proxy.drop_connections();
        }
    }
    wait_for_lines(99);
    let expected: Vec<String> = (2..=100).map(|seq| format!("{seq} line {seq}")).collect();
    assert_eq!(tail.stdout(), expected);
}

#[test]
fn status_and_ping_show_what_the_gateway_shows() {
    let cluster = Cluster::of(1).start();
    let status = cli(&cluster, &["status"]).expect_code(0).text();
    assert!(status.contains("node id=master role=master epoch=1 mode=normal "), "{status}");
    assert!(status.contains("secondary id=s1 "), "{status}");
    assert!(cli(&cluster, &["ping"]).expect_code(0).text().starts_with("PONG"));
    let wire = cluster.node("s1").ready.wire.to_string();
    let status = cli_at(&wire, &["status"], b"").expect_code(0).text();
    assert!(status.contains("node id=s1 role=secondary "), "{status}");
}

#[test]
fn health_exits_0_only_in_mode_normal() {
    let cluster = Cluster::of(1).start();
    let health = cli(&cluster, &["health"]).expect_code(0).text();
    assert_eq!(health.trim_end(), "OK mode=normal present=2 need=2 s1=healthy");
    cluster.pause("s1");
    cluster.wait_mode("read-only");
    let done = cli(&cluster, &["health"]);
    assert!(done.code.is_some_and(|code| code != 0), "{done:?}");
    assert!(done.text().contains("mode=read-only"), "{done:?}");
}

#[test]
fn fault_verbs_take_their_arguments_as_typed_on_the_gateway() {
    let cluster = Cluster::of(1).start();
    let wire = cluster.node("s1").ready.wire.to_string();
    for args in [
        ["delay", "every=3s"].as_slice(),
        &["delay", "off"],
        &["fail", "after", "p=0.5"],
        &["fail", "before", "count=2"],
        &["fail", "off"],
        &["mute", "1000s"],
        &["mute", "off"],
        &["store", "1", "from the command line"],
    ] {
        let done = cli_at(&wire, args, b"").expect_code(0);
        assert!(done.text().starts_with("OK"), "{args:?}: {done:?}");
    }
    assert_eq!(cluster.client_of("s1").list("").payloads(), ["from the command line"]);
    cli(&cluster, &["delay", "1s"]).expect_code(1);
}

#[test]
fn exit_code_1_says_that_nothing_happened() {
    let cluster = Cluster::of(1).start();
    let done = cli(&cluster, &["append", "-w", "3", "x"]).expect_code(1);
    assert!(done.text().starts_with("REJECTED bad-write-concern w=3 nodes=2 - "), "{done:?}");
    let wire = cluster.node("s1").ready.wire.to_string();
    let done = cli_at(&wire, &["append", "x"], b"").expect_code(1);
    let not_master = format!("REJECTED not-master master={} ", cluster.master.ready.wire);
    assert!(done.text().starts_with(&not_master), "{done:?}");
    assert_eq!(cluster.client().list("").entries, []);
}

/// Usage errors exit 2 before anything is sent; the message is on stderr.
#[test]
fn exit_code_2_is_for_usage() {
    let cluster = Cluster::of(0).start();
    for args in [
        ["append", "-w", "abc", "x"].as_slice(),
        &["append", "--ack", "maybe", "x"],
        &["append", "--timeout", "soon", "x"],
        &["append", "--frobnicate", "x"],
        &["append", "x", "-w"],
        &["get"],
        &["get", "one"],
        &["wait"],
        &["list", "--from", "x"],
        &["tail", "-n", "x"],
        &["frobnicate"],
        &["--output", "xml", "append", "x"],
        &[],
    ] {
        let done = cli_with_input(&cluster, args, b"from stdin\n");
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        assert_eq!(done.text(), "", "{args:?}");
        assert_ne!(done.stderr, "", "{args:?}");
    }
    assert_eq!(cluster.client().list("").entries, []);
}

/// The master is killed while an append waits: it may or may not survive.
#[test]
fn exit_code_3_says_that_the_outcome_is_unknown() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let wire = cluster.master.ready.wire.to_string();
    let mut waiting = Process::spawn(
        "replog-cli append",
        replog_cli(["--server", &wire, "append", "-w", "3", "x"]),
    );
    let mut client = cluster.client();
    wait_until("the entry", || (client.list("").entries.len() == 1).then_some(()));
    cluster.master.process.kill();
    assert_eq!(waiting.wait_exit(), Some(3));
}

#[test]
fn exit_code_4_says_that_the_entry_stays_but_is_not_where_it_should_be() {
    let cluster = Cluster::of(2).absent("s2").start();
    let args = ["append", "-w", "3", "--timeout", "300ms", "x"];
    let done = cli(&cluster, &args).expect_code(4);
    assert!(done.text().starts_with("PENDING seq=1 epoch=1 "), "{done:?}");
    let done = cli(&cluster, &["wait", "1", "-w", "3", "--timeout=0"]).expect_code(4);
    assert!(done.text().contains("missing=s2"), "{done:?}");
}

#[test]
fn exit_code_5_says_that_no_server_was_reachable() {
    let nobody = reserve_addr(loopback()).to_string();
    for args in [["ping"].as_slice(), &["append", "x"], &["list"], &["health"], &["status"]] {
        let done = cli_at(&nobody, args, b"").expect_code(5);
        assert_eq!(done.text(), "", "{args:?}");
        assert!(done.stderr.contains(&nobody), "the message names the address: {done:?}");
    }
}

/// With several entries the worst code wins: here 4 over 1.
#[test]
fn the_worst_exit_code_wins() {
    let cluster = Cluster::of(2).absent("s2").start();
    let mut input = b"pending\n".to_vec();
    input.resize(input.len() + 1024 * 1024 + 1, b'x');
    input.push(b'\n');
    let args = ["append", "-w", "3", "--timeout", "300ms", "-"];
    let done = cli_with_input(&cluster, &args, &input).expect_code(4);
    let lines = done.lines();
    assert!(lines[0].starts_with("PENDING seq=1 "), "{lines:?}");
    assert!(lines[1].starts_with("REJECTED too-large "), "{lines:?}");
}

/// With several addresses the client tries each and follows `not-master`.
#[test]
fn several_servers_are_tried_in_turn() {
    let cluster = Cluster::of(1).start();
    let nobody = reserve_addr(loopback()).to_string();
    let s1 = cluster.node("s1").ready.wire.to_string();
    let master = cluster.master.ready.wire.to_string();
    for servers in
        [format!("{nobody},{master}"), format!("{nobody},{s1}"), format!("{s1},{master}")]
    {
        let done = cli_at(&servers, &["append", "x"], b"").expect_code(0);
        assert!(done.text().starts_with("OK seq="), "{servers}: {done:?}");
    }
    assert_eq!(cluster.wait_equal_lists().entries.len(), 3);
}

#[test]
fn help_and_version_work_on_every_level() {
    let version = run_to_end(replog_cli(["--version"]), b"").expect_code(0);
    assert!(version.text().contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    let help = run_to_end(replog_cli(["--help"]), b"").expect_code(0);
    for verb in [
        "append", "list", "get", "wait", "tail", "outcome", "status", "health", "waiters",
        "metrics", "digest", "ping", "verify", "delay", "fail", "mute", "store", "bench",
    ] {
        assert!(help.text().contains(verb), "{verb}: {help:?}");
        let help = run_to_end(replog_cli([verb, "--help"]), b"").expect_code(0);
        assert_ne!(help.text(), "", "{verb}");
    }
}

/// A real file through the cluster, with a secondary killed while it runs and started again: the
/// copies on all nodes are the file, byte for byte.
#[test]
fn a_hundred_thousand_lines_come_out_of_every_node_as_they_went_in() {
    const LINES: usize = 100_000;
    let file = real_looking_lines(LINES);
    let (first, rest) = file.split_at(file.len() / 2);
    let mut cluster = Cluster::of(2).start();
    let server = cluster.master.ready.wire.to_string();
    let (mut append, mut input) = Process::spawn_with_input(
        "replog-cli append",
        replog_cli(["--server", &server, "--quiet", "append", "-"]),
    );
    input.write_all(first).expect("the first half is read");
    let mut client = cluster.client();
    wait_until("a good part of the first half", || {
        (client.status().node.number("next") > 25_000).then_some(())
    });
    cluster.kill("s2");
    std::thread::scope(|scope| {
        // While s2 is away the client may stop reading.
        scope.spawn(move || input.write_all(rest).expect("the second half is read"));
        cluster.wait_health("s2", "unhealthy");
        cluster.start("s2");
    });
    assert_eq!(append.wait_exit(), Some(0));
    assert_eq!((append.stdout(), append.log()), (vec![], vec![]), "quiet");
    assert_eq!(client.status().node.number("next"), LINES as u64 + 1);
    for wire in
        [&cluster.master, cluster.node("s1"), cluster.node("s2")].map(|node| node.ready.wire)
    {
        let raw = cli_at(&wire.to_string(), &["list", "--raw"], b"").expect_code(0);
        assert!(raw.stdout == file, "{wire}: {} of {} bytes", raw.stdout.len(), file.len());
    }
}

/// Line feeds, zeros, no UTF-8, and more than the system takes as an argument.
fn awkward_payloads() -> Vec<Vec<u8>> {
    let long = (0..300_000u32).map(|number| (number % 251) as u8).collect();
    vec![b"two\nlines\n".to_vec(), b"".to_vec(), b"\xff\xfe\r\n".to_vec(), long, b"\n".to_vec()]
}

#[test]
fn a_whole_file_is_one_entry_and_comes_back_as_it_was() {
    let cluster = Cluster::of(1).start();
    let dir = tempfile::tempdir().expect("a directory");
    let mut payloads = awkward_payloads();
    payloads.push(b"zero\0inside\0".to_vec());
    let mut args = vec!["append".to_owned(), "before".to_owned()];
    for (number, payload) in payloads.iter().enumerate() {
        let path = dir.path().join(format!("file {number}"));
        std::fs::write(&path, payload).expect("it can be written");
        args.extend(["--file".to_owned(), path.to_str().expect("our own name").to_owned()]);
    }
    args.push("after".to_owned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = cli(&cluster, &args).expect_code(0);
    assert_eq!(done.lines().len(), payloads.len() + 2, "{}", done.stderr);
    payloads.insert(0, b"before".to_vec());
    payloads.push(b"after".to_vec());
    for (seq, payload) in (1..).zip(&payloads) {
        let got = cli(&cluster, &["get", &format!("{seq}"), "--raw"]).expect_code(0);
        assert!(got.stdout == *payload, "entry {seq} is another, {} bytes", got.stdout.len());
        assert_eq!(got.stderr, "");
    }
    let missing = cli(&cluster, &["get", "99", "--raw"]).expect_code(1);
    assert!(missing.stdout.is_empty() && missing.stderr.starts_with("ERR not-found "));
    cluster.wait_equal_lists();
}

#[test]
fn all_of_the_input_is_one_entry_with_file_and_a_dash() {
    let cluster = Cluster::of(0).start();
    let input = b"a\nb\0c\n";
    let done = cli_with_input(&cluster, &["append", "--file=-"], input).expect_code(0);
    assert_eq!(done.lines().len(), 1);
    cli_with_input(&cluster, &["append", "--file", "-", "--", "-"], b"").expect_code(0);
    assert_eq!(cli(&cluster, &["list", "-0"]).expect_code(0).stdout, b"a\nb\0c\n\0\0-\0");
}

/// The way there and back, for entries without zeros.
#[test]
fn entries_that_end_with_nul_go_in_and_come_out_alike() {
    let cluster = Cluster::of(1).start();
    let payloads: Vec<Vec<u8>> =
        awkward_payloads().into_iter().filter(|payload| !payload.contains(&0)).collect();
    let input: Vec<u8> =
        payloads.iter().flat_map(|payload| [payload, &b"\0"[..]].concat()).collect();
    for args in [&["append", "-0"][..], &["append", "--null", "-"]] {
        let done = cli_with_input(&cluster, args, &input).expect_code(0);
        assert_eq!(done.lines().len(), payloads.len());
    }
    let twice = input.repeat(2);
    assert!(cli(&cluster, &["list", "-0"]).expect_code(0).stdout == twice);
    assert!(cli(&cluster, &["list", "--raw", "--null"]).expect_code(0).stdout == twice);
    let count = payloads.len().to_string();
    assert!(cli(&cluster, &["tail", "-n", &count, "-0"]).expect_code(0).stdout == input);
    let raw = cli(&cluster, &["tail", "-n", "2", "--raw"]).expect_code(0);
    let last = [&payloads[payloads.len() - 2][..], b"\n", &payloads[payloads.len() - 1], b"\n"];
    assert_eq!(raw.stdout, last.concat());
}

#[test]
fn a_file_that_is_not_there_or_no_file_is_found_before_anything_is_sent() {
    let cluster = Cluster::of(0).start();
    let dir = env!("CARGO_TARGET_TMPDIR");
    for (file, cause) in [("/no/such/file", "No such file"), (dir, "directory")] {
        let done = cli(&cluster, &["append", "first", "--file", file]).expect_code(2);
        let said = done.stderr.to_lowercase();
        assert!(said.contains(file.to_lowercase().as_str()), "{said}");
        assert!(
            said.contains(&cause.to_lowercase()) && said.contains("nothing was sent"),
            "{said}"
        );
        assert_eq!(done.text(), "");
    }
    assert_eq!(cluster.client().list("").entries.len(), 0);
}

#[test]
fn a_file_larger_than_the_node_takes_is_refused_and_the_rest_goes_on() {
    let cluster = Cluster::of(0).start();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("large");
    for bytes in [(1 << 20) + 1, 40 << 20] {
        std::fs::write(&file, vec![b'x'; bytes]).expect("it can be written");
        let path = file.to_str().expect("our own name");
        let done = cli(&cluster, &["append", "--file", path, "after"]).expect_code(1);
        let lines = done.lines();
        assert!(lines[0].starts_with("REJECTED too-large ") && lines[0].contains(" max=1048576 "));
        assert!(lines[1].starts_with("OK seq="), "{done:?}");
    }
    assert_eq!(cluster.client().list("").payloads(), ["after", "after"]);
}

/// As `<(command)` gives: it can be opened once and has no length.
#[test]
fn a_pipe_is_read_like_a_file() {
    let cluster = Cluster::of(0).start();
    let server = cluster.master.ready.wire.to_string();
    let mut command = std::process::Command::new("bash");
    let script = "\"$0\" --server \"$1\" append --file <(printf 'a\\nb\\n') --file <(printf c)";
    command.args(["-c", script, env!("CARGO_BIN_EXE_replog-cli"), &server]);
    run_to_end(command, b"").expect_code(0);
    assert_eq!(cluster.client().list("").payloads(), ["a\\nb\\n", "c"]);
}
