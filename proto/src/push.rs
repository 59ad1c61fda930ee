//! Where a device is woken while it is away: its target at a push service, and what a server offers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use prost::Message;

use crate::convert::{PayloadError, fixed, id, raw, schema};
use crate::ids::{PushDigest, first_half};
use crate::limits::{
    APNS_TOKEN_BYTES_MAX, APNS_TOKEN_BYTES_MIN, PUSH_ENDPOINT_BYTES_MAX, PUSH_TOKEN_BYTES_MAX, SERVER_NAME_BYTES_MAX,
};

const DIGEST_CONTEXT: &str = "gureum 2026-11 push target v1";

/// A service that wakes devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PushService {
    /// Apple's.
    Apns,
    /// Google's.
    Fcm,
    /// Any that speaks RFC 8030: browsers' services and UnifiedPush distributors.
    WebPush,
}

/// Where a device is woken, and how. Whoever has it can wake the device: a secret of the device and its server.
#[derive(Clone, PartialEq, Eq)]
pub struct PushTarget {
    /// Where.
    pub address: PushAddress,
    /// Whether the wake-up shows something to a person; else the app is woken silently, and more seldom.
    pub visible: bool,
}

/// A device's address at a push service.
#[derive(Clone, PartialEq, Eq)]
pub enum PushAddress {
    /// At APNs.
    Apns {
        /// The device token: 8 to 100 bytes.
        token: Bytes,
        /// Whether it is one of the environment for development.
        sandbox: bool,
    },
    /// At FCM.
    Fcm {
        /// The registration token: 1 to 4,096 of ASCII 0x21 to 0x7e.
        token: String,
    },
    /// At a service of Web Push.
    WebPush {
        /// The push resource (RFC 8030 §2): an `https://` URL.
        endpoint: String,
        /// The device's public key (RFC 8291 §2.1): a P-256 point, uncompressed.
        p256dh: [u8; 65],
        /// The shared secret (RFC 8291 §2.2).
        auth: [u8; 16],
    },
}

/// An address that no service can have given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushTargetError {
    /// Of APNs.
    #[error("an APNs device token has 8 to 100 bytes")]
    ApnsToken,
    /// Of FCM.
    #[error("an FCM registration token has 1 to 4096 characters of ASCII, without spaces")]
    FcmToken,
    /// Of Web Push.
    #[error(
        "a push endpoint is a URL of at most 2048 characters that begins with https:// and a host (with http:// only \
         if the host is a loopback IP address), without user, password and fragment"
    )]
    Endpoint,
}

/// What a server offers a device, and what it has of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushOffer {
    /// The services that it uses, ascending.
    pub services: Vec<PushService>,
    /// Its key for Web Push (RFC 8292), if it uses that: a P-256 point, uncompressed.
    pub vapid_key: Option<[u8; 65]>,
    /// Of the target that it has of this device.
    pub target: Option<PushDigest>,
}

impl PushService {
    /// Every service, ascending.
    pub const ALL: [Self; 3] = [Self::Apns, Self::Fcm, Self::WebPush];

    /// How commands, settings and metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::WebPush => "web_push",
        }
    }

    fn write(self) -> i32 {
        match self {
            Self::Apns => schema::PushService::Apns,
            Self::Fcm => schema::PushService::Fcm,
            Self::WebPush => schema::PushService::WebPush,
        }
        .into()
    }

    /// `None`: one of a later version.
    fn read(service: i32) -> Result<Option<Self>, PayloadError> {
        match schema::PushService::try_from(service) {
            Ok(schema::PushService::Apns) => Ok(Some(Self::Apns)),
            Ok(schema::PushService::Fcm) => Ok(Some(Self::Fcm)),
            Ok(schema::PushService::WebPush) => Ok(Some(Self::WebPush)),
            Ok(schema::PushService::Unspecified) => Err(PayloadError::Invalid("push service")),
            Err(_) => Ok(None),
        }
    }
}

impl PushTarget {
    /// The service that it is at.
    #[must_use]
    pub const fn service(&self) -> PushService {
        self.address.service()
    }

    /// By what a device and its server see that they mean the same target.
    #[must_use]
    pub fn digest(&self) -> PushDigest {
        let hash = blake3::Hasher::new_derive_key(DIGEST_CONTEXT).update(&self.encode()).finalize();
        PushDigest::from_bytes(first_half(&hash))
    }

