//! What has expired is gone: no byte of its ciphertext on the disk, and no key that could open it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gureum_tests::World;
use gureum_tests::disk::{contains, files};
use gureum_tests::wait::{eventually, now_ms, until_ms};

use crate::delivery::Two;

const BODY_BYTES: usize = 16 * 1024;
/// Long enough that it stands nowhere by chance.
const WINDOW_BYTES: usize = 48;

/// Pieces of what was written between two looks: of the sealed body, not of keys and indexes around it.
fn pieces(before: &Path, after: &Path) -> Vec<Vec<u8>> {
    let (old, new) = (files(before), files(after));
    let mut pieces = Vec::new();
    for (path, bytes) in new {
        let name = path.strip_prefix(after).unwrap();
        let length = old.get(&before.join(name)).map_or(0, Vec::len);
        let Some(written) = bytes.get(length..).filter(|written| written.len() > BODY_BYTES) else { continue };
        let middle = written.len() / 2;
        for at in [middle - BODY_BYTES / 4, middle, middle + BODY_BYTES / 4] {
            pieces.push(written[at..at + WINDOW_BYTES].to_vec());
        }
    }
    pieces
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
}

fn keys(world: &World) -> BTreeSet<PathBuf> {
    files(&world.data_dir().join("keys")).into_keys().collect()
}

fn files_with_any(world: &World, pieces: &[Vec<u8>]) -> Vec<PathBuf> {
    let holds = |bytes: &[u8]| pieces.iter().any(|piece| contains(bytes, piece));
    files(world.data_dir()).into_iter().filter(|(_, bytes)| holds(bytes)).map(|(path, _)| path).collect()
}

async fn expires(mut two: Two, kill: bool) {
    let database = two.world.data_dir().join("db");
    let (before, after) = (two.world.directory("before"), two.world.directory("after"));
    copy(&database, &before);
    let body: Vec<u8> = (0..BODY_BYTES).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
    let sent_ms = now_ms();
    two.send(&[&body]).await;
    copy(&database, &after);
    let pieces = pieces(&before, &after);
    assert!(!pieces.is_empty(), "the sealed body is found right after it was stored");
    assert!(!files_with_any(&two.world, &pieces).is_empty());
    assert!(pieces.iter().all(|piece| !contains(&body, piece)), "it is sealed, not the device's ciphertext");
    let then = keys(&two.world);
    if kill {
        two.world.kill_and_restart();
    }

    eventually("the metric shows what is stored", Duration::from_secs(5), || {
        (two.world.admin().metric("gureum_oldest_physical_age_seconds") > 0.0).then_some(())
    });

    until_ms(sent_ms + 6_000);
    let started = Instant::now();
    let limit = Duration::from_secs(30);
    eventually("the expired bytes are gone", limit, || files_with_any(&two.world, &pieces).is_empty().then_some(()));
    println!("bytes gone {:?} after the retention", started.elapsed());
    // Neither the master key nor what it wraps for years is of that time.
    let is_key = |path: &PathBuf| !path.ends_with("master.key") && path.extension().is_some_and(|kind| kind == "key");
    let left = limit.saturating_sub(started.elapsed());
    eventually("the keys of that time are gone", left, || {
        let now = keys(&two.world);
        let live: Vec<_> = then.intersection(&now).filter(|path| is_key(path)).collect();
        live.is_empty().then_some(())
    });
    println!("keys gone {:?} after the retention", started.elapsed());
    assert!(then.iter().any(is_key), "there were keys: {then:?}");
    eventually("the metric shows it", limit, || {
        (two.world.admin().metric("gureum_oldest_physical_age_seconds") < 6.0).then_some(())
    });
}

#[tokio::test]
async fn expired_ciphertext_and_its_key_are_gone_from_the_disk_within_half_a_minute() {
    expires(Two::in_world(World::with_retention("6s")).await, false).await;
}

#[tokio::test]
async fn also_when_the_server_was_killed_before_they_expired() {
    expires(Two::in_world(World::with_retention("6s")).await, true).await;
}
