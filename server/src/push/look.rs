//! What an inbox holds for push: the first message that is worth a wake-up, and the first that each device would want to
//! read before it expires. Reads the store, and opens no more of a message than who has sent it to which conversation.
//!
//! What any device of the account has taken counts as heard. That includes where a device began that was linked later: it
//! may begin at the newest entry, and then its siblings are woken no more for what they had not taken at that moment. One
//! of them has just been in somebody's hands, to link it.

use std::collections::HashMap;

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, DeviceId, Relation, SharedEnvelope};

use super::{DeviceFacts, Facts, First, PushConfig};
use crate::inbox::Open;
use crate::limits::LOOK_ENTRIES_MAX;
use crate::router::counts;
use crate::store::key::{self, CursorTag, PushTag};
use crate::store::record::{Cursor, InboxEntry, InboxHead, PreferenceRecord, SealedMessage};
use crate::store::{Family, Store, StoreError, decode, read};
use crate::time::is_expired;

/// Looks into an inbox, behind what is taken and behind `after_seq`; with `expiry` for what expires, too. Blocks for the
/// disk.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn look(
    store: &dyn Store,
    open: &dyn Open,
    account: AccountId,
    after_seq: u64,
    expiry: bool,
    config: &PushConfig,
    now_ms: u64,
) -> Result<Facts, StoreError> {
    let mut looker = Looker { store, open, account, config, now_ms, judged: HashMap::new() };
    let cursors = looker.cursors()?;
    let taken_seq = cursors.values().copied().max().unwrap_or_default();
    let head: InboxHead = read(store, Family::InboxHead, key::inbox_head(&account).as_ref())?.unwrap_or_default();
    let mut devices = looker.devices(&cursors)?;
    let after_seq = after_seq.max(taken_seq).max(head.overflow.seq);
    let (first, looked_to) = looker.first(after_seq, head.seq)?;
    if expiry {
        looker.find_expiring(&mut devices, &head)?;
    }
    Ok(Facts { head_seq: head.seq, taken_seq, first, looked_to, devices })
}

/// One look.
struct Looker<'a> {
    store: &'a dyn Store,
    open: &'a dyn Open,
    account: AccountId,
    config: &'a PushConfig,
    now_ms: u64,
    /// What the account has decided, as far as this look has asked. `None`: it is the sender itself.
    judged: HashMap<(ConversationId, AccountId), Option<Judged>>,
}

/// What an account has decided about messages of a sender in a conversation.
#[derive(Clone, Copy)]
struct Judged {
    is_accepted: bool,
    is_blocked: bool,
    muted_until_ms: u64,
}

impl Judged {
    /// Whether somebody wants to know at once. A mute is one of the messages that came meanwhile: its end wakes nobody for
    /// them.
    const fn is_worthy(self, time_ms: u64) -> bool {
        self.is_wanted() && time_ms >= self.muted_until_ms
    }

    /// Whether somebody wants to read it.
    const fn is_wanted(self) -> bool {
        self.is_accepted && !self.is_blocked
    }
}

