//! Commits: those that this device lacks, those that it makes, and the way back into a conversation.

use std::sync::Arc;

use gureum_proto::limits::ADDS_PER_COMMIT_MAX;
use gureum_proto::{Code, ConversationId, Group, Request, Response, SubmitCommit};

use super::{ClientError, Left, Sync};
use crate::limits::{FIRST_RENEWAL_RACES_MAX, NEED_STEPS_MAX, REJOIN_RACES_MAX, REMOVAL_RACES_MAX};
use crate::link::LinkError;
use crate::vault::{Applied, Brought, CommitAnswer, Need, RejoinError, Vault};

/// What makes an external commit onto a group's state.
pub(super) type Joining = fn(&mut Vault, ConversationId, &Group) -> Result<SubmitCommit, RejoinError>;

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submitted {
    Accepted,
    Lost,
    /// It is not valid; another with less in it may be.
    Divided,
}

impl Sync {
    /// Brings a conversation to an epoch, or to its current one, by the commit log, or by rejoining where that ends. To the
    /// current one only behind the inbox: what waits there may be of epochs of which the keys would be gone.
    pub(crate) async fn fetch_commits(
        &self,
        conversation: ConversationId,
        mut from_epoch: u64,
        to_epoch: Option<u64>,
    ) -> Result<(), ClientError> {
        for _ in 0..NEED_STEPS_MAX {
            let page = match self.link.request(&Request::ReadCommits { conversation, from_epoch }).await {
                Ok(Response::Commits(page)) => page,
                Ok(_) => return Err(ClientError::Mismatched),
                Err(LinkError::Refused(refusal)) if refusal.code == Code::CommitsGone => {
                    return self.rejoin(conversation).await;
                }
                Err(error) => return Err(self.unless_member(conversation, error).await?),
            };
            self.check_epoch(conversation, from_epoch, Some(page.epoch)).await?;
            match self.vault.call(move |vault| vault.apply_commits(conversation, &page, to_epoch)).await? {
                Applied::UpToDate | Applied::Stopped => return Ok(()),
                Applied::More { from_epoch: next } => from_epoch = next,
                Applied::Needs(Need::Account { account, log_from }) => self.learn_needed(account, log_from).await?,
                Applied::Needs(Need::Rejoin { conversation }) => return self.rejoin(conversation).await,
                Applied::Needs(Need::Commits { from_epoch: next, .. }) => from_epoch = next,
                Applied::Needs(Need::Members { .. }) => self.learn_members(conversation).await?,
                Applied::Needs(Need::Removal { .. }) => return Ok(()),
            }
        }
        Err(ClientError::Stuck("a commit log without end".to_owned()))
    }

