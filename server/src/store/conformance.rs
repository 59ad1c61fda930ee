//! The behaviour that every backend has, as one suite.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, DeviceId, InviteId, MessageId};

use super::record::{CodeRecord, CommitRecord, InboxBody, InboxEntry, InviteRecord, SealedMessage, SpentRecord};
use super::{Batch, Durability, Expiry, Family, Store, key};
use crate::time::{Clock, ManualClock};

pub(crate) const RETENTION_MS: u64 = 6_000;
pub(crate) const COMMIT_RETENTION_MS: u64 = 60_000;
pub(crate) const START_MS: u64 = 1_800_000_000_000;

/// A store with a clock that is moved by hand, and what its directory needs to stay.
pub(crate) struct Bench {
    pub(crate) time: Arc<ManualClock>,
    pub(crate) expiry: Expiry,
    pub(crate) store: Box<dyn Store>,
    #[cfg_attr(not(feature = "node"), allow(dead_code, reason = "only a store on a disk has one"))]
    pub(crate) directory: Option<tempfile::TempDir>,
}

/// The rules of expiry under a clock that is moved by hand.
pub(crate) fn expiry() -> (Arc<ManualClock>, Expiry) {
    let time = Arc::new(ManualClock::at(START_MS));
    let clock = Clock::resume(Arc::clone(&time) as _, RETENTION_MS, None).unwrap();
    let expiry = Expiry {
        clock: Arc::new(clock),
        retention_ms: RETENTION_MS,
        commit_retention_ms: COMMIT_RETENTION_MS,
        floors: Arc::default(),
    };
    (time, expiry)
}

/// Makes a test of each behaviour for a backend.
macro_rules! conformance {
    ($make:expr; $($behaviour:ident),* $(,)?) => {$(
        #[test]
        fn $behaviour() {
            $crate::store::conformance::$behaviour(&$make());
        }
    )*};
}

/// Makes all tests for a backend.
macro_rules! conformance_tests {
    ($make:expr) => {
        $crate::store::conformance::conformance! { $make;
            a_batch_is_visible_whole_and_in_order,
            many_keys_are_answered_in_the_order_asked,
            a_scan_is_ascending_and_bounded_on_both_sides,
            a_scan_crosses_accounts_when_asked,
            the_last_entry_of_a_range_is_found,
            families_do_not_share_keys,
            what_has_not_expired_survives_reclaiming,
            messages_expire_by_their_own_time,
            inbox_entries_expire_by_time_or_when_taken,
            commits_outlive_messages,
            welcomes_outlive_messages_with_their_pointers,
            invites_end_when_they_say,
            codes_end_when_they_say,
            state_never_expires,
            the_oldest_physical_message_is_known,
            an_empty_store_has_nothing_to_reclaim,
            an_empty_batch_is_written,
        }
    };
}

pub(crate) use {conformance, conformance_tests};

pub(crate) const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
pub(crate) const OTHER: AccountId = AccountId::from_bytes([0xa2; 16]);
const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc1; 16]);

fn write(store: &dyn Store, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    store.write(&batch, Durability::Synced).unwrap();
}

/// A message of a time, with this as its ciphertext.
pub(crate) fn put_message(store: &dyn Store, time_ms: u64, ciphertext: &[u8]) -> MessageId {
    let id = MessageId::new(time_ms, u128::from(time_ms));
    let sealed = SealedMessage { key_id: 1, nonce: [0; 12], ciphertext: Bytes::copy_from_slice(ciphertext) };
    write(store, |batch| batch.put_record(Family::Message, key::message(&id), &sealed));
    id
}

/// An inbox entry of a time.
pub(crate) fn put_entry(store: &dyn Store, account: &AccountId, seq: u64, time_ms: u64) {
    let id = MessageId::new(time_ms, 0);
    let entry = InboxEntry { id, count: seq, bytes_total: seq, body: InboxBody::Message };
    write(store, |batch| batch.put_record(Family::Inbox, key::inbox(account, seq), &entry));
}

