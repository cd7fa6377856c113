//! Masters that start again: who must answer, whose log is adopted, and what is never numbered twice
//! (design 6). In memory, where a restarted node has lost everything; what a disk adds is tested in
//! `durable.rs`.

mod common;

use common::{Cluster, wait_until};

/// Long after the roster was waited for.
fn wait_in_vain(client: &mut common::Gateway) {
    wait_until("more than the two seconds a roster is waited for", || {
        let status = client.status();
        assert_eq!(status.node.get("mode"), "recovering");
        (status.node.number("uptime_s") >= 3).then_some(())
    });
}

#[test]
fn a_restarted_master_in_memory_gets_its_log_back_from_its_secondaries() {
    let mut cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    for number in 1..=300 {
        client.ok(&format!("APPEND w=1 entry {number}"));
    }
    client.ok("WAIT 300 w=3");
    let before = client.list("");
    let digest = client.cmd("DIGEST");
    cluster.restart_master();
    cluster.wait_mode("normal");
    let mut client = cluster.client();
    assert_eq!(client.list("").entries, before.entries);
    assert_eq!(client.cmd("DIGEST"), digest, "epochs and times are those of the first reign");
    let ok = client.ok("APPEND w=3 after");
    assert_eq!((ok.number("seq"), ok.number("epoch")), (301, 2));
    assert_eq!(cluster.wait_equal_lists().entries.len(), 301);
}

/// Where both must answer, one is not enough, and STATUS names the other.
#[test]
fn a_master_without_its_log_waits_for_both_secondaries_and_names_the_one_that_is_missing() {
    let mut cluster = Cluster::of(2).start();
    cluster.client().ok("APPEND precious");
    cluster.pause("s2");
    cluster.restart_master();
    let mut client = cluster.client();
    wait_in_vain(&mut client);
    assert_eq!(client.status().node.get("awaiting"), "s2");
    client.refused("APPEND w=1 x", "REJECTED recovering");
    assert_eq!(client.list("").entries, []);
    cluster.master.process.wait_for_log_line(&["recovering", "s2"]);
    assert_eq!(cluster.client_of("s1").list("").payloads(), ["precious"]);
    cluster.resume("s2");
    cluster.wait_mode("normal");
    let ok = cluster.client().cmd("APPEND w=3 next");
    assert_eq!(ok, "OK seq=2 epoch=2 have=3/3 need=3 by=master,s1,s2");
    assert_eq!(cluster.wait_equal_lists().payloads(), ["precious", "next"]);
}

/// The longest log counts, wherever it is: here s1 has what s2 was too slow for.
#[test]
fn the_longest_tail_is_adopted() {
    let mut cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    client.ok("APPEND w=3 one");
    cluster.client_of("s2").ok("DELAY every=60s");
    client.ok("APPEND w=2 two");
    client.ok("APPEND w=2 three");
    assert_eq!(cluster.client_of("s2").list("").payloads(), ["one"]);
    cluster.restart_master();
    cluster.wait_mode("normal");
    assert_eq!(cluster.client().list("").payloads(), ["one", "two", "three"]);
    cluster.client_of("s2").ok("DELAY off");
    assert_eq!(cluster.client().ok("APPEND w=3 four").number("seq"), 4);
    assert_eq!(cluster.wait_equal_lists().payloads(), ["one", "two", "three", "four"]);
}

/// A node that lost its log does not vouch for what it has: silence about an entry is no proof that
/// the entry never was.
#[test]
fn a_master_and_a_secondary_that_lost_their_logs_do_not_outvote_the_third() {
    let mut cluster = Cluster::of(2).start();
    cluster.client().ok("APPEND precious");
    cluster.pause("s2");
    cluster.kill("s1");
    cluster.start("s1");
    cluster.restart_master();
    let mut client = cluster.client();
    client.refused("APPEND w=1 x", "REJECTED recovering");
    cluster.resume("s2");
    wait_in_vain(&mut client);
    // s2 has the log, but s1 cannot say that it never had more: the operator must.
    assert_eq!(client.status().node.get("awaiting"), "s1");
    assert_eq!(cluster.client_of("s2").list("").payloads(), ["precious"]);
}

