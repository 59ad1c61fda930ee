//! Keyed hashes of phone numbers, codes and locks: the forms in which they are stored and counted. Without the key
//! nobody tells by trying which number, or which of a million codes, a hash is of.

use std::fmt;

use blake3::{Hash, Hasher};
use gureum_proto::{AccountId, LockSecret, Otp};
use zeroize::Zeroizing;

use crate::store::key::NumberHash;

const NUMBER_LABEL: &[u8] = b"gureum phone number v1\0";
const CODE_LABEL: &[u8] = b"gureum phone code v1\0";
const LOCK_LABEL: &[u8] = b"gureum registration lock v1\0";
const SHORT_LABEL: &[u8] = b"gureum phone count v1\0";

/// Hashes under the server's secret of phone numbers.
pub struct PhoneHasher(Zeroizing<[u8; 32]>);

impl PhoneHasher {
    /// Hashes under this key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// The form in which a number, written as E.164, is stored.
    #[must_use]
    pub fn number(&self, e164: &str) -> NumberHash {
        self.hash(NUMBER_LABEL, &[e164.as_bytes()]).into()
    }

    /// The form in which a code that was sent to a number is stored. Compare it as a [`blake3::Hash`], which takes the
    /// same time wherever two differ.
    #[must_use]
    pub fn code(&self, number: &NumberHash, code: &Otp) -> [u8; 32] {
        self.hash(CODE_LABEL, &[number, code.as_str().as_bytes()]).into()
    }

    /// The form in which the registration lock of an account is stored. Compare it likewise.
    #[must_use]
    pub fn lock(&self, account: &AccountId, lock: &LockSecret) -> [u8; 32] {
        self.hash(LOCK_LABEL, &[account.as_bytes(), lock.as_bytes()]).into()
    }

    /// What stands for a text in a count in memory, by label: two texts rarely share one.
    #[must_use]
    pub fn short(&self, label: &str, text: &str) -> u64 {
        let hash = self.hash(SHORT_LABEL, &[label.as_bytes(), b"\0", text.as_bytes()]);
        hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    fn hash(&self, label: &[u8], parts: &[&[u8]]) -> Hash {
        let mut hasher = Hasher::new_keyed(&self.0);
        hasher.update(label);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// Shows no key.
impl fmt::Debug for PhoneHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneHasher(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::BTreeSet;

    use super::*;

    const NUMBER: &str = "+821012345678";

    fn otp(digits: &str) -> Otp {
        digits.parse().unwrap()
    }

    #[test]
    fn a_hash_is_of_its_key_alone_and_stays_the_same() {
        let [one, again, other] = [[1; 32], [1; 32], [2; 32]].map(PhoneHasher::new);
        assert_eq!(one.number(NUMBER), again.number(NUMBER));
        assert_ne!(one.number(NUMBER), other.number(NUMBER));
        assert_ne!(one.number(NUMBER), one.number("+821012345679"));
        assert_eq!(one.short("prefix", NUMBER), again.short("prefix", NUMBER));
        assert_ne!(one.short("prefix", NUMBER), other.short("prefix", NUMBER));
        assert_ne!(one.short("prefix", NUMBER), one.short("number", NUMBER));
    }

    #[test]
    fn a_code_is_bound_to_its_number_and_a_lock_to_its_account() {
        let hasher = PhoneHasher::new([1; 32]);
        let [number, other] = [NUMBER, "+821012345679"].map(|number| hasher.number(number));
        let code = hasher.code(&number, &otp("123456"));
        assert_eq!(code, hasher.code(&number, &otp("123456")));
        assert_ne!(code, hasher.code(&number, &otp("123457")));
        assert_ne!(code, hasher.code(&other, &otp("123456")));
        let [account, another] = [[1; 16], [2; 16]].map(AccountId::from_bytes);
        let [pin, wrong] = [[3; 32], [4; 32]].map(LockSecret::from_bytes);
        let lock = hasher.lock(&account, &pin);
        assert_eq!(lock, hasher.lock(&account, &pin));
        assert_ne!(lock, hasher.lock(&account, &wrong));
        assert_ne!(lock, hasher.lock(&another, &pin));
    }

    #[test]
    fn hashes_of_one_text_differ_by_what_they_are_for() {
        let hasher = PhoneHasher::new([1; 32]);
        let text = [7; 32];
        let labels = [NUMBER_LABEL, CODE_LABEL, LOCK_LABEL, SHORT_LABEL];
        let hashes = BTreeSet::from(labels.map(|label| <[u8; 32]>::from(hasher.hash(label, &[&text]))));
        assert_eq!(hashes.len(), labels.len());
    }

    #[test]
    fn debugging_shows_no_key() {
        assert_eq!(format!("{:?}", PhoneHasher::new([7; 32])), "PhoneHasher(..)");
    }
}
