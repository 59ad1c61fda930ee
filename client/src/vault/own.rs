//! The conversation of this account's own devices, in which they tell one another what they are to have in common.
//!
//! There is one for an account, made by whichever device first sees that there are two. Nobody is told anything of it, and
//! nothing in it is lost that the devices do not have still: where the server has gone back, it is begun anew, or joined
//! as it is there. A device that has been revoked since is removed again before anything is encrypted.

use std::collections::BTreeMap;

use bytes::Bytes;
use gureum_proto::{ConversationId, ConversationWith, CreateConversation, DeviceId};
use rusqlite::{OptionalExtension, params};

use super::conversations::{check_package, drop_conversation, put_created, shown};
use super::key::random;
use super::maker::drop_pending;
use super::outbox::forget_silent;
use super::work::{ACTIVE, OWN, ROW, Row, Work, read_row};
use super::{BeginError, Conversation, Vault, VaultError};

impl Vault {
    /// The conversation of this account's own devices, if there is one as far as this device knows.
    ///
    /// # Errors
    /// The database failed.
    pub fn own_conversation(&mut self) -> Result<Option<Conversation>, VaultError> {
        self.write(|work| Ok(work.own_row()?.map(shown)))
    }

    /// Begins that conversation with those of the account's other devices that have a KeyPackage here; the others join by
    /// themselves. To be ended as one with somebody else is.
    ///
    /// # Errors
    /// There is one already.
    pub fn begin_own_conversation(&mut self, packages: &[(DeviceId, Bytes)]) -> Result<CreateConversation, BeginError> {
        self.write(|work| {
            if let Some(row) = work.own_row()? {
                return Err(BeginError::Exists(row.id));
            }
            let (own, this, mut checked) = (work.identity.account, work.identity.device, BTreeMap::new());
            for (device, bytes) in packages.iter().filter(|(device, _)| *device != this) {
                match check_package(work, own, *device, bytes) {
                    Ok(package) => {
                        checked.insert(*device, package);
                    }
                    Err(BeginError::KeyPackage { why, .. }) => {
                        tracing::warn!(%device, %why, "a device's key package is not used");
                    }
                    Err(error) => return Err(error),
                }
            }
            let id = ConversationId::from_bytes(*random()?);
            let created = work.mls().create(id, checked.into_values().collect(), None).map_err(VaultError::from)?;
            Ok(put_created(work, Row::own(id), ConversationWith::Own, created)?)
        })
    }
}

impl Work<'_> {
    /// The row of that conversation; the one that is in use, where the server has shown several.
    pub(super) fn own_row(&self) -> Result<Option<Row>, VaultError> {
        let sql = format!("{ROW} FROM conversation WHERE kind = {OWN} ORDER BY state != {ACTIVE}, id LIMIT 1");
        Ok(self.connection.prepare_cached(&sql)?.query_row([], read_row).optional()?)
    }

    /// Whether anybody else is in it.
    pub(super) fn has_company(&self, conversation: ConversationId) -> Result<bool, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM roster WHERE conversation = ?1 AND device != ?2)";
        let row = params![conversation.as_bytes(), self.identity.device.as_bytes()];
        Ok(self.connection.prepare_cached(sql)?.query_row(row, |row| row.get(0))?)
    }

    /// The server shows an older state of it, or none: what it shows when it is asked again is what there is.
    pub(super) fn forget_own(&mut self, conversation: ConversationId) -> Result<(), VaultError> {
        drop_pending(self, conversation)?;
        forget_silent(self, conversation)?;
        self.rewind_history()?;
        self.asked.forget_commits(conversation);
        self.connection.execute("DELETE FROM foretold WHERE conversation = ?1", params![conversation.as_bytes()])?;
        drop_conversation(self, conversation)
    }
}
