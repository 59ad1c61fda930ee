//! Leaving a group: this account by a statement to the server, and others, whose statements whoever commits next carries
//! out.

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, Leave, SharedEnvelope, SignedLeave, SubmitCommit};
use rusqlite::params;

use super::inbox::Entry;
use super::maker::{drop_pending, pending};
use super::outbox::fail_all;
use super::work::{Row, Work};
use super::{ConversationStatus, Event, GroupChange, GroupError, StoredEvent, Vault, VaultError};
use crate::e2ee::View;

/// What is to be asked of the server so that this account leaves a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaving {
    /// First the answer to a commit is needed: it may change the leaf that the statement names.
    After(SubmitCommit),
    /// This statement.
    By(SignedLeave),
}

impl Vault {
    /// The statement by which this account leaves a group.
    ///
    /// # Errors
    /// It is no group, or this device is not in it.
    pub fn leave(&mut self, conversation: ConversationId) -> Result<Leaving, GroupError> {
        self.write(|work| {
            let row = work.group_row(conversation)?;
            if let Some(own) = pending(work, conversation)? {
                return Ok(Leaving::After(own.submit));
            }
            let group =
                work.group(conversation)?.ok_or_else(|| GroupError::NotIn(row.name.clone().unwrap_or_default()))?;
            let view = group.view(conversation);
            work.keep(conversation, group);
            let own = work.identity;
            let is_own = |it: &gureum_proto::LeafIdentity| it.device == own.device;
            let leaf = view.leaves.iter().find(|leaf| leaf.identity.as_ref().is_some_and(is_own));
            let leaf = leaf.ok_or(VaultError::Damaged("group"))?;
            let leaf_key = Bytes::copy_from_slice(&leaf.leaf_key);
            let leave = Leave { conversation, account: own.account, device: own.device, leaf_key };
            Ok(Leaving::By(SignedLeave::sign(leave, &own.proof)))
        })
    }

    /// The server has taken the statement: this account is not in the group any more.
    ///
    /// # Errors
    /// The database failed.
    pub fn left(&mut self, conversation: ConversationId) -> Result<(), VaultError> {
        self.write(|work| match work.row(conversation)?.filter(Row::is_group) {
            Some(row) => work.note_left(&row),
            None => Ok(()),
        })
    }

    /// The server says that this account is not in a conversation. Of a group that is news, if it was in it.
    ///
    /// # Errors
    /// The database failed.
    pub fn note_not_member(&mut self, conversation: ConversationId) -> Result<(), VaultError> {
        self.write(|work| match work.row(conversation)?.filter(Row::is_group) {
            Some(row) => work.note_gone(&row),
            None => Ok(()),
        })
    }
}

impl Work<'_> {
    /// The statements of others that are to be carried out.
    pub(super) fn statements(&self, conversation: ConversationId) -> Result<Vec<SignedLeave>, VaultError> {
        let sql = "SELECT statement FROM leave WHERE conversation = ?1 ORDER BY account";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![conversation.as_bytes()], |row| row.get::<_, Vec<u8>>(0))?;
        rows.map(|row| SignedLeave::decode(row?.into()).map_err(|_| VaultError::Damaged("leave"))).collect()
    }

    /// Drops statements that are not about the group as it is: carried out, or followed by another leaf of its device.
    pub(super) fn forget_void_statements(&self, view: &View) -> Result<(), VaultError> {
        for statement in self.statements(view.conversation)? {
            if !view.roster().is_left_by(&statement) {
                self.forget_statement(view.conversation, statement.leave().account)?;
            }
        }
        Ok(())
    }

    pub(super) fn forget_statement(&self, id: ConversationId, account: AccountId) -> Result<(), VaultError> {
        let sql = "DELETE FROM leave WHERE conversation = ?1 AND account = ?2";
        self.connection.execute(sql, params![id.as_bytes(), account.as_bytes()])?;
        Ok(())
    }

    /// Whether somebody has been told that an account leaves.
    pub(super) fn is_leaving(&self, id: ConversationId, account: AccountId) -> Result<bool, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM leave WHERE conversation = ?1 AND account = ?2)";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row(params![id.as_bytes(), account.as_bytes()], |row| row.get(0))?)
    }

    /// This account is not in the group any more: nothing is sent there, and nothing goes on.
    pub(super) fn note_left(&mut self, row: &Row) -> Result<(), VaultError> {
        drop_pending(self, row.id)?;
        fail_all(self, row.id, "you are not in the group any more")?;
        self.forget_intents(row.id)?;
        self.forget_removals(row.id)?;
        self.asked.forget_commits(row.id);
        // What is on its way to this account can be read still.
        self.put_row(&Row { state: ConversationStatus::Left, epoch: 0, ..row.clone() })
    }

    /// This account was in a group and is not any more, as the server says.
    pub(super) fn note_gone(&mut self, row: &Row) -> Result<(), VaultError> {
        if !matches!(row.state, ConversationStatus::Active | ConversationStatus::Absent) {
            return Ok(());
        }
        if self.has_joined(row.id)? {
            let who = vec![self.identity.handle.to_string()];
            self.tell_group(row, GroupChange::Removed, None, who)?;
        }
        self.note_left(row)
    }

    fn keep_statement(&self, signed: &SignedLeave) -> Result<(), VaultError> {
        let (leave, statement) = (signed.leave(), signed.encode());
        let sql = "INSERT OR REPLACE INTO leave (conversation, account, statement) VALUES (?1, ?2, ?3)";
        let (conversation, account) = (leave.conversation.as_bytes(), leave.account.as_bytes());
        self.connection.execute(sql, params![conversation, account, statement.as_ref()])?;
        Ok(())
    }
}

/// Somebody leaves, or this account by another of its devices.
pub(super) fn take_leave(
    work: &mut Work<'_>,
    shared: &SharedEnvelope,
    signed: &SignedLeave,
) -> Result<Entry, VaultError> {
    let done = |events: Vec<StoredEvent>| Ok(Entry::Done(events));
    let (conversation, leave) = (shared.conversation, signed.leave());
    let row = work.row(conversation)?.filter(|row| row.is_group() && row.state == ConversationStatus::Active);
    let (Some(row), true) = (row, leave.conversation == conversation) else { return done(Vec::new()) };
    let log = work.log(leave.account)?;
    let Some(proof) = log.as_ref().and_then(|log| log.device(leave.device)).map(|device| *device.keys.proof()) else {
        return Ok(match work.asked.log(leave.account, log.map_or(0, |log| log.length())) {
            Some(need) => Entry::Blocked(need),
            None => Entry::Done(Vec::new()),
        });
    };
    if !signed.holds(&proof) {
        let why = format!("{} is said to leave, and has not signed that", work.handle_or_id(leave.account)?);
        return done(vec![work.event(Event::CommitRefused { conversation, why, stopped: false })?]);
    }
    let Some(group) = work.group(conversation)? else { return done(Vec::new()) };
    let view = group.view(conversation);
    work.keep(conversation, group);
    // Of an account that was added again since it left, an old statement says nothing.
    if !view.roster().is_left_by(signed) || work.is_leaving(conversation, leave.account)? {
        return done(Vec::new());
    }
    let who = vec![work.handle_or_id(leave.account)?];
    let told = work.tell_group(&row, GroupChange::Left, None, who)?;
    if leave.account == work.identity.account {
        work.note_left(&row)?;
    } else {
        work.keep_statement(signed)?;
    }
    done(vec![told])
}
