//! The checker. Each pass over the history is linear; two passes sort by time first.

use std::collections::HashMap as StdHashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::model::{
    Ack, Answer, DumpEntry, Event, History, Level, Op, PayloadId, Placed, Producer, Read, What,
};
use super::report::{Kind, Report};

/// Names everything in `history` that a correct log cannot have shown.
pub fn check(history: &History) -> Report {
    let mut checker = Checker::new(history);
    checker.count();
    checker.know_entries();
    checker.check_dumps();
    checker.check_log();
    checker.check_answers();
    checker.check_real_time();
    checker.check_connections();
    checker.check_shown();
    checker.check_freshness();
    checker.check_availability();
    checker.report
}

/// Keys here are numbers or hashes already, and nobody chooses them to collide.
type HashMap<K, V> = StdHashMap<K, V, BuildHasherDefault<Multiply>>;

#[derive(Default)]
struct Multiply(u64);

impl Hasher for Multiply {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What is known of one payload.
struct Known<'a> {
    first: &'a Op,
    attempts: u32,
    /// When the first attempt was sent.
    invoked: u64,
    /// No attempt may have left anything.
    refused: bool,
    /// Its number in the reference log.
    place: Option<u64>,
}

/// What a node lost, in order of time.
#[derive(Default)]
struct Losses {
    at: Vec<u64>,
    /// At each index the least `kept` of this loss and the later ones.
    kept: Vec<u64>,
}

impl Losses {
    fn note(&mut self, at: u64, kept: u64) {
        self.at.push(at);
        self.kept.push(kept);
    }

    /// All are noted.
    fn finish(&mut self) {
        for index in (1..self.kept.len()).rev() {
            self.kept[index - 1] = self.kept[index - 1].min(self.kept[index]);
        }
    }

    /// Whether the node lost number `seq` at `from` or later.
    fn lost_since(&self, seq: u64, from: u64) -> bool {
        let index = self.at.partition_point(|&at| at < from);
        self.kept.get(index).is_some_and(|&kept| kept < seq)
    }
}

struct Checker<'a> {
    history: &'a History,
    report: Report,
    entries: HashMap<PayloadId, Known<'a>>,
    /// The log that all others are held against: the one with the newest end.
    log: HashMap<u64, DumpEntry>,
    /// Numbers that answers gave out.
    answered: HashMap<u64, PayloadId>,
    losses: Vec<Losses>,
    /// The losses, and what was only in memory and dropped.
    drops: Vec<Losses>,
    dump_ends: Vec<Option<u64>>,
}

impl<'a> Checker<'a> {
    fn new(history: &'a History) -> Self {
        let nodes = history.cluster.nodes.len();
        let mut events: Vec<&Event> = history.events.iter().collect();
        events.sort_by_key(|event| event.at);
        let mut losses: Vec<Losses> = (0..nodes).map(|_| Losses::default()).collect();
        let mut drops: Vec<Losses> = (0..nodes).map(|_| Losses::default()).collect();
        for event in events.iter().filter(|event| event.node < nodes) {
            if let What::Lost { kept } = event.what {
                losses[event.node].note(event.at, kept);
            }
            if let What::Lost { kept } | What::Dropped { kept } = event.what {
                drops[event.node].note(event.at, kept);
            }
        }
        losses.iter_mut().chain(&mut drops).for_each(Losses::finish);
        let mut dump_ends = vec![None; nodes];
        for dump in &history.dumps {
            if let Some(end) = dump_ends.get_mut(dump.node) {
                *end = Some(dump.entries.last().map_or(0, |entry| entry.seq));
            }
        }
        let report = Report::default();
        let (entries, log, answered) = (HashMap::default(), HashMap::default(), HashMap::default());
        Checker { history, report, entries, log, answered, losses, drops, dump_ends }
    }

