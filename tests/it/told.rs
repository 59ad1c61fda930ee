//! What a person is told at a terminal: whom a number stands for, that there is nothing, and what to do where it goes wrong.

use std::fs::File;
use std::path::Path;

use gureum_tests::child::Running;
use gureum_tests::person::{Ended, Person, event, string};
use gureum_tests::wait::SOON;
use gureum_tests::{Options, World};

use crate::phone::{ALICES, BOBS, NOBODYS, Town};

/// What a command says to people, on both of its outputs.
#[track_caller]
fn said(person: &Person, args: &[&str]) -> String {
    let ended = Person::finish(&mut person.command_for_people(args));
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.said);
    let lines: Vec<_> = ended.events.iter().map(string).collect();
    lines.join("\n")
}

fn registering(flags: &[&'static str]) -> World {
    World::start_with(Options { flags: flags.to_vec(), ..Options::default() })
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn fails(ended: &Ended, expected: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(expected.iter().all(|what| ended.said.contains(what)), "{}", ended.said);
}

#[test]
fn after_too_many_wrong_pins_nobody_is_told_that_the_code_is_good() {
    let mut town = Town::start(&["--registration", "phone"]);
    let right = write(&town.world.directory("right"), "2468\n");
    let wrong = write(&town.world.directory("wrong"), "1357\n");
    let _alice = town.person("alice", ALICES, &["--pin-file", &right]);
    town.world.kill_and_restart();
    let second = town.world.stranger("alice2");
    let register = ["register", "--server", town.world.url(), "--phone", ALICES, "--handle", "alice2"];
    let code = town.next_code(ALICES);
    fails(&second.run(&register), &["--code"]);
    let code = code();
    let tries = |pin: &str| second.run(&[&register[..], &["--code", code.as_str(), "--pin-file", pin]].concat());
    for _ in 1..5 {
        fails(&tries(&wrong), &["which is still good", "the PIN is wrong"]);
    }
    for pin in [&wrong, &right] {
        let closed = tries(pin);
        fails(&closed, &["no PIN opens the lock before 20", "without --code"]);
        assert!(!closed.said.contains("still good"), "{}", closed.said);
    }
}

#[test]
fn who_writes_to_a_number_is_told_whose_it_is() {
    let town = Town::start(&["--registration", "phone"]);
    let _alice = town.person("alice", ALICES, &["--findable"]);
    let bob = town.person("bob", BOBS, &[]);
    let sent = bob.ok(&["send", "+82 10-2000-0001", "to a number"]).remove(0);
    assert_eq!((&sent["to"], &sent["handle"]), (&"+82 10-2000-0001".into(), &"alice".into()));
    let told = said(&bob, &["send", ALICES, "to it again"]);
    assert!(told.ends_with(&format!("sent to alice ({ALICES})")), "{told}");
    assert!(said(&bob, &["send", "alice", "by name"]).ends_with("sent to alice"));
}

#[test]
fn another_number_is_found_by_others_as_the_one_before() {
    let town = Town::start(&["--registration", "phone"]);
    let alice = town.person("alice", ALICES, &["--findable"]);
    let bob = town.person("bob", BOBS, &[]);
    let code = town.next_code(NOBODYS);
    fails(&alice.run(&["phone", "set", NOBODYS]), &["--code"]);
    let own = alice.ok(&["phone", "set", NOBODYS, "--code", &code()]);
    let own = own.last().expect("it shows the number");
    assert_eq!((&own["phone"], &own["findable"]), (&NOBODYS.into(), &true.into()));
    bob.ok(&["send", NOBODYS, "there you are"]);
    assert_eq!(alice.receive_texts(), ["there you are"]);
}

#[test]
fn an_account_that_was_deleted_shows_no_number() {
    let town = Town::start(&["--registration", "phone"]);
    let alice = town.person("alice", ALICES, &[]);
    assert_eq!(alice.ok(&["phone"])[0]["phone"], ALICES);
    alice.ok(&["account", "delete", "--yes", "alice"]);
    assert!(alice.ok(&["phone"])[0]["phone"].is_null());
}

#[test]
fn where_there_is_nothing_to_list_people_are_told_so_and_programs_get_nothing() {
    let world = World::start();
    let alice = world.person("alice");
    for (args, expected) in [
        (&["requests"][..], "no requests"),
        (&["requests", "blocked"][..], "nobody is blocked"),
        (&["mute"][..], "nothing is muted"),
    ] {
        let told = said(&alice, args);
        assert!(told.starts_with(expected), "{args:?}: {told}");
        assert!(alice.ok(args).is_empty(), "{args:?}");
    }
}

#[test]
fn the_address_alone_is_enough_where_anybody_may_register_and_elsewhere_the_server_says_what_it_wants() {
    let open = registering(&["--registration", "open"]);
    let alice = open.stranger("alice");
    alice.ok(&["register", "--server", open.url(), "--handle", "alice"]);
    assert_eq!(string(&alice.ok(&["whoami"])[0]["handle"]), "alice");

    let by_invite = World::start();
    let bob = by_invite.stranger("bob");
    let uninvited = bob.run(&["register", "--server", by_invite.url(), "--handle", "bob"]);
    fails(&uninvited, &["ask its operator for an invite"]);

    let town = Town::start(&["--registration", "phone"]);
    let carol = town.world.stranger("carol");
    let without = carol.run(&["register", "--server", town.world.url(), "--handle", "carol"]);
    fails(&without, &["give your number with --phone"]);
}

#[test]
fn a_chat_waits_for_a_command_of_its_home_that_is_about_to_end_and_for_no_other() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let lock = File::options().create(true).truncate(false).write(true).open(alice.file("receiver.lock")).unwrap();
    lock.lock().unwrap();
    let mut chat = alice.chat(&bob);
    let waits = chat.err.find(SOON, |line| line.contains("waiting for it").then_some(()));
    assert!(waits.is_some(), "{:?}", chat.err.all());
    drop(lock);
    chat.type_line("hello");
    event(&mut chat, "sent");
    chat.end_input();
    assert!(chat.wait(SOON).success(), "{:?}", chat.err.all());
    assert_eq!(bob.receive_texts(), ["hello"]);

    let follower = alice.follow_from_now();
    fails(&alice.run(&["chat", "bob"]), &["another gureum is receiving"]);
    drop(follower.interrupt());
}

#[test]
fn a_chat_tells_programs_of_each_line_that_the_server_has() {
    let town = Town::start(&["--registration", "phone"]);
    let alice = town.person("alice", ALICES, &["--findable"]);
    let bob = town.person("bob", BOBS, &[]);
    let mut chat = Running::start(&mut bob.command(&["chat", ALICES]));
    chat.type_line("typed");
    let sent = event(&mut chat, "sent");
    assert_eq!((&sent["to"], &sent["handle"]), (&ALICES.into(), &"alice".into()));
    chat.end_input();
    assert!(chat.wait(SOON).success(), "{:?}", chat.err.all());
    let came = alice.receive().into_iter().find(|event| event["event"] == "message").expect("it has come");
    for field in ["message_id", "server_time_ms", "conversation"] {
        assert_eq!(came[field], sent[field], "{field}");
    }
}
