//! The rules of replication as scripts: what comes in, and what the engine decides.
//!
//! Every file in `tests/testdata/engine` is a scenario of blocks: commands, `----`, what they caused,
//! an empty line. `REPLOG_REWRITE=1` writes the expected part anew; a changed line is a changed
//! behaviour and is read as such. The runner stands for sockets and disks: entries have 100 bytes,
//! what is to be sent is sent and flushed at once, what is to be durable is durable at once, unless a
//! script says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use replog::codes::{NackCode, RefuseCode};
use replog::engine::progress::Link;
use replog::engine::ranges::RangeSet;
use replog::engine::secondary::{Holdings, MasterHello};
use replog::engine::{
    AckFacts, Answer, Arrival, Effect, HelloFacts, Levels, Master, MasterConfig, OwnLog, Reign,
    Secondary, SecondaryEffect, SessionId, Submission, Token, Verdict,
};
use replog::types::{
    Digest, Epoch, LogId, NodeIndex, NodeSet, PrefixId, RoomLimit, RunId, Seq, SeqRange, Shortage,
    Time, parse_duration, parse_size,
};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/engine");
const ENTRY_BYTES: usize = 100;
const RUN: RunId = RunId::new(7);
/// What a secondary has settled in a script that does not ask: there is nothing left to settle.
const SETTLED: Epoch = Epoch::new(u64::MAX);

/// One command: a verb, plain words, and options with a value.
struct Command<'a> {
    line: &'a str,
    words: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Command<'a> {
    fn parse(line: &'a str) -> Self {
        let (options, words): (Vec<_>, Vec<_>) =
            line.split_whitespace().partition(|word| word.contains('='));
        let options = options.iter().filter_map(|word| word.split_once('=')).collect();
        Command { line, words, options }
    }

    fn word(&self, at: usize) -> &'a str {
        self.words.get(at).unwrap_or_else(|| panic!("{:?} lacks a word", self.line))
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    /// Takes an option, so that what is left over at the end is a mistake.
    fn option<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.options.remove(name)?;
        Some(parse(value).unwrap_or_else(|| panic!("{:?}: {name}={value}", self.line)))
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        self.option(name, parsed)
    }

    fn seq(&mut self, name: &str) -> Option<Seq> {
        self.number(name).map(Seq::new)
    }

    fn duration(&mut self, name: &str, default: &str) -> Duration {
        let given = self.option(name, |text| parse_duration(text).ok());
        given.unwrap_or_else(|| parse_duration(default).expect("a default is a duration"))
    }

    fn node(&self) -> NodeIndex {
        node(self.word(1))
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn node(name: &str) -> NodeIndex {
    let number: usize = name.strip_prefix('s').and_then(parsed).expect("a node is s1, s2, …");
    NodeIndex::secondary(number - 1)
}

fn name(of: NodeIndex) -> String {
    of.secondary_position().map_or("master".into(), |position| format!("s{}", position + 1))
}

fn names(nodes: NodeSet) -> String {
    let all = std::iter::once(NodeIndex::MASTER).chain((0..8).map(NodeIndex::secondary));
    all.filter(|&node| nodes.contains(node)).map(name).collect::<Vec<_>>().join(",")
}

fn range(text: &str) -> Option<SeqRange> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    Some(SeqRange::inclusive(Seq::new(parsed(first)?), Seq::new(parsed(last)?)))
}

fn shown(held: &RangeSet) -> String {
    if held.is_empty() {
        return "-".into();
    }
    held.iter().map(|range| range.to_string()).collect::<Vec<_>>().join(",")
}

fn log_id(text: &str) -> Option<Option<LogId>> {
    Some((text != "none").then(|| LogId::new([text.as_bytes()[0]; 16])))
}

/// The id of a prefix in the history that a letter names; all histories begin empty.
fn prefix_id(history: &str, seq: Seq) -> PrefixId {
    if seq == Seq::ZERO {
        return PrefixId::EMPTY;
    }
    let digest = Digest::new(seq.number() << 8 | u64::from(history.as_bytes()[0]));
    PrefixId { epoch: Epoch::new(1), digest }
}

