//! Reading back: the history in order of time, and the events that were not reported yet.

use gureum_proto::{AccountId, ConversationId, DeviceId, GapReason, MessageId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::receipts::receipts_of;
use super::relations::IS_REQUEST;
use super::settings::receipts_on;
use super::{Event, HistoryItem, Message, StoredEvent, Vault, VaultError, With};
use crate::limits::HISTORY_ROWS_MAX;

pub(super) const TEXT: i64 = 0;
pub(super) const GAP: i64 = 1;
pub(super) const UNREADABLE: i64 = 2;
pub(super) const RESTARTED: i64 = 3;
pub(super) const SAFETY_NUMBER: i64 = 4;

/// An account and those whose handle it has taken over: to people, one conversation.
const WITH: &str = "WITH RECURSIVE one_of(account) AS
    (SELECT ?1 UNION SELECT c.account FROM contact c JOIN one_of o ON c.replaced_by = o.account WHERE c.former = 1) ";

/// Of a mark of another account under a handle: whether it is about who is asked for, or about somebody who is in the group.
const IS_ABOUT: &str = "(m.sender_account IN (SELECT account FROM one_of) OR EXISTS (SELECT 1 FROM roster r
    WHERE r.conversation = ?2 AND r.account IN (m.sender_account, c.replaced_by)))";

/// What an entry is read from, and then what says which.
fn entries(which: &str) -> String {
    format!(
        "SELECT m.kind, m.conversation, m.message_id, m.sender_account, m.sender_device, m.own, m.time_ms,
         m.number, m.seq, m.to_seq, m.count, m.reason, m.text, ifnull(v.peer, p.peer), c.handle, ifnull(v.name, p.name),
         m.content_id, {IS_REQUEST} FROM message m LEFT JOIN conversation v ON v.id = m.conversation
         LEFT JOIN past_conversation p ON p.id = m.conversation AND v.id IS NULL
         LEFT JOIN contact c ON c.account = m.sender_account WHERE {which}"
    )
}

impl Vault {
    /// The newest `limit` entries, oldest first; those with somebody alone, and with accounts that it has taken the place of,
    /// or of a group, and the gaps, which may concern them. Of a group also that a handle stands for another account, where
    /// one of the two is in it.
    ///
    /// # Errors
    /// The database failed.
    pub fn history(&mut self, with: Option<With>, limit: u32) -> Result<Vec<HistoryItem>, VaultError> {
        let own = self.identity().account;
        self.read(|connection, _| {
            let shows_receipts = receipts_on(connection)?;
            let which = format!(
                "(?1 IS NULL AND ?2 IS NULL) OR ifnull(v.peer, p.peer) IN (SELECT account FROM one_of)
                 OR m.conversation = ?2 OR m.kind = {GAP} OR (m.kind = {SAFETY_NUMBER} AND {IS_ABOUT})
                 ORDER BY m.time_ms DESC, m.number DESC, m.id DESC LIMIT ?3"
            );
            let mut statement = connection.prepare(&format!("{WITH}{}", entries(&which)))?;
            let (account, group) = with.map_or((None, None), keys);
            let mut rows = statement.query(params![account, group, limit.min(HISTORY_ROWS_MAX)])?;
            let mut items = Vec::new();
            while let Some(row) = rows.next()? {
                let mut item = item(row)?;
                if let HistoryItem::Message(message) = &mut item
                    && message.own
                    && shows_receipts
                {
                    message.receipts = receipts_of(connection, own, message.conversation, row.get(16)?)?;
                }
                items.push(item);
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
            let sql = "SELECT id, message, detail FROM event ORDER BY id LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![limit])?;
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                events.extend(event(connection, row)?);
            }
            Ok(events)
        })
    }

