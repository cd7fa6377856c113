//! APPEND on the text gateway: options, payload, replies, refusals and their order (interface 2.2).

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, wait_until};

const MIB: usize = 1024 * 1024;

#[test]
fn the_reply_names_the_number_the_nodes_and_the_need() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    let all = "epoch=1 have=3/3 need=3 by=master,s1,s2";
    assert_eq!(client.cmd("APPEND hello world"), format!("OK seq=1 {all}"));
    assert_eq!(client.cmd("APPEND w=all hello"), format!("OK seq=2 {all}"));
    assert_eq!(client.cmd("APPEND w=3 hello"), format!("OK seq=3 {all}"));
    for (w, need) in [("1", 1), ("2", 2), ("majority", 2)] {
        let reply = client.ok(&format!("APPEND w={w} hello"));
        assert_eq!(reply.keys(), ["seq", "epoch", "have", "need", "by"]);
        assert_eq!(reply.number("need"), need);
        let by: Vec<&str> = reply.get("by").split(',').collect();
        assert_eq!(reply.get("have"), format!("{}/3", by.len()));
        assert_eq!(by[0], "master", "the master is always among them");
        assert!(by.len() as u64 >= need, "{}", reply.line());
    }
}

/// `w` counts the configured roster: a node that is not there counts too.
#[test]
fn a_write_concern_beyond_the_roster_is_rejected_and_consumes_no_number() {
    let cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    assert_eq!(
        client.cmd("APPEND w=5 x"),
        "REJECTED bad-write-concern w=5 nodes=3 - w counts nodes: 1 to 3, majority or all"
    );
    for w in ["0", "4", "-1", "1.5", "abc", "99999999999999999999"] {
        let reply = client.refused(&format!("APPEND w={w} x"), "REJECTED bad-write-concern");
        assert_eq!((reply.get("w"), reply.get("nodes")), (w, "3"));
    }
    assert_eq!(client.ok("APPEND w=1 x").number("seq"), 1);
}

#[test]
fn malformed_options_are_errors_and_append_nothing() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    for (options, code) in [
        ("ack=maybe", "bad-value"),
        ("timeout=soon", "bad-value"),
        ("timeout=-1", "bad-value"),
        ("w=1 w=1", "bad-option"),
        ("ack=stored ack=stored", "bad-option"),
        ("timeout=1s w=1 timeout=1s", "bad-option"),
    ] {
        client.refused(&format!("APPEND {options} x"), &format!("ERR {code}"));
    }
    assert_eq!(client.list("").entries, []);
}

/// Options come first; the first word that is none begins the payload, which is the rest of the
/// line, byte for byte.
#[test]
fn the_payload_is_the_rest_of_the_line() {
    let cases = [
        ("APPEND hello", "hello"),
        ("APPEND  x", " x"),
        ("APPEND x  y  ", "x  y  "),
        ("APPEND w=1 x", "x"),
        ("APPEND w=1  x", " x"),
        ("APPEND ack=received w=1 timeout=1s x", "x"),
        ("APPEND x w=1", "x w=1"),
        ("APPEND unlisted=1 w=1", "unlisted=1 w=1"),
        ("APPEND w=1 -- w=2 is what I say", "w=2 is what I say"),
        ("APPEND -- w=99", "w=99"),
        ("APPEND -- -- x", "-- x"),
        ("APPEND --  x", " x"),
        ("APPEND -x", "-x"),
        ("APPEND", ""),
        ("APPEND w=1", ""),
        ("APPEND --", ""),
        ("append LIST", "LIST"),
    ];
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    for (command, _) in cases {
        client.ok(command);
    }
    let listed = client.list("").entries;
    for ((seq, payload), (command, expected)) in listed.iter().zip(cases) {
        assert_eq!(payload, expected, "entry {seq}, {command:?}");
    }
    assert_eq!(listed.len(), cases.len());
}

#[test]
fn an_empty_payload_is_a_valid_entry() {
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    assert_eq!(client.cmd("APPEND"), "OK seq=1 epoch=1 have=2/2 need=2 by=master,s1");
    for mut client in cluster.clients() {
        client.send("LIST");
        assert_eq!(client.line(), "1 ");
        client.line();
        let got = client.ok("GET 1");
        assert_eq!((got.get("bytes"), got.get("payload")), ("0", ""));
    }
}

/// PENDING at the timeout says who is missing; the entry stays and its replication goes on.
#[test]
fn a_timeout_answers_pending_and_the_entry_stays() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    client.ok("APPEND w=2 first");
    let asked = Instant::now();
    let reply = client.cmd("APPEND w=3 timeout=500ms x");
    assert!(asked.elapsed() >= Duration::from_millis(500), "{:?}", asked.elapsed());
    assert_eq!(reply, "PENDING seq=2 epoch=1 have=2/3 need=3 by=master,s1 missing=s2");
    assert_eq!(client.list("").payloads(), ["first", "x"]);
    cluster.start("s2");
    let ok = "OK seq=2 epoch=1 have=3/3 need=3 by=master,s1,s2";
    assert_eq!(client.cmd("WAIT 2 w=3"), ok);
}

