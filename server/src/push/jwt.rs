//! JSON Web Tokens (RFC 7519) as push services ask for them: claims signed with ES256 or RS256.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{EcdsaKeyPair, RSA_PKCS1_SHA256};
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

/// A token signed with ECDSA over P-256 and SHA-256.
///
/// # Errors
/// The library cannot sign.
pub(super) fn es256(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> Result<String, Unspecified> {
    let message = message(header, claims);
    let signature = key.sign(&SystemRandom::new(), message.as_bytes())?;
    Ok(signed(&message, signature.as_ref()))
}

/// A token signed with RSA (PKCS #1 v1.5) and SHA-256.
///
/// # Errors
/// The library cannot sign.
pub(super) fn rs256(key: &rsa::KeyPair, header: &Value, claims: &Value) -> Result<String, Unspecified> {
    let message = message(header, claims);
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)?;
    Ok(signed(&message, &signature))
}

fn message(header: &Value, claims: &Value) -> String {
    let encoded = |part: &Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
    format!("{}.{}", encoded(header), encoded(claims))
}

fn signed(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature))
}

/// Header and claims of a token, as the other side reads it; `None` unless its signature is that of the key.
#[cfg(test)]
pub(super) fn read(
    token: &str,
    algorithm: &'static dyn aws_lc_rs::signature::VerificationAlgorithm,
    key: &[u8],
) -> Option<(Value, Value)> {
    let (message, signature) = token.rsplit_once('.')?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, key);
    key.verify(message.as_bytes(), &signature).ok()?;
    let part = |text: &str| serde_json::from_slice(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok();
    let (header, claims) = message.split_once('.')?;
    Some((part(header)?, part(claims)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn an_es256_token_says_what_was_signed_in_64_bytes() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (header, claims) = (json!({ "alg": "ES256", "kid": "K" }), json!({ "iss": "T", "iat": 7 }));
        let token = es256(&key, &header, &claims).unwrap();
        let read = read(&token, &ECDSA_P256_SHA256_FIXED, key.public_key().as_ref());
        assert_eq!(read, Some((header, claims)));
        let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        assert_eq!(super::read(&token, &ECDSA_P256_SHA256_FIXED, other.public_key().as_ref()), None);
        assert_eq!(token.rsplit_once('.').map(|(_, signature)| signature.len()), Some(86));
    }

    #[test]
    fn an_rs256_token_says_what_was_signed() {
        let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let (header, claims) = (json!({ "alg": "RS256" }), json!({ "aud": "https://example.org/token" }));
        let token = rs256(&key, &header, &claims).unwrap();
        let read = read(&token, &RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
        assert_eq!(read, Some((header, claims)));
    }

    #[test]
    fn a_token_has_no_padding_and_nothing_that_a_url_escapes() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        for fill in 0..3 {
            let token = es256(&key, &json!({ "x": "y".repeat(fill) }), &json!({ "z": "~?>".repeat(fill) })).unwrap();
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{token}");
        }
    }
}
