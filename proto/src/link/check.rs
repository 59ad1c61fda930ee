//! The six digits that a person compares, and what a new device is bound to before it has seen an answer.

use std::fmt;

use zeroize::Zeroizing;

use super::{LinkCode, LinkOffer, LinkProposal};
use crate::limits::{LINK_APPROVALS_MAX, LINK_APPROVALS_PER_OFFER_MAX};

const CHECK_CONTEXT: &str = "gureum 2026-11 link check v1";
const COMMITMENT_CONTEXT: &str = "gureum 2026-11 link commitment v1";

/// Values of a new device, each the hash of the one that is told after it. An offer has the one that was told last, and
/// each approval is told the next: who makes an answer cannot foretell it, and who has seen the answer cannot choose it. So
/// six digits are enough: whoever stands in between cannot try answers until the digits fit.
#[derive(Clone)]
pub struct CheckChain(Zeroizing<[u8; 32]>);

impl CheckChain {
    /// The chain that follows from a seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// What [`LinkOffer::commitment`] is after so many approvals.
    #[must_use]
    pub fn commitment(&self, approvals: u32) -> [u8; 32] {
        self.after(LINK_APPROVALS_MAX.saturating_sub(approvals))
    }

    /// What an approval is told, counted from 1; `None` past [`LINK_APPROVALS_MAX`].
    #[must_use]
    pub fn opening(&self, approval: u32) -> Option<[u8; 32]> {
        (1..=LINK_APPROVALS_MAX).contains(&approval).then(|| self.after(LINK_APPROVALS_MAX - approval))
    }

    fn after(&self, steps: u32) -> [u8; 32] {
        (0..steps).fold(*self.0, |value, _| step(&value))
    }
}

impl fmt::Debug for CheckChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckChain").finish_non_exhaustive()
    }
}

impl LinkOffer {
    /// Whether the device that offers this was bound to this value.
    #[must_use]
    pub fn is_opened_by(&self, opening: &[u8; 32]) -> bool {
        let mut value = *opening;
        (0..LINK_APPROVALS_PER_OFFER_MAX).any(|_| {
            value = step(&value);
            value == self.commitment
        })
    }
}

impl LinkProposal {
    /// Six digits, `123 456`, that both devices show and a person compares: over the code, the offer as it travelled,
    /// sealed, what only who has made this and who can open it know, and the new device's opening. They differ if the two
    /// have not spoken with each other.
    #[must_use]
    pub fn check_digits(&self, code: &LinkCode, offer: &[u8], opening: &[u8; 32]) -> String {
        let length = u64::try_from(offer.len()).unwrap_or(u64::MAX);
        let mut hasher = blake3::Hasher::new_derive_key(CHECK_CONTEXT);
        hasher.update(code.bytes().as_slice());
        hasher.update(&length.to_be_bytes()).update(offer);
        hasher.update(self.account.as_bytes()).update(self.bundle_key.as_slice()).update(opening);
        let mut number = [0_u8; 8];
        hasher.finalize_xof().fill(&mut number);
        let digits = u64::from_be_bytes(number) % 1_000_000;
        format!("{:03} {:03}", digits / 1000, digits % 1000)
    }
}

fn step(value: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(COMMITMENT_CONTEXT, value)
}
