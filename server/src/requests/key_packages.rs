//! KeyPackages: what a device puts into the directory, and what others claim of it.

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::membership::Logs;
use gureum_proto::{AccountId, Code, DeviceId, Refusal, Response};

use super::{Answer, Requests};
use crate::mls;
use crate::router::{Change, Changed, ClaimPlan, KeyPackagesPlan};
use crate::session::Authenticated;
use crate::store::StoreError;
use crate::store::record::KeyPackageRecord;

impl Requests {
    pub(super) async fn put_key_packages(
        self: &Arc<Self>,
        from: Authenticated,
        packages: Vec<Bytes>,
        last_resort: Option<Bytes>,
        replace: bool,
    ) -> Answer {
        let (one_time, last_resort) = self
            .blocking(move |this| {
                let checked = this.by_logs(|logs| {
                    let check = |bytes: Bytes| this.check_key_package(from, logs, bytes);
                    let one_time = packages.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
                    Ok::<_, Refusal>((one_time, last_resort.map(check).transpose()?))
                })?;
                Ok(checked?)
            })
            .await?;
        let put = KeyPackagesPlan { from, one_time, last_resort, replace };
        match self.router.change(Change::PutKeyPackages(put)).await? {
            Changed::KeyPackagesStored(left) => Ok(Response::KeyPackagesStored { left }),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    fn check_key_package(
        &self,
        from: Authenticated,
        logs: &dyn Logs,
        package: Bytes,
    ) -> Result<([u8; 32], KeyPackageRecord), Refusal> {
        let info = mls::check_key_package(&package, from.account(), from.device(), logs, self.clock.now_ms())
            .map_err(|error| Refusal::with_detail(Code::KeyPackageInvalid, error.to_string()))?;
        Ok((info.hash, KeyPackageRecord { not_after_ms: info.not_after_ms, package }))
    }

    pub(super) async fn claim_key_packages(self: &Arc<Self>, from: Authenticated, accounts: Vec<AccountId>) -> Answer {
        self.quotas.claim(from.account())?;
        self.quotas.claim_of(from.account(), &accounts)?;
        let (of, unknown) = self
            .blocking(move |this| {
                let (mut of, mut unknown) = (Vec::with_capacity(accounts.len()), Vec::new());
                for account in accounts {
                    match this.devices_claimed(from, account)? {
                        Some(devices) => of.push((account, devices)),
                        None => unknown.push(account),
                    }
                }
                Ok((of, unknown))
            })
            .await?;
        if of.is_empty() {
            return Err(Refusal::with_detail(Code::NotFound, "no such account"));
        }
        match self.router.change(Change::ClaimKeyPackages(ClaimPlan { of })).await? {
            Changed::KeyPackages(mut claimed) => {
                claimed.missing.extend(unknown);
                Ok(Response::KeyPackages(claimed))
            }
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    /// The devices of an account that a claim is about: all active ones but the asker; `None` when there is no such account.
    fn devices_claimed(&self, from: Authenticated, account: AccountId) -> Result<Option<Vec<DeviceId>>, StoreError> {
        if self.directory.is_gone(account)? {
            return Ok(None);
        }
        let Some(log) = self.directory.log(account)? else { return Ok(None) };
        let is_own = account == from.account();
        let devices = log.active().map(|(device, _)| device).filter(|device| !is_own || *device != from.device());
        Ok(Some(devices.collect()))
    }
}
