//! What commands answer, in the gateway's lines: at both doors the same bytes.

use bytes::{Bytes, BytesMut};

use super::admission::{admit_faults, admit_store, master_only};
use super::reading::List;
use super::{Answer, Question, Sight};
use crate::codes::Code;
use crate::gateway::reply::{write_get, write_names};
use crate::gateway::verbs::help;
use crate::gateway::{Command, Refusal};
use crate::store::Record;
use crate::store::provisional::Stored;
use crate::types::{Digest, Epoch, Role, Seq};

/// A command on its way.
#[derive(Debug)]
pub enum Work {
    /// STATUS.
    Status,
    /// HEALTH.
    Health,
    /// WAITERS.
    Waiters,
    /// METRICS.
    Metrics,
    /// DIGEST at an entry.
    Digest(Seq),
    /// GET of an entry.
    Get(Seq),
    /// GET, of which only who holds it is missing.
    GetHolders(Record),
    /// A fault verb.
    Fault,
    /// STORE of an entry.
    Store(Seq),
    /// LIST.
    List(List),
}

/// How far a command is.
#[derive(Debug)]
pub enum Step {
    /// It is answered whole.
    Done,
    /// There is more to write: see [`Work::go_on`].
    More(Work),
    /// It goes on with the answer: see [`Work::resume`].
    Ask(Work, Question),
}

/// Begins a command, and writes what can be said at once.
///
/// # Errors
/// It is refused; nothing was done or written.
pub fn begin(
    sight: Sight<'_>,
    command: Command,
    line: &Bytes,
    out: &mut BytesMut,
) -> Result<Step, Refusal> {
    let ask = |work, question| Ok(Step::Ask(work, question));
    match command {
        Command::Ping { text } => {
            out.extend_from_slice(b"PONG");
            if !text.is_empty() {
                out.extend_from_slice(b" ");
                out.extend_from_slice(&line[text]);
            }
            out.extend_from_slice(b"\n");
            Ok(Step::Done)
        }
        Command::Help { verb } => match help(verb.as_deref()) {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(Step::Done)
            }
            None => Err(Refusal::new(Code::UnknownVerb, "- HELP lists the verbs")),
        },
        Command::Quit => {
            out.extend_from_slice(b"OK\n");
            Ok(Step::Done)
        }
        Command::Status => ask(Work::Status, Question::Status),
        Command::Health => ask(Work::Health, Question::Status),
        Command::Waiters if sight.site.role == Role::Secondary => Err(master_only(sight)),
        Command::Waiters => ask(Work::Waiters, Question::Waiters),
        Command::Metrics => ask(Work::Metrics, Question::Metrics),
        Command::Digest { seq } => {
            let seq = seq.unwrap_or(sight.site.log.bounds().last);
            ask(Work::Digest(seq), Question::PrefixId(seq))
        }
        Command::Get { seq } if is_unserved(sight, seq) => get_by_hand(sight, seq, out),
        Command::Get { seq } => ask(Work::Get(seq), Question::Record(seq)),
        Command::Fault(fault) => {
            admit_faults(sight)?;
            ask(Work::Fault, Question::Fault(fault))
        }
        Command::Store { seq, payload } => {
            admit_store(sight, seq, payload.len())?;
            ask(Work::Store(seq), Question::Store(seq, line.slice(payload)))
        }
        Command::List { from, limit, level } => {
            List::start(sight, from, limit, level).map(|list| Step::More(Work::List(list)))
        }
        // The sessions themselves carry these out.
        Command::Append { .. } | Command::Tail { .. } | Command::Wait { .. } => Ok(Step::Done),
    }
}

impl Work {
    /// Goes on without an answer.
    pub fn go_on(self, sight: Sight<'_>, out: &mut BytesMut) -> Step {
        match self {
            Work::List(mut list) => match list.go_on(sight, out) {
                Some(question) => Step::Ask(Work::List(list), question),
                None => Step::Done,
            },
            // Only a list has more to write.
            _ => Step::Done,
        }
    }

