//! Waking the absent. `machine` decides who is woken and when, from what inboxes hold; `feed` tells it what happens, `look`
//! reads inboxes for it, `shell` performs what it wants, and the services carry it.
//!
//! Nothing of it stands in the way of a message: the feed merges what it is told and never waits, and a service that does not
//! answer holds up the wake-ups through it and nothing else.

mod machine;

#[cfg(feature = "node")]
mod apns;
#[cfg(feature = "node")]
mod fcm;
#[cfg(feature = "node")]
mod feed;
#[cfg(feature = "node")]
mod jwt;
#[cfg(feature = "node")]
mod look;
#[cfg(feature = "node")]
mod services;
#[cfg(feature = "node")]
mod shell;
#[cfg(feature = "node")]
mod vapid;
#[cfg(feature = "node")]
mod web;

#[cfg(feature = "node")]
use std::pin::Pin;

#[cfg(feature = "node")]
use gureum_proto::{PushService, PushTarget};

#[cfg(feature = "node")]
use crate::store::record::PushTargetRecord;
#[cfg(feature = "node")]
pub(crate) use feed::{PushFeed, Targeted};
pub use machine::{
    Action, BusyOf, Counts, Deadline, DeviceFacts, Facts, Failure, First, Input, Outcome, PerService, PushConfig,
    PushMachine, Route, ServiceCounts, WakeKind,
};
#[cfg(feature = "node")]
pub use services::Services;
#[cfg(feature = "node")]
pub(crate) use shell::{PushParts, load, run};

/// What becomes of a request to a push service.
#[cfg(feature = "node")]
pub type PushFuture<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// The push services.
#[cfg(feature = "node")]
pub trait Push: Send + Sync + 'static {
    /// Wakes a device. `now_ms` is the time as the world has it: the other side judges signatures by it.
    ///
    /// Cancel safety: a request whose future is dropped is given up; whether the service has heard it is not known.
    fn send<'a>(&'a self, target: &'a PushTarget, kind: WakeKind, now_ms: u64) -> PushFuture<'a>;

    /// Whether a service can be used.
    fn offers(&self, service: PushService) -> bool;

    /// Whether this server would call where a target leads, as far as its text says.
    fn may_call(&self, _: &PushTarget) -> bool {
        true
    }
}

/// What a server needs of push to answer its devices.
#[cfg(feature = "node")]
pub(crate) struct PushPart {
    /// Tells the machine what happens.
    pub(crate) feed: std::sync::Arc<PushFeed>,
    /// Seals targets.
    pub(crate) tokens: std::sync::Arc<crate::seal::TokenSeal>,
    /// The services.
    pub(crate) services: std::sync::Arc<dyn Push>,
    /// This server's key for Web Push.
    pub(crate) vapid_key: Option<[u8; 65]>,
}

#[cfg(feature = "node")]
impl std::fmt::Debug for PushPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushPart").field("devices", &self.feed.devices()).finish_non_exhaustive()
    }
}

/// What a target's wake-ups go through.
#[cfg(feature = "node")]
pub(crate) const fn route(target: &PushTargetRecord) -> Route {
    match target.service {
        PushService::Apns if target.host == PushTargetRecord::SANDBOX => Route::ApnsSandbox,
        PushService::Apns => Route::Apns,
        PushService::Fcm => Route::Fcm,
        PushService::WebPush => Route::Web(target.host),
    }
}
