//! The log on disk against a model, on a machine that fails: what was durable is never lost, and what
//! is read is never wrong.

#![allow(clippy::unwrap_used)]

mod common_disk;

use std::path::Path;

use bytes::BytesMut;
use common_disk::{Events, manual, open};
use proptest::prelude::*;
use replog::store::faulty::FaultyFs;
use replog::store::{
    DiskEvent, DiskLog, Fsync, Identity, LogStore, Opened, Run, RunBuilder, StoreError,
};
use replog::types::{Epoch, Seq};

const DIR: &str = "/data";

/// What the log must hold.
#[derive(Clone, Default)]
struct Model {
    /// Every entry, whether durable or not: no two are alike, so that nothing can come back unseen.
    entries: Vec<Vec<u8>>,
    /// So many of them are durable.
    floor: usize,
    /// Entries that were on their way out when the machine failed: they may all be back.
    leaving: Vec<Vec<u8>>,
    /// So many of all were durable then.
    floor_before: usize,
    identity: Identity,
    /// The one that was being written when the machine failed.
    next_identity: Option<Identity>,
    made: u64,
}

impl Model {
    fn payload(&mut self, size: usize) -> Vec<u8> {
        self.made += 1;
        format!("{}/", self.made).repeat(1 + size / 4).into_bytes()
    }

    fn run(&mut self, log: &DiskLog, count: usize, size: usize) -> (Run, Vec<Vec<u8>>) {
        let mut arena = BytesMut::new();
        let bounds = log.bounds();
        let mut builder = RunBuilder::new(&mut arena, bounds.last, bounds.tail);
        let payloads: Vec<_> = (0..count).map(|_| self.payload(size)).collect();
        let epoch = self.identity.epoch.max(bounds.tail.epoch).max(Epoch::new(1));
        payloads.iter().for_each(|payload| builder.push(epoch, 0, payload));
        (builder.finish(&mut arena).unwrap(), payloads)
    }

    /// `Err` once the machine is down.
    fn append(&mut self, log: &mut DiskLog, count: usize, size: usize) -> Result<(), StoreError> {
        let (run, payloads) = self.run(log, count, size);
        let done = log.append(run);
        // A write that the machine did not survive may be there.
        self.entries.extend(payloads);
        done
    }

    fn sync(&mut self, log: &DiskLog) {
        self.floor = self.floor.max(log.sync_now().number() as usize);
    }

    fn set_aside(&mut self, log: &mut DiskLog, from: u64) -> Result<(), StoreError> {
        let from = from.max(1);
        let kept = (from as usize - 1).min(self.entries.len());
        self.leaving = self.entries.split_off(kept);
        self.floor_before = self.floor;
        self.floor = self.floor.min(kept);
        let gone = log.set_aside(Seq::new(from), "a test")?;
        assert_eq!(gone, self.leaving.len() as u64);
        self.leaving.clear();
        Ok(())
    }

    fn set_identity(&mut self, log: &mut DiskLog, epoch: u64) -> Result<(), StoreError> {
        let identity = Identity { epoch: Epoch::new(epoch), ..self.identity.clone() };
        self.next_identity = Some(identity.clone());
        log.set_identity(identity.clone())?;
        self.identity = identity;
        self.next_identity = None;
        Ok(())
    }

    /// Compares an opened log, which is what holds from now on.
    fn check(&mut self, opened: &Opened, context: &str) {
        let Opened { log, recovery } = opened;
        assert_eq!(recovery.damage, [], "{context}: a crash is no damage");
        let last = log.bounds().last.number() as usize;
        assert!(last >= self.floor, "{context}: {last} entries of {} durable ones", self.floor);
        if !self.leaving.is_empty() {
            let done_or_not = last <= self.entries.len() || last >= self.floor_before;
            assert!(done_or_not, "{context}: some are on their way out, some are gone");
        }
        let mut before = self.entries.clone();
        before.append(&mut self.leaving);
        let reader = log.reader();
        for (index, payload) in before.iter().enumerate().take(last) {
            let record = reader.record(Seq::new(index as u64 + 1));
            let record = record.unwrap_or_else(|| panic!("{context}: {} is unreadable", index + 1));
            assert_eq!(record.payload, *payload, "{context}: entry {}", index + 1);
        }
        assert!(last <= before.len(), "{context}: {last} entries, {} were made", before.len());
        before.truncate(last);
        self.entries = before;
        self.floor = last;
        let settled = log.identity().settled;
        let next = self.next_identity.clone().map(|next| Identity { settled, ..next });
        if next.as_ref() == Some(log.identity()) {
            self.identity = log.identity().clone();
        }
        self.next_identity = None;
        // A loss takes these two back, and entries raise the second.
        let Identity { vouches, settled, .. } = self.identity;
        let found = Identity { vouches, settled, ..log.identity().clone() };
        assert_eq!(found, self.identity, "{context}");
    }
}

