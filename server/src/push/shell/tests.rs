//! Push around its machine: with a writer, a store and a keyring as a server has them, in virtual time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use gureum_proto::{ConversationId, ConversationKind, PushAddress, Send as SendFrame, Sent};

use super::*;
use crate::metrics::{Metrics, Page};
use crate::push::PushFuture;
use crate::router::{Answers, PlanConfig, PushTargetPlan, RouterParts, WriterEnd};
use crate::seal::{Keyring, SecretName};
use crate::session::Authenticated;
use crate::store::conformance::expiry;
use crate::store::key::{ConversationTag, CursorTag};
use crate::store::memory::MemoryStore;
use crate::store::record::{ConversationHead, Cursor, InboxHead, Member, PreferenceRecord, PushStateRecord};
use crate::store::{Batch, Durability};
use crate::wake::Hub;

const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
const TALK: ConversationId = ConversationId::from_bytes([0xc0; 16]);
const RETENTION_MS: u64 = 3 * 24 * 60 * 60 * 1_000;

const CONFIG: PushConfig = PushConfig {
    delay_ms: 5_000,
    interval_ms: 30_000,
    silent_interval_ms: 1_200_000,
    close_delay_ms: 60_000,
    sweep_ms: 3_600_000,
    retention_ms: RETENTION_MS,
};

fn device(account: AccountId) -> Authenticated {
    Authenticated::for_test(account, DeviceId::from_bytes(account.to_bytes()))
}

/// The runtime's time, from a start.
struct Virtual(Instant);

impl WallClock for Virtual {
    fn wall_ms(&self) -> u64 {
        1_800_000_000_000 + self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis().try_into().unwrap()
    }
}

/// Nobody waits for an answer.
struct Deaf;

impl Answers for Deaf {
    fn answer(&self, _: Vec<Sent>) {}
}

/// What a service does with a request.
enum Answer {
    Now(Outcome),
    After(Duration, Outcome),
    Never,
    Panic,
}

/// A service that takes everything, but for what it was told before.
#[derive(Default)]
struct Service {
    answers: Mutex<VecDeque<Answer>>,
    heard: Mutex<Vec<(PushTarget, WakeKind)>>,
}

impl Push for Service {
    fn send<'a>(&'a self, target: &'a PushTarget, kind: WakeKind, _: u64) -> PushFuture<'a> {
        self.heard.lock().unwrap().push((target.clone(), kind));
        let answer = self.answers.lock().unwrap().pop_front();
        Box::pin(async move {
            match answer.unwrap_or(Answer::Now(Outcome::Accepted)) {
                Answer::Now(outcome) => outcome,
                Answer::After(wait, outcome) => {
                    tokio::time::sleep(wait).await;
                    outcome
                }
                Answer::Never => std::future::pending().await,
                Answer::Panic => panic!("a bug of a service"),
            }
        })
    }

    fn offers(&self, service: PushService) -> bool {
        service != PushService::Apns
    }
}

