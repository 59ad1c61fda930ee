//! Tests of the keyring.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

const HOUR_MS: u64 = 3_600_000;
const RETENTION_MS: u64 = 72 * HOUR_MS;
const START_MS: u64 = 500_000 * HOUR_MS;

struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    fn open(&self) -> Result<Keyring, KeyringError> {
        Keyring::open(&self.path(), None, RETENTION_MS)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn id(time_ms: u64) -> MessageId {
    MessageId::new(time_ms, 42)
}

#[test]
fn what_is_sealed_opens_again_and_after_a_restart() {
    let bench = Bench::new();
    let sealed = {
        let keyring = bench.open().unwrap();
        let sealed = keyring.seal(&id(START_MS), b"text").unwrap();
        assert_eq!(keyring.open_message(&id(START_MS), &sealed).unwrap().as_ref(), b"text");
        assert_eq!(sealed.ciphertext.len(), 4 + SEAL_OVERHEAD_BYTES);
        sealed
    };
    let keyring = bench.open().unwrap();
    assert_eq!(keyring.open_message(&id(START_MS), &sealed).unwrap().as_ref(), b"text");
}

#[test]
fn equal_texts_seal_unequally() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    let one = keyring.seal(&id(START_MS), b"text").unwrap();
    let other = keyring.seal(&id(START_MS), b"text").unwrap();
    assert_ne!(one.ciphertext, other.ciphertext);
    assert_ne!(one.nonce, other.nonce);
}

#[test]
fn what_was_changed_or_moved_to_another_id_is_forged() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    let sealed = keyring.seal(&id(START_MS), b"text").unwrap();
    let is_forged =
        |id: &MessageId, sealed: &SealedMessage| matches!(keyring.open_message(id, sealed), Err(SealError::Forged));
    assert!(is_forged(&id(START_MS + 1), &sealed));
    let mut bytes = sealed.ciphertext.to_vec();
    bytes[0] ^= 1;
    assert!(is_forged(&id(START_MS), &SealedMessage { ciphertext: bytes.into(), ..sealed.clone() }));
    assert!(is_forged(&id(START_MS), &SealedMessage { ciphertext: Bytes::new(), ..sealed }));
}

#[test]
fn a_key_serves_one_period() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    let key_id = |time_ms| keyring.seal(&id(time_ms), b"").unwrap().key_id;
    assert_eq!(key_id(START_MS), (START_MS << 12) | 3_600);
    assert_eq!(key_id(START_MS + HOUR_MS - 1), key_id(START_MS));
    assert_eq!(key_id(START_MS + HOUR_MS), ((START_MS + HOUR_MS) << 12) | 3_600);
}

#[test]
fn periods_scale_with_the_retention() {
    assert_eq!(period_ms(RETENTION_MS), HOUR_MS);
    assert_eq!(period_ms(6_000), 1_000);
    assert_eq!(period_ms(100_000), 2_000);
    assert_eq!(period_ms(365 * 24 * HOUR_MS), HOUR_MS);
}

#[test]
fn a_tick_prepares_the_next_period() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    keyring.tick(START_MS).unwrap();
    keyring.tick(START_MS + 1).unwrap();
    let key = |at: u64| format!("{}-{}.key", START_MS + at * HOUR_MS, START_MS + (at + 1) * HOUR_MS);
    assert_eq!(bench.names(), [key(0), key(1), "master.key".to_owned()]);
}

#[test]
fn a_key_is_destroyed_when_its_last_message_has_expired() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    let sealed = keyring.seal(&id(START_MS), b"text").unwrap();
    let end_ms = START_MS + HOUR_MS + RETENTION_MS;
    assert_eq!(keyring.destroy_expired(end_ms - 1).unwrap(), 0);
    assert!(keyring.open_message(&id(START_MS), &sealed).is_ok());
    assert_eq!(keyring.destroy_expired(end_ms).unwrap(), 1);
    let error = keyring.open_message(&id(START_MS), &sealed).unwrap_err();
    assert!(matches!(error, SealError::KeyGone { key_id } if key_id == sealed.key_id), "{error}");
    assert_eq!(bench.names(), ["master.key"]);
    let error = bench.open().unwrap().open_message(&id(START_MS), &sealed).unwrap_err();
    assert!(matches!(error, SealError::KeyGone { .. }), "{error}");
}