// ---- the master and those around it ----

struct MasterSide {
    engine: Master,
    now: Time,
    sessions: u64,
    current: BTreeMap<NodeIndex, SessionId>,
    slots: u64,
    disk: bool,
    flush: bool,
    readable: bool,
    /// What is to be sent must be read from disk first, which a `read` says it was.
    cold: bool,
    reading: BTreeMap<NodeIndex, (SeqRange, usize, bool)>,
    /// Sent and not flushed: frames and the last entry.
    unflushed: BTreeMap<NodeIndex, (usize, Seq)>,
    /// Who answers every heartbeat at once; these heartbeats are not shown.
    answering: BTreeSet<NodeIndex>,
    out: String,
}

impl MasterSide {
    fn new(command: &mut Command) -> Self {
        let delays = |text: &str| text.split(',').map(|wait| parse_duration(wait).ok()).collect();
        let seconds = |s| Duration::from_secs(s);
        let config = MasterConfig {
            nodes: command.option("nodes", parsed).unwrap_or(3),
            quorum: command.option("quorum", parsed).unwrap_or(2),
            write_concern: command.option("w", parsed).unwrap_or(replog::types::WriteConcern::All),
            ack: command.option("ack", parsed).unwrap_or_default(),
            timeout: command.option("timeout", parsed).unwrap_or(replog::types::Timeout::Forever),
            heartbeat_interval: command.duration("heartbeat", "1s"),
            suspected_after: 2,
            unhealthy_after: 5,
            attempt_timeout: command.duration("attempt", "3s"),
            retry_delays: command.option("ladder", delays).unwrap_or(vec![
                seconds(1),
                seconds(2),
                seconds(5),
            ]),
            window_bytes_max: command
                .option("window", |text| parse_size(text).ok())
                .unwrap_or(16 << 20) as usize,
            bootstrap: command.has("bootstrap"),
            accept_data_loss: command.seq("accept"),
        };
        let tail_epoch = Epoch::new(command.number("tail").unwrap_or(0));
        let own = OwnLog {
            log_id: command.option("log", log_id).flatten(),
            epoch: Epoch::new(command.number("epoch").unwrap_or(0)),
            last: command.seq("last").unwrap_or_default(),
            tail_epoch,
            settled: command.number("settled").map_or(tail_epoch, Epoch::new),
            commit: command.seq("commit").unwrap_or_default(),
            whole: command.has("whole"),
        };
        MasterSide {
            engine: Master::new(config, RUN, LogId::new([b'a'; 16]), own, Time::ZERO),
            now: Time::ZERO,
            sessions: 0,
            current: BTreeMap::new(),
            slots: 0,
            disk: true,
            flush: true,
            readable: true,
            cold: false,
            reading: BTreeMap::new(),
            unflushed: BTreeMap::new(),
            answering: BTreeSet::new(),
            out: String::new(),
        }
    }

