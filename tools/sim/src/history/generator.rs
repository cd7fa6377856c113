//! Good histories for the checker's tests: a toy cluster that keeps every rule.

use std::collections::VecDeque;

use super::model::*;

/// What a history is to be like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) nodes: usize,
    pub(super) clients: u64,
    pub(super) ops: usize,
    pub(super) reads: usize,
    pub(super) seed: u64,
    /// Secondaries lose everything now and then.
    pub(super) wipes: bool,
    /// So does the master, once; what only it had is gone.
    pub(super) master_wiped: bool,
    /// Half of the clients are producers, whose lost appends are sent again.
    pub(super) producers: bool,
    /// Whether the nodes get everything before they are dumped.
    pub(super) healed: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            nodes: 3,
            clients: 4,
            ops: 300,
            reads: 60,
            seed: 1,
            wipes: false,
            master_wiped: false,
            producers: false,
            healed: true,
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

struct Toy {
    shape: Shape,
    random: Random,
    now: u64,
    epoch: u64,
    log: Vec<DumpEntry>,
    /// How far each node's log reaches; the master's is all of it.
    stored: Vec<usize>,
    commit: u64,
    /// What each node knows of it.
    commits: Vec<u64>,
    queues: Vec<VecDeque<usize>>,
    /// Placed and not answered: (op, number).
    waiting: VecDeque<(usize, u64)>,
    numbers: Vec<u64>,
    /// Of each producer, what must be sent again.
    again: Vec<Option<(PayloadId, Producer, u64)>>,
    history: History,
}

/// A good history of this shape.
pub(super) fn generate(shape: &Shape) -> History {
    let nodes = (0..shape.nodes)
        .map(|node| if node == 0 { "master".to_owned() } else { format!("s{node}") })
        .collect();
    let cluster = Cluster { nodes, healed: shape.healed, end: 0, slack: Some(1_000_000) };
    let mut toy = Toy {
        random: Random(shape.seed),
        now: 0,
        epoch: 1,
        log: Vec::new(),
        stored: vec![0; shape.nodes],
        commit: 0,
        commits: vec![0; shape.nodes],
        queues: vec![VecDeque::new(); shape.clients as usize],
        waiting: VecDeque::new(),
        numbers: vec![0; shape.clients as usize],
        again: vec![None; shape.clients as usize],
        history: History { cluster, ..History::default() },
        shape: shape.clone(),
    };
    toy.run();
    toy.history
}

impl Toy {
    fn run(&mut self) {
        let mut sent = 0;
        let mut read = 0;
        let mut steps = 0;
        while sent < self.shape.ops || read < self.shape.reads || !self.waiting.is_empty() {
            self.now += 1 + self.random.below(5);
            steps += 1;
            match self.random.below(12) {
                0..=2 if sent < self.shape.ops => {
                    self.send();
                    sent += 1;
                }
                3..=5 => self.place(),
                6..=8 => self.store(),
                9 | 10 => self.answer(),
                _ if read < self.shape.reads => {
                    self.read();
                    read += 1;
                }
                _ => self.answer(),
            }
            if self.shape.wipes && u64::is_multiple_of(steps, 300) {
                self.wipe();
            }
            if self.shape.master_wiped && sent == self.shape.ops / 2 {
                self.wipe_master();
                self.shape.master_wiped = false;
            }
        }
        self.finish();
    }

    fn send(&mut self) {
        let client = self.random.below(self.shape.clients);
        let index = self.history.ops.len();
        let producing = self.shape.producers && client.is_multiple_of(2);
        let (payload, producer) = match self.again[client as usize].take() {
            Some((payload, producer, _)) => (payload, Some(producer)),
            None => {
                let number = &mut self.numbers[client as usize];
                *number += 1;
                let producer = producing.then_some(Producer { id: client, number: *number });
                (PayloadId::of(format!("c{client}-{number}").as_bytes()), producer)
            }
        };
        let need = 1 + self.random.below(self.shape.nodes as u64) as u16;
        let ack = if self.random.below(4) == 0 { Ack::Received } else { Ack::Stored };
        let timeout = (self.random.below(3) == 0).then_some(50);
        self.history.ops.push(Op {
            client,
            payload,
            invoked: self.now,
            completed: None,
            need,
            ack,
            timeout,
            producer,
            atomic: false,
            answer: Answer::Missing,
        });
        self.queues[client as usize].push_back(index);
    }

    fn complete(&mut self, index: usize, answer: Answer) {
        let op = &mut self.history.ops[index];
        op.completed = Some(self.now);
        op.answer = answer;
    }