    fn name(&self, node: usize) -> &'a str {
        self.history.cluster.nodes.get(node).map_or("?", String::as_str)
    }

    fn count(&mut self) {
        let history = self.history;
        for op in &history.ops {
            let answer = match op.answer {
                Answer::Ok(_) => "ok",
                Answer::Pending(_) => "pending",
                Answer::Rejected(_) => "rejected",
                Answer::Unknown => "unknown",
                Answer::Lost => "lost",
                Answer::Unsent => "unsent",
                Answer::Missing => "missing",
            };
            *self.report.answers.entry(answer).or_default() += 1;
        }
        self.report.reads = history.reads.len() as u64;
        self.report.items = history.reads.iter().map(|read| read.items.len() as u64).sum();
        self.report.dumps = history.dumps.len() as u64;
        self.report.max_seq = self.dump_ends.iter().flatten().copied().max().unwrap_or(0);
        let nodes = history.cluster.nodes.len();
        let mut unusable = |what: &str| {
            self.report.find(Kind::Unusable, || format!("{what} names a node that is not there"));
        };
        if history.dumps.iter().any(|dump| dump.node >= nodes) {
            unusable("a dump");
        }
        if history.reads.iter().any(|read| read.node >= nodes) {
            unusable("a read");
        }
        if history.events.iter().any(|event| event.node >= nodes) {
            unusable("an event");
        }
        let beyond =
            |op: &Op| op.placed().is_some_and(|placed| nodes < 128 && placed.by >> nodes != 0);
        if history.ops.iter().any(beyond) {
            unusable("an answer");
        }
    }

    /// Which payloads there are, and which numbers were given out.
    fn know_entries(&mut self) {
        for op in &self.history.ops {
            if let Some(placed) = op.placed() {
                self.answered.entry(placed.seq).or_insert(op.payload);
            }
            let known = self.entries.entry(op.payload).or_insert(Known {
                first: op,
                attempts: 0,
                invoked: op.invoked,
                refused: true,
                place: None,
            });
            let same = op.producer.is_some() && op.producer == known.first.producer;
            if known.attempts > 0 && !same {
                self.report.find(Kind::Unusable, || {
                    format!("two appends have the payload {:?} and not one producer", op.payload)
                });
            }
            known.attempts += 1;
            known.invoked = known.invoked.min(op.invoked);
            known.refused &= op.is_refused();
        }
    }

    /// Each node's log by itself, and against the one with the newest end.
    fn check_dumps(&mut self) {
        let history = self.history;
        let newest = |entries: &[DumpEntry]| entries.last().map_or((0, 0), |e| (e.epoch, e.seq));
        let mut reference: Option<&[DumpEntry]> = None;
        for dump in &history.dumps {
            let better = reference.is_none_or(|found| newest(found) < newest(&dump.entries));
            if better {
                reference = Some(&dump.entries);
            }
            let mut expected = 1;
            for entry in &dump.entries {
                if entry.seq != expected {
                    let (node, seq) = (self.name(dump.node), entry.seq);
                    self.report.find(Kind::Hole, || {
                        format!("the log of {node} has {seq} where {expected} should be")
                    });
                }
                expected = entry.seq + 1;
            }
        }
        let Some(reference) = reference else { return };
        self.log = reference.iter().map(|entry| (entry.seq, *entry)).collect();
        let any_loss = self.losses.iter().any(|losses| !losses.at.is_empty());
        let end = newest(reference).1;
        for dump in &history.dumps {
            let node = self.name(dump.node);
            for entry in &dump.entries {
                let Some(other) = self.log.get(&entry.seq) else { continue };
                let unreconciled = !history.cluster.healed && any_loss && entry.epoch < other.epoch;
                let judged = self.entries.contains_key(&other.payload) && !unreconciled;
                if other == entry || !judged {
                    continue;
                }
                let seq = entry.seq;
                let (kind, what) = match self.entries.get(&entry.payload) {
                    Some(known) if known.refused => (Kind::Resurrected, "a refused entry"),
                    Some(_) => (Kind::PrefixViolation, "another entry than the newest log"),
                    None => (Kind::Corrupt, "an entry that nobody sent"),
                };
                self.report.find(kind, || format!("{node} has {what} under {seq}"));
            }
            let own_end = dump.entries.last().map_or(0, |entry| entry.seq);
            if history.cluster.healed && own_end < end {
                self.report.find(Kind::NotConverged, || {
                    format!("the log of {node} ends at {own_end}, the newest at {end}")
                });
            }
        }
        self.place_entries(reference);
    }

    /// The newest log against what was sent: who is where.
    fn place_entries(&mut self, reference: &[DumpEntry]) {
        let mut epoch = 0;
        for entry in reference {
            let seq = entry.seq;
            if entry.epoch < epoch {
                let now = entry.epoch;
                self.report.find(Kind::EpochFell, || {
                    format!("entry {seq} has epoch {now}, the one before it {epoch}")
                });
            }
            epoch = entry.epoch;
            let Some(known) = self.entries.get_mut(&entry.payload) else {
                if self.answered.contains_key(&seq) {
                    self.report.find(Kind::Corrupt, || {
                        format!("entry {seq} was answered, and its bytes are not those sent")
                    });
                } else {
                    self.report.find(Kind::Phantom, || format!("nobody sent entry {seq}"));
                }
                continue;
            };
            if known.refused {
                let client = known.first.client;
                self.report.find(Kind::Resurrected, || {
                    format!("entry {seq} was refused to client {client} and is in the log")
                });
            }
            match known.place {
                None => known.place = Some(seq),
                Some(first) => self.report.find(Kind::Duplicate, || {
                    format!("one entry is in the log as {first} and as {seq}")
                }),
            }
        }
    }

    /// Producers' numbers along the newest log.
    fn check_log(&mut self) {
        let mut last: HashMap<u64, (u64, PayloadId)> = HashMap::default();
        let mut seqs: Vec<u64> = self.log.keys().copied().collect();
        seqs.sort_unstable();
        for seq in seqs {
            let payload = self.log[&seq].payload;
            let Some(known) = self.entries.get(&payload) else { continue };
            let Some(Producer { id, number }) = known.first.producer else { continue };
            if let Some(&(before, other)) = last.get(&id) {
                if number == before && other != payload {
                    self.report.find(Kind::Duplicate, || {
                        format!("number {number} of producer {id} is in the log with two payloads")
                    });
                } else if number < before {
                    self.report.find(Kind::Reordered, || {
                        format!("entry {seq} is number {number} of producer {id}, after {before}")
                    });
                }
            }
            last.insert(id, (number, payload));
        }
    }

    /// Whether every node that held the entry has lost it since it was sent. What was only asked to be
    /// received may have been held back, and dropped with a connection.
    fn may_be_lost(&self, op: &Op, placed: &Placed) -> bool {
        let losses = if op.ack == Ack::Received { &self.drops } else { &self.losses };
        placed.by != 0
            && losses.iter().enumerate().all(|(node, losses)| {
                placed.by >> node & 1 == 0 || losses.lost_since(placed.seq, op.invoked)
            })
    }

    /// Answers against the logs.
    fn check_answers(&mut self) {
        for op in &self.history.ops {
            let Some(placed) = op.placed() else { continue };
            let (seq, client) = (placed.seq, op.client);
            let is_ok = matches!(op.answer, Answer::Ok(_));
            let holders = placed.by.count_ones();
            if placed.by & 1 == 0 {
                self.report.find(Kind::EarlyOk, || {
                    format!("entry {seq} was answered to client {client} without the master")
                });
            } else if is_ok && holders < u32::from(op.need) {
                let need = op.need;
                self.report.find(Kind::EarlyOk, || {
                    format!("entry {seq} was OK for client {client} on {holders} nodes, not {need}")
                });
            }
            if !self.history.dumps.is_empty() {
                self.check_place(op, placed);
                self.check_holders(op, placed);
            }
        }
    }

    fn check_place(&mut self, op: &Op, placed: &Placed) {
        let (seq, client) = (placed.seq, op.client);
        let known = &self.entries[&op.payload];
        let (place, attempts) = (known.place, known.attempts);
        let excused = self.may_be_lost(op, placed);
        match place {
            Some(found) if found == seq && self.log[&seq].epoch == placed.epoch => {}
            Some(_) if excused && attempts > 1 => self.report.losses_allowed += 1,
            Some(found) => {
                let (was, is) = (placed.epoch, self.log[&found].epoch);
                self.report.find(Kind::Moved, || {
                    format!(
                        "client {client} was told {seq} in epoch {was}; it is {found} in epoch {is}"
                    )
                });
            }
            None if excused => self.report.losses_allowed += 1,
            None => {
                let other = self.log.get(&seq);
                // Reported as corrupt already.
                if other.is_none_or(|other| self.entries.contains_key(&other.payload)) {
                    self.report.find(Kind::Lost, || {
                        format!("entry {seq}, answered to client {client}, is in no log")
                    });
                }
            }
        }
    }

    /// The nodes that the answer named, against their logs.
    fn check_holders(&mut self, op: &Op, placed: &Placed) {
        let in_place = self.entries[&op.payload].place == Some(placed.seq);
        if op.ack != Ack::Stored || !in_place {
            return;
        }
        for node in 0..self.dump_ends.len() {
            let Some(end) = self.dump_ends[node] else { continue };
            let named = placed.by >> node & 1 == 1;
            if named && end < placed.seq && !self.losses[node].lost_since(placed.seq, op.invoked) {
                let (seq, name) = (placed.seq, self.name(node));
                self.report.find(Kind::EarlyOk, || {
                    format!("{name} was named as holding entry {seq}, and its log ends at {end}")
                });
            }
        }
    }

    /// An append sent after another was answered has a higher number.
    fn check_real_time(&mut self) {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        enum Moment {
            Sent,
            Answered,
        }
        let mut moments = Vec::with_capacity(2 * self.history.ops.len());
        for op in &self.history.ops {
            let known = &self.entries[&op.payload];
            let Some(place) = known.place else { continue };
            if known.invoked == op.invoked && known.attempts > 0 {
                moments.push((op.invoked, Moment::Sent, place));
            }
            if let (Some(placed), Some(completed)) = (op.placed(), op.completed)
                && placed.seq == place
            {
                moments.push((completed, Moment::Answered, place));
            }
        }
        moments.sort_unstable();
        let mut highest = 0;
        for (at, moment, seq) in moments {
            match moment {
                Moment::Answered => highest = highest.max(seq),
                Moment::Sent if seq < highest => self.report.find(Kind::Reordered, || {
                    format!("entry {seq} was sent at {at}, when {highest} had been answered")
                }),
                Moment::Sent => {}
            }
        }
    }

    /// What was sent later on one connection has a higher number.
    fn check_connections(&mut self) {
        let mut last: HashMap<u64, u64> = HashMap::default();
        for op in &self.history.ops {
            let known = &self.entries[&op.payload];
            let (Some(place), 1) = (known.place, known.attempts) else { continue };
            let last = last.entry(op.client).or_default();
            if place < *last {
                let (client, before) = (op.client, *last);
                self.report.find(Kind::Reordered, || {
                    format!("client {client} sent entry {place} after entry {before}")
                });
            }
            *last = place.max(*last);
        }
    }

    /// What each read showed.
    fn check_shown(&mut self) {
        for read in &self.history.reads {
            let node = self.name(read.node);
            let mut expected = read.from;
            for item in &read.items {
                if item.seq != expected {
                    let seq = item.seq;
                    self.report.find(Kind::Hole, || {
                        format!("{node} showed {seq} where {expected} should be")
                    });
                }
                expected = item.seq + 1;
                self.check_item(read, item.seq, item.payload);
            }
            let majority = self.history.cluster.majority();
            let above = needed(read.level, majority, self.history.cluster.nodes.len()) >= majority;
            if let (true, Some(commit), Some(last)) = (above, read.commit, read.items.last())
                && last.seq > commit
            {
                self.report.find(Kind::DirtyRead, || {
                    format!("{node} showed {} at a level that ends at {commit}", last.seq)
                });
            }
        }
    }

    fn check_item(&mut self, read: &Read, seq: u64, payload: PayloadId) {
        let node = self.name(read.node);
        let other = self.log.get(&seq);
        let Some(known) = self.entries.get(&payload) else {
            let kind = if other.is_some() { Kind::Corrupt } else { Kind::Phantom };
            self.report.find(kind, || format!("{node} showed under {seq} what nobody sent"));
            return;
        };
        if known.refused {
            self.report.find(Kind::Resurrected, || {
                format!("{node} showed under {seq} an entry that was refused")
            });
            return;
        }
        if known.invoked > read.completed {
            self.report
                .find(Kind::Phantom, || format!("{node} showed entry {seq} before it was sent"));
            return;
        }
        let judged = match other {
            _ if self.history.dumps.is_empty() => false,
            Some(other) => other.payload != payload && self.entries.contains_key(&other.payload),
            None => true,
        };
        if judged && !self.may_be_undone(read.level, seq, known.invoked) {
            self.report.find(Kind::DirtyRead, || {
                format!("{node} showed under {seq} what the log does not have there")
            });
        }
    }

    /// Whether so many nodes lost the entry that even a read at this level may be undone.
    fn may_be_undone(&self, level: Level, seq: u64, since: u64) -> bool {
        let lost = |losses: &&Losses| losses.lost_since(seq, since);
        let nodes = self.losses.iter().filter(lost).count();
        let needed = needed(level, self.history.cluster.majority(), self.losses.len());
        self.losses.first().is_some_and(|master| lost(&master)) && nodes >= needed
    }

    /// Reads against what was answered and shown before they were sent.
    fn check_freshness(&mut self) {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        enum Moment {
            Befell(usize),
            ReadSent(usize),
            ReadShown(usize),
            Answered(usize),
        }
        let history = self.history;
        let nodes = history.cluster.nodes.len();
        let mut moments = Vec::new();
        for (index, event) in history.events.iter().enumerate() {
            if matches!(event.what, What::Lost { .. } | What::Restarted) && event.node < nodes {
                moments.push((event.at, Moment::Befell(index)));
            }
        }
        for (index, read) in history.reads.iter().enumerate() {
            if read.node < nodes {
                moments.push((read.invoked, Moment::ReadSent(index)));
                moments.push((read.completed, Moment::ReadShown(index)));
            }
        }
        for (index, op) in history.ops.iter().enumerate() {
            if let (Some(_), Some(completed), Ack::Stored) = (op.placed(), op.completed, op.ack) {
                moments.push((completed, Moment::Answered(index)));
            }
        }
        moments.sort_unstable();
        let mut known: Vec<Freshness> = (0..nodes).map(|_| Freshness::default()).collect();
        let mut master_lost = false;
        let mut due: HashMap<usize, Due> = HashMap::default();
        for (_, moment) in moments {
            match moment {
                Moment::Befell(index) => {
                    let event = &history.events[index];
                    known[event.node] = Freshness { since: Some(event.at), ..Default::default() };
                    let lost = matches!(event.what, What::Lost { .. });
                    master_lost |= event.node == 0 && lost;
                }
                Moment::Answered(index) => {
                    let op = &history.ops[index];
                    let Some(placed) = op.placed() else { continue };
                    // What is lost or moved is reported already.
                    let place = self.entries[&op.payload].place;
                    if !history.dumps.is_empty() && place != Some(placed.seq) {
                        continue;
                    }
                    for (node, known) in known.iter_mut().enumerate() {
                        if placed.by >> node & 1 == 1 && known.began_before(op.invoked) {
                            known.answered = known.answered.max(placed.seq);
                        }
                    }
                    let majority = history.cluster.majority() as u32;
                    let master = known.first_mut().filter(|known| known.began_before(op.invoked));
                    if let (true, Some(master)) = (placed.by.count_ones() >= majority, master) {
                        master.committed = master.committed.max(placed.seq);
                    }
                }
                Moment::ReadSent(index) => {
                    let known = &known[history.reads[index].node];
                    due.insert(index, known.due());
                }
                Moment::ReadShown(index) => {
                    let read = &history.reads[index];
                    let Some(due) = due.remove(&index) else { continue };
                    let known = &mut known[read.node];
                    // A new life began while it was under way.
                    if !known.began_before(read.invoked) {
                        continue;
                    }
                    let name = history.cluster.nodes[read.node].as_str();
                    let local = !(master_lost && read.node > 0);
                    judge(&mut self.report, read, name, &due, local);
                    known.learn(read);
                }
            }
        }
    }

    /// Answers that came late or never.
    fn check_availability(&mut self) {
        let cluster = &self.history.cluster;
        let Some(slack) = cluster.slack else { return };
        let mut stalls: Vec<(u64, u64)> = self
            .history
            .events
            .iter()
            .filter_map(|event| match event.what {
                What::Stalled { until } if event.node == 0 => Some((event.at, until)),
                _ => None,
            })
            .collect();
        stalls.sort_unstable();
        // Ends rise too, so that the last stall that began in time is the one that lasts longest.
        for index in 1..stalls.len() {
            stalls[index].1 = stalls[index].1.max(stalls[index - 1].1);
        }
        let stalled = |from: u64, until: u64| {
            let before = stalls.partition_point(|&(at, _)| at <= until);
            before.checked_sub(1).is_some_and(|index| stalls[index].1 >= from)
        };
        for op in &self.history.ops {
            let (client, invoked) = (op.client, op.invoked);
            let until = op.completed.unwrap_or(cluster.end);
            if op.answer == Answer::Lost || op.answer == Answer::Unsent || stalled(invoked, until) {
                continue;
            }
            let late = op.timeout.is_some_and(|timeout| until > invoked + timeout + slack);
            if op.answer == Answer::Missing {
                if late || (cluster.healed && op.timeout.is_none()) {
                    self.report.find(Kind::Unanswered, || {
                        format!("client {client} got no answer to what it sent at {invoked}")
                    });
                }
            } else if late {
                self.report.find(Kind::Late, || {
                    format!("client {client} sent at {invoked} and was answered at {until}")
                });
            }
        }
    }
}

