//! What a terminal can show and what must not reach it: text from nodes and payloads is escaped
//! where it could steer the terminal, and lines are cut or wrapped to its width.
//!
//! Elsewhere, in a file or a pipe, every byte stays as it came.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal;

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

/// Whether a character steers a terminal: C0 without the line feed and the tab, DEL, and C1, which
/// holds the one-character forms of `ESC [` and its like.
fn steers(letter: char) -> bool {
    letter.is_control() && letter != '\n' && letter != '\t'
}

/// Text in which control characters, and bytes 80 to 9F that are no part of a character, stand as
/// `\xNN`. Line feeds and tabs stay.
pub(super) fn visible(text: &[u8]) -> Cow<'_, [u8]> {
    let eight_bit = |byte: &u8| (0x80..=0x9f).contains(byte);
    let harmless = |text: &[u8]| {
        text.utf8_chunks()
            .all(|chunk| !chunk.valid().contains(steers) && !chunk.invalid().iter().any(eight_bit))
    };
    if harmless(text) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len() + 64);
    for chunk in text.utf8_chunks() {
        let mut encoded = [0; 4];
        for letter in chunk.valid().chars() {
            let bytes = letter.encode_utf8(&mut encoded).as_bytes();
            if steers(letter) {
                bytes.iter().for_each(|&byte| push_hex(&mut out, byte));
            } else {
                out.extend_from_slice(bytes);
            }
        }
        for byte in chunk.invalid() {
            if eight_bit(byte) { push_hex(&mut out, *byte) } else { out.push(*byte) }
        }
    }
    Cow::Owned(out)
}

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
    out.extend_from_slice(&[b'\\', b'x', high, low]);
}

/// The same for text that is UTF-8.
pub(super) fn visible_text(text: &str) -> Cow<'_, str> {
    match visible(text.as_bytes()) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        // Characters were taken out whole.
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// JSON in which DEL and C1, which may stand in strings as they are, are written as `\u00NN`: it
/// says the same.
pub(super) fn visible_json(json: &[u8]) -> Cow<'_, [u8]> {
    let text = String::from_utf8_lossy(json);
    if !text.contains(steers) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for letter in text.chars() {
        if steers(letter) {
            // Memory takes it.
            let _ = write!(out, "\\u{:04x}", u32::from(letter));
        } else {
            out.push(letter);
        }
    }
    Cow::Owned(out.into_bytes())
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
    fn what_would_steer_a_terminal_is_escaped_and_nothing_else_is() {
        for (text, expected) in [
            (&b"plain \xc3\xbc\t\n"[..], &b"plain \xc3\xbc\t\n"[..]),
            (b"\x1b[31m", b"\\x1b[31m"),
            (b"a\rb\x7f\0", b"a\\x0db\\x7f\\x00"),
            // U+009B is CSI, U+0085 NEL, U+00A0 a space.
            (b"\xc2\x9b31m \xc2\x85 \xc2\xa0", b"\\xc2\\x9b31m \\xc2\\x85 \xc2\xa0"),
            // The same as single bytes, for terminals of eight bits; inside of characters they stay.
            (b"\x9b31m \xff \xe2\x82\xac", b"\\x9b31m \xff \xe2\x82\xac"),
            (b"\xe2\x9b", b"\xe2\\x9b"),
            (b"\xc2", b"\xc2"),
            ("\u{9b}\\x9b".as_bytes(), b"\\xc2\\x9b\\x9b"),
        ] {
            assert_eq!(visible(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
        assert_eq!(visible_text("\u{9b}x"), "\\xc2\\x9bx");
    }

    #[test]
    fn json_says_the_same_when_it_is_escaped() {
        let json = "{\"payload\":\"\u{9b}31m\u{7f} ü\"}\n";
        let escaped = visible_json(json.as_bytes());
        assert_eq!(escaped, "{\"payload\":\"\\u009b31m\\u007f ü\"}\n".as_bytes());
        let (one, other) = (json.as_bytes(), &escaped[..]);
        let value = |json| serde_json::from_slice::<serde_json::Value>(json).unwrap();
        assert_eq!(value(one), value(other));
    }

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
