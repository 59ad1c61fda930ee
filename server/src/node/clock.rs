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
    let mut settling = Settling::new(retention_ms, last_known_ms);
    let mut is_told = false;
    while let Settled::Doubted { off_ms, left_ms } = settling.look(wall.as_ref()) {
        let why = format!(
            "the system clock says that the server was off for {} s: it is believed when it has stood for {} s more, and \
             nothing is served or destroyed until then; if it is wrong, set it right; if it is right and there is no time \
             to wait, remove the file `clock` from the data directory and start again",
            off_ms / 1_000,
            left_ms.div_ceil(1_000)
        );
        if !is_told {
            tracing::warn!("{why}");
            is_told = true;
        }
        metrics.clock_held_seconds.set(Duration::from_millis(off_ms).as_secs_f64());
        readiness.fail(Condition::Clock, why);
        // One that is too far ahead is refused at once, and not after a wait.
        Clock::resume(Arc::clone(&wall), retention_ms, last_known_ms)?;
        let before_ms = wall.monotonic_ms();
        tokio::time::sleep(Duration::from_millis(settling.period_ms())).await;
        if wall.monotonic_ms() == before_ms {
            // A clock that is moved by hand, as in a simulation, does not move while it is waited for.
            break;
        }
    }
    readiness.pass(Condition::Clock);
    metrics.clock_held_seconds.set(0.0);
    Ok(Arc::new(Clock::resume(wall, retention_ms, last_known_ms)?))
}
