//! Where the entries of `append` come from: arguments and the lines of standard input.

use std::collections::VecDeque;
use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::arguments::Part;
use crate::limits::FRAME_BODY_BYTES_MAX;

/// Bytes read from standard input at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks read ahead.
const CHUNKS_MAX: usize = 2;

/// What is kept of a line that no node takes: enough to be seen as too long.
const LINE_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX + 1;

/// Entries in the order in which they were given.
#[derive(Debug)]
pub(super) struct Source {
    /// Entries that came back because they could not be sent.
    returned: VecDeque<Bytes>,
    parts: VecDeque<Part>,
    stdin: Option<Lines>,
    /// The entry that comes next, until it is taken.
    front: Option<Bytes>,
    /// Why standard input could not be read to its end.
    error: Option<io::Error>,
}

impl Source {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        Source {
            returned: VecDeque::new(),
            parts: parts.into(),
            stdin: None,
            front: None,
            error: None,
        }
    }

    /// Whether standard input is among the parts that are left.
    pub(super) fn reads_stdin(&self) -> bool {
        self.stdin.is_some() || self.parts.contains(&Part::Stdin)
    }

    /// The next entry, which stays the next until [`Source::pop`]; `None` after the last. Cancel
    /// safe.
    pub(super) async fn front(&mut self) -> Option<&Bytes> {
        if self.front.is_none() {
            self.front = self.next().await;
        }
        self.front.as_ref()
    }

    /// Why standard input could not be read to its end, if it could not.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Takes the entry that [`Source::front`] showed.
    pub(super) fn pop(&mut self) {
        self.front = None;
    }

    /// Entries to come before all others.
    pub(super) fn give_back(&mut self, entries: Vec<Bytes>) {
        if entries.is_empty() {
            return;
        }
        let front = self.front.take();
        for entry in front.into_iter().chain(entries.into_iter().rev()) {
            self.returned.push_front(entry);
        }
    }

    /// Whether nothing is left, as far as is known without reading on.
    pub(super) fn is_exhausted(&self) -> bool {
        self.front.is_none()
            && self.returned.is_empty()
            && self.parts.is_empty()
            && self.stdin.is_none()
    }

    /// How many entries are left, as far as is known without reading on.
    pub(super) fn known(&self) -> usize {
        let entries = self.parts.iter().filter(|part| matches!(part, Part::Entry(_)));
        usize::from(self.front.is_some()) + self.returned.len() + entries.count()
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(entry) = self.returned.pop_front() {
            return Some(entry);
        }
        loop {
            if let Some(lines) = &mut self.stdin {
                match lines.next().await {
                    Ok(Some(line)) => return Some(line),
                    Ok(None) => {}
                    Err(error) => self.error = Some(error),
                }
                self.stdin = None;
            }
            match self.parts.pop_front()? {
                Part::Entry(entry) => return Some(entry.into()),
                Part::Stdin => self.stdin = Some(Lines::of_stdin()),
            }
        }
    }
}

/// Cuts chunks into lines. Only the line feed is taken off, and what stands behind the last one is
/// a line too.
#[derive(Debug)]
struct Lines {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
    /// The beginning of a line whose end is in a later chunk.
    beginning: BytesMut,
}

impl Lines {
    fn of_stdin() -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        // Nobody waits for this thread: it may be blocked in a read for ever, and ends with the
        // program.
        std::thread::spawn(move || read_chunks(&mut io::stdin().lock(), &sender));
        Lines::new(chunks)
    }

    fn new(chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Lines { chunks, chunk: Bytes::new(), beginning: BytesMut::new() }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(at) = self.chunk.iter().position(|&byte| byte == b'\n') {
                let line = self.chunk.split_to(at);
                self.chunk.advance(1);
                if self.beginning.is_empty() {
                    return Ok(Some(line));
                }
                self.keep(&line);
                return Ok(Some(self.beginning.split().freeze()));
            }
            let rest = std::mem::take(&mut self.chunk);
            self.keep(&rest);
            match self.chunks.recv().await {
                Some(chunk) => self.chunk = chunk?,
                None if self.beginning.is_empty() => return Ok(None),
                None => return Ok(Some(self.beginning.split().freeze())),
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

fn read_chunks(input: &mut impl Read, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = match input.read(&mut chunk) {
            Ok(0) => return,
            Ok(len) => {
                chunk.truncate(len);
                // What a slow pipe or a person gives is little; it should not occupy a chunk.
                if len < CHUNK_BYTES / 2 {
                    chunk.shrink_to_fit();
                }
                Ok(chunk.into())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if chunks.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(chunks: &[&[u8]]) -> Vec<Bytes> {
        let (sender, receiver) = mpsc::channel(chunks.len().max(1));
        for chunk in chunks {
            sender.send(Ok(Bytes::copy_from_slice(chunk))).await.unwrap();
        }
        drop(sender);
        let mut lines = Lines::new(receiver);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn lines_are_the_same_wherever_the_input_is_cut() {
        let input = b"one\n\ntwo \r\n\xff\x00\nlast";
        let expected: [&[u8]; 5] = [b"one", b"", b"two \r", b"\xff\x00", b"last"];
        for at in 0..=input.len() {
            assert_eq!(lines_of(&[&input[..at], &input[at..]]).await, expected, "cut at {at}");
        }
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(lines_of(&single).await, expected);
    }

    #[tokio::test]
    async fn nothing_stands_behind_the_last_line_feed() {
        assert_eq!(lines_of(&[]).await, [""; 0]);
        assert_eq!(lines_of(&[b"\n"]).await, [""]);
        assert_eq!(lines_of(&[b"a\n", b"b\n"]).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_line_that_no_node_takes_occupies_no_more_than_the_bound() {
        let chunk = vec![b'x'; 1 << 20];
        let mut chunks: Vec<&[u8]> = vec![&chunk; 20];
        chunks.push(b"\nnext\n");
        let lines = lines_of(&chunks).await;
        assert_eq!(lines.iter().map(Bytes::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 4]);
    }

    #[tokio::test]
    async fn returned_entries_come_first_and_in_order() {
        let parts = ["a", "b"].map(|text| Part::Entry(text.into()));
        let mut source = Source::new(parts.into());
        assert_eq!(source.front().await.unwrap(), "a");
        source.give_back(vec!["x".into(), "y".into()]);
        let mut entries = Vec::new();
        while let Some(entry) = source.front().await {
            entries.push(entry.clone());
            source.pop();
        }
        assert_eq!(entries, ["x", "y", "a", "b"]);
        assert!(source.is_exhausted());
    }
}
