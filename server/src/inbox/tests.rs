//! What is read from an inbox is dense, and says exactly what is missing and why.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use gureum_proto::{ConversationId, DeviceId};

use super::*;
use crate::limits::TAIL_ENTRIES_MAX;
use crate::router::{Change, CommitPlan, Op, Plan, PlanConfig, Planner, Seal};
use crate::session::Authenticated;
use crate::store::conformance::{COMMIT_RETENTION_MS, RETENTION_MS, START_MS, expiry};
use crate::store::key::{ConversationTag, CursorTag};
use crate::store::memory::MemoryStore;
use crate::store::record::{ConversationHead, ConversationKind, Cursor, Mark, Member};
use crate::store::{Batch, Durability};
use crate::time::ManualClock;
use crate::wake::{Attached, Listener, Wake};

const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
const TALK: ConversationId = ConversationId::from_bytes([0xc0; 16]);

/// Seals under no key at all; a body that begins with `lost` is of a key that was destroyed.
struct Plain;

impl Seal for Plain {
    fn seal(&self, _id: MessageId, plain: &[u8], _now_ms: u64) -> Result<SealedMessage, StoreError> {
        Ok(SealedMessage { key_id: 0, nonce: [0; 12], ciphertext: Bytes::copy_from_slice(plain) })
    }
}

impl Open for Plain {
    fn open(&self, _id: MessageId, sealed: &SealedMessage) -> Result<Option<Bytes>, StoreError> {
        let is_lost = sealed.ciphertext.windows(4).any(|window| window == b"lost");
        Ok((!is_lost).then(|| sealed.ciphertext.clone()))
    }
}

struct Deaf;

impl Listener for Deaf {
    fn wake(&self) {}
    fn displace(&self) {}
    fn revoke(&self, _: gureum_proto::Code) {}
    fn notice(&self, _: gureum_proto::Notice) {}
    fn copied(&self) {}
    fn signal(&self, _: &Bytes) {}
}

fn alice() -> Authenticated {
    Authenticated::for_test(ALICE, DeviceId::from_bytes([1; 16]))
}

fn bob() -> Authenticated {
    Authenticated::for_test(BOB, DeviceId::from_bytes([2; 16]))
}

fn members() -> Vec<Member> {
    let member = |device: Authenticated| Member { account: device.account(), device: device.device(), leaf: 0 };
    vec![member(alice()), member(bob())]
}

/// Bob's inbox, with a writer and a reader of the tail.
struct Bench {
    store: Arc<MemoryStore>,
    time: Arc<ManualClock>,
    inboxes: Inboxes,
    planner: Planner,
    counter: u64,
    epoch: u64,
    _reader: Attached,
}

impl Bench {
    fn new() -> Self {
        Self::bounded(100_000)
    }

    fn bounded(inbox_entries_max: u64) -> Self {
        let (time, expiry) = expiry();
        let (clock, retentions) = (Arc::clone(&expiry.clock), expiry.retentions());
        let store = Arc::new(MemoryStore::new(expiry));
        let hub = Arc::new(Hub::new());
        let config = PlanConfig { retention_ms: RETENTION_MS, inbox_entries_max, inbox_bytes_max: 1 << 30 };
        let planner = Planner::new(Arc::clone(&store) as _, Arc::new(Plain), config, Box::new(|| 0));
        let head = ConversationHead { epoch: 1, created_ms: 0, kind: ConversationKind::Direct, members: members() };
        let mut batch = Batch::new();
        batch.put_record(Family::Conversation, key::conversation(&TALK, ConversationTag::Head), &head);
        let cursor = key::cursor(&BOB, &bob().device(), CursorTag::Cursor);
        batch.put_record(Family::Cursor, cursor, &Cursor::default());
        store.write(&batch, Durability::Synced).unwrap();
        let reader = hub.attach(BOB, bob().device(), true, Arc::new(Deaf));
        let inboxes = Inboxes { store: Arc::clone(&store) as _, hub, seal: Arc::new(Plain), clock, retentions };
        Self { store, time, inboxes, planner, counter: 0, epoch: 1, _reader: reader }
    }

    fn send(&mut self, body: &[u8]) {
        self.send_as(body, false);
    }

