//! What the log on disk may take of a machine, however long it is: open files, memory, rewriting. And
//! what it says when the disk fails a write.

#![allow(clippy::unwrap_used)]

mod common_disk;

use std::path::Path;

use common_disk::{Events, append, is_the_made_log, manual, open};
use replog::store::faulty::FaultyFs;
use replog::store::{Fsync, Identity, LogStore, Opened, StoreError};
use replog::types::{Seq, SeqRange};

/// What a log may have open at once: the segments at hand for readers, and a few of its own.
const OPEN_FILES_MAX: usize = replog::limits::OPEN_SEGMENTS_MAX + 4;

fn open_at(fs: &FaultyFs, fsync: Fsync) -> Opened {
    open(fs.clone(), Path::new("/data"), manual(1024, fsync), &Events::default())
}

#[test]
fn a_log_of_any_number_of_segments_has_few_files_open_while_it_opens_and_while_it_is_read() {
    for (fsync, clean) in [(Fsync::Always, true), (Fsync::Always, false), (Fsync::Never, false)] {
        let fs = FaultyFs::new(1);
        let mut log = open_at(&fs, fsync).log;
        append(&mut log, 1500, 3);
        let segments = log.segment_count();
        assert!(segments > 4 * OPEN_FILES_MAX, "{segments} segments");
        if clean {
            log.close();
        }
        drop(log);
        fs.kill();

        let opened = open_at(&fs, fsync);
        assert_eq!(opened.log.segment_count(), segments);
        is_the_made_log(&opened.log.reader(), Seq::new(1500));
        let most = fs.open_most();
        assert!(most <= OPEN_FILES_MAX, "{most} files were open at once");
    }
}

#[test]
fn a_write_that_the_disk_fails_is_told_as_such_and_ends_the_logs_use() {
    let fs = FaultyFs::new(1);
    let mut log = open_at(&fs, Fsync::Always).log;
    append(&mut log, 10, 3);
    log.sync_now();
    fs.fail_writes();
    let run = common_disk::run_after(log.bounds().last, log.bounds().tail, 1);
    let failed = log.append(run.clone()).unwrap_err();
    assert!(matches!(failed, StoreError::Failed { .. }), "{failed}");
    assert_eq!(log.append(run), Err(failed.clone()), "it is not tried again");
    assert_eq!(log.set_identity(log.identity().clone()), Err(failed));
    drop(log);
    fs.kill();
    is_the_made_log(&open_at(&fs, Fsync::Always).log.reader(), Seq::new(10));
}

fn segments(fs: &FaultyFs) -> Vec<std::path::PathBuf> {
    let data = Path::new("/data");
    let is_segment = |path: &std::path::PathBuf| {
        path.parent() == Some(data) && path.extension().is_some_and(|extension| extension == "log")
    };
    fs.paths().into_iter().filter(is_segment).collect()
}

fn kept(fs: &FaultyFs) -> usize {
    fs.paths().iter().filter(|path| path.starts_with("/data/aside")).count()
}

/// Fills what is damaged in pieces of three entries; answers the most operations of one piece.
fn repair_in_pieces(fs: &FaultyFs, log: &mut replog::store::DiskLog) -> u64 {
    let mut most = 0;
    while let Some(damage) = log.damage().first() {
        let piece = SeqRange::new(damage.first, damage.end.min(damage.first.plus(3)));
        let run = common_disk::run_of(piece);
        let before = fs.operations();
        log.repair(run).unwrap();
        most = most.max(fs.operations() - before);
    }
    most
}

fn made(segment_size: u64) -> (FaultyFs, replog::store::DiskOptions) {
    let fs = FaultyFs::new(1);
    let options = manual(segment_size, Fsync::Always);
    let mut log = open(fs.clone(), Path::new("/data"), options.clone(), &Events::default()).log;
    append(&mut log, 200, 1);
    log.close();
    drop(log);
    fs.kill();
    (fs, options)
}

#[test]
fn a_damaged_file_is_kept_once_however_many_pieces_mend_it() {
    let (fs, options) = made(16 << 10);
    let path = segments(&fs).remove(0);
    for sector in 4..12 {
        fs.lose_sector(&path, sector);
    }
    let mut log = open(fs.clone(), Path::new("/data"), options, &Events::default()).log;
    while !log.scrub(1 << 20).done {}
    let lost: u64 = log.damage().iter().map(|range| range.len()).sum();
    assert!(lost > 12, "{lost} entries are lost");
    repair_in_pieces(&fs, &mut log);
    is_the_made_log(&log.reader(), Seq::new(200));
    assert_eq!(kept(&fs), 1, "{:?}", fs.paths());
}