    fn run(&mut self, command: &mut Command) {
        let now = self.now;
        match command.word(0) {
            "master" => {}
            "time" => self.pass(parse_duration(command.word(1)).expect("a duration")),
            "disk" => self.disk = command.has("on"),
            "flush" => self.flush = command.has("on"),
            "readable" => self.readable = command.has("on"),
            "cold" => self.cold = command.has("on"),
            "read" => {
                let (to, session) = (command.node(), self.session(command));
                let epoch = command.number("epoch").map_or(self.engine.epoch(), Epoch::new);
                let (range, bytes_max, again) = self.reading.remove(&to).expect("it was asked for");
                if self.engine.handle_read(to, session, epoch) {
                    self.send(to, session, range, bytes_max, again);
                } else {
                    self.line(&name(to), "not sent", &range.first);
                }
            }
            "answering" => {
                self.answering = command.words[1..].iter().map(|name| node(name)).collect();
            }
            "append" => {
                let count = command.number("count").unwrap_or(1);
                let run = self.submission(command, count);
                match self.engine.handle_append(now, run) {
                    Ok(range) => {
                        self.line("log", "numbered", &range);
                        self.engine.handle_written(now, range.last());
                    }
                    Err(refused) => self.line("log", "refused", &format!("{refused:?}")),
                }
            }
            "wait" => {
                let run = self.submission(command, 1);
                let seq = Seq::new(parsed(command.word(1)).expect("a number"));
                if let Err(refused) = self.engine.handle_wait(now, seq, run) {
                    self.line("log", "refused", &format!("{refused:?}"));
                }
            }
            "gone" => self.engine.handle_gone(parsed(command.word(1)).expect("a number")),
            "stop" => self.engine.handle_stop(),
            "stored" => {
                let up_to = Seq::new(parsed(command.word(1)).expect("a number"));
                self.engine.handle_stored(now, up_to);
            }
            "room" => {
                let lacking = Shortage { need: 9, free: Some(2), limit: RoomLimit::Space };
                self.engine.handle_room((!command.has("on")).then_some(lacking));
            }
            "damage" => self.engine.handle_damage(range(command.word(1))),
            "unreadable" => {
                let session = self.session(command);
                self.engine.handle_unreadable(command.node(), session);
            }
            "adopted" => {
                let up_to = Seq::new(parsed(command.word(1)).expect("a number"));
                let tail = Epoch::new(command.number("tail").unwrap_or(1));
                self.engine.handle_adopted(now, up_to, tail);
            }
            "unfit" => {
                let session = self.session(command);
                self.engine.handle_fetch_failed(command.node(), session);
            }
            "mending" => self.engine.handle_mending(),
            "mended" => self.engine.handle_repaired(range(command.word(1))),
            "unrepaired" => self.engine.handle_repair_failed(now),
            "unreachable" => self.engine.handle_dial_failed(now, command.node()),
            "hello" | "promise" => self.introduce(command),
            "refused" => {
                let code = RefuseCode::ALL.iter().find(|code| code.word() == command.word(2));
                let epoch = Epoch::new(command.number("epoch").unwrap_or(0));
                let (to, session) = (command.node(), self.session(command));
                let code = *code.expect("a code");
                self.engine.handle_refused(to, session, code, epoch);
            }
            "disconnect" => {
                let session = self.session(command);
                self.engine.handle_disconnected(command.node(), session);
            }
            "heard" => {
                let session = self.session(command);
                self.engine.handle_heard(now, command.node(), session);
            }
            "ack" => {
                let session = self.session(command);
                let stored = command.seq("stored").expect("an ACK says what is stored");
                let held = |text: &str| text.split(',').map(range).collect::<Option<Vec<_>>>();
                let ack = AckFacts {
                    stored,
                    received: command.seq("received").unwrap_or(stored),
                    held: RangeSet::of(command.option("held", held).unwrap_or_default()),
                    duplicates: command.number("duplicates").unwrap_or(0),
                };
                self.engine.handle_ack(now, command.node(), session, ack);
            }
            "nack" => {
                let session = self.session(command);
                let named = |code: &&NackCode| command.words.get(2) == Some(&code.word());
                let code = NackCode::ALL.iter().find(named).copied();
                self.engine.handle_nack(now, command.node(), session, code);
            }
            "flushed" => {
                if let Some((frames, up_to)) = self.unflushed.remove(&command.node()) {
                    let session = self.session(command);
                    self.engine.handle_flushed(now, command.node(), session, up_to, frames);
                }
            }
            "nodes" => self.nodes(),
            "levels" => {
                let to = command.node();
                let Levels { commit, held_by } = self.engine.levels_for(to);
                let held_by = held_by.iter().map(Seq::to_string).collect::<Vec<_>>().join(",");
                self.line(&name(to), "hears", &format!("commit={commit} levels={held_by}"));
            }
            "status" => {
                self.status();
                self.nodes();
            }
            "waiters" => {
                let waiting: Vec<_> = self
                    .engine
                    .waiters()
                    .map(|(waiter, seq)| {
                        let have = names(self.engine.holders(seq, waiter.ack));
                        format!("{seq} need={} {} have={have}", waiter.need, waiter.ack)
                    })
                    .collect();
                waiting.iter().for_each(|waiter| self.line("log", "waits", waiter));
            }
            verb => panic!("no such command: {verb}"),
        }
        self.carry_out();
        self.do_what_is_due();
    }

