//! Medians against a baseline that may be another machine's: what each bench would take here if the code had not
//! changed, and what it takes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The bench of fixed work for the processor alone: how fast a machine computes.
pub const CALIBRATION_CPU: &str = "calibration/cpu";

/// The bench of one append with its fsync: how fast a machine's disk is.
pub const CALIBRATION_FSYNC: &str = "calibration/fsync";

/// The group of batches that are planned and written. Each iteration is one fsync.
pub const APPEND_GROUP: &str = "store/append";

/// The group of messages to many accounts. Each iteration is one fsync.
pub const FANOUT_GROUP: &str = "store/fanout";

/// The groups whose every iteration is one fsync.
const SYNCED_GROUPS: [&str; 2] = [APPEND_GROUP, FANOUT_GROUP];

/// What to do where a baseline is of no use.
const ANEW: &str = "`make bench-baseline` measures and writes it anew";

/// Nanoseconds for one iteration, by the names of the benches.
pub type Medians = BTreeMap<String, f64>;

/// What was measured once, and on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The machine, for people.
    pub machine: String,
    /// The medians, in nanoseconds.
    pub median_ns: Medians,
}

/// Every bench of a baseline and of a measurement, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// How many times as long as the baseline's machine this one takes to compute, and to bring something to its disk.
    pub slowness: Slowness,
    /// In the order of names, without the calibrations.
    pub rows: Vec<Row>,
}

/// A machine against the baseline's: above 1 it is the slower one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slowness {
    /// Of the processor.
    pub cpu: f64,
    /// Of an fsync.
    pub fsync: f64,
}

/// One bench.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// It is in both.
    Both {
        /// Its name.
        name: String,
        /// What it would take here by the baseline, in nanoseconds.
        expected_ns: f64,
        /// What it takes.
        measured_ns: f64,
    },
    /// The baseline has it, and it was not measured.
    Missing {
        /// Its name.
        name: String,
    },
    /// The baseline does not have it.
    New {
        /// Its name.
        name: String,
        /// What it takes, in nanoseconds.
        measured_ns: f64,
    },
}

impl Baseline {
    /// Reads a baseline.
    ///
    /// # Errors
    /// When it is none, or holds a time that is none; the text says what to do.
    pub fn parse(text: &str) -> Result<Self> {
        let baseline: Self = serde_json::from_str(text).with_context(|| format!("it is malformed: {ANEW}"))?;
        check(&baseline.median_ns).with_context(|| format!("it is malformed: {ANEW}"))?;
        calibrations(&baseline.median_ns).with_context(|| format!("it is incomplete: {ANEW}"))?;
        Ok(baseline)
    }

    /// The text that [`Self::parse`] reads.
    ///
    /// # Errors
    /// When a calibration is missing, or a time is none.
    pub fn to_text(&self) -> Result<String> {
        check(&self.median_ns)?;
        calibrations(&self.median_ns)?;
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Comparison {
    /// Compares what was measured here with a baseline.
    ///
    /// # Errors
    /// When a calibration is missing on either side, or a time is none.
    pub fn new(baseline: &Baseline, measured: &Medians) -> Result<Self> {
        check(measured)?;
        let (base_cpu_ns, base_fsync_ns) = calibrations(&baseline.median_ns).context("of the baseline")?;
        let (cpu_ns, fsync_ns) = calibrations(measured).context("of what was measured here")?;
        let slowness = Slowness { cpu: cpu_ns / base_cpu_ns, fsync: fsync_ns / base_fsync_ns };
        let mut rows = Vec::new();
        for (name, base_ns) in benches(&baseline.median_ns) {
            let name = name.clone();
            rows.push(match measured.get(&name) {
                Some(&measured_ns) => {
                    let fsync_ns = if is_synced(&name) { base_ns.min(base_fsync_ns) } else { 0.0 };
                    let expected_ns = fsync_ns * slowness.fsync + (base_ns - fsync_ns) * slowness.cpu;
                    Row::Both { name, expected_ns, measured_ns }
                }
                None => Row::Missing { name },
            });
        }
        let new = benches(measured).filter(|(name, _)| !baseline.median_ns.contains_key(*name));
        rows.extend(new.map(|(name, measured_ns)| Row::New { name: name.clone(), measured_ns }));
        rows.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(Self { slowness, rows })
    }

    /// How many benches are slower than by this factor, or have not run.
    #[must_use]
    pub fn regressions(&self, threshold: f64) -> usize {
        self.rows.iter().filter(|row| row.is_regression(threshold)).count()
    }

    /// A line for each bench; what is slower than by this factor is marked.
    #[must_use]
    pub fn table(&self, threshold: f64) -> String {
        let width = self.rows.iter().map(|row| row.name().len()).max().unwrap_or_default().max("bench".len());
        let mut out = format!("{:width$}  {:>10}  {:>10}  {:>6}\n", "bench", "expected", "measured", "ratio");
        for row in &self.rows {
            let (name, mark) = (row.name(), if row.is_regression(threshold) { "  <<<" } else { "" });
            let [expected, measured, ratio] = match row {
                Row::Both { expected_ns, measured_ns, .. } => {
                    [duration(*expected_ns), duration(*measured_ns), format!("{:.2}", measured_ns / expected_ns)]
                }
                Row::Missing { .. } => [String::new(), "not run".to_owned(), String::new()],
                Row::New { measured_ns, .. } => ["new".to_owned(), duration(*measured_ns), String::new()],
            };
            // Writing to a string does not fail.
            let _ = writeln!(out, "{name:width$}  {expected:>10}  {measured:>10}  {ratio:>6}{mark}");
        }
        out
    }
}

impl Row {
    /// The bench's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Both { name, .. } | Self::Missing { name } | Self::New { name, .. } => name,
        }
    }

