//! Promises of reading, of seeing the cluster and of the fault verbs that need to be tried word by
//! word (interface 2.3, 2.4, 2.6). `INTERFACE.md` maps every promise to its test.

mod common;

use common::{Cluster, Fields, Gateway, wait_until};

/// Three nodes that hold three, two and one entries: every level shows its own share.
#[test]
fn every_level_shows_exactly_what_so_many_nodes_hold() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    client.ok("APPEND w=3 on three");
    cluster.client_of("s2").ok("MUTE 1000s");
    cluster.client_of("s2").ok("DELAY every=1000s");
    client.ok("APPEND w=2 on two");
    cluster.client_of("s1").ok("DELAY every=1000s");
    client.ok("APPEND w=1 on one");
    let entries = ["on three", "on two", "on one"];
    for (level, count) in [
        ("", 3),
        ("level=local", 3),
        ("level=1", 3),
        ("level=2", 2),
        ("level=committed", 2),
        ("level=3", 1),
        ("level=all", 1),
    ] {
        let list = client.list(level);
        assert_eq!(list.payloads(), entries[..count], "{level}");
        let shown = level.strip_prefix("level=").unwrap_or("local");
        let end = format!("END count={count} first=1 last={count} commit=2 level={shown}");
        assert_eq!(list.end.line(), end);
    }
    for level in ["0", "4", "65536", "-1", "some", ""] {
        client.refused(&format!("LIST level={level}"), "ERR bad-value");
    }
    client.refused("TAIL level=4", "ERR bad-value");

    let mut secondary = cluster.client_of("s1");
    let (local, first) = (&entries[..2], &entries[..1]);
    wait_until("s1 to learn the commit", || {
        (secondary.list("level=committed").payloads() == local).then_some(())
    });
    for (level, shown) in [("1", local), ("2", local), ("3", first), ("all", first)] {
        let level = format!("level={level}");
        assert_eq!(secondary.list(&level).payloads(), shown, "s1 shows no more than it holds");
    }
    secondary.refused("LIST level=4", "ERR bad-value");
}

/// A level never falls below what it showed only because time passes, and an idle line tells where
/// a tail would go on at its level.
#[test]
fn an_idle_tail_tells_the_next_number_at_its_level() {
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    client.ok("APPEND on both");
    cluster.client_of("s1").ok("DELAY every=1000s");
    client.ok("APPEND w=1 on one");
    for (options, next) in [("level=local", 3), ("", 2), ("level=all", 2), ("level=1", 3)] {
        client.send(format!("TAIL {options}").trim_end());
        assert_eq!(client.line(), format!("# next={next} commit=1"), "TAIL {options}");
        client.send("");
        let (idle, end) = client.lines_until_end();
        assert!(idle.iter().all(|line| line.starts_with("# ")), "{idle:?}");
        assert_eq!(end.line(), "END count=0");
    }
}

/// `last=` counts back from the end of its level; a CRLF ends a tail as a LF does.
#[test]
fn tail_last_counts_at_its_level() {
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    for payload in ["a", "b", "c"] {
        client.ok(&format!("APPEND {payload}"));
    }
    cluster.client_of("s1").ok("DELAY every=1000s");
    client.ok("APPEND w=1 d");
    for (options, shown) in [
        ("last=1", vec!["c"]),
        ("last=2 level=local", vec!["c", "d"]),
        ("level=all last=0", vec![]),
    ] {
        client.send(&format!("TAIL {options}"));
        for payload in &shown {
            assert_eq!(client.tail_entry().1, *payload, "TAIL {options}");
        }
        assert!(client.line().starts_with("# next="), "nothing more at this level");
        client.send_bytes(b"\r\n");
        let (_, end) = client.lines_until_end();
        assert_eq!(end.number("count"), shown.len() as u64);
    }
}

/// A start beyond the end waits for that entry and shows none before it.
#[test]
fn a_tail_may_begin_beyond_the_end() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    client.ok("APPEND a");
    let mut tail = cluster.client();
    tail.send("TAIL from=3");
    assert!(tail.line().starts_with("# next=3 "));
    client.ok("APPEND b");
    client.ok("APPEND c");
    assert_eq!(tail.tail_entry(), (3, "c".to_owned()));
}

#[test]
fn wait_refuses_what_is_not_in_the_log_and_what_cannot_be() {
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    client.ok("APPEND x");
    for (seq, next) in [("2", 2), ("0", 2), ("18446744073709551615", 2)] {
        assert_eq!(client.refused(&format!("WAIT {seq}"), "ERR not-found").number("next"), next);
    }
    for command in ["WAIT", "WAIT -1", "WAIT x", "WAIT 1 ack=maybe", "WAIT 1 timeout=soon"] {
        client.refused(command, "ERR bad-value");
    }
    client.refused("WAIT 1 id=p:1", "ERR bad-option");
    client.refused("WAIT 1 w=3", "REJECTED bad-write-concern");
    assert_eq!(client.cmd("WAIT 1"), "OK seq=1 epoch=1 have=2/2 need=2 by=master,s1");
}

