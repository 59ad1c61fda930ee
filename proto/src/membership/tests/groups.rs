//! What the rule says of groups: who may change who is in one, and what it says of itself.

use super::*;
use crate::limits::GROUP_ADMINS_MAX;
use crate::{Leave, sign_recover};

fn account(person: &Person) -> AccountId {
    person.log.account()
}

fn admins(people: &[&Person]) -> GroupState {
    GroupState::new("friends", people.iter().map(|person| account(person))).unwrap()
}

fn states(committer: &Leaf, state: &GroupState) -> Change {
    Change { state: Some(state.clone()), ..quiet(committer) }
}

/// What a person signs who leaves, by a leaf.
fn leave(person: &Person, leaf: &Leaf) -> SignedLeave {
    let statement = Leave {
        conversation: TALK,
        account: account(person),
        device: device(leaf),
        leaf_key: leaf.leaf_key.clone().into(),
    };
    SignedLeave::sign(statement, &person.signer.1)
}

fn because(change: Change, leaves: &[&SignedLeave]) -> Change {
    Change { leaves: leaves.iter().copied().cloned().collect(), ..change }
}

#[track_caller]
fn check(change: &Change, before: &[&Leaf], state: &GroupState, known: &Known, expected: &str) {
    let leaves: Vec<_> = before.iter().copied().cloned().collect();
    let before = Roster { state: Some(state), ..talk(&leaves) };
    holds(&judge_commit(change, &before, known), expected);
}

#[test]
fn admins_add_and_remove_people_and_members_only_devices() {
    let (a, b, c) = (Person::new(1), Person::new(11), Person::new(21));
    let ([a1, a2, _], [b1, b2, _], [c1, c2, _]) = (&a.leaves, &b.leaves, &c.leaves);
    let (state, known) = (admins(&[&a]), Known::of(&[&a, &b, &c]));
    let check = |change: &Change, before: &[&Leaf], expected| check(change, before, &state, &known, expected);

    // People are added with one device or more, by admins.
    check(&adds(a1, &[c1]), &[a1, b1], MAY);
    check(&adds(a2, &[c1, c2]), &[a1, a2, b1], MAY);
    check(&adds(b1, &[c1]), &[a1, b1], "adds");
    check(&adds(b1, &[c1]), &[a1, b1], "only an admin");
    check(&adds(a1, &[&Leaf { mls_key: vec![9; 32], ..c1.clone() }]), &[a1, b1], "has another key");
    check(&adds(c1, &[c2]), &[a1, b1], "is not in the conversation");

    // Devices of who is in it are added by anybody.
    check(&adds(b1, &[b2]), &[a1, b1], MAY);
    check(&adds(b1, &[a2]), &[a1, b1], MAY);

    // People are removed as a whole, by admins.
    check(&removes(a1, &[b1]), &[a1, b1], MAY);
    check(&removes(a1, &[b1, b2, c1]), &[a1, b1, b2, c1], MAY);
    check(&removes(a1, &[b1]), &[a1, b1, b2], "which only");
    check(&removes(b1, &[c1]), &[a1, b1, c1], "only an admin");
    check(&removes(b1, &[a1]), &[a1, b1], "only an admin");
    let replaces = Change { added: vec![b2.clone()], ..removes(a1, &[b1]) };
    check(&replaces, &[a1, b1], "which only");

    // Everybody removes own devices, and nobody oneself.
    check(&removes(b1, &[b2]), &[a1, b1, b2], MAY);
    check(&removes(a1, &[a2]), &[a1, a2, b1], MAY);
    check(&removes(a1, &[a1]), &[a1, a2, b1], "removes itself");

    // Who joins by a commit of its own does nothing else, admin or not.
    check(&joins(b2, &[]), &[a1, b1], MAY);
    check(&joins(b1, &[b1]), &[a1, b1], MAY);
    check(&joins(a2, &[b1]), &[a1, b1], "removes another's leaf");
    check(&Change { added: vec![c1.clone()], ..joins(a2, &[]) }, &[a1, b1], "adds nobody else");
    check(&joins(c1, &[]), &[a1, b1], "is not in the conversation");
}

#[test]
fn a_groups_state_is_changed_by_its_admins() {
    let (a, b) = (Person::new(1), Person::new(11));
    let ([a1, ..], [b1, ..]) = (&a.leaves, &b.leaves);
    let (state, known) = (admins(&[&a]), Known::of(&[&a, &b]));
    let renamed = GroupState::new("family", [account(&a)]).unwrap();
    let check = |change: &Change, before: &[&Leaf], expected| check(change, before, &state, &known, expected);
    check(&states(a1, &renamed), &[a1, b1], MAY);
    check(&states(a1, &admins(&[&b])), &[a1, b1], MAY);
    check(&states(b1, &renamed), &[a1, b1], "the group's state");
    check(&states(b1, &admins(&[&a, &b])), &[a1, b1], "the group's state");
    check(&Change { state: Some(renamed.clone()), ..joins(b1, &[b1]) }, &[a1, b1], "the group's state");
    check(&Change { more: true, ..states(a1, &renamed) }, &[a1, b1], "does more than");
    // What an account may is what it might before the commit.
    let takes_over = Change { state: Some(admins(&[&b])), ..removes(b1, &[a1]) };
    check(&takes_over, &[a1, b1], "only an admin");
    super::check(&states(a1, &renamed), &[a1, b1], &known, "makes a group of");
}

