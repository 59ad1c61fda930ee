//! The rule of membership lets in who belongs and nobody else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by a panic")]

mod arbitrary;
mod groups;

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use super::*;
use crate::{DeviceKeys, sign_add, sign_revoke, sign_root};

fn keys(seed: u8) -> (SigningKey, DeviceKeys) {
    let proof = SigningKey::from_bytes(&[seed; 32]);
    let mls = SigningKey::from_bytes(&[seed + 100; 32]).verifying_key().to_bytes();
    let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), &mls).unwrap();
    (proof, keys)
}

/// An account of three devices, and what signs for the first.
struct Person {
    log: DeviceLog,
    signer: (DeviceId, SigningKey),
    /// A leaf of each of its devices.
    leaves: [Leaf; 3],
}

impl Person {
    fn new(seed: u8) -> Self {
        let (proof, first) = keys(seed);
        let root = sign_root(&proof, first.mls(), &SigningKey::from_bytes(&[seed + 3; 32]), 1).unwrap();
        let mut log = DeviceLog::from_root(&root).unwrap();
        let others = [seed + 1, seed + 2].map(|seed| {
            let (new, keys) = keys(seed);
            log.append(&sign_add(&log, (first.device(), &proof), &keys, &new, 2)).unwrap();
            keys
        });
        let leaf = |keys: &DeviceKeys, log_entry| Leaf {
            identity: Some(LeafIdentity { account: log.account(), device: keys.device(), log_entry }),
            mls_key: keys.mls().to_vec(),
            leaf_key: keys.device().as_bytes().to_vec(),
        };
        let leaves = [leaf(&first, 0), leaf(&others[0], 1), leaf(&others[1], 2)];
        Self { log, signer: (first.device(), proof), leaves }
    }

    fn revoke(&mut self, index: usize) {
        let entry = sign_revoke(&self.log, (self.signer.0, &self.signer.1), device(&self.leaves[index]), 3);
        self.log.append(&entry).unwrap();
    }
}

fn device(leaf: &Leaf) -> DeviceId {
    leaf.identity.unwrap().device
}

/// What one knows who has all logs.
#[derive(Default)]
struct Known {
    logs: BTreeMap<AccountId, Arc<DeviceLog>>,
    /// Whether it reads commits of the past.
    looks_back: bool,
    /// Devices that it has seen removed because they were revoked.
    expelled: Vec<DeviceId>,
}

impl Known {
    fn of(people: &[&Person]) -> Self {
        let logs = people.iter().map(|person| (person.log.account(), Arc::new(person.log.clone())));
        Self { logs: logs.collect(), ..Self::default() }
    }

    fn looking_back(people: &[&Person]) -> Self {
        Self { looks_back: true, ..Self::of(people) }
    }
}

impl Logs for Known {
    fn log(&self, account: AccountId) -> Option<Arc<DeviceLog>> {
        self.logs.get(&account).cloned()
    }

    fn passes_revoked(&self, device: DeviceId) -> bool {
        self.looks_back && !self.expelled.contains(&device)
    }
}

fn quiet(committer: &Leaf) -> Change {
    let renewed = Some(committer.clone());
    Change {
        external: false,
        committer: committer.identity,
        renewed,
        added: vec![],
        removed: vec![],
        state: None,
        leaves: vec![],
        more: false,
    }
}

fn adds(committer: &Leaf, added: &[&Leaf]) -> Change {
    Change { added: added.iter().copied().cloned().collect(), ..quiet(committer) }
}

fn removes(committer: &Leaf, removed: &[&Leaf]) -> Change {
    Change { removed: removed.iter().copied().cloned().collect(), ..quiet(committer) }
}

fn joins(leaf: &Leaf, removed: &[&Leaf]) -> Change {
    Change { external: true, ..removes(leaf, removed) }
}

const TALK: ConversationId = ConversationId::from_bytes([7; 16]);

/// A conversation that is no group.
fn talk(leaves: &[Leaf]) -> Roster<'_> {
    Roster { conversation: TALK, leaves, state: None }
}

const MAY: &str = "";

/// Whether a verdict is the one expected: [`MAY`], or a part of the reason why not.
#[track_caller]
fn holds(verdict: &Verdict, expected: &str) {
    match verdict {
        Verdict::Allowed => assert_eq!(expected, MAY, "it may be"),
        Verdict::NeedsLog { why, .. } | Verdict::Refused(why) => {
            assert!(expected != MAY && why.contains(expected), "{verdict:?}, expected {expected:?}");
        }
    }
}

#[track_caller]
fn check(change: &Change, before: &[&Leaf], known: &Known, expected: &str) {
    let leaves: Vec<_> = before.iter().copied().cloned().collect();
    holds(&judge_commit(change, &talk(&leaves), known), expected);
}

