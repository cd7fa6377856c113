//! What must hold after each turn of a node.

use replog::engine::{Mode, Reign};
use replog::limits::{HOLD_BACK_BYTES_MAX, HOLD_BACK_RUNS_MAX};
use replog::node::Storage as _;
use replog::store::Run;
use replog::types::{Seq, SeqRange, majority};

use super::super::World;
use crate::sometimes::Sometimes;

impl World {
    pub(in crate::world) fn check_secondary(&mut self, node: usize) {
        let own = &self.secondaries[node - 1];
        let written = own.engine().written();
        let log = own.store().log().reader();
        let (bounds, stored) = (log.bounds(), own.engine().stored());
        let (held_runs, held_bytes) =
            (own.node.held().len(), own.node.held().values().map(Run::len_bytes).sum::<usize>());
        let levels = own.engine().levels().clone();
        let (life, commit, compared) = self.memory.known[node];
        let now_life = self.hosts[node].life;
        let (commit, compared) =
            if life == now_life { (commit, compared) } else { (Seq::ZERO, Seq::ZERO) };
        if bounds.last != written || stored > own.store().stored.min(own.store().proved()) {
            self.fail(
                "positions are those of the log",
                format!("n{node}: {written}, {stored} and {bounds:?}"),
            );
        }
        if levels.commit < commit {
            self.fail(
                "commit never falls while a node runs",
                format!("n{node}: {commit} to {}", levels.commit),
            );
        }
        if levels.commit > self.memory.committed() && !self.excused {
            self.fail(
                "no node knows a higher commit than the master",
                format!("n{node}: {}", levels.commit),
            );
        }
        let high = levels.held_by.iter().zip(&self.memory.held_by_max).position(|(a, b)| a > b);
        if let Some(at) = high {
            let (told, max) = (levels.held_by[at], self.memory.held_by_max[at]);
            self.fail(
                "no level is told higher than it ever was",
                format!("n{node}: C({})={told}, max {max}", at + 1),
            );
        }
        if held_runs > HOLD_BACK_RUNS_MAX || held_bytes > HOLD_BACK_BYTES_MAX {
            self.fail(
                "what is held back is bounded",
                format!("n{node}: {held_runs} runs, {held_bytes} bytes"),
            );
        }
        let own = &self.secondaries[node - 1];
        let (kept, known) = (own.node.held(), own.engine().held());
        let covers = |range: SeqRange| {
            let covering = kept.values().map(|run| run.range().intersection(range).len());
            covering.sum::<u64>() >= range.len()
        };
        if kept.is_empty() != known.is_empty() || !known.iter().all(covers) {
            self.fail("what is held back is there", format!("n{node}: {known:?}"));
        }
        let engine = self.secondaries[node - 1].engine();
        let master = self.master.engine();
        let follows = self.hosts[0].up
            && master.reign() == Reign::Leading
            && (engine.epoch(), engine.run_id()) == (master.epoch(), master.run_id())
            && !engine.is_damaged()
            && !self.is_hurt(0)
            && !self.is_hurt(node);
        if written > compared && follows {
            let ours = self.master.store().log().reader().prefix_id(written);
            if ours != Some(bounds.tail) {
                self.fail(
                    "a secondary's log is a prefix of the master's",
                    format!("n{node} at {written}"),
                );
            }
        }
        let aside = self.secondaries[node - 1].aside.take();
        if written < compared && aside.is_none_or(|from| written < from.previous()) {
            self.fail("a log never becomes shorter", format!("n{node}: {compared} to {written}"));
        }
        let must = self.memory.must_hold[node].min(self.memory.committed());
        let engine = self.secondaries[node - 1].engine();
        // What flipped bits have lost at the end of a log it cannot know.
        let flipped = self.disks[node].as_ref().is_some_and(|disk| disk.flips > 0);
        if engine.vouches() && engine.stored() < must && !self.excused && !flipped {
            let stored = engine.stored();
            self.fail(
                "who lost what was committed does not vouch",
                format!("n{node}: {stored} of {must}"),
            );
        }
        let epoch = self.secondaries[node - 1].engine().epoch();
        let (of, promised) = std::mem::replace(&mut self.memory.promised[node], (now_life, epoch));
        if of == now_life && epoch < promised {
            self.fail("a promise never falls", format!("n{node}: {promised} to {epoch}"));
        }
        let own = &self.secondaries[node - 1];
        if let Some(sticks) = own
            .engine()
            .held()
            .iter()
            .next()
            .filter(|range| range.first <= written.next() && !own.dropped)
        {
            self.fail(
                "what continues the log is not held back",
                format!("n{node}: {sticks} behind {written}"),
            );
        }
        self.memory.known[node] = (now_life, levels.commit, written);
    }

