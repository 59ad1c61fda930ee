//! What this device hands over of its history to another one of the account: cut into parts as they go out, from the oldest
//! message on, so that what comes meanwhile is in it as well, and no more of them on their way than a window holds.

use std::collections::BTreeMap;

use gureum_proto::{AccountId, ConversationId, DeviceId, MessageId};
use rusqlite::{OptionalExtension, Row, params};

use super::history::TEXT;
use super::in_step;
use super::key::random;
use super::outbox::KIND_HISTORY;
use super::work::{ACTIVE, OWN, Work};
use super::{ConversationStatus, HandOver, Vault, VaultError};
use crate::e2ee::content::history::{Entry, Part, Person, Receipt, Talk, TransferId};
use crate::e2ee::content::record::{OFFERED, Offer, Progress, Record};
use crate::e2ee::content::{Body, CONTENT_ID_BYTES, Content, ContentId, ReceiptKind};
use crate::limits::{
    HISTORY_OWED_MS, HISTORY_PART_BYTES_MAX, HISTORY_PART_ENTRIES_MAX, HISTORY_PATIENCE_MS, HISTORY_RECEIPTS_MAX,
    HISTORY_WINDOW, RECORDS_MAX, TEXT_BYTES_MAX,
};

/// What a part takes without what it holds.
const PART_BYTES: usize = 256;

/// A transfer of which the next part is due.
struct Transfer {
    device: DeviceId,
    name: TransferId,
    /// The number of the next part.
    number: u64,
    /// The row of `message` after which it begins.
    place: u64,
    /// How many messages are handed over before it.
    messages: u64,
    total: u64,
    taken_number: u64,
}

impl Vault {
    /// This device is to hand over its history to another one of the account, which may not be in its log yet.
    ///
    /// # Errors
    /// The database failed.
    pub fn owe_history(&mut self, device: DeviceId) -> Result<(), VaultError> {
        self.write(|work| {
            work.forget_revoked()?;
            let sql = "INSERT OR IGNORE INTO hand_over (device, transfer, owed_ms) VALUES (?1, ?2, ?3)";
            let name: TransferId = *random()?;
            work.connection.execute(sql, params![device.as_bytes(), name, work.now_ms])?;
            Ok(())
        })
    }

    /// To whom this device hands over its history, or has, as far as they have taken it.
    ///
    /// # Errors
    /// The database failed.
    pub fn history_owed(&mut self) -> Result<Vec<HandOver>, VaultError> {
        self.read(|connection, _| {
            let sql = "SELECT device, taken_messages, total, is_done FROM hand_over ORDER BY owed_ms, device";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                let device = DeviceId::from_bytes(row.get(0)?);
                Ok(HandOver { device, messages: row.get(1)?, total: row.get(2)?, is_done: row.get(3)? })
            })?;
            rows.map(|row| Ok(row?)).collect()
        })
    }

    /// Puts what is due of histories that are handed over into the outbox: word of how far one has come to this device, and
    /// parts of this one's. Returns whether there is anything to be sent.
    ///
    /// # Errors
    /// The database failed.
    pub fn queue_history(&mut self) -> Result<bool, VaultError> {
        self.write(|work| {
            work.forget_revoked()?;
            let mut is_any = work.queue_words()?;
            for mut transfer in work.transfers_due()? {
                while transfer.number < transfer.taken_number.saturating_add(HISTORY_WINDOW) {
                    let part = cut(work, &transfer)?;
                    put(work, &part)?;
                    is_any = true;
                    if part.is_last {
                        break;
                    }
                    (transfer.number, transfer.place) = (part.number.saturating_add(1), part.until);
                    (transfer.messages, transfer.total) = (part.messages, part.total);
                }
            }
            Ok(work.queue_offers()? || is_any)
        })
    }

    /// Whether a history is on its way, from this device or to it.
    ///
    /// # Errors
    /// The database failed.
    pub fn history_waits(&mut self) -> Result<bool, VaultError> {
        self.read(|connection, _| {
            let sql = "SELECT EXISTS (SELECT 1 FROM hand_over WHERE is_done = 0)
                       OR EXISTS (SELECT 1 FROM handed_over WHERE is_done = 0)";
            Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
        })
    }
}

