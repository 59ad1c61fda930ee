//! Revoked devices: those that have a leaf still, and are to be removed before anything is encrypted; and those that have
//! been removed, and do not come back. Who has a leaf where.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use gureum_proto::membership::Leaf;
use gureum_proto::{AccountId, ConversationId, DeviceId, DeviceLog, SubmitCommit};
use rusqlite::params;

use super::maker::{Purpose, make_with};
use super::outbox::KIND_TEXT;
use super::work::{ACTIVE, LEFT, REPLACED, Work};
use super::{Vault, VaultError};

/// Stands for a device of which the server alone knows yet that it was revoked.
const UNNAMED: DeviceId = DeviceId::from_bytes([0; 16]);

impl Vault {
    /// Conversations from which revoked devices are to be removed, or accounts that leave. Until that is done nothing is
    /// encrypted there.
    ///
    /// # Errors
    /// The database failed.
    pub fn removals_due(&mut self) -> Result<Vec<ConversationId>, VaultError> {
        self.read(|connection, _| {
            let sql = format!(
                "SELECT DISTINCT r.conversation FROM to_remove r JOIN conversation c ON c.id = r.conversation
                 WHERE c.state = {ACTIVE} AND c.must_rejoin = 0 ORDER BY r.conversation"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| row.get(0).map(ConversationId::from_bytes))?;
            rows.map(|row| Ok(row?)).collect()
        })
    }

    /// Whether messages in the outbox wait for such a removal; for receipts nobody is in a hurry.
    ///
    /// # Errors
    /// The database failed.
    pub fn removals_hold_up_messages(&mut self) -> Result<bool, VaultError> {
        self.read(|connection, _| {
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM to_remove r JOIN conversation c ON c.id = r.conversation
                 JOIN outbox o ON o.conversation = r.conversation
                 WHERE c.state = {ACTIVE} AND c.must_rejoin = 0 AND o.failed = 0 AND o.kind = {KIND_TEXT}
                 AND o.ciphertext IS NULL)"
            );
            Ok(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
        })
    }

    /// Makes a commit that removes the revoked devices of a conversation as far as they are known, and the accounts that
    /// leave, or gives the pending one; `None` where nobody is to be removed, or no commit can be made.
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_removals(&mut self, conversation: ConversationId) -> Result<Option<SubmitCommit>, VaultError> {
        self.commit_removals_with(conversation, &[])
    }

    /// The same, which also brings in devices of accounts that would else be left without: [`Self::stranded`].
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_removals_with(
        &mut self,
        conversation: ConversationId,
        brought: &[Brought],
    ) -> Result<Option<SubmitCommit>, VaultError> {
        self.write(|work| {
            // A statement to leave that is void, or was carried out, shows to be so when a commit is accepted.
            let has_statements = !work.statements(conversation)?.is_empty();
            let purpose = if has_statements { Purpose::Whatever } else { Purpose::Something };
            make_with(work, conversation, purpose, brought)
        })
    }

    /// Accounts all of whose leaves in a conversation are those of revoked devices. No account is left without a leaf but by
    /// who may remove it: these go when another device of the account comes.
    ///
    /// # Errors
    /// The database failed.
    pub fn stranded(&mut self, conversation: ConversationId) -> Result<Vec<AccountId>, VaultError> {
        self.write(|work| {
            let revoked = work.removals(conversation)?;
            let Some(group) = work.group(conversation)? else { return Ok(Vec::new()) };
            let accounts = stranded(&group.leaves(), &revoked);
            work.keep(conversation, group);
            Ok(accounts.into_iter().collect())
        })
    }
}

/// A KeyPackage of a device that is to come into a conversation for its account's revoked ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// The account.
    pub account: AccountId,
    /// Its device.
    pub device: DeviceId,
    /// What the directory has of that device.
    pub key_package: Bytes,
}

