//! Log lines on stderr and, beside it, in a file: every line, whole, or one complaint that says why
//! not.
//!
//! Lines are written where they arise, one `write` each, so that none is lost in a queue when the
//! process dies, and two processes may append to one file. A broken stderr never stops a node.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing::{Level, dispatcher, info};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, FormatFields, JsonFields};
use tracing_subscriber::fmt::{self, MakeWriter, format};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// The target of lines that are written at every log level.
const ANNOUNCEMENT: &str = "announcement";

/// Sends the log lines of this process where `config` says, from now on.
///
/// # Errors
/// If the file cannot be opened, or logging was set up before.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = Targets::new()
        .with_default(LevelFilter::from_level(config.level))
        .with_target(ANNOUNCEMENT, Level::INFO);
    let file = config.file.as_deref().map(LogFile::open).transpose()?.map(Arc::new);
    let stderr = layer(config.format, io::stderr, DefaultFields::new(), coloured());
    let file = file.map(|file| layer(config.format, file, FileFields(DefaultFields::new()), false));
    tracing_subscriber::registry()
        .with(stderr)
        .with(file)
        .with(filter)
        .try_init()
        .context("logging is set up already")
}

/// Writes a line that an operator, or a script, waits for: at every log level.
pub fn announce(line: &str) {
    if dispatcher::has_been_set() {
        info!(target: ANNOUNCEMENT, "{line}");
    } else {
        complain(line);
    }
}

/// Writes a line to stderr and accepts that nobody may be there to read it, which `eprintln!` does
/// not.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Colour is for people: on a terminal, unless they said no (no-color.org).
fn coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}

fn layer<S, W, N>(
    format: LogFormat,
    writer: W,
    fields: N,
    ansi: bool,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    N: for<'w> FormatFields<'w> + Send + Sync + 'static,
{
    // The library would report its own failures with `eprintln!`, which panics without a stderr.
    let layer = fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Text => {
            let shape = format::format().with_target(false);
            layer.with_ansi(ansi).fmt_fields(fields).event_format(shape).boxed()
        }
        LogFormat::Json => {
            let shape = format::json().flatten_event(true);
            layer.with_ansi(false).fmt_fields(JsonFields::new()).event_format(shape).boxed()
        }
    }
}

/// The fields of a span are kept as text under the type of their formatter. Without a type of its
/// own the file would get the text made for the terminal, colours included.
struct FileFields(DefaultFields);

impl<'w> FormatFields<'w> for FileFields {
    fn format_fields<R: RecordFields>(
        &self,
        writer: format::Writer<'w>,
        fields: R,
    ) -> std::fmt::Result {
        self.0.format_fields(writer, fields)
    }
}

/// The log file. Its first failure is told on stderr; the node goes on without it and tries again
/// with the next line.
struct LogFile {
    file: File,
    failing: AtomicBool,
}

impl LogFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path).with_context(|| {
            let path = path.display();
            format!(
                "log.file: cannot append to {path} (make its directory, or name another file with \
                 --log-file)"
            )
        })?;
        Ok(LogFile { file, failing: AtomicBool::new(false) })
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&self.file).write(bytes);
        match &written {
            Ok(_) => self.failing.store(false, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    complain(&format!("replog: log.file: a line could not be written: {error}"));
                }
            }
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.file).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_gets_whole_plain_lines_and_announcements_at_every_level() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        std::fs::write(&path, "before\n").unwrap();
        let file = Arc::new(LogFile::open(&path).unwrap());
        let terminal = layer(LogFormat::Text, io::sink, DefaultFields::new(), true);
        let plain = layer(LogFormat::Text, file, FileFields(DefaultFields::new()), false);
        let filter =
            Targets::new().with_default(LevelFilter::ERROR).with_target(ANNOUNCEMENT, Level::INFO);
        let subscriber = tracing_subscriber::registry().with(terminal).with(plain).with(filter);
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::error_span!("peer", id = "s1").entered();
            info!("unseen");
            tracing::error!(seq = 7, "seen \u{1b}[31m");
            announce("ready id=master");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "before");
        assert!(lines[1].contains("seen") && lines[1].ends_with("seq=7"), "{text}");
        assert!(lines[2].ends_with("ready id=master"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn json_lines_have_the_announcement_in_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        let file = Arc::new(LogFile::open(&path).unwrap());
        let json = layer(LogFormat::Json, file, FileFields(DefaultFields::new()), false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(json), || {
            announce("ready id=s1");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "ready id=s1");
    }
}
