//! What a person wants to change in a group: kept until a commit has done it, so that neither a lost race nor the end of a
//! process loses it.

use bytes::Bytes;
use gureum_proto::limits::ADDS_PER_COMMIT_MAX;
use gureum_proto::{AccountId, ConversationId, DeviceId, SubmitCommit};
use rusqlite::{OptionalExtension, params};

use super::conversations::judge_package;
use super::maker::{Purpose, make};
use super::work::{ACTIVE, Work};
use super::{BeginError, Event, Vault, VaultError};
use crate::e2ee::KeyPackage;

/// One change of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// All devices of an account are in it.
    Add(AccountId),
    /// An account is not in it.
    Remove(AccountId),
    /// It is called that.
    Rename(String),
    /// An account is an admin.
    Promote(AccountId),
    /// An account is none.
    Demote(AccountId),
}

/// An intent that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(pub i64);

/// What has become of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntentOutcome {
    /// It is to be done still.
    Open,
    /// It is so.
    Done,
    /// It will not be.
    Refused(String),
}

pub(super) struct OpenIntent {
    pub(super) id: IntentId,
    pub(super) intent: Intent,
}

const ADD: i64 = 0;
const REMOVE: i64 = 1;
const RENAME: i64 = 2;
const PROMOTE: i64 = 3;
const DEMOTE: i64 = 4;

impl Vault {
    /// Conversations in which intents are open.
    ///
    /// # Errors
    /// The database failed.
    pub fn intents_due(&mut self) -> Result<Vec<ConversationId>, VaultError> {
        self.read(|connection, _| {
            let sql = format!(
                "SELECT DISTINCT i.conversation FROM intent i JOIN conversation c ON c.id = i.conversation
                 WHERE i.state = 0 AND c.state = {ACTIVE} AND c.must_rejoin = 0 ORDER BY i.conversation"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| row.get(0).map(ConversationId::from_bytes))?;
            rows.map(|row| Ok(row?)).collect()
        })
    }

    /// Open intents for which KeyPackages must be claimed, with whose; as many as one commit may add.
    ///
    /// # Errors
    /// The database failed.
    pub fn intents_without_packages(
        &mut self,
        conversation: ConversationId,
    ) -> Result<Vec<(IntentId, AccountId)>, VaultError> {
        self.read(|connection, _| {
            let sql = format!(
                "SELECT i.id, i.account FROM intent i WHERE i.conversation = ?1 AND i.kind = {ADD} AND i.state = 0
                 AND NOT EXISTS (SELECT 1 FROM claimed_package p WHERE p.intent = i.id) ORDER BY i.id LIMIT ?2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![conversation.as_bytes(), ADDS_PER_COMMIT_MAX], |row| {
                Ok((IntentId(row.get(0)?), AccountId::from_bytes(row.get(1)?)))
            })?;
            rows.map(|row| Ok(row?)).collect()
        })
    }

    /// Keeps KeyPackages of accounts that are to be added, those of one claim at once. Where none of an account is good its
    /// intent is refused; of this account itself it is done, since its other devices join by themselves.
    ///
    /// # Errors
    /// The database failed.
    pub fn put_packages(&mut self, claimed: &[(IntentId, Vec<(DeviceId, Bytes)>)]) -> Result<(), VaultError> {
        self.write(|work| claimed.iter().try_for_each(|(intent, packages)| work.put_packages(*intent, packages)))
    }

    /// Gives up an intent.
    ///
    /// # Errors
    /// The database failed.
    pub fn give_up_intent(&mut self, intent: IntentId, why: &str) -> Result<(), VaultError> {
        self.write(|work| work.refuse_intent(intent, why))
    }

    /// Makes the commit that carries out what is open and can be, or gives the pending one; `None` where there is none.
    ///
    /// # Errors
    /// The database failed.
    pub fn commit_intents(&mut self, conversation: ConversationId) -> Result<Option<SubmitCommit>, VaultError> {
        self.write(|work| make(work, conversation, Purpose::Something))
    }

    /// What has become of intents. Whoever asks tells whoever wanted them: those that are settled are forgotten, and so are
    /// the events that would else tell of them.
    ///
    /// # Errors
    /// The database failed.
    pub fn take_outcomes(&mut self, intents: &[IntentId]) -> Result<Vec<(IntentId, IntentOutcome)>, VaultError> {
        self.write(|work| {
            let mut outcomes = Vec::new();
            for id in intents {
                let sql = "SELECT state, why, event FROM intent WHERE id = ?1";
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                let row: Option<(i64, Option<String>, Option<i64>)> =
                    work.connection.query_row(sql, params![id.0], read).optional()?;
                let (outcome, event) = match row {
                    Some((0, ..)) => (IntentOutcome::Open, None),
                    Some((2, why, event)) => (IntentOutcome::Refused(why.unwrap_or_default()), event),
                    // Of one that is gone somebody else was told.
                    Some(_) | None => (IntentOutcome::Done, None),
                };
                if outcome != IntentOutcome::Open {
                    work.connection.execute("DELETE FROM intent WHERE id = ?1", params![id.0])?;
                    work.connection.execute("DELETE FROM event WHERE id = ?1", params![event])?;
                }
                outcomes.push((*id, outcome));
            }
            Ok(outcomes)
        })
    }
}

impl Work<'_> {
    pub(super) fn put_intent(&self, conversation: ConversationId, intent: &Intent) -> Result<IntentId, VaultError> {
        let (kind, account, text) = match intent {
            Intent::Add(account) => (ADD, Some(account), None),
            Intent::Remove(account) => (REMOVE, Some(account), None),
            Intent::Rename(name) => (RENAME, None, Some(name)),
            Intent::Promote(account) => (PROMOTE, Some(account), None),
            Intent::Demote(account) => (DEMOTE, Some(account), None),
        };
        let sql = "INSERT INTO intent (conversation, kind, account, text, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
        let account = account.map(|account| *account.as_bytes());
        self.connection.execute(sql, params![conversation.as_bytes(), kind, account, text, self.now_ms])?;
        Ok(IntentId(self.connection.last_insert_rowid()))
    }

