//! The store on RocksDB: one write-ahead log, one fsync a batch, expiry by filter, whole files and flushes.

pub(crate) mod fence;
mod filter;
mod footprint;
pub(crate) mod format;
pub(crate) mod log;
mod options;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, CompactOptions, DB, DBRawIterator, FlushOptions, LiveFile, Options, ReadOptions,
    WaitForCompactOptions, WriteBatch, WriteOptions, properties,
};

use super::{Access, Batch, Change, Durability, Entry, Expiry, Family, Footprint, Reclaimed, Store, StoreError, key};
use crate::fault::{is_wanted, step};
use crate::files::make_private_dir;
use crate::limits::SCAN_ENTRIES_MAX;
use crate::store::record::InboxEntry;
use fence::Fence;
use filter::{Tallies, Tally};

/// A database with the store's settings and families and nothing of the store around it, to hold the store's cost against;
/// and its settings, which hold its counters.
///
/// # Errors
/// What RocksDB says.
pub(crate) fn bare(directory: &Path, expiry: &Expiry) -> Result<(DB, Options), StoreError> {
    let (options, tallies) = (options::database(), Family::ALL.map(|_| Tally::new()));
    let db = DB::open_cf_descriptors(&options, directory, options::families(expiry, &tallies)).map_err(unopened)?;
    Ok((db, options))
}

/// A time of what there is none of.
const NOTHING: u64 = u64::MAX;

/// The key of [`Family::Meta`] that is written to see whether writing works again.
const PROBE: &str = "probe";

/// The embedded store of one data directory.
pub struct RocksStore {
    db: DB,
    expiry: Expiry,
    /// When the oldest write went into the log that still holds it.
    unflushed_write_ms: AtomicU64,
    /// The time of the oldest message or pointer in that log.
    unflushed_message_ms: AtomicU64,
    /// No entry in the tables of inboxes is older.
    oldest_pointer_ms: AtomicU64,
    compacted_ms: Mutex<CompactedMs>,
    tallies: Tallies,
    /// Records that went with their tables.
    entries_dropped: AtomicU64,
    /// Holds the database's counters.
    options: Options,
    has_failed: AtomicBool,
    /// Failures of flushes and compactions that were looked into.
    background_errors: AtomicU64,
    fence: Fence,
    /// Held as long as the database is open; declared after it, so that it is let go last.
    _lock: File,
}

/// When each family was last compacted whole.
type CompactedMs = [u64; Family::ALL.len()];

impl RocksStore {
    /// Opens the data directory's database, or creates it in a directory that has none.
    ///
    /// # Errors
    /// [`StoreError::UnknownFormat`] leaves the directory as it was; [`StoreError::InUse`] when another
    /// process has it open; else what the disk says.
    pub fn open(directory: &Path, expiry: Expiry) -> Result<Self, StoreError> {
        let lock = format::claim(directory)?;
        let database = directory.join("db");
        log::refuse_damage(&database, true, fence::known(directory))?;
        // RocksDB would let others enter.
        make_private_dir(&database).map_err(format::world)?;
        let (options, tallies) = (options::database(), Family::ALL.map(|_| Tally::new()));
        let families = options::families(&expiry, &tallies);
        let db = DB::open_cf_descriptors(&options, &database, families).map_err(unopened)?;
        let fence = Fence::verify(directory, db.latest_sequence_number())?;
        Ok(Self {
            db,
            expiry,
            unflushed_write_ms: AtomicU64::new(NOTHING),
            unflushed_message_ms: AtomicU64::new(NOTHING),
            oldest_pointer_ms: AtomicU64::new(NOTHING),
            // How old what lies in the tables is nobody knows: the first round is a pass over all.
            compacted_ms: Mutex::new([0; Family::ALL.len()]),
            tallies,
            entries_dropped: AtomicU64::new(0),
            options,
            has_failed: AtomicBool::new(false),
            background_errors: AtomicU64::new(0),
            fence,
            _lock: lock,
        })
    }

