//! Backups: a copy of everything but the message keys, made while the server runs or while it does not, and the way
//! back from one.

mod copy;
mod manifest;
mod restore;

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::control::{self, Answer, CHECKPOINT, SOCKET};
use crate::files::{make_private_dir, read_small};
use crate::seal::{KeyringError, SecretName};
use crate::store::StoreError;
use crate::store::rocks::format;
pub use manifest::{BackedFile, Manifest};
pub use restore::{Restored, restore};

/// What lies beside the database and goes with it. No message key, and no master key: they stay with the server.
const BESIDE: [&str; 6] = ["invite.key", "vapid.key", "clock", "server.json", "tls/cert.pem", "tls/key.pem"];

/// The directory of the keys. Of what is in it the secrets of push targets and numbers go with a backup: they are wrapped by
/// the master key, and worth nothing without it.
const KEYS: &str = "keys";

/// Why there is no backup, or no way back from it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory to write is there already.
    #[error("{0} exists already: give a directory that does not")]
    Exists(PathBuf),
    /// The directory to restore into has a server.
    #[error("{0} holds a database already: move it away first, or restore into another directory")]
    Occupied(PathBuf),
    /// The directory is none of a server.
    #[error("{0} holds no Gureum database")]
    NoServer(PathBuf),
    /// The directory is no backup.
    #[error("{0} is no backup: it has no whole file `backup.json`")]
    NoBackup(PathBuf),
    /// The backup is not what was written.
    #[error("the backup is damaged, and nothing was restored: {0}; use another one")]
    Damaged(String),
    /// The running server could not make the copy.
    #[error("the running server made no copy: {0}")]
    Server(String),
    /// The running server took its copy back.
    #[error(
        "the running server took its copy of the database back before all of it was read, because it stops or because \
         half an hour has passed: nothing was kept; make the backup again"
    )]
    TakenBack,
    /// The master key that was named is none.
    #[error(transparent)]
    Master(KeyringError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BackupError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Makes a backup of a data directory at `to`, which is there whole or not at all.
///
/// # Errors
/// When `to` exists, the directory is none of a server, or a disk refuses; then nothing stays at `to`.
pub fn take(data_dir: &Path, to: &Path, now_ms: u64) -> Result<Manifest, BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    if format::check(data_dir)?.is_none() {
        return Err(BackupError::NoServer(data_dir.to_owned()));
    }
    let new = copy::beside(to, ".new");
    copy::remove(&new)?;
    let made = write(data_dir, &new, now_ms).and_then(|manifest| {
        std::fs::rename(&new, to).and_then(|()| copy::sync_parent(to)).map_err(BackupError::at(to))?;
        Ok(manifest)
    });
    if made.is_err() {
        let _ = copy::remove(&new);
    }
    made
}

fn write(data_dir: &Path, new: &Path, now_ms: u64) -> Result<Manifest, BackupError> {
    make_private_dir(new).map_err(BackupError::at(new))?;
    Source::open(data_dir)?.copy(data_dir, &new.join("db"))?;
    let secrets = SecretName::ALL.iter().map(|name| Path::new(KEYS).join(name.file()));
    for name in BESIDE.iter().map(PathBuf::from).chain(secrets) {
        let from = data_dir.join(&name);
        if let Some(bytes) = read_small(&from).map_err(BackupError::at(&from))? {
            copy::write(&new.join(&name), &bytes)?;
        }
    }
    format::mark(new).map_err(BackupError::at(new))?;
    let manifest = Manifest::of(new, now_ms)?;
    manifest.write(new)?;
    Ok(manifest)
}

/// Where the files of the database stand still.
enum Source {
    /// In a copy that the running server made; it goes with the connection.
    Running { copy: PathBuf, connection: UnixStream },
    /// In the directory itself, of which no server can take possession meanwhile.
    Stopped { _lock: std::fs::File },
}

impl Source {
    fn open(data_dir: &Path) -> Result<Self, BackupError> {
        match format::lock(data_dir) {
            Ok(lock) => Ok(Self::Stopped { _lock: lock }),
            Err(StoreError::InUse(_)) => Self::ask(data_dir),
            Err(error) => Err(error.into()),
        }
    }

    fn ask(data_dir: &Path) -> Result<Self, BackupError> {
        let path = data_dir.join(SOCKET);
        match control::ask(data_dir, CHECKPOINT).map_err(BackupError::at(&path))? {
            (connection, Answer::Path(copy)) => Ok(Self::Running { copy, connection }),
            (_, Answer::Error(why)) => Err(BackupError::Server(why)),
            (_, Answer::Deleted { .. }) => Err(BackupError::Server("it did something else".to_owned())),
        }
    }

    /// Copies all of its files.
    fn copy(mut self, data_dir: &Path, to: &Path) -> Result<(), BackupError> {
        let copied = copy::database(&self.path(data_dir), to);
        // First: that all files went says more than which of them was missed.
        self.stands_still()?;
        copied
    }

    /// Whether its files are all there still. A server closes the connection before it takes away the first of them.
    fn stands_still(&mut self) -> Result<(), BackupError> {
        let Self::Running { connection, .. } = self else { return Ok(()) };
        let mut byte = [0];
        let read = connection.set_nonblocking(true).and_then(|()| connection.read(&mut byte));
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            _ => Err(BackupError::TakenBack),
        }
    }

    fn path(&self, data_dir: &Path) -> PathBuf {
        match self {
            Self::Running { copy, .. } => copy.clone(),
            Self::Stopped { .. } => data_dir.join("db"),
        }
    }
}

#[cfg(test)]
mod tests;
