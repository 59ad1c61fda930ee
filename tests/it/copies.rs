//! Copies of a device's state: an older one that is put back goes on by itself, and of two that are in use one is told to
//! be linked anew.

use std::fs;
use std::path::Path;

use gureum_client::Dialer;
use gureum_client::vault::{KeySource, Vault};
use gureum_proto::{Code, HelloClaim, Life, LifeToken, Position, Ready, Request, Response, ServerFrame};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::person::{Person, gaps, named, number, string, texts};
use gureum_tests::raw::Raw;
use gureum_tests::wait::{SOON, until_ms};
use serde_json::Value;

use crate::backup::{backup, go_back};

const START: Position = Position { seq: 0, count: 0 };

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Puts an older copy in the place of a home.
fn put_back(person: &Person, older: &Path) {
    fs::remove_dir_all(&person.home).unwrap();
    copy(older, &person.home);
}

/// Alice and Bob, who have talked both ways.
fn talked(world: &World) -> (Person, Person) {
    let (alice, bob) = world.pair();
    alice.send(&bob, "one");
    assert_eq!(bob.receive_texts(), ["one"]);
    bob.send(&alice, "two");
    assert_eq!(alice.receive_texts(), ["two"]);
    (alice, bob)
}

/// Checks what somebody is told when Bob's device has come in again.
#[track_caller]
pub(crate) fn check_rejoined(seen: &[Value], bob: &Person) {
    let [rejoined] = named(seen, "rejoined")[..] else { panic!("{seen:#?}") };
    assert_eq!(string(&rejoined["by"]), "bob");
    assert_eq!(rejoined["device"], bob.ok(&["whoami"])[0]["device"]);
}

#[track_caller]
fn talk_on(alice: &Person, bob: &Person) {
    alice.send(bob, "do you read me");
    assert_eq!(bob.receive_texts(), ["do you read me"]);
    bob.send(alice, "I do");
    assert_eq!(alice.receive_texts(), ["I do"]);
}

#[test]
fn a_home_that_is_put_back_reads_what_is_there_joins_again_and_the_others_see_it() {
    let world = World::start();
    let (alice, bob) = talked(&world);
    let older = world.directory("older");
    copy(&bob.home, &older);
    alice.send(&bob, "three");
    assert_eq!(bob.receive_texts(), ["three"]);
    bob.send(&alice, "four");
    assert_eq!(alice.receive_texts(), ["four"]);

    put_back(&bob, &older);
    let told = bob.receive();
    let [restored] = named(&told, "restored")[..] else { panic!("{told:#?}") };
    assert_eq!(restored["conversations"], 1);
    assert_eq!(texts(&told), ["three"], "what its keys open: {told:#?}");
    assert!(gaps(&told).is_empty() && named(&told, "unreadable").is_empty(), "{told:#?}");
    assert_eq!(named(&told, "rejoined").len(), 1, "{told:#?}");
    assert!(named(&bob.receive(), "restored").is_empty(), "told once");

    check_rejoined(&alice.receive(), &bob);
    talk_on(&alice, &bob);
    assert_eq!(alice.epoch(), bob.epoch());
}

/// A home goes on to an epoch of which nobody else knows, as if its keys had been damaged.
fn break_keys(person: &Person) {
    let mut vault = Vault::open(&person.home, &KeySource::File).unwrap();
    for conversation in vault.conversations().unwrap() {
        assert!(vault.commit_self_update(conversation.id).unwrap().is_some());
        vault.commit_accepted(conversation.id).unwrap();
    }
}

#[tokio::test]
async fn a_device_whose_keys_open_nothing_any_more_joins_again_and_the_others_see_it() {
    let world = World::start();
    let (alice, bob) = talked(&world);
    assert!(bob.receive().is_empty());
    break_keys(&bob);
    alice.renew_keys().await;
    assert_eq!(alice.epoch(), bob.epoch(), "in number");
    for text in ["three", "four", "five"] {
        alice.send(&bob, text);
    }
    let told = bob.receive();
    assert_eq!((texts(&told), named(&told, "unreadable").len()), (vec![], 3), "{told:#?}");
    assert_eq!(named(&told, "rejoined").len(), 1, "{told:#?}");
    check_rejoined(&alice.receive(), &bob);
    talk_on(&alice, &bob);
}

#[test]
fn what_only_the_newer_copy_has_received_is_a_gap_of_the_right_count() {
    let world = World::with_retention("3s");
    let (alice, bob) = talked(&world);
    let older = world.directory("older");
    copy(&bob.home, &older);
    alice.send(&bob, "three");
    let last = alice.send(&bob, "four");
    assert_eq!(bob.receive_texts(), ["three", "four"]);
    until_ms(number(&last["server_time_ms"]) + 3_500);
    put_back(&bob, &older);
    let told = bob.receive();
    assert_eq!(named(&told, "restored").len(), 1, "{told:#?}");
    assert_eq!(gaps(&told), [(2, "expired".to_owned())], "{told:#?}");
    talk_on(&alice, &bob);
}

