//! The checker is silent about good histories and calls each fault by its name.

use super::generator::{Shape, generate};
use super::*;

fn shapes() -> Vec<Shape> {
    let base = Shape::default();
    vec![
        base.clone(),
        Shape { nodes: 1, ..base.clone() },
        Shape { nodes: 5, clients: 16, ops: 2000, reads: 200, ..base.clone() },
        Shape { clients: 1, ..base.clone() },
        Shape { wipes: true, ops: 1000, ..base.clone() },
        Shape { wipes: true, healed: false, ..base.clone() },
        Shape { healed: false, ..base.clone() },
        Shape { master_wiped: true, ..base.clone() },
        Shape { master_wiped: true, wipes: true, ops: 1000, ..base.clone() },
        Shape { producers: true, ops: 1000, ..base.clone() },
        Shape { ops: 0, reads: 0, ..base },
    ]
}

#[test]
fn good_histories_of_every_shape_are_clean() {
    for shape in shapes() {
        for seed in 0..20 {
            let shape = Shape { seed, ..shape.clone() };
            let report = check(&generate(&shape));
            assert!(report.is_clean(), "{shape:?}\n{report}");
        }
    }
}

#[test]
fn a_good_history_has_every_kind_of_answer_so_that_the_mutations_mean_something() {
    let report = check(&generate(&Shape { ops: 1000, ..Shape::default() }));
    for answer in ["ok", "pending", "rejected", "unsent", "lost", "unknown"] {
        assert!(report.answers.get(answer).is_some_and(|count| *count > 0), "{answer}\n{report}");
    }
    let lossy = Shape { master_wiped: true, ..Shape::default() };
    let allowed = |seed| check(&generate(&Shape { seed, ..lossy.clone() })).losses_allowed;
    assert!((0..40).map(allowed).sum::<u64>() > 0, "no wiped master took an answered entry along");
}

/// Checks that the mutation of a good history is called exactly this, for several seeds.
#[track_caller]
fn assert_named(shape: &Shape, kind: Kind, mutate: impl Fn(&mut History)) {
    for seed in 1..=10 {
        let mut history = generate(&Shape { seed, ..shape.clone() });
        mutate(&mut history);
        let report = check(&history);
        assert_eq!(report.kinds(), [kind], "seed {seed}\n{report}");
    }
}

/// Good histories without reads: for mutations of the log, which reads would show too.
fn unread() -> Shape {
    Shape { reads: 0, ..Shape::default() }
}

/// The payload of an entry in the log, in the middle of it, whose append was answered like this.
fn placed(history: &History, wanted: impl Fn(&Op) -> bool) -> (usize, PayloadId) {
    let entries = &history.dumps[0].entries;
    let middle = entries.len() / 3;
    let fits =
        |payload: PayloadId| history.ops.iter().any(|op| op.payload == payload && wanted(op));
    let found = (middle..entries.len() - 2).find(|&index| fits(entries[index].payload));
    let index = found.expect("a good history has one");
    (index, entries[index].payload)
}

fn is_ok(op: &Op) -> bool {
    matches!(op.answer, Answer::Ok(_))
}

fn is_lost(op: &Op) -> bool {
    op.answer == Answer::Lost
}

fn op_of(history: &mut History, payload: PayloadId) -> &mut Op {
    let mut ops = history.ops.iter_mut();
    ops.find(|op| op.payload == payload).expect("every entry was sent")
}

fn everywhere(history: &mut History, change: impl Fn(&mut Vec<DumpEntry>)) {
    history.dumps.iter_mut().for_each(|dump| change(&mut dump.entries));
}

const STRANGE: PayloadId = PayloadId(42);

#[test]
fn an_answered_entry_that_is_gone_is_lost() {
    assert_named(&unread(), Kind::Lost, |history| {
        // The last entry goes, so that nothing else moves.
        let last = history.dumps[0].entries.last().expect("not empty").payload;
        let op = op_of(history, last);
        (op.need, op.completed) = (3, Some(u64::MAX));
        op.timeout = None;
        let seq = history.dumps[0].entries.len() as u64;
        op_of(history, last).answer = Answer::Ok(Placed { seq, epoch: 1, by: 0b111 });
        everywhere(history, |entries| entries.truncate(entries.len() - 1));
    });
}

