//! Reading back: the history in order of time, and the events that were not reported yet.

use gureum_proto::{AccountId, ConversationId, DeviceId, GapReason, MessageId};
use rusqlite::{OptionalExtension, Row, params};

use super::{Event, HistoryItem, Message, StoredEvent, Vault, VaultError};
use crate::limits::HISTORY_ROWS_MAX;

pub(super) const TEXT: i64 = 0;
pub(super) const GAP: i64 = 1;
pub(super) const UNREADABLE: i64 = 2;

const COLUMNS: &str =
    "SELECT m.kind, m.conversation, m.message_id, m.sender_account, m.sender_device, m.own, m.time_ms,
    m.number, m.seq, m.to_seq, m.count, m.reason, m.text, v.peer, c.handle
    FROM message m LEFT JOIN conversation v ON v.id = m.conversation
    LEFT JOIN contact c ON c.account = m.sender_account";

impl Vault {
    /// The newest `limit` entries, oldest first; with an account, those of its conversations and the gaps, which may
    /// concern it.
    ///
    /// # Errors
    /// The database failed.
    pub fn history(&mut self, with: Option<AccountId>, limit: u32) -> Result<Vec<HistoryItem>, VaultError> {
        self.read(|connection, _| {
            let sql = format!(
                "{COLUMNS} WHERE ?1 IS NULL OR v.peer = ?1 OR m.kind = {GAP}
                 ORDER BY m.time_ms DESC, m.number DESC, m.id DESC LIMIT ?2"
            );
            let mut statement = connection.prepare(&sql)?;
            let with = with.map(|account| *account.as_bytes());
            let mut rows = statement.query(params![with, limit.min(HISTORY_ROWS_MAX)])?;
            let mut items = Vec::new();
            while let Some(row) = rows.next()? {
                items.push(item(row)?);
            }
            items.reverse();
            Ok(items)
        })
    }

    /// Events that were not reported yet, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub fn unreported_events(&mut self, limit: usize) -> Result<Vec<StoredEvent>, VaultError> {
        self.read(|connection, _| {
            let mut statement =
                connection.prepare_cached("SELECT id, message, detail FROM event ORDER BY id LIMIT ?1")?;
            let rows = statement.query_map(params![limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let mut message = connection.prepare_cached(&format!("{COLUMNS} WHERE m.id = ?1"))?;
            let mut events = Vec::new();
            for row in rows {
                let (id, of_message, detail): (i64, Option<i64>, Option<String>) = row?;
                let event = match (of_message, detail) {
                    (Some(of_message), _) => {
                        let found = message.query_row(params![of_message], |row| Ok(item(row))).optional()?;
                        let Some(HistoryItem::Message(message)) = found.transpose()? else { continue };
                        Event::Message(message)
                    }
                    (None, detail) => {
                        let detail = detail.ok_or(VaultError::Damaged("event"))?;
                        serde_json::from_str(&detail).map_err(|_| VaultError::Damaged("event"))?
                    }
                };
                events.push(StoredEvent { id, event });
            }
            Ok(events)
        })
    }

    /// These events were reported.
    ///
    /// # Errors
    /// The database failed.
    pub fn mark_reported(&mut self, ids: &[i64]) -> Result<(), VaultError> {
        self.write(|work| {
            let mut statement = work.connection.prepare_cached("DELETE FROM event WHERE id = ?1")?;
            for id in ids {
                statement.execute(params![id])?;
            }
            Ok(())
        })
    }
}

pub(super) const fn reason_number(reason: GapReason) -> i64 {
    match reason {
        GapReason::Expired => 0,
        GapReason::Overflow => 1,
    }
}

const fn reason_of(number: i64) -> GapReason {
    if number == 0 { GapReason::Expired } else { GapReason::Overflow }
}

fn item(row: &Row<'_>) -> Result<HistoryItem, VaultError> {
    let kind: i64 = row.get(0)?;
    if kind == GAP {
        return Ok(HistoryItem::Gap {
            from_seq: row.get(8)?,
            to_seq: row.get(9)?,
            count: row.get(10)?,
            reason: reason_of(row.get(11)?),
        });
    }
    let conversation = ConversationId::from_bytes(row.get(1)?);
    let message_id = row.get::<_, Option<[u8; 16]>>(2)?.map(MessageId::from_bytes);
    let (server_time_ms, number) = (row.get(6)?, row.get(7)?);
    let text = row.get(12)?;
    if kind != TEXT {
        let message_id = message_id.ok_or(VaultError::Damaged("message"))?;
        return Ok(HistoryItem::Unreadable { conversation, number, message_id, server_time_ms, why: text });
    }
    let handle: String = row.get(14)?;
    Ok(HistoryItem::Message(Message {
        conversation,
        peer: AccountId::from_bytes(row.get(13)?),
        from: AccountId::from_bytes(row.get(3)?),
        from_handle: handle.parse().map_err(|_| VaultError::Damaged("handle"))?,
        device: DeviceId::from_bytes(row.get(4)?),
        own: row.get(5)?,
        text,
        message_id,
        server_time_ms,
        number,
        seq: row.get(8)?,
    }))
}
