//! What all rounds have shown: medians, each size held against the first one, and what is not flat.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;

use super::amplification::Amplification;
use super::rounds::Step;
use crate::limits::report::{median, per, ratios};

/// How far the processor time of a message may be from that at the first size.
const FLAT: std::ops::RangeInclusive<f64> = 0.8..=1.2;

/// What was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Messages, under each load.
    pub series: Vec<Series>,
    /// Simulated days of the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amplification: Option<Amplification>,
}

/// The same load at several sizes.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// What grows, for people.
    pub what: &'static str,
    /// The load, for people.
    pub load: String,
    /// Each size, in the order of the rounds.
    pub rows: Vec<Row>,
}

/// One size.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Connections, or messages that were stored before.
    pub size: u64,
    /// Processor time of a message, in microseconds; the median, as all that follow.
    pub cpu_us: f64,
    /// That by the same at the first size; not of the medians, but the median of all rounds.
    pub ratio: f64,
    /// The last in each round.
    pub ratios: Vec<f64>,
    /// Messages a second.
    pub per_s: f64,
    /// Messages of one batch.
    pub batch_messages: f64,
    /// The median time until a message was delivered, in microseconds, if it was told.
    pub delivery_us_p50: Option<f64>,
    /// The 99th percentile of it.
    pub delivery_us_p99: Option<f64>,
    /// The server's memory at the end, in bytes.
    pub resident_bytes: f64,
    /// Processor time of a message on the bare transport, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo_cpu_us: Option<f64>,
    /// Bytes of the data directory for each message that was stored before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes_a_message: Option<f64>,
    /// Each round.
    pub rounds: Vec<Step>,
}

impl Report {
    /// What is not as it is to be; nothing, if all is well.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for series in &self.series {
            for row in series.rows.iter().filter(|row| !row.is_flat()) {
                let (ratio, size, what, load) = (row.ratio, row.size, series.what, &series.load);
                faults.push(format!(
                    "{load}, {size} {what}: a message costs {ratio:.2} of what it costs at the first size"
                ));
            }
        }
        let amplification = self.amplification.iter().filter(|amplification| !amplification.is_within());
        faults.extend(amplification.map(|amplification| {
            format!("the store writes {:.2} bytes for each that it is handed", amplification.by_handed)
        }));
        faults
    }
}

impl Series {
    /// The medians of rounds, each of which has the same sizes in the same order.
    ///
    /// # Errors
    /// A round lacks a size.
    pub fn of(what: &'static str, load: String, rounds: Vec<Vec<Step>>) -> Result<Self> {
        let sizes = rounds.first().map_or(0, Vec::len);
        let firsts: Vec<_> = rounds.iter().filter_map(|steps| steps.first().copied()).collect();
        let mut rows = Vec::new();
        for size in 0..sizes {
            let steps: Option<Vec<_>> = rounds.iter().map(|steps| steps.get(size).copied()).collect();
            rows.push(Row::of(steps.context("a round lacks a size")?, &firsts)?);
        }
        Ok(Self { what, load, rows })
    }
}

impl Row {
    fn of(steps: Vec<Step>, firsts: &[Step]) -> Result<Self> {
        let of = |value: fn(&Step) -> f64| median(steps.iter().map(value)).unwrap_or_default();
        let optional = |value: fn(&Step) -> Option<f64>| median(steps.iter().filter_map(value));
        let by_first =
            steps.iter().zip(firsts).map(|(step, first)| step.run.measured.cpu_us() / first.run.measured.cpu_us());
        let ratios: Vec<_> = by_first.collect();
        Ok(Self {
            size: steps.first().context("there are no rounds")?.size,
            cpu_us: of(|step| step.run.measured.cpu_us()),
            ratio: median(ratios.iter().copied()).unwrap_or_default(),
            ratios,
            per_s: of(|step| step.run.measured.per_s()),
            batch_messages: of(|step| per(step.run.counts.accepted, step.run.counts.batches)),
            delivery_us_p50: optional(|step| Some(step.run.delivery_us_p50? as f64)),
            delivery_us_p99: optional(|step| Some(step.run.delivery_us_p99? as f64)),
            resident_bytes: of(|step| step.resident_bytes as f64),
            echo_cpu_us: optional(|step| Some(step.echo?.cpu_us())),
            // Of an empty store there is nothing to be told.
            disk_bytes_a_message: optional(|step| Some(per(step.disk_bytes.filter(|_| step.size > 0)?, step.size))),
            rounds: steps,
        })
    }

