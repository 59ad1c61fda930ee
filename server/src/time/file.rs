//! The last known time, kept beside the database: the clock is needed before the database may be opened.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::fault::step;

/// As the error of [`super::ClockError::TooFarAhead`] names it.
const NAME: &str = "clock";

/// Reads the last known time of a data directory, if there is one.
///
/// # Errors
/// When the file can't be read, or holds anything else.
pub fn load_last_known_ms(directory: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(directory.join(NAME)) {
        Ok(text) => text.trim_end().parse().map(Some).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "the file `clock` of the data directory holds no time")
        }),
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
    file.write_all(format!("{time_ms}\n").as_bytes())?;
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

    #[test]
    fn what_is_no_time_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(NAME), "soon").expect("writable");
        assert_eq!(load_last_known_ms(directory.path()).expect_err("no time").kind(), io::ErrorKind::InvalidData);
    }
}
