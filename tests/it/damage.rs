//! Flipped bits, and files cut, emptied or missing, of every kind in a data directory: refused at the start with what to
//! do, or confined to the records concerned; never served as messages, never silent.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use gureum_proto::{Code, DeliveryFrame, EnvelopeBody, GapReason, Position};
use gureum_tests::alarm::Seen;
use gureum_tests::child::{Running, binary};
use gureum_tests::device::Device;
use gureum_tests::disk::files;
use gureum_tests::operator::gureumd;
use gureum_tests::raw::Raw;
use gureum_tests::wait::SOON;
use gureum_tests::{Options, World};
use quinn::Endpoint;

use crate::alarms::alarms;
use crate::delivery::{Two, next_body};

const START: Position = Position { seq: 0, count: 0 };
const MESSAGES: u64 = 30;

fn body(index: u64) -> Vec<u8> {
    format!("body {index:04} ").repeat(20).into_bytes()
}

/// What can happen to a file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// A bit flips, at so many hundredths of the file.
    Flip(usize),
    /// So does another, that makes one digit of another: 1 of 9, 2 of a colon.
    Digit(usize),
    Cut,
    Empty,
    Missing,
}

fn harm(path: &Path, harm: Harm) {
    let mut bytes = fs::read(path).unwrap();
    let at = |hundredths: usize| bytes.len() * hundredths / 100;
    match harm {
        Harm::Flip(hundredths) => {
            let at = at(hundredths);
            bytes[at] ^= 0x20;
        }
        Harm::Digit(hundredths) => {
            let at = at(hundredths);
            bytes[at] ^= 0x08;
        }
        Harm::Cut => bytes.truncate(bytes.len() / 2),
        Harm::Empty => bytes.clear(),
        Harm::Missing => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

/// A directory with messages in tables, and later ones in the log.
async fn used() -> Two {
    let mut two = Two::start().await;
    for index in 0..MESSAGES / 2 {
        two.send(&[&body(index)]).await;
    }
    assert!(two.world.stop().success());
    two.world.restart();
    let (raw, _) = two.alice.connect(two.world.url(), false, START).await;
    two.raw = raw;
    for index in MESSAGES / 2..MESSAGES {
        two.send(&[&body(index)]).await;
    }
    two.world.kill();
    two
}

/// How a server came out of it.
#[derive(Debug)]
enum Outcome {
    /// It did not start, and said this.
    Refused(String),
    /// It serves: so many messages as they were sent, and so many lost and said to be.
    Served { whole: u64, lost: u64 },
    /// It serves others; this device is told to try again.
    Unavailable,
}

/// Starts a server of a damaged directory and reads Bob's inbox. Whatever is handed out must be what was sent.
async fn outcome(two: &Two, directory: &Path) -> Outcome {
    let mut command = std::process::Command::new(binary("gureumd"));
    command.arg("serve").arg("--data-dir").arg(directory);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut process = Running::start(&mut command);
    let url = process.out.find(SOON, |line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(event["url"].as_str()?.to_owned())
    });
    let refused = |mut process: Running| {
        let status = process.wait(SOON);
        let said = process.err.all().join("\n");
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        Outcome::Refused(said)
    };
    let Some(url) = url else { return refused(process) };
    let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let dialled = tokio::time::timeout(SOON, Raw::dial_on(&endpoint, &url)).await;
    // A compaction that meets the damage may have ended the server before anybody has come in.
    let Ok(Ok(mut raw)) = dialled else { return refused(process) };
    let hello = two.bob.hello(&raw, &two.bob.claim(true, START));
    let closed = raw.connection.clone();
    let read = async {
        raw.write(&hello).await;
        let _ = raw.frame().await;
        let mut frames = raw.delivery().await;
        let (mut whole, mut lost) = (0, 0);
        loop {
            match frames.delivery().await {
                DeliveryFrame::Envelope(envelope) => {
                    if let EnvelopeBody::Message { ciphertext, .. } = envelope.shared.body {
                        assert_eq!(ciphertext, body(envelope.position.count - 1), "never another body");
                        whole += 1;
                    }
                }
                DeliveryFrame::Gap(gap) => {
                    assert_eq!(gap.reason, GapReason::Lost);
                    lost += gap.missed;
                }
                DeliveryFrame::CaughtUp { .. } => return Outcome::Served { whole, lost },
            }
        }
    };
    let outcome = tokio::select! {
        // First: what is read of a closed connection is an error, and no outcome.
        biased;
        _ = closed.closed() => Outcome::Unavailable,
        outcome = read => outcome,
    };
    assert!(!process.err.all().join("\n").contains("panicked"));
    process.kill();
    outcome
}

/// The files of a kind in a used directory, as paths relative to it.
fn of_kind(directory: &Path, is_of_kind: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let relative = |path: PathBuf| path.strip_prefix(directory).unwrap().to_owned();
    let found: Vec<_> =
        files(directory).into_iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| relative(path)).collect();
    found.into_iter().filter(|path| is_of_kind(path.to_str().unwrap())).collect()
}

