//! What wakes absent devices: which inboxes have grown and which were taken, and where each device is woken.

use gureum_proto::{PushDigest, PushService};

use super::leaving::leave;
use super::*;
use crate::store::record::{PushStateRecord, PushTargetRecord};

/// A target of a device, drawn anew.
pub(super) fn target(from: Authenticated, generation: u64) -> Change {
    let record = PushTargetRecord {
        digest: PushDigest::from_bytes([1; 16]),
        service: PushService::Fcm,
        host: 0,
        visible: true,
        set_ms: START_MS,
        generation,
        nonce: [0; 12],
        sealed: Bytes::from_static(b"sealed"),
    };
    Change::SetPushTarget(PushTargetPlan { from, record })
}

fn drop_target(of: Authenticated, generation: Option<u64>) -> Change {
    Change::DropPushTarget { account: of.account(), device: of.device(), generation }
}

fn pushed(of: Authenticated, woken_seq: u64) -> Op {
    let state = PushStateRecord { woken_seq, woken_ms: START_MS, warned_ms: 0 };
    Op::Pushed { account: of.account(), device: of.device(), state }
}

/// How many devices of an account are woken.
pub(super) fn targets(bench: &Bench, account: AccountId) -> usize {
    count(bench, account, key::PushTag::Target)
}

/// How many of them are on record as woken, or as having come since.
pub(super) fn states(bench: &Bench, account: AccountId) -> usize {
    count(bench, account, key::PushTag::State)
}

fn count(bench: &Bench, account: AccountId, of: key::PushTag) -> usize {
    let found = bench.store.scan(Family::Push, key::push_of(&account).as_range(), usize::MAX).unwrap();
    found.iter().filter(|(key, _)| key::parse_push(key).is_some_and(|(_, _, tag)| tag == of)).count()
}

fn generation(bench: &Bench, of: Authenticated) -> Option<u64> {
    let key = key::push_target(&of.account(), &of.device());
    bench.get::<PushTargetRecord>(Family::Push, key).map(|target| target.generation)
}

#[test]
fn messages_grow_the_inboxes_of_others_and_acks_take_them() {
    let mut bench = Bench::new().with_members(&[device(ALICE, 1), device(ALICE, 2), device(BOB, 1)]);
    let plan = bench.run([send(device(ALICE, 1), 1), silently(send(device(BOB, 1), 1)), send(device(ALICE, 1), 2)]);
    assert_eq!(plan.grown, [(BOB, 1), (BOB, 2)], "not that of the sender's other device");
    assert_eq!(plan.taken, []);
    let again = bench.run([send(device(ALICE, 1), 1), send(device(EVE, 1), 1), send_at(device(BOB, 1), 2, EPOCH + 1)]);
    assert_eq!(again.grown, [], "what is repeated or refused wakes nobody");
    let plan = bench.ack(device(BOB, 1), 2, 2);
    assert_eq!((plan.taken, plan.grown), (vec![(BOB, 2)], vec![]));
    assert_eq!(bench.ack(device(BOB, 1), 2, 2).taken, [], "once");
}

#[test]
fn changes_grow_no_inbox_for_anybody_to_be_woken() {
    let all = [device(ALICE, 1), device(BOB, 1), device(BOB, 2), device(EVE, 1)];
    let mut bench = Bench::new().with_group(&all);
    let commit = Change::Commit(super::groups::commit_plan(device(ALICE, 1), 1, EPOCH, &all));
    let committed = bench.changes(commit, Changed::Committed { epoch: EPOCH + 1 });
    let left = bench.changes(leave(device(EVE, 1), EPOCH + 1), Changed::Left);
    let revoked = bench.changes(revocation(device(BOB, 2)), Changed::LogAppended(2));
    for plan in [committed, left, revoked] {
        assert!(!plan.deliveries.is_empty());
        assert_eq!((plan.grown, plan.taken), (vec![], vec![]));
    }
}

