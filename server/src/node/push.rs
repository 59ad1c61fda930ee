//! Push, as a server opens and runs it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::millis;
use crate::config::Config;
use crate::limits::{PUSH_SILENT_INTERVAL_MS, PUSH_SWEEP_MS_MAX, PUSH_SWEEPS_PER_RETENTION};
use crate::push::{self, Push, PushConfig, PushPart, PushParts, Services};
use crate::seal::{Keyring, SecretName, TokenSeal};
use crate::store::Store;
use crate::work::Work;

/// Opens the services, or takes those of the ground; and the secret under which targets are sealed. Connections to
/// services are tasks of `tasks`.
pub(super) fn open(
    config: &Config,
    dir: &Path,
    keyring: &Keyring,
    tasks: &TaskTracker,
    ground: Option<Arc<dyn Push>>,
) -> Result<Arc<PushPart>> {
    let secret = keyring.secret(SecretName::Push)?;
    let tokens = Arc::new(TokenSeal::new(&secret)?);
    let (services, vapid_key): (Arc<dyn Push>, _) = match ground {
        Some(services) => (services, None),
        None => {
            let services = Services::open(&config.push, dir, tasks).context("the push services cannot be set up")?;
            let vapid_key = services.vapid_key();
            (Arc::new(services), vapid_key)
        }
    };
    Ok(Arc::new(PushPart { feed: Arc::default(), tokens, services, vapid_key }))
}

/// Tells the feed who can be woken. Before anybody is served: what happens to who is not known there is not told.
pub(super) async fn load(part: &PushPart, store: &Arc<dyn Store>, work: &Work) -> Result<()> {
    let (store, feed, services) = (Arc::clone(store), Arc::clone(&part.feed), Arc::clone(&part.services));
    let loaded = work.run(move || push::load(store.as_ref(), &feed, services.as_ref())).await;
    loaded.context("reading the push targets panicked")?.context("the push targets cannot be read")
}

/// When devices are woken.
pub(super) fn config(config: &Config) -> PushConfig {
    let retention_ms = millis(config.retention);
    PushConfig {
        delay_ms: millis(config.push.push_delay),
        interval_ms: millis(config.push.push_interval),
        silent_interval_ms: PUSH_SILENT_INTERVAL_MS,
        close_delay_ms: millis(config.push.push_close_delay),
        sweep_ms: (retention_ms / PUSH_SWEEPS_PER_RETENTION + 1).min(PUSH_SWEEP_MS_MAX),
        retention_ms,
    }
}

/// Wakes devices until `stop`.
pub(super) fn spawn(rest: &mut JoinSet<()>, parts: PushParts, stop: CancellationToken) {
    rest.spawn(push::run(parts, stop));
}