    /// The serialized message: its fields in the order of their numbers, none that has its default value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.write().encode_to_vec()
    }

    /// Reads what [`Self::encode`] writes.
    ///
    /// # Errors
    /// It is malformed, or no service can have given such an address.
    pub fn decode(target: &[u8]) -> Result<Self, PayloadError> {
        Self::read(schema::PushTarget::decode(target)?)
    }

    /// Whether a service can have given the address.
    ///
    /// # Errors
    /// It cannot, and this is what is wrong.
    pub fn check(&self) -> Result<(), PushTargetError> {
        self.address.check()
    }

    pub(crate) fn write(&self) -> schema::PushTarget {
        use schema::push_target::Address;
        let address = match &self.address {
            PushAddress::Apns { token, sandbox } => {
                Address::Apns(schema::ApnsAddress { token: token.clone(), sandbox: *sandbox })
            }
            PushAddress::Fcm { token } => Address::Fcm(schema::FcmAddress { token: token.clone() }),
            PushAddress::WebPush { endpoint, p256dh, auth } => Address::WebPush(schema::WebPushAddress {
                endpoint: endpoint.clone(),
                p256dh: raw(p256dh),
                auth: raw(auth),
            }),
        };
        schema::PushTarget { address: Some(address), visible: self.visible }
    }

    pub(crate) fn read(target: schema::PushTarget) -> Result<Self, PayloadError> {
        use schema::push_target::Address;
        let address = match target.address.ok_or(PayloadError::Missing("push address"))? {
            Address::Apns(apns) => PushAddress::Apns { token: apns.token, sandbox: apns.sandbox },
            Address::Fcm(fcm) => PushAddress::Fcm { token: fcm.token },
            Address::WebPush(web) => PushAddress::WebPush {
                endpoint: web.endpoint,
                p256dh: fixed(&web.p256dh, "p256dh key")?,
                auth: fixed(&web.auth, "auth secret")?,
            },
        };
        address.check().map_err(|error| {
            PayloadError::Invalid(match error {
                PushTargetError::ApnsToken => "APNs token",
                PushTargetError::FcmToken => "FCM token",
                PushTargetError::Endpoint => "push endpoint",
            })
        })?;
        Ok(Self { address, visible: target.visible })
    }
}

/// Tells the service and not the address.
impl fmt::Debug for PushTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushTarget")
            .field("service", &self.service())
            .field("visible", &self.visible)
            .finish_non_exhaustive()
    }
}

impl PushAddress {
    /// The service that it is at.
    #[must_use]
    pub const fn service(&self) -> PushService {
        match self {
            Self::Apns { .. } => PushService::Apns,
            Self::Fcm { .. } => PushService::Fcm,
            Self::WebPush { .. } => PushService::WebPush,
        }
    }

    fn check(&self) -> Result<(), PushTargetError> {
        match self {
            Self::Apns { token, .. } if !(APNS_TOKEN_BYTES_MIN..=APNS_TOKEN_BYTES_MAX).contains(&token.len()) => {
                Err(PushTargetError::ApnsToken)
            }
            Self::Fcm { token } if !is_graphic(token, PUSH_TOKEN_BYTES_MAX) => Err(PushTargetError::FcmToken),
            Self::WebPush { endpoint, .. } if !is_endpoint(endpoint) => Err(PushTargetError::Endpoint),
            _ => Ok(()),
        }
    }
}

/// As that of [`PushTarget`].
impl fmt::Debug for PushAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushAddress").field("service", &self.service()).finish_non_exhaustive()
    }
}

impl PushOffer {
    pub(crate) fn write(&self) -> schema::PushOffer {
        schema::PushOffer {
            services: self.services.iter().map(|service| service.write()).collect(),
            vapid_key: self.vapid_key.map_or_else(Bytes::new, raw),
            target_digest: self.target.map_or_else(Bytes::new, raw),
        }
    }

    pub(crate) fn read(offer: &schema::PushOffer) -> Result<Self, PayloadError> {
        let services = offer.services.iter().map(|service| PushService::read(*service));
        let services: Vec<_> = services.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        if !services.is_sorted_by(|a, b| a < b) {
            return Err(PayloadError::Invalid("order of push services"));
        }
        let vapid_key = match offer.vapid_key.len() {
            0 => None,
            _ => Some(fixed(&offer.vapid_key, "VAPID key")?),
        };
        Ok(Self { services, vapid_key, target: read_digest(&offer.target_digest)? })
    }
}

/// A digest, or empty: no target.
pub(crate) fn read_digest(bytes: &[u8]) -> Result<Option<PushDigest>, PayloadError> {
    if bytes.is_empty() { Ok(None) } else { id(bytes, "push digest").map(Some) }
}

/// One to `max` characters of ASCII that leave ink on paper.
fn is_graphic(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether it is a URL that a push service can have. Where it leads, the server that goes there has to judge.
fn is_endpoint(url: &str) -> bool {
    if !is_graphic(url, PUSH_ENDPOINT_BYTES_MAX) || url.contains('#') {
        return false;
    }
    let (may_be_any, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return false,
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (is_host, is_loopback, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, port))) => {
            let address = host.parse::<Ipv6Addr>();
            (address.is_ok(), address.is_ok_and(|address| address.is_loopback()), port)
        }
        Some(None) => return false,
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (is_name(host), host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()), port)
        }
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    is_host && is_port && (may_be_any || is_loopback)
}

