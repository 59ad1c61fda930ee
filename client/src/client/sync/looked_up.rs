//! Whose accounts were looked up on this connection a moment ago: the server counts look-ups, and a group is of many people.

use std::collections::HashMap;
use std::sync::Mutex;

use gureum_proto::AccountId;
use tokio::time::Instant;

use crate::limits::{LOOKED_UP_FRESH, LOOKED_UP_MAX};

/// Accounts of which the server has shown the log, and the log was found to be good; with when.
#[derive(Debug, Default)]
pub(crate) struct LookedUp(Mutex<HashMap<AccountId, Instant>>);

impl LookedUp {
    pub(super) fn note(&self, account: AccountId) {
        let mut accounts = self.0.lock().expect("no code panics while it holds the accounts");
        if accounts.len() >= LOOKED_UP_MAX {
            accounts.clear();
        }
        accounts.insert(account, Instant::now());
    }

    /// Whether it need not be looked up again only because it is claimed or added now.
    pub(super) fn is_fresh(&self, account: AccountId) -> bool {
        let accounts = self.0.lock().expect("no code panics while it holds the accounts");
        accounts.get(&account).is_some_and(|at| at.elapsed() < LOOKED_UP_FRESH)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

    #[tokio::test(start_paused = true)]
    async fn what_was_looked_up_is_fresh_for_a_while() {
        let looked_up = LookedUp::default();
        assert!(!looked_up.is_fresh(ACCOUNT));
        looked_up.note(ACCOUNT);
        assert!(looked_up.is_fresh(ACCOUNT));
        assert!(!looked_up.is_fresh(AccountId::from_bytes([2; 16])));
        tokio::time::advance(LOOKED_UP_FRESH.saturating_sub(Duration::from_millis(1))).await;
        assert!(looked_up.is_fresh(ACCOUNT));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!looked_up.is_fresh(ACCOUNT));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_remembered_and_no_more() {
        let looked_up = LookedUp::default();
        for number in 0..=u32::try_from(LOOKED_UP_MAX).expect("it is small") {
            looked_up.note(AccountId::from_bytes(u128::from(number).to_be_bytes()));
        }
        assert_eq!(looked_up.0.lock().expect("it is not poisoned").len(), 1);
    }
}