/// Harms each file of a kind in each way, and hands the outcomes with what the audit says to `judge`.
async fn each(
    two: &Two,
    is_of_kind: impl Fn(&str) -> bool,
    harms: &[Harm],
    mut judge: impl FnMut(&str, Harm, &Outcome, bool),
) {
    let paths = of_kind(two.world.data_dir(), is_of_kind);
    assert!(!paths.is_empty(), "there are files of the kind");
    for path in paths {
        for kind in harms {
            let work = tempfile::tempdir().unwrap();
            let directory = work.path().join("d");
            copy(two.world.data_dir(), &directory);
            harm(&directory.join(&path), *kind);
            let audit = gureumd(["check", directory.to_str().unwrap()]);
            assert!(!audit.err.contains("panicked"), "{audit:?}");
            // 3: keys alone are missing.
            let is_found = matches!(audit.code, Some(1 | 3));
            let outcome = outcome(two, &directory).await;
            println!("{} {kind:?}: {outcome:?}, found: {is_found}", path.display());
            judge(path.to_str().unwrap(), *kind, &outcome, is_found);
        }
    }
}

/// Nothing may be missing without a word: all whole, or lost and said, or refused, or to be tried again.
fn assert_nothing_is_silent(path: &str, harm: Harm, outcome: &Outcome, is_found: bool) {
    match outcome {
        Outcome::Served { whole, lost } => {
            assert_eq!(whole + lost, MESSAGES, "{path} {harm:?}");
            assert!(*lost == 0 || is_found, "{path} {harm:?}: lost, and the audit finds nothing");
        }
        Outcome::Refused(said) => {
            assert!(is_found, "{path} {harm:?}: refused, and the audit finds nothing: {said}");
        }
        Outcome::Unavailable => assert!(is_found, "{path} {harm:?}"),
    }
}

const ALL: [Harm; 6] = [Harm::Flip(1), Harm::Flip(30), Harm::Flip(60), Harm::Cut, Harm::Empty, Harm::Missing];

#[tokio::test]
async fn damage_of_tables_is_never_silent_and_never_served() {
    let two = used().await;
    each(&two, |path| path.ends_with(".sst"), &ALL, assert_nothing_is_silent).await;
}

#[tokio::test]
async fn damage_of_the_log_is_told_from_a_torn_end_and_refused() {
    let two = used().await;
    each(
        &two,
        |path| path.ends_with(".log"),
        &ALL,
        |path, harm, outcome, is_found| {
            assert!(is_found, "{path} {harm:?}");
            let Outcome::Refused(said) = outcome else { panic!("{path} {harm:?}: {outcome:?}") };
            assert!(said.contains("estore a backup"), "{said}");
        },
    )
    .await;
}

#[tokio::test]
async fn damage_of_the_databases_own_lists_is_refused() {
    let two = used().await;
    let is_list = |path: &str| path.contains("MANIFEST") || path.ends_with("CURRENT");
    each(&two, is_list, &ALL, assert_nothing_is_silent).await;
}

#[tokio::test]
async fn damage_of_files_that_hold_nothing_is_harmless() {
    let two = used().await;
    let is_idle = |path: &str| path.contains("OPTIONS") || path.ends_with("IDENTITY") || path.ends_with("server.json");
    each(&two, is_idle, &[Harm::Flip(30), Harm::Empty, Harm::Missing], |path, harm, outcome, _| {
        let all = matches!(outcome, Outcome::Served { whole: MESSAGES, lost: 0 });
        assert!(all, "{path} {harm:?}: {outcome:?}");
    })
    .await;
}

#[tokio::test]
async fn damage_of_the_small_files_is_refused_by_name() {
    let two = used().await;
    let names = ["FORMAT", "clock", "invite.key", "sequence"];
    each(&two, |path| names.contains(&path), &SMALL, assert_refused_by_name).await;
}

