//! Whose a phone number is, and what its account is to be told.

use gureum_proto::{AccountId, Relation};

use super::Directory;
use crate::store::key::{self, NumberHash};
use crate::store::record::{NumberRecord, PhoneRecord};
use crate::store::{Family, StoreError};

impl Directory {
    /// Whose a number is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn by_number(&self, number: &NumberHash) -> Result<Option<NumberRecord>, StoreError> {
        self.read(Family::Directory, key::number(number))
    }

    /// The account that somebody finds by a number: if its owner allows that, and wants to hear of whoever looks. Everybody
    /// finds oneself.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn found_by_number(
        &self,
        number: &NumberHash,
        asker: AccountId,
    ) -> Result<Option<AccountId>, StoreError> {
        let Some(NumberRecord { account, findable }) = self.by_number(number)? else { return Ok(None) };
        if account == asker {
            return Ok(Some(account));
        }
        let relation = self.read::<Relation>(Family::Directory, key::relation(&account, &asker))?;
        let is_found = findable && relation != Some(Relation::Blocked) && !self.is_gone(account)?;
        Ok(is_found.then_some(account))
    }

    /// What is known of the phone number of an account, that it had one once included.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn phone(&self, account: AccountId) -> Result<Option<PhoneRecord>, StoreError> {
        self.read(Family::Directory, key::phone_of(&account))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use std::sync::Arc;

    use super::*;
    use crate::store::conformance::expiry;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, Durability, Store};

    const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
    const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
    const NUMBER: NumberHash = [7; 32];

    /// What Bob finds of a number of Alice's.
    #[track_caller]
    fn check(put: impl FnOnce(&mut Batch), expected: Option<AccountId>) {
        let store = Arc::new(MemoryStore::new(expiry().1));
        let directory = Directory::new(Arc::clone(&store) as _);
        let mut batch = Batch::new();
        put(&mut batch);
        store.write(&batch, Durability::Synced).unwrap();
        assert_eq!(directory.found_by_number(&NUMBER, BOB), Ok(expected));
    }

    fn number(batch: &mut Batch, account: AccountId, findable: bool) {
        batch.put_record(Family::Directory, key::number(&NUMBER), &NumberRecord { account, findable });
    }

    #[test]
    fn a_number_finds_whose_owner_allows_it_and_nobody_else() {
        check(|_| (), None);
        check(|batch| number(batch, ALICE, true), Some(ALICE));
        check(|batch| number(batch, ALICE, false), None);
        check(|batch| number(batch, BOB, false), Some(BOB));
    }

    #[test]
    fn who_is_blocked_finds_as_little_as_who_looks_for_somebody_gone() {
        let relation = |batch: &mut Batch, owner: &AccountId, other: &AccountId, relation: Relation| {
            number(batch, ALICE, true);
            batch.put_record(Family::Directory, key::relation(owner, other), &relation);
        };
        check(|batch| relation(batch, &ALICE, &BOB, Relation::Blocked), None);
        check(|batch| relation(batch, &ALICE, &BOB, Relation::Accepted), Some(ALICE));
        check(|batch| relation(batch, &BOB, &ALICE, Relation::Blocked), Some(ALICE));
        let gone = |batch: &mut Batch| {
            number(batch, ALICE, true);
            batch.put_record(Family::Directory, key::gone(&ALICE), &1_u64);
        };
        check(gone, None);
    }
}
