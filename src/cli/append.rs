//! `append`: entries out as fast as the node takes them, replies in order, and a clear word on
//! every entry when the connection is lost in between.

use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::advice::Adviser;
use super::interrupt::{Interrupts, Signal};
use super::output::{Stdout, failure};
use super::progress::{INTERVAL, Progress};
use super::request::{Cut, Output, Part};
use super::servers::{Servers, SilenceNotes, limit_of};
use super::source::Source;
use super::{Exit, complain, json, to_stderr, unreachable};
use crate::client::{
    Answered, AppendOptions, AppendOutcome, Appender, Client, ConnectError, ConnectionLost,
    LostReason, Outcomes, ReconnectPolicy,
};
use crate::types::{NodeId, Seq};

/// Entries sent or waiting to be sent that have no answer yet: enough to keep the cluster busy, and
/// half of what a node lets wait by default.
const IN_FLIGHT_MAX: usize = 32_768;

/// Replies written at a time: a run of entries with the same outcome may be long.
const REPLIES_AT_A_TIME: usize = 1024;

/// A lost connection is tried again more often than by a program that has all the time, and then the
/// rest is given up: somebody waits for the exit code.
const RECONNECT: ReconnectPolicy = ReconnectPolicy {
    first_wait: Duration::from_millis(100),
    longest_wait: Duration::from_secs(1),
    give_up_after: Some(Duration::from_secs(5)),
};

/// The reply for an entry that was sent and has no answer. It is ours: the node is not there to
/// give one.
fn unanswered(reason: &LostReason) -> String {
    let why = match reason {
        LostReason::Overdue(_) => reason.to_string(),
        // By us, because of a signal.
        LostReason::Dropped => "interrupted before the answer".to_owned(),
        _ => "connection lost before the answer".to_owned(),
    };
    format!("UNKNOWN seq=- epoch=- - {why}; the entry may be in the log\n")
}

/// How long answers are still taken when a signal came: for those that are here already.
const LAST_ANSWERS_WAIT: Duration = Duration::from_millis(100);

/// Appends everything in `parts` and prints the replies.
pub(super) async fn append(
    servers: &[String],
    options: AppendOptions,
    parts: Vec<Part>,
    output: Output,
    quiet: bool,
    interrupts: &mut Interrupts,
) -> Exit {
    let mut source = Source::new(parts);
    if let Err(message) = source.check_files() {
        complain(format_args!("{message}; nothing was sent"));
        return Exit::Usage;
    }
    let begun = Instant::now();
    let mut servers = Servers::new(servers).within(limit_of(options.timeout));
    let connected = tokio::select! {
        connected = servers.connect_to_master() => connected,
        signal = interrupts.first() => {
            complain("interrupted: nothing was sent");
            return Exit::Interrupted(signal);
        }
    };
    let mut client = match connected {
        Ok(client) => client,
        Err(error) => return unreachable(&error),
    };
    let reads_stdin = source.reads_stdin();
    // What is typed or piped has its time from when it comes; messages have it from now on.
    let options = if reads_stdin { options } else { options.less(begun.elapsed()) };
    invite(&source);
    let mut report = Report::new(output, quiet, Progress::new(reads_stdin));
    loop {
        let lost = match pass(&client, &options, &mut source, &mut report, interrupts).await {
            Ended::Interrupted(signal) => {
                report.interrupted(&source, signal);
                break;
            }
            Ended::Lost(lost) if !source.is_exhausted() => lost,
            Ended::Lost(_) | Ended::Answered => break,
        };
        report.note(format_args!("{lost}; connecting again"));
        if lost.reason.is_silence() {
            servers.put_last(&client);
        }
        let connected = tokio::select! {
            connected = servers.reconnect_to_master(RECONNECT) => connected,
            signal = interrupts.first() => {
                report.interrupted(&source, signal);
                break;
            }
        };
        client = match connected {
            Ok(client) => client,
            Err(error) => {
                report.give_up(&source, reads_stdin, &error);
                break;
            }
        };
    }
    for error in source.take_errors() {
        report.note(error);
        report.exit = report.exit.worst(Exit::Refused);
    }
    report.finish()
}

/// Says on a terminal what becomes of what is typed.
fn invite(source: &Source) {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return;
    }
    match source.cut_of_stdin() {
        Some(Cut::Lines) => complain("each line you type is an entry; end with Ctrl-D"),
        Some(Cut::Nul) => complain("entries end with a byte of zero; end with Ctrl-D"),
        Some(Cut::Whole) => complain("all that you type is one entry; end with Ctrl-D"),
        None => {}
    }
}

