//! Bytes destroyed, disks full, syncs failed, directories that are not ours: nothing wrong is ever
//! served, what is damaged is noticed, and what is repaired is whole.

#![allow(clippy::unwrap_used)]

mod common_disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common_disk::{Events, append, is_the_made_log, manual, open, options, payload, run_of};
use replog::limits::{RESERVE_CONTROL_BYTES, RUN_DISK_EXTRA_BYTES};
use replog::store::faulty::FaultyFs;
use replog::store::fs::{Fs, RealFs};
use replog::store::{
    DiskEvent, DiskLog, DiskOptions, Fsync, Identity, LogStore, OpenError, Opened, StoreError,
};
use replog::types::{Epoch, Seq, SeqRange};

const DIR: &str = "/data";

fn always(segment_size: u64) -> DiskOptions {
    manual(segment_size, Fsync::Always)
}

fn open_at(fs: &FaultyFs, events: &Events) -> Opened {
    open(fs.clone(), Path::new(DIR), always(900), events)
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::inclusive(Seq::new(first), Seq::new(last))
}

/// The segments, in order.
fn segments(fs: &FaultyFs) -> Vec<PathBuf> {
    let names = fs.paths().into_iter().filter(|path| path.parent() == Some(Path::new(DIR)));
    names.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

/// A log of so many entries, the last three in one batch that no mark covers.
fn made(entries: u64, clean: bool) -> FaultyFs {
    let fs = FaultyFs::new(1);
    let mut log = open_at(&fs, &Events::default()).log;
    append(&mut log, entries - 3, 2);
    log.sync_now();
    append(&mut log, 3, 3);
    log.sync_now();
    if clean {
        log.close();
    }
    drop(log);
    fs.kill();
    fs
}

/// Reads every entry, wherever it is: what comes is right. Answers how many did not come.
fn nothing_wrong_is_served(log: &DiskLog) -> u64 {
    let reader = log.reader();
    let last = log.bounds().last.number();
    let missing = |&seq: &u64| match reader.record(Seq::new(seq)) {
        Some(record) => {
            assert_eq!(record.payload, payload(seq), "entry {seq} is served wrong");
            false
        }
        None => true,
    };
    (1..=last).filter(missing).count() as u64
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_costs_only_what_was_torn() {
    let fs = made(30, false);
    let path = segments(&fs).pop().unwrap();
    let bytes = fs.bytes(&path).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let lens: Vec<_> = (28..=30).map(|seq| 48 + payload(seq).len()).collect();
    let batch = end - lens.iter().sum::<usize>();
    for zeros in [false, true] {
        for cut in batch..=end {
            let torn = fs.fork();
            let mut left = bytes[..cut].to_vec();
            if zeros {
                left.resize(bytes.len(), 0);
            }
            let whole =
                cut == end || left.get(cut..end).is_some_and(|rest| rest == &bytes[cut..end]);
            torn.put(&path, &left);
            let Opened { mut log, recovery } = open_at(&torn, &Events::default());
            let mut at = batch;
            let kept = lens.iter().take_while(|&&len| {
                at += len;
                at <= cut || whole
            });
            let last = 27 + kept.count() as u64;
            let found = log.bounds().last.number();
            // A record may end in zeros, so that cutting them changes nothing.
            assert!(found >= last, "cut at {cut}: {found} instead of {last}");
            assert_eq!(recovery.damage, [], "cut at {cut}");
            assert_eq!(recovery.aside, None, "cut at {cut}");
            append(&mut log, 5, 2);
            log.sync_now();
            is_the_made_log(&log.reader(), Seq::new(found + 5));
        }
    }
}

#[test]
fn a_tail_torn_before_the_durable_mark_is_damage_and_appending_it_again_heals() {
    let fs = made(30, true);
    let path = segments(&fs).pop().unwrap();
    let bytes = fs.bytes(&path).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for cut in [end - 1, end - 60, end - 200] {
        let torn = fs.fork();
        torn.put(&path, &bytes[..cut]);
        let Opened { mut log, recovery } = open_at(&torn, &Events::default());
        let last = log.bounds().last.number();
        assert!(last < 30);
        assert_eq!(log.damage(), [range(last + 1, 30)], "cut at {cut}");
        assert!(recovery.damage.iter().any(|(damage, _)| *damage == range(last + 1, 30)));
        assert!(log.reader().is_unreadable(Seq::new(30)));
        assert!(!log.identity().vouches);
        log.repair(run_of(range(last + 1, 30))).unwrap();
        assert_eq!(log.damage(), []);
        is_the_made_log(&log.reader(), Seq::new(30));
    }
}

/// Turns every `step`-th bit of each file over, once, and looks for what notices it.
fn flip_all(clean: bool, step: usize) {
    let fs = made(24, clean);
    assert!(segments(&fs).len() >= 3, "{:?}", fs.paths());
    let mut files = segments(&fs);
    files.push(Path::new(DIR).join("meta"));
    let mut flips = 0;
    for path in files {
        for bit in (0..fs.bytes(&path).unwrap().len() as u64 * 8).step_by(step) {
            let flipped = fs.fork();
            flipped.flip(&path, bit);
            let context = format!("{} bit {bit}", path.display());
            let events = Events::default();
            let opened =
                DiskLog::open(Arc::new(flipped), Path::new(DIR), always(900), events.notify());
            flips += 1;
            let Opened { mut log, recovery } = match opened {
                Ok(opened) => opened,
                // Refused, with a sentence: noticed.
                Err(error) => {
                    assert!(error.to_string().len() > 20, "{context}: {error}");
                    continue;
                }
            };
            let missing = nothing_wrong_is_served(&log);
            let on_open = recovery.cut.is_some()
                || recovery.aside.is_some()
                || !recovery.damage.is_empty()
                || !recovery.notes.is_empty();
            let scrub = log.scrub(1 << 20);
            assert!(scrub.done, "{context}");
            let on_scrub = !scrub.damage.is_empty() || !scrub.notes.is_empty();
            assert!(on_open || missing > 0 || on_scrub, "{context} went unnoticed");
            assert!(missing <= 2, "{context}: {missing} entries are gone");
            if missing > 0 {
                assert!(!log.damage().is_empty(), "{context}");
            }
        }
    }
    assert!(flips > 20_000 / step, "only {flips} flips");
}

#[test]
fn each_flipped_bit_is_noticed_and_nothing_wrong_is_served_after_a_kill() {
    flip_all(false, 1);
}

#[test]
fn each_flipped_bit_is_noticed_and_nothing_wrong_is_served_after_a_clean_stop() {
    flip_all(true, 7);
}

/// Nothing is lost with a header: what stands before it tells all it said. Left as it is, it would be
/// one more flipped bit away from a loss.
#[test]
fn a_destroyed_header_is_told_once_and_written_again() {
    for clean in [false, true] {
        let whole = made(24, clean);
        for path in segments(&whole) {
            for byte in 0..64 {
                let fs = whole.fork();
                fs.flip(&path, 8 * byte + byte % 8);
                let name = path.file_name().unwrap().to_str().unwrap();
                let context = format!("byte {byte} of {name}");
                let told = |opened: &Opened| {
                    let notes = opened.recovery.notes.iter();
                    notes.filter(|note| note.contains("header")).cloned().collect::<Vec<_>>()
                };
                let mut opened = open_at(&fs, &Events::default());
                assert_eq!(told(&opened).len(), 2, "{context}: {:?}", opened.recovery.notes);
                assert!(opened.recovery.damage.is_empty(), "{context}");
                is_the_made_log(&opened.log.reader(), Seq::new(24));
                assert!(opened.log.scrub(1 << 20).notes.is_empty(), "{context}");
                drop(opened);
                fs.kill();
                let opened = open_at(&fs, &Events::default());
                assert_eq!(told(&opened), Vec::<String>::new(), "{context}");
                assert_eq!(fs.bytes(&path).unwrap()[..64], whole.bytes(&path).unwrap()[..64]);
                is_the_made_log(&opened.log.reader(), Seq::new(24));
            }
        }
    }
}

#[test]
fn each_zeroed_sector_is_noticed_and_nothing_wrong_is_served() {
    let fs = made(60, true);
    let mut zeroed = 0;
    for path in segments(&fs) {
        let bytes = fs.bytes(&path).unwrap();
        for at in (0..bytes.len()).step_by(512) {
            let mut bytes = bytes.clone();
            let end = (at + 512).min(bytes.len());
            if bytes[at..end].iter().all(|&byte| byte == 0) {
                continue;
            }
            bytes[at..end].fill(0);
            let lost = fs.fork();
            lost.put(&path, &bytes);
            let context = format!("{} byte {at}", path.display());
            let Opened { mut log, recovery } = open_at(&lost, &Events::default());
            let missing = nothing_wrong_is_served(&log);
            let scrub = log.scrub(1 << 20);
            let noticed = missing > 0
                || recovery.cut.is_some()
                || !recovery.damage.is_empty()
                || !recovery.notes.is_empty()
                || !scrub.notes.is_empty();
            assert!(noticed, "{context} went unnoticed");
            assert!(missing < 30, "{context}: {missing} entries are gone");
            while let Some(range) = log.damage().first() {
                log.repair(run_of(*range)).unwrap();
            }
            is_the_made_log(&log.reader(), Seq::new(60));
            zeroed += 1;
        }
    }
    assert!(zeroed > 10, "only {zeroed} sectors");
}

/// Where entry `seq` has its payload, in bits.
fn payload_bit(fs: &FaultyFs, seq: u64) -> (PathBuf, u64) {
    for path in segments(fs) {
        let bytes = fs.bytes(&path).unwrap();
        let wanted = payload(seq);
        let at = bytes.windows(wanted.len()).position(|window| window == wanted);
        if let Some(at) = at {
            return (path, at as u64 * 8);
        }
    }
    panic!("entry {seq} is in no segment");
}

#[test]
fn a_damaged_entry_is_told_once_and_repaired_from_a_peer() {
    for seq in [2, 11, 29] {
        let fs = made(30, true);
        let (path, bit) = payload_bit(&fs, seq);
        fs.flip(&path, bit);
        let events = Events::default();
        let mut log = open_at(&fs, &events).log;
        assert_eq!(nothing_wrong_is_served(&log), 1);
        assert_eq!(log.damage(), [range(seq, seq)]);
        assert!(log.reader().is_unreadable(Seq::new(seq)));
        assert_eq!(log.reader().record(Seq::new(seq)), None);
        let told = events.all();
        let told: Vec<_> = told
            .iter()
            .filter(
                |event| matches!(event, DiskEvent::Damage(damage, _) if *damage == range(seq, seq)),
            )
            .collect();
        assert!(told.len() <= 1, "{told:?}");

        let foreign = common_disk::run_after(Seq::new(seq - 1), Default::default(), 1);
        assert_eq!(
            log.repair(foreign),
            Err(StoreError::Unfit { range: range(seq, seq) }),
            "another entry under that number is no repair"
        );
        log.repair(run_of(range(1, 30))).unwrap();

        assert_eq!(log.damage(), []);
        is_the_made_log(&log.reader(), Seq::new(30));
        let kept = fs.paths().into_iter().filter(|path| path.starts_with("/data/aside"));
        assert_eq!(kept.count(), 1, "the damaged file is kept");
        append(&mut log, 10, 3);
        log.sync_now();
        drop(log);
        fs.crash();
        let opened = open_at(&fs, &Events::default());
        assert_eq!(opened.recovery.damage, []);
        is_the_made_log(&opened.log.reader(), Seq::new(40));
    }
}

#[test]
fn a_repair_that_does_not_lead_to_the_entry_behind_is_refused() {
    let fs = made(30, true);
    let (path, bit) = payload_bit(&fs, 11);
    fs.flip(&path, bit);
    let mut log = open_at(&fs, &Events::default()).log;
    nothing_wrong_is_served(&log);
    let mut arena = bytes::BytesMut::new();
    let before = log.reader().prefix_id(Seq::new(10)).unwrap();
    let mut builder = replog::store::RunBuilder::new(&mut arena, Seq::new(10), before);
    builder.push(before.epoch, 0, b"of another history");
    let run = builder.finish(&mut arena).unwrap();
    assert_eq!(log.repair(run), Err(StoreError::Unfit { range: range(11, 11) }));
    assert_eq!(log.damage(), [range(11, 11)]);
}

#[test]
fn a_segment_that_is_gone_is_filled_piece_by_piece() {
    for index in 0..3 {
        let fs = made(60, true);
        let path = segments(&fs).remove(index);
        fs.erase(&path);
        let mut log = open_at(&fs, &Events::default()).log;
        let lost = log.damage();
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert_eq!(nothing_wrong_is_served(&log), lost[0].len());
        while let Some(range) = log.damage().first() {
            let piece = SeqRange::new(range.first, range.end.min(range.first.plus(3)));
            log.repair(run_of(piece)).unwrap();
        }
        is_the_made_log(&log.reader(), Seq::new(60));
        drop(log);
        fs.crash();
        let opened = open_at(&fs, &Events::default());
        assert_eq!(opened.recovery.damage, []);
        is_the_made_log(&opened.log.reader(), Seq::new(60));
    }
}

#[test]
fn a_crash_at_any_operation_of_a_repair_leaves_it_done_or_to_be_done_again() {
    let damaged = made(30, true);
    let (path, bit) = payload_bit(&damaged, 11);
    damaged.flip(&path, bit);
    for operation in 1.. {
        let fs = damaged.fork();
        fs.reseed(operation);
        let mut log = open_at(&fs, &Events::default()).log;
        nothing_wrong_is_served(&log);
        fs.crash_at(operation);
        let done = log.repair(run_of(range(11, 11))).is_ok();
        drop(log);
        fs.crash();
        let mut log = open_at(&fs, &Events::default()).log;
        let missing = nothing_wrong_is_served(&log);
        assert!(missing == 0 || (missing == 1 && !done), "operation {operation}: {missing}");
        if missing == 1 {
            log.repair(run_of(range(11, 11))).unwrap();
        }
        is_the_made_log(&log.reader(), Seq::new(30));
        if done {
            assert!(operation > 5, "a repair has more operations");
            break;
        }
    }
}

/// A log of 30 entries of which one is destroyed while it is open, with a repair of that begun.
fn repairing(fs: &FaultyFs, seq: u64) -> DiskLog {
    let mut log = open_at(fs, &Events::default()).log;
    let (path, bit) = payload_bit(fs, seq);
    fs.flip(&path, bit);
    assert_eq!(nothing_wrong_is_served(&log), 1);
    log.begin_repair(run_of(range(1, 30))).unwrap();
    assert_eq!(log.damage(), [range(seq, seq)]);
    log
}

#[test]
fn a_log_is_appended_to_and_read_while_a_segment_is_written_anew() {
    // The last one lies in the segment that is written to.
    for seq in [2, 11, 29, 30] {
        let fs = made(30, true);
        let mut log = repairing(&fs, seq);
        append(&mut log, 5, 2);
        assert_eq!(log.sync_now(), Seq::new(35));
        assert_eq!(log.take_repaired(), None);
        log.work();
        // It is under its name, and readers do not take it for the file that they know.
        append(&mut log, 5, 2);
        assert_eq!(nothing_wrong_is_served(&log), 1, "entry {seq}");
        log.scrub(1 << 20);
        assert_eq!(log.damage(), [range(seq, seq)]);
        assert!(log.is_repairing());
        assert_eq!(log.take_repaired(), Some((range(1, 30), Ok(()))));
        assert!(!log.is_repairing());
        assert_eq!(log.damage(), []);
        is_the_made_log(&log.reader(), Seq::new(40));
        let aside = log.aside_files();
        log.sync_now();
        drop(log);
        fs.crash();
        let opened = open_at(&fs, &Events::default());
        assert_eq!(opened.recovery.damage, []);
        is_the_made_log(&opened.log.reader(), Seq::new(40));
        assert_eq!((opened.log.aside_files(), aside), (1, 1), "no number is given twice");
    }
}

#[test]
fn a_crash_of_a_repair_beside_which_entries_were_appended_loses_none() {
    for (seq, operation) in [11, 30].into_iter().flat_map(|seq| (1..25).map(move |at| (seq, at))) {
        let fs = made(30, true);
        fs.reseed(operation);
        let mut log = repairing(&fs, seq);
        append(&mut log, 5, 2);
        let synced = log.sync_now();
        fs.crash_at(operation);
        log.work();
        drop(log);
        fs.crash();
        let mut log = open_at(&fs, &Events::default()).log;
        assert!(log.bounds().last >= synced, "operation {operation}");
        let missing = nothing_wrong_is_served(&log);
        assert!(missing <= 1, "operation {operation}: {missing}");
        if missing == 1 {
            log.repair(run_of(range(seq, seq))).unwrap();
        }
        is_the_made_log(&log.reader(), Seq::new(35));
    }
}

#[test]
fn a_log_that_is_closed_or_moves_entries_aside_finishes_its_repair_first() {
    let fs = made(30, true);
    let mut log = repairing(&fs, 11);
    log.close();
    assert_eq!(log.damage(), []);
    drop(log);
    fs.kill();
    is_the_made_log(&open_at(&fs, &Events::default()).log.reader(), Seq::new(30));

    let mut log = repairing(&made(30, true), 11);
    assert_eq!(log.set_aside(Seq::new(21), "a test"), Ok(10));
    assert_eq!(log.take_repaired(), Some((range(1, 30), Ok(()))));
    is_the_made_log(&log.reader(), Seq::new(20));
}

#[test]
fn a_sector_that_cannot_be_read_is_damage_and_not_the_end() {
    let fs = made(60, true);
    let path = segments(&fs).remove(1);
    fs.lose_sector(&path, 0);
    let mut log = open_at(&fs, &Events::default()).log;
    let missing = nothing_wrong_is_served(&log);
    assert!((1..20).contains(&missing), "{missing}");
    for range in log.damage() {
        log.repair(run_of(range)).unwrap();
    }
    is_the_made_log(&log.reader(), Seq::new(60));
}

#[test]
fn a_failed_sync_is_never_answered_with_durable_and_the_next_start_trusts_no_cache() {
    for sync in 1..30 {
        let fs = FaultyFs::new(sync);
        let events = Events::default();
        let mut log = open_at(&fs, &events).log;
        fs.fail_sync_at(sync);
        let mut durable = Seq::ZERO;
        let mut failed = false;
        for _ in 0..12 {
            let bounds = log.bounds();
            let run = common_disk::run_after(bounds.last, bounds.tail, 2);
            if log.append(run).is_err() {
                failed = true;
                break;
            }
            durable = log.sync_now();
        }
        let told = events.all();
        if failed {
            let at = told.iter().position(|event| matches!(event, DiskEvent::SyncFailed(_)));
            let at = at.expect("a failed sync is told");
            assert!(told[at + 1..].is_empty(), "{told:?}");
            assert!(log.make_durable(log.bounds().last) <= durable);
            assert!(!log.has_room());
        }
        let shown = log.bounds().last;
        drop(log);
        fs.kill();
        // All is still in the page cache, and marked as written: the start must write it again.
        let log = open_at(&fs, &Events::default()).log;
        assert_eq!(log.bounds().last, shown);
        drop(log);
        fs.crash();
        let opened = open_at(&fs, &Events::default());
        assert!(opened.recovery.damage.is_empty());
        is_the_made_log(&opened.log.reader(), shown);
    }
}

#[test]
fn a_full_disk_refuses_at_once_loses_nothing_and_goes_on_when_there_is_room() {
    let mut refused = 0;
    let run_bytes = 16 << 10;
    let reserve_bytes = RESERVE_CONTROL_BYTES + RUN_DISK_EXTRA_BYTES + run_bytes;
    let options = DiskOptions { run_bytes, ..always(900) };
    let small = (0..40).map(|step| step * 512);
    for budget in small
        .clone()
        .chain(small.clone().map(|budget| RESERVE_CONTROL_BYTES + budget))
        .chain(small.map(|budget| reserve_bytes + budget))
    {
        let fs = FaultyFs::new(budget);
        fs.set_budget(Some(budget));
        let opened =
            DiskLog::open(Arc::new(fs.clone()), Path::new(DIR), options.clone(), Box::new(|_| {}));
        let Ok(Opened { mut log, .. }) = opened else {
            assert!(budget < 4096, "a directory needs no {budget} bytes");
            continue;
        };
        let context = format!("budget {budget}");
        let mut full = false;
        while log.bounds().last < Seq::new(60) {
            let room = log.has_room();
            let bounds = log.bounds();
            let run = common_disk::run_after(bounds.last, bounds.tail, 3);
            match log.append(run) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error, StoreError::Full, "{context}");
                    assert!(!room, "{context}: room was promised");
                    assert_eq!(log.bounds(), bounds, "{context}");
                    full = true;
                    break;
                }
            }
        }
        let identity = Identity { epoch: Epoch::new(5), ..Identity::default() };
        let promised = log.set_identity(identity.clone());
        if budget > RESERVE_CONTROL_BYTES + 8192 {
            assert_eq!(promised, Ok(()), "{context}: a promise always has room");
        }
        refused += u64::from(full);
        log.sync_now();
        fs.set_budget(None);
        assert!(log.has_room(), "{context}: it goes on by itself");
        append(&mut log, 6, 2);
        log.sync_now();
        let last = log.bounds().last;
        log.set_identity(identity.clone()).unwrap();
        drop(log);
        fs.crash();
        let opened = open_at(&fs, &Events::default());
        assert!(opened.recovery.damage.is_empty(), "{context}");
        assert_eq!(opened.log.identity().epoch, identity.epoch);
        is_the_made_log(&opened.log.reader(), last);
    }
    assert!(refused > 40, "only {refused} refusals");
}

