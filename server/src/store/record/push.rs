//! What a device is woken by, sealed, and what it was last woken for.

use bytes::Bytes;
use gureum_proto::{PushDigest, PushService};

use super::{RECORD_VERSION, Reader, Record, RecordError};

/// Where a device's wake-ups go. What a service needs for it is sealed under a key that is kept outside the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushTargetRecord {
    /// The digest of the whole target, for the device to compare.
    pub digest: PushDigest,
    /// Which service it is of.
    pub service: PushService,
    /// What fails together: for Web Push, a keyed hash of the origin; [`Self::SANDBOX`] for APNs's apps under development;
    /// else 0.
    pub host: u64,
    /// Whether a notification is shown, so that the service may hurry.
    pub visible: bool,
    /// When the device set it.
    pub set_ms: u64,
    /// Drawn at random each time that it is set: equal means unchanged.
    pub generation: u64,
    /// The nonce under which it is sealed.
    pub nonce: [u8; 12],
    /// The [`gureum_proto::PushTarget`], sealed.
    pub sealed: Bytes,
}

impl PushTargetRecord {
    /// In the place of a host, of a token of APNs for an app under development.
    pub const SANDBOX: u64 = 1;
}

impl Record for PushTargetRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(55 + self.sealed.len());
        out.push(RECORD_VERSION);
        out.extend_from_slice(self.digest.as_bytes());
        out.push(match self.service {
            PushService::Apns => 1,
            PushService::Fcm => 2,
            PushService::WebPush => 3,
        });
        out.extend_from_slice(&self.host.to_be_bytes());
        out.push(u8::from(self.visible));
        out.extend_from_slice(&self.set_ms.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.sealed);
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let digest = PushDigest::from_bytes(reader.array()?);
        let service = match reader.u8()? {
            1 => PushService::Apns,
            2 => PushService::Fcm,
            3 => PushService::WebPush,
            found => return Err(RecordError::Tag { what: "push service", found }),
        };
        let (host, visible) = (reader.u64()?, reader.flag()?);
        let (set_ms, generation, nonce) = (reader.u64()?, reader.u64()?, reader.array()?);
        let sealed = value.slice_ref(reader.rest());
        Ok(Self { digest, service, host, visible, set_ms, generation, nonce, sealed })
    }
}

/// What a device was last woken for. Zeros: for nothing since it was last connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushStateRecord {
    /// The last position of the inbox when it was woken.
    pub woken_seq: u64,
    /// When the service took the wake-up.
    pub woken_ms: u64,
    /// When it was warned that messages are about to expire.
    pub warned_ms: u64,
}

impl Record for PushStateRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.woken_seq.to_be_bytes());
        out.extend_from_slice(&self.woken_ms.to_be_bytes());
        out.extend_from_slice(&self.warned_ms.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let state = Self { woken_seq: reader.u64()?, woken_ms: reader.u64()?, warned_ms: reader.u64()? };
        reader.finish(state)
    }
}
