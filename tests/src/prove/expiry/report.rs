//! What is counted on the way: ages, bytes, costs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gureum_server::store::{Family, Store};

use super::machine::Machine;
use super::model::Found;
use super::people::People;
use super::{Costs, Disk, HOUR_MS, LATE_MS_MAX, Options, RETENTION_MS, Report, START_MS};
use crate::prove::cost::Cost;
use crate::prove::raw::{Needles, Physical, size_bytes};

/// Key and value of an inbox entry of an application message.
pub(super) const POINTER_BYTES: u64 = 24 + 34;
/// Between two looks at the size of the data directory.
const LOOK: Duration = Duration::from_millis(50);
/// Ratios are a thousand times as much in an atomic.
const MILLI: f64 = 1_000.0;

/// What does not expire.
const STATE: [Family; 10] = [
    Family::Meta,
    Family::Commit,
    Family::InboxHead,
    Family::Cursor,
    Family::DeviceLog,
    Family::Conversation,
    Family::KeyPackage,
    Family::Directory,
    Family::Registration,
    Family::Sent,
];

pub(super) struct Watch {
    pub(super) messages: u64,
    pub(super) commits: u64,
    pub(super) entries: u64,
    pub(super) reads: u64,
    pub(super) sampled: u64,
    pub(super) body_bytes: u64,
    pub(super) physical: Vec<(u64, Physical)>,
    pub(super) rested_seconds: f64,
    found: Found,
    directory: PathBuf,
    started: Instant,
    cost: Cost,
    oldest_age_ms_max: u64,
    state: (u64, u64),
    ratios: Vec<f64>,
    disk: Disk,
    peak: Peak,
}

impl Watch {
    pub(super) fn start(directory: &Path, machine: &Machine) -> Self {
        Self {
            messages: 0,
            commits: 0,
            entries: 0,
            reads: 0,
            sampled: 0,
            body_bytes: 0,
            physical: Vec::new(),
            rested_seconds: 0.0,
            found: Found::default(),
            directory: directory.to_owned(),
            started: Instant::now(),
            cost: Cost::now(),
            oldest_age_ms_max: 0,
            state: (0, state_bytes(machine)),
            ratios: Vec::new(),
            disk: Disk { estimate: (f64::INFINITY, 0.0), ..Disk::default() },
            peak: Peak::start(directory),
        }
    }

    pub(super) fn add(&mut self, found: Found) {
        self.found.envelopes += found.envelopes;
        self.found.gaps += found.gaps;
        self.found.missed += found.missed;
    }

    /// Once in a simulated hour: the oldest byte, and the disk against what lives.
    pub(super) fn hour(&mut self, machine: &Machine, living_bytes: u64, passed_ms: u64) {
        let oldest_ms = machine.store.oldest_physical_ms().expect("the files can be listed");
        let age_ms = oldest_ms.map_or(0, |oldest_ms| machine.now_ms() - oldest_ms);
        assert!(age_ms <= RETENTION_MS + LATE_MS_MAX, "the oldest byte is {} minutes old", age_ms / 60_000);
        self.oldest_age_ms_max = self.oldest_age_ms_max.max(age_ms);
        if passed_ms / (24 * HOUR_MS) > self.state.0 {
            self.state = (passed_ms / (24 * HOUR_MS), state_bytes(machine));
        }
        let living_bytes = living_bytes + self.state.1;
        let is_steady = passed_ms >= RETENTION_MS + LATE_MS_MAX && self.is_in_use(living_bytes);
        self.peak.living_bytes.store(if is_steady { living_bytes } else { u64::MAX }, Ordering::Relaxed);
        if is_steady {
            let bytes = size_bytes(&self.directory);
            self.ratios.push(bytes as f64 / living_bytes as f64);
            let footprint = machine.store.footprint().expect("the files can be listed");
            let estimate = footprint.live_bytes as f64 / living_bytes as f64;
            let (lowest, highest) = self.disk.estimate;
            self.disk.estimate = (lowest.min(estimate), highest.max(estimate));
            self.disk.bytes_max = self.disk.bytes_max.max(bytes);
            self.disk.living_bytes_max = self.disk.living_bytes_max.max(living_bytes);
        }
    }

    /// Whether still about as much lives as at the highest: at the very end only state is left.
    fn is_in_use(&self, living_bytes: u64) -> bool {
        living_bytes * 2 > self.disk.living_bytes_max
    }

