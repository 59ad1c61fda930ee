//! A new account.

use bytes::Bytes;
use gureum_proto::{AccountId, Code, DeviceId, Handle, InviteId, Refusal};

use super::{Answer, Changed};
use crate::router::plan::{Plan, Planner};
use crate::store::Family;
use crate::store::key::{self, CursorTag};
use crate::store::record::{Cursor, InboxHead, InviteRecord};

/// A registration whose root entry holds and whose invite is genuine.
#[derive(Debug)]
pub struct RegisterPlan {
    /// The account and its first device.
    pub account: AccountId,
    /// The first device.
    pub device: DeviceId,
    /// The handle wanted.
    pub handle: Handle,
    /// Entry 0 of the log.
    pub root_entry: Bytes,
    /// The public half of the recovery key that it names.
    pub recovery_key: [u8; 32],
    /// The invite, how often it may be used, and its end; `None` where registration is open.
    pub invite: Option<(InviteId, u32, u64)>,
}

impl Planner {
    pub(super) fn register(&self, register: &RegisterPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let handle = key::handle(register.handle.as_str());
        if let Some(owner) = self.read::<AccountId>(Family::Directory, &handle)? {
            return Ok(if owner != register.account {
                Err(Refusal::new(Code::HandleTaken))
            } else if self.is_gone(owner)? {
                Err(Refusal::new(Code::AccountGone))
            } else {
                Ok(Changed::Registered)
            });
        }
        let account = &register.account;
        if let Some(other) = self.read::<String>(Family::Directory, key::handle_of(account))? {
            return Ok(Err(Refusal::with_detail(Code::HandleTaken, format!("this account is registered as {other}"))));
        }
        if let Some((invite, uses, expires_ms)) = register.invite {
            let key = key::registration(&invite);
            let used = self.read::<InviteRecord>(Family::Registration, &key)?.map_or(0, |record| record.used);
            if expires_ms <= now_ms {
                return Ok(Err(Refusal::new(Code::InviteInvalid)));
            }
            if used >= uses {
                return Ok(Err(Refusal::new(Code::InviteUsed)));
            }
            plan.batch.put_record(Family::Registration, key, &InviteRecord { used: used + 1, expires_ms });
        }
        plan.batch.put_record(Family::Directory, handle, account);
        plan.batch.put_record(Family::Directory, key::handle_of(account), &register.handle.to_string());
        plan.batch.put_record(Family::DeviceLog, key::device_log(account, 0), &register.root_entry);
        self.find_by_recovery_key(*account, None, &register.recovery_key, plan)?;
        plan.batch.put_record(Family::InboxHead, key::inbox_head(account), &InboxHead::default());
        let cursor = key::cursor(account, &register.device, CursorTag::Cursor);
        plan.batch.put_record(Family::Cursor, cursor, &Cursor::default());
        plan.must_sync = true;
        Ok(Ok(Changed::Registered))
    }
}
