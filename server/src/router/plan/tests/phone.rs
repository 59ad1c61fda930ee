//! Phone numbers: proven by their codes alone, and kept by a lock for as long as somebody lives who has it.

use gureum_proto::{LockSecret, PhoneNotice};

use super::absent::target;
use super::*;
use crate::limits::{CODE_MS, CODE_TRIES_MAX, DAY_MS, LOCK_CLOSED_MS, LOCK_MS, LOCK_TRIES_MAX, LOCK_TRY_NOTED_MS};
use crate::store::key::NumberHash;
use crate::store::record::{CodeRecord, LockRecord, NumberRecord, PhoneRecord, SpentRecord};

const NUMBER: NumberHash = [7; 32];
const OTHER: NumberHash = [8; 32];
/// The hash of the code that is sent.
const RIGHT: [u8; 32] = [1; 32];
const WRONG: [u8; 32] = [2; 32];
const NEVER: PhoneNotice = PhoneNotice { moved_ms: 0, tried_ms: 0 };

fn today(bench: &Bench) -> u32 {
    u32::try_from(bench.now_ms / DAY_MS).unwrap()
}

fn code_of(bench: &Bench, number: NumberHash, hash: [u8; 32], day_max: u32) -> Change {
    Change::StoreCode(CodePlan { number, hash, day: today(bench), day_max })
}

/// The right code goes to a number.
fn send_code(bench: &mut Bench, number: NumberHash) {
    let (changed, plan) = bench.change(code_of(bench, number, RIGHT, u32::MAX));
    assert!(matches!(changed, Ok(Changed::CodeStored { .. })), "{changed:?}");
    assert!(plan.must_sync);
}

fn shown(number: NumberHash, code: [u8; 32]) -> PhonePlan {
    PhonePlan { number, code, lock: None, findable: false, present: None }
}

fn with_pin(pin: u8) -> PhonePlan {
    PhonePlan { lock: Some(LockSecret::from_bytes([pin; 32])), ..shown(NUMBER, RIGHT) }
}

fn registration(account: AccountId, handle: &str, phone: PhonePlan) -> Change {
    Change::Register(RegisterPlan {
        account,
        device: device(account, 1).device(),
        handle: handle.parse().unwrap(),
        root_entry: Bytes::copy_from_slice(account.as_bytes()),
        recovery_key: [account.as_bytes()[0]; 32],
        invite: None,
        phone: Some(phone),
    })
}

/// Alice registers under her name and shows this.
fn alice(phone: PhonePlan) -> Change {
    registration(ALICE, "alice", phone)
}

fn set(from: Authenticated, phone: PhonePlan) -> Change {
    Change::SetPhone { from, change: PhoneChangePlan::Set(phone) }
}

fn set_lock(from: Authenticated, pin: Option<u8>) -> Change {
    let hash = pin.map(|pin| hasher().lock(&from.account(), &LockSecret::from_bytes([pin; 32])));
    Change::SetLock { from, hash }
}

/// Bob has the number.
fn of_bob() -> Bench {
    let mut bench = Bench::new();
    send_code(&mut bench, NUMBER);
    bench.changes(registration(BOB, "bob", shown(NUMBER, RIGHT)), Changed::Registered);
    bench
}

/// The same, with a lock that the PIN 1 opens.
fn locked() -> Bench {
    let mut bench = of_bob();
    bench.changes(set_lock(device(BOB, 1), Some(1)), Changed::Done);
    bench
}

fn owner(bench: &Bench, number: NumberHash) -> Option<AccountId> {
    bench.get::<NumberRecord>(Family::Directory, key::number(&number)).map(|record| record.account)
}

fn own(bench: &Bench, account: AccountId) -> Option<PhoneRecord> {
    bench.get(Family::Directory, key::phone_of(&account))
}

fn lock_of(bench: &Bench, account: AccountId) -> Option<LockRecord> {
    bench.get(Family::Directory, key::lock_of(&account))
}

fn tries_left(bench: &Bench) -> Option<u8> {
    bench.get::<CodeRecord>(Family::Code, key::code(&NUMBER)).map(|record| record.tries_left)
}

