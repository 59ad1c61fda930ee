//! The writer: a read that fails refuses what needed it and nobody else's, a write that fails for good ends it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use bytes::Bytes;
use gureum_proto::{ConversationId, MessageId, Position, PushDigest, PushService};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::router::{ClaimPlan, PushTargetPlan};
use crate::store::conformance::{RETENTION_MS, expiry};
use crate::store::faulty::FaultyStore;
use crate::store::key::{self, ConversationTag, CursorTag, KeyPackageKind};
use crate::store::memory::MemoryStore;
use crate::store::record::{
    ConversationHead, ConversationKind, Cursor, InboxHead, Member, PushTargetRecord, SealedMessage,
};
use crate::store::{Batch, Family, read};
use crate::wake::Hub;

const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
const EVE: AccountId = AccountId::from_bytes([0xe0; 16]);
const WITH_BOB: ConversationId = ConversationId::from_bytes([0xcb; 16]);
const WITH_EVE: ConversationId = ConversationId::from_bytes([0xce; 16]);

/// Leaves bodies as they are.
struct Plain;

impl Seal for Plain {
    fn seal(&self, _id: MessageId, plain: &[u8], _now_ms: u64) -> Result<SealedMessage, StoreError> {
        Ok(SealedMessage { key_id: 0, nonce: [0; 12], ciphertext: Bytes::copy_from_slice(plain) })
    }
}

/// Hears the answers to one submission.
struct Ear(mpsc::UnboundedSender<Vec<Sent>>);

impl Answers for Ear {
    fn answer(&self, sent: Vec<Sent>) {
        self.0.send(sent).unwrap();
    }
}

fn device(account: AccountId) -> Authenticated {
    Authenticated::for_test(account, DeviceId::from_bytes(account.to_bytes()))
}

fn send(counter: u64, conversation: ConversationId) -> SendFrame {
    SendFrame { counter, conversation, epoch: 1, ciphertext: Bytes::from_static(b"sealed"), silent: false }
}

/// A writer, and two conversations of Alice.
struct Bench {
    store: Arc<FaultyStore<MemoryStore>>,
    feed: Arc<PushFeed>,
    router: Router,
    end: WriterEnd,
    metrics: crate::metrics::Page,
}

/// What a writer works with, the store in it, and what is counted.
fn parts() -> (RouterParts, Arc<FaultyStore<MemoryStore>>, crate::metrics::Page) {
    let (_, expiry) = expiry();
    let clock = Arc::clone(&expiry.clock);
    let store = Arc::new(FaultyStore::new(MemoryStore::new(expiry)));
    let mut batch = Batch::new();
    for (conversation, peer) in [(WITH_BOB, BOB), (WITH_EVE, EVE)] {
        let member = |account| Member { account, device: device(account).device(), leaf: 0 };
        let members = vec![member(ALICE), member(peer)];
        let head = ConversationHead { epoch: 1, created_ms: 0, kind: ConversationKind::Direct, members };
        batch.put_record(Family::Conversation, key::conversation(&conversation, ConversationTag::Head), &head);
        batch.put_record(Family::InboxHead, key::inbox_head(&peer), &InboxHead::default());
        let cursor = key::cursor(&peer, &device(peer).device(), CursorTag::Cursor);
        batch.put_record(Family::Cursor, cursor, &Cursor::default());
    }
    store.write(&batch, Durability::Synced).unwrap();
    let (metrics, rendered) = Metrics::new();
    let parts = RouterParts {
        store: Arc::clone(&store) as _,
        seal: Arc::new(Plain),
        clock,
        wake: Arc::new(Hub::new()),
        push: Arc::default(),
        hasher: None,
        floors: Arc::default(),
        config: PlanConfig { retention_ms: RETENTION_MS, inbox_entries_max: 100, inbox_bytes_max: 1 << 20 },
        metrics: Arc::new(metrics),
    };
    (parts, store, rendered)
}

impl Bench {
    fn new() -> Self {
        let (parts, store, metrics) = parts();
        let feed = Arc::clone(&parts.push);
        let (router, end) = Router::start(parts, &Work::inline()).unwrap();
        Self { store, feed, router, end, metrics }
    }

    /// Puts sends of Alice into the queue, as one submission.
    async fn submit(&self, sends: Vec<SendFrame>) -> UnboundedReceiver<Vec<Sent>> {
        let (answers, answered) = mpsc::unbounded_channel();
        let permit = self.router.reserve(1).await.unwrap();
        let submission = Submission::Sends { from: device(ALICE), sends, answers: Arc::new(Ear(answers)), permit };
        self.router.submit(submission).await.unwrap();
        answered
    }

