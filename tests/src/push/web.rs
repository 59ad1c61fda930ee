//! A Web Push service on this machine, as a browser's or a UnifiedPush distributor is: RFC 8030, with VAPID (RFC 8292)
//! required, and with the devices that it serves, which decrypt what comes for them (RFC 8291).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use gureum_proto::{PushAddress, PushTarget};
use http::Method;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;
use web_push_native::{Auth, decrypt};

use super::jwt;
use super::service::{Protocol, Reply, Seen, Service};
use super::tls::Authority;

/// A signed word may be good for no longer than a day (RFC 8292 §2).
const WORD_S_MAX: i64 = 24 * 60 * 60;

/// What a push service takes at most (RFC 8030 §7.2).
const BODY_BYTES_MAX: usize = 4_096;

/// The service and the devices that have subscribed at it.
#[derive(Debug)]
pub struct Distributor {
    /// The server.
    pub service: Service,
    devices: Arc<Devices>,
}

/// A subscription: what an app gives to its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The push resource.
    pub endpoint: String,
    /// The device's public key.
    pub p256dh: [u8; 65],
    /// The shared secret.
    pub auth: [u8; 16],
}

impl Subscription {
    /// As a target of a device.
    #[must_use]
    pub fn target(&self, visible: bool) -> PushTarget {
        let (endpoint, p256dh, auth) = (self.endpoint.clone(), self.p256dh, self.auth);
        PushTarget { address: PushAddress::WebPush { endpoint, p256dh, auth }, visible }
    }
}

/// A wake-up as a device has decrypted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    /// To whom it came.
    pub endpoint: String,
    /// What it said.
    pub text: String,
}

#[derive(Debug, Default)]
struct Devices {
    /// The server's URL, once it has one.
    url: OnceLock<String>,
    /// By path; `None`: it has unsubscribed.
    subscribed: Mutex<HashMap<String, Option<Device>>>,
    wakes: Mutex<Vec<Wake>>,
}

#[derive(Debug, Clone)]
struct Device {
    secret: SecretKey,
    auth: [u8; 16],
}

impl Distributor {
    /// Starts it without subscriptions.
    #[must_use]
    pub fn start(authority: &Authority) -> Self {
        Self::speaking(authority, &["h2", "http/1.1"])
    }

    /// Starts one that speaks HTTP/1.1 and nothing else, as small ones do.
    #[must_use]
    pub fn start_http1(authority: &Authority) -> Self {
        Self::speaking(authority, &["http/1.1"])
    }

    fn speaking(authority: &Authority, protocols: &[&str]) -> Self {
        let devices = Arc::<Devices>::default();
        let shared = Arc::clone(&devices);
        let protocol: Protocol = Box::new(move |seen: &Seen| match shared.take(seen) {
            Ok(()) => Reply::new(201, "").with("location", format!("{}/message/1", shared.url())).with("ttl", "86400"),
            Err(status) => Reply::new(status, ""),
        });
        let service = Service::start(authority, protocols, protocol);
        devices.url.set(service.url()).expect("set once");
        Self { service, devices }
    }

    /// A device subscribes.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let secret = SecretKey::from_slice(&rand::random::<[u8; 32]>()).unwrap();
        let p256dh = secret.public_key().to_encoded_point(false).as_bytes().try_into().unwrap();
        let (path, auth) = (format!("/push/{}", HEXLOWER.encode(&rand::random::<[u8; 16]>())), rand::random());
        let endpoint = format!("{}{path}", self.service.url());
        self.devices.subscribed.lock().unwrap().insert(path, Some(Device { secret, auth }));
        Subscription { endpoint, p256dh, auth }
    }

    /// A device is gone: from now on the service says so.
    pub fn unsubscribe(&self, subscription: &Subscription) {
        let path = subscription.endpoint.strip_prefix(self.devices.url()).unwrap();
        self.devices.subscribed.lock().unwrap().insert(path.to_owned(), None);
    }

    /// The wake-ups that devices have decrypted, in order of time.
    #[must_use]
    pub fn wakes(&self) -> Vec<Wake> {
        self.devices.wakes.lock().unwrap().clone()
    }

    /// What has come to one device, in order of time.
    #[must_use]
    pub fn wakes_of(&self, subscription: &Subscription) -> Vec<String> {
        let all = self.wakes().into_iter();
        all.filter(|wake| wake.endpoint == subscription.endpoint).map(|wake| wake.text).collect()
    }
}

impl Devices {
    fn url(&self) -> &str {
        self.url.get().expect("it has been started")
    }

    /// Takes a push message, or refuses it with a status.
    fn take(&self, seen: &Seen) -> Result<(), u16> {
        let device = self.subscribed.lock().unwrap().get(&seen.path).cloned().ok_or(404_u16)?.ok_or(410_u16)?;
        if seen.method != Method::POST {
            return Err(405);
        }
        if !self.is_authorized(seen.header("authorization")) {
            return Err(403);
        }
        if seen.body.len() > BODY_BYTES_MAX {
            return Err(413);
        }
        if !has_headers(seen) {
            return Err(400);
        }
        let text = decrypt(seen.body.to_vec(), &device.secret, &Auth::from(device.auth)).map_err(|_| 400_u16)?;
        let text = String::from_utf8(text).map_err(|_| 400_u16)?;
        let endpoint = format!("{}{}", self.url(), seen.path);
        self.wakes.lock().unwrap().push(Wake { endpoint, text });
        Ok(())
    }

    fn is_authorized(&self, authorization: &str) -> bool {
        let claims = || {
            let (token, key) = authorization.strip_prefix("vapid t=")?.split_once(", k=")?;
            let key = BASE64URL_NOPAD.decode(key.as_bytes()).ok()?;
            let (header, claims) = jwt::read(token, &ECDSA_P256_SHA256_FIXED, &key)?;
            (header["alg"] == "ES256").then_some(claims)
        };
        claims().is_some_and(|claims| {
            let ends_s = jwt::seconds_ahead(&claims["exp"]).unwrap_or_default();
            let subject = claims["sub"].as_str().unwrap_or_default();
            claims["aud"] == self.url()
                && (1..=WORD_S_MAX).contains(&ends_s)
                && (subject.starts_with("mailto:") || subject.starts_with("https://"))
        })
    }
}

fn has_headers(seen: &Seen) -> bool {
    let topic = seen.header("topic");
    let is_topic = topic.len() <= 32 && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    seen.header("ttl").parse::<u32>().is_ok()
        && ["very-low", "low", "normal", "high"].contains(&seen.header("urgency"))
        && seen.header("content-encoding") == "aes128gcm"
        && is_topic
}
