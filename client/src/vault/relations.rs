//! Whom this account has accepted and blocked, and how it takes its conversations: decided here or on another of its
//! devices, and owed to the server, which wakes by it, until that has heard.

use gureum_proto::{AccountId, ConversationId, DeviceId, DeviceLog, Relation, Request};
use rusqlite::{Connection, OptionalExtension, params};

use super::history::{TEXT, UNREADABLE};
use super::outbox::KIND_RECEIPT;
use super::settings::is_active;
use super::work::{ABSENT, ACTIVE, AHEAD, OWN, Row, Work, held_log};
use super::{ConversationStatus, Event, MessageRequest, Muted, StoredEvent, Vault, VaultError};
use crate::e2ee::content::record::{PREFERENCE, RELATION, Record, relation_number, relation_of};
use crate::limits::{NUMBER_MAX, TOLD_MAX};

/// The end of a mute that was over before anybody had one: a person's word that a conversation is not muted, where 0 is
/// nobody's.
const UNMUTED: u64 = 1;

/// Of a message: whether its person has accepted neither its conversation nor who wrote it. For queries over `message m` and
/// `conversation v`, which is missing where this device is not in it.
pub(super) const IS_REQUEST: &str = "(v.id IS NOT NULL AND m.own = 0
    AND NOT EXISTS (SELECT 1 FROM preference q WHERE q.conversation = m.conversation AND q.accepted = 1)
    AND NOT EXISTS (SELECT 1 FROM relation q WHERE q.account = m.sender_account AND q.relation = 2))";

/// A decision that the server is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    about: About,
    stamp: u64,
    device: DeviceId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Account(AccountId, Relation),
    Conversation(ConversationId, Preference),
}

/// How a conversation is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Preference {
    pub(super) accepted: bool,
    /// [`NUMBER_MAX`]: until it is unmuted.
    pub(super) muted_until_ms: u64,
}

/// A decision as it is kept. Of two, the greater counts; but one that was made on a device which is not active in the
/// account's log gives way to any that was made on an active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept<T> {
    /// One more than what was seen when it was made.
    pub(super) stamp: u64,
    /// Where it was made.
    pub(super) device: DeviceId,
    pub(super) value: T,
}

impl Decision {
    /// What tells the server.
    #[must_use]
    pub fn request(&self) -> Request {
        match self.about {
            About::Account(account, relation) => Request::SetRelation { account, relation },
            About::Conversation(conversation, Preference { accepted, muted_until_ms }) => {
                let muted_until_ms = if muted_until_ms >= NUMBER_MAX { u64::MAX } else { muted_until_ms };
                Request::SetConversation { conversation, accepted, muted_until_ms }
            }
        }
    }
}

impl Vault {
    /// How this account stands to another.
    ///
    /// # Errors
    /// The database failed.
    pub fn relation(&mut self, account: AccountId) -> Result<Relation, VaultError> {
        self.read(|connection, _| relation(connection, account))
    }

    /// Decides how this account stands to another. Of one that is blocked nothing is shown, and nothing goes to it by itself.
    ///
    /// # Errors
    /// It is this account, or the database failed.
    pub fn set_relation(&mut self, account: AccountId, relation: Relation) -> Result<(), VaultError> {
        self.write(|work| {
            if account == work.identity.account {
                return Err(VaultError::Oneself);
            }
            work.decide_relation(account, relation)
        })
    }

    /// Accepts a conversation, and whom it is with: from now on what comes there wakes this account's devices.
    ///
    /// # Errors
    /// It is unknown, or the database failed.
    pub fn accept(&mut self, conversation: ConversationId) -> Result<(), VaultError> {
        self.write(|work| {
            let row = work.row_of_others(conversation)?;
            if let Some(peer) = row.peer {
                work.decide_relation(peer, Relation::Accepted)?;
            }
            work.accept(&row)
        })
    }

