//! Keys: what copies of a data directory from before and after an expiry can still open.

use std::time::Duration;

use gureum_tests::World;
use gureum_tests::prove::keys::{Readable, copy, readable, run, wrapped_keys};
use gureum_tests::wait::{eventually, now_ms, until_ms};

use crate::delivery::Two;

const RETENTION_MS: u64 = 6_000;

#[test]
fn copies_open_what_their_keys_still_open() {
    let report = run(2_000);
    println!("{report:?}");
    assert_eq!((report.before.opened, report.before_with_later_keys.opened), (2_000, 0));
}

#[tokio::test]
async fn a_stolen_copy_opens_nothing_with_the_keys_that_a_running_server_has_left() {
    let mut two = Two::in_world(World::with_retention("6s")).await;
    for _ in 0..5 {
        two.send(&[b"sealed by a device", b"and sealed again by the server"]).await;
    }
    let sent_ms = now_ms();
    let (before, after) = (two.world.directory("before"), two.world.directory("after"));
    // A thief copies what lies still.
    two.world.kill();
    copy(two.world.data_dir(), &before);
    two.world.restart();
    let keys = wrapped_keys(&before.join("keys"));
    assert!(!keys.is_empty(), "there are keys");
    until_ms(sent_ms + RETENTION_MS);
    eventually("the keys are gone", Duration::from_secs(30), || {
        (keys.count_in(two.world.data_dir()) == 0).then_some(())
    });
    two.world.kill();
    copy(two.world.data_dir(), &after);

    // Clients' KeyPackages and Welcomes lie elsewhere or were sealed at the same time.
    let stolen = readable(&before.join("db"), &before.join("keys"), RETENTION_MS);
    assert!(stolen.opened >= 10 && stolen.opened == stolen.bodies, "{stolen:?}");
    let later = readable(&before.join("db"), &after.join("keys"), RETENTION_MS);
    assert_eq!(later, Readable { opened: 0, key_gone: stolen.bodies, ..stolen });
    assert_eq!(readable(&after.join("db"), &before.join("keys"), RETENTION_MS).opened, 0);
    assert_eq!(readable(&after.join("db"), &after.join("keys"), RETENTION_MS).opened, 0);
}
