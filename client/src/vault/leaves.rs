//! Leaving a group: this account by a statement to the server, and others, whose statements whoever commits next carries
//! out.

use std::collections::BTreeSet;

use bytes::Bytes;
use gureum_proto::limits::{LINK_LEAVE_BYTES_MAX, LINK_LEAVES_MAX};
use gureum_proto::membership::{Leaf, accounts_of};
use gureum_proto::{
    AccountFound, AccountId, ConversationId, DeviceLog, Leave, MemberLog, SharedEnvelope, SignedLeave, SubmitCommit,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::contacts::learn;
use super::inbox::Entry;
use super::maker::{drop_pending, pending};
use super::outbox::fail_all;
use super::work::{ABSENT, LEFT, Row, Work, held_log};
use super::{ConversationStatus, Event, GroupChange, GroupError, StoredEvent, TrustError, Vault, VaultError};
use crate::e2ee::{View, is_of_key_package};

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

    /// The statements by which this device has left groups, of those that the server lists: it may have lost them.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn left_by_itself(&mut self, listed: &BTreeSet<ConversationId>) -> Result<Vec<SignedLeave>, VaultError> {
        self.write(|work| {
            let mut left = Vec::new();
            for id in listed {
                let is_left = work.row(*id)?.is_some_and(|row| row.state == ConversationStatus::Left);
                let statement = if is_left { work.own_statement(*id)? } else { None };
                left.extend(statement.filter(|it| work.is_self(it.leave().device)));
            }
            Ok(left)
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
    /// Whether this account stays out of a group of these leaves, whatever the server lists: one is still that which it has
    /// left by, or it was out of the group and nobody has added it again.
    pub(super) fn stays_out(&mut self, id: ConversationId, leaves: &[Leaf]) -> Result<bool, VaultError> {
        if self.has_left_by_one_of(id, leaves)? {
            return Ok(true);
        }
        // A newer copy of this home may have come in by itself: how the leaf has come there, this one cannot tell.
        if self.was_restored()? {
            return Ok(!accounts_of(leaves).contains(&self.identity.account));
        }
        Ok(self.left_epoch(id)?.is_some() && !self.was_added_again(id, leaves)?)
    }

    /// Whether one of a group's leaves is still that which this account has left by: nobody has carried that out.
    pub(super) fn has_left_by_one_of(&self, id: ConversationId, leaves: &[Leaf]) -> Result<bool, VaultError> {
        let Some(signed) = self.own_statement(id)? else { return Ok(false) };
        let left = signed.leave();
        // A device of this account that was revoked can sign a statement about a leaf that is not its own.
        let is_left = |leaf: &Leaf| {
            let is_its = leaf.identity.is_some_and(|it| (it.account, it.device) == (left.account, left.device));
            is_its && leaf.leaf_key == left.leaf_key
        };
        Ok(leaves.iter().any(is_left))
    }

    /// Whether somebody has added this device to a group since it was out of it. Its leaf there is not the one that it had,
    /// and of a KeyPackage whose Welcome has never come: what it commits itself, a commit of before that a server has kept
    /// back included, gives it a leaf of no KeyPackage.
    fn was_added_again(&mut self, id: ConversationId, leaves: &[Leaf]) -> Result<bool, VaultError> {
        let Some(group) = self.group(id)? else { return Ok(false) };
        let before = group.view(id);
        self.keep(id, group);
        let device = self.identity.device;
        let key_in = |leaves: &[Leaf]| {
            let is_own = |leaf: &&Leaf| leaf.identity.is_some_and(|it| it.device == device);
            leaves.iter().find(is_own).map(|leaf| leaf.leaf_key.clone())
        };
        let Some(key) = key_in(leaves) else { return Ok(false) };
        Ok(key_in(&before.leaves).is_none_or(|before| before != key) && is_of_key_package(self.connection, &key)?)
    }

    /// The statement by which this account leaves a group, or has left it.
    fn own_statement(&self, id: ConversationId) -> Result<Option<SignedLeave>, VaultError> {
        let own = self.identity.account;
        Ok(self.statements(id)?.into_iter().find(|it| it.leave().account == own))
    }

    /// This account is out of a group from an epoch on, or from one that is not known: the highest that was seen stands for
    /// it. The first time counts: what the server lists afterwards is its word alone.
    pub(super) fn note_left_epoch(&self, id: ConversationId, epoch: Option<u64>) -> Result<(), VaultError> {
        let sql = "UPDATE conversation SET left_epoch = ifnull(?2, epoch_seen) WHERE id = ?1 AND left_epoch IS NULL";
        self.connection.prepare_cached(sql)?.execute(params![id.as_bytes(), epoch])?;
        Ok(())
    }

    /// The epoch from which on this account was out of a group; `None` since it is in it again.
    pub(super) fn left_epoch(&self, id: ConversationId) -> Result<Option<u64>, VaultError> {
        let sql = "SELECT left_epoch FROM conversation WHERE id = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row(params![id.as_bytes()], |row| row.get::<_, Option<u64>>(0)).optional()?.flatten())
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
        let statement = self.own_statement(row.id)?;
        self.forget_removals(row.id)?;
        // Whatever the server lists later is held against it.
        if let Some(statement) = statement {
            self.keep_statement(&statement)?;
        }
        self.asked.forget_commits(row.id);
        self.note_left_epoch(row.id, None)?;
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

    /// Another device of this account has left a group that this one is not in. Where it was foretold, that is told in the
    /// place of that the server hides it: the statement may be one of before that the server repeats.
    fn note_left_elsewhere(&self, row: Option<&Row>, signed: &SignedLeave) -> Result<Option<StoredEvent>, VaultError> {
        let id = signed.leave().conversation;
        // What comes after one that is held may be older than that, and about a leaf that is gone.
        if self.own_statement(id)?.is_none() {
            self.keep_statement(signed)?;
        }
        let sql = "UPDATE foretold SET told = 1 WHERE conversation = ?1 AND told = 0";
        if row.is_some() || self.connection.execute(sql, params![id.as_bytes()])? == 0 {
            return Ok(None);
        }
        let who = vec![self.identity.handle.to_string()];
        self.tell_group(&Row::group(id, None), GroupChange::Left, None, who).map(Some)
    }

    fn keep_statement(&self, signed: &SignedLeave) -> Result<(), VaultError> {
        let (leave, statement) = (signed.leave(), signed.encode());
        let sql = "INSERT OR REPLACE INTO leave (conversation, account, statement) VALUES (?1, ?2, ?3)";
        let (conversation, account) = (leave.conversation.as_bytes(), leave.account.as_bytes());
        self.connection.execute(sql, params![conversation, account, statement.as_ref()])?;
        Ok(())
    }
}

/// The statements by which this account has left groups, as many as a new device is handed: those of the groups with the
/// newest messages first.
pub(super) fn left_by(connection: &Connection, own: AccountId) -> Result<Vec<SignedLeave>, VaultError> {
    let sql = format!(
        "SELECT l.statement FROM leave l LEFT JOIN conversation c ON c.id = l.conversation
         LEFT JOIN (SELECT conversation, max(time_ms) AS said FROM message GROUP BY conversation) m
         ON m.conversation = l.conversation
         WHERE l.account = ?1 AND ifnull(c.state, {LEFT}) IN ({ABSENT}, {LEFT}) AND length(l.statement) <= ?2
         ORDER BY m.said IS NULL, m.said DESC, l.conversation LIMIT ?3"
    );
    let [bytes, most] = [LINK_LEAVE_BYTES_MAX, LINK_LEAVES_MAX].map(|bound| u64::try_from(bound).unwrap_or(u64::MAX));
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params![own.as_bytes(), bytes, most], |row| row.get::<_, Vec<u8>>(0))?;
    rows.map(|row| SignedLeave::decode(row?.into()).map_err(|_| VaultError::Damaged("leave"))).collect()
}

/// Keeps those that a new device is handed.
pub(super) fn keep_left_by(connection: &Connection, own: AccountId, left: &[SignedLeave]) -> Result<(), VaultError> {
    for signed in left.iter().filter(|signed| signed.leave().account == own) {
        let sql = "INSERT OR IGNORE INTO leave (conversation, account, statement) VALUES (?1, ?2, ?3)";
        let (conversation, statement) = (signed.leave().conversation, signed.encode());
        let row = params![conversation.as_bytes(), own.as_bytes(), statement.as_ref()];
        connection.prepare_cached(sql)?.execute(row)?;
    }
    Ok(())
}

/// Somebody leaves, or this account by another of its devices.
pub(super) fn take_leave(
    work: &mut Work<'_>,
    shared: &SharedEnvelope,
    signed: &SignedLeave,
) -> Result<Entry, VaultError> {
    let (conversation, account) = (shared.conversation, signed.leave().account);
    let row = work.row(conversation)?;
    let is_in = row.as_ref().is_some_and(is_in_group);
    // Where this device is not in the group, what its account says of it is to be held against what the server lists.
    let is_ours = (signed.leave().conversation, account) == (conversation, work.identity.account);
    let may_tell = is_in || (is_ours && row.as_ref().is_none_or(Row::is_group));
    if !may_tell {
        return Ok(Entry::Done(Vec::new()));
    }
    match check(work, signed)? {
        Checked::Holds => Ok(Entry::Done(match row {
            Some(row) if is_in => note_statement(work, &row, signed)?.into_iter().collect(),
            row => work.note_left_elsewhere(row.as_ref(), signed)?.into_iter().collect(),
        })),
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
        // What the server has said of later epochs counts for nothing here: whoever is added again comes in by one of them.
        work.note_left_epoch(row.id, Some(row.epoch))?;
        work.note_left(row)?;
    }
    Ok(Some(told))
}
