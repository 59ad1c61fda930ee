//! Whatever the rule allows keeps what a conversation is.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;
use crate::Leave;

/// Two people in a conversation and one beside it; of the first two, some devices are revoked.
fn people() -> &'static [Person; 3] {
    static PEOPLE: std::sync::OnceLock<[Person; 3]> = std::sync::OnceLock::new();
    PEOPLE.get_or_init(|| {
        let mut people = [Person::new(1), Person::new(11), Person::new(21)];
        people[0].revoke(2);
        people[1].revoke(1);
        people
    })
}

fn leaf() -> impl Strategy<Value = Leaf> {
    (0..3_usize, 0..3_usize).prop_map(|(person, device)| people()[person].leaves[device].clone())
}

fn state() -> impl Strategy<Value = GroupState> {
    subsequence(vec![0, 1, 2], 0..=3).prop_map(|admins: Vec<usize>| {
        GroupState::new("friends", admins.into_iter().map(|person| people()[person].log.account())).unwrap()
    })
}

/// What the first device of a person says, signed by a person who may be another.
fn leave() -> impl Strategy<Value = SignedLeave> {
    (0..3_usize, 0..3_usize).prop_map(|(who, signer)| {
        let leaf = &people()[who].leaves[0];
        let leave = Leave {
            conversation: TALK,
            account: people()[who].log.account(),
            device: device(leaf),
            leaf_key: leaf.leaf_key.clone().into(),
        };
        SignedLeave::sign(leave, &people()[signer].signer.1)
    })
}

fn change() -> impl Strategy<Value = Change> {
    let parts = (any::<bool>(), leaf(), any::<bool>(), vec(leaf(), 0..3), vec(leaf(), 0..3));
    (parts, option::of(state()), vec(leave(), 0..2)).prop_map(|(parts, state, leaves)| {
        let (external, committer, renews, added, removed) = parts;
        let (committer, renewed) = (committer.identity, renews.then_some(committer));
        Change { external, committer, renewed, added, removed, state, leaves, more: false }
    })
}

fn accounts_in(leaves: &[&Leaf]) -> BTreeSet<AccountId> {
    leaves.iter().map(|leaf| leaf.identity.unwrap().account).collect()
}

proptest! {
    #[test]
    fn whatever_is_allowed_keeps_what_a_conversation_is(
        change in change(),
        before in subsequence((0..6).collect::<Vec<_>>(), 1..6),
        state in option::of(state()),
    ) {
        let people = people();
        let all: Vec<_> = people.iter().flat_map(|person| person.leaves.clone()).collect();
        let before: Vec<_> = before.into_iter().map(|index: usize| all[index].clone()).collect();
        let refs: Vec<_> = people.iter().collect();
        let is_active = |leaf: &Leaf| people.iter().any(|person| person.log.is_active(device(leaf)));
        let roster = Roster { state: state.as_ref(), ..talk(&before) };
        let strict = judge_commit(&change, &roster, &Known::of(&refs));
        let looking_back = judge_commit(&change, &roster, &Known::looking_back(&refs));
        if strict == Verdict::Allowed {
            prop_assert_eq!(&looking_back, &Verdict::Allowed, "who looks back refuses nothing that was accepted");
            prop_assert!(change.added.iter().chain(&change.renewed).all(is_active));
        }
        if looking_back == Verdict::Allowed {
            let stays = |leaf: &&Leaf| !change.removed.contains(leaf);
            let mut after: Vec<_> = before.iter().filter(stays).chain(&change.added).collect();
            after.extend(change.renewed.iter().filter(|_| change.external));
            let devices: HashSet<_> = after.iter().map(|leaf| device(leaf)).collect();
            prop_assert_eq!(devices.len(), after.len(), "no device is there twice");

            let committer = change.committer.unwrap();
            let (accounts, accounts_after) = (accounts_of(&before), accounts_in(&after));
            prop_assert!(accounts.contains(&committer.account) && accounts_after.contains(&committer.account));
            let mut foreign = change.removed.iter().filter(|leaf| leaf.identity.unwrap().account != committer.account);
            let is_whole = |leaf: &Leaf| !accounts_after.contains(&leaf.identity.unwrap().account);
            prop_assert!(foreign.all(|leaf| !is_active(leaf) || is_whole(leaf)), "another's active device stays");

            if !roster.admins().contains(&committer.account) {
                prop_assert!(accounts_after.is_subset(&accounts), "admins alone add people");
                prop_assert_eq!(&change.state, &None, "and change what the group says of itself");
                let left: BTreeSet<_> = change.leaves.iter().map(|signed| signed.leave().account).collect();
                prop_assert!(accounts.difference(&accounts_after).all(|account| left.contains(account)));
            }
            if state.is_none() {
                prop_assert_eq!(accounts_after, accounts, "its accounts never change");
            }
        }
    }
}
