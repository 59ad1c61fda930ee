//! What the devices of an account have in common: how far conversations were read, settings, whom they have met, and what
//! they are called. Each change is owed to the others, goes out as it is by then, and is merged by a law that does not
//! mind in which order, how often or whether something comes. Who may have missed something asks for all of it.

use gureum_proto::limits::LOG_ENTRIES_MAX;
use gureum_proto::{AccountId, ConversationId, DeviceId, DeviceLog, Handle, LogHead};
use rusqlite::{OptionalExtension, params};

use super::devices::{Pin, contacts};
use super::key::random;
use super::outbox::KIND_RECORDS;
use super::receipts::{put_mark, read_number, unread};
use super::relations::{Kept, Preference};
use super::settings::{Held, keep_setting, setting};
use super::work::{Work, held_log, load_log};
use super::{ConversationStatus, Event, ReadMark, Settings, StoredEvent, Vault, VaultError, check_device_name};
use crate::e2ee::content::record::{
    ANSWERED, CONTACT, DEVICE_NAME, MARK, OFFERED, PLEASE, PREFERENCE, RELATION, Record, SETTING,
};
use crate::e2ee::content::{Body, CONTENT_ID_BYTES, Content};
use crate::limits::{DEVICE_NAMES_MAX, RECORD_ROWS_MAX, RECORDS_MAX, TOLD_MAX, WISHES_MAX};

/// Where what a person has decided is kept, and under which keys.
const DECISIONS: [(u64, &str); 3] = [
    (SETTING, "CAST(key AS BLOB) FROM setting"),
    (RELATION, "account FROM relation"),
    (PREFERENCE, "conversation FROM preference"),
];

/// What a device says of its own name, which is more than what another says of it.
const OWN_WORD: u64 = 1;

/// What the devices of an account have in common, as one of them has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InCommon {
    /// How far conversations were read, by conversation; none of which nothing was read.
    pub marks: Vec<ReadMark>,
    /// What a person has decided.
    pub settings: Settings,
    /// Whom they have met, by account, this one aside.
    pub contacts: Vec<(AccountId, Handle)>,
}

impl Vault {
    /// What is to be the same on all devices of this account, once each has heard of what the others have done.
    ///
    /// # Errors
    /// The database failed.
    pub fn in_common(&mut self) -> Result<InCommon, VaultError> {
        let (own, settings) = (self.identity().account, self.settings()?);
        self.read(|connection, _| {
            let sql = "SELECT conversation, read_number FROM mark WHERE read_number > 0 ORDER BY conversation";
            let mut statement = connection.prepare_cached(sql)?;
            let marks = statement.query_map([], |row| {
                Ok(ReadMark { conversation: ConversationId::from_bytes(row.get(0)?), number: row.get(1)? })
            })?;
            let marks = marks.collect::<Result<Vec<_>, _>>()?;
            let sql = "SELECT account, handle FROM contact WHERE former = 0 AND account != ?1 ORDER BY account";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![own.as_bytes()], |row| {
                Ok((AccountId::from_bytes(row.get(0)?), row.get::<_, String>(1)?))
            })?;
            let contacts = rows.map(|row| -> Result<_, VaultError> {
                let (account, handle) = row?;
                let handle: Handle = handle.parse().map_err(|_| VaultError::Damaged("handle"))?;
                Ok((account, handle))
            });
            let contacts = contacts.collect::<Result<_, _>>()?;
            Ok(InCommon { marks, settings, contacts })
        })
    }

    /// Puts what the account's other devices are to be told into the outbox. Returns whether there is anything to be sent.
    ///
    /// # Errors
    /// The database failed.
    pub fn queue_records(&mut self) -> Result<bool, VaultError> {
        self.write(|work| {
            let row = work.own_row()?.filter(|row| row.state == ConversationStatus::Active);
            let Some(row) = row else { return Ok(false) };
            if !work.has_company(row.id)? {
                // Whoever comes in asks for everything.
                work.connection.execute("DELETE FROM owed_record", [])?;
                return Ok(false);
            }
            let sql = format!("SELECT count(*) FROM outbox WHERE kind = {KIND_RECORDS}");
            let waiting: u64 = work.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
            let owed = if waiting < RECORD_ROWS_MAX { work.owed_records()? } else { Vec::new() };
            for part in owed.chunks(RECORDS_MAX) {
                queue(work, row.id, part)?;
            }
            if !owed.is_empty() {
                work.connection.execute("DELETE FROM owed_record", [])?;
            }
            Ok(!owed.is_empty())
        })
    }
}

