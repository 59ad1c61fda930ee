//! All of a person's devices: linked by a code, listed, revoked, and brought back by words when all of them are lost.

use std::collections::BTreeSet;
use std::fs;

use ed25519_dalek::SigningKey;
use gureum_client::vault::{KeySource, Vault};
use gureum_client::{Client, Dialer, LinkEvent};
use gureum_proto::{ConversationKind, DeliveryFrame, DeviceKeys, EnvelopeBody, LinkCode, Request, Response, sign_add};
use gureum_tests::World;
use gureum_tests::child::Running;
use gureum_tests::person::{Ended, Person, event, gaps, named, number, string, texts};
use gureum_tests::raw::soon;
use gureum_tests::wait::{SOON, now_ms};
use serde_json::Value;

/// A well-formed code that nobody shows.
const NOBODY: &str = "GLAEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCIRCEIRCEIRCEIRCEIRCEIRCEIQ";

#[track_caller]
pub(crate) fn check_refused(ended: &Ended, says: &str) {
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains(says), "{:?} does not say {says:?}", ended.said);
}

/// Two people who talk, one of them with two homes.
fn with_a_tablet() -> (World, Person, Person, Person) {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "before the tablet");
    assert_eq!(bob.receive_texts(), ["before the tablet"]);
    let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
    (world, alice, tablet, bob)
}

#[test]
fn both_devices_show_the_same_digits_and_the_new_one_is_the_accounts() {
    let world = World::start();
    let alice = world.person("alice");
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, code) = tablet.show_code(world.url(), "tablet");
    let approved = alice.ok(&["devices", "approve", &code]);
    assert_eq!(approved.len(), 2, "all was handed over: {approved:#?}");
    let (check, linked) = (event(&mut running, "link_check"), event(&mut running, "linked"));
    assert_eq!((&approved[0]["event"], &approved[0]["digits"]), (&"link_check".into(), &check["digits"]));
    assert_eq!((&approved[0]["device_name"], &check["handle"]), (&"tablet".into(), &"alice".into()));
    let digits = string(&check["digits"]);
    assert!(digits.len() == 7 && digits.bytes().filter(u8::is_ascii_digit).count() == 6, "{digits}");
    let own = alice.ok(&["whoami"]);
    assert_eq!((&approved[1]["event"], &approved[1]["change"]), (&"device".into(), &"added".into()));
    assert_eq!((&linked["account"], &linked["device"]), (&own[0]["account"], &approved[1]["device"]));
    assert!(running.wait(SOON).success(), "{:?}", running.err.all());
    assert!(running.out.all().iter().all(|line| !line.contains("not_handed_over")), "{:?}", running.out.all());
    let other = tablet.ok(&["whoami"]);
    assert_eq!((&other[0]["handle"], &other[0]["device_name"]), (&"alice".into(), &"tablet".into()));
    assert_eq!(tablet.run(&["link", world.url()]).code, Some(1), "it is linked already");
    assert!(alice.receive().is_empty(), "what was printed is no news");
}

#[test]
fn people_see_the_code_as_a_picture_and_as_text() {
    let world = World::start();
    let tablet = Person::new("alice", world.directory("tablet"));
    let mut running = as_people_do(&tablet, &["link", world.url(), "--device-name", "tablet"]);
    let shown = running.wait_for("the code", |line| line.parse::<LinkCode>().ok());
    running.kill();
    let lines = running.out.all();
    let is_drawn = |line: &&String| !line.is_empty() && line.chars().all(|c| "█▀▄ ".contains(c));
    let picture: Vec<_> = lines.iter().take_while(is_drawn).collect();
    let widths: BTreeSet<_> = picture.iter().map(|line| line.chars().count()).collect();
    assert_eq!(widths.len(), 1, "a rectangle comes first: {lines:#?}");
    assert_eq!(picture.len(), widths.first().unwrap().div_ceil(2), "a square, two rows to a line");
    let (_running, code) = tablet.show_code(world.url(), "tablet");
    assert_eq!(Ok(shown), code.parse(), "the same device has the same code");
}

