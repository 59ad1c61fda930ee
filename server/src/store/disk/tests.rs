//! What a crash takes, what a failure leaves, and the suite that every store passes.

use super::*;
use crate::store::conformance::{ACCOUNT, Bench, conformance_tests, expiry, put_entry, put_message};
use crate::store::key;

/// A disk whose choices are these, one after the other and again.
fn disk(choices: &'static [u64]) -> SimDisk {
    let mut choices = choices.iter().copied().cycle();
    SimDisk::new(move || choices.next().unwrap())
}

fn bench() -> Bench {
    let (time, expiry) = expiry();
    let opened = disk(&[0]).open(expiry.clone()).unwrap();
    Bench { time, store: Box::new(Shared(opened)), expiry, directory: None }
}

/// The suite owns its store.
struct Shared(Arc<dyn Store>);

impl Store for Shared {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.0.write(batch, durability)
    }
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(family, key)
    }
    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.0.get_many(family, keys)
    }
    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.0.scan(family, range, limit)
    }
    fn last(&self, family: Family, range: Range<&[u8]>) -> Result<Option<Entry>, StoreError> {
        self.0.last(family, range)
    }
    fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        self.0.reclaim()
    }
    fn oldest_physical_ms(&self) -> Result<Option<u64>, StoreError> {
        self.0.oldest_physical_ms()
    }
    fn healthy(&self) -> Result<(), StoreError> {
        self.0.healthy()
    }
    fn close(&self) -> Result<(), StoreError> {
        self.0.close()
    }
}

conformance_tests!(bench);

fn put(store: &dyn Store, name: &str, durability: Durability) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(Family::Meta, key::meta(name), b"1");
    store.write(&batch, durability)
}

/// Which of a, b, c are there.
fn names(store: &dyn Store) -> String {
    let is_there = |name: &&str| store.get(Family::Meta, name.as_bytes()).unwrap().is_some();
    ["a", "b", "c"].into_iter().filter(is_there).collect()
}

#[test]
fn a_crash_loses_the_newest_of_what_was_not_synced_and_nothing_else() {
    for (choice, kept) in [(0, "a"), (1, "ab"), (2, "abc")] {
        let disk = SimDisk::new(move || choice);
        let store = disk.open(expiry().1).unwrap();
        put(&*store, "a", Durability::Synced).unwrap();
        put(&*store, "b", Durability::Lazy).unwrap();
        put(&*store, "c", Durability::Lazy).unwrap();
        assert_eq!(names(&*store), "abc");
        disk.crash();
        assert!(matches!(store.get(Family::Meta, b"a"), Err(StoreError::Poisoned(_))));
        assert!(matches!(put(&*store, "d", Durability::Synced), Err(StoreError::Poisoned(_))));
        assert_eq!(names(&*disk.open(expiry().1).unwrap()), kept);
    }
}

#[test]
fn a_synced_write_keeps_all_that_came_before_it_and_so_does_closing() {
    let disk = disk(&[0]);
    let store = disk.open(expiry().1).unwrap();
    put(&*store, "a", Durability::Lazy).unwrap();
    put(&*store, "b", Durability::Synced).unwrap();
    disk.crash();
    let store = disk.open(expiry().1).unwrap();
    assert_eq!(names(&*store), "ab");
    put(&*store, "c", Durability::Lazy).unwrap();
    store.close().unwrap();
    disk.crash();
    assert_eq!(names(&*disk.open(expiry().1).unwrap()), "abc");
    assert_eq!((disk.counts().crashes, disk.counts().lost), (2, 0));
}

#[test]
fn after_a_sync_that_failed_nothing_is_written_until_the_store_is_opened_again() {
    for (choice, kept) in [(0, ""), (1, "a")] {
        let disk = SimDisk::new(move || choice);
        let store = disk.open(expiry().1).unwrap();
        disk.set_rates(FaultRates { syncs: 1_000, ..FaultRates::default() });
        assert!(matches!(put(&*store, "a", Durability::Synced), Err(StoreError::Poisoned(_))));
        disk.set_rates(FaultRates::default());
        for durability in [Durability::Synced, Durability::Lazy] {
            assert!(matches!(put(&*store, "b", durability), Err(StoreError::Poisoned(_))));
        }
        assert!(matches!(store.healthy(), Err(StoreError::Poisoned(_))));
        assert!(matches!(store.close(), Err(StoreError::Poisoned(_))));
        assert_eq!(names(&*store), "", "what failed is not seen");
        let store = disk.open(expiry().1).unwrap();
        assert_eq!(names(&*store), kept, "and may be there afterwards");
        put(&*store, "c", Durability::Synced).unwrap();
        assert_eq!((disk.counts().poisoned, disk.counts().reappeared), (1, choice));
    }
}

#[test]
fn a_full_disk_refuses_and_is_well_again_when_there_is_room() {
    let disk = disk(&[0]);
    let store = disk.open(expiry().1).unwrap();
    let full = StoreError::Full("planned".to_owned());
    disk.fail_writes(Some(full.clone()));
    assert_eq!(put(&*store, "a", Durability::Lazy), Err(full.clone()));
    assert_eq!(store.healthy(), Err(full));
    disk.fail_writes(None);
    assert_eq!(store.healthy(), Ok(()));
    put(&*store, "a", Durability::Lazy).unwrap();
    disk.fail_reads(Some(StoreError::Io("planned".to_owned())));
    store.get(Family::Meta, b"a").unwrap_err();
    disk.fail_reads(None);
    assert_eq!(names(&*store), "a");
    assert_eq!(disk.counts().faults, 2);
}

#[test]
fn what_has_expired_and_was_reclaimed_does_not_come_back_by_a_crash() {
    let (time, expiry) = expiry();
    let disk = disk(&[0]);
    let store = disk.open(expiry.clone()).unwrap();
    let now_ms = expiry.clock.now_ms();
    put_message(&*store, now_ms, b"body");
    put_entry(&*store, &ACCOUNT, 1, now_ms);
    time.advance(expiry.retention_ms);
    assert_eq!(store.reclaim().unwrap().dropped, 2);
    disk.crash();
    assert_eq!(disk.open(expiry).unwrap().oldest_physical_ms(), Ok(None));
}

#[test]
fn a_call_takes_as_long_as_it_was_told() {
    let disk = disk(&[0, 7, 100]);
    assert_eq!(disk.latency()(), Duration::ZERO);
    disk.set_latency(Duration::from_millis(1)..=Duration::from_millis(2));
    for _ in 0..9 {
        let lasts = disk.latency()();
        assert!((Duration::from_millis(1)..=Duration::from_millis(2)).contains(&lasts), "{lasts:?}");
    }
}
