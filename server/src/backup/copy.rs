//! Copies of files: hard links where a file never changes and the disk allows, else bytes.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::BackupError;
use crate::files::make_private_dir;

/// A name beside a path.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, ToOwned::to_owned);
    name.push(ending);
    path.with_file_name(name)
}

/// Removes a directory, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BackupError::at(path)(error)),
        _ => Ok(()),
    }
}

/// Copies a database whose files stand still, durably. RocksDB's own log stays behind.
pub(super) fn database(from: &Path, to: &Path) -> Result<(), BackupError> {
    files(from, &list(from)?, to)
}

/// The names of a database's files.
fn list(from: &Path) -> Result<Vec<OsString>, BackupError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(BackupError::at(from))? {
        let entry = entry.map_err(BackupError::at(from))?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if !(text == "LOCK" || text.starts_with("LOG") || entry.path().is_dir()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Copies all of these files; that one is gone is an error.
fn files(from: &Path, names: &[OsString], to: &Path) -> Result<(), BackupError> {
    make_private_dir(to).map_err(BackupError::at(to))?;
    for name in names {
        let (path, target) = (from.join(name), to.join(name));
        // Tables are never written again; everything else may be.
        let is_linked = path.extension().is_some_and(|ending| ending == "sst") && fs::hard_link(&path, &target).is_ok();
        if !is_linked {
            let at = |error: &io::Error| if error.kind() == io::ErrorKind::NotFound { &path } else { &target };
            fs::copy(&path, &target).map_err(|error| BackupError::at(at(&error))(error))?;
        }
        sync(&target)?;
    }
    sync(to)
}

/// Writes a new file that only its owner reads, and the directories above it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let directory = path.parent().unwrap_or(path);
    make_private_dir(directory).map_err(BackupError::at(directory))?;
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(BackupError::at(path))?;
    sync(directory)
}

/// Brings a file or a directory to the disk.
pub(super) fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(BackupError::at(path))
}

/// Brings the name of a path to the disk.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_file_that_goes_between_the_listing_and_its_copy_fails_the_copy_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir(&from).unwrap();
        for name in ["000004.log", "000009.sst", "CURRENT", "LOCK", "LOG.old.1"] {
            fs::write(from.join(name), name).unwrap();
        }
        let mut names = list(&from).unwrap();
        names.sort();
        assert_eq!(names, ["000004.log", "000009.sst", "CURRENT"]);
        for gone in ["000009.sst", "CURRENT"] {
            let bytes = fs::read(from.join(gone)).unwrap();
            fs::remove_file(from.join(gone)).unwrap();
            let error = files(&from, &names, &to).unwrap_err().to_string();
            assert!(error.contains(gone), "{error}");
            remove(&to).unwrap();
            fs::write(from.join(gone), bytes).unwrap();
        }
        files(&from, &names, &to).unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), names.len());
    }
}
