//! Small runs on real servers: sizes follow one another, and each is measured under the same load.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::PathBuf;
use std::time::Duration;

use gureum_benches::growth::rounds::{Flow, Setting, connections, stored};
use gureum_benches::limits::rounds::Place;
use tempfile::TempDir;

const SETTING: Setting = Setting { rounds: 1, duration: Duration::from_secs(1), sealed_bytes: 256 };

fn place() -> (Place, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let limits = PathBuf::from(env!("CARGO_BIN_EXE_limits"));
    let bin_dir = limits.parent().unwrap().to_owned();
    (Place { limits, bin_dir, directory: directory.path().to_owned() }, directory)
}

#[tokio::test]
async fn few_and_many_connections_share_the_same_load() {
    let (place, _directory) = place();
    let series = Box::pin(connections(&place, &SETTING, &[2, 8], Flow::Rate(200.0), |_: &str| ())).await.unwrap();
    assert_eq!(series.rows.iter().map(|row| row.size).collect::<Vec<_>>(), [2, 8]);
    assert!((series.rows[0].ratio - 1.0).abs() < 1e-9, "{series:?}");
    for row in &series.rows {
        // 200 a second for most of a second; a machine that is busy makes some of them late.
        let messages = row.rounds[0].run.measured.messages;
        assert!((20..=220).contains(&messages), "{row:?}");
        assert!(row.cpu_us > 0.0 && row.ratio > 0.0 && row.echo_cpu_us.is_some_and(|us| us > 0.0), "{row:?}");
    }
}

#[tokio::test]
async fn a_server_goes_on_where_a_store_was_filled() {
    let (place, directory) = place();
    let flows = [Flow::Rate(100.0), Flow::UnderWay(8)];
    let all = Box::pin(stored(&place, &SETTING, &[0, 1_500], 2, &flows, |_: &str| ())).await.unwrap();
    assert_eq!(all.len(), 2);
    for series in &all {
        let [empty, full] = &series.rows[..] else { panic!("{series:?}") };
        assert_eq!((empty.size, full.size), (0, 1_500));
        assert!(empty.cpu_us > 0.0 && full.cpu_us > 0.0 && full.ratio > 0.0, "{series:?}");
        assert_eq!(empty.disk_bytes_a_message, None);
        assert!(full.disk_bytes_a_message.is_some_and(|bytes| bytes > 256.0), "{series:?}");
    }
    // What the first load has left in the counts does not pass for the beginning of the second.
    assert!(all[1].rows.iter().all(|row| row.rounds[0].run.counts.accepted > 0), "{all:?}");
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
}