    /// Joins by an external commit; another commit that comes first is a reason to try again.
    pub(crate) async fn rejoin(&self, conversation: ConversationId) -> Result<(), ClientError> {
        let how = |race| if race == 0 { Vault::rejoin as Joining } else { Vault::rejoin_again };
        let held = self.vault.call(move |vault| vault.conversation(conversation)).await?;
        match self.join(conversation, how).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.vault.run(move |vault| vault.rejoin_raced(conversation)).await?.into()),
            Err(ClientError::Rejoin(RejoinError::Older { shown, seen })) => {
                let held = held.map_or(0, |held| held.epoch_seen);
                self.check_epoch(conversation, held, Some(shown)).await?;
                Err(RejoinError::Older { shown, seen }.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes external commits until the server takes one, or others were faster too often.
    pub(super) async fn join(
        &self,
        conversation: ConversationId,
        how: fn(usize) -> Joining,
    ) -> Result<bool, ClientError> {
        for race in 0..REJOIN_RACES_MAX {
            let submit = self.external_commit(conversation, how(race)).await?;
            if let Submitted::Accepted = self.submit(submit).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn external_commit(&self, conversation: ConversationId, how: Joining) -> Result<SubmitCommit, ClientError> {
        let group = match self.link.request(&Request::ReadGroup { conversation }).await {
            Ok(Response::Group(group)) => Arc::new(group),
            Ok(_) => return Err(ClientError::Mismatched),
            Err(error) => return Err(self.unless_member(conversation, error).await?),
        };
        for _ in 0..NEED_STEPS_MAX {
            let state = Arc::clone(&group);
            match self.vault.run(move |vault| how(vault, conversation, &state)).await? {
                Ok(submit) => return Ok(submit),
                Err(RejoinError::NeedsAccount(account)) => self.learn_log(account).await?,
                Err(RejoinError::NeedsMembers) => self.learn_members(conversation).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(ClientError::Stuck("a conversation without end".to_owned()))
    }

    /// The error again. Where it says that the account is not in a group any more, that is noted.
    async fn unless_member(&self, conversation: ConversationId, error: LinkError) -> Result<ClientError, ClientError> {
        if matches!(&error, LinkError::Refused(refusal) if refusal.code == Code::NotMember) {
            self.vault.call(move |vault| vault.note_not_member(conversation)).await?;
        }
        Ok(error.into())
    }

    pub(super) async fn submit(&self, commit: SubmitCommit) -> Result<Submitted, ClientError> {
        let (conversation, counter) = (commit.conversation, commit.counter);
        let answered = match self.link.request(&Request::SubmitCommit(commit)).await {
            Ok(Response::CommitAccepted { .. }) => Ok((CommitAnswer::Accepted, Submitted::Accepted)),
            Ok(_) => return Err(ClientError::Mismatched),
            Err(LinkError::Refused(refusal)) if matches!(refusal.code, Code::EpochConflict | Code::EpochStale) => {
                Ok((CommitAnswer::Lost, Submitted::Lost))
            }
            Err(error) => Err(error),
        };
        let settle = |answer| self.vault.call(move |vault| vault.settle_commit(conversation, counter, &answer));
        match answered {
            Ok((answer, submitted)) => settle(answer).await.map(|_| submitted),
            Err(error) => {
                // Without an answer, or with "later", it stays pending and goes out again as the same bytes.
                if error.is_final() {
                    let why = error.to_string();
                    let answer =
                        if is_about_content(&error) { CommitAnswer::Invalid(why) } else { CommitAnswer::Refused(why) };
                    if settle(answer).await? {
                        tracing::warn!(%error, %conversation, "a commit is tried again with less in it");
                        return Ok(Submitted::Divided);
                    }
                }
                Err(error.into())
            }
        }
    }

    /// Removes the revoked devices of a conversation, and the accounts that leave it, unless somebody is faster.
    pub(crate) async fn remove_revoked(&self, conversation: ConversationId) -> Result<(), ClientError> {
        let (mut is_looked_up, mut brought) = (false, Vec::new());
        for _ in 0..REMOVAL_RACES_MAX {
            let with = brought.clone();
            let made = self.vault.call(move |vault| vault.commit_removals_with(conversation, &with)).await?;
            if let Some(commit) = made {
                let epoch = commit.epoch;
                match self.submit(commit).await {
                    Ok(Submitted::Lost) => self.fetch_commits(conversation, epoch, None).await?,
                    Ok(_) => {}
                    Err(error) => {
                        let is_over_content = matches!(error.code(), Some(Code::CommitInvalid | Code::LimitReached));
                        if is_over_content && !brought.is_empty() {
                            self.brought_in_vain.note(conversation);
                        }
                        return Err(error);
                    }
                }
            } else if !self.vault.call(Vault::removals_due).await?.contains(&conversation) {
                return Ok(());
            } else if std::mem::replace(&mut is_looked_up, true) {
                return Err(ClientError::Stuck("the removal of a device that this one may not remove yet".to_owned()));
            } else {
                self.look_up_removal(conversation).await?;
                brought = self.claim_for_stranded(conversation).await?;
            }
        }
        Err(ClientError::Stuck("others change the conversation faster than this device can".to_owned()))
    }

    /// Devices of accounts of which only revoked ones are in a conversation: nobody may leave these accounts without, and as
    /// long as they are in nothing is said there. One that has no device to come in yet is waited for. Nobody is claimed
    /// again on this connection where the server did not accept it.
    async fn claim_for_stranded(&self, conversation: ConversationId) -> Result<Vec<Brought>, ClientError> {
        let mut brought = Vec::new();
        if self.brought_in_vain.is(conversation) {
            return Ok(brought);
        }
        let stranded = self.vault.call(move |vault| vault.stranded(conversation)).await?;
        for account in stranded.into_iter().take(ADDS_PER_COMMIT_MAX) {
            let claimed = match self.claim_if_any(vec![account]).await {
                Ok(claimed) => claimed,
                Err(error) if error.is_confined() => {
                    tracing::warn!(%error, %account, "no other device can be brought in");
                    break;
                }
                Err(error) => return Err(error),
            };
            let of = claimed.of(account);
            brought.extend(of.map(|(device, key_package)| Brought { account, device, key_package }));
        }
        Ok(brought)
    }

    /// The server waits for a removal of which this device does not know: then a log has grown, or somebody has made it.
    async fn look_up_removal(&self, conversation: ConversationId) -> Result<(), ClientError> {
        let held = self.vault.call(move |vault| vault.conversation(conversation)).await?;
        let Some(held) = held else { return Ok(()) };
        match held.peer {
            Some(peer) => {
                for account in [peer, self.identity.account] {
                    self.learn_log(account).await?;
                }
            }
            None => self.learn_pending(conversation).await?,
        }
        self.fetch_commits(conversation, held.epoch, None).await
    }

    /// Sends commits again whose answer is missing.
    pub(crate) async fn resubmit_commits(&self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        for commit in self.vault.call(Vault::pending_commits).await? {
            left.note(self.submit(commit).await.map(drop))?;
        }
        Ok(left)
    }

    /// Renews the keys that this device's KeyPackage came with in a group, unless others are faster each time.
    pub(crate) async fn renew_first(&self, conversation: ConversationId) -> Result<(), ClientError> {
        for _ in 0..FIRST_RENEWAL_RACES_MAX {
            let commit = self.vault.call(move |vault| vault.commit_first_renewal(conversation)).await?;
            let Some(commit) = commit else { return Ok(()) };
            let epoch = commit.epoch;
            if self.submit(commit).await? != Submitted::Lost {
                return Ok(());
            }
            self.fetch_commits(conversation, epoch, None).await?;
        }
        Ok(())
    }

    /// Renews this device's keys where that is due. A lost race costs nothing: it stays due.
    pub(crate) async fn renew_keys(&self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        for conversation in self.vault.call(Vault::self_updates_due).await? {
            let commit = self.vault.call(move |vault| vault.commit_self_update(conversation)).await?;
            if let Some(commit) = commit {
                left.note(self.submit(commit).await.map(drop))?;
            }
        }
        Ok(left)
    }
}

/// Whether a refusal is about what a commit does: one of those who are added may be the reason, and not the others.
fn is_about_content(error: &LinkError) -> bool {
    matches!(error, LinkError::Refused(refusal) if matches!(refusal.code, Code::CommitInvalid | Code::LimitReached))
}