/// A server without a network, on which Alice writes to Bob.
struct Bench {
    store: Arc<MemoryStore>,
    keyring: Arc<Keyring>,
    tokens: Arc<TokenSeal>,
    feed: Arc<PushFeed>,
    router: Router,
    _end: WriterEnd,
    clock: Arc<Clock>,
    wall: Arc<Virtual>,
    service: Arc<Service>,
    metrics: Arc<Metrics>,
    rendered: Page,
    counter: u64,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// Bob can be woken, and the round after the start is over.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new(expiry().1));
        populate(&store);
        let wall = Arc::new(Virtual(Instant::now()));
        let clock = Arc::new(Clock::resume(Arc::<Virtual>::clone(&wall), RETENTION_MS, None).unwrap());
        let keyring = Arc::new(Keyring::open(dir.path(), None, RETENTION_MS).unwrap());
        let tokens = Arc::new(TokenSeal::new(&keyring.secret(SecretName::Push).unwrap()).unwrap());
        let (metrics, rendered) = Metrics::new();
        let (metrics, feed) = (Arc::new(metrics), Arc::<PushFeed>::default());
        let parts = RouterParts {
            store: Arc::<MemoryStore>::clone(&store),
            seal: Arc::<Keyring>::clone(&keyring),
            clock: Arc::clone(&clock),
            wake: Arc::new(Hub::new()),
            push: Arc::clone(&feed),
            hasher: None,
            floors: Arc::default(),
            config: PlanConfig { retention_ms: RETENTION_MS, inbox_entries_max: 100, inbox_bytes_max: 1 << 20 },
            metrics: Arc::clone(&metrics),
        };
        let (router, end) = Router::start(parts, &Work::inline()).unwrap();
        let mut bench = Self {
            store,
            keyring,
            tokens,
            feed,
            router,
            _end: end,
            clock,
            wall,
            service: Arc::default(),
            metrics,
            rendered,
            counter: 0,
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            _dir: dir,
        };
        bench.start();
        bench.target(&target("first")).await;
        bench.pass(120_000).await;
        bench
    }

    fn start(&mut self) {
        let parts = PushParts {
            feed: Arc::clone(&self.feed),
            store: Arc::<MemoryStore>::clone(&self.store),
            seal: Arc::<Keyring>::clone(&self.keyring),
            tokens: Arc::clone(&self.tokens),
            router: self.router.clone(),
            clock: Arc::clone(&self.clock),
            wall: Arc::<Virtual>::clone(&self.wall),
            push: Arc::<Service>::clone(&self.service),
            work: Work::inline(),
            metrics: self.metrics.push.clone(),
            config: CONFIG,
        };
        self.stop = CancellationToken::new();
        self.tasks.spawn(run(parts, self.stop.clone()));
    }

    async fn end(&mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }

    /// As after a crash, or a stop: what the feed knows is read anew.
    fn start_again(&mut self) {
        drop(self.feed.take());
        load(self.store.as_ref(), &self.feed, self.service.as_ref()).unwrap();
        self.start();
    }

    async fn target(&self, target: &PushTarget) {
        let record = self.sealed(target, &self.tokens);
        self.router.change(Change::SetPushTarget(PushTargetPlan { from: device(BOB), record })).await.unwrap();
    }

    fn sealed(&self, target: &PushTarget, tokens: &TokenSeal) -> PushTargetRecord {
        let (nonce, sealed) = tokens.seal(BOB, device(BOB).device(), target).unwrap();
        PushTargetRecord {
            digest: target.digest(),
            service: target.service(),
            host: 0,
            visible: target.visible,
            set_ms: self.clock.now_ms(),
            generation: self.clock.now_ms(),
            nonce,
            sealed,
        }
    }

    /// Alice writes a message.
    async fn message(&mut self) {
        self.counter += 1;
        let ciphertext = Bytes::from_static(b"sealed");
        let send = SendFrame { counter: self.counter, conversation: TALK, epoch: 1, ciphertext, silent: false };
        let permit = self.router.reserve(1).await.unwrap();
        let submission = Submission::Sends { from: device(ALICE), sends: vec![send], answers: Arc::new(Deaf), permit };
        self.router.submit(submission).await.unwrap();
    }

    async fn pass(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.service.answers.lock().unwrap().extend(answers);
    }

    fn state(&self) -> PushStateRecord {
        let key = key::push_state(&BOB, &device(BOB).device());
        read(self.store.as_ref(), Family::Push, key.as_ref()).unwrap().unwrap_or_default()
    }

    /// Bob has to know something at once.
    fn alarm(&self) {
        let (bob, owed_ms) = (device(BOB).device(), self.clock.now_ms());
        let mut batch = Batch::new();
        batch.put_record(Family::Push, key::push_alarm(&BOB, &bob), &owed_ms);
        self.store.write(&batch, Durability::Synced).unwrap();
        self.feed.alarmed(&[(BOB, bob, owed_ms)]);
    }

    fn is_alarmed(&self) -> bool {
        let key = key::push_alarm(&BOB, &device(BOB).device());
        self.store.get(Family::Push, key.as_ref()).unwrap().is_some()
    }

    fn has_target(&self) -> bool {
        let key = key::push_target(&BOB, &device(BOB).device());
        let in_store = self.store.get(Family::Push, key.as_ref()).unwrap().is_some();
        assert_eq!(self.feed.has(BOB, device(BOB).device()), in_store);
        in_store
    }

    /// With what Bob was woken since the last check.
    #[track_caller]
    fn check(&self, expected: &[WakeKind]) {
        let heard: Vec<_> = self.service.heard.lock().unwrap().drain(..).map(|(_, kind)| kind).collect();
        assert_eq!(heard, expected);
    }

    #[track_caller]
    fn check_metric(&self, line: &str) {
        let text = self.rendered.render();
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
}

fn target(token: &str) -> PushTarget {
    PushTarget { address: PushAddress::Fcm { token: token.to_owned() }, visible: true }
}

