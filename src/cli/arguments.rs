//! What users may type: the verbs, their options, and the checks made before anything is sent.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use super::list::{Form, List};
use super::status::Status;
use super::verify::PATIENCE;
use super::words::{CommandLine, Place};
use crate::client::{AppendOptions, Producer};
use crate::types::{AckLevel, Level, Patience, Seq, WriteConcern, parse_decimal, parse_duration};

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
    error_code(6, "verify: the logs differ")
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

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl FromStr for Output {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "text" => Ok(Output::Text),
            "json" => Ok(Output::Json),
            _ => Err("expected text or json"),
        }
    }
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
    note = "Messages that start with a dash stand behind --. Without a message, or with -, each line of standard input is an entry."
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
    timeout: Option<Patience>,
    /// producer and number of the first entry, which make repetitions harmless (not served yet)
    #[argh(option, arg_name = "producer:n", from_str_fn(parse_producer))]
    id: Option<Producer>,
    /// append only if the first entry gets this number (not served yet)
    #[argh(option, long = "match", arg_name = "seq", from_str_fn(parse_seq))]
    match_seq: Option<Seq>,
    /// all or nothing (not served yet)
    #[argh(switch)]
    atomic: bool,
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
}

/// Print one entry and what is known of it.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "get", help_triggers("-h", "--help"))]
struct Get {
    /// its number
    #[argh(positional, arg_name = "seq")]
    seq: Place,
}

/// Print the last entries, and those to come.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "tail", help_triggers("-h", "--help"))]
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
    /// show it again every second until Ctrl-C
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
    Patience::from_str(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
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

/// Where entries come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Entry(Vec<u8>),
    Stdin,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Append { options: AppendOptions, parts: Vec<Part> },
    List(List),
    Tail { count: u64, follow: bool, level: Level },
    Status(Status),
    Verify { patience: Duration },
    Gateway { line: Vec<u8>, reply: Reply },
}

/// How the reply to a gateway line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// STATUS.
    Status,
    /// HEALTH, which is good news only in mode normal.
    Health,
    /// PONG and text.
    Pong,
    /// One line.
    Line,
    /// One line, which only the master can answer.
    OfMaster,
    /// Likewise, but it may take long.
    Wait {
        /// The entry that is waited for.
        seq: u64,
    },
    /// Data lines and END, of the master.
    Waiters,
    /// OpenMetrics text.
    Metrics,
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
    let arguments = Arguments::from_args(&["replog-cli"], &line.for_argh()).map_err(|exit| {
        let message = line.restore(&exit.output);
        match exit.status {
            Ok(()) => Early::Text(message),
            Err(()) => Early::Usage(message.trim_end().to_owned()),
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
        let (host, port) = addr.rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| addr.to_owned())
    };
    let servers = addrs.split(',').map(|addr| parse(addr.trim())).collect::<Option<Vec<_>>>();
    servers.ok_or_else(|| {
        Early::Usage(format!("{name}: {addrs:?} is not HOST:PORT, nor several with commas between"))
    })
}

