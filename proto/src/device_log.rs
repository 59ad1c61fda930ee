//! An account's device log: append-only, hash-chained, signed. Whoever holds it knows the account's devices without
//! trusting the server.

mod draft;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;

use crate::convert::{PayloadError, fixed, id, raw, schema};
use crate::ids::first_half;
use crate::limits::{DEVICES_MAX, LOG_ENTRIES_MAX, LOG_ENTRY_BYTES_MAX};
use crate::{AccountId, DeviceId};
pub use draft::{AddDraft, countersign, draft_add, finish_entry};

const LOG_VERSION: u32 = 1;
const SIGNATURE_LABEL: &[u8] = b"gureum device log entry v1\0";
const COUNTERSIGNATURE_LABEL: &[u8] = b"gureum device log countersignature v1\0";
const ACCOUNT_CONTEXT: &str = "gureum 2026-11 account id v1";
const ENTRY_CONTEXT: &str = "gureum 2026-11 device log entry v1";
const DEVICE_CONTEXT: &str = "gureum 2026-11 device id v1";

/// The two public keys of a device. The one proves it to the server, the other signs as an MLS leaf; they are
/// never the same, so that no signature of one protocol can serve in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceKeys {
    proof: VerifyingKey,
    mls: [u8; 32],
}

impl DeviceKeys {
    /// Pairs two public keys.
    ///
    /// # Errors
    /// The keys are the same, or the proof key is no Ed25519 public key.
    pub fn new(proof: &[u8; 32], mls: &[u8; 32]) -> Result<Self, LogError> {
        let key = VerifyingKey::from_bytes(proof).map_err(|_| LogError::Keys)?;
        if proof == mls || key.is_weak() {
            return Err(LogError::Keys);
        }
        Ok(Self { proof: key, mls: *mls })
    }

    /// The key that proves the device to the server.
    #[must_use]
    pub const fn proof(&self) -> &VerifyingKey {
        &self.proof
    }

    /// The key that signs as an MLS leaf.
    #[must_use]
    pub const fn mls(&self) -> &[u8; 32] {
        &self.mls
    }

    /// The id that follows from the keys.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        let mut hasher = blake3::Hasher::new_derive_key(DEVICE_CONTEXT);
        hasher.update(self.proof.as_bytes()).update(&self.mls);
        DeviceId::from_bytes(first_half(&hasher.finalize()))
    }

    pub(crate) fn read(keys: &schema::DeviceKeys) -> Result<Self, LogError> {
        Self::new(&fixed(&keys.proof_key, "proof key")?, &fixed(&keys.mls_key, "MLS key")?)
    }

    pub(crate) fn write(&self) -> schema::DeviceKeys {
        schema::DeviceKeys { proof_key: raw(self.proof.as_bytes()), mls_key: raw(self.mls) }
    }
}

/// A device, as its account's log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedDevice {
    /// Its keys.
    pub keys: DeviceKeys,
    /// The entry that added it.
    pub added_at: u64,
    /// When it was added, by the clock of the device that wrote the entry; for people only.
    pub added_ms: u64,
    /// The entry that revoked it.
    pub revoked_at: Option<u64>,
}

/// An account's devices and the head of the chain, replayed from its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceLog {
    account: AccountId,
    length: u64,
    head: [u8; 32],
    recovery: VerifyingKey,
    /// Ascending by id. Most accounts have one device, or two, and a server keeps the logs of many: the least node of a tree
    /// has room for eleven, in 3 KB.
    devices: Vec<(DeviceId, LoggedDevice)>,
}

/// What an entry changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogChange {
    /// A device was added.
    Added(DeviceId),
    /// A device was revoked.
    Revoked(DeviceId),
    /// The recovery key was replaced.
    RecoveryRotated,
    /// All devices were revoked and one added, by the recovery key.
    Recovered {
        /// The new device.
        added: DeviceId,
        /// The devices that were active until then.
        revoked: Vec<DeviceId>,
    },
}

