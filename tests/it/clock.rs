//! The clock of a real server: a long time off must be believed before anything expires, and an absurd one never is.

use std::fs;

use gureum_proto::Position;
use gureum_tests::World;
use gureum_tests::admin::Admin;
use gureum_tests::child::{Running, binary};
use gureum_tests::wait::{SOON, eventually, now_ms};

use crate::delivery::{Two, next_body};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const START: Position = Position { seq: 0, count: 0 };

fn put_clock(world: &World, time_ms: u64) {
    fs::write(world.data_dir().join("clock"), format!("{time_ms}\n")).unwrap();
}

fn keys(world: &World) -> usize {
    fs::read_dir(world.data_dir().join("keys")).unwrap().count()
}

/// A server of a directory that says why it is not ready yet, at a free port.
fn doubtful(world: &World) -> (Running, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = std::process::Command::new(binary("gureumd"));
    command.arg("serve").arg("--data-dir").arg(world.data_dir());
    command.args(["--listen", "127.0.0.1:0", "--admin", &port.to_string()]);
    let process = Running::start(&mut command);
    let answers = || std::net::TcpStream::connect(port).is_ok().then_some(());
    eventually("the admin pages", SOON, answers);
    let why = eventually("a reason", SOON, || {
        let (ready, why) = Admin(port).ready();
        (!ready && why.contains("clock")).then_some(why)
    });
    assert!(Admin(port).metric("gureum_clock_held_seconds") > 80_000.0);
    (process, why)
}

#[tokio::test]
async fn after_a_claimed_week_off_nothing_is_destroyed_until_the_clock_has_stood() {
    let mut two = Two::start().await;
    two.send(&[b"still there"]).await;
    two.world.kill();
    let before = keys(&two.world);
    // As the start sees it, the server was off for a week; in truth its clock is wrong.
    put_clock(&two.world, now_ms() - 7 * DAY_MS);
    let (mut process, why) = doubtful(&two.world);
    assert!(why.contains("off for 604") && why.contains("remove the file `clock`"), "{why}");
    assert_eq!(keys(&two.world), before, "no key is destroyed");
    process.kill();

    // The clock is put right: everything is there.
    put_clock(&two.world, now_ms());
    two.world.restart();
    let (_raw, mut frames) = two.subscribe(START).await;
    assert_eq!(next_body(&mut frames).await.1, b"still there");
}

#[tokio::test]
async fn after_a_real_time_off_what_is_due_expires_and_what_is_not_stays() {
    let mut two = Two::in_world(World::with_retention("30s")).await;
    two.send(&[b"due"]).await;
    two.world.kill();
    // Off for a while that is doubted at first: the clock then stands, and is believed by itself.
    put_clock(&two.world, now_ms() - DAY_MS);
    two.world.restart();
    assert!(two.world.log().contains("says that the server was off for 86"), "{}", two.world.log());
    let (raw, mut frames) = two.subscribe(START).await;
    assert_eq!(next_body(&mut frames).await.1, b"due", "it is younger than the retention");
    raw.close().await;
    eventually("the clock is in order", SOON, || two.world.admin().ready().0.then_some(()));
}

#[test]
fn a_claimed_400_days_off_are_refused_and_nothing_is_touched() {
    let mut world = World::start();
    world.kill();
    put_clock(&world, now_ms() - 400 * DAY_MS);
    let before = keys(&world);
    let (status, said) = World::fail_to_start(world.data_dir(), SOON);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("400 days ahead") && said.contains("remove the file `clock`"), "{said}");
    assert_eq!(keys(&world), before);
    fs::remove_file(world.data_dir().join("clock")).unwrap();
    world.restart();
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_bring_expired_messages_back_nor_lose_living_ones() {
    let mut two = Two::start().await;
    two.send(&[b"living"]).await;
    two.world.kill();
    // The last known time is half a day ahead of the system's, which was set back.
    let ahead_ms = now_ms() + DAY_MS / 2;
    put_clock(&two.world, ahead_ms);
    two.world.restart();
    let (raw, ready) = two.bob.connect(two.world.url(), true, START).await;
    assert!(ready.server_time_ms >= ahead_ms, "time never goes back");
    let mut frames = raw.delivery().await;
    assert_eq!(next_body(&mut frames).await.1, b"living");
    drop(raw);
    two.world.kill();
    let kept: u64 = fs::read_to_string(two.world.data_dir().join("clock")).unwrap().trim().parse().unwrap();
    assert!(kept >= ahead_ms);
}
