//! The fence: how far the database has certainly come, written beside it, so that a start notices a database that has
//! lost its end. RocksDB takes a cut list of files, or a log that is cut or missing, for what a crash leaves.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checked;
use crate::files::{read_small, write_private};
use crate::store::StoreError;

/// The file's name in a data directory.
const NAME: &str = "sequence";

/// As many digits as any number has, so that a number is overwritten in place.
const DIGITS: usize = 20;

/// The highest sequence number that is on the disk.
#[derive(Debug)]
pub(super) struct Fence {
    file: File,
    written: AtomicU64,
}

/// The number that a data directory's file says, if there is one.
pub(crate) fn read(directory: &Path) -> io::Result<Option<u64>> {
    let Some(bytes) = read_small(&directory.join(NAME))? else { return Ok(None) };
    let number = checked::text(NAME, &bytes).filter(|digits| digits.len() == DIGITS);
    let number = number.and_then(|digits| digits.parse().ok());
    let no_number =
        || io::Error::new(io::ErrorKind::InvalidData, "the file `sequence` of the data directory is damaged");
    number.map(Some).ok_or_else(no_number)
}

/// The same, or nothing where the file is missing or damaged, which [`Fence::verify`] reports.
pub(crate) fn known(directory: &Path) -> Option<u64> {
    read(directory).ok().flatten()
}

/// Says how far a database has come that is put into a directory, whatever the one before it had come to.
pub(crate) fn write(directory: &Path, sequence: u64) -> io::Result<()> {
    write_private(&directory.join(NAME), &text(sequence))
}

impl Fence {
    /// Compares the database with what it had come to.
    pub(super) fn verify(directory: &Path, found: u64) -> Result<Self, StoreError> {
        let path = directory.join(NAME);
        let written = match read(directory) {
            Ok(Some(written)) => written,
            Ok(None) => {
                if found > 0 {
                    tracing::warn!(
                        "the file `sequence` is missing: whether the database has lost its end nobody knows"
                    );
                }
                write(directory, found).map(|()| found).map_err(|error| world(&error))?
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StoreError::Damaged(format!("{error}: remove it if an audit finds nothing else")));
            }
            Err(error) => return Err(world(&error)),
        };
        if found < written {
            return Err(StoreError::Damaged(format!(
                "it ends at change {found}, and had come to {written}: its log or its list of files is cut or missing. \
                 Restore a backup; or, to go on without what is gone, make a backup of the directory and restore that, so \
                 that no position is used twice"
            )));
        }
        let file = OpenOptions::new().write(true).open(&path).map_err(|error| world(&error))?;
        let fence = Self { file, written: AtomicU64::new(written) };
        fence.raise(found)?;
        Ok(fence)
    }

    /// Everything up to this number is on the disk. Not synced: what a power cut leaves may be older, and then says
    /// less; a process that is killed leaves the newest.
    ///
    /// # Errors
    /// The disk takes nothing, though it has just synced something. Ext4 that turns read-only during an fsync may answer
    /// that with success and lose what it was for: whoever has asked for it must not go on. A disk without room is none
    /// such.
    pub(super) fn raise(&self, sequence: u64) -> Result<(), StoreError> {
        if self.written.fetch_max(sequence, Ordering::AcqRel) >= sequence {
            return Ok(());
        }
        match self.file.write_at(&text(sequence), 0) {
            Err(error) if !is_full(&error) => Err(world(&error)),
            _ => Ok(()),
        }
    }

    /// Brings it to the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| world(&error))
    }
}

fn text(sequence: u64) -> Vec<u8> {
    checked::line(NAME, &format!("{sequence:0DIGITS$}")).into_bytes()
}

fn world(error: &io::Error) -> StoreError {
    if is_full(error) {
        return StoreError::Full(error.to_string());
    }
    StoreError::Io(format!("the file `sequence`: {error}"))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
impl Fence {
    /// From now on the disk refuses to write it.
    pub(super) fn turn_read_only(&mut self, directory: &Path) {
        self.file = File::open(directory.join(NAME)).expect("readable");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_has_lost_its_end_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let fence = Fence::verify(directory.path(), 3).expect("new");
        fence.raise(10).expect("writable");
        fence.raise(7).expect("writable");
        fence.sync().expect("writable");
        assert_eq!(read(directory.path()).expect("readable"), Some(10));
        assert!(Fence::verify(directory.path(), 10).is_ok());
        let error = Fence::verify(directory.path(), 9).expect_err("lost").to_string();
        assert!(error.contains("ends at change 9, and had come to 10"), "{error}");
    }

    #[test]
    fn a_disk_that_does_not_take_it_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut fence = Fence::verify(directory.path(), 3).expect("new");
        fence.turn_read_only(directory.path());
        fence.raise(3).expect("there is nothing to write");
        let refused = fence.raise(4);
        assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
    }

    #[track_caller]
    fn is_refused_by_name(directory: &Path, bytes: &[u8]) {
        std::fs::write(directory.join(NAME), bytes).expect("writable");
        let error = Fence::verify(directory, 9).expect_err("damaged").to_string();
        assert!(error.contains("`sequence`"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        for damaged in ["", "00000", "0000000000000000001x\n", "00000000000000000009\n"] {
            is_refused_by_name(directory.path(), damaged.as_bytes());
        }
    }

    #[test]
    fn no_flipped_bit_is_another_number() {
        let directory = tempfile::tempdir().expect("a directory");
        let written = text(9);
        for bit in 0..written.len() * 8 {
            let mut flipped = written.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            is_refused_by_name(directory.path(), &flipped);
        }
    }
}
