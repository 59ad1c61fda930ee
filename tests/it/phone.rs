//! Phone numbers: codes through a gateway on this machine, what they prove, and what nobody learns from them.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use bytes::BytesMut;
use gureum_proto::{
    Code, CodeSent, FindBy, LockSecret, PhoneChange, PhoneNotice, PhoneProof, Position, Refusal, Register, Registered,
    Request, Response, ServerFrame, put_register, put_request_code,
};
use gureum_tests::device::Device;
use gureum_tests::outside::Outside;
use gureum_tests::person::{Ended, Person, event, string, texts};
use gureum_tests::push::web::Subscription;
use gureum_tests::push::{Act, Reply};
use gureum_tests::raw::Raw;
use gureum_tests::wait::{SOON, eventually, now_ms};
use gureum_tests::{Options, World};
use serde_json::Value;

use crate::link::recover;
use crate::push::{QUICK, counted, done};
use crate::push_crash::SIGABRT;

const START: Position = Position { seq: 0, count: 0 };
const MINUTE_MS: u64 = 60 * 1_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Numbers as they are stored and sent.
pub(crate) const ALICES: &str = "+821020000001";
pub(crate) const BOBS: &str = "+821020000002";
pub(crate) const NOBODYS: &str = "+821020000003";

/// A server that proves numbers, and the gateway that its codes go through.
pub(crate) struct Town {
    pub(crate) world: World,
    pub(crate) outside: Outside,
}

