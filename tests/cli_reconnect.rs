//! `replog-cli` when connections break and nodes go: nothing twice, nothing lost in silence
//! (interface 3).

mod common;

use std::io::Write;

use common::{Cluster, Process, Proxy, loopback, replog_cli, run_to_end, wait_until};

/// What was answered OK is in the log exactly once, where the answer says. What was sent and not
/// answered is called unknown and is there at most once. What was not sent goes over the next
/// connection, and the rest goes on.
#[test]
fn a_thousand_entries_through_a_connection_that_is_reset_again_and_again() {
    const ENTRIES: usize = 1000;
    const AT_A_TIME: usize = 100;
    let cluster = Cluster::of(1).start();
    let proxy = Proxy::to(loopback(), cluster.master.ready.wire);
    // So that answers are on their way when the connection breaks.
    proxy.delay(std::time::Duration::from_millis(5));
    let server = proxy.addr.to_string();
    let (mut append, mut input) =
        Process::spawn_with_input("append", replog_cli(["--server", &server, "append", "-"]));
    for first in (0..ENTRIES).step_by(AT_A_TIME) {
        for number in first..first + AT_A_TIME {
            writeln!(input, "line {number}").expect("the program reads its input");
            if number % AT_A_TIME == AT_A_TIME / 2 {
                // A program that never had a connection would say that nobody is reachable.
                let connected = || !append.stdout().is_empty();
                wait_until("the first reply", || connected().then_some(()));
                proxy.drop_connections();
            }
        }
        // Each entry has its reply, whatever became of it.
        let answered = || append.stdout().len() >= first + AT_A_TIME;
        wait_until("a reply to each entry", || answered().then_some(()));
    }
    drop(input);
    let code = append.wait_exit();
    let replies = append.stdout();
    assert_eq!(replies.len(), ENTRIES);
    let list = cluster.wait_equal_lists();
    let mut unknown = 0;
    for (number, reply) in replies.iter().enumerate() {
        let payload = format!("line {number}");
        let found: Vec<u64> = list
            .entries
            .iter()
            .filter(|(_, entry)| *entry == payload)
            .map(|(seq, _)| *seq)
            .collect();
        if let Some(rest) = reply.strip_prefix("OK seq=") {
            let seq = rest.split(' ').next().and_then(|seq| seq.parse::<u64>().ok());
            assert_eq!(found, seq.into_iter().collect::<Vec<_>>(), "{payload}: {reply}");
        } else {
            assert!(reply.starts_with("UNKNOWN seq=- "), "{payload}: {reply}");
            assert!(found.len() <= 1, "{payload} is there twice: {found:?}");
            unknown += 1;
        }
    }
    assert_eq!(code, Some(if unknown > 0 { 3 } else { 0 }), "{unknown} unknown");
    assert!(unknown < ENTRIES, "nothing went through");
}

/// An entry that is in flight when the master dies is unknown. What comes behind it and finds no
/// connection in time was not sent, and is said to be so.
#[test]
fn what_is_in_flight_is_unknown_and_what_is_behind_it_was_not_sent() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let server = cluster.master.ready.wire.to_string();
    let (mut append, mut input) = Process::spawn_with_input(
        "append",
        replog_cli(["--server", &server, "append", "-w", "3", "-"]),
    );
    writeln!(input, "waits for ever").expect("the program reads its input");
    let mut client = cluster.client();
    wait_until("the entry", || (client.list("").entries.len() == 1).then_some(()));
    cluster.master.process.kill();
    let replied = || append.stdout().len() == 1;
    wait_until("its reply", || replied().then_some(()));
    writeln!(input, "finds nobody").expect("the program still reads its input");
    drop(input);
    append.wait_for_log_line(&["were not sent: ", &server]);
    assert_eq!(append.wait_exit(), Some(3));
    assert_eq!(
        append.stdout(),
        ["UNKNOWN seq=- epoch=- - connection lost before the answer; the entry may be in the log"]
    );
}

