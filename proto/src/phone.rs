//! Phone numbers: what proves that one is somebody's, and what happens to it later.

use std::fmt;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use gureum_wire::FrameKind;
use prost::Message;
use zeroize::Zeroizing;

use crate::convert::{PayloadError, fixed, raw, schema};
use crate::limits::{CODE_DIGITS, PHONE_BYTES_MAX, PHONE_REST_BYTES_MIN};
use crate::session::put;

/// A phone number as a person writes it, with its country code: `+`, then 4 to 31 of `0-9 ( ) . / -` and spaces.
/// Whether there can be such a number, only the server that sends codes says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phone(String);

/// Text that is no phone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a phone number begins with + and the country code, and has at most 31 digits, spaces and ( ) . / - after it")]
pub struct PhoneError;

/// A one-time code: what comes to a number, and proves that whoever has it has the number.
#[derive(Clone, PartialEq, Eq)]
pub struct Otp(Zeroizing<String>);

/// Text that is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a code has 6 digits")]
pub struct OtpError;

/// What opens the registration lock of a number; it follows from a PIN.
#[derive(Clone, PartialEq, Eq)]
pub struct LockSecret(Zeroizing<[u8; 32]>);

/// A code is on its way, or would be if it could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeSent {
    /// How long the code lives, in milliseconds.
    pub expires_ms: u64,
    /// How long until another may be asked for, in milliseconds.
    pub again_after_ms: u64,
    /// The number in E.164.
    pub phone: Phone,
}

/// Somebody has a phone number, and shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneProof {
    /// The number.
    pub phone: Phone,
    /// What came to it.
    pub code: Otp,
    /// Opens the lock of the account that has the number now.
    pub lock: Option<LockSecret>,
    /// Whether others may find the account by the number.
    pub findable: bool,
}

/// What becomes of an account's phone number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhoneChange {
    /// The account has this one from now on.
    Set(PhoneProof),
    /// Others may find the account by its number, or may not.
    Findable(bool),
    /// The account has no number any more.
    Remove,
}

/// What has happened to an account's phone number: when, in milliseconds since 1970, the last time; 0: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhoneNotice {
    /// Another account has proven the number, and this one has it no more.
    pub moved_ms: u64,
    /// Somebody who had a right code was stopped by the registration lock.
    pub tried_ms: u64,
}

impl Phone {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn read(text: &str) -> Result<Self, PayloadError> {
        text.parse().map_err(|_| PayloadError::Invalid("phone number"))
    }

    pub(crate) fn read_request(payload: Bytes) -> Result<Self, PayloadError> {
        Self::read(&schema::RequestCode::decode(payload)?.phone)
    }

    pub(crate) fn write_request(&self) -> schema::RequestCode {
        schema::RequestCode { phone: self.to_string() }
    }
}

impl FromStr for Phone {
    type Err = PhoneError;

    fn from_str(text: &str) -> Result<Self, PhoneError> {
        let rest = text.strip_prefix('+').ok_or(PhoneError)?;
        let fits = (PHONE_REST_BYTES_MIN..PHONE_BYTES_MAX).contains(&rest.len());
        let all = rest.bytes().all(|byte| byte.is_ascii_digit() || b" ()./-".contains(&byte));
        if fits && all { Ok(Self(text.to_owned())) } else { Err(PhoneError) }
    }
}

/// For the person whose number it is, or who knows it: never for a log.
impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phone(..)")
    }
}

impl Otp {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Otp {
    type Err = OtpError;

    fn from_str(text: &str) -> Result<Self, OtpError> {
        let is_code = text.len() == CODE_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_code { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(OtpError) }
    }
}

impl fmt::Debug for Otp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Otp(..)")
    }
}

impl LockSecret {
    /// Wraps 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Empty: none.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, PayloadError> {
        if bytes.is_empty() { Ok(None) } else { fixed(bytes, "lock").map(|bytes| Some(Self::from_bytes(bytes))) }
    }

    pub(crate) fn write(lock: Option<&Self>) -> Bytes {
        lock.map_or_else(Bytes::new, |lock| raw(lock.as_bytes()))
    }
}

impl fmt::Debug for LockSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockSecret(..)")
    }
}

impl CodeSent {
    pub(crate) fn write(&self) -> schema::CodeSent {
        schema::CodeSent {
            expires_ms: self.expires_ms,
            again_after_ms: self.again_after_ms,
            phone: self.phone.to_string(),
        }
    }

