//! Backups: made while the server is under load, restored elsewhere, and nothing readable in them alone.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use gureum_proto::{DeliveryFrame, EnvelopeBody, GapReason, Position};
use gureum_tests::disk::{contains, files};
use gureum_tests::operator::{Said, gureumd};
use gureum_tests::raw::Frames;
use gureum_tests::{Options, World};

use crate::delivery::{Two, next_body};

const START: Position = Position { seq: 0, count: 0 };

pub(crate) fn backup(data_dir: &Path, to: &Path) -> Said {
    gureumd(["backup", "--data-dir", data_dir.to_str().unwrap(), "--to", to.to_str().unwrap()])
}

pub(crate) fn restore(from: &Path, data_dir: &Path, keys: Option<&Path>) -> Said {
    let mut arguments = vec!["restore", "--from", from.to_str().unwrap(), "--data-dir", data_dir.to_str().unwrap()];
    arguments.extend(keys.iter().flat_map(|keys| ["--keys", keys.to_str().unwrap()]));
    gureumd(arguments)
}

/// The server is lost, and a backup of it takes its place, with the keyring that is still there.
pub(crate) fn go_back(world: &mut World, to: &Path) {
    world.kill();
    come_back(world, to);
}

/// The same, where it is lost already.
pub(crate) fn come_back(world: &mut World, to: &Path) {
    let old = world.directory("old");
    std::fs::rename(world.data_dir(), &old).unwrap();
    let _ = restore(to, world.data_dir(), Some(&old.join("keys"))).ok();
    world.restart();
}

fn body(index: u64) -> Vec<u8> {
    format!("the body of message {index:04}, long enough to be found anywhere").into_bytes()
}

/// What a restore led to, and who lives through it.
struct Back {
    two: Two,
    backup: PathBuf,
    /// Messages accepted before the backup began, and all that ever were on the old server.
    before: u64,
    sent: u64,
    /// What the restore printed.
    restored: serde_json::Value,
}

/// Alice sends while a backup is made; then the server is lost, and restored elsewhere.
async fn back_from_a_backup(with_keys: bool) -> Back {
    let mut two = Two::start().await;
    let mut sent = 0;
    while sent < 40 {
        two.send(&[&body(sent)]).await;
        sent += 1;
    }
    let before = sent;
    let (data_dir, to) = (two.world.data_dir().to_owned(), two.world.directory("backup"));
    let target = to.clone();
    let making = tokio::task::spawn_blocking(move || backup(&data_dir, &target));
    while !making.is_finished() {
        two.send(&[&body(sent)]).await;
        sent += 1;
    }
    let _ = making.await.unwrap().ok();
    for _ in 0..5 {
        two.send(&[&body(sent)]).await;
        sent += 1;
    }
    assert!(!two.world.data_dir().join("checkpoint").exists() || wait_for_no_copy(&two.world));
    let keys = two.world.data_dir().join("keys");
    two.world.kill();
    let elsewhere = two.world.directory("elsewhere");
    let restored = restore(&to, &elsewhere, with_keys.then_some(keys.as_path())).ok().json();
    let options = Options { data_dir: Some(elsewhere), ..Options::default() };
    let old = std::mem::replace(&mut two.world, World::start_with(options));
    // Its directories must outlive the test.
    std::mem::forget(old);
    Back { two, backup: to, before, sent, restored }
}

fn wait_for_no_copy(world: &World) -> bool {
    let gone = || (!world.data_dir().join("checkpoint").exists()).then_some(true);
    gureum_tests::wait::eventually("the copy is removed", gureum_tests::wait::SOON, gone)
}

