//! Promises of APPEND that need a cluster of their own (interface 2.2). `INTERFACE.md` maps every
//! promise to its test.

mod common;

use common::{Cluster, Setup, wait_until};

/// Whoever does not say what counts gets what `cluster.ack` says, and stored by default: shown by an
/// entry that a secondary has in memory but cannot store, because the one before it is late.
#[test]
fn the_configured_ack_is_for_appends_that_name_none() {
    behind_a_late_one(Cluster::of(1), "stored", "received");
    behind_a_late_one(Cluster::of(1).set("cluster.ack", "received"), "received", "stored");
}

fn behind_a_late_one(setup: Setup, default: &str, other: &str) {
    let cluster = setup.set("cluster.attempt_timeout", "1000s").start();
    cluster.client_of("s1").ok("DELAY 1000s");
    let mut late = cluster.client();
    late.send("APPEND w=1 late");
    assert!(late.line().starts_with("OK seq=1 "));
    let mut client = cluster.client();
    wait_until("the late entry to be under way", || {
        (client.status().secondary("s1").number("inflight") > 0).then_some(())
    });
    client.ok("APPEND ack=received w=2 behind it");
    let class = |ack| if ack == "received" { "OK" } else { "PENDING" };
    assert_eq!(client.ask("WAIT 2 w=2 timeout=0").class(), class(default), "by default");
    for ack in [default, other] {
        let wait = format!("WAIT 2 ack={ack} w=2 timeout=0");
        assert_eq!(client.ask(&wait).class(), class(ack), "{wait}");
    }
    client.send("APPEND w=2 timeout=1s by default");
    assert_eq!(client.line().split(' ').next(), Some(class(default)));
}

/// `by` and `missing` name the nodes in the order of the roster, whatever the order of their answers.
#[test]
fn by_and_missing_name_the_nodes_in_roster_order() {
    let cluster = Cluster::of(4).start();
    let mut client = cluster.client();
    client.ok("APPEND on all");
    for id in ["s3", "s1"] {
        cluster.client_of(id).ok("DELAY every=1000s");
    }
    let reply = client.cmd("APPEND w=3 x");
    assert_eq!(reply, "OK seq=2 epoch=1 have=3/5 need=3 by=master,s2,s4");
    let reply = client.cmd("WAIT 2 timeout=0");
    assert_eq!(reply, "PENDING seq=2 epoch=1 have=3/5 need=5 by=master,s2,s4 missing=s1,s3");
    assert_eq!(client.ok("GET 2").get("by"), "master,s2,s4");
    assert_eq!(client.ok("GET 1").get("by"), "master,s1,s2,s3,s4");
}