/// How the use of one connection ended.
enum Ended {
    Answered,
    Lost(ConnectionLost),
    Interrupted(Signal),
}

/// Sends what the source has over one connection until all of it is answered, the connection is
/// lost, or a signal comes; what was not sent is then back in the source.
async fn pass(
    client: &Client,
    options: &AppendOptions,
    source: &mut Source,
    report: &mut Report,
    interrupts: &mut Interrupts,
) -> Ended {
    let (appender, mut outcomes) = client.appender(options.clone(), IN_FLIGHT_MAX);
    report.start_pass(client);
    let interrupted = {
        let mut feeding = pin!(feed(source, appender));
        let mut collecting = pin!(collect(client, &mut outcomes, report));
        let mut fed = false;
        // The outcomes end when everything is fed and answered, or the connection is lost; input
        // that has not come by then is not waited for.
        loop {
            tokio::select! {
                () = &mut feeding, if !fed => fed = true,
                () = &mut collecting => break None,
                signal = interrupts.first() => break Some(signal),
            }
        }
    };
    if interrupted.is_some() {
        let rest = collect(client, &mut outcomes, report);
        if tokio::time::timeout(LAST_ANSWERS_WAIT, rest).await.is_err() {
            // From here on it is certain what was sent and what never will be.
            client.close();
            collect(client, &mut outcomes, report).await;
        }
    }
    source.give_back(outcomes.take_unsent());
    match (interrupted, client.lost()) {
        (Some(signal), _) => Ended::Interrupted(signal),
        (None, Some(reason)) => Ended::Lost(ConnectionLost { sent: report.sent, reason }),
        (None, None) => Ended::Answered,
    }
}

/// Puts entries into the appender until there are no more or the connection is lost. An entry is
/// taken from the source only once it is in.
async fn feed(source: &mut Source, mut appender: Appender) {
    while let Some(entry) = source.front().await {
        if appender.push(entry).await.is_err() {
            break;
        }
        source.pop();
    }
}

async fn collect(client: &Client, outcomes: &mut Outcomes, report: &mut Report) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let ticking = report.progress.is_visible();
    let mut silence = SilenceNotes::of(client);
    loop {
        tokio::select! {
            biased;
            answered = outcomes.next() => match answered {
                Some(answered) => report.answered(&answered),
                None => break,
            },
            // Whether or not there is a terminal: nothing else tells why it takes so long.
            note = silence.next() => report.note(note.sentence(outcomes.waiting())),
            _ = ticks.tick(), if ticking => {
                report.progress.tick(outcomes.waiting(), client).await;
            }
        }
    }
    if let Some(note) = silence.last(client) {
        report.note(note.sentence(0));
    }
}

/// Prints replies and remembers how it ends.
struct Report {
    output: Output,
    quiet: bool,
    progress: Progress,
    adviser: Adviser,
    roster: Vec<NodeId>,
    stdout: Stdout,
    /// Nobody reads our output any more; the appends go on.
    stdout_failed: bool,
    exit: Exit,
    /// Something was handed to a node.
    sent: bool,
    /// Entries that were sent, in the order given.
    told: u64,
    /// The first and the last of them that have no answer because of a signal, counted from 1.
    in_doubt: Option<(u64, u64)>,
    /// The greatest number that was learned.
    last_seq: Option<Seq>,
}

impl Report {
    fn new(output: Output, quiet: bool, progress: Progress) -> Self {
        Report {
            output,
            quiet,
            progress,
            adviser: Adviser::new(),
            roster: Vec::new(),
            stdout: Stdout::large(output),
            stdout_failed: false,
            exit: Exit::Done,
            sent: false,
            told: 0,
            in_doubt: None,
            last_seq: None,
        }
    }

    fn start_pass(&mut self, client: &Client) {
        self.roster = client.roster().to_vec();
    }

