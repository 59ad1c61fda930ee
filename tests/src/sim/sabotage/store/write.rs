//! What is written otherwise than it was meant.

use std::borrow::Cow;
use std::sync::PoisonError;

use bytes::Bytes;
use gureum_server::store::key::{self, ConversationTag, CursorTag};
use gureum_server::store::record::{ConversationHead, ConversationKind, Cursor, InboxHead, Member, Removals};
use gureum_server::store::{Batch, Change, Durability, Family, Record, Store, StoreError};

use super::{Sabotage, Spoiled, is_hit};

impl Spoiled {
    pub(super) fn before_write(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.bug == Sabotage::StaleReads {
            for (head_key, _) in puts(batch, Family::InboxHead) {
                self.stale.begin(head_key, || self.of.get(Family::InboxHead, head_key))?;
            }
        }
        Ok(())
    }

    pub(super) fn after_write(&self, batch: &Batch) {
        match self.bug {
            Sabotage::StaleReads => {
                let now_ms = self.expiry.clock.now_ms();
                puts(batch, Family::InboxHead).for_each(|(key, value)| self.stale.note(key, value, now_ms));
            }
            Sabotage::FloorAhead => {
                for (head_key, value) in puts(batch, Family::InboxHead) {
                    let account = head_key.try_into().expect("the key of a head is an account");
                    let head = InboxHead::decode(&Bytes::copy_from_slice(value)).expect("heads are written whole");
                    self.expiry.floors.raise(&account, head.seq);
                }
            }
            Sabotage::AccountsForgotten => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.extend(puts(batch, Family::DeviceLog).map(|(key, _)| Bytes::copy_from_slice(key)));
            }
            _ => {}
        }
    }
}

/// What a batch sets in a family.
fn puts(batch: &Batch, of: Family) -> impl Iterator<Item = (&[u8], &[u8])> {
    batch.changes().filter_map(move |change| match change {
        Change::Put { family, key, value } if family == of => Some((key, value)),
        _ => None,
    })
}

pub(super) fn durability(bug: Sabotage, batch: &Batch, durability: Durability) -> Durability {
    let is_hit = bug == Sabotage::Unsynced && puts(batch, Family::Message).next().is_some();
    if is_hit { Durability::Lazy } else { durability }
}

/// The batch as it is written to what is there before.
pub(super) fn spoiled(bug: Sabotage, before: &dyn Store, batch: &Batch) -> Batch {
    let mut spoiled = Batch::new();
    for change in batch.changes() {
        match change {
            Change::Put { family, key, value } => {
                if let Some(value) = written(bug, before, (family, key), value) {
                    spoiled.put(family, key, value);
                }
            }
            Change::Delete { family, key } => spoiled.delete(family, key),
        }
    }
    spoiled
}

/// What is written in place of a value; `None`: nothing.
fn written<'a>(
    bug: Sabotage,
    before: &dyn Store,
    (family, key): (Family, &[u8]),
    value: &'a [u8],
) -> Option<Cow<'a, [u8]>> {
    let is_left_out = match (bug, family) {
        (Sabotage::PointerUnwritten, Family::Inbox) | (Sabotage::BodyUnwritten, Family::Message) => is_hit(key),
        (Sabotage::NumberUnwritten, Family::Conversation) => key.last() == Some(&(ConversationTag::Number as u8)),
        (Sabotage::WindowUnwritten, Family::Sent) => true,
        (Sabotage::LifeUnwritten, Family::Cursor) => tag(key) == Some(CursorTag::Life),
        (Sabotage::RemovalKept, Family::Conversation) => is_settled(key, value),
        _ => false,
    };
    if is_left_out {
        return None;
    }
    if bug == Sabotage::CursorBack && family == Family::Cursor && tag(key) == Some(CursorTag::Cursor) {
        let cursor = Cursor::decode(&Bytes::copy_from_slice(value)).expect("cursors are written whole");
        if cursor.seq.is_multiple_of(5) {
            return Some(Cow::Owned(Cursor::default().encode()));
        }
    }
    let keeps = match bug {
        Sabotage::LeafKept => with_all_that_were_in,
        Sabotage::GroupLeafKept => with_devices_that_were_in,
        _ => return Some(Cow::Borrowed(value)),
    };
    if family == Family::Conversation
        && let Some((was, after)) = heads(before, key, value)
        && let Some(head) = keeps(was, after)
    {
        return Some(Cow::Owned(head.encode()));
    }
    Some(Cow::Borrowed(value))
}

/// Whether a record says that a conversation waits for no removal.
fn is_settled(key: &[u8], value: &[u8]) -> bool {
    key.last() == Some(&(ConversationTag::Removals as u8))
        && Removals::decode(&Bytes::copy_from_slice(value)).is_ok_and(|removals| removals.pending.is_empty())
}

/// The head of a conversation as it was and as it is to be, where it is one.
fn heads(before: &dyn Store, key: &[u8], value: &[u8]) -> Option<(ConversationHead, ConversationHead)> {
    if key.last() != Some(&(ConversationTag::Head as u8)) {
        return None;
    }
    let after = ConversationHead::decode(&Bytes::copy_from_slice(value)).expect("heads are written whole");
    let was = before.get(Family::Conversation, key).ok()??;
    let was = ConversationHead::decode(&was).expect("heads are written whole");
    Some((was, after))
}

/// The head of a conversation from which somebody is removed, as if nobody were.
fn with_all_that_were_in(was: ConversationHead, after: ConversationHead) -> Option<ConversationHead> {
    with_those_that_were_in(was, after, |_, _| true)
}

/// The head of a group from which single devices are removed, as if none were.
fn with_devices_that_were_in(was: ConversationHead, after: ConversationHead) -> Option<ConversationHead> {
    if after.kind != ConversationKind::Group {
        return None;
    }
    let stays = |member: &Member, after: &[Member]| after.iter().any(|other| other.account == member.account);
    with_those_that_were_in(was, after, stays)
}

fn with_those_that_were_in(
    was: ConversationHead,
    mut after: ConversationHead,
    keeps: impl Fn(&Member, &[Member]) -> bool,
) -> Option<ConversationHead> {
    let has_leaf = |member: &Member| after.members.iter().any(|other| other.device == member.device);
    let is_kept = |member: &Member| !has_leaf(member) && keeps(member, &after.members);
    let kept: Vec<_> = was.members.into_iter().filter(is_kept).collect();
    after.members.extend(kept);
    Some(after)
}

fn tag(cursor_key: &[u8]) -> Option<CursorTag> {
    key::parse_cursor(cursor_key).map(|(_, _, tag)| tag)
}
