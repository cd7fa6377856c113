//! Whether everything is still where it was: people move, restore and tidy up directories that are in
//! use. What is written into a file that has lost its name is found by nobody, so that a node must not
//! go on; what is only a name is put back.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::meta::{META, Meta};
use super::write::DiskLog;
use super::{LOCK, name_of};
use crate::limits::HOME_LOOK_INTERVAL;
use crate::store::fs::FileId;
use crate::store::{Identity, StoreError};
use crate::types::Epoch;

/// How a name is found that should be that of a certain file.
enum Found {
    It,
    Nothing,
    Another,
}

fn found(now: io::Result<FileId>, expected: FileId) -> Found {
    match now {
        Ok(id) if id == expected => Found::It,
        Ok(_) => Found::Another,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Found::Nothing
        }
        // It may be there: what is written next finds out.
        Err(_) => Found::It,
    }
}

impl DiskLog {
    /// Looks, about once a second, whether directory and files are where they were. Says what was put
    /// back.
    ///
    /// # Errors
    /// [`StoreError::Gone`]: the node must end. Or the disk failed.
    pub fn look_at_home(&mut self) -> Result<Vec<String>, StoreError> {
        let now = Instant::now();
        let looked = self.looked.filter(|_| !self.options.manual_sync);
        if looked.is_some_and(|looked| now - looked < HOME_LOOK_INTERVAL) {
            return Ok(Vec::new());
        }
        self.looked = Some(now);
        self.check_usable()?;
        self.check_home()?;
        self.check_active()?;
        let mut notes = Vec::new();
        if matches!(self.home.fs.id(&self.home.dir.join(META)), Err(error) if error.kind() == ErrorKind::NotFound)
        {
            self.write_meta(self.meta.clone())?;
            notes.push("the file meta was removed, and is written again".to_owned());
        }
        if self.lock_again()? {
            notes.push("the file lock was removed or replaced, and is made again".to_owned());
        }
        Ok(notes)
    }

    fn gone(&mut self, what: String) -> StoreError {
        let gone = StoreError::Gone { what };
        self.failed = Some(gone.clone());
        gone
    }

    /// Whether the directory is the one that was opened.
    pub(super) fn check_home(&mut self) -> Result<(), StoreError> {
        let what = match found(self.home.fs.id(&self.home.dir), self.dir_id) {
            Found::It => return Ok(()),
            Found::Nothing => "nothing is there any more",
            Found::Another => "another one is in its place",
        };
        let dir = self.home.dir.display();
        Err(self.gone(format!(
            "the data directory {dir} was moved or removed while this node used it: {what}; put it \
             back, or name its new place with --data-dir, then start the node again"
        )))
    }

    /// Whether the segment that is written to still has its name. If not, the log may end before
    /// entries that were answered, and the next start must not vouch for it.
    fn check_active(&mut self) -> Result<(), StoreError> {
        let Some(active) = &self.active else { return Ok(()) };
        let path = active.segment.path.clone();
        let Ok(expected) = active.file.id() else { return Ok(()) };
        let what = match found(self.home.fs.id(&path), expected) {
            Found::It => return Ok(()),
            Found::Nothing => "removed",
            Found::Another => "replaced",
        };
        // What it has settled the next start finds in what is left.
        let settled = Epoch::ZERO;
        let identity = Identity { vouches: false, settled, ..self.meta.identity.clone() };
        let kept = self.write_meta(Meta { identity, ..self.meta.clone() });
        let name = name_of(&path);
        let gone = self.gone(format!(
            "the segment {name} in {} was {what} while this node wrote to it: start the node again, \
             what is missing it gets from the other nodes",
            self.home.dir.display()
        ));
        kept.and(Err(gone))
    }

    /// Takes the lock file again, for older versions that know no other lock, if it is not there.
    fn lock_again(&mut self) -> Result<bool, StoreError> {
        let path = self.home.dir.join(LOCK);
        if let Found::It = found(self.home.fs.id(&path), self.file_lock.id()) {
            return Ok(false);
        }
        match self.home.fs.lock(&path, &format!("{}\n", std::process::id())) {
            Ok(Ok(lock)) => {
                self.file_lock = lock;
                Ok(true)
            }
            Ok(Err(holder)) => Err(self.gone(format!(
                "the file {} was replaced, and process {} uses the directory: stop one of the two",
                path.display(),
                holder.trim()
            ))),
            // The directory itself stays locked; the next look tries again.
            Err(_) => Ok(false),
        }
    }
}
