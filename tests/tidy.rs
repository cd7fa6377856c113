//! House rules as a test: who may import whom, and what must not be there.

use std::collections::{BTreeMap, BTreeSet};
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

/// The modules of the crate, by the file of each: `a::b` for `src/a/b.rs` and `src/a/b/mod.rs`.
fn modules() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |(path, text): (PathBuf, String)| {
        let below = path.strip_prefix(&root).expect("a source lies below src").with_extension("");
        let parts = below.iter().map(|part| part.to_string_lossy().into_owned());
        let parts: Vec<String> = parts.filter(|part| part != "mod").collect();
        (parts.join("::"), text)
    };
    let is_module = |(path, _): &(PathBuf, String)| !path.starts_with(root.join("bin"));
    sources("src").into_iter().filter(is_module).map(module).collect()
}

/// The code of a file, without what only its tests say.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths that a module names, from the root of the crate on: after `crate::`, `super::` and
/// `self::`, with each branch of `{…}`.
fn paths_named(module: &str, code: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let own: Vec<&str> = module.split("::").collect();
    let mut found = BTreeSet::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| is_word(c) || c == ':') {
                continue; // In the middle of a word, or of a path that was read already.
            }
            let (mut base, mut rest) = match start {
                "crate::" => (Vec::new(), &code[at + start.len()..]),
                _ => (own.clone(), &code[at..]),
            };
            while let Some(behind) = rest.strip_prefix("super::") {
                base.pop();
                rest = behind;
            }
            rest = rest.strip_prefix("self::").unwrap_or(rest);
            let base: Vec<String> = base.into_iter().map(str::to_owned).collect();
            branches(&base, rest, &mut found);
        }
    }
    found
}

/// Follows a path and each branch of it. Returns what stands behind.
fn branches<'a>(base: &[String], text: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = branches(base, rest, found).trim_start();
            match rest.strip_prefix(',') {
                Some(behind) if !behind.trim_start().starts_with('}') => rest = behind,
                Some(behind) => return behind.trim_start().strip_prefix('}').unwrap_or(behind),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut path = base.to_vec();
    if end > 0 && &text[..end] != "self" {
        path.push(text[..end].to_owned());
    }
    let rest = &text[end..];
    let Some(behind) = rest.strip_prefix("::") else {
        found.insert(path.join("::"));
        // `as name` belongs to it.
        let rest = rest.trim_start();
        let Some(alias) = rest.strip_prefix("as ") else { return rest };
        let end = alias.find(|c: char| !c.is_alphanumeric() && c != '_');
        return &alias[end.unwrap_or(alias.len())..];
    };
    branches(&path, behind, found)
}

/// The rooms at the top of the crate that a file names.
fn rooms_named(module: &str, text: &str) -> BTreeSet<String> {
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let paths = paths_named(module, &code.join("\n"));
    let rooms = paths.iter().filter_map(|path| path.split("::").next().map(str::to_owned));
    let is_room = |room: &String| room.starts_with(|c: char| c.is_ascii_lowercase());
    rooms.filter(is_room).collect()
}

/// Which module names which other one. Whoever is above a module (`a` of `a::b`) is named by nobody
/// below for what it only hands on.
fn arrows(modules: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows = BTreeMap::new();
    for (module, text) in modules {
        let mut to = BTreeSet::new();
        for path in paths_named(module, &without_tests(text)) {
            let parts: Vec<&str> = path.split("::").collect();
            // The longest part of the path that is a module.
            let names = (1..=parts.len()).rev().map(|count| parts[..count].join("::"));
            let named = names.into_iter().find(|name| modules.contains_key(name));
            to.extend(named.filter(|named| named != module));
        }
        arrows.insert(module.clone(), to);
    }
    arrows
}

