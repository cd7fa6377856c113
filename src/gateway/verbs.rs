//! The verbs of the gateway: one row says how each is written, what HELP tells of it, whom it is for, and
//! how the rest of its line is read.
//!
//! `VERB key=value … payload`: verbs are case-insensitive, one space separates, words whose key the
//! verb knows are options, the first other word starts the payload, `--` ends the options by hand.

use super::command::Command;
use super::options::{
    Words, append_options, delay, fail, list, mute, not_an_option, parse_seq, tail, unavailable,
    unknown_verb, value,
};
use super::reply::Refusal;

/// A row of the table.
pub struct Verb {
    /// In capitals.
    pub name: &'static str,
    /// How it is written.
    pub usage: &'static str,
    /// What HELP tells of it.
    pub text: &'static str,
    /// What operators get of it.
    pub operators: Operators,
    /// The rest of the line is a payload or a text, and no word too many.
    takes_rest: bool,
    parse: fn(&mut Words<'_>) -> Result<Command, Refusal>,
}

/// Operators are connections beyond those that clients may have: they look, and change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operators {
    /// It looks at the state of the node and is answered at once, even to somebody whom the gateway has
    /// no place for.
    Admitted,
    /// It is answered on an operator's connection.
    Answered,
    /// It is for clients.
    No,
}

/// All of them, as HELP lists them.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "APPEND",
        usage: "APPEND [w=W] [ack=stored|received] [timeout=D] [--] payload",
        text: "Appends an entry. W nodes must hold it before OK: 1 to n, majority, all.\n\
               ack=stored counts nodes that have it in their log, ack=received in memory.\n\
               After the timeout the answer is PENDING: it is in the log and will replicate.\n\
               timeout=0 answers as soon as the master has it, timeout=none waits.",
        operators: Operators::No,
        takes_rest: true,
        parse: |words| {
            let (options, bad_concern) = append_options(words, true)?;
            Ok(Command::Append { options, bad_concern, payload: words.rest() })
        },
    },
    Verb {
        name: "LIST",
        usage: "LIST [from=1] [limit=N] [level=local|committed|all|K]",
        text: "Lists entries, a line `<seq> <payload>` each. Level: all that this node holds,\n\
               what a majority holds, what every node holds, or what at least K nodes hold.",
        operators: Operators::No,
        takes_rest: false,
        parse: list,
    },
    Verb {
        name: "GET",
        usage: "GET <seq>",
        text: "Shows one entry.",
        operators: Operators::Answered,
        takes_rest: false,
        parse: |words| Ok(Command::Get { seq: words.required("a sequence number", parse_seq)? }),
    },
    Verb {
        name: "TAIL",
        usage: "TAIL [from=SEQ | last=N] [level=committed]",
        text: "Shows entries as they come. A blank line ends it, another line is then carried out.",
        operators: Operators::No,
        takes_rest: false,
        parse: tail,
    },
    Verb {
        name: "WAIT",
        usage: "WAIT <seq> [w=W] [ack=A] [timeout=D]",
        text: "Waits until W nodes hold an entry that is in the log. Master only.",
        operators: Operators::No,
        takes_rest: false,
        parse: |words| {
            let seq = words.required("a sequence number", parse_seq)?;
            let (options, bad_concern) = append_options(words, false)?;
            Ok(Command::Wait { seq, options, bad_concern })
        },
    },
    Verb {
        name: "STATUS",
        usage: "STATUS",
        text: "Shows this node and what it knows of others.",
        operators: Operators::Admitted,
        takes_rest: false,
        parse: |_| Ok(Command::Status),
    },
    Verb {
        name: "HEALTH",
        usage: "HEALTH",
        text: "One line: mode, who is present, who is not.",
        operators: Operators::Admitted,
        takes_rest: false,
        parse: |_| Ok(Command::Health),
    },
    Verb {
        name: "WAITERS",
        usage: "WAITERS",
        text: "Appends that still wait. Master only.",
        operators: Operators::Admitted,
        takes_rest: false,
        parse: |_| Ok(Command::Waiters),
    },
    Verb {
        name: "METRICS",
        usage: "METRICS",
        text: "Everything this node measures, in the text format of OpenMetrics, up to `# EOF`.",
        operators: Operators::Admitted,
        takes_rest: false,
        parse: |_| Ok(Command::Metrics),
    },
    Verb {
        name: "DIGEST",
        usage: "DIGEST [seq]",
        text: "The chain digest at an entry: equal on two nodes if their logs up to there are.",
        operators: Operators::Admitted,
        takes_rest: false,
        parse: |words| {
            let word = words.next_word();
            let seq = word.map(|word| value("seq", word, parse_seq)).transpose()?;
            Ok(Command::Digest { seq })
        },
    },
    Verb {
        name: "PING",
        usage: "PING [text]",
        text: "Answers PONG [text].",
        operators: Operators::Answered,
        takes_rest: true,
        parse: |words| Ok(Command::Ping { text: words.rest() }),
    },
    Verb {
        name: "HELP",
        usage: "HELP [verb]",
        text: "This.",
        operators: Operators::No,
        takes_rest: false,
        parse: |words| Ok(Command::Help { verb: words.next_word().map(str::to_ascii_uppercase) }),
    },
    Verb {
        name: "QUIT",
        usage: "QUIT",
        text: "Answers OK and closes.",
        operators: Operators::No,
        takes_rest: false,
        parse: |_| Ok(Command::Quit),
    },
    Verb {
        name: "DELAY",
        usage: "DELAY <duration> | DELAY every=<duration> | DELAY off",
        text: "Fault, secondary with --faults: the next (or every) APPEND frame is handled later.",
        operators: Operators::No,
        takes_rest: false,
        parse: |words| delay(words).map(Command::Fault),
    },
    Verb {
        name: "FAIL",
        usage: "FAIL after|before [count=1 | p=0.5] | FAIL off",
        text: "Fault: APPEND frames are answered with an error, after or before storing.",
        operators: Operators::No,
        takes_rest: false,
        parse: |words| fail(words).map(Command::Fault),
    },
    Verb {
        name: "MUTE",
        usage: "MUTE <duration> | MUTE off",
        text: "Fault: goes on storing but answers the master nothing.",
        operators: Operators::No,
        takes_rest: false,
        parse: |words| mute(words).map(Command::Fault),
    },
    Verb {
        name: "STORE",
        usage: "STORE <seq> <payload>",
        text: "Fault: hands this secondary an entry by hand; it gives way to the master's.",
        operators: Operators::No,
        takes_rest: true,
        parse: |words| {
            let seq = words.required("a sequence number", parse_seq)?;
            Ok(Command::Store { seq, payload: words.rest() })
        },
    },
];

