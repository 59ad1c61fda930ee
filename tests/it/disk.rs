//! The disk: full, and of a format that this program does not know.

use std::fs;
use std::time::Duration;

use gureum_proto::{Code, DeliveryFrame, Gap, GapReason, Position, Send, Sent};
use gureum_tests::device::Device;
use gureum_tests::disk::{FileSystem, SmallDisk, files};
use gureum_tests::prove::disk;
use gureum_tests::raw::Raw;
use gureum_tests::wait::{SOON, eventually};
use gureum_tests::{Options, World};

use crate::alarms::firing;
use crate::delivery::{Two, next_body};

/// Large enough that a few thousand of them fill a small disk.
static BODY: [u8; 60 * 1024] = [5; 60 * 1024];

#[tokio::test]
async fn a_full_disk_refuses_says_why_and_recovers_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let flags = vec!["--sends-per-second", "1000000"];
    let options = Options { data_dir: Some(disk.path().join("server")), flags, ..Options::default() };
    let mut two = Two::in_world(World::start_with(options)).await;
    two.send(&[b"before"]).await;
    assert!(firing(two.world.admin()).is_empty());
    disk.fill();

    // The log has some room of its own left.
    let (stored, refused) = send_until_refused(&mut two, 1).await;
    let reason = eventually("not ready", SOON, || {
        let (ready, body) = two.world.admin().ready();
        (!ready).then_some(body)
    });
    assert!(reason.contains("store") && reason.contains("No space left"), "{reason}");

    assert_eq!(firing(two.world.admin()), ["GureumNotWriting"]);
    disk.make_room();
    eventually("ready again", Duration::from_secs(60), || two.world.admin().ready().0.then_some(()));
    // The same message under the same counter: nothing of the refused one was stored.
    let accepted = two.raw.send(&[refused]).await.remove(0).result.unwrap();
    assert!(!accepted.repeated);
    let (_raw, mut frames) = two.subscribe(Position::default()).await;
    assert_eq!(next_body(&mut frames).await.1, b"before");
    for index in 0..=stored {
        assert_eq!(next_body(&mut frames).await, (Position { seq: index + 3, count: index + 2 }, BODY.to_vec()));
    }
}

/// A member sends as fast as it is answered until the disk is full: then everybody is refused, until the operator makes
/// room. That its recipient's inbox is bounded gives none back.
#[tokio::test]
async fn a_member_can_fill_the_disk_then_everybody_is_refused_and_who_reads_is_served() {
    let Some(disk) = SmallDisk::mount(160) else { return };
    let options = Options {
        data_dir: Some(disk.path().join("server")),
        flags: vec!["--inbox-bytes-max", "1048576", "--sends-per-second", "1000000"],
        ..Options::default()
    };
    let mut two = Two::in_world(World::start_with(options)).await;
    let (stored, _) = send_until_refused(&mut two, 32).await;
    assert!(stored * u64::try_from(BODY.len()).unwrap() > 20 * 1_048_576, "far more than the inbox holds: {stored}");
    let mut raw = Raw::dial(two.world.url()).await;
    let other = Device::new().register(&mut raw, &two.world.invite(1), "carol").await;
    assert_eq!(other.unwrap_err().code, Code::Unavailable, "who wrote nothing is refused as well");
    drop(raw);
    // Who reads is served: what fits into an inbox, and the word that there was more.
    let (reader, mut frames) = two.subscribe(Position::default()).await;
    let first = frames.delivery().await;
    assert!(matches!(first, DeliveryFrame::Gap(Gap { reason: GapReason::Overflow, .. })), "{first:?}");
    assert_eq!(next_body(&mut frames).await.1, BODY);
    reader.close().await;

    eventually("not ready", SOON, || (!two.world.admin().ready().0).then_some(()));
}

/// Sends so many at once until the disk takes no more: how many were stored, and one that was not.
async fn send_until_refused(two: &mut Two, at_once: usize) -> (u64, Send) {
    let mut stored = 0_u64;
    while stored < 4_000 {
        let sends: Vec<_> = (0..at_once).map(|_| two.alice.opaque(&two.talk, BODY.to_vec())).collect();
        let mut refused = None;
        for (send, Sent { result, .. }) in sends.iter().zip(two.raw.send(&sends).await) {
            match result {
                Ok(_) => stored += 1,
                Err(refusal) => {
                    assert_eq!(refusal.code, Code::Unavailable);
                    assert!(refusal.retry_after_ms > 0, "it may be tried again");
                    refused = Some(send.clone());
                }
            }
        }
        if let Some(refused) = refused {
            return (stored, refused);
        }
    }
    panic!("the disk is full and everything is stored");
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
fn an_idle_server_says_that_its_disk_has_turned_read_only() {
    let Some(said) = disk::read_only_when_idle() else { return };
    assert!(said.contains("store"), "{said}");
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
