//! Groups that are kept as they were verified: the same as when they are read anew, used for exactly what is stored, and
//! bounded.

use super::*;
use crate::limits::FOLLOWED_GROUP_LEAVES_MIN;

impl Talk {
    /// Bob's commit that renews his keys.
    fn bob_renews(&mut self) -> Handover {
        let bob = &self.bob.devices[0];
        let (handover, _) = commit!(self.groups[1], bob, force_self_update(true));
        handover
    }

    fn apply_to(
        &self,
        group: &mut FollowedGroup,
        handover: &Handover,
        sender: &Device,
    ) -> Result<NextGroup, CommitError> {
        let (epoch, sender) = (self.view.epoch, sender.identity);
        let submitted = Submitted { epoch, commit: &handover.commit, group_info: &handover.group_info, sender };
        apply_commit(group, &submitted, &self.logs())
    }

    /// Bob's commit is what the store has now.
    fn go_on(&mut self, next: NextGroup) {
        self.groups[1].merge_pending_commit(&self.bob.devices[0].provider).unwrap();
        self.view = view_of(next);
    }

    /// Bob commits, and the group that is read for it is of the epoch that this begins.
    fn bob_goes_on(&mut self) -> FollowedGroup {
        let handover = self.bob_renews();
        let mut group = self.read().unwrap();
        let next = self.apply_to(&mut group, &handover, &self.bob.devices[0]).unwrap();
        self.go_on(next);
        group
    }
}

#[test]
fn a_group_that_is_kept_goes_on_as_one_that_is_read_anew() {
    let mut talk = Talk::start();
    let followed = Followed::new(1_000);
    followed.keep(talk.read().unwrap());
    for _ in 0..3 {
        let handover = talk.bob_renews();
        let bob = &talk.bob.devices[0];
        let mut kept = followed.take(&talk.stored()).expect("it is of what is stored");
        let next = talk.apply_to(&mut kept, &handover, bob).unwrap();
        assert_eq!(talk.apply_to(&mut talk.read().unwrap(), &handover, bob).unwrap(), next);
        followed.keep(kept);
        talk.go_on(next);
    }
    let creator = &talk.alice.devices[0];
    let handover = talk.external(creator, creator.credential());
    let mut kept = followed.take(&talk.stored()).expect("it is of what is stored");
    let next = talk.apply_to(&mut kept, &handover, creator).unwrap();
    assert_eq!(talk.apply_to(&mut talk.read().unwrap(), &handover, creator).unwrap(), next);
}

#[test]
fn a_kept_group_is_used_for_exactly_what_is_stored() {
    let talk = Talk::start();
    let followed = Followed::new(1_000);
    followed.keep(talk.read().unwrap());
    let stored = talk.stored();
    let (mut other_info, mut other_tree) = (stored.group_info.to_vec(), stored.tree.to_vec());
    *other_info.last_mut().unwrap() ^= 1;
    *other_tree.last_mut().unwrap() ^= 1;
    // The same bytes one after the other, parted elsewhere.
    let (moved, rest) = stored.tree.split_at(1);
    let longer_info = [stored.group_info, moved].concat();
    for other in [
        StoredGroup { group_info: &other_info, ..stored },
        StoredGroup { tree: &other_tree, ..stored },
        StoredGroup { group_info: &longer_info, tree: rest, ..stored },
        StoredGroup { epoch: 2, ..stored },
        StoredGroup { conversation: ConversationId::from_bytes([8; 16]), ..stored },
    ] {
        assert!(followed.take(&other).is_none(), "{other:?}");
    }
    assert!(followed.take(&stored).is_some());
    assert!(followed.take(&stored).is_none(), "one has it, and nobody else");
}

#[test]
fn a_refused_commit_leaves_a_kept_group_as_it_was() {
    let mut talk = Talk::start();
    let handover = talk.bob_renews();
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    let mut group = talk.read().unwrap();
    let place = group.place();
    let refused = talk.apply_to(&mut group, &handover, alice);
    assert!(matches!(refused, Err(CommitError::Invalid(_))), "{refused:?}");
    assert_eq!((group.place(), place.is_some()), (place, true));
    let next = talk.apply_to(&mut group, &handover, bob).unwrap();
    assert_eq!(talk.apply(&handover, bob).unwrap(), next);
}

#[test]
fn a_group_whose_commit_brought_a_wrong_group_info_is_not_kept() {
    let mut talk = Talk::start();
    let of_before = talk.view.group_info.to_vec();
    let handover = Handover { group_info: of_before, ..talk.bob_renews() };
    let mut group = talk.read().unwrap();
    let refused = talk.apply_to(&mut group, &handover, &talk.bob.devices[0]);
    assert!(matches!(refused, Err(CommitError::Invalid(_))), "{refused:?}");
    assert_eq!(group.place(), None);
    let followed = Followed::new(1_000);
    followed.keep(group);
    assert!(followed.take(&talk.stored()).is_none());
}

#[test]
fn of_several_commits_that_are_made_at_once_the_accepted_ones_group_stays() {
    let mut talk = Talk::start();
    let followed = Followed::new(1_000);
    let before = talk.view.clone();
    followed.keep(talk.read().unwrap());
    let alice = &talk.alice.devices[0];
    let (handover, _) = commit!(talk.groups[0], alice, force_self_update(true));
    let mut lost = talk.read().unwrap();
    let lost_view = view_of(talk.apply_to(&mut lost, &handover, alice).unwrap());
    followed.keep(lost);
    let won = talk.bob_goes_on();
    let place = won.place().unwrap();
    followed.keep(won);
    followed.accepted(place);
    let won_view = talk.view.clone();
    for (view, is_there) in [(before, false), (lost_view, false), (won_view, true)] {
        talk.view = view;
        assert_eq!(followed.take(&talk.stored()).is_some(), is_there, "of the epoch {}", talk.view.epoch);
    }
}

#[test]
fn a_group_that_no_commit_has_made_is_forgotten() {
    let mut talk = Talk::start();
    let followed = Followed::new(1_000);
    let group = talk.bob_goes_on();
    let place = group.place().unwrap();
    followed.keep(group);
    followed.forget(&place);
    assert!(followed.take(&talk.stored()).is_none());
}

#[test]
fn groups_past_the_bound_go_the_longest_unused_first() {
    let mut talk = Talk::start();
    let followed = Followed::new(2 * FOLLOWED_GROUP_LEAVES_MIN);
    let mut views = Vec::new();
    for _ in 0..3 {
        followed.keep(talk.read().unwrap());
        views.push(talk.view.clone());
        talk.bob_goes_on();
    }
    let mut there = Vec::new();
    for view in views {
        talk.view = view;
        there.push(followed.take(&talk.stored()).is_some());
    }
    assert_eq!(there, [false, true, true]);
}

#[test]
fn a_group_that_is_larger_than_the_bound_drives_no_other_out() {
    let talk = Talk::start();
    let followed = Followed::new(FOLLOWED_GROUP_LEAVES_MIN - 1);
    followed.keep(talk.read().unwrap());
    assert!(followed.take(&talk.stored()).is_none());
}
