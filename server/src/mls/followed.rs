//! The public groups of busy conversations, kept in memory as they were verified.
//!
//! A group that is kept here is used for exactly the bytes that it was made of, or that were made of it: whoever asks for it
//! shows what the store holds. So none can be stale, and none is needed: what is not here is read and verified anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use gureum_proto::ConversationId;
use openmls::prelude::PublicGroup;

use super::group::{load, members_of};
use super::{GroupMember, MlsError};
use crate::limits::FOLLOWED_GROUP_LEAVES_MIN;

/// An epoch of a conversation, as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredGroup<'a> {
    /// Which conversation.
    pub(crate) conversation: ConversationId,
    /// The epoch that the store says it is at.
    pub(crate) epoch: u64,
    /// The GroupInfo: an MLSMessage.
    pub(crate) group_info: &'a [u8],
    /// The ratchet tree.
    pub(crate) tree: &'a [u8],
}

/// What a public group is of: an epoch of a conversation, and the very bytes of GroupInfo and tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupPlace {
    conversation: ConversationId,
    epoch: u64,
    hash: [u8; 32],
}

impl StoredGroup<'_> {
    fn place(&self) -> GroupPlace {
        let mut hasher = blake3::Hasher::new();
        let length = u64::try_from(self.group_info.len()).unwrap_or(u64::MAX);
        hasher.update(&length.to_be_bytes()).update(self.group_info).update(self.tree);
        let hash = *hasher.finalize().as_bytes();
        GroupPlace { conversation: self.conversation, epoch: self.epoch, hash }
    }
}

/// A public group, with its leaves.
#[derive(Debug)]
pub(crate) struct FollowedGroup {
    pub(super) conversation: ConversationId,
    pub(super) public: PublicGroup,
    /// Ascending by index.
    pub(super) members: Vec<GroupMember>,
    /// `None` from when a commit is merged until what it makes is found to be good.
    place: Option<GroupPlace>,
}

impl FollowedGroup {
    /// Reads and verifies what is stored.
    ///
    /// # Errors
    /// It is not readable.
    pub(crate) fn read(stored: &StoredGroup<'_>) -> Result<Self, MlsError> {
        let public = load(stored.conversation, stored.group_info, stored.tree)?;
        let members = members_of(&public)?;
        Ok(Self { conversation: stored.conversation, public, members, place: Some(stored.place()) })
    }

    /// What it is of, unless a commit has left it between two epochs.
    pub(crate) const fn place(&self) -> Option<GroupPlace> {
        self.place
    }

    /// It is not of its epoch any more, and not yet of another.
    pub(super) const fn leave_epoch(&mut self) {
        self.place = None;
    }

    /// It is of this epoch, which has these leaves.
    pub(super) fn reach(&mut self, next: &StoredGroup<'_>, members: Vec<GroupMember>) {
        self.members = members;
        self.place = Some(next.place());
    }

    /// How many leaves its tree has room for, which is what it weighs; a small one weighs as much as what is around it.
    fn leaves(&self) -> usize {
        let slots = self.members.last().map_or(1, |last| u64::from(last.leaf) + 1).next_power_of_two();
        usize::try_from(slots).unwrap_or(usize::MAX).max(FOLLOWED_GROUP_LEAVES_MIN)
    }
}

/// Public groups, bounded by their leaves; past the bound those go that were not used for the longest time.
#[derive(Debug)]
pub(crate) struct Followed {
    held: Mutex<Held>,
    leaves_max: usize,
}

#[derive(Debug, Default)]
struct Held {
    /// With when each was used last.
    groups: BTreeMap<GroupPlace, (u64, FollowedGroup)>,
    by_use: BTreeMap<u64, GroupPlace>,
    leaves: usize,
    uses: u64,
}

impl Followed {
    /// Room for groups of so many leaves in all.
    #[must_use]
    pub(crate) fn new(leaves_max: usize) -> Self {
        Self { held: Mutex::default(), leaves_max }
    }

    /// Takes out the group of exactly what is stored. Whoever has it may put it back, or what has become of it.
    pub(crate) fn take(&self, stored: &StoredGroup<'_>) -> Option<FollowedGroup> {
        let place = stored.place();
        self.lock().remove(&place)
    }

    /// Keeps a group that is of an epoch: the store's, or one that a commit begins if it is accepted.
    pub(crate) fn keep(&self, group: FollowedGroup) {
        let Some(place) = group.place else { return };
        if group.leaves() > self.leaves_max {
            return;
        }
        let mut held = self.lock();
        let dropped = held.put(place, group, self.leaves_max);
        drop(held);
        // To drop a large tree takes a while, and others want the lock.
        drop(dropped);
    }

    /// A commit was accepted that makes this of its conversation: what else there is of it is in nobody's way any more.
    pub(crate) fn accepted(&self, place: GroupPlace) {
        let mut held = self.lock();
        let first = GroupPlace { epoch: 0, hash: [0; 32], ..place };
        let last = GroupPlace { hash: [u8::MAX; 32], ..place };
        let others: Vec<_> =
            held.groups.range(first..=last).map(|(other, _)| *other).filter(|other| *other != place).collect();
        let dropped: Vec<_> = others.iter().filter_map(|other| held.remove(other)).collect();
        drop(held);
        drop(dropped);
    }

    /// A commit was not accepted that would have made this.
    pub(crate) fn forget(&self, place: &GroupPlace) {
        let dropped = self.lock().remove(place);
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("no code panics while it holds the groups")
    }
}

impl Held {
    fn remove(&mut self, place: &GroupPlace) -> Option<FollowedGroup> {
        let (used, group) = self.groups.remove(place)?;
        self.by_use.remove(&used);
        self.leaves = self.leaves.saturating_sub(group.leaves());
        Some(group)
    }

    /// Returns what had to make room.
    fn put(&mut self, place: GroupPlace, group: FollowedGroup, leaves_max: usize) -> Vec<FollowedGroup> {
        let mut dropped = Vec::from_iter(self.remove(&place));
        self.uses += 1;
        self.leaves += group.leaves();
        self.by_use.insert(self.uses, place);
        self.groups.insert(place, (self.uses, group));
        while self.leaves > leaves_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            dropped.extend(self.remove(&oldest));
        }
        dropped
    }
}
