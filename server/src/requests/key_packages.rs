//! KeyPackages: what a device puts into the directory, and what others claim of it.

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::membership::Logs;
use gureum_proto::{AccountId, Code, Refusal, Response};

use super::{Answer, Requests};
use crate::mls;
use crate::router::{Change, Changed};
use crate::session::Authenticated;
use crate::store::record::KeyPackageRecord;

impl Requests {
    pub(super) async fn put_key_packages(
        self: &Arc<Self>,
        from: Authenticated,
        packages: Vec<Bytes>,
        last_resort: Option<Bytes>,
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
        match self.router.change(Change::PutKeyPackages { from, one_time, last_resort }).await? {
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

    pub(super) async fn claim_key_packages(self: &Arc<Self>, from: Authenticated, account: AccountId) -> Answer {
        self.quotas.claim(from.account())?;
        let log = self.blocking(move |this| Ok(this.directory.log(account)?)).await?;
        let log = log.ok_or_else(|| Refusal::with_detail(Code::NotFound, "no such account"))?;
        let is_own = account == from.account();
        let devices =
            log.active().map(|(device, _)| device).filter(|device| !is_own || *device != from.device()).collect();
        match self.router.change(Change::ClaimKeyPackages { account, devices }).await? {
            Changed::KeyPackages(packages) => Ok(Response::KeyPackages(packages)),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }
}
