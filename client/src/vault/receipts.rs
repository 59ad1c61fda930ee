//! Receipts: what is owed to others goes out together, what comes of others is told once; and how far a person has read.

use gureum_proto::{AccountId, ConversationId, Handle, MessageId};
use rusqlite::{Connection, OptionalExtension, params};

use super::history::{TEXT, UNREADABLE};
use super::key::random;
use super::outbox::{KIND_RECEIPT, KIND_TEXT};
use super::settings::receipts_on;
use super::work::{ACTIVE, Work};
use super::{Event, ReadMark, Receipts, StoredEvent, Vault, VaultError};
use crate::e2ee::content::record::MARK;
use crate::e2ee::content::{Body, CONTENT_ID_BYTES, Content, ContentId, Receipt, ReceiptKind};
use crate::limits::{RECEIPT_ACCOUNTS_MAX, RECEIPT_IDS_MAX, RECEIPT_ROWS_MAX, RECEIPTS_OWED_MAX};

/// A receipt that this device owes for a message.
struct Owed {
    message: i64,
    conversation: ConversationId,
    content_id: ContentId,
    kind: ReceiptKind,
}

impl Vault {
    /// A person has read everything that has come in a conversation; those who wrote it are to be told
    /// ([`Self::queue_receipts`]).
    ///
    /// # Errors
    /// The conversation is unknown, or the database failed.
    pub fn mark_read(&mut self, conversation: ConversationId) -> Result<ReadMark, VaultError> {
        self.write(|work| {
            if work.row(conversation)?.is_none_or(|row| row.is_own()) {
                return Err(VaultError::NoConversation(conversation));
            }
            let before = read_number(work, conversation)?;
            let sql = format!(
                "SELECT number FROM message WHERE conversation = ?1 AND kind IN ({TEXT}, {UNREADABLE})
                 ORDER BY number DESC LIMIT 1"
            );
            let mut statement = work.connection.prepare_cached(&sql)?;
            let newest: Option<u64> =
                statement.query_row(params![conversation.as_bytes()], |row| row.get(0)).optional()?;
            let number = newest.unwrap_or(0).max(before);
            if number > before {
                put_mark(work, conversation, number)?;
                owe_read(work, conversation, before, number)?;
                work.owe_record(MARK, conversation.as_bytes())?;
            }
            Ok(ReadMark { conversation, number })
        })
    }

    /// How many messages of others in a conversation nobody has read yet, on any device of this account as far as this one
    /// knows; those count that could not be read here.
    ///
    /// # Errors
    /// The database failed.
    pub fn unread(&mut self, conversation: ConversationId) -> Result<u64, VaultError> {
        self.read(|connection, _| unread(connection, conversation))
    }

    /// Puts the receipts that are owed into the outbox, each for as many messages as it can name. Returns whether there
    /// is anything to be sent.
    ///
    /// # Errors
    /// The database failed.
    pub fn queue_receipts(&mut self) -> Result<bool, VaultError> {
        self.write(|work| {
            let sql = format!("SELECT count(*) FROM outbox WHERE kind = {KIND_RECEIPT}");
            let waiting: u64 = work.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
            let room = RECEIPT_ROWS_MAX.saturating_sub(usize::try_from(waiting).unwrap_or(usize::MAX));
            let owed = owed(work, room * RECEIPT_IDS_MAX)?;
            let alike = owed.chunk_by(|one, next| (one.conversation, one.kind) == (next.conversation, next.kind));
            let parts: Vec<_> = alike.flat_map(|run| run.chunks(RECEIPT_IDS_MAX)).take(room).collect();
            for part in &parts {
                queue(work, part)?;
            }
            Ok(!parts.is_empty())
        })
    }
}

/// Up to where a conversation was read.
pub(super) fn read_number(work: &Work<'_>, conversation: ConversationId) -> Result<u64, VaultError> {
    let sql = "SELECT read_number FROM mark WHERE conversation = ?1";
    let mut statement = work.connection.prepare_cached(sql)?;
    Ok(statement.query_row(params![conversation.as_bytes()], |row| row.get(0)).optional()?.unwrap_or(0))
}