    fn put_packages(&mut self, intent: IntentId, packages: &[(DeviceId, Bytes)]) -> Result<(), VaultError> {
        let sql = "SELECT account FROM intent WHERE id = ?1 AND state = 0";
        let account: Option<[u8; 16]> =
            self.connection.prepare_cached(sql)?.query_row(params![intent.0], |row| row.get(0)).optional()?;
        let Some(account) = account.map(AccountId::from_bytes) else { return Ok(()) };
        let (mut kept, mut why) = (0_usize, None);
        for (device, bytes) in packages {
            if self.is_self(*device) {
                continue;
            }
            match self.check_group_package(account, *device, bytes)? {
                Ok(_) => {
                    let sql = "INSERT OR REPLACE INTO claimed_package (intent, device, package) VALUES (?1, ?2, ?3)";
                    let mut statement = self.connection.prepare_cached(sql)?;
                    statement.execute(params![intent.0, device.as_bytes(), bytes.as_ref()])?;
                    kept += 1;
                }
                Err(refused) => why = Some(refused),
            }
        }
        match why {
            _ if kept > 0 => Ok(()),
            _ if account == self.identity.account => self.settle_intent(intent),
            Some(why) => self.refuse_intent(intent, &why),
            None => self.refuse_intent(intent, "they have no device that can be added yet; one must connect first"),
        }
    }

    pub(super) fn open_intents(&self, conversation: ConversationId) -> Result<Vec<OpenIntent>, VaultError> {
        let sql = "SELECT id, kind, account, text FROM intent WHERE conversation = ?1 AND state = 0 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![conversation.as_bytes()])?;
        let mut intents = Vec::new();
        while let Some(row) = rows.next()? {
            intents.push(OpenIntent { id: IntentId(row.get(0)?), intent: read_intent(row)? });
        }
        Ok(intents)
    }

    /// It is as was wanted.
    pub(super) fn settle_intent(&self, id: IntentId) -> Result<(), VaultError> {
        let sql = "UPDATE intent SET state = 1, counter = NULL WHERE id = ?1 AND state = 0";
        self.connection.execute(sql, params![id.0])?;
        self.forget_packages(id)
    }

