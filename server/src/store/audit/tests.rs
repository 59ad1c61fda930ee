//! The auditor finds each broken invariant, and nothing in what the planner writes.

use std::sync::Arc;

use super::*;
use crate::store::conformance::{ACCOUNT, OTHER, START_MS, expiry};
use crate::store::key::KeyPackageKind;
use crate::store::memory::MemoryStore;
use crate::store::record::{
    CodeRecord, ConversationKind, KeyPackageRecord, Leaving, LockRecord, Mark, Member, NumberRecord, PhoneRecord,
    PreferenceRecord, PushStateRecord, PushTargetRecord, SealedMessage, SentResult,
};
use crate::store::{Durability, Expiry};
use crate::time::ManualClock;

const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc1; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);

/// A store in which one message stands in one inbox, sent and taken by one device.
struct Desk {
    store: MemoryStore,
    expiry: Expiry,
    _time: Arc<ManualClock>,
}

fn id(number: u64) -> MessageId {
    MessageId::new(START_MS, u128::from(number))
}

/// The batch of the message with this number, as the planner writes it.
fn message(number: u64) -> Batch {
    let mut batch = Batch::new();
    let sealed = SealedMessage { key_id: 1, nonce: [0; 12], ciphertext: Bytes::from_static(b"sealed") };
    batch.put_record(Family::Message, key::message(&id(number)), &sealed);
    put_entry(&mut batch, number, number, id(number));
    put_head(&mut batch, number, number);
    batch.put_record(Family::Conversation, key::conversation(&CONVERSATION, ConversationTag::Number), &number);
    put_window(&mut batch, 1..=number, 0);
    batch
}

fn put_entry(batch: &mut Batch, seq: u64, count: u64, id: MessageId) {
    let entry = InboxEntry { id, count, bytes_total: seq, body: InboxBody::Message };
    batch.put_record(Family::Inbox, key::inbox(&ACCOUNT, seq), &entry);
}

fn put_head(batch: &mut Batch, seq: u64, count: u64) {
    let head = InboxHead { seq, count, bytes_total: seq, ..InboxHead::default() };
    batch.put_record(Family::InboxHead, key::inbox_head(&ACCOUNT), &head);
}

fn put_window(batch: &mut Batch, counters: std::ops::RangeInclusive<u64>, shift: u64) {
    let recent = counters.clone().map(|counter| SentResult { counter, id: id(counter + shift), number: counter });
    let window = SenderWindow { highest: *counters.end(), recent: recent.collect() };
    batch.put_record(Family::Cursor, key::cursor(&OTHER, &DEVICE, CursorTag::SenderWindow), &window);
}

fn put_cursor(batch: &mut Batch, seq: u64) {
    let cursor = Cursor { seq, count: seq };
    batch.put_record(Family::Cursor, key::cursor(&ACCOUNT, &DEVICE, CursorTag::Cursor), &cursor);
}

fn put_group(batch: &mut Batch, epoch: u64) {
    let head = ConversationHead { epoch, created_ms: START_MS, kind: ConversationKind::Direct, members: Vec::new() };
    batch.put_record(Family::Conversation, key::conversation(&CONVERSATION, ConversationTag::Head), &head);
}

fn put_commit(batch: &mut Batch, epoch: u64) {
    let commit = Bytes::from_static(b"commit");
    let record = CommitRecord { time_ms: START_MS, account: ACCOUNT, device: DEVICE, counter: epoch, commit };
    batch.put_record(Family::Commit, key::commit(&CONVERSATION, epoch), &record);
}

impl Desk {
    fn new() -> Self {
        let (time, expiry) = expiry();
        let desk = Self { store: MemoryStore::new(expiry.clone()), expiry, _time: time };
        let mut first = message(1);
        put_cursor(&mut first, 1);
        put_group(&mut first, 1);
        desk.accept(&first);
        desk
    }

