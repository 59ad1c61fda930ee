//! The push services that this server may use, and which of them a target is for.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use gureum_proto::{PushAddress, PushService, PushTarget};
use tokio_util::task::TaskTracker;

use super::apns::{Apns, ApnsAccess, ApnsTarget};
use super::fcm::Fcm;
use super::vapid::Vapid;
use super::web::WebPush;
use super::{Outcome, Push, PushFuture, WakeKind};
use crate::config::PushSettings;
use crate::https::{Https, Reach, Roots};

/// How long a service keeps a wake-up for a device that is off: another comes a day before messages expire.
pub(super) const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// What a wake-up is collapsed by: of those that wait for a device one is left.
pub(super) const COLLAPSE: &str = "gureum";

/// The longest word of a service that goes into a log. No token is as short.
const WORD_BYTES_MAX: usize = 40;

/// The services that are set up.
pub struct Services {
    apns: Option<Apns>,
    fcm: Option<Fcm>,
    web: Option<WebPush>,
}

impl Services {
    /// Reads keys and accounts of the services that are set up; makes the key for Web Push in `dir` if there is none.
    ///
    /// Connections are tasks of `tasks`, and some are kept as long as this value: nobody may wait for that tracker
    /// while this value is held.
    ///
    /// # Errors
    /// Something that is set cannot be used.
    pub fn open(config: &PushSettings, dir: &Path, tasks: &TaskTracker) -> Result<Self> {
        let roots = Roots::load(config.push_roots.as_deref())?;
        let https = |reach, http2_only| {
            Https::new(&roots, reach, http2_only, tasks.clone()).context("TLS for push services cannot be set up")
        };
        let apns = match (&config.apns_key, &config.apns_key_id, &config.apns_team_id, &config.apns_topic) {
            (Some(key), Some(key_id), Some(team_id), Some(topic)) => {
                let (endpoint, sandbox_endpoint) = (&config.apns_endpoint, &config.apns_sandbox_endpoint);
                let access = ApnsAccess { key, key_id, team_id, topic, endpoint, sandbox_endpoint };
                Some(Apns::open(access, https(Reach::Anywhere, true)?)?)
            }
            _ => None,
        };
        let fcm = match &config.fcm_account {
            Some(account) => Some(Fcm::open(account, &config.fcm_endpoint, https(Reach::Anywhere, false)?)?),
            None => None,
        };
        let web = if config.web_push {
            let reach = if config.push_private_endpoints { Reach::Anywhere } else { Reach::Public };
            Some(WebPush::new(Vapid::load(dir, &config.vapid_subject)?, https(reach, false)?))
        } else {
            None
        };
        Ok(Self { apns, fcm, web })
    }

    /// The key that clients subscribe with at a Web Push service; none, if Web Push is off.
    #[must_use]
    pub fn vapid_key(&self) -> Option<[u8; 65]> {
        self.web.as_ref().map(WebPush::vapid_key)
    }
}

impl Push for Services {
    /// A target of a service that is no longer set up is kept: the operator may set it up again.
    fn send<'a>(&'a self, target: &'a PushTarget, kind: WakeKind, now_ms: u64) -> PushFuture<'a> {
        let visible = target.visible;
        match (&target.address, &self.apns, &self.fcm, &self.web) {
            (PushAddress::Apns { token, sandbox }, Some(apns), _, _) => {
                Box::pin(apns.send(ApnsTarget { token, sandbox: *sandbox, visible }, kind, now_ms))
            }
            (PushAddress::Fcm { token }, _, Some(fcm), _) => Box::pin(fcm.send(token, visible, kind, now_ms)),
            (PushAddress::WebPush { endpoint, p256dh, auth }, _, _, Some(web)) => {
                Box::pin(web.send(endpoint, p256dh, *auth, visible, kind, now_ms))
            }
            _ => Box::pin(std::future::ready(Outcome::Misconfigured)),
        }
    }

    fn offers(&self, service: PushService) -> bool {
        match service {
            PushService::Apns => self.apns.is_some(),
            PushService::Fcm => self.fcm.is_some(),
            PushService::WebPush => self.web.is_some(),
        }
    }

    fn may_call(&self, target: &PushTarget) -> bool {
        match (&target.address, &self.web) {
            (PushAddress::WebPush { endpoint, .. }, Some(web)) => web.may_call(endpoint),
            _ => true,
        }
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let offered: Vec<_> = PushService::ALL.into_iter().filter(|service| self.offers(*service)).collect();
        f.debug_tuple("Services").field(&offered).finish()
    }
}

/// The word that tells an app which of the two wake-ups it has got; both are of one length.
pub(super) const fn payload(kind: WakeKind) -> &'static str {
    match kind {
        WakeKind::Messages => "messages",
        WakeKind::Expiring => "expiring",
    }
}

/// A service's word as it may stand in a log; empty for anything that is no short word.
pub(super) fn word(text: &str) -> &str {
    let is_word = text.len() <= WORD_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_word { text } else { "" }
}

/// What has been said of one service: what only a mistake of this program explains is an error once.
pub(super) struct Said {
    service: &'static str,
    is_refused: AtomicBool,
}

impl Said {
    pub(super) const fn new(service: &'static str) -> Self {
        Self { service, is_refused: AtomicBool::new(false) }
    }

    /// Says what the operator, or whoever mends this program, has to know of an answer.
    pub(super) fn outcome(&self, outcome: Outcome, status: u16, why: &str) {
        let service = self.service;
        match outcome {
            Outcome::Refused if !self.is_refused.swap(true, Ordering::Relaxed) => {
                tracing::error!(service, status, why, "the push service does not understand this server's requests");
            }
            // Not often: such an answer stops the service for minutes.
            Outcome::Misconfigured => {
                tracing::warn!(service, status, why, "the push service refuses this server: check its settings");
            }
            Outcome::Refused => tracing::debug!(service, status, why, "refused again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_payloads_have_one_length() {
        assert_eq!(payload(WakeKind::Messages).len(), payload(WakeKind::Expiring).len());
    }

    #[test]
    fn only_a_short_word_of_a_service_is_logged() {
        assert_eq!(word("BadDeviceToken"), "BadDeviceToken");
        assert_eq!(word("SENDER_ID_MISMATCH"), "SENDER_ID_MISMATCH");
        assert_eq!(word(&"a".repeat(64)), "");
        assert_eq!(word("two words"), "");
        assert_eq!(word("line\nbreak"), "");
        assert_eq!(word("fcm:token"), "");
    }
}
