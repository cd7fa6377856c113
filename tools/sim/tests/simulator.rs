//! The simulator itself: the same seed is the same run, good code violates nothing, and what it says of
//! a failure can be read and repeated.

use replog_sim::plan::{Action, Concern, Fault, Plan, PlannedFault, Timeout};
use replog_sim::report::failure;
use replog_sim::runner::Runner;
use replog_sim::world::Violation;

/// Seeds that are played in every test run. Those that once found something come first.
const FIXED: [u64; 14] = [
    12302, 14011, 15570, 28210, 231, 956, // See the list in the README of this tool.
    1, 2, 3, 4, 5, 6, 7, 8,
];

#[test]
fn the_same_seed_is_the_same_run() {
    let mut runner = Runner::new();
    for seed in [1, 7, 42] {
        let plan = Plan::draw(seed);
        assert_eq!(plan, Plan::draw(seed), "a plan is drawn from its seed alone");
        let (first, second) = (runner.play(&plan, true), runner.play(&plan, true));
        assert_eq!(first.lines, second.lines, "seed {seed}");
        assert_eq!(first.outcome.hash, second.outcome.hash, "seed {seed}");
        let silent = runner.play(&plan, false);
        assert_eq!(silent.outcome.hash, first.outcome.hash, "looking on changes nothing");
    }
    let hash = |seed| Runner::new().play(&Plan::draw(seed), false).outcome.hash;
    assert_ne!(hash(1), hash(2), "another seed is another run");
}

#[test]
fn fixed_seeds_violate_nothing() {
    let mut runner = Runner::new();
    let mut appended = 0;
    for seed in FIXED {
        let played = runner.play(&Plan::draw(seed), false);
        assert_eq!(played.outcome.violation, None, "replay it: replog-sim replay {seed} --trace");
        appended += played.outcome.stats.appended;
    }
    assert!(appended > 1000, "runs in which nothing is appended prove nothing: {appended}");
}

/// Three nodes, one append that wants all of them, and a cut that keeps one away for a while.
fn small_plan() -> Plan {
    let mut plan = Plan::draw(3);
    plan.setup.nodes = 3;
    plan.setup.quorum = 2;
    plan.setup.clients = 1;
    plan.setup.active_us = 5_000_000;
    plan.setup.liveness = true;
    let what = Action::Append {
        count: 1,
        size: 10,
        concern: Concern::All,
        received: Some(false),
        timeout: Timeout::Ms(100),
    };
    plan.operations = vec![replog_sim::plan::Operation { at: 3_500_000, client: 0, what }];
    let what = Fault::Cut { node: 2, to_it: true, from_it: true };
    plan.faults = vec![PlannedFault { at: 3_000_000, lasts: 1_500_000, what }];
    plan
}

#[test]
fn a_node_that_was_cut_off_holds_everything_in_the_end() {
    let played = Runner::new().play(&small_plan(), true);
    assert_eq!(played.outcome.violation, None);
    let stats = &played.outcome.stats;
    assert_eq!(
        (stats.appended, stats.pending),
        (1, 1),
        "its time was over while a node was cut off"
    );
    // The wait that the simulator itself adds at the end.
    assert_eq!(stats.ok, 1, "the entry got to all nodes without anybody's help");
    assert!(played.lines.iter().any(|line| line.contains("FAULT") && line.contains("Cut")));
}

#[test]
fn a_plan_survives_being_written_and_read() {
    let plan = Plan::draw(11);
    let text = serde_json::to_string(&plan).expect("a plan is plain data");
    let read: Plan = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(read, plan);
    let mut runner = Runner::new();
    let hash = |runner: &mut Runner, plan| runner.play(plan, false).outcome.hash;
    assert_eq!(hash(&mut runner, &plan), hash(&mut runner, &read));
}

#[test]
fn a_failure_names_rule_seed_and_command_and_shows_the_trace() {
    let plan = small_plan();
    let played = Runner::new().play(&plan, true);
    let violation = Violation { rule: "numbers are dense".into(), seen: "2 after 4".into() };
    let text = failure(&plan, &violation, &played, "replog-sim replay 3");
    for part in
        ["seed 3", "numbers are dense", "2 after 4", "replog-sim replay 3", "3 nodes, quorum 2"]
    {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let numbered = text.lines().find(|line| line.contains("numbers") && line.contains("r0: 1"));
    assert!(numbered.is_some_and(|line| line.trim_start().starts_with("3.5")), "{text}");
}
