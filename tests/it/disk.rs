//! The disk: full, and of a format that this program does not know.

use std::fs;
use std::time::Duration;

use gureum_proto::{Code, Position, Sent};
use gureum_tests::disk::{FileSystem, SmallDisk, files};
use gureum_tests::prove::disk;
use gureum_tests::wait::{SOON, eventually};
use gureum_tests::{Options, World};

use crate::delivery::{Two, next_body};

#[tokio::test]
async fn a_full_disk_refuses_says_why_and_recovers_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let options = Options { data_dir: Some(disk.path().join("server")), ..Options::default() };
    let mut two = Two::in_world(World::start_with(options)).await;
    two.send(&[b"before"]).await;
    disk.fill();

    // The log has some room of its own left.
    let body = vec![5; 60 * 1024];
    let mut stored = 0_u64;
    let refused = loop {
        assert!(stored < 4_000, "the disk is full and everything is stored");
        let send = two.alice.opaque(&two.talk, body.clone());
        let Sent { result, .. } = two.raw.send(std::slice::from_ref(&send)).await.remove(0);
        match result {
            Ok(_) => stored += 1,
            Err(refusal) => {
                assert_eq!(refusal.code, Code::Unavailable);
                assert!(refusal.retry_after_ms > 0, "it may be tried again");
                break send;
            }
        }
    };
    let reason = eventually("not ready", SOON, || {
        let (ready, body) = two.world.admin().ready();
        (!ready).then_some(body)
    });
    assert!(reason.contains("store") && reason.contains("No space left"), "{reason}");

    disk.make_room();
    eventually("ready again", Duration::from_secs(60), || two.world.admin().ready().0.then_some(()));
    // The same message under the same counter: nothing of the refused one was stored.
    let accepted = two.raw.send(&[refused]).await.remove(0).result.unwrap();
    assert!(!accepted.repeated);
    let (_raw, mut frames) = two.subscribe(Position::default()).await;
    assert_eq!(next_body(&mut frames).await.1, b"before");
    for index in 0..=stored {
        assert_eq!(next_body(&mut frames).await, (Position { seq: index + 3, count: index + 2 }, body.clone()));
    }
}

#[test]
fn a_directory_of_an_unknown_format_is_refused_and_left_as_it_was() {
    let mut world = World::start();
    assert!(world.stop().success());
    let directory = world.data_dir().to_owned();
    let format = fs::read_to_string(directory.join("FORMAT")).unwrap();
    fs::write(directory.join("FORMAT"), "gureum-store 99\n").unwrap();
    let before = files(&directory);
    let (status, said) = World::fail_to_start(&directory, SOON);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("gureum-store 99") && said.contains(format.trim()), "{said}");
    assert_eq!(files(&directory), before, "nothing was touched");

    fs::write(directory.join("FORMAT"), format).unwrap();
    world.restart();
}

#[test]
fn a_directory_in_use_is_refused_and_the_one_who_uses_it_goes_on() {
    let world = World::start();
    let (status, said) = World::fail_to_start(world.data_dir(), SOON);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.is_empty());
    assert!(world.admin().ready().0);
}

#[test]
fn a_full_disk_with_a_real_file_system_refuses_and_the_same_process_recovers() {
    let Some(seen) = disk::full() else { return };
    assert!(seen.tally.refused > 0);
}

#[test]
fn a_disk_that_turns_read_only_ends_the_server_until_it_is_mended() {
    let _ = disk::read_only_by_error();
}

#[test]
fn a_start_on_a_read_only_disk_is_refused_in_words() {
    let Some(said) = disk::read_only_start() else { return };
    assert!(said.contains("Read-only file system"), "{said}");
}

#[test]
fn an_fsync_that_fails_ends_the_server_and_a_repeat_afterwards_doubles_nothing() {
    let Some(seen) = disk::failing_sync(FileSystem::Xfs) else { return };
    // What was in flight was written but not acknowledged, or not written: the tally has seen each once.
    assert_eq!(seen.tally.sent, seen.tally.delivered);
}

#[test]
fn a_device_that_fails_under_its_file_system_ends_the_server() {
    let _ = disk::broken_device();
}
