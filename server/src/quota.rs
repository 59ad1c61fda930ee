//! How often one device, account or address may ask for what costs others something.

mod phone;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use gureum_proto::{AccountId, Code, DeviceId, Refusal};
use tokio::time::Instant;

use crate::limits::{
    CLAIMED_ACCOUNTS_PER_HOUR, CLAIMS_OF_ONE_PER_HOUR, CLAIMS_PER_MINUTE, LOOK_UPS_PER_MINUTE,
    REGISTRATIONS_PER_MINUTE, SENDS_AT_ONCE_MAX,
};
use crate::pace::Pace;
use crate::time::WallClock;
pub(crate) use phone::Asker;
use phone::PhoneQuotas;

/// When a client that is over a quota may try again.
const RETRY_AFTER_MS: u64 = 5_000;

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, Monotonic, NoOpMiddleware<Duration>>;

/// The monotonic half of the server's clock, as the limiters read it.
#[derive(Clone)]
struct Monotonic(Arc<dyn WallClock>);

impl Clock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.monotonic_ms())
    }
}

/// The quotas of one server.
pub(crate) struct Quotas {
    claims: Limiter<AccountId>,
    /// Accounts of which somebody claims, counted together.
    claimed: Limiter<AccountId>,
    /// Who claims, and of whom.
    claimed_of: Limiter<(AccountId, AccountId)>,
    look_ups: Limiter<AccountId>,
    registrations: Limiter<IpAddr>,
    phone: PhoneQuotas,
    sends: Mutex<HashMap<DeviceId, Pace>>,
    /// Between two sends of a device that is at its pace.
    send_interval: Duration,
    clock: Monotonic,
}

impl Quotas {
    /// Fresh allowances for everybody; so many sends a second for each device.
    #[must_use]
    pub(crate) fn new(clock: &Arc<dyn WallClock>, sends_per_second: NonZeroU32) -> Self {
        let clock = Monotonic(Arc::clone(clock));
        Self {
            claims: limiter(Quota::per_minute(CLAIMS_PER_MINUTE), &clock),
            claimed: limiter(Quota::per_hour(CLAIMED_ACCOUNTS_PER_HOUR), &clock),
            claimed_of: limiter(Quota::per_hour(CLAIMS_OF_ONE_PER_HOUR), &clock),
            look_ups: limiter(Quota::per_minute(LOOK_UPS_PER_MINUTE), &clock),
            registrations: limiter(Quota::per_minute(REGISTRATIONS_PER_MINUTE), &clock),
            phone: PhoneQuotas::new(&clock),
            sends: Mutex::default(),
            send_interval: Duration::from_secs(1) / sends_per_second.get(),
            clock,
        }
    }

    /// The same with so many codes an hour for everybody together.
    #[must_use]
    pub(crate) fn with_codes_per_hour(mut self, codes: NonZeroU32) -> Self {
        self.phone.set_codes_per_hour(codes);
        self
    }

    /// Takes so many sends of a device, which it has made already. Returns when it may be heard again; `None`: now.
    pub(crate) fn sends(&self, device: DeviceId, count: usize, now: Instant) -> Option<Instant> {
        let mut sends = self.lock();
        let pace = sends.entry(device).or_insert_with(|| Pace::new(self.send_interval, SENDS_AT_ONCE_MAX, now));
        pace.take(u32::try_from(count).unwrap_or(u32::MAX), now);
        pace.opens_at(now)
    }

    /// Takes one claim of KeyPackages, which are used up by it.
    ///
    /// # Errors
    /// The account has claimed too often.
    pub(crate) fn claim(&self, account: AccountId) -> Result<(), Refusal> {
        self.claims.check_key(&account).map_err(|_| limited())
    }

