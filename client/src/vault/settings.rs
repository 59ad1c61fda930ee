//! What a person has decided, on whichever of their devices.

use gureum_proto::{DeviceId, DeviceLog};
use rusqlite::{Connection, OptionalExtension, params};

use super::account::DELETED;
use super::outbox::KIND_RECEIPT;
use super::work::{Work, held_log};
use super::{Settings, Vault, VaultError};
use crate::e2ee::content::record::SETTING;
use crate::limits::{NUMBER_MAX, SETTINGS_MAX};

const RECEIPTS: &str = "receipts";
const TYPING: &str = "typing";
const OFF: &str = "off";
pub(super) const ON: &str = "on";

/// A setting as it is kept. Of two, the greater counts; but one that was decided on a device which is not active in the
/// account's log gives way to any that was decided on an active one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    /// One more than what was seen when it was decided.
    pub(super) stamp: u64,
    /// Where it was decided.
    pub(super) device: DeviceId,
    pub(super) value: String,
}

impl Vault {
    /// The settings.
    ///
    /// # Errors
    /// The database failed.
    pub fn settings(&mut self) -> Result<Settings, VaultError> {
        self.read(|connection, _| Ok(Settings { receipts: receipts_on(connection)?, typing: typing_on(connection)? }))
    }

    /// Turns receipts on or off, both those that this account's devices send and those that they show. What was owed is
    /// forgotten when they are turned off.
    ///
    /// # Errors
    /// The database failed.
    pub fn set_receipts(&mut self, on: bool) -> Result<(), VaultError> {
        self.write(|work| decide(work, RECEIPTS, on))
    }

    /// Turns typing indicators on or off, both those that this account's devices send and those that they show.
    ///
    /// # Errors
    /// The database failed.
    pub fn set_typing(&mut self, on: bool) -> Result<(), VaultError> {
        self.write(|work| decide(work, TYPING, on))
    }
}

/// A person has decided something here, after all that this device has heard of.
pub(super) fn decide(work: &Work<'_>, key: &str, on: bool) -> Result<(), VaultError> {
    decide_as(work, key, if on { ON } else { OFF }.to_owned())
}

/// The same of what is not just on or off.
pub(super) fn decide_as(work: &Work<'_>, key: &str, value: String) -> Result<(), VaultError> {
    let log = held_log(work.connection, work.identity.account)?;
    let mut statement = work.connection.prepare_cached("SELECT stamp, device FROM setting")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1).map(DeviceId::from_bytes)?)))?;
    let rows = rows.collect::<Result<Vec<(u64, DeviceId)>, _>>()?;
    let counts = rows.into_iter().filter(|(_, device)| is_active(log.as_ref(), *device));
    let seen = counts.map(|(stamp, _)| stamp).max().unwrap_or(0);
    let stamp = seen.saturating_add(1).min(NUMBER_MAX);
    put(work, key, &Held { stamp, device: work.identity.device, value })?;
    work.owe_record(SETTING, key.as_bytes())
}

/// Whether what was decided on a device counts, as far as this account's log says.
pub(super) fn is_active(log: Option<&DeviceLog>, device: DeviceId) -> bool {
    log.is_none_or(|log| log.is_active(device))
}

/// Keeps what was decided here or elsewhere, unless what is here counts more. `log`: that of this account.
pub(super) fn keep_setting(work: &Work<'_>, log: Option<&DeviceLog>, key: &str, told: &Held) -> Result<(), VaultError> {
    if key == DELETED {
        return Ok(());
    }
    match setting(work.connection, key)? {
        Some(held) => {
            let (ours, theirs) = (is_active(log, held.device), is_active(log, told.device));
            if ours && !theirs {
                // Whoever tells it may have learned of the revocation since, and passed over what counts more.
                work.owe_record(SETTING, key.as_bytes())?;
            }
            if (ours, &held) >= (theirs, told) {
                return Ok(());
            }
        }
        None => {
            let sql = "SELECT count(*) FROM setting";
            let kept: u64 = work.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            if kept >= SETTINGS_MAX {
                return Ok(());
            }
        }
    }
    put(work, key, told)
}

fn put(work: &Work<'_>, key: &str, held: &Held) -> Result<(), VaultError> {
    let sql = "INSERT OR REPLACE INTO setting (key, value, stamp, device) VALUES (?1, ?2, ?3, ?4)";
    let row = params![key, held.value, held.stamp, held.device.as_bytes()];
    work.connection.prepare_cached(sql)?.execute(row)?;
    if key == RECEIPTS && held.value == OFF {
        work.connection.execute("DELETE FROM receipt_owed", [])?;
        // What has a counter may have gone out.
        let sql = format!("DELETE FROM outbox WHERE kind = {KIND_RECEIPT} AND counter IS NULL");
        work.connection.execute(&sql, [])?;
    }
    Ok(())
}

/// A setting, if anybody has decided it.
pub(super) fn setting(connection: &Connection, key: &str) -> Result<Option<Held>, VaultError> {
    let mut statement = connection.prepare_cached("SELECT stamp, device, value FROM setting WHERE key = ?1")?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Held { stamp: row.get(0)?, device: DeviceId::from_bytes(row.get(1)?), value: row.get(2)? })
    };
    Ok(statement.query_row(params![key], read).optional()?)
}

/// Whether receipts are on, which they are until somebody turns them off.
pub(super) fn receipts_on(connection: &Connection) -> Result<bool, VaultError> {
    is_on(connection, RECEIPTS)
}

/// Whether typing indicators are on, likewise.
pub(super) fn typing_on(connection: &Connection) -> Result<bool, VaultError> {
    is_on(connection, TYPING)
}

fn is_on(connection: &Connection, key: &str) -> Result<bool, VaultError> {
    Ok(setting(connection, key)?.is_none_or(|held| held.value != OFF))
}