pub(super) fn put_mark(work: &Work<'_>, conversation: ConversationId, number: u64) -> Result<(), VaultError> {
    let sql = "INSERT INTO mark (conversation, read_number) VALUES (?1, ?2)
               ON CONFLICT (conversation) DO UPDATE SET read_number = ?2";
    work.connection.prepare_cached(sql)?.execute(params![conversation.as_bytes(), number])?;
    Ok(())
}

/// What has come of others in a conversation and was not read, here or on another device. What another device has handed
/// over was there before.
pub(super) fn unread(connection: &Connection, conversation: ConversationId) -> Result<u64, VaultError> {
    let sql = format!(
        "SELECT count(*) FROM message m WHERE m.conversation = ?1 AND m.kind IN ({TEXT}, {UNREADABLE}) AND m.own = 0
         AND m.seq IS NOT NULL AND m.number > ifnull((SELECT read_number FROM mark WHERE conversation = ?1), 0)"
    );
    Ok(connection.prepare_cached(&sql)?.query_row(params![conversation.as_bytes()], |row| row.get(0))?)
}

/// Messages between two numbers were read, `after` not among them. Who has read has got: one receipt says both. Those
/// of which another device has said it already need no other, and neither do those that one has handed over. Who is blocked
/// is told nothing.
fn owe_read(work: &Work<'_>, conversation: ConversationId, after: u64, until: u64) -> Result<(), VaultError> {
    if !receipts_on(work.connection)? {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO receipt_owed (message, kind) SELECT m.id, ?5 FROM message m
         WHERE m.conversation = ?1 AND m.number > ?2 AND m.number <= ?3 AND m.kind = {TEXT} AND m.own = 0
         AND m.seq IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM receipt r WHERE r.conversation = m.conversation AND r.content_id = m.content_id
            AND r.account = ?4 AND r.kind = ?5)
         AND NOT EXISTS (SELECT 1 FROM relation b WHERE b.account = m.sender_account AND b.relation = 3)
         ON CONFLICT (message) DO UPDATE SET kind = excluded.kind"
    );
    work.connection.prepare_cached(&sql)?.execute(params![
        conversation.as_bytes(),
        after,
        until,
        work.identity.account.as_bytes(),
        ReceiptKind::Read.number(),
    ])?;
    Ok(())
}

/// A message of somebody else has come, in this row.
pub(super) fn owe_delivered(work: &Work<'_>, message: i64) -> Result<(), VaultError> {
    if !receipts_on(work.connection)? {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO receipt_owed (message, kind) VALUES (?1, ?2)";
    work.connection.prepare_cached(sql)?.execute(params![message, ReceiptKind::Delivered.number()])?;
    let sql = "DELETE FROM receipt_owed WHERE message <= ?1";
    work.connection.prepare_cached(sql)?.execute(params![message.saturating_sub(RECEIPTS_OWED_MAX)])?;
    Ok(())
}

/// What is owed where it can be sent, by conversation and kind.
fn owed(work: &Work<'_>, limit: usize) -> Result<Vec<Owed>, VaultError> {
    let sql = format!(
        "SELECT o.message, m.conversation, m.content_id, o.kind FROM receipt_owed o JOIN message m ON m.id = o.message
         JOIN conversation c ON c.id = m.conversation WHERE c.state = {ACTIVE}
         ORDER BY m.conversation, o.kind, o.message LIMIT ?1"
    );
    let mut statement = work.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![limit])?;
    let mut owed = Vec::new();
    while let Some(row) = rows.next()? {
        owed.push(Owed {
            message: row.get(0)?,
            conversation: ConversationId::from_bytes(row.get(1)?),
            content_id: row.get(2)?,
            kind: kind_of(row.get(3)?)?,
        });
    }
    Ok(owed)
}

