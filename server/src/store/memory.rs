//! The store as ordered maps in memory: the reference model for tests, fuzzing and simulation.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use super::{Batch, Change, Durability, Entry, Expiry, Family, Reclaimed, Store, StoreError, key};
use crate::limits::SCAN_ENTRIES_MAX;

type Map = BTreeMap<Bytes, Bytes>;

/// What stands in every family.
#[derive(Debug, Clone)]
pub(super) struct Families(BTreeMap<Family, Map>);

impl Families {
    pub(super) fn new() -> Self {
        Self(Family::ALL.into_iter().map(|family| (family, Map::new())).collect())
    }

    pub(super) fn apply(&mut self, batch: &Batch) {
        for change in batch.changes() {
            match change {
                Change::Put { family, key, value } => {
                    self.map_mut(family).insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
                }
                Change::Delete { family, key } => self.map_mut(family).remove(key),
            };
        }
    }

    /// Drops what has expired; returns how many records that were.
    pub(super) fn reclaim(&mut self, expiry: &Expiry) -> u64 {
        let mut dropped = 0_usize;
        for (family, map) in &mut self.0 {
            let mut judge = expiry.judge(family.options().expiry);
            let before = map.len();
            map.retain(|key, value| !judge.is_expired(key, value));
            dropped += before - map.len();
        }
        u64::try_from(dropped).unwrap_or(u64::MAX)
    }

    fn map(&self, family: Family) -> &Map {
        self.0.get(&family).expect("every family has its map")
    }

    fn map_mut(&mut self, family: Family) -> &mut Map {
        self.0.get_mut(&family).expect("every family has its map")
    }
}

/// A store that lives as long as the process.
#[derive(Debug)]
pub struct MemoryStore {
    expiry: Expiry,
    families: RwLock<Families>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(expiry: Expiry) -> Self {
        Self::holding(Families::new(), expiry)
    }

    pub(super) fn holding(families: Families, expiry: Expiry) -> Self {
        Self { expiry, families: RwLock::new(families) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Families> {
        self.families.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, family: Family, look: impl FnOnce(&Map) -> T) -> T {
        look(self.read().map(family))
    }
}

impl Store for MemoryStore {
    fn write(&self, batch: &Batch, _durability: Durability) -> Result<(), StoreError> {
        self.families.write().unwrap_or_else(PoisonError::into_inner).apply(batch);
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
        let dropped = self.families.write().unwrap_or_else(PoisonError::into_inner).reclaim(&self.expiry);
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
