//! The metrics of what is stored: its room on the disk, what is written for it, and how it goes.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::store::Footprint;

/// Handles to the metrics of the store.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    /// 1 while the store can write.
    pub(crate) healthy: Gauge,
    /// The age of the oldest message of which a byte may be on the disk.
    pub(crate) oldest_physical_age_seconds: Gauge,
    /// A round of reclaiming.
    pub(crate) reclaim_seconds: Histogram,
    disk_bytes: Gauge,
    live_bytes: Gauge,
    written_log: Counter,
    written_flush: Counter,
    written_compaction: Counter,
    expired_filtered: Counter,
    expired_dropped: Counter,
}

impl StoreMetrics {
    /// Looks the handles up in the recorder of this thread.
    pub(super) fn register() -> Self {
        let healthy = gauge!("gureum_store_healthy");
        // Until the first look, which a start may take minutes to come to, nothing has failed.
        healthy.set(1.0);
        Self {
            healthy,
            oldest_physical_age_seconds: gauge!("gureum_oldest_physical_age_seconds"),
            reclaim_seconds: histogram!("gureum_reclaim_seconds"),
            disk_bytes: gauge!("gureum_store_disk_bytes"),
            live_bytes: gauge!("gureum_store_live_bytes"),
            written_log: counter!("gureum_store_written_bytes_total", "by" => "log"),
            written_flush: counter!("gureum_store_written_bytes_total", "by" => "flush"),
            written_compaction: counter!("gureum_store_written_bytes_total", "by" => "compaction"),
            expired_filtered: counter!("gureum_store_expired_entries_total", "by" => "compaction"),
            expired_dropped: counter!("gureum_store_expired_entries_total", "by" => "file"),
        }
    }

    /// Shows what the store has measured.
    pub(crate) fn show(&self, footprint: &Footprint) {
        self.disk_bytes.set(gauge_bytes(footprint.disk_bytes));
        self.live_bytes.set(gauge_bytes(footprint.live_bytes));
        self.written_log.absolute(footprint.log_bytes);
        self.written_flush.absolute(footprint.flush_bytes);
        self.written_compaction.absolute(footprint.compaction_bytes);
        self.expired_filtered.absolute(footprint.entries_filtered);
        self.expired_dropped.absolute(footprint.entries_dropped);
    }
}

/// Bytes as a gauge has them, exact up to 2^53.
fn gauge_bytes(bytes: u64) -> f64 {
    bytes as f64
}

pub(super) fn describe() {
    describe_gauge!("gureum_store_healthy", "1 while the store can write");
    describe_gauge!(
        "gureum_oldest_physical_age_seconds",
        "age of the oldest message of which a byte may be on the disk: stays near the retention"
    );
    describe_histogram!("gureum_reclaim_seconds", "a round of removing what has expired from the disk");
    describe_gauge!("gureum_store_disk_bytes", "bytes of the database's files");
    describe_gauge!("gureum_store_live_bytes", "about how many of them can still be read");
    describe_counter!("gureum_store_written_bytes_total", "bytes written to the log, in flushes and in compactions");
    describe_counter!(
        "gureum_store_expired_entries_total",
        "expired or taken records removed, in compactions or with their whole file"
    );
}