    /// Whether it is slower than by this factor. What has not run may be as slow as it likes, and counts as well.
    fn is_regression(&self, threshold: f64) -> bool {
        match self {
            Self::Both { expected_ns, measured_ns, .. } => measured_ns / expected_ns > threshold,
            Self::Missing { .. } => true,
            Self::New { .. } => false,
        }
    }
}

/// Refuses times that are none, so that every ratio is a number.
fn check(medians: &Medians) -> Result<()> {
    for (name, ns) in medians {
        ensure!(ns.is_finite() && *ns > 0.0, "the median of {name} is {ns} ns");
    }
    Ok(())
}

/// The times of the processor's and the disk's calibration.
fn calibrations(medians: &Medians) -> Result<(f64, f64)> {
    let of = |name: &str| {
        medians
            .get(name)
            .copied()
            .with_context(|| format!("the bench {name} is missing, by which machines are compared"))
    };
    Ok((of(CALIBRATION_CPU)?, of(CALIBRATION_FSYNC)?))
}

/// All but the calibrations.
fn benches(medians: &Medians) -> impl Iterator<Item = (&String, f64)> {
    medians.iter().map(|(name, ns)| (name, *ns)).filter(|(name, _)| !is_calibration(name.as_str()))
}

fn is_calibration(name: &str) -> bool {
    [CALIBRATION_CPU, CALIBRATION_FSYNC].contains(&name)
}

fn is_synced(name: &str) -> bool {
    SYNCED_GROUPS.iter().any(|group| name.strip_prefix(group).is_some_and(|rest| rest.starts_with('/')))
}