    /// Counters and numbers of what was accepted, or the code.
    async fn sends(&self, sends: Vec<SendFrame>) -> Vec<(u64, Result<u64, Code>)> {
        let sent = self.submit(sends).await.recv().await.unwrap();
        let short = |sent: Sent| (sent.counter, sent.result.map(|yes| yes.number).map_err(|refusal| refusal.code));
        sent.into_iter().map(short).collect()
    }

    fn head_seq(&self, account: AccountId) -> u64 {
        let head: Option<InboxHead> =
            read(self.store.inner(), Family::InboxHead, key::inbox_head(&account).as_ref()).unwrap();
        head.unwrap_or_default().seq
    }

    fn unplanned(&self) -> u64 {
        let text = self.metrics.render();
        text.lines().find_map(|line| line.strip_prefix("gureum_unplanned_total ")?.parse().ok()).unwrap()
    }
}

#[tokio::test]
async fn damage_of_one_inbox_refuses_what_is_sent_to_it_and_nothing_else() {
    let bench = Bench::new();
    bench.store.damage(Family::InboxHead, key::inbox_head(&BOB).as_ref());
    let mixed = || vec![send(1, WITH_BOB), send(2, WITH_EVE), send(3, WITH_BOB)];
    let refused = Err(Code::Unavailable);
    assert_eq!(bench.sends(mixed()).await, [(1, refused), (2, Ok(1)), (3, refused)]);
    // The sender repeats: what was accepted is answered as before.
    assert_eq!(bench.sends(mixed()).await, [(1, refused), (2, Ok(1)), (3, refused)]);
    assert_eq!(bench.sends(vec![send(4, WITH_EVE)]).await, [(4, Ok(2))]);
    assert_eq!((bench.head_seq(BOB), bench.head_seq(EVE)), (0, 2));
    assert_eq!(bench.unplanned(), 2, "what follows in the conversation is not tried");
    bench.store.mend();
    assert_eq!(bench.sends(mixed()).await, [(1, Ok(1)), (2, Ok(1)), (3, Ok(2))]);
    assert_eq!(bench.head_seq(BOB), 2);
}

#[tokio::test]
async fn an_ack_that_meets_damage_holds_up_nobody() {
    let bench = Bench::new();
    assert_eq!(bench.sends(vec![send(1, WITH_BOB)]).await, [(1, Ok(1))]);
    let cursor = key::cursor(&BOB, &device(BOB).device(), CursorTag::Cursor);
    bench.store.damage(Family::Cursor, cursor.as_ref());
    let position = Position { seq: 1, count: 1 };
    bench.router.submit(Submission::Ack { from: device(BOB), position }).await.unwrap();
    assert_eq!(bench.sends(vec![send(2, WITH_EVE)]).await, [(2, Ok(1))]);
    assert_eq!(bench.unplanned(), 1);
}

#[test]
fn a_batch_that_changes_nothing_makes_no_cursor_before_it_durable() {
    let (parts, _, _) = parts();
    let floors = Arc::clone(&parts.floors);
    let mut writer = Writer::new(parts);
    writer.unsynced_floors = vec![(EVE, 1); UNSYNCED_FLOORS_MAX];
    let mut write = |submission: Option<Submission>| {
        writer.plan_batch(&mut submission.into_iter());
        let written = writer.write();
        writer.finish(written).unwrap();
    };
    write(None);
    assert_eq!(floors.floor(&EVE), 0, "compaction drops what lies below a floor");
    write(Some(Submission::Seen { from: device(EVE) }));
    assert_eq!(floors.floor(&EVE), 1, "the next one that writes is synced");
}

#[tokio::test]
async fn a_change_that_meets_damage_is_refused_alone() {
    let bench = Bench::new();
    let package = key::key_package(&BOB, &device(BOB).device(), KeyPackageKind::OneTime, &[7; 32]);
    bench.store.damage(Family::KeyPackage, package.as_ref());
    let mut before = bench.submit(vec![send(1, WITH_EVE)]).await;
    let claim = |account: AccountId| {
        Change::ClaimKeyPackages(ClaimPlan { of: vec![(account, vec![device(account).device()])] })
    };
    let code = |changed: Result<Changed, Refusal>| changed.map_err(|refusal| refusal.code);
    assert_eq!(code(bench.router.change(claim(BOB)).await), Err(Code::Unavailable));
    assert_eq!(before.recv().await.unwrap()[0].result.as_ref().unwrap().number, 1);
    assert_eq!(code(bench.router.change(claim(EVE)).await), Err(Code::KeyPackagesExhausted));
    assert_eq!(bench.sends(vec![send(2, WITH_EVE)]).await, [(2, Ok(2))]);
}

