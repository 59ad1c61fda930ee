//! The PIN of a registration lock, and what the server gets to see of it.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use gureum_proto::{LockSecret, Phone};
use zeroize::Zeroizing;

use crate::limits::{LOCK_LANES, LOCK_MEMORY_KIB, LOCK_PASSES, PIN_BYTES_MAX, PIN_BYTES_MIN};

const SALT_CONTEXT: &str = "gureum registration lock v1";
const SALT_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;

/// A PIN: 4 to 64 bytes on one line. Of few digits it holds because the server counts the tries.
#[derive(Clone)]
pub struct Pin(Zeroizing<String>);

/// Text that is no PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PIN has 4 to 64 bytes on one line")]
pub struct PinError;

impl Pin {
    /// What opens the lock of a number, given in E.164: the same on every device, and nothing from which the PIN is read
    /// without trying them all, slowly.
    pub(super) fn secret(&self, number: &Phone) -> LockSecret {
        let (mut salt, mut secret) = ([0; SALT_BYTES], Zeroizing::new([0; SECRET_BYTES]));
        let mut hasher = blake3::Hasher::new_derive_key(SALT_CONTEXT);
        hasher.update(number.as_str().as_bytes()).finalize_xof().fill(&mut salt);
        let params = Params::new(LOCK_MEMORY_KIB, LOCK_PASSES, LOCK_LANES, Some(SECRET_BYTES));
        let params = params.expect("the parameters are in range");
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.0.as_bytes(), &salt, secret.as_mut_slice())
            .expect("PIN, salt and secret have lengths that are in range");
        LockSecret::from_bytes(*secret)
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let fits = (PIN_BYTES_MIN..=PIN_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(PinError) }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use data_encoding::HEXLOWER;

    use super::*;

    /// Worked out by another program: a client of another version or language must come to the same.
    #[test]
    fn a_pin_and_a_number_have_this_secret() {
        let secret = |pin: &str| {
            let pin: Pin = pin.parse().unwrap();
            HEXLOWER.encode(pin.secret(&"+821012345678".parse().unwrap()).as_bytes())
        };
        assert_eq!(secret("1234"), "8c6ec635f219e77d153cfa1ce7cde44c1bdb1b76809dc923e54142fc4fb77284");
        assert_eq!(secret("correct horse"), "07f07ebc017f0304d2b38b6aec4af48dc3d93dedf71cf47c03695d37e6e47c34");
    }

    #[test]
    fn another_number_has_another_secret() {
        let pin: Pin = "1234".parse().unwrap();
        let secret = |number: &str| pin.secret(&number.parse().unwrap());
        assert_ne!(secret("+821012345678"), secret("+821012345679"));
    }

    #[test]
    fn a_pin_is_one_line_of_some_length_and_is_not_printed() {
        let fits = |text: &str| text.parse::<Pin>().is_ok();
        assert!(fits("0000") && fits(&"x".repeat(PIN_BYTES_MAX)) && fits("비밀"));
        assert!(!fits("") && !fits("123") && !fits("12\n34") && !fits(&"x".repeat(PIN_BYTES_MAX + 1)));
        assert_eq!(format!("{:?}", "1234".parse::<Pin>()), "Ok(Pin(..))");
    }
}
