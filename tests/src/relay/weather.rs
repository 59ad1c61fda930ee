//! What a wire does to datagrams: loses, doubles, alters, delays and reorders them, as its seed says. Pure.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How bad it is. The shares are from 0 to 1 of all datagrams, each way on its own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// Lost.
    pub loss: f64,
    /// Passed twice.
    pub duplication: f64,
    /// Passed with one byte altered.
    pub corruption: f64,
    /// Held back by [`Weather::held_back`], so that later ones overtake them.
    pub reordering: f64,
    /// How long a datagram that is to be overtaken waits.
    pub held_back: Duration,
    /// How long every datagram takes.
    pub delay: Duration,
    /// Up to so much longer, each on its own.
    pub jitter: Duration,
    /// The longest datagram that passes, in bytes; the rest is lost without a word. 0: any.
    pub mtu_bytes: usize,
}

/// The wire's mood, and what it did so far.
#[derive(Debug)]
pub(super) struct Wire {
    rng: StdRng,
    pub(super) weather: Weather,
    pub(super) counts: Counts,
}

/// What happened to datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Datagrams that came to the wire.
    pub came: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because they were too long.
    pub too_long: u64,
    /// Lost because the wire was cut.
    pub cut: u64,
    /// Passed twice.
    pub doubled: u64,
    /// Altered.
    pub altered: u64,
    /// Overtaken.
    pub held_back: u64,
}

impl Wire {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), weather: Weather::default(), counts: Counts::default() }
    }

    /// When each copy of a datagram arrives, which it may alter; none when it is lost.
    pub(super) fn pass(&mut self, datagram: &mut [u8]) -> Vec<Duration> {
        let weather = self.weather;
        self.counts.came += 1;
        if weather.mtu_bytes > 0 && datagram.len() > weather.mtu_bytes {
            self.counts.too_long += 1;
            return Vec::new();
        }
        if self.rng.random_bool(weather.loss) {
            self.counts.lost += 1;
            return Vec::new();
        }
        if self.rng.random_bool(weather.corruption) && !datagram.is_empty() {
            self.counts.altered += 1;
            let at = self.rng.random_range(0..datagram.len());
            datagram[at] ^= self.rng.random_range(1..=u8::MAX);
        }
        let mut copies = 1;
        if self.rng.random_bool(weather.duplication) {
            self.counts.doubled += 1;
            copies = 2;
        }
        (0..copies).map(|_| self.delay()).collect()
    }

    fn delay(&mut self) -> Duration {
        let mut delay = self.weather.delay + self.weather.jitter.mul_f64(self.rng.random());
        if self.rng.random_bool(self.weather.reordering) {
            self.counts.held_back += 1;
            delay += self.weather.held_back;
        }
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(seed: u64, weather: Weather) -> (Vec<Vec<Duration>>, Counts) {
        let mut wire = Wire::new(seed);
        wire.weather = weather;
        let passed = (0..10_000).map(|_| wire.pass(&mut [0; 1200])).collect();
        (passed, wire.counts)
    }

    #[test]
    fn the_same_seed_is_the_same_weather() {
        let jitter = Duration::from_millis(5);
        let weather =
            Weather { loss: 0.1, duplication: 0.1, corruption: 0.1, reordering: 0.1, jitter, ..Weather::default() };
        assert_eq!(passed(7, weather), passed(7, weather));
        assert_ne!(passed(7, weather).0, passed(8, weather).0);
    }

    #[test]
    fn it_does_as_often_as_it_is_told() {
        let weather = Weather { loss: 0.3, duplication: 0.2, corruption: 0.1, reordering: 0.1, ..Weather::default() };
        let counts = passed(1, weather).1;
        assert_eq!(counts.came, 10_000);
        assert!((2_800..3_200).contains(&counts.lost), "{counts:?}");
        assert!((1_250..1_550).contains(&counts.doubled), "{counts:?}");
        assert!((600..800).contains(&counts.altered), "{counts:?}");
        assert!((700..1_000).contains(&counts.held_back), "{counts:?}");
    }

    #[test]
    fn fair_weather_passes_everything_at_once_and_a_narrow_wire_what_fits() {
        let mut wire = Wire::new(1);
        let mut datagram = [5; 1400];
        assert_eq!(wire.pass(&mut datagram), [Duration::ZERO]);
        assert_eq!(datagram, [5; 1400]);
        wire.weather.mtu_bytes = 1200;
        assert!(wire.pass(&mut datagram).is_empty());
        assert_eq!(wire.pass(&mut datagram[..1200]), [Duration::ZERO]);
        assert_eq!(wire.counts.too_long, 1);
    }
}
