//! A server that has gone back: what it shows is held against what this device has seen, and the way on from there.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::{Code, ConversationId, ConversationState, HelloClaim, Position, Request, Response};

use super::{ClientError, Sync};
use crate::limits::{LIFE_BITS, LISTING_PAGES_MAX};
use crate::link::LinkError;
use crate::vault::{Continuity, Conversation, ConversationStatus, QueueError, RejoinError, Resolved, Target, Vault};

/// What this device had seen when it connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// How far it has taken its inbox.
    pub(crate) cursor: Position,
    /// Entries of its own device log.
    pub(crate) log_entries: u64,
}

impl From<&HelloClaim> for Seen {
    fn from(claim: &HelloClaim) -> Self {
        Self { cursor: claim.cursor, log_entries: claim.log_entries }
    }
}

/// The conversations of an account, as the server has them.
pub(super) struct Listing {
    pub(super) conversations: BTreeMap<ConversationId, ConversationState>,
    /// Whether these are all of them.
    pub(super) is_whole: bool,
}

/// Whether the server has gone back to a backup since this device took its inbox: then the inbox goes on in another
/// life, or, if the same backup was restored before, perhaps behind what was taken.
pub(super) const fn went_back(head: Position, cursor: Position) -> bool {
    head.seq >> LIFE_BITS != cursor.seq >> LIFE_BITS || head.seq < cursor.seq
}

impl Sync {
    /// Everything that the server says of this account's conversations.
    pub(super) async fn list_conversations(&self) -> Result<Listing, ClientError> {
        let (mut after, mut conversations) = (None, BTreeMap::new());
        for _ in 0..LISTING_PAGES_MAX {
            let Response::Conversations { conversations: page, more } =
                self.link.request(&Request::ListConversations { after }).await?
            else {
                return Err(ClientError::Mismatched);
            };
            let last = page.last().map(|state| state.conversation);
            conversations.extend(page.into_iter().map(|state| (state.conversation, state)));
            if !more || last <= after {
                return Ok(Listing { conversations, is_whole: !more });
            }
            after = last;
        }
        Ok(Listing { conversations, is_whole: false })
    }

    /// Holds a listing against what this device had before it asked for it.
    pub(super) async fn check_listing(&self, held: &[Conversation], listing: &Listing) -> Result<(), ClientError> {
        for held in held {
            let shown = listing.conversations.get(&held.id).map(|state| state.epoch);
            if shown.is_some() || listing.is_whole {
                let (id, epoch) = (held.id, held.epoch_held());
                self.vault.call(move |vault| vault.note_server_epoch(id, epoch, shown)).await?;
            }
        }
        if listing.is_whole {
            let listed: BTreeSet<_> = listing.conversations.keys().copied().collect();
            self.vault.call(move |vault| vault.note_listing(&listed)).await?;
        }
        Ok(())
    }

    /// Fails where the server shows an epoch below one that this device had before it asked.
    pub(super) async fn check_epoch(
        &self,
        conversation: ConversationId,
        held: u64,
        shown: Option<u64>,
    ) -> Result<(), ClientError> {
        match self.vault.call(move |vault| vault.note_server_epoch(conversation, held, shown)).await? {
            Some(gone_back) => Err(gone_back.into()),
            None => Ok(()),
        }
    }

    /// Holds all conversations against what the server has, whatever their epochs' numbers: one of the others may have
    /// gone on from where the server has gone back to.
    pub(super) async fn check_all(&self) -> Result<(), ClientError> {
        let held = self.vault.call(Vault::conversations).await?;
        let listing = self.list_conversations().await?;
        self.check_listing(&held, &listing).await?;
        self.leave_again(&listing).await?;
        for held in held.into_iter().filter(|held| listing.conversations.contains_key(&held.id)) {
            let id = held.id;
            match self.check(held).await {
                // Else it would go on unchecked: the next connection checks again.
                Err(error) if !error.is_confined() || error.is_refused_for_now() => return Err(error),
                Err(error) => tracing::warn!(%error, conversation = %id, "cannot be checked"),
                Ok(()) => (),
            }
        }
        Ok(())
    }

