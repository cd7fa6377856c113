//! The words and options of a line.

use std::ops::Range;

use super::command::{BadConcern, Command, FailRule, Fault, TailFrom};
use super::reply::Refusal;
use super::words::quoted;
use crate::codes::Code;
use crate::types::{Level, ParseError, Seq, WaitOptions, parse_decimal, parse_duration};

/// The words behind a verb. Only payload verbs care how many spaces stand between them.
pub(super) struct Words<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    /// Those behind a verb of so many bytes.
    pub(super) fn behind(line: &'a [u8], verb_len: usize) -> Self {
        Words { line, at: line.len().min(verb_len + 1) }
    }

    pub(super) fn rest(&self) -> Range<usize> {
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
    pub(super) fn next_word(&mut self) -> Option<&'a str> {
        while let Some(word) = self.peek() {
            self.skip(word);
            if !word.is_empty() {
                return Some(std::str::from_utf8(word).unwrap_or("\u{fffd}"));
            }
        }
        None
    }

    pub(super) fn required<T>(
        &mut self,
        what: &'static str,
        parse: fn(&str) -> Result<T, ParseError>,
    ) -> Result<T, Refusal> {
        let word = self.next_word().ok_or_else(|| missing("the command", what))?;
        value("value", word, parse)
    }
}

pub(super) fn append_options(
    words: &mut Words<'_>,
    payload_follows: bool,
) -> Result<(WaitOptions, Option<BadConcern>), Refusal> {
    let (mut options, mut bad_concern) = (WaitOptions::default(), None);
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
                match text.parse() {
                    Ok(concern) => options.concern = Some(concern),
                    Err(_) => bad_concern = Some(BadConcern(text.to_owned())),
                }
            }
            Some((key @ "ack", text)) => {
                seen.first(key)?;
                options.ack = Some(value(key, text, str::parse)?);
            }
            Some((key @ "timeout", text)) => {
                seen.first(key)?;
                options.timeout = Some(value(key, text, str::parse)?);
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
    Ok((options, bad_concern))
}

pub(super) fn list(words: &mut Words<'_>) -> Result<Command, Refusal> {
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

pub(super) fn tail(words: &mut Words<'_>) -> Result<Command, Refusal> {
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

pub(super) fn delay(words: &mut Words<'_>) -> Result<Fault, Refusal> {
    match words.next_word() {
        Some("off") => Ok(Fault::DelayOff),
        Some(word) => match word.strip_prefix("every=") {
            Some(text) => value("every", text, parse_duration).map(Fault::DelayEvery),
            None => value("DELAY", word, parse_duration).map(Fault::DelayOnce),
        },
        None => Err(missing("DELAY", "a duration, every=<duration>, or off")),
    }
}

pub(super) fn fail(words: &mut Words<'_>) -> Result<Fault, Refusal> {
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

pub(super) fn mute(words: &mut Words<'_>) -> Result<Fault, Refusal> {
    match words.next_word() {
        Some("off") => Ok(Fault::MuteOff),
        Some(word) => Ok(Fault::Mute(value("MUTE", word, parse_duration)?)),
        None => Err(missing("MUTE", "a duration, or off")),
    }
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

pub(super) fn parse_seq(text: &str) -> Result<Seq, ParseError> {
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

pub(super) fn value<T>(
    key: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, ParseError>,
) -> Result<T, Refusal> {
    parse(text).map_err(|error| {
        let detail = format!("{}={} - {error}", key.to_lowercase(), quoted(&cut(text)));
        Refusal::new(Code::BadValue, detail)
    })
}

pub(super) fn missing(command: &str, what: &str) -> Refusal {
    Refusal::new(Code::BadValue, format!("- {command} needs {what}"))
}

pub(super) fn unavailable(verb: &[u8]) -> Refusal {
    let verb = String::from_utf8_lossy(verb).to_uppercase();
    Refusal::new(Code::UnknownVerb, format!("verb={verb} - {verb} is not available yet"))
}

pub(super) fn unknown_verb(verb: &[u8]) -> Refusal {
    let verb = quoted(&cut(&String::from_utf8_lossy(verb)));
    Refusal::new(Code::UnknownVerb, format!("verb={verb} - HELP lists the verbs"))
}

pub(super) fn not_an_option(verb: &[u8], word: &str) -> Refusal {
    let verb = String::from_utf8_lossy(verb).to_uppercase();
    let detail = format!("option={} - HELP {verb} lists the options", quoted(&cut(word)));
    Refusal::new(Code::BadOption, detail)
}

/// What a stranger typed, short and harmless enough to be repeated to him.
fn cut(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}