/// Puts one receipt into the outbox, for messages of one conversation.
fn queue(work: &Work<'_>, part: &[Owed]) -> Result<(), VaultError> {
    let Some(first) = part.first() else { return Ok(()) };
    let receipt = Receipt { kind: first.kind, ids: part.iter().map(|owed| owed.content_id).collect() };
    let content = Content { id: *random::<CONTENT_ID_BYTES>()?, body: Body::Receipt(receipt) };
    let sql = format!(
        "INSERT INTO outbox (conversation, content_id, text, created_ms, kind, payload)
         VALUES (?1, ?2, '', ?3, {KIND_RECEIPT}, ?4)"
    );
    let conversation = first.conversation.as_bytes();
    work.connection.execute(&sql, params![conversation, content.id, work.now_ms, content.to_bytes()])?;
    let mut paid = work.connection.prepare_cached("DELETE FROM receipt_owed WHERE message = ?1")?;
    for owed in part {
        paid.execute(params![owed.message])?;
    }
    Ok(())
}

/// A receipt came. It says something of whoever sent it alone, and only of what this account has written; one from
/// another device of this account makes those needless that this one owes.
pub(super) fn take_receipt(
    work: &Work<'_>,
    conversation: ConversationId,
    from: AccountId,
    receipt: &Receipt,
    time_ms: u64,
) -> Result<Vec<StoredEvent>, VaultError> {
    let mut events = Vec::new();
    if !receipts_on(work.connection)? || work.is_blocked(from)? {
        return Ok(events);
    }
    for id in &receipt.ids {
        if from == work.identity.account {
            if is_paid_by_sibling(work, conversation, id, receipt.kind)? {
                note(work, conversation, id, from, receipt.kind, time_ms)?;
            }
            continue;
        }
        let (is_own, message_id) = own_message(work, conversation, id)?;
        if is_own && note(work, conversation, id, from, receipt.kind, time_ms)? {
            // Without the server's id nobody could tell which message is meant; the history shows it.
            if let Some(message_id) = message_id {
                events.push(tell(work, conversation, message_id, (from, receipt.kind, time_ms))?);
            }
        }
    }
    Ok(events)
}

/// Whether there are messages of others that another device of this account has named; none is owed for them here.
fn is_paid_by_sibling(
    work: &Work<'_>,
    conversation: ConversationId,
    id: &ContentId,
    kind: ReceiptKind,
) -> Result<bool, VaultError> {
    let sql = format!(
        "SELECT id FROM message WHERE conversation = ?1 AND content_id = ?2 AND kind = {TEXT} AND own = 0 ORDER BY id"
    );
    let mut statement = work.connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![conversation.as_bytes(), id], |row| row.get(0))?;
    let messages = rows.collect::<Result<Vec<i64>, _>>()?;
    let sql = "DELETE FROM receipt_owed WHERE message = ?1 AND kind <= ?2";
    let mut paid = work.connection.prepare_cached(sql)?;
    for message in &messages {
        paid.execute(params![message, kind.number()])?;
    }
    Ok(!messages.is_empty())
}

/// Whether this account has written a message, and its id at the server. The answer to its sending may come after a
/// receipt for it.
fn own_message(
    work: &Work<'_>,
    conversation: ConversationId,
    id: &ContentId,
) -> Result<(bool, Option<MessageId>), VaultError> {
    let sql = format!(
        "SELECT message_id FROM message WHERE conversation = ?1 AND content_id = ?2 AND kind = {TEXT} AND own = 1 LIMIT 1"
    );
    let mut statement = work.connection.prepare_cached(&sql)?;
    let read = |row: &rusqlite::Row<'_>| row.get::<_, Option<[u8; 16]>>(0);
    if let Some(message_id) = statement.query_row(params![conversation.as_bytes(), id], read).optional()? {
        return Ok((true, message_id.map(MessageId::from_bytes)));
    }
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE conversation = ?1 AND content_id = ?2 AND kind = {KIND_TEXT}
                        AND failed = 0)"
    );
    let mut statement = work.connection.prepare_cached(&sql)?;
    let waits = statement.query_row(params![conversation.as_bytes(), id], |row| row.get(0))?;
    Ok((waits, None))
}

