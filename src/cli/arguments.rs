//! What users may type: the verbs, their options, and the checks made before anything is sent.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use super::hints;
use super::request::{Cut, Ending, Form, List, Output, PATIENCE, Part, Reply, Status};
use super::words::{CommandLine, Place};
use crate::address::Address;
use crate::client::{AppendOptions, Producer};
use crate::types::{AckLevel, Level, Seq, Timeout, WriteConcern, parse_decimal, parse_duration};

const SERVER_DEFAULT: &str = "127.0.0.1:9000";
const SERVER_VARIABLE: &str = "REPLOG_SERVER";

/// Talks to the nodes of a replog cluster.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    name = "replog-cli",
    help_triggers("-h", "--help", "help"),
    note = "Environment: REPLOG_SERVER stands for --server.",
    example = "replog-cli append -w 2 'hello world'\nreplog-cli --quiet append - < FILE\nreplog-cli tail -f",
    error_code(0, "done as asked"),
    error_code(1, "REJECTED or ERR: nothing happened"),
    error_code(2, "wrong usage"),
    error_code(3, "UNKNOWN, or the connection was lost after something was sent"),
    error_code(4, "PENDING: in the log, the write concern not met yet"),
    error_code(5, "no server reachable, nothing sent; verify: a node is unreachable"),
    error_code(6, "verify: the logs differ"),
    error_code(130, "SIGINT ended it before all was done, and nothing is in doubt"),
    error_code(143, "SIGTERM did")
)]
struct Arguments {
    /// wire address of a node, or several with commas between: the first that answers is used, and
    /// append and wait go on to the master (default 127.0.0.1:9000)
    #[argh(option, arg_name = "addr[,addr...]")]
    server: Option<String>,
    /// text, or json: objects with the keys of the text, numbers as numbers; an entry has seq, epoch,
    /// time and payload, or payload_base64 where that is not UTF-8
    #[argh(option, arg_name = "format", default = "Output::Text")]
    output: Output,
    /// append: print only replies that are not OK, on stderr
    #[argh(switch)]
    quiet: bool,
    /// print the version
    #[argh(switch)]
    #[allow(dead_code)] // Handled before argh, which wants a verb; here for the help text.
    version: bool,
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
enum Verb {
    Append(Append),
    List(ListArguments),
    Get(Get),
    Tail(Tail),
    Wait(Wait),
    Outcome(Outcome),
    Status(StatusArguments),
    Health(Health),
    Waiters(Waiters),
    Metrics(Metrics),
    Digest(Digest),
    Ping(Ping),
    Verify(Verify),
    Delay(Delay),
    Fail(Fail),
    Mute(Mute),
    Store(Store),
    Bench(Bench),
}

/// Append entries and print the reply to each.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "append",
    help_triggers("-h", "--help"),
    note = "Messages that start with a dash stand behind --. Without a message or file, or with -, each line of standard input is an entry. Messages and files are appended in the order in which they stand.",
    note = "SIGINT and SIGTERM end the waiting, not the appends: what is known of each entry without an answer is said, and the exit code is 3 if any may be in the log. A second one ends the program at once.",
    example = "replog-cli append --file picture.png --file - < note.txt\nfind . -print0 | replog-cli append -0"
)]
struct Append {
    /// how many nodes must hold an entry before OK: a number, majority or all
    #[argh(option, short = 'w', arg_name = "w")]
    w: Option<WriteConcern>,
    /// what holding means: stored or received
    #[argh(option, arg_name = "ack")]
    ack: Option<AckLevel>,
    /// how long to wait, e.g. 500ms, 5s, 2m, none; then the reply is PENDING
    #[argh(option, arg_name = "duration")]
    timeout: Option<Timeout>,
    /// producer and number of the first entry, which make repetitions harmless (not served yet)
    #[argh(option, arg_name = "producer:n", from_str_fn(parse_producer))]
    id: Option<Producer>,
    /// append only if the first entry gets this number (not served yet)
    #[argh(option, long = "match", arg_name = "seq", from_str_fn(parse_seq))]
    match_seq: Option<Seq>,
    /// all or nothing (not served yet)
    #[argh(switch)]
    atomic: bool,
    /// the whole file is one entry, whatever is in it; - is all of standard input. May be repeated
    #[argh(option, arg_name = "file")]
    file: Vec<Place>,
    /// entries on standard input end with a byte of zero, not with a line feed, and may hold any
    /// other
    #[argh(switch, short = '0')]
    null: bool,
    /// entries, one each; - is standard input, a line each
    #[argh(positional, arg_name = "message")]
    messages: Vec<Place>,
}

