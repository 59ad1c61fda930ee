//! The conversation of this account's own devices: begun by whichever first sees that there are two.

use super::{ClientError, Left, Sync};
use crate::vault::{BeginError, Vault};

impl Sync {
    /// Begins it if the account has other devices and there is none as far as this device knows: the server has one for an
    /// account, and shows it to whoever begins another.
    pub(crate) async fn begin_own(&self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        if self.vault.call(Vault::own_conversation).await?.is_none() {
            left.note(self.try_begin_own().await)?;
        }
        Ok(left)
    }

    async fn try_begin_own(&self) -> Result<(), ClientError> {
        if !self.has_other_devices().await? {
            return Ok(());
        }
        let packages = self.claim_own().await?;
        match self.vault.call(move |vault| vault.begin_own_conversation(&packages)).await {
            Ok(create) => self.create(create).await,
            // Another process of this home was faster.
            Err(ClientError::Begin(BeginError::Exists(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
