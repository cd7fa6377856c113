//! The master's side: numbers entries, counts positions, judges health, decides what is sent.

mod reign;

use std::collections::VecDeque;
use std::time::Duration;

use super::SessionId;
use super::effect::{Effect, Mode, Refused, Submission};
use super::health::{Health, HealthMonitor};
use super::progress::{AckFacts, AttemptFailure, HelloFacts, Link, Progress};
use super::quorum::Levels;
use super::startup::OwnLog;
use super::waiters::{Answer, Request, Verdict, Waiter, Waiters};
use crate::codes::{NackCode, RefuseCode};
use crate::limits::ROSTER_WAIT;
use crate::types::{
    AckLevel, Epoch, LogId, NodeIndex, NodeSet, RunId, Seq, SeqRange, Shortage, Time, Timeout,
    WriteConcern,
};
pub use reign::Reign;

/// What an operator decides.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// n: the configured nodes, the master included.
    pub nodes: usize,
    /// Fewest present nodes, master included, for appends to be accepted. 1 to n.
    pub quorum: usize,
    /// For appends that name none.
    pub write_concern: WriteConcern,
    /// For appends that name none.
    pub ack: AckLevel,
    /// For appends that name none.
    pub timeout: Timeout,
    /// One heartbeat per secondary and interval.
    pub heartbeat_interval: Duration,
    /// Misses in a row.
    pub suspected_after: u32,
    /// Misses in a row; not below `suspected_after`.
    pub unhealthy_after: u32,
    /// No progress for so long is a failed attempt.
    pub attempt_timeout: Duration,
    /// Waits between failed attempts; the last repeats for ever. Not empty.
    pub retry_delays: Vec<Duration>,
    /// Entry bytes under way to one secondary.
    pub window_bytes_max: usize,
    /// Begin a new history without waiting for the roster.
    pub bootstrap: bool,
    /// Lead although too few answer, if the log then ends at this entry or later.
    pub accept_data_loss: Option<Seq>,
}

/// The master's engine.
///
/// # Invariants
/// `stored <= written <= last`; C(k) and commit count only positions of secondaries that promised
/// this epoch and whose prefix id matched; a number is given once and never taken back.
#[derive(Debug)]
pub struct Master {
    config: MasterConfig,
    run_id: RunId,
    fresh_log_id: LogId,
    started: Time,
    own: OwnLog,
    reign: Reign,
    damaged: bool,
    /// Entries of the own log that cannot be read.
    damage: Option<SeqRange>,
    /// Who was asked, and for which of them.
    repairing: Option<(NodeIndex, SessionId, SeqRange)>,
    /// What was fetched is being put in place: nothing is asked for meanwhile.
    mending: bool,
    /// A repair failed: not before this time again.
    repair_at: Option<Time>,
    /// Heartbeats that who was asked for entries has answered since.
    unfetched: u32,
    shortage: Option<Shortage>,
    /// The last entry when it began to lead; `None` before.
    led: Option<Seq>,
    /// A secondary promised this epoch to another process.
    taken: bool,
    /// See [`Master::loss_accepted`].
    loss_accepted: bool,
    log_id: Option<LogId>,
    epoch: Epoch,
    mode: Mode,
    roster_wait_over: bool,
    /// While recovering with a history begun: when to stop waiting for the quorum to follow.
    settle_at: Option<Time>,
    stopping: bool,
    last: Seq,
    written: Seq,
    stored: Seq,
    levels: Levels,
    secondaries: Vec<Progress>,
    waiters: Waiters,
    effects: VecDeque<Effect>,
    positions: Vec<Seq>,
    released: Vec<Waiter>,
}

impl Master {
    /// A master with a log of its own, maybe an empty one. `run_id` names this process and
    /// `fresh_log_id` a history that it may begin: both random, both given from outside.
    pub fn new(
        config: MasterConfig,
        run_id: RunId,
        fresh_log_id: LogId,
        own: OwnLog,
        now: Time,
    ) -> Self {
        let progress = || {
            let health = HealthMonitor::new(config.suspected_after, config.unhealthy_after);
            Progress::new(health, config.window_bytes_max, now)
        };
        let mut master = Master {
            run_id,
            fresh_log_id,
            started: now,
            own,
            reign: Reign::Asking,
            damaged: false,
            damage: None,
            repairing: None,
            mending: false,
            repair_at: None,
            unfetched: 0,
            shortage: None,
            led: None,
            taken: false,
            loss_accepted: false,
            log_id: None,
            epoch: Epoch::ZERO,
            mode: Mode::Recovering,
            roster_wait_over: false,
            settle_at: None,
            stopping: false,
            last: own.last,
            written: own.last,
            stored: own.last,
            levels: Levels { commit: own.commit.min(own.last), ..Levels::empty(config.nodes) },
            secondaries: (1..config.nodes).map(|_| progress()).collect(),
            waiters: Waiters::new(config.nodes),
            effects: VecDeque::new(),
            positions: Vec::new(),
            released: Vec::new(),
            config,
        };
        master.update_levels();
        master.try_start(now);
        master
    }