fn assert_imports_only(room: &str, allowed: &[&str]) {
    let own = room.trim_start_matches("src/").trim_end_matches(".rs");
    let is_of_it = |module: &str| module == own || module.starts_with(&format!("{own}::"));
    for (module, text) in modules().iter().filter(|(module, _)| is_of_it(module)) {
        for named in rooms_named(module, text) {
            assert!(
                named == own || allowed.contains(&named.as_str()),
                "{module}: {room} may import {allowed:?}, not {named}",
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
    assert_imports_only("src/signals.rs", &[]);
    assert_imports_only("src/wire", &["types", "limits", "codes", "checksum"]);
    assert_imports_only("src/engine", &["types", "limits", "codes"]);
    assert_imports_only("src/store", &["types", "limits", "checksum", "descriptors"]);
    assert_imports_only("src/gateway", &["types", "limits", "codes", "engine", "store"]);
    let node = ["types", "limits", "codes", "wire", "engine", "store", "gateway"];
    assert_imports_only("src/node", &node);
    assert_imports_only("src/connect.rs", &["address", "limits"]);
    let client = ["types", "address", "limits", "codes", "connect", "wire", "store", "gateway"];
    assert_imports_only("src/client", &client);
    assert_imports_only("src/config", &["types", "address", "limits"]);
}

/// The way round of two files that need each other is a third one, which both stand on.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let modules = modules();
    let arrows = arrows(&modules);
    // A room's own file says what is in it, and hands it on: what it names below it is no arrow, nor
    // is what those below take from it that it did not define itself.
    let defines = |module: &str, name: &str| {
        let words = ["struct", "enum", "fn", "const", "trait", "type", "static"];
        words.iter().any(|word| modules[module].contains(&format!("{word} {name}")))
    };
    let is_below = |inner: &str, outer: &str| inner.starts_with(&format!("{outer}::"));
    let mut open: Vec<(&str, Vec<&str>)> = Vec::new();
    for (module, to) in &arrows {
        let real = to.iter().filter(|to| !is_below(to, module)).map(String::as_str);
        let real = real.filter(|to| {
            if !is_below(module, to) {
                return true;
            }
            let paths = paths_named(module, &without_tests(&modules[module]));
            let names = paths.iter().filter_map(|path| path.strip_prefix(&format!("{to}::")));
            names.filter(|name| !name.contains("::")).any(|name| defines(to, name))
        });
        open.push((module, real.collect()));
    }
    // Whoever names nobody that is left stands on solid ground.
    loop {
        let left: BTreeSet<&str> = open.iter().map(|(module, _)| *module).collect();
        let before = open.len();
        open.retain(|(_, to)| to.iter().any(|to| left.contains(to)));
        if open.len() == before {
            break;
        }
    }
    // What is left is in a circle, or stands above one.
    loop {
        let named: BTreeSet<&str> = open.iter().flat_map(|(_, to)| to.iter().copied()).collect();
        let before = open.len();
        open.retain(|(module, _)| named.contains(module));
        if open.len() == before {
            break;
        }
    }
    let left: BTreeSet<&str> = open.iter().map(|(module, _)| *module).collect();
    let circle = open.iter().map(|(module, to)| {
        let to: Vec<_> = to.iter().filter(|to| left.contains(*to)).collect();
        format!("{module} -> {to:?}")
    });
    assert!(open.is_empty(), "in circles:\n{}", circle.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_path_is_read_with_all_its_branches() {
    let code =
        "use crate::{a::{B, c::D as E}, f};\nuse super::super::g;\nlet x = super::h::I::new();";
    let found = paths_named("m::n::o", code);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["a::B", "a::c::D", "f", "m::g", "m::n::h::I::new"]);
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
fn a_node_is_whole_without_io() {
    let banned = [
        ("std::net", "sockets belong to whoever carries the node"),
        ("std::fs", "files belong to the store"),
        ("std::thread", "threads belong to whoever carries the node"),
        ("tokio", "the runtime carries the node, not the reverse"),
        ("Instant", "time comes in as an argument"),
        ("SystemTime", "time comes in as an argument"),
        ("spawn", "what takes time is an output"),
        ("async ", "a node waits for nothing"),
        ("Mutex", "a node belongs to one carrier"),
    ];
    assert_never_says("src/node", &banned);
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
fn nobody_but_a_node_calls_an_engine() {
    for (path, text) in sources("src/runtime").into_iter().chain(sources("tools/sim/src/world")) {
        let engines = ["engine.handle_", "engine.poll_", "engine().handle_", "engine().poll_"];
        let calls = engines.iter().any(|call| text.contains(call));
        assert!(!calls, "{} calls an engine", path.display());
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
