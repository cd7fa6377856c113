//! Nodes that keep their log on disk: killed, wiped, rolled back, flipped, cut, full. Whatever was
//! answered is there afterwards, and nobody has to help (design 6 and 9).

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::{Cluster, Gateway, wait_until};

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).expect("the data directory is there");
    let mut logs: Vec<_> = files
        .map(|file| file.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    logs.sort();
    logs
}

/// Waits until the master accepts appends. Meanwhile no secondary that runs gets shorter than `last`.
fn wait_normal_while_nobody_shrinks(cluster: &Cluster, ids: &[&str], last: u64) {
    let mut master = cluster.client();
    let mut others: Vec<_> = ids.iter().map(|id| cluster.client_of(id)).collect();
    wait_until("mode normal", || {
        for other in &mut others {
            let status = other.status();
            assert!(status.node.number("next") > last, "a secondary shrank: {status:?}");
        }
        (master.ask("HEALTH").get("mode") == "normal").then_some(())
    });
}

fn append(client: &mut Gateway, from: u64, to: u64, options: &str) {
    let lines: String =
        (from..=to).map(|number| format!("APPEND {options} entry {number}\n")).collect();
    client.send_bytes(lines.as_bytes());
    for number in from..=to {
        let reply = client.line();
        assert!(reply.starts_with(&format!("OK seq={number} ")), "{reply}");
    }
}

#[test]
fn the_ready_line_and_status_say_that_the_log_is_on_disk() {
    let cluster = Cluster::of(1).on_disk().start();
    assert_eq!(cluster.master.ready.store, "disk");
    let status = cluster.client().status();
    assert_eq!((status.node.get("store"), status.node.get("fsync")), ("disk", "always"));
    assert_eq!(cluster.client_of("s1").status().node.get("store"), "disk");
}

#[test]
fn all_nodes_killed_at_once_lose_nothing_that_was_answered() {
    let mut cluster = Cluster::of(2).on_disk().start();
    let mut client = cluster.client();
    append(&mut client, 1, 200, "w=1");
    append(&mut client, 201, 300, "w=3");
    let before = client.cmd("DIGEST");
    cluster.master.process.kill();
    cluster.kill("s1");
    cluster.kill("s2");
    cluster.start("s1");
    cluster.start("s2");
    cluster.start_master_with(&[]);
    cluster.wait_mode("normal");
    let mut client = cluster.client();
    assert_eq!(client.cmd("DIGEST"), before);
    let next = client.ok("APPEND w=3 next");
    assert_eq!((next.number("seq"), next.number("epoch")), (301, 2));
    let old = client.ok("WAIT 300 w=3");
    assert_eq!((old.number("seq"), old.number("epoch")), (300, 1), "the epoch of the entry");
    assert_eq!(cluster.wait_equal_lists().entries.len(), 301);
}

/// A whole log needs but a quorum.
#[test]
fn a_restarted_master_with_its_log_needs_one_of_two_secondaries() {
    let mut cluster = Cluster::of(2).on_disk().start();
    append(&mut cluster.client(), 1, 50, "w=3");
    cluster.kill("s2");
    cluster.restart_master();
    cluster.wait_mode("normal");
    assert_eq!(cluster.client().ok("APPEND w=2 x").number("seq"), 51);
    cluster.start("s2");
    assert_eq!(cluster.wait_equal_lists().entries.len(), 51);
}

#[test]
fn a_wiped_secondary_is_filled_again() {
    let mut cluster = Cluster::of(2).on_disk().start();
    append(&mut cluster.client(), 1, 500, "w=3");
    cluster.kill("s1");
    fs::remove_dir_all(cluster.dir("s1")).expect("the directory can be removed");
    cluster.start("s1");
    cluster.client().ok("WAIT 500 w=3");
    assert_eq!(cluster.wait_equal_lists().entries.len(), 500);
}

