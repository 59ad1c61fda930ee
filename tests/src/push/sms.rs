//! An SMS gateway on this machine: takes signed codes from the webhook, each id once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use http::Method;

use super::service::{Protocol, Reply, Seen, Service};
use super::tls::Authority;
use crate::wait::{SOON, eventually, now_ms};

/// How far a signature's time may be off.
const OFF_S_MAX: u64 = 300;

const PATH: &str = "/hooks/gureum";

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    /// The server.
    pub service: Service,
    key: String,
    sent: Arc<Mutex<Vec<Sms>>>,
}

/// An SMS that went out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sms {
    /// The number, as the webhook had it.
    pub to: String,
    /// The code.
    pub code: String,
    /// What the person reads.
    pub text: String,
}

impl Gateway {
    /// Starts it with a key of its own.
    #[must_use]
    pub fn start(authority: &Authority) -> Self {
        let key = HEXLOWER.encode(&rand::random::<[u8; 32]>());
        let sent = Arc::<Mutex<Vec<Sms>>>::default();
        let (signed, shared) = (hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), Arc::clone(&sent));
        let known = Mutex::new(HashSet::new());
        let protocol: Protocol = Box::new(move |seen: &Seen| match take(seen, &signed) {
            Ok((id, sms)) => {
                if known.lock().unwrap().insert(id) {
                    shared.lock().unwrap().push(sms);
                }
                Reply::new(202, "")
            }
            Err(status) => Reply::new(status, ""),
        });
        Self { service: Service::start(authority, &["h2", "http/1.1"], protocol), key, sent }
    }

    /// The webhook: what `sms` is set to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{PATH}", self.service.url())
    }

    /// Writes the key into a directory: `sms_key` takes it.
    #[must_use]
    pub fn write_key(&self, dir: &Path) -> PathBuf {
        let path = dir.join("sms.key");
        std::fs::write(&path, format!("{}\n", self.key)).unwrap();
        path
    }

    /// What went out so far, in order of time; a repetition not.
    #[must_use]
    pub fn sent(&self) -> Vec<Sms> {
        self.sent.lock().unwrap().clone()
    }

    /// The code that went to a number last; waits for the first.
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    #[must_use]
    pub fn code(&self, to: &str) -> String {
        eventually("a code", SOON, || self.sent().into_iter().rev().find(|sms| sms.to == to).map(|sms| sms.code))
    }
}

/// Verifies what the webhook has sent; else the status of the refusal.
fn take(seen: &Seen, key: &hmac::Key) -> Result<(String, Sms), u16> {
    if seen.path != PATH {
        return Err(404);
    }
    let timestamp = seen.header("gureum-timestamp");
    let signature = seen.header("gureum-signature").strip_prefix("v1=").unwrap_or_default();
    let tag = HEXLOWER.decode(signature.as_bytes()).map_err(|_| 401_u16)?;
    let signed = [timestamp.as_bytes(), b".", &seen.body].concat();
    hmac::verify(key, &signed, &tag).map_err(|_| 401_u16)?;
    let signed_s: u64 = timestamp.parse().map_err(|_| 401_u16)?;
    if signed_s.abs_diff(now_ms() / 1_000) > OFF_S_MAX {
        return Err(401);
    }
    let body = seen.json();
    let text = |name: &str| body[name].as_str().map(str::to_owned).ok_or(400_u16);
    let sms = Sms { to: text("to")?, code: text("code")?, text: text("text")? };
    let is_sms = seen.method == Method::POST
        && sms.to.starts_with('+')
        && sms.code.len() == 6
        && sms.text.contains(&sms.code)
        && body["expires_in_s"].as_u64().is_some_and(|seconds| seconds > 0);
    if is_sms { Ok((text("id")?, sms)) } else { Err(400) }
}