#[test]
fn the_operator_accepts_a_loss_by_naming_the_last_entry() {
    let mut cluster = Cluster::of(2).start();
    cluster.client().ok("APPEND one");
    cluster.client().ok("APPEND two");
    cluster.kill("s1");
    cluster.start("s1");
    // Everybody is there, and nobody will ever know more: the way out is said.
    cluster.restart_master();
    cluster.master.process.wait_for_log_line(&[
        "WARN",
        "all nodes answered",
        "seq=2",
        "awaited=\"s1\"",
    ]);
    let refused = cluster.client().cmd("APPEND x");
    assert!(refused.starts_with("REJECTED recovering - all nodes answered"), "{refused}");
    assert!(refused.contains("--accept-data-loss 2 "), "{refused}");
    cluster.master.process.kill();
    cluster.start_master_with(&["--accept-data-loss", "3"]);
    let mut client = cluster.client();
    wait_in_vain(&mut client);
    // What was named is not there, which is no reason to be silent about it.
    cluster.master.process.wait_for_log_line(&[
        "--accept-data-loss is beyond",
        "accepted=3",
        "seq=2",
    ]);
    let refused = client.cmd("APPEND x");
    for part in ["REJECTED recovering - ", "--accept-data-loss 3 is beyond the log", "ends at 2"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    cluster.master.process.kill();
    cluster.start_master_with(&["--accept-data-loss", "2"]);
    cluster.wait_mode("normal");
    assert_eq!(cluster.client().list("").payloads(), ["one", "two"]);
    cluster.master.process.wait_for_log_line(&["WARN", "the operator accepted it", "accepted=2"]);
    assert_eq!(cluster.client().ok("APPEND w=3 three").number("seq"), 3);
    // Where enough answer, nothing is lost, and nobody is told that it is.
    cluster.restart_master();
    cluster.wait_mode("normal");
    cluster.master.process.kill();
    cluster.start_master_with(&["--accept-data-loss", "2"]);
    cluster.wait_mode("normal");
    cluster.master.process.wait_for_log_line(&["INFO", "--accept-data-loss was not needed"]);
}

/// A master whose log was lost begins a new one with whoever answers, if that is a quorum. Nobody can
/// tell then what a silent node holds: it must not be lost by following advice.
#[test]
fn a_log_that_begins_without_a_node_says_so_and_that_node_keeps_its_own() {
    let mut cluster = Cluster::of(2).absent("s2").launch();
    let client = &mut cluster.client();
    wait_until("mode normal", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    client.ok("APPEND w=2 on both nodes");
    let unheard = ["WARN", "begins without these nodes", "unheard=\"s2\"", "empty nothing"];
    cluster.master.process.wait_for_log_line(&unheard);
    cluster.master.process.kill();
    cluster.pause("s1");
    cluster.start("s2");
    cluster.start_master_with(&[]);
    let client = &mut cluster.client();
    wait_until("a new log", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    let unheard = ["WARN", "begins without these nodes", "unheard=\"s1\"", "empty nothing"];
    cluster.master.process.wait_for_log_line(&unheard);
    client.ok("APPEND w=2 another log");
    cluster.resume("s1");
    let error = wait_until("the other log to be refused", || {
        let error = client.status().secondary("s1").get("error").to_owned();
        error.contains("foreign-log").then_some(error)
    });
    assert!(error.contains("holds 1 entry of another log"), "{error}");
    assert!(error.contains("do not empty it before you know which log is right"), "{error}");
    assert_eq!(cluster.client_of("s1").list("level=local").payloads(), ["on both nodes"]);
    let whole = Cluster::of(1).start();
    let log = whole.master.process.log();
    assert!(log.iter().all(|line| !line.contains("begins without")), "all were heard: {log:?}");
}

/// Two nodes of two clusters in one roster: nobody can tell which log is meant, and nobody is left to
/// guess why nothing happens.
#[test]
fn a_master_whose_nodes_hold_different_logs_says_who_holds_what_and_leads_with_neither() {
    let mut one = Cluster::of(1).start();
    one.client().ok("APPEND one");
    let mut other = Cluster::of(2).absent("s1").launch();
    let client = &mut other.client();
    wait_until("mode normal", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    client.ok("APPEND w=2 other");
    client.ok("APPEND w=2 one more");
    one.master.process.kill();
    other.master.process.kill();
    let (s1, s2) = (one.node("s1").ready.wire, other.node("s2").ready.wire);
    let (s1, s2) = (format!("s1={s1}"), format!("s2={s2}"));
    let torn = Cluster::of(0).master_flags(&["--secondary", &s1, "--secondary", &s2]).launch();
    torn.master.process.wait_for_log_line(&[
        "WARN",
        "hold different logs",
        "s1 holds 1 entry of ",
        "s2 holds 2 entries of ",
        "empty none before you know which is right",
    ]);
    let client = &mut torn.client();
    client.refused("APPEND w=1 x", "REJECTED recovering");
    assert!(client.cmd("APPEND w=1 x").contains("hold different logs"));
    let status = client.status();
    assert!(status.secondary("s1").get("error").contains("holds 1 entry of "), "{status:?}");
    assert!(status.secondary("s2").get("error").contains("holds 2 entries of "), "{status:?}");
    for (node, payloads) in [(&one, vec!["one"]), (&other, vec!["other", "one more"])] {
        let id = if payloads.len() == 1 { "s1" } else { "s2" };
        assert_eq!(node.client_of(id).list("level=local").payloads(), payloads);
    }
}

/// Two masters of one roster: the later one leads, the earlier one ends and says why.
#[test]
fn a_master_whose_epoch_is_over_is_deposed() {
    let mut cluster = Cluster::of(2).start();
    cluster.client().ok("APPEND one");
    let mut waiting = cluster.client();
    cluster.pause("s2");
    waiting.send("APPEND w=3 two");
    let mut usurper = cluster.second_master();
    cluster.resume("s2");
    let error = cluster.master.process.wait_for_log_line(&["deposed"]);
    assert!(error.contains("epoch"), "{error}");
    assert_eq!(cluster.master.process.wait_exit(), Some(1));
    let answer = waiting.line();
    assert!(answer.starts_with("UNKNOWN seq=2 ") || answer.starts_with("OK seq=2 "), "{answer}");
    let mut client = common::Gateway::connect(usurper.ready.gateway);
    wait_until("a normal second master", || {
        (client.status().node.get("mode") == "normal").then_some(())
    });
    assert_eq!(client.list("").payloads()[0], "one");
    client.ok("APPEND w=3 of another epoch");
    usurper.process.kill();
}
