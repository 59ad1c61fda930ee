//! The clock that decides what has expired: it never runs backwards, and a leap forward is not believed.

mod file;
mod settle;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub use file::{load_last_known_ms, save_last_known_ms};
pub use settle::{Settled, Settling};

/// The least leap that is held: below it, stepping is ordinary work of time synchronisation.
const JUMP_MS_MIN: u64 = 1_000;

/// The greatest leap that is obeyed. Time daemons step by seconds after a start; five minutes is what
/// Kerberos tolerates, and nothing of three days is lost to it.
const JUMP_MS_MAX: u64 = 5 * 60 * 1_000;

/// One in this many: the drift that is always believed. A quartz runs within 100 ppm, and the kernel
/// slews by at most 500 ppm.
const DRIFT_DIVISOR: u64 = 1_000;

/// The longest time off after which a start believes the clock without an operator's word, and the farthest that the
/// clock may be behind the last known time.
const TIME_OFF_MS_MAX: u64 = 40 * 24 * 60 * 60 * 1_000;

/// Where time comes from.
pub trait WallClock: Send + Sync + 'static {
    /// Milliseconds since 1970, as the system has it.
    fn wall_ms(&self) -> u64;

    /// Milliseconds since some moment, never less than before.
    fn monotonic_ms(&self) -> u64;
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The system's clocks, the monotonic one counted from now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl WallClock for SystemClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
    }

    fn monotonic_ms(&self) -> u64 {
        millis(self.start.elapsed())
    }
}

/// A clock that is moved by hand, for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at a time.
    #[must_use]
    pub fn at(wall_ms: u64) -> Self {
        Self { wall_ms: AtomicU64::new(wall_ms), monotonic_ms: AtomicU64::new(0) }
    }

    /// Lets time pass.
    pub fn advance(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as a wrong time server would.
    pub fn set_wall(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl WallClock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

/// Why a clock can't be trusted at a start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The wall clock says that the server was off for longer than is plausible.
    #[error(
        "the system clock is {days} days ahead of the last time this data directory was in use: set the clock \
         right; if it is right, remove the file `clock` from the data directory and start again"
    )]
    TooFarAhead {
        /// How far ahead.
        days: u64,
    },
    /// The last known time is implausibly far ahead of the wall clock.
    #[error(
        "the system clock is {days} days behind the last time this data directory was in use: set the clock right; if \
         it is right, remove the file `clock` from the data directory and start again"
    )]
    TooFarBehind {
        /// How far behind.
        days: u64,
    },
}

/// How the clock stands to the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStatus {
    /// How far the wall clock is ahead without being believed; zero when all is well.
    pub held_jump_ms: u64,
    /// How far the wall clock is behind this one.
    pub behind_ms: u64,
}

/// The server's time: `base + monotonic time since the start + ahead`, where `ahead` only grows.
///
/// Invariants: `now_ms` never decreases; `now_ms ≥ last_known_ms`; `ahead ≤ jump_max + elapsed / 1000`.
pub struct Clock {
    source: Arc<dyn WallClock>,
    base_ms: u64,
    start_ms: u64,
    jump_ms_max: u64,
    ahead_ms: AtomicU64,
}

impl Clock {
    /// Starts at the wall clock, or at the last known time if that is later.
    ///
    /// # Errors
    /// When the wall clock is implausibly far from the last known time.
    pub fn resume(
        source: Arc<dyn WallClock>,
        retention_ms: u64,
        last_known_ms: Option<u64>,
    ) -> Result<Self, ClockError> {
        let wall_ms = source.wall_ms();
        let last_ms = last_known_ms.unwrap_or(wall_ms);
        let off_ms = wall_ms.abs_diff(last_ms);
        if off_ms > TIME_OFF_MS_MAX {
            let days = off_ms / (24 * 60 * 60 * 1_000);
            let is_behind = wall_ms < last_ms;
            return Err(if is_behind { ClockError::TooFarBehind { days } } else { ClockError::TooFarAhead { days } });
        }
        Ok(Self {
            start_ms: source.monotonic_ms(),
            base_ms: wall_ms.max(last_ms),
            jump_ms_max: (retention_ms / 4).clamp(JUMP_MS_MIN, JUMP_MS_MAX),
            ahead_ms: AtomicU64::new(0),
            source,
        })
    }