    #[track_caller]
    fn accept(&self, written: &Batch) {
        assert_eq!(batch(&self.store, written, &self.expiry), Ok(Vec::new()));
        self.store.write(written, Durability::Synced).unwrap();
        assert_eq!(whole(&self.store, &self.expiry), Ok(Vec::new()));
    }

    #[track_caller]
    fn refuse(&self, fill: impl FnOnce(&mut Batch), expected: &[Violation]) {
        let mut written = Batch::new();
        fill(&mut written);
        assert_eq!(batch(&self.store, &written, &self.expiry).unwrap(), expected);
    }
}

#[test]
fn what_the_planner_writes_is_in_order() {
    let desk = Desk::new();
    desk.accept(&message(2));
    let mut next = message(3);
    put_cursor(&mut next, 3);
    put_group(&mut next, 2);
    put_commit(&mut next, 1);
    desk.accept(&next);
}

#[test]
fn positions_are_dense_and_used_once() {
    let skips = |seq| vec![Violation::SeqNotNext { account: ACCOUNT, next: 2, seq }];
    for (seq, found) in [(1, skips(1)), (3, skips(3))] {
        Desk::new().refuse(
            |batch| {
                put_entry(batch, seq, 2, id(1));
                put_head(batch, seq, 2);
            },
            &found,
        );
    }
}

#[test]
fn sums_run_and_the_head_follows_the_last_entry() {
    let desk = Desk::new();
    desk.refuse(
        |batch| {
            put_entry(batch, 2, 3, id(1));
            put_head(batch, 2, 3);
        },
        &[Violation::CountWrong { account: ACCOUNT, seq: 2 }],
    );
    let at = |seq| InboxHead { seq, count: seq, bytes_total: seq, ..InboxHead::default() };
    let wrong = |after| [Violation::HeadWrong { account: ACCOUNT, before: at(1), after }];
    desk.refuse(|batch| put_entry(batch, 2, 2, id(1)), &wrong(at(1)));
    desk.refuse(|batch| put_head(batch, 0, 0), &wrong(at(0)));
    let ahead = InboxHead { floor: Mark { seq: 2, count: 2, bytes_total: 2 }, ..at(1) };
    desk.refuse(|batch| batch.put_record(Family::InboxHead, key::inbox_head(&ACCOUNT), &ahead), &wrong(ahead));
}

#[test]
fn cursors_go_up_to_the_head_and_not_back() {
    let desk = Desk::new();
    let (account, device) = (ACCOUNT, DEVICE);
    desk.refuse(|batch| put_cursor(batch, 0), &[Violation::CursorWentBack { account, device }]);
    desk.refuse(|batch| put_cursor(batch, 2), &[Violation::CursorPastHead { account, device }]);
}

#[test]
fn an_entry_has_its_body_and_a_message_its_number() {
    let desk = Desk::new();
    desk.refuse(
        |batch| {
            put_entry(batch, 2, 2, id(2));
            put_head(batch, 2, 2);
        },
        &[Violation::BodyMissing { account: ACCOUNT, seq: 2 }],
    );
    let body = Bytes::from_static(b"\x01sealed");
    let wrong = Violation::NumbersWrong { numbers: Some(0), messages: 1 };
    desk.refuse(|batch| batch.put(Family::Message, key::message(&id(2)), &body), std::slice::from_ref(&wrong));
    let replaced = Violation::MessageReplaced(id(1));
    desk.refuse(|batch| batch.put(Family::Message, key::message(&id(1)), &body), &[replaced, wrong]);
}

#[test]
fn a_silent_message_has_no_number_and_is_not_counted() {
    let silent = |batch: &mut Batch, count| {
        batch.put(Family::Message, key::message(&id(2)), b"\x01sealed");
        let entry = InboxEntry { id: id(2), count, bytes_total: 2, body: InboxBody::Silent };
        batch.put_record(Family::Inbox, key::inbox(&ACCOUNT, 2), &entry);
        put_head(batch, 2, count);
    };
    let desk = Desk::new();
    desk.refuse(|batch| silent(batch, 2), &[Violation::CountWrong { account: ACCOUNT, seq: 2 }]);
    let numbered = |batch: &mut Batch| {
        silent(batch, 1);
        batch.put_record(Family::Conversation, key::conversation(&CONVERSATION, ConversationTag::Number), &2_u64);
    };
    desk.refuse(numbered, &[Violation::NumbersWrong { numbers: Some(1), messages: 0 }]);
    let mut written = Batch::new();
    silent(&mut written, 1);
    desk.accept(&written);
}

