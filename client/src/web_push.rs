//! What a receiver of Web Push checks and opens: who sends (RFC 8292), and what was sent (RFC 8291).

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use gureum_proto::{PushAddress, PushTarget};
use serde::Deserialize;
use web_push_native::Auth;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;
use web_push_native::p256::{PublicKey, SecretKey};
use zeroize::Zeroizing;

/// What a receiver is made of: a secret key, the secret that is shared with who sends, and the path by which it is found.
pub(crate) const RECEIVER_BYTES: usize = 32 + 16 + 16;

/// How long a proof may be good for (RFC 8292 §2).
const PROOF_S_MAX: u64 = 24 * 60 * 60;
/// The least size of a record (RFC 8188 §2.1): a byte of padding, the tag, and one of text.
const RECORD_BYTES_MIN: u32 = 18;

/// A receiver of wake-ups: the keys of what the server is told of it.
pub struct PushReceiver {
    secret: SecretKey,
    auth: Zeroizing<[u8; 16]>,
    path: String,
}

/// What a wake-up says: nothing but this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeUp {
    /// There is something in the inbox.
    Messages,
    /// The server is about to drop something that is in the inbox.
    Expiring,
}

/// Why a wake-up is not one of this device's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VapidError {
    /// There is no proof.
    #[error("it does not say by VAPID (RFC 8292) which server it is from")]
    Missing,
    /// The proof cannot be read.
    #[error("its proof by VAPID cannot be read")]
    Malformed,
    /// It is by another key.
    #[error("it is from another server than this device's")]
    Key,
    /// It is not signed by the key that it names.
    #[error("its proof is not signed by the key of this device's server")]
    Signature,
    /// It is for another receiver.
    #[error("its proof is for another receiver")]
    Audience,
    /// It is over, or good for longer than a day.
    #[error("its proof is over, or good for more than a day: compare the server's clock with this one")]
    Time,
}

/// A wake-up that these keys do not open, or that says something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not encrypted for this receiver, or says something unknown")]
pub struct WakeUpError;

impl PushReceiver {
    /// `None` where the first part is no secret key, as of one in 2^32.
    pub(crate) fn from_bytes(bytes: &[u8; RECEIVER_BYTES]) -> Option<Self> {
        let (secret, rest) = bytes.split_first_chunk::<32>()?;
        let (auth, path) = rest.split_first_chunk::<16>()?;
        let secret = SecretKey::from_slice(secret).ok()?;
        Some(Self { secret, auth: Zeroizing::new(*auth), path: HEXLOWER.encode(path) })
    }

    /// The last segment of the endpoint: whoever does not know it does not find the receiver.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the receiver is found; `base` is its URL without that path, and without a slash at the end.
    #[must_use]
    pub fn endpoint(&self, base: &str) -> String {
        format!("{base}/{}", self.path)
    }

    /// What the server is told of the receiver.
    #[must_use]
    pub fn target(&self, base: &str, visible: bool) -> PushTarget {
        let endpoint = self.endpoint(base);
        let point = self.secret.public_key().to_encoded_point(false);
        let p256dh = point.as_bytes().try_into().expect("an uncompressed point of P-256 has 65 bytes");
        PushTarget { address: PushAddress::WebPush { endpoint, p256dh, auth: *self.auth }, visible }
    }

    /// Opens the body of a request.
    ///
    /// # Errors
    /// It is not for this receiver, or says something else than a wake-up does.
    pub fn open(&self, sealed: &[u8]) -> Result<WakeUp, WakeUpError> {
        // Records of no bytes would never end.
        let record_bytes = sealed.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        if record_bytes.is_none_or(|bytes| bytes < RECORD_BYTES_MIN) {
            return Err(WakeUpError);
        }
        let opened = web_push_native::decrypt(sealed.to_vec(), &self.secret, &Auth::from(*self.auth));
        match opened.map_err(|_| WakeUpError)?.as_slice() {
            b"messages" => Ok(WakeUp::Messages),
            b"expiring" => Ok(WakeUp::Expiring),
            _ => Err(WakeUpError),
        }
    }
}

impl fmt::Debug for PushReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushReceiver(..)")
    }
}

impl WakeUp {
    /// The word that stands for it, in a payload as in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Expiring => "expiring",
        }
    }
}

/// Whether these bytes are a public key that a receiver can have.
#[must_use]
pub fn is_p256dh(key: &[u8; 65]) -> bool {
    PublicKey::from_sec1_bytes(key).is_ok()
}