    /// Milliseconds since 1970. Cheap: two clock readings and an atomic.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let (floor_ms, offset_ms) = self.read();
        let ahead_ms = self.ahead_ms.load(Ordering::Acquire);
        if offset_ms <= ahead_ms || offset_ms > self.offset_ms_max(floor_ms) {
            return floor_ms.saturating_add(ahead_ms);
        }
        let before_ms = self.ahead_ms.fetch_max(offset_ms, Ordering::AcqRel);
        floor_ms.saturating_add(offset_ms.max(before_ms))
    }

    /// Lets no time before this one be told any more: something with this time exists.
    pub fn not_before(&self, time_ms: u64) {
        let (floor_ms, _) = self.read();
        self.ahead_ms.fetch_max(time_ms.saturating_sub(floor_ms), Ordering::AcqRel);
    }

    /// How the clock stands to the system's.
    #[must_use]
    pub fn status(&self) -> ClockStatus {
        let now_ms = self.now_ms();
        let wall_ms = self.source.wall_ms();
        let (floor_ms, offset_ms) = self.read();
        let is_held = offset_ms > self.offset_ms_max(floor_ms);
        ClockStatus {
            held_jump_ms: if is_held { wall_ms.saturating_sub(now_ms) } else { 0 },
            behind_ms: now_ms.saturating_sub(wall_ms),
        }
    }

    /// The time by the monotonic clock alone, and how far the wall clock is ahead of it.
    fn read(&self) -> (u64, u64) {
        let elapsed_ms = self.source.monotonic_ms().saturating_sub(self.start_ms);
        let floor_ms = self.base_ms.saturating_add(elapsed_ms);
        (floor_ms, self.source.wall_ms().saturating_sub(floor_ms))
    }

    fn offset_ms_max(&self, floor_ms: u64) -> u64 {
        self.jump_ms_max.saturating_add(floor_ms.saturating_sub(self.base_ms) / DRIFT_DIVISOR)
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").field("now_ms", &self.now_ms()).finish_non_exhaustive()
    }
}

