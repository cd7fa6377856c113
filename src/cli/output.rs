//! Writing to stdout in large pieces.

use std::io::{self, Write};

use bytes::{BufMut, BytesMut};

use super::json::Entry;
use super::{Exit, complain, read_failed};
use crate::client::{Batch, ReadError};
use crate::gateway::reply::write_entry;
use crate::store::Record;

/// Output is collected up to this size before it is written.
const WRITE_BYTES: usize = 256 << 10;

/// Standard output, buffered by us: the standard library's looks for line ends and writes them out
/// one by one.
#[derive(Debug, Default)]
pub(super) struct Stdout {
    buffer: BytesMut,
}

impl Stdout {
    pub(super) fn new() -> Self {
        Stdout { buffer: BytesMut::with_capacity(WRITE_BYTES + (64 << 10)) }
    }

    /// What waits to be written; add to it.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Adds a value as one line.
    pub(super) fn push_json(&mut self, value: &impl serde::Serialize) {
        let written = serde_json::to_writer((&mut self.buffer).writer(), value);
        debug_assert!(written.is_ok(), "memory takes it, and our keys are text");
        self.buffer.put_u8(b'\n');
    }

    /// Adds entries, and writes when enough are there.
    pub(super) fn print(
        &mut self,
        batch: &Batch,
        push: fn(&mut BytesMut, &Record),
    ) -> Result<(), Stop> {
        for record in batch.records() {
            push(&mut self.buffer, &record.map_err(ReadError::from)?);
            self.flush_if_large()?;
        }
        Ok(())
    }

    /// Writes if enough is there for a write to be worth it.
    pub(super) fn flush_if_large(&mut self) -> io::Result<()> {
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes all that is there.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = to_stdout(&self.buffer);
        self.buffer.clear();
        written
    }
}

#[cfg(not(test))]
fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

#[cfg(test)]
thread_local! {
    /// What a test would have written to stdout.
    pub(super) static WRITTEN: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    WRITTEN.with_borrow_mut(|written| written.write_all(bytes))
}

/// The end of a program whose output cannot be written. A reader that has seen enough (`| head`)
/// is no failure.
pub(super) fn failure(error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Exit::Done;
    }
    complain(format_args!("standard output: {error}"));
    Exit::Refused
}

/// A payload as it is, and a line feed.
pub(super) fn push_raw(buffer: &mut BytesMut, record: &Record) {
    buffer.extend_from_slice(&record.payload);
    buffer.put_u8(b'\n');
}

/// A data line as the text gateway writes it.
pub(super) fn push_line(buffer: &mut BytesMut, record: &Record) {
    write_entry(buffer, record.seq, &record.payload);
}

/// An entry as an object on a line.
pub(super) fn push_object(buffer: &mut BytesMut, record: &Record) {
    let written = serde_json::to_writer(buffer.writer(), &Entry::of(record));
    debug_assert!(written.is_ok(), "memory takes it, and our keys are text");
    buffer.put_u8(b'\n');
}

/// Why printing ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody takes it.
    Output(io::Error),
    /// There is no more to be had.
    Read(ReadError),
}

impl Stop {
    /// Says it, if there is something to be said, and how the program ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Stop::Output(error) => failure(error),
            Stop::Read(error) => read_failed(error),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Output(error)
    }
}

impl<E: Into<ReadError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Read(error.into())
    }
}
