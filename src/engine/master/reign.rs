//! How a master comes to lead: asking, promises, adoption; and how others are made to follow.

use super::super::effect::Effect;
use super::super::health::Health;
use super::super::progress::{HelloFacts, Link, Progress};
use super::super::quorum::Levels;
use super::super::startup::{self, OwnLog, Start, Verdict};
use super::{Master, MasterConfig, Mode};
use crate::codes::RefuseCode;
use crate::engine::SessionId;
use crate::engine::secondary::EPOCH_STEP_MAX;
use crate::limits::{REPAIR_RETRY, ROSTER_WAIT};
use crate::types::{Epoch, LogId, NodeIndex, Seq, SeqRange, Time};

/// How far a master has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reign {
    /// It has no history and asks whether there is one.
    Asking,
    /// It asks the others to promise its epoch.
    Promising,
    /// It fetches the tail of another's log.
    Adopting {
        /// Whose.
        from: NodeIndex,
        /// By this connection.
        session: SessionId,
        /// Up to and including.
        until: Seq,
        /// What that log has settled, and ours has with it.
        settled: Epoch,
    },
    /// It numbers entries.
    Leading,
}

impl Master {
    /// How far it has come.
    pub fn reign(&self) -> Reign {
        self.reign
    }

    /// Whose answer a start waits for; nobody once it leads.
    pub fn awaited(&self) -> Vec<NodeIndex> {
        if self.reign == Reign::Leading {
            return Vec::new();
        }
        let missing = |progress: &Progress| match (self.reign, progress.promise()) {
            (Reign::Asking, _) => progress.answer.is_none(),
            (_, Some(facts)) => !self.own.whole && !facts.vouches,
            (_, None) => true,
        };
        let all = self.secondaries.iter().enumerate();
        let awaited = all.filter(|(_, progress)| missing(progress));
        awaited.map(|(at, _)| NodeIndex::secondary(at)).collect()
    }

    /// Whether this reign began although too few answered to prove that nothing is missing.
    pub fn loss_accepted(&self) -> bool {
        self.loss_accepted
    }

    /// What the operator accepted to lose lies beyond all that is known, so that nothing follows from
    /// it: the entry that was named, and the last one there is.
    pub fn accepted_beyond(&self) -> Option<(Seq, Seq)> {
        let accepted = self.config.accept_data_loss?;
        let asks = matches!(self.reign, Reign::Asking | Reign::Promising);
        let last = startup::best_end(&self.own, &self.secondaries);
        // Before anybody answers nothing is known of what there is.
        let heard = self.secondaries.iter().any(|progress| progress.answer.is_some());
        let known = heard || last > Seq::ZERO || self.secondaries.is_empty();
        (asks && self.roster_wait_over && known && last < accepted).then_some((accepted, last))
    }

    /// Everybody answered, and still too few vouch for what they hold: nobody will ever say more. The
    /// last entry of the best log that there is.
    pub fn doubtful(&self) -> Option<Seq> {
        let answered = |progress: &Progress| progress.promise().is_some() && !progress.comparing;
        let all = self.secondaries.iter().all(answered) && !self.awaited().is_empty();
        let waits = self.reign == Reign::Promising && self.roster_wait_over && !self.damaged;
        (all && waits).then(|| startup::best_end(&self.own, &self.secondaries))
    }

    /// The logs of those who answer a master without one, where they are not all the same: who holds
    /// what, and up to which entry. Which of them is right nobody here can tell, so nothing is begun.
    pub fn rival_logs(&self) -> Vec<(NodeIndex, LogId, Seq)> {
        if self.reign != Reign::Asking || self.own.log_id.is_some() {
            return Vec::new();
        }
        let answers = self.secondaries.iter().enumerate();
        let held = answers.filter_map(|(at, progress)| {
            let facts = progress.answer.as_ref()?;
            Some((NodeIndex::secondary(at), facts.log_id?, facts.stored))
        });
        let held: Vec<_> = held.collect();
        let rivals = held.windows(2).any(|pair| pair[0].1 != pair[1].1);
        if rivals { held } else { Vec::new() }
    }

