//! Writing to stdout in large pieces, and payloads so that a line stays a line.

use std::io::{self, Write};

use super::{Exit, complain};

/// Output is collected up to this size before it is written.
const WRITE_BYTES: usize = 256 << 10;

/// Standard output, buffered by us: the standard library's looks for line ends and writes them out
/// one by one.
#[derive(Debug, Default)]
pub(super) struct Stdout {
    buffer: Vec<u8>,
}

impl Stdout {
    pub(super) fn new() -> Self {
        Stdout { buffer: Vec::with_capacity(WRITE_BYTES + (64 << 10)) }
    }

    /// What waits to be written; add to it.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Adds a value as one line.
    pub(super) fn push_json(&mut self, value: &impl serde::Serialize) {
        let written = serde_json::to_writer(&mut self.buffer, value);
        debug_assert!(written.is_ok(), "memory takes it, and our keys are text");
        self.buffer.push(b'\n');
    }

    /// Writes if enough is there for a write to be worth it.
    pub(super) fn flush_if_large(&mut self) -> io::Result<()> {
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes all that is there.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&self.buffer).and_then(|()| stdout.flush());
        self.buffer.clear();
        written
    }
}

/// The end of a program whose output cannot be written. A reader that has seen enough (`| head`)
/// is no failure.
pub(super) fn failure(error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Exit::Done;
    }
    complain(format_args!("standard output: {error}"));
    Exit::Refused
}

/// Appends a line `<seq> <payload>`, escaped as the text gateway does: 00–1F, 7F and the backslash
/// become `\n \r \t \\`, else `\xNN`.
pub(super) fn push_data_line(line: &mut Vec<u8>, seq: u64, payload: &[u8]) {
    let _ = write!(line, "{seq} "); // Writing to a vector cannot fail.
    let mut plain_from = 0;
    for (at, &byte) in payload.iter().enumerate() {
        if (0x20..0x7f).contains(&byte) && byte != b'\\' || byte >= 0x80 {
            continue;
        }
        line.extend_from_slice(&payload[plain_from..at]);
        plain_from = at + 1;
        let _ = match byte {
            b'\n' => line.write_all(br"\n"),
            b'\r' => line.write_all(br"\r"),
            b'\t' => line.write_all(br"\t"),
            b'\\' => line.write_all(br"\\"),
            _ => write!(line, "\\x{byte:02x}"),
        };
    }
    line.extend_from_slice(&payload[plain_from..]);
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lines_are_escaped_as_on_the_gateway() {
        let line = |payload: &[u8]| {
            let mut line = Vec::new();
            push_data_line(&mut line, 5, payload);
            line
        };
        assert_eq!(line(b""), b"5 \n");
        assert_eq!(line(b"a\\b\n\r\t\x00\x1f\x7f end"), b"5 a\\\\b\\n\\r\\t\\x00\\x1f\\x7f end\n");
        assert_eq!(line("grüße \u{1f600}".as_bytes()), "5 grüße \u{1f600}\n".as_bytes());
        assert_eq!(line(b"\xff\x80"), b"5 \xff\x80\n");
    }
}
