//! JSON Web Tokens as the other side reads them.

use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

use crate::wait::now_ms;

/// Header and claims of a token, if its signature is that of the key.
pub(super) fn read(token: &str, algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> Option<(Value, Value)> {
    let (message, signature) = token.rsplit_once('.')?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
    UnparsedPublicKey::new(algorithm, key).verify(message.as_bytes(), &signature).ok()?;
    let (header, claims) = message.split_once('.')?;
    let part = |text: &str| serde_json::from_slice(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok();
    Some((part(header)?, part(claims)?))
}

/// How far a claim's time, in seconds, is ahead of now; `None` if it is no time.
pub(super) fn seconds_ahead(claim: &Value) -> Option<i64> {
    let now_s = i64::try_from(now_ms() / 1_000).ok()?;
    claim.as_i64()?.checked_sub(now_s)
}
