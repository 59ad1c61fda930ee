//! Changes of accounts: registration and device logs.

use std::collections::BTreeSet;

use gureum_proto::InviteId;

use super::key_packages::{claim, put};
use super::*;
use crate::limits::ANNOUNCED_ACCOUNTS_MAX;
use crate::store::record::InviteRecord;

const INVITE: InviteId = InviteId::from_bytes([0x11; 16]);
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn registration(account: AccountId, handle: &str, uses: u32, expires_ms: u64) -> Change {
    Change::Register(RegisterPlan {
        account,
        device: device(account, 1).device(),
        handle: handle.parse().unwrap(),
        root_entry: Bytes::copy_from_slice(account.as_bytes()),
        recovery_key: recovery_key(account),
        invite: Some((INVITE, uses, expires_ms)),
        phone: None,
    })
}

/// A recovery key of the account's own.
fn recovery_key(account: AccountId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(account.as_bytes());
    key
}

fn invited(account: AccountId, handle: &str) -> Change {
    registration(account, handle, 2, START_MS + DAY_MS)
}

fn used(bench: &Bench) -> u32 {
    bench.get::<InviteRecord>(Family::Registration, key::registration(&INVITE)).map_or(0, |record| record.used)
}

#[test]
fn a_registration_makes_account_handle_inbox_and_cursor() {
    let mut bench = Bench::new();
    let plan = bench.changes(invited(ALICE, "alice"), Changed::Registered);
    assert!(plan.must_sync);
    assert_eq!(bench.get(Family::Directory, key::handle("alice")), Some(ALICE));
    assert_eq!(bench.get(Family::Directory, key::handle_of(&ALICE)), Some("alice".to_owned()));
    let root: Option<Bytes> = bench.get(Family::DeviceLog, key::device_log(&ALICE, 0));
    assert_eq!(root.unwrap(), ALICE.as_bytes().as_slice());
    assert_eq!(bench.cursor(device(ALICE, 1)), Some(Cursor::default()));
    assert_eq!(bench.get(Family::InboxHead, key::inbox_head(&ALICE)), Some(InboxHead::default()));
    assert_eq!(used(&bench), 1);
}

#[test]
fn the_same_registration_again_is_fine_and_uses_nothing() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.changes(invited(ALICE, "alice"), Changed::Registered);
    }
    assert_eq!(used(&bench), 1);
}

#[test]
fn a_handle_is_one_accounts_and_an_account_has_one_handle() {
    let mut bench = Bench::new();
    bench.changes(invited(ALICE, "alice"), Changed::Registered);
    bench.refuses(invited(BOB, "alice"), Code::HandleTaken);
    bench.refuses(invited(ALICE, "alicia"), Code::HandleTaken);
    assert_eq!(used(&bench), 1);
}

#[test]
fn an_invite_ends_by_use_and_by_time() {
    let mut bench = Bench::new();
    bench.refuses(registration(ALICE, "alice", 2, START_MS), Code::InviteInvalid);
    bench.changes(registration(ALICE, "alice", 2, START_MS + 1), Changed::Registered);
    bench.changes(invited(BOB, "bob"), Changed::Registered);
    bench.refuses(invited(EVE, "eve"), Code::InviteUsed);
    assert_eq!(bench.get::<AccountId>(Family::Directory, key::handle("eve")), None);
    assert_eq!(used(&bench), 2);
}

#[test]
fn an_open_registration_needs_no_invite() {
    let mut bench = Bench::new();
    let Change::Register(mut plan) = invited(ALICE, "alice") else { unreachable!("a registration") };
    plan.invite = None;
    bench.changes(Change::Register(plan), Changed::Registered);
    assert_eq!(used(&bench), 0);
}

fn entry(account: AccountId, index: u64, added: &[u8], revoked: &[u8]) -> Change {
    let ids = |numbers: &[u8]| numbers.iter().map(|number| device(account, *number).device()).collect();
    Change::AppendLog(LogPlan {
        account,
        from: device(account, 1).device(),
        index,
        entry: Bytes::from(format!("entry {index}")),
        added: ids(added),
        revoked: ids(revoked),
        recovery_keys: None,
    })
}

/// Bob's log replaces one recovery key by another.
fn rotation(index: u64, before: [u8; 32], after: [u8; 32]) -> Change {
    let Change::AppendLog(plan) = entry(BOB, index, &[], &[]) else { unreachable!() };
    Change::AppendLog(LogPlan { recovery_keys: Some((before, after)), ..plan })
}

