//! The end of an account: its devices are cut off, and nothing is kept for it any more. Its leaves stay until members
//! remove them, its handle and its log for good: nobody is to be taken for it, and groups that it was in are judged by
//! its log.

use gureum_proto::{AccountId, Code, ConversationId, Handle, Refusal};

use super::{Answer, Changed};
use crate::router::plan::{Plan, Planner};
use crate::store::{Family, StoreError, key};

impl Planner {
    pub(super) fn delete(&mut self, handle: &Handle, now_ms: u64, plan: &mut Plan) -> Answer {
        let Some(account) = self.read::<AccountId>(Family::Directory, key::handle(handle.as_str()))? else {
            return Ok(Err(Refusal::new(Code::NotFound)));
        };
        if self.is_gone(account)? {
            return Ok(Err(Refusal::new(Code::AccountGone)));
        }
        let cursors = self.caches.cursors(self.store.as_ref(), account)?;
        let devices: Vec<_> = cursors.devices.iter().map(|(device, _)| *device).collect();
        for device in &devices {
            self.cut_off(account, *device, Code::AccountGone, plan)?;
        }
        let range = key::memberships(&account);
        for (entry, _) in self.store.scan(Family::Directory, range.as_range(), usize::MAX)? {
            if let Some((_, conversation)) = key::parse_membership(&entry) {
                self.await_no_more(conversation, account, plan)?;
                self.caches.note_gone(conversation, account);
            }
        }
        plan.batch.put_record(Family::Directory, key::gone(&account), &now_ms);
        self.caches.change_devices(account, Vec::new(), &devices);
        plan.must_sync = true;
        Ok(Ok(Changed::Deleted { account, devices: devices.len() }))
    }

    /// The removal of an account's revoked devices is not waited for any more: they can read nothing, and where the account
    /// has no other leaf, no KeyPackage ever comes by which a commit would leave it one.
    fn await_no_more(&mut self, id: ConversationId, account: AccountId, plan: &mut Plan) -> Result<(), StoreError> {
        let Some(conversation) = self.caches.conversation(self.store.as_ref(), id)? else { return Ok(()) };
        let mut removals = conversation.removals.clone();
        removals.pending.retain(|device| !conversation.has(account, *device));
        if removals != conversation.removals {
            self.put_removals(id, removals, plan);
        }
        Ok(())
    }

    /// Whether an account was deleted.
    pub(super) fn is_gone(&self, account: AccountId) -> Result<bool, StoreError> {
        Ok(self.store.get(Family::Directory, key::gone(&account).as_ref())?.is_some())
    }
}
