//! Sealing what a new device and one of its account say to each other through a server that reads none of it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use gureum_proto::LinkId;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::types::{HpkeAeadType, HpkeCiphertext, HpkeConfig, HpkeKdfType, HpkeKemType};
use zeroize::Zeroizing;

use super::{MlsError, at};

/// The encapsulated key of X25519 in front of what is sealed for a key (RFC 9180 §7.1).
const ENCAPSULATED_BYTES: usize = 32;

/// The key of a device that shows a code: the code has its public half.
pub(crate) struct SealKey {
    private: Zeroizing<Vec<u8>>,
    pub(crate) public: [u8; 32],
}

impl SealKey {
    /// The key that follows from a seed.
    pub(crate) fn from_seed(crypto: &RustCrypto, seed: &[u8; 32]) -> Result<Self, MlsError> {
        const STEP: &str = "making the key of a link code";
        let pair = crypto.derive_hpke_keypair(suite(), seed).map_err(at(STEP))?;
        let public = <[u8; 32]>::try_from(pair.public.as_slice()).map_err(|_| at(STEP)("it has another length"))?;
        Ok(Self { private: Zeroizing::new(pair.private.to_vec()), public })
    }

    /// What was sealed for this key with this info; `None` for anything else.
    pub(crate) fn open(&self, crypto: &RustCrypto, info: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
        let sealed =
            HpkeCiphertext { kem_output: encapsulated.to_vec().into(), ciphertext: ciphertext.to_vec().into() };
        crypto.hpke_open(suite(), &sealed, &self.private, info, b"").ok().map(Zeroizing::new)
    }
}

/// Seals for the key in a code: HPKE (RFC 9180) in base mode, the encapsulated key before the ciphertext.
pub(crate) fn seal_for(
    crypto: &RustCrypto,
    public: &[u8; 32],
    info: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, MlsError> {
    let sealed = crypto.hpke_seal(suite(), public, info, b"", plaintext).map_err(at("sealing an answer"))?;
    Ok([sealed.kem_output.as_slice(), sealed.ciphertext.as_slice()].concat())
}

/// Seals under a key that both sides have: AES-256-GCM over the link's id, a random nonce before the ciphertext.
pub(crate) fn seal(key: &[u8; 32], link: LinkId, plaintext: &[u8]) -> Result<Vec<u8>, MlsError> {
    const STEP: &str = "sealing for a link";
    let mut nonce = [0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).map_err(at(STEP))?;
    let mut sealed = plaintext.to_vec();
    let whole = Nonce::assume_unique_for_key(nonce);
    cipher(key)?.seal_in_place_append_tag(whole, Aad::from(*link.as_bytes()), &mut sealed).map_err(at(STEP))?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// What was sealed under a key for a link; `None` for anything else.
pub(crate) fn open(key: &[u8; 32], link: LinkId, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut plaintext = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher(key).ok()?.open_in_place(nonce, Aad::from(*link.as_bytes()), &mut plaintext).ok()?.len();
    plaintext.truncate(length);
    Some(plaintext)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, MlsError> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(at("sealing for a link"))?))
}

fn suite() -> HpkeConfig {
    HpkeConfig(HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, HpkeAeadType::AesGcm256)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId::from_bytes([1; 16]);

    #[test]
    fn what_is_sealed_for_a_key_opens_with_it_and_its_info_alone() {
        let crypto = RustCrypto::default();
        let key = SealKey::from_seed(&crypto, &[7; 32]).unwrap();
        let sealed = seal_for(&crypto, &key.public, b"info", b"the answer").unwrap();
        assert_eq!(key.open(&crypto, b"info", &sealed).unwrap().as_slice(), b"the answer");
        assert_eq!(key.open(&crypto, b"another", &sealed), None);
        assert_eq!(SealKey::from_seed(&crypto, &[8; 32]).unwrap().open(&crypto, b"info", &sealed), None);
        assert_eq!(key.open(&crypto, b"info", &sealed[..31]), None);
        let again = SealKey::from_seed(&crypto, &[7; 32]).unwrap();
        assert_eq!(again.open(&crypto, b"info", &sealed).unwrap().as_slice(), b"the answer", "the seed is the key");
    }

    #[test]
    fn what_is_sealed_under_a_key_opens_with_it_for_its_link_alone() {
        let sealed = seal(&[3; 32], LINK, b"the offer").unwrap();
        assert_eq!(open(&[3; 32], LINK, &sealed).unwrap().as_slice(), b"the offer");
        assert_eq!(open(&[4; 32], LINK, &sealed), None);
        assert_eq!(open(&[3; 32], LinkId::from_bytes([2; 16]), &sealed), None);
        assert_eq!(open(&[3; 32], LINK, &sealed[..11]), None);
        assert_ne!(sealed, seal(&[3; 32], LINK, b"the offer").unwrap(), "no nonce serves twice");
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        for place in 0..20 {
            let mut sealed = seal(&[3; 32], LINK, b"the offer").unwrap();
            sealed[place] ^= 1;
            assert_eq!(open(&[3; 32], LINK, &sealed), None, "byte {place}");
        }
    }
}
