//! What a person has decided for this device.

use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::KIND_RECEIPT;
use super::{Settings, Vault, VaultError};

const RECEIPTS: &str = "receipts";
const OFF: &str = "off";
const ON: &str = "on";

impl Vault {
    /// The settings.
    ///
    /// # Errors
    /// The database failed.
    pub fn settings(&mut self) -> Result<Settings, VaultError> {
        self.read(|connection, _| Ok(Settings { receipts: receipts_on(connection)? }))
    }

    /// Turns receipts on or off, both those that this device sends and those that it shows. What was owed is forgotten
    /// when they are turned off.
    ///
    /// # Errors
    /// The database failed.
    pub fn set_receipts(&mut self, on: bool) -> Result<(), VaultError> {
        self.write(|work| {
            let sql = "INSERT INTO setting (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
            work.connection.execute(sql, params![RECEIPTS, if on { ON } else { OFF }])?;
            if !on {
                work.connection.execute("DELETE FROM receipt_owed", [])?;
                // What has a counter may have gone out.
                let sql = format!("DELETE FROM outbox WHERE kind = {KIND_RECEIPT} AND counter IS NULL");
                work.connection.execute(&sql, [])?;
            }
            Ok(())
        })
    }
}

/// Whether receipts are on, which they are until somebody turns them off.
pub(super) fn receipts_on(connection: &Connection) -> Result<bool, VaultError> {
    let mut statement = connection.prepare_cached("SELECT value FROM setting WHERE key = ?1")?;
    let value: Option<String> = statement.query_row(params![RECEIPTS], |row| row.get(0)).optional()?;
    Ok(value.is_none_or(|value| value != OFF))
}