fn recovered_by(bench: &Bench, key: &[u8; 32]) -> Option<AccountId> {
    bench.get(Family::Directory, key::recovery(key))
}

#[test]
fn an_account_is_found_by_the_recovery_key_that_its_log_names_last() {
    let mut bench = Bench::new();
    bench.changes(invited(BOB, "bob"), Changed::Registered);
    assert_eq!(recovered_by(&bench, &recovery_key(BOB)), Some(BOB));
    bench.changes(rotation(1, recovery_key(BOB), [7; 32]), Changed::LogAppended(2));
    assert_eq!(recovered_by(&bench, &recovery_key(BOB)), None);
    assert_eq!(recovered_by(&bench, &[7; 32]), Some(BOB));
}

#[test]
fn a_recovery_key_leads_to_the_first_account_that_has_it() {
    let mut bench = Bench::new();
    bench.changes(invited(ALICE, "alice"), Changed::Registered);
    bench.changes(invited(BOB, "bob"), Changed::Registered);
    bench.changes(rotation(1, recovery_key(BOB), recovery_key(ALICE)), Changed::LogAppended(2));
    assert_eq!(recovered_by(&bench, &recovery_key(ALICE)), Some(ALICE));
    bench.changes(rotation(2, recovery_key(ALICE), [7; 32]), Changed::LogAppended(3));
    assert_eq!(recovered_by(&bench, &recovery_key(ALICE)), Some(ALICE), "it was never Bob's");
    assert_eq!(recovered_by(&bench, &[7; 32]), Some(BOB));
}

#[test]
fn a_proof_is_noted_to_the_minute_and_a_revocation_forgets_it() {
    let mut bench = logged();
    let second = device(BOB, 2);
    bench.changes(entry(BOB, 1, &[2], &[]), Changed::LogAppended(2));
    let seen = |bench: &Bench| bench.get::<u64>(Family::Cursor, key::cursor(&BOB, &second.device(), CursorTag::Seen));
    let note = |bench: &mut Bench| {
        let plan = bench.run([Op::Seen { from: second }]);
        (plan.must_sync, plan.batch.len())
    };
    assert_eq!(note(&mut bench), (false, 1), "it need not survive a crash");
    assert_eq!(seen(&bench), Some(START_MS - START_MS % 60_000));
    assert_eq!(note(&mut bench), (false, 0), "in the same minute");
    bench.changes(entry(BOB, 2, &[], &[2]), Changed::LogAppended(3));
    assert_eq!(seen(&bench), None);
    assert_eq!(note(&mut bench), (false, 0), "what was under way comes too late");
}

/// Alice and Bob talk, and Bob's log has its root.
fn logged() -> Bench {
    let bench = Bench::talk();
    let mut batch = Batch::new();
    batch.put_record(Family::DeviceLog, key::device_log(&BOB, 0), &Bytes::from_static(b"root"));
    bench.store.write(&batch, Durability::Synced).unwrap();
    bench
}

#[test]
fn an_added_device_begins_at_the_head_and_everybody_concerned_is_told() {
    let mut bench = logged();
    bench.run((1..=3).map(|counter| send(device(ALICE, 1), counter)));
    let plan = bench.changes(entry(BOB, 1, &[2], &[]), Changed::LogAppended(2));
    assert!(plan.must_sync && plan.revoked.is_empty());
    assert_eq!(bench.cursor(device(BOB, 2)), Some(Cursor { seq: 3, count: 3 }));
    for (account, seq) in [(ALICE, 1), (BOB, 4)] {
        let (found, last) = *bench.inbox(account).last().unwrap();
        assert_eq!((found, last.body), (seq, InboxBody::DeviceLog { account: BOB }));
    }
    assert_eq!(bench.head(BOB).count, 3, "an announcement is no message");
    assert!(bench.inbox(EVE).is_empty());
}

#[test]
fn acks_of_an_added_device_count_at_once() {
    let mut bench = logged();
    bench.run((1..=3).map(|counter| send(device(ALICE, 1), counter)));
    bench.ack(device(BOB, 1), 1, 1);
    bench.changes(entry(BOB, 1, &[2], &[]), Changed::LogAppended(2));
    bench.ack(device(BOB, 2), 4, 3);
    assert_eq!(bench.cursor(device(BOB, 2)), Some(Cursor { seq: 4, count: 3 }));
    assert_eq!(bench.ack(device(BOB, 1), 4, 3).floors, [(BOB, 4)]);
}

