//! What of the log a session shows: what a level reaches, in pieces.

use bytes::BytesMut;

use super::{Question, Sight};
use crate::codes::Code;
use crate::engine::Levels;
use crate::gateway::Refusal;
use crate::gateway::command::TailFrom;
use crate::gateway::reply::{list_end, write_entry};
use crate::limits::{OUTPUT_CHUNK_BYTES, RUN_BYTES_MAX};
use crate::store::record::take_record;
use crate::store::{Record, Slice};
use crate::types::{Level, Seq, SeqRange, Time};

/// The last entry that a level shows on this node, its own log only.
///
/// # Errors
/// The level counts more nodes than there are.
pub fn visible<'a>(sight: Sight<'a>, level: Level) -> Result<(Seq, &'a Levels), Refusal> {
    let view = sight.view;
    let local = sight.site.log.bounds().last;
    let local = view.hidden_from.map_or(local, |first| local.min(first.previous()));
    let last = view.levels.visible(level, local).ok_or_else(|| {
        let nodes = view.levels.held_by.len();
        Refusal::new(
            Code::BadValue,
            format!("level={level} nodes={nodes} - the cluster has only {nodes} nodes"),
        )
    })?;
    Ok((last, &view.levels))
}

/// Entries from `next` up to `end` that are still to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// The next one.
    pub next: Seq,
    /// Behind the last.
    pub end: Seq,
}

impl Cursor {
    /// What is there now up to `last`, from `from` on, at most `limit` entries.
    pub fn new(from: Seq, limit: Option<u64>, last: Seq) -> Self {
        let end = last.next();
        let end = limit.map_or(end, |limit| end.min(from.plus(limit)));
        Cursor { next: from, end: end.max(from) }
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// Asks for the next piece, in whole records.
    pub fn ask(&self, bytes_max: usize) -> Question {
        Question::Read { range: SeqRange::new(self.next, self.end), bytes_max }
    }

    /// Asks for a piece to be shown as lines.
    pub fn ask_for_lines(&self) -> Question {
        self.ask(OUTPUT_CHUNK_BYTES.min(RUN_BYTES_MAX))
    }

    /// The piece was read: so far as it could be. Nothing is shown behind what cannot be read, so that
    /// it ends there.
    pub fn pass(&mut self, slice: &Slice) {
        match slice.range {
            Some(range) => self.next = range.end,
            None => self.end = self.next,
        }
    }
}

/// Writes entries as lines.
pub fn write_lines(slice: Slice, out: &mut BytesMut) {
    for mut piece in slice.pieces {
        while let Ok(record) = take_record(&mut piece) {
            write_entry(out, record.seq, &record.payload);
        }
    }
}

/// A LIST on its way: the log, and on a secondary at level local what was put in by hand.
#[derive(Debug)]
pub struct List {
    from: Seq,
    cursor: Cursor,
    /// Entries by hand that follow.
    by_hand: Cursor,
    /// The last entry that was shown.
    last: Seq,
    commit: Seq,
    level: Level,
}

impl List {
    /// A LIST of what is there now.
    ///
    /// # Errors
    /// See [`visible`].
    pub fn start(
        sight: Sight<'_>,
        from: Seq,
        limit: Option<u64>,
        level: Level,
    ) -> Result<Self, Refusal> {
        let (last, levels) = visible(sight, level)?;
        let cursor = Cursor::new(from, limit, last);
        let by_hand = match level {
            Level::Local => {
                let visible = sight.site.provisional.lock().visible(last);
                let whole = Cursor::new(from, limit, visible.last().max(last));
                Cursor { next: from.max(visible.first), end: whole.end.max(from) }
            }
            _ => Cursor { next: from, end: from },
        };
        let last = cursor.end.previous();
        Ok(List { from, cursor, by_hand, last, commit: levels.commit, level })
    }

    /// Goes on until something must be asked. `None`: that was all, the END line included.
    pub fn go_on(&mut self, sight: Sight<'_>, out: &mut BytesMut) -> Option<Question> {
        if !self.cursor.is_done() {
            return Some(self.cursor.ask_for_lines());
        }
        while !self.by_hand.is_done() {
            let seq = self.by_hand.next;
            let payload = sight.site.provisional.lock().payload(seq).cloned();
            let Some(payload) = payload else {
                // It has given way to the master's meanwhile.
                return Some(Question::Record(seq));
            };
            self.show(seq, &payload, out);
        }
        let count = if self.last < self.from { 0 } else { self.last.distance_from(self.from) + 1 };
        out.extend_from_slice(list_end(count, self.last, self.commit, self.level).as_bytes());
        None
    }

    /// The next piece of the log was read.
    pub fn take_slice(&mut self, slice: Slice, out: &mut BytesMut) {
        self.cursor.pass(&slice);
        self.last = self.cursor.end.previous();
        if slice.range.is_none() {
            self.by_hand.end = self.by_hand.next;
        }
        write_lines(slice, out);
    }

    /// What took the place of an entry by hand was read; it ends the list if it cannot be.
    pub fn take_record(&mut self, record: Option<Record>, out: &mut BytesMut) {
        match record {
            Some(record) => self.show(self.by_hand.next, &record.payload, out),
            None => self.by_hand.end = self.by_hand.next,
        }
    }

    fn show(&mut self, seq: Seq, payload: &[u8], out: &mut BytesMut) {
        write_entry(out, seq, payload);
        self.last = seq;
        self.by_hand.next = seq.next();
    }
}

/// A TAIL on its way.
#[derive(Debug)]
pub struct Tail {
    /// The next entry to be shown.
    pub next: Seq,
    /// What it shows.
    pub level: Level,
    /// How many it has shown.
    pub count: u64,
    /// The next one could not be read: it is tried again then.
    not_before: Time,
}

impl Tail {
    /// A TAIL that begins now.
    ///
    /// # Errors
    /// See [`visible`].
    pub fn start(sight: Sight<'_>, start: TailFrom, level: Level) -> Result<Self, Refusal> {
        let (last, _) = visible(sight, level)?;
        let next = match start {
            TailFrom::New => last.next(),
            TailFrom::Seq(seq) => seq,
            TailFrom::Last(count) => {
                Seq::new(last.next().number().saturating_sub(count)).max(Seq::FIRST)
            }
        };
        Ok(Tail { next, level, count: 0, not_before: Time::ZERO })
    }

    /// What the level shows now and was not yet given out.
    pub fn cursor(&self, sight: Sight<'_>) -> Cursor {
        if sight.now < self.not_before {
            return Cursor { next: self.next, end: self.next };
        }
        // The roster of a running cluster does not change, so that a level once good stays good.
        let last = visible(sight, self.level).map_or(Seq::ZERO, |(last, _)| last);
        Cursor { next: self.next, end: last.next().max(self.next) }
    }

    /// A piece was read, and is shown. A tail leaves nothing out: what cannot be read is waited for until
    /// it is repaired.
    pub fn pass(&mut self, sight: Sight<'_>, slice: &Slice) {
        match slice.range {
            Some(range) => {
                self.count += range.end.distance_from(self.next);
                self.next = range.end;
            }
            None => self.not_before = sight.now.after(sight.site.heartbeat_interval),
        }
    }
}
