//! The metrics: each that the manual names is exported, each that is exported stands in the manual, and those of
//! expiry move.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use gureum_tests::World;
use gureum_tests::wait::eventually;

use crate::delivery::Two;

pub(crate) fn manual() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md")).unwrap()
}

/// The names of metrics in a text, without the endings that a histogram adds.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let words = text
        .split(|letter: char| !is_part(letter))
        .filter(|word| word.starts_with("gureum_") || word.starts_with("process_"));
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
    let exported = names(&world.admin().get("/metrics").1);
    let told = names(&manual());
    assert_eq!(told.difference(&exported).collect::<Vec<_>>(), Vec::<&String>::new(), "named but not exported");
    assert_eq!(exported.difference(&told).collect::<Vec<_>>(), Vec::<&String>::new(), "exported but not named");
}

/// The values that each label of each metric has, where they are listed, in the manual's table: of
/// ``| `name` | `label`: `one`, `other`; `second`: `three` |``.
fn listed_values(manual: &str) -> BTreeMap<(String, String), BTreeSet<String>> {
    fn quoted(text: &str) -> impl Iterator<Item = String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned)
    }

    let mut found = BTreeMap::new();
    for row in manual.lines().filter(|line| line.starts_with("| `gureum_")) {
        let mut cells = row.split('|').skip(1);
        let (Some(name), Some(labels)) = (cells.next(), cells.next()) else { continue };
        let Some(name) = quoted(name).next() else { continue };
        for label in labels.split(';') {
            let mut words = quoted(label);
            let Some(label) = words.next() else { continue };
            let values: BTreeSet<_> = words.collect();
            if !values.is_empty() {
                found.insert((name.clone(), label), values);
            }
        }
    }
    found
}

/// The same of what is exported: of `name{label="one",second="three"} 1`.
fn exported_values(page: &str) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut found = BTreeMap::<_, BTreeSet<String>>::new();
    for line in page.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, _)) = rest.split_once("} ") else { continue };
        for (label, value) in labels.split(',').filter_map(|pair| pair.split_once("=\"")) {
            // Codes stand in their own table, bounds of histograms and the version nowhere.
            if !matches!(label, "code" | "le" | "version") {
                let value = value.trim_end_matches('"').to_owned();
                found.entry((name.to_owned(), label.to_owned())).or_default().insert(value);
            }
        }
    }
    found
}

#[test]
fn the_manual_and_the_metrics_name_the_same_values_of_labels() {
    let exported = exported_values(&World::start().admin().get("/metrics").1);
    assert_eq!(listed_values(&manual()), exported);
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
