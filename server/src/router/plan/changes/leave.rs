//! An account leaves a group: from then on it gets nothing of it, and whoever commits next removes its leaves.

use gureum_proto::{Code, ConversationId, EnvelopeBody, Refusal, SignedLeave};

use super::conversations::envelope;
use super::{Answer, Changed};
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::record::{ConversationKind, InboxBody, Leaving};
use crate::store::{Family, key};

/// A statement that was validated against the group at `epoch`.
#[derive(Debug)]
pub struct LeavePlan {
    /// Whose device says so.
    pub from: Authenticated,
    /// What its account leaves.
    pub conversation: ConversationId,
    /// The epoch.
    pub epoch: u64,
    /// What it has signed.
    pub leave: SignedLeave,
}

impl Planner {
    pub(super) fn leave(&mut self, leave: LeavePlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let (from, id) = (leave.from, leave.conversation);
        let Some(conversation) = self.caches.conversation(self.store.as_ref(), id)? else {
            return Ok(Err(Refusal::new(Code::NotFound)));
        };
        let is_cut_off = conversation.removals.pending.contains(&from.device()) || conversation.is_gone(from.account());
        if !conversation.has(from.account(), from.device()) || is_cut_off {
            return Ok(Err(Refusal::new(Code::NotMember)));
        }
        if conversation.removals.is_leaving(from.account()) {
            return Ok(Ok(Changed::Left));
        }
        if conversation.head.kind != ConversationKind::Group {
            return Ok(Err(Refusal::with_detail(Code::CommitInvalid, "the conversation is no group")));
        }
        if conversation.head.epoch != leave.epoch {
            // The device may have another leaf since, which the statement does not name.
            return Ok(Err(Refusal::new(Code::EpochConflict)));
        }
        // Its own account reads it where it has another device.
        let readers: Vec<_> = conversation
            .accounts
            .iter()
            .filter(|(account, devices)| *account != from.account() || *devices > 1)
            .map(|(account, _)| *account)
            .filter(|account| !conversation.removals.is_leaving(*account) && !conversation.is_gone(*account))
            .collect();
        let mut removals = conversation.removals.clone();
        let statement = leave.leave.encode();
        removals.leaving.push(Leaving { account: from.account(), device: from.device(), statement });
        self.put_removals(id, removals, plan);
        self.end_membership(from.account(), id, now_ms, plan)?;

        let message_id = self.ids.next(now_ms);
        let shared = envelope(from, message_id, id, EnvelopeBody::Leave(leave.leave));
        plan.batch.put_record(Family::Welcome, key::message(&message_id), &shared);
        for account in readers {
            self.append(account, message_id, InboxBody::Leave, &shared, now_ms, plan)?;
        }
        plan.must_sync = true;
        Ok(Ok(Changed::Left))
    }
}
