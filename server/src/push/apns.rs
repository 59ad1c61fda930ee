//! The Apple Push Notification service: HTTP/2 with a provider token, as Apple's "Sending notification requests" says.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use http_body_util::Full;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::jwt;
use super::services::{COLLAPSE, KEPT_MS, Said, word};
use super::{BusyOf, Failure, Outcome, WakeKind};
use crate::files::read_small;
use crate::https::{Answer, Https};

/// When a provider token is made anew: it serves for at most an hour.
const TOKEN_MS_MAX: u64 = 50 * 60 * 1_000;

/// Before this no other is made: Apple refuses who renews more often than every 20 minutes.
const TOKEN_MS_MIN: u64 = 20 * 60 * 1_000;

/// What the operator has been given by Apple.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApnsAccess<'a> {
    /// The file with the key, `AuthKey_….p8`.
    pub(super) key: &'a Path,
    pub(super) key_id: &'a str,
    pub(super) team_id: &'a str,
    /// The bundle id of the app.
    pub(super) topic: &'a str,
    /// Where requests go.
    pub(super) endpoint: &'a str,
    /// Where those for tokens of development builds go.
    pub(super) sandbox_endpoint: &'a str,
}

/// The service, for one app.
pub(super) struct Apns {
    https: Https,
    key: EcdsaKeyPair,
    key_id: String,
    team_id: String,
    topic: HeaderValue,
    endpoint: String,
    sandbox_endpoint: String,
    token: Mutex<Option<ProviderToken>>,
    said: Said,
}

/// What says that a request is this server's.
#[derive(Clone)]
struct ProviderToken {
    /// The header's value, marked as sensitive.
    bearer: HeaderValue,
    made_ms: u64,
}

impl Apns {
    /// Reads the key.
    ///
    /// # Errors
    /// The key cannot be read, or the topic is none.
    pub(super) fn open(access: ApnsAccess<'_>, https: Https) -> Result<Self> {
        let path = access.key.display();
        let key = read_key(access.key).with_context(|| format!("apns_key: the file {path}"))?;
        ensure!(!access.topic.is_empty(), "apns_topic is empty: it is the bundle id of the app");
        let topic = HeaderValue::from_str(access.topic).context("apns_topic is no bundle id")?;
        let endpoint = |url: &str| url.trim_end_matches('/').to_owned();
        Ok(Self {
            https,
            key,
            key_id: access.key_id.to_owned(),
            team_id: access.team_id.to_owned(),
            topic,
            endpoint: endpoint(access.endpoint),
            sandbox_endpoint: endpoint(access.sandbox_endpoint),
            token: Mutex::new(None),
            said: Said::new("apns"),
        })
    }

