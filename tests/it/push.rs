//! Who is woken, when, and how often: devices that follow no rule but their test's, and a push service on this machine.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gureum_proto::{
    Code, DeliveryFrame, DeviceLog, Handle, Position, PushAddress, PushOffer, PushTarget, Relation, Request, Response,
    Send, ServerFrame, Typing, put_ack, sign_revoke,
};
use gureum_tests::device::{Device, Talk};
use gureum_tests::outside::Outside;
use gureum_tests::push::web::Subscription;
use gureum_tests::push::{Reply, apns};
use gureum_tests::raw::Raw;
use gureum_tests::wait::{SOON, eventually, now_ms, until_ms};
use gureum_tests::{Options, World};
use tokio::task::JoinHandle;

use crate::delivery::Two;

const START: Position = Position { seq: 0, count: 0 };

/// Wake-ups come as soon as they may.
pub(crate) const QUICK: [&str; 6] =
    ["--push-delay", "500ms", "--push-close-delay", "500ms", "--push-interval", "100ms"];
/// A device that is there has the time to take what comes, on a machine under load as well.
const PATIENT: [&str; 6] = ["--push-delay", "4s", "--push-close-delay", "4s", "--push-interval", "100ms"];

/// Alice, who writes, and whoever else there is, who is away and can be woken.
pub(crate) struct Away {
    pub(crate) world: World,
    pub(crate) outside: Outside,
    pub(crate) alice: Device,
    pub(crate) raw: Raw,
    people: usize,
}

/// Somebody with a conversation with Alice.
pub(crate) struct Sleeper {
    pub(crate) device: Device,
    pub(crate) handle: Handle,
    pub(crate) talk: Talk,
    pub(crate) subscription: Subscription,
}