    /// Nodes of the roster that have not answered, by what is known now.
    pub fn unheard(&self) -> Vec<NodeIndex> {
        let silent = self.secondaries.iter().enumerate().filter(|(_, it)| it.answer.is_none());
        silent.map(|(at, _)| NodeIndex::secondary(at)).collect()
    }

    /// Goes as far as what is known allows.
    pub(super) fn try_start(&mut self, now: Time) {
        match self.reign {
            Reign::Asking => self.ask(now),
            Reign::Promising => self.count_promises(now),
            Reign::Adopting { .. } | Reign::Leading => {}
        }
    }

    fn ask(&mut self, now: Time) {
        let MasterConfig { quorum, bootstrap, .. } = self.config;
        let start =
            startup::judge(now, self.started, &self.own, quorum, bootstrap, &self.secondaries);
        match start {
            Start::Wait | Start::Torn => {}
            Start::Continue { log_id, epoch } => {
                self.log_id = Some(log_id);
                self.seek_promises(epoch);
                self.count_promises(now);
            }
            Start::Begin { epoch } => {
                let log_id = self.fresh_log_id;
                self.log_id = Some(log_id);
                self.epoch = epoch;
                (self.own.whole, self.own.settled) = (true, epoch);
                self.keep(log_id);
                self.effects.push_back(Effect::BeginHistory { log_id, epoch });
                self.lead(now);
            }
        }
    }

    /// Asks everybody for the promise of an epoch, which is kept first: a number once sent names
    /// this process for ever.
    fn seek_promises(&mut self, epoch: Epoch) {
        let log_id = self.log_id.expect("BUG: an epoch belongs to a history");
        self.epoch = epoch;
        self.reign = Reign::Promising;
        self.keep(log_id);
        for progress in &mut self.secondaries {
            progress.promised = false;
            if let Link::Down = progress.link {
                // At once, whatever the interval of heartbeats: the wait for the roster is short.
                progress.heartbeat_at = self.started;
            }
        }
        self.introduce_all();
    }

    fn keep(&mut self, log_id: LogId) {
        let OwnLog { settled, whole: vouches, .. } = self.own;
        self.effects.push_back(Effect::Keep { log_id, epoch: self.epoch, settled, vouches });
    }

    fn introduce_all(&mut self) {
        for to in self.indices() {
            if let Link::Introduced(session) = self.progress(to).link {
                self.effects.push_back(Effect::Introduce { to, session });
            }
        }
    }

    /// A secondary refused our epoch, because it promised it, or a higher one, to somebody else. Who
    /// has not led yet asks again with a higher one. Who leads is deposed by a higher one; if it is
    /// the same, which another process of this master may have asked for and forgotten, it goes on
    /// under a higher one.
    pub(super) fn handle_promised_elsewhere(&mut self, by: NodeIndex, epoch: Epoch) {
        if self.reign == Reign::Asking {
            return;
        }
        if self.led.is_some() && epoch > self.epoch {
            return self.be_deposed(by, epoch);
        }
        match self.reign {
            Reign::Leading => self.taken |= epoch == self.epoch,
            _ => {
                let step = epoch.number().saturating_sub(self.epoch.number());
                if epoch >= self.epoch && step < EPOCH_STEP_MAX {
                    self.seek_promises(epoch.next());
                }
            }
        }
    }

    /// Nothing is numbered any more, not even what came in together with this news.
    fn be_deposed(&mut self, by: NodeIndex, epoch: Epoch) {
        self.stopping = true;
        self.answer_all(super::super::waiters::Verdict::Unknown);
        self.effects.push_back(Effect::Deposed { by, epoch });
    }

