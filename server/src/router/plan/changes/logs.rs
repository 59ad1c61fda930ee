//! An entry of a device log: devices come and go, and everybody concerned is told.

use bytes::Bytes;
use gureum_proto::{AccountId, Code, ConversationId, DeviceId, EnvelopeBody, Refusal, SharedEnvelope};

use super::{Answer, Changed};
use crate::limits::KEY_PACKAGES_STORED_MAX;
use crate::router::plan::{Plan, Planner};
use crate::store::key::{self, CursorTag, KeyPackageKind};
use crate::store::record::{Cursor, InboxBody};
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
}

impl Planner {
    pub(super) fn append_log(&mut self, log: &LogPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let account = log.account;
        let entry_key = key::device_log(&account, log.index);
        if self.store.get(Family::DeviceLog, entry_key.as_ref())?.is_some() {
            let detail = "another entry came first; read the log and try again";
            return Ok(Err(Refusal::with_detail(Code::LogInvalid, detail)));
        }
        plan.batch.put_record(Family::DeviceLog, entry_key, &log.entry);
        let head = self.caches.head(self.store.as_ref(), account)?;
        for device in &log.added {
            let cursor = Cursor { seq: head.seq, count: head.count };
            plan.batch.put_record(Family::Cursor, key::cursor(&account, device, CursorTag::Cursor), &cursor);
        }
        for device in &log.revoked {
            plan.batch.delete(Family::Cursor, key::cursor(&account, device, CursorTag::Cursor));
            for kind in [KeyPackageKind::OneTime, KeyPackageKind::LastResort] {
                let range = key::key_packages(&account, device, kind);
                for (old, _) in self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)? {
                    plan.batch.delete(Family::KeyPackage, old);
                }
            }
            plan.revoked.push((account, *device));
        }
        self.await_removals(log, plan)?;
        self.announce_log(log, now_ms, plan)?;
        // Last: announcing may have read the cursors, which change only with this batch.
        self.caches.forget_account(account);
        plan.must_sync = true;
        Ok(Ok(Changed::LogAppended(log.index + 1)))
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

    /// Tells the account itself and everybody who shares a conversation with it that its log has grown.
    fn announce_log(&mut self, log: &LogPlan, now_ms: u64, plan: &mut Plan) -> Result<(), StoreError> {
        let range = key::memberships(&log.account);
        let mut accounts = vec![log.account];
        for (entry, _) in self.store.scan(Family::Directory, range.as_range(), usize::MAX)? {
            let Some((_, conversation)) = key::parse_membership(&entry) else { continue };
            if let Some(conversation) = self.caches.conversation(self.store.as_ref(), conversation)? {
                accounts.extend(conversation.accounts.iter().map(|(account, _)| *account));
            }
        }
        accounts.sort_unstable();
        accounts.dedup();
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
}
