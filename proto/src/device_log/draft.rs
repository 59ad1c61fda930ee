//! The entry that adds a device, written in steps: who signs it and who countersigns it are two machines.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use prost::Message;

use super::{COUNTERSIGNATURE_LABEL, DeviceKeys, LOG_VERSION, LogError, LogHead, enclose, next};
use crate::convert::{PayloadError, fixed, id, raw, schema};
use crate::ids::DeviceId;
use crate::limits::LOG_ENTRY_BYTES_MAX;

/// What the body of an entry says that adds a device, for the device that is to countersign it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddDraft {
    /// Where the log stands that it follows.
    pub at: LogHead,
    /// The device that will sign it.
    pub signer: DeviceId,
    /// The keys of the device that it adds.
    pub keys: DeviceKeys,
    /// When it was written, by the signer's clock, in milliseconds since 1970.
    pub time_ms: u64,
}

impl AddDraft {
    /// Reads the body of an entry.
    ///
    /// # Errors
    /// It is malformed, of another version, or adds no device by the signature of another.
    pub fn read(body: &[u8]) -> Result<Self, LogError> {
        if body.len() > LOG_ENTRY_BYTES_MAX {
            return Err(PayloadError::TooLong("log entry").into());
        }
        let entry = schema::LogEntry::decode(body).map_err(PayloadError::from)?;
        if entry.version != LOG_VERSION {
            return Err(LogError::Version);
        }
        let Some(schema::log_entry::Change::Add(keys)) = &entry.change else {
            return Err(PayloadError::Invalid("change").into());
        };
        Ok(Self {
            at: LogHead { length: entry.index, hash: fixed(&entry.previous, "hash")? },
            signer: id(&entry.signer, "signer")?,
            keys: DeviceKeys::read(keys)?,
            time_ms: entry.time_ms,
        })
    }
}

/// Writes the body of the entry that adds a device: what both signatures will cover.
#[must_use]
pub fn draft_add(at: LogHead, signer: DeviceId, keys: &DeviceKeys, time_ms: u64) -> Bytes {
    let change = schema::log_entry::Change::Add(keys.write());
    next(at, raw(signer), change, time_ms).encode_to_vec().into()
}

/// The signature of the key that an entry introduces, over the entry's body.
#[must_use]
pub fn countersign(body: &[u8], key: &SigningKey) -> [u8; 64] {
    key.sign(&[COUNTERSIGNATURE_LABEL, body].concat()).to_bytes()
}

/// Signs a body that has been countersigned: the whole entry.
#[must_use]
pub fn finish_entry(body: &Bytes, signer: &SigningKey, countersignature: &[u8; 64]) -> Bytes {
    enclose(body, signer, raw(countersignature))
}
