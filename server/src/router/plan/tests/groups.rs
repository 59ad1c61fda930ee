//! Conversations and their epochs: one for each pair, and one commit that ends each epoch.

use super::*;
use crate::store::record::CommitRecord;

fn creation(from: Authenticated, peer: Authenticated, conversation: u8) -> Change {
    Change::Create(CreatePlan {
        from,
        with: ConversationWith::Peer(peer.account()),
        conversation: ConversationId::from_bytes([conversation; 16]),
        epoch: 1,
        members: vec![member(from), member(peer)],
        group_info: Bytes::from_static(b"info"),
        tree: Bytes::from_static(b"tree"),
        welcome: Bytes::from_static(b"welcome"),
    })
}

fn people() -> Bench {
    Bench::of(&[device(ALICE, 1), device(ALICE, 2), device(BOB, 1), device(EVE, 1)])
}

fn created(conversation: u8, existed: bool, epoch: u64) -> Changed {
    Changed::Conversation { conversation: ConversationId::from_bytes([conversation; 16]), existed, epoch }
}

pub(super) fn commit_plan(from: Authenticated, counter: u64, epoch: u64, members: &[Authenticated]) -> CommitPlan {
    CommitPlan {
        from,
        counter,
        conversation: TALK,
        epoch,
        commit: Bytes::from_static(b"commit"),
        members: members.iter().copied().map(member).collect(),
        welcomed: Vec::new(),
        welcome: Bytes::new(),
        group_info: Bytes::from(format!("info {}", epoch + 1)),
        tree: Bytes::from(format!("tree {}", epoch + 1)),
    }
}

fn commit(from: Authenticated, counter: u64, epoch: u64) -> Change {
    Change::Commit(commit_plan(from, counter, epoch, &[device(ALICE, 1), device(BOB, 1)]))
}

pub(super) fn bodies(bench: &Bench, account: AccountId) -> Vec<InboxBody> {
    bench.inbox(account).iter().map(|(_, entry)| entry.body).collect()
}

#[test]
fn a_pair_has_one_conversation_whoever_creates_it() {
    let (alice, bob) = (device(ALICE, 1), device(BOB, 1));
    let mut bench = people();
    assert!(bench.changes(creation(alice, bob, 1), created(1, false, 1)).must_sync);
    assert_eq!(bodies(&bench, BOB), [InboxBody::Welcome]);
    let welcome = key::message(&bench.inbox(BOB)[0].1.id);
    assert!(bench.store.get(Family::Welcome, &welcome).unwrap().is_some());
    assert_eq!(bench.head(BOB).count, 0, "a Welcome is no message");
    assert!(bench.inbox(ALICE).is_empty());
    for creation in [creation(alice, bob, 2), creation(bob, alice, 3), creation(alice, bob, 1)] {
        let plan = bench.changes(creation, created(1, true, 1));
        assert!(plan.batch.is_empty() && plan.deliveries.is_empty());
    }
    for account in [ALICE, BOB] {
        let membership = key::membership(&account, &ConversationId::from_bytes([1; 16]));
        assert_eq!(bench.get(Family::Directory, membership), Some(()));
    }
}

#[test]
fn the_creators_other_devices_are_welcomed_too() {
    let mut bench = people();
    let Change::Create(mut plan) = creation(device(ALICE, 1), device(BOB, 1), 1) else { unreachable!("a creation") };
    plan.members.push(member(device(ALICE, 2)));
    bench.changes(Change::Create(plan), created(1, false, 1));
    assert_eq!((bodies(&bench, ALICE), bodies(&bench, BOB)), (vec![InboxBody::Welcome], vec![InboxBody::Welcome]));
}

#[test]
fn the_id_of_another_conversation_is_refused() {
    let mut bench = people();
    bench.changes(creation(device(ALICE, 1), device(BOB, 1), 1), created(1, false, 1));
    bench.refuses(creation(device(EVE, 1), device(BOB, 1), 1), Code::CommitInvalid);
}

#[test]
fn a_conversation_can_be_written_to_once_created() {
    let mut bench = people();
    bench.changes(creation(device(ALICE, 1), device(BOB, 1), 0xc0), created(0xc0, false, 1));
    let sent = bench.run([send_at(device(BOB, 1), 1, 1)]).sent;
    is_new(&sent[0].result);
    assert_eq!(bench.head(ALICE).last().count, 1);
}

#[test]
fn a_commit_ends_its_epoch_and_everybody_else_reads_it() {
    let mut bench = Bench::talk();
    let plan = bench.changes(commit(device(ALICE, 1), 1, EPOCH), Changed::Committed { epoch: EPOCH + 1 });
    assert!(plan.must_sync);
    let record: CommitRecord = bench.get(Family::Commit, key::commit(&TALK, EPOCH)).unwrap();
    assert_eq!((record.account, record.time_ms, record.commit.as_ref()), (ALICE, START_MS, b"commit".as_slice()));
    let head: ConversationHead =
        bench.get(Family::Conversation, key::conversation(&TALK, ConversationTag::Head)).unwrap();
    assert_eq!((head.epoch, head.members.len()), (EPOCH + 1, 2));
    for (tag, text) in [(ConversationTag::GroupInfo, "info 11"), (ConversationTag::Tree, "tree 11")] {
        let part: Bytes = bench.get(Family::Conversation, key::conversation(&TALK, tag)).unwrap();
        assert_eq!(part, text);
    }
    assert_eq!(bodies(&bench, BOB), [InboxBody::Commit { conversation: TALK, epoch: EPOCH }]);
    assert_eq!(bench.head(BOB).count, 0, "a commit is no message");
    assert!(bench.inbox(ALICE).is_empty());
}

