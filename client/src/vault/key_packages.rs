//! KeyPackages: made in numbers, renewed before they are too old, and forgotten when nobody can use them any more.

use bytes::Bytes;
use rusqlite::params;

use super::work::Work;
use super::{Vault, VaultError};
use crate::e2ee;
use crate::limits::{KEY_PACKAGE_KEPT_MS, KEY_PACKAGE_RENEW_MS, KEY_PACKAGES_MADE_MAX};

impl Vault {
    /// Makes one-time KeyPackages; each is an MLSMessage.
    ///
    /// # Errors
    /// The database failed.
    pub fn make_key_packages(&mut self, count: usize) -> Result<Vec<Bytes>, VaultError> {
        self.write(|work| {
            let make = |_| Ok(work.mls().key_package(false)?.into());
            let made = (0..count.min(KEY_PACKAGES_MADE_MAX)).map(make).collect::<Result<_, VaultError>>()?;
            note_age(work)?;
            Ok(made)
        })
    }

    /// Makes a last-resort KeyPackage.
    ///
    /// # Errors
    /// The database failed.
    pub fn make_last_resort(&mut self) -> Result<Bytes, VaultError> {
        self.write(|work| {
            let made = work.mls().key_package(true)?.into();
            note_age(work)?;
            Ok(made)
        })
    }

    /// Whether new one-time KeyPackages should take the place of those made last, or of none.
    ///
    /// # Errors
    /// The database failed.
    pub fn key_packages_due(&mut self) -> Result<bool, VaultError> {
        self.write(|work| is_due(work, false))
    }

    /// Whether a new last resort should take the place of the one made last, or of none.
    ///
    /// # Errors
    /// The database failed.
    pub fn last_resort_due(&mut self) -> Result<bool, VaultError> {
        self.write(|work| is_due(work, true))
    }

    /// Forgets the secrets of KeyPackages that nobody can use any more, by this device's clock and by the server's:
    /// neither alone can make it forget too early.
    ///
    /// # Errors
    /// The database failed.
    pub fn forget_key_packages(&mut self, server_time_ms: u64) -> Result<(), VaultError> {
        self.write(|work| forget_old(work, work.now_ms.min(server_time_ms)))
    }
}

/// Whether the newest of one kind are as old as they should become, or there were none.
fn is_due(work: &Work<'_>, last_resort: bool) -> Result<bool, VaultError> {
    note_age(work)?;
    let last_resorts = e2ee::last_resorts(work.connection)?;
    // One-time ones that were used are in this table still: they count by their age.
    let mut statement = work.connection.prepare_cached("SELECT reference, made_ms FROM key_package")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows = rows.collect::<Result<Vec<(Vec<u8>, u64)>, _>>()?;
    let is_meant = |(reference, _): &&(Vec<u8>, u64)| last_resorts.contains(reference) == last_resort;
    let newest = rows.iter().filter(is_meant).map(|(_, made_ms)| *made_ms).max();
    Ok(newest.is_none_or(|made_ms| made_ms.saturating_add(KEY_PACKAGE_RENEW_MS) <= work.now_ms))
}

/// Notes when the newest were made. Those of unknown age, of a home from before this was noted, count from now, and so
/// do those that a clock dated ahead which has been put right since.
fn note_age(work: &Work<'_>) -> Result<(), VaultError> {
    let mut statement =
        work.connection.prepare_cached("INSERT OR IGNORE INTO key_package (reference, made_ms) VALUES (?1, ?2)")?;
    for reference in e2ee::key_packages(work.connection)? {
        statement.execute(params![reference, work.now_ms])?;
    }
    work.connection.execute("UPDATE key_package SET made_ms = ?1 WHERE made_ms > ?1", params![work.now_ms])?;
    Ok(())
}

fn forget_old(work: &Work<'_>, now_ms: u64) -> Result<(), VaultError> {
    let made_until = now_ms.saturating_sub(KEY_PACKAGE_KEPT_MS);
    let mut statement = work.connection.prepare_cached("SELECT reference FROM key_package WHERE made_ms <= ?1")?;
    let old = statement.query_map(params![made_until], |row| row.get(0))?.collect::<Result<Vec<Vec<u8>>, _>>()?;
    for reference in old {
        e2ee::forget_key_package(work.connection, &reference)?;
        work.connection.execute("DELETE FROM key_package WHERE reference = ?1", params![reference])?;
    }
    Ok(())
}
