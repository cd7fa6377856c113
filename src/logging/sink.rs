//! One place where log lines go: a bounded queue, and a thread that writes.
//!
//! Whoever logs never waits for a reader: a pipe that nobody empties, a terminal held by Ctrl-S and
//! a file system that hangs hold up this thread and nothing else. What does not fit into the queue
//! is dropped and counted, and a line says how much as soon as the place takes lines again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::limits::{LOG_QUEUE_BYTES_MAX, LOG_QUEUE_RESERVE_BYTES};

/// A pipe takes so much in one piece or not at all (`PIPE_BUF`), so that lines of several processes
/// that share one stay whole.
const PIECE_BYTES: usize = 4096;

/// What a sink has to tell of itself. It is told to whoever started the sink, in the sink's thread.
#[derive(Debug)]
pub(super) enum Notice {
    /// So many lines are lost; lines are taken again.
    Dropped(u64),
    /// Lines could be written, now they cannot.
    Failing(io::Error),
    /// The file of that name was opened anew.
    Reopened(PathBuf),
    /// It could not be: the one that is open stays.
    NotReopened(PathBuf, io::Error),
}

/// A place for log lines.
#[derive(Debug)]
pub(super) struct Sink {
    name: &'static str,
    // Held for a copy of a line; never while something is written.
    queue: Mutex<Queue>,
    /// There is something to do for the thread.
    work: Condvar,
    /// The thread is done with some of it.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines, not yet in the hands of the thread.
    lines: Vec<u8>,
    /// Bytes in the hands of the thread.
    taken: usize,
    /// A line did not fit: nothing more is queued until there is room for all.
    overflowing: bool,
    /// Lines lost, and not yet said to be.
    dropped: u64,
    dropped_ever: u64,
    /// The last write failed.
    failing: bool,
    /// The file is to be opened anew.
    reopen: bool,
    /// The thread waits for work.
    idle: bool,
}

impl Queue {
    fn lose(&mut self, lines: u64) {
        self.dropped += lines;
        self.dropped_ever += lines;
    }

    fn has_work(&self) -> bool {
        !self.lines.is_empty() || self.reopen || self.owes_a_word()
    }

    /// Lost lines are told of where lines can be written.
    fn owes_a_word(&self) -> bool {
        self.dropped > 0 && !self.failing
    }

    fn is_done(&self) -> bool {
        self.taken == 0 && !self.has_work()
    }
}

impl Sink {
    /// A sink that writes to this file, which is open.
    ///
    /// # Errors
    /// The system gave no thread.
    pub(super) fn to(
        name: &'static str,
        file: File,
        tell: impl Fn(Notice) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let sink = Arc::new(Sink::new(name));
        let writing = sink.clone();
        let work = move || writing.run(Output { file: Some(file), path: None, torn: false }, &tell);
        thread::Builder::new().name(format!("log-{name}")).spawn(work)?;
        Ok(sink)
    }

    /// A sink that appends to the file of this name. It is opened by the sink's own thread: a file
    /// system that takes longer than `patience` to answer is waited for there.
    ///
    /// # Errors
    /// The file cannot be opened, or the system gave no thread.
    pub(super) fn append(
        name: &'static str,
        path: &Path,
        patience: Duration,
        tell: impl Fn(Notice) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let sink = Arc::new(Sink::new(name));
        let writing = sink.clone();
        let path = path.to_owned();
        let (opened, outcome) = sync_channel(1);
        let work = move || writing.open_and_run(path, &opened, &tell);
        thread::Builder::new().name(format!("log-{name}")).spawn(work)?;
        match outcome.recv_timeout(patience) {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Ok(sink),
        }
    }

    fn new(name: &'static str) -> Self {
        let queue = Mutex::new(Queue::default());
        Sink { name, queue, work: Condvar::new(), progress: Condvar::new() }
    }

    /// What the sink is called in messages and metrics.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Queues a whole line. An important one still fits when the others do not.
    pub(super) fn push(&self, line: &[u8], important: bool) {
        let mut queue = self.queue();
        let bound = LOG_QUEUE_BYTES_MAX + if important { LOG_QUEUE_RESERVE_BYTES } else { 0 };
        let held = queue.lines.len() + queue.taken;
        if held + line.len() > bound || (queue.overflowing && !important) {
            queue.overflowing = true;
            return queue.lose(1);
        }
        queue.lines.extend_from_slice(line);
        self.wake(queue);
    }

    /// Has the file opened anew, by the name it was first opened with.
    pub(super) fn reopen(&self) {
        let mut queue = self.queue();
        queue.reopen = true;
        self.wake(queue);
    }

