//! The keyring, as the writer and the readers of inboxes see it.

use bytes::Bytes;
use gureum_proto::MessageId;

use super::{Keyring, SealError};
use crate::inbox::Open;
use crate::router::Seal;
use crate::store::record::SealedMessage;
use crate::store::{Family, StoreError};

impl Seal for Keyring {
    fn seal(&self, id: MessageId, plain: &[u8], _now_ms: u64) -> Result<SealedMessage, StoreError> {
        Self::seal(self, &id, plain).map_err(|error| StoreError::Io(error.to_string()))
    }
}

impl Open for Keyring {
    fn open(&self, id: MessageId, sealed: &SealedMessage) -> Result<Option<Bytes>, StoreError> {
        match self.open_message(&id, sealed) {
            Ok(plain) => Ok(Some(plain)),
            Err(SealError::KeyGone { .. }) => Ok(None),
            Err(error) => Err(StoreError::Corrupt { family: Family::Message, what: error.to_string() }),
        }
    }
}
