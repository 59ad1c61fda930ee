//! The clients of APNs, FCM and Web Push against services on this machine that speak the real protocols over TLS, when
//! they are well, and in every way in which they fail.

use std::time::Duration;

use gureum_proto::{PushAddress, PushService, PushTarget};
use gureum_server::config::PushSettings;
use gureum_server::push::{BusyOf, Failure, Outcome, Push, Services, WakeKind};
use gureum_tests::push::{Act, Apns, Authority, Distributor, Fcm, Reply, Service, apns, fcm};
use gureum_tests::wait::{SOON, now_ms};
use http::Version;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

const MINUTE_MS: u64 = 60_000;
/// More than stand to one service after requests that follow one another.
const CONNECTIONS_MAX: usize = 4;
const DEVICE_TOKEN: [u8; 32] = [0xa7; 32];

/// A server's directory, and who vouches for the services.
struct Ground {
    dir: TempDir,
    authority: Authority,
}

impl Ground {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), authority: Authority::new() }
    }

    /// Settings by which nothing is offered yet.
    fn settings(&self) -> PushSettings {
        PushSettings {
            push_delay: Duration::from_secs(5),
            push_close_delay: Duration::from_secs(60),
            push_interval: Duration::from_secs(30),
            push_roots: Some(self.authority.write(self.dir.path())),
            push_private_endpoints: true,
            web_push: false,
            vapid_subject: "mailto:operator@example.org".to_owned(),
            apns_key: None,
            apns_key_id: None,
            apns_team_id: None,
            apns_topic: None,
            apns_endpoint: "https://api.push.apple.com".to_owned(),
            apns_sandbox_endpoint: "https://api.sandbox.push.apple.com".to_owned(),
            fcm_account: None,
            fcm_endpoint: "https://fcm.googleapis.com".to_owned(),
        }
    }

    fn apns(&self, apns: &Apns) -> PushSettings {
        PushSettings {
            apns_key: Some(apns.write_key(self.dir.path())),
            apns_key_id: Some(apns::KEY_ID.to_owned()),
            apns_team_id: Some(apns::TEAM_ID.to_owned()),
            apns_topic: Some(apns::TOPIC.to_owned()),
            apns_endpoint: apns.service.url(),
            ..self.settings()
        }
    }

    fn fcm(&self, fcm: &Fcm) -> PushSettings {
        PushSettings {
            fcm_account: Some(fcm.write_account(self.dir.path())),
            fcm_endpoint: fcm.service.url(),
            ..self.settings()
        }
    }

    fn web(&self) -> PushSettings {
        PushSettings { web_push: true, ..self.settings() }
    }

    fn open(&self, settings: &PushSettings) -> Services {
        Services::open(settings, self.dir.path(), &TaskTracker::new()).unwrap()
    }
}

fn apns_target(visible: bool) -> PushTarget {
    let token = DEVICE_TOKEN.to_vec().into();
    PushTarget { address: PushAddress::Apns { token, sandbox: false }, visible }
}

fn fcm_target(visible: bool) -> PushTarget {
    PushTarget { address: PushAddress::Fcm { token: "fcm:device-token".to_owned() }, visible }
}

/// Sends as the server does, which gives up by itself.
async fn send_at(services: &Services, target: &PushTarget, limit: Duration, now_ms: u64) -> Outcome {
    let sent = tokio::time::timeout(limit, services.send(target, WakeKind::Messages, now_ms)).await;
    sent.unwrap_or(Outcome::Failed(Failure::Timeout))
}

async fn send(services: &Services, target: &PushTarget) -> Outcome {
    send_at(services, target, SOON, now_ms()).await
}

