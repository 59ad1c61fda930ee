//! Messages that a conversation's numbers promise and that have not come: excused, or told once as withheld.
//!
//! The server numbers the messages of a conversation without a hole, and this device knows them all: others' come through
//! its inbox, and its own get their numbers with their answers. A number that neither brings was kept from it.

use gureum_proto::ConversationId;
use rusqlite::{OptionalExtension, params};

use super::history::{TEXT, UNREADABLE};
use super::outbox::KIND_TEXT;
use super::work::Work;
use super::{Event, StoredEvent, Vault, VaultError};
use crate::limits::{HOLE_PATIENCE_MS, HOLES_MAX};

/// Numbers of a conversation that nothing has come for.
struct Missing {
    from_number: u64,
    to_number: u64,
    count: u64,
}

impl Vault {
    /// Tells of messages that are missing for longer than what is on its way can take, each once.
    ///
    /// # Errors
    /// The database failed.
    pub fn tell_withheld(&mut self) -> Result<Vec<StoredEvent>, VaultError> {
        self.write(|work| {
            let mut told = Vec::new();
            for (conversation, from_number, to_number) in due(work)? {
                let sql = "DELETE FROM hole WHERE conversation = ?1 AND from_number = ?2";
                work.connection.prepare_cached(sql)?.execute(params![conversation.as_bytes(), from_number])?;
                if let Some(missing) = work.missing(conversation, from_number, to_number)? {
                    let Missing { from_number, to_number, count } = missing;
                    let with = work.title_of(conversation)?;
                    told.push(work.event(Event::Withheld { conversation, with, from_number, to_number, count })?);
                }
            }
            Ok(told)
        })
    }

    /// How long until [`Self::tell_withheld`] may have something to tell, in milliseconds; `None`: nothing is missing.
    ///
    /// # Errors
    /// The database failed.
    pub fn withheld_due_ms(&mut self) -> Result<Option<u64>, VaultError> {
        self.read(|connection, now_ms| {
            let since: Option<u64> = connection.query_row("SELECT min(since_ms) FROM hole", [], |row| row.get(0))?;
            let wait = |since: u64| since.saturating_add(HOLE_PATIENCE_MS).saturating_sub(now_ms).min(HOLE_PATIENCE_MS);
            Ok(since.map(wait))
        })
    }
}

/// Holes that are old enough. Where a message of this device is without an answer, that one may fill them.
fn due(work: &Work<'_>) -> Result<Vec<(ConversationId, u64, u64)>, VaultError> {
    // A time ahead of now is that of a clock which has been put right since.
    let sql = "UPDATE hole SET since_ms = ?1 WHERE since_ms > ?1";
    work.connection.prepare_cached(sql)?.execute(params![work.now_ms])?;
    let sql = format!(
        "SELECT conversation, from_number, to_number FROM hole h WHERE since_ms <= ?1 AND NOT EXISTS
         (SELECT 1 FROM outbox o WHERE o.conversation = h.conversation AND o.kind = {KIND_TEXT} AND o.failed = 0
          AND o.counter IS NOT NULL) ORDER BY since_ms, conversation, from_number"
    );
    let mut statement = work.connection.prepare_cached(&sql)?;
    let before = work.now_ms.saturating_sub(HOLE_PATIENCE_MS);
    let rows = statement
        .query_map(params![before], |row| Ok((ConversationId::from_bytes(row.get(0)?), row.get(1)?, row.get(2)?)))?;
    rows.map(|row| Ok(row?)).collect()
}

