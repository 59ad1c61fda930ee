//! A simulated disk, for tests and simulation: it outlives the stores that are opened on it, loses in a crash what
//! was not synced, and fails as it is told.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::audit::{self, Violation};
use super::memory::{Families, MemoryStore};
use super::{Batch, Change, Durability, Entry, Expiry, Family, Reclaimed, Store, StoreError};

/// Batches that a crash can take back; before that many are unsynced a system writes the oldest by itself.
const UNSYNCED_BATCHES_MAX: usize = 10_000;
/// Violations kept: the first ones tell what happened.
const VIOLATIONS_MAX: usize = 32;

/// How often calls fail, each out of a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Writes that are refused whole.
    pub writes: u16,
    /// Synced writes that fail at the end: what they held is not visible, and may be there when a store is opened again.
    /// The open one writes nothing more, since nobody knows what of its log is on the disk.
    pub syncs: u16,
    /// Reads.
    pub reads: u16,
}

/// What happened to a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Writes that were kept.
    pub writes: u64,
    /// Calls that failed as planned.
    pub faults: u64,
    /// Stores that can write nothing more because a sync failed.
    pub poisoned: u64,
    /// Crashes.
    pub crashes: u64,
    /// Batches that crashes took back.
    pub lost: u64,
    /// Batches of failed writes that were there after a crash.
    pub reappeared: u64,
}

/// A disk, and what is on it. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

struct Platter {
    entropy: Box<dyn FnMut() -> u64 + Send>,
    durable: Families,
    /// What came after `durable`, in order.
    unsynced: Vec<Written>,
    /// Which opening is the latest one, and whether it still works.
    opening: u64,
    is_open: bool,
    /// A sync of the open store has failed.
    is_poisoned: bool,
    rates: FaultRates,
    writes_fail: Option<StoreError>,
    reads_fail: Option<StoreError>,
    latency: RangeInclusive<Duration>,
    violations: Vec<Violation>,
    counts: DiskCounts,
}

struct Written {
    batch: Batch,
    /// Its write failed: it is not to be seen, but it may be on the disk.
    has_failed: bool,
}

impl SimDisk {
    /// An empty disk that works. `entropy` decides what fails and what a crash takes.
    #[must_use]
    pub fn new(entropy: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            entropy: Box::new(entropy),
            durable: Families::new(),
            unsynced: Vec::new(),
            opening: 0,
            is_open: false,
            is_poisoned: false,
            rates: FaultRates::default(),
            writes_fail: None,
            reads_fail: None,
            latency: Duration::ZERO..=Duration::ZERO,
            violations: Vec::new(),
            counts: DiskCounts::default(),
        })))
    }

    /// Opens a store on what is there. One that was opened before works no longer.
    ///
    /// # Errors
    /// As long as all reads are to fail.
    pub fn open(&self, expiry: Expiry) -> Result<Arc<dyn Store>, StoreError> {
        let mut platter = self.platter();
        platter.lose_unsynced();
        platter.reads_fail.clone().map_or(Ok(()), Err)?;
        platter.opening += 1;
        platter.is_open = true;
        platter.is_poisoned = false;
        let live = MemoryStore::holding(platter.durable.clone(), expiry.clone());
        let found = audit::whole(&live, &expiry)?;
        platter.report(found);
        let (opening, reclaimed_ms) = (platter.opening, AtomicU64::new(0));
        Ok(Arc::new(SimStore { disk: self.clone(), opening, expiry, live, reclaimed_ms }))
    }

    /// The machine stops: the open store fails from now on, and of what was not synced the newest part is lost.
    pub fn crash(&self) {
        let mut platter = self.platter();
        platter.is_open = false;
        platter.counts.crashes += 1;
        platter.lose_unsynced();
    }

    /// Sets how often calls fail.
    pub fn set_rates(&self, rates: FaultRates) {
        self.platter().rates = rates;
    }

    /// All writes are refused with this, as by a full disk, until it is taken back with `None`.
    pub fn fail_writes(&self, error: Option<StoreError>) {
        self.platter().writes_fail = error;
    }

    /// All reads fail with this until it is taken back with `None`.
    pub fn fail_reads(&self, error: Option<StoreError>) {
        self.platter().reads_fail = error;
    }

    /// Sets between what times a call takes.
    pub fn set_latency(&self, latency: RangeInclusive<Duration>) {
        self.platter().latency = latency;
    }

    /// How long the next call takes, for a caller that waits by itself: a store never blocks.
    #[must_use]
    pub fn latency(&self) -> Arc<dyn Fn() -> Duration + Send + Sync> {
        let disk = self.clone();
        Arc::new(move || {
            let mut platter = disk.platter();
            let (least, most) = (*platter.latency.start(), *platter.latency.end());
            let span_us = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX - 1);
            if span_us == 0 { least } else { least + Duration::from_micros(platter.below(span_us + 1)) }
        })
    }

    /// Which of the store's invariants were broken by what was written, oldest first; each is told once.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut self.platter().violations)
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.platter().counts
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Platter {
    /// A number below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        (self.entropy)() % end
    }

    fn happens(&mut self, of_thousand: u16) -> bool {
        of_thousand > 0 && self.below(1_000) < u64::from(of_thousand)
    }

    fn admit(&self, opening: u64) -> Result<(), StoreError> {
        if self.is_open && self.opening == opening {
            return Ok(());
        }
        Err(StoreError::Poisoned("the simulated machine has crashed".to_owned()))
    }

    fn admit_write(&self, opening: u64) -> Result<(), StoreError> {
        self.admit(opening)?;
        if self.is_poisoned {
            return Err(StoreError::Poisoned("a simulated sync has failed before".to_owned()));
        }
        Ok(())
    }

    fn failed<T>(&mut self, error: StoreError) -> Result<T, StoreError> {
        self.counts.faults += 1;
        Err(error)
    }

    fn report(&mut self, found: Vec<Violation>) {
        let room = VIOLATIONS_MAX.saturating_sub(self.violations.len());
        self.violations.extend(found.into_iter().take(room));
    }

    /// Keeps the older part of what was not synced.
    fn lose_unsynced(&mut self) {
        let written = std::mem::take(&mut self.unsynced);
        let kept = self.below(u64::try_from(written.len()).unwrap_or(u64::MAX - 1) + 1);
        for (index, written) in (0_u64..).zip(written) {
            if index < kept {
                self.counts.reappeared += u64::from(written.has_failed);
                self.durable.apply(&written.batch);
            } else {
                self.counts.lost += u64::from(!written.has_failed);
            }
        }
    }

    /// Everything so far can no longer be lost.
    fn settle(&mut self) {
        for written in self.unsynced.drain(..) {
            self.durable.apply(&written.batch);
        }
    }
}

