//! How often a code is sent, and how often people are looked up by number. Whoever sells SMS orders codes to numbers of
//! their own; whoever wants to know who is here asks for one number after the other.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;
use governor::clock::Clock;
use gureum_proto::{AccountId, Refusal};

use super::{Limiter, Monotonic, limited_for, limiter};
use crate::limits::{
    CODE_AGAIN_MS, CODES_OF_ASKER_PER_HOUR, CODES_OF_NUMBER_PER_DAY, CODES_OF_NUMBER_PER_HOUR,
    CODES_OF_PREFIX_PER_HOUR, CODES_PER_HOUR, DAY_MS, DECISIONS_AT_ONCE_MAX, DECISIONS_PER_MINUTE, LOCK_TRY_NOTED_MS,
    PHONE_LOOK_UPS_OF_ALL_PER_HOUR, PHONE_LOOK_UPS_PER_DAY, PHONE_LOOK_UPS_PER_HOUR, PROOFS_OF_ASKER_PER_HOUR,
};

/// Who asks for a code, or shows one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// A network, as [`crate::listen::network`] has it.
    Address(IpAddr),
    /// A proven device's account.
    Account(AccountId),
}

/// The quotas of phone numbers, and of what accounts decide about others.
pub(super) struct PhoneQuotas {
    codes_of_asker: Limiter<Asker>,
    codes_of_number: [Limiter<u64>; 3],
    codes_of_prefix: Limiter<u64>,
    codes_of_all: Limiter<()>,
    proofs: Limiter<Asker>,
    look_ups: [Limiter<AccountId>; 2],
    look_ups_of_all: Limiter<()>,
    alarms: Limiter<AccountId>,
    decisions: Limiter<AccountId>,
    clock: Monotonic,
}

impl PhoneQuotas {
    pub(super) fn new(clock: &Monotonic) -> Self {
        let decisions = Quota::per_minute(DECISIONS_PER_MINUTE).allow_burst(DECISIONS_AT_ONCE_MAX);
        Self {
            codes_of_asker: limiter(Quota::per_hour(CODES_OF_ASKER_PER_HOUR), clock),
            codes_of_number: [
                limiter(one_in(CODE_AGAIN_MS), clock),
                limiter(Quota::per_hour(CODES_OF_NUMBER_PER_HOUR), clock),
                limiter(per_day(CODES_OF_NUMBER_PER_DAY), clock),
            ],
            codes_of_prefix: limiter(Quota::per_hour(CODES_OF_PREFIX_PER_HOUR), clock),
            codes_of_all: limiter(Quota::per_hour(CODES_PER_HOUR), clock),
            proofs: limiter(Quota::per_hour(PROOFS_OF_ASKER_PER_HOUR), clock),
            look_ups: [
                limiter(Quota::per_hour(PHONE_LOOK_UPS_PER_HOUR), clock),
                limiter(per_day(PHONE_LOOK_UPS_PER_DAY), clock),
            ],
            look_ups_of_all: limiter(Quota::per_hour(PHONE_LOOK_UPS_OF_ALL_PER_HOUR), clock),
            alarms: limiter(one_in(LOCK_TRY_NOTED_MS), clock),
            decisions: limiter(decisions, clock),
            clock: clock.clone(),
        }
    }

    pub(super) fn set_codes_per_hour(&mut self, codes: NonZeroU32) {
        self.codes_of_all = limiter(Quota::per_hour(codes), &self.clock);
    }

    /// The asker comes first: an asker who has asked enough leaves no trace of the numbers that are asked for, so that the
    /// memory is bounded by who asks.
    pub(super) fn code(&self, asker: Asker, number: u64, prefix: u64) -> Result<(), Refusal> {
        self.take(&self.codes_of_asker, &asker)?;
        self.codes_of_number.iter().try_for_each(|limiter| self.take(limiter, &number))?;
        self.take(&self.codes_of_prefix, &prefix)?;
        self.take(&self.codes_of_all, &())
    }