#[test]
fn a_key_that_cannot_be_erased_keeps_no_later_one_alive_and_is_tried_again() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    keyring.tick(START_MS).unwrap();
    keyring.tick(START_MS + 2 * HOUR_MS).unwrap();
    let first = bench.path().join(&bench.names()[0]);
    let in_the_way = first.with_extension("gone");
    fs::create_dir(&in_the_way).unwrap();
    let end_ms = START_MS + 4 * HOUR_MS + RETENTION_MS;
    let error = keyring.destroy_expired(end_ms).unwrap_err().to_string();
    assert!(error.contains(first.to_str().unwrap()), "{error}");
    assert_eq!(keyring.len(), 1, "the three others are destroyed");
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(keyring.destroy_expired(end_ms).unwrap(), 1);
    assert_eq!(bench.names(), ["master.key"]);
}

#[test]
fn a_crash_while_making_or_destroying_a_key_is_finished_at_the_next_start() {
    let bench = Bench::new();
    bench.open().unwrap().tick(START_MS).unwrap();
    let kept = bench.names();
    let gone = bench.path().join(&kept[0]);
    fs::rename(&gone, gone.with_extension("gone")).unwrap();
    fs::write(bench.path().join("5-6.key.new"), b"half").unwrap();
    bench.open().unwrap();
    assert_eq!(bench.names(), kept[1..]);
}

#[test]
fn secrets_are_readable_by_their_owner_alone() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    keyring.tick(START_MS).unwrap();
    keyring.secret(SecretName::Push).unwrap();
    for name in bench.names() {
        let mode = fs::metadata(bench.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(bench.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn keys_without_their_master_are_refused() {
    let bench = Bench::new();
    bench.open().unwrap().tick(START_MS).unwrap();
    let master = bench.path().join("master.key");
    fs::write(&master, [7; 31]).unwrap();
    assert!(matches!(bench.open(), Err(KeyringError::MasterLength { found: 31, .. })));
    fs::write(&master, [7; 32]).unwrap();
    assert!(matches!(bench.open(), Err(KeyringError::KeyDamaged(_))));
    fs::remove_file(&master).unwrap();
    assert!(matches!(bench.open(), Err(KeyringError::MasterMissing(_))));
}

#[test]
fn a_renamed_or_damaged_key_is_refused() {
    let bench = Bench::new();
    bench.open().unwrap().tick(START_MS).unwrap();
    let path = bench.path().join(&bench.names()[0]);
    let renamed = bench.path().join("1-2.key");
    fs::rename(&path, &renamed).unwrap();
    assert!(matches!(bench.open(), Err(KeyringError::KeyDamaged(_))));
    fs::write(&renamed, b"").unwrap();
    assert!(matches!(bench.open(), Err(KeyringError::KeyDamaged(_))));
}

#[test]
fn a_master_kept_elsewhere_is_used_and_never_made() {
    let bench = Bench::new();
    let master = bench.directory.path().join("elsewhere");
    let open = || Keyring::open(&bench.path(), Some(&master), RETENTION_MS);
    assert!(matches!(open(), Err(KeyringError::MasterMissing(_))));
    fs::write(&master, [9; 32]).unwrap();
    open().unwrap().tick(START_MS).unwrap();
    assert!(!bench.names().contains(&"master.key".to_owned()));
    open().unwrap();
}

#[test]
fn a_shorter_retention_gets_keys_of_its_own_and_still_opens_the_old() {
    let bench = Bench::new();
    let old = bench.open().unwrap().seal(&id(START_MS), b"old").unwrap();
    let keyring = Keyring::open(&bench.path(), None, 6_000).unwrap();
    let new = keyring.seal(&id(START_MS), b"new").unwrap();
    assert_ne!(old.key_id, new.key_id);
    assert_eq!(keyring.open_message(&id(START_MS), &old).unwrap().as_ref(), b"old");
    assert_eq!(keyring.open_message(&id(START_MS), &new).unwrap().as_ref(), b"new");
}

#[test]
fn debugging_shows_no_key() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    keyring.tick(START_MS).unwrap();
    assert_eq!(format!("{keyring:?}"), "Keyring { keys: 2, period_ms: 3600000, .. }");
}

#[test]
fn many_threads_agree_on_one_key() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| keyring.seal(&id(START_MS), b"text").unwrap().key_id)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), (START_MS << 12) | 3_600);
        }
    });
    assert_eq!(keyring.ring().len(), 1);
}

