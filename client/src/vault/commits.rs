//! Commits as they come: taken in order, from the inbox or the commit log.

use gureum_proto::membership::{Change, Leaf, judge_commit};
use gureum_proto::{Commits, ConversationId, LeafIdentity};
use rusqlite::params;

use super::judge::{Judged, Judging};
use super::maker::{accepted, pending};
use super::work::{Commits as Fetched, Row, Work};
use super::{Applied, ConversationStatus, Event, Need, StoredEvent, Vault, VaultError};
use crate::e2ee::{CommitError, View};
use crate::limits::EPOCH_MAX;

/// What became of one commit.
pub(super) enum Outcome {
    /// The group is in the next epoch; with what there is to tell people of it.
    Merged(Vec<StoredEvent>),
    /// Something must be known first; nothing changed.
    Needs(Need),
    /// It is not a valid commit of this epoch; nothing changed.
    Invalid(String),
    /// It breaks the rule of membership: the conversation has stopped, or that of the own devices is forgotten.
    Stopped(Box<StoredEvent>),
}

impl Vault {
    /// Applies a page of the commit log, and nothing of it that leads beyond an epoch.
    ///
    /// # Errors
    /// The database failed.
    pub fn apply_commits(
        &mut self,
        conversation: ConversationId,
        page: &Commits,
        to_epoch: Option<u64>,
    ) -> Result<Applied, VaultError> {
        self.write(|work| {
            let applied = apply(work, conversation, page, to_epoch)?;
            match applied {
                Applied::UpToDate => work.asked.commits_applied(conversation),
                Applied::Needs(Need::Rejoin { .. }) => work.asked.note_commits(conversation, Fetched::Insufficient),
                Applied::More { .. } | Applied::Needs(_) | Applied::Stopped => {}
            }
            Ok(applied)
        })
    }
}

fn apply(
    work: &mut Work<'_>,
    conversation: ConversationId,
    page: &Commits,
    to_epoch: Option<u64>,
) -> Result<Applied, VaultError> {
    let rejoin = Applied::Needs(Need::Rejoin { conversation });
    let Some(mut row) = work.row(conversation)? else { return Ok(rejoin) };
    if row.is_stopped() {
        return Ok(Applied::Stopped);
    }
    if page.epoch > EPOCH_MAX {
        return Ok(rejoin);
    }
    work.put_row(&Row { epoch_seen: page.epoch, ..row.clone() })?;
    if row.epoch == 0 {
        return Ok(rejoin);
    }
    let is_there = |row: &Row| to_epoch.is_some_and(|wanted| row.epoch >= wanted);
    for (epoch, commit) in &page.commits {
        if is_there(&row) {
            break;
        }
        if *epoch < row.epoch {
            continue;
        }
        if *epoch > row.epoch {
            return Ok(rejoin);
        }
        match take_commit(work, &row, commit)? {
            Outcome::Merged(_) => match work.row(conversation)? {
                Some(next) if next.is_stopped() => return Ok(Applied::Stopped),
                Some(next) if next.epoch > 0 => row = next,
                // It has removed this device.
                _ => return Ok(Applied::UpToDate),
            },
            Outcome::Needs(need) => return Ok(Applied::Needs(need)),
            Outcome::Invalid(_) => return Ok(rejoin),
            Outcome::Stopped(_) => return Ok(Applied::Stopped),
        }
    }
    Ok(if row.epoch >= page.epoch || is_there(&row) {
        Applied::UpToDate
    } else if page.commits.is_empty() || page.first_epoch > row.epoch {
        rejoin
    } else {
        Applied::More { from_epoch: row.epoch }
    })
}

