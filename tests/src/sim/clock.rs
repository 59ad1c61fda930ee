//! Clocks over virtual time that can be wrong: each machine's wall clock is off by as much as was last set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use gureum_server::time::WallClock;
use tokio::time::Instant;

/// A machine's clock.
#[derive(Debug, Clone)]
pub struct SimClock {
    start: Instant,
    begin_ms: u64,
    off_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock that is right and begins at what the system says, because that is what KeyPackages are valid from.
    #[must_use]
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begin_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { start: Instant::now(), begin_ms, off_ms: Arc::default() }
    }

    /// The clock of another machine, which is as right as this one was at first.
    #[must_use]
    pub fn of_another_machine(&self) -> Self {
        Self { off_ms: Arc::default(), ..self.clone() }
    }

    /// Moves the wall clock, as somebody who sets it would.
    pub fn jump(&self, by_ms: i64) {
        self.off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Puts the wall clock right.
    pub fn mend(&self) {
        self.off_ms.store(0, Ordering::Relaxed);
    }

    /// How far the wall clock is off.
    #[must_use]
    pub fn off_ms(&self) -> i64 {
        self.off_ms.load(Ordering::Relaxed)
    }

    /// The true time, in milliseconds since 1970.
    #[must_use]
    pub fn true_ms(&self) -> u64 {
        self.begin_ms + self.monotonic_ms()
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl WallClock for SimClock {
    fn wall_ms(&self) -> u64 {
        self.true_ms().saturating_add_signed(self.off_ms())
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
