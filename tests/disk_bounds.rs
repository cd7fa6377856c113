//! What the log on disk may take of a machine, however long it is: open files, memory, rewriting. And
//! what it says when the disk fails a write.

#![allow(clippy::unwrap_used)]

mod common_disk;

use std::path::Path;

use common_disk::{Events, append, is_the_made_log, manual, open};
use replog::store::faulty::FaultyFs;
use replog::store::{Fsync, LogStore, Opened, StoreError};
use replog::types::Seq;

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
