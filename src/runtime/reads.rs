//! Reading the log for others without waiting for the disk: what is in memory is read at once, what is
//! not in another thread.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::inbox::{Input, PeerEvent};
use crate::engine::SessionId;
use crate::limits::COLD_READS_MAX;
use crate::store::{LogReader, Record, Slice};
use crate::types::{Epoch, NodeIndex, PrefixId, Seq, SeqRange};

/// The log as clients' connections read it. A few reads from disk are under way at once; who comes
/// later waits for its turn.
pub(super) struct ClientReads {
    log: LogReader,
    permits: Arc<Semaphore>,
}

impl ClientReads {
    pub(super) fn new(log: LogReader) -> Self {
        ClientReads { log, permits: Arc::new(Semaphore::new(COLD_READS_MAX)) }
    }

    /// Reads entries: from memory at once; from disk in another thread, so that a slow one keeps
    /// nobody waiting but who reads.
    pub(super) async fn read(&self, range: SeqRange, bytes_max: usize) -> Slice {
        if self.log.is_cold(range.first) {
            return self.cold(move |log| log.read(range, bytes_max)).await.unwrap_or_default();
        }
        self.log.read(range, bytes_max)
    }

    /// Reads one entry, likewise.
    pub(super) async fn record(&self, seq: Seq) -> Option<Record> {
        if self.log.is_cold(seq) {
            return self.cold(move |log| log.record(seq)).await.flatten();
        }
        self.log.record(seq)
    }

    /// Epoch and digest at an entry, likewise.
    pub(super) async fn prefix_id(&self, seq: Seq) -> Option<PrefixId> {
        if self.log.is_cold(seq) {
            return self.cold(move |log| log.prefix_id(seq)).await.flatten();
        }
        self.log.prefix_id(seq)
    }

    /// `None` if the process is ending.
    async fn cold<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LogReader) -> T + Send + 'static,
    ) -> Option<T> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let log = self.log.clone();
        let work = move || {
            let _permit = permit;
            work(&log)
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

/// What is to be sent to a peer: of these entries at most so many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) range: SeqRange,
    pub(super) bytes_max: usize,
    /// They were sent before.
    pub(super) again: bool,
    /// The epoch in which they were asked for.
    pub(super) epoch: Epoch,
}

/// What is read from disk for one peer: one piece at a time, however often connections change
/// meanwhile, so that a disk that hangs collects no threads.
#[derive(Debug, Default)]
pub(super) struct PeerReads {
    under_way: bool,
    next: Option<(SessionId, Asked)>,
}

impl PeerReads {
    /// Reads in another thread, now or when the read that is under way is done; then the driver
    /// hears of it.
    pub(super) fn start(
        &mut self,
        (log, driver): (&LogReader, &mpsc::Sender<Input>),
        peer: NodeIndex,
        session: SessionId,
        asked: Asked,
    ) {
        if std::mem::replace(&mut self.under_way, true) {
            self.next = Some((session, asked));
            return;
        }
        let (log, driver) = (log.clone(), driver.clone());
        tokio::task::spawn_blocking(move || {
            let mut slice = log.read(asked.range, asked.bytes_max);
            if slice.before.is_none() {
                slice.before = log.prefix_id(asked.range.first.previous());
            }
            // A driver that is gone needs no event.
            let read = PeerEvent::Read { peer, session, asked, slice };
            let _ = driver.blocking_send(Input::Peer(read));
        });
    }

    /// The read that was under way is done; what was asked for meanwhile begins.
    pub(super) fn done(&mut self, of: (&LogReader, &mpsc::Sender<Input>), peer: NodeIndex) {
        self.under_way = false;
        if let Some((session, asked)) = self.next.take() {
            self.start(of, peer, session, asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::task::Poll;

    use bytes::BytesMut;

    use super::*;
    use crate::store::faulty::FaultyFs;
    use crate::store::{DiskLog, DiskOptions, LogStore, RunBuilder};

    /// A log of ten runs of ten entries, of which only the last is in memory.
    fn cold_log() -> (FaultyFs, DiskLog) {
        let fs = FaultyFs::new(1);
        let mut options = DiskOptions::new("n1".parse().expect("a name"));
        (options.cache_bytes, options.manual_sync) = (0, true);
        let opened =
            DiskLog::open(Arc::new(fs.clone()), Path::new("/data"), options, Box::new(drop));
        let mut log = opened.expect("it opens").log;
        let mut arena = BytesMut::new();
        for _ in 0..10 {
            let bounds = log.bounds();
            let mut builder = RunBuilder::new(&mut arena, bounds.last, bounds.tail);
            (0..10).for_each(|_| builder.push(Epoch::new(1), 0, b"payload"));
            log.append(builder.finish(&mut arena).expect("ten entries")).expect("there is room");
        }
        (fs, log)
    }

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::inclusive(Seq::new(first), Seq::new(last))
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_keeps_nobody_waiting_but_who_reads_from_it() {
        let (fs, log) = cold_log();
        let reads = ClientReads::new(log.reader());
        fs.hold_reads(true);
        let mut cold = std::pin::pin!(reads.read(range(1, 10), 1 << 20));
        // One thread runs this test: had the read waited in it, nothing would follow.
        assert!(matches!(futures_poll(cold.as_mut()).await, Poll::Pending));
        let warm = reads.read(range(91, 100), 1 << 20).await;
        assert_eq!(warm.range, Some(range(91, 100)));
        assert_eq!(reads.record(Seq::new(95)).await.map(|record| record.seq), Some(Seq::new(95)));
        fs.hold_reads(false);
        assert_eq!(cold.await.range, Some(range(1, 10)));
        assert_eq!(reads.prefix_id(Seq::new(42)).await, log.reader().prefix_id(Seq::new(42)));
    }

    #[tokio::test]
    async fn a_peer_that_comes_back_again_and_again_has_one_read_under_way() {
        let (fs, log) = cold_log();
        let (driver, mut inputs) = mpsc::channel(8);
        let (reader, mut reads) = (log.reader(), PeerReads::default());
        let asked = |first| Asked {
            range: range(first, 90),
            bytes_max: 1,
            again: false,
            epoch: Epoch::new(1),
        };
        fs.hold_reads(true);
        for session in 1..=50 {
            reads.start((&reader, &driver), NodeIndex::MASTER, SessionId(session), asked(session));
        }
        fs.hold_reads(false);
        for expected in [1, 50] {
            let read = inputs.recv().await.expect("the driver is there");
            let Input::Peer(PeerEvent::Read { session, slice, .. }) = read else {
                panic!("something else than a read")
            };
            assert_eq!(session, SessionId(expected));
            assert_eq!(slice.range, Some(range(expected, expected)));
            assert_eq!(slice.before, reader.prefix_id(Seq::new(expected - 1)));
            reads.done((&reader, &driver), NodeIndex::MASTER);
        }
        assert!(!reads.under_way, "those in between are not read for nobody");
    }

    async fn futures_poll<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut future).poll(context)))
            .await
    }
}
