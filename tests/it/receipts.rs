//! Receipts between real clients, and what the server makes of messages that are for programs alone.

use gureum_proto::{EnvelopeBody, GapReason, Position, Send};
use gureum_tests::World;
use gureum_tests::person::{Person, gaps, number, receipts, string};
use gureum_tests::wait::{SOON, now_ms, until_ms};
use serde_json::Value;

use crate::delivery::{Two, next_body};

const START: Position = Position { seq: 0, count: 0 };

/// Of each message that this person wrote: the text, who has it, and who has read it.
fn marks(person: &Person) -> Vec<(String, Vec<String>, Vec<String>)> {
    let people = |value: &Value| value.as_array().unwrap().iter().map(string).collect::<Vec<_>>();
    let own = person.history().into_iter().filter(|event| event["from"] == person.name.as_str());
    own.map(|event| (string(&event["text"]), people(&event["delivered_to"]), people(&event["read_by"]))).collect()
}

fn mark(text: &str, delivered_to: &[&str], read_by: &[&str]) -> (String, Vec<String>, Vec<String>) {
    let people = |people: &[&str]| people.iter().map(|name| (*name).to_owned()).collect();
    (text.to_owned(), people(delivered_to), people(read_by))
}

fn of(kind: &str, sent: &[Value]) -> Vec<(String, String)> {
    sent.iter().map(|sent| (kind.to_owned(), string(&sent["message_id"]))).collect()
}

#[test]
fn who_wrote_learns_what_has_come_and_what_was_read() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let sent = [alice.send(&bob, "one"), alice.send(&bob, "two")];
    assert_eq!(alice.receive_receipts(), []);
    assert_eq!(marks(&alice), [mark("one", &[], &[]), mark("two", &[], &[])]);
    assert_eq!(bob.receive_texts(), ["one", "two"]);
    assert_eq!(alice.receive_receipts(), of("delivered", &sent));
    assert_eq!(marks(&alice), [mark("one", &["bob"], &[]), mark("two", &["bob"], &[])]);
    assert_eq!(number(&bob.ok(&["read", "alice"])[0]["number"]), 2);
    assert_eq!(alice.receive_receipts(), of("read", &sent));
    assert_eq!(marks(&alice), [mark("one", &["bob"], &["bob"]), mark("two", &["bob"], &["bob"])]);
    bob.ok(&["read", "alice"]);
    assert_eq!(alice.receive_receipts(), [], "said once");
}

#[test]
fn what_waits_in_the_inbox_is_taken_and_read_and_still_printed_later() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let sent = [alice.send(&bob, "unseen")];
    bob.ok(&["read", "alice"]);
    assert_eq!(alice.receive_receipts().last(), of("read", &sent).last());
    assert_eq!(bob.receive_texts(), ["unseen"]);
}

#[test]
fn a_receipt_comes_while_both_are_connected() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let mut at_alice = alice.follow_from_now();
    let mut at_bob = bob.follow_from_now();
    let sent = alice.send(&bob, "hello");
    at_bob.wait_for_text("hello");
    let receipt = at_alice.wait_for_receipt("delivered", &sent["message_id"]);
    assert_eq!(receipt["by"], "bob");
    // Beside the one that takes the inbox.
    bob.ok(&["read", "alice"]);
    at_alice.wait_for_receipt("read", &sent["message_id"]);
    let _ = (at_alice.interrupt(), at_bob.interrupt());
}

#[test]
fn what_a_chat_shows_is_read() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let before = alice.send(&bob, "before");
    assert_eq!(bob.receive_texts(), ["before"]);
    let mut at_alice = alice.follow_from_now();
    let mut chat = bob.chat(&alice);
    at_alice.wait_for_receipt("read", &before["message_id"]);
    let _ = at_alice.interrupt();
    // Where she talks to him the receipts are shown, too.
    let mut at_alice = alice.chat(&bob);
    at_alice.type_line("meanwhile");
    let shown = at_alice.wait_for("read", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["event"] == "receipt" && event["kind"] == "read").then_some(event)
    });
    let meanwhile = alice.history().into_iter().find(|event| event["text"] == "meanwhile").unwrap();
    assert_eq!((&shown["by"], &shown["message_id"]), (&"bob".into(), &meanwhile["message_id"]));
    for chat in [&mut chat, &mut at_alice] {
        chat.end_input();
        assert!(chat.wait(SOON).success());
    }
}

