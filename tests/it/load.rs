//! The load tester: each scenario comes to its end against a real server, counts what it did, and says what that cost.

use std::process::Command;

use gureum_tests::World;
use gureum_tests::child::{Running, binary};
use gureum_tests::person::{Person, number};
use gureum_tests::wait::SOON;
use gureum_tests::world::Options;
use serde_json::Value;

fn world() -> World {
    World::start_with(Options { flags: vec!["--registration", "open"], ..Options::default() })
}

fn command(world: &World, args: &str) -> Command {
    let mut command = Command::new(binary("gureum"));
    command.args(["--json", "load"]).args(args.split(' '));
    command.args(["--server", world.url(), "--metrics", &format!("http://{}/metrics", world.admin().0)]);
    command
}

/// Runs a scenario in which nothing may be missing, and gives its report.
#[track_caller]
fn load(world: &World, args: &str) -> Value {
    let ended = Person::finish(&mut command(world, args));
    println!("{args}: {:?}\n{}", ended.took, ended.said);
    assert_eq!(ended.code, Some(0), "{args}: {}", ended.said);
    let report = ended.events.last().expect("it reports").clone();
    check_whole(&report);
    assert_eq!(report["refused"], serde_json::json!({}));
    assert_eq!(report["event"], "load");
    assert_eq!(report["scenario"], args.split(' ').next().unwrap());
    report
}

#[track_caller]
fn check_whole(report: &Value) {
    for name in ["missing", "unanswered"] {
        assert_eq!(report[name], 0, "{name}: {report:#}");
    }
    assert_eq!(report["delivered"], report["expected"], "{report:#}");
    assert_eq!(report["errors"], Value::Array(Vec::new()));
}

#[track_caller]
fn positive(value: &Value) -> f64 {
    let found = value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert!(found > 0.0, "{found}");
    found
}

