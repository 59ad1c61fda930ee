//! A text sent stands nowhere but on the two ends, and there only in their encrypted databases.

use gureum_tests::disk::{contains, files_with};
use gureum_tests::relay::Relay;
use gureum_tests::{Options, World};

#[test]
fn the_database_the_log_and_the_wire_hold_no_plaintext() {
    const MARKER: &str = "marker-6f1d0c5e-plain";
    let options = Options { flags: vec!["--log-filter", "trace"], ..Options::default() };
    let mut world = World::start_with(options);
    let relay = Relay::start(world.listen());
    let alice = world.person_with("alice", &world.invite_via(relay.address()));
    let bob = world.person_with("bob", &world.invite_via(relay.address()));
    let mut follower = bob.follow_from_now();
    alice.send(&bob, MARKER);
    follower.wait_for_text(MARKER);
    drop(follower.interrupt());
    bob.send(&alice, &format!("you said {MARKER}"));
    assert_eq!(alice.receive_texts(), [format!("you said {MARKER}")]);

    assert!(files_with(world.data_dir(), MARKER.as_bytes()).is_empty());
    assert!(world.stop().success());
    // After the flush of a clean stop as well.
    assert!(files_with(world.data_dir(), MARKER.as_bytes()).is_empty());
    let log = world.log();
    assert!(log.len() > 1_000, "the log tells something at its most talkative");
    assert!(!log.contains(MARKER));
    let wire = relay.passed();
    assert!(wire.len() > 5_000, "the relay has heard the talk");
    assert!(!contains(&wire, MARKER.as_bytes()));
    for person in [&alice, &bob] {
        assert!(files_with(&person.home, MARKER.as_bytes()).is_empty(), "{} keeps it encrypted", person.name);
    }
}

#[cfg(unix)]
#[test]
fn keys_and_homes_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::start();
    let alice = world.person("alice");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&alice.home), 0o700);
    assert_eq!(mode(&alice.file("key")), 0o600);
    assert_eq!(mode(world.data_dir()), 0o700);
    assert_eq!(mode(&world.data_dir().join("keys/master.key")), 0o600);
    assert_eq!(mode(&world.data_dir().join("tls/key.pem")), 0o600);
}
