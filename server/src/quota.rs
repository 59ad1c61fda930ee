//! How often one account or one address may ask for what costs others something.

use std::net::IpAddr;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use gureum_proto::{AccountId, Code, Refusal};

use crate::limits::{CLAIMS_PER_MINUTE, LOOK_UPS_PER_MINUTE, REGISTRATIONS_PER_MINUTE};

/// When a client that is over a quota may try again.
const RETRY_AFTER_MS: u64 = 5_000;

/// The quotas of one server.
pub(crate) struct Quotas {
    claims: DefaultKeyedRateLimiter<AccountId>,
    look_ups: DefaultKeyedRateLimiter<AccountId>,
    registrations: DefaultKeyedRateLimiter<IpAddr>,
}

impl Quotas {
    /// Fresh allowances for everybody.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            claims: RateLimiter::keyed(Quota::per_minute(CLAIMS_PER_MINUTE)),
            look_ups: RateLimiter::keyed(Quota::per_minute(LOOK_UPS_PER_MINUTE)),
            registrations: RateLimiter::keyed(Quota::per_minute(REGISTRATIONS_PER_MINUTE)),
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

impl Default for Quotas {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").finish_non_exhaustive()
    }
}

fn limited() -> Refusal {
    Refusal::new(Code::RateLimited).retry_after_ms(RETRY_AFTER_MS)
}

const _: () = assert!(CLAIMS_PER_MINUTE.get() <= LOOK_UPS_PER_MINUTE.get());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_claims_too_often_waits_and_others_do_not() {
        let quotas = Quotas::new();
        let (greedy, other) = (AccountId::from_bytes([1; 16]), AccountId::from_bytes([2; 16]));
        let granted = (0..2 * CLAIMS_PER_MINUTE.get()).filter(|_| quotas.claim(greedy).is_ok()).count();
        assert!(granted >= CLAIMS_PER_MINUTE.get() as usize && granted < 2 * CLAIMS_PER_MINUTE.get() as usize);
        assert_eq!(quotas.claim(other), Ok(()));
    }
}
