//! The lives of devices: each connection leads to the next, and of two copies one alone goes on.

use gureum_proto::{Code, Life, LifeToken, Refusal};

use super::changes::{Answer, Changed};
use super::{Plan, Planner};
use crate::session::{Authenticated, Standing, judge};
use crate::store::StoreError;

impl Planner {
    /// Judged once more: what the session knew may be older than what is queued. Lost by a crash it does no harm, since
    /// what a device claims then is ahead.
    pub(super) fn add_life(&mut self, from: Authenticated, claim: &Life) -> Result<(), StoreError> {
        let life = self.caches.life(self.store.as_ref(), from.account(), from.device())?;
        if judge(life, claim) == Standing::GoesOn {
            life.go_on(claim.generation, claim.next);
            self.caches.touch_life(from.account(), from.device());
        }
        Ok(())
    }

    pub(super) fn take_over(&mut self, from: Authenticated, next: LifeToken, plan: &mut Plan) -> Answer {
        let (account, device) = (from.account(), from.device());
        let accepted_counter = self.caches.window(self.store.as_ref(), account, device)?.highest;
        let life = self.caches.life(self.store.as_ref(), account, device)?;
        if life.lost.contains(&next) {
            // Another copy has taken over since its Hello: two that ask in turns must not end each other.
            return Ok(Err(Refusal::new(Code::DeviceCopied)));
        }
        let has_changed = life.take_over(next);
        let generation = life.generation;
        if has_changed {
            self.caches.touch_life(account, device);
            // Else the copy that is not to go on might go on after a crash.
            plan.must_sync = true;
        }
        Ok(Ok(Changed::TakenOver { generation, accepted_counter }))
    }
}
