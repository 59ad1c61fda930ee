//! A new conversation, and what every change of a group writes: its state, and Welcomes.

use std::collections::BTreeSet;

use bytes::Bytes;
use gureum_proto::{
    AccountId, Code, ConversationId, ConversationWith, DeviceId, EnvelopeBody, MessageId, Refusal, SharedEnvelope,
};

use super::{Answer, Changed};
use crate::limits::ACCOUNT_CONVERSATIONS_MAX;
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::key::{self, ConversationTag, CursorTag};
use crate::store::record::{ConversationHead, ConversationKind, InboxBody, Member, PreferenceRecord, Removals};
use crate::store::{Family, StoreError};

/// A conversation whose group was validated.
#[derive(Debug)]
pub struct CreatePlan {
    /// Who creates it.
    pub from: Authenticated,
    /// With whom.
    pub with: ConversationWith,
    /// Its id.
    pub conversation: ConversationId,
    /// Its epoch.
    pub epoch: u64,
    /// Its leaves.
    pub members: Vec<Member>,
    /// The GroupInfo of that epoch.
    pub group_info: Bytes,
    /// The tree of that epoch.
    pub tree: Bytes,
    /// The Welcome for the others; empty if there are none.
    pub welcome: Bytes,
}

impl Planner {
    pub(super) fn create(&mut self, create: CreatePlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let from = create.from;
        let pair = match &create.with {
            ConversationWith::Peer(peer) => Some(key::pair(&from.account(), peer)),
            ConversationWith::Own => Some(key::pair(&from.account(), &from.account())),
            ConversationWith::Group(_) => None,
        };
        let earlier = match pair {
            Some(pair) => self.read::<ConversationId>(Family::Directory, &pair)?,
            None => None,
        };
        if let Some(conversation) = earlier {
            let head = self.caches.conversation(self.store.as_ref(), conversation)?;
            let epoch = head.map_or(0, |conversation| conversation.head.epoch);
            return Ok(Ok(Changed::Conversation { conversation, existed: true, epoch }));
        }
        let conversation = create.conversation;
        if let Some(existing) = self.caches.conversation(self.store.as_ref(), conversation)? {
            let epoch = existing.head.epoch;
            // The creation of a group whose answer got lost comes again.
            let is_again = existing.head.kind == ConversationKind::Group
                && create.with.kind() == ConversationKind::Group
                && existing.has(from.account(), from.device());
            return Ok(if is_again {
                Ok(Changed::Conversation { conversation, existed: true, epoch })
            } else {
                Err(Refusal::with_detail(Code::CommitInvalid, "the id belongs to another conversation"))
            });
        }
        if let Some(member) = self.revoked_among(&create.members)? {
            let detail = format!("the device {} was revoked meanwhile", member.device);
            return Ok(Err(Refusal::with_detail(Code::CommitInvalid, detail)));
        }
        let accounts: BTreeSet<_> = create.members.iter().map(|member| member.account).collect();
        if let Some(refusal) = self.full_among(&accounts)? {
            return Ok(Err(refusal));
        }
        if let Some(pair) = pair {
            plan.batch.put_record(Family::Directory, pair, &conversation);
        }
        for account in &accounts {
            plan.batch.put_record(Family::Directory, key::membership(account, &conversation), &());
        }
        // Who begins a conversation wants to hear of it; for the others it is a request.
        let accepted = PreferenceRecord { accepted: true, muted_until_ms: 0 };
        plan.batch.put_record(Family::Directory, key::preference(&from.account(), &conversation), &accepted);
        let head = ConversationHead {
            epoch: create.epoch,
            created_ms: now_ms,
            kind: create.with.kind(),
            members: create.members,
        };
        let welcomed = accounts_but(&head.members, from.device());
        self.put_group(conversation, &head, &create.group_info, &create.tree, plan);
        if !create.welcome.is_empty() {
            self.welcome(from, conversation, &welcomed, create.welcome, now_ms, plan)?;
        }
        plan.must_sync = true;
        Ok(Ok(Changed::Conversation { conversation, existed: false, epoch: create.epoch }))
    }

    pub(super) fn welcome(
        &mut self,
        from: Authenticated,
        conversation: ConversationId,
        accounts: &[AccountId],
        welcome: Bytes,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let id = self.ids.next(now_ms);
        let shared = envelope(from, id, conversation, EnvelopeBody::Welcome(welcome));
        plan.batch.put_record(Family::Welcome, key::message(&id), &shared);
        for account in accounts {
            self.append(*account, id, InboxBody::Welcome, &shared, now_ms, plan)?;
        }
        plan.must_sync = true;
        Ok(())
    }

    /// The first of these devices that has been revoked since it was looked at: it has no cursor any more.
    pub(super) fn revoked_among<'a>(&self, members: &'a [Member]) -> Result<Option<&'a Member>, StoreError> {
        for member in members {
            let cursor = key::cursor(&member.account, &member.device, CursorTag::Cursor);
            if self.store.get(Family::Cursor, cursor.as_ref())?.is_none() {
                return Ok(Some(member));
            }
        }
        Ok(None)
    }

    /// Why these accounts cannot be in one more conversation, if one of them cannot.
    pub(super) fn full_among<'a>(
        &self,
        accounts: impl IntoIterator<Item = &'a AccountId>,
    ) -> Result<Option<Refusal>, StoreError> {
        for account in accounts {
            let range = key::memberships(account);
            let conversations = self.store.scan(Family::Directory, range.as_range(), ACCOUNT_CONVERSATIONS_MAX)?;
            if conversations.len() >= ACCOUNT_CONVERSATIONS_MAX {
                let detail = format!("{account} is in {ACCOUNT_CONVERSATIONS_MAX} conversations, which is the most");
                return Ok(Some(Refusal::with_detail(Code::LimitReached, detail)));
            }
        }
        Ok(None)
    }

    pub(super) fn put_removals(&mut self, id: ConversationId, removals: Removals, plan: &mut Plan) {
        let key = key::conversation(&id, ConversationTag::Removals);
        plan.batch.put_record(Family::Conversation, key, &removals);
        self.caches.replace_removals(id, removals);
    }

    pub(super) fn put_group(
        &mut self,
        id: ConversationId,
        head: &ConversationHead,
        group_info: &Bytes,
        tree: &Bytes,
        plan: &mut Plan,
    ) {
        let family = Family::Conversation;
        plan.batch.put_record(family, key::conversation(&id, ConversationTag::Head), head);
        plan.batch.put_record(family, key::conversation(&id, ConversationTag::Epoch), &head.epoch);
        plan.batch.put_record(family, key::conversation(&id, ConversationTag::GroupInfo), group_info);
        plan.batch.put_record(family, key::conversation(&id, ConversationTag::Tree), tree);
        self.caches.replace_head(id, head);
    }
}

pub(super) fn envelope(from: Authenticated, id: MessageId, conversation: ConversationId, body: EnvelopeBody) -> Bytes {
    SharedEnvelope { message_id: id, conversation, sender_account: from.account(), sender_device: from.device(), body }
        .encode()
}

/// The accounts that have a leaf other than this device's.
pub(super) fn accounts_but(members: &[Member], device: DeviceId) -> Vec<AccountId> {
    let mut accounts: Vec<_> =
        members.iter().filter(|member| member.device != device).map(|member| member.account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts
}
