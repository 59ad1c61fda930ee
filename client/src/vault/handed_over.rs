//! The history of another device of the account, as it is handed over to this one: merged with what is here, part by part,
//! in whatever order they come. What is here already stays as it is.

use gureum_proto::{AccountId, DeviceId};
use rusqlite::{OptionalExtension, Row, params};

use super::history::{TEXT, UNREADABLE};
use super::in_step;
use super::settings::receipts_on;
use super::work::Work;
use super::{ConversationStatus, Event, HandedOver, StoredEvent, Vault, VaultError};
use crate::e2ee::content::history::{Entry, Part, Person, Talk, TransferId};
use crate::e2ee::content::record::{Offer, Progress, Record};
use crate::limits::{HISTORY_ASK_MAX_MS, HISTORY_ASK_MS, HISTORY_TRANSFERS_MAX};

/// In `is_done`: all of it is here.
const WHOLE: i64 = 1;
/// In `is_done`: its sender was revoked before that.
const OVER: i64 = 2;

/// How far a transfer to this device has come.
struct Held {
    device: DeviceId,
    /// The number of the part that comes next.
    number: u64,
    /// Where in the sender's history that begins.
    place: u64,
    /// Whether it has come to its end.
    is_done: bool,
    /// Whether the rest cannot come.
    is_over: bool,
    /// The part from which on the rest was asked for last.
    asked_number: Option<u64>,
}

