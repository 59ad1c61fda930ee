//! Decides when whoever connects must first prove to have the address that it writes on its packets. Pure: time is
//! told to it as ticks.

use crate::limits::{RETRY_CALM_PER_TICK, RETRY_CALM_TICKS, UNVALIDATED_HANDSHAKES_MAX};

/// How many handshakes are in flight with addresses that anybody may have written, and what follows from it.
///
/// A handshake costs half a millisecond and some 30 KB, and who lies about the address pays for neither. A Retry costs
/// a packet that is smaller than what it answers, and keeps nothing; an honest client pays a round trip.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    unvalidated: usize,
    is_on: bool,
    /// Retries since the last tick.
    asked: usize,
    calm_ticks: u32,
}

/// A change of mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// From now on addresses are to be proven.
    On,
    /// No longer.
    Off,
}

impl Pressure {
    /// Whether a handshake with an address that is not proven may begin. `false`: answer with a Retry.
    pub(super) const fn admit(&mut self) -> (bool, Option<Turn>) {
        let turn = if self.unvalidated >= UNVALIDATED_HANDSHAKES_MAX { self.turn_on() } else { None };
        if self.is_on {
            self.asked = self.asked.saturating_add(1);
            return (false, turn);
        }
        self.unvalidated += 1;
        (true, turn)
    }

    /// A handshake that was admitted is over, one way or the other.
    pub(super) const fn end(&mut self) {
        self.unvalidated = self.unvalidated.saturating_sub(1);
    }

    /// A second has passed. Off only after some calm ones in a row, so that a flood in waves does not get a new set of
    /// handshakes with each wave.
    pub(super) fn tick(&mut self) -> Option<Turn> {
        let is_calm = self.asked <= RETRY_CALM_PER_TICK && self.unvalidated < UNVALIDATED_HANDSHAKES_MAX / 2;
        self.asked = 0;
        self.calm_ticks = if is_calm { self.calm_ticks.saturating_add(1) } else { 0 };
        if gureum_proto::mutated(333) || !self.is_on || self.calm_ticks < RETRY_CALM_TICKS {
            return None;
        }
        self.is_on = false;
        Some(Turn::Off)
    }

    /// Handshakes in flight with addresses that are not proven.
    pub(super) const fn unvalidated(&self) -> usize {
        self.unvalidated
    }

    const fn turn_on(&mut self) -> Option<Turn> {
        if self.is_on {
            return None;
        }
        self.is_on = true;
        self.calm_ticks = 0;
        Some(Turn::On)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flooded() -> Pressure {
        let mut pressure = Pressure::default();
        for _ in 0..UNVALIDATED_HANDSHAKES_MAX {
            assert_eq!(pressure.admit(), (true, None));
        }
        assert_eq!(pressure.admit(), (false, Some(Turn::On)));
        pressure
    }

    #[test]
    fn handshakes_that_nobody_finishes_are_bounded_and_then_each_is_asked_for_its_address() {
        let mut pressure = flooded();
        for _ in 0..10_000 {
            assert_eq!(pressure.admit(), (false, None));
        }
        assert_eq!(pressure.unvalidated(), UNVALIDATED_HANDSHAKES_MAX);
    }

    #[test]
    fn it_ends_after_calm_and_not_between_two_waves() {
        let mut pressure = flooded();
        (0..UNVALIDATED_HANDSHAKES_MAX).for_each(|_| pressure.end());
        for _ in 0..3 {
            for _ in 0..RETRY_CALM_TICKS - 1 {
                assert_eq!(pressure.tick(), None);
            }
            // The next wave.
            for _ in 0..=RETRY_CALM_PER_TICK {
                assert!(!pressure.admit().0);
            }
            assert_eq!(pressure.tick(), None);
        }
        for _ in 0..RETRY_CALM_TICKS - 1 {
            assert_eq!(pressure.tick(), None);
        }
        assert_eq!(pressure.tick(), Some(Turn::Off));
        assert_eq!(pressure.admit(), (true, None));
    }

    #[test]
    fn ordinary_arrivals_are_never_asked() {
        let mut pressure = Pressure::default();
        for _ in 0..10 * UNVALIDATED_HANDSHAKES_MAX {
            assert_eq!(pressure.admit(), (true, None));
            pressure.end();
        }
        assert_eq!(pressure.tick(), None);
    }
}