#[test]
fn a_revoked_device_loses_cursor_and_key_packages_and_holds_nobody_up() {
    let mut bench = logged();
    bench.changes(entry(BOB, 1, &[2], &[]), Changed::LogAppended(2));
    bench.changes(put(&[1], Some(9)), Changed::KeyPackagesStored(1));
    bench.run((1..=3).map(|counter| send(device(ALICE, 1), counter)));
    assert_eq!(bench.ack(device(BOB, 2), 4, 3).floors, []);
    let plan = bench.changes(entry(BOB, 2, &[], &[1]), Changed::LogAppended(3));
    assert_eq!(plan.revoked, [(BOB, device(BOB, 1).device(), Code::DeviceRevoked)]);
    assert_eq!(bench.cursor(device(BOB, 1)), None);
    bench.refuses(claim(&[1]), Code::KeyPackagesExhausted);
    assert!(bench.ack(device(BOB, 1), 4, 3).batch.is_empty());
    assert_eq!(bench.ack(device(BOB, 2), 5, 3).floors, [(BOB, 5)]);
}

#[test]
fn a_log_entry_whose_place_is_taken_is_refused() {
    let mut bench = logged();
    bench.changes(entry(BOB, 1, &[2], &[]), Changed::LogAppended(2));
    bench.refuses(entry(BOB, 1, &[3], &[]), Code::LogInvalid);
    assert_eq!(bench.cursor(device(BOB, 3)), None);
}

#[test]
fn announcing_into_a_full_inbox_does_not_bring_old_cursors_back() {
    let mut bench = Bench::bounded(8, 1 << 20).with_members(&[device(ALICE, 1), device(BOB, 1)]);
    bench.run((1..=8).map(|counter| send(device(ALICE, 1), counter)));
    let mut plan = bench.plan([ack(device(BOB, 1), 2, 2)]);
    let now_ms = bench.now_ms;
    let changed = bench.planner.add_change(entry(BOB, 1, &[2], &[1]), now_ms, &mut plan).unwrap();
    assert_eq!(changed, Ok(Changed::LogAppended(2)));
    bench.planner.finish(&mut plan);
    bench.write(&plan).unwrap();
    assert_eq!(bench.cursor(device(BOB, 1)), None, "what was revoked stays so");
    bench.ack(device(BOB, 2), 9, 8);
    assert_eq!(bench.cursor(device(BOB, 2)), Some(Cursor { seq: 9, count: 8 }));
}

#[test]
fn what_was_acked_just_before_a_log_entry_stays_acked() {
    let mut bench = logged();
    bench.run((1..=3).map(|counter| send(device(ALICE, 1), counter)));
    let (mut plan, now_ms) = (Plan::default(), bench.now_ms);
    bench.planner.add(ack(device(BOB, 1), 2, 2), now_ms, &mut plan).unwrap();
    bench.planner.add_change(entry(BOB, 1, &[2], &[]), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    bench.write(&plan).unwrap();
    assert_eq!(bench.cursor(device(BOB, 1)), Some(Cursor { seq: 2, count: 2 }));
    assert_eq!(bench.ack(device(BOB, 2), 4, 3).floors, []);
    assert_eq!(bench.ack(device(BOB, 1), 4, 3).floors, [(BOB, 4)]);
}

#[test]
fn so_many_accounts_are_told_of_a_log_and_whom_it_talks_with_alone_before_the_members_of_its_groups() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    let mut batch = Batch::new();
    let mut talk = |id: u8, kind, others: Vec<Authenticated>| {
        let id = ConversationId::from_bytes([id; 16]);
        let members = others.into_iter().chain([device(BOB, 1)]).map(member).collect();
        let head = ConversationHead { epoch: 1, created_ms: START_MS, kind, members };
        batch.put_record(Family::Conversation, key::conversation(&id, ConversationTag::Head), &head);
        batch.put_record(Family::Directory, key::membership(&BOB, &id), &());
    };
    for group in 1..=3 {
        let other = |number: u32| {
            let mut id = [group; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            device(AccountId::from_bytes(id), 1)
        };
        talk(group, ConversationKind::Group, (0..9_999).map(other).collect());
    }
    talk(0xf0, ConversationKind::Direct, vec![device(ALICE, 1)]);
    bench.store.write(&batch, Durability::Synced).unwrap();
    let plan = bench.changes(entry(BOB, 1, &[2], &[]), Changed::LogAppended(2));
    let told: BTreeSet<_> = plan.deliveries.iter().map(|(account, _)| *account).collect();
    assert_eq!((told.len(), plan.deliveries.len()), (ANNOUNCED_ACCOUNTS_MAX, ANNOUNCED_ACCOUNTS_MAX));
    assert!(told.contains(&BOB) && told.contains(&ALICE));
}
