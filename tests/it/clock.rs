//! The clock of a real server: a long time off must be believed before anything expires, and an absurd one never is.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use gureum_proto::{DeliveryFrame, EnvelopeBody, Gap, GapReason, Position};
use gureum_tests::admin::Admin;
use gureum_tests::child::{Running, binary};
use gureum_tests::raw::Frames;
use gureum_tests::wait::{SOON, eventually, now_ms, until_ms};
use gureum_tests::{Options, World};

use crate::alarms::firing;
use crate::delivery::{Two, next_body};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const START: Position = Position { seq: 0, count: 0 };

/// How many messages are told to have expired, before anything else is delivered.
async fn expired(frames: &mut Frames) -> u64 {
    loop {
        match frames.delivery().await {
            DeliveryFrame::Gap(Gap { missed, reason: GapReason::Expired, .. }) => return missed,
            // It stays for longer than messages do.
            DeliveryFrame::Envelope(envelope) if matches!(envelope.shared.body, EnvelopeBody::Welcome(_)) => {}
            other => panic!("{other:?} in place of a gap"),
        }
    }
}

/// The files of keys.
fn keys(world: &World) -> BTreeSet<PathBuf> {
    fs::read_dir(world.data_dir().join("keys")).unwrap().map(|entry| entry.unwrap().path()).collect()
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
    let off = |name: &str| Admin(port).metric(name);
    assert!(off("gureum_clock_held_seconds") + off("gureum_clock_behind_seconds") > 80_000.0);
    let told = firing(Admin(port));
    assert!(told == ["GureumClockHeld"] || told == ["GureumClockBehind"], "{told:?}");
    (process, why)
}

#[tokio::test]
async fn after_a_claimed_week_off_nothing_is_destroyed_until_the_clock_has_stood() {
    let mut two = Two::start().await;
    two.send(&[b"still there"]).await;
    assert!(firing(two.world.admin()).is_empty());
    two.world.kill();
    let before = keys(&two.world);
    // As the start sees it, the server was off for a week; in truth its clock is wrong.
    two.world.set_last_known_ms(now_ms() - 7 * DAY_MS);
    let (mut process, why) = doubtful(&two.world);
    assert!(why.contains("off for 604") && why.contains("remove the file `clock`"), "{why}");
    assert_eq!(keys(&two.world), before, "no key is destroyed");
    process.kill();

    // The clock is put right: everything is there.
    two.world.set_last_known_ms(now_ms());
    two.world.restart();
    let (_raw, mut frames) = two.subscribe(START).await;
    assert_eq!(next_body(&mut frames).await.1, b"still there");
}

#[tokio::test]
async fn a_last_known_time_a_week_ahead_is_doubted_and_nothing_is_destroyed_for_it() {
    let mut two = Two::start().await;
    two.send(&[b"still there"]).await;
    two.world.kill();
    let before = keys(&two.world);
    two.world.set_last_known_ms(now_ms() + 7 * DAY_MS);
    let (mut process, why) = doubtful(&two.world);
    assert!(why.contains("s behind the last time") && why.contains("remove the file `clock`"), "{why}");
    assert_eq!(keys(&two.world), before, "no key is destroyed");
    process.kill();

    // As it says: the clock is right, so the file goes.
    fs::remove_file(two.world.data_dir().join("clock")).unwrap();
    two.world.restart();
    let (_raw, mut frames) = two.subscribe(START).await;
    assert_eq!(next_body(&mut frames).await.1, b"still there");
}

#[test]
fn a_last_known_time_400_days_ahead_is_refused_and_nothing_is_touched() {
    let options = Options { retention: Some("30s"), ..Options::default() };
    let mut world = World::start_with(options);
    world.kill();
    world.set_last_known_ms(now_ms() + 400 * DAY_MS);
    let before = keys(&world);
    // It is refused when the clock has stood: a time daemon may put a machine's right that has no battery.
    let (status, said) = world.restart_in_vain();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("399 days behind") && said.contains("remove the file `clock`"), "{said}");
    assert_eq!(keys(&world), before);
    fs::remove_file(world.data_dir().join("clock")).unwrap();
    world.restart();
}

#[tokio::test]
async fn after_a_real_time_off_what_is_due_expires_and_what_is_not_stays() {
    const RETENTION_MS: u64 = 20_000;
    let mut two = Two::in_world(World::with_retention("20s")).await;
    two.send(&[b"due"]).await;
    let due_ms = now_ms() + RETENTION_MS;
    // Together they make the time off: the one ages past its retention, the other is far from it.
    until_ms(due_ms - 2_000);
    two.send(&[b"not due"]).await;
    two.world.kill();
    let before = keys(&two.world);
    until_ms(due_ms);
    // Off for a while that is doubted at first: the clock then stands, and is believed by itself.
    two.world.set_last_known_ms(now_ms() - DAY_MS);
    two.world.restart();
    assert!(two.world.log().contains("says that the server was off for 86"), "{}", two.world.log());
    let (raw, mut frames) = two.subscribe(START).await;
    assert_eq!(expired(&mut frames).await, 1, "what is older than the retention is gone, and told");
    assert_eq!(next_body(&mut frames).await.1, b"not due", "it is younger than the retention");
    raw.close().await;
    eventually("the clock is in order", SOON, || two.world.admin().ready().0.then_some(()));
    let left = || before.iter().filter(|key| key.exists()).count();
    eventually("the keys of what is due are destroyed", SOON, || (left() < before.len()).then_some(()));
}

#[test]
fn a_claimed_400_days_off_are_refused_and_nothing_is_touched() {
    let mut world = World::start();
    world.kill();
    world.set_last_known_ms(now_ms() - 400 * DAY_MS);
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
    const RETENTION_MS: u64 = 20_000;
    let mut two = Two::in_world(World::with_retention("20s")).await;
    two.send(&[b"expired"]).await;
    two.world.kill();
    // The server has seen a time at which the message had expired, and then the system's was set back.
    let ahead_ms = now_ms() + RETENTION_MS;
    two.world.set_last_known_ms(ahead_ms);
    two.world.restart();
    two.reconnect().await;
    two.send(&[b"living"]).await;
    two.world.kill_and_restart();
    let (raw, ready) = two.bob.connect(two.world.url(), true, START).await;
    assert!(ready.server_time_ms >= ahead_ms, "time never goes back");
    let mut frames = raw.delivery().await;
    assert_eq!(expired(&mut frames).await, 1, "the system's time would bring it back");
    let (position, body) = next_body(&mut frames).await;
    assert_eq!((position.count, body.as_slice()), (2, b"living".as_slice()));
    drop(raw);
    two.world.kill();
    assert!(two.world.last_known_ms() >= ahead_ms);
}
