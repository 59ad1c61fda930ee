//! Who exists: accounts, their device logs, and what a session needs to know of a device. Reads only; blocks for the
//! disk.

mod gone;
mod phone;
mod recovery;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gureum_proto::limits::LOG_ENTRIES_MAX;
use gureum_proto::{
    AccountFound, AccountId, ConversationId, ConversationState, DeviceId, DeviceLog, DeviceState, FindBy, Handle,
    MemberLog, PhoneNotice, Position, epochs_digest,
};

use crate::limits::{ACCOUNT_CONVERSATIONS_MAX, KEY_PACKAGES_STORED_MAX, LOG_CACHE_ENTRIES_MAX, LOG_PAGE_BYTES};
use crate::session::DeviceFacts;
use crate::store::key::{self, ConversationTag, CursorTag, KeyPackageKind};
use crate::store::record::{ConversationHead, Cursor, InboxHead, LifeRecord, PushTargetRecord, Removals, SenderWindow};
use crate::store::{Family, Record, Store, StoreError, decode, read, read_window};
pub(crate) use gone::drop_inboxes_of_gone;
pub(crate) use recovery::{RECOVERY_INDEX, index_recovery_keys};

/// Reads what the router has written.
pub(crate) struct Directory {
    store: Arc<dyn Store>,
    logs: Mutex<HashMap<AccountId, Arc<DeviceLog>>>,
}

