//! Prints what the log on disk does on this machine: appends with fdatasync, opening, reading cold.
//!
//! `cargo run --release --example disk_figures -- DIR [MiB [bytes of a payload]]`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use replog::store::fs::RealFs;
use replog::store::{DiskEvent, DiskLog, DiskOptions, LogStore, RunBuilder};
use replog::types::{Epoch, Seq, SeqRange};

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("a directory is named");
    let mebibytes: u64 = args.next().map_or(1024, |text| text.parse().expect("a number of MiB"));
    let payload_bytes = args.next().map_or(100, |text| text.parse().expect("a number of bytes"));
    let dir = Path::new(&dir);
    let durable = Arc::new(AtomicU64::new(0));
    let options = || DiskOptions::new("n1".parse().expect("a name"));
    let open = || {
        let durable = durable.clone();
        let notify = move |event| match event {
            DiskEvent::Durable(seq) => durable.store(seq.number(), Ordering::Release),
            other => panic!("{other:?}"),
        };
        DiskLog::open(Arc::new(RealFs), dir, options(), Box::new(notify)).expect("it opens")
    };
    let per_second =
        |begun: Instant, bytes: u64| bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();

    let mut log = open().log;
    let mut arena = BytesMut::new();
    let payload = vec![b'x'; payload_bytes];
    let waiting_max = (16 << 20) / (payload_bytes as u64 + 48);
    let begun = Instant::now();
    let mut appending = std::time::Duration::ZERO;
    while log.bounds().bytes < mebibytes << 20 {
        let bounds = log.bounds();
        let mut builder = RunBuilder::new(&mut arena, bounds.last, bounds.tail);
        while builder.len_bytes() < 1 << 20 {
            builder.push(Epoch::new(1), 0, &payload);
        }
        let run = builder.finish(&mut arena).expect("entries were pushed");
        let last = run.range().last();
        let at = Instant::now();
        log.append(run).expect("there is room");
        log.make_durable(last);
        appending += at.elapsed();
        // No more than 16 MiB wait for the disk.
        while log.bounds().last.distance_from(Seq::new(durable.load(Ordering::Acquire)))
            > waiting_max
        {
            std::thread::yield_now();
        }
    }
    let last = log.bounds().last;
    while durable.load(Ordering::Acquire) < last.number() {
        std::thread::yield_now();
    }
    let bytes = log.bounds().bytes;
    let stats = log.sync_stats();
    println!(
        "append, always, runs of 1 MiB: {:.0} MB/s, {:.2} M entries/s; {} syncs, mean {:.2} ms; append() {:.0} MB/s",
        per_second(begun, bytes),
        last.number() as f64 / 1e6 / begun.elapsed().as_secs_f64(),
        stats.count,
        stats.total.as_secs_f64() * 1e3 / stats.count as f64,
        bytes as f64 / 1e6 / appending.as_secs_f64(),
    );
    let begun = Instant::now();
    let synced = log.sync_stats();
    let mut next = last;
    for _ in 0..2000 {
        let bounds = log.bounds();
        let mut builder = RunBuilder::new(&mut arena, bounds.last, bounds.tail);
        builder.push(Epoch::new(1), 0, &payload);
        log.append(builder.finish(&mut arena).expect("one entry")).expect("there is room");
        next = next.next();
        log.make_durable(next);
        while durable.load(Ordering::Acquire) < next.number() {
            std::hint::spin_loop();
        }
    }
    let syncs = log.sync_stats();
    println!(
        "append, always, one at a time: {:.0} us, of which fdatasync {:.0} us",
        begun.elapsed().as_secs_f64() * 1e6 / 2000.0,
        (syncs.total - synced.total).as_secs_f64() * 1e6 / (syncs.count - synced.count) as f64
    );
    println!("memory with the newest entries cached: {}", resident());

    drop(log);
    let begun = Instant::now();
    let opened = open();
    println!(
        "open after a kill: {:.3} s for {:.2} GB in {} segments",
        begun.elapsed().as_secs_f64(),
        bytes as f64 / 1e9,
        opened.log.segment_count()
    );
    let mut log = opened.log;
    println!("memory after opening: {}", resident());
    for name in ["first, index cold", "second, index warm"] {
        let reader = log.reader();
        let begun = Instant::now();
        let mut next = Seq::FIRST;
        let mut read = 0;
        while next <= last {
            let slice = reader.read(SeqRange::inclusive(next, last), 256 << 10);
            next = slice.range.expect("it can be read").end;
            read += slice.bytes as u64;
        }
        println!("catch-up read in 256 KiB, {name}: {:.0} MB/s", per_second(begun, read));
    }
    let begun = Instant::now();
    while !log.scrub(4 << 20).done {}
    println!("scrub: {:.0} MB/s", per_second(begun, bytes));
    log.close();
    drop(log);
    let begun = Instant::now();
    drop(open());
    println!("open after a clean stop: {:.3} s", begun.elapsed().as_secs_f64());
}

/// The memory of this process, as the system tells it.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or("unknown").trim().to_owned()
}