    /// Mutes a conversation until a time in milliseconds since 1970: what is said there before that wakes nobody. `None`:
    /// until it is muted otherwise; 0: it is muted no more.
    ///
    /// # Errors
    /// It is unknown, or the database failed.
    pub fn mute(&mut self, conversation: ConversationId, until_ms: Option<u64>) -> Result<(), VaultError> {
        self.write(|work| {
            let row = work.row_of_others(conversation)?;
            let held = work.preference(row.id)?.map(|kept| kept.value).unwrap_or_default();
            let muted_until_ms = match until_ms {
                None => NUMBER_MAX,
                // The server may have it muted, and has not said so yet.
                Some(0) if !work.has_heard_decisions()? => UNMUTED,
                Some(until_ms) => until_ms.min(NUMBER_MAX),
            };
            work.decide_preference(row.id, Preference { muted_until_ms, ..held }, false)
        })
    }

    /// Conversations that others have begun and nobody has accepted, the one with the newest message last. Those with a
    /// blocked account are not among them.
    ///
    /// # Errors
    /// The database failed.
    pub fn message_requests(&mut self) -> Result<Vec<MessageRequest>, VaultError> {
        self.write(|work| {
            let came = format!(
                "FROM message m WHERE m.conversation = c.id AND m.own = 0 AND m.kind IN ({TEXT}, {UNREADABLE})"
            );
            let sql = format!(
                "SELECT c.id, (SELECT count(*) {came}), (SELECT max(m.time_ms) {came}) FROM conversation c
                 LEFT JOIN preference p ON p.conversation = c.id LEFT JOIN relation r ON r.account = c.peer
                 WHERE c.kind != {OWN} AND c.state IN ({ACTIVE}, {ABSENT}, {AHEAD}) AND ifnull(p.accepted, 0) = 0
                 AND ifnull(r.relation, 1) = 1 ORDER BY 3, c.id"
            );
            let mut statement = work.connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let rows = rows.collect::<Result<Vec<([u8; 16], u64, Option<u64>)>, _>>()?;
            let mut requests = Vec::new();
            for (id, messages, last_ms) in rows {
                let conversation = ConversationId::from_bytes(id);
                let peer = work.row(conversation)?.and_then(|row| row.peer);
                requests.push(MessageRequest {
                    conversation,
                    peer,
                    with: work.called(conversation)?,
                    messages,
                    last_ms,
                });
            }
            Ok(requests)
        })
    }

