//! Leaving a group: a signed statement, which whoever commits next carries out and brings along as the reason.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;

use crate::convert::{PayloadError, filled, fixed, id, raw, schema};
use crate::limits::{HANDSHAKE_BYTES_MAX, LEAF_KEY_BYTES_MAX, LEAVE_BYTES_MAX, LEAVES_PER_COMMIT_MAX};
use crate::{AccountId, ConversationId, DeviceId};

const VERSION: u32 = 1;
const SIGNATURE_LABEL: &[u8] = b"gureum leave v1\0";

/// An account leaves a conversation.
///
/// It means the account as it is in the conversation now: the statement names the encryption key of a leaf, and whoever is
/// added again has another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// What it leaves.
    pub conversation: ConversationId,
    /// Who leaves.
    pub account: AccountId,
    /// Which of its devices says so.
    pub device: DeviceId,
    /// The encryption key of that device's leaf; 1 to [`LEAF_KEY_BYTES_MAX`] bytes.
    pub leaf_key: Bytes,
}

/// A [`Leave`] as it was signed. The bytes are kept as received: the signature covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedLeave {
    leave: Leave,
    body: Bytes,
    signature: [u8; 64],
}

impl SignedLeave {
    /// Signs with the device's proof key.
    #[must_use]
    pub fn sign(leave: Leave, key: &SigningKey) -> Self {
        let body: Bytes = schema::Leave {
            version: VERSION,
            conversation: raw(leave.conversation),
            account: raw(leave.account),
            device: raw(leave.device),
            leaf_key: leave.leaf_key.clone(),
        }
        .encode_to_vec()
        .into();
        let signature = key.sign(&signed_bytes(&body)).to_bytes();
        Self { leave, body, signature }
    }

    /// What it says. Worth nothing until [`Self::holds`].
    #[must_use]
    pub const fn leave(&self) -> &Leave {
        &self.leave
    }

    /// Whether this proof key has signed it.
    #[must_use]
    pub fn holds(&self, proof: &VerifyingKey) -> bool {
        proof.verify_strict(&signed_bytes(&self.body), &Signature::from_bytes(&self.signature)).is_ok()
    }

    /// As it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.write().encode_to_vec().into()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// It is no statement of this version.
    pub fn decode(encoded: Bytes) -> Result<Self, PayloadError> {
        Self::read(schema::SignedLeave::decode(encoded)?)
    }

    pub(crate) fn write(&self) -> schema::SignedLeave {
        schema::SignedLeave { body: self.body.clone(), signature: raw(self.signature) }
    }

    pub(crate) fn read(signed: schema::SignedLeave) -> Result<Self, PayloadError> {
        let body = filled(signed.body, LEAVE_BYTES_MAX, "leave")?;
        let leave = schema::Leave::decode(body.clone())?;
        if leave.version != VERSION {
            return Err(PayloadError::Invalid("version"));
        }
        let leave = Leave {
            conversation: id(&leave.conversation, "conversation")?,
            account: id(&leave.account, "account")?,
            device: id(&leave.device, "device")?,
            leaf_key: filled(leave.leaf_key, LEAF_KEY_BYTES_MAX, "leaf key")?,
        };
        Ok(Self { leave, body, signature: fixed(&signed.signature, "signature")? })
    }
}

/// What goes along with a commit as its authenticated data: why it removes accounts that leave. Whoever takes the commit,
/// even days later from the log, needs nothing else to judge it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitAttachment {
    /// The statements; at most [`LEAVES_PER_COMMIT_MAX`].
    pub leaves: Vec<SignedLeave>,
}

impl CommitAttachment {
    /// The authenticated data: nothing if there is no statement.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        schema::CommitAttachment { leaves: self.leaves.iter().map(SignedLeave::write).collect() }.encode_to_vec()
    }

    /// Reads the authenticated data of a commit.
    ///
    /// # Errors
    /// It is anything else, or breaks a bound.
    pub fn decode(data: &[u8]) -> Result<Self, PayloadError> {
        if data.len() > HANDSHAKE_BYTES_MAX {
            return Err(PayloadError::TooLong("attachment of a commit"));
        }
        let attachment = schema::CommitAttachment::decode(data)?;
        if attachment.leaves.len() > LEAVES_PER_COMMIT_MAX {
            return Err(PayloadError::TooLong("list of those who leave"));
        }
        Ok(Self { leaves: attachment.leaves.into_iter().map(SignedLeave::read).collect::<Result<_, _>>()? })
    }
}

fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [SIGNATURE_LABEL, body].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may fail by a panic")]

    use super::*;

    fn leave() -> Leave {
        Leave {
            conversation: ConversationId::from_bytes([0xc1; 16]),
            account: AccountId::from_bytes([0xa1; 16]),
            device: DeviceId::from_bytes([0xd1; 16]),
            leaf_key: Bytes::from_static(&[0xe1; 32]),
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn a_statement_has_these_bytes_and_comes_back() {
        let signed = SignedLeave::sign(leave(), &key(5));
        let body =
            format!("08011210{}1a10{}2210{}2a20{}", "c1".repeat(16), "a1".repeat(16), "d1".repeat(16), "e1".repeat(32));
        assert_eq!(data_encoding::HEXLOWER.encode(&signed.body), body);
        assert_eq!(SignedLeave::decode(signed.encode()), Ok(signed));
    }

    #[test]
    fn a_statement_holds_for_who_signed_it_and_as_it_was_signed() {
        let signed = SignedLeave::sign(leave(), &key(5));
        assert!(signed.holds(&key(5).verifying_key()));
        assert!(!signed.holds(&key(6).verifying_key()));
        let whole = signed.encode();
        for at in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[at] ^= 1;
            if let Ok(read) = SignedLeave::decode(changed.into()) {
                assert!(!read.holds(&key(5).verifying_key()), "byte {at}");
            }
        }
    }

    #[test]
    fn a_statement_keeps_its_bounds() {
        let body = |leaf_key: &[u8], version| schema::Leave {
            version,
            conversation: raw([1; 16]),
            account: raw([1; 16]),
            device: raw([1; 16]),
            leaf_key: raw(leaf_key),
        };
        let read = |body: schema::Leave, signature: usize| {
            let (body, signature) = (body.encode_to_vec().into(), vec![7; signature].into());
            SignedLeave::read(schema::SignedLeave { body, signature }).map(|_| ())
        };
        assert_eq!(read(body(&[1; LEAF_KEY_BYTES_MAX], 1), 64), Ok(()));
        assert_eq!(read(body(&[], 1), 64), Err(PayloadError::Missing("leaf key")));
        assert_eq!(read(body(&[1; LEAF_KEY_BYTES_MAX + 1], 1), 64), Err(PayloadError::TooLong("leaf key")));
        assert_eq!(read(body(&[1; LEAVE_BYTES_MAX], 1), 64), Err(PayloadError::TooLong("leave")));
        assert_eq!(read(body(&[1], 2), 64), Err(PayloadError::Invalid("version")));
        for length in [0, 63, 65] {
            assert_eq!(read(body(&[1], 1), length), Err(PayloadError::Invalid("signature")));
        }
    }

    #[test]
    fn a_commit_brings_its_statements_along_and_mostly_nothing() {
        assert_eq!(CommitAttachment::default().encode(), Vec::<u8>::new());
        assert_eq!(CommitAttachment::decode(&[]), Ok(CommitAttachment::default()));
        let with = |count| CommitAttachment { leaves: vec![SignedLeave::sign(leave(), &key(5)); count] };
        assert_eq!(CommitAttachment::decode(&with(2).encode()), Ok(with(2)));
        assert_eq!(CommitAttachment::decode(&with(LEAVES_PER_COMMIT_MAX).encode()).map(|_| ()), Ok(()));
        let too_many = Err(PayloadError::TooLong("list of those who leave"));
        assert_eq!(CommitAttachment::decode(&with(LEAVES_PER_COMMIT_MAX + 1).encode()), too_many);
        assert!(CommitAttachment::decode(&[1]).is_err());
    }
}