fn duration(ns: f64) -> String {
    if ns < 1e3 {
        format!("{ns:.1} ns")
    } else if ns < 1e6 {
        format!("{:.2} µs", ns / 1e3)
    } else {
        format!("{:.2} ms", ns / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: &str = "seal/seal";
    const APPEND: &str = "store/append/64";

    fn medians(list: &[(&str, f64)]) -> Medians {
        list.iter().map(|(name, ns)| ((*name).to_owned(), *ns)).collect()
    }

    /// Of a machine that takes so long for the calibrations.
    fn measured(cpu_ns: f64, fsync_ns: f64, list: &[(&str, f64)]) -> Medians {
        let mut medians = medians(list);
        medians.insert(CALIBRATION_CPU.to_owned(), cpu_ns);
        medians.insert(CALIBRATION_FSYNC.to_owned(), fsync_ns);
        medians
    }

    fn baseline(list: &[(&str, f64)]) -> Baseline {
        Baseline { machine: "a machine".to_owned(), median_ns: measured(100.0, 1_000.0, list) }
    }

    /// The ratio of the one bench that both have.
    #[track_caller]
    fn check_ratio(name: &str, base_ns: f64, now: &Medians, expected: f64) {
        let comparison = Comparison::new(&baseline(&[(name, base_ns)]), now).expect("comparable");
        let [Row::Both { expected_ns, measured_ns, .. }] = comparison.rows.as_slice() else {
            panic!("expected one bench, got {:?}", comparison.rows);
        };
        let ratio = measured_ns / expected_ns;
        assert!((ratio - expected).abs() < 1e-9, "expected {expected}, got {ratio}");
    }

    #[track_caller]
    fn refused(text: &str, cause: &str) {
        let error = format!("{:#}", Baseline::parse(text).expect_err("it is no baseline"));
        assert!(error.contains("make bench-baseline"), "{error}");
        assert!(error.contains(cause), "{error}");
    }

    #[test]
    fn on_the_same_machine_a_ratio_is_that_of_the_times() {
        check_ratio(SEAL, 400.0, &measured(100.0, 1_000.0, &[(SEAL, 400.0)]), 1.0);
        check_ratio(SEAL, 400.0, &measured(100.0, 1_000.0, &[(SEAL, 600.0)]), 1.5);
        check_ratio(APPEND, 1_600.0, &measured(100.0, 1_000.0, &[(APPEND, 2_400.0)]), 1.5);
    }

    #[test]
    fn a_slower_processor_is_no_regression() {
        check_ratio(SEAL, 400.0, &measured(200.0, 1_000.0, &[(SEAL, 800.0)]), 1.0);
    }

    #[test]
    fn a_slower_disk_counts_where_something_is_synced_and_for_one_fsync_alone() {
        check_ratio(SEAL, 400.0, &measured(100.0, 3_000.0, &[(SEAL, 400.0)]), 1.0);
        check_ratio(APPEND, 1_600.0, &measured(100.0, 3_000.0, &[(APPEND, 3_600.0)]), 1.0);
        check_ratio(APPEND, 1_600.0, &measured(200.0, 3_000.0, &[(APPEND, 4_200.0)]), 1.0);
        // Less than the fsync of the calibration: all of it is the disk's.
        check_ratio(APPEND, 800.0, &measured(200.0, 3_000.0, &[(APPEND, 2_400.0)]), 1.0);
    }

    #[test]
    fn what_is_slower_than_the_threshold_is_counted_and_marked() {
        let base = baseline(&[("a", 10.0), ("b", 10.0), ("c", 10.0)]);
        let now = measured(100.0, 1_000.0, &[("a", 5.0), ("b", 13.0), ("c", 13.1)]);
        let comparison = Comparison::new(&base, &now).expect("comparable");
        assert_eq!(comparison.regressions(1.3), 1);
        assert_eq!(comparison.regressions(1.0), 2);
        let marked: Vec<_> =
            comparison.table(1.3).lines().filter(|line| line.ends_with("<<<")).map(str::to_owned).collect();
        assert_eq!(marked, ["c         10.0 ns     13.1 ns    1.31  <<<"]);
    }

    #[test]
    fn a_bench_that_has_not_run_is_a_regression() {
        let comparison =
            Comparison::new(&baseline(&[(SEAL, 400.0)]), &measured(100.0, 1_000.0, &[])).expect("comparable");
        assert_eq!(comparison.rows, [Row::Missing { name: SEAL.to_owned() }]);
        assert_eq!(comparison.regressions(1.3), 1);
        assert!(comparison.table(1.3).contains("not run"));
    }

    #[test]
    fn a_new_bench_is_shown_and_compared_with_nothing() {
        let comparison =
            Comparison::new(&baseline(&[]), &measured(100.0, 1_000.0, &[(SEAL, 400.0)])).expect("comparable");
        assert_eq!(comparison.rows, [Row::New { name: SEAL.to_owned(), measured_ns: 400.0 }]);
        assert_eq!(comparison.regressions(1.3), 0);
        assert!(comparison.table(1.3).contains("new"));
    }

    #[test]
    fn without_a_calibration_nothing_is_compared() {
        let error = Comparison::new(&baseline(&[]), &medians(&[(CALIBRATION_CPU, 100.0)])).expect_err("no fsync");
        assert!(format!("{error:#}").contains(CALIBRATION_FSYNC), "{error:#}");
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let baseline = baseline(&[(SEAL, 412.5), (APPEND, 1_600.0)]);
        let text = baseline.to_text().expect("complete");
        assert_eq!(Baseline::parse(&text).expect("well formed"), baseline);
    }

    #[test]
    fn a_baseline_that_is_none_says_what_to_do() {
        refused("", "malformed");
        refused("{}", "malformed");
        refused(r#"{"machine": "a", "median_ns": {}, "more": 1}"#, "malformed");
        refused(r#"{"machine": "a", "median_ns": {"seal/seal": 0}}"#, "the median of seal/seal is 0 ns");
        refused(r#"{"machine": "a", "median_ns": {"seal/seal": 1}}"#, CALIBRATION_CPU);
    }
}