    fn send_as(&mut self, body: &[u8], silent: bool) {
        self.counter += 1;
        let ciphertext = Bytes::copy_from_slice(body);
        let (counter, epoch) = (self.counter, self.epoch);
        let send = gureum_proto::Send { counter, conversation: TALK, epoch, ciphertext, silent };
        let mut plan = Plan::default();
        self.planner.add(Op::Send { from: alice(), send }, self.inboxes.clock.now_ms(), &mut plan).unwrap();
        self.write(plan);
    }

    fn messages(&mut self, count: usize) {
        (0..count).for_each(|_| self.send(b"sealed"));
    }

    fn commit(&mut self) {
        self.commit_welcoming(Vec::new(), Bytes::new());
    }

    /// A commit whose Welcome is for Bob's account.
    fn welcome(&mut self) {
        self.commit_welcoming(vec![BOB], Bytes::from_static(b"welcome"));
    }

    fn commit_welcoming(&mut self, welcomed: Vec<AccountId>, welcome: Bytes) {
        self.counter += 1;
        let commit = CommitPlan {
            from: alice(),
            counter: self.counter,
            conversation: TALK,
            epoch: self.epoch,
            commit: Bytes::from_static(b"commit"),
            members: members(),
            welcomed,
            welcome,
            group_info: Bytes::from_static(b"info"),
            tree: Bytes::from_static(b"tree"),
        };
        self.epoch += 1;
        let mut plan = Plan::default();
        let now_ms = self.inboxes.clock.now_ms();
        self.planner.add_change(Change::Commit(commit), now_ms, &mut plan).unwrap().unwrap();
        self.write(plan);
    }

    /// The planner forgets what it had read.
    fn restart(&mut self) {
        let config = PlanConfig { retention_ms: RETENTION_MS, inbox_entries_max: 100_000, inbox_bytes_max: 1 << 30 };
        self.planner = Planner::new(Arc::clone(&self.store) as _, Arc::new(Plain), config, Box::new(|| 0));
    }

    fn write(&mut self, mut plan: Plan) {
        self.planner.finish(&mut plan);
        self.store.write(&plan.batch, Durability::Synced).unwrap();
        self.inboxes.hub.deliver(&mut plan.deliveries);
    }

    fn read(&self, after: Position) -> Page {
        self.inboxes.read_store(BOB, after).unwrap()
    }

    /// Reads as a session does, until nothing is left.
    fn read_all(&self, mut after: Position) -> Vec<Item> {
        let mut items = Vec::new();
        loop {
            let page = self.read(after);
            items.extend(page.items);
            match items.last() {
                Some(Item::Envelope { position, .. }) => after = *position,
                Some(Item::Gap(gap)) => after = gap.to,
                _ => {}
            }
            if !page.more {
                return items;
            }
        }
    }
}

fn at(seq: u64, count: u64) -> Position {
    Position { seq, count }
}

/// A short form: `5` for the envelope at 5, `-3..4 x2` for a gap of two messages that expired, `!` for an
/// overflow, `?` for what was lost.
fn short(items: &[Item]) -> Vec<String> {
    let short = |item: &Item| match item {
        Item::Envelope { position, .. } => position.seq.to_string(),
        Item::Gap(Gap { from_seq, to, missed, reason }) => {
            let sign = match reason {
                GapReason::Expired => '-',
                GapReason::Overflow => '!',
                GapReason::Lost => '?',
            };
            format!("{sign}{from_seq}..{} x{missed}", to.seq)
        }
        Item::CaughtUp { seq } => format!("caught up {seq}"),
    };
    items.iter().map(short).collect()
}

#[track_caller]
fn check(bench: &Bench, after: Position, expected: &[&str]) {
    let page = bench.read(after);
    assert_eq!(short(&page.items), expected);
    assert!(!page.more);
}

#[test]
fn an_unknown_or_empty_inbox_is_an_empty_page() {
    let bench = Bench::new();
    check(&bench, at(0, 0), &[]);
    assert_eq!(bench.inboxes.read_tail(BOB, at(0, 0)), None);
}

#[test]
fn entries_come_in_order_after_the_position_asked_for() {
    let mut bench = Bench::new();
    bench.messages(3);
    check(&bench, at(0, 0), &["1", "2", "3"]);
    check(&bench, at(2, 2), &["3"]);
    check(&bench, at(3, 3), &[]);
}

