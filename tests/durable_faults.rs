//! Disks that tear, flip, mix up and lose, under whole clusters: every start comes up or says what it
//! waits for, what was answered is there afterwards, and wrong bytes are never served (design 6, 9).

mod common;

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::{
    Cluster, DEADLINE, Fields, Finished, Gateway, Noise, Process, Ready, Setup, replog, run_to_end,
    wait_until,
};
use replog::checksum::crc32c;

/// The header of a record, before its payload (`STORAGE.md`).
const RECORD_HEADER_BYTES: usize = 48;
/// Where a segment's format version and its checksum stand (`store::disk`).
const VERSION_AT: usize = 8;
const VERSION_CRC_AT: usize = 12;

// ---- helpers ----

/// Logs on disk in the smallest segments there are.
fn small_segments(secondaries: usize) -> Setup {
    Cluster::of(secondaries).on_disk().set("storage.segment_size", "64KiB")
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).expect("the data directory is there");
    let mut logs: Vec<_> = files
        .map(|file| file.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    logs.sort();
    logs
}

fn last_segment(dir: &Path) -> PathBuf {
    segments(dir).pop().expect("at least one segment")
}

fn payload(seq: u64) -> String {
    format!("entry number {seq}")
}

/// Appends entries `from` to `to`; each answer names its number.
#[track_caller]
fn append(client: &mut Gateway, from: u64, to: u64, options: &str) {
    let line = |seq| format!("APPEND {options} {}\n", payload(seq));
    client.send_bytes((from..=to).map(line).collect::<String>().as_bytes());
    for seq in from..=to {
        let reply = client.line();
        assert!(reply.starts_with(&format!("OK seq={seq} ")), "{reply}");
    }
}

/// Appends in pieces that no buffer is too small for.
#[track_caller]
fn append_many(client: &mut Gateway, to: u64, options: &str) {
    for from in (1..=to).step_by(300) {
        append(client, from, to.min(from + 299), options);
    }
}

/// All lists are equal and hold exactly the entries 1 to `last` as they were sent.
#[track_caller]
fn assert_whole(cluster: &Cluster, last: u64) {
    let list = cluster.wait_equal_lists();
    let sent: Vec<_> = (1..=last).map(|seq| (seq, payload(seq))).collect();
    assert!(list.entries == sent, "the log is not what was answered: {:?}", list.end);
}

#[track_caller]
fn stop(cluster: &mut Cluster, id: &str, gently: bool) {
    if gently {
        let node = if id == "master" { &cluster.master } else { cluster.node(id) };
        node.process.signal("TERM");
        node.process.wait_for_log_line(&["stopped"]);
    }
    if id == "master" {
        if gently {
            assert_eq!(cluster.master.process.wait_exit(), Some(0));
        }
        cluster.master.process.kill();
    } else {
        cluster.kill(id);
    }
}

#[track_caller]
fn start(cluster: &mut Cluster, id: &str) {
    if id == "master" { cluster.start_master_with(&[]) } else { cluster.start(id) }
}

fn client_of(cluster: &Cluster, id: &str) -> Gateway {
    if id == "master" { cluster.client() } else { cluster.client_of(id) }
}

/// Where the payload of an entry lies in a segment.
#[track_caller]
fn place_of(segment: &Path, seq: u64) -> (usize, usize) {
    let bytes = fs::read(segment).expect("a segment");
    let wanted = payload(seq).into_bytes();
    let at = bytes.windows(wanted.len()).rposition(|window| window == wanted);
    let at = at.unwrap_or_else(|| panic!("entry {seq} is not in {}", segment.display()));
    (at, at + wanted.len())
}

/// Flips one bit of an entry's payload.
#[track_caller]
fn flip(segment: &Path, seq: u64) {
    let (at, _) = place_of(segment, seq);
    let file = OpenOptions::new().read(true).write(true).open(segment).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).expect("a segment can be written");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for file in fs::read_dir(from).expect("a directory") {
        let file = file.expect("a directory entry").path();
        if file.is_file() {
            fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("a copy");
        }
    }
}

/// Every file of a directory but the lock and the reserve, with its bytes.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir).expect("a directory");
    let files = files.map(|file| file.expect("a directory entry").path());
    let mut files: Vec<_> = files
        .filter(|path| path.is_file() && !path.ends_with("lock") && !path.ends_with("reserve"))
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect();
    files.sort();
    files
}

