//! State that the planner reads before and writes after each batch, kept between batches.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use gureum_proto::{AccountId, ConversationId, DeviceId};

use crate::limits::{PLANNER_CACHE_ENTRIES_MAX, PLANNER_CACHE_LEAVES_MAX, PLANNER_CACHE_LOOKS_MAX};
use crate::store::key::{self, ConversationTag, CursorTag};
use crate::store::record::{ConversationHead, Cursor, InboxHead, LifeRecord, Removals, SenderWindow, SentResult};
use crate::store::{Batch, Family, Store, StoreError, decode, read, read_windows};

/// A conversation, as far as sending needs it.
#[derive(Debug, Clone)]
pub(super) struct Conversation {
    pub(super) head: ConversationHead,
    /// The member accounts, ascending, each with the number of its devices.
    pub(super) accounts: Vec<(AccountId, usize)>,
    devices: HashMap<DeviceId, AccountId>,
    pub(super) removals: Removals,
    pub(super) last_number: u64,
    /// Those of the accounts that do not exist any more.
    pub(super) gone: Vec<AccountId>,
}

impl Conversation {
    fn new(head: ConversationHead, removals: Removals, last_number: u64) -> Self {
        let mut accounts = BTreeMap::new();
        for member in &head.members {
            *accounts.entry(member.account).or_default() += 1;
        }
        let devices = head.members.iter().map(|member| (member.device, member.account)).collect();
        Self { head, accounts: accounts.into_iter().collect(), devices, removals, last_number, gone: Vec::new() }
    }

    pub(super) fn has(&self, account: AccountId, device: DeviceId) -> bool {
        self.devices.get(&device) == Some(&account)
    }

    /// Whether nothing more is taken from a device, although it has a leaf: it is revoked, or its account has left or does
    /// not exist any more.
    pub(super) fn is_going(&self, account: AccountId, device: DeviceId) -> bool {
        self.removals.pending.contains(&device) || self.removals.is_leaving(account) || self.is_gone(account)
    }

    /// Whether an account does not exist any more: it gets nothing.
    pub(super) fn is_gone(&self, account: AccountId) -> bool {
        self.gone.contains(&account)
    }

    /// Of these accounts, those that are in it.
    fn with_gone(mut self, gone: Vec<AccountId>) -> Self {
        self.gone = gone;
        let accounts = &self.accounts;
        self.gone.retain(|gone| accounts.iter().any(|(account, _)| account == gone));
        self
    }
}

/// How far the devices of an account have taken its inbox.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursors {
    pub(super) devices: Vec<(DeviceId, Cursor)>,
}

impl Cursors {
    pub(super) fn floor(&self) -> Option<Cursor> {
        self.devices.iter().map(|(_, cursor)| *cursor).min_by_key(|cursor| cursor.seq)
    }
}

/// The latest sends of a device.
#[derive(Debug)]
struct Window {
    sent: SenderWindow,
    /// The store has a part of it as one record, in the form of before.
    is_whole: bool,
}

/// Everything cached. A full map forgets one for each that comes: what it holds can be read again.
#[derive(Debug, Default)]
pub(super) struct Caches {
    heads: Cache<AccountId, InboxHead>,
    windows: Cache<(AccountId, DeviceId), Window>,
    lives: Cache<(AccountId, DeviceId), LifeRecord>,
    conversations: Cache<ConversationId, Conversation>,
    /// Leaves of the conversations that are cached.
    leaves: usize,
    cursors: Cache<AccountId, Cursors>,
    /// About how many others an account has decided something.
    relations: Cache<AccountId, usize>,
    touched_cursors: Vec<(AccountId, DeviceId)>,
    /// What the windows have got since the last flush.
    results: Vec<(AccountId, DeviceId, SentResult)>,
    /// Whose windows were written as a whole, and have got all their results one by one since the last flush.
    replaced: Vec<(AccountId, DeviceId)>,
    /// What the operation under way has changed, in order.
    undo: Vec<Undo>,
}