#[test]
fn the_envelope_is_what_was_sent() {
    let mut bench = Bench::new();
    bench.send(b"hello");
    let page = bench.read(at(0, 0));
    let [Item::Envelope { position, shared }] = page.items.as_slice() else { panic!("{page:?}") };
    assert_eq!(*position, at(1, 1));
    assert!(shared.ends_with(b"hello"));
}

#[test]
fn silent_messages_are_served_as_others_are_and_no_gap_counts_them() {
    let mut bench = Bench::new();
    bench.messages(1);
    bench.send_as(b"for programs", true);
    bench.messages(1);
    check(&bench, at(0, 0), &["1", "2", "3"]);
    bench.time.advance(RETENTION_MS);
    bench.messages(1);
    check(&bench, at(0, 0), &["-1..3 x2", "4"]);
    check(&bench, at(1, 1), &["-2..3 x1", "4"]);
}

#[test]
fn an_entry_goes_at_its_retention_to_the_millisecond() {
    let mut bench = Bench::new();
    bench.messages(1);
    bench.time.advance(1);
    bench.messages(1);
    bench.time.advance(RETENTION_MS - 2);
    check(&bench, at(0, 0), &["1", "2"]);
    assert!(bench.inboxes.read_tail(BOB, at(0, 0)).is_some());
    bench.time.advance(1);
    check(&bench, at(0, 0), &["-1..1 x1", "2"]);
    assert_eq!(bench.inboxes.read_tail(BOB, at(0, 0)), None, "the tail leaves gaps to the store");
    bench.time.advance(1);
    check(&bench, at(0, 0), &["-1..2 x2"]);
}

#[test]
fn a_welcome_stays_as_long_as_commits_amid_what_has_expired() {
    let mut bench = Bench::new();
    bench.messages(2);
    bench.welcome();
    bench.messages(1);
    bench.time.advance(RETENTION_MS);
    bench.messages(1);
    for _ in 0..2 {
        check(&bench, at(0, 0), &["-1..3 x2", "4", "-5..5 x1", "6"]);
        check(&bench, at(4, 2), &["-5..5 x1", "6"]);
        bench.store.reclaim().unwrap();
    }
    assert_eq!(bench.inboxes.read_tail(BOB, at(0, 0)), None, "the tail leaves gaps to the store");
    bench.time.advance(COMMIT_RETENTION_MS - RETENTION_MS);
    check(&bench, at(0, 0), &["-1..6 x4"]);
}

#[test]
fn a_gap_is_the_same_before_and_after_compaction() {
    let mut bench = Bench::new();
    bench.messages(4);
    bench.time.advance(RETENTION_MS);
    bench.messages(2);
    check(&bench, at(1, 1), &["-2..4 x3", "5", "6"]);
    bench.store.reclaim().unwrap();
    check(&bench, at(1, 1), &["-2..4 x3", "5", "6"]);
    check(&bench, at(4, 4), &["5", "6"]);
}

#[test]
fn when_all_is_gone_one_gap_reaches_to_the_head() {
    let mut bench = Bench::new();
    bench.messages(5);
    bench.time.advance(RETENTION_MS);
    check(&bench, at(2, 2), &["-3..5 x3"]);
    bench.store.reclaim().unwrap();
    check(&bench, at(2, 2), &["-3..5 x3"]);
    check(&bench, at(5, 5), &[]);
}

#[test]
fn commits_do_not_count_as_missed() {
    let mut bench = Bench::new();
    bench.messages(1);
    bench.commit();
    bench.messages(1);
    bench.commit();
    check(&bench, at(0, 0), &["1", "2", "3", "4"]);
    bench.time.advance(RETENTION_MS);
    check(&bench, at(0, 0), &["-1..4 x2"]);
    check(&bench, at(3, 2), &["-4..4 x0"]);
    bench.commit();
    bench.messages(1);
    check(&bench, at(0, 0), &["-1..4 x2", "5", "6"]);
    assert_eq!(bench.read(at(4, 2)).items.len(), 2);
}

#[test]
fn an_overflow_is_a_gap_with_its_own_reason() {
    let mut bench = Bench::bounded(8);
    bench.messages(9);
    check(&bench, at(0, 0), &["!1..2 x2", "3", "4", "5", "6", "7", "8", "9"]);
    check(&bench, at(1, 1), &["!2..2 x1", "3", "4", "5", "6", "7", "8", "9"]);
    check(&bench, at(2, 2), &["3", "4", "5", "6", "7", "8", "9"]);
}

