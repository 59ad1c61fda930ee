//! KeyPackages: others' to begin conversations with, and this device's, so that others can.

use bytes::Bytes;
use gureum_proto::{AccountId, Code, DeviceId, Request, Response};

use super::{ClientError, Left, Sync};
use crate::limits::{KEY_PACKAGES_FULL, KEY_PACKAGES_LOW};
use crate::link::LinkError;
use crate::vault::Vault;

impl Sync {
    pub(super) async fn claim(&self, account: AccountId) -> Result<Vec<(DeviceId, Bytes)>, ClientError> {
        match self.link.request(&Request::ClaimKeyPackages { account }).await? {
            Response::KeyPackages(packages) => Ok(packages),
            _ => Err(ClientError::Mismatched),
        }
    }

    /// Those of this account's other devices. One that has none yet joins by a commit of its own.
    pub(super) async fn claim_own(&self) -> Result<Vec<(DeviceId, Bytes)>, ClientError> {
        self.claim_if_any(self.identity.account).await
    }

    /// Those of an account's devices, of which there may be none.
    pub(super) async fn claim_if_any(&self, account: AccountId) -> Result<Vec<(DeviceId, Bytes)>, ClientError> {
        match self.claim(account).await {
            Err(ClientError::Link(LinkError::Refused(refusal))) if refusal.code == Code::KeyPackagesExhausted => {
                Ok(Vec::new())
            }
            packages => packages,
        }
    }

    /// What runs out by time while a connection lasts.
    pub(crate) async fn keep_up(&self) -> Result<Left, ClientError> {
        let mut left = Left::default();
        // To put none is to ask how many there are.
        match self.put_key_packages(Vec::new(), None).await {
            Ok(stored) => left.note(self.fill_key_packages(stored).await)?,
            Err(error) => left.note(Err(error))?,
        }
        Ok(left)
    }

    /// Fills the directory with KeyPackages when it runs low or they grow old, so that others can begin conversations.
    pub(super) async fn fill_key_packages(&self, left: u32) -> Result<(), ClientError> {
        let are_old = self.vault.call(Vault::key_packages_due).await?;
        let count = match (are_old, left < KEY_PACKAGES_LOW) {
            (true, _) => KEY_PACKAGES_FULL,
            (false, true) => KEY_PACKAGES_FULL.saturating_sub(left),
            (false, false) => return Ok(()),
        };
        let count = usize::try_from(count).unwrap_or(0);
        let key_packages = self.vault.call(move |vault| vault.make_key_packages(count)).await?;
        self.put_key_packages(key_packages, None).await?;
        // By itself: a last resort that is refused must not cost the others.
        let last_resort = self.vault.call(Vault::make_last_resort).await?;
        self.put_key_packages(Vec::new(), Some(last_resort)).await.map(drop)
    }

    /// Returns how many the directory has now.
    async fn put_key_packages(&self, key_packages: Vec<Bytes>, last_resort: Option<Bytes>) -> Result<u32, ClientError> {
        match self.link.request(&Request::PutKeyPackages { key_packages, last_resort }).await? {
            Response::KeyPackagesStored { left } => Ok(left),
            _ => Err(ClientError::Mismatched),
        }
    }
}
