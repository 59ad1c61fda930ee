//! Accounts that were deleted: cut off at once, given nothing, named to whoever sends, and removed by members.

use std::collections::BTreeSet;

use gureum_proto::{PhoneNotice, Relation};

use super::absent::{states, target, targets};
use super::groups::{bodies, commit_plan};
use super::leaving::{leave, removals};
use super::*;
use crate::limits::SCAN_ENTRIES_MAX;
use crate::store::record::{
    KeyPackageRecord, LifeRecord, LockRecord, NumberRecord, PhoneRecord, PreferenceRecord, PushStateRecord, SentResult,
};

fn deletion() -> Change {
    Change::Delete("bob".parse().unwrap())
}

/// Bob has a handle, as after his registration.
fn named(bench: &Bench) {
    let mut batch = Batch::new();
    batch.put_record(Family::Directory, key::handle("bob"), &BOB);
    batch.put_record(Family::Directory, key::handle_of(&BOB), &"bob".to_owned());
    bench.store.write(&batch, Durability::Synced).unwrap();
}

fn everybody() -> [Authenticated; 4] {
    [device(ALICE, 1), device(BOB, 1), device(BOB, 2), device(EVE, 1)]
}

/// A group of Alice, Bob with two devices and Eve, of whom Bob is deleted.
fn group_without_bob() -> Bench {
    let mut bench = Bench::new().with_group(&everybody());
    named(&bench);
    bench.changes(deletion(), Changed::Deleted { account: BOB, devices: 2 });
    bench
}

#[test]
fn its_devices_are_cut_off_and_have_nothing_left() {
    let mut bench = Bench::new().with_group(&everybody());
    named(&bench);
    let put = || {
        let package = ([1; 32], KeyPackageRecord { not_after_ms: u64::MAX, package: Bytes::from_static(b"package") });
        let one_time = vec![package];
        Change::PutKeyPackages(KeyPackagesPlan { from: device(BOB, 2), one_time, last_resort: None, replace: false })
    };
    bench.changes(put(), Changed::KeyPackagesStored(1));
    let plan = bench.changes(deletion(), Changed::Deleted { account: BOB, devices: 2 });
    assert!(plan.must_sync);
    assert_eq!(plan.revoked, [1, 2].map(|number| (BOB, device(BOB, number).device(), Code::AccountGone)));
    assert_eq!((bench.cursor(device(BOB, 1)), bench.cursor(device(BOB, 2))), (None, None));
    let packages = key::account_key_packages(&BOB);
    assert!(bench.store.scan(Family::KeyPackage, packages.as_range(), usize::MAX).unwrap().is_empty());
    bench.refuses(put(), Code::DeviceRevoked);
    assert_eq!(bench.get(Family::Directory, key::gone(&BOB)), Some(START_MS));
    assert_eq!(bench.get(Family::Directory, key::membership(&BOB, &TALK)), Some(()), "its leaves are to be removed");
}

#[test]
fn nothing_is_left_of_devices_that_were_revoked_however_many_they_are() {
    let mut bench = Bench::new().with_group(&everybody());
    named(&bench);
    let mut batch = Batch::new();
    for number in 0..160 {
        for counter in 1..=64 {
            let result = SentResult { counter, id: MessageId::new(START_MS, 1), number: counter };
            batch.put_record(Family::Sent, key::sent(&BOB, &device(BOB, number).device(), counter), &result);
        }
    }
    assert!(batch.len() > SCAN_ENTRIES_MAX, "more than one scan returns");
    bench.store.write(&batch, Durability::Synced).unwrap();
    bench.changes(deletion(), Changed::Deleted { account: BOB, devices: 2 });
    assert!(bench.store.scan(Family::Sent, key::all_sent(&BOB).as_range(), usize::MAX).unwrap().is_empty());
}

