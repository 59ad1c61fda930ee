//! Changes of accounts: registration, KeyPackages, device logs.

use super::*;
use crate::limits::KEY_PACKAGES_STORED_MAX;
use crate::store::key::KeyPackageKind;
use crate::store::record::{InviteRecord, KeyPackageRecord};
use gureum_proto::InviteId;

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

fn package(number: u8, not_after_ms: u64) -> ([u8; 32], KeyPackageRecord) {
    ([number; 32], KeyPackageRecord { not_after_ms, package: Bytes::copy_from_slice(&[number]) })
}

fn put(one_time: &[u8], last_resort: Option<u8>) -> Change {
    Change::PutKeyPackages {
        from: device(BOB, 1),
        one_time: one_time.iter().map(|number| package(*number, START_MS + DAY_MS)).collect(),
        last_resort: last_resort.map(|number| package(number, START_MS + DAY_MS)),
    }
}

fn claim(devices: &[u8]) -> Change {
    Change::ClaimKeyPackages { account: BOB, devices: devices.iter().map(|n| device(BOB, *n).device()).collect() }
}

fn claimed(number: u8) -> Changed {
    Changed::KeyPackages(vec![(device(BOB, 1).device(), Bytes::copy_from_slice(&[number]))])
}

#[test]
fn a_key_package_is_given_once_and_then_the_last_resort_for_ever() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    bench.changes(put(&[1, 2], Some(9)), Changed::KeyPackagesStored(2));
    assert!(bench.changes(claim(&[1]), claimed(1)).must_sync);
    bench.reopen();
    bench.changes(claim(&[1]), claimed(2));
    bench.changes(claim(&[1]), claimed(9));
    bench.changes(claim(&[1]), claimed(9));
}

#[test]
fn a_new_last_resort_replaces_the_old_one() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    bench.changes(put(&[], Some(9)), Changed::KeyPackagesStored(0));
    bench.changes(put(&[], Some(3)), Changed::KeyPackagesStored(0));
    bench.changes(claim(&[1]), claimed(3));
    let range = key::key_packages(&BOB, &device(BOB, 1).device(), KeyPackageKind::LastResort);
    assert_eq!(bench.store.scan(Family::KeyPackage, range.as_range(), 10).unwrap().len(), 1);
}

#[test]
fn expired_key_packages_are_skipped_and_go() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    let one_time = vec![package(1, START_MS), package(2, START_MS + 1)];
    let change = Change::PutKeyPackages { from: device(BOB, 1), one_time, last_resort: Some(package(9, START_MS + 1)) };
    bench.changes(change, Changed::KeyPackagesStored(2));
    bench.changes(claim(&[1]), claimed(2));
    let range = key::key_packages(&BOB, &device(BOB, 1).device(), KeyPackageKind::OneTime);
    assert_eq!(bench.store.scan(Family::KeyPackage, range.as_range(), 10).unwrap(), []);
    bench.advance(1);
    bench.refuses(claim(&[1]), Code::KeyPackagesExhausted);
}

#[test]
fn a_claim_leaves_out_who_has_no_key_package_and_fails_where_nobody_has_one() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    bench.changes(put(&[1], None), Changed::KeyPackagesStored(1));
    bench.changes(claim(&[2, 1, 3]), claimed(1));
    bench.refuses(claim(&[1, 2]), Code::KeyPackagesExhausted);
    bench.changes(claim(&[]), Changed::KeyPackages(vec![]));
}

#[test]
fn a_refused_change_leaves_the_sends_of_its_batch_alone() {
    let mut bench = Bench::talk();
    let mut plan = bench.plan([send(device(ALICE, 1), 1)]);
    let now_ms = bench.now_ms;
    let refused = bench.planner.add_change(claim(&[1]), now_ms, &mut plan).unwrap();
    assert_eq!(refused.map_err(|refusal| refusal.code), Err(Code::KeyPackagesExhausted));
    bench.planner.finish(&mut plan);
    bench.write(&plan).unwrap();
    let id = is_new(&plan.sent[0].result);
    assert_eq!(bench.inbox(BOB)[0].1.id, id);
    assert!(bench.message(id).is_some(), "what is answered is stored");
}

#[test]
fn the_directory_keeps_a_bounded_number_of_key_packages() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    let max = u8::try_from(KEY_PACKAGES_STORED_MAX).unwrap();
    let numbers: Vec<_> = (0..max).collect();
    bench.changes(put(&numbers, None), Changed::KeyPackagesStored(u32::from(max)));
    bench.refuses(put(&[max], None), Code::LimitReached);
    bench.changes(put(&[], Some(9)), Changed::KeyPackagesStored(u32::from(max)));
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
    assert_eq!(plan.revoked, [(BOB, device(BOB, 1).device())]);
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