/// Print entries that are there.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "list", help_triggers("-h", "--help"))]
struct ListArguments {
    /// the first entry (default 1)
    #[argh(option, arg_name = "seq", from_str_fn(parse_number))]
    from: Option<u64>,
    /// at most so many
    #[argh(option, arg_name = "n", from_str_fn(parse_number))]
    limit: Option<u64>,
    /// which may be seen: local (default), committed, all or a number of nodes
    #[argh(option, arg_name = "level")]
    level: Option<Level>,
    /// print payloads only, as they are, each with a line feed behind it
    #[argh(switch)]
    raw: bool,
    /// the same with a byte of zero behind each: append -0 takes them back
    #[argh(switch, short = '0')]
    null: bool,
}

/// Print one entry and what is known of it.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "get",
    help_triggers("-h", "--help"),
    example = "replog-cli get 5 --raw > FILE"
)]
struct Get {
    /// print the payload only, byte for byte, with nothing behind it
    #[argh(switch)]
    raw: bool,
    /// its number
    #[argh(positional, arg_name = "seq")]
    seq: Place,
}

/// Print the last entries, and those to come.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "tail",
    help_triggers("-h", "--help"),
    note = "SIGINT (Ctrl-C) and SIGTERM are the normal end of -f: exit code 0."
)]
struct Tail {
    /// so many (default 10)
    #[argh(option, short = 'n', arg_name = "n", default = "10", from_str_fn(parse_number))]
    n: u64,
    /// follow: print entries as they come, across reconnects
    #[argh(switch, short = 'f')]
    follow: bool,
    /// which may be seen: committed (default), local, all or a number of nodes
    #[argh(option, arg_name = "level", default = "Level::Committed")]
    level: Level,
    /// print payloads only, as they are, each with a line feed behind it
    #[argh(switch)]
    raw: bool,
    /// the same with a byte of zero behind each
    #[argh(switch, short = '0')]
    null: bool,
}

/// Wait until an entry in the log is held as asked.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "wait", help_triggers("-h", "--help"))]
struct Wait {
    /// how many nodes must hold it: a number, majority or all
    #[argh(option, short = 'w', arg_name = "w")]
    w: Option<WriteConcern>,
    /// what holding means: stored or received
    #[argh(option, arg_name = "ack")]
    ack: Option<AckLevel>,
    /// how long to wait, e.g. 500ms, 5s, 2m, none
    #[argh(option, arg_name = "duration", from_str_fn(parse_patience_text))]
    timeout: Option<String>,
    /// its number
    #[argh(positional, arg_name = "seq")]
    seq: Place,
}

/// Tell what became of a producer's append whose reply was lost (not served yet).
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "outcome", help_triggers("-h", "--help"))]
struct Outcome {
    /// its name
    #[argh(positional, arg_name = "producer")]
    producer: Place,
    /// its number
    #[argh(positional, arg_name = "n")]
    number: Place,
}

/// Print what a node knows of itself and of the cluster.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help"),
    note = "With one --server, --all asks the nodes of its roster at the addresses that the master uses; with several, it asks those.",
    example = "replog-cli status --all --watch"
)]
struct StatusArguments {
    /// ask every node, compare their logs, and show who waits for whom
    #[argh(switch)]
    all: bool,
    /// show it again every second until Ctrl-C, or q or Esc on a terminal
    #[argh(switch)]
    watch: bool,
}

/// Print the mode of the cluster; exit 0 only if it is normal.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "health", help_triggers("-h", "--help"))]
struct Health {}

/// Print the appends that still wait, and for whom.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "waiters", help_triggers("-h", "--help"))]
struct Waiters {}