fn refusal(fs: impl Fs + 'static, dir: &Path) -> String {
    let opened = DiskLog::open(Arc::new(fs), dir, options(), Box::new(|_| {}));
    match opened {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn another_nodes_directory_is_refused_with_both_names() {
    let dir = tempfile::tempdir().unwrap();
    let other = DiskOptions { node_id: "n2".parse().unwrap(), ..options() };
    drop(open(RealFs, dir.path(), other, &Events::default()));
    let said = refusal(RealFs, dir.path());
    assert!(said.contains("n2") && said.contains("n1") && said.contains("--data-dir"), "{said}");
}

#[test]
fn what_is_no_data_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "important").unwrap();
    let said = refusal(RealFs, dir.path());
    assert!(said.contains("thesis.txt"), "{said}");
    let names: Vec<_> = RealFs.list(dir.path()).unwrap();
    assert_eq!(names, ["thesis.txt"]);
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let crc = replog::checksum::crc32c;
    let fs = made(30, true);
    let path = segments(&fs).remove(1);
    let mut bytes = fs.bytes(&path).unwrap();
    bytes[8] = 7;
    let sum = crc(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&sum);
    fs.put(&path, &bytes);
    let said = refusal(fs.clone(), Path::new(DIR));
    assert!(said.contains("format 7") && said.contains("up to 1"), "{said}");

    let fs = made(5, true);
    let text = "replog 3\nsomething=else\n";
    let text = format!("{text}crc={:08x}\n", crc(text.as_bytes()));
    fs.put(Path::new("/data/meta"), text.as_bytes());
    let said = refusal(fs, Path::new(DIR));
    assert!(said.contains("format 3") && said.contains("up to 1"), "{said}");
}

