//! `replog-cli` and nodes that are there and say nothing: frozen processes, wrong ports, machines that
//! are gone. Nobody waits for ever, nothing is done twice, and whoever waits is told for whom
//! (interface 3).

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::{
    Cluster, Finished, Process, Proxy, loopback, replog, replog_cli, run_to_end, wait_until,
};

/// Far more than anything here takes, far less than for ever.
const SOON: Duration = Duration::from_secs(25);

/// Runs `replog-cli` and checks that it did not wait for ever.
#[track_caller]
fn soon(servers: &[SocketAddr], args: &[&str]) -> Finished {
    let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    let mut command = replog_cli(["--server", &servers.join(",")]);
    command.args(args);
    let begun = Instant::now();
    let finished = run_to_end(command, b"");
    assert!(begun.elapsed() < SOON, "{args:?} took {:?}: {finished:?}", begun.elapsed());
    finished
}

#[track_caller]
fn assert_says(finished: &Finished, parts: &[&str]) {
    for part in parts {
        assert!(finished.stderr.contains(part), "no {part:?} in: {finished:?}");
    }
}

/// The kernel of a frozen node still takes connections and acknowledges bytes.
#[test]
fn an_append_that_was_sent_to_a_frozen_master_is_unknown_soon_after_its_timeout() {
    let cluster = Cluster::of(0).start();
    let server = cluster.master.ready.wire.to_string();
    let mut command = replog_cli(["--server", &server]);
    command.args(["append", "--timeout", "1", "-"]);
    let (mut append, mut input) = Process::spawn_with_input("append", command);
    writeln!(input, "a").expect("the program reads its input");
    wait_until("the first reply", || (append.stdout().len() == 1).then_some(()));
    cluster.master.process.pause();
    writeln!(input, "b").expect("the program reads its input");
    drop(input);
    let begun = Instant::now();
    assert_eq!(append.wait_exit(), Some(3));
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    let replies = append.stdout();
    assert_eq!(replies.len(), 2, "{replies:?}");
    assert_eq!(
        replies[1],
        "UNKNOWN seq=- epoch=- - no answer within 3s, the timeout included; the entry may be in the \
         log"
    );
    cluster.master.process.resume();
    let mut client = cluster.client();
    wait_until("the entry that was sent", || (client.list("").entries.len() == 2).then_some(()));
}

#[test]
fn an_append_without_timeout_says_for_whom_it_waits_and_gets_its_answer() {
    let cluster = Cluster::of(0).start();
    let server = cluster.master.ready.wire.to_string();
    let (mut append, mut input) =
        Process::spawn_with_input("append", replog_cli(["--server", &server, "append", "-"]));
    writeln!(input, "a").expect("the program reads its input");
    wait_until("the first reply", || (append.stdout().len() == 1).then_some(()));
    cluster.master.process.pause();
    writeln!(input, "b").expect("the program reads its input");
    drop(input);
    append.wait_for_log_line(&[&server, "(master) says nothing for", "answer to 1 entry"]);
    cluster.master.process.resume();
    append.wait_for_log_line(&["(master) speaks again, after"]);
    assert_eq!(append.wait_exit(), Some(0));
    let replies = append.stdout();
    assert!(replies[1].starts_with("OK seq=2 "), "{replies:?}");
    assert_eq!(append.log().len(), 2, "it is said when it begins and when it is over");
}

#[test]
fn connecting_counts_against_the_timeout_and_nothing_was_sent() {
    let cluster = Cluster::of(0).start();
    cluster.master.process.pause();
    let wire = cluster.master.ready.wire;
    for args in [&["append", "--timeout", "0", "x"][..], &["wait", "--timeout", "0", "1"]] {
        let begun = Instant::now();
        let finished = soon(&[wire], args).expect_code(5);
        // Two seconds, and not the five that connecting may take otherwise.
        assert!(begun.elapsed() < Duration::from_secs(4), "{args:?}: {:?}", begun.elapsed());
        let silent = format!("{wire}: connected, but no introduction within");
        assert_says(&finished, &["nothing was sent", &silent]);
    }
    cluster.master.process.resume();
    let mut client = cluster.client();
    client.ok("APPEND later");
    assert_eq!(client.list("").entries.len(), 1, "nothing of it comes later");
}

