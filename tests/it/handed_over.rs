//! What was said before is handed over to a new device, by the real programs: asked for or not, and whoever is killed.

use gureum_tests::World;
use gureum_tests::child::Running;
use gureum_tests::person::{Person, event, string, texts};
use gureum_tests::wait::{SOON, eventually};
use serde_json::Value;

/// Two people who have talked.
fn with_a_past() -> (World, Person, Person) {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "one");
    assert_eq!(bob.receive_texts(), ["one"]);
    bob.send(&alice, "two");
    assert_eq!(alice.receive_texts(), ["two"]);
    (world, alice, bob)
}

/// Waits until a history is whole.
#[track_caller]
fn whole(running: &mut Running) -> Value {
    running.wait_for("the end of the history", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["event"] == "history" && event["done"] == true).then_some(event)
    })
}

#[test]
fn a_device_that_asks_for_it_has_what_was_said_before_when_it_is_linked() {
    let (world, alice, bob) = with_a_past();
    let tablet = Person::new("alice", world.directory("tablet"));
    let asking = ["link", world.url(), "--device-name", "tablet", "--history"];
    let mut linking = Running::start(&mut tablet.command(&asking));
    let code = string(&event(&mut linking, "link_code")["code"]);
    let mut approving = Running::start(&mut alice.command(&["devices", "approve", &code]));
    assert_eq!(event(&mut approving, "link_check")["history"], true);
    let (came, went) = (whole(&mut linking), whole(&mut approving));
    assert_eq!((&came["messages"], &came["of"], &went["to"]), (&2.into(), &2.into(), &"tablet".into()));
    assert_eq!((&went["messages"], &went["of"]), (&2.into(), &2.into()));
    assert!(linking.wait(SOON).success() && approving.wait(SOON).success());
    assert_eq!(tablet.talk(), alice.talk());
    let news = tablet.receive();
    assert!(texts(&news).is_empty() && news.iter().all(|event| event["event"] != "history"), "{news:#?}");
    bob.send(&alice, "three");
    assert_eq!(tablet.receive_texts(), ["three"]);
    assert_eq!(alice.receive_texts(), ["three"]);
    assert_eq!(tablet.talk(), alice.talk());
}

#[test]
fn without_being_asked_for_nothing_is_handed_over() {
    let (world, alice, _bob) = with_a_past();
    let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
    let _ = (alice.receive(), tablet.receive(), alice.receive());
    assert!(tablet.talk().is_empty(), "{:?}", tablet.talk());
}

#[test]
fn it_goes_on_when_who_hands_it_over_and_who_takes_it_are_killed() {
    let (world, alice, bob) = with_a_past();
    // More than may be on its way at once: without a word from the tablet it does not get to its end.
    for index in 0..18 {
        alice.send(&bob, &format!("{index} {}", "x".repeat(40 * 1024)));
    }
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut linking, code) = tablet.show_code(world.url(), "tablet");
    let mut approving = Running::start(&mut alice.command(&["devices", "approve", &code, "--history"]));
    event(&mut approving, "device");
    event(&mut linking, "linked");
    approving.kill();
    assert!(linking.wait(SOON).success());
    let at_desk = alice.follow_from_now();
    let at_tablet = tablet.follow_from_now();
    let _ = (at_tablet.kill(), at_desk.kill());
    let (_desk, _tablet) = (alice.follow(), tablet.follow());
    eventually("the tablet has all that was said", SOON, || (tablet.talk() == alice.talk()).then_some(()));
}
