//! A long load with expiry running: memory, descriptors, disk and latency stay flat.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::good::{Good, quantile};
use super::process::{self, Look};
use crate::child::{Running, binary};
use crate::{Options as WorldOptions, World};

/// Pairs whose messages are timed, beside the load.
const TIMED_PAIRS: usize = 4;
/// Between two messages of each: 200 a second in all, so that five seconds give a 99th percentile.
const TIMED_EVERY: Duration = Duration::from_millis(20);
/// Memory may grow by this much from one quarter to the next but one without being a leak: fragments of the allocator,
/// caches that fill.
const MEMORY_SPARE_KIB: f64 = 24.0 * 1024.0;
/// Table files come and go.
const DESCRIPTORS_SPARE: f64 = 24.0;
/// A log and a memtable's worth of tables.
const DISK_SPARE_BYTES: f64 = 64.0 * 1024.0 * 1024.0;
/// What the disk of a shared machine adds now and then, in microseconds.
const P99_SPARE_US: f64 = 5_000.0;

/// What is tried.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long.
    pub duration: Duration,
    /// Messages a second.
    pub rate: u32,
    /// Pairs that send them.
    pub pairs: usize,
    /// The server's `--retention`.
    pub retention: &'static str,
    /// What counts from when on: what a server takes until its first messages have expired and its caches are warm.
    pub warm_up: Duration,
    /// Between two samples.
    pub every: Duration,
    /// The server's program, if it is not the one that lies beside this.
    pub server: Option<PathBuf>,
    /// Whether to tell on standard error how it goes.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Messages a second that were asked for.
    pub rate: u32,
    /// The retention.
    pub retention: &'static str,
    /// Whether everything stayed flat.
    pub is_flat: bool,
    /// Thing by thing.
    pub verdicts: Vec<Verdict>,
    /// Timed messages; each arrived once and in order.
    pub timed: usize,
    /// What the load tester reports at its end.
    pub load: Value,
    /// All along.
    pub samples: Vec<Sample>,
}

/// For so long nothing may arrive at all. A busy machine lets everybody wait now and then, which the latencies show; an
/// hour's run ends only for a server that is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Whether one thing stayed flat: the last quarter is not above the first by more than the factor and the spare.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// What.
    pub of: &'static str,
    /// Medians of the four quarters after the warm-up.
    pub quarters: [f64; 4],
    /// What the last may reach.
    pub at_most: f64,
    /// Whether it stays below.
    pub is_flat: bool,
}

/// One look.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Since the load began, in seconds.
    pub at_s: f64,
    /// The server's process.
    pub server: Look,
    /// Bytes of its data directory.
    pub disk_bytes: u64,
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Half of the timed messages that arrived since the last sample took at most this, from due to delivered.
    pub p50_us: u64,
    /// 99 % of them.
    pub p99_us: u64,
    /// The age of the oldest byte on the disk, in seconds.
    pub oldest_physical_age_s: f64,
    /// Message keys that are not destroyed.
    pub keys_live: u64,
}

/// Runs it.
#[must_use]
pub fn run(options: &Options) -> Report {
    let world = World::start_with(WorldOptions {
        retention: Some(options.retention),
        flags: vec!["--registration", "open", "--sends-per-second", "1000000"],
        program: options.server.clone(),
        ..WorldOptions::default()
    });
    let good = Good::start(&world, TIMED_PAIRS, TIMED_EVERY);
    let mut load = Running::start(&mut load(&world, options));
    let accepted = || world.admin().count("gureum_sends_total{result=\"accepted\"}");
    let set_up = accepted();
    load.err.find(Duration::from_secs(120), |line| line.contains("accepted").then_some(()));
    let start = Instant::now();
    let mut samples = Vec::new();
    let mut from = start;
    while start.elapsed() < options.duration {
        std::thread::park_timeout(options.every.saturating_sub(from.elapsed()));
        let now = Instant::now();
        if now - from < options.every {
            continue;
        }
        let timed = good.arrived(from, now);
        if timed.is_empty() {
            assert!(now - from < SILENCE_MAX, "nothing arrives any more\n{}", world.log());
            continue;
        }
        samples.push(sample(&world, (now - start).as_secs_f64(), accepted() - set_up, &timed));
        from = now;
        if options.tells {
            eprintln!("{}", serde_json::to_string(&samples.last()).unwrap());
        }
    }
    let ended = load.wait(Duration::from_secs(120));
    let said = load.out.all();
    assert!(ended.success(), "the load ended badly: {said:#?} {:#?}", load.err.all());
    let load = said.iter().find_map(|line| serde_json::from_str(line).ok()).expect("the load reports");
    let verdicts = verdicts(&samples, options.warm_up);
    let is_flat = verdicts.iter().all(|verdict| verdict.is_flat);
    let timed = good.end();
    Report { rate: options.rate, retention: options.retention, is_flat, verdicts, timed, load, samples }
}

