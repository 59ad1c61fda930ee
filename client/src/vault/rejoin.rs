//! The way back into a conversation: an external commit, within what this device may believe and try.

use gureum_proto::{ConversationId, Group as GroupState, SubmitCommit};

use super::judge::{Joining, Judging};
use super::maker::{drop_pending, pending, put_pending};
use super::work::{Commits as Fetched, Row, Work};
use super::{ConversationStatus, GoneBack, Need, RejoinError, Vault, VaultError};
use crate::e2ee::JoinError;
use crate::limits::EPOCH_MAX;

/// What an external commit is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// To rejoin: counts as an attempt.
    First,
    /// The same, after a lost race, which belongs to the attempt that began it.
    Raced,
    /// To go on from where the server has gone back to: a person has decided it.
    Restart,
}

impl Vault {
    /// Makes an external commit onto what `ReadGroup` gave. The group in the database stays as it is until
    /// [`Self::commit_accepted`].
    ///
    /// # Errors
    /// It was tried too often, or the state is not one that this device may believe.
    pub fn rejoin(&mut self, conversation: ConversationId, group: &GroupState) -> Result<SubmitCommit, RejoinError> {
        self.try_rejoin(conversation, group, Attempt::First)
    }

    /// As [`Self::rejoin`], after another commit came before that one: it is still the same attempt.
    ///
    /// # Errors
    /// The state is not one that this device may believe.
    pub fn rejoin_again(
        &mut self,
        conversation: ConversationId,
        group: &GroupState,
    ) -> Result<SubmitCommit, RejoinError> {
        self.try_rejoin(conversation, group, Attempt::Raced)
    }

    /// Other commits came first as often as one attempt may take: what waits is not to wait for it.
    pub fn rejoin_raced(&mut self, conversation: ConversationId) -> RejoinError {
        self.asked.note_commits(conversation, Fetched::Insufficient);
        RejoinError::Raced
    }

    fn try_rejoin(
        &mut self,
        conversation: ConversationId,
        group: &GroupState,
        attempt: Attempt,
    ) -> Result<SubmitCommit, RejoinError> {
        let outcome = self.write(|work| rejoin(work, conversation, group, attempt));
        if matches!(outcome, Err(RejoinError::TooOften { .. } | RejoinError::Older { .. } | RejoinError::Refused(_))) {
            // The commit log did not bring it forward either, or nobody would rejoin: what waits is not to wait for it.
            self.asked.note_commits(conversation, Fetched::Insufficient);
        }
        if matches!(outcome, Err(RejoinError::Left)) {
            self.write(|work| match work.row(conversation)?.filter(|row| row.state == ConversationStatus::Absent) {
                Some(row) => work.note_left(&row),
                None => Ok(()),
            })?;
        }
        let is_no_use = |error: &RejoinError| {
            matches!(error, RejoinError::Older { .. } | RejoinError::Refused(_) | RejoinError::Left)
        };
        if attempt == Attempt::First && outcome.as_ref().is_err_and(is_no_use) {
            self.write(|work| work.note_rejoin_attempt(conversation))?;
        }
        outcome
    }
}

pub(super) fn rejoin(
    work: &mut Work<'_>,
    conversation: ConversationId,
    state: &GroupState,
    attempt: Attempt,
) -> Result<SubmitCommit, RejoinError> {
    let row = work.row(conversation)?;
    if let (false, Some(row)) = (attempt == Attempt::Restart, row.as_ref().filter(|row| row.is_ahead())) {
        return Err(RejoinError::GoneBack(GoneBack { with: work.title(row)?, is_group: row.is_group() }));
    }
    if row.as_ref().is_some_and(|row| row.state == ConversationStatus::Left) {
        return Err(RejoinError::Left);
    }
    if let Some(pending) = pending(work, conversation)? {
        if pending.rejoined.is_some() && pending.submit.epoch == state.epoch {
            return Ok(pending.submit);
        }
        drop_pending(work, conversation)?;
    }
    let counts = attempt == Attempt::First;
    if let (true, Some(retry_after_ms)) = (counts, work.rejoin_waits_ms(conversation)?) {
        return Err(RejoinError::TooOften { retry_after_ms });
    }
    if state.epoch > EPOCH_MAX {
        return Err(RejoinError::Refused("its epoch is beyond what commits can reach".into()));
    }
    let seen = row.as_ref().map_or(0, |row| row.epoch_seen.max(row.epoch)).max(work.foretold(conversation)?);
    if state.epoch < seen && attempt != Attempt::Restart {
        return Err(RejoinError::Older { shown: state.epoch, seen });
    }
    let made = work.mls().rejoin(conversation, &state.group_info, &state.tree).map_err(|error| match error {
        JoinError::Invalid(why) => RejoinError::Refused(why),
        JoinError::Mls(error) => RejoinError::Vault(error.into()),
    })?;
    if made.epoch != state.epoch.saturating_add(1) {
        return Err(RejoinError::Refused("it is of another epoch than the server says".into()));
    }
    if made.view.state.is_some() && work.stays_out(conversation, &made.leaves_before)? {
        return Err(RejoinError::Left);
    }
    let judging = if attempt == Attempt::Restart { Judging::Older } else { Judging::Accepted(conversation) };
    let joining = match work.judge_joining(judging, row.as_ref(), &made.view)? {
        Joining::Into(row) => row,
        Joining::Needs(Need::Account { account, .. }) => return Err(RejoinError::NeedsAccount(account)),
        Joining::Needs(Need::Members { .. }) => return Err(RejoinError::NeedsMembers),
        Joining::Needs(_) => return Err(RejoinError::Refused("it cannot be judged".into())),
        Joining::Moved(handle) => return Err(RejoinError::HandleMoved(handle)),
        Joining::Refused(why) => return Err(RejoinError::Refused(why)),
    };
    let counter = work.next_counter()?.ok_or(VaultError::CountersUnresolved)?;
    work.put_row(&Row { epoch_seen: state.epoch, ..row.unwrap_or(joining) })?;
    if made.had_leaf && (work.was_restored()? || work.left_epoch(conversation)?.is_some()) {
        // A newer copy of this home has been in it, or it was added by a Welcome that never came: what was said meanwhile
        // was for this device.
        work.note_was_in(conversation)?;
    }
    if counts {
        work.note_rejoin_attempt(conversation)?;
    }
    Ok(put_pending(work, conversation, counter, state.epoch, made.bundle, Some(&made.snapshot))?)
}
