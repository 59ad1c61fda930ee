//! Wake-ups that arrive in a terminal, and what people do about them: no vendor, two programs, and a real receiver.

use gureum_tests::outside::Outside;
use gureum_tests::person::{Person, PushListener, string, texts};
use gureum_tests::wait::{SOON, eventually};
use gureum_tests::{Options, World};
use serde_json::Value;

use crate::link::recover;
use crate::push::{QUICK, counted};

/// A server that may knock at this machine.
fn world() -> World {
    let flags = [&["--push-private-endpoints", "allow"][..], &QUICK].concat();
    World::start_with(Options { flags, ..Options::default() })
}

/// Two people who have written to each other, so that neither is a stranger.
fn acquainted(world: &World, name: &str, other: &Person) -> Person {
    let person = world.person(name);
    person.send(other, "hello");
    let _ = other.receive();
    other.send(&person, "hello");
    let _ = person.receive();
    // Taken and told: whatever wakes somebody from now on has come later.
    let _ = other.receive();
    person
}

fn targets(world: &World, expected: u64) {
    eventually("targets", SOON, || (world.admin().count("gureum_push_targets") == expected).then_some(()));
}

/// Whatever was owed before somebody else is woken is done.
fn settle(world: &World, alice: &Person, canary: &Person, at_canary: &PushListener, wakes: usize) {
    alice.send(canary, "wake up");
    assert_eq!(at_canary.wait_for_wakes(wakes), vec!["messages"; wakes]);
    let _ = canary.receive();
    eventually("no request is under way", SOON, || (counted(world, "gureum_push_in_flight", &[]) == 0).then_some(()));
}

#[test]
fn a_wake_up_arrives_in_a_terminal_and_says_nothing_but_that() {
    let world = world();
    let alice = world.person("alice");
    let bob = acquainted(&world, "bob", &alice);
    let listener = bob.push_listen();
    assert!(listener.endpoint.starts_with("http://127.0.0.1:"), "{}", listener.endpoint);
    targets(&world, 1);
    alice.send(&bob, "a secret for bob");
    assert_eq!(listener.wait_for_wakes(1), ["messages"]);
    let said = listener.running.out.all().join("\n");
    for told in ["secret", "alice"] {
        assert!(!said.contains(told), "{said}");
    }
    // It runs beside the one that takes the inbox.
    assert_eq!(bob.receive_texts(), ["a secret for bob"]);
    alice.send(&bob, "another");
    assert_eq!(listener.wait_for_wakes(2), ["messages", "messages"]);
    assert_eq!(listener.interrupt().len(), 2);
    targets(&world, 0);
}

#[test]
fn a_second_listener_of_a_home_is_refused_and_the_first_one_is_woken_on() {
    let world = world();
    let alice = world.person("alice");
    let bob = acquainted(&world, "bob", &alice);
    let listener = bob.push_listen();
    let second = bob.run(&["push", "listen", "--once"]);
    let who = format!("process {} listens", listener.running.id());
    assert!(second.code == Some(1) && second.said.contains(&who), "{second:?}");
    alice.send(&bob, "for the first");
    assert_eq!(listener.wait_for_wakes(1), ["messages"]);
    let _ = listener.interrupt();
    let next = bob.push_listen();
    targets(&world, 1);
    let _ = next.interrupt();
}

#[test]
fn a_device_shows_where_it_is_woken_and_clears_it() {
    let world = world();
    let bob = world.person("bob");
    let shown = |person: &Person| person.ok(&["push", "show"]).remove(0);
    let before = shown(&bob);
    assert_eq!((&before["service"], &before["offered"]), (&Value::Null, &Value::from(vec!["web_push"])));
    let refused = bob.run(&["push", "set", "fcm", "APA91b-a-token"]);
    assert_eq!(refused.code, Some(1), "the server does not use that service: {refused:?}");
    bob.ok(&["push", "clear"]);

    let p256dh = "BLn9b-VR0ca83knDNZ32dCHGyjJp-1riX9ZTN40MqV8K_LpQmLqxC_DoHvqvFXO_nGdAB4W9dogZb_sM-uV4JbY";
    let auth = "_ordMnz7uTCmrpBTeUV4Bw";
    bob.ok(&["push", "set", "web", "https://127.0.0.1:9/a", "--p256dh", p256dh, "--auth", auth, "--silent"]);
    let set = shown(&bob);
    assert_eq!((&set["service"], &set["visible"], &set["known"]), (&"web_push".into(), &false.into(), &true.into()));
    assert!(!set.to_string().contains(auth), "what could wake the device is not shown");
    targets(&world, 1);
    bob.ok(&["push", "clear"]);
    targets(&world, 0);
    assert_eq!(shown(&bob)["service"], Value::Null);
}

