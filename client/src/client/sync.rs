//! What a device asks its server for: accounts, conversations, commits, and the way back into a conversation.

mod gone_back;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gureum_proto::{
    AccountId, Code, ConversationId, CreateConversation, DeviceId, FindBy, Group, Handle, Ready, Request, Response,
    SubmitCommit,
};

use super::error::ClientError;
use super::vault_handle::VaultHandle;
use crate::limits::{KEY_PACKAGES_FULL, KEY_PACKAGES_LOW, NEED_STEPS_MAX, REJOIN_RACES_MAX};
use crate::link::{Link, LinkError};
use crate::vault::{
    Applied, BeginError, Contact, Conversation, ConversationStatus, Identity, Need, RejoinError, Vault,
};
pub(crate) use gone_back::Seen;
use gone_back::went_back;

/// A connection and the database that it serves.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) link: Link,
    pub(crate) vault: VaultHandle,
    pub(crate) identity: Arc<Identity>,
}

/// What is left of several attempts of which none may hold up the others.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Left {
    /// Something is refused still, and the server wants to be left alone for so long.
    pub(crate) refused: Option<Duration>,
    /// Anything was tried at all.
    pub(crate) tried: bool,
}

impl Left {
    /// Counts an attempt in; what ends the connection is an error.
    fn note(&mut self, result: Result<(), ClientError>) -> Result<(), ClientError> {
        self.tried = true;
        if let Err(error) = result {
            let error = error.confined()?;
            tracing::warn!(%error, "this has to wait");
            self.refused = self.refused.max(Some(error.retry_after()));
        }
        Ok(())
    }

    fn add(&mut self, other: Self) {
        self.refused = self.refused.max(other.refused);
        self.tried |= other.tried;
    }
}

/// What makes an external commit onto a group's state.
type Joining = fn(&mut Vault, ConversationId, &Group) -> Result<SubmitCommit, RejoinError>;

/// What became of a commit.
enum Submitted {
    Accepted,
    Lost,
}

impl Sync {
    /// Fetches what the vault lacks.
    pub(crate) async fn meet(&self, need: Need) -> Result<(), ClientError> {
        match need {
            Need::Account { account, log_from } => self.learn(FindBy::Account(account), log_from).await.map(drop),
            Need::Commits { conversation, from_epoch } => self.fetch_commits(conversation, from_epoch).await,
            Need::Rejoin { conversation } => self.rejoin(conversation).await,
        }
    }

    /// Gives up for now what cannot be met, so that it holds up nothing else.
    pub(crate) async fn give_up(&self, need: Need) -> Result<(), ClientError> {
        self.vault.run(move |vault| vault.give_up(need)).await?;
        match need {
            Need::Account { .. } => Ok(()),
            Need::Commits { conversation, .. } | Need::Rejoin { conversation } => {
                self.vault.call(move |vault| vault.release_counters(conversation)).await
            }
        }
    }

    /// The account of a handle: known here, or found.
    pub(crate) async fn contact(&self, handle: &Handle) -> Result<Contact, ClientError> {
        let known = handle.clone();
        if let Some(contact) = self.vault.call(move |vault| vault.contact_by_handle(&known)).await? {
            return Ok(contact);
        }
        match self.learn(FindBy::Handle(handle.clone()), 0).await {
            Err(ClientError::Link(LinkError::Refused(refusal))) if refusal.code == Code::NotFound => {
                Err(ClientError::Nobody(handle.to_string()))
            }
            result => result,
        }
    }

    async fn learn(&self, by: FindBy, mut log_from: u64) -> Result<Contact, ClientError> {
        for _ in 0..NEED_STEPS_MAX {
            let request = Request::FindAccount { by: by.clone(), log_from };
            let Response::Account(found) = self.link.request(&request).await? else {
                return Err(ClientError::Mismatched);
            };
            if matches!(&by, FindBy::Account(account) if *account != found.account)
                || matches!(&by, FindBy::Handle(handle) if *handle != found.handle)
            {
                return Err(ClientError::Mismatched);
            }
            let learned = self.vault.call(move |vault| vault.learn_account(&found, log_from)).await?;
            if !learned.more {
                return Ok(learned.contact);
            }
            log_from = learned.contact.log.length();
        }
        Err(ClientError::Stuck("a device log without end".to_owned()))
    }

