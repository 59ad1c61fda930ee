//! What the database takes on its disk, and what it has written: for the metrics.

use std::fs;
use std::sync::atomic::Ordering;

use rocksdb::statistics::Ticker;
use rocksdb::{LiveFile, properties};

use super::{RocksStore, span_ms, world};
use crate::store::{Family, Footprint, StoreError};

impl RocksStore {
    /// Reads the database's own counters, and lists its directory.
    pub(super) fn measure(&self) -> Result<Footprint, StoreError> {
        Ok(Footprint {
            disk_bytes: self.disk_bytes()?,
            live_bytes: self.live_bytes()?,
            log_bytes: self.options.get_ticker_count(Ticker::WalFileBytes),
            flush_bytes: self.options.get_ticker_count(Ticker::FlushWriteBytes),
            compaction_bytes: self.options.get_ticker_count(Ticker::CompactWriteBytes),
            entries_filtered: self.tallies.iter().map(|tally| tally.dropped()).sum(),
            entries_dropped: self.entries_dropped.load(Ordering::Relaxed),
        })
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let entries = fs::read_dir(self.db.path()).map_err(|error| StoreError::Io(error.to_string()))?;
        // A file that goes away meanwhile counts as gone.
        let sizes = entries.map_while(Result::ok).filter_map(|entry| entry.metadata().ok());
        Ok(sizes.map(|metadata| metadata.len()).sum())
    }

    /// The newest values in tables and memory, without the part of messages that has expired.
    fn live_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0_u64;
        for family in Family::ALL {
            let handle = self.handle(family);
            for property in [properties::ESTIMATE_LIVE_DATA_SIZE, properties::CUR_SIZE_ALL_MEM_TABLES] {
                let value = self.db.property_int_value_cf(handle, property).map_err(world)?;
                bytes = bytes.saturating_add(value.unwrap_or_default());
            }
        }
        let Some(expired_ms) = self.expiry.expired_until_ms() else { return Ok(bytes) };
        let expired: u64 = self.message_files()?.iter().map(|file| expired_bytes(file, expired_ms)).sum();
        Ok(bytes.saturating_sub(expired))
    }
}

/// The part of a table of messages that has expired, as if they had come evenly.
fn expired_bytes(file: &LiveFile, expired_ms: u64) -> u64 {
    let (first_ms, last_ms) = span_ms(file);
    let size = u128::try_from(file.size).unwrap_or(u128::MAX);
    let span_ms = u128::from(last_ms.saturating_sub(first_ms).saturating_add(1));
    let gone_ms = u128::from(expired_ms.saturating_add(1).saturating_sub(first_ms)).min(span_ms);
    u64::try_from(size.saturating_mul(gone_ms).checked_div(span_ms).unwrap_or(0)).unwrap_or(u64::MAX)
}
