//! The metrics: each that the manual names is exported, each that is exported stands in the manual, and those of
//! expiry move.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use gureum_tests::World;
use gureum_tests::wait::eventually;

use crate::delivery::Two;

/// Errors by code appear with their first one.
const BY_CODE: [&str; 5] = [
    "gureum_closes_total",
    "gureum_proofs_refused_total",
    "gureum_registrations_refused_total",
    "gureum_requests_refused_total",
    "gureum_sends_refused_total",
];

fn manual() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md")).unwrap()
}

/// The names of metrics in a text, without the endings that a histogram adds.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter)).filter(|word| word.starts_with("gureum_"));
    let without_ending =
        |word: &str| ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end).map(str::to_owned));
    words
        .filter(|word| !matches!(*word, "gureum_server"))
        .map(|word| without_ending(word).unwrap_or_else(|| word.to_owned()))
        .collect()
}

#[test]
fn the_manual_and_the_metrics_name_the_same() {
    let world = World::with_retention("6s");
    let mut exported = names(&world.admin().get("/metrics").1);
    exported.extend(BY_CODE.map(str::to_owned));
    let told = names(&manual());
    assert_eq!(told.difference(&exported).collect::<Vec<_>>(), Vec::<&String>::new(), "named but not exported");
    assert_eq!(exported.difference(&told).collect::<Vec<_>>(), Vec::<&String>::new(), "exported but not named");
}

#[tokio::test]
async fn the_metrics_of_expiry_move() {
    let mut two = Two::in_world(World::with_retention("6s")).await;
    let limit = Duration::from_secs(30);
    let rises = |world: &World, name: &str| {
        eventually(name, limit, || (world.admin().metric(name) > 0.0).then_some(()));
    };
    for _ in 0..3 {
        two.send(&[&[7; 10_000]]).await;
    }
    for name in [
        "gureum_oldest_physical_age_seconds",
        "gureum_store_disk_bytes",
        "gureum_store_live_bytes",
        "gureum_store_healthy",
        "gureum_keys_live",
        "gureum_oldest_key_age_seconds",
        "gureum_reclaim_seconds_count",
        "gureum_store_written_bytes_total{by=\"log\"}",
        "gureum_store_written_bytes_total{by=\"flush\"}",
    ] {
        rises(&two.world, name);
    }
    let removed = |by: &str| two.world.admin().metric(&format!("gureum_store_expired_entries_total{{by=\"{by}\"}}"));
    eventually("expired entries are counted", limit, || (removed("compaction") + removed("file") >= 3.0).then_some(()));
    eventually("the age falls", limit, || {
        (two.world.admin().metric("gureum_oldest_physical_age_seconds") == 0.0).then_some(())
    });
    let key_age = two.world.admin().metric("gureum_oldest_key_age_seconds");
    assert!(key_age < 6.0 + 2.0, "the oldest key is {key_age} s old");
}
