//! What reaches people who are not connected: wake-ups, and codes by SMS.

use std::sync::Arc;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Base, phone, push};
use crate::config::Config;
use crate::conn::Shared;
use crate::inbox::Open;
use crate::push::{Push, PushPart, PushParts};
use crate::requests::PhonePart;
use crate::sms::SmsWorker;
use crate::time::WallClock;

pub(super) struct Away {
    pub(super) push: Arc<PushPart>,
    /// `None`: nothing is done with phone numbers.
    pub(super) phone: Option<Arc<PhonePart>>,
    sms: Option<SmsWorker>,
    /// Opens messages, of which push has to know the conversation.
    seal: Arc<dyn Open>,
    wall: Arc<dyn WallClock>,
}

impl Away {
    /// Opens the services, and reads who can be woken.
    pub(super) async fn open(config: &Config, base: &Base, ground: Option<Arc<dyn Push>>) -> Result<Self> {
        // Connections that are kept end with the services, and nobody waits for them.
        let push = push::open(config, &config.data_dir, &base.keyring, &TaskTracker::new(), ground)?;
        push::load(&push, &base.store, &base.work).await?;
        let (phone, sms) = phone::open(config, &base.keyring)?.unzip();
        let seal: Arc<dyn Open> = Arc::<crate::seal::Keyring>::clone(&base.keyring);
        Ok(Self { push, phone, sms: sms.flatten(), seal, wall: Arc::clone(&base.wall) })
    }

    /// Wakes devices and sends codes until `stop`.
    pub(super) fn spawn(self, rest: &mut JoinSet<()>, config: &Config, shared: &Shared, stop: &CancellationToken) {
        let metrics = &shared.metrics;
        if let Some(worker) = self.sms {
            phone::spawn(rest, worker, Arc::clone(&self.wall), metrics.phone.clone(), stop.clone());
        }
        let parts = PushParts {
            feed: Arc::clone(&self.push.feed),
            store: Arc::clone(&shared.requests.store),
            seal: self.seal,
            tokens: Arc::clone(&self.push.tokens),
            router: shared.router.clone(),
            clock: Arc::clone(&shared.clock),
            wall: self.wall,
            push: Arc::clone(&self.push.services),
            work: shared.work.clone(),
            metrics: metrics.push.clone(),
            config: push::config(config),
        };
        push::spawn(rest, parts, stop.clone());
    }
}
