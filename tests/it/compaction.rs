//! A damaged table that is met by a compaction, when the server has long been serving: it takes nothing more, says
//! what is wrong, ends, and is well after a restore.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gureum_proto::{DeliveryFrame, EnvelopeBody, GapReason, Position, ServerFrame, put_send};
use gureum_tests::disk::{contains, files};
use gureum_tests::operator::gureumd;
use gureum_tests::wait::{SOON, eventually};
use gureum_tests::{Options, World};

use crate::alarms::firing;
use crate::backup::{backup, restore};
use crate::delivery::Two;

const START: Position = Position { seq: 0, count: 0 };
const MESSAGES: u64 = 12;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// So long that a table of them has several blocks, of which a start reads only the last.
fn body(index: u64) -> Vec<u8> {
    format!("body {index:04} ").repeat(300).into_bytes()
}

/// Flips a bit in the first block of a family's largest table; gives the table's name.
pub(crate) fn spoil_table(data_dir: &Path, family: &str) -> String {
    // A table names its family in its properties; what follows the name is the length of the next one.
    let name = format!("name{family}");
    let is_of_family =
        |bytes: &[u8]| contains(bytes, name.as_bytes()) && !contains(bytes, format!("{name}_").as_bytes());
    let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
    let tables = files(data_dir).into_iter().filter(|(path, bytes)| is_table(path) && is_of_family(bytes));
    let (path, mut bytes) = tables.max_by_key(|(_, bytes)| bytes.len()).expect("the family has a table");
    bytes[100] ^= 0x20;
    // The table may be a backup's too, by a hard link.
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// A server with messages in one table, which is spoiled now; the table's name, and a backup from before.
async fn spoiled(family: &str, retention: Option<&'static str>) -> (Two, String, PathBuf) {
    let mut two = Two::in_world(World::start_with(Options { retention, ..Options::default() })).await;
    // At once, so that they are in one table.
    let bodies: Vec<_> = (0..MESSAGES).map(body).collect();
    two.send(&bodies.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    assert!(two.world.stop().success());
    let to = two.world.directory("backup");
    let _ = backup(two.world.data_dir(), &to).ok();
    let table = spoil_table(two.world.data_dir(), family);
    (two, table, to)
}

/// Waits until the server has ended by itself, as it must when it has met the damage; gives what `/readyz` said at last,
/// and the alarms that fired from then on. Once the server is not ready, a message is sent in vain again and again.
async fn ends_by_itself(two: &mut Two, table: &str) -> (String, Vec<String>) {
    let (begun, admin) = (Instant::now(), two.world.admin());
    let (mut said, mut fired) = (String::new(), Vec::new());
    let status = loop {
        if let Some(status) = two.world.has_ended() {
            break status;
        }
        assert!(begun.elapsed() < SOON, "it goes on: {}", two.world.log());
        if let Ok((503, why)) = admin.try_get("/readyz") {
            said = why;
            fired.extend(firing(admin));
            let mut out = BytesMut::new();
            put_send(&two.alice.opaque(&two.talk, body(0)), &mut out);
            two.raw.write(&out).await;
        }
        match tokio::time::timeout(LOOK_AGAIN, two.raw.next_frame()).await {
            Ok(Ok(ServerFrame::Sent(sent))) => assert!(sent.result.is_err(), "it takes what it cannot keep"),
            Ok(Err(_)) => std::thread::park_timeout(LOOK_AGAIN),
            _ => {}
        }
    };
    let log = two.world.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let last = log.lines().last().unwrap_or_default();
    println!("{log}");
    for part in ["its store failed: the database is damaged", table, "gureumd check", "gureumd restore"] {
        assert!(last.contains(part), "{part} is not in {last:?}");
    }
    assert_eq!(firing(admin), ["GureumDown"]);
    (said, fired)
}

/// The audit names the table.
fn is_found(two: &Two, table: &str) {
    let audit = gureumd(["check", two.world.data_dir().to_str().unwrap()]);
    assert_eq!(audit.code, Some(1), "{audit:?}");
    assert!(audit.out.contains(table), "{audit:?}");
}

/// Moves the damaged database away, restores the backup in its place, and serves it.
async fn restored(two: &mut Two, backup: &Path) {
    fs::rename(two.world.data_dir().join("db"), two.world.directory("damaged")).unwrap();
    let _ = restore(backup, two.world.data_dir(), None).ok();
    two.world.restart();
    let admin = two.world.admin();
    let rounds = || admin.count("gureum_reclaim_seconds_count");
    eventually("the first compactions are done", SOON, || (rounds() > 1).then_some(()));
    assert!(admin.ready().0);
    two.raw = two.alice.connect(two.world.url(), false, START).await.0;
}

#[tokio::test]
async fn a_damaged_table_of_messages_lets_the_server_serve_until_a_compaction_meets_it() {
    const RETENTION: Option<&str> = Some("8s");
    let (mut two, table, backup) = spoiled("message", RETENTION).await;
    two.world.restart();
    two.raw = two.alice.connect(two.world.url(), false, START).await.0;
    two.send(&[b"taken beside the damage"]).await;
    assert!(two.world.admin().ready().0);

    let (said, fired) = ends_by_itself(&mut two, &table).await;
    assert!(said.contains("the database is damaged") && said.contains(&table), "{said}");
    assert!(fired.contains(&"GureumNotWriting".to_owned()), "{fired:?}");
    is_found(&two, &table);

    // A supervisor's starts: each serves until it meets the damage, and says so.
    for _ in 0..2 {
        two.world.restart();
        ends_by_itself(&mut two, &table).await;
    }
    restored(&mut two, &backup).await;
    two.send(&[b"taken again"]).await;
}

#[tokio::test]
async fn a_damaged_table_of_inboxes_ends_each_start_until_a_backup_is_restored() {
    let (mut two, table, backup) = spoiled("inbox", None).await;
    for _ in 0..2 {
        two.world.restart();
        ends_by_itself(&mut two, &table).await;
    }
    is_found(&two, &table);
    restored(&mut two, &backup).await;
    two.send(&[b"taken again"]).await;
    let (_raw, mut frames) = two.subscribe(START).await;
    let (mut whole, mut lost) = (0, Vec::new());
    loop {
        match frames.delivery().await {
            DeliveryFrame::Envelope(envelope) => {
                let EnvelopeBody::Message { ciphertext, .. } = envelope.shared.body else { continue };
                assert!(whole == MESSAGES || ciphertext == body(whole), "message {whole}");
                whole += 1;
            }
            DeliveryFrame::Gap(gap) => lost.push(gap.reason),
            DeliveryFrame::CaughtUp { .. } => break,
        }
    }
    assert_eq!((whole, lost), (MESSAGES + 1, vec![GapReason::Lost]), "all of the backup, and that more may be missing");
}
