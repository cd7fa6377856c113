//! What becomes of a command line.

use super::*;

fn parsed(args: &[&str]) -> Result<Invocation, Early> {
    parse(args.iter().map(std::ffi::OsString::from), |_| None)
}

fn gateway_line(args: &[&str]) -> String {
    match parsed(args).unwrap().command {
        Command::Gateway { line, .. } => String::from_utf8(line).unwrap(),
        other => panic!("{args:?} became {other:?}"),
    }
}

#[test]
fn verbs_become_gateway_lines() {
    let cases: &[(&[&str], &str)] = &[
        (&["get", "7"], "GET 7"),
        (
            &["wait", "7", "-w", "all", "--ack=received", "--timeout", "5s"],
            "WAIT 7 w=all ack=received timeout=5s",
        ),
        (&["outcome", "p-1", "4"], "OUTCOME p-1 4"),
        (&["waiters"], "WAITERS"),
        (&["metrics"], "METRICS"),
        (&["digest"], "DIGEST"),
        (&["digest", "9"], "DIGEST 9"),
        (&["ping", "help", "me"], "PING help me"),
        (&["delay", "every=3s"], "DELAY every=3s"),
        (&["fail", "after", "p=0.5"], "FAIL after p=0.5"),
        (&["mute", "off"], "MUTE off"),
        (&["store", "4", "two  spaces", "more"], "STORE 4 two  spaces more"),
        (&["store", "4", "--", "-x"], "STORE 4 -x"),
    ];
    for (args, line) in cases {
        assert_eq!(gateway_line(args), *line);
    }
}

#[test]
fn wrong_usage_is_found_before_anything_is_sent() {
    let cases: &[&[&str]] = &[
        &[],
        &["no-such-verb"],
        &["append", "-w", "abc", "x"],
        &["append", "-w", "0", "x"],
        &["append", "--ack", "maybe", "x"],
        &["append", "--timeout", "soon", "x"],
        &["append", "--id", "producer", "x"],
        &["append", "--id", "producer:0", "x"],
        &["append", "--match", "-1", "x"],
        &["append", "--no-such-option"],
        &["append", "-w"],
        &["get"],
        &["get", "x"],
        &["get", "1", "2"],
        &["list", "--level", "some"],
        &["tail", "-n", "x"],
        &["delay", "1s\n2s"],
        &["--server", "nowhere", "ping"],
        &["--server", "a:1,,b:2", "ping"],
        &["--output", "xml", "status"],
        &["--output", "json", "list", "--raw"],
        &["--output", "json", "list", "-0"],
        &["--output", "json", "tail", "--raw"],
        &["--output", "json", "get", "1", "--raw"],
        &["append", "-0", "x"],
        &["append", "--file"],
        &["append", "--file", "-", "-"],
        &["append", "--file", "-", "--file=-"],
        &["status", "--all=yes"],
        &["verify", "--timeout", "none"],
        &["outcome", "producer"],
        &["bench", "--count", "5"],
    ];
    for args in cases {
        match parsed(args) {
            Err(Early::Usage(message)) => assert!(!message.is_empty()),
            other => panic!("{args:?} became {other:?}"),
        }
    }
}

#[test]
fn an_address_that_is_none_gets_the_sentence_that_shows_the_way_out() {
    for (addrs, expected) in [
        ("127.0.0.1", "--server: \"127.0.0.1\": a port is missing, as in 127.0.0.1:9000"),
        ("a:1,::1:9000", "--server: \"::1:9000\": an IPv6 address stands in brackets"),
        ("http://a:8000", "--server: \"http://a:8000\": leave out http:// and write a:8000"),
        ("256.0.0.1:9000", "is not an IPv4 address"),
        ("a:1,", "--server: \"a:1,\" has a comma too many"),
        ("a:0", "--server: \"a:0\": nobody listens on port 0"),
    ] {
        match parsed(&["--server", addrs, "ping"]) {
            Err(Early::Usage(message)) => assert!(message.contains(expected), "{message}"),
            other => panic!("{addrs} became {other:?}"),
        }
    }
    let servers = |addrs: &str| parsed(&["--server", addrs, "ping"]).unwrap().servers;
    assert_eq!(servers("[fe80::1%lo]:9000, b:2"), ["[fe80::1%lo]:9000", "b:2"]);
}

#[test]
fn help_and_version_are_answered_on_every_level() {
    for args in
        [&["--help"][..], &["help"], &["append", "--help"], &["--help", "append"], &["store", "-h"]]
    {
        match parsed(args) {
            Err(Early::Text(help)) => assert!(help.contains("Usage:"), "{help}"),
            other => panic!("{args:?} became {other:?}"),
        }
    }
    let version = concat!("replog-cli ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    assert_eq!(parsed(&["--version"]), Err(Early::Text(version)));
}

#[test]
fn servers_come_from_the_flag_then_the_environment_then_the_default() {
    let with = |args: &[&str], value: Option<&str>| {
        let args = args.iter().map(std::ffi::OsString::from);
        parse(args, |_| value.map(str::to_owned)).unwrap().servers
    };
    assert_eq!(with(&["--server", "a:1,b:2", "ping"], Some("c:3")), ["a:1", "b:2"]);
    assert_eq!(with(&["ping"], Some("c:3")), ["c:3"]);
    assert_eq!(with(&["ping"], Some("")), [SERVER_DEFAULT]);
    assert_eq!(with(&["ping"], None), [SERVER_DEFAULT]);
}

#[test]
fn messages_are_entries_and_a_dash_is_standard_input() {
    let parts = |args: &[&str]| match parsed(args).unwrap().command {
        Command::Append { parts, .. } => parts,
        other => panic!("{args:?} became {other:?}"),
    };
    let entry = |text: &str| Part::Entry(text.as_bytes().to_owned());
    assert_eq!(parts(&["append"]), [Part::Stdin(Cut::Lines)]);
    assert_eq!(parts(&["append", "-"]), [Part::Stdin(Cut::Lines)]);
    assert_eq!(parts(&["append", "-0"]), [Part::Stdin(Cut::Nul)]);
    assert_eq!(parts(&["append", "--null", "-"]), [Part::Stdin(Cut::Nul)]);
    let file = |path: &str| Part::File(path.into());
    assert_eq!(parts(&["append", "--file", "F"]), [file("F")]);
    assert_eq!(
        parts(&["append", "a", "--file=F", "b", "--file", "-", "--file", "./-", "c"]),
        [entry("a"), file("F"), entry("b"), Part::Stdin(Cut::Whole), file("./-"), entry("c")]
    );
    assert_eq!(parts(&["append", "help", "a b", ""]), [entry("help"), entry("a b"), entry("")]);
    assert_eq!(parts(&["append", "-w2", "--", "-", "-w"]), [entry("-"), entry("-w")]);
}