#[test]
fn overflow_and_expiry_in_one_page_are_two_gaps() {
    let mut bench = Bench::bounded(8);
    bench.messages(9);
    bench.time.advance(RETENTION_MS);
    bench.messages(2);
    check(&bench, at(0, 0), &["!1..2 x2", "-3..9 x7", "10", "11"]);
    bench.store.reclaim().unwrap();
    check(&bench, at(0, 0), &["!1..2 x2", "-3..9 x7", "10", "11"]);
    bench.time.advance(RETENTION_MS);
    check(&bench, at(0, 0), &["!1..2 x2", "-3..11 x9"]);
}

#[test]
fn a_body_that_is_gone_before_its_time_is_lost_and_after_it_expired() {
    let mut bench = Bench::new();
    bench.messages(4);
    let entries = bench.store.scan(Family::Message, &[]..&[0xff; 17], 10).unwrap();
    let mut batch = Batch::new();
    entries[1..3].iter().for_each(|(key, _)| batch.delete(Family::Message, key));
    bench.store.write(&batch, Durability::Synced).unwrap();
    bench.time.advance(RETENTION_MS - 1);
    check(&bench, at(0, 0), &["1", "?2..3 x2", "4"]);
    bench.time.advance(1);
    check(&bench, at(0, 0), &["-1..4 x4"]);
}

/// A disk so slow that everything expires while it is read.
struct Slow(Arc<ManualClock>);

impl Open for Slow {
    fn open(&self, _id: MessageId, _sealed: &SealedMessage) -> Result<Option<Bytes>, StoreError> {
        self.0.advance(RETENTION_MS);
        Ok(None)
    }
}

#[test]
fn what_expires_while_it_is_read_is_expired_and_not_lost() {
    let mut bench = Bench::new();
    bench.messages(2);
    bench.inboxes.seal = Arc::new(Slow(Arc::clone(&bench.time)));
    check(&bench, at(0, 0), &["-1..2 x2"]);
}

#[test]
fn a_body_whose_key_is_missing_before_its_time_is_lost() {
    let mut bench = Bench::new();
    for body in [b"lost", b"sent", b"lost", b"lost"] {
        bench.send(body);
    }
    check(&bench, at(0, 0), &["?1..1 x1", "2", "?3..4 x2"]);
}

#[test]
fn a_damaged_body_is_lost_and_holds_up_no_others() {
    let mut bench = Bench::new();
    bench.messages(4);
    let entries = bench.store.scan(Family::Message, &[]..&[0xff; 17], 10).unwrap();
    let mut batch = Batch::new();
    batch.put(Family::Message, &entries[1].0, b"garbage");
    bench.store.write(&batch, Durability::Synced).unwrap();
    check(&bench, at(0, 0), &["1", "?2..2 x1", "3", "4"]);
}

#[test]
fn after_a_restore_every_device_is_told_once_and_misses_nothing_new() {
    let mut bench = Bench::new();
    bench.messages(3);
    // The backup had the first three; one device has taken five.
    let head: InboxHead = read(bench.store.as_ref(), Family::InboxHead, &key::inbox_head(&BOB)).unwrap().unwrap();
    let seq = key::next_life(head.seq);
    let mut batch = Batch::new();
    batch.put_record(
        Family::InboxHead,
        key::inbox_head(&BOB),
        &InboxHead { seq, floor: Mark { seq, ..head.last() }, ..head },
    );
    bench.store.write(&batch, Durability::Synced).unwrap();
    bench.restart();
    let life = format!("{seq} x0");
    check(&bench, at(3, 3), &[&format!("?4..{life}")]);
    check(&bench, at(5, 5), &[&format!("?6..{life}")]);
    check(&bench, at(1, 1), &["2", "3", &format!("?4..{life}")]);
    bench.messages(1);
    let new = (seq + 1).to_string();
    check(&bench, at(1, 1), &["2", "3", &format!("?4..{life}"), &new]);
    check(&bench, at(5, 5), &[&format!("?6..{life}"), &new]);
    check(&bench, at(seq, 3), &[&new]);
    bench.time.advance(RETENTION_MS);
    check(&bench, at(seq, 3), &[&format!("-{new}..{new} x1")]);
    check(&bench, at(1, 1), &[&format!("?2..{new} x3")]);
}