fn inspect(path: &Path, flags: &[&str]) -> Finished {
    let mut command = replog(["inspect"]);
    command.arg(path).args(flags);
    run_to_end(command, b"")
}

/// A secondary that is expected to refuse its directory.
fn refused_start(dir: &Path) -> Finished {
    let dir = dir.to_str().expect("a path of ours");
    let flags = ["--listen", "127.0.0.1:0", "--gateway", "none", "--data-dir", dir];
    let mut command = replog(["secondary", "--id", "s1"]);
    command.args(flags);
    run_to_end(command, b"").expect_code(1)
}

fn number_of_metric(client: &mut Gateway, name: &str) -> f64 {
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

// ---- torn tails ----

/// The last three records of a stopped node, cut at every 7th byte: as a file that ends there, and as
/// preallocated room that was never filled; after a crash, and after a clean stop, which promises
/// that nothing is missing. Entries 1 to `last` were answered by all three nodes.
fn cut_the_tail_everywhere(victim: &str) {
    let mut cluster = small_segments(2).start();
    let mut last = 5;
    append(&mut cluster.client(), 1, last, "w=3");
    let (mut offset, mut round) = (0, 0);
    loop {
        stop(&mut cluster, victim, round % 2 == 1);
        let segment = last_segment(&cluster.dir(victim));
        let (begin, end) =
            (place_of(&segment, last - 2).0 - RECORD_HEADER_BYTES, place_of(&segment, last).1);
        let cut = begin + offset;
        if cut >= end {
            start(&mut cluster, victim);
            break;
        }
        let file = OpenOptions::new().write(true).open(&segment).expect("a segment");
        if round % 4 < 2 {
            file.set_len(cut as u64).expect("a file can be cut");
        } else {
            let zeros = vec![0; end - cut];
            file.write_all_at(&zeros, cut as u64).expect("a segment can be written");
        }
        start(&mut cluster, victim);
        cluster.wait_mode("normal");
        last += 1;
        append(&mut cluster.client(), last, last, "w=3");
        assert_whole(&cluster, last);
        let status = client_of(&cluster, victim).status();
        assert_eq!(status.node.get("damaged"), "-", "cut at {offset}");
        (offset, round) = (offset + 7, round + 1);
    }
    assert!(round > 25, "only {round} cuts");
    cluster.wait_mode("normal");
    assert_whole(&cluster, last);
}

#[test]
fn a_secondary_whose_tail_is_cut_at_any_byte_gets_it_back() {
    cut_the_tail_everywhere("s1");
}

#[test]
fn a_master_whose_tail_is_cut_at_any_byte_gets_it_back() {
    cut_the_tail_everywhere("master");
}

/// The master cannot know whether the cut entries were answered: it asks both others, and says so
/// while they are away.
#[test]
fn a_master_whose_answered_tail_is_cut_says_whom_it_waits_for() {
    let mut cluster = small_segments(2).start();
    append(&mut cluster.client(), 1, 20, "w=3");
    for id in ["master", "s1", "s2"] {
        stop(&mut cluster, id, true);
    }
    let segment = last_segment(&cluster.dir("master"));
    let (at, _) = place_of(&segment, 20);
    let file = OpenOptions::new().write(true).open(&segment).expect("a segment");
    file.set_len(at as u64).expect("a file can be cut");
    cluster.start_master_with(&[]);
    let mut client = cluster.client();
    let reply = client.ask("APPEND w=1 never");
    assert_eq!(reply.class(), "REJECTED", "{}", reply.line());
    let status = client.status();
    assert!(
        status.node.get("awaiting") == "s1,s2" || status.node.get("damaged") == "20",
        "{}",
        status.node.line()
    );
    cluster.start("s1");
    cluster.start("s2");
    cluster.wait_mode("normal");
    append(&mut cluster.client(), 21, 21, "w=3");
    assert_whole(&cluster, 21);
}

// ---- damage ----

/// What is whole is served, and in the damaged range nothing is.
#[track_caller]
fn assert_served_but(client: &mut Gateway, damaged: u64, last: u64) {
    let status = client.status();
    let range = status.node.get("damaged");
    let ends: Vec<u64> = range.split(['-', '–']).filter_map(|end| end.parse().ok()).collect();
    let (from, to) = (ends[0], ends[ends.len() - 1]);
    assert!((from..=to).contains(&damaged), "{}", status.node.line());
    assert!(to - from < 2000, "far more is given up than is damaged: {range}");
    client.refused(&format!("GET {damaged}"), "ERR unreadable");
    for seq in [1, from - 1, to + 1, last] {
        let got = client.ok(&format!("GET {seq}"));
        assert_eq!(got.get("payload"), payload(seq));
    }
    let served = client.list("level=local");
    assert_eq!(served.entries.last().map(|(seq, _)| *seq), Some(from - 1), "reads end before it");
}

fn damaged_cluster(victim: &str) -> Cluster {
    let mut cluster = small_segments(2).start();
    append_many(&mut cluster.client(), 4000, "w=3");
    for id in ["master", "s1", "s2"] {
        stop(&mut cluster, id, true);
    }
    let segments = segments(&cluster.dir(victim));
    assert!(segments.len() > 3, "{segments:?}");
    flip(&segments[1], 1200);
    cluster
}

#[test]
fn a_damaged_secondary_alone_serves_what_is_whole_and_is_repaired_once_the_master_is_back() {
    let mut cluster = damaged_cluster("s1");
    cluster.start("s1");
    let mut client = cluster.client_of("s1");
    wait_until("the damage to be noticed", || {
        client.cmd("GET 1200").starts_with("ERR unreadable").then_some(())
    });
    assert_eq!(client.status().node.get("mode"), "damaged");
    assert_served_but(&mut client, 1200, 4000);
    cluster.start_master_with(&[]);
    cluster.start("s2");
    cluster.wait_mode("normal");
    wait_until("a repaired secondary", || {
        let status = client.status();
        (status.node.get("damaged") == "-" && status.node.get("mode") == "normal").then_some(())
    });
    append(&mut cluster.client(), 4001, 4001, "w=3");
    assert_whole(&cluster, 4001);
    let kept = fs::read_dir(cluster.dir("s1").join("aside")).expect("what was replaced is kept");
    assert_eq!(kept.count(), 1);
    stop(&mut cluster, "s1", true);
    inspect(&cluster.dir("s1"), &["--quiet"]).expect_code(0);
}

#[test]
fn a_damaged_master_alone_serves_what_is_whole_and_numbers_nothing_until_it_is_repaired() {
    let mut cluster = damaged_cluster("master");
    cluster.start_master_with(&[]);
    let mut client = cluster.client();
    wait_until("the damage to be noticed", || {
        client.cmd("GET 1200").starts_with("ERR unreadable").then_some(())
    });
    let mode = client.status().node.get("mode").to_owned();
    assert!(mode == "damaged" || mode == "recovering", "{mode}");
    client.refused("APPEND w=1 never", &format!("REJECTED {mode}"));
    assert_served_but(&mut client, 1200, 4000);
    cluster.start("s1");
    cluster.start("s2");
    cluster.wait_mode("normal");
    append(&mut cluster.client(), 4001, 4001, "w=3");
    assert_whole(&cluster, 4001);
}

/// Nobody can repair a cluster of one: it stays readable, and says what it lacks.
#[test]
fn a_damaged_master_without_secondaries_is_damaged_and_refuses_appends() {
    let mut cluster = small_segments(0).start();
    append_many(&mut cluster.client(), 4000, "w=1");
    stop(&mut cluster, "master", true);
    flip(&segments(&cluster.dir("master"))[1], 1200);
    for round in 0..2 {
        start(&mut cluster, "master");
        let mut client = cluster.client();
        wait_until("the damage to be noticed", || {
            client.cmd("GET 1200").starts_with("ERR unreadable").then_some(())
        });
        assert_eq!(client.status().node.get("mode"), "damaged");
        client.refused("APPEND w=1 never", "REJECTED damaged");
        assert_served_but(&mut client, 1200, 4000);
        stop(&mut cluster, "master", round == 0);
        let found = inspect(&cluster.dir("master"), &["--quiet"]).expect_code(6);
        assert!(found.text().contains("damage entries="), "{}", found.text());
    }
}

/// The scrub or a reader finds it while the node runs, with nobody there to repair it.
#[test]
fn damage_of_a_running_master_stops_appends_until_a_secondary_is_back() {
    let mut cluster = small_segments(2).start();
    append_many(&mut cluster.client(), 4000, "w=3");
    stop(&mut cluster, "s1", false);
    stop(&mut cluster, "s2", false);
    flip(&segments(&cluster.dir("master"))[1], 1200);
    let mut client = cluster.client();
    wait_until("the damage to be noticed", || {
        client.cmd("GET 1200").starts_with("ERR unreadable").then_some(())
    });
    cluster.wait_mode("damaged");
    client.refused("APPEND w=1 never", "REJECTED damaged");
    assert_served_but(&mut client, 1200, 4000);
    cluster.start("s1");
    cluster.wait_mode("normal");
    append(&mut client, 4001, 4001, "w=2");
    cluster.start("s2");
    assert_whole(&cluster, 4001);
}

// ---- formats and strangers ----

#[test]
fn a_directory_of_a_newer_format_is_refused_with_both_versions_named_and_left_alone() {
    let mut cluster = small_segments(1).start();
    append(&mut cluster.client(), 1, 10, "w=2");
    stop(&mut cluster, "s1", true);
    let dir = cluster.dir("s1");
    let (segment, meta) = (last_segment(&dir), dir.join("meta"));
    let (old_segment, old_meta) =
        (fs::read(&segment).expect("a segment"), fs::read_to_string(&meta).expect("meta"));

    let mut newer = old_segment.clone();
    newer[VERSION_AT..VERSION_CRC_AT].copy_from_slice(&2_u32.to_le_bytes());
    let crc = crc32c(&newer[..VERSION_CRC_AT]);
    newer[VERSION_CRC_AT..VERSION_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&segment, newer).expect("a segment can be written");
    assert_refused_as_newer(&dir);
    fs::write(&segment, &old_segment).expect("a segment can be written");

    let lines = "replog 2\nwhat=nobody knows yet\n";
    let copy = format!("{lines}crc={:08x}\n", crc32c(lines.as_bytes()));
    fs::write(&meta, copy.repeat(2)).expect("meta can be written");
    assert_refused_as_newer(&dir);
    fs::write(&meta, &old_meta).expect("meta can be written");

    cluster.start("s1");
    append(&mut cluster.client(), 11, 11, "w=2");
    assert_whole(&cluster, 11);
}

#[track_caller]
fn assert_refused_as_newer(dir: &Path) {
    let before = contents(dir);
    let done = refused_start(dir);
    assert!(done.stderr.contains("format 2") && done.stderr.contains("start a newer replog"));
    assert!(done.stderr.contains("up to 1") || done.stderr.contains("format 1"), "{done:?}");
    let done = inspect(dir, &[]).expect_code(1);
    assert!(done.stderr.contains("format 2") && done.stderr.contains("up to 1"), "{done:?}");
    assert!(contents(dir) == before, "a refused directory was changed");
}

#[test]
fn a_secondary_with_the_log_of_another_cluster_is_refused_and_kept() {
    let mut ours = small_segments(2).start();
    let mut theirs = small_segments(1).start();
    append(&mut ours.client(), 1, 10, "w=3");
    for number in 1..=20 {
        theirs.client().ok(&format!("APPEND w=2 theirs {number}"));
    }
    stop(&mut theirs, "s1", true);
    stop(&mut ours, "s1", true);
    fs::remove_dir_all(ours.dir("s1")).expect("the directory can be removed");
    copy_dir(&theirs.dir("s1"), &ours.dir("s1"));
    ours.start("s1");
    let mut client = ours.client();
    let error = wait_until("the foreign log to be refused", || {
        let status = client.status();
        let error = status.secondary("s1").get("error").to_owned();
        error.contains("foreign-log").then_some(error)
    });
    assert!(error.contains("holds 20 entries of another log, "), "{error}");
    let warning = "do not empty it before you know which log is right";
    assert!(error.contains(warning), "it may be the only one that has them: {error}");
    ours.wait_health("s1", "unhealthy");
    append(&mut client, 11, 12, "w=2");
    let reply = client.cmd("APPEND w=3 timeout=0 entry number 13");
    assert!(reply.starts_with("PENDING seq=13 "), "{reply}");
    let kept = ours.client_of("s1").list("level=local");
    assert_eq!(kept.entries.len(), 20);
    assert!(kept.payloads()[19] == "theirs 20");
    stop(&mut ours, "s1", true);
    assert_eq!(segments(&ours.dir("s1")).len(), 1);
    // Its own cluster takes it back.
    fs::remove_dir_all(theirs.dir("s1")).expect("the directory can be removed");
    copy_dir(&ours.dir("s1"), &theirs.dir("s1"));
    theirs.start("s1");
    theirs.client().ok("APPEND w=2 theirs 21");
    assert_eq!(theirs.wait_equal_lists().entries.len(), 21);
    // With an empty directory the node joins the other.
    fs::remove_dir_all(ours.dir("s1")).expect("the directory can be removed");
    ours.start("s1");
    client.ok("WAIT 13 w=3");
    assert_whole(&ours, 13);
}

// ---- wiped ----

#[test]
fn a_wiped_secondary_is_filled_again_while_another_is_down() {
    let mut cluster = small_segments(2).start();
    append(&mut cluster.client(), 1, 300, "w=3");
    stop(&mut cluster, "s2", false);
    stop(&mut cluster, "s1", false);
    fs::remove_dir_all(cluster.dir("s1")).expect("the directory can be removed");
    cluster.start("s1");
    cluster.client().ok("WAIT 300 w=2");
    cluster.wait_mode("normal");
    append(&mut cluster.client(), 301, 310, "w=2");
    assert_whole(&cluster, 310);
    cluster.start("s2");
    append(&mut cluster.client(), 311, 311, "w=3");
    assert_whole(&cluster, 311);
}

/// The master's log is whole: for a quorum it needs no more than one node that is there.
#[test]
fn a_restarted_master_fills_a_wiped_secondary_while_another_is_down() {
    let mut cluster = small_segments(2).start();
    append(&mut cluster.client(), 1, 300, "w=3");
    for id in ["s2", "s1", "master"] {
        stop(&mut cluster, id, false);
    }
    fs::remove_dir_all(cluster.dir("s1")).expect("the directory can be removed");
    cluster.start("s1");
    cluster.start_master_with(&[]);
    cluster.wait_mode("normal");
    cluster.client().ok("WAIT 300 w=2");
    append(&mut cluster.client(), 301, 310, "w=2");
    assert_whole(&cluster, 310);
    cluster.start("s2");
    append(&mut cluster.client(), 311, 311, "w=3");
    assert_whole(&cluster, 311);
}

// ---- inspect ----

#[test]
fn inspect_tells_whole_torn_damaged_and_foreign_apart_by_its_exit_code() {
    let mut cluster = small_segments(1).start();
    append(&mut cluster.client(), 1, 50, "w=2");
    let dir = cluster.dir("s1");
    let text = inspect(&dir, &["--limit", "0"]).expect_code(0).text();
    assert!(text.contains("in use by process"), "{text}");
    assert!(text.contains("OK first=1 last=50"), "{text}");
    stop(&mut cluster, "s1", false);
    let text = inspect(&dir, &["--quiet"]).expect_code(0).text();
    assert!(text.starts_with("OK first=1 last=50"), "{text}");
    let digest = cluster.client().ok("DIGEST 50").get("digest").to_owned();
    assert!(text.contains(&format!("digest={digest}")), "{text} but {digest}");

    let segment = last_segment(&dir);
    let whole = fs::read(&segment).expect("a segment");
    let (at, _) = place_of(&segment, 50);
    fs::write(&segment, &whole[..at]).expect("a segment can be written");
    let text = inspect(&dir, &["--quiet"]).expect_code(0).text();
    assert!(text.contains("torn tail") && text.contains("OK first=1 last=49"), "{text}");
    fs::write(&segment, &whole).expect("a segment can be written");

    flip(&segment, 20);
    for path in [&dir, &segment] {
        let text = inspect(path, &["--quiet"]).expect_code(6).text();
        assert!(text.contains("damage entries=20 ") && text.contains("DAMAGED "), "{text}");
    }
    fs::write(&segment, &whole).expect("a segment can be written");
    inspect(&dir, &["--quiet"]).expect_code(0);

    let empty = tempfile::tempdir().expect("a temporary directory");
    inspect(empty.path(), &[]).expect_code(1);
    inspect(&empty.path().join("nowhere"), &[]).expect_code(1);
    inspect(&dir, &["--no-such-flag"]).expect_code(2);
}

// ---- restarts ----

#[test]
fn a_restarted_node_knows_its_commit_its_digest_and_its_history_by_itself() {
    let mut cluster = small_segments(2).start();
    append(&mut cluster.client(), 1, 100, "w=3");
    let (digest, before) = (cluster.client().cmd("DIGEST 100"), cluster.client().status());
    wait_until("s1 to know the commit", || {
        (cluster.client_of("s1").status().node.number("commit") == 100).then_some(())
    });
    for id in ["master", "s1", "s2"] {
        stop(&mut cluster, id, true);
    }
    for round in 0..2 {
        cluster.start("s1");
        let mut alone = cluster.client_of("s1");
        let status = alone.status();
        assert_eq!(status.node.get("log_id"), before.node.get("log_id"));
        assert_eq!((status.node.number("commit"), status.node.number("next")), (100, 101));
        assert_eq!(alone.cmd("DIGEST 100"), digest);
        assert_eq!(alone.list("").entries.len(), 100, "what is committed is readable at once");
        stop(&mut cluster, "s1", round == 1);
    }
    cluster.start("s1");
    cluster.start("s2");
    cluster.start_master_with(&[]);
    cluster.wait_mode("normal");
    let mut client = cluster.client();
    let status = client.status();
    assert_eq!(status.node.get("log_id"), before.node.get("log_id"));
    assert_eq!(status.node.number("epoch"), before.node.number("epoch") + 1);
    assert_eq!(client.cmd("DIGEST 100"), digest);
    append(&mut client, 101, 101, "w=3");
    assert_whole(&cluster, 101);
}

/// A cluster in one process, until its nodes are ready.
fn dev(dir: &Path) -> (Process, Vec<SocketAddr>) {
    let mut command = replog(["dev", "--gateway-port", "0", "--wire-port", "0"]);
    command.arg("--data-dir").arg(dir);
    let process = Process::spawn("dev", command);
    process.wait_for_log_line(&["ready cluster"]);
    let ready: Vec<_> = process.log().iter().filter_map(|line| Ready::of(line)).collect();
    let nodes = ["master", "s1", "s2"].iter().map(|id| {
        let node = ready.iter().find(|ready| ready.id == *id);
        node.unwrap_or_else(|| panic!("no ready line of {id}"))
    });
    let gateways = nodes.map(|ready| {
        assert_eq!(ready.store, "disk");
        ready.gateway
    });
    let gateways = gateways.collect();
    (process, gateways)
}

#[test]
fn a_cluster_in_one_process_survives_its_end_gentle_or_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut last = 0;
    let mut digest = None;
    for gently in [false, true, false] {
        let (mut process, gateways) = dev(dir.path());
        let mut client = Gateway::connect(gateways[0]);
        if let Some(digest) = digest {
            assert_eq!(client.cmd(&format!("DIGEST {last}")), digest);
        }
        append(&mut client, last + 1, last + 20, "w=3");
        last += 20;
        digest = Some(client.cmd(&format!("DIGEST {last}")));
        for gateway in gateways {
            let mut node = Gateway::connect(gateway);
            wait_until("the whole list", || {
                (node.list("").entries.len() as u64 == last).then_some(())
            });
        }
        if gently {
            process.signal("TERM");
            assert_eq!(process.wait_exit(), Some(0));
        } else {
            process.kill();
        }
    }
}

