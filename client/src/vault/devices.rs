//! This account's devices: what they are called, and what one of them does to add or revoke another.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gureum_proto::limits::{CONTACTS_PER_LINK_LEAVE, DEVICES_MAX, LINK_CONTACTS_MAX, LINK_CONVERSATIONS_MAX};
use gureum_proto::{
    AccountId, ConversationId, DeviceId, DeviceLog, Handle, LinkBundle, LinkCode, LinkConsent, LinkContact, LinkOffer,
    LinkProposal, LogError, LogHead, draft_add, finish_entry, sign_revoke,
};
use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use super::key::random;
use super::leaves::left_by;
use super::profile::check_device_name;
use super::work::{ABSENT, ACTIVE, OWN, Work, load_log};
use super::{DeviceError, Event, StoredEvent, Vault, VaultError};
use crate::e2ee::content::record::DEVICE_NAME;
use crate::e2ee::seal;
use crate::limits::EPOCH_MAX;

/// An answer to a device that shows a code.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// What the device has said.
    pub(crate) offer: LinkOffer,
    proposal: LinkProposal,
    /// What travels.
    pub(crate) sealed: Bytes,
}

/// The consent of the device that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    /// The entry that adds it.
    pub(crate) entry: Bytes,
    pub(super) opening: [u8; 32],
}

impl Answer {
    /// What a person compares. They can be made only once the device has agreed.
    pub(crate) fn digits(&self, code: &LinkCode, sealed_offer: &[u8], agreed: &Agreed) -> String {
        self.proposal.check_digits(code, sealed_offer, &agreed.opening)
    }
}

impl Vault {
    /// What the account's devices are called, as far as it is known here.
    ///
    /// # Errors
    /// The database failed.
    pub fn device_names(&mut self) -> Result<BTreeMap<DeviceId, String>, VaultError> {
        let own = (self.identity.device, self.identity.device_name.clone());
        self.read(|connection, _| {
            let mut statement = connection.prepare("SELECT device, name FROM device_name")?;
            let rows = statement.query_map([], |row| Ok((DeviceId::from_bytes(row.get(0)?), row.get(1)?)))?;
            let mut names = rows.collect::<Result<BTreeMap<_, _>, _>>()?;
            names.insert(own.0, own.1);
            Ok(names)
        })
    }

