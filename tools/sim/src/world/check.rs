//! What must hold, seen from above: from here every log, every position and every promise is visible.
//!
//! How wiped nodes are accounted for. A secondary in memory that crashes loses its log, and until it
//! introduces itself anew the master cannot know. So an OK counts a node that held the entry when it
//! told the master so, and was wiped since without the master having been able to learn it: what such a
//! node told is its *ghost*. A ghost ends when the master accepts the next introduction of the node's
//! new life. The same holds for what was only held back (`ack=received`) and dropped with a connection:
//! that ghost ends when the master loses the connection or follows the node on a new one. In a run
//! without crashes the ghosts of stored entries are empty and the count is exact.

use replog::engine::startup::needed;
use replog::engine::{Answer, Levels, Mode, Reign, Verdict};
use replog::limits::{HOLD_BACK_BYTES_MAX, HOLD_BACK_RUNS_MAX};
use replog::store::LogStore as _;
use replog::store::{LogReader, Run};
use replog::types::{Epoch, Level, NodeIndex, PrefixId, Seq, SeqRange, majority};

use super::World;
use super::clients::{Fate, payload};
use super::store::Aside;
use crate::sometimes::Sometimes;

/// What a node told the master and lost since.
#[derive(Clone, Debug, Default)]
pub(super) struct Ghost {
    pub(super) stored: Seq,
    pub(super) received: Seq,
    pub(super) held: Vec<SeqRange>,
}

/// What the checks remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    commit: Seq,
    /// What was committed: the prefix id of each entry, where somebody could read it then.
    committed: Vec<Option<PrefixId>>,
    /// What was committed and on a secondary when its process ended.
    must_hold: Vec<Seq>,
    held_by: Vec<Seq>,
    /// The highest C(k) ever, and the highest commit.
    held_by_max: Vec<Seq>,
    /// Per secondary: the commit position it knew, and how far its log was compared.
    known: Vec<(u32, Seq, Seq)>,
    /// Per secondary: the epoch it promised, in this life.
    promised: Vec<(u32, replog::types::Epoch)>,
    pending: std::collections::BTreeMap<Seq, usize>,
    turns: u64,
    /// What the ghosts that ended in this turn had told: the commit may have moved before they did.
    ended: Vec<(usize, Seq)>,
    /// No judgement of silence before this: the master slept, or the world was made.
    awake_since: u64,
}

impl Memory {
    pub(super) fn new(nodes: usize) -> Self {
        let zeros = vec![Seq::ZERO; nodes];
        Memory {
            held_by: zeros.clone(),
            must_hold: zeros.clone(),
            held_by_max: zeros,
            known: vec![(0, Seq::ZERO, Seq::ZERO); nodes],
            promised: vec![(0, replog::types::Epoch::ZERO); nodes],
            ..Memory::default()
        }
    }

    /// A master's process begins, with what its log tells.
    pub(super) fn master_restarts(&mut self, now: u64, levels: Levels) {
        self.awake_since = now;
        self.commit = levels.commit;
        for (max, now) in self.held_by_max.iter_mut().zip(&levels.held_by) {
            *max = (*max).max(*now);
        }
        self.held_by = levels.held_by;
        self.pending.clear();
    }

    /// A secondary's process begins, with what its log tells.
    pub(super) fn secondary_restarts(
        &mut self,
        node: usize,
        life: u32,
        commit: Seq,
        last: Seq,
        epoch: Epoch,
    ) {
        self.known[node] = (life, commit, last);
        self.promised[node] = (life, epoch);
    }

    /// The epoch that a secondary promised.
    pub(super) fn promised(&self, node: usize) -> Epoch {
        self.promised[node].1
    }

    /// The highest commit position ever, unless it was lost.
    fn committed(&self) -> Seq {
        Seq::new(self.committed.len() as u64)
    }

    /// What was committed as `seq`, if that is known.
    fn committed_id(&self, seq: Seq) -> Option<PrefixId> {
        match seq.number() {
            0 => Some(PrefixId::EMPTY),
            number => self.committed.get(number as usize - 1).copied().flatten(),
        }
    }

    /// The master judges nobody before `at`: it was, or still will be, late itself.
    pub(super) fn master_woke(&mut self, at: u64) {
        self.awake_since = self.awake_since.max(at);
    }
}