/// Refused, although something may have been written; returns the refusal.
#[track_caller]
fn fails(bench: &mut Bench, change: Change, expected: Code) -> Refusal {
    let (changed, plan) = bench.change(change);
    let refusal = changed.unwrap_err();
    assert_eq!(refusal.code, expected);
    assert!(plan.must_sync || plan.batch.is_empty(), "what was tried is on the disk before it is answered");
    refusal
}

#[test]
fn a_code_proves_a_number_once() {
    let mut bench = Bench::new();
    send_code(&mut bench, NUMBER);
    let plan = bench.changes(alice(PhonePlan { findable: true, ..shown(NUMBER, RIGHT) }), Changed::Registered);
    assert!(plan.must_sync);
    let record = NumberRecord { account: ALICE, findable: true };
    assert_eq!(bench.get(Family::Directory, key::number(&NUMBER)), Some(record));
    let record = PhoneRecord { number: Some(NUMBER), since_ms: START_MS, notice: NEVER };
    assert_eq!((own(&bench, ALICE), lock_of(&bench, ALICE), tries_left(&bench)), (Some(record), None, None));
    bench.refuses(registration(BOB, "bob", shown(NUMBER, RIGHT)), Code::CodeInvalid);
    bench.changes(alice(shown(NUMBER, WRONG)), Changed::Registered);
}

#[test]
fn each_wrong_code_costs_a_try_that_is_not_given_back_and_the_last_one_the_code() {
    let mut bench = Bench::new();
    send_code(&mut bench, NUMBER);
    for left in (0..CODE_TRIES_MAX).rev() {
        let (changed, plan) = bench.change(alice(shown(NUMBER, WRONG)));
        assert_eq!(changed, Err(Refusal::new(Code::CodeInvalid)));
        assert!(plan.must_sync);
        assert_eq!(tries_left(&bench), Some(left));
        bench.reopen();
    }
    bench.refuses(alice(shown(NUMBER, RIGHT)), Code::CodeInvalid);
    send_code(&mut bench, NUMBER);
    bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Registered);
}

#[test]
fn nothing_tells_a_wrong_code_from_one_that_is_used_up_has_expired_or_was_never_sent() {
    let mut bench = Bench::new();
    let never = fails(&mut bench, alice(shown(NUMBER, RIGHT)), Code::CodeInvalid);
    send_code(&mut bench, NUMBER);
    for _ in 0..=CODE_TRIES_MAX {
        assert_eq!(fails(&mut bench, alice(shown(NUMBER, WRONG)), Code::CodeInvalid), never);
    }
    send_code(&mut bench, NUMBER);
    bench.advance(CODE_MS);
    assert_eq!(fails(&mut bench, alice(shown(NUMBER, RIGHT)), Code::CodeInvalid), never);
    // Nor whether the number is somebody's, who has it locked, nor whether the handle is.
    let mut bench = locked();
    for handle in ["bob", "alice"] {
        assert_eq!(fails(&mut bench, registration(ALICE, handle, with_pin(1)), Code::CodeInvalid), never);
    }
}

#[test]
fn a_code_lives_for_its_time_and_until_the_next_one() {
    let mut bench = Bench::new();
    send_code(&mut bench, NUMBER);
    bench.advance(CODE_MS - 1);
    bench.changes(code_of(&bench, OTHER, RIGHT, u32::MAX), Changed::CodeStored { spent: 2 });
    bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Registered);
    bench.changes(code_of(&bench, OTHER, [3; 32], u32::MAX), Changed::CodeStored { spent: 3 });
    fails(&mut bench, registration(BOB, "bob", shown(OTHER, RIGHT)), Code::CodeInvalid);
    bench.changes(registration(BOB, "bob", shown(OTHER, [3; 32])), Changed::Registered);
}

