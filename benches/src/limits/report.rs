//! What all rounds have shown: medians, and each round's ratio.

use std::fmt;

use serde::Serialize;

use super::rounds::{IdleRound, Round};

/// What was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Messages, under each load.
    pub messages: Vec<Messages>,
    /// Silence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}

/// Messages under one load.
#[derive(Debug, Clone, Serialize)]
pub struct Messages {
    /// The load, for people.
    pub load: String,
    /// Processor time of a message on the bare transport, in microseconds; the median, as all that follow.
    pub echo_cpu_us: f64,
    /// The same in the bare database.
    pub store_cpu_us: f64,
    /// The same on Gureum.
    pub gureum_cpu_us: f64,
    /// The last by the sum of the two before it; not of the medians, but the median of all rounds.
    pub ratio: f64,
    /// Messages a second that came back from the bare transport.
    pub echo_per_s: f64,
    /// Messages a second of the time that the bare database wrote.
    pub store_per_s: f64,
    /// Messages a second that Gureum delivered.
    pub gureum_per_s: f64,
    /// Messages of one batch.
    pub batch_messages: f64,
    /// Bytes of the bare database's log for one message.
    pub log_bytes: f64,
    /// The median time until a message was delivered by Gureum, in microseconds, if it was told.
    pub delivery_us_p50: Option<f64>,
    /// The 99th percentile of it.
    pub delivery_us_p99: Option<f64>,
    /// Each round.
    pub rounds: Vec<Round>,
}

/// Connections that say nothing.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// How many.
    pub connections: usize,
    /// Memory of a bare connection, in bytes; the median, as all that follow.
    pub bare_bytes: f64,
    /// The same with a stream on which a message came and went.
    pub bare_bytes_with_stream: f64,
    /// Memory of Gureum for a subscribed device.
    pub gureum_bytes: f64,
    /// The last by the first.
    pub ratio: f64,
    /// Bare handshakes a second.
    pub handshakes_per_s: f64,
    /// Processor time of the server for one, in microseconds.
    pub handshake_cpu_us: f64,
    /// Each round.
    pub rounds: Vec<IdleRound>,
}

impl Messages {
    /// The medians of rounds under a load.
    #[must_use]
    pub fn of(load: String, rounds: Vec<Round>) -> Self {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value)).unwrap_or_default();
        Self {
            load,
            echo_cpu_us: of(|round| round.echo.cpu_us()),
            store_cpu_us: of(|round| round.store.measured.cpu_us()),
            gureum_cpu_us: of(|round| round.gureum.measured.cpu_us()),
            ratio: of(|round| round.ratio),
            echo_per_s: of(|round| round.echo.per_s()),
            store_per_s: of(|round| round.store.measured.per_s()),
            gureum_per_s: of(|round| round.gureum.measured.per_s()),
            batch_messages: of(|round| per(round.store.measured.messages, round.store.batches)),
            log_bytes: of(|round| per(round.store.log_bytes, round.store.measured.messages)),
            delivery_us_p50: median(rounds.iter().filter_map(|round| Some(round.gureum.delivery_us_p50? as f64))),
            delivery_us_p99: median(rounds.iter().filter_map(|round| Some(round.gureum.delivery_us_p99? as f64))),
            rounds,
        }
    }
}

impl Idle {
    /// The medians of rounds with so many connections.
    #[must_use]
    pub fn of(connections: usize, rounds: Vec<IdleRound>) -> Self {
        let of = |value: fn(&IdleRound) -> f64| median(rounds.iter().map(value)).unwrap_or_default();
        Self {
            connections,
            bare_bytes: of(|round| round.bare.bytes as f64),
            bare_bytes_with_stream: of(|round| round.bare.bytes_with_stream as f64),
            gureum_bytes: of(|round| round.gureum_bytes as f64),
            ratio: of(|round| round.ratio),
            handshakes_per_s: of(|round| round.bare.handshakes_per_s),
            handshake_cpu_us: of(|round| round.bare.handshake_cpu_us),
            rounds,
        }
    }
}