fn seqs(store: &dyn Store, account: &AccountId) -> Vec<u64> {
    let range = key::inbox_after(account, 0);
    let entries = store.scan(Family::Inbox, range.as_range(), 100).unwrap();
    entries.iter().map(|(key, _)| key::parse_inbox(key).unwrap().1).collect()
}

/// Reclaims until what is due by now is done, as the rounds of a few seconds would.
fn settle(bench: &Bench) {
    for _ in 0..3 {
        bench.time.advance(bench.expiry.periods().round_ms);
        bench.store.reclaim().unwrap();
    }
}

pub(crate) fn a_batch_is_visible_whole_and_in_order(bench: &Bench) {
    let store = &*bench.store;
    write(store, |batch| batch.put(Family::Meta, b"old", b"1"));
    write(store, |batch| {
        batch.put(Family::Meta, b"a", b"first");
        batch.put(Family::Meta, b"a", b"second");
        batch.put(Family::Cursor, b"b", b"");
        batch.delete(Family::Meta, b"old");
        batch.delete(Family::Meta, b"never there");
    });
    assert_eq!(store.get(Family::Meta, b"a").unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(store.get(Family::Cursor, b"b").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(store.get(Family::Meta, b"old").unwrap(), None);
}

pub(crate) fn many_keys_are_answered_in_the_order_asked(bench: &Bench) {
    let store = &*bench.store;
    write(store, |batch| {
        batch.put(Family::DeviceLog, b"1", b"one");
        batch.put(Family::DeviceLog, b"2", b"two");
    });
    let found = store.get_many(Family::DeviceLog, &[b"2", b"3", b"1", b"2"]).unwrap();
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some(&b"two"[..]), None, Some(b"one"), Some(b"two")]);
    assert_eq!(store.get_many(Family::DeviceLog, &[]).unwrap(), Vec::<Option<Bytes>>::new());
}

pub(crate) fn a_scan_is_ascending_and_bounded_on_both_sides(bench: &Bench) {
    let store = &*bench.store;
    for seq in [3, 1, 2, 300, 5] {
        put_entry(store, &ACCOUNT, seq, START_MS);
    }
    put_entry(store, &OTHER, 4, START_MS);
    assert_eq!(seqs(store, &ACCOUNT), [1, 2, 3, 5, 300]);
    let (start, end) = (key::inbox(&ACCOUNT, 2), key::inbox(&ACCOUNT, 5));
    let scan = |limit| store.scan(Family::Inbox, &start..&end, limit).unwrap().len();
    assert_eq!((scan(10), scan(1), scan(0)), (2, 1, 0));
    assert_eq!(store.scan(Family::Inbox, &end..&start, 10).unwrap(), []);
}

pub(crate) fn a_scan_crosses_accounts_when_asked(bench: &Bench) {
    let store = &*bench.store;
    put_entry(store, &ACCOUNT, 1, START_MS);
    put_entry(store, &OTHER, 1, START_MS);
    assert_eq!(store.scan(Family::Inbox, &[0; 24]..&[0xff; 24], 10).unwrap().len(), 2);
}

pub(crate) fn the_last_entry_of_a_range_is_found(bench: &Bench) {
    let store = &*bench.store;
    let last = |range: key::KeyRange| {
        let found = store.last(Family::Inbox, range.as_range()).unwrap();
        found.map(|(key, _)| key::parse_inbox(&key).unwrap())
    };
    assert_eq!(last(key::inbox_after(&ACCOUNT, 0)), None);
    for seq in 1..=9 {
        put_entry(store, &ACCOUNT, seq, START_MS);
    }
    put_entry(store, &OTHER, 77, START_MS);
    assert_eq!(last(key::inbox_after(&ACCOUNT, 0)), Some((ACCOUNT, 9)));
    assert_eq!(last(key::inbox_after(&ACCOUNT, 9)), None);
    let until = key::KeyRange { start: key::inbox(&ACCOUNT, 2), end: key::inbox(&ACCOUNT, 4) };
    assert_eq!(last(until), Some((ACCOUNT, 3)));
}