    /// Those of [`Self::unreported_events`] that concern the conversations with somebody, or a group, or all conversations.
    ///
    /// # Errors
    /// The database failed.
    pub fn unreported_events_with(
        &mut self,
        with: impl Into<With>,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, VaultError> {
        let (own, with) = (self.identity().account, with.into());
        self.read(|connection, _| {
            let sql = "SELECT e.id, e.message, e.detail FROM event e LEFT JOIN message m ON m.id = e.message
                       LEFT JOIN conversation v ON v.id = m.conversation
                       WHERE e.message IS NULL OR v.peer = ?1 OR m.conversation = ?2 ORDER BY e.id";
            let mut statement = connection.prepare_cached(sql)?;
            let (account, group) = keys(with);
            let mut rows = statement.query(params![account, group])?;
            let mut events = Vec::new();
            while events.len() < limit
                && let Some(row) = rows.next()?
            {
                if let Some(stored) = event(connection, row)?
                    && concerns(connection, &stored.event, own, with)?
                {
                    events.push(stored);
                }
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

/// A row of `event`; `None` where the message that it names is gone.
fn event(connection: &Connection, row: &Row<'_>) -> Result<Option<StoredEvent>, VaultError> {
    let (id, of_message, detail): (i64, Option<i64>, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let event = match of_message {
        Some(of_message) => {
            let mut message = connection.prepare_cached(&entries("m.id = ?1"))?;
            let found = message.query_row(params![of_message], |row| Ok(item(row))).optional()?;
            let Some(HistoryItem::Message(message)) = found.transpose()? else { return Ok(None) };
            Event::Message(message)
        }
        None => {
            let detail = detail.ok_or(VaultError::Damaged("event"))?;
            serde_json::from_str(&detail).map_err(|_| VaultError::Damaged("event"))?
        }
    };
    Ok(Some(StoredEvent { id, event }))
}

/// The account and the conversation by which rows are found.
fn keys(with: With) -> (Option<[u8; 16]>, Option<[u8; 16]>) {
    match with {
        With::Account(account) => (Some(*account.as_bytes()), None),
        With::Group(conversation) => (None, Some(*conversation.as_bytes())),
    }
}

/// Whether an event is news to somebody who looks at the conversation with one account, or at a group.
fn concerns(connection: &Connection, event: &Event, own: AccountId, with: With) -> Result<bool, VaultError> {
    let conversation = match event {
        Event::Message(message) => return Ok(is_with(message.peer, message.conversation, with)),
        Event::PushRefused { .. } => return Ok(true),
        Event::Joined { peer, .. } => return Ok(With::Account(*peer) == with),
        Event::SafetyNumber { before, after, .. } => return is_about(connection, &[*before, *after], with),
        Event::DeviceAdded { account, .. }
        | Event::DeviceRevoked { account, .. }
        | Event::LogForked { account, .. } => {
            return Ok(*account == own || is_about(connection, &[*account], with)?);
        }
        Event::Gap { .. } | Event::Restored { .. } | Event::History { .. } | Event::Phone { .. } => return Ok(true),
        Event::Unreadable { conversation, .. }
        | Event::Receipt { conversation, .. }
        | Event::Read { conversation, .. }
        | Event::Rejoined { conversation, .. }
        | Event::MemberRejoined { conversation, .. }
        | Event::Copied { conversation, .. }
        | Event::GoneBack { conversation, .. }
        | Event::Restarted { conversation, .. }
        | Event::Group { conversation, .. }
        | Event::IntentRefused { conversation, .. }
        | Event::Withheld { conversation, .. }
        | Event::Hidden { conversation }
        | Event::AccountsGone { conversation, .. }
        | Event::CommitRefused { conversation, .. }
        | Event::SendFailed { conversation, .. } => conversation,
    };
    let mut statement = connection.prepare_cached("SELECT peer FROM conversation WHERE id = ?1")?;
    let peer = statement.query_row(params![conversation.as_bytes()], |row| row.get::<_, Option<[u8; 16]>>(0));
    // A conversation that is not kept here may have been with anybody.
    Ok(peer.optional()?.is_none_or(|peer| is_with(peer.map(AccountId::from_bytes), *conversation, with)))
}

/// Whether somebody looks at the conversation with one of these accounts, or at a group that one of them is in.
fn is_about(connection: &Connection, accounts: &[AccountId], with: With) -> Result<bool, VaultError> {
    let group = match with {
        With::Account(account) => return Ok(accounts.contains(&account)),
        With::Group(group) => group,
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM roster WHERE conversation = ?1 AND account = ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    for account in accounts {
        if statement.query_row(params![group.as_bytes(), account.as_bytes()], |row| row.get(0))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_with(peer: Option<AccountId>, conversation: ConversationId, with: With) -> bool {
    peer.map_or(With::Group(conversation), With::Account) == with
}

pub(super) const fn reason_number(reason: GapReason) -> i64 {
    match reason {
        GapReason::Expired => 0,
        GapReason::Overflow => 1,
        GapReason::Lost => 2,
    }
}

const fn reason_of(number: i64) -> GapReason {
    match number {
        0 => GapReason::Expired,
        2 => GapReason::Lost,
        _ => GapReason::Overflow,
    }
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
    let handle = |text: String| text.parse().map_err(|_| VaultError::Damaged("handle"));
    if kind == SAFETY_NUMBER {
        let conversation = row.get::<_, Option<[u8; 16]>>(1)?.map(ConversationId::from_bytes);
        let (with, numbers) = (handle(row.get(14)?)?, row.get::<_, String>(12)?);
        let (number_before, number) = numbers.split_once('\n').ok_or(VaultError::Damaged("safety number"))?;
        let (number_before, number) = (number_before.to_owned(), number.to_owned());
        return Ok(HistoryItem::SafetyNumber { conversation, with, number_before, number });
    }
    let conversation = ConversationId::from_bytes(row.get(1)?);
    if kind == RESTARTED {
        let with: Option<String> = row.get(14)?;
        let with = with.or(row.get(15)?).unwrap_or_else(|| conversation.to_string());
        return Ok(HistoryItem::Restarted { conversation, with });
    }
    let message_id = row.get::<_, Option<[u8; 16]>>(2)?.map(MessageId::from_bytes);
    let (server_time_ms, number) = (row.get(6)?, row.get(7)?);
    let text = row.get(12)?;
    if kind != TEXT {
        let message_id = message_id.ok_or(VaultError::Damaged("message"))?;
        return Ok(HistoryItem::Unreadable { conversation, number, message_id, server_time_ms, why: text });
    }
    Ok(HistoryItem::Message(Message {
        conversation,
        peer: row.get::<_, Option<[u8; 16]>>(13)?.map(AccountId::from_bytes),
        group: row.get(15)?,
        from: AccountId::from_bytes(row.get(3)?),
        from_handle: handle(row.get(14)?)?,
        device: DeviceId::from_bytes(row.get(4)?),
        own: row.get(5)?,
        text,
        message_id,
        server_time_ms,
        number,
        seq: row.get(8)?,
        request: row.get(17)?,
        receipts: None,
    }))
}
