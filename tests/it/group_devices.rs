//! A person's devices in a group, by the real programs: linked, revoked, brought back, put back from a copy; and what
//! one of them reads, sends or leaves.

use std::fs;

use gureum_tests::person::{Person, gaps, named, number, string, texts};
use gureum_tests::wait::until_ms;
use gureum_tests::{Options, World};
use serde_json::Value;

use crate::copies::copy;
use crate::groups::{change, changes, people, shown};
use crate::link::{check_refused, recover};

/// How many devices of somebody are in the group, as a home has it.
#[track_caller]
fn devices_of(handle: &str, group: &str, person: &Person) -> u64 {
    let events = person.ok(&["group", "show", group]);
    let people = events[0]["people"].as_array().unwrap();
    number(&people.iter().find(|it| it["handle"] == handle).expect("they are in it")["devices"])
}

/// Alice with two homes, Bob and Carol, in a group that is older than the second home.
struct Club {
    world: World,
    alice: Person,
    tablet: Person,
    bob: Person,
    carol: Person,
    /// What brings Alice's account back.
    words: String,
    /// The group's id.
    id: String,
}

impl Club {
    fn begin(options: Options) -> Self {
        let world = World::start_with(options);
        let alice = world.stranger("alice");
        let invite = world.invite(1);
        let registered = alice.ok(&["register", &invite, "--handle", "alice", "--device-name", "desk"]);
        let [bob, carol] = ["bob", "carol"].map(|name| world.person(name));
        let made = alice.ok(&["group", "create", "club", "bob", "carol"]);
        alice.ok(&["send", "club", "before the tablet"]);
        let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
        let (words, id) = (string(&registered[0]["recovery_words"]), string(&made[0]["conversation"]));
        let club = Self { world, alice, tablet, bob, carol, words, id };
        // Whoever has come in renews its keys, of which the others hear.
        for _ in 0..2 {
            for person in [&club.alice, &club.tablet, &club.bob, &club.carol] {
                let _ = person.receive();
            }
        }
        club
    }
}

#[test]
fn a_linked_device_comes_into_the_group_and_its_sibling_shows_what_it_sends() {
    let club = Club::begin(Options::default());
    let Club { alice, tablet, bob, carol, .. } = &club;
    for person in [alice, tablet, bob, carol] {
        assert_eq!(devices_of("alice", "club", person), 2);
    }
    bob.ok(&["send", "club", "to all of you"]);
    for person in [alice, tablet, carol] {
        assert_eq!(person.receive_texts(), ["to all of you"]);
    }
    tablet.ok(&["send", "club", "from the tablet"]);
    for person in [bob, carol] {
        let came = person.receive();
        let [message] = named(&came, "message")[..] else { panic!("{came:#?}") };
        assert_eq!((&message["text"], &message["from"]), (&"from the tablet".into(), &"alice".into()));
    }
    let came = alice.receive();
    let [message] = named(&came, "message")[..] else { panic!("{came:#?}") };
    assert_eq!((&message["text"], &message["own"]), (&"from the tablet".into(), &true.into()));
    assert_eq!((&message["group"], &message["from"]), (&"club".into(), &"alice".into()));
    let history = texts(&tablet.ok(&["history", "club"]));
    assert_eq!(history, ["to all of you", "from the tablet"], "and nothing of before it came in");

    tablet.ok(&["group", "rename", "club", "Readers"]);
    assert_eq!(changes(&alice.receive()), [change("renamed", &[])], "who is an admin is so on all devices");
}

#[test]
fn a_revoked_device_is_out_of_the_group_and_the_others_go_on() {
    let club = Club::begin(Options::default());
    let Club { alice, tablet, bob, carol, .. } = &club;
    alice.ok(&["devices", "revoke", "tablet"]);
    assert_eq!(devices_of("alice", "club", alice), 1);
    bob.ok(&["send", "club", "without the tablet"]);
    assert_eq!(alice.receive_texts(), ["without the tablet"]);
    alice.ok(&["send", "club", "indeed"]);
    assert_eq!(bob.receive_texts(), ["indeed"]);
    assert_eq!(carol.receive_texts(), ["without the tablet", "indeed"]);
    for person in [bob, carol] {
        assert_eq!(devices_of("alice", "club", person), 1);
    }
    for command in [["receive"].as_slice(), &["send", "club", "still here?"]] {
        check_refused(&tablet.run(command), "revoked");
    }
    assert!(texts(&tablet.ok(&["history", "club"])).is_empty(), "it has read nothing more");
    assert!(texts(&bob.receive()).is_empty(), "and said nothing more");
}

#[test]
fn an_account_that_comes_back_by_its_words_is_in_the_group_again_as_what_it_was() {
    let club = Club::begin(Options::default());
    let Club { world, alice, tablet, bob, carol, .. } = &club;
    let stolen = Person::new("alice", world.directory("stolen"));
    fs::rename(&alice.home, &stolen.home).unwrap();
    fs::remove_dir_all(&tablet.home).unwrap();
    let new = Person::new("alice", world.directory("new"));
    let recovered = recover(&new, world.url(), &club.words);
    assert_eq!(recovered.code, Some(0), "{}", recovered.said);
    let _ = new.receive();
    let everybody = [("alice", "admin"), ("bob", "member"), ("carol", "member")];
    assert_eq!(shown(&new, &club.id), ("club".to_owned(), people(&everybody)));
    bob.ok(&["send", "club", "welcome back"]);
    carol.ok(&["send", "club", "we missed you"]);
    assert_eq!(new.receive_texts(), ["welcome back", "we missed you"]);
    new.ok(&["group", "rename", "club", "Readers"]);
    new.ok(&["send", "Readers", "here I am"]);
    let came = bob.receive();
    assert_eq!(texts(&came), ["we missed you", "here I am"]);
    assert!(changes(&came).contains(&change("renamed", &[])), "{came:#?}");
    assert_eq!(devices_of("alice", "Readers", bob), 1, "the lost ones are out");
    check_refused(&stolen.run(&["receive"]), "revoked");
}

