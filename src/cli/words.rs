//! The command line before argh sees it.
//!
//! argh knows neither `--name=value` nor `-w2`, takes a bare `help` anywhere as a call for help,
//! wants global options before the verb and every word in UTF-8. So the words that are not options
//! are taken out here, and argh gets a place holder for each.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

/// Options that may stand before or behind the verb, and whether a value follows.
const GLOBAL_OPTIONS: &[(&str, bool)] =
    &[("--server", true), ("--output", true), ("--quiet", false)];

/// Options of verbs that a value follows. One name means the same kind of thing for all verbs.
const VALUE_OPTIONS: &[&str] =
    &["--w", "--ack", "--timeout", "--id", "--match", "--from", "--limit", "--level", "--n"];

/// Options whose value is a path: of any bytes, and kept in its order among the words.
const PATH_OPTIONS: &[&str] = &["--file"];

/// Short options that a value follows, with their long names.
const SHORT_VALUE_OPTIONS: &[(&str, &str)] = &[("-w", "--w"), ("-n", "--n")];

/// A word that is no option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    text: OsString,
    /// Whether it stood behind `--`, so that even `-` means itself.
    literal: bool,
}

impl Word {
    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// It as the name of a file.
    pub(super) fn path(&self) -> std::path::PathBuf {
        self.text.clone().into()
    }

    /// Whether it asks for standard input.
    pub(super) fn is_stdin(&self) -> bool {
        !self.literal && self.text == "-"
    }
}

/// Where a word stood: what argh gets in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(usize);

/// Starts and ends a place holder: a character that nobody types, so that place holders can be
/// found again in argh's messages.
const MARK: char = '\u{1}';

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let number = text.strip_prefix(MARK).and_then(|text| text.strip_suffix(MARK));
        number.and_then(|number| number.parse().ok()).map(Place).ok_or("not a word")
    }
}

/// The command line, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// Global options with their values.
    pub(super) global: Vec<String>,
    pub(super) verb: Option<String>,
    /// What follows the verb, with place holders for words.
    rest: Vec<String>,
    words: Vec<Word>,
    /// The options that are not global, as they were typed, without their values.
    options: Vec<String>,
    /// An option that takes no value, as far as is known here, and was given one.
    pub(super) surplus_value: Option<String>,
    pub(super) help: bool,
    pub(super) version: bool,
}

impl CommandLine {
    /// Sorts the arguments of the program.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn sort(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut line = CommandLine::default();
        let mut args = args.into_iter();
        let mut options_ended = false;
        while let Some(arg) = args.next() {
            if !options_ended && arg.as_bytes().starts_with(b"-") && arg != "-" {
                if arg == "--" {
                    options_ended = true;
                } else if let Some(option) = PATH_OPTIONS.iter().find(|option| is_one(&arg, option))
                {
                    line.sort_path(option, &arg, &mut args)?;
                } else {
                    line.sort_option(&arg.to_string_lossy(), &mut args)?;
                }
            } else if line.verb.is_none() && !line.help_wanted_by(&arg, options_ended) {
                line.verb = Some(arg.to_string_lossy().into_owned());
            } else if line.verb.is_some() {
                line.push_word(Word { text: arg, literal: options_ended });
            }
        }
        Ok(line)
    }

    fn push_word(&mut self, word: Word) {
        self.rest.push(format!("{MARK}{}{MARK}", self.words.len()));
        self.words.push(word);
    }

    /// An option with a path, which becomes a word.
    fn sort_path(
        &mut self,
        option: &str,
        arg: &OsStr,
        args: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), String> {
        let attached = arg.as_bytes().get(option.len() + 1..);
        let attached = attached.map(|path| OsStr::from_bytes(path).to_owned());
        let path = attached.or_else(|| args.next()).filter(|path| !path.is_empty());
        let text = path.ok_or_else(|| format!("{option} needs the name of a file"))?;
        self.options.push(option.to_owned());
        self.rest.push(option.to_owned());
        self.push_word(Word { text, literal: false });
        Ok(())
    }

    /// `help` in the place of the verb: the word behind it is then the verb.
    fn help_wanted_by(&mut self, arg: &OsStr, literal: bool) -> bool {
        let wanted = arg == "help" && !literal;
        self.help |= wanted;
        wanted
    }

    fn sort_option(
        &mut self,
        arg: &str,
        args: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), String> {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) if arg.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg, None),
        };
        let global = GLOBAL_OPTIONS.iter().find(|(global, _)| *global == name);
        let short = SHORT_VALUE_OPTIONS.iter().find(|(short, _)| name.starts_with(short));
        let (name, value, takes_value) = match (global, short) {
            (Some((name, takes_value)), _) => (*name, value, *takes_value),
            // `-w2` and `-w=2` are what people type for `-w 2`.
            (None, Some((short, long))) if !name.starts_with("--") => {
                let attached = name[short.len()..].trim_start_matches('=');
                (*long, (!attached.is_empty()).then(|| attached.to_owned()), true)
            }
            _ => (name, value, VALUE_OPTIONS.contains(&name)),
        };
        match name {
            "--help" | "-h" => self.help = true,
            "--version" | "-V" => self.version = true,
            _ => {
                if value.is_some() && !takes_value {
                    self.surplus_value.get_or_insert(name.to_owned());
                }
                if global.is_none() {
                    self.options.push(arg.split('=').next().unwrap_or(arg).to_owned());
                }
                let list = if global.is_some() { &mut self.global } else { &mut self.rest };
                list.push(name.to_owned());
                if takes_value {
                    let next = || args.next().map(|next| next.to_string_lossy().into_owned());
                    let value = value.or_else(next);
                    list.push(value.ok_or_else(|| format!("{name} needs a value"))?);
                }
            }
        }
        Ok(())
    }

    /// What argh is to parse.
    pub(super) fn for_argh(&self) -> Vec<&str> {
        let verb = self.verb.iter();
        if self.help {
            return verb.map(String::as_str).chain(["--help"]).collect();
        }
        self.global.iter().chain(verb).chain(&self.rest).map(String::as_str).collect()
    }

    /// The word that stood there.
    pub(super) fn word(&self, place: Place) -> &Word {
        // Places come from place holders only, and those are numbered here.
        &self.words[place.0]
    }

    /// The options that are not global, as they were typed, without their values.
    pub(super) fn options(&self) -> &[String] {
        &self.options
    }

    /// The words behind the verb that are no values of options.
    pub(super) fn words(&self) -> impl Iterator<Item = &Word> {
        let free = self.rest.iter().enumerate().filter(|(at, _)| {
            !at.checked_sub(1)
                .is_some_and(|before| PATH_OPTIONS.contains(&self.rest[before].as_str()))
        });
        free.filter_map(|(_, text)| text.parse::<Place>().ok()).map(|place| self.word(place))
    }

    /// A message of argh, with the words in the places of their place holders.
    pub(super) fn restore(&self, message: &str) -> String {
        let pieces = message.split(MARK).enumerate().map(|(index, piece)| {
            let place = piece.parse().ok().filter(|_| index % 2 == 1);
            match place.and_then(|number: usize| self.words.get(number)) {
                Some(word) => word.text.to_string_lossy(),
                None => piece.into(),
            }
        });
        pieces.collect()
    }
}

