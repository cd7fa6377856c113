//! Health, quorum, start-up and return (interface 2.4, design 5 and 6).

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, Gateway, wait_until};

const MIB: usize = 1024 * 1024;

/// Silence makes a secondary suspected, then unhealthy, in this order; its first sign of life
/// makes it healthy again.
#[test]
fn a_paused_secondary_becomes_suspected_then_unhealthy_then_healthy() {
    let cluster = Cluster::of(2).set("cluster.heartbeat_interval", "500ms").start();
    let mut client = cluster.client();
    let paused = Instant::now();
    cluster.pause("s1");
    let mut seen = vec!["healthy".to_owned()];
    wait_until("s1 to be unhealthy", || {
        let status = client.status();
        let s1 = status.secondary("s1");
        let health = s1.get("health");
        if seen.last().is_none_or(|last| last != health) {
            seen.push(health.to_owned());
        }
        match health {
            "suspected" => assert!(s1.number("misses") >= 2, "{}", s1.line()),
            "unhealthy" => assert!(s1.number("misses") >= 5, "{}", s1.line()),
            _ => assert!(s1.number("misses") < 2, "{}", s1.line()),
        }
        (health == "unhealthy").then_some(())
    });
    assert_eq!(seen, ["healthy", "suspected", "unhealthy"]);
    // The heartbeat that was under way may have been answered; four more were not.
    assert!(paused.elapsed() >= Duration::from_secs(2), "{:?}", paused.elapsed());
    assert_eq!(client.status().secondary("s2").get("health"), "healthy");
    let master = &cluster.master.process;
    master.wait_for_log_line(&["s1", "suspected"]);
    master.wait_for_log_line(&["s1", "unhealthy"]);
    cluster.resume("s1");
    cluster.wait_health("s1", "healthy");
    assert_eq!(client.status().secondary("s1").number("misses"), 0);
}

/// The connection of a machine that vanished or a process that is frozen stands for long: whoever asks a
/// secondary is told by silence.
#[test]
fn a_secondary_says_that_it_hears_nothing_of_its_master_though_the_connection_stands() {
    let cluster = Cluster::of(1).set("cluster.heartbeat_interval", "200ms").start();
    cluster.wait_health("s1", "healthy");
    let mut s1 = cluster.client_of("s1");
    assert_eq!(s1.ok("HEALTH").get("connected"), "true");
    cluster.master.process.pause();
    wait_until("s1 to say so", || (s1.ok("HEALTH").get("connected") == "false").then_some(()));
    let status = s1.status();
    assert_eq!(status.others[0].get("connected"), "false");
    let process = &cluster.node("s1").process;
    process.wait_for_log_line(&["WARN", "the master says nothing, though its connection stands"]);
    cluster.master.process.resume();
    process.wait_for_log_line(&["the master speaks again"]);
    assert_eq!(s1.ok("HEALTH").get("connected"), "true");
    // Nothing else came of it.
    let told = process.log().iter().filter(|line| line.contains("says nothing")).count();
    assert_eq!(told, 1);
    cluster.client().ok("APPEND w=all later");
}

#[test]
fn the_number_of_misses_can_be_configured() {
    let cluster = Cluster::of(1)
        .set("cluster.suspected_after", "1")
        .set("cluster.unhealthy_after", "10")
        .start();
    cluster.pause("s1");
    let mut client = cluster.client();
    wait_until("ten misses", || {
        let status = client.status();
        let s1 = status.secondary("s1");
        match s1.number("misses") {
            0 => assert_eq!(s1.get("health"), "healthy"),
            1..=9 => assert_eq!(s1.get("health"), "suspected"),
            _ => assert_eq!(s1.get("health"), "unhealthy"),
        }
        (s1.get("health") == "unhealthy").then_some(())
    });
}