impl Verb {
    fn check(self, line: &CommandLine, output: Output) -> Result<Command, Early> {
        let reply_to = |text: String, reply| Command::Gateway { line: text.into_bytes(), reply };
        Ok(match self {
            Verb::Append(append) => append.check(line),
            Verb::List(ListArguments { from, limit, level, raw }) => {
                let form = match (raw, output) {
                    (false, Output::Text) => Form::Lines,
                    (true, Output::Text) => Form::Raw,
                    (false, Output::Json) => Form::Objects,
                    (true, Output::Json) => {
                        return Err(Early::usage("--raw and --output json exclude each other"));
                    }
                };
                Command::List(List { from, limit, level, form })
            }
            Verb::Tail(Tail { n: count, follow, level }) => Command::Tail { count, follow, level },
            Verb::Get(get) => reply_to(format!("GET {}", seq(line, get.seq)?), Reply::Line),
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
    fn check(self, line: &CommandLine) -> Command {
        let Append { w, ack, timeout, id, match_seq, atomic, messages } = self;
        let options = AppendOptions { concern: w, ack, timeout, producer: id, match_seq, atomic };
        let mut parts: Vec<Part> = messages
            .into_iter()
            .map(|place| match line.word(place) {
                word if word.is_stdin() => Part::Stdin,
                word => Part::Entry(word.bytes().to_owned()),
            })
            .collect();
        if parts.is_empty() {
            parts.push(Part::Stdin);
        }
        Command::Append { options, parts }
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
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Invocation, Early> {
        parse(args.iter().map(std::ffi::OsString::from), |_| None)
    }

    fn gateway_line(args: &[&str]) -> String {
        match parsed(args).unwrap().command {
            Command::Gateway { line, .. } => String::from_utf8(line).unwrap(),
            other => panic!("{args:?} became {other:?}"),
        }
    }

    #[test]
    fn verbs_become_gateway_lines() {
        let cases: &[(&[&str], &str)] = &[
            (&["get", "7"], "GET 7"),
            (
                &["wait", "7", "-w", "all", "--ack=received", "--timeout", "5s"],
                "WAIT 7 w=all ack=received timeout=5s",
            ),
            (&["outcome", "p-1", "4"], "OUTCOME p-1 4"),
            (&["waiters"], "WAITERS"),
            (&["metrics"], "METRICS"),
            (&["digest"], "DIGEST"),
            (&["digest", "9"], "DIGEST 9"),
            (&["ping", "help", "me"], "PING help me"),
            (&["delay", "every=3s"], "DELAY every=3s"),
            (&["fail", "after", "p=0.5"], "FAIL after p=0.5"),
            (&["mute", "off"], "MUTE off"),
            (&["store", "4", "two  spaces", "more"], "STORE 4 two  spaces more"),
            (&["store", "4", "--", "-x"], "STORE 4 -x"),
        ];
        for (args, line) in cases {
            assert_eq!(gateway_line(args), *line);
        }
    }

    #[test]
    fn wrong_usage_is_found_before_anything_is_sent() {
        let cases: &[&[&str]] = &[
            &[],
            &["no-such-verb"],
            &["append", "-w", "abc", "x"],
            &["append", "-w", "0", "x"],
            &["append", "--ack", "maybe", "x"],
            &["append", "--timeout", "soon", "x"],
            &["append", "--id", "producer", "x"],
            &["append", "--id", "producer:0", "x"],
            &["append", "--match", "-1", "x"],
            &["append", "--no-such-option"],
            &["append", "-w"],
            &["get"],
            &["get", "x"],
            &["get", "1", "2"],
            &["list", "--level", "some"],
            &["tail", "-n", "x"],
            &["delay", "1s\n2s"],
            &["--server", "nowhere", "ping"],
            &["--server", "a:1,,b:2", "ping"],
            &["--output", "xml", "status"],
            &["--output", "json", "list", "--raw"],
            &["status", "--all=yes"],
            &["verify", "--timeout", "none"],
            &["outcome", "producer"],
            &["bench", "--count", "5"],
        ];
        for args in cases {
            match parsed(args) {
                Err(Early::Usage(message)) => assert!(!message.is_empty()),
                other => panic!("{args:?} became {other:?}"),
            }
        }
    }

    #[test]
    fn help_and_version_are_answered_on_every_level() {
        for args in [
            &["--help"][..],
            &["help"],
            &["append", "--help"],
            &["--help", "append"],
            &["store", "-h"],
        ] {
            match parsed(args) {
                Err(Early::Text(help)) => assert!(help.contains("Usage:"), "{help}"),
                other => panic!("{args:?} became {other:?}"),
            }
        }
        let version = concat!("replog-cli ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
        assert_eq!(parsed(&["--version"]), Err(Early::Text(version)));
    }

    #[test]
    fn servers_come_from_the_flag_then_the_environment_then_the_default() {
        let with = |args: &[&str], value: Option<&str>| {
            let args = args.iter().map(std::ffi::OsString::from);
            parse(args, |_| value.map(str::to_owned)).unwrap().servers
        };
        assert_eq!(with(&["--server", "a:1,b:2", "ping"], Some("c:3")), ["a:1", "b:2"]);
        assert_eq!(with(&["ping"], Some("c:3")), ["c:3"]);
        assert_eq!(with(&["ping"], Some("")), [SERVER_DEFAULT]);
        assert_eq!(with(&["ping"], None), [SERVER_DEFAULT]);
    }

    #[test]
    fn messages_are_entries_and_a_dash_is_standard_input() {
        let parts = |args: &[&str]| match parsed(args).unwrap().command {
            Command::Append { parts, .. } => parts,
            other => panic!("{args:?} became {other:?}"),
        };
        let entry = |text: &str| Part::Entry(text.as_bytes().to_owned());
        assert_eq!(parts(&["append"]), [Part::Stdin]);
        assert_eq!(parts(&["append", "-"]), [Part::Stdin]);
        assert_eq!(parts(&["append", "help", "a b", ""]), [entry("help"), entry("a b"), entry("")]);
        assert_eq!(parts(&["append", "-w2", "--", "-", "-w"]), [entry("-"), entry("-w")]);
    }
}