    fn answered(&mut self, answered: &Answered) {
        let Answered { count, outcome, .. } = answered;
        let exit = match outcome {
            Ok(outcome) => Exit::of_class(outcome.class()),
            // Not sent: it comes again, or is counted when all is given up.
            Err(lost) if !lost.sent => return,
            Err(_) => Exit::Unknown,
        };
        self.sent = true;
        self.note_places(answered);
        self.exit = self.exit.worst(exit);
        self.progress.answered(*count);
        if self.quiet && exit == Exit::Done {
            return;
        }
        self.progress.clear();
        let mut lines = BytesMut::new();
        for first in (0..*count).step_by(REPLIES_AT_A_TIME) {
            let count = (count - first).min(REPLIES_AT_A_TIME as u64);
            match outcome {
                Ok(outcome) => {
                    outcome.later(first).write_reply_lines(&mut lines, count, &self.roster);
                }
                Err(lost) => {
                    let line = unanswered(&lost.reason);
                    (0..count).for_each(|_| lines.extend_from_slice(line.as_bytes()));
                }
            }
            self.print(&lines);
            lines.clear();
        }
        if let Ok(AppendOutcome::Refused(refusal)) = outcome {
            self.adviser.advise(refusal);
        }
    }

    /// Remembers what is to be said of entries when a signal comes.
    fn note_places(&mut self, answered: &Answered) {
        let first = self.told + 1;
        self.told += answered.count;
        match &answered.outcome {
            Ok(outcome) => {
                let last = outcome.later(answered.count.saturating_sub(1));
                self.last_seq = self.last_seq.max(last.placed().map(|placed| placed.seq));
            }
            Err(lost) if lost.reason == LostReason::Dropped => {
                let (first, _) = self.in_doubt.unwrap_or((first, 0));
                self.in_doubt = Some((first, self.told));
            }
            Err(_) => {}
        }
    }

    /// A signal came: says what is known of the entries that have no answer.
    fn interrupted(&mut self, source: &Source, signal: Signal) {
        if let Some((first, last)) = self.in_doubt {
            let (entries, they, have) = match last - first {
                0 => (format!("entry {first} of those given"), "it", "has"),
                _ => (format!("entries {first} to {last} of those given"), "they", "have"),
            };
            let numbers = match self.last_seq {
                Some(seq) => format!(", with numbers above {seq}"),
                None => String::new(),
            };
            self.note(format_args!(
                "interrupted: {entries} {have} been sent and {have} no answer: {they} may be in the \
                 log{numbers} (UNKNOWN)"
            ));
        }
        if source.is_exhausted() {
            return;
        }
        let told = self.told;
        match source.known() as u64 {
            0 => {}
            1 => self.note(format_args!("interrupted: entry {} was not sent", told + 1)),
            left => {
                let (first, last) = (told + 1, told + left);
                self.note(format_args!("interrupted: entries {first} to {last} were not sent"));
            }
        }
        if source.reads_stdin() {
            self.note("interrupted: the rest of standard input was not read");
        }
        self.exit = self.exit.worst(Exit::Interrupted(signal));
    }

    fn print(&mut self, lines: &[u8]) {
        match self.output {
            Output::Text => self.stdout.buffer().extend_from_slice(lines),
            Output::Json => {
                let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
                lines.for_each(|line| self.stdout.push_json(&json::reply_line(line)));
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if self.quiet {
            to_stderr(self.stdout.buffer());
            self.stdout.buffer().clear();
        } else if self.stdout_failed {
            self.stdout.buffer().clear();
        } else if let Err(error) = self.stdout.flush() {
            self.stdout_failed = true;
            // What the answers say nobody can read: not even that nothing happened.
            let broken = failure(&error);
            let exit = if matches!(broken, Exit::Done) { Exit::Done } else { Exit::Unknown };
            self.exit = self.exit.worst(exit);
        }
    }

    fn note(&mut self, message: impl std::fmt::Display) {
        self.progress.clear();
        complain(message);
    }

    /// The connection could not be made again.
    fn give_up(&mut self, source: &Source, reads_stdin: bool, error: &ConnectError) {
        let rest =
            if reads_stdin && source.reads_stdin() { " and the rest of the input" } else { "" };
        let known = source.known();
        let (entries, were) = match known {
            1 if rest.is_empty() => ("entry", "was"),
            1 => ("entry", "were"),
            _ => ("entries", "were"),
        };
        self.note(format_args!("{known} {entries}{rest} {were} not sent: {error}"));
        let exit = if self.sent { Exit::Unknown } else { Exit::Unreachable };
        self.exit = self.exit.worst(exit);
    }

    fn finish(mut self) -> Exit {
        self.progress.clear();
        self.exit
    }
}