/// Both secondaries gone: appends are refused with the reason, before they get a number; reads and
/// waiting appends live on; when one is back, everything is as before, by itself.
#[test]
fn without_a_quorum_the_cluster_is_read_only_until_it_is_back() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    client.ok("APPEND before");
    cluster.pause("s2");
    let mut waiting = cluster.client();
    waiting.send("APPEND w=3 waits");
    wait_until("the waiting entry", || (client.list("").entries.len() == 2).then_some(()));
    cluster.pause("s1");
    let health = cluster.wait_mode("read-only");
    assert_eq!(health.line(), "OK mode=read-only present=1 need=2 s1=unhealthy s2=unhealthy");
    let read_only = "REJECTED read-only present=1 need=2 - 1 of 3 nodes present, the quorum is 2";
    assert_eq!(client.cmd("APPEND w=1 x"), read_only);
    assert_eq!(client.cmd("APPEND x"), read_only);
    assert_eq!(client.list("").payloads(), ["before", "waits"]);
    assert_eq!(client.ok("GET 2").get("payload"), "waits");
    let status = client.status();
    assert_eq!((status.node.get("mode"), status.node.number("next")), ("read-only", 3));
    assert_eq!(client.ask("WAIT 2 w=3 timeout=0").class(), "PENDING");
    waiting.assert_still_waiting();
    cluster.master.process.wait_for_log_line(&["read-only"]);
    cluster.resume("s1");
    cluster.wait_mode("normal");
    client.ok("APPEND w=2 one is back");
    waiting.assert_still_waiting();
    cluster.resume("s2");
    assert!(waiting.line().starts_with("OK seq=2 epoch=1 have=3/3 "));
    client.ok("WAIT 3 w=3");
    let list = cluster.wait_equal_lists();
    assert_eq!(list.payloads(), ["before", "waits", "one is back"], "what was refused is nowhere");
}

/// A suspected secondary is still present.
#[test]
fn suspicion_alone_does_not_end_the_quorum() {
    let cluster = Cluster::of(1)
        .set("cluster.unhealthy_after", "100")
        .set("cluster.suspected_after", "2")
        .start();
    cluster.pause("s1");
    cluster.wait_health("s1", "suspected");
    let mut client = cluster.client();
    client.ok("APPEND w=1 x");
    let health = client.ask("HEALTH");
    assert_eq!(health.line(), "OK mode=normal present=2 need=2 s1=suspected");
}

#[test]
fn a_quorum_of_one_accepts_appends_alone() {
    let cluster = Cluster::of(2).absent("s1").absent("s2").master_flags(&["--quorum", "1"]).start();
    let mut client = cluster.client();
    assert_eq!(client.cmd("APPEND w=1 x"), "OK seq=1 epoch=1 have=1/3 need=1 by=master");
    assert_eq!(client.status().node.get("quorum"), "1/3");
    let health = "OK mode=normal present=1 need=1 s1=unhealthy s2=unhealthy";
    assert_eq!(client.cmd("HEALTH"), health);
}

#[test]
fn a_quorum_of_all_is_lost_with_the_first_node() {
    let cluster = Cluster::of(2).master_flags(&["--quorum", "all"]).start();
    cluster.client().ok("APPEND x");
    cluster.pause("s2");
    let health = cluster.wait_mode("read-only");
    assert_eq!((health.get("present"), health.get("need")), ("2", "3"));
    cluster.client().refused("APPEND w=1 x", "REJECTED read-only");
    cluster.resume("s2");
    cluster.wait_mode("normal");
}

/// Until enough nodes have answered a starting master accepts nothing and says whom it awaits.
#[test]
fn a_starting_master_is_recovering_until_a_quorum_answers() {
    let mut cluster = Cluster::of(2).absent("s1").absent("s2").launch();
    let mut client = cluster.client();
    assert_eq!(client.ok("HEALTH").get("mode"), "recovering");
    client.refused("APPEND w=1 x", "REJECTED recovering");
    let status = client.status();
    assert_eq!(status.node.get("mode"), "recovering");
    assert_eq!(status.node.get("awaiting"), "s1,s2");
    wait_until("more than the two seconds a roster is waited for", || {
        (client.status().node.number("uptime_s") >= 3).then_some(())
    });
    client.refused("APPEND w=1 x", "REJECTED recovering");
    assert_eq!(client.list("").entries, []);
    cluster.start("s2");
    cluster.wait_mode("normal");
    let ok = client.cmd("APPEND w=2 x");
    assert_eq!(ok, "OK seq=1 epoch=1 have=2/3 need=2 by=master,s2");
}