    fn submission(&mut self, command: &mut Command, count: u64) -> Submission {
        self.slots += 1;
        let connection = command.number("from").unwrap_or(1);
        Submission {
            token: Token { connection, slot: self.slots },
            count,
            options: replog::types::WaitOptions {
                concern: command.option("w", parsed),
                ack: command.option("ack", parsed),
                timeout: command.option("timeout", parsed),
            },
        }
    }

    /// `hello`: the answer to a master that only asks. `promise`: to one that leads.
    fn introduce(&mut self, command: &mut Command) {
        let to = command.node();
        let dialled = matches!(
            self.engine.secondaries()[to.as_usize() - 1].link,
            Link::Dialling | Link::Down
        );
        if dialled {
            self.sessions += 1;
            self.current.insert(to, SessionId(self.sessions));
        }
        let leading = command.word(0) == "promise";
        let own = |leading: bool, value: Option<LogId>| value.filter(|_| leading);
        let stored = command.seq("stored").unwrap_or_default();
        let history = command.options.remove("history").unwrap_or("a");
        let mut tail = prefix_id(history, stored);
        tail.epoch = command.number("tail").map_or(tail.epoch, Epoch::new);
        // Whoever answers a reign has settled it, unless a script says otherwise.
        let leads = self.engine.reign() == Reign::Leading;
        let settled = if leads { self.engine.epoch() } else { tail.epoch };
        let facts = HelloFacts {
            settled: command.number("settled").map_or(settled, Epoch::new),
            log_id: command.option("log", log_id).unwrap_or(own(leading, self.engine.log_id())),
            epoch: command
                .number("epoch")
                .map_or(if leading { self.engine.epoch() } else { Epoch::ZERO }, Epoch::new),
            run_id: command.number("run").map_or(RUN, RunId::new),
            stored,
            tail,
            ours: (stored <= self.engine.last() && !command.has("unreadable"))
                .then(|| PrefixId { epoch: tail.epoch, ..prefix_id("a", stored) }),
            commit: command.seq("commit").unwrap_or_default(),
            vouches: !command.has("unsure"),
            common: command.seq("common").unwrap_or(stored.min(self.engine.last())),
        };
        let session = self.session(command);
        self.engine.handle_introduced(self.now, to, session, facts, leading);
    }

    fn session(&self, command: &mut Command) -> SessionId {
        let current = self.current.get(&command.node()).copied().unwrap_or(SessionId(0));
        command.number("session").map_or(current, SessionId)
    }

    /// Lets time pass, from one moment at which something is due to the next.
    fn pass(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while let Some(due) = self.engine.poll_timeout().filter(|&due| due <= end) {
            self.now = due.max(self.now);
            self.do_what_is_due();
        }
        self.now = end;
    }

