//! Where a device is woken while it is away: set, removed, and what this server offers for it.

use std::sync::Arc;

use gureum_proto::{Code, PushAddress, PushOffer, PushService, PushTarget, Refusal, Response};
use web_push_native::p256;

use super::{Answer, Requests};
use crate::limits::PUSH_DEVICES_MAX;
use crate::push::PushPart;
use crate::router::{Change, Changed, PushTargetPlan};
use crate::session::Authenticated;
use crate::store::record::PushTargetRecord;

impl Requests {
    pub(super) async fn set_push_target(self: &Arc<Self>, from: Authenticated, target: PushTarget) -> Answer {
        let push = self.push_part()?;
        if !push.services.offers(target.service()) {
            return Err(Refusal::new(Code::PushUnavailable));
        }
        self.quotas.decision(from.account())?;
        check_key(&target)?;
        if !push.services.may_call(&target) {
            let detail = "the endpoint is an address inside a private network, which this server does not call unless its \
                          operator says `push_private_endpoints = \"allow\"`";
            return Err(Refusal::with_detail(Code::PushTargetInvalid, detail));
        }
        let has_room = push.feed.devices() < PUSH_DEVICES_MAX || push.feed.has(from.account(), from.device());
        if !has_room {
            let detail = "this server wakes no more devices: it has reached its bound";
            return Err(Refusal::with_detail(Code::PushUnavailable, detail));
        }
        let record = sealed(push, from, &target, self.clock.now_ms())?;
        // Whoever wakes devices learns of it from the writer, in the order in which targets come and go.
        self.made(Change::SetPushTarget(PushTargetPlan { from, record })).await
    }

    pub(super) async fn remove_push_target(self: &Arc<Self>, from: Authenticated) -> Answer {
        self.quotas.decision(from.account())?;
        let change = Change::DropPushTarget { account: from.account(), device: from.device(), generation: None };
        self.made(change).await
    }

    pub(super) async fn read_push(self: &Arc<Self>, from: Authenticated) -> Answer {
        let (services, vapid_key) = match &self.push {
            Some(push) => {
                let offered = PushService::ALL.into_iter().filter(|service| push.services.offers(*service));
                (offered.collect(), push.vapid_key)
            }
            None => (Vec::new(), None),
        };
        self.blocking(move |this| {
            let target = this.directory.push_target(from.account(), from.device())?;
            let target = target.map(|target| target.digest);
            Ok(Response::Push(PushOffer { services, vapid_key, target }))
        })
        .await
    }

    fn push_part(&self) -> Result<&PushPart, Refusal> {
        self.push.as_deref().ok_or_else(|| Refusal::new(Code::PushUnavailable))
    }