#[test]
fn receipts_that_are_off_are_neither_sent_nor_shown() {
    let world = World::start();
    let (alice, bob) = world.pair();
    bob.ok(&["settings", "receipts", "off"]);
    assert_eq!(bob.ok(&["settings"])[0]["receipts"], false);
    alice.send(&bob, "one");
    assert_eq!(bob.receive_texts(), ["one"]);
    bob.ok(&["read", "alice"]);
    assert_eq!(alice.receive_receipts(), []);
    bob.send(&alice, "two");
    assert_eq!(alice.receive_texts(), ["two"]);
    assert_eq!(bob.receive_receipts(), [], "he is not told either");
    let own = bob.history().into_iter().find(|event| event["text"] == "two").unwrap();
    assert!(own.get("delivered_to").is_none() && own.get("read_by").is_none(), "{own}");

    bob.ok(&["settings", "receipts", "on"]);
    let third = [alice.send(&bob, "three")];
    assert_eq!(bob.receive_texts(), ["three"]);
    assert_eq!(alice.receive_receipts(), of("delivered", &third));
}

#[test]
fn a_receipt_waits_for_whoever_is_away() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    let sent = [alice.send(&bob, "one")];
    assert_eq!(bob.receive_texts(), ["one"]);
    world.kill_and_restart();
    assert_eq!(alice.receive_receipts(), of("delivered", &sent));
}

#[test]
fn a_receipt_that_expires_is_no_loss() {
    let world = World::with_retention("3s");
    let (alice, bob) = world.pair();
    let sent = [alice.send(&bob, "one")];
    assert_eq!(bob.receive_texts(), ["one"]);
    until_ms(now_ms() + 3_500);
    assert_eq!(alice.ok(&["receive"]), Vec::<Value>::new(), "nobody has written to her");
    assert_eq!(marks(&alice), [mark("one", &[], &[])]);
    bob.send(&alice, "hello");
    bob.ok(&["read", "alice"]);
    let came = alice.ok(&["receive"]);
    assert!(gaps(&came).is_empty(), "{came:#?}");
    assert_eq!(receipts(&came), of("read", &sent));
}

/// Alice's next message, for programs alone.
fn silent(two: &mut Two, body: &'static [u8]) -> Send {
    Send { silent: true, ..two.alice.opaque(&two.talk, body) }
}

#[tokio::test]
async fn a_silent_message_is_delivered_in_its_place_without_a_number_and_not_counted() {
    let mut two = Two::start().await;
    let sends = [
        two.alice.opaque(&two.talk, &b"one"[..]),
        silent(&mut two, b"for programs"),
        two.alice.opaque(&two.talk, &b"two"[..]),
    ];
    let sent = two.raw.send(&sends).await;
    let numbers: Vec<_> = sent.iter().map(|sent| sent.result.as_ref().unwrap().number).collect();
    assert_eq!(numbers, [1, 0, 2]);
    two.world.kill_and_restart();
    let (_raw, mut frames) = two.subscribe(START).await;
    assert_eq!(next_body(&mut frames).await, (Position { seq: 2, count: 1 }, b"one".to_vec()));
    let envelope = frames.envelope().await;
    assert_eq!(envelope.position, Position { seq: 3, count: 1 });
    assert_eq!(envelope.shared.body, EnvelopeBody::Silent(bytes::Bytes::from_static(b"for programs")));
    assert_eq!(envelope.shared.message_id, sent[1].result.as_ref().unwrap().message_id.unwrap());
    assert_eq!(next_body(&mut frames).await, (Position { seq: 4, count: 2 }, b"two".to_vec()));
}

#[tokio::test]
async fn a_silent_message_expires_like_any_other_and_no_gap_counts_it() {
    let mut two = Two::in_world(World::with_retention("2s")).await;
    let sends = [silent(&mut two, b"for programs"), two.alice.opaque(&two.talk, &b"one"[..])];
    for sent in two.raw.send(&sends).await {
        sent.result.unwrap();
    }
    until_ms(now_ms() + 2_100);
    two.send(&[b"here"]).await;
    let (_raw, mut frames) = two.subscribe(Position { seq: 1, count: 0 }).await;
    let gureum_proto::DeliveryFrame::Gap(gap) = frames.delivery().await else { panic!("no gap") };
    assert_eq!((gap.from_seq, gap.to, gap.reason), (2, Position { seq: 3, count: 1 }, GapReason::Expired));
    assert_eq!(gap.missed, 1);
    assert_eq!(next_body(&mut frames).await, (Position { seq: 4, count: 2 }, b"here".to_vec()));
}