    fn place(&mut self) {
        let client = self.random.below(self.shape.clients) as usize;
        let Some(index) = self.queues[client].pop_front() else { return };
        let op = &self.history.ops[index];
        let payload = op.payload;
        let again = op.producer.is_some();
        let known = again.then(|| self.log.iter().position(|entry| entry.payload == payload));
        let known = known.flatten();
        if !again && self.random.below(8) == 0 {
            let refused = Answer::Rejected("read-only".to_owned());
            return self.complete(index, if index % 3 == 0 { Answer::Unsent } else { refused });
        }
        let seq = known.unwrap_or_else(|| {
            let seq = self.log.len() as u64 + 1;
            self.log.push(DumpEntry { seq, epoch: self.epoch, payload });
            self.log.len() - 1
        }) as u64
            + 1;
        self.stored[0] = self.log.len();
        self.levels();
        let idle = self.queues[client].is_empty();
        if self.random.below(6) == 0 && (idle || !again) {
            let op = &self.history.ops[index];
            if let Some(producer) = op.producer.clone() {
                self.again[client] = Some((payload, producer, seq));
            }
            let answer = if self.random.below(2) == 0 { Answer::Lost } else { Answer::Unknown };
            return self.complete(index, answer);
        }
        self.waiting.push_back((index, seq));
    }

    fn holders(&self, seq: u64) -> u128 {
        let holds = |node: &usize| self.stored[*node] as u64 >= seq;
        (0..self.shape.nodes).filter(holds).fold(0, |by, node| by | 1 << node)
    }

    fn store(&mut self) {
        if self.shape.nodes == 1 {
            return;
        }
        let node = 1 + self.random.below(self.shape.nodes as u64 - 1) as usize;
        let behind = self.log.len() - self.stored[node];
        self.stored[node] += self.random.below(behind as u64 + 1) as usize;
        self.levels();
        self.commits[node] = self.commits[node].max(self.commit.min(self.stored[node] as u64));
    }

    fn levels(&mut self) {
        let mut stored = self.stored.clone();
        stored.sort_unstable_by(|a, b| b.cmp(a));
        let majority = self.history.cluster.majority();
        self.commit = self.commit.max(stored[majority - 1] as u64);
        self.commits[0] = self.commit;
    }

    fn answer(&mut self) {
        for _ in 0..self.waiting.len().min(4) {
            let Some((index, seq)) = self.waiting.pop_front() else { return };
            let by = self.holders(seq);
            let epoch = self.log[seq as usize - 1].epoch;
            let placed = Placed { seq, epoch, by };
            let op = &self.history.ops[index];
            if by.count_ones() >= u32::from(op.need) {
                self.complete(index, Answer::Ok(placed));
            } else if op.timeout.is_some_and(|timeout| self.now > op.invoked + timeout) {
                self.complete(index, Answer::Pending(placed));
            } else {
                self.waiting.push_back((index, seq));
            }
        }
    }

    fn read(&mut self) {
        let node = self.random.below(self.shape.nodes as u64) as usize;
        let (level, end) = match self.random.below(3) {
            0 => (Level::Committed, self.commits[node].min(self.stored[node] as u64)),
            1 => (Level::All, *self.stored.iter().min().unwrap_or(&0) as u64),
            _ => (Level::Local, self.stored[node] as u64),
        };
        let end = if level == Level::All { end.min(self.commits[node]) } else { end };
        let from = 1 + self.random.below(end + 2);
        let items =
            (from..=end).map(|seq| Item { seq, payload: self.log[seq as usize - 1].payload });
        let invoked = self.now;
        let items: Vec<Item> = items.collect();
        self.now += 1;
        self.history.reads.push(Read {
            client: 1000 + node as u64,
            node,
            level,
            from,
            items,
            commit: Some(self.commits[node]),
            whole: true,
            invoked,
            completed: self.now,
        });
    }

    fn wipe(&mut self) {
        if self.shape.nodes == 1 {
            return;
        }
        let node = 1 + self.random.below(self.shape.nodes as u64 - 1) as usize;
        self.now += 1;
        (self.stored[node], self.commits[node]) = (0, 0);
        let what = What::Lost { kept: 0 };
        self.history.events.push(Event { node, at: self.now, what });
        self.now += 1;
    }

    fn wipe_master(&mut self) {
        self.now += 1;
        let what = What::Lost { kept: 0 };
        self.history.events.push(Event { node: 0, at: self.now, what });
        let kept = self.stored[1..].iter().copied().max().unwrap_or(0);
        self.log.truncate(kept);
        self.stored[0] = kept;
        self.epoch += 1;
        self.now += 1;
        for (index, _) in std::mem::take(&mut self.waiting) {
            self.complete(index, Answer::Lost);
        }
        for client in 0..self.queues.len() {
            for index in std::mem::take(&mut self.queues[client]) {
                self.complete(index, Answer::Lost);
            }
        }
        self.again.fill(None);
    }

    fn finish(&mut self) {
        for client in 0..self.queues.len() {
            for index in std::mem::take(&mut self.queues[client]) {
                self.complete(index, Answer::Lost);
            }
        }
        self.history.cluster.end = self.now;
        for node in 0..self.shape.nodes {
            let end = if self.shape.healed { self.log.len() } else { self.stored[node] };
            let entries = self.log[..end].to_vec();
            self.history.dumps.push(Dump { node, entries });
        }
    }
}
