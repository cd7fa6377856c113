//! A line of the gateway to a command.
//!
//! `VERB key=value … payload`: verbs are case-insensitive, one space separates, words whose key the
//! verb knows are options, the first other word starts the payload, `--` ends the options by hand.

use std::ops::Range;
use std::time::Duration;

use super::reply::Refusal;
use super::words::quoted;
use crate::codes::Code;
use crate::types::{
    AckLevel, Level, ParseError, Patience, Seq, WriteConcern, parse_decimal, parse_duration,
};

/// A write concern as it was written. A wrong one is judged only after role and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConcernWord {
    /// It can be meant.
    Good(WriteConcern),
    /// It cannot.
    Bad(String),
}

/// Options of APPEND and WAIT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// `w=`
    pub concern: Option<ConcernWord>,
    /// `ack=`
    pub ack: Option<AckLevel>,
    /// `timeout=`
    pub patience: Option<Patience>,
}

/// A fault to play.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The next APPEND frame is handled so much later.
    DelayOnce(Duration),
    /// Every APPEND frame is handled so much later.
    DelayEvery(Duration),
    /// No more delays.
    DelayOff,
    /// So many APPEND frames are stored and answered with an error.
    FailAfter(FailRule),
    /// So many APPEND frames are answered with an error and not stored.
    FailBefore(FailRule),
    /// No more failures.
    FailOff,
    /// The master is answered nothing for so long.
    Mute(Duration),
    /// The master is answered again.
    MuteOff,
}

/// Which APPEND frames fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailRule {
    /// The next so many.
    Count(u64),
    /// Each with this probability.
    Probability(f64),
}

/// What a line asks for. Payloads are ranges of the line.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Verbs and options are those of the interface.
pub enum Command {
    Ping { text: Range<usize> },
    Help { verb: Option<String> },
    Quit,
    Append { options: AppendOptions, payload: Range<usize> },
    List { from: Seq, limit: Option<u64>, level: Level },
    Get { seq: Seq },
    Tail { start: TailFrom, level: Level },
    Wait { seq: Seq, options: AppendOptions },
    Status,
    Health,
    Waiters,
    Metrics,
    Digest { seq: Option<Seq> },
    Fault(Fault),
    Store { seq: Seq, payload: Range<usize> },
}

impl Command {
    /// Whether it looks at the state of the node and is answered at once: what operators ask for even
    /// when a node has no place for anybody else.
    pub fn only_looks(&self) -> bool {
        match self {
            Command::Status
            | Command::Health
            | Command::Waiters
            | Command::Metrics
            | Command::Digest { .. } => true,
            Command::Ping { .. }
            | Command::Help { .. }
            | Command::Quit
            | Command::Append { .. }
            | Command::List { .. }
            | Command::Get { .. }
            | Command::Tail { .. }
            | Command::Wait { .. }
            | Command::Fault(_)
            | Command::Store { .. } => false,
        }
    }
}

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailFrom {
    /// After what is there.
    New,
    /// At this entry.
    Seq(Seq),
    /// So many entries before the end.
    Last(u64),
}

/// Parses a line without its line end. `None` for a blank line.
///
/// # Errors
/// The reply that says what is wrong.
pub fn parse(line: &[u8]) -> Result<Option<Command>, Refusal> {
    let verb_len = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    let mut words = Words { line, at: line.len().min(verb_len + 1) };
    if line.iter().all(|&byte| byte == b' ') {
        return Ok(None);
    }
    let command = match line[..verb_len].to_ascii_uppercase().as_slice() {
        b"APPEND" => {
            let options = append_options(&mut words, true)?;
            Command::Append { options, payload: words.rest() }
        }
        b"PING" => Command::Ping { text: words.rest() },
        b"HELP" => Command::Help { verb: words.next_word().map(str::to_ascii_uppercase) },
        b"QUIT" => Command::Quit,
        b"LIST" => list(&mut words)?,
        b"GET" => Command::Get { seq: words.required("a sequence number", parse_seq)? },
        b"TAIL" => tail(&mut words)?,
        b"WAIT" => {
            let seq = words.required("a sequence number", parse_seq)?;
            Command::Wait { seq, options: append_options(&mut words, false)? }
        }
        b"STATUS" => Command::Status,
        b"HEALTH" => Command::Health,
        b"WAITERS" => Command::Waiters,
        b"METRICS" => Command::Metrics,
        b"DIGEST" => {
            let seq = words.next_word().map(|word| value("seq", word, parse_seq)).transpose()?;
            Command::Digest { seq }
        }
        b"DELAY" => Command::Fault(delay(&mut words)?),
        b"FAIL" => Command::Fault(fail(&mut words)?),
        b"MUTE" => Command::Fault(match words.next_word() {
            Some("off") => Fault::MuteOff,
            Some(word) => Fault::Mute(value("MUTE", word, parse_duration)?),
            None => return Err(missing("MUTE", "a duration, or off")),
        }),
        b"STORE" => {
            let seq = words.required("a sequence number", parse_seq)?;
            return Ok(Some(Command::Store { seq, payload: words.rest() }));
        }
        b"OUTCOME" => return Err(unavailable(&line[..verb_len])),
        verb => return Err(unknown_verb(verb)),
    };
    match (&command, words.next_word()) {
        (Command::Append { .. } | Command::Ping { .. }, _) | (_, None) => Ok(Some(command)),
        (_, Some(word)) => Err(not_an_option(&line[..verb_len], word)),
    }
}