    /// Waits until no flush and no compaction is under way or due. Where days go by in minutes, the database would else do
    /// at once what it does one after the other.
    ///
    /// # Errors
    /// One of them has failed.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.db.wait_for_compact(&WaitForCompactOptions::default()).map_err(world)
    }

    fn handle(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("`open` opens every family")
    }

    /// Writes to tables what the log holds, if its oldest is older than `flush_ms`; then the log goes.
    fn flush_older_than(&self, flush_ms: u64) -> Result<bool, StoreError> {
        let oldest_ms = self.unflushed_write_ms.load(Ordering::Acquire);
        if oldest_ms == NOTHING || self.expiry.clock.now_ms().saturating_sub(oldest_ms) < flush_ms {
            return Ok(false);
        }
        // A write marks itself after it is done. So one that is not in this flush marks itself after these
        // swaps, and waits for the next.
        let write_ms = self.unflushed_write_ms.swap(NOTHING, Ordering::AcqRel);
        let message_ms = self.unflushed_message_ms.swap(NOTHING, Ordering::AcqRel);
        let handles = Family::ALL.map(|family| self.handle(family));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        step("store::flush");
        self.db.flush_cfs_opt(&handles.each_ref(), &options).map_err(|error| {
            self.unflushed_write_ms.fetch_min(write_ms, Ordering::AcqRel);
            self.unflushed_message_ms.fetch_min(message_ms, Ordering::AcqRel);
            self.has_failed.store(true, Ordering::Release);
            unwritten(error)
        })?;
        self.oldest_pointer_ms.fetch_min(message_ms, Ordering::AcqRel);
        step("store::flushed");
        Ok(true)
    }

    /// The tables of messages.
    fn message_files(&self) -> Result<Vec<LiveFile>, StoreError> {
        let mut files = self.db.live_files().map_err(world)?;
        files.retain(|file| file.column_family_name == Family::Message.name());
        Ok(files)
    }

    /// Removes the tables whose messages have all expired, and rewrites those that have held expired messages
    /// for too long beside living ones.
    fn drop_expired_messages(&self) -> Result<Reclaimed, StoreError> {
        let mut done = Reclaimed::default();
        let Some(expired_ms) = self.expiry.expired_until_ms() else { return Ok(done) };
        let (start, end) = (key::message_floor(0), key::message_floor(expired_ms.saturating_add(1)));
        let is_expired = |file: &LiveFile| span_ms(file).1 <= expired_ms;
        let files = self.message_files()?;
        // Whole files go without being read, but only from below level 0.
        let whole: Vec<u64> =
            files.iter().filter(|file| file.level > 0 && is_expired(file)).map(|file| file.num_entries).collect();
        if !whole.is_empty() {
            step("store::drop");
            self.db.delete_file_in_range_cf(self.handle(Family::Message), &start, &end).map_err(world)?;
            step("store::dropped");
            done.dropped = u64::try_from(whole.len()).unwrap_or(u64::MAX);
            self.entries_dropped.fetch_add(whole.iter().sum(), Ordering::Relaxed);
        }
        let rewrite_ms = self.expiry.periods().rewrite_ms;
        let is_stale = |file: &LiveFile| {
            let (first_ms, _) = span_ms(file);
            is_expired(file) || first_ms.saturating_add(rewrite_ms) <= expired_ms
        };
        let left = if whole.is_empty() { files } else { self.message_files()? };
        if left.iter().any(is_stale) {
            self.compact(Family::Message, Some(&start), Some(&end));
            done.compacted = 1;
        }
        Ok(done)
    }

    fn compact_due_families(&self) -> u64 {
        let mut compacted_ms = self.compacted_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.expiry.clock.now_ms();
        let periods = self.expiry.periods();
        let mut compacted = 0_u64;
        for (family, last_ms) in Family::ALL.into_iter().zip(compacted_ms.iter_mut()) {
            let Some(period_ms) = periods.compaction_ms(family) else { continue };
            let is_late = family == Family::Inbox && self.holds_expired_pointers(now_ms);
            if is_late || now_ms.saturating_sub(*last_ms) >= period_ms {
                if self.compact_whole(family) {
                    *last_ms = now_ms;
                }
                compacted = compacted.saturating_add(1);
            }
        }
        compacted
    }

    /// Whether the tables of inboxes may hold entries that expired longer ago than they may stay.
    fn holds_expired_pointers(&self, now_ms: u64) -> bool {
        let stays_ms = self.expiry.retention_ms.saturating_add(self.expiry.periods().pointer_ms);
        self.oldest_pointer_ms.load(Ordering::Acquire).saturating_add(stays_ms) <= now_ms
    }

    /// Passes all of a family through its filter; says whether that went well.
    fn compact_whole(&self, family: Family) -> bool {
        let tally = self.tally(family);
        let is_inbox = family == Family::Inbox;
        let before_ms = if is_inbox { self.oldest_pointer_ms.swap(NOTHING, Ordering::AcqRel) } else { NOTHING };
        tally.take_oldest_kept_ms();
        let errors = self.background_errors();
        self.compact(family, None, None);
        // The call itself does not say whether it succeeded.
        let is_done = self.background_errors() == errors;
        if is_inbox {
            let kept_ms = if is_done { tally.take_oldest_kept_ms() } else { before_ms };
            self.oldest_pointer_ms.fetch_min(kept_ms, Ordering::AcqRel);
        }
        is_done
    }

    fn tally(&self, family: Family) -> &Tally {
        self.tallies.get(family as usize).expect("a family's number is its place in ALL")
    }

    fn background_errors(&self) -> u64 {
        self.db.property_int_value(properties::BACKGROUND_ERRORS).ok().flatten().unwrap_or_default()
    }

    fn compact(&self, family: Family, start: Option<&[u8]>, end: Option<&[u8]>) {
        step("store::compact");
        let mut options = CompactOptions::default();
        // RocksDB goes on with its own compactions meanwhile, so that writes don't stall behind this one.
        options.set_exclusive_manual_compaction(false);
        self.db.compact_range_cf_opt(self.handle(family), start, end, &options);
    }

    fn iterator(&self, family: Family, range: &Range<&[u8]>, is_ordered: bool) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.start);
        options.set_iterate_upper_bound(range.end);
        options.set_total_order_seek(is_ordered || !shares_prefix(family, range));
        self.db.raw_iterator_cf_opt(self.handle(family), options)
    }

    /// Writes a batch, and says to nobody how far the database has certainly come.
    fn apply(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        // A handle is found by its family's name, once: a lone message changes six families of many, a batch each many times.
        let mut handles = [None::<&ColumnFamily>; Family::ALL.len()];
        let mut handle = |family: Family| {
            let known = handles.get_mut(family as usize).expect("a family's number is its place in ALL");
            *known.get_or_insert_with(|| self.handle(family))
        };
        // RocksDB puts a tag, a family and two lengths before each change.
        let mut changes = WriteBatch::with_capacity_bytes(batch.bytes().saturating_add(batch.len().saturating_mul(12)));
        let mut message_ms = NOTHING;
        for change in batch.changes() {
            match change {
                Change::Put { family, key, value } => {
                    message_ms = message_ms.min(time_ms(family, key, value).unwrap_or(NOTHING));
                    changes.put_cf(handle(family), key, value);
                }
                Change::Delete { family, key } => changes.delete_cf(handle(family), key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced && !is_wanted("store::unsynced"));
        step("store::write");
        let write_ms = self.expiry.clock.now_ms();
        let result = self.db.write_opt(changes, &options).map_err(unwritten);
        // A failed write may have left bytes in the log as well.
        self.unflushed_message_ms.fetch_min(message_ms, Ordering::AcqRel);
        self.unflushed_write_ms.fetch_min(write_ms, Ordering::AcqRel);
        self.has_failed.store(result.is_err(), Ordering::Release);
        result
    }
}

impl Store for RocksStore {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.apply(batch, durability)?;
        if durability == Durability::Synced {
            // The newest change of all is on the disk: the one writer has made no lazy one since, and a probe syncs.
            // A disk that takes nothing any more right after that may have lost what it said it has synced.
            let sequence = self.db.latest_sequence_number();
            self.fence.raise(sequence).map_err(for_good)?;
        }
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_pinned_cf(self.handle(family), key).map_err(world)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        // The ids of a page of an inbox ascend, and RocksDB need not sort them again.
        let values = self.db.batched_multi_get_cf(self.handle(family), keys.iter().copied(), keys.is_sorted());
        values.into_iter().map(|value| Ok(value.map_err(world)?.map(|value| Bytes::copy_from_slice(&value)))).collect()
    }

    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let limit = limit.min(SCAN_ENTRIES_MAX);
        let mut entries = Vec::new();
        if range.start >= range.end || limit == 0 {
            return Ok(entries);
        }
        let mut iterator = self.iterator(family, &range, false);
        iterator.seek(range.start);
        while let Some((key, value)) = iterator.item() {
            entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if entries.len() >= limit {
                break;
            }
            iterator.next();
        }
        iterator.status().map_err(world)?;
        Ok(entries)
    }

    fn last(&self, family: Family, range: Range<&[u8]>) -> Result<Option<Entry>, StoreError> {
        if range.start >= range.end {
            return Ok(None);
        }
        let mut iterator = self.iterator(family, &range, true);
        iterator.seek_to_last();
        let entry = iterator.item().map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        iterator.status().map_err(world)?;
        Ok(entry)
    }

    fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        // Tables that go whole make room, which a flush may be waiting for.
        let messages = self.drop_expired_messages()?;
        let flushed = self.flush_older_than(self.expiry.periods().flush_ms)?;
        let compacted = self.compact_due_families().saturating_add(messages.compacted);
        Ok(Reclaimed { flushed, dropped: messages.dropped, compacted })
    }

    fn oldest_physical_ms(&self) -> Result<Option<u64>, StoreError> {
        // The log first: what moves from it to a table meanwhile is then seen there.
        let in_log_ms = self.unflushed_message_ms.load(Ordering::Acquire);
        let in_files_ms = self.message_files()?.iter().map(|file| span_ms(file).0).min().unwrap_or(NOTHING);
        let oldest_ms = in_log_ms.min(in_files_ms).min(self.oldest_pointer_ms.load(Ordering::Acquire));
        Ok((oldest_ms != NOTHING).then_some(oldest_ms))
    }

    fn footprint(&self) -> Result<Footprint, StoreError> {
        self.measure()
    }

    fn healthy(&self) -> Result<(), StoreError> {
        // A flush or a compaction that fails tells nobody: whether the store still writes shows when it is tried.
        let errors = self.background_errors();
        let is_news = self.background_errors.swap(errors, Ordering::AcqRel) != errors;
        if !is_news && !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(Family::Meta, key::meta(PROBE), []);
        // Beside the writer, whose lazy writes may come in between and are not on the disk: it leaves the fence alone.
        self.apply(&batch, Durability::Synced)
    }

    fn checkpoint(&self, to: &Path) -> Result<(), StoreError> {
        let checkpoint = Checkpoint::new(&self.db).map_err(world)?;
        checkpoint.create_checkpoint(to).map_err(world)?;
        make_private_dir(to).map_err(format::world)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.flush_older_than(0)?;
        self.db.flush_wal(true).map_err(world)?;
        self.fence.raise(self.db.latest_sequence_number())?;
        self.fence.sync()
    }
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStore").field("path", &self.db.path()).finish_non_exhaustive()
    }
}

