//! Accounts by their recovery keys, in a data directory of a server that did not keep them so.

use bytes::Bytes;
use gureum_proto::{AccountId, DeviceLog};

use crate::limits::{KEY_BYTES_MAX, SCAN_ENTRIES_MAX};
use crate::store::{Batch, Durability, Family, Store, StoreError, decode, key};

/// The fact that every account is found by its recovery key.
pub(crate) const RECOVERY_INDEX: &str = "recovery_index";

/// Makes every account be found by its recovery key, once in the life of a data directory. Before anybody else writes.
///
/// # Errors
/// When the store cannot be read or written: then the next start goes on.
pub(crate) fn index_recovery_keys(store: &dyn Store) -> Result<(), StoreError> {
    let fact = key::meta(RECOVERY_INDEX);
    if store.get(Family::Meta, &fact)?.is_some() {
        return Ok(());
    }
    let mut reading: Option<(AccountId, Option<DeviceLog>)> = None;
    let mut start = Vec::new();
    loop {
        let page =
            store.scan(Family::DeviceLog, start.as_slice()..[u8::MAX; KEY_BYTES_MAX].as_slice(), SCAN_ENTRIES_MAX)?;
        let Some((last, _)) = page.last() else { break };
        start = last.to_vec();
        start.push(0);
        let mut batch = Batch::new();
        for (entry_key, value) in &page {
            let Some((account, _)) = key::parse_device_log(entry_key) else { continue };
            let entry = decode::<Bytes>(Family::DeviceLog, value).unwrap_or_default();
            match &mut reading {
                Some((known, log)) if *known == account => follow(log, &entry),
                _ => {
                    let through = reading.replace((account, DeviceLog::from_root(&entry).ok()));
                    note(store, through, &mut batch)?;
                }
            }
        }
        if !batch.is_empty() {
            store.write(&batch, Durability::Lazy)?;
        }
    }
    let mut batch = Batch::new();
    note(store, reading, &mut batch)?;
    batch.put_record(Family::Meta, fact, &());
    store.write(&batch, Durability::Synced)
}

/// A log that does not hold, or does not read, is nobody's way back; the audit tells of it.
fn follow(log: &mut Option<DeviceLog>, entry: &Bytes) {
    if log.as_mut().is_some_and(|log| log.append(entry).is_err()) {
        *log = None;
    }
}

/// The first account that has a key keeps it.
fn note(
    store: &dyn Store,
    through: Option<(AccountId, Option<DeviceLog>)>,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    if let Some((account, Some(log))) = through {
        let recovery = key::recovery(log.recovery_key().as_bytes());
        if store.get(Family::Directory, &recovery)?.is_none() {
            batch.put_record(Family::Directory, recovery, &account);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;
    use gureum_proto::{sign_root, sign_rotate_recovery};

    use super::*;
    use crate::directory::Directory;
    use crate::store::Expiry;
    use crate::store::memory::MemoryStore;
    use crate::time::{Clock, ManualClock};

    fn store() -> MemoryStore {
        let clock = Arc::new(Clock::resume(Arc::new(ManualClock::at(1)), 1_000, None).unwrap());
        MemoryStore::new(Expiry { clock, retention_ms: 1_000, commit_retention_ms: 10_000, floors: Arc::default() })
    }

    fn key_of(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> [u8; 32] {
        key_of(seed).verifying_key().to_bytes()
    }

    /// The log of an account whose keys come from `seed` and the two after it, as a server without the index kept it.
    fn put_account(batch: &mut Batch, seed: u8) -> DeviceLog {
        let root = sign_root(&key_of(seed), &public(seed + 1), &key_of(seed + 2), 1).unwrap();
        let log = DeviceLog::from_root(&root).unwrap();
        batch.put_record(Family::DeviceLog, key::device_log(&log.account(), 0), &root);
        log
    }

    #[test]
    fn accounts_from_before_are_found_by_the_key_that_their_log_names_now() {
        let store = Arc::new(store());
        let mut batch = Batch::new();
        let (alice, bob) = (put_account(&mut batch, 1), put_account(&mut batch, 11));
        let signer = (bob.active().next().unwrap().0, &key_of(11));
        let rotation = sign_rotate_recovery(&bob, signer, &key_of(20), 2);
        batch.put_record(Family::DeviceLog, key::device_log(&bob.account(), 1), &rotation);
        store.write(&batch, Durability::Synced).unwrap();

        let directory = Directory::new(Arc::clone(&store) as _);
        assert_eq!(directory.by_recovery_key(&public(3)), Ok(None));
        index_recovery_keys(store.as_ref()).unwrap();
        assert_eq!(directory.by_recovery_key(&public(3)), Ok(Some(alice.account())));
        assert_eq!(directory.by_recovery_key(&public(20)), Ok(Some(bob.account())));
        assert_eq!(directory.by_recovery_key(&public(13)), Ok(None), "it was replaced");
    }

    #[test]
    fn it_is_done_once() {
        let store = store();
        index_recovery_keys(&store).unwrap();
        let mut batch = Batch::new();
        put_account(&mut batch, 1);
        store.write(&batch, Durability::Synced).unwrap();
        index_recovery_keys(&store).unwrap();
        assert_eq!(store.get(Family::Directory, &key::recovery(&public(3))), Ok(None));
    }
}
