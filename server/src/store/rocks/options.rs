//! The settings of RocksDB, and why each is not the default.

use std::sync::Arc;

use rocksdb::statistics::StatsLevel;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel, Options,
    SliceTransform,
};

use super::filter::{ExpiryFilters, Tallies, Tally};
use crate::limits;
use crate::store::{Access, Expiry, ExpiryRule, Family};

/// Bits of a bloom filter for each key: one look-up in a hundred reads a table in vain.
const BLOOM_BITS: f64 = 10.0;

/// Tables are handed to the disk in pieces of this size, so that the log's fsync never waits behind a whole one.
const TABLE_SYNC_BYTES: u64 = 1024 * 1024;

/// The settings of the whole database.
pub(super) fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);

    // The log. What was synced is never given up: recovery stops at the first record that does not fit, which after a
    // power cut is the end of what was synced. The modes that refuse damage refuse such an end as well, and this one
    // forgets what follows damage: so `log` looks first, and tells them apart. A recycled or archived log would keep
    // expired ciphertext.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A log that a newer one has followed is noted with its length. Without, one that is emptied or cut between two
    // records would pass for whole, where later records or tables have come as far as the database had.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_manual_wal_flush(false);
    options.set_recycle_log_file_num(0);
    options.set_wal_ttl_seconds(0);
    options.set_wal_size_limit_mb(0);
    options.set_max_total_wal_size(limits::WAL_BYTES_MAX);

    // Bounds.
    options.set_db_write_buffer_size(limits::MEMTABLES_BYTES_MAX);
    options.set_max_open_files(limits::STORE_OPEN_FILES_MAX);
    // One flush and one compaction: the machine also has a server to run.
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(TABLE_SYNC_BYTES);

    // RocksDB's own log: warnings alone, two small files, and no statistics.
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(limits::STORE_LOG_BYTES_MAX);
    options.set_keep_log_file_num(2);
    // The list of tables names their first and last keys, those of tables that are gone included, until it is begun anew.
    options.set_max_manifest_file_size(limits::STORE_MANIFEST_BYTES_MAX);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // Counters alone, for the metrics: bytes written, by what.
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options
}

/// All families with their settings; `default`, which RocksDB insists on, stays empty.
pub(super) fn families(expiry: &Expiry, tallies: &Tallies) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(limits::BLOCK_CACHE_BYTES);
    let named = Family::ALL
        .into_iter()
        .zip(tallies)
        .map(|(name, tally)| ColumnFamilyDescriptor::new(name.name(), family(name, expiry, &cache, tally)));
    std::iter::once(ColumnFamilyDescriptor::new("default", Options::default())).chain(named).collect()
}

fn family(family: Family, expiry: &Expiry, cache: &Cache, tally: &Arc<Tally>) -> Options {
    let data = family.options();
    let mut options = Options::default();
    // Bodies are ciphertext and entries are mostly random ids: nothing would shrink.
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(data.memtable_bytes);
    options.set_max_write_buffer_number(limits::MEMTABLES_PER_FAMILY_MAX);

    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Within the bound of the cache, instead of growing with the database.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    match data.access {
        Access::Point => table.set_bloom_filter(BLOOM_BITS, false),
        Access::Range { prefix_bytes: 0 } => {}
        Access::Range { prefix_bytes } => {
            options.set_prefix_extractor(SliceTransform::create_fixed_prefix(prefix_bytes));
            table.set_bloom_filter(BLOOM_BITS, false);
            table.set_whole_key_filtering(false);
        }
    }
    options.set_block_based_table_factory(&table);

    if data.expiry != ExpiryRule::Never {
        let rewrite_after = rewrite_seconds(family, expiry);
        let (expiry, tally) = (expiry.clone(), Arc::clone(tally));
        options.set_compaction_filter_factory(ExpiryFilters { expiry, rule: data.expiry, tally });
        options.set_periodic_compaction_seconds(rewrite_after);
    }
    options
}

/// The age at which RocksDB rewrites a table by itself. It knows ages across restarts, which our own
/// periods don't; ours reach idle families, which RocksDB's don't.
fn rewrite_seconds(family: Family, expiry: &Expiry) -> u64 {
    // Messages go by whole files: a table should be rewritten once at most.
    let period_ms = expiry.periods().compaction_ms(family).unwrap_or(expiry.retention_ms);
    period_ms.div_ceil(1_000).max(1)
}
