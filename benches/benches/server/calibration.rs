//! Fixed work that no change of ours makes faster or slower: what the machine's processor and its disk take.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;

use criterion::Criterion;
use gureum_benches::{CALIBRATION_CPU, CALIBRATION_FSYNC};

use crate::world::data_directory;

const HASHED_BYTES: usize = 64 * 1024;

/// What a small batch adds to RocksDB's log, about.
const SYNCED_BYTES: usize = 4 * 1024;

pub(crate) fn cpu(criterion: &mut Criterion) {
    let bytes = vec![0x5a; HASHED_BYTES];
    criterion.bench_function(CALIBRATION_CPU, |bencher| bencher.iter(|| blake3::hash(black_box(&bytes))));
}

/// An append to a file that grows, as the log does, where the store of the other benches lies.
pub(crate) fn fsync(criterion: &mut Criterion) {
    let directory = data_directory();
    let mut file = File::create(directory.path().join("log")).expect("a file in a directory of our own");
    let bytes = vec![0x5a; SYNCED_BYTES];
    criterion.bench_function(CALIBRATION_FSYNC, |bencher| {
        bencher.iter(|| {
            file.write_all(&bytes).expect("the disk takes it");
            file.sync_data().expect("the disk keeps it");
        });
    });
}
