//! `--watch`: the same thing shown again every second, in place on a terminal and one block after
//! the other elsewhere, until it is interrupted.
//!
//! On a terminal nothing is switched: the cursor goes up by as many lines as were written, and each
//! line is written over. So nothing must be put back when it ends, however it ends.

use std::io::IsTerminal;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::output::{Stdout, failure};
use super::{Exit, complain};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows what `look` gives, lines with their ends, until SIGINT or until nobody reads it.
/// `separator` stands between two blocks where they cannot be shown in place.
pub(super) async fn watch(separator: &str, mut look: impl AsyncFnMut() -> String) -> Exit {
    let mut stdout = Stdout::new();
    let mut screen = std::io::stdout().is_terminal().then(Screen::default);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = true;
    // One listener for all the time: one made anew for each look would miss what came in between.
    let mut interrupt = match signal(SignalKind::interrupt()) {
        Ok(interrupt) => interrupt,
        Err(error) => {
            complain(format_args!("cannot listen for signals: {error}"));
            return Exit::Refused;
        }
    };
    loop {
        let text = tokio::select! {
            biased;
            // Whoever watches ends it this way: it is the normal end.
            _ = interrupt.recv() => break,
            text = async {
                ticks.tick().await;
                look().await
            } => text,
        };
        match &mut screen {
            Some(screen) => {
                let frame = screen.frame(&text, terminal_size());
                stdout.buffer().extend_from_slice(frame.as_bytes());
            }
            None => {
                if !std::mem::take(&mut first) {
                    stdout.buffer().extend_from_slice(separator.as_bytes());
                }
                stdout.buffer().extend_from_slice(text.as_bytes());
            }
        }
        if let Err(error) = stdout.flush() {
            return failure(&error);
        }
    }
    if screen.is_some() {
        // Over the `^C` that the terminal printed.
        stdout.buffer().extend_from_slice(b"\r\x1b[J");
    }
    match stdout.flush() {
        Ok(()) => Exit::Done,
        Err(error) => failure(&error),
    }
}

/// Columns and rows, if the terminal tells.
fn terminal_size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    let (columns, rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (columns > 0 && rows > 1).then_some((columns, rows))
}

/// What stands on the terminal.
#[derive(Debug, Default)]
struct Screen {
    /// Lines written last, above the cursor.
    lines: usize,
}

impl Screen {
    /// What to write so that `text` stands where the last one stood. Lines are cut at the edge: a
    /// line that wraps would make two.
    fn frame(&mut self, text: &str, size: Option<(usize, usize)>) -> String {
        let mut frame = match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r"),
        };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if let Some((columns, rows)) = size {
            lines.iter_mut().for_each(|line| *line = cut(line, columns));
            // The cursor needs the last row.
            let hidden = lines.len().saturating_sub(rows - 1);
            if hidden > 0 {
                lines.truncate(rows.saturating_sub(2));
                lines.push(cut(&format!("({} more lines)", hidden + 1), columns));
            }
        }
        for line in &lines {
            frame.push_str(line);
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J");
        self.lines = lines.len();
        frame
    }
}

/// The part of a line that fits; colours take no room, and end with the line.
fn cut(line: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut room = columns;
    let mut letters = line.chars();
    let mut coloured = false;
    while let Some(letter) = letters.next() {
        if letter == '\x1b' {
            out.push(letter);
            coloured = true;
            for letter in letters.by_ref() {
                out.push(letter);
                if letter.is_ascii_alphabetic() {
                    break;
                }
            }
        } else if room > 0 {
            out.push(letter);
            room -= 1;
        }
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_written_over_the_one_before() {
        let mut screen = Screen::default();
        assert_eq!(screen.frame("a\nb\n", None), "a\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(screen.frame("c\n", None), "\x1b[2A\rc\x1b[K\n\x1b[J");
        assert_eq!(screen.frame("d\n", None), "\x1b[1A\rd\x1b[K\n\x1b[J");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_counted() {
        let mut screen = Screen::default();
        let frame = screen.frame("12345678901234567890\nb\nc\nd\n", Some((14, 4)));
        assert_eq!(frame, "12345678901234\x1b[K\nb\x1b[K\n(2 more lines)\x1b[K\n\x1b[J");
        assert_eq!(screen.lines, 3);
        assert_eq!(screen.frame("a\nb\nc\n", Some((14, 4))).matches("\x1b[K").count(), 3);
    }

    #[test]
    fn a_cut_leaves_no_colour_behind() {
        assert_eq!(cut("\x1b[31mred\x1b[0m and more", 2), "\x1b[31mre\x1b[0m\x1b[0m");
        assert_eq!(cut("plain", 10), "plain");
    }
}