/// One failure after the other; after each the service is well, and takes the next wake-up.
async fn fails_and_recovers(services: &Services, target: &PushTarget, service: &Service) {
    assert_eq!(send(services, target).await, Outcome::Accepted);
    for (act, expected) in [
        (Act::Reset, Failure::Reset),
        (Act::Hang, Failure::Timeout),
        (Act::WrongCertificate, Failure::Tls),
        (Reply::new(200, "x".repeat(20 * 1_024)).into(), Failure::Protocol),
    ] {
        service.next([act.clone()]);
        let limit = if matches!(act, Act::Hang) { Duration::from_millis(300) } else { SOON };
        let mut outcome = send_at(services, target, limit, now_ms()).await;
        // Connections that stand are of the right certificate, and go first.
        for _ in 0..CONNECTIONS_MAX {
            if !matches!(act, Act::WrongCertificate) || outcome != Outcome::Failed(Failure::Reset) {
                break;
            }
            outcome = send(services, target).await;
        }
        assert_eq!(outcome, Outcome::Failed(expected), "{act:?}");
        assert_eq!(send(services, target).await, Outcome::Accepted, "after {act:?}");
    }
}

/// Every answer, and what it has to be taken for.
async fn answers(services: &Services, target: &PushTarget, service: &Service, table: Vec<(Reply, Outcome)>) {
    for (reply, expected) in table {
        service.next([reply.clone()]);
        assert_eq!(send(services, target).await, expected, "{reply:?}");
    }
}

fn busy(retry_after_ms: Option<u64>, of: BusyOf) -> Outcome {
    Outcome::Busy { retry_after_ms, of }
}

#[tokio::test]
async fn apns_is_spoken_over_http2_with_all_that_apple_asks_for() {
    let ground = Ground::new();
    let apns = Apns::start(&ground.authority);
    let services = ground.open(&ground.apns(&apns));
    assert!(services.offers(PushService::Apns));
    assert!(!services.offers(PushService::Fcm) && !services.offers(PushService::WebPush));
    assert_eq!(send(&services, &apns_target(true)).await, Outcome::Accepted);
    assert_eq!(send(&services, &apns_target(false)).await, Outcome::Accepted);
    let seen = apns.service.seen();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        assert_eq!(seen.version, Version::HTTP_2);
        assert_eq!(seen.path, format!("/3/device/{}", "a7".repeat(32)));
        assert_eq!(seen.header("apns-collapse-id"), "gureum");
        let expires_s: u64 = seen.header("apns-expiration").parse().unwrap();
        assert!((86_340..=86_400).contains(&(expires_s - now_ms() / 1_000)), "{expires_s}");
        assert_eq!(seen.json()["gureum"], "messages");
    }
    assert_eq!((seen[0].header("apns-push-type"), seen[0].header("apns-priority")), ("alert", "10"));
    assert_eq!((seen[1].header("apns-push-type"), seen[1].header("apns-priority")), ("background", "5"));
    assert_eq!(apns.service.connections(), 1, "one connection carries everything");
}

#[tokio::test]
async fn a_development_build_is_woken_at_the_sandbox() {
    let ground = Ground::new();
    let (apns, sandbox) = (Apns::start(&ground.authority), Apns::start(&ground.authority));
    // The key of one account serves in both environments; here each has a key of its own.
    let settings = PushSettings { apns_sandbox_endpoint: sandbox.service.url(), ..ground.apns(&sandbox) };
    let services = ground.open(&PushSettings { apns_endpoint: apns.service.url(), ..settings });
    let token = DEVICE_TOKEN.to_vec().into();
    let target = PushTarget { address: PushAddress::Apns { token, sandbox: true }, visible: true };
    assert_eq!(send(&services, &target).await, Outcome::Accepted);
    assert_eq!((apns.service.accepted(), sandbox.service.accepted()), (0, 1));
}

