//! Conversations: begun, confirmed, and compared with what the server lists.

use std::sync::Arc;

use gureum_proto::{AccountId, Code, ConversationId, CreateConversation, Refusal, Request, Response};

use super::{ClientError, Left, Sync};
use crate::limits::NEED_STEPS_MAX;
use crate::link::LinkError;
use crate::vault::{BeginError, Contact, Conversation, ConversationStatus, Need, Resolved, Target, Vault};

impl Sync {
    /// The conversation that a target stands for; one with somebody is begun if there is none. It may be one that this
    /// device has yet to join.
    pub(crate) async fn conversation(&self, target: &Target) -> Result<Conversation, ClientError> {
        let is_known = match target.handle() {
            Some(handle) => self.vault.call(move |vault| vault.contact_by_handle(&handle)).await?.is_some(),
            None => false,
        };
        match self.resolve(target).await? {
            Resolved::Id(known) | Resolved::Group(known) => Ok(known),
            Resolved::Contact(contact) => self.conversation_with(*contact, is_known).await,
            Resolved::Unknown => Err(ClientError::NoConversation(target.to_string())),
        }
    }

    /// `is_known`: the contact was known here before, and not looked up just now.
    async fn conversation_with(&self, contact: Contact, is_known: bool) -> Result<Conversation, ClientError> {
        let peer = contact.account;
        if peer == self.identity.account {
            return Err(BeginError::Oneself.into());
        }
        let known = move |vault: &mut Vault| vault.conversation_with(peer);
        match self.vault.call(known).await? {
            Some(known) if known.state != ConversationStatus::Creating => return Ok(known),
            Some(begun) => self.confirm_creation(begun.id).await?,
            None => {
                if is_known {
                    // Who begins is told of a handle that has moved since it was looked up.
                    self.find(&contact.handle).await?;
                }
                self.begin(peer, None).await?;
            }
        }
        let begun = self.vault.call(known).await?;
        begun.ok_or_else(|| ClientError::Stuck("a conversation that was begun is not there".to_owned()))
    }

    /// Begins a conversation, perhaps in the place of one that the server no longer knows.
    pub(super) async fn begin(&self, peer: AccountId, instead_of: Option<ConversationId>) -> Result<(), ClientError> {
        // By themselves, and first: while they have none, each attempt would use up one of each own device.
        let theirs: Vec<_> = self.claim(vec![peer]).await?.of(peer).collect();
        if theirs.is_empty() {
            return Err(LinkError::Refused(Refusal::new(Code::KeyPackagesExhausted)).into());
        }
        let ours = if self.has_other_devices().await? { self.claim_own().await? } else { Vec::new() };
        let create = self.vault.call(move |vault| match instead_of {
            None => vault.begin_conversation(peer, &theirs, &ours),
            Some(lost) => vault.begin_anew(lost, &theirs, &ours),
        });
        let create = create.await?;
        self.create(create).await
    }

    pub(super) async fn create(&self, create: CreateConversation) -> Result<(), ClientError> {
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
    pub(super) async fn confirm_creations(&self) -> Result<Left, ClientError> {
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
        self.check_listing(&held, &listing).await?;
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
                Some(need @ Need::Commits { .. }) => {
                    self.meet(need).await?;
                    // They may have put the account out, and what is listed is that it was added again.
                    let shown = Arc::clone(&state);
                    return self.vault.call(move |vault| vault.note_conversation(&shown)).await.map(drop);
                }
                Some(need @ (Need::Removal { .. } | Need::Members { .. })) => return self.meet(need).await,
            }
        }
        Ok(())
    }

    /// Conversations that the account is in and this device is not, the one with the newest message first.
    pub(crate) async fn absent(&self) -> Result<Vec<ConversationId>, ClientError> {
        self.vault.call(Vault::absent).await
    }
}