#[test]
fn a_timeout_of_zero_answers_when_the_master_has_the_entry() {
    let cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    let reply = client.ask("APPEND w=3 timeout=0 x");
    assert_eq!(reply.class(), "PENDING", "{}", reply.line());
    assert_eq!(reply.keys(), ["seq", "epoch", "have", "need", "by", "missing"]);
    assert!(reply.get("by").starts_with("master"), "{}", reply.line());
    assert!(reply.get("missing").ends_with("s2"), "{}", reply.line());
    assert_eq!(client.list("").payloads(), ["x"], "it is in the master's log");
    client.ok("APPEND w=1 timeout=0 y");
}

/// A bare number is seconds; `none` waits, whatever the default is.
#[test]
fn the_default_timeout_and_write_concern_and_ack_can_be_configured() {
    let mut cluster = Cluster::of(2)
        .absent("s2")
        .set("cluster.append_timeout", "0.2")
        .set("cluster.write_concern", "majority")
        .set("cluster.ack", "received")
        .start();
    let mut client = cluster.client();
    assert_eq!(client.ok("APPEND by default").number("need"), 2);
    assert_eq!(client.ask("APPEND w=all x").class(), "PENDING");
    let mut patient = cluster.client();
    patient.send("APPEND w=all timeout=none y");
    wait_until("the entry of the patient client", || {
        (client.list("").entries.len() == 3).then_some(())
    });
    assert_eq!(client.ask("APPEND w=all z").class(), "PENDING");
    patient.assert_still_waiting();
    cluster.start("s2");
    assert!(patient.line().starts_with("OK seq=3 "));
}

/// Appends of one connection get their numbers in the order sent, however many are on the way.
#[test]
fn pipelined_appends_are_numbered_in_the_order_sent() {
    const APPENDS: usize = 1000;
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    let w = |number: usize| if number.is_multiple_of(3) { 1 } else { 2 };
    let lines: String =
        (1..=APPENDS).map(|number| format!("APPEND w={} entry {number}\n", w(number))).collect();
    client.send_bytes(lines.as_bytes());
    for number in 1..=APPENDS {
        let reply = client.line();
        assert!(reply.starts_with(&format!("OK seq={number} ")), "{reply}");
    }
    let expected: Vec<String> = (1..=APPENDS).map(|number| format!("entry {number}")).collect();
    assert_eq!(cluster.wait_equal_lists().payloads(), expected);
}

/// APPEND starts at once, its reply waits its turn: no later append on the connection is held up.
#[test]
fn a_waiting_append_lets_later_ones_on_its_connection_start() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    client.send("APPEND w=3 waits");
    client.send("APPEND w=1 starts");
    client.send("PING");
    let mut other = cluster.client();
    let listed = wait_until("both entries", || {
        let list = other.list("");
        (list.entries.len() == 2).then_some(list)
    });
    assert_eq!(listed.payloads(), ["waits", "starts"]);
    other.ok("APPEND w=2 another client");
    client.assert_still_waiting();
    cluster.start("s2");
    assert!(client.line().starts_with("OK seq=1 epoch=1 have=3/3 "));
    assert!(client.line().starts_with("OK seq=2 "));
    assert_eq!(client.line(), "PONG");
}

/// A WAIT sees the appends that were said before it, however few packets they came in.
#[test]
fn a_wait_may_be_said_together_with_what_it_waits_for() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    for first in (1..200).step_by(2) {
        client.send_bytes(format!("APPEND a\nAPPEND b\nWAIT {}\n", first + 1).as_bytes());
        for seq in [first, first + 1, first + 1] {
            let expected = format!("OK seq={seq} epoch=1 have=3/3 need=3 by=master,s1,s2");
            assert_eq!(client.line(), expected);
        }
    }
}

#[test]
fn a_client_that_disconnects_gives_up_waiting_but_not_the_append() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    client.send("APPEND w=3 orphan");
    let mut other = cluster.client();
    wait_until("the entry", || (other.list("").entries.len() == 1).then_some(()));
    drop(client);
    cluster.start("s2");
    assert!(other.cmd("WAIT 1 w=3").starts_with("OK seq=1 epoch=1 have=3/3 "));
    assert_eq!(cluster.wait_equal_lists().payloads(), ["orphan"]);
}

/// Syntax, then role, then size, then w, then the mode: the first check that fails answers.
#[test]
fn checks_are_made_in_the_stated_order() {
    let cluster = Cluster::of(1).start();
    let too_large = "x".repeat(MIB + 1);
    let mut secondary = cluster.client_of("s1");
    secondary.refused(&format!("APPEND ack=maybe w=9 {too_large}"), "ERR bad-value");
    secondary.refused(&format!("APPEND w=9 {too_large}"), "REJECTED not-master");
    let mut master = cluster.client();
    master.refused(&format!("APPEND w=9 timeout=soon {too_large}"), "ERR bad-value");
    master.refused(&format!("APPEND w=9 {too_large}"), "REJECTED too-large");
    cluster.pause("s1");
    cluster.wait_mode("read-only");
    master.refused(&format!("APPEND {too_large}"), "REJECTED too-large");
    master.refused("APPEND w=9 x", "REJECTED bad-write-concern");
    master.refused("APPEND w=1 x", "REJECTED read-only");
    assert_eq!(master.list("").entries, []);
}
