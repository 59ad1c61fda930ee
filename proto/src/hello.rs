//! The proof that opens every connection: a signature over who asks and over this very connection.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;

use crate::convert::{PayloadError, fixed, id, raw, schema};
use crate::limits::{HELLO_CLAIM_BYTES_MAX, SERVER_NAME_BYTES_MAX};
use crate::push::read_digest;
use crate::{AccountId, DeviceId, LifeToken, PushDigest};

/// The protocol version that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// The ALPN of version 1.
pub const ALPN: &str = "gureum/1";
/// The label for the TLS exporter (RFC 8446 §7.5, RFC 9266 for the use as a channel binding).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-gureum-hello-v1";
/// The length of the exported secret that a proof covers.
pub const EXPORTER_BYTES: usize = 32;

const SIGNATURE_LABEL: &[u8] = b"gureum hello v1\0";

/// What a device says of itself when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloClaim {
    /// The TLS server name that the client dialled: a DNS name or an IP address.
    pub server_name: String,
    /// The account.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// Whether to open the delivery stream.
    pub subscribe: bool,
    /// How far this device has taken its inbox, and the running count there.
    pub cursor: Position,
    /// [`crate::epochs_digest`] of what the device holds; `None`: do not compare.
    pub epochs_digest: Option<[u8; 32]>,
    /// Entries of its own device log that it has seen.
    pub log_entries: u64,
    /// Where in its life the device's state stands; `None`: do not compare.
    pub life: Option<Life>,
    /// The push target that the device wants the server to have; `None`: none.
    pub push_digest: Option<PushDigest>,
}

/// A place in a device's life: each of its connections gives it a token for the next one, so that of two copies of
/// its state the one that went on can be told from the one that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// How many connections have led to this state.
    pub generation: u64,
    /// What the last of them was given; zeros before the first.
    pub token: LifeToken,
    /// What this one is given: random, and the same until the server has confirmed it.
    pub next: LifeToken,
}

/// A place in an inbox: the position, and how many application messages there are up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Position {
    /// The position; 0 is before the first entry.
    pub seq: u64,
    /// Application messages up to and including it.
    pub count: u64,
}

/// A Hello as received: a claim that nothing has confirmed yet.
#[derive(Debug, Clone)]
pub struct Hello {
    claim: HelloClaim,
    is_of_our_version: bool,
    claim_bytes: Bytes,
    signature: Signature,
}

/// Why a proof fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The claim is for another protocol version or ALPN.
    #[error("the hello is for another protocol version")]
    Version,
    /// The signature is not the key's over this claim and this connection.
    #[error("the hello's signature does not hold for this connection")]
    Signature,
}

impl Hello {
    /// Signs a claim for the connection that exported `exporter`; returns the payload of the Hello frame.
    #[must_use]
    pub fn sign(claim: &HelloClaim, key: &SigningKey, exporter: &[u8; EXPORTER_BYTES]) -> Bytes {
        let claim_bytes = schema::HelloClaim {
            version: PROTOCOL_VERSION,
            role: schema::Role::Device.into(),
            alpn: ALPN.to_owned(),
            server_name: claim.server_name.clone(),
            account: Bytes::copy_from_slice(claim.account.as_bytes()),
            device: Bytes::copy_from_slice(claim.device.as_bytes()),
            subscribe: claim.subscribe,
            cursor_seq: claim.cursor.seq,
            cursor_count: claim.cursor.count,
            epochs_digest: claim.epochs_digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest)),
            log_entries: claim.log_entries,
            life: claim.life.map_or(0, |life| life.generation),
            life_token: claim.life.map_or_else(Bytes::new, |life| raw(life.token)),
            life_next: claim.life.map_or_else(Bytes::new, |life| raw(life.next)),
            push_digest: claim.push_digest.map_or_else(Bytes::new, raw),
        }
        .encode_to_vec();
        let signature = key.sign(&signed_bytes(&claim_bytes, exporter));
        schema::Hello { claim: claim_bytes.into(), signature: Bytes::copy_from_slice(&signature.to_bytes()) }
            .encode_to_vec()
            .into()
    }

    /// Reads the payload of a Hello frame.
    ///
    /// # Errors
    /// The payload is not a Hello, or breaks a bound.
    pub fn parse(payload: Bytes) -> Result<Self, PayloadError> {
        let hello = schema::Hello::decode(payload)?;
        if hello.claim.len() > HELLO_CLAIM_BYTES_MAX {
            return Err(PayloadError::TooLong("hello claim"));
        }
        let signature = Signature::from_bytes(&fixed(&hello.signature, "hello signature")?);
        let claim = schema::HelloClaim::decode(hello.claim.clone())?;
        if claim.role() != schema::Role::Device {
            return Err(PayloadError::Invalid("role"));
        }
        if claim.server_name.len() > SERVER_NAME_BYTES_MAX {
            return Err(PayloadError::TooLong("server name"));
        }
        let epochs_digest = match claim.epochs_digest.len() {
            0 => None,
            _ => Some(fixed(&claim.epochs_digest, "epochs digest")?),
        };
        let life = match claim.life_next.len() {
            0 => None,
            _ => Some(Life {
                generation: claim.life,
                token: id(&claim.life_token, "life token")?,
                next: id(&claim.life_next, "next life token")?,
            }),
        };
        Ok(Self {
            claim: HelloClaim {
                server_name: claim.server_name,
                account: id(&claim.account, "account")?,
                device: id(&claim.device, "device")?,
                subscribe: claim.subscribe,
                cursor: Position { seq: claim.cursor_seq, count: claim.cursor_count },
                epochs_digest,
                log_entries: claim.log_entries,
                life,
                push_digest: read_digest(&claim.push_digest)?,
            },
            is_of_our_version: claim.version == PROTOCOL_VERSION && claim.alpn == ALPN,
            claim_bytes: hello.claim,
            signature,
        })
    }

    /// The claim, unconfirmed.
    #[must_use]
    pub const fn claim(&self) -> &HelloClaim {
        &self.claim
    }

    /// Confirms the claim: `key` signed exactly these bytes for the connection that exported `exporter`.
    ///
    /// # Errors
    /// Another version, or a signature that does not hold.
    pub fn verify(&self, key: &VerifyingKey, exporter: &[u8; EXPORTER_BYTES]) -> Result<&HelloClaim, ProofError> {
        if !self.is_of_our_version {
            return Err(ProofError::Version);
        }
        key.verify_strict(&signed_bytes(&self.claim_bytes, exporter), &self.signature)
            .map_err(|_| ProofError::Signature)?;
        Ok(&self.claim)
    }

    /// Whether the claim is for the version that this crate speaks.
    #[must_use]
    pub const fn speaks_our_version(&self) -> bool {
        self.is_of_our_version
    }
}

