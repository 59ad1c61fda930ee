//! AES-256-GCM with random nonces, and nothing else of the cryptographic library.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::KeyringError;

/// The length of a key.
pub(super) const KEY_BYTES: usize = 32;

/// The length of a nonce. At 50,000 messages a second an hour's key seals 1.8 · 10⁸ of them: two random nonces
/// of 96 bits meet with a probability of 2 · 10⁻¹³.
pub(super) const NONCE_BYTES: usize = 12;

/// The length of the tag behind a ciphertext.
pub(super) const TAG_BYTES: usize = 16;

/// Nonces drawn at once. Each call of the generator stirs fresh entropy into its state, however little is asked for.
const NONCES_DRAWN: usize = 16;

/// A key that is ready for use. The library clears its memory when it is dropped.
pub(super) struct Cipher {
    key: LessSafeKey,
    /// Drawn and not used yet; no two takers get the same.
    nonces: Mutex<Vec<[u8; NONCE_BYTES]>>,
}

/// The bytes of a key, cleared when dropped.
pub(super) type KeyBytes = Zeroizing<[u8; KEY_BYTES]>;

/// Fresh key bytes.
pub(super) fn generate() -> Result<KeyBytes, KeyringError> {
    let mut bytes = KeyBytes::default();
    rand::fill(bytes.as_mut_slice()).map_err(|_| KeyringError::Crypto)?;
    Ok(bytes)
}

impl Cipher {
    pub(super) fn new(bytes: &KeyBytes) -> Result<Self, KeyringError> {
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map_err(|_| KeyringError::Crypto)?;
        Ok(Self { key: LessSafeKey::new(key), nonces: Mutex::default() })
    }

    /// Seals a text bound to a context: the nonce, and the ciphertext with its tag.
    pub(super) fn seal(
        &self,
        context: &[impl AsRef<[u8]>],
        text: &[u8],
    ) -> Result<([u8; NONCE_BYTES], Vec<u8>), KeyringError> {
        let nonce = self.nonce()?;
        let mut out = Vec::with_capacity(text.len().saturating_add(TAG_BYTES));
        out.extend_from_slice(text);
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(joined(context)), &mut out)
            .map_err(|_| KeyringError::Crypto)?;
        Ok((nonce, out))
    }

    /// A random nonce that nobody else has. A panic while it is taken leaves none that was given out.
    fn nonce(&self) -> Result<[u8; NONCE_BYTES], KeyringError> {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nonce) = nonces.pop() {
            return Ok(nonce);
        }
        let mut drawn = [[0; NONCE_BYTES]; NONCES_DRAWN];
        rand::fill(drawn.as_flattened_mut()).map_err(|_| KeyringError::Crypto)?;
        let [first, rest @ ..] = drawn;
        nonces.extend_from_slice(&rest);
        Ok(first)
    }

    /// The text, if this is what was sealed under the context.
    pub(super) fn open(
        &self,
        context: &[impl AsRef<[u8]>],
        nonce: &[u8; NONCE_BYTES],
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let mut text = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = self.key.open_in_place(nonce, Aad::from(joined(context)), &mut text).ok()?.len();
        text.truncate(len);
        Some(text)
    }
}

/// The context as one piece. It has room for the whole from the start: this is done for each message.
fn joined(context: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(context.iter().map(|part| part.as_ref().len()).sum());
    context.iter().for_each(|part| out.extend_from_slice(part.as_ref()));
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_nonce_is_used_twice_however_many_are_drawn_and_by_whom() {
        let ciphers = [(); 2].map(|()| Cipher::new(&KeyBytes::default()).unwrap());
        let mut used = HashSet::new();
        for _ in 0..3 * NONCES_DRAWN {
            for cipher in &ciphers {
                let (nonce, sealed) = cipher.seal(&[b"context"], b"text").unwrap();
                assert!(used.insert(nonce));
                assert_eq!(cipher.open(&[b"context"], &nonce, &sealed).as_deref(), Some(b"text".as_slice()));
            }
        }
    }
}