impl Work<'_> {
    /// Whether there is anything for [`Vault::queue_history`] to do.
    pub(super) fn owes_history(&self) -> Result<bool, VaultError> {
        Ok(self.owes_words()? || !self.transfers_due()?.is_empty())
    }

    /// Transfers to devices that can read what is encrypted now. One begins when its device is in all conversations and
    /// this one has what was handed over to it: what comes after that comes to the device by itself. Not without end:
    /// some conversation may never be joined.
    fn transfers_due(&self) -> Result<Vec<Transfer>, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM hand_over WHERE is_cut = 0)";
        if !self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))? {
            return Ok(Vec::new());
        }
        let own = self.own_row()?.filter(|row| row.state == ConversationStatus::Active);
        let Some(own) = own else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT device, transfer, number, place, messages, total, taken_number FROM hand_over h
             WHERE is_cut = 0 AND number < taken_number + ?2
             AND EXISTS (SELECT 1 FROM roster r WHERE r.conversation = ?1 AND r.device = h.device)
             AND (number > 0 OR owed_ms <= ?3 OR owed_ms > ?4 OR NOT
                  (EXISTS (SELECT 1 FROM conversation c WHERE c.state = {ACTIVE} AND c.kind != {OWN} AND NOT EXISTS
                           (SELECT 1 FROM roster r WHERE r.conversation = c.id AND r.device = h.device))
                   OR EXISTS (SELECT 1 FROM handed_over i JOIN roster r ON r.conversation = ?1 AND r.device = i.device
                              WHERE i.is_done = 0)))
             ORDER BY owed_ms, device"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let before = self.now_ms.saturating_sub(HISTORY_PATIENCE_MS);
        let rows = statement.query_map(params![own.id.as_bytes(), HISTORY_WINDOW, before, self.now_ms], |row| {
            Ok(Transfer {
                device: DeviceId::from_bytes(row.get(0)?),
                name: row.get(1)?,
                number: row.get(2)?,
                place: row.get(3)?,
                messages: row.get(4)?,
                total: row.get(5)?,
                taken_number: row.get(6)?,
            })
        })?;
        rows.map(|row| Ok(row?)).collect()
    }

    /// Puts word into the outbox of what has gone out, and waits for a word that has not come for long: a device that has
    /// missed all of it knows of nothing that it could ask for, and one that has all of it does not say so twice.
    fn queue_offers(&mut self) -> Result<bool, VaultError> {
        let own = self.own_row()?.filter(|row| row.state == ConversationStatus::Active);
        let Some(own) = own else { return Ok(false) };
        let sql = "SELECT device, taken_number FROM hand_over h
                   WHERE is_done = 0 AND number > 0 AND (is_cut = 1 OR number >= taken_number + ?2)
                   AND EXISTS (SELECT 1 FROM roster r WHERE r.conversation = ?1 AND r.device = h.device)
                   ORDER BY device";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![own.id.as_bytes(), HISTORY_WINDOW], |row| {
            Ok((DeviceId::from_bytes(row.get(0)?), row.get(1)?))
        })?;
        let mut offers = Vec::new();
        for (device, taken) in rows.collect::<Result<Vec<(DeviceId, u64)>, _>>()? {
            if self.asked.is_offer_due(device, taken, self.now_ms) {
                offers.extend(self.offer_to(device)?.map(Record::Offered));
            }
        }
        for offers in offers.chunks(RECORDS_MAX) {
            in_step::queue(self, own.id, offers)?;
        }
        Ok(!offers.is_empty())
    }

    /// Nothing is handed over to devices that were revoked, nor to those that were not added in the end.
    fn forget_revoked(&self) -> Result<(), VaultError> {
        let mut statement = self.connection.prepare_cached("SELECT device, owed_ms FROM hand_over ORDER BY device")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let owed = rows.collect::<Result<Vec<([u8; 16], u64)>, _>>()?;
        if owed.is_empty() {
            return Ok(());
        }
        let Some(log) = self.log(self.identity.account)? else { return Ok(()) };
        for (device, owed_ms) in owed {
            let is_over = match log.device(DeviceId::from_bytes(device)) {
                Some(logged) => logged.revoked_at.is_some(),
                None => owed_ms.saturating_add(HISTORY_OWED_MS) <= self.now_ms,
            };
            if is_over {
                self.connection.execute("DELETE FROM hand_over WHERE device = ?1", params![device])?;
                // Parts for others that were among those that waited are cut once more.
                self.rewind_history()?;
            }
        }
        Ok(())
    }

    /// What is on its way may not arrive: it is cut once more, from where the devices have taken it.
    pub(super) fn rewind_history(&self) -> Result<(), VaultError> {
        self.forget_parts()?;
        let sql = "UPDATE hand_over SET number = taken_number, place = taken_place, messages = taken_messages,
                   is_cut = 0 WHERE is_done = 0";
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Forgets the parts that wait in the outbox and were not handed to the server. Returns whether there were any.
    fn forget_parts(&self) -> Result<bool, VaultError> {
        let sql = format!("DELETE FROM outbox WHERE kind = {KIND_HISTORY} AND counter IS NULL");
        Ok(self.connection.prepare_cached(&sql)?.execute([])? > 0)
    }

    /// A device may have missed what was handed over to it, and then knows of no transfer that it could ask for.
    pub(super) fn offer_again(&self, to: DeviceId) -> Result<(), VaultError> {
        if self.offer_to(to)?.is_some() { self.owe_record(OFFERED, to.as_bytes()) } else { Ok(()) }
    }

    /// What is on its way to a device, or was, and was not taken as a whole.
    pub(super) fn offer_to(&self, to: DeviceId) -> Result<Option<Offer>, VaultError> {
        let sql = "SELECT transfer, number, total FROM hand_over WHERE device = ?1 AND is_done = 0 AND number > 0";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &Row<'_>| Ok(Offer { transfer: row.get(0)?, to, number: row.get(1)?, total: row.get(2)? });
        Ok(statement.query_row(params![to.as_bytes()], read).optional()?)
    }

    /// A device says how far it has taken this one's history. What it says of another transfer counts for nothing, and of
    /// parts that were not cut only where it asks to go on from there: then this is an older copy of what had cut them.
    pub(super) fn take_word(&self, from: DeviceId, word: &Progress) -> Result<(), VaultError> {
        let sql = "SELECT number, taken_number, is_cut FROM hand_over WHERE device = ?1 AND transfer = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let held = statement.query_row(params![from.as_bytes(), word.transfer], read).optional()?;
        let Some((number, taken_number, is_cut)): Option<(u64, u64, bool)> = held else { return Ok(()) };
        if !word.asks && (word.number > number || word.number <= taken_number) {
            return Ok(());
        }
        let sql = "UPDATE hand_over SET taken_number = ?2, taken_place = ?3, taken_messages = ?4, is_done = ?5
                   WHERE device = ?1";
        let is_done = is_cut && !word.asks && word.number == number;
        let row = params![from.as_bytes(), word.number, word.after, word.messages, is_done];
        self.connection.prepare_cached(sql)?.execute(row)?;
        if word.asks {
            let sql = "UPDATE hand_over SET number = ?2, place = ?3, messages = ?4, is_cut = 0 WHERE device = ?1";
            let row = params![from.as_bytes(), word.number, word.after, word.messages];
            self.connection.prepare_cached(sql)?.execute(row)?;
            // Those that wait are cut once more, for whichever devices they were.
            if self.forget_parts()? {
                self.rewind_history()?;
            }
        }
        Ok(())
    }
}

