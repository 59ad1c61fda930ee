//! Groups: leaving one, and the device logs of all who are in a conversation.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::limits::MEMBER_LOGS_PAGE_BYTES;
use gureum_proto::{AccountId, Code, ConversationId, MemberLog, Refusal, Response, SignedLeave};

use super::conversations::GROUP_READS_MAX;
use super::{Answer, Failure, Requests, invalid};
use crate::mls::{self, CommitError, FollowedGroup, MlsError, StoredGroup};
use crate::router::{Change, Changed, LeavePlan};
use crate::session::Authenticated;
use crate::store::record::{ConversationHead, Removals};

impl Requests {
    pub(super) async fn leave(
        self: &Arc<Self>,
        from: Authenticated,
        conversation: ConversationId,
        leave: SignedLeave,
    ) -> Answer {
        for _ in 0..GROUP_READS_MAX {
            let statement = leave.clone();
            let plan = self.blocking(move |this| this.plan_leave(from, conversation, statement)).await?;
            let Some(plan) = plan else { return Ok(Response::ConversationLeft) };
            match self.router.change(Change::Leave(plan)).await {
                Ok(Changed::Left) => return Ok(Response::ConversationLeft),
                Ok(_) => return Err(Refusal::new(Code::Internal)),
                // A commit came first: most leave the leaf as it is that the statement is about.
                Err(refusal) if refusal.code == Code::EpochConflict => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::new(Code::EpochConflict))
    }

    /// `None` if the account has left before: the answer got lost.
    fn plan_leave(
        &self,
        from: Authenticated,
        conversation: ConversationId,
        leave: SignedLeave,
    ) -> Result<Option<LeavePlan>, Failure> {
        if self.directory.removals(conversation)?.is_leaving(from.account()) {
            return Ok(None);
        }
        let (head, group_info, tree) = self.member_group(from, conversation)?;
        let stored = StoredGroup { conversation, epoch: head.epoch, group_info: &group_info, tree: &tree };
        let group = self.follow(&stored)?;
        let by = (from.account(), from.device());
        let checked = self.by_logs(|logs| mls::check_leave(&group, &leave, by, logs));
        self.followed.keep(group);
        checked?.map_err(|error| match error {
            CommitError::Stored(error) => unreadable(conversation, &error),
            CommitError::Invalid(why) => invalid(why),
            CommitError::Epoch { .. } => Refusal::new(Code::EpochConflict),
        })?;
        Ok(Some(LeavePlan { from, conversation, epoch: head.epoch, leave }))
    }

    /// The public group of what is stored: as it was verified before, or else read and verified. Whoever takes it puts it
    /// back, or what has become of it.
    pub(super) fn follow(&self, stored: &StoredGroup<'_>) -> Result<FollowedGroup, Refusal> {
        if let Some(group) = self.followed.take(stored) {
            self.metrics.groups_memory.increment(1);
            return Ok(group);
        }
        self.metrics.groups_store.increment(1);
        FollowedGroup::read(stored).map_err(|error| unreadable(stored.conversation, &error))
    }

    pub(super) async fn member_logs(
        self: &Arc<Self>,
        from: Authenticated,
        conversation: ConversationId,
        after: Option<AccountId>,
        pending_only: bool,
    ) -> Answer {
        self.quotas.look_up(from.account())?;
        self.blocking(move |this| {
            let head = this.member_conversation(from, conversation)?;
            let removals = this.directory.removals(conversation)?;
            let accounts = if pending_only { pending(&head, &removals) } else { accounts(&head) };
            let left = accounts.into_iter().filter(|account| after.is_none_or(|after| *account > after));
            let (mut logs, mut bytes, mut more) = (Vec::new(), 0, false);
            for account in left {
                let Some(log) = this.directory.member_log(account)? else { continue };
                let leave = statement(&removals, account);
                bytes += log.log_entries.iter().map(Bytes::len).sum::<usize>();
                bytes += leave.as_ref().map_or(0, |leave| leave.encode().len());
                more = bytes > MEMBER_LOGS_PAGE_BYTES && !logs.is_empty();
                if more {
                    break;
                }
                logs.push(MemberLog { leave, ..log });
            }
            Ok(Response::MemberLogs { logs, more })
        })
        .await
    }
}

/// A bug, or a damaged disk.
pub(super) fn unreadable(conversation: ConversationId, error: &MlsError) -> Refusal {
    tracing::error!(%error, %conversation, "a stored group is not readable");
    Refusal::new(Code::Internal)
}

fn accounts(head: &ConversationHead) -> BTreeSet<AccountId> {
    head.members.iter().map(|member| member.account).collect()
}

/// The accounts of which something is to be removed.
fn pending(head: &ConversationHead, removals: &Removals) -> BTreeSet<AccountId> {
    let revoked = head.members.iter().filter(|member| removals.pending.contains(&member.device));
    revoked.map(|member| member.account).chain(removals.leaving.iter().map(|leaving| leaving.account)).collect()
}

/// What an account has signed that has left.
fn statement(removals: &Removals, account: AccountId) -> Option<SignedLeave> {
    let leaving = removals.leaving.iter().find(|leaving| leaving.account == account)?;
    SignedLeave::decode(leaving.statement.clone()).ok()
}