#[test]
fn all_devices_get_what_is_sent_to_them_and_what_one_of_them_sends() {
    let (_world, alice, tablet, bob) = with_a_tablet();
    bob.send(&alice, "to both");
    let came = tablet.receive();
    assert_eq!((texts(&came), gaps(&came)), (vec!["to both".to_owned()], vec![]));
    assert_eq!(alice.receive_texts(), ["to both"]);
    tablet.send(&bob, "from the tablet");
    let at_bob = bob.receive();
    assert_eq!(texts(&at_bob), ["from the tablet"]);
    let from = at_bob.iter().find(|event| event["event"] == "message").map(|event| string(&event["from"]));
    assert_eq!(from.as_deref(), Some("alice"));
    assert_eq!(alice.receive_texts(), ["from the tablet"], "a device sees what another one of the account sends");
    alice.send(&bob, "from the desk");
    assert_eq!(tablet.receive_texts(), ["from the desk"]);
    assert_eq!(tablet.talk(), alice.talk()[1..], "in the same order, but for what was said before");
}

#[test]
fn a_device_that_is_added_is_told_to_the_others_of_the_account_and_to_whom_it_talks_with() {
    let (world, alice, tablet, bob) = with_a_tablet();
    let _ = (tablet.receive(), bob.receive());
    let phone = alice.link(world.url(), world.directory("phone"), "phone");
    let device = &phone.ok(&["whoami"])[0]["device"];
    for person in [&tablet, &bob] {
        let came = person.receive();
        let [told] = named(&came, "device")[..] else { panic!("{came:#?}") };
        assert_eq!((&told["change"], &told["handle"], &told["device"]), (&"added".into(), &"alice".into(), device));
        assert!(named(&person.receive(), "device").is_empty(), "told once");
    }
}

#[test]
fn connected_at_the_same_time_all_devices_get_each_message_at_once() {
    let (_world, alice, tablet, bob) = with_a_tablet();
    let (mut at_desk, mut at_tablet) = (alice.follow_from_now(), tablet.follow_from_now());
    for text in ["one", "two", "three"] {
        bob.send(&alice, text);
        at_desk.wait_for_text(text);
        at_tablet.wait_for_text(text);
    }
    assert_eq!(texts(&at_desk.interrupt()), texts(&at_tablet.interrupt()));
}

#[test]
fn a_conversation_that_begins_after_the_linking_is_on_all_devices() {
    let (world, alice, tablet, _bob) = with_a_tablet();
    let carol = world.person("carol");
    carol.send(&alice, "hello from carol");
    assert_eq!(tablet.receive_texts(), ["hello from carol"]);
    assert_eq!(alice.receive_texts(), ["hello from carol"]);
    tablet.send(&carol, "hello from the tablet");
    assert_eq!(carol.receive_texts(), ["hello from the tablet"]);
}

#[test]
fn a_code_that_nobody_shows_or_that_has_served_adds_nothing() {
    let world = World::start();
    let alice = world.person("alice");
    check_refused(&alice.run(&["devices", "approve", NOBODY]), "no device waits");
    check_refused(&alice.run(&["devices", "approve", NOBODY]), "see `gureum whoami`");
    assert_eq!(alice.run(&["devices", "approve", "GLAEIR"]).code, Some(2));
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, code) = tablet.show_code(world.url(), "tablet");
    let with_dashes = format!("{}-{}", &code[..10], code[10..].to_lowercase());
    alice.ok(&["devices", "approve", &with_dashes]);
    event(&mut running, "linked");
    check_refused(&alice.run(&["devices", "approve", &code]), "no device waits");
    let mallory = world.person("mallory");
    check_refused(&mallory.run(&["devices", "approve", &code]), "no device waits");
    assert_eq!(alice.ok(&["devices"]).len(), 2);
}

