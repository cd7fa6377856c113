//! What the tests of the log on disk share: a log whose every entry can be told from its number.
// Each test file uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use replog::store::fs::Fs;
use replog::store::record::take_record;
use replog::store::{
    DiskEvent, DiskLog, DiskOptions, Fsync, LogReader, LogStore, Opened, Run, RunBuilder,
};
use replog::types::{Epoch, PrefixId, Seq, SeqRange};

/// What the disk told.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<(Mutex<Vec<DiskEvent>>, Condvar)>);

impl Events {
    pub(crate) fn notify(&self) -> Box<dyn Fn(DiskEvent) + Send + Sync> {
        let events = self.0.clone();
        Box::new(move |event| {
            events.0.lock().unwrap().push(event);
            events.1.notify_all();
        })
    }

    pub(crate) fn all(&self) -> Vec<DiskEvent> {
        self.0.0.lock().unwrap().clone()
    }

    pub(crate) fn wait_for(&self, event: &DiskEvent) {
        let seen = self.0.0.lock().unwrap();
        let wait = |events: &mut Vec<DiskEvent>| !events.contains(event);
        let (seen, out) = self.0.1.wait_timeout_while(seen, Duration::from_secs(30), wait).unwrap();
        assert!(!out.timed_out(), "{event:?} did not come, but {seen:?}");
    }
}

/// Small segments, so that each test has several.
pub(crate) fn options() -> DiskOptions {
    options_with(4096, Fsync::Always)
}

pub(crate) fn options_with(segment_size: u64, fsync: Fsync) -> DiskOptions {
    DiskOptions { segment_size, fsync, ..DiskOptions::new("n1".parse().unwrap()) }
}

/// No thread, and next to nothing in memory: every read comes from disk.
pub(crate) fn manual(segment_size: u64, fsync: Fsync) -> DiskOptions {
    DiskOptions { manual_sync: true, cache_bytes: 0, ..options_with(segment_size, fsync) }
}

pub(crate) fn open(
    fs: impl Fs + 'static,
    dir: &Path,
    options: DiskOptions,
    events: &Events,
) -> Opened {
    DiskLog::open(Arc::new(fs), dir, options, events.notify())
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn payload(seq: u64) -> Vec<u8> {
    format!("{seq}:").repeat(1 + (seq % 30) as usize).into_bytes()
}

/// The epoch of an entry: a new one begins every 40.
pub(crate) fn epoch(seq: u64) -> Epoch {
    Epoch::new(1 + seq / 40)
}

/// A run of entries that follow `last`.
pub(crate) fn run_after(last: Seq, before: PrefixId, count: u64) -> Run {
    let mut arena = BytesMut::new();
    let mut builder = RunBuilder::new(&mut arena, last, before);
    for seq in last.number() + 1..=last.number() + count {
        builder.push(epoch(seq), seq, &payload(seq));
    }
    builder.finish(&mut arena).expect("at least one entry")
}

/// Appends the entries that follow, in runs of `batch`.
pub(crate) fn append(log: &mut DiskLog, count: u64, batch: u64) {
    let mut left = count;
    while left > 0 {
        let run = run_after(log.bounds().last, log.bounds().tail, left.min(batch));
        left -= run.range().len();
        log.append(run).unwrap();
    }
}

/// The entries of `range` as a peer would send them.
pub(crate) fn run_of(range: SeqRange) -> Run {
    let whole = run_after(Seq::ZERO, PrefixId::EMPTY, range.last().number());
    whole.split_from(range.first).expect("the range is not empty")
}

/// Reads everything up to `last` and compares it with what was made.
pub(crate) fn is_the_made_log(reader: &LogReader, last: Seq) {
    assert_eq!(reader.bounds().last, last);
    let mut next = Seq::FIRST;
    while next <= last {
        let slice = reader.read(SeqRange::inclusive(next, last), 3000);
        let range = slice.range.unwrap_or_else(|| panic!("entry {next} cannot be read"));
        assert_eq!(range.first, next);
        is_made(slice.pieces.concat().into(), range);
        next = range.end;
    }
    let made = run_after(Seq::ZERO, PrefixId::EMPTY, last.number().max(1));
    if last > Seq::ZERO {
        assert_eq!(reader.prefix_id(last), Some(made.tail()));
        assert_eq!(reader.record(last).unwrap().payload, payload(last.number()));
    }
    let epochs: Vec<_> = (1..=last.number())
        .filter(|&seq| seq == 1 || epoch(seq) != epoch(seq - 1))
        .map(|seq| (epoch(seq), Seq::new(seq)))
        .collect();
    assert_eq!(reader.epoch_table(), epochs);
}

/// Whether `bytes` are exactly the made entries of `range`.
pub(crate) fn is_made(mut bytes: Bytes, range: SeqRange) {
    for seq in range.first.number()..range.end.number() {
        let record = take_record(&mut bytes).expect("a whole record");
        assert_eq!((record.seq, record.epoch), (Seq::new(seq), epoch(seq)));
        assert_eq!(record.payload, payload(seq), "entry {seq}");
    }
    assert!(bytes.is_empty());
}
