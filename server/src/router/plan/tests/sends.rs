//! Sends and acks: accepted once, answered always.

use gureum_proto::{EnvelopeBody, SharedEnvelope};

use super::*;
use crate::limits::SENT_RESULTS_KEPT;
use crate::store::record::{SenderWindow, SentResult};

#[test]
fn a_message_stands_once_in_the_inbox_of_the_other_with_its_body() {
    let mut bench = Bench::talk();
    let plan = bench.run([send(device(ALICE, 1), 1)]);
    let id = is_new(&plan.sent[0].result);
    assert_eq!(id.time_ms(), START_MS);
    assert!(plan.must_sync, "nothing is answered before it is on the disk");
    let [(seq, entry)] = bench.inbox(BOB)[..] else { panic!("one entry") };
    assert_eq!((seq, entry.id, entry.count, entry.body), (1, id, 1, InboxBody::Message));
    let (account, delivery) = &plan.deliveries[0];
    assert_eq!((*account, delivery.position, delivery.id), (BOB, Position { seq: 1, count: 1 }, id));
    assert_eq!(bench.message(id).unwrap().ciphertext, delivery.shared);
    assert_eq!(u64::try_from(delivery.shared.len()).unwrap(), entry.bytes_total);
    assert_eq!(bench.head(BOB).last().seq, 1);
}

