//! The digest by which a device and the server see in one round trip whether they agree on its conversations.

use crate::ConversationId;

const CONTEXT: &str = "gureum 2026-11 epochs digest v1";

/// The digest over pairs of conversation and current epoch, in ascending order of the ids.
#[must_use]
pub fn epochs_digest(ascending: impl IntoIterator<Item = (ConversationId, u64)>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    for (conversation, epoch) in ascending {
        hasher.update(conversation.as_bytes()).update(&epoch.to_be_bytes());
    }
    *hasher.finalize().as_bytes()
}