    /// Notes what a device of the account is called.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn name_device(&mut self, device: DeviceId, name: &str) -> Result<(), VaultError> {
        self.write(|work| {
            let sql = "INSERT INTO device_name (device, name) VALUES (?1, ?2)
                       ON CONFLICT (device) DO UPDATE SET name = ?2 WHERE stamp = 0";
            work.connection.execute(sql, params![device.as_bytes(), name])?;
            work.owe_record(DEVICE_NAME, device.as_bytes())
        })
    }

    /// Answers a device that shows a code: with an entry that follows the account's log as it is known here.
    pub(crate) fn answer(&mut self, code: &LinkCode, offer: &LinkOffer) -> Result<Answer, DeviceError> {
        self.propose(code, offer, random()?)
    }

    /// Answers it once more, with an entry that follows the log as it is now. What it is handed will be sealed as the
    /// first answer has said, by which the device knows whose digits it has shown.
    pub(crate) fn answer_again(&mut self, code: &LinkCode, before: &Answer) -> Result<Answer, DeviceError> {
        self.propose(code, &before.offer, before.proposal.bundle_key.clone())
    }

    fn propose(
        &mut self,
        code: &LinkCode,
        offer: &LinkOffer,
        bundle_key: Zeroizing<[u8; 32]>,
    ) -> Result<Answer, DeviceError> {
        let (log, keys) = (self.own_log()?, &offer.keys);
        match log.device(keys.device()) {
            Some(known) if known.revoked_at.is_none() => return Err(DeviceError::Added),
            Some(_) => return Err(DeviceError::Revoked),
            None if log.active().count() >= DEVICES_MAX => return Err(DeviceError::Full),
            None => {}
        }
        let proposal = LinkProposal {
            account: self.identity.account,
            handle: self.identity.handle.clone(),
            entry: draft_add(log.at(), self.identity.device, keys, (self.clock)()),
            bundle_key,
        };
        let sealed = seal::seal_for(&self.crypto, code.public(), &code.answer_info(), &proposal.encode());
        Ok(Answer { offer: offer.clone(), proposal, sealed: sealed.map_err(VaultError::from)?.into() })
    }

    /// Opens the consent of a device that was answered. It can come of nobody else than who holds the key of the code, and
    /// has read this very answer.
    ///
    /// # Errors
    /// What came is not the consent of that device, or tells another opening than its offer was bound to.
    pub(crate) fn agreed(&mut self, code: &LinkCode, answer: &Answer, consent: &[u8]) -> Result<Agreed, DeviceError> {
        let proposal = &answer.proposal;
        let opened = seal::open(&proposal.consent_key(code), code.id(), consent).ok_or(DeviceError::Consent)?;
        let consent = LinkConsent::decode(&opened).map_err(|_| DeviceError::Consent)?;
        if !answer.offer.is_opened_by(&consent.opening) {
            return Err(DeviceError::Consent);
        }
        let entry = finish_entry(&proposal.entry, &self.identity.proof, &consent.countersignature);
        // Whether it still follows the log, the server says; that the device has signed it shows here.
        match self.own_log()?.append(&entry) {
            Ok(_) | Err(LogError::Fork) => Ok(Agreed { entry, opening: consent.opening }),
            Err(_) => Err(DeviceError::Consent),
        }
    }

    /// What a device is handed that the account's log has: what this one has seen, so that the server can show it no
    /// other past. A group that the server lists to this one no more is among it, as long as this device has not heard
    /// that the account is out of it: the server could hide it from the new one else.
    pub(crate) fn bundle(
        &mut self,
        code: &LinkCode,
        answer: &Answer,
        named: (DeviceId, &str),
    ) -> Result<Bytes, VaultError> {
        let mut names = self.device_names()?;
        names.insert(named.0, named.1.to_owned());
        let log = self.own_log()?;
        let own = self.identity.account;
        let (mut contacts, conversations, leaves) = self.read(|connection, _| {
            Ok((contacts(connection, own)?, conversations(connection)?, left_by(connection, own)?))
        })?;
        contacts.truncate(LINK_CONTACTS_MAX.saturating_sub(CONTACTS_PER_LINK_LEAVE * leaves.len()));
        let is_active = |named: &(DeviceId, String)| log.is_active(named.0) && check_device_name(&named.1).is_ok();
        let bundle = LinkBundle {
            account: own,
            log: log.at(),
            contacts,
            conversations,
            devices: names.into_iter().filter(is_active).collect(),
            leaves,
        };
        Ok(seal::seal(&answer.proposal.bundle_key, code.id(), &bundle.encode())?.into())
    }

    /// The entry that revokes a device of the account; `None` if it is revoked already.
    pub(crate) fn revocation(&mut self, device: DeviceId) -> Result<Option<Bytes>, DeviceError> {
        let log = self.own_log()?;
        match log.device(device) {
            None => Err(DeviceError::Unknown(device.to_string())),
            Some(logged) if logged.revoked_at.is_some() => Ok(None),
            Some(_) if log.active().count() == 1 => Err(DeviceError::Last),
            Some(_) => {
                let signer = (self.identity.device, &self.identity.proof);
                Ok(Some(sign_revoke(&log, signer, device, (self.clock)())))
            }
        }
    }

    fn own_log(&mut self) -> Result<DeviceLog, VaultError> {
        let own = self.identity.account;
        self.read(|connection, _| load_log(connection, own)?.ok_or(VaultError::NoContact(own)))
    }

    /// Whether another device of the account has told of conversations that the server has not shown to this one yet.
    ///
    /// # Errors
    /// The database failed.
    pub fn awaits_conversations(&mut self) -> Result<bool, VaultError> {
        self.read(|connection, _| Ok(!unshown(connection)?.is_empty()))
    }

    /// The server has listed all conversations of the account. Of those that another device has told of and that are not
    /// among them, a person is told, once.
    ///
    /// # Errors
    /// The database failed.
    pub fn note_listing(&mut self, listed: &BTreeSet<ConversationId>) -> Result<Vec<StoredEvent>, VaultError> {
        self.write(|work| {
            let mut told = Vec::new();
            for conversation in unshown(work.connection)?.into_iter().filter(|foretold| !listed.contains(foretold)) {
                let sql = "UPDATE foretold SET told = 1 WHERE conversation = ?1";
                work.connection.execute(sql, params![conversation.as_bytes()])?;
                told.push(work.event(Event::Hidden { conversation })?);
            }
            Ok(told)
        })
    }

    /// Conversations that the account is in and this device is not, the one with the newest message first as far as
    /// another device has told.
    ///
    /// # Errors
    /// The database failed.
    pub fn absent(&mut self) -> Result<Vec<ConversationId>, VaultError> {
        self.read(|connection, _| {
            let sql = format!(
                "SELECT c.id FROM conversation c LEFT JOIN foretold f ON f.conversation = c.id WHERE c.state = {ABSENT}
                 ORDER BY f.place IS NULL, f.place, c.id"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| row.get(0).map(ConversationId::from_bytes))?;
            rows.map(|row| Ok(row?)).collect()
        })
    }
}

