//! Seeds that found something once. A process of its own: playing disks is switched on for all of it.

use replog_sim::plan::{Plan, play_disks};
use replog_sim::runner::Runner;

#[test]
fn seeds_that_failed_once_are_played_again() {
    let play = |seeds: &[u64]| {
        let mut runner = Runner::new();
        for &seed in seeds {
            let violation = runner.play(&Plan::draw(seed), false).outcome.violation;
            assert_eq!(violation, None, "seed {seed}");
        }
    };
    // What was told to be received was withheld by a later error, and kept all behind it from coming.
    play(&[20_000_139, 20_007_317]);
    // Runs that were cut otherwise when they came again are held back one over the other.
    play(&[30_002_700]);
    play_disks(true);
    // What was read for a secondary was sent to it though it had become unhealthy; a repair waited for
    // more than its master could send at once; three that the checks misread.
    play(&[4_001_188, 4_001_936, 4_002_536, 10_018_625, 123_932_779_226_002]);
    // A tail and a list left out what could not be read.
    play(&[80_000_919, 80_001_247, 80_001_610]);
    // A repetition met an entry that had just become unreadable, and was taken for another one.
    play(&[84_000_242]);
    play_disks(false);
}