    /// Goes on with what was asked.
    ///
    /// # Errors
    /// It is refused.
    pub fn resume(
        self,
        sight: Sight<'_>,
        answer: Answer,
        out: &mut BytesMut,
    ) -> Result<Step, Refusal> {
        match (self, answer) {
            (Work::Status, Answer::Status(status)) => {
                out.extend_from_slice(status.lines().as_bytes());
            }
            (Work::Health, Answer::Status(status)) => {
                out.extend_from_slice(status.health_line().as_bytes());
            }
            (Work::Waiters, Answer::Waiters(lines, count)) => {
                out.extend_from_slice(lines.as_bytes());
                out.extend_from_slice(format!("END count={count}\n").as_bytes());
            }
            (Work::Metrics, Answer::Metrics(text)) => out.extend_from_slice(text.as_bytes()),
            (Work::Digest(seq), Answer::PrefixId(id)) => {
                let id = id.ok_or_else(|| missing(sight, seq, sight.site.log.bounds().last))?;
                let line = format!("OK seq={seq} epoch={} digest={}\n", id.epoch, id.digest);
                out.extend_from_slice(line.as_bytes());
            }
            (Work::Get(seq), Answer::Record(None)) => return get_by_hand(sight, seq, out),
            (Work::Get(seq), Answer::Record(Some(record))) => {
                if sight.site.role == Role::Master {
                    return Ok(Step::Ask(Work::GetHolders(record), Question::Holders(seq)));
                }
                write_get(out, &record, None);
            }
            (Work::GetHolders(record), Answer::Holders(holders)) => {
                let mut names = String::new();
                write_names(&mut names, sight.roster(), |index| holders.contains(index));
                write_get(out, &record, Some(&names));
            }
            (Work::Fault, Answer::Injected) => out.extend_from_slice(b"OK\n"),
            (Work::Store(seq), Answer::Stored(stored)) => {
                let suffix = stored_suffix(seq, stored)?;
                out.extend_from_slice(format!("OK seq={seq}{suffix}\n").as_bytes());
            }
            (Work::List(mut list), Answer::Read(slice)) => {
                list.take_slice(slice, out);
                return Ok(Step::More(Work::List(list)));
            }
            (Work::List(mut list), Answer::Record(record)) => {
                list.take_record(record, out);
                return Ok(Step::More(Work::List(list)));
            }
            (work, answer) => unreachable!("BUG: {answer:?} to {work:?}"),
        }
        Ok(Step::Done)
    }
}

fn stored_suffix(seq: Seq, stored: Stored) -> Result<&'static str, Refusal> {
    match stored {
        Stored::Applied => Ok(""),
        Stored::Held => Ok(" held=true"),
        Stored::Duplicate => Ok(" duplicate=true"),
        Stored::Conflict => {
            let detail = format!("seq={seq} - another entry is stored there, nothing was changed");
            Err(Refusal::new(Code::Conflict, detail))
        }
        Stored::Full => {
            let detail = format!("seq={seq} - too many entries by hand wait for the master's");
            Err(Refusal::new(Code::Denied, detail))
        }
    }
}

/// The log contradicts the master's from here on: nothing of that is shown.
fn is_unserved(sight: Sight<'_>, seq: Seq) -> bool {
    sight.view.unserved_from.is_some_and(|first| seq >= first)
}

fn get_by_hand(sight: Sight<'_>, seq: Seq, out: &mut BytesMut) -> Result<Step, Refusal> {
    let provisional = sight.site.provisional.lock();
    let visible = provisional.visible(sight.site.log.bounds().last);
    let Some(payload) = provisional.payload(seq).filter(|_| visible.contains(seq)) else {
        return Err(missing(sight, seq, visible.last()));
    };
    let record = Record {
        seq,
        epoch: Epoch::ZERO,
        time_ms: 0,
        digest: Digest::EMPTY,
        payload: payload.clone(),
    };
    write_get(out, &record, None);
    Ok(Step::Done)
}

/// Why an entry is not shown: it cannot be read, or is not there.
fn missing(sight: Sight<'_>, seq: Seq, last: Seq) -> Refusal {
    let log = &sight.site.log;
    let is_there = is_unserved(sight, seq) && seq <= log.bounds().last;
    if is_there || log.is_unreadable(seq) {
        let detail = format!("seq={seq} - damaged here, another node has it, STATUS tells more");
        return Refusal::new(Code::Unreadable, detail);
    }
    Refusal::new(Code::NotFound, format!("next={} - not in the log", last.next()))
}
