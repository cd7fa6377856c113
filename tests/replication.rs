//! Replication as clients see it: who has to hold an entry before an answer, and that all copies
//! end up the same (interface 2.2, design 3 and 5).

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Cluster, Gateway, Noise, escaped, wait_until};

const MIB: usize = 1024 * 1024;

#[test]
fn a_default_append_answers_after_all_three_nodes_hold_it() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    let ok = "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2";
    assert_eq!(client.cmd("APPEND hello"), ok);
    for mut client in cluster.clients() {
        assert_eq!(client.list("").entries, [(1, "hello".to_owned())]);
    }
}

/// With one slow node the default append takes as long as that node, w=2 does not; the lists
/// differ meanwhile and become equal.
#[test]
fn a_delayed_secondary_delays_only_appends_that_need_it() {
    let cluster = Cluster::of(2).set("cluster.attempt_timeout", "10s").start();
    let (mut s1, mut s2) = (cluster.client_of("s1"), cluster.client_of("s2"));
    s2.ok("DELAY every=3s");
    let mut patient = cluster.client();
    let asked = Instant::now();
    patient.send("APPEND slow");
    let mut client = cluster.client();
    wait_until("the slow entry", || (client.list("").entries.len() == 1).then_some(()));
    let quick = client.cmd("APPEND w=2 quick");
    assert_eq!(quick, "OK seq=2 epoch=1 have=2/3 need=2 by=master,s1");
    patient.assert_still_waiting();
    assert_eq!(s1.list("").payloads(), ["slow", "quick"]);
    assert_eq!(s2.list("").entries, []);
    assert_eq!(patient.line(), "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2");
    assert!(asked.elapsed() >= Duration::from_secs(3), "{:?}", asked.elapsed());
    client.ok("WAIT 2 w=3");
    assert_eq!(cluster.wait_equal_lists().payloads(), ["slow", "quick"]);
}

/// Sixteen frames that are three seconds late each are late together, not one after the other:
/// that would take longer than a reply may take here.
#[test]
fn the_delays_of_several_entries_overlap() {
    let cluster = Cluster::of(2).set("cluster.attempt_timeout", "10s").start();
    cluster.client_of("s2").ok("DELAY every=3s");
    let mut client = cluster.client();
    for number in 1..=15 {
        // One answer before the next append: each entry travels in a frame of its own.
        client.ok(&format!("APPEND w=2 entry {number}"));
    }
    let asked = Instant::now();
    let last = client.cmd("APPEND w=3 last");
    assert_eq!(last, "OK seq=16 epoch=1 have=3/3 need=3 by=master,s1,s2");
    assert!(asked.elapsed() >= Duration::from_secs(3), "{:?}", asked.elapsed());
    cluster.wait_equal_lists();
}

/// Neither secondary has to wait for the other: whichever is slow, the other one has the entry.
#[test]
fn entries_go_to_all_secondaries_in_parallel() {
    let cluster = Cluster::of(2).set("cluster.attempt_timeout", "10s").start();
    let mut client = cluster.client();
    for (slow, quick) in [("s1", "s2"), ("s2", "s1")] {
        cluster.client_of(slow).ok("DELAY every=1s");
        let reply = client.ok("APPEND w=2 x");
        assert_eq!(reply.get("by"), format!("master,{quick}"));
        client.ok(&format!("WAIT {} w=3", reply.number("seq")));
        cluster.client_of(slow).ok("DELAY off");
    }
}

/// A one-time delay: the entry behind the delayed one is received, not stored; the
/// repetition is stored at once; the late original is a duplicate.
#[test]
fn a_delayed_entry_is_repeated_and_its_late_original_is_a_counted_duplicate() {
    let attempt_timeout = Duration::from_secs(3);
    let cluster = Cluster::of(2)
        .set("cluster.attempt_timeout", "3s")
        .set("cluster.retry_delays", "1s")
        .start();
    let (mut s1, mut s2) = (cluster.client_of("s1"), cluster.client_of("s2"));
    s1.ok("DELAY 10");
    let mut first = cluster.client();
    let asked = Instant::now();
    first.send("APPEND w=3 first");
    let mut second = cluster.client();
    wait_until("the first entry on its way to both", || {
        let sent = second.status().secondary("s1").number("inflight") > 0;
        (sent && s2.list("").entries.len() == 1).then_some(())
    });
    let received = second.cmd("APPEND ack=received w=3 second");
    assert_eq!(received, "OK seq=2 epoch=1 have=3/3 need=3 by=master,s1,s2");
    first.assert_still_waiting();
    assert_eq!(s1.list("").entries, [], "nothing is shown behind a hole");
    let received = second.cmd("WAIT 2 ack=received w=3 timeout=0");
    assert_eq!(received, "OK seq=2 epoch=1 have=3/3 need=3 by=master,s1,s2");
    let stored = second.cmd("WAIT 2 ack=stored w=3 timeout=0");
    assert_eq!(stored, "PENDING seq=2 epoch=1 have=2/3 need=3 by=master,s2 missing=s1");
    let status = second.status();
    assert_eq!(status.secondary("s1").number("stored"), 0, "{status:?}");

    assert_eq!(first.line(), "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2");
    assert!(asked.elapsed() >= attempt_timeout, "{:?}", asked.elapsed());
    let before = s1.status().master().number("duplicates");
    second.ok("WAIT 2 w=3");
    assert_eq!(s1.list("").payloads(), ["first", "second"]);
    wait_until("the late original to be counted", || {
        (s1.status().master().number("duplicates") > before).then_some(())
    });
    assert_eq!(cluster.wait_equal_lists().payloads(), ["first", "second"]);
}

