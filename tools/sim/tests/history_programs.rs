//! The programs around histories, as typed: exit codes and output.

use std::io::Write as _;
use std::process::{Command, Output};

const CLEAN: &str = r#"{"type":"cluster","nodes":["master","s1"]}
{"type":"op","client":1,"payload":"a","invoked":1,"completed":9,"need":2,"answer":"ok","seq":1,"epoch":1,"by":["master","s1"]}
{"type":"dump","node":"master","entries":[[1,1,"a"]]}
{"type":"dump","node":"s1","entries":[[1,1,"a"]]}
"#;

fn check(lines: &str, flags: &[&str]) -> Output {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(lines.as_bytes()).expect("it takes a history");
    let mut command = Command::new(env!("CARGO_BIN_EXE_replog-check"));
    command.args(flags).arg(file.path()).output().expect("replog-check runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_clean_history_exits_0_and_is_called_clean() {
    let output = check(CLEAN, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("clean: a correct log can have shown this"));
}

#[test]
fn findings_exit_1_and_are_named_in_text_and_in_json() {
    let lossy = CLEAN.replace(r#"[[1,1,"a"]]"#, "[]");
    let output = check(&lossy, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("lost: entry 1"), "{}", text(&output.stdout));
    let output = check(&lossy, &["--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["clean"], false);
    assert_eq!(report["counts"]["lost"], 1);
    assert_eq!(report["findings"][0]["kind"], "lost");
}

#[test]
fn what_cannot_be_read_exits_2_and_says_where() {
    let output = check("{}\n", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("line 1: "), "{}", text(&output.stderr));
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replog-check"));
        command.args(args).output().expect("replog-check runs").status.code()
    };
    assert_eq!(run(&[]), Some(2));
    assert_eq!(run(&["--output", "xml", "x"]), Some(2));
    assert_eq!(run(&["/there/is/no/such/file"]), Some(2));
    assert_eq!(run(&["--help"]), Some(0));
}

#[test]
fn the_schedule_of_a_seed_is_printed_and_always_the_same() {
    let schedule = |seed: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replog-chaos"));
        let output = command.args(["--schedule", "--seconds", "60", "--seed", seed]).output();
        let output = output.expect("replog-chaos runs");
        assert_eq!(output.status.code(), Some(0));
        text(&output.stdout)
    };
    assert!(schedule("1").lines().count() > 20);
    assert_eq!(schedule("1"), schedule("1"));
    assert_ne!(schedule("1"), schedule("2"));
}

#[test]
fn chaos_without_a_binary_or_with_wrong_flags_exits_2() {
    let run = |args: &[&str]| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_replog-chaos"));
        command.arg("--output").arg(directory.path());
        command.args(args).output().expect("replog-chaos runs").status.code()
    };
    assert_eq!(run(&["--nodes", "0"]), Some(2));
    assert_eq!(run(&["--seconds", "soon"]), Some(2));
    assert_eq!(run(&["--seconds", "1", "--binary", "/there/is/no/such/file"]), Some(2));
}