#[tokio::test]
async fn damage_of_the_certificate_is_refused_by_name_unless_it_means_nothing() {
    let two = used().await;
    each(
        &two,
        |path| path.starts_with("tls/"),
        &SMALL,
        |path, harm, outcome, is_found| match outcome {
            // Names, dates and the certificate's own signature: whoever has the pin looks at the key alone.
            Outcome::Served { whole: MESSAGES, lost: 0 } if path == "tls/cert.pem" && !is_found => {}
            _ => assert_refused_by_name(path, harm, outcome, is_found),
        },
    )
    .await;
}

#[tokio::test]
async fn an_invite_of_a_damaged_address_is_none() {
    let two = used().await;
    each(
        &two,
        |path| path == "server.json",
        &[Harm::Flip(20), Harm::Digit(40), Harm::Digit(60), Harm::Flip(90)],
        |path, harm, outcome, is_found| {
            assert!(is_found, "{path} {harm:?}");
            let all = matches!(outcome, Outcome::Served { whole: MESSAGES, lost: 0 });
            assert!(all, "{path} {harm:?}: {outcome:?}");
        },
    )
    .await;
    harm(&two.world.data_dir().join("server.json"), Harm::Digit(60));
    let said = gureumd(["invite", "--data-dir", two.world.data_dir().to_str().unwrap()]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("server.json") && said.err.contains("start the server"), "{said:?}");
}

/// What may happen to a file that is read whole.
const SMALL: [Harm; 9] = [
    Harm::Digit(0),
    Harm::Flip(1),
    Harm::Digit(10),
    Harm::Digit(30),
    Harm::Flip(50),
    Harm::Digit(80),
    Harm::Flip(99),
    Harm::Cut,
    Harm::Empty,
];

fn assert_refused_by_name(path: &str, harm: Harm, outcome: &Outcome, is_found: bool) {
    assert!(is_found, "{path} {harm:?}");
    let Outcome::Refused(said) = outcome else { panic!("{path} {harm:?}: {outcome:?}") };
    let name = Path::new(path).file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name) || said.contains("format"), "{path} {harm:?}: {said}");
}