/// A conversation of Alice and Bob, which Bob has accepted.
fn populate(store: &MemoryStore) {
    let mut batch = Batch::new();
    let member = |account| Member { account, device: device(account).device(), leaf: 0 };
    let members = vec![member(ALICE), member(BOB)];
    let head = ConversationHead { epoch: 1, created_ms: 0, kind: ConversationKind::Direct, members };
    batch.put_record(Family::Conversation, key::conversation(&TALK, ConversationTag::Head), &head);
    batch.put_record(Family::InboxHead, key::inbox_head(&BOB), &InboxHead::default());
    let cursor = key::cursor(&BOB, &device(BOB).device(), CursorTag::Cursor);
    batch.put_record(Family::Cursor, cursor, &Cursor::default());
    let preference = PreferenceRecord { accepted: true, muted_until_ms: 0 };
    batch.put_record(Family::Directory, key::preference(&BOB, &TALK), &preference);
    store.write(&batch, Durability::Synced).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_takes_wakes_its_reader_once_and_that_is_written_down() {
    let mut bench = Bench::new().await;
    bench.message().await;
    bench.pass(4_900).await;
    bench.check(&[]);
    bench.pass(200).await;
    assert_eq!(bench.service.heard.lock().unwrap()[0].0, target("first"));
    bench.check(&[WakeKind::Messages]);
    assert_eq!(bench.state().woken_seq, 1);
    bench.message().await;
    bench.pass(3_000_000).await;
    bench.check(&[]);
    bench.check_metric("gureum_push_sent_total{service=\"fcm\",kind=\"messages\"} 1");
    bench.check_metric("gureum_push_delay_seconds_count 1");
    bench.check_metric("gureum_push_targets 1");
    bench.check_metric("gureum_push_in_flight{service=\"fcm\"} 0");
}

#[tokio::test(start_paused = true)]
async fn what_the_device_takes_in_time_wakes_nobody() {
    let mut bench = Bench::new().await;
    bench.message().await;
    bench.pass(1_000).await;
    let position = gureum_proto::Position { seq: 1, count: 1 };
    bench.router.submit(Submission::Ack { from: device(BOB), position }).await.unwrap();
    bench.pass(600_000).await;
    bench.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_has_connected_is_woken_again() {
    let mut bench = Bench::new().await;
    bench.message().await;
    bench.pass(6_000).await;
    bench.check(&[WakeKind::Messages]);
    bench.feed.connected(BOB, device(BOB).device());
    bench.feed.closed(BOB, device(BOB).device());
    bench.pass(1_000).await;
    assert_eq!(bench.state().woken_seq, 0);
    bench.pass(60_000).await;
    bench.check(&[WakeKind::Messages]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_void_is_forgotten() {
    let mut bench = Bench::new().await;
    bench.answer([Answer::Now(Outcome::Gone { since_ms: Some(bench.clock.now_ms()) })]);
    bench.message().await;
    bench.pass(6_000).await;
    bench.check(&[WakeKind::Messages]);
    assert!(!bench.has_target());
    bench.check_metric("gureum_push_dropped_total{service=\"fcm\"} 1");
    bench.check_metric("gureum_push_targets 0");
    bench.check_metric("gureum_push_waiting 0");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_was_set_after_the_refusal_stays() {
    let mut bench = Bench::new().await;
    bench.answer([Answer::Now(Outcome::Gone { since_ms: Some(1) })]);
    bench.message().await;
    bench.pass(6_000).await;
    bench.check(&[WakeKind::Messages]);
    assert!(bench.has_target());
    // It is tried again some time.
    bench.pass(900_000).await;
    bench.check(&[WakeKind::Messages]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_was_set_while_the_one_before_was_refused_stays() {
    let mut bench = Bench::new().await;
    let gone = Outcome::Gone { since_ms: Some(u64::MAX) };
    bench.answer([Answer::After(Duration::from_secs(2), gone)]);
    bench.message().await;
    bench.pass(6_000).await;
    bench.check(&[WakeKind::Messages]);
    bench.target(&target("newer")).await;
    bench.pass(3_000).await;
    assert!(bench.has_target());
    bench.pass(60_000).await;
    assert_eq!(bench.service.heard.lock().unwrap()[0].0, target("newer"));
    bench.check(&[WakeKind::Messages]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_open_is_dropped_and_nothing_is_sent() {
    let mut bench = Bench::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Keyring::open(elsewhere.path(), None, RETENTION_MS).unwrap();
    let other = TokenSeal::new(&other.secret(SecretName::Push).unwrap()).unwrap();
    let record = bench.sealed(&target("first"), &other);
    let mut batch = Batch::new();
    batch.put_record(Family::Push, key::push_target(&BOB, &device(BOB).device()), &record);
    bench.store.write(&batch, Durability::Synced).unwrap();
    bench.message().await;
    bench.pass(600_000).await;
    bench.check(&[]);
    assert!(!bench.has_target());
    bench.check_metric("gureum_push_waiting 0");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_is_waited_for_so_long_and_tried_again() {
    let mut bench = Bench::new().await;
    bench.answer([Answer::Never]);
    bench.message().await;
    bench.pass(5_500).await;
    bench.check_metric("gureum_push_in_flight{service=\"fcm\"} 1");
    bench.pass(PUSH_SEND_MS_MAX).await;
    bench.check_metric("gureum_push_failed_total{service=\"fcm\",reason=\"timeout\"} 1");
    bench.check_metric("gureum_push_in_flight{service=\"fcm\"} 0");
    bench.check_metric("gureum_push_waiting 1");
    bench.pass(10_000).await;
    bench.check(&[WakeKind::Messages, WakeKind::Messages]);
    bench.check_metric("gureum_push_retried_total{service=\"fcm\"} 1");
    assert_eq!(bench.state().woken_seq, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_panics_is_one_that_has_failed() {
    let mut bench = Bench::new().await;
    bench.answer([Answer::Panic]);
    bench.message().await;
    bench.pass(20_000).await;
    bench.check(&[WakeKind::Messages, WakeKind::Messages]);
    assert_eq!(bench.state().woken_seq, 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_goes_on_where_the_last_one_has_ended() {
    let mut bench = Bench::new().await;
    bench.message().await;
    bench.pass(6_000).await;
    bench.check(&[WakeKind::Messages]);
    bench.end().await;
    bench.start_again();
    bench.message().await;
    bench.pass(600_000).await;
    bench.check(&[]);
    assert_eq!(bench.feed.devices(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_a_request_is_under_way_wakes_once_more() {
    let mut bench = Bench::new().await;
    bench.answer([Answer::Never]);
    bench.message().await;
    bench.pass(6_000).await;
    bench.check(&[WakeKind::Messages]);
    bench.tasks.shutdown().await;
    bench.start_again();
    bench.pass(59_000).await;
    bench.check(&[]);
    bench.pass(2_000).await;
    bench.check(&[WakeKind::Messages]);
    assert_eq!(bench.state().woken_seq, 1);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_has_to_know_wakes_them_after_a_crash_and_then_no_more() {
    let mut bench = Bench::new().await;
    bench.answer([Answer::Never]);
    bench.alarm();
    bench.pass(1_000).await;
    bench.check(&[WakeKind::Messages]);
    bench.tasks.shutdown().await;
    assert!(bench.is_alarmed());
    bench.start_again();
    bench.pass(1_000).await;
    bench.check(&[WakeKind::Messages]);
    assert!(!bench.is_alarmed());
    bench.end().await;
    bench.start_again();
    bench.pass(120_000).await;
    bench.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_has_connected_has_heard_what_there_is_to_know_after_a_start_as_well() {
    let mut bench = Bench::new().await;
    bench.answer([Answer::Never]);
    bench.alarm();
    bench.pass(1_000).await;
    bench.check(&[WakeKind::Messages]);
    bench.feed.connected(BOB, device(BOB).device());
    bench.pass(1_000).await;
    assert!(!bench.is_alarmed());
    bench.tasks.shutdown().await;
    bench.start_again();
    bench.pass(120_000).await;
    bench.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_under_way_but_not_for_a_service_that_hangs() {
    let mut bench = Bench::new().await;
    bench.answer([Answer::After(Duration::from_millis(800), Outcome::Accepted)]);
    bench.message().await;
    bench.pass(5_100).await;
    bench.check(&[WakeKind::Messages]);
    assert_eq!(bench.state().woken_seq, 0);
    bench.end().await;
    bench.pass(10).await;
    assert_eq!(bench.state().woken_seq, 1);

    bench.start_again();
    bench.feed.connected(BOB, device(BOB).device());
    bench.answer([Answer::Never]);
    bench.pass(62_000).await;
    bench.check(&[WakeKind::Messages]);
    let began = Instant::now();
    bench.end().await;
    assert!(began.elapsed() < Duration::from_millis(PUSH_END_MS_MAX + 100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_woken_by_a_service_that_is_not_used_is_left_alone_and_kept() {
    let bench = Bench::new().await;
    let apns = PushTarget {
        address: PushAddress::Apns { token: Bytes::from_static(&[7; 32]), sandbox: false },
        visible: true,
    };
    let record = bench.sealed(&apns, &bench.tokens);
    let alone = DeviceId::from_bytes([9; 16]);
    let mut batch = Batch::new();
    batch.put_record(Family::Push, key::push_target(&ALICE, &alone), &record);
    let state = PushStateRecord { woken_seq: 3, woken_ms: 4, warned_ms: 5 };
    batch.put_record(Family::Push, key::push_state(&BOB, &device(BOB).device()), &state);
    bench.store.write(&batch, Durability::Synced).unwrap();

    let feed = PushFeed::default();
    load(bench.store.as_ref(), &feed, bench.service.as_ref()).unwrap();
    assert_eq!((feed.devices(), feed.has(ALICE, alone)), (1, false));
    let known = Targeted { route: crate::push::Route::Fcm, visible: true, state };
    assert_eq!(feed.take().targets, HashMap::from([((BOB, device(BOB).device()), Some(known))]));
    let kept = bench.store.get(Family::Push, key::push_target(&ALICE, &alone).as_ref()).unwrap();
    assert!(kept.is_some());
}