#[test]
fn a_counter_has_one_result_for_ever() {
    let desk = Desk::new();
    let wrong = [Violation::WindowWrong { account: OTHER, device: DEVICE }];
    desk.refuse(|batch| put_window(batch, 1..=1, 5), &wrong);
    desk.refuse(|batch| put_window(batch, 2..=2, 0), &wrong);
    desk.refuse(|batch| put_window(batch, 1..=2, 0), &[]);
    let put = |batch: &mut Batch, place: u64, counter: u64, of: u64| {
        let result = SentResult { counter, id: id(of), number: 0 };
        batch.put_record(Family::Sent, key::sent(&OTHER, &DEVICE, place), &result);
    };
    let mut first = Batch::new();
    put(&mut first, 70, 70, 1);
    desk.accept(&first);
    for (place, counter, of) in [(70, 70, 1), (134, 134, 2)] {
        desk.refuse(|batch| put(batch, place, counter, of), &[]);
    }
    for (place, counter, of) in [(70, 70, 2), (6, 6, 2), (71, 72, 2)] {
        desk.refuse(|batch| put(batch, place, counter, of), &wrong);
    }
}

#[test]
fn an_epoch_ends_once_and_by_one_commit() {
    let desk = Desk::new();
    let conversation = CONVERSATION;
    let skipped = |after| Violation::EpochNotNext { conversation, before: 1, after };
    let wrong = |epoch| Violation::CommitWrong { conversation, epoch };
    desk.refuse(|batch| put_group(batch, 2), &[skipped(2)]);
    desk.refuse(|batch| put_group(batch, 0), &[skipped(0)]);
    desk.refuse(|batch| put_commit(batch, 1), &[wrong(1)]);
    let mut commit = Batch::new();
    put_group(&mut commit, 2);
    put_commit(&mut commit, 1);
    desk.accept(&commit);
    desk.refuse(|batch| put_commit(batch, 1), &[wrong(1)]);
}

#[test]
fn who_is_to_be_removed_has_a_leaf_and_the_floor_goes_up_to_the_epoch() {
    let removals = |batch: &mut Batch, floor_epoch: u64, pending: &[DeviceId]| {
        let removals = Removals { floor_epoch, pending: pending.to_vec(), ..Removals::default() };
        batch.put_record(Family::Conversation, key::conversation(&CONVERSATION, ConversationTag::Removals), &removals);
    };
    let wrong = [Violation::RemovalsWrong { conversation: CONVERSATION }];
    let desk = Desk::new();
    desk.refuse(|batch| removals(batch, 1, &[DEVICE]), &wrong);
    desk.refuse(|batch| removals(batch, 2, &[]), &wrong);
    let mut batch = Batch::new();
    removals(&mut batch, 1, &[]);
    desk.accept(&batch);
    desk.refuse(|batch| removals(batch, 0, &[]), &wrong);
    let leaves = |batch: &mut Batch| {
        let leaving = vec![Leaving { account: ACCOUNT, device: DEVICE, statement: Bytes::new() }];
        let removals = Removals { floor_epoch: 1, leaving, ..Removals::default() };
        batch.put_record(Family::Conversation, key::conversation(&CONVERSATION, ConversationTag::Removals), &removals);
    };
    desk.refuse(leaves, &wrong);
}

