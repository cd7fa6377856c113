//! A small log, cut at every byte and flipped at every bit, on the secondaries and on the master of a
//! whole cluster: each start comes up, nothing that was answered is missing, no wrong byte is served.
//!
//! A cluster in one process starts within a twentieth of a second, so that no place is left out.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Gateway, Process, Ready, replog, run_to_end, wait_until};

/// The header of a record, before its payload (`STORAGE.md`).
const RECORD_HEADER_BYTES: usize = 48;
const SEGMENT: &str = "00000000000000000001.log";
/// Most of a start is waiting.
const AT_ONCE: usize = 6;

/// The files of a stopped cluster: node, file, bytes.
type Files = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

struct Template {
    secondaries: usize,
    entries: u64,
    /// As every process was killed.
    killed: Files,
    /// As all of them stopped cleanly, later.
    stopped: Files,
}

impl Template {
    fn of(secondaries: usize, entries: u64) -> Template {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut running = Running::start(dir.path(), secondaries);
        let mut client = running.client("master");
        for seq in 1..=entries {
            assert_eq!(client.ok(&format!("APPEND w=all {}", payload(seq))).number("seq"), seq);
        }
        running.process.kill();
        let killed = files_of(dir.path());
        let mut running = Running::start(dir.path(), secondaries);
        running.process.signal("TERM");
        assert_eq!(running.process.wait_exit(), Some(0));
        Template { secondaries, entries, killed, stopped: files_of(dir.path()) }
    }

    fn files(&self, cleanly: bool) -> &Files {
        if cleanly { &self.stopped } else { &self.killed }
    }

    /// Where an entry lies in the segment of a node.
    fn place(&self, node: &str, cleanly: bool, seq: u64) -> Range<usize> {
        let bytes = &self.files(cleanly)[node][SEGMENT];
        let wanted = payload(seq).into_bytes();
        let at = bytes.windows(wanted.len()).rposition(|window| window == wanted);
        let at = at.unwrap_or_else(|| panic!("entry {seq} is not in the segment of {node}"));
        at - RECORD_HEADER_BYTES..at + wanted.len()
    }

    /// Starts the cluster in `dir` from these files, after `harm`, and holds what it shows against
    /// what was answered. `victims` are looked at while they are being repaired, too.
    fn survives(
        &self,
        trial: Trial<'_>,
        cleanly: bool,
        victims: &[&str],
        harm: impl Fn(&mut Files),
    ) {
        let dir = trial.dir;
        let mut files = self.files(cleanly).clone();
        harm(&mut files);
        lay_out(dir, &files);
        let running = Running::start_and(dir, self.secondaries, |running| {
            for victim in victims {
                let mut client = running.client(victim);
                for (seq, shown) in client.list("level=local").entries {
                    assert_eq!(shown, payload(seq), "{victim} served wrong bytes");
                }
                for seq in 1..=self.entries {
                    let got = client.ask(&format!("GET {seq}"));
                    let right = got.class() != "OK" || got.get("payload") == payload(seq);
                    assert!(right, "{victim} served wrong bytes: {}", got.line());
                }
            }
        });
        let mut master = running.client("master");
        let next = self.entries + 1;
        let answer = master.ok(&format!("APPEND w=all {}", payload(next)));
        assert_eq!(answer.number("seq"), next, "a number that was answered was lost");
        let digest = master.cmd(&format!("DIGEST {next}"));
        let whole: Vec<_> = (1..=next).map(|seq| (seq, payload(seq))).collect();
        for node in running.nodes() {
            let mut client = running.client(node);
            assert_eq!(client.list("level=local").entries, whole, "{node}");
            assert_eq!(client.cmd(&format!("DIGEST {next}")), digest, "{node}");
            wait_until("a repaired node", || {
                let status = client.status();
                (status.node.get("damaged") == "-" && status.node.get("mode") == "normal")
                    .then_some(())
            });
        }
        drop(running);
        // Nothing of the harm is left on disk. A process costs more than all else here, so that only
        // some are looked at: of eight bits of a byte one.
        if let Some(victim) = victims.get(trial.number % 8) {
            let mut inspect = replog(["inspect", "--quiet"]);
            inspect.arg(dir.join(victim));
            run_to_end(inspect, b"").expect_code(0);
        }
    }
}