#[test]
fn what_is_planned_and_fails_grows_nothing() {
    let mut bench = Bench::new().with_members(&[device(ALICE, 1), device(BOB, 1), device(EVE, 1)]);
    bench.store.damage(Family::InboxHead, key::inbox_head(&EVE).as_ref());
    let (mut plan, now_ms) = (Plan::default(), bench.now_ms);
    assert!(bench.planner.add(send(device(ALICE, 1), 1), now_ms, &mut plan).is_err());
    assert_eq!(plan.grown, [], "Bob's inbox has been planned, and taken back");
}

#[test]
fn a_device_has_one_target_and_a_new_one_was_woken_for_nothing() {
    let mut bench = Bench::talk();
    let bob = device(BOB, 1);
    bench.send(device(ALICE, 1), 1).unwrap();
    assert!(bench.changes(target(bob, 1), Changed::Done).must_sync);
    let plan = bench.run([pushed(bob, 1)]);
    assert!(!plan.must_sync, "lost by a crash it wakes once more");
    assert_eq!((targets(&bench, BOB), states(&bench, BOB)), (1, 1));
    bench.changes(target(bob, 2), Changed::Done);
    assert_eq!((targets(&bench, BOB), states(&bench, BOB), generation(&bench, bob)), (1, 0, Some(2)));
}

#[test]
fn a_refusal_drops_the_target_that_it_is_about_and_no_newer_one() {
    let mut bench = Bench::talk();
    let bob = device(BOB, 1);
    bench.changes(target(bob, 2), Changed::Done);
    let plan = bench.changes(drop_target(bob, Some(1)), Changed::Done);
    assert!(plan.batch.is_empty() && plan.untargeted.is_empty());
    let plan = bench.changes(drop_target(bob, Some(2)), Changed::Done);
    assert!(plan.must_sync);
    assert_eq!((plan.untargeted, targets(&bench, BOB)), (vec![(BOB, bob.device())], 0));
    for generation in [None, Some(2)] {
        assert!(bench.changes(drop_target(bob, generation), Changed::Done).batch.is_empty());
    }
    bench.changes(target(bob, 3), Changed::Done);
    assert_eq!(bench.changes(drop_target(bob, None), Changed::Done).untargeted, [(BOB, bob.device())]);
}

#[test]
fn of_a_device_that_is_woken_nowhere_nothing_is_noted() {
    let mut bench = Bench::talk();
    assert!(bench.run([pushed(device(BOB, 1), 0)]).batch.is_empty());
}

#[test]
fn what_is_noted_in_one_batch_with_the_end_of_the_target_goes_with_it() {
    let mut bench = Bench::talk();
    let bob = device(BOB, 1);
    bench.changes(target(bob, 1), Changed::Done);
    let (mut plan, now_ms) = (Plan::default(), bench.now_ms);
    bench.planner.add(pushed(bob, 0), now_ms, &mut plan).unwrap();
    bench.planner.add_change(drop_target(bob, None), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    bench.write(&plan).unwrap();
    assert_eq!((targets(&bench, BOB), states(&bench, BOB)), (0, 0));
}

#[test]
fn a_revoked_device_is_woken_nowhere_and_gets_no_target_any_more() {
    let mut bench = Bench::talk();
    bench.add_devices(&[device(BOB, 2)]);
    for (number, generation) in [(1, 1), (2, 2)] {
        bench.changes(target(device(BOB, number), generation), Changed::Done);
    }
    let plan = bench.changes(revocation(device(BOB, 2)), Changed::LogAppended(2));
    assert_eq!(plan.untargeted, [(BOB, device(BOB, 2).device())]);
    assert_eq!((generation(&bench, device(BOB, 1)), generation(&bench, device(BOB, 2))), (Some(1), None));
    bench.refuses(target(device(BOB, 2), 3), Code::NotFound);
}
