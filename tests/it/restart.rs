//! The server goes and comes back: clients are told, and go on by themselves.

use std::time::Instant;

use gureum_proto::{Code, Position, ServerFrame};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::person::texts;
use gureum_tests::wait::{SOON, eventually};

#[tokio::test]
async fn a_server_that_stops_says_when_to_come_back_and_closes_with_its_code() {
    let mut world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let (mut raw, _) = alice.connect(world.url(), true, Position::default()).await;
    let started = Instant::now();
    world.begin_to_stop();
    match raw.frame().await {
        ServerFrame::Drain { come_back_ms } => assert!((500..=5_000).contains(&come_back_ms), "{come_back_ms}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(raw.ended().await.code, Code::Stopping);
    assert!(world.wait_for_end().success());
    println!("stopped in {:?}", started.elapsed());
}

#[test]
fn who_follows_comes_back_after_a_stop_and_after_a_kill() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    let mut follower = bob.follow_from_now();
    alice.send(&bob, "before");
    follower.wait_for_text("before");

    assert!(world.stop().success());
    world.restart();
    alice.send(&bob, "after a stop");
    follower.wait_for_text("after a stop");

    world.kill_and_restart();
    alice.send(&bob, "after a kill");
    follower.wait_for_text("after a kill");
    assert_eq!(texts(&follower.interrupt()), ["before", "after a stop", "after a kill"]);
    assert_eq!(texts(&bob.history()), ["before", "after a stop", "after a kill"]);
}

#[test]
fn both_sides_restart_and_the_talk_goes_on() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    for round in 0..3 {
        alice.send(&bob, &format!("{round} from alice"));
        assert!(world.stop().success());
        world.restart();
        assert_eq!(bob.receive_texts(), [format!("{round} from alice")]);
        bob.send(&alice, &format!("{round} from bob"));
        world.kill_and_restart();
        assert_eq!(alice.receive_texts(), [format!("{round} from bob")]);
    }
    assert_eq!(alice.talk(), bob.talk());
    assert_eq!(alice.talk().len(), 6);
}

#[test]
fn the_certificate_and_the_invites_outlive_a_restart() {
    let mut world = World::start();
    let (url, invite) = (world.url().to_owned(), world.invite(1));
    world.kill_and_restart();
    assert_eq!(world.url(), url);
    let alice = world.person_with("alice", &invite);
    let bob = world.stranger("bob");
    let used = bob.run(&["register", &invite, "--handle", "bob"]);
    assert_eq!(used.code, Some(1));
    world.kill_and_restart();
    assert_eq!(bob.run(&["register", &invite, "--handle", "bob"]).code, Some(1), "used up for good");
    assert_eq!(alice.ok(&["whoami"]).len(), 1);
}

#[test]
fn an_idle_server_is_ready_and_says_so() {
    let mut world = World::start();
    assert_eq!(world.admin().get("/healthz").0, 200);
    assert!(world.admin().ready().0);
    assert!(world.admin().get("/metrics").1.contains("gureum_build_info"));
    assert_eq!(world.admin().get("/nothing").0, 404);
    let started = Instant::now();
    assert!(world.stop().success());
    assert!(started.elapsed() < SOON);
    world.restart();
    eventually("ready again", SOON, || world.admin().ready().0.then_some(()));
}
