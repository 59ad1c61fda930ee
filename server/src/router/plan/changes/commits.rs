//! The end of an epoch: a compare-and-set.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use gureum_proto::{AccountId, Code, ConversationId, DeviceId, EnvelopeBody, Refusal};

use super::conversations::{accounts_but, envelope};
use super::{Answer, Changed};
use crate::router::plan::{Plan, Planner, sends};
use crate::session::Authenticated;
use crate::store::key::{self, CursorTag};
use crate::store::record::{CommitRecord, ConversationHead, InboxBody, Member, Removals, SentResult};
use crate::store::{Family, StoreError};

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
        if conversation.is_going(from.account(), from.device()) {
            return Ok(Err(Refusal::new(Code::NotMember)));
        }
        let epoch = commit.epoch + 1;
        let head = ConversationHead { epoch, members: commit.members, ..conversation.head.clone() };
        let joined: Vec<_> =
            head.members.iter().filter(|member| !conversation.has(member.account, member.device)).copied().collect();
        let accounts = AccountsChange::new(&conversation.removals, &conversation.head, &head);
        // Whoever was in it reads the commit, the removed included, and the committer's other devices; not who has left,
        // unless this brings them back, nor who does not exist any more.
        let mut readers = accounts_but(&conversation.head.members, from.device());
        let is_told = |account: &AccountId| accounts.returned.contains(account);
        readers.retain(|account| is_told(account) || !conversation.removals.is_leaving(*account));
        readers.retain(|account| !conversation.is_gone(*account));
        let before = conversation.removals.clone();
        let removals = after_commit(&before, &conversation.head, &head, &accounts, &conversation.gone);
        if let Some(member) = self.revoked_among(&joined)? {
            let detail = format!("the device {} was revoked meanwhile", member.device);
            return Ok(Err(Refusal::with_detail(Code::CommitInvalid, detail)));
        }
        if let Some(refusal) = self.full_among(&accounts.added)? {
            return Ok(Err(refusal));
        }
        let removals = self.with_returned(removals, &accounts, &head)?;
        self.put_group(commit.conversation, &head, &commit.group_info, &commit.tree, plan);
        self.put_memberships(commit.conversation, &accounts, now_ms, plan)?;
        if removals != before {
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

/// Which accounts a commit brings into a conversation and out of it.
struct AccountsChange {
    added: BTreeSet<AccountId>,
    /// Those that have left are none of them: they were taken out when they said so.
    removed: BTreeSet<AccountId>,
    /// Accounts that had left, of which the device that said so has no leaf any more, and others have: it is as if they
    /// had not left, for nobody can remove them in their name.
    returned: BTreeSet<AccountId>,
}

impl AccountsChange {
    fn new(removals: &Removals, before: &ConversationHead, after: &ConversationHead) -> Self {
        let accounts = |head: &ConversationHead| -> BTreeSet<_> { head.members.iter().map(|it| it.account).collect() };
        let (was, is) = (accounts(before), accounts(after));
        let has_leaf = |device| after.members.iter().any(|member| member.device == device);
        let returned =
            removals.leaving.iter().filter(|leaving| is.contains(&leaving.account) && !has_leaf(leaving.device));
        Self {
            added: is.difference(&was).copied().collect(),
            removed: was.difference(&is).copied().filter(|account| !removals.is_leaving(*account)).collect(),
            returned: returned.map(|leaving| leaving.account).collect(),
        }
    }
}

impl Planner {
    fn put_memberships(
        &self,
        conversation: ConversationId,
        accounts: &AccountsChange,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        for account in accounts.added.iter().chain(&accounts.returned) {
            plan.batch.put_record(Family::Directory, key::membership(account, &conversation), &());
        }
        for account in &accounts.removed {
            self.end_membership(*account, conversation, now_ms, plan)?;
        }
        Ok(())
    }

    /// Devices of accounts that had left and are in it again, and that were revoked meanwhile, are to be removed; not those
    /// of an account that was deleted.
    fn with_returned(
        &self,
        mut removals: Removals,
        accounts: &AccountsChange,
        head: &ConversationHead,
    ) -> Result<Removals, StoreError> {
        for member in head.members.iter().filter(|member| accounts.returned.contains(&member.account)) {
            let cursor = key::cursor(&member.account, &member.device, CursorTag::Cursor);
            let is_revoked = self.store.get(Family::Cursor, cursor.as_ref())?.is_none();
            if is_revoked && !self.is_gone(member.account)? && !removals.pending.contains(&member.device) {
                removals.pending.push(member.device);
            }
        }
        Ok(removals)
    }
}

/// What is left to be removed, of accounts that were not deleted; and where somebody is gone now, or new people are in it,
/// what was encrypted for before is not taken any more.
fn after_commit(
    removals: &Removals,
    before: &ConversationHead,
    after: &ConversationHead,
    accounts: &AccountsChange,
    gone: &[AccountId],
) -> Removals {
    let stays: HashSet<_> = after.members.iter().map(|member| member.device).collect();
    let of_gone: HashSet<_> =
        after.members.iter().filter(|member| gone.contains(&member.account)).map(|member| member.device).collect();
    let waits = |device: &DeviceId| stays.contains(device) && !of_gone.contains(device);
    let is_gone = before.members.iter().any(|member| !stays.contains(&member.device));
    let is_new = !accounts.added.is_empty();
    Removals {
        floor_epoch: if is_gone || is_new { after.epoch } else { removals.floor_epoch },
        pending: removals.pending.iter().copied().filter(waits).collect(),
        leaving: removals.leaving.iter().filter(|leaving| stays.contains(&leaving.device)).cloned().collect(),
    }
}
