//! A disk without room, however it comes to be: what is let in can be written, what is not is refused
//! with what is missing, and small disks are of use.

#![allow(clippy::unwrap_used)]

mod common_disk;

use std::io::ErrorKind;
use std::path::Path;

use bytes::BytesMut;
use common_disk::{Events, append, is_the_made_log, manual, open};
use replog::limits::{RESERVE_CONTROL_BYTES, RUN_DISK_EXTRA_BYTES};
use replog::store::faulty::FaultyFs;
use replog::store::{DiskLog, DiskOptions, Fsync, Identity, LogStore, Run, RunBuilder, StoreError};
use replog::types::{Epoch, RoomLimit, Seq, Shortage};

const DIR: &str = "/data";
const MIB: u64 = 1 << 20;

fn reserve(fs: &FaultyFs) -> u64 {
    fs.bytes(&Path::new(DIR).join("reserve")).unwrap().len() as u64
}

fn options(segment_size: u64) -> DiskOptions {
    DiskOptions { run_bytes: MIB, ..manual(segment_size, Fsync::Always) }
}

fn open_with(fs: &FaultyFs, options: DiskOptions) -> DiskLog {
    open(fs.clone(), Path::new(DIR), options, &Events::default()).log
}

/// A run of one entry with a payload of so many bytes.
fn run(log: &DiskLog, bytes: usize) -> Run {
    let mut arena = BytesMut::new();
    let bounds = log.bounds();
    let mut builder = RunBuilder::new(&mut arena, bounds.last, bounds.tail);
    builder.push(Epoch::new(1), 0, &vec![b'x'; bytes]);
    builder.finish(&mut arena).unwrap()
}

/// Appends entries as a node does, asking for room first, until there is none or there are `most`.
fn fill(log: &mut DiskLog, bytes: usize, most: u64) -> Option<Shortage> {
    for _ in 0..most {
        let run = run(log, bytes);
        if let Err(shortage) = log.room_for(run.len_bytes()) {
            return Some(shortage);
        }
        log.append(run).unwrap();
    }
    None
}

#[test]
fn a_small_disk_takes_entries_for_most_of_its_size() {
    for (mib, share) in [(4, 50), (8, 70), (16, 80), (24, 85)] {
        let fs = FaultyFs::new(mib);
        fs.set_budget(Some(mib * MIB));
        let mut log = open_with(&fs, options(64 * MIB));
        let shortage = fill(&mut log, 10_000, u64::MAX).unwrap();
        let used = log.bounds().bytes * 100 / (mib * MIB);
        assert!(used >= share, "{used} % of {mib} MiB: {shortage:?}");
        assert_eq!(shortage.limit, RoomLimit::Space);
        assert!(shortage.free.unwrap() < shortage.need, "{shortage:?}");
        // So much room, and it goes on.
        fs.set_budget(Some(mib * MIB + shortage.need + 64 * 1024));
        assert_eq!(log.room_for(0), Ok(()));
        let bounds = log.bounds();
        drop(log);
        fs.kill();
        assert_eq!(open_with(&fs, options(64 * MIB)).bounds(), bounds);
    }
}

#[test]
fn the_reserve_has_the_size_of_what_may_be_written_and_a_larger_one_is_shrunk() {
    let fs = FaultyFs::new(1);
    let size = RESERVE_CONTROL_BYTES + RUN_DISK_EXTRA_BYTES + MIB;
    drop(open_with(&fs, options(64 * MIB)));
    assert_eq!(reserve(&fs), size);
    fs.put(&Path::new(DIR).join("reserve"), &vec![0; 21 << 20]);
    fs.kill();
    fs.set_budget(Some(22 << 20));
    let mut log = open_with(&fs, options(64 * MIB));
    assert_eq!(reserve(&fs), size);
    assert!(fill(&mut log, 100_000, 150).is_none(), "what an older version kept is of use");
}

