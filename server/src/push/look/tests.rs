//! What a look finds: the rules of who is worth a wake-up, over a store.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use gureum_proto::{EnvelopeBody, MessageId, PushDigest, PushService};

use super::*;
use crate::store::conformance::expiry;
use crate::store::faulty::FaultyStore;
use crate::store::memory::MemoryStore;
use crate::store::record::{InboxBody, Mark, PushTargetRecord};
use crate::store::{Batch, Durability};

const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
const PHONE: DeviceId = DeviceId::from_bytes([1; 16]);
const LAPTOP: DeviceId = DeviceId::from_bytes([2; 16]);
const TABLET: DeviceId = DeviceId::from_bytes([3; 16]);
const TALK: ConversationId = ConversationId::from_bytes([0xc1; 16]);
const OTHER: ConversationId = ConversationId::from_bytes([0xc2; 16]);
const START_MS: u64 = 1_800_000_000_000;

const CONFIG: PushConfig = PushConfig {
    delay_ms: 5_000,
    interval_ms: 30_000,
    silent_interval_ms: 1_200_000,
    close_delay_ms: 60_000,
    sweep_ms: 1_000_000,
    retention_ms: 90_000_000,
};

/// Bodies are not sealed; one that begins with `gone` is of a key that was destroyed.
struct Plain;

impl Open for Plain {
    fn open(&self, _id: MessageId, sealed: &SealedMessage) -> Result<Option<Bytes>, StoreError> {
        Ok((!sealed.ciphertext.starts_with(b"gone")).then(|| sealed.ciphertext.clone()))
    }
}