/// GET and DIGEST take a number that is in the log, and nothing else.
#[test]
fn numbers_beyond_the_log_are_not_found() {
    let cluster = Cluster::of(1).start();
    cluster.client().ok("APPEND x");
    for mut client in cluster.clients() {
        for command in ["GET 2", "GET 0", "DIGEST 2", "DIGEST 18446744073709551615"] {
            client.refused(command, "ERR not-found");
        }
        for command in ["GET", "GET x", "GET -1", "DIGEST x", "GET 18446744073709551616"] {
            client.refused(command, "ERR bad-value");
        }
    }
}

/// The digest of an empty log is one and the same on every node of every cluster; DIGEST 0 stays it.
#[test]
fn the_digest_of_an_empty_log_is_that_of_nothing() {
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    let nothing = client.cmd("DIGEST");
    let fields = Fields::of(&nothing);
    assert_eq!(fields.keys(), ["seq", "epoch", "digest"]);
    assert_eq!((fields.get("seq"), fields.get("epoch")), ("0", "0"));
    let stranger = Cluster::lone_secondary();
    let mut others = vec![cluster.client_of("s1"), Gateway::connect(stranger.ready.gateway)];
    for other in &mut others {
        assert_eq!(other.cmd("DIGEST"), nothing);
    }
    client.ok("APPEND x");
    assert_eq!(client.cmd("DIGEST 0"), nothing);
    assert_ne!(client.ok("DIGEST").get("digest"), fields.get("digest"));
}

/// One line for each append that waits, in the order of the log, who is missing named; the line goes
/// when the append is answered.
#[test]
fn waiters_lists_the_appends_that_wait_and_whom_they_miss() {
    let mut cluster = Cluster::of(3).absent("s2").absent("s3").set("cluster.quorum", "2").start();
    let mut client = cluster.client();
    let waiters = |client: &mut Gateway| {
        client.send("WAITERS");
        let (lines, end) = client.lines_until_end();
        assert_eq!(end.keys(), ["count"]);
        assert_eq!(end.number("count"), lines.len() as u64);
        lines.iter().map(|line| Fields::of(line)).collect::<Vec<_>>()
    };
    assert!(waiters(&mut client).is_empty());
    client.ok("APPEND w=2 answered");
    let mut waiting = cluster.client();
    waiting.send("APPEND w=3 two");
    waiting.send("APPEND w=4 three");
    let lines = wait_until("two appends that wait, held by s1", || {
        let lines = waiters(&mut client);
        let held = lines.iter().all(|line| line.get("have") == "2");
        (lines.len() == 2 && held).then_some(lines)
    });
    for (line, (seq, need)) in lines.iter().zip([("2", "3"), ("3", "4")]) {
        assert_eq!(line.keys(), ["seq", "need", "have", "missing", "age_ms"]);
        assert_eq!((line.get("seq"), line.get("need")), (seq, need), "{}", line.line());
        assert_eq!(line.get("missing"), "s2,s3");
        line.number("age_ms");
    }
    cluster.start("s3");
    assert!(waiting.line().starts_with("OK seq=2 epoch=1 have=3/4 need=3 by=master,s1,s3"));
    let lines = wait_until("one append that waits", || {
        let lines = waiters(&mut client);
        (lines.len() == 1 && lines[0].get("have") == "3").then_some(lines)
    });
    assert_eq!((lines[0].get("seq"), lines[0].get("missing")), ("3", "s2"));
    cluster.start("s2");
    assert!(waiting.line().starts_with("OK seq=3 "));
    assert!(waiters(&mut client).is_empty());
}

/// What a node does not know is a dash, in its place.
#[test]
fn a_lone_secondary_writes_a_dash_for_what_it_does_not_know() {
    let node = Cluster::lone_secondary();
    let mut client = Gateway::connect(node.ready.gateway);
    let status = client.status();
    for (key, value) in [
        ("id", "s1"),
        ("role", "secondary"),
        ("epoch", "0"),
        ("mode", "normal"),
        ("next", "1"),
        ("commit", "0"),
        ("quorum", "-"),
        ("present", "-"),
        ("log_id", "-"),
        ("store", "memory"),
        ("fsync", "-"),
        ("waiting", "0"),
        ("damaged", "-"),
        ("awaiting", "-"),
    ] {
        assert_eq!(status.node.get(key), value, "{}", status.node.line());
    }
    let master = "master addr=- connected=false last_contact_ms=- held=0 duplicates=0";
    assert_eq!(status.master().line(), master);
    assert_eq!(client.cmd("HEALTH"), "OK mode=normal master=- connected=false last_contact_ms=-");
}

