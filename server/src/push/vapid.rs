//! Who this server is to a Web Push service (RFC 8292): a key of its own, and a signed word for each service.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderValue, Uri};
use serde_json::json;

use super::jwt;
use crate::checked::{CHECKSUM_BYTES, checksum};
use crate::files::{create_private, read_small};

const KEY_FILE: &str = "vapid.key";

/// How long a signed word is good for. More than a day is refused by the services.
const LASTS_MS: u64 = 12 * 60 * 60 * 1_000;

/// A word is signed anew so long before its end.
const SPARE_MS: u64 = 60 * 60 * 1_000;

/// Services whose words are remembered. To sign one takes some ten microseconds.
const REMEMBERED_MAX: usize = 1_024;

/// The server's key and what it has signed.
pub(super) struct Vapid {
    key: EcdsaKeyPair,
    public: [u8; 65],
    subject: String,
    signed: Mutex<HashMap<String, Signed>>,
}

#[derive(Clone)]
struct Signed {
    /// The header's value, marked as sensitive.
    header: HeaderValue,
    end_ms: u64,
}

impl Signed {
    /// Whether it serves still. The wall clock may have been set in either direction.
    const fn serves(&self, now_ms: u64) -> bool {
        let left_ms = self.end_ms.saturating_sub(now_ms);
        left_ms > SPARE_MS && left_ms <= LASTS_MS
    }
}

impl Vapid {
    /// The key of a data directory, made when it is not there; `subject` is whom a service may turn to.
    ///
    /// # Errors
    /// The file cannot be read or written, or is not what was written: with another key nobody could be woken who has
    /// subscribed with this one.
    pub(super) fn load(dir: &Path, subject: &str) -> Result<Self> {
        let path = dir.join(KEY_FILE);
        let said = || format!("the key for Web Push, {}", path.display());
        let found = match read_small(&path).with_context(said)? {
            Some(found) => found,
            None => {
                let made = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok().and_then(|key| {
                    let key = key.to_pkcs8v1().ok()?;
                    Some([key.as_ref(), checksum(KEY_FILE, key.as_ref()).as_slice()].concat())
                });
                create_private(&path, &made.context("the system makes no key for Web Push")?).with_context(said)?;
                tracing::info!("made a key for Web Push: a device that has subscribed with another must do so anew");
                read_small(&path).with_context(said)?.context("is gone again").with_context(said)?
            }
        };
        Self::read(&found, subject).with_context(|| {
            let what_to_do = "put it back from a backup, or remove it for a new one (devices must then subscribe anew)";
            format!("{} is damaged: {what_to_do}", path.display())
        })
    }

    fn read(file: &[u8], subject: &str) -> Option<Self> {
        let (key, sum) = file.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(KEY_FILE, key) != *sum {
            return None;
        }
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key).ok()?;
        let public = key.public_key().as_ref().try_into().ok()?;
        Some(Self { key, public, subject: subject.to_owned(), signed: Mutex::default() })
    }

    /// The public key, uncompressed.
    pub(super) const fn public(&self) -> [u8; 65] {
        self.public
    }

    /// The `Authorization` of a request to a service; `None` when nothing can be signed.
    pub(super) fn authorization(&self, endpoint: &Uri, now_ms: u64) -> Option<HeaderValue> {
        let origin = origin(endpoint)?;
        let mut signed = self.signed.lock().expect("no code panics while it holds what was signed");
        if let Some(found) = signed.get(&origin).filter(|found| found.serves(now_ms)) {
            return Some(found.header.clone());
        }
        let fresh = self.sign(&origin, now_ms)?;
        if signed.len() >= REMEMBERED_MAX {
            signed.retain(|_, found| found.serves(now_ms));
        }
        // All of them serve: then whoever comes first is signed for anew.
        if signed.len() >= REMEMBERED_MAX {
            signed.clear();
        }
        signed.insert(origin, fresh.clone());
        Some(fresh.header)
    }

    fn sign(&self, origin: &str, now_ms: u64) -> Option<Signed> {
        let end_ms = now_ms.saturating_add(LASTS_MS);
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        let claims = json!({ "aud": origin, "exp": end_ms / 1_000, "sub": self.subject });
        let token = jwt::es256(&self.key, &header, &claims).ok()?;
        let key = BASE64URL_NOPAD.encode(&self.public);
        let mut header = HeaderValue::try_from(format!("vapid t={token}, k={key}")).ok()?;
        header.set_sensitive(true);
        Some(Signed { header, end_ms })
    }
}