/// Only the master and s1 are started: w=3 waits as long as it takes, through failed connection
/// attempts and verdicts, and holds up nobody.
#[test]
fn an_append_waits_for_a_secondary_that_is_not_started_yet() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    wait_while_others_go_on(&mut cluster, |cluster| cluster.start("s2"));
}

#[test]
fn an_append_waits_for_a_secondary_that_was_killed() {
    let mut cluster = Cluster::of(2).start();
    cluster.kill("s2");
    wait_while_others_go_on(&mut cluster, |cluster| cluster.start("s2"));
}

#[test]
fn an_append_waits_for_a_secondary_that_is_paused() {
    let mut cluster = Cluster::of(2).start();
    cluster.pause("s2");
    wait_while_others_go_on(&mut cluster, |cluster| cluster.resume("s2"));
}

#[test]
fn an_append_waits_for_a_secondary_that_is_cut_off() {
    let mut cluster = Cluster::of(2).proxied("s2").start();
    cluster.proxy("s2").cut();
    wait_while_others_go_on(&mut cluster, |cluster| cluster.proxy("s2").heal());
}

#[test]
fn an_append_waits_for_a_secondary_that_is_mute() {
    let mut cluster = Cluster::of(2).start();
    cluster.client_of("s2").ok("MUTE 1000s");
    wait_while_others_go_on(&mut cluster, |cluster| {
        cluster.client_of("s2").ok("MUTE off");
    });
}

/// s2 does not answer. w=1 and w=2 answer before and after a waiting w=3, up to the time s2 is
/// unhealthy and beyond; once s2 is back, w=3 answers and all lists are the same.
fn wait_while_others_go_on(cluster: &mut Cluster, bring_s2_back: impl FnOnce(&mut Cluster)) {
    let mut client = cluster.client();
    client.ok("APPEND w=1 before");
    client.ok("APPEND w=2 before");
    let mut patient = cluster.client();
    patient.send("APPEND w=3 waits");
    let mut seq = 2;
    wait_until("s2 to be unhealthy", || {
        seq = client.ok("APPEND w=1 meanwhile").number("seq");
        let reply = client.ok("APPEND w=2 meanwhile");
        assert_eq!(reply.get("by"), "master,s1");
        (client.ask("HEALTH").get("s2") == "unhealthy").then_some(())
    });
    patient.assert_still_waiting();
    bring_s2_back(cluster);
    let ok = patient.line();
    assert!(ok.starts_with("OK seq=") && ok.contains(" have=3/3 "), "{ok}");
    client.ok(&format!("WAIT {} w=3", seq + 1));
    let list = cluster.wait_equal_lists();
    assert_eq!(list.payloads()[..2], ["before", "before"]);
    assert_eq!(list.payloads().iter().filter(|payload| **payload == "waits").count(), 1);
    cluster.wait_health("s2", "healthy");
}

/// A link that is slow, or breaks again and again, loses nothing and doubles nothing.
#[test]
fn a_link_that_is_slow_and_breaks_loses_and_doubles_nothing() {
    const APPENDS: usize = 300;
    let cluster = Cluster::of(2).proxied("s2").start();
    cluster.proxy("s2").delay(Duration::from_millis(20));
    thread::scope(|scope| {
        let appending = scope.spawn(|| {
            let mut client = cluster.client();
            for number in 1..=APPENDS {
                assert_eq!(client.ok(&format!("APPEND w=2 {number}")).get("need"), "2");
            }
        });
        let mut client = cluster.client();
        for part in 1..=5 {
            wait_until("some more appends", || {
                let next = client.status().node.number("next");
                (next > part * 50).then_some(())
            });
            cluster.proxy("s2").drop_connections();
        }
        appending.join().expect("all appends are OK");
    });
    let list = cluster.wait_equal_lists();
    let expected: Vec<String> = (1..=APPENDS).map(|number| number.to_string()).collect();
    assert_eq!(list.payloads(), expected);
}

#[test]
fn a_master_without_secondaries_is_a_cluster() {
    clusters_of_every_size_work(0);
}

#[test]
fn a_master_with_one_secondary_is_a_cluster() {
    clusters_of_every_size_work(1);
}

#[test]
fn a_master_with_five_secondaries_is_a_cluster() {
    clusters_of_every_size_work(5);
}

