//! Whole nodes whose data directory is taken from under them, shared, or read by others.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Cluster, Gateway, Process, Ready, replog, run_to_end, under_shell, wait_until};

fn node(role: &str, dir: &Path) -> std::process::Command {
    let mut command = replog([role, "--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(dir);
    command
}

fn client_of(ready: &Ready) -> Gateway {
    let mut client = Gateway::connect(ready.gateway);
    wait_until("mode normal", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    client
}

/// Whoever deletes the lock file, taking it for a remnant, must not let a second node in: each would
/// write over what the other one answered.
#[test]
fn a_deleted_lock_file_lets_no_second_node_into_a_directory() {
    let top = tempfile::tempdir().expect("a temporary directory");
    let dir = top.path().join("log");
    let first = Process::spawn("first", node("master", &dir));
    let mut client = client_of(&first.wait_ready());
    for round in 0..3 {
        fs::remove_file(dir.join("lock")).expect("the lock file is there");
        let done = run_to_end(node("master", &dir), b"").expect_code(1);
        let told = format!("in use by process {}", first.id());
        assert!(done.stderr.contains(&told), "{}", done.stderr);
        client.ok(&format!("APPEND w=1 from-first {round}"));
        // It is made again, for those who look at it.
        first.wait_for_log_line(&["WARN", "the file lock was removed"]);
        wait_until("the lock file", || dir.join("lock").exists().then_some(()));
    }
    drop(first);
    let again = Process::spawn("again", node("master", &dir));
    assert_eq!(client_of(&again.wait_ready()).list("").entries.len(), 3);
}

/// A node answers nothing into files that nobody will find.
#[test]
fn a_directory_that_is_moved_or_removed_ends_a_node_with_a_sentence() {
    for act in ["moved", "removed", "replaced by a copy"] {
        let mut cluster = Cluster::of(2).on_disk().start();
        cluster.client().ok("APPEND w=3 kept");
        for id in ["s1", "master"] {
            let (dir, away) = (cluster.dir(id), cluster.dir(&format!("{id}-away")));
            match act {
                "removed" => fs::remove_dir_all(&dir).expect("it can be removed"),
                _ => fs::rename(&dir, &away).expect("it can be moved"),
            }
            if act == "replaced by a copy" {
                fs::create_dir(&dir).expect("it can be made");
                for file in fs::read_dir(&away).expect("a directory") {
                    let file = file.expect("an entry").path();
                    fs::copy(&file, dir.join(file.file_name().expect("a name"))).expect("a copy");
                }
            }
            let process = match id {
                "master" => &mut cluster.master.process,
                // Its end is awaited below; the cluster goes on without it.
                _ => {
                    let node = cluster.node(id);
                    node.process.wait_for_log_line(&["data directory", "was moved or removed"]);
                    continue;
                }
            };
            assert_eq!(process.wait_exit(), Some(1), "{act}");
            let line = process.wait_for_log_line(&["data directory", "was moved or removed"]);
            assert!(line.contains(dir.to_str().expect("a path")), "{line}");
            assert!(line.contains("put it back"), "{line}");
        }
        // What was moved is whole and goes on where it was.
        if act == "moved" {
            fs::rename(cluster.dir("master-away"), cluster.dir("master")).expect("it can be moved");
            fs::rename(cluster.dir("s1-away"), cluster.dir("s1")).expect("it can be moved");
            cluster.kill("s1");
            cluster.start("s1");
            cluster.start_master_with(&[]);
            cluster.wait_mode("normal");
            cluster.client().ok("APPEND w=3 more");
            assert_eq!(cluster.wait_equal_lists().payloads(), ["kept", "more"]);
        }
    }
}

/// Nothing that others may not read becomes readable by a careless umask.
#[test]
fn what_a_node_makes_is_for_its_own_user_whatever_the_umask_is() {
    for umask in ["000", "022", "077"] {
        let top = tempfile::tempdir().expect("a temporary directory");
        let dir = top.path().join("above").join("log");
        let command = under_shell(&node("master", &dir), &format!("umask {umask}"));
        let mut process = Process::spawn("master", command);
        let mut client = client_of(&process.wait_ready());
        client.ok("APPEND w=1 secret");
        process.signal("TERM");
        assert_eq!(process.wait_exit(), Some(0));
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode();
        for made in [&dir, &top.path().join("above")] {
            assert_eq!(mode(made) & 0o777, 0o700, "{} under {umask}", made.display());
        }
        let mut names = Vec::new();
        for file in fs::read_dir(&dir).expect("a directory") {
            let path = file.expect("an entry").path();
            assert_eq!(mode(&path) & 0o777, 0o600, "{} under {umask}", path.display());
            names.push(path);
        }
        assert!(names.len() >= 4, "{names:?}");
        // One that was there is as its owner wants it.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).expect("it is ours");
        let again = Process::spawn("again", node("master", &dir));
        client_of(&again.wait_ready());
        assert_eq!(mode(&dir) & 0o777, 0o750);
    }
}

#[test]
fn a_directory_that_holds_something_else_is_left_alone() {
    let top = tempfile::tempdir().expect("a temporary directory");
    fs::write(top.path().join("notes.txt"), "mine").expect("a file can be written");
    let done = run_to_end(node("secondary", top.path()), b"").expect_code(1);
    assert!(done.stderr.contains("it holds notes.txt"), "{}", done.stderr);
    assert_eq!(fs::read_dir(top.path()).expect("a directory").count(), 1);
}
