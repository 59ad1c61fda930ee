//! Phone numbers: the one that this account has, those for which a code was asked, and those by which others were found.

use gureum_proto::{AccountId, Phone, PhoneNotice};
use rusqlite::{Connection, OptionalExtension, params};

use super::account::is_deleted;
use super::settings::{ON, decide, decide_as, setting};
use super::{Contact, Event, OwnPhone, PhoneEvent, TrustError, Vault, VaultError};
use crate::limits::NUMBER_MAX;

/// The setting by which the devices of an account tell one another its number: the digits of E.164, and when the account had
/// lost a number last by the time that it got this one, in hexadecimal. A later loss is that of this number.
const PHONE: &str = "phone";
/// Whether others may find the account by it.
const FINDABLE: &str = "phone.findable";
/// Whether a PIN locks it.
const LOCK: &str = "phone.lock";
/// In the place of a number.
const NONE: &str = "none";
/// The most digits of a number in E.164.
const DIGITS_MAX: usize = 15;

/// Whether it is as numbers go over the wire: `+` and digits.
pub(crate) fn is_e164(phone: &Phone) -> bool {
    let digits = phone.as_str().strip_prefix('+').unwrap_or_default();
    digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl Vault {
    /// A code is on its way to a number, which the server calls `number`, in E.164.
    ///
    /// # Errors
    /// The database failed.
    pub fn note_code_asked(&mut self, typed: &Phone, number: &Phone) -> Result<(), VaultError> {
        self.write(|work| {
            let sql = "INSERT INTO own_phone (one, phone) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET phone = ?1";
            work.connection.execute(sql, params![format!("{} {number}", digits(typed))])?;
            Ok(())
        })
    }

    /// A number in E.164: as the server has called it when a code was asked for it, or else as its digits say.
    ///
    /// # Errors
    /// The database failed.
    pub fn number_of(&mut self, typed: &Phone) -> Result<Phone, VaultError> {
        let asked = self.read(|connection, _| {
            let row = connection.query_row("SELECT phone FROM own_phone", [], |row| row.get::<_, Option<String>>(0));
            Ok(row.optional()?.flatten())
        })?;
        let digits = digits(typed);
        let asked = asked.as_deref().and_then(|asked| asked.split_once(' ')).filter(|(typed, _)| *typed == digits);
        let number = asked.and_then(|(_, number)| number.parse::<Phone>().ok());
        Ok(number.or_else(|| format!("+{digits}").parse().ok()).unwrap_or_else(|| typed.clone()))
    }

    /// The number that this account has, unless it has lost it since, or was deleted.
    ///
    /// # Errors
    /// The database failed.
    pub fn own_phone(&mut self) -> Result<Option<OwnPhone>, VaultError> {
        self.read(|connection, _| own_phone(connection))
    }

    /// The account has this number from now on, in E.164; `notice` is what the server has said when it got it, and `locks`
    /// whether a PIN was given with it. The lock of another number it has no more.
    ///
    /// # Errors
    /// The database failed.
    pub fn set_own_phone(
        &mut self,
        number: &Phone,
        notice: PhoneNotice,
        findable: bool,
        locks: bool,
    ) -> Result<(), VaultError> {
        self.write(|work| {
            let before = own_phone(work.connection)?;
            let locked = locks || before.is_some_and(|before| before.locked && before.phone == *number);
            decide_as(work, PHONE, format!("{} {:x}", digits(number), notice.moved_ms))?;
            decide(work, FINDABLE, findable)?;
            decide(work, LOCK, locked)
        })
    }

    /// The account has no number any more.
    ///
    /// # Errors
    /// The database failed.
    pub fn forget_own_phone(&mut self) -> Result<(), VaultError> {
        self.write(|work| {
            decide_as(work, PHONE, NONE.to_owned())?;
            decide(work, FINDABLE, false)?;
            decide(work, LOCK, false)
        })
    }

    /// Others may find the account by its number, or may not.
    ///
    /// # Errors
    /// The database failed.
    pub fn set_own_findable(&mut self, on: bool) -> Result<(), VaultError> {
        self.write(|work| decide(work, FINDABLE, on))
    }

    /// A PIN locks the number, or none does.
    ///
    /// # Errors
    /// The database failed.
    pub fn set_own_lock(&mut self, on: bool) -> Result<(), VaultError> {
        self.write(|work| decide(work, LOCK, on))
    }

    /// The server says what has happened to the account's number. What is news is told, once; returns whether anything is.
    ///
    /// # Errors
    /// The database failed.
    pub fn note_phone(&mut self, notice: PhoneNotice) -> Result<bool, VaultError> {
        // A time beyond all numbers is none.
        let bounded = |time_ms: u64| if time_ms <= NUMBER_MAX { time_ms } else { 0 };
        let (moved_ms, tried_ms) = (bounded(notice.moved_ms), bounded(notice.tried_ms));
        let has_news = |seen: PhoneNotice| moved_ms > seen.moved_ms || tried_ms > seen.tried_ms;
        if !has_news(self.read(|connection, _| seen(connection))?) {
            return Ok(false);
        }
        self.write(|work| {
            let seen = seen(work.connection)?;
            if tried_ms > seen.tried_ms {
                work.event(Event::Phone { change: PhoneEvent::Tried, time_ms: tried_ms })?;
            }
            if moved_ms > seen.moved_ms {
                work.event(Event::Phone { change: PhoneEvent::Moved, time_ms: moved_ms })?;
            }
            let sql = "INSERT INTO own_phone (one, moved_ms, tried_ms) VALUES (1, ?1, ?2) ON CONFLICT (one)
                       DO UPDATE SET moved_ms = max(moved_ms, ?1), tried_ms = max(tried_ms, ?2)";
            work.connection.execute(sql, params![moved_ms, tried_ms])?;
            Ok(has_news(seen))
        })
    }

    /// Who was found by a number.
    ///
    /// # Errors
    /// The database failed.
    pub fn contact_by_phone(&mut self, phone: &Phone) -> Result<Option<Contact>, VaultError> {
        match self.read(|connection, _| found_by(connection, phone))? {
            Some(account) => self.contact(account),
            None => Ok(None),
        }
    }

    /// The server has found an account by a number.
    ///
    /// # Errors
    /// It was another account's: that is said once, and whoever asks again goes on with this one.
    pub fn learn_number(&mut self, phone: &Phone, account: AccountId) -> Result<(), TrustError> {
        let moved = self.write(|work| {
            let before = found_by(work.connection, phone)?.filter(|before| *before != account);
            let sql = "INSERT OR REPLACE INTO contact_phone (phone, account) VALUES (?1, ?2)";
            work.connection.execute(sql, params![digits(phone), account.as_bytes()])?;
            let Some(before) = before else { return Ok(None) };
            Ok::<_, VaultError>(Some((before, work.handle_or_id(before)?, work.handle_or_id(account)?)))
        })?;
        let Some((other, before, after)) = moved else { return Ok(()) };
        Err(TrustError::NumberMoved {
            phone: phone.to_string(),
            before,
            after,
            number_before: self.safety_number(other),
            number: self.safety_number(account),
        })
    }
}

fn own_phone(connection: &Connection) -> Result<Option<OwnPhone>, VaultError> {
    if is_deleted(connection)? {
        return Ok(None);
    }
    let Some(held) = setting(connection, PHONE)? else { return Ok(None) };
    let Some((digits, moved)) = held.value.split_once(' ') else { return Ok(None) };
    let phone = format!("+{digits}").parse::<Phone>().ok().filter(is_e164);
    let had_lost_ms = u64::from_str_radix(moved, 16).ok();
    let (Some(phone), Some(had_lost_ms)) = (phone, had_lost_ms) else { return Ok(None) };
    if seen(connection)?.moved_ms > had_lost_ms {
        return Ok(None);
    }
    let is_on = |key| Ok::<_, VaultError>(setting(connection, key)?.is_some_and(|held| held.value == ON));
    Ok(Some(OwnPhone { phone, findable: is_on(FINDABLE)?, locked: is_on(LOCK)? }))
}

/// What was told of the account's number.
fn seen(connection: &Connection) -> Result<PhoneNotice, VaultError> {
    let mut statement = connection.prepare_cached("SELECT moved_ms, tried_ms FROM own_phone")?;
    let read = |row: &rusqlite::Row<'_>| Ok(PhoneNotice { moved_ms: row.get(0)?, tried_ms: row.get(1)? });
    Ok(statement.query_row([], read).optional()?.unwrap_or_default())
}

fn found_by(connection: &Connection, phone: &Phone) -> Result<Option<AccountId>, VaultError> {
    let mut statement = connection.prepare_cached("SELECT account FROM contact_phone WHERE phone = ?1")?;
    let account = statement.query_row(params![digits(phone)], |row| row.get::<_, [u8; 16]>(0)).optional()?;
    Ok(account.map(AccountId::from_bytes))
}

/// A number without what people put between its digits.
fn digits(phone: &Phone) -> String {
    phone.as_str().chars().filter(char::is_ascii_digit).collect()
}
