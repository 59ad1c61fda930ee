//! FCM on this machine: the OAuth token endpoint for service accounts (RFC 7523), and HTTP v1 with its error bodies.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use http::Method;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::json;

use super::jwt;
use super::service::{Protocol, Reply, Seen, Service};
use super::tls::Authority;

/// The project.
pub const PROJECT: &str = "gureum-test";
const EMAIL: &str = "server@gureum-test.iam.gserviceaccount.com";
const KEY_ID: &str = "0123456789abcdef";
const TOKEN_PATH: &str = "/token";
const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";

/// The service.
#[derive(Debug)]
pub struct Fcm {
    /// The server: of tokens and of messages, which have paths of their own.
    pub service: Service,
    access: Arc<Access>,
    key_pem: String,
}

#[derive(Debug)]
struct Access {
    /// The server's URL, once it has one.
    url: OnceLock<String>,
    key: Vec<u8>,
    /// The access tokens that serve.
    granted: Mutex<HashSet<String>>,
}

impl Fcm {
    /// Starts it with an account of its own.
    ///
    /// # Panics
    /// If no RSA key can be made.
    #[must_use]
    pub fn start(authority: &Authority) -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let public = key.public_key_raw().to_vec();
        let access = Arc::new(Access { url: OnceLock::new(), key: public, granted: Mutex::default() });
        let shared = Arc::clone(&access);
        let protocol: Protocol = Box::new(move |seen: &Seen| shared.answer(seen));
        let service = Service::start(authority, &["h2", "http/1.1"], protocol);
        access.url.set(service.url()).expect("set once");
        Self { service, access, key_pem: key.serialize_pem() }
    }

    /// Writes the service account into a directory, as the Firebase console gives it out.
    #[must_use]
    pub fn write_account(&self, dir: &Path) -> PathBuf {
        let path = dir.join("service-account.json");
        let account = json!({
            "type": "service_account", "project_id": PROJECT, "private_key_id": KEY_ID, "private_key": self.key_pem,
            "client_email": EMAIL, "client_id": "1", "token_uri": format!("{}{TOKEN_PATH}", self.service.url()),
        });
        std::fs::write(&path, account.to_string()).unwrap();
        path
    }

    /// Takes all access tokens back: whoever has one is refused with it.
    pub fn expire_tokens(&self) {
        self.access.granted.lock().unwrap().clear();
    }

    /// The messages among the requests so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Seen> {
        self.service.seen().into_iter().filter(|seen| seen.path != TOKEN_PATH).collect()
    }

    /// How often an access token was asked for.
    #[must_use]
    pub fn token_requests(&self) -> usize {
        self.service.seen().iter().filter(|seen| seen.path == TOKEN_PATH).count()
    }
}

/// An error of Google's APIs: with the code of FCM's own, unless that is empty.
#[must_use]
pub fn refusal(status: u16, api_status: &str, code: &str) -> Reply {
    let kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    let details = if code.is_empty() { json!([]) } else { json!([{ "@type": kind, "errorCode": code }]) };
    let error = json!({ "code": status, "message": "as told", "status": api_status, "details": details });
    Reply::new(status, json!({ "error": error }).to_string()).with("content-type", "application/json; charset=UTF-8")
}

/// Says that the app is gone from the device.
#[must_use]
pub fn unregistered() -> Reply {
    refusal(404, "NOT_FOUND", "UNREGISTERED")
}

impl Access {
    fn answer(&self, seen: &Seen) -> Reply {
        if seen.path == TOKEN_PATH {
            return self
                .grant(seen)
                .unwrap_or_else(|| Reply::new(400, json!({ "error": "invalid_grant" }).to_string()));
        }
        let bearer = seen.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        if !self.granted.lock().unwrap().contains(bearer) {
            return refusal(401, "UNAUTHENTICATED", "");
        }
        if seen.path != format!("/v1/projects/{PROJECT}/messages:send") {
            return refusal(404, "NOT_FOUND", "");
        }
        if is_message(seen) {
            let name = format!("projects/{PROJECT}/messages/0:1500415314455276");
            Reply::new(200, json!({ "name": name }).to_string())
        } else {
            refusal(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
        }
    }

    fn grant(&self, seen: &Seen) -> Option<Reply> {
        let is_form =
            seen.method == Method::POST && seen.header("content-type").starts_with("application/x-www-form-urlencoded");
        let assertion = std::str::from_utf8(&seen.body).ok().filter(|_| is_form)?.strip_prefix(GRANT)?;
        let (header, claims) = jwt::read(assertion, &RSA_PKCS1_2048_8192_SHA256, &self.key)?;
        let (issued_s, end_s) = (jwt::seconds_ahead(&claims["iat"])?, jwt::seconds_ahead(&claims["exp"])?);
        let audience = format!("{}{TOKEN_PATH}", self.url.get()?);
        let is_granted = header["alg"] == "RS256"
            && header["kid"] == KEY_ID
            && claims["iss"] == EMAIL
            && claims["aud"] == audience.as_str()
            && claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
            && issued_s <= 300
            && (1..=3_600).contains(&end_s)
            && end_s - issued_s <= 3_600;
        if !is_granted {
            return None;
        }
        let token = format!("ya29.{:032x}", rand::random::<u128>());
        self.granted.lock().unwrap().insert(token.clone());
        let granted = json!({ "access_token": token, "expires_in": 3_599, "token_type": "Bearer" });
        Some(Reply::new(200, granted.to_string()))
    }
}

fn is_message(seen: &Seen) -> bool {
    let body = seen.json();
    let message = &body["message"];
    let android = &message["android"];
    let is_text = |value: &serde_json::Value| value.as_str().is_some_and(|text| !text.is_empty());
    let lasts = android["ttl"].as_str().and_then(|ttl| ttl.strip_suffix('s')).and_then(|ttl| ttl.parse::<u32>().ok());
    seen.method == Method::POST
        && is_text(&message["token"])
        && message["data"].as_object().is_some_and(|data| data.values().all(is_text))
        && ["HIGH", "NORMAL"].iter().any(|priority| android["priority"] == *priority)
        && is_text(&android["collapse_key"])
        && lasts.is_some()
}