    fn do_what_is_due(&mut self) {
        if self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now);
            self.carry_out();
            let next = self.engine.poll_timeout();
            assert!(next.is_none_or(|due| due > self.now), "it would be due for ever");
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Dial { to } => self.line(&name(to), "dial", &""),
                Effect::Introduce { to, session } => {
                    self.line(&name(to), "introduce", &format!("session={}", session.0));
                }
                Effect::Close { to, session, code } => {
                    self.line(&name(to), "close", &format!("session={} {code}", session.0));
                }
                Effect::Send { to, session, range, .. } if !self.readable => {
                    self.line(&name(to), "unreadable", &range.first);
                    self.engine.handle_unreadable(to, session);
                }
                Effect::Send { to, range, bytes_max, again, .. } if self.cold => {
                    self.line(&name(to), "reads", &range);
                    self.reading.insert(to, (range, bytes_max, again));
                }
                Effect::Send { to, session, range, bytes_max, again } => {
                    self.send(to, session, range, bytes_max, again);
                }
                Effect::Heartbeat { to, session } => {
                    if self.answering.contains(&to) {
                        self.engine.handle_heard(self.now, to, session);
                    } else {
                        self.line(&name(to), "heartbeat", &"");
                    }
                }
                Effect::MakeDurable { up_to } if self.disk => {
                    self.engine.handle_stored(self.now, up_to);
                }
                Effect::MakeDurable { up_to } => {
                    self.line("log", "sync", &format!("up to {up_to}"));
                }
                Effect::Answer(answer) => self.answer(answer),
                Effect::Keep { log_id, epoch, settled, vouches } => {
                    let id = log_id.bytes()[0] as char;
                    let sure = if vouches { "" } else { " unsure" };
                    let kept = format!("log={id} epoch={epoch} settled={settled}{sure}");
                    self.line("log", "keep", &kept);
                }
                Effect::SetAside { from } => self.line("log", "aside", &format!("from {from}")),
                Effect::Fetch { from, session, range } => {
                    let text = format!("{range} session={}", session.0);
                    self.line(&name(from), "fetch", &text);
                }
                Effect::Align { to, session, last } => {
                    let text = format!("last={last} session={}", session.0);
                    self.line(&name(to), "align", &text);
                }
                Effect::BeginReign { epoch, last } => {
                    self.line("master", "leads", &format!("epoch={epoch} last={last}"));
                }
                Effect::BeginHistory { log_id, epoch } => {
                    let id = log_id.bytes()[0] as char;
                    self.line("log", "begins", &format!("log={id} epoch={epoch}"));
                }
                Effect::HealthChanged { of, from, to } => {
                    self.line(&name(of), "health", &format!("{from} -> {to}"));
                }
                Effect::ModeChanged { from, to, present } => {
                    self.line("mode", "", &format!("{from} -> {to} present={present}"));
                }
                Effect::AttemptFailed { to, seq, failure, attempts, wait } => {
                    let text = format!("{failure:?} at {seq} attempts={attempts} wait={wait:?}");
                    self.line(&name(to), "failed", &text);
                }
                Effect::Following { to, stored } => {
                    self.line(&name(to), "follows", &format!("stored={stored}"));
                }
                Effect::Deposed { by, epoch } => {
                    self.line("master", "deposed", &format!("by={} epoch={epoch}", name(by)));
                }
            }
        }
    }

    fn send(
        &mut self,
        to: NodeIndex,
        session: SessionId,
        range: SeqRange,
        bytes_max: usize,
        again: bool,
    ) {
        let count = range.len().min((bytes_max / ENTRY_BYTES).max(1) as u64);
        let sent = SeqRange::with_len(range.first, count);
        self.line(&name(to), "send", &format!("{sent}{}", if again { " again" } else { "" }));
        let bytes = count as usize * ENTRY_BYTES;
        self.engine.handle_sent(self.now, to, session, sent, bytes);
        if self.flush {
            return self.engine.handle_flushed(self.now, to, session, sent.last(), 1);
        }
        let (frames, up_to) = self.unflushed.entry(to).or_default();
        (*frames, *up_to) = (*frames + 1, (*up_to).max(sent.last()));
    }

    fn answer(&mut self, answer: Answer) {
        let Answer { token, range, need, holders, verdict, .. } = answer;
        let word = match verdict {
            Verdict::Met => "OK",
            Verdict::Waiting => "PENDING",
            Verdict::Unknown => "UNKNOWN",
        };
        let who = format!("c{}.{}", token.connection, token.slot);
        let have = holders.len();
        self.line(&who, word, &format!("{range} need={need} have={have} by={}", names(holders)));
    }

    fn status(&mut self) {
        let levels = self.engine.levels();
        let held_by: Vec<_> = levels.held_by.iter().map(|seq| seq.to_string()).collect();
        let (mode, present, commit) = (self.engine.mode(), self.engine.present(), levels.commit);
        let (last, waiting) = (self.engine.last(), self.engine.waiting());
        let text = format!(
            "{mode} epoch={} present={present} last={last} commit={commit} levels={} \
             waiting={waiting}",
            self.engine.epoch(),
            held_by.join(",")
        );
        self.line("master", "status", &text);
    }

    fn nodes(&mut self) {
        let lines: Vec<_> = self
            .engine
            .secondaries()
            .iter()
            .map(|progress| {
                let mut text = format!(
                    "{} {} stored={} received={} held={} next={} inflight={} attempts={}",
                    progress.health.health(),
                    link(progress.link),
                    progress.stored,
                    progress.received,
                    shown(&progress.held),
                    progress.next,
                    progress.inflight_bytes(),
                    progress.attempts(),
                );
                if let Some(due) = progress.retry_at() {
                    let _ = write!(text, " retry={:?}", due.since(self.now));
                }
                if let Some(code) = progress.refused {
                    let _ = write!(text, " refused={code}");
                }
                text
            })
            .collect();
        for (position, text) in lines.iter().enumerate() {
            self.line(&name(NodeIndex::secondary(position)), "status", text);
        }
    }

    fn line(&mut self, who: &str, what: &str, text: &dyn std::fmt::Display) {
        let seconds = self.now.micros() as f64 / 1e6;
        let line = format!("{seconds:>7.3}  {who:<7} {what:<10} {text}");
        let _ = writeln!(self.out, "{}", line.trim_end());
    }
}

