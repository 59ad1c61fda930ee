//! How often one account or one address may ask for what costs others something.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use gureum_proto::{AccountId, Code, Refusal};

use crate::limits::{CLAIMS_PER_MINUTE, LOOK_UPS_PER_MINUTE, REGISTRATIONS_PER_MINUTE};
use crate::time::WallClock;

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
    look_ups: Limiter<AccountId>,
    registrations: Limiter<IpAddr>,
}

impl Quotas {
    /// Fresh allowances for everybody.
    #[must_use]
    pub(crate) fn new(clock: &Arc<dyn WallClock>) -> Self {
        Self {
            claims: limiter(CLAIMS_PER_MINUTE, clock),
            look_ups: limiter(LOOK_UPS_PER_MINUTE, clock),
            registrations: limiter(REGISTRATIONS_PER_MINUTE, clock),
        }
    }

    /// Takes one claim of KeyPackages, which are used up by it.
    ///
    /// # Errors
    /// The account has claimed too often.
    pub(crate) fn claim(&self, account: AccountId) -> Result<(), Refusal> {
        self.claims.check_key(&account).map_err(|_| limited())
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

    /// Forgets whoever has a whole allowance again, so that the memory is bounded by a minute's askers.
    pub(crate) fn forget_rested(&self) {
        self.claims.retain_recent();
        self.look_ups.retain_recent();
        self.registrations.retain_recent();
    }
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").finish_non_exhaustive()
    }
}

fn limiter<K: Hash + Eq + Clone>(per_minute: NonZeroU32, clock: &Arc<dyn WallClock>) -> Limiter<K> {
    RateLimiter::new(Quota::per_minute(per_minute), DashMapStateStore::default(), Monotonic(Arc::clone(clock)))
}

fn limited() -> Refusal {
    Refusal::new(Code::RateLimited).retry_after_ms(RETRY_AFTER_MS)
}

const _: () = assert!(CLAIMS_PER_MINUTE.get() <= LOOK_UPS_PER_MINUTE.get());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    #[test]
    fn an_account_that_claims_too_often_waits_and_others_do_not() {
        let clock = Arc::new(ManualClock::at(1));
        let quotas = Quotas::new(&(Arc::clone(&clock) as _));
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