/// What shows whether two secrets are the same one.
fn print(keyring: &Keyring, name: SecretName) -> [u8; 32] {
    keyring.secret(name).unwrap().phone_hasher().number("+821012345678")
}

#[test]
fn a_secret_is_made_once_survives_a_restart_and_is_not_the_other() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    assert_eq!(keyring.inspect_secret(SecretName::Phone).unwrap(), None);
    let [push, phone] = SecretName::ALL.map(|name| print(&keyring, name));
    assert_ne!(push, phone);
    assert_eq!(bench.names(), ["master.key", "phone.secret", "push.secret"]);
    assert_eq!(print(&keyring, SecretName::Phone), phone);
    drop(keyring);
    let keyring = bench.open().unwrap();
    assert_eq!(keyring.inspect_secret(SecretName::Phone).unwrap(), Some(()));
    assert_eq!(SecretName::ALL.map(|name| print(&keyring, name)), [push, phone]);
}

#[test]
fn a_secret_stays_when_message_keys_are_destroyed() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    keyring.tick(START_MS).unwrap();
    let phone = print(&keyring, SecretName::Phone);
    keyring.destroy_expired(START_MS + 100 * RETENTION_MS).unwrap();
    drop(keyring);
    assert_eq!(bench.names(), ["master.key", "phone.secret"]);
    assert_eq!(print(&bench.open().unwrap(), SecretName::Phone), phone);
}

#[test]
fn a_secret_of_another_master_or_name_or_a_damaged_one_is_refused_and_not_replaced() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    for name in SecretName::ALL {
        print(&keyring, name);
    }
    let path = |name: SecretName| bench.path().join(name.file());
    let [push, phone] = SecretName::ALL.map(|name| fs::read(path(name)).unwrap());
    let refused = |keyring: &Keyring, name| {
        let error = keyring.secret(name).unwrap_err();
        assert!(matches!(&error, KeyringError::SecretDamaged(said) if said.ends_with(name.file())), "{error}");
    };
    fs::write(path(SecretName::Push), &phone).unwrap();
    refused(&keyring, SecretName::Push);
    fs::write(path(SecretName::Push), &push[..60]).unwrap();
    refused(&keyring, SecretName::Push);
    fs::write(path(SecretName::Push), b"").unwrap();
    refused(&keyring, SecretName::Push);
    assert_eq!(fs::read(path(SecretName::Push)).unwrap(), b"");
    drop(keyring);
    fs::write(bench.path().join("master.key"), [7; 32]).unwrap();
    refused(&bench.open().unwrap(), SecretName::Phone);
    assert_eq!(fs::read(path(SecretName::Phone)).unwrap(), phone);
}

#[test]
fn a_master_is_not_made_anew_beside_a_secret_of_another() {
    let bench = Bench::new();
    print(&bench.open().unwrap(), SecretName::Push);
    fs::remove_file(bench.path().join("master.key")).unwrap();
    assert!(matches!(bench.open(), Err(KeyringError::MasterMissing(_))));
    assert_eq!(bench.names(), ["push.secret"]);
}

#[test]
fn a_secret_that_a_crash_left_half_written_is_made_anew() {
    let bench = Bench::new();
    drop(bench.open().unwrap());
    fs::write(bench.path().join("phone.secret.new"), b"half").unwrap();
    print(&bench.open().unwrap(), SecretName::Phone);
    assert_eq!(bench.names(), ["master.key", "phone.secret"]);
}

#[test]
fn many_threads_agree_on_one_secret() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    let prints: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| print(&keyring, SecretName::Push))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(prints.len(), 1);
}
