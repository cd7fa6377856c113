//! What an answer says, compared with who holds what at that moment.

use replog::engine::{Answer, Mode, Verdict};
use replog::node::Storage as _;
use replog::store::Run;
use replog::types::{NodeIndex, Seq};

use super::super::World;
use crate::sometimes::Sometimes;

impl World {
    pub(super) fn holds_stored(&self, node: usize, seq: Seq) -> bool {
        match node {
            0 => seq <= self.master_stored(),
            _ => {
                let own = &self.secondaries[node - 1];
                let (held, told) = (seq <= own.engine().stored(), seq <= self.ghosts[node].stored);
                // Behind what is common, another entry may have the number.
                let same = || {
                    self.hosts[0].life == 0
                        || self.is_hurt(0)
                        || self.is_hurt(node)
                        || own.store().log().reader().prefix_id(seq)
                            == self.master.store().log().reader().prefix_id(seq)
                };
                told || held && same()
            }
        }
    }

    /// Whether a node has an entry in memory. Also says whether it only holds it back.
    pub(super) fn holds_received(&self, node: usize, seq: Seq) -> (bool, bool) {
        if node == 0 {
            return (seq <= self.master.engine().last(), false);
        }
        let own = &self.secondaries[node - 1];
        let ghost = &self.ghosts[node];
        if seq <= own.engine().written().max(ghost.received) {
            return (true, false);
        }
        // Runs that were cut otherwise when they came again may overlap.
        let ours = self.master.store().log().reader().prefix_id(seq);
        let has = |run: &Run| run.range().contains(seq) && run.prefix_id(seq) == ours;
        let kept = own.node.held().range(..=seq).rev().any(|(_, run)| has(run));
        (kept || ghost.held.iter().any(|range| range.contains(seq)), true)
    }

    pub(super) fn master_stored(&self) -> Seq {
        self.master.store().stored
    }

    /// The master answers: is it true, now, and in time?
    pub(in crate::world) fn check_answer(&mut self, answer: &Answer) {
        let Answer { token, offset, range, need, holders, verdict, .. } = *answer;
        let id = token.slot as usize;
        self.tell(0, "answers", range.first.number(), range.end.number(), || {
            format!("r{id}: {verdict:?} {range} need={need} have={}", holders.len())
        });
        let Some(request) = self.requests.get(id) else {
            return self.fail("only what was asked is answered", format!("{answer:?}"));
        };
        let expected = request.range.map(|asked| asked.first.plus(offset));
        if expected.is_some_and(|first| first != range.first)
            || request.need != Some(need)
            || offset + range.len() > u64::from(request.count)
        {
            return self.fail("an answer is that to its request", format!("r{id}: {answer:?}"));
        }
        // What was decided before in the same turn is dropped on its way out.
        if request.gone.is_some_and(|gone| gone < self.now) {
            return self.fail("whoever is gone gets no answer", format!("r{id}: {answer:?}"));
        }
        let (received, sent) = (request.received, request.taken_at.unwrap_or(self.now));
        let timeout = request.timeout_us;
        let waits = request.wait_for.is_some();
        for entry in offset..offset + range.len() {
            let slot = &mut self.requests[id].answers[entry as usize];
            if slot.replace(verdict).is_some() {
                return self.fail("each entry is answered once", format!("r{id}: {answer:?}"));
            }
        }
        if self.requests[id].answers.iter().all(Option::is_some) {
            self.open.remove(&id);
        } else {
            self.seen.note(Sometimes::PartAnswered);
        }
        if range.last() > self.master.engine().last() {
            self.fail("an answer names entries of the log", format!("r{id}: {answer:?}"));
        }
        self.check_holders(answer, received);
        let have = holders.len();
        match verdict {
            Verdict::Met => {
                self.stats.ok += range.len();
                if have < need || !holders.contains(NodeIndex::MASTER) {
                    self.fail(
                        "OK means as many nodes as were asked for",
                        format!("r{id}: {have} of {need}"),
                    );
                }
                if !received && range.last() > self.master_stored() {
                    self.fail("OK waits for the master's own log", format!("r{id}: {range}"));
                }
                if waits
                    && self.memory.pending.get(&range.first).is_some_and(|&asked| asked <= need)
                {
                    self.seen.note(Sometimes::PendingThenDone);
                }
                if sent == self.now && waits {
                    self.seen.note(Sometimes::WaitAtOnce);
                }
                if received
                    && !(0..self.plan.setup.nodes).all(|node| self.holds_stored(node, range.last()))
                {
                    self.seen.note(Sometimes::OkReceivedFirst);
                }
            }
            Verdict::Waiting => {
                self.stats.pending += range.len();
                if have >= need {
                    self.fail(
                        "PENDING means fewer nodes than asked for",
                        format!("r{id}: {have} of {need}"),
                    );
                }
                if timeout.is_none_or(|timeout| self.now < sent + timeout) {
                    self.fail(
                        "PENDING comes not before its time",
                        format!("r{id} after {} us", self.now - sent),
                    );
                }
                if range.last() > self.master_stored() {
                    self.fail("PENDING waits for the master's own log", format!("r{id}: {range}"));
                }
                self.memory.pending.insert(range.first, need);
            }
            Verdict::Unknown => {
                self.stats.unknown += range.len();
                self.seen.note(Sometimes::Unknown);
                if !self.master.deposed && self.master.engine().mode() == Mode::Normal {
                    // The effect that says so follows in the same turn.
                    self.unknown_answers += 1;
                }
            }
        }
    }

    /// Every node that the answer names must hold all of it, at the level asked for.
    pub(super) fn check_holders(&mut self, answer: &Answer, received: bool) {
        let Answer { range, holders, verdict, .. } = *answer;
        for node in 0..self.plan.setup.nodes {
            let index =
                if node == 0 { NodeIndex::MASTER } else { super::super::process::index(node) };
            if !holders.contains(index) {
                continue;
            }
            let lacks = |seq: Seq| {
                if received {
                    !self.holds_received(node, seq).0
                } else {
                    !self.holds_stored(node, seq)
                }
            };
            let first = range.first.number();
            if let Some(seq) = (first..range.end.number()).map(Seq::new).find(|&seq| lacks(seq)) {
                let what = format!("n{node} is named and lacks {seq}: {answer:?}");
                let rule = match verdict {
                    Verdict::Met => "OK: every node counted holds the entry",
                    _ => "every node named holds the entry",
                };
                return self.fail(rule, what);
            }
            if received && node > 0 && self.holds_received(node, range.last()).1 {
                self.seen.note(Sometimes::OkHeldBack);
            }
        }
    }
}