#[tokio::test]
async fn small_files_that_are_missing_are_told_and_no_key_that_clients_trust_is_replaced() {
    let two = used().await;
    let missing = [Harm::Missing];
    each(
        &two,
        |path| path == "tls/key.pem",
        &missing,
        |_, _, outcome, is_found| {
            let Outcome::Refused(said) = outcome else { panic!("{outcome:?}") };
            assert!(is_found && said.contains("tls/key.pem is missing") && said.contains("server.json"), "{said}");
        },
    )
    .await;
    // Of these a start makes others, that serve as well: whoever registered connects, and has all its messages.
    let names = ["clock", "tls/cert.pem", "invite.key", "sequence"];
    each(
        &two,
        |path| names.contains(&path),
        &missing,
        |path, _, outcome, is_found| {
            let all = matches!(outcome, Outcome::Served { whole: MESSAGES, lost: 0 });
            assert!(is_found && all, "{path}: {outcome:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_lost_certificate_is_replaced_only_when_the_operator_says_so() {
    let mut two = used().await;
    let data_dir = two.world.data_dir().to_owned();
    fs::remove_dir_all(data_dir.join("tls")).unwrap();
    let (status, said) = two.world.restart_in_vain();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("tls/key.pem is missing"), "{said}");
    assert!(!data_dir.join("tls").exists(), "nothing was made");
    fs::remove_file(data_dir.join("server.json")).unwrap();
    let old = gureumd(["check", data_dir.to_str().unwrap()]);
    assert!(old.code == Some(1) && old.out.contains("tls/key.pem"), "{old:?}");
    two.world.restart();
    assert!(data_dir.join("tls/key.pem").exists());
}

#[tokio::test]
async fn damage_of_the_keyring_is_refused_by_name_and_a_missing_key_is_a_gap() {
    let two = used().await;
    each(
        &two,
        |path| path.starts_with("keys/"),
        &SMALL,
        |path, harm, outcome, is_found| {
            assert!(is_found, "{path} {harm:?}");
            let Outcome::Refused(said) = outcome else { panic!("{path} {harm:?}: {outcome:?}") };
            assert!(said.contains("key"), "{path} {harm:?}: {said}");
        },
    )
    .await;
    let is_key = |path: &str| path.starts_with("keys/") && !path.ends_with("master.key");
    let mut lost_in_all = 0;
    each(&two, is_key, &[Harm::Missing], |path, harm, outcome, is_found| {
        let Outcome::Served { whole, lost } = outcome else { panic!("{path} {harm:?}: {outcome:?}") };
        assert_eq!(whole + lost, MESSAGES, "{path}: all whole, or told as lost before their time");
        assert!(*lost == 0 || is_found, "{path}: the audit finds living messages without a key");
        lost_in_all += lost;
    })
    .await;
    assert_eq!(lost_in_all, MESSAGES, "each message has one key");
}

#[tokio::test]
async fn damage_of_one_inbox_in_a_table_refuses_what_is_sent_to_it_and_others_are_served() {
    let mut two = Two::start().await;
    two.send(&[&body(0)]).await;
    assert!(two.world.stop().success());
    // Bob's inbox stands in this table alone, and Carol's in later ones.
    let table = of_kind(two.world.data_dir(), |path| path.ends_with(".sst"))
        .into_iter()
        .map(|path| two.world.data_dir().join(path))
        .find(|path| gureum_tests::disk::contains(&fs::read(path).unwrap(), b"inbox_head"))
        .expect("a table of heads");
    two.world.restart();
    let mut carol = Device::registered(&two.world, "carol").await;
    let (mut carols, _) = carol.connect(two.world.url(), false, START).await;
    carol.publish(&carols, 1).await;
    let (raw, _) = two.alice.connect(two.world.url(), false, START).await;
    let with_carol = two.alice.begin(&raw, &carol).await;
    // So that Alice's inbox stands in a later table as well.
    let to_alice = carol.opaque(&with_carol, body(3));
    carols.send(&[to_alice]).await.remove(0).result.unwrap();
    assert!(two.world.stop().success());

    let mut bytes = fs::read(&table).unwrap();
    let bob = &two.bob.account.as_bytes()[4..];
    let at = bytes.windows(bob.len()).position(|window| window == bob).expect("Bob's inbox");
    bytes[at] ^= 1;
    fs::write(&table, bytes).unwrap();
    two.world.restart();
    let (mut raw, _) = two.alice.connect(two.world.url(), false, START).await;
    let mut seen = Seen::nothing();
    seen.look(two.world.admin());
    for round in 1..=5 {
        // In one batch, and again and again as a sender repeats it.
        let sends = [two.alice.opaque(&two.talk, body(1)), two.alice.opaque(&with_carol, body(2))];
        let sent = raw.send(&sends).await;
        assert_eq!(sent[0].result.as_ref().map_err(|refusal| refusal.code), Err(Code::Unavailable), "round {round}");
        assert_eq!(sent[1].result.as_ref().map(|accepted| accepted.number), Ok(round + 1));
    }
    seen.look(two.world.admin());
    assert_eq!(seen.firing(&alarms()), ["GureumCannotRead"]);
    let (reader, _) = carol.connect(two.world.url(), true, START).await;
    let mut frames = reader.delivery().await;
    for _ in 1..=5 {
        assert_eq!(next_body(&mut frames).await.1, body(2));
    }
    assert!(two.world.has_ended().is_none(), "a read that fails is no reason to end");
    assert_eq!(two.world.admin().count("gureum_unplanned_total"), 5);
    assert!(two.world.log().contains("could not be planned"), "{}", two.world.log());
}

#[tokio::test]
async fn the_way_out_of_a_damaged_log_is_the_one_that_the_message_says() {
    let two = used().await;
    let log = of_kind(two.world.data_dir(), |path| path.ends_with(".log")).remove(0);
    let log = two.world.data_dir().join(log);
    harm(&log, Harm::Flip(50));
    let (_, said) = World::fail_to_start(two.world.data_dir(), SOON);
    let offset = said.split("truncate -s ").nth(1).and_then(|rest| rest.split(' ').next()).expect("how to cut it");
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(offset.parse().unwrap()).unwrap();
    let (backup, elsewhere) = (two.world.directory("backup"), two.world.directory("elsewhere"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let _ = gureumd(["backup", "--data-dir", &path(two.world.data_dir()), "--to", &path(&backup)]).ok();
    let keys = path(&two.world.data_dir().join("keys"));
    let arguments = ["restore", "--from", &path(&backup), "--data-dir", &path(&elsewhere), "--keys", &keys];
    let _ = gureumd(arguments).ok();
    let world = World::start_with(Options { data_dir: Some(elsewhere), ..Options::default() });
    let (raw, _) = two.bob.connect(world.url(), true, START).await;
    let mut frames = raw.delivery().await;
    let mut whole = 0;
    let gap = loop {
        match frames.delivery().await {
            DeliveryFrame::Envelope(envelope) => whole = envelope.position.count,
            DeliveryFrame::Gap(gap) => break gap,
            DeliveryFrame::CaughtUp { .. } => panic!("the loss is not told"),
        }
    };
    assert!((MESSAGES / 2..MESSAGES).contains(&whole), "{whole}");
    assert_eq!(gap.reason, GapReason::Lost);
}
