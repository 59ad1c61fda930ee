//! An inbox stays under its bound, and drops no more for it than it must.

use super::groups::{bodies, commit_plan};
use super::*;
use crate::store::record::Mark;

/// A conversation whose inboxes hold at most eight entries: past it the oldest go until seven are left.
fn eight() -> Bench {
    Bench::bounded(8, 1 << 20).with_members(&[device(ALICE, 1), device(BOB, 1)])
}

/// Sends messages with these counters, each in a batch of its own.
fn fill(bench: &mut Bench, counters: std::ops::RangeInclusive<u64>) {
    for counter in counters {
        bench.send(device(ALICE, 1), counter).unwrap();
    }
}

fn mark_of(bench: &Bench, seq: u64) -> Mark {
    let (_, entry) = bench.inbox(BOB).into_iter().find(|(at, _)| *at == seq).unwrap();
    Mark { seq, count: entry.count, bytes_total: entry.bytes_total }
}

#[test]
fn an_inbox_at_its_bound_drops_nothing() {
    let mut bench = eight();
    fill(&mut bench, 1..=8);
    assert_eq!(bench.head(BOB).overflow, Mark::default());
}

#[test]
fn one_entry_too_many_drops_the_oldest_eighth() {
    let mut bench = eight();
    fill(&mut bench, 1..=9);
    let head = bench.head(BOB);
    assert_eq!(head.overflow, mark_of(&bench, 2));
    assert_eq!(head.seq - head.overflow.seq, 7);
    fill(&mut bench, 10..=10);
    assert_eq!(bench.head(BOB).overflow.seq, 2, "there is room again");
    fill(&mut bench, 11..=11);
    assert_eq!(bench.head(BOB).overflow, mark_of(&bench, 4));
}

#[test]
fn the_bound_on_bytes_holds_too() {
    let mut probe = eight();
    fill(&mut probe, 1..=1);
    let each = probe.head(BOB).bytes_total;
    let mut bench = Bench::bounded(1_000, 8 * each).with_members(&[device(ALICE, 1), device(BOB, 1)]);
    fill(&mut bench, 1..=8);
    assert_eq!(bench.head(BOB).overflow, Mark::default());
    fill(&mut bench, 9..=9);
    let head = bench.head(BOB);
    assert_eq!(head.overflow, mark_of(&bench, 2));
    assert_eq!(head.bytes_total - head.overflow.bytes_total, 7 * each);
}

#[test]
fn what_all_devices_have_taken_makes_room_first() {
    let mut bench = eight();
    fill(&mut bench, 1..=8);
    bench.ack(device(BOB, 1), 3, 3);
    fill(&mut bench, 9..=11);
    let head = bench.head(BOB);
    assert_eq!((head.floor, head.overflow), (mark_of(&bench, 3), Mark::default()));
    fill(&mut bench, 12..=12);
    let head = bench.head(BOB);
    assert_eq!((head.floor.seq, head.overflow), (3, mark_of(&bench, 5)));
}

#[test]
fn what_has_expired_makes_room_first() {
    let mut bench = eight();
    fill(&mut bench, 1..=6);
    bench.advance(RETENTION_MS);
    fill(&mut bench, 7..=9);
    let head = bench.head(BOB);
    assert_eq!((head.floor, head.overflow), (mark_of(&bench, 6), Mark::default()));
}

#[test]
fn a_welcome_that_outlives_messages_takes_no_room_from_later_ones() {
    let mut bench = eight();
    let mut plan = commit_plan(device(BOB, 1), 1, EPOCH, &[device(ALICE, 1), device(BOB, 1)]);
    (plan.welcome, plan.welcomed) = (Bytes::from_static(b"welcome"), vec![BOB]);
    bench.changes(Change::Commit(plan), Changed::Committed { epoch: EPOCH + 1 });
    fill(&mut bench, 1..=5);
    bench.advance(RETENTION_MS);
    bench.store.reclaim().unwrap();
    assert_eq!(bodies(&bench, BOB), [InboxBody::Welcome]);
    fill(&mut bench, 6..=13);
    let head = bench.head(BOB);
    assert_eq!((head.floor.seq, head.overflow), (6, Mark::default()));
    assert_eq!(bodies(&bench, BOB).first(), Some(&InboxBody::Welcome), "it is still there");
}

#[test]
fn what_has_left_the_disk_makes_room_too() {
    let mut bench = eight();
    fill(&mut bench, 1..=6);
    bench.advance(RETENTION_MS);
    bench.store.reclaim().unwrap();
    fill(&mut bench, 7..=14);
    let head = bench.head(BOB);
    assert_eq!((head.floor.seq, head.floor.count, head.overflow), (6, 6, Mark::default()));
    assert_eq!(bench.inbox(BOB).len(), 8);
    fill(&mut bench, 15..=15);
    assert_eq!(bench.head(BOB).overflow, mark_of(&bench, 8));
}

#[test]
fn an_inbox_of_which_nothing_is_left_has_all_its_room() {
    let mut bench = eight();
    fill(&mut bench, 1..=8);
    bench.advance(RETENTION_MS);
    bench.store.reclaim().unwrap();
    let last = bench.head(BOB).last();
    fill(&mut bench, 9..=9);
    assert_eq!(bench.head(BOB).floor, last);
    fill(&mut bench, 10..=16);
    assert_eq!(bench.head(BOB).overflow, Mark::default());
}

#[test]
fn a_batch_larger_than_the_bound_is_trimmed_by_the_next() {
    let mut bench = eight();
    bench.run((1..=20).map(|counter| send(device(ALICE, 1), counter)));
    fill(&mut bench, 21..=21);
    let head = bench.head(BOB);
    assert_eq!((head.seq, head.overflow), (21, mark_of(&bench, 14)));
}

#[test]
fn an_inbox_over_its_bound_keeps_the_others_whole() {
    let mut bench = Bench::bounded(8, 1 << 20).with_members(&[device(ALICE, 1), device(ALICE, 2), device(BOB, 1)]);
    for counter in 1..=12 {
        bench.send(device(ALICE, 1), counter).unwrap();
        bench.ack(device(ALICE, 1), counter, counter);
        bench.ack(device(ALICE, 2), counter, counter);
    }
    assert_eq!(bench.head(ALICE).overflow, Mark::default());
    assert_eq!(bench.head(BOB).overflow.seq, 4);
}