#[test]
fn a_segment_that_is_gone_is_filled_without_writing_anything_twice() {
    let (fs, options) = made(8 << 10);
    fs.erase(&segments(&fs).remove(1));
    let mut log = open(fs.clone(), Path::new("/data"), options.clone(), &Events::default()).log;
    let lost = log.damage()[0].len();
    let before = log.segment_count();
    let most = repair_in_pieces(&fs, &mut log);
    assert!(most < 12, "a piece took {most} operations");
    assert_eq!(log.segment_count() as u64, before as u64 + lost.div_ceil(3));
    assert_eq!(kept(&fs), 0, "nothing was there to be kept");
    is_the_made_log(&log.reader(), Seq::new(200));
    drop(log);
    fs.crash();
    let opened = open(fs, Path::new("/data"), options, &Events::default());
    assert_eq!(opened.recovery.damage, []);
    is_the_made_log(&opened.log.reader(), Seq::new(200));
}

#[test]
fn many_holes_do_not_make_a_start_read_a_segment_many_times() {
    let fs = FaultyFs::new(1);
    let options = manual(64 << 20, Fsync::Always);
    let mut log = open(fs.clone(), Path::new("/data"), options.clone(), &Events::default()).log;
    let mut arena = bytes::BytesMut::new();
    for _ in 0..300 {
        let bounds = log.bounds();
        let mut builder = replog::store::RunBuilder::new(&mut arena, bounds.last, bounds.tail);
        builder.push(replog::types::Epoch::new(1), 0, &[b'x'; 8192]);
        log.append(builder.finish(&mut arena).unwrap()).unwrap();
    }
    log.close();
    drop(log);
    fs.kill();
    let path = segments(&fs).remove(0);
    let len = fs.bytes(&path).unwrap().len() as u64;
    for byte in (200..len - 200).step_by(40_000) {
        fs.flip(&path, byte * 8);
    }
    let before = fs.bytes_read();
    let opened = open(fs.clone(), Path::new("/data"), options, &Events::default());
    assert!(opened.recovery.damage.len() > 20, "{:?}", opened.recovery.damage);
    let read = fs.bytes_read() - before;
    assert!(read < 10 * len, "{read} bytes of a segment of {len} were read");
}

#[test]
fn one_read_finds_how_far_damage_reaches() {
    let fs = FaultyFs::new(1);
    let options = manual(64 << 20, Fsync::Always);
    let mut log = open(fs.clone(), Path::new("/data"), options.clone(), &Events::default()).log;
    append(&mut log, 4000, 50);
    log.close();
    drop(log);
    fs.kill();
    let path = segments(&fs).remove(0);
    // Several places of the index, which has one every 64 KiB.
    for sector in 100..700 {
        fs.lose_sector(&path, sector);
    }
    let events = Events::default();
    let opened = open(fs, Path::new("/data"), options, &events);
    while !opened.log.scrubber().step(1 << 20).done && opened.log.damage().is_empty() {}
    assert_eq!(opened.log.damage().len(), 1, "{:?}", opened.log.damage());
    let lost = opened.log.damage()[0].len();
    assert!(lost > 1500, "{lost} entries lie in 300 KiB");
    assert_eq!(events.all().len(), usize::from(opened.recovery.damage.is_empty()));
}

#[test]
fn while_too_many_files_are_open_the_log_goes_on_in_the_segment_that_it_has() {
    let fs = FaultyFs::new(1);
    let mut log = open_at(&fs, Fsync::Always).log;
    append(&mut log, 10, 3);
    log.sync_now();
    let segments = log.segment_count();
    fs.exhaust_descriptors(true);
    append(&mut log, 200, 3);
    assert_eq!(log.segment_count(), segments, "no segment can be begun");
    assert_eq!(log.sync_now(), Seq::new(210), "and what was appended becomes durable");
    let identity = Identity { commit: Seq::new(210), ..log.identity().clone() };
    let refused = log.set_identity(identity.clone()).unwrap_err();
    assert!(matches!(refused, StoreError::NoDescriptor { .. }), "{refused}");

    fs.exhaust_descriptors(false);
    append(&mut log, 90, 3);
    assert!(log.segment_count() > segments, "the next one begins as soon as it can");
    log.set_identity(identity.clone()).unwrap();
    log.sync_now();
    drop(log);
    fs.crash();
    let opened = open_at(&fs, Fsync::Always);
    is_the_made_log(&opened.log.reader(), Seq::new(300));
    assert_eq!(opened.log.identity().commit, identity.commit);
    assert!(opened.recovery.damage.is_empty() && opened.recovery.cut.is_none());
}

#[test]
fn a_machine_that_goes_down_between_two_segments_leaves_a_log_that_opens() {
    // The file of the next segment is made before the one before it is sealed.
    for crash in 1..60 {
        let fs = FaultyFs::new(crash);
        let mut log = open_at(&fs, Fsync::Always).log;
        append(&mut log, 20, 3);
        let durable = log.sync_now();
        fs.crash_at(crash);
        for _ in 0..40 {
            let run = common_disk::run_after(log.bounds().last, log.bounds().tail, 3);
            if log.append(run).is_err() {
                break;
            }
        }
        drop(log);
        fs.crash();
        let opened = open_at(&fs, Fsync::Always);
        assert!(opened.recovery.damage.is_empty(), "crash {crash}: {:?}", opened.recovery);
        let last = opened.log.bounds().last;
        assert!(last >= durable, "crash {crash}: {last}");
        is_the_made_log(&opened.log.reader(), last);
    }
}
