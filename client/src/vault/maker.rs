//! Commits of this device: made, and kept aside until the server has decided.

use gureum_proto::{ConversationId, SubmitCommit};
use rusqlite::{OptionalExtension, params};

use super::inbox::FIRST_EPOCH;
use super::outbox::KIND_TEXT;
use super::plan::{Planned, plan};
use super::removals::Brought;
use super::work::{ACTIVE, GROUP, Row, Work};
use super::{ConversationStatus, Event, StoredEvent, Vault, VaultError, restart};
use crate::e2ee::{CommitBundle, Snapshot};
use crate::limits::{FIRST_RENEWAL_WITHIN_MS, RENEWED_BEFORE_SENDING_MAX, SELF_UPDATE_MS};

/// The server's answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitAnswer {
    /// It is the next epoch.
    Accepted,
    /// Another commit came first: what it was to do can be done by another.
    Lost,
    /// Something in it is not valid; without that it may be.
    Invalid(String),
    /// This device may not commit there, whatever a person wants by it.
    Refused(String),
}

/// What a commit is made for. It does all that there is to do in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To do something: where there is nothing, none is made.
    Something,
    /// Also to renew this device's keys alone.
    Whatever,
}

pub(super) struct Pending {
    pub(super) submit: SubmitCommit,
    pub(super) rejoined: Option<Snapshot>,
}

impl Vault {
    /// Makes a commit that renews this device's keys, and removes who is to be removed, or gives the pending one; `None`
    /// where none can be made.
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_self_update(&mut self, conversation: ConversationId) -> Result<Option<SubmitCommit>, VaultError> {
        self.write(|work| make(work, conversation, Purpose::Whatever))
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

    /// The pending commit lost: it is dropped, and what it was to do can be done by another.
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_rejected(&mut self, conversation: ConversationId) -> Result<(), VaultError> {
        self.write(|work| drop_pending(work, conversation))
    }

    /// Takes the answer to a commit that was submitted under this counter, unless another process of this home has: then
    /// another commit may be pending. Whether there is something left of a commit that is not valid, which may be.
    ///
    /// # Errors
    /// The database failed.
    pub fn settle_commit(
        &mut self,
        conversation: ConversationId,
        counter: u64,
        answer: &CommitAnswer,
    ) -> Result<bool, VaultError> {
        self.write(|work| {
            if pending(work, conversation)?.is_none_or(|own| own.submit.counter != counter) {
                return Ok(false);
            }
            match answer {
                CommitAnswer::Accepted => drop(accepted(work, conversation)?),
                CommitAnswer::Lost => drop_pending(work, conversation)?,
                CommitAnswer::Invalid(why) => {
                    let intents = work.intents_of(conversation, counter)?;
                    drop_pending(work, conversation)?;
                    work.divide_or_refuse(conversation, &intents, why)?;
                    return Ok(!intents.is_empty() && !work.open_intents(conversation)?.is_empty());
                }
                CommitAnswer::Refused(why) => {
                    work.refuse_intents_of(conversation, counter, why)?;
                    drop_pending(work, conversation)?;
                }
            }
            Ok(false)
        })
    }

    /// Conversations in which this device should renew its keys: just joined, or a week ago.
    ///
    /// # Errors
    /// The database failed.
    pub fn self_updates_due(&mut self) -> Result<Vec<ConversationId>, VaultError> {
        self.read(|connection, now_ms| {
            // A time ahead of now is that of a clock which has been put right since.
            let sql = "SELECT id FROM conversation WHERE state = 1 AND must_rejoin = 0
                       AND (renewed_ms <= ?1 OR renewed_ms > ?2)
                       AND id NOT IN (SELECT conversation FROM pending_commit) ORDER BY renewed_ms, id";
            let mut statement = connection.prepare(sql)?;
            let before = now_ms.saturating_sub(SELF_UPDATE_MS);
            let rows =
                statement.query_map(params![before, now_ms], |row| row.get(0).map(ConversationId::from_bytes))?;
            rows.map(|row| Ok(row?)).collect()
        })
    }
}

impl Vault {
    /// Groups of a few leaves in which messages wait to be encrypted, and this device still has the keys that its KeyPackage
    /// came with: before that it is to renew them. And whether there are groups where nothing waits in which it may have.
    ///
    /// # Errors
    /// The database failed.
    pub fn first_renewals(&mut self) -> Result<(Vec<ConversationId>, bool), VaultError> {
        self.write(|work| {
            // Whoever came in by a Welcome is to renew its keys within so long: the others need not be loaded.
            let before = work.now_ms.saturating_sub(SELF_UPDATE_MS - FIRST_RENEWAL_WITHIN_MS);
            let sql = format!(
                "SELECT c.id, EXISTS (SELECT 1 FROM outbox o WHERE o.conversation = c.id AND o.failed = 0
                                      AND o.kind = {KIND_TEXT} AND o.ciphertext IS NULL)
                 FROM conversation c WHERE c.kind = {GROUP} AND c.state = {ACTIVE} AND c.must_rejoin = 0
                 AND c.renewed_ms <= ?1 ORDER BY c.id"
            );
            let mut statement = work.connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![before], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?)))?;
            let (mut due, mut may_follow) = (Vec::new(), false);
            for (id, waits) in rows.collect::<Result<Vec<(_, bool)>, _>>()? {
                if !waits {
                    may_follow = true;
                    continue;
                }
                let id = ConversationId::from_bytes(id);
                let Some(group) = work.group(id)? else { continue };
                if !group.has_renewed() && group.leaves().len() <= RENEWED_BEFORE_SENDING_MAX {
                    due.push(id);
                }
                work.keep(id, group);
            }
            Ok((due, may_follow))
        })
    }

    /// Makes a commit that renews the keys that this device's KeyPackage came with, or gives the pending one; `None` where
    /// it has others, or none can be made.
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_first_renewal(&mut self, conversation: ConversationId) -> Result<Option<SubmitCommit>, VaultError> {
        self.write(|work| {
            let Some(group) = work.group(conversation)? else { return Ok(None) };
            let has_renewed = group.has_renewed();
            work.keep(conversation, group);
            if has_renewed { Ok(None) } else { make(work, conversation, Purpose::Whatever) }
        })
    }
}

