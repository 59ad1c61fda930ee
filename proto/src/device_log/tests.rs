//! A device log accepts what follows from it and nothing else.

use super::*;

struct Device {
    proof: SigningKey,
    keys: DeviceKeys,
}

fn device(seed: u8) -> Device {
    let proof = SigningKey::from_bytes(&[seed; 32]);
    let mls = SigningKey::from_bytes(&[seed + 100; 32]).verifying_key().to_bytes();
    let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), &mls).unwrap();
    Device { proof, keys }
}

impl Device {
    fn id(&self) -> DeviceId {
        self.keys.device()
    }

    fn signs(&self) -> (DeviceId, &SigningKey) {
        (self.id(), &self.proof)
    }
}

fn recovery() -> SigningKey {
    SigningKey::from_bytes(&[200; 32])
}

fn root() -> Bytes {
    let first = device(1);
    sign_root(&first.proof, first.keys.mls(), &recovery(), 1000).unwrap()
}

fn log() -> DeviceLog {
    DeviceLog::from_root(&root()).unwrap()
}

#[track_caller]
fn refuses(log: &DeviceLog, entry: &[u8], expected: &LogError) {
    let mut after = log.clone();
    assert_eq!(after.append(entry), Err(expected.clone()));
    assert_eq!(&after, log, "a refused entry changes nothing");
}

#[test]
fn adds_revokes_and_replays_to_the_same_state() {
    let (first, second) = (device(1), device(2));
    let mut log = log();
    let add = sign_add(&log, first.signs(), &second.keys, &second.proof, 2000);
    assert_eq!(log.append(&add), Ok(LogChange::Added(second.id())));
    let revoke = sign_revoke(&log, second.signs(), first.id(), 3000);
    assert_eq!(log.append(&revoke), Ok(LogChange::Revoked(first.id())));
    assert_eq!(log.active().map(|(id, _)| id).collect::<Vec<_>>(), [second.id()]);
    assert_eq!(DeviceLog::replay([root().as_ref(), &add, &revoke]), Ok(log));
}

#[test]
fn the_account_id_covers_the_root() {
    let first = device(1);
    let other = sign_root(&first.proof, first.keys.mls(), &recovery(), 1001).unwrap();
    assert_ne!(DeviceLog::from_root(&other).unwrap().account(), log().account());
}

#[test]
fn refuses_a_ghost_device_that_no_active_one_signed() {
    let (ghost, second) = (device(9), device(2));
    let mut log = log();
    refuses(&log, &sign_add(&log, ghost.signs(), &ghost.keys, &ghost.proof, 1), &LogError::Signer);
    let forged = sign_add(&log, (device(1).id(), &ghost.proof), &ghost.keys, &ghost.proof, 1);
    refuses(&log, &forged, &LogError::Signature);
    let add = sign_add(&log, device(1).signs(), &second.keys, &second.proof, 1);
    log.append(&add).unwrap();
    log.append(&sign_revoke(&log, device(1).signs(), second.id(), 1)).unwrap();
    refuses(&log, &sign_add(&log, second.signs(), &ghost.keys, &ghost.proof, 1), &LogError::Signer);
}

#[test]
fn refuses_a_device_that_did_not_countersign() {
    let log = log();
    let (second, other) = (device(2), device(3));
    refuses(&log, &sign_add(&log, device(1).signs(), &second.keys, &other.proof, 1), &LogError::Signature);
}

#[test]
fn refuses_forks_repetitions_and_holes() {
    let (first, second, third) = (device(1), device(2), device(3));
    let before = log();
    let mut log = before.clone();
    let add = sign_add(&log, first.signs(), &second.keys, &second.proof, 1);
    log.append(&add).unwrap();
    refuses(&log, &add, &LogError::Fork);
    refuses(&log, &sign_add(&before, first.signs(), &third.keys, &third.proof, 1), &LogError::Fork);
    refuses(&before, &sign_add(&log, first.signs(), &third.keys, &third.proof, 1), &LogError::Fork);
    refuses(&log, &root(), &LogError::Fork);
}

