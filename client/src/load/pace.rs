//! When the messages of one device are due: as soon as there is room, or at times fixed in advance.

use std::time::Duration;

use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use tokio::time::Instant;

use super::LoadPace;

/// One device's schedule.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    start: Instant,
    end: Instant,
    window: usize,
    /// Messages that are still to come.
    left: u64,
    /// Between two messages of this device; `None` in a closed loop.
    interval: Option<Duration>,
    next: Instant,
    /// There was no room for more when it was last looked.
    is_full: bool,
}

/// A message that may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// When it was due, in nanoseconds since the start.
    pub(super) at_ns: u64,
    /// It waited for its time and not for room, so that nobody but the sender can be late with it.
    pub(super) by_time: bool,
}

impl Pace {
    /// The schedule of device `index` of `devices` that talk; an open loop spreads them over the interval.
    pub(super) fn new(pace: LoadPace, devices: usize, index: usize, start: Instant, duration: Duration) -> Self {
        let in_flight_max = usize::try_from(SENDS_IN_FLIGHT_MAX).unwrap_or(1);
        let (window, interval) = match pace {
            LoadPace::Window(window) => (usize::try_from(window).unwrap_or(1).clamp(1, in_flight_max), None),
            LoadPace::Rate(rate) => (in_flight_max, Some(interval(rate, devices))),
        };
        let next = start + interval.map_or(Duration::ZERO, |interval| spread(interval, index, devices));
        Self { start, end: start + duration, window, left: u64::MAX, interval, next, is_full: false }
    }

    /// The same with so many messages at most.
    pub(super) fn at_most(self, messages: u64) -> Self {
        Self { left: messages, ..self }
    }

    /// Nothing more is due.
    pub(super) fn stop(&mut self) {
        self.left = 0;
    }

    /// How many messages were due and are never sent: there was no room for them until the end.
    pub(super) fn unsent(&self) -> u64 {
        match self.interval {
            Some(interval) if self.left > 0 && self.next < self.end => {
                let messages = (self.end - self.next).as_nanos().div_ceil(interval.as_nanos().max(1));
                u64::try_from(messages).unwrap_or(u64::MAX)
            }
            _ => 0,
        }
    }

    /// Leaves out what was due until now: nobody was there to say it.
    pub(super) fn skip(&mut self, now: Instant) {
        if let Some(interval) = self.interval
            && self.next < now
        {
            // The devices stay spread as they were.
            let behind = (now - self.next).as_nanos().div_ceil(interval.as_nanos().max(1));
            self.next += interval.saturating_mul(u32::try_from(behind).unwrap_or(u32::MAX));
        }
    }

    /// What may be sent now.
    pub(super) fn due(&mut self, now: Instant, in_flight: usize) -> Vec<Due> {
        let (mut due, by_time) = (Vec::new(), self.interval.is_some() && !self.is_full);
        while in_flight + due.len() < self.window && self.next <= now && self.next < self.end && !self.is_over(now) {
            self.left -= 1;
            match self.interval {
                Some(interval) => {
                    due.push(Due { at_ns: self.since_start_ns(self.next), by_time });
                    self.next += interval;
                }
                None => due.push(Due { at_ns: self.since_start_ns(now), by_time }),
            }
        }
        self.is_full = in_flight + due.len() >= self.window;
        due
    }

    /// When the next message is due, if it waits for nothing but its time.
    pub(super) fn next_due(&self, now: Instant, in_flight: usize) -> Option<Instant> {
        let is_timed = self.interval.is_some() && in_flight < self.window;
        (is_timed && self.next < self.end && !self.is_over(now)).then_some(self.next)
    }

    /// From when on nothing is due.
    pub(super) const fn end(&self) -> Instant {
        self.end
    }