impl Looker<'_> {
    /// What each device of the account has taken.
    fn cursors(&self) -> Result<HashMap<DeviceId, u64>, StoreError> {
        let mut cursors = HashMap::new();
        for (key, value) in self.store.scan(Family::Cursor, key::cursors(&self.account).as_range(), usize::MAX)? {
            if let Some((_, device, CursorTag::Cursor)) = key::parse_cursor(&key) {
                cursors.insert(device, decode::<Cursor>(Family::Cursor, &value)?.seq);
            }
        }
        Ok(cursors)
    }

    /// The devices that can be woken.
    fn devices(&self, cursors: &HashMap<DeviceId, u64>) -> Result<Vec<DeviceFacts>, StoreError> {
        let mut devices = Vec::new();
        for (key, _) in self.store.scan(Family::Push, key::push_of(&self.account).as_range(), usize::MAX)? {
            if let Some((_, device, PushTag::Target)) = key::parse_push(&key) {
                let cursor_seq = cursors.get(&device).copied().unwrap_or_default();
                devices.push(DeviceFacts { device, cursor_seq, oldest_accepted_ms: None });
            }
        }
        Ok(devices)
    }

    /// The first message behind a position that is worth a wake-up, and up to where none is.
    fn first(&mut self, after_seq: u64, head_seq: u64) -> Result<(Option<First>, u64), StoreError> {
        let mut looked_to = after_seq;
        let entries = self.page(after_seq)?;
        let is_last = entries.len() < LOOK_ENTRIES_MAX;
        for (seq, value) in entries {
            // What has come since the head was read is told by itself.
            if seq > head_seq {
                return Ok((None, head_seq));
            }
            if let Some((time_ms, judged)) = self.message(&value)?
                && judged.is_worthy(time_ms)
            {
                return Ok((Some(First { seq, time_ms }), seq.saturating_sub(1)));
            }
            looked_to = seq;
        }
        Ok((None, if is_last { looked_to.max(head_seq) } else { looked_to }))
    }

    /// Finds for each device the first message that somebody wants to read, among those that are about to expire. There is
    /// no bound but the inbox's own: strangers who write a lot keep nobody from being warned.
    fn find_expiring(&mut self, devices: &mut [DeviceFacts], head: &InboxHead) -> Result<(), StoreError> {
        let Some(taken_seq) = devices.iter().map(|device| device.cursor_seq).min() else { return Ok(()) };
        let mut after_seq = taken_seq.max(head.overflow.seq);
        loop {
            let entries = self.page(after_seq)?;
            let is_last = entries.len() < LOOK_ENTRIES_MAX;
            for (seq, value) in entries {
                // Positions are given out in the order of times: behind what has time, everything has.
                if InboxEntry::peek_time_ms(&value).is_some_and(|time_ms| self.config.has_time(time_ms, self.now_ms)) {
                    return Ok(());
                }
                after_seq = seq;
                let mut lacking = devices
                    .iter_mut()
                    .filter(|device| device.oldest_accepted_ms.is_none() && device.cursor_seq < seq)
                    .peekable();
                if lacking.peek().is_some()
                    && let Some((time_ms, judged)) = self.message(&value)?
                    && judged.is_wanted()
                {
                    lacking.for_each(|device| device.oldest_accepted_ms = Some(time_ms));
                }
            }
            if is_last || devices.iter().all(|device| device.oldest_accepted_ms.is_some()) {
                return Ok(());
            }
        }
    }

    /// The next entries behind a position, ascending.
    fn page(&self, after_seq: u64) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let range = key::inbox_after(&self.account, after_seq);
        let entries = self.store.scan(Family::Inbox, range.as_range(), LOOK_ENTRIES_MAX)?;
        Ok(entries.into_iter().filter_map(|(key, value)| Some((key::parse_inbox(&key)?.1, value))).collect())
    }

    /// The time of an entry and what the account has decided about it; `None` where nobody would be woken for it whatever
    /// they have decided: it does not count, has expired, is their own, or cannot be read by anybody.
    fn message(&mut self, value: &Bytes) -> Result<Option<(u64, Judged)>, StoreError> {
        let Ok(entry) = decode::<InboxEntry>(Family::Inbox, value) else { return Ok(None) };
        if !counts(&entry.body) || is_expired(entry.time_ms(), self.config.retention_ms, self.now_ms) {
            return Ok(None);
        }
        let envelope = match self.envelope(&entry) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ok(None),
            Err(StoreError::Corrupt { .. } | StoreError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let judged = self.judge(envelope.conversation, envelope.sender_account)?;
        Ok(judged.map(|judged| (entry.time_ms(), judged)))
    }

    fn envelope(&self, entry: &InboxEntry) -> Result<Option<SharedEnvelope>, StoreError> {
        let key = key::message(&entry.id);
        let Some(sealed) = read::<SealedMessage>(self.store, Family::Message, key.as_ref())? else { return Ok(None) };
        let Some(shared) = self.open.open(entry.id, &sealed)? else { return Ok(None) };
        let corrupt = |error: gureum_proto::PayloadError| StoreError::Corrupt {
            family: Family::Message,
            what: error.to_string(),
        };
        SharedEnvelope::decode(shared).map(Some).map_err(corrupt)
    }

    fn judge(&mut self, conversation: ConversationId, sender: AccountId) -> Result<Option<Judged>, StoreError> {
        if let Some(judged) = self.judged.get(&(conversation, sender)) {
            return Ok(*judged);
        }
        let judged = if sender == self.account { None } else { Some(self.decided(conversation, sender)?) };
        self.judged.insert((conversation, sender), judged);
        Ok(judged)
    }

    fn decided(&self, conversation: ConversationId, sender: AccountId) -> Result<Judged, StoreError> {
        let relation = key::relation(&self.account, &sender);
        let relation: Relation = read(self.store, Family::Directory, relation.as_ref())?.unwrap_or(Relation::None);
        let preference = key::preference(&self.account, &conversation);
        let preference: PreferenceRecord =
            read(self.store, Family::Directory, preference.as_ref())?.unwrap_or_default();
        Ok(Judged {
            is_accepted: preference.accepted || relation == Relation::Accepted,
            is_blocked: relation == Relation::Blocked,
            muted_until_ms: preference.muted_until_ms,
        })
    }
}

#[cfg(test)]
mod tests;
