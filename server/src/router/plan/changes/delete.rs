//! The end of an account: its devices are cut off, and nothing is kept for it any more. Its leaves stay until members
//! remove them, its handle and its log for good: nobody is to be taken for it, and groups that it was in are judged by
//! its log.

use gureum_proto::{AccountId, Code, ConversationId, Handle, Refusal};

use super::{Answer, Changed};
use crate::limits::SCAN_ENTRIES_MAX;
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::key::KeyRange;
use crate::store::{Family, StoreError, key};

impl Planner {
    /// As the operator wants it.
    pub(super) fn delete(&mut self, handle: &Handle, now_ms: u64, plan: &mut Plan) -> Answer {
        let Some(account) = self.read::<AccountId>(Family::Directory, key::handle(handle.as_str()))? else {
            return Ok(Err(Refusal::new(Code::NotFound)));
        };
        if self.is_gone(account)? {
            return Ok(Err(Refusal::new(Code::AccountGone)));
        }
        let devices = self.end_account(account, now_ms, plan)?;
        Ok(Ok(Changed::Deleted { account, devices }))
    }

    /// As its owner wants it.
    pub(super) fn delete_own(&mut self, from: Authenticated, handle: &Handle, now_ms: u64, plan: &mut Plan) -> Answer {
        if let Some(refusal) = self.cut_off_since(from)? {
            return Ok(Err(refusal));
        }
        let account = from.account();
        let own = self.read::<String>(Family::Directory, key::handle_of(&account))?;
        if own.as_deref() != Some(handle.as_str()) {
            let detail = format!("this account is not called {handle}, and nothing was deleted");
            return Ok(Err(Refusal::with_detail(Code::NotFound, detail)));
        }
        let devices = self.end_account(account, now_ms, plan)?;
        Ok(Ok(Changed::Deleted { account, devices }))
    }

    /// Ends an account that exists; returns how many devices were cut off. The last step of a change that reads anything.
    pub(super) fn end_account(
        &mut self,
        account: AccountId,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<usize, StoreError> {
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
        // What is left under its devices, the revoked ones too; and what it has decided.
        for (family, range) in [
            (Family::Cursor, key::cursors(&account)),
            (Family::Sent, key::all_sent(&account)),
            (Family::Push, key::push_of(&account)),
            (Family::KeyPackage, key::account_key_packages(&account)),
            (Family::Directory, key::relations(&account)),
            (Family::Directory, key::preferences(&account)),
        ] {
            self.delete_all(family, &range, plan)?;
        }
        self.end_phone(account, plan)?;
        plan.batch.put_record(Family::Directory, key::gone(&account), &now_ms);
        // Nobody is left to take its inbox: it goes with the next compaction.
        let head = self.caches.change_head(self.store.as_ref(), account)?;
        head.floor = head.last();
        plan.floors.push((account, head.seq));
        self.caches.forget_account(account);
        plan.must_sync = true;
        Ok(devices.len())
    }

    /// However much it is: a log has room for hundreds of devices that came and went, each with its results of sends.
    fn delete_all(&self, family: Family, range: &KeyRange, plan: &mut Plan) -> Result<(), StoreError> {
        let mut start = range.start.as_slice().to_vec();
        loop {
            let page = self.store.scan(family, start.as_slice()..range.end.as_slice(), SCAN_ENTRIES_MAX)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            start = last.to_vec();
            start.push(0);
            page.into_iter().for_each(|(entry, _)| plan.batch.delete(family, entry));
        }
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
