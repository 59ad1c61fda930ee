//! Conversations of many, by the real programs: made, changed from several sides at once, left; and what a member tries
//! who may not change them.

use gureum_proto::{Code, DeviceId, GroupState, Position, Request, Response, SignedLeave};
use gureum_tests::World;
use gureum_tests::child::Running;
use gureum_tests::device::Device;
use gureum_tests::person::{Person, string, texts};
use gureum_tests::raw::Raw;
use gureum_tests::wait::SOON;
use serde_json::Value;

use crate::commits::submit;
use crate::revoke::next_welcome;

const START: Position = Position { seq: 0, count: 0 };

/// What events tell of groups: what has changed, and whom it concerns.
pub(crate) fn changes(events: &[Value]) -> Vec<(String, Vec<String>)> {
    let groups = events.iter().filter(|event| event["event"] == "group" && event["change"].is_string());
    groups.map(|event| (string(&event["change"]), strings(&event["who"]))).collect()
}

fn strings(values: &Value) -> Vec<String> {
    values.as_array().unwrap().iter().map(string).collect()
}

pub(crate) fn change(word: &str, who: &[&str]) -> (String, Vec<String>) {
    (word.to_owned(), who.iter().map(|handle| (*handle).to_owned()).collect())
}

/// A group as somebody's home has it: its name, and who is in it with which role.
#[track_caller]
pub(crate) fn shown(person: &Person, group: &str) -> (String, Vec<(String, String)>) {
    let events = person.ok(&["group", "show", group]);
    let people = events[0]["people"].as_array().unwrap().iter();
    (string(&events[0]["name"]), people.map(|it| (string(&it["handle"]), string(&it["role"]))).collect())
}

pub(crate) fn people(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(handle, role)| ((*handle).to_owned(), (*role).to_owned())).collect()
}

#[test]
fn the_life_of_a_group() {
    let world = World::start();
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    let made = alice.ok(&["group", "create", "Book club", "bob", "carol"]);
    assert_eq!((changes(&made), made.len()), (vec![change("created", &["bob", "carol"])], 1));
    assert_eq!((&made[0]["name"], &made[0]["by"]), (&"Book club".into(), &"alice".into()));
    for (person, name) in [(&bob, "bob"), (&carol, "carol")] {
        assert_eq!(changes(&person.receive()), [change("joined", &[name])]);
    }

    alice.ok(&["send", "Book club", "before dave"]);
    let came = bob.receive();
    let message = came.iter().find(|event| event["event"] == "message").unwrap();
    assert_eq!((&message["text"], &message["group"]), (&"before dave".into(), &"Book club".into()));
    assert_eq!((&message["from"], &message["own"]), (&"alice".into(), &false.into()));
    alice.ok(&["group", "add", "Book club", "dave"]);
    alice.ok(&["send", "Book club", "with dave"]);
    assert_eq!(dave.receive_texts(), ["with dave"], "nothing of before");
    assert_eq!(changes(&bob.receive()), [change("added", &["dave"])]);
    assert_eq!(carol.receive_texts(), ["before dave", "with dave"]);

    let refused = bob.run(&["group", "rename", "Book club", "Bob's"]);
    assert!(refused.code == Some(1) && refused.said.contains("only an admin"), "{}", refused.said);
    let admins = alice.ok(&["group", "admin", "Book club", "bob"]);
    assert_eq!(changes(&admins), [change("admins", &["alice", "bob"])]);
    let renamed = bob.ok(&["group", "rename", "Book club", "Readers"]);
    assert_eq!((changes(&renamed), &renamed[0]["name"]), (vec![change("renamed", &[])], &"Readers".into()));
    let heard = changes(&carol.receive());
    assert_eq!(heard, [change("admins", &["alice", "bob"]), change("renamed", &[])]);
    let everybody = [("alice", "admin"), ("bob", "admin"), ("carol", "member"), ("dave", "member")];
    assert_eq!(shown(&carol, "Readers"), ("Readers".to_owned(), people(&everybody)));

    assert_eq!(changes(&bob.ok(&["group", "remove", "Readers", "carol"])), [change("removed", &["carol"])]);
    alice.ok(&["send", "Readers", "without carol"]);
    let came = carol.receive();
    assert_eq!((texts(&came), changes(&came)), (vec![], vec![change("removed", &["carol"])]));
    let refused = carol.run(&["send", "Readers", "still there?"]);
    assert!(refused.code == Some(1) && refused.said.contains("not in the group"), "{}", refused.said);
    assert_eq!(carol.ok(&["group", "list"]), Vec::<Value>::new());
    let left = &carol.ok(&["group", "show", "Readers"])[0];
    assert_eq!((&left["state"], &left["members"], &left["people"]), (&"left".into(), &0.into(), &Value::Array(vec![])));
    assert_eq!(texts(&carol.ok(&["history", "Readers"])), ["before dave", "with dave"], "it stays hers");

    assert_eq!(changes(&dave.ok(&["group", "leave", "Readers"])), [change("left", &["dave"])]);
    alice.ok(&["send", "Readers", "just us"]);
    let came = bob.receive();
    assert_eq!(texts(&came), ["without carol", "just us"]);
    assert!(changes(&came).contains(&change("left", &["dave"])), "{came:#?}");
    assert_eq!(dave.receive_texts(), ["without carol"], "which came before he left");
    assert_eq!(shown(&alice, "Readers").1, people(&[("alice", "admin"), ("bob", "admin")]));
    let listed = alice.ok(&["group", "list"]);
    assert_eq!((&listed[0]["members"], &listed[0]["admin"], listed.len()), (&2.into(), &true.into(), 1));
    assert_eq!(listed[0]["state"], "active");

    let groups = |source: &str| world.admin().count(&format!("gureum_groups_total{{source=\"{source}\"}}"));
    assert!(groups("memory") > groups("store"), "a busy group is read and verified once");
}