/// Print a node's metrics as OpenMetrics text.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "metrics", help_triggers("-h", "--help"))]
struct Metrics {}

/// Compare the logs of all nodes; exit 6 and the first difference if they are not equal up to the
/// commit position.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "verify",
    help_triggers("-h", "--help"),
    note = "With one --server, the nodes of its roster are compared; with several, those. A node that lacks committed entries is waited for; if it still lacks them then, that is a difference."
)]
struct Verify {
    /// how long to wait for nodes that lag (default 10s)
    #[argh(option, arg_name = "duration", default = "PATIENCE", from_str_fn(parse_wait))]
    timeout: Duration,
}

/// Print the chain digest: equal on two nodes if and only if their logs up to there are.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "digest", help_triggers("-h", "--help"))]
struct Digest {
    /// up to this entry (default: the last)
    #[argh(positional, arg_name = "seq")]
    seq: Option<Place>,
}

/// Ask a node for a sign of life.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "ping", help_triggers("-h", "--help"))]
struct Ping {
    /// comes back
    #[argh(positional, arg_name = "text")]
    text: Vec<Place>,
}

/// Fault: have a secondary handle APPEND frames later.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "delay",
    help_triggers("-h", "--help"),
    example = "replog-cli --server 127.0.0.1:9001 delay every=3s"
)]
struct Delay {
    /// a duration for the next frame, every=DURATION, or off
    #[argh(positional, arg_name = "what")]
    what: Vec<Place>,
}

/// Fault: have a secondary answer with errors.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "fail",
    help_triggers("-h", "--help"),
    example = "replog-cli --server 127.0.0.1:9001 fail after p=0.5"
)]
struct Fail {
    /// before or after, with count=N or p=P; or off
    #[argh(positional, arg_name = "what")]
    what: Vec<Place>,
}

/// Fault: have a secondary answer the master nothing.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "mute", help_triggers("-h", "--help"))]
struct Mute {
    /// a duration, or off
    #[argh(positional, arg_name = "what")]
    what: Vec<Place>,
}

/// Fault: hand a secondary an entry as the master would.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "store", help_triggers("-h", "--help"))]
struct Store {
    /// its number
    #[argh(positional, arg_name = "seq")]
    seq: Place,
    /// its payload; words are joined by spaces
    #[argh(positional, arg_name = "payload")]
    payload: Vec<Place>,
}

/// Measure throughput and latency (not available yet).
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "bench", help_triggers("-h", "--help"))]
struct Bench {}

fn parse_wait(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn parse_number(text: &str) -> Result<u64, String> {
    parse_decimal(text).ok_or_else(|| "expected a number".to_owned())
}

fn parse_seq(text: &str) -> Result<Seq, String> {
    parse_number(text).map(Seq::new)
}

/// Checked here and sent as typed.
fn parse_patience_text(text: &str) -> Result<String, String> {
    Timeout::from_str(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn parse_producer(text: &str) -> Result<Producer, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.rsplit_once(':')
        .filter(|(name, _)| (1..=64).contains(&name.len()) && name.bytes().all(allowed))
        .and_then(|(name, number)| {
            let number = NonZeroU64::new(parse_decimal(number)?)?.get();
            Some(Producer { name: name.to_owned(), number })
        })
        .ok_or_else(|| "expected PRODUCER:N, 1 to 64 of a-z A-Z 0-9 . _ - and N from 1".to_owned())
}

/// The arguments as a table.
pub(super) fn table() -> argh::CommandInfoWithArgs {
    Arguments::get_args_info()
}

/// What is to be done, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invocation {
    /// At least one.
    pub(super) servers: Vec<String>,
    pub(super) output: Output,
    pub(super) quiet: bool,
    pub(super) command: Command,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Append { options: AppendOptions, parts: Vec<Part> },
    List(List),
    Tail { count: u64, follow: bool, level: Level, form: Form },
    Status(Status),
    Verify { patience: Duration },
    Gateway { line: Vec<u8>, reply: Reply },
}

/// Why there is nothing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// Help or version, for stdout.
    Text(String),
    /// What is wrong, for stderr.
    Usage(String),
}

impl Early {
    fn usage(message: impl Into<String>) -> Early {
        Early::Usage(message.into())
    }
}

