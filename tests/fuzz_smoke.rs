//! The fuzz targets on the stable compiler: everything that was ever found or is worth keeping, and
//! a fixed stretch of random inputs. `tools/fuzz` searches further.

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

use targets::TARGETS;

/// Inputs tried beside the corpus, for each target.
const MUTATIONS: usize = 20_000;

const INPUT_BYTES_MAX: usize = 4096;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// The corpus of a target, in the order of the file names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).expect("every target has a corpus");
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("the directory can be read").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a file of the corpus can be read")).collect()
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next() as u8,
            2 => input.insert(at, random.next() as u8),
            3 if at < input.len() => drop(input.drain(at..input.len().min(at + random.below(9)))),
            4 => input.truncate(at),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let until = from + random.below(other.len() - from + 1);
                input.splice(at..at, other[from..until].iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a known target");
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus.iter().for_each(|input| target(input));
    let mut random = Random(0x5eed);
    for _ in 0..MUTATIONS {
        let mut input = corpus[random.below(corpus.len())].clone();
        mutate(&mut input, &corpus, &mut random);
        // What makes it fail is worth seeing.
        if std::panic::catch_unwind(|| target(&input)).is_err() {
            panic!("{name} failed for {input:02x?}");
        }
    }
}

#[test]
fn frames_of_any_bytes_are_found_or_refused() {
    run("frames");
}

#[test]
fn bodies_of_any_bytes_are_understood_or_refused() {
    run("bodies");
}

#[test]
fn a_secondary_keeps_its_log_whatever_frames_come() {
    run("connection");
}

#[test]
fn gateway_lines_of_any_bytes_are_understood_or_refused_in_one_line() {
    run("gateway");
}

#[test]
fn a_session_comes_to_an_end_whatever_its_client_says() {
    run("session");
}

#[test]
fn configurations_of_any_bytes_are_understood_or_refused_in_one_line() {
    run("config");
}

#[test]
fn records_of_any_bytes_are_verified_or_refused() {
    run("records");
}

#[test]
fn every_target_is_run_here_and_the_corpora_stay_small() {
    let this = include_str!("fuzz_smoke.rs");
    let mut bytes = 0;
    for (name, _) in TARGETS {
        assert!(this.contains(&format!("run(\"{name}\")")), "{name} is not run");
        bytes += corpus(name).iter().map(Vec::len).sum::<usize>();
    }
    assert!(bytes < 300 << 10, "{bytes} bytes of corpora");
}