/// A store on a [`SimDisk`].
struct SimStore {
    disk: SimDisk,
    opening: u64,
    expiry: Expiry,
    live: MemoryStore,
    /// When it was last reclaimed: that walks through everything.
    reclaimed_ms: AtomicU64,
}

impl SimStore {
    fn readable(&self) -> Result<&MemoryStore, StoreError> {
        let mut platter = self.disk.platter();
        platter.admit(self.opening)?;
        if let Some(error) = platter.reads_fail.clone() {
            return platter.failed(error);
        }
        let rate = platter.rates.reads;
        if platter.happens(rate) {
            return platter.failed(StoreError::Io("a simulated read failed".to_owned()));
        }
        Ok(&self.live)
    }
}

impl Store for SimStore {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        let mut platter = self.disk.platter();
        platter.admit_write(self.opening)?;
        if let Some(error) = platter.writes_fail.clone() {
            return platter.failed(error);
        }
        let FaultRates { writes, syncs, .. } = platter.rates;
        if platter.happens(writes) {
            return platter.failed(StoreError::Io("a simulated write failed".to_owned()));
        }
        let has_failed = durability == Durability::Synced && platter.happens(syncs);
        platter.unsynced.push(Written { batch: copy(batch), has_failed });
        if has_failed {
            platter.is_poisoned = true;
            platter.counts.poisoned += 1;
            return platter.failed(StoreError::Poisoned("a simulated sync failed".to_owned()));
        }
        let found = audit::batch(&self.live, batch, &self.expiry)?;
        platter.report(found);
        self.live.write(batch, durability)?;
        platter.counts.writes += 1;
        if durability == Durability::Synced {
            platter.settle();
        } else if platter.unsynced.len() > UNSYNCED_BATCHES_MAX {
            let oldest = platter.unsynced.remove(0);
            platter.durable.apply(&oldest.batch);
        }
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.readable()?.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.readable()?.get_many(family, keys)
    }

    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.readable()?.scan(family, range, limit)
    }

    fn last(&self, family: Family, range: Range<&[u8]>) -> Result<Option<Entry>, StoreError> {
        self.readable()?.last(family, range)
    }

    /// Drops at once from the disk what has expired, as a compaction does: no crash brings it back.
    fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        let mut platter = self.disk.platter();
        platter.admit(self.opening)?;
        let now_ms = self.expiry.clock.now_ms();
        if now_ms.saturating_sub(self.reclaimed_ms.load(Ordering::Relaxed)) < self.expiry.periods().flush_ms {
            return Ok(Reclaimed::default());
        }
        self.reclaimed_ms.store(now_ms, Ordering::Relaxed);
        platter.durable.reclaim(&self.expiry);
        self.live.reclaim()
    }

    fn oldest_physical_ms(&self) -> Result<Option<u64>, StoreError> {
        self.readable()?.oldest_physical_ms()
    }

    fn healthy(&self) -> Result<(), StoreError> {
        let platter = self.disk.platter();
        platter.admit_write(self.opening)?;
        platter.writes_fail.clone().map_or(Ok(()), Err)
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut platter = self.disk.platter();
        platter.admit_write(self.opening)?;
        platter.settle();
        Ok(())
    }
}

fn copy(batch: &Batch) -> Batch {
    let mut copy = Batch::new();
    for change in batch.changes() {
        match change {
            Change::Put { family, key, value } => copy.put(family, key, value),
            Change::Delete { family, key } => copy.delete(family, key),
        }
    }
    copy
}

#[cfg(test)]
mod tests;