/// Makes sure that a request is from a server, by its `Authorization` header: signed by the key that the server has told,
/// for the origin of this endpoint, and at this time.
///
/// # Errors
/// It is not.
pub fn check_vapid(
    authorization: Option<&str>,
    server_key: &[u8; 65],
    endpoint: &str,
    now_ms: u64,
) -> Result<(), VapidError> {
    let (scheme, proof) = authorization.and_then(|text| text.split_once(' ')).ok_or(VapidError::Missing)?;
    if !scheme.eq_ignore_ascii_case("vapid") {
        return Err(VapidError::Missing);
    }
    let value = |name: &str| {
        let values = proof.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        values.map(|value| value.trim_matches('"')).ok_or(VapidError::Malformed)
    };
    if decode(value("k")?)? != server_key {
        return Err(VapidError::Key);
    }
    let claims = read_token(value("t")?, server_key)?;
    if normal(&claims.aud) != normal(origin(endpoint)) {
        return Err(VapidError::Audience);
    }
    let now_s = now_ms / 1_000;
    if (now_s..=now_s.saturating_add(PROOF_S_MAX)).contains(&claims.exp) { Ok(()) } else { Err(VapidError::Time) }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    exp: u64,
}

/// The claims of a JWT (RFC 7519), signed by ES256 with this key.
fn read_token(token: &str, key: &[u8; 65]) -> Result<Claims, VapidError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(VapidError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(VapidError::Malformed)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| VapidError::Malformed)?;
    if header.alg != "ES256" {
        return Err(VapidError::Malformed);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(signed.as_bytes(), &decode(signature)?)
        .map_err(|_| VapidError::Signature)?;
    serde_json::from_slice(&decode(claims)?).map_err(|_| VapidError::Malformed)
}

fn decode(text: &str) -> Result<Vec<u8>, VapidError> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| VapidError::Malformed)
}

/// Scheme and authority of a URL.
fn origin(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(authority..).and_then(|rest| rest.find(['/', '?'])).map(|at| authority + at);
    end.and_then(|end| url.get(..end)).unwrap_or(url)
}