#[test]
fn what_is_set_in_a_terminal_is_where_the_device_is_woken() {
    let outside = Outside::start();
    let options = Options { flags: QUICK.to_vec(), settings: outside.push_settings(), ..Options::default() };
    let world = World::start_with(options);
    let alice = world.person("alice");
    let bob = acquainted(&world, "bob", &alice);
    bob.ok(&["push", "set", "fcm", "APA91b:token_of-bob"]);
    alice.send(&bob, "by Google");
    let message = eventually("FCM", SOON, || outside.fcm.messages().pop()).json();
    assert_eq!(message["message"]["token"], "APA91b:token_of-bob");
    assert_eq!(message["message"]["android"]["priority"], "HIGH");
    assert_eq!(bob.receive_texts(), ["by Google"]);

    let token = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    bob.ok(&["push", "set", "apns", token, "--sandbox", "--silent"]);
    alice.send(&bob, "by Apple");
    let seen = outside.apns.service.wait_for(1).remove(0);
    assert_eq!(
        (seen.path, seen.headers["apns-push-type"].as_bytes()),
        (format!("/3/device/{token}"), &b"background"[..])
    );
    assert_eq!(outside.fcm.messages().len(), 1, "a device has one target");
}

#[test]
fn receipts_wake_nobody() {
    let world = world();
    let (alice, carol) = (world.person("alice"), world.person("carol"));
    let bob = acquainted(&world, "bob", &alice);
    carol.send(&bob, "hello");
    let _ = bob.receive();
    let (at_alice, at_carol) = (alice.push_listen(), carol.push_listen());
    targets(&world, 2);
    alice.send(&bob, "received and read");
    let _ = bob.receive();
    bob.ok(&["read", "alice"]);
    settle(&world, &bob, &carol, &at_carol, 1);
    assert_eq!(at_alice.wakes(), Vec::<String>::new());
    assert!(!alice.receive_receipts().is_empty(), "they had come");
}

#[test]
fn a_stranger_is_a_request_until_accepted_and_a_block_is_silence() {
    let world = world();
    let (alice, bob, carol) = (world.person("alice"), world.person("bob"), world.person("carol"));
    carol.send(&alice, "hello");
    let _ = alice.receive();
    let (at_bob, at_carol) = (bob.push_listen(), carol.push_listen());
    targets(&world, 2);
    alice.send(&bob, "you do not know me");
    settle(&world, &alice, &carol, &at_carol, 1);
    assert_eq!(at_bob.wakes(), Vec::<String>::new(), "a request");
    let came = bob.receive();
    let message = came.iter().find(|event| event["event"] == "message").expect("it is delivered as ever");
    assert_eq!((&message["text"], &message["request"]), (&"you do not know me".into(), &Value::Bool(true)));
    let requests = bob.ok(&["requests"]);
    assert_eq!(requests.iter().map(|event| string(&event["with"])).collect::<Vec<_>>(), ["alice"]);

    bob.ok(&["requests", "accept", "alice"]);
    assert!(bob.ok(&["requests"]).is_empty());
    alice.send(&bob, "now you do");
    assert_eq!(at_bob.wait_for_wakes(1), ["messages"]);
    let came = bob.receive();
    assert!(came.iter().all(|event| event["request"] == Value::Null), "{came:#?}");

    bob.ok(&["block", "alice"]);
    let sent = alice.send(&bob, "do you hear me?");
    settle(&world, &alice, &carol, &at_carol, 2);
    assert_eq!(at_bob.wakes(), ["messages"], "nothing of whom one has blocked");
    assert_eq!(bob.receive_texts(), Vec::<String>::new());
    assert!(alice.receive_receipts().iter().all(|(_, id)| *id != string(&sent["message_id"])), "and they are not told");

    bob.ok(&["unblock", "alice"]);
    bob.ok(&["requests", "accept", "alice"]);
    alice.send(&bob, "and now?");
    assert_eq!(at_bob.wait_for_wakes(2), ["messages", "messages"]);
}