#[test]
fn nobody_gets_its_handle_and_it_is_not_deleted_twice() {
    let mut bench = group_without_bob();
    bench.refuses(deletion(), Code::AccountGone);
    bench.refuses(Change::Delete("trudy".parse().unwrap()), Code::NotFound);
    let register = |account| {
        Change::Register(RegisterPlan {
            account,
            device: device(account, 1).device(),
            handle: "bob".parse().unwrap(),
            root_entry: Bytes::from_static(b"root"),
            recovery_key: [7; 32],
            invite: None,
            phone: None,
        })
    };
    bench.refuses(register(EVE), Code::HandleTaken);
    bench.refuses(register(BOB), Code::AccountGone);
}

#[test]
fn whoever_sends_to_a_group_is_told_who_is_gone_until_it_is_removed() {
    let mut bench = group_without_bob();
    for counter in 1..=2 {
        let accepted = bench.send(device(ALICE, 1), counter).unwrap();
        assert_eq!((accepted.gone.named().collect::<Vec<_>>(), accepted.gone.more()), (vec![BOB], 0));
        bench.reopen();
    }
    assert_eq!((bench.head(EVE).count, bench.head(BOB).seq), (2, 0));
    let rest = [device(ALICE, 1), device(EVE, 1)];
    let plan = commit_plan(device(ALICE, 1), 3, EPOCH, &rest);
    bench.changes(Change::Commit(plan), Changed::Committed { epoch: EPOCH + 1 });
    assert_eq!(bench.head(BOB).seq, 0, "nor does it read that it was removed");
    assert_eq!(bench.get::<()>(Family::Directory, key::membership(&BOB, &TALK)), None);
    for counter in 4..=5 {
        let sent = bench.run([send_at(device(ALICE, 1), counter, EPOCH + 1)]).sent.remove(0);
        assert_eq!(sent.result.unwrap().gone, Gone::default());
        bench.reopen();
    }
}

#[test]
fn in_a_conversation_of_two_nobody_is_left_to_send_to() {
    let mut bench = Bench::talk();
    named(&bench);
    bench.send(device(ALICE, 1), 1).unwrap();
    bench.changes(deletion(), Changed::Deleted { account: BOB, devices: 1 });
    for _ in 0..2 {
        is_refused(bench.send(device(ALICE, 1), 2), Code::AccountGone);
        bench.reopen();
    }
    assert!(bench.send(device(ALICE, 1), 1).unwrap().repeated, "what was accepted before stays accepted");
}

#[test]
fn what_it_had_in_the_queue_is_refused() {
    let mut bench = group_without_bob();
    is_refused(bench.send(device(BOB, 1), 1), Code::NotMember);
    let commit = commit_plan(device(BOB, 1), 1, EPOCH, &everybody());
    bench.refuses(Change::Commit(commit), Code::NotMember);
    bench.refuses(leave(device(BOB, 1), EPOCH), Code::NotMember);
    let entry = LogPlan {
        account: BOB,
        from: device(BOB, 1).device(),
        index: 1,
        entry: Bytes::from_static(b"addition"),
        added: vec![device(BOB, 3).device()],
        revoked: vec![],
        recovery_keys: None,
    };
    bench.refuses(Change::AppendLog(entry), Code::AccountGone);
    bench.ack(device(BOB, 1), 0, 0);
    assert_eq!(bench.cursor(device(BOB, 1)), None);
}

#[test]
fn nobody_begins_or_extends_a_conversation_with_it() {
    let mut bench = group_without_bob();
    let create = CreatePlan {
        from: device(ALICE, 1),
        with: ConversationWith::Peer(BOB),
        conversation: ConversationId::from_bytes([1; 16]),
        epoch: 1,
        members: [device(ALICE, 1), device(BOB, 1)].map(member).to_vec(),
        group_info: Bytes::from_static(b"info"),
        tree: Bytes::from_static(b"tree"),
        welcome: Bytes::from_static(b"welcome"),
    };
    bench.refuses(Change::Create(create), Code::CommitInvalid);
    let rest = [device(ALICE, 1), device(EVE, 1)];
    let removal = commit_plan(device(ALICE, 1), 1, EPOCH, &rest);
    bench.changes(Change::Commit(removal), Changed::Committed { epoch: EPOCH + 1 });
    let again = commit_plan(device(ALICE, 1), 2, EPOCH + 1, &everybody());
    bench.refuses(Change::Commit(again), Code::CommitInvalid);
}

