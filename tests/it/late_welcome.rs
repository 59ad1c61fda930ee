//! Who was away until even the Welcome had expired comes into the conversation without one, is told what is gone, and
//! talks on.

use gureum_tests::person::{Follower, Person, event, number};
use gureum_tests::wait::{SOON, eventually, until_ms};
use gureum_tests::{Options, World};
use serde_json::Value;

/// A server on which commits and Welcomes go soon.
fn forgetful() -> World {
    World::start_with(Options { retention: Some("2s"), commit_retention: Some("3s"), ..Options::default() })
}

/// Waits until what was sent then has expired, and so have the Welcomes of before it. What drops them comes by every
/// second here.
fn until_all_is_gone(sent: &Value) {
    until_ms(number(&sent["server_time_ms"]) + 6_000);
}

/// Comes back, and is told of the one message that is gone.
#[track_caller]
fn comes_late(person: &Person) -> Follower {
    let mut follower = person.follow_from_now();
    let gap = event(&mut follower.running, "gap");
    assert_eq!((&gap["count"], &gap["reason"]), (&1.into(), &"expired".into()));
    let strange = |event: &&Value| event["event"] == "unreadable" || event["event"] == "commit_refused";
    assert_eq!(follower.events().iter().filter(strange).count(), 0, "{:#?}", follower.events());
    follower
}

/// Waits until all have heard that somebody has joined: what is encrypted without that, the newcomer cannot read.
#[track_caller]
fn until_all_are_in_step(people: &[&Person]) {
    eventually("all are in one epoch", SOON, || {
        let epochs: Vec<_> = people.iter().map(|person| person.epoch()).collect();
        epochs.iter().all(|epoch| *epoch > 1 && *epoch == epochs[0]).then_some(())
    });
}

#[test]
fn who_comes_after_the_welcome_has_expired_joins_by_itself_and_talks() {
    let world = forgetful();
    let (alice, bob) = world.pair();
    let mut at_alice = alice.follow_from_now();
    let gone = alice.send(&bob, "gone by then");
    until_all_is_gone(&gone);
    let mut at_bob = comes_late(&bob);
    until_all_are_in_step(&[&alice, &bob]);
    alice.send(&bob, "there you are");
    at_bob.wait_for_text("there you are");
    bob.send(&alice, "here I am");
    at_alice.wait_for_text("here I am");
    let _ = (at_alice.interrupt(), at_bob.interrupt());
}

#[test]
fn who_comes_after_the_welcome_into_a_group_has_expired_joins_by_itself_and_talks() {
    let world = forgetful();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    let mut at_carol = carol.follow_from_now();
    alice.ok(&["group", "create", "club", "bob", "carol"]);
    let gone = alice.ok(&["send", "club", "gone by then"]).remove(0);
    let mut at_alice = alice.follow_from_now();
    at_carol.wait_for_text("gone by then");
    until_all_is_gone(&gone);
    let mut at_bob = comes_late(&bob);
    until_all_are_in_step(&[&alice, &bob, &carol]);
    alice.ok(&["send", "club", "there you are"]);
    at_bob.wait_for_text("there you are");
    at_carol.wait_for_text("there you are");
    bob.ok(&["send", "club", "here I am"]);
    at_alice.wait_for_text("here I am");
    at_carol.wait_for_text("here I am");
    for follower in [at_alice, at_bob, at_carol] {
        let _ = follower.interrupt();
    }
}
