//! Nodes whose disk is full: it can be seen from everywhere, takes nothing that was answered, and is over
//! as soon as there is room. The disks are full because no file may grow, which needs no disk of its own;
//! `.ci/stages/disk` does the same with file systems that are.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Cluster, Gateway, Process, Setup, replog, run_to_end, under_shell, wait_until};

/// What the system would do to a process whose file becomes too long is not what is tried here.
const NO_SIGNAL: &str = "trap '' XFSZ";
/// More than the reserve has, less than a segment may have.
const FILE_BYTES_MAX: u64 = 3 << 20;

fn on_disk(secondaries: usize) -> Setup {
    Cluster::of(secondaries).on_disk().after_shell(NO_SIGNAL)
}

fn metric(client: &mut Gateway, name: &str) -> f64 {
    client.send("METRICS");
    let mut found = None;
    loop {
        let line = client.line();
        if line == "# EOF" {
            return found.unwrap_or_else(|| panic!("no {name}"));
        }
        if let Some(value) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')) {
            found = value.parse().ok();
        }
    }
}

/// Appends until `is_full` says so; answers how many entries were OK, and the last reply.
#[track_caller]
fn fill(client: &mut Gateway, options: &str, is_full: impl Fn(&str) -> bool) -> (u64, String) {
    let payload = "x".repeat(50_000);
    for number in 0..1000 {
        let reply = client.cmd(&format!("APPEND {options} {payload}"));
        if is_full(&reply) {
            return (number, reply);
        }
        assert!(reply.starts_with("OK "), "{reply}");
    }
    panic!("never full");
}

/// What a node says of its disk, everywhere.
#[track_caller]
fn assert_told(client: &mut Gateway, full: bool) {
    wait_until(&format!("full={full} to be told"), || {
        let status = client.status();
        (status.node.get("disk") == if full { "full" } else { "ok" }).then_some(())
    });
    let health = client.ask("HEALTH");
    assert_eq!(health.find("disk"), full.then_some("full"), "{}", health.line());
    assert_eq!(health.line().ends_with(" disk=full"), full, "it stands last: {}", health.line());
    assert_eq!(metric(client, "replog_disk_full") > 0.5, full);
    assert_eq!(metric(client, "replog_disk_needed_bytes") > 0.5, full);
    assert!(metric(client, "replog_disk_free_bytes") > 1e6, "of the file system");
}