#[tokio::test]
async fn apns_says_what_is_wrong_and_is_understood() {
    let ground = Ground::new();
    let apns = Apns::start(&ground.authority);
    let services = ground.open(&ground.apns(&apns));
    let table = vec![
        (apns::unregistered(1_700_000_000_123), Outcome::Gone { since_ms: Some(1_700_000_000_123) }),
        (apns::refusal(400, "BadDeviceToken"), Outcome::Gone { since_ms: None }),
        (apns::refusal(400, "DeviceTokenNotForTopic"), Outcome::Gone { since_ms: None }),
        (apns::refusal(403, "InvalidProviderToken"), Outcome::Misconfigured),
        (apns::refusal(429, "TooManyRequests").with("retry-after", "7"), busy(Some(7_000), BusyOf::Device)),
        (apns::refusal(429, "TooManyProviderTokenUpdates"), busy(None, BusyOf::Service)),
        (apns::refusal(500, "InternalServerError"), busy(None, BusyOf::Service)),
        (apns::refusal(503, "Shutdown").with("retry-after", "30"), busy(Some(30_000), BusyOf::Service)),
        (apns::refusal(400, "BadCollapseId"), Outcome::Refused),
    ];
    answers(&services, &apns_target(true), &apns.service, table).await;
    assert_eq!(send(&services, &apns_target(true)).await, Outcome::Accepted);
}

#[tokio::test]
async fn apns_may_fail_in_every_way_and_come_back() {
    let ground = Ground::new();
    let apns = Apns::start(&ground.authority);
    let services = ground.open(&ground.apns(&apns));
    fails_and_recovers(&services, &apns_target(true), &apns.service).await;
}

#[tokio::test]
async fn an_expired_provider_token_is_renewed_once_and_not_too_often() {
    let ground = Ground::new();
    let apns = Apns::start(&ground.authority);
    let services = ground.open(&ground.apns(&apns));
    let (target, now_ms) = (apns_target(true), now_ms());
    assert_eq!(send_at(&services, &target, SOON, now_ms - 30 * MINUTE_MS).await, Outcome::Accepted);
    apns.service.next([apns::expired_token()]);
    assert_eq!(send_at(&services, &target, SOON, now_ms).await, Outcome::Accepted);
    assert_eq!(apns.service.statuses(), [Some(200), Some(403), Some(200)]);
    let seen = apns.service.seen();
    assert_eq!(seen[0].header("authorization"), seen[1].header("authorization"));
    assert_ne!(seen[1].header("authorization"), seen[2].header("authorization"));
    // A minute later it is too early for another.
    apns.service.next([apns::expired_token()]);
    assert_eq!(send_at(&services, &target, SOON, now_ms + MINUTE_MS).await, Outcome::Misconfigured);
    assert_eq!(apns.service.seen().len(), 4);
}

#[tokio::test]
async fn a_key_that_apns_does_not_know_is_the_operators_matter() {
    let ground = Ground::new();
    let (apns, other) = (Apns::start(&ground.authority), Apns::start(&ground.authority));
    let services = ground.open(&PushSettings { apns_endpoint: apns.service.url(), ..ground.apns(&other) });
    assert_eq!(send(&services, &apns_target(true)).await, Outcome::Misconfigured);
    assert_eq!(apns.service.statuses(), [Some(403)]);
}

#[tokio::test]
async fn a_service_that_nobody_vouches_for_is_told_nothing() {
    let ground = Ground::new();
    let apns = Apns::start(&ground.authority);
    let services = ground.open(&PushSettings { push_roots: None, ..ground.apns(&apns) });
    assert_eq!(send(&services, &apns_target(true)).await, Outcome::Failed(Failure::Tls));
    assert!(apns.service.seen().is_empty());
}