/// Whether something of that time is past its retention.
#[must_use]
pub const fn is_expired(time_ms: u64, retention_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(time_ms) >= retention_ms
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    const RETENTION_MS: u64 = 3 * DAY_MS;
    const START_MS: u64 = 1_800_000_000_000;

    fn clock(retention_ms: u64) -> (Arc<ManualClock>, Clock) {
        let source = Arc::new(ManualClock::at(START_MS));
        let clock = Clock::resume(Arc::clone(&source) as _, retention_ms, None).expect("plausible");
        (source, clock)
    }

    #[test]
    fn runs_with_the_wall() {
        let (source, clock) = clock(RETENTION_MS);
        assert_eq!(clock.now_ms(), START_MS);
        source.advance(1_234);
        assert_eq!(clock.now_ms(), START_MS + 1_234);
        assert_eq!(clock.status(), ClockStatus { held_jump_ms: 0, behind_ms: 0 });
    }

    #[test]
    fn a_step_backwards_does_not_move_it_and_time_goes_on() {
        let (source, clock) = clock(RETENTION_MS);
        source.set_wall(START_MS - DAY_MS);
        assert_eq!(clock.now_ms(), START_MS);
        source.advance(500);
        assert_eq!(clock.now_ms(), START_MS + 500);
        assert_eq!(clock.status().behind_ms, DAY_MS);
    }

    #[test]
    fn a_small_step_forward_is_obeyed_and_kept() {
        let (source, clock) = clock(RETENTION_MS);
        source.set_wall(START_MS + 60_000);
        assert_eq!(clock.now_ms(), START_MS + 60_000);
        source.set_wall(START_MS);
        assert_eq!(clock.now_ms(), START_MS + 60_000);
        source.advance(10);
        assert_eq!(clock.now_ms(), START_MS + 60_010);
    }

    #[test]
    fn a_leap_forward_is_held_and_reported() {
        let (source, clock) = clock(RETENTION_MS);
        source.set_wall(START_MS + DAY_MS);
        assert_eq!(clock.now_ms(), START_MS);
        assert_eq!(clock.status().held_jump_ms, DAY_MS);
        source.advance(1_000);
        assert_eq!(clock.now_ms(), START_MS + 1_000);
        source.set_wall(START_MS + 1_000);
        assert_eq!(clock.status(), ClockStatus { held_jump_ms: 0, behind_ms: 0 });
    }

    #[test]
    fn many_small_steps_are_held_like_one_leap() {
        let (source, clock) = clock(RETENTION_MS);
        for step in 1..=100 {
            source.set_wall(START_MS + step * 60_000);
            assert!(clock.now_ms() <= START_MS + JUMP_MS_MAX);
        }
    }

    #[test]
    fn the_leap_that_is_held_scales_with_the_retention() {
        let (source, clock) = clock(6_000);
        source.set_wall(START_MS + 1_500);
        assert_eq!(clock.now_ms(), START_MS + 1_500);
        source.set_wall(START_MS + 1_501 + 1);
        assert_eq!(clock.now_ms(), START_MS + 1_500);
    }

    #[test]
    fn slow_drift_is_followed_for_ever() {
        let (source, clock) = clock(RETENTION_MS);
        for _ in 0..1_000 {
            source.advance(DAY_MS);
            source.set_wall(source.wall_ms() + DAY_MS / 2_000);
            assert_eq!(clock.now_ms(), source.wall_ms());
        }
    }

    #[test]
    fn a_restart_never_goes_below_the_last_known_time() {
        let source = Arc::new(ManualClock::at(START_MS));
        let clock = Clock::resume(Arc::clone(&source) as _, RETENTION_MS, Some(START_MS + DAY_MS)).expect("behind");
        assert_eq!(clock.now_ms(), START_MS + DAY_MS);
        source.advance(5);
        assert_eq!(clock.now_ms(), START_MS + DAY_MS + 5);
    }

    #[test]
    fn a_restart_after_a_long_time_off_is_believed_up_to_a_bound() {
        let source = Arc::new(ManualClock::at(START_MS));
        let resume = |last_ms| Clock::resume(Arc::clone(&source) as _, RETENTION_MS, Some(last_ms));
        assert_eq!(resume(START_MS - 40 * DAY_MS).map(|clock| clock.now_ms()), Ok(START_MS));
        let error = resume(START_MS - 41 * DAY_MS).map(|clock| clock.now_ms()).expect_err("too far");
        assert_eq!(error, ClockError::TooFarAhead { days: 41 });
        assert!(error.to_string().contains("remove the file `clock`"));
    }

    #[test]
    fn a_last_known_time_is_gone_on_from_up_to_a_bound() {
        let source = Arc::new(ManualClock::at(START_MS));
        let resume = |last_ms| Clock::resume(Arc::clone(&source) as _, RETENTION_MS, Some(last_ms));
        assert_eq!(resume(START_MS + 40 * DAY_MS).map(|clock| clock.now_ms()), Ok(START_MS + 40 * DAY_MS));
        let error = resume(START_MS + 41 * DAY_MS).map(|clock| clock.now_ms()).expect_err("too far");
        assert_eq!(error, ClockError::TooFarBehind { days: 41 });
        assert!(error.to_string().contains("remove the file `clock`"));
    }

    #[test]
    fn a_thing_expires_at_its_retention_to_the_millisecond() {
        assert!(!is_expired(1_000, 500, 1_499));
        assert!(is_expired(1_000, 500, 1_500));
        assert!(!is_expired(2_000, 500, 1_000));
    }
}
