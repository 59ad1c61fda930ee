//! APNs on this machine: HTTP/2 alone, provider tokens, and the errors of Apple's "Handling notification responses".

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use http::{Method, Version};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use super::jwt;
use super::service::{Protocol, Reply, Seen, Service};
use super::tls::Authority;

/// The id of the key.
pub const KEY_ID: &str = "ABC123DEFG";
/// The team whose key it is.
pub const TEAM_ID: &str = "DEF123GHIJ";
/// The app.
pub const TOPIC: &str = "org.example.gureum";

/// Apple takes a provider token for so long.
const TOKEN_S_MAX: i64 = 60 * 60;

/// The service.
#[derive(Debug)]
pub struct Apns {
    /// The server.
    pub service: Service,
    key_pem: String,
}

impl Apns {
    /// Starts it with a key of its own.
    #[must_use]
    pub fn start(authority: &Authority) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let public = key.public_key_raw().to_vec();
        let protocol: Protocol = Box::new(move |seen: &Seen| match check(seen, &public) {
            Ok(()) => accepted(),
            Err(refusal) => refusal,
        });
        Self { service: Service::start(authority, &["h2"], protocol), key_pem: key.serialize_pem() }
    }

    /// Writes the key into a directory, as Apple gives it out.
    #[must_use]
    pub fn write_key(&self, dir: &Path) -> PathBuf {
        let path = dir.join("AuthKey.p8");
        std::fs::write(&path, &self.key_pem).unwrap();
        path
    }
}

/// Refuses a request for this reason.
#[must_use]
pub fn refusal(status: u16, reason: &str) -> Reply {
    Reply::new(status, json!({ "reason": reason }).to_string())
}

/// Says that a token has not been valid since this time.
#[must_use]
pub fn unregistered(since_ms: u64) -> Reply {
    Reply::new(410, json!({ "reason": "Unregistered", "timestamp": since_ms }).to_string())
}

/// Says that the provider token is too old.
#[must_use]
pub fn expired_token() -> Reply {
    refusal(403, "ExpiredProviderToken")
}

fn accepted() -> Reply {
    Reply::new(200, "").with("apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b")
}

fn check(seen: &Seen, key: &[u8]) -> Result<(), Reply> {
    if seen.version != Version::HTTP_2 {
        return Err(Reply::new(505, ""));
    }
    if seen.method != Method::POST {
        return Err(refusal(405, "MethodNotAllowed"));
    }
    let token = seen.path.strip_prefix("/3/device/").ok_or_else(|| refusal(404, "BadPath"))?;
    let is_token = (16..=200).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_token {
        return Err(refusal(400, "BadDeviceToken"));
    }
    check_provider(seen.header("authorization"), key)?;
    check_headers(seen)?;
    check_payload(seen)
}

fn check_provider(authorization: &str, key: &[u8]) -> Result<(), Reply> {
    let token = authorization.strip_prefix("bearer ").ok_or_else(|| refusal(403, "MissingProviderToken"))?;
    let invalid = || refusal(403, "InvalidProviderToken");
    let (header, claims) = jwt::read(token, &ECDSA_P256_SHA256_FIXED, key).ok_or_else(invalid)?;
    if header["alg"] != "ES256" || header["kid"] != KEY_ID || claims["iss"] != TEAM_ID {
        return Err(invalid());
    }
    let ahead_s = jwt::seconds_ahead(&claims["iat"]).ok_or_else(invalid)?;
    if ahead_s.abs() > TOKEN_S_MAX { Err(expired_token()) } else { Ok(()) }
}

fn check_headers(seen: &Seen) -> Result<(), Reply> {
    match seen.header("apns-topic") {
        TOPIC => {}
        "" => return Err(refusal(400, "MissingTopic")),
        _ => return Err(refusal(400, "TopicDisallowed")),
    }
    // A background notification is never urgent.
    match (seen.header("apns-push-type"), seen.header("apns-priority")) {
        ("alert", "10" | "5") | ("background", "5") => {}
        ("alert" | "background", _) => return Err(refusal(400, "BadPriority")),
        _ => return Err(refusal(400, "InvalidPushType")),
    }
    if !(1..=64).contains(&seen.header("apns-collapse-id").len()) {
        return Err(refusal(400, "BadCollapseId"));
    }
    if seen.header("apns-expiration").parse::<u32>().is_err() {
        return Err(refusal(400, "BadExpirationDate"));
    }
    Ok(())
}

fn check_payload(seen: &Seen) -> Result<(), Reply> {
    if seen.body.is_empty() {
        return Err(refusal(400, "PayloadEmpty"));
    }
    if seen.body.len() > 4_096 {
        return Err(refusal(413, "PayloadTooLarge"));
    }
    let body = seen.json();
    let aps = &body["aps"];
    let is_background = aps["content-available"] == 1 && aps["alert"] == Value::Null;
    let is_payload = aps.is_object() && is_background == (seen.header("apns-push-type") == "background");
    if is_payload { Ok(()) } else { Err(refusal(400, "InvalidPushType")) }
}
