//! Counters and histograms of a load: one lane for some devices so that they seldom wait for each other, and what they add up
//! to, second by second and in all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gureum_proto::Code;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::pace::Due;
use crate::limits::{LOAD_ERRORS_MAX, LOAD_LANES_MAX, LOAD_MOMENTS_MAX};

/// The longest latency that is told from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// What some devices have done.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) sent: u64,
    /// Messages that were due and found no room until the end.
    pub(super) unsent: u64,
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    /// Of them, those that were due before their receiver was there.
    pub(super) caught_up: u64,
    /// Confirmations that were accepted.
    pub(super) receipts: u64,
    /// Times that a device has connected again.
    pub(super) reconnects: u64,
    pub(super) refused: BTreeMap<Code, u64>,
    pub(super) accept: Histogram<u64>,
    pub(super) delivery: Histogram<u64>,
    pub(super) catch_up: Histogram<u64>,
    /// How late messages left that waited for nothing but their time.
    pub(super) lateness: Histogram<u64>,
    /// When the last message was accepted or delivered, since the start.
    pub(super) last: Duration,
}

/// An empty histogram.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("the bounds are in order, 3 digits exist")
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            sent: 0,
            unsent: 0,
            accepted: 0,
            delivered: 0,
            caught_up: 0,
            receipts: 0,
            reconnects: 0,
            refused: BTreeMap::new(),
            accept: histogram(),
            delivery: histogram(),
            catch_up: histogram(),
            lateness: histogram(),
            last: Duration::ZERO,
        }
    }

    /// A message was handed over.
    pub(super) fn sent(&mut self, due: Due, now_ns: u64) {
        self.sent += 1;
        if due.by_time {
            self.lateness.saturating_record(latency_us(due.at_ns, now_ns));
        }
    }

    /// A message was accepted.
    pub(super) fn accepted(&mut self, due_ns: u64, now_ns: u64) {
        self.accepted += 1;
        self.accept.saturating_record(latency_us(due_ns, now_ns));
        self.last = self.last.max(Duration::from_nanos(now_ns));
    }

    /// A message was received by a device that was there when it was due.
    pub(super) fn delivered(&mut self, due_ns: u64, now_ns: u64) {
        self.delivered += 1;
        self.delivery.saturating_record(latency_us(due_ns, now_ns));
        self.last = self.last.max(Duration::from_nanos(now_ns));
    }

    /// A message was received by a device that was not: that says how long it was away.
    pub(super) fn caught_up(&mut self, due_ns: u64, now_ns: u64) {
        self.delivered += 1;
        self.caught_up += 1;
        self.catch_up.saturating_record(latency_us(due_ns, now_ns));
        self.last = self.last.max(Duration::from_nanos(now_ns));
    }

    /// A message was refused.
    pub(super) fn refused(&mut self, code: Code) {
        *self.refused.entry(code).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.caught_up += other.caught_up;
        self.receipts += other.receipts;
        self.reconnects += other.reconnects;
        for (code, count) in &other.refused {
            *self.refused.entry(*code).or_default() += count;
        }
        for (histogram, more) in [
            (&mut self.accept, &other.accept),
            (&mut self.delivery, &other.delivery),
            (&mut self.catch_up, &other.catch_up),
            (&mut self.lateness, &other.lateness),
        ] {
            // It looks at each of thousands of counts, and who sends on this thread is late meanwhile.
            if !more.is_empty() {
                histogram.add(more).expect("all lanes have the same bounds");
            }
        }
        self.last = self.last.max(other.last);
    }

    /// Empties it; the room that its histograms have stays.
    fn reset(&mut self) {
        for histogram in [&mut self.accept, &mut self.delivery, &mut self.catch_up, &mut self.lateness] {
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
        (self.sent, self.accepted, self.delivered, self.caught_up) = (0, 0, 0, 0);
        (self.unsent, self.receipts, self.reconnects) = (0, 0, 0);
        self.refused.clear();
    }
}