    pub(in crate::world) fn check_master(&mut self) {
        self.memory.turns += 1;
        let engine = self.master.engine();
        let levels = engine.levels().clone();
        if levels.commit < self.memory.commit {
            self.fail(
                "commit never falls while a node runs",
                format!("n0: {} to {}", self.memory.commit, levels.commit),
            );
        }
        let grown = levels.commit > self.memory.committed();
        if levels.held_by != self.memory.held_by || levels.commit != self.memory.commit || grown {
            self.check_levels(&levels.held_by, levels.commit);
        }
        self.memory.ended.clear();
        let (told, proved) =
            (self.master.engine().levels().held_by(1), self.master.store().proved());
        if told > proved {
            self.fail("positions are those of the log", format!("n0: {told} of {proved}"));
        }
        let engine = self.master.engine();
        let quorum = self.plan.setup.quorum;
        let mode = engine.mode();
        // Counted anew: the master, and who was accepted and is not unhealthy.
        let counts = |progress: &&replog::engine::progress::Progress| {
            progress.accepted && progress.health.health() != replog::engine::Health::Unhealthy
        };
        let present = 1 + engine.secondaries().iter().filter(counts).count();
        let told = engine.present();
        if told != present {
            self.fail(
                "present: the master and who is accepted and not unhealthy",
                format!("{told} for {present}"),
            );
        }
        if mode == Mode::Normal && present < quorum && !self.master.deposed {
            self.fail(
                "appends are accepted only with a quorum",
                format!("{present} present of {quorum}"),
            );
        }
        if mode == Mode::ReadOnly && present >= quorum {
            self.fail("read-only ends with a quorum", format!("{present} present of {quorum}"));
        }
        if self.unknown_answers > 0 && !self.master.deposed {
            self.fail(
                "UNKNOWN means that the reign is over",
                format!("{} answers", self.unknown_answers),
            );
        }
        let window = self.plan.setup.window_bytes;
        let full = self.master.engine().secondaries().iter().any(|progress| {
            progress.next <= self.master.engine().last() && progress.inflight_bytes() >= window
        });
        if full {
            self.seen.note(Sometimes::WindowFull);
        }
        self.check_silence();
        if self.memory.turns.is_multiple_of(16) {
            self.check_waiting();
        }
    }

    /// A turn that ends with the node may have told levels before it came to that.
    pub(in crate::world) fn check_last_words(&mut self) {
        let levels = self.master.engine().levels().clone();
        if levels.commit >= self.memory.commit && levels.held_by != self.memory.held_by {
            self.check_levels(&levels.held_by, levels.commit);
        }
    }