    /// Whom this account has blocked, with what they are known by here.
    ///
    /// # Errors
    /// The database failed.
    pub fn blocked(&mut self) -> Result<Vec<(AccountId, String)>, VaultError> {
        self.write(|work| {
            let sql = "SELECT account FROM relation WHERE relation = ?1 ORDER BY account";
            let mut statement = work.connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![relation_number(Relation::Blocked)], |row| row.get(0))?;
            let accounts = rows.collect::<Result<Vec<[u8; 16]>, _>>()?.into_iter().map(AccountId::from_bytes);
            accounts.map(|account| Ok((account, work.handle_or_id(account)?))).collect()
        })
    }

    /// The conversations that are muted now.
    ///
    /// # Errors
    /// The database failed.
    pub fn muted(&mut self) -> Result<Vec<Muted>, VaultError> {
        self.write(|work| {
            let sql = "SELECT p.conversation, p.muted_until_ms FROM preference p
                       JOIN conversation c ON c.id = p.conversation WHERE p.muted_until_ms > ?1 ORDER BY p.conversation";
            let mut statement = work.connection.prepare_cached(sql)?;
            let now_ms = work.now_ms.min(NUMBER_MAX.saturating_sub(1));
            let rows = statement.query_map(params![now_ms], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let rows = rows.collect::<Result<Vec<([u8; 16], u64)>, _>>()?;
            let muted = rows.into_iter().map(|(id, until_ms)| {
                let conversation = ConversationId::from_bytes(id);
                let until_ms = (until_ms < NUMBER_MAX).then_some(until_ms);
                Ok(Muted { conversation, with: work.called(conversation)?, until_ms })
            });
            muted.collect()
        })
    }

    /// What the server has not heard yet, so many at once; what concerns a conversation that this account is not in waits, and
    /// before the server was asked whatever does: it is told the whole of how one is taken, of which it may know more.
    ///
    /// # Errors
    /// The database failed.
    pub fn untold(&mut self, limit: usize) -> Result<Vec<Decision>, VaultError> {
        let lacks_decisions = self.lacks_decisions()?;
        self.read(|connection, _| {
            let sql = "SELECT account, relation, stamp, device FROM relation WHERE told = 0 ORDER BY account LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![limit])?;
            let mut untold = Vec::new();
            while let Some(row) = rows.next()? {
                let about = About::Account(AccountId::from_bytes(row.get(0)?), read_relation(row.get(1)?)?);
                untold.push(Decision { about, stamp: row.get(2)?, device: DeviceId::from_bytes(row.get(3)?) });
            }
            if lacks_decisions {
                return Ok(untold);
            }
            let sql = format!(
                "SELECT p.conversation, p.accepted, p.muted_until_ms, p.stamp, p.device FROM preference p
                 JOIN conversation c ON c.id = p.conversation WHERE p.told = 0 AND c.kind != {OWN}
                 AND c.state IN ({ACTIVE}, {ABSENT}, {AHEAD}) ORDER BY p.conversation LIMIT ?1"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params![limit.saturating_sub(untold.len())])?;
            while let Some(row) = rows.next()? {
                let preference = Preference { accepted: row.get(1)?, muted_until_ms: row.get(2)? };
                let about = About::Conversation(ConversationId::from_bytes(row.get(0)?), preference);
                untold.push(Decision { about, stamp: row.get(3)?, device: DeviceId::from_bytes(row.get(4)?) });
            }
            Ok(untold)
        })
    }

    /// The server has heard a decision. One that was made since is owed on.
    ///
    /// # Errors
    /// The database failed.
    pub fn told(&mut self, decision: &Decision) -> Result<(), VaultError> {
        self.write(|work| {
            let (table, key) = match decision.about {
                About::Account(account, _) => ("relation SET told = 1 WHERE account", *account.as_bytes()),
                About::Conversation(id, _) => ("preference SET told = 1 WHERE conversation", *id.as_bytes()),
            };
            let sql = format!("UPDATE {table} = ?1 AND stamp = ?2 AND device = ?3");
            let row = params![key, decision.stamp, decision.device.as_bytes()];
            work.connection.prepare_cached(&sql)?.execute(row)?;
            Ok(())
        })
    }

    /// The server may have forgotten what it was told: it has gone back to a backup.
    ///
    /// # Errors
    /// The database failed.
    pub fn tell_all_decisions(&mut self) -> Result<(), VaultError> {
        self.write(|work| {
            work.connection.execute_batch("UPDATE relation SET told = 0; UPDATE preference SET told = 0")?;
            Ok(())
        })
    }
}

impl Work<'_> {
    /// Whether nothing of an account is to be shown.
    pub(super) fn is_blocked(&self, account: AccountId) -> Result<bool, VaultError> {
        is_blocked(self.connection, account)
    }

    /// Whether what somebody says in a conversation comes as a request.
    pub(super) fn is_request(&self, conversation: ConversationId, from: AccountId) -> Result<bool, VaultError> {
        if from == self.identity.account || self.preference(conversation)?.is_some_and(|kept| kept.value.accepted) {
            return Ok(false);
        }
        Ok(relation(self.connection, from)? != Relation::Accepted)
    }

    /// A person writes in a conversation, has begun it, or accepts it: it is no request any more. What this account creates,
    /// the server takes for accepted by itself.
    pub(super) fn accept(&self, row: &Row) -> Result<(), VaultError> {
        if let Some(peer) = row.peer
            && relation(self.connection, peer)? == Relation::None
        {
            self.decide_relation(peer, Relation::Accepted)?;
        }
        let held = self.preference(row.id)?.map(|kept| kept.value).unwrap_or_default();
        if held.accepted {
            return Ok(());
        }
        let is_told = row.state == ConversationStatus::Creating;
        self.decide_preference(row.id, Preference { accepted: true, ..held }, is_told)
    }

    /// This device comes into a conversation with somebody: from an account that is accepted it is no request. Of one that
    /// is blocked nobody is told.
    pub(super) fn tell_joined(&self, row: &Row, peer: AccountId) -> Result<StoredEvent, VaultError> {
        let stored = self.event(Event::Joined { conversation: row.id, peer })?;
        match relation(self.connection, peer)? {
            Relation::Accepted => self.accept(row)?,
            Relation::Blocked => {
                self.connection.prepare_cached("DELETE FROM event WHERE id = ?1")?.execute(params![stored.id])?;
            }
            Relation::None => (),
        }
        Ok(stored)
    }

    /// What was decided about a conversation goes with it.
    pub(super) fn forget_preference(&self, conversation: ConversationId) -> Result<(), VaultError> {
        let sql = "DELETE FROM preference WHERE conversation = ?1";
        self.connection.prepare_cached(sql)?.execute(params![conversation.as_bytes()])?;
        Ok(())
    }

    pub(super) fn relation_record(&self, account: AccountId) -> Result<Option<Record>, VaultError> {
        let kept = self.kept_relation(account)?;
        Ok(kept.map(|Kept { stamp, device, value }| Record::Relation { account, relation: value, stamp, device }))
    }

    pub(super) fn preference_record(&self, conversation: ConversationId) -> Result<Option<Record>, VaultError> {
        let record = |Kept { stamp, device, value }: Kept<Preference>| {
            let Preference { accepted, muted_until_ms } = value;
            Record::Preference { conversation, accepted, muted_until_ms, stamp, device }
        };
        Ok(self.preference(conversation)?.map(record))
    }

    /// Another device of this account tells how the account stands to somebody. `log`: that of this account.
    pub(super) fn keep_relation(
        &self,
        log: Option<&DeviceLog>,
        account: AccountId,
        told: &Kept<Relation>,
    ) -> Result<(), VaultError> {
        if account == self.identity.account {
            return Ok(());
        }
        match self.kept_relation(account)? {
            Some(held) => {
                if gave_way(log, held.device, told.device) {
                    self.owe_record(RELATION, account.as_bytes())?;
                }
                if !gives_way(log, &held, told) {
                    return Ok(());
                }
            }
            None if self.count_of("relation")? >= TOLD_MAX => return Ok(()),
            None => (),
        }
        self.put_relation(account, told, false)
    }

    /// The same of how it takes a conversation.
    pub(super) fn keep_preference(
        &self,
        log: Option<&DeviceLog>,
        conversation: ConversationId,
        told: &Kept<Preference>,
    ) -> Result<(), VaultError> {
        match self.preference(conversation)? {
            Some(held) => {
                if gave_way(log, held.device, told.device) {
                    self.owe_record(PREFERENCE, conversation.as_bytes())?;
                }
                if !gives_way(log, &held, told) {
                    return Ok(());
                }
            }
            None if self.count_of("preference")? >= TOLD_MAX => return Ok(()),
            None => (),
        }
        self.put_preference(conversation, told, false)
    }

    /// What people call a conversation, or else its id.
    fn called(&self, conversation: ConversationId) -> Result<String, VaultError> {
        Ok(self.title_of(conversation)?.unwrap_or_else(|| conversation.to_string()))
    }

    fn row_of_others(&self, conversation: ConversationId) -> Result<Row, VaultError> {
        let row = self.row(conversation)?.filter(|row| !row.is_own());
        row.ok_or(VaultError::NoConversation(conversation))
    }

    fn decide_relation(&self, account: AccountId, relation: Relation) -> Result<(), VaultError> {
        let held = self.kept_relation(account)?;
        // Of whom nothing is known here, the server may know more, and this is a person's word against it.
        let is_known = held.is_some() || self.has_heard_decisions()?;
        if is_known && held.map_or(Relation::None, |held| held.value) == relation {
            return Ok(());
        }
        let decided = self.decided(held, relation)?;
        self.put_relation(account, &decided, false)?;
        self.owe_record(RELATION, account.as_bytes())
    }

    fn decide_preference(
        &self,
        conversation: ConversationId,
        preference: Preference,
        is_told: bool,
    ) -> Result<(), VaultError> {
        let held = self.preference(conversation)?;
        if held.map(|held| held.value).unwrap_or_default() == preference {
            return Ok(());
        }
        let decided = self.decided(held, preference)?;
        self.put_preference(conversation, &decided, is_told)?;
        self.owe_record(PREFERENCE, conversation.as_bytes())
    }

    /// A person decides something here, after all that this device has heard of it.
    fn decided<T: Copy>(&self, held: Option<Kept<T>>, value: T) -> Result<Kept<T>, VaultError> {
        let log = held_log(self.connection, self.identity.account)?;
        let seen = held.filter(|held| is_active(log.as_ref(), held.device)).map_or(0, |held| held.stamp);
        Ok(Kept { stamp: seen.saturating_add(1).min(NUMBER_MAX), device: self.identity.device, value })
    }

    pub(super) fn kept_relation(&self, account: AccountId) -> Result<Option<Kept<Relation>>, VaultError> {
        let sql = "SELECT stamp, device, relation FROM relation WHERE account = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1).map(DeviceId::from_bytes)?, row.get(2)?));
        let row: Option<(u64, DeviceId, u64)> = statement.query_row(params![account.as_bytes()], read).optional()?;
        row.map(|(stamp, device, number)| Ok(Kept { stamp, device, value: read_relation(number)? })).transpose()
    }

    pub(super) fn preference(&self, conversation: ConversationId) -> Result<Option<Kept<Preference>>, VaultError> {
        let sql = "SELECT stamp, device, accepted, muted_until_ms FROM preference WHERE conversation = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &rusqlite::Row<'_>| {
            let value = Preference { accepted: row.get(2)?, muted_until_ms: row.get(3)? };
            Ok(Kept { stamp: row.get(0)?, device: DeviceId::from_bytes(row.get(1)?), value })
        };
        Ok(statement.query_row(params![conversation.as_bytes()], read).optional()?)
    }

    /// Whoever is blocked from now on gets nothing that is owed to them or waits for them by itself.
    pub(super) fn put_relation(
        &self,
        account: AccountId,
        kept: &Kept<Relation>,
        is_told: bool,
    ) -> Result<(), VaultError> {
        let sql =
            "INSERT OR REPLACE INTO relation (account, relation, stamp, device, told) VALUES (?1, ?2, ?3, ?4, ?5)";
        let (relation, device) = (relation_number(kept.value), kept.device.as_bytes());
        let row = params![account.as_bytes(), relation, kept.stamp, device, is_told];
        self.connection.prepare_cached(sql)?.execute(row)?;
        if kept.value == Relation::Blocked {
            let sql = "DELETE FROM receipt_owed WHERE message IN (SELECT id FROM message WHERE sender_account = ?1)";
            self.connection.prepare_cached(sql)?.execute(params![account.as_bytes()])?;
            // What has a counter may have gone out.
            let sql = format!(
                "DELETE FROM outbox WHERE kind = {KIND_RECEIPT} AND counter IS NULL
                 AND conversation IN (SELECT id FROM conversation WHERE peer = ?1)"
            );
            self.connection.prepare_cached(&sql)?.execute(params![account.as_bytes()])?;
        }
        Ok(())
    }

    pub(super) fn put_preference(
        &self,
        conversation: ConversationId,
        kept: &Kept<Preference>,
        is_told: bool,
    ) -> Result<(), VaultError> {
        let sql = "INSERT OR REPLACE INTO preference (conversation, accepted, muted_until_ms, stamp, device, told)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Preference { accepted, muted_until_ms } = kept.value;
        let (id, device) = (conversation.as_bytes(), kept.device.as_bytes());
        let row = params![id, accepted, muted_until_ms, kept.stamp, device, is_told];
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }
}

/// Whether nothing of an account is to be shown.
pub(super) fn is_blocked(connection: &Connection, account: AccountId) -> Result<bool, VaultError> {
    Ok(relation(connection, account)? == Relation::Blocked)
}

fn relation(connection: &Connection, account: AccountId) -> Result<Relation, VaultError> {
    let mut statement = connection.prepare_cached("SELECT relation FROM relation WHERE account = ?1")?;
    let number = statement.query_row(params![account.as_bytes()], |row| row.get(0)).optional()?;
    number.map_or(Ok(Relation::None), read_relation)
}

fn read_relation(number: u64) -> Result<Relation, VaultError> {
    relation_of(number).ok_or(VaultError::Damaged("relation"))
}

/// Whether what is here gives way to what is told.
fn gives_way<T: Ord>(log: Option<&DeviceLog>, held: &Kept<T>, told: &Kept<T>) -> bool {
    (is_active(log, held.device), held) < (is_active(log, told.device), told)
}

/// Whether what is told was decided on a device that counts for less than the one of what is here: whoever tells it may have
/// learned of the revocation since, and passed over what counts more.
fn gave_way(log: Option<&DeviceLog>, held: DeviceId, told: DeviceId) -> bool {
    is_active(log, held) && !is_active(log, told)
}
