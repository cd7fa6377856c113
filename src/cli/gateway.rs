//! Verbs that are a line of the text gateway, and its reply.

use std::io;

use bytes::{Bytes, BytesMut};

use super::arguments::{Output, Reply};
use super::output::{Stdout, failure};
use super::{Exit, command_failed, complain, connect, connect_to_master, json, unreachable};
use crate::client::{Client, CommandError, CommandReply};
use crate::codes::Class;

/// Sends `line` and prints the reply.
pub(super) async fn ask(servers: &[String], line: &[u8], reply: Reply, output: Output) -> Exit {
    let connected = match reply {
        Reply::OfMaster => connect_to_master(servers).await,
        _ => connect(servers).await,
    };
    let client = match connected {
        Ok(client) => client,
        Err(error) => return unreachable(&error),
    };
    match reply {
        Reply::List => list(&client, line).await,
        _ => match client.command(line).await {
            Ok(bytes) => show(&bytes, reply, output),
            Err(error) => command_failed(&error),
        },
    }
}

fn show(bytes: &Bytes, reply: Reply, output: Output) -> Exit {
    let text = String::from_utf8_lossy(bytes);
    let first = text.lines().next().unwrap_or_default();
    let exit = match class_of(first.as_bytes()) {
        Some(class) => Exit::of_class(class),
        None => Exit::Done,
    };
    let exit = match reply {
        Reply::Health if !first.split(' ').any(|word| word == "mode=normal") => {
            exit.worst(Exit::Refused)
        }
        _ => exit,
    };
    let mut stdout = Stdout::default();
    match (output, reply) {
        (Output::Json, Reply::Status) if exit == Exit::Done => {
            stdout.push_json(&json::status(&text));
        }
        (Output::Json, _) => stdout.push_json(&json::reply_line(first)),
        // The END of these replies tells nothing.
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

/// The class that a reply line begins with, if it is not data.
fn class_of(line: &[u8]) -> Option<Class> {
    let word = line.split(|&byte| byte == b' ').next()?;
    [Class::Ok, Class::Pending, Class::Rejected, Class::Unknown, Class::Err]
        .into_iter()
        .find(|class| class.word().as_bytes() == word)
}

/// Prints data lines as they come; the last line, END or a refusal, goes to stderr.
async fn list(client: &Client, line: &[u8]) -> Exit {
    let mut reply = match client.command_in_pieces(line).await {
        Ok(reply) => reply,
        Err(error) => return command_failed(&error),
    };
    match print_data_lines(&mut reply).await {
        Ok(Ok(last)) => {
            complain(String::from_utf8_lossy(&last).trim_end());
            class_of(&last).map_or(Exit::Done, Exit::of_class)
        }
        Ok(Err(error)) => failure(&error),
        Err(error) => command_failed(&error),
    }
}

/// Prints all lines but the last, which it returns.
async fn print_data_lines(reply: &mut CommandReply) -> Result<io::Result<Bytes>, CommandError> {
    let mut stdout = Stdout::new();
    let mut last = BytesMut::new();
    loop {
        let piece = match reply.next_piece().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(stdout.flush().map(|()| last.freeze())),
            Err(lost) => {
                // What came before is whole lines, and true.
                return Ok(Err(match stdout.flush() {
                    Ok(()) => return Err(lost.into()),
                    Err(error) => error,
                }));
            }
        };
        let data = split_last_line(&mut last, &piece);
        stdout.buffer().extend_from_slice(&data.0);
        stdout.buffer().extend_from_slice(data.1);
        if let Err(error) = stdout.flush_if_large() {
            return Ok(Err(error));
        }
    }
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

    #[test]
    fn data_that_looks_like_a_class_is_data() {
        assert_eq!(class_of(b"OK mode=normal"), Some(Class::Ok));
        assert_eq!(class_of(b"ERR not-found seq=1"), Some(Class::Err));
        assert_eq!(class_of(b"node id=master"), None);
        assert_eq!(class_of(b"OKAY"), None);
    }
}
