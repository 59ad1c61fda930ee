//! The auditor: which invariants of the store a batch would break, and which a whole store breaks.

mod people;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, DeviceId, MessageId};

use super::key::{self, ConversationTag, CursorTag};
use super::record::{
    CommitRecord, ConversationHead, Cursor, InboxBody, InboxEntry, InboxHead, LifeRecord, Record, Removals,
    SenderWindow, SentResult,
};
use super::{Batch, Change, Expiry, Family, Store, StoreError};
use crate::limits::{KEY_BYTES_MAX, SCAN_ENTRIES_MAX};
use crate::time::is_expired;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A record is not what its family holds.
    Unreadable(Family),
    /// An inbox got a position that is not the next one.
    SeqNotNext {
        /// Whose.
        account: AccountId,
        /// Which would have been next.
        next: u64,
        /// Which it got.
        seq: u64,
    },
    /// The running count at a position is not that of the one before and itself.
    CountWrong {
        /// Whose inbox.
        account: AccountId,
        /// Where.
        seq: u64,
    },
    /// An inbox's head is not at its last entry, with the sums there, or has gone back.
    HeadWrong {
        /// Whose.
        account: AccountId,
        /// What it said.
        before: InboxHead,
        /// What it says.
        after: InboxHead,
    },
    /// A cursor has gone back.
    CursorWentBack {
        /// Whose.
        account: AccountId,
        /// Of which device.
        device: DeviceId,
    },
    /// A cursor is past the inbox's head.
    CursorPastHead {
        /// Whose.
        account: AccountId,
        /// Of which device.
        device: DeviceId,
    },
    /// An entry that has not expired points to nothing.
    BodyMissing {
        /// Whose.
        account: AccountId,
        /// Where.
        seq: u64,
    },
    /// Entries are missing between living ones.
    Hole {
        /// Whose.
        account: AccountId,
        /// The position that is not there.
        seq: u64,
    },
    /// A message has replaced another.
    MessageReplaced(MessageId),
    /// Conversations have given out as many numbers as this, for so many messages.
    NumbersWrong {
        /// Numbers given out, or `None` when one went back.
        numbers: Option<u64>,
        /// Messages stored.
        messages: u64,
    },
    /// A conversation's epoch has not gone up by one.
    EpochNotNext {
        /// Which.
        conversation: ConversationId,
        /// Its epoch before.
        before: u64,
        /// And after.
        after: u64,
    },
    /// The epoch by itself is not that of the roster.
    EpochTorn {
        /// Of which conversation.
        conversation: ConversationId,
    },
    /// A commit has replaced another, or ends another epoch than the conversation's.
    CommitWrong {
        /// Of which conversation.
        conversation: ConversationId,
        /// The epoch that it ends.
        epoch: u64,
    },
    /// A device or an account that is to be removed has no leaf, or the floor of a conversation went back or is past its epoch.
    RemovalsWrong {
        /// Of which conversation.
        conversation: ConversationId,
    },
    /// An account is a member without a leaf or after it has left, or has a leaf and is no member.
    MembershipWrong {
        /// Of which conversation.
        conversation: ConversationId,
        /// Who.
        account: AccountId,
    },
    /// A device's highest counter has gone back, or one counter has two results.
    WindowWrong {
        /// Whose.
        account: AccountId,
        /// Of which device.
        device: DeviceId,
    },
    /// An account that was deleted got an entry, a cursor or a KeyPackage, or has a push target, a number or a decision.
    AccountGone {
        /// Which.
        account: AccountId,
    },
    /// A device is on record as woken and has no target, or was woken for a position beyond its inbox.
    PushWrong {
        /// Whose.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// A phone number and the account that has it do not lead to each other.
    NumberWrong {
        /// Which account.
        account: AccountId,
    },
    /// Something has a time that has not come yet.
    FromTheFuture {
        /// In which family.
        family: Family,
        /// Its time.
        time_ms: u64,
        /// The clock's.
        now_ms: u64,
    },
}