/// A DNS name or an IPv4 address: no `@`, no percent-encoding, nothing that two parsers read differently.
fn is_name(host: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=SERVER_NAME_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_of_name)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(endpoint: &str) -> PushTarget {
        let address = PushAddress::WebPush { endpoint: endpoint.into(), p256dh: [4; 65], auth: [5; 16] };
        PushTarget { address, visible: true }
    }

    #[track_caller]
    fn endpoint(url: &str, is_taken: bool) {
        let expected = if is_taken { Ok(()) } else { Err(PushTargetError::Endpoint) };
        assert_eq!(web(url).check(), expected, "{url}");
    }

    #[test]
    fn takes_the_endpoints_of_services_and_of_a_receiver_on_this_machine() {
        for url in [
            "https://push.example.org/wpush/v2/gAAAAABk",
            "https://push.example.org",
            "https://push.example.org:8443/?token=a%20b",
            "https://192.0.2.1/a",
            "https://[2001:db8::1]:443/a",
            "http://127.0.0.1:8080/a",
            "http://[::1]:8080/a",
        ] {
            endpoint(url, true);
        }
    }

    #[test]
    fn refuses_endpoints_that_are_plain_elsewhere_or_that_parsers_read_differently() {
        for url in [
            "",
            "https://",
            "https:///a",
            "https://:443/a",
            "HTTPS://push.example.org/a",
            "ftp://push.example.org/a",
            "http://push.example.org/a",
            "http://localhost/a",
            "http://192.0.2.1/a",
            "http://[2001:db8::1]/a",
            "http://127.0.0.1.example.org/a",
            "https://user@push.example.org/a",
            "https://user:word@push.example.org/a",
            "https://push.example.org/a#b",
            "https://push.example.org\\@other/a",
            "https://push example.org/a",
            "https://push.example.org/a\n",
            "https://푸시.example.org/a",
            "https://push.example.org:0/a",
            "https://push.example.org:65536/a",
            "https://push.example.org:+1/a",
            "https://push.example.org:a/a",
            "https://[::1/a",
            "https://[::1]443/a",
            "https://[a]/a",
        ] {
            endpoint(url, false);
        }
    }

    #[test]
    fn an_endpoint_has_a_bound() {
        let long = |bytes: usize| format!("https://a/{}", "b".repeat(bytes - 10));
        endpoint(&long(PUSH_ENDPOINT_BYTES_MAX), true);
        endpoint(&long(PUSH_ENDPOINT_BYTES_MAX + 1), false);
        endpoint(&format!("https://{}/", "a".repeat(SERVER_NAME_BYTES_MAX)), true);
        endpoint(&format!("https://{}/", "a".repeat(SERVER_NAME_BYTES_MAX + 1)), false);
    }

    #[test]
    fn says_what_is_wrong_with_a_token() {
        let apns = |bytes| PushTarget {
            address: PushAddress::Apns { token: vec![7; bytes].into(), sandbox: false },
            visible: false,
        };
        assert_eq!(apns(7).check(), Err(PushTargetError::ApnsToken));
        assert_eq!(apns(8).check(), Ok(()));
        assert_eq!(apns(100).check(), Ok(()));
        assert_eq!(apns(101).check(), Err(PushTargetError::ApnsToken));
        let fcm = |token: &str| PushTarget { address: PushAddress::Fcm { token: token.into() }, visible: true };
        assert_eq!(fcm("APA91b:c-_").check(), Ok(()));
        assert_eq!(fcm(&"a".repeat(PUSH_TOKEN_BYTES_MAX)).check(), Ok(()));
        for token in ["", "a b", "a\n", "é", &"a".repeat(PUSH_TOKEN_BYTES_MAX + 1)] {
            assert_eq!(fcm(token).check(), Err(PushTargetError::FcmToken), "{token:?}");
        }
    }

    #[test]
    fn each_part_of_a_target_is_in_its_digest() {
        let apns = |token: u8, sandbox, visible| PushTarget {
            address: PushAddress::Apns { token: vec![token; 32].into(), sandbox },
            visible,
        };
        let fcm = |token: &str| PushTarget { address: PushAddress::Fcm { token: token.into() }, visible: true };
        let mut targets =
            vec![apns(1, false, false), apns(2, false, false), apns(1, true, false), apns(1, false, true), fcm("a")];
        let keyed = |p256dh, auth| PushTarget {
            address: PushAddress::WebPush { endpoint: "https://a/b".into(), p256dh: [p256dh; 65], auth: [auth; 16] },
            visible: true,
        };
        targets.extend([fcm("b"), web("https://a/b"), web("https://a/c"), keyed(5, 5), keyed(4, 6)]);
        let digests: std::collections::BTreeSet<_> = targets.iter().map(PushTarget::digest).collect();
        assert_eq!(digests.len(), targets.len());
        for target in targets {
            assert_eq!(PushTarget::decode(&target.encode()), Ok(target));
        }
    }

    #[test]
    fn what_is_printed_of_a_target_wakes_nobody() {
        let target = web("https://push.example.org/secret");
        assert_eq!(format!("{target:?}"), "PushTarget { service: WebPush, visible: true, .. }");
        assert_eq!(format!("{:?}", target.address), "PushAddress { service: WebPush, .. }");
    }

    #[test]
    fn names_are_those_of_commands_and_metrics() {
        assert_eq!(PushService::ALL.map(PushService::name), ["apns", "fcm", "web_push"]);
        assert!(PushService::ALL.is_sorted());
    }
}
