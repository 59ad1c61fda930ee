//! How fast one connection may ask. What is beyond waits in the transport, where it costs neither a task nor a thread:
//! somebody who asks as fast as possible takes no processor from the others.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{REQUEST_INTERVAL_MS, REQUESTS_AT_ONCE_MAX};

const INTERVAL: Duration = Duration::from_millis(REQUEST_INTERVAL_MS);

/// A bucket of requests that fills by time.
#[derive(Debug)]
pub(super) struct Pace {
    /// When nothing is left of what was asked so far.
    rested_at: Instant,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self { rested_at: now }
    }

    /// When the next request may be taken; `None`: now.
    pub(super) fn opens_at(&self, now: Instant) -> Option<Instant> {
        let ahead = self.rested_at.saturating_duration_since(now);
        let wait = ahead.saturating_sub(INTERVAL * REQUESTS_AT_ONCE_MAX);
        (!wait.is_zero()).then(|| now + wait)
    }

    /// A request was taken.
    pub(super) fn take(&mut self, now: Instant) {
        self.rested_at = self.rested_at.max(now) + INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pace: &mut Pace, now: Instant) -> u32 {
        let mut taken = 0;
        while pace.opens_at(now).is_none() {
            pace.take(now);
            taken += 1;
            assert!(taken < 10 * REQUESTS_AT_ONCE_MAX, "it never closes");
        }
        taken
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_one_by_one() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(taken(&mut pace, start), REQUESTS_AT_ONCE_MAX + 1);
        let opens_at = pace.opens_at(start).expect("it is closed");
        assert_eq!(opens_at, start + INTERVAL);
        assert_eq!(taken(&mut pace, opens_at), 1);
        assert_eq!(taken(&mut pace, start + INTERVAL * 11), 10);
    }

    #[test]
    fn a_long_rest_gives_one_burst_and_not_many() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        taken(&mut pace, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(taken(&mut pace, later), REQUESTS_AT_ONCE_MAX + 1);
    }
}
