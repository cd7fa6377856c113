//! Makes a failing plan small: whatever can be left out while the same rule is violated is left out.

use std::time::{Duration, Instant};

use crate::plan::{Action, Fault, Plan};
use crate::runner::Runner;

/// How much may be tried.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Plans played.
    pub attempts: u32,
    /// Time spent.
    pub time: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { attempts: 600, time: Duration::from_secs(20) }
    }
}

/// The smallest plan found that violates `rule`, starting from one that does.
pub fn shrink(runner: &mut Runner, plan: &Plan, rule: &str, budget: Budget) -> Plan {
    let mut search =
        Search { runner, best: plan.clone(), rule, budget, tried: 0, since: Instant::now() };
    loop {
        let before = size(&search.best);
        search.end_early();
        search.drop_kinds();
        search.drop_faults();
        search.drop_clients();
        search.drop_operations();
        search.drop_nodes();
        search.simplify();
        if size(&search.best) == before || search.exhausted() {
            return search.best;
        }
    }
}

fn size(plan: &Plan) -> (usize, usize, usize, u64) {
    (plan.setup.nodes, plan.faults.len(), plan.operations.len(), plan.setup.active_us)
}

struct Search<'a> {
    runner: &'a mut Runner,
    best: Plan,
    rule: &'a str,
    budget: Budget,
    tried: u32,
    since: Instant,
}

impl Search<'_> {
    fn exhausted(&self) -> bool {
        self.tried >= self.budget.attempts || self.since.elapsed() >= self.budget.time
    }

    /// Keeps `plan` if it still fails.
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.exhausted() || plan == self.best {
            return false;
        }
        self.tried += 1;
        let violation = self.runner.play(&plan, false).outcome.violation;
        let same = violation.is_some_and(|violation| violation.rule == self.rule);
        if same {
            self.best = plan;
        }
        same
    }

    fn end_early(&mut self) {
        while self.best.setup.active_us > 100_000 {
            let mut plan = self.best.clone();
            plan.setup.active_us /= 2;
            let ends = plan.setup.active_us;
            plan.operations.retain(|operation| operation.at < ends);
            plan.faults.retain(|fault| fault.at < ends);
            plan.faults.iter_mut().for_each(|fault| fault.lasts = fault.lasts.min(ends - fault.at));
            if !self.attempt(plan) {
                return;
            }
        }
    }

    fn drop_kinds(&mut self) {
        for kind in 0..Fault::KINDS.len() {
            let mut plan = self.best.clone();
            plan.faults.retain(|fault| fault.what.kind() != kind);
            self.attempt(plan);
        }
    }

    fn drop_faults(&mut self) {
        self.drop_pieces(|plan| plan.faults.len(), |plan, piece| drop(plan.faults.drain(piece)));
    }

    fn drop_operations(&mut self) {
        self.drop_pieces(
            |plan| plan.operations.len(),
            |plan, piece| drop(plan.operations.drain(piece)),
        );
    }

    /// Leaves out halves, quarters, … and single items.
    fn drop_pieces(
        &mut self,
        count: impl Fn(&Plan) -> usize,
        leave_out: impl Fn(&mut Plan, std::ops::Range<usize>),
    ) {
        let mut piece = count(&self.best).div_ceil(2);
        while piece > 0 && !self.exhausted() {
            let mut at = 0;
            while at < count(&self.best) {
                let mut plan = self.best.clone();
                leave_out(&mut plan, at..(at + piece).min(count(&self.best)));
                if !self.attempt(plan) {
                    at += piece;
                }
            }
            piece /= 2;
        }
    }

    fn drop_clients(&mut self) {
        for client in 0..self.best.setup.clients {
            let mut plan = self.best.clone();
            plan.operations.retain(|operation| operation.client != client);
            self.attempt(plan);
        }
    }

    fn drop_nodes(&mut self) {
        while self.best.setup.nodes > 1 {
            let mut plan = self.best.clone();
            let setup = &mut plan.setup;
            setup.nodes -= 1;
            setup.quorum = setup.quorum.min(setup.nodes);
            let nodes = setup.nodes;
            plan.faults.retain(|fault| fault.what.node() < nodes);
            plan.operations.retain(
                |operation| !matches!(operation.what, Action::Read { node, .. } if node >= nodes),
            );
            if !self.attempt(plan) {
                return;
            }
        }
    }

    fn simplify(&mut self) {
        let changes: [fn(&mut Plan); 7] = [
            |plan| {
                plan.setup.clients =
                    1.max(plan.operations.iter().map(|op| op.client + 1).max().unwrap_or(1))
            },
            |plan| plan.setup.net.jitter_us = 1,
            |plan| plan.setup.net.bandwidth = 0,
            |plan| plan.setup.net.chunk_bytes = 64 << 10,
            |plan| (plan.setup.net.send_bytes, plan.setup.net.receive_bytes) = (4 << 20, 4 << 20),
            |plan| plan.setup.sync_us = 0,
            |plan| plan.setup.window_bytes = 16 << 20,
        ];
        for change in changes {
            let mut plan = self.best.clone();
            change(&mut plan);
            self.attempt(plan);
        }
        for at in 0..self.best.operations.len() {
            let mut plan = self.best.clone();
            if let Action::Append { count, size, .. } = &mut plan.operations[at].what {
                (*count, *size) = (1, (*size).min(8));
                self.attempt(plan);
            }
        }
    }
}