    /// It will not be. An event says so, unless whoever wanted it asks first.
    pub(super) fn refuse_intent(&self, id: IntentId, why: &str) -> Result<(), VaultError> {
        let sql = "SELECT conversation, kind, account, text FROM intent WHERE id = ?1 AND state = 0";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![id.0])?;
        let Some(row) = rows.next()? else { return Ok(()) };
        let (conversation, intent) = (ConversationId::from_bytes(row.get(0)?), read_intent(row)?);
        drop(rows);
        let name = match self.row(conversation)? {
            Some(row) => self.title(&row)?,
            None => conversation.to_string(),
        };
        let what = match intent {
            Intent::Add(account) => format!("add {}", self.handle_or_id(account)?),
            Intent::Remove(account) => format!("remove {}", self.handle_or_id(account)?),
            Intent::Rename(name) => format!("call it {name:?}"),
            Intent::Promote(account) => format!("make {} an admin", self.handle_or_id(account)?),
            Intent::Demote(account) => format!("make {} no admin any more", self.handle_or_id(account)?),
        };
        let stored = self.event(Event::IntentRefused { conversation, name, what, why: why.to_owned() })?;
        let sql = "UPDATE intent SET state = 2, why = ?2, event = ?3, counter = NULL WHERE id = ?1";
        self.connection.execute(sql, params![id.0, why, stored.id])?;
        self.forget_packages(id)
    }

    /// A pending commit carries them out.
    pub(super) fn put_intents_into(&self, intents: &[IntentId], counter: u64) -> Result<(), VaultError> {
        let mut statement = self.connection.prepare_cached("UPDATE intent SET counter = ?2 WHERE id = ?1")?;
        for id in intents {
            statement.execute(params![id.0, counter])?;
        }
        Ok(())
    }

    /// That commit was accepted.
    pub(super) fn settle_intents_of(&self, conversation: ConversationId, counter: u64) -> Result<(), VaultError> {
        self.intents_of(conversation, counter)?.into_iter().try_for_each(|id| self.settle_intent(id))
    }

    /// That commit was refused for good.
    pub(super) fn refuse_intents_of(
        &self,
        conversation: ConversationId,
        counter: u64,
        why: &str,
    ) -> Result<(), VaultError> {
        self.intents_of(conversation, counter)?.into_iter().try_for_each(|id| self.refuse_intent(id, why))
    }

    /// That commit lost.
    pub(super) fn reopen_intents(&self, conversation: ConversationId) -> Result<(), VaultError> {
        let sql = "UPDATE intent SET counter = NULL WHERE conversation = ?1 AND state = 0";
        self.connection.prepare_cached(sql)?.execute(params![conversation.as_bytes()])?;
        Ok(())
    }

    /// A commit that carries these out is not valid. One that it would be without is refused: where there are several, the
    /// next commits carry out fewer, until it stands alone.
    pub(super) fn divide_or_refuse(
        &mut self,
        conversation: ConversationId,
        intents: &[IntentId],
        why: &str,
    ) -> Result<(), VaultError> {
        if intents.len() > 1 {
            self.asked.divide(conversation, intents.len());
            return Ok(());
        }
        intents.iter().try_for_each(|id| self.refuse_intent(*id, why))
    }

    /// The conversation is gone, or this account from it.
    pub(super) fn forget_intents(&self, conversation: ConversationId) -> Result<(), VaultError> {
        let sql = "DELETE FROM claimed_package WHERE intent IN (SELECT id FROM intent WHERE conversation = ?1)";
        self.connection.execute(sql, params![conversation.as_bytes()])?;
        self.connection.execute("DELETE FROM intent WHERE conversation = ?1", params![conversation.as_bytes()])?;
        Ok(())
    }

    pub(super) fn claimed_packages(&self, id: IntentId) -> Result<Vec<(DeviceId, Vec<u8>)>, VaultError> {
        let sql = "SELECT device, package FROM claimed_package WHERE intent = ?1 ORDER BY device";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![id.0], |row| Ok((DeviceId::from_bytes(row.get(0)?), row.get(1)?)))?;
        rows.map(|row| Ok(row?)).collect()
    }

    pub(super) fn forget_package(&self, id: IntentId, device: DeviceId) -> Result<(), VaultError> {
        let sql = "DELETE FROM claimed_package WHERE intent = ?1 AND device = ?2";
        self.connection.execute(sql, params![id.0, device.as_bytes()])?;
        Ok(())
    }

    /// A KeyPackage that may be added to a group, or why it may not.
    pub(super) fn check_group_package(
        &mut self,
        account: AccountId,
        device: DeviceId,
        bytes: &[u8],
    ) -> Result<Result<KeyPackage, String>, VaultError> {
        let mls = self.mls();
        let read = self.packages.read(&mls, bytes);
        match judge_package(self, account, device, read) {
            Ok(package) => Ok(Ok(package)),
            Err(BeginError::Vault(error)) => Err(error),
            Err(BeginError::KeyPackage { why, .. }) => Ok(Err(why)),
            Err(other) => Ok(Err(other.to_string())),
        }
    }

    pub(super) fn intents_of(&self, conversation: ConversationId, counter: u64) -> Result<Vec<IntentId>, VaultError> {
        let sql = "SELECT id FROM intent WHERE conversation = ?1 AND counter = ?2 AND state = 0 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![conversation.as_bytes(), counter], |row| row.get(0).map(IntentId))?;
        rows.map(|row| Ok(row?)).collect()
    }

    fn forget_packages(&self, id: IntentId) -> Result<(), VaultError> {
        self.connection.execute("DELETE FROM claimed_package WHERE intent = ?1", params![id.0])?;
        Ok(())
    }
}

/// The columns `kind, account, text`, the last three of a row.
fn read_intent(row: &rusqlite::Row<'_>) -> Result<Intent, VaultError> {
    let account = || -> Result<AccountId, VaultError> { Ok(AccountId::from_bytes(row.get(2)?)) };
    Ok(match row.get::<_, i64>(1)? {
        ADD => Intent::Add(account()?),
        REMOVE => Intent::Remove(account()?),
        RENAME => Intent::Rename(row.get(3)?),
        PROMOTE => Intent::Promote(account()?),
        DEMOTE => Intent::Demote(account()?),
        _ => return Err(VaultError::Damaged("intent")),
    })
}