#[test]
fn positions_and_numbers_are_dense_and_ids_ascend_across_batches_and_senders() {
    let all = [device(ALICE, 1), device(ALICE, 2), device(BOB, 1), device(BOB, 2)];
    let mut bench = Bench::new().with_members(&all);
    let mut answers = Vec::new();
    for batch in 0..5 {
        let ops = (1..=4).flat_map(|n| [send(device(ALICE, 1), batch * 4 + n), send(device(BOB, 1), batch * 4 + n)]);
        answers.extend(bench.run(ops).sent);
        bench.advance(batch % 2);
    }
    let numbers: Vec<_> = answers.iter().map(|sent| sent.result.as_ref().unwrap().number).collect();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    let ids: Vec<_> = answers.iter().map(|sent| is_new(&sent.result)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    for account in [ALICE, BOB] {
        let inbox = bench.inbox(account);
        assert_eq!(inbox.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
        assert_eq!(inbox.iter().map(|(_, entry)| entry.id).collect::<Vec<_>>(), ids);
        assert_eq!(inbox.iter().map(|(_, entry)| entry.count).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    }
}

#[test]
fn a_silent_message_stands_between_the_others_without_a_number_and_counts_for_nobody() {
    let (alice, bob) = (device(ALICE, 1), device(BOB, 1));
    let mut bench = Bench::talk();
    let sent = bench.run([send(alice, 1), silently(send(alice, 2)), send(alice, 3), silently(send(bob, 1))]).sent;
    let numbers: Vec<_> = sent.iter().map(|sent| sent.result.as_ref().unwrap().number).collect();
    assert_eq!(numbers, [1, 0, 2, 0]);
    let silent = is_new(&sent[1].result);
    let read: Vec<_> = bench.inbox(BOB).iter().map(|(seq, entry)| (*seq, entry.count, entry.body)).collect();
    assert_eq!(read, [(1, 1, InboxBody::Message), (2, 1, InboxBody::Silent), (3, 2, InboxBody::Message)]);
    assert_eq!(bench.inbox(ALICE)[0].1.body, InboxBody::Silent);
    let body = SharedEnvelope::decode(bench.message(silent).unwrap().ciphertext).unwrap().body;
    assert_eq!(body, EnvelopeBody::Silent(Bytes::from_static(b"sealed 2")));
    is_the_repetition_of(&sent[1].result, &bench.run([silently(send(alice, 2))]).sent[0].result);
}

#[test]
fn a_silent_message_that_nobody_reads_is_answered_and_not_kept() {
    let mut bench = Bench::new().with_members(&[device(ALICE, 1)]);
    let sent = bench.run([silently(send(device(ALICE, 1), 1))]).sent;
    let id = is_new(&sent[0].result);
    assert!(bench.message(id).is_none() && bench.inbox(ALICE).is_empty());
    is_the_repetition_of(&sent[0].result, &bench.run([silently(send(device(ALICE, 1), 1))]).sent[0].result);
}

#[test]
fn the_own_account_reads_it_only_where_it_has_another_device() {
    let mut alone = Bench::talk();
    alone.send(device(ALICE, 1), 1).unwrap();
    assert_eq!((alone.inbox(ALICE).len(), alone.inbox(BOB).len()), (0, 1));
    let mut two = Bench::new().with_members(&[device(ALICE, 1), device(ALICE, 2), device(BOB, 1)]);
    two.send(device(ALICE, 1), 1).unwrap();
    assert_eq!((two.inbox(ALICE).len(), two.inbox(BOB).len()), (1, 1));
    assert_eq!(two.inbox(ALICE)[0].1.id, two.inbox(BOB)[0].1.id, "one body for both");
}

#[track_caller]
fn is_the_repetition_of(first: &Result<Accepted, Refusal>, second: &Result<Accepted, Refusal>) {
    assert_eq!(*second, Ok(Accepted { repeated: true, ..*first.as_ref().unwrap() }));
}

#[test]
fn a_repeated_send_gets_the_same_answer_and_is_not_stored_again() {
    let mut bench = Bench::talk();
    let alice = device(ALICE, 1);
    let same_batch = bench.run([send(alice, 1), send(alice, 1)]).sent;
    let first = same_batch[0].result.clone();
    is_the_repetition_of(&first, &same_batch[1].result);
    is_the_repetition_of(&first, &bench.send(alice, 1));
    bench.planner.forget();
    is_the_repetition_of(&first, &bench.send(alice, 1));
    bench.reopen();
    is_the_repetition_of(&first, &bench.send(alice, 1));
    bench.advance(2 * RETENTION_MS);
    bench.store.reclaim().unwrap();
    bench.reopen();
    is_the_repetition_of(&first, &bench.send(alice, 1));
    assert_eq!(bench.head(BOB).seq, 1);
}

#[test]
fn a_window_that_was_written_whole_gives_way_to_its_results_with_the_next_send() {
    let (alice, kept) = (device(ALICE, 1), u64::try_from(SENT_RESULTS_KEPT).unwrap());
    let mut bench = Bench::talk();
    let result =
        |counter: u64| SentResult { counter, id: MessageId::new(START_MS - 1, counter.into()), number: counter };
    // Ten sends were refused, and one was accepted since by a server that left the window where it was.
    let whole = SenderWindow { highest: kept + 10, recent: (11..=kept).chain([kept + 10]).map(result).collect() };
    let whole_key = key::cursor(&ALICE, &alice.device(), CursorTag::SenderWindow);
    let mut batch = Batch::new();
    batch.put_record(Family::Cursor, whole_key, &whole);
    batch.put_record(Family::Sent, key::sent(&ALICE, &alice.device(), kept + 11), &result(kept + 11));
    bench.store.write(&batch, Durability::Synced).unwrap();
    let before = store::read_window(bench.store.as_ref(), ALICE, alice.device()).unwrap();

    bench.send(alice, kept + 11).unwrap();
    assert_eq!(bench.get(Family::Cursor, whole_key), Some(whole), "a repetition writes nothing");
    let id = is_new(&bench.send(alice, kept + 12));
    assert_eq!(bench.get::<SenderWindow>(Family::Cursor, whole_key), None);
    let mut after = before;
    after.record(SentResult { counter: kept + 12, id, number: 1 });
    bench.reopen();
    assert_eq!(store::read_window(bench.store.as_ref(), ALICE, alice.device()).unwrap(), after);
    for counter in (13..=kept).chain([kept + 10, kept + 11]) {
        assert_eq!(bench.send(alice, counter).unwrap().message_id, Some(result(counter).id));
    }
    is_new(&bench.send(alice, kept + 9));
    assert_eq!(bench.send(alice, 12).unwrap().message_id, None, "it is too old to be known");
}

#[test]
fn a_repetition_writes_nothing() {
    let mut bench = Bench::talk();
    bench.send(device(ALICE, 1), 1).unwrap();
    let plan = bench.plan([send(device(ALICE, 1), 1)]);
    assert!(plan.batch.is_empty() && plan.deliveries.is_empty() && !plan.must_sync);
}

#[test]
fn counters_of_two_devices_do_not_meet() {
    let mut bench = Bench::new().with_members(&[device(ALICE, 1), device(ALICE, 2), device(BOB, 1)]);
    for from in [device(ALICE, 1), device(ALICE, 2), device(BOB, 1)] {
        is_new(&bench.send(from, 1));
    }
    assert_eq!((bench.head(ALICE).seq, bench.head(BOB).seq), (3, 2));
}

#[test]
fn counters_may_come_in_any_order_within_the_window() {
    let mut bench = Bench::talk();
    let alice = device(ALICE, 1);
    let kept = u64::try_from(SENT_RESULTS_KEPT).unwrap();
    let top = 2 * kept;
    let first = bench.send(alice, top);
    is_new(&first);
    let oldest = top - kept + 1;
    is_new(&bench.send(alice, oldest));
    let forgotten = bench.send(alice, oldest - 1);
    assert_eq!(forgotten, Ok(Accepted { message_id: None, number: 0, repeated: true, gone: Gone::default() }));
    is_the_repetition_of(&first, &bench.send(alice, top));
    assert_eq!(bench.head(BOB).seq, 2);
}

#[test]
fn the_whole_window_is_remembered() {
    let mut bench = Bench::talk();
    let alice = device(ALICE, 1);
    let kept = u64::try_from(SENT_RESULTS_KEPT).unwrap();
    let first = bench.run((1..=kept).rev().map(|counter| send(alice, counter))).sent;
    bench.reopen();
    let again = bench.run((1..=kept).rev().map(|counter| send(alice, counter))).sent;
    for (first, again) in first.iter().zip(&again) {
        is_the_repetition_of(&first.result, &again.result);
    }
    assert_eq!(bench.head(BOB).seq, kept);
}

#[test]
fn strangers_and_unknown_conversations_are_refused() {
    let mut bench = Bench::talk();
    is_refused(bench.send(device(EVE, 1), 1), Code::NotMember);
    is_refused(bench.send(device(ALICE, 2), 1), Code::NotMember);
    let conversation = ConversationId::from_bytes([0xcc; 16]);
    let ciphertext = Bytes::from_static(b"x");
    let unknown = Send { counter: 2, conversation, epoch: EPOCH, ciphertext, silent: false };
    let sent = bench.run([Op::Send { from: device(ALICE, 1), send: unknown }]).sent;
    is_refused(sent[0].result.clone(), Code::NotFound);
    assert!(bench.inbox(BOB).is_empty());
}

#[test]
fn a_message_may_be_three_epochs_behind_and_none_ahead() {
    let mut bench = Bench::talk();
    let alice = device(ALICE, 1);
    let mut at = |counter, epoch| bench.run([send_at(alice, counter, epoch)]).sent[0].result.clone();
    is_refused(at(1, EPOCH + 1), Code::EpochStale);
    is_refused(at(2, EPOCH - 4), Code::EpochStale);
    is_refused(at(3, 0), Code::EpochStale);
    is_new(&at(4, EPOCH));
    is_new(&at(5, EPOCH - 3));
}

#[test]
fn a_refused_counter_may_be_tried_again() {
    let mut bench = Bench::talk();
    let alice = device(ALICE, 1);
    let sent = bench.run([send_at(alice, 1, 0), send(alice, 2)]).sent;
    is_refused(sent[0].result.clone(), Code::EpochStale);
    is_new(&sent[1].result);
    is_new(&bench.send(alice, 1));
    assert_eq!(bench.head(BOB).seq, 2);
}

#[test]
fn a_refused_send_leaves_no_hole_in_the_numbers() {
    let mut bench = Bench::talk();
    let alice = device(ALICE, 1);
    let sent = bench.run([send(alice, 1), send_at(alice, 2, 0), send(alice, 3)]).sent;
    assert_eq!(sent[2].result.as_ref().unwrap().number, 2);
    assert_eq!(bench.head(BOB).seq, 2);
}

#[test]
fn what_was_not_written_has_never_been() {
    let mut bench = Bench::talk();
    let (alice, bob) = (device(ALICE, 1), device(BOB, 1));
    bench.send(alice, 1).unwrap();
    let before = bench.contents();
    bench.store.fail_next_write(StoreError::Full("planned".to_owned()));
    let plan = bench.plan([send(alice, 2), ack(bob, 1, 1), send(bob, 1)]);
    assert!(bench.write(&plan).is_err());
    assert_eq!(bench.contents(), before);
    assert_eq!(bench.cursor(bob), Some(Cursor::default()));
    let again = bench.send(alice, 2);
    is_new(&again);
    assert_eq!(again.unwrap().number, 2);
    assert_eq!((bench.head(BOB).seq, bench.head(ALICE).seq), (2, 0));
}

#[test]
fn no_position_is_used_twice_after_everything_has_expired() {
    let mut bench = Bench::talk();
    let alice = device(ALICE, 1);
    bench.run((1..=5).map(|counter| send(alice, counter)));
    bench.advance(RETENTION_MS);
    bench.store.reclaim().unwrap();
    assert!(bench.inbox(BOB).is_empty(), "all is gone from the disk");
    bench.reopen();
    bench.send(alice, 6).unwrap();
    let [(seq, entry)] = bench.inbox(BOB)[..] else { panic!("one entry") };
    assert_eq!((seq, entry.count), (6, 6));
}

#[test]
fn ids_ascend_within_a_millisecond_whatever_the_entropy_is() {
    let mut ids = Ids { entropy: Box::new(|| u128::MAX), last_ms: 0, tail: 0 };
    let mut made: Vec<_> = (0..100).map(|_| ids.next(START_MS)).collect();
    made.push(ids.next(START_MS + 1));
    made.push(ids.next(START_MS));
    assert!(made.is_sorted_by(|a, b| a < b));
}

#[test]
fn an_ack_moves_the_cursor_forward_only_and_not_past_the_head() {
    let mut bench = Bench::talk();
    let bob = device(BOB, 1);
    bench.run((1..=3).map(|counter| send(device(ALICE, 1), counter)));
    let plan = bench.ack(bob, 2, 2);
    assert!(!plan.must_sync, "a client repeats an ack that is lost");
    assert_eq!(bench.cursor(bob), Some(Cursor { seq: 2, count: 2 }));
    for (seq, count) in [(1, 1), (2, 2), (4, 3), (u64::MAX, u64::MAX)] {
        let plan = bench.ack(bob, seq, count);
        assert!(plan.batch.is_empty() && plan.floors.is_empty());
        assert_eq!(bench.cursor(bob), Some(Cursor { seq: 2, count: 2 }), "after {seq}");
    }
    bench.ack(bob, 3, 99);
    assert_eq!(bench.cursor(bob), Some(Cursor { seq: 3, count: 3 }));
}

#[test]
fn an_ack_of_a_device_that_the_account_does_not_have_does_nothing() {
    let mut bench = Bench::talk();
    bench.send(device(ALICE, 1), 1).unwrap();
    let plan = bench.ack(device(BOB, 7), 1, 1);
    assert!(plan.batch.is_empty() && plan.floors.is_empty());
    assert_eq!(bench.cursor(device(BOB, 7)), None);
}

#[test]
fn a_floor_rises_when_the_last_device_has_taken() {
    let mut bench = Bench::new().with_members(&[device(ALICE, 1), device(BOB, 1), device(BOB, 2)]);
    bench.run((1..=4).map(|counter| send(device(ALICE, 1), counter)));
    assert_eq!(bench.ack(device(BOB, 1), 3, 3).floors, []);
    assert_eq!(bench.ack(device(BOB, 2), 2, 2).floors, [(BOB, 2)]);
    assert_eq!(bench.ack(device(BOB, 2), 4, 4).floors, [(BOB, 3)]);
    bench.reopen();
    assert_eq!(bench.ack(device(BOB, 1), 4, 4).floors, [(BOB, 4)]);
}

#[test]
fn an_ack_of_what_stands_in_the_same_batch_counts() {
    let mut bench = Bench::talk();
    bench.run([send(device(ALICE, 1), 1), ack(device(BOB, 1), 1, 1)]);
    assert_eq!(bench.cursor(device(BOB, 1)), Some(Cursor { seq: 1, count: 1 }));
}