/// A value as it was before an operation.
#[derive(Debug)]
enum Undo {
    Head(AccountId, InboxHead),
    Number(ConversationId, u64),
    Removals(ConversationId, Removals),
    Conversation(ConversationId, Box<Conversation>),
}

impl Caches {
    /// An operation begins: what was changed before it stays.
    pub(super) fn begin(&mut self) {
        self.undo.clear();
    }

    /// Takes back what the operation has changed. A cursor, a window, a life or a count of relations is changed by the last
    /// step of one, which cannot fail any more.
    pub(super) fn take_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Head(account, before) => {
                    if let Some(head) = self.heads.find(&account) {
                        *head = before;
                    }
                }
                Undo::Number(id, before) => {
                    if let Some(conversation) = self.conversations.find(&id) {
                        conversation.last_number = before;
                    }
                }
                Undo::Removals(id, before) => {
                    if let Some(conversation) = self.conversations.find(&id) {
                        conversation.removals = before;
                    }
                }
                Undo::Conversation(id, before) => {
                    self.swap_conversation(id, *before);
                }
            }
        }
    }

    pub(super) fn head(&mut self, store: &dyn Store, account: AccountId) -> Result<InboxHead, StoreError> {
        self.heads.load(account, || read_head(store, account)).copied()
    }

    /// A head that is about to be changed, and to be written. Once for each recipient of a message: one look.
    pub(super) fn change_head(&mut self, store: &dyn Store, account: AccountId) -> Result<&mut InboxHead, StoreError> {
        let head = self.heads.change(account, || read_head(store, account))?;
        self.undo.push(Undo::Head(account, *head));
        Ok(head)
    }

    pub(super) fn window(
        &mut self,
        store: &dyn Store,
        account: AccountId,
        device: DeviceId,
    ) -> Result<&mut SenderWindow, StoreError> {
        self.windows.load((account, device), || read_sends(store, account, device)).map(|window| &mut window.sent)
    }

    /// Adds a result to the same, to be written by itself: a whole window has 2 KB. One that was written as a whole gives way
    /// to its results.
    pub(super) fn remember(
        &mut self,
        store: &dyn Store,
        account: AccountId,
        device: DeviceId,
        result: SentResult,
    ) -> Result<(), StoreError> {
        let window = self.windows.change((account, device), || read_sends(store, account, device))?;
        window.sent.record(result);
        if std::mem::take(&mut window.is_whole) {
            self.results.extend(window.sent.recent.iter().map(|result| (account, device, *result)));
            self.replaced.push((account, device));
        } else {
            self.results.push((account, device, result));
        }
        Ok(())
    }

    pub(super) fn life(
        &mut self,
        store: &dyn Store,
        account: AccountId,
        device: DeviceId,
    ) -> Result<&mut LifeRecord, StoreError> {
        self.lives.load((account, device), || {
            let key = key::cursor(&account, &device, CursorTag::Life);
            Ok(read(store, Family::Cursor, key.as_ref())?.unwrap_or_default())
        })
    }

    pub(super) fn touch_life(&mut self, account: AccountId, device: DeviceId) {
        self.lives.touch((account, device));
    }

    pub(super) fn conversation(
        &mut self,
        store: &dyn Store,
        conversation: ConversationId,
    ) -> Result<Option<&mut Conversation>, StoreError> {
        if self.conversations.find(&conversation).is_none() {
            let roster = key::conversation(&conversation, ConversationTag::Head);
            let Some(head) = read(store, Family::Conversation, roster.as_ref())? else { return Ok(None) };
            let removals = key::conversation(&conversation, ConversationTag::Removals);
            let removals = read(store, Family::Conversation, removals.as_ref())?.unwrap_or_default();
            let number = key::conversation(&conversation, ConversationTag::Number);
            let last = read(store, Family::Conversation, number.as_ref())?.unwrap_or_default();
            let new = Conversation::new(head, removals, last);
            let gone = gone_among(store, &new.accounts)?;
            let new = new.with_gone(gone);
            self.make_room(new.head.members.len());
            return Ok(Some(self.conversations.insert(conversation, new)));
        }
        Ok(self.conversations.find(&conversation))
    }

    /// Makes room for a conversation of so many leaves, by forgetting others. Each has a leaf at least, so that this takes no
    /// more steps than a small conversation does, and one for each leaf that was read.
    fn make_room(&mut self, leaves: usize) {
        for look in 0..PLANNER_CACHE_LOOKS_MAX.saturating_add(leaves) {
            if !self.conversations.is_full() && self.leaves.saturating_add(leaves) <= PLANNER_CACHE_LEAVES_MAX {
                break;
            }
            let is_patient = look + 2 < PLANNER_CACHE_LOOKS_MAX;
            if let Some(forgotten) = self.conversations.forget_one(is_patient) {
                self.leaves = self.leaves.saturating_sub(forgotten.head.members.len());
            }
        }
        self.leaves = self.leaves.saturating_add(leaves);
    }

    /// Puts a conversation into the place of what is cached of it; the answer is what was there.
    fn swap_conversation(&mut self, id: ConversationId, new: Conversation) -> Option<Conversation> {
        let leaves = new.head.members.len();
        let before = std::mem::replace(self.conversations.find(&id)?, new);
        self.leaves = self.leaves.saturating_sub(before.head.members.len()).saturating_add(leaves);
        Some(before)
    }

    /// Gives a conversation that was just looked at its next number.
    pub(super) fn give_number(&mut self, id: ConversationId, number: u64) {
        if let Some(conversation) = self.conversations.find(&id) {
            self.undo.push(Undo::Number(id, std::mem::replace(&mut conversation.last_number, number)));
            self.conversations.touch(id);
        }
    }

    /// What is to be removed has changed.
    pub(super) fn replace_removals(&mut self, id: ConversationId, removals: Removals) {
        if let Some(conversation) = self.conversations.find(&id) {
            self.undo.push(Undo::Removals(id, std::mem::replace(&mut conversation.removals, removals)));
        }
    }

    /// The roster or epoch has changed; the numbers go on.
    pub(super) fn replace_head(&mut self, id: ConversationId, head: &ConversationHead) {
        if let Some(conversation) = self.conversations.find(&id) {
            let new = Conversation::new(head.clone(), conversation.removals.clone(), conversation.last_number)
                .with_gone(conversation.gone.clone());
            let before = self.swap_conversation(id, new);
            self.undo.extend(before.map(|before| Undo::Conversation(id, Box::new(before))));
        }
    }

    /// An account does not exist any more.
    pub(super) fn note_gone(&mut self, id: ConversationId, account: AccountId) {
        if let Some(conversation) = self.conversations.find(&id) {
            let mut gone = conversation.gone.clone();
            gone.push(account);
            let new = conversation.clone().with_gone(gone);
            let before = self.swap_conversation(id, new);
            self.undo.extend(before.map(|before| Undo::Conversation(id, Box::new(before))));
        }
    }

    pub(super) fn cursors(&mut self, store: &dyn Store, account: AccountId) -> Result<&mut Cursors, StoreError> {
        self.cursors.load(account, || {
            let range = key::cursors(&account);
            let mut cursors = Cursors::default();
            for (key, value) in store.scan(Family::Cursor, range.as_range(), usize::MAX)? {
                if let Some((_, device, CursorTag::Cursor)) = key::parse_cursor(&key) {
                    cursors.devices.push((device, decode(Family::Cursor, &value)?));
                }
            }
            Ok(cursors)
        })
    }

    pub(super) fn touch_cursor(&mut self, account: AccountId, device: DeviceId) {
        self.cursors.touch(account);
        self.touched_cursors.push((account, device));
    }

    /// Devices of an account have come and gone. What the batch holds of the others stays.
    pub(super) fn change_devices(&mut self, account: AccountId, added: Vec<(DeviceId, Cursor)>, revoked: &[DeviceId]) {
        if let Some(cursors) = self.cursors.find(&account) {
            cursors.devices.retain(|(device, _)| !revoked.contains(device));
            cursors.devices.extend(added);
        }
    }

    /// About how many others an account has decided something: counted once, and kept by who changes that.
    pub(super) fn relations(&mut self, store: &dyn Store, account: AccountId) -> Result<&mut usize, StoreError> {
        self.relations.load(account, || {
            let range = key::relations(&account);
            Ok(store.scan(Family::Directory, range.as_range(), usize::MAX)?.len())
        })
    }

    /// An account does not exist any more: nothing of its devices is to be written again.
    pub(super) fn forget_account(&mut self, account: AccountId) {
        self.windows.forget(|(of, _)| *of == account);
        self.results.retain(|(of, ..)| *of != account);
        self.replaced.retain(|(of, _)| *of != account);
        self.lives.forget(|(of, _)| *of == account);
        self.cursors.forget(|of| *of == account);
        self.relations.forget(|of| *of == account);
    }

    /// Writes what was touched since the last call.
    pub(super) fn flush(&mut self, batch: &mut Batch) {
        self.heads.flush(|account, head| batch.put_record(Family::InboxHead, key::inbox_head(account), head));
        for (account, device, result) in self.results.drain(..) {
            batch.put_record(Family::Sent, key::sent(&account, &device, result.counter), &result);
        }
        for (account, device) in self.replaced.drain(..) {
            batch.delete(Family::Cursor, key::cursor(&account, &device, CursorTag::SenderWindow));
        }
        self.windows.flush(|_, _| ());
        self.lives.flush(|(account, device), life| {
            batch.put_record(Family::Cursor, key::cursor(account, device, CursorTag::Life), life);
        });
        self.conversations.flush(|id, conversation| {
            let key = key::conversation(id, ConversationTag::Number);
            batch.put_record(Family::Conversation, key, &conversation.last_number);
        });
        // A device may have acked more than once. Each is not looked for among all others: a batch takes a thousand acks.
        self.touched_cursors.sort_unstable();
        self.touched_cursors.dedup();
        for (account, device) in self.touched_cursors.drain(..) {
            let cursor = self.cursors.find(&account).and_then(|all| all.devices.iter().find(|(id, _)| *id == device));
            if let Some((_, cursor)) = cursor {
                batch.put_record(Family::Cursor, key::cursor(&account, &device, CursorTag::Cursor), cursor);
            }
        }
        self.cursors.flush(|_, _| ());
    }
}