#[test]
fn members_are_those_who_have_a_leaf_and_have_not_left() {
    let conversation = CONVERSATION;
    let head = |batch: &mut Batch, accounts: &[AccountId]| {
        let member = |account: &AccountId| Member { account: *account, device: DEVICE, leaf: 0 };
        let members = accounts.iter().map(member).collect();
        let head = ConversationHead { epoch: 1, created_ms: START_MS, kind: ConversationKind::Group, members };
        batch.put_record(Family::Conversation, key::conversation(&CONVERSATION, ConversationTag::Head), &head);
    };
    let joins = |batch: &mut Batch, account| {
        batch.put_record(Family::Directory, key::membership(account, &CONVERSATION), &());
    };
    let wrong = |account| Violation::MembershipWrong { conversation, account };
    let desk = Desk::new();
    desk.refuse(|batch| head(batch, &[ACCOUNT]), &[wrong(ACCOUNT)]);
    let mut batch = Batch::new();
    head(&mut batch, &[ACCOUNT, OTHER]);
    joins(&mut batch, &ACCOUNT);
    joins(&mut batch, &OTHER);
    desk.accept(&batch);
    desk.refuse(|batch| head(batch, &[OTHER]), &[wrong(ACCOUNT)]);
    let leaves = |batch: &mut Batch| {
        let leaving = vec![Leaving { account: ACCOUNT, device: DEVICE, statement: Bytes::new() }];
        let removals = Removals { leaving, ..Removals::default() };
        batch.put_record(Family::Conversation, key::conversation(&CONVERSATION, ConversationTag::Removals), &removals);
    };
    desk.refuse(leaves, &[wrong(ACCOUNT)]);
    let mut batch = Batch::new();
    leaves(&mut batch);
    batch.delete(Family::Directory, key::membership(&ACCOUNT, &CONVERSATION));
    desk.accept(&batch);
}

#[test]
fn an_epoch_by_itself_is_that_of_the_roster() {
    let epoch = |batch: &mut Batch, epoch: u64| {
        batch.put_record(Family::Conversation, key::conversation(&CONVERSATION, ConversationTag::Epoch), &epoch);
    };
    let torn = [Violation::EpochTorn { conversation: CONVERSATION }];
    let desk = Desk::new();
    desk.refuse(|batch| epoch(batch, 2), &torn);
    let mut batch = Batch::new();
    epoch(&mut batch, 1);
    desk.accept(&batch);
    let ends = |batch: &mut Batch| {
        put_group(batch, 2);
        put_commit(batch, 1);
    };
    desk.refuse(ends, &torn);
    let mut batch = Batch::new();
    ends(&mut batch);
    epoch(&mut batch, 2);
    desk.accept(&batch);
}

#[test]
fn an_account_that_was_deleted_gets_nothing_and_has_no_device() {
    let desk = Desk::new();
    let gone = [Violation::AccountGone { account: ACCOUNT }];
    // What came before it in the same batch it got in time.
    let mut deletion = message(2);
    deletion.put_record(Family::Directory, key::gone(&ACCOUNT), &START_MS);
    desk.accept(&deletion);
    let mut late = message(3);
    assert_eq!(batch(&desk.store, &late, &desk.expiry).unwrap(), gone);
    late.clear();
    put_cursor(&mut late, 2);
    assert_eq!(batch(&desk.store, &late, &desk.expiry).unwrap(), gone);
    let package = KeyPackageRecord { not_after_ms: u64::MAX, package: Bytes::from_static(b"package") };
    let package_key = key::key_package(&ACCOUNT, &DEVICE, KeyPackageKind::OneTime, &[1; 32]);
    desk.refuse(|batch| batch.put_record(Family::KeyPackage, package_key, &package), &gone);
}

const NUMBER: key::NumberHash = [0x0e; 32];

fn put_target(batch: &mut Batch) {
    let target = PushTargetRecord {
        digest: gureum_proto::PushDigest::from_bytes([1; 16]),
        service: gureum_proto::PushService::Fcm,
        host: 0,
        visible: true,
        set_ms: START_MS,
        generation: 1,
        nonce: [0; 12],
        sealed: Bytes::from_static(b"sealed"),
    };
    batch.put_record(Family::Push, key::push_target(&ACCOUNT, &DEVICE), &target);
}

