//! What an account has decided about others and about its conversations: whom it hears of while it is away.

use gureum_proto::{AccountId, Code, ConversationId, Refusal, Relation};

use super::{Answer, Changed};
use crate::limits::RELATIONS_MAX;
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::record::PreferenceRecord;
use crate::store::{Family, StoreError, key};

impl Planner {
    pub(super) fn set_conversation(
        &self,
        from: Authenticated,
        conversation: ConversationId,
        preference: PreferenceRecord,
        plan: &mut Plan,
    ) -> Answer {
        if let Some(refusal) = self.cut_off_since(from)? {
            return Ok(Err(refusal));
        }
        let account = from.account();
        if self.store.get(Family::Directory, key::membership(&account, &conversation).as_ref())?.is_none() {
            return Ok(Err(Refusal::new(Code::NotMember)));
        }
        let key = key::preference(&account, &conversation);
        let before = self.read::<PreferenceRecord>(Family::Directory, key)?;
        if before.unwrap_or_default() == preference {
            return Ok(Ok(Changed::Done));
        }
        if preference == PreferenceRecord::default() {
            plan.batch.delete(Family::Directory, key);
        } else {
            plan.batch.put_record(Family::Directory, key, &preference);
        }
        plan.must_sync = true;
        Ok(Ok(Changed::Done))
    }

    /// That there is such an account is not asked: what a device has decided while it was away holds, whoever has been
    /// deleted since.
    pub(super) fn set_relation(
        &mut self,
        from: Authenticated,
        other: AccountId,
        relation: Relation,
        plan: &mut Plan,
    ) -> Answer {
        if let Some(refusal) = self.cut_off_since(from)? {
            return Ok(Err(refusal));
        }
        let account = from.account();
        if other == account {
            return Ok(Err(Refusal::with_detail(Code::NotFound, "an account decides nothing about itself")));
        }
        let key = key::relation(&account, &other);
        let before = self.read::<Relation>(Family::Directory, key)?.unwrap_or(Relation::None);
        if before == relation {
            return Ok(Ok(Changed::Done));
        }
        let count = self.caches.relations(self.store.as_ref(), account)?;
        match (before, relation) {
            (_, Relation::None) => {
                *count = count.saturating_sub(1);
                plan.batch.delete(Family::Directory, key);
            }
            (Relation::None, _) if *count >= RELATIONS_MAX => {
                let detail = format!("an account accepts and blocks at most {RELATIONS_MAX} others");
                return Ok(Err(Refusal::with_detail(Code::LimitReached, detail)));
            }
            (was, _) => {
                *count += usize::from(was == Relation::None);
                plan.batch.put_record(Family::Directory, key, &relation);
            }
        }
        plan.must_sync = true;
        Ok(Ok(Changed::Done))
    }

    /// An account is no longer in a conversation: what it has decided about that goes as well.
    pub(super) fn end_membership(
        &self,
        account: AccountId,
        conversation: ConversationId,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        plan.batch.delete(Family::Directory, key::membership(&account, &conversation));
        plan.batch.put_record(Family::Directory, key::left(&account), &now_ms);
        let preference = key::preference(&account, &conversation);
        if self.store.get(Family::Directory, preference.as_ref())?.is_some() {
            plan.batch.delete(Family::Directory, preference);
        }
        Ok(())
    }
}
