//! This database is an older copy, and goes on: what a newer one may have used is not used again.
//!
//! What its keys still open is read; then it joins each conversation anew. Until then nothing is encrypted: the newer
//! copy may have used the same keys for something else.

use gureum_proto::{ConversationId, Life};
use rusqlite::params;

use super::maker::drop_pending;
use super::work::{ACTIVE, OWN, Work};
use super::{Event, StoredEvent, Vault, VaultError, life};
use crate::limits::{COUNTERS_SKIPPED, KEY_PACKAGE_RENEW_MS, NUMBER_MAX};

impl Vault {
    /// The server says that what was claimed is of an older copy. Before `TakeOver` is asked, whose answer may be lost:
    /// whatever waits in the outbox is to be encrypted anew, under new counters, and commits that wait are dropped.
    /// Returns false, and changes nothing, where another process of this home has gone on since the claim.
    ///
    /// # Errors
    /// The database failed.
    pub fn begin_restore(&mut self, claimed: &Life) -> Result<bool, VaultError> {
        self.write(|work| {
            if !life::stands_at(work, claimed)? {
                return Ok(false);
            }
            restore(work)?;
            Ok(true)
        })
    }

    /// The server goes on from this database: its answer to `TakeOver`, and the end of the inbox when it said Ready. `None`
    /// where that was known already.
    ///
    /// # Errors
    /// The database failed.
    pub fn taken_over(
        &mut self,
        claimed: &Life,
        generation: u64,
        accepted_counter: u64,
        head_seq: u64,
    ) -> Result<Option<StoredEvent>, VaultError> {
        self.write(|work| {
            let sql = "UPDATE profile SET life = ?1, life_token = life_next, life_next = NULL, taking_over = 0,
                       send_counter = max(send_counter, ?2), restored_seq = ?3
                       WHERE taking_over = 1 AND life_next = ?4";
            let counter = accepted_counter.saturating_add(COUNTERS_SKIPPED).min(NUMBER_MAX);
            let (generation, head_seq) = (generation.min(NUMBER_MAX), head_seq.min(NUMBER_MAX));
            if work.connection.execute(sql, params![generation, counter, head_seq, claimed.next.as_bytes()])? == 0 {
                return Ok(None);
            }
            let sql = format!("SELECT count(*) FROM conversation WHERE must_rejoin = 1 AND kind != {OWN}");
            let conversations = work.connection.query_row(&sql, [], |row| row.get(0))?;
            work.event(Event::Restored { conversations }).map(Some)
        })
    }

    /// Conversations that this device is to join anew, now that what its keys open is read.
    ///
    /// # Errors
    /// The database failed.
    pub fn rejoins_due(&mut self) -> Result<Vec<ConversationId>, VaultError> {
        self.read(|connection, _| {
            let sql = format!("SELECT id FROM conversation WHERE must_rejoin = 1 AND state = {ACTIVE} ORDER BY id");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| row.get(0).map(ConversationId::from_bytes))?;
            rows.map(|row| Ok(row?)).collect()
        })
    }
}

fn restore(work: &mut Work<'_>) -> Result<(), VaultError> {
    work.connection.execute("UPDATE profile SET taking_over = 1", [])?;
    work.forget_all_holes()?;
    let sql = "UPDATE outbox SET counter = NULL, epoch = NULL, ciphertext = NULL WHERE failed = 0";
    work.connection.execute(sql, [])?;
    for conversation in pending(work)? {
        drop_pending(work, conversation)?;
    }
    // Those that are being made as well: the newer copy may have gone on in them.
    let sql = format!("UPDATE conversation SET must_rejoin = 1 WHERE epoch > 0 AND state IN (0, {ACTIVE})");
    work.connection.execute(&sql, [])?;
    // Of what the directory has, the newer copy may have made all. The secrets that are here are kept: somebody may have
    // used one of these.
    let renewed_before = work.now_ms.saturating_sub(KEY_PACKAGE_RENEW_MS);
    work.connection.execute("UPDATE key_package SET made_ms = min(made_ms, ?1)", params![renewed_before])?;
    Ok(())
}

fn pending(work: &Work<'_>) -> Result<Vec<ConversationId>, VaultError> {
    let mut statement = work.connection.prepare("SELECT conversation FROM pending_commit ORDER BY conversation")?;
    let rows = statement.query_map([], |row| row.get(0).map(ConversationId::from_bytes))?;
    rows.map(|row| Ok(row?)).collect()
}

impl Work<'_> {
    /// Whether a conversation's keys are those of an older copy, for reading alone.
    pub(super) fn must_rejoin(&self, id: ConversationId) -> Result<bool, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM conversation WHERE id = ?1 AND must_rejoin = 1)";
        Ok(self.connection.prepare_cached(sql)?.query_row(params![id.as_bytes()], |row| row.get(0))?)
    }

    /// Something by this device has come that this home has not made: told once in a process's life.
    pub(super) fn copied(&mut self, conversation: ConversationId) -> Result<Option<StoredEvent>, VaultError> {
        if std::mem::replace(&mut self.asked.has_told_of_a_copy, true) {
            return Ok(None);
        }
        let with = self.title_of(conversation)?;
        self.event(Event::Copied { conversation, with }).map(Some)
    }

    /// Whether an entry of the inbox was there when this home last took over from a newer copy, which may have made it.
    pub(super) fn is_from_before_restore(&self, seq: u64) -> Result<bool, VaultError> {
        let sql = "SELECT restored_seq FROM profile";
        let restored: u64 = self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(seq <= restored)
    }

    /// Whether this home has ever taken over from a newer copy.
    pub(super) fn was_restored(&self) -> Result<bool, VaultError> {
        let sql = "SELECT restored_seq > 0 FROM profile";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// A newer copy of this home came into a conversation, nobody knows when: what does not open is missed, and not
    /// what others of the account have.
    pub(super) fn note_was_in(&self, id: ConversationId) -> Result<(), VaultError> {
        let sql = "UPDATE conversation SET joined_epoch = 1 WHERE id = ?1 AND joined_epoch = 0";
        self.connection.execute(sql, params![id.as_bytes()])?;
        Ok(())
    }

    /// The keys are fresh, and so is the leaf: what this account once left by is about another, and it is in again.
    pub(super) fn note_fresh_keys(&self, id: ConversationId) -> Result<(), VaultError> {
        self.forget_statement(id, self.identity.account)?;
        let sql = "UPDATE conversation SET must_rejoin = 0, left_epoch = NULL WHERE id = ?1";
        self.connection.execute(sql, params![id.as_bytes()])?;
        Ok(())
    }
}
