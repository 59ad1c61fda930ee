//! What a full cache forgets, and what it keeps.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use super::*;
use crate::limits::MEMBERS_MAX;
use crate::store::Durability;
use crate::store::conformance::expiry;
use crate::store::memory::MemoryStore;
use crate::store::record::{ConversationKind, Member};

const MAX: usize = PLANNER_CACHE_ENTRIES_MAX;

/// A full cache of numbers, none of which has been used since it came.
fn full() -> Cache<usize, usize> {
    let mut cache = Cache::default();
    for number in 0..MAX {
        cache.load(number, || Ok(number)).unwrap();
    }
    cache
}

/// Which of some numbers are there, without a use of them.
fn kept(cache: &Cache<usize, usize>, of: impl Iterator<Item = usize>) -> usize {
    of.filter(|number| cache.entries.contains_key(number)).count()
}

#[test]
fn a_full_cache_forgets_the_oldest_one_for_each_that_comes() {
    let mut cache = full();
    for more in 0..100 {
        cache.load(MAX + more, || Ok(0)).unwrap();
        assert_eq!(cache.entries.len(), MAX);
        assert!(!cache.entries.contains_key(&more));
    }
    assert_eq!(kept(&cache, 100..MAX + 100), MAX);
    assert_eq!(cache.round.len(), MAX);
}

#[test]
fn what_is_used_outlives_what_is_not() {
    let mut cache = full();
    let used = |number: &usize| number.is_multiple_of(2);
    for number in (0..MAX).filter(used) {
        assert!(cache.find(&number).is_some());
    }
    for more in 0..MAX / 2 {
        cache.load(MAX + more, || Ok(0)).unwrap();
    }
    assert_eq!(kept(&cache, (0..MAX).filter(used)), MAX / 2, "what was used is there");
    assert_eq!(kept(&cache, 0..MAX), MAX / 2, "and nothing else of that time");
}

#[test]
fn a_cache_of_which_everything_is_used_stays_at_its_bound() {
    let mut cache = full();
    for number in 0..MAX {
        cache.load(number, || unreachable!("it is there")).unwrap();
    }
    for more in 0..100 {
        cache.load(MAX + more, || Ok(0)).unwrap();
        assert_eq!(cache.entries.len(), MAX);
    }
    assert_eq!(kept(&cache, 0..MAX), MAX - 100);
}

#[test]
fn what_is_not_written_yet_stays_and_room_is_made_once_it_is() {
    let mut cache = full();
    for number in 0..MAX {
        *cache.change(number, || unreachable!("it is there")).unwrap() = number + 1;
    }
    cache.load(MAX, || Ok(0)).unwrap();
    assert_eq!(kept(&cache, 0..MAX), MAX);
    let mut written = 0;
    cache.flush(|number, value| {
        assert_eq!(*value, number + 1);
        written += 1;
    });
    assert_eq!(written, MAX);
    for more in 1..100 {
        cache.load(MAX + more, || Ok(0)).unwrap();
    }
    assert_eq!(cache.entries.len(), MAX);
    cache.flush(|_, _| unreachable!("nothing has changed since"));
}

#[test]
fn what_was_forgotten_by_name_leaves_no_trace_and_may_come_again() {
    let mut cache = full();
    for _ in 0..3 {
        cache.forget(|number| *number == 7);
        assert_eq!((cache.entries.len(), cache.round.len()), (MAX - 1, MAX - 1));
        cache.load(7, || Ok(7)).unwrap();
    }
    assert_eq!((cache.entries.len(), cache.round.len()), (MAX, MAX));
}

/// Puts the conversation of that number, with so many leaves, into the store; the answer is its id.
fn talk(store: &MemoryStore, number: usize, leaves: usize) -> ConversationId {
    let id = ConversationId::from_bytes([u8::try_from(number).unwrap(); 16]);
    let member = Member { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([1; 16]), leaf: 0 };
    let head =
        ConversationHead { epoch: 1, created_ms: 0, kind: ConversationKind::Group, members: vec![member; leaves] };
    let mut batch = Batch::new();
    batch.put_record(Family::Conversation, key::conversation(&id, ConversationTag::Head), &head);
    store.write(&batch, Durability::Synced).unwrap();
    id
}

#[test]
fn a_large_conversation_makes_others_go_until_its_leaves_have_room() {
    let store = MemoryStore::new(expiry().1);
    let mut caches = Caches::default();
    let counted = |caches: &Caches| -> usize {
        caches.conversations.entries.values().map(|cached| cached.value.head.members.len()).sum()
    };
    let full = PLANNER_CACHE_LEAVES_MAX / MEMBERS_MAX;
    for number in 0..=full {
        let id = talk(&store, number, MEMBERS_MAX);
        caches.conversation(&store, id).unwrap().unwrap();
        let expected = (number + 1).min(full) * MEMBERS_MAX;
        assert_eq!((caches.leaves, counted(&caches)), (expected, expected));
    }
    let last = talk(&store, full, 1);
    let smaller: Option<ConversationHead> =
        read(&store, Family::Conversation, key::conversation(&last, ConversationTag::Head).as_ref()).unwrap();
    caches.begin();
    caches.replace_head(last, &smaller.unwrap());
    let expected = (full - 1) * MEMBERS_MAX + 1;
    assert_eq!((caches.leaves, counted(&caches)), (expected, expected));
    caches.take_back();
    let expected = full * MEMBERS_MAX;
    assert_eq!((caches.leaves, counted(&caches)), (expected, expected));
}
