//! Welcomes: what brings this device into a conversation that somebody else has put it in.

use gureum_proto::ConversationId;

use super::inbox::{Entry, FIRST_EPOCH};
use super::judge::{Joining, Judging};
use super::work::{Row, Work};
use super::{ConversationStatus, Event, GroupChange, Need, Taken, VaultError, restart};
use crate::e2ee::{JoinError, StagedJoin};

pub(super) fn take_welcome(
    work: &mut Work<'_>,
    conversation: ConversationId,
    welcome: &[u8],
    taken: &mut Taken,
) -> Result<Entry, VaultError> {
    let row = work.row(conversation)?;
    let comes_back = row.as_ref().is_some_and(|row| row.state == ConversationStatus::Left);
    // Opening one takes the secrets of its KeyPackage. Where it brings nobody in they stay: by them it is seen later whether
    // a leaf of this device is one that others have put there.
    let opened = work.step(|work| {
        let opened = open_welcome(work, conversation, welcome, row.as_ref())?;
        let keeps = matches!(opened, Welcomed::Joins(..));
        Ok::<_, VaultError>((opened, keeps))
    })?;
    let (join, joining) = match opened {
        Welcomed::Joins(join, joining) => (*join, joining),
        Welcomed::Needs(need) => return Ok(Entry::Blocked(need)),
        Welcomed::OfOthers => {
            taken.unlisted |= row.is_none();
            return Ok(Entry::Done(Vec::new()));
        }
        Welcomed::Refused(why) => {
            let (with, why) = (work.title_of(conversation)?, format!("a welcome: {why}"));
            let event = work.event(Event::CommitRefused { conversation, with, why, stopped: false })?;
            return Ok(Entry::Done(vec![event]));
        }
    };
    let group = work.mls().join(join)?;
    let (epoch, leaves) = (group.epoch(), group.leaves());
    work.note_group(conversation, &leaves)?;
    work.groups.remove(&conversation);
    work.keep(conversation, group);
    let row = Row { state: ConversationStatus::Active, epoch, epoch_seen: epoch, ..joining };
    work.put_row(&row)?;
    if comes_back || row.is_own() {
        work.forget_joined(conversation)?;
    }
    work.note_joined(conversation, epoch)?;
    work.note_fresh_keys(conversation)?;
    work.forget_numbers(conversation)?;
    if epoch == FIRST_EPOCH {
        work.begin_numbers(conversation)?;
    }
    work.asked.forget_commits(conversation);
    if row.is_own() {
        work.come_into_own()?;
        return Ok(Entry::Done(Vec::new()));
    }
    let event = match row.peer {
        Some(peer) => {
            restart::replace(work, peer, conversation)?;
            taken.owes_decisions = true;
            work.tell_joined(&row, peer)?
        }
        None => {
            work.plan_renewal(conversation, leaves.len())?;
            let who = vec![work.identity.handle.to_string()];
            // Who has added it, the server alone says.
            work.tell_group(&row, GroupChange::Joined, None, who)?
        }
    };
    Ok(Entry::Done(vec![event]))
}

/// What a Welcome comes to.
enum Welcomed {
    /// This device comes in by it.
    Joins(Box<StagedJoin>, Row),
    /// First this is needed.
    Needs(Need),
    /// It is for other devices, or of an epoch in which this one was.
    OfOthers,
    /// It brings nobody in.
    Refused(String),
}

fn open_welcome(
    work: &mut Work<'_>,
    conversation: ConversationId,
    welcome: &[u8],
    row: Option<&Row>,
) -> Result<Welcomed, VaultError> {
    let current = epoch_had(work, row)?;
    let join = match work.mls().open_welcome(conversation, welcome, current) {
        Ok(Some(join)) => join,
        Ok(None) => return Ok(Welcomed::OfOthers),
        Err(JoinError::Invalid(why)) => return Ok(Welcomed::Refused(why)),
        Err(JoinError::Mls(error)) => return Err(error.into()),
    };
    // Whoever leaves is added again only when that is carried out.
    if work.has_left_by_one_of(conversation, &join.view.leaves)? {
        return Ok(Welcomed::Refused("this account has left".to_owned()));
    }
    Ok(match work.judge_joining(Judging::Accepted(conversation), row, &join.view)? {
        Joining::Into(row) => Welcomed::Joins(Box::new(join), row),
        Joining::Needs(need) => Welcomed::Needs(need),
        Joining::Moved(handle) => Welcomed::Refused(format!("{handle} stands for another account here")),
        Joining::Refused(why) => Welcomed::Refused(why),
    })
}

/// A Welcome brings this device into a later epoch than this. Where the server has gone back, it brings nobody back; nor
/// where the account was out of the group since.
fn epoch_had(work: &Work<'_>, row: Option<&Row>) -> Result<Option<u64>, VaultError> {
    let Some(row) = row else { return Ok(None) };
    let left_epoch = work.left_epoch(row.id)?.unwrap_or(0);
    let epoch = if row.is_ahead() { row.epoch_seen } else { row.epoch.max(left_epoch) };
    Ok((epoch > 0).then_some(epoch))
}