#[test]
fn a_group_whose_admins_are_gone_belongs_to_everybody() {
    let (a, b, c) = (Person::new(1), Person::new(11), Person::new(21));
    let ([a1, ..], [b1, ..], [c1, ..]) = (&a.leaves, &b.leaves, &c.leaves);
    let known = Known::of(&[&a, &b, &c]);
    for state in [admins(&[]), admins(&[&c])] {
        check(&adds(b1, &[c1]), &[a1, b1], &state, &known, MAY);
        check(&removes(b1, &[a1]), &[a1, b1], &state, &known, MAY);
        check(&states(b1, &admins(&[&b])), &[a1, b1], &state, &known, MAY);
    }
    check(&removes(b1, &[a1]), &[a1, b1, c1], &admins(&[&c]), &known, "only an admin");
}

#[test]
fn who_says_to_leave_is_removed_by_anybody() {
    let (a, mut b, c) = (Person::new(1), Person::new(11), Person::new(21));
    let ([a1, ..], [b1, b2, _], [c1, ..]) = (a.leaves.clone(), b.leaves.clone(), c.leaves.clone());
    let state = admins(&[&a]);
    let said = leave(&b, &b1);
    let elsewhere = Leave { conversation: ConversationId::from_bytes([8; 16]), ..said.leave().clone() };
    let elsewhere = SignedLeave::sign(elsewhere, &b.signer.1);
    let by_another = SignedLeave::sign(said.leave().clone(), &c.signer.1);
    let b1_later = Leaf { leaf_key: vec![1; 32], ..b1.clone() };
    let unknown =
        SignedLeave::sign(Leave { device: DeviceId::from_bytes([3; 16]), ..said.leave().clone() }, &b.signer.1);
    {
        let known = Known::of(&[&a, &b, &c]);
        let check = |change: Change, before: &[&Leaf], expected| check(&change, before, &state, &known, expected);
        check(because(removes(&c1, &[&b1]), &[&said]), &[&a1, &b1, &c1], MAY);
        check(because(removes(&c1, &[&b1, &b2]), &[&said]), &[&a1, &b1, &b2, &c1], MAY);
        check(because(removes(&c1, &[&b1]), &[&by_another, &said]), &[&a1, &b1, &c1], MAY);
        check(because(removes(&c1, &[&b1]), &[&said, &by_another]), &[&a1, &b1, &c1], MAY);
        check(because(removes(&c1, &[&b1]), &[&by_another]), &[&a1, &b1, &c1], "has not signed");
        check(because(removes(&c1, &[&b1]), &[&elsewhere]), &[&a1, &b1, &c1], "only an admin");
        check(because(removes(&c1, &[&b1]), &[&unknown]), &[&a1, &b1, &c1], "only an admin");
        // It goes as a whole, and who is in it anew is not meant.
        check(because(removes(&c1, &[&b1]), &[&said]), &[&a1, &b1, &b2, &c1], "which only");
        check(because(removes(&c1, &[&b1_later]), &[&said]), &[&a1, &b1_later, &c1], "only an admin");
        check(because(removes(&c1, &[&a1]), &[&said]), &[&a1, &b1, &c1], "only an admin");
        // A statement alone does nothing.
        check(because(quiet(&c1), &[&said, &by_another]), &[&a1, &b1, &c1], MAY);
    }

    // What a device has said stands when it is revoked.
    let (second, keys) = keys(12);
    let entry = sign_revoke(&b.log, (keys.device(), &second), device(&b1), 3);
    b.log.append(&entry).unwrap();
    let known = Known::of(&[&a, &b, &c]);
    check(&because(removes(&c1, &[&b1, &b2]), &[&said]), &[&a1, &b1, &b2, &c1], &state, &known, MAY);

    let needs = |known: &Known| {
        let leaves = [a1.clone(), b1.clone(), c1.clone()];
        let before = Roster { state: Some(&state), ..talk(&leaves) };
        match judge_commit(&because(removes(&c1, &[&b1]), &[&said]), &before, known) {
            Verdict::NeedsLog { account, log_from, .. } => Some((account, log_from)),
            _ => None,
        }
    };
    assert_eq!(needs(&Known::of(&[&a, &c])), Some((account(&b), 0)));
    // In a conversation of two nobody leaves.
    super::check(&because(removes(&c1, &[&b1]), &[&said]), &[&b1, &c1], &known, "without a device");
}

