//! A store with a bug in it, on a disk that works.
//!
//! What is written goes through [`write`] to the disk, whose auditor sees it; what is read comes back through [`read`], and
//! nobody but the model can tell.

mod read;
mod stale;
mod write;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use gureum_server::node::OpenStore;
use gureum_server::store::{Batch, Durability, Entry, Expiry, Family, Store, StoreError};

use super::Sabotage;
use crate::altered::{Alter, Altered};
use stale::Stale;

/// The write at which a store panics: some that everybody needs have passed.
const PANICS_AT: u64 = 20;

pub(super) fn spoiled(bug: Sabotage, open: OpenStore) -> OpenStore {
    Box::new(move |expiry| {
        let retention_ms = if bug == Sabotage::DroppedEarly { expiry.retention_ms / 2 } else { expiry.retention_ms };
        let of = open(Expiry { retention_ms, ..expiry.clone() })?;
        let is_new = of.last(Family::DeviceLog, &[]..&[u8::MAX; 24])?.is_none();
        if bug == Sabotage::NoSecondStart && !is_new {
            return Err(StoreError::Damaged("what was written is refused".to_owned()));
        }
        let (stale, known) = (Stale::default(), Mutex::default());
        Ok(Arc::new(Altered(Spoiled { bug, of, expiry, writes: AtomicU64::new(0), stale, known })))
    })
}

struct Spoiled {
    bug: Sabotage,
    of: Arc<dyn Store>,
    expiry: Expiry,
    writes: AtomicU64,
    stale: Stale,
    /// Entries of device logs that were written since the start.
    known: Mutex<BTreeSet<Bytes>>,
}

impl Alter for Spoiled {
    fn store(&self) -> &dyn Store {
        self.of.as_ref()
    }

    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed);
        assert!(self.bug != Sabotage::StorePanics || writes != PANICS_AT, "a deliberate panic");
        self.before_write(batch)?;
        self.of.write(
            &write::spoiled(self.bug, self.of.as_ref(), batch),
            write::durability(self.bug, batch, durability),
        )?;
        self.after_write(batch);
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match (self.bug, family) {
            (Sabotage::StaleReads, Family::InboxHead) => match self.stale.read(key, self.expiry.clock.now_ms()) {
                Some(head) => Ok(head),
                None => self.of.get(family, key),
            },
            (Sabotage::AccountsForgotten, Family::DeviceLog) => {
                let is_known = self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(key);
                if is_known { self.of.get(family, key) } else { Ok(None) }
            }
            _ => Ok(self.of.get(family, key)?.map(|value| read::spoiled(self.bug, family, value))),
        }
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut values = self.of.get_many(family, keys)?;
        if self.bug == Sabotage::BodyLost && family == Family::Message {
            let lost = keys.iter().zip(&mut values).filter(|(key, _)| is_hit(key));
            lost.for_each(|(_, value)| *value = None);
        }
        Ok(values)
    }

    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut entries = self.of.scan(family, range, limit)?;
        if family == Family::Inbox {
            read::spoil_inbox(self.bug, &mut entries);
        }
        Ok(entries)
    }

    fn close(&self) -> Result<(), StoreError> {
        if self.bug == Sabotage::NoClose {
            return Err(StoreError::Io("it cannot be closed".to_owned()));
        }
        self.of.close()
    }
}

/// Whether a bug that hits some hits what has this key: a message by the end of its id, a position by its number.
fn is_hit(key: &[u8]) -> bool {
    key.last().is_some_and(|last| last % 5 == 3)
}
