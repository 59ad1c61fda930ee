//! Batches to the disk, and inboxes from memory and from the disk: plan, seal, write with one fsync, hand over, read.

use criterion::{BenchmarkId, Criterion, Throughput};
use gureum_benches::{APPEND_GROUP, FANOUT_GROUP};
use gureum_proto::Position;
use gureum_server::session::Page;

use crate::world::{World, count};

/// Conversations that take turns, as under a load of pairs.
const PAIRS: usize = 64;

/// Entries that each inbox holds when it is read: the most that one page has.
const INBOX_ENTRIES: usize = 512;

/// One batch of so many messages, from ops to deliveries, with its fsync.
pub(crate) fn appending(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(APPEND_GROUP);
    for messages in [1, 64, 512] {
        let mut world = World::pairs(PAIRS);
        group.throughput(Throughput::Elements(count(messages)));
        group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
            bencher.iter(|| world.append(messages));
        });
    }
}

/// One message to the inboxes of so many accounts, with its fsync.
pub(crate) fn fanning_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(FANOUT_GROUP);
    for accounts in [100, 1_000] {
        let mut world = World::group(accounts);
        group.throughput(Throughput::Elements(count(accounts)));
        group.bench_function(BenchmarkId::from_parameter(accounts), |bencher| {
            bencher.iter(|| world.append(1));
        });
    }
}

/// The last entries of an inbox: from its tail; and from tables, where its neighbours' lie between them.
pub(crate) fn reading(criterion: &mut Criterion) {
    let mut world = World::pairs(PAIRS);
    let reader = world.reader();
    let attached = world.attach(reader);
    for _ in 0..INBOX_ENTRIES {
        world.append(PAIRS);
    }
    world.flush();
    let (inboxes, account) = (world.inboxes(), reader.account);
    read_last(criterion, "inbox/tail", |after| {
        inboxes.read_tail(account, after).expect("the tail reaches so far back")
    });
    read_last(criterion, "inbox/disk", |after| inboxes.read_store(account, after).expect("the disk can be read"));
    drop(attached);
}

fn read_last(criterion: &mut Criterion, name: &str, read: impl Fn(Position) -> Page) {
    let mut group = criterion.benchmark_group(name);
    for entries in [64, INBOX_ENTRIES] {
        let before = count(INBOX_ENTRIES - entries);
        let after = Position { seq: before, count: before };
        assert_eq!(read(after).items.len(), entries, "all of them are there, and no gap");
        group.throughput(Throughput::Elements(count(entries)));
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| bencher.iter(|| read(after)));
    }
}
