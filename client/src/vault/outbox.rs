//! The outbox: a text is a row before anything else, gets its counter and ciphertext in one transaction with the
//! ratchet's step, and leaves by the server's answer. So does what goes out silently, of which nobody is told.

use std::collections::BTreeSet;

use gureum_proto::{Accepted, Code, ConversationId, Fault, Refusal, Send, Sent};
use rusqlite::{OptionalExtension, params};

use super::conversations::shown;
use super::key::random;
use super::receipts::tell_early;
use super::work::{ACTIVE, Work};
use super::{
    ConversationStatus, Event, GoneBack, OutboxId, QueueError, SentMessage, Settled, StoredEvent, Vault, VaultError,
};
use crate::e2ee::Group;
use crate::e2ee::content::{Body, CONTENT_ID_BYTES, Content, ContentId};
use crate::limits::{
    COUNTERS_UNRESOLVED_MAX, OUTBOX_FAILED_MAX, OUTBOX_ROWS_MAX, RECEIPT_ACCOUNTS_MAX, RETRY_AFTER_MAX_MS, RETRY_MS,
    TEXT_BYTES_MAX,
};

/// A row that somebody has written.
pub(super) const KIND_TEXT: i64 = 0;
/// A row that tells others what has become of their messages.
pub(super) const KIND_RECEIPT: i64 = 1;
/// A row that tells the other devices of this account something.
pub(super) const KIND_RECORDS: i64 = 2;
/// A row with a part of this device's history, for another one of the account.
pub(super) const KIND_HISTORY: i64 = 3;

struct OutboxRow {
    id: i64,
    conversation: ConversationId,
    content_id: ContentId,
    kind: i64,
    text: String,
    /// The content of what is no text.
    payload: Option<Vec<u8>>,
    counter: Option<u64>,
    epoch: Option<u64>,
    ciphertext: Option<Vec<u8>>,
}