/// Keeps a receipt; says whether it is news. The first of an account counts, and who has read has got.
fn note(
    work: &Work<'_>,
    conversation: ConversationId,
    id: &ContentId,
    account: AccountId,
    kind: ReceiptKind,
    time_ms: u64,
) -> Result<bool, VaultError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM receipt WHERE conversation = ?1 AND content_id = ?2 AND account = ?3
                              AND kind >= ?4)";
    let mut statement = work.connection.prepare_cached(sql)?;
    let key = params![conversation.as_bytes(), id, account.as_bytes(), kind.number()];
    if statement.query_row(key, |row| row.get(0))? {
        return Ok(false);
    }
    let sql = "INSERT INTO receipt (conversation, content_id, account, kind, time_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = params![conversation.as_bytes(), id, account.as_bytes(), kind.number(), time_ms];
    work.connection.prepare_cached(sql)?.execute(row)?;
    Ok(true)
}

/// Tells of receipts that came before the answer to the message that they are for.
pub(super) fn tell_early(
    work: &Work<'_>,
    conversation: ConversationId,
    id: &ContentId,
    message_id: MessageId,
) -> Result<(), VaultError> {
    let sql = "SELECT account, kind, time_ms FROM receipt WHERE conversation = ?1 AND content_id = ?2
               ORDER BY time_ms, account, kind";
    let mut statement = work.connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![conversation.as_bytes(), id])?;
    while let Some(row) = rows.next()? {
        let said = (AccountId::from_bytes(row.get(0)?), kind_of(row.get(1)?)?, row.get(2)?);
        tell(work, conversation, message_id, said)?;
    }
    Ok(())
}

fn tell(
    work: &Work<'_>,
    conversation: ConversationId,
    message_id: MessageId,
    (account, kind, time_ms): (AccountId, ReceiptKind, u64),
) -> Result<StoredEvent, VaultError> {
    work.event(Event::Receipt { kind, conversation, message_id, by: work.handle(account)?, time_ms })
}

/// Who has got a message of this account; `None` where nobody has said so and so many are in the conversation that nobody
/// does.
pub(super) fn receipts_of(
    connection: &Connection,
    own: AccountId,
    conversation: ConversationId,
    id: ContentId,
) -> Result<Option<Receipts>, VaultError> {
    let sql = "SELECT c.handle, r.kind FROM receipt r JOIN contact c ON c.account = r.account
               WHERE r.conversation = ?1 AND r.content_id = ?2 AND r.account != ?3 ORDER BY r.time_ms, r.account, r.kind";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![conversation.as_bytes(), id, own.as_bytes()])?;
    let mut receipts = Receipts::default();
    while let Some(row) = rows.next()? {
        let handle: String = row.get(0)?;
        let handle: Handle = handle.parse().map_err(|_| VaultError::Damaged("handle"))?;
        if kind_of(row.get(1)?)? == ReceiptKind::Read {
            receipts.read_by.push(handle.clone());
        }
        if !receipts.delivered_to.contains(&handle) {
            receipts.delivered_to.push(handle);
        }
    }
    let says_nothing = receipts.delivered_to.is_empty() && is_of_many(connection, conversation)?;
    Ok((!says_nothing).then_some(receipts))
}

/// Whether more accounts are in a conversation than send receipts to one another.
fn is_of_many(connection: &Connection, conversation: ConversationId) -> Result<bool, VaultError> {
    let sql = "SELECT count(*) FROM (SELECT DISTINCT account FROM roster WHERE conversation = ?1 LIMIT ?2)";
    let limit = RECEIPT_ACCOUNTS_MAX + 1;
    let mut statement = connection.prepare_cached(sql)?;
    let accounts: usize = statement.query_row(params![conversation.as_bytes(), limit], |row| row.get(0))?;
    Ok(accounts == limit)
}

fn kind_of(number: u64) -> Result<ReceiptKind, VaultError> {
    ReceiptKind::from_number(number).ok_or(VaultError::Damaged("receipt"))
}