/// Puts a part into the outbox; the next one follows on it.
fn put(work: &Work<'_>, part: &Part) -> Result<(), VaultError> {
    let content = Content { id: *random::<CONTENT_ID_BYTES>()?, body: Body::History(part.clone()) };
    let sql = format!(
        "INSERT INTO outbox (conversation, content_id, text, created_ms, kind, payload)
         SELECT id, ?1, '', ?2, {KIND_HISTORY}, ?3 FROM conversation WHERE kind = {OWN} AND state = {ACTIVE}
         ORDER BY id LIMIT 1"
    );
    work.connection.prepare_cached(&sql)?.execute(params![content.id, work.now_ms, content.to_bytes()])?;
    let sql = "UPDATE hand_over SET number = ?2, place = ?3, messages = ?4, total = ?5, is_cut = ?6 WHERE device = ?1";
    work.connection.prepare_cached(sql)?.execute(params![
        part.to.as_bytes(),
        part.number.saturating_add(1),
        part.until,
        part.messages,
        part.total,
        part.is_last,
    ])?;
    Ok(())
}

/// The next part of a transfer: as many messages as go into one.
fn cut(work: &Work<'_>, transfer: &Transfer) -> Result<Part, VaultError> {
    let total = if transfer.number == 0 {
        let sql = format!("SELECT count(*) FROM message WHERE kind = {TEXT} AND content_id IS NOT NULL");
        work.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?
    } else {
        transfer.total
    };
    let mut cutting = Cutting::new(work, transfer);
    let sql = format!(
        "SELECT id, conversation, sender_account, sender_device, content_id, message_id, time_ms, number, text, own
         FROM message WHERE id > ?1 AND kind = {TEXT} AND content_id IS NOT NULL ORDER BY id"
    );
    let mut statement = work.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![transfer.place])?;
    while let Some(row) = rows.next()? {
        if !cutting.add(&read(row)?)? {
            cutting.part.is_last = false;
            break;
        }
    }
    let mut part = cutting.part;
    part.total = if part.is_last { part.messages } else { part.messages.max(total) };
    Ok(part)
}

