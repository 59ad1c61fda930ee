//! The compaction filters: what has expired is left out when a table is rewritten.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use super::NOTHING;
use crate::store::Family;
use crate::store::expiry::{Expiry, ExpiryRule, Judge};

const NAME: &CStr = c"gureum.expiry";

/// What the filters of one family have seen.
#[derive(Debug)]
pub(super) struct Tally {
    dropped: AtomicU64,
    oldest_kept_ms: AtomicU64,
}

/// One for each family, in the order of their numbers.
pub(super) type Tallies = [Arc<Tally>; Family::ALL.len()];

impl Tally {
    /// Nothing seen.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { dropped: AtomicU64::new(0), oldest_kept_ms: AtomicU64::new(NOTHING) })
    }

    /// Records that were left out since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The time of the oldest record that was kept since the last call, [`NOTHING`] if there was none.
    pub(super) fn take_oldest_kept_ms(&self) -> u64 {
        self.oldest_kept_ms.swap(NOTHING, Ordering::AcqRel)
    }
}

/// Makes a filter for each compaction. Called from several threads at once, so it only reads.
pub(super) struct ExpiryFilters {
    pub(super) expiry: Expiry,
    pub(super) rule: ExpiryRule,
    pub(super) tally: Arc<Tally>,
}

impl CompactionFilterFactory for ExpiryFilters {
    type Filter = ExpiryFilter;

    fn create(&mut self, _context: CompactionFilterContext) -> ExpiryFilter {
        ExpiryFilter { judge: self.expiry.judge(self.rule), dropped: 0, tally: Arc::clone(&self.tally) }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// Judges the records of one compaction.
pub(super) struct ExpiryFilter {
    judge: Judge,
    dropped: u64,
    tally: Arc<Tally>,
}

impl CompactionFilter for ExpiryFilter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        if self.judge.is_expired(key, value) {
            self.dropped = self.dropped.saturating_add(1);
            CompactionDecision::Remove
        } else {
            CompactionDecision::Keep
        }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// A compaction is counted once, at its end.
impl Drop for ExpiryFilter {
    fn drop(&mut self) {
        self.tally.dropped.fetch_add(self.dropped, Ordering::Relaxed);
        self.tally.oldest_kept_ms.fetch_min(self.judge.oldest_kept_ms().unwrap_or(NOTHING), Ordering::AcqRel);
    }
}
