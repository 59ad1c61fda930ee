//! Where devices are woken: set, dropped, what each was last woken for, and which are to be woken at once.

use gureum_proto::{AccountId, Code, DeviceId, Refusal};

use super::{Answer, Changed};
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::key::{self, CursorTag, PushTag};
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
    /// What the target before was woken for is none of the new one's. Whoever sets one is there, and has heard what there is.
    pub(super) fn set_push_target(&self, set: &PushTargetPlan, plan: &mut Plan) -> Answer {
        let (account, device) = (set.from.account(), set.from.device());
        if self.store.get(Family::Cursor, key::cursor(&account, &device, CursorTag::Cursor).as_ref())?.is_none() {
            // It was revoked since it asked.
            return Ok(Err(Refusal::new(Code::NotFound)));
        }
        plan.batch.put_record(Family::Push, key::push_target(&account, &device), &set.record);
        plan.batch.delete(Family::Push, key::push_state(&account, &device));
        self.end_alarm(account, device, plan)?;
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
            self.end_alarm(account, device, plan)?;
            plan.untargeted.push((account, device));
            plan.must_sync = true;
        }
        Ok(())
    }

    /// Owes a wake-up to each device of an account that can be woken, whatever its inbox holds: in the batch of what its person
    /// has to know, so that no crash comes between the two.
    pub(super) fn alarm(&self, account: AccountId, now_ms: u64, plan: &mut Plan) -> Result<(), StoreError> {
        for (push_key, _) in self.store.scan(Family::Push, key::push_of(&account).as_range(), usize::MAX)? {
            if let Some((_, device, PushTag::Target)) = key::parse_push(&push_key) {
                plan.batch.put_record(Family::Push, key::push_alarm(&account, &device), &now_ms);
                plan.alarmed.push((account, device, now_ms));
            }
        }
        Ok(())
    }

    fn end_alarm(&self, account: AccountId, device: DeviceId, plan: &mut Plan) -> Result<(), StoreError> {
        let alarm = key::push_alarm(&account, &device);
        if self.store.get(Family::Push, alarm.as_ref())?.is_some() {
            plan.batch.delete(Family::Push, alarm);
        }
        Ok(())
    }

    /// As [`Self::add_pushed`]. What is owed since is owed on.
    pub(in crate::router::plan) fn add_rung(
        &self,
        account: AccountId,
        device: DeviceId,
        owed_ms: u64,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let alarm = key::push_alarm(&account, &device);
        if self.read::<u64>(Family::Push, alarm)? == Some(owed_ms) {
            plan.batch.delete(Family::Push, alarm);
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
