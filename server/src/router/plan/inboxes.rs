//! Appending to inboxes, and keeping them under their bound.

use bytes::Bytes;
use gureum_proto::{AccountId, MessageId, Position};

use super::{Plan, Planner};
use crate::limits::SCAN_ENTRIES_MAX;
use crate::store::record::{InboxBody, InboxEntry, InboxHead, Mark};
use crate::store::{Family, StoreError, decode, key};
use crate::time::is_expired;
use crate::wake::Delivery;

impl Planner {
    /// Gives an inbox its next entry.
    pub(super) fn append(
        &mut self,
        account: AccountId,
        id: MessageId,
        body: InboxBody,
        shared: &Bytes,
        now_ms: u64,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let config = self.config;
        let head = self.caches.change_head(self.store.as_ref(), account)?;
        head.seq += 1;
        head.count += u64::from(counts(&body));
        head.bytes_total += u64::try_from(shared.len()).unwrap_or(u64::MAX);
        let (position, bytes_total) = (Position { seq: head.seq, count: head.count }, head.bytes_total);
        let is_over = exceeds(head, config.inbox_entries_max, config.inbox_bytes_max);
        let entry = InboxEntry { id, count: position.count, bytes_total, body };
        plan.batch.put_record(Family::Inbox, key::inbox(&account, position.seq), &entry);
        plan.deliveries.push((account, Delivery { position, id, shared: shared.clone() }));
        plan.must_sync = true;
        if is_over { self.trim(account, now_ms) } else { Ok(()) }
    }

    /// Brings an inbox under its bound: first by finding what is gone for everybody anyway, then by dropping the
    /// oldest eighth, so that the work is shared by many appends.
    fn trim(&mut self, account: AccountId, now_ms: u64) -> Result<(), StoreError> {
        let (entries_max, bytes_max) = (self.config.inbox_entries_max, self.config.inbox_bytes_max);
        let taken = self.caches.cursors(self.store.as_ref(), account)?.floor().map_or(0, |cursor| cursor.seq);
        let retention_ms = self.config.retention_ms;
        // A Welcome stays for longer than messages, and must not keep what follows it from making room.
        let is_gone = |seq: u64, entry: &InboxEntry| seq <= taken || is_expired(entry.time_ms(), retention_ms, now_ms);
        let mut head = self.caches.head(self.store.as_ref(), account)?;
        head.floor = self.gone_until(account, start(&head), is_gone)?;
        if exceeds(&head, entries_max, bytes_max) {
            let (entries_keep, bytes_keep) = (entries_max - entries_max / 8, bytes_max - bytes_max / 8);
            let last = head.last();
            let is_surplus = |seq: u64, entry: &InboxEntry| {
                last.seq - seq >= entries_keep || last.bytes_total - entry.bytes_total >= bytes_keep
            };
            if let Some(overflow) = self.last_while(account, start(&head), is_surplus)? {
                head.overflow = overflow;
            }
        }
        *self.caches.change_head(self.store.as_ref(), account)? = head;
        Ok(())
    }

    /// The position up to which everything is gone for every reader, and maybe from the disk too.
    fn gone_until(
        &self,
        account: AccountId,
        from: Mark,
        is_gone: impl Fn(u64, &InboxEntry) -> bool,
    ) -> Result<Mark, StoreError> {
        let mut gone = from;
        let stays = self.walk(account, from.seq, |seq, entry| {
            let goes = is_gone(seq, entry);
            if goes {
                gone = mark(seq, entry);
            }
            goes
        })?;
        let before = match stays {
            // The sum of bytes before it is not known any more: its own bytes are not counted.
            Some((seq, entry)) => {
                Mark { seq: seq - 1, count: entry.count - u64::from(counts(&entry.body)), ..mark(seq, &entry) }
            }
            // What is not on the disk has been compacted away, or stands in the batch that is being planned.
            None => self.read::<InboxHead>(Family::InboxHead, key::inbox_head(&account))?.unwrap_or_default().last(),
        };
        Ok(if before.seq > gone.seq { before } else { gone })
    }

    /// The last of the stored entries after `from` up to which `holds` is true without a break.
    fn last_while(
        &self,
        account: AccountId,
        from: Mark,
        holds: impl Fn(u64, &InboxEntry) -> bool,
    ) -> Result<Option<Mark>, StoreError> {
        let mut found = None;
        self.walk(account, from.seq, |seq, entry| {
            let holds = holds(seq, entry);
            if holds {
                found = Some(mark(seq, entry));
            }
            holds
        })?;
        Ok(found)
    }

    /// Looks at the stored entries after a position while `goes_on` says so; returns the one where it stopped.
    fn walk(
        &self,
        account: AccountId,
        mut after: u64,
        mut goes_on: impl FnMut(u64, &InboxEntry) -> bool,
    ) -> Result<Option<(u64, InboxEntry)>, StoreError> {
        // Most walks end after a few entries: the pages begin small and grow.
        let mut entries_max = WALK_ENTRIES_FIRST;
        loop {
            let range = key::inbox_after(&account, after);
            let page = self.store.scan(Family::Inbox, range.as_range(), entries_max)?;
            for (entry_key, value) in &page {
                let Some((_, seq)) = key::parse_inbox(entry_key) else { continue };
                let entry: InboxEntry = decode(Family::Inbox, value)?;
                if !goes_on(seq, &entry) {
                    return Ok(Some((seq, entry)));
                }
                after = seq;
            }
            if page.len() < entries_max {
                return Ok(None);
            }
            entries_max = (entries_max * 4).min(SCAN_ENTRIES_MAX);
        }
    }
}

/// Entries of the first page of a walk.
const WALK_ENTRIES_FIRST: usize = 16;

/// Whether an entry counts as an application message.
pub(crate) const fn counts(body: &InboxBody) -> bool {
    matches!(body, InboxBody::Message)
}

fn mark(seq: u64, entry: &InboxEntry) -> Mark {
    Mark { seq, count: entry.count, bytes_total: entry.bytes_total }
}

/// Below this nothing is there to be read.
fn start(head: &InboxHead) -> Mark {
    if head.floor.seq > head.overflow.seq { head.floor } else { head.overflow }
}

fn exceeds(head: &InboxHead, entries_max: u64, bytes_max: u64) -> bool {
    let start = start(head);
    head.seq - start.seq > entries_max || head.bytes_total - start.bytes_total > bytes_max
}
