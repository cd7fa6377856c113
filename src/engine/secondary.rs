//! The secondary's side: what is appended, held back, acknowledged, refused.

use std::collections::{BTreeMap, VecDeque};

use super::SessionId;
use super::quorum::Levels;
use super::ranges::RangeSet;
use crate::codes::{NackCode, RefuseCode};
use crate::limits::{HOLD_BACK_BYTES_MAX, HOLD_BACK_RUNS_MAX};
use crate::types::{Epoch, LogId, PrefixId, RunId, Seq, SeqRange};

/// A master may ask for an epoch at most so much higher: a wild number must not use up the space.
pub(super) const EPOCH_STEP_MAX: u64 = 1 << 32;

/// A run that arrived, checked as a chain by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which entries.
    pub range: SeqRange,
    /// Prefix id before its first entry.
    pub before: PrefixId,
    /// Prefix id at its last entry.
    pub tail: PrefixId,
    /// Its length.
    pub bytes: usize,
    /// Where it overlaps the own log: (the run's prefix id, the own one) at the last common number.
    pub overlap: Option<(PrefixId, PrefixId)>,
}

/// What the runtime must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecondaryEffect {
    /// Append these entries of the run that just arrived, then report `handle_written`.
    Append {
        /// Its new part.
        range: SeqRange,
    },
    /// Keep the run that just arrived until the entries before it come.
    Hold {
        /// Its entries; the first names it.
        range: SeqRange,
    },
    /// Hand the run kept under this number in again, as if it arrived now.
    Release {
        /// The run's first number.
        first: Seq,
    },
    /// Forget all runs that are kept.
    DropHeld,
    /// Make the own log durable, then report `handle_stored`.
    MakeDurable {
        /// Up to and including.
        up_to: Seq,
    },
    /// Tell the master what is here.
    Ack {
        /// The connection.
        session: SessionId,
        /// Everything up to here is stored.
        stored: Seq,
        /// Everything up to here is in memory.
        received: Seq,
        /// What else is in memory.
        held: RangeSet,
        /// Entries that came twice.
        duplicates: u64,
    },
    /// Tell the master what was not taken.
    Nack {
        /// The connection.
        session: SessionId,
        /// The first entry not taken.
        seq: Seq,
        /// Why.
        code: NackCode,
    },
    /// Keep history, promise and whether this node vouches for its log, durably, before anything
    /// that follows is carried out.
    Keep {
        /// The history.
        log_id: LogId,
        /// The epoch promised …
        epoch: Epoch,
        /// … and to which process.
        run_id: RunId,
        /// The settled epoch.
        settled: Epoch,
        /// Whether the log holds all that it ever acknowledged.
        vouches: bool,
    },
    /// Move everything from this entry on aside: the master's log has others there.
    SetAside {
        /// The first to go.
        from: Seq,
    },
    /// Close without a word: the master dials again, and hears then how the log is now.
    Reconnect {
        /// The connection.
        session: SessionId,
    },
    /// Refuse the master and close.
    Close {
        /// The connection.
        session: SessionId,
        /// Why.
        code: RefuseCode,
    },
}

/// The log a secondary starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Its history; none for an empty store.
    pub log_id: Option<LogId>,
    /// The epoch promised …
    pub epoch: Epoch,
    /// … and to which process.
    pub run_id: RunId,
    /// Its last entry …
    pub last: Seq,
    /// … and prefix id there.
    pub tail: PrefixId,
    /// The *settled epoch*: the highest whose leader found this log to be a prefix of its own, and
    /// before whose first number it has everything stored. Never below the epoch of its last entry.
    pub settled: Epoch,
    /// The highest commit position it knows.
    pub commit: Seq,
    /// It holds all that it ever acknowledged. False for an empty store, and for one that may have
    /// lost what was not synced.
    pub vouches: bool,
}

/// What a master says in its HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterHello {
    /// Its history.
    pub log_id: Option<LogId>,
    /// The epoch it leads; 0 if it only asks.
    pub epoch: Epoch,
    /// Its process.
    pub run_id: RunId,
    /// The first entry that its epoch numbers; `None` if it does not say: then nobody can know what
    /// came before its reign.
    pub begins: Option<Seq>,
}