#[test]
fn a_wiped_master_gets_its_log_back_from_both_secondaries() {
    let mut cluster = Cluster::of(2).on_disk().start();
    append(&mut cluster.client(), 1, 500, "w=2");
    cluster.master.process.kill();
    fs::remove_dir_all(cluster.dir("master")).expect("the directory can be removed");
    cluster.kill("s2");
    cluster.start_master_with(&[]);
    let mut client = cluster.client();
    wait_until("s2 to be awaited", || {
        let status = client.status();
        (status.node.get("awaiting") == "s2" && status.node.number("uptime_s") >= 3).then_some(())
    });
    client.refused("APPEND w=1 x", "REJECTED recovering");
    cluster.start("s2");
    wait_normal_while_nobody_shrinks(&cluster, &["s1"], 500);
    assert_eq!(cluster.client().ok("APPEND w=3 next").number("seq"), 501);
    assert_eq!(cluster.wait_equal_lists().entries.len(), 501);
}

/// Someone gave the master the directory of ten thousand entries ago: it adopts what came since, and no number is
/// used twice.
#[test]
fn a_master_with_a_directory_of_long_ago_adopts_what_came_since() {
    let mut cluster = Cluster::of(2).on_disk().start();
    append(&mut cluster.client(), 1, 100, "w=3");
    cluster.master.process.signal("TERM");
    assert_eq!(cluster.master.process.wait_exit(), Some(0));
    let (dir, copy) = (cluster.dir("master"), cluster.dir("master-of-long-ago"));
    copy_dir(&dir, &copy);
    cluster.start_master_with(&[]);
    cluster.wait_mode("normal");
    const LAST: u64 = 10_100;
    for from in (101..LAST).step_by(1000) {
        append(&mut cluster.client(), from, from + 999, "w=3");
    }
    let before = cluster.client().cmd("DIGEST");
    cluster.master.process.kill();
    fs::remove_dir_all(&dir).expect("the directory can be removed");
    copy_dir(&copy, &dir);
    cluster.start_master_with(&[]);
    wait_normal_while_nobody_shrinks(&cluster, &["s1", "s2"], LAST);
    assert_eq!(cluster.client().cmd(&format!("DIGEST {LAST}")), before);
    assert_eq!(cluster.client().ok("APPEND w=3 next").number("seq"), LAST + 1);
    assert_eq!(cluster.wait_equal_lists().entries.len() as u64, LAST + 1);
}

