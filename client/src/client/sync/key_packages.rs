//! KeyPackages: others' to begin conversations with, and this device's, so that others can.

use bytes::Bytes;
use gureum_proto::{AccountId, Code, DeviceId, KeyPackages, Request, Response};

use super::{ClientError, Left, Sync};
use crate::limits::{KEY_PACKAGES_FULL, KEY_PACKAGES_LOW};
use crate::link::LinkError;
use crate::vault::Vault;

impl Sync {
    /// Those of some accounts' devices; of the own account, of the other devices.
    pub(super) async fn claim(&self, accounts: Vec<AccountId>) -> Result<KeyPackages, ClientError> {
        match self.link.request(&Request::ClaimKeyPackages { accounts }).await? {
            Response::KeyPackages(packages) => Ok(packages),
            _ => Err(ClientError::Mismatched),
        }
    }

    /// Those of this account's other devices. One that has none yet joins by a commit of its own.
    pub(super) async fn claim_own(&self) -> Result<Vec<(DeviceId, Bytes)>, ClientError> {
        let own = self.identity.account;
        Ok(self.claim_if_any(vec![own]).await?.of(own).collect())
    }

    /// Those of some accounts' devices, of which there may be none.
    pub(super) async fn claim_if_any(&self, accounts: Vec<AccountId>) -> Result<KeyPackages, ClientError> {
        match self.claim(accounts.clone()).await {
            Err(ClientError::Link(LinkError::Refused(refusal))) if refusal.code == Code::KeyPackagesExhausted => {
                Ok(KeyPackages { packages: Vec::new(), missing: accounts })
            }
            packages => packages,
        }
    }

    /// What runs out by time while a connection lasts.
    pub(crate) async fn keep_up(&self) -> Result<Left, ClientError> {
        self.refill(false).await
    }

    /// Looks how many KeyPackages the directory has of this device, and fills it.
    pub(crate) async fn refill(&self, last_resort_used: bool) -> Result<Left, ClientError> {
        let mut left = Left::default();
        // To put none is to ask how many there are.
        match self.put_key_packages(Vec::new(), None, false).await {
            Ok(stored) => left.note(self.fill_key_packages(stored, last_resort_used).await)?,
            Err(error) => left.note(Err(error))?,
        }
        Ok(left)
    }

    /// Fills the directory with KeyPackages when it runs low or they grow old, so that others can begin conversations; and
    /// with a last resort when that was used or grows old.
    pub(super) async fn fill_key_packages(&self, left: u32, last_resort_used: bool) -> Result<(), ClientError> {
        let are_old = self.vault.call(Vault::key_packages_due).await?;
        let count = match (are_old, left < KEY_PACKAGES_LOW) {
            (true, _) => KEY_PACKAGES_FULL,
            (false, true) => KEY_PACKAGES_FULL.saturating_sub(left),
            (false, false) => 0,
        };
        if let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) {
            let key_packages = self.vault.call(move |vault| vault.make_key_packages(count)).await?;
            // Whatever else of this device is there is as old, or older.
            self.put_key_packages(key_packages, None, are_old).await?;
        }
        if are_old || last_resort_used || self.vault.call(Vault::last_resort_due).await? {
            // By itself: a last resort that is refused must not cost the others.
            let last_resort = self.vault.call(Vault::make_last_resort).await?;
            self.put_key_packages(Vec::new(), Some(last_resort), false).await?;
        }
        Ok(())
    }

    /// Returns how many one-time ones the directory has now.
    async fn put_key_packages(
        &self,
        key_packages: Vec<Bytes>,
        last_resort: Option<Bytes>,
        replace: bool,
    ) -> Result<u32, ClientError> {
        match self.link.request(&Request::PutKeyPackages { key_packages, last_resort, replace }).await? {
            Response::KeyPackagesStored { left } => Ok(left),
            _ => Err(ClientError::Mismatched),
        }
    }
}
