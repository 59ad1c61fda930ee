//! A new account.

use bytes::Bytes;
use gureum_proto::{AccountId, Code, DeviceId, Handle, InviteId, PhoneNotice, Refusal};

use super::{Answer, Changed, PhonePlan};
use crate::router::plan::{Plan, Planner};
use crate::store::key::{self, CursorTag, Key};
use crate::store::record::{Cursor, InboxHead, InviteRecord};
use crate::store::{Family, StoreError};

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
    /// The invite, how often it may be used, and its end; `None` where none is needed.
    pub invite: Option<(InviteId, u32, u64)>,
    /// The phone number, and what is to prove it.
    pub phone: Option<PhonePlan>,
}

/// A registration that nothing speaks against.
struct Admitted {
    /// The invite as it is used.
    invite: Option<(Key, InviteRecord)>,
    /// Whose the phone number has been.
    holder: Option<AccountId>,
    /// Whether that account had the handle as well.
    takes_handle: bool,
}

impl Planner {
    pub(super) fn register(&mut self, register: &RegisterPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let owner = self.read::<AccountId>(Family::Directory, key::handle(register.handle.as_str()))?;
        if owner == Some(register.account) {
            let is_gone = self.is_gone(register.account)?;
            return Ok(if is_gone { Err(Refusal::new(Code::AccountGone)) } else { Ok(Changed::Registered) });
        }
        let admitted = match self.admit(register, owner, now_ms, plan)? {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some((key, record)) = &admitted.invite {
            plan.batch.put_record(Family::Registration, key, record);
        }
        let account = register.account;
        self.find_by_recovery_key(account, None, &register.recovery_key, plan)?;
        match admitted.holder {
            // Who has lost the devices, and comes back under the old name, could not be called by it otherwise.
            Some(holder) if admitted.takes_handle => {
                self.end_account(holder, now_ms, plan)?;
            }
            Some(holder) => self.take_number(holder, now_ms, plan)?,
            None => {}
        }
        put_account(register, plan);
        if let Some(phone) = &register.phone {
            self.give_number(account, phone, PhoneNotice::default(), now_ms, plan);
        }
        plan.must_sync = true;
        Ok(Ok(admitted.holder.map_or(Changed::Registered, |from| Changed::Moved { from })))
    }

    /// Whether an account may be made. The code of a phone number comes before everything that a right one alone may tell:
    /// whose the number is, and that it is locked.
    fn admit(
        &self,
        register: &RegisterPlan,
        owner: Option<AccountId>,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<Result<Admitted, Refusal>, StoreError> {
        let account = register.account;
        if let Some(other) = self.read::<String>(Family::Directory, key::handle_of(&account))? {
            return Ok(Err(if self.is_gone(account)? {
                Refusal::new(Code::AccountGone)
            } else {
                Refusal::with_detail(Code::HandleTaken, format!("this account is registered as {other}"))
            }));
        }
        if owner.is_some() && register.phone.is_none() {
            return Ok(Err(Refusal::new(Code::HandleTaken)));
        }
        let invite = match self.admit_by_invite(register, now_ms)? {
            Ok(invite) => invite,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut holder = None;
        if let Some(phone) = &register.phone {
            if let Some(refusal) = self.check_code(phone, now_ms, plan)? {
                return Ok(Err(refusal));
            }
            holder = self.holder(&phone.number, account)?;
            if owner.is_some() && owner != holder {
                return Ok(Err(Refusal::new(Code::HandleTaken)));
            }
            if let Some(holder) = holder
                && let Some(refusal) = self.check_lock(holder, phone, now_ms, plan)?
            {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(Admitted { invite, holder, takes_handle: owner.is_some() }))
    }

    fn admit_by_invite(
        &self,
        register: &RegisterPlan,
        now_ms: u64,
    ) -> Result<Result<Option<(Key, InviteRecord)>, Refusal>, StoreError> {
        let Some((invite, uses, expires_ms)) = register.invite else { return Ok(Ok(None)) };
        let key = key::registration(&invite);
        let used = self.read::<InviteRecord>(Family::Registration, key)?.map_or(0, |record| record.used);
        Ok(if expires_ms <= now_ms {
            Err(Refusal::new(Code::InviteInvalid))
        } else if used >= uses {
            Err(Refusal::new(Code::InviteUsed))
        } else {
            Ok(Some((key, InviteRecord { used: used + 1, expires_ms })))
        })
    }
}

fn put_account(register: &RegisterPlan, plan: &mut Plan) {
    let account = &register.account;
    plan.batch.put_record(Family::Directory, key::handle(register.handle.as_str()), account);
    plan.batch.put_record(Family::Directory, key::handle_of(account), &register.handle.to_string());
    plan.batch.put_record(Family::DeviceLog, key::device_log(account, 0), &register.root_entry);
    plan.batch.put_record(Family::InboxHead, key::inbox_head(account), &InboxHead::default());
    let cursor = key::cursor(account, &register.device, CursorTag::Cursor);
    plan.batch.put_record(Family::Cursor, cursor, &Cursor::default());
}
