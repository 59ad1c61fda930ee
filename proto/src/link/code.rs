//! The code that a new device shows, and everything that follows from it.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use crate::ids::{ID_BYTES, LinkId};

const VERSION: u8 = 1;
const PREFIX: &str = "GL";
const CODE_BYTES: usize = 1 + 32 + 16;
const ID_CONTEXT: &str = "gureum 2026-11 link id v1";
const OFFER_CONTEXT: &str = "gureum 2026-11 link offer key v1";
const REPLY_CONTEXT: &str = "gureum 2026-11 link reply key v1";
const ANSWER_LABEL: &[u8] = b"gureum link answer v1\0";

/// A version byte, the new device's X25519 public key and a secret of 128 bits. With the key, what is sealed for the
/// device is for it alone, whoever has seen the code; with the secret, who has not seen the code can neither read
/// what the device offers nor answer it. The server learns the [id](Self::id) alone.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkCode {
    public: [u8; 32],
    secret: Zeroizing<[u8; 16]>,
}

/// Text that is no link code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkCodeError {
    /// Cut short, mistyped or something else.
    #[error("a link code begins with GL and has 81 characters; copy the whole code")]
    Text,
    /// Of a later version.
    #[error("the link code is of an unknown version; update this client")]
    Version,
}

impl LinkCode {
    /// Puts a code together, from a key of the device that is to show it and 16 random bytes.
    #[must_use]
    pub fn new(public: [u8; 32], secret: [u8; 16]) -> Self {
        Self { public, secret: Zeroizing::new(secret) }
    }

    /// The public key that the answer is sealed for.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// How the server knows the link.
    #[must_use]
    pub fn id(&self) -> LinkId {
        let hash = self.derive(ID_CONTEXT);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(hash.split_at(ID_BYTES).0);
        LinkId::from_bytes(id)
    }

    /// The key that seals a [`crate::LinkOffer`].
    #[must_use]
    pub fn offer_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive(OFFER_CONTEXT)
    }

    /// The half that the code has in the key that seals a [`crate::LinkConsent`] ([`crate::LinkProposal::consent_key`]).
    #[must_use]
    pub fn reply_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive(REPLY_CONTEXT)
    }

    /// The info of HPKE (RFC 9180 §5.1) with which a [`crate::LinkProposal`] is sealed: a label, the secret and the id.
    #[must_use]
    pub fn answer_info(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([ANSWER_LABEL, self.secret.as_slice(), self.id().as_bytes()].concat())
    }

    /// The code as people copy it: `GL` and base32, 81 characters that a QR code holds in its alphanumeric mode. A
    /// secret for as long as the link lives.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", BASE32_NOPAD.encode(self.bytes().as_slice())))
    }

    pub(super) fn bytes(&self) -> Zeroizing<[u8; CODE_BYTES]> {
        let mut bytes = Zeroizing::new([0_u8; CODE_BYTES]);
        let (version, rest) = bytes.split_at_mut(1);
        let (public, secret) = rest.split_at_mut(32);
        version.copy_from_slice(&[VERSION]);
        public.copy_from_slice(&self.public);
        secret.copy_from_slice(self.secret.as_slice());
        bytes
    }

    fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, self.bytes().as_slice()))
    }
}

impl FromStr for LinkCode {
    type Err = LinkCodeError;

    /// Takes small letters for capitals, and no notice of spaces and dashes.
    fn from_str(text: &str) -> Result<Self, LinkCodeError> {
        let plain = text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase());
        let plain = Zeroizing::new(plain.take(2 * CODE_BYTES).collect::<String>());
        let digits = plain.strip_prefix(PREFIX).ok_or(LinkCodeError::Text)?;
        let bytes = Zeroizing::new(BASE32_NOPAD.decode(digits.as_bytes()).map_err(|_| LinkCodeError::Text)?);
        let (version, rest) = bytes.split_first().ok_or(LinkCodeError::Text)?;
        if *version != VERSION {
            return Err(LinkCodeError::Version);
        }
        let (public, secret) = rest.split_first_chunk::<32>().ok_or(LinkCodeError::Text)?;
        let secret = <[u8; 16]>::try_from(secret).map_err(|_| LinkCodeError::Text)?;
        Ok(Self::new(*public, secret))
    }
}

impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkCode").finish_non_exhaustive()
    }
}
