//! Two people talk: live, and with one of them away while the server dies.

use gureum_tests::World;
use gureum_tests::person::{number, string, texts};
use gureum_tests::wait::{SOON, eventually};

#[test]
fn who_is_connected_has_a_message_at_once_and_from_memory() {
    let world = World::start();
    let (alice, bob) = world.pair();
    // What is counted at the server are the messages that somebody writes.
    for person in [&alice, &bob] {
        person.ok(&["settings", "receipts", "off"]);
    }
    let mut follower = bob.follow_from_now();
    alice.send(&bob, "first");
    follower.wait_for_text("first");
    // Bob's device renews its keys once it has joined; what follows is an ordinary message of a talk that stands.
    eventually("bob's commit", SOON, || (world.admin().count("gureum_commits_accepted_total") >= 1).then_some(()));
    assert!(alice.receive().is_empty());
    let from = |source: &str| world.admin().count(&format!("gureum_deliveries_total{{source=\"{source}\"}}"));
    let before = (from("tail"), from("store"));
    let sent = alice.send(&bob, "hello");
    let came = follower.wait_for_text("hello");
    assert_eq!(came["message_id"], sent["message_id"]);
    assert_eq!((from("tail"), from("store")), (before.0 + 1, before.1), "from memory, without a store read");
    assert_eq!(texts(&follower.interrupt()), ["first", "hello"]);
}

#[test]
fn ten_messages_wait_through_a_sigkill_of_the_server_and_come_once_in_order() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "hi bob");
    assert_eq!(bob.receive_texts(), ["hi bob"]);
    bob.send(&alice, "hi alice");
    assert_eq!(alice.receive_texts(), ["hi alice"]);

    let wanted: Vec<String> = (0..10).map(|index| format!("message {index}")).collect();
    for text in &wanted {
        alice.send(&bob, text);
    }
    world.kill_and_restart();
    let came = bob.receive();
    assert_eq!(texts(&came), wanted);
    let seqs: Vec<u64> = came.iter().map(|event| number(&event["seq"])).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
    assert_eq!(bob.receive().len(), 0, "once each");
    bob.send(&alice, "got them");
    assert_eq!(alice.receive_texts(), ["got them"]);

    let line = |from: &str, text: &str| (from.to_owned(), text.to_owned());
    let mut talk = vec![line("alice", "hi bob"), line("bob", "hi alice")];
    talk.extend(wanted.iter().map(|text| line("alice", text)));
    talk.push(line("bob", "got them"));
    assert_eq!(alice.talk(), talk);
    assert_eq!(bob.talk(), talk);
    for person in [&alice, &bob] {
        let times: Vec<u64> = person.history().iter().map(|event| number(&event["server_time_ms"])).collect();
        assert!(times.is_sorted(), "in order of time: {times:?}");
    }
}

#[test]
fn both_may_write_first_and_end_up_in_one_conversation() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let first = alice.send(&bob, "from alice");
    let second = bob.send(&alice, "from bob");
    assert_eq!(first["conversation"], second["conversation"]);
    assert_eq!(alice.receive_texts(), ["from bob"]);
    let mut came = bob.receive_texts();
    came.extend(texts(&bob.history()));
    assert!(came.contains(&"from alice".to_owned()), "{came:?}");
    alice.send(&bob, "and on");
    bob.send(&alice, "and on and on");
    assert_eq!(bob.receive_texts().last().map(String::as_str), Some("and on"));
    assert_eq!(alice.receive_texts(), ["and on and on"]);
}

#[test]
fn a_third_person_hears_nothing() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let carol = world.person("carol");
    alice.send(&bob, "for bob alone");
    carol.send(&bob, "from carol");
    assert_eq!(carol.receive().len(), 0);
    let mut came: Vec<_> = bob.receive().iter().map(|event| (string(&event["from"]), string(&event["text"]))).collect();
    came.sort();
    assert_eq!(came, [("alice".to_owned(), "for bob alone".to_owned()), ("carol".to_owned(), "from carol".to_owned())]);
    let with_carol = bob.ok(&["history", "carol"]);
    assert_eq!(texts(&with_carol), ["from carol"]);
}

#[test]
fn a_chat_shows_what_comes_and_sends_what_is_typed() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let (mut at_alice, mut at_bob) = (alice.chat(&bob), bob.chat(&alice));
    let shows = |text: &'static str| move |line: &str| line.contains(text).then_some(());
    at_alice.type_line("anybody there?");
    at_bob.wait_for("alice's line", shows("anybody there?"));
    at_bob.type_line("yes");
    at_alice.wait_for("bob's line", shows("yes"));
    for chat in [&mut at_alice, &mut at_bob] {
        chat.end_input();
        assert!(chat.wait(SOON).success(), "{:?}", chat.err.all());
    }
    assert_eq!(alice.talk(), bob.talk());
}