/// How many nodes a level asks for.
fn needed(level: Level, majority: usize, nodes: usize) -> usize {
    match level {
        Level::Local => 1,
        Level::Committed => majority,
        Level::All => nodes,
        Level::Nodes(count) => usize::from(count),
    }
}

/// What a node has shown or was said to hold, in its present life.
#[derive(Default)]
struct Freshness {
    /// When that life began; `None` for the first.
    since: Option<u64>,
    /// Answers said that it holds this.
    answered: u64,
    /// The master only: answers said that a majority holds this.
    committed: u64,
    /// It showed this at level local.
    local: u64,
    /// It showed this at level committed.
    shown: u64,
    /// It told this as the commit position, which may lie beyond what it holds itself.
    commit: u64,
}

/// What a read must show.
struct Due {
    answered: u64,
    committed: u64,
    local: u64,
    shown: u64,
    commit: u64,
}

impl Freshness {
    fn began_before(&self, moment: u64) -> bool {
        self.since.is_none_or(|since| since < moment)
    }

    fn due(&self) -> Due {
        let Freshness { answered, committed, local, shown, commit, .. } = *self;
        Due { answered, committed, local, shown, commit }
    }

    fn learn(&mut self, read: &Read) {
        let shown = read.items.last().map_or(0, |item| item.seq);
        self.local = self.local.max(shown);
        if read.level == Level::Committed {
            self.shown = self.shown.max(shown);
        }
        self.commit = self.commit.max(read.commit.unwrap_or(0));
    }
}

fn judge(report: &mut Report, read: &Read, node: &str, due: &Due, local: bool) {
    let end = read.end();
    let at = read.invoked;
    if read.commit.is_some_and(|commit| commit < due.commit) {
        let (commit, before) = (read.commit.unwrap_or(0), due.commit);
        report.find(Kind::NonMonotonicRead, || {
            format!("{node} told commit {commit} at {at} and {before} before")
        });
    }
    if !read.whole {
        return;
    }
    match read.level {
        Level::Local if local && end < due.answered => report.find(Kind::EarlyOk, || {
            let answered = due.answered;
            format!("{node} was named as holding {answered} and showed only {end} at {at}")
        }),
        Level::Local if local && end < due.local => report.find(Kind::NonMonotonicRead, || {
            format!("{node} showed {end} at {at} and {} before", due.local)
        }),
        Level::Committed if end < due.committed => report.find(Kind::StaleRead, || {
            let committed = due.committed;
            format!("{node} showed {end} as committed at {at}; {committed} had been answered")
        }),
        Level::Committed if end < due.shown => report.find(Kind::NonMonotonicRead, || {
            format!("{node} showed {end} as committed at {at} and {} before", due.shown)
        }),
        _ => {}
    }
}