impl Vault {
    /// What other devices of the account hand over to this one, or have.
    ///
    /// # Errors
    /// The database failed.
    pub fn history_coming(&mut self) -> Result<Vec<HandedOver>, VaultError> {
        self.write(|work| {
            let sql = "SELECT device, messages, total, is_done FROM handed_over ORDER BY transfer";
            let mut statement = work.connection.prepare_cached(sql)?;
            let rows = statement
                .query_map([], |row| Ok((DeviceId::from_bytes(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?)))?;
            let rows = rows.collect::<Result<Vec<(DeviceId, u64, u64, i64)>, _>>()?;
            let mut coming = Vec::new();
            for (device, messages, total, end) in rows {
                let (is_done, is_over) = (end == WHOLE, end == OVER);
                coming.push(HandedOver { from: name_of(work, device)?, messages, total, is_done, is_over });
            }
            Ok(coming)
        })
    }
}

impl Work<'_> {
    /// Whether the senders of histories are to be told how far these have come.
    pub(super) fn owes_words(&self) -> Result<bool, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM handed_over WHERE is_owed = 1)";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// Puts what they are to be told into the outbox, and asks for what has not come for long.
    pub(super) fn queue_words(&self) -> Result<bool, VaultError> {
        let own = self.own_row()?.filter(|row| row.state == ConversationStatus::Active);
        let Some(own) = own else { return Ok(false) };
        // Its sender may never come back: it is asked less and less often.
        let sql = "UPDATE handed_over SET asks = 1, is_owed = 1, asked_number = number, heard_ms = ?1,
                   wait_ms = min(2 * wait_ms, ?2)
                   WHERE is_done = 0 AND (heard_ms <= ?1 - wait_ms OR heard_ms > ?1)";
        self.connection.prepare_cached(sql)?.execute(params![self.now_ms, HISTORY_ASK_MAX_MS])?;
        let sql = "SELECT transfer, number, place, messages, asks FROM handed_over WHERE is_owed = 1 ORDER BY transfer";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Record::Taken(Progress {
                transfer: row.get(0)?,
                number: row.get(1)?,
                after: row.get(2)?,
                messages: row.get(3)?,
                asks: row.get(4)?,
            }))
        })?;
        let words = rows.collect::<Result<Vec<_>, _>>()?;
        if words.is_empty() {
            return Ok(false);
        }
        in_step::queue(self, own.id, &words)?;
        self.connection.execute("UPDATE handed_over SET asks = 0, is_owed = 0", [])?;
        Ok(true)
    }

    /// Something may have been lost on its way to this device: what is still to come is asked for.
    pub(super) fn ask_for_rest(&self) -> Result<(), VaultError> {
        let sql =
            "UPDATE handed_over SET asks = 1, is_owed = 1, asked_number = number, heard_ms = ?1 WHERE is_done = 0";
        self.connection.prepare_cached(sql)?.execute(params![self.now_ms])?;
        Ok(())
    }

    /// A device may not have heard what this one has told it, nor that it was asked for something.
    pub(super) fn tell_again(&self, device: DeviceId) -> Result<(), VaultError> {
        let sql = "UPDATE handed_over SET is_owed = 1, asks = max(asks, is_done = 0 AND asked_number IS number)
                   WHERE device = ?1";
        self.connection.prepare_cached(sql)?.execute(params![device.as_bytes()])?;
        Ok(())
    }

    /// Another device hands its history over to one, and says how many parts went out. Where this one has fewer, the others
    /// are lost, for all come in their order.
    pub(super) fn take_offer(&self, from: DeviceId, offer: &Offer) -> Result<(), VaultError> {
        if !self.is_self(offer.to) || self.is_self(from) {
            return Ok(());
        }
        let Some(held) = self.transfer_of(&offer.transfer, from)? else { return Ok(()) };
        let asks = !held.is_done && held.number < offer.number;
        let sql = "UPDATE handed_over SET is_owed = 1, asks = max(asks, ?2), total = max(total, ?3),
                   asked_number = iif(?2, number, asked_number), heard_ms = ?4 WHERE transfer = ?1";
        self.connection.prepare_cached(sql)?.execute(params![offer.transfer, asks, offer.total, self.now_ms])?;
        Ok(())
    }

    /// A transfer that this device has begun, or begins by this.
    fn transfer_of(&self, transfer: &TransferId, from: DeviceId) -> Result<Option<Held>, VaultError> {
        let held = match self.held_transfer(transfer)? {
            Some(held) => Some(held),
            None => self.begin_transfer(transfer, from)?,
        };
        Ok(held.filter(|held| held.device == from && !held.is_over))
    }

    fn held_transfer(&self, transfer: &TransferId) -> Result<Option<Held>, VaultError> {
        let sql = "SELECT device, number, place, is_done != 0, is_done = ?2, asked_number FROM handed_over
                   WHERE transfer = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &Row<'_>| {
            Ok(Held {
                device: DeviceId::from_bytes(row.get(0)?),
                number: row.get(1)?,
                place: row.get(2)?,
                is_done: row.get(3)?,
                is_over: row.get(4)?,
                asked_number: row.get(5)?,
            })
        };
        Ok(statement.query_row(params![transfer, OVER], read).optional()?)
    }

    /// Devices of this account were revoked: what has not come of their histories cannot come any more.
    pub(super) fn end_transfers_of(&self, revoked: &[DeviceId]) -> Result<(), VaultError> {
        for device in revoked {
            let sql = "SELECT transfer, messages, total FROM handed_over WHERE device = ?1 AND is_done = 0
                       ORDER BY transfer";
            let mut statement = self.connection.prepare_cached(sql)?;
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let rows = statement.query_map(params![device.as_bytes()], read)?;
            for (transfer, messages, of) in rows.collect::<Result<Vec<(TransferId, u64, u64)>, _>>()? {
                let sql = "UPDATE handed_over SET is_done = ?2, is_owed = 0, asks = 0 WHERE transfer = ?1";
                self.connection.prepare_cached(sql)?.execute(params![transfer, OVER])?;
                self.event(Event::History { from: name_of(self, *device)?, messages, of, done: false })?;
            }
        }
        Ok(())
    }

    /// A transfer that is new here, in the place of another one of its device that has not come to an end: a device has one
    /// for each other device. `None` of one that was revoked, and where there are too many.
    fn begin_transfer(&self, transfer: &TransferId, device: DeviceId) -> Result<Option<Held>, VaultError> {
        let count = || -> Result<u64, VaultError> {
            let sql = "SELECT count(*) FROM handed_over";
            Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
        };
        if self.log(self.identity.account)?.is_some_and(|log| log.is_revoked(device)) {
            return Ok(None);
        }
        let sql = "DELETE FROM handed_over WHERE device = ?1 AND is_done = 0";
        self.connection.execute(sql, params![device.as_bytes()])?;
        if count()? >= HISTORY_TRANSFERS_MAX {
            self.connection.execute("DELETE FROM handed_over WHERE is_done != 0", [])?;
        }
        if count()? >= HISTORY_TRANSFERS_MAX {
            return Ok(None);
        }
        let sql = "INSERT INTO handed_over (transfer, device, heard_ms, wait_ms) VALUES (?1, ?2, ?3, ?4)";
        self.connection.execute(sql, params![transfer, device.as_bytes(), self.now_ms, HISTORY_ASK_MS])?;
        self.held_transfer(transfer)
    }
}

/// Another device of the account hands over a part of its history. One for another device is that one's, and one of a
/// transfer that another device has begun is nobody's.
pub(super) fn take_part(work: &Work<'_>, from: DeviceId, part: &Part) -> Result<Option<StoredEvent>, VaultError> {
    if !work.is_self(part.to) || work.is_self(from) {
        return Ok(None);
    }
    let Some(held) = work.transfer_of(&part.transfer, from)? else { return Ok(None) };
    merge(work, part)?;
    if part.after > held.place {
        // Those before it are gone, or behind it: they are asked for once, and then after a while.
        if held.asked_number != Some(held.number) {
            let sql = "UPDATE handed_over SET asks = 1, is_owed = 1, asked_number = number, heard_ms = ?2
                       WHERE transfer = ?1";
            work.connection.prepare_cached(sql)?.execute(params![part.transfer, work.now_ms])?;
        }
        return Ok(None);
    }
    // An older copy of its sender counts anew, and would not know what is meant by a number that it has not reached.
    let lags = part.number.saturating_add(1) < held.number;
    if part.until < held.place {
        let sql = "UPDATE handed_over SET is_owed = 1, asks = max(asks, ?2) WHERE transfer = ?1";
        work.connection.prepare_cached(sql)?.execute(params![part.transfer, lags])?;
        return Ok(None);
    }
    // Also of one that is whole: its sender may not have heard so, and have cut it anew.
    let sql = "UPDATE handed_over SET number = max(number, ?2), place = ?3, messages = ?4, total = ?5,
               is_done = max(is_done, ?6), is_owed = 1, heard_ms = ?7, wait_ms = ?8, asks = max(asks, ?9)
               WHERE transfer = ?1";
    work.connection.prepare_cached(sql)?.execute(params![
        part.transfer,
        part.number.saturating_add(1),
        part.until,
        part.messages,
        part.total,
        part.is_last,
        work.now_ms,
        HISTORY_ASK_MS,
        lags,
    ])?;
    if !part.is_last || held.is_done {
        return Ok(None);
    }
    let (messages, of) = (part.messages, part.total);
    work.event(Event::History { from: name_of(work, from)?, messages, of, done: true }).map(Some)
}