/// Whether `arg` is this option, perhaps with its value.
fn is_one(arg: &OsStr, option: &str) -> bool {
    let rest = arg.as_bytes().strip_prefix(option.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(args: &[&str]) -> CommandLine {
        CommandLine::sort(args.iter().map(OsString::from)).unwrap()
    }

    fn words(line: &CommandLine) -> Vec<&[u8]> {
        line.words.iter().map(Word::bytes).collect()
    }

    #[test]
    fn options_may_be_written_with_an_equals_sign_and_messages_keep_theirs() {
        let line = sorted(&["--server=a:1", "append", "--timeout=5s", "w=2", "--", "--id=x"]);
        assert_eq!(line.global, ["--server", "a:1"]);
        assert_eq!(line.verb.as_deref(), Some("append"));
        assert_eq!(line.rest[..2], ["--timeout", "5s"]);
        assert_eq!(words(&line), [&b"w=2"[..], b"--id=x"]);
    }

    #[test]
    fn global_options_may_stand_behind_the_verb() {
        let line = sorted(&["status", "--output", "json", "--quiet"]);
        assert_eq!(line.for_argh(), ["--output", "json", "--quiet", "status"]);
    }

    #[test]
    fn help_is_an_entry_behind_the_verb_and_a_call_for_help_before_it() {
        let line = sorted(&["append", "help"]);
        assert!(!line.help);
        assert_eq!(words(&line), [b"help"]);
        assert_eq!(sorted(&["help"]).for_argh(), ["--help"]);
        assert_eq!(sorted(&["help", "append"]).for_argh(), ["append", "--help"]);
        assert_eq!(sorted(&["append", "x", "--help"]).for_argh(), ["append", "--help"]);
    }

    #[test]
    fn short_options_may_have_their_value_attached() {
        for args in [&["append", "-w", "2"][..], &["append", "-w2"], &["append", "-w=2"]] {
            assert_eq!(sorted(args).rest, ["--w", "2"]);
        }
    }

    #[test]
    fn only_a_bare_dash_before_the_end_of_options_is_standard_input() {
        let line = sorted(&["append", "-", "--", "-"]);
        assert!(line.words[0].is_stdin());
        assert!(!line.words[1].is_stdin());
    }

    #[test]
    fn words_of_any_bytes_are_kept() {
        let word = OsStr::from_bytes(b"\xff\x00x").to_owned();
        let line = CommandLine::sort(["append".into(), word]).unwrap();
        assert_eq!(words(&line), [b"\xff\x00x"]);
    }

    #[test]
    fn messages_of_argh_name_the_words() {
        let line = sorted(&["get", "5", "six"]);
        let message = format!("Unrecognized argument: {}", line.rest[1]);
        assert_eq!(line.restore(&message), "Unrecognized argument: six");
    }

    #[test]
    fn a_switch_with_a_value_is_noticed() {
        let line = sorted(&["--quiet=yes", "ping"]);
        assert_eq!(line.surplus_value.as_deref(), Some("--quiet"));
        assert_eq!(sorted(&["--output=json", "ping"]).surplus_value, None);
    }
}