    /// Waits until everything is written, but not longer than until `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        let mut queue = self.queue();
        while !queue.is_done() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            let waited = self.progress.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lines lost since the sink was made.
    pub(super) fn lines_dropped(&self) -> u64 {
        self.queue().dropped_ever
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A system call only if the thread sleeps.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        if std::mem::take(&mut queue.idle) {
            drop(queue);
            self.work.notify_one();
        }
    }

    // ---- the thread ----

    fn open_and_run(
        &self,
        path: PathBuf,
        opened: &SyncSender<io::Result<()>>,
        tell: &dyn Fn(Notice),
    ) {
        let file = match open(&path) {
            Ok(file) => {
                // Whoever waited may have gone on without us.
                let _ = opened.send(Ok(()));
                Some(file)
            }
            Err(error) => {
                let Err(error) = opened.send(Err(error)) else { return };
                if let Err(error) = error.0 {
                    self.queue().failing = true;
                    tell(Notice::Failing(error));
                }
                None
            }
        };
        self.run(Output { file, path: Some(path), torn: false }, tell);
    }

    fn run(&self, mut output: Output, tell: &dyn Fn(Notice)) {
        let mut batch = Vec::new();
        loop {
            let reopen = self.take(&mut batch);
            let mut rest = batch.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(piece_len(rest));
                self.write(&mut output, piece, tell);
                rest = after;
            }
            if reopen {
                output.reopen(tell);
            }
            self.tell_what_was_lost(tell);
            self.progress.notify_all();
        }
    }

    /// Waits for work and takes all of it. Says whether the file is to be opened anew behind it.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut queue = self.queue();
        while !queue.has_work() {
            queue.idle = true;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.idle = false;
        batch.clear();
        std::mem::swap(batch, &mut queue.lines);
        queue.taken = batch.len();
        std::mem::take(&mut queue.reopen)
    }

    fn write(&self, output: &mut Output, piece: &[u8], tell: &dyn Fn(Notice)) {
        let written = output.write(piece);
        let mut queue = self.queue();
        queue.taken -= piece.len();
        let failed_before = std::mem::replace(&mut queue.failing, written.is_err());
        if let Err((whole, error)) = written {
            let newlines = piece[whole..].iter().filter(|&&byte| byte == b'\n').count();
            queue.lose(newlines as u64); // At most as many as bytes.
            drop(queue);
            if !failed_before {
                tell(Notice::Failing(error));
            }
        }
    }

    /// Says, once all is written that was queued, how many lines are missing.
    fn tell_what_was_lost(&self, tell: &dyn Fn(Notice)) {
        let queue = self.queue();
        let lost = queue.dropped;
        if !queue.lines.is_empty() || (lost == 0 && !queue.overflowing) {
            return;
        }
        let failing = queue.failing;
        drop(queue);
        if !failing && lost > 0 {
            // Lines that come meanwhile are still turned away, so that this one stands before them.
            tell(Notice::Dropped(lost));
        }
        let mut queue = self.queue();
        queue.overflowing = false;
        if !failing {
            queue.dropped -= lost;
        }
    }
}

/// So many bytes from the front of whole lines are written at once: whole lines again.
fn piece_len(lines: &[u8]) -> usize {
    let is_end = |&byte: &u8| byte == b'\n';
    match lines.get(..PIECE_BYTES) {
        None => lines.len(),
        Some(most) => most.iter().rposition(is_end).map_or_else(
            || lines.iter().position(is_end).map_or(lines.len(), |end| end + 1),
            |end| end + 1,
        ),
    }
}

/// Opens a log file for appending. To open a FIFO does not wait for a reader here: opened for both,
/// it keeps what fits into it until one comes.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    if std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo()) {
        options.read(true).write(true);
    } else {
        options.append(true).create(true);
    }
    options.open(path)
}

/// What lines are written to.
#[derive(Debug)]
struct Output {
    /// None that is open: tried with each write.
    file: Option<File>,
    /// Where it is, if it can be opened anew.
    path: Option<PathBuf>,
    /// The last byte written is in the middle of a line.
    torn: bool,
}

