//! Typing indicators, sealed by a key that the members of an epoch share.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use gureum_proto::{ConversationId, DeviceId, Typing};
use zeroize::Zeroizing;

use super::group::{Group, Mls};
use super::{MlsError, at};

/// The label of the exported key (RFC 9420 §8.5); its context is the id of the device that types.
const LABEL: &str = "gureum typing v1";
const KEY_BYTES: usize = 32;
const ASSOCIATED_BYTES: usize = 40;
const STEP: &str = "sealing a typing indicator";

impl Mls<'_> {
    /// Says for the group's current epoch whether this device's person types.
    pub(crate) fn seal_typing(
        &self,
        group: &Group,
        conversation: ConversationId,
        types: bool,
    ) -> Result<Typing, MlsError> {
        let (epoch, account, device) = (group.epoch(), self.identity.account, self.identity.device);
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(at(STEP))?;
        let whole = Nonce::assume_unique_for_key(nonce);
        let associated = Aad::from(associated(conversation, epoch, device));
        let mut state = vec![u8::from(types)];
        self.typing_key(group, device)?.seal_in_place_append_tag(whole, associated, &mut state).map_err(at(STEP))?;
        let sealed = [nonce.as_slice(), &state].concat().into();
        Ok(Typing { conversation, epoch, account, device, sealed })
    }

    /// What a device of the group says; `None` for what is of another epoch or does not open. Every member has the key
    /// of every device: one may speak for another.
    pub(crate) fn open_typing(&self, group: &Group, typing: &Typing) -> Result<Option<bool>, MlsError> {
        let is_theirs = |identity: gureum_proto::LeafIdentity| {
            (identity.account, identity.device) == (typing.account, typing.device)
        };
        if typing.epoch != group.epoch() || !group.leaves().iter().any(|leaf| leaf.identity.is_some_and(is_theirs)) {
            return Ok(None);
        }
        let Some((nonce, sealed)) = typing.sealed.split_first_chunk::<NONCE_LEN>() else { return Ok(None) };
        let associated = Aad::from(associated(typing.conversation, typing.epoch, typing.device));
        let mut state = sealed.to_vec();
        let key = self.typing_key(group, typing.device)?;
        let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), associated, &mut state);
        Ok(match opened.as_deref() {
            Ok([0]) => Some(false),
            Ok([1]) => Some(true),
            _ => None,
        })
    }

    fn typing_key(&self, group: &Group, device: DeviceId) -> Result<LessSafeKey, MlsError> {
        let key = group.0.export_secret(self.crypto, LABEL, device.as_bytes(), KEY_BYTES).map_err(at(STEP))?;
        let key = Zeroizing::new(key);
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).map_err(at(STEP))?))
    }
}

/// What a sealed state belongs to: conversation, epoch (big-endian), device.
fn associated(conversation: ConversationId, epoch: u64, device: DeviceId) -> [u8; ASSOCIATED_BYTES] {
    let parts = [conversation.as_bytes().as_slice(), &epoch.to_be_bytes(), device.as_bytes()].concat();
    parts.try_into().expect("two ids and a number have this length")
}
