//! How fast somebody may go on: a bucket that fills by time (the generic cell rate algorithm of ITU-T I.371) and may
//! be overdrawn. Whoever has taken too much waits until it has filled again, so that many who draw on one bucket wait
//! one after the other, and none of them can take what another waits for.

use std::time::Duration;

use tokio::time::Instant;

/// One bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// What one thing fills.
    interval: Duration,
    /// What passes at once after a rest.
    burst: Duration,
    /// When nothing is left of what was taken so far.
    rested_at: Instant,
}

impl Pace {
    /// A full bucket, of which so many pass at once, and then one in each interval.
    pub(crate) fn new(interval: Duration, at_once: u32, now: Instant) -> Self {
        Self { interval, burst: interval * at_once, rested_at: now }
    }

    /// When the next thing may be taken; `None`: now.
    pub(crate) fn opens_at(&self, now: Instant) -> Option<Instant> {
        let ahead = self.rested_at.saturating_duration_since(now);
        let wait = ahead.saturating_sub(self.burst);
        (!wait.is_zero()).then(|| now + wait)
    }

    /// So many were taken, whether or not they fitted.
    pub(crate) fn take(&mut self, count: u32, now: Instant) {
        self.rested_at = self.rested_at.max(now) + self.interval * count;
    }

    /// Whether the bucket is as good as new.
    pub(crate) fn is_rested(&self, now: Instant) -> bool {
        self.rested_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(2);
    const AT_ONCE: u32 = 100;

    fn taken(pace: &mut Pace, now: Instant) -> u32 {
        let mut taken = 0;
        while pace.opens_at(now).is_none() {
            pace.take(1, now);
            taken += 1;
            assert!(taken < 10 * AT_ONCE, "it never closes");
        }
        taken
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_one_by_one() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL, AT_ONCE, start);
        assert_eq!(taken(&mut pace, start), AT_ONCE + 1);
        let opens_at = pace.opens_at(start).expect("it is closed");
        assert_eq!(opens_at, start + INTERVAL);
        assert_eq!(taken(&mut pace, opens_at), 1);
        assert_eq!(taken(&mut pace, start + INTERVAL * 11), 10);
    }

    #[test]
    fn a_long_rest_gives_one_burst_and_not_many() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL, AT_ONCE, start);
        assert!(pace.is_rested(start));
        taken(&mut pace, start);
        let later = start + Duration::from_secs(3600);
        assert!(!pace.is_rested(start) && pace.is_rested(later));
        assert_eq!(taken(&mut pace, later), AT_ONCE + 1);
    }

    #[test]
    fn what_is_more_than_a_burst_is_waited_for_in_full() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL, AT_ONCE, start);
        pace.take(1000 * AT_ONCE, start);
        assert_eq!(pace.opens_at(start), Some(start + INTERVAL * 999 * AT_ONCE));
    }

    #[test]
    fn of_two_who_draw_on_one_bucket_neither_keeps_the_other_from_its_share() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL, AT_ONCE, start);
        let mut shares = [(64, start, 0), (1, start, 0)];
        for now in (0..10_000).map(|ms| start + Duration::from_millis(ms)) {
            for (asks, heard_at, taken) in shares.iter_mut().filter(|(_, heard_at, _)| *heard_at <= now) {
                pace.take(*asks, now);
                *heard_at = pace.opens_at(now).unwrap_or(now);
                *taken += *asks;
            }
        }
        let [(.., large), (.., small)] = shares;
        assert!(large >= 60 * small && small > 50, "{large} and {small}");
        assert!((5_000..5_300).contains(&(large + small)), "10 seconds' worth and a burst: {large} and {small}");
    }
}
