//! Whom this account hears of: requests accepted, people blocked, conversations muted.

use std::time::Duration;

use gureum_proto::{AccountId, ConversationId, Relation};

use super::Client;
use super::error::ClientError;
use super::sync::Told;
use crate::vault::{Conversation, MessageRequest, Muted, Resolved, Target, Vault};

/// What is decided here holds here at once, and needs no server. The sessions that run tell it and the other devices at
/// once; without any, the next one does, or [`Client::tell_decisions`].
impl Client {
    /// Conversations that others have begun and nobody has accepted, the one with the newest message last. What comes in them
    /// wakes nobody.
    ///
    /// # Errors
    /// The database failed.
    pub async fn message_requests(&self) -> Result<Vec<MessageRequest>, ClientError> {
        self.vault.call(Vault::message_requests).await
    }

    /// The conversation that a target stands for, if there is one here.
    ///
    /// # Errors
    /// Several groups are called that.
    pub async fn conversation(&self, target: &Target) -> Result<Option<Conversation>, ClientError> {
        let target = target.clone();
        let known = move |vault: &mut Vault| match vault.resolve(&target)? {
            Resolved::Id(known) | Resolved::Group(known) => Ok(Some(known)),
            Resolved::Contact(contact) => Ok::<_, ClientError>(vault.conversation_with(contact.account)?),
            Resolved::Unknown => Ok(None),
        };
        self.vault.call(known).await
    }

    /// Accepts a conversation, and whom it is with. Whoever writes in one, accepts it by that.
    ///
    /// # Errors
    /// It is not known here.
    pub async fn accept(&self, conversation: ConversationId) -> Result<(), ClientError> {
        self.decide(move |vault| vault.accept(conversation)).await
    }

    /// How this account stands to another.
    ///
    /// # Errors
    /// The database failed.
    pub async fn relation(&self, account: AccountId) -> Result<Relation, ClientError> {
        self.vault.call(move |vault| vault.relation(account)).await
    }

    /// Decides how this account stands to another. Of one that is blocked nothing is shown and nothing wakes, and nothing goes
    /// to it; it is not told.
    ///
    /// # Errors
    /// It is this account itself.
    pub async fn set_relation(&self, account: AccountId, relation: Relation) -> Result<(), ClientError> {
        self.decide(move |vault| vault.set_relation(account, relation)).await
    }

    /// Whom this account has blocked, with what they are known by here.
    ///
    /// # Errors
    /// The database failed.
    pub async fn blocked(&self) -> Result<Vec<(AccountId, String)>, ClientError> {
        self.vault.call(Vault::blocked).await
    }

    /// Mutes a conversation for so long, or until it is unmuted: what is said there meanwhile wakes nobody. Returns until
    /// when, in milliseconds since 1970, if that is known.
    ///
    /// # Errors
    /// It is not known here.
    pub async fn mute(
        &self,
        conversation: ConversationId,
        how_long: Option<Duration>,
    ) -> Result<Option<u64>, ClientError> {
        let now_ms = (self.ground.clock)();
        let until_ms =
            how_long.map(|time| now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).max(1));
        self.decide(move |vault| vault.mute(conversation, until_ms)).await?;
        Ok(until_ms)
    }

    /// What is said in a conversation wakes again.
    ///
    /// # Errors
    /// It is not known here.
    pub async fn unmute(&self, conversation: ConversationId) -> Result<(), ClientError> {
        self.decide(move |vault| vault.mute(conversation, Some(0))).await
    }

    /// The conversations that are muted now.
    ///
    /// # Errors
    /// The database failed.
    pub async fn muted(&self) -> Result<Vec<Muted>, ClientError> {
        self.vault.call(Vault::muted).await
    }

    /// Tells the server what was decided and it has not heard, on a connection of its own.
    ///
    /// # Errors
    /// It cannot be reached, or wants to be left alone: the next session tells the rest.
    pub async fn tell_decisions(&self) -> Result<(), ClientError> {
        let (link, _events, _ready) = self.link(&self.dialer()?, false).await?;
        let sync = self.sync(link);
        let told = loop {
            match sync.tell_decisions().await {
                Ok(Told::More) => (),
                Ok(Told::All) => break Ok(()),
                Ok(Told::Later(error)) => break Err(error.into()),
                Err(error) => break Err(error),
            }
        };
        sync.link.close().await;
        told
    }
}