#[test]
fn who_changes_a_group_at_once_all_succeed_and_everybody_ends_up_with_the_same() {
    let world = World::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    for name in ["dora", "emil", "fred"] {
        let _ = world.person(name);
    }
    let made = alice.ok(&["group", "create", "club", "bob", "carol", "fred"]);
    let id = string(&made[0]["conversation"]);
    let (_, _) = (bob.receive(), carol.receive());
    alice.ok(&["group", "admin", &id, "bob", "carol"]);
    for person in [&bob, &carol] {
        let _ = person.receive();
    }
    let commands: [(&Person, &[&str]); 4] = [
        (&alice, &["group", "add", &id, "dora"]),
        (&bob, &["group", "add", &id, "emil"]),
        (&carol, &["group", "rename", &id, "the club"]),
        (&bob, &["group", "remove", &id, "fred"]),
    ];
    let mut running = commands.map(|(person, args)| Running::start(&mut person.command(args)));
    for command in &mut running {
        assert!(command.wait(SOON).success(), "{:?}", command.err.all());
    }
    let everybody = [("alice", "admin"), ("bob", "admin"), ("carol", "admin"), ("dora", "member"), ("emil", "member")];
    for person in [&alice, &bob, &carol] {
        let _ = person.receive();
        assert_eq!(shown(person, &id), ("the club".to_owned(), people(&everybody)));
    }
    carol.ok(&["send", "the club", "all there?"]);
    for person in [&alice, &bob] {
        assert_eq!(person.receive_texts(), ["all there?"]);
    }
}

#[test]
fn what_cannot_be_done_for_one_is_said_and_the_rest_is_done() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let ended = alice.run(&["group", "create", "club", "nobody", "bob"]);
    assert!(ended.code == Some(1) && ended.said.contains("nobody"), "{}", ended.said);
    assert_eq!(changes(&ended.events), [change("created", &["bob"])]);
    assert_eq!(changes(&bob.receive()), [change("joined", &["bob"])]);
    let refused: [(&[&str], &str); 4] = [
        (&["group", "add", "bob", "bob"], "no group"),
        (&["group", "show", "elsewhere"], "elsewhere"),
        (&["send", "Elsewhere", "hello"], "Elsewhere"),
        (&["group", "remove", "club", "alice"], "leave"),
    ];
    for (args, says) in refused {
        let ended = alice.run(args);
        assert!(ended.code == Some(1) && ended.said.contains(says), "{args:?}: {}", ended.said);
        assert!(ended.events.is_empty(), "{:#?}", ended.events);
    }
}

#[test]
fn a_groups_name_that_is_somebodys_handle_is_nobody_until_it_is_said_which() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let id = string(&alice.ok(&["group", "create", "carol", "bob"])[0]["conversation"]);
    alice.ok(&["send", "carol", "to the group"]);
    let carol = world.person("carol");
    let refused = alice.run(&["send", "carol", "to whom?"]);
    assert!(refused.code == Some(1) && refused.said.contains(&id), "{}", refused.said);
    alice.ok(&["send", &id, "to the group again"]);
    alice.ok(&["safety-number", "carol"]);
    alice.ok(&["send", "carol", "to carol"]);
    assert_eq!(carol.receive_texts(), ["to carol"]);
    assert_eq!(bob.receive_texts(), ["to the group", "to the group again"]);
}

#[test]
fn what_is_typed_to_a_group_by_its_name_while_the_server_is_away_goes_out_when_it_is_back() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    alice.ok(&["group", "create", "club", "bob"]);
    alice.ok(&["send", "club", "before"]);
    alice.ok(&["group", "create", "unasked", "bob"]);
    assert!(world.stop().success());
    let refused = alice.run(&["chat", "unasked"]);
    assert!(refused.code == Some(1) && refused.said.contains("name it by its id"), "{}", refused.said);
    let mut chat = Running::start(&mut alice.command(&["chat", "club"]));
    let shows = |text: &'static str| move |line: &str| line.contains(text).then_some(());
    chat.wait_for("the history", shows("before"));
    chat.type_line("while it was away");
    chat.wait_for("that it is kept", shows("is kept"));
    world.restart();
    let mut at_bob = bob.follow();
    at_bob.wait_for_text("while it was away");
    assert_eq!(texts(&at_bob.interrupt()), ["before", "while it was away"]);
}

