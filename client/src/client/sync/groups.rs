//! Groups: what a person wants of one is kept in the vault, and carried out commit by commit.

use std::collections::BTreeMap;

use bytes::Bytes;
use gureum_proto::{AccountId, Code, ConversationId, DeviceId, Handle, Request, Response};

use super::commits::Submitted;
use super::{ClientError, Sync};
use crate::limits::REMOVAL_RACES_MAX;
use crate::link::LinkError;
use crate::vault::{Contact, GroupError, Intent, IntentId, Leaving, Target, Vault};

/// What a person wants of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupCommand {
    /// There is one of that name, with these people.
    Create {
        /// What it is called: 1 to 128 bytes on one line.
        name: String,
        /// Who is in it besides this account.
        who: Vec<Handle>,
    },
    /// These people are in it.
    Add {
        /// Which group.
        group: Target,
        /// Whom.
        who: Vec<Handle>,
    },
    /// These people are not in it.
    Remove {
        /// Which group.
        group: Target,
        /// Whom.
        who: Vec<Handle>,
    },
    /// This account is not in it.
    Leave {
        /// Which group.
        group: Target,
    },
    /// It is called that.
    Rename {
        /// Which group.
        group: Target,
        /// 1 to 128 bytes on one line.
        name: String,
    },
    /// These people are its admins, besides those who are.
    Promote {
        /// Which group.
        group: Target,
        /// Whom.
        who: Vec<Handle>,
    },
    /// These people are not.
    Demote {
        /// Which group.
        group: Target,
        /// Whom.
        who: Vec<Handle>,
    },
}

impl GroupCommand {
    /// The group that it changes, if it is there already.
    pub(crate) const fn group(&self) -> Option<&Target> {
        match self {
            Self::Create { .. } => None,
            Self::Add { group, .. }
            | Self::Remove { group, .. }
            | Self::Leave { group }
            | Self::Rename { group, .. }
            | Self::Promote { group, .. }
            | Self::Demote { group, .. } => Some(group),
        }
    }
}

/// What came of a [`GroupCommand`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAnswer {
    /// The group.
    pub conversation: ConversationId,
    /// What it is called.
    pub name: String,
    /// Of whom it is so as was wanted, in the order in which they were named.
    pub done: Vec<Handle>,
    /// Of whom it is not, and why not.
    pub failed: Vec<(Handle, String)>,
    /// Why the group itself is not as was wanted, if it is not.
    pub refused: Option<String>,
}

type Found = Vec<(Handle, AccountId)>;
type Failed = Vec<(Handle, String)>;

/// What a claim has brought of an account, and for what.
struct Claimed {
    account: AccountId,
    intents: Vec<IntentId>,
    packages: Vec<(DeviceId, Bytes)>,
}

/// A command that is kept in the vault.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) conversation: ConversationId,
    /// What was kept, and whom it concerns.
    pub(crate) intents: Vec<(Option<Handle>, IntentId)>,
    /// Who is not known on the server, or not believed.
    pub(crate) failed: Failed,
}

/// What an attempt to carry out what is wanted in a group has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pursued {
    /// There is nothing to be done now.
    Idle,
    /// A commit of this device was accepted; there may be more to do.
    Accepted,
    /// It was refused, and is tried again with less in it.
    Divided,
    /// Somebody was faster, in this epoch.
    Lost { epoch: u64 },
}

impl Sync {
    /// Keeps what a command wants; leaving is done at once.
    pub(crate) async fn begin_command(&self, command: GroupCommand) -> Result<Begun, ClientError> {
        match command {
            GroupCommand::Create { name, who } => self.begin_group(name, who).await,
            GroupCommand::Leave { group } => {
                let conversation = self.group(&group).await?;
                self.leave(conversation).await?;
                Ok(Begun { conversation, intents: Vec::new(), failed: Vec::new() })
            }
            GroupCommand::Rename { group, name } => {
                let conversation = self.group(&group).await?;
                let rename = vec![Intent::Rename(name)];
                let ids = self.vault.call(move |vault| vault.intend(conversation, &rename)).await?;
                let intents = ids.into_iter().map(|id| (None, id)).collect();
                Ok(Begun { conversation, intents, failed: Vec::new() })
            }
            GroupCommand::Add { group, who } => {
                let conversation = self.group(&group).await?;
                let found = self.ask_for_all(who).await?;
                self.begin_change(conversation, found, Intent::Add).await
            }
            GroupCommand::Remove { group, who } => self.begin_change_of(&group, who, Intent::Remove).await,
            GroupCommand::Promote { group, who } => self.begin_change_of(&group, who, Intent::Promote).await,
            GroupCommand::Demote { group, who } => self.begin_change_of(&group, who, Intent::Demote).await,
        }
    }