/// A message as it is kept.
struct Held {
    row: u64,
    conversation: ConversationId,
    from: AccountId,
    device: DeviceId,
    id: ContentId,
    message_id: Option<MessageId>,
    time_ms: u64,
    number: u64,
    text: String,
    own: bool,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Held> {
    Ok(Held {
        row: row.get(0)?,
        conversation: ConversationId::from_bytes(row.get(1)?),
        from: AccountId::from_bytes(row.get(2)?),
        device: DeviceId::from_bytes(row.get(3)?),
        id: row.get(4)?,
        message_id: row.get::<_, Option<[u8; 16]>>(5)?.map(MessageId::from_bytes),
        time_ms: row.get(6)?,
        number: row.get(7)?,
        text: row.get(8)?,
        own: row.get(9)?,
    })
}

/// A part that is filled.
struct Cutting<'a> {
    work: &'a Work<'a>,
    part: Part,
    /// The most that it takes.
    bytes: usize,
    people: BTreeMap<AccountId, usize>,
    talks: BTreeMap<ConversationId, usize>,
}

impl<'a> Cutting<'a> {
    fn new(work: &'a Work<'a>, transfer: &Transfer) -> Self {
        let part = Part {
            transfer: transfer.name,
            to: transfer.device,
            number: transfer.number,
            after: transfer.place,
            until: transfer.place,
            messages: transfer.messages,
            total: 0,
            is_last: true,
            people: Vec::new(),
            talks: Vec::new(),
            entries: Vec::new(),
        };
        Self { work, part, bytes: PART_BYTES, people: BTreeMap::new(), talks: BTreeMap::new() }
    }

    /// Adds a message, unless the part is full. What nobody could be shown is passed: it has no author who is known here,
    /// or is no text that a client sends.
    fn add(&mut self, held: &Held) -> Result<bool, VaultError> {
        let (people, talks) = (self.part.people.len(), self.part.talks.len());
        let is_text = !held.text.is_empty() && held.text.len() <= TEXT_BYTES_MAX;
        let from = if is_text { self.person(held.from)? } else { None };
        let Some(from) = from else {
            self.part.until = held.row;
            return Ok(true);
        };
        let (talk, receipts) = (self.talk(held.conversation)?, self.receipts(held)?);
        let entry = Entry {
            talk,
            from,
            device: held.device,
            id: held.id,
            message_id: held.message_id,
            time_ms: held.time_ms,
            number: held.number,
            text: held.text.clone(),
            receipts,
        };
        self.bytes = self.bytes.saturating_add(entry.bytes_max());
        let longest = self.part.people.len().max(self.part.talks.len()).max(self.part.entries.len() + 1);
        if self.bytes > HISTORY_PART_BYTES_MAX || longest > HISTORY_PART_ENTRIES_MAX {
            self.part.people.truncate(people);
            self.part.talks.truncate(talks);
            return Ok(false);
        }
        self.part.entries.push(entry);
        self.part.messages = self.part.messages.saturating_add(1);
        self.part.until = held.row;
        Ok(true)
    }

