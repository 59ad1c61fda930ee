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
    make_private_dir(to).map_err(BackupError::at(to))?;
    for entry in fs::read_dir(from).map_err(BackupError::at(from))? {
        let path = entry.map_err(BackupError::at(from))?.path();
        let Some(name) = path.file_name() else { continue };
        let text = name.to_string_lossy();
        if path.is_dir() || text == "LOCK" || text.starts_with("LOG") {
            continue;
        }
        let target = to.join(name);
        // Tables are never written again; everything else may be.
        let is_linked = path.extension().is_some_and(|ending| ending == "sst") && fs::hard_link(&path, &target).is_ok();
        if !is_linked {
            fs::copy(&path, &target).map_err(BackupError::at(&target))?;
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
