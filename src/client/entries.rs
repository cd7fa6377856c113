//! Reading: entries that are there, and entries as they come.

use std::iter::FusedIterator;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Client;
use super::connection::PIECES_MAX;
use super::error::{ConnectionLost, ReadError};
use super::requests::{EntriesPiece, PieceSender};
use crate::store::record::take_record;
use crate::store::{Record, RecordError};
use crate::types::{Level, Seq, SeqRange};
use crate::wire::codec::{self, EntriesHead, ReadLevel, ReadRequest, TailRequest};
use crate::wire::{Message, OutFrame};

/// About what a request for entries takes.
const REQUEST_BYTES: usize = 64;

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailStart {
    /// After what is there now.
    New,
    /// At this entry.
    From(Seq),
    /// So many entries before the end.
    Last(u64),
}

impl Client {
    /// Reads the entries that the node shows at `level` now, from `from` on, at most `limit`.
    ///
    /// # Errors
    /// The connection is lost. A refusal is told by [`EntryStream::next_batch`].
    pub async fn read(
        &self,
        from: Seq,
        limit: Option<u64>,
        level: Level,
    ) -> Result<EntryStream, ConnectionLost> {
        let (from, level) = (from.number(), wire_level(level));
        self.entries(|id| Message::ReadRequest(ReadRequest { id, from, limit, level }).encode())
            .await
    }

    /// Reads entries as they come, without end. While there are none, an empty batch comes each
    /// heartbeat interval of the cluster. It ends with its connection: see
    /// [`Follower`](super::Follower) for one that does not.
    ///
    /// ```
    /// use replog::client::{AppendOptions, Client, ConnectOptions, TailStart};
    /// use replog::types::{Level, Seq};
    ///
    /// # replog::testing::example(|servers| async move {
    /// # let client = Client::connect([&servers[0]], ConnectOptions::default()).await?;
    /// let mut tail = client.tail(TailStart::From(Seq::FIRST), Level::Committed).await?;
    /// let _ = client.append("hello".into(), AppendOptions::default()).await?.await?;
    /// let record = loop {
    ///     let batch = tail.next_batch().await?.ok_or("the node is stopping")?;
    ///     if let Some(record) = batch.records().next() {
    ///         break record?;
    ///     }
    /// };
    /// assert_eq!((record.seq, &record.payload[..]), (Seq::FIRST, &b"hello"[..]));
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// The connection is lost. A refusal is told by [`EntryStream::next_batch`].
    pub async fn tail(
        &self,
        start: TailStart,
        level: Level,
    ) -> Result<EntryStream, ConnectionLost> {
        let start = match start {
            TailStart::New => codec::TailStart::New,
            TailStart::From(seq) => codec::TailStart::From(seq.number()),
            TailStart::Last(count) => codec::TailStart::Last(count),
        };
        let level = wire_level(level);
        self.entries(|id| Message::TailRequest(TailRequest { id, start, level }).encode()).await
    }

    async fn entries(
        &self,
        encode: impl FnOnce(u64) -> OutFrame,
    ) -> Result<EntryStream, ConnectionLost> {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let shared = self.shared();
        let place = shared.place(&shared.streams).await?;
        let sender = PieceSender::Entries(sender);
        let register =
            |requests: &mut super::requests::Requests| requests.register_channel(sender, place);
        let id = shared.send(REQUEST_BYTES, None, register, encode).await?;
        Ok(EntryStream { client: self.clone(), id, pieces, ended: false })
    }
}

fn wire_level(level: Level) -> ReadLevel {
    match level {
        Level::Local => ReadLevel::Local,
        Level::Committed => ReadLevel::Committed,
        Level::All => ReadLevel::All,
        Level::Nodes(count) => ReadLevel::Nodes(count.get()),
    }
}

/// Entries on their way. While nobody reads them, nothing else that comes on this connection is
/// read either. Dropping it ends the read or tail.
#[derive(Debug)]
pub struct EntryStream {
    client: Client,
    id: u64,
    pieces: mpsc::Receiver<EntriesPiece>,
    ended: bool,
}

impl EntryStream {
    /// The next entries, as they came in one frame; `None` after the last. Cancel safe.
    ///
    /// # Errors
    /// The node refuses the request, or the connection is lost, or the node is silent. What came
    /// before stays valid, and reading changes nothing, so that it may go on elsewhere.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        match self.pieces.recv().await {
            Some(EntriesPiece::Entries(head, records)) => {
                self.ended = head.end;
                Ok(Some(Batch { head, records }))
            }
            Some(EntriesPiece::Refused(refusal)) => {
                self.ended = true;
                Err(ReadError::Refused(refusal))
            }
            None => Err(self.client.shared().unanswered().into()),
        }
    }
}

impl Drop for EntryStream {
    fn drop(&mut self) {
        if !self.ended {
            self.client.shared().cancel(self.id);
        }
    }
}

/// Consecutive entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    head: EntriesHead,
    records: Bytes,
}

impl Batch {
    #[cfg(test)]
    pub(super) fn new(head: EntriesHead, records: Bytes) -> Self {
        Batch { head, records }
    }

    /// The records as they came.
    pub(super) fn bytes(&self) -> Bytes {
        self.records.clone()
    }

    /// Which entries, as the node says.
    pub fn range(&self) -> SeqRange {
        SeqRange::with_len(Seq::new(self.head.first), u64::from(self.head.count))
    }

    /// Whether there is none: a sign of life of an idle tail, or the end of a read.
    pub fn is_empty(&self) -> bool {
        self.head.count == 0
    }

    /// The number after the last entry that the node shows at the level asked for.
    pub fn next(&self) -> Seq {
        Seq::new(self.head.next)
    }

    /// The node's commit position.
    pub fn commit(&self) -> Seq {
        Seq::new(self.head.commit)
    }

    /// The entries, checked one by one as they are taken.
    pub fn records(&self) -> Records {
        Records { bytes: self.records.clone(), range: self.range() }
    }
}

/// The records of a [`Batch`]. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records {
    bytes: Bytes,
    /// What must still come.
    range: SeqRange,
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() && self.range.is_empty() {
            return None;
        }
        let record = self.take();
        if record.is_err() {
            self.bytes.clear();
            self.range.first = self.range.end;
        }
        Some(record)
    }
}

impl FusedIterator for Records {}

impl Records {
    /// What was not taken yet.
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    fn take(&mut self) -> Result<Record, RecordError> {
        let expected = self.range.first;
        if self.range.is_empty() {
            return Err(RecordError::BadCount { expected: 0, found: 1 });
        }
        let record = take_record(&mut self.bytes)?;
        if record.seq != expected {
            return Err(RecordError::BadSeq { expected, found: record.seq });
        }
        self.range.first = expected.next();
        Ok(record)
    }
}
