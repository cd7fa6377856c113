//! `tail`: the last entries, and those to come.

use super::interrupt::Interrupts;
use super::output::{Stdout, Stop, refused};
use super::request::Form;
use super::servers::{Rarely, Servers, Trouble, say_who_was_slow};
use super::{Exit, complain, connect_options, unreachable};
use crate::client::{Client, FollowError, FollowEvent, Follower, ReadError, TailStart, end_of_log};
use crate::types::{Level, LogId, Seq, SeqRange};

/// Prints the last entries that are there.
pub(super) async fn last(servers: &[String], count: u64, level: Level, form: Form) -> Exit {
    let mut servers = Servers::new(servers);
    let mut stdout = Stdout::large(form);
    let mut left: Option<Left> = None;
    loop {
        let client = match servers.connect().await {
            Ok(client) => client,
            Err(error) => return servers.unreachable(&error),
        };
        let printed = async {
            let left = match &mut left {
                Some(left) => left,
                none => none.insert(Left::of(&client, count, level).await?),
            };
            if left.log_id != client.log_id() {
                complain(format_args!("{} holds another log than was shown", client.addr()));
                return Ok(Exit::Unknown);
            }
            let limit = left.range.len();
            if limit > 0 {
                let mut entries = client.read(left.range.first, Some(limit), level).await?;
                while let Some(batch) = entries.next_batch().await? {
                    stdout.print(&batch, form.push())?;
                    left.range.first = batch.range().end.min(left.range.end);
                }
            }
            Ok::<Exit, Stop>(Exit::Done)
        };
        let printed = printed.await;
        // What came before an error is true, and is printed too.
        match stdout.flush().map_err(Stop::from).and(printed) {
            Ok(exit) => return exit,
            Err(Stop::Read(ReadError::Lost(lost))) if servers.go_on_after(&client, &lost) => {}
            Err(stop) => return stop.exit(form),
        }
    }
}

/// What is still to be shown of the log as it was at first.
struct Left {
    range: SeqRange,
    log_id: Option<LogId>,
}

impl Left {
    async fn of(client: &Client, count: u64, level: Level) -> Result<Left, ReadError> {
        let end = end_of_log(client, level).await?;
        let first = Seq::new(end.number().saturating_sub(count)).max(Seq::FIRST);
        Ok(Left { range: SeqRange { first, end }, log_id: client.log_id() })
    }
}

/// Prints the last entries and those to come, until SIGINT or SIGTERM.
pub(super) async fn follow(
    servers: &[String],
    count: u64,
    level: Level,
    form: Form,
    interrupts: &mut Interrupts,
) -> Exit {
    let start = if count == 0 { TailStart::New } else { TailStart::Last(count) };
    let follower = Follower::start(servers.iter().cloned(), connect_options(), start, level);
    tokio::select! {
        exit = async {
            match follower.await {
                Ok(follower) => {
                    if let Some(client) = follower.client() {
                        say_who_was_slow(client);
                    }
                    print_events(follower, form).await
                }
                Err(error) => follow_failed(&error, form),
            }
        } => exit,
        // Whoever follows ends it this way: it is the normal end. All that came is written.
        _ = interrupts.first() => Exit::Done,
    }
}

async fn print_events(mut follower: Follower, form: Form) -> Exit {
    let mut stdout = Stdout::large(form);
    let mut trouble = Rarely::default();
    // Who is there again, to be told when it has given a sign of life.
    let mut resumed = None;
    loop {
        match follower.next_event().await {
            Ok(FollowEvent::Entries(batch)) => {
                if trouble.over()
                    && let Some(node) = resumed.take()
                {
                    complain(format_args!("connected to {node} again"));
                }
                let printed = stdout.print(&batch, form.push());
                if let Err(stop) = stdout.flush().map_err(Stop::from).and(printed) {
                    return stop.exit(form);
                }
            }
            // Not each time: it is tried every few seconds, perhaps for hours.
            Ok(FollowEvent::Lost(lost)) => {
                trouble.say(Trouble::Lost, format_args!("{lost}; connecting again"));
            }
            Ok(FollowEvent::Unreachable(error)) => {
                let message = format_args!("no server reachable, still trying: {error}");
                trouble.say(Trouble::Unreachable, message);
            }
            Ok(FollowEvent::Refused(refusal)) => {
                trouble.say(Trouble::Refused, format_args!("{refusal}; trying again"));
            }
            Ok(FollowEvent::Resumed(node)) => resumed = Some(node),
            Err(error) => return follow_failed(&error, form),
        }
    }
}

fn follow_failed(error: &FollowError, form: Form) -> Exit {
    match error {
        FollowError::Refused(refusal) => refused(&refusal.to_string(), form),
        FollowError::Connect(error) => unreachable(error),
        error => {
            complain(error);
            Exit::Refused
        }
    }
}
