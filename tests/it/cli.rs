//! The command line as other programs see it: objects, exit codes, and nothing half done.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use gureum_tests::World;
use gureum_tests::child::{Running, binary};
use gureum_tests::person::{Person, event, number, string, texts};
use gureum_tests::wait::SOON;
use serde_json::Value;

use crate::link::recover;

#[track_caller]
fn keys(event: &Value) -> Vec<&str> {
    event.as_object().unwrap().keys().map(String::as_str).collect()
}

#[track_caller]
fn check_keys(event: &Value, expected: &[&str]) {
    let (mut found, mut expected) = (keys(event), expected.to_vec());
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{event}");
}

#[track_caller]
fn is_id(value: &Value) {
    let text = string(value);
    assert!(text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()), "{text}");
}

#[test]
fn every_event_has_exactly_the_fields_that_programs_are_written_against() {
    let world = World::start();
    let (alice, bob) = (world.stranger("alice"), world.person("bob"));
    let registered = alice.ok(&["register", &world.invite(1), "--handle", "alice", "--device-name", "desk"]);
    check_keys(&registered[0], &["event", "handle", "account", "device", "recovery_words"]);
    assert_eq!((registered.len(), &registered[0]["event"]), (1, &Value::from("registered")));
    assert_eq!(registered[0]["handle"], "alice");
    is_id(&registered[0]["account"]);
    is_id(&registered[0]["device"]);
    assert_eq!(string(&registered[0]["recovery_words"]).split(' ').count(), 12);

    let sent = alice.send(&bob, "grüße \"aus\" 구름\n");
    check_keys(&sent, &["event", "to", "conversation", "message_id", "server_time_ms", "durability"]);
    assert_eq!((&sent["event"], &sent["to"], &sent["durability"]), (&"sent".into(), &"bob".into(), &"fsync".into()));
    is_id(&sent["message_id"]);

    let came = bob.receive();
    assert_eq!(came.len(), 1, "{came:#?}");
    let fields = ["event", "conversation", "group", "from", "own", "text", "message_id", "server_time_ms", "seq"];
    check_keys(&came[0], &[&fields[..], &["request"]].concat());
    assert_eq!(came[0]["request"], true, "bob has not written to alice");
    assert_eq!((&came[0]["event"], &came[0]["from"]), (&"message".into(), &"alice".into()));
    assert_eq!(came[0]["text"], "grüße \"aus\" 구름\n");
    for field in ["conversation", "message_id", "server_time_ms"] {
        assert_eq!(came[0][field], sent[field]);
    }
    assert!(number(&came[0]["seq"]) >= 1);

    assert_eq!(bob.history(), came, "the history prints the same");
    let own = alice.history();
    check_keys(&own[0], &[&fields[..], &["delivered_to", "read_by"]].concat());
    let receipt = &alice.ok(&["receive"])[0];
    check_keys(receipt, &["event", "kind", "message_id", "conversation", "by", "time_ms"]);
    assert_eq!((&receipt["kind"], &receipt["by"]), (&"delivered".into(), &"bob".into()));
    assert_eq!((&receipt["message_id"], &receipt["conversation"]), (&sent["message_id"], &sent["conversation"]));
    let read = &bob.ok(&["read", "alice"])[0];
    check_keys(read, &["event", "with", "conversation", "number"]);
    assert_eq!((&read["event"], &read["with"], &read["number"]), (&"read".into(), &"alice".into(), &1.into()));
    let settings = &bob.ok(&["settings"])[0];
    check_keys(settings, &["event", "receipts", "typing"]);
    assert_eq!((&settings["receipts"], &settings["typing"]), (&true.into(), &true.into()));
    assert_eq!((&own[0]["from"], &own[0]["message_id"]), (&"alice".into(), &sent["message_id"]));
    assert_eq!(alice.ok(&["whoami"])[0]["handle"], "alice");
}

#[test]
fn so_have_the_events_of_devices_and_groups() {
    let world = World::start();
    let (alice, bob) = (world.stranger("alice"), world.person("bob"));
    let registered = alice.ok(&["register", &world.invite(1), "--handle", "alice"]);
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, code) = tablet.show_code(world.url(), "tablet");
    let approved = alice.ok(&["devices", "approve", &code]);
    check_keys(&event(&mut running, "link_code"), &["event", "code"]);
    check_keys(&event(&mut running, "link_check"), &["event", "digits", "handle"]);
    check_keys(&approved[0], &["event", "digits", "device_name"]);
    check_keys(&approved[1], &["event", "change", "account", "handle", "device", "name"]);
    let device = ["event", "account", "device", "handle", "device_name"];
    check_keys(&event(&mut running, "linked"), &device);
    assert!(running.wait(SOON).success(), "{:?}", running.err.all());

    let changed = ["event", "change", "conversation", "name", "by", "who"];
    check_keys(&alice.ok(&["group", "create", "club", "bob"])[0], &changed);
    let joined = bob.receive().into_iter().find(|event| event["event"] == "group").expect("he is told");
    check_keys(&joined, &changed);
    let listed = ["event", "conversation", "name", "state", "members", "admin"];
    check_keys(&alice.ok(&["group", "list"])[0], &listed);
    let shown = alice.ok(&["group", "show", "club"]).remove(0);
    check_keys(&shown, &[&listed[..], &["people"]].concat());
    check_keys(&shown["people"][0], &["handle", "account", "role", "devices"]);

    let new = Person::new("alice", world.directory("new"));
    let recovered = recover(&new, world.url(), &string(&registered[0]["recovery_words"]));
    check_keys(&recovered.events[0], &device);
    assert_eq!(recovered.events[0]["event"], "recovered");
}