#[test]
fn so_many_codes_go_out_on_a_day_whatever_crashes() {
    let mut bench = Bench::new();
    for spent in 1..=2 {
        bench.changes(code_of(&bench, NUMBER, RIGHT, 2), Changed::CodeStored { spent });
        bench.reopen();
    }
    let (refused, plan) = bench.change(code_of(&bench, OTHER, RIGHT, 2));
    let midnight_ms = (u64::from(today(&bench)) + 1) * DAY_MS;
    let refusal = refused.unwrap_err();
    assert_eq!((refusal.code, refusal.retry_after_ms), (Code::RateLimited, midnight_ms - bench.now_ms));
    assert!(plan.batch.is_empty());
    let record: SpentRecord = bench.get(Family::Code, key::spent(today(&bench))).unwrap();
    assert!(record.count == 2 && record.expires_ms > midnight_ms, "it is counted for the whole day");
    bench.advance(midnight_ms - bench.now_ms);
    bench.changes(code_of(&bench, OTHER, RIGHT, 2), Changed::CodeStored { spent: 1 });
}

#[test]
fn who_is_refused_the_handle_tries_another_with_the_same_code() {
    let mut bench = of_bob();
    send_code(&mut bench, OTHER);
    bench.refuses(registration(ALICE, "bob", shown(OTHER, RIGHT)), Code::HandleTaken);
    bench.changes(registration(ALICE, "alice", shown(OTHER, RIGHT)), Changed::Registered);
    assert_eq!((owner(&bench, NUMBER), owner(&bench, OTHER)), (Some(BOB), Some(ALICE)));
}

#[test]
fn without_the_servers_secret_nothing_is_proven() {
    let mut bench = Bench::new();
    send_code(&mut bench, NUMBER);
    bench.planner = Planner::new(Arc::clone(&bench.store) as _, Arc::new(Plain), bench.config, Box::new(|| 1));
    bench.refuses(alice(shown(NUMBER, RIGHT)), Code::PhoneUnavailable);
}

#[test]
fn a_number_without_a_lock_moves_and_its_account_is_told_and_goes_on() {
    let mut bench = of_bob();
    bench.advance(1_000);
    send_code(&mut bench, NUMBER);
    let plan = bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Moved { from: BOB });
    assert_eq!(plan.revoked, []);
    assert_eq!(owner(&bench, NUMBER), Some(ALICE));
    let notice = PhoneNotice { moved_ms: bench.now_ms, tried_ms: 0 };
    assert_eq!(own(&bench, BOB), Some(PhoneRecord { number: None, since_ms: bench.now_ms, notice }));
    assert_eq!(bench.get(Family::Directory, key::handle("bob")), Some(BOB));
    assert!(bench.cursor(device(BOB, 1)).is_some());
    send_code(&mut bench, OTHER);
    bench.changes(set(device(BOB, 1), shown(OTHER, RIGHT)), Changed::Done);
    assert_eq!(own(&bench, BOB).map(|own| own.notice), Some(notice), "what has happened stays so");
}

#[test]
fn who_comes_back_under_the_old_handle_takes_it_from_the_account_that_ends_by_that() {
    let mut bench = of_bob();
    send_code(&mut bench, NUMBER);
    let plan = bench.changes(registration(ALICE, "bob", shown(NUMBER, RIGHT)), Changed::Moved { from: BOB });
    assert_eq!(plan.revoked, [(BOB, device(BOB, 1).device(), Code::AccountGone)]);
    assert_eq!(bench.get(Family::Directory, key::gone(&BOB)), Some(bench.now_ms));
    assert_eq!(bench.get(Family::Directory, key::handle("bob")), Some(ALICE));
    assert_eq!((owner(&bench, NUMBER), own(&bench, BOB)), (Some(ALICE), None));
    assert_eq!(own(&bench, ALICE).and_then(|own| own.number), Some(NUMBER));
    assert_eq!(bench.cursor(device(BOB, 1)), None);
    assert!(bench.cursor(device(ALICE, 1)).is_some());
    bench.refuses(registration(BOB, "bob", shown(NUMBER, RIGHT)), Code::AccountGone);
    bench.changes(registration(ALICE, "bob", shown(NUMBER, RIGHT)), Changed::Registered);
}

