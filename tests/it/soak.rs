//! Load with expiry running, for seconds: what the proof does for an hour.

use std::time::Duration;

use gureum_tests::prove::soak::{Options, run};

#[test]
fn memory_descriptors_and_disk_stay_flat_under_load_while_messages_expire() {
    let report = run(&Options {
        duration: Duration::from_secs(20),
        rate: 400,
        pairs: 4,
        retention: "2s",
        warm_up: Duration::from_secs(8),
        every: Duration::from_secs(1),
        server: None,
        tells: false,
    });
    println!("{:#?}", report.verdicts);
    for verdict in &report.verdicts {
        // How fast it is depends on the tests that run beside this one; the proof says it, on a quiet machine.
        assert!(verdict.is_flat || verdict.of == "p99 µs", "{verdict:#?}");
    }
    assert_eq!(report.load["missing"], 0, "{:#?}", report.load);
    assert!(report.samples.iter().any(|sample| sample.oldest_physical_age_s > 0.0));
}