fn load(world: &World, options: &Options) -> Command {
    let mut command = Command::new(binary("gureum"));
    command.args(["--json", "load", "pairs", "--server", world.url(), "--sealed-size", "256"]);
    command.args(["--pairs", &options.pairs.to_string(), "--rate", &options.rate.to_string()]);
    // A little longer than what is looked at, so that no sample is of its end.
    command.args(["--duration", &format!("{}s", options.duration.as_secs() + 2)]);
    command
}

fn sample(world: &World, at_s: f64, accepted: u64, timed: &[Duration]) -> Sample {
    let admin = world.admin();
    Sample {
        at_s: (at_s * 10.0).round() / 10.0,
        server: process::look(world.process_id()),
        disk_bytes: process::disk_bytes(world.data_dir()),
        accepted,
        p50_us: quantile(timed, 0.5),
        p99_us: quantile(timed, 0.99),
        oldest_physical_age_s: admin.metric("gureum_oldest_physical_age_seconds"),
        keys_live: admin.count("gureum_keys_live"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes and times of a test are far below 2^52")]
fn verdicts(samples: &[Sample], warm_up: Duration) -> Vec<Verdict> {
    let warm: Vec<_> = samples.iter().filter(|sample| sample.at_s >= warm_up.as_secs_f64()).collect();
    assert!(warm.len() >= 4, "too short: {} samples after the warm-up of {warm_up:?}", warm.len());
    let verdict = |of, factor: f64, spare: f64, value: &dyn Fn(&Sample) -> f64| {
        let quarters = quarters(&warm, value);
        let at_most = quarters[0] * factor + spare;
        Verdict { of, quarters, at_most, is_flat: quarters[3] <= at_most }
    };
    vec![
        verdict("resident KiB", 1.05, MEMORY_SPARE_KIB, &|sample| sample.server.resident_kib as f64),
        verdict("descriptors", 1.0, DESCRIPTORS_SPARE, &|sample| sample.server.descriptors as f64),
        verdict("disk bytes", 1.1, DISK_SPARE_BYTES, &|sample| sample.disk_bytes as f64),
        verdict("p99 µs", 1.5, P99_SPARE_US, &|sample| sample.p99_us as f64),
    ]
}

fn quarters(samples: &[&Sample], value: &dyn Fn(&Sample) -> f64) -> [f64; 4] {
    let part = samples.len() / 4;
    [0, 1, 2, 3].map(|index| {
        let mut values: Vec<_> = samples[index * part..(index + 1) * part].iter().map(|sample| value(sample)).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory_kib: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |index| Sample {
            at_s: f64::from(u32::try_from(index).unwrap()),
            server: Look { resident_kib: memory_kib(index), descriptors: 50, cpu_s: 0.0 },
            disk_bytes: 1 << 28,
            accepted: 0,
            p50_us: 1_000,
            p99_us: 3_000,
            oldest_physical_age_s: 0.0,
            keys_live: 3,
        };
        (0..400).map(sample).collect()
    }

    #[track_caller]
    fn check(memory_kib: impl Fn(u64) -> u64, expected: bool) {
        let verdicts = verdicts(&samples(memory_kib), Duration::from_secs(40));
        assert_eq!(verdicts[0].is_flat, expected, "{verdicts:?}");
        assert!(verdicts[1..].iter().all(|verdict| verdict.is_flat), "{verdicts:?}");
    }

    #[test]
    fn a_leak_is_told_from_a_start_and_from_a_spike() {
        check(|_| 200_000, true);
        check(|index| 200_000 + index * 1_000, false);
        // It grows while it warms up.
        check(|index| 100_000 + index.min(40) * 5_000, true);
        check(|index| if index % 50 == 0 { 900_000 } else { 200_000 }, true);
    }
}