fn put_state(batch: &mut Batch, woken_seq: u64) {
    let state = PushStateRecord { woken_seq, woken_ms: START_MS, warned_ms: 0 };
    batch.put_record(Family::Push, key::push_state(&ACCOUNT, &DEVICE), &state);
}

fn put_number(batch: &mut Batch, account: &AccountId) {
    batch.put_record(Family::Directory, key::number(&NUMBER), &NumberRecord { account: *account, findable: false });
}

fn put_phone(batch: &mut Batch, account: &AccountId, number: Option<key::NumberHash>) {
    let notice = gureum_proto::PhoneNotice::default();
    let phone = PhoneRecord { number, since_ms: START_MS, notice };
    batch.put_record(Family::Directory, key::phone_of(account), &phone);
}

#[test]
fn whoever_was_woken_has_a_target_and_was_woken_for_what_was_there() {
    let desk = Desk::new();
    let wrong = [Violation::PushWrong { account: ACCOUNT, device: DEVICE }];
    desk.refuse(|batch| put_state(batch, 1), &wrong);
    let mut batch = Batch::new();
    put_target(&mut batch);
    put_state(&mut batch, 1);
    desk.accept(&batch);
    desk.refuse(|batch| put_state(batch, 2), &wrong);
    desk.refuse(|batch| batch.delete(Family::Push, key::push_target(&ACCOUNT, &DEVICE)), &wrong);
    let mut batch = Batch::new();
    batch.delete(Family::Push, key::push_target(&ACCOUNT, &DEVICE));
    batch.delete(Family::Push, key::push_state(&ACCOUNT, &DEVICE));
    desk.accept(&batch);
}

#[test]
fn whoever_is_to_be_woken_at_once_has_a_target() {
    let desk = Desk::new();
    let wrong = [Violation::PushWrong { account: ACCOUNT, device: DEVICE }];
    let put_alarm = |batch: &mut Batch| batch.put_record(Family::Push, key::push_alarm(&ACCOUNT, &DEVICE), &START_MS);
    desk.refuse(put_alarm, &wrong);
    let mut batch = Batch::new();
    put_target(&mut batch);
    put_alarm(&mut batch);
    desk.accept(&batch);
    desk.refuse(|batch| batch.delete(Family::Push, key::push_target(&ACCOUNT, &DEVICE)), &wrong);
}

#[test]
fn a_number_and_its_account_lead_to_each_other() {
    let desk = Desk::new();
    let wrong = |account| [Violation::NumberWrong { account }];
    desk.refuse(|batch| put_number(batch, &ACCOUNT), &wrong(ACCOUNT));
    desk.refuse(|batch| put_phone(batch, &ACCOUNT, Some(NUMBER)), &wrong(ACCOUNT));
    let mut batch = Batch::new();
    put_number(&mut batch, &ACCOUNT);
    put_phone(&mut batch, &ACCOUNT, Some(NUMBER));
    desk.accept(&batch);
    desk.refuse(|batch| batch.delete(Family::Directory, key::number(&NUMBER)), &wrong(ACCOUNT));
    let moves = |batch: &mut Batch| {
        put_number(batch, &OTHER);
        put_phone(batch, &OTHER, Some(NUMBER));
    };
    desk.refuse(moves, &wrong(ACCOUNT));
    let mut batch = Batch::new();
    moves(&mut batch);
    put_phone(&mut batch, &ACCOUNT, None);
    desk.accept(&batch);
}

