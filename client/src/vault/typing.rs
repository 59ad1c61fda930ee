//! Typing indicators: sealed and opened by the keys that a conversation has now. Nothing of them is kept.

use gureum_proto::{ConversationId, Handle, LeafIdentity, Typing};
use rusqlite::{Connection, OptionalExtension, params};

use super::relations::is_blocked;
use super::settings::typing_on;
use super::work::ACTIVE;
use super::{Vault, VaultError};
use crate::e2ee::Mls;

impl Vault {
    /// Says that this device's person types in a conversation, or has stopped. `None` where nothing is said: it is turned
    /// off, nothing may be encrypted there now, or who would hear it is blocked.
    ///
    /// # Errors
    /// The database failed.
    pub fn seal_typing(&mut self, conversation: ConversationId, types: bool) -> Result<Option<Typing>, VaultError> {
        let transaction = self.connection.transaction()?;
        if !typing_on(&transaction)? || !is_sound(&transaction, conversation)? {
            return Ok(None);
        }
        let mls = Mls::new(&transaction, &self.crypto, &self.signer, leaf(&self.identity));
        let Some(group) = mls.load(conversation)? else { return Ok(None) };
        Ok(Some(mls.seal_typing(&group, conversation, types)?))
    }

    /// Who types, or has stopped, as somebody in the conversation says; `None` for what is turned off, or does not hold.
    ///
    /// # Errors
    /// The database failed.
    pub fn open_typing(&mut self, typing: &Typing) -> Result<Option<(Handle, bool)>, VaultError> {
        let transaction = self.connection.transaction()?;
        let is_own = typing.account == self.identity.account;
        if is_own || !typing_on(&transaction)? || !is_sound(&transaction, typing.conversation)? {
            return Ok(None);
        }
        if is_blocked(&transaction, typing.account)? {
            return Ok(None);
        }
        let mls = Mls::new(&transaction, &self.crypto, &self.signer, leaf(&self.identity));
        let Some(group) = mls.load(typing.conversation)? else { return Ok(None) };
        let Some(types) = mls.open_typing(&group, typing)? else { return Ok(None) };
        let sql = "SELECT handle FROM contact WHERE account = ?1";
        let handle: Option<String> =
            transaction.query_row(sql, params![typing.account.as_bytes()], |row| row.get(0)).optional()?;
        let Some(handle) = handle else { return Ok(None) };
        Ok(Some((handle.parse().map_err(|_| VaultError::Damaged("handle"))?, types)))
    }
}

/// Whether this device's keys are those that a conversation has now, and nobody has them who should not, nor is it with
/// somebody who is blocked.
fn is_sound(connection: &Connection, conversation: ConversationId) -> Result<bool, VaultError> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM conversation c WHERE c.id = ?1 AND c.state = {ACTIVE} AND c.must_rejoin = 0
                        AND NOT EXISTS (SELECT 1 FROM to_remove r WHERE r.conversation = c.id)
                        AND NOT EXISTS (SELECT 1 FROM relation b WHERE b.account = c.peer AND b.relation = 3))"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row(params![conversation.as_bytes()], |row| row.get(0))?)
}

fn leaf(identity: &super::Identity) -> LeafIdentity {
    LeafIdentity { account: identity.account, device: identity.device, log_entry: identity.log_entry }
}