impl Work<'_> {
    /// The revoked devices that have a leaf still, as far as they are known.
    pub(super) fn removals(&self, conversation: ConversationId) -> Result<BTreeSet<DeviceId>, VaultError> {
        let sql = "SELECT device FROM removal WHERE conversation = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![conversation.as_bytes()], |row| row.get(0).map(DeviceId::from_bytes))?;
        rows.map(|row| Ok(row?)).collect()
    }

    /// The server waits for a removal; whose, this device may not know yet.
    pub(super) fn note_removal_pending(&self, conversation: ConversationId) -> Result<(), VaultError> {
        self.put_removal(conversation, UNNAMED)
    }

    /// Devices of an account were revoked: they are to be removed from wherever they have a leaf, and of this one's
    /// no histories come any more.
    pub(super) fn note_revoked(&mut self, account: AccountId, revoked: &[DeviceId]) -> Result<(), VaultError> {
        let sql = format!(
            "SELECT id FROM conversation WHERE epoch > 0 AND state NOT IN ({REPLACED}, {LEFT}) AND (peer = ?1 OR ?1 = ?2
             OR id IN (SELECT conversation FROM roster WHERE account = ?1)) ORDER BY id"
        );
        let own = self.identity.account;
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![account.as_bytes(), own.as_bytes()], |row| row.get(0))?;
        for id in rows.collect::<Result<Vec<[u8; 16]>, _>>()? {
            let id = ConversationId::from_bytes(id);
            let Some(group) = self.group(id)? else { continue };
            for device in devices(&group.leaves()).into_keys().filter(|device| revoked.contains(device)) {
                self.put_removal(id, device)?;
            }
            self.keep(id, group);
        }
        if account == own { self.end_transfers_of(revoked) } else { Ok(()) }
    }

    /// This device has come into a conversation.
    pub(super) fn note_group(&self, conversation: ConversationId, leaves: &[Leaf]) -> Result<(), VaultError> {
        for sql in ["DELETE FROM removal WHERE conversation = ?1", "DELETE FROM roster WHERE conversation = ?1"] {
            self.connection.execute(sql, params![conversation.as_bytes()])?;
        }
        self.note_leaves(conversation, &[], leaves)
    }

    /// A commit was taken: revoked devices that it lets in are to be removed, and those that it removes stay outside; but not
    /// with an account that goes as a whole. It may be added anew, and with a device that was revoked only after that.
    pub(super) fn note_leaves(
        &self,
        conversation: ConversationId,
        before: &[Leaf],
        after: &[Leaf],
    ) -> Result<(), VaultError> {
        let (was, is) = (devices(before), devices(after));
        let mut logs = HashMap::new();
        for (device, account) in was.iter().filter(|(device, _)| !is.contains_key(device)) {
            for sql in [
                "DELETE FROM removal WHERE conversation = ?1 AND device = ?2",
                "DELETE FROM roster WHERE conversation = ?1 AND device = ?2",
            ] {
                self.connection.prepare_cached(sql)?.execute(params![conversation.as_bytes(), device.as_bytes()])?;
            }
            let stays = is.values().any(|other| other == account);
            if stays && self.is_revoked(*account, *device, &mut logs)? {
                let sql = "INSERT OR IGNORE INTO expelled (conversation, device) VALUES (?1, ?2)";
                self.connection.execute(sql, params![conversation.as_bytes(), device.as_bytes()])?;
            }
        }
        for (device, account) in is.iter().filter(|(device, _)| !was.contains_key(device)) {
            let sql = "INSERT OR REPLACE INTO roster (conversation, account, device) VALUES (?1, ?2, ?3)";
            let row = params![conversation.as_bytes(), account.as_bytes(), device.as_bytes()];
            self.connection.prepare_cached(sql)?.execute(row)?;
            if self.is_revoked(*account, *device, &mut logs)? {
                self.put_removal(conversation, *device)?;
            }
        }
        // Whether the server still waits for something, the next message shows.
        let sql = "DELETE FROM removal WHERE conversation = ?1 AND device = ?2";
        self.connection.execute(sql, params![conversation.as_bytes(), UNNAMED.as_bytes()])?;
        Ok(())
    }

    /// Forgets who was removed or is to be: the conversation is gone, or goes on from a state of before.
    pub(super) fn forget_removals(&self, conversation: ConversationId) -> Result<(), VaultError> {
        for sql in [
            "DELETE FROM expelled WHERE conversation = ?1",
            "DELETE FROM removal WHERE conversation = ?1",
            "DELETE FROM roster WHERE conversation = ?1",
            "DELETE FROM leave WHERE conversation = ?1",
        ] {
            self.connection.execute(sql, params![conversation.as_bytes()])?;
        }
        Ok(())
    }

    fn put_removal(&self, conversation: ConversationId, device: DeviceId) -> Result<(), VaultError> {
        let sql = "INSERT OR IGNORE INTO removal (conversation, device) VALUES (?1, ?2)";
        self.connection.execute(sql, params![conversation.as_bytes(), device.as_bytes()])?;
        Ok(())
    }

    fn is_revoked(
        &self,
        account: AccountId,
        device: DeviceId,
        logs: &mut HashMap<AccountId, Option<DeviceLog>>,
    ) -> Result<bool, VaultError> {
        let log = match logs.get(&account) {
            Some(log) => log,
            None => &*logs.entry(account).or_insert(self.log(account)?),
        };
        Ok(log.as_ref().is_some_and(|log| log.is_revoked(device)))
    }
}

/// The accounts all of whose leaves are those of revoked devices.
pub(super) fn stranded(leaves: &[Leaf], revoked: &BTreeSet<DeviceId>) -> BTreeSet<AccountId> {
    let devices = devices(leaves);
    let stay: BTreeSet<_> =
        devices.iter().filter(|(device, _)| !revoked.contains(device)).map(|(_, account)| *account).collect();
    devices.into_values().filter(|account| !stay.contains(account)).collect()
}

/// The devices that have a leaf, with their accounts.
fn devices(leaves: &[Leaf]) -> BTreeMap<DeviceId, AccountId> {
    leaves.iter().filter_map(|leaf| leaf.identity).map(|identity| (identity.device, identity.account)).collect()
}
