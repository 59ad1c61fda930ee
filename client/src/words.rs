//! The recovery key as twelve words that a person can write down.

use bip39::{Language, Mnemonic};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

/// Entropy of twelve words, in bytes.
pub(crate) const ENTROPY_BYTES: usize = 16;

const CONTEXT: &str = "gureum 2026-11 recovery key v1";

/// The words of an entropy.
pub(crate) fn words(entropy: &[u8; ENTROPY_BYTES]) -> Zeroizing<String> {
    let mnemonic = Mnemonic::from_entropy_in(Language::English, entropy).expect("sixteen bytes are twelve words");
    Zeroizing::new(mnemonic.to_string())
}

/// The recovery key of an entropy.
pub(crate) fn recovery_key(entropy: &[u8; ENTROPY_BYTES]) -> SigningKey {
    let seed = Zeroizing::new(blake3::derive_key(CONTEXT, entropy));
    SigningKey::from_bytes(&seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_words_stand_for_one_key() {
        let text = words(&[7; ENTROPY_BYTES]);
        assert_eq!(text.split(' ').count(), 12);
        let back = Mnemonic::parse_in(Language::English, text.as_str()).unwrap().to_entropy();
        assert_eq!(back, [7; ENTROPY_BYTES]);
        assert_ne!(recovery_key(&[7; 16]).to_bytes(), recovery_key(&[8; 16]).to_bytes());
    }
}