    /// Wakes a device.
    ///
    /// Cancel safety: as [`Https::send`].
    pub(super) async fn send(&self, target: ApnsTarget<'_>, kind: WakeKind, now_ms: u64) -> Outcome {
        let Some(token) = self.token(now_ms) else { return Outcome::Misconfigured };
        let mut answer = self.request(target, kind, now_ms, token.bearer.clone()).await;
        let is_expired = |answer: &Answer| answer.status == 403 && reason(answer).0 == "ExpiredProviderToken";
        if answer.as_ref().is_ok_and(is_expired)
            && let Some(fresh) = self.renewed(&token, now_ms)
        {
            answer = self.request(target, kind, now_ms, fresh.bearer).await;
        }
        match answer {
            Ok(answer) => {
                let outcome = outcome(&answer);
                self.said.outcome(outcome, answer.status, word(&reason(&answer).0));
                outcome
            }
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn request(
        &self,
        target: ApnsTarget<'_>,
        kind: WakeKind,
        now_ms: u64,
        bearer: HeaderValue,
    ) -> Result<Answer, Failure> {
        let endpoint = if target.sandbox { &self.sandbox_endpoint } else { &self.endpoint };
        let (push_type, priority) = if target.visible { ("alert", "10") } else { ("background", "5") };
        let request = Request::post(format!("{endpoint}/3/device/{}", HEXLOWER.encode(target.token)))
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .header("apns-topic", self.topic.clone())
            .header("apns-push-type", push_type)
            .header("apns-priority", priority)
            .header("apns-collapse-id", COLLAPSE)
            .header("apns-expiration", now_ms.saturating_add(KEPT_MS) / 1_000)
            .body(Full::new(Bytes::from_static(body(target.visible, kind).as_bytes())));
        self.https.send(request.map_err(|_| Failure::Protocol)?).await
    }

    /// The token in use, made anew when it is old. The wall clock may have been set in either direction.
    fn token(&self, now_ms: u64) -> Option<ProviderToken> {
        let mut kept = self.lock();
        let young = kept.as_ref().filter(|token| token.made_ms.abs_diff(now_ms) < TOKEN_MS_MAX);
        if let Some(token) = young {
            return Some(token.clone());
        }
        *kept = Some(self.sign(now_ms)?);
        kept.clone()
    }

    /// Another token than one that the service takes for expired; `None` when it is too early for one.
    fn renewed(&self, refused: &ProviderToken, now_ms: u64) -> Option<ProviderToken> {
        let mut kept = self.lock();
        match kept.as_ref() {
            // Somebody else has renewed it meanwhile.
            Some(token) if token.bearer != refused.bearer => return Some(token.clone()),
            Some(token) if token.made_ms.abs_diff(now_ms) < TOKEN_MS_MIN => return None,
            _ => {}
        }
        *kept = Some(self.sign(now_ms)?);
        kept.clone()
    }

    fn sign(&self, now_ms: u64) -> Option<ProviderToken> {
        let header = json!({ "alg": "ES256", "kid": self.key_id });
        let claims = json!({ "iss": self.team_id, "iat": now_ms / 1_000 });
        let token = jwt::es256(&self.key, &header, &claims).ok()?;
        let mut bearer = HeaderValue::try_from(format!("bearer {token}")).ok()?;
        bearer.set_sensitive(true);
        Some(ProviderToken { bearer, made_ms: now_ms })
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProviderToken>> {
        self.token.lock().expect("no code panics while it holds the token")
    }
}

/// The device that a request is for.
#[derive(Clone, Copy)]
pub(super) struct ApnsTarget<'a> {
    pub(super) token: &'a [u8],
    pub(super) sandbox: bool,
    /// Whether a notification is shown, or the app only runs.
    pub(super) visible: bool,
}

fn read_key(path: &Path) -> Result<EcdsaKeyPair> {
    let pem = read_small(path)?.context("is not there")?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).context("is no PEM file with a private key")?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
        .ok()
        .context("holds no key for ES256; it takes the `AuthKey_….p8` that Apple gives out")
}

/// The constant payload: it says nothing but that there is something.
const fn body(visible: bool, kind: WakeKind) -> &'static str {
    match (visible, kind) {
        (true, WakeKind::Messages) => {
            r#"{"aps":{"alert":{"loc-key":"gureum.messages"},"mutable-content":1,"sound":"default"},"gureum":"messages"}"#
        }
        (true, WakeKind::Expiring) => {
            r#"{"aps":{"alert":{"loc-key":"gureum.expiring"},"mutable-content":1,"sound":"default"},"gureum":"expiring"}"#
        }
        (false, WakeKind::Messages) => r#"{"aps":{"content-available":1},"gureum":"messages"}"#,
        (false, WakeKind::Expiring) => r#"{"aps":{"content-available":1},"gureum":"expiring"}"#,
    }
}

/// Why the service refuses, and since when a token is no longer valid.
fn reason(answer: &Answer) -> (String, Option<u64>) {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        reason: String,
        timestamp: Option<u64>,
    }
    let body = serde_json::from_slice::<ErrorBody>(&answer.body);
    body.map_or_else(|_| (String::new(), None), |body| (body.reason, body.timestamp))
}

