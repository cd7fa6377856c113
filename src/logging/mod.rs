//! Log lines on stderr and, beside it, in a file: every line, whole, or one that says how many are
//! missing and why.
//!
//! Each of the two has a thread of its own (`sink`), so that neither a reader that stopped reading
//! nor a disk that hangs stops the node, or the other one. Lines of one place stay in their order, and
//! at the end of the process they are written before it ends, if anybody takes them.

mod sink;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, dispatcher, error, info, warn};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, FormatFields, JsonFields};
use tracing_subscriber::fmt::{self, MakeWriter, format};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use self::sink::{Notice, Sink};
use crate::config::{LogConfig, LogFormat};
use crate::limits::{LOG_FLUSH_TIMEOUT, LOG_OPEN_TIMEOUT};

/// The target of lines that are written at every log level.
const ANNOUNCEMENT: &str = "announcement";

/// Where the lines of this process go, once that is known.
static SINKS: OnceLock<Sinks> = OnceLock::new();

#[derive(Debug)]
struct Sinks {
    stderr: Arc<Sink>,
    file: Option<Arc<Sink>>,
}

impl Sinks {
    fn all(&self) -> impl Iterator<Item = &Arc<Sink>> {
        std::iter::once(&self.stderr).chain(&self.file)
    }
}

/// Sends the log lines of this process where `config` says, from now on. A panic is one of them.
///
/// # Errors
/// If the file cannot be opened: then lines go to stderr only, in the form that `config` says.
/// Nothing is changed if logging was set up before, or if the system gives no thread.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = Targets::new()
        .with_default(LevelFilter::from_level(config.level))
        .with_target(ANNOUNCEMENT, Level::INFO);
    // Written to by one thread only: the lock of the library's own handle could be held for ever by
    // somebody whose write does not come back.
    let descriptor = io::stderr().as_fd().try_clone_to_owned().context("stderr")?;
    let stderr = Sink::to("stderr", File::from(descriptor), |it| tell("stderr", it))
        .context("cannot start a thread for log lines")?;
    let opened = config.file.as_deref().map(open).transpose();
    let (file, outcome) = match opened {
        Ok(file) => (file, Ok(())),
        Err(error) => (None, Err(error)),
    };
    let form = config.format;
    let to_stderr = layer(form, Lines(stderr.clone()), DefaultFields::new(), coloured());
    let to_file = file.clone();
    let to_file = to_file.map(|it| layer(form, Lines(it), FileFields(DefaultFields::new()), false));
    tracing_subscriber::registry()
        .with(to_stderr)
        .with(to_file)
        .with(filter)
        .try_init()
        .context("logging is set up already")?;
    // The subscriber above can be set once only, so these can as well.
    let _ = SINKS.set(Sinks { stderr, file });
    std::panic::set_hook(Box::new(|panic| {
        log_panic(panic);
        flush();
    }));
    outcome
}

fn open(path: &Path) -> anyhow::Result<Arc<Sink>> {
    let opened = Sink::append("file", path, LOG_OPEN_TIMEOUT, |it| tell("file", it));
    opened.with_context(|| {
        let path = path.display();
        format!(
            "log.file: cannot append to {path} (make its directory, or name another file with \
             --log-file)"
        )
    })
}

/// What a sink has to tell is a line in both places: at every level, since lines are missing.
fn tell(sink: &'static str, notice: Notice) {
    match notice {
        Notice::Dropped(lines) => warn!(
            target: ANNOUNCEMENT, sink, lines,
            "log lines are missing here: nobody read them in time, or they could not be written"
        ),
        Notice::Failing(error) => warn!(
            target: ANNOUNCEMENT, sink, %error,
            "log lines cannot be written; each further line is tried"
        ),
        Notice::Reopened(path) => {
            info!(target: ANNOUNCEMENT, path = %path.display(), "the log file was opened anew");
        }
        Notice::NotReopened(path, error) => warn!(
            target: ANNOUNCEMENT, path = %path.display(), %error,
            "the log file could not be opened anew; lines go on into the one that was open"
        ),
    }
}

/// Has the log file opened anew by its name, which a rotation may have given to another file. Tells
/// whether there is one.
pub fn reopen_file() -> bool {
    let file = SINKS.get().and_then(|sinks| sinks.file.as_ref());
    file.map(|file| file.reopen()).is_some()
}

/// Waits until all log lines are written, but not longer than [`LOG_FLUSH_TIMEOUT`]: for the end of the
/// process.
pub fn flush() {
    let deadline = Instant::now() + LOG_FLUSH_TIMEOUT;
    SINKS.get().into_iter().flat_map(Sinks::all).for_each(|sink| sink.flush(deadline));
}

/// How many lines each place has lost since the process started.
pub fn lines_dropped() -> impl Iterator<Item = (&'static str, u64)> {
    SINKS.get().into_iter().flat_map(Sinks::all).map(|sink| (sink.name(), sink.lines_dropped()))
}