impl Away {
    pub(crate) async fn start(flags: &[&'static str]) -> Self {
        Self::with(Options { flags: flags.to_vec(), ..Options::default() }).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let outside = Outside::start();
        let world = World::start_with(Options { settings: outside.push_settings(), ..options });
        let alice = Device::registered(&world, "alice").await;
        let (raw, _) = alice.connect(world.url(), false, START).await;
        Self { world, outside, alice, raw, people: 0 }
    }

    /// Somebody to whom Alice has not written yet, who has not said anything of her.
    pub(crate) async fn stranger(&mut self) -> Sleeper {
        self.people += 1;
        let name = format!("sleeper{}", self.people);
        let device = Device::registered(&self.world, &name).await;
        let (raw, _) = device.connect(self.world.url(), false, START).await;
        device.publish(&raw, 1).await;
        let talk = self.alice.begin(&self.raw, &device).await;
        let subscription = self.outside.web.subscribe();
        let sleeper = Sleeper { device, handle: name.parse().unwrap(), talk, subscription };
        done(&raw, Request::SetPushTarget(sleeper.subscription.target(true))).await;
        raw.close().await;
        sleeper
    }

    /// Somebody who wants to hear of Alice.
    pub(crate) async fn sleeper(&mut self) -> Sleeper {
        let sleeper = self.stranger().await;
        self.ask(&sleeper, takes(&sleeper, 0)).await;
        sleeper
    }

    /// Asks in somebody's name, which must be done.
    pub(crate) async fn ask(&self, sleeper: &Sleeper, request: Request) {
        let (raw, _) = sleeper.device.connect(self.world.url(), false, START).await;
        done(&raw, request).await;
        raw.close().await;
    }

    /// What the server offers a device, and has of it.
    async fn offer(&self, device: &Device) -> PushOffer {
        let (raw, _) = device.connect(self.world.url(), false, START).await;
        let offer = raw.request(&Request::ReadPush).await;
        raw.close().await;
        let Response::Push(offer) = offer else { panic!("{offer:?} in place of an offer") };
        offer
    }

    /// Alice writes a message.
    pub(crate) async fn write(&mut self, to: &Sleeper) {
        let send = self.alice.opaque(&to.talk, b"a message".as_slice());
        self.send(send).await;
    }

    async fn send(&mut self, send: Send) {
        self.raw.send(&[send]).await.remove(0).result.unwrap();
    }

    /// Connects Alice again, after the server was started anew.
    pub(crate) async fn reconnect(&mut self) {
        self.raw = self.alice.connect(self.world.url(), false, START).await.0;
    }

    /// The wake-ups that have come to somebody.
    pub(crate) fn wakes(&self, sleeper: &Sleeper) -> Vec<String> {
        self.outside.web.wakes_of(&sleeper.subscription)
    }

    /// Waits until so many wake-ups have come to somebody.
    #[track_caller]
    pub(crate) fn woken(&self, sleeper: &Sleeper, times: usize) {
        eventually("a wake-up", SOON, || (self.wakes(sleeper).len() >= times).then_some(()));
        assert_eq!(self.wakes(sleeper), vec!["messages"; times]);
    }

    /// Waits until everything that was owed before is done: somebody else has been woken for what came later.
    pub(crate) async fn settle(&mut self) {
        let canary = self.sleeper().await;
        self.write(&canary).await;
        self.woken(&canary, 1);
        eventually("no request is under way", SOON, || (self.in_flight() == 0).then_some(()));
    }

    /// Waits until no wake-up is owed to anybody.
    #[track_caller]
    pub(crate) fn wait_for_rest(&self) {
        let waiting = || self.world.admin().count("gureum_push_waiting");
        eventually("no wake-up is owed", SOON, || (waiting() + self.in_flight() == 0).then_some(()));
    }

    fn in_flight(&self) -> u64 {
        self.counted("gureum_push_in_flight", &[])
    }

    /// The sum of a metric over all of its labels that have these values.
    pub(crate) fn counted(&self, name: &str, values: &[&str]) -> u64 {
        counted(&self.world, name, values)
    }

    /// How many devices can be woken, once the server knows.
    #[track_caller]
    pub(crate) fn targets(&self, expected: u64) {
        eventually("targets", SOON, || (self.world.admin().count("gureum_push_targets") == expected).then_some(()));
    }

    /// Somebody connects, takes everything, and goes.
    pub(crate) async fn come_and_take(&self, sleeper: &Sleeper) {
        let acks = self.world.admin().count("gureum_acks_total");
        let (mut raw, _) = sleeper.device.connect(self.world.url(), true, START).await;
        let mut frames = raw.delivery().await;
        let mut last = None;
        loop {
            match frames.delivery().await {
                DeliveryFrame::Envelope(envelope) => last = Some(envelope.position),
                DeliveryFrame::Gap(gap) => panic!("{gap:?} in place of an envelope"),
                DeliveryFrame::CaughtUp { .. } => break,
            }
        }
        ack(&mut raw, last.expect("something to take")).await;
        eventually("the ack", SOON, || (self.world.admin().count("gureum_acks_total") > acks).then_some(()));
        raw.close().await;
    }
}

/// The sum of a metric over all of its labels that have these values.
pub(crate) fn counted(world: &World, name: &str, values: &[&str]) -> u64 {
    let (_, page) = world.admin().get("/metrics");
    let of = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
        values.iter().all(|value| labels.contains(&format!("=\"{value}\""))).then(|| value.parse::<u64>().ok())?
    };
    page.lines().filter_map(of).sum()
}

/// What says that somebody wants to hear of the conversation with Alice, but of nothing before a time.
fn takes(sleeper: &Sleeper, muted_until_ms: u64) -> Request {
    Request::SetConversation { conversation: sleeper.talk.id, accepted: true, muted_until_ms }
}

/// Asks for something that must be done.
pub(crate) async fn done(raw: &Raw, request: Request) {
    let answer = raw.request(&request).await;
    assert_eq!(answer, Response::Done, "to {request:?}");
}

/// Asks for something that may end the connection before it is answered.
pub(crate) async fn tell(raw: &Raw, request: &Request) {
    let mut out = BytesMut::new();
    request.put(&mut out);
    let (mut output, _answer) = raw.connection.open_bi().await.unwrap();
    output.write_all(&out).await.unwrap();
    output.finish().unwrap();
}

async fn ack(raw: &mut Raw, position: Position) {
    let mut out = BytesMut::new();
    put_ack(position, &mut out);
    raw.write(&out).await;
}

/// A device that is there and takes whatever comes, until this is dropped.
struct Present(JoinHandle<()>);