#[test]
fn what_a_commit_may_change() {
    let (a, b, stranger) = (Person::new(1), Person::new(11), Person::new(21));
    let ([a1, a2, a3], [b1, b2, _], [s1, ..]) = (&a.leaves, &b.leaves, &stranger.leaves);
    let known = Known::of(&[&a, &b, &stranger]);
    let check = |change: &Change, before: &[&Leaf], expected| check(change, before, &known, expected);

    // Nothing but keys.
    check(&quiet(a1), &[a1, b1], MAY);
    check(&Change { renewed: None, ..quiet(a1) }, &[a1, b1], MAY);
    check(&quiet(a2), &[a1, b1], "has no leaf");
    check(&quiet(s1), &[a1, b1], "is not in the conversation");
    check(&Change { committer: None, ..quiet(a1) }, &[a1, b1], "none of this protocol");
    check(&Change { renewed: Some(a2.clone()), ..quiet(a1) }, &[a1, a2, b1], "renews its leaf as another");
    check(&Change { renewed: Some(Leaf { identity: None, ..a1.clone() }), ..quiet(a1) }, &[a1, b1], "as another");
    let stolen = Leaf { mls_key: a2.mls_key.clone(), ..a1.clone() };
    check(&Change { renewed: Some(stolen), ..quiet(a1) }, &[a1, b1], "has another key");
    check(&Change { more: true, ..quiet(a1) }, &[a1, b1], "does more than");

    // A device joins by a commit of its own.
    check(&joins(a2, &[]), &[a1, b1], MAY);
    check(&joins(a1, &[a1]), &[a1, b1], MAY);
    check(&joins(a1, &[]), &[a1, b1], "is there twice");
    check(&joins(s1, &[]), &[a1, b1], "is not in the conversation");
    check(&joins(a2, &[a1]), &[a1, b1], "removes another's leaf");
    check(&joins(a2, &[b1]), &[a1, b1], "removes another's leaf");
    check(&Change { added: vec![b2.clone()], ..joins(a2, &[]) }, &[a1, b1], "adds nobody else");
    check(&Change { renewed: None, ..joins(a2, &[]) }, &[a1, b1], "brings no leaf");
    check(&Change { more: true, ..joins(a2, &[]) }, &[a1, b1], "does more than");

    // A member adds devices.
    check(&adds(a1, &[a2, b2]), &[a1, b1], MAY);
    check(&adds(a1, &[a1]), &[a1, b1], "is there twice");
    check(&adds(a1, &[a2, a2]), &[a1, b1], "is there twice");
    check(&adds(a1, &[s1]), &[a1, b1], "adds");
    check(&adds(a1, &[&Leaf { identity: None, ..a2.clone() }]), &[a1, b1], "none of this protocol");
    check(&adds(a1, &[&Leaf { mls_key: vec![9; 32], ..a2.clone() }]), &[a1, b1], "has another key");

    // A member removes devices.
    check(&removes(a1, &[a2, a3]), &[a1, a2, a3, b1], MAY);
    check(&removes(a1, &[a1]), &[a1, a2, b1], "removes itself");
    check(&removes(a1, &[b2]), &[a1, b1, b2], "which only");
    check(&removes(a1, &[b1, b2]), &[a1, b1, b2], "which only");
    check(&removes(a1, &[b1]), &[a1, b1], "which only");
    check(&removes(a1, &[&Leaf { identity: None, ..b2.clone() }]), &[a1, b1], MAY);
    let replaces = Change { added: vec![a2.clone()], ..removes(a1, &[a2]) };
    check(&replaces, &[a1, a2, b1], MAY);
}

#[test]
fn who_is_revoked_is_removed_by_anybody_and_comes_in_by_nobody() {
    let (a, mut b) = (Person::new(1), Person::new(11));
    b.revoke(1);
    let ([a1, ..], [b1, b2, b3]) = (&a.leaves, &b.leaves);
    let known = Known::of(&[&a, &b]);
    let check = |change: &Change, before: &[&Leaf], expected| check(change, before, &known, expected);
    check(&removes(a1, &[b2]), &[a1, b1, b2], MAY);
    check(&removes(b1, &[b2]), &[a1, b1, b2], MAY);
    check(&removes(a1, &[b2, b3]), &[a1, b1, b2, b3], "which only");
    check(&removes(a1, &[b2]), &[a1, b2], "without a device");
    check(&adds(a1, &[b2]), &[a1, b1], "was revoked");
    check(&adds(b1, &[b2]), &[a1, b1], "was revoked");
    check(&joins(b2, &[]), &[a1, b1], "was revoked");
    check(&joins(b2, &[b2]), &[a1, b1, b2], "was revoked");
    check(&quiet(b2), &[a1, b1, b2], "was revoked");
    check(&Change { renewed: None, ..adds(b2, &[b3]) }, &[a1, b1, b2], "was revoked");
    check(&quiet(a1), &[a1, b1, b2], MAY);
}

