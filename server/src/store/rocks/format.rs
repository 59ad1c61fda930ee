//! Whose directory it is: its format, checked before anything is touched, and the lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::files;
use crate::store::StoreError;

/// What the file `FORMAT` of a data directory says.
pub(crate) const FORMAT: &str = "gureum-store 2";

/// As much of an unknown format as an error repeats.
const FOUND_BYTES_MAX: u64 = 64;

/// Checks the directory's format, claims the directory for this process, and marks a new one.
pub(crate) fn claim(directory: &Path) -> Result<File, StoreError> {
    let found = check(directory)?;
    fs::create_dir_all(directory).map_err(world)?;
    let lock = lock(directory)?;
    if found.is_none() {
        // Another process may have been first: look again now that it cannot.
        match check(directory)? {
            Some(()) => {}
            None => mark(directory).map_err(world)?,
        }
    }
    Ok(lock)
}

/// `None` when there is nothing yet.
pub(crate) fn check(directory: &Path) -> Result<Option<()>, StoreError> {
    let mut text = Vec::new();
    match File::open(directory.join("FORMAT")) {
        Ok(file) => file.take(FOUND_BYTES_MAX).read_to_end(&mut text).map_err(world)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if directory.join("db").exists() {
                return Err(StoreError::UnknownFormat { found: "none".to_owned(), known: FORMAT });
            }
            return Ok(None);
        }
        Err(error) => return Err(world(error)),
    };
    let found = String::from_utf8_lossy(&text);
    if found.trim_end() == FORMAT {
        return Ok(Some(()));
    }
    Err(StoreError::UnknownFormat { found: found.trim_end().to_owned(), known: FORMAT })
}

/// Claims a directory for this process, as long as the file is held.
pub(crate) fn lock(directory: &Path) -> Result<File, StoreError> {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("LOCK")).map_err(world)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.display().to_string())),
        Err(TryLockError::Error(error)) => Err(world(error)),
    }
}

/// Claims a directory that must stay as it is: one that has no lock, as a backup, is not given one.
pub(crate) fn hold(directory: &Path) -> Result<Option<File>, StoreError> {
    match File::open(directory.join("LOCK")) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.display().to_string())),
            Err(TryLockError::Error(error)) => Err(world(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(world(error)),
    }
}

/// Says that the directory is of this format.
pub(crate) fn mark(directory: &Path) -> io::Result<()> {
    let temporary = directory.join("FORMAT.new");
    let mut file = File::create(&temporary)?;
    file.write_all(format!("{FORMAT}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join("FORMAT"))?;
    File::open(directory)?.sync_all()
}

/// Takes that back: until it is said again, a start refuses a database in the directory.
pub(crate) fn unmark(directory: &Path) -> io::Result<()> {
    files::remove(&directory.join("FORMAT"))
}

pub(super) fn world(error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::StorageFull {
        return StoreError::Full(error.to_string());
    }
    StoreError::Io(error.to_string())
}