#[test]
fn a_laxer_fsync_policy_says_so_and_still_survives_the_death_of_every_process() {
    for policy in ["interval", "never"] {
        let mut cluster = Cluster::of(2).on_disk().set("storage.fsync", policy).start();
        append(&mut cluster.client(), 1, 200, "w=3");
        append(&mut cluster.client(), 201, 210, "w=1");
        for id in ["master", "s1", "s2"] {
            assert_eq!(client_of(&cluster, id).status().node.get("fsync"), policy);
        }
        for id in ["master", "s1", "s2"] {
            stop(&mut cluster, id, false);
        }
        for id in ["s1", "s2", "master"] {
            start(&mut cluster, id);
        }
        cluster.wait_mode("normal");
        append(&mut cluster.client(), 211, 211, "w=3");
        assert_whole(&cluster, 211);
    }
}

#[test]
fn metrics_count_syncs_as_the_policy_says() {
    for (policy, syncs) in [("always", true), ("interval", true), ("never", false)] {
        let setting = Cluster::of(1).on_disk().set("storage.fsync", policy);
        let cluster = setting.set("storage.fsync_interval", "10ms").start();
        let mut clients = cluster.clients();
        let count = |client: &mut Gateway| number_of_metric(client, "replog_syncs_total");
        let before: Vec<f64> = clients.iter_mut().map(count).collect();
        append(&mut cluster.client(), 1, 50, "w=2");
        for (client, before) in clients.iter_mut().zip(before) {
            if syncs {
                wait_until("a sync to be counted", || (count(client) > before).then_some(()));
                assert!(number_of_metric(client, "replog_sync_seconds_total") > 0.0);
                assert!(number_of_metric(client, "replog_sync_longest_seconds") > 0.0);
            } else {
                let now = count(client);
                assert!((now - before).abs() < 0.5, "{policy}: {before} syncs, then {now}");
            }
        }
    }
}

