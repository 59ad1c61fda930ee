//! Phone numbers: a code to one that is somebody's, and what becomes of the number that it proves.

use std::net::IpAddr;
use std::sync::Arc;

use gureum_proto::{
    AccountId, Code, CodeSent, LockSecret, Otp, Phone, PhoneChange, PhoneProof, Refusal, Register, Response,
};
use zeroize::Zeroizing;

use super::{Answer, Requests};
use crate::limits::{CODE_AGAIN_MS, CODE_MS, DAY_MS};
use crate::listen::network;
use crate::numbers::{self, E164};
use crate::phone_hash::PhoneHasher;
use crate::quota::Asker;
use crate::router::{Change, Changed, CodePlan, PhoneChangePlan, PhonePlan};
use crate::session::Authenticated;
use crate::sms::Sms;
use crate::store::key::NumberHash;

/// What a server needs that proves phone numbers.
pub(crate) struct PhonePart {
    /// Hashes numbers, codes and locks.
    pub hasher: Arc<PhoneHasher>,
    /// Brings codes out.
    pub sms: Sms,
    /// The countries whose numbers get codes, by their codes; none: all.
    pub countries: Vec<u16>,
    /// Whether nobody registers without a number.
    pub required: bool,
    /// How many codes are sent on one day.
    pub per_day: u32,
}

impl Requests {
    /// Sends a code to a phone number, for a connection that has not proven anything yet. The answer is the same whoever has
    /// the number.
    ///
    /// # Errors
    /// No code can be sent there, or too many were sent.
    pub(crate) async fn request_code(self: &Arc<Self>, phone: &Phone, address: IpAddr) -> Result<CodeSent, Refusal> {
        self.send_code(phone, Asker::Address(network(address))).await
    }

    pub(super) async fn code_for_device(self: &Arc<Self>, from: Authenticated, phone: Phone) -> Answer {
        self.send_code(&phone, Asker::Account(from.account())).await.map(Response::CodeSent)
    }

    async fn send_code(self: &Arc<Self>, phone: &Phone, asker: Asker) -> Result<CodeSent, Refusal> {
        let answer = self.make_code(phone, asker).await;
        self.metrics.phone.asked(&answer);
        answer
    }

    /// The code is on the disk, and counted, before it goes out.
    async fn make_code(self: &Arc<Self>, phone: &Phone, asker: Asker) -> Result<CodeSent, Refusal> {
        let part = self.phone_part()?;
        let number = self.normalise(phone).await?;
        if !number.is_of(&part.countries) {
            return Err(Refusal::with_detail(Code::PhoneInvalid, "this server sends no codes to that country"));
        }
        let of_number = part.hasher.short("number", number.as_str());
        let of_prefix = part.hasher.short("prefix", number.prefix());
        self.quotas.code(asker, of_number, of_prefix)?;
        let (hash, code) = (part.hasher.number(number.as_str()), draw_code());
        let plan = CodePlan {
            number: hash,
            hash: part.hasher.code(&hash, &code),
            day: u32::try_from(self.clock.now_ms() / DAY_MS).unwrap_or(u32::MAX),
            day_max: part.per_day,
        };
        let Changed::CodeStored { spent } = self.router.change(Change::StoreCode(plan)).await? else {
            return Err(Refusal::new(Code::Internal));
        };
        self.metrics.phone.spent_today(spent);
        let phone: Phone = number.as_str().parse().map_err(|_| Refusal::new(Code::Internal))?;
        part.sms.queue(number, code)?;
        Ok(CodeSent { expires_ms: CODE_MS, again_after_ms: CODE_AGAIN_MS, phone })
    }

    /// What a registration shows of a phone number.
    ///
    /// # Errors
    /// None is shown where it must be, one is where nothing is done with it, or it is no number that can be shown.
    pub(super) async fn registers_phone(self: &Arc<Self>, register: &Register) -> Result<Option<PhonePlan>, Refusal> {
        match &register.phone {
            Some(proof) => self.phone_plan(proof.clone()).await.map(Some),
            None if self.phone.as_ref().is_some_and(|part| part.required) => Err(Refusal::new(Code::PhoneRequired)),
            None => Ok(None),
        }
    }

    async fn phone_plan(self: &Arc<Self>, proof: PhoneProof) -> Result<PhonePlan, Refusal> {
        let part = self.phone_part()?;
        let number = self.normalise(&proof.phone).await?;
        let number = part.hasher.number(number.as_str());
        let holder = self.blocking(move |this| Ok(this.directory.by_number(&number)?)).await?;
        // Of who is connected for weeks nothing was seen in those.
        let present = holder.map(|holder| holder.account).filter(|account| self.hub.is_present(*account));
        let code = part.hasher.code(&number, &proof.code);
        Ok(PhonePlan { number, code, lock: proof.lock, findable: proof.findable, present })
    }