    pub(super) fn proof(&self, asker: Asker) -> Result<(), Refusal> {
        self.take(&self.proofs, &asker)
    }

    pub(super) fn look_up(&self, account: AccountId) -> Result<(), Refusal> {
        self.look_ups.iter().try_for_each(|limiter| self.take(limiter, &account))?;
        self.take(&self.look_ups_of_all, &())
    }

    pub(super) fn alarm(&self, account: AccountId) -> bool {
        self.alarms.check_key(&account).is_ok()
    }

    pub(super) fn decision(&self, account: AccountId) -> Result<(), Refusal> {
        self.take(&self.decisions, &account)
    }

    pub(super) fn forget_rested(&self) {
        self.codes_of_asker.retain_recent();
        self.codes_of_number.iter().for_each(|limiter| limiter.retain_recent());
        self.codes_of_prefix.retain_recent();
        self.codes_of_all.retain_recent();
        self.proofs.retain_recent();
        self.look_ups.iter().for_each(|limiter| limiter.retain_recent());
        self.look_ups_of_all.retain_recent();
        self.alarms.retain_recent();
        self.decisions.retain_recent();
    }

    fn take<K: std::hash::Hash + Eq + Clone>(&self, limiter: &Limiter<K>, key: &K) -> Result<(), Refusal> {
        limiter.check_key(key).map_err(|denied| limited_for(denied.wait_time_from(self.clock.now())))
    }
}

/// One at a time, and the next after a while.
fn one_in(ms: u64) -> Quota {
    Quota::with_period(Duration::from_millis(ms)).expect("it is not 0")
}

