//! Room on the disk for bad times: a file that is never read.
//!
//! It keeps two things: room for the next run of entries, so that what was let in can be written, and
//! room for control records, so that a promise can be kept when nothing else is free. Both are given up
//! when they are needed, and taken again when there is room.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::Home;
use crate::limits::{RESERVE_CONTROL_BYTES, RESERVE_STEP_BYTES, ROOM_RETRY, RUN_DISK_EXTRA_BYTES};
use crate::store::fs::{FsFile, is_full};
use crate::types::{RoomLimit, Shortage};

/// See the module.
pub(super) struct Room {
    home: Home,
    file: Arc<dyn FsFile>,
    /// The longest run for which there is to be room at any time.
    entry_bytes: u64,
    /// How much of the disk the file has.
    held: Cell<u64>,
    /// The last try that found no room, and how much it wanted.
    refused: Cell<Option<(Instant, u64, Shortage)>>,
    /// Without regard to when it was tried last, for simulations without a clock.
    always_try: bool,
}

/// What is missing when a call of the system found no room for `need` bytes.
pub(super) fn shortage(home: &Home, error: &io::Error, need: u64) -> Shortage {
    let limit = match error.kind() {
        io::ErrorKind::QuotaExceeded => RoomLimit::Quota,
        io::ErrorKind::FileTooLarge => {
            RoomLimit::FileSize(home.fs.file_bytes_max().unwrap_or_default())
        }
        _ => RoomLimit::Space,
    };
    let free = match limit {
        RoomLimit::Space => home.fs.free_bytes(&home.dir),
        RoomLimit::Quota | RoomLimit::FileSize(_) => None,
    };
    Shortage { need, free, limit }
}

impl Room {
    /// Takes all of the room, or as much as control records need, or none.
    pub(super) fn new(
        home: Home,
        file: Arc<dyn FsFile>,
        entry_bytes: u64,
        always_try: bool,
    ) -> Room {
        let room = Room {
            home,
            file,
            entry_bytes,
            held: Cell::new(0),
            refused: Cell::new(None),
            always_try,
        };
        let wanted = room.wanted(0);
        if room.file.len().is_ok_and(|len| len > wanted) {
            // It grew for longer runs, or an older version kept more.
            let _ = room.file.set_len(wanted);
        }
        if room.check(0).is_err() {
            room.take_control();
        }
        room
    }

    /// What is kept free for what was let in.
    pub(super) fn reserve_bytes(&self) -> u64 {
        self.held.get().max(self.wanted(0))
    }

    /// How long the file is to be so that runs of `bytes` together can be let in.
    fn wanted(&self, bytes: u64) -> u64 {
        let wanted = RESERVE_CONTROL_BYTES + RUN_DISK_EXTRA_BYTES + self.entry_bytes;
        if bytes <= self.entry_bytes {
            return wanted;
        }
        // A footer has 40 bytes for each 64 KiB.
        let index = bytes / 1024;
        (wanted - self.entry_bytes + bytes + index).next_multiple_of(RESERVE_STEP_BYTES)
    }

    /// Makes the file so long. What a failed try took does not stay: others need it.
    fn hold(&self, bytes: u64) -> io::Result<()> {
        if let Err(error) = self.file.occupy(bytes) {
            let _ = self.file.set_len(self.held.get());
            return Err(error);
        }
        self.held.set(bytes);
        Ok(())
    }

    /// Takes the room for control records, if there is any.
    fn take_control(&self) {
        if self.held.get() < RESERVE_CONTROL_BYTES {
            // There is none: `check` tells so.
            let _ = self.hold(RESERVE_CONTROL_BYTES);
        }
    }

    /// Gives the room up but for so much.
    fn give_up(&self, but: u64) -> io::Result<()> {
        self.file.set_len(but)?;
        self.held.set(but);
        Ok(())
    }

    /// Whether runs of `bytes` together can be let in; tries to get the room for them.
    pub(super) fn check(&self, bytes: u64) -> Result<(), Shortage> {
        let wanted = self.wanted(bytes);
        if self.held.get() >= wanted {
            return Ok(());
        }
        let now = Instant::now();
        if let Some((tried, refused, shortage)) = self.refused.get()
            && wanted >= refused
            && now.saturating_duration_since(tried) < ROOM_RETRY
            && !self.always_try
        {
            return Err(shortage);
        }
        match self.hold(wanted) {
            Ok(()) => {
                self.refused.set(None);
                Ok(())
            }
            Err(error) => {
                let shortage = self.refuse(&error, wanted);
                self.take_control();
                Err(shortage)
            }
        }
    }

    fn refuse(&self, error: &io::Error, wanted: u64) -> Shortage {
        let need = wanted.saturating_sub(self.held.get());
        let shortage = shortage(&self.home, error, need);
        self.refused.set(Some((Instant::now(), wanted, shortage)));
        shortage
    }

    /// Tries, and if there is no space, once more with the room that was kept for entries.
    pub(super) fn with_reserve<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if is_full(&error) && self.held.get() > RESERVE_CONTROL_BYTES => {
                self.give_up(RESERVE_CONTROL_BYTES)?;
                let done = work();
                // Not taken back at once: what comes now needs it.
                self.refuse(&error, self.wanted(0));
                done
            }
            done => done,
        }
    }

    /// The same, and once more with the room that was kept for control records.
    pub(super) fn with_control<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match self.with_reserve(&mut work) {
            Err(error) if is_full(&error) && self.held.get() > 0 => {
                self.give_up(0)?;
                let done = work();
                self.take_control();
                self.refuse(&error, self.wanted(0));
                done
            }
            done => done,
        }
    }
}
