//! What clients saw, as a history for the checker of [`crate::history`]: a second judge, which knows
//! nothing of engines, positions or effects.

use replog::engine::Reign;
use replog::node::Storage as _;
use replog::store::LogReader;
use replog::types::{Level as ReplogLevel, Seq, SeqRange};

use super::World;
use super::clients::{Fate, payload};
use crate::history::{
    Ack, Answer, Cluster, Dump, DumpEntry, Event, History, Item, Level, Op, PayloadId, Placed,
    Read, What, check,
};

/// Reads and losses, noted as they happen; the rest is known at the end.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    reads: Vec<Read>,
    events: Vec<Event>,
}

/// Payloads may be equal (empty ones are); an entry is named by the request that brought it. What it
/// names was compared byte for byte.
fn name(request: usize, entry: u64) -> PayloadId {
    PayloadId((request as u64) << 24 | entry)
}

impl World {
    /// What stands at `seq` in a log: the entry's name if its bytes are those that were sent.
    fn name_of(&self, log: &LogReader, seq: Seq) -> PayloadId {
        let bytes = log.record(seq).map(|record| record.payload).unwrap_or_default();
        let epoch = log.prefix_id(seq).map_or(0, |id| id.epoch.number());
        match self.entries.get(&(epoch, seq.number())) {
            Some(&(id, entry)) if bytes == payload(id, entry, self.requests[id].size) => {
                name(id, entry)
            }
            _ => PayloadId(u64::MAX ^ PayloadId::of(&bytes).0 >> 1),
        }
    }

    pub(super) fn record_read(
        &mut self,
        client: u32,
        node: usize,
        level: ReplogLevel,
        range: SeqRange,
        whole: bool,
    ) {
        let (log, (_, levels)) = self.shown_by(node);
        // Reading on may have found that what was read before lies in a part that is damaged: the client has
        // it, and nobody can say any more what it was.
        let is_there =
            |&number: &u64| !self.is_hurt(node) || log.record(Seq::new(number)).is_some();
        let numbers = (range.first.number()..range.end.number()).take_while(is_there);
        let item = |number| Item { seq: number, payload: self.name_of(&log, Seq::new(number)) };
        let items: Vec<Item> = numbers.map(item).collect();
        let complete = items.len() as u64 == range.len();
        let read = Read {
            client: 1_000_000 + u64::from(client),
            node,
            level: match level {
                ReplogLevel::Local => Level::Local,
                ReplogLevel::Committed => Level::Committed,
                ReplogLevel::All => Level::All,
                ReplogLevel::Nodes(count) => Level::Nodes(count.get()),
            },
            from: range.first.number(),
            items,
            commit: Some(levels.commit.number()),
            whole: whole && complete,
            invoked: self.now,
            completed: self.now,
        };
        self.recorder.reads.push(read);
    }

    pub(super) fn record_loss(&mut self, node: usize, kept: Seq) {
        let event = Event { node, at: self.now, what: What::Lost { kept: kept.number() } };
        self.recorder.events.push(event);
    }

    /// A secondary drops what it held back.
    pub(super) fn record_drop(&mut self, node: usize, kept: Seq) {
        let event = Event { node, at: self.now, what: What::Dropped { kept: kept.number() } };
        self.recorder.events.push(event);
    }

    pub(super) fn record_restart(&mut self, node: usize) {
        self.recorder.events.push(Event { node, at: self.now, what: What::Restarted });
    }

    /// The end: the checker judges what clients saw.
    pub(super) fn check_history(&mut self) {
        let report = check(&self.history());
        if let Some(found) = report.findings.first() {
            self.fail(&format!("history: {}", found.kind), found.detail.clone());
        }
    }