pub(crate) fn families_do_not_share_keys(bench: &Bench) {
    let store = &*bench.store;
    for family in Family::ALL {
        write(store, |batch| batch.put(family, b"same", family.name()));
    }
    for family in Family::ALL {
        assert_eq!(store.get(family, b"same").unwrap().as_deref(), Some(family.name().as_bytes()));
    }
}

pub(crate) fn what_has_not_expired_survives_reclaiming(bench: &Bench) {
    let store = &*bench.store;
    let id = put_message(store, START_MS, b"living");
    put_entry(store, &ACCOUNT, 1, START_MS);
    bench.time.advance(RETENTION_MS - 1_000);
    settle(bench);
    assert!(store.get(Family::Message, &key::message(&id)).unwrap().is_some());
    assert_eq!(seqs(store, &ACCOUNT), [1]);
}

pub(crate) fn messages_expire_by_their_own_time(bench: &Bench) {
    let store = &*bench.store;
    let old: Vec<_> = (0..20).map(|at| put_message(store, START_MS + at, b"old")).collect();
    bench.time.advance(RETENTION_MS);
    let new = put_message(store, START_MS + RETENTION_MS, b"new");
    settle(bench);
    for id in &old {
        assert_eq!(store.get(Family::Message, &key::message(id)).unwrap(), None);
    }
    assert!(store.get(Family::Message, &key::message(&new)).unwrap().is_some());
}

pub(crate) fn inbox_entries_expire_by_time_or_when_taken(bench: &Bench) {
    let store = &*bench.store;
    for seq in 1..=4 {
        put_entry(store, &ACCOUNT, seq, START_MS);
        put_entry(store, &OTHER, seq, START_MS);
    }
    bench.expiry.floors.raise(&ACCOUNT, 3);
    bench.time.advance(RETENTION_MS / 2);
    settle(bench);
    assert_eq!(seqs(store, &ACCOUNT), [4]);
    assert_eq!(seqs(store, &OTHER), [1, 2, 3, 4]);
    put_entry(store, &OTHER, 5, START_MS + RETENTION_MS);
    bench.time.advance(RETENTION_MS / 2);
    settle(bench);
    assert!(seqs(store, &ACCOUNT).is_empty());
    assert_eq!(seqs(store, &OTHER), [5]);
}

pub(crate) fn commits_outlive_messages(bench: &Bench) {
    let store = &*bench.store;
    let commit = CommitRecord {
        time_ms: START_MS,
        account: ACCOUNT,
        device: DeviceId::from_bytes([1; 16]),
        counter: 1,
        commit: Bytes::from_static(b"commit"),
    };
    let commit_key = key::commit(&CONVERSATION, 1);
    write(store, |batch| batch.put_record(Family::Commit, commit_key, &commit));
    bench.time.advance(COMMIT_RETENTION_MS - 10_000);
    settle(bench);
    assert_eq!(super::read(store, Family::Commit, &commit_key).unwrap(), Some(commit));
    bench.time.advance(10_000);
    settle(bench);
    assert_eq!(store.get(Family::Commit, &commit_key).unwrap(), None);
}

pub(crate) fn welcomes_outlive_messages_with_their_pointers(bench: &Bench) {
    let store = &*bench.store;
    let id = MessageId::new(START_MS, 7);
    let entry = InboxEntry { id, count: 0, bytes_total: 1, body: InboxBody::Welcome };
    let welcome = Bytes::from_static(b"welcome");
    for account in [&ACCOUNT, &OTHER] {
        write(store, |batch| {
            batch.put_record(Family::Welcome, key::message(&id), &welcome);
            batch.put_record(Family::Inbox, key::inbox(account, 1), &entry);
        });
        put_entry(store, account, 2, START_MS);
    }
    bench.expiry.floors.raise(&OTHER, 1);
    bench.time.advance(COMMIT_RETENTION_MS - 10_000);
    settle(bench);
    assert_eq!((seqs(store, &ACCOUNT), seqs(store, &OTHER)), (vec![1], vec![]));
    assert_eq!(super::read(store, Family::Welcome, key::message(&id).as_ref()).unwrap(), Some(welcome));
    assert_eq!(store.oldest_physical_ms().unwrap(), None, "it is no message");
    bench.time.advance(10_000);
    settle(bench);
    assert!(seqs(store, &ACCOUNT).is_empty());
    assert_eq!(store.get(Family::Welcome, &key::message(&id)).unwrap(), None);
}

