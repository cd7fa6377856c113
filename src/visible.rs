//! Text from elsewhere, made harmless for a terminal: what could steer it is escaped. In a file or a
//! pipe every byte stays as it came.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Lines of text.
    Text,
    /// A JSON value a line.
    Json,
}

impl Shape {
    /// The bytes for a terminal.
    pub fn visible(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Shape::Text => visible(bytes),
            Shape::Json => visible_json(bytes),
        }
    }
}

/// Whether a character steers a terminal: C0 without the line feed and the tab, DEL, and C1, which
/// holds the one-character forms of `ESC [` and its like.
fn steers(letter: char) -> bool {
    letter.is_control() && letter != '\n' && letter != '\t'
}

/// Text in which control characters, and bytes 80 to 9F that are no part of a character, stand as
/// `\xNN`. Line feeds and tabs stay.
pub fn visible(text: &[u8]) -> Cow<'_, [u8]> {
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
pub fn visible_text(text: &str) -> Cow<'_, str> {
    match visible(text.as_bytes()) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        // Characters were taken out whole.
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// JSON in which DEL and C1, which may stand in strings as they are, are written as `\u00NN`: it
/// says the same.
pub fn visible_json(json: &[u8]) -> Cow<'_, [u8]> {
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

/// A writer to a terminal that is spared what would steer it. Takes lines in parts, and writes them
/// whole; a last one without its end is written by [`flush`](Write::flush).
#[derive(Debug)]
pub struct Spared<W: Write> {
    inner: W,
    shape: Shape,
    line: Vec<u8>,
}

impl<W: Write> Spared<W> {
    /// Writes lines of this shape to `inner`.
    pub fn new(inner: W, shape: Shape) -> Self {
        Spared { inner, shape, line: Vec::new() }
    }

    fn write_out(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.inner.write_all(&self.shape.visible(&line))
    }
}

impl<W: Write> Write for Spared<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.line.extend_from_slice(&bytes[..end]);
        if end > 0 {
            self.write_out()?;
        }
        self.line.extend_from_slice(&bytes[end..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.inner.flush()
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
    fn a_writer_spares_the_terminal_wherever_its_input_is_cut() {
        let text = "a\u{9b}b\nü\x1b[31m\nlast \u{9b}".as_bytes();
        for at in 0..=text.len() {
            let mut written = Vec::new();
            let mut spared = Spared::new(&mut written, Shape::Text);
            spared.write_all(&text[..at]).and_then(|()| spared.write_all(&text[at..])).unwrap();
            spared.flush().unwrap();
            let expected = "a\\xc2\\x9bb\nü\\x1b[31m\nlast \\xc2\\x9b";
            assert_eq!(String::from_utf8(written).unwrap(), expected, "cut at {at}");
        }
    }
}
