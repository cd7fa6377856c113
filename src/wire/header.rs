//! The fixed header of every frame, and nothing else.
//!
//! ```text
//!  byte  0      1      2        3       4 … 7    8 … 11        12 … 15
//!      +------+------+---------+------+--------+-------------+-----------+----------------+
//!      | 0x52 | 0x4C | version | type | flags  | body length | checksum  | body           |
//!      +------+------+---------+------+--------+-------------+-----------+----------------+
//! ```
//!
//! Numbers are little-endian. The checksum is CRC-32C over bytes 0 to 11 and the body. The header
//! is laid out by hand so that framing depends on no library, and it is the same in every version
//! of the protocol: a node can always find the end of a frame it does not understand.

use crate::checksum::Crc32c;

/// Length of the header.
pub const HEADER_BYTES: usize = 16;

/// The first two bytes of every frame: "RL".
pub const MAGIC: [u8; 2] = [0x52, 0x4C];

/// The version of the protocol that this code speaks.
pub const VERSION: u8 = 1;

/// A decoded header whose magic, version and flags were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The frame type, known or not.
    pub frame_type: u8,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// CRC-32C of header and body.
    pub checksum: u32,
}

/// Why bytes are not a frame. After any of these the stream cannot be trusted and is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not the first bytes of a frame.
    #[error("not a replog frame: it starts with {0:02x} {1:02x}")]
    BadMagic(u8, u8),
    /// A version that this node does not speak.
    #[error("frame of protocol version {0}, this node speaks version {VERSION}")]
    UnknownVersion(u8),
    /// Flag bits that this version does not know.
    #[error("unknown flag bits {0:08x}")]
    UnknownFlags(u32),
    /// Longer than is allowed on this connection now.
    #[error("frame body of {len} bytes, at most {max} are allowed here")]
    TooLong {
        /// The announced length.
        len: u32,
        /// What is allowed.
        max: usize,
    },
    /// The bytes were changed on their way.
    #[error("frame checksum {found:08x}, computed {computed:08x}")]
    BadChecksum {
        /// The checksum in the header.
        found: u32,
        /// The checksum of what arrived.
        computed: u32,
    },
    /// A type that this version does not know.
    #[error("unknown frame type {0:#04x}")]
    UnknownType(u8),
}

impl Header {
    /// Reads a header; `None` while it is incomplete. Wrong first bytes are reported as soon as
    /// they are there.
    ///
    /// # Errors
    /// `BadMagic`, `UnknownVersion`, `UnknownFlags`. No length is judged here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(FrameError::BadMagic(bytes[0], bytes.get(1).copied().unwrap_or(0)));
        }
        if let Some(&version) = bytes.get(2)
            && version != VERSION
        {
            return Err(FrameError::UnknownVersion(version));
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if word(4) != 0 {
            return Err(FrameError::UnknownFlags(word(4)));
        }
        Ok(Some(Header { frame_type: header[3], body_len: word(8), checksum: word(12) }))
    }

    /// The header of a frame of `frame_type` whose body is `body`, given in pieces.
    pub fn seal<'a>(
        frame_type: u8,
        body_len: u32,
        body: impl IntoIterator<Item = &'a [u8]>,
    ) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = VERSION;
        bytes[3] = frame_type;
        bytes[8..12].copy_from_slice(&body_len.to_le_bytes());
        let mut crc = Crc32c::new();
        crc.update(&bytes[..12]);
        body.into_iter().for_each(|piece| crc.update(piece));
        bytes[12..].copy_from_slice(&crc.finish().to_le_bytes());
        bytes
    }

    /// Whether the checksum is that of these header bytes and this body.
    ///
    /// # Errors
    /// `BadChecksum` with both values.
    pub fn verify(&self, header: &[u8], body: &[u8]) -> Result<(), FrameError> {
        let mut crc = Crc32c::new();
        crc.update(&header[..12]);
        crc.update(body);
        let computed = crc.finish();
        if computed == self.checksum {
            Ok(())
        } else {
            Err(FrameError::BadChecksum { found: self.checksum, computed })
        }
    }
}
