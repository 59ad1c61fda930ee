//! The alarms of the manual: each expression, as it stands there, is quiet before its fault and fires during it. The
//! alarm of a clock that is held is in `clock`, that of a flood in `peers`, and that of a server that is down in `compaction`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use gureum_proto::{Code, DeliveryFrame, Position};
use gureum_tests::admin::Admin;
use gureum_tests::alarm::{Rule, Seen, rules};
use gureum_tests::device::Device;
use gureum_tests::raw::Raw;
use gureum_tests::wait::{SOON, eventually, now_ms};
use gureum_tests::{Options, World};
use quinn::Endpoint;

use crate::compaction::spoil_table;
use crate::delivery::Two;
use crate::metrics::manual;

const START: Position = Position { seq: 0, count: 0 };
const HOUR_MS: u64 = 60 * 60 * 1_000;

/// The manual's rules.
pub(crate) fn alarms() -> Vec<Rule> {
    rules(&manual())
}

/// The alarms that fire at this moment, of those that need no past.
pub(crate) fn firing(admin: Admin) -> Vec<String> {
    let mut seen = Seen::nothing();
    seen.look(admin);
    seen.firing(&alarms())
}

/// Bob reads everything that waits for him.
async fn read_all(two: &Two) {
    let (_raw, mut frames) = two.subscribe(START).await;
    while !matches!(frames.delivery().await, DeliveryFrame::CaughtUp { .. }) {}
}

#[test]
fn a_directory_that_takes_no_write() {
    let world = World::start();
    assert!(firing(world.admin()).is_empty());
    // What every round writes cannot be put where a directory is. On a disk without room: `disk`.
    let clock = world.data_dir().join("clock");
    eventually("a directory, between two rounds", SOON, || {
        let _ = fs::remove_file(&clock);
        fs::create_dir_all(clock.join("in the way")).ok()
    });
    eventually("the alarm", SOON, || (firing(world.admin()) == ["GureumNotWriting"]).then_some(()));
    fs::remove_dir_all(&clock).unwrap();
    eventually("quiet again", SOON, || firing(world.admin()).is_empty().then_some(()));
}

#[tokio::test]
async fn a_message_that_is_damaged_on_the_disk() {
    let mut two = Two::start().await;
    two.send(&[[7; 3_000].as_slice(); 12]).await;
    assert!(two.world.stop().success());
    spoil_table(two.world.data_dir(), "message");
    two.world.restart();
    let mut seen = Seen::nothing();
    seen.look(two.world.admin());
    assert!(seen.firing(&alarms()).is_empty());
    read_all(&two).await;
    seen.look(two.world.admin());
    assert_eq!(seen.firing(&alarms()), ["GureumLosesMessages"]);
}

#[tokio::test]
async fn an_inbox_that_is_too_small() {
    let options = Options { flags: vec!["--inbox-entries-max", "16"], ..Options::default() };
    let mut two = Two::in_world(World::start_with(options)).await;
    let mut seen = Seen::nothing();
    seen.look(two.world.admin());
    two.send(&[b"body".as_slice(); 40]).await;
    seen.look(two.world.admin());
    assert!(seen.firing(&alarms()).is_empty());
    read_all(&two).await;
    seen.look(two.world.admin());
    assert_eq!(seen.firing(&alarms()), ["GureumPeopleMissMessages"]);
}

/// As the rules for three days see it, a server that keeps everything for thirty does not let go of what has expired.
#[tokio::test]
async fn what_should_have_expired_is_kept_and_the_clock_was_set_back() {
    let mut two = Two::in_world(World::with_retention("30d")).await;
    two.send(&[b"kept"]).await;
    assert!(firing(two.world.admin()).is_empty());
    assert!(two.world.stop().success());
    two.world.set_last_known_ms(now_ms() + (3 * 24 + 11) * HOUR_MS);
    two.world.restart();
    let expected = ["GureumKeepsTooLong", "GureumKeysNotDestroyed", "GureumClockBehind"];
    eventually("the alarms", SOON, || (firing(two.world.admin()) == expected).then_some(()));
}

#[tokio::test]
async fn somebody_tries_keys() {
    let world = World::start();
    let (device, strangers) = (Device::registered(&world, "alice").await, Device::new().proof);
    let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let try_keys = async |times: u32| {
        for _ in 0..times {
            let mut raw = Raw::dial_on(&endpoint, world.url()).await.unwrap();
            let hello = Device::hello_by(&raw, &device.claim(false, START), &strangers);
            raw.write(&hello).await;
            assert_eq!(raw.ended().await.code, Code::ProofInvalid);
        }
    };
    let mut seen = Seen::nothing();
    seen.look(world.admin());
    try_keys(20).await;
    seen.look(world.admin());
    assert!(seen.firing(&alarms()).is_empty(), "a few are somebody's mistake");
    // One a second for the ten minutes of the rule, all at once.
    tokio::join!(try_keys(150), try_keys(150), try_keys(150), try_keys(150));
    seen.look(world.admin());
    assert_eq!(seen.firing(&alarms()), ["GureumProofsRefused"]);
}

