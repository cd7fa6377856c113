//! `replog inspect` as a user has it, and the directories of every format that was ever written.

#![allow(clippy::unwrap_used)]

mod common_disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common_disk::{Events, append, is_the_made_log, open, options, payload};
use replog::store::fs::RealFs;
use replog::store::{Identity, LogStore};
use replog::types::{Epoch, LogId, RunId, Seq};

fn inspect(path: &Path, flags: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_replog"))
        .arg("inspect")
        .arg(path)
        .args(flags)
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("no signal ended it"), text)
}

fn filled(dir: &Path, entries: u64, clean: bool) {
    let mut log = open(RealFs, dir, options(), &Events::default()).log;
    log.set_identity(Identity {
        log_id: Some(LogId::new([0xAB; 16])),
        epoch: Epoch::new(2),
        run_id: RunId::new(0x1234),
        settled: Epoch::new(1),
        commit: Seq::new(5),
        vouches: true,
    })
    .unwrap();
    append(&mut log, entries, 4);
    log.sync_now();
    if clean {
        log.close();
    }
}

#[test]
fn a_whole_directory_is_printed_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100, true);
    let (code, text) = inspect(dir.path(), &["--from", "41", "--limit", "2"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("not in use"), "{text}");
    assert!(text.contains("node=n1 log=abababab"), "{text}");
    let shown: Vec<_> = text.lines().filter(|line| line.starts_with("  seq=")).collect();
    let bytes = payload(41).len();
    let first = format!("  seq=41 epoch=2 time=1970-01-01T00:00:00.041Z bytes={bytes} payload=41:");
    assert!(shown[0].starts_with(&first), "{text}");
    assert_eq!(shown.len(), 2, "{text}");
    assert!(text.lines().last().unwrap().starts_with("OK first=1 last=100 epoch=3 digest="));
}

#[test]
fn a_directory_in_use_is_inspected_without_disturbing_its_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(RealFs, dir.path(), options(), &Events::default()).log;
    append(&mut log, 100, 4);
    let (code, text) = inspect(dir.path(), &["--quiet"]);
    assert_eq!((code, text.lines().count()), (0, 1), "{text}");
    let (_, text) = inspect(dir.path(), &["--limit", "0"]);
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    append(&mut log, 100, 4);
    is_the_made_log(&log.reader(), Seq::new(200));
}

#[test]
fn damage_is_named_and_gives_exit_code_6() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100, true);
    let segment = dir.path().join(format!("{:020}.log", 1));
    let mut bytes = fs::read(&segment).unwrap();
    let wanted = payload(12);
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    for path in [dir.path(), &segment] {
        let (code, text) = inspect(path, &["--quiet"]);
        assert_eq!(code, 6, "{text}");
        assert!(text.contains("damage entries=12 "), "{text}");
        assert!(text.contains("DAMAGED "), "{text}");
    }
    let (code, text) = inspect(dir.path(), &["--output", "json"]);
    assert_eq!(code, 6);
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(value["type"].is_string(), "{line}");
    }
    assert!(text.contains(r#""entries":"12""#), "{text}");
}

#[test]
fn what_is_not_replogs_is_refused_with_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = inspect(dir.path(), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("no data directory"), "{text}");
    let (code, _) = inspect(&dir.path().join("nowhere"), &[]);
    assert_eq!(code, 1);
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/disk/v1").join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The golden directories: their names, how many entries, whether they were stopped cleanly.
const GOLDEN: [(&str, u64, bool); 3] =
    [("stopped", 100, true), ("killed", 100, false), ("aside", 90, true)];

/// `REPLOG_REWRITE=1` writes them again. That is right only for a format that was never released:
/// what is there must open for ever.
#[test]
fn directories_of_format_1_open_for_ever() {
    if std::env::var_os("REPLOG_REWRITE").is_some() {
        for (name, entries, clean) in GOLDEN {
            let dir = tempfile::tempdir().unwrap();
            filled(dir.path(), 80, false);
            let mut log = open(RealFs, dir.path(), options(), &Events::default()).log;
            if name == "aside" {
                log.set_aside(Seq::new(61), "the golden directory has one").unwrap();
            }
            let last = log.bounds().last.number();
            append(&mut log, entries - last, 3);
            log.sync_now();
            if clean {
                log.close();
            }
            drop(log);
            for file in ["lock", "reserve"] {
                fs::remove_file(dir.path().join(file)).unwrap();
            }
            let _ = fs::remove_dir_all(golden(name));
            copy(dir.path(), &golden(name));
        }
    }
    for (name, entries, clean) in GOLDEN {
        let dir = tempfile::tempdir().unwrap();
        copy(&golden(name), dir.path());
        let (code, text) = inspect(dir.path(), &["--quiet"]);
        assert_eq!(code, 0, "{name}: {text}");
        let opened = open(RealFs, dir.path(), options(), &Events::default());
        assert_eq!(opened.recovery.clean, clean, "{name}");
        assert_eq!(opened.recovery.damage, [], "{name}");
        assert_eq!(opened.recovery.notes, Vec::<String>::new(), "{name}");
        assert_eq!(opened.log.identity().epoch, Epoch::new(2));
        assert_eq!(opened.log.aside_files(), u64::from(name == "aside"));
        is_the_made_log(&opened.log.reader(), Seq::new(entries));
        let mut log = opened.log;
        append(&mut log, 10, 3);
        is_the_made_log(&log.reader(), Seq::new(entries + 10));
    }
}
