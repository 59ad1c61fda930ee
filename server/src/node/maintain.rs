//! What a server does by the clock: destroys keys, reclaims the disk, remembers the time, watches its own health.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{Condition, Readiness};
use crate::conn::Shared;
use crate::limits::MAINTENANCE_MS_MAX;
use crate::metrics::Metrics;
use crate::quota::Quotas;
use crate::seal::Keyring;
use crate::store::Store;
use crate::store::expiry::ReclaimPeriods;
use crate::time::{Clock, ClockStatus, save_last_known_ms};
use crate::work::Work;

/// Writes the time into a data directory.
pub(super) fn save_clock(dir: &Path, clock: &Clock) -> Result<()> {
    save_last_known_ms(dir, clock.now_ms())
        .with_context(|| format!("the time cannot be written into {}", dir.display()))
}

pub(super) struct Maintenance {
    data_dir: PathBuf,
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    quotas: Arc<Quotas>,
    work: Work,
    round: Duration,
    /// Why the store has failed for good.
    failed: watch::Sender<Option<String>>,
}

impl Maintenance {
    pub(super) fn new(
        dir: &Path,
        store: Arc<dyn Store>,
        keyring: Arc<Keyring>,
        shared: &Shared,
        readiness: Arc<Readiness>,
    ) -> Self {
        let periods = ReclaimPeriods::new(shared.session.retention_ms, shared.session.commit_retention_ms);
        let round_ms = periods.round_ms.min(keyring.tick_ms()).min(MAINTENANCE_MS_MAX);
        Self {
            data_dir: dir.to_owned(),
            store,
            keyring,
            clock: Arc::clone(&shared.clock),
            metrics: Arc::clone(&shared.metrics),
            readiness,
            quotas: Arc::clone(&shared.requests.quotas),
            work: shared.work.clone(),
            round: Duration::from_millis(round_ms),
            failed: watch::Sender::new(None),
        }
    }

    /// Runs rounds until `stop`. Reclaiming a large store may take minutes: keys, clock and health do not wait for it.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(self.repeat(&stop, Self::round), self.repeat(&stop, Self::reclaim));
    }

    /// Does a step in every round. One that takes long delays its next one.
    async fn repeat(self: &Arc<Self>, stop: &CancellationToken, step: fn(&Self)) {
        let mut ticks = tokio::time::interval(self.round);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let this = Arc::clone(self);
            if self.work.run(move || step(&this)).await.is_none() {
                tracing::error!("a round of maintenance panicked");
            }
        }
    }

    /// The server's time, and how it stands to the system's.
    pub(super) fn time(&self) -> (u64, ClockStatus) {
        (self.clock.now_ms(), self.clock.status())
    }

    /// Waits until the store has failed for good: then only another start helps.
    ///
    /// Cancel safety: nothing is lost.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        let why = failed.wait_for(Option::is_some).await.map(|why| why.clone());
        why.ok().flatten().unwrap_or_default()
    }

    /// Remembers the time, so that the next start does not begin before it.
    pub(super) fn save_clock(&self) -> Result<()> {
        save_clock(&self.data_dir, &self.clock)
    }

    fn round(&self) {
        let now_ms = self.clock.now_ms();
        if let Err(error) = self.keyring.tick(now_ms) {
            tracing::warn!(%error, "the next key could not be made");
        }
        if let Err(error) = self.keyring.destroy_expired(now_ms) {
            tracing::warn!(%error, "an expired key could not be destroyed");
        }
        // The one thing that every round writes: an idle server learns from it that its disk takes nothing.
        let saved = self.save_clock();
        if let Err(error) = &saved {
            tracing::warn!("the time could not be remembered: {error:#}");
        }
        self.quotas.forget_rested();
        self.watch_store(saved);
        self.watch(now_ms);
    }

    fn reclaim(&self) {
        let started = Instant::now();
        match self.store.reclaim() {
            Ok(_) => self.metrics.store.reclaim_seconds.record(started.elapsed().as_secs_f64()),
            Err(error) => {
                tracing::warn!(%error, "expired messages could not be reclaimed");
                if !error.may_pass() {
                    self.failed.send_replace(Some(error.to_string()));
                }
            }
        }
    }

    fn watch_store(&self, saved: Result<()>) {
        let healthy = self.store.healthy();
        if let Err(error) = &healthy
            && !error.may_pass()
        {
            self.failed.send_replace(Some(error.to_string()));
        }
        match healthy.map_err(anyhow::Error::from).and(saved) {
            Ok(()) => {
                self.metrics.store.healthy.set(1.0);
                self.readiness.pass(Condition::Store);
            }
            Err(error) => {
                self.metrics.store.healthy.set(0.0);
                self.readiness.fail(Condition::Store, format!("{error:#}"));
            }
        }
    }

    fn watch(&self, now_ms: u64) {
        let held_ms = self.clock.status().held_jump_ms;
        self.metrics.clock_held_seconds.set(seconds(held_ms));
        self.metrics.clock_behind_seconds.set(seconds(self.clock.status().behind_ms));
        if held_ms > 0 {
            let why = format!(
                "the system clock jumped {} s ahead and is not believed; correct it, or restart the server to accept it",
                held_ms / 1000
            );
            tracing::warn!("{why}");
            self.readiness.fail(Condition::Clock, why);
        } else {
            self.readiness.pass(Condition::Clock);
        }
        if let Ok(oldest) = self.store.oldest_physical_ms() {
            let age_ms = oldest.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
            self.metrics.store.oldest_physical_age_seconds.set(seconds(age_ms));
        }
        if let Ok(footprint) = self.store.footprint() {
            self.metrics.store.show(&footprint);
        }
        let key_age_ms = self.keyring.oldest_key_ms().map_or(0, |start_ms| now_ms.saturating_sub(start_ms));
        self.metrics.oldest_key_age_seconds.set(seconds(key_age_ms));
        self.metrics.keys_live.set(f64::from(u32::try_from(self.keyring.len()).unwrap_or(u32::MAX)));
    }
}

impl std::fmt::Debug for Maintenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maintenance").field("round", &self.round).finish_non_exhaustive()
    }
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}