    pub(super) fn tell(&self, round: u64, day: u64) {
        let (ratio, age_hours) = (self.ratios.last().copied().unwrap_or_default(), hours(self.oldest_age_ms_max));
        let (seconds, messages) = (self.started.elapsed().as_secs(), self.messages);
        eprintln!(
            "day {day} (round {round}, {seconds} s): {messages} messages, disk {ratio:.3} of what lives, oldest {age_hours:.1} h"
        );
    }

    pub(super) fn report(mut self, options: &Options, people: &People, machine: &Machine, samples: &Needles) -> Report {
        let cost = Cost::now().since(self.cost);
        self.ratios.sort_by(f64::total_cmp);
        self.disk.ratio_median = self.ratios.get(self.ratios.len() / 2).copied().unwrap_or_default();
        self.disk.ratio_max = self.ratios.last().copied().unwrap_or_default();
        self.disk.ratio_peak = self.peak.stop();
        Report {
            messages: self.messages,
            commits: self.commits,
            entries: self.entries,
            accounts: options.accounts,
            devices: people.devices.len(),
            days: (machine.now_ms() - START_MS) as f64 / (24 * HOUR_MS) as f64,
            seconds: self.started.elapsed().as_secs_f64(),
            reads: self.reads,
            envelopes: self.found.envelopes,
            gaps: self.found.gaps,
            missed: self.found.missed,
            oldest_age_hours_max: hours(self.oldest_age_ms_max),
            samples: samples.len(),
            disk: self.disk,
            cost: costs(&self, cost, machine),
            disk_bytes_at_end: size_bytes(&self.directory),
            state_bytes_at_end: state_bytes(machine),
            physical: self.physical,
        }
    }
}

fn costs(watch: &Watch, cost: Cost, machine: &Machine) -> Costs {
    let footprint = machine.store.footprint().expect("the files can be listed");
    let millions = watch.messages as f64 / 1e6;
    let seconds = |spent: Duration| spent.as_secs_f64() / millions;
    let bytes = |bytes: u64| {
        let bytes = u128::from(bytes) * 1_000_000 / u128::from(watch.messages.max(1));
        u64::try_from(bytes).expect("a million messages are less than all disks")
    };
    Costs {
        cpu_seconds: cost.cpu_seconds / millions,
        background_seconds: cost.background_seconds / millions,
        plan_seconds: seconds(machine.spent.plan),
        write_seconds: seconds(machine.spent.write),
        read_seconds: seconds(machine.spent.read),
        reclaim_seconds: seconds(machine.spent.reclaim),
        written_bytes: bytes(cost.written_bytes),
        body_bytes: bytes(watch.body_bytes),
        log_bytes: bytes(footprint.log_bytes),
        flush_bytes: bytes(footprint.flush_bytes),
        compaction_bytes: bytes(footprint.compaction_bytes),
        write_ms_max: machine.spent.write_max.as_secs_f64() * 1e3,
        reclaim_ms_max: machine.spent.reclaim_max.as_secs_f64() * 1e3,
    }
}

/// Keys and values of all state.
fn state_bytes(machine: &Machine) -> u64 {
    let mut bytes = 0;
    for family in STATE {
        let mut start = Vec::new();
        loop {
            let page = machine.store.scan(family, &start..&[0xff; 128], usize::MAX).expect("the store can be read");
            let Some((last, _)) = page.last() else { break };
            start = [last.as_ref(), &[0]].concat();
            bytes += page.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64;
        }
    }
    bytes
}

fn hours(ms: u64) -> f64 {
    ms as f64 / HOUR_MS as f64
}

/// A thread that looks at the size of the directory all the time.
struct Peak {
    /// What lives, as of the latest hour.
    living_bytes: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<f64>>,
}

impl Peak {
    fn start(directory: &Path) -> Self {
        let (living_bytes, ends) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicBool::new(false)));
        let (directory, living, end) = (directory.to_owned(), Arc::clone(&living_bytes), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let mut highest = 0_f64;
            while !end.load(Ordering::Relaxed) {
                let before = living.load(Ordering::Relaxed);
                let bytes = size_bytes(&directory);
                let after = living.load(Ordering::Relaxed);
                highest = highest.max(bytes as f64 / before.max(after) as f64);
                std::thread::park_timeout(LOOK);
            }
            (highest * MILLI).round() / MILLI
        });
        Self { living_bytes, ends, thread: Some(thread) }
    }

    fn stop(&mut self) -> f64 {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0.0, |thread| {
            thread.thread().unpark();
            thread.join().expect("looking at a directory does not panic")
        })
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.stop();
    }
}
