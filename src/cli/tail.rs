//! `tail`: the last entries, and those to come.

use bytes::BytesMut;

use super::arguments::Output;
use super::output::{Stdout, Stop, push_line, push_object};
use super::{Exit, complain, connect, connect_options, unreachable};
use crate::client::{FollowError, FollowEvent, Follower, TailStart, end_of_log};
use crate::store::Record;
use crate::types::{Level, Seq};

/// How an entry is written.
fn form(output: Output) -> fn(&mut BytesMut, &Record) {
    match output {
        Output::Text => push_line,
        Output::Json => push_object,
    }
}

/// Prints the last entries that are there.
pub(super) async fn last(servers: &[String], count: u64, level: Level, output: Output) -> Exit {
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
            while let Some(batch) = entries.next_batch().await? {
                stdout.print(&batch, form(output))?;
            }
        }
        Ok::<(), Stop>(())
    };
    let printed = printed.await;
    // What came before an error is true, and is printed too.
    match stdout.flush().map_err(Stop::from).and(printed) {
        Ok(()) => Exit::Done,
        Err(stop) => stop.exit(),
    }
}

/// Prints the last entries and those to come, until it is interrupted.
pub(super) async fn follow(servers: &[String], count: u64, level: Level, output: Output) -> Exit {
    let start = if count == 0 { TailStart::New } else { TailStart::Last(count) };
    let follower = Follower::start(servers.iter().cloned(), connect_options(), start, level);
    tokio::select! {
        exit = async {
            match follower.await {
                Ok(follower) => print_events(follower, form(output)).await,
                Err(error) => follow_failed(&error),
            }
        } => exit,
        // Whoever follows ends it this way: it is the normal end.
        _ = tokio::signal::ctrl_c() => Exit::Done,
    }
}

async fn print_events(mut follower: Follower, push: fn(&mut BytesMut, &Record)) -> Exit {
    let mut stdout = Stdout::new();
    let mut trouble = false;
    loop {
        match follower.next_event().await {
            Ok(FollowEvent::Entries(batch)) => {
                let printed = stdout.print(&batch, push);
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