#[test]
fn it_is_not_told_what_others_do_and_others_are() {
    let mut bench = group_without_bob();
    let commit = commit_plan(device(ALICE, 1), 1, EPOCH, &everybody());
    bench.changes(Change::Commit(commit), Changed::Committed { epoch: EPOCH + 1 });
    bench.changes(leave(device(EVE, 1), EPOCH + 1), Changed::Left);
    assert!(removals(&bench).is_leaving(EVE));
    assert_eq!(bodies(&bench, ALICE), [InboxBody::Leave]);
    assert_eq!(bodies(&bench, EVE), [InboxBody::Commit { conversation: TALK, epoch: EPOCH }]);
    assert_eq!(bodies(&bench, BOB), []);
}

#[test]
fn a_deletion_that_was_not_written_cuts_nobody_off() {
    let mut bench = Bench::talk();
    named(&bench);
    let mut plan = Plan::default();
    let now_ms = bench.now_ms;
    bench.planner.add_change(deletion(), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    assert!(bench.write(&plan).is_err());
    assert_eq!(bench.send(device(ALICE, 1), 1).unwrap().gone, Gone::default());
    bench.send(device(BOB, 1), 1).unwrap();
}

/// Bob's only device in the group is revoked, and nothing is sent there; then he is deleted.
#[test]
fn a_removal_that_was_waited_for_holds_up_nobody_once_its_account_is_deleted() {
    let mut bench = Bench::new().with_group(&[device(ALICE, 1), device(BOB, 1), device(EVE, 1)]);
    named(&bench);
    bench.add_devices(&[device(BOB, 2)]);
    bench.changes(revocation(device(BOB, 1)), Changed::LogAppended(2));
    is_refused(bench.send(device(ALICE, 1), 1), Code::RemovalPending);
    bench.changes(deletion(), Changed::Deleted { account: BOB, devices: 1 });
    for counter in 1..=2 {
        let accepted = bench.send(device(ALICE, 1), counter).unwrap();
        assert_eq!(accepted.gone.named().collect::<Vec<_>>(), [BOB]);
        assert!(removals(&bench).is_settled());
        bench.reopen();
    }
}

#[test]
fn a_removal_of_somebody_else_is_still_waited_for() {
    let mut bench = Bench::new().with_group(&everybody());
    bench.add_devices(&[device(EVE, 2)]);
    named(&bench);
    bench.changes(revocation(device(EVE, 1)), Changed::LogAppended(2));
    bench.changes(revocation(device(BOB, 2)), Changed::LogAppended(2));
    bench.changes(deletion(), Changed::Deleted { account: BOB, devices: 1 });
    for _ in 0..2 {
        assert_eq!(removals(&bench).pending, [device(EVE, 1).device()]);
        is_refused(bench.send(device(ALICE, 1), 1), Code::RemovalPending);
        bench.reopen();
    }
}

/// Bob has everything that an account can have, and had a third device once.
fn bench_of_bob() -> Bench {
    let mut bench = Bench::new().with_group(&everybody());
    named(&bench);
    let (bob, number) = (device(BOB, 1), [7; 32]);
    bench.send(device(ALICE, 1), 1).unwrap();
    bench.send(bob, 1).unwrap();
    bench.run([Op::Seen { from: bob }]);
    bench.changes(target(bob, 1), Changed::Done);
    let state = PushStateRecord { woken_seq: 1, woken_ms: START_MS, warned_ms: 0 };
    bench.run([Op::Pushed { account: BOB, device: bob.device(), state }]);
    let preference = PreferenceRecord { accepted: true, muted_until_ms: 1 };
    bench.changes(Change::SetConversation { from: bob, conversation: TALK, preference }, Changed::Done);
    bench.changes(Change::SetRelation { from: bob, other: EVE, relation: Relation::Blocked }, Changed::Done);
    bench
        .changes(Change::SetRelation { from: device(EVE, 1), other: BOB, relation: Relation::Accepted }, Changed::Done);
    let mut batch = Batch::new();
    let record = PhoneRecord { number: Some(number), since_ms: START_MS, notice: PhoneNotice::default() };
    batch.put_record(Family::Directory, key::phone_of(&BOB), &record);
    batch.put_record(Family::Directory, key::number(&number), &NumberRecord { account: BOB, findable: true });
    let lock = LockRecord { hash: [1; 32], tries_left: 5, closed_until_ms: 0 };
    batch.put_record(Family::Directory, key::lock_of(&BOB), &lock);
    let old = device(BOB, 3).device();
    batch.put_record(Family::Cursor, key::cursor(&BOB, &old, CursorTag::Life), &LifeRecord::default());
    bench.store.write(&batch, Durability::Synced).unwrap();
    bench
}

/// What stands in the store under an account or its number, by family and the first byte of the key in the directory.
fn left_of_bob(bench: &Bench) -> BTreeSet<(Family, Option<u8>)> {
    let of_bob = |key: &[u8]| key.windows(16).any(|id| id == BOB.as_bytes()) || key.ends_with(&[7; 32]);
    let left = bench.contents().into_iter().filter(|(_, key, _)| of_bob(key));
    let name = |family, key: &[u8]| if family == Family::Directory { key.first().copied() } else { None };
    left.map(|(family, key, _)| (family, name(family, &key))).collect()
}

#[test]
fn nothing_is_left_of_an_account_but_what_others_are_to_know_it_by() {
    for end in [deletion(), Change::DeleteOwn { from: device(BOB, 2), handle: "bob".parse().unwrap() }] {
        let mut bench = bench_of_bob();
        let head = bench.head(BOB);
        let plan = bench.changes(end, Changed::Deleted { account: BOB, devices: 2 });
        assert_eq!(plan.floors, [(BOB, head.seq)], "nobody takes its inbox any more");
        assert_eq!(plan.untargeted, [(BOB, device(BOB, 1).device())]);
        assert_eq!(bench.head(BOB).floor, head.last());
        let directory = |prefix| (Family::Directory, Some(prefix));
        assert_eq!(
            left_of_bob(&bench),
            BTreeSet::from([
                (Family::Inbox, None),     // until the next compaction
                (Family::InboxHead, None), // no position is used twice
                directory(b'a'),           // its handle
                directory(b'b'),           // what Eve thinks of it
                directory(b'c'),           // its leaves
                directory(b'x'),           // that it is gone
            ])
        );
        bench.expiry.floors.raise(&BOB, head.seq);
        bench.store.reclaim().unwrap();
        assert_eq!(bench.inbox(BOB), []);
    }
}

#[test]
fn what_its_devices_had_sent_just_before_is_not_written_after_it() {
    let mut bench = bench_of_bob();
    let (mut plan, now_ms) = (Plan::default(), bench.now_ms);
    bench.planner.add(send(device(BOB, 1), 2), now_ms, &mut plan).unwrap();
    bench.planner.add(ack(device(BOB, 2), 1, 1), now_ms, &mut plan).unwrap();
    bench.planner.add_change(deletion(), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    bench.write(&plan).unwrap();
    assert!(left_of_bob(&bench).iter().all(|(family, _)| *family != Family::Cursor));
    assert_eq!((targets(&bench, BOB), states(&bench, BOB)), (0, 0));
}

#[test]
fn an_owner_deletes_its_account_by_its_own_handle_alone() {
    let mut bench = Bench::new().with_group(&everybody());
    named(&bench);
    let delete = |from, handle: &str| Change::DeleteOwn { from, handle: handle.parse().unwrap() };
    bench.refuses(delete(device(BOB, 1), "alice"), Code::NotFound);
    bench.refuses(delete(device(ALICE, 1), "bob"), Code::NotFound);
    bench.refuses(delete(device(BOB, 9), "bob"), Code::DeviceRevoked);
    let plan = bench.changes(delete(device(BOB, 1), "bob"), Changed::Deleted { account: BOB, devices: 2 });
    assert_eq!(plan.revoked.len(), 2);
    bench.refuses(delete(device(BOB, 2), "bob"), Code::AccountGone);
    bench.refuses(deletion(), Code::AccountGone);
}
