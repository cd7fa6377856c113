//! Commands: a line of the text gateway, answered with exactly what the gateway would answer.

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::Client;
use super::connection::PIECES_MAX;
use super::error::{CommandError, ConnectionLost};
use super::requests::{PieceSender, ReplyPiece};
use crate::wire::Message;
use crate::wire::codec::CommandHead;

/// Longest reply that [`Client::command`] keeps in memory: an escaped payload of the largest size
/// is 64 MiB long.
pub const COMMAND_REPLY_BYTES_MAX: usize = 64 << 20;

/// What the head of a COMMAND may take.
const COMMAND_HEAD_BYTES_MAX: usize = 16;

/// A reply that is still coming.
#[derive(Debug)]
pub struct CommandReply {
    client: Client,
    pieces: mpsc::Receiver<ReplyPiece>,
    ended: bool,
}

impl Client {
    /// Has a line of the text gateway carried out and returns the whole reply, line ends included.
    /// The frames tell where a reply ends, not its text: it may be of any form.
    ///
    /// ```
    /// use replog::client::{Client, ConnectOptions};
    ///
    /// # replog::testing::example(|servers| async move {
    /// # let client = Client::connect([&servers[0]], ConnectOptions::default()).await?;
    /// let status = client.command("STATUS").await?;
    /// let status = std::str::from_utf8(&status)?;
    /// for line in status.lines().filter(|line| line.starts_with("secondary ")) {
    ///     println!("{line}");
    /// }
    /// assert!(status.starts_with("node id=master role=master ") && status.ends_with("END\n"));
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// The connection is lost or the node is silent (then `sent` tells whether the command may have
    /// been carried out), the line is not one the node takes, or the reply is longer than
    /// [`COMMAND_REPLY_BYTES_MAX`].
    pub async fn command(&self, line: impl AsRef<[u8]>) -> Result<Bytes, CommandError> {
        let mut reply = self.command_in_pieces(line).await?;
        let mut whole = BytesMut::new();
        while let Some(piece) = reply.next_piece().await? {
            if whole.is_empty() && reply.ended {
                return Ok(piece);
            }
            if whole.len() + piece.len() > COMMAND_REPLY_BYTES_MAX {
                return Err(CommandError::ReplyTooLong { max: COMMAND_REPLY_BYTES_MAX });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Has a line of the text gateway carried out; the reply is read piece by piece. While nobody
    /// reads it, nothing else that comes on this connection is read either.
    ///
    /// # Errors
    /// The connection is lost, or the line is not one the node takes. Nothing was sent.
    pub async fn command_in_pieces(
        &self,
        line: impl AsRef<[u8]>,
    ) -> Result<CommandReply, CommandError> {
        let line = line.as_ref();
        let max = self.frame_bytes_max() - COMMAND_HEAD_BYTES_MAX;
        if line.len() > max {
            return Err(CommandError::LineTooLong { bytes: line.len(), max });
        }
        if line.contains(&b'\n') {
            return Err(CommandError::NotOneLine);
        }
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let shared = self.shared();
        let place = shared.place(&shared.commands).await?;
        let encode = |id| {
            Message::Command(CommandHead { id, end: true }, Bytes::copy_from_slice(line)).encode()
        };
        let sender = PieceSender::Reply(sender);
        shared
            .send(line.len(), None, |requests| requests.register_channel(sender, place), encode)
            .await?;
        Ok(CommandReply { client: self.clone(), pieces, ended: false })
    }
}

impl CommandReply {
    /// The next piece; `None` after the last. Pieces end anywhere, not only at line ends. Cancel
    /// safe.
    ///
    /// # Errors
    /// The connection is lost; the command may have been carried out.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, ConnectionLost> {
        if self.ended {
            return Ok(None);
        }
        match self.pieces.recv().await {
            Some(piece) => {
                self.ended = piece.end;
                Ok(Some(piece.bytes))
            }
            None => Err(self.client.shared().unanswered()),
        }
    }
}
