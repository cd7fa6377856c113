//! `INTERFACE.md` maps each promise of the interface to the tests that would fail if it were false.
//! Here is checked that the tests named there exist, and that the page leaves nothing out that the
//! programs have.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{replog, replog_cli, run_to_end};
use replog::codes::Code;
use replog::config::KEYS;
use replog::gateway::verbs::VERBS;

struct Row {
    line: usize,
    promise: String,
    tests: Vec<String>,
}

#[track_caller]
fn file(path: &str) -> String {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(whole).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of all tables of the page.
fn rows() -> Vec<Row> {
    let page = file("tests/INTERFACE.md");
    let numbered = page.lines().zip(1..).filter(|(text, _)| text.starts_with('|'));
    let rows = numbered.filter(|(text, _)| *text != "| promise | test |" && *text != "|---|---|");
    rows.map(|(text, line)| {
        let inner = text.strip_prefix("| ").and_then(|rest| rest.strip_suffix(" |"));
        let cells = inner.and_then(|inner| inner.split_once(" | "));
        let (promise, tests) = cells.unwrap_or_else(|| panic!("line {line} is no row: {text}"));
        let tests = tests.split(", `").map(|test| test.trim_matches('`').to_owned()).collect();
        Row { line, promise: promise.to_owned(), tests }
    })
    .collect()
}

/// Whether a Rust source has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let heads = [format!("fn {name}("), format!("async fn {name}(")];
    let is_head = |line: &&str| heads.iter().any(|head| line.starts_with(head.as_str()));
    lines.iter().position(is_head).is_some_and(|at| {
        let above = lines[..at].iter().rev();
        let mut attributes = above.take_while(|line| line.starts_with("#["));
        attributes.any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn every_test_named_on_the_page_exists() {
    let rows = rows();
    assert!(rows.len() > 200, "the page was not understood: {} rows", rows.len());
    for Row { line, promise, tests } in &rows {
        assert!(!promise.is_empty() && !tests.is_empty(), "line {line}");
        if tests == &["later"] {
            continue;
        }
        for test in tests {
            let named = test.split_once(": ");
            let (path, name) = named.unwrap_or_else(|| panic!("line {line} names no test: {test}"));
            let text = file(path);
            if path.ends_with(".rs") {
                assert!(has_test(&text, name), "line {line}: {path} has no test {name}");
            } else {
                let is_tool = [".ci/stages/", "tools/"].iter().any(|room| path.starts_with(room));
                assert!(is_tool, "line {line}: {path} checks nothing");
                assert!(text.contains(name), "line {line}: {path} has no check {name}");
            }
        }
    }
}

/// What the pages for users promise names its tests, too: `tests/file.rs: name`.
#[test]
fn every_test_named_in_the_documentation_exists() {
    let mut named = 0;
    for page in ["README.md", "docs/guarantees.md", "docs/operation.md"] {
        for quoted in file(page).split('`').skip(1).step_by(2) {
            let Some((path, name)) = quoted.split_once(": ") else { continue };
            if path.ends_with(".rs") {
                assert!(has_test(&file(path), name), "{page}: {path} has no test {name}");
                named += 1;
            }
        }
    }
    assert!(named > 40, "the pages were not understood: {named} tests");
}

/// A promise of its own for every key, code, verb and flag: what is added to the programs has to be
/// added to the page, with its test.
#[test]
fn nothing_that_the_programs_have_is_missing_on_the_page() {
    let rows = rows();
    let promises: Vec<&str> = rows.iter().map(|row| row.promise.as_str()).collect();
    let is_promised = |word: &str| {
        let word = format!("`{word}`");
        promises.iter().any(|promise| promise.contains(&word))
    };
    for about in KEYS {
        assert!(is_promised(about.key), "the key {} is missing", about.key);
    }
    for code in Code::ALL {
        assert!(is_promised(code.word()), "the code {code} is missing");
    }
    for verb in VERBS {
        assert!(is_promised(verb.name), "the verb {} is missing", verb.name);
    }
    for (program, name) in
        [(replog as fn(Vec<String>) -> Command, "replog"), (replog_cli, "replog-cli")]
    {
        for command in commands(program(vec!["--help".to_owned()])) {
            let named = is_promised(&command) || is_promised(&format!("{name} {command}"));
            let named = named || is_promised(&format!("{name} {command} PATH"));
            assert!(named, "{name} {command} is missing");
            for flag in flags(program(vec![command.clone(), "--help".to_owned()])) {
                let named = flag.iter().any(|flag| is_promised(flag));
                assert!(named, "{name} {command} {flag:?} is missing");
            }
        }
    }
}

/// The commands that a help text lists.
fn commands(command: Command) -> Vec<String> {
    let help = run_to_end(command, b"").expect_code(0).text();
    let (_, listed) = help.split_once("Commands:\n").expect("it lists its commands");
    let listed = listed.lines().take_while(|line| !line.is_empty());
    let first_words = listed.filter(|line| !line.starts_with("   "));
    let commands = first_words.filter_map(|line| line.split_whitespace().next());
    let commands: Vec<String> = commands.map(str::to_owned).collect();
    assert!(commands.len() >= 4, "not understood: {help}");
    commands
}

/// The flags that a help text lists, each with all its spellings, of which one is promised.
fn flags(command: Command) -> Vec<Vec<String>> {
    let help = run_to_end(command, b"").expect_code(0).text();
    let flags = help.lines().filter(|line| line.starts_with("  -"));
    let flags = flags.map(|line| {
        let words = line.split_whitespace().take_while(|word| word.starts_with('-'));
        words.map(|word| word.trim_end_matches(',').to_owned()).collect::<Vec<_>>()
    });
    let flags: Vec<_> = flags.collect();
    assert!(flags.concat().contains(&"--help".to_owned()), "not understood: {help}");
    flags
}

/// What `docker-compose up` shows to the world: this machine only; what it is for; a volume and a
/// log file for each node.
#[test]
fn the_compose_file_publishes_on_loopback_and_says_what_it_is() {
    let compose = file("docker-compose.yml");
    let published: Vec<&str> = compose.lines().filter(|line| line.contains("_PORT:-")).collect();
    let published = published.iter().filter(|line| line.trim_start().starts_with("- \""));
    let published: Vec<_> = published.collect();
    assert_eq!(published.len(), 6, "two ports of three nodes: {published:?}");
    assert!(published.iter().all(|line| line.contains("\"127.0.0.1:")), "{published:?}");
    for (service, wire, gateway) in
        [("MASTER", "9000", "8000"), ("S1", "9001", "8001"), ("S2", "9002", "8002")]
    {
        for (kind, port) in [("WIRE", wire), ("GATEWAY", gateway)] {
            let line = format!("127.0.0.1:${{REPLOG_{service}_{kind}_PORT:-{port}}}:{port}");
            assert!(compose.contains(&line), "{line}");
        }
        let volume = format!("{}-data", service.to_lowercase());
        assert!(compose.contains(&format!("- {volume}:/data")), "{volume}");
        assert!(compose.contains(&format!("\n  {volume}:")), "{volume} is a named volume");
    }
    for each in ["- --faults", "- /data/replog.log", "healthcheck:"] {
        assert_eq!(compose.matches(each).count(), 3, "{each} for each node");
    }
    let head: Vec<&str> = compose.lines().take_while(|line| line.starts_with('#')).collect();
    let head = head.join(" ");
    assert!(head.contains("demonstration cluster") && head.contains("--faults"), "{head}");
}

/// Built from source on a base image of one's choice; what runs is two static binaries and a user
/// who is not root.
#[test]
fn the_image_holds_two_binaries_and_runs_as_nobody_special() {
    let image = file("Dockerfile");
    assert!(image.contains("\nARG BASE_IMAGE=") && image.contains("\nFROM ${BASE_IMAGE} AS "));
    assert!(image.contains("+crt-static"), "static binaries need no library in the image");
    let (_, last_stage) = image.rsplit_once("\nFROM ").expect("it has stages");
    assert!(last_stage.starts_with("scratch\n"), "nothing is in it that was not put there");
    let copies: Vec<&str> = last_stage.lines().filter(|line| line.starts_with("COPY ")).collect();
    assert_eq!(copies.len(), 2, "the binaries, and an empty directory for data: {copies:?}");
    assert!(image.contains("release/replog\" \"target/$target/release/replog-cli\" /image/bin/"));
    let user = last_stage.lines().find_map(|line| line.strip_prefix("USER "));
    let (uid, _) = user.and_then(|user| user.split_once(':')).expect("a numeric user and group");
    assert!(uid.parse::<u32>().expect("a number") > 0, "not root");
}
