//! When to connect again: exponential and jittered, so that a server that comes back is not met by everybody at once.

use std::time::Duration;

use rand::Rng;

/// The waits between attempts.
#[derive(Debug)]
pub(crate) struct Backoff<R> {
    first: Duration,
    most: Duration,
    next: Duration,
    random: R,
}

impl<R: Rng> Backoff<R> {
    /// Starts at the shortest wait and doubles it up to the longest; `random` makes the jitter.
    pub(crate) const fn new(first: Duration, most: Duration, random: R) -> Self {
        Self { first, most, next: first, random }
    }

    /// The next wait: between half of and the whole current step, so that the jitter also spreads those who
    /// have reached the cap, and the first attempt. At least `asked_for`, jittered upwards by up to a quarter,
    /// where the server said how long.
    pub(crate) fn wait(&mut self, asked_for: Duration) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.most);
        let jittered = step.mul_f64(self.random.random_range(0.5..=1.0));
        jittered.max(asked_for.mul_f64(self.random.random_range(1.0..=1.25)))
    }

    /// Starts over, after a connection that held.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX};

    fn backoff(seed: u64) -> Backoff<StdRng> {
        Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, StdRng::seed_from_u64(seed))
    }

    #[test]
    fn doubles_up_to_its_cap_and_stays_within_the_jitter() {
        let mut backoff = backoff(1);
        let mut step = BACKOFF_FIRST;
        for _ in 0..20 {
            let wait = backoff.wait(Duration::ZERO);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
            step = (step * 2).min(BACKOFF_MAX);
        }
        assert_eq!(step, BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.wait(Duration::ZERO) <= BACKOFF_FIRST);
    }

    #[test]
    fn spreads_clients_on_the_first_attempt_and_at_the_cap() {
        let waits = |skipped: usize| {
            let mut waits: Vec<Duration> = (0..100)
                .map(|seed| {
                    let mut backoff = backoff(seed);
                    (0..skipped).for_each(|_| {
                        backoff.wait(Duration::ZERO);
                    });
                    backoff.wait(Duration::ZERO)
                })
                .collect();
            waits.sort();
            waits.dedup();
            waits.len()
        };
        assert!(waits(0) > 90 && waits(12) > 90);
    }

    #[test]
    fn stays_away_as_long_as_the_server_asks() {
        let asked = Duration::from_secs(60);
        let wait = backoff(3).wait(asked);
        assert!(wait >= asked && wait <= asked * 5 / 4, "{wait:?}");
    }
}
