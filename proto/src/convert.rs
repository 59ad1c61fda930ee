//! From the schema's generated types to the domain's: every bound is checked here, and nowhere after.

use bytes::Bytes;

/// The types that prost generates; they do not leave this crate.
#[expect(unreachable_pub, reason = "generated; the schema itself is the documentation")]
pub(crate) mod schema {
    include!(concat!(env!("OUT_DIR"), "/gureum.v1.rs"));
}

/// A payload that is not what its frame says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not a protobuf message of the schema.
    #[error("the payload is not the protobuf message of its frame: {0}")]
    Protobuf(String),
    /// A field that must be there is not.
    #[error("the payload lacks its {0}")]
    Missing(&'static str),
    /// A field has a value or a length that it may not have.
    #[error("the payload's {0} is not valid")]
    Invalid(&'static str),
    /// A field is longer than it may be.
    #[error("the payload's {0} is too long")]
    TooLong(&'static str),
}

impl From<prost::DecodeError> for PayloadError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Protobuf(error.to_string())
    }
}

/// Reads an id.
pub(crate) fn id<T: for<'a> TryFrom<&'a [u8]>>(bytes: &[u8], what: &'static str) -> Result<T, PayloadError> {
    T::try_from(bytes).map_err(|_| PayloadError::Invalid(what))
}

/// Reads a field of a fixed length.
pub(crate) fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], PayloadError> {
    <[u8; N]>::try_from(bytes).map_err(|_| PayloadError::Invalid(what))
}

/// A field that must be there and may have at most `max` bytes.
pub(crate) fn filled(bytes: Bytes, max: usize, what: &'static str) -> Result<Bytes, PayloadError> {
    match bytes.len() {
        0 => Err(PayloadError::Missing(what)),
        length if length > max => Err(PayloadError::TooLong(what)),
        _ => Ok(bytes),
    }
}

/// A field that may be empty and may have at most `max` bytes.
pub(crate) fn bounded(bytes: Bytes, max: usize, what: &'static str) -> Result<Bytes, PayloadError> {
    if bytes.len() > max { Err(PayloadError::TooLong(what)) } else { Ok(bytes) }
}

/// The bytes of an id, for the schema.
pub(crate) fn raw(id: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(id.as_ref())
}