/// Why an entry does not belong where it claims to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Not an entry of the schema.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A log of no entries.
    #[error("a device log has at least one entry")]
    Empty,
    /// The two keys are the same or one is no key.
    #[error("a device needs two different keys")]
    Keys,
    /// Another version of the log's format.
    #[error("the entry has an unknown version")]
    Version,
    /// Its index or the hash of the entry before are not those of this log: a fork, a repetition or a hole.
    #[error("the entry does not follow the log's head")]
    Fork,
    /// A root elsewhere than at the beginning, or none there.
    #[error("an account's root stands at entry 0 and only there")]
    Root,
    /// The signer is no active device of the account, nor its recovery key where that may sign.
    #[error("the entry's signer may not sign it")]
    Signer,
    /// A signature or countersignature does not hold.
    #[error("the entry's signature does not hold")]
    Signature,
    /// It adds a device that is or was there, or revokes one that is not active, or the last one.
    #[error("the entry changes a device that it cannot change")]
    Device,
    /// More entries or devices than allowed.
    #[error("the device log is full")]
    Full,
}

/// Where a log stands: what its next entry must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    /// How many entries it has; the index of the next one.
    pub length: u64,
    /// The hash of the newest entry.
    pub hash: [u8; 32],
}

impl DeviceLog {
    /// Begins a log from its signed entry 0.
    ///
    /// # Errors
    /// The entry is malformed, no root, or its signatures do not hold.
    pub fn from_root(signed: &[u8]) -> Result<Self, LogError> {
        let (wire, body) = open(signed)?;
        let Some(schema::log_entry::Change::Root(root)) = &body.change else { return Err(LogError::Root) };
        let keys = DeviceKeys::read(root.device.as_ref().ok_or(PayloadError::Missing("device"))?)?;
        let recovery = public_key(&root.recovery_key)?;
        if body.index != 0 || !body.previous.is_empty() {
            return Err(LogError::Root);
        }
        if body.signer.as_ref() != keys.device().as_bytes() {
            return Err(LogError::Signer);
        }
        verify(keys.proof(), SIGNATURE_LABEL, &wire.body, &wire.signature)?;
        verify(&recovery, COUNTERSIGNATURE_LABEL, &wire.body, &wire.countersignature)?;
        let device = LoggedDevice { keys, added_at: 0, added_ms: body.time_ms, revoked_at: None };
        Ok(Self {
            account: AccountId::from_bytes(first_half(&labelled(ACCOUNT_CONTEXT, &wire.body))),
            length: 1,
            head: entry_hash(&wire.body),
            recovery,
            devices: vec![(keys.device(), device)],
        })
    }

    /// Replays a log from its first entry.
    ///
    /// # Errors
    /// As [`Self::from_root`] and [`Self::append`].
    pub fn replay<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, LogError> {
        let mut entries = entries.into_iter();
        let mut log = Self::from_root(entries.next().ok_or(LogError::Empty)?)?;
        for entry in entries {
            log.append(entry)?;
        }
        Ok(log)
    }

    /// Appends a signed entry; a refused one changes nothing.
    ///
    /// # Errors
    /// It is malformed, does not follow the head, is not signed by who may, or changes what it cannot.
    pub fn append(&mut self, signed: &[u8]) -> Result<LogChange, LogError> {
        let (wire, body) = open(signed)?;
        if self.length >= LOG_ENTRIES_MAX {
            return Err(LogError::Full);
        }
        if body.index != self.length || body.previous.as_ref() != self.head {
            return Err(LogError::Fork);
        }
        let signer = self.signer(&body)?;
        verify(&signer, SIGNATURE_LABEL, &wire.body, &wire.signature)?;
        let change = self.apply(&wire, &body)?;
        self.head = entry_hash(&wire.body);
        self.length += 1;
        Ok(change)
    }

    /// The account that this is the log of.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// How many entries it has.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The hash of the newest entry.
    #[must_use]
    pub const fn head(&self) -> &[u8; 32] {
        &self.head
    }

    /// Where it stands.
    #[must_use]
    pub const fn at(&self) -> LogHead {
        LogHead { length: self.length, hash: self.head }
    }

    /// The key that can bring the account back.
    #[must_use]
    pub const fn recovery_key(&self) -> &VerifyingKey {
        &self.recovery
    }

    /// A device that is or was in it.
    #[must_use]
    pub fn device(&self, device: DeviceId) -> Option<&LoggedDevice> {
        let place = self.place(device).ok()?;
        self.devices.get(place).map(|(_, device)| device)
    }

    /// The devices that are not revoked.
    pub fn active(&self) -> impl Iterator<Item = (DeviceId, &LoggedDevice)> {
        self.devices.iter().filter(|(_, device)| device.revoked_at.is_none()).map(|(id, device)| (*id, device))
    }