    /// What a later reign has numbered otherwise is lost, even where it has not been set aside yet: that
    /// reign had answers enough without it, or it would not have begun.
    fn superseded(&self) -> Vec<Event> {
        let ups = (0..self.plan.setup.nodes).filter(|&node| self.hosts[node].up);
        let logs: Vec<_> = ups.map(|node| (node, self.shown_by(node).0)).collect();
        let end_of = |log: &LogReader| (log.bounds().tail.epoch, log.bounds().last);
        let Some((_, newest)) = logs.iter().max_by_key(|(_, log)| end_of(log)) else {
            return Vec::new();
        };
        let lost = |(node, log): &(usize, LogReader)| {
            let same = |seq| newest.prefix_id(Seq::new(seq)) == log.prefix_id(Seq::new(seq));
            let (mut kept, mut end) = (0, log.bounds().last.number() + 1);
            if newest.bounds().last.number() + 1 >= end && same(end - 1) {
                return None;
            }
            // Whoever has the same entry has the same ones before it.
            while kept + 1 < end {
                let middle = kept.midpoint(end);
                let has = middle <= newest.bounds().last.number() && same(middle);
                (kept, end) = if has { (middle, end) } else { (kept, middle) };
            }
            Some(Event { node: *node, at: self.now, what: What::Lost { kept } })
        };
        logs.iter().filter_map(lost).collect()
    }

    pub(super) fn history(&mut self) -> History {
        let Recorder { reads, mut events } = std::mem::take(&mut self.recorder);
        let nodes = self.plan.setup.nodes;
        let appends = self.requests.iter().enumerate().filter(|(_, r)| r.wait_for.is_none());
        let ops = appends.flat_map(|(id, request)| {
            let lost = self.clients[request.client as usize].connection != request.connection;
            (0..u64::from(request.count)).map(move |entry| {
                let fate = request.fates[entry as usize];
                let placed = |seq: Seq, epoch, by| Placed { seq: seq.number(), epoch, by };
                let answer = match fate.map(|(_, fate)| fate) {
                    Some(Fate::Ok(seq, epoch, by)) => Answer::Ok(placed(seq, epoch, by)),
                    Some(Fate::Pending(seq, epoch, by)) => Answer::Pending(placed(seq, epoch, by)),
                    Some(Fate::Unknown) => Answer::Unknown,
                    Some(Fate::Refused) => Answer::Rejected("refused".to_owned()),
                    None if lost => Answer::Lost,
                    None => Answer::Missing,
                };
                Op {
                    client: request.connection,
                    payload: name(id, entry),
                    invoked: request.sent_at,
                    completed: fate.map(|(at, _)| at),
                    need: request.need.map_or(u16::MAX, |need| need as u16),
                    ack: if request.received { Ack::Received } else { Ack::Stored },
                    timeout: request.timeout_us,
                    producer: None,
                    atomic: false,
                    answer,
                }
            })
        });
        let ops = ops.collect();
        // What is down or damaged cannot be read to its end.
        let is_whole = |&node: &usize| {
            let (log, _) = self.shown_by(node);
            let end = log.bounds().last.next();
            self.hosts[node].up
                && super::store::readable_end(&log, SeqRange::new(Seq::FIRST, end)) == end
        };
        // Where nobody leads what all others follow, an entry may be where nobody can look.
        let leads = self.master.engine().reign() == Reign::Leading && is_whole(&0);
        let hidden = (0..nodes).filter(|node| !leads && !is_whole(node));
        events.extend(hidden.map(|node| Event {
            node,
            at: self.now,
            what: What::Lost { kept: 0 },
        }));
        events.extend(self.superseded());
        let dumps = (0..nodes).filter(is_whole).map(|node| {
            let log = match node {
                0 => self.master.store().log().reader(),
                _ => self.secondaries[node - 1].store().log().reader(),
            };
            let numbers = 1..=log.bounds().last.number();
            let entry = |seq| DumpEntry {
                seq,
                epoch: log.prefix_id(Seq::new(seq)).map_or(0, |id| id.epoch.number()),
                payload: self.name_of(&log, Seq::new(seq)),
            };
            Dump { node, entries: numbers.map(entry).collect() }
        });
        let dumps = dumps.collect();
        let healed = self.healed_at.is_some() && !self.master.deposed && self.ailment().is_none();
        let names = (0..nodes).map(|node| format!("n{node}")).collect();
        let cluster = Cluster { nodes: names, healed, end: self.now, slack: None };
        History { cluster, ops, reads, events, dumps }
    }
}