fn link(link: Link) -> &'static str {
    match link {
        Link::Down => "down",
        Link::Dialling => "dialling",
        Link::Introduced(_) => "introduced",
        Link::Following(_) => "following",
    }
}

// ---- a secondary and its log ----

#[derive(Clone)]
struct FakeRun {
    range: SeqRange,
    history: String,
    before: PrefixId,
    bytes: usize,
}

struct SecondarySide {
    engine: Secondary,
    /// The letter of each entry's history.
    log: Vec<String>,
    held: BTreeMap<Seq, FakeRun>,
    disk: bool,
    room: bool,
    out: String,
}

impl SecondarySide {
    fn new(command: &mut Command) -> Self {
        let last = command.seq("last").unwrap_or_default();
        let settled = command.number("settled").map(Epoch::new);
        let own = Holdings {
            log_id: command.option("log", log_id).flatten(),
            epoch: Epoch::new(command.number("epoch").unwrap_or(0)),
            run_id: command.number("run").map_or(RUN, RunId::new),
            last,
            tail: prefix_id("a", last),
            settled: settled.unwrap_or(SETTLED),
            commit: command.seq("commit").unwrap_or_default(),
            vouches: command.has("vouches"),
        };
        SecondarySide {
            engine: Secondary::new(own),
            log: vec!["a".to_owned(); last.number() as usize],
            held: BTreeMap::new(),
            disk: true,
            room: true,
            out: String::new(),
        }
    }

