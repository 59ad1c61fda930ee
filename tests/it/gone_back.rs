//! A real server goes back to an older backup: people are told at once, decide, and talk again.

use std::path::PathBuf;
use std::time::Duration;

use gureum_tests::World;
use gureum_tests::person::{Ended, Person, named, texts};
use gureum_tests::wait::SOON;

use crate::backup::{backup, come_back, go_back};
use crate::damage::copy;
use crate::groups::{change, changes};

/// What `send` exits with where a person must decide.
const GONE_BACK: Option<i32> = Some(3);

#[track_caller]
fn refuses_at_once(ended: &Ended, with: &str) {
    assert_eq!(ended.code, GONE_BACK, "{}", ended.said);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    assert!(ended.events.is_empty(), "{:#?}", ended.events);
    for part in ["not sent", "not kept", "operator", &format!("gureum restart {with}")] {
        assert!(ended.said.contains(part), "{:?} does not say {part:?}", ended.said);
    }
}

/// Alice and Bob, whose conversation went on from epoch 1 to epoch 2 after a backup.
fn went_on() -> (World, Person, Person, PathBuf) {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "before");
    let to = world.directory("backup");
    let _ = backup(world.data_dir(), &to).ok();
    // Bob joins, and renews his keys.
    assert_eq!(bob.receive_texts(), ["before"]);
    bob.send(&alice, "after");
    assert_eq!(alice.receive_texts(), ["after"]);
    alice.send(&bob, "lost on the way");
    (world, alice, bob, to)
}

/// The same, with the server gone back to that backup; neither has heard of it yet.
fn gone_back() -> (World, Person, Person) {
    let (mut world, alice, bob, to) = went_on();
    go_back(&mut world, &to);
    (world, alice, bob)
}

#[test]
fn a_send_into_a_conversation_that_has_gone_back_says_so_at_once_and_is_not_kept() {
    let (world, alice, bob) = gone_back();
    refuses_at_once(&alice.run(&["send", "bob", "hello?"]), "bob");
    refuses_at_once(&alice.run(&["send", "bob", "hello??"]), "bob");

    let told = alice.receive();
    let [event] = named(&told, "gone_back")[..] else { panic!("{told:#?}") };
    assert_eq!((&event["with"], &event["epoch"], &event["epoch_seen"]), (&"bob".into(), &1.into(), &2.into()));
    assert!(named(&alice.receive(), "gone_back").is_empty(), "told once");

    // Also where another process takes the inbox, and where it is that one which notices first.
    let follower = bob.follow_from_now();
    refuses_at_once(&bob.run(&["send", "alice", "hello?"]), "alice");
    assert_eq!(named(&follower.interrupt(), "gone_back").len(), 1);

    // Others are not concerned.
    let carol = world.person("carol");
    alice.send(&carol, "to carol");
    assert_eq!(carol.receive_texts(), ["to carol"]);
    carol.send(&bob, "to bob");
    assert_eq!(bob.receive_texts(), ["to bob"]);
    let said: Vec<_> = alice.talk().into_iter().chain(bob.talk()).map(|(_, text)| text).collect();
    assert!(said.iter().all(|text| !text.starts_with("hello")), "{said:?}");
}

#[test]
fn a_chat_says_so_to_every_message_and_ends_with_an_error() {
    let (_world, alice, bob) = gone_back();
    let mut chat = alice.chat(&bob);
    chat.type_line("hello?");
    chat.end_input();
    assert_eq!(chat.wait(SOON).code(), Some(1));
    let said = chat.out.all().join("\n");
    assert!(said.contains("the server has gone back") && said.contains("not sent and is not kept"), "{said}");
}

#[test]
fn without_a_decision_nothing_is_rejoined() {
    let (_world, alice, bob) = gone_back();
    for _ in 0..2 {
        for (person, other) in [(&alice, &bob), (&bob, &alice)] {
            let told = person.receive();
            assert!(named(&told, "rejoined").is_empty() && named(&told, "restarted").is_empty(), "{told:#?}");
            refuses_at_once(&person.run(&["send", &other.name, "hello?"]), &other.name);
            assert_eq!(person.epoch(), 2);
        }
    }
}

