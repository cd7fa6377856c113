//! `list`: the entries that are there, as data lines or as they are.
//!
//! Whoever reads our output may stop for a while (`| less`), and a node closes a connection that
//! does not take its output for some seconds. So a list whose connection is lost goes on behind the
//! last entry that it printed, as long as each connection brings it further.

use bytes::BytesMut;

use super::gateway::class_of;
use super::json::entry_of_get;
use super::output::{Stdout, Stop, failure, refused};
use super::request::{Form, List};
use super::servers::Servers;
use super::{Exit, complain};
use crate::client::{Client, CommandError, ReadError, Role};
use crate::store::RecordError;
use crate::types::{Level, LogId, Seq};

/// How far it got.
#[derive(Debug, Default)]
struct Printed {
    count: u64,
    /// The number behind the last entry that was there when it began, if known.
    end: Option<Seq>,
    /// The history that is listed: numbers mean nothing in another.
    log_id: Option<LogId>,
    /// Over more than one connection.
    in_parts: bool,
}

/// Prints entries on stdout and how many there were on stderr.
pub(super) async fn list(servers: &[String], list: &List) -> Exit {
    let mut stdout = Stdout::large(list.form);
    let mut printed = Printed::default();
    let mut servers = Servers::new(servers);
    loop {
        let client = match servers.connect().await {
            Ok(client) => client,
            Err(error) => return servers.unreachable(&error),
        };
        let count_before = printed.count;
        let ended = if !printed.is_of(&client) {
            complain(format_args!("{} holds another log than was listed", client.addr()));
            Ok(Exit::Unknown)
        } else {
            // From 0 there is nothing; it is for the text gateway to say so.
            match list.form {
                Form::Raw(_) | Form::Objects if list.from != Some(0) => {
                    print_records(&client, list, &mut printed, &mut stdout).await
                }
                _ => print_lines(&client, list, &mut printed, &mut stdout).await,
            }
        };
        // What came before the connection was lost is true.
        if let Err(error) = stdout.flush() {
            return failure(&error);
        }
        match ended {
            Ok(exit) => return exit,
            Err(Stop::Read(ReadError::Lost(lost))) if servers.go_on_after(&client, &lost) => {
                printed.in_parts = printed.count > 0;
            }
            Err(Stop::Read(ReadError::Lost(_))) if printed.count > count_before => {
                printed.in_parts = true;
            }
            Err(stop) => return stop.exit(list.form),
        }
    }
}

impl Printed {
    /// Whether the node holds the log that is listed.
    fn is_of(&mut self, client: &Client) -> bool {
        match (self.log_id, client.log_id()) {
            (Some(listed), Some(found)) => listed == found,
            (None, found) => {
                self.log_id = found;
                true
            }
            (Some(_), None) => false,
        }
    }
}

impl List {
    /// The first entry that was not printed yet.
    fn from(&self, printed: &Printed) -> Option<u64> {
        match printed.count {
            0 => self.from,
            count => Some(self.from.unwrap_or(1).saturating_add(count)),
        }
    }

    /// How many may still be printed.
    fn limit(&self, printed: &Printed) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(printed.count))
    }

    /// What END says, but for what the node alone knows.
    fn end(&self, printed: &Printed) -> String {
        let first = self.from.unwrap_or(1).max(1);
        match printed.count {
            0 => "END count=0 first=- last=-".to_owned(),
            count => format!("END count={count} first={first} last={}", first + count - 1),
        }
    }
}

/// Prints records, payloads or objects.
async fn print_records(
    client: &Client,
    list: &List,
    printed: &mut Printed,
    stdout: &mut Stdout,
) -> Result<Exit, Stop> {
    let level = list.level.unwrap_or_default();
    let mut next = Seq::new(list.from(printed).unwrap_or(1));
    let left = printed.end.map(|end| end.distance_from(next));
    let limit = [list.limit(printed), left].into_iter().flatten().min();
    let mut entries = client.read(next, limit, level).await?;
    let mut commit = Seq::ZERO;
    while let Some(batch) = entries.next_batch().await? {
        commit = batch.commit();
        printed.end.get_or_insert(batch.next());
        if !batch.is_empty() {
            if batch.range().first != next {
                let found = batch.range().first;
                return Err(RecordError::BadSeq { expected: next, found }.into());
            }
            stdout.print(&batch, list.form.push())?;
            next = batch.range().end;
            printed.count += batch.range().len();
        }
    }
    if list.form == Form::Objects && level == Level::Local && client.role() == Role::Secondary {
        print_by_hand(client, list, printed, stdout).await?;
    }
    complain(format_args!("{} commit={commit} level={level}", list.end(printed)));
    Ok(Exit::Done)
}

