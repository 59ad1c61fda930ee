//! Counters and histograms of a load, one lane for some pairs so that they seldom wait for each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gureum_proto::Code;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::limits::{LOAD_ERRORS_MAX, LOAD_LANES_MAX};

/// The longest latency that is told from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// What some pairs have done.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) refused: BTreeMap<Code, u64>,
    pub(super) accept: Histogram<u64>,
    pub(super) delivery: Histogram<u64>,
    /// When the last message was accepted or delivered, since the start.
    pub(super) last: Duration,
}

impl Lane {
    fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)
                .expect("the bounds are in order, 3 digits exist")
        };
        Self {
            sent: 0,
            accepted: 0,
            delivered: 0,
            refused: BTreeMap::new(),
            accept: histogram(),
            delivery: histogram(),
            last: Duration::ZERO,
        }
    }

    /// A message was accepted.
    pub(super) fn accepted(&mut self, due_ns: u64, now_ns: u64) {
        self.accepted += 1;
        self.accept.saturating_record(latency_us(due_ns, now_ns));
        self.last = self.last.max(Duration::from_nanos(now_ns));
    }

    /// A message was received.
    pub(super) fn delivered(&mut self, due_ns: u64, now_ns: u64) {
        self.delivered += 1;
        self.delivery.saturating_record(latency_us(due_ns, now_ns));
        self.last = self.last.max(Duration::from_nanos(now_ns));
    }

    /// A message was refused.
    pub(super) fn refused(&mut self, code: Code) {
        *self.refused.entry(code).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        for (code, count) in &other.refused {
            *self.refused.entry(*code).or_default() += count;
        }
        self.accept.add(&other.accept).expect("all lanes have the same bounds");
        self.delivery.add(&other.delivery).expect("all lanes have the same bounds");
        self.last = self.last.max(other.last);
    }
}

fn latency_us(due_ns: u64, now_ns: u64) -> u64 {
    now_ns.saturating_sub(due_ns).div_ceil(1_000).max(1)
}

/// A lane that several tasks write to.
#[derive(Debug, Clone)]
pub(super) struct SharedLane(Arc<Mutex<Lane>>);

impl SharedLane {
    /// The lane; hold it for a batch, never across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, Lane> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All lanes of a load.
#[derive(Debug)]
pub(super) struct Meter {
    lanes: Vec<SharedLane>,
    errors: Mutex<Vec<String>>,
}

impl Meter {
    pub(super) fn new(pairs: usize) -> Self {
        let lanes = (0..pairs.clamp(1, LOAD_LANES_MAX)).map(|_| SharedLane(Arc::new(Mutex::new(Lane::new()))));
        Self { lanes: lanes.collect(), errors: Mutex::new(Vec::new()) }
    }

    /// The lane of a pair.
    pub(super) fn lane(&self, pair: usize) -> SharedLane {
        let lane = self.lanes.get(pair % self.lanes.len()).expect("a remainder is below its divisor");
        lane.clone()
    }

    /// A pair has ended early.
    pub(super) fn failed(&self, error: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < LOAD_ERRORS_MAX {
            errors.push(error);
        }
    }

    pub(super) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn sum(&self) -> Lane {
        let mut sum = Lane::new();
        for lane in &self.lanes {
            sum.add(&lane.lock());
        }
        sum
    }

    /// How it stands, and what happened since `before`.
    pub(super) fn progress(&self, elapsed: Duration, before: Option<&Progress>) -> Progress {
        let sum = self.sum();
        let (accepted_before, delivered_before) = before.map_or((0, 0), |b| (b.accepted, b.delivered));
        Progress {
            elapsed,
            sent: sum.sent,
            accepted: sum.accepted,
            delivered: sum.delivered,
            accepted_since: sum.accepted - accepted_before,
            delivered_since: sum.delivered - delivered_before,
            refused: sum.refused.values().sum(),
            accept_us: Latency::of(&sum.accept),
            delivery_us: Latency::of(&sum.delivery),
        }
    }
}

/// How a load stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Messages handed to the network.
    pub sent: u64,
    /// Messages on the server's disk.
    pub accepted: u64,
    /// Messages that arrived.
    pub delivered: u64,
    /// Messages accepted since the last report.
    pub accepted_since: u64,
    /// Messages that arrived since the last report.
    pub delivered_since: u64,
    /// Messages refused.
    pub refused: u64,
    /// From due to the durable answer.
    pub accept_us: Latency,
    /// From due to received.
    pub delivery_us: Latency,
}

/// A distribution of latencies, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of all are at most this.
    pub p50: u64,
    /// Nine in ten are at most this.
    pub p90: u64,
    /// 99 % are at most this.
    pub p99: u64,
    /// 99.9 % are at most this.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_up() {
        let meter = Meter::new(3);
        for pair in 0..3_u64 {
            let lane = meter.lane(usize::try_from(pair).unwrap());
            let mut lane = lane.lock();
            lane.sent += 2;
            lane.accepted(0, (pair + 1) * 1_000_000);
            lane.refused(Code::Unavailable);
        }
        let sum = meter.sum();
        assert_eq!((sum.sent, sum.accepted, sum.refused.get(&Code::Unavailable)), (6, 3, Some(&3)));
        let latency = Latency::of(&sum.accept);
        assert_eq!((latency.p50 / 10, latency.max / 10), (200, 300));
        assert_eq!(sum.last, Duration::from_millis(3));
    }

    #[test]
    fn an_empty_load_has_no_latency() {
        assert_eq!(Latency::of(&Meter::new(1).sum().accept), Latency::default());
    }
}
