//! The server's pieces: a session's steps, sealing, batches to the disk, a message to many, and reads of inboxes; and
//! what the machine does by itself, so that they can be compared with another machine's.

mod calibration;
mod proven;
mod seal;
mod session;
mod store;
mod world;

use criterion::{criterion_group, criterion_main};

// As in `gureumd`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

criterion_group!(
    benches,
    calibration::cpu,
    calibration::fsync,
    session::sending,
    session::delivering,
    seal::sealing,
    store::appending,
    store::fanning_out,
    store::reading,
);
criterion_main!(benches);