/// With an hour between syncs nothing is synced that the default would have synced ten times over.
#[test]
fn syncs_come_as_often_as_the_interval_says() {
    for (interval, syncs) in [("10ms", true), ("1h", false)] {
        let setting = Cluster::of(1).on_disk().set("storage.fsync", "interval");
        let cluster = setting.set("storage.fsync_interval", interval).start();
        let mut client = cluster.client();
        let before = number_of_metric(&mut client, "replog_syncs_total");
        let start = client.status().node.number("uptime_s");
        append(&mut client, 1, 50, "w=2");
        wait_until("some seconds of appends", || {
            client.ok("APPEND w=2 x");
            (client.status().node.number("uptime_s") >= start + 2).then_some(())
        });
        let came = number_of_metric(&mut client, "replog_syncs_total") - before;
        assert!(if syncs { came > 10.0 } else { came < 0.5 }, "{interval}: {came} syncs");
    }
}

#[test]
fn a_log_grows_over_many_segments_with_restarts_in_between() {
    let mut cluster = small_segments(2).start();
    let filler = "x".repeat(1000);
    let mut last: u64 = 0;
    let ids = ["master", "s1", "s2", "master", "s2", "s1"];
    for (round, id) in ids.into_iter().enumerate() {
        let mut client = cluster.client();
        // Little at once: what is written together stays in one segment.
        for from in (last + 1..=last + 300).step_by(30) {
            let lines = |seq| format!("APPEND w=3 {seq} {filler}\n");
            client.send_bytes((from..from + 30).map(lines).collect::<String>().as_bytes());
            for seq in from..from + 30 {
                let reply = client.line();
                assert!(reply.starts_with(&format!("OK seq={seq} ")), "{reply}");
            }
        }
        last += 300;
        stop(&mut cluster, id, round % 2 == 0);
        start(&mut cluster, id);
        cluster.wait_mode("normal");
    }
    let list = cluster.wait_equal_lists();
    assert_eq!(list.entries.len() as u64, last);
    for (seq, payload) in &list.entries {
        assert!(*payload == format!("{seq} {filler}"), "entry {seq} is another");
    }
    for id in ["master", "s1", "s2"] {
        stop(&mut cluster, id, true);
        let dir = cluster.dir(id);
        assert!(segments(&dir).len() > 20, "{:?}", segments(&dir));
        let text = inspect(&dir, &["--quiet"]).expect_code(0).text();
        assert!(text.contains(&format!("OK first=1 last={last} ")), "{text}");
    }
}