/// So many at once, and as many in each day after that.
fn per_day(count: NonZeroU32) -> Quota {
    one_in(DAY_MS / u64::from(count.get())).allow_burst(count)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gureum_proto::Code;

    use super::*;
    use crate::time::ManualClock;

    const HOUR_MS: u64 = 60 * 60 * 1_000;

    fn quotas() -> (Arc<ManualClock>, PhoneQuotas) {
        let clock = Arc::new(ManualClock::at(1));
        let quotas = PhoneQuotas::new(&Monotonic(Arc::clone(&clock) as _));
        (clock, quotas)
    }

    fn address(number: u8) -> Asker {
        Asker::Address(IpAddr::from([192, 0, 2, number]))
    }

    fn account(number: u8) -> AccountId {
        AccountId::from_bytes([number; 16])
    }

    #[track_caller]
    fn waits(result: Result<(), Refusal>) -> u64 {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        refusal.retry_after_ms
    }

    #[test]
    fn a_number_gets_one_code_a_minute_five_an_hour_and_ten_a_day() {
        let (clock, quotas) = quotas();
        let mut askers = (0..=u8::MAX).map(address).cycle();
        let mut ask = || quotas.code(askers.next().unwrap(), 1, u64::MAX);
        assert_eq!(ask(), Ok(()));
        assert_eq!(waits(ask()), CODE_AGAIN_MS);
        for _ in 1..5 {
            clock.advance(CODE_AGAIN_MS);
            assert_eq!(ask(), Ok(()));
        }
        clock.advance(CODE_AGAIN_MS);
        assert!(waits(ask()) > CODE_AGAIN_MS, "five an hour");
        let mut sent = 5;
        for _ in 0..24 {
            clock.advance(HOUR_MS);
            sent += u32::from(ask().is_ok());
        }
        // Each that was sent is given back a tenth of a day later, so that a day has at most twice as many.
        assert!(sent <= 2 * CODES_OF_NUMBER_PER_DAY.get(), "{sent}");
    }

    #[test]
    fn numbers_of_a_prefix_an_asker_and_everybody_have_their_limits() {
        let (clock, mut quotas) = quotas();
        let asker = |number: u64| address(u8::try_from(number % 200).unwrap());
        for number in 0..u64::from(CODES_OF_PREFIX_PER_HOUR.get()) {
            assert_eq!(quotas.code(asker(number), number, 1), Ok(()));
        }
        assert_eq!(waits(quotas.code(address(201), 100, 1)), HOUR_MS / u64::from(CODES_OF_PREFIX_PER_HOUR.get()));
        assert_eq!(quotas.code(address(201), 101, 2), Ok(()), "another prefix");

        clock.advance(24 * HOUR_MS);
        for number in 0..u64::from(CODES_OF_ASKER_PER_HOUR.get()) {
            assert_eq!(quotas.code(address(1), number, number), Ok(()));
        }
        assert_eq!(waits(quotas.code(address(1), 100, 100)), HOUR_MS / u64::from(CODES_OF_ASKER_PER_HOUR.get()));
        assert_eq!(quotas.code(Asker::Account(account(1)), 100, 100), Ok(()));

        quotas.set_codes_per_hour(NonZeroU32::new(2).unwrap());
        assert_eq!(quotas.code(address(2), 101, 101), Ok(()));
        assert_eq!(quotas.code(address(3), 102, 102), Ok(()));
        assert_eq!(waits(quotas.code(address(4), 103, 103)), HOUR_MS / 2);
    }

    #[test]
    fn an_asker_who_has_asked_enough_leaves_no_trace_of_numbers() {
        let (clock, quotas) = quotas();
        for number in 0..1_000 {
            let _ = quotas.code(address(1), number, number);
        }
        assert_eq!(quotas.codes_of_number[2].len(), CODES_OF_ASKER_PER_HOUR.get() as usize);
        clock.advance(2 * 24 * HOUR_MS);
        quotas.forget_rested();
        assert_eq!((quotas.codes_of_number[2].len(), quotas.codes_of_asker.len()), (0, 0));
    }

    #[test]
    fn who_guesses_codes_guesses_a_few() {
        let (_, quotas) = quotas();
        for _ in 0..PROOFS_OF_ASKER_PER_HOUR.get() {
            assert_eq!(quotas.proof(address(1)), Ok(()));
        }
        assert_eq!(waits(quotas.proof(address(1))), HOUR_MS / u64::from(PROOFS_OF_ASKER_PER_HOUR.get()));
        assert_eq!((quotas.proof(address(2)), quotas.proof(Asker::Account(account(1)))), (Ok(()), Ok(())));
    }

    #[test]
    fn the_directory_cannot_be_walked_by_numbers() {
        let (clock, quotas) = quotas();
        for _ in 0..PHONE_LOOK_UPS_PER_HOUR.get() {
            assert_eq!(quotas.look_up(account(1)), Ok(()));
        }
        assert_eq!(waits(quotas.look_up(account(1))), HOUR_MS / u64::from(PHONE_LOOK_UPS_PER_HOUR.get()));
        assert_eq!(quotas.look_up(account(2)), Ok(()), "others may look");
        let mut found = PHONE_LOOK_UPS_PER_HOUR.get();
        for _ in 0..12 {
            clock.advance(HOUR_MS);
            found += (0..100).map(|_| u32::from(quotas.look_up(account(1)).is_ok())).sum::<u32>();
        }
        assert!(found < 2 * PHONE_LOOK_UPS_PER_DAY.get(), "{found}");
    }

    #[test]
    fn who_makes_many_accounts_walks_no_faster() {
        let (_, quotas) = quotas();
        let accounts = (0..=u32::MAX).map(|number| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            AccountId::from_bytes(id)
        });
        let all = PHONE_LOOK_UPS_OF_ALL_PER_HOUR.get() as usize;
        let found = accounts.take(2 * all).filter(|account| quotas.look_up(*account).is_ok()).count();
        assert_eq!(found, all);
    }

    #[test]
    fn an_account_is_alarmed_once_in_a_while() {
        let (clock, quotas) = quotas();
        assert!(quotas.alarm(account(1)) && !quotas.alarm(account(1)) && quotas.alarm(account(2)));
        clock.advance(LOCK_TRY_NOTED_MS);
        assert!(quotas.alarm(account(1)));
    }
}
