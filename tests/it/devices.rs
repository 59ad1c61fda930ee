//! Several devices of each of two people, small: every message is on every device, once, in one order, or told as missed.

use std::time::Duration;

use gureum_tests::prove::devices::{Options, Report, run};

fn check(retention: Option<&'static str>) -> Report {
    let report = run(&Options { duration: Duration::from_secs(15), seed: 1, retention, tells: false });
    println!("{report:#?}");
    assert!(report.messages > 20 && report.received > report.messages && report.departures > 0, "{report:#?}");
    report
}

#[test]
fn three_devices_of_one_and_two_of_another_come_and_go_and_have_every_message() {
    assert_eq!(check(None).missed, 0);
}

#[test]
fn devices_that_are_away_for_longer_than_messages_live_are_told_how_many_they_have_missed() {
    let report = check(Some("3s"));
    assert!(report.missed > 0, "{report:#?}");
}
