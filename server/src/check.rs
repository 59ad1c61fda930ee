//! The audit of a data directory that no server uses, or of a backup: everything is read, nothing is changed.

mod database;
mod directory;
mod files;
mod owners;
mod places;
mod push;
mod report;
mod rules;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use report::{Finding, Kind, Report};
use rules::Times;

use crate::backup::Manifest;
use crate::seal::{Keyring, KeyringError, SecretName};
use crate::store::StoreError;
use crate::store::rocks::format;
use crate::time::load_last_known_ms;

/// How to audit.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The server's time, in milliseconds since 1970.
    pub now_ms: u64,
    /// How long messages live.
    pub retention_ms: u64,
    /// How long commits live.
    pub commit_retention_ms: u64,
    /// The master key, if it is kept elsewhere.
    pub master_key: Option<&'a Path>,
}

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is nothing to audit.
    #[error("{0} is no data directory and no backup of Gureum: it has no file FORMAT and no directory db")]
    Nothing(String),
    /// A server works in it.
    #[error("{0}; make a backup of it with `gureumd backup` and check that")]
    InUse(StoreError),
    /// The disk refused.
    #[error("the directory cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// Audits a directory.
///
/// # Errors
/// When there is nothing to audit, or it is in use. Damage is not an error but a finding.
pub fn check(directory: &Path, options: &Options<'_>) -> Result<Report, CheckError> {
    if !directory.join("db").exists() && !directory.join("FORMAT").exists() {
        return Err(CheckError::Nothing(directory.display().to_string()));
    }
    let _lock = match format::hold(directory) {
        Ok(lock) => lock,
        Err(error @ StoreError::InUse(_)) => return Err(CheckError::InUse(error)),
        Err(error) => return Err(CheckError::Io(std::io::Error::other(error.to_string()))),
    };
    let known_ms = load_last_known_ms(directory).ok().flatten().unwrap_or_default();
    let times = Times {
        now_ms: options.now_ms,
        server_ms: options.now_ms.max(known_ms),
        retention_ms: options.retention_ms,
        commit_retention_ms: options.commit_retention_ms,
    };
    let mut report = Report::new();
    let manifest = Manifest::read(directory).ok();
    if let Some(manifest) = &manifest {
        files::backup(directory, manifest, &mut report);
    } else if directory.join("backup.json").exists() {
        report.find(Kind::File, "backup.json", &[], "the list of the backup's files does not read");
    }
    files::data_dir(directory, manifest.is_some(), &times, &mut report);
    let keyring = keyring(directory, manifest.is_some(), options, &mut report);
    database::check(directory, manifest.is_some(), keyring.as_ref(), &times, &mut report);
    files::missing(directory, manifest.is_some(), &mut report);
    Ok(report)
}

/// The keys, without those that do not open. `None` where there are none, as in a backup, which holds the wrapped secrets
/// alone.
fn keyring(directory: &Path, is_backup: bool, options: &Options<'_>, report: &mut Report) -> Option<Keyring> {
    let keys = directory.join("keys");
    if !keys.exists() || is_backup && !files::holds_keys(&keys) {
        return None;
    }
    match Keyring::inspect(&keys, options.master_key, options.retention_ms) {
        Ok((keyring, damaged)) => {
            for error in damaged {
                report.find(Kind::File, "keys", &[], error.to_string());
            }
            for name in SecretName::ALL {
                if let Err(error) = keyring.inspect_secret(name) {
                    report.find(Kind::File, format!("keys/{}", name.file()), &[], error.to_string());
                }
            }
            Some(keyring)
        }
        Err(error @ KeyringError::MasterMissing(_)) => {
            report.find(Kind::File, "keys/master.key", &[], error.to_string());
            None
        }
        Err(error) => {
            report.find(Kind::File, "keys", &[], error.to_string());
            None
        }
    }
}