impl World {
    /// A secondary's process ends: what it told is a ghost.
    pub(super) fn wiped(&mut self, node: usize) {
        let own = &self.secondaries[node - 1];
        let mut had = own.engine().stored().min(self.memory.committed());
        // What it has of a reign that others did not follow is not what was committed.
        let (log, committed) = (own.store().reader(), |seq| self.memory.committed_id(seq));
        let differs = |seq| log.prefix_id(seq).zip(committed(seq)).is_some_and(|(a, b)| a != b);
        while differs(had) {
            had = had.previous();
        }
        let held_behind = (!own.engine().held().is_empty()).then_some(own.engine().written());
        self.memory.must_hold[node] = self.memory.must_hold[node].max(had);
        let ghost = &mut self.ghosts[node];
        ghost.stored = ghost.stored.max(own.engine().stored());
        ghost.received = ghost.received.max(own.engine().written());
        ghost.held.extend(own.engine().held().iter());
        if let Some(written) = held_behind {
            self.record_drop(node, written);
        }
    }

    /// The master follows a secondary on a connection to its `life`.
    pub(super) fn now_follows(&mut self, node: usize, life: Option<u32>, stored: Seq) {
        let own = &self.secondaries[node - 1];
        if life != Some(self.hosts[node].life) || !self.hosts[node].up {
            return;
        }
        if own.engine().stored() < stored {
            return; // It has become damaged since it said so.
        }
        let ids = (
            own.store().reader().prefix_id(stored),
            self.master.store().reader().prefix_id(stored),
        );
        if ids.0 != ids.1 && !self.is_hurt(0) && !self.is_hurt(node) {
            self.fail(
                "whoever is followed has a prefix of the master's log",
                format!("n{node} at {stored}: {ids:?}"),
            );
        }
        let ended = std::mem::take(&mut self.ghosts[node]);
        self.memory.ended.push((node, ended.stored));
    }

    /// Whether something was done to a node's disk that no crash does.
    pub(super) fn is_hurt(&self, node: usize) -> bool {
        self.disks[node].as_ref().is_some_and(|disk| disk.hurt || disk.fs.is_dead())
    }

    // ---- reigns ----

