//! Things to append: noise, lines that look like real ones, and how the gateway shows bytes.

use std::fmt::Write as _;

/// Reproducible random bytes (xorshift64*): a failing run can be repeated.
pub struct Noise(u64);

impl Noise {
    /// A stream of its own for each `seed`.
    pub fn seeded(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a usize fits into 64 bits");
        usize::try_from(self.number() % bound).expect("below a usize")
    }

    /// `count` bytes of any value.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number().to_be_bytes()[0]).collect()
    }

    /// `count` bytes of any value but the line feed, which ends a line, the last one also no
    /// carriage return, which would belong to the line's end.
    pub fn payload(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = self.bytes(count);
        for byte in &mut bytes {
            if *byte == b'\n' {
                *byte = b' ';
            }
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
            bytes.push(b'.');
        }
        bytes
    }
}

/// How the gateway prints `payload` (interface 2): control bytes and the backslash escaped,
/// everything else as it is.
pub fn escaped(payload: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(payload.len());
    for &byte in payload {
        match byte {
            b'\n' => shown.extend_from_slice(b"\\n"),
            b'\r' => shown.extend_from_slice(b"\\r"),
            b'\t' => shown.extend_from_slice(b"\\t"),
            b'\\' => shown.extend_from_slice(b"\\\\"),
            0x00..=0x1f | 0x7f => shown.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            _ => shown.push(byte),
        }
    }
    shown
}

/// `count` lines as a long version-control log has them: empty ones, tabs, backslashes, carriage
/// returns, trailing spaces, UTF-8 and bytes that are no UTF-8.
pub fn real_looking_lines(count: usize) -> Vec<u8> {
    let mut noise = Noise::seeded(20);
    let mut text = Vec::new();
    for number in 0..count {
        let word = noise.number();
        match noise.below(12) {
            0 => text.extend_from_slice(format!("commit {word:016x}{:016x}", !word).as_bytes()),
            1 => text.extend_from_slice("Author: Zoë Ångström <zoe@example.org>".as_bytes()),
            2 => text.extend_from_slice(format!("Date:   Tue Mar 4 {number}").as_bytes()),
            3 | 4 => {}
            5 => text.extend_from_slice(format!("@@ -{number},7 +{word:x},9 @@").as_bytes()),
            6 => text.extend_from_slice(b"-\tprintf(\"%s\\n\", name);   "),
            7 => text.extend_from_slice(format!("+    a dos line {number}\r").as_bytes()),
            8 => text.extend_from_slice(b"Binary file caf\xe9 differs\x00\x01\xff"),
            9 => text.extend_from_slice(long_line(word).as_bytes()),
            _ => text.extend_from_slice(format!("     w=1 -- context {number} {word}").as_bytes()),
        }
        text.push(b'\n');
    }
    text
}

fn long_line(seed: u64) -> String {
    let mut line = String::from("+");
    for column in 0..seed % 40 {
        write!(line, " field{column}={:x}", seed.rotate_left(7)).expect("a String takes it");
    }
    line
}