fn name_of(work: &Work<'_>, device: DeviceId) -> Result<String, VaultError> {
    Ok(work.device_name(device)?.unwrap_or_else(|| device.to_string()))
}

/// Keeps what is not here yet.
fn merge(work: &Work<'_>, part: &Part) -> Result<(), VaultError> {
    for person in &part.people {
        keep_person(work, person)?;
    }
    for talk in &part.talks {
        keep_talk(work, talk)?;
    }
    for entry in &part.entries {
        if let (Some(from), Some(talk)) = (part.people.get(entry.from), part.talks.get(entry.talk)) {
            keep_entry(work, part, (from.account, talk), entry)?;
        }
    }
    Ok(())
}

/// Whoever has written something must have a handle here. Where that stands for another account, a person decides when
/// they ask for it.
fn keep_person(work: &Work<'_>, person: &Person) -> Result<(), VaultError> {
    let sql = "INSERT OR IGNORE INTO contact (account, handle, former, replaced_by) VALUES (?1, ?2, ?3, ?4)";
    let replaced_by = person.replaced_by.map(|account| *account.as_bytes());
    let row = params![person.account.as_bytes(), person.handle.as_str(), person.is_former, replaced_by];
    work.connection.prepare_cached(sql)?.execute(row)?;
    let sql = "INSERT INTO contact (account, handle, former) VALUES (?1, ?2, 1) ON CONFLICT (account) DO NOTHING";
    let row = params![person.account.as_bytes(), person.handle.as_str()];
    work.connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// Says what people call a conversation, where this device is not in it and knows of none such.
fn keep_talk(work: &Work<'_>, talk: &Talk) -> Result<(), VaultError> {
    let sql = "INSERT OR IGNORE INTO past_conversation (id, peer, name) VALUES (?1, ?2, ?3)";
    let row = params![talk.conversation.as_bytes(), talk.peer.map(|peer| *peer.as_bytes()), talk.name];
    work.connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// It has no place in this device's inbox, by which it is known as one that was handed over: it is no news, and nobody is
/// owed a receipt for it. What this device has written itself, no other one knows better.
fn keep_entry(work: &Work<'_>, part: &Part, (from, talk): (AccountId, &Talk), entry: &Entry) -> Result<(), VaultError> {
    if work.is_self(entry.device) {
        return Ok(());
    }
    let (conversation, own) = (talk.conversation.as_bytes(), from == work.identity.account);
    let message_id = entry.message_id.map(|id| *id.as_bytes());
    let sql = format!(
        "INSERT OR IGNORE INTO message
         (kind, conversation, content_id, message_id, sender_account, sender_device, own, time_ms, number, text)
         SELECT {TEXT}, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE ?3 IS NULL OR NOT EXISTS
         (SELECT 1 FROM message WHERE conversation = ?1 AND number = ?8 AND message_id = ?3 AND kind = {TEXT})"
    );
    let kept = work.connection.prepare_cached(&sql)?.execute(params![
        conversation,
        entry.id,
        message_id,
        from.as_bytes(),
        entry.device.as_bytes(),
        own,
        entry.time_ms,
        entry.number,
        entry.text,
    ])?;
    if kept > 0 && message_id.is_some() {
        // What this device could not read, another one could.
        let sql = format!(
            "DELETE FROM message WHERE conversation = ?1 AND number = ?2 AND message_id = ?3 AND kind = {UNREADABLE}"
        );
        work.connection.prepare_cached(&sql)?.execute(params![conversation, entry.number, message_id])?;
    }
    if !own || !receipts_on(work.connection)? {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO receipt (conversation, content_id, account, kind, time_ms)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut statement = work.connection.prepare_cached(sql)?;
    for receipt in &entry.receipts {
        if let Some(by) = part.people.get(receipt.by).filter(|by| by.account != from) {
            let row = params![conversation, entry.id, by.account.as_bytes(), receipt.kind.number(), receipt.time_ms];
            statement.execute(row)?;
        }
    }
    Ok(())
}
