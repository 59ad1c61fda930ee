//! Firebase Cloud Messaging, HTTP v1: an access token for a service account (RFC 7523), and one request a wake-up.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::rsa;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::jwt;
use super::services::{COLLAPSE, KEPT_MS, Said, payload, word};
use super::{BusyOf, Failure, Outcome, WakeKind};
use crate::files::read_small;
use crate::https::{Answer, Https};

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// How long an assertion is good for: the most that Google takes.
const ASSERTION_S: u64 = 3_600;

/// An access token is made anew so long before its end.
const ACCESS_SPARE_MS: u64 = 60_000;

/// The longest time for which an access token is believed, whatever its answer says.
const ACCESS_MS_MAX: u64 = 60 * 60 * 1_000;

/// The least wait after "quota exceeded", as Google asks for.
const QUOTA_WAIT_MS_MIN: u64 = 60_000;

/// The service, for one project.
pub(super) struct Fcm {
    https: Https,
    key: rsa::KeyPair,
    key_id: String,
    client_email: String,
    token_uri: String,
    send_uri: String,
    /// Held while the token is fetched, so that it is fetched once.
    access: Mutex<Option<Access>>,
    said: Said,
}

/// What says that a request is this project's.
#[derive(Clone, PartialEq, Eq)]
struct Access {
    /// The header's value, marked as sensitive.
    bearer: HeaderValue,
    made_ms: u64,
    lasts_ms: u64,
}

impl Access {
    /// Whether it serves still. The wall clock may have been set in either direction.
    const fn serves(&self, now_ms: u64) -> bool {
        self.made_ms.abs_diff(now_ms) < self.lasts_ms
    }
}

/// The file that Google gives out for a service account.
#[derive(serde::Deserialize)]
struct Account {
    project_id: String,
    client_email: String,
    private_key: String,
    private_key_id: String,
    token_uri: String,
}

impl Fcm {
    /// Reads the service account.
    ///
    /// # Errors
    /// The file cannot be read, or is not one of a service account.
    pub(super) fn open(account: &Path, endpoint: &str, https: Https) -> Result<Self> {
        let said = || format!("fcm_account: the file {}", account.display());
        let file = read_small(account).with_context(said)?.context("is not there").with_context(said)?;
        Self::read(&file, endpoint, https).with_context(said)
    }

    fn read(file: &[u8], endpoint: &str, https: Https) -> Result<Self> {
        let account: Account = serde_json::from_slice(file)
            .context("is no service account; it takes the JSON file that the Firebase console gives out")?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(account.private_key.as_bytes())
            .context("holds no private key in PEM under `private_key`")?;
        let key = rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok().context("holds no RSA key")?;
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        ensure!(is_name(&account.project_id), "names no project under `project_id`");
        let send_uri = format!("{}/v1/projects/{}/messages:send", endpoint.trim_end_matches('/'), account.project_id);
        for uri in [&send_uri, &account.token_uri] {
            let is_usable = uri.parse::<Uri>().is_ok_and(|uri| https.allows(&uri));
            ensure!(is_usable, "leads to {uri}, which is no https URL");
        }
        Ok(Self {
            https,
            key,
            key_id: account.private_key_id,
            client_email: account.client_email,
            token_uri: account.token_uri,
            send_uri,
            access: Mutex::new(None),
            said: Said::new("fcm"),
        })
    }