#[test]
fn the_ready_line_and_an_invite_are_as_promised() {
    let world = World::start();
    let url: gureum_proto::ServerUrl = world.url().parse().unwrap();
    assert_eq!((url.port, url.token.is_none(), url.pin.is_some()), (world.listen().port(), true, true));
    let invite: gureum_proto::ServerUrl = world.invite(1).parse().unwrap();
    assert_eq!((invite.port, invite.pin, invite.token.is_some()), (url.port, url.pin, true));
}

#[test]
fn both_sides_see_the_same_safety_number() {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "compare");
    assert_eq!(bob.receive_texts(), ["compare"]);
    let (ours, theirs) = (alice.ok(&["safety-number", "bob"]), bob.ok(&["safety-number", "alice"]));
    assert_eq!(ours[0]["number"], theirs[0]["number"]);
    assert_eq!(string(&ours[0]["number"]).bytes().filter(u8::is_ascii_digit).count(), 60);
}

#[test]
fn wrong_usage_exits_with_2_and_does_nothing() {
    let world = World::start();
    let alice = world.person("alice");
    for args in [
        &["send", "bob"][..],
        &["send", "", "text"],
        &["safety-number", "Not A Handle"],
        &["group", "create", "club", "Not A Handle"],
        &["group", "add", "club"],
        &["unknown"],
        &["receive", "--sideways"],
        &["history", "--limit", "many"],
        &["settings", "receipts", "perhaps"],
        &["register", "http://example.org", "--handle", "bob"],
        &[],
    ] {
        let ended = alice.run(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.said);
        assert!(!ended.said.is_empty() && ended.events.is_empty(), "{args:?}");
    }
    let mut server = Running::start(Command::new(binary("gureumd")).arg("serve").arg("--retention"));
    assert_eq!(server.wait(SOON).code(), Some(2));
}

#[track_caller]
fn check_refused(ended: &gureum_tests::person::Ended, says: &str) {
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains(says), "{:?} does not say {says:?}", ended.said);
    assert!(ended.events.is_empty(), "{:#?}", ended.events);
}

#[test]
fn refusals_say_what_to_do_and_leave_nothing_behind() {
    let world = World::start();
    let (alice, bob) = (world.person("alice"), world.stranger("bob"));
    check_refused(&alice.run(&["send", "nobody", "hello"]), "nobody");
    assert!(alice.history().is_empty());
    check_refused(&alice.run(&["send", "alice", "to myself"]), "");
    check_refused(&alice.run(&["history", "bob"]), "bob");
    check_refused(&alice.run(&["read", "bob"]), "bob");
    check_refused(&alice.run(&["register", &world.invite(1), "--handle", "again"]), "already");
    check_refused(&bob.run(&["receive"]), "register");

    let used = world.invite(1);
    let _ = world.person_with("carol", &used);
    check_refused(&bob.run(&["register", &used, "--handle", "bob"]), "invite");
    check_refused(&bob.run(&["register", world.url(), "--handle", "bob"]), "invite");
    check_refused(&bob.run(&["register", &world.invite(1), "--handle", "alice"]), "taken");
    // A home in which a registration was refused can be used for the next.
    bob.ok(&["register", &world.invite(1), "--handle", "bob"]);
    alice.send(&bob, "hello");
    assert_eq!(bob.receive_texts(), ["hello"]);
}

#[test]
fn a_server_that_cannot_be_reached_leaves_nothing_half_done() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "first");
    assert_eq!(bob.receive_texts(), ["first"]);
    // A port that nobody listens on.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let carol = world.stranger("carol");
    let invite = world.invite_via(nobody);
    check_refused(&carol.run(&["register", &invite, "--handle", "carol"]), "cannot reach");
    assert!(!carol.home.exists(), "no home without an account");

    world.kill();
    check_refused(&alice.run(&["send", "bob", "lost?"]), "cannot reach");
    check_refused(&alice.run(&["receive"]), "cannot reach");
    world.restart();
    assert!(bob.receive().is_empty() && alice.receive().is_empty());
    assert_eq!(texts(&alice.history()), ["first"], "what was not sent is not in the history");
    alice.send(&bob, "lost?");
    assert_eq!(bob.receive_texts(), ["lost?"], "the retry does not double it");
}

