//! `append`: entries out as fast as the node takes them, replies in order, and a clear word on
//! every entry when the connection is lost in between.

use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::advice::Adviser;
use super::arguments::{Output, Part};
use super::output::{Stdout, failure};
use super::progress::{INTERVAL, Progress};
use super::servers::{Servers, SilenceNotes, limit_of};
use super::source::Source;
use super::{Exit, complain, json, to_stderr, unreachable};
use crate::client::{
    Answered, AppendOptions, AppendOutcome, Appender, Client, ConnectError, ConnectionLost,
    LostReason, Outcomes, ReconnectPolicy,
};
use crate::types::NodeId;

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
        _ => "connection lost before the answer".to_owned(),
    };
    format!("UNKNOWN seq=- epoch=- - {why}; the entry may be in the log\n")
}

/// Appends everything in `parts` and prints the replies.
pub(super) async fn append(
    servers: &[String],
    options: AppendOptions,
    parts: Vec<Part>,
    output: Output,
    quiet: bool,
) -> Exit {
    let begun = Instant::now();
    let mut servers = Servers::new(servers).within(limit_of(options.timeout));
    let mut client = match servers.connect_to_master().await {
        Ok(client) => client,
        Err(error) => return unreachable(&error),
    };
    let mut source = Source::new(parts);
    let reads_stdin = source.reads_stdin();
    // What is typed or piped has its time from when it comes; messages have it from now on.
    let options = if reads_stdin { options } else { options.less(begun.elapsed()) };
    if reads_stdin && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        complain("each line you type is an entry; end with Ctrl-D");
    }
    let mut report = Report::new(output, quiet, Progress::new(reads_stdin));
    loop {
        let lost = pass(&client, &options, &mut source, &mut report).await;
        let Some(lost) = lost.filter(|_| !source.is_exhausted()) else { break };
        report.note(format_args!("{lost}; connecting again"));
        if lost.reason.is_silence() {
            servers.put_last(&client);
        }
        client = match servers.reconnect_to_master(RECONNECT).await {
            Ok(client) => client,
            Err(error) => {
                report.give_up(&source, reads_stdin, &error);
                break;
            }
        };
    }
    if let Some(error) = source.take_error() {
        report.note(format_args!("standard input: {error}"));
        report.exit = report.exit.worst(Exit::Refused);
    }
    report.finish()
}

/// Sends what the source has over one connection until all of it is answered. Returns why the
/// connection ended, if it did; what was not sent is then back in the source.
async fn pass(
    client: &Client,
    options: &AppendOptions,
    source: &mut Source,
    report: &mut Report,
) -> Option<ConnectionLost> {
    let (appender, mut outcomes) = client.appender(options.clone(), IN_FLIGHT_MAX);
    report.start_pass(client);
    {
        let mut feeding = pin!(feed(source, appender));
        let mut collecting = pin!(collect(client, &mut outcomes, report));
        let mut fed = false;
        // The outcomes end when everything is fed and answered, or the connection is lost; input
        // that has not come by then is not waited for.
        loop {
            tokio::select! {
                () = &mut feeding, if !fed => fed = true,
                () = &mut collecting => break,
            }
        }
    }
    source.give_back(outcomes.take_unsent());
    client.lost().map(|reason| ConnectionLost { sent: report.sent, reason })
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
}

impl Report {
    fn new(output: Output, quiet: bool, progress: Progress) -> Self {
        let (roster, stdout) = (Vec::new(), Stdout::new());
        let (exit, stdout_failed, sent) = (Exit::Done, false, false);
        let adviser = Adviser::new();
        Report { output, quiet, progress, adviser, roster, stdout, stdout_failed, exit, sent }
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
            self.exit = self.exit.worst(failure(&error));
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
        self.note(format_args!("{known} entries{rest} were not sent: {error}"));
        let exit = if self.sent { Exit::Unknown } else { Exit::Unreachable };
        self.exit = self.exit.worst(exit);
    }

    fn finish(mut self) -> Exit {
        self.progress.clear();
        self.exit
    }
}