    /// The secondary that promised this very epoch to another process can never follow in it: the
    /// reign goes on under a higher one, for which everybody is asked anew. Not while entries are
    /// numbered and not yet written, since their records name the epoch.
    pub(super) fn raise_if_taken(&mut self) {
        let (true, Some(begun), Reign::Leading) = (self.taken, self.led, self.reign) else {
            return;
        };
        if self.written < self.last {
            return;
        }
        self.taken = false;
        let tail_epoch = if self.last > begun { self.epoch } else { self.own.tail_epoch };
        self.own = OwnLog {
            log_id: self.log_id,
            epoch: self.epoch,
            last: self.last,
            tail_epoch,
            settled: self.epoch,
            commit: self.levels.commit,
            whole: true,
        };
        for to in self.indices() {
            if let Some(session) = self.progress(to).link.session() {
                let code = RefuseCode::Replaced;
                self.effects.push_back(Effect::Close { to, session, code });
                self.handle_disconnected(to, session);
            }
        }
        self.seek_promises(self.epoch.next());
        self.update_mode();
    }

    /// A secondary answered our leading HELLO while we do not lead yet.
    pub(super) fn take_promise(
        &mut self,
        now: Time,
        from: NodeIndex,
        session: SessionId,
        facts: HelloFacts,
    ) {
        if let Some(code) = self.not_our_reign(&facts) {
            self.effects.push_back(Effect::Close { to: from, session, code });
            return self.refuse(from, code);
        }
        let compared_at = self.last;
        let progress = self.progress(from);
        progress.reset_link(Link::Introduced(session));
        progress.answer = Some(facts);
        progress.promised = true;
        progress.compared_at = compared_at;
        self.alive(from);
        self.try_start(now);
    }

    fn not_our_reign(&self, facts: &HelloFacts) -> Option<RefuseCode> {
        if facts.log_id != self.log_id {
            Some(RefuseCode::ForeignLog)
        } else if (facts.epoch, facts.run_id) != (self.epoch, self.run_id) {
            Some(RefuseCode::StaleEpoch)
        } else {
            None
        }
    }

    fn count_promises(&mut self, now: Time) {
        let MasterConfig { quorum, accept_data_loss, .. } = self.config;
        let verdict = startup::judge_promises(
            now,
            self.started,
            &self.own,
            quorum,
            accept_data_loss,
            &self.secondaries,
        );
        match verdict {
            Verdict::Wait => {}
            Verdict::Lead { loss_accepted } => {
                self.loss_accepted = loss_accepted;
                self.lead(now);
            }
            // Only another master can have written it, after this one led.
            Verdict::Adopt { from } if self.led.is_some() => self.be_deposed(from, self.epoch),
            Verdict::Adopt { from } => {
                // Whoever is ahead has shown that something is missing here, and no break of its
                // connection makes that untrue.
                self.own.whole = false;
                self.adopt(now, from);
            }
        }
    }

    fn adopt(&mut self, now: Time, from: NodeIndex) {
        let progress = &self.secondaries[from.as_usize() - 1];
        let (Link::Introduced(session), Some(facts)) = (progress.link, progress.answer) else {
            return;
        };
        if progress.compared_at != self.last {
            // What was common was found with a log that has changed since: asked once more.
            if !std::mem::replace(&mut self.progress(from).comparing, true) {
                self.effects.push_back(Effect::Introduce { to: from, session });
            }
            return;
        }
        if facts.common < self.last {
            // Ours has entries that the longer log does not: they go aside, unless they were
            // committed, which would mean that a majority lost them.
            if facts.common < self.own.commit {
                self.set_damaged(true);
                return;
            }
            // Which epoch the log ends with then is not known here: lower than any is safe to say, and
            // kept before it is true.
            (self.own.tail_epoch, self.own.settled, self.own.whole) =
                (Epoch::ZERO, Epoch::ZERO, false);
            self.log_id.into_iter().for_each(|log_id| self.keep(log_id));
            let first = facts.common.next();
            self.effects.push_back(Effect::SetAside { from: first });
            (self.last, self.written) = (facts.common, facts.common);
            self.stored = self.stored.min(facts.common);
            self.own.last = facts.common;
            self.update_levels();
        }
        let (until, settled) = (facts.stored, facts.settled);
        self.reign = Reign::Adopting { from, session, until, settled };
        self.fetch_next(now);
    }

    fn fetch_next(&mut self, now: Time) {
        let Reign::Adopting { from, session, until, .. } = self.reign else { return };
        if self.written < until {
            let range = SeqRange::inclusive(self.written.next(), until);
            self.unfetched = 0;
            self.effects.push_back(Effect::Fetch { from, session, range });
        } else {
            self.lead_if_durable(now);
        }
    }

