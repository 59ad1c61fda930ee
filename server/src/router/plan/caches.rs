//! State that the planner reads before and writes after each batch, kept between batches.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use gureum_proto::{AccountId, ConversationId, DeviceId};

use crate::limits::{PLANNER_CACHE_ENTRIES_MAX, PLANNER_CACHE_LEAVES_MAX};
use crate::store::key::{self, ConversationTag, CursorTag};
use crate::store::record::{ConversationHead, Cursor, InboxHead, LifeRecord, Removals, SenderWindow, SentResult};
use crate::store::{Batch, Family, Store, StoreError, decode, read, read_window};

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

/// Everything cached. Each map forgets all when it is full: what it holds can be read again.
#[derive(Debug, Default)]
pub(super) struct Caches {
    heads: Cache<AccountId, InboxHead>,
    windows: Cache<(AccountId, DeviceId), SenderWindow>,
    lives: Cache<(AccountId, DeviceId), LifeRecord>,
    conversations: Cache<ConversationId, Conversation>,
    /// Leaves of the conversations that are cached, at most: not less than are there.
    leaves: usize,
    cursors: Cache<AccountId, Cursors>,
    /// About how many others an account has decided something.
    relations: Cache<AccountId, usize>,
    touched_cursors: Vec<(AccountId, DeviceId)>,
    /// What the windows have got since the last flush.
    results: Vec<(AccountId, DeviceId, SentResult)>,
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
                    if let Some(conversation) = self.conversations.find(&id) {
                        *conversation = *before;
                    }
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
        self.windows.load((account, device), || read_window(store, account, device))
    }

    /// Adds a result to the same, to be written by itself: a whole window has 2 KB.
    pub(super) fn remember(
        &mut self,
        store: &dyn Store,
        account: AccountId,
        device: DeviceId,
        result: SentResult,
    ) -> Result<(), StoreError> {
        self.windows.change((account, device), || read_window(store, account, device))?.record(result);
        self.results.push((account, device, result));
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
            self.conversations.insert(conversation, new);
        }
        Ok(self.conversations.find(&conversation))
    }

    fn make_room(&mut self, leaves: usize) {
        if self.leaves.saturating_add(leaves) > PLANNER_CACHE_LEAVES_MAX {
            self.conversations.forget_untouched();
            self.leaves = self.conversations.values().map(|conversation| conversation.head.members.len()).sum();
        }
        self.leaves = self.leaves.saturating_add(leaves);
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
            self.leaves = self.leaves.saturating_add(new.head.members.len());
            self.undo.push(Undo::Conversation(id, Box::new(std::mem::replace(conversation, new))));
        }
    }

    /// An account does not exist any more.
    pub(super) fn note_gone(&mut self, id: ConversationId, account: AccountId) {
        if let Some(conversation) = self.conversations.find(&id) {
            let mut gone = conversation.gone.clone();
            gone.push(account);
            let new = conversation.clone().with_gone(gone);
            self.undo.push(Undo::Conversation(id, Box::new(std::mem::replace(conversation, new))));
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
        self.windows.entries.retain(|(of, _), _| *of != account);
        self.results.retain(|(of, ..)| *of != account);
        self.lives.entries.retain(|(of, _), _| *of != account);
        self.cursors.entries.remove(&account);
        self.relations.entries.remove(&account);
    }

    /// Writes what was touched since the last call.
    pub(super) fn flush(&mut self, batch: &mut Batch) {
        self.heads.flush(|account, head| batch.put_record(Family::InboxHead, key::inbox_head(account), head));
        for (account, device, result) in self.results.drain(..) {
            batch.put_record(Family::Sent, key::sent(&account, &device, result.counter), &result);
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

/// A bounded map with a list of what has changed.
#[derive(Debug)]
struct Cache<K, V> {
    entries: HashMap<K, (V, bool)>,
    touched: Vec<K>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), touched: Vec::new() }
    }
}

impl<K: Hash + Eq + Copy, V> Cache<K, V> {
    fn load(&mut self, key: K, read: impl FnOnce() -> Result<V, StoreError>) -> Result<&mut V, StoreError> {
        self.make_room_for(&key);
        load(&mut self.entries, key, read).map(|(value, _)| value)
    }

    /// A value that is about to be changed: the next flush writes it.
    fn change(&mut self, key: K, read: impl FnOnce() -> Result<V, StoreError>) -> Result<&mut V, StoreError> {
        self.make_room_for(&key);
        let (value, touched) = load(&mut self.entries, key, read)?;
        if !std::mem::replace(touched, true) {
            self.touched.push(key);
        }
        Ok(value)
    }

    fn find(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    fn insert(&mut self, key: K, value: V) {
        self.make_room_for(&key);
        self.entries.insert(key, (value, false));
    }

    /// What has been touched stays until it is flushed, so that nothing unwritten is read back from the disk.
    fn make_room_for(&mut self, key: &K) {
        if self.entries.len() >= PLANNER_CACHE_ENTRIES_MAX && !self.entries.contains_key(key) {
            self.forget_untouched();
        }
    }

    fn forget_untouched(&mut self) {
        self.entries.retain(|_, (_, touched)| *touched);
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|(value, _)| value)
    }

    fn touch(&mut self, key: K) {
        if let Some((_, touched)) = self.entries.get_mut(&key)
            && !std::mem::replace(touched, true)
        {
            self.touched.push(key);
        }
    }

    fn flush(&mut self, mut write: impl FnMut(&K, &V)) {
        for key in self.touched.drain(..) {
            if let Some((value, touched)) = self.entries.get_mut(&key) {
                *touched = false;
                write(&key, value);
            }
        }
    }
}

/// What a key has in a map, read if it is not there, with whether it has been touched.
fn load<K: Hash + Eq, V>(
    entries: &mut HashMap<K, (V, bool)>,
    key: K,
    read: impl FnOnce() -> Result<V, StoreError>,
) -> Result<(&mut V, &mut bool), StoreError> {
    let (value, touched) = match entries.entry(key) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert((read()?, false)),
    };
    Ok((value, touched))
}