pub(crate) fn invites_end_when_they_say(bench: &Bench) {
    let store = &*bench.store;
    let [short, long] = [InviteId::from_bytes([1; 16]), InviteId::from_bytes([2; 16])];
    for (invite, expires_ms) in [(&short, START_MS + 1_000), (&long, START_MS + 1_000_000)] {
        let record = InviteRecord { used: 0, expires_ms };
        write(store, |batch| batch.put_record(Family::Registration, key::registration(invite), &record));
    }
    bench.time.advance(5_000);
    settle(bench);
    assert_eq!(store.get(Family::Registration, &key::registration(&short)).unwrap(), None);
    assert!(store.get(Family::Registration, &key::registration(&long)).unwrap().is_some());
}

pub(crate) fn codes_end_when_they_say(bench: &Bench) {
    let store = &*bench.store;
    let ends = [START_MS + 1_000, START_MS + 1_000_000];
    let code = |expires_ms| CodeRecord { expires_ms, hash: [7; 32], tries_left: 5, sent_ms: START_MS };
    let keys = [(key::code(&[1; 32]), key::spent(1)), (key::code(&[2; 32]), key::spent(2))];
    for (expires_ms, (code_key, spent_key)) in ends.into_iter().zip(keys) {
        write(store, |batch| {
            batch.put_record(Family::Code, code_key, &code(expires_ms));
            batch.put_record(Family::Code, spent_key, &SpentRecord { expires_ms, count: 3 });
        });
    }
    bench.time.advance(5_000);
    settle(bench);
    let [(short, past), (long, today)] = keys;
    assert_eq!(store.get(Family::Code, &short).unwrap(), None);
    assert_eq!(store.get(Family::Code, &past).unwrap(), None);
    assert_eq!(super::read(store, Family::Code, &long).unwrap(), Some(code(ends[1])));
    let spent = SpentRecord { expires_ms: ends[1], count: 3 };
    assert_eq!(super::read(store, Family::Code, &today).unwrap(), Some(spent));
}

pub(crate) fn state_never_expires(bench: &Bench) {
    let store = &*bench.store;
    let state = [
        Family::Meta,
        Family::InboxHead,
        Family::Cursor,
        Family::DeviceLog,
        Family::Conversation,
        Family::Push,
        Family::Sent,
    ];
    for family in state {
        write(store, |batch| batch.put(family, [7; 16], b"state"));
    }
    bench.time.advance(100 * COMMIT_RETENTION_MS);
    settle(bench);
    for family in state {
        assert!(store.get(family, &[7; 16]).unwrap().is_some(), "{}", family.name());
    }
}

pub(crate) fn the_oldest_physical_message_is_known(bench: &Bench) {
    let store = &*bench.store;
    assert_eq!(store.oldest_physical_ms().unwrap(), None);
    put_message(store, START_MS, b"one");
    bench.time.advance(1_000);
    put_message(store, START_MS + 1_000, b"two");
    assert_eq!(store.oldest_physical_ms().unwrap(), Some(START_MS));
    bench.store.reclaim().unwrap();
    assert_eq!(store.oldest_physical_ms().unwrap(), Some(START_MS));
    bench.time.advance(RETENTION_MS + 1_000);
    settle(bench);
    assert_eq!(store.oldest_physical_ms().unwrap(), None);
}

pub(crate) fn an_empty_store_has_nothing_to_reclaim(bench: &Bench) {
    settle(bench);
    assert_eq!(bench.store.oldest_physical_ms().unwrap(), None);
    assert_eq!(bench.store.healthy(), Ok(()));
    bench.store.close().unwrap();
}

pub(crate) fn an_empty_batch_is_written(bench: &Bench) {
    write(&*bench.store, |_| ());
}
