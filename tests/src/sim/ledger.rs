//! What the server has written: who was in a group when, when each message was accepted, and how far inboxes go. The model
//! judges by it who must have a message, and who may not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, ConversationKind, DeviceId, MessageId};
use gureum_server::limits::EPOCHS_BEHIND_MAX;
use gureum_server::node::OpenStore;
use gureum_server::store::key::{self, ConversationTag, CursorTag, PushTag};
use gureum_server::store::record::{ConversationHead, Cursor, PushStateRecord};
use gureum_server::store::{
    Batch, Change, Durability, Entry, Expiry, Family, Footprint, Reclaimed, Record, Store, StoreError,
};

/// Records of conversations that are looked at; runs stay far below.
const RECORDS_MAX: usize = 10_000;
/// How often a disk is asked that is to fail some reads.
const READS_MAX: usize = 100;

/// The ledger of one simulation, shared by its server and its model.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Changes that were written so far: what tells before from after.
    order: u64,
    accepted: BTreeMap<MessageId, u64>,
    /// The last position of each inbox, silent messages and commits included.
    last_seqs: BTreeMap<AccountId, u64>,
    /// Of each group, in the order of its epochs.
    rosters: BTreeMap<ConversationId, Vec<Roster>>,
    /// How often a device could be woken anew: it had connected, has taken that for which it was woken, or has another
    /// target.
    rested: BTreeMap<DeviceId, u64>,
    /// For which position devices were woken last that have not rested since.
    woken: BTreeMap<DeviceId, u64>,
    /// How far devices have taken their inboxes.
    taken: BTreeMap<DeviceId, u64>,
    /// Devices that were revoked.
    revoked: BTreeMap<DeviceId, u64>,
}

/// An account goes out of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The group.
    pub conversation: ConversationId,
    /// The account.
    pub account: AccountId,
    /// The change by which it goes: [`Ledger::now`] is less before.
    pub at: u64,
}

/// Who is in a group from one commit to the next.
#[derive(Debug)]
struct Roster {
    since: u64,
    epoch: u64,
    members: BTreeSet<(AccountId, DeviceId)>,
}

impl Roster {
    fn devices_of(&self, account: AccountId) -> usize {
        self.members.iter().filter(|(of, _)| *of == account).count()
    }

    fn has(&self, device: DeviceId) -> bool {
        self.members.iter().any(|(_, member)| *member == device)
    }

    fn accounts(&self) -> BTreeSet<AccountId> {
        self.members.iter().map(|(account, _)| *account).collect()
    }
}

impl Ledger {
    /// Looks at what is written to a store, when it is opened, and at what lies there already.
    #[must_use]
    pub fn watch(&self, open: OpenStore) -> OpenStore {
        let ledger = self.clone();
        Box::new(move |expiry: Expiry| {
            let of = open(expiry)?;
            ledger.look_at(of.as_ref());
            Ok(Arc::new(Watched { ledger, of }))
        })
    }

    /// How often a device could be woken anew: it had connected since it was woken, has taken that for which it was, or has
    /// another target.
    #[must_use]
    pub fn rested(&self, device: DeviceId) -> u64 {
        self.inner().rested.get(&device).copied().unwrap_or(0)
    }

