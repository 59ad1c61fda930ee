//! A start whose clock is far from the last known time: the system's clock must stand for a while first, because a
//! machine may boot with a wrong one and be put right by its time daemon a minute later.

use super::{JUMP_MS_MIN, WallClock};

/// One in this many parts of the retention: how far wall clock and last known time may be apart, either way, and be
/// believed at once. What a wrong one could then cost is as much of everybody's last messages.
const BELIEVED_DIVISOR: u64 = 4;

/// One in this many parts of the retention: how long the clock must stand.
const STAND_DIVISOR: u64 = 864;

/// Bounds of that time: a time daemon needs a minute or two after boot, and nobody waits longer for nothing.
const STAND_MS_MIN: u64 = 100;
const STAND_MS_MAX: u64 = 5 * 60 * 1_000;

/// Watches the wall clock of a start. Nothing is served and nothing is destroyed before it says
/// [`Settled::Believed`].
#[derive(Debug)]
pub struct Settling {
    believed_ms: u64,
    stand_ms: u64,
    last_known_ms: Option<u64>,
    /// The wall and the monotonic clock when the present run of the wall clock was first seen.
    since: Option<(u64, u64)>,
}

/// Whether the wall clock may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It may.
    Believed,
    /// It claims a long time off, and has to stand on.
    Doubted {
        /// How long the server would have been off.
        off_ms: u64,
        /// How long the clock has yet to stand.
        left_ms: u64,
    },
    /// It is far behind the last known time: one of the two is wrong, and going on from the later one would let
    /// messages expire. It has to stand on.
    Contradicted {
        /// How far behind.
        behind_ms: u64,
        /// How long the clock has yet to stand.
        left_ms: u64,
    },
}

impl Settling {
    /// For a data directory that was last in use at that time. A new directory has nothing to lose.
    #[must_use]
    pub fn new(retention_ms: u64, last_known_ms: Option<u64>) -> Self {
        Self {
            believed_ms: (retention_ms / BELIEVED_DIVISOR).max(JUMP_MS_MIN),
            stand_ms: (retention_ms / STAND_DIVISOR).clamp(STAND_MS_MIN, STAND_MS_MAX),
            last_known_ms,
            since: None,
        }
    }

    /// How often to look.
    #[must_use]
    pub fn period_ms(&self) -> u64 {
        (self.stand_ms / 10).clamp(1, 1_000)
    }

    /// Looks at the clock. A step of the wall clock, in either direction, begins anew.
    pub fn look(&mut self, source: &dyn WallClock) -> Settled {
        let (wall_ms, monotonic_ms) = (source.wall_ms(), source.monotonic_ms());
        let last_ms = self.last_known_ms.unwrap_or(wall_ms);
        if wall_ms.abs_diff(last_ms) <= self.believed_ms {
            return Settled::Believed;
        }
        match self.left_ms(wall_ms, monotonic_ms) {
            0 => Settled::Believed,
            left_ms if wall_ms < last_ms => Settled::Contradicted { behind_ms: last_ms - wall_ms, left_ms },
            left_ms => Settled::Doubted { off_ms: wall_ms - last_ms, left_ms },
        }
    }

    /// How long the wall clock has yet to stand.
    fn left_ms(&mut self, wall_ms: u64, monotonic_ms: u64) -> u64 {
        let (wall_then_ms, then_ms) = *self.since.get_or_insert((wall_ms, monotonic_ms));
        let stood_ms = monotonic_ms.saturating_sub(then_ms);
        if wall_then_ms.saturating_add(stood_ms).abs_diff(wall_ms) > JUMP_MS_MIN {
            self.since = Some((wall_ms, monotonic_ms));
            return self.stand_ms;
        }
        self.stand_ms.saturating_sub(stood_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    const RETENTION_MS: u64 = 3 * DAY_MS;
    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn a_short_time_off_or_behind_and_a_new_directory_are_believed_at_once() {
        let source = ManualClock::at(NOW_MS);
        for last_known_ms in [None, Some(NOW_MS), Some(NOW_MS + 3 * DAY_MS / 4), Some(NOW_MS - 3 * DAY_MS / 4)] {
            assert_eq!(Settling::new(RETENTION_MS, last_known_ms).look(&source), Settled::Believed);
        }
    }

    #[test]
    fn after_a_week_off_the_clock_must_stand_for_five_minutes() {
        let source = ManualClock::at(NOW_MS);
        let mut settling = Settling::new(RETENTION_MS, Some(NOW_MS - 7 * DAY_MS));
        assert_eq!(settling.look(&source), Settled::Doubted { off_ms: 7 * DAY_MS, left_ms: 300_000 });
        source.advance(299_999);
        assert!(matches!(settling.look(&source), Settled::Doubted { left_ms: 1, .. }));
        source.advance(1);
        assert_eq!(settling.look(&source), Settled::Believed);
    }

    #[test]
    fn a_last_known_time_far_ahead_is_doubted_until_the_clock_has_stood_or_comes_up_to_it() {
        let source = ManualClock::at(NOW_MS);
        let mut settling = Settling::new(RETENTION_MS, Some(NOW_MS + 7 * DAY_MS));
        let doubted = Settled::Contradicted { behind_ms: 7 * DAY_MS, left_ms: 300_000 };
        assert_eq!(settling.look(&source), doubted);
        source.advance(299_999);
        assert!(matches!(settling.look(&source), Settled::Contradicted { left_ms: 1, .. }));
        source.advance(1);
        assert_eq!(settling.look(&source), Settled::Believed);

        let booted = ManualClock::at(0);
        let mut settling = Settling::new(RETENTION_MS, Some(NOW_MS));
        assert_eq!(settling.look(&booted), Settled::Contradicted { behind_ms: NOW_MS, left_ms: 300_000 });
        booted.advance(60_000);
        booted.set_wall(NOW_MS + 60_000);
        assert_eq!(settling.look(&booted), Settled::Believed);
    }

    #[test]
    fn a_clock_that_is_put_right_meanwhile_ends_the_doubt_without_harm() {
        let source = ManualClock::at(NOW_MS + 300 * DAY_MS);
        let mut settling = Settling::new(RETENTION_MS, Some(NOW_MS - 60_000));
        assert!(matches!(settling.look(&source), Settled::Doubted { .. }));
        source.advance(60_000);
        source.set_wall(NOW_MS);
        assert_eq!(settling.look(&source), Settled::Believed);
    }

    #[test]
    fn each_step_of_the_clock_begins_the_wait_anew() {
        let source = ManualClock::at(NOW_MS + 9 * DAY_MS);
        let mut settling = Settling::new(RETENTION_MS, Some(NOW_MS));
        settling.look(&source);
        source.advance(290_000);
        source.set_wall(NOW_MS + 8 * DAY_MS);
        assert_eq!(settling.look(&source), Settled::Doubted { off_ms: 8 * DAY_MS, left_ms: 300_000 });
        source.advance(290_000);
        assert!(matches!(settling.look(&source), Settled::Doubted { left_ms: 10_000, .. }));
    }

    #[test]
    fn the_wait_scales_with_the_retention() {
        let source = ManualClock::at(NOW_MS);
        let mut settling = Settling::new(6_000, Some(NOW_MS - 60_000));
        assert_eq!(settling.look(&source), Settled::Doubted { off_ms: 60_000, left_ms: 100 });
    }
}
