//! Tests of the records: their bytes, and that nothing else is taken for one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fmt::Debug;

use gureum_proto::{
    AccountId, ConversationId, DeviceId, LifeToken, MessageId, PhoneNotice, PushDigest, PushService, Relation,
};
use proptest::prelude::*;

use super::*;

const ID: MessageId = MessageId::from_bytes([0x1d; 16]);
const ACCOUNT: AccountId = AccountId::from_bytes([0xac; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([0xde; 16]);
const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc0; 16]);

/// A record has these bytes, comes back from them, and from nothing shorter, longer or newer.
#[track_caller]
fn check<R: Record + PartialEq + Debug>(record: &R, golden: &str) {
    let golden = golden
        .replace("ID", &"1d".repeat(16))
        .replace("ACCOUNT", &"ac".repeat(16))
        .replace("DEVICE", &"de".repeat(16))
        .replace("CONVERSATION", &"c0".repeat(16))
        .replace(' ', "");
    let bytes = record.encode();
    assert_eq!(data_encoding::HEXLOWER.encode(&bytes), golden);
    check_strict(record);
}

#[track_caller]
fn check_strict<R: Record + PartialEq + Debug>(record: &R) {
    let bytes = record.encode();
    assert_eq!(&R::decode(&Bytes::from(bytes.clone())).unwrap(), record);
    for len in 0..bytes.len() {
        assert_ne!(R::decode(&Bytes::copy_from_slice(&bytes[..len])).ok().as_ref(), Some(record));
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_ne!(R::decode(&Bytes::from(longer)).ok().as_ref(), Some(record));
    let mut newer = bytes;
    newer[0] = 2;
    assert_eq!(R::decode(&Bytes::from(newer)).unwrap_err(), RecordError::Version(2));
}

#[test]
fn inbox_entries_have_these_bytes() {
    let entry = |body| InboxEntry { id: ID, count: 2, bytes_total: 0x0102, body };
    let start = "01 ID 0000000000000002 0000000000000102";
    check(&entry(InboxBody::Message), &format!("{start} 00"));
    check(&entry(InboxBody::Welcome), &format!("{start} 01"));
    check(
        &entry(InboxBody::Commit { conversation: CONVERSATION, epoch: 9 }),
        &format!("{start} 02 {} 0000000000000009", "c0".repeat(16)),
    );
    check(&entry(InboxBody::DeviceLog { account: ACCOUNT }), &format!("{start} 03 ACCOUNT"));
    check(&entry(InboxBody::Silent), &format!("{start} 04"));
    check(&entry(InboxBody::Leave), &format!("{start} 05"));
}

#[test]
fn heads_cursors_and_windows_have_these_bytes() {
    let mark = |seq| Mark { seq, count: 1, bytes_total: 2 };
    let sums = "0000000000000001 0000000000000002";
    check(
        &InboxHead { seq: 9, count: 1, bytes_total: 2, overflow: mark(4), floor: mark(3) },
        &format!("01 0000000000000009 {sums} 0000000000000004 {sums} 0000000000000003 {sums}"),
    );
    check(&Cursor { seq: 5, count: 4 }, "01 0000000000000005 0000000000000004");
    let mut window = SenderWindow::default();
    check(&window, "01 0000000000000000 00");
    window.record(SentResult { counter: 7, id: ID, number: 3 });
    check(&window, "01 0000000000000007 01 0000000000000007 ID 0000000000000003");
    check(&SentResult { counter: 7, id: ID, number: 3 }, "01 0000000000000007 ID 0000000000000003");
}

#[test]
fn lives_have_these_bytes() {
    check(&LifeRecord::default(), &format!("01 0000000000000000 {} 00", "00".repeat(16)));
    let [token, lost] = [0x71, 0x72].map(|byte| LifeToken::from_bytes([byte; 16]));
    check(
        &LifeRecord { generation: 9, token, lost: vec![lost] },
        &format!("01 0000000000000009 {} 01 {}", "71".repeat(16), "72".repeat(16)),
    );
}

#[test]
fn messages_and_commits_have_these_bytes() {
    check(
        &SealedMessage { key_id: 6, nonce: [0xee; 12], ciphertext: Bytes::from_static(b"abc") },
        &format!("01 0000000000000006 {} 616263", "ee".repeat(12)),
    );
    check(
        &CommitRecord { time_ms: 1, account: ACCOUNT, device: DEVICE, counter: 8, commit: Bytes::from_static(b"c") },
        &format!("01 0000000000000001 ACCOUNT {} 0000000000000008 63", "de".repeat(16)),
    );
}

#[test]
fn conversations_packages_and_invites_have_these_bytes() {
    check(
        &ConversationHead {
            epoch: 1,
            created_ms: 2,
            kind: ConversationKind::Group,
            members: vec![Member { account: ACCOUNT, device: DEVICE, leaf: 5 }],
        },
        &format!("01 0000000000000001 0000000000000002 01 00000001 ACCOUNT {} 00000005", "de".repeat(16)),
    );
    for (kind, tag) in [(ConversationKind::Direct, "00"), (ConversationKind::Own, "02")] {
        let head = ConversationHead { epoch: 1, created_ms: 2, kind, members: vec![] };
        check(&head, &format!("01 0000000000000001 0000000000000002 {tag} 00000000"));
    }
    let leaving = Leaving { account: ACCOUNT, device: DEVICE, statement: Bytes::from_static(b"bye") };
    let device = "de".repeat(16);
    check(
        &Removals { floor_epoch: 7, pending: vec![DEVICE], leaving: vec![leaving] },
        &format!("01 0000000000000007 00000001 {device} 00000001 ACCOUNT {device} 00000003 627965"),
    );
    check(&Removals { floor_epoch: 7, ..Removals::default() }, "01 0000000000000007 00000000 00000000");
    check(&KeyPackageRecord { not_after_ms: 3, package: Bytes::from_static(b"kp") }, "01 0000000000000003 6b70");
    check(&InviteRecord { used: 1, expires_ms: 4 }, "01 00000001 0000000000000004");
}

fn target(service: PushService, visible: bool) -> PushTargetRecord {
    let (digest, sealed) = (PushDigest::from_bytes([0xd9; 16]), Bytes::from_static(b"abc"));
    PushTargetRecord { digest, service, host: 5, visible, set_ms: 6, generation: 7, nonce: [0xee; 12], sealed }
}

#[test]
fn push_targets_and_states_have_these_bytes() {
    for (service, tag) in [(PushService::Apns, "01"), (PushService::Fcm, "02"), (PushService::WebPush, "03")] {
        for (visible, flag) in [(false, "00"), (true, "01")] {
            let numbers = "0000000000000006 0000000000000007";
            let (digest, nonce) = ("d9".repeat(16), "ee".repeat(12));
            check(
                &target(service, visible),
                &format!("01 {digest} {tag} 0000000000000005 {flag} {numbers} {nonce} 616263"),
            );
        }
    }
    check(
        &PushStateRecord { woken_seq: 1, woken_ms: 2, warned_ms: 3 },
        "01 0000000000000001 0000000000000002 0000000000000003",
    );
}

#[test]
fn numbers_locks_and_codes_have_these_bytes() {
    let hash = "0e".repeat(32);
    check(&NumberRecord { account: ACCOUNT, findable: true }, "01 ACCOUNT 01");
    check(&NumberRecord { account: ACCOUNT, findable: false }, "01 ACCOUNT 00");
    let notice = PhoneNotice { moved_ms: 2, tried_ms: 3 };
    let times = "0000000000000001 0000000000000002 0000000000000003";
    check(&PhoneRecord { number: Some([0x0e; 32]), since_ms: 1, notice }, &format!("01 01 {hash} {times}"));
    check(&PhoneRecord { number: None, since_ms: 1, notice }, &format!("01 00 {times}"));
    check(
        &LockRecord { hash: [0x0e; 32], tries_left: 5, closed_until_ms: 9 },
        &format!("01 {hash} 05 0000000000000009"),
    );
    check(
        &CodeRecord { expires_ms: 1, hash: [0x0e; 32], tries_left: 4, sent_ms: 2 },
        &format!("01 0000000000000001 {hash} 04 0000000000000002"),
    );
    check(&SpentRecord { expires_ms: 1, count: 258 }, "01 0000000000000001 00000102");
}

#[test]
fn preferences_and_relations_have_these_bytes() {
    check(&PreferenceRecord { accepted: true, muted_until_ms: u64::MAX }, "01 01 ffffffffffffffff");
    check(&PreferenceRecord::default(), "01 00 0000000000000000");
    for (relation, tag) in [(Relation::None, "01"), (Relation::Accepted, "02"), (Relation::Blocked, "03")] {
        check(&relation, &format!("01 {tag}"));
    }
}

#[test]
fn plain_values_have_these_bytes() {
    check(&Bytes::from_static(b"xy"), "01 7879");
    check(&"bo".to_owned(), "01 626f");
    check(&5_u64, "01 0000000000000005");
    check(&ACCOUNT, "01 ACCOUNT");
    check(&(), "01");
}

#[test]
fn unknown_tags_and_excessive_counts_are_refused() {
    let mut entry = InboxEntry { id: ID, count: 0, bytes_total: 0, body: InboxBody::Message }.encode();
    *entry.last_mut().unwrap() = 99;
    let error = InboxEntry::decode(&entry.into()).unwrap_err();
    assert_eq!(error, RecordError::Tag { what: "inbox entry", found: 99 });
    let mut window = SenderWindow::default().encode();
    *window.last_mut().unwrap() = 65;
    assert_eq!(SenderWindow::decode(&window.into()).unwrap_err(), RecordError::TooMany { found: 65, max: 64 });
    let mut life = LifeRecord::default().encode();
    *life.last_mut().unwrap() = 9;
    assert_eq!(LifeRecord::decode(&life.into()).unwrap_err(), RecordError::TooMany { found: 9, max: 8 });
    let mut head =
        ConversationHead { epoch: 0, created_ms: 0, kind: ConversationKind::Direct, members: vec![] }.encode();
    head[18] = 0xff;
    let error = ConversationHead::decode(&head.into()).unwrap_err();
    assert!(matches!(error, RecordError::TooMany { max: 10_000, .. }), "{error}");
    let mut removals = Removals::default().encode();
    removals[9] = 0xff;
    let error = Removals::decode(&removals.into()).unwrap_err();
    assert!(matches!(error, RecordError::TooMany { max: 10_000, .. }), "{error}");
    let mut removals = Removals::default().encode();
    removals[13] = 0xff;
    let error = Removals::decode(&removals.into()).unwrap_err();
    assert!(matches!(error, RecordError::TooMany { max: 10_000, .. }), "{error}");
    let mut record = target(PushService::Apns, false).encode();
    record[17] = 4;
    let error = PushTargetRecord::decode(&record.clone().into()).unwrap_err();
    assert_eq!(error, RecordError::Tag { what: "push service", found: 4 });
    (record[17], record[26]) = (1, 2);
    let error = PushTargetRecord::decode(&record.into()).unwrap_err();
    assert_eq!(error, RecordError::Tag { what: "flag", found: 2 });
    let error = Relation::decode(&Bytes::from_static(&[1, 4])).unwrap_err();
    assert_eq!(error, RecordError::Tag { what: "relation", found: 4 });
    assert_eq!(Cursor::decode(&Bytes::from_static(&[1, 0])).unwrap_err(), RecordError::Truncated(7));
    assert_eq!(u64::decode(&Bytes::from_static(&[1; 10])).unwrap_err(), RecordError::Trailing(1));
}

#[test]
fn a_window_keeps_the_latest_results() {
    let mut window = SenderWindow::default();
    for counter in 1..=100 {
        window.record(SentResult { counter, id: ID, number: counter });
    }
    assert_eq!(window.highest, 100);
    assert_eq!(window.recent.len(), 64);
    assert_eq!(window.find(36), None);
    assert_eq!(window.find(37).map(|result| result.number), Some(37));
    check_strict(&window);
}

#[test]
fn a_window_forgets_what_is_too_far_behind_however_late_it_came() {
    let result = |counter| SentResult { counter, id: ID, number: counter };
    let mut window = SenderWindow::default();
    (1..=4).chain(6..=10).chain([5]).for_each(|counter| window.record(result(counter)));
    assert_eq!(window.recent, (1..=10).map(result).collect::<Vec<_>>());
    (11..=69).for_each(|counter| window.record(result(counter)));
    assert_eq!((window.find(5), window.find(6), window.find(70)), (None, Some(&result(6)), None));
    assert_eq!(window.recent, (6..=69).map(result).collect::<Vec<_>>());
    let unordered = SenderWindow { highest: 8, recent: [7, 8, 6].map(result).into() };
    assert_eq!(unordered.with(vec![result(9)]).recent, (6..=9).map(result).collect::<Vec<_>>());
}

#[test]
fn a_window_goes_on_with_results_that_were_written_one_by_one() {
    let result = |counter| SentResult { counter, id: ID, number: counter };
    let mut before = SenderWindow::default();
    (1..=70).for_each(|counter| before.record(result(counter)));
    let both = before.clone().with(vec![result(72), result(71)]);
    assert_eq!((both.highest, both.recent.len()), (72, 64));
    assert_eq!((both.find(8), both.find(9)), (None, Some(&result(9))));
    // Of 10 and 200 the places differ, and 10 still lies in its own.
    let alone = SenderWindow::default().with(vec![result(200), result(10), result(150)]);
    assert_eq!((alone.highest, alone.find(10), alone.find(150)), (200, None, Some(&result(150))));
    check_strict(&alone);
}

#[test]
fn a_peek_reads_what_the_whole_record_says() {
    let id = MessageId::new(1_234_567, 1);
    let entry = InboxEntry { id, count: 0, bytes_total: 0, body: InboxBody::Message };
    assert_eq!(InboxEntry::peek_time_ms(&entry.encode()), Some(1_234_567));
    let commit = CommitRecord { time_ms: 77, account: ACCOUNT, device: DEVICE, counter: 0, commit: Bytes::new() };
    assert_eq!(CommitRecord::peek_time_ms(&commit.encode()), Some(77));
    let invite = InviteRecord { used: 3, expires_ms: 78 };
    assert_eq!(InviteRecord::peek_expires_ms(&invite.encode()), Some(78));
    let code = CodeRecord { expires_ms: 79, hash: [7; 32], tries_left: 5, sent_ms: 1 };
    assert_eq!(peek_code_end(&code.encode()), Some(79));
    assert_eq!(peek_code_end(&SpentRecord { expires_ms: 80, count: 2 }.encode()), Some(80));
    assert_eq!(peek_code_end(&[2; 30]), None);
    assert_eq!(InboxEntry::peek_time_ms(&[2; 30]), None);
}

fn any_body() -> impl Strategy<Value = InboxBody> {
    prop_oneof![
        Just(InboxBody::Message),
        Just(InboxBody::Welcome),
        Just(InboxBody::Silent),
        (any::<[u8; 16]>(), any::<u64>())
            .prop_map(|(id, epoch)| InboxBody::Commit { conversation: ConversationId::from_bytes(id), epoch }),
        any::<[u8; 16]>().prop_map(|id| InboxBody::DeviceLog { account: AccountId::from_bytes(id) }),
        Just(InboxBody::Leave),
    ]
}

fn decode_all(bytes: &Bytes) {
    let _ = InboxEntry::decode(bytes);
    let _ = InboxHead::decode(bytes);
    let _ = Cursor::decode(bytes);
    let _ = SenderWindow::decode(bytes);
    let _ = SentResult::decode(bytes);
    let _ = LifeRecord::decode(bytes);
    let _ = SealedMessage::decode(bytes);
    let _ = ConversationHead::decode(bytes);
    let _ = Removals::decode(bytes);
    let _ = CommitRecord::decode(bytes);
    let _ = KeyPackageRecord::decode(bytes);
    let _ = InviteRecord::decode(bytes);
    let _ = PushTargetRecord::decode(bytes);
    let _ = PushStateRecord::decode(bytes);
    let _ = NumberRecord::decode(bytes);
    let _ = PhoneRecord::decode(bytes);
    let _ = LockRecord::decode(bytes);
    let _ = PreferenceRecord::decode(bytes);
    let _ = Relation::decode(bytes);
    let _ = CodeRecord::decode(bytes);
    let _ = SpentRecord::decode(bytes);
    let _ = peek_code_end(bytes);
}

proptest! {
    #[test]
    fn entries_round_trip(id: [u8; 16], count: u64, bytes_total: u64, body in any_body()) {
        check_strict(&InboxEntry { id: MessageId::from_bytes(id), count, bytes_total, body });
    }

    #[test]
    fn heads_round_trip(numbers: [u64; 9]) {
        let mark = |at: usize| Mark { seq: numbers[at], count: numbers[at + 1], bytes_total: numbers[at + 2] };
        let Mark { seq, count, bytes_total } = mark(0);
        check_strict(&InboxHead { seq, count, bytes_total, overflow: mark(3), floor: mark(6) });
    }

    #[test]
    fn windows_round_trip(results in prop::collection::vec(any::<(u64, [u8; 16], u64)>(), 0..80)) {
        let mut window = SenderWindow::default();
        for (counter, id, number) in results {
            window.record(SentResult { counter, id: MessageId::from_bytes(id), number });
        }
        check_strict(&window);
    }

    #[test]
    fn messages_round_trip(key_id: u64, nonce: [u8; 12], body in prop::collection::vec(any::<u8>(), 0..200)) {
        check_strict(&SealedMessage { key_id, nonce, ciphertext: body.into() });
    }

    #[test]
    fn conversations_round_trip(
        epoch: u64,
        created_ms: u64,
        kind in 0..3_usize,
        members in prop::collection::vec(any::<([u8; 16], [u8; 16], u32)>(), 0..6),
    ) {
        let kind = [ConversationKind::Direct, ConversationKind::Group, ConversationKind::Own][kind];
        let members = members
            .into_iter()
            .map(|(account, device, leaf)| Member {
                account: AccountId::from_bytes(account),
                device: DeviceId::from_bytes(device),
                leaf,
            })
            .collect();
        check_strict(&ConversationHead { epoch, created_ms, kind, members });
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_all(&Bytes::from(bytes.clone()));
        if let Some(first) = bytes.first_mut() {
            *first = RECORD_VERSION;
        }
        decode_all(&Bytes::from(bytes));
    }
}
