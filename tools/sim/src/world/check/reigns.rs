//! What must hold when a master begins to lead, and when entries are moved aside.

use replog::engine::startup::needed;
use replog::node::Storage as _;
use replog::types::{Epoch, Seq};

use super::super::World;
use super::super::store::Aside;
use crate::sometimes::Sometimes;

impl World {
    /// A master without a history begins one.
    pub(in crate::world) fn check_new_history(&mut self) {
        if self.reigns == 0 || self.over {
            return;
        }
        let setup = &self.plan.setup;
        let virgin =
            |own: &&super::super::secondary::SecondaryNode| own.engine().log_id().is_none();
        let virgins = 1 + self.secondaries.iter().filter(virgin).count();
        if virgins < setup.quorum && !setup.bootstrap {
            let quorum = setup.quorum;
            self.fail(
                "a new history begins only where enough nodes are empty",
                format!("{virgins} of {quorum}"),
            );
        }
        self.seen.note(Sometimes::NewHistory);
        self.over = true;
    }

    /// A master begins to lead: what a needed answer reported is there, and what was committed too.
    pub(in crate::world) fn check_reign(&mut self, epoch: Epoch, last: Seq) {
        let again = self.reigns > 0;
        self.reigns += 1;
        // It goes on under a higher epoch: whoever led has all there is.
        let goes_on = self.reign_of.replace(self.hosts[0].life) == Some(self.hosts[0].life);
        if self.over {
            return;
        }
        self.confirmed = self.confirmed.min(last);
        if again {
            self.seen.note(Sometimes::LedAgain);
        }
        let log = self.master.store().log().reader();
        let run_id = self.master.engine().run_id();
        let ours =
            |facts: &&replog::engine::HelloFacts| (facts.epoch, facts.run_id) == (epoch, run_id);
        // Of the logs that settled most, the longest is what is led with: others may have more only
        // from a leader that was followed by another.
        let promised = || self.master.led_with.iter().filter(ours);
        let settled = promised().map(|facts| facts.settled).max().unwrap_or(Epoch::ZERO);
        let settled = settled.max(self.master.had_settled);
        let behind = promised().find(|facts| facts.settled == settled && facts.stored > last);
        if let Some(facts) = behind.copied() {
            self.fail(
                "no entry that an answer reports is dropped",
                format!("{last} behind {facts:?}"),
            );
        }
        let known = self.master.led_with.iter().chain(&self.master.answers_lost);
        let answers: Vec<_> = known.filter(ours).collect();
        let known = answers.iter().map(|facts| facts.commit).max().unwrap_or(Seq::ZERO).min(last);
        let setup = &self.plan.setup;
        let vouching = answers.iter().filter(|facts| facts.vouches).count();
        // While a tail was fetched, who had answered may have come back empty.
        let adopted = last > self.master.store().own_log_at_start();
        let few =
            again && !goes_on && !adopted && vouching < needed(setup.nodes, setup.quorum, true);
        if few && !self.master.store().was_whole() {
            self.fail("who may have lost entries leads with enough answers", format!("{vouching}"));
        }
        if self.master.engine().levels().commit < known {
            let commit = self.master.engine().levels().commit;
            self.fail(
                "a reign begins with the commit of its answers",
                format!("{commit} of {known}"),
            );
        }
        let used = self.entries.last_key_value().map_or(0, |(&(used, _), _)| used);
        if epoch.number() < used && self.disks[0].as_ref().is_some_and(|disk| disk.rolled_back) {
            // As in `numbered`: a copy of a directory that was used since.
            self.over = true;
            return;
        }
        if epoch.number() < used {
            self.fail("each reign has an epoch of its own", format!("{epoch} after {used}"));
        }
        let committed = self.memory.committed();
        let at = committed.min(last);
        let id = self.memory.committed_id(at);
        let differs = id.is_some() && log.prefix_id(at) != id && !self.is_hurt(0);
        if committed > last || differs {
            if !self.excused && self.plan.setup.nodes > 1 {
                self.fail(
                    "what was committed is in the log of every later reign",
                    format!("{committed} of {last}, differs={differs}"),
                );
            }
            self.memory.committed.truncate(last.number() as usize);
            while let Some(id) = self.memory.committed.last() {
                let at = Seq::new(self.memory.committed.len() as u64);
                if id.is_none() || log.prefix_id(at) == *id {
                    break;
                }
                self.memory.committed.pop();
            }
        }
    }

    /// A node moved the end of its log aside: nothing committed goes.
    pub(in crate::world) fn check_aside(&mut self, node: usize, aside: &Aside) {
        let from = aside.from;
        let commit = match node {
            0 => self.master.engine().levels().commit,
            _ => self.secondaries[node - 1].engine().levels().commit,
        };
        let at = self.memory.committed().min(aside.last);
        let id = self.memory.committed_id(at);
        let drops = from <= at && id.is_some() && aside.id(at) == id;
        if (drops || from <= commit) && !self.excused {
            self.fail(
                "nothing committed is set aside",
                format!("n{node} from {from}, committed {at}, known {commit}"),
            );
        }
        let other = match node {
            0 => None,
            _ => self.master.store().log().reader().prefix_id(from),
        };
        if other.is_some() && other == aside.id(from) {
            self.fail("only what differs is set aside", format!("n{node} from {from}"));
        }
        self.record_loss(node, from.previous());
    }
}