/// Everything up to the end of the backlog: the bodies with their positions, and the gaps.
async fn backlog(frames: &mut Frames) -> (Vec<(Position, Vec<u8>)>, Vec<gureum_proto::Gap>) {
    let (mut bodies, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match frames.delivery().await {
            DeliveryFrame::Envelope(envelope) => {
                if let EnvelopeBody::Message { ciphertext, .. } = envelope.shared.body {
                    bodies.push((envelope.position, ciphertext.to_vec()));
                }
            }
            DeliveryFrame::Gap(gap) => gaps.push(gap),
            DeliveryFrame::CaughtUp { .. } => return (bodies, gaps),
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_backup_under_load_comes_once_after_its_restore() {
    let mut back = back_from_a_backup(true).await;
    assert_eq!(back.restored["messages_unreadable"], 0, "{}", back.restored);
    let (raw, mut frames) = back.two.subscribe(START).await;
    let (bodies, gaps) = backlog(&mut frames).await;
    let came = u64::try_from(bodies.len()).unwrap();
    assert!((back.before..=back.sent).contains(&came), "{came} of {} and {}", back.before, back.sent);
    for (index, (position, came)) in (0..).zip(&bodies) {
        assert_eq!((position.count, came), (index + 1, &body(index)));
    }
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!(gap.reason, GapReason::Lost, "what came after the backup is lost, and said to be");
    assert_eq!(gap.from_seq, bodies.last().unwrap().0.seq + 1);
    raw.close().await;

    // New messages come to a device that is behind, and to one that has seen what the backup has not.
    let ahead = Position { seq: back.sent + 1, count: back.sent };
    let (mut alice, _) = back.two.alice.connect(back.two.world.url(), false, START).await;
    let send = back.two.alice.opaque(&back.two.talk, body(9_999));
    let number = alice.send(&[send]).await.remove(0).result.unwrap().number;
    assert!(number > back.sent, "no number is given twice");
    let (_raw, mut frames) = back.two.subscribe(ahead).await;
    let (bodies, gaps) = backlog(&mut frames).await;
    assert_eq!((gaps[0].from_seq, gaps[0].reason), (ahead.seq + 1, GapReason::Lost));
    assert_eq!(bodies.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>(), [body(9_999)]);
    assert!(bodies[0].0.seq > ahead.seq, "no position is used twice");
}

#[tokio::test]
async fn without_the_keyring_a_backup_tells_nothing_and_devices_are_told_of_exact_gaps() {
    let back = back_from_a_backup(false).await;
    let kept = back.restored["messages_unreadable"].as_u64().unwrap();
    assert!((back.before..=back.sent).contains(&kept), "{}", back.restored);
    assert_eq!(back.restored["messages_readable"], 0);
    let (_raw, mut frames) = back.two.subscribe(START).await;
    let (bodies, gaps) = backlog(&mut frames).await;
    assert_eq!(bodies, [], "nothing is handed out");
    assert_eq!(gaps.iter().map(|gap| gap.missed).sum::<u64>(), kept);
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::Lost), "their time has not come: {gaps:?}");
    assert!(back.two.world.admin().count("gureum_gaps_total{reason=\"lost\"}") > 0);

    let stored = files(&back.backup);
    // The secrets of push targets and phone numbers are there, wrapped by the master key, which is not.
    let is_key = |path: &PathBuf| {
        path.parent().is_some_and(|folder| folder.ends_with("keys"))
            && path.extension().is_none_or(|kind| kind != "secret")
    };
    assert!(!stored.keys().any(|path| path.ends_with("master.key") || is_key(path)), "{:?}", stored.keys());
    for (path, bytes) in &stored {
        assert!(!contains(bytes, b"the body of message"), "{}", path.display());
    }
}

#[tokio::test]
async fn a_backup_checks_clean_and_what_was_changed_in_it_is_refused() {
    let mut two = Two::start().await;
    two.send(&[&body(0)]).await;
    let to = two.world.directory("backup");
    assert_eq!(backup(two.world.data_dir(), &to).code, Some(0));
    let before = files(&to);
    let said = gureumd(["check", to.to_str().unwrap()]).ok();
    assert!(said.out.contains("clean"), "{said:?}");
    assert_eq!(files(&to), before, "an audit changes nothing");

    let again = backup(two.world.data_dir(), &to);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("exists already"), "{}", again.err);
    let occupied = restore(&to, two.world.data_dir(), None);
    assert_eq!(occupied.code, Some(1));
    assert!(occupied.err.contains("holds a database already"), "{}", occupied.err);

    let (table, mut bytes) = before.into_iter().find(|(path, _)| path.extension().is_some_and(|e| e == "sst")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // The table may be the running server's own, by a hard link.
    std::fs::remove_file(&table).unwrap();
    std::fs::write(&table, bytes).unwrap();
    let name = table.file_name().unwrap().to_str().unwrap();
    let damaged = gureumd(["check", to.to_str().unwrap(), "--json"]);
    assert_eq!(damaged.code, Some(1));
    assert!(damaged.out.contains(name), "{}", damaged.out);
    let elsewhere = two.world.directory("elsewhere");
    let refused = restore(&to, &elsewhere, None);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains(name) && refused.err.contains("nothing was restored"), "{}", refused.err);
    assert!(!elsewhere.join("db").exists());
}