// ---- kill -9 ----

/// What a writer sent, in its order, and the answer to each: none if the connection ended first.
type History = Vec<(String, Option<String>)>;

struct Writers {
    gateway: Mutex<SocketAddr>,
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Writers {
    fn gateway(&self) -> SocketAddr {
        *self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends with mixed w, a few at a time, on one connection after the other. Nothing is sent
    /// twice.
    fn write(&self, name: &str) -> History {
        let mut history = History::new();
        while !self.stop.load(Ordering::Relaxed) {
            // Where the master is when nobody answers is known as soon as it is there again.
            if self.write_on_one_connection(name, &mut history).is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        history
    }

    fn write_on_one_connection(&self, name: &str, history: &mut History) -> Option<()> {
        let stream = TcpStream::connect(self.gateway()).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        let mut reader = BufReader::new(stream);
        while !self.stop.load(Ordering::Relaxed) {
            let first = history.len();
            let mut lines = String::new();
            for at in first..first + 4 {
                let payload = format!("{name}-{at}");
                let options = ["w=1", "w=2", "w=3 timeout=200ms", "w=2 timeout=0"][at % 4];
                lines += &format!("APPEND {options} {payload}\n");
                history.push((payload, None));
            }
            reader.get_mut().write_all(lines.as_bytes()).ok()?;
            for (_, answer) in &mut history[first..] {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let line = line.strip_suffix('\n')?;
                if !line.starts_with("REJECTED") {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                *answer = Some(line.to_owned());
            }
        }
        Some(())
    }
}

/// Holds the log against what one writer heard.
fn check(history: &History, places: &HashMap<&str, Vec<u64>>, log: &[(u64, String)]) {
    let nowhere = Vec::new();
    let mut before = 0;
    for (payload, reply) in history {
        let found = places.get(payload.as_str()).unwrap_or(&nowhere);
        assert!(found.len() <= 1, "{payload} is in the log more than once: {found:?}");
        let Some(reply) = reply else { continue };
        let fields = Fields::of(reply);
        match fields.class() {
            "OK" | "PENDING" => {
                let seq = fields.number("seq");
                assert_eq!(found, &[seq], "{payload} was answered: {reply}");
                assert!(seq > before, "{payload} stands before what was sent before it: {reply}");
                assert_eq!(log[seq as usize - 1].1, *payload);
                before = seq;
            }
            "REJECTED" => assert!(found.is_empty(), "{payload} was refused: {reply}"),
            "UNKNOWN" => {}
            _ => panic!("{payload}: {reply}"),
        }
    }
}

#[test]
fn thirty_kills_of_random_nodes_under_load_lose_nothing_and_repeat_nothing() {
    let mut cluster = small_segments(2).start();
    let mut noise = Noise::seeded(30);
    let writers = Writers {
        gateway: Mutex::new(cluster.master.ready.gateway),
        stop: AtomicBool::new(false),
        answered: AtomicUsize::new(0),
    };
    let histories: Vec<History> = std::thread::scope(|scope| {
        // However this ends, the writers must.
        struct StopOnDrop<'a>(&'a AtomicBool);
        impl Drop for StopOnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop_writers = StopOnDrop(&writers.stop);
        let handles: Vec<_> =
            ["a", "b", "c"].into_iter().map(|name| scope.spawn(|| writers.write(name))).collect();
        for _ in 0..30 {
            let answered = writers.answered.load(Ordering::Relaxed);
            wait_until("appends to be answered", || {
                (writers.answered.load(Ordering::Relaxed) > answered + 20).then_some(())
            });
            let id = ["master", "s1", "s2"][noise.below(3)];
            stop(&mut cluster, id, false);
            // Now and then a second one falls at the same time.
            let other = ["s1", "s2"][noise.below(2)];
            let both = other != id && noise.below(4) == 0;
            if both {
                stop(&mut cluster, other, false);
                start(&mut cluster, other);
            }
            start(&mut cluster, id);
            *writers.gateway.lock().unwrap_or_else(PoisonError::into_inner) =
                cluster.master.ready.gateway;
        }
        cluster.wait_mode("normal");
        drop(stop_writers);
        handles.into_iter().map(|handle| handle.join().expect("a writer does not panic")).collect()
    });
    cluster.client().ok("APPEND w=3 the last one");
    let log = cluster.wait_equal_lists().entries;
    let mut places: HashMap<&str, Vec<u64>> = HashMap::new();
    for (seq, payload) in &log {
        places.entry(payload).or_default().push(*seq);
    }
    for history in &histories {
        check(history, &places, &log);
    }
    let sent: usize = histories.iter().map(Vec::len).sum();
    assert!(sent >= writers.answered.load(Ordering::Relaxed) && sent > 600, "{sent} sent");
    assert!(places.len() <= sent + 1, "somebody else wrote into the log");
}

/// The answer to a master's HELLO is the promise: it must not be given where it could not be kept.
#[test]
fn a_promise_that_cannot_be_kept_is_not_given() {
    let mut cluster = Cluster::of(1).on_disk().start();
    cluster.client().ok("APPEND w=2 one");
    // Nothing can be written under that name any more.
    std::fs::create_dir(cluster.dir("s1").join("meta.tmp")).expect("a directory can be made");
    cluster.restart_master();
    cluster.node("s1").process.wait_for_log_line(&["ERROR", "the file meta", "exit_code"]);
    let meta = std::fs::read_to_string(cluster.dir("s1").join("meta")).expect("it is there");
    assert!(meta.contains("\nepoch=1\n"), "{meta}");
    let mut client = cluster.client();
    wait_until("the end of s1 to be seen", || {
        (client.status().secondary("s1").get("health") == "unhealthy").then_some(())
    });
    assert_eq!(client.ok("HEALTH").get("mode"), "recovering");
    let log = cluster.master.process.log();
    assert!(!log.iter().any(|line| line.contains(" leads ")), "{log:?}");
}