    /// Makes a change that has no other answer than that it was made.
    async fn made(&self, change: Change) -> Answer {
        match self.router.change(change).await? {
            Changed::Done => Ok(Response::Done),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }
}

/// Refuses a key that nothing can be encrypted to: else every wake-up would fail, and nobody would tell the device.
fn check_key(target: &PushTarget) -> Result<(), Refusal> {
    match &target.address {
        PushAddress::WebPush { p256dh, .. } if p256::PublicKey::from_sec1_bytes(p256dh).is_err() => {
            Err(Refusal::with_detail(Code::PushTargetInvalid, "p256dh is no point of P-256"))
        }
        _ => Ok(()),
    }
}

/// The target as it is stored.
fn sealed(push: &PushPart, from: Authenticated, target: &PushTarget, now_ms: u64) -> Result<PushTargetRecord, Refusal> {
    let internal = |_| Refusal::new(Code::Internal);
    let (nonce, sealed) = push.tokens.seal(from.account(), from.device(), target).map_err(internal)?;
    let mut generation = [0; 8];
    getrandom::fill(&mut generation).map_err(|_| Refusal::new(Code::Internal))?;
    let host = host(&target.address, |origin| push.tokens.host(origin));
    Ok(PushTargetRecord {
        digest: target.digest(),
        service: target.service(),
        host,
        visible: target.visible,
        set_ms: now_ms,
        generation: u64::from_be_bytes(generation),
        nonce,
        sealed,
    })
}

/// What a target fails together with, as its record has it; `hash` is what stands for an origin.
fn host(address: &PushAddress, hash: impl FnOnce(&str) -> u64) -> u64 {
    match address {
        PushAddress::WebPush { endpoint, .. } => hash(&origin(endpoint)),
        PushAddress::Apns { sandbox: true, .. } => PushTargetRecord::SANDBOX,
        PushAddress::Apns { sandbox: false, .. } | PushAddress::Fcm { .. } => 0,
    }
}

/// Scheme, host and port of an endpoint, in one spelling: what fails together, and is spared together.
fn origin(endpoint: &str) -> String {
    let host = endpoint.find("://").map_or(0, |at| at + 3);
    let end = endpoint.get(host..).and_then(|rest| rest.find(['/', '?'])).map_or(endpoint.len(), |at| host + at);
    let origin = endpoint.get(..end).unwrap_or(endpoint).to_ascii_lowercase();
    let usual_port = if origin.starts_with("https://") { ":443" } else { ":80" };
    let without_port = origin.strip_suffix(usual_port).unwrap_or(&origin);
    without_port.strip_suffix('.').unwrap_or(without_port).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::{Route, route};

    #[track_caller]
    fn check(endpoint: &str, expected: &str) {
        assert_eq!(origin(endpoint), expected);
    }

    #[test]
    fn what_fails_together_is_what_stands_before_the_path() {
        check("https://push.example.org/wpush/v2/abc", "https://push.example.org");
        check("https://push.example.org:8443/?token=https://a/", "https://push.example.org:8443");
        check("https://push.example.org?token=a", "https://push.example.org");
        check("https://push.example.org", "https://push.example.org");
        check("http://[::1]:8080/a", "http://[::1]:8080");
    }

    #[test]
    fn a_host_is_one_however_it_is_written() {
        for endpoint in
            ["https://Push.Example.ORG/a", "https://push.example.org:443", "https://push.example.org.:443/a"]
        {
            check(endpoint, "https://push.example.org");
        }
        check("http://[::1]:80/a", "http://[::1]");
        check("https://[2001:db8::443]/a", "https://[2001:db8::443]");
        check("https://push.example.org:4443/a", "https://push.example.org:4443");
    }

    #[test]
    fn tokens_of_apps_under_development_go_through_a_line_of_their_own() {
        for (sandbox, expected) in [(true, Route::ApnsSandbox), (false, Route::Apns)] {
            let address = PushAddress::Apns { token: vec![1; 32].into(), sandbox };
            let host = host(&address, |_| 0);
            let target = PushTarget { address, visible: true };
            let record = PushTargetRecord {
                digest: target.digest(),
                service: target.service(),
                host,
                visible: true,
                set_ms: 1,
                generation: 2,
                nonce: [0; 12],
                sealed: bytes::Bytes::new(),
            };
            assert_eq!(route(&record), expected);
        }
    }

    fn web(p256dh: [u8; 65]) -> PushTarget {
        let address = PushAddress::WebPush { endpoint: "https://push.example.org/a".into(), p256dh, auth: [5; 16] };
        PushTarget { address, visible: true }
    }

    #[test]
    fn a_key_that_nothing_can_be_encrypted_to_is_refused_at_once() {
        let refused = check_key(&web([4; 65])).map_err(|refusal| refusal.code);
        assert_eq!(refused, Err(Code::PushTargetInvalid));
        let generator = "046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296\
                         4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5";
        let bytes = data_encoding::HEXUPPER.decode(generator.as_bytes()).expect("it is hexadecimal");
        let bytes = bytes.try_into().expect("an uncompressed point has 65 bytes");
        assert_eq!(check_key(&web(bytes)).map_err(|refusal| refusal.code), Ok(()));
        let fcm = PushTarget { address: PushAddress::Fcm { token: "token".into() }, visible: false };
        assert_eq!(check_key(&fcm).map_err(|refusal| refusal.code), Ok(()));
    }
}
