//! Power cuts under load, on real file systems: what was not synced is gone, what was acknowledged is there, once.

use super::books::Tally;
use super::crash::{CLOCK_STEPS, Crashes, SHORT, START_STEPS, Shown, WRITE_STEPS};
use crate::disk::{FileSystem, LoopDisk};

/// Room of the disk; its file is sparse.
const MEGABYTES: u64 = 2_048;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Cuts on each file system: half at random, half at the steps of writes and starts.
    pub rounds: u32,
    /// Cuts on each with a retention of seconds, half of them at the steps of what is done by the clock.
    pub short_rounds: u32,
    /// Servers in a fresh directory, cut after their first messages.
    pub first_starts: u32,
    /// The file systems.
    pub on: Vec<FileSystem>,
    /// Says on standard error how far it is.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// On each file system.
    pub on: Vec<OnDisk>,
}

/// What was seen on one file system.
#[derive(Debug, serde::Serialize)]
pub struct OnDisk {
    /// Which.
    pub file_system: FileSystem,
    /// With the usual retention.
    pub usual: Shown,
    /// With a retention of seconds.
    pub short: Option<Shown>,
    /// Fresh directories cut after their first messages.
    pub first_starts: u32,
    /// The same cut under a server whose writes are not synced: this must lose something, or the cuts cut nothing.
    pub without_sync: Tally,
}

/// Runs it; `None` where no disk can be mounted.
///
/// # Panics
/// When anything acknowledged is lost, doubled, changed or out of order; or if nothing is lost without syncing.
#[must_use]
pub fn run(options: &Options) -> Option<Report> {
    let on = options.on.iter().map(|file_system| on_disk(*file_system, options)).collect::<Option<_>>()?;
    Some(Report { on })
}

fn on_disk(file_system: FileSystem, options: &Options) -> Option<OnDisk> {
    let steps: Vec<&str> = WRITE_STEPS.iter().chain(&START_STEPS).copied().collect();
    let disk = || LoopDisk::make(file_system, MEGABYTES);
    let usual = Crashes::start(Some(disk()?), None).run(options.rounds, &steps, options.tells);
    let short = if options.short_rounds > 0 {
        let crashes = Crashes::start(Some(disk()?), Some(SHORT));
        Some(crashes.run(options.short_rounds, &CLOCK_STEPS, options.tells))
    } else {
        None
    };
    for _ in 0..options.first_starts {
        let first = Crashes::start(Some(disk()?), None).run(1, &[], options.tells);
        assert!(first.tally.acknowledged > 0, "{first:?}");
    }
    let mut crashes = Crashes::start(Some(disk()?), None);
    crashes.restart_with("store::unsynced=return");
    let without_sync = crashes.cut_and_compare().expect("the log is well, but for its end");
    assert!(without_sync.lost > 0, "a cut that loses nothing of what was not synced is no cut: {without_sync:?}");
    Some(OnDisk { file_system, usual, short, first_starts: options.first_starts, without_sync })
}

/// Whether a cut harms a server in a fresh directory that does not sync its key files.
#[must_use]
pub fn keys_without_sync(disk: LoopDisk) -> bool {
    let crashes = Crashes::start_failing(Some(disk), None, Some("key::unsynced=return".to_owned()));
    // Either a key is damaged, which a start refuses, or it is gone, and with it the messages.
    crashes.cut_and_compare().map_or(true, |tally| tally.lost > 0)
}
