//! Conversations: begun, listed, and read as whoever is in them may.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::limits::CONVERSATIONS_PAGE;
use gureum_proto::membership::{Expected, Roster, judge_group};
use gureum_proto::{Code, ConversationId, ConversationWith, CreateConversation, Group, Refusal, Response};

use super::{Answer, Failure, Requests, invalid, members};
use crate::mls::{self, GroupMember, GroupView};
use crate::router::{Change, Changed, CreatePlan};
use crate::session::Authenticated;
use crate::store::record::ConversationHead;

/// Roster, GroupInfo and tree.
type GroupParts = (ConversationHead, Bytes, Bytes);

/// The epoch of a group after its creator's first commit.
const FIRST_EPOCH: u64 = 1;
/// Reads of a group that commits may overtake before the reader is told to come again.
pub(super) const GROUP_READS_MAX: usize = 4;

impl Requests {
    pub(super) async fn create(self: &Arc<Self>, from: Authenticated, create: CreateConversation) -> Answer {
        let plan = self.blocking(move |this| this.plan_create(from, create)).await?;
        match self.router.change(Change::Create(plan)).await? {
            Changed::Conversation { conversation, existed, epoch } => {
                Ok(Response::ConversationCreated { conversation, existed, epoch })
            }
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    fn plan_create(&self, from: Authenticated, create: CreateConversation) -> Result<CreatePlan, Failure> {
        let group = mls::open_group(create.conversation, &create.group_info, &create.tree)
            .map_err(|error| invalid(error.to_string()))?;
        if group.epoch != FIRST_EPOCH {
            return Err(invalid("a conversation begins with its creator's first commit").into());
        }
        self.judge_new(from, &create, &group)?;
        let device = from.device();
        let (own, others): (Vec<_>, Vec<_>) = group.members.iter().partition(|member| member.identity.device == device);
        if own.is_empty() {
            return Err(Refusal::new(Code::NotMember).into());
        }
        if others.is_empty() != create.welcome.is_empty() {
            return Err(
                invalid("a Welcome is for who is in it beside the creator, and comes if there is somebody").into()
            );
        }
        Ok(CreatePlan {
            from,
            with: create.with,
            conversation: create.conversation,
            epoch: group.epoch,
            members: members(&group.members),
            group_info: group.group_info,
            tree: group.tree,
            welcome: create.welcome,
        })
    }

    /// Whether a new conversation is of whom it says, and may be begun by this device.
    fn judge_new(&self, from: Authenticated, create: &CreateConversation, group: &GroupView) -> Result<(), Failure> {
        let leaves: Vec<_> = group.members.iter().map(GroupMember::as_leaf).collect();
        let roster = Roster { conversation: create.conversation, leaves: &leaves, state: group.state.as_ref() };
        let accounts = match &create.with {
            ConversationWith::Peer(peer) if *peer == from.account() => {
                return Err(invalid("nobody talks to themselves").into());
            }
            ConversationWith::Peer(peer) => BTreeSet::from([from.account(), *peer]),
            ConversationWith::Own => BTreeSet::from([from.account()]),
            ConversationWith::Group(accounts) => accounts.iter().copied().collect(),
        };
        let expected = match &create.with {
            ConversationWith::Peer(_) | ConversationWith::Own => Expected::Accounts(&accounts),
            ConversationWith::Group(_) => Expected::Group(from.account()),
        };
        let verdict = self.by_logs(|logs| judge_group(&roster, expected, logs))?;
        mls::allowed(verdict).map_err(|error| invalid(error.to_string()))?;
        if roster.accounts() != accounts {
            return Err(invalid("the accounts in it are not those named").into());
        }
        if roster.state.is_some() && !roster.admins().contains(&from.account()) {
            return Err(invalid("who makes a group is one of its admins").into());
        }
        Ok(())
    }

    pub(super) async fn group(self: &Arc<Self>, from: Authenticated, conversation: ConversationId) -> Answer {
        self.blocking(move |this| {
            let (head, group_info, tree) = this.member_group(from, conversation)?;
            Ok(Response::Group(Group { epoch: head.epoch, group_info, tree }))
        })
        .await
    }

    pub(super) async fn list(self: &Arc<Self>, from: Authenticated, after: Option<ConversationId>) -> Answer {
        self.blocking(move |this| {
            let mut conversations = this.directory.conversations(from.account(), after, CONVERSATIONS_PAGE + 1)?;
            let more = conversations.len() > CONVERSATIONS_PAGE;
            conversations.truncate(CONVERSATIONS_PAGE);
            Ok(Response::Conversations { conversations, more })
        })
        .await
    }

    /// The conversation, if the account is in it: a device of the account whose leaf is missing may rejoin. Who has left is
    /// in it no more, whether its leaves are removed yet or not.
    pub(super) fn member_conversation(
        &self,
        from: Authenticated,
        conversation: ConversationId,
    ) -> Result<ConversationHead, Failure> {
        let head = self.directory.conversation(conversation)?.ok_or_else(|| Refusal::new(Code::NotFound))?;
        let is_member = self.directory.is_member(from.account(), conversation)?;
        if is_member { Ok(head) } else { Err(Refusal::new(Code::NotMember).into()) }
    }

    /// The same with its GroupInfo and tree, all three of one epoch.
    pub(super) fn member_group(
        &self,
        from: Authenticated,
        conversation: ConversationId,
    ) -> Result<GroupParts, Failure> {
        for _ in 0..GROUP_READS_MAX {
            let head = self.member_conversation(from, conversation)?;
            let parts = self.directory.group(conversation)?;
            let (group_info, tree) = parts.ok_or_else(|| Refusal::new(Code::NotFound))?;
            // A commit replaces the three in one batch: unless the epoch has moved on, all were of it.
            if self.member_conversation(from, conversation)?.epoch == head.epoch {
                return Ok((head, group_info, tree));
            }
        }
        Err(Refusal::new(Code::EpochConflict).into())
    }
}
