//! The data directory as others treat it: who may use it, who may read it, what happens when it is moved,
//! tidied up or something else.

#![allow(clippy::unwrap_used)]

mod common_disk;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use common_disk::{Events, append, epoch, is_the_made_log, manual, open, options, run_after};
use replog::store::fs::{RealFs, advice};
use replog::store::{DiskLog, Fsync, Identity, LogStore, OpenError, StoreError};
use replog::types::{Epoch, Seq};

fn refusal(dir: &Path) -> OpenError {
    match DiskLog::open(Arc::new(RealFs), dir, options(), Box::new(|_| {})) {
        Ok(_) => panic!("{} was opened", dir.display()),
        Err(error) => error,
    }
}

fn open_real(dir: &Path) -> DiskLog {
    open(RealFs, dir, manual(4096, Fsync::Always), &Events::default()).log
}

#[track_caller]
fn assert_gone(found: Result<Vec<String>, StoreError>, words: &str) {
    let Err(StoreError::Gone { what }) = found else { panic!("{found:?}") };
    assert!(what.contains(words), "{what}");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

// ---- one node at a time ----

#[test]
fn a_lock_file_that_is_deleted_or_replaced_lets_nobody_in() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("log");
    let first = open_real(&dir);
    let is_locked = |dir: &Path| {
        let said = refusal(dir);
        assert!(matches!(said, OpenError::Locked { .. }), "{said}");
        // The kernel knows who it is, whatever became of the file.
        assert!(said.to_string().contains(&format!("process {}:", std::process::id())), "{said}");
    };
    is_locked(&dir);
    fs::remove_file(dir.join("lock")).unwrap();
    is_locked(&dir);
    fs::write(dir.join("lock"), "4711\n").unwrap();
    is_locked(&dir);
    // By another name it is the same directory.
    symlink(&dir, top.path().join("other")).unwrap();
    is_locked(&top.path().join("other"));
    assert_eq!(fs::read_to_string(dir.join("lock")).unwrap(), "4711\n", "it was not touched");
    drop(first);
    open_real(&dir);
}

/// Nodes of older versions lock the file, and nothing else.
#[test]
fn a_directory_whose_lock_file_alone_is_held_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_real(dir.path()));
    let older = fs::File::open(dir.path().join("lock")).unwrap();
    rustix::fs::flock(&older, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::Locked { .. }));
    drop(older);
    open_real(dir.path());
}

// ---- a directory that changes under a node ----

#[test]
fn a_directory_that_is_removed_moved_or_replaced_ends_the_logs_use() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("log");
    for (round, act) in ["moved", "removed", "replaced", "a file"].into_iter().enumerate() {
        let mut log = open_real(&dir);
        append(&mut log, 20, 3);
        assert_eq!(log.look_at_home(), Ok(vec![]));
        let away = top.path().join(format!("away-{round}"));
        match act {
            "removed" => fs::remove_dir_all(&dir).unwrap(),
            _ => fs::rename(&dir, &away).unwrap(),
        }
        match act {
            "replaced" => copy_dir(&away, &dir),
            "a file" => fs::write(&dir, "a file").unwrap(),
            _ => {}
        }
        let words = match act {
            "moved" | "removed" => "nothing is there any more",
            _ => "another one is in its place",
        };
        let before = fs::read(dir.join("meta")).ok();
        // A promise must not go into the copy.
        let identity = Identity { epoch: Epoch::new(9), ..Identity::default() };
        if round % 2 == 0 {
            assert!(matches!(log.set_identity(identity), Err(StoreError::Gone { .. })), "{act}");
        }
        let gone = log.look_at_home();
        if round % 2 == 1 {
            assert_gone(gone, words);
        }
        let run = run_after(log.bounds().last, log.bounds().tail, 1);
        assert!(matches!(log.append(run), Err(StoreError::Gone { .. })), "{act}");
        log.close();
        drop(log);
        assert_eq!(fs::read(dir.join("meta")).ok(), before, "{act}: another directory was changed");
        if dir.is_file() {
            fs::remove_file(&dir).unwrap();
        } else {
            let _ = fs::remove_dir_all(&dir); // Nothing may be there.
        }
        if away.exists() {
            is_the_made_log(&open_real(&away).reader(), Seq::new(20));
        }
    }
}

#[test]
fn a_removed_meta_and_a_removed_lock_file_are_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_real(dir.path());
    append(&mut log, 20, 3);
    let identity = Identity { epoch: Epoch::new(7), vouches: true, ..Identity::default() };
    log.set_identity(identity.clone()).unwrap();
    for name in ["meta", "lock"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let notes = log.look_at_home().unwrap();
    assert!(
        notes.len() == 2 && notes[0].contains("meta") && notes[1].contains("lock"),
        "{notes:?}"
    );
    assert_eq!(log.look_at_home(), Ok(vec![]));
    let pid = fs::read_to_string(dir.path().join("lock")).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());
    drop(log);
    let log = open_real(dir.path());
    let settled = epoch(20); // Whoever has an entry has settled its epoch.
    assert_eq!(log.identity(), &Identity { settled, ..identity });
    is_the_made_log(&log.reader(), Seq::new(20));
}