    /// Whether a device may act for the account now.
    #[must_use]
    pub fn is_active(&self, device: DeviceId) -> bool {
        self.device(device).is_some_and(|device| device.revoked_at.is_none())
    }

    /// Whether a device was in it, and may not act for the account any more.
    #[must_use]
    pub fn is_revoked(&self, device: DeviceId) -> bool {
        self.device(device).is_some_and(|device| device.revoked_at.is_some())
    }

    /// Where a device stands, or where it would.
    fn place(&self, device: DeviceId) -> Result<usize, usize> {
        self.devices.binary_search_by_key(&device, |(id, _)| *id)
    }

    fn signer(&self, body: &schema::LogEntry) -> Result<VerifyingKey, LogError> {
        use schema::log_entry::Change;
        if body.signer.is_empty() {
            let may = matches!(body.change, Some(Change::Recover(_) | Change::Revoke(_) | Change::RotateRecovery(_)));
            return if may { Ok(self.recovery) } else { Err(LogError::Signer) };
        }
        let device = id(&body.signer, "signer")?;
        match self.device(device) {
            Some(signer) if signer.revoked_at.is_none() && !matches!(body.change, Some(Change::Recover(_))) => {
                Ok(*signer.keys.proof())
            }
            _ => Err(LogError::Signer),
        }
    }

    fn apply(&mut self, wire: &schema::SignedLogEntry, body: &schema::LogEntry) -> Result<LogChange, LogError> {
        use schema::log_entry::Change;
        match body.change.as_ref().ok_or(PayloadError::Missing("change"))? {
            Change::Root(_) => Err(LogError::Root),
            Change::Add(keys) => {
                if self.active().count() >= DEVICES_MAX {
                    return Err(LogError::Full);
                }
                Ok(LogChange::Added(self.add(keys, wire, body)?))
            }
            Change::Revoke(device) => {
                let device = id(device, "device")?;
                if !self.is_active(device) || self.active().count() == 1 {
                    return Err(LogError::Device);
                }
                self.revoke(device, body.index);
                Ok(LogChange::Revoked(device))
            }
            Change::RotateRecovery(key) => {
                let key = public_key(key)?;
                verify(&key, COUNTERSIGNATURE_LABEL, &wire.body, &wire.countersignature)?;
                self.recovery = key;
                Ok(LogChange::RecoveryRotated)
            }
            Change::Recover(keys) => {
                let revoked: Vec<_> = self.active().map(|(id, _)| id).collect();
                let added = self.add(keys, wire, body)?;
                revoked.iter().for_each(|device| self.revoke(*device, body.index));
                Ok(LogChange::Recovered { added, revoked })
            }
        }
    }

    fn add(
        &mut self,
        keys: &schema::DeviceKeys,
        wire: &schema::SignedLogEntry,
        body: &schema::LogEntry,
    ) -> Result<DeviceId, LogError> {
        let keys = DeviceKeys::read(keys)?;
        let device = keys.device();
        let Err(place) = self.place(device) else { return Err(LogError::Device) };
        verify(keys.proof(), COUNTERSIGNATURE_LABEL, &wire.body, &wire.countersignature)?;
        let logged = LoggedDevice { keys, added_at: body.index, added_ms: body.time_ms, revoked_at: None };
        self.devices.reserve_exact(1);
        self.devices.insert(place, (device, logged));
        Ok(device)
    }

    fn revoke(&mut self, device: DeviceId, at: u64) {
        let place = self.place(device).ok();
        if let Some((_, device)) = place.and_then(|place| self.devices.get_mut(place)) {
            device.revoked_at = Some(at);
        }
    }
}

/// Writes entry 0: the first device and the recovery key, signed by both.
///
/// # Errors
/// The device's two keys are the same.
pub fn sign_root(proof: &SigningKey, mls: &[u8; 32], recovery: &SigningKey, time_ms: u64) -> Result<Bytes, LogError> {
    let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), mls)?;
    let root = schema::LogRoot { device: Some(keys.write()), recovery_key: raw(recovery.verifying_key().as_bytes()) };
    let body = schema::LogEntry {
        version: LOG_VERSION,
        index: 0,
        previous: Bytes::new(),
        time_ms,
        signer: raw(keys.device()),
        change: Some(schema::log_entry::Change::Root(root)),
    };
    Ok(seal(&body, proof, Some(recovery)))
}

