//! The end of this account: the server forgets it, and this home keeps its history.

use gureum_proto::{Code, Handle, Request};

use super::Client;
use super::error::ClientError;
use super::vault_handle::VaultHandle;
use crate::vault::Vault;

impl Client {
    /// Deletes this account: the server drops everything that it holds of it, its devices are cut off, and those who talk with
    /// it are told when they write next. It cannot be undone, also not by the recovery words; the handle stays taken. The
    /// history stays in this home.
    ///
    /// # Errors
    /// The handle is not this account's own, which is asked for so that nobody deletes another one than they mean; or the
    /// server cannot be reached.
    pub async fn delete_account(&self, handle: &Handle) -> Result<(), ClientError> {
        if *handle != self.identity.handle {
            return Err(ClientError::OtherHandle { given: handle.clone(), own: self.identity.handle.clone() });
        }
        match self.ask_done(&Request::DeleteAccount { handle: handle.clone() }).await {
            Ok(_) => (),
            // The connections end with the account, maybe before the answer is there; or it was gone already.
            Err(error) if error.code() == Some(Code::AccountGone) => (),
            Err(error) => return Err(error),
        }
        self.vault.call(Vault::mark_deleted).await
    }

    pub(super) async fn refuse_deleted(&self) -> Result<(), ClientError> {
        refuse_deleted(&self.vault).await
    }
}

/// Whoever was deleted here need not ask the server.
pub(super) async fn refuse_deleted(vault: &VaultHandle) -> Result<(), ClientError> {
    if vault.call(Vault::is_deleted).await? { Err(ClientError::Deleted) } else { Ok(()) }
}