#[test]
fn after_both_have_decided_they_talk_again_with_the_gap_told_and_nothing_doubled() {
    let (_world, alice, bob) = gone_back();
    let decided = alice.ok(&["restart", "bob"]);
    assert_eq!(named(&decided, "gap").len(), 1, "{decided:#?}");
    assert_eq!((named(&decided, "gone_back").len(), named(&decided, "restarted").len()), (1, 1), "{decided:#?}");
    assert_eq!(alice.epoch(), 2, "as high as Bob's, but another one");

    // Bob was away all the while: the numbers agree, and still he is told.
    refuses_at_once(&bob.run(&["send", "alice", "hello?"]), "alice");
    let decided = bob.ok(&["restart", "alice"]);
    assert_eq!((named(&decided, "gone_back").len(), named(&decided, "restarted").len()), (1, 1), "{decided:#?}");
    let lost = named(&decided, "gap");
    assert!(lost.len() == 1 && lost[0]["reason"] == "lost", "{decided:#?}");
    assert!(texts(&decided).is_empty(), "what he has is not shown again: {decided:#?}");

    for round in 0..2 {
        let (from_alice, from_bob) = (format!("{round} from alice"), format!("{round} from bob"));
        alice.send(&bob, &from_alice);
        assert_eq!(bob.receive_texts(), [from_alice]);
        bob.send(&alice, &from_bob);
        assert_eq!(alice.receive_texts(), [from_bob]);
    }
    assert_eq!(alice.epoch(), bob.epoch());
    let said = |person: &Person| -> Vec<String> { person.talk().into_iter().map(|(_, text)| text).collect() };
    let again = ["0 from alice", "0 from bob", "1 from alice", "1 from bob"];
    assert_eq!(said(&alice), [["before", "after", "lost on the way"].as_slice(), &again].concat());
    assert_eq!(said(&bob), [["before", "after"].as_slice(), &again].concat());
    for person in [&alice, &bob] {
        assert_eq!(named(&person.history(), "restarted").len(), 1, "the history has a mark");
        let told = person.receive();
        assert!(told.is_empty(), "nothing is left to be told: {told:#?}");
    }
    // Once more changes nothing.
    assert!(alice.ok(&["restart", "bob"]).is_empty());
}

#[tokio::test]
async fn what_is_sent_before_the_other_has_decided_is_told_to_be_unreadable() {
    let (_world, alice, bob) = gone_back();
    alice.ok(&["restart", "bob"]);
    alice.renew_keys().await;
    alice.renew_keys().await;
    alice.send(&bob, "too early");
    let told = bob.receive();
    assert_eq!((named(&told, "gone_back").len(), named(&told, "unreadable").len()), (1, 1), "{told:#?}");
    assert_eq!(bob.epoch(), 2, "though the server's epoch is higher now");
    bob.ok(&["restart", "alice"]);
    bob.send(&alice, "now");
    assert_eq!(alice.receive_texts(), ["now"]);
    alice.send(&bob, "in time");
    assert_eq!(bob.receive_texts(), ["in time"]);
}

#[test]
fn what_waited_in_the_outbox_goes_out_once_after_the_decision() {
    let (mut world, alice, bob, to) = went_on();
    world.kill();
    let mut chat = alice.chat(&bob);
    chat.type_line("kept");
    chat.wait_for("the message is kept", |line| line.contains("is kept").then_some(()));
    chat.kill();
    come_back(&mut world, &to);

    assert_eq!(named(&alice.receive(), "gone_back").len(), 1);
    bob.ok(&["restart", "alice"]);
    assert!(bob.receive_texts().is_empty(), "it waits");
    alice.ok(&["restart", "bob"]);
    assert!(alice.receive().is_empty(), "it goes out with the next command");
    assert_eq!(bob.receive_texts(), ["kept"]);
    assert!(alice.receive().is_empty() && bob.receive().is_empty(), "once");
}

