//! Codes against a gateway that answers, refuses, is busy, hangs and goes away.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::sync::Mutex;

use super::*;
use crate::https::local::{Act, Heard, Local, say};
use crate::time::ManualClock;

const WALL_MS: u64 = 1_800_000_000_123;
const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Seconds become milliseconds, and a gateway answers or does not within half a second.
const HASTE: Patience = Patience {
    answer: Duration::from_millis(500),
    pauses: [Duration::from_millis(1), Duration::from_millis(4)],
    life: Duration::from_secs(60),
};

fn number() -> E164 {
    crate::numbers::normalise(&"+82 10-1234-5678".parse().unwrap()).ok().unwrap()
}

fn job() -> Job {
    Job { to: number(), code: "012345".parse().unwrap(), queued: Instant::now() }
}

fn hook(local: &Local, patience: Patience) -> Webhook {
    let https = Https::new(&Roots::load(None).unwrap(), Reach::Anywhere, false, TaskTracker::new()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    let places = Semaphore::new(SMS_IN_FLIGHT_MAX);
    Webhook { https, uri: local.url().parse().unwrap(), key, patience, places }
}

async fn deliver(acts: Vec<Act>, patience: Patience) -> (Delivery, Vec<Heard>) {
    let local = Local::start(acts).await;
    let delivery = hook(&local, patience).deliver(&job(), &ManualClock::at(WALL_MS)).await;
    (delivery, local.heard())
}

/// As a gateway checks it.
#[track_caller]
fn verify(heard: &Heard) {
    let timestamp = heard.header("gureum-timestamp");
    let signature = heard.header("gureum-signature").strip_prefix("v1=").unwrap();
    let signed = [timestamp.as_bytes(), b".", &heard.body].concat();
    let tag = HEXLOWER.decode(signature.as_bytes()).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &signed, &tag).unwrap();
}

