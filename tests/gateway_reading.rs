//! LIST, GET, TAIL, WAIT, STATUS, HEALTH and DIGEST (interface 2.3, 2.4).

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, wait_until};

const NODE_KEYS: [&str; 17] = [
    "id", "role", "epoch", "mode", "next", "commit", "quorum", "present", "log_id", "store",
    "fsync", "disk", "uptime_s", "waiting", "damaged", "aside", "awaiting",
];

const SECONDARY_KEYS: [&str; 15] = [
    "id",
    "addr",
    "health",
    "misses",
    "received",
    "stored",
    "lag",
    "lag_bytes",
    "inflight",
    "last_contact_ms",
    "rtt_us",
    "attempts",
    "next_retry_ms",
    "duplicates",
    "error",
];

#[test]
fn an_empty_log_lists_nothing() {
    let cluster = Cluster::of(0).start();
    let end = cluster.client().list("").end;
    assert_eq!(end.line(), "END count=0 first=- last=- commit=0 level=local");
}

#[test]
fn list_takes_a_start_and_a_limit() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    for payload in ["a", "b", "c", "d", "e"] {
        client.ok(&format!("APPEND {payload}"));
    }
    let end = client.list("").end;
    assert_eq!(end.line(), "END count=5 first=1 last=5 commit=5 level=local");
    let some = client.list("from=2 limit=3");
    assert_eq!(some.payloads(), ["b", "c", "d"]);
    assert_eq!(some.end.line(), "END count=3 first=2 last=4 commit=5 level=local");
    assert_eq!(client.list("limit=2 from=4").payloads(), ["d", "e"]);
    assert_eq!(client.list("from=5").payloads(), ["e"]);
    let beyond = client.list("from=6");
    assert_eq!((beyond.entries.len(), beyond.end.number("count")), (0, 0));
    assert_eq!(client.list("from=18446744073709551615").end.number("count"), 0);
}

#[test]
fn list_refuses_values_that_make_no_sense() {
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    for options in ["from=0", "from=x", "from=-1", "limit=x", "level=some", "level=3"] {
        client.refused(&format!("LIST {options}"), "ERR bad-value");
    }
    client.refused("LIST from=1 from=1", "ERR bad-option");
    assert_eq!(client.ask("LIST everything").class(), "ERR");
}

/// `local` is all this node holds, `committed` what a majority holds, `all` what every node
/// holds, k what at least k nodes hold; a secondary learns the levels from the master.
#[test]
fn list_shows_what_the_asked_level_holds() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    client.ok("APPEND w=2 on two nodes");
    for (level, count) in [("local", 1), ("committed", 1), ("1", 1), ("2", 1), ("3", 0), ("all", 0)]
    {
        let list = client.list(&format!("level={level}"));
        assert_eq!(list.entries.len(), count, "level={level}");
        assert_eq!(list.end.get("level"), level);
        assert_eq!(list.end.number("commit"), 1);
    }
    client.refused("LIST level=4", "ERR bad-value");
    let mut secondary = cluster.client_of("s1");
    wait_until("s1 to learn the levels", || {
        let committed = secondary.list("level=committed").entries.len();
        let all = secondary.list("level=all").entries.len();
        assert_eq!(all, 0, "s2 holds nothing");
        (committed == 1).then_some(())
    });
    cluster.start("s2");
    client.ok("WAIT 1 w=3");
    assert_eq!(client.list("level=all").entries.len(), 1);
    wait_until("s1 to learn the levels", || {
        (secondary.list("level=all").entries.len() == 1).then_some(())
    });
}

#[test]
fn get_shows_one_entry_with_its_circumstances() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    client.ok("APPEND two  words=1 ");
    let got = client.ok("GET 1");
    assert_eq!(got.keys(), ["seq", "epoch", "time", "bytes", "by", "payload"]);
    assert_eq!((got.number("seq"), got.number("epoch"), got.number("bytes")), (1, 1, 13));
    assert_eq!(got.get("by"), "master,s1,s2");
    assert_eq!(got.get("payload"), "two  words=1 ");
    assert_is_utc_time(got.get("time"));
    let held = cluster.client_of("s1").ok("GET 1");
    assert!(matches!(held.find("by"), None | Some("-")), "only the master knows who holds it");
    assert_eq!(held.get("time"), got.get("time"), "the time is the master's");
    client.refused("GET 2", "ERR not-found");
    client.refused("GET one", "ERR bad-value");
    assert_eq!(client.ask("GET").class(), "ERR");
}

/// RFC 3339, UTC, with milliseconds: `2024-05-06T07:08:09.123Z`.
fn assert_is_utc_time(time: &str) {
    let shape: String =
        time.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{time}");
}

