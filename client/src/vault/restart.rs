//! The server has gone back: noticing it, standing still, and going on from there when a person has decided so.
//!
//! Whoever operates the server, or has taken it over, can put it back to an older state. For a conversation that means
//! older keys, which somebody may have stolen since, and devices that have left. So nothing follows by itself.

use bytes::Bytes;
use gureum_proto::{
    AccountId, Commits, ConversationId, CreateConversation, DeviceId, Group as GroupState, SubmitCommit,
};
use rusqlite::params;

use super::conversations::{begin, move_outbox};
use super::history::RESTARTED;
use super::maker::{drop_pending, pending};
use super::outbox::{fail, forget_silent};
use super::rejoin::{Attempt, rejoin};
use super::work::{AHEAD, Row, Work};
use super::{
    BeginError, Continuity, Conversation, ConversationStatus, Event, GoneBack, RejoinError, StoredEvent, Vault,
    VaultError,
};
use crate::e2ee::CommitError;

impl Conversation {
    /// The epoch that a server must have reached which has not gone back.
    #[must_use]
    pub const fn epoch_held(&self) -> u64 {
        if matches!(self.state, ConversationStatus::Active) { self.epoch } else { self.epoch_seen }
    }
}

impl Vault {
    /// Compares an epoch that the server shows (`None`: it does not know the conversation) with the one that this device
    /// had *before it asked*: another process of this home may have gone on meanwhile. From a server that has gone back
    /// on, the conversation stands still.
    ///
    /// # Errors
    /// The database failed.
    pub fn note_server_epoch(
        &mut self,
        conversation: ConversationId,
        held: u64,
        shown: Option<u64>,
    ) -> Result<Option<GoneBack>, VaultError> {
        self.write(|work| {
            let Some(row) = work.row(conversation)? else { return Ok(None) };
            if shown.is_some_and(|shown| shown >= held) {
                return Ok(None);
            }
            match row.state {
                ConversationStatus::Active | ConversationStatus::Absent if row.is_own() => {
                    work.forget_own(conversation).map(|()| None)
                }
                // Whoever is not in a group any more does not see it either.
                ConversationStatus::Active | ConversationStatus::Absent if row.is_group() && shown.is_none() => {
                    work.note_gone(&row)?;
                    Ok(None)
                }
                // A stranger's, of which the server has told and nothing else.
                ConversationStatus::Absent if !is_known(work, &row)? => Ok(None),
                ConversationStatus::Active | ConversationStatus::Absent => stop(work, &row, held, shown).map(Some),
                ConversationStatus::Ahead => gone_back(work, &row).map(Some),
                ConversationStatus::Creating
                | ConversationStatus::Forked
                | ConversationStatus::Replaced
                | ConversationStatus::Left => Ok(None),
            }
        })
    }

    /// Whether the server has gone back in a conversation, as far as this device knows.
    ///
    /// # Errors
    /// The database failed.
    pub fn gone_back(&mut self, conversation: ConversationId) -> Result<Option<GoneBack>, VaultError> {
        self.write(|work| match work.row(conversation)? {
            Some(row) if row.is_ahead() => gone_back(work, &row).map(Some),
            _ => Ok(None),
        })
    }

    /// Compares the state that the server shows with the one that this device had before it asked. Epochs alone don't
    /// tell: from where a server has gone back to, others may have gone on, as far or farther.
    ///
    /// # Errors
    /// The database failed.
    pub fn check_group(&mut self, before: &Conversation, shown: &GroupState) -> Result<Continuity, VaultError> {
        self.write(|work| {
            let Some(row) = unchanged(work, before)? else { return Ok(Continuity::Known) };
            if shown.epoch > row.epoch {
                return Ok(Continuity::Later { from_epoch: row.epoch });
            }
            let is_same = shown.epoch == row.epoch
                && match work.group(row.id)? {
                    Some(group) => {
                        let is_same = work.mls().describes(&group, &shown.group_info);
                        work.keep(row.id, group);
                        is_same
                    }
                    None => false,
                };
            conclude(work, &row, is_same, shown.epoch).map(|()| Continuity::Known)
        })
    }

