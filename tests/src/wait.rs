//! Waiting for something to become true: looks again and again until a deadline, and then says what it saw last.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take that a machine under load does at once.
pub const SOON: Duration = Duration::from_secs(20);

/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks until there is a value.
///
/// # Panics
/// At the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < deadline, "{what}: not within {deadline:?}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

/// Looks until a value is the expected one.
///
/// # Panics
/// At the deadline, with the value seen last.
#[track_caller]
pub fn eventually_is<T: PartialEq + Debug>(what: &str, expected: &T, mut look: impl FnMut() -> T) {
    let started = Instant::now();
    loop {
        let found = look();
        if found == *expected {
            return;
        }
        assert!(started.elapsed() < SOON, "{what}: {found:?} instead of {expected:?} after {SOON:?}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Waits until the clock shows a time.
pub fn until_ms(time_ms: u64) {
    let left = Duration::from_millis(time_ms.saturating_sub(now_ms()));
    eventually("the clock", left + SOON, || (now_ms() >= time_ms).then_some(()));
}
