//! The lives of devices: what the writer makes of claims, in what order they come, and of a copy that takes over.

use gureum_proto::{Life, LifeToken};

use super::*;
use crate::store::record::LifeRecord;

fn token(number: u8) -> LifeToken {
    LifeToken::from_bytes([number; 16])
}

fn live(generation: u64, is: u8, next: u8) -> Op {
    Op::Live { from: device(ALICE, 1), life: Life { generation, token: token(is), next: token(next) } }
}

fn take_over(next: u8) -> Change {
    Change::TakeOver { from: device(ALICE, 1), next: token(next) }
}

fn known(bench: &Bench) -> LifeRecord {
    let alice = device(ALICE, 1);
    let key = key::cursor(&alice.account(), &alice.device(), CursorTag::Life);
    bench.get(Family::Cursor, key).unwrap_or_default()
}

#[track_caller]
fn check(bench: &Bench, generation: u64, is: u8, lost: &[u8]) {
    let lost = lost.iter().copied().map(token).collect();
    assert_eq!(known(bench), LifeRecord { generation, token: token(is), lost });
}

#[test]
fn a_life_goes_on_without_waiting_for_the_disk() {
    let mut bench = Bench::talk();
    let plan = bench.run([live(0, 0, 1)]);
    assert!(!plan.must_sync);
    check(&bench, 1, 1, &[]);
    bench.run([live(1, 1, 2), live(2, 2, 3)]);
    check(&bench, 3, 3, &[]);
    bench.reopen();
    bench.run([live(3, 3, 4)]);
    check(&bench, 4, 4, &[]);
}

#[test]
fn what_comes_late_or_twice_or_from_an_older_copy_moves_nothing() {
    let mut bench = Bench::talk();
    bench.run([live(0, 0, 1), live(1, 1, 2)]);
    for op in [live(1, 1, 2), live(0, 0, 1), live(1, 1, 30)] {
        bench.run([op]);
        check(&bench, 2, 2, &[]);
    }
}

#[test]
fn a_life_that_was_not_written_is_caught_up_with() {
    let mut bench = Bench::talk();
    bench.run([live(0, 0, 1)]);
    let lost = bench.plan([live(1, 1, 2)]);
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    assert!(bench.write(&lost).is_err());
    check(&bench, 1, 1, &[]);
    bench.run([live(2, 2, 3)]);
    check(&bench, 3, 3, &[]);
}

#[test]
fn a_copy_that_takes_over_is_on_the_disk_and_learns_where_to_count_on_from() {
    let mut bench = Bench::talk();
    bench.run([live(0, 0, 1), live(1, 1, 2)]);
    is_new(&bench.send(device(ALICE, 1), 7));
    let taken = Changed::TakenOver { generation: 3, accepted_counter: 7 };
    assert!(bench.changes(take_over(30), taken.clone()).must_sync);
    check(&bench, 3, 30, &[2]);
    assert!(!bench.changes(take_over(30), taken).must_sync, "once more changes nothing");
    bench.run([live(2, 2, 3)]);
    check(&bench, 3, 30, &[2]);
    bench.run([live(3, 30, 31)]);
    check(&bench, 4, 31, &[2]);
}

#[test]
fn who_was_taken_over_from_does_not_take_over_in_turn() {
    let mut bench = Bench::talk();
    bench.run([live(0, 0, 1)]);
    for next in [30, 40] {
        bench.change(take_over(next)).0.unwrap();
    }
    check(&bench, 3, 40, &[1, 30]);
    bench.refuses(take_over(30), Code::DeviceCopied);
    check(&bench, 3, 40, &[1, 30]);
}

/// The other copy's Hello and the request of this one in one batch.
#[test]
fn a_copy_takes_over_from_what_is_not_written_yet() {
    let mut bench = Bench::talk();
    bench.run([live(0, 0, 1)]);
    let mut plan = Plan::default();
    let now_ms = bench.now_ms;
    bench.planner.add(live(1, 1, 2), now_ms, &mut plan).unwrap();
    bench.planner.add_change(take_over(30), now_ms, &mut plan).unwrap().unwrap();
    bench.planner.finish(&mut plan);
    bench.write(&plan).unwrap();
    check(&bench, 3, 30, &[2]);
}