impl Directory {
    /// A directory over a store.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, logs: Mutex::default() }
    }

    /// What a session needs to know of a device; `None` when there is no such device.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn facts(&self, account: AccountId, device: DeviceId) -> Result<Option<DeviceFacts>, StoreError> {
        let Some(log) = self.log(account)? else { return Ok(None) };
        let Some(logged) = log.device(device) else { return Ok(None) };
        let head: InboxHead = self.read(Family::InboxHead, key::inbox_head(&account))?.unwrap_or_default();
        let cursor_key = key::cursor(&account, &device, CursorTag::Cursor);
        let cursor: Cursor = self.read(Family::Cursor, cursor_key)?.unwrap_or_default();
        let epochs = self.epochs(account)?;
        Ok(Some(DeviceFacts {
            proof_key: *logged.keys.proof(),
            is_revoked: logged.revoked_at.is_some(),
            is_gone: self.is_gone(account)?,
            log_entries: log.length(),
            head: Position { seq: head.seq, count: head.count },
            cursor: Position { seq: cursor.seq, count: cursor.count },
            accepted_counter: self.window(account, device)?.highest,
            life: self.life(account, device)?,
            key_packages_left: self.key_packages_left(account, device)?,
            last_resort_used: self.last_resort_used(account, device)?,
            epochs_digest: epochs_digest(epochs),
            push_digest: self.push_target(account, device)?.map(|target| target.digest),
            phone: self.phone_notice(account)?,
        }))
    }

    /// What an account's devices are to be told of its phone number.
    fn phone_notice(&self, account: AccountId) -> Result<PhoneNotice, StoreError> {
        Ok(self.phone(account)?.map(|phone| phone.notice).unwrap_or_default())
    }

    /// Where a device's wake-ups go, sealed; `None`: nowhere.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn push_target(
        &self,
        account: AccountId,
        device: DeviceId,
    ) -> Result<Option<PushTargetRecord>, StoreError> {
        self.read(Family::Push, key::push_target(&account, &device))
    }

    /// Whether a device's last resort was given out, or there is none.
    fn last_resort_used(&self, account: AccountId, device: DeviceId) -> Result<bool, StoreError> {
        let given_out = key::cursor(&account, &device, CursorTag::LastResort);
        if self.read::<()>(Family::Cursor, given_out)?.is_some() {
            return Ok(true);
        }
        let range = key::key_packages(&account, &device, KeyPackageKind::LastResort);
        Ok(self.store.scan(Family::KeyPackage, range.as_range(), 1)?.is_empty())
    }

    /// An account's device log; `None` when there is no such account.
    ///
    /// # Errors
    /// When the store cannot be read, or holds a log that does not verify.
    pub(crate) fn log(&self, account: AccountId) -> Result<Option<Arc<DeviceLog>>, StoreError> {
        let cached = self.logs.lock().expect("no code panics while it holds the logs").get(&account).cloned();
        let mut log = match cached {
            // A log only grows: what is cached is whole if nothing stands behind its last entry.
            Some(log) if self.entry(account, log.length())?.is_none() => return Ok(Some(log)),
            Some(log) => DeviceLog::clone(&log),
            None => match self.entry(account, 0)? {
                Some(root) => DeviceLog::from_root(&root).map_err(corrupt)?,
                None => return Ok(None),
            },
        };
        while log.length() < LOG_ENTRIES_MAX
            && let Some(entry) = self.entry(account, log.length())?
        {
            log.append(&entry).map_err(corrupt)?;
        }
        let log = Arc::new(log);
        let mut logs = self.logs.lock().expect("no code panics while it holds the logs");
        if logs.len() >= LOG_CACHE_ENTRIES_MAX {
            logs.clear();
        }
        logs.insert(account, Arc::clone(&log));
        Ok(Some(log))
    }

    /// An account with its log from an entry on; `None` when there is no such account. One that was deleted is found by
    /// its id alone: groups that it was in are judged by its log.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn find(&self, by: &FindBy, log_from: u64) -> Result<Option<AccountFound>, StoreError> {
        let account = match by {
            FindBy::Account(account) => Some(*account),
            FindBy::Handle(handle) => match self.read::<AccountId>(Family::Directory, key::handle(handle.as_str()))? {
                Some(account) if self.is_gone(account)? => None,
                found => found,
            },
            // Numbers stand hashed: whoever has the key for that looks them up, and asks by the account.
            FindBy::Phone(_) => None,
        };
        let Some(account) = account else { return Ok(None) };
        let Some(handle) = self.handle(account)? else { return Ok(None) };
        let log_entries = self.log_page(account, log_from)?;
        let log_length = self.log(account)?.map_or(0, |log| log.length());
        Ok(Some(AccountFound { account, handle, log_entries, log_length }))
    }

    /// Whether an account was deleted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn is_gone(&self, account: AccountId) -> Result<bool, StoreError> {
        Ok(self.store.get(Family::Directory, key::gone(&account).as_ref())?.is_some())
    }

    /// The handle of an account; `None` when there is no such account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn handle(&self, account: AccountId) -> Result<Option<Handle>, StoreError> {
        let handle = self.read::<String>(Family::Directory, key::handle_of(&account))?;
        handle.map(|handle| handle.parse().map_err(|_| corrupt("handle"))).transpose()
    }

    /// The account that a recovery key brings back, by its public half.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn by_recovery_key(&self, recovery_key: &[u8; 32]) -> Result<Option<AccountId>, StoreError> {
        self.read(Family::Directory, key::recovery(recovery_key))
    }

    /// The newest entry of a log.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn last_entry(&self, log: &DeviceLog) -> Result<Option<Bytes>, StoreError> {
        self.entry(log.account(), log.length().saturating_sub(1))
    }

    /// What an account is told of one of its devices.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn device_state(&self, account: AccountId, device: DeviceId) -> Result<DeviceState, StoreError> {
        let seen = key::cursor(&account, &device, CursorTag::Seen);
        let last_seen_ms = self.read(Family::Cursor, seen)?.unwrap_or_default();
        Ok(DeviceState { device, last_seen_ms, key_packages_left: self.key_packages_left(account, device)? })
    }

    fn key_packages_left(&self, account: AccountId, device: DeviceId) -> Result<u32, StoreError> {
        let packages = key::key_packages(&account, &device, KeyPackageKind::OneTime);
        let left = self.store.scan(Family::KeyPackage, packages.as_range(), KEY_PACKAGES_STORED_MAX)?.len();
        Ok(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// An account's handle and its log from the first entry on, as much of it as a page holds; `None` when there is no
    /// such account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn member_log(&self, account: AccountId) -> Result<Option<MemberLog>, StoreError> {
        let Some(handle) = self.handle(account)? else { return Ok(None) };
        Ok(Some(MemberLog { account, handle, log_entries: self.log_page(account, 0)?, leave: None }))
    }

    /// The results of a device's latest sends.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn window(&self, account: AccountId, device: DeviceId) -> Result<SenderWindow, StoreError> {
        read_window(self.store.as_ref(), account, device)
    }

    /// Where a device's life stands.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn life(&self, account: AccountId, device: DeviceId) -> Result<LifeRecord, StoreError> {
        let key = key::cursor(&account, &device, CursorTag::Life);
        Ok(self.read(Family::Cursor, key)?.unwrap_or_default())
    }

    /// A conversation's roster and epoch.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn conversation(&self, conversation: ConversationId) -> Result<Option<ConversationHead>, StoreError> {
        self.read(Family::Conversation, key::conversation(&conversation, ConversationTag::Head))
    }

    /// Whether an account is in a conversation: from the commit that brings it in until the one that takes it out, or
    /// until it says that it leaves.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn is_member(&self, account: AccountId, conversation: ConversationId) -> Result<bool, StoreError> {
        Ok(self.store.get(Family::Directory, key::membership(&account, &conversation).as_ref())?.is_some())
    }

    /// What a conversation owes to revocations, and to who has left.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn removals(&self, conversation: ConversationId) -> Result<Removals, StoreError> {
        let key = key::conversation(&conversation, ConversationTag::Removals);
        Ok(self.read(Family::Conversation, key)?.unwrap_or_default())
    }

    /// A conversation's roster as it is for what is not kept: without who has left, and without revoked devices.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn audience(&self, conversation: ConversationId) -> Result<Option<ConversationHead>, StoreError> {
        // In this order: a commit in between shows a roster in which they are not any more.
        let removals = self.removals(conversation)?;
        let Some(mut head) = self.conversation(conversation)? else { return Ok(None) };
        head.members
            .retain(|member| !removals.is_leaving(member.account) && !removals.pending.contains(&member.device));
        Ok(Some(head))
    }

    /// GroupInfo and tree of a conversation's current epoch.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn group(&self, conversation: ConversationId) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let part = |tag| self.read::<Bytes>(Family::Conversation, key::conversation(&conversation, tag));
        Ok(part(ConversationTag::GroupInfo)?.zip(part(ConversationTag::Tree)?))
    }

    /// An account's conversations in ascending order, after one of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn conversations(
        &self,
        account: AccountId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationState>, StoreError> {
        let range = key::memberships(&account);
        let start = after.map(|after| key::membership(&account, &after));
        let start = start.as_ref().map_or(range.start.as_ref(), AsRef::as_ref);
        let mut states = Vec::new();
        for (entry, _) in self.store.scan(Family::Directory, start..range.end.as_ref(), limit.saturating_add(1))? {
            let Some((_, conversation)) = key::parse_membership(&entry) else { continue };
            if Some(conversation) == after || states.len() == limit {
                continue;
            }
            let Some(head) = self.conversation(conversation)? else { continue };
            let mut accounts: Vec<_> = head.members.iter().map(|member| member.account).collect();
            accounts.sort_unstable();
            accounts.dedup();
            states.push(ConversationState { conversation, epoch: head.epoch, accounts, kind: head.kind });
        }
        Ok(states)
    }

    /// The epochs of an account's conversations, ascending by id.
    fn epochs(&self, account: AccountId) -> Result<Vec<(ConversationId, u64)>, StoreError> {
        let range = key::memberships(&account);
        let mut epochs = Vec::new();
        for (entry, _) in self.store.scan(Family::Directory, range.as_range(), ACCOUNT_CONVERSATIONS_MAX)? {
            let Some((_, conversation)) = key::parse_membership(&entry) else { continue };
            let epoch = key::conversation(&conversation, ConversationTag::Epoch);
            let epoch = match self.read(Family::Conversation, epoch)? {
                Some(epoch) => Some(epoch),
                // No commit has been made since epochs stand by themselves.
                None => self.conversation(conversation)?.map(|head| head.epoch),
            };
            epochs.extend(epoch.map(|epoch| (conversation, epoch)));
        }
        Ok(epochs)
    }

    /// The entries of a log from one on, as many as fit.
    fn log_page(&self, account: AccountId, log_from: u64) -> Result<Vec<Bytes>, StoreError> {
        let range = key::device_log_from(&account, log_from);
        let limit = usize::try_from(LOG_ENTRIES_MAX).unwrap_or(usize::MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (_, value) in self.store.scan(Family::DeviceLog, range.as_range(), limit)? {
            let entry: Bytes = decode(Family::DeviceLog, &value)?;
            bytes += entry.len();
            if bytes > LOG_PAGE_BYTES {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn entry(&self, account: AccountId, index: u64) -> Result<Option<Bytes>, StoreError> {
        self.read(Family::DeviceLog, key::device_log(&account, index))
    }

    fn read<T: Record>(&self, family: Family, key: impl AsRef<[u8]>) -> Result<Option<T>, StoreError> {
        read(self.store.as_ref(), family, key.as_ref())
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

fn corrupt(what: impl ToString) -> StoreError {
    StoreError::Corrupt { family: Family::DeviceLog, what: what.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use gureum_proto::ConversationKind;

    use super::*;
    use crate::store::conformance::expiry;
    use crate::store::memory::MemoryStore;
    use crate::store::record::{Leaving, Member};
    use crate::store::{Batch, Durability};

    const TALK: ConversationId = ConversationId::from_bytes([9; 16]);

    #[test]
    fn who_has_left_and_a_revoked_device_hear_nothing_that_is_not_kept_from_before_they_are_removed() {
        let store = Arc::new(MemoryStore::new(expiry().1));
        let directory = Directory::new(Arc::clone(&store) as _);
        assert_eq!(directory.audience(TALK), Ok(None));
        let member = |account, device| Member {
            account: AccountId::from_bytes([account; 16]),
            device: DeviceId::from_bytes([device; 16]),
            leaf: 0,
        };
        let members = vec![member(1, 1), member(1, 2), member(2, 3), member(2, 4), member(3, 5)];
        let head = ConversationHead { epoch: 4, created_ms: 0, kind: ConversationKind::Group, members };
        let mut batch = Batch::new();
        batch.put_record(Family::Conversation, key::conversation(&TALK, ConversationTag::Head), &head);
        store.write(&batch, Durability::Synced).unwrap();
        assert_eq!(directory.audience(TALK), Ok(Some(head.clone())));

        let statement = Bytes::from_static(b"statement");
        let gone = member(2, 3);
        let removals = Removals {
            floor_epoch: 0,
            pending: vec![member(1, 2).device],
            leaving: vec![Leaving { account: gone.account, device: gone.device, statement }],
        };
        let mut batch = Batch::new();
        batch.put_record(Family::Conversation, key::conversation(&TALK, ConversationTag::Removals), &removals);
        store.write(&batch, Durability::Synced).unwrap();
        let stay = vec![member(1, 1), member(3, 5)];
        assert_eq!(directory.audience(TALK), Ok(Some(ConversationHead { members: stay, ..head })));
    }
}