#[test]
fn each_server_that_was_tried_in_vain_is_named_with_what_it_did() {
    let cluster = Cluster::of(1).start();
    cluster.master.process.pause();
    let (master, s1) = (cluster.master.ready.wire, cluster.node("s1").ready.wire);
    let begun = Instant::now();
    let finished = soon(&[master, s1], &["append", "x"]).expect_code(1);
    assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
    assert!(finished.text().starts_with("REJECTED not-master "), "{finished:?}");
    let silent = format!("{master}: connected, but no introduction within");
    assert_says(&finished, &[&silent, "the master was not found; s1"]);

    let dead = common::reserve_addr(loopback());
    let finished = soon(&[dead, master], &["append", "x"]).expect_code(5);
    let refused = format!("{dead}: cannot connect: Connection refused");
    assert_says(&finished, &[&refused, &silent, "nothing was sent"]);
    // What any node can tell is asked of the one that answers.
    for verb in [&["status"][..], &["digest"], &["list"], &["tail"], &["ping"], &["get", "1"]] {
        let finished = soon(&[master, s1], verb);
        assert_says(&finished, &[&format!("{master}: no introduction within"), "going on with s1"]);
    }
    let servers = format!("{master},{s1}");
    let tail = Process::spawn("tail", replog_cli(["--server", &servers, "tail", "-f"]));
    tail.wait_for_log_line(&[&format!("{master}: no introduction within"), "going on with s1"]);
}

/// The first server that answers is a secondary: the master it names is asked.
#[test]
fn the_master_is_found_beside_a_frozen_server() {
    let cluster = Cluster::of(2).start();
    cluster.pause("s1");
    let (s1, s2) = (cluster.node("s1").ready.wire, cluster.node("s2").ready.wire);
    let finished = soon(&[s1, s2], &["append", "-w", "2", "x"]).expect_code(0);
    assert!(finished.text().starts_with("OK seq=1 "), "{finished:?}");
}

/// The connection is through when the node freezes.
#[test]
fn what_changes_nothing_is_asked_of_the_next_server() {
    // Far more than the program collects before it writes.
    const ENTRIES: usize = 5_000;
    let long = "x".repeat(1_000);
    let cluster = Cluster::of(1).start();
    let lines: Vec<String> = (1..=ENTRIES).map(|number| format!("line {number} {long}")).collect();
    let master = cluster.master.ready.wire;
    let mut command = replog_cli(["--server", &master.to_string(), "--quiet", "append", "-"]);
    command.args(["-w", "all"]);
    run_to_end(command, (lines.join("\n") + "\n").as_bytes()).expect_code(0);
    let expected: Vec<String> =
        (1..).zip(&lines).map(|(seq, line)| format!("{seq} {line}")).collect();
    let freeze = |verb: &'static str| {
        // Slow, so that it freezes in the middle of the entries.
        let proxy = Proxy::to(loopback(), cluster.node("s1").ready.wire);
        proxy.delay(Duration::from_millis(20));
        let servers = format!("{},{master}", proxy.addr);
        let mut command = replog_cli(["--server", &servers, verb]);
        if verb == "tail" {
            command.args(["-n", &ENTRIES.to_string(), "--level", "local"]);
        }
        let mut reading = Process::spawn(verb, command);
        wait_until("the first entries", || (!reading.stdout().is_empty()).then_some(()));
        proxy.cut();
        assert_eq!(reading.wait_exit(), Some(0), "{verb}");
        assert!(reading.stdout() == expected, "{verb}: an entry is missing or comes twice");
        reading.wait_for_log_line(&["silent for", "asking", &master.to_string()]);
    };
    std::thread::scope(|scope| {
        ["list", "tail"]
            .map(|verb| scope.spawn(move || freeze(verb)))
            .map(|thread| thread.join().expect("the entries come from the next server"))
    });
}