#[test]
fn a_link_that_is_interrupted_goes_on_with_the_same_code() {
    let world = World::start();
    let alice = world.person("alice");
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, first) = tablet.show_code(world.url(), "tablet");
    running.kill();
    check_refused(&tablet.run(&["receive"]), "gureum link");
    let (mut running, again) = tablet.show_code(world.url(), "tablet");
    assert_eq!(first, again);
    alice.ok(&["devices", "approve", &first]);
    event(&mut running, "linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_between_the_answer_and_the_yes_loses_nothing() {
    let mut world = World::start();
    let alice = world.person("alice");
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, code) = tablet.show_code(world.url(), "tablet");
    let client = Client::open(&alice.home, KeySource::File).await.unwrap();
    let code: LinkCode = code.parse().unwrap();
    let approval = Box::pin(client.approve(&code)).await.unwrap();
    let check = tokio::task::block_in_place(|| event(&mut running, "link_check"));
    assert_eq!(check["digits"], approval.digits());
    tokio::task::block_in_place(|| {
        assert!(world.stop().success());
        world.restart();
    });
    assert!(Box::pin(approval.finish()).await.unwrap().handed_over);
    tokio::task::block_in_place(|| {
        event(&mut running, "linked");
        assert!(running.wait(SOON).success(), "{:?}", running.err.all());
        assert_eq!(tablet.ok(&["devices"]).len(), 2);
    });
}

/// The server forgets the link, and the new device is not there to offer it again.
#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_could_be_handed_over_both_sides_are_told() {
    let mut world = World::start();
    let alice = world.person("alice");
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, code) = tablet.show_code(world.url(), "tablet");
    let client = Client::open(&alice.home, KeySource::File).await.unwrap();
    let code: LinkCode = code.parse().unwrap();
    let approval = Box::pin(client.approve(&code)).await.unwrap();
    tokio::task::block_in_place(|| {
        event(&mut running, "link_check");
        running.kill();
        assert!(world.stop().success());
        world.restart();
    });
    let added = Box::pin(approval.finish()).await.unwrap();
    assert!(!added.handed_over, "{added:?}");
    tokio::task::block_in_place(|| {
        let (mut running, _code) = tablet.show_code(world.url(), "tablet");
        let [linked, told] = ["linked", "not_handed_over"].map(|name| event(&mut running, name)["device"].clone());
        assert_eq!((&linked, &told), (&added.device.to_string().into(), &added.device.to_string().into()));
        assert!(running.wait(SOON).success(), "{:?}", running.err.all());
    });
}

/// The same, where a person thinks about the digits for so long.
#[test]
fn who_agrees_to_a_device_that_is_not_there_any_more_is_told_that_it_was_handed_nothing() {
    let mut world = World::start();
    let alice = world.person("alice");
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, code) = tablet.show_code(world.url(), "tablet");
    let mut approving = Running::on_terminal(alice.command_for_people(&["devices", "approve", &code]));
    let says = |text: &'static str| move |line: &str| line.contains(text).then_some(());
    approving.wait_for("the digits", says("Compare: "));
    event(&mut running, "link_check");
    running.kill();
    assert!(world.stop().success());
    world.restart();
    approving.type_line("y");
    approving.wait_for("what was not handed over", says("could not be handed what this device knows of others"));
    assert!(approving.wait(SOON).success(), "{:?} {:?}", approving.out.all(), approving.err.all());
    let (mut running, _code) = tablet.show_code(world.url(), "tablet");
    let [linked, told] = ["linked", "not_handed_over"].map(|name| event(&mut running, name)["device"].clone());
    assert_eq!(linked, told);
    assert!(running.wait(SOON).success(), "{:?}", running.err.all());
    assert_eq!(alice.ok(&["devices"]).len(), 2);
}