/// Writes a line that an operator, or a script, waits for: at every log level.
pub fn announce(line: &str) {
    if dispatcher::has_been_set() {
        info!(target: ANNOUNCEMENT, "{line}");
    } else {
        complain(line);
    }
}

/// Says why the process ends, or why it did not start, as the last of its log lines; on stderr alone
/// where logging was not set up.
pub fn last_word(exit_code: u8, reason: &dyn std::fmt::Display) {
    if SINKS.get().is_some() {
        error!(exit_code, "replog: {reason}");
        flush();
    } else {
        complain(&format!("replog: {reason}"));
    }
}

/// Writes a line to stderr as it is, for as long as there is no log. Accepts that nobody may be there
/// to read it, which `eprintln!` does not, or that nobody takes it, which `write` does not.
pub fn complain(line: &str) {
    let whole = format!("{line}\n");
    let (written, done) = sync_channel(1);
    let write = move || {
        let _ = io::stderr().write_all(whole.as_bytes());
        let _ = written.send(());
    };
    match thread::Builder::new().spawn(write) {
        Ok(_) => drop(done.recv_timeout(LOG_FLUSH_TIMEOUT)),
        // No thread is to be had, which may be why there is something to say. Here a place that takes
        // nothing is at least seen beforehand.
        Err(_) => {
            let stderr = io::stderr();
            let mut waited = [PollFd::new(&stderr, PollFlags::OUT)];
            if matches!(poll(&mut waited, Some(&Timespec::default())), Ok(1)) {
                let _ = stderr.lock().write_all(format!("{line}\n").as_bytes());
            }
        }
    }
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("its message is no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    error!(thread, place, "replog: panicked, which is a bug: {message}");
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        error!(%backtrace, "where it panicked");
    }
}

/// Colour is for people: on a terminal that has some, unless they said no (no-color.org).
fn coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && !refused && !dumb
}

/// Makes each log line one entry of a sink's queue.
struct Lines(Arc<Sink>);

/// A line that is written into a sink.
struct Line<'s> {
    sink: &'s Sink,
    important: bool,
}

impl<'s> MakeWriter<'s> for Lines {
    type Writer = Line<'s>;

    fn make_writer(&'s self) -> Line<'s> {
        Line { sink: &self.0, important: false }
    }

    fn make_writer_for(&'s self, meta: &Metadata<'_>) -> Line<'s> {
        let important = *meta.level() == Level::ERROR || meta.target() == ANNOUNCEMENT;
        Line { sink: &self.0, important }
    }
}

/// The library writes a line by one call.
impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.sink.push(line, self.important);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn the_file_gets_whole_plain_lines_and_announcements_at_every_level() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        std::fs::write(&path, "before\n").unwrap();
        let sink = open(&path).unwrap();
        let terminal = layer(LogFormat::Text, io::sink, DefaultFields::new(), true);
        let plain =
            layer(LogFormat::Text, Lines(sink.clone()), FileFields(DefaultFields::new()), false);
        let filter =
            Targets::new().with_default(LevelFilter::ERROR).with_target(ANNOUNCEMENT, Level::INFO);
        let subscriber = tracing_subscriber::registry().with(terminal).with(plain).with(filter);
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::error_span!("peer", id = "s1").entered();
            info!("unseen");
            tracing::error!(seq = 7, "seen \u{1b}[31m");
            announce("ready id=master");
        });
        sink.flush(Instant::now() + PATIENCE);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "before");
        assert!(lines[1].contains("seen") && lines[1].ends_with("seq=7"), "{text}");
        assert!(lines[2].ends_with("ready id=master"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    /// Whoever reads the log file finds the panic there, with its place.
    #[test]
    fn a_panic_is_a_log_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        let sink = open(&path).unwrap();
        let fields = FileFields(DefaultFields::new());
        let json = layer(LogFormat::Json, Lines(sink.clone()), fields, false);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(json), || {
            let panicked = std::panic::catch_unwind(|| panic!("of {} reasons", 1));
            assert!(panicked.is_err());
        });
        std::panic::set_hook(before);
        sink.flush(Instant::now() + PATIENCE);
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let line: serde_json::Value = serde_json::from_str(first).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["message"], "replog: panicked, which is a bug: of 1 reasons");
        assert!(line["place"].as_str().unwrap().contains("logging/mod.rs:"), "{line}");
    }

    #[test]
    fn json_lines_have_the_announcement_in_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        let sink = open(&path).unwrap();
        let fields = FileFields(DefaultFields::new());
        let json = layer(LogFormat::Json, Lines(sink.clone()), fields, false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(json), || {
            announce("ready id=s1");
        });
        sink.flush(Instant::now() + PATIENCE);
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "ready id=s1");
    }
}