#[test]
fn a_pin_that_is_not_the_servers_is_refused() {
    let world = World::start();
    let mut url: gureum_proto::ServerUrl = world.invite(1).parse().unwrap();
    url.pin = Some([1; 32]);
    let alice = world.stranger("alice");
    check_refused(&alice.run(&["register", &url.to_string(), "--handle", "alice"]), "key");
    assert!(!alice.home.exists());
}

#[test]
fn two_processes_share_a_home() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let mut at_alice = alice.follow_from_now();
    let mut at_bob = bob.follow_from_now();
    for round in 0..5 {
        let (from_alice, from_bob) = (format!("{round} from alice"), format!("{round} from bob"));
        alice.send(&bob, &from_alice);
        at_bob.wait_for_text(&from_alice);
        bob.send(&alice, &from_bob);
        at_alice.wait_for_text(&from_bob);
    }
    // Only one takes the inbox at a time.
    check_refused(&alice.run(&["receive"]), "receiving");
    assert_eq!(texts(&at_alice.interrupt()).len(), 5);
    assert_eq!(texts(&at_bob.interrupt()).len(), 5);
    assert_eq!(alice.talk(), bob.talk());
    assert_eq!(alice.talk().len(), 10);
}

#[test]
fn sends_at_the_same_time_from_one_home_all_arrive_once() {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "first");
    assert_eq!(bob.receive_texts(), ["first"]);
    let mut sends: Vec<_> =
        (0..6).map(|index| Running::start(&mut alice.command(&["send", "bob", &format!("at once {index}")]))).collect();
    for send in &mut sends {
        assert!(send.wait(SOON).success(), "{:?}", send.err.all());
    }
    let mut came = bob.receive_texts();
    came.sort();
    assert_eq!(came, (0..6).map(|index| format!("at once {index}")).collect::<Vec<_>>());
    assert_eq!(texts(&alice.history()).len(), 7);
}

#[test]
fn a_message_can_come_from_standard_input_and_the_home_from_the_environment() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let mut command = Command::new(binary("gureum"));
    command.env("GUREUM_HOME", &alice.home).args(["send", "bob", "-"]);
    let mut send = Running::start(&mut command);
    send.type_line("two");
    send.type_line("lines");
    send.end_input();
    assert!(send.wait(SOON).success(), "{:?}", send.err.all());
    assert_eq!(bob.receive_texts(), ["two\nlines"]);
    check_refused(&alice.run(&["send", "bob", ""]), "empty");
    check_refused(&alice.run(&["send", "bob", &"x".repeat(100_000)]), "bytes");
}

#[test]
fn history_shows_the_newest_of_one_talk_oldest_first() {
    let world = World::start();
    let (alice, bob) = world.pair();
    for index in 0..5 {
        alice.send(&bob, &index.to_string());
    }
    assert_eq!(texts(&alice.ok(&["history", "bob", "--limit", "2"])), ["3", "4"]);
    assert_eq!(texts(&alice.ok(&["history", "--limit", "1"])), ["4"]);
}

#[test]
fn a_home_with_a_passphrase_opens_with_it_alone() {
    let world = World::start();
    let alice = world.stranger("alice");
    let with =
        |passphrase: &str, args: &[&str]| Person::finish(alice.command(args).env("GUREUM_PASSPHRASE", passphrase));
    let invite = world.invite(1);
    assert_eq!(with("correct horse", &["register", &invite, "--handle", "alice"]).code, Some(0));
    assert_eq!(with("correct horse", &["whoami"]).code, Some(0));
    check_refused(&with("battery staple", &["whoami"]), "passphrase");
    check_refused(&alice.run(&["whoami"]), "passphrase");
    assert!(!alice.file("key").exists());
}

#[test]
fn a_command_over_loopback_ends_soon() {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "first");
    assert_eq!(bob.receive_texts(), ["first"]);
    for (person, args) in [
        (&alice, &["send", "bob", "hello"][..]),
        (&bob, &["receive"]),
        (&bob, &["receive"]),
        (&alice, &["history"]),
        (&alice, &["whoami"]),
    ] {
        let ended = person.run(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.said);
        println!("{args:?}: {:?}", ended.took);
        assert!(ended.took < Duration::from_secs(5), "{args:?}: {:?}", ended.took);
    }
}

#[test]
fn text_for_people_says_who_and_what() {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "hello \u{1b}[2J");
    let mut command = Command::new(binary("gureum"));
    command.arg("--home").arg(&bob.home).arg("receive");
    let mut receive = Running::start(&mut command);
    assert!(receive.wait(SOON).success());
    let said = receive.out.all().join("\n");
    assert!(said.contains("alice") && said.contains("hello"), "{said}");
    assert!(!said.contains('\u{1b}'), "a text cannot steer the terminal");
}