    /// The place of an account in the part; `None` of one that is not known here.
    fn person(&mut self, account: AccountId) -> Result<Option<usize>, VaultError> {
        if let Some(place) = self.people.get(&account) {
            return Ok(Some(*place));
        }
        let work = self.work;
        let sql = "SELECT handle, former, replaced_by FROM contact WHERE account = ?1";
        let mut statement = work.connection.prepare_cached(sql)?;
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let known = statement.query_row(params![account.as_bytes()], read).optional()?;
        let Some((handle, is_former, replaced_by)): Option<(String, bool, Option<[u8; 16]>)> = known else {
            return Ok(None);
        };
        let handle = handle.parse().map_err(|_| VaultError::Damaged("handle"))?;
        let replaced_by = replaced_by.map(AccountId::from_bytes).filter(|_| is_former);
        let person = Person { account, handle, is_former, replaced_by };
        self.bytes = self.bytes.saturating_add(person.bytes_max());
        let place = self.part.people.len();
        self.part.people.push(person);
        self.people.insert(account, place);
        Ok(Some(place))
    }

    /// The place of a conversation in the part, with what people call it.
    fn talk(&mut self, conversation: ConversationId) -> Result<usize, VaultError> {
        if let Some(place) = self.talks.get(&conversation) {
            return Ok(*place);
        }
        let work = self.work;
        let sql = "SELECT peer, name FROM conversation WHERE id = ?1 UNION ALL
                   SELECT peer, name FROM past_conversation WHERE id = ?1 LIMIT 1";
        let mut statement = work.connection.prepare_cached(sql)?;
        let read = |row: &Row<'_>| Ok((row.get::<_, Option<[u8; 16]>>(0)?, row.get(1)?));
        let known = statement.query_row(params![conversation.as_bytes()], read).optional()?;
        let (peer, name): (Option<[u8; 16]>, Option<String>) = known.unwrap_or_default();
        let peer = peer.map(AccountId::from_bytes);
        if let Some(peer) = peer {
            self.person(peer)?;
        }
        let talk = Talk { conversation, peer, name };
        self.bytes = self.bytes.saturating_add(talk.bytes_max());
        let place = self.part.talks.len();
        self.part.talks.push(talk);
        self.talks.insert(conversation, place);
        Ok(place)
    }

    /// What others have said of a message of this account.
    fn receipts(&mut self, held: &Held) -> Result<Vec<Receipt>, VaultError> {
        let (work, mut receipts) = (self.work, Vec::new());
        if !held.own {
            return Ok(receipts);
        }
        let sql = "SELECT account, kind, time_ms FROM receipt WHERE conversation = ?1 AND content_id = ?2
                   AND account != ?3 ORDER BY time_ms, account, kind LIMIT ?4";
        let mut statement = work.connection.prepare_cached(sql)?;
        let own = work.identity.account;
        let key = params![held.conversation.as_bytes(), held.id, own.as_bytes(), HISTORY_RECEIPTS_MAX];
        let rows = statement.query_map(key, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for said in rows.collect::<Result<Vec<([u8; 16], u64, u64)>, _>>()? {
            let (account, kind, time_ms) = said;
            let kind = ReceiptKind::from_number(kind).ok_or(VaultError::Damaged("receipt"))?;
            if let Some(by) = self.person(AccountId::from_bytes(account))? {
                receipts.push(Receipt { by, kind, time_ms });
            }
        }
        Ok(receipts)
    }
}
