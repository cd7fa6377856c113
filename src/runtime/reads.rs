//! Reading the log for others without waiting for the disk: what is in memory is read at once, what is
//! not in another thread.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::limits::COLD_READS_MAX;
use crate::store::{LogReader, Record, Slice};
use crate::types::{PrefixId, Seq, SeqRange};

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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::task::Poll;

    use bytes::BytesMut;

    use super::*;
    use crate::store::faulty::FaultyFs;
    use crate::store::{DiskLog, DiskOptions, LogStore, RunBuilder};
    use crate::types::Epoch;

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

    async fn futures_poll<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut future).poll(context)))
            .await
    }
}