    /// Whether a message costs as much as at the first size.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        FLAT.contains(&self.ratio)
    }
}

/// Tables as docs/performance.md has them.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(series) = self.series.first() {
            writeln!(
                f,
                "| load | {} | window | Gureum, µs a message | by the first (each round) | messages a second | messages a \
                 batch | delivery p50, p99 | server's memory, MB | quinn, µs a message | bytes on the disk for a stored \
                 message |\n|---|---|---|---|---|---|---|---|---|---|---|",
                series.what
            )?;
        }
        for series in &self.series {
            for row in &series.rows {
                write!(f, "| {} ", series.load)?;
                writeln!(f, "{row}")?;
            }
        }
        match &self.amplification {
            Some(amplification) => write!(f, "{amplification}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "–".to_owned();
        let ms = |us: Option<f64>| us.map_or_else(|| "?".to_owned(), |us| format!("{:.2} ms", us / 1_000.0));
        let window = self.rounds.first().and_then(|step| step.window);
        write!(
            f,
            "| {} | {} | {:.2} | **{:.2}** ({}) | {:.0} | {:.1} | {}, {} | {:.0} | {} | {} |",
            self.size,
            window.map_or_else(none, |window| window.to_string()),
            self.cpu_us,
            self.ratio,
            ratios(self.ratios.iter().copied()),
            self.per_s,
            self.batch_messages,
            ms(self.delivery_us_p50),
            ms(self.delivery_us_p99),
            self.resident_bytes / 1e6,
            self.echo_cpu_us.map_or_else(none, |us| format!("{us:.2}")),
            self.disk_bytes_a_message.map_or_else(none, |bytes| format!("{bytes:.0}")),
        )
    }
}

