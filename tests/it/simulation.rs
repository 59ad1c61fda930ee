//! The simulation itself: a seed is one run, whenever and wherever it is run.

use std::process::Command;

use gureum_tests::child::binary;

fn simulated(seed: u64) -> serde_json::Value {
    let mut command = Command::new(binary("simulate"));
    let output = command.args(["--seed", &seed.to_string(), "--days", "1", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn equal_seeds_are_equal_runs_to_the_last_datagram() {
    let first = simulated(8);
    assert_eq!(first, simulated(8));
    assert!(first["messages"]["received"].as_u64().unwrap() > 10, "{first}");
    assert_ne!(first["digest"], simulated(9)["digest"]);
}