#[test]
fn a_conversation_begun_after_the_backup_is_begun_anew_by_a_decision() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    let to = world.directory("backup");
    let _ = backup(world.data_dir(), &to).ok();
    alice.send(&bob, "before");
    assert_eq!(bob.receive_texts(), ["before"]);
    go_back(&mut world, &to);

    refuses_at_once(&alice.run(&["send", "bob", "hello?"]), "bob");
    refuses_at_once(&bob.run(&["send", "alice", "hello?"]), "alice");
    let decided = alice.ok(&["restart", "bob"]);
    assert_eq!(named(&decided, "restarted").len(), 1, "{decided:#?}");
    alice.send(&bob, "anew");
    assert_eq!(bob.receive_texts(), ["anew"], "who is invited anew has nothing to decide");
    bob.send(&alice, "found");
    assert_eq!(alice.receive_texts(), ["found"]);
    let both = [("alice", "before"), ("alice", "anew"), ("bob", "found")];
    let both: Vec<_> = both.map(|(from, text)| (from.to_owned(), text.to_owned())).into();
    assert_eq!((alice.talk(), bob.talk()), (both.clone(), both));
    for (person, other) in [(&alice, "bob"), (&bob, "alice")] {
        let _ = person.receive();
        assert!(person.ok(&["restart", other]).is_empty(), "nothing is left to be decided");
    }
}

#[test]
fn a_server_that_is_where_it_was_again_needs_no_decision() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "before");
    assert!(world.stop().success());
    let (older, newest) = (world.directory("older"), world.directory("newest"));
    copy(world.data_dir(), &older);
    world.restart();
    // Bob joins, and renews his keys.
    assert_eq!(bob.receive_texts(), ["before"]);
    bob.send(&alice, "after");
    assert_eq!(alice.receive_texts(), ["after"]);
    let epoch = alice.epoch();

    // Not by a restore: the directory is another one, and then again the one that it was.
    assert!(world.stop().success());
    std::fs::rename(world.data_dir(), &newest).unwrap();
    copy(&older, world.data_dir());
    world.restart();
    assert_eq!(named(&alice.receive(), "gone_back").len(), 1);
    refuses_at_once(&alice.run(&["send", "bob", "hello?"]), "bob");
    assert!(world.stop().success());
    std::fs::remove_dir_all(world.data_dir()).unwrap();
    std::fs::rename(&newest, world.data_dir()).unwrap();
    world.restart();
    assert!(alice.ok(&["restart", "bob"]).is_empty(), "there is nothing to decide");
    assert_eq!(alice.epoch(), epoch);
    alice.send(&bob, "as before");
    assert_eq!(bob.receive_texts(), ["as before"]);
}

#[test]
fn who_has_left_a_group_after_the_backup_says_so_again() {
    let mut world = World::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    alice.ok(&["group", "create", "club", "bob", "carol"]);
    let _ = (bob.receive(), carol.receive());
    // Whoever has said something has renewed its keys: the statement is about a leaf that the backup has.
    carol.ok(&["send", "club", "goodbye"]);
    let _ = (alice.receive(), bob.receive());
    let to = world.directory("backup");
    let _ = backup(world.data_dir(), &to).ok();
    carol.ok(&["group", "leave", "club"]);
    go_back(&mut world, &to);

    assert!(changes(&carol.receive()).is_empty(), "she has left");
    assert!(changes(&alice.receive()).contains(&change("left", &["carol"])));
    alice.ok(&["send", "club", "just us"]);
    assert_eq!(bob.receive_texts(), ["just us"]);
    let shown = carol.ok(&["group", "show", "club"]).remove(0);
    assert_eq!(shown["state"], "left");
    assert!(carol.receive_texts().is_empty());
}

#[test]
fn a_decision_needs_a_conversation_and_the_inbox() {
    let (world, alice, bob) = gone_back();
    let nobody = alice.run(&["restart", "nobody"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.said.contains("no conversation with nobody"), "{}", nobody.said);
    let follower = bob.follow_from_now();
    let taken = bob.run(&["restart", "alice"]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.said.contains("receiving"), "{}", taken.said);
    let _ = follower.interrupt();
    drop(world);
}