/// How long something took, in the microseconds of a histogram.
pub(super) fn latency_us(due_ns: u64, now_ns: u64) -> u64 {
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

/// All lanes of a load. A message is counted in its lane alone; what the lanes hold is added up each second.
#[derive(Debug)]
pub(super) struct Meter {
    lanes: Vec<SharedLane>,
    sums: Mutex<Sums>,
    errors: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Sums {
    second: Lane,
    part: Lane,
    all: Lane,
    series: Vec<Moment>,
}

impl Sums {
    fn drain(&mut self, lanes: &[SharedLane]) {
        for lane in lanes {
            let mut lane = lane.lock();
            for sum in [&mut self.second, &mut self.part, &mut self.all] {
                sum.add(&lane);
            }
            lane.reset();
        }
    }

    fn moment(&mut self, elapsed: Duration) {
        let Lane { accepted, delivered, .. } = self.second;
        let delivery_us = Latency::of(&self.second.delivery);
        let at_s = (elapsed.as_secs_f64() * 10.0).round() / 10.0;
        if self.series.len() < LOAD_MOMENTS_MAX {
            self.series.push(Moment { at_s, accepted, delivered, delivery_us });
        }
        self.second.reset();
    }
}

impl Meter {
    pub(super) fn new(devices: usize) -> Self {
        let lanes = (0..devices.clamp(1, LOAD_LANES_MAX)).map(|_| SharedLane(Arc::new(Mutex::new(Lane::new()))));
        let sums = Sums { second: Lane::new(), part: Lane::new(), all: Lane::new(), series: Vec::new() };
        Self { lanes: lanes.collect(), sums: Mutex::new(sums), errors: Mutex::new(Vec::new()) }
    }

    /// The lane of a device.
    pub(super) fn lane(&self, device: usize) -> SharedLane {
        let lane = self.lanes.get(device % self.lanes.len()).expect("a remainder is below its divisor");
        lane.clone()
    }

    /// A device has ended early.
    pub(super) fn failed(&self, error: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < LOAD_ERRORS_MAX {
            errors.push(error);
        }
    }

    pub(super) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.drain(&self.lanes);
        sums
    }

    /// A second is over: how it went.
    pub(super) fn tick(&self, elapsed: Duration) -> Standing {
        let mut sums = self.sums();
        let standing = Standing {
            elapsed,
            sent: sums.all.sent,
            accepted: sums.all.accepted,
            delivered: sums.all.delivered,
            accepted_since: sums.second.accepted,
            delivered_since: sums.second.delivered,
            refused: sums.all.refused.values().sum(),
            accept_us: Latency::of(&sums.second.accept),
            delivery_us: Latency::of(&sums.second.delivery),
        };
        sums.moment(elapsed);
        standing
    }

    /// A part of the load is over: what it came to, since the part before.
    pub(super) fn part(&self) -> Lane {
        std::mem::replace(&mut self.sums().part, Lane::new())
    }

    /// What all came to, and each second of it.
    pub(super) fn end(&self, elapsed: Duration) -> (Lane, Vec<Moment>) {
        let mut sums = self.sums();
        if sums.second.accepted + sums.second.delivered > 0 {
            sums.moment(elapsed);
        }
        (sums.all.clone(), sums.series.clone())
    }
}

/// How a load stands.
#[derive(Debug, Clone)]
pub struct Standing {
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
    /// From due to the durable answer, of those since the last report.
    pub accept_us: Latency,
    /// From due to received, likewise.
    pub delivery_us: Latency,
}

/// One second of a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moment {
    /// When it ended, in seconds since the start.
    pub at_s: f64,
    /// Messages accepted in it.
    pub accepted: u64,
    /// Messages that arrived in it.
    pub delivered: u64,
    /// From due to received, of those that arrived in it.
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

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lanes_add_up() {
        let meter = Meter::new(3);
        for device in 0..3_u64 {
            let lane = meter.lane(usize::try_from(device).unwrap());
            let mut lane = lane.lock();
            lane.sent += 2;
            lane.accepted(0, (device + 1) * 1_000_000);
            lane.refused(Code::Unavailable);
        }
        let (sum, _) = meter.end(SECOND);
        assert_eq!((sum.sent, sum.accepted, sum.refused.get(&Code::Unavailable)), (6, 3, Some(&3)));
        let latency = Latency::of(&sum.accept);
        assert_eq!((latency.p50 / 10, latency.max / 10), (200, 300));
        assert_eq!(sum.last, Duration::from_millis(3));
    }

    #[test]
    fn each_second_has_its_own_latencies_and_the_end_has_all() {
        let meter = Meter::new(1);
        let lane = meter.lane(0);
        lane.lock().delivered(0, 5_000_000);
        let standing = meter.tick(SECOND);
        assert_eq!((standing.delivered, standing.delivered_since), (1, 1));
        lane.lock().delivered(SECOND.as_nanos().try_into().unwrap(), 1_001_000_000);
        lane.lock().accepted(0, 1_000);
        let standing = meter.tick(2 * SECOND);
        assert_eq!((standing.delivered, standing.delivered_since, standing.accepted_since), (2, 1, 1));
        assert_eq!(meter.tick(3 * SECOND).delivered_since, 0);
        lane.lock().delivered(0, 3_100_000_000);

        let (all, series) = meter.end(SECOND * 16 / 5);
        let seen: Vec<_> = series.iter().map(|moment| (moment.at_s, moment.accepted, moment.delivered)).collect();
        assert_eq!(seen, [(1.0, 0, 1), (2.0, 1, 1), (3.0, 0, 0), (3.2, 0, 1)]);
        let maxima: Vec<_> = series.iter().map(|moment| moment.delivery_us.max / 1_000).collect();
        assert_eq!(maxima, [5, 1, 0, 3_100]);
        assert_eq!((all.delivered, all.delivery.len(), Latency::of(&all.delivery).max / 1_000), (3, 3, 3_100));
    }

    #[test]
    fn only_what_waited_for_its_time_says_how_late_the_sender_is() {
        let meter = Meter::new(2);
        for (device, by_time) in [(0, true), (1, false), (1, true)] {
            meter.lane(device).lock().sent(Due { at_ns: 1_000_000, by_time }, 1_250_000);
        }
        meter.tick(SECOND);
        let (all, _) = meter.end(SECOND);
        assert_eq!((all.sent, all.lateness.len(), Latency::of(&all.lateness).max), (3, 2, 250));
    }

    #[test]
    fn a_part_holds_what_came_since_the_part_before() {
        let meter = Meter::new(1);
        let lane = meter.lane(0);
        lane.lock().delivered(0, 9_000_000);
        meter.tick(SECOND);
        lane.lock().caught_up(0, 70_000_000);
        let first = meter.part();
        assert_eq!((first.delivered, first.caught_up, first.delivery.len()), (2, 1, 1));
        lane.lock().delivered(0, 1_000_000);
        let second = meter.part();
        assert_eq!((second.delivered, Latency::of(&second.delivery).max / 1_000), (1, 1));
        assert_eq!(meter.end(SECOND).0.delivered, 3);
    }

    #[test]
    fn an_empty_load_has_no_latency() {
        let (all, series) = Meter::new(1).end(SECOND);
        assert_eq!((Latency::of(&all.accept), series), (Latency::default(), Vec::new()));
    }
}