#[test]
fn a_home_that_is_put_back_is_in_the_group_again_and_told_what_it_has_missed() {
    // Commits outlive all this, whatever it takes: it is messages alone that are gone.
    let options = Options { retention: Some("5s"), commit_retention: Some("10m"), ..Options::default() };
    let club = Club::begin(options);
    let Club { world, alice, tablet, bob, .. } = &club;
    bob.ok(&["send", "club", "before the copy"]);
    let _ = tablet.receive();
    let older = world.directory("older");
    copy(&tablet.home, &older);
    let sent = ["three", "four"].map(|text| bob.ok(&["send", "club", text]));
    let _ = tablet.receive();
    until_ms(number(&sent[1][0]["server_time_ms"]) + 5_500);
    fs::remove_dir_all(&tablet.home).unwrap();
    copy(&older, &tablet.home);

    let told = tablet.receive();
    assert_eq!(named(&told, "restored").len(), 1, "{told:#?}");
    assert_eq!(gaps(&told), [(2, "expired".to_owned())], "{told:#?}");
    let is_in_again = |event: &&Value| event["event"] == "rejoined" && event["conversation"] == club.id.as_str();
    assert_eq!(told.iter().filter(is_in_again).count(), 1, "{told:#?}");
    let device = tablet.ok(&["whoami"])[0]["device"].clone();
    for person in [alice, bob] {
        let seen = person.receive();
        let rejoined: Vec<_> = seen.iter().filter(is_in_again).collect();
        let [rejoined] = rejoined[..] else { panic!("{seen:#?}") };
        assert_eq!((&rejoined["by"], &rejoined["device"]), (&"alice".into(), &device));
    }
    let [mut at_alice, mut at_tablet, mut at_bob] = [alice, tablet, bob].map(Person::follow_from_now);
    tablet.ok(&["send", "club", "here again"]);
    at_alice.wait_for_text("here again");
    at_bob.wait_for_text("here again");
    bob.ok(&["send", "club", "good to read you"]);
    at_alice.wait_for_text("good to read you");
    at_tablet.wait_for_text("good to read you");
    for follower in [at_alice, at_tablet, at_bob] {
        let _ = follower.interrupt();
    }
}

/// Who has told that they have read a message.
fn read_by(events: &[Value], message_id: &Value) -> Vec<String> {
    let is_it =
        |event: &&Value| event["event"] == "receipt" && event["kind"] == "read" && event["message_id"] == *message_id;
    let mut by: Vec<_> = events.iter().filter(is_it).map(|event| string(&event["by"])).collect();
    by.sort_unstable();
    by
}

#[test]
fn what_one_device_reads_in_the_group_is_read_on_its_sibling_and_told_to_who_wrote_it() {
    let club = Club::begin(Options::default());
    let Club { alice, tablet, bob, carol, .. } = &club;
    let sent = bob.ok(&["send", "club", "read me"]);
    for person in [alice, tablet, carol] {
        assert_eq!(person.receive_texts(), ["read me"]);
    }
    let marked = alice.ok(&["read", "club"]).remove(0);
    assert_eq!((&marked["with"], &marked["conversation"]), (&"club".into(), &club.id.as_str().into()));
    let came = tablet.receive();
    let [read] = named(&came, "read")[..] else { panic!("{came:#?}") };
    assert_eq!((&read["conversation"], &read["number"]), (&marked["conversation"], &marked["number"]));
    assert_eq!(read["unread"], 0);
    assert!(named(&tablet.receive(), "read").is_empty(), "told once");
    // An id stands for the group as its name does.
    let by_id = carol.ok(&["read", &club.id]).remove(0);
    assert_eq!((&by_id["with"], &by_id["conversation"]), (&club.id.as_str().into(), &marked["conversation"]));
    assert_eq!(by_id["number"], marked["number"]);
    assert_eq!(read_by(&bob.ok(&["receive"]), &sent[0]["message_id"]), ["alice", "carol"], "once of each");
    let history = bob.ok(&["history", "club"]);
    let own = history.iter().find(|event| event["text"] == "read me").unwrap();
    for field in ["delivered_to", "read_by"] {
        let mut who: Vec<_> = own[field].as_array().unwrap().iter().map(string).collect();
        who.sort_unstable();
        assert_eq!(who, ["alice", "carol"], "{field}");
    }
    let unknown = bob.run(&["read", "nobody"]);
    check_refused(&unknown, "no conversation with nobody");
    assert!(unknown.events.is_empty(), "{:#?}", unknown.events);
}

#[test]
fn a_group_that_one_device_leaves_its_sibling_has_left_too() {
    let club = Club::begin(Options::default());
    let Club { alice, tablet, bob, carol, .. } = &club;
    assert_eq!(changes(&alice.ok(&["group", "leave", "club"])), [change("left", &["alice"])]);
    assert_eq!(changes(&tablet.receive()), [change("left", &["alice"])]);
    check_refused(&tablet.run(&["send", "club", "still there?"]), "not in the group");
    assert!(tablet.ok(&["group", "list"]).is_empty());
    bob.ok(&["send", "club", "just us"]);
    assert_eq!(carol.receive_texts(), ["just us"]);
    let left: Vec<_> = shown(carol, "club").1.into_iter().map(|(handle, _)| handle).collect();
    assert_eq!(left, ["bob", "carol"]);
    for device in [alice, tablet] {
        assert!(device.receive_texts().is_empty());
    }
}
