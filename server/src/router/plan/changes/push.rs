//! Where devices are woken: set, dropped, and what each was last woken for.

use gureum_proto::{AccountId, Code, DeviceId, Refusal};

use super::{Answer, Changed};
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::key::{self, CursorTag};
use crate::store::record::{PushStateRecord, PushTargetRecord};
use crate::store::{Family, StoreError};

/// A target that was checked and sealed.
#[derive(Debug)]
pub struct PushTargetPlan {
    /// Whose.
    pub from: Authenticated,
    /// The target.
    pub record: PushTargetRecord,
}

impl Planner {
    /// What the target before was woken for is none of the new one's.
    pub(super) fn set_push_target(&self, set: &PushTargetPlan, plan: &mut Plan) -> Answer {
        let (account, device) = (set.from.account(), set.from.device());
        if self.store.get(Family::Cursor, key::cursor(&account, &device, CursorTag::Cursor).as_ref())?.is_none() {
            // It was revoked since it asked.
            return Ok(Err(Refusal::new(Code::NotFound)));
        }
        plan.batch.put_record(Family::Push, key::push_target(&account, &device), &set.record);
        plan.batch.delete(Family::Push, key::push_state(&account, &device));
        plan.must_sync = true;
        Ok(Ok(Changed::Done))
    }

    /// A refusal of the service is about the target that was refused: one that was set meanwhile stays.
    pub(super) fn drop_push_target(
        &self,
        account: AccountId,
        device: DeviceId,
        generation: Option<u64>,
        plan: &mut Plan,
    ) -> Answer {
        if let Some(generation) = generation {
            let target = self.read::<PushTargetRecord>(Family::Push, key::push_target(&account, &device))?;
            if target.is_none_or(|target| target.generation != generation) {
                return Ok(Ok(Changed::Done));
            }
        }
        self.untarget(account, device, plan)?;
        Ok(Ok(Changed::Done))
    }

    /// Wakes a device nowhere any more.
    pub(super) fn untarget(&self, account: AccountId, device: DeviceId, plan: &mut Plan) -> Result<(), StoreError> {
        let target = key::push_target(&account, &device);
        if self.store.get(Family::Push, target.as_ref())?.is_some() {
            plan.batch.delete(Family::Push, target);
            plan.batch.delete(Family::Push, key::push_state(&account, &device));
            plan.untargeted.push((account, device));
            plan.must_sync = true;
        }
        Ok(())
    }

    /// Need not survive a crash of the machine: what is lost of it wakes a device once more.
    pub(in crate::router::plan) fn add_pushed(
        &self,
        account: AccountId,
        device: DeviceId,
        state: &PushStateRecord,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        if self.store.get(Family::Push, key::push_target(&account, &device).as_ref())?.is_some() {
            plan.batch.put_record(Family::Push, key::push_state(&account, &device), state);
        }
        Ok(())
    }
}
