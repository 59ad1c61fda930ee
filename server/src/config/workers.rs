//! How many threads serve connections.

use std::num::NonZeroUsize;

use super::{ConfigError, Finding};

/// The variable that every program on tokio has for it.
const WORKERS: &str = "TOKIO_WORKER_THREADS";
/// More than any machine has processors: what is above it is a mistake.
const WORKERS_MAX: usize = 1_024;

/// Threads that serve connections on a machine of so many processors, unless the environment says how many.
///
/// One processor is left to the writer, to what reads the store, and to RocksDB. A second worker on a machine of two makes
/// each of them wake the other for every packet: quinn's echo cost 9 to 20 % less on one.
///
/// # Errors
/// When the environment does not hold a number of threads.
pub fn workers(env: impl Fn(&str) -> Option<String>, processors: NonZeroUsize) -> Result<usize, ConfigError> {
    let Some(wanted) = env(WORKERS).filter(|wanted| !wanted.is_empty()) else {
        return Ok(processors.get().saturating_sub(1).max(1));
    };
    wanted.parse::<usize>().ok().filter(|workers| (1..=WORKERS_MAX).contains(workers)).ok_or_else(|| {
        let problem =
            format!("it is a number of threads from 1 to {WORKERS_MAX}, not {wanted:?}; leave it out for our own");
        ConfigError { findings: vec![Finding { setting: WORKERS.to_owned(), problem }] }
    })
}
