//! Backups of a server that takes its copy back meanwhile, as one does that stops.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use bytes::Bytes;
use gureum_proto::{AccountId, DeviceId, PushDigest, PushService};

use super::*;
use crate::seal::{Keyring, MASTER};
use crate::store::conformance::{RETENTION_MS, START_MS, expiry};
use crate::store::record::{CodeRecord, PushStateRecord, PushTargetRecord, SpentRecord};
use crate::store::rocks::RocksStore;
use crate::store::{Batch, Durability, Family, Store, key, read};

/// Copies the database of a server in whose copy these files are when it is read. The server keeps the connection until
/// the end, or closes it before the files are looked at.
fn copied(files: &[&str], is_kept: bool) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, to) = (directory.path().join("d"), directory.path().join("to"));
    let copy = data_dir.join("checkpoint");
    fs::create_dir_all(&copy).unwrap();
    let _lock = format::lock(&data_dir).unwrap();
    files.iter().for_each(|name| fs::write(copy.join(name), name).unwrap());
    let listener = UnixListener::bind(data_dir.join(SOCKET)).unwrap();
    let (end, ended) = mpsc::channel::<()>();
    let serving = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = vec![0; CHECKPOINT.len()];
        connection.read_exact(&mut request).unwrap();
        let answer = serde_json::to_string(&Answer::Path(copy)).unwrap();
        connection.write_all(format!("{answer}\n").as_bytes()).unwrap();
        let _ = ended.recv();
    });
    let source = Source::open(&data_dir).unwrap();
    let copy = || source.copy(&data_dir, &to).map(|()| fs::read_dir(&to).unwrap().count());
    let leave = || {
        drop(end);
        serving.join().unwrap();
    };
    let copied = if is_kept {
        let copied = copy();
        leave();
        copied
    } else {
        leave();
        copy()
    };
    copied.map_err(|error| error.to_string())
}

#[test]
fn a_copy_that_the_server_takes_back_is_no_backup_however_much_of_it_was_read() {
    let all = ["000004.log", "000009.sst", "CURRENT", "MANIFEST-000001"];
    assert_eq!(copied(&all, true), Ok(all.len()));
    for left in [&all[..], &all[..2], &[]] {
        let said = copied(left, false).unwrap_err();
        assert!(said.contains("took its copy of the database back"), "{said}");
    }
}

const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
const NUMBER: key::NumberHash = [0x0e; 32];

fn target() -> PushTargetRecord {
    PushTargetRecord {
        digest: PushDigest::from_bytes([1; 16]),
        service: PushService::Fcm,
        host: 0,
        visible: true,
        set_ms: START_MS,
        generation: 1,
        nonce: [0; 12],
        sealed: Bytes::from_static(b"sealed"),
    }
}

/// A data directory with a push target, its state, a code, the count of its day and both secrets; and a backup of it.
fn backed_up(directory: &Path) -> (PathBuf, PathBuf) {
    let (data_dir, backup) = (directory.join("d"), directory.join("b"));
    let (_time, expiry) = expiry();
    let store = RocksStore::open(&data_dir, expiry).unwrap();
    let mut batch = Batch::new();
    batch.put_record(Family::Push, key::push_target(&ACCOUNT, &DEVICE), &target());
    let state = PushStateRecord { woken_seq: 0, woken_ms: START_MS, warned_ms: 0 };
    batch.put_record(Family::Push, key::push_state(&ACCOUNT, &DEVICE), &state);
    let code = CodeRecord { expires_ms: START_MS + 300_000, hash: [1; 32], tries_left: 5, sent_ms: START_MS };
    batch.put_record(Family::Code, key::code(&NUMBER), &code);
    batch.put_record(Family::Code, key::spent(1), &SpentRecord { expires_ms: START_MS + 300_000, count: 7 });
    store.write(&batch, Durability::Synced).unwrap();
    store.close().unwrap();
    drop(store);
    let keyring = Keyring::open(&data_dir.join(KEYS), None, RETENTION_MS).unwrap();
    for name in SecretName::ALL {
        keyring.secret(name).unwrap();
    }
    fs::write(data_dir.join("vapid.key"), b"a key of Web Push").unwrap();
    let _ = take(&data_dir, &backup, START_MS).unwrap();
    (data_dir, backup)
}