    /// Likewise with the commit log from this device's epoch on: does the commit that ended it follow from what this
    /// device has? Nothing is taken.
    ///
    /// # Errors
    /// The database failed.
    pub fn check_commits(&mut self, before: &Conversation, page: &Commits) -> Result<(), VaultError> {
        self.write(|work| {
            let Some(row) = unchanged(work, before)? else { return Ok(()) };
            let Some((_, commit)) = page.commits.iter().find(|(epoch, _)| *epoch == row.epoch) else { return Ok(()) };
            let own = pending(work, row.id)?;
            let is_own = own.is_some_and(|own| own.submit.epoch == row.epoch && own.submit.commit == *commit);
            let is_next = is_own || work.step(|work| Ok::<_, VaultError>((follows(work, &row, commit)?, false)))?;
            conclude(work, &row, is_next, page.epoch)
        })
    }

    /// Goes on from where the server has gone back to, **which a person must have decided**: makes an external commit onto
    /// what `ReadGroup` gave. As with a rejoin, everything stays as it is until [`Self::commit_accepted`].
    ///
    /// # Errors
    /// The server has not gone back, or the state is not one that this device may believe.
    pub fn restart(&mut self, conversation: ConversationId, group: &GroupState) -> Result<SubmitCommit, RejoinError> {
        self.write(|work| {
            if !work.row(conversation)?.is_some_and(|row| row.is_ahead()) {
                return Err(RejoinError::Refused("the server has not gone back".to_owned()));
            }
            rejoin(work, conversation, group, Attempt::Restart)
        })
    }

    /// As [`Self::restart`], where the server no longer knows the conversation: another one takes its place, with what
    /// waits to be sent.
    ///
    /// # Errors
    /// No device of the other account can be invited.
    pub fn begin_anew(
        &mut self,
        conversation: ConversationId,
        peer_packages: &[(DeviceId, Bytes)],
        own_packages: &[(DeviceId, Bytes)],
    ) -> Result<CreateConversation, BeginError> {
        self.write(|work| {
            let peer = work.row(conversation)?.filter(Row::is_ahead).and_then(|row| row.peer);
            let peer = peer.ok_or(VaultError::NoConversation(conversation))?;
            let create = begin(work, peer, peer_packages, own_packages)?;
            replace(work, peer, create.conversation)?;
            tell_restarted(work, &Row::direct(create.conversation, peer))?;
            Ok(create)
        })
    }
}

/// The row of a conversation that is still as it was when the server was asked.
fn unchanged(work: &Work<'_>, before: &Conversation) -> Result<Option<Row>, VaultError> {
    let is_held = |row: &Row| matches!(row.state, ConversationStatus::Active | ConversationStatus::Ahead);
    Ok(work.row(before.id)?.filter(|row| is_held(row) && row.epoch == before.epoch))
}

fn conclude(work: &mut Work<'_>, row: &Row, goes_on: bool, shown: u64) -> Result<(), VaultError> {
    match (goes_on, row.is_ahead()) {
        (false, false) if row.is_own() => work.forget_own(row.id),
        (false, false) => stop(work, row, row.epoch, Some(shown)).map(drop),
        // The server is where it was: a newer backup was found.
        (true, true) if row.epoch > 0 => work.put_row(&Row { state: ConversationStatus::Active, ..row.clone() }),
        _ => Ok(()),
    }
}

fn follows(work: &mut Work<'_>, row: &Row, commit: &[u8]) -> Result<bool, VaultError> {
    let Some(mut group) = work.group(row.id)? else { return Ok(false) };
    match work.mls().check_commit(&mut group, commit) {
        Ok(_) => Ok(true),
        Err(CommitError::Invalid(_)) => Ok(false),
        Err(CommitError::Mls(error)) => Err(error.into()),
    }
}

fn gone_back(work: &Work<'_>, row: &Row) -> Result<GoneBack, VaultError> {
    Ok(GoneBack { with: work.title(row)?, is_group: row.is_group() })
}

/// Whether there is more to a conversation than that the server has told of it.
fn is_known(work: &Work<'_>, row: &Row) -> Result<bool, VaultError> {
    match row.peer {
        Some(peer) => Ok(work.knows(peer)? && !work.is_known_by_its_log(peer)?),
        None => work.has_joined(row.id),
    }
}