impl Vault {
    /// Puts a text into the outbox.
    ///
    /// # Errors
    /// The text is empty or too long, the outbox is full, the conversation is unknown or stopped, whom it is with is blocked,
    /// or the handle stands for another account: that is said once.
    pub fn queue_text(&mut self, conversation: ConversationId, text: &str) -> Result<OutboxId, QueueError> {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(QueueError::Length(text.len()));
        }
        self.write(|work| {
            let row = work.row(conversation)?.filter(|row| !row.is_own());
            let row = row.ok_or(VaultError::NoConversation(conversation))?;
            match row.state {
                ConversationStatus::Forked => return Err(QueueError::Stopped),
                ConversationStatus::Ahead => {
                    let (with, is_group) = (work.title(&row)?, row.is_group());
                    return Err(QueueError::GoneBack(GoneBack { with, is_group }));
                }
                ConversationStatus::Left => return Err(QueueError::Left(work.title(&row)?)),
                _ => {}
            }
            if let Some(peer) = row.peer
                && work.is_blocked(peer)?
            {
                return Err(QueueError::Blocked(work.handle(peer)?));
            }
            if let Some(peer) = row.peer
                && let Some(handle) = work.told_of_moved(peer)?
            {
                // That it was said stays.
                return Ok(Err(QueueError::HandleMoved(handle)));
            }
            if waiting(work)? >= OUTBOX_ROWS_MAX {
                return Err(QueueError::Full);
            }
            work.accept(&row)?;
            let id = random::<CONTENT_ID_BYTES>()?;
            let sql = "INSERT INTO outbox (conversation, content_id, text, created_ms) VALUES (?1, ?2, ?3, ?4)";
            work.connection.execute(sql, params![conversation.as_bytes(), *id, text, work.now_ms])?;
            Ok(Ok(OutboxId(work.connection.last_insert_rowid())))
        })?
    }

    /// The sends that are due, in the order of their counters: those with one above `after`, as the same bytes (0 on
    /// a new connection: all that are without an answer), and those that had to be encrypted again.
    ///
    /// # Errors
    /// The database failed.
    pub fn next_sends(&mut self, after: u64, limit: usize) -> Result<Vec<Send>, VaultError> {
        self.write(|work| {
            let limit = limit.min(usize::try_from(COUNTERS_UNRESOLVED_MAX).unwrap_or(limit));
            let mut sends = Vec::new();
            for row in due(work, after, limit)? {
                let Some(send) = prepare(work, &row)? else { continue };
                sends.push(send);
            }
            Ok(sends)
        })
    }

    /// Takes the answer to a send; the same answer twice does no harm.
    ///
    /// # Errors
    /// The database failed.
    pub fn settle(&mut self, sent: &Sent) -> Result<Settled, VaultError> {
        self.write(|work| {
            let Some(row) = by_counter(work, sent.counter)? else { return Ok(Settled::Nothing) };
            match &sent.result {
                Ok(_) if row.is_silent() => forget(work, row.id).map(|()| Settled::Silent),
                Ok(accepted) => accept(work, &row, accepted).map(Settled::Sent),
                Err(refusal) => refuse(work, &row, refusal),
            }
        })
    }

    /// Messages that cannot be encrypted again for now give their counters back: as long as one is held, only so many
    /// above it may be used, and all conversations share them. The server has refused these, and never accepts them.
    ///
    /// # Errors
    /// The database failed.
    pub fn release_counters(&mut self, conversation: ConversationId) -> Result<(), VaultError> {
        self.write(|work| {
            let sql = "UPDATE outbox SET counter = NULL WHERE conversation = ?1 AND ciphertext IS NULL AND failed = 0";
            work.connection.execute(sql, params![conversation.as_bytes()])?;
            Ok(())
        })
    }

    /// Takes a text out of the outbox again; whoever handed it over is told that it was not sent.
    ///
    /// # Errors
    /// The database failed.
    pub fn take_back(&mut self, outbox: OutboxId) -> Result<(), VaultError> {
        self.write(|work| {
            work.connection.execute("DELETE FROM outbox WHERE id = ?1", params![outbox.0])?;
            Ok(())
        })
    }

    /// Texts that wait in the outbox.
    ///
    /// # Errors
    /// The database failed.
    pub fn outbox_len(&mut self) -> Result<u64, VaultError> {
        self.write(|work| waiting(work))
    }
}

fn waiting(work: &Work<'_>) -> Result<u64, VaultError> {
    let sql = format!("SELECT count(*) FROM outbox WHERE failed = 0 AND kind = {KIND_TEXT}");
    Ok(work.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        id: row.get(0)?,
        conversation: ConversationId::from_bytes(row.get(1)?),
        content_id: row.get(2)?,
        kind: row.get(3)?,
        text: row.get(4)?,
        payload: row.get(5)?,
        counter: row.get(6)?,
        epoch: row.get(7)?,
        ciphertext: row.get(8)?,
    })
}

const COLUMNS: &str =
    "SELECT o.id, o.conversation, o.content_id, o.kind, o.text, o.payload, o.counter, o.epoch, o.ciphertext
    FROM outbox o";

impl OutboxRow {
    /// Whether nobody is to be shown it.
    const fn is_silent(&self) -> bool {
        self.kind != KIND_TEXT
    }

    fn plaintext(&self) -> Vec<u8> {
        match &self.payload {
            Some(payload) => payload.clone(),
            None => Content { id: self.content_id, body: Body::Text(self.text.clone()) }.to_bytes(),
        }
    }
}