/// Puts some records into the outbox, as one message.
pub(super) fn queue(work: &Work<'_>, conversation: ConversationId, records: &[Record]) -> Result<(), VaultError> {
    let content = Content { id: *random::<CONTENT_ID_BYTES>()?, body: Body::Records(records.to_vec()) };
    let sql = format!(
        "INSERT INTO outbox (conversation, content_id, text, created_ms, kind, payload)
         VALUES (?1, ?2, '', ?3, {KIND_RECORDS}, ?4)"
    );
    let row = params![conversation.as_bytes(), content.id, work.now_ms, content.to_bytes()];
    work.connection.prepare_cached(&sql)?.execute(row)?;
    Ok(())
}

impl Work<'_> {
    /// The other devices are to be told what is kept under this key; nobody is, as long as this device knows of none that
    /// would hear it.
    pub(super) fn owe_record(&self, kind: u64, key: &[u8]) -> Result<(), VaultError> {
        if self.own_row()?.is_some() {
            let sql = "INSERT OR IGNORE INTO owed_record (kind, key) VALUES (?1, ?2)";
            self.connection.prepare_cached(sql)?.execute(params![kind, key])?;
        }
        Ok(())
    }

    /// Whether there is anything that they are to be told.
    pub(super) fn owes_records(&self) -> Result<bool, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM owed_record)";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// This device may have missed something: one of the others is to tell everything.
    pub(super) fn wish_for_all(&self) -> Result<(), VaultError> {
        self.ask_for_rest()?;
        self.ask_for_all()
    }

    /// A device of this account was revoked: what was decided is compared once more, for what it has decided counts for
    /// less.
    pub(super) fn compare_settings(&self) -> Result<(), VaultError> {
        if self.own_row()?.is_some() {
            self.owe_all(&DECISIONS)?;
        }
        self.ask_for_all()
    }

    fn ask_for_all(&self) -> Result<(), VaultError> {
        self.connection.prepare_cached("DELETE FROM owed_record WHERE kind = ?1")?.execute(params![PLEASE])?;
        self.owe_record(PLEASE, random::<16>()?.as_slice())
    }

    /// This device has come into the conversation of the own devices. What it has is new to the others, the first time and
    /// whenever it was out: what it had to tell by then may have been refused.
    pub(super) fn come_into_own(&self) -> Result<(), VaultError> {
        self.owe_all(&[(MARK, "conversation FROM mark"), (CONTACT, "account FROM contact WHERE former = 0")])?;
        self.owe_all(&DECISIONS)?;
        self.owe_record(DEVICE_NAME, self.identity.device.as_bytes())?;
        self.rewind_history()?;
        self.wish_for_all()
    }

    /// The others are to be told everything of these kinds, which is kept under these keys.
    fn owe_all(&self, kinds: &[(u64, &str)]) -> Result<(), VaultError> {
        for (kind, keys) in kinds {
            let sql = format!("INSERT OR IGNORE INTO owed_record SELECT ?1, {keys}");
            self.connection.prepare_cached(&sql)?.execute(params![kind])?;
        }
        Ok(())
    }

    /// What is owed, as it is now; where one of the others has asked for it, everything.
    fn owed_records(&self) -> Result<Vec<Record>, VaultError> {
        let mut statement = self.connection.prepare_cached("SELECT kind, key FROM owed_record ORDER BY kind, key")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let owed = rows.collect::<Result<Vec<(u64, Vec<u8>)>, _>>()?;
        let is_asked = owed.iter().any(|(kind, _)| *kind == ANSWERED);
        let mut records = if is_asked { self.all_records()? } else { Vec::new() };
        for (kind, key) in owed {
            if !is_asked || matches!(kind, PLEASE | ANSWERED | OFFERED) {
                records.extend(self.record(kind, &key)?);
            }
        }
        Ok(records)
    }

    /// What is kept under a key, if it still is.
    fn record(&self, kind: u64, key: &[u8]) -> Result<Option<Record>, VaultError> {
        if kind == SETTING {
            return setting_record(self, std::str::from_utf8(key).map_err(|_| VaultError::Damaged("owed setting"))?);
        }
        let id: [u8; 16] = key.try_into().map_err(|_| VaultError::Damaged("owed record"))?;
        Ok(match kind {
            MARK => {
                let conversation = ConversationId::from_bytes(id);
                Some(Record::Mark { conversation, number: read_number(self, conversation)? })
            }
            CONTACT => self.contact_record(AccountId::from_bytes(id))?,
            DEVICE_NAME => self.name_record(DeviceId::from_bytes(id))?,
            PLEASE => Some(Record::Please(id)),
            ANSWERED => Some(Record::Answered(id)),
            RELATION => self.relation_record(AccountId::from_bytes(id))?,
            PREFERENCE => self.preference_record(ConversationId::from_bytes(id))?,
            OFFERED => self.offer_to(DeviceId::from_bytes(id))?.map(Record::Offered),
            _ => None,
        })
    }

    fn contact_record(&self, account: AccountId) -> Result<Option<Record>, VaultError> {
        let sql = "SELECT handle FROM contact WHERE account = ?1 AND former = 0 AND replaced_by IS NULL";
        let mut statement = self.connection.prepare_cached(sql)?;
        let handle: Option<String> = statement.query_row(params![account.as_bytes()], |row| row.get(0)).optional()?;
        // Of one that another device has told of, and this one has not met yet, nothing is known first-hand.
        let (Some(handle), Some(log)) = (handle, load_log(self.connection, account)?) else { return Ok(None) };
        let handle = handle.parse().map_err(|_| VaultError::Damaged("handle"))?;
        Ok(Some(Record::Contact { account, handle, log: log.at() }))
    }

    fn name_record(&self, device: DeviceId) -> Result<Option<Record>, VaultError> {
        if self.is_self(device) {
            let name = self.identity.device_name.clone();
            return Ok(Some(Record::DeviceName { device, name, stamp: OWN_WORD }));
        }
        Ok(self.held_name(device)?.map(|(stamp, name)| Record::DeviceName { device, name, stamp }))
    }

    fn held_name(&self, device: DeviceId) -> Result<Option<(u64, String)>, VaultError> {
        let sql = "SELECT stamp, name FROM device_name WHERE device = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row(params![device.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    pub(super) fn all_records(&self) -> Result<Vec<Record>, VaultError> {
        let mut records = Vec::new();
        let sql = "SELECT conversation, read_number FROM mark ORDER BY conversation";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((ConversationId::from_bytes(row.get(0)?), row.get(1)?)))?;
        for row in rows {
            let (conversation, number) = row?;
            records.push(Record::Mark { conversation, number });
        }
        for key in self.keys::<String>("SELECT key FROM setting ORDER BY key")? {
            records.extend(setting_record(self, &key)?);
        }
        let met = contacts(self.connection, self.identity.account)?;
        records.extend(met.into_iter().map(|met| {
            let (account, handle, log) = (met.account, met.handle, met.log);
            Record::Contact { account, handle, log }
        }));
        for account in self.keys("SELECT account FROM relation ORDER BY account")? {
            records.extend(self.relation_record(AccountId::from_bytes(account))?);
        }
        for conversation in self.keys("SELECT conversation FROM preference ORDER BY conversation")? {
            records.extend(self.preference_record(ConversationId::from_bytes(conversation))?);
        }
        records.extend(self.name_record(self.identity.device)?);
        for device in self.keys::<[u8; 16]>("SELECT device FROM device_name ORDER BY device")? {
            let device = DeviceId::from_bytes(device);
            if !self.is_self(device) {
                records.extend(self.name_record(device)?);
            }
        }
        Ok(records)
    }

    /// How many rows there are in a table.
    pub(super) fn count_of(&self, table: &str) -> Result<u64, VaultError> {
        let sql = format!("SELECT count(*) FROM {table}");
        Ok(self.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
    }

    fn keys<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<Vec<T>, VaultError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn setting_record(work: &Work<'_>, key: &str) -> Result<Option<Record>, VaultError> {
    let held = setting(work.connection, key)?;
    let record = |held: Held| {
        let (key, value, stamp) = (key.to_owned(), held.value, held.stamp);
        Record::Setting { key, value, stamp, device: held.device }
    };
    Ok(held.map(record))
}

/// Another device of this account has told something. Whatever it is, it is merged with what is here.
pub(super) fn take_records(
    work: &Work<'_>,
    from: DeviceId,
    records: Vec<Record>,
) -> Result<Vec<StoredEvent>, VaultError> {
    // Replaying it checks its signatures, for which most records have no use.
    let is_weighed = |record: &Record| match record {
        Record::Setting { .. } | Record::Contact { .. } | Record::Relation { .. } | Record::Preference { .. } => true,
        Record::Mark { .. } | Record::DeviceName { .. } => false,
        Record::Please(_) | Record::Answered(_) | Record::Taken(_) | Record::Offered(_) => false,
    };
    let own = if records.iter().any(is_weighed) { held_log(work.connection, work.identity.account)? } else { None };
    let mut events = Vec::new();
    for record in records {
        events.extend(take_record(work, from, own.as_ref(), record)?);
    }
    Ok(events)
}

/// `own`: this account's log, where the record is one that is weighed by it.
fn take_record(
    work: &Work<'_>,
    from: DeviceId,
    own: Option<&DeviceLog>,
    record: Record,
) -> Result<Option<StoredEvent>, VaultError> {
    // What a revoked device says that another one has decided counts as little as what it decides itself: nothing but its
    // word stands behind it.
    let made_on = |device: DeviceId| if own.is_some_and(|own| own.is_revoked(from)) { from } else { device };
    match record {
        Record::Mark { conversation, number } => take_mark(work, from, conversation, number),
        Record::Setting { key, value, stamp, device } => {
            keep_setting(work, own, &key, &Held { stamp, device: made_on(device), value }).map(|()| None)
        }
        Record::Contact { account, handle, log } => {
            // What a revoked device says of a log counts for nothing, also where it was said before. Whom it has met is kept:
            // others have heard so before they knew of the revocation.
            let is_believed = own.is_none_or(|own| !own.is_revoked(from));
            take_contact(work, account, &handle, Pin { log, device: from }, is_believed)
        }
        Record::DeviceName { device, name, stamp } => take_name(work, device, name, stamp).map(|()| None),
        Record::Please(wish) => {
            work.tell_again(from)?;
            work.offer_again(from)?;
            if work.count_of(&format!("owed_record WHERE kind = {ANSWERED}"))? < WISHES_MAX {
                work.owe_record(ANSWERED, &wish)?;
            }
            Ok(None)
        }
        Record::Answered(wish) => {
            // One answer is enough.
            let sql = "DELETE FROM owed_record WHERE kind = ?1 AND key = ?2";
            work.connection.prepare_cached(sql)?.execute(params![ANSWERED, wish.as_slice()])?;
            Ok(None)
        }
        Record::Taken(word) => work.take_word(from, &word).map(|()| None),
        Record::Offered(offer) => work.take_offer(from, &offer).map(|()| None),
        Record::Relation { account, relation, stamp, device } => {
            let told = Kept { stamp, device: made_on(device), value: relation };
            work.keep_relation(own, account, &told).map(|()| None)
        }
        Record::Preference { conversation, accepted, muted_until_ms, stamp, device } => {
            let told = Kept { stamp, device: made_on(device), value: Preference { accepted, muted_until_ms } };
            work.keep_preference(own, conversation, &told).map(|()| None)
        }
    }
}

fn take_mark(
    work: &Work<'_>,
    from: DeviceId,
    conversation: ConversationId,
    number: u64,
) -> Result<Option<StoredEvent>, VaultError> {
    let before = read_number(work, conversation)?;
    if number <= before {
        return Ok(None);
    }
    let is_known = before > 0 || work.row(conversation)?.is_some();
    if !is_known && work.count_of("mark")? >= TOLD_MAX {
        return Ok(None);
    }
    put_mark(work, conversation, number)?;
    if work.row(conversation)?.is_none() {
        return Ok(None);
    }
    let (unread, by_device) = (unread(work.connection, conversation)?, work.device_name(from)?);
    work.event(Event::Read { conversation, number, unread, by_device: by_device.unwrap_or_else(|| from.to_string()) })
        .map(Some)
}

fn take_name(work: &Work<'_>, device: DeviceId, name: String, stamp: u64) -> Result<(), VaultError> {
    let told = (stamp, name);
    if work.is_self(device) || check_device_name(&told.1).is_err() {
        return Ok(());
    }
    match work.held_name(device)? {
        Some(held) if held >= told => return Ok(()),
        None if work.count_of("device_name")? >= DEVICE_NAMES_MAX => return Ok(()),
        _ => (),
    }
    let sql = "INSERT OR REPLACE INTO device_name (device, name, stamp) VALUES (?1, ?2, ?3)";
    work.connection.prepare_cached(sql)?.execute(params![device.as_bytes(), told.1, told.0])?;
    Ok(())
}

/// From here on the server can show this device no other past of that account than it has shown the other one, where that
/// is believed.
fn take_contact(
    work: &Work<'_>,
    account: AccountId,
    handle: &Handle,
    told: Pin,
    is_believed: bool,
) -> Result<Option<StoredEvent>, VaultError> {
    let log = told.log;
    if account == work.identity.account || log.length == 0 || log.length > LOG_ENTRIES_MAX {
        return Ok(None);
    }
    if !work.knows(account)? && work.count_of("contact")? >= TOLD_MAX {
        return Ok(None);
    }
    if is_believed {
        let held = held_log(work.connection, account)?.map_or(0, |held| held.length());
        let known = if held >= log.length {
            vec![head_at(work, account, log.length)?]
        } else {
            work.pins(account)?.into_iter().map(|pin| pin.log).collect()
        };
        if known.iter().any(|known| known.length == log.length && *known != log) {
            return tell_forked(work, account, handle);
        }
        if held < log.length {
            work.put_pin(account, told)?;
        }
    }
    // Where this device knows another account by that handle, a person decides when they ask for it.
    let sql = "INSERT OR IGNORE INTO contact (account, handle) VALUES (?1, ?2)";
    work.connection.prepare_cached(sql)?.execute(params![account.as_bytes(), handle.as_str()])?;
    Ok(None)
}

/// Where an account's log stood when it had so many entries.
fn head_at(work: &Work<'_>, account: AccountId, length: u64) -> Result<LogHead, VaultError> {
    let sql = "SELECT entry FROM log_entry WHERE account = ?1 AND number < ?2 ORDER BY number";
    let mut statement = work.connection.prepare_cached(sql)?;
    let entries = statement
        .query_map(params![account.as_bytes(), length], |row| row.get::<_, Vec<u8>>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let log = DeviceLog::replay(entries.iter().map(Vec::as_slice)).map_err(|_| VaultError::Damaged("device log"))?;
    Ok(log.at())
}

/// Two devices of this account were shown two pasts of another one; told once.
fn tell_forked(work: &Work<'_>, account: AccountId, handle: &Handle) -> Result<Option<StoredEvent>, VaultError> {
    let sql = "INSERT OR IGNORE INTO forked_log (account) VALUES (?1)";
    match work.connection.execute(sql, params![account.as_bytes()])? {
        0 => Ok(None),
        _ => work.event(Event::LogForked { account, handle: handle.to_string() }).map(Some),
    }
}