/// The same line in every mode that this version has: what changes is what it says.
#[test]
fn health_is_one_line_in_every_mode() {
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    assert_eq!(client.cmd("HEALTH"), "OK mode=normal present=2 need=2 s1=healthy");
    cluster.pause("s1");
    cluster.wait_mode("read-only");
    assert_eq!(client.cmd("HEALTH"), "OK mode=read-only present=1 need=2 s1=unhealthy");
    assert_eq!(client.cmd("PING"), "PONG", "one line and no more");
    let absent = Cluster::of(1).absent("s1").launch();
    let mut client = absent.client();
    assert_eq!(client.cmd("HEALTH"), "OK mode=recovering present=1 need=2 s1=unhealthy");
    assert_eq!(client.cmd("PING"), "PONG", "one line and no more");
}

/// How far a secondary is behind, in entries and in bytes, and what is under way to it.
#[test]
fn status_tells_how_far_a_secondary_is_behind() {
    let cluster = Cluster::of(1).set("cluster.attempt_timeout", "1000s").start();
    let mut client = cluster.client();
    client.ok("APPEND on both");
    let status = client.status();
    let s1 = status.secondary("s1");
    assert_eq!((s1.get("lag"), s1.get("lag_bytes"), s1.get("inflight")), ("0", "0", "0"));
    assert_eq!((s1.get("attempts"), s1.get("next_retry_ms"), s1.get("error")), ("0", "-", "-"));
    cluster.client_of("s1").ok("DELAY every=1000s");
    client.ok("APPEND w=1 one");
    client.ok(&format!("APPEND w=1 {}", "x".repeat(1000)));
    let s1 = wait_until("both entries to be under way and a heartbeat to be answered", || {
        let s1 = client.status().secondary("s1").clone();
        (s1.number("inflight") > 1000 && s1.get("rtt_us") != "-").then_some(s1)
    });
    assert_eq!((s1.get("received"), s1.get("stored"), s1.get("lag")), ("1", "1", "2"));
    assert!((1003..2000).contains(&s1.number("lag_bytes")), "payloads and heads: {}", s1.line());
    assert!(s1.number("last_contact_ms") < 60_000 && s1.number("rtt_us") < 60_000_000);
}

/// Against the log that came from the master as well as against what came by hand: the same is a
/// duplicate, another is a conflict, and nothing is ever overwritten.
#[test]
fn store_never_overwrites_what_came_from_the_master() {
    let cluster = Cluster::of(1).start();
    cluster.client().ok("APPEND the master's");
    let mut s1 = cluster.client_of("s1");
    assert_eq!(s1.cmd("STORE 1 the master's"), "OK seq=1 duplicate=true");
    s1.refused("STORE 1 mine", "ERR conflict");
    s1.refused("STORE 0 mine", "ERR bad-value");
    assert_eq!(s1.list("").payloads(), ["the master's"]);
    assert_eq!(cluster.wait_equal_lists().payloads(), ["the master's"]);
}

/// Entries by hand are shown by LIST and GET, and counted nowhere: not on the node, not by the
/// master, at no level but local.
#[test]
fn entries_by_hand_count_neither_here_nor_at_the_master() {
    let cluster = Cluster::of(1).start();
    let mut master = cluster.client();
    master.ok("APPEND a");
    let mut s1 = cluster.client_of("s1");
    wait_until("s1 to learn that both hold the entry", || {
        (s1.list("level=all").payloads() == ["a"]).then_some(())
    });
    let digest = s1.cmd("DIGEST");
    assert_eq!(s1.cmd("STORE 2 mine"), "OK seq=2");
    assert_eq!(s1.list("").payloads(), ["a", "mine"]);
    let got = s1.ok("GET 2");
    assert_eq!((got.get("seq"), got.get("payload")), ("2", "mine"));
    for level in ["1", "2", "committed", "all"] {
        assert_eq!(s1.list(&format!("level={level}")).payloads(), ["a"], "level={level}");
    }
    assert_eq!(s1.status().node.number("next"), 2);
    assert_eq!(s1.cmd("DIGEST"), digest);
    s1.refused("DIGEST 2", "ERR not-found");
    let status = master.status();
    let seen = status.secondary("s1");
    assert_eq!((seen.get("received"), seen.get("stored")), ("1", "1"), "{}", seen.line());
    master.refused("WAIT 2", "ERR not-found");
}

