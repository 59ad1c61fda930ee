//! Contacts: whose device logs were seen, and that they are believed only forwards.

use gureum_proto::{AccountFound, AccountId, DeviceId, DeviceLog, Handle, LogChange, LogError};
use rusqlite::{OptionalExtension, params};

use super::work::{Work, held_log, load_log};
use super::{Contact, Event, Learned, TrustError, Vault, VaultError};

const SAFETY_CONTEXT: &str = "gureum 2026-11 safety number v1";
const SAFETY_GROUPS: usize = 12;
const SAFETY_GROUP_BYTES: usize = 5;

impl Vault {
    /// The first log entry of an account to ask the server for.
    ///
    /// # Errors
    /// The database failed.
    pub fn log_from(&mut self, account: AccountId) -> Result<u64, VaultError> {
        self.read(|connection, _| {
            let sql = "SELECT count(*) FROM log_entry WHERE account = ?1";
            Ok(connection.query_row(sql, params![account.as_bytes()], |row| row.get(0))?)
        })
    }

    /// Verifies and keeps what the server told of an account; `log_from` is the entry that was asked for.
    ///
    /// # Errors
    /// The entries do not hold, or are not those seen before; then nothing changes.
    pub fn learn_account(&mut self, found: &AccountFound, log_from: u64) -> Result<Learned, TrustError> {
        self.write(|work| learn(work, found, log_from))
    }

    /// A contact by its account.
    ///
    /// # Errors
    /// The database failed.
    pub fn contact(&mut self, account: AccountId) -> Result<Option<Contact>, VaultError> {
        self.read(|connection, _| {
            let sql = "SELECT handle FROM contact WHERE account = ?1";
            let handle = connection.query_row(sql, params![account.as_bytes()], |row| row.get::<_, String>(0));
            contact(connection, handle.optional()?.map(|handle| (account, handle)))
        })
    }

    /// A contact by its handle.
    ///
    /// # Errors
    /// The database failed.
    pub fn contact_by_handle(&mut self, handle: &Handle) -> Result<Option<Contact>, VaultError> {
        self.read(|connection, _| {
            let sql = "SELECT account FROM contact WHERE handle = ?1";
            let account = connection.query_row(sql, params![handle.as_str()], |row| row.get::<_, [u8; 16]>(0));
            contact(connection, account.optional()?.map(|id| (AccountId::from_bytes(id), handle.to_string())))
        })
    }

    /// Sixty digits in groups of five, the same on both sides; they change only if an account was replaced.
    #[must_use]
    pub fn safety_number(&self, account: AccountId) -> String {
        let own = self.identity.account;
        let (first, second) = (own.min(account), own.max(account));
        let mut hasher = blake3::Hasher::new_derive_key(SAFETY_CONTEXT);
        hasher.update(first.as_bytes()).update(second.as_bytes());
        let mut digits = [0; SAFETY_GROUPS * SAFETY_GROUP_BYTES];
        hasher.finalize_xof().fill(&mut digits);
        let group = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) % 100_000;
        let groups: Vec<_> = digits.chunks(SAFETY_GROUP_BYTES).map(|bytes| format!("{:05}", group(bytes))).collect();
        groups.join(" ")
    }
}

fn contact(connection: &rusqlite::Connection, row: Option<(AccountId, String)>) -> Result<Option<Contact>, VaultError> {
    let Some((account, handle)) = row else { return Ok(None) };
    let handle = handle.parse().map_err(|_| VaultError::Damaged("handle"))?;
    Ok(load_log(connection, account)?.map(|log| Contact { account, handle, log }))
}