#[test]
fn the_second_commit_of_an_epoch_loses() {
    let mut bench = Bench::talk();
    bench.changes(commit(device(ALICE, 1), 1, EPOCH), Changed::Committed { epoch: EPOCH + 1 });
    bench.refuses(commit(device(BOB, 1), 1, EPOCH), Code::EpochConflict);
    bench.refuses(commit(device(ALICE, 1), 2, EPOCH), Code::EpochConflict);
    bench.refuses(commit(device(BOB, 1), 1, EPOCH + 2), Code::EpochConflict);
    bench.reopen();
    bench.refuses(commit(device(BOB, 1), 1, EPOCH), Code::EpochConflict);
    bench.changes(commit(device(BOB, 1), 1, EPOCH + 1), Changed::Committed { epoch: EPOCH + 2 });
}

#[test]
fn a_repeated_commit_is_answered_again_and_not_made_again() {
    let mut bench = Bench::talk();
    let committed = || Changed::Committed { epoch: EPOCH + 1 };
    bench.changes(commit(device(ALICE, 1), 1, EPOCH), committed());
    assert!(bench.changes(commit(device(ALICE, 1), 1, EPOCH), committed()).batch.is_empty());
    bench.changes(commit(device(BOB, 1), 1, EPOCH + 1), Changed::Committed { epoch: EPOCH + 2 });
    bench.reopen();
    assert!(bench.changes(commit(device(ALICE, 1), 1, EPOCH), committed()).batch.is_empty());
    assert_eq!(bench.inbox(BOB).len(), 1);
}

#[test]
fn a_commit_to_an_unknown_conversation_is_refused() {
    let mut bench = Bench::new();
    bench.refuses(commit(device(ALICE, 1), 1, EPOCH), Code::NotFound);
}

#[test]
fn a_commit_that_was_not_written_can_be_made_again() {
    let mut bench = Bench::talk();
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    let mut plan = Plan::default();
    let now_ms = bench.now_ms;
    bench.planner.add_change(commit(device(ALICE, 1), 1, EPOCH), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    assert!(bench.write(&plan).is_err());
    bench.changes(commit(device(BOB, 1), 1, EPOCH), Changed::Committed { epoch: EPOCH + 1 });
    bench.refuses(commit(device(ALICE, 1), 1, EPOCH), Code::EpochConflict);
}

#[test]
fn a_removed_device_reads_its_removal_and_may_not_send_after_it() {
    let all = [device(ALICE, 1), device(ALICE, 2), device(BOB, 1)];
    let mut bench = Bench::new().with_members(&all);
    let plan = commit_plan(device(ALICE, 1), 1, EPOCH, &[device(ALICE, 1), device(ALICE, 2)]);
    bench.changes(Change::Commit(plan), Changed::Committed { epoch: EPOCH + 1 });
    let ended = InboxBody::Commit { conversation: TALK, epoch: EPOCH };
    assert_eq!((bodies(&bench, ALICE), bodies(&bench, BOB)), (vec![ended], vec![ended]));
    is_refused(bench.send(device(BOB, 1), 1), Code::NotMember);
    is_refused(bench.send(device(ALICE, 1), 2), Code::EpochStale);
    is_new(&bench.run([send_at(device(ALICE, 1), 2, EPOCH + 1)]).sent[0].result);
    assert_eq!(bench.inbox(BOB).len(), 1, "the removed account reads nothing more");
    assert_eq!(bench.inbox(ALICE).len(), 2);
}

#[test]
fn an_added_device_is_welcomed_and_may_send() {
    let mut bench = Bench::talk();
    bench.add_devices(&[device(BOB, 2)]);
    let mut plan = commit_plan(device(BOB, 1), 1, EPOCH, &[device(ALICE, 1), device(BOB, 1), device(BOB, 2)]);
    (plan.welcome, plan.welcomed) = (Bytes::from_static(b"welcome"), vec![BOB]);
    bench.changes(Change::Commit(plan), Changed::Committed { epoch: EPOCH + 1 });
    assert_eq!(bodies(&bench, BOB), [InboxBody::Welcome]);
    assert_eq!(bodies(&bench, ALICE), [InboxBody::Commit { conversation: TALK, epoch: EPOCH }]);
    is_new(&bench.run([send_at(device(BOB, 2), 1, EPOCH + 1)]).sent[0].result);
    assert_eq!(bench.head(BOB).last().count, 1, "Bob's other device reads it");
}

#[test]
fn messages_commits_and_welcomes_stand_in_one_order_and_messages_alone_count() {
    let mut bench = Bench::talk();
    bench.send(device(ALICE, 1), 1).unwrap();
    bench.changes(commit(device(ALICE, 1), 2, EPOCH), Changed::Committed { epoch: EPOCH + 1 });
    bench.send(device(ALICE, 1), 3).unwrap();
    let counts: Vec<_> = bench.inbox(BOB).iter().map(|(seq, entry)| (*seq, entry.count)).collect();
    assert_eq!(counts, [(1, 1), (2, 1), (3, 2)]);
    let numbers = bench.run([send(device(ALICE, 1), 1), send(device(ALICE, 1), 3)]).sent;
    let numbers: Vec<_> = numbers.iter().map(|sent| sent.result.as_ref().unwrap().number).collect();
    assert_eq!(numbers, [1, 2], "a commit takes no number of a message");
}
