//! The last known time, kept beside the database: the clock is needed before the database may be opened.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::checked;
use crate::fault::step;

/// As the error of [`super::ClockError::TooFarAhead`] names it.
const NAME: &str = "clock";

/// A time that was not written here may be years ahead: believed, it would let every message expire.
const DAMAGED: &str = "the file `clock` of the data directory is damaged: see that the system clock is right, then \
                       remove the file and start again";

/// Reads the last known time of a data directory, if there is one.
///
/// # Errors
/// When the file can't be read, or holds anything else.
pub fn load_last_known_ms(directory: &Path) -> io::Result<Option<u64>> {
    match fs::read(directory.join(NAME)) {
        Ok(bytes) => {
            let time_ms = checked::text(NAME, &bytes).and_then(|digits| digits.parse().ok());
            time_ms.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, DAMAGED))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the last known time; a crash leaves the old or the new.
///
/// # Errors
/// When the disk refuses.
pub fn save_last_known_ms(directory: &Path, time_ms: u64) -> io::Result<()> {
    let new = directory.join("clock.new");
    let mut file = File::create(&new)?;
    file.write_all(checked::line(NAME, &time_ms.to_string()).as_bytes())?;
    file.sync_all()?;
    step("clock::written");
    fs::rename(&new, directory.join(NAME))?;
    step("clock::renamed");
    File::open(directory)?.sync_all()?;
    step("clock::saved");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back_and_the_latest_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(load_last_known_ms(directory.path()).expect("readable"), None);
        for time_ms in [1, u64::MAX, 7] {
            save_last_known_ms(directory.path(), time_ms).expect("writable");
            assert_eq!(load_last_known_ms(directory.path()).expect("readable"), Some(time_ms));
        }
    }

    #[track_caller]
    fn is_refused(bytes: &[u8]) {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(NAME), bytes).expect("writable");
        let error = load_last_known_ms(directory.path()).expect_err("no time");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("`clock`") && error.to_string().contains("remove the file"), "{error}");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bytes in ["", "soon", "1800000000000", "1800000000000\n", &checked::line(NAME, "soon")] {
            is_refused(bytes.as_bytes());
        }
    }

    #[test]
    fn no_flipped_bit_is_another_time() {
        let directory = tempfile::tempdir().expect("a directory");
        save_last_known_ms(directory.path(), 1_800_000_000_000).expect("writable");
        let written = fs::read(directory.path().join(NAME)).expect("readable");
        for bit in 0..written.len() * 8 {
            let mut flipped = written.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            is_refused(&flipped);
        }
    }
}
