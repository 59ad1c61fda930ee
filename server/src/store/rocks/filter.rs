//! The compaction filters: what has expired is left out when a table is rewritten.

use std::ffi::CStr;

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::store::expiry::{Expiry, ExpiryRule, Judge};

const NAME: &CStr = c"gureum.expiry";

/// Makes a filter for each compaction. Called from several threads at once, so it only reads.
pub(super) struct ExpiryFilters {
    pub(super) expiry: Expiry,
    pub(super) rule: ExpiryRule,
}

impl CompactionFilterFactory for ExpiryFilters {
    type Filter = ExpiryFilter;

    fn create(&mut self, _context: CompactionFilterContext) -> ExpiryFilter {
        ExpiryFilter { judge: self.expiry.judge(self.rule) }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// Judges the records of one compaction.
pub(super) struct ExpiryFilter {
    judge: Judge,
}

impl CompactionFilter for ExpiryFilter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        if self.judge.is_expired(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}
