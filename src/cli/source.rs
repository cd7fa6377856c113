//! Where the entries of `append` come from: arguments, files, and the pieces of standard input.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::request::{Cut, Part};
use crate::limits::FRAME_BODY_BYTES_MAX;

/// Bytes read from an input at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks read ahead.
const CHUNKS_MAX: usize = 2;

/// What is kept of an entry that no node takes: enough to be seen as too long.
const ENTRY_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX + 1;

/// Entries in the order in which they were given.
#[derive(Debug)]
pub(super) struct Source {
    /// Entries that came back because they could not be sent.
    returned: VecDeque<Bytes>,
    parts: VecDeque<Part>,
    input: Option<Input>,
    /// The entry that comes next, until it is taken.
    front: Option<Bytes>,
    /// Inputs that could not be read to their end, and why.
    errors: Vec<String>,
}

/// What is being read.
#[derive(Debug)]
struct Input {
    pieces: Pieces,
    /// What it is called in messages.
    name: String,
    is_stdin: bool,
}

impl Source {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        Source {
            returned: VecDeque::new(),
            parts: parts.into(),
            input: None,
            front: None,
            errors: Vec::new(),
        }
    }

    /// Whether the files that are named are there and may be read, as far as that can be told
    /// before it is done. Without this, a misspelled name would be found after others were sent.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn check_files(&self) -> Result<(), String> {
        let files = self.parts.iter().filter_map(|part| match part {
            Part::File(path) => Some(path),
            Part::Entry(_) | Part::Stdin(_) => None,
        });
        for path in files {
            let checked = std::fs::metadata(path).and_then(|metadata| match metadata.is_file() {
                true => File::open(path).map(drop),
                false if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
                // A pipe, as of `<(command)`: to be opened once.
                false => Ok(()),
            });
            checked.map_err(|error| format!("--file {}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Whether standard input is among the parts that are left.
    pub(super) fn reads_stdin(&self) -> bool {
        self.input.as_ref().is_some_and(|input| input.is_stdin)
            || self.parts.iter().any(|part| matches!(part, Part::Stdin(_)))
    }

    /// What is an entry of standard input, if that is among the parts.
    pub(super) fn cut_of_stdin(&self) -> Option<Cut> {
        self.parts.iter().find_map(|part| match part {
            Part::Stdin(cut) => Some(*cut),
            Part::Entry(_) | Part::File(_) => None,
        })
    }

    /// The next entry, which stays the next until [`Source::pop`]; `None` after the last. Cancel
    /// safe.
    pub(super) async fn front(&mut self) -> Option<&Bytes> {
        if self.front.is_none() {
            self.front = self.next().await;
        }
        self.front.as_ref()
    }

    /// The inputs that could not be read to their end, and why.
    pub(super) fn take_errors(&mut self) -> Vec<String> {
        std::mem::take(&mut self.errors)
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
            && self.input.is_none()
    }

    /// How many entries are left, as far as is known without reading on.
    pub(super) fn known(&self) -> usize {
        let is_one = |part: &&Part| !matches!(part, Part::Stdin(Cut::Lines | Cut::Nul));
        let entries = self.parts.iter().filter(is_one).count();
        let being_read = self.input.as_ref().is_some_and(|input| input.pieces.cut == Cut::Whole);
        usize::from(self.front.is_some()) + self.returned.len() + usize::from(being_read) + entries
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(entry) = self.returned.pop_front() {
            return Some(entry);
        }
        loop {
            if let Some(input) = &mut self.input {
                match input.pieces.next().await {
                    Ok(Some(entry)) => return Some(entry),
                    Ok(None) => {}
                    Err(error) => {
                        let rest = match input.pieces.cut {
                            Cut::Whole => "it was not appended",
                            Cut::Lines | Cut::Nul => "what comes after was not appended",
                        };
                        self.errors.push(format!("{}: {error}; {rest}", input.name));
                    }
                }
                self.input = None;
            }
            self.input = Some(match self.parts.pop_front()? {
                Part::Entry(entry) => return Some(entry.into()),
                Part::Stdin(cut) => Input {
                    pieces: Pieces::read(cut, |chunks| {
                        read_chunks(&mut io::stdin().lock(), chunks)
                    }),
                    name: "standard input".to_owned(),
                    is_stdin: true,
                },
                Part::File(path) => Input {
                    name: path.display().to_string(),
                    pieces: Pieces::read(Cut::Whole, move |chunks| read_file(&path, chunks)),
                    is_stdin: false,
                },
            });
        }
    }
}

/// Cuts chunks into entries. Only what ends an entry is taken off, and what stands behind the last
/// end is an entry too.
#[derive(Debug)]
struct Pieces {
    cut: Cut,
    /// `None` once the input has ended.
    chunks: Option<mpsc::Receiver<io::Result<Bytes>>>,
    chunk: Bytes,
    /// The beginning of an entry whose end is in a later chunk.
    beginning: BytesMut,
}

impl Pieces {
    fn read(
        cut: Cut,
        read: impl FnOnce(&mpsc::Sender<io::Result<Bytes>>) + Send + 'static,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        // Nobody waits for this thread: it may be blocked in a read for ever, and ends with the
        // program.
        std::thread::spawn(move || read(&sender));
        Pieces::new(cut, chunks)
    }

    fn new(cut: Cut, chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Pieces { cut, chunks: Some(chunks), chunk: Bytes::new(), beginning: BytesMut::new() }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.cut.byte()
                && let Some(at) = self.chunk.iter().position(|&byte| byte == end)
            {
                let piece = self.chunk.split_to(at);
                self.chunk.advance(1);
                if self.beginning.is_empty() {
                    return Ok(Some(piece));
                }
                self.keep(&piece);
                return Ok(Some(self.beginning.split().freeze()));
            }
            let rest = std::mem::take(&mut self.chunk);
            self.keep(&rest);
            let Some(chunks) = &mut self.chunks else { return Ok(None) };
            // The whole of something endless would never be there.
            let is_too_long = self.cut == Cut::Whole && self.beginning.len() == ENTRY_BYTES_MAX;
            match if is_too_long { None } else { chunks.recv().await } {
                Some(chunk) => self.chunk = chunk?,
                None => {
                    self.chunks = None;
                    // Nothing is no line, but an empty file is an empty entry.
                    let is_entry = self.cut == Cut::Whole || !self.beginning.is_empty();
                    return Ok(is_entry.then(|| self.beginning.split().freeze()));
                }
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = ENTRY_BYTES_MAX.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

fn read_file(path: &Path, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    match File::open(path) {
        Ok(mut file) => read_chunks(&mut file, chunks),
        Err(error) => {
            // Nobody waits any more: then nobody wants to know.
            let _ = chunks.blocking_send(Err(error));
        }
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
        pieces_of(Cut::Lines, chunks).await
    }

    async fn pieces_of(cut: Cut, chunks: &[&[u8]]) -> Vec<Bytes> {
        let (sender, receiver) = mpsc::channel(chunks.len().max(1));
        for chunk in chunks {
            sender.send(Ok(Bytes::copy_from_slice(chunk))).await.unwrap();
        }
        drop(sender);
        let mut pieces = Pieces::new(cut, receiver);
        let mut found = Vec::new();
        while let Some(line) = pieces.next().await.unwrap() {
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
        assert_eq!(lines.iter().map(Bytes::len).collect::<Vec<_>>(), [ENTRY_BYTES_MAX, 4]);
    }

    #[tokio::test]
    async fn entries_that_end_with_nul_may_hold_line_feeds() {
        let input = b"two\nlines\n\0\0last";
        let expected: [&[u8]; 3] = [b"two\nlines\n", b"", b"last"];
        for at in 0..=input.len() {
            let chunks = [&input[..at], &input[at..]];
            assert_eq!(pieces_of(Cut::Nul, &chunks).await, expected, "cut at {at}");
        }
        assert_eq!(pieces_of(Cut::Nul, &[b"a\0", b"b\0"]).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn the_whole_is_one_entry_even_if_it_is_empty() {
        assert_eq!(pieces_of(Cut::Whole, &[b"a\n\0", b"b\n"]).await, [&b"a\n\0b\n"[..]]);
        assert_eq!(pieces_of(Cut::Whole, &[]).await, [""]);
        let chunk = vec![b'x'; 1 << 20];
        let chunks: Vec<&[u8]> = vec![&chunk; 20];
        let whole = pieces_of(Cut::Whole, &chunks).await;
        assert_eq!(whole.iter().map(Bytes::len).collect::<Vec<_>>(), [ENTRY_BYTES_MAX]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_no_entry_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("one");
        std::fs::write(&file, "one\n").unwrap();
        let parts = [dir.path().join("none"), file, dir.path().to_owned()].map(Part::File);
        let mut source = Source::new(parts.into());
        let mut entries = Vec::new();
        while let Some(entry) = source.front().await {
            entries.push(entry.clone());
            source.pop();
        }
        assert_eq!(entries, ["one\n"]);
        let errors = source.take_errors();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains("/none: No such file"), "{errors:?}");
        assert!(errors[0].ends_with("; it was not appended"), "{errors:?}");
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
