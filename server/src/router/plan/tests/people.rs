//! What accounts decide about others and about their conversations.

use gureum_proto::Relation;

use super::groups::commit_plan;
use super::leaving::leave;
use super::*;
use crate::limits::RELATIONS_MAX;
use crate::store::record::PreferenceRecord;

const ACCEPTED: PreferenceRecord = PreferenceRecord { accepted: true, muted_until_ms: 0 };

fn takes(from: Authenticated, preference: PreferenceRecord) -> Change {
    Change::SetConversation { from, conversation: TALK, preference }
}

fn preference(bench: &Bench, account: AccountId) -> Option<PreferenceRecord> {
    bench.get(Family::Directory, key::preference(&account, &TALK))
}

fn stands(from: Authenticated, other: AccountId, relation: Relation) -> Change {
    Change::SetRelation { from, other, relation }
}

fn relation(bench: &Bench, owner: AccountId, other: AccountId) -> Option<Relation> {
    bench.get(Family::Directory, key::relation(&owner, &other))
}

fn three() -> [Authenticated; 3] {
    [device(ALICE, 1), device(BOB, 1), device(EVE, 1)]
}

#[test]
fn a_member_decides_how_it_takes_a_conversation_and_nobody_else_does() {
    let mut bench = Bench::talk();
    bench.add_devices(&[device(EVE, 1)]);
    let muted = PreferenceRecord { accepted: true, muted_until_ms: u64::MAX };
    for wanted in [ACCEPTED, muted, PreferenceRecord { accepted: false, muted_until_ms: 7 }] {
        assert!(bench.changes(takes(device(BOB, 1), wanted), Changed::Done).must_sync);
        assert_eq!(preference(&bench, BOB), Some(wanted));
        assert!(bench.changes(takes(device(BOB, 1), wanted), Changed::Done).batch.is_empty(), "it is so already");
    }
    bench.changes(takes(device(BOB, 1), PreferenceRecord::default()), Changed::Done);
    assert_eq!((preference(&bench, BOB), preference(&bench, ALICE)), (None, None));
    bench.refuses(takes(device(EVE, 1), ACCEPTED), Code::NotMember);
}

#[test]
fn who_begins_a_conversation_has_accepted_it_and_for_the_others_it_is_a_request() {
    let mut bench = Bench::of(&three());
    let create = CreatePlan {
        from: device(ALICE, 1),
        with: ConversationWith::Group(vec![ALICE, BOB]),
        conversation: TALK,
        epoch: 1,
        members: [device(ALICE, 1), device(BOB, 1)].map(member).to_vec(),
        group_info: Bytes::from_static(b"info"),
        tree: Bytes::from_static(b"tree"),
        welcome: Bytes::from_static(b"welcome"),
    };
    bench.changes(Change::Create(create), Changed::Conversation { conversation: TALK, existed: false, epoch: 1 });
    assert_eq!((preference(&bench, ALICE), preference(&bench, BOB)), (Some(ACCEPTED), None));
}

#[test]
fn what_was_decided_about_a_conversation_goes_with_the_membership() {
    let mut bench = Bench::new().with_group(&three());
    for from in three() {
        bench.changes(takes(from, ACCEPTED), Changed::Done);
    }
    bench.changes(leave(device(EVE, 1), EPOCH), Changed::Left);
    assert_eq!(preference(&bench, EVE), None);
    let rest = Change::Commit(commit_plan(device(ALICE, 1), 1, EPOCH, &[device(ALICE, 1)]));
    bench.changes(rest, Changed::Committed { epoch: EPOCH + 1 });
    assert_eq!((preference(&bench, BOB), preference(&bench, ALICE)), (None, Some(ACCEPTED)));
    let back = Change::Commit(commit_plan(device(ALICE, 1), 2, EPOCH + 1, &three()));
    bench.changes(back, Changed::Committed { epoch: EPOCH + 2 });
    assert_eq!(preference(&bench, BOB), None, "to be back is a request again");
}

#[test]
fn an_account_accepts_blocks_and_forgets_others() {
    let mut bench = Bench::of(&three());
    for wanted in [Relation::Accepted, Relation::Blocked, Relation::Accepted] {
        assert!(bench.changes(stands(device(ALICE, 1), BOB, wanted), Changed::Done).must_sync);
        assert_eq!(relation(&bench, ALICE, BOB), Some(wanted));
        assert!(bench.changes(stands(device(ALICE, 1), BOB, wanted), Changed::Done).batch.is_empty());
    }
    assert_eq!(relation(&bench, BOB, ALICE), None);
    bench.changes(stands(device(ALICE, 1), BOB, Relation::None), Changed::Done);
    assert_eq!(relation(&bench, ALICE, BOB), None);
    bench.refuses(stands(device(ALICE, 1), ALICE, Relation::Blocked), Code::NotFound);
}

#[test]
fn an_account_decides_about_so_many_others() {
    let mut bench = Bench::of(&three());
    let other = |number: usize| {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        AccountId::from_bytes(id)
    };
    let mut batch = Batch::new();
    for number in 1..RELATIONS_MAX {
        batch.put_record(Family::Directory, key::relation(&ALICE, &other(number)), &Relation::Accepted);
    }
    bench.store.write(&batch, Durability::Synced).unwrap();
    let alice = device(ALICE, 1);
    bench.changes(stands(alice, BOB, Relation::Accepted), Changed::Done);
    for _ in 0..2 {
        bench.refuses(stands(alice, EVE, Relation::Blocked), Code::LimitReached);
        bench.changes(stands(alice, BOB, Relation::Blocked), Changed::Done);
        bench.changes(stands(alice, BOB, Relation::Accepted), Changed::Done);
        bench.reopen();
    }
    bench.changes(stands(alice, other(1), Relation::None), Changed::Done);
    bench.changes(stands(alice, EVE, Relation::Blocked), Changed::Done);
    bench.refuses(stands(alice, other(1), Relation::Accepted), Code::LimitReached);
    bench.changes(stands(device(BOB, 1), EVE, Relation::Blocked), Changed::Done);
}

#[test]
fn a_decision_that_was_not_written_takes_no_place() {
    let mut bench = Bench::of(&three());
    let (mut plan, now_ms) = (Plan::default(), bench.now_ms);
    bench.planner.add_change(stands(device(ALICE, 1), BOB, Relation::Blocked), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    assert!(bench.write(&plan).is_err());
    assert_eq!(relation(&bench, ALICE, BOB), None);
    bench.changes(stands(device(ALICE, 1), BOB, Relation::Blocked), Changed::Done);
}

#[test]
fn a_device_that_was_cut_off_decides_nothing() {
    let mut bench = Bench::talk();
    bench.add_devices(&[device(BOB, 2)]);
    bench.changes(revocation(device(BOB, 2)), Changed::LogAppended(2));
    bench.refuses(takes(device(BOB, 2), ACCEPTED), Code::DeviceRevoked);
    bench.refuses(stands(device(BOB, 2), EVE, Relation::Blocked), Code::DeviceRevoked);
}