#[test]
fn a_lock_keeps_the_number_until_seven_days_after_the_account_was_seen() {
    let mut bench = locked();
    let bob = device(BOB, 1);
    bench.advance(3 * DAY_MS);
    bench.run([Op::Seen { from: bob }]);
    let seen_ms = bench.now_ms - bench.now_ms % 60_000;
    bench.advance(4 * DAY_MS);
    send_code(&mut bench, NUMBER);
    let refusal = fails(&mut bench, alice(shown(NUMBER, RIGHT)), Code::PhoneLocked);
    assert_eq!(refusal.retry_after_ms, seen_ms + LOCK_MS - bench.now_ms);
    assert_eq!(own(&bench, BOB).unwrap().notice, PhoneNotice { moved_ms: 0, tried_ms: bench.now_ms });
    assert_eq!(tries_left(&bench), Some(CODE_TRIES_MAX), "the code is not used up by it");
    bench.advance(refusal.retry_after_ms - 1);
    send_code(&mut bench, NUMBER);
    assert_eq!(fails(&mut bench, alice(shown(NUMBER, RIGHT)), Code::PhoneLocked).retry_after_ms, 1);
    bench.advance(1);
    let present = PhonePlan { present: Some(BOB), ..shown(NUMBER, RIGHT) };
    assert_eq!(fails(&mut bench, alice(present), Code::PhoneLocked).retry_after_ms, LOCK_MS, "it is connected");
    bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Moved { from: BOB });
    assert_eq!(lock_of(&bench, BOB), None);
}

#[test]
fn an_account_that_was_never_seen_is_as_if_seen_when_it_got_the_number() {
    let mut bench = locked();
    bench.advance(LOCK_MS - 1);
    send_code(&mut bench, NUMBER);
    assert_eq!(fails(&mut bench, alice(shown(NUMBER, RIGHT)), Code::PhoneLocked).retry_after_ms, 1);
    bench.advance(1);
    bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Moved { from: BOB });
}

#[test]
fn the_right_pin_opens_the_lock_and_becomes_that_of_the_new_account() {
    let mut bench = locked();
    send_code(&mut bench, NUMBER);
    bench.changes(alice(with_pin(1)), Changed::Moved { from: BOB });
    let hash = hasher().lock(&ALICE, &LockSecret::from_bytes([1; 32]));
    let record = LockRecord { hash, tries_left: LOCK_TRIES_MAX, closed_until_ms: 0 };
    assert_eq!((lock_of(&bench, ALICE), lock_of(&bench, BOB)), (Some(record), None));
    send_code(&mut bench, NUMBER);
    fails(&mut bench, registration(EVE, "eve", shown(NUMBER, RIGHT)), Code::PhoneLocked);
}

#[test]
fn so_many_wrong_pins_close_the_lock_for_a_day_to_the_right_one_too() {
    let mut bench = locked();
    send_code(&mut bench, NUMBER);
    for left in (1..LOCK_TRIES_MAX).rev() {
        fails(&mut bench, alice(with_pin(2)), Code::PhoneLocked);
        assert_eq!(lock_of(&bench, BOB).unwrap().tries_left, left);
        assert_eq!(own(&bench, BOB).unwrap().notice.tried_ms, bench.now_ms);
        bench.reopen();
    }
    let last = fails(&mut bench, alice(with_pin(2)), Code::PhoneLockClosed);
    assert_eq!(last.retry_after_ms, LOCK_CLOSED_MS);
    let closed = lock_of(&bench, BOB).unwrap();
    assert_eq!((closed.tries_left, closed.closed_until_ms), (LOCK_TRIES_MAX, bench.now_ms + LOCK_CLOSED_MS));
    bench.advance(LOCK_CLOSED_MS - 1);
    send_code(&mut bench, NUMBER);
    for attempt in [with_pin(1), with_pin(2), shown(NUMBER, RIGHT)] {
        assert_eq!(fails(&mut bench, alice(attempt), Code::PhoneLockClosed).retry_after_ms, 1);
        assert_eq!(lock_of(&bench, BOB), Some(closed.clone()), "no PIN is looked at");
    }
    bench.advance(1);
    bench.changes(alice(with_pin(1)), Changed::Moved { from: BOB });
}