    fn asked_on(&self, of: NodeIndex, on: SessionId) -> bool {
        self.repairing.is_some_and(|(from, session, _)| (from, session) == (of, on))
    }

    /// Whether entries were asked for on this connection.
    pub fn awaits_entries(&self, of: NodeIndex, on: SessionId) -> bool {
        let adopts = matches!(self.reign, Reign::Adopting { from, session, .. } if (from, session) == (of, on));
        adopts || self.asked_on(of, on)
    }

    /// What was fetched is written to the own log, up to and including `up_to`, which `tail_epoch`
    /// numbered.
    pub fn handle_adopted(&mut self, now: Time, up_to: Seq, tail_epoch: Epoch) {
        assert!(up_to > self.written, "BUG: nothing new was adopted");
        (self.last, self.written) = (up_to, up_to);
        (self.own.last, self.own.tail_epoch, self.own.whole) = (up_to, tail_epoch, false);
        // Its leader had everything before it.
        self.own.settled = self.own.settled.max(tail_epoch);
        self.effects.push_back(Effect::MakeDurable { up_to });
        self.fetch_next(now);
    }

    /// What was adopted must not be lost again before anything is numbered behind it.
    pub(super) fn lead_if_durable(&mut self, now: Time) {
        if let Reign::Adopting { until, settled, .. } = self.reign
            && self.stored >= until
        {
            // The two logs are one now.
            self.own.settled = self.own.settled.max(settled);
            // Who answered meanwhile may hold more, and who answered before may be gone.
            self.reign = Reign::Promising;
            self.count_promises(now);
        }
    }

    /// What was fetched does not continue the own log, or cannot be had: that answer is worth
    /// nothing.
    pub fn handle_fetch_failed(&mut self, from: NodeIndex, session: SessionId) {
        if self.progress(from).link.session() == Some(session) {
            self.effects.push_back(Effect::Close { to: from, session, code: RefuseCode::Diverged });
            self.refuse(from, RefuseCode::Diverged);
        }
        self.adoption_broke(from, session);
    }

    /// Some of what was asked for has come, and the rest is asked for.
    pub fn handle_fetched_part(&mut self, from: NodeIndex, session: SessionId) {
        if self.asked_on(from, session) {
            self.unfetched = 0;
        }
    }

    /// What was asked for to mend the own log has come, as much as is put in place at once, and is being
    /// written there. `handle_repaired` or `handle_repair_failed` follows; until then nothing is asked for.
    pub fn handle_mending(&mut self) {
        self.repairing = None;
        self.mending = true;
    }

    /// What was fetched is in place. `damage` is what still cannot be read.
    pub fn handle_repaired(&mut self, damage: Option<SeqRange>) {
        self.mending = false;
        self.handle_damage(damage);
    }

    /// What was fetched to mend the own log could not be put there. What can change is the room on
    /// the disk, or who is asked: it is tried again after a while.
    pub fn handle_repair_failed(&mut self, now: Time) {
        if std::mem::take(&mut self.mending) {
            self.repair_at = Some(now.after(REPAIR_RETRY));
        }
    }

    /// The connection that the tail came from is gone: its answer counts again when it is back.
    pub(super) fn adoption_broke(&mut self, of: NodeIndex, broken: SessionId) {
        if self.asked_on(of, broken) {
            self.repairing = None;
            self.try_repair();
        }
        if let Reign::Adopting { from, session, .. } = self.reign
            && (from, session) == (of, broken)
        {
            self.reign = Reign::Promising;
        }
    }