/// From here on the conversation stands still. What waits in its outbox will be encrypted anew, under new counters: the
/// server knows no answer to the old ones, and as long as they are held they keep others from being used. Who has got
/// such a message before the server went back knows it by its content's name, and keeps it once.
fn stop(work: &mut Work<'_>, row: &Row, seen: u64, shown: Option<u64>) -> Result<GoneBack, VaultError> {
    drop_pending(work, row.id)?;
    if shown.is_none() {
        // What takes its place is another conversation, where nobody would know a repetition.
        fail_handed_over(work, row.id)?;
    }
    let sql =
        "UPDATE outbox SET counter = NULL, epoch = NULL, ciphertext = NULL WHERE conversation = ?1 AND failed = 0";
    work.connection.execute(sql, params![row.id.as_bytes()])?;
    work.put_row(&Row { state: ConversationStatus::Ahead, ..row.clone() })?;
    work.forget_holes(row.id)?;
    work.asked.forget_commits(row.id);
    let gone = gone_back(work, row)?;
    let (with, is_group, epoch) = (gone.with.clone(), gone.is_group, shown.unwrap_or(0));
    work.event(Event::GoneBack { conversation: row.id, with, is_group, epoch, epoch_seen: seen })?;
    Ok(gone)
}

fn fail_handed_over(work: &Work<'_>, conversation: ConversationId) -> Result<(), VaultError> {
    forget_silent(work, conversation)?;
    let sql = "SELECT id FROM outbox WHERE conversation = ?1 AND failed = 0 AND counter IS NOT NULL ORDER BY id";
    let mut statement = work.connection.prepare(sql)?;
    let ids = statement.query_map(params![conversation.as_bytes()], |row| row.get(0))?;
    for id in ids.collect::<Result<Vec<i64>, _>>()? {
        let why = "the server no longer knows the conversation; whether the message arrived before is not known";
        fail(work, id, conversation, why)?;
    }
    Ok(())
}

/// The conversation goes on in an epoch that may be below those that were seen.
pub(super) fn restarted(work: &Work<'_>, row: &Row, epoch: u64) -> Result<StoredEvent, VaultError> {
    let sql = "UPDATE conversation SET epoch_seen = ?2 WHERE id = ?1";
    work.connection.execute(sql, params![row.id.as_bytes(), epoch])?;
    tell_restarted(work, row)
}

/// Marks the place in the history.
fn tell_restarted(work: &Work<'_>, row: &Row) -> Result<StoredEvent, VaultError> {
    let (conversation, peer) = (row.id, row.peer.map(|peer| *peer.as_bytes()));
    // It stands right after what came before it, as a gap does.
    let sql = "INSERT INTO message (kind, conversation, sender_account, time_ms, number)
               SELECT ?1, ?2, ?3, ifnull(max(time_ms), 0), ?4 FROM message";
    work.connection.execute(sql, params![RESTARTED, conversation.as_bytes(), peer, i64::MAX])?;
    work.event(Event::Restarted { conversation, with: work.title(row)? })
}

/// A pair has one conversation: one in which the server has gone back gives way to another that both are in.
pub(super) fn replace(work: &mut Work<'_>, peer: AccountId, by: ConversationId) -> Result<(), VaultError> {
    let sql = format!("SELECT id FROM conversation WHERE peer = ?1 AND state = {AHEAD} AND id != ?2");
    let mut statement = work.connection.prepare(&sql)?;
    let rows = statement.query_map(params![peer.as_bytes(), by.as_bytes()], |row| row.get(0))?;
    for id in rows.collect::<Result<Vec<[u8; 16]>, _>>()? {
        let id = ConversationId::from_bytes(id);
        move_outbox(work, id, by)?;
        if let Some(group) = work.group(id)? {
            work.mls().delete(group)?;
        }
        work.forget_removals(id)?;
        work.forget_holes(id)?;
        work.put_row(&Row { state: ConversationStatus::Replaced, ..Row::direct(id, peer) })?;
    }
    Ok(())
}
