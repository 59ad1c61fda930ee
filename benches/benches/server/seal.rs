//! Sealing a message with the key of its hour, and opening it.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use gureum_benches::payload;
use gureum_benches::proven::RETENTION_MS;
use gureum_proto::MessageId;
use gureum_server::seal::Keyring;

use crate::proven::START_MS;
use crate::world::{BODY_BYTES, count, data_directory};

pub(crate) fn sealing(criterion: &mut Criterion) {
    let directory = data_directory();
    let keyring = Keyring::open(directory.path(), None, RETENTION_MS).expect("a new keyring");
    keyring.tick(START_MS).expect("keys can be made");
    let (id, content) = (MessageId::new(START_MS, 1), payload(BODY_BYTES));
    let sealed = keyring.seal(&id, &content).expect("its key is there");
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(count(BODY_BYTES)));
    group.bench_function("seal", |bencher| {
        bencher.iter(|| keyring.seal(&id, black_box(&content)).expect("its key is there"));
    });
    group.bench_function("open", |bencher| {
        bencher.iter(|| keyring.open_message(&id, black_box(&sealed)).expect("it is what was sealed"));
    });
}