#[test]
fn a_log_whose_last_segment_was_removed_ends_and_vouches_for_nothing() {
    for replaced in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open_real(dir.path());
        let settled = Epoch::new(30);
        let identity = Identity { vouches: true, settled, ..Identity::default() };
        log.set_identity(identity).unwrap();
        append(&mut log, 300, 3);
        assert_eq!(log.look_at_home(), Ok(vec![]));
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        names.retain(|path| path.extension().is_some_and(|end| end == "log"));
        names.sort();
        let last = names.pop().unwrap();
        let bytes = fs::read(&last).unwrap();
        fs::remove_file(&last).unwrap();
        if replaced {
            fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
        }
        assert_gone(log.look_at_home(), if replaced { "was replaced" } else { "was removed" });
        let run = run_after(log.bounds().last, log.bounds().tail, 1);
        assert!(matches!(log.append(run), Err(StoreError::Gone { .. })));
        drop(log);
        let log = open_real(dir.path());
        assert!(!log.identity().vouches, "replaced={replaced}");
        assert_eq!(log.identity().settled, log.bounds().tail.epoch, "replaced={replaced}");
    }
}

// ---- what a name may stand for ----

#[test]
fn what_is_in_the_place_of_a_directory_is_named() {
    let top = tempfile::tempdir().unwrap();
    let path = |name: &str| top.path().join(name);
    fs::write(path("file"), "x").unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    symlink("circle-2", path("circle-1")).unwrap();
    symlink("circle-1", path("circle-2")).unwrap();
    symlink("file", path("to-file")).unwrap();
    for (name, words) in [
        ("file", "is a file and no directory"),
        ("to-file", "is a file and no directory"),
        ("dangling", "is a link to nowhere, and nothing is there"),
        ("circle-1", "is a link to circle-2 that leads nowhere"),
        ("file/below", "is a file and no directory"),
        ("dangling/below", "is a link to nowhere, and nothing is there"),
    ] {
        let said = refusal(&path(name)).to_string();
        assert!(said.contains(words) && said.contains("--data-dir"), "{name}: {said}");
        assert!(said.starts_with(path(name).to_str().unwrap()), "{name}: {said}");
    }
    fs::create_dir(path("real")).unwrap();
    symlink("real", path("to-real")).unwrap();
    open_real(&path("to-real"));
}

#[test]
fn a_directory_with_something_else_in_it_is_refused_by_name_and_left_as_it_was() {
    for (name, bytes) in [
        ("notes.txt", b"mine".as_slice()),
        ("app.log", b"a log line"),
        (".git", b""),
        // How others name their segments.
        ("00000000000000000001.log", b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x43\x00\x00"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
        let said = refusal(dir.path()).to_string();
        assert!(said.contains(&format!("(it holds {name})")), "{said}");
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [name], "nothing was made in it");
    }
}

#[test]
fn what_an_empty_directory_may_hold_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    for name in [".gitkeep", ".gitignore", ".nfs0000000012"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let mut log = open_real(dir.path());
    append(&mut log, 3, 1);
    assert!(dir.path().join(".gitkeep").exists());
}

#[test]
fn segments_of_ours_without_meta_are_told_from_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_real(dir.path());
    append(&mut log, 3, 1);
    drop(log);
    fs::remove_file(dir.path().join("meta")).unwrap();
    let said = refusal(dir.path()).to_string();
    assert!(said.contains("meta is gone") && said.contains("delete nothing"), "{said}");
    fs::write(dir.path().join("meta"), "rubbish").unwrap();
    let said = refusal(dir.path()).to_string();
    assert!(said.contains("damaged in both of its copies"), "{said}");
}

#[test]
fn what_the_system_refuses_comes_with_what_to_do() {
    use std::io::ErrorKind;
    for (kind, words) in [
        (ErrorKind::ReadOnlyFilesystem, "mount it for writing"),
        (ErrorKind::StorageFull, "make room"),
        (ErrorKind::QuotaExceeded, "raise the quota"),
        (ErrorKind::FileTooLarge, "ulimit -f"),
        (ErrorKind::PermissionDenied, "the user the node runs as"),
    ] {
        let said = advice(&kind.into());
        assert!(said.contains(words), "{kind:?}: {said}");
    }
    assert_eq!(advice(&ErrorKind::NotFound.into()), "");
}