#[tokio::test]
async fn a_code_goes_out_signed_with_its_number_and_an_id() {
    let (delivery, heard) = deliver(vec![say(202, &[], "queued")], HASTE).await;
    assert_eq!(delivery, Delivery::Delivered);
    assert_eq!(heard.len(), 1);
    verify(&heard[0]);
    assert_eq!(heard[0].header("gureum-timestamp"), "1800000000");
    assert_eq!(heard[0].header("content-type"), "application/json");
    let body: serde_json::Value = serde_json::from_slice(&heard[0].body).unwrap();
    assert_eq!(body["to"], "+821012345678");
    assert_eq!(body["code"], "012345");
    assert_eq!(body["expires_in_s"], 300);
    assert!(body["text"].as_str().unwrap().contains("012345"));
    assert!(body["id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
}

#[tokio::test]
async fn a_busy_gateway_is_asked_again_with_the_same_id() {
    let (delivery, heard) = deliver(vec![say(503, &[], ""), Act::Reset, say(200, &[], "")], HASTE).await;
    assert_eq!(delivery, Delivery::Delivered);
    assert_eq!(heard.len(), 3);
    assert!(heard.iter().all(|again| again.body == heard[0].body));
    heard.iter().for_each(verify);
}

#[tokio::test]
async fn after_three_tries_a_code_is_given_up() {
    let (delivery, heard) = deliver(vec![say(500, &[], ""); 4], HASTE).await;
    assert_eq!(delivery, Delivery::Failed);
    assert_eq!(heard.len(), 3);
}

#[tokio::test]
async fn a_refusal_is_final() {
    for status in [301, 400, 401, 404, 422] {
        let (delivery, heard) = deliver(vec![say(status, &[], "")], HASTE).await;
        assert_eq!((delivery, heard.len()), (Delivery::Refused, 1), "{status}");
    }
}

#[tokio::test]
async fn a_gateway_that_hangs_is_asked_again() {
    let (delivery, heard) = deliver(vec![Act::Hang, say(200, &[], "")], HASTE).await;
    assert_eq!((delivery, heard.len()), (Delivery::Delivered, 2));
}

#[tokio::test]
async fn a_gateway_that_wants_to_wait_is_waited_for() {
    let started = Instant::now();
    let (delivery, heard) = deliver(vec![say(429, &[("Retry-After", "1")], ""), say(200, &[], "")], HASTE).await;
    assert_eq!((delivery, heard.len()), (Delivery::Delivered, 2));
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn nobody_waits_longer_than_the_code_lives() {
    let (delivery, heard) = deliver(vec![say(429, &[("Retry-After", "60")], "")], HASTE).await;
    assert_eq!((delivery, heard.len()), (Delivery::Failed, 1));
}

#[tokio::test]
async fn a_code_that_has_expired_in_the_queue_is_not_sent() {
    let (delivery, heard) = deliver(Vec::new(), Patience { life: Duration::ZERO, ..HASTE }).await;
    assert_eq!((delivery, heard.len()), (Delivery::Failed, 0));
}

#[tokio::test]
async fn codes_that_wait_take_bounded_room() {
    let local = Local::start([]).await;
    let (sms, worker) = webhook(hook(&local, HASTE));
    for _ in 0..SMS_QUEUE_MAX {
        sms.queue(number(), "012345".parse().unwrap()).unwrap();
    }
    let refusal = sms.queue(number(), "012345".parse().unwrap()).unwrap_err();
    assert_eq!((refusal.code, refusal.retry_after_ms), (Code::RateLimited, SMS_FULL_RETRY_MS));
    drop(worker);
    let refusal = sms.queue(number(), "012345".parse().unwrap()).unwrap_err();
    assert_eq!(refusal.code, Code::Unavailable);
}

#[tokio::test]
async fn the_worker_delivers_all_and_says_what_became_of_each() {
    let local = Local::start([say(200, &[], ""), say(400, &[], ""), say(200, &[], "")]).await;
    let (sms, worker) = webhook(hook(&local, HASTE));
    for _ in 0..3 {
        sms.queue(number(), "012345".parse().unwrap()).unwrap();
    }
    drop(sms);
    let ended = Mutex::new(Vec::new());
    let note = |delivery| ended.lock().unwrap().push(delivery);
    worker.serve(Arc::new(ManualClock::at(WALL_MS)), note, CancellationToken::new()).await;
    let ended = ended.into_inner().unwrap();
    let count = |delivery| ended.iter().filter(|found| **found == delivery).count();
    assert_eq!((count(Delivery::Delivered), count(Delivery::Refused)), (2, 1), "{ended:?}");
}

#[tokio::test]
async fn a_gateway_that_hangs_has_few_requests_and_holds_up_no_stop() {
    let local = Local::start(vec![Act::Hang; SMS_IN_FLIGHT_MAX + 1]).await;
    let patience = Patience { answer: Duration::from_secs(60), ..HASTE };
    let (sms, worker) = webhook(hook(&local, patience));
    for _ in 0..=SMS_IN_FLIGHT_MAX {
        sms.queue(number(), "012345".parse().unwrap()).unwrap();
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.serve(Arc::new(ManualClock::at(WALL_MS)), |_| {}, stop.clone()));
    while local.heard().len() < SMS_IN_FLIGHT_MAX {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    running.await.unwrap();
    assert_eq!(local.heard().len(), SMS_IN_FLIGHT_MAX);
}

#[tokio::test]
async fn codes_that_the_gateway_wants_later_hold_up_no_other() {
    let later = vec![say(429, &[("Retry-After", "50")], ""); SMS_IN_FLIGHT_MAX];
    let local = Local::start(later.into_iter().chain([say(200, &[], "")])).await;
    let (sms, worker) = webhook(hook(&local, HASTE));
    for _ in 0..=SMS_IN_FLIGHT_MAX {
        sms.queue(number(), "012345".parse().unwrap()).unwrap();
    }
    let stop = CancellationToken::new();
    let delivered = stop.clone();
    let note = move |delivery| {
        assert_eq!(delivery, Delivery::Delivered);
        delivered.cancel();
    };
    let started = Instant::now();
    worker.serve(Arc::new(ManualClock::at(WALL_MS)), note, stop).await;
    assert!(started.elapsed() < Duration::from_secs(30), "the others come again in 50 s");
    assert_eq!(local.heard().len(), SMS_IN_FLIGHT_MAX + 1);
}

#[test]
fn a_server_without_codes_says_so() {
    let refusal = Sms::Off.queue(number(), "012345".parse().unwrap()).unwrap_err();
    assert_eq!(refusal.code, Code::PhoneUnavailable);
    assert!(Sms::Log.queue(number(), "012345".parse().unwrap()).is_ok());
}

#[test]
fn the_end_of_a_keys_last_line_is_no_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sms.key");
    std::fs::write(&path, [KEY, b"\n"].concat()).unwrap();
    let tag = hmac::sign(&read_key(&path).unwrap(), b"x");
    assert_eq!(tag.as_ref(), hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), b"x").as_ref());
    std::fs::write(&path, "0123456789abcdef0123456789abcde\n").unwrap();
    assert!(format!("{:#}", read_key(&path).unwrap_err()).contains("at least 32"));
    assert!(format!("{:#}", read_key(&dir.path().join("none")).unwrap_err()).contains("not there"));
}

#[test]
fn a_pause_varies_by_a_quarter() {
    let second = Duration::from_secs(1);
    for _ in 0..1_000 {
        let pause = jittered(second);
        assert!(pause >= second.mul_f64(0.75) && pause <= second.mul_f64(1.25), "{pause:?}");
    }
}
