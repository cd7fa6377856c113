//! Writing to stdout in large pieces.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use bytes::{BufMut, BytesMut};

use super::json::{Entry, reply_line};
use super::request::{Ending, Form, Output};
use super::{Exit, complain, read_failed};
use crate::client::{Batch, ReadError};
use crate::gateway::reply::write_entry;
use crate::store::Record;
use crate::visible::{visible, visible_json};

/// Output is collected up to this size before it is written.
const WRITE_BYTES: usize = 256 << 10;

/// Standard output, buffered by us: the standard library's looks for line ends and writes them out
/// one by one.
#[derive(Debug)]
pub(super) struct Stdout {
    buffer: BytesMut,
    content: Content,
}

/// What is written, which tells what a terminal must be spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Lines with text from nodes and payloads. They are written whole, never in parts.
    Text,
    /// Objects with the same.
    Json,
    /// Bytes as they are wanted, and text that was made for the terminal.
    AsIs,
}

impl From<Output> for Content {
    fn from(output: Output) -> Self {
        match output {
            Output::Text => Content::Text,
            Output::Json => Content::Json,
        }
    }
}

impl Stdout {
    /// For little.
    pub(super) fn new(content: impl Into<Content>) -> Self {
        Stdout { buffer: BytesMut::new(), content: content.into() }
    }

    /// With room for much.
    pub(super) fn large(content: impl Into<Content>) -> Self {
        let buffer = BytesMut::with_capacity(WRITE_BYTES + (64 << 10));
        Stdout { buffer, content: content.into() }
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
        let written = to_stdout(&self.content.shown(&self.buffer, io::stdout().is_terminal()));
        self.buffer.clear();
        written
    }
}

impl Content {
    /// The bytes to write.
    pub(super) fn shown(self, bytes: &[u8], terminal: bool) -> Cow<'_, [u8]> {
        match self {
            Content::Text if terminal => visible(bytes),
            Content::Json if terminal => visible_json(bytes),
            _ => Cow::Borrowed(bytes),
        }
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

impl Form {
    /// What writes an entry so.
    pub(super) fn push(self) -> fn(&mut BytesMut, &Record) {
        match self {
            Form::Lines => push_line,
            Form::Raw(Ending::LineFeed) => push_raw::<b'\n'>,
            Form::Raw(Ending::Nul) => push_raw::<0>,
            Form::Objects => push_object,
        }
    }
}

impl From<Form> for Content {
    fn from(form: Form) -> Self {
        match form {
            Form::Lines => Content::Text,
            Form::Raw(_) => Content::AsIs,
            Form::Objects => Content::Json,
        }
    }
}

fn push_raw<const END: u8>(buffer: &mut BytesMut, record: &Record) {
    buffer.extend_from_slice(&record.payload);
    buffer.put_u8(END);
}

/// A data line as the text gateway writes it.
fn push_line(buffer: &mut BytesMut, record: &Record) {
    write_entry(buffer, record.seq, &record.payload);
}

/// An entry as an object on a line.
fn push_object(buffer: &mut BytesMut, record: &Record) {
    let written = serde_json::to_writer(buffer.writer(), &Entry::of(record));
    debug_assert!(written.is_ok(), "memory takes it, and our keys are text");
    buffer.put_u8(b'\n');
}

/// Says what a node refused where entries were to be printed: on stdout as an object among objects,
/// else on stderr, because stdout has entries only.
pub(super) fn refused(line: &str, form: Form) -> Exit {
    if form != Form::Objects {
        complain(line);
        return Exit::Refused;
    }
    let mut stdout = Stdout::new(form);
    stdout.push_json(&reply_line(line.as_bytes()));
    stdout.flush().map_or_else(|error| failure(&error), |()| Exit::Refused)
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
    /// Says it, if there is something to be said, and how the program ends. A refusal is an object
    /// on stdout where entries are, as it is for every verb.
    pub(super) fn exit(&self, form: Form) -> Exit {
        match self {
            Stop::Output(error) => failure(error),
            Stop::Read(ReadError::Refused(refusal)) => refused(&refusal.to_string(), form),
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
