//! Expiry at scale, small: the same days with fewer messages.

use gureum_tests::prove::expiry::{LATE_MS_MAX, Options, RATIO_MAX, RETENTION_MS, run};

#[test]
fn over_days_nothing_expired_is_served_or_stays_and_gaps_count_right() {
    let options =
        Options { messages: 100_000, days: 5, accounts: 200, body_bytes: 256, seed: 1, directory: None, tells: false };
    let report = run(&options);
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.messages, options.messages);
    assert!(report.envelopes > report.messages, "most was read: {report:?}");
    assert!(report.gaps > 0 && report.missed > 0, "some was missed, and told: {report:?}");
    let bound_hours = (RETENTION_MS + LATE_MS_MAX) as f64 / 3_600_000.0;
    assert!(report.oldest_age_hours_max > 72.0 && report.oldest_age_hours_max <= bound_hours, "{report:?}");
    assert!(report.disk.ratio_median <= RATIO_MAX, "{report:?}");
    assert!(report.samples > 0, "bodies were looked for");
}
