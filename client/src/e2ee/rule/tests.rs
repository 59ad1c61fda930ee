//! The rule of membership lets in who belongs and nobody else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by a panic")]

use ed25519_dalek::SigningKey;
use gureum_proto::{DeviceKeys, sign_add, sign_revoke, sign_root};

use super::*;

struct Person {
    log: DeviceLog,
    first: Leaf,
    second: Leaf,
}

fn keys(seed: u8) -> (SigningKey, DeviceKeys) {
    let proof = SigningKey::from_bytes(&[seed; 32]);
    let mls = SigningKey::from_bytes(&[seed + 100; 32]).verifying_key().to_bytes();
    let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), &mls).unwrap();
    (proof, keys)
}

fn person(seed: u8) -> Person {
    let (proof, first) = keys(seed);
    let (second_proof, second) = keys(seed + 1);
    let root = sign_root(&proof, first.mls(), &SigningKey::from_bytes(&[seed + 2; 32]), 1).unwrap();
    let mut log = DeviceLog::from_root(&root).unwrap();
    log.append(&sign_add(&log, (first.device(), &proof), &second, &second_proof, 2)).unwrap();
    let leaf = |keys: &DeviceKeys, log_entry| Leaf {
        identity: Some(LeafIdentity { account: log.account(), device: keys.device(), log_entry }),
        mls_key: keys.mls().to_vec(),
    };
    Person { first: leaf(&first, 0), second: leaf(&second, 1), log }
}

fn revoke_second(person: &mut Person, seed: u8) {
    let (proof, first) = keys(seed);
    let device = person.second.identity.unwrap().device;
    let entry = sign_revoke(&person.log, (first.device(), &proof), device, 3);
    person.log.append(&entry).unwrap();
}

fn quiet(committer: &Leaf) -> Change {
    let renewed = Some(committer.clone());
    Change { external: false, committer: committer.identity, renewed, added: vec![], removed: vec![], more: false }
}

#[track_caller]
fn check(change: &Change, people: &[&Person; 2], before: &[&Leaf], expected: Option<&str>) {
    let accounts = people.iter().map(|person| person.log.account()).collect();
    let logs = |account| people.iter().find(|person| person.log.account() == account).map(|person| person.log.clone());
    let before: Vec<_> = before.iter().map(|leaf| (*leaf).clone()).collect();
    match (judge_commit(change, &before, &accounts, &logs), expected) {
        (Verdict::Allowed, None) => {}
        (Verdict::Refused(why), Some(part)) => assert!(why.contains(part), "{why}"),
        (Verdict::NeedsLog { .. }, Some("needs log")) => {}
        (verdict, expected) => panic!("expected {expected:?}, got {verdict:?}"),
    }
}

#[test]
fn lets_a_member_renew_add_its_devices_and_remove_them() {
    let (a, b) = (person(1), person(10));
    check(&quiet(&a.first), &[&a, &b], &[&a.first, &b.first], None);
    let adds = Change { added: vec![a.second.clone(), b.second.clone()], ..quiet(&a.first) };
    check(&adds, &[&a, &b], &[&a.first, &b.first], None);
    let removes = Change { removed: vec![a.second.clone()], ..quiet(&a.first) };
    check(&removes, &[&a, &b], &[&a.first, &a.second, &b.first], None);
}

#[test]
fn refuses_who_does_not_belong() {
    let (a, b, stranger) = (person(1), person(10), person(20));
    let before = [&a.first, &b.first];
    let adds = |leaf: &Leaf| Change { added: vec![leaf.clone()], ..quiet(&a.first) };
    check(&adds(&stranger.first), &[&a, &b], &before, Some("not in the conversation"));
    check(&adds(&a.first), &[&a, &b], &before, Some("there already"));
    let mut ghost = a.second.clone();
    ghost.mls_key = vec![9; 32];
    check(&adds(&ghost), &[&a, &b], &before, Some("another key"));
    let unknown = Leaf { identity: None, mls_key: vec![] };
    check(&adds(&unknown), &[&a, &b], &before, Some("none of this protocol"));
    let mut late = a.second.clone();
    late.identity.as_mut().unwrap().device = gureum_proto::DeviceId::from_bytes([3; 16]);
    check(&adds(&late), &[&a, &b], &before, Some("not in the log"));
    late.identity.as_mut().unwrap().log_entry = 2;
    check(&adds(&late), &[&a, &b], &before, Some("needs log"));
    check(&quiet(&stranger.first), &[&a, &b], &before, Some("not in the conversation"));
    check(&Change { more: true, ..quiet(&a.first) }, &[&a, &b], &before, Some("more than"));
    let as_another = Change { renewed: Some(a.second.clone()), ..quiet(&a.first) };
    check(&as_another, &[&a, &b], &before, Some("as another"));
}

#[test]
fn a_revoked_device_may_be_removed_by_anybody_and_added_by_nobody() {
    let (a, mut b) = (person(1), person(10));
    let removes = Change { removed: vec![b.second.clone()], ..quiet(&a.first) };
    let before = [&a.first, &b.first, &b.second];
    check(&removes, &[&a, &b], &before.map(|leaf| leaf), Some("needs log"));
    let before = before.map(Clone::clone);
    revoke_second(&mut b, 10);
    check(&removes, &[&a, &b], &[&before[0], &before[1], &before[2]], None);
    let adds = Change { added: vec![b.second.clone()], ..quiet(&b.first) };
    check(&adds, &[&a, &b], &[&before[0], &before[1]], Some("revoked"));
}

#[test]
fn who_joins_by_its_own_commit_replaces_only_its_own_leaf() {
    let (a, b) = (person(1), person(10));
    let joins = |leaf: &Leaf, removed: &[&Leaf]| Change {
        external: true,
        removed: removed.iter().map(|leaf| (*leaf).clone()).collect(),
        ..quiet(leaf)
    };
    let before = [&a.first, &b.first];
    check(&joins(&a.first, &[&a.first]), &[&a, &b], &before, None);
    check(&joins(&a.second, &[]), &[&a, &b], &before, None);
    check(&joins(&a.first, &[]), &[&a, &b], &before, Some("there twice"));
    check(&joins(&a.second, &[&a.first]), &[&a, &b], &before, Some("another's leaf"));
    check(&joins(&a.second, &[&b.first]), &[&a, &b], &before, Some("another's leaf"));
    let brings = Change { added: vec![b.second.clone()], ..joins(&a.second, &[]) };
    check(&brings, &[&a, &b], &before, Some("adds nobody else"));
}

#[test]
fn no_account_is_left_without_a_device() {
    let (a, b) = (person(1), person(10));
    let removes = Change { removed: vec![a.second.clone()], renewed: None, ..quiet(&a.second) };
    check(&removes, &[&a, &b], &[&a.second, &b.first], Some("without a device"));
}
