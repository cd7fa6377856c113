//! `replog-cli` and the cluster as a whole: `status --all`, `--watch`, `waiters`, `verify`
//! (interface 3).

mod common;

use common::{
    Cluster, Fields, Finished, Process, loopback, replog_cli, reserve_addr, run_to_end, wait_until,
};

#[track_caller]
fn cli(server: &str, args: &[&str]) -> Finished {
    let mut command = replog_cli(["--server", server]);
    command.args(args);
    run_to_end(command, b"")
}

fn master(cluster: &Cluster) -> String {
    cluster.master.ready.wire.to_string()
}

/// The row of the table that begins with `id`, word by word.
#[track_caller]
fn row(table: &str, id: &str) -> Vec<String> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = lines.find(|words| words.first() == Some(&id));
    let row = row.unwrap_or_else(|| panic!("no row of {id} in:\n{table}"));
    row.into_iter().map(str::to_owned).collect()
}

#[test]
fn status_all_shows_every_node_whichever_is_asked() {
    let cluster = Cluster::of(2).start();
    cluster.client().ok("APPEND one");
    cluster.client().ok("APPEND two");
    for server in [master(&cluster), cluster.node("s1").ready.wire.to_string()] {
        let done = cli(&server, &["status", "--all"]).expect_code(0);
        let table = done.text();
        assert!(table.starts_with("mode=normal present=3 quorum=2/3 epoch=1 next=3 "), "{table}");
        for id in ["master", "s1", "s2"] {
            let row = row(&table, id);
            assert_eq!((row[3].as_str(), row[5].as_str()), ("normal", "2"), "{table}");
            assert_eq!(row.last().map(String::as_str), Some("equal"), "{table}");
        }
        assert_eq!(row(&table, "s2")[4], "healthy", "{table}");
        assert!(table.contains("logs: 3 equal up to 2 (digest="), "{table}");
        assert!(table.ends_with("waiting: nobody\n"), "{table}");
        assert!(!table.contains('\x1b'), "no colours off a terminal: {table}");
    }
}

#[test]
fn a_node_that_does_not_answer_is_shown_with_the_cause() {
    let mut cluster = Cluster::of(2).start();
    cluster.kill("s2");
    cluster.wait_health("s2", "unhealthy");
    let table = cli(&master(&cluster), &["status", "--all"]).expect_code(0).text();
    assert!(table.contains("unreachable: Connection refused"), "{table}");
    assert_eq!(row(&table, "s2")[4], "unhealthy", "{table}");
    assert_eq!(row(&table, "s1").last().map(String::as_str), Some("equal"), "{table}");
    let json = cli(&master(&cluster), &["--output", "json", "status", "--all"]).expect_code(0);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one object");
    let nodes = json["nodes"].as_array().expect("a list of nodes");
    let of = |id: &str| nodes.iter().find(|node| node["id"] == id).expect("each node is there");
    assert_eq!((&of("s2")["reachable"], &of("s1")["reachable"]), (&false.into(), &true.into()));
    assert_eq!(of("s2")["health"], "unhealthy");
    assert!(of("s2")["error"].is_string() && of("s1")["equal"] == true, "{json}");
}

#[test]
fn status_all_compares_the_servers_that_are_given() {
    let clusters = [Cluster::of(0).start(), Cluster::of(0).start()];
    for (cluster, entry) in clusters.iter().zip(["one", "other"]) {
        cluster.client().ok(&format!("APPEND {entry}"));
    }
    let servers = clusters.each_ref().map(master).join(",");
    let table = cli(&servers, &["status", "--all"]).expect_code(0).text();
    assert!(table.contains("DIFFERENT"), "{table}");
    assert!(table.contains("logs: master different from master at or below 1"), "{table}");
}

#[test]
fn status_all_of_nobody_is_exit_code_5() {
    let nobody = reserve_addr(loopback()).to_string();
    let done = cli(&nobody, &["status", "--all"]).expect_code(5);
    assert!(done.text().contains(&format!("{nobody}  ")), "{done:?}");
    assert!(done.text().contains("unreachable: "), "{done:?}");
}