    /// The group is made with this account alone: what makes it cannot fail over anybody else.
    async fn begin_group(&self, name: String, who: Vec<Handle>) -> Result<Begun, ClientError> {
        let (found, failed) = self.ask_for_all(who).await?;
        let mut wanted: Vec<_> = found.iter().map(|(_, account)| Intent::Add(*account)).collect();
        if self.has_other_devices().await? {
            wanted.push(Intent::Add(self.identity.account));
        }
        let (create, ids) = self.vault.call(move |vault| vault.begin_group(&name, &wanted)).await?;
        let conversation = create.conversation;
        self.create(create).await.map_err(|error| match error {
            // It is asked for again on the next connection: another one of that name is not wanted.
            ClientError::Link(lost) if !lost.is_final() => ClientError::ChangeKept(Box::new(lost.into())),
            error => error,
        })?;
        let handles = found.into_iter().map(|(handle, _)| Some(handle)).chain(std::iter::repeat(None));
        Ok(Begun { conversation, intents: handles.zip(ids).collect(), failed })
    }

    /// A change of people who are in the group: whoever is known here by a handle is meant by it.
    async fn begin_change_of(
        &self,
        group: &Target,
        who: Vec<Handle>,
        intent: fn(AccountId) -> Intent,
    ) -> Result<Begun, ClientError> {
        let conversation = self.group(group).await?;
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for handle in who {
            let contact = self.contact(&handle).await;
            sort_in(handle, contact, &mut found, &mut failed)?;
        }
        self.begin_change(conversation, (found, failed), intent).await
    }

    async fn begin_change(
        &self,
        conversation: ConversationId,
        (found, failed): (Found, Failed),
        intent: fn(AccountId) -> Intent,
    ) -> Result<Begun, ClientError> {
        let wanted: Vec<_> = found.iter().map(|(_, account)| intent(*account)).collect();
        let ids = self.vault.call(move |vault| vault.intend(conversation, &wanted)).await?;
        let intents = found.into_iter().map(|(handle, _)| Some(handle)).zip(ids).collect();
        Ok(Begun { conversation, intents, failed })
    }

    async fn group(&self, target: &Target) -> Result<ConversationId, ClientError> {
        let name = target.clone();
        let known = self.vault.call(move |vault| vault.resolve_group(&name)).await?;
        known.map(|known| known.id).ok_or_else(|| GroupError::NoGroup(target.to_string()).into())
    }

    /// The accounts of some handles as the server has them now, and of whom there is none: whoever brings somebody in is told
    /// first of a handle that has moved since it was looked up. Where the server wants to be left alone, those who are known
    /// here are meant; they come last, so that a repeated command gets further among the others.
    async fn ask_for_all(&self, who: Vec<Handle>) -> Result<(Found, Failed), ClientError> {
        let handles = who.clone();
        let known = self.vault.call(move |vault| vault.contacts_by_handle(&handles)).await?;
        let (known, unknown): (Vec<_>, Vec<_>) = who.into_iter().zip(known).partition(|(_, known)| known.is_some());
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for (handle, known) in unknown.into_iter().chain(known) {
            let contact = match self.find(&handle).await {
                Err(error) if error.is_refused_for_now() => known.ok_or(error),
                contact => contact,
            };
            sort_in(handle, contact, &mut found, &mut failed)?;
        }
        Ok((found, failed))
    }

    /// Makes the next commit that carries out what is wanted in a group.
    pub(crate) async fn pursue(&self, conversation: ConversationId) -> Result<Pursued, ClientError> {
        self.claim_for_intents(conversation).await?;
        let Some(commit) = self.vault.call(move |vault| vault.commit_intents(conversation)).await? else {
            return Ok(Pursued::Idle);
        };
        let epoch = commit.epoch;
        Ok(match self.submit(commit).await? {
            Submitted::Accepted => Pursued::Accepted,
            Submitted::Divided => Pursued::Divided,
            Submitted::Lost => Pursued::Lost { epoch },
        })
    }