#[test]
fn a_closed_lock_is_tried_again_no_later_than_the_number_is_free() {
    let mut bench = locked();
    bench.advance(LOCK_MS - 1);
    send_code(&mut bench, NUMBER);
    for _ in 1..LOCK_TRIES_MAX {
        fails(&mut bench, alice(with_pin(2)), Code::PhoneLocked);
    }
    assert_eq!(fails(&mut bench, alice(with_pin(2)), Code::PhoneLockClosed).retry_after_ms, 1);
    bench.advance(1);
    bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Moved { from: BOB });
}

#[test]
fn who_tries_without_a_pin_is_noted_once_in_a_while() {
    let mut bench = locked();
    send_code(&mut bench, NUMBER);
    bench.advance(1);
    for (wait_ms, is_noted) in [(0, true), (1, false), (LOCK_TRY_NOTED_MS - 2, false), (1, true)] {
        bench.advance(wait_ms);
        let (changed, plan) = bench.change(alice(shown(NUMBER, RIGHT)));
        assert_eq!(changed.unwrap_err().code, Code::PhoneLocked);
        assert_eq!((plan.must_sync, plan.batch.is_empty()), (is_noted, !is_noted));
    }
}

/// Since when Bob's device is owed a wake-up.
fn alarm(bench: &Bench) -> Option<u64> {
    bench.get(Family::Push, key::push_alarm(&BOB, &device(BOB, 1).device()))
}

#[test]
fn the_devices_of_whom_a_number_is_taken_from_are_owed_a_wake_up_in_the_same_batch() {
    let mut bench = of_bob();
    let bob = device(BOB, 1);
    bench.changes(target(bob, 1), Changed::Done);
    bench.advance(1);
    send_code(&mut bench, NUMBER);
    let plan = bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Moved { from: BOB });
    assert_eq!(plan.alarmed, [(BOB, bob.device(), bench.now_ms)]);
    assert_eq!(alarm(&bench), Some(bench.now_ms));
    let rung = |owed_ms| Op::Rung { account: BOB, device: bob.device(), owed_ms };
    assert!(bench.run([rung(bench.now_ms - 1)]).batch.is_empty(), "that was one before");
    bench.run([rung(bench.now_ms)]);
    assert_eq!(alarm(&bench), None);
}

#[test]
fn who_tries_rings_once_in_a_while_with_a_pin_and_without() {
    let mut bench = locked();
    bench.changes(target(device(BOB, 1), 1), Changed::Done);
    send_code(&mut bench, NUMBER);
    bench.advance(1);
    let tries = [
        (0, shown(NUMBER, RIGHT), 1),
        (1, shown(NUMBER, RIGHT), 0),
        (0, with_pin(2), 0),
        (LOCK_TRY_NOTED_MS, with_pin(2), 1),
        (0, with_pin(2), 0),
    ];
    for (wait_ms, phone, rings) in tries {
        bench.advance(wait_ms);
        let (changed, plan) = bench.change(alice(phone));
        assert_eq!(changed.unwrap_err().code, Code::PhoneLocked);
        assert_eq!(plan.alarmed.len(), rings);
    }
    assert_eq!(alarm(&bench), Some(bench.now_ms));
}

#[test]
fn what_a_device_is_to_know_goes_with_its_target_and_another_one_owes_nothing() {
    for again in [true, false] {
        let mut bench = of_bob();
        let bob = device(BOB, 1);
        bench.changes(target(bob, 1), Changed::Done);
        send_code(&mut bench, NUMBER);
        bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Moved { from: BOB });
        assert!(alarm(&bench).is_some());
        let (account, device) = (bob.account(), bob.device());
        let ends = if again { target(bob, 2) } else { Change::DropPushTarget { account, device, generation: None } };
        bench.changes(ends, Changed::Done);
        assert_eq!(alarm(&bench), None);
    }
}

