//! A store that fails when told to: what a full or broken disk does, for tests and simulation.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::{Batch, Durability, Entry, Family, Reclaimed, Store, StoreError};

/// How many failures may be planned ahead.
const FAULTS_PLANNED_MAX: usize = 1_024;

/// Passes every call on, except the writes that were planned to fail and the reads of what was damaged.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    next: VecDeque<StoreError>,
    lasting: Option<StoreError>,
    damaged: Vec<(Family, Vec<u8>)>,
}

impl<S: Store> FaultyStore<S> {
    /// A store that fails not yet.
    pub fn new(inner: S) -> Self {
        Self { inner, faults: Mutex::default() }
    }

    /// The next write that is not yet planned to fail fails with this; what it held is lost.
    pub fn fail_next_write(&self, error: StoreError) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.next.len() < FAULTS_PLANNED_MAX {
            faults.next.push_back(error);
        }
    }

    /// All writes fail with this until it is taken back with `None`.
    pub fn fail_all_writes(&self, error: Option<StoreError>) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).lasting = error;
    }

    /// From now on every read that comes to this key finds damage, until [`Self::mend`].
    pub fn damage(&self, family: Family, key: &[u8]) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.damaged.len() < FAULTS_PLANNED_MAX {
            faults.damaged.push((family, key.to_vec()));
        }
    }

    /// Nothing is damaged any more.
    pub fn mend(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).damaged.clear();
    }

    /// The store behind it.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn fault(&self) -> Result<(), StoreError> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match faults.next.pop_front().or_else(|| faults.lasting.clone()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn read(&self, family: Family, meets: impl Fn(&[u8]) -> bool) -> Result<(), StoreError> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match faults.damaged.iter().find(|(of, key)| *of == family && meets(key)) {
            Some((_, key)) => Err(StoreError::Damaged(format!("planned, in {}: {key:?}", family.name()))),
            None => Ok(()),
        }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.fault()?;
        self.inner.write(batch, durability)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(family, |damaged| damaged == key)?;
        self.inner.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.read(family, |damaged| keys.contains(&damaged))?;
        self.inner.get_many(family, keys)
    }

    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(family, |damaged| range.contains(&damaged))?;
        self.inner.scan(family, range, limit)
    }

    fn last(&self, family: Family, range: Range<&[u8]>) -> Result<Option<Entry>, StoreError> {
        self.read(family, |damaged| range.contains(&damaged))?;
        self.inner.last(family, range)
    }

    fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        self.inner.reclaim()
    }

    fn oldest_physical_ms(&self) -> Result<Option<u64>, StoreError> {
        self.inner.oldest_physical_ms()
    }

    fn healthy(&self) -> Result<(), StoreError> {
        match self.faults.lock().unwrap_or_else(PoisonError::into_inner).lasting.clone() {
            Some(error) => Err(error),
            None => self.inner.healthy(),
        }
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{Bench, conformance_tests, expiry};
    use crate::store::memory::MemoryStore;

    fn bench() -> Bench {
        let (time, expiry) = expiry();
        let store = FaultyStore::new(MemoryStore::new(expiry.clone()));
        Bench { time, store: Box::new(store), expiry, directory: None }
    }

    conformance_tests!(bench);

    #[test]
    fn a_planned_failure_leaves_nothing_and_passes() {
        let store = FaultyStore::new(MemoryStore::new(expiry().1));
        let mut batch = Batch::new();
        batch.put(Family::Meta, b"k", b"v");
        let full = StoreError::Full("planned".to_owned());
        store.fail_next_write(full.clone());
        assert_eq!(store.write(&batch, Durability::Synced), Err(full.clone()));
        assert_eq!(store.get(Family::Meta, b"k"), Ok(None));
        assert_eq!(store.write(&batch, Durability::Synced), Ok(()));
        store.fail_all_writes(Some(full.clone()));
        assert_eq!(store.healthy(), Err(full));
        store.fail_all_writes(None);
        assert_eq!(store.healthy(), Ok(()));
    }
}
