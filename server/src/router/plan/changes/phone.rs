//! Phone numbers: codes that prove them, whose they are, and the lock that keeps one from moving to another account.
//!
//! Nothing here tells who has not proven a number whether it is anybody's: a code is compared before anything else is
//! looked at, and a wrong one, one that has expired, one that is used up and none at all are answered alike.

use std::fmt;

use blake3::Hash;
use gureum_proto::{AccountId, Code, LockSecret, PhoneNotice, Refusal};

use super::{Answer, Changed};
use crate::limits::{CODE_MS, CODE_TRIES_MAX, DAY_MS, LOCK_CLOSED_MS, LOCK_MS, LOCK_TRIES_MAX, LOCK_TRY_NOTED_MS};
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::key::{self, CursorTag, NumberHash};
use crate::store::record::{CodeRecord, LockRecord, NumberRecord, PhoneRecord, SpentRecord};
use crate::store::{Family, StoreError, decode};

/// Somebody shows a phone number.
pub struct PhonePlan {
    /// The number, hashed.
    pub number: NumberHash,
    /// The code, hashed with the number.
    pub code: [u8; 32],
    /// Opens the lock of whose the number is, and locks it for whose it will be.
    pub lock: Option<LockSecret>,
    /// Whether others may find the account by the number.
    pub findable: bool,
    /// Whose the number is, if a device of that account is connected now.
    pub present: Option<AccountId>,
}

/// Tells no hash: whoever has a secret could try numbers against it.
impl fmt::Debug for PhonePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhonePlan").field("findable", &self.findable).finish_non_exhaustive()
    }
}

/// What becomes of an account's phone number.
#[derive(Debug)]
pub enum PhoneChangePlan {
    /// The account has this one from now on.
    Set(PhonePlan),
    /// Others may find the account by its number, or may not.
    Findable(bool),
    /// The account has no number any more.
    Remove,
}

/// A code that is about to be sent.
pub struct CodePlan {
    /// The number, hashed.
    pub number: NumberHash,
    /// The code, hashed with the number.
    pub hash: [u8; 32],
    /// The day, counted from 1970.
    pub day: u32,
    /// How many codes may be sent on one.
    pub day_max: u32,
}

/// As that of [`PhonePlan`].
impl fmt::Debug for CodePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodePlan").field("day", &self.day).field("day_max", &self.day_max).finish_non_exhaustive()
    }
}

impl Planner {
    /// The code before it is void; the day's count is in the same batch, so that no crash gives more than a day's codes.
    pub(super) fn store_code(&self, code: &CodePlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let spent_key = key::spent(code.day);
        let spent = self.read::<SpentRecord>(Family::Code, spent_key)?.map_or(0, |spent| spent.count);
        let next_day_ms = (u64::from(code.day) + 1) * DAY_MS;
        if spent >= code.day_max {
            let detail = "no more codes are sent today";
            let wait_ms = next_day_ms.saturating_sub(now_ms).max(1);
            return Ok(Err(Refusal::with_detail(Code::RateLimited, detail).retry_after_ms(wait_ms)));
        }
        let spent = spent + 1;
        let record = SpentRecord { expires_ms: next_day_ms + DAY_MS, count: spent };
        plan.batch.put_record(Family::Code, spent_key, &record);
        let record =
            CodeRecord { expires_ms: now_ms + CODE_MS, hash: code.hash, tries_left: CODE_TRIES_MAX, sent_ms: now_ms };
        plan.batch.put_record(Family::Code, key::code(&code.number), &record);
        plan.must_sync = true;
        Ok(Ok(Changed::CodeStored { spent }))
    }

