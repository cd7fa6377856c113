//! METRICS: what a node measures, in the text format of OpenMetrics (interface 2.4).
//!
//! Here is checked that the numbers are true. That the text is OpenMetrics to the letter is checked
//! by the parser of the Prometheus project, in `.ci/stages/metrics`.

mod common;

use std::collections::BTreeMap;

use common::{Cluster, Gateway, Process, Ready, replog, wait_until};

/// Samples by their name and labels, as they were written.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    #[track_caller]
    fn of(client: &mut Gateway) -> Samples {
        client.send("METRICS");
        let mut samples = BTreeMap::new();
        loop {
            let line = client.line();
            if line == "# EOF" {
                return Samples(samples);
            }
            if line.starts_with('#') {
                continue;
            }
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert_eq!(samples.insert(name.to_owned(), value), None, "{name} stands twice");
        }
    }

    #[track_caller]
    fn get(&self, name: &str) -> f64 {
        let value = self.0.get(name).copied();
        value.unwrap_or_else(|| panic!("no sample {name} in {:#?}", self.0.keys()))
    }
}

#[test]
fn a_master_tells_positions_levels_answers_and_latencies() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    for _ in 0..5 {
        client.ok("APPEND w=3 x");
    }
    for _ in 0..3 {
        client.ok("APPEND w=1 x");
    }
    client.ok("WAIT 8 w=3");
    let samples = Samples::of(&mut client);
    assert_eq!(samples.get(r#"replog_appends_total{result="ok"}"#), 8.0);
    assert_eq!(samples.get(r#"replog_append_duration_seconds_count{w="3"}"#), 5.0, "no WAIT");
    assert_eq!(samples.get(r#"replog_append_duration_seconds_count{w="1"}"#), 3.0);
    assert_eq!(samples.get(r#"replog_append_duration_seconds_bucket{le="+Inf",w="3"}"#), 5.0);
    assert!(samples.get(r#"replog_append_duration_seconds_sum{w="3"}"#) > 0.0);
    for node in ["master", "s1", "s2"] {
        for kind in ["received", "stored"] {
            let name = format!(r#"replog_position{{node="{node}",kind="{kind}"}}"#);
            assert_eq!(samples.get(&name), 8.0);
        }
    }
    for nodes in 1..=3 {
        assert_eq!(samples.get(&format!(r#"replog_level{{nodes="{nodes}"}}"#)), 8.0);
    }
    assert_eq!(samples.get("replog_commit"), 8.0);
    assert_eq!(samples.get(r#"replog_mode{mode="normal"}"#), 1.0);
    assert_eq!(samples.get(r#"replog_mode{mode="read-only"}"#), 0.0);
    assert_eq!(samples.get(r#"replog_secondary_health{node="s1",health="healthy"}"#), 1.0);
    assert_eq!(samples.get(r#"replog_secondary_health{node="s1",health="suspected"}"#), 0.0);
    assert_eq!(
        (samples.get("replog_present_nodes"), samples.get("replog_quorum_nodes")),
        (3.0, 2.0)
    );
    assert_eq!(samples.get("replog_waiting_appends"), 0.0);
    assert!(samples.get("replog_log_bytes") >= 8.0 * 49.0, "eight records of a byte");
    assert!(samples.get(r#"replog_connections{port="gateway"}"#) >= 1.0, "this one");
    assert!(samples.get(r#"replog_received_bytes_total{peer="gateway"}"#) >= 8.0 * 13.0);
    assert!(samples.get(r#"replog_sent_bytes_total{peer="node"}"#) >= 2.0 * 8.0 * 49.0);
    assert!(samples.get("process_cpu_seconds_total") >= 0.0);
    assert!(samples.get("process_resident_memory_bytes") > 1e6);
}

#[test]
fn what_is_refused_is_counted_by_its_code() {
    let cluster = Cluster::of(2).start();
    let mut client = cluster.client();
    for _ in 0..2 {
        client.refused("APPEND w=9 x", "REJECTED bad-write-concern");
    }
    client.refused("FROBNICATE", "ERR unknown-verb");
    client.refused("GET 99", "ERR not-found");
    client.refused("LIST level=9", "ERR bad-value");
    let samples = Samples::of(&mut client);
    let refused = |code: &str| samples.get(&format!(r#"replog_refusals_total{{code="{code}"}}"#));
    assert_eq!(refused("bad-write-concern"), 2.0);
    assert_eq!(refused("unknown-verb"), 1.0);
    assert_eq!(refused("not-found"), 1.0);
    assert_eq!(refused("bad-value"), 1.0);
    assert!(!samples.0.contains_key(r#"replog_appends_total{result="rejected"}"#));

    let mut client = cluster.client_of("s1");
    client.refused("APPEND x", "REJECTED not-master");
    let samples = Samples::of(&mut client);
    assert_eq!(samples.get(r#"replog_refusals_total{code="not-master"}"#), 1.0);
}

#[test]
fn waiters_health_and_repetitions_show_a_mute_secondary() {
    let cluster = Cluster::of(2)
        .set("cluster.heartbeat_interval", "100ms")
        .set("cluster.attempt_timeout", "100ms")
        .set("cluster.retry_delays", "100ms")
        .start();
    let mut client = cluster.client();
    cluster.client_of("s2").ok("FAIL before count=2");
    client.ok("APPEND w=3 x");
    let samples = Samples::of(&mut client);
    let repeated = samples.get(r#"replog_repeated_entries_total{node="s2"}"#);
    assert!(repeated >= 2.0, "twice refused, so at least twice again: {repeated}");
    let attempts = r#"replog_failed_attempts_total{node="s2",cause="nack"}"#;
    assert!(samples.get(attempts) >= 2.0);

    cluster.client_of("s2").ok("MUTE 60s");
    let mut waiting = cluster.client();
    waiting.send("APPEND w=3 y");
    assert!(client.cmd("APPEND w=3 timeout=0 z").starts_with("PENDING"));
    wait_until("an unhealthy secondary", || {
        let samples = Samples::of(&mut client);
        let health = samples.get(r#"replog_secondary_health{node="s2",health="unhealthy"}"#);
        (health == 1.0).then_some(())
    });
    let samples = Samples::of(&mut client);
    assert_eq!(samples.get("replog_waiting_appends"), 1.0);
    assert!(samples.get(r#"replog_secondary_misses{node="s2"}"#) >= 5.0);
    assert!(samples.get(r#"replog_lag_entries{node="s2"}"#) >= 1.0);
    assert_eq!(samples.get("replog_present_nodes"), 2.0);
    assert_eq!(samples.get(r#"replog_appends_total{result="pending"}"#), 1.0);
    assert_eq!(samples.get(r#"replog_position{node="s2",kind="stored"}"#), 1.0);

    cluster.client_of("s2").ok("MUTE off");
    waiting.line();
    let slow = Samples::of(&mut client);
    let within_100ms = slow.get(r#"replog_append_duration_seconds_bucket{le="0.1",w="3"}"#);
    let all = slow.get(r#"replog_append_duration_seconds_count{w="3"}"#);
    assert!(all > within_100ms, "the append that waited for s2 took longer than a heartbeat");
}

#[test]
fn a_secondary_tells_what_it_has_and_whom_it_follows() {
    let cluster = Cluster::of(1).start();
    cluster.client().ok("APPEND x");
    let mut client = cluster.client_of("s1");
    client.ok("DELAY 300ms");
    cluster.client().ok("APPEND x");
    let samples = Samples::of(&mut client);
    assert_eq!(samples.get(r#"replog_position{node="s1",kind="stored"}"#), 2.0);
    assert_eq!(samples.get("replog_master_connected"), 1.0);
    assert_eq!(samples.get("replog_held_entries"), 0.0);
    assert_eq!(samples.get(r#"replog_mode{mode="normal"}"#), 1.0);
    assert!(samples.get("replog_epoch") >= 1.0);
    let master_only = ["replog_present_nodes", "replog_waiting_appends", "replog_quorum_nodes"];
    assert!(master_only.iter().all(|name| !samples.0.contains_key(*name)));
    assert!(samples.get("replog_uptime_seconds") > 0.0);
}

/// Nodes of one process do not add to one another's numbers.
#[test]
fn every_node_of_a_process_has_a_registry_of_its_own() {
    let ports = ["--gateway-port", "0", "--wire-port", "0", "--secondaries", "1"];
    let dev = Process::spawn("dev", replog(["dev"].iter().chain(&ports)));
    dev.wait_for_log_line(&["ready cluster nodes=2 mode=normal"]);
    let ready: Vec<Ready> = dev.log().iter().filter_map(|line| Ready::of(line)).collect();
    let connect = |id: &str| {
        let node = ready.iter().find(|ready| ready.id == id).expect("each node says it is ready");
        Gateway::connect(node.gateway)
    };
    let (mut master, mut secondary) = (connect("master"), connect("s1"));
    for _ in 0..4 {
        master.ok("APPEND w=1 x");
    }
    master.refused("FROBNICATE", "ERR unknown-verb");
    assert_eq!(Samples::of(&mut master).get(r#"replog_appends_total{result="ok"}"#), 4.0);
    let samples = Samples::of(&mut secondary);
    assert_eq!(samples.get(r#"replog_appends_total{result="ok"}"#), 0.0);
    assert!(!samples.0.contains_key(r#"replog_refusals_total{code="unknown-verb"}"#));
    let duplicates = samples.0.keys().filter(|name| name.contains(r#"node="master""#)).count();
    assert_eq!(duplicates, 0, "a secondary speaks of itself");
}