/// Writes the entry that adds a device, signed by an active one and countersigned by the new one.
#[must_use]
pub fn sign_add(
    log: &DeviceLog,
    signer: (DeviceId, &SigningKey),
    keys: &DeviceKeys,
    new: &SigningKey,
    time_ms: u64,
) -> Bytes {
    let body = draft_add(log.at(), signer.0, keys, time_ms);
    finish_entry(&body, signer.1, &countersign(&body, new))
}

/// Writes the entry that revokes a device.
#[must_use]
pub fn sign_revoke(log: &DeviceLog, signer: (DeviceId, &SigningKey), device: DeviceId, time_ms: u64) -> Bytes {
    let change = schema::log_entry::Change::Revoke(raw(device));
    seal(&next(log.at(), raw(signer.0), change, time_ms), signer.1, None)
}

/// Writes the entry that replaces the recovery key.
#[must_use]
pub fn sign_rotate_recovery(
    log: &DeviceLog,
    signer: (DeviceId, &SigningKey),
    recovery: &SigningKey,
    time_ms: u64,
) -> Bytes {
    let change = schema::log_entry::Change::RotateRecovery(raw(recovery.verifying_key().as_bytes()));
    seal(&next(log.at(), raw(signer.0), change, time_ms), signer.1, Some(recovery))
}

/// Writes the entry by which the recovery key brings the account back with one new device. Whoever has lost every
/// device knows no more of the log than where it stands.
#[must_use]
pub fn sign_recover(at: LogHead, recovery: &SigningKey, keys: &DeviceKeys, new: &SigningKey, time_ms: u64) -> Bytes {
    let change = schema::log_entry::Change::Recover(keys.write());
    seal(&next(at, Bytes::new(), change, time_ms), recovery, Some(new))
}

fn next(at: LogHead, signer: Bytes, change: schema::log_entry::Change, time_ms: u64) -> schema::LogEntry {
    schema::LogEntry {
        version: LOG_VERSION,
        index: at.length,
        previous: raw(at.hash),
        time_ms,
        signer,
        change: Some(change),
    }
}

fn seal(body: &schema::LogEntry, signer: &SigningKey, counter: Option<&SigningKey>) -> Bytes {
    let body = Bytes::from(body.encode_to_vec());
    let countersignature = counter.map_or_else(Bytes::new, |key| raw(countersign(&body, key)));
    enclose(&body, signer, countersignature)
}

fn enclose(body: &Bytes, signer: &SigningKey, countersignature: Bytes) -> Bytes {
    let signature = raw(signer.sign(&[SIGNATURE_LABEL, body].concat()).to_bytes());
    schema::SignedLogEntry { body: body.clone(), signature, countersignature }.encode_to_vec().into()
}

fn open(signed: &[u8]) -> Result<(schema::SignedLogEntry, schema::LogEntry), LogError> {
    if signed.len() > LOG_ENTRY_BYTES_MAX {
        return Err(PayloadError::TooLong("log entry").into());
    }
    let wire = schema::SignedLogEntry::decode(signed).map_err(PayloadError::from)?;
    let body = schema::LogEntry::decode(wire.body.clone()).map_err(PayloadError::from)?;
    if body.version != LOG_VERSION {
        return Err(LogError::Version);
    }
    Ok((wire, body))
}

fn verify(key: &VerifyingKey, label: &[u8], body: &[u8], signature: &[u8]) -> Result<(), LogError> {
    let signature = Signature::from_slice(signature).map_err(|_| LogError::Signature)?;
    key.verify_strict(&[label, body].concat(), &signature).map_err(|_| LogError::Signature)
}

fn public_key(bytes: &[u8]) -> Result<VerifyingKey, LogError> {
    VerifyingKey::from_bytes(&fixed(bytes, "recovery key")?).map_err(|_| LogError::Keys)
}

fn entry_hash(body: &[u8]) -> [u8; 32] {
    *labelled(ENTRY_CONTEXT, body).as_bytes()
}

fn labelled(context: &str, bytes: &[u8]) -> blake3::Hash {
    blake3::Hasher::new_derive_key(context).update(bytes).finalize()
}

#[cfg(test)]
mod tests;