impl Town {
    pub(crate) fn start(flags: &[&'static str]) -> Self {
        Self::with(Options { flags: flags.to_vec(), ..Options::default() })
    }

    pub(crate) fn with(options: Options) -> Self {
        let outside = Outside::start();
        let world = World::start_with(Options { settings: outside.settings(), ..options });
        Self { world, outside }
    }

    /// Asks for a code, as who has proven nothing.
    pub(crate) async fn ask(&self, phone: &str) -> Result<CodeSent, Refusal> {
        let mut raw = Raw::dial(self.world.url()).await;
        let mut out = BytesMut::new();
        put_request_code(&phone.parse().unwrap(), &mut out);
        raw.write(&out).await;
        let answer = match raw.frame().await {
            ServerFrame::CodeSent(sent) => Ok(sent),
            ServerFrame::Refused(refusal) => Err(refusal),
            other => panic!("{other:?} in place of an answer"),
        };
        raw.close().await;
        answer
    }

    /// Asks for a code, and reads it on the phone.
    pub(crate) async fn code(&self, phone: &str) -> String {
        let next = self.next_code(phone);
        self.ask(phone).await.unwrap();
        next()
    }

    /// What waits for the next code that a number gets from now on, however it is written.
    pub(crate) fn next_code(&self, phone: &str) -> impl FnOnce() -> String {
        let phone: String = phone.chars().filter(|letter| *letter == '+' || letter.is_ascii_digit()).collect();
        let came = move || {
            let sent = self.outside.gateway.sent().into_iter();
            sent.filter(|sms| sms.to == phone).map(|sms| sms.code).collect::<Vec<_>>()
        };
        let before = came().len();
        move || eventually("a code", SOON, || came().get(before).cloned())
    }

    /// Registers with what a code proves.
    pub(crate) async fn register(
        &self,
        device: &Device,
        handle: &str,
        proof: PhoneProof,
    ) -> Result<Registered, Refusal> {
        let (handle, root_entry) = (handle.to_owned(), device.root_entry.clone());
        let register = Register { token: bytes::Bytes::new(), handle, root_entry, phone: Some(proof) };
        let mut out = BytesMut::new();
        put_register(&register, &mut out);
        let mut raw = Raw::dial(self.world.url()).await;
        raw.write(&out).await;
        let answer = match raw.frame().await {
            ServerFrame::Registered(registered) => Ok(registered),
            ServerFrame::Refused(refusal) => Err(refusal),
            other => panic!("{other:?} in place of an answer"),
        };
        raw.close().await;
        answer
    }

    /// Somebody with an account and this number.
    pub(crate) async fn registered(&self, handle: &str, phone: &str, lock: Option<u8>) -> Device {
        let (device, code) = (Device::new(), self.code(phone).await);
        self.register(&device, handle, proof(phone, &code, lock)).await.unwrap();
        device
    }

    /// Starts the server anew at another time, as if so long had passed; it has forgotten who has asked for how many codes.
    pub(crate) fn later(&mut self, ms: u64) {
        self.world.kill();
        self.world.set_last_known_ms(now_ms() + ms);
        self.world.restart();
    }

    /// What happened to an account's number, as its device is told when it connects.
    async fn told(&self, device: &Device) -> PhoneNotice {
        let (raw, ready) = device.connect(self.world.url(), false, START).await;
        raw.close().await;
        ready.phone
    }

    /// A person who registers by phone at a terminal.
    pub(crate) fn person(&self, name: &str, phone: &str, more: &[&str]) -> Person {
        let person = self.world.stranger(name);
        let ended = self.try_person(&person, phone, more);
        assert_eq!(ended.code, Some(0), "{}\n{:#?}", ended.said, ended.events);
        person
    }

    /// The same, of whom it may be refused.
    pub(crate) fn try_person(&self, person: &Person, phone: &str, more: &[&str]) -> Ended {
        person.register_by_phone(self.world.url(), phone, more, self.next_code(phone))
    }
}

/// A code that is not this one.
fn wrong(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}

fn lock(byte: u8) -> LockSecret {
    LockSecret::from_bytes([byte; 32])
}

pub(crate) fn proof(phone: &str, code: &str, secret: Option<u8>) -> PhoneProof {
    PhoneProof { phone: phone.parse().unwrap(), code: code.parse().unwrap(), lock: secret.map(lock), findable: true }
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Refusal>, code: Code) -> Refusal {
    let refusal = answer.expect_err("it is to be refused");
    assert_eq!(refusal.code, code, "{refusal:?}");
    refusal
}

#[test]
fn who_types_the_code_has_an_account_and_is_found_by_the_number_if_willing() {
    let town = Town::start(&["--registration", "phone"]);
    let alice = town.person("alice", "+82 10-2000-0001", &["--findable"]);
    let bob = town.person("bob", "+82 (10) 2000 0002", &[]);
    let sms = town.outside.gateway.sent();
    assert_eq!(sms.iter().map(|sms| sms.to.as_str()).collect::<Vec<_>>(), [ALICES, BOBS], "one each, in one form");
    bob.ok(&["send", "+82 10-2000-0001", "to a number"]);
    assert_eq!(alice.receive_texts(), ["to a number"]);
    alice.send(&bob, "to a handle");
    assert_eq!(bob.receive_texts(), ["to a handle"]);
    for number in [BOBS, NOBODYS] {
        let unknown = alice.run(&["send", number, "are you there?"]);
        assert_eq!(unknown.code, Some(1), "{unknown:?}");
    }
    bob.ok(&["phone", "findable", "on"]);
    alice.ok(&["send", BOBS, "there you are"]);
    assert_eq!(bob.receive_texts(), ["there you are"]);
}

#[test]
fn a_code_may_be_given_to_a_second_command_and_another_account_is_made_by_none() {
    let town = Town::start(&["--registration", "phone"]);
    let alice = town.world.stranger("alice");
    // Nothing is typed: the command says what to run next.
    let first = ["register", "--server", town.world.url(), "--phone", ALICES, "--handle", "alice"];
    let code = town.next_code(ALICES);
    let ended = alice.run(&first);
    assert!(ended.events.iter().any(|event| event["event"] == "code_sent"), "{:#?}", ended.events);
    assert!(ended.said.contains("--code"), "{}", ended.said);
    let code = code();
    alice.ok(&[&first[..], &["--code", code.as_str()]].concat());
    assert_eq!(town.outside.gateway.sent().len(), 1, "one code was enough");
    assert_eq!(string(&alice.ok(&["whoami"])[0]["handle"]), "alice");
}

#[tokio::test]
async fn a_server_that_registers_by_phone_takes_nobody_without_and_others_send_no_codes() {
    let town = Town::start(&["--registration", "phone"]);
    let mut raw = Raw::dial(town.world.url()).await;
    refused(Device::new().register(&mut raw, &town.world.invite(1), "alice").await, Code::PhoneRequired);
    let without = Town { world: World::start(), outside: town.outside };
    refused(without.ask(ALICES).await, Code::PhoneUnavailable);
}

#[tokio::test]
async fn five_wrong_codes_void_the_right_one() {
    let town = Town::start(&["--registration", "phone"]);
    let (device, right) = (Device::new(), town.code(ALICES).await);
    let wrong = wrong(&right);
    for _ in 0..5 {
        refused(town.register(&device, "alice", proof(ALICES, &wrong, None)).await, Code::CodeInvalid);
    }
    let used_up = refused(town.register(&device, "alice", proof(ALICES, &right, None)).await, Code::CodeInvalid);
    // Nothing tells one that is used up from one that nobody has asked for.
    let never = refused(town.register(&device, "alice", proof(NOBODYS, &right, None)).await, Code::CodeInvalid);
    assert_eq!(used_up, never);
}

#[tokio::test]
async fn tries_are_counted_across_a_crash_and_a_right_code_proves_once() {
    let mut town = Town::start(&["--registration", "phone"]);
    let (device, right) = (Device::new(), town.code(ALICES).await);
    let wrong = wrong(&right);
    for _ in 0..4 {
        refused(town.register(&device, "alice", proof(ALICES, &wrong, None)).await, Code::CodeInvalid);
        town.world.kill_and_restart();
    }
    let registered = town.register(&device, "alice", proof(ALICES, &right, None)).await.unwrap();
    assert_eq!(registered.account, device.account);
    town.world.kill_and_restart();
    let again = town.register(&device, "alice", proof(ALICES, &right, None)).await;
    assert_eq!(again, Ok(registered), "an answer that was lost comes again");
    refused(town.register(&Device::new(), "mallory", proof(ALICES, &right, None)).await, Code::CodeInvalid);
}

#[tokio::test]
async fn a_code_proves_nothing_after_five_minutes() {
    let mut town = Town::start(&["--registration", "phone"]);
    let (alices, bobs) = (town.code(ALICES).await, town.code(BOBS).await);
    town.later(4 * MINUTE_MS);
    town.register(&Device::new(), "alice", proof(ALICES, &alices, None)).await.unwrap();
    town.later(5 * MINUTE_MS + 1_000);
    refused(town.register(&Device::new(), "bob", proof(BOBS, &bobs, None)).await, Code::CodeInvalid);
}

#[tokio::test]
async fn nothing_tells_who_asks_whether_a_number_is_somebodys() {
    let mut town = Town::start(&["--registration", "phone"]);
    let _alice = town.registered("alice", ALICES, Some(1)).await;
    town.later(0);
    let mut answers = Vec::new();
    for phone in [ALICES, NOBODYS] {
        let code = town.next_code(phone);
        let sent = town.ask(phone).await.unwrap();
        assert_eq!(sent.phone.as_str(), phone);
        let proof = proof(phone, &wrong(&code()), None);
        let refusal = refused(town.register(&Device::new(), "mallory", proof).await, Code::CodeInvalid);
        answers.push((sent.expires_ms, sent.again_after_ms, refusal));
    }
    assert_eq!((answers[0].0, answers[0].1), (5 * MINUTE_MS, MINUTE_MS));
    assert_eq!(answers[0], answers[1]);
    let texts: Vec<_> = town.outside.gateway.sent().iter().skip(1).map(|sms| sms.text.replace(&sms.code, "")).collect();
    assert_eq!(texts[0], texts[1]);
}

#[tokio::test]
async fn numbers_that_no_code_can_go_to_are_refused() {
    let town = Town::start(&["--registration", "phone", "--sms-countries", "82,44"]);
    for phone in ["+82 10-2000", "+44 9012 345678", "+82 70-1234-5678", "+1 201-555-0123", "+979 123456789"] {
        refused(town.ask(phone).await, Code::PhoneInvalid);
    }
    let code = town.next_code("+447400123456");
    town.ask("+44 7400 123456").await.unwrap();
    assert_eq!(code().len(), 6);
    assert_eq!(town.outside.gateway.sent().len(), 1);
}

#[tokio::test]
async fn codes_are_limited_by_number_and_by_who_asks() {
    let town = Town::start(&["--registration", "phone"]);
    town.ask(ALICES).await.unwrap();
    let refusal = refused(town.ask("+82 10-2000-0001").await, Code::RateLimited);
    assert!((1..=MINUTE_MS).contains(&refusal.retry_after_ms), "{refusal:?}");
    // The second time counts for who asks, too.
    for index in 2..10 {
        town.ask(&format!("+82 10-{index}000-0002")).await.unwrap();
    }
    let refusal = refused(town.ask("+82 10-9999-0001").await, Code::RateLimited);
    assert!(refusal.retry_after_ms > MINUTE_MS, "{refusal:?}");
    assert_eq!(town.outside.gateway.sent().len(), 9);
}

#[tokio::test]
async fn a_day_has_so_many_codes_and_no_restart_gives_more() {
    let mut town = Town::start(&["--registration", "phone", "--sms-per-day", "2"]);
    town.ask(ALICES).await.unwrap();
    town.world.kill_and_restart();
    town.ask(BOBS).await.unwrap();
    for _ in 0..2 {
        let refusal = refused(town.ask(NOBODYS).await, Code::RateLimited);
        assert!((1..=DAY_MS).contains(&refusal.retry_after_ms), "{refusal:?}");
        town.world.kill_and_restart();
    }
    town.later(DAY_MS / 2);
    let is_next_day = (now_ms() + DAY_MS / 2) / DAY_MS > now_ms() / DAY_MS;
    assert_eq!(town.ask(NOBODYS).await.is_ok(), is_next_day, "the day is that of UTC");
}

#[tokio::test]
async fn an_hour_has_so_many_codes_in_all() {
    let town = Town::start(&["--registration", "phone", "--sms-per-hour", "2"]);
    for phone in [ALICES, BOBS] {
        town.ask(phone).await.unwrap();
    }
    let refusal = refused(town.ask(NOBODYS).await, Code::RateLimited);
    assert!(refusal.retry_after_ms > MINUTE_MS, "{refusal:?}");
    assert_eq!(counted(&town.world, "gureum_codes_total", &["accepted"]), 2);
    assert_eq!(counted(&town.world, "gureum_codes_total", &["limited"]), 1);
}

#[tokio::test]
async fn a_developers_server_writes_codes_into_its_log_and_no_number() {
    let flags = vec!["--registration", "phone", "--sms", "log"];
    let world = World::start_with(Options { flags, ..Options::default() });
    let town = Town { world, outside: Outside::start() };
    town.ask(ALICES).await.unwrap();
    let code = eventually("a code in the log", SOON, || {
        let log = town.world.log();
        let (before, _) = log.split_once(" for a number that ends in")?;
        Some(before.get(before.len().checked_sub(6)?..)?.to_owned())
    });
    town.register(&Device::new(), "alice", proof(ALICES, &code, None)).await.unwrap();
    assert!(!town.world.log().contains(ALICES.trim_start_matches('+')));
}

#[tokio::test]
async fn a_gateway_that_fails_at_first_gets_the_code_again_and_sends_it_once() {
    let town = Town::start(&["--registration", "phone"]);
    town.outside.gateway.service.next([Act::from(Reply::new(503, "")), Act::Reset]);
    assert_eq!(town.code(ALICES).await.len(), 6);
    let seen = town.outside.gateway.service.wait_for(3);
    let ids: Vec<_> = seen.iter().map(|seen| string(&seen.json()["id"])).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "by one id a gateway knows a repetition: {ids:?}");
    eventually("the delivery is counted", SOON, || {
        (counted(&town.world, "gureum_codes_total", &["delivered"]) == 1).then_some(())
    });
}

