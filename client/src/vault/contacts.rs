//! Contacts: whose device logs were seen, and that they are believed only forwards.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use gureum_proto::{AccountFound, AccountId, DeviceId, DeviceLog, Handle, LogChange, LogError};
use rusqlite::{OptionalExtension, params};

use super::devices::Pin;
use super::history::SAFETY_NUMBER;
use super::work::{ACTIVE, Work, held_log, load_log};
use super::{Contact, Event, Learned, TrustError, Vault, VaultError};
use crate::e2ee::content::record::CONTACT;

const SAFETY_CONTEXT: &str = "gureum 2026-11 safety number v1";
const SAFETY_GROUPS: usize = 12;
const SAFETY_GROUP_BYTES: usize = 5;

/// An account whose handle stands for another one here: it has given way to none, and stands for the handle when a person
/// has agreed to it.
const KNOWN_BY_ITS_LOG: &str =
    "INSERT INTO contact (account, handle, former) VALUES (?1, ?2, 1) ON CONFLICT (account) DO NOTHING";

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
    /// The entries do not hold, or are not those seen before; then nothing changes. Or the handle stands for another
    /// account: that is told once, by an event and in the history, and the log is kept all the same, for groups are judged
    /// by it. [`Self::go_on_with_moved`] accepts the account for the handle.
    pub fn learn_account(&mut self, found: &AccountFound, log_from: u64) -> Result<Learned, TrustError> {
        self.write(|work| {
            let seen = held_log(work.connection, found.account)?.map_or(0, |log| log.length());
            let is_told = work.pin(found.account)?.is_some();
            match learn(work, found, log_from) {
                // What was noted of it stays.
                Err(moved @ TrustError::HandleMoved { .. }) => Ok(Err(moved)),
                Ok(learned) => {
                    // What another device of this account has told of, it knows.
                    if learned.contact.log.length() > seen && !is_told && found.account != work.identity.account {
                        work.owe_record(CONTACT, found.account.as_bytes())?;
                    }
                    Ok(Ok(learned))
                }
                Err(error) => Err(error),
            }
        })?
    }

    /// A person was told, when they asked for a handle, that it stands for another account now: whoever asks for it again
    /// goes on with that one.
    ///
    /// # Errors
    /// The database failed.
    pub fn go_on_with_moved(&mut self, handle: &Handle) -> Result<(), VaultError> {
        self.write(|work| {
            let sql = "UPDATE contact SET former = 1 WHERE handle = ?1 AND replaced_by IS NOT NULL";
            work.connection.execute(sql, params![handle.as_str()])?;
            Ok(())
        })
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
        self.read(|connection, _| contact_by_handle(connection, handle))
    }

    /// The same of several handles, in their order.
    ///
    /// # Errors
    /// The database failed.
    pub fn contacts_by_handle(&mut self, handles: &[Handle]) -> Result<Vec<Option<Contact>>, VaultError> {
        self.read(|connection, _| handles.iter().map(|handle| contact_by_handle(connection, handle)).collect())
    }

    /// Whose devices are among these that stand in no log as it is held here, or are revoked by it.
    ///
    /// # Errors
    /// The database failed.
    pub fn unlisted(&mut self, devices: &[(AccountId, DeviceId)]) -> Result<BTreeSet<AccountId>, VaultError> {
        self.read(|connection, _| {
            let (mut logs, mut unlisted) = (HashMap::new(), BTreeSet::new());
            for (account, device) in devices {
                let log = match logs.entry(*account) {
                    Entry::Occupied(held) => held.into_mut(),
                    Entry::Vacant(room) => room.insert(load_log(connection, *account)?),
                };
                if log.as_ref().is_none_or(|log| !log.is_active(*device)) {
                    unlisted.insert(*account);
                }
            }
            Ok(unlisted)
        })
    }

    /// Sixty digits in groups of five, the same on both sides; they change only if an account was replaced.
    #[must_use]
    pub fn safety_number(&self, account: AccountId) -> String {
        safety_number(self.identity.account, account)
    }
}

fn safety_number(own: AccountId, account: AccountId) -> String {
    let (first, second) = (own.min(account), own.max(account));
    let mut hasher = blake3::Hasher::new_derive_key(SAFETY_CONTEXT);
    hasher.update(first.as_bytes()).update(second.as_bytes());
    let mut digits = [0; SAFETY_GROUPS * SAFETY_GROUP_BYTES];
    hasher.finalize_xof().fill(&mut digits);
    let group = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) % 100_000;
    let groups: Vec<_> = digits.chunks(SAFETY_GROUP_BYTES).map(|bytes| format!("{:05}", group(bytes))).collect();
    groups.join(" ")
}