#[test]
fn a_revocation_that_is_known_before_the_commits_of_the_time_before_it_does_not_judge_them() {
    let (a, mut b) = (Person::new(1), Person::new(11));
    b.revoke(1);
    let ([a1, ..], [b1, b2, b3]) = (&a.leaves, &b.leaves);
    let mut known = Known::looking_back(&[&a, &b]);
    for change in [adds(a1, &[b2]), adds(b1, &[b2]), joins(b2, &[])] {
        check(&change, &[a1, b1], &known, MAY);
    }
    for change in [joins(b2, &[b2]), quiet(b2), adds(b2, &[b3]), removes(b2, &[b1])] {
        check(&change, &[a1, b1, b2], &known, MAY);
    }
    check(&adds(a1, &[&Leaf { mls_key: vec![9; 32], ..b2.clone() }]), &[a1, b1], &known, "has another key");
    check(&adds(a1, &[b2, b2]), &[a1, b1], &known, "is there twice");

    known.expelled.push(device(b2));
    for change in [adds(a1, &[b2]), joins(b2, &[])] {
        check(&change, &[a1, b1], &known, "was revoked");
    }
}

#[test]
fn a_leaf_is_held_against_the_log_as_far_as_it_is_known() {
    let a = Person::new(1);
    let known = Known::of(&[&a]);
    let identity = a.leaves[1].identity.unwrap();
    let with = |identity| Leaf { identity: Some(identity), ..a.leaves[1].clone() };
    let check = |leaf: &Leaf, known: &Known, expected| holds(&judge_leaf(leaf, known), expected);
    check(&a.leaves[1], &known, MAY);
    check(&with(LeafIdentity { log_entry: 2, ..identity }), &known, "has another key");
    check(&Leaf { identity: None, ..a.leaves[1].clone() }, &known, "not one of this protocol");
    let ghost = LeafIdentity { device: DeviceId::from_bytes([3; 16]), ..identity };
    check(&with(ghost), &known, "is not in the log");

    let needs = |identity, known: &Known| match judge_leaf(&with(identity), known) {
        Verdict::NeedsLog { log_from, .. } => Some(log_from),
        _ => None,
    };
    assert_eq!(needs(ghost, &known), None, "the entry that it names is known, and adds another");
    assert_eq!(needs(LeafIdentity { log_entry: 3, ..ghost }, &known), Some(3));
    assert_eq!(needs(identity, &Known::default()), Some(0));
}

#[test]
fn a_removal_that_a_longer_log_may_allow_asks_for_it() {
    let (a, b) = (Person::new(1), Person::new(11));
    let ([a1, ..], [b1, b2, _]) = (&a.leaves, &b.leaves);
    let before = [a1, b1, b2].map(Clone::clone);
    let needs = |known: &Known| match judge_commit(&removes(a1, &[b2]), &talk(&before), known) {
        Verdict::NeedsLog { account, log_from, .. } => Some((account, log_from)),
        _ => None,
    };
    assert_eq!(needs(&Known::of(&[&a, &b])), Some((b.log.account(), 3)));
    assert_eq!(needs(&Known::of(&[&a])), Some((b.log.account(), 0)));
}

#[test]
fn a_group_is_of_the_accounts_expected_and_of_good_leaves_once_each() {
    let (a, mut b, stranger) = (Person::new(1), Person::new(11), Person::new(21));
    b.revoke(1);
    let ([a1, a2, _], [b1, b2, _], [s1, ..]) = (&a.leaves, &b.leaves, &stranger.leaves);
    let people = [&a, &b, &stranger];
    let accounts = BTreeSet::from([a.log.account(), b.log.account()]);
    let check = |leaves: &[&Leaf], known: &Known, expected| {
        let leaves: Vec<_> = leaves.iter().copied().cloned().collect();
        holds(&judge_group(&talk(&leaves), Expected::Accounts(&accounts), known), expected);
    };
    check(&[a1, b1, a2], &Known::of(&people), MAY);
    check(&[a1, a2], &Known::of(&people), "not those expected");
    check(&[a1, b1, s1], &Known::of(&people), "not those expected");
    check(&[a1, b1, a1], &Known::of(&people), "is there twice");
    check(&[a1, b1, b2], &Known::of(&people), "was revoked");
    check(&[a1, b1, b2], &Known::looking_back(&people), MAY);
    check(&[a1, b1, &Leaf { mls_key: vec![], ..b2.clone() }], &Known::looking_back(&people), "has another key");
    let expelled = Known { expelled: vec![device(b2)], ..Known::looking_back(&people) };
    check(&[a1, b1, b2], &expelled, "was revoked");
}