#[test]
fn a_group_called_as_somebody_but_for_the_case_gets_nothing_that_may_be_meant_for_them() {
    let world = World::start();
    let (alice, bob) = world.pair();
    // Whoever made it and added alice may have wanted just that.
    let trap = string(&bob.ok(&["group", "create", "Bob", "alice"])[0]["conversation"]);
    let _ = alice.receive();
    let refused = alice.run(&["send", "Bob", "a secret"]);
    let names_both = refused.said.contains(&trap) && refused.said.contains("say bob");
    assert!(refused.code == Some(1) && names_both, "{}", refused.said);
    alice.ok(&["send", &trap, "to the group"]);
    alice.ok(&["send", "bob", "to bob"]);
    assert_eq!(bob.receive_texts(), ["to the group", "to bob"]);

    // Who is not known here may be known to the server.
    let id = string(&alice.ok(&["group", "create", "Carol", "bob"])[0]["conversation"]);
    alice.ok(&["send", "Carol", "nobody is called that"]);
    let _carol = world.person("carol");
    let refused = alice.run(&["send", "Carol", "to whom?"]);
    let names_both = refused.said.contains(&id) && refused.said.contains("safety-number carol");
    assert!(refused.code == Some(1) && names_both, "{}", refused.said);
    assert_eq!(bob.receive_texts(), ["nobody is called that"]);
}

#[test]
fn a_group_with_somebodys_handle_for_a_name_is_managed_by_its_name() {
    let world = World::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    alice.ok(&["send", "bob", "hello"]);
    alice.ok(&["group", "create", "bob", "carol"]);
    assert_eq!(changes(&alice.ok(&["group", "add", "bob", "bob"])), [change("added", &["bob"])]);
    let everybody = [("alice", "admin"), ("bob", "member"), ("carol", "member")];
    assert_eq!(shown(&alice, "bob"), ("bob".to_owned(), people(&everybody)));
    assert_eq!(changes(&bob.receive()), [change("joined", &["bob"])]);
    assert_eq!(changes(&alice.ok(&["group", "rename", "bob", "alice"])), [change("renamed", &[])]);
    assert_eq!(shown(&alice, "alice").0, "alice", "nor is one's own handle in the way");
    let _ = carol.receive();
    assert_eq!(changes(&carol.ok(&["group", "leave", "alice"])), [change("left", &["carol"])]);
}

async fn request(raw: &Raw, request: Request) -> Result<Response, Code> {
    match raw.request(&request).await {
        Response::Refused(refusal) => Err(refusal.code),
        answer => Ok(answer),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_is_no_admin_changes_nothing_and_leaves_by_its_own_word_alone() {
    let world = World::start();
    let alice = world.person("alice");
    let mut bob = Device::registered(&world, "bob").await;
    let (mut raw, _) = bob.connect(world.url(), true, START).await;
    let mut frames = raw.delivery().await;
    bob.publish(&raw, 1).await;
    let ok = |args: &[&str]| tokio::task::block_in_place(|| alice.ok(args));
    ok(&["group", "create", "club", "bob"]);
    let (id, welcome) = next_welcome(&mut frames).await;
    let mut bobs = bob.join(&raw, id, &welcome).await;

    let state = GroupState::new("bob's", [bob.account]).unwrap();
    let restates = bob.restate(&mut bobs, &state, None);
    assert_eq!(submit(&raw, &restates).await, Err(Code::CommitInvalid));
    bob.clear_own(&mut bobs);
    let device: DeviceId = string(&ok(&["whoami"])[0]["device"]).parse().unwrap();
    let removes = bob.remove(&mut bobs, device);
    assert_eq!(submit(&raw, &removes).await, Err(Code::CommitInvalid));
    bob.clear_own(&mut bobs);

    let genuine = bob.leave(&bobs);
    let forged = SignedLeave::sign(genuine.leave().clone(), &Device::new().proof);
    let leave = |leave: &SignedLeave| Request::LeaveConversation { conversation: id, leave: leave.clone() };
    assert!(request(&raw, leave(&forged)).await.is_err());
    for _ in 0..2 {
        assert_eq!(request(&raw, leave(&genuine)).await, Ok(Response::ConversationLeft), "twice is once");
    }
    let late = bob.encrypt(&mut bobs, b"after leaving");
    let sent = raw.send(&[late]).await;
    assert_eq!(sent[0].result.as_ref().map_err(|refusal| refusal.code).unwrap_err(), Code::NotMember);
    assert_eq!(request(&raw, Request::ReadGroup { conversation: id }).await, Err(Code::NotMember));
    ok(&["send", "club", "alone now"]);
    let left = tokio::task::block_in_place(|| shown(&alice, "club"));
    assert_eq!(left.1, people(&[("alice", "admin")]));
}