    fn run(&mut self, command: &mut Command) {
        let session = SessionId(command.number("session").unwrap_or(1));
        match command.word(0) {
            "secondary" => {}
            "disk" => self.disk = command.has("on"),
            "room" => {
                self.room = command.has("on");
                if self.room {
                    self.engine.handle_room();
                }
            }
            "hello" => {
                let hello = MasterHello {
                    log_id: command.option("log", log_id).unwrap_or(Some(LogId::new([b'a'; 16]))),
                    epoch: Epoch::new(command.number("epoch").unwrap_or(1)),
                    run_id: command.number("run").map_or(RUN, RunId::new),
                    // A master that does not say where its epoch begins: `begins=none`.
                    begins: command
                        .option("begins", |text| Some(parsed(text).map(Seq::new)))
                        .unwrap_or(Some(Seq::FIRST)),
                };
                match self.engine.handle_hello(session, hello) {
                    Ok(()) => self.line("hello", &format!("stored={}", self.engine.stored())),
                    Err(code) => self.line("refuse", &code),
                }
            }
            "arrive" => {
                let range = range(command.word(1)).expect("a range");
                let history = command.options.remove("history").unwrap_or("a");
                let after = command.options.remove("after").unwrap_or(history);
                let run = FakeRun {
                    range,
                    history: history.to_owned(),
                    before: prefix_id(after, range.first.previous()),
                    bytes: command
                        .option("bytes", |text| parse_size(text).ok())
                        .map_or(range.len() as usize * ENTRY_BYTES, |bytes| bytes as usize),
                };
                let epoch = command.number("epoch").map_or(self.engine.epoch(), Epoch::new);
                if !self.engine.admits(session, epoch) {
                    self.line("ignored", &range);
                } else if self.engine.takes(session, range, run.bytes, self.room) {
                    let taken = self.arrive(session, run.clone());
                    // What it says of the levels counts if it is taken.
                    if let Some(commit) = command.seq("commit").filter(|_| taken) {
                        self.engine.handle_levels(session, commit, vec![commit]);
                    }
                    self.carry_out(Some(run));
                }
            }
            "bad" => {
                let range = range(command.word(1)).expect("a range");
                self.engine.handle_bad_run(session, range.first);
            }
            "stored" => {
                let up_to = Seq::new(parsed(command.word(1)).expect("a number"));
                self.engine.handle_stored(up_to);
            }
            "disconnect" => self.engine.handle_disconnected(session),
            "damage" => self.engine.handle_damage(range(command.word(1))),
            "repairing" => {
                let run = range(command.word(1)).expect("a range");
                self.engine.handle_repairing(session, run, run.last());
            }
            "align" => {
                let last = Seq::new(parsed(command.word(1)).expect("a number"));
                let theirs = prefix_id(command.options.remove("history").unwrap_or("a"), last);
                let ours = match last.number() as usize {
                    0 => Some(PrefixId::EMPTY),
                    at => self.log.get(at - 1).map(|history| prefix_id(history, last)),
                };
                if self.engine.handle_align(session, last, theirs, ours) {
                    self.line("hello", &format!("stored={}", self.engine.stored()));
                }
            }
            "levels" => {
                let commit = command.seq("commit").expect("a position");
                // A master that does not lead yet names no level.
                let held_by = if command.has("unled") { Vec::new() } else { vec![commit] };
                self.engine.handle_levels(session, commit, held_by);
            }
            "status" => {
                let engine = &self.engine;
                let text = format!(
                    "epoch={} session={} written={} stored={} held={} duplicates={} commit={} \
                     log={}",
                    engine.epoch(),
                    engine.session().map_or("-".into(), |session| session.0.to_string()),
                    engine.written(),
                    engine.stored(),
                    shown(&engine.held()),
                    engine.duplicates(),
                    engine.levels().commit,
                    self.log.concat(),
                );
                self.line("status", &text);
            }
            verb => panic!("no such command: {verb}"),
        }
        self.carry_out(None);
        if let Some(SecondaryEffect::Ack { session, stored, received, held, duplicates }) =
            self.engine.poll_ack()
        {
            let text = format!(
                "session={} stored={stored} received={received} held={} duplicates={duplicates}",
                session.0,
                shown(&held)
            );
            self.line("ack", &text);
        }
    }

    fn arrive(&mut self, session: SessionId, run: FakeRun) -> bool {
        let FakeRun { range, history, before, bytes } = run;
        let common = self.engine.written().min(range.last());
        let own = common.number().checked_sub(1).map(|at| &self.log[at as usize]);
        let overlap = (range.first <= common)
            .then(|| own.map(|own| (prefix_id(&history, common), prefix_id(own, common))))
            .flatten();
        let tail = prefix_id(&history, range.last());
        self.engine.handle_arrival(session, Arrival { range, before, tail, bytes, overlap })
    }