/// The time of a message or of a pointer to one; `None` for everything else.
fn time_ms(family: Family, key: &[u8], value: &[u8]) -> Option<u64> {
    match family {
        Family::Message => key::message_time_ms(key),
        Family::Inbox if InboxEntry::is_welcome(value) => None,
        Family::Inbox => InboxEntry::peek_time_ms(value),
        _ => None,
    }
}

/// The times of a table's first and last message. A key that is no message id counts as living for ever.
fn span_ms(file: &LiveFile) -> (u64, u64) {
    let time_ms = |key: &Option<Vec<u8>>| key.as_deref().and_then(key::message_time_ms).unwrap_or(NOTHING);
    (time_ms(&file.start_key), time_ms(&file.end_key))
}

/// Whether all keys of the range share the prefix that the family's filters know.
fn shares_prefix(family: Family, range: &Range<&[u8]>) -> bool {
    match family.options().access {
        Access::Range { prefix_bytes } if prefix_bytes > 0 => {
            let prefix = range.start.get(..prefix_bytes);
            prefix.is_some() && prefix == range.end.get(..prefix_bytes)
        }
        Access::Point | Access::Range { .. } => false,
    }
}

/// What RocksDB says when it could not write. On a disk that has no room it goes on by itself as soon as there is some.
/// After any other failure, an fsync's above all, nobody knows what of the log is on the disk, and RocksDB takes
/// nothing until it is opened again.
fn unwritten(error: rocksdb::Error) -> StoreError {
    for_good(world(error))
}