    // ---- getters ----

    /// The configuration.
    pub fn config(&self) -> &MasterConfig {
        &self.config
    }

    /// Whether appends are accepted.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The epoch of this reign; 0 before it began.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// This process.
    pub fn run_id(&self) -> RunId {
        self.run_id
    }

    /// The last number given.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// The levels now.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// The secondaries in roster order.
    pub fn secondaries(&self) -> &[Progress] {
        &self.secondaries
    }

    /// Appends and waits that are not answered.
    pub fn waiting(&self) -> u64 {
        self.waiters.waiting()
    }

    /// Every append and wait that is not answered, with its entry.
    pub fn waiters(&self) -> impl Iterator<Item = (&Waiter, Seq)> {
        self.waiters.iter().flat_map(|waiter| {
            let numbers = waiter.range.first.number()..waiter.range.end.number();
            numbers.map(move |number| (waiter, Seq::new(number)))
        })
    }

    /// Which nodes hold `seq` at a level, the master included.
    pub fn holders(&self, seq: Seq, ack: AckLevel) -> NodeSet {
        self.holders_from(seq, ack).0
    }

    // ---- outputs ----

    /// The next thing to do, in order.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.stopping {
            return None; // Everybody has an answer, and nobody is judged any more.
        }
        // Once the wait for the roster is over only answers matter, and they are inputs.
        let roster_wait = (!self.roster_wait_over).then(|| self.started.after(ROSTER_WAIT));
        let of_secondaries = self.secondaries.iter().flat_map(|progress| {
            let attempt = progress.attempt_due(self.config.attempt_timeout);
            [Some(progress.heartbeat_at), attempt, progress.retry_at()]
        });
        of_secondaries
            .chain([roster_wait, self.settle_at, self.waiters.next_deadline()])
            .flatten()
            .min()
    }

    // ---- inputs: clients ----

    /// Numbers a run of appends. The caller then writes the entries and reports `handle_written`.
    ///
    /// # Errors
    /// Nothing changed, and no number was consumed.
    pub fn handle_append(&mut self, now: Time, run: Submission) -> Result<SeqRange, Refused> {
        let need = self.resolve(run.options.concern.unwrap_or(self.config.write_concern))?;
        match self.mode {
            _ if self.stopping => return Err(Refused::Stopping),
            Mode::Damaged => return Err(Refused::Damaged),
            Mode::Recovering => return Err(Refused::Recovering),
            Mode::ReadOnly => return Err(Refused::ReadOnly { present: self.present() }),
            Mode::Normal => {
                self.shortage.map_or(Ok(()), |shortage| Err(Refused::DiskFull { shortage }))?;
            }
        }
        let range = SeqRange::with_len(self.last.next(), run.count);
        self.last = range.last();
        let waiter = self.waiter(now, Request::Append, range, need, run);
        if waiter.ack == AckLevel::Received && need == 1 {
            self.answer(&waiter, Verdict::Met);
        } else {
            self.waiters.push_append(waiter);
        }
        Ok(range)
    }

    /// Waits for an entry that is in the log already. `run.count` is 1.
    ///
    /// # Errors
    /// Nothing changed.
    pub fn handle_wait(&mut self, now: Time, seq: Seq, run: Submission) -> Result<(), Refused> {
        let need = self.resolve(run.options.concern.unwrap_or(self.config.write_concern))?;
        if seq == Seq::ZERO || seq > self.last {
            return Err(Refused::NotFound { next: self.last.next() });
        }
        if self.stopping {
            return Err(Refused::Stopping);
        }
        let range = SeqRange::with_len(seq, 1);
        let waiter = self.waiter(now, Request::Wait, range, need, run);
        self.waiters.push_wait(waiter);
        match waiter.ack {
            AckLevel::Stored => {
                let level = self.levels.held_by(need);
                self.waiters.release_stored(need, level, &mut self.released);
            }
            AckLevel::Received => self.collect_received(range),
        }
        self.answer_released(Verdict::Met);
        self.expire(now);
        Ok(())
    }

    /// A client's connection is gone: it gave up waiting, not its appends.
    pub fn handle_gone(&mut self, connection: u64) {
        self.waiters.forget(connection);
    }

    /// The node stops: whoever waits is told PENDING, as soon as the entry is in the own log.
    pub fn handle_stop(&mut self) {
        self.stopping = true;
        self.waiters.give_up();
        self.waiters.release_overdue(self.stored, &mut self.released);
        self.answer_released(Verdict::Waiting);
    }

    // ---- inputs: the own log ----

    /// The own write() returned for everything up to and including `up_to`: it may be sent.
    pub fn handle_written(&mut self, now: Time, up_to: Seq) {
        assert!(up_to <= self.last, "BUG: {up_to} was written but never numbered");
        if up_to <= self.written {
            return;
        }
        self.written = up_to;
        self.pump_all(now);
        self.effects.push_back(Effect::MakeDurable { up_to });
    }

    /// The own log is durable up to and including `up_to`, as the fsync policy promises.
    pub fn handle_stored(&mut self, now: Time, up_to: Seq) {
        assert!(up_to <= self.written, "BUG: {up_to} is durable but was never written");
        self.stored = self.stored.max(up_to);
        self.update_levels();
        self.expire(now);
        self.lead_if_durable(now);
    }

    /// What the disk lacks for another run; `None`: there is room.
    pub fn handle_room(&mut self, shortage: Option<Shortage>) {
        self.shortage = shortage;
    }

    // ---- inputs: secondaries ----

    /// A connection attempt failed before the secondary introduced itself.
    pub fn handle_dial_failed(&mut self, now: Time, to: NodeIndex) {
        let progress = self.progress(to);
        if !matches!(progress.link, Link::Dialling) {
            return;
        }
        progress.tried = true;
        progress.link = Link::Down;
        // One for each interval: those that it spanned are counted, this is the one it ends in.
        self.missed(to);
        self.try_start(now);
    }

    /// A secondary introduced itself on a new connection, or anew after `Introduce`. `leading` tells
    /// whether our HELLO named an epoch, so that its answer is a promise.
    pub fn handle_introduced(
        &mut self,
        now: Time,
        to: NodeIndex,
        session: SessionId,
        facts: HelloFacts,
        leading: bool,
    ) {
        let progress = self.progress(to);
        if !matches!(progress.link, Link::Dialling) && progress.link.session() != Some(session) {
            return;
        }
        progress.tried = true;
        if leading {
            return match self.reign {
                Reign::Leading => self.judge_promise(now, to, session, facts),
                _ => self.take_promise(now, to, session, facts),
            };
        }
        progress.promised = false;
        progress.reset_link(Link::Introduced(session));
        progress.answer = Some(facts);
        self.alive(to);
        if self.log_id.is_some() {
            self.effects.push_back(Effect::Introduce { to, session });
        }
        self.try_start(now);
    }

    /// The secondary refused us, and closes.
    pub fn handle_refused(
        &mut self,
        to: NodeIndex,
        session: SessionId,
        code: RefuseCode,
        epoch: Epoch,
    ) {
        let progress = self.progress(to);
        let dialling = matches!(progress.link, Link::Dialling);
        if !dialling && progress.link.session() != Some(session) {
            return;
        }
        progress.tried = true;
        let lasting = !matches!(
            code,
            RefuseCode::Busy | RefuseCode::Stopping | RefuseCode::Replaced | RefuseCode::SlowReader
        );
        if lasting {
            self.refuse(to, code);
        } else {
            progress.reset_link(Link::Down);
            if dialling {
                // Turned away at the door: an attempt that failed like any other.
                self.missed(to);
            }
        }
        self.adoption_broke(to, session);
        if matches!(code, RefuseCode::StaleEpoch | RefuseCode::EpochTaken) {
            self.handle_promised_elsewhere(to, epoch);
        }
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, to: NodeIndex, session: SessionId) {
        let progress = self.progress(to);
        if progress.link.session() == Some(session) {
            let unanswered = progress.awaiting;
            progress.reset_link(Link::Down);
            if unanswered {
                self.missed(to);
            }
            self.adoption_broke(to, session);
        }
    }

    /// Any frame came from a secondary: a sign of life.
    pub fn handle_heard(&mut self, now: Time, from: NodeIndex, session: SessionId) {
        if self.progress(from).link.session() == Some(session) {
            self.alive(from);
            self.pump(now, from);
        }
    }

    /// A secondary tells what it holds.
    pub fn handle_ack(&mut self, now: Time, from: NodeIndex, session: SessionId, ack: AckFacts) {
        // Whoever says that all before our first number is stored has settled our epoch before it.
        let settled = self.led.is_some_and(|before| ack.stored >= before);
        let progress = self.progress(from);
        if progress.link != Link::Following(session) {
            return;
        }
        progress.settled |= settled;
        let Some(changed) = progress.handle_ack(now, ack) else {
            let code = RefuseCode::BadFrame;
            self.effects.push_back(Effect::Close { to: from, session, code });
            return self.handle_disconnected(from, session);
        };
        progress.check_invariants();
        self.alive(from);
        self.update_levels();
        if !changed.is_empty() {
            self.collect_received(changed);
            self.answer_released(Verdict::Met);
        }
        self.pump(now, from);
    }

    /// A secondary did not take an entry, and why, if that is a reason known here.
    pub fn handle_nack(
        &mut self,
        now: Time,
        from: NodeIndex,
        session: SessionId,
        code: Option<NackCode>,
    ) {
        if self.progress(from).link == Link::Following(session) {
            self.alive(from);
            self.progress(from).full |= code == Some(NackCode::DiskFull);
            self.fail_attempt(now, from, AttemptFailure::Nack);
            self.pump(now, from);
        }
    }

    /// What `Effect::Send` asked for was handed to the connection.
    pub fn handle_sent(
        &mut self,
        now: Time,
        to: NodeIndex,
        session: SessionId,
        range: SeqRange,
        bytes: usize,
    ) {
        if self.progress(to).link == Link::Following(session) {
            self.progress(to).handle_sent(range, bytes);
            self.pump(now, to);
        }
    }

    /// What `Effect::Send` asked for in `epoch` was read, which took a while. Answers whether it is still
    /// to be sent: not on another connection or in another epoch, nor to a secondary that has become
    /// unhealthy, to which all is sent when it speaks again.
    pub fn handle_read(&mut self, to: NodeIndex, session: SessionId, epoch: Epoch) -> bool {
        let current = epoch == self.epoch;
        let progress = self.progress(to);
        if progress.link != Link::Following(session) || !current {
            return false;
        }
        let paused = progress.health.health() == Health::Unhealthy;
        if paused {
            progress.handle_unsent();
        }
        !paused
    }

    /// What `Effect::Send` asked for cannot be read: it is tried again with a heartbeat. The connection
    /// stays, for what is damaged may have to come by it.
    pub fn handle_unreadable(&mut self, to: NodeIndex, session: SessionId) {
        if self.progress(to).link == Link::Following(session) {
            self.progress(to).handle_unreadable();
        }
    }

    /// So many APPEND frames left our socket buffer, the latest ending at `up_to`.
    pub fn handle_flushed(
        &mut self,
        now: Time,
        to: NodeIndex,
        session: SessionId,
        up_to: Seq,
        frames: usize,
    ) {
        if self.progress(to).link == Link::Following(session) {
            self.progress(to).handle_flushed(now, up_to, frames);
            self.pump(now, to);
        }
    }

    // ---- inputs: time ----

    /// Does what is due. Safe to call too often.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.stopping {
            return;
        }
        self.raise_if_taken();
        for to in self.indices() {
            if self.progress(to).heartbeat_at <= now {
                self.heartbeat(now, to);
            }
            let attempt_timeout = self.config.attempt_timeout;
            if self.progress(to).attempt_due(attempt_timeout).is_some_and(|due| due <= now) {
                self.fail_attempt(now, to, AttemptFailure::Timeout);
            }
            if self.progress(to).retry_at().is_some_and(|due| due <= now) {
                self.progress(to).repeat_now();
                self.pump(now, to);
            }
        }
        if now >= self.started.after(ROSTER_WAIT) {
            self.roster_wait_over = true;
        }
        self.try_start(now);
        if self.settle_at.is_some_and(|due| due <= now) {
            self.settle_at = None;
            self.update_mode();
        }
        self.expire(now);
    }

    // ---- decisions ----

    fn resolve(&self, concern: WriteConcern) -> Result<usize, Refused> {
        concern.resolve(self.config.nodes).ok_or(Refused::BadWriteConcern { concern })
    }

    fn waiter(
        &self,
        now: Time,
        request: Request,
        range: SeqRange,
        need: usize,
        run: Submission,
    ) -> Waiter {
        let deadline = match run.options.timeout.unwrap_or(self.config.timeout) {
            Timeout::Forever => None,
            Timeout::For(duration) => Some(now.after(duration)),
        };
        let ack = run.options.ack.unwrap_or(self.config.ack);
        let (token, base, since) = (run.token, range.first, now);
        Waiter { token, request, base, range, need, ack, since, deadline }
    }

    fn heartbeat(&mut self, now: Time, to: NodeIndex) {
        let interval = self.config.heartbeat_interval;
        let heartbeat_at = now.after(interval);
        let asked = self.log_id.is_some();
        let patience = (interval * self.config.unhealthy_after).max(ROSTER_WAIT);
        let session = self.progress(to).link.session();
        let fetching = session.is_some_and(|session| self.awaits_entries(to, session));
        let progress = &mut self.secondaries[to.as_usize() - 1];
        progress.heartbeat_at = heartbeat_at;
        let answered = u32::from(!progress.awaiting);
        let introducing = matches!(progress.link, Link::Introduced(_));
        if introducing && asked && (progress.promise().is_none() || progress.comparing) {
            progress.unpromised += answered;
        }
        if fetching {
            self.unfetched += answered;
        }
        let unanswered = progress.unpromised.max(if fetching { self.unfetched } else { 0 });
        if let Some(session) = session
            && interval * unanswered > patience
        {
            // It lives, but its promise, or what was fetched, was lost: a new connection asks again.
            let code = RefuseCode::NoIntroduction;
            self.effects.push_back(Effect::Close { to, session, code });
            return self.handle_disconnected(to, session);
        }
        match progress.link {
            Link::Down => {
                progress.link = Link::Dialling;
                self.effects.push_back(Effect::Dial { to });
            }
            Link::Dialling => self.missed(to),
            Link::Introduced(session) | Link::Following(session) => {
                if std::mem::replace(&mut progress.awaiting, true) {
                    self.missed(to);
                }
                self.effects.push_back(Effect::Heartbeat { to, session });
            }
        }
        // It may hold by now what is damaged here, or a repair that failed may be tried again.
        self.repair_at.take_if(|at| *at <= now);
        self.try_repair();
        self.progress(to).try_reading();
        self.pump(now, to);
    }

    fn missed(&mut self, of: NodeIndex) {
        let progress = self.progress(of);
        let from = progress.health.health();
        if !progress.health.missed() {
            return;
        }
        let to = progress.health.health();
        if to == Health::Unhealthy {
            progress.pause();
        }
        self.effects.push_back(Effect::HealthChanged { of, from, to });
        self.update_mode();
    }

    /// A sign of life: heals, and resumes at once what paused.
    fn alive(&mut self, of: NodeIndex) {
        let progress = self.progress(of);
        progress.awaiting = false;
        let from = progress.health.health();
        if !progress.health.heard() {
            return;
        }
        if from == Health::Unhealthy {
            progress.repeat_now();
        }
        self.effects.push_back(Effect::HealthChanged { of, from, to: Health::Healthy });
        self.update_mode();
    }

    fn fail_attempt(&mut self, now: Time, to: NodeIndex, failure: AttemptFailure) {
        if self.secondaries[to.as_usize() - 1].health.health() == Health::Unhealthy {
            // Nothing is due from it, or time would stand still at what is.
            self.secondaries[to.as_usize() - 1].pause();
            return;
        }
        let progress = &mut self.secondaries[to.as_usize() - 1];
        let seq = progress.received.next();
        if let Some((attempts, wait)) = progress.fail_attempt(now, &self.config.retry_delays) {
            self.effects.push_back(Effect::AttemptFailed { to, seq, failure, attempts, wait });
        }
    }

    fn pump_all(&mut self, now: Time) {
        for to in self.indices() {
            self.pump(now, to);
        }
    }

    fn pump(&mut self, _now: Time, to: NodeIndex) {
        let written = self.written;
        let progress = self.progress(to);
        if let Link::Following(session) = progress.link
            && let Some(to_send) = progress.next_send(written)
        {
            let super::progress::ToSend { range, bytes_max, again } = to_send;
            self.effects.push_back(Effect::Send { to, session, range, bytes_max, again });
        }
    }

    fn update_levels(&mut self) {
        self.positions.clear();
        let commit = self.levels.commit;
        // Only what this epoch proved counts: a refused secondary holds nothing of this log, and one that
        // has not settled the epoch makes nothing committed, since its log could lose against another.
        self.positions.extend(self.secondaries.iter().map(|progress| progress.counted(commit)));
        if !self.levels.update(self.stored, &mut self.positions) {
            return;
        }
        assert!(self.levels.commit >= commit, "BUG: the commit position fell");
        for need in 1..=self.config.nodes {
            let level = self.levels.held_by(need);
            self.waiters.release_stored(need, level, &mut self.released);
        }
        self.answer_released(Verdict::Met);
    }

    fn expire(&mut self, now: Time) {
        self.waiters.expire(now, self.stored, &mut self.released);
        self.answer_released(Verdict::Waiting);
    }

    fn collect_received(&mut self, changed: SeqRange) {
        let Master { secondaries, waiters, released, .. } = self;
        let held = |seq| {
            let (holders, until) = holders_among(secondaries, Seq::new(u64::MAX), seq, None);
            (holders.len(), until)
        };
        waiters.release_received(changed, held, released);
    }

    fn answer_released(&mut self, verdict: Verdict) {
        let mut released = std::mem::take(&mut self.released);
        released.drain(..).for_each(|waiter| self.answer(&waiter, verdict));
        self.released = released;
    }

    fn answer_all(&mut self, verdict: Verdict) {
        self.waiters.drain().iter().for_each(|waiter| self.answer(waiter, verdict));
    }

    /// Answers a run in as many parts as have different holders.
    fn answer(&mut self, waiter: &Waiter, verdict: Verdict) {
        let Waiter { token, request, base, mut range, need, ack, since, .. } = *waiter;
        while !range.is_empty() {
            let (holders, until) = self.holders_from(range.first, ack);
            let end = until.map_or(range.end, |until| until.min(range.end));
            let part = SeqRange::new(range.first, end);
            // Time may be over just when the last node's ACK came: then it is met.
            let met = verdict == Verdict::Waiting && holders.len() >= need;
            let verdict = if met { Verdict::Met } else { verdict };
            assert!(
                verdict != Verdict::Met || holders.len() >= need,
                "BUG: OK for {part} with {} of {need} nodes",
                holders.len()
            );
            let offset = part.first.distance_from(base);
            self.effects.push_back(Effect::Answer(Answer {
                token,
                offset,
                range: part,
                need,
                holders,
                verdict,
                request,
                since,
            }));
            range.first = end;
        }
    }

    /// Which nodes hold `seq`, and up to where (exclusive) that stays so.
    fn holders_from(&self, seq: Seq, ack: AckLevel) -> (NodeSet, Option<Seq>) {
        let received = ack == AckLevel::Received;
        let own = if received { self.last } else { self.stored };
        let commit = (!received).then_some(self.levels.commit);
        holders_among(&self.secondaries, own, seq, commit)
    }

    fn progress(&mut self, of: NodeIndex) -> &mut Progress {
        // Indices are made from the roster: a secondary's is never that of the master.
        &mut self.secondaries[of.as_usize() - 1]
    }

    fn indices(&self) -> impl Iterator<Item = NodeIndex> + use<> {
        (0..self.secondaries.len()).map(NodeIndex::secondary)
    }
}

/// Who has stored `seq`, as far as that counts where `commit` is committed; without it, who received it.
fn holders_among(
    secondaries: &[Progress],
    own: Seq,
    seq: Seq,
    commit: Option<Seq>,
) -> (NodeSet, Option<Seq>) {
    let mut holders = NodeSet::default();
    let mut until = None;
    if seq <= own {
        holders = holders.with(NodeIndex::MASTER);
        until = Some(own.next());
    }
    for (position, progress) in secondaries.iter().enumerate().filter(|(_, p)| p.accepted) {
        let (holds, changes) = progress.holds(seq, commit);
        if holds {
            holders = holders.with(NodeIndex::secondary(position));
        }
        until = match (until, changes) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    (holders, until)
}