/// A node's life with everything in it, up to the failure of the machine.
fn workload(model: &mut Model, fs: &FaultyFs, fsync: Fsync) -> Result<(), String> {
    let text = |error: StoreError| error.to_string();
    let open = || {
        DiskLog::open(
            std::sync::Arc::new(fs.clone()),
            Path::new(DIR),
            manual(1200, fsync),
            Box::new(|_| {}),
        )
        .map_err(|error| error.to_string())
    };
    let mut log = open()?.log;
    model.set_identity(&mut log, 1).map_err(text)?;
    for batch in 0..6 {
        model.append(&mut log, 1 + batch % 3, 90).map_err(text)?;
        if batch % 2 == 0 {
            model.sync(&log);
        }
    }
    model.set_aside(&mut log, 5).map_err(text)?;
    model.append(&mut log, 2, 400).map_err(text)?;
    model.set_identity(&mut log, 2).map_err(text)?;
    model.sync(&log);
    model.append(&mut log, 9, 60).map_err(text)?;
    model.append(&mut log, 1, 2000).map_err(text)?;
    log.close();
    drop(log);
    let mut log = open()?.log;
    model.floor = model.entries.len();
    model.append(&mut log, 3, 100).map_err(text)?;
    model.sync(&log);
    model.set_aside(&mut log, 1).map_err(text)?;
    model.append(&mut log, 3, 300).map_err(text)?;
    model.sync(&log);
    if fs.operations() == 0 { Err(String::new()) } else { Ok(()) }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_durable_and_leaves_no_damage() {
    let mut points = 0;
    for fsync in [Fsync::Always, Fsync::Never] {
        for seed in 0..6 {
            for operation in 1.. {
                let fs = FaultyFs::new(seed * 10_007 + operation);
                fs.crash_at(operation);
                let mut model = Model::default();
                let survived = workload(&mut model, &fs, fsync).is_ok();
                fs.crash();
                let context = format!("{fsync:?} seed {seed} operation {operation}");
                let mut opened =
                    open(fs.clone(), Path::new(DIR), manual(1200, fsync), &Events::default());
                model.check(&opened, &context);
                // And it goes on from there.
                model.append(&mut opened.log, 4, 100).unwrap();
                model.sync(&opened.log);
                drop(opened);
                fs.crash();
                let opened = open(fs, Path::new(DIR), manual(1200, fsync), &Events::default());
                model.check(&opened, &context);
                points += 1;
                if survived {
                    break;
                }
            }
        }
    }
    assert!(points > 600, "only {points} crash points");
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    for seed in 0..4 {
        for operation in 1.. {
            let fs = FaultyFs::new(seed);
            fs.crash_at(60);
            let mut model = Model::default();
            let _ = workload(&mut model, &fs, Fsync::Always);
            fs.crash();
            fs.reseed(seed * 1009 + operation);
            fs.crash_at(operation);
            let opened = DiskLog::open(
                std::sync::Arc::new(fs.clone()),
                Path::new(DIR),
                manual(1200, Fsync::Always),
                Box::new(|_| {}),
            );
            let opened_at_once = opened.is_ok();
            drop(opened);
            fs.crash();
            let opened = open(fs, Path::new(DIR), manual(1200, Fsync::Always), &Events::default());
            model.check(&opened, &format!("seed {seed} operation {operation} of recovery"));
            if opened_at_once {
                break;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize, usize),
    Sync,
    Identity(u64),
    SetAside(u8),
    Scrub,
    Close,
    Kill,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..6usize, 0..900usize).prop_map(|(count, size)| Step::Append(count, size)),
        4 => Just(Step::Sync),
        1 => (1..9u64).prop_map(Step::Identity),
        1 => any::<u8>().prop_map(Step::SetAside),
        1 => Just(Step::Scrub),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_behaves_like_a_list_whatever_happens_to_the_machine(
        seed in any::<u64>(),
        policy in 0..3usize,
        segment_size in prop_oneof![Just(700u64), Just(2500), Just(20_000)],
        steps in steps(),
    ) {
        let interval = Fsync::Interval(std::time::Duration::from_secs(1));
        let fsync = [Fsync::Always, interval, Fsync::Never][policy];
        let fs = FaultyFs::new(seed);
        let events = Events::default();
        let options = || manual(segment_size, fsync);
        let mut model = Model::default();
        let mut opened = open(fs.clone(), Path::new(DIR), options(), &events);
        let mut epoch = 0;
        for (index, step) in steps.into_iter().enumerate() {
            let context = format!("step {index} {step:?}");
            let log = &mut opened.log;
            match step {
                Step::Append(count, size) => model.append(log, count, size).unwrap(),
                Step::Sync => model.sync(log),
                Step::Identity(more) => {
                    epoch += more;
                    model.set_identity(log, epoch).unwrap();
                }
                Step::SetAside(part) => {
                    let from = 1 + model.entries.len() as u64 * u64::from(part) / 256;
                    model.set_aside(log, from).unwrap();
                }
                Step::Scrub => {
                    let found = log.scrub(1 << 20);
                    let whole = found.damage.is_empty() && found.notes.is_empty();
                    prop_assert!(found.done && whole, "{context}: {found:?}");
                }
                Step::Close | Step::Kill | Step::Crash => {
                    if matches!(step, Step::Close) {
                        log.close();
                        model.floor = model.entries.len();
                    }
                    drop(opened);
                    match step {
                        Step::Crash => fs.crash(),
                        _ => fs.kill(),
                    }
                    if matches!(step, Step::Kill) {
                        // The page cache outlives the process.
                        model.floor = model.entries.len();
                    }
                    opened = open(fs.clone(), Path::new(DIR), options(), &events);
                    model.check(&opened, &context);
                    prop_assert_eq!(opened.recovery.clean, matches!(step, Step::Close));
                    if matches!(step, Step::Crash) && fsync != Fsync::Always {
                        prop_assert!(opened.recovery.machine_loss_possible);
                        prop_assert!(!opened.log.identity().vouches);
                    }
                    if !matches!(step, Step::Crash) {
                        prop_assert!(!opened.recovery.machine_loss_possible);
                    }
                }
            }
        }
        let told = |event: &DiskEvent| !matches!(event, DiskEvent::Durable(_));
        prop_assert!(!events.all().iter().any(told), "{:?}", events.all());
    }
}

/// A log with segments of this size, of which one is the last: its footer lies in two sectors, the first
/// of which was written, and those behind it never had a name.
fn with_a_torn_footer(segment_size: u64) -> Option<FaultyFs> {
    let fs = FaultyFs::new(1);
    let mut log =
        open(fs.clone(), Path::new(DIR), manual(segment_size, Fsync::Always), &Events::default())
            .log;
    common_disk::append(&mut log, 60, 2);
    log.sync_now();
    drop(log);
    fs.kill();
    let paths = fs.paths().into_iter();
    let segments: Vec<_> = paths.filter(|path| path.extension().is_some()).collect();
    for (index, path) in segments.iter().enumerate().take(segments.len() - 1) {
        let mut bytes = fs.bytes(path).unwrap();
        let trailer = &bytes[bytes.len() - 16..];
        let footer = u64::from_le_bytes(trailer[..8].try_into().unwrap()) as usize;
        let sector_end = footer.next_multiple_of(512);
        if (footer + 48..bytes.len()).contains(&sector_end) {
            bytes.truncate(sector_end);
            bytes.resize(bytes.len() + 1000, 0);
            fs.put(path, &bytes);
            segments[index + 1..].iter().for_each(|path| fs.erase(path));
            return Some(fs);
        }
    }
    None
}

#[test]
fn what_is_left_of_a_torn_footer_does_not_come_back_under_what_is_appended() {
    let reopen = |fs: &FaultyFs| {
        open(fs.clone(), Path::new(DIR), manual(20_000, Fsync::Always), &Events::default())
    };
    let torn: Vec<_> = (700..2500).step_by(50).filter_map(with_a_torn_footer).collect();
    assert!(torn.len() > 5, "only {} footers lie in two sectors", torn.len());
    for (at, torn) in torn.into_iter().enumerate() {
        let mut log = reopen(&torn).log;
        let last = log.bounds().last;
        common_disk::append(&mut log, 24, 12);
        drop(log);
        for seed in 0..50 {
            let fs = torn.fork();
            fs.reseed(seed);
            fs.crash();
            let opened = reopen(&fs);
            assert_eq!(opened.recovery.damage, [], "log {at}, seed {seed}");
            assert!(opened.log.bounds().last >= last, "log {at}, seed {seed}");
            common_disk::is_the_made_log(&opened.log.reader(), opened.log.bounds().last);
        }
    }
}