#[test]
fn a_backup_holds_the_secrets_and_no_key_that_opens_them() {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, backup) = backed_up(directory.path());
    for name in SecretName::ALL {
        let path = Path::new(KEYS).join(name.file());
        assert_eq!(fs::read(backup.join(&path)).unwrap(), fs::read(data_dir.join(&path)).unwrap());
    }
    assert!(!backup.join(KEYS).join(MASTER).exists());
    assert_eq!(fs::read(backup.join("vapid.key")).unwrap(), b"a key of Web Push");
}

#[test]
fn a_restore_forgets_who_was_woken_and_codes_that_may_be_used_and_keeps_targets_and_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (_, backup) = backed_up(directory.path());
    let to = directory.path().join("new");
    let _ = restore(&backup, &to, None, None).unwrap();
    let (_time, expiry) = expiry();
    let store = RocksStore::open(&to, expiry).unwrap();
    let found: Option<PushTargetRecord> = read(&store, Family::Push, &key::push_target(&ACCOUNT, &DEVICE)).unwrap();
    assert_eq!(found, Some(target()));
    assert_eq!(store.get(Family::Push, &key::push_state(&ACCOUNT, &DEVICE)).unwrap(), None);
    assert_eq!(store.get(Family::Code, &key::code(&NUMBER)).unwrap(), None);
    let spent: Option<SpentRecord> = read(&store, Family::Code, &key::spent(1)).unwrap();
    assert_eq!(spent.map(|spent| spent.count), Some(7));
}

/// How many secrets a restore put back and how many it left out, and whether the directory that it made opens with those
/// it has.
fn secrets_after(backup: &Path, to: &Path, keys: Option<&Path>, master: Option<&Path>) -> (u64, u64, bool) {
    let restored = restore(backup, to, keys, master).unwrap();
    let keyring = Keyring::open(&to.join(KEYS), master, RETENTION_MS);
    let opens = keyring.is_ok_and(|keyring| SecretName::ALL.iter().all(|name| keyring.secret(*name).is_ok()));
    (restored.secrets, restored.secrets_left_out, opens)
}

#[test]
fn secrets_are_put_back_if_the_master_key_opens_them_and_whatever_is_there_starts() {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, backup) = backed_up(directory.path());
    let place = |name: &str| directory.path().join(name);
    let master = data_dir.join(KEYS).join(MASTER);
    assert_eq!(secrets_after(&backup, &place("without"), None, None), (0, 2, true));
    assert_eq!(secrets_after(&backup, &place("elsewhere"), None, Some(&master)), (2, 0, true));
    // The old directory of keys has the secrets itself.
    let keys = data_dir.join(KEYS);
    assert_eq!(secrets_after(&backup, &place("with keys"), Some(&keys), None), (0, 0, true));
    assert_eq!(fs::read(place("with keys/keys/push.secret")).unwrap(), fs::read(keys.join("push.secret")).unwrap());
    fs::remove_file(keys.join("push.secret")).unwrap();
    assert_eq!(secrets_after(&backup, &place("with some keys"), Some(&keys), None), (1, 0, true));
    let other = place("other master");
    fs::write(&other, [7; 32]).unwrap();
    assert_eq!(secrets_after(&backup, &place("with another"), None, Some(&other)), (0, 2, true));
}

#[test]
fn a_master_key_that_is_named_and_not_there_stops_a_restore() {
    let directory = tempfile::tempdir().unwrap();
    let (_, backup) = backed_up(directory.path());
    let (to, master) = (directory.path().join("new"), directory.path().join("nowhere"));
    let refused = restore(&backup, &to, None, Some(&master)).unwrap_err().to_string();
    assert!(refused.contains("nowhere"), "{refused}");
    assert!(!to.join("db").exists());
    let _ = restore(&backup, &to, None, None).unwrap();
}
