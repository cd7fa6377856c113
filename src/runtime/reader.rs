//! The introduction on a socket: reading a HELLO, and refusing who does not say one.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::codes::RefuseCode;
use crate::limits::{FRAME_BODY_BYTES_MAX_UNINTRODUCED, INTRODUCTION_TIMEOUT};
use crate::node::introduction::{fault_of, next_message};
use crate::wire::codec::{Hello, Refuse};
use crate::wire::{FrameDecoder, Message, VERSION, reserve_for_read};

/// Why an introduction failed.
pub(super) enum IntroductionError {
    /// The peer sent something else than a HELLO, or nothing: refuse it so.
    Refuse(RefuseCode, String),
    /// The peer refused us.
    Refused(Refuse),
    /// The connection ended.
    Gone,
}

/// Reads the peer's HELLO.
pub(super) async fn read_hello(
    socket: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
) -> Result<Hello, IntroductionError> {
    let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX_UNINTRODUCED };
    let first_message = async {
        loop {
            match next_message(decoder, buffer) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err((code, reason)) => return Err(IntroductionError::Refuse(code, reason)),
            }
            reserve_for_read(buffer);
            match socket.read_buf(buffer).await {
                Ok(0) => return Err(IntroductionError::Gone),
                Ok(_) => {}
                Err(_) => return Err(IntroductionError::Gone),
            }
        }
    };
    let message = timeout(INTRODUCTION_TIMEOUT, first_message).await.unwrap_or_else(|_| {
        let reason = format!("no HELLO within {} s", INTRODUCTION_TIMEOUT.as_secs());
        Err(IntroductionError::Refuse(RefuseCode::NoIntroduction, reason))
    })?;
    match message {
        Message::Hello(hello) if hello.version_min > VERSION || hello.version_max < VERSION => {
            let reason = format!(
                "protocol versions {} to {} and version {VERSION} have none in common",
                hello.version_min, hello.version_max
            );
            Err(IntroductionError::Refuse(RefuseCode::UnknownVersion, reason))
        }
        Message::Hello(hello) => match fault_of(&hello) {
            Some(fault) => Err(IntroductionError::Refuse(RefuseCode::BadFrame, fault.to_owned())),
            None => Ok(hello),
        },
        Message::Refuse(refuse) => Err(IntroductionError::Refused(refuse)),
        _ => {
            let reason = "the first frame must be a HELLO".to_owned();
            Err(IntroductionError::Refuse(RefuseCode::NoIntroduction, reason))
        }
    }
}

/// Sends a REFUSE and closes. The peer may have sent more than we want to read: it is thrown away
/// for a moment, since closing over unread bytes would destroy our last words on their way.
pub(super) async fn refuse(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    code: RefuseCode,
    epoch: u64,
    reason: &str,
) {
    let refuse = Refuse { code: code.number(), epoch, reason: reason.to_owned() };
    let frame = Message::Refuse(refuse).encode().to_bytes();
    let last_words = async {
        write.write_all(&frame).await?;
        write.shutdown().await?;
        let mut thrown_away = [0; 4096];
        while read.read(&mut thrown_away).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether they arrive or not, the connection ends.
    let _ = timeout(std::time::Duration::from_secs(1), last_words).await;
}
