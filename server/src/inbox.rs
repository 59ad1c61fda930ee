//! Reading an inbox: the newest entries from memory, older ones from the store, and a gap for whatever is gone.

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::{AccountId, EnvelopeBody, Gap, GapReason, MessageId, Position, SharedEnvelope};

use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::router::counts;
use crate::session::{Item, Page};
use crate::store::record::{CommitRecord, InboxBody, InboxEntry, InboxHead, SealedMessage};
use crate::store::{Family, Record, Retentions, Store, StoreError, decode, key, read};
use crate::time::{Clock, is_expired};
use crate::wake::{Delivery, Hub};

/// Opens what [`crate::router::Seal`] sealed.
pub trait Open: Send + Sync {
    /// The shared part of an envelope; `None` when its key has been destroyed.
    ///
    /// # Errors
    /// When the record is not what was sealed.
    fn open(&self, id: MessageId, sealed: &SealedMessage) -> Result<Option<Bytes>, StoreError>;
}

/// Reads inboxes. An entry older than its retention is never returned, to the millisecond.
#[derive(Clone)]
pub struct Inboxes {
    /// The disk.
    pub store: Arc<dyn Store>,
    /// The tails.
    pub hub: Arc<Hub>,
    /// Opens bodies.
    pub seal: Arc<dyn Open>,
    /// Decides what has expired.
    pub clock: Arc<Clock>,
    /// How long entries stay.
    pub retentions: Retentions,
}

impl Inboxes {
    /// What follows a position, from memory alone; `None`: [`Self::read_store`] must be asked.
    #[must_use]
    pub fn read_tail(&self, account: AccountId, after: Position) -> Option<Page> {
        let entries = self.hub.read_tail(account, after.seq, PAGE_ENTRIES_MAX, PAGE_BYTES_MAX)?;
        let now_ms = self.clock.now_ms();
        let mut page = PageBuilder::new(after, InboxHead::default());
        page.page.more = entries.len() == PAGE_ENTRIES_MAX || weight(&entries) >= PAGE_BYTES_MAX;
        for entry in entries {
            if is_expired(entry.id.time_ms(), self.retentions.message_ms, now_ms) {
                return None;
            }
            page.push(entry.position, entry.shared);
        }
        Some(page.page)
    }

    /// What follows a position, from the store. Blocks for the disk.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what it should not.
    pub fn read_store(&self, account: AccountId, after: Position) -> Result<Page, StoreError> {
        let now_ms = self.clock.now_ms();
        let head: InboxHead = self.get(Family::InboxHead, key::inbox_head(&account).as_ref())?.unwrap_or_default();
        let mut page = PageBuilder::new(after, head);
        let mut from = after.seq.max(head.overflow.seq);
        while from < head.seq {
            let range = key::inbox_after(&account, from);
            let entries = self.store.scan(Family::Inbox, range.as_range(), PAGE_ENTRIES_MAX)?;
            let is_last = entries.len() < PAGE_ENTRIES_MAX;
            let mut live = Vec::with_capacity(entries.len());
            for (entry_key, value) in &entries {
                let Some((_, seq)) = key::parse_inbox(entry_key) else { continue };
                from = seq;
                let entry: InboxEntry = decode(Family::Inbox, value)?;
                if seq <= head.seq && !self.retentions.is_expired(&entry, now_ms) {
                    live.push((seq, entry));
                }
            }
            if !live.is_empty() {
                page.page.more = self.fill(account, &live, &mut page)? || !is_last;
                if !page.page.more {
                    // After a restore nothing stands between the last entry and the head.
                    page.gap_until(Position { seq: head.seq, count: head.count });
                }
                return Ok(page.page);
            }
            if is_last {
                break;
            }
        }
        // Nothing is left: all up to the head is gone.
        page.gap_until(Position { seq: head.seq, count: head.count });
        Ok(page.page)
    }