#[test]
fn a_lock_guards_against_accounts_that_are_there_already_as_well() {
    let mut bench = locked();
    send_code(&mut bench, OTHER);
    bench.changes(alice(shown(OTHER, RIGHT)), Changed::Registered);
    send_code(&mut bench, NUMBER);
    fails(&mut bench, set(device(ALICE, 1), shown(NUMBER, RIGHT)), Code::PhoneLocked);
    assert_eq!((owner(&bench, NUMBER), owner(&bench, OTHER)), (Some(BOB), Some(ALICE)));
    bench.changes(set(device(ALICE, 1), with_pin(1)), Changed::Moved { from: BOB });
    assert_eq!((owner(&bench, NUMBER), owner(&bench, OTHER)), (Some(ALICE), None));
}

#[test]
fn an_account_changes_its_number_and_the_lock_of_the_old_one_goes() {
    let mut bench = locked();
    send_code(&mut bench, OTHER);
    fails(&mut bench, set(device(BOB, 1), shown(OTHER, WRONG)), Code::CodeInvalid);
    assert_eq!(owner(&bench, NUMBER), Some(BOB));
    bench.changes(set(device(BOB, 1), shown(OTHER, RIGHT)), Changed::Done);
    assert_eq!((owner(&bench, NUMBER), owner(&bench, OTHER)), (None, Some(BOB)));
    assert_eq!(lock_of(&bench, BOB), None, "its PIN was made into something by the old number");
    bench.changes(set(device(BOB, 1), shown(OTHER, WRONG)), Changed::Done);
}

#[test]
fn an_account_says_whether_it_is_found_and_gives_its_number_up() {
    let mut bench = locked();
    let change = |change| Change::SetPhone { from: device(BOB, 1), change };
    let found = |bench: &Bench| bench.get::<NumberRecord>(Family::Directory, key::number(&NUMBER));
    for findable in [true, false] {
        assert!(bench.changes(change(PhoneChangePlan::Findable(findable)), Changed::Done).must_sync);
        assert_eq!(found(&bench), Some(NumberRecord { account: BOB, findable }));
    }
    assert!(bench.changes(change(PhoneChangePlan::Remove), Changed::Done).must_sync);
    assert_eq!((found(&bench), lock_of(&bench, BOB)), (None, None));
    assert_eq!(own(&bench, BOB).and_then(|own| own.number), None);
    assert!(bench.changes(change(PhoneChangePlan::Remove), Changed::Done).batch.is_empty());
    bench.refuses(change(PhoneChangePlan::Findable(true)), Code::NotFound);
    bench.refuses(set_lock(device(BOB, 1), Some(1)), Code::NotFound);
    bench.changes(set_lock(device(BOB, 1), None), Changed::Done);
    send_code(&mut bench, NUMBER);
    bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Registered);
}

#[test]
fn a_lock_is_taken_off_by_a_device_of_the_account() {
    let mut bench = locked();
    bench.changes(set_lock(device(BOB, 1), None), Changed::Done);
    assert_eq!(lock_of(&bench, BOB), None);
    send_code(&mut bench, NUMBER);
    bench.changes(alice(shown(NUMBER, RIGHT)), Changed::Moved { from: BOB });
}

#[test]
fn a_device_that_was_cut_off_changes_no_number() {
    let mut bench = locked();
    bench.add_devices(&[device(BOB, 2)]);
    bench.changes(revocation(device(BOB, 1)), Changed::LogAppended(2));
    bench.refuses(set(device(BOB, 1), shown(NUMBER, RIGHT)), Code::DeviceRevoked);
    bench.refuses(set_lock(device(BOB, 1), None), Code::DeviceRevoked);
    bench.changes(Change::Delete("bob".parse().unwrap()), Changed::Deleted { account: BOB, devices: 1 });
    bench.refuses(set(device(BOB, 2), shown(NUMBER, RIGHT)), Code::AccountGone);
    assert_eq!((owner(&bench, NUMBER), own(&bench, BOB), lock_of(&bench, BOB)), (None, None, None));
}