impl Output {
    /// Writes whole lines. Where that fails: how many bytes are out, and why not more.
    fn write(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.write_some(b"\n").map_err(|error| (0, error))?;
            self.torn = false;
        }
        let mut written = 0;
        while written < lines.len() {
            match self.write_some(&lines[written..]) {
                Ok(count) => written += count,
                Err(error) => {
                    self.torn = written > 0 && lines[written - 1] != b'\n';
                    return Err((written, error));
                }
            }
        }
        Ok(())
    }

    /// At least one byte.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match (&mut self.file, &self.path) {
            (Some(file), _) => file,
            (none, Some(path)) => none.insert(open(path)?),
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        loop {
            match file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whoever gave us the file may have made it so; this thread may wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match poll(&mut [PollFd::new(file, PollFlags::OUT)], None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                written => return written,
            }
        }
    }

    fn reopen(&mut self, tell: &dyn Fn(Notice)) {
        let Some(path) = self.path.clone() else { return };
        match open(&path) {
            Ok(file) => {
                (self.file, self.torn) = (Some(file), false);
                tell(Notice::Reopened(path));
            }
            Err(error) => tell(Notice::NotReopened(path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    fn notices() -> (impl Fn(Notice) + Send + 'static, Receiver<Notice>) {
        let (told, notices) = channel();
        // A test that is over hears nothing more.
        (move |notice| drop(told.send(notice)), notices)
    }

    /// A sink into a pipe, and the end to read from.
    fn piped(tell: impl Fn(Notice) + Send + 'static) -> (Arc<Sink>, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        (Sink::to("pipe", file, tell).unwrap(), reader)
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_the_lines_beyond_the_bound_and_never_the_caller_s_time() {
        let (tell, notices) = notices();
        let (sink, mut reader) = piped(tell);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let pushed = 2 * (LOG_QUEUE_BYTES_MAX + (1 << 20)) / line.len();
        for _ in 0..pushed {
            sink.push(&line, false);
        }
        sink.push(b"important\n", true);
        sink.flush(Instant::now() + Duration::from_millis(10)); // Comes back although it is stuck.
        let dropped = sink.lines_dropped();
        assert!(dropped > 0, "more was pushed than fits");
        let mut read = vec![0; (pushed - dropped as usize) * line.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read.chunks(line.len()).all(|chunk| chunk == line), "whole lines, in order");
        let mut rest = vec![0; b"important\n".len()];
        reader.read_exact(&mut rest).unwrap();
        assert_eq!(rest, b"important\n");
        match notices.recv_timeout(PATIENCE).unwrap() {
            Notice::Dropped(count) => assert_eq!(count, dropped),
            other => panic!("{other:?}"),
        }
        sink.flush(soon());
        sink.push(b"goes on\n", false);
        let mut rest = vec![0; b"goes on\n".len()];
        reader.read_exact(&mut rest).unwrap();
        assert_eq!(rest, b"goes on\n");
        assert_eq!(sink.lines_dropped(), dropped);
    }

    #[test]
    fn a_pipe_whose_reader_is_gone_is_told_of_once_and_every_line_is_counted() {
        let (tell, notices) = notices();
        let (sink, reader) = piped(tell);
        drop(reader);
        for count in 1..=3 {
            sink.push(b"lost\n", false);
            sink.flush(soon());
            assert_eq!(sink.lines_dropped(), count);
        }
        assert!(matches!(notices.try_recv(), Ok(Notice::Failing(_))));
        assert!(notices.try_recv().is_err(), "once");
    }

    #[test]
    fn a_file_is_appended_to_and_opened_anew_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("node.log"), dir.path().join("node.log.1"));
        std::fs::write(&path, "before\n").unwrap();
        let (tell, notices) = notices();
        let sink = Sink::append("file", &path, PATIENCE, tell).unwrap();
        sink.push(b"one\n", false);
        sink.flush(soon());
        std::fs::rename(&path, &moved).unwrap();
        sink.push(b"two\n", false);
        sink.flush(soon());
        sink.reopen();
        sink.flush(soon());
        assert!(matches!(notices.try_recv(), Ok(Notice::Reopened(name)) if name == path));
        sink.push(b"three\n", false);
        sink.flush(soon());
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "before\none\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");

        // A name that cannot be opened costs nothing: the file that is open stays.
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        sink.reopen();
        sink.flush(soon());
        assert!(matches!(notices.try_recv(), Ok(Notice::NotReopened(..))));
        sink.push(b"four\n", false);
        sink.flush(soon());
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "three\nfour\n");
        assert_eq!(sink.lines_dropped(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_and_a_fifo_without_a_reader_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing/node.log");
        assert!(Sink::append("file", &missing, PATIENCE, |_| {}).is_err());
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let sink = Sink::append("file", &fifo, PATIENCE, |_| {}).unwrap();
        sink.push(b"kept for whoever comes\n", false);
        sink.flush(soon());
        let mut line = [0; 23];
        File::open(&fifo).unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"kept for whoever comes\n");
    }

    #[test]
    fn what_is_written_at_once_ends_with_a_line_and_fits_into_a_pipe_if_a_line_does() {
        let short = b"0123456789\n".repeat(1000);
        let mut rest = short.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_len(rest));
            assert!(piece.len() <= PIECE_BYTES && piece.len() % 11 == 0);
            rest = after;
        }
        let long = [vec![b'x'; 2 * PIECE_BYTES], b"\nshort\n".to_vec()].concat();
        assert_eq!(piece_len(&long), 2 * PIECE_BYTES + 1);
        assert_eq!(piece_len(b"short\n"), 6);
    }
}