#[test]
fn what_waited_in_an_older_copy_arrives_once() {
    let mut world = World::start();
    let (alice, bob) = talked(&world);
    world.kill();
    let mut chat = bob.chat(&alice);
    chat.type_line("waits in both");
    chat.wait_for("the message is kept", |line| line.contains("is kept").then_some(()));
    chat.kill();
    let older = world.directory("older");
    copy(&bob.home, &older);
    world.restart();
    assert!(bob.receive_texts().is_empty());
    for text in ["after it", "and after that"] {
        bob.send(&alice, text);
    }
    assert_eq!(alice.receive_texts(), ["waits in both", "after it", "and after that"]);

    put_back(&bob, &older);
    let told = bob.receive();
    assert_eq!(named(&told, "restored").len(), 1, "{told:#?}");
    bob.send(&alice, "by the older copy");
    assert_eq!(
        alice.receive_texts(),
        ["by the older copy"],
        "what has arrived is not shown again, and nothing is lost"
    );
    talk_on(&alice, &bob);
}

#[test]
fn of_two_copies_in_use_one_goes_on_and_the_other_is_told_to_be_linked_anew() {
    let world = World::start();
    let (alice, bob) = talked(&world);
    let copied = Person::new("bob", world.directory("copied"));
    copy(&bob.home, &copied.home);
    assert!(bob.receive().is_empty());
    assert_eq!(named(&copied.receive(), "restored").len(), 1);
    for _ in 0..3 {
        for command in [["receive"].as_slice(), &["send", "alice", "from the other"]] {
            let refused = bob.run(command);
            assert_eq!(refused.code, Some(1), "{refused:#?}");
            assert!(refused.said.contains("was copied") && refused.said.contains("link"), "{}", refused.said);
        }
        let _ = alice.receive();
        talk_on(&alice, &copied);
    }
}

#[test]
fn a_copy_that_takes_over_ends_one_that_is_connected() {
    let world = World::start();
    let (alice, bob) = talked(&world);
    let copied = Person::new("bob", world.directory("copied"));
    copy(&bob.home, &copied.home);
    let mut follower = bob.follow_from_now();
    assert_eq!(named(&copied.receive(), "restored").len(), 1);
    assert_eq!(follower.running.wait(SOON).code(), Some(1));
    let said = follower.running.err.all().join("\n");
    assert!(said.contains("was copied"), "{said}");
    let _ = alice.receive();
    talk_on(&alice, &copied);
}

#[tokio::test]
async fn a_process_that_ends_between_its_claim_and_the_answer_makes_no_copy_of_a_home() {
    let mut world = World::start();
    let (alice, bob) = talked(&world);
    for is_heard in [false, true, true] {
        let mut vault = Vault::open(&bob.home, &KeySource::File).unwrap();
        let identity = vault.identity().clone();
        let claim = vault.hello_claim(false).unwrap();
        if is_heard {
            let unproven = Dialer::new(identity.server.clone()).unwrap().connect().await.unwrap();
            let (link, _events, ready) = unproven.prove(claim, &identity.proof).await.unwrap();
            assert!(!ready.stale);
            link.close().await;
        }
        drop(vault);
        assert!(bob.receive().is_empty());
    }
    world.kill_and_restart();
    assert!(bob.receive().is_empty());
    talk_on(&alice, &bob);
}

#[test]
fn a_server_that_has_gone_back_takes_nobody_for_a_copy() {
    let mut world = World::start();
    let (alice, bob) = talked(&world);
    let to = world.directory("backup");
    let _ = backup(world.data_dir(), &to).ok();
    for _ in 0..3 {
        talk_on(&alice, &bob);
    }
    go_back(&mut world, &to);
    for person in [&alice, &bob] {
        for _ in 0..2 {
            let told = person.receive();
            assert!(named(&told, "restored").is_empty(), "{told:#?}");
        }
    }
}

fn alive(device: &Device, generation: u64, token: u8, next: u8) -> HelloClaim {
    let [token, next] = [token, next].map(|byte| LifeToken::from_bytes([byte; 16]));
    HelloClaim { life: Some(Life { generation, token, next }), ..device.claim(false, START) }
}

async fn says(device: &Device, world: &World, claim: &HelloClaim) -> Raw {
    let mut raw = Raw::dial(world.url()).await;
    let hello = device.hello(&raw, claim);
    raw.write(&hello).await;
    raw
}

async fn proven(device: &Device, world: &World, claim: &HelloClaim) -> (Raw, Ready) {
    let mut raw = says(device, world, claim).await;
    match raw.frame().await {
        ServerFrame::Ready(ready) => (raw, ready),
        other => panic!("{other:?} in place of Ready"),
    }
}

#[tokio::test]
async fn a_device_takes_over_from_its_newest_state_which_is_refused_from_then_on() {
    let mut world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let (first, ready) = proven(&alice, &world, &alive(&alice, 0, 0, 1)).await;
    assert!(!ready.stale);
    let (newest, ready) = proven(&alice, &world, &alive(&alice, 1, 1, 2)).await;
    assert!(!ready.stale);
    // What the writer was given before this is written now.
    alice.publish(&newest, 1).await;

    let (older, ready) = proven(&alice, &world, &alive(&alice, 0, 0, 30)).await;
    assert!(ready.stale);
    let next = LifeToken::from_bytes([30; 16]);
    for _ in 0..2 {
        let answer = older.request(&Request::TakeOver { next }).await;
        assert_eq!(answer, Response::TakenOver { generation: 3, accepted_counter: 0 });
    }
    for other in [&first, &newest] {
        assert_eq!(other.ended().await.code, Code::DeviceCopied);
    }
    world.kill_and_restart();
    for lost in [alive(&alice, 2, 2, 3), alive(&alice, 1, 1, 2)] {
        assert_eq!(says(&alice, &world, &lost).await.ended().await.code, Code::DeviceCopied);
    }
    let (_, ready) = proven(&alice, &world, &alive(&alice, 3, 30, 31)).await;
    assert!(!ready.stale);
}
