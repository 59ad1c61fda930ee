//! The clock of a start: waits while the system's is doubtful, before anything is served or destroyed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::admin::{Condition, Readiness};
use crate::metrics::Metrics;
use crate::time::{Clock, Settled, Settling, WallClock, load_last_known_ms};

/// The clock of a data directory, once the wall clock may be believed.
pub(super) async fn resume(
    dir: &Path,
    wall: Arc<dyn WallClock>,
    retention_ms: u64,
    readiness: &Readiness,
    metrics: &Metrics,
) -> Result<Arc<Clock>> {
    let last_known_ms = load_last_known_ms(dir)?;
    if last_known_ms.is_none() && dir.join("db").exists() {
        tracing::warn!("the file `clock` is missing: the system clock is believed as it is");
    }
    let mut settling = Settling::new(retention_ms, last_known_ms);
    let mut is_told = false;
    while let Some(doubt) = Doubt::of(settling.look(wall.as_ref())) {
        if !is_told {
            tracing::warn!("{}", doubt.why);
            is_told = true;
        }
        metrics.clock_held_seconds.set(Duration::from_millis(doubt.ahead_ms).as_secs_f64());
        metrics.clock_behind_seconds.set(Duration::from_millis(doubt.behind_ms).as_secs_f64());
        readiness.fail(Condition::Clock, doubt.why);
        if doubt.ahead_ms > 0 {
            // One that is too far ahead is refused at once. One that is behind, as where no battery keeps it, is what
            // time daemons put right.
            Clock::resume(Arc::clone(&wall), retention_ms, last_known_ms)?;
        }
        let before_ms = wall.monotonic_ms();
        tokio::time::sleep(Duration::from_millis(settling.period_ms())).await;
        if wall.monotonic_ms() == before_ms {
            // A clock that is moved by hand, as in a simulation, does not move while it is waited for.
            break;
        }
    }
    readiness.pass(Condition::Clock);
    metrics.clock_held_seconds.set(0.0);
    metrics.clock_behind_seconds.set(0.0);
    Ok(Arc::new(Clock::resume(wall, retention_ms, last_known_ms)?))
}

/// Why a start waits.
struct Doubt {
    ahead_ms: u64,
    behind_ms: u64,
    why: String,
}

impl Doubt {
    fn of(settled: Settled) -> Option<Self> {
        let (ahead_ms, behind_ms, left_ms) = match settled {
            Settled::Believed => return None,
            Settled::Doubted { off_ms, left_ms } => (off_ms, 0, left_ms),
            Settled::Contradicted { behind_ms, left_ms } => (0, behind_ms, left_ms),
        };
        let left_s = left_ms.div_ceil(1_000);
        let why = if behind_ms > 0 {
            format!(
                "the system clock is {} s behind the last time this data directory was in use: the server goes on from \
                 that time when the clock has stood for {left_s} s more, and nothing is served or destroyed until then; \
                 if the clock is wrong, set it right; if it is right, remove the file `clock` from the data directory \
                 and start again",
                behind_ms / 1_000
            )
        } else {
            format!(
                "the system clock says that the server was off for {} s: it is believed when it has stood for {left_s} s \
                 more, and nothing is served or destroyed until then; if it is wrong, set it right; if it is right and \
                 there is no time to wait, remove the file `clock` from the data directory and start again",
                ahead_ms / 1_000
            )
        };
        Some(Self { ahead_ms, behind_ms, why })
    }
}