/// A held entry comes to light as soon as the ones before it are there, from wherever they came; it
/// gives way when the master has an entry of its own for that number.
#[test]
fn a_held_entry_comes_to_light_behind_the_master_s_and_gives_way_to_it() {
    let cluster = Cluster::of(1).start();
    let mut master = cluster.client();
    let mut s1 = cluster.client_of("s1");
    assert_eq!(s1.cmd("STORE 3 mine"), "OK seq=3 held=true");
    assert_eq!(s1.cmd("STORE 3 mine"), "OK seq=3 duplicate=true");
    s1.refused("STORE 3 other", "ERR conflict");
    master.ok("APPEND a");
    assert_eq!(s1.list("").payloads(), ["a"]);
    s1.refused("GET 3", "ERR not-found");
    master.ok("APPEND b");
    assert_eq!(s1.list("").payloads(), ["a", "b", "mine"]);
    let aside = s1.status().node.number("aside");
    master.ok("APPEND c");
    assert_eq!(s1.list("").payloads(), ["a", "b", "c"]);
    assert_eq!(s1.status().node.number("aside"), aside + 1);
    assert_eq!(cluster.wait_equal_lists().payloads(), ["a", "b", "c"]);
}

/// An entry by hand that is equal to the master's is no reason to move the others aside.
#[test]
fn only_what_differs_and_what_stands_behind_it_is_moved_aside() {
    let cluster = Cluster::of(1).start();
    let mut master = cluster.client();
    let mut s1 = cluster.client_of("s1");
    for (seq, payload) in [(1, "same"), (2, "mine"), (3, "mine too"), (5, "held")] {
        s1.ok(&format!("STORE {seq} {payload}"));
    }
    let aside = s1.status().node.number("aside");
    master.ok("APPEND same");
    assert_eq!(s1.list("").payloads(), ["same", "mine", "mine too"]);
    assert_eq!(s1.status().node.number("aside"), aside);
    master.ok("APPEND theirs");
    assert_eq!(s1.list("").payloads(), ["same", "theirs"]);
    assert_eq!(s1.status().node.number("aside"), aside + 3, "the held one too");
}

/// `DELAY off` and `FAIL off` end everything of their kind, whatever was set before.
#[test]
fn off_ends_every_fault_of_its_kind() {
    let cluster = Cluster::of(1).set("cluster.attempt_timeout", "1000s").start();
    let mut client = cluster.client();
    let mut s1 = cluster.client_of("s1");
    for command in ["DELAY 1000s", "DELAY every=1000s", "DELAY off"] {
        s1.ok(command);
    }
    for command in ["FAIL after count=1000", "FAIL before p=1", "FAIL before count=9", "FAIL off"] {
        s1.ok(command);
    }
    s1.ok("MUTE 1000s");
    s1.ok("MUTE off");
    client.ok("APPEND nothing is left");
    assert_eq!(s1.status().master().number("duplicates"), 0, "at the first attempt");
}

/// `before` stores nothing and `after` stores, for every frame while the coin always falls so.
#[test]
fn a_certain_failure_before_stores_nothing_and_one_after_stores() {
    let cluster = Cluster::of(2).start();
    let (mut s1, mut s2) = (cluster.client_of("s1"), cluster.client_of("s2"));
    s1.ok("FAIL before p=1");
    s2.ok("FAIL after p=1");
    let mut client = cluster.client();
    client.ok("APPEND w=1 x");
    wait_until("several failed attempts at both", || {
        let status = client.status();
        for id in ["s1", "s2"] {
            let line = status.secondary(id);
            assert_eq!((line.get("stored"), line.get("health")), ("0", "healthy"));
        }
        let attempts = |id| status.secondary(id).number("attempts");
        (attempts("s1") >= 2 && attempts("s2") >= 2).then_some(())
    });
    assert_eq!(s1.list("").entries, []);
    assert_eq!(s2.list("").payloads(), ["x"]);
    assert!(s2.status().master().number("duplicates") >= 1, "what is stored is not stored twice");
    s1.ok("FAIL off");
    s2.ok("FAIL off");
    client.ok("WAIT 1 w=3");
    assert_eq!(cluster.wait_equal_lists().payloads(), ["x"]);
}

/// Frames of a session that has ended are dropped: a delayed original never comes after the
/// connection broke, so what the new one repeats is no duplicate.
#[test]
fn delayed_frames_of_a_broken_connection_are_dropped() {
    let cluster = Cluster::of(1).proxied("s1").set("cluster.attempt_timeout", "1000s").start();
    let mut s1 = cluster.client_of("s1");
    s1.ok("DELAY 2s");
    let mut client = cluster.client();
    client.ok("APPEND w=1 x");
    wait_until("the entry to be under way", || {
        (client.status().secondary("s1").number("inflight") > 0).then_some(())
    });
    cluster.proxy("s1").drop_connections();
    client.ok("WAIT 1 w=2");
    let stored = s1.status().node.number("uptime_s");
    wait_until("the delay to be over", || {
        (s1.status().node.number("uptime_s") >= stored + 4).then_some(())
    });
    assert_eq!(s1.status().master().number("duplicates"), 0);
}
