//! An entry of a device log: devices come and go, and everybody concerned is told.

use std::collections::BTreeSet;

use bytes::Bytes;
use gureum_proto::{
    AccountId, Code, ConversationId, DeviceId, DeviceLog, EnvelopeBody, LogChange, Refusal, SharedEnvelope,
};

use super::{Answer, Changed};
use crate::limits::{ANNOUNCED_ACCOUNTS_MAX, KEY_PACKAGES_STORED_MAX};
use crate::router::plan::caches::Conversation;
use crate::router::plan::{Plan, Planner};
use crate::store::key::{self, CursorTag, KeyPackageKind};
use crate::store::record::{ConversationKind, Cursor, InboxBody};
use crate::store::{Family, StoreError};

/// A device-log entry that was validated against the log of `index` entries.
#[derive(Debug)]
pub struct LogPlan {
    /// Whose log.
    pub account: AccountId,
    /// Who appends.
    pub from: DeviceId,
    /// The entry's index.
    pub index: u64,
    /// The signed entry.
    pub entry: Bytes,
    /// Devices that it adds.
    pub added: Vec<DeviceId>,
    /// Devices that it revokes.
    pub revoked: Vec<DeviceId>,
    /// The recovery keys before and after, where it replaces the one by the other.
    pub recovery_keys: Option<([u8; 32], [u8; 32])>,
}

impl LogPlan {
    /// The plan of an entry that has made one log out of another.
    #[must_use]
    pub fn new(before: &DeviceLog, after: &DeviceLog, from: DeviceId, entry: Bytes, change: LogChange) -> Self {
        let (added, revoked) = match change {
            LogChange::Added(device) => (vec![device], Vec::new()),
            LogChange::Revoked(device) => (Vec::new(), vec![device]),
            LogChange::RecoveryRotated => (Vec::new(), Vec::new()),
            LogChange::Recovered { added, revoked } => (vec![added], revoked),
        };
        let keys = (before.recovery_key().to_bytes(), after.recovery_key().to_bytes());
        Self {
            account: before.account(),
            from,
            index: before.length(),
            entry,
            added,
            revoked,
            recovery_keys: (keys.0 != keys.1).then_some(keys),
        }
    }
}

impl Planner {
    pub(super) fn append_log(&mut self, log: &LogPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let account = log.account;
        if self.is_gone(account)? {
            return Ok(Err(Refusal::new(Code::AccountGone)));
        }
        let entry_key = key::device_log(&account, log.index);
        if self.store.get(Family::DeviceLog, entry_key.as_ref())?.is_some() {
            let detail = "another entry came first; read the log and try again";
            return Ok(Err(Refusal::with_detail(Code::LogInvalid, detail)));
        }
        plan.batch.put_record(Family::DeviceLog, entry_key, &log.entry);
        let head = self.caches.head(self.store.as_ref(), account)?;
        let cursor = Cursor { seq: head.seq, count: head.count };
        for device in &log.added {
            plan.batch.put_record(Family::Cursor, key::cursor(&account, device, CursorTag::Cursor), &cursor);
        }
        if let Some((before, after)) = &log.recovery_keys {
            self.find_by_recovery_key(account, Some(before), after, plan)?;
        }
        for device in &log.revoked {
            self.cut_off(account, *device, Code::DeviceRevoked, plan)?;
        }
        self.await_removals(log, plan)?;
        self.announce_log(log, now_ms, plan)?;
        // Last: announcing may have read the cursors, which change only with this batch.
        let added = log.added.iter().map(|device| (*device, cursor)).collect();
        self.caches.change_devices(account, added, &log.revoked);
        plan.must_sync = true;
        Ok(Ok(Changed::LogAppended(log.index + 1)))
    }

