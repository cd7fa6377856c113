//! What a terminal can show: lines are cut or wrapped to its width, and colours are for those who
//! want them.

use std::borrow::Cow;
use std::io::IsTerminal;

use crate::visible::visible_text;

/// Stands where something was cut.
const CUT: char = '…';

/// Continued lines begin so much further in.
const INDENT: usize = 2;

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

/// Columns that a character takes: two for those of East Asian scripts and pictures, none for marks
/// that combine. Terminals differ in the rare ones; a line cut too early does no harm.
fn columns_of(letter: char) -> usize {
    match u32::from(letter) {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f | 0x20d0..=0x20ff => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// A line in pieces: characters with their columns, and colours, which take none.
fn pieces(line: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let letter = rest.chars().next()?;
        let (len, columns) = match letter {
            '\x1b' => {
                let end = rest.find(|letter: char| letter.is_ascii_alphabetic());
                (end.map_or(rest.len(), |end| end + 1), 0)
            }
            letter => (letter.len_utf8(), columns_of(letter)),
        };
        let (piece, after) = rest.split_at(len);
        rest = after;
        Some((piece, columns))
    })
}

/// Columns that a line takes; colours take none.
pub(super) fn width(line: &str) -> usize {
    pieces(line).map(|(_, columns)| columns).sum()
}

/// The line if it fits, or its beginning with a mark behind it. A colour ends with the line.
pub(super) fn fit(line: &str, columns: usize) -> Cow<'_, str> {
    if width(line) <= columns {
        return Cow::Borrowed(line);
    }
    let (mut out, mut room, mut coloured) = (String::new(), columns.saturating_sub(1), false);
    for (piece, columns) in pieces(line) {
        coloured |= piece.starts_with('\x1b');
        if columns > room {
            break;
        }
        room -= columns;
        out.push_str(piece);
    }
    if columns > 0 {
        out.push(CUT);
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    Cow::Owned(out)
}

/// The line as lines that fit, broken between words where that is possible; what follows the first
/// is indented. A colour goes on in the next line.
pub(super) fn wrap(line: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    if width(line) <= columns {
        return vec![line.to_owned()];
    }
    let indent = if columns > 4 * INDENT { INDENT } else { 0 };
    let mut wrapped =
        Wrapped { lines: Vec::new(), line: String::new(), used: 0, columns, indent, colour: "" };
    for word in line.split_inclusive(' ') {
        let visible = width(word.trim_end_matches(' '));
        if wrapped.used > indent && wrapped.used + visible > columns {
            wrapped.break_line();
        }
        for (piece, columns) in pieces(word) {
            if columns > 0 && wrapped.used + columns > wrapped.columns {
                // A space at the edge is the break.
                if piece == " " {
                    continue;
                }
                wrapped.break_line();
            }
            wrapped.push(piece, columns);
        }
    }
    wrapped.finish()
}

struct Wrapped<'a> {
    lines: Vec<String>,
    line: String,
    used: usize,
    columns: usize,
    indent: usize,
    /// The colour that is on.
    colour: &'a str,
}

impl<'a> Wrapped<'a> {
    fn push(&mut self, piece: &'a str, columns: usize) {
        if piece.starts_with('\x1b') {
            self.colour = if piece == "\x1b[0m" { "" } else { piece };
        }
        self.line.push_str(piece);
        self.used += columns;
    }

    fn break_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        line.truncate(line.trim_end_matches(' ').len());
        if !self.colour.is_empty() {
            line.push_str("\x1b[0m");
        }
        self.lines.push(line);
        self.line.push_str(&" ".repeat(self.indent));
        self.line.push_str(self.colour);
        self.used = self.indent;
    }

    fn finish(mut self) -> Vec<String> {
        if self.used > self.indent || self.lines.is_empty() {
            self.lines.push(self.line);
        }
        self.lines
    }
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
        assert_eq!(fit("\x1b[31mred\x1b[0m and more", 3), "\x1b[31mre…\x1b[0m");
        assert_eq!(fit("\x1b[31mred\x1b[0m", 3), "\x1b[31mred\x1b[0m");
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
            ["\x1b[31mred and\x1b[0m", "  \x1b[31mso on\x1b[0m"]
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