/// An origin in the one way in which two are compared: in lower case, without the port that its scheme has anyway.
fn normal(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let port = if origin.starts_with("https://") { ":443" } else { ":80" };
    origin.strip_suffix(port).unwrap_or(&origin).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by a panic")]

    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    const ENDPOINT: &str = "https://push.example.org/a1b2";
    const NOW_MS: u64 = 1_800_000_000_000;
    const NOW_S: u64 = NOW_MS / 1_000;

    fn receiver(byte: u8) -> PushReceiver {
        PushReceiver::from_bytes(&[byte; RECEIVER_BYTES]).unwrap()
    }

    /// What a server sends to a receiver.
    fn sealed(receiver: &PushReceiver, text: &str) -> Vec<u8> {
        let PushAddress::WebPush { p256dh, auth, .. } = receiver.target("https://a", true).address else { panic!() };
        let key = PublicKey::from_sec1_bytes(&p256dh).unwrap();
        web_push_native::encrypt(text.as_bytes().to_vec(), &key, &Auth::from(auth)).unwrap()
    }

    struct Server(EcdsaKeyPair);

    impl Server {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        fn key(&self) -> [u8; 65] {
            self.0.public_key().as_ref().try_into().unwrap()
        }

        fn token(&self, header: &str, claims: &str) -> String {
            let parts = [header, claims].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
            let signed = parts.join(".");
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
        }

        fn proof(&self, audience: &str, expires_s: u64) -> String {
            let claims = format!(r#"{{"aud":"{audience}","exp":{expires_s},"sub":"mailto:a@example.org"}}"#);
            let token = self.token(r#"{"typ":"JWT","alg":"ES256"}"#, &claims);
            format!("vapid t={token}, k={}", BASE64URL_NOPAD.encode(&self.key()))
        }

        fn check(&self, authorization: &str) -> Result<(), VapidError> {
            check_vapid(Some(authorization), &self.key(), ENDPOINT, NOW_MS)
        }
    }

    #[test]
    fn opens_the_two_wake_ups_and_nothing_else() {
        let receiver = receiver(7);
        assert_eq!(receiver.open(&sealed(&receiver, "messages")), Ok(WakeUp::Messages));
        assert_eq!(receiver.open(&sealed(&receiver, "expiring")), Ok(WakeUp::Expiring));
        assert_eq!(receiver.open(&sealed(&receiver, "anything")), Err(WakeUpError));
        assert_eq!(receiver.open(&sealed(&receiver, "")), Err(WakeUpError));
    }

    #[test]
    fn what_is_for_another_receiver_or_was_altered_is_not_opened() {
        let mine = receiver(7);
        assert_eq!(mine.open(&sealed(&receiver(8), "messages")), Err(WakeUpError));
        let sealed = sealed(&mine, "messages");
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            // The size of a record that is the last one anyway changes nothing, as long as the record fits.
            let is_record_size = (16..20).contains(&at);
            assert!(is_record_size || mine.open(&altered) == Err(WakeUpError), "byte {at}");
        }
    }

    #[test]
    fn what_is_cut_off_or_has_records_of_no_bytes_is_refused_without_a_panic() {
        let receiver = receiver(7);
        let sealed = sealed(&receiver, "messages");
        for bytes in 0..sealed.len() {
            assert_eq!(receiver.open(&sealed[..bytes]), Err(WakeUpError), "{bytes} bytes");
        }
        for record_bytes in [0_u32, 1, 17] {
            let mut altered = sealed.clone();
            altered[16..20].copy_from_slice(&record_bytes.to_be_bytes());
            assert_eq!(receiver.open(&altered), Err(WakeUpError), "records of {record_bytes}");
        }
    }

    #[test]
    fn the_server_is_told_a_target_that_it_takes() {
        let receiver = receiver(7);
        let target = receiver.target("http://127.0.0.1:8080", false);
        assert_eq!((target.check(), target.visible), (Ok(()), false));
        let PushAddress::WebPush { endpoint, p256dh, auth } = target.address else { panic!() };
        assert_eq!(endpoint, format!("http://127.0.0.1:8080/{}", "07".repeat(16)));
        assert!(is_p256dh(&p256dh) && !is_p256dh(&[4; 65]));
        assert_eq!(auth, [7; 16]);
        assert_eq!(format!("{receiver:?}"), "PushReceiver(..)");
    }

    #[test]
    fn takes_the_proof_of_its_server_for_its_origin_however_it_is_written() {
        let server = Server::new();
        for audience in ["https://push.example.org", "https://push.example.org:443", "HTTPS://Push.Example.org"] {
            assert_eq!(server.check(&server.proof(audience, NOW_S + 60)), Ok(()), "{audience}");
        }
        let proof = server.proof("https://push.example.org", NOW_S + PROOF_S_MAX);
        assert_eq!(server.check(&proof), Ok(()));
        let (token, key) = proof.strip_prefix("vapid ").unwrap().split_once(", ").unwrap();
        assert_eq!(server.check(&format!("VAPID {key},{token}")), Ok(()));
        let local = server.proof("http://127.0.0.1:8080", NOW_S + 60);
        assert_eq!(check_vapid(Some(&local), &server.key(), "http://127.0.0.1:8080/a", NOW_MS), Ok(()));
    }

    #[test]
    fn refuses_proofs_of_others_for_others_or_of_another_time() {
        let (server, other) = (Server::new(), Server::new());
        let audience = "https://push.example.org";
        assert_eq!(server.check(&other.proof(audience, NOW_S + 60)), Err(VapidError::Key));
        let of_other = other.proof(audience, NOW_S + 60);
        let (token, _) = of_other.split_once(", ").unwrap();
        let borrowed = format!("{token}, k={}", BASE64URL_NOPAD.encode(&server.key()));
        assert_eq!(server.check(&borrowed), Err(VapidError::Signature));
        for audience in ["https://push.example.com", "http://push.example.org", "https://push.example.org/a1b2", ""] {
            assert_eq!(server.check(&server.proof(audience, NOW_S + 60)), Err(VapidError::Audience), "{audience}");
        }
        for expires_s in [0, NOW_S - 1, NOW_S + PROOF_S_MAX + 1, u64::MAX] {
            assert_eq!(server.check(&server.proof(audience, expires_s)), Err(VapidError::Time), "{expires_s}");
        }
    }

    #[test]
    fn refuses_what_is_no_proof() {
        let server = Server::new();
        assert_eq!(check_vapid(None, &server.key(), ENDPOINT, NOW_MS), Err(VapidError::Missing));
        for text in ["", "vapid", "Bearer abc", "WebPush abc"] {
            assert_eq!(server.check(text), Err(VapidError::Missing), "{text}");
        }
        let key = BASE64URL_NOPAD.encode(&server.key());
        let claims = format!(r#"{{"aud":"https://push.example.org","exp":{}}}"#, NOW_S + 60);
        let unsigned = server.token(r#"{"alg":"none"}"#, &claims);
        let unnamed = server.token(r#"{"alg":"ES256"}"#, "{}");
        for text in [
            format!("vapid k={key}"),
            "vapid t=a.b.c".to_owned(),
            format!("vapid t=a.b.c, k={key}"),
            format!("vapid t=, k={key}"),
            format!("vapid t=a, k={key}="),
            format!("vapid t={unsigned}, k={key}"),
            format!("vapid t={unnamed}, k={key}"),
        ] {
            assert_eq!(server.check(&text), Err(VapidError::Malformed), "{text}");
        }
    }
}
