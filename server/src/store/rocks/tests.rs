//! Tests of what RocksDB adds: restarts, the format, the lock, and that expired bytes leave the disk.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::store::conformance::{
    ACCOUNT, Bench, OTHER, RETENTION_MS, START_MS, conformance_tests, expiry, put_entry, put_message,
};

conformance_tests!(bench);

fn bench() -> Bench {
    let (time, expiry) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let store = Box::new(RocksStore::open(directory.path(), expiry.clone()).unwrap());
    Bench { time, store, expiry, directory: Some(directory) }
}

/// How many files below a directory hold these bytes.
fn files_with(directory: &Path, bytes: &[u8]) -> usize {
    let mut found = 0;
    let mut open = vec![directory.to_path_buf()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes) {
            found += 1;
        }
    }
    found
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The logs of a data directory, oldest first.
fn logs(directory: &Path) -> Vec<PathBuf> {
    let db = directory.join("db");
    names(&db).into_iter().filter(|name| name.ends_with(".log")).map(|name| db.join(name)).collect()
}

#[track_caller]
fn is_private(path: &Path) {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "{}", path.display());
}

#[test]
fn nobody_else_may_enter_the_database_nor_a_copy_of_it() {
    let (_, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let (db, copy) = (directory.path().join("db"), directory.path().join("copy"));
    drop(RocksStore::open(directory.path(), rules.clone()).unwrap());
    is_private(&db);
    // As a server that did not look left it.
    fs::set_permissions(&db, fs::Permissions::from_mode(0o755)).unwrap();
    let store = RocksStore::open(directory.path(), rules).unwrap();
    is_private(&db);
    store.checkpoint(&copy).unwrap();
    is_private(&copy);
}

#[test]
fn what_was_synced_is_there_after_a_restart() {
    let (_, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let id = {
        let store = RocksStore::open(directory.path(), rules.clone()).unwrap();
        put_message(&store, START_MS, b"body")
    };
    let store = RocksStore::open(directory.path(), rules).unwrap();
    assert!(store.get(Family::Message, &key::message(&id)).unwrap().is_some());
    assert_eq!(store.oldest_physical_ms(), Ok(Some(START_MS)));
}

#[test]
fn what_was_synced_to_a_disk_that_then_takes_nothing_counts_as_unwritten_for_good() {
    let (_, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let mut store = RocksStore::open(directory.path(), rules).unwrap();
    put_message(&store, START_MS, b"body");
    store.fence.turn_read_only(directory.path());
    let mut batch = Batch::new();
    batch.put(Family::Meta, key::meta(PROBE), []);
    let written = store.write(&batch, Durability::Synced);
    assert!(matches!(&written, Err(StoreError::Poisoned(why)) if why.contains("`sequence`")), "{written:?}");
    assert_eq!(store.write(&batch, Durability::Lazy), Ok(()), "of that nobody is told");
}

#[test]
fn a_copy_of_the_files_at_any_moment_opens_with_all_that_was_synced() {
    let bench = bench();
    let directory = bench.directory.as_ref().unwrap().path();
    let id = put_message(&*bench.store, START_MS, b"body");
    // What a crash leaves: the files as they are, with nothing closed.
    let crashed = tempfile::tempdir().unwrap();
    fs::copy(directory.join("FORMAT"), crashed.path().join("FORMAT")).unwrap();
    fs::create_dir(crashed.path().join("db")).unwrap();
    for name in names(&directory.join("db")) {
        fs::copy(directory.join("db").join(&name), crashed.path().join("db").join(&name)).unwrap();
    }
    let store = RocksStore::open(crashed.path(), bench.expiry.clone()).unwrap();
    assert!(store.get(Family::Message, &key::message(&id)).unwrap().is_some());
}

#[test]
fn an_expired_ciphertext_is_nowhere_on_the_disk() {
    let mut bench = bench();
    let marker = b"the ciphertext that must go";
    for at in 0..50 {
        put_message(&*bench.store, START_MS + at, marker);
        put_entry(&*bench.store, &ACCOUNT, at + 1, START_MS + at);
    }
    let directory = bench.directory.take().unwrap();
    assert!(files_with(directory.path(), marker) > 0);
    let rounds = 20_000 / bench.expiry.periods().round_ms;
    for round in 0..rounds {
        bench.time.advance(bench.expiry.periods().round_ms);
        put_message(&*bench.store, bench.expiry.clock.now_ms(), b"another");
        put_entry(&*bench.store, &OTHER, round + 1, bench.expiry.clock.now_ms());
        bench.store.reclaim().unwrap();
    }
    let oldest_ms = bench.store.oldest_physical_ms().unwrap().unwrap();
    let age_ms = bench.expiry.clock.now_ms() - oldest_ms;
    assert!(age_ms < 2 * RETENTION_MS, "the oldest byte is {age_ms} ms old");
    drop(bench.store);
    assert_eq!(files_with(directory.path(), marker), 0);
    let tables = names(&directory.path().join("db")).into_iter().filter(|name| name.ends_with(".sst"));
    let with_account =
        tables.filter(|name| files_with(&directory.path().join("db").join(name), ACCOUNT.as_bytes()) > 0);
    assert_eq!(with_account.count(), 0);
    assert!(files_with(directory.path(), b"another") > 0);
}

#[test]
fn an_idle_store_forgets_as_well() {
    let mut bench = bench();
    put_message(&*bench.store, START_MS, b"alone in the world");
    let directory = bench.directory.take().unwrap();
    for _ in 0..40 {
        bench.time.advance(bench.expiry.periods().round_ms);
        bench.store.reclaim().unwrap();
    }
    assert_eq!(bench.store.oldest_physical_ms(), Ok(None));
    drop(bench.store);
    assert_eq!(files_with(directory.path(), b"alone in the world"), 0);
}

#[test]
fn expired_entries_of_an_idle_inbox_leave_the_disk_as_messages_do() {
    let mut bench = bench();
    let periods = bench.expiry.periods();
    let round = || {
        bench.time.advance(periods.round_ms);
        bench.store.reclaim().unwrap();
    };
    // So that it expires right after one of the passes that come in any case, and long before the next.
    (0..2).for_each(|_| round());
    let written_ms = bench.expiry.clock.now_ms();
    put_entry(&*bench.store, &ACCOUNT, 1, written_ms);
    let bound_ms = RETENTION_MS + periods.pointer_ms + 2 * periods.round_ms;
    for _ in 0..bound_ms / periods.round_ms {
        assert_eq!(bench.store.oldest_physical_ms().unwrap().unwrap_or(written_ms), written_ms);
        round();
    }
    let directory = bench.directory.take().unwrap();
    assert_eq!(bench.store.oldest_physical_ms(), Ok(None));
    drop(bench.store);
    let tables = names(&directory.path().join("db")).into_iter().filter(|name| name.ends_with(".sst"));
    let with_account =
        tables.filter(|name| files_with(&directory.path().join("db").join(name), ACCOUNT.as_bytes()) > 0);
    assert_eq!(with_account.count(), 0);
}

#[test]
fn inboxes_are_not_rewritten_before_an_entry_can_have_expired() {
    let bench = bench();
    let periods = bench.expiry.periods();
    put_entry(&*bench.store, &ACCOUNT, 1, START_MS);
    // The first round does not know what lies in the tables.
    assert!(bench.store.reclaim().unwrap().compacted > 0);
    for _ in 0..(periods.inbox_ms - 1) / periods.round_ms {
        bench.time.advance(periods.round_ms);
        assert_eq!(bench.store.reclaim().unwrap().compacted, 0);
    }
}

#[test]
fn a_restart_forgets_no_expired_entry() {
    let (time, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    {
        let store = RocksStore::open(directory.path(), rules.clone()).unwrap();
        put_entry(&store, &ACCOUNT, 1, START_MS);
        store.close().unwrap();
        store.reclaim().unwrap();
    }
    time.advance(RETENTION_MS);
    let store = RocksStore::open(directory.path(), rules).unwrap();
    store.reclaim().unwrap();
    assert!(store.message_files().unwrap().is_empty());
    assert_eq!(store.scan(Family::Inbox, &[0; 24]..&[0xff; 24], 10).unwrap(), []);
}

#[test]
fn the_footprint_tells_what_is_written_and_removed() {
    let (time, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let store = RocksStore::open(directory.path(), rules).unwrap();
    let body = [7; 10_000];
    for at in 0..10 {
        put_message(&store, START_MS + at, &body);
        put_entry(&store, &ACCOUNT, at + 1, START_MS + at);
    }
    let full = store.footprint().unwrap();
    assert!(full.log_bytes > 100_000 && full.disk_bytes > 100_000 && full.live_bytes > 100_000, "{full:?}");
    store.close().unwrap();
    store.compact(Family::Message, None, None);
    time.advance(RETENTION_MS + 10);
    store.reclaim().unwrap();
    let empty = store.footprint().unwrap();
    assert!(empty.flush_bytes > 100_000 && empty.compaction_bytes > 100_000, "{empty:?}");
    assert!(empty.live_bytes < full.live_bytes / 2, "{full:?} {empty:?}");
    assert_eq!((empty.entries_dropped, empty.entries_filtered), (10, 10));
}

#[test]
fn a_store_that_has_settled_rewrites_nothing() {
    let (_, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let store = RocksStore::open(directory.path(), rules).unwrap();
    // More tables of the same keys than RocksDB leaves as they are.
    for table in 0..8_u8 {
        for number in 0..10 {
            put_message(&store, START_MS + number, &[table; 1_000]);
        }
        store.close().unwrap();
    }
    store.settle().unwrap();
    assert!(store.footprint().unwrap().compaction_bytes > 0);
    let messages = store.handle(Family::Message);
    for property in [properties::COMPACTION_PENDING, properties::NUM_RUNNING_COMPACTIONS] {
        assert_eq!(store.db.property_int_value_cf(messages, property), Ok(Some(0)));
    }
}

#[test]
fn a_restart_in_between_does_not_keep_expired_bytes() {
    let (time, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    {
        let store = RocksStore::open(directory.path(), rules.clone()).unwrap();
        put_message(&store, START_MS, b"left behind");
    }
    time.advance(2 * RETENTION_MS);
    {
        let store = RocksStore::open(directory.path(), rules.clone()).unwrap();
        store.reclaim().unwrap();
        assert_eq!(store.oldest_physical_ms(), Ok(None));
    }
    assert_eq!(files_with(directory.path(), b"left behind"), 0);
}

#[test]
fn whole_tables_of_expired_messages_are_dropped_unread() {
    let (time, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let store = RocksStore::open(directory.path(), rules).unwrap();
    put_message(&store, START_MS, b"old");
    store.close().unwrap();
    store.compact(Family::Message, None, None);
    time.advance(RETENTION_MS);
    put_message(&store, START_MS + RETENTION_MS, b"new");
    let done = store.reclaim().unwrap();
    assert_eq!((done.dropped, store.oldest_physical_ms()), (1, Ok(Some(START_MS + RETENTION_MS))));
}

#[test]
fn the_log_is_let_go_after_a_flush() {
    let bench = bench();
    let directory = bench.directory.as_ref().unwrap().path();
    put_message(&*bench.store, START_MS, b"first");
    let before = logs(directory);
    bench.time.advance(bench.expiry.periods().flush_ms);
    assert!(bench.store.reclaim().unwrap().flushed);
    let after = logs(directory);
    assert!(before.iter().all(|log| !after.contains(log)), "{before:?} {after:?}");
    assert!(!names(&directory.join("db")).contains(&"archive".to_owned()));
    assert!(!bench.store.reclaim().unwrap().flushed);
}

#[test]
fn a_directory_of_an_unknown_format_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("FORMAT"), "gureum-store 99\n").unwrap();
    let error = RocksStore::open(directory.path(), expiry().1).unwrap_err();
    assert_eq!(error, StoreError::UnknownFormat { found: "gureum-store 99".to_owned(), known: format::FORMAT });
    assert_eq!(names(directory.path()), ["FORMAT"]);
}

#[test]
fn a_database_without_a_format_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("db")).unwrap();
    let error = RocksStore::open(directory.path(), expiry().1).unwrap_err();
    assert_eq!(error, StoreError::UnknownFormat { found: "none".to_owned(), known: format::FORMAT });
    assert_eq!(names(directory.path()), ["db"]);
}

#[test]
fn a_directory_in_use_is_refused_and_then_free() {
    let bench = bench();
    let directory = bench.directory.as_ref().unwrap().path();
    let error = RocksStore::open(directory, bench.expiry.clone()).unwrap_err();
    assert_eq!(error, StoreError::InUse(directory.display().to_string()));
    drop(bench.store);
    RocksStore::open(directory, bench.expiry.clone()).unwrap();
}

#[test]
fn a_lazy_write_is_visible_and_kept_by_the_next_synced_one() {
    let (_, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    {
        let store = RocksStore::open(directory.path(), rules.clone()).unwrap();
        let mut batch = Batch::new();
        batch.put(Family::Cursor, b"lazy", b"1");
        store.write(&batch, Durability::Lazy).unwrap();
        assert!(store.get(Family::Cursor, b"lazy").unwrap().is_some());
        put_message(&store, START_MS, b"synced");
    }
    let store = RocksStore::open(directory.path(), rules).unwrap();
    assert!(store.get(Family::Cursor, b"lazy").unwrap().is_some());
}

#[test]
fn a_probe_beside_the_writer_does_not_say_how_far_the_database_has_come() {
    let (_, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let store = RocksStore::open(directory.path(), rules).unwrap();
    put_message(&store, START_MS, b"synced");
    let had_come_to = fence::read(directory.path()).unwrap();
    store.has_failed.store(true, Ordering::Release);
    let mut batch = Batch::new();
    batch.put(Family::Cursor, b"lazy", b"1");
    store.write(&batch, Durability::Lazy).unwrap();
    store.has_failed.store(true, Ordering::Release);
    assert_eq!(store.healthy(), Ok(()));
    assert_eq!(fence::read(directory.path()).unwrap(), had_come_to, "a lazy write may have come in between");
    assert!(!store.has_failed.load(Ordering::Acquire), "the probe was written");
    put_message(&store, START_MS, b"synced too");
    assert_eq!(fence::read(directory.path()).unwrap(), Some(store.db.latest_sequence_number()));
}

#[test]
fn an_idle_store_notices_the_damage_that_a_compaction_has_met() {
    let (_, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let table = {
        let store = RocksStore::open(directory.path(), rules.clone()).unwrap();
        put_message(&store, START_MS, &[7; 3_000]);
        store.close().unwrap();
        store.message_files().unwrap().remove(0).name
    };
    let path = directory.path().join("db").join(table.trim_start_matches('/'));
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = RocksStore::open(directory.path(), rules).unwrap();
    assert_eq!(store.healthy(), Ok(()), "nothing has met it yet");
    assert!(!store.compact_whole(Family::Message), "the call itself does not say so");
    let Err(error) = store.healthy() else { panic!("nobody has written anything, and nobody is told") };
    assert!(matches!(&error, StoreError::Damaged(what) if what.contains(table.trim_start_matches('/'))), "{error}");
    assert!(!error.may_pass());
}

#[test]
fn an_older_log_that_was_emptied_or_cut_between_two_records_is_refused() {
    let (_, rules) = expiry();
    let directory = tempfile::tempdir().unwrap();
    let older = {
        let store = RocksStore::open(directory.path(), rules.clone()).unwrap();
        let log = || logs(directory.path()).pop().unwrap();
        put_message(&store, START_MS, b"first");
        let first_bytes = fs::metadata(log()).unwrap().len();
        put_message(&store, START_MS + 1, b"second");
        put_entry(&store, &ACCOUNT, 1, START_MS);
        let older = log();
        // Another log begins, and the older one stays for what of it is in no table.
        store.db.flush_cf(store.handle(Family::Inbox)).unwrap();
        put_message(&store, START_MS + 2, b"third");
        assert_eq!(logs(directory.path()).len(), 2);
        (older, first_bytes)
    };
    let (path, first_bytes) = older;
    let whole = fs::read(&path).unwrap();
    for length in [0, first_bytes] {
        fs::write(&path, &whole[..usize::try_from(length).unwrap()]).unwrap();
        let Err(error) = RocksStore::open(directory.path(), rules.clone()) else { panic!("{length}: it is served") };
        assert!(matches!(&error, StoreError::Damaged(what) if what.contains("estore a backup")), "{length}: {error}");
    }
    fs::write(&path, whole).unwrap();
    let store = RocksStore::open(directory.path(), rules).unwrap();
    assert_eq!(store.scan(Family::Message, b"\0".as_slice()..b"\xff".as_slice(), 10).unwrap().len(), 3);
}

#[test]
fn readers_and_the_writer_and_reclaiming_do_not_disturb_each_other() {
    let bench = bench();
    let store: Arc<dyn Store> = Arc::from(bench.store);
    let until_ms = START_MS + 10_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                bench.time.advance(100);
                store.reclaim().unwrap();
            }
        });
        scope.spawn(|| {
            for seq in 1..=500 {
                put_message(&*store, bench.expiry.clock.now_ms(), &[7; 300]);
                put_entry(&*store, &ACCOUNT, seq, until_ms);
            }
        });
    });
    let entries = store.scan(Family::Inbox, key::inbox_after(&ACCOUNT, 0).as_range(), 1_000).unwrap();
    assert_eq!(entries.len(), 500);
}