impl Work<'_> {
    /// A conversation that begins now, with this device in it: its first message has number 1.
    pub(super) fn begin_numbers(&self, conversation: ConversationId) -> Result<(), VaultError> {
        let sql = "INSERT OR IGNORE INTO numbering (conversation, next_number) VALUES (?1, 1)";
        self.connection.prepare_cached(sql)?.execute(params![conversation.as_bytes()])?;
        Ok(())
    }

    /// A message with this number came. From the first one on that this device could read, all that follow come to it.
    pub(super) fn note_number(
        &self,
        conversation: ConversationId,
        number: u64,
        is_readable: bool,
    ) -> Result<(), VaultError> {
        let sql = "SELECT next_number FROM numbering WHERE conversation = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let next: Option<u64> = statement.query_row(params![conversation.as_bytes()], |row| row.get(0)).optional()?;
        match next {
            None if !is_readable => return Ok(()),
            Some(next) if number < next => return Ok(()),
            Some(next) if number > next => self.open_hole(conversation, next, number.saturating_sub(1))?,
            _ => {}
        }
        let sql = "INSERT INTO numbering (conversation, next_number) VALUES (?1, ?2)
                   ON CONFLICT (conversation) DO UPDATE SET next_number = ?2";
        let row = params![conversation.as_bytes(), number.saturating_add(1)];
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// What is to come in a conversation need not follow what came: this device was not in it, or is not yet.
    pub(super) fn forget_numbers(&self, conversation: ConversationId) -> Result<(), VaultError> {
        let sql = "DELETE FROM numbering WHERE conversation = ?1";
        self.connection.prepare_cached(sql)?.execute(params![conversation.as_bytes()])?;
        Ok(())
    }

    /// The same, and of what is missing already nobody can say any more why: the server has gone back.
    pub(super) fn forget_holes(&self, conversation: ConversationId) -> Result<(), VaultError> {
        self.forget_numbers(conversation)?;
        self.connection.execute("DELETE FROM hole WHERE conversation = ?1", params![conversation.as_bytes()])?;
        Ok(())
    }

    /// Messages are gone, of conversations that nobody can tell: what is to come follows on none that came.
    pub(super) fn forget_all_numbers(&self) -> Result<(), VaultError> {
        self.connection.prepare_cached("DELETE FROM numbering")?.execute([])?;
        Ok(())
    }

    /// The same, and nobody can say what became of messages that this device, or a copy of it, has sent.
    pub(super) fn forget_all_holes(&self) -> Result<(), VaultError> {
        self.forget_all_numbers()?;
        self.connection.execute("DELETE FROM hole", [])?;
        Ok(())
    }

    fn open_hole(&self, conversation: ConversationId, from_number: u64, to_number: u64) -> Result<(), VaultError> {
        // Where this database is an older copy, newer ones have sent what it does not know of.
        if self.must_rejoin(conversation)? || self.missing(conversation, from_number, to_number)?.is_none() {
            return Ok(());
        }
        let sql = "INSERT OR IGNORE INTO hole (conversation, from_number, to_number, since_ms)
                   SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM hole) < ?5";
        let row = params![conversation.as_bytes(), from_number, to_number, self.now_ms, HOLES_MAX];
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// What the history has nothing for, of a span of numbers; own messages are in it since their answers came.
    fn missing(
        &self,
        conversation: ConversationId,
        mut from_number: u64,
        mut to_number: u64,
    ) -> Result<Option<Missing>, VaultError> {
        let sql = format!(
            "SELECT DISTINCT number FROM message WHERE conversation = ?1 AND number BETWEEN ?2 AND ?3
             AND kind IN ({TEXT}, {UNREADABLE}) ORDER BY number"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let span = params![conversation.as_bytes(), from_number, to_number];
        let numbers = statement.query_map(span, |row| row.get(0))?.collect::<Result<Vec<u64>, _>>()?;
        let mut there = numbers.as_slice();
        while let [first, rest @ ..] = there
            && *first == from_number
        {
            (from_number, there) = (from_number.saturating_add(1), rest);
        }
        while let [rest @ .., last] = there
            && *last == to_number
        {
            (to_number, there) = (to_number.saturating_sub(1), rest);
        }
        if from_number > to_number {
            return Ok(None);
        }
        let held = u64::try_from(there.len()).unwrap_or(u64::MAX);
        let count = (to_number - from_number).saturating_add(1).saturating_sub(held);
        Ok(Some(Missing { from_number, to_number, count }))
    }
}
