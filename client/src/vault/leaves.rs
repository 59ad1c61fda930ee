//! Leaving a group: this account by a statement to the server, and others, whose statements whoever commits next carries
//! out.

use bytes::Bytes;
use gureum_proto::membership::{Leaf, accounts_of};
use gureum_proto::{
    AccountFound, AccountId, ConversationId, DeviceLog, Leave, MemberLog, SharedEnvelope, SignedLeave, SubmitCommit,
};
use rusqlite::params;

use super::contacts::learn;
use super::inbox::Entry;
use super::maker::{drop_pending, pending};
use super::outbox::fail_all;
use super::work::{Row, Work, held_log};
use super::{ConversationStatus, Event, GroupChange, GroupError, StoredEvent, TrustError, Vault, VaultError};
use crate::e2ee::View;

const NOT_IN: &str = "you are not in the group any more";

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
            let (view, own) = (work.view(&row)?, work.identity);
            let is_own = |leaf: &&Leaf| leaf.identity.is_some_and(|it| it.device == own.device);
            let leaf = view.leaves.iter().find(is_own);
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
    pub fn left(&mut self, statement: &SignedLeave) -> Result<(), VaultError> {
        self.write(|work| match work.row(statement.leave().conversation)?.filter(Row::is_group) {
            Some(row) => {
                work.keep_statement(statement)?;
                work.note_left(&row)
            }
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

    /// Learns what the server tells of an account in a conversation: its device log, and that it leaves.
    ///
    /// # Errors
    /// The entries do not hold, or are not those seen before; then nothing changes. Or the handle stands for another
    /// account: then the log is kept, and that is told once, as by [`Vault::learn_account`].
    pub fn learn_member(&mut self, conversation: ConversationId, member: &MemberLog) -> Result<(), TrustError> {
        self.write(|work| learn_member(work, conversation, member))?
    }

    /// As [`Self::learn_member`], of many in one transaction: one that does not hold costs no other.
    ///
    /// # Errors
    /// The database failed.
    pub fn learn_members(
        &mut self,
        conversation: ConversationId,
        members: &[MemberLog],
    ) -> Result<Vec<Result<(), TrustError>>, VaultError> {
        self.write(|work| {
            let mut learned = Vec::with_capacity(members.len());
            for member in members {
                let step = work.step(|work| learn_member(work, conversation, member).map(|told| (told, true)));
                learned.push(match step {
                    Ok(told) => told,
                    Err(TrustError::Vault(error)) => return Err(error),
                    Err(error) => Err(error),
                });
            }
            Ok(learned)
        })
    }
}

/// What the outer error has begun is to be undone; after the inner one it stays.
fn learn_member(
    work: &mut Work<'_>,
    conversation: ConversationId,
    member: &MemberLog,
) -> Result<Result<(), TrustError>, TrustError> {
    let MemberLog { account, handle, log_entries, leave } = member.clone();
    let log_length = u64::try_from(log_entries.len()).unwrap_or(u64::MAX);
    let seen = held_log(work.connection, account)?.map_or(0, |log| log.length());
    let least = work.pin(account)?.map_or(seen, |pin| pin.length.max(seen));
    let mut moved = None;
    // As many entries come as fit: fewer than were seen say nothing.
    if log_length >= least {
        match learn(work, &AccountFound { account, handle, log_entries, log_length }, 0) {
            // What was noted of it stays; and who leaves does so under any handle.
            Err(error @ TrustError::HandleMoved { .. }) => moved = Some(error),
            learned => learned.map(drop)?,
        }
    }
    let row = work.row(conversation)?.filter(is_in_group);
    if let (Some(row), Some(signed)) = (row, leave)
        && signed.leave().account == account
        && check(work, &signed)? == Checked::Holds
    {
        note_statement(work, &row, &signed)?;
    }
    Ok(moved.map_or(Ok(()), Err))
}

impl Work<'_> {
    /// Whether this account is out of a group of these leaves, whatever the server lists: none is its own, or one is still
    /// that which it has left by. Nobody has added it again.
    pub(super) fn is_out_of(&self, id: ConversationId, leaves: &[Leaf]) -> Result<bool, VaultError> {
        let own = self.identity.account;
        if !accounts_of(leaves).contains(&own) {
            return Ok(true);
        }
        let is_left_by = |it: &SignedLeave| {
            it.leave().account == own && leaves.iter().any(|leaf| leaf.leaf_key == it.leave().leaf_key)
        };
        Ok(self.statements(id)?.iter().any(is_left_by))
    }

    /// The statements by which accounts leave: those of others are to be carried out.
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
        fail_all(self, row.id, NOT_IN)?;
        for open in self.open_intents(row.id)? {
            self.refuse_intent(open.id, NOT_IN)?;
        }
        let own = self.identity.account;
        let statement = self.statements(row.id)?.into_iter().find(|it| it.leave().account == own);
        self.forget_removals(row.id)?;
        // Whatever the server lists later is held against it.
        if let Some(statement) = statement {
            self.keep_statement(&statement)?;
        }
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
    let (conversation, account) = (shared.conversation, signed.leave().account);
    let Some(row) = work.row(conversation)?.filter(is_in_group) else { return Ok(Entry::Done(Vec::new())) };
    match check(work, signed)? {
        Checked::Holds => Ok(Entry::Done(note_statement(work, &row, signed)?.into_iter().collect())),
        Checked::NeedsLog { log_from } => Ok(match work.asked.log(account, log_from) {
            Some(need) => Entry::Blocked(need),
            None => Entry::Done(Vec::new()),
        }),
        Checked::Forged => {
            let why = format!("{} is said to leave, and has not signed that", work.handle_or_id(account)?);
            let with = work.title_of(conversation)?;
            let event = work.event(Event::CommitRefused { conversation, with, why, stopped: false })?;
            Ok(Entry::Done(vec![event]))
        }
    }
}

fn is_in_group(row: &Row) -> bool {
    row.is_group() && row.state == ConversationStatus::Active
}

/// Whether an account has signed that it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    Holds,
    NeedsLog { log_from: u64 },
    Forged,
}

fn check(work: &Work<'_>, signed: &SignedLeave) -> Result<Checked, VaultError> {
    let log = work.log(signed.leave().account)?;
    let Some(logged) = log.as_ref().and_then(|log| log.device(signed.leave().device)) else {
        return Ok(Checked::NeedsLog { log_from: log.as_ref().map_or(0, DeviceLog::length) });
    };
    Ok(if signed.holds(logged.keys.proof()) { Checked::Holds } else { Checked::Forged })
}

/// Takes a statement that holds, unless it is not about the group as it is: an account that was added again since does not
/// leave by it.
fn note_statement(work: &mut Work<'_>, row: &Row, signed: &SignedLeave) -> Result<Option<StoredEvent>, VaultError> {
    let account = signed.leave().account;
    let Some(group) = work.group(row.id)? else { return Ok(None) };
    let view = group.view(row.id);
    work.keep(row.id, group);
    if !view.roster().is_left_by(signed) || work.is_leaving(row.id, account)? {
        return Ok(None);
    }
    let who = vec![work.handle_or_id(account)?];
    let told = work.tell_group(row, GroupChange::Left, None, who)?;
    work.keep_statement(signed)?;
    if account == work.identity.account {
        work.note_left(row)?;
    }
    Ok(Some(told))
}