    /// Takes a claim of KeyPackages of each of these accounts. Those of its own an account may take as often as it likes:
    /// each of its conversations begins with them.
    ///
    /// # Errors
    /// The account has claimed of too many, or of one of them too often; with the time to wait.
    pub(crate) fn claim_of(&self, account: AccountId, of: &[AccountId]) -> Result<(), Refusal> {
        let Some(count) = u32::try_from(of.len()).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        let taken = self.claimed.check_key_n(&account, count.min(CLAIMED_ACCOUNTS_PER_HOUR));
        let taken = taken.expect("it is no more than passes at once");
        taken.map_err(|denied| limited_for(denied.wait_time_from(self.clock.now())))?;
        for other in of.iter().filter(|other| **other != account) {
            let taken = self.claimed_of.check_key(&(account, *other));
            taken.map_err(|denied| Refusal {
                detail: format!("the KeyPackages of {other} were claimed too often"),
                ..limited_for(denied.wait_time_from(self.clock.now()))
            })?;
        }
        Ok(())
    }

    /// Takes one look-up of an account, so that the directory cannot be walked.
    ///
    /// # Errors
    /// The account has looked up too often.
    pub(crate) fn look_up(&self, account: AccountId) -> Result<(), Refusal> {
        self.look_ups.check_key(&account).map_err(|_| limited())
    }

    /// Takes one registration from an address.
    ///
    /// # Errors
    /// There were too many.
    pub(crate) fn register(&self, address: IpAddr) -> Result<(), Refusal> {
        self.registrations.check_key(&address).map_err(|_| limited())
    }

    /// Takes one code for a number, of which only hashes are known here, as of its prefix.
    ///
    /// # Errors
    /// Who asks, the number, its prefix or everybody together has had enough; with the time to wait.
    pub(crate) fn code(&self, asker: Asker, number: u64, prefix: u64) -> Result<(), Refusal> {
        self.phone.code(asker, number, prefix)
    }

    /// Takes one attempt to prove a number.
    ///
    /// # Errors
    /// Who shows the code has tried too often; with the time to wait.
    pub(crate) fn phone_proof(&self, asker: Asker) -> Result<(), Refusal> {
        self.phone.proof(asker)
    }

    /// Takes one look-up by number.
    ///
    /// # Errors
    /// The account, or everybody together, has looked up too often; with the time to wait.
    pub(crate) fn phone_look_up(&self, account: AccountId) -> Result<(), Refusal> {
        self.phone.look_up(account)
    }

    /// Whether the devices of an account may be told once more that somebody has tried to take its number.
    pub(crate) fn alarm(&self, account: AccountId) -> bool {
        self.phone.alarm(account)
    }

    /// Takes one decision of an account about another, or about a conversation.
    ///
    /// # Errors
    /// The account has decided too often; with the time to wait.
    pub(crate) fn decision(&self, account: AccountId) -> Result<(), Refusal> {
        self.phone.decision(account)
    }

    /// Forgets whoever has a whole allowance again, so that the memory is bounded by who asked lately.
    pub(crate) fn forget_rested(&self) {
        self.claims.retain_recent();
        self.claimed.retain_recent();
        self.claimed_of.retain_recent();
        self.look_ups.retain_recent();
        self.registrations.retain_recent();
        self.phone.forget_rested();
        let now = Instant::now();
        self.lock().retain(|_, pace| !pace.is_rested(now));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Pace>> {
        self.sends.lock().expect("no code panics while it holds the paces")
    }
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").finish_non_exhaustive()
    }
}

fn limiter<K: Hash + Eq + Clone>(quota: Quota, clock: &Monotonic) -> Limiter<K> {
    RateLimiter::new(quota, DashMapStateStore::default(), clock.clone())
}

fn limited() -> Refusal {
    limited_for(Duration::from_millis(RETRY_AFTER_MS))
}

fn limited_for(wait: Duration) -> Refusal {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    // 0 would mean that it is not to be tried again.
    Refusal::new(Code::RateLimited).retry_after_ms(wait_ms.max(1))
}

