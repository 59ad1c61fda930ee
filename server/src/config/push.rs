//! The settings of push: when devices are woken, and by which services.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::check::{Reader, duration, path, quoted};

const DELAY: Duration = Duration::from_secs(5);
const CLOSE_DELAY: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(30);
/// Below this, a device that is about to take a message is woken for it.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// Above this, nobody would call it a wake-up.
const DELAY_MAX: Duration = Duration::from_secs(60 * 60);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const APNS: &str = "https://api.push.apple.com";
const APNS_SANDBOX: &str = "https://api.sandbox.push.apple.com";
const FCM: &str = "https://fcm.googleapis.com";
/// Apple gives ids of ten characters, and allows topics of bundle ids.
const APNS_NAME_BYTES_MAX: usize = 255;
const SUBJECT_BYTES_MAX: usize = 255;

/// When devices are woken, and by which services. Each field is the key of the same name, as KEYS describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushSettings {
    /// How long a message waits for a device before it is woken.
    pub push_delay: Duration,
    /// The same after a device has closed its connection, or the server has started.
    pub push_close_delay: Duration,
    /// The least time between two wake-ups that show something.
    pub push_interval: Duration,
    /// Certificates (PEM) that are trusted besides those of public authorities.
    pub push_roots: Option<PathBuf>,
    /// Whether devices may name endpoints inside the operator's own network.
    pub push_private_endpoints: bool,
    /// Whether Web Push is offered.
    pub web_push: bool,
    /// Whom the services of Web Push may turn to: a `mailto:` or `https:` URL.
    pub vapid_subject: String,
    /// The key (PEM, PKCS#8) by which APNs knows the app's owner. This and the next three: all, or none.
    pub apns_key: Option<PathBuf>,
    /// The key's id.
    pub apns_key_id: Option<String>,
    /// The owner's team.
    pub apns_team_id: Option<String>,
    /// The app's bundle id.
    pub apns_topic: Option<String>,
    /// Where APNs is, without a slash at the end.
    pub apns_endpoint: String,
    /// Where APNs is for apps under development.
    pub apns_sandbox_endpoint: String,
    /// The service account (JSON) by which FCM knows the app's owner.
    pub fcm_account: Option<PathBuf>,
    /// Where FCM is, without a slash at the end.
    pub fcm_endpoint: String,
}

impl Reader<'_> {
    /// The settings of push; `host` is how clients are told to reach the server.
    pub(super) fn push(&mut self, host: &str) -> Option<PushSettings> {
        let delays = DELAY_MIN..=DELAY_MAX;
        let push_delay = self.duration("push_delay", DELAY, delays.clone());
        let push_close_delay = self.duration("push_close_delay", CLOSE_DELAY, delays);
        let push_interval = self.duration("push_interval", INTERVAL, DELAY_MIN..=INTERVAL_MAX);
        let push_roots = self.path("push_roots");
        let push_private_endpoints = self.value("push_private_endpoints", "deny", private_endpoints);
        let web_push = self.value("web_push", "on", switch);
        let vapid_subject = self.value("vapid_subject", &contact(host), subject);
        let apns_key = self.path("apns_key");
        let apns_key_id = self.optional("apns_key_id", apns_name);
        let apns_team_id = self.optional("apns_team_id", apns_name);
        let apns_topic = self.optional("apns_topic", apns_name);
        self.together(&["apns_key", "apns_key_id", "apns_team_id", "apns_topic"]);
        let apns_endpoint = self.value("apns_endpoint", APNS, endpoint);
        let apns_sandbox_endpoint = self.value("apns_sandbox_endpoint", APNS_SANDBOX, endpoint);
        let fcm_account = self.path("fcm_account");
        let fcm_endpoint = self.value("fcm_endpoint", FCM, endpoint);
        Some(PushSettings {
            push_delay: push_delay?,
            push_close_delay: push_close_delay?,
            push_interval: push_interval?,
            push_roots,
            push_private_endpoints: push_private_endpoints?,
            web_push: web_push?,
            vapid_subject: vapid_subject?,
            apns_key,
            apns_key_id,
            apns_team_id,
            apns_topic,
            apns_endpoint: apns_endpoint?,
            apns_sandbox_endpoint: apns_sandbox_endpoint?,
            fcm_account,
            fcm_endpoint: fcm_endpoint?,
        })
    }
}

/// How a contact is written if nobody names one: the server itself. Its port is none of HTTP, and is left out.
fn contact(host: &str) -> String {
    if host.contains(':') { format!("https://[{host}]") } else { format!("https://{host}") }
}

fn private_endpoints(text: &str) -> Result<bool, String> {
    match text {
        "deny" => Ok(false),
        "allow" => Ok(true),
        _ => Err("is neither `deny` nor `allow`".into()),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("is neither `on` nor `off`".into()),
    }
}

fn subject(text: &str) -> Result<String, String> {
    let is_contact = text.strip_prefix("mailto:").is_some_and(|address| address.contains('@'))
        || text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
    let is_plain = text.len() <= SUBJECT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_contact && is_plain {
        Ok(text.to_owned())
    } else {
        Err("is no contact, e.g. mailto:admin@example.org or https://chat.example.org".into())
    }
}

/// Goes into a header or a claim as it is.
fn apns_name(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if (1..=APNS_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_name) {
        Ok(text.to_owned())
    } else {
        Err("must be letters, digits, dots and dashes, as Apple writes it".into())
    }
}

/// Where a service is: paths are appended to it.
fn endpoint(text: &str) -> Result<String, String> {
    let url = http_url(text)?;
    if url.contains('?') {
        return Err("must end before the first `?`".into());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// An `https://` URL, or an `http://` one of this machine.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let no_url = || "is no https:// URL; http:// is for 127.0.0.1 and [::1] alone".to_owned();
    let url: Uri = text.parse().map_err(|_| no_url())?;
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else { return Err(no_url()) };
    if authority.as_str().contains('@') || text.contains('#') {
        return Err("must hold no name, password or `#`".into());
    }
    let host = authority.host();
    let is_loopback = host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    match scheme {
        "https" if !host.is_empty() => Ok(text.to_owned()),
        "http" if is_loopback => Ok(text.to_owned()),
        _ => Err(no_url()),
    }
}

/// A setting's value as TOML, if it is one of push that is set or has a default.
pub(super) fn written(push: &PushSettings, name: &str) -> Option<String> {
    match name {
        "push_delay" => Some(duration(push.push_delay)),
        "push_close_delay" => Some(duration(push.push_close_delay)),
        "push_interval" => Some(duration(push.push_interval)),
        "push_roots" => push.push_roots.as_deref().map(path),
        "push_private_endpoints" => Some(quoted(if push.push_private_endpoints { "allow" } else { "deny" })),
        "web_push" => Some(quoted(if push.web_push { "on" } else { "off" })),
        "vapid_subject" => Some(quoted(&push.vapid_subject)),
        "apns_key" => push.apns_key.as_deref().map(path),
        "apns_key_id" => push.apns_key_id.as_deref().map(quoted),
        "apns_team_id" => push.apns_team_id.as_deref().map(quoted),
        "apns_topic" => push.apns_topic.as_deref().map(quoted),
        "apns_endpoint" => Some(quoted(&push.apns_endpoint)),
        "apns_sandbox_endpoint" => Some(quoted(&push.apns_sandbox_endpoint)),
        "fcm_account" => push.fcm_account.as_deref().map(path),
        "fcm_endpoint" => Some(quoted(&push.fcm_endpoint)),
        _ => None,
    }
}