/// Which conversations a device of the account has come into, in the order in which the server has it.
async fn joined(person: &Person, device: &str) -> Vec<String> {
    let mut vault = Vault::open(&person.home, &KeySource::File).unwrap();
    let identity = vault.identity().clone();
    let unproven = Dialer::new(identity.server.clone()).unwrap().connect().await.unwrap();
    let claim = vault.hello_claim(true).unwrap();
    let (_link, mut events, _ready) = unproven.prove(claim, &identity.proof).await.unwrap();
    let mut joined = Vec::new();
    loop {
        let frames = match soon("the inbox", events.next()).await {
            LinkEvent::Delivery(frames) => frames,
            LinkEvent::Closed(error) => panic!("{error}"),
            _ => continue,
        };
        for frame in frames {
            match frame {
                DeliveryFrame::CaughtUp { .. } => return joined,
                DeliveryFrame::Envelope(envelope) => {
                    let by = envelope.shared.sender_device.to_string();
                    let conversation = envelope.shared.conversation.to_string();
                    let is_commit = matches!(envelope.shared.body, EnvelopeBody::Commit { .. });
                    if is_commit && by == device && !joined.contains(&conversation) {
                        joined.push(conversation);
                    }
                }
                DeliveryFrame::Gap(gap) => panic!("{gap:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conversation_with_the_newest_message_is_joined_first() {
    let world = World::start();
    let alice = world.person("alice");
    let talks = tokio::task::block_in_place(|| {
        let others = ["bob", "carol", "dave"].map(|name| world.person(name));
        for other in &others {
            alice.send(other, "hello");
        }
        // Neither as they began, nor the other way round.
        let [bob, carol, dave] = &others;
        [carol, dave, bob].map(|other| string(&alice.send(other, "again")["conversation"]))
    });
    let tablet = tokio::task::block_in_place(|| {
        let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
        string(&tablet.ok(&["whoami"])[0]["device"])
    });
    let mut joined = joined(&alice, &tablet).await;
    joined.retain(|conversation| talks.contains(conversation));
    let newest_first: Vec<_> = talks.into_iter().rev().collect();
    assert_eq!(joined, newest_first);
}

/// Adds devices to an account that nobody uses.
async fn add_devices(person: &Person, count: u8) {
    let mut vault = Vault::open(&person.home, &KeySource::File).unwrap();
    let identity = vault.identity().clone();
    let mut log = vault.contact(identity.account).unwrap().unwrap().log;
    let unproven = Dialer::new(identity.server.clone()).unwrap().connect().await.unwrap();
    let claim = vault.hello_claim(false).unwrap();
    let (link, _events, _ready) = unproven.prove(claim, &identity.proof).await.unwrap();
    for number in 0..count {
        let (proof, mls) = (SigningKey::from_bytes(&[number; 32]), SigningKey::from_bytes(&[100 + number; 32]));
        let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), mls.verifying_key().as_bytes()).unwrap();
        let entry = sign_add(&log, (identity.device, &identity.proof), &keys, &proof, now_ms());
        log.append(&entry).unwrap();
        let answer = link.request(&Request::AppendDeviceLog { entry }).await;
        assert!(matches!(answer, Ok(Response::DeviceLogAppended { .. })), "{answer:?}");
    }
    link.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eleventh_device_is_refused_before_it_is_asked() {
    let world = World::start();
    let alice = world.person("alice");
    add_devices(&alice, 9).await;
    tokio::task::block_in_place(|| {
        let tablet = Person::new("alice", world.directory("tablet"));
        let (running, code) = tablet.show_code(world.url(), "tablet");
        check_refused(&alice.run(&["devices", "approve", &code]), "at most 10");
        assert!(running.out.all().iter().all(|line| !line.contains("link_check")));
        assert_eq!(alice.ok(&["devices"]).len(), 10);
    });
}

#[test]
fn the_list_of_devices_says_which_is_which_and_when_each_was_there() {
    let world = World::start();
    let alice = world.stranger("alice");
    alice.ok(&["register", &world.invite(1), "--handle", "alice", "--device-name", "desk"]);
    let before = now_ms();
    let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
    for (person, name) in [(&alice, "desk"), (&tablet, "tablet")] {
        let listed = person.ok(&["devices"]);
        let names: Vec<_> = listed.iter().map(|device| string(&device["name"])).collect();
        assert_eq!(names, ["desk", "tablet"]);
        for device in &listed {
            assert_eq!((&device["event"], device["current"] == true), (&"device".into(), device["name"] == name));
            assert!(device.get("change").is_none(), "{device}");
            assert!(number(&device["last_seen_ms"]) + 120_000 > before, "{device}");
        }
        assert!(number(&listed[1]["added_ms"]) >= before);
    }
    let own = tablet.ok(&["whoami"]);
    assert_eq!(own[0]["device"], tablet.ok(&["devices"])[1]["device"]);
}

#[test]
fn a_device_can_be_called_otherwise_by_who_adds_it() {
    let world = World::start();
    let alice = world.person("alice");
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, code) = tablet.show_code(world.url(), "tablet");
    alice.ok(&["devices", "approve", &code, "--name", "kitchen"]);
    event(&mut running, "linked");
    assert_eq!(tablet.ok(&["whoami"])[0]["device_name"], "kitchen");
    assert_eq!(alice.ok(&["devices", "revoke", "kitchen"])[0]["change"], "revoked");
}

#[test]
fn a_revoked_device_is_cut_off_at_once_and_told_what_to_do() {
    let (_world, alice, tablet, bob) = with_a_tablet();
    let mut follower = tablet.follow_from_now();
    let revoked = alice.ok(&["devices", "revoke", "tablet"]);
    assert_eq!((&revoked[0]["event"], &revoked[0]["change"]), (&"device".into(), &"revoked".into()));
    assert_eq!(revoked[0]["name"], "tablet");
    assert_eq!(follower.running.wait(SOON).code(), Some(1), "{:?}", follower.running.err.all());
    let said = follower.running.err.all().join("\n");
    assert!(said.contains("revoked"), "{said}");
    let ended = tablet.run(&["receive"]);
    check_refused(&ended, "revoked");
    check_refused(&ended, "gureum link");
    assert_eq!(alice.ok(&["devices"]).len(), 1);
    bob.send(&alice, "without the tablet");
    assert_eq!(alice.receive_texts(), ["without the tablet"]);
    alice.send(&bob, "indeed");
    assert_eq!(bob.receive_texts(), ["indeed"]);
    check_refused(&alice.run(&["devices", "revoke", "tablet"]), "no device");
    let own = string(&alice.ok(&["whoami"])[0]["device"]);
    check_refused(&alice.run(&["devices", "revoke", &own]), "last device");
}

/// Runs a command as people do.
fn as_people_do(person: &Person, args: &[&str]) -> Running {
    Running::start(&mut person.command_for_people(args))
}

/// Runs a command as people do, and returns what it prints.
#[track_caller]
fn printed(person: &Person, args: &[&str]) -> String {
    let mut running = as_people_do(person, args);
    running.end_input();
    assert!(running.wait(SOON).success(), "{:?}", running.err.all());
    running.out.all().join("\n")
}

#[test]
fn of_the_conversations_that_a_revoked_device_was_in_those_are_counted_that_people_know() {
    let (_world, alice, tablet, _bob) = with_a_tablet();
    for device in [&alice, &tablet, &alice, &tablet] {
        let _ = device.receive();
    }
    let known = Vault::open(&alice.home, &KeySource::File).unwrap().conversations().unwrap();
    assert!(known.iter().any(|known| known.kind == ConversationKind::Own), "that of the devices is there: {known:?}");
    let said = printed(&alice, &["devices", "revoke", "tablet"]);
    assert!(said.ends_with("removed from 1 conversation"), "{said}");
}

#[test]
fn a_device_may_revoke_itself_and_the_others_remove_it() {
    let (_world, alice, tablet, bob) = with_a_tablet();
    assert_eq!(tablet.ok(&["devices", "revoke", "tablet"])[0]["change"], "revoked");
    check_refused(&tablet.run(&["receive"]), "revoked");
    bob.send(&alice, "only the desk");
    let came = alice.receive();
    assert_eq!(texts(&came), ["only the desk"]);
    let told = came.iter().find(|event| event["event"] == "device").expect("it is told");
    assert_eq!((&told["change"], &told["handle"]), (&"revoked".into(), &"alice".into()));
}

/// Runs `gureum recover` with words on its standard input.
pub(crate) fn recover(person: &Person, server: &str, words: &str) -> Ended {
    let mut running = Running::start(&mut person.command(&["recover", server, "--device-name", "new"]));
    running.type_line(words);
    running.end_input();
    let code = running.wait(SOON).code();
    let read = |line: &String| serde_json::from_str(line).unwrap_or(Value::Null);
    let events = running.out.all().iter().map(read).collect();
    Ended { code, events, said: running.err.all().join("\n"), took: std::time::Duration::ZERO }
}

#[test]
fn an_account_whose_devices_are_all_lost_comes_back_by_its_words() {
    let world = World::start();
    let (alice, bob) = (world.stranger("alice"), world.person("bob"));
    let registered = alice.ok(&["register", &world.invite(1), "--handle", "alice"]);
    let words = string(&registered[0]["recovery_words"]);
    let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
    alice.send(&bob, "before the loss");
    assert_eq!(bob.receive_texts(), ["before the loss"]);
    assert_eq!(tablet.receive_texts(), ["before the loss"]);
    fs::remove_dir_all(&tablet.home).unwrap();
    let stolen = Person::new("alice", world.directory("stolen"));
    fs::rename(&alice.home, &stolen.home).unwrap();

    let new = Person::new("alice", world.directory("new"));
    let mut misspelled: Vec<_> = words.split(' ').collect();
    misspelled[4] = "gureum";
    check_refused(&recover(&new, world.url(), &misspelled.join(" ")), "word 5");
    check_refused(&recover(&new, world.url(), &format!("{}wrong", "zoo ".repeat(11))), "recovery key");
    assert!(!new.home.exists(), "words that bring nothing back leave nothing behind");
    let recovered = recover(&new, world.url(), &words.to_uppercase());
    assert_eq!(recovered.code, Some(0), "{}", recovered.said);
    assert_eq!((&recovered.events[0]["event"], &recovered.events[0]["handle"]), (&"recovered".into(), &"alice".into()));
    assert_eq!(recovered.events[0]["account"], registered[0]["account"]);

    check_refused(&stolen.run(&["receive"]), "revoked");
    assert_eq!(new.ok(&["devices"]).len(), 1);
    new.send(&bob, "back again");
    let came = bob.receive();
    assert_eq!(texts(&came), ["back again"]);
    bob.send(&new, "welcome back");
    assert_eq!(new.receive_texts(), ["welcome back"]);
    assert_eq!(new.ok(&["safety-number", "bob"])[0]["number"], bob.ok(&["safety-number", "alice"])[0]["number"]);
    // The words serve again.
    let newer = Person::new("alice", world.directory("newer"));
    assert_eq!(recover(&newer, world.url(), &words).code, Some(0));
    check_refused(&new.run(&["receive"]), "revoked");
}

#[test]
fn what_others_send_while_an_account_comes_back_waits_and_arrives() {
    let world = World::start();
    let (alice, bob) = (world.stranger("alice"), world.person("bob"));
    let registered = alice.ok(&["register", &world.invite(1), "--handle", "alice"]);
    alice.send(&bob, "hello");
    assert_eq!(bob.receive_texts(), ["hello"]);
    let mut follower = bob.follow_from_now();
    let new = Person::new("alice", world.directory("new"));
    let recovered = recover(&new, world.url(), &string(&registered[0]["recovery_words"]));
    assert_eq!(recovered.code, Some(0), "{}", recovered.said);
    bob.send(&new, "to the new one");
    assert_eq!(new.receive_texts(), ["to the new one"]);
    new.send(&bob, "it came");
    follower.wait_for_text("it came");
    let _ = follower.interrupt();
}
