//! That this account was deleted: its home keeps the history and connects no more.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Vault, VaultError};

/// Kept as a setting of this device alone: what others tell of it counts for nothing.
pub(super) const DELETED: &str = "deleted";

impl Vault {
    /// The server holds nothing of this account any more.
    ///
    /// # Errors
    /// The database failed.
    pub fn mark_deleted(&mut self) -> Result<(), VaultError> {
        self.write(|work| {
            let sql = "INSERT OR REPLACE INTO setting (key, value) VALUES (?1, 'yes')";
            work.connection.execute(sql, params![DELETED])?;
            Ok(())
        })
    }

    /// Whether this account was deleted, as far as this device knows.
    ///
    /// # Errors
    /// The database failed.
    pub fn is_deleted(&mut self) -> Result<bool, VaultError> {
        self.read(|connection, _| is_deleted(connection))
    }
}

pub(super) fn is_deleted(connection: &Connection) -> Result<bool, VaultError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM setting WHERE key = ?1")?;
    Ok(statement.query_row(params![DELETED], |_| Ok(())).optional()?.is_some())
}