/// Never to be done, and survived: the copy makes the secondaries promise a higher epoch, so that the
/// first master gets no answer any more, ends, and has answered nothing that the second does not have.
#[test]
fn a_second_master_on_a_copy_of_the_directory_ends_the_first_and_has_all_it_answered() {
    let mut cluster = Cluster::of(2).on_disk().start();
    append(&mut cluster.client(), 1, 100, "w=3");
    copy_dir(&cluster.dir("master"), &cluster.dir("master-2"));
    append(&mut cluster.client(), 101, 200, "w=2");
    let mut client = cluster.client();
    let writer = std::thread::spawn(move || {
        let mut answered = 200;
        loop {
            let line = format!("APPEND w=2 entry {}\n", answered + 1);
            if client.stream().write_all(line.as_bytes()).is_err() {
                return answered;
            }
            let reply = client.line_or_end().unwrap_or_default();
            if !reply.starts_with(format!("OK seq={} ", answered + 1).as_bytes()) {
                return answered;
            }
            answered += 1;
        }
    });
    let mut second = cluster.second_master();
    let error = cluster.master.process.wait_for_log_line(&["deposed"]);
    assert!(error.contains("promised epoch 2"), "{error}");
    assert_eq!(cluster.master.process.wait_exit(), Some(1));
    let answered = writer.join().expect("the writer ends with its connection");
    let mut client = Gateway::connect(second.ready.gateway);
    wait_until("a normal second master", || {
        (client.status().node.get("mode") == "normal").then_some(())
    });
    let list = client.list("");
    let missing = (1..=answered).find(|number| {
        list.entries.get(*number as usize - 1) != Some(&(*number, format!("entry {number}")))
    });
    assert_eq!(missing, None, "answered up to {answered}, there are {}", list.entries.len());
    second.process.kill();
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

/// A flipped bit is noticed, never served, and repaired from a peer while the node goes on.
#[test]
fn a_flipped_bit_is_repaired_on_a_secondary_and_on_the_master() {
    for victim in ["s1", "master"] {
        let mut cluster = Cluster::of(2).on_disk().set("storage.segment_size", "64KiB").start();
        let mut client = cluster.client();
        for from in (1..=3000).step_by(300) {
            append(&mut client, from, from + 299, "w=3");
        }
        let digest = client.cmd("DIGEST");
        if victim == "s1" {
            cluster.kill("s1");
        } else {
            cluster.master.process.kill();
        }
        let segments = segments(&cluster.dir(victim));
        assert!(segments.len() > 2, "{segments:?}");
        let mut bytes = fs::read(&segments[0]).expect("a segment");
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        fs::write(&segments[0], bytes).expect("a segment can be written");
        if victim == "s1" {
            cluster.start("s1");
        } else {
            cluster.start_master_with(&[]);
        }
        cluster.wait_mode("normal");
        let mut node = if victim == "s1" { cluster.client_of("s1") } else { cluster.client() };
        let list = wait_until("the whole list", || {
            let list = node.list("");
            for (seq, payload) in &list.entries {
                assert_eq!(*payload, format!("entry {seq}"), "wrong bytes were served");
            }
            (list.entries.len() == 3000).then_some(list)
        });
        assert_eq!(list.entries.len(), 3000);
        wait_until("a repaired node", || (node.status().node.get("damaged") == "-").then_some(()));
        assert_eq!(node.cmd("DIGEST"), digest);
        assert_eq!(cluster.client().ok("APPEND w=3 next").number("seq"), 3001);
    }
}

#[test]
fn two_processes_on_one_directory_are_refused() {
    let cluster = Cluster::of(1).on_disk().start();
    let dir = cluster.dir("s1");
    let command = common::replog([
        "secondary",
        "--id",
        "s1",
        "--listen",
        "127.0.0.1:0",
        "--gateway",
        "none",
        "--data-dir",
        dir.to_str().expect("a path of ours"),
    ]);
    let done = common::run_to_end(command, b"").expect_code(1);
    assert!(done.stderr.contains("in use") && done.stderr.contains("--data-dir"), "{done:?}");
}

#[test]
fn the_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::of(2).on_disk().start();
    cluster.kill("s2");
    let dir = cluster.dir("s2");
    let command = common::replog([
        "secondary",
        "--id",
        "s1",
        "--listen",
        "127.0.0.1:0",
        "--gateway",
        "none",
        "--data-dir",
        dir.to_str().expect("a path of ours"),
    ]);
    let done = common::run_to_end(command, b"").expect_code(1);
    assert!(done.stderr.contains("node s2"), "{done:?}");
}

/// Two nodes that call themselves s1: the one under the wrong address is refused, counts for nothing,
/// and both sides say what to do about it; it is no reason to fill a log with warnings.
#[test]
fn a_second_node_with_the_id_of_another_is_refused_with_what_to_do() {
    let cluster = Cluster::of(2).on_disk().absent("s2").launch();
    let (addr, dir) = (cluster.addr("s2").to_string(), cluster.dir("another"));
    let mut command = common::replog(["secondary", "--id", "s1", "--gateway", "none"]);
    command.args(["--listen", &addr, "--data-dir"]).arg(&dir);
    let twin = common::Process::spawn("twin", command);
    let advice = "this is s1, not s2: give it its own --id, or mend the roster";
    twin.wait_for_log_line(&["master refused", advice]);
    cluster.wait_mode("normal");
    let mut client = cluster.client();
    wait_until("the refusal in STATUS", || {
        let s2 = client.status().secondary("s2").clone();
        (s2.get("error").contains(advice) && s2.get("health") == "unhealthy").then_some(())
    });
    append(&mut client, 1, 10, "w=2");
    assert_eq!(client.ok("HEALTH").get("present"), "2");
    let pending = client.cmd("WAIT 10 w=3 timeout=0");
    assert!(pending.contains("by=master,s1 missing=s2"), "{pending}");
    let told = twin.log().iter().filter(|line| line.contains("master refused")).count();
    assert_eq!(told, 1, "once is enough");
    assert!(segments(&dir).iter().all(|log| log.ends_with("00000000000000000001.log")));
}
