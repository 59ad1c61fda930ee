//! Accounts that were deleted, at a start: what is left of their inboxes.

use crate::limits::SCAN_ENTRIES_MAX;
use crate::store::record::InboxHead;
use crate::store::{Family, Store, StoreError, TakenFloors, decode, key, read};

/// Lets compaction drop the inboxes of accounts that were deleted before this start, as it would have without one. An
/// account that was deleted at `expired_until_ms` or before has nothing in its inbox that has not expired.
///
/// # Errors
/// When the store cannot be read: what is left of them goes with its age.
pub(crate) fn drop_inboxes_of_gone(
    store: &dyn Store,
    floors: &TakenFloors,
    expired_until_ms: u64,
) -> Result<(), StoreError> {
    let range = key::all_gone();
    let mut start = range.start.as_slice().to_vec();
    loop {
        let page = store.scan(Family::Directory, start.as_slice()..range.end.as_slice(), SCAN_ENTRIES_MAX)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        start = last.to_vec();
        start.push(0);
        for (entry, value) in &page {
            let Some(account) = key::parse_gone(entry) else { continue };
            if decode::<u64>(Family::Directory, value)? <= expired_until_ms {
                continue;
            }
            if let Some(head) = read::<InboxHead>(store, Family::InboxHead, key::inbox_head(&account).as_ref())? {
                floors.raise(&account, head.seq);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gureum_proto::AccountId;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, Durability, Expiry};
    use crate::time::{Clock, ManualClock};

    const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
    const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
    const CAROL: AccountId = AccountId::from_bytes([0xff; 16]);

    #[test]
    fn what_is_left_in_the_inbox_of_a_deleted_account_is_taken_and_nobody_elses() {
        let clock = Arc::new(Clock::resume(Arc::new(ManualClock::at(1)), 1_000, None).unwrap());
        let floors = Arc::new(TakenFloors::default());
        let expiry = Expiry { clock, retention_ms: 1_000, commit_retention_ms: 10_000, floors: Arc::default() };
        let store = MemoryStore::new(expiry);
        let mut batch = Batch::new();
        for account in [ALICE, BOB, CAROL] {
            let head = InboxHead { seq: 7, ..InboxHead::default() };
            batch.put_record(Family::InboxHead, key::inbox_head(&account), &head);
        }
        batch.put_record(Family::Directory, key::gone(&ALICE), &50_000_u64);
        batch.put_record(Family::Directory, key::gone(&CAROL), &50_001_u64);
        store.write(&batch, Durability::Synced).unwrap();
        drop_inboxes_of_gone(&store, &floors, 50_000).unwrap();
        assert_eq!([ALICE, BOB, CAROL].map(|account| floors.floor(&account)), [0, 0, 7], "Alice's has expired");
        drop_inboxes_of_gone(&store, &floors, 49_999).unwrap();
        assert_eq!([ALICE, BOB, CAROL].map(|account| floors.floor(&account)), [7, 0, 7]);
    }
}