    /// Wakes a device.
    ///
    /// Cancel safety: as [`Https::send`]; whoever waits for the same access token fetches it then.
    pub(super) async fn send(&self, token: &str, visible: bool, kind: WakeKind, now_ms: u64) -> Outcome {
        let access = match self.access(None, now_ms).await {
            Ok(access) => access,
            Err(outcome) => return outcome,
        };
        let mut answer = self.request(token, visible, kind, access.bearer.clone()).await;
        // The token was revoked, or our clock does not show its end.
        if answer.as_ref().is_ok_and(|answer| answer.status == 401) {
            let fresh = match self.access(Some(&access), now_ms).await {
                Ok(fresh) => fresh,
                Err(outcome) => return outcome,
            };
            answer = self.request(token, visible, kind, fresh.bearer).await;
        }
        match answer {
            Ok(answer) => {
                let outcome = outcome(&answer, now_ms);
                self.said.outcome(outcome, answer.status, word(&error_code(&answer.body)));
                outcome
            }
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn request(
        &self,
        token: &str,
        visible: bool,
        kind: WakeKind,
        bearer: HeaderValue,
    ) -> Result<Answer, Failure> {
        let request = Request::post(&self.send_uri)
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(message(token, visible, kind).to_string())));
        self.https.send(request.map_err(|_| Failure::Protocol)?).await
    }

    /// An access token that serves and is not the one that was refused. One at a time is fetched.
    async fn access(&self, refused: Option<&Access>, now_ms: u64) -> Result<Access, Outcome> {
        let mut kept = self.access.lock().await;
        let found = kept.as_ref().filter(|access| access.serves(now_ms) && Some(*access) != refused);
        if let Some(access) = found {
            return Ok(access.clone());
        }
        *kept = None;
        let fetched = self.fetch(now_ms).await?;
        *kept = Some(fetched.clone());
        Ok(fetched)
    }

    async fn fetch(&self, now_ms: u64) -> Result<Access, Outcome> {
        let issued_s = now_ms / 1_000;
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.client_email, "scope": SCOPE, "aud": self.token_uri, "iat": issued_s,
            "exp": issued_s.saturating_add(ASSERTION_S),
        });
        let assertion = jwt::rs256(&self.key, &header, &claims).map_err(|_| Outcome::Misconfigured)?;
        // Nothing of a token has to be escaped.
        let form = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        let request = Request::post(&self.token_uri)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
            .map_err(|_| Outcome::Misconfigured)?;
        let answer = self.https.send(request).await.map_err(Outcome::Failed)?;
        match granted(&answer, now_ms) {
            Ok(access) => Ok(access),
            Err(outcome) => {
                self.said.outcome(outcome, answer.status, word(&grant_error(&answer.body)));
                Err(outcome)
            }
        }
    }
}

/// The message: constant but for the token. High priority wakes a sleeping device at once, and is for those that show
/// something then: Google lowers the priority of an app that does not.
fn message(token: &str, visible: bool, kind: WakeKind) -> Value {
    json!({ "message": {
        "token": token,
        "data": { "gureum": payload(kind) },
        "android": {
            "priority": if visible { "HIGH" } else { "NORMAL" },
            "ttl": format!("{}s", KEPT_MS / 1_000),
            "collapse_key": COLLAPSE,
        },
    }})
}

/// What the token endpoint has given (RFC 6749 §5).
fn granted(answer: &Answer, now_ms: u64) -> Result<Access, Outcome> {
    #[derive(serde::Deserialize)]
    struct Granted {
        access_token: String,
        expires_in: u64,
    }
    match answer.status {
        200 => {}
        429 | 500..=599 => {
            return Err(Outcome::Busy { retry_after_ms: answer.retry_after_ms, of: BusyOf::Service });
        }
        _ => return Err(Outcome::Misconfigured),
    }
    let nonsense = || Outcome::Failed(Failure::Protocol);
    let granted: Granted = serde_json::from_slice(&answer.body).map_err(|_| nonsense())?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", granted.access_token)).map_err(|_| nonsense())?;
    bearer.set_sensitive(true);
    let lasts_ms = granted.expires_in.saturating_mul(1_000).min(ACCESS_MS_MAX).saturating_sub(ACCESS_SPARE_MS);
    Ok(Access { bearer, made_ms: now_ms, lasts_ms })
}