/// Whatever the ladder says: a node that is back is served at once. The only wait of this ladder
/// is far longer than this test may take. Half is missed while the node is still thought to be
/// there, half when nothing is sent to it any more.
#[test]
fn a_thousand_missed_entries_arrive_after_a_return() {
    const HALF: usize = 500;
    let cluster = Cluster::of(2).set("cluster.retry_delays", "300s").start();
    let mut client = cluster.client();
    client.ok("APPEND before");
    cluster.pause("s2");
    append_pipelined(&mut client, HALF);
    cluster.wait_health("s2", "unhealthy");
    append_pipelined(&mut client, HALF);
    cluster.resume("s2");
    client.ok(&format!("WAIT {} w=3", 1 + 2 * HALF));
    assert_eq!(cluster.wait_equal_lists().entries.len(), 1 + 2 * HALF);
}

fn append_pipelined(client: &mut Gateway, count: usize) {
    let lines: String = (0..count).map(|number| format!("APPEND w=2 missed {number}\n")).collect();
    client.send_bytes(lines.as_bytes());
    for _ in 0..count {
        assert!(client.line().starts_with("OK "));
    }
}

/// A secondary that comes with the log of another cluster is refused, says why in STATUS, counts
/// for nothing and keeps what it has.
#[test]
fn a_secondary_with_another_history_is_refused_and_kept_untouched() {
    let mut cluster = Cluster::of(2).absent("s2").proxied("s2").start();
    cluster.proxy("s2").cut();
    cluster.start("s2");
    let wire = cluster.node("s2").ready.wire;
    let mut stranger = Cluster::of(0).master_flags(&["--secondary", &format!("s2={wire}")]).start();
    stranger.client().ok("APPEND w=2 another history");
    stranger.master.process.kill();

    cluster.proxy("s2").heal();
    let mut client = cluster.client();
    client.ok("APPEND w=2 this history");
    wait_until("the refusal in STATUS", || {
        let status = client.status();
        let s2 = status.secondary("s2");
        assert_eq!((s2.get("health"), s2.number("stored")), ("unhealthy", 0));
        let error = s2.get("error");
        error.contains("foreign-log: holds 1 entry of another log").then_some(())
    });
    let pending = client.cmd("WAIT 1 w=3 timeout=0");
    assert_eq!(pending, "PENDING seq=1 epoch=1 have=2/3 need=3 by=master,s1 missing=s2");
    assert_eq!(client.ok("HEALTH").get("present"), "2");
    assert_eq!(cluster.client_of("s2").list("").payloads(), ["another history"]);
}

/// A secondary that is away costs no queue of payloads and no busy waiting.
#[test]
fn an_unhealthy_secondary_costs_the_master_neither_memory_nor_cpu() {
    const ENTRIES: usize = 2000;
    const ENTRY: usize = 64 * 1024;
    const LOG: usize = ENTRIES * ENTRY;
    let mut cluster = Cluster::of(2).start();
    cluster.kill("s2");
    cluster.wait_health("s2", "unhealthy");
    let mut client = cluster.client();
    let before = cluster.master.process.resident_bytes();
    let payload = "x".repeat(ENTRY);
    for _ in 0..ENTRIES {
        client.ok(&format!("APPEND w=2 {payload}"));
    }
    // The log itself is in memory, once; half as much again for how memory is handed out, and
    // 48 MiB for windows and caches. A queue for s2 would double the log.
    let grown = cluster.master.process.resident_bytes().saturating_sub(before);
    let allowed = LOG + LOG / 2 + 48 * MIB;
    assert!(grown <= allowed as u64, "{grown} bytes for a log of {LOG}");

    let seconds = 3;
    let start = client.status().node.number("uptime_s");
    let ticks = cluster.master.process.cpu_ticks();
    wait_until("some idle seconds", || {
        (client.status().node.number("uptime_s") >= start + seconds).then_some(())
    });
    let used = cluster.master.process.cpu_ticks() - ticks;
    assert!(used < seconds * 100 / 2, "{used} ticks of 10 ms in some {seconds} idle seconds");
}
