//! Commits: those that others made, taken in order, and our own, kept aside until the server has decided.

use std::collections::BTreeSet;

use gureum_proto::{AccountId, Commits, ConversationId, Group as GroupState, SubmitCommit};
use rusqlite::{OptionalExtension, params};

use super::work::{Commits as Fetched, Judged, Row, Work};
use super::{Applied, ConversationStatus, Event, GoneBack, Need, RejoinError, StoredEvent, Vault, VaultError, restart};
use crate::e2ee::rule::{judge_commit, judge_group};
use crate::e2ee::{CommitBundle, CommitError, JoinError, Snapshot};
use crate::limits::{EPOCH_MAX, SELF_UPDATE_MS};

/// What became of one commit.
pub(super) enum Outcome {
    /// The group is in the next epoch.
    Merged,
    /// Something must be known first; nothing changed.
    Needs(Need),
    /// It is not a valid commit of this epoch; nothing changed.
    Invalid(String),
    /// It breaks the rule of membership: the conversation has stopped.
    Stopped(StoredEvent),
}

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

pub(super) struct Pending {
    pub(super) submit: SubmitCommit,
    rejoined: Option<Snapshot>,
}

impl Vault {
    /// Applies a page of the commit log.
    ///
    /// # Errors
    /// The database failed.
    pub fn apply_commits(&mut self, conversation: ConversationId, page: &Commits) -> Result<Applied, VaultError> {
        self.write(|work| {
            let applied = apply(work, conversation, page)?;
            match applied {
                Applied::UpToDate => work.asked.commits_applied(conversation),
                Applied::Needs(Need::Rejoin { .. }) => work.asked.note_commits(conversation, Fetched::Insufficient),
                Applied::More { .. } | Applied::Needs(_) | Applied::Stopped => {}
            }
            Ok(applied)
        })
    }

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
        if attempt == Attempt::First && matches!(outcome, Err(RejoinError::Older { .. } | RejoinError::Refused(_))) {
            self.write(|work| work.note_rejoin_attempt(conversation))?;
        }
        outcome
    }

    /// Makes a commit that renews this device's keys, or gives the pending one; `None` where none can be made.
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_self_update(&mut self, conversation: ConversationId) -> Result<Option<SubmitCommit>, VaultError> {
        self.write(|work| {
            if let Some(pending) = pending(work, conversation)? {
                return Ok(Some(pending.submit));
            }
            let active = work.row(conversation)?.is_some_and(|row| row.state == ConversationStatus::Active || gureum_proto::mutated(38) && row.is_ahead());
            let (true, Some(mut group)) = (active, work.group(conversation)?) else { return Ok(None) };
            let Some(counter) = work.next_counter()? else { return Ok(None) };
            let epoch = group.epoch();
            let bundle = work.mls().self_update(&mut group)?;
            work.keep(conversation, group);
            put_pending(work, conversation, counter, epoch, bundle, None).map(Some)
        })
    }

    /// Commits without an answer, as the same bytes: to be submitted again on a new connection.
    ///
    /// # Errors
    /// The database failed.
    pub fn pending_commits(&mut self) -> Result<Vec<SubmitCommit>, VaultError> {
        self.write(|work| {
            let mut statement = work.connection.prepare(&format!("{PENDING} ORDER BY counter"))?;
            let rows = statement.query_map([], read_pending)?;
            rows.map(|row| Ok(row?.submit)).collect()
        })
    }

    /// The server has accepted the pending commit.
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_accepted(&mut self, conversation: ConversationId) -> Result<Vec<StoredEvent>, VaultError> {
        self.write(|work| accepted(work, conversation).map(|event| event.into_iter().collect()))
    }

    /// The pending commit lost or is invalid: it is dropped.
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_rejected(&mut self, conversation: ConversationId) -> Result<(), VaultError> {
        self.write(|work| drop_pending(work, conversation))
    }

    /// Conversations in which this device should renew its keys: just joined, or a week ago.
    ///
    /// # Errors
    /// The database failed.
    pub fn self_updates_due(&mut self) -> Result<Vec<ConversationId>, VaultError> {
        self.read(|connection, now_ms| {
            // A time ahead of now is that of a clock which has been put right since.
            let sql = if gureum_proto::mutated(59) { "SELECT id FROM conversation WHERE state IN (1, 4) AND (renewed_ms <= ?1 OR renewed_ms > ?2)
                       AND id NOT IN (SELECT conversation FROM pending_commit) ORDER BY renewed_ms, id" } else { "SELECT id FROM conversation WHERE state = 1 AND (renewed_ms <= ?1 OR renewed_ms > ?2)
                       AND id NOT IN (SELECT conversation FROM pending_commit) ORDER BY renewed_ms, id" };
            let mut statement = connection.prepare(sql)?;
            let before = now_ms.saturating_sub(SELF_UPDATE_MS);
            let rows =
                statement.query_map(params![before, now_ms], |row| row.get(0).map(ConversationId::from_bytes))?;
            rows.map(|row| Ok(row?)).collect()
        })
    }
}

