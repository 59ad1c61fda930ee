//! `gureumd check`: clean when all is well, and each fault named with what to do.

use std::fs;
use std::time::Duration;

use gureum_server::check::{self, Kind, Options};
use gureum_tests::World;
use gureum_tests::disk::files;
use gureum_tests::operator::gureumd;
use gureum_tests::wait::now_ms;

use crate::backup::{backup, restore};
use crate::delivery::Two;
use crate::phone::{ALICES, Town};

fn audit(world: &World) -> (Option<i32>, serde_json::Value) {
    let said = gureumd(["check", world.data_dir().to_str().unwrap(), "--json"]);
    let report = said.json();
    (said.code, report)
}

fn places(report: &serde_json::Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["place"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_used_directory_is_clean_and_stays_as_it_was() {
    let mut two = Two::start().await;
    two.send(&[b"one", b"two", b"three"]).await;
    let (raw, _frames) = two.subscribe(gureum_proto::Position::default()).await;
    raw.close().await;
    let commit = two.alice.commit(&mut two.talk);
    let request = gureum_proto::Request::SubmitCommit(commit);
    assert!(matches!(two.raw.request(&request).await, gureum_proto::Response::CommitAccepted { .. }));
    let in_use = gureumd(["check", two.world.data_dir().to_str().unwrap()]);
    assert_eq!(in_use.code, Some(2));
    assert!(in_use.err.contains("gureumd backup"), "{}", in_use.err);

    two.world.kill();
    let before = files(two.world.data_dir());
    let (code, report) = audit(&two.world);
    assert_eq!((code, &report["clean"]), (Some(0), &true.into()), "{report:#}");
    assert_eq!(report["counts"]["messages that open"], 3);
    assert_eq!(files(two.world.data_dir()), before);
}

#[tokio::test]
async fn what_a_restore_without_keys_leaves_out_has_an_exit_code_of_its_own() {
    let mut town = Town::start(&["--registration", "phone"]);
    let _alice = town.registered("alice", ALICES, None).await;
    let (to, elsewhere) = (town.world.directory("backup"), town.world.directory("elsewhere"));
    let _ = backup(town.world.data_dir(), &to).ok();
    town.world.kill();
    let restored = restore(&to, &elsewhere, None).ok();
    assert!(restored.err.contains("were left out"), "{restored:?}");
    let audit = || gureumd(["check", elsewhere.to_str().unwrap(), "--json"]);
    let said = audit();
    let report = said.json();
    assert_eq!((said.code, places(&report)), (Some(3), vec!["keys/phone.secret"]), "{report:#}");
    assert_eq!(report["found"]["secret_missing"], 1);
    fs::remove_file(elsewhere.join("sequence")).unwrap();
    assert_eq!(audit().code, Some(1), "that is damage");
}

#[test]
fn a_directory_that_is_none_is_wrong_usage() {
    let empty = tempfile::tempdir().unwrap();
    let said = gureumd(["check", empty.path().to_str().unwrap()]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("no data directory"), "{}", said.err);
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

/// What an audit finds in a directory so much later, as kinds and places.
fn found_after(world: &World, time: Duration) -> Vec<(Kind, String)> {
    const RETENTION: Duration = Duration::from_secs(3 * 86_400);
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap();
    let options = Options {
        now_ms: now_ms() + millis(time),
        retention_ms: millis(RETENTION),
        commit_retention_ms: millis(10 * RETENTION),
        master_key: None,
    };
    let report = check::check(world.data_dir(), &options).unwrap();
    report.findings.into_iter().map(|finding| (finding.kind, finding.place)).collect()
}

#[tokio::test]
async fn messages_pointers_and_keys_past_their_time_are_found_when_their_time_is_over() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut two = Two::start().await;
    two.send(&[b"old"]).await;
    assert!(two.world.stop().success());
    assert_eq!(found_after(&two.world, 71 * HOUR), []);
    // The keys of this hour and of the next have gone at the latest, and the bytes that they sealed may be there yet.
    let found = found_after(&two.world, 75 * HOUR);
    assert!(!found.is_empty() && found.iter().all(|(kind, _)| *kind == Kind::KeyPastItsTime), "{found:?}");
    let found = found_after(&two.world, 79 * HOUR);
    for place in ["message", "inbox"] {
        assert_eq!(found.iter().filter(|found| **found == (Kind::Expired, place.to_owned())).count(), 1, "{found:?}");
    }
}

#[tokio::test]
async fn keys_that_are_missing_and_files_that_a_start_makes_anew_are_found() {
    let mut two = Two::start().await;
    two.send(&[b"one"]).await;
    assert!(two.world.stop().success());
    let keys = two.world.data_dir().join("keys");
    for entry in fs::read_dir(&keys).unwrap().map(Result::unwrap) {
        if entry.file_name() != "master.key" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let (code, report) = audit(&two.world);
    assert_eq!(code, Some(3));
    assert_eq!(places(&report), ["keys"]);
    assert!(report["findings"][0]["what"].as_str().unwrap().contains("1 living message has no key"), "{report:#}");

    fs::copy(keys.join("master.key"), keys.join("1000-3601000.key")).unwrap();
    let (_, report) = audit(&two.world);
    assert_eq!(report["found"]["key_past_its_time"], 1, "{report:#}");

    let data_dir = two.world.data_dir();
    fs::remove_dir_all(&keys).unwrap();
    for name in ["sequence", "invite.key", "clock", "tls/key.pem"] {
        fs::remove_file(data_dir.join(name)).unwrap();
    }
    fs::create_dir(data_dir.join("checkpoint")).unwrap();
    let (code, report) = audit(&two.world);
    assert_eq!(code, Some(1));
    let mut places = places(&report);
    places.sort_unstable();
    assert_eq!(places, ["checkpoint", "clock", "invite.key", "sequence", "tls/key.pem"], "{report:#}");
}