fn clusters_of_every_size_work(secondaries: usize) {
    let nodes = secondaries + 1;
    let majority = nodes / 2 + 1;
    let cluster = Cluster::of(secondaries).start();
    let mut client = cluster.client();
    let by = (1..nodes).fold("master".to_owned(), |by, number| format!("{by},s{number}"));
    let all = format!("OK seq=1 epoch=1 have={nodes}/{nodes} need={nodes} by={by}");
    assert_eq!(client.cmd("APPEND by all"), all);
    for w in 1..=nodes {
        assert_eq!(client.ok(&format!("APPEND w={w} x")).get("need"), w.to_string());
    }
    assert_eq!(client.ok("APPEND w=majority x").get("need"), majority.to_string());
    client.refused(&format!("APPEND w={} x", nodes + 1), "REJECTED bad-write-concern");
    let health = client.ok("HEALTH");
    assert_eq!(health.get("present"), nodes.to_string());
    assert_eq!(health.get("need"), majority.to_string());
    assert_eq!(cluster.wait_equal_lists().entries.len(), nodes + 2);
}

/// Any bytes but the line feed, which ends a line, up to 1 MiB; one byte more is refused and the
/// connection lives.
#[test]
fn payloads_from_empty_to_the_largest_arrive_on_all_nodes() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    let mut noise = Noise::seeded(3);
    let sizes = [0, 1, 2, 99, 4095, 4096, 65_535, 65_537, 300_000, MIB - 1, MIB];
    let payloads: Vec<Vec<u8>> = sizes.into_iter().map(|size| noise.payload(size)).collect();
    for payload in &payloads {
        client.send_bytes(&[b"APPEND -- ", payload.as_slice(), b"\n"].concat());
        let reply = client.line();
        assert!(reply.contains(" have=3/3 "), "{} bytes: {reply}", payload.len());
    }
    client.send_bytes(&[b"APPEND -- ", noise.payload(MIB + 1).as_slice(), b"\n"].concat());
    let reply = client.line();
    assert!(reply.starts_with("REJECTED too-large "), "{reply}");
    for mut client in cluster.clients() {
        client.send("LIST");
        for (payload, seq) in payloads.iter().zip(1..) {
            let shown = [format!("{seq} ").as_bytes(), &escaped(payload)].concat();
            assert!(client.line_bytes() == shown, "the {} bytes of entry {seq}", payload.len());
        }
        assert!(client.line().starts_with("END count=11 "));
    }
}

/// Eight clients with mixed w: equal lists, dense numbers, each client's order kept.
#[test]
fn many_clients_with_mixed_write_concerns_share_one_order() {
    const CLIENTS: usize = 8;
    const APPENDS: usize = 50;
    let cluster = Cluster::of(2).start();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut client = cluster.client();
            scope.spawn(move || append_in_order(&mut client, number, APPENDS));
        }
    });
    let list = cluster.wait_equal_lists();
    assert_eq!(list.entries.len(), CLIENTS * APPENDS);
    for client in 0..CLIENTS {
        let of_client = format!("client {client} ");
        let mine = list.payloads().into_iter().filter(|payload| payload.starts_with(&of_client));
        let mine: Vec<&str> = mine.collect();
        let sent: Vec<String> = (0..APPENDS).map(|n| format!("{of_client}entry {n}")).collect();
        assert_eq!(mine, sent);
    }
}

/// One after the other, with w=1, 2, 3, majority and all in turn; numbers only grow.
fn append_in_order(client: &mut Gateway, number: usize, appends: usize) {
    let mut last = 0;
    for entry in 0..appends {
        let w = ["1", "2", "3", "majority", "all"][(number + entry) % 5];
        let reply = client.ok(&format!("APPEND w={w} client {number} entry {entry}"));
        assert!(reply.number("seq") > last, "{} after {last}", reply.line());
        last = reply.number("seq");
    }
}

#[test]
fn fifty_waiting_clients_slow_nobody() {
    let cluster = Cluster::of(2).start();
    cluster.pause("s2");
    let mut waiting: Vec<Gateway> = (0..50).map(|_| cluster.client()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(&format!("APPEND w=3 waiting {number}"));
    }
    let mut client = cluster.client();
    wait_until("all of them to wait", || {
        (client.status().node.get("waiting") == "50").then_some(())
    });
    for number in 0..300 {
        assert_eq!(client.ok(&format!("APPEND w=2 quick {number}")).get("by"), "master,s1");
    }
    for client in &mut waiting {
        client.assert_still_waiting();
    }
    cluster.resume("s2");
    for client in &mut waiting {
        assert!(client.line().contains(" have=3/3 "));
    }
    assert_eq!(cluster.wait_equal_lists().entries.len(), 350);
}

/// A secondary in memory comes back empty: it is filled again from the first entry.
#[test]
fn a_secondary_that_lost_everything_is_filled_again() {
    let mut cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    for number in 1..=500 {
        client.ok(&format!("APPEND w=2 {number}"));
    }
    client.ok("WAIT 500 w=3");
    cluster.kill("s1");
    cluster.wait_health("s1", "unhealthy");
    client.ok("APPEND w=2 while s1 is away");
    cluster.start("s1");
    assert!(client.cmd("WAIT 501 w=3").starts_with("OK seq=501 epoch=1 have=3/3 "));
    assert_eq!(cluster.wait_equal_lists().entries.len(), 501);
}
