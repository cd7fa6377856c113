//! The log on disk, used as a node uses it: what was appended is there, after a clean stop and after
//! none, whatever the sizes are.

#![allow(clippy::unwrap_used)]

mod common_disk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common_disk::{Events, append, is_the_made_log, open, options, options_with, run_after};
use std::path::Path;

use replog::limits::SEALED_UNSYNCED_MAX;
use replog::store::faulty::FaultyFs;
use replog::store::fs::RealFs;
use replog::store::{DiskEvent, DiskLog, Fsync, Identity, LogStore, OpenError, StoreError};
use replog::types::{Epoch, LogId, RunId, Seq, SeqRange};

#[test]
fn what_was_appended_is_there_again_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity {
        log_id: Some(LogId::new([7; 16])),
        epoch: Epoch::new(3),
        run_id: RunId::new(9),
        settled: Epoch::new(30),
        commit: Seq::new(500),
        vouches: true,
    };
    let bounds = {
        let mut log = open(RealFs, dir.path(), options(), &Events::default()).log;
        log.set_identity(identity.clone()).unwrap();
        append(&mut log, 1000, 13);
        log.close();
        log.bounds()
    };
    let opened = open(RealFs, dir.path(), options(), &Events::default());
    assert!(opened.recovery.clean && !opened.recovery.machine_loss_possible);
    assert_eq!(opened.log.identity(), &identity);
    assert_eq!(opened.log.bounds(), bounds);
    assert!(opened.log.segment_count() > 3, "the segments are small");
    is_the_made_log(&opened.log.reader(), Seq::new(1000));
}

#[test]
fn a_log_that_was_not_closed_is_whole_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=5u64 {
        let opened = open(RealFs, dir.path(), options(), &Events::default());
        let mut log = opened.log;
        assert!(!opened.recovery.clean);
        assert_eq!(opened.recovery.cut, None);
        assert_eq!(log.bounds().last, Seq::new((round - 1) * 100));
        append(&mut log, 100, 3);
        is_the_made_log(&log.reader(), Seq::new(round * 100));
    }
}

#[test]
fn always_tells_durable_only_once_it_is_and_then_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut log = open(RealFs, dir.path(), options(), &events).log;
    append(&mut log, 50, 5);
    log.make_durable(Seq::new(50));
    events.wait_for(&DiskEvent::Durable(Seq::new(50)));
    assert_eq!(log.make_durable(Seq::new(50)), Seq::new(50));
    assert!(log.sync_stats().count >= 1);
}

#[test]
fn interval_and_never_count_what_is_written_and_interval_syncs_by_itself() {
    for fsync in [Fsync::Interval(std::time::Duration::from_millis(1)), Fsync::Never] {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::default();
        let mut log = open(RealFs, dir.path(), options_with(4096, fsync), &events).log;
        append(&mut log, 10, 5);
        assert_eq!(log.make_durable(Seq::new(10)), Seq::new(10));
        if fsync != Fsync::Never {
            events.wait_for(&DiskEvent::Durable(Seq::new(10)));
        }
    }
}

#[test]
fn a_second_node_is_refused_while_the_first_runs() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(RealFs, dir.path(), options(), &Events::default());
    let second = DiskLog::open(Arc::new(RealFs), dir.path(), options(), Box::new(|_| {}));
    let Err(error @ OpenError::Locked { .. }) = second else { panic!("it was opened twice") };
    let said = error.to_string();
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    drop(first);
    open(RealFs, dir.path(), options(), &Events::default());
}

#[test]
fn entries_set_aside_are_gone_from_the_log_and_kept_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(RealFs, dir.path(), options(), &Events::default()).log;
    append(&mut log, 300, 7);
    let reader = log.reader();
    let at_100 = reader.prefix_id(Seq::new(100));
    let bytes = log.bounds().bytes - reader.bytes_after(Seq::new(100));

    assert_eq!(log.set_aside(Seq::new(101), "the master has others"), Ok(200));

    let bounds = log.bounds();
    assert_eq!((bounds.last, Some(bounds.tail), bounds.bytes), (Seq::new(100), at_100, bytes));
    assert!(dir.path().join("aside/1-101.log").is_file());
    is_the_made_log(&reader, Seq::new(100));
    append(&mut log, 50, 7);
    is_the_made_log(&reader, Seq::new(150));
    drop(log);

    let log = open(RealFs, dir.path(), options(), &Events::default()).log;
    is_the_made_log(&log.reader(), Seq::new(150));
    assert_eq!(log.aside_files(), 1);
}

#[test]
fn a_whole_log_can_be_set_aside_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(RealFs, dir.path(), options(), &Events::default()).log;
    append(&mut log, 300, 7);
    assert_eq!(log.set_aside(Seq::FIRST, "another history"), Ok(300));
    assert_eq!((log.bounds().last, log.bounds().bytes), (Seq::ZERO, 0));
    append(&mut log, 20, 20);
    is_the_made_log(&log.reader(), Seq::new(20));
}

#[test]
fn a_run_of_another_history_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(RealFs, dir.path(), options(), &Events::default()).log;
    append(&mut log, 10, 10);
    let foreign = run_after(Seq::new(10), Default::default(), 1);
    let range = SeqRange::with_len(Seq::new(11), 1);
    assert_eq!(log.append(foreign), Err(StoreError::Unfit { range }));
    assert_eq!(log.bounds().last, Seq::new(10));
}

