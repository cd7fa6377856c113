//! `list --raw` and `tail`: entries over the frames that carry them as they are.

use std::io;

use super::output::{Stdout, failure, push_data_line};
use super::{Exit, complain, connect, connect_options, read_failed, unreachable};
use crate::client::{
    Batch, Client, EntryStream, FollowError, FollowEvent, Follower, ReadError, TailStart,
};
use crate::store::Record;
use crate::types::{Level, Seq};

/// Why printing ended early.
enum Stop {
    Output(io::Error),
    Read(ReadError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Output(error)
    }
}

impl<E: Into<ReadError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Read(error.into())
    }
}

impl Stop {
    fn exit(&self) -> Exit {
        match self {
            Stop::Output(error) => failure(error),
            Stop::Read(error) => read_failed(error),
        }
    }
}

fn push_raw(buffer: &mut Vec<u8>, record: &Record) {
    buffer.extend_from_slice(&record.payload);
    buffer.push(b'\n');
}

fn push_line(buffer: &mut Vec<u8>, record: &Record) {
    push_data_line(buffer, record.seq.number(), &record.payload);
}

fn print(stdout: &mut Stdout, batch: &Batch, push: fn(&mut Vec<u8>, &Record)) -> Result<(), Stop> {
    for record in batch.records() {
        push(stdout.buffer(), &record.map_err(ReadError::from)?);
        stdout.flush_if_large()?;
    }
    Ok(())
}

/// What the END line of a list tells.
#[derive(Default)]
struct Listed {
    count: u64,
    first: Option<Seq>,
    last: Option<Seq>,
    commit: Seq,
}

/// Prints payloads only.
pub(super) async fn list_raw(
    servers: &[String],
    from: u64,
    limit: Option<u64>,
    level: Level,
) -> Exit {
    let client = match connect(servers).await {
        Ok(client) => client,
        Err(error) => return unreachable(&error),
    };
    let mut stdout = Stdout::new();
    let listed = async {
        let mut entries = client.read(Seq::new(from), limit, level).await?;
        print_all(&mut stdout, &mut entries, push_raw).await
    };
    match listed.await {
        Ok(Listed { count, first, last, commit }) => {
            let seq = |seq: Option<Seq>| seq.map_or("-".to_owned(), |seq| seq.to_string());
            let (first, last) = (seq(first), seq(last));
            complain(format_args!(
                "END count={count} first={first} last={last} commit={commit} level={level}"
            ));
            Exit::Done
        }
        Err(stop) => stop.exit(),
    }
}

/// Prints everything that comes. What was read before an error is printed too.
async fn print_all(
    stdout: &mut Stdout,
    entries: &mut EntryStream,
    push: fn(&mut Vec<u8>, &Record),
) -> Result<Listed, Stop> {
    let mut listed = Listed::default();
    let ended = loop {
        let batch = match entries.next_batch().await {
            Ok(Some(batch)) => batch,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        };
        listed.commit = batch.commit();
        if !batch.is_empty() {
            let range = batch.range();
            listed.count += range.len();
            listed.first.get_or_insert(range.first);
            listed.last = Some(range.last());
            if let Err(stop) = print(stdout, &batch, push) {
                break Err(stop);
            }
        }
    };
    stdout.flush()?;
    ended.map(|()| listed)
}

/// Prints the last entries that are there.
pub(super) async fn last(servers: &[String], count: u64, level: Level) -> Exit {
    let client = match connect(servers).await {
        Ok(client) => client,
        Err(error) => return unreachable(&error),
    };
    let mut stdout = Stdout::new();
    let printed = async {
        let next = end_of_log(&client, level).await?;
        let from = Seq::new(next.number().saturating_sub(count)).max(Seq::FIRST);
        let limit = next.distance_from(from);
        if limit > 0 {
            let mut entries = client.read(from, Some(limit), level).await?;
            print_all(&mut stdout, &mut entries, push_line).await?;
        }
        Ok(())
    };
    match printed.await {
        Ok(()) => Exit::Done,
        Err::<(), Stop>(stop) => stop.exit(),
    }
}

/// The number after the last entry that the node shows at `level`: a read far beyond the end tells
/// it at once, where a tail might wait for a heartbeat.
async fn end_of_log(client: &Client, level: Level) -> Result<Seq, ReadError> {
    const BEYOND: Seq = Seq::new(1 << 62);
    let mut entries = client.read(BEYOND, Some(1), level).await?;
    let mut next = Seq::FIRST;
    while let Some(batch) = entries.next_batch().await? {
        next = batch.next();
    }
    Ok(next)
}

/// Prints the last entries and those to come, until it is interrupted.
pub(super) async fn follow(servers: &[String], count: u64, level: Level) -> Exit {
    let start = if count == 0 { TailStart::New } else { TailStart::Last(count) };
    let follower = Follower::start(servers.iter().cloned(), connect_options(), start, level);
    tokio::select! {
        exit = async {
            match follower.await {
                Ok(follower) => print_events(follower).await,
                Err(error) => follow_failed(&error),
            }
        } => exit,
        // Whoever follows ends it this way: it is the normal end.
        _ = tokio::signal::ctrl_c() => Exit::Done,
    }
}

async fn print_events(mut follower: Follower) -> Exit {
    let mut stdout = Stdout::new();
    let mut trouble = false;
    loop {
        match follower.next_event().await {
            Ok(FollowEvent::Entries(batch)) => {
                let printed = print(&mut stdout, &batch, push_line);
                if let Err(stop) = stdout.flush().map_err(Stop::from).and(printed) {
                    return stop.exit();
                }
            }
            Ok(FollowEvent::Lost(lost)) => complain(format_args!("{lost}; connecting again")),
            Ok(FollowEvent::Unreachable(error)) => {
                // Once each time: it is tried every two seconds, perhaps for hours.
                if !trouble {
                    complain(format_args!("no server reachable, still trying: {error}"));
                }
                trouble = true;
            }
            Ok(FollowEvent::Refused(refusal)) => {
                complain(format_args!("{refusal}; trying again"));
            }
            Ok(FollowEvent::Resumed(node)) => {
                complain(format_args!("connected to {node} again"));
                trouble = false;
            }
            Err(error) => return follow_failed(&error),
        }
    }
}

fn follow_failed(error: &FollowError) -> Exit {
    match error {
        FollowError::Connect(error) => unreachable(error),
        error => {
            complain(error);
            Exit::Refused
        }
    }
}
