//! What a terminal can show: lines are cut or wrapped to its width, and colours are for those who
//! want them.

use std::borrow::Cow;
use std::io::IsTerminal;

use textwrap::core::Word;
use textwrap::{Options, WordSplitter};

use crate::visible::visible_text;

/// Stands where something was cut.
const CUT: &str = "…";

/// Continued lines begin so much further in.
const INDENT: &str = "  ";

/// What whoever reads stdout can see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Medium {
    /// A terminal: control characters would steer it.
    pub(super) terminal: bool,
    /// Its width, if it tells.
    pub(super) columns: Option<usize>,
    /// It has colours, and they are wanted.
    pub(super) colour: bool,
}

impl Medium {
    /// Of our stdout, now: a window may change its size.
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Medium {
            terminal,
            columns: size_of(stdout).map(|(columns, _)| columns),
            colour: terminal && wanted && !is_dumb(),
        }
    }

    /// The text, with what would steer a terminal escaped if it is one.
    pub(super) fn visible<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.terminal { visible_text(text) } else { Cow::Borrowed(text) }
    }
}

/// Whether the terminal can do no more than print: it does not know the sequences that move the
/// cursor.
pub(super) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Columns and rows of a terminal, if it is one and tells.
pub(super) fn size_of(stream: impl std::os::fd::AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    let (columns, rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (columns > 0 && rows > 0).then_some((columns, rows))
}

/// Columns that a line takes; colours take none.
pub(super) fn width(line: &str) -> usize {
    textwrap::core::display_width(line)
}

/// The line if it fits, or its beginning with a mark behind it.
pub(super) fn fit(line: &str, columns: usize) -> Cow<'_, str> {
    if width(line) <= columns {
        return Cow::Borrowed(line);
    }
    let room = columns.saturating_sub(1);
    let start = Word::from(line).break_apart(room).next();
    // A piece has a character even where there is no room for it.
    let start = start.filter(|start| width(start) <= room);
    let mark = if columns > 0 { CUT } else { "" };
    Cow::Owned(format!("{}{mark}", start.as_deref().unwrap_or_default()))
}

/// The line as lines that fit, broken between words where that is possible; what follows the first
/// is indented.
pub(super) fn wrap(line: &str, columns: usize) -> Vec<Cow<'_, str>> {
    let columns = columns.max(1);
    let indent = if columns > 4 * INDENT.len() { INDENT } else { "" };
    let options =
        Options::new(columns).subsequent_indent(indent).word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(line, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_with_a_mark() {
        assert_eq!(fit("12345", 5), "12345");
        assert_eq!(fit("123456", 5), "1234…");
        assert_eq!(fit("üüüüüü", 5), "üüüü…", "characters are counted, not bytes");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(width("\x1b[31mred\x1b[0m"), 3);
        assert_eq!((fit("ab", 1), fit("ab", 0)), ("…".into(), "".into()));
    }

    #[test]
    fn long_lines_are_wrapped_between_words_and_lose_nothing() {
        assert_eq!(wrap("a=1 b=2", 10), ["a=1 b=2"]);
        assert_eq!(wrap("mode=normal next=3 commit=2", 20), ["mode=normal next=3", "  commit=2"]);
        assert_eq!(wrap("0123456789", 4), ["0123", "4567", "89"]);
        assert_eq!(wrap("to 0123456789abc", 10), ["to", "  01234567", "  89abc"]);
        assert_eq!(
            wrap("\x1b[31mred and so on\x1b[0m", 9),
            ["\x1b[31mred and", "  so on\x1b[0m"],
            "colours take no room"
        );
        for columns in 1..40 {
            let line = "node id=s1 addr=[2001:db8::1]:9001 error=\"no route to host\"";
            let lines = wrap(line, columns);
            assert!(lines.iter().all(|line| width(line) <= columns), "{columns}: {lines:?}");
            let letters = |text: &str| text.replace(' ', "");
            assert_eq!(letters(&lines.concat()), letters(line), "{columns}");
        }
    }
}