#[test]
fn who_has_lost_all_devices_stays_in_a_group() {
    let (a, mut b, c) = (Person::new(1), Person::new(11), Person::new(21));
    let (new, keys) = keys(15);
    let recovery = SigningKey::from_bytes(&[14; 32]);
    b.log.append(&sign_recover(b.log.at(), &recovery, &keys, &new, 3)).unwrap();
    let ([a1, ..], [b1, b2, _], [c1, ..]) = (&a.leaves, &b.leaves, &c.leaves);
    let new = Leaf {
        identity: Some(LeafIdentity { account: account(&b), device: keys.device(), log_entry: 3 }),
        mls_key: keys.mls().to_vec(),
        leaf_key: vec![1; 32],
    };
    let (state, known) = (admins(&[&a]), Known::of(&[&a, &b, &c]));
    let check = |change: &Change, before: &[&Leaf], expected| check(change, before, &state, &known, expected);
    check(&joins(&new, &[]), &[a1, b1, b2, c1], MAY);
    check(&removes(c1, &[b2]), &[a1, b1, b2, c1], MAY);
    check(&removes(c1, &[b1, b2]), &[a1, b1, b2, c1], "only an admin");
    check(&removes(c1, &[b1, b2]), &[a1, b1, b2, c1, &new], MAY);
    check(&removes(a1, &[b1, b2]), &[a1, b1, b2, c1], MAY);
}

/// Leaves of which nothing is known.
fn strangers(accounts: usize, each: usize) -> Vec<Leaf> {
    let leaf = |at: usize| {
        let bytes = |number: usize| (number as u128).to_be_bytes();
        let (account, device) = (AccountId::from_bytes(bytes(at / each)), DeviceId::from_bytes(bytes(at)));
        let identity = Some(LeafIdentity { account, device, log_entry: 0 });
        Leaf { identity, mls_key: vec![], leaf_key: vec![] }
    };
    (0..accounts * each).map(leaf).collect()
}

#[test]
fn a_group_has_its_bounds() {
    let (a, b) = (Person::new(1), Person::new(11));
    let ([a1, a2, _], [b1, ..]) = (&a.leaves, &b.leaves);
    let (state, known) = (admins(&[&a]), Known::of(&[&a, &b]));
    let check = |change: &Change, others: Vec<Leaf>, expected| {
        let before: Vec<_> = [a1].into_iter().chain(&others).collect();
        check(change, &before, &state, &known, expected);
    };
    check(&adds(a1, &[b1]), strangers(CONVERSATION_ACCOUNTS_MAX - 2, 1), MAY);
    check(&adds(a1, &[b1]), strangers(CONVERSATION_ACCOUNTS_MAX - 1, 1), "at most 1000 accounts");
    check(&adds(a1, &[a2]), strangers(CONVERSATION_ACCOUNTS_MAX - 1, 1), MAY);
    check(&adds(a1, &[a2]), strangers((LEAVES_MAX - 2) / 3, 3), MAY);
    check(&adds(a1, &[a2]), strangers(LEAVES_MAX / 4, 4), "at most 2500 devices");
    let many = vec![b1; ADDS_PER_COMMIT_MAX + 1];
    check(&adds(a1, &many), vec![], "adds more than 64");
    assert!(
        GroupState::new("friends", (0..).map(|byte| AccountId::from_bytes([byte; 16])).take(GROUP_ADMINS_MAX)).is_ok()
    );
}

#[test]
fn a_group_that_is_new_is_one_and_has_this_account_in_it() {
    let (a, mut b, stranger) = (Person::new(1), Person::new(11), Person::new(21));
    b.revoke(1);
    let ([a1, a2, _], [b1, b2, _]) = (&a.leaves, &b.leaves);
    let (state, known) = (admins(&[&a]), Known::of(&[&a, &b]));
    let check = |leaves: &[&Leaf], state, expected: Expected<'_>, why| {
        let leaves: Vec<_> = leaves.iter().copied().cloned().collect();
        holds(&judge_group(&Roster { state, ..talk(&leaves) }, expected, &known), why);
    };
    let both = BTreeSet::from([account(&a), account(&b)]);
    check(&[a1, a2, b1], Some(&state), Expected::Group(account(&b)), MAY);
    check(&[a1], Some(&state), Expected::Group(account(&a)), MAY);
    check(&[a1, b1], Some(&state), Expected::Group(account(&stranger)), "not those expected");
    check(&[a1, b1], None, Expected::Group(account(&b)), "it is no group");
    check(&[a1, b1], Some(&state), Expected::Accounts(&both), "it is a group");
    check(&[a1, b1, b2], Some(&state), Expected::Group(account(&b)), "was revoked");
    check(&[a1, b1, b1], Some(&state), Expected::Group(account(&b)), "is there twice");
    // The devices of one account among themselves.
    check(&[a1, a2], None, Expected::Accounts(&BTreeSet::from([account(&a)])), MAY);
}

#[test]
fn a_rosters_admins_are_those_of_a_group() {
    let (a, b) = (Person::new(1), Person::new(11));
    let leaves = [a.leaves[0].clone(), b.leaves[0].clone()];
    let state = admins(&[&b]);
    let roster = |state| Roster { state, ..talk(&leaves) };
    assert_eq!(roster(Some(&state)).admins(), BTreeSet::from([account(&b)]));
    assert_eq!(roster(None).admins(), BTreeSet::new());
    assert_eq!(roster(None).accounts(), BTreeSet::from([account(&a), account(&b)]));
}