    /// Ends what a device could still do: it has no cursor and no KeyPackages, is woken nowhere, and its sessions end with
    /// the code that says why.
    pub(super) fn cut_off(
        &self,
        account: AccountId,
        device: DeviceId,
        why: Code,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        for tag in [CursorTag::Cursor, CursorTag::Seen, CursorTag::LastResort] {
            plan.batch.delete(Family::Cursor, key::cursor(&account, &device, tag));
        }
        for kind in [KeyPackageKind::OneTime, KeyPackageKind::LastResort] {
            let range = key::key_packages(&account, &device, kind);
            for (old, _) in self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)? {
                plan.batch.delete(Family::KeyPackage, old);
            }
        }
        self.untarget(account, device, plan)?;
        plan.revoked.push((account, device, why));
        Ok(())
    }

    /// Lets an account be found by a recovery key. A key that leads to another account goes on to do so: who holds it
    /// has used it twice.
    pub(super) fn find_by_recovery_key(
        &self,
        account: AccountId,
        before: Option<&[u8; 32]>,
        after: &[u8; 32],
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let owner = |recovery_key: &[u8; 32]| self.read::<AccountId>(Family::Directory, key::recovery(recovery_key));
        if let Some(before) = before
            && owner(before)? == Some(account)
        {
            plan.batch.delete(Family::Directory, key::recovery(before));
        }
        if owner(after)?.is_none() {
            plan.batch.put_record(Family::Directory, key::recovery(after), &account);
        }
        Ok(())
    }

    /// In conversations that a revoked device is in, nothing is taken until it has been removed: it could read that.
    fn await_removals(&mut self, log: &LogPlan, plan: &mut Plan) -> Result<(), StoreError> {
        if log.revoked.is_empty() {
            return Ok(());
        }
        let range = key::memberships(&log.account);
        for (entry, _) in self.store.scan(Family::Directory, range.as_range(), usize::MAX)? {
            let Some((_, id)) = key::parse_membership(&entry) else { continue };
            let Some(conversation) = self.caches.conversation(self.store.as_ref(), id)? else { continue };
            let mut removals = conversation.removals.clone();
            removals.pending.extend(log.revoked.iter().filter(|device| conversation.has(log.account, **device)));
            if removals != conversation.removals {
                self.put_removals(id, removals, plan);
            }
        }
        Ok(())
    }

    /// Tells the account itself and those who share a conversation with it that its log has grown.
    fn announce_log(&mut self, log: &LogPlan, now_ms: u64, plan: &mut Plan) -> Result<(), StoreError> {
        let accounts = self.concerned(log.account)?;
        let id = self.ids.next(now_ms);
        let shared = SharedEnvelope {
            message_id: id,
            conversation: ConversationId::from_bytes([0; 16]),
            sender_account: log.account,
            sender_device: log.from,
            body: EnvelopeBody::LogChange { log_entries: log.index + 1 },
        }
        .encode();
        for account in accounts {
            self.append(account, id, InboxBody::DeviceLog { account: log.account }, &shared, now_ms, plan)?;
        }
        Ok(())
    }

    /// The account itself, whom it talks with alone, and whom it shares groups with, until they are too many: the rest
    /// learns of a revocation when it is refused a message.
    fn concerned(&mut self, account: AccountId) -> Result<BTreeSet<AccountId>, StoreError> {
        let (mut accounts, mut groups) = (BTreeSet::from([account]), Vec::new());
        let range = key::memberships(&account);
        for (entry, _) in self.store.scan(Family::Directory, range.as_range(), usize::MAX)? {
            let Some((_, id)) = key::parse_membership(&entry) else { continue };
            let Some(conversation) = self.caches.conversation(self.store.as_ref(), id)? else { continue };
            match conversation.head.kind {
                ConversationKind::Direct | ConversationKind::Own => add_some(&mut accounts, conversation),
                ConversationKind::Group => groups.push(id),
            }
        }
        for id in groups {
            if let Some(conversation) = self.caches.conversation(self.store.as_ref(), id)? {
                add_some(&mut accounts, conversation);
            }
        }
        Ok(accounts)
    }
}

fn add_some(accounts: &mut BTreeSet<AccountId>, conversation: &Conversation) {
    for (account, _) in &conversation.accounts {
        if accounts.len() >= ANNOUNCED_ACCOUNTS_MAX {
            return;
        }
        if !conversation.is_gone(*account) {
            accounts.insert(*account);
        }
    }
}
