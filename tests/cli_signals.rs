//! `replog-cli` and signals: what it says before it ends, and that it ends (interface 3).

mod common;

use std::io::Write;
use std::process::{Child, Stdio};

use common::{Cluster, Gateway, Process, replog_cli, wait_until};

fn master(cluster: &Cluster) -> String {
    cluster.master.ready.wire.to_string()
}

/// What it said of the interruption; a busy machine may make it say more.
fn interrupted(process: &Process) -> Vec<String> {
    let mut log = process.log();
    log.retain(|line| line.starts_with("interrupted: "));
    log
}

/// Waits until the master has numbered so many entries.
#[track_caller]
fn wait_for_entries(client: &mut Gateway, count: u64) {
    wait_until(&format!("{count} entries"), || {
        (client.status().node.number("next") == count + 1).then_some(())
    });
}

#[test]
fn an_append_that_waits_says_what_is_known_of_each_entry() {
    let mut cluster = Cluster::of(2).start();
    let server = master(&cluster);
    let mut client = cluster.client();
    let append = || {
        Process::spawn_with_input("append", replog_cli(["--server", &server, "append", "-w", "3"]))
    };
    let ((mut one, mut to_one), (mut other, mut to_other)) = (append(), append());
    to_one.write_all(b"answered\n").expect("it reads");
    wait_until("its answer", || (one.stdout().len() == 1).then_some(()));
    cluster.kill("s2");
    to_one.write_all(b"waits\nwaits too\n").expect("it reads");
    wait_for_entries(&mut client, 3);
    to_other.write_all(b"alone\n").expect("it reads");
    wait_for_entries(&mut client, 4);
    one.signal("INT");
    other.signal("TERM");
    for process in [&mut one, &mut other] {
        assert_eq!(process.wait_exit(), Some(3), "{:?}", process.log());
    }
    let unknown =
        "UNKNOWN seq=- epoch=- - interrupted before the answer; the entry may be in the log";
    assert_eq!(one.stdout()[1..], [unknown, unknown]);
    assert_eq!(other.stdout(), [unknown]);
    let rest = "interrupted: the rest of standard input was not read";
    assert_eq!(
        interrupted(&one),
        [
            "interrupted: entries 2 to 3 of those given have been sent and have no answer: they may \
             be in the log, with numbers above 1 (UNKNOWN)",
            rest
        ]
    );
    assert_eq!(
        interrupted(&other),
        [
            "interrupted: entry 1 of those given has been sent and has no answer: it may be in the \
             log (UNKNOWN)",
            rest
        ]
    );
}

/// Nothing is in doubt: then it ends as every program does that a signal ends.
#[test]
fn an_append_that_waits_for_input_ends_with_the_code_of_the_signal() {
    let cluster = Cluster::of(0).start();
    let server = master(&cluster);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let command = replog_cli(["--server", &server, "append", "-"]);
        let (mut append, mut input) = Process::spawn_with_input("append", command);
        input.write_all(b"whole\nunfinished").expect("it reads");
        wait_until("its answer", || (append.stdout().len() == 1).then_some(()));
        append.signal(signal);
        assert_eq!(append.wait_exit(), Some(code));
        let said = interrupted(&append);
        assert_eq!(said, ["interrupted: the rest of standard input was not read"]);
    }
    assert_eq!(cluster.client().list("").payloads(), ["whole", "whole"]);
}

/// As a shell starts what it is to run in the background: Ctrl-C is for others then.
#[test]
fn a_signal_that_was_ignored_from_the_start_stays_so() {
    let cluster = Cluster::of(0).start();
    let server = master(&cluster);
    let mut command = std::process::Command::new("sh");
    let script = "trap '' INT; exec \"$0\" --server \"$1\" append -";
    command.args(["-c", script, env!("CARGO_BIN_EXE_replog-cli"), &server]);
    let (mut append, mut input) = Process::spawn_with_input("append", command);
    for answers in 1..=2 {
        input.write_all(b"x\n").expect("it reads");
        wait_until("its answer", || (append.stdout().len() == answers).then_some(()));
        append.signal("INT");
    }
    append.signal("TERM");
    assert_eq!(append.wait_exit(), Some(143));
}

/// Nobody reads its output, so that it is stuck in writing: the first signal cannot be answered.
#[test]
fn a_second_signal_ends_it_at_once_whatever_it_does() {
    const LINES: u64 = 20_000;
    let cluster = Cluster::of(0).start();
    let server = master(&cluster);
    let mut command = replog_cli(["--server", &server, "append", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut stuck = KilledOnDrop(command.spawn().expect("it starts"));
    let mut input = stuck.0.stdin.take().expect("stdin is piped");
    input.write_all(&b"line\n".repeat(LINES as usize)).expect("it reads");
    wait_for_entries(&mut cluster.client(), LINES);
    // Two of one kind that come close together may be one.
    for signal in ["INT", "TERM"] {
        let kill = format!("kill -{signal} {}", stuck.0.id());
        let status = std::process::Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("sh runs").success());
    }
    let status = wait_until("its end", || stuck.0.try_wait().expect("it is our child"));
    assert_eq!(status.code(), Some(3), "entries may have been on their way");
}

#[test]
fn a_wait_that_is_interrupted_has_changed_nothing_and_says_so() {
    let cluster = Cluster::of(2).absent("s2").start();
    cluster.client().ok("APPEND w=2 x");
    let server = master(&cluster);
    let mut wait =
        Process::spawn("wait", replog_cli(["--server", &server, "wait", "1", "-w", "3"]));
    let mut client = cluster.client();
    wait_until("it to wait", || {
        client.send("WAITERS");
        let mut lines = vec![client.line()];
        while !lines.last().is_some_and(|line| line.starts_with("END ")) {
            lines.push(client.line());
        }
        (lines.len() == 2).then_some(())
    });
    wait.signal("INT");
    assert_eq!(wait.wait_exit(), Some(130));
    assert_eq!(
        interrupted(&wait),
        ["interrupted: only the waiting has ended; entry 1, if it is in the log, stays, and its \
          replication goes on"]
    );
}

/// Whoever follows or watches ends it so: it is the normal end, and what came is written.
#[test]
fn following_and_watching_end_normally_by_either_signal() {
    let cluster = Cluster::of(0).start();
    cluster.client().ok("APPEND one");
    let server = master(&cluster);
    for signal in ["INT", "TERM"] {
        for args in [&["tail", "-f"][..], &["status", "--watch"], &["status", "--all", "--watch"]] {
            let mut command = replog_cli(["--server", &server]);
            command.args(args);
            let mut process = Process::spawn(args[0], command);
            wait_until("its output", || (!process.stdout().is_empty()).then_some(()));
            process.signal(signal);
            assert_eq!(process.wait_exit(), Some(0), "{signal} {args:?}");
        }
    }
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // Both fail only for a program that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