    pub(super) async fn set_phone(self: &Arc<Self>, from: Authenticated, change: PhoneChange) -> Answer {
        let required = self.phone.as_ref().is_some_and(|part| part.required);
        let change = match change {
            PhoneChange::Set(proof) => {
                self.quotas.phone_proof(Asker::Account(from.account()))?;
                PhoneChangePlan::Set(self.phone_plan(proof).await?)
            }
            PhoneChange::Remove if required => {
                let detail = "every account of this server has a phone number; set another instead";
                return Err(Refusal::with_detail(Code::PhoneRequired, detail));
            }
            PhoneChange::Findable(findable) => {
                self.quotas.decision(from.account())?;
                PhoneChangePlan::Findable(findable)
            }
            PhoneChange::Remove => {
                self.quotas.decision(from.account())?;
                PhoneChangePlan::Remove
            }
        };
        let number = match &change {
            PhoneChangePlan::Set(phone) => Some(phone.number),
            PhoneChangePlan::Findable(_) | PhoneChangePlan::Remove => None,
        };
        let changed = self.router.change(Change::SetPhone { from, change }).await;
        if let Some(number) = number {
            self.tell_holder(number, &changed).await;
        }
        match changed? {
            Changed::Done | Changed::Moved { .. } => Ok(Response::Done),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    pub(super) async fn set_lock(self: &Arc<Self>, from: Authenticated, lock: Option<LockSecret>) -> Answer {
        self.quotas.decision(from.account())?;
        let hash = match lock {
            Some(lock) => Some(self.phone_part()?.hasher.lock(&from.account(), &lock)),
            None => None,
        };
        match self.router.change(Change::SetLock { from, hash }).await? {
            Changed::Done => Ok(Response::Done),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    /// The account that somebody finds by a phone number. Whether the number is nobody's or its owner does not want to be
    /// found, nothing tells.
    pub(super) async fn find_by_phone(
        self: &Arc<Self>,
        from: Authenticated,
        phone: &Phone,
    ) -> Result<Option<AccountId>, Refusal> {
        let part = self.phone_part()?;
        let answer = self.look_up_phone(from, phone, part).await;
        self.metrics.phone.looked_up(&answer);
        answer
    }

    async fn look_up_phone(
        self: &Arc<Self>,
        from: Authenticated,
        phone: &Phone,
        part: &PhonePart,
    ) -> Result<Option<AccountId>, Refusal> {
        self.quotas.phone_look_up(from.account())?;
        let number = self.normalise(phone).await?;
        let number = part.hasher.number(number.as_str());
        self.blocking(move |this| Ok(this.directory.found_by_number(&number, from.account())?)).await
    }

    /// Tells those devices of the account whose a number was that are connected that it has moved, or that somebody has tried.
    /// What it is stays with the account for whoever comes later, and the others are woken by what the writer owes them.
    pub(super) async fn tell_holder(self: &Arc<Self>, number: NumberHash, changed: &Result<Changed, Refusal>) {
        let moved_from = match changed {
            Ok(Changed::Moved { from }) => Some(*from),
            Err(refusal) if matches!(refusal.code, Code::PhoneLocked | Code::PhoneLockClosed) => None,
            _ => return,
        };
        match moved_from {
            Some(_) => self.metrics.phone.moved(),
            None => self.metrics.phone.locked(),
        }
        let told = self.blocking(move |this| {
            let account = match moved_from {
                Some(account) => account,
                None => match this.directory.by_number(&number)? {
                    Some(holder) => holder.account,
                    None => return Ok(None),
                },
            };
            Ok(this.directory.phone(account)?.map(|own| (account, own.notice)))
        });
        let Ok(Some((account, notice))) = told.await else { return };
        // Who has no PIN may try as often as a code lives: that is no reason to ring all the time.
        if moved_from.is_none() && !self.quotas.alarm(account) {
            return;
        }
        self.hub.phone(account, notice);
    }

    fn phone_part(&self) -> Result<&PhonePart, Refusal> {
        self.phone.as_deref().ok_or_else(|| Refusal::new(Code::PhoneUnavailable))
    }

    async fn normalise(&self, phone: &Phone) -> Result<E164, Refusal> {
        let phone = phone.clone();
        match self.work.run(move || numbers::normalise(&phone)).await {
            Some(Ok(number)) => Ok(number),
            Some(Err(error)) => Err(Refusal::with_detail(Code::PhoneInvalid, error.to_string())),
            None => Err(Refusal::new(Code::Internal)),
        }
    }
}

/// A code, each as likely as any other: what would make some likelier is drawn again.
fn draw_code() -> Otp {
    const CODES: u32 = 1_000_000;
    const MASK: u32 = CODES.next_power_of_two() - 1;
    loop {
        let drawn = getrandom::u32().expect("the system has randomness") & MASK;
        if drawn < CODES {
            let digits = Zeroizing::new(format!("{drawn:06}"));
            return digits.parse().expect("six digits are a code");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_six_digits_and_are_spread_over_all_there_are() {
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let code: u32 = draw_code().as_str().parse().unwrap();
            tenths[usize::try_from(code / 100_000).unwrap()] += 1;
        }
        // 1,000 each are expected, with a deviation of 30.
        assert!(tenths.iter().all(|count| (800..1_200).contains(count)), "{tenths:?}");
    }
}