#[tokio::test]
async fn a_gateway_that_hangs_holds_up_nobody() {
    let town = Town::start(&["--registration", "phone"]);
    town.outside.gateway.service.always(Act::Hang);
    let started = std::time::Instant::now();
    for index in 1..10 {
        town.ask(&format!("+82 10-{index}000-0002")).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(town.world.admin().ready().0, "the server is well");
}

#[tokio::test]
async fn a_number_without_a_lock_moves_to_who_proves_it_and_its_old_devices_are_told() {
    let mut town = Town::start(&["--registration", "phone"]);
    let alice = town.registered("alice", ALICES, None).await;
    town.later(0);
    let (mut live, _) = alice.connect(town.world.url(), true, START).await;
    let _mallory = town.registered("mallory", ALICES, None).await;
    let ServerFrame::PhoneNotice(notice) = live.frame().await else { panic!("no notice") };
    assert!(notice.moved_ms > 0 && notice.tried_ms == 0, "{notice:?}");
    assert_eq!(town.told(&alice).await, notice, "and who comes later");

    // She goes on without the number, and is no longer found by it.
    let bob = town.registered("bob", BOBS, None).await;
    let (raw, _) = bob.connect(town.world.url(), false, START).await;
    let by_phone = Request::FindAccount { by: FindBy::Phone(ALICES.parse().unwrap()), log_from: 0 };
    let found = raw.request(&by_phone).await;
    assert!(matches!(&found, Response::Account(found) if found.account != alice.account), "{found:?}");
    assert_eq!(counted(&town.world, "gureum_phone_moves_total", &["moved"]), 1);
}

#[tokio::test]
async fn a_lock_keeps_a_number_from_who_has_no_pin_and_its_devices_are_told() {
    let mut town = Town::start(&["--registration", "phone"]);
    let alice = town.registered("alice", ALICES, Some(1)).await;
    town.later(0);
    let (device, code) = (Device::new(), town.code(ALICES).await);
    let without = refused(town.register(&device, "mallory", proof(ALICES, &code, None)).await, Code::PhoneLocked);
    assert!((6 * DAY_MS..=7 * DAY_MS).contains(&without.retry_after_ms), "{without:?}");
    let told = town.told(&alice).await;
    assert!(told.tried_ms > 0 && told.moved_ms == 0, "{told:?}");
    // The code stays good for who has the PIN.
    refused(town.register(&device, "mallory", proof(ALICES, &code, Some(2))).await, Code::PhoneLocked);
    town.register(&device, "mallory", proof(ALICES, &code, Some(1))).await.unwrap();
    assert!(town.told(&alice).await.moved_ms > 0);
}

#[tokio::test]
async fn five_wrong_pins_close_a_lock_for_a_day() {
    let mut town = Town::start(&["--registration", "phone"]);
    let alice = town.registered("alice", ALICES, Some(1)).await;
    town.later(0);
    let (device, code) = (Device::new(), town.code(ALICES).await);
    for wrong in 2..6 {
        refused(town.register(&device, "mallory", proof(ALICES, &code, Some(wrong))).await, Code::PhoneLocked);
    }
    for pin in [Some(6), Some(1), None] {
        let answer = town.register(&device, "mallory", proof(ALICES, &code, pin)).await;
        let closed = refused(answer, Code::PhoneLockClosed);
        assert!((DAY_MS - MINUTE_MS..=DAY_MS).contains(&closed.retry_after_ms), "{closed:?}");
    }
    assert_eq!(town.told(&alice).await.moved_ms, 0);
}

#[tokio::test]
async fn a_lock_is_over_when_no_device_of_the_account_was_seen_for_seven_days() {
    let options = Options {
        // So that days may have passed while the server was off.
        retention: Some("60d"),
        flags: vec!["--registration", "phone"],
        ..Options::default()
    };
    let mut town = Town::with(options);
    let _alice = town.registered("alice", ALICES, Some(1)).await;
    town.later(7 * DAY_MS - 10 * MINUTE_MS);
    let (device, code) = (Device::new(), town.code(ALICES).await);
    refused(town.register(&device, "mallory", proof(ALICES, &code, None)).await, Code::PhoneLocked);
    town.later(7 * DAY_MS + MINUTE_MS);
    let code = town.code(ALICES).await;
    town.register(&device, "mallory", proof(ALICES, &code, None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_away_is_woken_when_its_number_moves() {
    let mut town = Town::start(&[&["--registration", "phone"][..], &QUICK].concat());
    let alice = town.registered("alice", ALICES, None).await;
    let subscription = town.outside.web.subscribe();
    let (raw, _) = alice.connect(town.world.url(), false, START).await;
    done(&raw, Request::SetPushTarget(subscription.target(true))).await;
    raw.close().await;
    town.later(0);
    let _mallory = town.registered("mallory", ALICES, None).await;
    eventually("a wake-up", SOON, || (town.outside.web.wakes_of(&subscription) == ["messages"]).then_some(()));
}

/// A server of which Alice, who is away, is owed a wake-up for her number, and dies before a service has taken it.
async fn dies_while_it_owes_an_alarm() -> (Town, Device, Subscription) {
    let mut town = Town::start(&[&["--registration", "phone"][..], &QUICK].concat());
    let alice = town.registered("alice", ALICES, None).await;
    let subscription = town.outside.web.subscribe();
    let (raw, _) = alice.connect(town.world.url(), false, START).await;
    done(&raw, Request::SetPushTarget(subscription.target(true))).await;
    raw.close().await;
    town.later(0);
    town.outside.web.service.always(Act::Hang);
    let _mallory = town.registered("mallory", ALICES, None).await;
    let _ = town.outside.web.service.wait_for(1);
    town.world.kill();
    town.outside.web.service.always(Act::Accept);
    (town, alice, subscription)
}

/// The server has nothing under way, and owes nothing.
#[track_caller]
fn rests(town: &Town) {
    let of = |metric| town.world.admin().count(metric);
    eventually("the targets are known", SOON, || (of("gureum_push_targets") == 1).then_some(()));
    let owed = || of("gureum_push_waiting") + counted(&town.world, "gureum_push_in_flight", &[]);
    eventually("no wake-up is owed", SOON, || (owed() == 0).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_after_a_number_has_moved_wakes_its_devices_once_after_the_start() {
    let (mut town, alice, subscription) = dies_while_it_owes_an_alarm().await;
    town.world.restart();
    eventually("a wake-up", SOON, || (town.outside.web.wakes_of(&subscription) == ["messages"]).then_some(()));
    rests(&town);
    // What is written down behind that is on the disk.
    town.ask(BOBS).await.unwrap();
    town.world.kill_and_restart();
    rests(&town);
    assert_eq!(town.outside.web.wakes_of(&subscription), ["messages"], "and not again");
    assert!(town.told(&alice).await.moved_ms > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_while_it_wakes_for_a_number_does_so_once_more_at_most() {
    for (step, times) in [("push::sending", 1), ("push::accepted", 2)] {
        let (mut town, _, subscription) = dies_while_it_owes_an_alarm().await;
        town.world.fail_at(Some(format!("{step}=return")));
        let (status, said) = town.world.restart_in_vain();
        assert_eq!(status.signal(), Some(SIGABRT), "{step}: {said}");
        town.world.fail_at(None);
        town.world.restart();
        let woken = || town.outside.web.wakes_of(&subscription).len();
        eventually("a wake-up", SOON, || (woken() >= times).then_some(()));
        rests(&town);
        assert_eq!(woken(), times, "{step}");
    }
}

#[tokio::test]
async fn an_account_changes_its_number_hides_it_and_gives_it_up() {
    let town = Town::start(&[]);
    let mut raw = Raw::dial(town.world.url()).await;
    let alice = Device::new();
    alice.register(&mut raw, &town.world.invite(1), "alice").await.unwrap();
    let bob = Device::registered(&town.world, "bob").await;
    let (alices, _) = alice.connect(town.world.url(), false, START).await;
    let (bobs, _) = bob.connect(town.world.url(), false, START).await;
    let finds = async |phone: &str| {
        let by_phone = Request::FindAccount { by: FindBy::Phone(phone.parse().unwrap()), log_from: 0 };
        match bobs.request(&by_phone).await {
            Response::Account(found) => found.account == alice.account,
            Response::Refused(refusal) if refusal.code == Code::NotFound => false,
            other => panic!("{other:?} in place of an account"),
        }
    };
    for phone in [ALICES, NOBODYS] {
        assert!(!finds(phone).await, "not yet");
        let code = town.next_code(phone);
        let sent = alices.request(&Request::RequestCode(phone.parse().unwrap())).await;
        assert!(matches!(&sent, Response::CodeSent(sent) if sent.phone.as_str() == phone), "{sent:?}");
        let change = PhoneChange::Set(proof(phone, &code(), None));
        done(&alices, Request::SetPhone(change)).await;
        assert!(finds(phone).await);
    }
    assert!(!finds(ALICES).await, "the number of before is nobody's");
    done(&alices, Request::SetPhone(PhoneChange::Findable(false))).await;
    assert!(!finds(NOBODYS).await, "hidden");
    done(&alices, Request::SetPhone(PhoneChange::Findable(true))).await;
    assert!(finds(NOBODYS).await);
    done(&alices, Request::SetPhone(PhoneChange::Remove)).await;
    assert!(!finds(NOBODYS).await, "given up");
}

#[tokio::test]
async fn a_directory_of_numbers_cannot_be_walked() {
    let town = Town::start(&[]);
    let bob = Device::registered(&town.world, "bob").await;
    let (raw, _) = bob.connect(town.world.url(), false, START).await;
    let mut asked = 0_u32;
    let refusal = loop {
        let phone = format!("+82 10-2000-{asked:04}").parse().unwrap();
        let by_phone = Request::FindAccount { by: FindBy::Phone(phone), log_from: 0 };
        match raw.request(&by_phone).await {
            Response::Refused(refusal) if refusal.code == Code::NotFound => asked += 1,
            Response::Refused(refusal) => break refusal,
            other => panic!("{other:?} in place of a refusal"),
        }
        assert!(asked <= 30, "an hour");
    };
    assert_eq!((refusal.code, asked), (Code::RateLimited, 30));
    assert!(refusal.retry_after_ms > 0);
}

/// What events tell of the own phone number.
fn changes(events: &[Value]) -> Vec<String> {
    let told = events.iter().filter(|event| event["event"] == "phone" && event["change"].is_string());
    told.map(|event| string(&event["change"])).collect()
}

#[test]
fn people_are_told_once_that_their_number_has_moved_and_a_pin_keeps_it() {
    let mut town = Town::start(&["--registration", "phone"]);
    let alice = town.person("alice", ALICES, &[]);
    let pin = town.world.directory("pin");
    std::fs::write(&pin, "2468\n").unwrap();
    let pin = pin.to_str().unwrap().to_owned();
    alice.ok(&["phone", "lock", "--pin-file", &pin]);
    town.world.kill_and_restart();
    let mut live = alice.follow_from_now();
    let mallory = town.world.stranger("mallory");
    let kept = town.try_person(&mallory, ALICES, &[]);
    assert_eq!(kept.code, Some(1), "{:#?}", kept.events);
    assert!(kept.said.contains("PIN"), "{}", kept.said);
    assert_eq!(event(&mut live.running, "phone")["change"], "tried");
    drop(live.interrupt());
    assert!(changes(&alice.receive()).is_empty(), "it was told");

    alice.ok(&["phone", "unlock"]);
    town.world.kill_and_restart();
    let taken = town.try_person(&mallory, ALICES, &[]);
    assert_eq!(taken.code, Some(0), "{}", taken.said);
    assert_eq!(changes(&alice.receive()), ["moved"]);
    assert!(changes(&alice.receive()).is_empty(), "told once");
}

#[test]
fn the_pin_moves_a_locked_number_and_locks_it_for_the_new_account() {
    let mut town = Town::start(&["--registration", "phone"]);
    let [right, wrong] = [("right", "2468\n"), ("wrong", "1357\n")].map(|(name, pin)| {
        let file = town.world.directory(name);
        std::fs::write(&file, pin).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let alice = town.person("alice", ALICES, &["--pin-file", &right]);
    town.world.kill_and_restart();
    let second = town.world.stranger("alice2");
    let kept = town.try_person(&second, ALICES, &["--pin-file", &wrong]);
    assert_eq!(kept.code, Some(1), "{:#?}", kept.events);
    assert!(kept.said.contains("--pin-file") && kept.said.contains("--code"), "{}", kept.said);
    town.world.kill_and_restart();
    let moved = town.try_person(&second, ALICES, &["--pin-file", &right]);
    assert_eq!(moved.code, Some(0), "{}", moved.said);
    assert_ne!(second.account(), alice.account());
    let own = second.ok(&["phone"]).remove(0);
    assert_eq!((&own["phone"], &own["lock"]), (&ALICES.into(), &true.into()));
    assert_eq!(changes(&alice.receive()), ["tried", "moved"]);
}

#[test]
fn who_has_the_recovery_words_keeps_the_account_and_the_number() {
    let town = Town::start(&["--registration", "phone"]);
    let lost = town.world.stranger("alice");
    let registered = town.try_person(&lost, ALICES, &["--findable"]);
    assert_eq!(registered.code, Some(0), "{}", registered.said);
    let told = registered.events.iter().find(|event| event["event"] == "registered").expect("it shows the words");
    let words = string(&told["recovery_words"]);
    let bob = town.person("bob", BOBS, &[]);
    let new = Person::new("alice", town.world.directory("new"));
    let recovered = recover(&new, town.world.url(), &words);
    assert_eq!(recovered.code, Some(0), "{}", recovered.said);
    assert_eq!(new.account(), lost.account());
    bob.ok(&["send", ALICES, "to the number"]);
    assert_eq!(new.receive_texts(), ["to the number"]);
    assert_eq!(town.outside.gateway.sent().len(), 2, "no code was needed");
}

#[test]
fn who_lost_everything_comes_back_under_the_old_name_and_contacts_see_another_safety_number() {
    let mut town = Town::start(&["--registration", "phone"]);
    let (alice, bob) = (town.person("alice", ALICES, &[]), town.person("bob", BOBS, &[]));
    let carol = town.person("carol", NOBODYS, &[]);
    alice.send(&bob, "before");
    assert_eq!(bob.receive_texts(), ["before"]);
    alice.send(&carol, "before");
    assert_eq!(carol.receive_texts(), ["before"]);
    let before = string(&bob.ok(&["safety-number", "alice"])[0]["number"]);
    town.world.kill_and_restart();
    let second = Person::new("alice", town.world.directory("second"));
    let back = town.try_person(&second, ALICES, &[]);
    assert_eq!(back.code, Some(0), "{}", back.said);
    assert_ne!(second.account(), alice.account());
    let cut_off = alice.run(&["receive"]);
    assert!(cut_off.code == Some(1) && cut_off.said.contains("does not exist any more"), "{cut_off:?}");

    second.send(&bob, "it is me");
    let came = bob.receive();
    assert_eq!(texts(&came), Vec::<String>::new(), "nothing of it is shown before bob has looked");
    let changed = came.iter().find(|event| event["event"] == "safety_number_changed").expect("bob is told");
    assert_eq!(string(&changed["number_before"]), before);
    assert_eq!(string(&changed["number"]), string(&second.ok(&["safety-number", "bob"])[0]["number"]));

    let refused = carol.run(&["send", "alice", "are you there"]);
    assert!(refused.code == Some(1) && refused.said.contains("another account"), "{refused:?}");
    carol.send(&second, "it is you");
    assert_eq!(second.receive_texts(), ["it is you"]);
}
