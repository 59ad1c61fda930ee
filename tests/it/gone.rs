//! Accounts that an operator deletes, or their owners: cut off at once, told to everybody who sends, and nobody is held up
//! by them.

use gureum_proto::{AccountId, Code, FindBy, Position, Relation, Request, Response};
use gureum_server::store::{Family, key};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::operator::{Said, gureumd};
use gureum_tests::person::{Person, texts};
use gureum_tests::prove::raw::{each, open};
use gureum_tests::raw::Raw;
use serde_json::Value;

use crate::phone::Town;
use crate::push::{done, tell};

fn delete(world: &World, handle: &str) -> Said {
    gureumd(["account", "delete", handle, "--data-dir", world.data_dir().to_str().unwrap()])
}

/// What events tell of accounts that are gone: who, and whether this account may remove them.
fn gone(events: &[Value]) -> Vec<(Value, Value)> {
    let told = events.iter().filter(|event| event["event"] == "accounts_gone");
    told.map(|event| (event["who"].clone(), event["admin"].clone())).collect()
}

fn names(who: &[&str]) -> Value {
    who.iter().copied().collect()
}

#[test]
fn a_group_goes_on_without_somebody_who_was_deleted() {
    let mut world = World::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    alice.ok(&["group", "create", "Book club", "bob", "carol"]);
    alice.ok(&["send", "bob", "to you alone"]);
    let _ = (bob.receive(), carol.receive());
    let said = delete(&world, "bob").ok();
    assert!(said.out.contains("of bob is deleted; 1 device was cut off"), "{}", said.out);
    assert!(delete(&world, "bob").err.contains("does not exist any more"));

    let sent = alice.ok(&["send", "Book club", "who is here?"]);
    assert_eq!((&sent[0]["event"], &sent[0]["gone"]), (&"sent".into(), &names(&["bob"])));
    assert_eq!(gone(&alice.receive()), [(names(&["bob"]), Value::Bool(true))]);
    assert_eq!(texts(&carol.receive()), ["who is here?"]);
    let sent = carol.ok(&["send", "Book club", "carol is"]);
    assert_eq!(sent[0]["gone"], names(&["bob"]));
    assert_eq!(gone(&carol.receive()), [(names(&["bob"]), Value::Bool(false))]);

    let refused = alice.run(&["send", "bob", "still there?"]);
    assert!(refused.code == Some(1) && refused.said.contains("does not exist any more"), "{refused:?}");
    let refused = bob.run(&["send", "alice", "from nowhere"]);
    assert!(refused.code == Some(1) && refused.said.contains("does not exist any more"), "{refused:?}");

    alice.ok(&["group", "remove", "Book club", "bob"]);
    let sent = alice.ok(&["send", "Book club", "without bob"]);
    assert_eq!(sent[0]["gone"], Value::Null);
    assert!(gone(&alice.receive()).is_empty(), "it was told once");
    assert_eq!(texts(&carol.receive()), ["without bob"]);

    world.stop();
    let report = gureumd(["check", world.data_dir().to_str().unwrap(), "--json"]).ok().json();
    assert_eq!(report["clean"], true, "{report:#}");
}

#[tokio::test]
async fn a_deleted_account_is_cut_off_and_nobody_finds_it_or_is_given_its_name() {
    let mut world = World::start();
    let (alice, bob) = (Device::registered(&world, "alice").await, Device::registered(&world, "bob").await);
    let (bobs, _) = bob.connect(world.url(), true, Position::default()).await;
    assert!(delete(&world, "nobody").err.contains("nobody is called nobody here"));
    let _ = delete(&world, "bob").ok();
    assert_eq!(bobs.ended().await.code, Code::AccountGone);

    for _ in 0..2 {
        let mut again = Raw::dial(world.url()).await;
        let hello = bob.hello(&again, &bob.claim(true, Position::default()));
        again.write(&hello).await;
        assert_eq!(again.ended().await.code, Code::AccountGone);

        let (raw, _) = alice.connect(world.url(), false, Position::default()).await;
        let by_handle = Request::FindAccount { by: FindBy::Handle("bob".parse().unwrap()), log_from: 0 };
        is_refused(&raw.request(&by_handle).await, Code::NotFound);
        let claim = Request::ClaimKeyPackages { accounts: vec![bob.account] };
        is_refused(&raw.request(&claim).await, Code::NotFound);
        // Groups that it was in are judged by its log.
        let by_id = Request::FindAccount { by: FindBy::Account(bob.account), log_from: 0 };
        assert!(matches!(raw.request(&by_id).await, Response::Account(found) if found.log_length == 1));

        let mut raw = Raw::dial(world.url()).await;
        let refused = Device::new().register(&mut raw, &world.invite(1), "bob").await;
        assert!(refused.is_err_and(|refusal| refusal.code == Code::HandleTaken));
        world.kill_and_restart();
    }
}

#[track_caller]
fn is_refused(response: &Response, expected: Code) {
    assert!(matches!(response, Response::Refused(refusal) if refusal.code == expected), "{response:?}");
}