#[test]
fn tail_begins_where_it_is_told_and_ends_with_a_blank_line() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    for number in 1..=5 {
        client.ok(&format!("APPEND entry {number}"));
    }
    for (options, first) in [("from=1", 1), ("from=4", 4), ("last=2", 4), ("last=99", 1)] {
        client.send(&format!("TAIL {options}"));
        for number in first..=5 {
            assert_eq!(client.tail_entry(), (number, format!("entry {number}")), "{options}");
        }
        client.send("");
        let (idle, end) = client.lines_until_end();
        assert!(idle.iter().all(|line| line.starts_with("# ")), "{idle:?}");
        assert_eq!(end.number("count"), 6 - first, "{options}");
    }
    client.refused("TAIL from=0", "ERR bad-value");
    client.refused("TAIL last=x", "ERR bad-value");
}

/// Without `from` and `last` only new entries; while idle a line that says where the log ends.
#[test]
fn tail_follows_new_entries_each_once_and_in_order() {
    const ENTRIES: u64 = 200;
    let cluster = Cluster::of(1).start();
    let mut client = cluster.client();
    client.ok("APPEND old");
    let mut tails = cluster.clients();
    for tail in &mut tails {
        wait_until("the old entry to be known as committed", || {
            (tail.list("level=committed").entries.len() == 1).then_some(())
        });
        tail.send("TAIL");
        let idle = tail.line();
        assert!(idle.starts_with("# next="), "{idle}");
        assert!(idle.contains(" commit="), "{idle}");
    }
    for number in 2..=ENTRIES {
        client.ok(&format!("APPEND entry {number}"));
    }
    for tail in &mut tails {
        for number in 2..=ENTRIES {
            assert_eq!(tail.tail_entry(), (number, format!("entry {number}")));
        }
        wait_until("an idle line that tells the end", || {
            (tail.line() == format!("# next={} commit={ENTRIES}", ENTRIES + 1)).then_some(())
        });
    }
}

#[test]
fn a_command_ends_a_tail_and_is_then_carried_out() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    client.ok("APPEND a");
    client.send("TAIL from=1");
    assert_eq!(client.tail_entry(), (1, "a".to_owned()));
    client.send("PING next");
    let (_, end) = client.lines_until_end();
    assert_eq!(end.number("count"), 1);
    assert_eq!(client.line(), "PONG next");
}

#[test]
fn the_end_of_input_ends_a_tail_after_what_is_there() {
    let cluster = Cluster::of(0).start();
    let mut client = cluster.client();
    for number in 1..=100 {
        client.ok(&format!("APPEND {number}"));
    }
    client.send("TAIL from=1");
    client.half_close();
    for number in 1..=100 {
        assert_eq!(client.tail_entry(), (number, number.to_string()));
    }
    let (_, end) = client.lines_until_end();
    assert_eq!(end.number("count"), 100);
    client.assert_closed();
}

/// TAIL shows what is committed unless it is asked for more; with two nodes a majority is both.
#[test]
fn tail_shows_no_entry_before_it_has_the_asked_level() {
    let mut cluster = Cluster::of(1).absent("s1").master_flags(&["--quorum", "1"]).start();
    let mut client = cluster.client();
    client.ok("APPEND w=1 alone");
    let mut committed = cluster.client();
    committed.send("TAIL from=1");
    let mut local = cluster.client();
    local.send("TAIL from=1 level=local");
    assert_eq!(local.tail_entry(), (1, "alone".to_owned()));
    let idle = committed.line();
    assert!(idle.starts_with("# next=") && idle.ends_with(" commit=0"), "{idle}");
    cluster.start("s1");
    assert_eq!(committed.tail_entry(), (1, "alone".to_owned()));
}

/// Anybody may wait for any entry in the log.
#[test]
fn wait_answers_as_an_append_does() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let mut client = cluster.client();
    client.ok("APPEND w=2 x");
    client.ok("APPEND w=2 y");
    let mut other = cluster.client();
    assert_eq!(other.cmd("WAIT 1 w=2"), "OK seq=1 epoch=1 have=2/3 need=2 by=master,s1");
    let asked = Instant::now();
    let pending = "PENDING seq=1 epoch=1 have=2/3 need=3 by=master,s1 missing=s2";
    assert_eq!(other.cmd("WAIT 1 w=3 timeout=300ms"), pending);
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert_eq!(other.cmd("WAIT 1 timeout=0"), pending, "w is all by default");
    assert_eq!(other.refused("WAIT 3", "ERR not-found").number("next"), 3);
    other.refused("WAIT one", "ERR bad-value");
    other.send("WAIT 2 w=all");
    other.send("PING");
    client.ok("APPEND w=2 z");
    other.assert_still_waiting();
    cluster.start("s2");
    assert_eq!(other.line(), "OK seq=2 epoch=1 have=3/3 need=3 by=master,s1,s2");
    assert_eq!(other.line(), "PONG");
}