    pub(super) fn check_levels(&mut self, held_by: &[Seq], commit: Seq) {
        let nodes = self.plan.setup.nodes;
        let real = |seq: Seq| (0..nodes).filter(|&node| self.holds_stored(node, seq)).count();
        let have: Vec<usize> = held_by.iter().map(|&seq| real(seq)).collect();
        let ended =
            |node| self.memory.ended.iter().any(|&(of, told)| (of, true) == (node, commit <= told));
        let committed_by =
            (0..nodes).filter(|&node| self.holds_stored(node, commit) || ended(node)).count();
        let stored = self.master_stored();
        if let Some(k) = (1..=nodes).find(|&k| have[k - 1] < k || held_by[k - 1] > stored) {
            let what = format!("C({k})={} on {}", held_by[k - 1], have[k - 1]);
            self.fail("C(k): at least k nodes, the master among them", what);
        }
        let committed = self.memory.committed();
        if commit > committed && (committed_by < majority(nodes) || commit > stored) {
            self.fail("commit: on a majority", format!("{commit} on {committed_by}"));
        }
        if commit < held_by[majority(nodes) - 1] {
            self.fail(
                "commit is not below C(majority)",
                format!("{commit} and {}", held_by[majority(nodes) - 1]),
            );
        }
        if held_by.iter().zip(&self.memory.held_by).any(|(now, before)| now < before) {
            self.seen.note(Sometimes::LevelFell);
            if commit > held_by[majority(nodes) - 1] {
                self.seen.note(Sometimes::CommitAbove);
            }
        }
        let log = self.master.store().log().reader();
        for number in self.memory.committed.len() as u64 + 1..=commit.number() {
            // What the master's disk does not give any more, who else holds it does.
            let seq = Seq::new(number);
            let mut others = self.secondaries.iter().filter(|own| own.engine().stored() >= seq);
            let theirs = || others.find_map(|own| own.store().log().reader().prefix_id(seq));
            self.memory.committed.push(log.prefix_id(seq).or_else(theirs));
        }
        self.memory.commit = commit;
        self.memory.held_by = held_by.to_vec();
        for (max, now) in self.memory.held_by_max.iter_mut().zip(held_by) {
            *max = (*max).max(*now);
        }
        self.note_late_store();
    }

    pub(super) fn note_late_store(&mut self) {
        if self.master.engine().last() > self.master_stored().plus(20) {
            self.seen.note(Sometimes::LateStored);
        }
    }

    /// Whoever is silent for long is unhealthy: after `unhealthy_after` intervals, and some for the
    /// phase, a connection that breaks, and a master that is late.
    pub(super) fn check_silence(&mut self) {
        let setup = &self.plan.setup;
        let host = &self.hosts[0];
        let interval = setup.heartbeat_ms * 1000;
        let slack = interval / 2 + 2 * setup.turn_us + 10_000;
        // A master that is late itself judges later.
        if host.slow_by > 0 || self.master.deposed {
            return self.memory.master_woke(self.now);
        }
        let allowed = interval * (u64::from(setup.unhealthy_after) + 3) + slack;
        let silent = |&node: &usize| {
            let since =
                self.last_contact(super::super::process::index(node)).max(self.memory.awake_since);
            let progress = &self.master.engine().secondaries()[node - 1];
            self.now > since + allowed
                && progress.health.health() != replog::engine::Health::Unhealthy
        };
        if let Some(node) = (1..setup.nodes).find(silent) {
            let since = self.last_contact(super::super::process::index(node));
            self.fail(
                "who is silent becomes unhealthy",
                format!("n{node}, silent for {} us", self.now - since),
            );
        }
    }

    /// Nobody waits for what is already there, or for longer than asked.
    pub(in crate::world) fn check_waiting(&mut self) {
        if self.master.deposed {
            return;
        }
        let late = self.open.iter().copied().find_map(|id| {
            let request = &self.requests[id];
            let (open, need) = (request.first_open()?, request.need?);
            let level = self.master.engine().levels().held_by(need);
            if !request.received && open <= level {
                return Some((
                    id,
                    "who waits for what is there is answered",
                    format!("r{id}: {open} of C({need})={level}"),
                ));
            }
            let since = request.taken_at?.max(self.memory.awake_since);
            let due = since + request.timeout_us? + 1_000_000;
            (self.now > due && open <= self.master_stored() && self.hosts[0].slow_by == 0).then(
                || {
                    (
                        id,
                        "every request is answered within its time and a second",
                        format!("r{id}: {open}"),
                    )
                },
            )
        });
        if let Some((_, rule, what)) = late {
            self.fail(rule, what);
        }
    }
}