pub(super) fn learn(work: &mut Work<'_>, found: &AccountFound, log_from: u64) -> Result<Learned, TrustError> {
    let account = found.account;
    let invalid = |why| TrustError::Invalid { account, why };
    let known = held_log(work.connection, account)?;
    let seen = known.as_ref().map_or(0, DeviceLog::length);
    let pin = work.pin(account)?;
    let least = pin.map_or(seen, |pin| pin.length.max(seen));
    if found.log_length < least {
        return Err(TrustError::Shorter { account, seen: least, shown: found.log_length });
    }
    if log_from > seen || (found.log_entries.is_empty() && log_from < found.log_length) {
        return Err(TrustError::Incomplete(account));
    }
    check_handle(work, found)?;
    let (mut log, mut revoked) = (known, Vec::new());
    for (number, entry) in (log_from..).zip(&found.log_entries) {
        if number < seen {
            if stored_entry(work, account, number)? != entry.as_ref() {
                return Err(TrustError::Forked(account));
            }
            continue;
        }
        let first_time = seen == 0;
        match &mut log {
            None => log = Some(DeviceLog::from_root(entry).map_err(invalid)?),
            Some(log) => {
                let change = log.append(entry).map_err(|why| match why {
                    LogError::Fork => TrustError::Forked(account),
                    why => invalid(why),
                })?;
                if !first_time {
                    tell(work, found, &change)?;
                    revoked.extend(revoked_by(change));
                }
            }
        }
        if log.as_ref().is_some_and(|log| pin.is_some_and(|pin| pin.length == log.length() && pin != log.at())) {
            return Err(TrustError::Forked(account));
        }
        let sql = "INSERT INTO log_entry (account, number, entry) VALUES (?1, ?2, ?3)";
        work.connection.execute(sql, params![account.as_bytes(), number, entry.as_ref()])?;
    }
    if !revoked.is_empty() {
        work.note_revoked(account, &revoked)?;
    }
    let log = log.filter(|log| log.account() == account).ok_or(TrustError::Incomplete(account))?;
    let sql = "INSERT INTO contact (account, handle) VALUES (?1, ?2) ON CONFLICT (account) DO UPDATE SET handle = ?2";
    work.connection.execute(sql, params![account.as_bytes(), found.handle.as_str()])?;
    if pin.is_some_and(|pin| pin.length <= log.length()) {
        work.unpin(account)?;
    }
    let more = log.length() < found.log_length;
    if !more {
        work.asked.account_answered(account, log.length() > seen);
    }
    Ok(Learned { contact: Contact { account, handle: found.handle.clone(), log }, more })
}

/// A handle that moved to another account is what an impostor would look like: a person must look.
fn check_handle(work: &Work<'_>, found: &AccountFound) -> Result<(), TrustError> {
    let sql = "SELECT account FROM contact WHERE handle = ?1 AND account != ?2";
    let before = work
        .connection
        .query_row(sql, params![found.handle.as_str(), found.account.as_bytes()], |row| row.get::<_, [u8; 16]>(0))
        .optional()?;
    match before {
        Some(before) => {
            Err(TrustError::HandleMoved { handle: found.handle.to_string(), before: AccountId::from_bytes(before) })
        }
        None => Ok(()),
    }
}

fn stored_entry(work: &Work<'_>, account: AccountId, number: u64) -> Result<Vec<u8>, VaultError> {
    let sql = "SELECT entry FROM log_entry WHERE account = ?1 AND number = ?2";
    Ok(work.connection.query_row(sql, params![account.as_bytes(), number], |row| row.get(0))?)
}

fn revoked_by(change: LogChange) -> Vec<DeviceId> {
    match change {
        LogChange::Revoked(device) => vec![device],
        LogChange::Recovered { revoked, .. } => revoked,
        LogChange::Added(_) | LogChange::RecoveryRotated => Vec::new(),
    }
}

fn tell(work: &Work<'_>, found: &AccountFound, change: &LogChange) -> Result<(), VaultError> {
    let (account, handle) = (found.account, || found.handle.to_string());
    let added = |device: &DeviceId| {
        let name = work.device_name(*device)?;
        work.event(Event::DeviceAdded { account, handle: handle(), device: *device, name }).map(drop)
    };
    let revoked = |device: &DeviceId| {
        let name = work.device_name(*device)?;
        work.event(Event::DeviceRevoked { account, handle: handle(), device: *device, name }).map(drop)
    };
    match change {
        LogChange::Added(device) => added(device),
        LogChange::Revoked(device) => revoked(device),
        LogChange::RecoveryRotated => Ok(()),
        LogChange::Recovered { added: new, revoked: old } => {
            old.iter().try_for_each(revoked)?;
            added(new)
        }
    }
}