#[test]
fn status_tells_the_stated_keys_in_the_stated_order() {
    let cluster = Cluster::of(2).absent("s2").start();
    let mut master = cluster.client();
    master.ok("APPEND w=2 12345");
    let status = master.status();
    assert_eq!(status.node.keys(), NODE_KEYS);
    for (key, value) in [
        ("id", "master"),
        ("role", "master"),
        ("epoch", "1"),
        ("mode", "normal"),
        ("next", "2"),
        ("commit", "1"),
        ("quorum", "2/3"),
        ("present", "2"),
        ("store", "memory"),
        ("waiting", "0"),
    ] {
        assert_eq!(status.node.get(key), value, "{}", status.node.line());
    }
    assert_eq!(status.others.len(), 2);
    for (line, id) in status.others.iter().zip(["s1", "s2"]) {
        assert_eq!((line.class(), line.get("id")), ("secondary", id), "in roster order");
        assert_eq!(line.keys(), SECONDARY_KEYS);
    }
    let s1 = status.secondary("s1");
    assert_eq!(s1.get("addr"), cluster.node("s1").ready.wire.to_string());
    assert_eq!((s1.get("health"), s1.get("stored"), s1.get("lag")), ("healthy", "1", "0"));
    assert_eq!(status.secondary("s2").get("health"), "unhealthy", "never reached");

    let held = cluster.client_of("s1").status();
    assert_eq!(held.node.keys(), NODE_KEYS);
    for (key, value) in [("id", "s1"), ("role", "secondary"), ("mode", "normal"), ("next", "2")] {
        assert_eq!(held.node.get(key), value, "{}", held.node.line());
    }
    assert_eq!(held.node.get("log_id"), status.node.get("log_id"), "one history");
    assert_ne!(held.node.get("log_id"), "-");
    let keys = ["addr", "connected", "last_contact_ms", "held", "duplicates"];
    assert_eq!(held.master().keys(), keys);
    assert_eq!(held.master().get("connected"), "true");
}

#[test]
fn status_counts_the_appends_that_wait() {
    let cluster = Cluster::of(2).absent("s2").start();
    let mut waiting = cluster.client();
    waiting.send("APPEND w=3 a");
    waiting.send("APPEND w=3 b");
    let mut client = cluster.client();
    wait_until("two waiting appends", || {
        (client.status().node.get("waiting") == "2").then_some(())
    });
}

#[test]
fn health_is_one_line_on_every_node() {
    let cluster = Cluster::of(2).absent("s2").start();
    assert_eq!(
        cluster.client().cmd("HEALTH"),
        "OK mode=normal present=2 need=2 s1=healthy s2=unhealthy"
    );
    let health = cluster.client_of("s1").ok("HEALTH");
    assert_eq!(health.keys(), ["mode", "master", "connected", "last_contact_ms"]);
    assert_eq!(health.get("master"), cluster.master.ready.wire.to_string());
    assert_eq!((health.get("mode"), health.get("connected")), ("normal", "true"));
}

#[test]
fn digests_are_equal_exactly_when_the_logs_are() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    assert_eq!(client.ok("DIGEST").number("seq"), 0);
    client.ok("APPEND a");
    client.ok("APPEND b");
    let digest = client.ok("DIGEST");
    assert_eq!(digest.keys(), ["seq", "epoch", "digest"]);
    assert_eq!((digest.number("seq"), digest.number("epoch")), (2, 1));
    assert!(digest.get("digest").bytes().all(|digit| digit.is_ascii_hexdigit()));
    let before = client.ok("DIGEST 1");
    assert_eq!(before.number("seq"), 1);
    assert_ne!(before.get("digest"), digest.get("digest"));
    client.refused("DIGEST 3", "ERR not-found");
    for id in ["s1", "s2"] {
        let mut secondary = cluster.client_of(id);
        assert_eq!(secondary.cmd("DIGEST"), digest.line());
        assert_eq!(secondary.cmd("DIGEST 1"), before.line());
    }
    let other = Cluster::of(0).start();
    let mut stranger = other.client();
    stranger.ok("APPEND a");
    stranger.ok("APPEND c");
    assert_ne!(stranger.ok("DIGEST").get("digest"), digest.get("digest"));
}
