//! The right to take a home's inbox: one process at a time has it, by a lock that dies with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::error::ClientError;

const FILE_NAME: &str = "receiver.lock";

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct ReceiverLock {
    _file: File,
}

impl ReceiverLock {
    /// Takes the lock if nobody has it.
    pub(crate) fn acquire(home: &Path) -> Result<Self, ClientError> {
        let path = home.join(FILE_NAME);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|source| ClientError::Io { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(ClientError::Receiving(home.to_owned())),
            Err(TryLockError::Error(source)) => Err(ClientError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_receiver_at_a_time_and_the_next_after_it() {
        let home = tempfile::tempdir().unwrap();
        let first = ReceiverLock::acquire(home.path()).unwrap();
        assert!(matches!(ReceiverLock::acquire(home.path()), Err(ClientError::Receiving(_))));
        drop(first);
        ReceiverLock::acquire(home.path()).unwrap();
    }
}