    /// Says again that this account has left groups, where the server lists it in them: it has lost that.
    async fn leave_again(&self, listing: &Listing) -> Result<(), ClientError> {
        let own = self.identity.account;
        let lists_own = |state: &&ConversationState| state.accounts.contains(&own);
        let listed: BTreeSet<_> =
            listing.conversations.values().filter(lists_own).map(|state| state.conversation).collect();
        for leave in self.vault.call(move |vault| vault.left_by_itself(&listed)).await? {
            let conversation = leave.leave().conversation;
            let answer = self.link.request(&Request::LeaveConversation { conversation, leave }).await;
            match answer.map_err(ClientError::from) {
                Ok(Response::ConversationLeft) => (),
                Ok(_) => return Err(ClientError::Mismatched),
                Err(error) if !error.is_confined() || error.is_refused_for_now() => return Err(error),
                // This device has another leaf there, of before the one that it has left by.
                Err(error) => tracing::warn!(%error, %conversation, "cannot say again that this account has left"),
            }
        }
        Ok(())
    }

    async fn check(&self, held: Conversation) -> Result<(), ClientError> {
        let conversation = held.id;
        if !matches!(held.state, ConversationStatus::Active | ConversationStatus::Ahead) {
            return Ok(());
        }
        let Response::Group(group) = self.link.request(&Request::ReadGroup { conversation }).await? else {
            return Err(ClientError::Mismatched);
        };
        let before = held.clone();
        let Continuity::Later { from_epoch } = self.vault.call(move |vault| vault.check_group(&before, &group)).await?
        else {
            return Ok(());
        };
        match self.link.request(&Request::ReadCommits { conversation, from_epoch }).await {
            Ok(Response::Commits(page)) => self.vault.call(move |vault| vault.check_commits(&held, &page)).await,
            Ok(_) => Err(ClientError::Mismatched),
            // Nobody can say any more: this device rejoins, and says so.
            Err(LinkError::Refused(refusal)) if refusal.code == Code::CommitsGone => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Goes on from where the server has gone back to in the conversation with somebody or in a group, which a person has
    /// decided. Returns whether there was anything to do.
    pub(crate) async fn restart(&self, with: &Target) -> Result<bool, ClientError> {
        let name = with.clone();
        let held = match self.vault.call(move |vault| vault.resolve(&name)).await? {
            Resolved::Id(known) | Resolved::Group(known) => Some(known),
            Resolved::Contact(contact) => {
                self.vault.call(move |vault| vault.conversation_with(contact.account)).await?
            }
            Resolved::Unknown => None,
        };
        let held = held.ok_or_else(|| ClientError::NoConversation(with.to_string()))?;
        let (id, peer) = (held.id, held.peer);
        match held.state {
            ConversationStatus::Ahead => (),
            ConversationStatus::Forked => return Err(QueueError::Stopped.into()),
            _ => return Ok(false),
        }
        match self.check(held).await {
            Err(ClientError::Link(LinkError::Refused(refusal)))
                if matches!(refusal.code, Code::NotFound | Code::NotMember) =>
            {
                // Of a group it would take KeyPackages of everybody, and an admin to decide it.
                let Some(peer) = peer else { return Err(ClientError::GroupGone(with.to_string())) };
                // Maybe it no longer knows the account either, and has another one under its handle.
                if let Some(contact) = self.vault.call(move |vault| vault.contact(peer)).await? {
                    self.find(&contact.handle).await?;
                }
                self.begin(peer, Some(id)).await?;
                return Ok(true);
            }
            checked => checked?,
        }
        if self.vault.call(move |vault| vault.gone_back(id)).await?.is_none() {
            return Ok(false);
        }
        if self.join(id, |_| Vault::restart).await? { Ok(true) } else { Err(RejoinError::Raced.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_life_of_the_inbox_and_one_that_is_behind_are_noticed() {
        let at = |seq| Position { seq, count: 0 };
        assert!(!went_back(at(0), at(0)) && !went_back(at(9), at(4)) && !went_back(at(9), at(9)));
        assert!(went_back(at(1 << LIFE_BITS), at(9)), "restored");
        assert!(went_back(at(8), at(9)), "put back by other means");
        assert!(!went_back(at((1 << LIFE_BITS) + 2), at(1 << LIFE_BITS)), "since then nothing");
    }
}
