//! Opens what proves phone numbers, and runs what takes codes to the gateway.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Registration, Sms};
use crate::https::Roots;
use crate::metrics::PhoneMetrics;
use crate::requests::PhonePart;
use crate::seal::{Keyring, SecretName};
use crate::sms::{self, SmsWorker};
use crate::time::WallClock;

/// Opens it; `None` where nothing is done with phone numbers. There is a worker where codes go to a gateway.
///
/// # Errors
/// The secret, the key of the gateway or the roots of its certificate cannot be read.
pub(super) fn open(config: &Config, keyring: &Keyring) -> Result<Option<(Arc<PhonePart>, Option<SmsWorker>)>> {
    let settings = &config.phone;
    match settings.sms {
        Sms::Off => return Ok(None),
        Sms::Log => tracing::warn!("codes go to the log: whoever reads it can register any number (sms = \"log\")"),
        Sms::Webhook(_) => {}
    }
    let secret = keyring.secret(SecretName::Phone).context("the secret of phone numbers")?;
    let roots = Roots::load(config.push.push_roots.as_deref())?;
    // The connections that are kept end with the worker, whose end nobody waits for by this tracker.
    let (sms, worker) = sms::open(settings, &roots, &TaskTracker::new())?;
    let part = PhonePart {
        hasher: Arc::new(secret.phone_hasher()),
        sms,
        countries: settings.sms_countries.clone(),
        required: config.registration == Registration::Phone,
        per_day: settings.sms_per_day.get(),
    };
    Ok(Some((Arc::new(part), worker)))
}

/// Runs the worker until `stop`.
pub(super) fn spawn(
    rest: &mut JoinSet<()>,
    worker: SmsWorker,
    wall: Arc<dyn WallClock>,
    metrics: PhoneMetrics,
    stop: CancellationToken,
) {
    rest.spawn(worker.run(wall, metrics, stop));
}