fn due(work: &Work<'_>, after: u64, limit: usize) -> Result<Vec<OutboxRow>, VaultError> {
    let sql = format!(
        "{COLUMNS} JOIN conversation c ON c.id = o.conversation WHERE o.failed = 0 AND c.state = {ACTIVE}
         AND c.must_rejoin = 0 AND (o.counter IS NULL OR o.ciphertext IS NULL OR o.counter > ?1)
         AND NOT (o.ciphertext IS NULL AND ifnull(o.epoch, 0) >= c.epoch)
         AND NOT (o.ciphertext IS NULL AND EXISTS (SELECT 1 FROM to_remove r WHERE r.conversation = c.id))
         ORDER BY o.counter IS NULL, o.counter, o.kind, o.id LIMIT ?2"
    );
    let mut statement = work.connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![after, limit], read)?;
    rows.map(|row| Ok(row?)).collect()
}

fn by_counter(work: &Work<'_>, counter: u64) -> Result<Option<OutboxRow>, VaultError> {
    let mut statement = work.connection.prepare_cached(&format!("{COLUMNS} WHERE o.counter = ?1 AND o.failed = 0"))?;
    Ok(statement.query_row(params![counter], read).optional()?)
}

/// A row as a send: encrypted now if it is not yet, unless it must wait for commits or for counters.
fn prepare(work: &mut Work<'_>, row: &OutboxRow) -> Result<Option<Send>, VaultError> {
    let (conversation, silent) = (row.conversation, row.is_silent());
    if let (Some(counter), Some(epoch), Some(ciphertext)) = (row.counter, row.epoch, &row.ciphertext) {
        return Ok(Some(Send { counter, conversation, epoch, ciphertext: ciphertext.clone().into(), silent }));
    }
    let Some(mut group) = work.group(conversation)? else { return Ok(None) };
    if row.kind == KIND_RECEIPT && accounts_of(&group) > RECEIPT_ACCOUNTS_MAX {
        work.keep(conversation, group);
        forget(work, row.id)?;
        return Ok(None);
    }
    let epoch = group.epoch();
    let stale = row.epoch.is_some_and(|refused| epoch <= refused);
    let counter = match row.counter {
        Some(counter) => Some(counter),
        None if stale => None,
        None => work.next_counter()?,
    };
    let Some(counter) = counter.filter(|_| !stale) else {
        work.keep(conversation, group);
        return Ok(None);
    };
    let ciphertext = work.mls().encrypt(&mut group, &row.plaintext())?;
    work.keep(conversation, group);
    let sql = "UPDATE outbox SET counter = ?2, epoch = ?3, ciphertext = ?4 WHERE id = ?1";
    work.connection.prepare_cached(sql)?.execute(params![row.id, counter, epoch, ciphertext])?;
    Ok(Some(Send { counter, conversation, epoch, ciphertext: ciphertext.into(), silent }))
}

fn accounts_of(group: &Group) -> usize {
    let identities = group.leaves().into_iter().filter_map(|leaf| leaf.identity);
    identities.map(|identity| identity.account).collect::<BTreeSet<_>>().len()
}

/// Takes a row out of which nothing is to become any more.
fn forget(work: &Work<'_>, row: i64) -> Result<(), VaultError> {
    work.connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute(params![row])?;
    Ok(())
}

fn accept(work: &mut Work<'_>, row: &OutboxRow, accepted: &Accepted) -> Result<SentMessage, VaultError> {
    let conversation = work.row(row.conversation)?.ok_or(VaultError::NoConversation(row.conversation))?;
    let server_time_ms = match accepted.message_id {
        Some(id) => id.time_ms(),
        None => {
            let sql = "SELECT created_ms FROM outbox WHERE id = ?1";
            work.connection.query_row(sql, params![row.id], |row| row.get(0))?
        }
    };
    let sql = "INSERT OR IGNORE INTO message
               (kind, conversation, content_id, message_id, sender_account, sender_device, own, time_ms, number, text)
               VALUES (0, ?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8)";
    work.connection.prepare_cached(sql)?.execute(params![
        row.conversation.as_bytes(),
        row.content_id,
        accepted.message_id.map(|id| *id.as_bytes()),
        work.identity.account.as_bytes(),
        work.identity.device.as_bytes(),
        server_time_ms,
        accepted.number,
        row.text,
    ])?;
    forget(work, row.id)?;
    if accepted.number == 0 {
        // Accepted so long ago that the server has forgotten which number it got.
        work.forget_holes(row.conversation)?;
    }
    if let Some(message_id) = accepted.message_id {
        tell_early(work, row.conversation, &row.content_id, message_id)?;
    }
    let (gone, gone_more) = work.tell_accounts_gone(&conversation, &accepted.gone)?;
    Ok(SentMessage {
        outbox: OutboxId(row.id),
        to: shown(conversation).with(),
        conversation: row.conversation,
        message_id: accepted.message_id,
        server_time_ms,
        gone,
        gone_more,
    })
}