    /// Adds entries with their bodies; says whether some were left for the next page.
    fn fill(
        &self,
        account: AccountId,
        entries: &[(u64, InboxEntry)],
        page: &mut PageBuilder,
    ) -> Result<bool, StoreError> {
        let ids: Vec<_> = entries.iter().map(|(_, entry)| key::message(&entry.id)).collect();
        let keys: Vec<&[u8]> = ids.iter().map(AsRef::as_ref).collect();
        let bodies = self.bodies(&keys)?;
        let mut bytes = 0;
        for ((seq, entry), body) in entries.iter().zip(bodies) {
            if bytes >= PAGE_BYTES_MAX {
                return Ok(true);
            }
            let (position, counts) = (Position { seq: *seq, count: entry.count }, counts(&entry.body));
            match body.and_then(|body| self.shared(account, entry, body.as_ref())) {
                Ok(Some(shared)) => {
                    bytes += shared.len();
                    page.push_after_gap(position, counts, shared);
                }
                // A body that is gone has expired since, if its time has come: it goes no sooner.
                Ok(None) if self.retentions.is_expired(entry, self.clock.now_ms()) => {
                    page.gap_until(position);
                }
                Ok(None) => {
                    tracing::error!(id = %entry.id, "a message or its key is missing and lost; see `gureumd check`");
                    page.lose_after_gap(position, counts);
                }
                // Damage of one entry holds up no others, and is never handed out.
                Err(error) if is_damage(&error) => {
                    tracing::error!(id = %entry.id, %error, "a message is damaged and lost; see `gureumd check`");
                    page.lose_after_gap(position, counts);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The bodies of many keys; where one is damaged, each by itself.
    fn bodies(&self, keys: &[&[u8]]) -> Result<Vec<Result<Option<Bytes>, StoreError>>, StoreError> {
        match self.store.get_many(Family::Message, keys) {
            Ok(bodies) => Ok(bodies.into_iter().map(Ok).collect()),
            Err(error) if is_damage(&error) => {
                Ok(keys.iter().map(|key| self.store.get(Family::Message, key)).collect())
            }
            Err(error) => Err(error),
        }
    }

    fn shared(&self, reader: AccountId, entry: &InboxEntry, body: Option<&Bytes>) -> Result<Option<Bytes>, StoreError> {
        match entry.body {
            InboxBody::Message | InboxBody::Silent => match body {
                Some(body) => self.seal.open(entry.id, &decode(Family::Message, body)?),
                None => Ok(None),
            },
            InboxBody::Welcome | InboxBody::Leave => self.get(Family::Welcome, key::message(&entry.id).as_ref()),
            InboxBody::Commit { conversation, epoch } => {
                let key = key::commit(&conversation, epoch);
                let Some(record) = self.get::<CommitRecord>(Family::Commit, key.as_ref())? else { return Ok(None) };
                Ok(Some(
                    SharedEnvelope {
                        message_id: entry.id,
                        conversation,
                        sender_account: record.account,
                        sender_device: record.device,
                        body: EnvelopeBody::Commit { epoch, commit: record.commit },
                    }
                    .encode(),
                ))
            }
            InboxBody::DeviceLog { account } => {
                tracing::trace!(%reader, "a device log has grown");
                let range = key::device_log_from(&account, 0);
                let last = self.store.last(Family::DeviceLog, range.as_range())?;
                let Some((_, index)) = last.and_then(|(key, _)| key::parse_device_log(&key)) else { return Ok(None) };
                Ok(Some(
                    SharedEnvelope {
                        message_id: entry.id,
                        conversation: gureum_proto::ConversationId::from_bytes([0; 16]),
                        sender_account: account,
                        sender_device: gureum_proto::DeviceId::from_bytes([0; 16]),
                        body: EnvelopeBody::LogChange { log_entries: index + 1 },
                    }
                    .encode(),
                ))
            }
        }
    }

    fn get<T: Record>(&self, family: Family, key: &[u8]) -> Result<Option<T>, StoreError> {
        read(self.store.as_ref(), family, key)
    }
}

impl std::fmt::Debug for Inboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inboxes").field("retentions", &self.retentions).finish_non_exhaustive()
    }
}

/// Keeps a page dense: what is missing before an entry becomes a gap, split where the reason changes.
struct PageBuilder {
    page: Page,
    end: Position,
    head: InboxHead,
}

impl PageBuilder {
    fn new(after: Position, head: InboxHead) -> Self {
        Self { page: Page::default(), end: after, head }
    }

    fn push(&mut self, position: Position, shared: Bytes) {
        self.page.items.push(Item::Envelope { position, shared });
        self.end = position;
    }

    fn push_after_gap(&mut self, position: Position, counts: bool, shared: Bytes) {
        let before = Position { seq: position.seq - 1, count: position.count - u64::from(counts) };
        self.gap_until(before);
        self.push(position, shared);
    }

    fn lose_after_gap(&mut self, position: Position, counts: bool) {
        let before = Position { seq: position.seq - 1, count: position.count - u64::from(counts) };
        self.gap_until(before);
        self.gap(position, GapReason::Lost);
    }

    fn gap_until(&mut self, to: Position) {
        let overflow = Position { seq: self.head.overflow.seq, count: self.head.overflow.count };
        if overflow.seq > self.end.seq {
            self.gap(if overflow.seq < to.seq { overflow } else { to }, GapReason::Overflow);
        }
        let is_restored = key::inbox_life(self.end.seq) != key::inbox_life(to.seq);
        self.gap(to, if is_restored { GapReason::Lost } else { GapReason::Expired });
    }

    fn gap(&mut self, to: Position, reason: GapReason) {
        if to.seq <= self.end.seq {
            return;
        }
        let missed = to.count.saturating_sub(self.end.count);
        // One gap for one reason, however many reads it took to see it.
        match self.page.items.last_mut() {
            Some(Item::Gap(gap)) if gap.reason == reason => {
                gap.to = to;
                gap.missed += missed;
            }
            _ => self.page.items.push(Item::Gap(Gap { from_seq: self.end.seq + 1, to, missed, reason })),
        }
        self.end = to;
    }
}

const fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. } | StoreError::Damaged(_))
}

fn weight(entries: &[Delivery]) -> usize {
    entries.iter().map(|entry| entry.shared.len()).sum()
}

#[cfg(test)]
mod tests;