/// How often a node's log says this.
fn lines_with(process: &Process, parts: &[&str]) -> usize {
    let log = process.log();
    log.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[test]
fn a_master_tells_of_its_full_disk_once_refuses_with_what_is_missing_and_goes_on_by_itself() {
    let cluster = on_disk(1).start();
    let mut client = cluster.client();
    assert_told(&mut client, false);
    cluster.master.process.limit_files(Some(FILE_BYTES_MAX));
    let (count, refused) = fill(&mut client, "w=2", |reply| reply.starts_with("REJECTED"));
    assert!(count > 10, "{count} entries");
    assert!(refused.starts_with("REJECTED disk-full need="), "{refused}");
    let refusal = client.refused("APPEND w=1 x", "REJECTED disk-full");
    assert!(refusal.number("need") > refusal.number("free"), "{}", refusal.line());
    let sentence = refusal.sentence().unwrap_or_default().to_owned();
    assert!(sentence.contains("ulimit -f") && sentence.contains("3145728"), "{sentence}");
    assert_told(&mut client, true);
    for _ in 0..50 {
        client.refused("APPEND w=1 x", "REJECTED disk-full");
    }
    assert_eq!(client.ask("HEALTH").get("mode"), "normal", "the mode is another matter");
    assert_eq!(client.list("limit=1").entries.len(), 1, "reads go on");
    let begun = ["WARN", "the disk is full", "need_bytes=", "free_bytes=", "limit=\"", "id=master"];
    cluster.master.process.wait_for_log_line(&begun);
    cluster.master.process.limit_files(None);
    wait_until("appends to go on", || client.cmd("APPEND w=2 x").starts_with("OK ").then_some(()));
    assert_told(&mut client, false);
    cluster.master.process.wait_for_log_line(&["WARN", "the disk has room again", "full_ms="]);
    assert_eq!(lines_with(&cluster.master.process, &["the disk is full"]), 1);
    assert_eq!(lines_with(&cluster.master.process, &["room again"]), 1);
    cluster.wait_equal_lists();
}

/// The only wait of the ladder is longer than this test may take.
#[test]
fn a_secondary_tells_of_its_full_disk_and_is_served_at_once_when_it_has_room() {
    let cluster = on_disk(2).set("cluster.retry_delays", "300s").start();
    let (mut client, mut s1) = (cluster.client(), cluster.client_of("s1"));
    let s1_process = &cluster.node("s1").process;
    s1_process.limit_files(Some(FILE_BYTES_MAX));
    let mut observer = cluster.client();
    let payload = "x".repeat(50_000);
    wait_until("the master to hear that s1 is full", || {
        client.ok(&format!("APPEND w=2 {payload}"));
        let status = observer.status();
        status.secondary("s1").get("error").contains("disk-full").then_some(())
    });
    assert_told(&mut s1, true);
    assert_told(&mut client, false);
    s1_process.wait_for_log_line(&["WARN", "the disk is full", "id=s1", "need_bytes="]);
    for _ in 0..20 {
        client.ok("APPEND w=2 more");
    }
    let pending = client.cmd("APPEND w=3 timeout=0 last");
    assert!(pending.starts_with("PENDING "), "{pending}");
    assert_eq!(s1.list("limit=1").entries.len(), 1, "reads go on");
    s1_process.limit_files(None);
    let freed = Instant::now();
    let last = client.status().node.number("next") - 1;
    client.ok(&format!("WAIT {last} w=3 timeout=60s"));
    assert!(freed.elapsed() < Duration::from_secs(60), "{:?}", freed.elapsed());
    assert_told(&mut s1, false);
    s1_process.wait_for_log_line(&["the disk has room again"]);
    let status = client.status();
    assert_eq!(status.secondary("s1").number("attempts"), 0, "{}", status.secondary("s1").line());
    cluster.wait_equal_lists();
}

/// Both on one disk: the master refuses, nobody dies, and both go on.
#[test]
fn a_master_and_a_secondary_that_are_full_together_go_on_together() {
    let cluster = on_disk(1).set("cluster.retry_delays", "300s").start();
    let mut client = cluster.client();
    let both = [&cluster.master.process, &cluster.node("s1").process];
    for process in both {
        process.limit_files(Some(FILE_BYTES_MAX));
    }
    let is_over = |reply: &str| !reply.starts_with("OK ");
    fill(&mut client, "w=2 timeout=1s", is_over);
    for process in both {
        process.limit_files(None);
    }
    wait_until("appends to go on", || {
        client.cmd("APPEND w=2 timeout=60s x").starts_with("OK ").then_some(())
    });
    cluster.wait_equal_lists();
}

/// Room that comes and goes is told once in a while, on both sides.
#[test]
fn a_disk_that_is_full_by_turns_does_not_fill_the_log_with_it() {
    const TURNS: usize = 8;
    let cluster = on_disk(1).start();
    let mut client = cluster.client();
    let s1 = &cluster.node("s1").process;
    s1.limit_files(Some(FILE_BYTES_MAX));
    let is_pending = |reply: &str| reply.starts_with("PENDING");
    fill(&mut client, "w=2 timeout=1s", is_pending);
    for _ in 0..TURNS {
        s1.limit_files(None);
        client.ok("APPEND w=2 x");
        s1.limit_files(Some(FILE_BYTES_MAX));
        let reply = client.cmd("APPEND w=2 timeout=300ms x");
        assert!(reply.starts_with("PENDING"), "{reply}");
    }
    let told = lines_with(s1, &["the disk is full"]);
    assert!((1..=TURNS / 2).contains(&told), "{told} times in {TURNS} turns");
    assert_eq!(lines_with(s1, &["not taken"]), 0, "a line for each frame");
    let heard = lines_with(&cluster.master.process, &["WARN", "disk-full"]);
    assert!((1..=TURNS / 2).contains(&heard), "{heard} times in {TURNS} turns");
}

/// The disk of a master that comes back empty is smaller than its log: it neither leads without what was
/// answered nor ends.
#[test]
fn a_wiped_master_without_room_for_its_log_waits_for_it() {
    let mut cluster = on_disk(1).set("cluster.heartbeat_interval", "100ms").start();
    let mut client = cluster.client();
    let payload = "x".repeat(50_000);
    for _ in 0..100 {
        client.ok(&format!("APPEND w=2 {payload}"));
    }
    cluster.master.process.kill();
    fs::remove_dir_all(cluster.dir("master")).expect("the directory can be removed");
    cluster.start_master_with(&[]);
    cluster.master.process.limit_files(Some(FILE_BYTES_MAX));
    let mut client = cluster.client();
    assert_told(&mut client, true);
    client.refused("APPEND w=1 x", "REJECTED recovering");
    assert_eq!(client.ask("HEALTH").get("mode"), "recovering");
    cluster.master.process.limit_files(None);
    cluster.wait_mode("normal");
    client.ok("APPEND w=2 x");
    assert_eq!(cluster.wait_equal_lists().entries.len(), 101);
}

/// What another reign numbered otherwise is kept aside before it leaves the log. Where it cannot be kept
/// it stays, and the node says so: it does not end, and nothing is thrown away.
#[test]
fn a_secondary_without_room_to_keep_aside_what_differs_waits_for_it() {
    let mut cluster = on_disk(4).start();
    cluster.client().ok("APPEND w=5 common");
    cluster.master.process.signal("TERM");
    assert_eq!(cluster.master.process.wait_exit(), Some(0));
    let (dir, before) = (cluster.dir("master"), cluster.dir("before"));
    fs::create_dir(&before).expect("a directory can be made");
    for file in fs::read_dir(&dir).expect("the directory is there") {
        let file = file.expect("an entry").path();
        fs::copy(&file, before.join(file.file_name().expect("a name"))).expect("a copy");
    }
    cluster.kill("s3");
    cluster.kill("s4");
    cluster.start_master_with(&[]);
    cluster.wait_mode("normal");
    // On two of five nodes, and so not committed.
    cluster.client_of("s2").ok("FAIL before count=1000000");
    let payload = "x".repeat(50_000);
    let mut client = cluster.client();
    for number in 0..70 {
        client.ok(&format!("APPEND w=2 {number} {payload}"));
    }
    cluster.kill("s1");
    cluster.kill("s2");
    cluster.master.process.kill();
    fs::remove_dir_all(&dir).expect("the directory can be removed");
    fs::rename(&before, &dir).expect("a directory can be moved");
    for id in ["s2", "s3", "s4"] {
        cluster.start(id);
    }
    cluster.start_master_with(&[]);
    cluster.wait_mode("normal");
    let mut client = cluster.client();
    client.ok("APPEND w=4 other");

    cluster.master.process.pause();
    cluster.start("s1");
    cluster.node("s1").process.limit_files(Some(FILE_BYTES_MAX));
    cluster.master.process.resume();
    let mut s1 = cluster.client_of("s1");
    wait_until("the master to hear why s1 is not counted", || {
        let status = client.status();
        let error = status.secondary("s1").get("error").to_owned();
        error.contains("no room on this node's disk to keep aside").then_some(())
    });
    assert_told(&mut s1, true);
    assert_eq!(s1.list("").entries.len(), 71, "nothing is thrown away");
    client.ok("APPEND w=4 others go on");
    cluster.node("s1").process.limit_files(None);
    client.ok("WAIT 3 w=5 timeout=60s");
    assert_eq!(s1.list("").payloads(), ["common", "other", "others go on"]);
    let kept = fs::read_dir(cluster.dir("s1").join("aside")).expect("what differs is kept");
    assert_eq!(kept.count(), 1);
}

/// What mends the log needs room as well: without it nothing is lost, and neither side repeats without
/// end. With room it is repaired.
#[test]
fn a_damaged_secondary_without_room_is_repaired_when_it_has_some() {
    let mut cluster = on_disk(1).set("cluster.heartbeat_interval", "100ms").start();
    let mut client = cluster.client();
    let payload = "x".repeat(50_000);
    for number in 0..100 {
        client.ok(&format!("APPEND w=2 {number} {payload}"));
    }
    cluster.kill("s1");
    let segment = cluster.dir("s1").join("00000000000000000001.log");
    let file = fs::OpenOptions::new().write(true).open(segment).expect("the segment is there");
    file.write_all_at(b"not what was written", 1_000_000).expect("it can be written");
    // Nothing is repaired before there is no room.
    cluster.master.process.pause();
    cluster.start("s1");
    let s1 = &cluster.node("s1").process;
    s1.limit_files(Some(FILE_BYTES_MAX));
    cluster.master.process.resume();
    assert_told(&mut cluster.client_of("s1"), true);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(cluster.client_of("s1").status().node.get("mode"), "damaged");
        std::thread::sleep(Duration::from_millis(100));
    }
    let failed = r#"replog_failed_attempts_total{node="s1",cause="nack"}"#;
    let failed = metric(&mut client, failed);
    assert!((1.0..100.0).contains(&failed), "{failed} attempts");
    s1.limit_files(None);
    s1.wait_for_log_line(&["repaired from the master"]);
    cluster.client().ok("APPEND w=2 x");
    cluster.wait_equal_lists();
}

