//! Verbs that are a line of the text gateway, and its reply.

use bytes::Bytes;

use super::arguments::{Output, Reply};
use super::output::{Stdout, failure};
use super::{Exit, command_failed, connect, connect_to_master, json, unreachable};
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
    match client.command(line).await {
        Ok(bytes) => show(&bytes, reply, output),
        Err(error) => command_failed(&error),
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
}