/// The words behind a verb. Only payload verbs care how many spaces stand between them.
struct Words<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    fn rest(&self) -> Range<usize> {
        self.at..self.line.len()
    }

    /// The next word as it stands: empty if a space comes first.
    fn peek(&self) -> Option<&'a [u8]> {
        let rest = &self.line[self.at..];
        let len = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        (!rest.is_empty()).then(|| &rest[..len])
    }

    fn skip(&mut self, word: &[u8]) {
        self.at = self.line.len().min(self.at + word.len() + 1);
    }

    /// The next word, whatever spaces stand before it. Words that are not UTF-8 are no word of ours.
    fn next_word(&mut self) -> Option<&'a str> {
        while let Some(word) = self.peek() {
            self.skip(word);
            if !word.is_empty() {
                return Some(std::str::from_utf8(word).unwrap_or("\u{fffd}"));
            }
        }
        None
    }

    fn required<T>(
        &mut self,
        what: &'static str,
        parse: fn(&str) -> Result<T, ParseError>,
    ) -> Result<T, Refusal> {
        let word = self.next_word().ok_or_else(|| missing("the command", what))?;
        value("value", word, parse)
    }
}

fn append_options(words: &mut Words<'_>, payload_follows: bool) -> Result<AppendOptions, Refusal> {
    let mut options = AppendOptions::default();
    let mut seen = Seen::default();
    while let Some(word) = words.peek() {
        if word == b"--" && payload_follows {
            words.skip(word);
            break;
        }
        let known = std::str::from_utf8(word).ok().and_then(|word| word.split_once('='));
        match known {
            Some((key @ "w", text)) => {
                seen.first(key)?;
                options.concern = Some(match text.parse() {
                    Ok(concern) => ConcernWord::Good(concern),
                    Err(_) => ConcernWord::Bad(text.to_owned()),
                });
            }
            Some((key @ "ack", text)) => {
                seen.first(key)?;
                options.ack = Some(value(key, text, str::parse)?);
            }
            Some((key @ "timeout", text)) => {
                seen.first(key)?;
                options.patience = Some(value(key, text, str::parse)?);
            }
            Some((key @ ("id" | "match" | "mode"), _)) if payload_follows => {
                return Err(Refusal::new(
                    Code::BadOption,
                    format!("option={key} - {key}= is not available yet"),
                ));
            }
            _ if payload_follows => break,
            _ if word.is_empty() => {}
            _ => return Err(not_an_option(b"WAIT", &String::from_utf8_lossy(word))),
        }
        words.skip(word);
    }
    Ok(options)
}

fn list(words: &mut Words<'_>) -> Result<Command, Refusal> {
    let (mut from, mut limit, mut level) = (Seq::FIRST, None, Level::Local);
    let mut seen = Seen::default();
    while let Some(word) = words.next_word() {
        match word.split_once('=') {
            Some((key @ "from", text)) => {
                seen.first(key)?;
                from = value(key, text, parse_from)?;
            }
            Some((key @ "limit", text)) => {
                seen.first(key)?;
                limit = Some(value(key, text, parse_count)?);
            }
            Some((key @ "level", text)) => {
                seen.first(key)?;
                level = value(key, text, str::parse)?;
            }
            _ => return Err(not_an_option(b"LIST", word)),
        }
    }
    Ok(Command::List { from, limit, level })
}

fn tail(words: &mut Words<'_>) -> Result<Command, Refusal> {
    let (mut start, mut level) = (TailFrom::New, Level::Committed);
    let mut seen = Seen::default();
    while let Some(word) = words.next_word() {
        match word.split_once('=') {
            Some((key @ "from", text)) => {
                seen.first("from or last")?;
                start = TailFrom::Seq(value(key, text, parse_from)?);
            }
            Some((key @ "last", text)) => {
                seen.first("from or last")?;
                start = TailFrom::Last(value(key, text, parse_count)?);
            }
            Some((key @ "level", text)) => {
                seen.first(key)?;
                level = value(key, text, str::parse)?;
            }
            _ => return Err(not_an_option(b"TAIL", word)),
        }
    }
    Ok(Command::Tail { start, level })
}