/// The origin of a URL (RFC 6454 §6.2): without the port that its scheme has anyway.
fn origin(uri: &Uri) -> Option<String> {
    let (scheme, host) = (uri.scheme_str()?, uri.host()?.to_ascii_lowercase());
    let usual = if scheme == "https" { 443 } else { 80 };
    match uri.port_u16() {
        Some(port) if port != usual => Some(format!("{scheme}://{host}:{port}")),
        _ => Some(format!("{scheme}://{host}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use std::os::unix::fs::PermissionsExt;

    use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    fn vapid() -> Vapid {
        Vapid::load(tempfile::tempdir().unwrap().path(), "mailto:op@example.org").unwrap()
    }

    #[test]
    fn the_word_names_the_service_the_end_and_whom_to_turn_to() {
        let vapid = vapid();
        let header = vapid.authorization(&uri("https://Push.Example.org/send/secret?x=y"), NOW_MS).unwrap();
        assert!(header.is_sensitive());
        let text = header.to_str().unwrap().strip_prefix("vapid t=").unwrap();
        let (token, key) = text.split_once(", k=").unwrap();
        assert_eq!(BASE64URL_NOPAD.decode(key.as_bytes()).unwrap(), vapid.public());
        let (header, claims) = jwt::read(token, &ECDSA_P256_SHA256_FIXED, &vapid.public()).unwrap();
        assert_eq!(header, json!({ "alg": "ES256", "typ": "JWT" }));
        let exp = NOW_MS / 1_000 + 12 * 60 * 60;
        assert_eq!(claims, json!({ "aud": "https://push.example.org", "exp": exp, "sub": "mailto:op@example.org" }));
    }

    #[test]
    fn a_word_is_signed_anew_an_hour_before_its_end_and_after_the_clock_was_set_back() {
        let (vapid, service) = (vapid(), uri("https://push.example.org/1"));
        let first = vapid.authorization(&service, NOW_MS).unwrap();
        assert_eq!(vapid.authorization(&uri("https://push.example.org/2"), NOW_MS).unwrap(), first);
        assert_ne!(vapid.authorization(&uri("https://other.example.org/1"), NOW_MS).unwrap(), first);
        let last_ms = NOW_MS + LASTS_MS - SPARE_MS - 1;
        assert_eq!(vapid.authorization(&service, last_ms).unwrap(), first);
        let second = vapid.authorization(&service, last_ms + 1).unwrap();
        assert_ne!(second, first);
        assert_ne!(vapid.authorization(&service, NOW_MS).unwrap(), second);
    }

    #[test]
    fn words_for_any_number_of_services_take_bounded_room() {
        let vapid = vapid();
        for number in 0..=REMEMBERED_MAX {
            vapid.authorization(&uri(&format!("https://{number}.example.org/")), NOW_MS).unwrap();
        }
        assert!(vapid.signed.lock().unwrap().len() <= REMEMBERED_MAX);
    }

    #[test]
    fn an_origin_has_no_path_and_no_usual_port() {
        for (endpoint, expected) in [
            ("https://a.example/x/y?z", "https://a.example"),
            ("https://a.example:443/x", "https://a.example"),
            ("https://a.example:8443/x", "https://a.example:8443"),
            ("https://[2001:db8::1]:444/x", "https://[2001:db8::1]:444"),
            ("http://127.0.0.1:80/x", "http://127.0.0.1"),
            ("http://127.0.0.1:443/x", "http://127.0.0.1:443"),
        ] {
            assert_eq!(origin(&uri(endpoint)).as_deref(), Some(expected), "{endpoint}");
        }
    }

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Vapid::load(dir.path(), "mailto:a@b").unwrap().public();
        assert_eq!(Vapid::load(dir.path(), "mailto:a@b").unwrap().public(), first);
        let mode = dir.path().join(KEY_FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_refused_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        Vapid::load(dir.path(), "mailto:a@b").unwrap();
        let path = dir.path().join(KEY_FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let error = format!("{:#}", Vapid::load(dir.path(), "mailto:a@b").err().unwrap());
            assert!(error.contains("vapid.key") && error.contains("backup"), "{error}");
        }
        std::fs::write(&path, &whole[..4]).unwrap();
        assert!(Vapid::load(dir.path(), "mailto:a@b").is_err());
    }
}