    fn lead(&mut self, now: Time) {
        self.reign = Reign::Leading;
        self.led = Some(self.last);
        let heard = self.secondaries.iter().filter_map(|s| s.promise().map(|facts| facts.commit));
        let commit = heard.max().unwrap_or(Seq::ZERO).max(self.own.commit);
        // From now on a promise shows in following.
        for progress in &mut self.secondaries {
            (progress.promised, progress.settled) = (false, false);
        }
        // A commit beyond the log was lost by so many that nobody is left to say what it was.
        self.levels.commit = commit.min(self.last);
        if let (Some(log_id), true) =
            (self.log_id, !self.own.whole || self.own.settled < self.epoch)
        {
            // So many answered that nothing can be missing any more; and nothing is numbered before
            // it is kept that this log is the one that the epoch goes on with.
            (self.own.whole, self.own.settled) = (true, self.epoch);
            self.keep(log_id);
        }
        self.effects.push_back(Effect::BeginReign { epoch: self.epoch, last: self.last });
        self.introduce_all();
        self.settle_at = Some(now.after(ROSTER_WAIT));
        self.update_levels();
        self.update_mode();
    }

    /// Judges a secondary's answer to the HELLO of a master that leads.
    pub(super) fn judge_promise(
        &mut self,
        now: Time,
        to: NodeIndex,
        session: SessionId,
        facts: HelloFacts,
    ) {
        if let Some(code) = self.not_our_reign(&facts) {
            self.effects.push_back(Effect::Close { to, session, code });
            return self.refuse(to, code);
        }
        if facts.ours.is_none() && facts.stored <= self.written {
            return self.compare_later(to, session, facts);
        }
        let prefix = facts.stored <= self.written && facts.ours == Some(facts.tail);
        if !prefix {
            return self.align(to, session, facts);
        }
        let settled = facts.settled >= self.epoch;
        self.progress(to).become_following(session, facts.stored, settled);
        self.effects.push_back(Effect::Following { to, stored: facts.stored });
        self.alive(to);
        self.update_levels();
        if facts.stored > Seq::ZERO {
            self.collect_received(SeqRange::inclusive(Seq::FIRST, facts.stored));
            self.answer_released(super::super::waiters::Verdict::Met);
        }
        self.update_mode();
        self.try_repair();
        self.pump(now, to);
    }

    /// What its log ends with cannot be read here: the two are compared when it can be again, and what
    /// is damaged may come from this very node.
    fn compare_later(&mut self, to: NodeIndex, session: SessionId, facts: HelloFacts) {
        let progress = self.progress(to);
        progress.reset_link(Link::Introduced(session));
        progress.answer = Some(facts);
        (progress.promised, progress.accepted) = (true, false);
        self.alive(to);
        self.update_levels();
        self.update_mode();
        self.try_repair();
    }

    /// Asks those whose logs could not be compared to introduce themselves once more.
    fn compare_again(&mut self) {
        for to in self.indices() {
            let progress = self.progress(to);
            if let (Link::Introduced(session), Some(_)) = (progress.link, progress.promise()) {
                progress.promised = false;
                self.effects.push_back(Effect::Introduce { to, session });
            }
        }
    }

    /// Its log is not a prefix of ours: what it has behind the last common entry goes aside, or it
    /// says that it cannot be.
    fn align(&mut self, to: NodeIndex, session: SessionId, facts: HelloFacts) {
        let code = if facts.stored > self.written {
            RefuseCode::AheadOfMaster
        } else {
            RefuseCode::Diverged
        };
        let progress = self.progress(to);
        if progress.aligned == Some((session, facts.common)) {
            // It was told so once and comes back as it was.
            self.effects.push_back(Effect::Close { to, session, code });
            return self.refuse(to, code);
        }
        progress.reset_link(Link::Introduced(session));
        progress.aligned = Some((session, facts.common));
        progress.accepted = false;
        self.alive(to);
        self.update_levels();
        self.update_mode();
        self.effects.push_back(Effect::Align { to, session, last: facts.common });
    }

    /// The levels as this secondary may hear them. Who does not lead knows none: nobody may vouch for a
    /// log because of it. And whose log was not found to be a prefix of ours hears none: what it holds
    /// beyond the common part must not look committed to it, or it could never be set aside.
    pub fn levels_for(&self, to: NodeIndex) -> Levels {
        let follows = matches!(self.secondaries[to.as_usize() - 1].link, Link::Following(_));
        if self.reign == Reign::Leading && follows {
            return self.levels.clone();
        }
        Levels { commit: self.levels.commit, held_by: Vec::new() }
    }