#[test]
fn an_account_that_ends_leaves_no_target_number_lock_or_decision() {
    let relation = gureum_proto::Relation::Blocked;
    let left: [fn(&mut Batch, gureum_proto::Relation); 5] = [
        |batch, _| put_target(batch),
        |batch, _| put_phone(batch, &ACCOUNT, None),
        |batch, _| {
            let lock = LockRecord { hash: [1; 32], tries_left: 5, closed_until_ms: 0 };
            batch.put_record(Family::Directory, key::lock_of(&ACCOUNT), &lock);
        },
        |batch, relation| batch.put_record(Family::Directory, key::relation(&ACCOUNT, &OTHER), &relation),
        |batch, _| {
            let preference = PreferenceRecord::default();
            batch.put_record(Family::Directory, key::preference(&ACCOUNT, &CONVERSATION), &preference);
        },
    ];
    let gone = [Violation::AccountGone { account: ACCOUNT }];
    let ends = |batch: &mut Batch| batch.put_record(Family::Directory, key::gone(&ACCOUNT), &START_MS);
    for put in left {
        let desk = Desk::new();
        let mut batch = Batch::new();
        put(&mut batch, relation);
        desk.accept(&batch);
        // It ends, and this stays.
        desk.refuse(ends, &gone);
        // It goes with the account, and may not come again.
        let left = batch.changes().map(|change| match change {
            Change::Put { family, key, .. } | Change::Delete { family, key } => (family, key.to_vec()),
        });
        let mut end = Batch::new();
        left.for_each(|(family, key)| end.delete(family, key));
        ends(&mut end);
        desk.accept(&end);
        desk.refuse(|batch| put(batch, relation), &gone);
        // What another has decided about it may stay.
        desk.refuse(|batch| batch.put_record(Family::Directory, key::relation(&OTHER, &ACCOUNT), &relation), &[]);
    }
}

#[test]
fn a_record_of_people_that_does_not_read_is_found() {
    let desk = Desk::new();
    for (family, record_key) in [
        (Family::Push, key::push_state(&ACCOUNT, &DEVICE)),
        (Family::Directory, key::number(&NUMBER)),
        (Family::Directory, key::phone_of(&ACCOUNT)),
        (Family::Directory, key::lock_of(&ACCOUNT)),
        (Family::Directory, key::relation(&ACCOUNT, &OTHER)),
        (Family::Directory, key::preference(&ACCOUNT, &CONVERSATION)),
        (Family::Code, key::code(&NUMBER)),
        (Family::Code, key::spent(1)),
    ] {
        let mut written = Batch::new();
        written.put(family, record_key, b"?");
        let found = batch(&desk.store, &written, &desk.expiry).unwrap();
        assert!(found.contains(&Violation::Unreadable(family)), "{record_key:?}: {found:?}");
    }
}

#[test]
fn a_code_is_not_of_the_future() {
    let code = CodeRecord { expires_ms: START_MS, hash: [1; 32], tries_left: 5, sent_ms: START_MS + 1 };
    let late = Violation::FromTheFuture { family: Family::Code, time_ms: START_MS + 1, now_ms: START_MS };
    Desk::new().refuse(|batch| batch.put_record(Family::Code, key::code(&NUMBER), &code), &[late]);
}

#[test]
fn nothing_is_of_the_future() {
    let future = MessageId::new(START_MS + 1, 0);
    let late = |family| Violation::FromTheFuture { family, time_ms: START_MS + 1, now_ms: START_MS };
    Desk::new().refuse(
        |batch| batch.put(Family::Message, key::message(&future), b"\x01"),
        &[late(Family::Message), Violation::NumbersWrong { numbers: Some(0), messages: 1 }],
    );
}

#[test]
fn a_store_with_a_hole_or_without_a_body_is_found() {
    let desk = Desk::new();
    for number in 2..=3 {
        desk.accept(&message(number));
    }
    let mut batch = Batch::new();
    batch.delete(Family::Inbox, key::inbox(&ACCOUNT, 2));
    batch.delete(Family::Message, key::message(&id(3)));
    desk.store.write(&batch, Durability::Synced).unwrap();
    let (account, hole) = (ACCOUNT, Violation::Hole { account: ACCOUNT, seq: 2 });
    let found = whole(&desk.store, &desk.expiry).unwrap();
    assert_eq!(found, [hole, Violation::BodyMissing { account, seq: 3 }]);
}