/// Conversations that another device of the account has told of, that are not known here, and of which nobody was told.
fn unshown(connection: &Connection) -> Result<Vec<ConversationId>, VaultError> {
    let sql = "SELECT conversation FROM foretold WHERE told = 0 AND conversation NOT IN (SELECT id FROM conversation)
               ORDER BY place, conversation";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| row.get(0).map(ConversationId::from_bytes))?;
    rows.map(|row| Ok(row?)).collect()
}

/// What the device says that shows a code.
pub(crate) fn open_offer(code: &LinkCode, sealed: &[u8]) -> Result<LinkOffer, DeviceError> {
    let opened = seal::open(&code.offer_key(), code.id(), sealed);
    let opened = opened.ok_or_else(|| DeviceError::Offer("it is not sealed with this code".to_owned()))?;
    LinkOffer::decode(&opened).map_err(|error| DeviceError::Offer(error.to_string()))
}

/// Stands for the device that has linked this one, and where it is not known which has told of a log.
pub(super) const LINKER: DeviceId = DeviceId::from_bytes([0; 16]);

/// How far another device of the account had seen a log that is not known here yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pin {
    pub(super) log: LogHead,
    /// The one that has told so.
    pub(super) device: DeviceId,
}

impl Work<'_> {
    /// How far other devices of the account had seen a log that is not known here yet, the farthest first.
    pub(super) fn pins(&self, account: AccountId) -> Result<Vec<Pin>, VaultError> {
        let sql = "SELECT length, head, device FROM log_pin WHERE account = ?1 ORDER BY length DESC, device";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![account.as_bytes()], |row| {
            let log = LogHead { length: row.get(0)?, hash: row.get(1)? };
            Ok(Pin { log, device: DeviceId::from_bytes(row.get(2)?) })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The farthest of them.
    pub(super) fn pin(&self, account: AccountId) -> Result<Option<LogHead>, VaultError> {
        Ok(self.pins(account)?.first().map(|pin| pin.log))
    }

    /// Another device has seen a log as far as that.
    pub(super) fn put_pin(&self, account: AccountId, pin: Pin) -> Result<(), VaultError> {
        let sql = "INSERT INTO log_pin (account, device, length, head) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (account, device) DO UPDATE SET length = ?3, head = ?4 WHERE length < ?3";
        let row = params![account.as_bytes(), pin.device.as_bytes(), pin.log.length, pin.log.hash.as_slice()];
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// The log is known here as far as that.
    pub(super) fn unpin(&self, account: AccountId, length: u64) -> Result<(), VaultError> {
        let sql = "DELETE FROM log_pin WHERE account = ?1 AND length <= ?2";
        self.connection.execute(sql, params![account.as_bytes(), length])?;
        Ok(())
    }

    /// This account's log is known farther than before. What a revoked device has told of others' logs counts for nothing
    /// more. `newly`: some were revoked just now, and each may be the one of which it is not known what it has told.
    pub(super) fn unpin_revoked(&self, log: &DeviceLog, newly: bool) -> Result<(), VaultError> {
        let mut statement = self.connection.prepare("SELECT DISTINCT device FROM log_pin")?;
        let rows = statement.query_map([], |row| row.get(0).map(DeviceId::from_bytes))?;
        for device in rows.collect::<Result<Vec<_>, _>>()? {
            if log.is_revoked(device) || (newly && device == LINKER) {
                self.connection.execute("DELETE FROM log_pin WHERE device = ?1", params![device.as_bytes()])?;
            }
        }
        Ok(())
    }

    /// What a person calls the device that has told of a log.
    pub(super) fn teller(&self, pin: &Pin) -> Result<String, VaultError> {
        if pin.device == LINKER {
            return Ok("that has linked this one".to_owned());
        }
        Ok(self.device_name(pin.device)?.unwrap_or_else(|| pin.device.to_string()))
    }

    /// What a device of this account is called, where that is known here.
    pub(super) fn device_name(&self, device: DeviceId) -> Result<Option<String>, VaultError> {
        if self.is_self(device) {
            return Ok(Some(self.identity.device_name.clone()));
        }
        let sql = "SELECT name FROM device_name WHERE device = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row(params![device.as_bytes()], |row| row.get(0)).optional()?)
    }

    /// The highest epoch of a conversation that another device of the account has seen.
    pub(super) fn foretold(&self, conversation: ConversationId) -> Result<u64, VaultError> {
        let sql = "SELECT epoch FROM foretold WHERE conversation = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let epoch = statement.query_row(params![conversation.as_bytes()], |row| row.get(0)).optional()?;
        Ok(epoch.unwrap_or(0))
    }
}

/// Accounts met, those with the newest message first.
pub(super) fn contacts(connection: &Connection, own: AccountId) -> Result<Vec<LinkContact>, VaultError> {
    let sql = "SELECT a.account, a.handle FROM contact a
               LEFT JOIN conversation c ON c.peer = a.account
               LEFT JOIN (SELECT conversation, max(time_ms) AS said FROM message GROUP BY conversation) m
               ON m.conversation = c.id
               WHERE a.account != ?1 AND a.former = 0 GROUP BY a.account
               ORDER BY max(m.said) IS NULL, max(m.said) DESC, a.account";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map(params![own.as_bytes()], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?)))?;
    let rows = rows.collect::<Result<Vec<([u8; 16], String)>, _>>()?;
    let mut contacts = Vec::new();
    for (account, handle) in rows {
        let account = AccountId::from_bytes(account);
        let handle: Handle = handle.parse().map_err(|_| VaultError::Damaged("handle"))?;
        // Of one that another device has told of, and this one has not met yet, nothing is known first-hand.
        if let Some(log) = load_log(connection, account)? {
            contacts.push(LinkContact { account, handle, log: log.at() });
        }
        if contacts.len() == LINK_CONTACTS_MAX {
            break;
        }
    }
    Ok(contacts)
}

/// Conversations with the highest epoch seen, the one with the newest message first; without that of the own devices, of
/// which a person is never told that it is missing.
fn conversations(connection: &Connection) -> Result<Vec<(ConversationId, u64)>, VaultError> {
    let sql = format!(
        "SELECT c.id, c.epoch_seen FROM conversation c
         LEFT JOIN (SELECT conversation, max(time_ms) AS said FROM message GROUP BY conversation) m
         ON m.conversation = c.id
         WHERE c.state IN ({ACTIVE}, {ABSENT}) AND c.epoch_seen <= ?1 AND c.kind != {OWN}
         ORDER BY m.said IS NULL, m.said DESC, c.id LIMIT ?2"
    );
    let most = u64::try_from(LINK_CONVERSATIONS_MAX).unwrap_or(u64::MAX);
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params![EPOCH_MAX, most], |row| {
        Ok((ConversationId::from_bytes(row.get(0)?), row.get::<_, u64>(1)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