/// The secondary's engine.
///
/// # Invariants
/// `stored <= written`; an ACK that says all before the epoch's first number is stored goes out only
/// once the epoch is settled and that is kept; nothing up to `written` changes but by being set aside above the commit
/// position; every run held starts behind `written + 1`; the promise never falls.
#[derive(Debug)]
pub struct Secondary {
    log_id: Option<LogId>,
    epoch: Epoch,
    run_id: RunId,
    session: Option<SessionId>,
    written: Seq,
    tail: PrefixId,
    stored: Seq,
    /// The last entry that the master knows of by this session: what it was told, or sent.
    known: Seq,
    /// Up to here what repairs the log came by this session, and waits to be put in place.
    repairing: Seq,
    vouches: bool,
    settled: Epoch,
    /// The master told the levels since it last introduced itself.
    levels_heard: bool,
    /// What the master sent since then does not fit this log: what it says of levels is about another.
    parted: bool,
    /// The first entry that its epoch numbers, if it said so.
    begins: Option<Seq>,
    /// Entries that cannot be read.
    damage: Option<SeqRange>,
    /// The master's log differs from this one behind this entry, which is below the commit position.
    contradicted: Option<Seq>,
    /// Runs kept, by their first number: end and bytes.
    held: BTreeMap<Seq, (Seq, usize)>,
    held_bytes: usize,
    levels: Levels,
    duplicates: u64,
    /// The longest run that was refused for want of room, in bytes, and the master was not told since
    /// that there is some.
    lacks: Option<usize>,
    ack_due: bool,
    effects: VecDeque<SecondaryEffect>,
}

impl Secondary {
    /// A secondary with a log of its own, maybe an empty one.
    pub fn new(own: Holdings) -> Self {
        Secondary {
            log_id: own.log_id,
            epoch: own.epoch,
            run_id: own.run_id,
            session: None,
            written: own.last,
            tail: own.tail,
            stored: own.last,
            known: own.last,
            repairing: Seq::ZERO,
            vouches: own.vouches,
            settled: own.settled,
            levels_heard: false,
            parted: false,
            begins: None,
            damage: None,
            contradicted: None,
            held: BTreeMap::new(),
            held_bytes: 0,
            levels: Levels { commit: own.commit, held_by: Vec::new() },
            duplicates: 0,
            lacks: None,
            ack_due: false,
            effects: VecDeque::new(),
        }
    }

    // ---- getters ----

    /// The history, none while virgin.
    pub fn log_id(&self) -> Option<LogId> {
        self.log_id
    }

    /// The epoch promised.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The process it was promised to.
    pub fn run_id(&self) -> RunId {
        self.run_id
    }

    /// The connection that is followed.
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The last entry in the log.
    pub fn written(&self) -> Seq {
        self.written
    }

    /// The last entry that is stored, with every one before it readable: what a HELLO says.
    pub fn stored(&self) -> Seq {
        self.readable(self.stored)
    }

    /// The last entry that may be shown: everything before it is there, readable, and contradicts
    /// nobody.
    pub fn visible(&self) -> Seq {
        let visible = self.readable(self.written);
        self.contradicted.map_or(visible, |common| visible.min(common))
    }

    /// The first entry that contradicts the master's log below the commit position: from there on
    /// nothing is served.
    pub fn contradicted_from(&self) -> Option<Seq> {
        self.contradicted.map(Seq::next)
    }

    /// What of the own log cannot be read.
    pub fn damage(&self) -> Option<SeqRange> {
        self.damage
    }

    /// Whether the log holds all that it ever acknowledged.
    pub fn vouches(&self) -> bool {
        self.vouches && self.damage.is_none() && self.contradicted.is_none()
    }

    /// The settled epoch, as a HELLO says it beside the epoch of the last entry that it says is
    /// stored: behind damage nothing is certain.
    pub fn settled(&self, tail: Epoch) -> Epoch {
        if self.is_damaged() { self.settled.min(tail) } else { self.settled.max(tail) }
    }