/// Why no token was granted, as OAuth names it.
fn grant_error(body: &[u8]) -> String {
    let error = serde_json::from_slice::<Value>(body).ok();
    error.and_then(|error| error.get("error")?.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The code of FCM's own error, or else that of Google's APIs.
fn error_code(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        error: ApiError,
    }
    #[derive(serde::Deserialize)]
    struct ApiError {
        #[serde(default)]
        status: String,
        #[serde(default)]
        details: Vec<Detail>,
    }
    #[derive(serde::Deserialize)]
    struct Detail {
        #[serde(rename = "@type", default)]
        kind: String,
        #[serde(rename = "errorCode")]
        code: Option<String>,
    }
    let Ok(Body { error }) = serde_json::from_slice::<Body>(body) else { return String::new() };
    let of_fcm = |detail: Detail| detail.kind.ends_with(".FcmError").then_some(detail.code).flatten();
    error.details.into_iter().find_map(of_fcm).unwrap_or(error.status)
}

/// What an answer means, by Google's list of error codes of the v1 API.
fn outcome(answer: &Answer, now_ms: u64) -> Outcome {
    let busy = |retry_after_ms| Outcome::Busy { retry_after_ms, of: BusyOf::Service };
    match (answer.status, error_code(&answer.body).as_str()) {
        (200, _) => Outcome::Accepted,
        // Said of this very token.
        (404, "UNREGISTERED") => Outcome::Gone { since_ms: Some(now_ms) },
        // May be said of every token, when the account is another project's.
        (400, "INVALID_ARGUMENT") | (403, "SENDER_ID_MISMATCH") => Outcome::Gone { since_ms: None },
        (401 | 403 | 404, _) => Outcome::Misconfigured,
        (429, _) => busy(Some(answer.retry_after_ms.unwrap_or_default().max(QUOTA_WAIT_MS_MIN))),
        (500..=599, _) => busy(answer.retry_after_ms),
        _ => Outcome::Refused,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::https::{Reach, Roots};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after_ms: Some(7_000), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn error(status: u16, api: &str, fcm: &str) -> Answer {
        let details = json!([
            { "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [] },
            { "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": fcm },
        ]);
        let details = if fcm.is_empty() { json!([]) } else { details };
        answer(status, &json!({ "error": { "code": status, "status": api, "details": details } }).to_string())
    }

    #[track_caller]
    fn means(answer: &Answer, expected: Outcome) {
        assert_eq!(outcome(answer, NOW_MS), expected, "{answer:?}");
    }

    #[test]
    fn an_answer_means_what_google_says() {
        let busy = |ms| Outcome::Busy { retry_after_ms: Some(ms), of: BusyOf::Service };
        means(&answer(200, r#"{"name":"projects/p/messages/1"}"#), Outcome::Accepted);
        means(&error(404, "NOT_FOUND", "UNREGISTERED"), Outcome::Gone { since_ms: Some(NOW_MS) });
        means(&error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), Outcome::Gone { since_ms: None });
        means(&error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), Outcome::Gone { since_ms: None });
        means(&error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), Outcome::Misconfigured);
        means(&error(401, "UNAUTHENTICATED", ""), Outcome::Misconfigured);
        means(&error(403, "PERMISSION_DENIED", ""), Outcome::Misconfigured);
        // A project or a path that is not there says nothing of the token.
        means(&error(404, "NOT_FOUND", ""), Outcome::Misconfigured);
        means(&answer(404, "<html>"), Outcome::Misconfigured);
        means(&error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), busy(QUOTA_WAIT_MS_MIN));
        means(&error(500, "INTERNAL", "INTERNAL"), busy(7_000));
        means(&error(503, "UNAVAILABLE", "UNAVAILABLE"), busy(7_000));
        means(&answer(502, ""), busy(7_000));
        means(&error(413, "", ""), Outcome::Refused);
        means(&answer(301, ""), Outcome::Refused);
    }

    #[test]
    fn a_long_wait_of_the_quota_is_kept() {
        let later = Answer { retry_after_ms: Some(600_000), ..answer(429, "") };
        means(&later, Outcome::Busy { retry_after_ms: Some(600_000), of: BusyOf::Service });
    }

    #[test]
    fn only_a_visible_wake_up_has_high_priority_and_all_else_is_constant() {
        let visible = message("t", true, WakeKind::Messages);
        assert_eq!(visible["message"]["android"]["priority"], "HIGH");
        assert_eq!(visible["message"]["android"]["ttl"], "86400s");
        assert_eq!(visible["message"]["data"], json!({ "gureum": "messages" }));
        let silent = message("t", false, WakeKind::Messages);
        assert_eq!(silent["message"]["android"]["priority"], "NORMAL");
        let expiring = message("t", true, WakeKind::Expiring);
        assert_eq!(expiring.to_string().len(), visible.to_string().len());
    }

    #[test]
    fn an_access_token_serves_until_a_minute_before_its_end() {
        let access = granted(&answer(200, r#"{"access_token":"a","expires_in":3599,"token_type":"Bearer"}"#), NOW_MS);
        let access = access.ok().unwrap();
        assert_eq!(access.bearer.to_str().ok(), Some("Bearer a"));
        assert!(access.bearer.is_sensitive());
        assert!(access.serves(NOW_MS + 3_538_999) && !access.serves(NOW_MS + 3_539_000));
        assert!(!access.serves(NOW_MS - 3_539_000), "a clock that was set back");
    }

    #[test]
    fn a_grant_that_is_refused_says_whose_fault_it_is() {
        let refused = |status, body: &str| granted(&answer(status, body), NOW_MS).err().unwrap();
        assert_eq!(refused(400, r#"{"error":"invalid_grant"}"#), Outcome::Misconfigured);
        assert_eq!(refused(401, ""), Outcome::Misconfigured);
        let busy = Outcome::Busy { retry_after_ms: Some(7_000), of: BusyOf::Service };
        assert_eq!(refused(429, ""), busy);
        assert_eq!(refused(503, ""), busy);
        assert_eq!(refused(200, "not JSON"), Outcome::Failed(Failure::Protocol));
        let split = "{\"access_token\":\"a\\nb\",\"expires_in\":1}";
        assert_eq!(refused(200, split), Outcome::Failed(Failure::Protocol));
        assert_eq!(grant_error(br#"{"error":"invalid_grant"}"#), "invalid_grant");
    }

    fn open(account: &Value) -> Result<Fcm> {
        let https = Https::new(&Roots::load(None).unwrap(), Reach::Anywhere, false, TaskTracker::new()).unwrap();
        Fcm::read(account.to_string().as_bytes(), "https://fcm.googleapis.com/", https)
    }

    #[test]
    fn a_service_account_is_read_and_one_that_cannot_serve_is_refused() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let account = json!({
            "type": "service_account", "project_id": "p", "client_email": "a@example.org", "private_key": key,
            "private_key_id": "k", "token_uri": "https://oauth2.googleapis.com/token",
        });
        let why = |account: &Value| format!("{:#}", open(account).err().unwrap());
        assert!(why(&account).contains("no RSA key"));
        assert!(why(&json!({ "project_id": "p" })).contains("no service account"));
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem();
        let with = |name: &str, value: &str| {
            let mut account = account.clone();
            account["private_key"] = pem.clone().into();
            account[name] = value.into();
            account
        };
        let fcm = open(&with("private_key_id", "k2")).unwrap();
        assert_eq!(fcm.send_uri, "https://fcm.googleapis.com/v1/projects/p/messages:send");
        assert!(why(&with("project_id", "")).contains("no project"));
        assert!(why(&with("project_id", "a/b")).contains("no project"));
        assert!(why(&with("token_uri", "http://oauth2.example.org/token")).contains("no https URL"));
    }
}