#[test]
fn tail_goes_on_at_the_next_server_and_comes_back_to_one_that_was_frozen() {
    let mut cluster = Cluster::of(2).start();
    let (s1, s2) = (cluster.node("s1").ready.wire, cluster.node("s2").ready.wire);
    let start = |servers: String| {
        Process::spawn("tail", replog_cli(["--server", &servers, "tail", "-f", "-n", "9"]))
    };
    let (mut both, mut one) = (start(format!("{s1},{s2}")), start(s1.to_string()));
    let mut client = cluster.client();
    let seen = |tail: &Process, count: usize| {
        wait_until(&format!("{count} entries"), || (tail.stdout().len() >= count).then_some(()));
    };
    client.ok("APPEND w=all one");
    seen(&both, 1);
    seen(&one, 1);
    cluster.pause("s1");
    client.ok("APPEND w=2 two");
    seen(&both, 2);
    both.wait_for_log_line(&["connected to s2 again"]);
    one.wait_for_log_line(&["silent for", "connecting again"]);
    one.wait_for_log_line(&["no server reachable, still trying", "no introduction within"]);
    cluster.resume("s1");
    seen(&one, 2);
    one.wait_for_log_line(&["connected to s1 again"]);
    cluster.kill("s2");
    client.ok("APPEND w=2 three");
    seen(&both, 3);
    seen(&one, 3);
    for tail in [&mut both, &mut one] {
        tail.signal("INT");
        assert_eq!(tail.wait_exit(), Some(0));
        assert_eq!(tail.stdout(), ["1 one", "2 two", "3 three"]);
    }
}

#[test]
fn the_status_of_all_nodes_is_there_within_seconds_though_one_is_frozen() {
    let cluster = Cluster::of(2).start();
    cluster.client().ok("APPEND w=all x");
    cluster.pause("s1");
    let (master, s2) = (cluster.master.ready.wire, cluster.node("s2").ready.wire);
    let begun = Instant::now();
    let table = soon(&[master], &["status", "--all"]);
    assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
    let row = |id: &str| {
        let lines = table.lines();
        lines.into_iter().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{table:?}"))
    };
    assert!(row("s1").contains("no introduction within"), "{table:?}");
    assert!(row("master").contains("normal") && row("s2").contains(&s2.to_string()), "{table:?}");
    let verified = soon(&[master], &["verify", "--timeout", "1"]).expect_code(5);
    assert_says(&verified, &["not compared", "s1", "no introduction within"]);
}

/// Ctrl-Z, a debugger, a laptop that sleeps: it is not the node that said nothing.
#[test]
fn a_client_that_was_stopped_itself_does_not_call_the_node_silent() {
    let cluster = Cluster::of(0).start();
    let server = cluster.master.ready.wire.to_string();
    let tail = Process::spawn("tail", replog_cli(["--server", &server, "tail", "-f"]));
    let mut client = cluster.client();
    client.ok("APPEND one");
    wait_until("the entry", || (tail.stdout().len() == 1).then_some(()));
    tail.pause();
    // Longer than a node may be silent.
    std::thread::sleep(Duration::from_secs(7));
    tail.resume();
    client.ok("APPEND two");
    wait_until("the entry", || (tail.stdout().len() == 2).then_some(()));
    assert_eq!(tail.log(), [""; 0]);
}

// ---- wrong ports ----

#[test]
fn the_text_gateway_is_called_by_its_name_where_the_wire_address_is_wanted() {
    let cluster = Cluster::of(0).start();
    let gateway = cluster.master.ready.gateway;
    let finished = soon(&[gateway], &["ping"]).expect_code(5);
    assert_says(
        &finished,
        &["that is the text gateway of a replog node; its wire address is wanted"],
    );

    let secondary = Cluster::lone_secondary();
    let roster = format!("s1={}", secondary.ready.gateway);
    let any = SocketAddr::new(loopback(), 0).to_string();
    let mut command = replog(["master", "--memory", "--listen", &any, "--gateway", &any]);
    command.args(["--secondary", &roster, "--heartbeat", "200ms"]);
    let master = Process::spawn("master", command);
    let ready = master.wait_ready();
    master.wait_for_log_line(&["cannot connect", "that is the text gateway of a replog node"]);
    let mut client = common::Gateway::connect(ready.gateway);
    wait_until("the reason in STATUS", || {
        let status = client.status();
        let error = status.secondary("s1").get("error").to_owned();
        error.starts_with("that is the text gateway of a replog node").then_some(())
    });
}

/// It accepts, and never says anything.
#[test]
fn a_silent_port_is_not_taken_for_one_that_cannot_be_reached() {
    let listener = TcpListener::bind((loopback(), 0)).expect("a free port");
    let addr = listener.local_addr().expect("a bound socket has an address");
    let finished = soon(&[addr], &["append", "x"]).expect_code(5);
    let expected = format!("{addr}: connected, but no introduction within");
    assert_says(&finished, &[&expected, "this is not its wire address"]);

    let nameless = run_to_end(replog_cli(["--server", "no-such-name.invalid:1", "ping"]), b"");
    assert_says(&nameless.expect_code(5), &["no-such-name.invalid:1: cannot resolve: "]);
}
