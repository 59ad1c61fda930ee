//! Groups: people come and go by commits, and leave by a word of their own.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use gureum_proto::{Leave, SignedLeave};

use super::groups::{bodies, commit_plan};
use super::*;
use crate::limits::ACCOUNT_CONVERSATIONS_MAX;
use crate::store::record::Removals;

const INFO: Bytes = Bytes::from_static(b"info");
const TREE: Bytes = Bytes::from_static(b"tree");
const WELCOME: Bytes = Bytes::from_static(b"welcome");

fn creation(from: Authenticated, with: ConversationWith, id: ConversationId, members: &[Authenticated]) -> CreatePlan {
    CreatePlan {
        from,
        with,
        conversation: id,
        epoch: 1,
        members: members.iter().copied().map(member).collect(),
        group_info: INFO,
        tree: TREE,
        welcome: if members.len() > 1 { WELCOME } else { Bytes::new() },
    }
}

fn group(id: u8, members: &[Authenticated]) -> Change {
    let accounts: BTreeSet<_> = members.iter().map(Authenticated::account).collect();
    let with = ConversationWith::Group(accounts.into_iter().collect());
    Change::Create(creation(members[0], with, ConversationId::from_bytes([id; 16]), members))
}

fn own(id: u8, members: &[Authenticated]) -> Change {
    Change::Create(creation(members[0], ConversationWith::Own, ConversationId::from_bytes([id; 16]), members))
}

fn made(id: u8, existed: bool) -> Changed {
    Changed::Conversation { conversation: ConversationId::from_bytes([id; 16]), existed, epoch: 1 }
}

fn commit(from: Authenticated, counter: u64, epoch: u64, members: &[Authenticated]) -> Change {
    Change::Commit(commit_plan(from, counter, epoch, members))
}

fn signed(from: Authenticated) -> SignedLeave {
    let leaf_key = Bytes::from_static(b"leaf");
    let leave = Leave { conversation: TALK, account: from.account(), device: from.device(), leaf_key };
    SignedLeave::sign(leave, &SigningKey::from_bytes(&[7; 32]))
}

pub(super) fn leave(from: Authenticated, epoch: u64) -> Change {
    Change::Leave(LeavePlan { from, conversation: TALK, epoch, leave: signed(from) })
}

pub(super) fn removals(bench: &Bench) -> Removals {
    let key = key::conversation(&TALK, ConversationTag::Removals);
    bench.get(Family::Conversation, key).unwrap_or_default()
}

fn is_member(bench: &Bench, account: AccountId) -> bool {
    bench.get::<()>(Family::Directory, key::membership(&account, &TALK)).is_some()
}

#[track_caller]
fn sends(bench: &mut Bench, from: Authenticated, counter: u64, epoch: u64, expected: Result<(), Code>) {
    let sent = bench.run([send_at(from, counter, epoch)]).sent.remove(0);
    assert_eq!(sent.result.map(|_| ()).map_err(|refusal| refusal.code), expected);
}

/// Alice, Bob with two devices, and Eve in a group.
fn three() -> Bench {
    Bench::new().with_group(&[device(ALICE, 1), device(BOB, 1), device(BOB, 2), device(EVE, 1)])
}

const JOINED: InboxBody = InboxBody::Commit { conversation: TALK, epoch: EPOCH };

#[test]
fn a_group_is_begun_by_one_alone_or_with_others_and_there_may_be_many() {
    let (alice, bob) = (device(ALICE, 1), device(BOB, 1));
    let mut bench = Bench::of(&[alice, bob]);
    bench.changes(group(1, &[alice]), made(1, false));
    assert!(bench.inbox(ALICE).is_empty() && bench.inbox(BOB).is_empty(), "nobody is welcomed");
    bench.changes(group(2, &[alice, bob]), made(2, false));
    bench.changes(group(3, &[alice, bob]), made(3, false));
    assert_eq!(bodies(&bench, BOB), [InboxBody::Welcome; 2]);
    for (account, id, is_in) in [(ALICE, 1, true), (BOB, 1, false), (ALICE, 2, true), (BOB, 2, true)] {
        let membership = key::membership(&account, &ConversationId::from_bytes([id; 16]));
        assert_eq!(bench.get::<()>(Family::Directory, membership).is_some(), is_in, "{account} {id}");
    }
    let head = key::conversation(&ConversationId::from_bytes([1; 16]), ConversationTag::Head);
    let head: ConversationHead = bench.get(Family::Conversation, head).unwrap();
    assert_eq!(head.kind, ConversationKind::Group);
}

