//! What removing the expired costs those who write meanwhile: the latency of durable writes, at rest and while a large
//! store is reclaimed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gureum_proto::{AccountId, MessageId};
use gureum_server::store::record::{InboxBody, InboxEntry, SealedMessage};
use gureum_server::store::rocks::RocksStore;
use gureum_server::store::{Batch, Durability, Expiry, Family, Store, key};
use gureum_server::time::{Clock, ManualClock};
use serde::Serialize;

const HOUR_MS: u64 = 3_600_000;
const RETENTION_MS: u64 = 72 * HOUR_MS;
const START_MS: u64 = 1_800_000_000_000;
const ACCOUNTS: u64 = 5_000;
const BODY_BYTES: usize = 400;
/// Messages of one batch while the store is filled.
const FILL_BATCH: u64 = 2_000;
/// Messages of one batch while it is measured, and how often one is written.
const BATCH: u64 = 32;
const PAUSE: Duration = Duration::from_millis(4);
/// Batches at rest.
const BATCHES_AT_REST: usize = 2_500;

/// Latencies of durable writes, in milliseconds.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Latency {
    /// Writes.
    pub writes: usize,
    /// Half of them are faster.
    pub p50_ms: f64,
    /// 99 of 100 are faster.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// What was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Report {
    /// Messages in the store, each with a pointer; half of them expire.
    pub messages: u64,
    /// With nothing to reclaim.
    pub at_rest: Latency,
    /// While a round of reclaiming runs.
    pub meanwhile: Latency,
    /// How long the round took.
    pub reclaim_seconds: f64,
    /// Bytes that the round rewrote.
    pub rewritten_bytes: u64,
}

/// Fills a store with so many messages, lets half of them expire, and writes on while they are reclaimed.
///
/// # Panics
/// When the disk refuses.
#[must_use]
pub fn run(messages: u64) -> Report {
    let home = tempfile::tempdir().expect("room for a directory");
    let time = Arc::new(ManualClock::at(START_MS));
    let clock = Arc::new(Clock::resume(Arc::clone(&time) as _, RETENTION_MS, None).expect("a first start"));
    let (retention_ms, commit_retention_ms) = (RETENTION_MS, 10 * RETENTION_MS);
    let expiry = Expiry { clock: Arc::clone(&clock), retention_ms, commit_retention_ms, floors: Arc::default() };
    let store = RocksStore::open(home.path(), expiry).expect("a new directory opens");
    let mut writer = Writer { store: &store, number: 0 };
    for batch in 0..messages / FILL_BATCH {
        writer.write(FILL_BATCH, START_MS + RETENTION_MS * batch * FILL_BATCH / messages, Durability::Lazy);
    }
    time.advance(RETENTION_MS - 1);
    store.reclaim().expect("nothing has expired");
    let at_rest = latency((0..BATCHES_AT_REST).map(|_| writer.measured(clock.now_ms())).collect());

    time.advance(RETENTION_MS / 2);
    let before = store.footprint().expect("the files can be listed");
    let is_done = AtomicBool::new(false);
    let (mut writes, mut reclaim) = (Vec::new(), Duration::ZERO);
    std::thread::scope(|scope| {
        let (store, is_done) = (&store, &is_done);
        let reclaiming = scope.spawn(move || {
            let started = Instant::now();
            store.reclaim().expect("the disk is reclaimed");
            is_done.store(true, Ordering::Release);
            started.elapsed()
        });
        while !is_done.load(Ordering::Acquire) {
            writes.push(writer.measured(clock.now_ms()));
        }
        reclaim = reclaiming.join().expect("reclaiming does not panic");
    });
    let after = store.footprint().expect("the files can be listed");
    Report {
        messages,
        at_rest,
        meanwhile: latency(writes),
        reclaim_seconds: reclaim.as_secs_f64(),
        rewritten_bytes: after.compaction_bytes - before.compaction_bytes,
    }
}

struct Writer<'a> {
    store: &'a RocksStore,
    number: u64,
}

impl Writer<'_> {
    /// A durable batch, and then a pause.
    fn measured(&mut self, time_ms: u64) -> Duration {
        let started = Instant::now();
        self.write(BATCH, time_ms, Durability::Synced);
        let took = started.elapsed();
        std::thread::park_timeout(PAUSE);
        took
    }

    fn write(&mut self, messages: u64, time_ms: u64, durability: Durability) {
        let mut batch = Batch::new();
        for _ in 0..messages {
            self.number += 1;
            let (id, seq) = (MessageId::new(time_ms, u128::from(self.number)), self.number / ACCOUNTS + 1);
            let scattered = (self.number % ACCOUNTS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let account = AccountId::from_bytes((u128::from(scattered) << 64).to_be_bytes());
            let sealed = SealedMessage { key_id: 1, nonce: [0; 12], ciphertext: Bytes::from_static(&[7; BODY_BYTES]) };
            let entry = InboxEntry { id, count: seq, bytes_total: seq, body: InboxBody::Message };
            batch.put_record(Family::Message, key::message(&id), &sealed);
            batch.put_record(Family::Inbox, key::inbox(&account, seq), &entry);
        }
        self.store.write(&batch, durability).expect("the disk takes it");
    }
}

fn latency(mut writes: Vec<Duration>) -> Latency {
    writes.sort_unstable();
    let at = |part: usize| writes.get(writes.len() * part / 1_000).map_or(0.0, |took| took.as_secs_f64() * 1e3);
    let max_ms = writes.last().map_or(0.0, |took| took.as_secs_f64() * 1e3);
    Latency { writes: writes.len(), p50_ms: at(500), p99_ms: at(990), max_ms }
}
