//! What readers see, and what must hold at the end.

use replog::engine::startup::needed;
use replog::engine::{Mode, Reign};
use replog::node::Storage as _;
use replog::store::LogReader;
use replog::types::{Epoch, Level, Seq, SeqRange, majority};

use super::super::World;
use super::super::clients::{Fate, payload};
use crate::sometimes::Sometimes;

impl World {
    pub(in crate::world) fn check_read(
        &mut self,
        node: usize,
        level: Level,
        range: SeqRange,
        log: &LogReader,
    ) {
        let nodes = self.plan.setup.nodes;
        let max = match level {
            Level::Local if node == 0 => self.master_stored(),
            Level::Local => self.secondaries[node - 1].engine().written(),
            Level::Committed => self.memory.committed(),
            Level::All => self.memory.held_by_max[nodes - 1],
            Level::Nodes(count) => self.memory.held_by_max[usize::from(count.get()) - 1],
        };
        let may_differ = self.excused || (0..nodes).any(|node| self.is_hurt(node));
        if range.last() > max && !may_differ {
            return self.fail(
                "a read shows no more than its level",
                format!("{range} on n{node} at {level}, {max} allowed"),
            );
        }
        let end = super::super::store::readable_end(log, range);
        if end != range.end && !self.is_hurt(node) {
            return self
                .fail("what is visible has no hole", format!("{range} on n{node}: up to {end}"));
        }
        let last = range.last();
        let reference = match (self.memory.committed_id(last), self.reigns) {
            (Some(id), _) => Some(id),
            // Behind the commit, another reign may have other entries.
            (None, 0..=1) if self.hosts[0].up && self.hosts[0].life == 0 => {
                self.master.store().log().reader().prefix_id(last)
            }
            _ => return,
        };
        // What fewer than a majority held may be numbered anew by a master that lost its log.
        let few = match level {
            Level::Local => true,
            Level::Nodes(count) => usize::from(count.get()) < majority(nodes),
            Level::Committed | Level::All => false,
        };
        let exempt = few && self.hosts[0].life > 0;
        if !exempt && !may_differ && log.prefix_id(last) != reference {
            self.fail("all readers see the same entries", format!("n{node} at {last}"));
        }
    }

    /// Reads every log and compares every byte with what clients sent.
    pub(in crate::world) fn check_logs(&mut self) {
        for node in 0..self.plan.setup.nodes {
            if !self.hosts[node].up {
                continue;
            }
            let store = match node {
                0 => &self.master.store(),
                _ => &self.secondaries[node - 1].store(),
            };
            let log = store.log().reader();
            let hurt = self.is_hurt(node);
            let last = log.bounds().last;
            for number in 1..=last.number() {
                let seq = Seq::new(number);
                let Some(record) = log.record(seq) else {
                    if hurt {
                        continue; // Wrong bytes are never shown, and said to be damaged.
                    }
                    return self
                        .fail("numbers are dense", format!("n{node} lacks {seq} of {last}"));
                };
                let epoch = record.epoch.number();
                let Some(&(id, entry)) = self.entries.get(&(epoch, number)) else {
                    return self
                        .fail("every entry was sent by a client", format!("n{node}: {seq}"));
                };
                let request = &self.requests[id];
                if record.payload != payload(id, entry, request.size) || record.seq != seq {
                    return self.fail(
                        "every entry is what its client sent",
                        format!("n{node}: {seq} of r{id}"),
                    );
                }
                if request.refused {
                    return self
                        .fail("REJECTED appears nowhere", format!("n{node}: {seq} of r{id}"));
                }
            }
        }
        for (id, request) in self.requests.iter().enumerate() {
            for (entry, fate) in request.fates.iter().enumerate() {
                if let (Some((_, Fate::Ok(seq, epoch, _) | Fate::Pending(seq, epoch, _))), None) =
                    (fate, request.wait_for)
                    && self.entries.get(&(*epoch, seq.number())) != Some(&(id, entry as u64))
                {
                    let what = format!("r{id}.{entry} at {seq}");
                    return self.fail("an answered entry is where the answer says", what);
                }
            }
        }
    }

    /// What is missing for all to be well again; `None` if nothing is.
    pub(in crate::world) fn ailment(&self) -> Option<(&'static str, String)> {
        if let Some(node) = (0..self.plan.setup.nodes).find(|&node| !self.hosts[node].up) {
            return Some(("every node starts again", format!("n{node}")));
        }
        let engine = self.master.engine();
        let (last, mode) = (engine.last(), engine.mode());
        if mode != Mode::Normal {
            return Some((
                "the mode is normal again",
                format!("{mode}, {} present", engine.present()),
            ));
        }
        for node in 1..self.plan.setup.nodes {
            let own = self.secondaries[node - 1].engine();
            if own.stored() != last {
                return Some((
                    "every secondary equals the master again",
                    format!("n{node}: {} of {last}", own.stored()),
                ));
            }
            let levels = own.levels();
            if levels.commit != last || levels.held_by.iter().any(|level| *level != last) {
                return Some((
                    "every secondary knows the levels",
                    format!("n{node}: {levels:?} of {last}"),
                ));
            }
        }
        let unheard = self.requests.iter().position(|request| {
            let decided = request.range.is_some() && request.answers.iter().all(Option::is_some);
            let listens = request.connection == self.clients[request.client as usize].connection;
            decided && listens && request.gone.is_none() && request.fates.contains(&None)
        });
        if let Some(id) = unheard {
            return Some(("every answer reaches its client", format!("r{id}")));
        }
        let waiting = self.open.iter().find(|&&id| self.requests[id].gone.is_none());
        waiting.map(|id| {
            (
                "every request is answered, every PENDING gets there",
                format!("r{id}: {:?}", self.requests[*id]),
            )
        })
    }

    /// Whether what ails is as it must be: too few answers that count, or nobody to repair from. What
    /// was brought back without knowing it may contradict for ever.
    pub(in crate::world) fn ails_for_good(&mut self) -> bool {
        let nodes = self.plan.setup.nodes;
        if self.excused || (0..nodes).any(|node| !self.hosts[node].up) {
            return self.excused;
        }
        let engine = self.master.engine();
        if engine.reign() != Reign::Leading {
            let own = self.master.store().own_log();
            let vouch = |own: &&super::super::secondary::SecondaryNode| own.engine().vouches();
            let vouching = self.secondaries.iter().filter(vouch).count();
            let own_end = (own.tail_epoch, own.last);
            let ahead = self.secondaries.iter().any(|other| {
                let stored = other.engine().stored();
                let tail = other.store().log().reader().prefix_id(stored);
                (tail.map_or(Epoch::ZERO, |id| id.epoch), stored) > own_end
            });
            let few = vouching < needed(nodes, self.plan.setup.quorum, true);
            if few && (!own.whole || ahead) {
                self.seen.note(Sometimes::AnswersMissing);
                return true;
            }
        }
        if let Some(damage) = engine.damage() {
            return self.secondaries.iter().all(|own| own.engine().stored() < damage.last());
        }
        false
    }
}
