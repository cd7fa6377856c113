//! The keys that end what is shown again and again: q and Esc. Ctrl-C stays the signal that it is.
//!
//! A terminal hands over key by key only when it is told so, and must be as it was before at the end,
//! whichever end. This stays by hand, because it is less than what a library would need around it:
//! crossterm makes keys of Ctrl-C and Ctrl-Z, which then do nothing while output is stuck, its calls
//! block on half a sequence, and turn for ever once the terminal is gone.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// The terminal and how it was before its keys were taken, for as long as they are.
static FOUND: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// The keys of the terminal that started us.
#[derive(Debug)]
pub(super) struct Keyboard(Receiver);

impl Keyboard {
    /// Takes them, if there is a terminal and we are in its foreground.
    pub(super) fn take() -> Option<Self> {
        // Opened anew, so that nobody else's reading becomes one that does not wait.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
        let terminal = File::options().read(true).custom_flags(flags).open("/dev/tty").ok()?;
        if is_ours(&terminal) { Keyboard::of(terminal).ok() } else { None }
    }

    fn of(terminal: File) -> io::Result<Self> {
        let found = tcgetattr(&terminal)?;
        let mut modes = found.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Ctrl-\ would end us with nothing put back.
        modes.special_codes[SpecialCodeIndex::VQUIT] = 0;
        // A terminal is read as a pipe is, and the runtime has no type of its own for it.
        let taken = Keyboard(Receiver::from_file_unchecked(terminal.try_clone()?)?);
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        *FOUND.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal, found));
        Ok(taken)
    }

    /// Until somebody asks for the end by a key; for ever without a keyboard. Cancel safe.
    pub(super) async fn quit(keyboard: Option<&mut Self>) {
        if let Some(Keyboard(keys)) = keyboard {
            let mut typed = [0; 64];
            // Whoever reads in the background is stopped, and those keys are not for us.
            while keys.readable().await.is_ok() && is_ours(&*keys) {
                match keys.read(&mut typed).await {
                    // The terminal is gone.
                    Ok(0) | Err(_) => break,
                    Ok(count) if asks_for_the_end(&typed[..count]) => return,
                    Ok(_) => {}
                }
            }
        }
        pending().await
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Makes the terminal what it was. For every end: that of the program too.
pub(super) fn give_back() {
    let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner).take();
    // In the background it is as whoever is in front wants it.
    if let Some((terminal, modes)) = found.filter(|(terminal, _)| is_ours(terminal)) {
        // If the terminal is gone, nothing can be done about it.
        let _ = tcsetattr(terminal, OptionalActions::Now, &modes);
    }
}

/// Whether we are in the foreground of the terminal.
fn is_ours(terminal: impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

/// Esc comes alone; with more behind it, it begins what another key sends.
fn asks_for_the_end(typed: &[u8]) -> bool {
    match typed {
        [b'\x1b', rest @ ..] => rest.is_empty(),
        keys => keys.iter().any(|key| matches!(key, b'q' | b'Q')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_asked_for_by_q_and_by_esc_and_by_no_other_key() {
        assert!([&b"q"[..], b"Q", b"\x1b", b"xq"].into_iter().all(asks_for_the_end));
        assert!(![&b"x"[..], b"\x1b[A", b"\x1bq", b"", b"\r"].into_iter().any(asks_for_the_end));
    }
}