#[test]
fn a_reader_sees_the_same_from_disk_and_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut cold = options();
    cold.cache_bytes = 0;
    cold.segment_size = 100 << 10;
    let mut log = open(RealFs, dir.path(), cold, &Events::default()).log;
    append(&mut log, 5000, 40);
    let reader = log.reader();
    is_the_made_log(&reader, Seq::new(5000));
    let total: u64 = (1..=5000).map(|seq| common_disk::payload(seq).len() as u64 + 48).sum();
    assert_eq!(log.bounds().bytes, total);
    for seq in [0, 1, 17, 2500, 4960, 4999, 5000] {
        let sum: u64 =
            (seq + 1..=5000).map(|seq| common_disk::payload(seq).len() as u64 + 48).sum();
        assert_eq!(reader.bytes_after(Seq::new(seq)), sum, "after {seq}");
    }
    assert_eq!(reader.read(SeqRange::with_len(Seq::new(6000), 3), 1000).range, None);
}

#[test]
fn readers_beside_the_writer_see_only_what_is_right_and_find_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::default();
    let mut small = options_with(3000, Fsync::Always);
    small.cache_bytes = 0;
    let mut log = open(RealFs, dir.path(), small, &events).log;
    append(&mut log, 50, 5);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3u64)
        .map(|reader_number| {
            let (reader, stop) = (log.reader(), stop.clone());
            std::thread::spawn(move || {
                let mut random = reader_number + 1;
                let mut read = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || read == 0 {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                    let first = Seq::new(1 + (random >> 33) % reader.bounds().last.number());
                    let slice = reader.read(SeqRange::with_len(first, 40), 2500);
                    if let Some(range) = slice.range {
                        common_disk::is_made(slice.pieces.concat().into(), range);
                        read += range.len();
                    }
                }
                read
            })
        })
        .collect();
    for round in 0..200 {
        append(&mut log, 20, 3);
        let last = log.bounds().last;
        log.make_durable(last);
        if round % 2 == 1 {
            // Most of what the readers are looking at goes, and other files come.
            log.set_aside(Seq::new(last.number() - 35), "a test").unwrap();
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    let told = events.all();
    let damage = told.iter().find(|event| matches!(event, DiskEvent::Damage(..)));
    assert_eq!((damage, log.damage()), (None, vec![]));
    let last = log.bounds().last;
    is_the_made_log(&log.reader(), last);
}

/// What a node has settled is worth nothing beyond what it still has.
#[test]
fn a_loss_sets_the_settled_epoch_back_to_that_of_the_last_whole_entry() {
    let fs = FaultyFs::new(3);
    let open_it = || {
        open(fs.clone(), Path::new("/data"), options_with(4096, Fsync::Never), &Events::default())
    };
    let mut log = open_it().log;
    append(&mut log, 100, 5);
    let settled = Epoch::new(30);
    log.set_identity(Identity { settled, ..log.identity().clone() }).unwrap();
    drop(log);
    fs.kill();
    let log = open_it().log;
    assert_eq!(log.identity().settled, settled, "a process that was killed lost nothing");
    drop(log);
    fs.crash();
    let opened = open_it();
    assert!(opened.recovery.machine_loss_possible);
    let last = opened.log.bounds();
    assert_eq!(opened.log.identity().settled, last.tail.epoch);
    drop(opened);
    fs.kill();
    assert_eq!(open_it().log.identity().settled, last.tail.epoch, "and that is kept");
}

/// A directory of an older version does not say what it has settled: at least what its entries tell.
#[test]
fn whoever_has_an_entry_has_settled_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(RealFs, dir.path(), options(), &Events::default()).log;
    assert_eq!(log.identity().settled, Epoch::ZERO);
    append(&mut log, 100, 5);
    log.close();
    drop(log);
    let log = open(RealFs, dir.path(), options(), &Events::default()).log;
    assert_eq!(log.identity().settled, common_disk::epoch(100));
}

#[test]
fn a_disk_that_does_not_sync_keeps_no_append_waiting_however_many_segments_that_takes() {
    let (fs, events) = (FaultyFs::new(1), Events::default());
    let mut log = open(fs.clone(), Path::new("/data"), options(), &events).log;
    fs.hold_syncs(true);
    let released = Arc::new(AtomicBool::new(false));
    let (guard, held) = (released.clone(), fs.clone());
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(60));
        guard.store(true, Ordering::Relaxed);
        held.hold_syncs(false);
    });
    append(&mut log, 3000, 10);
    assert!(!released.load(Ordering::Relaxed), "an append waited for a sync");
    // The last one has grown: a start need not read more than so many without a footer to trust.
    assert!(log.segment_count() <= SEALED_UNSYNCED_MAX + 2, "{}", log.segment_count());
    assert_eq!(log.make_durable(Seq::new(3000)), Seq::ZERO);
    let segments = log.segment_count();
    fs.hold_syncs(false);
    events.wait_for(&DiskEvent::Durable(Seq::new(3000)));
    append(&mut log, 300, 10);
    assert!(log.segment_count() > segments, "segments are sealed again");
    is_the_made_log(&log.reader(), Seq::new(3300));
    log.close();
    drop(log);
    fs.crash();
    let log = open(fs, Path::new("/data"), options(), &events).log;
    is_the_made_log(&log.reader(), Seq::new(3300));
}
