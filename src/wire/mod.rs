//! Bytes to messages and back: what `protocol.md` specifies, shared by server, client and tests.
//!
//! `header` is the fixed frame header, `frame` finds frames in a stream, `codec` knows what is in
//! their bodies. Knows no socket and no rule of replication.

pub mod codec;
pub mod frame;
pub mod header;

pub use codec::{BodyError, Message};
pub use frame::{Frame, FrameDecoder, OutFrame, reserve_for_read};
pub use header::{FrameError, HEADER_BYTES, VERSION};