/// The context for the TLS exporter: account and device.
#[must_use]
pub fn exporter_context(account: AccountId, device: DeviceId) -> [u8; 32] {
    let mut context = [0; 32];
    let (first, second) = context.split_at_mut(16);
    first.copy_from_slice(account.as_bytes());
    second.copy_from_slice(device.as_bytes());
    context
}

fn signed_bytes(claim: &[u8], exporter: &[u8; EXPORTER_BYTES]) -> Vec<u8> {
    [SIGNATURE_LABEL, exporter, claim].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> HelloClaim {
        HelloClaim {
            server_name: "127.0.0.1".into(),
            account: AccountId::from_bytes([1; 16]),
            device: DeviceId::from_bytes([2; 16]),
            subscribe: true,
            cursor: Position { seq: 9, count: 4 },
            epochs_digest: Some([3; 32]),
            log_entries: 1,
            life: Some(Life {
                generation: 7,
                token: LifeToken::from_bytes([8; 16]),
                next: LifeToken::from_bytes([9; 16]),
            }),
            push_digest: Some(PushDigest::from_bytes([10; 16])),
        }
    }

    #[test]
    fn holds_for_the_connection_it_was_made_on() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let hello = Hello::parse(Hello::sign(&claim(), &key, &[6; 32])).unwrap();
        assert_eq!(hello.verify(&key.verifying_key(), &[6; 32]), Ok(&claim()));
    }

    #[test]
    fn fails_on_another_connection_with_another_key_or_changed() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let payload = Hello::sign(&claim(), &key, &[6; 32]);
        let hello = Hello::parse(payload.clone()).unwrap();
        assert_eq!(hello.verify(&key.verifying_key(), &[7; 32]), Err(ProofError::Signature));
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert_eq!(hello.verify(&other, &[6; 32]), Err(ProofError::Signature));

        let mut wire = schema::Hello::decode(payload).unwrap();
        let mut body = schema::HelloClaim::decode(wire.claim).unwrap();
        body.cursor_seq += 1;
        wire.claim = body.encode_to_vec().into();
        let changed = Hello::parse(wire.encode_to_vec().into()).unwrap();
        assert_eq!(changed.verify(&key.verifying_key(), &[6; 32]), Err(ProofError::Signature));
    }

    #[test]
    fn refuses_another_version_even_when_signed() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let mut wire = schema::Hello::decode(Hello::sign(&claim(), &key, &[6; 32])).unwrap();
        let mut body = schema::HelloClaim::decode(wire.claim).unwrap();
        body.version = 2;
        wire.claim = body.encode_to_vec().into();
        let signature = key.sign(&signed_bytes(&wire.claim, &[6; 32]));
        wire.signature = Bytes::copy_from_slice(&signature.to_bytes());
        let hello = Hello::parse(wire.encode_to_vec().into()).unwrap();
        assert_eq!(hello.verify(&key.verifying_key(), &[6; 32]), Err(ProofError::Version));
    }
}
