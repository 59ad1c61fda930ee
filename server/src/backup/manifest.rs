//! What a backup says of itself: when, by which version, and every file with its hash.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{BackupError, copy};
use crate::files::read_small;
use crate::store::rocks::format::FORMAT;

/// The file's name in a backup.
const NAME: &str = "backup.json";

/// The contents of a backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// The format of its store.
    pub format: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// The version of the program that made it.
    pub version: String,
    /// All its files.
    pub files: Vec<BackedFile>,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackedFile {
    /// Its path in the backup.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The BLAKE3 hash of its content, in hexadecimal.
    pub blake3: String,
}

impl Manifest {
    /// Describes the files of a directory.
    pub(super) fn of(directory: &Path, created_ms: u64) -> Result<Self, BackupError> {
        let mut files = Vec::new();
        for path in walk(directory)? {
            files.push(BackedFile::of(directory, &path)?);
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self { format: FORMAT.to_owned(), created_ms, version, files })
    }

    /// Reads a backup's.
    ///
    /// # Errors
    /// When there is none, or none that is whole.
    pub fn read(directory: &Path) -> Result<Self, BackupError> {
        let path = directory.join(NAME);
        let bytes = read_small(&path).map_err(BackupError::at(&path))?;
        let manifest = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        manifest.ok_or_else(|| BackupError::NoBackup(directory.to_owned()))
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), BackupError> {
        let text = serde_json::to_vec_pretty(self).expect("paths of our own and numbers are always JSON");
        copy::write(&directory.join(NAME), &text)
    }

    /// What of the directory is not as it was written: each file with what is wrong with it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn differences(&self, directory: &Path) -> Result<Vec<(PathBuf, &'static str)>, BackupError> {
        let mut differences = Vec::new();
        for file in &self.files {
            if !directory.join(&file.path).exists() {
                differences.push((file.path.clone(), "is missing"));
            } else if BackedFile::of(directory, &file.path)? != *file {
                differences.push((file.path.clone(), "is not what was written"));
            }
        }
        Ok(differences)
    }

    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl BackedFile {
    fn of(directory: &Path, path: &Path) -> Result<Self, BackupError> {
        let whole = directory.join(path);
        let mut hasher = blake3::Hasher::new();
        let bytes = File::open(&whole)
            .and_then(|mut file| std::io::copy(&mut file, &mut hasher))
            .map_err(BackupError::at(&whole))?;
        Ok(Self { path: path.to_owned(), bytes, blake3: hasher.finalize().to_hex().to_string() })
    }
}

/// The files below a directory, two levels deep as a backup is, relative to it.
fn walk(directory: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).map_err(BackupError::at(&next))? {
            let path = entry.map_err(BackupError::at(&next))?.path();
            if path.is_dir() {
                waiting.push(path);
            } else if let Ok(relative) = path.strip_prefix(directory) {
                found.push(relative.to_owned());
            }
        }
    }
    Ok(found)
}