/// Takes the commit that ends this device's epoch: by RFC 9420, by our rule, and then for good.
pub(super) fn take_commit(work: &mut Work<'_>, row: &Row, commit: &[u8]) -> Result<Outcome, VaultError> {
    let own = pending(work, row.id)?;
    if own.is_some_and(|own| own.submit.epoch == row.epoch && own.submit.commit == commit) {
        let event = accepted(work, row.id)?;
        return Ok(Outcome::Merged(event.into_iter().collect()));
    }
    let Some(mut group) = work.group(row.id)? else {
        let need = if work.asked.is_given_up(row.id) { None } else { work.need_rejoin(row.id)? };
        return Ok(need.map_or_else(|| Outcome::Invalid("there is no group".into()), Outcome::Needs));
    };
    let before = group.view(row.id);
    let ready = match work.mls().check_commit(&mut group, commit) {
        Ok(ready) => ready,
        Err(CommitError::Invalid(why)) => return Ok(Outcome::Invalid(why)),
        Err(CommitError::Mls(error)) => return Err(error.into()),
    };
    match work.judge(Judging::Accepted(row.id), |logs| judge_commit(&ready.change, &before.roster(), logs))? {
        Judged::Allowed => {}
        Judged::Needs(need) => return Ok(Outcome::Needs(need)),
        // It is no loss: it is joined as it is there, as often as anything is, or begun anew where there is none.
        Judged::Refused(why) if row.is_own() => {
            work.forget_own(row.id)?;
            let event = Event::CommitRefused { conversation: row.id, with: None, why, stopped: false };
            return work.event(event).map(Box::new).map(Outcome::Stopped);
        }
        Judged::Refused(why) => {
            work.put_row(&Row { state: ConversationStatus::Forked, ..row.clone() })?;
            let with = work.title_of(row.id)?;
            let event = Event::CommitRefused { conversation: row.id, with, why, stopped: true };
            return work.event(event).map(Box::new).map(Outcome::Stopped);
        }
    }
    let change = ready.change.clone();
    let stays = work.mls().merge(&mut group, ready)?;
    let (after, epoch) = (group.view(row.id), group.epoch());
    work.keep(row.id, group);
    let name = after.state.as_ref().map(|state| state.name().to_owned());
    let row = Row { epoch, state: ConversationStatus::Active, name, ..row.clone() };
    let mut events = if row.is_group() { work.tell_changes(&row, &change, &before, &after)? } else { Vec::new() };
    work.note_leaves(row.id, &before.leaves, &after.leaves)?;
    for account in before.roster().accounts().difference(&after.roster().accounts()) {
        work.forget_statement(row.id, *account)?;
    }
    // An own commit for the epoch that has just ended has lost; MLS has dropped it already.
    let sql = "DELETE FROM pending_commit WHERE conversation = ?1 AND rejoined IS NULL";
    work.connection.execute(sql, params![row.id.as_bytes()])?;
    work.reopen_intents(row.id)?;
    work.put_row(&row)?;
    events.extend(tell_rejoined(work, &row, &change)?);
    if !stays {
        put_out(work, &row, &after)?;
    }
    Ok(Outcome::Merged(events))
}

/// Of a device that took the place of its own leaf.
fn tell_rejoined(work: &mut Work<'_>, row: &Row, change: &Change) -> Result<Option<StoredEvent>, VaultError> {
    let conversation = row.id;
    match rejoined(change) {
        Some(member) if !work.is_self(member.device) && row.is_own() => Ok(None),
        Some(member) if !work.is_self(member.device) => {
            let by = work.handle(member.account)?;
            work.event(Event::MemberRejoined { conversation, by, device: member.device }).map(Some)
        }
        Some(_) if !work.must_rejoin(conversation)? => work.copied(conversation),
        _ => Ok(None),
    }
}

/// Who took the place of its own leaf by an external commit.
fn rejoined(change: &Change) -> Option<LeafIdentity> {
    let committer = change.committer.filter(|_| change.external)?;
    let is_its = |leaf: &Leaf| leaf.identity.is_some_and(|identity| identity.device == committer.device);
    change.removed.iter().any(is_its).then_some(committer)
}

/// The commit has removed this device: with its account, or alone, and then it may join again.
fn put_out(work: &mut Work<'_>, row: &Row, after: &View) -> Result<(), VaultError> {
    work.forget_numbers(row.id)?;
    if row.is_group() && !after.roster().accounts().contains(&work.identity.account) {
        work.note_left_epoch(row.id, Some(row.epoch))?;
        return work.note_left(row);
    }
    work.put_row(&Row { epoch: 0, state: ConversationStatus::Absent, ..row.clone() })
}