/// The verb of a line, if there is such a one.
pub fn verb_of(line: &[u8]) -> Option<&'static Verb> {
    let word = &line[..verb_len(line)];
    VERBS.iter().find(|verb| word.eq_ignore_ascii_case(verb.name.as_bytes()))
}

fn verb_len(line: &[u8]) -> usize {
    line.iter().position(|&byte| byte == b' ').unwrap_or(line.len())
}

/// Parses a line without its line end. `None` for a blank line.
///
/// # Errors
/// The reply that says what is wrong.
pub fn parse(line: &[u8]) -> Result<Option<Command>, Refusal> {
    if line.iter().all(|&byte| byte == b' ') {
        return Ok(None);
    }
    let word = &line[..verb_len(line)];
    let Some(verb) = verb_of(line) else {
        let reserved = word.eq_ignore_ascii_case(b"OUTCOME");
        return Err(if reserved { unavailable(word) } else { unknown_verb(word) });
    };
    let mut words = Words::behind(line, word.len());
    let command = (verb.parse)(&mut words)?;
    match words.next_word() {
        Some(word) if !verb.takes_rest => Err(not_an_option(verb.name.as_bytes(), word)),
        _ => Ok(Some(command)),
    }
}

/// The reply to `HELP`, or to `HELP verb`; `None` if there is no such verb.
pub fn help(verb: Option<&str>) -> Option<String> {
    let mut reply = String::new();
    match verb {
        None => VERBS.iter().for_each(|row| {
            reply.push_str(row.usage);
            reply.push('\n');
        }),
        Some(verb) => {
            let row = VERBS.iter().find(|row| row.name == verb)?;
            reply.push_str(row.usage);
            row.text.lines().for_each(|line| {
                reply.push_str("\n  ");
                reply.push_str(line);
            });
            reply.push('\n');
        }
    }
    reply.push_str("END\n");
    Some(reply)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::codes::Code;
    use crate::gateway::command::{BadConcern, FailRule, Fault, TailFrom};
    use crate::types::{AckLevel, Level, Seq, Timeout, WaitOptions, WriteConcern};

    fn append(line: &str) -> (WaitOptions, Option<BadConcern>, &str) {
        match parse(line.as_bytes()) {
            Ok(Some(Command::Append { options, bad_concern, payload })) => {
                (options, bad_concern, &line[payload])
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_payload_is_the_rest_of_the_line_byte_for_byte() {
        for (line, payload) in [
            ("APPEND hello world", "hello world"),
            ("append x", "x"),
            ("APPEND", ""),
            ("APPEND ", ""),
            ("APPEND  x", " x"),
            ("APPEND w=2 x", "x"),
            ("APPEND w=2", ""),
            ("APPEND w=2  x ", " x "),
            ("APPEND ack=received timeout=0 w=1 a b", "a b"),
            ("APPEND -- w=2", "w=2"),
            ("APPEND w=1 -- w=2 is what I say", "w=2 is what I say"),
            ("APPEND --", ""),
            ("APPEND foo=bar w=2", "foo=bar w=2"),
            ("APPEND x w=2", "x w=2"),
            ("APPEND W=2", "W=2"),
        ] {
            assert_eq!(append(line).2, payload, "{line}");
        }
    }

    #[test]
    fn options_are_read_once_and_nonsense_is_named() {
        let (options, bad, _) = append("APPEND w=majority ack=received timeout=500ms x");
        assert_eq!((options.concern, bad), (Some(WriteConcern::Majority), None));
        assert_eq!(options.ack, Some(AckLevel::Received));
        assert_eq!(options.timeout, Some(Timeout::For(Duration::from_millis(500))));
        assert_eq!(append("APPEND w=0 x").1, Some(BadConcern("0".into())));
        for (line, code) in [
            ("APPEND w=1 w=2 x", Code::BadOption),
            ("APPEND ack=maybe x", Code::BadValue),
            ("APPEND timeout=soon x", Code::BadValue),
            ("APPEND id=p:1 x", Code::BadOption),
            ("APPEND match=1 x", Code::BadOption),
            ("APPEND mode=atomic x", Code::BadOption),
            ("LIST from=0", Code::BadValue),
            ("LIST from=1 from=2", Code::BadOption),
            ("LIST what", Code::BadOption),
            ("LIST level=0", Code::BadValue),
            ("TAIL from=1 last=2", Code::BadOption),
            ("GET", Code::BadValue),
            ("GET x", Code::BadValue),
            ("GET 1 2", Code::BadOption),
            ("STATUS now", Code::BadOption),
            ("FAIL sometimes", Code::BadValue),
            ("FAIL after p=2", Code::BadValue),
            ("DELAY", Code::BadValue),
            ("OUTCOME p 1", Code::UnknownVerb),
            ("FROBNICATE", Code::UnknownVerb),
            ("\u{1}\u{2}", Code::UnknownVerb),
        ] {
            assert_eq!(parse(line.as_bytes()).map_err(|r| r.code), Err(code), "{line}");
        }
    }

    #[test]
    fn every_verb_is_understood() {
        let fault = |line: &str| match parse(line.as_bytes()) {
            Ok(Some(Command::Fault(fault))) => fault,
            other => panic!("{line}: {other:?}"),
        };
        let second = Duration::from_secs(1);
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"  "), Ok(None));
        assert_eq!(parse(b"ping"), Ok(Some(Command::Ping { text: 4..4 })));
        assert_eq!(parse(b"Get 7"), Ok(Some(Command::Get { seq: Seq::new(7) })));
        assert_eq!(
            parse(b"STORE 2 a b"),
            Ok(Some(Command::Store { seq: Seq::new(2), payload: 8..11 }))
        );
        assert_eq!(fault("DELAY 1"), Fault::DelayOnce(second));
        assert_eq!(fault("DELAY every=1s"), Fault::DelayEvery(second));
        assert_eq!(fault("delay off"), Fault::DelayOff);
        assert_eq!(fault("FAIL after"), Fault::FailAfter(FailRule::Count(1)));
        assert_eq!(fault("FAIL before p=0.5"), Fault::FailBefore(FailRule::Probability(0.5)));
        assert_eq!(fault("MUTE 1s"), Fault::Mute(second));
        let wait = parse(b"WAIT 3 w=2 timeout=1");
        assert!(matches!(wait, Ok(Some(Command::Wait { seq, .. })) if seq == Seq::new(3)));
        let tail = parse(b"TAIL last=3 level=local");
        let expected = Command::Tail { start: TailFrom::Last(3), level: Level::Local };
        assert_eq!(tail, Ok(Some(expected)));
    }

    #[test]
    fn no_line_makes_the_parser_panic() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let words: [&[u8]; 12] = [
                b"APPEND",
                b"LIST",
                b" ",
                b"w=",
                b"timeout=",
                b"--",
                b"\xff\xfe",
                b"=",
                b"TAIL",
                b"9999999999999999999999",
                b"from=",
                b"\0",
            ];
            let mut bits = state;
            let mut line = Vec::new();
            for _ in 0..6 {
                line.extend_from_slice(words[(bits % 12) as usize]);
                bits /= 12;
            }
            let _ = parse(&line);
        }
    }
}
