//! Web Push (RFC 8030) to browsers' services and UnifiedPush distributors: encrypted (RFC 8291), with VAPID (RFC 8292).

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{Request, Uri};
use http_body_util::Full;
use web_push_native::p256::PublicKey;
use web_push_native::{Auth, encrypt};

use super::services::{COLLAPSE, KEPT_MS, payload};
use super::vapid::Vapid;
use super::{BusyOf, Outcome, WakeKind};
use crate::https::{Answer, Https};

/// Every service of Web Push: the target says which.
pub(super) struct WebPush {
    vapid: Vapid,
    https: Https,
}

impl WebPush {
    pub(super) const fn new(vapid: Vapid, https: Https) -> Self {
        Self { vapid, https }
    }

    /// The key that clients subscribe with.
    pub(super) const fn vapid_key(&self) -> [u8; 65] {
        self.vapid.public()
    }

    /// Whether an endpoint may be called, as far as its text says.
    pub(super) fn may_call(&self, endpoint: &str) -> bool {
        self.allowed(endpoint).is_some()
    }

    fn allowed(&self, endpoint: &str) -> Option<Uri> {
        endpoint.parse::<Uri>().ok().filter(|uri| self.https.allows(uri))
    }

    /// Wakes a device.
    ///
    /// Cancel safety: as [`Https::send`].
    pub(super) async fn send(
        &self,
        endpoint: &str,
        p256dh: &[u8; 65],
        auth: [u8; 16],
        visible: bool,
        kind: WakeKind,
        now_ms: u64,
    ) -> Outcome {
        let Some(uri) = self.allowed(endpoint) else { return Outcome::Refused };
        // No point of the curve: nobody can ever read what is sent to it.
        let Ok(key) = PublicKey::from_sec1_bytes(p256dh) else { return Outcome::Gone { since_ms: None } };
        let body = encrypt(payload(kind).as_bytes().to_vec(), &key, &Auth::from(auth));
        let (Some(authorization), Ok(body)) = (self.vapid.authorization(&uri, now_ms), body) else {
            return Outcome::Refused;
        };
        let request = Request::post(uri)
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("ttl", KEPT_MS / 1_000)
            .header("urgency", if visible { "high" } else { "low" })
            .header("topic", COLLAPSE)
            .body(Full::new(Bytes::from(body)));
        let Ok(request) = request else { return Outcome::Refused };
        match self.https.send(request).await {
            Ok(answer) => outcome(&answer),
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

/// What an answer means, by RFC 8030 §5 and §7.3. It comes from whomever the device has named: nothing of it is logged.
fn outcome(answer: &Answer) -> Outcome {
    match answer.status {
        200 | 201 | 202 | 204 => Outcome::Accepted,
        // Said of this very endpoint, and now.
        404 | 410 => Outcome::Gone { since_ms: None },
        401 | 403 => Outcome::Misconfigured,
        // Too many to this endpoint (RFC 8030 §8.4); or, as ntfy has it, nobody has subscribed there yet.
        429 | 507 => Outcome::Busy { retry_after_ms: answer.retry_after_ms, of: BusyOf::Device },
        500..=599 => Outcome::Busy { retry_after_ms: answer.retry_after_ms, of: BusyOf::Service },
        _ => Outcome::Refused,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::https::{Reach, Roots};
    use crate::push::Failure;

    const NOW_MS: u64 = 1_800_000_000_000;

    #[track_caller]
    fn means(status: u16, expected: Outcome) {
        let answer = Answer { status, retry_after_ms: Some(7_000), body: Bytes::new() };
        assert_eq!(outcome(&answer), expected, "{status}");
    }

    #[test]
    fn an_answer_means_what_the_rfc_says() {
        for status in [200, 201, 202, 204] {
            means(status, Outcome::Accepted);
        }
        for status in [404, 410] {
            means(status, Outcome::Gone { since_ms: None });
        }
        for status in [401, 403] {
            means(status, Outcome::Misconfigured);
        }
        for status in [429, 507] {
            means(status, Outcome::Busy { retry_after_ms: Some(7_000), of: BusyOf::Device });
        }
        for status in [500, 502, 503] {
            means(status, Outcome::Busy { retry_after_ms: Some(7_000), of: BusyOf::Service });
        }
        for status in [301, 302, 307, 400, 405, 413] {
            means(status, Outcome::Refused);
        }
    }

    fn web(reach: Reach) -> WebPush {
        let vapid = Vapid::load(tempfile::tempdir().unwrap().path(), "mailto:op@example.org").unwrap();
        WebPush::new(vapid, Https::new(&Roots::load(None).unwrap(), reach, false, TaskTracker::new()).unwrap())
    }

    fn point() -> [u8; 65] {
        let key = PrivateKey::generate(&ECDH_P256).unwrap().compute_public_key().unwrap();
        key.as_ref().try_into().unwrap()
    }

    #[tokio::test]
    async fn an_endpoint_inside_the_operators_network_is_not_called() {
        let web = web(Reach::Public);
        for endpoint in ["https://127.0.0.1/x", "https://[::1]/x", "https://10.1.2.3/x", "http://127.0.0.1/x", "no URL"]
        {
            let outcome = web.send(endpoint, &point(), [7; 16], true, WakeKind::Messages, NOW_MS).await;
            assert_eq!(outcome, Outcome::Refused, "{endpoint}");
            assert!(!web.may_call(endpoint), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_the_operators_network_is_not_called() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("https://localhost:{}/x", listener.local_addr().unwrap().port());
        let outcome = web(Reach::Public).send(&endpoint, &point(), [7; 16], true, WakeKind::Messages, NOW_MS).await;
        assert_eq!(outcome, Outcome::Failed(Failure::Connect));
        let knocked = listener.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(knocked, Err(std::io::ErrorKind::WouldBlock), "nobody has knocked");
    }

    #[tokio::test]
    async fn a_target_whose_key_is_no_point_of_the_curve_is_gone() {
        let web = web(Reach::Anywhere);
        assert!(web.may_call("https://127.0.0.1/x"));
        let outcome = web.send("https://localhost/x", &[4; 65], [7; 16], true, WakeKind::Messages, NOW_MS).await;
        assert_eq!(outcome, Outcome::Gone { since_ms: None });
    }

    #[test]
    fn what_is_encrypted_has_one_length_for_both_kinds() {
        let key = PublicKey::from_sec1_bytes(&point()).unwrap();
        let length = |kind| encrypt(payload(kind).as_bytes().to_vec(), &key, &Auth::from([7; 16])).unwrap().len();
        assert_eq!(length(WakeKind::Messages), length(WakeKind::Expiring));
    }
}
