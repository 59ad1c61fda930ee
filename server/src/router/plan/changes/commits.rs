//! The end of an epoch: a compare-and-set.

use std::collections::HashSet;

use bytes::Bytes;
use gureum_proto::{AccountId, Code, ConversationId, EnvelopeBody, Refusal};

use super::conversations::{accounts_but, envelope};
use super::{Answer, Changed};
use crate::router::plan::{Plan, Planner, sends};
use crate::session::Authenticated;
use crate::store::Family;
use crate::store::key;
use crate::store::record::{CommitRecord, ConversationHead, InboxBody, Member, Removals, SentResult};

/// A commit that was validated against the group at `epoch`.
#[derive(Debug)]
pub struct CommitPlan {
    /// Who commits.
    pub from: Authenticated,
    /// The device's counter.
    pub counter: u64,
    /// Where.
    pub conversation: ConversationId,
    /// The epoch that it ends.
    pub epoch: u64,
    /// The commit.
    pub commit: Bytes,
    /// The leaves afterwards.
    pub members: Vec<Member>,
    /// Accounts of devices that it adds by Welcome.
    pub welcomed: Vec<AccountId>,
    /// The Welcome; empty if there is none.
    pub welcome: Bytes,
    /// The GroupInfo of the next epoch.
    pub group_info: Bytes,
    /// The tree of the next epoch.
    pub tree: Bytes,
}

impl Planner {
    pub(super) fn commit(&mut self, commit: CommitPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let from = commit.from;
        let window = self.caches.window(self.store.as_ref(), from.account(), from.device())?;
        if let Some(accepted) = sends::answered_before(window, commit.counter) {
            return Ok(Ok(Changed::Committed { epoch: accepted.number }));
        }
        let Some(conversation) = self.caches.conversation(self.store.as_ref(), commit.conversation)? else {
            return Ok(Err(Refusal::new(Code::NotFound)));
        };
        if conversation.head.epoch != commit.epoch {
            return Ok(Err(Refusal::new(Code::EpochConflict)));
        }
        if conversation.removals.pending.contains(&from.device()) {
            return Ok(Err(Refusal::new(Code::NotMember)));
        }
        let epoch = commit.epoch + 1;
        let head = ConversationHead { epoch, members: commit.members, ..conversation.head.clone() };
        // Whoever was in it reads the commit, the removed included, and the committer's other devices.
        let readers: Vec<_> = accounts_but(&conversation.head.members, from.device());
        let joined: Vec<_> =
            head.members.iter().filter(|member| !conversation.has(member.account, member.device)).copied().collect();
        let removals = after_commit(&conversation.removals, &conversation.head, &head);
        let has_changed = removals != conversation.removals;
        if let Some(member) = self.revoked_among(&joined)? {
            let detail = format!("the device {} was revoked meanwhile", member.device);
            return Ok(Err(Refusal::with_detail(Code::CommitInvalid, detail)));
        }
        self.put_group(commit.conversation, &head, &commit.group_info, &commit.tree, plan);
        if has_changed {
            self.put_removals(commit.conversation, removals, plan);
        }
        let record = CommitRecord {
            time_ms: now_ms,
            account: from.account(),
            device: from.device(),
            counter: commit.counter,
            commit: commit.commit.clone(),
        };
        plan.batch.put_record(Family::Commit, key::commit(&commit.conversation, commit.epoch), &record);
        let id = self.ids.next(now_ms);
        let body = EnvelopeBody::Commit { epoch: commit.epoch, commit: commit.commit };
        let shared = envelope(from, id, commit.conversation, body);
        for account in readers {
            let body = InboxBody::Commit { conversation: commit.conversation, epoch: commit.epoch };
            self.append(account, id, body, &shared, now_ms, plan)?;
        }
        if !commit.welcome.is_empty() {
            self.welcome(from, commit.conversation, &commit.welcomed, commit.welcome, now_ms, plan)?;
        }
        self.remember(from, SentResult { counter: commit.counter, id, number: epoch })?;
        plan.must_sync = true;
        Ok(Ok(Changed::Committed { epoch }))
    }
}

/// What is left to be removed; and where somebody is gone now, what was encrypted for before is not taken any more.
fn after_commit(removals: &Removals, before: &ConversationHead, after: &ConversationHead) -> Removals {
    let stays: HashSet<_> = after.members.iter().map(|member| member.device).collect();
    let is_gone = before.members.iter().any(|member| !stays.contains(&member.device));
    let pending = removals.pending.iter().copied().filter(|device| stays.contains(device)).collect();
    Removals { floor_epoch: if is_gone { after.epoch } else { removals.floor_epoch }, pending }
}