fn read_head(store: &dyn Store, account: AccountId) -> Result<InboxHead, StoreError> {
    Ok(read(store, Family::InboxHead, key::inbox_head(&account).as_ref())?.unwrap_or_default())
}

fn read_sends(store: &dyn Store, account: AccountId, device: DeviceId) -> Result<Window, StoreError> {
    read_windows(store, account, device).map(|(sent, is_whole)| Window { sent, is_whole })
}

/// Those of some accounts that do not exist any more.
fn gone_among(store: &dyn Store, accounts: &[(AccountId, usize)]) -> Result<Vec<AccountId>, StoreError> {
    let mut gone = Vec::new();
    for (account, _) in accounts {
        if store.get(Family::Directory, key::gone(account).as_ref())?.is_some() {
            gone.push(*account);
        }
    }
    Ok(gone)
}

/// A bounded map with a list of what has changed. What it forgets is chosen as the hand of a clock does it: it goes through the
/// entries in the order in which they came, and spares once what was used since it last came by. A use costs no more than a
/// mark, and no batch pays for more than the few entries that it adds.
#[derive(Debug)]
struct Cache<K, V> {
    entries: HashMap<K, Cached<V>>,
    /// The key of each entry once; the hand is at the front.
    round: VecDeque<K>,
    touched: Vec<K>,
}