fn apply(work: &mut Work<'_>, conversation: ConversationId, page: &Commits) -> Result<Applied, VaultError> {
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
    for (epoch, commit) in &page.commits {
        if *epoch < row.epoch {
            continue;
        }
        if *epoch > row.epoch {
            return Ok(rejoin);
        }
        match take_commit(work, &row, commit)? {
            Outcome::Merged => row.epoch = row.epoch.saturating_add(1),
            Outcome::Needs(need) => return Ok(Applied::Needs(need)),
            Outcome::Invalid(_) => return Ok(rejoin),
            Outcome::Stopped(_) => return Ok(Applied::Stopped),
        }
    }
    Ok(if row.epoch >= page.epoch {
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
        accepted(work, row.id)?;
        return Ok(Outcome::Merged);
    }
    let Some(mut group) = work.group(row.id)? else { return Ok(Outcome::Invalid("there is no group".into())) };
    let before = group.leaves();
    let accounts = accounts(work, row.peer);
    let ready = match work.mls().check_commit(&mut group, commit) {
        Ok(ready) => ready,
        Err(CommitError::Invalid(why)) => return Ok(Outcome::Invalid(why)),
        Err(CommitError::Mls(error)) => return Err(error.into()),
    };
    match work.judge(|logs| judge_commit(&ready.change, &before, &accounts, logs))? {
        Judged::Allowed => {}
        Judged::Needs(need) => return Ok(Outcome::Needs(need)),
        Judged::Refused(why) => {
            work.put_row(&Row { state: ConversationStatus::Forked, ..row.clone() })?;
            let event = Event::CommitRefused { conversation: row.id, why, stopped: true };
            return work.event(event).map(Outcome::Stopped);
        }
    }
    let stays = work.mls().merge(&mut group, ready)?;
    let state = if stays { ConversationStatus::Active } else { ConversationStatus::Absent };
    let epoch = if stays { group.epoch() } else { 0 };
    work.keep(row.id, group);
    work.put_row(&Row { epoch, state, ..row.clone() })?;
    // An own commit for the epoch that has just ended has lost; MLS has dropped it already.
    let sql = "DELETE FROM pending_commit WHERE conversation = ?1 AND rejoined IS NULL";
    work.connection.execute(sql, params![row.id.as_bytes()])?;
    Ok(Outcome::Merged)
}

pub(super) fn accounts(work: &Work<'_>, peer: AccountId) -> BTreeSet<AccountId> {
    BTreeSet::from([work.identity.account, peer])
}

pub(super) fn rejoin(
    work: &mut Work<'_>,
    conversation: ConversationId,
    state: &GroupState,
    attempt: Attempt,
) -> Result<SubmitCommit, RejoinError> {
    let row = work.row(conversation)?;
    if let (false, Some(row)) = (attempt == Attempt::Restart || gureum_proto::mutated(10), row.as_ref().filter(|row| row.is_ahead())) {
        return Err(RejoinError::GoneBack(GoneBack { with: work.handle(row.peer)? }));
    }
    if let Some(pending) = pending(work, conversation)? {
        if pending.rejoined.is_some() && pending.submit.epoch == state.epoch {
            return Ok(pending.submit);
        }
        drop_pending(work, conversation)?;
    }
    let counts = attempt == Attempt::First || gureum_proto::mutated(58);
    if let (true, Some(retry_after_ms)) = (counts, work.rejoin_waits_ms(conversation)?) {
        return Err(RejoinError::TooOften { retry_after_ms });
    }
    if state.epoch > EPOCH_MAX {
        return Err(RejoinError::Refused("its epoch is beyond what commits can reach".into()));
    }
    let seen = row.as_ref().map_or(0, |row| row.epoch_seen.max(row.epoch));
    if state.epoch < seen && (attempt != Attempt::Restart || gureum_proto::mutated(57)) {
        return Err(RejoinError::Older { shown: state.epoch, seen });
    }
    let made = work.mls().rejoin(conversation, &state.group_info, &state.tree).map_err(|error| match error {
        JoinError::Invalid(why) => RejoinError::Refused(why),
        JoinError::Mls(error) => RejoinError::Vault(error.into()),
    })?;
    if made.epoch != state.epoch.saturating_add(1) {
        return Err(RejoinError::Refused("it is of another epoch than the server says".into()));
    }
    let others = made.leaves.iter().filter_map(|leaf| leaf.identity.map(|leaf| leaf.account));
    let found = others.into_iter().find(|account| *account != work.identity.account);
    let peer = row.as_ref().map(|row| row.peer).or(found);
    let peer = peer.ok_or_else(|| RejoinError::Refused("nobody else is in it".into()))?;
    let accounts = accounts(work, peer);
    match work.judge(|logs| judge_group(&made.leaves, &accounts, logs))? {
        Judged::Allowed => {}
        Judged::Needs(Need::Account { account, .. }) => return Err(RejoinError::NeedsAccount(account)),
        Judged::Needs(_) => return Err(RejoinError::Refused("it cannot be judged".into())),
        Judged::Refused(why) => return Err(RejoinError::Refused(why)),
    }
    let counter = work.next_counter()?.ok_or(VaultError::CountersUnresolved)?;
    let absent = Row { id: conversation, peer, state: ConversationStatus::Absent, epoch: 0, epoch_seen: 0 };
    work.put_row(&Row { epoch_seen: state.epoch, ..row.unwrap_or(absent) })?;
    if counts {
        work.note_rejoin_attempt(conversation)?;
    }
    Ok(put_pending(work, conversation, counter, state.epoch, made.bundle, Some(&made.snapshot))?)
}

const PENDING: &str = "SELECT counter, conversation, epoch, message, group_info, welcome, rejoined FROM pending_commit";

fn read_pending(row: &rusqlite::Row<'_>) -> rusqlite::Result<Pending> {
    let submit = SubmitCommit {
        counter: row.get(0)?,
        conversation: ConversationId::from_bytes(row.get(1)?),
        epoch: row.get(2)?,
        commit: row.get::<_, Vec<u8>>(3)?.into(),
        group_info: row.get::<_, Vec<u8>>(4)?.into(),
        welcome: row.get::<_, Vec<u8>>(5)?.into(),
    };
    Ok(Pending { submit, rejoined: row.get::<_, Option<Vec<u8>>>(6)?.map(Snapshot::from_bytes) })
}

pub(super) fn pending(work: &Work<'_>, conversation: ConversationId) -> Result<Option<Pending>, VaultError> {
    let mut statement = work.connection.prepare_cached(&format!("{PENDING} WHERE conversation = ?1"))?;
    Ok(statement.query_row(params![conversation.as_bytes()], read_pending).optional()?)
}

fn put_pending(
    work: &Work<'_>,
    conversation: ConversationId,
    counter: u64,
    epoch: u64,
    bundle: CommitBundle,
    rejoined: Option<&Snapshot>,
) -> Result<SubmitCommit, VaultError> {
    let CommitBundle { commit, group_info, welcome } = bundle;
    let sql = "INSERT INTO pending_commit (counter, conversation, epoch, message, group_info, welcome, rejoined)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let rejoined = rejoined.map(Snapshot::as_bytes);
    work.connection
        .execute(sql, params![counter, conversation.as_bytes(), epoch, commit, group_info, welcome, rejoined])?;
    let (commit, group_info, welcome) = (commit.into(), group_info.into(), welcome.into());
    Ok(SubmitCommit { counter, conversation, epoch, commit, group_info, welcome })
}

/// The pending commit has become the next epoch.
fn accepted(work: &mut Work<'_>, conversation: ConversationId) -> Result<Option<StoredEvent>, VaultError> {
    let (Some(own), Some(row)) = (pending(work, conversation)?, work.row(conversation)?) else { return Ok(None) };
    let mut event = None;
    let epoch = own.submit.epoch.saturating_add(1);
    match &own.rejoined {
        Some(snapshot) => {
            work.groups.remove(&conversation);
            snapshot.restore(work.connection)?;
            work.asked.forget_commits(conversation);
            event = Some(if row.is_ahead() && !gureum_proto::mutated(56) {
                restart::restarted(work, &row, epoch)?
            } else {
                work.event(Event::Rejoined { conversation })?
            });
        }
        None => {
            let Some(mut group) = work.group(conversation)? else { return Ok(None) };
            work.mls().merge_pending(&mut group)?;
            work.keep(conversation, group);
        }
    }
    let (peer, epoch_seen) = (row.peer, if row.is_ahead() && !gureum_proto::mutated(13) { epoch } else { row.epoch_seen });
    work.put_row(&Row { epoch, state: ConversationStatus::Active, epoch_seen, ..row })?;
    work.note_renewed(conversation)?;
    if own.rejoined.is_some() && !gureum_proto::mutated(35) {
        restart::replace(work, peer, conversation)?;
    }
    work.connection.execute("DELETE FROM pending_commit WHERE conversation = ?1", params![conversation.as_bytes()])?;
    Ok(event)
}

pub(super) fn drop_pending(work: &mut Work<'_>, conversation: ConversationId) -> Result<(), VaultError> {
    let Some(own) = pending(work, conversation)? else { return Ok(()) };
    if let (None, Some(mut group)) = (&own.rejoined, work.group(conversation)?) {
        work.mls().clear_pending(&mut group)?;
        work.keep(conversation, group);
    }
    work.connection.execute("DELETE FROM pending_commit WHERE conversation = ?1", params![conversation.as_bytes()])?;
    Ok(())
}