#[test]
fn who_waits_for_whom_is_shown() {
    let cluster = Cluster::of(2).absent("s2").start();
    let server = master(&cluster);
    let _waiting = Process::spawn(
        "append",
        replog_cli(["--server", &server, "append", "-w", "3", "one", "two"]),
    );
    let mut client = cluster.client();
    wait_until("both to wait on s1's copy", || {
        client.send("WAITERS");
        let mut lines = Vec::new();
        loop {
            let line = client.line();
            let ended = line.starts_with("END ");
            lines.push(line);
            if ended {
                break;
            }
        }
        (lines.iter().filter(|line| line.contains(" have=2 missing=s2 ")).count() == 2)
            .then_some(())
    });
    let done = cli(&server, &["waiters"]).expect_code(0);
    let lines: Vec<Fields> = done.lines().iter().map(|line| Fields::of(line)).collect();
    assert_eq!(lines.len(), 2, "{done:?}");
    for (line, seq) in lines.iter().zip(["1", "2"]) {
        assert_eq!((line.get("seq"), line.get("need"), line.get("missing")), (seq, "3", "s2"));
    }
    assert_eq!(done.stderr, "END count=2\n", "the end goes to stderr, as that of a list");
    let table = cli(&server, &["status", "--all"]).expect_code(0).text();
    assert!(table.contains("waiting: entries 1 to 2 for s2 (need=3 have=2, "), "{table}");
}

/// Off a terminal: plain blocks, one after the other, until it is interrupted.
#[test]
fn watch_off_a_terminal_prints_plain_blocks_and_survives_the_node() {
    let mut cluster = Cluster::of(1).start();
    let server = master(&cluster);
    let watch = |args: &[&str]| {
        let mut command = replog_cli(["--server", &server, "status", "--watch"]);
        command.args(args);
        Process::spawn("watch", command)
    };
    let (mut one, mut all) = (watch(&[]), watch(&["--all"]));
    let blocks = |process: &Process, with: &str| {
        process.stdout().iter().filter(|line| line.contains(with)).count()
    };
    wait_until("two blocks of the node", || (blocks(&one, "node id=master ") >= 2).then_some(()));
    wait_until("two blocks of all", || (blocks(&all, "logs: 2 equal ") >= 2).then_some(()));
    cluster.client().ok("APPEND seen");
    wait_until("the entry", || (blocks(&one, " next=2 ") >= 1).then_some(()));
    wait_until("the entry", || (blocks(&all, "logs: 2 equal up to 1 ") >= 1).then_some(()));
    cluster.master.process.kill();
    wait_until("its end", || (blocks(&one, &format!("unreachable {server}: ")) >= 1).then_some(()));
    wait_until("its end", || (blocks(&all, "unreachable: ") >= 1).then_some(()));
    for process in [&mut one, &mut all] {
        process.signal("INT");
        assert_eq!(process.wait_exit(), Some(0));
        let lines = process.stdout();
        assert!(lines.iter().any(String::is_empty), "a blank line stands between blocks");
        assert!(!lines.iter().any(|line| line.contains('\x1b')), "{lines:?}");
    }
}

#[test]
fn watch_as_json_is_an_object_a_second() {
    let cluster = Cluster::of(0).start();
    let server = master(&cluster);
    for args in [&["status", "--watch"][..], &["status", "--watch", "--all"]] {
        let mut command = replog_cli(["--server", &server, "--output", "json"]);
        command.args(args);
        let mut watch = Process::spawn("watch", command);
        wait_until("two objects", || (watch.stdout().len() >= 2).then_some(()));
        watch.signal("INT");
        assert_eq!(watch.wait_exit(), Some(0));
        for line in watch.stdout() {
            let object: serde_json::Value = serde_json::from_str(&line).expect("an object a line");
            assert!(object.is_object(), "{line}");
        }
    }
}

#[test]
fn verify_finds_equal_logs_equal() {
    let cluster = Cluster::of(2).start();
    let done = cli(&master(&cluster), &["verify"]).expect_code(0);
    assert!(done.lines().last().is_some_and(|line| line.starts_with("OK nodes=3 commit=0 ")));
    cluster.client().ok("APPEND one");
    for server in [master(&cluster), cluster.node("s2").ready.wire.to_string()] {
        let done = cli(&server, &["verify"]).expect_code(0);
        let lines = done.lines();
        assert_eq!(lines.iter().filter(|line| line.starts_with("node id=")).count(), 3, "{done:?}");
        let digest = cluster.client().ok("DIGEST");
        let expected = format!("OK nodes=3 commit=1 digest={}", digest.get("digest"));
        assert_eq!(lines.last(), Some(&expected));
    }
}

