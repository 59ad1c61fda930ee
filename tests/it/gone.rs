//! Accounts that an operator deletes: cut off at once, told to everybody who sends, and nobody is held up by them.

use gureum_proto::{Code, FindBy, Position, Request, Response};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::operator::{Said, gureumd};
use gureum_tests::person::texts;
use gureum_tests::raw::Raw;
use serde_json::Value;

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