    async fn learn_account(&self, account: AccountId) -> Result<Contact, ClientError> {
        let log_from = self.vault.call(move |vault| vault.log_from(account)).await?;
        self.learn(FindBy::Account(account), log_from).await
    }

    /// Brings a conversation to its current epoch by the commit log, or by rejoining where that ends.
    async fn fetch_commits(&self, conversation: ConversationId, mut from_epoch: u64) -> Result<(), ClientError> {
        for _ in 0..NEED_STEPS_MAX {
            let page = match self.link.request(&Request::ReadCommits { conversation, from_epoch }).await {
                Ok(Response::Commits(page)) => page,
                Ok(_) => return Err(ClientError::Mismatched),
                Err(LinkError::Refused(refusal)) if refusal.code == Code::CommitsGone => {
                    return self.rejoin(conversation).await;
                }
                Err(error) => return Err(error.into()),
            };
            self.check_epoch(conversation, from_epoch, Some(page.epoch)).await?;
            match self.vault.call(move |vault| vault.apply_commits(conversation, &page)).await? {
                Applied::UpToDate | Applied::Stopped => return Ok(()),
                Applied::More { from_epoch: next } => from_epoch = next,
                Applied::Needs(Need::Account { account, log_from }) => {
                    self.learn(FindBy::Account(account), log_from).await?;
                }
                Applied::Needs(Need::Rejoin { conversation }) => return self.rejoin(conversation).await,
                Applied::Needs(Need::Commits { from_epoch: next, .. }) => from_epoch = next,
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
                if !gureum_proto::mutated(53) {
                    self.check_epoch(conversation, held, Some(shown)).await?;
                }
                Err(RejoinError::Older { shown, seen }.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes external commits until the server takes one, or others were faster too often.
    async fn join(&self, conversation: ConversationId, how: fn(usize) -> Joining) -> Result<bool, ClientError> {
        for race in 0..REJOIN_RACES_MAX {
            let submit = self.external_commit(conversation, how(race)).await?;
            if let Submitted::Accepted = self.submit(submit).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn external_commit(&self, conversation: ConversationId, how: Joining) -> Result<SubmitCommit, ClientError> {
        let Response::Group(group) = self.link.request(&Request::ReadGroup { conversation }).await? else {
            return Err(ClientError::Mismatched);
        };
        let group = Arc::new(group);
        for _ in 0..NEED_STEPS_MAX {
            let state = Arc::clone(&group);
            match self.vault.run(move |vault| how(vault, conversation, &state)).await? {
                Ok(submit) => return Ok(submit),
                Err(RejoinError::NeedsAccount(account)) => drop(self.learn_account(account).await?),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ClientError::Stuck("a conversation without end".to_owned()))
    }

    async fn submit(&self, commit: SubmitCommit) -> Result<Submitted, ClientError> {
        let conversation = commit.conversation;
        match self.link.request(&Request::SubmitCommit(commit)).await {
            Ok(Response::CommitAccepted { .. }) => {
                self.vault.call(move |vault| vault.commit_accepted(conversation)).await?;
                Ok(Submitted::Accepted)
            }
            Ok(_) => Err(ClientError::Mismatched),
            Err(LinkError::Refused(refusal)) if matches!(refusal.code, Code::EpochConflict | Code::EpochStale) => {
                self.vault.call(move |vault| vault.commit_rejected(conversation)).await?;
                Ok(Submitted::Lost)
            }
            Err(error) => {
                // Without an answer, or with "later", it stays pending and goes out again as the same bytes.
                if error.is_final() {
                    self.vault.call(move |vault| vault.commit_rejected(conversation)).await?;
                }
                Err(error.into())
            }
        }
    }

    /// The conversation with somebody, begun if there is none. It may be one that this device has yet to join.
    pub(crate) async fn conversation(&self, with: &Handle) -> Result<Conversation, ClientError> {
        let peer = self.contact(with).await?.account;
        if peer == self.identity.account {
            return Err(BeginError::Oneself.into());
        }
        let known = move |vault: &mut Vault| vault.conversation_with(peer);
        match self.vault.call(known).await? {
            Some(known) if known.state != ConversationStatus::Creating => return Ok(known),
            Some(begun) => self.confirm_creation(begun.id).await?,
            None => self.begin(peer, None).await?,
        }
        let begun = self.vault.call(known).await?;
        begun.ok_or_else(|| ClientError::Stuck("a conversation that was begun is not there".to_owned()))
    }

    /// Begins a conversation, perhaps in the place of one that the server no longer knows.
    async fn begin(&self, peer: AccountId, instead_of: Option<ConversationId>) -> Result<(), ClientError> {
        let theirs = self.claim(peer).await?;
        let ours = if self.has_other_devices().await? { self.claim(self.identity.account).await? } else { Vec::new() };
        let ours: Vec<_> = ours.into_iter().filter(|(device, _)| *device != self.identity.device).collect();
        let create = self.vault.call(move |vault| match instead_of {
            None => vault.begin_conversation(peer, &theirs, &ours),
            Some(lost) => vault.begin_anew(lost, &theirs, &ours),
        });
        let create = create.await?;
        self.create(create).await
    }

    async fn claim(&self, account: AccountId) -> Result<Vec<(DeviceId, Bytes)>, ClientError> {
        match self.link.request(&Request::ClaimKeyPackages { account }).await? {
            Response::KeyPackages(packages) => Ok(packages),
            _ => Err(ClientError::Mismatched),
        }
    }

    async fn has_other_devices(&self) -> Result<bool, ClientError> {
        let account = self.identity.account;
        let contact = match self.vault.call(move |vault| vault.contact(account)).await? {
            Some(contact) => contact,
            None => self.learn_account(account).await?,
        };
        Ok(contact.log.active().any(|(device, _)| device != self.identity.device))
    }

    async fn create(&self, create: CreateConversation) -> Result<(), ClientError> {
        let ours = create.conversation;
        match self.link.request(&Request::CreateConversation(create)).await {
            Ok(Response::ConversationCreated { conversation, .. }) if conversation == ours => {
                self.vault.call(move |vault| vault.conversation_created(ours)).await
            }
            Ok(Response::ConversationCreated { conversation, .. }) => {
                self.vault.call(move |vault| vault.conversation_existed(ours, conversation)).await
            }
            Ok(_) => Err(ClientError::Mismatched),
            Err(error) => {
                // A connection that ended, for whatever reason, has not said no: it is asked for again on the next one.
                if error.is_final() {
                    let why = error.to_string();
                    self.vault.call(move |vault| vault.abandon_conversation(ours, &why)).await?;
                }
                Err(error.into())
            }
        }
    }

    /// Asks again for what was asked for on a connection that broke.
    async fn confirm_creations(&self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        for create in self.vault.call(Vault::pending_creations).await? {
            left.note(self.create(create).await)?;
        }
        Ok(left)
    }

    async fn confirm_creation(&self, conversation: ConversationId) -> Result<(), ClientError> {
        let pending = self.vault.call(Vault::pending_creations).await?;
        match pending.into_iter().find(|create| create.conversation == conversation) {
            Some(create) => self.create(create).await,
            None => Ok(()),
        }
    }

    /// Sends commits again whose answer is missing.
    pub(crate) async fn resubmit_commits(&self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        for commit in self.vault.call(Vault::pending_commits).await? {
            left.note(self.submit(commit).await.map(drop))?;
        }
        Ok(left)
    }

    /// Tries again what was refused: creations, commits, and the way forward in conversations that are behind; those
    /// that this device is not in, if it is to join.
    pub(crate) async fn mend(&self, joins: bool) -> Result<Left, ClientError> {
        let mut left = self.confirm_creations().await?;
        left.add(self.resubmit_commits().await?);
        let is_wanted = |need: &Need| joins || !matches!(need, Need::Rejoin { .. });
        for need in self.vault.call(Vault::behind).await? {
            if is_wanted(&need) {
                let met = self.meet(need).await;
                if met.is_err() {
                    self.give_up(need).await?;
                }
                left.note(met)?;
            }
        }
        if left.tried && left.refused.is_none() && self.vault.call(Vault::behind).await?.iter().any(is_wanted) {
            left.refused = Some(Duration::ZERO);
        }
        Ok(left)
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

    /// What runs out by time while a connection lasts.
    pub(crate) async fn keep_up(&self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        // To put none is to ask how many there are.
        match self.put_key_packages(Vec::new(), None).await {
            Ok(stored) => left.note(self.fill_key_packages(stored).await)?,
            Err(error) => left.note(Err(error))?,
        }
        Ok(left)
    }

    /// Fills the directory with KeyPackages when it runs low or they grow old, so that others can begin conversations.
    async fn fill_key_packages(&self, left: u32) -> Result<(), ClientError> {
        let are_old = self.vault.call(Vault::key_packages_due).await?;
        let count = match (are_old, left < KEY_PACKAGES_LOW) {
            (true, _) => KEY_PACKAGES_FULL,
            (false, true) => KEY_PACKAGES_FULL.saturating_sub(left),
            (false, false) => return Ok(()),
        };
        let count = usize::try_from(count).unwrap_or(0);
        let key_packages = self.vault.call(move |vault| vault.make_key_packages(count)).await?;
        self.put_key_packages(key_packages, None).await?;
        // By itself: a last resort that is refused must not cost the others.
        let last_resort = self.vault.call(Vault::make_last_resort).await?;
        self.put_key_packages(Vec::new(), Some(last_resort)).await.map(drop)
    }

    /// Returns how many the directory has now.
    async fn put_key_packages(&self, key_packages: Vec<Bytes>, last_resort: Option<Bytes>) -> Result<u32, ClientError> {
        match self.link.request(&Request::PutKeyPackages { key_packages, last_resort }).await? {
            Response::KeyPackagesStored { left } => Ok(left),
            _ => Err(ClientError::Mismatched),
        }
    }

    /// What a new connection asks first: nothing, mostly.
    pub(crate) async fn begin_session(&self, ready: &Ready, seen: Seen) -> Result<Left, ClientError> {
        let mut left = Left::default();
        if went_back(ready.head, seen.cursor) && !gureum_proto::mutated(11) {
            // Before anything is sent: what is encrypted for a history that is no more, nobody reads.
            self.check_all().await?;
        }
        if ready.log_entries > seen.log_entries {
            left.note(self.learn_account(self.identity.account).await.map(drop))?;
        }
        let server_time_ms = ready.server_time_ms;
        self.vault.call(move |vault| vault.forget_key_packages(server_time_ms)).await?;
        left.note(self.fill_key_packages(ready.key_packages_left).await)?;
        left.add(self.confirm_creations().await?);
        Ok(left)
    }

    /// Compares conversations with the server's list, and fetches commits that the inbox no longer holds.
    pub(crate) async fn compare_conversations(&self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        let held = self.vault.call(Vault::conversations).await?;
        let listing = match self.list_conversations().await {
            Ok(listing) => listing,
            Err(error) => {
                left.note(Err(error))?;
                return Ok(left);
            }
        };
        if !gureum_proto::mutated(43) {
            self.check_listing(&held, &listing).await?;
        }
        for state in listing.conversations.into_values() {
            // One that cannot be brought forward now holds up no other.
            left.note(self.compare(state).await)?;
        }
        Ok(left)
    }

    async fn compare(&self, state: gureum_proto::ConversationState) -> Result<(), ClientError> {
        let state = Arc::new(state);
        for _ in 0..NEED_STEPS_MAX {
            let shown = Arc::clone(&state);
            match self.vault.call(move |vault| vault.note_conversation(&shown)).await? {
                // Its Welcome may be on its way: whoever waits for it decides when to join without.
                None | Some(Need::Rejoin { .. }) => return Ok(()),
                Some(need @ Need::Account { .. }) => self.meet(need).await?,
                Some(need @ Need::Commits { .. }) => return self.meet(need).await,
            }
        }
        Ok(())
    }

    /// Conversations that the account is in and this device is not.
    pub(crate) async fn absent(&self) -> Result<Vec<ConversationId>, ClientError> {
        let all = self.vault.call(Vault::conversations).await?;
        let absent = all.into_iter().filter(|known| known.state == ConversationStatus::Absent);
        Ok(absent.map(|known| known.id).collect())
    }
}