/// The inbox of Alice, who has accepted the conversation in which Bob writes.
struct Bench {
    store: FaultyStore<MemoryStore>,
    head: InboxHead,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            store: FaultyStore::new(MemoryStore::new(expiry().1)),
            head: InboxHead::default(),
            now_ms: START_MS,
        };
        bench.target(PHONE);
        bench.cursor(PHONE, 0);
        bench.prefer(TALK, true, 0);
        bench
    }

    fn write(&self, fill: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new();
        fill(&mut batch);
        self.store.write(&batch, Durability::Synced).unwrap();
    }

    fn target(&self, device: DeviceId) {
        let record = PushTargetRecord {
            digest: PushDigest::from_bytes([0; 16]),
            service: PushService::Apns,
            host: 0,
            visible: true,
            set_ms: 0,
            generation: 0,
            nonce: [0; 12],
            sealed: Bytes::new(),
        };
        self.write(|batch| batch.put_record(Family::Push, key::push_target(&ALICE, &device), &record));
    }

    fn cursor(&self, device: DeviceId, seq: u64) {
        let key = key::cursor(&ALICE, &device, CursorTag::Cursor);
        self.write(|batch| batch.put_record(Family::Cursor, key, &Cursor { seq, count: 0 }));
    }

    fn prefer(&self, conversation: ConversationId, accepted: bool, muted_until_ms: u64) {
        let preference = PreferenceRecord { accepted, muted_until_ms };
        self.write(|batch| batch.put_record(Family::Directory, key::preference(&ALICE, &conversation), &preference));
    }

    fn relate(&self, other: AccountId, relation: Relation) {
        self.write(|batch| batch.put_record(Family::Directory, key::relation(&ALICE, &other), &relation));
    }

    /// A message comes now; a millisecond goes by.
    fn message(&mut self, conversation: ConversationId, sender: AccountId) {
        self.entry(InboxBody::Message, conversation, sender, None);
    }

    fn entry(
        &mut self,
        body: InboxBody,
        conversation: ConversationId,
        sender: AccountId,
        instead: Option<&'static [u8]>,
    ) -> MessageId {
        self.head.seq += 1;
        let id = MessageId::new(self.now_ms, u128::from(self.head.seq));
        let envelope = SharedEnvelope {
            message_id: id,
            conversation,
            sender_account: sender,
            sender_device: PHONE,
            body: EnvelopeBody::Message { number: 1, ciphertext: Bytes::from_static(b"sealed") },
        };
        let ciphertext = instead.map_or_else(|| envelope.encode(), Bytes::from_static);
        let (entry, head) = (InboxEntry { id, count: 0, bytes_total: 0, body }, self.head);
        self.write(|batch| {
            let sealed = SealedMessage { key_id: 0, nonce: [0; 12], ciphertext };
            batch.put_record(Family::Message, key::message(&id), &sealed);
            batch.put_record(Family::Inbox, key::inbox(&ALICE, head.seq), &entry);
            batch.put_record(Family::InboxHead, key::inbox_head(&ALICE), &head);
        });
        self.now_ms += 1;
        id
    }

    fn look(&self, after_seq: u64, expiry: bool) -> Result<Facts, StoreError> {
        look(&self.store, &Plain, ALICE, after_seq, expiry, &CONFIG, self.now_ms)
    }

    /// Where the first message stands that is worth a wake-up, and up to where none is.
    #[track_caller]
    fn check(&self, first_seq: Option<u64>, looked_to: u64) {
        let facts = self.look(0, false).unwrap();
        assert_eq!((facts.first.map(|first| first.seq), facts.looked_to), (first_seq, looked_to));
    }

    /// The devices with the places of the messages that they are to be warned of.
    #[track_caller]
    fn check_expiring(&self, expected: &[(DeviceId, Option<u64>)]) {
        let facts = self.look(0, true).unwrap();
        let found: Vec<_> = facts.devices.iter().map(|of| (of.device, of.oldest_accepted_ms)).collect();
        // A message of place n has come n - 1 ms after the start.
        let expected: Vec<_> =
            expected.iter().map(|(device, seq)| (*device, seq.map(|seq| START_MS + seq - 1))).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn an_empty_inbox_owes_nothing() {
    let bench = Bench::new();
    let facts = bench.look(0, true).unwrap();
    let device = DeviceFacts { device: PHONE, cursor_seq: 0, oldest_accepted_ms: None };
    assert_eq!(facts, Facts { devices: vec![device], ..Facts::default() });
}

#[test]
fn the_first_message_that_no_device_has_taken_counts() {
    let mut bench = Bench::new();
    bench.target(LAPTOP);
    for _ in 0..5 {
        bench.message(TALK, BOB);
    }
    bench.check(Some(1), 0);
    bench.cursor(PHONE, 2);
    // One that cannot be woken counts as well.
    bench.cursor(TABLET, 3);
    bench.check(Some(4), 3);
    let facts = bench.look(0, false).unwrap();
    assert_eq!((facts.head_seq, facts.taken_seq), (5, 3));
    assert_eq!(facts.first.unwrap().time_ms, START_MS + 3);
    let cursors: Vec<_> = facts.devices.iter().map(|of| (of.device, of.cursor_seq)).collect();
    assert_eq!(cursors, [(PHONE, 2), (LAPTOP, 0)]);
    bench.cursor(TABLET, 5);
    bench.check(None, 5);
}

#[test]
fn what_is_no_message_of_somebody_else_is_worth_nothing() {
    let mut bench = Bench::new();
    // Receipts and the like.
    bench.entry(InboxBody::Silent, TALK, BOB, None);
    bench.entry(InboxBody::Welcome, TALK, BOB, None);
    bench.entry(InboxBody::Commit { conversation: TALK, epoch: 1 }, TALK, BOB, None);
    bench.entry(InboxBody::Leave, TALK, BOB, None);
    bench.entry(InboxBody::DeviceLog { account: BOB }, TALK, BOB, None);
    // An echo of what another device of hers has sent.
    bench.message(TALK, ALICE);
    bench.check(None, 6);
    bench.message(TALK, BOB);
    bench.check(Some(7), 6);
}

#[test]
fn a_stranger_wakes_nobody_until_the_conversation_or_the_stranger_is_accepted() {
    let mut bench = Bench::new();
    bench.message(OTHER, BOB);
    bench.check(None, 1);
    bench.relate(BOB, Relation::Accepted);
    bench.check(Some(1), 0);
    bench.relate(BOB, Relation::None);
    bench.check(None, 1);
    bench.prefer(OTHER, true, 0);
    bench.check(Some(1), 0);
}

#[test]
fn who_is_blocked_wakes_nobody_wherever_it_writes() {
    let mut bench = Bench::new();
    bench.message(TALK, BOB);
    bench.relate(BOB, Relation::Blocked);
    bench.check(None, 1);
}

#[test]
fn a_mute_is_one_of_the_messages_of_its_time() {
    let mut bench = Bench::new();
    bench.prefer(TALK, true, START_MS + 2);
    for _ in 0..4 {
        bench.message(TALK, BOB);
    }
    // The third has come when it was over. That the first two come to nothing stays when it is over.
    bench.check(Some(3), 2);
    bench.prefer(TALK, true, u64::MAX);
    bench.check(None, 4);
    bench.prefer(TALK, true, 0);
    bench.check(Some(1), 0);
}

#[test]
fn what_has_expired_is_worth_nothing() {
    let mut bench = Bench::new();
    bench.message(TALK, BOB);
    bench.message(TALK, BOB);
    bench.now_ms = START_MS + CONFIG.retention_ms;
    bench.check(Some(2), 1);
    bench.now_ms += 1;
    bench.check(None, 2);
    bench.check_expiring(&[(PHONE, None)]);
}

#[test]
fn what_nobody_can_read_any_more_is_worth_nothing() {
    let mut bench = Bench::new();
    bench.entry(InboxBody::Message, TALK, BOB, Some(b"gone with its key"));
    bench.entry(InboxBody::Message, TALK, BOB, Some(b"\xff is no envelope"));
    let lost = bench.entry(InboxBody::Message, TALK, BOB, None);
    bench.write(|batch| batch.delete(Family::Message, key::message(&lost)));
    let damaged = bench.entry(InboxBody::Message, TALK, BOB, None);
    bench.store.damage(Family::Message, key::message(&damaged).as_ref());
    bench.message(TALK, BOB);
    bench.check(Some(5), 4);
}

#[test]
fn what_was_dropped_over_the_bound_is_not_looked_at() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.message(TALK, BOB);
    }
    bench.head.overflow = Mark { seq: 2, count: 0, bytes_total: 0 };
    let head = bench.head;
    bench.write(|batch| batch.put_record(Family::InboxHead, key::inbox_head(&ALICE), &head));
    bench.check(Some(3), 2);
}