fn contact_by_handle(connection: &rusqlite::Connection, handle: &Handle) -> Result<Option<Contact>, VaultError> {
    let mut statement = connection.prepare_cached("SELECT account FROM contact WHERE handle = ?1 AND former = 0")?;
    let account = statement.query_row(params![handle.as_str()], |row| row.get::<_, [u8; 16]>(0)).optional()?;
    contact(connection, account.map(|id| (AccountId::from_bytes(id), handle.to_string())))
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
    let pins = work.pins(account)?;
    check_length(work, found, seen, pins.first())?;
    if log_from > seen || (found.log_entries.is_empty() && log_from < found.log_length) {
        return Err(TrustError::Incomplete(account));
    }
    let moved = match check_handle(work, found, log_from) {
        // The account is judged by its log, whoever has its handle here.
        Err(moved @ TrustError::HandleMoved { .. }) if account != work.identity.account => Some(moved),
        checked => checked.map(|()| None)?,
    };
    let (mut log, mut revoked) = (known, Vec::new());
    for (number, entry) in (log_from..).zip(&found.log_entries) {
        if number < seen {
            if stored_entry(work, account, number)? != entry.as_ref() {
                return Err(forked(work, account, None));
            }
            continue;
        }
        let first_time = seen == 0;
        match &mut log {
            None => log = Some(DeviceLog::from_root(entry).map_err(invalid)?),
            Some(log) => {
                let change = log.append(entry).map_err(|why| match why {
                    LogError::Fork => forked(work, account, None),
                    why => invalid(why),
                })?;
                if !first_time {
                    tell(work, found, &change)?;
                    revoked.extend(revoked_by(change));
                }
            }
        }
        let at = log.as_ref().map(DeviceLog::at);
        if let Some(other) = pins.iter().find(|pin| at.is_some_and(|at| pin.log.length == at.length && pin.log != at)) {
            return Err(forked(work, account, Some(other)));
        }
        let sql = "INSERT INTO log_entry (account, number, entry) VALUES (?1, ?2, ?3)";
        work.connection.execute(sql, params![account.as_bytes(), number, entry.as_ref()])?;
    }
    if !revoked.is_empty() {
        work.note_revoked(account, &revoked)?;
    }
    let log = log.filter(|log| log.account() == account).ok_or(TrustError::Incomplete(account))?;
    let sql = match moved {
        Some(_) => KNOWN_BY_ITS_LOG,
        // One that has been given up for another, and stands for its handle again, is as it was.
        None => {
            "INSERT INTO contact (account, handle) VALUES (?1, ?2) ON CONFLICT (account) DO UPDATE
             SET handle = ?2, replaced_by = CASE former WHEN 1 THEN NULL ELSE replaced_by END, former = 0"
        }
    };
    work.connection.execute(sql, params![account.as_bytes(), found.handle.as_str()])?;
    work.unpin(account, log.length())?;
    if account == work.identity.account && log.length() > seen {
        note_own_grown(work, &log, &revoked)?;
    }
    let more = log.length() < found.log_length;
    if !more {
        work.asked.account_answered(account, log.length() > seen);
    }
    match moved {
        Some(moved) => Err(moved),
        None => Ok(Learned { contact: Contact { account, handle: found.handle.clone(), log }, more }),
    }
}

/// A log never becomes shorter than it was seen, by this device or by another one of the account.
fn check_length(work: &Work<'_>, found: &AccountFound, seen: u64, farthest: Option<&Pin>) -> Result<(), TrustError> {
    let (account, shown) = (found.account, found.log_length);
    let (seen, teller) = match farthest {
        Some(pin) if shown >= seen && shown < pin.log.length => (pin.log.length, Some(pin)),
        _ if shown < seen => (seen, None),
        _ => return Ok(()),
    };
    let told_by = teller.map(|pin| work.teller(pin)).transpose()?;
    Err(TrustError::Shorter { account, handle: work.handle_or_id(account)?, seen, shown, told_by })
}

/// This account's log goes on: from here on the word of who is revoked counts for less.
fn note_own_grown(work: &Work<'_>, log: &DeviceLog, revoked: &[DeviceId]) -> Result<(), VaultError> {
    work.unpin_revoked(log, !revoked.is_empty())?;
    if revoked.is_empty() { Ok(()) } else { work.compare_settings() }
}

