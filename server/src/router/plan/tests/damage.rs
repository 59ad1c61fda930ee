//! An operation that meets damage leaves no trace in the plan: neither in the batch nor in what is cached.

use super::*;
use crate::store::StoreError;

/// A conversation of three accounts, whose inboxes hold at most eight entries.
fn three() -> Bench {
    Bench::bounded(8, 1 << 20).with_members(&[device(ALICE, 1), device(BOB, 1), device(EVE, 1)])
}

/// Plans sends one by one; says which of them met damage.
fn plan(bench: &mut Bench, counters: std::ops::RangeInclusive<u64>) -> (Plan, Vec<u64>) {
    let (mut plan, mut failed) = (Plan::default(), Vec::new());
    for counter in counters {
        let sent = plan.sent.len();
        match bench.planner.add(send(device(ALICE, 1), counter), bench.now_ms, &mut plan) {
            Ok(()) => assert_eq!(plan.sent.len(), sent + 1),
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged(_)), "{error}");
                assert_eq!(plan.sent.len(), sent);
                failed.push(counter);
            }
        }
    }
    bench.planner.finish(&mut plan);
    (plan, failed)
}

fn seqs(bench: &Bench, account: AccountId) -> Vec<u64> {
    bench.inbox(account).iter().map(|(seq, _)| *seq).collect()
}

#[test]
fn a_fan_out_that_meets_damage_gives_nobody_a_position_and_takes_no_number() {
    let mut bench = three();
    bench.send(device(ALICE, 1), 1).unwrap();
    bench.reopen();
    // Bob's head is read, and his entry planned, before Eve's turn.
    bench.store.damage(Family::InboxHead, key::inbox_head(&EVE).as_ref());
    let (first, failed) = plan(&mut bench, 2..=3);
    assert_eq!(failed, [2, 3]);
    assert!(first.deliveries.is_empty() && !first.must_sync);
    bench.store.mend();
    bench.write(&first).unwrap();
    assert_eq!((seqs(&bench, BOB), seqs(&bench, EVE)), (vec![1], vec![1]));
    assert_eq!(bench.send(device(ALICE, 1), 2).unwrap().number, 2);
    assert_eq!((seqs(&bench, BOB), seqs(&bench, EVE)), (vec![1, 2], vec![1, 2]));
}

#[test]
fn damage_met_in_trimming_one_inbox_is_taken_back_and_the_sends_before_stay() {
    let mut bench = three();
    for counter in 1..=7 {
        bench.send(device(ALICE, 1), counter).unwrap();
    }
    bench.reopen();
    bench.store.damage(Family::Inbox, key::inbox(&EVE, 3).as_ref());
    let (eighth, failed) = plan(&mut bench, 8..=10);
    assert_eq!(failed, [9, 10], "the eighth needs no room");
    bench.store.mend();
    bench.write(&eighth).unwrap();
    for account in [BOB, EVE] {
        assert_eq!(bench.head(account).last().seq, 8);
        assert_eq!(bench.head(account).overflow.seq, 0, "nobody's oldest were dropped for it");
    }
}

#[test]
fn a_commit_that_meets_damage_leaves_the_conversation_in_its_epoch() {
    let mut bench = three();
    bench.send(device(ALICE, 1), 1).unwrap();
    let before = bench.contents();
    bench.reopen();
    bench.store.damage(Family::InboxHead, key::inbox_head(&EVE).as_ref());
    let commit = || {
        Change::Commit(CommitPlan {
            from: device(ALICE, 1),
            counter: 2,
            conversation: TALK,
            epoch: EPOCH,
            commit: Bytes::from_static(b"commit"),
            members: [device(ALICE, 1), device(BOB, 1)].map(member).to_vec(),
            welcomed: Vec::new(),
            welcome: Bytes::new(),
            group_info: Bytes::from_static(b"info"),
            tree: Bytes::from_static(b"tree"),
        })
    };
    let mut plan = Plan::default();
    let failed = bench.planner.add_change(commit(), bench.now_ms, &mut plan);
    assert!(matches!(failed, Err(StoreError::Damaged(_))), "{failed:?}");
    bench.planner.finish(&mut plan);
    bench.store.mend();
    bench.write(&plan).unwrap();
    assert_eq!(bench.contents(), before);
    bench.changes(commit(), Changed::Committed { epoch: EPOCH + 1 });
}