#[test]
fn keeps_at_least_one_device_and_at_most_ten() {
    let first = device(1);
    let mut log = log();
    refuses(&log, &sign_revoke(&log, first.signs(), first.id(), 1), &LogError::Device);
    for seed in 2..=10 {
        let new = device(seed);
        log.append(&sign_add(&log, first.signs(), &new.keys, &new.proof, 1)).unwrap();
    }
    let active: Vec<_> = log.active().map(|(id, _)| id).collect();
    assert!(active.is_sorted() && (1..=10).all(|seed| active.contains(&device(seed).id())), "{active:?}");
    assert!((1..=10).all(|seed| log.device(device(seed).id()).unwrap().keys == device(seed).keys));
    let eleventh = device(11);
    refuses(&log, &sign_add(&log, first.signs(), &eleventh.keys, &eleventh.proof, 1), &LogError::Full);
}

#[test]
fn the_recovery_key_brings_an_account_back_and_can_be_rotated() {
    let (first, new) = (device(1), device(4));
    let mut log = log();
    let rotated = SigningKey::from_bytes(&[201; 32]);
    log.append(&sign_rotate_recovery(&log, first.signs(), &rotated, 1)).unwrap();
    refuses(&log, &sign_recover(log.at(), &recovery(), &new.keys, &new.proof, 1), &LogError::Signature);
    let recover = sign_recover(log.at(), &rotated, &new.keys, &new.proof, 1);
    let change = LogChange::Recovered { added: new.id(), revoked: vec![first.id()] };
    assert_eq!(log.append(&recover), Ok(change));
    assert!(log.is_active(new.id()) && !log.is_active(first.id()));
    assert!(log.is_revoked(first.id()) && !log.is_revoked(new.id()) && !log.is_revoked(device(9).id()));
}

#[test]
fn an_entry_that_two_devices_sign_apart_is_the_one_that_they_sign_together() {
    let (first, second) = (device(1), device(2));
    let log = log();
    let body = draft_add(log.at(), first.id(), &second.keys, 2000);
    let draft = AddDraft::read(&body).unwrap();
    assert_eq!(draft, AddDraft { at: log.at(), signer: first.id(), keys: second.keys, time_ms: 2000 });
    let entry = finish_entry(&body, &first.proof, &countersign(&body, &second.proof));
    assert_eq!(entry, sign_add(&log, first.signs(), &second.keys, &second.proof, 2000));
    assert_eq!(log.clone().append(&entry), Ok(LogChange::Added(second.id())));
}

#[test]
fn a_draft_adds_a_device_and_is_nothing_else() {
    let (first, second) = (device(1), device(2));
    let log = log();
    let revoke = sign_revoke(&log, first.signs(), first.id(), 1);
    let other = schema::SignedLogEntry::decode(revoke).unwrap().body;
    assert_eq!(AddDraft::read(&other), Err(PayloadError::Invalid("change").into()));
    let mut long = draft_add(log.at(), first.id(), &second.keys, 2000).to_vec();
    long.resize(LOG_ENTRY_BYTES_MAX + 1, 0);
    assert_eq!(AddDraft::read(&long), Err(PayloadError::TooLong("log entry").into()));
    assert!(AddDraft::read(b"garbage").is_err());
}

#[test]
fn refuses_garbage_and_a_changed_byte_anywhere() {
    refuses(
        &log(),
        b"garbage",
        &PayloadError::from(schema::SignedLogEntry::decode(&b"garbage"[..]).unwrap_err()).into(),
    );
    let root = root();
    for at in 0..root.len() {
        let mut changed = root.to_vec();
        changed[at] ^= 1;
        let replaced = DeviceLog::from_root(&changed).map(|log| log.account());
        assert_ne!(replaced.ok(), Some(log().account()), "byte {at}");
    }
}

#[test]
fn a_device_needs_two_different_keys() {
    let key = SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes();
    assert_eq!(DeviceKeys::new(&key, &key), Err(LogError::Keys));
}