#[test]
fn an_acknowledged_entry_replaced_by_another_good_one_is_lost() {
    assert_named(&unread(), Kind::Lost, |history| {
        let (at, _) = placed(history, is_ok);
        let template = history.ops[0].clone();
        let invoked = history.dumps[0].entries.iter().take(at).count() as u64;
        // An append whose answer nobody knows took its place.
        history.ops.insert(
            0,
            Op { payload: STRANGE, client: 77, answer: Answer::Lost, invoked, ..template },
        );
        history.ops[0].invoked = 0;
        history.ops[0].completed = Some(1);
        let payload = history.dumps[0].entries[at].payload;
        let sent = op_of(history, payload).invoked;
        history.ops[0].invoked = sent;
        everywhere(history, |entries| entries[at].payload = STRANGE);
    });
}

#[test]
fn an_entry_that_is_there_twice_is_a_duplicate() {
    assert_named(&unread(), Kind::Duplicate, |history| {
        let (_, payload) = placed(history, is_ok);
        everywhere(history, |entries| {
            let last = *entries.last().expect("not empty");
            entries.push(DumpEntry { seq: last.seq + 1, payload, ..last });
        });
    });
}

#[test]
fn two_payloads_under_one_number_of_a_producer_are_a_duplicate() {
    let shape = Shape { producers: true, ..unread() };
    assert_named(&shape, Kind::Duplicate, |history| {
        let last = *history.dumps[0].entries.last().expect("not empty");
        let of_producer = |op: &&Op| op.producer.is_some() && !op.is_refused();
        let in_log = history.dumps[0].entries.iter().rev();
        let newest = in_log
            .filter_map(|entry| {
                history.ops.iter().filter(of_producer).find(|op| op.payload == entry.payload)
            })
            .next()
            .expect("producers appended");
        let again = Op {
            payload: STRANGE,
            client: 77,
            invoked: u64::MAX - 1,
            completed: None,
            answer: Answer::Lost,
            ..newest.clone()
        };
        history.ops.push(again);
        everywhere(history, |entries| {
            entries.push(DumpEntry { seq: last.seq + 1, payload: STRANGE, ..last });
        });
    });
}

#[test]
fn an_entry_under_another_number_than_answered_has_moved() {
    assert_named(&unread(), Kind::Moved, |history| {
        let (_, payload) = placed(history, is_ok);
        let op = op_of(history, payload);
        // Nothing is known of when the answer came, so that no order is broken.
        op.completed = None;
        let Answer::Ok(placed) = &mut op.answer else { unreachable!("chosen so") };
        placed.seq += 1;
    });
}

#[test]
fn an_entry_under_another_epoch_than_answered_has_moved() {
    assert_named(&unread(), Kind::Moved, |history| {
        let (_, payload) = placed(history, is_ok);
        let Answer::Ok(placed) = &mut op_of(history, payload).answer else {
            unreachable!("chosen so")
        };
        placed.epoch += 1;
    });
}

#[test]
fn an_entry_before_one_that_was_answered_when_it_was_sent_is_reordered() {
    assert_named(&unread(), Kind::Reordered, |history| {
        let (at, payload) = placed(history, is_ok);
        let later = history.dumps[0].entries[at + 1].payload;
        let when = op_of(history, later).completed.unwrap_or(0).max(1_000_000);
        op_of(history, later).completed = Some(when);
        op_of(history, later).timeout = None;
        if op_of(history, later).placed().is_none() {
            let seq = at as u64 + 2;
            op_of(history, later).answer = Answer::Ok(Placed { seq, epoch: 1, by: 0b111 });
        }
        let op = op_of(history, payload);
        (op.invoked, op.completed, op.timeout) = (when + 1, Some(when + 2), None);
    });
}

#[test]
fn a_connection_whose_appends_changed_places_is_reordered() {
    assert_named(&Shape { clients: 1, ..unread() }, Kind::Reordered, |history| {
        // Both were under way at the same time: only the connection's order is broken.
        let in_log: Vec<usize> =
            (0..history.ops.len()).filter(|&index| history.ops[index].placed().is_some()).collect();
        let (one, other) = (in_log[5], in_log[6]);
        let invoked = history.ops[one].invoked;
        history.ops[other].invoked = invoked;
        history.ops.swap(one, other);
    });
}

#[test]
fn a_producer_whose_numbers_fall_is_reordered() {
    let shape = Shape { producers: true, ..unread() };
    assert_named(&shape, Kind::Reordered, |history| {
        // The numbers change places, nothing else does.
        let single = |op: &Op, all: &[Op]| {
            op.producer.as_ref().is_some_and(|producer| producer.id == 0)
                && op.placed().is_some()
                && all.iter().filter(|other| other.payload == op.payload).count() == 1
        };
        let ops: Vec<usize> =
            (0..history.ops.len()).filter(|&i| single(&history.ops[i], &history.ops)).collect();
        let (one, other) = (ops[2], ops[4]);
        let number = history.ops[one].producer.clone();
        history.ops[one].producer = history.ops[other].producer.clone();
        history.ops[other].producer = number;
    });
}