/// Started while there is no room for anything, or for less than it wants to keep.
#[test]
fn a_start_without_room_says_so_or_serves_what_is_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let start = |limit: &str, dir: &Path| {
        let flags = ["master", "--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0"];
        let mut command = replog(flags);
        command.arg("--data-dir").arg(dir);
        under_shell(&command, &format!("{NO_SIGNAL}; ulimit -f {limit}"))
    };
    let fresh = dir.path().join("fresh");
    let refused = run_to_end(start("0", &fresh), b"").expect_code(1);
    assert!(refused.stderr.contains("ulimit -f"), "{refused:?}");
    assert!(refused.stderr.contains("raise"), "it says what to do: {refused:?}");

    let kept = dir.path().join("kept");
    let mut node = Process::spawn("first", start("unlimited", &kept));
    let mut client = Gateway::connect(node.wait_ready().gateway);
    client.ok("APPEND w=1 kept");
    node.signal("TERM");
    assert_eq!(node.wait_exit(), Some(0));
    // 512 bytes each in some shells, 1024 in others: less than the reserve in all of them.
    let node = Process::spawn("second", start("256", &kept));
    let mut client = Gateway::connect(node.wait_ready().gateway);
    wait_until("mode normal", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    assert_told(&mut client, true);
    client.refused("APPEND w=1 x", "REJECTED disk-full");
    assert_eq!(client.list("").payloads(), ["kept"]);
}
