//! When the messages of one pair are due: as soon as there is room, or at times fixed in advance.

use std::time::Duration;

use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use tokio::time::Instant;

use super::LoadPace;

/// One pair's schedule.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    start: Instant,
    end: Instant,
    window: usize,
    /// Between two messages of this pair; `None` in a closed loop.
    interval: Option<Duration>,
    next: Instant,
}

impl Pace {
    /// The schedule of pair `index` of `pairs`; an open loop spreads the pairs over the interval.
    pub(super) fn new(pace: LoadPace, pairs: usize, index: usize, start: Instant, duration: Duration) -> Self {
        let in_flight_max = usize::try_from(SENDS_IN_FLIGHT_MAX).unwrap_or(1);
        let (window, interval) = match pace {
            LoadPace::Window(window) => (usize::try_from(window).unwrap_or(1).clamp(1, in_flight_max), None),
            LoadPace::Rate(rate) => (in_flight_max, Some(interval(rate, pairs))),
        };
        let next = start + interval.map_or(Duration::ZERO, |interval| spread(interval, index, pairs));
        Self { start, end: start + duration, window, interval, next }
    }

    /// The due times, in nanoseconds since the start, of what may be sent now.
    pub(super) fn due(&mut self, now: Instant, in_flight: usize) -> Vec<u64> {
        let mut due = Vec::new();
        while in_flight + due.len() < self.window && self.next <= now && self.next < self.end && now < self.end {
            match self.interval {
                Some(interval) => {
                    due.push(self.since_start_ns(self.next));
                    self.next += interval;
                }
                None => due.push(self.since_start_ns(now)),
            }
        }
        due
    }

    /// When to look again if nothing is answered before; `None` when only an answer makes room.
    pub(super) fn wake(&self, in_flight: usize) -> Option<Instant> {
        match self.interval {
            Some(_) if in_flight < self.window => Some(self.next.min(self.end)),
            _ => None,
        }
    }

    /// Whether nothing more is due.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }

    /// When the last message is due.
    pub(super) const fn end(&self) -> Instant {
        self.end
    }

    /// Nanoseconds since the start of the load.
    pub(super) fn since_start_ns(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[expect(clippy::cast_precision_loss, reason = "pairs are far below 2^52")]
fn interval(rate: f64, pairs: usize) -> Duration {
    Duration::try_from_secs_f64(pairs as f64 / rate).unwrap_or(Duration::MAX / 4).max(Duration::from_nanos(1))
}

#[expect(clippy::cast_precision_loss, reason = "pairs are far below 2^52")]
fn spread(interval: Duration, index: usize, pairs: usize) -> Duration {
    interval.mul_f64(index as f64 / pairs.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_open_loop_counts_from_when_a_message_was_due_however_late_it_leaves() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(10.0), 1, 0, start, SECOND);
        let due = pace.due(start + Duration::from_millis(350), 0);
        assert_eq!(due, [0, 100_000_000, 200_000_000, 300_000_000]);
        assert_eq!(pace.wake(4), Some(start + Duration::from_millis(400)));
    }

    #[test]
    fn an_open_loop_spreads_its_pairs_and_shares_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(10.0), 2, 1, start, SECOND);
        assert_eq!(pace.due(start + Duration::from_millis(350), 0), [100_000_000, 300_000_000]);
    }

    #[test]
    fn a_closed_loop_fills_its_window_and_then_waits_for_answers() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Window(3), 1, 0, start, SECOND);
        assert_eq!(pace.due(start, 1).len(), 2);
        assert_eq!((pace.due(start, 3).len(), pace.wake(3)), (0, None));
    }

    #[test]
    fn nothing_is_due_after_the_end_and_never_more_than_may_be_in_flight() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(1e9), 1, 0, start, SECOND);
        assert_eq!(pace.due(start + SECOND / 2, 0).len(), 64);
        assert_eq!(pace.due(start + SECOND, 0).len(), 0);
        assert!(pace.is_over(start + SECOND));
    }
}