/// Adds the entries behind the log that a fault verb put into a secondary: LIST shows them, and
/// they are in no record. Their epoch is 0.
async fn print_by_hand(
    client: &Client,
    list: &List,
    printed: &mut Printed,
    stdout: &mut Stdout,
) -> Result<(), Stop> {
    while list.limit(printed) != Some(0) {
        let seq = list.from(printed).unwrap_or(1);
        let reply = match client.command(format!("GET {seq}")).await {
            Ok(reply) => reply,
            Err(CommandError::Lost(lost)) => return Err(lost.into()),
            Err(_) => return Ok(()),
        };
        // What has an epoch came from the master meanwhile, and is not of the log that was listed.
        if !reply.starts_with(format!("OK seq={seq} epoch=0 ").as_bytes()) {
            return Ok(());
        }
        stdout.push_json(&entry_of_get(reply.trim_ascii_end()));
        printed.count += 1;
        stdout.flush_if_large()?;
    }
    Ok(())
}

/// Prints data lines as they come; the last line of the reply, END or a refusal, goes to stderr.
///
/// This is a command and not a read: entries that a fault verb put into a secondary are shown by
/// the text gateway only.
async fn print_lines(
    client: &Client,
    list: &List,
    printed: &mut Printed,
    stdout: &mut Stdout,
) -> Result<Exit, Stop> {
    let option = |key, value: Option<String>| value.map(|value| format!(" {key}={value}"));
    let options = [
        option("from", list.from(printed).map(|from| from.to_string())),
        option("limit", list.limit(printed).map(|limit| limit.to_string())),
        option("level", list.level.map(|level| level.to_string())),
    ];
    let line: String =
        ["LIST".to_owned()].into_iter().chain(options.into_iter().flatten()).collect();
    let mut reply = match client.command_in_pieces(&line).await {
        Ok(reply) => reply,
        Err(CommandError::Lost(lost)) => return Err(lost.into()),
        Err(error) => {
            complain(error);
            return Ok(Exit::Usage);
        }
    };
    let mut last = BytesMut::new();
    while let Some(piece) = reply.next_piece().await? {
        let (kept, data) = split_last_line(&mut last, &piece);
        for data in [&kept, data] {
            // Payloads are escaped: each line is an entry.
            printed.count += data.iter().filter(|byte| **byte == b'\n').count() as u64;
            stdout.buffer().extend_from_slice(data);
        }
        stdout.flush_if_large()?;
    }
    let last = String::from_utf8_lossy(&last);
    if let Some(class) = class_of(last.as_bytes()) {
        return Ok(Exit::of_class(class).worst(refused(last.trim_end(), list.form)));
    }
    match last.find(" commit=") {
        Some(at) if printed.in_parts && last.starts_with("END ") => {
            complain(format_args!("{}{}", list.end(printed), last[at..].trim_end()));
        }
        _ => complain(last.trim_end()),
    }
    Ok(Exit::Done)
}

/// Adds `piece` behind `last`, the line that may be the last, and returns what is now known to
/// stand before the last line: what was kept, and a part of the piece.
fn split_last_line<'a>(last: &mut BytesMut, piece: &'a [u8]) -> (BytesMut, &'a [u8]) {
    let kept_is_whole = last.ends_with(b"\n");
    let without_end = piece.strip_suffix(b"\n").unwrap_or(piece);
    match without_end.iter().rposition(|&byte| byte == b'\n') {
        Some(at) => {
            let kept = last.split();
            last.extend_from_slice(&piece[at + 1..]);
            (kept, &piece[..=at])
        }
        None if kept_is_whole && !piece.is_empty() => {
            let kept = last.split();
            last.extend_from_slice(piece);
            (kept, &[])
        }
        None => {
            last.extend_from_slice(piece);
            (BytesMut::new(), &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_found_wherever_the_reply_is_cut() {
        let reply = b"1 a\n2 \n3 bb\nEND count=3\n";
        let single: Vec<&[u8]> = reply.chunks(1).collect();
        let cuts = (0..=reply.len()).map(|at| vec![&reply[..at], &reply[at..]]);
        for pieces in cuts.chain([single]) {
            let (mut last, mut data) = (BytesMut::new(), Vec::new());
            for piece in pieces {
                let (kept, part) = split_last_line(&mut last, piece);
                data.extend_from_slice(&kept);
                data.extend_from_slice(part);
            }
            assert_eq!((&data[..], &last[..]), (&b"1 a\n2 \n3 bb\n"[..], &b"END count=3\n"[..]));
        }
    }
}