#[test]
fn a_group_whose_creation_was_not_answered_is_there_already() {
    let (alice, bob) = (device(ALICE, 1), device(BOB, 1));
    let mut bench = Bench::of(&[alice, bob]);
    bench.changes(group(1, &[alice]), made(1, false));
    assert!(bench.changes(group(1, &[alice]), made(1, true)).batch.is_empty());
    bench.refuses(group(1, &[bob]), Code::CommitInvalid);
    bench.refuses(own(1, &[alice]), Code::CommitInvalid);
}

#[test]
fn an_account_has_one_conversation_of_its_own() {
    let devices = [device(ALICE, 1), device(ALICE, 2)];
    let mut bench = Bench::of(&[devices[0], devices[1], device(BOB, 1)]);
    bench.changes(own(1, &devices), made(1, false));
    assert_eq!(bodies(&bench, ALICE), [InboxBody::Welcome]);
    bench.changes(own(2, &[devices[1]]), made(1, true));
    bench.changes(own(3, &[device(BOB, 1)]), made(3, false));
}

#[test]
fn who_is_added_reads_nothing_of_before_and_who_is_removed_nothing_after() {
    let mut bench = Bench::new().with_group(&[device(ALICE, 1), device(BOB, 1)]);
    bench.add_devices(&[device(EVE, 1)]);
    let with_eve = [device(ALICE, 1), device(BOB, 1), device(EVE, 1)];
    let mut adds = commit_plan(device(ALICE, 1), 1, EPOCH, &with_eve);
    (adds.welcome, adds.welcomed) = (WELCOME, vec![EVE]);
    bench.changes(Change::Commit(adds), Changed::Committed { epoch: EPOCH + 1 });
    assert!(is_member(&bench, EVE));
    assert_eq!(removals(&bench).floor_epoch, EPOCH + 1);
    sends(&mut bench, device(BOB, 1), 1, EPOCH, Err(Code::EpochStale));
    sends(&mut bench, device(BOB, 1), 1, EPOCH + 1, Ok(()));
    assert_eq!(bodies(&bench, EVE), [InboxBody::Welcome, InboxBody::Message]);

    let without_bob = [device(ALICE, 1), device(EVE, 1)];
    bench.changes(commit(device(EVE, 1), 1, EPOCH + 1, &without_bob), Changed::Committed { epoch: EPOCH + 2 });
    assert!(!is_member(&bench, BOB));
    assert_eq!(bench.get(Family::Directory, key::left(&BOB)), Some(bench.now_ms));
    let removed = InboxBody::Commit { conversation: TALK, epoch: EPOCH + 1 };
    assert_eq!(bodies(&bench, BOB), [JOINED, removed], "it is told that it is out");
    sends(&mut bench, device(ALICE, 1), 2, EPOCH + 2, Ok(()));
    sends(&mut bench, device(BOB, 1), 2, EPOCH + 2, Err(Code::NotMember));
    assert_eq!(bench.inbox(BOB).len(), 2);

    let mut back = commit_plan(device(ALICE, 1), 3, EPOCH + 2, &with_eve);
    (back.welcome, back.welcomed) = (WELCOME, vec![BOB]);
    bench.changes(Change::Commit(back), Changed::Committed { epoch: EPOCH + 3 });
    assert!(is_member(&bench, BOB));
    sends(&mut bench, device(BOB, 1), 2, EPOCH + 3, Ok(()));
}

#[test]
fn who_leaves_is_out_at_once_and_everybody_else_is_told() {
    let mut bench = three();
    for _ in 0..2 {
        bench.changes(leave(device(BOB, 1), EPOCH), Changed::Left);
        bench.reopen();
    }
    for account in [ALICE, BOB, EVE] {
        assert_eq!(bodies(&bench, account), [InboxBody::Leave], "{account}");
        assert_eq!(bench.head(account).count, 0, "it is no message");
    }
    let id = bench.inbox(ALICE)[0].1.id;
    assert!(bench.get::<Bytes>(Family::Welcome, key::message(&id)).is_some());
    assert!(!is_member(&bench, BOB));
    let removals = removals(&bench);
    assert_eq!(removals.leaving.len(), 1);
    assert_eq!(SignedLeave::decode(removals.leaving[0].statement.clone()), Ok(signed(device(BOB, 1))));

    for number in [1, 2] {
        sends(&mut bench, device(BOB, number), 1, EPOCH, Err(Code::NotMember));
        bench.refuses(commit(device(BOB, number), 1, EPOCH, &[device(ALICE, 1), device(BOB, 1)]), Code::NotMember);
    }
    sends(&mut bench, device(ALICE, 1), 1, EPOCH, Err(Code::RemovalPending));
}