#[test]
fn a_refused_entry_in_the_log_is_resurrected() {
    assert_named(&unread(), Kind::Resurrected, |history| {
        let (_, payload) = placed(history, is_ok);
        op_of(history, payload).answer = Answer::Rejected("read-only".to_owned());
    });
}

#[test]
fn an_entry_that_was_never_sent_and_is_in_the_log_is_resurrected() {
    assert_named(&unread(), Kind::Resurrected, |history| {
        let (_, payload) = placed(history, is_lost);
        op_of(history, payload).answer = Answer::Unsent;
    });
}

#[test]
fn a_refused_entry_in_one_log_only_is_resurrected() {
    assert_named(&unread(), Kind::Resurrected, |history| {
        let refused = history.ops.iter().find(|op| op.is_refused()).expect("some are").payload;
        history.dumps[2].entries[7].payload = refused;
    });
}

#[test]
fn a_refused_entry_that_a_read_showed_is_resurrected() {
    assert_named(&Shape::default(), Kind::Resurrected, |history| {
        let refused = history.ops.iter().find(|op| op.is_refused()).expect("some are");
        let (payload, sent) = (refused.payload, refused.invoked);
        let reads = history.reads.iter_mut();
        let mut shown = reads.filter(|read| read.invoked > sent && !read.items.is_empty());
        shown.next().expect("a read with entries").items[0].payload = payload;
    });
}

#[test]
fn ok_from_fewer_nodes_than_asked_for_is_early() {
    assert_named(&unread(), Kind::EarlyOk, |history| {
        let (_, payload) = placed(history, is_ok);
        let op = op_of(history, payload);
        op.need = 3;
        let Answer::Ok(placed) = &mut op.answer else { unreachable!("chosen so") };
        placed.by = 0b011;
    });
}

#[test]
fn an_answer_without_the_master_is_early() {
    assert_named(&unread(), Kind::EarlyOk, |history| {
        let (_, payload) = placed(history, is_ok);
        let Answer::Ok(placed) = &mut op_of(history, payload).answer else {
            unreachable!("chosen so")
        };
        placed.by = 0b110;
    });
}

#[test]
fn ok_that_names_a_node_whose_log_ends_before_is_early() {
    assert_named(&Shape { healed: false, ..unread() }, Kind::EarlyOk, |history| {
        let seq = history.dumps[0].entries.len() as u64;
        let last = history.dumps[0].entries[seq as usize - 1].payload;
        let op = op_of(history, last);
        (op.completed, op.timeout, op.ack) = (Some(u64::MAX), None, Ack::Stored);
        op.answer = Answer::Ok(Placed { seq, epoch: 1, by: 0b111 });
        if let Some(dump) = history.dumps.iter_mut().find(|dump| dump.node == 1) {
            dump.entries.truncate(seq as usize - 1);
        }
        let covered = |op: &Op| op.placed().is_some_and(|placed| placed.by & 2 != 0);
        let fully = history.dumps[1].entries.len() as u64;
        // Nobody else claims more of s1 than it has.
        for op in history.ops.iter_mut().filter(|op| covered(op) && op.payload != last) {
            assert!(op.placed().is_some_and(|placed| placed.seq <= fully), "one at a time");
        }
    });
}

#[test]
fn ok_that_names_a_node_which_then_shows_less_is_early() {
    assert_named(&unread(), Kind::EarlyOk, |history| {
        let (at, payload) = placed(history, is_ok);
        let op = op_of(history, payload);
        op.ack = Ack::Stored;
        let completed = op.completed.expect("it was answered");
        let Answer::Ok(placed) = &mut op.answer else { unreachable!("chosen so") };
        placed.by |= 0b100;
        let items = history.dumps[0].entries[..at].iter();
        let items = items.map(|entry| Item { seq: entry.seq, payload: entry.payload }).collect();
        // Long after everything was sent, so that nothing is shown too soon.
        let invoked = completed.max(1 << 40);
        history.reads.push(Read {
            client: 99,
            node: 2,
            level: Level::Local,
            from: 1,
            items,
            commit: None,
            whole: true,
            invoked,
            completed: invoked + 1,
        });
    });
}

