//! `gureumd check`: clean when all is well, and each fault named with what to do.

use std::fs;

use gureum_tests::World;
use gureum_tests::disk::files;
use gureum_tests::operator::gureumd;

use crate::delivery::Two;

fn check(world: &World) -> (Option<i32>, serde_json::Value) {
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
    let (code, report) = check(&two.world);
    assert_eq!((code, &report["clean"]), (Some(0), &true.into()), "{report:#}");
    assert_eq!(report["counts"]["messages that open"], 4);
    assert_eq!(files(two.world.data_dir()), before);
}

#[test]
fn a_directory_that_is_none_is_wrong_usage() {
    let empty = tempfile::tempdir().unwrap();
    let said = gureumd(["check", empty.path().to_str().unwrap()]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("no data directory"), "{}", said.err);
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn messages_and_keys_past_their_time_and_missing_keys_are_found() {
    let mut two = Two::start().await;
    two.send(&[b"old"]).await;
    assert!(two.world.stop().success());
    let path = two.world.data_dir().to_str().unwrap().to_owned();
    // Of a server with a retention of a second all of this would be long expired.
    std::thread::park_timeout(std::time::Duration::from_millis(1_100));
    let far = gureumd(["check", &path, "--retention", "1s", "--json"]).json();
    assert_eq!(far["counts"]["message"], 2);

    let keys = two.world.data_dir().join("keys");
    for entry in fs::read_dir(&keys).unwrap().map(Result::unwrap) {
        if entry.file_name() != "master.key" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let (code, report) = check(&two.world);
    assert_eq!(code, Some(1));
    assert_eq!(places(&report), ["keys"]);
    assert!(report["findings"][0]["what"].as_str().unwrap().contains("2 living messages have no key"), "{report:#}");

    fs::copy(keys.join("master.key"), keys.join("1000-3601000.key")).unwrap();
    let (_, report) = check(&two.world);
    assert_eq!(report["found"]["key_past_its_time"], 1, "{report:#}");
}