    /// A master without a history begins one.
    pub(super) fn check_new_history(&mut self) {
        if self.reigns == 0 || self.over {
            return;
        }
        let setup = &self.plan.setup;
        let virgin = |own: &&super::secondary::SecondaryNode| own.engine().log_id().is_none();
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
    pub(super) fn check_reign(&mut self, epoch: Epoch, last: Seq) {
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
        let log = self.master.store().reader();
        let own_end = (log.bounds().tail.epoch, last);
        let run_id = self.master.engine().run_id();
        let is_behind = |facts: &&replog::engine::HelloFacts| {
            let promised = (facts.epoch, facts.run_id) == (epoch, run_id);
            promised && (facts.tail.epoch, facts.stored) > own_end
        };
        let behind = self.master.led_with.iter().find(is_behind).copied();
        if let Some(facts) = behind {
            self.fail(
                "no entry that an answer reports is dropped",
                format!("{own_end:?} behind {facts:?}"),
            );
        }
        let ours =
            |facts: &&replog::engine::HelloFacts| (facts.epoch, facts.run_id) == (epoch, run_id);
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
    pub(super) fn check_aside(&mut self, node: usize, aside: &Aside) {
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
            _ => self.master.store().reader().prefix_id(from),
        };
        if other.is_some() && other == aside.id(from) {
            self.fail("only what differs is set aside", format!("n{node} from {from}"));
        }
        self.record_loss(node, from.previous());
    }

    fn holds_stored(&self, node: usize, seq: Seq) -> bool {
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
                        || own.store().reader().prefix_id(seq)
                            == self.master.store().reader().prefix_id(seq)
                };
                told || held && same()
            }
        }
    }

    /// Whether a node has an entry in memory. Also says whether it only holds it back.
    fn holds_received(&self, node: usize, seq: Seq) -> (bool, bool) {
        if node == 0 {
            return (seq <= self.master.engine().last(), false);
        }
        let own = &self.secondaries[node - 1];
        let ghost = &self.ghosts[node];
        if seq <= own.engine().written().max(ghost.received) {
            return (true, false);
        }
        // Runs that were cut otherwise when they came again may overlap.
        let ours = self.master.store().reader().prefix_id(seq);
        let has = |run: &Run| run.range().contains(seq) && run.prefix_id(seq) == ours;
        let kept = own.node.held().range(..=seq).rev().any(|(_, run)| has(run));
        (kept || ghost.held.iter().any(|range| range.contains(seq)), true)
    }

    fn master_stored(&self) -> Seq {
        self.master.store().stored
    }

    // ---- answers ----

    /// The master answers: is it true, now, and in time?
    pub(super) fn check_answer(&mut self, answer: &Answer) {
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
    fn check_holders(&mut self, answer: &Answer, received: bool) {
        let Answer { range, holders, verdict, .. } = *answer;
        for node in 0..self.plan.setup.nodes {
            let index = if node == 0 { NodeIndex::MASTER } else { super::process::index(node) };
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

    // ---- after a turn of a secondary ----

    pub(super) fn check_secondary(&mut self, node: usize) {
        let own = &self.secondaries[node - 1];
        let written = own.engine().written();
        let log = own.store().reader();
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
            let ours = self.master.store().reader().prefix_id(written);
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

    // ---- after a turn of the master ----

    pub(super) fn check_master(&mut self) {
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
    pub(super) fn check_last_words(&mut self) {
        let levels = self.master.engine().levels().clone();
        if levels.commit >= self.memory.commit && levels.held_by != self.memory.held_by {
            self.check_levels(&levels.held_by, levels.commit);
        }
    }

    fn check_levels(&mut self, held_by: &[Seq], commit: Seq) {
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
        let log = self.master.store().reader();
        for number in self.memory.committed.len() as u64 + 1..=commit.number() {
            // What the master's disk does not give any more, who else holds it does.
            let seq = Seq::new(number);
            let mut others = self.secondaries.iter().filter(|own| own.engine().stored() >= seq);
            let theirs = || others.find_map(|own| own.store().reader().prefix_id(seq));
            self.memory.committed.push(log.prefix_id(seq).or_else(theirs));
        }
        self.memory.commit = commit;
        self.memory.held_by = held_by.to_vec();
        for (max, now) in self.memory.held_by_max.iter_mut().zip(held_by) {
            *max = (*max).max(*now);
        }
        self.note_late_store();
    }

    fn note_late_store(&mut self) {
        if self.master.engine().last() > self.master_stored().plus(20) {
            self.seen.note(Sometimes::LateStored);
        }
    }

    /// Whoever is silent for long is unhealthy: after `unhealthy_after` intervals, and some for the
    /// phase, a connection that breaks, and a master that is late.
    fn check_silence(&mut self) {
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
            let since = self.last_contact(super::process::index(node)).max(self.memory.awake_since);
            let progress = &self.master.engine().secondaries()[node - 1];
            self.now > since + allowed
                && progress.health.health() != replog::engine::Health::Unhealthy
        };
        if let Some(node) = (1..setup.nodes).find(silent) {
            let since = self.last_contact(super::process::index(node));
            self.fail(
                "who is silent becomes unhealthy",
                format!("n{node}, silent for {} us", self.now - since),
            );
        }
    }

    /// Nobody waits for what is already there, or for longer than asked.
    pub(super) fn check_waiting(&mut self) {
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

    // ---- reads ----

    pub(super) fn check_read(
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
        let end = super::store::readable_end(log, range);
        if end != range.end && !self.is_hurt(node) {
            return self
                .fail("what is visible has no hole", format!("{range} on n{node}: up to {end}"));
        }
        let last = range.last();
        let reference = match (self.memory.committed_id(last), self.reigns) {
            (Some(id), _) => Some(id),
            // Behind the commit, another reign may have other entries.
            (None, 0..=1) if self.hosts[0].up && self.hosts[0].life == 0 => {
                self.master.store().reader().prefix_id(last)
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

    // ---- at the end ----

    /// Reads every log and compares every byte with what clients sent.
    pub(super) fn check_logs(&mut self) {
        for node in 0..self.plan.setup.nodes {
            if !self.hosts[node].up {
                continue;
            }
            let store = match node {
                0 => &self.master.store(),
                _ => &self.secondaries[node - 1].store(),
            };
            let log = store.reader();
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
    pub(super) fn ailment(&self) -> Option<(&'static str, String)> {
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
    pub(super) fn ails_for_good(&mut self) -> bool {
        let nodes = self.plan.setup.nodes;
        if self.excused || (0..nodes).any(|node| !self.hosts[node].up) {
            return self.excused;
        }
        let engine = self.master.engine();
        if engine.reign() != Reign::Leading {
            let own = self.master.store().own_log();
            let vouch = |own: &&super::secondary::SecondaryNode| own.engine().vouches();
            let vouching = self.secondaries.iter().filter(vouch).count();
            let own_end = (own.tail_epoch, own.last);
            let ahead = self.secondaries.iter().any(|other| {
                let stored = other.engine().stored();
                let tail = other.store().reader().prefix_id(stored);
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
