//! A conversation that all its admins change at once, small: it converges, and each has exactly what was said while it was in.

use std::time::Duration;

use gureum_tests::prove::contention::{Options, run};

#[test]
fn admins_who_change_a_group_at_once_while_they_talk_come_to_agree_and_lose_nothing() {
    let options = Options { clients: 6, duration: Duration::from_secs(120), changes: Some(30), seed: 1, tells: false };
    let report = run(&options);
    println!("{report:#?}");
    assert!(report.changes >= 30 && report.changes_of_one[0] > 0 && report.acknowledged > 6, "{report:#?}");
    assert!(report.newcomers > 0 && report.due_to_newcomers > 0, "some came and went: {report:#?}");
    assert!(report.lost_races > 0, "they were in each other's way: {report:#?}");
}
