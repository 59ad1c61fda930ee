//! Clocks with a bug in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gureum_server::time::WallClock;

use super::Sabotage;

pub(super) fn spoiled(bug: Sabotage, of: Arc<dyn WallClock>) -> Arc<dyn WallClock> {
    if !matches!(bug, Sabotage::LeapObeyed | Sabotage::LeapUnsaid) {
        return of;
    }
    let begin_ms = of.wall_ms().saturating_sub(of.monotonic_ms());
    Arc::new(Spoiled { bug, of, begin_ms, latest_ms: AtomicU64::new(0) })
}

struct Spoiled {
    bug: Sabotage,
    of: Arc<dyn WallClock>,
    /// What the wall clock showed at the beginning of the monotonic one.
    begin_ms: u64,
    latest_ms: AtomicU64,
}

impl WallClock for Spoiled {
    fn wall_ms(&self) -> u64 {
        match self.bug {
            Sabotage::LeapUnsaid => self.begin_ms + self.of.monotonic_ms(),
            _ => self.of.wall_ms(),
        }
    }

    fn monotonic_ms(&self) -> u64 {
        match self.bug {
            Sabotage::LeapObeyed => {
                let by_wall_ms = self.of.wall_ms().saturating_sub(self.begin_ms);
                self.latest_ms.fetch_max(by_wall_ms, Ordering::Relaxed).max(by_wall_ms)
            }
            _ => self.of.monotonic_ms(),
        }
    }
}