fn refuse(work: &Work<'_>, row: &OutboxRow, refusal: &Refusal) -> Result<Settled, VaultError> {
    match (refusal.code, refusal.code.fault()) {
        (Code::EpochStale, _) => {
            work.connection.execute("UPDATE outbox SET ciphertext = NULL WHERE id = ?1", params![row.id])?;
            Ok(Settled::Again { conversation: row.conversation, epoch: row.epoch.unwrap_or(0) })
        }
        (Code::RemovalPending, _) => {
            work.connection.execute("UPDATE outbox SET ciphertext = NULL WHERE id = ?1", params![row.id])?;
            work.note_removal_pending(row.conversation)?;
            Ok(Settled::Removal { conversation: row.conversation })
        }
        // A limit that is reached now is not reached for ever: the text is not to be lost over it.
        (Code::LimitReached, _) | (_, Fault::World | Fault::Server | Fault::None) => {
            Ok(Settled::Later { retry_after_ms: refusal.retry_after_ms.clamp(RETRY_MS, RETRY_AFTER_MAX_MS) })
        }
        (_, Fault::Client) if row.is_silent() => forget(work, row.id).map(|()| Settled::Silent),
        (_, Fault::Client) => {
            let stored = fail(work, row.id, row.conversation, &refusal.to_string())?;
            Ok(Settled::Failed(stored.event))
        }
    }
}

/// Gives up what goes out silently in a conversation.
pub(super) fn forget_silent(work: &Work<'_>, conversation: ConversationId) -> Result<(), VaultError> {
    let sql = format!("DELETE FROM outbox WHERE conversation = ?1 AND kind != {KIND_TEXT}");
    work.connection.execute(&sql, params![conversation.as_bytes()])?;
    Ok(())
}

/// Gives up all that waits to be sent in a conversation.
pub(super) fn fail_all(
    work: &Work<'_>,
    conversation: ConversationId,
    why: &str,
) -> Result<Vec<StoredEvent>, VaultError> {
    forget_silent(work, conversation)?;
    let mut statement =
        work.connection.prepare_cached("SELECT id FROM outbox WHERE conversation = ?1 AND failed = 0 ORDER BY id")?;
    let ids =
        statement.query_map(params![conversation.as_bytes()], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    ids.into_iter().map(|id| fail(work, id, conversation, why)).collect()
}

pub(super) fn fail(
    work: &Work<'_>,
    row: i64,
    conversation: ConversationId,
    why: &str,
) -> Result<StoredEvent, VaultError> {
    let sql = "UPDATE outbox SET failed = 1, counter = NULL, epoch = NULL, ciphertext = NULL WHERE id = ?1";
    work.connection.execute(sql, params![row])?;
    let sql = "DELETE FROM outbox WHERE failed = 1 AND id NOT IN
               (SELECT id FROM outbox WHERE failed = 1 ORDER BY id DESC LIMIT ?1)";
    work.connection.execute(sql, params![OUTBOX_FAILED_MAX])?;
    let with = work.title_of(conversation)?;
    work.event(Event::SendFailed { outbox: OutboxId(row), conversation, with, why: why.to_owned() })
}