    /// Whether something is wrong with the log.
    pub fn is_damaged(&self) -> bool {
        self.damage.is_some() || self.contradicted.is_some()
    }

    fn readable(&self, position: Seq) -> Seq {
        self.damage.map_or(position, |damage| position.min(damage.first.previous()))
    }

    /// Prefix id at the end of the log.
    pub fn tail(&self) -> PrefixId {
        self.tail
    }

    /// The levels as the master last told them.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Entries that came although they were there.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Bytes for which there was no room on the disk, and of which `handle_room` was not told since
    /// that there is.
    pub fn lacks_room(&self) -> Option<usize> {
        self.lacks
    }

    /// Entries kept until the ones before them come. What of a kept run is in the log already, since
    /// its turn has come and there is no room for the rest, is not among them.
    pub fn held(&self) -> RangeSet {
        let runs = self.held.iter().map(|(&first, &(end, _))| SeqRange::new(first, end));
        let mut held = RangeSet::of(runs);
        held.remove_up_to(self.written);
        held
    }

    // ---- outputs ----

    /// The next thing to do, in order.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<SecondaryEffect> {
        self.effects.pop_front()
    }

    /// The ACK that is due, if one is: asked for when all that arrived together is dealt with, so
    /// that it shares one.
    #[must_use]
    pub fn poll_ack(&mut self) -> Option<SecondaryEffect> {
        // What is to be kept first is not kept yet; and an epoch is settled before an ACK could be taken
        // to say that it is.
        let waits = !self.effects.is_empty() || self.is_to_settle();
        if waits || !std::mem::take(&mut self.ack_due) {
            return None;
        }
        let stored = self.stored;
        Some(SecondaryEffect::Ack {
            session: self.session?,
            // What the master has not sent on this session it hears when it has: an ACK beyond that
            // would be an error.
            stored: self.readable(stored).min(self.known),
            received: self.readable(self.written).max(self.repairing).min(self.known),
            held: self.held(),
            duplicates: self.duplicates,
        })
    }

    /// Withdraws the ACK that is due. For the fault verb that answers with an error instead.
    pub fn withhold_ack(&mut self) {
        self.ack_due = false;
    }

    // ---- inputs ----

    /// A master introduces itself. If this returns, it is to be answered by a HELLO: with an epoch,
    /// that answer is the promise.
    ///
    /// # Errors
    /// It is to be refused; nothing changed.
    pub fn handle_hello(
        &mut self,
        session: SessionId,
        hello: MasterHello,
    ) -> Result<(), RefuseCode> {
        if hello.epoch == Epoch::ZERO {
            return Ok(());
        }
        let Some(log_id) = hello.log_id else { return Err(RefuseCode::ForeignLog) };
        if self.log_id.is_some_and(|own| own != log_id) {
            return Err(RefuseCode::ForeignLog);
        }
        if hello.epoch < self.epoch {
            return Err(RefuseCode::StaleEpoch);
        }
        if hello.epoch == self.epoch && hello.run_id != self.run_id {
            return Err(RefuseCode::EpochTaken);
        }
        if hello.epoch.number().saturating_sub(self.epoch.number()) > EPOCH_STEP_MAX {
            return Err(RefuseCode::BadFrame);
        }
        if (self.log_id, self.epoch, self.run_id) != (Some(log_id), hello.epoch, hello.run_id) {
            (self.log_id, self.epoch, self.run_id) = (Some(log_id), hello.epoch, hello.run_id);
            self.contradicted = None;
            // Who holds what was true of another reign's entries; commit is true for ever.
            self.levels.held_by.fill(Seq::ZERO);
            self.keep(log_id);
        }
        (self.levels_heard, self.parted) = (false, false);
        self.begins = hello.begins;
        self.known = self.stored();
        self.repairing = Seq::ZERO;
        if let Some(old) = self.session.replace(session)
            && old != session
        {
            let code = RefuseCode::Replaced;
            self.effects.push_back(SecondaryEffect::Close { session: old, code });
        }
        self.drop_held();
        self.lacks = None;
        self.ack_due = false;
        Ok(())
    }

    fn keep(&mut self, log_id: LogId) {
        let Secondary { epoch, run_id, settled, vouches, .. } = *self;
        self.effects.push_back(SecondaryEffect::Keep { log_id, epoch, run_id, settled, vouches });
    }

    /// A node that started empty or with a loss vouches again once it has all that may be committed:
    /// what the master it follows says is, and what that one had when its reign began. How much of
    /// that was committed a master that started again need not know.
    fn update_vouching(&mut self) {
        if !self.vouches
            && self.levels_heard
            && self.damage.is_none()
            && self.stored >= self.levels.commit
            && let Some(begins) = self.begins
            && self.stored.next() >= begins
            && let Some(log_id) = self.log_id
        {
            self.vouches = true;
            self.keep(log_id);
        }
    }

    /// Everything before the first number of the epoch is stored, and the epoch is not settled.
    fn is_to_settle(&self) -> bool {
        let all = self.begins.is_some_and(|begins| self.stored().next() >= begins);
        all && self.settled < self.epoch
    }

    /// The master that is followed has found this log to be a prefix of its own, which it shows by
    /// telling the levels, and everything before its first number is stored: the epoch is settled, and
    /// the master hears so by an ACK, once that is kept.
    fn settle(&mut self) {
        if self.is_to_settle()
            && self.levels_heard
            && !self.parted
            && self.contradicted.is_none()
            && let Some(log_id) = self.log_id
        {
            self.settled = self.epoch;
            self.ack_due |= self.session.is_some();
            self.keep(log_id);
        }
    }

    /// The master says which entry is the last that both logs have in common; `ours` is the own
    /// prefix id there. What follows it goes aside, unless it was committed. Returns whether the
    /// master is to be answered by a HELLO.
    pub fn handle_align(
        &mut self,
        session: SessionId,
        last: Seq,
        theirs: PrefixId,
        ours: Option<PrefixId>,
    ) -> bool {
        if self.session != Some(session) {
            return false;
        }
        let same = ours == Some(theirs);
        let committed = last < self.written && last < self.levels.commit;
        if last > self.written || !same || committed {
            // What was committed is contradicted: nothing is thrown away, and nothing counts.
            self.contradicted = Some(if same { last } else { Seq::ZERO });
            let code = RefuseCode::Damaged;
            self.effects.push_back(SecondaryEffect::Close { session, code });
            self.handle_disconnected(session);
            return false;
        }
        self.drop_held();
        self.parted = false;
        if last < self.written {
            // Without what goes, only the epochs of what stays are settled for certain.
            if let (Some(log_id), true) = (self.log_id, self.settled > theirs.epoch) {
                self.settled = theirs.epoch;
                self.keep(log_id);
            }
            self.effects.push_back(SecondaryEffect::SetAside { from: last.next() });
            (self.written, self.tail) = (last, theirs);
            self.stored = self.stored.min(last);
        }
        self.known = self.stored();
        self.ack_due = false;
        true
    }

    /// These entries of the own log cannot be read; `None`: all can again. Either way the master
    /// hears it by a new introduction, and sends what is missing.
    pub fn handle_damage(&mut self, damage: Option<SeqRange>) {
        if self.damage == damage {
            return;
        }
        let first = |damage: Option<SeqRange>| damage.map(|range| range.first);
        let moved = first(self.damage) != first(damage);
        let shrunk = self
            .damage
            .zip(damage)
            .is_some_and(|(before, now)| before.end == now.end && before.contains(now.first));
        self.damage = damage;
        self.repairing = Seq::ZERO;
        if shrunk {
            // The master sends what follows all the same.
            self.ack_due |= self.session.is_some();
        } else if moved && let Some(session) = self.session {
            self.effects.push_back(SecondaryEffect::Reconnect { session });
            self.handle_disconnected(session);
        }
        self.update_vouching();
        self.settle();
    }

    /// The connection is gone. What was held back goes with it: a new one starts behind the log.
    pub fn handle_disconnected(&mut self, session: SessionId) {
        if self.session == Some(session) {
            self.session = None;
            self.repairing = Seq::ZERO;
            self.drop_held();
            self.lacks = None;
            self.ack_due = false;
        }
    }

    /// Whether a frame of this epoch on this connection is to be taken; closes it if not.
    pub fn admits(&mut self, session: SessionId, epoch: Epoch) -> bool {
        let current = self.session == Some(session);
        if current && epoch != self.epoch {
            let code = RefuseCode::StaleEpoch;
            self.effects.push_back(SecondaryEffect::Close { session, code });
            self.handle_disconnected(session);
            return false;
        }
        current
    }

    /// The master told the levels, in a heartbeat or in an APPEND that was taken. The commit position
    /// never falls. A master that does not lead yet tells none, and what it says of the commit is worth
    /// nothing: its own log may be empty. Nor is it if its log is known to be another than this one:
    /// what differs here must not look committed.
    pub fn handle_levels(&mut self, session: SessionId, commit: Seq, held_by: Vec<Seq>) {
        if self.session != Some(session) || self.parted || self.contradicted.is_some() {
            return;
        }
        if held_by.is_empty() {
            return;
        }
        let known = self.levels.commit;
        // Behind what cannot be read, nobody has compared this log with the master's yet.
        let end = self.damage.map_or(Seq::new(u64::MAX), |_| self.stored());
        let commit = commit.min(end);
        let held_by = held_by.into_iter().map(|level| level.min(end)).collect();
        self.levels = Levels { commit: known.max(commit), held_by };
        self.levels_heard = true;
        self.update_vouching();
        self.settle();
    }

    /// Whether a run that came may be taken in, `room` telling whether its bytes certainly fit on the
    /// disk. What is here already needs none. If not, it is refused, and the master hears of it when
    /// there is room: see `handle_room`.
    pub fn takes(&mut self, session: SessionId, run: SeqRange, bytes: usize, room: bool) -> bool {
        let repairs = self.damage.is_some_and(|damage| !damage.intersection(run).is_empty());
        if room || run.end <= self.written.next() && !repairs {
            return true;
        }
        self.lacks = Some(self.lacks.map_or(bytes, |lacking| lacking.max(bytes)));
        self.nack(session, run.first, NackCode::DiskFull);
        false
    }

    /// There is room for what was refused: the master is told by an ACK of what is here, and need not
    /// wait for its next attempt.
    pub fn handle_room(&mut self) {
        if self.lacks.take().is_some() {
            self.ack_due |= self.session.is_some();
            self.release_held();
        }
    }

    /// A run arrived. Whether it was taken: then the levels that came with it are to be, too.
    pub fn handle_arrival(&mut self, session: SessionId, run: Arrival) -> bool {
        let next = self.written.next();
        self.known = self.known.max(run.range.last());
        if run.range.first > next {
            return self.hold_back(session, run);
        }
        // Numbers that are here: equal, or refused; never overwritten.
        if let Some((theirs, ours)) = run.overlap {
            if theirs != ours {
                return self.part(session, run.range.first, NackCode::Conflict);
            }
        } else if run.before != self.tail {
            return self.part(session, run.range.first, NackCode::Mismatch);
        }
        let known = run.range.intersection(SeqRange::new(Seq::FIRST, next));
        self.duplicates += if known.is_empty() { 0 } else { known.len() };
        self.ack_due = true;
        let new = SeqRange::new(next, run.range.end);
        if !new.is_empty() {
            self.tail = run.tail;
            self.effects.push_back(SecondaryEffect::Append { range: new });
        } else {
            self.release_held();
        }
        true
    }

    /// A run is of another log than this one. Nothing of it is taken.
    fn part(&mut self, session: SessionId, first: Seq, code: NackCode) -> bool {
        self.parted = true;
        self.nack(session, first, code);
        self.release_held();
        false
    }

    /// A run arrived that lies in what is damaged: `up_to` is the last entry that is now in memory to
    /// repair the log, once there is more of it.
    pub fn handle_repairing(&mut self, session: SessionId, run: SeqRange, up_to: Seq) {
        if self.session == Some(session) {
            self.known = self.known.max(run.last());
            self.repairing = up_to;
            self.ack_due = true;
        }
    }

    /// A run that arrived was not a chain of good records.
    pub fn handle_bad_run(&mut self, session: SessionId, first: Seq) {
        self.nack(session, first, NackCode::BadRecord);
    }

    /// The log was appended to, up to and including `up_to`.
    pub fn handle_written(&mut self, up_to: Seq) {
        assert!(up_to >= self.written, "BUG: the log became shorter");
        self.written = up_to;
        self.effects.push_back(SecondaryEffect::MakeDurable { up_to });
        self.release_held();
    }

    /// Hands the first held run in again if its turn has come. Whatever becomes of it, this is asked
    /// again afterwards: by `handle_written` if it is appended, by `handle_arrival` if not.
    fn release_held(&mut self) {
        if self.lacks.is_none()
            && let Some(entry) = self.held.first_entry()
            && *entry.key() <= self.written.next()
        {
            let (first, (_, bytes)) = entry.remove_entry();
            self.held_bytes -= bytes;
            self.effects.push_back(SecondaryEffect::Release { first });
        }
    }

    /// Entries by hand were equal to the master's: they count as duplicates.
    pub fn handle_gave_way(&mut self, duplicates: u64) {
        self.duplicates += duplicates;
    }

    /// The log is durable up to and including `up_to`.
    pub fn handle_stored(&mut self, up_to: Seq) {
        assert!(up_to <= self.written, "BUG: {up_to} is durable but was never written");
        self.ack_due |= up_to > self.stored;
        self.stored = self.stored.max(up_to);
        self.update_vouching();
        self.settle();
    }

    fn hold_back(&mut self, session: SessionId, run: Arrival) -> bool {
        let SeqRange { first, end } = run.range;
        if let (true, Some(until)) = self.held().holds(first)
            && until >= end
        {
            self.duplicates += run.range.len();
            self.ack_due = true;
            return true;
        }
        let replaced = self.held.get(&first).map_or(0, |&(_, bytes)| bytes);
        let too_many = self.held.len() >= HOLD_BACK_RUNS_MAX;
        if too_many || self.held_bytes - replaced + run.bytes > HOLD_BACK_BYTES_MAX {
            self.nack(session, first, NackCode::HoldBackFull);
            return false;
        }
        self.held_bytes = self.held_bytes - replaced + run.bytes;
        self.held.insert(first, (end, run.bytes));
        self.ack_due = true;
        self.effects.push_back(SecondaryEffect::Hold { range: run.range });
        true
    }

    fn drop_held(&mut self) {
        if !self.held.is_empty() {
            self.held.clear();
            self.held_bytes = 0;
            self.effects.push_back(SecondaryEffect::DropHeld);
        }
    }

    fn nack(&mut self, session: SessionId, seq: Seq, code: NackCode) {
        self.effects.push_back(SecondaryEffect::Nack { session, seq, code });
    }
}