    pub(super) fn set_phone(
        &self,
        from: Authenticated,
        change: &PhoneChangePlan,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Answer {
        if let Some(refusal) = self.cut_off_since(from)? {
            return Ok(Err(refusal));
        }
        let account = from.account();
        let own = self.read::<PhoneRecord>(Family::Directory, key::phone_of(&account))?;
        let number = own.as_ref().and_then(|own| own.number);
        let notice = own.map(|own| own.notice).unwrap_or_default();
        match (change, number) {
            (PhoneChangePlan::Set(phone), Some(number)) if number == phone.number => {
                // Maybe a repetition, whose code is used up. Whoever acts for the account may change all of this anyway.
                put_number(&number, account, phone.findable, plan);
                self.lock(account, phone.lock.as_ref(), plan);
                Ok(Ok(Changed::Done))
            }
            (PhoneChangePlan::Set(phone), before) => self.move_number(account, before, phone, notice, now_ms, plan),
            (PhoneChangePlan::Findable(findable), Some(number)) => {
                put_number(&number, account, *findable, plan);
                Ok(Ok(Changed::Done))
            }
            (PhoneChangePlan::Findable(_), None) => Ok(Err(without_number())),
            (PhoneChangePlan::Remove, Some(number)) => {
                plan.batch.delete(Family::Directory, key::number(&number));
                self.put_without_number(account, notice, now_ms, plan)?;
                Ok(Ok(Changed::Done))
            }
            (PhoneChangePlan::Remove, None) => Ok(Ok(Changed::Done)),
        }
    }

    /// Gives an account a number that it does not have, and takes the one that it has.
    fn move_number(
        &self,
        account: AccountId,
        before: Option<NumberHash>,
        phone: &PhonePlan,
        notice: PhoneNotice,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Answer {
        if let Some(refusal) = self.check_code(phone, now_ms, plan)? {
            return Ok(Err(refusal));
        }
        let holder = self.holder(&phone.number, account)?;
        if let Some(holder) = holder {
            if let Some(refusal) = self.check_lock(holder, phone, now_ms, plan)? {
                return Ok(Err(refusal));
            }
            self.take_number(holder, now_ms, plan)?;
        }
        if let Some(before) = before {
            plan.batch.delete(Family::Directory, key::number(&before));
            // What a PIN makes of it depends on the number: nothing would open the lock any more.
            self.delete_lock(account, plan)?;
        }
        self.give_number(account, phone, notice, now_ms, plan);
        Ok(Ok(holder.map_or(Changed::Done, |from| Changed::Moved { from })))
    }

    pub(super) fn set_lock(&self, from: Authenticated, hash: Option<[u8; 32]>, plan: &mut Plan) -> Answer {
        if let Some(refusal) = self.cut_off_since(from)? {
            return Ok(Err(refusal));
        }
        let account = from.account();
        if let Some(hash) = hash {
            let own = self.read::<PhoneRecord>(Family::Directory, key::phone_of(&account))?;
            if own.is_none_or(|own| own.number.is_none()) {
                return Ok(Err(without_number()));
            }
            plan.batch.put_record(Family::Directory, key::lock_of(&account), &fresh_lock(hash));
        } else {
            self.delete_lock(account, plan)?;
        }
        plan.must_sync = true;
        Ok(Ok(Changed::Done))
    }

    /// Why a code proves nothing; each wrong one costs a try. A right one is used up by [`Self::give_number`] alone, so that
    /// who is refused for something else may try that again.
    pub(super) fn check_code(
        &self,
        phone: &PhonePlan,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<Option<Refusal>, StoreError> {
        if self.hasher.is_none() {
            return Ok(Some(Refusal::new(Code::PhoneUnavailable)));
        }
        let code_key = key::code(&phone.number);
        let sent = self.read::<CodeRecord>(Family::Code, code_key)?;
        let Some(sent) = sent.filter(|sent| sent.expires_ms > now_ms && sent.tries_left > 0) else {
            return Ok(Some(Refusal::new(Code::CodeInvalid)));
        };
        if is_same(&sent.hash, &phone.code) {
            return Ok(None);
        }
        let record = CodeRecord { tries_left: sent.tries_left - 1, ..sent };
        plan.batch.put_record(Family::Code, code_key, &record);
        plan.must_sync = true;
        Ok(Some(Refusal::new(Code::CodeInvalid)))
    }

    /// The account other than this one whose a number is.
    pub(super) fn holder(&self, number: &NumberHash, but: AccountId) -> Result<Option<AccountId>, StoreError> {
        match self.read::<NumberRecord>(Family::Directory, key::number(number))? {
            Some(record) if record.account != but && !self.is_gone(record.account)? => Ok(Some(record.account)),
            _ => Ok(None),
        }
    }

    /// Why an account keeps its number, by its registration lock. Asked only once the code has proven to be right.
    ///
    /// The lock holds for as long after a device of the account was last seen, rather than after the attempt: nobody whose
    /// devices live is robbed, and who has lost all of them waits from their last use on.
    pub(super) fn check_lock(
        &self,
        holder: AccountId,
        phone: &PhonePlan,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<Option<Refusal>, StoreError> {
        let Some(lock) = self.read::<LockRecord>(Family::Directory, key::lock_of(&holder))? else { return Ok(None) };
        let seen_ms = if phone.present == Some(holder) { now_ms } else { self.last_seen_ms(holder)? };
        let wait_ms = seen_ms.saturating_add(LOCK_MS).saturating_sub(now_ms);
        if wait_ms == 0 {
            return Ok(None);
        }
        let closed = |until_ms: u64| {
            // Sooner than the PIN counts again, the number may be free.
            Refusal::new(Code::PhoneLockClosed).retry_after_ms(until_ms.saturating_sub(now_ms).min(wait_ms))
        };
        if lock.closed_until_ms > now_ms {
            self.note_try(holder, false, now_ms, plan)?;
            return Ok(Some(closed(lock.closed_until_ms)));
        }
        let (Some(hasher), Some(secret)) = (&self.hasher, &phone.lock) else {
            self.note_try(holder, false, now_ms, plan)?;
            return Ok(Some(Refusal::new(Code::PhoneLocked).retry_after_ms(wait_ms)));
        };
        if is_same(&lock.hash, &hasher.lock(&holder, secret)) {
            return Ok(None);
        }
        let (record, refusal) = match lock.tries_left.saturating_sub(1) {
            0 => {
                let until_ms = now_ms + LOCK_CLOSED_MS;
                (LockRecord { closed_until_ms: until_ms, ..fresh_lock(lock.hash) }, closed(until_ms))
            }
            left => {
                let detail = format!("the PIN is wrong; {left} more may be tried");
                let refusal = Refusal::with_detail(Code::PhoneLocked, detail).retry_after_ms(wait_ms);
                (LockRecord { tries_left: left, ..lock }, refusal)
            }
        };
        plan.batch.put_record(Family::Directory, key::lock_of(&holder), &record);
        self.note_try(holder, true, now_ms, plan)?;
        Ok(Some(refusal))
    }

    /// Notes for an account's devices that somebody has tried to take its number: at once if it cost a PIN, else from time
    /// to time, since trying costs nothing then. From time to time is also how often those are woken that are away.
    fn note_try(&self, account: AccountId, cost: bool, now_ms: u64, plan: &mut Plan) -> Result<(), StoreError> {
        let own = self.read::<PhoneRecord>(Family::Directory, key::phone_of(&account))?;
        let Some(mut own) = own else { return Ok(()) };
        let is_news = own.notice.tried_ms.saturating_add(LOCK_TRY_NOTED_MS) <= now_ms;
        if is_news {
            self.alarm(account, now_ms, plan)?;
        }
        if cost || is_news {
            own.notice.tried_ms = now_ms;
            plan.batch.put_record(Family::Directory, key::phone_of(&account), &own);
            plan.must_sync = true;
        }
        Ok(())
    }

    /// When a device of an account has proven itself last, or the account its number.
    fn last_seen_ms(&self, account: AccountId) -> Result<u64, StoreError> {
        let own = self.read::<PhoneRecord>(Family::Directory, key::phone_of(&account))?;
        let mut last_ms = own.map_or(0, |own| own.since_ms);
        let range = key::cursors(&account);
        for (entry, value) in self.store.scan(Family::Cursor, range.as_range(), usize::MAX)? {
            if let Some((_, _, CursorTag::Seen)) = key::parse_cursor(&entry) {
                last_ms = last_ms.max(decode(Family::Cursor, &value)?);
            }
        }
        Ok(last_ms)
    }

    /// An account that goes on without its number: its devices are to tell, and are woken for it.
    pub(super) fn take_number(&self, account: AccountId, now_ms: u64, plan: &mut Plan) -> Result<(), StoreError> {
        let own = self.read::<PhoneRecord>(Family::Directory, key::phone_of(&account))?;
        let notice = PhoneNotice { moved_ms: now_ms, ..own.map(|own| own.notice).unwrap_or_default() };
        self.alarm(account, now_ms, plan)?;
        self.put_without_number(account, notice, now_ms, plan)
    }

    /// Gives an account a number that was proven, and uses the code up.
    pub(super) fn give_number(
        &self,
        account: AccountId,
        phone: &PhonePlan,
        notice: PhoneNotice,
        now_ms: u64,
        plan: &mut Plan,
    ) {
        plan.batch.delete(Family::Code, key::code(&phone.number));
        put_number(&phone.number, account, phone.findable, plan);
        let record = PhoneRecord { number: Some(phone.number), since_ms: now_ms, notice };
        plan.batch.put_record(Family::Directory, key::phone_of(&account), &record);
        self.lock(account, phone.lock.as_ref(), plan);
    }

    fn put_without_number(
        &self,
        account: AccountId,
        notice: PhoneNotice,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let record = PhoneRecord { number: None, since_ms: now_ms, notice };
        plan.batch.put_record(Family::Directory, key::phone_of(&account), &record);
        plan.must_sync = true;
        self.delete_lock(account, plan)
    }

    /// Everything about the phone number of an account that ends.
    pub(super) fn end_phone(&self, account: AccountId, plan: &mut Plan) -> Result<(), StoreError> {
        if let Some(own) = self.read::<PhoneRecord>(Family::Directory, key::phone_of(&account))? {
            if let Some(number) = own.number {
                plan.batch.delete(Family::Directory, key::number(&number));
            }
            plan.batch.delete(Family::Directory, key::phone_of(&account));
        }
        self.delete_lock(account, plan)
    }

    fn lock(&self, account: AccountId, secret: Option<&LockSecret>, plan: &mut Plan) {
        if let (Some(hasher), Some(secret)) = (&self.hasher, secret) {
            let record = fresh_lock(hasher.lock(&account, secret));
            plan.batch.put_record(Family::Directory, key::lock_of(&account), &record);
        }
    }

    fn delete_lock(&self, account: AccountId, plan: &mut Plan) -> Result<(), StoreError> {
        let key = key::lock_of(&account);
        if self.store.get(Family::Directory, key.as_ref())?.is_some() {
            plan.batch.delete(Family::Directory, key);
        }
        Ok(())
    }
}

/// Whose a number is.
fn put_number(number: &NumberHash, account: AccountId, findable: bool, plan: &mut Plan) {
    plan.batch.put_record(Family::Directory, key::number(number), &NumberRecord { account, findable });
    plan.must_sync = true;
}

const fn fresh_lock(hash: [u8; 32]) -> LockRecord {
    LockRecord { hash, tries_left: LOCK_TRIES_MAX, closed_until_ms: 0 }
}

fn without_number() -> Refusal {
    Refusal::with_detail(Code::NotFound, "this account has no phone number; set one first")
}

/// Takes the same time wherever two hashes differ.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    Hash::from_bytes(*one) == Hash::from_bytes(*other)
}