#[tokio::test]
async fn a_backup_of_a_stopped_server_is_whole_too() {
    let mut two = Two::start().await;
    two.send(&[&body(0), &body(1)]).await;
    two.world.kill();
    let (to, elsewhere) = (two.world.directory("backup"), two.world.directory("elsewhere"));
    let _ = backup(two.world.data_dir(), &to).ok();
    let _ = gureumd(["check", to.to_str().unwrap()]).ok();
    let keys = two.world.data_dir().join("keys");
    let restored = restore(&to, &elsewhere, Some(&keys)).ok().json();
    assert_eq!(restored["messages_readable"], 2, "{restored}");
    two.world.restart();
    let (_raw, mut frames) = two.subscribe(START).await;
    assert_eq!(next_body(&mut frames).await.1, body(0), "the server itself goes on");
}

/// Whether the server still holds its copy for this connection.
fn is_open(connection: &mut UnixStream) -> bool {
    connection.set_nonblocking(true).unwrap();
    matches!(connection.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_server_that_stops_closes_the_connection_before_it_takes_its_copy_away() {
    let mut two = Two::start().await;
    two.send(&[&body(0)]).await;
    let mut connection = UnixStream::connect(two.world.data_dir().join("control.sock")).unwrap();
    connection.write_all(b"checkpoint\n").unwrap();
    let mut line = String::new();
    BufReader::new(&connection).read_line(&mut line).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    let copy = PathBuf::from(answer["path"].as_str().unwrap());
    let all = files(&copy).len();
    assert!(all > 0 && is_open(&mut connection));
    two.world.begin_to_stop();
    loop {
        let there = files(&copy).len();
        if !is_open(&mut connection) {
            break;
        }
        assert_eq!(there, all, "whole, for as long as the connection says so");
        tokio::task::yield_now().await;
    }
    assert!(two.world.wait_for_end().success());
    assert!(!copy.exists());
}

#[tokio::test]
async fn a_directory_that_lost_its_database_alone_starts_after_a_restore_and_checks_clean() {
    let mut two = Two::start().await;
    two.send(&[&body(0)]).await;
    let to = two.world.directory("backup");
    let _ = backup(two.world.data_dir(), &to).ok();
    // The database goes on, further than the restored one will have come.
    for index in 1..20 {
        two.send(&[&body(index)]).await;
    }
    two.world.kill();
    std::fs::remove_dir_all(two.world.data_dir().join("db")).unwrap();
    std::fs::remove_file(two.world.data_dir().join("FORMAT")).unwrap();
    let restored = restore(&to, two.world.data_dir(), None).ok().json();
    assert_eq!(restored["messages_readable"], 1, "{restored}");
    let _ = gureumd(["check", two.world.data_dir().to_str().unwrap()]).ok();
    two.world.restart();
    let (_raw, mut frames) = two.subscribe(START).await;
    assert_eq!(next_body(&mut frames).await.1, body(0));
}

#[test]
fn a_conversation_that_went_on_after_the_backup_holds_up_no_others() {
    let mut world = World::start();
    let (alice, bob) = world.pair();
    let carol = world.person("carol");
    alice.send(&carol, "to carol");
    assert_eq!(carol.receive_texts(), ["to carol"]);
    carol.send(&alice, "from carol");
    assert_eq!(alice.receive_texts(), ["from carol"]);
    alice.send(&bob, "before the backup");
    let to = world.directory("backup");
    let _ = backup(world.data_dir(), &to).ok();
    // Bob joins, and renews his keys: an epoch that the backup does not know.
    assert_eq!(bob.receive_texts(), ["before the backup"]);
    bob.send(&alice, "after the backup");
    assert_eq!(alice.receive_texts(), ["after the backup"]);
    go_back(&mut world, &to);

    let told = alice.receive();
    assert!(told.iter().any(|event| event["event"] == "gap" && event["reason"] == "lost"), "{told:?}");
    alice.send(&carol, "still here");
    assert!(carol.receive_texts().contains(&"still here".to_owned()));
    assert!(bob.receive_texts().is_empty(), "what he has is not shown again");
}
