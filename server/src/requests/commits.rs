//! Commits: validated against the group that they change, and the log of those that were.

use std::collections::BTreeSet;
use std::sync::Arc;

use gureum_proto::limits::COMMITS_PAGE_BYTES;
use gureum_proto::{Code, Commits, ConversationId, LeafIdentity, Refusal, Response, SubmitCommit};

use super::groups::unreadable;
use super::{Answer, Failure, Requests, invalid, members};
use crate::limits::COMMITS_SCAN_MAX;
use crate::mls::{self, CommitError, GroupPlace, StoredGroup, Submitted};
use crate::router::{Change, Changed, CommitPlan};
use crate::session::Authenticated;
use crate::store::record::CommitRecord;
use crate::store::{Family, decode, key};
use crate::time::is_expired;

enum Planned {
    Before(u64),
    /// With where the group that it makes is kept, until it is known whether the commit is accepted.
    Now(Box<CommitPlan>, Option<GroupPlace>),
}

impl Requests {
    pub(super) async fn commit(self: &Arc<Self>, from: Authenticated, submit: SubmitCommit) -> Answer {
        let plan = self.blocking(move |this| this.plan_commit(from, submit)).await?;
        let (plan, place) = match plan {
            Planned::Before(epoch) => return Ok(Response::CommitAccepted { epoch }),
            Planned::Now(plan, place) => (plan, place),
        };
        let changed = self.router.change(Change::Commit(*plan)).await;
        if let Some(place) = place {
            match &changed {
                Ok(_) => self.followed.accepted(place),
                Err(_) => self.followed.forget(&place),
            }
        }
        match changed? {
            Changed::Committed { epoch } => Ok(Response::CommitAccepted { epoch }),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    fn plan_commit(&self, from: Authenticated, submit: SubmitCommit) -> Result<Planned, Failure> {
        // A commit whose answer got lost comes again; it would no longer pass against the group that it made.
        let window = self.directory.window(from.account(), from.device())?;
        if let Some(result) = window.find(submit.counter) {
            return Ok(Planned::Before(result.number));
        }
        // Of several that are made at once all but one come too late: no tree is read and verified for those.
        let current = self.member_conversation(from, submit.conversation)?.epoch;
        if submit.epoch != current {
            return Err(epoch_conflict(current).into());
        }
        let (head, group_info, tree) = self.member_group(from, submit.conversation)?;
        let log = self.own_log(from)?;
        let log_entry = log.device(from.device()).ok_or_else(|| Refusal::new(Code::DeviceUnknown))?.added_at;
        let submitted = Submitted {
            epoch: submit.epoch,
            commit: &submit.commit,
            group_info: &submit.group_info,
            sender: LeafIdentity { account: from.account(), device: from.device(), log_entry },
        };
        let conversation = submit.conversation;
        let stored = StoredGroup { conversation, epoch: head.epoch, group_info: &group_info, tree: &tree };
        let mut group = self.follow(&stored)?;
        let applied = self.by_logs(|logs| mls::apply_commit(&mut group, &submitted, logs));
        // Of the epoch that the commit begins, or as it was before; what became of neither is not kept.
        let place = group.place();
        self.followed.keep(group);
        let next = applied?.map_err(|error| match error {
            CommitError::Epoch { current } => epoch_conflict(current),
            CommitError::Invalid(why) => invalid(why),
            CommitError::Stored(error) => unreadable(conversation, &error),
        })?;
        let adds_others = next.added.iter().any(|device| *device != from.device());
        if adds_others && submit.welcome.is_empty() {
            place.iter().for_each(|place| self.followed.forget(place));
            return Err(invalid("it adds devices and brings no Welcome for them").into());
        }
        let welcomed: BTreeSet<_> = next
            .members
            .iter()
            .filter(|member| next.added.contains(&member.identity.device) && member.identity.device != from.device())
            .map(|member| member.identity.account)
            .collect();
        let plan = CommitPlan {
            from,
            counter: submit.counter,
            conversation,
            epoch: submit.epoch,
            commit: submit.commit,
            members: members(&next.members),
            welcomed: welcomed.into_iter().collect(),
            welcome: submit.welcome,
            group_info: next.group_info,
            tree: next.tree,
        };
        Ok(Planned::Now(Box::new(plan), place))
    }

    pub(super) async fn commits(
        self: &Arc<Self>,
        from: Authenticated,
        conversation: ConversationId,
        from_epoch: u64,
    ) -> Answer {
        self.blocking(move |this| {
            let head = this.member_conversation(from, conversation)?;
            let range = key::commits_from(&conversation, from_epoch);
            let now_ms = this.clock.now_ms();
            let mut page = Commits { commits: Vec::new(), epoch: head.epoch, first_epoch: head.epoch };
            let mut bytes = 0;
            for (entry, value) in this.store.scan(Family::Commit, range.as_range(), COMMITS_SCAN_MAX)? {
                let Some((_, epoch)) = key::parse_commit(&entry) else { continue };
                let record: CommitRecord = decode(Family::Commit, &value)?;
                if is_expired(record.time_ms, this.commit_retention_ms, now_ms) {
                    continue;
                }
                if page.commits.is_empty() {
                    page.first_epoch = epoch;
                }
                if epoch != from_epoch + u64::try_from(page.commits.len()).unwrap_or(u64::MAX)
                    || bytes > COMMITS_PAGE_BYTES
                {
                    break;
                }
                bytes += record.commit.len();
                page.commits.push((epoch, record.commit));
            }
            if page.commits.is_empty() && from_epoch < head.epoch {
                return Err(Refusal::new(Code::CommitsGone).into());
            }
            Ok(Response::Commits(page))
        })
        .await
    }
}

fn epoch_conflict(current: u64) -> Refusal {
    Refusal::with_detail(Code::EpochConflict, format!("the conversation is at epoch {current}"))
}