fn delay(words: &mut Words<'_>) -> Result<Fault, Refusal> {
    match words.next_word() {
        Some("off") => Ok(Fault::DelayOff),
        Some(word) => match word.strip_prefix("every=") {
            Some(text) => value("every", text, parse_duration).map(Fault::DelayEvery),
            None => value("DELAY", word, parse_duration).map(Fault::DelayOnce),
        },
        None => Err(missing("DELAY", "a duration, every=<duration>, or off")),
    }
}

fn fail(words: &mut Words<'_>) -> Result<Fault, Refusal> {
    let kind = match words.next_word() {
        Some("off") => return Ok(Fault::FailOff),
        Some("after") => Fault::FailAfter,
        Some("before") => Fault::FailBefore,
        _ => return Err(missing("FAIL", "after, before, or off")),
    };
    let rule = match words.next_word().map(|word| word.split_once('=').unwrap_or((word, ""))) {
        None => FailRule::Count(1),
        Some(("count", text)) => FailRule::Count(value("count", text, parse_count)?),
        Some(("p", text)) => FailRule::Probability(value("p", text, parse_probability)?),
        Some((word, _)) => return Err(not_an_option(b"FAIL", word)),
    };
    Ok(kind(rule))
}

/// Options seen so far: giving one twice is an error, since nobody can know which was meant.
#[derive(Default)]
struct Seen<'a>(Vec<&'a str>);

impl<'a> Seen<'a> {
    fn first(&mut self, key: &'a str) -> Result<(), Refusal> {
        if self.0.contains(&key) {
            let detail = format!("option={} - {key} is given twice", quoted(key));
            return Err(Refusal::new(Code::BadOption, detail));
        }
        self.0.push(key);
        Ok(())
    }
}

fn parse_seq(text: &str) -> Result<Seq, ParseError> {
    parse_decimal(text).map(Seq::new).ok_or(ParseError::new("a sequence number"))
}

fn parse_from(text: &str) -> Result<Seq, ParseError> {
    parse_seq(text)
        .ok()
        .filter(|&seq| seq > Seq::ZERO)
        .ok_or(ParseError::new("a sequence number from 1"))
}

fn parse_count(text: &str) -> Result<u64, ParseError> {
    parse_decimal(text).ok_or(ParseError::new("a number"))
}

fn parse_probability(text: &str) -> Result<f64, ParseError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse()
        .ok()
        .filter(|p| plain && (0.0..=1.0).contains(p))
        .ok_or(ParseError::new("a probability from 0 to 1"))
}

fn value<T>(
    key: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, ParseError>,
) -> Result<T, Refusal> {
    parse(text).map_err(|error| {
        let detail = format!("{}={} - {error}", key.to_lowercase(), quoted(&cut(text)));
        Refusal::new(Code::BadValue, detail)
    })
}

fn missing(command: &str, what: &str) -> Refusal {
    Refusal::new(Code::BadValue, format!("- {command} needs {what}"))
}

fn unavailable(verb: &[u8]) -> Refusal {
    let verb = String::from_utf8_lossy(verb).to_uppercase();
    Refusal::new(Code::UnknownVerb, format!("verb={verb} - {verb} is not available yet"))
}

fn unknown_verb(verb: &[u8]) -> Refusal {
    let verb = quoted(&cut(&String::from_utf8_lossy(verb)));
    Refusal::new(Code::UnknownVerb, format!("verb={verb} - HELP lists the verbs"))
}

fn not_an_option(verb: &[u8], word: &str) -> Refusal {
    let verb = String::from_utf8_lossy(verb).to_uppercase();
    let detail = format!("option={} - HELP {verb} lists the options", quoted(&cut(word)));
    Refusal::new(Code::BadOption, detail)
}

/// What a stranger typed, short and harmless enough to be repeated to him.
fn cut(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(line: &str) -> (AppendOptions, &str) {
        match parse(line.as_bytes()) {
            Ok(Some(Command::Append { options, payload })) => (options, &line[payload]),
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
            assert_eq!(append(line).1, payload, "{line}");
        }
    }

    #[test]
    fn options_are_read_once_and_nonsense_is_named() {
        let (options, _) = append("APPEND w=majority ack=received timeout=500ms x");
        assert_eq!(options.concern, Some(ConcernWord::Good(WriteConcern::Majority)));
        assert_eq!(options.ack, Some(AckLevel::Received));
        assert_eq!(options.patience, Some(Patience::For(Duration::from_millis(500))));
        assert_eq!(append("APPEND w=0 x").0.concern, Some(ConcernWord::Bad("0".into())));
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
