//! What was not fetched in time never appears; how much that is, the client says once and exactly.

use gureum_tests::World;
use gureum_tests::person::{gaps, number, texts};
use gureum_tests::wait::{now_ms, until_ms};

const RETENTION: &str = "3s";
const RETENTION_MS: u64 = 3_000;

#[test]
fn messages_that_expired_are_one_gap_with_the_exact_count_and_later_ones_come() {
    let world = World::with_retention(RETENTION);
    let (alice, bob) = world.pair();
    alice.send(&bob, "kept");
    assert_eq!(bob.receive_texts(), ["kept"]);

    let mut last_ms = 0;
    for index in 0..5 {
        last_ms = number(&alice.send(&bob, &format!("too late {index}"))["server_time_ms"]);
    }
    until_ms(last_ms + RETENTION_MS + 1);
    let came = bob.receive();
    assert_eq!(gaps(&came), [(5, "expired".to_owned())], "{came:#?}");
    assert!(texts(&came).is_empty());
    let gap = came.iter().find(|event| event["event"] == "gap").unwrap();
    assert!(number(&gap["to_seq"]) - number(&gap["from_seq"]) + 1 >= 5, "{gap}");
    assert_eq!(bob.receive().len(), 0, "said once");

    alice.send(&bob, "later");
    assert_eq!(bob.receive_texts(), ["later"]);
    let history = bob.history();
    assert_eq!(texts(&history), ["kept", "later"], "what was received stays");
    assert_eq!(gaps(&history), [(5, "expired".to_owned())], "and the place where some are missing");
    assert_eq!(texts(&alice.history()).len(), 7, "the sender keeps what it wrote");
}

#[test]
fn some_expired_and_some_not_are_a_gap_and_then_the_rest() {
    let world = World::with_retention(RETENTION);
    let (alice, bob) = world.pair();
    alice.send(&bob, "kept");
    assert_eq!(bob.receive_texts(), ["kept"]);
    let mut last_ms = 0;
    for _ in 0..3 {
        last_ms = number(&alice.send(&bob, "too late")["server_time_ms"]);
    }
    until_ms(last_ms + RETENTION_MS + 1);
    alice.send(&bob, "in time");
    let came = bob.receive();
    assert_eq!((gaps(&came), texts(&came)), (vec![(3, "expired".to_owned())], vec!["in time".to_owned()]));
}

#[test]
fn the_seq_of_an_inbox_goes_on_after_everything_expired_and_the_server_restarted() {
    let mut world = World::with_retention("2s");
    let (alice, bob) = world.pair();
    alice.send(&bob, "one");
    let first = bob.receive();
    until_ms(now_ms() + 2_500);
    world.kill_and_restart();
    alice.send(&bob, "two");
    let second = bob.receive();
    assert_eq!(texts(&second), ["two"]);
    assert!(gaps(&second).is_empty(), "nothing was missed: {second:#?}");
    assert!(number(&second.last().unwrap()["seq"]) > number(&first.last().unwrap()["seq"]));
}