    /// Claims KeyPackages of those who are to be added, by their device logs as they are now, or were a moment ago. Where the
    /// server wants to be left alone, what it has given will do for a commit.
    async fn claim_for_intents(&self, conversation: ConversationId) -> Result<(), ClientError> {
        let wanting = self.vault.call(move |vault| vault.intents_without_packages(conversation)).await?;
        let mut open = BTreeMap::new();
        for (intent, account) in wanting {
            let learned =
                if self.looked_up.is_fresh(account) { Ok(()) } else { self.learn_account(account).await.map(drop) };
            match learned {
                Ok(()) => open.entry(account).or_insert_with(Vec::new).push(intent),
                Err(error) if error.is_refused_for_now() && !open.is_empty() => break,
                Err(error) if error.is_confined() && !error.is_refused_for_now() => {
                    self.give_up_intents(vec![intent], error.to_string()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.claim_all(open).await
    }

    /// All at once, and again those of whom the answer had no room to tell. One who cannot be claimed now is no reason to
    /// leave the others: then each is asked for alone.
    async fn claim_all(&self, mut open: BTreeMap<AccountId, Vec<IntentId>>) -> Result<(), ClientError> {
        let (mut alone, mut has_claimed, mut waits) = (false, false, None);
        while let Some(first) = open.keys().next().copied() {
            let asked = if alone { vec![first] } else { open.keys().copied().collect() };
            match self.claim_if_any(asked.clone()).await {
                Ok(claimed) => {
                    let mut answered = Vec::new();
                    for account in asked {
                        let packages: Vec<_> = claimed.of(account).collect();
                        if !packages.is_empty() || claimed.missing.contains(&account) {
                            let intents = open.remove(&account).unwrap_or_default();
                            answered.push(Claimed { account, intents, packages });
                        }
                    }
                    if answered.is_empty() {
                        return Err(ClientError::Mismatched);
                    }
                    let (keeps_any, waiting) = self.put_claimed(answered).await?;
                    has_claimed |= keeps_any;
                    waits = waiting.or(waits);
                }
                Err(error) if !error.is_confined() && !error.is_refused_for_now() => return Err(error),
                Err(_) if asked.len() > 1 => alone = true,
                Err(error) => {
                    let intents = open.remove(&first).unwrap_or_default();
                    if error.is_refused_for_now() {
                        waits = Some(error);
                    } else {
                        self.give_up_intents(intents, error.to_string()).await?;
                    }
                }
            }
        }
        match waits {
            Some(error) if !has_claimed => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps what one claim has brought. A device that is not in the log as it is held here may have been added after its
    /// account was looked up: then that is looked up again first. Returns whether there is any to be kept, and why some have
    /// to wait, if they have.
    async fn put_claimed(&self, claimed: Vec<Claimed>) -> Result<(bool, Option<ClientError>), ClientError> {
        let of = |claimed: &Claimed| {
            let account = claimed.account;
            claimed.packages.iter().map(move |(device, _)| (account, *device)).collect::<Vec<_>>()
        };
        let devices: Vec<_> = claimed.iter().flat_map(of).collect();
        let unlisted = self.vault.call(move |vault| vault.unlisted(&devices)).await?;
        let (mut kept, mut waits) = (Vec::new(), None);
        for Claimed { account, intents, packages } in claimed {
            if unlisted.contains(&account) {
                match self.learn_account(account).await {
                    Ok(_) => (),
                    // They are claimed again.
                    Err(error) if error.is_refused_for_now() => {
                        waits = Some(error);
                        continue;
                    }
                    Err(error) if error.is_confined() => {
                        self.give_up_intents(intents, error.to_string()).await?;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            kept.extend(intents.into_iter().map(|intent| (intent, packages.clone())));
        }
        let keeps_any = kept.iter().any(|(_, packages)| !packages.is_empty());
        self.vault.call(move |vault| vault.put_packages(&kept)).await?;
        Ok((keeps_any, waits))
    }

    async fn give_up_intents(&self, intents: Vec<IntentId>, why: String) -> Result<(), ClientError> {
        self.vault.call(move |vault| intents.iter().try_for_each(|intent| vault.give_up_intent(*intent, &why))).await
    }

    /// Leaves a group: from the answer on the server gives this account nothing more of it.
    async fn leave(&self, conversation: ConversationId) -> Result<(), ClientError> {
        // The statement names the leaf that this device has, and an older copy of it has another.
        if self.vault.call(Vault::rejoins_due).await?.contains(&conversation) {
            self.rejoin(conversation).await?;
        }
        // A last resort may bring this device in again with the very leaf that it came in with now: a statement that names
        // another one is void then.
        if let Err(error) = self.renew_first(conversation).await {
            let error = error.confined()?;
            tracing::warn!(%error, %conversation, "leaving with the keys of a KeyPackage");
        }
        for _ in 0..REMOVAL_RACES_MAX {
            match self.vault.call(move |vault| vault.leave(conversation)).await? {
                Leaving::After(commit) => {
                    let epoch = commit.epoch;
                    if self.submit(commit).await? == Submitted::Lost {
                        self.fetch_commits(conversation, epoch, None).await?;
                    }
                }
                Leaving::By(leave) => {
                    let request = Request::LeaveConversation { conversation, leave: leave.clone() };
                    match self.link.request(&request).await {
                        Ok(Response::ConversationLeft) => (),
                        Ok(_) => return Err(ClientError::Mismatched),
                        // It was asked for before, or an admin was faster.
                        Err(LinkError::Refused(refusal)) if refusal.code == Code::NotMember => (),
                        // Others commit all the time. The statement is about this device's leaf, which that leaves as it is.
                        Err(LinkError::Refused(refusal)) if refusal.code == Code::EpochConflict => continue,
                        Err(error) => return Err(error.into()),
                    }
                    return self.vault.call(move |vault| vault.left(&leave)).await;
                }
            }
        }
        Err(ClientError::Stuck("others change the group faster than this device can".to_owned()))
    }
}

/// Puts somebody who was looked for to those who were found, or to the others.
fn sort_in(
    handle: Handle,
    contact: Result<Contact, ClientError>,
    found: &mut Found,
    failed: &mut Failed,
) -> Result<(), ClientError> {
    match contact {
        Ok(contact) => found.push((handle, contact.account)),
        Err(error) if is_about_whom(&error) => failed.push((handle, error.to_string())),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether it concerns the one person who was looked for, and nobody else.
fn is_about_whom(error: &ClientError) -> bool {
    matches!(error, ClientError::Nobody(_)) || (matches!(error, ClientError::Trust(_)) && error.is_confined())
}