const _: () = assert!(CLAIMS_PER_MINUTE.get() <= LOOK_UPS_PER_MINUTE.get());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    const PER_SECOND: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

    #[test]
    fn a_device_that_sends_too_fast_is_slowed_down_to_its_pace_and_others_are_not() {
        let quotas = Quotas::new(&(Arc::new(ManualClock::at(1)) as _), PER_SECOND);
        let (greedy, other) = (DeviceId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        let now = Instant::now();
        let burst = SENDS_AT_ONCE_MAX as usize;
        assert_eq!(quotas.sends(greedy, burst, now), None, "a burst, at once");
        assert_eq!(quotas.sends(greedy, 64, now), Some(now + Duration::from_millis(64)));
        assert_eq!(quotas.sends(greedy, 1, now), Some(now + Duration::from_millis(65)), "its sessions wait in line");
        assert_eq!(quotas.sends(other, 1, now), None);
        let later = now + Duration::from_millis(65);
        assert_eq!(quotas.sends(greedy, 10, later), Some(later + Duration::from_millis(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_rested_is_forgotten_and_who_has_not_is_remembered() {
        let clock = Arc::new(ManualClock::at(1));
        let quotas = Quotas::new(&(Arc::clone(&clock) as _), PER_SECOND);
        let (account, address) = (AccountId::from_bytes([1; 16]), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(
            (quotas.claim(account), quotas.look_up(account), quotas.register(address)),
            (Ok(()), Ok(()), Ok(()))
        );
        quotas.sends(DeviceId::from_bytes([1; 16]), 1, Instant::now());
        let remembered = || {
            quotas.forget_rested();
            [quotas.claims.len(), quotas.look_ups.len(), quotas.registrations.len(), quotas.lock().len()]
        };
        assert_eq!(remembered(), [1; 4]);
        clock.advance(60_000);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(remembered(), [0; 4]);
    }

    #[test]
    fn nobody_claims_of_too_many_accounts_an_hour_nor_of_one_too_often() {
        let clock = Arc::new(ManualClock::at(1));
        let quotas = Quotas::new(&(Arc::clone(&clock) as _), PER_SECOND);
        let account = |number: u32| {
            let mut id = [0xaa; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            AccountId::from_bytes(id)
        };
        let (greedy, other, victim) = (account(0), account(1), account(2));
        let wait_ms = |result: Result<(), Refusal>| {
            let refusal = result.unwrap_err();
            assert_eq!(refusal.code, Code::RateLimited);
            refusal.retry_after_ms
        };
        for _ in 0..CLAIMS_OF_ONE_PER_HOUR.get() {
            assert_eq!(quotas.claim_of(greedy, &[victim]), Ok(()));
        }
        assert_eq!(wait_ms(quotas.claim_of(greedy, &[account(3), victim])), 6 * 60_000);
        assert_eq!(quotas.claim_of(other, &[victim]), Ok(()), "others may go on");
        clock.advance(6 * 60_000);
        assert_eq!(quotas.claim_of(greedy, &[victim]), Ok(()));
        for _ in 0..100 {
            assert_eq!(quotas.claim_of(other, &[other]), Ok(()), "its own it needs for each conversation");
        }

        clock.advance(2 * 3_600_000);
        let all: Vec<_> = (10..10 + CLAIMED_ACCOUNTS_PER_HOUR.get()).map(account).collect();
        all.chunks(60).for_each(|some| assert_eq!(quotas.claim_of(greedy, some), Ok(())));
        assert_eq!(wait_ms(quotas.claim_of(greedy, &all[..10])), 10 * 2_400);
        clock.advance(10 * 2_400);
        assert_eq!(quotas.claim_of(greedy, &all[..10]), Ok(()));
        quotas.forget_rested();
        assert_eq!((quotas.claimed.len(), quotas.claimed_of.len()), (1, all.len()));
        clock.advance(2 * 3_600_000);
        quotas.forget_rested();
        assert_eq!((quotas.claimed.len(), quotas.claimed_of.len()), (0, 0));
    }

    #[test]
    fn an_account_that_claims_too_often_waits_and_others_do_not() {
        let clock = Arc::new(ManualClock::at(1));
        let quotas = Quotas::new(&(Arc::clone(&clock) as _), PER_SECOND);
        let (greedy, other) = (AccountId::from_bytes([1; 16]), AccountId::from_bytes([2; 16]));
        let granted = (0..2 * CLAIMS_PER_MINUTE.get()).filter(|_| quotas.claim(greedy).is_ok()).count();
        assert_eq!(granted, CLAIMS_PER_MINUTE.get() as usize);
        assert_eq!(quotas.claim(other), Ok(()));
        clock.set_wall(u64::MAX);
        assert!(quotas.claim(greedy).is_err(), "a jump of the wall clock grants nothing");
        clock.advance(60_000);
        assert_eq!(quotas.claim(greedy), Ok(()));
    }
}