impl Default for Secondary {
    fn default() -> Self {
        Secondary::new(Holdings::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;

    #[test]
    fn what_is_told_as_held_lies_beyond_what_is_received() {
        let (session, epoch) = (SessionId(1), Epoch::new(1));
        let mut engine = Secondary::default();
        let log_id = Some(LogId::new([1; 16]));
        let hello = MasterHello { log_id, epoch, run_id: RunId::new(1), begins: None };
        engine.handle_hello(session, hello).unwrap();
        let run = |first, last| Arrival {
            range: SeqRange::inclusive(Seq::new(first), Seq::new(last)),
            before: PrefixId::EMPTY,
            tail: PrefixId { epoch, digest: Digest::new(last) },
            bytes: 100,
            overlap: None,
        };
        for (first, last) in [(4, 6), (5, 9), (1, 5)] {
            assert!(engine.handle_arrival(session, run(first, last)));
        }
        engine.handle_written(Seq::new(5));
        // The first held run finds no room, and the second one, which overlaps it, stays.
        assert!(!engine.takes(session, run(4, 6).range, 100, false));
        while engine.poll_effect().is_some() {}
        let Some(SecondaryEffect::Ack { received, held, .. }) = engine.poll_ack() else {
            panic!("an ACK is due");
        };
        let beyond = SeqRange::inclusive(Seq::new(6), Seq::new(9));
        assert_eq!((received, held), (Seq::new(5), RangeSet::of([beyond])));
    }
}
