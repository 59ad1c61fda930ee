//! A store that says of another one what it likes: what it does not change is passed on.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use gureum_server::store::{Batch, Durability, Entry, Family, Footprint, Reclaimed, Store, StoreError};

/// What is done instead of what the store behind it does.
pub(crate) trait Alter: Send + Sync + 'static {
    /// The store behind it.
    fn store(&self) -> &dyn Store;

    /// As [`Store::write`].
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.store().write(batch, durability)
    }

    /// As [`Store::get`].
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store().get(family, key)
    }

    /// As [`Store::get_many`].
    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.store().get_many(family, keys)
    }

    /// As [`Store::scan`].
    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.store().scan(family, range, limit)
    }

    /// As [`Store::close`].
    fn close(&self) -> Result<(), StoreError> {
        self.store().close()
    }
}

/// A store, altered.
pub(crate) struct Altered<A>(pub(crate) A);

impl<A: Alter> Store for Altered<A> {
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
        self.0.store().last(family, range)
    }

    fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        self.0.store().reclaim()
    }

    fn oldest_physical_ms(&self) -> Result<Option<u64>, StoreError> {
        self.0.store().oldest_physical_ms()
    }

    fn footprint(&self) -> Result<Footprint, StoreError> {
        self.0.store().footprint()
    }

    fn healthy(&self) -> Result<(), StoreError> {
        self.0.store().healthy()
    }

    fn checkpoint(&self, to: &Path) -> Result<(), StoreError> {
        self.0.store().checkpoint(to)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.0.close()
    }
}