impl fmt::Display for Amplification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = &self.written;
        let a_message = |bytes| per(bytes, written.messages);
        let by_handed = |bytes| per(bytes, written.bytes);
        writeln!(
            f,
            "| messages in days | bytes handed over for a message: body, entry, state | log | flushed | rewritten | \
             **written by handed over** | tables alone | tables by log | bytes on the disk for a kept message | disk by \
             living: median, most | µs a message |\n|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        writeln!(
            f,
            "| {} in {} | {:.0}: {:.0}, {:.0}, {:.0} | {:.2} | {:.2} | {:.2} | **{:.2}** | {:.2} | {:.2} | {:.0} | {:.2}, \
             {:.2} | {:.1} |",
            written.messages,
            self.days,
            a_message(written.bytes),
            a_message(written.body_bytes),
            a_message(written.pointer_bytes),
            a_message(written.state_bytes()),
            by_handed(self.log_bytes),
            by_handed(self.flush_bytes),
            by_handed(self.compaction_bytes),
            self.by_handed,
            self.tables_by_handed,
            self.tables_by_log,
            self.disk_bytes_a_message,
            self.space,
            self.space_max,
            self.cpu_us,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::machine::Written;
    use crate::limits::Measured;
    use crate::limits::gureum::Run;
    use crate::limits::metrics::Counts;

    fn step(size: u64, cpu_s: f64) -> Step {
        let measured = Measured { messages: 100_000, cpu_s, wall_s: 10.0 };
        let counts = Counts { accepted: 100_000, batches: 50_000, ..Counts::default() };
        let run = Run { measured, counts, delivery_us_p50: Some(1_500), delivery_us_p99: None };
        let disk_bytes = Some(5_000);
        Step { size, window: None, run, resident_bytes: 60_000_000, echo: None, disk_bytes }
    }

    fn report(rounds: Vec<Vec<Step>>) -> Report {
        let series = Series::of("stored", "1000 messages a second in all".to_owned(), rounds).unwrap();
        Report { series: vec![series], amplification: None }
    }

    #[test]
    fn sizes_are_held_against_the_first_of_their_round() {
        let report = report(vec![
            vec![step(0, 1.0), step(10, 1.1)],
            vec![step(0, 2.0), step(10, 2.6)],
            vec![step(0, 1.0), step(10, 1.15)],
        ]);
        let rows = &report.series.first().unwrap().rows;
        let near = |values: &[f64], expected: &[f64]| {
            values.len() == expected.len() && values.iter().zip(expected).all(|(one, other)| (one - other).abs() < 1e-9)
        };
        assert!(near(&rows[1].ratios, &[1.1, 1.3, 1.15]), "{rows:?}");
        assert!(near(&[rows[0].ratio, rows[1].ratio, rows[1].cpu_us], &[1.0, 1.15, 11.5]), "{rows:?}");
        assert_eq!((rows[0].disk_bytes_a_message, rows[1].disk_bytes_a_message), (None, Some(500.0)));
        assert_eq!(report.faults(), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_flat_is_named() {
        let faults = report(vec![vec![step(0, 1.0), step(10, 1.21), step(20, 1.2), step(30, 0.79)]]).faults();
        let said = |size, ratio| {
            format!(
                "1000 messages a second in all, {size} stored: a message costs {ratio} of what it costs at the first size"
            )
        };
        assert_eq!(faults, [said(10, "1.21"), said(30, "0.79")]);
    }

    #[test]
    fn a_round_that_lacks_a_size_is_refused() {
        let rounds = vec![vec![step(0, 1.0), step(10, 1.0)], vec![step(0, 1.0)]];
        assert!(Series::of("stored", String::new(), rounds).is_err());
        assert!(Series::of("stored", String::new(), Vec::new()).unwrap().rows.is_empty());
    }

    #[test]
    fn tables_have_a_line_for_each_size() {
        let report = report(vec![vec![step(0, 1.0), step(10, 1.1)]]);
        let text = report.to_string();
        assert_eq!(
            text.lines().last().unwrap(),
            "| 1000 messages a second in all | 10 | – | 11.00 | **1.10** (1.10) | 10000 | 2.0 | 1.50 ms, ? | 60 | – | 500 |"
        );
        check_columns(&text);
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn amplification_is_a_table_and_a_fault_above_its_bound() {
        let written = Written { messages: 1_000, bytes: 500_000, body_bytes: 380_000, pointer_bytes: 58_000 };
        let amplification = Amplification {
            written,
            days: 3,
            log_bytes: 550_000,
            flush_bytes: 450_000,
            compaction_bytes: 2_250_000,
            entries_gone: 0,
            by_handed: 6.5,
            tables_by_handed: 5.4,
            tables_by_log: 4.9,
            disk_bytes_a_message: 512.0,
            space: 1.1,
            space_max: 1.25,
            cpu_us: 12.0,
            took_s: 1.0,
        };
        let report = Report { series: Vec::new(), amplification: Some(amplification) };
        let text = report.to_string();
        assert_eq!(
            text.lines().last().unwrap(),
            "| 1000 in 3 | 500: 380, 58, 62 | 1.10 | 0.90 | 4.50 | **6.50** | 5.40 | 4.90 | 512 | 1.10, 1.25 | 12.0 |"
        );
        check_columns(&text);
        assert_eq!(report.faults(), ["the store writes 6.50 bytes for each that it is handed"]);
    }

    #[track_caller]
    fn check_columns(text: &str) {
        let columns = |line: &str| line.matches('|').count();
        let first = text.lines().next().map(columns);
        assert!(text.lines().all(|line| Some(columns(line)) == first), "{text}");
    }
}