/// A secondary in memory comes back empty each time and is filled again by the master. The follower
/// waits until it is where it was: each entry comes once, in order.
#[test]
fn tail_follows_a_node_over_three_restarts() {
    const AT_A_TIME: u64 = 20;
    let mut cluster = Cluster::of(2).start();
    let server = cluster.node("s1").ready.wire.to_string();
    let mut tail = Process::spawn(
        "tail",
        replog_cli(["--server", &server, "tail", "-f", "-n", "1000", "--level", "local"]),
    );
    let mut client = cluster.client();
    let mut last = 0;
    let mut append = |last: &mut u64| {
        for _ in 0..AT_A_TIME {
            *last += 1;
            client.ok(&format!("APPEND w=2 line {last}"));
        }
    };
    append(&mut last);
    for restart in 1..=3 {
        let what = format!("the tail to catch up before restart {restart}");
        wait_until(&what, || (tail.stdout().len() as u64 >= last).then_some(()));
        cluster.kill("s1");
        append(&mut last);
        cluster.start("s1");
        append(&mut last);
    }
    wait_until("the rest", || (tail.stdout().len() as u64 >= last).then_some(()));
    // Time for anything that should not come: it would stand before what is appended now.
    append(&mut last);
    wait_until("the last ones", || (tail.stdout().len() as u64 >= last).then_some(()));
    let expected: Vec<String> = (1..=last).map(|seq| format!("{seq} line {seq}")).collect();
    assert_eq!(tail.stdout(), expected);
    tail.signal("INT");
    assert_eq!(tail.wait_exit(), Some(0), "interrupting it is how it ends");
}

/// The connection goes before anything was shown: what comes meanwhile is not skipped.
#[test]
fn tail_of_new_entries_begins_where_the_log_was() {
    let cluster = Cluster::of(0).start();
    let proxy = Proxy::to(loopback(), cluster.master.ready.wire);
    let mut client = cluster.client();
    client.ok("APPEND before");
    let server = proxy.addr.to_string();
    let tail = Process::spawn("tail", replog_cli(["--server", &server, "tail", "-f", "-n", "1"]));
    wait_until("the last entry", || (tail.stdout().len() == 1).then_some(()));
    proxy.cut();
    client.ok("APPEND during");
    proxy.drop_connections();
    proxy.heal();
    client.ok("APPEND after");
    wait_until("the others", || (tail.stdout().len() == 3).then_some(()));
    assert_eq!(tail.stdout(), ["1 before", "2 during", "3 after"]);
}

#[test]
fn tail_does_not_mix_two_logs() {
    let mut cluster = Cluster::of(0).start();
    let other = Cluster::of(0).start();
    cluster.client().ok("APPEND one");
    let mut client = other.client();
    for entry in ["other one", "other two"] {
        client.ok(&format!("APPEND {entry}"));
    }
    let servers = [&cluster, &other].map(|cluster| cluster.master.ready.wire.to_string());
    let mut tail =
        Process::spawn("tail", replog_cli(["--server", &servers.join(","), "tail", "-f"]));
    wait_until("the entry", || (tail.stdout().len() == 1).then_some(()));
    cluster.master.process.kill();
    assert_eq!(tail.wait_exit(), Some(1));
    assert_eq!(tail.stdout(), ["1 one"]);
    tail.wait_for_log_line(&["node master holds another log", "than the one followed"]);
}

/// The first server is gone, the second says who the master is.
#[test]
fn with_several_servers_the_master_is_found_and_with_one_its_word_is_shown() {
    let cluster = Cluster::of(1).start();
    let s1 = cluster.node("s1").ready.wire.to_string();
    let nobody = common::reserve_addr(loopback()).to_string();
    let run = |servers: &str, args: &[&str]| {
        let mut command = replog_cli(["--server", servers]);
        command.args(args);
        run_to_end(command, b"")
    };
    let done = run(&format!("{nobody},{s1}"), &["append", "x"]).expect_code(0);
    assert!(done.text().starts_with("OK seq=1 "), "{done:?}");
    for verb in [&["wait", "1"][..], &["waiters"]] {
        run(&format!("{nobody},{s1}"), verb).expect_code(0);
        let alone = run(&s1, verb).expect_code(1);
        assert!(alone.text().starts_with("ERR master-only "), "{alone:?}");
    }
}
