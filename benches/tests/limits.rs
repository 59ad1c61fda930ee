//! The bare parts as processes, in a second each: what the program measures is really done, and costs something.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;
use std::time::Duration;

use gureum_benches::limits::clients::Pace;
use gureum_benches::limits::gureum::Load;
use gureum_benches::limits::rounds::Place;
use gureum_benches::limits::shape::Shape;
use tempfile::TempDir;

fn place() -> (Place, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let limits = PathBuf::from(env!("CARGO_BIN_EXE_limits"));
    let bin_dir = limits.parent().unwrap().to_owned();
    (Place { limits, bin_dir, directory: directory.path().to_owned() }, directory)
}

fn load(pairs: usize, pace: Pace) -> Load {
    Load { pairs, pace, sealed_bytes: 256, duration: Duration::from_secs(1) }
}

#[tokio::test]
async fn the_bare_transport_sends_back_what_it_is_sent() {
    let (place, _directory) = place();
    let busy = place.echo(&load(4, Pace::Window(8))).await.unwrap();
    assert!(busy.messages > 100 && busy.cpu_s > 0.0, "{busy:?}");
}

#[tokio::test]
async fn the_bare_transport_keeps_the_pace_of_its_clients() {
    let (place, _directory) = place();
    let chat = place.echo(&load(10, Pace::Every(Duration::from_millis(100)))).await.unwrap();
    // A hundred a second for most of a second; a machine that is busy makes some of them late.
    assert!((10..=110).contains(&chat.messages), "{chat:?}");
}

#[tokio::test]
async fn bare_connections_cost_memory_and_handshakes() {
    let (place, _directory) = place();
    let idle = place.bare_idle(100).await.unwrap();
    assert!(idle.bytes > 0 && idle.bytes_with_stream > 0, "{idle:?}");
    assert!(idle.handshakes_per_s > 1.0 && idle.handshake_cpu_us > 1.0, "{idle:?}");
}

#[tokio::test]
async fn the_bare_database_writes_a_run_in_a_process_of_its_own() {
    let (place, _directory) = place();
    let shape = Shape { pairs: 4, sealed_bytes: 256, messages: 200, batches: 20, senders: 80, cursors: 60 };
    let stored = place.store(&shape).await.unwrap();
    // The first batch has nothing to ack.
    assert_eq!((stored.measured.messages, stored.batches, stored.changes), (200, 20, 3 * 200 + 2 * 80 + 19 * 3));
    assert!(stored.measured.cpu_s > 0.0, "{stored:?}");
}

#[tokio::test]
async fn a_round_holds_gureum_against_its_parts() {
    let (place, _directory) = place();
    let round = Box::pin(place.round(&load(2, Pace::Window(4)))).await.unwrap();
    assert_eq!(round.store.measured.messages, round.gureum.counts.accepted);
    assert_eq!(round.store.batches, round.gureum.counts.batches);
    // The planner makes here what the server has written, but for what is lost in rounding to whole batches.
    assert!(round.store.changes.abs_diff(round.gureum.counts.changes) <= round.gureum.counts.changes / 10, "{round:?}");
    assert!(round.ratio > 0.0, "{round:?}");
}