    /// How many changes were written so far.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.inner().order
    }

    /// How many groups there have been.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.inner().rosters.len()
    }

    /// The last position that an inbox has had.
    #[must_use]
    pub fn last_seq(&self, account: AccountId) -> u64 {
        self.inner().last_seqs.get(&account).copied().unwrap_or(0)
    }

    /// Whether a conversation is a group.
    #[must_use]
    pub fn is_group(&self, conversation: ConversationId) -> bool {
        self.inner().rosters.contains_key(&conversation)
    }

    /// Whether an account was in a group when a message was accepted there.
    #[must_use]
    pub fn is_among(&self, conversation: ConversationId, message: MessageId, account: AccountId) -> bool {
        self.inner().roster(conversation, message).is_some_and(|roster| roster.devices_of(account) > 0)
    }

    /// Whether a message has a position in a reader's inbox: the account was in, and it is not that of the writer alone.
    #[must_use]
    pub fn has_place(
        &self,
        conversation: ConversationId,
        message: MessageId,
        (reader, writer): (AccountId, AccountId),
    ) -> bool {
        let least = if reader == writer { 2 } else { 1 };
        self.inner().roster(conversation, message).is_some_and(|roster| roster.devices_of(reader) >= least)
    }

    /// Whether a device was in a group in each epoch for which an accepted message may have been encrypted. Nothing older
    /// than the last commit that has added an account or removed somebody is taken.
    #[must_use]
    pub fn was_in(&self, conversation: ConversationId, message: MessageId, device: DeviceId) -> bool {
        let inner = self.inner();
        let rosters = inner.rosters_until(conversation, message);
        let Some(newest) = rosters.last() else { return false };
        for (index, roster) in rosters.iter().enumerate().rev() {
            if roster.epoch + EPOCHS_BEHIND_MAX < newest.epoch {
                break;
            }
            if !roster.has(device) {
                return false;
            }
            let before = index.checked_sub(1).and_then(|before| rosters.get(before));
            let stays = before.is_some_and(|before| before.accounts() == roster.accounts());
            let is_whole = before.is_some_and(|before| before.members.is_subset(&roster.members));
            if !stays || !is_whole {
                break;
            }
        }
        true
    }

    /// Whether an account has been out of a group after it was in.
    #[must_use]
    pub fn has_left(&self, conversation: ConversationId, account: AccountId) -> bool {
        let inner = self.inner();
        let mut rosters = inner.rosters.get(&conversation).into_iter().flatten();
        rosters.any(|roster| roster.devices_of(account) > 0) && rosters.any(|roster| roster.devices_of(account) == 0)
    }

    /// Whether a message was accepted after a device had been revoked.
    #[must_use]
    pub fn is_after_revocation(&self, message: MessageId, device: DeviceId) -> bool {
        let inner = self.inner();
        let times = inner.revoked.get(&device).zip(inner.accepted.get(&message));
        times.is_some_and(|(revoked, accepted)| revoked < accepted)
    }

    /// A device that had been revoked when a message was accepted in a group, and still had a leaf there.
    #[must_use]
    pub fn revoked_among(&self, conversation: ConversationId, message: MessageId) -> Option<DeviceId> {
        let inner = self.inner();
        let (accepted, roster) = (*inner.accepted.get(&message)?, inner.roster(conversation, message)?);
        let is_revoked = |device: &DeviceId| inner.revoked.get(device).is_some_and(|revoked| *revoked < accepted);
        roster.members.iter().map(|(_, device)| *device).find(is_revoked)
    }

    /// Which accounts have gone out of groups, for each group in order.
    #[must_use]
    pub fn exits(&self) -> Vec<Exit> {
        let (inner, mut exits) = (self.inner(), Vec::new());
        for (conversation, rosters) in &inner.rosters {
            for pair in rosters.windows(2) {
                let [before, after] = pair else { continue };
                let (conversation, at) = (*conversation, after.since);
                let gone: Vec<_> = before.accounts().difference(&after.accounts()).copied().collect();
                exits.extend(gone.into_iter().map(|account| Exit { conversation, account, at }));
            }
        }
        exits
    }

    fn look_at(&self, store: &dyn Store) {
        for _ in 0..READS_MAX {
            let found = store.scan(Family::Conversation, &[]..&[u8::MAX; 24], RECORDS_MAX);
            if let Ok(records) = found {
                let mut inner = self.inner();
                inner.order += 1;
                records.iter().for_each(|(record_key, value)| inner.note_head(record_key, value));
                return;
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The rosters of a group up to the one with which a message was accepted.
    fn rosters_until(&self, conversation: ConversationId, message: MessageId) -> &[Roster] {
        let rosters = self.rosters.get(&conversation).map_or(&[][..], Vec::as_slice);
        let Some(at) = self.accepted.get(&message) else { return &[] };
        let count = rosters.iter().take_while(|roster| roster.since < *at).count();
        &rosters[..count]
    }

    fn roster(&self, conversation: ConversationId, message: MessageId) -> Option<&Roster> {
        self.rosters_until(conversation, message).last()
    }

    /// What a write that has failed holds may be there after the next start. Messages are none the worse for it, since no
    /// id is given twice; what it holds of rosters is looked at then.
    fn note(&mut self, batch: &Batch, is_written: bool) {
        for change in batch.changes() {
            self.order += 1;
            match change {
                Change::Put { family, key: record_key, value } => {
                    self.note_put((family, record_key), value, is_written);
                }
                Change::Delete { family: Family::Cursor, key: record_key } if is_written => {
                    self.note_revoked(record_key);
                }
                Change::Delete { family: Family::Push, key: record_key } => self.note_push(record_key, None),
                Change::Delete { .. } => {}
            }
        }
    }

    /// Whether a write of it fails or not, the server goes by it until its end.
    fn note_push(&mut self, record_key: &[u8], value: Option<&[u8]>) {
        let Some((_, device, PushTag::State)) = key::parse_push(record_key) else { return };
        let state = value.and_then(|value| PushStateRecord::decode(&Bytes::copy_from_slice(value)).ok());
        match state.map_or(0, |state| state.woken_seq) {
            0 => self.rest(device),
            woken_seq => {
                self.woken.insert(device, woken_seq);
                self.rest_if_taken(device);
            }
        }
    }

    fn note_cursor(&mut self, cursor_key: &[u8], value: &[u8]) {
        let Some((_, device, CursorTag::Cursor)) = key::parse_cursor(cursor_key) else { return };
        let Ok(cursor) = Cursor::decode(&Bytes::copy_from_slice(value)) else { return };
        self.taken.insert(device, cursor.seq);
        self.rest_if_taken(device);
    }

    fn rest_if_taken(&mut self, device: DeviceId) {
        if self.woken.get(&device).is_some_and(|woken| self.taken.get(&device).is_some_and(|taken| taken >= woken)) {
            self.rest(device);
        }
    }

    fn rest(&mut self, device: DeviceId) {
        self.woken.remove(&device);
        *self.rested.entry(device).or_default() += 1;
    }

    fn note_put(&mut self, (family, record_key): (Family, &[u8]), value: &[u8], is_written: bool) {
        match family {
            Family::Message => {
                if let Ok(id) = MessageId::try_from(record_key) {
                    self.accepted.insert(id, self.order);
                }
            }
            Family::Conversation if is_written => self.note_head(record_key, value),
            Family::Inbox if is_written => {
                if let Some((account, seq)) = key::parse_inbox(record_key) {
                    let last = self.last_seqs.entry(account).or_default();
                    *last = seq.max(*last);
                }
            }
            Family::Push => self.note_push(record_key, Some(value)),
            Family::Cursor => self.note_cursor(record_key, value),
            _ => {}
        }
    }

    /// A device has no cursor any more, because its account has revoked it: nothing else takes one away.
    fn note_revoked(&mut self, cursor_key: &[u8]) {
        if let Some((_, device, CursorTag::Cursor)) = key::parse_cursor(cursor_key) {
            self.revoked.entry(device).or_insert(self.order);
        }
    }

    fn note_head(&mut self, record_key: &[u8], value: &[u8]) {
        let Some((conversation, ConversationTag::Head)) = key::parse_conversation(record_key) else { return };
        let Ok(head) = ConversationHead::decode(&Bytes::copy_from_slice(value)) else { return };
        if head.kind != ConversationKind::Group {
            return;
        }
        let members = head.members.iter().map(|member| (member.account, member.device)).collect();
        let roster = Roster { since: self.order, epoch: head.epoch, members };
        let rosters = self.rosters.entry(conversation).or_default();
        if rosters.last().is_none_or(|last| last.epoch < roster.epoch) {
            rosters.push(roster);
        }
    }
}

/// A store whose writes are looked at.
struct Watched {
    ledger: Ledger,
    of: Arc<dyn Store>,
}

impl Store for Watched {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        let written = self.of.write(batch, durability);
        self.ledger.inner().note(batch, written.is_ok());
        written
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.of.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.of.get_many(family, keys)
    }

    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.of.scan(family, range, limit)
    }

    fn last(&self, family: Family, range: Range<&[u8]>) -> Result<Option<Entry>, StoreError> {
        self.of.last(family, range)
    }

    fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        self.of.reclaim()
    }

    fn oldest_physical_ms(&self) -> Result<Option<u64>, StoreError> {
        self.of.oldest_physical_ms()
    }

    fn footprint(&self) -> Result<Footprint, StoreError> {
        self.of.footprint()
    }

    fn healthy(&self) -> Result<(), StoreError> {
        self.of.healthy()
    }

    fn checkpoint(&self, to: &Path) -> Result<(), StoreError> {
        self.of.checkpoint(to)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.of.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: ConversationId = ConversationId::from_bytes([9; 16]);

    fn account(number: u8) -> AccountId {
        AccountId::from_bytes([number; 16])
    }

    fn device(number: u8) -> DeviceId {
        DeviceId::from_bytes([number; 16])
    }

    /// Devices 1 and 2 are of account 1, device 3 of account 3. The second of account 1 comes by itself in epoch 3; account 3
    /// comes in epoch 5 and goes in epoch 6. The first of account 1 is revoked before the last message, and goes after it.
    fn ledger() -> Ledger {
        let (first, second, other) = ((account(1), device(1)), (account(1), device(2)), (account(3), device(3)));
        let rosters = [
            (1, 1, vec![first]),
            (10, 3, vec![first, second]),
            (20, 5, vec![first, second, other]),
            (30, 6, vec![first, second]),
            (38, 7, vec![second]),
        ];
        let roster = |(since, epoch, members): (u64, u64, Vec<_>)| Roster {
            since,
            epoch,
            members: members.into_iter().collect(),
        };
        let rosters = rosters.into_iter().map(roster).collect();
        let accepted = [5, 11, 15, 25, 35].map(|at| (MessageId::new(at, 1), at)).into();
        let revoked = [(device(1), 32)].into();
        let inner = Inner { order: 40, accepted, rosters: [(GROUP, rosters)].into(), revoked, ..Inner::default() };
        Ledger(Arc::new(Mutex::new(inner)))
    }

    #[test]
    fn who_is_in_a_group_when_a_message_is_accepted_is_among_its_readers() {
        let ledger = ledger();
        let is_among = |at| ledger.is_among(GROUP, MessageId::new(at, 1), account(3));
        assert_eq!([5, 15, 25, 35].map(is_among), [false, false, true, false]);
        assert!(!ledger.is_among(GROUP, MessageId::new(99, 1), account(1)), "nobody has sent that");
    }

    #[test]
    fn a_device_that_comes_by_itself_must_have_what_cannot_be_of_before() {
        let ledger = ledger();
        let was_in = |at| ledger.was_in(GROUP, MessageId::new(at, 1), device(2));
        assert_eq!([5, 11, 25, 35].map(was_in), [false, false, true, true]);
    }

    #[test]
    fn a_writer_without_another_device_has_no_place_for_its_message() {
        let ledger = ledger();
        let has_place = |at| ledger.has_place(GROUP, MessageId::new(at, 1), (account(1), account(1)));
        assert_eq!([5, 15].map(has_place), [false, true]);
        assert!(ledger.has_place(GROUP, MessageId::new(25, 1), (account(3), account(1))));
    }

    #[test]
    fn what_is_accepted_while_a_revoked_device_has_a_leaf_is_found() {
        let ledger = ledger();
        let among = |at| ledger.revoked_among(GROUP, MessageId::new(at, 1));
        assert_eq!([5, 25, 35].map(among), [None, None, Some(device(1))]);
        let is_after = |at, number| ledger.is_after_revocation(MessageId::new(at, 1), device(number));
        assert!(is_after(35, 1) && !is_after(25, 1) && !is_after(35, 2));
    }

    #[test]
    fn a_cursor_that_is_taken_away_is_a_device_that_is_revoked() {
        let (ledger, id) = (ledger(), MessageId::new(50, 1));
        let mut batch = Batch::new();
        batch.delete(Family::Cursor, key::cursor(&account(1), &device(2), CursorTag::Seen));
        batch.put(Family::Message, key::message(&id), [0]);
        ledger.inner().note(&batch, true);
        assert!(!ledger.is_after_revocation(id, device(2)), "it was not seen for long");
        let mut batch = Batch::new();
        batch.delete(Family::Cursor, key::cursor(&account(1), &device(2), CursorTag::Cursor));
        batch.put(Family::Message, key::message(&id), [0]);
        ledger.inner().note(&batch, false);
        assert!(!ledger.is_after_revocation(id, device(2)), "nothing was written");
        ledger.inner().note(&batch, true);
        assert!(ledger.is_after_revocation(id, device(2)));
    }

    #[test]
    fn an_account_goes_out_with_its_last_device_alone() {
        assert_eq!(ledger().exits(), [Exit { conversation: GROUP, account: account(3), at: 30 }]);
    }

    #[test]
    fn who_was_in_and_is_not_has_left() {
        let ledger = ledger();
        assert_eq!([1, 3, 4].map(|number| ledger.has_left(GROUP, account(number))), [false, true, false]);
    }
}