/// A scrape in which series that are there have other values.
fn altered(scrape: &str, changes: &[(&str, f64)]) -> String {
    let mut lines: Vec<String> = scrape.lines().map(str::to_owned).collect();
    for (series, value) in changes {
        let start = format!("{series} ");
        let line = lines.iter_mut().find(|line| line.starts_with(&start));
        *line.unwrap_or_else(|| panic!("{series} is not exported")) = format!("{series} {value}");
    }
    lines.join("\n")
}

/// Faults that no test brings about in seconds: rounds of minutes, a slow disk, gigabytes that are not given back, bugs.
/// The scrape is a real server's, altered by hand.
#[test]
fn what_takes_hours_or_a_bug_by_scrapes_altered_by_hand() {
    let world = World::start();
    let scrape = world.admin().get("/metrics").1;
    assert!(Seen::two(&scrape, 60.0, &scrape).firing(&alarms()).is_empty());
    let check = |expected: &[&str], changes: &[(&str, f64)]| {
        let seen = Seen::two(&scrape, 60.0, &altered(&scrape, changes));
        assert_eq!(seen.firing(&alarms()), expected, "{changes:?}");
    };
    let room = |disk: f64, live: f64| [("gureum_store_disk_bytes", disk), ("gureum_store_live_bytes", live)];
    check(&["GureumDiskNotGivenBack"], &room(4.1e9, 2e9));
    check(&[], &room(3.9e9, 2e9));
    let buckets = |name: &str, bounds: &[&str]| -> Vec<(String, f64)> {
        bounds.iter().map(|bound| (format!("{name}_bucket{{le=\"{bound}\"}}"), 1e6)).collect()
    };
    let check_buckets = |expected: &[&str], buckets: &[(String, f64)]| {
        check(expected, &buckets.iter().map(|(series, value)| (series.as_str(), *value)).collect::<Vec<_>>());
    };
    check_buckets(&["GureumReclaimSlow"], &buckets("gureum_reclaim_seconds", &["1800", "+Inf"]));
    check_buckets(&["GureumReclaimSlow"], &buckets("gureum_reclaim_seconds", &["+Inf"]));
    check_buckets(&[], &buckets("gureum_reclaim_seconds", &["300", "1800", "+Inf"]));
    let slow = ["0.25", "0.5", "1", "5", "+Inf"];
    check_buckets(&["GureumSlowDisk"], &buckets("gureum_fsync_seconds", &slow));
    check_buckets(&[], &buckets("gureum_fsync_seconds", &[&["0.05", "0.1"], slow.as_slice()].concat()));
    // The first one is told of.
    check(&["GureumServerErrors"], &[("gureum_closes_total{code=\"Internal\"}", 1.0)]);
    check(&["GureumServerErrors"], &[("gureum_requests_refused_total{code=\"Internal\"}", 1.0)]);
    for service in ["apns", "fcm"] {
        let open = format!("gureum_push_breaker_open{{service=\"{service}\"}}");
        check(&["GureumPushServiceFails"], &[(open.as_str(), 1.0)]);
        let refused = format!("gureum_push_failed_total{{service=\"{service}\",reason=\"misconfigured\"}}");
        check(&["GureumPushRefused"], &[(refused.as_str(), 1.0)]);
    }
    // A host of Web Push that is down is its users' trouble.
    check(&[], &[("gureum_push_breaker_open{service=\"web_push\"}", 3.0)]);
    for result in ["failed", "rejected"] {
        let failed = format!("gureum_codes_total{{result=\"{result}\"}}");
        check(&["GureumCodesFail"], &[(failed.as_str(), 1.0)]);
    }
    check(&[], &[("gureum_codes_total{result=\"limited\"}", 100.0), ("gureum_codes_spent_today", 800.0)]);
    check(&["GureumCodesSpent"], &[("gureum_codes_spent_today", 801.0)]);
    // As many keys as 3 days have, and as many as nobody destroyed.
    check(&[], &[("gureum_keys_live", 75.0)]);
    check(&["GureumKeysNotDestroyed"], &[("gureum_keys_live", 81.0)]);
}

#[test]
fn every_alarm_is_seen_to_fire() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("it");
    let sources: String = fs::read_dir(tests)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let named = |rule: &&Rule| !sources.contains(&format!("\"{}\"", rule.name));
    let alarms = alarms();
    assert!(alarms.len() > 10, "the manual has alarms");
    assert_eq!(alarms.iter().filter(named).collect::<Vec<_>>(), Vec::<&Rule>::new(), "no test names them");
}
