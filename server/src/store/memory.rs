//! The store as ordered maps in memory: the reference model for tests, fuzzing and simulation.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use super::{Batch, Change, Durability, Entry, Expiry, Family, Reclaimed, Store, StoreError, key};
use crate::limits::SCAN_ENTRIES_MAX;

type Map = BTreeMap<Bytes, Bytes>;

/// A store that lives as long as the process.
#[derive(Debug)]
pub struct MemoryStore {
    expiry: Expiry,
    families: RwLock<BTreeMap<Family, Map>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(expiry: Expiry) -> Self {
        let families = Family::ALL.into_iter().map(|family| (family, Map::new())).collect();
        Self { expiry, families: RwLock::new(families) }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Family, Map>> {
        self.families.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, family: Family, look: impl FnOnce(&Map) -> T) -> T {
        look(self.read().get(&family).expect("every family has its map"))
    }
}

impl Store for MemoryStore {
    fn write(&self, batch: &Batch, _durability: Durability) -> Result<(), StoreError> {
        let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
        for change in batch.changes() {
            match change {
                Change::Put { family, key, value } => families
                    .entry(family)
                    .or_default()
                    .insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
                Change::Delete { family, key } => families.entry(family).or_default().remove(key),
            };
        }
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.with(family, |map| map.get(key).cloned()))
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        Ok(self.with(family, |map| keys.iter().map(|key| map.get(*key).cloned()).collect()))
    }

    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        Ok(self.with(family, |map| {
            within(map, &range)
                .take(limit.min(SCAN_ENTRIES_MAX))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        }))
    }

    fn last(&self, family: Family, range: Range<&[u8]>) -> Result<Option<Entry>, StoreError> {
        Ok(self.with(family, |map| within(map, &range).next_back().map(|(key, value)| (key.clone(), value.clone()))))
    }

    fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0_u64;
        for (family, map) in families.iter_mut() {
            let mut judge = self.expiry.judge(family.options().expiry);
            let before = map.len();
            map.retain(|key, value| !judge.is_expired(key, value));
            let gone = before.saturating_sub(map.len());
            dropped = dropped.saturating_add(u64::try_from(gone).unwrap_or(u64::MAX));
        }
        Ok(Reclaimed { flushed: false, dropped, compacted: 0 })
    }

    fn oldest_physical_ms(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.with(Family::Message, |map| map.first_key_value().and_then(|(key, _)| key::message_time_ms(key))))
    }

    fn healthy(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn within<'a>(map: &'a Map, range: &Range<&[u8]>) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Bytes)> {
    // A map panics at a range that ends before it starts.
    let end = range.end.max(range.start);
    map.range::<[u8], _>((Bound::Included(range.start), Bound::Excluded(end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{Bench, conformance_tests, expiry};

    fn bench() -> Bench {
        let (time, expiry) = expiry();
        Bench { time, store: Box::new(MemoryStore::new(expiry.clone())), expiry, directory: None }
    }

    conformance_tests!(bench);
}