    pub(crate) fn read(sent: &schema::CodeSent) -> Result<Self, PayloadError> {
        let phone = Phone::read(&sent.phone)?;
        Ok(Self { expires_ms: sent.expires_ms, again_after_ms: sent.again_after_ms, phone })
    }
}

impl PhoneProof {
    /// Number, code, lock, and whether others may find the account by it: the fields of whatever carries a proof.
    pub(crate) fn write(&self) -> (String, String, Bytes, bool) {
        let (phone, code) = (self.phone.to_string(), self.code.as_str().to_owned());
        (phone, code, LockSecret::write(self.lock.as_ref()), self.findable)
    }

    pub(crate) fn read(phone: &str, code: &str, lock: &[u8], findable: bool) -> Result<Self, PayloadError> {
        let phone = Phone::read(phone)?;
        let code = code.parse().map_err(|_| PayloadError::Invalid("code"))?;
        Ok(Self { phone, code, lock: LockSecret::read(lock)?, findable })
    }
}

impl PhoneChange {
    pub(crate) fn write(&self) -> schema::SetPhone {
        use schema::PhoneChange as Change;
        match self {
            Self::Set(proof) => {
                let (phone, code, lock, findable) = proof.write();
                schema::SetPhone { phone, code, lock, findable, change: Change::Set.into() }
            }
            Self::Findable(findable) => {
                schema::SetPhone { findable: *findable, change: Change::Findable.into(), ..schema::SetPhone::default() }
            }
            Self::Remove => schema::SetPhone { change: Change::Remove.into(), ..schema::SetPhone::default() },
        }
    }

    pub(crate) fn read(set: &schema::SetPhone) -> Result<Self, PayloadError> {
        use schema::PhoneChange as Change;
        let is_bare = set.phone.is_empty() && set.code.is_empty() && set.lock.is_empty();
        match set.change() {
            Change::Set => PhoneProof::read(&set.phone, &set.code, &set.lock, set.findable).map(Self::Set),
            Change::Findable if is_bare => Ok(Self::Findable(set.findable)),
            Change::Remove if is_bare && !set.findable => Ok(Self::Remove),
            Change::Unspecified | Change::Findable | Change::Remove => Err(PayloadError::Invalid("phone change")),
        }
    }
}

impl PhoneNotice {
    pub(crate) const fn write(self) -> schema::PhoneNotice {
        schema::PhoneNotice { moved_ms: self.moved_ms, tried_ms: self.tried_ms }
    }

    pub(crate) fn read(payload: Bytes) -> Result<Self, PayloadError> {
        let schema::PhoneNotice { moved_ms, tried_ms } = schema::PhoneNotice::decode(payload)?;
        Ok(Self { moved_ms, tried_ms })
    }
}

/// Writes a RequestCode frame.
pub fn put_request_code(phone: &Phone, out: &mut BytesMut) {
    put(FrameKind::RequestCode, &phone.write_request(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_is_taken_as_people_write_it() {
        for text in ["+1234", "+82 10-1234-5678", "+49 (0)30/123.456", &format!("+{}", "1".repeat(31))] {
            assert_eq!(text.parse::<Phone>().map(|phone| phone.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_has_no_country_code_or_no_number_is_no_phone_number() {
        for text in [
            "",
            "+",
            "+123",
            "821012345678",
            " +821012345678",
            "+82x1012345",
            "+82١٢٣٤",
            &format!("+{}", "1".repeat(32)),
        ] {
            assert_eq!(text.parse::<Phone>(), Err(PhoneError), "{text:?}");
        }
    }

    #[test]
    fn a_code_has_six_digits() {
        assert_eq!("012345".parse::<Otp>().map(|code| code.as_str().to_owned()), Ok("012345".to_owned()));
        for text in ["", "12345", "1234567", "12 345", "12345a", "+12345", "١٢٣"] {
            assert_eq!(text.parse::<Otp>(), Err(OtpError), "{text:?}");
        }
    }

    #[test]
    fn nothing_of_a_proof_is_printed() {
        let proof = PhoneProof {
            phone: "+821012345678".parse().unwrap(),
            code: "123456".parse().unwrap(),
            lock: Some(LockSecret::from_bytes([7; 32])),
            findable: true,
        };
        assert_eq!(
            format!("{proof:?}"),
            "PhoneProof { phone: Phone(..), code: Otp(..), lock: Some(LockSecret(..)), findable: true }"
        );
    }
}