    /// Whether nothing more is due.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.end || self.left == 0
    }

    /// Nanoseconds since the start of the load.
    fn since_start_ns(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[expect(clippy::cast_precision_loss, reason = "devices are far below 2^52")]
fn interval(rate: f64, devices: usize) -> Duration {
    Duration::try_from_secs_f64(devices as f64 / rate).unwrap_or(Duration::MAX / 4).max(Duration::from_nanos(1))
}

#[expect(clippy::cast_precision_loss, reason = "devices are far below 2^52")]
fn spread(interval: Duration, index: usize, devices: usize) -> Duration {
    interval.mul_f64(index as f64 / devices.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn times(due: &[Due]) -> Vec<u64> {
        due.iter().map(|due| due.at_ns).collect()
    }

    #[test]
    fn an_open_loop_counts_from_when_a_message_was_due_however_late_it_leaves() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(10.0), 1, 0, start, SECOND);
        let due = times(&pace.due(start + Duration::from_millis(350), 0));
        assert_eq!(due, [0, 100_000_000, 200_000_000, 300_000_000]);
        assert_eq!(pace.next_due(start, 4), Some(start + Duration::from_millis(400)));
    }

    #[test]
    fn an_open_loop_spreads_its_devices_and_shares_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(10.0), 2, 1, start, SECOND);
        assert_eq!(times(&pace.due(start + Duration::from_millis(350), 0)), [100_000_000, 300_000_000]);
    }

    #[test]
    fn a_closed_loop_fills_its_window_and_then_waits_for_answers() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Window(3), 1, 0, start, SECOND);
        assert_eq!(pace.due(start, 1).len(), 2);
        assert_eq!((pace.due(start, 3).len(), pace.end()), (0, start + SECOND));
        assert_eq!(pace.next_due(start, 0), None, "an answer makes room, and no time");
    }

    #[test]
    fn so_many_messages_are_all_that_is_due() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Window(4), 1, 0, start, SECOND).at_most(5);
        assert_eq!((pace.due(start, 0).len(), pace.is_over(start)), (4, false));
        assert_eq!((pace.due(start, 0).len(), pace.is_over(start)), (1, true));
        assert_eq!((pace.due(start, 0).len(), pace.unsent()), (0, 0));
    }

    #[test]
    fn what_was_due_and_found_no_room_is_counted() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(100.0), 1, 0, start, SECOND);
        assert_eq!(pace.due(start + SECOND * 9 / 10, 0).len(), 64);
        assert!(pace.is_over(start + SECOND));
        assert_eq!(pace.unsent(), 36);
        pace.stop();
        assert_eq!(pace.unsent(), 0, "who was stopped has left out nothing");
    }

    #[test]
    fn what_was_due_while_nobody_was_there_is_left_out_and_the_rest_stays_spread() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(10.0), 2, 1, start, SECOND);
        pace.skip(start + Duration::from_millis(350));
        assert_eq!(times(&pace.due(start + Duration::from_millis(750), 0)), [500_000_000, 700_000_000]);
        pace.skip(start + Duration::from_millis(800));
        assert_eq!(times(&pace.due(start + Duration::from_millis(900), 0)), [900_000_000]);
    }

    #[test]
    fn nothing_is_due_after_the_end_and_never_more_than_may_be_in_flight() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(1e9), 1, 0, start, SECOND);
        assert_eq!(pace.due(start + SECOND / 2, 0).len(), 64);
        assert_eq!(pace.due(start + SECOND, 0).len(), 0);
        assert!(pace.is_over(start + SECOND));
        assert_eq!(pace.next_due(start + SECOND, 0), None);
        assert_eq!(pace.next_due(start + SECOND / 2, 64), None, "no room");
        assert!(pace.next_due(start + SECOND / 2, 63).is_some());
    }

    #[test]
    fn what_waited_for_room_is_told_from_what_waited_for_its_time() {
        let start = Instant::now();
        let mut pace = Pace::new(LoadPace::Rate(1_000.0), 1, 0, start, SECOND);
        let mut by_time = |ms, in_flight| -> Vec<bool> {
            let due = pace.due(start + Duration::from_millis(ms), in_flight);
            due.iter().map(|due| due.by_time).collect()
        };
        assert_eq!(by_time(1, 60), [true, true]);
        assert_eq!(by_time(9, 62), [true, true], "the last two places");
        assert_eq!(by_time(9, 64), [false; 0]);
        assert_eq!(by_time(9, 61), [false; 3], "an answer has made room");
        assert_eq!(by_time(9, 50), [false; 3], "all places were taken when it was looked");
        assert_eq!(by_time(10, 50), [true]);
        let mut window = Pace::new(LoadPace::Window(1), 1, 0, start, SECOND);
        assert_eq!(window.due(start, 0), [Due { at_ns: 0, by_time: false }]);
    }
}