/// What else might pass, of a disk of which nobody knows what it holds.
fn for_good(error: StoreError) -> StoreError {
    match error {
        StoreError::Io(text) => StoreError::Poisoned(text),
        other => other,
    }
}

/// Why RocksDB does not open a database, and what to do.
fn unopened(error: rocksdb::Error) -> StoreError {
    match world(error) {
        // A restored copy forgets what was noted of its logs; damaged tables and lists it refuses as well.
        StoreError::Damaged(text) if text.contains("Missing WAL") || text.contains("Size mismatch: WAL") => {
            StoreError::Damaged(format!(
                "{}. Restore a backup; or, to go on without what is gone, make a backup of the directory and restore \
                 that, so that no position is used twice",
                text.trim_end_matches('.')
            ))
        }
        other => other,
    }
}

/// What RocksDB says, by whose fault it is.
pub(crate) fn world(error: rocksdb::Error) -> StoreError {
    let kind = error.kind();
    let text = error.into_string();
    if text.contains("No space left on device") {
        return StoreError::Full(text);
    }
    match kind {
        rocksdb::ErrorKind::Corruption => StoreError::Damaged(text),
        rocksdb::ErrorKind::IOError
        | rocksdb::ErrorKind::TimedOut
        | rocksdb::ErrorKind::Busy
        | rocksdb::ErrorKind::TryAgain
        | rocksdb::ErrorKind::Incomplete => StoreError::Io(text),
        _ => StoreError::Poisoned(text),
    }
}