fn payload(seq: u64) -> String {
    format!("entry {seq}")
}

/// Whatever tells a node what it has: everything but the lock and the reserve.
fn files_of(dir: &Path) -> Files {
    let mut nodes = Files::new();
    for node in fs::read_dir(dir).expect("the directories of the nodes") {
        let node = node.expect("a directory entry");
        let name = node.file_name().into_string().expect("a name of ours");
        let files = nodes.entry(name).or_default();
        for file in fs::read_dir(node.path()).expect("a directory") {
            let file = file.expect("a directory entry").path();
            let name = file.file_name().and_then(|name| name.to_str()).expect("a name of ours");
            if file.is_file() && !matches!(name, "lock" | "reserve") {
                files.insert(name.to_owned(), fs::read(&file).expect("a file"));
            }
        }
        assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), [SEGMENT, "meta"]);
    }
    nodes
}

/// Puts the files in place of those that are there. The reserve may stay: it is only room.
fn lay_out(dir: &Path, files: &Files) {
    for (node, files) in files {
        let dir = dir.join(node);
        fs::create_dir_all(&dir).expect("a directory can be made");
        for old in fs::read_dir(&dir).expect("a directory") {
            let old = old.expect("a directory entry").path();
            if old.is_dir() {
                fs::remove_dir_all(&old).expect("a directory can be removed");
            } else if !old.ends_with("reserve") {
                fs::remove_file(&old).expect("a file can be removed");
            }
        }
        for (name, bytes) in files {
            fs::write(dir.join(name), bytes).expect("a file can be written");
        }
    }
}

/// A cluster in one process, appends accepted.
struct Running {
    process: Process,
    ready: BTreeMap<String, Ready>,
}

impl Running {
    fn start(dir: &Path, secondaries: usize) -> Running {
        Running::start_and(dir, secondaries, |_| {})
    }

    /// `early` happens as soon as all nodes listen.
    fn start_and(dir: &Path, secondaries: usize, early: impl FnOnce(&Running)) -> Running {
        let mut command = replog(["dev", "--gateway-port", "0", "--wire-port", "0"]);
        command.args(["--heartbeat", "50ms", "--set", "storage.segment_size=64KiB"]);
        // Damaged nodes do not count as present, and here almost all may be.
        command.args(["--quorum", "1", "--secondaries", &secondaries.to_string()]);
        command.arg("--data-dir").arg(dir);
        let process = Process::spawn("dev", command);
        let ready = wait_until("all ready lines", || {
            let log = process.log();
            let ready: Vec<_> = log.iter().filter_map(|line| Ready::of(line)).collect();
            (ready.len() == secondaries + 1).then_some(ready)
        });
        let ready = ready.into_iter().map(|ready| (ready.id.clone(), ready)).collect();
        let running = Running { process, ready };
        early(&running);
        running.process.wait_for_log_line(&["ready cluster"]);
        running
    }

    fn nodes(&self) -> impl Iterator<Item = &str> {
        self.ready.keys().map(String::as_str)
    }

    fn client(&self, node: &str) -> Gateway {
        Gateway::connect(self.ready[node].gateway)
    }
}

/// One of many.
#[derive(Clone, Copy)]
struct Trial<'a> {
    number: usize,
    /// Its own, but for what trials before it left there.
    dir: &'a Path,
}

/// Does `act` with each number below `count`, several at a time.
fn each(count: usize, act: impl Fn(Trial<'_>) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let dir = tempfile::tempdir().expect("a temporary directory");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let named = Named(number);
                    act(Trial { number, dir: dir.path() });
                    std::mem::forget(named);
                }
            });
        }
    });
}

/// Tells which trial it was that failed.
struct Named(usize);

impl Drop for Named {
    fn drop(&mut self) {
        eprintln!("it was trial {}", self.0);
    }
}

/// Cuts the segment of `node` at `at`: the file ends there, or nothing behind was ever written.
fn cut(files: &mut Files, node: &str, at: usize, shorter: bool) {
    let files = files.get_mut(node).expect("a node of the cluster");
    let bytes = files.get_mut(SEGMENT).expect("every node has it");
    if shorter {
        bytes.truncate(at);
    } else {
        bytes[at..].fill(0);
    }
}