#[test]
fn a_lost_promise_is_no_empty_promise() {
    let fs = made(5, true);
    fs.put(Path::new("/data/meta"), b"rubbish");
    assert!(refusal(fs.clone(), Path::new(DIR)).contains("move the directory away"));
    fs.erase(Path::new("/data/meta"));
    assert!(refusal(fs, Path::new(DIR)).contains("move the directory away"));
}

#[test]
fn a_payload_that_looks_like_records_is_never_taken_for_them() {
    // An entry whose payload is a whole segment of the same log, and which is then damaged.
    let fs = made(14, true);
    let image = fs.bytes(&segments(&fs)[1]).unwrap();
    let mut log = open_at(&fs, &Events::default()).log;
    let mut arena = bytes::BytesMut::new();
    let bounds = log.bounds();
    let mut builder = replog::store::RunBuilder::new(&mut arena, bounds.last, bounds.tail);
    builder.push(bounds.tail.epoch, 0, &image);
    builder.push(bounds.tail.epoch, 0, b"behind");
    log.append(builder.finish(&mut arena).unwrap()).unwrap();
    log.close();
    drop(log);
    fs.kill();
    let path = segments(&fs).pop().unwrap();
    let bytes = fs.bytes(&path).unwrap();
    let at = bytes.windows(image.len()).position(|window| window == image).unwrap();
    fs.flip(&path, (at as u64 - 20) * 8);
    let log = open_at(&fs, &Events::default()).log;
    let reader = log.reader();
    assert_eq!(reader.record(Seq::new(15)), None);
    assert_eq!(log.damage(), [range(15, 15)]);
    assert_eq!(reader.record(Seq::new(16)).unwrap().payload, &b"behind"[..]);
    assert!(matches!(
        DiskLog::open(Arc::new(fs), Path::new(DIR), always(900), Box::new(|_| {})),
        Err(OpenError::Locked { .. })
    ));
}