#[test]
fn a_run_longer_than_the_node_keeps_room_for_is_let_in_only_where_it_fits() {
    let fs = FaultyFs::new(1);
    fs.set_budget(Some(24 * MIB));
    let mut log = open_with(&fs, options(64 * MIB));
    append(&mut log, 10, 1);
    let long = run(&log, 9 << 20);
    assert_eq!(log.room_for(long.len_bytes()), Ok(()));
    log.append(long).unwrap();
    let shortage = log.room_for(15 << 20).unwrap_err();
    assert!(shortage.need > shortage.free.unwrap(), "{shortage:?}");
    // What is refused takes nothing from others.
    assert_eq!(log.room_for(0), Ok(()));
    assert!(fill(&mut log, 100_000, 20).is_none());
    // What was taken for a long run is of use again.
    assert!(log.bounds().bytes > 10 * MIB);
    fill(&mut log, 10_000, u64::MAX).unwrap();
    assert!(log.bounds().bytes > 20 * MIB, "{} bytes", log.bounds().bytes);
}

#[test]
fn a_used_up_quota_is_a_full_disk_and_named() {
    let fs = FaultyFs::new(1);
    fs.full_as(ErrorKind::QuotaExceeded);
    fs.set_budget(Some(4 * MIB));
    let mut log = open_with(&fs, options(MIB));
    let shortage = fill(&mut log, 10_000, u64::MAX).unwrap();
    assert_eq!((shortage.limit, shortage.free), (RoomLimit::Quota, None));
    let identity = Identity { epoch: Epoch::new(5), ..Identity::default() };
    assert_eq!(log.set_identity(identity), Ok(()), "a promise has room");
    fs.set_budget(None);
    assert_eq!(fill(&mut log, 10_000, 50), None);
}

#[test]
fn a_limit_for_the_length_of_a_file_is_a_full_disk_and_named() {
    let fs = FaultyFs::new(1);
    fs.set_file_bytes_max(Some(4 * MIB));
    let mut log = open_with(&fs, options(64 * MIB));
    let shortage = fill(&mut log, 10_000, u64::MAX).unwrap();
    assert_eq!(shortage.limit, RoomLimit::FileSize(4 * MIB));
    assert!(shortage.need > shortage.free.unwrap(), "{shortage:?}");
    assert!(log.bounds().bytes > 2 * MIB, "{} bytes", log.bounds().bytes);
    let identity = Identity { epoch: Epoch::new(5), ..Identity::default() };
    assert_eq!(log.set_identity(identity.clone()), Ok(()), "a promise has room");
    // Raised while the node runs, it goes on.
    fs.set_file_bytes_max(Some(8 * MIB));
    assert_eq!(fill(&mut log, 10_000, 50), None);
    let bounds = log.bounds();
    drop(log);
    fs.crash();
    // Segments below the limit never meet it.
    let mut log = open_with(&fs, options(2 * MIB));
    assert_eq!((log.bounds().last <= bounds.last, log.identity()), (true, &identity));
    fs.set_file_bytes_max(Some(4 * MIB));
    assert_eq!(fill(&mut log, 10_000, 1000), None);
    assert!(log.segment_count() > 3);
}

/// A limit that is lowered under a node may be met by entries that have their numbers already.
#[test]
fn what_was_let_in_before_the_limit_fell_goes_into_another_file() {
    let fs = FaultyFs::new(1);
    let mut log = open_with(&fs, options(64 * MIB));
    append(&mut log, 2000, 10);
    assert_eq!(log.room_for(1 << 19), Ok(()));
    // Below what the segment has on the disk already, and what it will have in it.
    fs.set_file_bytes_max(Some(MIB / 2));
    while log.segment_count() == 1 {
        append(&mut log, 200, 10);
        assert!(log.bounds().last < Seq::new(5000));
    }
    let last = log.bounds().last;
    log.sync_now();
    is_the_made_log(&log.reader(), last);
    drop(log);
    fs.crash();
    fs.set_file_bytes_max(None);
    is_the_made_log(&open_with(&fs, options(64 * MIB)).reader(), last);
}