/// A read of the first `count` entries, after everything else.
fn late_read(history: &History, node: usize, level: Level, count: usize, commit: u64) -> Read {
    let entries = &history.dumps[0].entries[..count];
    let item = |entry: &DumpEntry| Item { seq: entry.seq, payload: entry.payload };
    Read {
        client: 99,
        node,
        level,
        from: 1,
        items: entries.iter().map(item).collect(),
        commit: Some(commit),
        whole: true,
        invoked: 1 << 40,
        completed: (1 << 40) + 1,
    }
}

#[test]
fn a_committed_read_beyond_the_commit_position_is_dirty() {
    assert_named(&unread(), Kind::DirtyRead, |history| {
        let count = history.dumps[0].entries.len();
        let read = late_read(history, 2, Level::Committed, count, count as u64 - 1);
        history.reads.push(read);
    });
}

#[test]
fn a_read_of_what_the_log_does_not_have_is_dirty() {
    for level in [Level::Local, Level::Committed, Level::All] {
        assert_named(&unread(), Kind::DirtyRead, |history| {
            let count = history.dumps[0].entries.len();
            let mut read = late_read(history, 1, level, count, count as u64 + 1);
            let in_log =
                |payload| history.dumps[0].entries.iter().any(|entry| entry.payload == payload);
            // Sent, answered by nobody, and in no log.
            let payload = STRANGE;
            assert!(!in_log(payload));
            history.ops.push(Op { payload, answer: Answer::Lost, ..history.ops[0].clone() });
            read.items.push(Item { seq: count as u64 + 1, payload });
            history.reads.push(read);
        });
    }
}

#[test]
fn a_committed_read_of_the_master_without_what_a_majority_was_said_to_hold_is_stale() {
    assert_named(&unread(), Kind::StaleRead, |history| {
        let read = late_read(history, 0, Level::Committed, 3, 3);
        history.reads.push(read);
    });
}

#[test]
fn reads_of_one_node_that_go_back_are_not_monotonic() {
    for (level, node) in [(Level::Local, 1), (Level::Committed, 2)] {
        assert_named(&unread(), Kind::NonMonotonicRead, |history| {
            // Nothing else says what the node should show.
            history.ops.iter_mut().for_each(|op| op.ack = Ack::Received);
            let first = late_read(history, node, level, 9, 9);
            let mut second = late_read(history, node, level, 8, 9);
            (second.invoked, second.completed) = (first.completed + 1, first.completed + 2);
            history.reads.extend([first, second]);
        });
    }
}

#[test]
fn a_commit_position_that_falls_is_not_monotonic() {
    assert_named(&unread(), Kind::NonMonotonicRead, |history| {
        let first = late_read(history, 2, Level::Local, 9, 9);
        let mut second = late_read(history, 2, Level::Local, history.dumps[0].entries.len(), 8);
        (second.invoked, second.completed) = (first.completed + 1, first.completed + 2);
        history.ops.iter_mut().for_each(|op| op.ack = Ack::Received);
        history.reads.extend([first, second]);
    });
}