#[derive(Debug)]
struct Cached<V> {
    value: V,
    /// It differs from what the store has.
    is_touched: bool,
    /// The hand has not come by since.
    is_used: bool,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), round: VecDeque::new(), touched: Vec::new() }
    }
}

impl<K: Hash + Eq + Copy, V> Cache<K, V> {
    fn load(&mut self, key: K, read: impl FnOnce() -> Result<V, StoreError>) -> Result<&mut V, StoreError> {
        self.make_room_for(&key);
        load(&mut self.entries, &mut self.round, key, read).map(|cached| &mut cached.value)
    }

    /// A value that is about to be changed: the next flush writes it.
    fn change(&mut self, key: K, read: impl FnOnce() -> Result<V, StoreError>) -> Result<&mut V, StoreError> {
        self.make_room_for(&key);
        let cached = load(&mut self.entries, &mut self.round, key, read)?;
        if !std::mem::replace(&mut cached.is_touched, true) {
            self.touched.push(key);
        }
        Ok(&mut cached.value)
    }

    fn find(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|cached| {
            cached.is_used = true;
            &mut cached.value
        })
    }

    /// Adds what is not there, whether or not there is room.
    fn insert(&mut self, key: K, value: V) -> &mut V {
        let cached = Cached { value, is_touched: false, is_used: false };
        match self.entries.entry(key) {
            Entry::Occupied(entry) => {
                let there = entry.into_mut();
                *there = cached;
                &mut there.value
            }
            Entry::Vacant(entry) => {
                self.round.push_back(key);
                &mut entry.insert(cached).value
            }
        }
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= PLANNER_CACHE_ENTRIES_MAX
    }

    fn make_room_for(&mut self, key: &K) {
        if self.is_full() && !self.entries.contains_key(key) {
            for look in 0..PLANNER_CACHE_LOOKS_MAX {
                self.forget_one(look + 2 < PLANNER_CACHE_LOOKS_MAX);
                if !self.is_full() {
                    break;
                }
            }
        }
    }

    /// Forgets the entry that the hand is at, unless it is spared: while it is patient, what was used; and always what has been
    /// touched until it is flushed, so that nothing unwritten is read back from the disk.
    fn forget_one(&mut self, is_patient: bool) -> Option<V> {
        let key = self.round.pop_front()?;
        let Entry::Occupied(mut entry) = self.entries.entry(key) else { return None };
        let is_used = std::mem::take(&mut entry.get_mut().is_used);
        if entry.get().is_touched || (is_used && is_patient) {
            self.round.push_back(key);
            return None;
        }
        Some(entry.remove().value)
    }

    /// Forgets some entries, whether or not they are written.
    fn forget(&mut self, is_meant: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| !is_meant(key));
        self.round.retain(|key| !is_meant(key));
    }

    fn touch(&mut self, key: K) {
        if let Some(cached) = self.entries.get_mut(&key)
            && !std::mem::replace(&mut cached.is_touched, true)
        {
            self.touched.push(key);
        }
    }

    fn flush(&mut self, mut write: impl FnMut(&K, &V)) {
        for key in self.touched.drain(..) {
            if let Some(cached) = self.entries.get_mut(&key) {
                cached.is_touched = false;
                write(&key, &cached.value);
            }
        }
    }
}

/// What a key has in a map, read if it is not there.
fn load<'a, K: Hash + Eq + Copy, V>(
    entries: &'a mut HashMap<K, Cached<V>>,
    round: &mut VecDeque<K>,
    key: K,
    read: impl FnOnce() -> Result<V, StoreError>,
) -> Result<&'a mut Cached<V>, StoreError> {
    match entries.entry(key) {
        Entry::Occupied(entry) => {
            let cached = entry.into_mut();
            cached.is_used = true;
            Ok(cached)
        }
        Entry::Vacant(entry) => {
            let cached = entry.insert(Cached { value: read()?, is_touched: false, is_used: false });
            round.push_back(key);
            Ok(cached)
        }
    }
}

#[cfg(test)]
mod tests;