/// What an answer means, by Apple's "Handling notification responses from APNs".
fn outcome(answer: &Answer) -> Outcome {
    let (reason, since_ms) = reason(answer);
    let busy = |of| Outcome::Busy { retry_after_ms: answer.retry_after_ms, of };
    match (answer.status, reason.as_str()) {
        (200, _) => Outcome::Accepted,
        (410, _) => Outcome::Gone { since_ms },
        // It may as well be that the operator has set up another environment, or another app: without a time it is not
        // believed of everybody. Nor does it stop everybody, for any device may set a token of another app.
        (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => Outcome::Gone { since_ms: None },
        (400, "BadTopic" | "TopicDisallowed") | (403, _) => Outcome::Misconfigured,
        (429, "TooManyRequests") => busy(BusyOf::Device),
        (429 | 500..=599, _) | (400, "IdleTimeout") => busy(BusyOf::Service),
        _ => Outcome::Refused,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, KeyPair};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::https::{Reach, Roots};

    const START_MS: u64 = 1_800_000_000_000;

    fn apns() -> Apns {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.p8");
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        std::fs::write(&path, pem).unwrap();
        let access = ApnsAccess {
            key: &path,
            key_id: "KEY1234567",
            team_id: "TEAM123456",
            topic: "org.example.app",
            endpoint: "https://localhost/",
            sandbox_endpoint: "https://localhost",
        };
        let https = Https::new(&Roots::load(None).unwrap(), Reach::Anywhere, true, TaskTracker::new()).unwrap();
        Apns::open(access, https).unwrap()
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after_ms: Some(7_000), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[track_caller]
    fn means(status: u16, body: &str, expected: Outcome) {
        assert_eq!(outcome(&answer(status, body)), expected, "{status} {body}");
    }

    #[test]
    fn an_answer_means_what_apple_says() {
        let busy = |of| Outcome::Busy { retry_after_ms: Some(7_000), of };
        means(200, "", Outcome::Accepted);
        let gone = Outcome::Gone { since_ms: Some(1_700_000_000_123) };
        means(410, r#"{"reason":"Unregistered","timestamp":1700000000123}"#, gone);
        means(410, r#"{"reason":"ExpiredToken","timestamp":1700000000123}"#, gone);
        means(410, "", Outcome::Gone { since_ms: None });
        means(400, r#"{"reason":"BadDeviceToken"}"#, Outcome::Gone { since_ms: None });
        means(400, r#"{"reason":"DeviceTokenNotForTopic"}"#, Outcome::Gone { since_ms: None });
        means(400, r#"{"reason":"TopicDisallowed"}"#, Outcome::Misconfigured);
        means(400, r#"{"reason":"BadTopic"}"#, Outcome::Misconfigured);
        means(403, r#"{"reason":"InvalidProviderToken"}"#, Outcome::Misconfigured);
        means(403, r#"{"reason":"ExpiredProviderToken"}"#, Outcome::Misconfigured);
        means(403, "", Outcome::Misconfigured);
        means(429, r#"{"reason":"TooManyRequests"}"#, busy(BusyOf::Device));
        means(429, r#"{"reason":"TooManyProviderTokenUpdates"}"#, busy(BusyOf::Service));
        means(500, r#"{"reason":"InternalServerError"}"#, busy(BusyOf::Service));
        means(503, r#"{"reason":"ServiceUnavailable"}"#, busy(BusyOf::Service));
        means(503, "", busy(BusyOf::Service));
        means(400, r#"{"reason":"BadCollapseId"}"#, Outcome::Refused);
        means(404, r#"{"reason":"BadPath"}"#, Outcome::Refused);
        means(413, r#"{"reason":"PayloadTooLarge"}"#, Outcome::Refused);
        means(400, "not JSON", Outcome::Refused);
        means(301, "", Outcome::Refused);
    }

    #[test]
    fn a_provider_token_is_kept_for_50_minutes() {
        let apns = apns();
        let first = apns.token(START_MS).unwrap();
        assert_eq!(apns.token(START_MS + TOKEN_MS_MAX - 1).unwrap().bearer, first.bearer);
        assert_ne!(apns.token(START_MS + TOKEN_MS_MAX).unwrap().bearer, first.bearer);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_a_token_anew() {
        let apns = apns();
        let first = apns.token(START_MS).unwrap();
        assert_ne!(apns.token(START_MS - TOKEN_MS_MAX).unwrap().bearer, first.bearer);
    }

    #[test]
    fn a_refused_token_is_renewed_once_in_20_minutes() {
        let apns = apns();
        let first = apns.token(START_MS).unwrap();
        assert!(apns.renewed(&first, START_MS + TOKEN_MS_MIN - 1).is_none());
        let second = apns.renewed(&first, START_MS + TOKEN_MS_MIN).unwrap();
        assert_ne!(second.bearer, first.bearer);
        // Others that were refused with the first take the second.
        assert_eq!(apns.renewed(&first, START_MS + TOKEN_MS_MIN).unwrap().bearer, second.bearer);
        assert!(apns.renewed(&second, START_MS + TOKEN_MS_MIN + 1).is_none());
    }

    #[test]
    fn a_provider_token_is_signed_says_who_asks_and_is_shown_to_nobody() {
        let apns = apns();
        let token = apns.token(START_MS).unwrap();
        assert!(token.bearer.is_sensitive());
        let text = token.bearer.to_str().unwrap().strip_prefix("bearer ").unwrap();
        let key = apns.key.public_key().as_ref();
        let (header, claims) = jwt::read(text, &ECDSA_P256_SHA256_FIXED, key).unwrap();
        assert_eq!(header, json!({ "alg": "ES256", "kid": "KEY1234567" }));
        assert_eq!(claims, json!({ "iss": "TEAM123456", "iat": START_MS / 1_000 }));
    }

    #[test]
    fn both_payloads_of_a_kind_of_target_are_json_of_one_length() {
        for visible in [true, false] {
            let bodies = [WakeKind::Messages, WakeKind::Expiring].map(|kind| body(visible, kind));
            assert_eq!(bodies[0].len(), bodies[1].len());
            for (body, kind) in bodies.iter().zip(["messages", "expiring"]) {
                let body: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!(body["gureum"], kind);
                assert_eq!(body["aps"]["alert"].is_null(), !visible);
            }
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.p8");
        for content in ["", "no PEM"] {
            std::fs::write(&path, content).unwrap();
            assert!(read_key(&path).is_err());
        }
        std::fs::write(&path, rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem()).unwrap();
        let error = read_key(&path).unwrap_err().to_string();
        assert!(error.contains("AuthKey_"), "{error}");
    }
}