#[test]
fn a_commit_that_is_missing_before_its_time_is_a_lost_one_and_no_message() {
    let mut bench = Bench::new();
    bench.commit();
    bench.messages(1);
    let mut batch = Batch::new();
    batch.delete(Family::Commit, key::commit(&TALK, 1));
    bench.store.write(&batch, Durability::Synced).unwrap();
    check(&bench, at(0, 0), &["?1..1 x0", "2"]);
}

#[test]
fn a_corrupt_entry_is_an_error_and_not_a_gap() {
    let mut bench = Bench::new();
    bench.messages(2);
    let mut batch = Batch::new();
    batch.put(Family::Inbox, key::inbox(&BOB, 1), b"garbage");
    bench.store.write(&batch, Durability::Synced).unwrap();
    assert!(matches!(bench.inboxes.read_store(BOB, at(0, 0)), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_page_ends_after_so_many_entries() {
    let mut bench = Bench::new();
    bench.messages(PAGE_ENTRIES_MAX + 3);
    let page = bench.read(at(0, 0));
    assert_eq!((page.items.len(), page.more), (PAGE_ENTRIES_MAX, true));
    assert_eq!(bench.read_all(at(0, 0)).len(), PAGE_ENTRIES_MAX + 3);
}

#[test]
fn a_page_ends_after_so_many_bytes() {
    let mut bench = Bench::new();
    (0..10).for_each(|_| bench.send(&[7; 60_000]));
    let page = bench.read(at(0, 0));
    assert_eq!((page.items.len(), page.more), (PAGE_BYTES_MAX / 60_000 + 1, true));
    let all = short(&bench.read_all(at(0, 0)));
    assert_eq!(all, (1..=10).map(|seq: u64| seq.to_string()).collect::<Vec<_>>());
}

#[test]
fn pages_of_nothing_but_expired_entries_are_passed_in_one_read() {
    let mut bench = Bench::new();
    bench.messages(2 * PAGE_ENTRIES_MAX + 5);
    bench.time.advance(RETENTION_MS);
    bench.messages(1);
    let missed = 2 * PAGE_ENTRIES_MAX + 5;
    check(&bench, at(0, 0), &[&format!("-1..{missed} x{missed}"), &(missed + 1).to_string()]);
}

#[test]
fn tail_and_store_give_the_same_pages() {
    let mut bench = Bench::new();
    bench.messages(3);
    bench.commit();
    (0..6).for_each(|_| bench.send(&[7; 60_000]));
    bench.messages(4);
    for seq in 0..=14 {
        let after = at(seq, if seq < 4 { seq } else { seq - 1 });
        let (tail, store) = (bench.inboxes.read_tail(BOB, after).unwrap(), bench.read(after));
        assert_eq!(tail.items, store.items, "after {seq}");
        assert!(tail.more || !store.more, "the tail may promise too much, not too little");
    }
}

#[test]
fn the_tail_pages_by_entries_too() {
    let mut bench = Bench::new();
    bench.messages(PAGE_ENTRIES_MAX + 1);
    assert_eq!(bench.inboxes.read_tail(BOB, at(0, 0)), Some(bench.read(at(0, 0))));
    assert_eq!(bench.inboxes.read_tail(BOB, at(1, 1)), Some(bench.read(at(1, 1))));
}

#[test]
fn what_is_older_than_the_tail_comes_from_the_store() {
    let mut bench = Bench::new();
    bench.messages(TAIL_ENTRIES_MAX + 1);
    assert_eq!(bench.inboxes.read_tail(BOB, at(0, 0)), None);
    assert!(bench.inboxes.read_tail(BOB, at(1, 1)).is_some());
    assert_eq!(bench.read_all(at(0, 0)).len(), TAIL_ENTRIES_MAX + 1);
}

#[test]
fn the_time_of_an_entry_is_the_servers() {
    let mut bench = Bench::new();
    bench.messages(1);
    let entries = bench.store.scan(Family::Inbox, key::inbox_after(&BOB, 0).as_range(), 1).unwrap();
    let entry: InboxEntry = decode(Family::Inbox, &entries[0].1).unwrap();
    assert_eq!(entry.time_ms(), START_MS);
}