    fn carry_out(&mut self, mut current: Option<FakeRun>) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                SecondaryEffect::Append { range } => {
                    self.line("append", &range);
                    let run = current.take().expect("only what just arrived is appended");
                    self.log.extend((0..range.len()).map(|_| run.history.clone()));
                    self.engine.handle_written(range.last());
                }
                SecondaryEffect::Hold { range } => {
                    self.line("hold", &range);
                    let run = current.take().expect("only what just arrived is held");
                    self.held.insert(range.first, run);
                }
                SecondaryEffect::Release { first } => {
                    let run = self.held.remove(&first).expect("what is held is there");
                    self.line("release", &run.range);
                    let session = self.engine.session().expect("runs are held for a session");
                    if !self.engine.takes(session, run.range, run.bytes, self.room) {
                        continue;
                    }
                    self.arrive(session, run.clone());
                    current = Some(run);
                }
                SecondaryEffect::DropHeld => {
                    self.held.clear();
                    self.line("drop", &"");
                }
                SecondaryEffect::MakeDurable { up_to } if self.disk => {
                    self.engine.handle_stored(up_to);
                }
                SecondaryEffect::MakeDurable { up_to } => {
                    self.line("sync", &format!("up to {up_to}"));
                }
                SecondaryEffect::Nack { session, seq, code } => {
                    self.line("nack", &format!("session={} seq={seq} {code}", session.0));
                }
                SecondaryEffect::Keep { log_id, epoch, run_id, settled, vouches } => {
                    let id = log_id.bytes()[0] as char;
                    let sure = if vouches { "" } else { " unsure" };
                    let run = run_id.value();
                    let settled =
                        if settled == SETTLED { "" } else { &format!(" settled={settled}") };
                    self.line("keep", &format!("log={id} epoch={epoch} run={run}{settled}{sure}"));
                }
                SecondaryEffect::SetAside { from } => {
                    self.log.truncate(from.number() as usize - 1);
                    self.line("aside", &format!("from {from}"));
                }
                SecondaryEffect::Reconnect { session } => {
                    self.line("reconnect", &format!("session={}", session.0));
                }
                SecondaryEffect::Close { session, code } => {
                    self.line("close", &format!("session={} {code}", session.0));
                }
                SecondaryEffect::Ack { .. } => unreachable!("ACKs come by poll_ack"),
            }
        }
    }

    fn line(&mut self, what: &str, text: &dyn std::fmt::Display) {
        let line = format!("{what:<10} {text}");
        let _ = writeln!(self.out, "{}", line.trim_end());
    }
}

// ---- scripts ----

enum Side {
    None,
    Master(Box<MasterSide>),
    Secondary(Box<SecondarySide>),
}

impl Side {
    fn run(&mut self, line: &str) -> String {
        let mut command = Command::parse(line);
        match command.word(0) {
            "master" => *self = Side::Master(Box::new(MasterSide::new(&mut command))),
            "secondary" => *self = Side::Secondary(Box::new(SecondarySide::new(&mut command))),
            _ => {}
        }
        let out = match self {
            Side::None => panic!("a script begins with master or secondary"),
            Side::Master(side) => {
                side.run(&mut command);
                std::mem::take(&mut side.out)
            }
            Side::Secondary(side) => {
                side.run(&mut command);
                std::mem::take(&mut side.out)
            }
        };
        assert!(command.options.is_empty(), "{line:?}: unknown {:?}", command.options);
        out
    }
}

/// The script with what really happened.
fn replay(script: &str) -> String {
    let mut side = Side::None;
    let mut replayed = String::new();
    let mut caused = String::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(replayed, "{line}");
        if line == "----" {
            let caused = std::mem::take(&mut caused);
            replayed += if caused.is_empty() { "nothing\n" } else { &caused };
            lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
            replayed.push('\n');
        } else if !line.is_empty() && !line.starts_with('#') {
            caused += &side.run(line);
        }
    }
    assert!(caused.is_empty(), "a script ends with ---- and what is expected");
    replayed.truncate(replayed.trim_end().len());
    replayed.push('\n');
    replayed
}

#[test]
fn scripts_say_what_the_engine_does() {
    let mut paths: Vec<_> = std::fs::read_dir(SCRIPTS)
        .expect("the scripts are there")
        .map(|entry| entry.expect("a directory entry").path())
        .collect();
    paths.sort();
    let rewrite = std::env::var_os("REPLOG_REWRITE").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        println!("{}", path.display());
        let script = std::fs::read_to_string(&path).expect("a script is text");
        let replayed = replay(&script);
        if rewrite {
            std::fs::write(&path, replayed).expect("a script can be written");
        } else if replayed != script {
            let differing = script.lines().zip(replayed.lines()).zip(1..);
            let first = differing.into_iter().find(|((old, new), _)| old != new);
            let ((old, new), line) = first.unwrap_or((("(end)", "(end)"), 0));
            wrong.push(format!("{}:{line}\n  expected: {old}\n  happened: {new}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
