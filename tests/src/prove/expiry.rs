//! Expiry at scale: millions of messages over simulated days through the store, the keyring, the planner and the
//! readers of a real server, each read held against a model, and the disk looked at behind their back.

mod machine;
mod model;
mod people;
mod report;
mod run;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;

use super::raw::Physical;
use run::Run;

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// What a server has that is told nothing.
pub const RETENTION_MS: u64 = 3 * DAY_MS;
/// How much later than its retention the last byte of a message is gone.
pub const LATE_MS_MAX: u64 = 6 * HOUR_MS;
/// The bytes of the data directory over the living ones, at any moment.
pub const RATIO_MAX: f64 = 1.3;
/// From how many messages on that holds: below, the log is most of what is there.
const RATIO_FROM_MESSAGES: u64 = 1_000_000;
const START_MS: u64 = 1_800_000_000_000;
/// The epoch of every conversation at the start.
const EPOCH_FIRST: u64 = 1;

/// How large.
#[derive(Debug, Clone)]
pub struct Options {
    /// Messages, commits not counted.
    pub messages: u64,
    /// Simulated days in which they are sent.
    pub days: u64,
    /// Accounts.
    pub accounts: usize,
    /// Bytes of each device's ciphertext.
    pub body_bytes: usize,
    /// From which everything random follows.
    pub seed: u64,
    /// Where the data directory is made; the system's place for temporary files if `None`.
    pub directory: Option<PathBuf>,
    /// Whether to say on standard error how far it is.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Messages sent.
    pub messages: u64,
    /// Commits sent.
    pub commits: u64,
    /// Inbox entries that they made.
    pub entries: u64,
    /// Accounts.
    pub accounts: usize,
    /// Devices.
    pub devices: usize,
    /// Simulated days, the rest at the end included.
    pub days: f64,
    /// How long it took.
    pub seconds: f64,
    /// Reads of a device's whole backlog.
    pub reads: u64,
    /// Envelopes that those returned, each checked.
    pub envelopes: u64,
    /// Gaps that those returned, each checked.
    pub gaps: u64,
    /// Messages that the gaps told of.
    pub missed: u64,
    /// The age of the oldest byte by the server's own metric, at its highest, in hours.
    pub oldest_age_hours_max: f64,
    /// What a plain RocksDB found in the files, and when, in hours from the start.
    pub physical: Vec<(u64, Physical)>,
    /// Samples of sealed bodies that were looked for in all files after their time.
    pub samples: usize,
    /// The bytes of the data directory against the living ones.
    pub disk: Disk,
    /// What it cost.
    pub cost: Costs,
    /// After everything has expired: bytes of the data directory.
    pub disk_bytes_at_end: u64,
    /// After everything has expired: living state.
    pub state_bytes_at_end: u64,
}

/// Disk use, from the first retention on, once in a simulated hour. Living are: bodies that have not expired, pointers
/// that have not expired and that a device of their account has yet to take, and the newest value of each record of state.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Disk {
    /// Living bytes at the highest.
    pub living_bytes_max: u64,
    /// Bytes of the data directory at the highest.
    pub bytes_max: u64,
    /// The middle of the ratios.
    pub ratio_median: f64,
    /// The highest of the ratios.
    pub ratio_max: f64,
    /// The highest at any time, looked at many times a second while tables were being rewritten.
    pub ratio_peak: f64,
    /// The store's own estimate of what lives, divided by the model's: lowest and highest.
    pub estimate: (f64, f64),
}

/// Costs per million messages, reading and checking included where it is not said otherwise.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Costs {
    /// Processor seconds of the whole process.
    pub cpu_seconds: f64,
    /// Of them, the database's own threads: flushes and compactions.
    pub background_seconds: f64,
    /// Seconds of planning and sealing.
    pub plan_seconds: f64,
    /// Seconds of durable writes.
    pub write_seconds: f64,
    /// Seconds of reads.
    pub read_seconds: f64,
    /// Seconds in rounds of reclaiming.
    pub reclaim_seconds: f64,
    /// Bytes that the process wrote.
    pub written_bytes: u64,
    /// Bytes of bodies in the batches.
    pub body_bytes: u64,
    /// Bytes that the store wrote to its log.
    pub log_bytes: u64,
    /// Bytes that the store wrote in flushes.
    pub flush_bytes: u64,
    /// Bytes that the store wrote in compactions.
    pub compaction_bytes: u64,
    /// The longest durable write, in milliseconds.
    pub write_ms_max: f64,
    /// The longest round of reclaiming, in milliseconds.
    pub reclaim_ms_max: f64,
}

/// Runs it.
///
/// # Panics
/// With what broke: something expired was served, something else was not, a count was wrong, a byte was there too long, or,
/// from a million messages on, the disk held too much beside what lives.
#[must_use]
pub fn run(options: &Options) -> Report {
    let parent = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new().prefix("gureum-expiry-").tempdir_in(parent).expect("room for a directory");
    let report = Run::new(options, directory.path()).finish();
    if options.messages >= RATIO_FROM_MESSAGES {
        let Disk { ratio_max, ratio_peak, .. } = report.disk;
        assert!(ratio_max <= RATIO_MAX && ratio_peak <= RATIO_MAX, "the disk keeps too much: {:?}", report.disk);
    }
    report
}

/// Where the database of a data directory lies.
fn database(directory: &Path) -> PathBuf {
    directory.join("db")
}

/// The ciphertext of a message, which says which one it is.
fn body(talk: usize, number: u32, bytes: usize) -> Bytes {
    let mut state = mixed((talk as u64) << 32 | u64::from(number));
    let mut body = Vec::with_capacity(bytes + 8);
    while body.len() < bytes {
        state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        body.extend_from_slice(&state.to_le_bytes());
    }
    body.truncate(bytes);
    body.into()
}

/// Scatters a number over all others (the finalizer of `SplitMix64`).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
