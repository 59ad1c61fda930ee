//! Push services that hang, with few devices and for seconds: what the proof does at scale.

use std::time::Duration;

use gureum_tests::prove::push::{Options, run};

#[test]
fn services_that_hang_slow_nobody_down_and_everybody_is_woken_once_when_they_are_back() {
    let report = run(&Options { devices: 60, hang: Duration::from_secs(8), pairs: 2, tells: false });
    println!("{report:#?}");
    assert!(report.unanswered > 0, "the services were asked while they hung: {report:#?}");
    // Other tests run beside this one; how much slower it gets is for the proof to say, on a quiet machine.
    assert!(report.hanging_p99_us < 5_000_000, "{report:#?}");
    let second = |us: u64| Duration::from_micros(us) < Duration::from_secs(1);
    assert!(second(report.calm_p50_us) && second(report.hanging_p50_us), "{report:#?}");
}
