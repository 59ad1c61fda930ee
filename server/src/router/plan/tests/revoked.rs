//! Revocations: from then on nothing is taken that a revoked device could read, or that it has still in the queue.

use super::groups::commit_plan;
use super::*;
use crate::store::record::{KeyPackageRecord, Removals};

/// Alice and Bob with two devices each, all of them in the conversation; Bob's second is revoked.
fn revoked() -> Bench {
    let all = [device(ALICE, 1), device(ALICE, 2), device(BOB, 1), device(BOB, 2)];
    let mut bench = Bench::new().with_members(&all);
    bench.changes(revocation(device(BOB, 2)), Changed::LogAppended(2));
    bench
}

fn commit(from: Authenticated, counter: u64, epoch: u64, members: &[Authenticated]) -> Change {
    Change::Commit(commit_plan(from, counter, epoch, members))
}

fn removals(bench: &Bench) -> Option<Removals> {
    bench.get(Family::Conversation, key::conversation(&TALK, ConversationTag::Removals))
}

#[track_caller]
fn sends(bench: &mut Bench, from: Authenticated, counter: u64, epoch: u64, expected: Result<(), Code>) {
    let sent = bench.run([send_at(from, counter, epoch)]).sent.remove(0);
    assert_eq!(sent.result.map(|_| ()).map_err(|refusal| refusal.code), expected);
}

#[test]
fn nothing_is_taken_until_the_revoked_device_is_removed_and_nothing_of_before_after_it() {
    let mut bench = revoked();
    for _ in 0..2 {
        sends(&mut bench, device(ALICE, 1), 1, EPOCH, Err(Code::RemovalPending));
        sends(&mut bench, device(BOB, 1), 1, EPOCH, Err(Code::RemovalPending));
        bench.reopen();
    }
    let left = [device(ALICE, 1), device(ALICE, 2), device(BOB, 1)];
    bench.changes(commit(device(ALICE, 2), 1, EPOCH, &left), Changed::Committed { epoch: EPOCH + 1 });
    assert_eq!(removals(&bench), Some(Removals { floor_epoch: EPOCH + 1, ..Removals::default() }));
    for _ in 0..2 {
        sends(&mut bench, device(ALICE, 1), 1, EPOCH, Err(Code::EpochStale));
        bench.reopen();
    }
    sends(&mut bench, device(ALICE, 1), 1, EPOCH + 1, Ok(()));
    assert_eq!(bench.head(BOB).count, 1);
}

#[test]
fn what_a_device_had_in_the_queue_when_it_was_revoked_is_refused() {
    let mut bench = revoked();
    sends(&mut bench, device(BOB, 2), 1, EPOCH, Err(Code::NotMember));
    bench.refuses(commit(device(BOB, 2), 1, EPOCH, &[device(ALICE, 1), device(BOB, 2)]), Code::NotMember);
    let package = ([1; 32], KeyPackageRecord { not_after_ms: u64::MAX, package: Bytes::from_static(b"package") });
    let put = KeyPackagesPlan { from: device(BOB, 2), one_time: vec![package], last_resort: None, replace: false };
    bench.refuses(Change::PutKeyPackages(put), Code::DeviceRevoked);
}

#[test]
fn a_commit_that_adds_a_device_which_was_revoked_meanwhile_is_refused() {
    let mut bench = Bench::talk();
    bench.add_devices(&[device(BOB, 2)]);
    bench.changes(revocation(device(BOB, 2)), Changed::LogAppended(2));
    assert_eq!(removals(&bench), None, "it has no leaf");
    let with_it = [device(ALICE, 1), device(BOB, 1), device(BOB, 2)];
    bench.refuses(commit(device(ALICE, 1), 1, EPOCH, &with_it), Code::CommitInvalid);
    bench.refuses(commit(device(BOB, 2), 1, EPOCH, &with_it), Code::CommitInvalid);
    sends(&mut bench, device(ALICE, 1), 1, EPOCH, Ok(()));
}

#[test]
fn a_conversation_that_begins_with_a_device_which_was_revoked_meanwhile_is_refused() {
    let mut bench = Bench::of(&[device(ALICE, 1), device(BOB, 1), device(BOB, 2)]);
    bench.changes(revocation(device(BOB, 2)), Changed::LogAppended(2));
    let create = CreatePlan {
        from: device(ALICE, 1),
        with: ConversationWith::Peer(BOB),
        conversation: TALK,
        epoch: 1,
        members: [device(ALICE, 1), device(BOB, 1), device(BOB, 2)].map(member).to_vec(),
        group_info: Bytes::from_static(b"info"),
        tree: Bytes::from_static(b"tree"),
        welcome: Bytes::from_static(b"welcome"),
    };
    bench.refuses(Change::Create(create), Code::CommitInvalid);
}

#[test]
fn a_commit_that_removes_nobody_leaves_the_removal_pending() {
    let mut bench = revoked();
    let all = [device(ALICE, 1), device(ALICE, 2), device(BOB, 1), device(BOB, 2)];
    bench.changes(commit(device(ALICE, 1), 1, EPOCH, &all), Changed::Committed { epoch: EPOCH + 1 });
    sends(&mut bench, device(ALICE, 2), 1, EPOCH + 1, Err(Code::RemovalPending));
    let pending = vec![device(BOB, 2).device()];
    assert_eq!(removals(&bench), Some(Removals { pending, ..Removals::default() }));
}

#[test]
fn a_removal_without_a_revocation_ends_what_was_encrypted_before_it_too() {
    let all = [device(ALICE, 1), device(ALICE, 2), device(BOB, 1)];
    let mut bench = Bench::new().with_members(&all);
    let left = [device(ALICE, 1), device(BOB, 1)];
    bench.changes(commit(device(ALICE, 1), 1, EPOCH, &left), Changed::Committed { epoch: EPOCH + 1 });
    sends(&mut bench, device(BOB, 1), 1, EPOCH, Err(Code::EpochStale));
    sends(&mut bench, device(BOB, 1), 1, EPOCH + 1, Ok(()));
}

#[test]
fn a_revocation_that_was_not_written_holds_up_nobody() {
    let all = [device(ALICE, 1), device(BOB, 1), device(BOB, 2)];
    let mut bench = Bench::new().with_members(&all);
    let mut plan = Plan::default();
    let now_ms = bench.now_ms;
    bench.planner.add_change(revocation(device(BOB, 2)), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    assert!(bench.write(&plan).is_err());
    sends(&mut bench, device(ALICE, 1), 1, EPOCH, Ok(()));
    sends(&mut bench, device(BOB, 2), 1, EPOCH, Ok(()));
}