/// Makes the one commit that does all that this device has to do in a conversation, or gives the pending one. Who cannot
/// be added, whatever else the KeyPackage is good for, is left out.
pub(super) fn make(
    work: &mut Work<'_>,
    conversation: ConversationId,
    purpose: Purpose,
) -> Result<Option<SubmitCommit>, VaultError> {
    make_with(work, conversation, purpose, &[])
}

/// The same, with devices at hand that may come in for revoked ones.
pub(super) fn make_with(
    work: &mut Work<'_>,
    conversation: ConversationId,
    purpose: Purpose,
    mut brought: &[Brought],
) -> Result<Option<SubmitCommit>, VaultError> {
    if let Some(pending) = pending(work, conversation)? {
        return Ok(Some(pending.submit));
    }
    let row = work.row(conversation)?.filter(|row| row.state == ConversationStatus::Active);
    let (Some(row), false) = (row, work.must_rejoin(conversation)?) else { return Ok(None) };
    let mut counter = None;
    loop {
        let Some(mut group) = work.group(conversation)? else { return Ok(None) };
        let (epoch, Planned { wanted, intents }) =
            (group.epoch(), plan(work, &row, &group.view(conversation), brought)?);
        let is_due = purpose == Purpose::Whatever || !wanted.is_empty();
        if is_due && counter.is_none() {
            counter = work.next_counter()?;
        }
        let Some(counter) = counter.filter(|_| is_due) else {
            work.keep(conversation, group);
            return Ok(None);
        };
        let adds = !wanted.added.is_empty();
        let mut bundle = match work.mls().commit(&mut group, wanted) {
            Ok(bundle) => bundle,
            // Each time fewer are tried together, or one is given up.
            Err(_) if !brought.is_empty() => {
                brought = &[];
                continue;
            }
            Err(error) if adds => {
                work.divide_or_refuse(conversation, &intents, &error.why)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if adds {
            bundle.group_info = next_group_info(work, conversation)?;
        }
        work.keep(conversation, group);
        work.put_intents_into(&intents, counter)?;
        return put_pending(work, conversation, counter, epoch, bundle, None).map(Some);
    }
}

/// The GroupInfo of the epoch that the pending commit begins. Only a group that is there can write it, so this one goes
/// there for as long as that takes.
fn next_group_info(work: &mut Work<'_>, conversation: ConversationId) -> Result<Vec<u8>, VaultError> {
    work.step(|work| {
        let mls = work.mls();
        let mut ahead = mls.load(conversation)?.ok_or(VaultError::Damaged("group"))?;
        mls.merge_pending(&mut ahead)?;
        Ok::<_, VaultError>((mls.group_info(&ahead)?, false))
    })
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

pub(super) fn put_pending(
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
pub(super) fn accepted(work: &mut Work<'_>, conversation: ConversationId) -> Result<Option<StoredEvent>, VaultError> {
    let (Some(own), Some(row)) = (pending(work, conversation)?, work.row(conversation)?) else { return Ok(None) };
    let (mut event, mut name) = (None, row.name.clone());
    let epoch = own.submit.epoch.saturating_add(1);
    match &own.rejoined {
        Some(snapshot) => {
            work.groups.remove(&conversation);
            snapshot.restore(work.connection)?;
            work.asked.forget_commits(conversation);
            work.forget_numbers(conversation)?;
            if row.is_ahead() {
                // Whoever was removed since is in it again, and is to be removed again.
                work.forget_removals(conversation)?;
                work.forget_holes(conversation)?;
            }
            if let Some(group) = work.group(conversation)? {
                work.note_group(conversation, &group.leaves())?;
                name = group.state().map(|state| state.name().to_owned());
                work.keep(conversation, group);
            }
            // A linked device comes into what its account is in: that is no news, and nothing is lost by it.
            let is_first = !work.has_joined(conversation)?;
            let comes_in = work.identity.log_entry > 0 && is_first;
            if row.is_own() {
                work.come_into_own()?;
                // What is encrypted for an epoch before this one is not for this device, however often it has been in.
                work.forget_joined(conversation)?;
            } else if row.is_ahead() {
                event = Some(restart::restarted(work, &row, epoch)?);
            } else if !comes_in {
                let with = work.title_of(conversation)?;
                event = Some(work.event(Event::Rejoined { conversation, with })?);
            }
        }
        None => {
            let Some(mut group) = work.group(conversation)? else { return Ok(None) };
            let before = group.leaves();
            work.mls().merge_pending(&mut group)?;
            let after = group.view(conversation);
            work.keep(conversation, group);
            work.note_leaves(conversation, &before, &after.leaves)?;
            work.forget_void_statements(&after)?;
            work.settle_intents_of(conversation, own.submit.counter)?;
            work.asked.passed(conversation);
            name = after.state.map(|state| state.name().to_owned());
        }
    }
    let (peer, is_group, epoch_seen) = (row.peer, row.is_group(), if row.is_ahead() { epoch } else { row.epoch_seen });
    work.put_row(&Row { epoch, state: ConversationStatus::Active, epoch_seen, name, ..row })?;
    work.note_renewed(conversation)?;
    if own.rejoined.is_some() {
        // An account's first device that comes in without a Welcome had one: what was sent since then it has missed.
        let since = if is_group && work.identity.log_entry == 0 { FIRST_EPOCH } else { epoch };
        work.note_joined(conversation, since)?;
        work.note_fresh_keys(conversation)?;
        if let Some(peer) = peer {
            restart::replace(work, peer, conversation)?;
        }
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
    work.reopen_intents(conversation)?;
    work.connection.execute("DELETE FROM pending_commit WHERE conversation = ?1", params![conversation.as_bytes()])?;
    Ok(())
}