/// What a batch that is about to be written would break.
///
/// # Errors
/// The store cannot be read.
pub fn batch(before: &dyn Store, batch: &Batch, expiry: &Expiry) -> Result<Vec<Violation>, StoreError> {
    let mut after = BTreeMap::new();
    for change in batch.changes() {
        match change {
            Change::Put { family, key, value } => {
                after.insert((family, Bytes::copy_from_slice(key)), Some(Bytes::copy_from_slice(value)))
            }
            Change::Delete { family, key } => after.insert((family, Bytes::copy_from_slice(key)), None),
        };
    }
    let mut audit = Audit { before, after, now_ms: expiry.clock.now_ms(), found: Vec::new() };
    audit.inboxes()?;
    audit.cursors()?;
    audit.sent()?;
    audit.conversations()?;
    audit.messages()?;
    audit.gone()?;
    audit.people()?;
    Ok(audit.found)
}

struct Audit<'a> {
    before: &'a dyn Store,
    after: BTreeMap<(Family, Bytes), Option<Bytes>>,
    now_ms: u64,
    found: Vec<Violation>,
}

impl Audit<'_> {
    /// What the batch sets in a family.
    fn puts(&self, family: Family) -> Vec<(Bytes, Bytes)> {
        let range = (family, Bytes::new())..;
        let of_family = self.after.range(range).take_while(|((of, _), _)| *of == family);
        of_family.filter_map(|((_, key), value)| Some((key.clone(), value.clone()?))).collect()
    }

    /// A record as it was before the batch.
    fn before<R: Record>(&mut self, family: Family, key: &[u8]) -> Result<Option<R>, StoreError> {
        let value = self.before.get(family, key)?;
        Ok(value.and_then(|value| self.decode(family, &value)))
    }

    /// A record as it is after the batch.
    fn after<R: Record>(&mut self, family: Family, key: &[u8]) -> Result<Option<R>, StoreError> {
        match self.after.get(&(family, Bytes::copy_from_slice(key))).cloned() {
            Some(value) => Ok(value.and_then(|value| self.decode(family, &value))),
            None => self.before(family, key),
        }
    }

    fn decode<R: Record>(&mut self, family: Family, value: &Bytes) -> Option<R> {
        let record = R::decode(value).ok();
        if record.is_none() {
            self.found.push(Violation::Unreadable(family));
        }
        record
    }

    fn not_future(&mut self, family: Family, time_ms: u64) {
        if time_ms > self.now_ms {
            self.found.push(Violation::FromTheFuture { family, time_ms, now_ms: self.now_ms });
        }
    }

    /// Positions are dense and sums run, and the head stands at the last one.
    fn inboxes(&mut self) -> Result<(), StoreError> {
        let mut heads: BTreeMap<AccountId, InboxHead> = BTreeMap::new();
        for (entry_key, value) in self.puts(Family::Inbox) {
            let Some((account, seq)) = key::parse_inbox(&entry_key) else { continue };
            let Some(entry) = self.decode::<InboxEntry>(Family::Inbox, &value) else { continue };
            let mut head = match heads.get(&account) {
                Some(head) => *head,
                None => self.before(Family::InboxHead, &key::inbox_head(&account))?.unwrap_or_default(),
            };
            if seq != head.seq + 1 {
                self.found.push(Violation::SeqNotNext { account, next: head.seq + 1, seq });
            }
            let counts = u64::from(matches!(entry.body, InboxBody::Message));
            if entry.count != head.count + counts || entry.bytes_total < head.bytes_total {
                self.found.push(Violation::CountWrong { account, seq });
            }
            (head.seq, head.count, head.bytes_total) = (seq, entry.count, entry.bytes_total);
            heads.insert(account, head);
            self.not_future(Family::Inbox, entry.time_ms());
            if !self.has_body(&entry)? {
                self.found.push(Violation::BodyMissing { account, seq });
            }
        }
        for (head_key, _) in self.puts(Family::InboxHead) {
            let Ok(account) = AccountId::try_from(&*head_key) else { continue };
            let before: InboxHead = self.before(Family::InboxHead, &head_key)?.unwrap_or_default();
            heads.entry(account).or_insert(before);
        }
        for (account, last) in heads {
            let head_key = key::inbox_head(&account);
            let before: InboxHead = self.before(Family::InboxHead, &head_key)?.unwrap_or_default();
            let after: InboxHead = self.after(Family::InboxHead, &head_key)?.unwrap_or_default();
            let is_at_last = after.last() == last.last();
            let rises = after.floor.seq >= before.floor.seq && after.overflow.seq >= before.overflow.seq;
            if !is_at_last || !rises || after.floor.seq > after.seq || after.overflow.seq > after.seq {
                self.found.push(Violation::HeadWrong { account, before, after });
            }
        }
        Ok(())
    }

    fn has_body(&self, entry: &InboxEntry) -> Result<bool, StoreError> {
        let Some((family, key)) = body_key(entry) else { return Ok(true) };
        let key = Bytes::copy_from_slice(&key);
        let is_there = match self.after.get(&(family, key.clone())) {
            Some(value) => value.is_some(),
            None => self.before.get(family, &key)?.is_some(),
        };
        Ok(is_there)
    }

    /// Cursors go up, to the head at most; a counter has one result for ever.
    fn cursors(&mut self) -> Result<(), StoreError> {
        for (cursor_key, value) in self.puts(Family::Cursor) {
            let Some((account, device, tag)) = key::parse_cursor(&cursor_key) else { continue };
            match tag {
                CursorTag::Cursor => (),
                CursorTag::SenderWindow => {
                    self.window(account, device, &cursor_key, &value)?;
                    continue;
                }
                CursorTag::Seen => {
                    if let Some(seen_ms) = self.decode::<u64>(Family::Cursor, &value) {
                        self.not_future(Family::Cursor, seen_ms);
                    }
                    continue;
                }
                CursorTag::Life => {
                    let _: Option<LifeRecord> = self.decode(Family::Cursor, &value);
                    continue;
                }
                CursorTag::LastResort => {
                    let _: Option<()> = self.decode(Family::Cursor, &value);
                    continue;
                }
            }
            let Some(after) = self.decode::<Cursor>(Family::Cursor, &value) else { continue };
            let before: Cursor = self.before(Family::Cursor, &cursor_key)?.unwrap_or_default();
            if after.seq < before.seq || after.count < before.count {
                self.found.push(Violation::CursorWentBack { account, device });
            }
            let head: InboxHead = self.after(Family::InboxHead, &key::inbox_head(&account))?.unwrap_or_default();
            if after.seq > head.seq || after.count > head.count {
                self.found.push(Violation::CursorPastHead { account, device });
            }
        }
        Ok(())
    }

    /// A result has the place of its counter, and stays until one that is further takes it.
    fn sent(&mut self) -> Result<(), StoreError> {
        for (sent_key, value) in self.puts(Family::Sent) {
            let Some((account, device)) = key::parse_sent(&sent_key) else { continue };
            let Some(after) = self.decode::<SentResult>(Family::Sent, &value) else { continue };
            let before: Option<SentResult> = self.before(Family::Sent, &sent_key)?;
            let is_next = before.is_none_or(|before| before.counter < after.counter || before == after);
            if !is_next || key::sent(&account, &device, after.counter).as_slice() != &*sent_key {
                self.found.push(Violation::WindowWrong { account, device });
            }
        }
        Ok(())
    }

    fn window(
        &mut self,
        account: AccountId,
        device: DeviceId,
        window_key: &[u8],
        value: &Bytes,
    ) -> Result<(), StoreError> {
        let Some(after) = self.decode::<SenderWindow>(Family::Cursor, value) else { return Ok(()) };
        let before: SenderWindow = self.before(Family::Cursor, window_key)?.unwrap_or_default();
        let counters: BTreeSet<_> = after.recent.iter().map(|result| result.counter).collect();
        let is_same = before
            .recent
            .iter()
            .all(|was| after.find(was.counter).map_or(was.counter < after.oldest_kept(), |is| is == was));
        if after.highest < before.highest || counters.len() != after.recent.len() || !is_same {
            self.found.push(Violation::WindowWrong { account, device });
        }
        Ok(())
    }

    /// Epochs go up by one, each by one commit.
    fn conversations(&mut self) -> Result<(), StoreError> {
        for (commit_key, value) in self.puts(Family::Commit) {
            let Some((conversation, epoch)) = key::parse_commit(&commit_key) else { continue };
            let Some(commit) = self.decode::<CommitRecord>(Family::Commit, &value) else { continue };
            self.not_future(Family::Commit, commit.time_ms);
            let head_key = key::conversation(&conversation, ConversationTag::Head);
            let head: Option<ConversationHead> = self.after(Family::Conversation, &head_key)?;
            let is_taken = self.before.get(Family::Commit, &commit_key)?.is_some();
            if is_taken || head.is_none_or(|head| head.epoch != epoch + 1) {
                self.found.push(Violation::CommitWrong { conversation, epoch });
            }
        }
        for (head_key, value) in self.puts(Family::Conversation) {
            let Some((id, [tag])) = head_key.split_at_checked(16) else { continue };
            let Ok(conversation) = ConversationId::try_from(id) else { continue };
            if *tag == ConversationTag::Head as u8 || *tag == ConversationTag::Removals as u8 {
                self.removals(conversation)?;
                self.memberships(conversation)?;
            }
            if *tag == ConversationTag::Head as u8 || *tag == ConversationTag::Epoch as u8 {
                self.epoch(conversation)?;
            }
            if *tag != ConversationTag::Head as u8 {
                continue;
            }
            let before: Option<ConversationHead> = self.before(Family::Conversation, &head_key)?;
            let Some(after) = self.decode::<ConversationHead>(Family::Conversation, &value) else { continue };
            let Some(before) = before else { continue };
            let commit_key = Bytes::copy_from_slice(&key::commit(&conversation, before.epoch));
            let is_committed = matches!(self.after.get(&(Family::Commit, commit_key)), Some(Some(_)));
            if after.epoch != before.epoch && (after.epoch != before.epoch + 1 || !is_committed) {
                let (before, after) = (before.epoch, after.epoch);
                self.found.push(Violation::EpochNotNext { conversation, before, after });
            }
        }
        Ok(())
    }

    /// The epoch stands by itself as it stands with the roster; in a store of before, it does not stand by itself.
    fn epoch(&mut self, conversation: ConversationId) -> Result<(), StoreError> {
        let epoch_key = key::conversation(&conversation, ConversationTag::Epoch);
        let head_key = key::conversation(&conversation, ConversationTag::Head);
        let epoch: Option<u64> = self.after(Family::Conversation, &epoch_key)?;
        let head: Option<ConversationHead> = self.after(Family::Conversation, &head_key)?;
        if epoch.is_some_and(|epoch| head.is_none_or(|head| head.epoch != epoch)) {
            self.found.push(Violation::EpochTorn { conversation });
        }
        Ok(())
    }

    /// Who is to be removed has a leaf.
    fn removals(&mut self, conversation: ConversationId) -> Result<(), StoreError> {
        let removals_key = key::conversation(&conversation, ConversationTag::Removals);
        let before: Removals = self.before(Family::Conversation, &removals_key)?.unwrap_or_default();
        let after: Removals = self.after(Family::Conversation, &removals_key)?.unwrap_or_default();
        let head_key = key::conversation(&conversation, ConversationTag::Head);
        let Some(head) = self.after::<ConversationHead>(Family::Conversation, &head_key)? else { return Ok(()) };
        let members: BTreeSet<_> = head.members.iter().map(|member| member.device).collect();
        let leaving = after.leaving.iter().map(|leaving| &leaving.device);
        let has_leaves = after.pending.iter().chain(leaving).all(|device| members.contains(device));
        if !has_leaves || after.floor_epoch < before.floor_epoch || after.floor_epoch > head.epoch {
            self.found.push(Violation::RemovalsWrong { conversation });
        }
        Ok(())
    }

    /// Whoever has a leaf and has not left is a member, and nobody else who was in it before.
    fn memberships(&mut self, conversation: ConversationId) -> Result<(), StoreError> {
        let head_key = key::conversation(&conversation, ConversationTag::Head);
        let removals_key = key::conversation(&conversation, ConversationTag::Removals);
        let before: Option<ConversationHead> = self.before(Family::Conversation, &head_key)?;
        let after: Option<ConversationHead> = self.after(Family::Conversation, &head_key)?;
        let removals: Removals = self.after(Family::Conversation, &removals_key)?.unwrap_or_default();
        let accounts = |head: &ConversationHead| head.members.iter().map(|it| it.account).collect::<BTreeSet<_>>();
        let [before, after] = [before, after].map(|head| head.as_ref().map_or_else(BTreeSet::new, accounts));
        for account in before.union(&after).copied() {
            let expected = after.contains(&account) && !removals.is_leaving(account);
            let membership = key::membership(&account, &conversation);
            if self.after::<()>(Family::Directory, &membership)?.is_some() != expected {
                self.found.push(Violation::MembershipWrong { conversation, account });
            }
        }
        Ok(())
    }

    /// No message or Welcome takes another's place, and each message that is not silent has a number of its own.
    fn messages(&mut self) -> Result<(), StoreError> {
        let mut messages = 0;
        let silent = self.silent();
        for family in [Family::Message, Family::Welcome] {
            for (message_key, _) in self.puts(family) {
                let Ok(id) = MessageId::try_from(&*message_key) else { continue };
                self.not_future(family, id.time_ms());
                if self.before.get(family, &message_key)?.is_some() {
                    self.found.push(Violation::MessageReplaced(id));
                }
                messages += u64::from(family == Family::Message && !silent.contains(&id));
            }
        }
        let mut numbers = Some(0_u64);
        for (number_key, value) in self.puts(Family::Conversation) {
            if number_key.last() != Some(&(ConversationTag::Number as u8)) || number_key.len() != 17 {
                continue;
            }
            let before: u64 = self.before(Family::Conversation, &number_key)?.unwrap_or_default();
            let Some(after) = self.decode::<u64>(Family::Conversation, &value) else { continue };
            numbers = numbers.and_then(|sum| Some(sum + after.checked_sub(before)?));
        }
        if numbers != Some(messages) {
            self.found.push(Violation::NumbersWrong { numbers, messages });
        }
        Ok(())
    }

    /// An account that does not exist any more gets nothing, and has no device.
    fn gone(&mut self) -> Result<(), StoreError> {
        let mut accounts = BTreeSet::new();
        for (entry_key, _) in self.puts(Family::Inbox) {
            accounts.extend(key::parse_inbox(&entry_key).map(|(account, _)| account));
        }
        for (cursor_key, _) in self.puts(Family::Cursor) {
            if let Some((account, _, CursorTag::Cursor)) = key::parse_cursor(&cursor_key) {
                accounts.insert(account);
            }
        }
        for (package_key, _) in self.puts(Family::KeyPackage) {
            accounts.extend(key::parse_key_package(&package_key).map(|(account, _, _)| account));
        }
        for account in accounts {
            // What came before the deletion may stand in one batch with it.
            if self.before.get(Family::Directory, &key::gone(&account))?.is_some() {
                self.found.push(Violation::AccountGone { account });
            }
        }
        Ok(())
    }

    /// The messages that an inbox gets as silent ones.
    fn silent(&self) -> BTreeSet<MessageId> {
        let mut silent = BTreeSet::new();
        for (_, value) in self.puts(Family::Inbox) {
            let Ok(entry) = InboxEntry::decode(&value) else { continue };
            if entry.body == InboxBody::Silent {
                silent.insert(entry.id);
            }
        }
        silent
    }
}

