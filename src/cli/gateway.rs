//! Verbs that are a line of the text gateway, and its reply.

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use super::output::{Content, Stdout, failure};
use super::progress::{INTERVAL, Progress};
use super::request::{Output, Reply};
use super::servers::{Servers, limit_of};
use super::{Exit, command_failed, complain, json, read_failed};
use crate::client::{Client, CommandError, ReadError};
use crate::codes::Class;
use crate::gateway::verbs::{Operators, verb_of};
use crate::gateway::{self, Command};
use crate::types::{Level, Seq};

/// Sends `line` and prints the reply. If the node falls silent and the line changes nothing, it is
/// asked again.
pub(super) async fn ask(servers: &[String], line: &[u8], reply: Reply, output: Output) -> Exit {
    let command = gateway::parse(line);
    let limit = match &command {
        Ok(Some(Command::Wait { options, .. })) => limit_of(options.timeout),
        _ => None,
    };
    let changes = matches!(&command, Ok(Some(Command::Fault(_) | Command::Store { .. })));
    let admitted = verb_of(line).is_some_and(|verb| verb.operators == Operators::Admitted);
    let looks = admitted && command.is_ok();
    let mut servers = Servers::new(servers).within(limit).looking(looks);
    loop {
        if let Some(exit) = ask_once(&mut servers, line, changes, reply, output).await {
            return exit;
        }
    }
}

/// Asks one node. `None` if it is to be asked again.
async fn ask_once(
    servers: &mut Servers,
    line: &[u8],
    changes: bool,
    reply: Reply,
    output: Output,
) -> Option<Exit> {
    let connected = match reply {
        Reply::OfMaster | Reply::Wait { .. } | Reply::Waiters => servers.connect_to_master().await,
        _ => servers.connect().await,
    };
    let client = match connected {
        Ok(client) => client,
        Err(error) => return Some(servers.unreachable(&error)),
    };
    let exchange = async {
        match reply {
            Reply::Payload { seq } => match payload(&client, seq).await {
                Ok(Some(payload)) => Err(write_payload(&payload)),
                Ok(None) => Ok(client.command(line).await),
                Err(ReadError::Lost(lost)) => Ok(Err(lost.into())),
                Err(error) => Err(read_failed(&error)),
            },
            Reply::Wait { seq } => Ok(wait(&client, line, seq).await),
            _ => Ok(client.command(line).await),
        }
    };
    let answer = match servers.in_time(exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(exit)) => return Some(exit),
        Err(limit) => {
            let (node, addr) = (client.node_id(), client.addr());
            let why = format_args!("no answer within {limit:?}, the timeout included");
            complain(format_args!("{addr} ({node}): {why}"));
            return Some(Exit::Unknown);
        }
    };
    match answer {
        Ok(bytes) => Some(show(&bytes, reply, output)),
        Err(CommandError::Lost(lost)) if !changes && servers.go_on_after(&client, &lost) => None,
        Err(error) => Some(command_failed(&error)),
    }
}

/// Waits for the answer, and says on a terminal for whom if it takes long.
async fn wait(client: &Client, line: &[u8], seq: u64) -> Result<Bytes, CommandError> {
    let mut progress = Progress::of_wait(seq);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut answer = std::pin::pin!(client.command(line));
    let ticking = progress.is_visible();
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => {
                progress.clear();
                return answer;
            }
            _ = ticks.tick(), if ticking => progress.tick(1, client).await,
        }
    }
}

/// The payload of the entry `seq`, if it is in the node's log.
async fn payload(client: &Client, seq: u64) -> Result<Option<Bytes>, ReadError> {
    let mut entries = client.read(Seq::new(seq), Some(1), Level::Local).await?;
    while let Some(batch) = entries.next_batch().await? {
        for record in batch.records() {
            let record = record?;
            if record.seq == Seq::new(seq) {
                return Ok(Some(record.payload));
            }
        }
    }
    Ok(None)
}

/// A payload, and nothing else.
fn write_payload(payload: &[u8]) -> Exit {
    let mut stdout = Stdout::new(Content::AsIs);
    stdout.buffer().extend_from_slice(payload);
    stdout.flush().map_or_else(|error| failure(&error), |()| Exit::Done)
}

fn show(bytes: &Bytes, reply: Reply, output: Output) -> Exit {
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let class = class_of(first);
    let exit = class.map_or(Exit::Done, Exit::of_class);
    let exit = match reply {
        Reply::Health if !first.split(|&byte| byte == b' ').any(|word| word == b"mode=normal") => {
            exit.worst(Exit::Refused)
        }
        _ => exit,
    };
    let mut stdout = Stdout::new(output);
    let lines = || String::from_utf8_lossy(bytes);
    match (output, reply) {
        // An entry put in by hand: it is in no log, and only the gateway shows it.
        (_, Reply::Payload { .. }) if class == Some(Class::Ok) => {
            return write_payload(&json::payload_of_get(first));
        }
        (_, Reply::Payload { .. }) => complain(String::from_utf8_lossy(first)),
        // A refusal has one form for all verbs.
        (Output::Json, _) if class.is_some() => stdout.push_json(&json::reply_line(first)),
        (Output::Json, Reply::Status) => stdout.push_json(&json::status(&lines())),
        (Output::Json, Reply::Metrics) => {
            lines().lines().filter_map(json::sample).for_each(|sample| stdout.push_json(&sample));
        }
        (Output::Json, Reply::Waiters) => {
            let (data, end) = split_end(bytes);
            let data = String::from_utf8_lossy(data).into_owned();
            data.lines().for_each(|line| stdout.push_json(&json::Object::of_fields(line)));
            complain(String::from_utf8_lossy(end).trim_end());
        }
        (Output::Json, _) => stdout.push_json(&json::reply_line(first)),
        (Output::Text, Reply::Waiters) if class.is_none() => {
            let (data, end) = split_end(bytes);
            stdout.buffer().extend_from_slice(data);
            complain(String::from_utf8_lossy(end).trim_end());
        }
        // The END of this reply tells nothing.
        (Output::Text, Reply::Status) => {
            stdout.buffer().extend_from_slice(bytes.strip_suffix(b"END\n").unwrap_or(bytes));
        }
        (Output::Text, _) => stdout.buffer().extend_from_slice(bytes),
    }
    match stdout.flush() {
        Ok(()) => exit,
        Err(error) => exit.worst(failure(&error)),
    }
}

/// Data lines, and the line behind them.
fn split_end(reply: &[u8]) -> (&[u8], &[u8]) {
    let without_end = reply.strip_suffix(b"\n").unwrap_or(reply);
    let at = without_end.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    reply.split_at(at)
}

/// The class that a reply line begins with, if it is not data.
pub(super) fn class_of(line: &[u8]) -> Option<Class> {
    let word = line.split(|&byte| byte == b' ').next()?;
    [Class::Ok, Class::Pending, Class::Rejected, Class::Unknown, Class::Err]
        .into_iter()
        .find(|class| class.word().as_bytes() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_looks_like_a_class_is_data() {
        assert_eq!(class_of(b"OK mode=normal"), Some(Class::Ok));
        assert_eq!(class_of(b"ERR not-found seq=1"), Some(Class::Err));
        assert_eq!(class_of(b"node id=master"), None);
        assert_eq!(class_of(b"OKAY"), None);
    }

    #[test]
    fn the_end_is_split_from_the_data() {
        assert_eq!(split_end(b"a\nb\nEND count=2\n"), (&b"a\nb\n"[..], &b"END count=2\n"[..]));
        assert_eq!(split_end(b"END count=0\n"), (&b""[..], &b"END count=0\n"[..]));
    }
}