#[test]
fn a_look_ends_at_its_bound_and_goes_on_from_there() {
    let mut bench = Bench::new();
    let bound = u64::try_from(LOOK_ENTRIES_MAX).unwrap();
    for _ in 0..bound {
        bench.message(OTHER, BOB);
    }
    bench.check(None, bound);
    bench.message(TALK, BOB);
    bench.check(None, bound);
    let facts = bench.look(bound, false).unwrap();
    assert_eq!((facts.head_seq, facts.looked_to), (bound + 1, bound));
    assert_eq!(facts.first.map(|first| first.seq), Some(bound + 1));
}

#[test]
fn each_device_is_warned_of_what_it_has_not_taken_itself() {
    let mut bench = Bench::new();
    bench.target(LAPTOP);
    bench.target(TABLET);
    bench.message(OTHER, BOB);
    bench.message(TALK, ALICE);
    bench.message(TALK, BOB);
    bench.message(TALK, BOB);
    bench.cursor(LAPTOP, 3);
    bench.cursor(TABLET, 4);
    bench.check_expiring(&[(PHONE, None), (LAPTOP, None), (TABLET, None)]);
    // Of the first one so much time is left.
    bench.now_ms = START_MS + CONFIG.retention_ms / 3 * 2 + 2;
    bench.check_expiring(&[(PHONE, Some(3)), (LAPTOP, None), (TABLET, None)]);
    bench.now_ms += 1;
    bench.check_expiring(&[(PHONE, Some(3)), (LAPTOP, Some(4)), (TABLET, None)]);
}

#[test]
fn a_mute_does_not_keep_a_device_from_being_warned_and_a_block_does() {
    let mut bench = Bench::new();
    bench.prefer(TALK, true, u64::MAX);
    bench.message(TALK, BOB);
    bench.now_ms = START_MS + CONFIG.retention_ms - 1;
    bench.check(None, 1);
    bench.check_expiring(&[(PHONE, Some(1))]);
    bench.relate(BOB, Relation::Blocked);
    bench.check_expiring(&[(PHONE, None)]);
}

#[test]
fn strangers_who_write_a_lot_keep_nobody_from_being_warned() {
    let mut bench = Bench::new();
    for _ in 0..2 * LOOK_ENTRIES_MAX {
        bench.message(OTHER, BOB);
    }
    bench.message(TALK, BOB);
    bench.now_ms = START_MS + CONFIG.retention_ms - 1;
    let last = u64::try_from(2 * LOOK_ENTRIES_MAX + 1).unwrap();
    bench.check_expiring(&[(PHONE, Some(last))]);
}

#[test]
fn a_disk_that_refuses_is_no_inbox_that_is_empty() {
    let mut bench = Bench::new();
    bench.message(TALK, BOB);
    bench.store.damage(Family::InboxHead, key::inbox_head(&ALICE).as_ref());
    let looked = bench.look(0, false);
    assert!(looked.is_err(), "{looked:?}");
}
