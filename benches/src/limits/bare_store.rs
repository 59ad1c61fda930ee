//! The bare database: the server's batches written to RocksDB with the store's settings, one fsync each, and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gureum_server::bare;
use gureum_server::store::{Batch, Change, Family};
use rocksdb::statistics::Ticker;
use rocksdb::{DB, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};

use super::Measured;
use super::shape::Shape;
use super::used::CpuClock;
use super::writes::{Writes, expiry};

/// Batches that are made before they are written: some megabytes at the largest.
const BATCHES_AHEAD: u64 = 32;

/// RocksDB puts a tag, a family and two lengths before each change.
const CHANGE_OVERHEAD_BYTES: usize = 12;

/// What was written, and what that cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The messages, with the processor time of all threads but for the making of batches, and the time of the writes alone.
    pub measured: Measured,
    /// Batches.
    pub batches: u64,
    /// Changes in all of them.
    pub changes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
}

/// Writes a run into a new database in a directory.
///
/// # Errors
/// The disk refuses, or the shape is of nothing.
pub fn run(directory: &Path, shape: &Shape) -> Result<Stored> {
    ensure!(shape.messages > 0 && shape.batches > 0 && shape.pairs > 0, "there is nothing to write");
    let expiry = expiry()?;
    let (db, options) = bare::database(&directory.join("db"), &expiry)?;
    let mut writes = Writes::new(expiry, shape.pairs, shape.sealed_bytes)?;
    let (process, thread) = (CpuClock::of_this_process(), CpuClock::of_this_thread());
    let log_before = options.get_ticker_count(Ticker::WalFileBytes);
    let cpu_before = process.now()?;
    let (mut making, mut writing) = (Duration::ZERO, Duration::ZERO);
    let (mut number, mut changes) = (0, 0);
    let mut batches = Vec::new();
    while number < shape.batches {
        let making_from = thread.now()?;
        batches.clear();
        let until = shape.batches.min(number + BATCHES_AHEAD);
        for number in number..until {
            batches.push(writes.batch(shape.batch(number))?);
        }
        number = until;
        making += thread.now()?.saturating_sub(making_from);
        let writing_from = Instant::now();
        for batch in &batches {
            write(&db, batch)?;
            changes += u64::try_from(batch.len())?;
        }
        writing += writing_from.elapsed();
    }
    let cpu = process.now()?.saturating_sub(cpu_before).saturating_sub(making);
    Ok(Stored {
        measured: Measured { messages: shape.messages, cpu_s: cpu.as_secs_f64(), wall_s: writing.as_secs_f64() },
        batches: shape.batches,
        changes,
        log_bytes: options.get_ticker_count(Ticker::WalFileBytes).saturating_sub(log_before),
    })
}

fn write(db: &DB, batch: &Batch) -> Result<()> {
    let handle = |family: Family| db.cf_handle(family.name()).context("a family is missing");
    let overhead = batch.len().saturating_mul(CHANGE_OVERHEAD_BYTES);
    let mut changes = WriteBatch::with_capacity_bytes(batch.bytes().saturating_add(overhead));
    for change in batch.changes() {
        match change {
            Change::Put { family, key, value } => changes.put_cf(handle(family)?, key, value),
            Change::Delete { family, key } => changes.delete_cf(handle(family)?, key),
        }
    }
    let mut options = WriteOptions::default();
    options.set_sync(true);
    Ok(db.write_opt(changes, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_messages_of_a_run_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let shape = Shape { pairs: 4, sealed_bytes: 256, messages: 1_000, batches: 100, senders: 400, cursors: 300 };
        let stored = run(directory.path(), &shape).unwrap();
        assert_eq!((stored.measured.messages, stored.batches), (1_000, 100));
        // The first batch has nothing to ack.
        assert_eq!(stored.changes, 3 * 1_000 + 2 * 400 + 99 * 3);
        assert!(stored.log_bytes > 1_000 * 256, "{stored:?}");
        assert!(stored.measured.cpu_s > 0.0 && stored.measured.wall_s > 0.0, "{stored:?}");
        let db = bare::database(&directory.path().join("db"), &expiry().unwrap()).unwrap().0;
        let messages = db.cf_handle(Family::Message.name()).unwrap();
        assert_eq!(db.iterator_cf(messages, rocksdb::IteratorMode::Start).count(), 1_000);
    }

    #[test]
    fn a_run_of_nothing_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let shape = Shape { pairs: 1, sealed_bytes: 256, messages: 0, batches: 0, senders: 0, cursors: 0 };
        assert!(run(directory.path(), &shape).is_err());
    }
}