#[test]
fn a_node_may_know_of_a_commit_position_beyond_its_own_log() {
    let mut history = generate(&unread());
    history.ops.iter_mut().for_each(|op| op.ack = Ack::Received);
    let first = late_read(&history, 2, Level::Local, 5, 9);
    let mut second = late_read(&history, 2, Level::Committed, 5, 9);
    (second.invoked, second.completed) = (first.completed + 1, first.completed + 2);
    history.reads.extend([first, second]);
    let report = check(&history);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_node_that_lost_its_log_may_show_less() {
    let mut history = generate(&unread());
    let first = late_read(&history, 2, Level::Local, 9, 9);
    let at = first.completed + 1;
    let mut second = late_read(&history, 2, Level::Local, 0, 0);
    (second.invoked, second.completed) = (at + 1, at + 2);
    history.ops.iter_mut().for_each(|op| op.ack = Ack::Received);
    history.reads.extend([first, second]);
    assert_eq!(check(&history).kinds(), [Kind::NonMonotonicRead]);
    history.events.push(Event { node: 2, at, what: What::Lost { kept: 0 } });
    let report = check(&history);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_read_that_leaves_a_number_out_has_a_hole() {
    assert_named(&unread(), Kind::Hole, |history| {
        let count = history.dumps[0].entries.len();
        let mut read = late_read(history, 2, Level::Local, count, 0);
        read.commit = None;
        read.items.remove(4);
        history.reads.push(read);
    });
}

#[test]
fn a_log_that_leaves_a_number_out_has_a_hole() {
    assert_named(&unread(), Kind::Hole, |history| {
        let (at, _) = placed(history, is_lost);
        everywhere(history, |entries| {
            entries.remove(at);
        });
    });
}

#[test]
fn a_log_whose_epochs_fall_is_named() {
    assert_named(&unread(), Kind::EpochFell, |history| {
        let (at, _) = placed(history, is_lost);
        everywhere(history, |entries| entries[at].epoch = 0);
    });
}

#[test]
fn a_node_with_other_entries_violates_the_prefix() {
    assert_named(&unread(), Kind::PrefixViolation, |history| {
        let entries = &mut history.dumps[2].entries;
        let (one, other) = (entries[5].payload, entries[6].payload);
        (entries[5].payload, entries[6].payload) = (other, one);
    });
}

#[test]
fn a_node_with_an_entry_of_another_epoch_violates_the_prefix() {
    assert_named(&unread(), Kind::PrefixViolation, |history| {
        history.dumps[1].entries[5].epoch = 0;
    });
}

#[test]
fn a_healed_node_that_lacks_the_end_has_not_converged() {
    assert_named(&unread(), Kind::NotConverged, |history| {
        // No answer says that it had them.
        history.ops.iter_mut().for_each(|op| op.ack = Ack::Received);
        let entries = &mut history.dumps[1].entries;
        entries.truncate(entries.len() - 3);
    });
}

#[test]
fn an_entry_that_nobody_sent_is_a_phantom() {
    assert_named(&unread(), Kind::Phantom, |history| {
        everywhere(history, |entries| {
            let last = *entries.last().expect("not empty");
            entries.push(DumpEntry { seq: last.seq + 1, payload: STRANGE, ..last });
        });
    });
}

#[test]
fn an_entry_shown_before_it_was_sent_is_a_phantom() {
    assert_named(&unread(), Kind::Phantom, |history| {
        let first = history.dumps[0].entries[0].payload;
        let op = op_of(history, first);
        op.invoked = op.invoked.max(1);
        let sent = op.invoked;
        let mut read = late_read(history, 2, Level::Local, 1, 1);
        (read.invoked, read.completed) = (0, sent - 1);
        history.reads.push(read);
    });
}

#[test]
fn an_answered_entry_with_other_bytes_is_corrupt() {
    assert_named(&unread(), Kind::Corrupt, |history| {
        let (at, _) = placed(history, is_ok);
        everywhere(history, |entries| entries[at].payload = STRANGE);
    });
}

#[test]
fn other_bytes_on_one_node_are_corrupt() {
    assert_named(&unread(), Kind::Corrupt, |history| {
        let (at, _) = placed(history, is_ok);
        history.dumps[2].entries[at].payload = STRANGE;
    });
}

#[test]
fn other_bytes_in_a_read_are_corrupt() {
    assert_named(&Shape::default(), Kind::Corrupt, |history| {
        let mut reads = history.reads.iter_mut();
        let read = reads.find(|read| read.items.len() > 2).expect("a read with entries");
        read.items[1].payload = STRANGE;
    });
}

#[test]
fn an_append_without_an_answer_is_named_when_answers_are_due() {
    assert_named(&unread(), Kind::Unanswered, |history| {
        let (_, payload) = placed(history, is_lost);
        let op = op_of(history, payload);
        (op.answer, op.completed, op.timeout) = (Answer::Missing, None, None);
    });
}

#[test]
fn an_answer_after_its_timeout_and_the_slack_is_late_unless_the_master_stalled() {
    let late = |history: &mut History| {
        let (_, payload) = placed(history, is_ok);
        let op = op_of(history, payload);
        op.timeout = Some(10);
        op.completed = Some(op.invoked + 10 + 1_000_001);
    };
    assert_named(&unread(), Kind::Late, late);
    let mut history = generate(&unread());
    late(&mut history);
    history.events.push(Event { node: 0, at: 0, what: What::Stalled { until: 1 << 40 } });
    let report = check(&history);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn two_appends_with_one_payload_are_unusable_unless_a_producer_sent_it_again() {
    assert_named(&unread(), Kind::Unusable, |history| {
        let again = history.ops.iter().find(|op| op.answer == Answer::Lost).cloned();
        history.ops.push(again.expect("some are lost"));
    });
}

#[test]
fn an_entry_gone_with_every_node_that_held_it_is_allowed_and_with_fewer_it_is_lost() {
    let mut history = generate(&unread());
    let seq = history.dumps[0].entries.len() as u64;
    let last = history.dumps[0].entries[seq as usize - 1].payload;
    let op = op_of(&mut history, last);
    (op.completed, op.timeout) = (Some(op.invoked + 1), None);
    op.answer = Answer::Ok(Placed { seq, epoch: 1, by: 0b011 });
    op.need = 2;
    let at = op.invoked + 2;
    everywhere(&mut history, |entries| entries.truncate(entries.len() - 1));
    history.events.push(Event { node: 0, at, what: What::Lost { kept: 0 } });
    assert_eq!(check(&history).kinds(), [Kind::Lost]);
    history.events.push(Event { node: 1, at, what: What::Lost { kept: seq - 1 } });
    let report = check(&history);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.losses_allowed, 1);
}

#[test]
fn a_history_is_the_same_after_it_was_written_and_read() {
    for shape in shapes() {
        let history = generate(&shape);
        let mut bytes = Vec::new();
        let mut writer = HistoryWriter::new(&mut bytes);
        writer.remember("c1-1");
        writer.write(&history).expect("memory takes it");
        let text = String::from_utf8(bytes).expect("JSON is text");
        assert!(shape.ops == 0 || text.contains("\"c1-1\"") || shape.clients == 1);
        assert!(read_lines(text.as_bytes()).expect("our own lines") == history, "{shape:?}");
        // The roster may come last.
        let mut lines: Vec<&str> = text.lines().collect();
        let first = lines.remove(0);
        lines.push(first);
        let turned = lines.join("\n");
        assert!(read_lines(turned.as_bytes()).expect("any order") == history, "{shape:?}");
    }
}

#[test]
fn lines_that_are_not_of_the_form_are_refused_with_their_number() {
    let cluster = r#"{"type":"cluster","nodes":["master"]}"#;
    for bad in [
        "nonsense",
        "{}",
        r#"{"type":"op"}"#,
        r#"{"type":"cluster","nodes":["master"]}"#,
        r#"{"type":"event","node":"s9","at":1,"what":"restarted"}"#,
        r#"{"type":"event","node":"master","at":1,"what":"lost"}"#,
        r##"{"type":"dump","node":"master","entries":[[1,1,"#12"]]}"##,
        r#"{"type":"op","client":1,"payload":"x","invoked":1,"need":1,"answer":"ok"}"#,
        r#"{"type":"op","client":1,"payload":"x","invoked":1,"need":1,"answer":"lost","odd":1}"#,
    ] {
        let text = format!("{cluster}\n\n{bad}\n");
        let error = read_lines(text.as_bytes()).expect_err(bad).to_string();
        assert!(error.starts_with("line 3: "), "{bad}: {error}");
    }
    assert!(read_lines(&b""[..]).is_err(), "a history has a cluster line");
}

#[test]
fn a_million_appends_are_checked() {
    // Without optimization a fifth of that is long enough to show a pass that is not linear.
    let ops = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
    let op = |index: u64| Op {
        client: index % 16,
        payload: PayloadId(index + 1),
        invoked: index,
        completed: Some(index + 40),
        need: 2,
        ack: Ack::Stored,
        timeout: None,
        producer: None,
        atomic: false,
        answer: Answer::Ok(Placed { seq: index + 1, epoch: 1, by: 0b011 }),
    };
    let entry = |index: u64| DumpEntry { seq: index + 1, epoch: 1, payload: PayloadId(index + 1) };
    let dump = |node| Dump { node, entries: (0..ops).map(entry).collect() };
    let nodes = ["master", "s1", "s2"].map(str::to_owned).to_vec();
    let history = History {
        cluster: Cluster { nodes, end: ops + 40, slack: Some(0), healed: true },
        ops: (0..ops).map(op).collect(),
        dumps: (0..3).map(dump).collect(),
        ..History::default()
    };
    let report = check(&history);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.max_seq, ops);
}

#[test]
fn findings_are_all_counted_and_only_the_first_are_described() {
    let mut history = generate(&unread());
    everywhere(&mut history, Vec::clear);
    let report = check(&history);
    let answered = report.answers["ok"] + report.answers["pending"];
    assert!(answered > 100, "{report}");
    assert_eq!(report.counts[&Kind::Lost], answered);
    assert_eq!(report.findings.len(), 20);
    assert!(report.to_string().ends_with(&format!("NOT CLEAN: lost {answered}\n")), "{report}");
}
