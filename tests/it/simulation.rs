//! The simulation itself: a seed is one run, whenever and wherever it is run, and a bug does not get through it.

use std::process::Command;

use clap::ValueEnum;
use gureum_tests::child::binary;
use gureum_tests::sim::Summary;
use gureum_tests::sim::faults::Happening;
use gureum_tests::sim::model::Counts;
use gureum_tests::sim::sabotage::{CASES, Case, Sabotage};

/// Seeds within which a bug must be found.
const SEEDS_MAX: u64 = 6;

fn simulate(seed: u64, days: u64, more: &[&str]) -> (bool, Summary) {
    let mut command = Command::new(binary("simulate"));
    command.args(["--seed", &seed.to_string(), "--days", &days.to_string(), "--json"]);
    let output = command.args(more).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    (output.status.success(), summary)
}

fn simulated(seed: u64) -> Summary {
    let (holds, summary) = simulate(seed, 1, &[]);
    assert!(holds, "{:?}", summary.violation);
    summary
}

#[test]
fn equal_seeds_are_equal_runs_to_the_last_datagram() {
    let first = simulated(8);
    assert_eq!(first, simulated(8));
    assert!(first.messages.received > 10, "{first:?}");
    assert_ne!(first.digest, simulated(9).digest);
}

#[test]
fn in_a_week_of_three_devices_and_two_every_message_is_on_each_device_or_told_as_missed() {
    let (mut missed, mut histories) = (0, 0);
    for seed in 1..=2 {
        let (holds, summary) = simulate(seed, 7, &["--story", "devices"]);
        println!("seed {seed}: {:?}", summary.messages);
        assert!(holds, "seed {seed}: {:?}", summary.violation);
        assert_eq!((summary.people, summary.devices), (2, 5), "{summary:?}");
        assert!(summary.messages.of_siblings > 10, "{summary:?}");
        missed += summary.messages.missed;
        histories += summary.messages.histories;
    }
    assert!(histories > 0, "devices that come in later are handed what was said before");
    assert!(missed > 0, "somebody was away for too long");
}

#[test]
fn in_groups_that_several_change_at_once_everybody_who_was_in_has_every_message_and_nobody_else_has_any() {
    let (holds, summary) = simulate(1, 5, &["--story", "groups"]);
    println!("{:?}", summary.messages);
    assert!(holds, "{:?}", summary.violation);
    assert_eq!(summary.people, 5, "{summary:?}");
    assert!(summary.devices > 7, "somebody has linked a further device, or has brought an account back: {summary:?}");
    let Counts { linked, revoked, of_siblings, .. } = summary.messages;
    assert!(linked > 0 && revoked > 0 && of_siblings > 0, "{summary:?}");
    let has = |kind: &Happening| summary.happenings.contains_key(kind);
    assert!(summary.groups > 0 && Happening::IN_GROUPS.iter().all(has), "{summary:?}");
}

/// What is wrong with a case: its rule must find the bug in one of the seeds. Others may find it before in some.
fn trouble(case: &Case) -> Option<String> {
    let name = case.bug.name();
    let mut others = Vec::new();
    for seed in 1..=SEEDS_MAX {
        let (holds, summary) = simulate(seed, 1, &["--sabotage", &name]);
        assert_eq!(holds, summary.violation.is_none(), "a broken rule is a failure");
        let Some(found) = summary.violation else { continue };
        if case.rule.is_some() && case.is_found_by(&found.rule, &found.what) {
            return None;
        }
        others.push((seed, found));
    }
    match case.rule {
        Some(rule) => Some(format!("{name}: not {rule} ({}) in {SEEDS_MAX} seeds, but {others:?}", case.words)),
        None => (!others.is_empty()).then(|| format!("{name}: {others:?}")),
    }
}

#[test]
fn each_deliberate_bug_is_found_by_its_rule() {
    for bug in Sabotage::value_variants() {
        assert_eq!(CASES.iter().filter(|case| case.bug == *bug).count(), 1, "{bug:?} stands once in the table");
    }
    let trouble: Vec<_> = CASES.iter().filter_map(trouble).collect();
    assert!(trouble.is_empty(), "{}", trouble.join("\n"));
}

#[test]
fn the_papers_name_each_deliberate_bug_with_its_rule() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let paper = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    for case in CASES.iter().filter(|case| case.rule.is_some()) {
        let (name, rule) = (format!("| `{}` |", case.bug.name()), case.rule.unwrap());
        let is_there = paper.lines().any(|line| line.starts_with(&name) && line.contains(rule));
        assert!(is_there, "docs/reliability.md says that {name} is found by: {rule}");
    }
}
