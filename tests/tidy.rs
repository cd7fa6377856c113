//! House rules as a test: who may import whom, and what must not be there.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(below)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory of the sources can be read");
            open.extend(entries.map(|entry| entry.expect("an entry can be read").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source can be read");
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "no sources below {below}");
    found
}

/// The rooms of the crate named in a file: after `crate::` or in `use crate::{…}`.
fn rooms_named(text: &str) -> Vec<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next())
        .filter(|room| !room.is_empty())
        .collect()
}

fn assert_imports_only(room: &str, allowed: &[&str]) {
    for (path, text) in sources(room) {
        for named in rooms_named(&text) {
            let own = room.trim_start_matches("src/").trim_end_matches(".rs");
            assert!(
                named == own || allowed.contains(&named),
                "{}: {room} may import {allowed:?}, not {named}",
                path.display()
            );
        }
    }
}

fn assert_never_says(room: &str, banned: &[(&str, &str)]) {
    for (path, text) in sources(room) {
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for (word, instead) in banned {
                assert!(
                    !line.contains(word),
                    "{}:{}: {word} is banned in {room}: {instead}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn imports_point_one_way() {
    assert_imports_only("src/types.rs", &["limits"]);
    assert_imports_only("src/address.rs", &["types"]);
    assert_imports_only("src/visible.rs", &[]);
    assert_imports_only("src/limits.rs", &[]);
    assert_imports_only("src/codes.rs", &[]);
    assert_imports_only("src/checksum.rs", &[]);
    assert_imports_only("src/descriptors.rs", &["limits"]);
    assert_imports_only("src/wire", &["types", "limits", "codes", "checksum", "sabotage"]);
    assert_imports_only("src/engine", &["types", "limits", "codes", "sabotage"]);
    assert_imports_only("src/store", &["types", "limits", "checksum", "descriptors", "sabotage"]);
    assert_imports_only("src/sabotage.rs", &[]);
    assert_imports_only("src/gateway", &["types", "limits", "codes", "engine", "store"]);
    assert_imports_only("src/connect.rs", &["address", "limits"]);
    let client = ["types", "address", "limits", "codes", "connect", "wire", "store", "gateway"];
    assert_imports_only("src/client", &client);
    assert_imports_only("src/config", &["types", "address", "limits"]);
}

#[test]
fn the_engine_does_no_io_knows_no_clock_and_iterates_in_order() {
    let banned = [
        ("std::net", "sockets belong to the runtime"),
        ("std::fs", "files belong to the store"),
        ("std::thread", "threads belong to the runtime"),
        ("tokio", "the runtime drives the engine, not the reverse"),
        ("Instant", "time comes in as an argument"),
        ("SystemTime", "time comes in as an argument"),
        ("HashMap", "its order differs from run to run: use BTreeMap"),
        ("HashSet", "its order differs from run to run: use BTreeSet"),
        ("Bytes", "the engine sees positions, never payloads"),
        ("tracing", "what is worth a log line leaves as an effect"),
    ];
    assert_never_says("src/engine", &banned);
}

#[test]
fn bincode_is_named_in_one_file() {
    for (path, text) in sources("src") {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let named = code.filter(|line| line.contains("bincode")).count();
        assert!(named == 0 || path.ends_with("wire/codec.rs"), "{} names bincode", path.display());
    }
}

#[test]
fn only_the_drivers_call_an_engine() {
    for (path, text) in sources("src/runtime") {
        let calls = text.contains("engine.handle_") || text.contains("engine.poll_");
        let drivers = [
            "master.rs",
            "master/disk.rs",
            "master/recovery.rs",
            "master/sending.rs",
            "secondary.rs",
            "secondary/recovery.rs",
        ];
        let mut drivers = drivers.iter().map(|driver| format!("runtime/{driver}"));
        let driver = drivers.any(|driver| path.ends_with(driver));
        assert!(!calls || driver, "{} calls an engine", path.display());
    }
}

#[test]
fn nothing_unfinished_and_nothing_unbounded_is_left() {
    let banned = [
        ("todo!", "finish it or leave it out"),
        ("unimplemented!", "finish it or leave it out"),
        ("dbg!", "log it"),
        ("unbounded_channel", "every queue has a bound"),
        ("#[ignore", "a test runs or goes"),
    ];
    assert_never_says("src", &banned);
}

#[test]
fn every_file_says_its_duty_and_stays_a_room_one_can_see_through() {
    for (path, text) in sources("src") {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//!"), "{}: the first line says the duty", path.display());
        let lines = text.lines().count();
        assert!(lines <= 800, "{}: {lines} lines, split it", path.display());
    }
}