/// Tables as docs/performance.md has them.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.messages.is_empty() {
            writeln!(
                f,
                "| load | quinn, µs a message | RocksDB, µs | Gureum, µs | Gureum by both (each round) | messages a \
                 second: quinn, RocksDB, Gureum | messages a batch | log bytes a message | delivery p50, p99 |\n\
                 |---|---|---|---|---|---|---|---|---|"
            )?;
        }
        for messages in &self.messages {
            writeln!(f, "{messages}")?;
        }
        match &self.idle {
            Some(idle) => write!(f, "{idle}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: Option<f64>| us.map_or_else(|| "?".to_owned(), |us| format!("{:.2} ms", us / 1_000.0));
        write!(
            f,
            "| {} | {:.2} | {:.2} | {:.2} | **{:.2}** ({}) | {:.0}, {:.0}, {:.0} | {:.1} | {:.0} | {}, {} |",
            self.load,
            self.echo_cpu_us,
            self.store_cpu_us,
            self.gureum_cpu_us,
            self.ratio,
            ratios(self.rounds.iter().map(|round| round.ratio)),
            self.echo_per_s,
            self.store_per_s,
            self.gureum_per_s,
            self.batch_messages,
            self.log_bytes,
            ms(self.delivery_us_p50),
            ms(self.delivery_us_p99),
        )
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| connections | quinn, bytes each | with a stream | Gureum, bytes a device | Gureum by quinn (each round) | \
             bare handshakes a second | µs each |\n\
             |---|---|---|---|---|---|---|"
        )?;
        writeln!(
            f,
            "| {} | {:.0} | {:.0} | {:.0} | **{:.2}** ({}) | {:.0} | {:.0} |",
            self.connections,
            self.bare_bytes,
            self.bare_bytes_with_stream,
            self.gureum_bytes,
            self.ratio,
            ratios(self.rounds.iter().map(|round| round.ratio)),
            self.handshakes_per_s,
            self.handshake_cpu_us,
        )
    }
}

pub(crate) fn ratios(ratios: impl Iterator<Item = f64>) -> String {
    ratios.map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn per(total: u64, of: u64) -> f64 {
    total as f64 / of.max(1) as f64
}

/// The middle value, or the mean of the two that are; `None` of nothing.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values.get(values.len() / 2 - 1).map(|lower| f64::midpoint(*lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Measured;
    use crate::limits::bare_store::Stored;
    use crate::limits::gureum::Run;
    use crate::limits::metrics::Counts;

    fn round(gureum_cpu_s: f64) -> Round {
        let measured = |cpu_s| Measured { messages: 1_000_000, cpu_s, wall_s: 10.0 };
        let store = Stored { measured: measured(4.0), batches: 10_000, changes: 0, log_bytes: 500_000_000 };
        let gureum = Run {
            measured: measured(gureum_cpu_s),
            counts: Counts::default(),
            delivery_us_p50: Some(1_500),
            delivery_us_p99: None,
        };
        Round { echo: measured(1.0), gureum, store, ratio: gureum_cpu_s / 5.0 }
    }

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn the_tables_show_medians_and_each_round() {
        let messages = Messages::of("100 pairs".to_owned(), vec![round(7.5), round(10.0), round(5.0)]);
        let report = Report { messages: vec![messages], idle: None };
        let text = report.to_string();
        let row = text.lines().last().unwrap();
        assert_eq!(
            row,
            "| 100 pairs | 1.00 | 4.00 | 7.50 | **1.50** (1.50, 2.00, 1.00) | 100000, 100000, 100000 | 100.0 | 500 | \
             1.50 ms, ? |"
        );
        let columns = |line: &str| line.matches('|').count();
        assert!(text.lines().all(|line| columns(line) == columns(row)), "{text}");
    }

    #[test]
    fn each_round_is_in_the_json() {
        let report = Report { messages: vec![Messages::of(String::new(), vec![round(5.0)])], idle: None };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json.pointer("/messages/0/rounds/0/ratio"), Some(&serde_json::json!(1.0)));
        assert_eq!(json.get("idle"), None);
    }
}
