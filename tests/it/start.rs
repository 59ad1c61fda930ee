//! A start: not ready before it serves, and ended in order by a signal at any moment of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use gureum_server::time::save_last_known_ms;
use gureum_tests::World;
use gureum_tests::admin::Admin;
use gureum_tests::child::{Running, binary};
use gureum_tests::raw::Raw;
use gureum_tests::wait::{SOON, eventually, now_ms};

const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Begins a start at a free admin port, with steps that take longer than usual.
fn begin(data_dir: &Path, failpoints: &str) -> (Running, SocketAddr) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(binary("gureumd"));
    command.arg("serve").arg("--data-dir").arg(data_dir);
    command.args(["--listen", "127.0.0.1:0", "--admin", &port.to_string()]).env("FAILPOINTS", failpoints);
    let process = Running::start(&mut command);
    let answers = || std::net::TcpStream::connect(port).is_ok().then_some(());
    eventually("the admin pages", SOON, answers);
    (process, port)
}

fn url(process: &Running) -> Option<String> {
    process.out.all().iter().find_map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(event["url"].as_str()?.to_owned())
    })
}

/// A directory in which a start waits for minutes, because its clock is doubtful.
fn doubtful() -> World {
    let mut world = World::start();
    world.kill();
    save_last_known_ms(world.data_dir(), now_ms() - WEEK_MS).unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_when_it_serves_and_says_until_then_that_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, port) = begin(dir.path(), "start::store=sleep(500)");
    let mut refused = 0;
    while let (false, why) = Admin(port).ready() {
        assert!(why.contains("\"serving\":\"starting"), "{why}");
        refused += 1;
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    assert!(refused > 0, "the store takes its time to open");
    assert!(dir.path().join("server.json").exists(), "it is ready only when all has been opened");
    let url = eventually("the ready line", SOON, || url(&process));
    Raw::dial(&url).await.close().await;
    assert_eq!(Admin(port).ready(), (true, "{\"ready\":true,\"reasons\":{}}\n".to_owned()));
    process.kill();
}

#[test]
fn a_signal_ends_a_start_that_waits_for_its_clock() {
    for signal in ["TERM", "INT"] {
        let world = doubtful();
        let (mut process, port) = begin(world.data_dir(), "");
        eventually("a doubt", SOON, || Admin(port).ready().1.contains("\"clock\"").then_some(()));
        process.signal(signal);
        assert_eq!(process.wait(SOON).code(), Some(0), "{signal}");
        assert_eq!(url(&process), None);
    }
}

#[test]
fn a_signal_ends_a_start_that_opens_its_store_and_the_next_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, _) = begin(dir.path(), "start::store=sleep(2000)");
    eventually("it opens its store", SOON, || dir.path().join("db/LOG").exists().then_some(()));
    process.signal("TERM");
    assert_eq!(process.wait(SOON).code(), Some(0));
    assert_eq!(url(&process), None, "it has not become ready");
    let (mut next, _) = begin(dir.path(), "");
    eventually("the ready line", SOON, || url(&next));
    next.kill();
}

#[test]
fn a_first_start_misses_nothing() {
    let world = World::start();
    assert!(!world.log().contains("missing"), "{}", world.log());
}