#[test]
fn who_deletes_the_own_account_is_gone_for_everybody_and_keeps_the_history() {
    let mut world = World::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    let tablet = bob.link(world.url(), world.directory("tablet"), "tablet");
    bob.send(&alice, "to you alone");
    alice.ok(&["group", "create", "Book club", "bob", "carol"]);
    let _ = (alice.receive(), bob.receive(), carol.receive());

    let unconfirmed = bob.run(&["account", "delete"]);
    assert!(unconfirmed.code == Some(1) && unconfirmed.said.contains("--yes bob"), "{unconfirmed:?}");
    let wrong = bob.run(&["account", "delete", "--yes", "alice"]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    bob.send(&alice, "still here");
    let deleted = bob.ok(&["account", "delete", "--yes", "bob"]);
    assert_eq!((&deleted[0]["event"], &deleted[0]["handle"]), (&"account_deleted".into(), &"bob".into()));

    for home in [&bob, &tablet] {
        let refused = home.run(&["send", "alice", "from nowhere"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
    }
    assert_eq!(texts(&bob.history()), ["to you alone", "still here"], "what was said is the client's");
    assert_eq!(texts(&alice.receive()), ["still here"]);
    let sent = alice.ok(&["send", "Book club", "who is here?"]);
    assert_eq!(sent[0]["gone"], names(&["bob"]));
    assert_eq!(gone(&alice.receive()), [(names(&["bob"]), Value::Bool(true))]);
    assert_eq!(texts(&carol.receive()), ["who is here?"]);
    let refused = alice.run(&["send", "bob", "still there?"]);
    assert!(refused.code == Some(1) && refused.said.contains("does not exist any more"), "{refused:?}");
    let again = Person::new("bob", world.directory("again"));
    let refused = again.run(&["register", &world.invite(1), "--handle", "bob"]);
    assert_eq!(refused.code, Some(1), "nobody is taken for him: {refused:?}");

    world.stop();
    let report = gureumd(["check", world.data_dir().to_str().unwrap(), "--json"]).ok().json();
    assert_eq!(report["clean"], true, "{report:#}");
}

/// What a server that does not run holds of an account's devices, targets, keys, number and decisions: the families, one
/// name for each record.
fn held(world: &World, account: AccountId) -> Vec<&'static str> {
    let database = open(&world.data_dir().join("db"));
    let mut found = Vec::new();
    for (family, range) in [
        (Family::Cursor, key::cursors(&account)),
        (Family::Sent, key::all_sent(&account)),
        (Family::Push, key::push_of(&account)),
        (Family::KeyPackage, key::account_key_packages(&account)),
        (Family::Directory, key::relations(&account)),
        (Family::Directory, key::preferences(&account)),
    ] {
        each(&database, family, |entry, _| {
            if range.as_range().contains(&entry) {
                found.push(family.name());
            }
        });
    }
    let own = [key::phone_of(&account), key::lock_of(&account)];
    each(&database, Family::Directory, |entry, value| {
        let is_number = entry.first() == Some(&b'n') && value.windows(16).any(|part| part == account.as_bytes());
        if is_number || own.iter().any(|key| key.as_slice() == entry) {
            found.push(Family::Directory.name());
        }
    });
    found
}

#[tokio::test]
async fn nothing_is_kept_of_the_devices_targets_number_and_decisions_of_an_account_that_is_deleted() {
    const NUMBER: &str = "+821020000007";
    let mut town = Town::start(&["--registration", "phone"]);
    let bob = town.registered("bob", NUMBER, Some(1)).await;
    let alice = town.registered("alice", "+821020000008", None).await;
    let (raw, _) = bob.connect(town.world.url(), true, Position::default()).await;
    bob.publish(&raw, 3).await;
    let (alices, _) = alice.connect(town.world.url(), false, Position::default()).await;
    let talk = alice.begin(&alices, &bob).await;
    let accepts = Request::SetConversation { conversation: talk.id, accepted: true, muted_until_ms: 0 };
    for request in [
        accepts,
        Request::SetPushTarget(town.outside.web.subscribe().target(true)),
        Request::SetRelation { account: alice.account, relation: Relation::Accepted },
    ] {
        done(&raw, request).await;
    }
    town.world.kill();
    let before = held(&town.world, bob.account);
    for family in [Family::Cursor, Family::Push, Family::KeyPackage, Family::Directory] {
        assert!(before.contains(&family.name()), "{before:?}");
    }
    // The number and the account's own, the lock, the relation, the preference.
    assert_eq!(before.iter().filter(|family| **family == Family::Directory.name()).count(), 5, "{before:?}");
    town.world.restart();

    let (raw, _) = bob.connect(town.world.url(), true, Position::default()).await;
    let wrong = raw.request(&Request::DeleteAccount { handle: "alice".parse().unwrap() }).await;
    assert!(matches!(&wrong, Response::Refused(_)), "{wrong:?}");
    tell(&raw, &Request::DeleteAccount { handle: "bob".parse().unwrap() }).await;
    assert_eq!(raw.ended().await.code, Code::AccountGone);
    let (alices, _) = alice.connect(town.world.url(), false, Position::default()).await;
    let by_phone = Request::FindAccount { by: FindBy::Phone(NUMBER.parse().unwrap()), log_from: 0 };
    is_refused(&alices.request(&by_phone).await, Code::NotFound);
    town.world.kill();
    assert_eq!(held(&town.world, bob.account), Vec::<&str>::new());
    town.world.restart();

    // The number is free, and no lock is on it.
    let _carol = town.registered("carol", NUMBER, None).await;
}

#[test]
fn an_account_is_deleted_by_a_running_server_alone() {
    let mut world = World::start();
    let _bob = world.person("bob");
    world.stop();
    let said = delete(&world, "bob");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("the running server"), "{}", said.err);
    let said = delete(&world, "Not a handle");
    assert!(said.err.contains("no handle"), "{}", said.err);
}