#[test]
fn who_writes_first_has_accepted_and_a_mute_holds_until_it_is_taken_away() {
    let world = world();
    let alice = world.person("alice");
    let bob = acquainted(&world, "bob", &alice);
    let carol = acquainted(&world, "carol", &alice);
    let (at_bob, at_carol) = (bob.push_listen(), carol.push_listen());
    targets(&world, 2);
    bob.ok(&["mute", "alice"]);
    alice.send(&bob, "unheard");
    settle(&world, &alice, &carol, &at_carol, 1);
    assert_eq!(at_bob.wakes(), Vec::<String>::new());
    assert_eq!(bob.receive_texts(), ["unheard"], "it is shown as ever");
    bob.ok(&["unmute", "alice"]);
    alice.send(&bob, "heard");
    assert_eq!(at_bob.wait_for_wakes(1), ["messages"]);
}

#[test]
fn an_account_that_comes_back_has_accepted_what_it_had_and_muting_takes_nothing_of_that_back() {
    let world = world();
    let (alice, bob) = (world.person("alice"), world.stranger("bob"));
    let registered = bob.ok(&["register", &world.invite(1), "--handle", "bob"]);
    let carol = acquainted(&world, "carol", &alice);
    alice.ok(&["group", "create", "Book club", "bob"]);
    let _ = bob.receive();
    assert_eq!(bob.ok(&["requests"]).len(), 1, "whoever has made the group is nobody to bob");
    bob.ok(&["requests", "accept", "Book club"]);
    std::fs::remove_dir_all(&bob.home).unwrap();

    let new = Person::new("bob", world.directory("new"));
    let recovered = recover(&new, world.url(), &string(&registered[0]["recovery_words"]));
    assert_eq!(recovered.code, Some(0), "{}", recovered.said);
    assert!(new.ok(&["requests"]).is_empty());
    let (at_new, at_carol) = (new.push_listen(), carol.push_listen());
    targets(&world, 2);
    alice.ok(&["send", "Book club", "after the loss"]);
    assert_eq!(at_new.wait_for_wakes(1), ["messages"]);
    let came = new.receive();
    assert_eq!(texts(&came), ["after the loss"]);
    assert!(came.iter().all(|event| event["request"] == Value::Null), "{came:#?}");

    new.ok(&["mute", "Book club"]);
    alice.ok(&["send", "Book club", "unheard"]);
    settle(&world, &alice, &carol, &at_carol, 1);
    assert_eq!(at_new.wakes(), ["messages"]);
    assert_eq!(new.receive_texts(), ["unheard"]);
    new.ok(&["unmute", "Book club"]);
    assert!(new.ok(&["requests"]).is_empty());
    alice.ok(&["send", "Book club", "heard"]);
    assert_eq!(at_new.wait_for_wakes(2), ["messages", "messages"]);
}

#[test]
fn a_decision_made_while_the_server_was_away_reaches_it() {
    let mut world = world();
    let alice = world.person("alice");
    let bob = acquainted(&world, "bob", &alice);
    let carol = acquainted(&world, "carol", &alice);
    world.kill();
    bob.ok(&["mute", "alice"]);
    world.restart();
    let _ = bob.receive();
    let (at_bob, at_carol) = (bob.push_listen(), carol.push_listen());
    targets(&world, 2);
    alice.send(&bob, "unheard");
    settle(&world, &alice, &carol, &at_carol, 1);
    assert_eq!(at_bob.wakes(), Vec::<String>::new());
}

#[test]
fn a_target_that_the_server_has_lost_is_set_again_when_the_device_connects() {
    let mut world = world();
    let alice = world.person("alice");
    let bob = acquainted(&world, "bob", &alice);
    let listener = bob.push_listen();
    targets(&world, 1);
    // As after a restore of a backup that had no secret: what is sealed under it does not open any more.
    world.kill();
    std::fs::remove_file(world.data_dir().join("keys/push.secret")).unwrap();
    world.restart();
    alice.send(&bob, "lost on the way");
    eventually("the target is dropped", SOON, || {
        (counted(&world, "gureum_push_dropped_total", &["web_push"]) == 1).then_some(())
    });
    assert_eq!(bob.receive_texts(), ["lost on the way"]);
    targets(&world, 1);
    alice.send(&bob, "heard again");
    assert_eq!(listener.wait_for_wakes(1), ["messages"]);
}
