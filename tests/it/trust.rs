//! What a server shows people that is not what they knew, by the real programs: it is told, once, and nobody is followed
//! without having been asked.

use gureum_tests::World;
use gureum_tests::person::{Person, string, texts};
use serde_json::Value;

use crate::backup::{backup, go_back};

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

fn changed(events: &[Value]) -> Vec<(String, String)> {
    let number = |event: &&Value| (string(&event["number_before"]), string(&event["number"]));
    named(events, "safety_number_changed").iter().map(number).collect()
}

fn number(person: &Person, with: &str) -> String {
    string(&person.ok(&["safety-number", with])[0]["number"])
}

/// Alice has talked with a Bob; then the server goes back to before that one registered, and somebody else does, as Bob.
fn with_another_bob() -> (World, Person, Person, String) {
    let mut world = World::start();
    let alice = world.person("alice");
    let to = world.directory("backup");
    let _ = backup(world.data_dir(), &to).ok();
    let first = world.person("bob");
    alice.send(&first, "to the first");
    assert_eq!(first.receive_texts(), ["to the first"]);
    let before = number(&alice, "bob");
    assert_eq!(number(&first, "alice"), before);
    go_back(&mut world, &to);
    let second = Person::new("bob", world.directory("second"));
    second.ok(&["register", &world.invite(1), "--handle", "bob"]);
    (world, alice, second, before)
}

#[test]
fn another_account_under_a_handle_is_told_once_and_nothing_goes_to_it_before() {
    let (_world, alice, second, before) = with_another_bob();
    // The server has gone back, which is told first, and what there is to be done about it shows the other account.
    assert_eq!(alice.run(&["send", "bob", "to whom?"]).code, Some(3));
    let decided = alice.run(&["restart", "bob"]);
    assert_eq!(decided.code, Some(1), "{}", decided.said);
    for part in ["another account", "gureum safety-number bob"] {
        assert!(decided.said.contains(part), "{:?} does not say {part:?}", decided.said);
    }
    let after = number(&second, "alice");
    assert_eq!(changed(&decided.events), [(before.clone(), after.clone())]);
    assert_ne!(before, after);
    assert!(second.receive().is_empty(), "nothing has come to the other one");

    assert_eq!(number(&alice, "bob"), after, "which can be compared");
    alice.send(&second, "to the second");
    assert_eq!(second.receive_texts(), ["to the second"]);
    second.send(&alice, "from the second");
    let came = alice.receive();
    assert_eq!((texts(&came), changed(&came)), (vec!["from the second".to_owned()], vec![]), "never twice");
    let history = alice.ok(&["history", "bob"]);
    assert_eq!(texts(&history), ["to the first", "to the second", "from the second"]);
    assert_eq!(changed(&history), [(before, after)], "the history has a mark");
}

#[test]
fn who_is_written_to_by_another_account_under_a_known_handle_is_told_and_shown_nothing() {
    let (_world, alice, second, before) = with_another_bob();
    second.send(&alice, "it is me");
    let came = alice.receive();
    assert_eq!((texts(&came), changed(&came)), (vec![], vec![(before, number(&second, "alice"))]));
    let again = alice.receive();
    assert_eq!((texts(&again), changed(&again)), (vec![], vec![]), "{again:#?}");
    // Who goes on all the same has been told by the command that they give.
    assert_eq!(alice.run(&["restart", "bob"]).code, Some(1));
    alice.send(&second, "is it?");
    assert_eq!(second.receive_texts(), ["is it?"]);
}