fn forked(work: &Work<'_>, account: AccountId, teller: Option<&Pin>) -> TrustError {
    let told_by = teller.map(|pin| work.teller(pin)).transpose();
    match (work.handle_or_id(account), told_by) {
        (Ok(handle), Ok(told_by)) => TrustError::Forked { account, handle, told_by },
        (Err(error), _) | (_, Err(error)) => error.into(),
    }
}

/// A handle that moved to another account is what an impostor would look like: a person must look.
fn check_handle(work: &Work<'_>, found: &AccountFound, log_from: u64) -> Result<(), TrustError> {
    // Also one that a person has given up for another account than this.
    let sql = "SELECT c.account, c.replaced_by FROM contact c WHERE c.handle = ?1 AND c.account != ?2
               AND (c.former = 0 OR (c.replaced_by != ?2 AND NOT EXISTS (SELECT 1 FROM contact n
                    WHERE n.account = c.replaced_by AND (n.former = 0 OR n.replaced_by IS NOT NULL))))
               ORDER BY c.former, c.account LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        let (before, shown): ([u8; 16], Option<[u8; 16]>) = (row.get(0)?, row.get(1)?);
        Ok((AccountId::from_bytes(before), shown.map(AccountId::from_bytes)))
    };
    let key = params![found.handle.as_str(), found.account.as_bytes()];
    let Some((before, shown)) = work.connection.query_row(sql, key, read).optional()? else { return Ok(()) };
    let own = work.identity.account;
    // Of oneself nobody has to be told.
    if before != own && found.account != own && shown != Some(found.account) {
        check_root(work, found, log_from)?;
        tell_moved(work, &found.handle, before, found.account)?;
    }
    Err(TrustError::HandleMoved { handle: found.handle.to_string(), before })
}

/// What is told of an account is told of one that there is: its root is the one that its id names.
fn check_root(work: &Work<'_>, found: &AccountFound, log_from: u64) -> Result<(), TrustError> {
    let account = found.account;
    if held_log(work.connection, account)?.is_some() {
        return Ok(());
    }
    let root = found.log_entries.first().filter(|_| log_from == 0).ok_or(TrustError::Incomplete(account))?;
    let log = DeviceLog::from_root(root).map_err(|why| TrustError::Invalid { account, why })?;
    if log.account() == account { Ok(()) } else { Err(TrustError::Incomplete(account)) }
}

/// Marks the place in the history, and tells.
fn tell_moved(work: &Work<'_>, handle: &Handle, before: AccountId, after: AccountId) -> Result<(), VaultError> {
    let sql = "UPDATE contact SET replaced_by = ?2, former = 0 WHERE account = ?1";
    work.connection.execute(sql, params![before.as_bytes(), after.as_bytes()])?;
    let own = work.identity.account;
    let (number_before, number) = (safety_number(own, before), safety_number(own, after));
    // It stands right after what came before it, as a gap does.
    // Without a conversation with that account alone it stands in none: the groups that one of the two is in show it.
    let sql = format!(
        "INSERT INTO message (kind, conversation, sender_account, time_ms, number, text)
         VALUES ({SAFETY_NUMBER},
                 (SELECT v.id FROM conversation v WHERE v.peer = ?1 ORDER BY v.state != {ACTIVE}, v.id LIMIT 1),
                 ?1, (SELECT ifnull(max(time_ms), 0) FROM message), ?2, ?3)"
    );
    let numbers = format!("{number_before}\n{number}");
    work.connection.execute(&sql, params![before.as_bytes(), i64::MAX, numbers])?;
    work.event(Event::SafetyNumber { handle: handle.clone(), before, after, number_before, number }).map(drop)
}

impl Work<'_> {
    /// Who writes to somebody whose handle the server shows for another account is told so, once, before anything is sent:
    /// the handle that has moved, where that is to be told now.
    pub(super) fn told_of_moved(&self, peer: AccountId) -> Result<Option<Handle>, VaultError> {
        let sql = "UPDATE contact SET former = 1 WHERE account = ?1 AND replaced_by IS NOT NULL AND former = 0";
        if self.connection.prepare_cached(sql)?.execute(params![peer.as_bytes()])? == 0 {
            return Ok(None);
        }
        self.handle(peer).map(Some)
    }

    /// Whether an account is known by its log alone: the handle that the server shows for it stands for another account
    /// here, and no person has agreed to it.
    pub(super) fn is_known_by_its_log(&self, account: AccountId) -> Result<bool, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM contact WHERE account = ?1 AND former = 1 AND replaced_by IS NULL)";
        Ok(self.connection.prepare_cached(sql)?.query_row(params![account.as_bytes()], |row| row.get(0))?)
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