    pub(super) fn refuse(&mut self, to: NodeIndex, code: RefuseCode) {
        let progress = self.progress(to);
        progress.reset_link(Link::Down);
        progress.accepted = false;
        progress.promised = false;
        progress.refused = Some(code);
        let from = progress.health.health();
        if progress.health.refused() {
            self.effects.push_back(Effect::HealthChanged { of: to, from, to: Health::Unhealthy });
        }
        // What it holds counts no more: the levels must say so before anybody asks.
        self.update_levels();
        self.update_mode();
    }
    /// Nodes present: the master, and every secondary whose introduction was accepted and that is
    /// not unhealthy.
    pub fn present(&self) -> usize {
        let present = |progress: &&Progress| {
            progress.accepted && progress.health.health() != Health::Unhealthy
        };
        1 + self.secondaries.iter().filter(present).count()
    }

    pub(super) fn update_mode(&mut self) {
        let present = self.present();
        let enough = present >= self.config.quorum;
        let settling = self.mode == Mode::Recovering && (self.settle_at.is_some() && !enough);
        let from = self.mode;
        let to = match self.reign {
            _ if self.damaged => Mode::Damaged,
            Reign::Leading if settling => return,
            Reign::Leading if enough => Mode::Normal,
            Reign::Leading => Mode::ReadOnly,
            _ => Mode::Recovering,
        };
        if self.reign == Reign::Leading {
            self.settle_at = None;
        }
        if from != to {
            self.mode = to;
            self.effects.push_back(Effect::ModeChanged { from, to, present });
        }
    }

    pub(super) fn set_damaged(&mut self, damaged: bool) {
        self.damaged = damaged;
        self.update_mode();
    }

    /// These entries of the own log cannot be read; `None`: all can again. A damaged master numbers
    /// nothing until it is repaired from a secondary. Told what it knows, it asks once more.
    pub fn handle_damage(&mut self, damage: Option<SeqRange>) {
        let changed = self.damage != damage;
        self.damage = damage;
        // More that is damaged behind what was asked for is asked for later.
        let grown = |asked: SeqRange| {
            damage.is_some_and(|now| now.first == asked.first && asked.end <= now.end)
        };
        self.repairing.take_if(|(.., asked)| !changed || !grown(*asked));
        self.set_damaged(damage.is_some());
        if changed {
            self.repair_at = None;
            self.secondaries.iter_mut().for_each(Progress::try_reading);
        }
        self.try_repair();
        if self.reign == Reign::Leading {
            self.compare_again();
        }
    }

    /// What of the own log cannot be read.
    pub fn damage(&self) -> Option<SeqRange> {
        self.damage
    }

    /// Fetches what is damaged from whoever holds it.
    pub(super) fn try_repair(&mut self) {
        let idle = self.repairing.is_none() && !self.mending && self.repair_at.is_none();
        let (Some(range), true, Reign::Leading) = (self.damage, idle, self.reign) else {
            return;
        };
        let source = |(at, progress): (usize, &Progress)| {
            let (session, stored) = match progress.link {
                Link::Following(session) => (session, progress.stored),
                Link::Introduced(session) => (session, progress.promise()?.stored),
                Link::Down | Link::Dialling => return None,
            };
            let held = range.intersection(SeqRange::inclusive(Seq::FIRST, stored));
            (!held.is_empty()).then_some((held, NodeIndex::secondary(at), session))
        };
        // Whoever holds most of it; the first of equals.
        let sources = self.secondaries.iter().enumerate().filter_map(source);
        let most = sources.min_by_key(|(held, from, _)| (std::cmp::Reverse(held.end), *from));
        if let Some((range, from, session)) = most {
            self.repairing = Some((from, session, range));
            self.unfetched = 0;
            self.effects.push_back(Effect::Fetch { from, session, range });
        }
    }

    /// The settled epoch of the own log.
    pub fn settled(&self) -> Epoch {
        self.own.settled
    }

    /// The history that this master leads or means to lead.
    pub fn log_id(&self) -> Option<LogId> {
        self.log_id
    }
}