#[tokio::test]
async fn a_write_that_fails_for_the_time_being_is_tried_again_and_one_that_fails_for_good_ends_the_writer() {
    let mut bench = Bench::new();
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    assert_eq!(bench.sends(vec![send(1, WITH_BOB)]).await, [(1, Err(Code::Unavailable))]);
    assert_eq!(bench.sends(vec![send(1, WITH_BOB)]).await, [(1, Ok(1))]);
    let damaged = StoreError::Damaged("planned".to_owned());
    bench.store.fail_next_write(damaged.clone());
    assert_eq!(bench.sends(vec![send(2, WITH_BOB)]).await, [(2, Err(Code::Unavailable))]);
    assert_eq!(bench.end.wait().await, Some(Err(damaged)));
}

fn push_target(generation: u64) -> PushTargetRecord {
    PushTargetRecord {
        digest: PushDigest::from_bytes([1; 16]),
        service: PushService::WebPush,
        host: 7,
        visible: true,
        set_ms: 1,
        generation,
        nonce: [0; 12],
        sealed: Bytes::from_static(b"sealed"),
    }
}

impl Bench {
    /// Bob's device can be woken.
    async fn target(&self, generation: u64) {
        let set = PushTargetPlan { from: device(BOB), record: push_target(generation) };
        let changed = self.router.change(Change::SetPushTarget(set)).await;
        assert!(changed.is_ok(), "{changed:?}");
    }

    fn push_state(&self) -> Option<PushStateRecord> {
        let key = key::push_state(&BOB, &device(BOB).device());
        read(self.store.inner(), Family::Push, key.as_ref()).unwrap()
    }
}

#[tokio::test]
async fn push_hears_of_what_was_written_for_who_can_be_woken_and_of_nothing_else() {
    let bench = Bench::new();
    bench.target(1).await;
    drop(bench.feed.take());
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    assert_eq!(bench.sends(vec![send(1, WITH_BOB)]).await, [(1, Err(Code::Unavailable))]);
    assert!(bench.feed.take().moves.is_empty());
    let sends = vec![send(1, WITH_BOB), send(2, WITH_EVE), send(3, WITH_BOB)];
    assert_eq!(bench.sends(sends).await, [(1, Ok(1)), (2, Ok(1)), (3, Ok(2))]);
    let moves = bench.feed.take().moves;
    assert_eq!(moves.len(), 1, "Eve cannot be woken");
    assert_eq!((moves[&BOB].grown_seq, moves[&BOB].taken_seq), (2, 0));
    for account in [BOB, EVE] {
        let position = Position { seq: 1, count: 1 };
        bench.router.submit(Submission::Ack { from: device(account), position }).await.unwrap();
    }
    assert_eq!(bench.sends(vec![send(4, WITH_EVE)]).await, [(4, Ok(2))]);
    let moves = bench.feed.take().moves;
    assert_eq!(moves.len(), 1);
    assert_eq!((moves[&BOB].grown_seq, moves[&BOB].taken_seq), (0, 1));
}

#[tokio::test]
async fn push_knows_a_target_when_its_device_is_answered_and_until_it_is_dropped() {
    let bench = Bench::new();
    let of_bob = (BOB, device(BOB).device());
    bench.target(1).await;
    let set = bench.feed.take().targets;
    let known = set[&of_bob].unwrap();
    assert_eq!((known.route, known.visible), (crate::push::Route::Web(7), true));
    let drop_of = |generation| Change::DropPushTarget { account: BOB, device: of_bob.1, generation };
    bench.router.change(drop_of(Some(2))).await.unwrap();
    assert!(bench.feed.has(BOB, of_bob.1), "another one was set since");
    bench.router.change(drop_of(Some(1))).await.unwrap();
    assert!(!bench.feed.has(BOB, of_bob.1));
    assert_eq!(bench.feed.take().targets.get(&of_bob), Some(&None));
    // A device that is none sets nothing.
    let stranger = Authenticated::for_test(BOB, DeviceId::from_bytes([9; 16]));
    let set = PushTargetPlan { from: stranger, record: push_target(3) };
    assert!(bench.router.change(Change::SetPushTarget(set)).await.is_err());
    assert_eq!(bench.feed.devices(), 0);
}

#[tokio::test]
async fn what_a_device_was_woken_for_is_written_down_with_its_target_alone() {
    let bench = Bench::new();
    let state = PushStateRecord { woken_seq: 1, woken_ms: 2, warned_ms: 3 };
    let pushed = || Submission::Pushed(vec![(BOB, device(BOB).device(), state)]);
    bench.router.submit(pushed()).await.unwrap();
    assert_eq!(bench.sends(vec![send(1, WITH_EVE)]).await, [(1, Ok(1))]);
    assert_eq!(bench.push_state(), None);
    bench.target(1).await;
    bench.router.submit(pushed()).await.unwrap();
    assert_eq!(bench.sends(vec![send(2, WITH_EVE)]).await, [(2, Ok(2))]);
    assert_eq!(bench.push_state(), Some(state));
}
