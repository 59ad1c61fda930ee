//! Bad networks, small: every message arrives, once, in order, and who moves need not connect again.

use std::time::Duration;

use gureum_tests::prove::network::{Options, few, run, run_on_a_cable};

#[test]
fn a_talk_survives_storms_moves_narrow_paths_and_a_server_that_falls_silent() {
    let report = run(&Options { seed: 1, messages: 40, cases: few(), tells: false });
    println!("{report:#?}");
    for seen in &report.cases {
        if seen.name.starts_with("addresses change") || seen.name.starts_with("packets above") {
            assert_eq!((seen.handshakes, seen.proofs), (0, 0), "QUIC migrates: {seen:#?}");
        }
    }
}

#[test]
fn a_talk_goes_on_when_the_kernel_moves_the_clients_narrows_the_path_and_pulls_the_cable() {
    let Some(seen) = run_on_a_cable(20, Duration::from_secs(3)) else { return };
    println!("{seen:#?}");
    for seen in &seen {
        assert_eq!((seen.handshakes, seen.proofs), (0, 0), "the connections stand: {seen:#?}");
    }
}