fn flip(files: &mut Files, node: &str, file: &str, at: usize, bit: usize) {
    let files = files.get_mut(node).expect("a node of the cluster");
    files.get_mut(file).expect("every node has it")[at] ^= 1 << bit;
}

// ---- cut ----

#[test]
fn secondaries_cut_at_any_byte_of_their_last_three_records_get_everything_back() {
    let template = Template::of(2, 4);
    let places = |cleanly| {
        let place = |seq| template.place("s1", cleanly, seq);
        (place(2).start..place(4).end).map(move |at| (cleanly, at))
    };
    let trials: Vec<_> = places(false).chain(places(true)).collect();
    assert!(trials.len() > 2 * 3 * RECORD_HEADER_BYTES);
    each(trials.len(), |trial| {
        let (cleanly, at) = trials[trial.number];
        template.survives(trial, cleanly, &["s1", "s2"], |files| {
            cut(files, "s1", at, true);
            cut(files, "s2", at, false);
        });
    });
}

#[test]
fn a_master_cut_at_any_byte_of_its_last_three_records_gets_everything_back() {
    let template = Template::of(2, 4);
    let places = |cleanly, shorter| {
        let place = |seq| template.place("master", cleanly, seq);
        (place(2).start..place(4).end).map(move |at| (cleanly, shorter, at))
    };
    let ways = [(false, false), (false, true), (true, false), (true, true)];
    let trials: Vec<_> = ways.into_iter().flat_map(|(a, b)| places(a, b)).collect();
    each(trials.len(), |trial| {
        let (cleanly, shorter, at) = trials[trial.number];
        template.survives(trial, cleanly, &["master"], |files| cut(files, "master", at, shorter));
    });
}

// ---- flipped ----

/// What of a file is flipped: a segment up to a few of the zeros that may stand behind its last entry,
/// `meta` whole.
fn flipped(template: &Template, node: &str, file: &str, cleanly: bool) -> Range<usize> {
    let length = template.files(cleanly)[node][file].len();
    match file {
        SEGMENT => 0..length.min(template.place(node, cleanly, template.entries).end + 8),
        _ => 0..length,
    }
}

/// Either way of stopping has its own half of the bits.
fn half(cleanly: bool) -> impl Fn(&usize) -> bool {
    move |number| number.is_multiple_of(2) == cleanly
}

/// Eight secondaries, and in each another bit of the same byte.
#[test]
fn each_bit_of_a_small_log_is_flipped_on_a_secondary_and_repaired_from_the_master() {
    let template = Template::of(8, 2);
    let mut trials = Vec::new();
    for file in [SEGMENT, "meta"] {
        for cleanly in [false, true] {
            let bytes = flipped(&template, "s1", file, cleanly).filter(half(cleanly));
            trials.extend(bytes.map(|at| (file, cleanly, at)));
        }
    }
    let victims = ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"];
    each(trials.len(), |trial| {
        let (file, cleanly, at) = trials[trial.number];
        template.survives(trial, cleanly, &victims, |files| {
            for (bit, victim) in victims.into_iter().enumerate() {
                flip(files, victim, file, at, bit);
            }
        });
    });
}

#[test]
fn each_bit_of_a_small_log_is_flipped_on_the_master_and_repaired_from_a_secondary() {
    let template = Template::of(1, 2);
    let mut trials = Vec::new();
    for cleanly in [false, true] {
        for at in flipped(&template, "master", SEGMENT, cleanly) {
            let bits = (0..8).filter(|bit| half(cleanly)(&(at + bit)));
            trials.extend(bits.map(|bit| (SEGMENT, cleanly, at, bit)));
        }
        // Of the text of `meta`, a bit of each byte.
        let bytes = flipped(&template, "master", "meta", cleanly).filter(half(cleanly));
        trials.extend(bytes.map(|at| ("meta", cleanly, at, at / 2 % 8)));
    }
    each(trials.len(), |trial| {
        let (file, cleanly, at, bit) = trials[trial.number];
        template
            .survives(trial, cleanly, &["master"], |files| flip(files, "master", file, at, bit));
    });
}
