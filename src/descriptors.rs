//! The descriptors of this process: files, sockets and pipes together may be so many and no more.
//!
//! Whoever opens one more than that is told EMFILE, whoever does so when the whole machine has no
//! more is told ENFILE, and it may be anybody: the log that begins a segment as well as the client
//! that connects. So the limit is raised at start, clients get what the log and the other nodes
//! leave them, and a few descriptors are kept open for nothing: the log opens its files in their
//! place when there are no others.

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::SPARE_DESCRIPTORS;

/// Kept open so that they can be closed. A process has one table of descriptors, so this is one
/// thing of the process, too.
// Held for a few calls of the system that do not wait.
static SPARE: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Raises the limit of this process as far as it is allowed to, and takes the spare descriptors.
/// Returns how many descriptors there may be from now on; `u64::MAX` without a limit.
pub fn prepare() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    // Whoever may not raise it works with what there is.
    let now = if current != maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        maximum
    } else {
        current
    };
    keep_spare();
    now.unwrap_or(u64::MAX)
}

/// How many descriptors this process may have; `u64::MAX` without a limit.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether an error says that there are no descriptors left, here or on the whole machine.
pub fn is_exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::MFILE.raw_os_error()) || code == Some(Errno::NFILE.raw_os_error())
}

/// Opens a file, in place of a spare descriptor if there are no others.
///
/// # Errors
/// Those of `open`; that no descriptor is left only once the spare ones were given up in vain.
pub fn open_with_spare<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match open() {
            Err(error) if is_exhausted(&error) && give_up_one() => {}
            opened => return opened,
        }
    }
}

/// Does `work` that needs a descriptor, and waits for one if there is none, for 2 s at most: for what
/// a node cannot go on without. Others close theirs meanwhile.
///
/// # Errors
/// Those of `work`.
pub fn insist<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const ATTEMPTS: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 1..ATTEMPTS {
        match work() {
            Err(error) if is_exhausted(&error) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    work()
}

/// Closes a spare descriptor; false if there is none.
pub fn give_up_one() -> bool {
    spare().pop().is_some()
}

/// Takes the spare descriptors that were given up, as far as there are any. Returns whether all are
/// there.
pub fn keep_spare() -> bool {
    let mut spare = spare();
    while spare.len() < SPARE_DESCRIPTORS {
        match File::open("/dev/null") {
            Ok(file) => spare.push(file),
            Err(_) => return false,
        }
    }
    true
}

fn spare() -> MutexGuard<'static, Vec<File>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_opened_in_place_of_a_spare_descriptor() {
        assert!(keep_spare());
        let mut refusals = 0;
        let opened = open_with_spare(|| {
            refusals += 1;
            if refusals <= 2 { Err(Errno::MFILE.into()) } else { Ok(refusals) }
        });
        assert_eq!(opened.expect("two were given up"), 3);
        let machine_is_full = open_with_spare(|| io::Result::<()>::Err(Errno::NFILE.into()));
        assert!(is_exhausted(&machine_is_full.expect_err("there are never any")));
        assert!(!give_up_one(), "all were given up for it");
        assert!(keep_spare());
        let other = open_with_spare(|| io::Result::<()>::Err(Errno::NOENT.into()));
        assert_eq!(other.expect_err("no such file").kind(), io::ErrorKind::NotFound);
        assert!(give_up_one(), "none is given up for another reason");
    }
}