/// On some file systems it is a write that finds no room, not the call that asks for it.
#[test]
fn what_was_let_in_is_written_also_where_no_room_can_be_reserved() {
    for mib in [4, 8] {
        let fs = FaultyFs::new(mib);
        fs.reserve_nothing();
        fs.set_budget(Some(mib * MIB));
        let mut log = open_with(&fs, options(64 * MIB));
        let shortage = fill(&mut log, 10_000, u64::MAX).unwrap();
        assert!(log.bounds().bytes > (mib - 2) * MIB, "{} bytes", log.bounds().bytes);
        let identity = Identity { epoch: Epoch::new(5), ..Identity::default() };
        assert_eq!(log.set_identity(identity), Ok(()), "a promise has room");
        fs.set_budget(Some(mib * MIB + shortage.need + MIB));
        assert_eq!(fill(&mut log, 10_000, 30), None);
        let bounds = log.bounds();
        log.sync_now();
        drop(log);
        fs.crash();
        assert_eq!(open_with(&fs, options(64 * MIB)).bounds(), bounds);
    }
}

/// A file system can have bytes and no more names.
#[test]
fn without_a_name_for_the_next_segment_the_last_one_goes_on() {
    let fs = FaultyFs::new(1);
    let mut log = open_with(&fs, options(4096));
    append(&mut log, 100, 3);
    let segments = log.segment_count();
    fs.fill_names(true);
    append(&mut log, 300, 3);
    assert_eq!(log.segment_count(), segments);
    fs.fill_names(false);
    append(&mut log, 300, 3);
    assert!(log.segment_count() > segments + 3);
    log.sync_now();
    is_the_made_log(&log.reader(), Seq::new(700));
    drop(log);
    fs.crash();
    is_the_made_log(&open_with(&fs, options(4096)).reader(), Seq::new(700));
}

#[test]
fn entries_that_cannot_be_kept_aside_for_want_of_room_stay_in_the_log() {
    let fs = FaultyFs::new(1);
    let mut log = open_with(&fs, DiskOptions { run_bytes: 4096, ..options(64 << 10) });
    append(&mut log, 5000, 10);
    log.sync_now();
    let (bounds, before) = (log.bounds(), fs.paths());
    fs.set_budget(Some(fs.used()));
    // More than the reserve gives.
    fill(&mut log, 100_000, u64::MAX);
    let filled = log.bounds();
    assert_eq!(log.set_aside(Seq::new(2), "a test"), Err(StoreError::Full));
    assert_eq!(log.bounds(), filled);
    let is_left = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".tmp");
    assert!(!fs.paths().iter().any(is_left), "{:?}", fs.paths());
    fs.set_budget(None);
    assert!(log.set_aside(bounds.last.next(), "a test").is_ok());
    assert_eq!(log.set_aside(Seq::new(2), "a test"), Ok(bounds.last.number() - 1));
    assert!(fs.paths().len() < before.len());
    is_the_made_log(&log.reader(), Seq::new(1));
}

#[test]
fn a_repair_without_room_changes_nothing_and_leaves_nothing_behind() {
    let fs = FaultyFs::new(1);
    let options = DiskOptions { run_bytes: 4096, ..options(4 * MIB) };
    let mut log = open_with(&fs, options.clone());
    append(&mut log, 5000, 10);
    log.close();
    drop(log);
    fs.kill();
    let segment = fs.paths().into_iter().find(|path| path.ends_with("00000000000000000001.log"));
    for sector in 100..110 {
        fs.lose_sector(segment.as_ref().unwrap(), sector);
    }
    let mut log = open_with(&fs, options);
    while !log.scrub(1 << 20).done {}
    let damage = log.damage();
    assert_eq!(damage.len(), 1, "{damage:?}");
    fs.set_budget(Some(fs.used() + 10_000));
    let (used, mended) = (fs.used(), common_disk::run_of(damage[0]));
    for _ in 0..3 {
        assert_eq!(log.repair(mended.clone()), Err(StoreError::Full));
        assert_eq!(log.damage(), damage);
        assert!(fs.used() <= used, "a failed repair took room");
    }
    fs.set_budget(None);
    assert_eq!(log.repair(mended), Ok(()));
    is_the_made_log(&log.reader(), Seq::new(5000));
}