#[tokio::test]
async fn fcm_gets_an_access_token_once_and_messages_with_it() {
    let ground = Ground::new();
    let fcm = Fcm::start(&ground.authority);
    let services = ground.open(&ground.fcm(&fcm));
    assert!(services.offers(PushService::Fcm));
    let (visible, silent) = (fcm_target(true), fcm_target(false));
    let sent = tokio::join!(send(&services, &visible), send(&services, &visible), send(&services, &silent));
    assert_eq!(sent, (Outcome::Accepted, Outcome::Accepted, Outcome::Accepted));
    assert_eq!(fcm.token_requests(), 1);
    let messages = fcm.messages();
    assert_eq!(messages.len(), 3);
    let priorities = |priority: &str| {
        messages.iter().filter(|seen| seen.json()["message"]["android"]["priority"] == priority).count()
    };
    assert_eq!((priorities("HIGH"), priorities("NORMAL")), (2, 1));
    for seen in &messages {
        assert_eq!(seen.json()["message"]["token"], "fcm:device-token");
        assert_eq!(seen.json()["message"]["data"], serde_json::json!({ "gureum": "messages" }));
    }
}

#[tokio::test]
async fn fcm_says_what_is_wrong_and_is_understood() {
    let ground = Ground::new();
    let fcm = Fcm::start(&ground.authority);
    let services = ground.open(&ground.fcm(&fcm));
    let target = fcm_target(true);
    assert_eq!(send(&services, &target).await, Outcome::Accepted);
    let table = vec![
        (fcm::refusal(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), Outcome::Gone { since_ms: None }),
        (fcm::refusal(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), Outcome::Gone { since_ms: None }),
        (fcm::refusal(403, "PERMISSION_DENIED", ""), Outcome::Misconfigured),
        (fcm::refusal(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), busy(Some(60_000), BusyOf::Service)),
        (
            fcm::refusal(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED").with("retry-after", "300"),
            busy(Some(300_000), BusyOf::Service),
        ),
        (fcm::refusal(500, "INTERNAL", "INTERNAL"), busy(None, BusyOf::Service)),
        (fcm::refusal(503, "UNAVAILABLE", "UNAVAILABLE").with("retry-after", "5"), busy(Some(5_000), BusyOf::Service)),
    ];
    answers(&services, &target, &fcm.service, table).await;
    let now_ms = now_ms();
    fcm.service.next([fcm::unregistered()]);
    let gone = send_at(&services, &target, SOON, now_ms).await;
    assert_eq!(gone, Outcome::Gone { since_ms: Some(now_ms) });
    assert_eq!(fcm.token_requests(), 1);
}

#[tokio::test]
async fn fcm_may_fail_in_every_way_and_come_back() {
    let ground = Ground::new();
    let fcm = Fcm::start(&ground.authority);
    let services = ground.open(&ground.fcm(&fcm));
    fails_and_recovers(&services, &fcm_target(true), &fcm.service).await;
}

#[tokio::test]
async fn an_expired_access_token_is_fetched_anew_once() {
    let ground = Ground::new();
    let fcm = Fcm::start(&ground.authority);
    let services = ground.open(&ground.fcm(&fcm));
    let target = fcm_target(true);
    assert_eq!(send(&services, &target).await, Outcome::Accepted);
    fcm.expire_tokens();
    assert_eq!(send(&services, &target).await, Outcome::Accepted);
    assert_eq!(fcm.token_requests(), 2);
    // A fresh one is refused as well: then it is not the token.
    let refused = Act::from(fcm::refusal(401, "UNAUTHENTICATED", ""));
    fcm.service.next([refused.clone(), Act::Accept, refused]);
    assert_eq!(send(&services, &target).await, Outcome::Misconfigured);
    assert_eq!(fcm.token_requests(), 3);
}

#[tokio::test]
async fn an_access_token_is_fetched_anew_before_its_end() {
    let ground = Ground::new();
    let fcm = Fcm::start(&ground.authority);
    let services = ground.open(&ground.fcm(&fcm));
    let (target, now_ms) = (fcm_target(true), now_ms());
    assert_eq!(send_at(&services, &target, SOON, now_ms - 59 * MINUTE_MS).await, Outcome::Accepted);
    assert_eq!(send_at(&services, &target, SOON, now_ms).await, Outcome::Accepted);
    assert_eq!(fcm.token_requests(), 2);
}

#[tokio::test]
async fn a_token_endpoint_that_fails_is_told_from_one_that_refuses() {
    let ground = Ground::new();
    let fcm = Fcm::start(&ground.authority);
    let services = ground.open(&ground.fcm(&fcm));
    let target = fcm_target(true);
    let table = vec![
        (Reply::new(400, r#"{"error":"invalid_grant"}"#), Outcome::Misconfigured),
        (Reply::new(503, "").with("retry-after", "9"), busy(Some(9_000), BusyOf::Service)),
        (Reply::new(200, "{}"), Outcome::Failed(Failure::Protocol)),
    ];
    answers(&services, &target, &fcm.service, table).await;
    fcm.service.next([Act::Reset]);
    assert_eq!(send(&services, &target).await, Outcome::Failed(Failure::Reset));
    fcm.service.next([Act::Hang]);
    let hung = send_at(&services, &target, Duration::from_millis(300), now_ms()).await;
    assert_eq!(hung, Outcome::Failed(Failure::Timeout));
    assert!(fcm.messages().is_empty());
    assert_eq!(send(&services, &target).await, Outcome::Accepted);
}

#[tokio::test]
async fn a_device_decrypts_what_web_push_brings_and_it_says_one_word() {
    let ground = Ground::new();
    let distributor = Distributor::start(&ground.authority);
    let services = ground.open(&ground.web());
    assert!(services.offers(PushService::WebPush));
    let (first, second) = (distributor.subscribe(), distributor.subscribe());
    assert_eq!(send(&services, &first.target(true)).await, Outcome::Accepted);
    let expiring = services.send(&second.target(false), WakeKind::Expiring, now_ms()).await;
    assert_eq!(expiring, Outcome::Accepted);
    assert_eq!(distributor.wakes_of(&first), ["messages"]);
    assert_eq!(distributor.wakes_of(&second), ["expiring"]);
    let seen = distributor.service.seen();
    assert_eq!(seen[0].body.len(), seen[1].body.len(), "the length tells nothing");
    assert_ne!(seen[0].body, seen[1].body);
    assert_eq!((seen[0].header("urgency"), seen[1].header("urgency")), ("high", "low"));
    for seen in &seen {
        assert_eq!((seen.header("ttl"), seen.header("topic")), ("86400", "gureum"));
    }
    assert_eq!(seen[0].header("authorization"), seen[1].header("authorization"), "signed once for a service");
}

#[tokio::test]
async fn a_distributor_that_speaks_http_1_1_alone_serves_as_well() {
    let ground = Ground::new();
    let distributor = Distributor::start_http1(&ground.authority);
    let services = ground.open(&ground.web());
    let subscription = distributor.subscribe();
    fails_and_recovers(&services, &subscription.target(true), &distributor.service).await;
    assert!(distributor.wakes_of(&subscription).iter().all(|text| text == "messages"));
    assert!(distributor.service.seen().iter().all(|seen| seen.version == Version::HTTP_11));
}

#[tokio::test]
async fn web_push_says_what_is_wrong_and_is_understood() {
    let ground = Ground::new();
    let distributor = Distributor::start(&ground.authority);
    let services = ground.open(&ground.web());
    let target = distributor.subscribe().target(true);
    let table = vec![
        (Reply::new(429, "").with("retry-after", "11"), busy(Some(11_000), BusyOf::Device)),
        (Reply::new(507, ""), busy(None, BusyOf::Device)),
        (Reply::new(500, ""), busy(None, BusyOf::Service)),
        (Reply::new(503, "").with("retry-after", "2"), busy(Some(2_000), BusyOf::Service)),
        (Reply::new(401, ""), Outcome::Misconfigured),
        (Reply::new(403, ""), Outcome::Misconfigured),
        (Reply::new(400, ""), Outcome::Refused),
        (Reply::new(413, ""), Outcome::Refused),
        (Reply::new(307, "").with("location", format!("{}/elsewhere", distributor.service.url())), Outcome::Refused),
        (Reply::new(202, ""), Outcome::Accepted),
    ];
    let requests = table.len();
    answers(&services, &target, &distributor.service, table).await;
    assert_eq!(distributor.service.seen().len(), requests, "no redirect is followed");
}

#[tokio::test]
async fn a_wait_until_a_date_is_counted_from_the_date_of_the_answer() {
    let ground = Ground::new();
    let distributor = Distributor::start(&ground.authority);
    let services = ground.open(&ground.web());
    let answer = Reply::new(503, "")
        .with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .with("retry-after", "Sun, 06 Nov 1994 08:51:37 GMT");
    distributor.service.next([answer]);
    let outcome = send(&services, &distributor.subscribe().target(true)).await;
    assert_eq!(outcome, busy(Some(120_000), BusyOf::Service));
}

#[tokio::test]
async fn a_subscription_that_has_ended_is_gone_and_others_are_not() {
    let ground = Ground::new();
    let distributor = Distributor::start(&ground.authority);
    let services = ground.open(&ground.web());
    let (ended, other) = (distributor.subscribe(), distributor.subscribe());
    distributor.unsubscribe(&ended);
    assert_eq!(send(&services, &ended.target(true)).await, Outcome::Gone { since_ms: None });
    assert_eq!(distributor.service.statuses(), [Some(410)]);
    assert_eq!(send(&services, &other.target(true)).await, Outcome::Accepted);
}

#[tokio::test]
async fn web_push_may_fail_in_every_way_and_come_back() {
    let ground = Ground::new();
    let distributor = Distributor::start(&ground.authority);
    let services = ground.open(&ground.web());
    fails_and_recovers(&services, &distributor.subscribe().target(true), &distributor.service).await;
}

#[tokio::test]
async fn the_key_for_web_push_stays_across_restarts() {
    let ground = Ground::new();
    let key = ground.open(&ground.web()).vapid_key();
    assert!(key.is_some());
    assert_eq!(ground.open(&ground.web()).vapid_key(), key);
    assert_eq!(ground.open(&ground.settings()).vapid_key(), None);
}

#[tokio::test]
async fn a_device_cannot_make_the_server_knock_inside_the_operators_network() {
    let ground = Ground::new();
    let distributor = Distributor::start(&ground.authority);
    let services = ground.open(&PushSettings { push_private_endpoints: false, ..ground.web() });
    let mut subscription = distributor.subscribe();
    assert_eq!(send(&services, &subscription.target(true)).await, Outcome::Refused);
    // By a name that leads there, it shows only when it is looked up.
    subscription.endpoint = subscription.endpoint.replace("127.0.0.1", "localhost");
    assert_eq!(send(&services, &subscription.target(true)).await, Outcome::Failed(Failure::Connect));
    assert_eq!(distributor.service.connections(), 0);
}

#[tokio::test]
async fn a_target_of_a_service_that_is_not_set_up_is_kept() {
    let ground = Ground::new();
    let services = ground.open(&ground.settings());
    for target in [apns_target(true), fcm_target(true)] {
        assert_eq!(send(&services, &target).await, Outcome::Misconfigured);
    }
}

#[test]
fn settings_that_cannot_be_used_are_said_at_the_start() {
    let ground = Ground::new();
    let nowhere = Some(ground.dir.path().join("nowhere"));
    let apns = Apns::start(&ground.authority);
    for (settings, expected) in [
        (PushSettings { push_roots: nowhere.clone(), ..ground.settings() }, "push_roots"),
        (PushSettings { apns_key: nowhere.clone(), ..ground.apns(&apns) }, "apns_key"),
        (PushSettings { fcm_account: nowhere, ..ground.settings() }, "fcm_account"),
    ] {
        let error = Services::open(&settings, ground.dir.path(), &TaskTracker::new()).err().unwrap();
        let said = format!("{error:#}");
        assert!(said.contains(expected) && said.contains("nowhere") && said.contains("not there"), "{said}");
    }
}
