//! The recovery key as twelve words that a person can write down.

use bip39::{Language, Mnemonic};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

/// Entropy of twelve words, in bytes.
pub(crate) const ENTROPY_BYTES: usize = 16;

const WORDS: usize = 12;

const CONTEXT: &str = "gureum 2026-11 recovery key v1";

/// The words of an entropy.
pub(crate) fn words(entropy: &[u8; ENTROPY_BYTES]) -> Zeroizing<String> {
    let mnemonic = Mnemonic::from_entropy_in(Language::English, entropy).expect("sixteen bytes are twelve words");
    Zeroizing::new(mnemonic.to_string())
}

/// Why words are not those of a recovery key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// Too few or too many.
    #[error("a recovery key has twelve words; these are {0}")]
    Count(usize),
    /// One of them is in no recovery key.
    #[error("word {number} is no word of a recovery key; check its spelling")]
    Unknown {
        /// Which one, from 1.
        number: usize,
    },
    /// Each could be one, but not all of them together.
    #[error("these words are not a recovery key: one of them is another word, or stands in another's place")]
    Checksum,
}

/// The entropy of words as a person types them: in capitals or not, with whatever space between them.
pub(crate) fn entropy(words: &str) -> Result<Zeroizing<[u8; ENTROPY_BYTES]>, WordsError> {
    let words = Zeroizing::new(words.to_lowercase());
    let count = words.split_whitespace().count();
    if count != WORDS {
        return Err(WordsError::Count(count));
    }
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words).map_err(|error| match error {
        bip39::Error::UnknownWord(index) => WordsError::Unknown { number: index + 1 },
        _ => WordsError::Checksum,
    })?;
    let bytes = Zeroizing::new(mnemonic.to_entropy());
    <[u8; ENTROPY_BYTES]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| WordsError::Checksum)
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
        assert_eq!(*entropy(&text).unwrap(), [7; ENTROPY_BYTES]);
        assert_ne!(recovery_key(&[7; 16]).to_bytes(), recovery_key(&[8; 16]).to_bytes());
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Vec<String>), expected: Result<[u8; ENTROPY_BYTES], WordsError>) {
        let mut typed: Vec<String> = words(&[7; ENTROPY_BYTES]).split(' ').map(str::to_owned).collect();
        change(&mut typed);
        assert_eq!(entropy(&typed.join("  ")).map(|entropy| *entropy), expected, "{typed:?}");
    }

    #[test]
    fn says_which_word_is_wrong() {
        check(|_| (), Ok([7; ENTROPY_BYTES]));
        check(|typed| typed[0] = format!(" {}\n", typed[0].to_uppercase()), Ok([7; ENTROPY_BYTES]));
        check(|typed| typed[2] = "gureum".to_owned(), Err(WordsError::Unknown { number: 3 }));
        check(|typed| drop(typed.pop()), Err(WordsError::Count(11)));
        check(|typed| typed.push("zoo".to_owned()), Err(WordsError::Count(13)));
        check(|typed| typed.fill("zoo".to_owned()), Err(WordsError::Checksum));
        check(Vec::clear, Err(WordsError::Count(0)));
    }
}