/// The seconds add up to the whole, and the cost is told.
#[track_caller]
fn check_traffic(report: &Value) {
    let series = report["series"].as_array().expect("a series");
    for name in ["accepted", "delivered"] {
        let sum: u64 = series.iter().map(|moment| number(&moment[name])).sum();
        assert_eq!(sum, number(&report[name]), "{name}: {report:#}");
    }
    for name in ["p50", "p90", "p99", "p999", "max"] {
        positive(&report["delivery_us"][name]);
        assert!(series.iter().all(|moment| moment["delivery_us"][name].is_u64()), "{series:#?}");
    }
    assert!(series.iter().all(|moment| moment["at_s"].is_f64()), "{series:#?}");
    positive(&report["cost"]["resident_bytes"]);
    assert!(report["cost"]["cpu_s"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{report:#}");
    assert!(report["cost"]["cpu_us_per_message"].is_f64(), "{report:#}");
}

#[test]
fn pairs_in_a_closed_loop_deliver_whatever_was_accepted_and_say_what_it_cost() {
    let world = world();
    for body in ["--sealed-size 64", "--size 64"] {
        let report = load(&world, &format!("pairs --pairs 2 --window 8 --duration 1s {body}"));
        assert_eq!((&report["pairs"], &report["window"]), (&2.into(), &8.into()));
        assert_eq!(report["accepted"], report["delivered"]);
        assert!(report.get("send_lateness_us").is_none(), "nothing is due in a closed loop");
        positive(&report["accepted"]);
        check_traffic(&report);
    }
    let stored = world.admin().count("gureum_sends_total{result=\"accepted\"}");
    assert!(stored > 0, "the server has counted them");
}

#[test]
fn an_open_loop_sends_what_was_due_and_no_more_and_says_how_late() {
    let world = world();
    for body in ["--sealed-size 64", "--size 64"] {
        let report = load(&world, &format!("pairs --pairs 2 --rate 50 --duration 2s {body}"));
        assert_eq!(number(&report["sent"]) + number(&report["unsent"]), 100, "{report:#}");
        assert!(number(&report["sent"]) > 50, "{report:#}");
        for name in ["p50", "p90", "p99", "p999", "max"] {
            positive(&report["send_lateness_us"][name]);
        }
        let [lateness, latency] = ["send_lateness_us", "accept_us"].map(|of| positive(&report[of]["p50"]));
        assert!(lateness <= latency, "a part of it: {report:#}");
        check_traffic(&report);
    }
    let mut for_people = Command::new(binary("gureum"));
    for_people.args(["load", "pairs", "--rate", "20", "--duration", "500ms", "--sealed-size", "64"]);
    let ended = Person::finish(for_people.args(["--server", world.url()]));
    let said: Vec<_> = ended.events.iter().filter_map(Value::as_str).collect();
    assert!(said.iter().any(|line| line.starts_with("sent late   p50 ")), "{said:#?}");
}

#[test]
fn what_is_measured_is_drawn_over_time_and_over_the_rate() {
    let world = world();
    let home = tempfile::tempdir().unwrap();
    let picture = |name: &str| home.path().join(name).display().to_string();
    let over_time = picture("time.png");
    load(&world, &format!("pairs --rate 50 --duration 2s --sealed-size 64 --plot {over_time}"));
    assert!(std::fs::read(&over_time).unwrap().starts_with(b"\x89PNG"));
    let over_rate = picture("rate.svg");
    let args = format!("pairs --rates 20,40 --duration 1s --sealed-size 64 --plot {over_rate}");
    let ended = Person::finish(&mut command(&world, &args));
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let rates: Vec<_> = ended.events.iter().map(|report| report["rate"].as_f64().unwrap()).collect();
    assert_eq!(rates, [20.0, 40.0], "a report of each");
    let drawn = std::fs::read_to_string(&over_rate).unwrap();
    assert!(drawn.contains("p99.9") && drawn.contains("pairs: 1 pairs"), "{drawn}");
    let refused = Person::finish(&mut command(&world, "pairs --duration 1s --plot latency.pdf"));
    assert_eq!(refused.code, Some(2), "{}", refused.said);
}

#[test]
fn a_message_to_a_group_arrives_at_each_connected_account() {
    let world = world();
    for body in ["--sealed-size 64", "--size 64"] {
        let report = load(&world, &format!("fanout --groups 2 --members 4 --rate 20 --duration 1s {body}"));
        assert_eq!((&report["groups"], &report["members"], &report["connected"]), (&2.into(), &4.into(), &3.into()));
        assert_eq!(number(&report["delivered"]), 3 * number(&report["accepted"]), "{report:#}");
        assert_eq!(report["fanout"]["inboxes"], report["delivered"]);
        check_traffic(&report);
    }
    let report = load(&world, "fanout --members 4 --connected 1 --window 4 --duration 1s --sealed-size 64");
    assert_eq!(report["delivered"], report["accepted"], "one of three is there");
    assert_eq!(number(&report["fanout"]["inboxes"]), 3 * number(&report["accepted"]), "and all three have it");
    assert!(report["fanout"]["cpu_us_per_inbox"].is_f64());
}

#[test]
fn what_was_stored_for_absent_devices_is_drained_when_they_come_back() {
    let world = world();
    for (messages, body) in [(500, "--sealed-size 64"), (20, "--size 64")] {
        let report = load(&world, &format!("offline --devices 2 --messages {messages} {body}"));
        assert_eq!((number(&report["accepted"]), number(&report["delivered"])), (2 * messages, 2 * messages));
        let offline = &report["offline"];
        for name in ["stored_s", "stored_per_s", "drained_s", "drained_per_s"] {
            positive(&offline[name]);
        }
        for part in ["store", "drain"] {
            assert!(offline[part]["cpu_us_per_message"].is_f64(), "{offline:#}");
        }
        check_traffic(&report);
    }
}

#[test]
fn idle_devices_are_held_and_weighed() {
    let report = load(&world(), "idle --devices 40 --duration 1s");
    let idle = &report["idle"];
    assert_eq!((&report["devices"], &idle["held"]), (&40.into(), &40.into()));
    assert!(idle["bytes_per_device"].is_f64(), "{idle:#}");
    positive(&report["cost"]["resident_bytes_before"]);
}

#[test]
fn all_devices_come_back_after_a_restart_while_others_talk() {
    let mut world = world();
    let mut running =
        Running::start(&mut command(&world, "storm --devices 30 --pairs 2 --rate 100 --duration 1s --at-once 8"));
    let asked = running.err.find(SOON * 3, |line| line.contains("restart the server now").then_some(()));
    assert!(asked.is_some(), "{:#?}", running.err.all());
    world.begin_to_stop();
    assert!(world.wait_for_end().success());
    world.restart();
    let ended = running.wait(SOON * 3);
    assert!(ended.success(), "{:#?}", running.err.all());
    let report: Value = running.out.all().iter().find_map(|line| serde_json::from_str(line).ok()).expect("it reports");
    check_whole(&report);
    let storm = &report["storm"];
    assert_eq!((&storm["subscribed"], &report["devices"]), (&30.into(), &30.into()), "{report:#}");
    assert!(number(&storm["noticed"]) >= 15, "half of them, at least");
    positive(&storm["all_subscribed_s"]);
    positive(&storm["before_us"]["p99"]);
    assert!(storm["during_lateness_us"]["p99"].is_u64(), "what of it is the load tester's own: {storm:#}");
    assert!(storm["cpu_us_per_device"].is_f64(), "{storm:#}");
    assert!(number(&report["reconnects"]) >= 4, "both ends of both pairs");
}

#[test]
fn a_restart_that_fails_says_so_at_once() {
    let world = world();
    let mut command = command(&world, "storm --devices 2 --pairs 1 --duration 100ms --restart-command false");
    let ended = Person::finish(&mut command);
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains("--restart-command has failed"), "{}", ended.said);
    assert!(ended.events.is_empty(), "{:#?}", ended.events);
}

#[test]
fn a_day_of_people_has_everything_arrive_whoever_goes_away() {
    let world = world();
    for body in ["--sealed-size 64", "--size 64"] {
        let args =
            format!("mixed --people 6 --members 3 --rate 30 --duration 3s --away-every 1s --away-for 200ms {body}");
        let report = load(&world, &args);
        assert!(number(&report["delivered"]) > number(&report["accepted"]), "groups have more than one to hear");
        assert!(number(&report["reconnects"]) >= 6, "{report:#}");
        positive(&report["receipts"]);
        check_traffic(&report);
    }
}

#[test]
fn metrics_that_cannot_be_read_end_it_and_without_them_the_cost_is_not_known() {
    let world = world();
    let mut command = Command::new(binary("gureum"));
    let pairs = ["load", "pairs", "--duration", "100ms", "--sealed-size", "64", "--server", world.url()];
    command.args(pairs);
    let ended = Person::finish(&mut command);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let said = format!("{:?}", ended.events);
    assert!(said.contains("its cost is not known") && said.contains("--metrics"), "{said}");

    let elsewhere = format!("http://{}/nothing", world.admin().0);
    let ended = Person::finish(command.args(["--metrics", &elsewhere]));
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("404") && ended.said.contains("--admin"), "{}", ended.said);
}

#[test]
fn an_invite_that_does_not_suffice_is_told_with_how_many_uses_it_needs() {
    let world = World::start();
    let mut command = Command::new(binary("gureum"));
    command.args(["load", "pairs", "--pairs", "2", "--server", &world.invite(3), "--sealed-size", "64"]);
    let ended = Person::finish(&mut command);
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains("--uses 4"), "{}", ended.said);
}