/// Where the content of an entry stands, if it has one of its own.
fn body_key(entry: &InboxEntry) -> Option<(Family, key::Key)> {
    match &entry.body {
        InboxBody::Message | InboxBody::Silent => Some((Family::Message, key::message(&entry.id))),
        InboxBody::Welcome | InboxBody::Leave => Some((Family::Welcome, key::message(&entry.id))),
        InboxBody::Commit { conversation, epoch } => Some((Family::Commit, key::commit(conversation, *epoch))),
        InboxBody::DeviceLog { .. } => None,
    }
}

/// What is broken in a store as it stands: holes between the entries of an inbox, entries past its head or without a
/// body, cursors past it.
///
/// # Errors
/// The store cannot be read.
pub fn whole(store: &dyn Store, expiry: &Expiry) -> Result<Vec<Violation>, StoreError> {
    let mut audit = Audit { before: store, after: BTreeMap::new(), now_ms: expiry.clock.now_ms(), found: Vec::new() };
    // Of each inbox the latest entry, and whether it is a Welcome that outlived the messages of its time: then what
    // followed it may be gone.
    let mut latest: Option<(AccountId, u64, bool, InboxHead)> = None;
    let mut ends = Vec::new();
    for (entry_key, value) in all(store, Family::Inbox)? {
        let Some((account, seq)) = key::parse_inbox(&entry_key) else { continue };
        let Some(entry) = audit.decode::<InboxEntry>(Family::Inbox, &value) else { continue };
        let head = match latest {
            Some((of, before, outlived, head)) if of == account => {
                if seq != before + 1 && !outlived {
                    audit.found.push(Violation::Hole { account, seq: before + 1 });
                }
                head
            }
            _ => {
                ends.extend(latest);
                audit.before(Family::InboxHead, &key::inbox_head(&account))?.unwrap_or_default()
            }
        };
        let outlived = is_expired(entry.time_ms(), expiry.retention_ms, audit.now_ms);
        latest = Some((account, seq, outlived && entry.body == InboxBody::Welcome, head));
        if !expiry.retentions().is_expired(&entry, audit.now_ms) && !audit.has_body(&entry)? {
            audit.found.push(Violation::BodyMissing { account, seq });
        }
    }
    ends.extend(latest);
    for (account, seq, outlived, head) in ends {
        if seq != head.seq && !outlived {
            audit.found.push(Violation::Hole { account, seq: seq + 1 });
        }
    }
    for (cursor_key, value) in all(store, Family::Cursor)? {
        let Some((account, device, CursorTag::Cursor)) = key::parse_cursor(&cursor_key) else { continue };
        let Some(cursor) = audit.decode::<Cursor>(Family::Cursor, &value) else { continue };
        let head: InboxHead = audit.before(Family::InboxHead, &key::inbox_head(&account))?.unwrap_or_default();
        if cursor.seq > head.seq || cursor.count > head.count {
            audit.found.push(Violation::CursorPastHead { account, device });
        }
    }
    audit.people_of_store()?;
    Ok(audit.found)
}

/// Everything in a family.
fn all(store: &dyn Store, family: Family) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let mut entries: Vec<(Bytes, Bytes)> = Vec::new();
    let mut start = Vec::new();
    loop {
        let page = store.scan(family, start.as_slice()..&[u8::MAX; KEY_BYTES_MAX], SCAN_ENTRIES_MAX)?;
        let Some((last, _)) = page.last() else { return Ok(entries) };
        start = last.to_vec();
        start.push(0);
        entries.extend(page);
    }
}

#[cfg(test)]
mod tests;