#[test]
fn a_commit_removes_who_has_left_and_says_nothing_to_them() {
    let mut bench = three();
    bench.changes(leave(device(BOB, 1), EPOCH), Changed::Left);
    let everybody = [device(ALICE, 1), device(BOB, 1), device(BOB, 2), device(EVE, 1)];
    bench.changes(commit(device(EVE, 1), 1, EPOCH, &everybody), Changed::Committed { epoch: EPOCH + 1 });
    sends(&mut bench, device(ALICE, 1), 1, EPOCH + 1, Err(Code::RemovalPending));
    bench.reopen();
    let left = [device(ALICE, 1), device(EVE, 1)];
    bench.changes(commit(device(EVE, 1), 2, EPOCH + 1, &left), Changed::Committed { epoch: EPOCH + 2 });
    assert_eq!(removals(&bench), Removals { floor_epoch: EPOCH + 2, ..Removals::default() });
    sends(&mut bench, device(ALICE, 1), 1, EPOCH + 2, Ok(()));
    assert_eq!(bodies(&bench, BOB), [InboxBody::Leave]);
}

#[test]
fn a_statement_is_about_the_epoch_that_it_was_checked_at() {
    let mut bench = three();
    let members = [device(ALICE, 1), device(BOB, 1), device(BOB, 2), device(EVE, 1)];
    bench.changes(commit(device(BOB, 1), 1, EPOCH, &members), Changed::Committed { epoch: EPOCH + 1 });
    bench.refuses(leave(device(BOB, 1), EPOCH), Code::EpochConflict);
    bench.changes(leave(device(BOB, 1), EPOCH + 1), Changed::Left);
    bench.refuses(leave(device(BOB, 7), EPOCH + 1), Code::NotMember);
    let mut direct = Bench::talk();
    direct.refuses(leave(device(BOB, 1), EPOCH), Code::CommitInvalid);
    Bench::new().refuses(leave(device(BOB, 1), EPOCH), Code::NotFound);
}

#[test]
fn who_has_left_is_in_it_again_if_nobody_can_remove_them_in_their_name() {
    let mut bench = three();
    bench.changes(leave(device(BOB, 1), EPOCH), Changed::Left);
    // Bob's second device revokes the first, which has said so; somebody removes that one alone.
    bench.changes(revocation(device(BOB, 1)), Changed::LogAppended(2));
    let left = [device(ALICE, 1), device(BOB, 2), device(EVE, 1)];
    bench.changes(commit(device(EVE, 1), 1, EPOCH, &left), Changed::Committed { epoch: EPOCH + 1 });
    assert!(removals(&bench).is_settled());
    assert!(is_member(&bench, BOB));
    assert_eq!(bodies(&bench, BOB), [InboxBody::Leave, InboxBody::DeviceLog { account: BOB }, JOINED], "it is told");
    sends(&mut bench, device(BOB, 2), 1, EPOCH + 1, Ok(()));
}

#[test]
fn leaving_that_was_not_written_has_not_happened() {
    let mut bench = three();
    let mut plan = Plan::default();
    let now_ms = bench.now_ms;
    bench.planner.add_change(leave(device(BOB, 1), EPOCH), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    assert!(bench.write(&plan).is_err());
    sends(&mut bench, device(BOB, 1), 1, EPOCH, Ok(()));
    sends(&mut bench, device(ALICE, 1), 1, EPOCH, Ok(()));
}

#[test]
fn an_account_is_in_so_many_conversations_and_no_more() {
    let (alice, bob) = (device(ALICE, 1), device(BOB, 1));
    let mut bench = Bench::new().with_group(&[alice]);
    bench.add_devices(&[bob]);
    let mut batch = Batch::new();
    for number in 0..ACCOUNT_CONVERSATIONS_MAX {
        let id = ConversationId::from_bytes((number as u128).to_be_bytes());
        batch.put_record(Family::Directory, key::membership(&BOB, &id), &());
    }
    bench.store.write(&batch, Durability::Synced).unwrap();
    let mut adds = commit_plan(alice, 1, EPOCH, &[alice, bob]);
    (adds.welcome, adds.welcomed) = (WELCOME, vec![BOB]);
    bench.refuses(Change::Commit(adds), Code::LimitReached);
    bench.refuses(group(1, &[alice, bob]), Code::LimitReached);
    bench.refuses(own(2, &[bob]), Code::LimitReached);
    bench.changes(group(3, &[alice]), made(3, false));
}
