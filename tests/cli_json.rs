//! `replog-cli --output json`: objects with the keys of the text, numbers as numbers
//! (interface 3).

mod common;

use common::{Cluster, Process, replog_cli, run_to_end, wait_until};
use serde_json::{Value, json};

#[track_caller]
fn objects(server: &str, args: &[&str]) -> Vec<Value> {
    let mut command = replog_cli(["--server", server, "--output", "json"]);
    command.args(args);
    let done = run_to_end(command, b"").expect_code(0);
    let lines = done.lines().into_iter();
    lines.map(|line| serde_json::from_str(&line).expect("an object on each line")).collect()
}

/// One object for each entry; a payload is what was appended, not what the gateway would print.
#[test]
fn list_and_tail_print_an_object_for_each_entry() {
    let cluster = Cluster::of(0).start();
    let server = cluster.master.ready.wire.to_string();
    let append = replog_cli(["--server", &server, "append"]);
    run_to_end(append, b"plain\ntab\there \\n \xc3\xbc\n\n\xff\x00\n").expect_code(0);
    let listed = objects(&server, &["list"]);
    let payloads: Vec<Value> = ["plain", "tab\there \\n ü", ""].map(Value::from).to_vec();
    for (at, entry) in listed.iter().enumerate() {
        assert_eq!((&entry["seq"], &entry["epoch"]), (&json!(at + 1), &json!(1)));
        let time = entry["time"].as_str().expect("a time");
        assert!(time.ends_with('Z') && time.len() == 24, "{time}");
        match payloads.get(at) {
            Some(payload) => assert_eq!(&entry["payload"], payload),
            None => assert_eq!(entry["payload_base64"], "/wA="),
        }
        assert_eq!(entry.as_object().map(|entry| entry.len()), Some(4), "{entry}");
    }
    assert_eq!(listed.len(), 4);
    assert_eq!(objects(&server, &["tail", "-n", "2"]), listed[2..]);
    assert_eq!(objects(&server, &["list", "--from", "2", "--limit", "1"]), listed[1..2]);
    let got = &objects(&server, &["get", "4"])[0];
    assert_eq!((&got["class"], &got["bytes"]), (&json!("OK"), &json!(2)));
    assert_eq!((&got["payload_base64"], &got["by"]), (&json!("/wA="), &json!(["master"])));

    let follow = replog_cli(["--server", &server, "--output", "json", "tail", "-f"]);
    let follow = Process::spawn("tail", follow);
    wait_until("the entries", || (follow.stdout().len() == 4).then_some(()));
    let followed = follow.stdout();
    let followed: Vec<Value> =
        followed.iter().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(followed, listed);
}

/// They are in no record yet: their epoch is 0 until the master's entry comes.
#[test]
fn list_shows_entries_put_in_by_hand_as_the_text_does() {
    let node = Cluster::lone_secondary();
    let server = node.ready.wire.to_string();
    for (seq, payload) in [("1", "one"), ("2", "two\\"), ("4", "held back")] {
        let store = replog_cli(["--server", &server, "store", seq, payload]);
        run_to_end(store, b"").expect_code(0);
    }
    let listed = objects(&server, &["list"]);
    let shown: Vec<_> = listed.iter().map(|e| (&e["seq"], &e["epoch"], &e["payload"])).collect();
    assert_eq!(
        shown,
        [(&json!(1), &json!(0), &json!("one")), (&json!(2), &json!(0), &json!("two\\"))]
    );
    assert_eq!(objects(&server, &["list", "--limit", "1"]).len(), 1);
}

#[test]
fn replies_of_one_line_are_one_object() {
    let cluster = Cluster::of(1).start();
    let server = cluster.master.ready.wire.to_string();
    assert_eq!(objects(&server, &["ping", "a", "b"]), [json!({"class": "PONG", "text": "a b"})]);
    let digest = &objects(&server, &["digest"])[0];
    assert_eq!((&digest["class"], &digest["seq"]), (&json!("OK"), &json!(0)));
    assert!(digest["digest"].is_string(), "{digest}");
    let health = &objects(&server, &["health"])[0];
    assert_eq!((&health["mode"], &health["present"]), (&json!("normal"), &json!(2)));
    assert_eq!(health["s1"], "healthy");
    assert_eq!(objects(&server, &["waiters"]), [] as [Value; 0]);
    let verified = &objects(&server, &["verify"])[0];
    assert_eq!((&verified["equal"], &verified["difference"]), (&json!(true), &Value::Null));
    assert_eq!(verified["nodes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_refusal_is_an_object_too() {
    let cluster = Cluster::of(0).start();
    let server = cluster.master.ready.wire.to_string();
    let done = run_to_end(replog_cli(["--server", &server, "--output", "json", "get", "7"]), b"");
    let done = done.expect_code(1);
    let refusal: Value = serde_json::from_slice(&done.stdout).expect("an object");
    assert_eq!((&refusal["class"], &refusal["code"]), (&json!("ERR"), &json!("not-found")));
    assert_eq!(refusal["next"], 1);
    let raw = replog_cli(["--server", &server, "--output", "json", "list", "--raw"]);
    run_to_end(raw, b"").expect_code(2);
}

/// Whatever was asked: a script reads one form, class and code on stdout.
#[test]
fn a_refusal_has_the_same_form_for_all_verbs() {
    let cluster = Cluster::of(1).start();
    let master = cluster.master.ready.wire.to_string();
    let s1 = cluster.node("s1").ready.wire.to_string();
    for (server, args, code) in [
        (&master, &["list", "--level", "9"][..], "bad-value"),
        (&master, &["list", "--from", "0"], "bad-value"),
        (&master, &["tail", "--level", "9"], "bad-value"),
        (&master, &["tail", "-f", "--level", "9"], "bad-value"),
        (&master, &["get", "9"], "not-found"),
        (&master, &["wait", "9"], "not-found"),
        (&master, &["digest", "9"], "not-found"),
        (&master, &["delay", "off"], "secondary-only"),
        (&master, &["append", "-w", "9", "x"], "bad-write-concern"),
        (&s1, &["append", "x"], "not-master"),
        (&s1, &["waiters"], "master-only"),
        (&s1, &["wait", "1"], "master-only"),
    ] {
        let mut command = replog_cli(["--server", server, "--output", "json"]);
        command.args(args);
        let done = run_to_end(command, b"").expect_code(1);
        let lines = done.lines();
        assert_eq!(lines.len(), 1, "{args:?}: {done:?}");
        let refusal: Value = serde_json::from_str(&lines[0]).expect("an object");
        assert!(
            ["ERR", "REJECTED"].contains(&refusal["class"].as_str().unwrap_or("")),
            "{refusal}"
        );
        assert_eq!(refusal["code"], code, "{args:?}");
        assert!(refusal["message"].is_string(), "{refusal}");
        assert_eq!(done.stderr, "", "{args:?}");
    }
}