/// Two clusters that never met: their histories differ from the first entry on, also where the
/// payloads behind it are the same, and both copies of the first are shown. What differs is a
/// payload and not only the time: two clusters may well number an entry in the same millisecond.
#[test]
fn verify_shows_the_first_difference_and_exits_6() {
    let clusters = [Cluster::of(0).start(), Cluster::of(0).start()];
    let firsts = ["a\tc", "b\u{e9}"];
    for (cluster, first) in clusters.iter().zip(firsts) {
        let mut client = cluster.client();
        client.ok(&format!("APPEND {first}"));
        (0..20).for_each(|_| drop(client.ok("APPEND same")));
    }
    let servers = clusters.each_ref().map(master).join(",");
    let done = cli(&servers, &["verify"]).expect_code(6);
    let lines = done.lines();
    assert!(lines[2].starts_with("DIFFERENT seq=1 nodes=2 commit=21 - "), "{done:?}");
    assert_eq!(lines.len(), 5, "two nodes, the difference, and an entry of each: {done:?}");
    let entries: Vec<Fields> = lines[3..].iter().map(|line| Fields::of(line)).collect();
    for entry in &entries {
        assert_eq!((entry.get("node"), entry.get("digest").len()), ("master", 16), "{done:?}");
    }
    let mut payloads: Vec<&str> = entries.iter().map(|entry| entry.get("payload")).collect();
    payloads.sort_unstable();
    assert_eq!(payloads, ["a\\tc", "b\u{e9}"], "{done:?}");
    let done = cli(&servers, &["--output", "json", "verify"]).expect_code(6);
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one object");
    assert_eq!((&json["equal"], &json["difference"]["seq"]), (&false.into(), &1.into()));
    let payload = &json["difference"]["entries"][1]["entry"]["payload"];
    assert!(firsts.iter().any(|first| payload == first), "{json}");
}

#[test]
fn verify_names_nodes_that_are_unreachable_and_exits_5() {
    let mut cluster = Cluster::of(2).start();
    cluster.client().ok("APPEND one");
    cluster.kill("s1");
    let done = cli(&master(&cluster), &["verify"]).expect_code(5);
    assert!(done.stderr.contains("s1 (") && done.stderr.contains("is unreachable: "), "{done:?}");
    assert!(!done.stderr.contains("s2"), "{done:?}");
    assert_eq!(done.text(), "", "half a comparison is none");
}

/// Cut off from the master, a secondary lags. It is waited for; if it still lacks committed entries
/// after that, its log is not equal.
#[test]
fn verify_waits_for_a_node_that_lags_but_not_for_ever() {
    let cluster = Cluster::of(2).proxied("s1").start();
    let mut client = cluster.client();
    client.ok("APPEND w=all one");
    cluster.proxy("s1").cut();
    client.ok("APPEND w=2 two");
    client.ok("APPEND w=2 three");
    let wires =
        [cluster.master.ready.wire, cluster.node("s1").ready.wire, cluster.node("s2").ready.wire];
    let servers = wires.map(|wire| wire.to_string()).join(",");
    let done = cli(&servers, &["verify", "--timeout", "100ms"]).expect_code(6);
    assert!(done.stderr.contains("s1 is behind: it holds 1 of 3 committed entries"), "{done:?}");
    let lines = done.lines();
    assert!(lines[3].starts_with("DIFFERENT seq=2 nodes=3 commit=3 - "), "{done:?}");
    assert!(lines[4].ends_with(" payload=two"), "{done:?}");
    assert_eq!(lines[5], "entry node=s1 seq=2 missing=true");
    let mut waiting =
        Process::spawn("verify", replog_cli(["--server", &servers, "verify", "--timeout", "60s"]));
    waiting.wait_for_log_line(&["s1 is behind"]);
    cluster.proxy("s1").heal();
    assert_eq!(waiting.wait_exit(), Some(0));
}

#[test]
fn metrics_prints_what_the_gateway_says() {
    let cluster = Cluster::of(1).start();
    cluster.client().ok("APPEND x");
    for id in ["master", "s1"] {
        let server = match id {
            "master" => master(&cluster),
            id => cluster.node(id).ready.wire.to_string(),
        };
        let done = cli(&server, &["metrics"]).expect_code(0);
        let text = done.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.last(), Some(&"# EOF"));
        let stored = format!("replog_position{{node=\"{id}\",kind=\"stored\"}} 1");
        assert!(lines.contains(&stored.as_str()), "{done:?}");
    }
}

#[test]
fn what_comes_later_says_so() {
    let cluster = Cluster::of(0).start();
    let server = master(&cluster);
    let bench = cli(&server, &["bench", "--count", "5"]).expect_code(2);
    assert!(bench.stderr.contains("bench is not available yet"), "{bench:?}");
    for args in
        [&["append", "--id", "p:1", "x"][..], &["append", "--atomic", "x"], &["outcome", "p", "1"]]
    {
        let done = cli(&server, args).expect_code(1);
        assert!(done.text().contains("not available yet"), "{args:?}: {done:?}");
    }
}
