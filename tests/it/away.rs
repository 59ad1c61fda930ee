//! Devices that were away while their conversation went through epochs.

use gureum_tests::person::{gaps, named, number, texts};
use gureum_tests::wait::{SOON, eventually, now_ms, until_ms};
use gureum_tests::{Options, World};

use crate::copies::check_rejoined;

#[tokio::test]
async fn a_device_away_longer_than_the_retention_reads_what_is_there_by_the_commit_log() {
    let world = World::with_retention("3s");
    let (alice, bob) = world.pair();
    alice.send(&bob, "hello");
    assert_eq!(bob.receive_texts(), ["hello"]);
    bob.send(&alice, "hi");
    assert_eq!(alice.receive_texts(), ["hi"]);

    alice.renew_keys().await;
    let gone = alice.send(&bob, "gone by then");
    alice.renew_keys().await;
    until_ms(number(&gone["server_time_ms"]) + 3_500);
    alice.renew_keys().await;
    alice.send(&bob, "still there");
    let came = bob.receive();
    assert_eq!(texts(&came), ["still there"], "{came:#?}");
    assert_eq!(gaps(&came), [(1, "expired".to_owned())], "commits do not count");
    assert!(came.iter().all(|event| event["event"] != "rejoined"), "the commit log was enough: {came:#?}");
    assert_eq!(bob.epoch(), alice.epoch());
    bob.send(&alice, "read it");
    assert_eq!(alice.receive_texts(), ["read it"]);
}

#[tokio::test]
async fn who_was_away_while_a_conversation_began_reads_what_is_still_there_of_it() {
    let world = World::with_retention("3s");
    let (alice, bob) = world.pair();
    let gone = alice.send(&bob, "gone by then");
    alice.renew_keys().await;
    until_ms(number(&gone["server_time_ms"]) + 3_500);
    alice.send(&bob, "still there");
    let came = bob.receive();
    assert_eq!(texts(&came), ["still there"], "{came:#?}");
    assert_eq!(gaps(&came), [(1, "expired".to_owned())], "{came:#?}");
    let strange = |event: &&serde_json::Value| event["event"] == "rejoined" || event["event"] == "unreadable";
    assert!(!came.iter().any(|event| strange(&event)), "the Welcome was enough: {came:#?}");
    bob.send(&alice, "read it");
    assert_eq!(alice.receive_texts(), ["read it"]);
}

#[tokio::test]
async fn a_device_away_longer_than_the_commit_log_rejoins_by_itself() {
    let options = Options { retention: Some("2s"), commit_retention: Some("3s"), ..Options::default() };
    let world = World::start_with(options);
    let (alice, bob) = world.pair();
    alice.send(&bob, "hello");
    assert_eq!(bob.receive_texts(), ["hello"]);
    bob.send(&alice, "hi");
    assert_eq!(alice.receive_texts(), ["hi"]);

    alice.renew_keys().await;
    alice.send(&bob, "gone by then");
    alice.renew_keys().await;
    // The commit log ends with its compaction, which is due every second here.
    until_ms(now_ms() + 6_000);
    let (mut at_bob, mut at_alice) = (Vec::new(), Vec::new());
    eventually("bob is in again", SOON, || {
        at_bob.extend(bob.receive());
        at_alice.extend(alice.receive());
        (bob.epoch() == alice.epoch()).then_some(())
    });
    assert_eq!(gaps(&at_bob), [(1, "expired".to_owned())], "{at_bob:#?}");
    assert_eq!(named(&at_bob, "rejoined").len(), 1, "{at_bob:#?}");
    assert!(named(&at_bob, "unreadable").is_empty() && named(&at_bob, "withheld").is_empty(), "{at_bob:#?}");
    check_rejoined(&at_alice, &bob);
    alice.send(&bob, "welcome back");
    assert_eq!(bob.receive_texts(), ["welcome back"]);
    bob.send(&alice, "thank you");
    assert_eq!(alice.receive_texts(), ["thank you"]);
}

#[tokio::test]
async fn what_is_sent_right_after_somebody_rejoined_is_read() {
    let options = Options { retention: Some("2s"), commit_retention: Some("3s"), ..Options::default() };
    let world = World::start_with(options);
    let (alice, bob) = world.pair();
    alice.send(&bob, "hello");
    assert_eq!(bob.receive_texts(), ["hello"]);
    assert!(alice.receive().is_empty(), "Bob's renewed keys, and nothing to show");
    alice.renew_keys().await;
    until_ms(now_ms() + 6_000);
    assert!(bob.run(&["receive"]).code == Some(0));
    // Alice has not received since: her next message must be of the epoch that Bob has begun.
    alice.send(&bob, "do you read me");
    assert_eq!(bob.receive_texts(), ["do you read me"]);
}

#[tokio::test]
async fn commits_that_cross_lose_nothing() {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "one");
    assert_eq!(bob.receive_texts(), ["one"]);
    for round in 0..4 {
        assert_eq!(alice.run(&["receive"]).code, Some(0));
        alice.renew_keys().await;
        assert_eq!(bob.run(&["receive"]).code, Some(0));
        bob.renew_keys().await;
        let text = format!("round {round}");
        alice.send(&bob, &text);
        assert_eq!(bob.receive_texts(), std::slice::from_ref(&text));
        bob.send(&alice, &text);
        assert_eq!(alice.receive_texts(), [text]);
    }
}