/// Reads the command line. `variable` looks up the environment.
pub(super) fn parse(
    args: impl IntoIterator<Item = std::ffi::OsString>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Invocation, Early> {
    let line = CommandLine::sort(args).map_err(Early::Usage)?;
    if line.version {
        return Err(Early::Text(format!("replog-cli {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if line.verb.as_deref() == Some("bench") && !line.help {
        return Err(Early::usage("bench is not available yet"));
    }
    if !line.help
        && let Some(message) = hints::misuse(&line, &table())
    {
        return Err(Early::Usage(message));
    }
    let arguments = Arguments::from_args(&["replog-cli"], &line.for_argh()).map_err(|exit| {
        let message = line.restore(&exit.output);
        match exit.status {
            Ok(()) => Early::Text(message),
            Err(()) => Early::Usage(hints::reword(message.trim_end())),
        }
    })?;
    let Arguments { server, output, quiet, verb, .. } = arguments;
    let servers = match (server, variable(SERVER_VARIABLE).filter(|addrs| !addrs.is_empty())) {
        (Some(addrs), _) => parse_servers("--server", &addrs)?,
        (None, Some(addrs)) => parse_servers(SERVER_VARIABLE, &addrs)?,
        (None, None) => vec![SERVER_DEFAULT.to_owned()],
    };
    let command = verb.check(&line, output)?;
    Ok(Invocation { servers, output, quiet, command })
}

fn parse_servers(name: &str, addrs: &str) -> Result<Vec<String>, Early> {
    let parse = |addr: &str| {
        let addr = addr.trim();
        if addr.is_empty() && addrs.contains(',') {
            return Err(Early::Usage(format!("{name}: {addrs:?} has a comma too many")));
        }
        match addr.parse::<Address>() {
            // What listens there has another number than the 0 that it was asked to take.
            Ok(address) if address.port() == 0 => {
                Err(Early::Usage(format!("{name}: {addr:?}: nobody listens on port 0")))
            }
            Ok(_) => Ok(addr.to_owned()),
            Err(error) => Err(Early::Usage(format!("{name}: {addr:?}: {error}"))),
        }
    };
    addrs.split(',').map(parse).collect()
}

impl Verb {
    fn check(self, line: &CommandLine, output: Output) -> Result<Command, Early> {
        let reply_to = |text: String, reply| Command::Gateway { line: text.into_bytes(), reply };
        Ok(match self {
            Verb::Append(append) => append.check(line)?,
            Verb::List(ListArguments { from, limit, level, raw, null }) => {
                let form = form(raw, null, output)?;
                Command::List(List { from, limit, level, form })
            }
            Verb::Tail(Tail { n: count, follow, level, raw, null }) => {
                let form = form(raw, null, output)?;
                Command::Tail { count, follow, level, form }
            }
            Verb::Get(Get { raw, seq: place }) => {
                form(raw, false, output)?;
                let seq = seq(line, place)?;
                let reply = if raw { Reply::Payload { seq } } else { Reply::Line };
                reply_to(format!("GET {seq}"), reply)
            }
            Verb::Wait(Wait { w, ack, timeout, seq: place }) => {
                let options = option("w", w) + &option("ack", ack) + &option("timeout", timeout);
                let seq = seq(line, place)?;
                reply_to(format!("WAIT {seq}{options}"), Reply::Wait { seq })
            }
            Verb::Outcome(Outcome { producer, number }) => {
                words(line, "OUTCOME", &[producer, number], Reply::OfMaster)?
            }
            Verb::Status(StatusArguments { all, watch }) => Command::Status(Status { all, watch }),
            Verb::Health(Health {}) => reply_to("HEALTH".to_owned(), Reply::Health),
            Verb::Waiters(Waiters {}) => reply_to("WAITERS".to_owned(), Reply::Waiters),
            Verb::Metrics(Metrics {}) => reply_to("METRICS".to_owned(), Reply::Metrics),
            Verb::Verify(Verify { timeout }) => Command::Verify { patience: timeout },
            // Answered before its arguments are read.
            Verb::Bench(Bench {}) => return Err(Early::usage("bench is not available yet")),
            Verb::Digest(Digest { seq: None }) => reply_to("DIGEST".to_owned(), Reply::Line),
            Verb::Digest(Digest { seq: Some(place) }) => {
                reply_to(format!("DIGEST {}", seq(line, place)?), Reply::Line)
            }
            Verb::Ping(ping) => words(line, "PING", &ping.text, Reply::Pong)?,
            Verb::Delay(delay) => words(line, "DELAY", &delay.what, Reply::Line)?,
            Verb::Fail(fail) => words(line, "FAIL", &fail.what, Reply::Line)?,
            Verb::Mute(mute) => words(line, "MUTE", &mute.what, Reply::Line)?,
            Verb::Store(store) => {
                let verb = format!("STORE {}", seq(line, store.seq)?);
                words(line, &verb, &store.payload, Reply::Line)?
            }
        })
    }
}

impl Append {
    fn check(self, line: &CommandLine) -> Result<Command, Early> {
        let Append { w, ack, timeout, id, match_seq, atomic, file, null, messages } = self;
        let options = AppendOptions { concern: w, ack, timeout, producer: id, match_seq, atomic };
        let cut = if null { Cut::Nul } else { Cut::Lines };
        let message = |place| match line.word(place) {
            word if word.is_stdin() => Part::Stdin(cut),
            word => Part::Entry(word.bytes().to_owned()),
        };
        let file = file.into_iter().map(|place| match line.word(place) {
            word if word.is_stdin() => (place, Part::Stdin(Cut::Whole)),
            word => (place, Part::File(word.path())),
        });
        let messages = messages.into_iter().map(|place| (place, message(place)));
        let mut placed: Vec<(Place, Part)> = file.chain(messages).collect();
        placed.sort_by_key(|(place, _)| *place);
        let mut parts: Vec<Part> = placed.into_iter().map(|(_, part)| part).collect();
        if parts.is_empty() {
            parts.push(Part::Stdin(cut));
        }
        let of_stdin = parts.iter().filter(|part| matches!(part, Part::Stdin(_))).count();
        if null && !parts.contains(&Part::Stdin(Cut::Nul)) {
            return Err(Early::usage(
                "-0 is about entries on standard input, which is not read here: add - to read it",
            ));
        }
        if of_stdin > 1 && parts.contains(&Part::Stdin(Cut::Whole)) {
            return Err(Early::usage("standard input is there once: name - once"));
        }
        Ok(Command::Append { options, parts })
    }
}

fn form(raw: bool, null: bool, output: Output) -> Result<Form, Early> {
    match (raw || null, output) {
        (false, Output::Text) => Ok(Form::Lines),
        (true, Output::Text) if null => Ok(Form::Raw(Ending::Nul)),
        (true, Output::Text) => Ok(Form::Raw(Ending::LineFeed)),
        (false, Output::Json) => Ok(Form::Objects),
        (true, Output::Json) => {
            let option = if null { "-0" } else { "--raw" };
            Err(Early::Usage(format!("{option} and --output json exclude each other")))
        }
    }
}

fn option(key: &str, value: Option<impl std::fmt::Display>) -> String {
    value.map(|value| format!(" {key}={value}")).unwrap_or_default()
}

fn seq(line: &CommandLine, place: Place) -> Result<u64, Early> {
    let text = String::from_utf8_lossy(line.word(place).bytes());
    parse_decimal(&text)
        .ok_or_else(|| Early::Usage(format!("seq: {text:?} is not a sequence number")))
}

/// A gateway line of `verb` and words as they were typed.
fn words(line: &CommandLine, verb: &str, places: &[Place], reply: Reply) -> Result<Command, Early> {
    let mut text = verb.as_bytes().to_owned();
    for &place in places {
        text.push(b' ');
        text.extend_from_slice(line.word(place).bytes());
    }
    // The gateway would also take a carriage return at the end for a part of the line end.
    if text.contains(&b'\n') || text.ends_with(b"\r") {
        return Err(Early::usage("an argument with a line end cannot be sent on a gateway line"));
    }
    Ok(Command::Gateway { line: text, reply })
}

#[cfg(test)]
mod tests;
