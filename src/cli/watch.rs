//! `--watch`: the same thing shown again every second, in place on a terminal and one block after
//! the other elsewhere, until it is interrupted.
//!
//! On a terminal the cursor goes up by as many lines as were written, and each line is written over:
//! no screen is switched to, and what was shown last stays. Only keys are taken, and given back. A
//! terminal that cannot move its cursor gets one block after the other.

use std::borrow::Cow;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::Exit;
use super::interrupt::{Interrupts, received};
use super::keyboard::Keyboard;
use super::output::{Content, Stdout, failure};
use super::overview::Overview;
use super::terminal::{Medium, fit, is_dumb, size_of, wrap};

/// What was heard, to be written as wide as there is room for.
#[derive(Debug)]
pub(super) enum Shown {
    /// Lines of text.
    Text(String),
    /// Objects, a line each.
    Json(String),
    /// All nodes, for people.
    Overview(Overview),
}

impl Shown {
    /// Lines with their ends.
    pub(super) fn text(&self, medium: Medium) -> String {
        match self {
            Shown::Text(text) => medium.visible(text).into_owned(),
            Shown::Json(json) => {
                let json = Content::Json.shown(json.as_bytes(), medium.terminal);
                String::from_utf8_lossy(&json).into_owned()
            }
            Shown::Overview(overview) => overview.text(medium),
        }
    }
}

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows what `look` gives until SIGINT, SIGTERM or a key, or until nobody reads it. `separator` stands
/// between two blocks where they cannot be shown in place.
pub(super) async fn watch(
    separator: &str,
    mut look: impl AsyncFnMut() -> Shown,
    interrupts: &mut Interrupts,
) -> Exit {
    let mut stdout = Stdout::new(Content::AsIs);
    let in_place = Medium::of_stdout().terminal && !is_dumb();
    let mut screen = in_place.then(Screen::default);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Without it the next look shows the new size.
    let mut resized = signal(SignalKind::window_change()).ok().filter(|_| in_place);
    let resumes = SignalKind::from_raw(Signal::CONT.as_raw());
    let mut resumed = signal(resumes).ok().filter(|_| in_place);
    // Taken whenever it is to be had: a program may come to the foreground later.
    let mut keyboard = None;
    let mut shown: Option<Shown> = None;
    loop {
        if in_place
            && keyboard.is_none()
            && let Some(taken) = Keyboard::take()
        {
            // Until now the terminal may have been somebody else's, who wrote to it.
            (keyboard, screen) = (Some(taken), Some(Screen::default()));
        }
        let looked = tokio::select! {
            biased;
            // Whoever watches ends it this way: it is the normal end.
            _ = interrupts.first() => break,
            () = Keyboard::quit(keyboard.as_mut()) => break,
            () = received(&mut resumed) => {
                // Whoever had the terminal meanwhile has set it anew.
                (keyboard, screen) = (None, Some(Screen::default()));
                None
            }
            () = received(&mut resized) => None,
            looked = async {
                ticks.tick().await;
                look().await
            } => Some(looked),
        };
        let again = shown.is_some();
        let Some(now) = looked.or(shown.take()) else { continue };
        let text = now.text(Medium::of_stdout());
        shown = Some(now);
        match &mut screen {
            Some(screen) => {
                let frame = screen.frame(&text, size_of(std::io::stdout()));
                stdout.buffer().extend_from_slice(frame.as_bytes());
            }
            None => {
                if again {
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

/// What stands on the terminal.
#[derive(Debug, Default)]
struct Screen {
    /// Lines written last, above the cursor.
    lines: usize,
    /// Columns and rows when they were written.
    size: Option<(usize, usize)>,
}

impl Screen {
    /// What to write so that `text` stands where the last one stood. Long lines become several: one
    /// that wraps by itself would not be counted.
    fn frame(&mut self, text: &str, size: Option<(usize, usize)>) -> String {
        let mut frame = match self.lines {
            0 => String::new(),
            // Where the old lines are now, only the terminal knows: it may have broken them anew.
            _ if self.size != size => "\x1b[H".to_owned(),
            lines => format!("\x1b[{lines}A\r"),
        };
        self.size = size;
        let mut lines: Vec<Cow<'_, str>> = match size {
            Some((columns, _)) => text.lines().flat_map(|line| wrap(line, columns)).collect(),
            None => text.lines().map(Cow::Borrowed).collect(),
        };
        if let Some((columns, rows)) = size {
            // The cursor needs the last row.
            let hidden = lines.len().saturating_sub(rows.saturating_sub(1));
            if hidden > 0 {
                lines.truncate(rows.saturating_sub(2));
                let more = format!("({} more lines)", hidden + 1);
                lines.extend((rows > 1).then(|| Cow::Owned(fit(&more, columns).into_owned())));
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
    fn what_does_not_fit_is_wrapped_and_what_is_below_the_edge_is_counted() {
        let mut screen = Screen::default();
        let size = Some((14, 5));
        let frame = screen.frame("12345678901234567890\nb\nc\nd\n", size);
        assert_eq!(
            frame,
            "123456789012\x1b[K\n  34567890\x1b[K\nb\x1b[K\n(2 more lines)\x1b[K\n\x1b[J"
        );
        assert_eq!(screen.lines, 4);
        assert_eq!(screen.frame("a\nb\nc\n", size).matches("\x1b[K").count(), 3);
        let narrow = screen.frame("a\nb\nc\nd\ne\n", Some((6, 3)));
        assert!(narrow.ends_with("a\x1b[K\n(4 mo…\x1b[K\n\x1b[J"), "{narrow:?}");
    }

    /// Terminals that break old lines anew would otherwise keep a part of them.
    #[test]
    fn after_a_change_of_size_the_screen_is_written_from_its_top() {
        let mut screen = Screen::default();
        screen.frame("a b c\n", Some((80, 24)));
        let frame = screen.frame("a b c\n", Some((4, 24)));
        assert_eq!(frame, "\x1b[Ha b\x1b[K\nc\x1b[K\n\x1b[J");
        assert_eq!(screen.frame("a\n", Some((4, 24))), "\x1b[2A\ra\x1b[K\n\x1b[J");
    }
}