impl Present {
    async fn start(device: &Device, world: &World) -> Self {
        let (mut raw, _) = device.connect(world.url(), true, START).await;
        let mut frames = raw.delivery().await;
        Self(tokio::spawn(async move {
            while let Ok(frame) = frames.next().await {
                if let DeliveryFrame::Envelope(envelope) = DeliveryFrame::decode(frame).unwrap() {
                    ack(&mut raw, envelope.position).await;
                }
            }
        }))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Another device of somebody's account, with the account's log.
async fn sibling(away: &Away, of: &Device) -> (Device, DeviceLog) {
    let (raw, _) = of.connect(away.world.url(), false, START).await;
    let mut log = DeviceLog::from_root(&of.root_entry).unwrap();
    let other = of.link(&raw, &mut log).await;
    raw.close().await;
    (other, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_away_is_woken_once_for_all_that_comes() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    away.write(&bob).await;
    away.woken(&bob, 1);
    for _ in 0..3 {
        away.write(&bob).await;
    }
    away.settle().await;
    away.woken(&bob, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_it_has_been_there_a_device_is_woken_again() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    for round in 1..=3 {
        away.write(&bob).await;
        away.woken(&bob, round);
        away.come_and_take(&bob).await;
    }
    away.settle().await;
    away.woken(&bob, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_takes_what_comes_is_not_woken() {
    let mut away = Away::start(&PATIENT).await;
    let bob = away.sleeper().await;
    let present = Present::start(&bob.device, &away.world).await;
    for _ in 0..3 {
        away.write(&bob).await;
    }
    away.settle().await;
    assert_eq!(away.wakes(&bob), Vec::<String>::new());
    drop(present);
    away.settle().await;
    assert_eq!(away.wakes(&bob), Vec::<String>::new(), "it has left nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_open_and_takes_nothing_is_woken() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    // It looks alive, and never says that it has anything.
    let (raw, _) = bob.device.connect(away.world.url(), true, START).await;
    let _frames = raw.delivery().await;
    away.write(&bob).await;
    away.woken(&bob, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_not_woken_for_what_another_of_the_account_has_taken() {
    let mut away = Away::start(&PATIENT).await;
    let bob = away.sleeper().await;
    let (tablet, _) = sibling(&away, &bob.device).await;
    let present = Present::start(&tablet, &away.world).await;
    away.write(&bob).await;
    away.settle().await;
    assert_eq!(away.wakes(&bob), Vec::<String>::new());

    drop(present);
    away.write(&bob).await;
    away.woken(&bob, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_of_an_account_that_is_away_is_woken() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    let (tablet, _) = sibling(&away, &bob.device).await;
    let subscription = away.outside.web.subscribe();
    let (raw, _) = tablet.connect(away.world.url(), false, START).await;
    done(&raw, Request::SetPushTarget(subscription.target(true))).await;
    raw.close().await;
    away.write(&bob).await;
    away.woken(&bob, 1);
    eventually("the tablet's wake-up", SOON, || (away.outside.web.wakes_of(&subscription).len() == 1).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_leaves_with_untaken_messages_is_woken_after_the_close_delay() {
    const CLOSE_DELAY_MS: u64 = 2_000;
    let mut away =
        Away::start(&["--push-delay", "200ms", "--push-close-delay", "2s", "--push-interval", "100ms"]).await;
    let bob = away.sleeper().await;
    away.write(&bob).await;
    away.woken(&bob, 1);
    let came_ms = now_ms();
    let (raw, _) = bob.device.connect(away.world.url(), true, START).await;
    let _frames = raw.delivery().await;
    raw.close().await;
    eventually("another wake-up", SOON, || (away.wakes(&bob).len() == 2).then_some(()));
    let after_ms = now_ms() - came_ms;
    assert!(after_ms >= CLOSE_DELAY_MS, "{after_ms} ms after it has come");
    away.settle().await;
    away.woken(&bob, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_programs_alone_and_what_a_person_has_written_wakes_nobody() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    // A receipt, as the server sees it.
    let silent = Send { silent: true, ..away.alice.opaque(&bob.talk, b"a receipt".as_slice()) };
    away.send(silent).await;
    let (conversation, epoch, Device { account, device, .. }) = (bob.talk.id, bob.talk.epoch(), &away.alice);
    let sealed = Bytes::from_static(b"sealed");
    let typing = Typing { conversation, epoch, account: *account, device: *device, sealed };
    away.raw.connection.send_datagram(typing.encode()).unwrap();
    eventually("it goes to whoever is there", SOON, || {
        (away.counted("gureum_typing_total", &["relayed"]) == 1).then_some(())
    });
    let (tablet, _) = sibling(&away, &away.alice).await;
    let subscription = away.outside.web.subscribe();
    let (raw, _) = tablet.connect(away.world.url(), false, START).await;
    done(&raw, Request::SetPushTarget(subscription.target(true))).await;
    raw.close().await;
    away.settle().await;
    assert_eq!(away.wakes(&bob), Vec::<String>::new(), "silent, and typing");
    away.write(&bob).await;
    away.woken(&bob, 1);
    assert_eq!(away.outside.web.wakes_of(&subscription), Vec::<String>::new(), "her own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_wakes_nobody_before_being_accepted() {
    let mut away = Away::start(&QUICK).await;
    let (bob, carol) = (away.stranger().await, away.stranger().await);
    away.write(&bob).await;
    away.write(&carol).await;
    away.settle().await;
    assert_eq!((away.wakes(&bob), away.wakes(&carol)), (vec![], vec![]), "requests");
    // One by the conversation, the other by the person.
    away.ask(&bob, takes(&bob, 0)).await;
    let alice = away.alice.account;
    away.ask(&carol, Request::SetRelation { account: alice, relation: Relation::Accepted }).await;
    away.write(&bob).await;
    away.write(&carol).await;
    away.woken(&bob, 1);
    away.woken(&carol, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_blocked_wakes_nobody_whatever_was_accepted() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    let alice = away.alice.account;
    away.ask(&bob, Request::SetRelation { account: alice, relation: Relation::Blocked }).await;
    away.write(&bob).await;
    away.settle().await;
    assert_eq!(away.wakes(&bob), Vec::<String>::new());
    away.ask(&bob, Request::SetRelation { account: alice, relation: Relation::None }).await;
    away.write(&bob).await;
    away.woken(&bob, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_muted_conversation_wakes_nobody_until_its_time_is_over_and_then_not_for_the_past() {
    const MUTE_MS: u64 = 4_000;
    let mut away = Away::start(&QUICK).await;
    let (bob, carol) = (away.sleeper().await, away.sleeper().await);
    let until = now_ms() + MUTE_MS;
    away.ask(&bob, takes(&bob, until)).await;
    away.ask(&carol, takes(&carol, u64::MAX)).await;
    away.write(&bob).await;
    away.write(&carol).await;
    assert!(now_ms() < until, "the messages came while it was muted");
    until_ms(until);
    away.settle().await;
    assert_eq!((away.wakes(&bob), away.wakes(&carol)), (vec![], vec![]));
    away.write(&bob).await;
    away.write(&carol).await;
    away.woken(&bob, 1);
    away.settle().await;
    assert_eq!(away.wakes(&carol), Vec::<String>::new(), "until unmuted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_untaken_messages_expire_their_devices_are_warned_once() {
    const RETENTION_MS: u64 = 12_000;
    let options = Options { retention: Some("12s"), flags: QUICK.to_vec(), ..Options::default() };
    let mut away = Away::with(options).await;
    // A mute is no reason to lose messages; one has asked for nothing of the other.
    let (bob, carol) = (away.sleeper().await, away.stranger().await);
    away.ask(&bob, takes(&bob, u64::MAX)).await;
    away.write(&carol).await;
    away.write(&bob).await;
    let sent_ms = now_ms();
    eventually("a warning", Duration::from_millis(RETENTION_MS), || (!away.wakes(&bob).is_empty()).then_some(()));
    let after_ms = now_ms() - sent_ms;
    assert_eq!(away.wakes(&bob), ["expiring"]);
    assert!((RETENTION_MS * 2 / 3 - 500..RETENTION_MS).contains(&after_ms), "{after_ms} ms after it was sent");
    until_ms(sent_ms + RETENTION_MS);
    away.wait_for_rest();
    assert_eq!(away.wakes(&bob), ["expiring"], "once");
    assert_eq!(away.wakes(&carol), Vec::<String>::new(), "requests expire unheard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_has_one_target_and_tells_by_its_digest_which() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    let first = bob.subscription.target(true);
    let offer = away.offer(&bob.device).await;
    assert_eq!((offer.target, offer.services.len()), (Some(first.digest()), 3), "{offer:?}");
    assert!(offer.vapid_key.is_some());
    let second = away.outside.web.subscribe();
    away.ask(&bob, Request::SetPushTarget(second.target(false))).await;
    assert_eq!(away.offer(&bob.device).await.target, Some(second.target(false).digest()));
    away.targets(1);

    let mut raw = Raw::dial(away.world.url()).await;
    for (claimed, differs) in [(Some(second.target(false).digest()), false), (Some(first.digest()), true), (None, true)]
    {
        let mut claim = bob.device.claim(false, START);
        claim.push_digest = claimed;
        let hello = bob.device.hello(&raw, &claim);
        raw.write(&hello).await;
        let ServerFrame::Ready(ready) = raw.frame().await else { panic!("no Ready") };
        assert_eq!(ready.push_differs, differs, "{claimed:?}");
        raw.close().await;
        raw = Raw::dial(away.world.url()).await;
    }
    away.write(&bob).await;
    eventually("a wake-up", SOON, || (away.outside.web.wakes_of(&second).len() == 1).then_some(()));
    assert_eq!(away.wakes(&bob), Vec::<String>::new(), "the first target is not used any more");
    let used = away.outside.web.service.seen();
    assert!(used.iter().all(|seen| seen.header("urgency") == "low"), "silent as it was asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_goes_when_it_is_removed_and_with_its_device_and_its_account() {
    let mut away = Away::start(&QUICK).await;
    let (bob, carol, dora) = (away.sleeper().await, away.sleeper().await, away.sleeper().await);
    away.targets(3);
    away.ask(&bob, Request::RemovePushTarget).await;
    away.targets(2);
    assert_eq!(away.offer(&bob.device).await.target, None);

    let (tablet, log) = sibling(&away, &carol.device).await;
    let (raw, _) = tablet.connect(away.world.url(), false, START).await;
    let entry = sign_revoke(&log, (tablet.device, &tablet.proof), carol.device.device, now_ms());
    let answer = raw.request(&Request::AppendDeviceLog { entry }).await;
    assert!(matches!(answer, Response::DeviceLogAppended { .. }), "{answer:?}");
    away.targets(1);

    let (raw, _) = dora.device.connect(away.world.url(), false, START).await;
    tell(&raw, &Request::DeleteAccount { handle: dora.handle.clone() }).await;
    assert_eq!(raw.ended().await.code, Code::AccountGone);
    away.targets(0);

    away.write(&bob).await;
    away.settle().await;
    for sleeper in [&bob, &carol, &dora] {
        assert_eq!(away.wakes(sleeper), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_the_service_does_not_know_any_more_is_dropped_and_a_new_one_serves() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    away.outside.web.unsubscribe(&bob.subscription);
    away.write(&bob).await;
    away.targets(0);
    eventually("it is counted", SOON, || (away.counted("gureum_push_dropped_total", &["web_push"]) == 1).then_some(()));
    assert_eq!(away.offer(&bob.device).await.target, None, "so that the device sets it again");

    let second = away.outside.web.subscribe();
    away.ask(&bob, Request::SetPushTarget(second.target(true))).await;
    away.write(&bob).await;
    eventually("a wake-up", SOON, || (away.outside.web.wakes_of(&second).len() == 1).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_is_older_than_the_target_drops_nothing() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    let apns = |token: u8| {
        let address = PushAddress::Apns { token: vec![token; 32].into(), sandbox: false };
        PushTarget { address, visible: true }
    };
    away.ask(&bob, Request::SetPushTarget(apns(7))).await;
    // As Apple says it of a token that was gone for an hour when the app came back and had the same one.
    away.outside.apns.service.next([apns::unregistered(now_ms() - 60 * 60 * 1_000)]);
    away.write(&bob).await;
    let _ = away.outside.apns.service.wait_for(1);
    away.settle().await;
    assert_eq!(away.outside.apns.service.statuses(), [Some(410)]);
    assert_eq!(away.offer(&bob.device).await.target, Some(apns(7).digest()));

    away.outside.apns.service.next([apns::unregistered(now_ms() + 60 * 1_000)]);
    away.ask(&bob, Request::SetPushTarget(apns(8))).await;
    away.write(&bob).await;
    eventually("the target is dropped", SOON, || {
        (away.counted("gureum_push_dropped_total", &["apns"]) == 1).then_some(())
    });
    assert_eq!(away.offer(&bob.device).await.target, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_wakes_its_devices_and_says_nothing_of_what_for() {
    let mut away = Away::start(&QUICK).await;
    let mut people = Vec::new();
    for _ in 0..3 {
        people.push(away.sleeper().await);
    }
    let token = "fcm-registration-token:of-a-device";
    let fcm = PushTarget { address: PushAddress::Fcm { token: token.to_owned() }, visible: true };
    let address = PushAddress::Apns { token: vec![9; 32].into(), sandbox: true };
    away.ask(&people[1], Request::SetPushTarget(fcm)).await;
    away.ask(&people[2], Request::SetPushTarget(PushTarget { address, visible: true })).await;
    for sleeper in &people {
        away.write(sleeper).await;
    }
    away.woken(&people[0], 1);
    eventually("FCM", SOON, || (away.outside.fcm.messages().len() == 1).then_some(()));
    let _ = away.outside.apns.service.wait_for(1);
    away.wait_for_rest();
    for service in ["apns", "fcm", "web_push"] {
        assert_eq!(away.counted("gureum_push_sent_total", &[service, "messages"]), 1, "{service}");
        assert_eq!(away.counted("gureum_push_sent_total", &[service, "expiring"]), 0, "{service}");
    }
    let conversation = people[0].talk.id.to_string();
    let bodies = [away.outside.fcm.messages(), away.outside.apns.service.seen(), away.outside.web.service.seen()];
    for seen in bodies.iter().flatten() {
        let body = String::from_utf8_lossy(&seen.body);
        for told in ["a message", "alice", "sleeper", conversation.as_str()] {
            assert!(!body.contains(told), "{told} in {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_fails_is_asked_again_until_it_has_woken_the_device_once() {
    let mut away = Away::start(&QUICK).await;
    let bob = away.sleeper().await;
    away.outside.web.service.next([Reply::new(503, "").with("retry-after", "1")]);
    away.write(&bob).await;
    away.woken(&bob, 1);
    away.wait_for_rest();
    assert_eq!(away.outside.web.service.statuses(), [Some(503), Some(201)]);
    assert_eq!(away.counted("gureum_push_failed_total", &["web_push", "busy_service"]), 1);
    assert_eq!(away.counted("gureum_push_retried_total", &["web_push"]), 1);
    away.targets(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_set_up_is_not_offered_and_refused() {
    let world = World::start_with(Options { flags: vec!["--web-push", "off"], ..Options::default() });
    let bob = Device::registered(&world, "bob").await;
    let (raw, _) = bob.connect(world.url(), false, START).await;
    let offer = raw.request(&Request::ReadPush).await;
    assert_eq!(offer, Response::Push(PushOffer::default()));
    let target = Outside::start().web.subscribe().target(true);
    let refused = raw.request(&Request::SetPushTarget(target)).await;
    assert!(matches!(&refused, Response::Refused(why) if why.code == Code::PushUnavailable), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_knocks_at_no_private_address_unless_it_may() {
    let mut two = Two::in_world(World::start_with(Options { flags: QUICK.to_vec(), ..Options::default() })).await;
    let web = Outside::start().web;
    let (raw, _) = two.bob.connect(two.world.url(), false, START).await;
    let accepts = Request::SetConversation { conversation: two.talk.id, accepted: true, muted_until_ms: 0 };
    done(&raw, accepts).await;
    let mut target = web.subscribe().target(true);
    let answer = raw.request(&Request::SetPushTarget(target.clone())).await;
    let is_refused = matches!(&answer, Response::Refused(refusal) if refusal.code == Code::PushTargetInvalid);
    assert!(is_refused, "an address says at once where it is: {answer:?}");
    let PushAddress::WebPush { endpoint, .. } = &mut target.address else { panic!("a target of Web Push") };
    *endpoint = endpoint.replace("127.0.0.1", "localhost");
    done(&raw, Request::SetPushTarget(target)).await;
    two.send(&[b"a message"]).await;
    let failed = || counted(&two.world, "gureum_push_failed_total", &["web_push"]);
    eventually("it is given up", SOON, || (failed() > 0).then_some(()));
    assert_eq!(web.service.connections(), 0);
    assert_eq!(counted(&two.world, "gureum_push_sent_total", &["web_push"]), 0);
}
