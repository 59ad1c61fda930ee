//! Clients killed at the worst moments: nothing is lost and nothing doubled, on either side.

use std::time::Duration;

use gureum_tests::person::texts;
use gureum_tests::relay::Relay;
use gureum_tests::wait::{SOON, eventually};
use gureum_tests::{Person, World};

fn accepted(world: &World) -> u64 {
    world.admin().count("gureum_sends_total{result=\"accepted\"}")
}

/// Alice behind a wire that can be cut, in a conversation with Bob that stands.
fn behind_a_relay() -> (World, Relay, Person, Person) {
    let world = World::start();
    let relay = Relay::start(world.listen());
    let alice = world.person_with("alice", &world.invite_via(relay.address()));
    let bob = world.person("bob");
    // What is counted at the server are the messages that somebody writes.
    for person in [&alice, &bob] {
        person.ok(&["settings", "receipts", "off"]);
    }
    alice.send(&bob, "first");
    assert_eq!(bob.receive_texts(), ["first"]);
    bob.send(&alice, "second");
    assert_eq!(alice.receive_texts(), ["second"]);
    (world, relay, alice, bob)
}

#[test]
fn a_receiver_killed_again_and_again_has_everything_once_and_in_order() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let wanted: Vec<String> = (0..40).map(|index| format!("message {index}")).collect();
    for (round, part) in wanted.chunks(8).enumerate() {
        let mut follower = bob.follow();
        for text in part {
            alice.send(&bob, text);
        }
        // Killed after another number of messages each time: while it takes them, or between taking and acking.
        let waits_for = &part[(round * 3) % part.len()];
        follower.wait_for_text(waits_for);
        drop(follower.kill());
    }
    assert!(bob.run(&["receive"]).code == Some(0));
    assert_eq!(texts(&bob.history()), wanted);
    assert_eq!(texts(&alice.history()), wanted);
}

#[test]
fn a_receiver_killed_between_receiving_and_acking_shows_nothing_twice() {
    let (world, relay, alice, bob) = behind_a_relay();
    let mut follower = alice.follow_from_now();
    let acks = world.admin().count("gureum_acks_total");
    relay.cut_requests();
    bob.send(&alice, "taken, not acked");
    follower.wait_for_text("taken, not acked");
    drop(follower.kill());
    relay.mend();
    assert_eq!(world.admin().count("gureum_acks_total"), acks, "no ack has arrived");
    // It may be printed again when it was killed before it could note that it had printed.
    assert!(alice.receive_texts().len() <= 1);
    assert_eq!(texts(&alice.history()), ["first", "second", "taken, not acked"]);
    assert_eq!(alice.receive().len(), 0);
    bob.send(&alice, "and on");
    assert_eq!(alice.receive_texts(), ["and on"]);
}

#[test]
fn a_sender_killed_before_the_answer_sends_it_again_and_it_is_there_once() {
    let (world, relay, alice, bob) = behind_a_relay();
    let before = accepted(&world);
    let mut chat = alice.chat(&bob);
    chat.type_line("the answer arrives");
    eventually("a first message", SOON, || (accepted(&world) == before + 1).then_some(()));
    eventually("and its answer", SOON, || (texts(&alice.history()).len() == 3).then_some(()));
    relay.cut_answers();
    chat.type_line("the answer is lost");
    eventually("the message at the server", SOON, || (accepted(&world) == before + 2).then_some(()));
    chat.kill();
    relay.mend();
    assert_eq!(bob.receive_texts(), ["the answer arrives", "the answer is lost"]);

    assert_eq!(alice.receive().len(), 0);
    assert_eq!(accepted(&world), before + 2, "it was not stored a second time");
    assert!(world.admin().count("gureum_sends_total{result=\"repeated\"}") >= 1);
    assert_eq!(bob.receive().len(), 0);
    let talk = ["first", "second", "the answer arrives", "the answer is lost"];
    assert_eq!(
        (texts(&alice.history()), texts(&bob.history())),
        (talk.map(str::to_owned).to_vec(), talk.map(str::to_owned).to_vec())
    );
}

#[test]
fn a_sender_killed_before_its_message_left_sends_it_later_once() {
    let (world, relay, alice, bob) = behind_a_relay();
    let before = accepted(&world);
    let mut chat = alice.chat(&bob);
    chat.type_line("while connected");
    eventually("a first message", SOON, || (texts(&alice.history()).len() == 3).then_some(()));
    relay.cut_requests();
    relay.cut_answers();
    chat.type_line("into the void");
    // Queued is in the database: the chat has handed it over once its next line of the outbox is there.
    let queued = || gureum_client::vault::Vault::open(&alice.home, &gureum_client::vault::KeySource::File);
    eventually("the outbox", SOON, || (queued().unwrap().outbox_len().unwrap() == 1).then_some(()));
    chat.kill();
    relay.mend();
    assert_eq!(accepted(&world), before + 1);
    assert_eq!(alice.receive().len(), 0);
    assert_eq!(accepted(&world), before + 2, "the outbox survived the kill");
    assert_eq!(bob.receive_texts(), ["while connected", "into the void"]);
    assert_eq!(alice.receive().len(), 0);
    assert_eq!(bob.receive().len(), 0);
}

#[test]
fn a_first_message_whose_sender_is_killed_anywhere_comes_at_most_once() {
    let world = World::start();
    let bob = world.person("bob");
    for round in 0..6_u64 {
        let name = format!("sender{round}");
        let sender = world.person(&name);
        let mut send = gureum_tests::child::Running::start(&mut sender.command(&["send", "bob", &name]));
        // From before it has connected to after it is done.
        std::thread::park_timeout(Duration::from_millis(15 * round));
        send.kill();
        let _ = sender.run(&["receive"]);
        let kept = texts(&sender.history()).len();
        let came = bob.receive_texts().iter().filter(|text| **text == name).count();
        assert_eq!(came, kept, "round {round}: what the sender shows as sent is what came");
        sender.send(&bob, "still works");
        assert_eq!(bob.receive_texts(), ["still works"]);
    }
}
