//! The secrets that live as long as the server: under one the push targets are sealed, under the other phone numbers,
//! codes and locks are hashed. So the database alone wakes nobody, and names no number.

use std::fmt;
use std::sync::PoisonError;

use bytes::Bytes;
use gureum_proto::{AccountId, DeviceId, PushTarget};
use zeroize::Zeroizing;

use super::cipher::{Cipher, KeyBytes, NONCE_BYTES};
use super::{Keyring, KeyringError};
use crate::phone_hash::PhoneHasher;
use crate::store::record::PushTargetRecord;

const TARGET_LABEL: &[u8] = b"gureum/1 sealed push target";
const CIPHER_CONTEXT: &str = "gureum 2026-11 push target cipher";
const HOST_CONTEXT: &str = "gureum 2026-11 push target host";

/// Which secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretName {
    /// Of push targets.
    Push,
    /// Of phone numbers, codes and locks.
    Phone,
}

impl SecretName {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Push, Self::Phone];

    /// The name of its file in the directory of the keys.
    pub(crate) const fn file(self) -> &'static str {
        match self {
            Self::Push => "push.secret",
            Self::Phone => "phone.secret",
        }
    }
}

/// A secret, cleared when dropped.
pub(crate) struct Secret(KeyBytes);

impl Secret {
    pub(super) fn new(bytes: KeyBytes) -> Self {
        Self(bytes)
    }

    /// What hashes phone numbers under it.
    pub(crate) fn phone_hasher(&self) -> PhoneHasher {
        PhoneHasher::new(*self.0)
    }
}

/// Shows nothing of it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Keyring {
    /// A secret; made at its first use, and on the disk before this returns.
    ///
    /// # Errors
    /// When its file can't be read or written, or does not open with the master key.
    pub(crate) fn secret(&self, name: SecretName) -> Result<Secret, KeyringError> {
        // Two that ask at once must not make two of them.
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = match self.files.read_secret(name)? {
            Some(bytes) => bytes,
            None => self.files.create_secret(name)?,
        };
        drop(changing);
        Ok(Secret::new(secret))
    }

    /// Whether a secret opens; `None` if there is none. Changes nothing.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub(crate) fn inspect_secret(&self, name: SecretName) -> Result<Option<()>, KeyringError> {
        Ok(self.files.read_secret(name)?.map(drop))
    }
}

/// Seals push targets under their secret.
pub(crate) struct TokenSeal {
    cipher: Cipher,
    host_key: KeyBytes,
}

impl TokenSeal {
    /// Seals under this secret.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub(crate) fn new(secret: &Secret) -> Result<Self, KeyringError> {
        let derived = |context| Zeroizing::new(blake3::derive_key(context, secret.0.as_slice()));
        Ok(Self { cipher: Cipher::new(&derived(CIPHER_CONTEXT))?, host_key: derived(HOST_CONTEXT) })
    }

    /// Seals a target for its device: the nonce, and the sealed target.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub(crate) fn seal(
        &self,
        account: AccountId,
        device: DeviceId,
        target: &PushTarget,
    ) -> Result<([u8; NONCE_BYTES], Bytes), KeyringError> {
        let plain = Zeroizing::new(target.encode());
        let (nonce, sealed) = self.cipher.seal(&context(&account, &device), &plain)?;
        Ok((nonce, Bytes::from(sealed)))
    }

    /// Opens the target of a device; `None` if it is not what was sealed for this device under this secret.
    pub(crate) fn open(&self, account: AccountId, device: DeviceId, record: &PushTargetRecord) -> Option<PushTarget> {
        let plain = self.cipher.open(&context(&account, &device), &record.nonce, &record.sealed).map(Zeroizing::new)?;
        PushTarget::decode(&plain).ok().filter(|target| target.digest() == record.digest)
    }

    /// What stands for the origin of a Web Push endpoint in the database. Keyed, since origins are few.
    pub(crate) fn host(&self, origin: &str) -> u64 {
        let hash = blake3::keyed_hash(&self.host_key, origin.as_bytes());
        hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

/// Shows no key.
impl fmt::Debug for TokenSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSeal(..)")
    }
}

/// Binds a sealed target to its device: a record that was moved does not open.
fn context<'a>(account: &'a AccountId, device: &'a DeviceId) -> [&'a [u8]; 3] {
    [TARGET_LABEL, account.as_bytes(), device.as_bytes()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

    use gureum_proto::{PushAddress, PushService};

    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
    const OTHER: AccountId = AccountId::from_bytes([0xa2; 16]);
    const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
    const TOKEN: &str = "a-token-that-wakes-somebody";

    fn seal(secret: u8) -> TokenSeal {
        TokenSeal::new(&Secret::new(KeyBytes::new([secret; 32]))).unwrap()
    }

    fn target() -> PushTarget {
        PushTarget { address: PushAddress::Fcm { token: TOKEN.to_owned() }, visible: true }
    }

    fn sealed(seal: &TokenSeal) -> PushTargetRecord {
        let (nonce, sealed) = seal.seal(ACCOUNT, DEVICE, &target()).unwrap();
        PushTargetRecord {
            digest: target().digest(),
            service: PushService::Fcm,
            host: 0,
            visible: true,
            set_ms: 1,
            generation: 2,
            nonce,
            sealed,
        }
    }

    #[test]
    fn a_target_opens_for_its_device_and_nothing_of_it_shows() {
        let seal = seal(7);
        let record = sealed(&seal);
        assert_eq!(seal.open(ACCOUNT, DEVICE, &record), Some(target()));
        assert!(!record.sealed.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()));
        assert_ne!(record.sealed, sealed(&seal).sealed, "two of the same look alike");
    }

    #[test]
    fn a_record_that_was_moved_changed_or_sealed_under_another_secret_does_not_open() {
        let seal = seal(7);
        let record = sealed(&seal);
        assert_eq!(seal.open(OTHER, DEVICE, &record), None);
        assert_eq!(seal.open(ACCOUNT, DeviceId::from_bytes([0xd2; 16]), &record), None);
        assert_eq!(self::seal(8).open(ACCOUNT, DEVICE, &record), None);
        let other = PushTarget { visible: false, ..target() };
        assert_eq!(seal.open(ACCOUNT, DEVICE, &PushTargetRecord { digest: other.digest(), ..record.clone() }), None);
        let mut bytes = record.sealed.to_vec();
        bytes[0] ^= 1;
        assert_eq!(seal.open(ACCOUNT, DEVICE, &PushTargetRecord { sealed: bytes.into(), ..record.clone() }), None);
        assert_eq!(seal.open(ACCOUNT, DEVICE, &PushTargetRecord { sealed: Bytes::new(), ..record }), None);
    }

    #[test]
    fn an_origin_is_told_apart_by_who_has_the_secret_alone() {
        let origin = "https://push.example.org";
        assert_eq!(seal(7).host(origin), seal(7).host(origin));
        assert_ne!(seal(7).host(origin), seal(8).host(origin));
        assert_ne!(seal(7).host(origin), seal(7).host("https://push.example.net"));
    }

    #[test]
    fn debugging_shows_no_key() {
        assert_eq!(format!("{:?} {:?}", seal(7), Secret::new(KeyBytes::new([7; 32]))), "TokenSeal(..) Secret(..)");
    }
}
